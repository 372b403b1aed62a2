/* Symbols for what DPDK's headers give only inline; see shim.h. */
#define _GNU_SOURCE
#include <stdio.h>
#include <sys/types.h>

#include <rte_thash.h>

#include "shim.h"

uint16_t shim_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t count) {
    return rte_eth_rx_burst(port, queue, packets, count);
}

uint16_t shim_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t count) {
    return rte_eth_tx_burst(port, queue, packets, count);
}

struct rte_mbuf *shim_pktmbuf_alloc(struct rte_mempool *pool) {
    return rte_pktmbuf_alloc(pool);
}

int shim_pktmbuf_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **packets, unsigned count) {
    return rte_pktmbuf_alloc_bulk(pool, packets, count);
}

void shim_pktmbuf_free(struct rte_mbuf *packet) {
    rte_pktmbuf_free(packet);
}

void shim_pktmbuf_free_bulk(struct rte_mbuf **packets, unsigned count) {
    rte_pktmbuf_free_bulk(packets, count);
}

void *shim_pktmbuf_data(struct rte_mbuf *packet) {
    return rte_pktmbuf_mtod(packet, void *);
}

void *shim_pktmbuf_prepend(struct rte_mbuf *packet, uint16_t bytes) {
    return rte_pktmbuf_prepend(packet, bytes);
}

void *shim_pktmbuf_append(struct rte_mbuf *packet, uint16_t bytes) {
    return rte_pktmbuf_append(packet, bytes);
}

void *shim_pktmbuf_adj(struct rte_mbuf *packet, uint16_t bytes) {
    return rte_pktmbuf_adj(packet, bytes);
}

int shim_pktmbuf_trim(struct rte_mbuf *packet, uint16_t bytes) {
    return rte_pktmbuf_trim(packet, bytes);
}

int shim_pktmbuf_linearize(struct rte_mbuf *packet) {
    return rte_pktmbuf_linearize(packet);
}

uint32_t shim_pktmbuf_read(const struct rte_mbuf *packet, void *to, uint32_t length) {
    uint32_t copied = 0;

    for (; packet != NULL && copied < length; packet = packet->next) {
        uint32_t take = RTE_MIN(length - copied, (uint32_t)packet->data_len);

        memcpy((char *)to + copied, rte_pktmbuf_mtod(packet, const void *), take);
        copied += take;
    }
    return copied;
}

struct rte_mbuf *shim_pktmbuf_copy(const struct rte_mbuf *packet, struct rte_mempool *pool, uint32_t offset,
                                   uint32_t length) {
    return rte_pktmbuf_copy(packet, pool, offset, length);
}

int shim_vlan_insert(struct rte_mbuf **packet) {
    return rte_vlan_insert(packet);
}

unsigned shim_lcore_id(void) {
    return rte_lcore_id();
}

uint64_t shim_rdtsc(void) {
    return rte_rdtsc();
}

int shim_errno(void) {
    return rte_errno;
}

static shim_log_sink log_sink;

static ssize_t log_write(void *cookie, const char *text, size_t bytes) {
    (void)cookie;
    log_sink((uint32_t)rte_log_cur_msg_loglevel(), text, bytes);
    return (ssize_t)bytes;
}

int shim_log_open(shim_log_sink sink) {
    cookie_io_functions_t functions = {.write = log_write};
    FILE *stream = fopencookie(NULL, "w", functions);

    if (stream == NULL)
        return -1;
    log_sink = sink;
    return rte_openlog_stream(stream);
}

int shim_link(uint16_t port, uint32_t *speed, uint8_t *up, uint8_t *full_duplex) {
    struct rte_eth_link link;
    int result;

    memset(&link, 0, sizeof(link));
    result = rte_eth_link_get_nowait(port, &link);
    if (result != 0)
        return result;
    *speed = link.link_speed;
    *up = link.link_status == RTE_ETH_LINK_UP;
    *full_duplex = link.link_duplex == RTE_ETH_LINK_FULL_DUPLEX;
    return 0;
}

uint32_t shim_softrss(uint32_t *words, uint32_t count, const uint32_t *key) {
    return rte_softrss(words, count, (const uint8_t *)key);
}

uint32_t shim_softrss_be(uint32_t *words, uint32_t count, const uint32_t *key, uint32_t *room) {
    rte_convert_rss_key(key, room, (int)(count + 1) * 4);
    return rte_softrss_be(words, count, (const uint8_t *)room);
}
