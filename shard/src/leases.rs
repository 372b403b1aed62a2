//! Limits that several shards keep together: on all connections, and on those of each zone. A shard asks
//! ([`admission`](crate::admission)) before it starts a connection and says when one has ended. With one shard nothing
//! of this is used.
//!
//! # Protocol
//!
//! Each limit has a *centre* with the units `taken` from it, and each shard a *slack*: units that it has leased and does
//! not use. A connection uses one unit. But for units in the hands of a call that is under way, always
//!
//! ```text
//! taken = slack of all shards + connections of all shards
//! ```
//!
//! because each step moves units by one atomic operation at each end, and never makes one appear before it is gone from
//! where it was:
//!
//! | step | who | where |
//! |---|---|---|
//! | a connection starts | its shard | own slack - 1, a line that nobody else writes |
//! | the slack is empty | its shard | centre + a batch, then own slack + the batch without the one that is used |
//! | the centre has none | its shard | another shard's slack - 1 |
//! | a connection ends | its shard | own slack + 1, or, with two batches there already, centre - 1 |
//! | more is taken than the limit allows, as it was lowered | whoever meets that | slack of all - all, centre - as many |
//!
//! **Never over the limit.** A batch comes out of the centre by a compare-and-exchange that keeps `taken` within the
//! limit, and connections are never more than `taken`. A unit out of a slack counts only if `taken` is within the limit
//! at that moment; it is not after the limit was lowered, and then the unit goes back.
//!
//! **Never refused while a unit is free.** A slack only ever grows by its own shard, and each time counts a version up.
//! A call is refused when it has found the centre full and every slack empty, and then once more with the versions
//! unchanged: between the two rounds all were empty together. A round that finds a change begins anew, at most
//! [`ROUNDS`] times, in each of which somebody else was served. (Versions have 16 bits. A thread that is stopped between
//! the two rounds for exactly a multiple of 65 536 ends of connections in one zone and shard would not notice.) While a
//! limit is being lowered, units that are on their way back to the centre are nobody's, and who asks then may be refused
//! the last of them.
//!
//! All operations are sequentially consistent. The orders above rely on it, and on x86 it costs nothing: the writes are
//! read-modify-writes anyway, and loads are plain.
//!
//! **Who shares lines.** A slack's line is written by its shard, and by others only near the limit, to take from it. The
//! centre is written once a batch, and once for each connection that ends above two batches, when a shard shrinks; it is
//! read for each connection that starts. Packets of connections that exist touch neither.
//!
//! Memory: 4 bytes for each zone in each shard and 16 in the centre, in pages of 256 zones made when the first
//! connection comes (in a shard on its own lcore's node).

use std::sync::OnceLock;

use crate::steering::{MAX_SHARDS, ShardNumber};
use crate::sync::{AtomicU32, AtomicU64, Ordering::SeqCst};

/// Most units that a shard takes from the centre at once: what makes the centre's line rare.
const BATCH: u32 = 64;
/// A slack of so many is not added to.
const ENOUGH: u32 = 2 * BATCH;
/// How often a call that is about to be refused looks again because something has moved.
const ROUNDS: u32 = 16;
/// Zones in a page.
const PAGE: usize = 256;
/// Pages for all zones.
const PAGES: usize = (1 << 16) / PAGE;

/// Something on cache lines of its own: two, as the CPU fetches them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Apart<T>(T);

/// What a limit is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// All connections.
    All,
    /// Those of a zone.
    Zone(u16),
}

/// Units that a shard has leased and does not use: 16 bits of version, which grows as often as units are added, above
/// 16 bits of count.
#[derive(Debug)]
struct Slack(AtomicU32);

const COUNT: u32 = 0xffff;
const VERSION: u32 = 1 << 16;

impl Slack {
    fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    fn word(&self) -> u32 {
        self.0.load(SeqCst)
    }

    fn count(&self) -> u32 {
        self.word() & COUNT
    }

    /// Takes one unit out.
    fn take(&self) -> bool {
        self.0.fetch_update(SeqCst, SeqCst, |word| (word & COUNT > 0).then(|| word - 1)).is_ok()
    }

    /// Takes all out; says how many.
    fn drain(&self) -> u32 {
        self.0.fetch_and(!COUNT, SeqCst) & COUNT
    }

    /// Adds units; only its own shard does, and never more than a batch to less than [`ENOUGH`].
    fn add(&self, units: u32) {
        let added = |word: u32| Some((word.wrapping_add(VERSION) & !COUNT) | ((word & COUNT) + units));
        // Never an error: `added` always has a value.
        let _ = self.0.fetch_update(SeqCst, SeqCst, added);
    }
}

/// What is handed out of one limit.
#[derive(Debug)]
struct Centre {
    taken: AtomicU32,
    /// The limit + 1; 0 for a zone without one of its own.
    limit: AtomicU64,
}

impl Centre {
    fn new() -> Self {
        Self { taken: AtomicU32::new(0), limit: AtomicU64::new(0) }
    }

    /// Takes one of `parts` parts of what is left, but at least a unit and at most a batch; 0 if all are taken.
    fn lease(&self, limit: u32, parts: u32) -> u32 {
        let batch = |taken| {
            let room = limit.saturating_sub(taken);
            if room == 0 { 0 } else { (room / parts).clamp(1, BATCH) }
        };
        let raised = |taken| Some(batch(taken)).filter(|&units| units > 0).map(|units| taken + units);
        self.taken.fetch_update(SeqCst, SeqCst, raised).map_or(0, batch)
    }

    fn give(&self, units: u32) {
        self.taken.fetch_sub(units, SeqCst);
    }
}

/// The values of neighbouring zones.
type Page<T> = Box<Apart<[T; PAGE]>>;

/// A value for each zone, in pages that are made when they are needed.
#[derive(Debug)]
struct ByZone<T>(Box<[OnceLock<Page<T>>]>);

impl<T> ByZone<T> {
    fn new() -> Self {
        Self((0..PAGES).map(|_| OnceLock::new()).collect())
    }

    /// The zone's value, if its page is there.
    fn get(&self, zone: u16) -> Option<&T> {
        let zone = usize::from(zone);
        self.0[zone / PAGE].get().map(|page| &page.0[zone % PAGE])
    }

    /// The zone's value.
    fn made(&self, zone: u16, fresh: fn() -> T) -> &T {
        let at = usize::from(zone);
        let page = self.0[at / PAGE].get_or_init(|| Box::new(Apart(core::array::from_fn(|_| fresh()))));
        &page.0[at % PAGE]
    }
}

/// What one shard holds.
#[derive(Debug)]
struct Holder {
    all: Apart<Slack>,
    zones: ByZone<Slack>,
}

impl Holder {
    fn new() -> Self {
        Self { all: Apart(Slack::new()), zones: ByZone::new() }
    }

    fn slack(&self, scope: Scope) -> Option<&Slack> {
        match scope {
            Scope::All => Some(&self.all.0),
            Scope::Zone(zone) => self.zones.get(zone),
        }
    }

    fn own_slack(&self, scope: Scope) -> &Slack {
        match scope {
            Scope::All => &self.all.0,
            Scope::Zone(zone) => self.zones.made(zone, Slack::new),
        }
    }
}

/// The limits of a datapath's shards, one `Arc` for all of them.
#[derive(Debug)]
pub struct Leases {
    /// By number; each is made by its own shard.
    holders: Box<[OnceLock<Box<Apart<Holder>>>]>,
    all: Apart<Centre>,
    zones: ByZone<Centre>,
    /// Of zones without a limit of their own, + 1; 0 is none.
    default_limit: AtomicU64,
    /// The zone that was refused a connection last, below a number that is another each time.
    hungry: Apart<AtomicU64>,
}

impl Default for Leases {
    fn default() -> Self {
        Self::new(1)
    }
}

const fn coded(limit: Option<u32>) -> u64 {
    match limit {
        Some(limit) => limit as u64 + 1,
        None => 0,
    }
}

fn decoded(code: u64) -> Option<u32> {
    code.checked_sub(1).and_then(|limit| u32::try_from(limit).ok())
}

impl Leases {
    /// For `shards` shards (1 to [`MAX_SHARDS`], what is beyond is cut), without limits. Each shard brings its own
    /// settings, which are the same for all: limits are whole, never parts.
    #[must_use]
    pub fn new(shards: usize) -> Self {
        Self {
            holders: (0..shards.clamp(1, MAX_SHARDS)).map(|_| OnceLock::new()).collect(),
            all: Apart(Centre::new()),
            zones: ByZone::new(),
            default_limit: AtomicU64::new(0),
            hungry: Apart(AtomicU64::new(0)),
        }
    }

    /// How many shards there are.
    #[must_use]
    pub const fn shards(&self) -> usize {
        self.holders.len()
    }

    pub(crate) fn set_limit(&self, scope: Scope, limit: Option<u32>) {
        let zone = match scope {
            Scope::All => None,
            // A zone that nobody has heard of needs no limit removed.
            Scope::Zone(zone) if limit.is_none() => match self.zones.get(zone) {
                Some(centre) => Some(centre),
                None => return,
            },
            Scope::Zone(zone) => Some(self.zones.made(zone, Centre::new)),
        };
        zone.unwrap_or(&self.all.0).limit.store(coded(limit), SeqCst);
    }

    pub(crate) fn set_default_limit(&self, limit: Option<u32>) {
        self.default_limit.store(coded(limit), SeqCst);
    }

    /// The limit that holds; any number is `u32::MAX`, more than there can be connections.
    fn limit(&self, scope: Scope, centre: &Centre) -> u32 {
        let own = decoded(centre.limit.load(SeqCst));
        let limit = match scope {
            Scope::All => own,
            Scope::Zone(_) => own.or_else(|| decoded(self.default_limit.load(SeqCst))),
        };
        limit.unwrap_or(u32::MAX)
    }

    fn centre(&self, scope: Scope) -> &Centre {
        match scope {
            Scope::All => &self.all.0,
            Scope::Zone(zone) => self.zones.made(zone, Centre::new),
        }
    }

    /// A shard's own; made when it asks first, which is on its lcore.
    fn holder(&self, shard: ShardNumber) -> Option<&Holder> {
        let holder = self.holders.get(shard.index())?;
        Some(&holder.get_or_init(|| Box::new(Apart(Holder::new()))).0)
    }

    fn slacks(&self, scope: Scope) -> impl Iterator<Item = &Slack> {
        self.holders.iter().filter_map(move |holder| holder.get()?.0.slack(scope))
    }

    /// The smaller the batches near the limit, the less there is to be taken back from others.
    #[expect(clippy::cast_possible_truncation, reason = "at most 64 shards")]
    fn parts(&self) -> u32 {
        2 * self.holders.len() as u32
    }

    /// One connection more for `shard`. False: the limit is reached.
    pub(crate) fn take(&self, shard: ShardNumber, scope: Scope) -> bool {
        self.take_near(shard, scope) || self.take_far(scope)
    }

    /// The same from the shard's own slack or the centre. False says nothing about other shards' slack.
    pub(crate) fn take_near(&self, shard: ShardNumber, scope: Scope) -> bool {
        let Some(holder) = self.holder(shard) else { return false };
        let (own, centre) = (holder.own_slack(scope), self.centre(scope));
        if own.take() {
            return self.accept(scope, centre);
        }
        let units = centre.lease(self.limit(scope, centre), self.parts());
        if units > 1 {
            own.add(units - 1);
        }
        units > 0
    }

    /// What a unit is worth that came out of a slack: one connection while no more is taken than the limit. It goes
    /// back to the centre if it is worth none.
    fn accept(&self, scope: Scope, centre: &Centre) -> bool {
        let limit = self.limit(scope, centre);
        let within = centre.taken.load(SeqCst) <= limit;
        if !within {
            centre.give(1);
        }
        within
    }

    /// Takes what others have leased, or finds that nobody has any.
    #[cold]
    fn take_far(&self, scope: Scope) -> bool {
        let centre = self.centre(scope);
        let mut before = [0; MAX_SHARDS];
        let mut is_second = false;
        for _ in 0..ROUNDS {
            let limit = self.limit(scope, centre);
            if centre.taken.load(SeqCst) > limit {
                // It was lowered. What is used stays; what is not comes back.
                self.slacks(scope)
                    .map(Slack::drain)
                    .filter(|&units| units > 0)
                    .for_each(|units| centre.give(units));
            }
            // Whatever is left is too little for batches.
            if centre.lease(limit, u32::MAX) > 0 {
                return true;
            }
            let mut has_moved = !is_second;
            for (holder, before) in self.holders.iter().zip(&mut before) {
                // What was never made is as empty as what is new.
                let Some(slack) = holder.get().and_then(|holder| holder.0.slack(scope)) else { continue };
                if slack.count() > 0 && slack.take() {
                    if self.accept(scope, centre) {
                        return true;
                    }
                    has_moved = true;
                }
                let word = slack.word();
                has_moved |= word & COUNT > 0 || word != *before;
                *before = word;
            }
            if !has_moved {
                return false;
            }
            is_second = true;
        }
        false
    }

    /// One connection less for `shard`.
    pub(crate) fn give(&self, shard: ShardNumber, scope: Scope) {
        let Some(holder) = self.holder(shard) else { return };
        let own = holder.own_slack(scope);
        if own.count() < ENOUGH {
            own.add(1);
        } else {
            self.centre(scope).give(1);
        }
    }

    /// A connection of `zone` was refused: whoever has some that have expired may look.
    pub(crate) fn call_hungry(&self, zone: u16) {
        let last = self.hungry.0.load(SeqCst) >> 16;
        // Two that call at once may overwrite each other; the one that goes unheard calls again.
        self.hungry.0.store((last + 1) << 16 | u64::from(zone), SeqCst);
    }

    /// The zone that was refused last, if that is news to who has `heard` so much.
    #[expect(clippy::cast_possible_truncation, reason = "the zone is in the low 16 bits")]
    pub(crate) fn hungry(&self, heard: &mut u64) -> Option<u16> {
        let call = self.hungry.0.load(SeqCst);
        (core::mem::replace(heard, call) != call).then_some(call as u16)
    }
}

#[cfg(test)]
impl Leases {
    /// Units taken, and those in the shards' slacks.
    pub(crate) fn figures(&self, scope: Scope) -> (u32, u32) {
        (self.centre(scope).taken.load(SeqCst), self.slacks(scope).map(Slack::count).sum())
    }
}

#[cfg(test)]
#[cfg(loom)]
mod models;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;
