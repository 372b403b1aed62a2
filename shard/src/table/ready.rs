//! The slots that the next connections get, taken from the list of free ones some connections ahead: a slot that has been
//! free for long lies in none of the CPU's caches, and the list says only in that slot which one comes next. Here its
//! lines have the time of as many set-ups to arrive. Fresh slots, which were never used, follow one another and need no
//! list.

use weir_numa::memory::NodeSlice;

use super::bucket::prefetch;
use super::connection::Place;
use super::memory::Memory;

/// How many set-ups ahead. Their lines, 192 bytes each with the wheel's, fit the first cache beside a burst.
pub(super) const AHEAD: u32 = 32;

/// A ring of free slots. They count as free, and are in no list.
#[derive(Debug, Default)]
pub(super) struct Ready {
    slots: [u32; AHEAD as usize],
    /// Where the first one is.
    first: u32,
    len: u32,
}

impl Ready {
    /// True without any.
    #[inline]
    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The next slot, which stays.
    #[inline]
    pub(super) fn peek(&self) -> Option<u32> {
        (self.len != 0).then(|| self.slots[(self.first % AHEAD) as usize])
    }

    /// Gives the next slot up.
    #[inline]
    pub(super) fn advance(&mut self) {
        self.first = self.first.wrapping_add(1);
        self.len -= 1;
    }

    /// Takes up to two slots from the list that begins with `free` (slot + 1, or 0): one for that which went, one more
    /// until the ring is full.
    #[inline]
    pub(super) fn refill(&mut self, memory: &Memory, places: &NodeSlice<Place>, free: &mut u32) {
        for _ in 0..2 {
            let Some(index) = free.checked_sub(1).filter(|_| self.len < AHEAD) else { return };
            self.slots[(self.first.wrapping_add(self.len) % AHEAD) as usize] = index;
            self.len += 1;
            *free = places[index as usize].next;
            prefetch_slot(memory, places, index);
            // Read at the next call.
            free.checked_sub(1).and_then(|next| places.get(next as usize)).into_iter().for_each(prefetch);
        }
    }
}

/// Asks for the lines that a new IPv4 connection writes in its slot.
#[inline]
pub(super) fn prefetch_slot(memory: &Memory, places: &NodeSlice<Place>, index: u32) {
    memory.prefetch_new(index);
    places.get(index as usize).into_iter().for_each(prefetch);
}
