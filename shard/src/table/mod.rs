//! The connection table of one shard: a slab of connections and an index over the tuples of both directions. It has
//! one writer, its owner, a fixed capacity, and never moves or evicts a live connection. Readers on other threads may
//! walk the slab beside the owner; `memory` has the protocol.
//!
//! The index is an array of cache lines of eight 16-bit tags and slots. A tuple's keyed hash gives its home bucket;
//! an entry that finds it full goes to the next one and leaves a mark in each bucket that it passed, so look-ups
//! stop at the first bucket that nobody passed. At 70 % load nearly all entries are at home, and since the hash has
//! a secret, nobody can choose tuples that crowd one place.
//! The index is the owner's alone.

mod account;
pub(crate) mod bucket;
pub(crate) mod connection;
pub(crate) mod memory;
mod ready;
mod shared;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use thiserror::Error;
use weir_numa::memory::{MemoryError, NodeSlice, Placing};
use weir_numa::residence::Span;
use weir_wire::numbers::protocol;
use weir_wire::{Tuple, Tuple4};

use self::account::{Account, count_in_line};
use self::bucket::{Bucket, Direction, LANES, Slot, prefetch};
use self::connection::{Cold, Connection, Key, Owned, Place, flag};
use self::memory::Memory;
use self::ready::{AHEAD, Ready, prefetch_slot};
use crate::clock::{Deadline, Moment, tick};
use crate::epoch::limbo::{Epochs, Limbo, Next, RESERVE};
use crate::meta::ConnectionRef;
use crate::timeouts::Timeout;
use crate::verdict::Verdict;
use crate::view::ConnectionView;
use crate::wheel::{Link, Links};

/// Most connections that a table can be made for.
pub const MAX_CAPACITY: u32 = 1 << 30;

/// Longest way from home, in buckets. At 70 % load the chance that an entry has to go further is below 2^-60.
const MAX_PROBES: usize = 64;

/// Why a table cannot be made.
#[derive(Debug, Error)]
pub enum TableError {
    /// Capacity out of range.
    #[error("a table of {0} connections cannot be; give a capacity of 1 to {MAX_CAPACITY}")]
    Capacity(u32),
    /// No memory.
    #[error("no memory for a table of {capacity} connections: {source}")]
    Memory {
        /// Connections asked for.
        capacity: u32,
        /// The kernel's reason.
        source: MemoryError,
    },
}

/// Where an entry of the index stands.
#[derive(Clone, Copy)]
struct Entry {
    bucket: usize,
    lane: u32,
}

/// The table has no place for one more connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// The table.
pub(crate) struct Table {
    buckets: NodeSlice<Bucket>,
    memory: Memory,
    places: NodeSlice<Place>,
    secret: [u64; 2],
    capacity: u32,
    /// First free slot + 1 of those that were used before and are not `ready`; 0 = none.
    free: u32,
    ready: Ready,
    /// Slots from here on were never used.
    used: u32,
    len: u32,
    limbo: Limbo,
    /// What readers hold; `None` while there are none.
    readable: Option<Arc<Readable>>,
}

/// A table as readers hold it.
pub(crate) struct Readable {
    pub(crate) memory: Memory,
    pub(crate) epochs: Epochs,
    /// As [`Table::used`].
    used: AtomicU32,
    /// As [`Clock::origin`](crate::clock::Clock::origin).
    origin: AtomicU64,
}

impl Readable {
    /// Slots below this may hold connections.
    pub(crate) fn used(&self) -> u32 {
        // Whatever a slot beyond what is seen holds has come since the walk began.
        self.used.load(Ordering::Relaxed)
    }

    pub(crate) fn origin(&self) -> u64 {
        self.origin.load(Ordering::Relaxed)
    }
}

/// What a packet of a known connection is tracked with.
pub(crate) struct Row<'t> {
    pub(crate) connection: Owned<'t, Connection>,
    account: Option<&'t Account>,
    cold: &'t [Cold],
    slot: Slot,
}

impl Row<'_> {
    /// True if the connection is this tuple's, in the slot's direction. A mirror's reply is for the caller to tell apart.
    #[inline]
    pub(crate) fn is_of(&self, tuple: &Tuple4) -> bool {
        self.connection.has_key(self.slot.direction(), &Key::of_v4(tuple))
    }

    /// Counts a packet of `bytes` that came at `moment` as the tracker of its protocol has judged it, and moves the
    /// deadline. True if that has moved closer: the wheel only ever finds out that it is too early.
    #[inline(always)]
    pub(crate) fn renew(
        &self,
        protocol: u8,
        (verdict, timeout): (Verdict, Option<Timeout>),
        moment: Moment,
        bytes: usize,
        after: impl FnOnce(Timeout) -> Deadline,
    ) -> bool {
        if matches!(verdict, Verdict::Established | Verdict::New)
            && let Some(account) = self.account
        {
            let (direction, tick) = (self.slot.direction(), tick(moment));
            if has_windows(protocol) {
                account.count(direction, bytes, tick);
            } else {
                count_in_line(self.connection, account, direction, bytes, tick);
            }
        }
        let Some(timeout) = timeout else { return false };
        let (before, deadline) = (self.connection.deadline(), after(timeout));
        if deadline == before {
            return false;
        }
        self.connection.set_deadline(deadline);
        deadline.is_before(before)
    }

    /// What a packet of a [plain](Row::is_of) TCP or UDP tuple is translated to.
    #[inline]
    pub(crate) fn translation(&self) -> Tuple4 {
        self.connection.translation_v4(self.slot.direction())
    }

    /// The companion's number, 0 without one.
    #[cold]
    pub(crate) fn companion(&self) -> u32 {
        self.cold.get(self.slot.index() as usize).map_or(0, Cold::companion)
    }
}

impl Links for NodeSlice<Place> {
    #[inline]
    fn link(&mut self, index: u32) -> &mut Link {
        &mut self[index as usize].link
    }
}

impl Next for NodeSlice<Place> {
    #[inline]
    fn next(&mut self, index: u32) -> &mut u32 {
        &mut self[index as usize].next
    }
}

/// True of protocols whose trackers fill a hot line, so that their packets are counted in the account.
#[inline]
const fn has_windows(protocol: u8) -> bool {
    matches!(protocol, protocol::TCP | protocol::SCTP)
}

/// Never 0, which marks a free lane.
#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the low bits of the hash; the home bucket uses the high ones"
)]
const fn tag_of(hash: u64) -> u16 {
    let tag = hash as u16;
    if tag == 0 { 1 } else { tag }
}

impl Table {
    /// An empty table, whose memory is touched as it fills. With `accounting` it counts what connections carry.
    pub(crate) fn new(
        capacity: u32,
        accounting: bool,
        placing: Placing,
        secret: [u64; 2],
    ) -> Result<Self, TableError> {
        if capacity == 0 || capacity > MAX_CAPACITY {
            return Err(TableError::Capacity(capacity));
        }
        // Two entries a connection, 70 % load.
        let buckets = (capacity as usize * 2 * 10).div_ceil(7 * LANES);
        let slots = (capacity + RESERVE) as usize;
        let no_memory = |source| TableError::Memory { capacity, source };
        Ok(Self {
            buckets: NodeSlice::placed(buckets, placing).map_err(no_memory)?,
            memory: Memory::new(slots, accounting, placing).map_err(no_memory)?,
            places: NodeSlice::placed(slots, placing).map_err(no_memory)?,
            secret,
            capacity,
            free: 0,
            ready: Ready::default(),
            used: 0,
            len: 0,
            limbo: Limbo::new(),
            readable: None,
        })
    }

    /// Where its arrays are.
    pub(crate) fn spans(&self) -> Vec<Span> {
        [self.buckets.span(), self.places.span()].into_iter().chain(self.memory.spans()).collect()
    }

    /// Touches all memory but that for IPv6.
    pub(crate) fn prefault(&mut self) {
        self.buckets.prefault();
        self.memory.prefault();
        self.places.prefault();
    }

    pub(crate) const fn len(&self) -> u32 {
        self.len
    }

    pub(crate) const fn capacity(&self) -> u32 {
        self.capacity
    }

    /// False when there is no place for one more connection, but by its tuples.
    pub(crate) fn has_free_slot(&self) -> bool {
        let is_any = self.free != 0 || !self.ready.is_empty() || (self.used as usize) < self.places.len();
        self.len < self.capacity && is_any
    }

    /// True if there is no place only because so many slots wait for readers.
    pub(crate) fn is_held_up(&self) -> bool {
        self.len < self.capacity && !self.has_free_slot()
    }

    /// Slots whose connections have ended and that wait for readers.
    pub(crate) const fn retired(&self) -> u32 {
        self.limbo.len()
    }

    /// The table for a reader on another thread, whose clock has this origin. From now on slots wait.
    pub(crate) fn share(&mut self, origin: u64) -> Arc<Readable> {
        let readable = self.readable.get_or_insert_with(|| {
            Arc::new(Readable {
                memory: self.memory.clone(),
                epochs: Epochs::default(),
                used: AtomicU32::new(self.used),
                origin: AtomicU64::new(origin),
            })
        });
        readable.origin.store(origin, Ordering::Relaxed);
        self.limbo.open(&readable.epochs);
        Arc::clone(readable)
    }

    /// Lets slots go that no reader can look at any more, and tells readers the clock's origin. To be called between
    /// bursts; without readers it does nothing.
    #[inline]
    pub(crate) fn tend(&mut self, origin: u64) {
        if self.readable.is_some() {
            self.tend_readers(origin);
        }
    }

    #[cold]
    fn tend_readers(&mut self, origin: u64) {
        let Some(readable) = &mut self.readable else { return };
        // The count alone orders nothing; to get at what nobody else holds does.
        if Arc::strong_count(readable) == 1 && Arc::get_mut(readable).is_some() {
            self.limbo.close(&mut self.places, &mut self.free);
            self.readable = None;
            return;
        }
        if readable.origin() != origin {
            readable.origin.store(origin, Ordering::Relaxed);
        }
        self.limbo.tend(&mut self.places, &mut self.free);
    }

    /// Slots below this may hold connections.
    pub(crate) const fn used(&self) -> u32 {
        self.used
    }

    /// Buckets of the index.
    pub(crate) fn buckets(&self) -> usize {
        self.buckets.len()
    }

    /// Entries of the bucket at `index`, 0 where there is none.
    pub(crate) fn occupancy(&self, index: usize) -> u8 {
        self.buckets.get(index).map_or(0, Bucket::occupancy)
    }

    #[inline]
    pub(crate) const fn hash(&self, tuple: &Tuple) -> u64 {
        tuple.hash(&self.secret)
    }

    /// The same of an IPv4 tuple.
    #[inline]
    pub(crate) const fn hash4(&self, tuple: &Tuple4) -> u64 {
        tuple.hash(&self.secret)
    }

    /// Multiply-shift on the hash's high bits in place of a modulo.
    #[inline]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the product's upper half is below the number of buckets"
    )]
    fn home(&self, hash: u64) -> usize {
        ((u128::from(hash) * self.buckets.len() as u128) >> 64) as usize
    }

    #[inline]
    fn next_bucket(&self, at: usize) -> usize {
        if at + 1 == self.buckets.len() { 0 } else { at + 1 }
    }

    #[inline]
    fn probes(&self) -> usize {
        self.buckets.len().min(MAX_PROBES)
    }

    /// Asks for the home bucket of a hash.
    #[inline]
    pub(crate) fn prefetch_bucket(&self, hash: u64) {
        prefetch(&self.buckets[self.home(hash)]);
    }

    /// Asks for a connection's hot line, and over IPv6 for its addresses.
    #[inline]
    pub(crate) fn prefetch_connection(&self, slot: Slot, ipv6: bool) {
        let index = slot.index() as usize;
        prefetch(&self.memory.connections[index]);
        if ipv6 {
            prefetch(&self.memory.addresses6[index]);
        }
    }

    /// Asks for the account of a connection of this protocol, if its packets are counted there.
    #[inline]
    pub(crate) fn prefetch_account(&self, slot: Slot, protocol: u8) {
        if has_windows(protocol)
            && let Some(account) = self.memory.accounts.get(slot.index() as usize)
        {
            prefetch(account);
        }
    }

    /// Asks for what [`Self::remove`] and leaving the timer wheel touch of so many connections at once: their own lines,
    /// and once those are there, the lines that they lead to.
    pub(crate) fn prefetch_removals(&self, indices: impl Iterator<Item = u32> + Clone) {
        let prefetch_place = |index: u32| self.places.get(index as usize).into_iter().for_each(prefetch);
        for index in indices.clone() {
            self.memory.connections.get(index as usize).into_iter().for_each(prefetch);
            prefetch_place(index);
        }
        for index in indices {
            let (Some(connection), Some(place)) =
                (self.memory.connections.get(index as usize), self.places.get(index as usize))
            else {
                continue;
            };
            place.link.neighbours().for_each(prefetch_place);
            if !Owned::new(connection).is_used() {
                continue;
            }
            for direction in [Direction::Original, Direction::Reply] {
                self.prefetch_bucket(self.entry_hash(index, direction));
            }
        }
    }

    /// The hash under which a connection's tuple of this direction is found.
    #[inline]
    fn entry_hash(&self, index: u32, direction: Direction) -> u64 {
        let connection = self.connection(index);
        if connection.family() == 6 {
            connection.key(direction).addresses
        } else {
            self.hash(&self.tuple(index, direction))
        }
    }

    /// All that tracking a packet reads and writes, found once.
    #[inline]
    pub(crate) fn row(&mut self, slot: Slot) -> Row<'_> {
        let index = slot.index() as usize;
        Row {
            connection: Owned::new(&self.memory.connections[index]),
            account: self.memory.accounts.get(index),
            cold: &self.memory.cold,
            slot,
        }
    }

    /// Counts a new connection's first packet, of `bytes`, that came at `tick`.
    #[inline]
    pub(crate) fn count_first(&mut self, index: u32, protocol: u8, bytes: usize, tick: u64) {
        let Some(account) = self.memory.accounts.get(index as usize) else { return };
        let connection = Owned::new(&self.memory.connections[index as usize]);
        if has_windows(protocol) {
            connection.set(flag::ACCOUNT, true);
            account.begin(bytes, tick);
        } else {
            count_in_line(connection, account, Direction::Original, bytes, tick);
        }
    }

    /// A connection that has not expired by `moment`, with its name.
    pub(crate) fn view_live(&self, index: u32, moment: Moment) -> Option<(ConnectionRef, ConnectionView)> {
        self.memory.view(index, moment)
    }

    /// A connection as it is shown.
    pub(crate) fn view(&self, index: u32, moment: Moment) -> Option<ConnectionView> {
        self.memory.view_own(index, moment)
    }

    /// Calls `visit` with each slot whose tag fits, until it returns true; where it did so.
    #[inline]
    fn probe(&self, hash: u64, mut visit: impl FnMut(Slot) -> bool) -> Option<Entry> {
        let tag = tag_of(hash);
        let mut at = self.home(hash);
        for _ in 0..self.probes() {
            let bucket = &self.buckets[at];
            let mut lanes = bucket.matching(tag);
            while lanes != 0 {
                let lane = lanes.trailing_zeros();
                if visit(bucket.slot(lane)) {
                    return Some(Entry { bucket: at, lane });
                }
                lanes &= lanes - 1;
            }
            if bucket.overflow == 0 {
                return None;
            }
            at = self.next_bucket(at);
        }
        None
    }

    /// A slot that may be the tuple's, by its tag alone, and its hint.
    #[inline]
    pub(crate) fn candidate(&self, hash: u64) -> Option<(Slot, u16)> {
        // Nearly all entries are at home.
        let home = &self.buckets[self.home(hash)];
        let lanes = home.matching(tag_of(hash));
        let (bucket, lane) = match lanes {
            0 if home.overflow == 0 => return None,
            0 => self.candidate_away(hash)?,
            _ => (home, lanes.trailing_zeros()),
        };
        Some((bucket.slot(lane), bucket.hint(lane)))
    }

    #[cold]
    fn candidate_away(&self, hash: u64) -> Option<(&Bucket, u32)> {
        let Entry { bucket, lane } = self.probe(hash, |_| true)?;
        Some((&self.buckets[bucket], lane))
    }

    /// Keeps a hint beside the entry of a slot that was found under this hash; nothing if that is gone.
    pub(crate) fn set_hint(&mut self, hash: u64, slot: Slot, hint: u16) {
        if let Some(Entry { bucket, lane }) = self.probe(hash, |other| other == slot) {
            self.buckets[bucket].set_hint(lane as usize, hint);
        }
    }

    /// The slot of a tuple.
    #[inline]
    pub(crate) fn find(&self, tuple: &Tuple, hash: u64) -> Option<Slot> {
        let Entry { bucket, lane } = self.probe(hash, |slot| self.holds(slot, tuple, hash))?;
        Some(self.buckets[bucket].slot(lane))
    }

    /// True if `slot` is this tuple's.
    #[inline(always)]
    pub(crate) fn holds(&self, slot: Slot, tuple: &Tuple, hash: u64) -> bool {
        let index = slot.index() as usize;
        let connection = &self.memory.connections[index];
        if !connection.has_key(slot.direction(), &Key::new(tuple, hash)) {
            return false;
        }
        // A slot that was found before others were executed may have become a mirror's, which has no reply.
        if slot.direction() == Direction::Reply && connection.has(flag::MIRROR) {
            return false;
        }
        match tuple {
            Tuple::V4(_) => true,
            Tuple::V6(tuple) => self.memory.addresses6[index].of(slot.direction()) == [tuple.src, tuple.dst],
        }
    }

    #[inline]
    pub(crate) fn connection(&self, index: u32) -> &Connection {
        &self.memory.connections[index as usize]
    }

    #[inline]
    pub(crate) fn connection_mut(&mut self, index: u32) -> Owned<'_, Connection> {
        Owned::new(&self.memory.connections[index as usize])
    }

    #[inline]
    pub(crate) fn cold(&self, index: u32) -> &Cold {
        &self.memory.cold[index as usize]
    }

    #[inline]
    pub(crate) fn cold_mut(&mut self, index: u32) -> Owned<'_, Cold> {
        Owned::new(&self.memory.cold[index as usize])
    }

    /// The original tuple of the control connection that announced this one.
    pub(crate) fn parent(&self, index: u32) -> Option<Tuple> {
        self.memory.parent(index)
    }

    /// Makes a connection that is not published yet the data connection of a control connection.
    pub(crate) fn set_parent(&mut self, index: u32, parent: &Tuple) {
        Owned::new(&self.memory.parents[index as usize]).set(parent);
        self.connection_mut(index).set(flag::RELATED, true);
    }

    /// Where the timer wheel's links live.
    #[inline]
    pub(crate) fn links(&mut self) -> &mut impl Links {
        &mut self.places
    }

    #[inline]
    pub(crate) fn tuple(&self, index: u32, direction: Direction) -> Tuple {
        self.memory.tuple(index, direction)
    }

    /// What a packet that goes in `slot`'s direction is translated to.
    #[inline]
    pub(crate) fn translation(&self, slot: Slot) -> Tuple {
        // What the other side sends, turned round, is what it is to receive.
        self.tuple(slot.index(), slot.direction().opposite()).reversed()
    }

    /// [`Table::translation`] for TCP and UDP over IPv4; `None` of anything else.
    #[inline]
    pub(crate) fn plain_translation(&self, slot: Slot) -> Option<Tuple4> {
        self.memory.connections[slot.index() as usize].plain_translation(slot.direction())
    }

    /// Adds a connection, all zero but for its tuples. Neither tuple may be in the table; both are in one zone, of
    /// one family and protocol. If they are equal they make one entry. It is neither found nor shown until it is
    /// [published](Table::publish).
    pub(crate) fn insert(
        &mut self,
        (original, hash): (&Tuple, u64),
        (reply, reply_hash): (&Tuple, u64),
    ) -> Result<u32, Full> {
        if self.len >= self.capacity {
            return Err(Full);
        }
        let index = self.next_slot()?;
        let mirror = original == reply;
        self.add_entry(hash, Slot::new(index, Direction::Original))?;
        if !mirror && self.add_entry(reply_hash, Slot::new(index, Direction::Reply)).is_err() {
            self.remove_entry(hash, Slot::new(index, Direction::Original));
            return Err(Full);
        }
        self.take_slot(index);
        self.len += 1;
        let keys = [Key::new(original, hash), Key::new(reply, reply_hash)];
        let before = self.connection(index).flags();
        if before & flag::ACCOUNT != 0
            && let Some(account) = self.memory.accounts.get(index as usize)
        {
            account.clear();
        }
        self.connection_mut(index).begin(keys, if mirror { flag::MIRROR } else { 0 });
        self.cold_mut(index).clear(before & flag::LABEL != 0);
        if let (Tuple::V6(original), Tuple::V6(reply)) = (original, reply) {
            Owned::new(&self.memory.addresses6[index as usize])
                .set([[original.src, original.dst], [reply.src, reply.dst]]);
        }
        Ok(index)
    }

    /// The slot that the next connection gets.
    #[inline]
    fn next_slot(&mut self) -> Result<u32, Full> {
        if let Some(index) = self.ready.peek() {
            return Ok(index);
        }
        if self.free == 0 && self.limbo.len() != 0 {
            self.limbo.reap(&mut self.places, &mut self.free);
        }
        match self.free.checked_sub(1) {
            Some(index) => Ok(index),
            None if (self.used as usize) < self.places.len() => Ok(self.used),
            None => Err(Full),
        }
    }

    /// Takes the slot that [`Table::next_slot`] gave, and asks for the lines of one that comes later.
    #[inline]
    fn take_slot(&mut self, index: u32) {
        if !self.ready.is_empty() {
            self.ready.advance();
        } else if self.free != 0 {
            self.free = self.places[index as usize].next;
        } else {
            self.used += 1;
            prefetch_slot(&self.memory, &self.places, self.used + AHEAD);
            if let Some(readable) = &self.readable {
                readable.used.store(self.used, Ordering::Relaxed);
            }
        }
        self.ready.refill(&self.memory, &self.places, &mut self.free);
    }

    /// Shows a connection that was just inserted for this tuple, with all that it begins with.
    pub(crate) fn publish(&mut self, index: u32, original: &Tuple) {
        self.memory.publish(index, Key::new(original, 0).rest);
    }

    /// Removes a connection, which must be there and must have left the timer wheel.
    pub(crate) fn remove(&mut self, index: u32) {
        let connection = self.connection(index);
        if !connection.is_used() {
            return;
        }
        let mirror = connection.has(flag::MIRROR);
        for direction in [Direction::Original, Direction::Reply] {
            if direction == Direction::Reply && mirror {
                continue;
            }
            self.remove_entry(self.entry_hash(index, direction), Slot::new(index, direction));
        }
        self.connection_mut(index).withdraw();
        self.len -= 1;
        if self.limbo.is_open() {
            self.limbo.retire(&mut self.places, index);
        } else {
            self.places[index as usize].next = self.free;
            self.free = index + 1;
        }
    }

    fn add_entry(&mut self, hash: u64, slot: Slot) -> Result<(), Full> {
        let home = self.home(hash);
        let mut at = home;
        for _ in 0..self.probes() {
            let lanes = self.buckets[at].matching(0);
            if lanes != 0 {
                let lane = lanes.trailing_zeros() as usize % LANES;
                self.buckets[at].fill(lane, tag_of(hash), slot);
                self.mark_passed(home, at, |overflow| overflow.saturating_add(1));
                return Ok(());
            }
            at = self.next_bucket(at);
        }
        Err(Full)
    }

    fn remove_entry(&mut self, hash: u64, slot: Slot) {
        let (tag, home) = (tag_of(hash), self.home(hash));
        let mut at = home;
        for _ in 0..self.probes() {
            let bucket = &mut self.buckets[at];
            let mut lanes = bucket.matching(tag);
            while lanes != 0 {
                let lane = lanes.trailing_zeros() as usize % LANES;
                if bucket.slots[lane] == slot {
                    bucket.tags[lane] = 0;
                    // A count that reached its maximum is no longer exact and stays.
                    self.mark_passed(home, at, |n| if n == u16::MAX { n } else { n.saturating_sub(1) });
                    return;
                }
                lanes &= lanes - 1;
            }
            at = self.next_bucket(at);
        }
    }

    /// Changes the overflow count of each bucket from `home` up to but not including `end`.
    #[inline]
    fn mark_passed(&mut self, home: usize, end: usize, change: impl Fn(u16) -> u16) {
        let mut at = home;
        while at != end {
            self.buckets[at].overflow = change(self.buckets[at].overflow);
            at = self.next_bucket(at);
        }
    }
}

#[cfg(test)]
mod tests;
