//! What a connection has carried. Half a cache line each, in an array of its own: packets write it and read nothing
//! else there, so that it can be asked for early and nobody waits for it.

#![allow(unsafe_code)] // part of the table

use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};

use weir_numa::memory::Zeroable;

use super::bucket::Direction;

/// Packets and bytes by direction, and when the last packet came. Only the owner writes; a reader may see a packet
/// counted whose bytes are not yet, and for a moment every 2^32 packets a count that lacks so many.
#[derive(Debug, Default)]
#[repr(C, align(32))]
pub(crate) struct Account {
    bytes: [AtomicU64; 2],
    /// The low 32 bits.
    packets: [AtomicU32; 2],
    /// The 16 bits above: 2^48 packets take 600 years at 14.88 million a second.
    more_packets: [AtomicU16; 2],
    /// Tick of the last packet, its low 32 bits: 2 years.
    seen: AtomicU32,
}

// SAFETY: atomic integers only, for which 0 is valid.
unsafe impl Zeroable for Account {}

impl Account {
    /// Counts a packet of `bytes` that came at `tick`. For the owner alone: a second writer's packets would be lost.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "ticks wrap by design")]
    pub(super) fn count(&self, direction: Direction, bytes: usize, tick: u64) {
        let direction = direction as usize;
        let sum = self.bytes[direction].load(Relaxed).wrapping_add(bytes as u64);
        self.bytes[direction].store(sum, Relaxed);
        let (packets, carry) = self.packets[direction].load(Relaxed).overflowing_add(1);
        self.packets[direction].store(packets, Relaxed);
        if carry {
            self.carry(direction);
        }
        self.seen.store(tick as u32, Relaxed);
    }

    #[cold]
    fn carry(&self, direction: usize) {
        let more = self.more_packets[direction].load(Relaxed).wrapping_add(1);
        self.more_packets[direction].store(more, Relaxed);
    }

    /// Begins anew. For the owner alone.
    pub(super) fn clear(&self) {
        for direction in 0..2 {
            self.bytes[direction].store(0, Relaxed);
            self.packets[direction].store(0, Relaxed);
            self.more_packets[direction].store(0, Relaxed);
        }
        self.seen.store(0, Relaxed);
    }

    /// Packets and bytes of a direction.
    pub(crate) fn totals(&self, direction: Direction) -> (u64, u64) {
        let direction = direction as usize;
        let more = u64::from(self.more_packets[direction].load(Relaxed)) << 32;
        (more | u64::from(self.packets[direction].load(Relaxed)), self.bytes[direction].load(Relaxed))
    }

    /// Ticks from the last packet to `tick`; 0 if that came later, as it may where others read.
    #[expect(clippy::cast_possible_truncation, reason = "ticks wrap by design")]
    pub(crate) fn idle(&self, tick: u64) -> u32 {
        let idle = (tick as u32).wrapping_sub(self.seen.load(Relaxed));
        if idle > u32::MAX - 1000 { 0 } else { idle }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_accounts_share_a_cache_line() {
        assert_eq!((size_of::<Account>(), align_of::<Account>()), (32, 32));
    }

    #[test]
    fn packets_are_counted_beyond_32_bits_and_the_last_tick_wraps() {
        let account = Account { packets: [u32::MAX.into(), 5.into()], ..Account::default() };
        account.count(Direction::Original, 60, u64::from(u32::MAX));
        account.count(Direction::Reply, 1500, u64::from(u32::MAX));
        assert_eq!(account.totals(Direction::Original), (1 << 32, 60));
        assert_eq!(account.totals(Direction::Reply), (6, 1500));
        assert_eq!(account.idle((1 << 32) + 9), 10);
        assert_eq!(account.idle(u64::from(u32::MAX) - 1), 0, "a reader's clock is a little behind");
    }
}
