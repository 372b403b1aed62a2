//! One lcore's connections: configuration, sweeping, dumping, flushing. What a packet does to them is in
//! `lookup` and `conntrack`.

use thiserror::Error;

use crate::action::Helper;
use crate::clock::{Clock, Millis, Moment, tick};
use crate::counters::Counters;
use crate::table::bucket::Direction;
use crate::table::{Table, TableError};
use crate::timeouts::Timeouts;
use crate::view::{ConnectionView, ProtocolState};
use crate::wheel::Wheel;
use weir_wire::numbers::protocol;

/// What a shard is made for.
#[derive(Clone, Debug)]
pub struct ShardConfig {
    /// Connections that there is memory for. It is touched only as it is used.
    pub capacity: u32,
    /// TCP segments outside their window are accepted (`ct-disable-tcp-seq-chk`).
    pub liberal_tcp: bool,
    /// How long connections may be silent.
    pub timeouts: Timeouts,
    /// Connections that are admitted.
    pub max_connections: u32,
}

impl Default for ShardConfig {
    /// Open vSwitch's limit, and memory for as many (about 450 MB when full of IPv4).
    fn default() -> Self {
        let connections = 3_000_000;
        Self {
            capacity: connections,
            liberal_tcp: false,
            timeouts: Timeouts::default(),
            max_connections: connections,
        }
    }
}

/// Why a shard cannot be made.
#[derive(Debug, Error)]
pub enum ShardError {
    /// Its table cannot.
    #[error(transparent)]
    Table(#[from] TableError),
}

/// The connections of one lcore. It has no clock, thread or log: time comes with each call, what happened goes out
/// by return values and [`Counters`]. Make it on the thread that will work it, so that its memory is near.
pub struct Shard {
    pub(crate) table: Table,
    pub(crate) wheel: Wheel,
    pub(crate) clock: Clock,
    pub(crate) timeouts: Timeouts,
    pub(crate) max_connections: u32,
    pub(crate) liberal_tcp: bool,
    pub(crate) counters: Counters,
    pub(crate) random: Random,
    /// Key for hashes of source addresses alone.
    pub(crate) address_secret: [u64; 2],
}

/// How far a walk over the connections has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DumpCursor {
    next: u32,
    done: bool,
}

impl DumpCursor {
    /// Goes on at `slot`, see [`DumpCursor::slot`].
    #[must_use]
    pub const fn at(slot: u32) -> Self {
        Self { next: slot, done: false }
    }

    /// The slot the walk goes on at.
    #[must_use]
    pub const fn slot(&self) -> u32 {
        self.next
    }

    /// True when the walk has seen every slot.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        self.done
    }
}

impl core::fmt::Debug for Shard {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Shard")
            .field("connections", &self.len())
            .field("capacity", &self.capacity())
            .finish_non_exhaustive()
    }
}

impl Shard {
    /// An empty shard. `secret` keys the hashes and seeds the choice of ports; draw it at random for each start.
    ///
    /// # Errors
    /// Capacity 0 or above [`MAX_CAPACITY`](crate::table::MAX_CAPACITY), or no memory.
    pub fn new(config: ShardConfig, secret: [u64; 4]) -> Result<Self, ShardError> {
        let [a, b, c, d] = secret;
        Ok(Self {
            table: Table::new(config.capacity, [a, b])?,
            wheel: Wheel::new(),
            clock: Clock::default(),
            timeouts: config.timeouts,
            max_connections: config.max_connections,
            liberal_tcp: config.liberal_tcp,
            counters: Counters::default(),
            random: Random(c ^ d.rotate_left(32)),
            address_secret: [c, d],
        })
    }

    /// Touches the memory for IPv4 connections now, so that the packet path meets no page fault.
    pub fn prefault(&mut self) {
        self.table.prefault();
    }

    /// Ends what has expired by `now`; at most `budget` connections are looked at. Returns how many were: less than
    /// `budget` means that nothing is left to do.
    pub fn sweep(&mut self, now: Millis, budget: u32) -> u32 {
        let moment = self.clock.advance(now);
        self.sweep_to(moment, budget)
    }

    pub(crate) fn sweep_to(&mut self, moment: Moment, budget: u32) -> u32 {
        let until = tick(moment);
        for done in 0..budget {
            let Some(index) = self.wheel.pop(self.table.links(), until) else { return done };
            let deadline = self.table.connection(index).deadline.near(self.wheel.now());
            if deadline > until {
                self.wheel.insert(self.table.links(), index, deadline);
            } else {
                self.table.remove(index);
                self.counters.expired += 1;
            }
        }
        budget
    }

    /// Takes a connection out of the wheel and the table.
    pub(crate) fn remove(&mut self, index: u32) {
        self.wheel.remove(self.table.links(), index);
        self.table.remove(index);
    }

    /// What happened so far.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Connections, those included that have expired but were not swept yet.
    #[must_use]
    pub const fn len(&self) -> u32 {
        self.table.len()
    }

    /// True without a connection.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Connections that there is memory for.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.table.capacity()
    }

    /// Buckets of the index that finds connections by their tuples.
    #[must_use]
    pub fn index_buckets(&self) -> usize {
        self.table.buckets()
    }

    /// Appends how many entries each of `count` buckets from `from` on holds, of at most eight; a connection has an
    /// entry for each of its directions.
    pub fn index_occupancy(&self, from: usize, count: usize, entries: &mut Vec<u8>) {
        let end = from.saturating_add(count).min(self.table.buckets());
        entries.extend((from..end).map(|index| self.table.occupancy(index)));
    }

    /// Connections that are admitted.
    #[must_use]
    pub const fn max_connections(&self) -> u32 {
        self.max_connections
    }

    /// Sets how many connections are admitted; lowering it removes none.
    pub const fn set_max_connections(&mut self, connections: u32) {
        self.max_connections = connections;
    }

    /// True if TCP segments outside their window are accepted.
    #[must_use]
    pub const fn liberal_tcp(&self) -> bool {
        self.liberal_tcp
    }

    /// Sets whether TCP segments outside their window are accepted.
    pub const fn set_liberal_tcp(&mut self, liberal: bool) {
        self.liberal_tcp = liberal;
    }

    /// How long connections may be silent.
    #[must_use]
    pub const fn timeouts(&self) -> &Timeouts {
        &self.timeouts
    }

    /// Shows the next live connections to `visit`, looking at `limit` slots at most; start with a default cursor and
    /// go on until it [is done](DumpCursor::is_done). Connections that come and go meanwhile may be missed, none is
    /// shown twice unless its slot was taken anew.
    pub fn dump(
        &self,
        now: Millis,
        cursor: &mut DumpCursor,
        limit: usize,
        visit: &mut dyn FnMut(&ConnectionView),
    ) {
        let moment = self.clock.peek(now);
        self.walk(cursor, limit, |index| {
            if !self.table.connection(index).deadline.is_past(moment) {
                visit(&self.view(index, moment));
            }
        });
    }

    /// Removes those connections for which `filter` is true, looking at `limit` slots at most, as [`Shard::dump`].
    /// Returns how many were removed.
    pub fn flush(
        &mut self,
        cursor: &mut DumpCursor,
        limit: usize,
        filter: &mut dyn FnMut(&ConnectionView) -> bool,
    ) -> u32 {
        let moment = self.clock.moment();
        let mut removed = 0;
        let end = self.end_of_walk(cursor, limit);
        for index in cursor.next..end {
            if !self.table.connection(index).is_used() {
                continue;
            }
            if self.table.connection(index).deadline.is_past(moment) {
                self.remove(index);
                self.counters.expired += 1;
            } else if filter(&self.view(index, moment)) {
                self.remove(index);
                removed += 1;
            }
        }
        self.counters.flushed += u64::from(removed);
        self.advance(cursor, end);
        removed
    }

    fn walk(&self, cursor: &mut DumpCursor, limit: usize, mut visit: impl FnMut(u32)) {
        let end = self.end_of_walk(cursor, limit);
        for index in cursor.next..end {
            if self.table.connection(index).is_used() {
                visit(index);
            }
        }
        self.advance(cursor, end);
    }

    fn end_of_walk(&self, cursor: &DumpCursor, limit: usize) -> u32 {
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        cursor.next.saturating_add(limit).min(self.table.used())
    }

    fn advance(&self, cursor: &mut DumpCursor, end: u32) {
        *cursor = DumpCursor { next: end, done: end >= self.table.used() };
    }

    fn view(&self, index: u32, moment: Moment) -> ConnectionView {
        let connection = self.table.connection(index);
        let cold = self.table.cold(index);
        let original = self.table.tuple(index, Direction::Original);
        let [first, second] = &connection.peers;
        let state = if connection.protocol() == protocol::TCP {
            ProtocolState::Tcp { original: first.tcp_state(), reply: second.tcp_state() }
        } else {
            ProtocolState::Other { answered: crate::conntrack::is_answered(connection) }
        };
        ConnectionView {
            original,
            reply: self.table.tuple(index, Direction::Reply),
            zone: original.zone(),
            mark: connection.mark,
            label: cold.label,
            remaining: connection.deadline.remaining(moment),
            age: moment.saturating_sub(cold.created),
            state,
            helper: Helper::from_number(cold.helper),
            source_nat: connection.has(crate::table::connection::flag::SOURCE_NAT),
            destination_nat: connection.has(crate::table::connection::flag::DESTINATION_NAT),
        }
    }
}

/// Numbers for the choice of ports (SplitMix64, Steele, Lea and Flood 2014). Unpredictable to who does not know the
/// seed and sees few of them; no cipher.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z >> 32) as u32
    }
}
