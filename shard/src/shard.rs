//! One lcore's connections: configuration, sweeping, dumping, flushing. What a packet does to them is in
//! `lookup` and `conntrack`.

use std::sync::Arc;

use arrayvec::ArrayVec;
use thiserror::Error;

use crate::admission::Share;
use crate::clock::{Clock, Millis, Moment, tick};
use crate::companions::Companions;
use crate::counters::Counters;
use crate::errand::{Directory, Errand, Notices, Redirects};
use crate::events::{EndCause, EventKind, Events};
use crate::exhaustion::{Exhaustion, Exhaustions};
use crate::expectations::Expectations;
use crate::fragments::FragmentSettings;
use crate::leases::{Leases, Scope};
use crate::meta::ConnectionRef;
use crate::reader::ShardReader;
use crate::steering::slices::OwnEntries;
use crate::steering::{ShardNumber, Steering};
use crate::table::bucket::Direction;
use crate::table::connection::flag;
use crate::table::{Table, TableError};
use crate::timeouts::Timeouts;
use crate::translation::Drafts;
use crate::view::ConnectionView;
use crate::zones::{Due, TooManyPolicies, Zones};
use weir_nat::Occupancy;
use weir_nat::alg::Edits;
use weir_numa::memory::Placing;
use weir_numa::residence::Span;

/// Connections that are looked at together when some may end: they fit the first cache with the lines of each.
pub(crate) const AT_ONCE: u32 = 32;

/// What a shard is made for.
#[derive(Clone, Debug)]
pub struct ShardConfig {
    /// Connections that there is memory for. It is touched only as it is used.
    pub capacity: u32,
    /// TCP segments outside their window are accepted (`ct-disable-tcp-seq-chk`).
    pub liberal_tcp: bool,
    /// How long connections may be silent.
    pub timeouts: Timeouts,
    /// Connections that are admitted, all shards together.
    pub max_connections: u32,
    /// Packets, bytes and the time of the last packet are kept for each connection.
    pub accounting: bool,
    /// What is done with fragments, by whoever holds their packets beside the shard
    /// ([`Fragments`](crate::Fragments)).
    pub fragments: FragmentSettings,
    /// Which of all shards this is.
    pub number: ShardNumber,
    /// Who owns what; the same for all shards.
    pub steering: Arc<Steering>,
    /// Who expects which data connection; the same for all shards.
    pub directory: Arc<Directory>,
    /// The limits that all shards keep together; the same for all shards, and made for as many.
    pub leases: Arc<Leases>,
    /// Where its table is to be. What is not the table comes from the allocator, near the thread that makes the shard.
    pub memory: Placing,
}

impl Default for ShardConfig {
    /// Open vSwitch's limit, and memory for as many (about 500 MB when full of IPv4).
    fn default() -> Self {
        let connections = 3_000_000;
        Self {
            capacity: connections,
            liberal_tcp: false,
            timeouts: Timeouts::default(),
            max_connections: connections,
            accounting: true,
            fragments: FragmentSettings::default(),
            number: ShardNumber::default(),
            steering: Arc::new(Steering::alone()),
            directory: Arc::default(),
            leases: Arc::new(Leases::new(1)),
            memory: Placing::default(),
        }
    }
}

/// Why a shard cannot be made.
#[derive(Debug, Error)]
pub enum ShardError {
    /// Its table cannot.
    #[error(transparent)]
    Table(#[from] TableError),
    /// There is no memory for what it knows of other shards' connections.
    #[error(
        "no memory for {redirects} redirects, one for each connection there is room for; take a smaller capacity"
    )]
    Redirects {
        /// How many.
        redirects: usize,
    },
}

/// The connections of one lcore. It has no clock, thread or log: time comes with each call, what happened goes out
/// by return values and [`Counters`]. Make it on the thread that will work it, so that its memory is near.
pub struct Shard {
    pub(crate) table: Table,
    pub(crate) zones: Zones,
    pub(crate) clock: Clock,
    pub(crate) max_connections: u32,
    /// Its part in limits that several shards keep together.
    pub(crate) share: Option<Share>,
    pub(crate) liberal_tcp: bool,
    /// Packets are told their connection's original tuple.
    pub(crate) shows_original: bool,
    pub(crate) counters: Counters,
    pub(crate) events: Events,
    pub(crate) random: Random,
    pub(crate) expectations: Expectations,
    pub(crate) companions: Companions,
    /// Of the packet that was executed last.
    pub(crate) edits: Edits,
    /// Key for hashes of source addresses alone.
    pub(crate) address_secret: [u64; 2],
    /// What is known of crowded ranges' ports.
    pub(crate) occupancy: Occupancy,
    /// Ranges that ran out, for the log.
    pub(crate) exhaustions: Exhaustions,
    /// Which shard of all this is, and who owns what.
    pub(crate) number: ShardNumber,
    pub(crate) steering: Arc<Steering>,
    pub(crate) directory: Arc<Directory>,
    /// Tuples with their home here that others own.
    pub(crate) redirects: Redirects,
    pub(crate) notices: Notices,
    /// Which replies come here.
    pub(crate) own_entries: OwnEntries,
    /// There are other shards too.
    pub(crate) is_one_of_many: bool,
    /// Reply tuples that were foreseen.
    pub(crate) drafts: Drafts,
    /// Connections that new ones have yet to look at.
    pub(crate) toll: u32,
    /// Of the packet that goes elsewhere.
    pub(crate) errand: Errand,
    /// Of the packet that came from elsewhere and is being executed.
    pub(crate) arrived: Option<Errand>,
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

    /// Goes on at `next`, if that is below `end`.
    pub(crate) const fn up_to(next: u32, end: u32) -> Self {
        Self { next, done: next >= end }
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
    /// An empty shard. `secret` keys the hashes and seeds the choice of ports; draw it at random for each start. All
    /// shards of a datapath have the same, or they would choose different addresses for the same source.
    ///
    /// # Errors
    /// Capacity 0 or above [`MAX_CAPACITY`](crate::table::MAX_CAPACITY), or no memory.
    pub fn new(config: ShardConfig, secret: [u64; 4]) -> Result<Self, ShardError> {
        let [a, b, c, d] = secret;
        let is_one_of_many = !config.steering.is_alone();
        let shared = is_one_of_many.then(|| (config.directory.clone(), config.number));
        let redirects =
            if is_one_of_many { usize::try_from(config.capacity).unwrap_or(usize::MAX) } else { 0 };
        let share = Share::new(config.leases, config.number);
        if let Some(share) = &share {
            share.leases().set_limit(Scope::All, Some(config.max_connections));
        }
        Ok(Self {
            table: Table::new(config.capacity, config.accounting, config.memory, [a, b])?,
            zones: Zones::new(config.timeouts),
            clock: Clock::default(),
            max_connections: config.max_connections,
            share,
            liberal_tcp: config.liberal_tcp,
            shows_original: true,
            counters: Counters::default(),
            events: Events::default(),
            // All shards have the same secrets, for addresses are chosen by hash; no two draw the same ports.
            random: Random(c ^ d.rotate_left(32) ^ (config.number.index() as u64) << 48),
            address_secret: [c, d],
            occupancy: Occupancy::default(),
            exhaustions: Exhaustions::default(),
            expectations: Expectations::new([c.rotate_left(16), d], shared),
            companions: Companions::new(d.rotate_left(16)),
            edits: Edits::new(),
            number: config.number,
            is_one_of_many,
            directory: config.directory,
            redirects: Redirects::new(redirects, [b, a]).map_err(|_| ShardError::Redirects { redirects })?,
            notices: Notices::default(),
            own_entries: OwnEntries::new(&config.steering, config.number),
            steering: config.steering,
            drafts: Drafts::new(),
            toll: 0,
            errand: Errand::default(),
            arrived: None,
        })
    }

    /// Which of all shards this is.
    #[must_use]
    pub const fn number(&self) -> ShardNumber {
        self.number
    }

    /// Who owns what.
    #[must_use]
    pub const fn steering(&self) -> &Arc<Steering> {
        &self.steering
    }

    /// Where the table's arrays are: what [`residence`](weir_numa::residence) can be asked about from any thread.
    #[must_use]
    pub fn memory(&self) -> Vec<Span> {
        self.table.spans()
    }

    /// Touches the memory for IPv4 connections now, so that the packet path meets no page fault.
    pub fn prefault(&mut self) {
        self.table.prefault();
    }

    /// Ends what has expired by `now`; at most `budget` connections are looked at. Returns how many were: less than
    /// `budget` means that nothing is left to do, and [`Shard::len`] and [`Shard::zone_len`] are exact.
    pub fn sweep(&mut self, now: Millis, budget: u32) -> u32 {
        let moment = self.clock.advance(now);
        let early = self.sweep_hungry(moment, budget);
        let looked_at = early + self.sweep_to(moment, budget - early);
        self.table.tend(self.clock.origin());
        looked_at
    }

    pub(crate) fn sweep_to(&mut self, moment: Moment, budget: u32) -> u32 {
        let until = tick(moment);
        if !self.expectations.is_empty() {
            self.expectations.expire(moment, budget);
        }
        let mut looked_at = 0;
        while looked_at < budget {
            let mut due: ArrayVec<u32, { AT_ONCE as usize }> = ArrayVec::new();
            let stop = budget.min(looked_at + AT_ONCE);
            let mut is_done = false;
            while looked_at < stop && !is_done {
                match self.zones.next(self.table.links(), until) {
                    Due::Connection(index) => due.push(index),
                    Due::Zone => {}
                    Due::Nothing => is_done = true,
                }
                looked_at += u32::from(!is_done);
            }
            // Together, so that what one needs is on its way while others end.
            self.table.prefetch_removals(due.iter().copied());
            for index in due {
                self.look_at(index, until);
            }
            if is_done {
                break;
            }
        }
        looked_at
    }

    /// Ends expired connections, of `zone` if there is one, until `has_room` or none of them is left: true if it
    /// has. Looks at no more than `LOOKS` of them. Each that has not expired goes back into the wheel until its
    /// deadline, so that it is looked at again only after packets have moved that.
    #[cold]
    pub(crate) fn make_room(
        &mut self,
        moment: Moment,
        zone: Option<u16>,
        has_room: impl Fn(&Self) -> bool,
    ) -> bool {
        /// What one packet may cost: some 0.3 ms, as much as a search for a free port.
        const LOOKS: u32 = 4096;
        let until = tick(moment);
        for _ in 0..LOOKS {
            let due = match zone {
                None => self.zones.next(self.table.links(), until),
                Some(zone) => {
                    let index = self.zones.next_of(self.table.links(), zone, until);
                    index.map_or(Due::Nothing, Due::Connection)
                }
            };
            match due {
                Due::Connection(index) => self.look_at(index, until),
                Due::Zone => continue,
                Due::Nothing => return false,
            }
            if has_room(self) {
                return true;
            }
        }
        self.counters.refused_unsettled += 1;
        false
    }

    /// Ends a connection that has left its wheel if its deadline is past at tick `until`, and puts it back if not.
    pub(crate) fn look_at(&mut self, index: u32, until: u64) {
        let connection = self.table.connection(index);
        let (zone, deadline) = (connection.zone(), connection.deadline().near(until));
        if deadline > until {
            self.zones.arm(self.table.links(), zone, index, deadline, until);
        } else {
            self.end(index, EndCause::Timeout);
        }
    }

    /// Ends a connection: it leaves table, wheel and counts, and whoever listens hears why.
    pub(crate) fn end(&mut self, index: u32, cause: EndCause) {
        if self.events.listening() {
            self.record(index, EventKind::Destroy(cause));
        }
        let counter = match cause {
            EndCause::Timeout => &mut self.counters.expired,
            EndCause::Flush => &mut self.counters.flushed,
            EndCause::Force | EndCause::Reopened => &mut self.counters.replaced,
        };
        *counter += 1;
        let zone = self.table.connection(index).zone();
        self.zones.leave(self.table.links(), zone, index);
        if let Some(share) = &self.share {
            share.ended(zone);
        }
        if !self.occupancy.is_empty() {
            for direction in [Direction::Original, Direction::Reply] {
                self.occupancy.release(&self.table.tuple(index, direction));
            }
        }
        let connection = self.table.connection(index);
        if connection.has(flag::ASSISTED | flag::REDIRECTED) {
            if connection.has(flag::REDIRECTED) {
                self.unsettle(index);
            }
            self.forget(index);
        }
        self.table.remove(index);
    }

    /// Ranges of addresses and ports that ran out since this was last asked.
    #[must_use]
    pub fn take_exhaustions(&mut self) -> Vec<Exhaustion> {
        self.exhaustions.take()
    }

    /// What happened so far.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Connections, those included that have expired but were not swept yet: exact once [`Shard::sweep`] has
    /// nothing left to do.
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

    /// Connections that are admitted, all shards together.
    #[must_use]
    pub const fn max_connections(&self) -> u32 {
        self.max_connections
    }

    /// Sets how many connections are admitted, all shards together; lowering it removes none. It holds for all shards
    /// at once, whichever is told first; all have to be told.
    pub fn set_max_connections(&mut self, connections: u32) {
        self.max_connections = connections;
        if let Some(share) = &self.share {
            share.leases().set_limit(Scope::All, Some(connections));
        }
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

    /// Whether packets of known connections are told their original tuple ([`CtMeta::original`](crate::CtMeta::original)).
    /// They are unless this was called: for callers whose tables do not ask for it, which most do not.
    pub const fn set_shows_original(&mut self, shows: bool) {
        self.shows_original = shows;
    }

    /// How long connections may be silent.
    #[must_use]
    pub const fn timeouts(&self) -> &Timeouts {
        self.zones.default_timeouts()
    }

    /// The timeouts of a zone that has its own.
    #[must_use]
    pub fn zone_timeouts(&self, zone: u16) -> Option<&Timeouts> {
        self.zones.own_timeouts(zone)
    }

    /// Gives a zone timeouts of its own, or with `None` those of all others. Connections take them with their next
    /// packet.
    ///
    /// # Errors
    /// 65 535 different ones are in use already.
    pub fn set_zone_timeouts(
        &mut self,
        zone: u16,
        timeouts: Option<Timeouts>,
    ) -> Result<(), TooManyPolicies> {
        self.zones.set_timeouts(zone, timeouts)
    }

    /// Connections of a zone, counted as [`Shard::len`] counts all.
    #[must_use]
    pub fn zone_len(&self, zone: u16) -> u32 {
        self.zones.connections(zone)
    }

    /// Connections that a zone may have by a limit of its own, all shards together; 0 admits none.
    #[must_use]
    pub fn zone_limit(&self, zone: u16) -> Option<u32> {
        self.zones.own_limit(zone)
    }

    /// Sets or removes a zone's own limit, as [`Shard::set_max_connections`]; lowering it removes no connection.
    pub fn set_zone_limit(&mut self, zone: u16, limit: Option<u32>) {
        self.zones.set_limit(zone, limit);
        if let Some(share) = &self.share {
            share.leases().set_limit(Scope::Zone(zone), limit);
        }
    }

    /// Sets or removes the limit of zones without their own, as [`Shard::set_max_connections`].
    pub fn set_default_zone_limit(&mut self, limit: Option<u32>) {
        self.zones.set_default_limit(limit);
        if let Some(share) = &self.share {
            share.leases().set_default_limit(limit);
        }
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
        let end = self.end_of_walk(cursor, limit);
        for index in cursor.next..end {
            if let Some((_, view)) = self.table.view_live(index, moment) {
                visit(&view);
            }
        }
        self.advance(cursor, end);
    }

    /// Removes those connections for which `filter` is true, looking at `limit` slots at most, as [`Shard::dump`].
    /// Returns how many were removed.
    pub fn flush(
        &mut self,
        now: Millis,
        cursor: &mut DumpCursor,
        limit: usize,
        filter: &mut dyn FnMut(&ConnectionView) -> bool,
    ) -> u32 {
        let moment = self.clock.advance(now);
        let mut removed = 0;
        let end = self.end_of_walk(cursor, limit);
        for index in cursor.next..end {
            if !self.table.connection(index).is_used() {
                continue;
            }
            match self.table.view_live(index, moment) {
                None => self.end(index, EndCause::Timeout),
                Some((_, view)) if filter(&view) => {
                    self.end(index, EndCause::Flush);
                    removed += 1;
                }
                Some(_) => {}
            }
        }
        self.advance(cursor, end);
        removed
    }

    /// Removes those of `named`, connections that a [`ShardReader`] has shown, that are still there and for which
    /// `filter` is still true. Returns how many were removed. Each costs some 100 to 300 ns; name a few dozen at once.
    pub fn flush_named(
        &mut self,
        now: Millis,
        named: &[ConnectionRef],
        filter: &mut dyn FnMut(&ConnectionView) -> bool,
    ) -> u32 {
        let moment = self.clock.advance(now);
        let mut removed = 0;
        for named in named.chunks(AT_ONCE as usize) {
            self.table.prefetch_removals(named.iter().map(ConnectionRef::index));
            for name in named {
                // One whose generation has come round once more is at least one that is meant.
                if let Some((found, view)) = self.table.view_live(name.index(), moment)
                    && found.generation == name.generation
                    && filter(&view)
                {
                    self.end(name.index(), EndCause::Flush);
                    removed += 1;
                }
            }
        }
        removed
    }

    /// A hold on the connections for another thread, which can look at them while this one works. From now on, until
    /// the last such hold is dropped, memory of ended connections is used again only when no reader looks at it any
    /// more; for that [`Shard::sweep`] has to be called from time to time, as it is anyway.
    pub fn reader(&mut self) -> ShardReader {
        ShardReader::new(self.table.share(self.clock.origin()))
    }

    /// Places of ended connections that wait for readers to look away.
    #[must_use]
    pub const fn retired(&self) -> u32 {
        self.table.retired()
    }

    fn end_of_walk(&self, cursor: &DumpCursor, limit: usize) -> u32 {
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        cursor.next.saturating_add(limit).min(self.table.used())
    }

    fn advance(&self, cursor: &mut DumpCursor, end: u32) {
        *cursor = DumpCursor::up_to(end, self.table.used());
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
