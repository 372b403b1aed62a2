//! What a connection has carried. Half a cache line each, in an array of its own: packets write it and read nothing
//! else there, so that it can be asked for early and nobody waits for it.

#![allow(unsafe_code)] // part of the table

use weir_numa::memory::Zeroable;

use super::bucket::Direction;

/// Packets and bytes by direction, and when the last packet came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(32))]
pub(crate) struct Account {
    bytes: [u64; 2],
    /// The low 32 bits.
    packets: [u32; 2],
    /// The 16 bits above: 2^48 packets take 600 years at 14.88 million a second.
    more_packets: [u16; 2],
    /// Tick of the last packet, its low 32 bits: 2 years.
    seen: u32,
}

// SAFETY: integers only, for which 0 is valid.
unsafe impl Zeroable for Account {}

impl Account {
    /// Counts a packet of `bytes` that came at `tick`.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "ticks wrap by design")]
    pub(crate) fn count(&mut self, direction: Direction, bytes: usize, tick: u64) {
        let direction = direction as usize;
        self.bytes[direction] = self.bytes[direction].wrapping_add(bytes as u64);
        let (packets, carry) = self.packets[direction].overflowing_add(1);
        self.packets[direction] = packets;
        self.more_packets[direction] = self.more_packets[direction].wrapping_add(u16::from(carry));
        self.seen = tick as u32;
    }

    /// Packets and bytes of a direction.
    pub(crate) fn totals(&self, direction: Direction) -> (u64, u64) {
        let direction = direction as usize;
        let more = u64::from(self.more_packets[direction]) << 32;
        (more | u64::from(self.packets[direction]), self.bytes[direction])
    }

    /// Ticks from the last packet to `tick`.
    #[expect(clippy::cast_possible_truncation, reason = "ticks wrap by design")]
    pub(crate) const fn idle(&self, tick: u64) -> u32 {
        (tick as u32).wrapping_sub(self.seen)
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
        let mut account = Account { packets: [u32::MAX, 5], ..Account::default() };
        account.count(Direction::Original, 60, u64::from(u32::MAX));
        account.count(Direction::Reply, 1500, u64::from(u32::MAX));
        assert_eq!(account.totals(Direction::Original), (1 << 32, 60));
        assert_eq!(account.totals(Direction::Reply), (6, 1500));
        assert_eq!(account.idle((1 << 32) + 9), 10);
    }
}
