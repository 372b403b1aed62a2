//! What a connection has carried. Trackers without windows, which are all but those of TCP and SCTP, leave room for
//! that in the hot line ([`InLine`]), so their packets touch no other. The rest is in half a cache line each, in an array
//! of its own: packets write it and read nothing else there, so that it can be asked for early and nobody waits for it.

#![allow(unsafe_code)] // part of the table

use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};

use weir_numa::memory::Zeroable;

use super::bucket::Direction;
use super::connection::{Connection, Owned, flag};

/// Packets and bytes by direction, and when the last packet came; 0 unless its connection has [`flag::ACCOUNT`]. Only
/// the owner writes; a reader may see a packet counted whose bytes are not yet, and for a moment every 2^32 packets a
/// count that lacks so many.
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

    /// Begins anew with a packet of the original direction, and reads nothing, so that nobody waits for the line.
    #[expect(clippy::cast_possible_truncation, reason = "ticks wrap by design")]
    pub(super) fn begin(&self, bytes: usize, tick: u64) {
        for (direction, (packets, bytes)) in [(1, bytes as u64), (0, 0)].into_iter().enumerate() {
            self.packets[direction].store(packets, Relaxed);
            self.bytes[direction].store(bytes, Relaxed);
            self.more_packets[direction].store(0, Relaxed);
        }
        self.seen.store(tick as u32, Relaxed);
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
    pub(super) fn totals(&self, direction: Direction) -> (u64, u64) {
        let direction = direction as usize;
        let more = u64::from(self.more_packets[direction].load(Relaxed)) << 32;
        (more | u64::from(self.packets[direction].load(Relaxed)), self.bytes[direction].load(Relaxed))
    }

    /// Tick of the last packet.
    pub(super) fn seen(&self) -> u32 {
        self.seen.load(Relaxed)
    }
}

/// Ticks from the last packet's, `seen`, to `tick`; 0 if that came later, as it may where others read.
#[expect(clippy::cast_possible_truncation, reason = "ticks wrap by design")]
pub(super) fn idle(seen: u32, tick: u64) -> u32 {
    u32::try_from((tick as u32).wrapping_sub(seen).cast_signed()).unwrap_or(0)
}

/// What a connection without windows has carried, as its hot line tells it: packets and bytes of each direction, their
/// low 32 bits, and the tick of the last packet. What is above is in its [`Account`], and for a moment neither here nor
/// there.
pub(super) struct InLine<'a>(pub(super) &'a Connection);

impl InLine<'_> {
    /// Packets and bytes of a direction.
    pub(super) fn totals(&self, direction: Direction) -> (u64, u64) {
        let [packets, bytes] = self.0.side(direction).counted().map(u64::from);
        (packets, bytes)
    }

    /// Tick of the last packet. While a packet is counted, and the upper half of the tick is another one than before, it
    /// may be one in the future.
    pub(super) fn seen(&self) -> u32 {
        // The halves are written the other way round.
        let [low, high] = [Direction::Original, Direction::Reply].map(|half| self.0.side(half).note());
        u32::from(high) << 16 | u32::from(low)
    }
}

/// As [`Account::count`], of a connection without windows.
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "ticks wrap by design, and frames are shorter than 2^32 bytes"
)]
pub(super) fn count_in_line(
    connection: Owned<'_, Connection>,
    account: &Account,
    direction: Direction,
    bytes: usize,
    tick: u64,
) {
    let wrapped = connection.peer_mut(direction).count(bytes as u32);
    if wrapped != [false; 2] {
        carry_over(connection, account, direction, wrapped);
    }
    connection.peer_mut(Direction::Reply).set_note((tick >> 16) as u16);
    connection.peer_mut(Direction::Original).set_note(tick as u16);
}

#[cold]
fn carry_over(
    connection: Owned<'_, Connection>,
    account: &Account,
    direction: Direction,
    [packets, bytes]: [bool; 2],
) {
    let at = direction as usize;
    if packets {
        account.carry(at);
    }
    if bytes {
        account.bytes[at].store(account.bytes[at].load(Relaxed).wrapping_add(1 << 32), Relaxed);
    }
    connection.set(flag::ACCOUNT, true);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp::Peer;

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
        assert_eq!(idle(account.seen(), (1 << 32) + 9), 10);
        assert_eq!(idle(account.seen(), u64::from(u32::MAX) - 1), 0, "a reader's clock is a little behind");
    }

    #[test]
    fn an_account_begins_with_a_packet_whatever_it_held() {
        let account = Account {
            packets: [9.into(), 9.into()],
            more_packets: [1.into(), 1.into()],
            ..Account::default()
        };
        account.begin(60, 7);
        assert_eq!(account.totals(Direction::Original), (1, 60));
        assert_eq!(account.totals(Direction::Reply), (0, 0));
        assert_eq!(account.seen(), 7);
        account.clear();
        assert_eq!((account.totals(Direction::Original), account.seen()), ((0, 0), 0));
    }

    /// What a connection without windows has carried in all.
    fn carried(connection: &Connection, account: &Account, direction: Direction) -> (u64, u64) {
        let (above, below) = (account.totals(direction), InLine(connection).totals(direction));
        (above.0 + below.0, above.1 + below.1)
    }

    #[test]
    fn the_hot_line_s_counts_carry_into_the_account_each_by_itself() {
        let (connection, account) = (Connection::default(), Account::default());
        let line = Owned::new(&connection);
        line.set_peers([Peer::counting(u32::MAX, 1000), Peer::counting(3, u32::MAX - 10)]);
        line.set_state(2);
        assert!(!connection.has(flag::ACCOUNT));
        count_in_line(line, &account, Direction::Original, 60, 0x1_ffff);
        assert!(connection.has(flag::ACCOUNT));
        assert_eq!(carried(&connection, &account, Direction::Original), (1 << 32, 1060));
        assert_eq!(InLine(&connection).seen(), 0x1_ffff);
        count_in_line(line, &account, Direction::Reply, 11, 0x2_0000);
        count_in_line(line, &account, Direction::Reply, 1, 0x2_0000);
        assert_eq!(carried(&connection, &account, Direction::Reply), (5, (1 << 32) + 1));
        assert_eq!(InLine(&connection).seen(), 0x2_0000);
        assert_eq!(connection.state(), 2, "the tracker's state is left alone");
    }
}
