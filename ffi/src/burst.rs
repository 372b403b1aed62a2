//! A burst: up to 64 packets, kept whole from receive to transmit. A fixed array without allocation that reads as a
//! slice of packets.

use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};

use dpdk_sys as sys;

use crate::mbuf::Mbuf;

/// Packets a burst can hold.
pub const BURST: usize = 64;

/// Up to [`BURST`] packets, in order. Dropping or clearing it frees them together.
pub struct Burst {
    /// The first `len` are packets; `Mbuf` is transparent over the pointer that DPDK's arrays hold.
    slots: [MaybeUninit<Mbuf>; BURST],
    len: usize,
}

impl Default for Burst {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Burst {
    fn drop(&mut self) {
        self.clear();
    }
}

impl std::fmt::Debug for Burst {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl Deref for Burst {
    type Target = [Mbuf];

    #[inline]
    fn deref(&self) -> &[Mbuf] {
        // SAFETY: the first `len` slots are packets.
        unsafe { std::slice::from_raw_parts(self.slots.as_ptr().cast::<Mbuf>(), self.len) }
    }
}

impl DerefMut for Burst {
    #[inline]
    fn deref_mut(&mut self) -> &mut [Mbuf] {
        // SAFETY: the first `len` slots are packets.
        unsafe { std::slice::from_raw_parts_mut(self.slots.as_mut_ptr().cast::<Mbuf>(), self.len) }
    }
}

impl Burst {
    /// An empty burst.
    #[inline]
    pub const fn new() -> Self {
        Self { slots: [const { MaybeUninit::uninit() }; BURST], len: 0 }
    }

    /// Packets that still fit.
    #[inline]
    pub fn room(&self) -> usize {
        BURST - self.len
    }

    /// Adds a packet at the end; a full burst gives it back.
    #[inline]
    pub fn push(&mut self, packet: Mbuf) -> Result<(), Mbuf> {
        match self.slots.get_mut(self.len) {
            Some(slot) => {
                slot.write(packet);
                self.len += 1;
                Ok(())
            }
            None => Err(packet),
        }
    }

    /// Takes the last packet.
    #[inline]
    pub fn pop(&mut self) -> Option<Mbuf> {
        let last = self.len.checked_sub(1)?;
        self.len = last;
        // SAFETY: slot `last` was a packet and is no longer counted as one.
        Some(unsafe { self.slots[last].assume_init_read() })
    }

    /// Takes the packet at `index`; the last one takes its place.
    #[inline]
    pub fn swap_remove(&mut self, index: usize) -> Option<Mbuf> {
        let last = self.len.checked_sub(1)?;
        if index > last {
            return None;
        }
        self.swap(index, last);
        self.pop()
    }

    /// Takes all packets, in order; those the iterator is dropped with are freed.
    #[inline]
    pub fn drain(&mut self) -> Drain<'_> {
        let end = std::mem::take(&mut self.len);
        Drain { burst: self, next: 0, end }
    }

    /// Keeps the packets that `keep` accepts, in order, and frees the others.
    pub fn retain(&mut self, keep: impl FnMut(&mut Mbuf) -> bool) {
        self.retain_from(0, keep);
    }

    /// Frees all packets at once.
    pub fn clear(&mut self) {
        let count = std::mem::take(&mut self.len);
        if count > 0 {
            // SAFETY: the first `count` slots were packets (transparent over pointers) and are no longer counted as such.
            unsafe { sys::shim_pktmbuf_free_bulk(self.pointers(), count as u32) };
        }
    }

    /// As [`Burst::retain`] for the packets from `start` on.
    pub(crate) fn retain_from(&mut self, start: usize, mut keep: impl FnMut(&mut Mbuf) -> bool) {
        let end = self.len;
        let start = start.min(end);
        // Should `keep` panic, the packets from `start` on leak; they are never freed twice.
        self.len = start;
        for index in start..end {
            // SAFETY: slot `index` was a packet, is read once, and no slot at or behind it is counted.
            let mut packet = unsafe { self.slots[index].assume_init_read() };
            if keep(&mut packet) {
                self.slots[self.len].write(packet);
                self.len += 1;
            }
        }
    }

    /// The array as DPDK takes it.
    #[inline]
    pub(crate) fn pointers(&mut self) -> *mut *mut sys::rte_mbuf {
        self.slots.as_mut_ptr().cast()
    }

    /// Where further packets go, and how many.
    #[inline]
    pub(crate) fn spare(&mut self) -> (*mut *mut sys::rte_mbuf, usize) {
        let (len, room) = (self.len, self.room());
        (self.pointers().wrapping_add(len), room)
    }

    /// # Safety
    /// `count` slots behind the last packet have been filled with packets owned by nobody else.
    #[inline]
    pub(crate) unsafe fn grow(&mut self, count: usize) {
        self.len += count;
    }

    /// Forgets the first `count` packets and moves the others to the front.
    ///
    /// # Safety
    /// `count` is at most the burst's length, and those packets are owned by somebody else now.
    #[inline]
    pub(crate) unsafe fn forget_front(&mut self, count: usize) {
        let left = self.len - count;
        if left > 0 {
            let start = self.slots.as_mut_ptr();
            // SAFETY: both ranges lie within the first `len` slots.
            unsafe { std::ptr::copy(start.add(count), start, left) };
        }
        self.len = left;
    }
}

/// The packets of a burst, being taken out of it.
#[derive(Debug)]
pub struct Drain<'a> {
    /// Counted as empty meanwhile: a forgotten iterator leaks packets and frees none twice.
    burst: &'a mut Burst,
    next: usize,
    end: usize,
}

impl Iterator for Drain<'_> {
    type Item = Mbuf;

    #[inline]
    fn next(&mut self) -> Option<Mbuf> {
        if self.next == self.end {
            return None;
        }
        let index = self.next;
        self.next += 1;
        // SAFETY: slots `next..end` are packets that the burst no longer counts; this one is read once.
        Some(unsafe { self.burst.slots[index].assume_init_read() })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.end - self.next, Some(self.end - self.next))
    }
}

impl ExactSizeIterator for Drain<'_> {}

impl Drop for Drain<'_> {
    fn drop(&mut self) {
        for packet in self.by_ref() {
            drop(packet);
        }
    }
}
