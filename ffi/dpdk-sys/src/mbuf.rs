//! The fields of `struct rte_mbuf` that are read and written for every packet, at the offsets DPDK's ABI fixes.
//!
//! Drivers with vector receive paths write these fields with fixed offsets, so DPDK keeps them from release to release
//! while the names of the unions around them change. Every offset is still asserted against the installed headers:
//! a DPDK that moves one is refused when compiling, not met as corrupted packets.

use std::ffi::c_void;

use memoffset::offset_of;

use crate::bindings as sys;

/// The first 64 bytes (one cache line) of `struct rte_mbuf`, the parts in between left unnamed.
#[repr(C)]
#[derive(Debug)]
pub struct MbufHead {
    /// Start of the buffer, its headroom included.
    pub buf_addr: *mut c_void,
    iova_or_next: u64,
    /// Bytes from `buf_addr` to the packet's first byte.
    pub data_off: u16,
    /// References to this segment; atomic on the C side.
    pub refcnt: u16,
    /// Segments of this packet, this one included.
    pub nb_segs: u16,
    /// The port that received the packet.
    pub port: u16,
    /// What the driver found out about the packet (`SHIM_RX_*`).
    pub ol_flags: u64,
    /// What the driver says the packet is.
    pub packet_type: u32,
    /// Bytes in all segments.
    pub pkt_len: u32,
    /// Bytes in this segment.
    pub data_len: u16,
    /// The VLAN tag's TCI (host order) that the driver took out, where `SHIM_RX_VLAN_STRIPPED` is set.
    pub vlan_tci: u16,
    /// The receive hash, where `SHIM_RX_RSS_HASH` is set.
    pub rss: u32,
    flow_high: u32,
    vlan_tci_outer: u16,
    /// Bytes of the buffer, its headroom included.
    /// The pool it came from.
    pub buf_len: u16,
    pub pool: *mut c_void,
}

/// Asserts, when compiling, that a field of `MbufHead` lies where the installed DPDK has it.
macro_rules! lies_at {
    ($($field:ident = $constant:ident),* $(,)?) => {
        $(const _: () = assert!(offset_of!(MbufHead, $field) == sys::$constant as usize);)*
    };
}

lies_at! {
    buf_addr = SHIM_MBUF_BUF_ADDR,
    data_off = SHIM_MBUF_DATA_OFF,
    refcnt = SHIM_MBUF_REFCNT,
    nb_segs = SHIM_MBUF_NB_SEGS,
    port = SHIM_MBUF_PORT,
    ol_flags = SHIM_MBUF_OL_FLAGS,
    packet_type = SHIM_MBUF_PACKET_TYPE,
    pkt_len = SHIM_MBUF_PKT_LEN,
    data_len = SHIM_MBUF_DATA_LEN,
    vlan_tci = SHIM_MBUF_VLAN_TCI,
    rss = SHIM_MBUF_HASH_RSS,
    buf_len = SHIM_MBUF_BUF_LEN,
}
const _: () = assert!(size_of::<MbufHead>() == 64, "the view covers one cache line");
const _: () = assert!(sys::SHIM_MBUF_SIZE as usize >= size_of::<MbufHead>());
const _: () =
    assert!(sys::SHIM_MBUF_NEXT as usize + size_of::<*mut sys::rte_mbuf>() <= sys::SHIM_MBUF_SIZE as usize);

/// The segment that follows `segment` in its packet, or null. (`next` moved into the first cache line with builds that
/// keep no physical addresses, so it is reached by the installed header's offset.)
///
/// # Safety
/// `segment` points to a live `rte_mbuf` that no other thread writes.
#[inline]
pub unsafe fn segment_after(segment: *const sys::rte_mbuf) -> *mut sys::rte_mbuf {
    // SAFETY: the caller vouches for `segment`; the offset lies within it by the assertion above and is aligned as
    // the compiler of the shim laid the pointer out.
    unsafe { segment.byte_add(sys::SHIM_MBUF_NEXT as usize).cast::<*mut sys::rte_mbuf>().read() }
}
