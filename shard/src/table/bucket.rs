//! One cache line of the index: eight tags that are compared at once, and the eight slots they stand for.

#![allow(unsafe_code)] // part of the table

use weir_numa::memory::Zeroable;

/// Entries in a bucket.
pub(crate) const LANES: usize = 8;

/// Hints that a lane can hold.
pub const HINTS: u16 = 1 << 12;

/// A direction of a connection: connection index * 2 + direction (0 = original, 1 = reply).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Slot(pub(crate) u32);

impl Slot {
    #[inline]
    pub(crate) const fn new(index: u32, direction: Direction) -> Self {
        Self(index << 1 | direction as u32)
    }
    #[inline]
    pub(crate) const fn index(self) -> u32 {
        self.0 >> 1
    }
    #[inline]
    pub(crate) const fn direction(self) -> Direction {
        if self.0 & 1 == 0 { Direction::Original } else { Direction::Reply }
    }
}

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Direction {
    Original = 0,
    Reply = 1,
}

impl Direction {
    #[inline]
    pub(crate) const fn opposite(self) -> Self {
        match self {
            Self::Original => Self::Reply,
            Self::Reply => Self::Original,
        }
    }
}

/// A bucket. All zero is empty.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Bucket {
    /// 16 bits of the hash each; 0 = free lane. First, so that they are aligned to 16 bytes.
    pub(super) tags: [u16; LANES],
    pub(super) slots: [Slot; LANES],
    /// How many entries wanted in here or passed by and live further on: a look-up may stop where this is 0.
    /// Stays at its maximum once it got there.
    pub(super) overflow: u16,
    /// A number below [`HINTS`] for each lane, 0 where nobody gave one: its low 8 bits,
    hints_low: [u8; LANES],
    /// and the 4 above, of two lanes a byte.
    hints_high: [u8; LANES / 2],
}

// SAFETY: integers only, for which 0 is valid.
unsafe impl Zeroable for Bucket {}

impl Bucket {
    /// Lanes that hold an entry.
    pub(crate) fn occupancy(&self) -> u8 {
        self.tags.iter().map(|&tag| u8::from(tag != 0)).sum()
    }

    /// One bit a lane, set where the tag equals `tag`.
    #[inline]
    pub(crate) fn matching(&self, tag: u16) -> u32 {
        #[cfg(target_arch = "x86_64")]
        return self.matching_sse2(tag);
        #[cfg(not(target_arch = "x86_64"))]
        return self.matching_portable(tag);
    }

    #[cfg(target_arch = "x86_64")]
    #[inline]
    fn matching_sse2(&self, tag: u16) -> u32 {
        use core::arch::x86_64::{
            _mm_cmpeq_epi16, _mm_load_si128, _mm_movemask_epi8, _mm_packs_epi16, _mm_set1_epi16,
            _mm_setzero_si128,
        };
        // SAFETY: SSE2 is part of x86-64. `tags` is 16 bytes at offset 0 of a type aligned to 64.
        unsafe {
            let tags = _mm_load_si128(self.tags.as_ptr().cast());
            let equal = _mm_cmpeq_epi16(tags, _mm_set1_epi16(tag.cast_signed()));
            _mm_movemask_epi8(_mm_packs_epi16(equal, _mm_setzero_si128())).cast_unsigned()
        }
    }

    #[cfg(any(test, not(target_arch = "x86_64")))]
    fn matching_portable(&self, tag: u16) -> u32 {
        self.tags.iter().rev().fold(0, |mask, &own| mask << 1 | u32::from(own == tag))
    }

    /// The slot in a lane of a mask that [`Bucket::matching`] gave.
    #[inline]
    pub(crate) fn slot(&self, lane: u32) -> Slot {
        self.slots[lane as usize % LANES]
    }

    /// The hint in such a lane.
    #[inline]
    pub(crate) fn hint(&self, lane: u32) -> u16 {
        let lane = lane as usize % LANES;
        let high = self.hints_high[lane / 2] >> (lane % 2 * 4) & 0xf;
        u16::from(high) << 8 | u16::from(self.hints_low[lane])
    }

    /// Sets it; bits above [`HINTS`] are lost.
    pub(super) fn set_hint(&mut self, lane: usize, hint: u16) {
        let [high, low] = (hint % HINTS).to_be_bytes();
        self.hints_low[lane % LANES] = low;
        let (byte, shift) = (&mut self.hints_high[lane % LANES / 2], lane % 2 * 4);
        *byte = *byte & !(0xf << shift) | high << shift;
    }

    /// Puts an entry, whose hint is 0, into a free lane.
    pub(super) fn fill(&mut self, lane: usize, tag: u16, slot: Slot) {
        self.tags[lane] = tag;
        self.slots[lane] = slot;
        self.set_hint(lane, 0);
    }

    #[cfg(test)]
    const fn empty() -> Self {
        Self {
            tags: [0; LANES],
            slots: [Slot(0); LANES],
            overflow: 0,
            hints_low: [0; LANES],
            hints_high: [0; LANES / 2],
        }
    }
}

/// Asks for the cache line of `line`, to be there a few hundred cycles from now.
#[inline]
pub(crate) fn prefetch<T>(line: &T) {
    prefetch_for::<false, T>(line);
}

/// Likewise; who reads it but once leaves as little of it behind in the caches as the CPU can.
#[inline]
pub(crate) fn prefetch_once<T>(line: &T) {
    prefetch_for::<true, T>(line);
}

#[inline]
fn prefetch_for<const ONCE: bool, T>(line: &T) {
    #[cfg(all(target_arch = "x86_64", not(feature = "no-prefetch")))]
    {
        use core::arch::x86_64::{_MM_HINT_NTA, _MM_HINT_T0, _mm_prefetch};
        let line = core::ptr::from_ref(line).cast();
        // SAFETY: SSE is part of x86-64; a prefetch reads nothing and never faults.
        unsafe { if ONCE { _mm_prefetch::<_MM_HINT_NTA>(line) } else { _mm_prefetch::<_MM_HINT_T0>(line) } }
    }
    #[cfg(any(not(target_arch = "x86_64"), feature = "no-prefetch"))]
    let _ = line;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_bucket_is_one_cache_line_with_its_tags_in_front() {
        assert_eq!(size_of::<Bucket>(), 64);
        assert_eq!(align_of::<Bucket>(), 64);
        assert_eq!(memoffset::offset_of!(Bucket, tags), 0);
    }

    #[test]
    fn each_lane_keeps_a_hint_of_its_own_until_its_entry_is_another_one() {
        let mut bucket = Bucket::empty();
        let hints = [HINTS - 1, 0, 1, 0x0f0, 0xf0f, 0x800, 0x0ff, 7];
        for (lane, hint) in hints.into_iter().enumerate() {
            bucket.set_hint(lane, hint);
        }
        assert_eq!(core::array::from_fn(|lane| bucket.hint(lane as u32)), hints);
        bucket.fill(4, 9, Slot(3));
        assert_eq!((bucket.hint(4), bucket.hint(5)), (0, 0x800));
        assert_eq!((bucket.tags[4], bucket.slots[4]), (9, Slot(3)));
    }

    proptest! {
        #[test]
        fn simd_and_portable_comparison_agree(tags: [u16; LANES], pick in 0usize..9, other: u16) {
            let bucket = Bucket { tags, ..Bucket::empty() };
            let tag = tags.get(pick).copied().unwrap_or(other);
            prop_assert_eq!(bucket.matching(tag), bucket.matching_portable(tag));
        }
    }
}
