//! A packet: its bytes, lengths and what the driver found out about it. Dropping it gives the buffer back.

use std::ptr::NonNull;

use dpdk_sys as sys;
use dpdk_sys::MbufHead;

use crate::pool::Pool;

/// Why a packet could not be changed; it is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MbufError {
    /// There is no room before or behind the packet's bytes.
    #[error("{wanted} bytes do not fit: the buffer has room for {room} more there")]
    NoRoom {
        /// Bytes wanted.
        wanted: usize,
        /// Bytes there are.
        room: usize,
    },
    /// More bytes are to be cut off than there are.
    #[error("{wanted} bytes cannot be cut off: the packet has {length} there")]
    TooShort {
        /// Bytes to cut.
        wanted: usize,
        /// Bytes there are.
        length: usize,
    },
    /// The packet is longer than a buffer of the pool.
    #[error("a packet of {length} bytes does not fit a buffer of {room}")]
    TooLong {
        /// Bytes of the packet.
        length: usize,
        /// Room of a buffer.
        room: usize,
    },
    /// No buffer is free.
    #[error("the pool has no free buffer")]
    PoolEmpty,
    /// A VLAN tag cannot be put back: the packet has no Ethernet header or its buffer is shared.
    #[error("the VLAN tag cannot be put back into this packet")]
    Vlan,
}

/// What the device found when it verified a checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChecksumStatus {
    /// It did not look: verify it yourself.
    Unknown,
    /// It is right.
    Good,
    /// It is wrong.
    Bad,
    /// It is not right in the bytes, but the data was verified (a virtual device).
    NotNeeded,
}

/// One packet. Its bytes are in one piece: receiving sees to that, and nothing here takes it apart.
///
/// `Send`, because a packet has one owner and its pool takes buffers back on any thread; `Sync`, because shared references
/// only read.
#[repr(transparent)]
pub struct Mbuf(NonNull<sys::rte_mbuf>);

// SAFETY: see the type's documentation.
unsafe impl Send for Mbuf {}
// SAFETY: see the type's documentation.
unsafe impl Sync for Mbuf {}

impl Drop for Mbuf {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: this owns the packet, all its segments included.
        unsafe { sys::shim_pktmbuf_free(self.0.as_ptr()) };
    }
}

impl std::fmt::Debug for Mbuf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mbuf").field("len", &self.len()).field("port", &self.port()).finish_non_exhaustive()
    }
}

impl Mbuf {
    /// # Safety
    /// `raw` is a packet of a live pool, owned by nobody else.
    #[inline]
    pub(crate) unsafe fn from_raw(raw: NonNull<sys::rte_mbuf>) -> Self {
        Self(raw)
    }

    #[inline]
    fn head(&self) -> &MbufHead {
        // SAFETY: `MbufHead` is asserted to lie over `rte_mbuf` as DPDK has it; the packet is owned, so nobody writes it.
        unsafe { self.0.cast::<MbufHead>().as_ref() }
    }

    /// The packet's bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        let head = self.head();
        // SAFETY: DPDK keeps `data_off + data_len <= buf_len`; the buffer is mapped and initialised memory of the pool
        // and lives as long as the packet.
        unsafe {
            let start = head.buf_addr.cast::<u8>().add(usize::from(head.data_off));
            std::slice::from_raw_parts(start, usize::from(head.data_len))
        }
    }

    /// The packet's bytes, to be changed.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let head = self.head();
        // SAFETY: as in `bytes`; the exclusive borrow is the only access, as received and allocated buffers are not shared.
        unsafe {
            let start = head.buf_addr.cast::<u8>().add(usize::from(head.data_off));
            std::slice::from_raw_parts_mut(start, usize::from(head.data_len))
        }
    }

    /// Asks the CPU to fetch the first cache line of the packet's bytes.
    #[inline]
    pub fn prefetch(&self) {
        let head = self.head();
        prefetch_line(head.buf_addr.cast::<u8>().wrapping_add(usize::from(head.data_off)));
    }

    /// Likewise, and both lines of the `rte_mbuf`, none of which it reads: for a packet that another CPU has written.
    /// The bytes are looked for where a received packet has them, at the usual headroom.
    #[inline]
    pub fn prefetch_unread(&self) {
        let own = self.0.as_ptr().cast::<u8>();
        let data = size_of::<sys::rte_mbuf>() + usize::from(sys::SHIM_MBUF_HEADROOM);
        for offset in [0, 64, data] {
            prefetch_line(own.wrapping_add(offset));
        }
    }

    /// The packet's length in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        // A u32 fits; DPDK runs on no 16-bit machine.
        self.head().pkt_len as usize
    }

    /// Whether it has no bytes.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether its bytes are in one piece. True for every packet that this crate hands out.
    #[inline]
    pub fn is_contiguous(&self) -> bool {
        self.head().nb_segs == 1
    }

    /// Bytes free before the packet.
    pub fn headroom(&self) -> usize {
        usize::from(self.head().data_off)
    }

    /// Bytes free behind the packet.
    pub fn tailroom(&self) -> usize {
        let head = self.head();
        usize::from(head.buf_len).saturating_sub(usize::from(head.data_off) + usize::from(head.data_len))
    }

    /// The number of the port that received it.
    #[inline]
    pub fn port(&self) -> u16 {
        self.head().port
    }

    /// The receive hash the device computed, if it did.
    #[inline]
    pub fn rss_hash(&self) -> Option<u32> {
        let head = self.head();
        (head.ol_flags & sys::SHIM_RX_RSS_HASH != 0).then_some(head.rss)
    }

    /// What the device found of the IPv4 header checksum.
    #[inline]
    pub fn ip_checksum(&self) -> ChecksumStatus {
        match self.head().ol_flags & sys::SHIM_RX_IP_CKSUM_MASK {
            sys::SHIM_RX_IP_CKSUM_GOOD => ChecksumStatus::Good,
            sys::SHIM_RX_IP_CKSUM_BAD => ChecksumStatus::Bad,
            sys::SHIM_RX_IP_CKSUM_NONE => ChecksumStatus::NotNeeded,
            _ => ChecksumStatus::Unknown,
        }
    }

    /// What the device found of the TCP, UDP or SCTP checksum.
    #[inline]
    pub fn l4_checksum(&self) -> ChecksumStatus {
        match self.head().ol_flags & sys::SHIM_RX_L4_CKSUM_MASK {
            sys::SHIM_RX_L4_CKSUM_GOOD => ChecksumStatus::Good,
            sys::SHIM_RX_L4_CKSUM_BAD => ChecksumStatus::Bad,
            sys::SHIM_RX_L4_CKSUM_NONE => ChecksumStatus::NotNeeded,
            _ => ChecksumStatus::Unknown,
        }
    }

    /// Grows the packet by `count` zero bytes at its start.
    ///
    /// # Errors
    /// [`MbufError::NoRoom`].
    pub fn prepend(&mut self, count: usize) -> Result<(), MbufError> {
        let failed = MbufError::NoRoom { wanted: count, room: self.headroom() };
        let length = u16::try_from(count).map_err(|_| failed)?;
        if usize::from(u16::MAX - self.head().data_len) < count {
            return Err(failed);
        }
        // SAFETY: the packet is owned; DPDK checks the room.
        let start = unsafe { sys::shim_pktmbuf_prepend(self.0.as_ptr(), length) };
        if start.is_null() {
            return Err(failed);
        }
        // SAFETY: `count` bytes from `start` are now the packet's.
        unsafe { start.cast::<u8>().write_bytes(0, count) };
        Ok(())
    }

    /// Grows the packet by `count` zero bytes at its end.
    ///
    /// # Errors
    /// [`MbufError::NoRoom`].
    pub fn append(&mut self, count: usize) -> Result<(), MbufError> {
        let failed = MbufError::NoRoom { wanted: count, room: self.tailroom() };
        let length = u16::try_from(count).map_err(|_| failed)?;
        // SAFETY: the packet is owned; DPDK checks the room.
        let start = unsafe { sys::shim_pktmbuf_append(self.0.as_ptr(), length) };
        if start.is_null() {
            return Err(failed);
        }
        // SAFETY: `count` bytes from `start` are now the packet's.
        unsafe { start.cast::<u8>().write_bytes(0, count) };
        Ok(())
    }

    /// Cuts `count` bytes off the packet's start.
    ///
    /// # Errors
    /// [`MbufError::TooShort`].
    pub fn adj(&mut self, count: usize) -> Result<(), MbufError> {
        let failed = MbufError::TooShort { wanted: count, length: self.bytes().len() };
        let length = u16::try_from(count).map_err(|_| failed)?;
        // SAFETY: the packet is owned; DPDK checks the length.
        let start = unsafe { sys::shim_pktmbuf_adj(self.0.as_ptr(), length) };
        if start.is_null() { Err(failed) } else { Ok(()) }
    }

    /// Cuts `count` bytes off the packet's end.
    ///
    /// # Errors
    /// [`MbufError::TooShort`].
    pub fn trim(&mut self, count: usize) -> Result<(), MbufError> {
        let failed = MbufError::TooShort { wanted: count, length: self.bytes().len() };
        let length = u16::try_from(count).map_err(|_| failed)?;
        // SAFETY: the packet is owned; DPDK checks the length.
        if unsafe { sys::shim_pktmbuf_trim(self.0.as_ptr(), length) } == 0 { Ok(()) } else { Err(failed) }
    }

    /// A packet of its own with the same bytes and the same findings of the driver.
    ///
    /// # Errors
    /// [`MbufError::TooLong`], [`MbufError::PoolEmpty`].
    pub fn duplicate(&self, pool: &Pool) -> Result<Self, MbufError> {
        let (length, room) = (self.len(), usize::from(pool.data_room()));
        if length > room {
            return Err(MbufError::TooLong { length, room });
        }
        // SAFETY: the packet and the pool are alive; a packet no longer than a buffer is copied into one.
        let raw = unsafe { sys::shim_pktmbuf_copy(self.0.as_ptr(), pool.raw(), 0, u32::MAX) };
        // SAFETY: a fresh buffer is owned by nobody else.
        NonNull::new(raw).map(|raw| unsafe { Self::from_raw(raw) }).ok_or(MbufError::PoolEmpty)
    }

    /// As [`Mbuf::duplicate`], from the pool that this packet came from.
    ///
    /// # Errors
    /// [`MbufError::PoolEmpty`].
    pub fn copy(&self) -> Result<Self, MbufError> {
        // SAFETY: the packet is alive, and with it its pool.
        let raw = unsafe { sys::shim_pktmbuf_copy(self.0.as_ptr(), self.head().pool.cast(), 0, u32::MAX) };
        // SAFETY: a fresh buffer is owned by nobody else.
        NonNull::new(raw).map(|raw| unsafe { Self::from_raw(raw) }).ok_or(MbufError::PoolEmpty)
    }

    /// Brings the packet into one piece: within its first buffer where that has room, else in a buffer of `large`.
    ///
    /// # Errors
    /// [`MbufError::TooLong`] (also where no pool is given), [`MbufError::PoolEmpty`].
    pub fn linearize(&mut self, large: Option<&Pool>) -> Result<(), MbufError> {
        if self.is_contiguous() {
            return Ok(());
        }
        // SAFETY: the packet is owned; DPDK checks the room, and changes nothing where there is none.
        if unsafe { sys::shim_pktmbuf_linearize(self.0.as_ptr()) } == 0 {
            return Ok(());
        }
        let copy = match large {
            Some(pool) => self.duplicate(pool)?,
            None => {
                return Err(MbufError::TooLong {
                    length: self.len(),
                    room: usize::from(self.head().buf_len),
                });
            }
        };
        *self = copy;
        Ok(())
    }

    /// Whether receiving has more to do: several segments, or a VLAN tag taken out.
    #[inline]
    pub(crate) fn is_unfinished(&self) -> bool {
        let head = self.head();
        (head.nb_segs != 1) | (head.ol_flags & sys::SHIM_RX_VLAN_STRIPPED != 0)
    }

    /// Puts a VLAN tag that the driver took out back where it was on the wire. The tag's protocol is lost by then and
    /// becomes 0x8100.
    pub(crate) fn restore_vlan(&mut self) -> Result<(), MbufError> {
        if self.head().ol_flags & sys::SHIM_RX_VLAN_STRIPPED == 0 {
            return Ok(());
        }
        let mut raw = self.0.as_ptr();
        // SAFETY: the packet is owned; DPDK checks length and headroom and never replaces the pointer.
        if unsafe { sys::shim_vlan_insert(&raw mut raw) } == 0 { Ok(()) } else { Err(MbufError::Vlan) }
    }
}

/// Asks the CPU to fetch a cache line, wherever that is.
#[inline]
fn prefetch_line(at: *const u8) {
    #[cfg(all(target_arch = "x86_64", not(feature = "no-prefetch")))]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch never faults, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }
    #[cfg(any(not(target_arch = "x86_64"), feature = "no-prefetch"))]
    let _ = at;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Eal, EalConfig};

    impl Mbuf {
        /// What a driver that takes the tag out leaves.
        fn with_stripped_tag(self, tci: u16) -> Self {
            // SAFETY: as in `head`; the packet is owned.
            let head = unsafe { self.0.cast::<MbufHead>().as_mut() };
            head.ol_flags |= sys::SHIM_RX_VLAN_STRIPPED;
            head.vlan_tci = tci;
            self
        }
    }

    // One test: EAL starts once a process.
    #[test]
    fn a_tag_that_the_driver_took_out_is_put_back_where_it_was() {
        let eal = Eal::init(EalConfig::lab(32)).expect("started");
        let pool = Pool::new(&eal, "vlan", 31, 0, 256, None).expect("a pool");
        let frame: Vec<u8> = (0..60).collect();
        let mut packet = pool.packet(&frame).expect("a packet").with_stripped_tag(0x3123);
        assert!(packet.is_unfinished());
        packet.restore_vlan().expect("headroom");
        assert!(!packet.is_unfinished());
        let tagged = [&frame[..12], &[0x81, 0x00, 0x31, 0x23], &frame[12..]].concat();
        assert_eq!(packet.bytes(), tagged);

        let mut short = pool.packet(&frame[..11]).expect("a packet").with_stripped_tag(1);
        assert_eq!(short.restore_vlan(), Err(MbufError::Vlan));
        assert_eq!(short.bytes(), &frame[..11]);
        let mut full = pool.packet(&frame).expect("a packet");
        full.prepend(full.headroom() - 3).expect("headroom");
        assert_eq!(full.with_stripped_tag(1).restore_vlan(), Err(MbufError::Vlan));
    }
}
