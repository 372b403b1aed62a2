//! Puts fragments together for the tracker (RFC 791 section 3.2, RFC 815, RFC 8200 section 4.5): which of them belong
//! to one datagram, whether they fit, and when they are all there. It never sees a packet: a fragment is a few numbers
//! and a token that names it to the caller, who holds the packets themselves and does with each what [`Offer`] says.
//!
//! **Bounds.** At most [`Fragments::max`] fragments are held in all, and at most an eighth of these (but no less than
//! [`LEAST_SHARE`]) for one source (`shares.rs`), so that eight who flood are needed to fill it. The fragment that makes
//! a datagram complete is not held and so needs no room. A datagram lives [`LIFETIME`] from its first fragment on.
//!
//! **Overlaps.** A fragment that repeats one bit of another in another shape makes the whole datagram invalid, those
//! fragments that are still to come included (RFC 5722 section 4, RFC 8200 section 4.5). An exact repetition only is
//! refused itself: networks duplicate packets, and RFC 8200 lets the rest go on.

use core::net::IpAddr;
use std::collections::HashMap;

use foldhash::quality::FixedState;

use crate::clock::Millis;
use crate::shares::{self, Shares};

mod counters;

pub use counters::FragmentCounters;

/// How long the fragments of a datagram are waited for, in milliseconds from the first (as Open vSwitch; RFC 791 says
/// 15 seconds too, RFC 8200 60).
pub const LIFETIME: Millis = 15_000;
/// Fragments held unless something else is said (ovs-vswitchd(8), `ipf-set-max-nfrags`).
pub const DEFAULT_MAX: u32 = 1000;
/// The most that may be asked for.
pub const LARGEST_MAX: u32 = 5000;
/// Least size that may be asked for of fragments other than the last (ovs-vswitchd(8), `ipf-set-min-frag`).
pub const LEAST_MIN_SIZE: u32 = 400;
/// What one source may always hold, if so many are held at all: a datagram of 64 KiB in fragments of 1200 bytes is 55.
pub const LEAST_SHARE: u32 = 64;
/// Headers and data of a datagram, at the most: IPv4's total length counts both (RFC 791 section 3.1), IPv6's payload
/// length all behind the first 40 bytes (RFC 8200 section 3).
pub const MAX_LENGTH: [u32; 2] = [65_535, 65_575];

/// What tells datagrams apart that are under way at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DatagramKey {
    /// Source address.
    pub src: IpAddr,
    /// Destination address, of the same family.
    pub dst: IpAddr,
    /// The identification that the sender gave it.
    pub id: u32,
    /// IPv4's protocol. 0 for IPv6, whose fragments may disagree (RFC 8200 section 4.5).
    pub protocol: u8,
    /// The zone in which it is tracked.
    pub zone: u16,
    /// Which way through the flow tables it has come: those of one datagram that meet different ct actions are apart.
    pub recirculation: u32,
}

impl DatagramKey {
    fn family(&self) -> Family {
        match self.src {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }

    fn source(&self) -> shares::Source {
        shares::source(self.src)
    }
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// As the commands have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::V4 => "v4",
            Self::V6 => "v6",
        }
    }
}

/// A fragment's place in its datagram. Lengths are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Where its data begin.
    pub offset: u16,
    /// How many there are.
    pub length: u16,
    /// It is not the last one.
    pub more: bool,
    /// Its IP packet's length, headers included.
    pub packet_len: u16,
    /// Length of the headers that the whole datagram gets if this is its first fragment.
    pub header_len: u16,
    /// The protocol that it says it carries, to be shown.
    pub protocol: u8,
}

impl Fragment {
    const fn end(&self) -> u32 {
        self.offset as u32 + self.length as u32
    }
}

/// What becomes of a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// It is held; its packet must be kept under its token.
    Held,
    /// With it the datagram is complete: the tokens of all, its own among them, by offset, are the caller's again.
    Complete,
    /// It is not taken and goes on as invalid; what is held stays.
    Refused(Cause),
    /// It and the rest of its datagram go on as invalid: the tokens of those held are the caller's again.
    Broken(Cause),
    /// The time of those held is over: their tokens are the caller's again, to be dropped. The fragment itself is to be
    /// offered once more.
    Expired,
}

/// Why a fragment was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Reassembly is turned off for its family.
    Disabled,
    /// No data, or not the last and no multiple of 8 bytes.
    Malformed,
    /// Not the last, and shorter than the least size.
    TooSmall,
    /// The datagram would exceed [`MAX_LENGTH`].
    TooLong,
    /// It is there already.
    Duplicate,
    /// It overlaps another, or the datagram's end.
    Overlap,
    /// Its datagram was found to be invalid before.
    Refused,
    /// The store is full.
    StoreFull,
    /// Its source has its share of the store.
    SourceFull,
}

/// Settings and counters of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FamilyStatus {
    /// Fragments are put together.
    pub enabled: bool,
    /// Least IP packet length of fragments other than the last.
    pub min_size: u32,
    /// What happened so far.
    pub counters: FragmentCounters,
}

/// What a store is set to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentSettings {
    /// By [`Family`]: fragments are put together.
    pub enabled: [bool; 2],
    /// By [`Family`]: least IP packet length of fragments other than the last.
    pub min_size: [u32; 2],
    /// Fragments held at the most.
    pub max: u32,
}

impl Default for FragmentSettings {
    fn default() -> Self {
        Self { enabled: [true; 2], min_size: [1200, 1280], max: DEFAULT_MAX }
    }
}

/// A datagram that is under way, to be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatagramView {
    /// Which.
    pub key: DatagramKey,
    /// The protocol that its first fragment to come had.
    pub protocol: u8,
    /// Fragments held of it.
    pub fragments: u32,
    /// The one at offset 0 is there.
    pub has_first: bool,
    /// The last one is there.
    pub has_last: bool,
    /// It was found to be invalid: nothing is held of it, and what comes is refused.
    pub refused: bool,
}

/// No slot.
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Part<T> {
    offset: u16,
    length: u16,
    header_len: u16,
    token: T,
}

impl<T> Part<T> {
    const fn end(&self) -> u32 {
        self.offset as u32 + self.length as u32
    }
}

/// Links of a slot that is in use lead to its neighbours by age; those of a free one to the next free one.
#[derive(Debug)]
struct Datagram<T> {
    /// `None` when the slot is free.
    key: Option<DatagramKey>,
    /// By offset, without overlaps.
    parts: Vec<Part<T>>,
    /// Bytes of data held.
    received: u32,
    /// Where the data end, once the last fragment is there.
    end: Option<u32>,
    deadline: Millis,
    protocol: u8,
    refused: bool,
    older: u32,
    newer: u32,
}

/// Parts that a free slot keeps the memory for.
const KEPT_PARTS: usize = 64;

/// The fragments of datagrams that are not complete. See the module.
#[derive(Debug)]
pub struct Fragments<T> {
    settings: FragmentSettings,
    counters: [FragmentCounters; 2],
    index: HashMap<DatagramKey, u32, FixedState>,
    /// Fragments, and datagrams that were refused, by source.
    sources: Shares,
    slots: Vec<Datagram<T>>,
    free: u32,
    oldest: u32,
    newest: u32,
    held: u32,
    /// Datagrams that were refused; each counts as a fragment against the bounds.
    refused: u32,
}

impl<T: Copy> Fragments<T> {
    /// An empty store. `secret` keys its hashes.
    #[must_use]
    pub fn new(settings: FragmentSettings, secret: u64) -> Self {
        Self {
            settings,
            counters: [FragmentCounters::default(); 2],
            index: HashMap::with_hasher(FixedState::with_seed(secret)),
            sources: Shares::new(secret.rotate_left(32)),
            slots: Vec::new(),
            free: NONE,
            oldest: NONE,
            newest: NONE,
            held: 0,
            refused: 0,
        }
    }

    /// Takes a fragment in, or says what else becomes of it. `taken` gets the tokens that [`Offer`] gives back; what it
    /// held is forgotten.
    pub fn offer(
        &mut self,
        now: Millis,
        key: &DatagramKey,
        fragment: &Fragment,
        token: T,
        taken: &mut Vec<T>,
    ) -> Offer {
        taken.clear();
        let offer = self.judge(now, key, fragment, token, taken);
        let counters = &mut self.counters[key.family() as usize];
        match offer {
            Offer::Held => counters.accepted += 1,
            Offer::Complete => {
                counters.accepted += 1;
                counters.completed += taken.len() as u64;
                counters.datagrams += 1;
            }
            Offer::Refused(cause) | Offer::Broken(cause) => *cause.counter(counters) += 1,
            Offer::Expired => counters.expired += taken.len() as u64,
        }
        offer
    }

    fn judge(
        &mut self,
        now: Millis,
        key: &DatagramKey,
        fragment: &Fragment,
        token: T,
        taken: &mut Vec<T>,
    ) -> Offer {
        let family = key.family() as usize;
        if !self.settings.enabled[family] {
            return Offer::Refused(Cause::Disabled);
        }
        if fragment.length == 0 || fragment.more && !fragment.length.is_multiple_of(8) {
            return Offer::Refused(Cause::Malformed);
        }
        if fragment.more && u32::from(fragment.packet_len) < self.settings.min_size[family] {
            return Offer::Refused(Cause::TooSmall);
        }
        let found = self.index.get(key).copied();
        if let Some(slot) = found {
            if self.slots[slot as usize].deadline <= now {
                self.end(slot, taken);
                return Offer::Expired;
            }
            if self.slots[slot as usize].refused {
                return Offer::Refused(Cause::Refused);
            }
        }
        if fragment.end() + u32::from(fragment.header_len) > MAX_LENGTH[family] {
            return match found {
                Some(slot) => self.break_up(slot, Cause::TooLong, taken),
                None => Offer::Refused(Cause::TooLong),
            };
        }
        let Some(slot) = found else {
            if fragment.offset == 0 && !fragment.more {
                taken.push(token);
                return Offer::Complete;
            }
            if let Err(cause) = self.admit(key) {
                return Offer::Refused(cause);
            }
            let slot = self.begin(key, fragment.protocol, now.saturating_add(LIFETIME));
            self.insert(slot, 0, fragment, token);
            return Offer::Held;
        };
        let datagram = &self.slots[slot as usize];
        let place = match datagram.place(fragment) {
            Ok(place) => place,
            Err(Cause::Duplicate) => return Offer::Refused(Cause::Duplicate),
            Err(cause) => return self.break_up(slot, cause, taken),
        };
        let end = if fragment.more { datagram.end } else { Some(fragment.end()) };
        if end == Some(datagram.received + u32::from(fragment.length)) {
            // No gaps: there are no overlaps, and nothing lies beyond the end.
            let first = datagram.parts.first().filter(|_| place > 0);
            let header_len = first.map_or(fragment.header_len, |first| first.header_len);
            if u32::from(header_len) + end.unwrap_or(0) > MAX_LENGTH[family] {
                return self.break_up(slot, Cause::TooLong, taken);
            }
            self.end(slot, taken);
            taken.insert(place, token);
            return Offer::Complete;
        }
        if let Err(cause) = self.admit(key) {
            return Offer::Refused(cause);
        }
        self.insert(slot, place, fragment, token);
        Offer::Held
    }

    /// Whether one more of this datagram's source fits.
    fn admit(&self, key: &DatagramKey) -> Result<(), Cause> {
        if self.held + self.refused >= self.settings.max {
            return Err(Cause::StoreFull);
        }
        if self.sources.of(key.source()) >= self.share() {
            return Err(Cause::SourceFull);
        }
        Ok(())
    }

    /// Fragments that one source may hold.
    #[must_use]
    pub fn share(&self) -> u32 {
        (self.settings.max / shares::PART).max(LEAST_SHARE)
    }

    fn begin(&mut self, key: &DatagramKey, protocol: u8, deadline: Millis) -> u32 {
        let mut slot = self.free;
        if let Some(datagram) = self.slots.get(slot as usize) {
            self.free = datagram.newer;
        } else {
            // No more than fragments are held: some thousands.
            slot = u32::try_from(self.slots.len()).unwrap_or(NONE - 1);
            self.slots.push(Datagram {
                key: None,
                parts: Vec::new(),
                received: 0,
                end: None,
                deadline: 0,
                protocol: 0,
                refused: false,
                older: NONE,
                newer: NONE,
            });
        }
        let older = core::mem::replace(&mut self.newest, slot);
        match self.slots.get_mut(older as usize) {
            Some(neighbour) => neighbour.newer = slot,
            None => self.oldest = slot,
        }
        let datagram = &mut self.slots[slot as usize];
        (datagram.received, datagram.end, datagram.refused) = (0, None, false);
        (datagram.older, datagram.newer) = (older, NONE);
        (datagram.deadline, datagram.protocol) = (deadline, protocol);
        datagram.key = Some(*key);
        self.index.insert(*key, slot);
        slot
    }

    fn insert(&mut self, slot: u32, place: usize, fragment: &Fragment, token: T) {
        let datagram = &mut self.slots[slot as usize];
        let &Fragment { offset, length, header_len, .. } = fragment;
        datagram.parts.insert(place, Part { offset, length, header_len, token });
        datagram.received += u32::from(length);
        if !fragment.more {
            datagram.end = Some(fragment.end());
        }
        self.held += 1;
        if let Some(key) = datagram.key {
            self.sources.take(key.source());
        }
    }

    /// Takes what is held of a datagram out; the caller sees to the datagram itself.
    fn empty(&mut self, slot: u32, taken: &mut Vec<T>) {
        let Some(datagram) = self.slots.get_mut(slot as usize) else { return };
        let count = u32::try_from(datagram.parts.len()).unwrap_or(u32::MAX);
        taken.extend(datagram.parts.drain(..).map(|part| part.token));
        datagram.parts.shrink_to(KEPT_PARTS);
        self.held -= count;
        if let Some(key) = datagram.key {
            self.sources.release(key.source(), count);
        }
    }

    /// The datagram is invalid: what is held goes, what still comes will be refused.
    #[cold]
    fn break_up(&mut self, slot: u32, cause: Cause, taken: &mut Vec<T>) -> Offer {
        self.empty(slot, taken);
        let datagram = &mut self.slots[slot as usize];
        datagram.refused = true;
        self.refused += 1;
        if let Some(key) = datagram.key {
            self.sources.take(key.source());
        }
        Offer::Broken(cause)
    }

    /// Forgets a datagram.
    fn end(&mut self, slot: u32, taken: &mut Vec<T>) {
        self.empty(slot, taken);
        let Some(datagram) = self.slots.get_mut(slot as usize) else { return };
        let (older, newer, refused) = (datagram.older, datagram.newer, datagram.refused);
        let key = datagram.key.take();
        datagram.newer = core::mem::replace(&mut self.free, slot);
        if let Some(key) = key {
            self.index.remove(&key);
            if refused {
                self.refused -= 1;
                self.sources.release(key.source(), 1);
            }
        }
        match self.slots.get_mut(older as usize) {
            Some(neighbour) => neighbour.newer = newer,
            None => self.oldest = newer,
        }
        match self.slots.get_mut(newer as usize) {
            Some(neighbour) => neighbour.older = older,
            None => self.newest = older,
        }
    }

    /// Ends up to `budget` datagrams whose time is over; `gone` gets the tokens of their fragments. Returns how many
    /// datagrams it ended: less than `budget` means that nothing is left to do.
    pub fn sweep(&mut self, now: Millis, budget: u32, taken: &mut Vec<T>, mut gone: impl FnMut(T)) -> u32 {
        for done in 0..budget {
            // All live equally long, so that the oldest ends first.
            let due = self.slots.get(self.oldest as usize).filter(|datagram| datagram.deadline <= now);
            let Some(key) = due.and_then(|datagram| datagram.key) else { return done };
            taken.clear();
            self.end(self.oldest, taken);
            self.counters[key.family() as usize].expired += taken.len() as u64;
            taken.drain(..).for_each(&mut gone);
        }
        budget
    }

    /// Forgets all datagrams of these families; `gone` gets the tokens of their fragments.
    pub fn purge(&mut self, families: &[Family], mut gone: impl FnMut(T)) {
        let (mut slot, mut taken) = (self.oldest, Vec::new());
        while let Some(datagram) = self.slots.get(slot as usize) {
            let newer = datagram.newer;
            if let Some(family) = datagram.key.map(|key| key.family())
                && families.contains(&family)
            {
                self.end(slot, &mut taken);
                self.counters[family as usize].purged += taken.len() as u64;
                taken.drain(..).for_each(&mut gone);
            }
            slot = newer;
        }
    }

    /// What it is set to.
    #[must_use]
    pub const fn settings(&self) -> &FragmentSettings {
        &self.settings
    }

    /// Changes what it is set to. What is held stays, also when that is more than is allowed now; purge a family that
    /// is turned off.
    pub const fn set(&mut self, settings: FragmentSettings) {
        self.settings = settings;
    }

    /// Fragments held at the most.
    #[must_use]
    pub const fn max(&self) -> u32 {
        self.settings.max
    }

    /// Fragments held.
    #[must_use]
    pub const fn held(&self) -> u32 {
        self.held
    }

    /// Datagrams under way, those that were refused included.
    #[must_use]
    pub fn datagrams(&self) -> usize {
        self.index.len()
    }

    /// Settings and counters of a family.
    #[must_use]
    pub const fn status(&self, family: Family) -> FamilyStatus {
        let at = family as usize;
        FamilyStatus {
            enabled: self.settings.enabled[at],
            min_size: self.settings.min_size[at],
            counters: self.counters[at],
        }
    }

    /// The datagrams in `slots` slots from `from` on, and the slot to go on at, if there are more.
    #[must_use]
    pub fn page(&self, from: usize, slots: usize) -> (Vec<DatagramView>, Option<usize>) {
        let end = from.saturating_add(slots).min(self.slots.len());
        let views = self.slots.get(from..end).unwrap_or_default().iter().filter_map(|datagram| {
            Some(DatagramView {
                key: datagram.key?,
                protocol: datagram.protocol,
                fragments: u32::try_from(datagram.parts.len()).unwrap_or(u32::MAX),
                has_first: datagram.parts.first().is_some_and(|part| part.offset == 0),
                has_last: datagram.end.is_some(),
                refused: datagram.refused,
            })
        });
        (views.collect(), (end < self.slots.len()).then_some(end))
    }
}

impl<T> Datagram<T> {
    /// Where among the parts a fragment belongs.
    fn place(&self, fragment: &Fragment) -> Result<usize, Cause> {
        let place = self.parts.partition_point(|part| part.offset < fragment.offset);
        let (before, after) = (place.checked_sub(1).and_then(|at| self.parts.get(at)), self.parts.get(place));
        let is_last = |part: &Part<T>| self.end == Some(part.end());
        if let Some(same) = after
            && (same.offset, same.length) == (fragment.offset, fragment.length)
            && is_last(same) != fragment.more
        {
            return Err(Cause::Duplicate);
        }
        let overlaps = before.is_some_and(|part| part.end() > u32::from(fragment.offset))
            || after.is_some_and(|part| fragment.end() > u32::from(part.offset));
        let beyond = if fragment.more {
            self.end.is_some_and(|end| fragment.end() > end)
        } else {
            // Another end than that which is known, or one before data that are there.
            self.end.is_some() || after.is_some()
        };
        if overlaps || beyond { Err(Cause::Overlap) } else { Ok(place) }
    }
}

impl Cause {
    const fn counter(self, counters: &mut FragmentCounters) -> &mut u64 {
        match self {
            Self::Disabled => &mut counters.disabled,
            Self::Malformed => &mut counters.malformed,
            Self::TooSmall => &mut counters.too_small,
            Self::TooLong => &mut counters.too_long,
            Self::Duplicate => &mut counters.duplicates,
            Self::Overlap => &mut counters.overlapped,
            Self::Refused => &mut counters.refused,
            Self::StoreFull => &mut counters.store_full,
            Self::SourceFull => &mut counters.source_full,
        }
    }
}

#[cfg(test)]
mod tests;
