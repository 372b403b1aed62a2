/*
 * What the bindings are generated from: the DPDK headers that the safe wrapper needs, and the functions and
 * constants that exist in them only as `static inline` or as macros, given a symbol here.
 */
#ifndef WEIR_DPDK_SHIM_H
#define WEIR_DPDK_SHIM_H

#include <stddef.h>
#include <stdint.h>

#include <rte_config.h>
#include <rte_cycles.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_ether.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_malloc.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_version.h>

/* Where the fields of struct rte_mbuf lie in the installed DPDK; lib.rs asserts its own view against them. */
enum shim_mbuf_layout {
    SHIM_MBUF_SIZE = sizeof(struct rte_mbuf),
    SHIM_MBUF_BUF_ADDR = offsetof(struct rte_mbuf, buf_addr),
    SHIM_MBUF_DATA_OFF = offsetof(struct rte_mbuf, data_off),
    SHIM_MBUF_REFCNT = offsetof(struct rte_mbuf, refcnt),
    SHIM_MBUF_NB_SEGS = offsetof(struct rte_mbuf, nb_segs),
    SHIM_MBUF_PORT = offsetof(struct rte_mbuf, port),
    SHIM_MBUF_OL_FLAGS = offsetof(struct rte_mbuf, ol_flags),
    SHIM_MBUF_PACKET_TYPE = offsetof(struct rte_mbuf, packet_type),
    SHIM_MBUF_PKT_LEN = offsetof(struct rte_mbuf, pkt_len),
    SHIM_MBUF_DATA_LEN = offsetof(struct rte_mbuf, data_len),
    SHIM_MBUF_VLAN_TCI = offsetof(struct rte_mbuf, vlan_tci),
    SHIM_MBUF_HASH_RSS = offsetof(struct rte_mbuf, hash.rss),
    SHIM_MBUF_BUF_LEN = offsetof(struct rte_mbuf, buf_len),
    SHIM_MBUF_NEXT = offsetof(struct rte_mbuf, next),
};

/* Macros that bindgen cannot evaluate on its own. */
static const uint64_t SHIM_RX_VLAN_STRIPPED = RTE_MBUF_F_RX_VLAN_STRIPPED;
static const uint64_t SHIM_RX_RSS_HASH = RTE_MBUF_F_RX_RSS_HASH;
static const uint64_t SHIM_RX_IP_CKSUM_MASK = RTE_MBUF_F_RX_IP_CKSUM_MASK;
static const uint64_t SHIM_RX_IP_CKSUM_BAD = RTE_MBUF_F_RX_IP_CKSUM_BAD;
static const uint64_t SHIM_RX_IP_CKSUM_GOOD = RTE_MBUF_F_RX_IP_CKSUM_GOOD;
static const uint64_t SHIM_RX_IP_CKSUM_NONE = RTE_MBUF_F_RX_IP_CKSUM_NONE;
static const uint64_t SHIM_RX_L4_CKSUM_MASK = RTE_MBUF_F_RX_L4_CKSUM_MASK;
static const uint64_t SHIM_RX_L4_CKSUM_BAD = RTE_MBUF_F_RX_L4_CKSUM_BAD;
static const uint64_t SHIM_RX_L4_CKSUM_GOOD = RTE_MBUF_F_RX_L4_CKSUM_GOOD;
static const uint64_t SHIM_RX_L4_CKSUM_NONE = RTE_MBUF_F_RX_L4_CKSUM_NONE;
static const uint64_t SHIM_RX_OFFLOAD_SCATTER = RTE_ETH_RX_OFFLOAD_SCATTER;
static const uint64_t SHIM_RX_OFFLOAD_CHECKSUM = RTE_ETH_RX_OFFLOAD_CHECKSUM;
static const uint64_t SHIM_RX_OFFLOAD_RSS_HASH = RTE_ETH_RX_OFFLOAD_RSS_HASH;
static const uint64_t SHIM_RSS_IP = RTE_ETH_RSS_IP;
static const uint64_t SHIM_RSS_TCP = RTE_ETH_RSS_TCP;
static const uint64_t SHIM_RSS_UDP = RTE_ETH_RSS_UDP;
static const uint64_t SHIM_RSS_SCTP = RTE_ETH_RSS_SCTP;
/* As bit numbers: bindgen takes a constant with the topmost bit for a variable. */
static const uint32_t SHIM_RSS_L3_SRC_ONLY_BIT = __builtin_ctzll(RTE_ETH_RSS_L3_SRC_ONLY);
static const uint32_t SHIM_RSS_L3_DST_ONLY_BIT = __builtin_ctzll(RTE_ETH_RSS_L3_DST_ONLY);
static const uint32_t SHIM_MQ_RX_NONE = RTE_ETH_MQ_RX_NONE;
static const uint32_t SHIM_MQ_RX_RSS = RTE_ETH_MQ_RX_RSS;
static const uint16_t SHIM_MBUF_HEADROOM = RTE_PKTMBUF_HEADROOM;
static const uint16_t SHIM_RETA_GROUP = RTE_ETH_RETA_GROUP_SIZE;
static const uint32_t SHIM_MAX_LCORE = RTE_MAX_LCORE;
static const uint32_t SHIM_LCORE_ID_ANY = LCORE_ID_ANY;
static const uint16_t SHIM_MAX_ETHPORTS = RTE_MAX_ETHPORTS;
static const uint32_t SHIM_LOG_WARNING = RTE_LOG_WARNING;
static const uint32_t SHIM_MEMPOOL_NAMESIZE = RTE_MEMPOOL_NAMESIZE;
static const uint32_t SHIM_MEMPOOL_CACHE_MAX = RTE_MEMPOOL_CACHE_MAX_SIZE;

/* The packet path. */
uint16_t shim_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t count);
uint16_t shim_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t count);

/* Packets. Each does what the inline function of the same name does. */
struct rte_mbuf *shim_pktmbuf_alloc(struct rte_mempool *pool);
int shim_pktmbuf_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **packets, unsigned count);
void shim_pktmbuf_free(struct rte_mbuf *packet);
void shim_pktmbuf_free_bulk(struct rte_mbuf **packets, unsigned count);
void *shim_pktmbuf_data(struct rte_mbuf *packet);
void *shim_pktmbuf_prepend(struct rte_mbuf *packet, uint16_t bytes);
void *shim_pktmbuf_append(struct rte_mbuf *packet, uint16_t bytes);
void *shim_pktmbuf_adj(struct rte_mbuf *packet, uint16_t bytes);
int shim_pktmbuf_trim(struct rte_mbuf *packet, uint16_t bytes);
int shim_pktmbuf_linearize(struct rte_mbuf *packet);
/* Copies min(length, packet length) bytes from the start of all segments into `to`; returns the bytes copied. */
uint32_t shim_pktmbuf_read(const struct rte_mbuf *packet, void *to, uint32_t length);
struct rte_mbuf *shim_pktmbuf_copy(const struct rte_mbuf *packet, struct rte_mempool *pool, uint32_t offset,
                                   uint32_t length);
int shim_vlan_insert(struct rte_mbuf **packet);

/* The calling thread and its clock. */
unsigned shim_lcore_id(void);
uint64_t shim_rdtsc(void);
int shim_errno(void);

/*
 * Sends DPDK's log to `sink` (level, text, bytes of text) instead of to the console and syslog; `sink` is called
 * by whichever thread logs. Returns 0, or -1 with errno set.
 */
typedef void (*shim_log_sink)(uint32_t level, const char *text, size_t bytes);
int shim_log_open(shim_log_sink sink);

/* The link of a port, whose struct differs between releases: speed in Mbit/s, up and duplex as 0 or 1. */
int shim_link(uint16_t port, uint32_t *speed, uint8_t *up, uint8_t *full_duplex);

/*
 * DPDK's own Toeplitz hashes over `count` words in host order. The key has count + 1 words, its bytes as they are given
 * to a device; the second variant converts them into `room`, which has as many.
 */
uint32_t shim_softrss(uint32_t *words, uint32_t count, const uint32_t *key);
uint32_t shim_softrss_be(uint32_t *words, uint32_t count, const uint32_t *key, uint32_t *room);

#endif
