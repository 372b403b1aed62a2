//! The megaflow cache: masked keys with the steps that translation gave them, found by tuple-space search.
//! Owned by one worker. Every flow used is current: its generation is the snapshot's and the stations it
//! relied on have not moved; a flow that is not is retired on sight and its packet translated again.
//!
//! Retired flows keep their index until the burst that may still name them is over ([`Megaflows::reclaim`]), and
//! longer while packets that are held back name them ([`Megaflows::pin`]).

use std::sync::Arc;

use hashbrown::HashTable;
use slab::Slab;

use super::Fdb;
use super::fdb::Station;
use super::step::Step;
use crate::flow::key::{DATAPATH_WORDS, Key, Mask};
use crate::flow::rule::RuleStats;

/// The learning table's part in a translation.
#[derive(Clone, Debug)]
pub struct Learned {
    /// Whose table.
    pub fdb: Arc<Fdb>,
    /// The sender, kept fresh while the flow carries packets.
    pub source: Station,
    /// The addressee that was looked up.
    pub destination: Station,
    /// [`Fdb::version`] before the look-up.
    pub version: u64,
}

impl Learned {
    #[inline]
    fn is_current(&self) -> bool {
        self.fdb.version(self.source, self.destination) == self.version
    }
}

/// What a flow is made of.
#[derive(Debug)]
pub struct Recipe {
    /// Bits that translation looked at.
    pub mask: Mask,
    /// What to do.
    pub steps: Box<[Step]>,
    /// Whose counters to bump.
    pub rules: Box<[Arc<RuleStats>]>,
    /// Set when `normal` was part of it, once a use.
    pub learned: Box<[Learned]>,
    /// Recirculation ids held: those of the steps and the one in the key.
    pub contexts: Box<[u32]>,
    /// Why the packet goes nowhere, when it does not.
    pub drop: Option<super::DropCause>,
}

/// Some packets of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The union of their TCP flags.
    pub tcp_flags: u16,
}

impl Tally {
    /// One more packet.
    #[inline]
    pub const fn add(&mut self, bytes: usize, tcp_flags: u16) {
        self.packets += 1;
        self.bytes += bytes as u64;
        self.tcp_flags |= tcp_flags;
    }
}

/// What is shown of a cached flow.
#[derive(Clone, Debug)]
pub struct FlowCopy {
    /// Masked key.
    pub key: Key,
    /// Bits that are compared.
    pub mask: Mask,
    /// What it does.
    pub steps: Box<[Step]>,
    /// Packets it carried.
    pub packets: u64,
    /// Bytes it carried.
    pub bytes: u64,
    /// Union of its packets' TCP flags.
    pub tcp_flags: u16,
    /// Milliseconds of the last packet.
    pub used: Option<u64>,
}

impl FlowCopy {
    fn of(flow: &Megaflow) -> Self {
        Self {
            key: flow.key,
            mask: flow.recipe.mask,
            steps: flow.recipe.steps.clone(),
            packets: flow.packets,
            bytes: flow.bytes,
            tcp_flags: flow.tcp_flags,
            used: flow.used,
        }
    }
}

/// A cached flow.
#[derive(Debug)]
pub struct Megaflow {
    /// Masked key.
    pub key: Key,
    /// What it does and why.
    pub recipe: Recipe,
    /// Packets it carried.
    pub packets: u64,
    /// Bytes it carried.
    pub bytes: u64,
    /// Union of its packets' TCP flags.
    pub tcp_flags: u16,
    /// Milliseconds of the last packet; `None` before the first.
    pub used: Option<u64>,
    /// Milliseconds of its making.
    pub created: u64,
    /// Tells it from all others that its worker ever had.
    pub serial: u64,
    /// Key and mask again, without the words that are wildcards: what a look-up reads.
    compared: Box<[Compared]>,
    generation: u64,
    hash: u64,
    subtable: usize,
    reported: (u64, u64),
    retired: bool,
    /// Packets that are held back and will go on with it.
    pins: u32,
}

/// A word of the key that a flow looks at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Compared {
    pub(super) word: usize,
    pub(super) mask: u64,
    pub(super) value: u64,
}

#[derive(Debug)]
struct Subtable {
    mask: Mask,
    /// Indices of the words that are not all wildcards.
    words: Vec<usize>,
    flows: HashTable<u32>,
    hits: u64,
}

/// All cached flows of a worker.
#[derive(Debug)]
pub struct Megaflows {
    flows: Slab<Megaflow>,
    subtables: Slab<Subtable>,
    /// Subtable indices, most used first.
    order: Vec<usize>,
    retired: Vec<u32>,
    /// Retired flows that are pinned, and so not among `retired`.
    lingering: usize,
    limit: usize,
    seed: u64,
    cursor: usize,
    searches: u32,
    edition: u64,
    serial: u64,
}

/// Searches between two sortings of the subtables by use.
const SORT_EVERY: u32 = 1 << 14;
/// A flow without packets for this long is forgotten (ovs-vswitchd.conf.db(5), `max-idle`).
pub const MAX_IDLE: u64 = 10_000;

#[inline]
fn mix(hash: u64, word: u64) -> u64 {
    let product = u128::from(hash ^ word) * 0x9e37_79b9_7f4a_7c15;
    (product as u64) ^ (product >> 64) as u64
}

impl Subtable {
    #[inline]
    fn hash(&self, seed: u64, key: &Key) -> u64 {
        self.words.iter().fold(seed, |hash, &word| mix(hash, key.words[word] & self.mask.words[word]))
    }
}

impl Megaflows {
    /// Room for `limit` flows.
    #[must_use]
    pub fn new(limit: usize, seed: u64) -> Self {
        Self {
            flows: Slab::new(),
            subtables: Slab::new(),
            order: Vec::new(),
            retired: Vec::new(),
            lingering: 0,
            limit,
            seed,
            cursor: 0,
            searches: 0,
            edition: 0,
            serial: 0,
        }
    }

    /// Grows with every burst and whenever flows come or go: while it stays, what was found to be current is.
    #[inline]
    #[must_use]
    pub const fn edition(&self) -> u64 {
        self.edition
    }

    /// Another burst begins. Meanwhile others may have changed what flows rely on.
    #[inline]
    pub const fn begin_burst(&mut self) {
        self.edition += 1;
    }

    /// The flow at `index`, which a look-up of the running burst has given.
    #[inline]
    #[must_use]
    pub fn flow(&self, index: u32) -> Option<&Megaflow> {
        self.flows.get(index as usize)
    }

    /// Counts packets for the flow at `index`.
    #[inline]
    pub fn count(&mut self, index: u32, tally: Tally, now: u64) {
        if let Some(flow) = self.flows.get_mut(index as usize) {
            flow.packets += tally.packets;
            flow.bytes += tally.bytes;
            flow.tcp_flags |= tally.tcp_flags;
            flow.used = Some(now);
        }
    }

    /// True when the flow at `index` matches `key` and is current; a match that is stale is retired.
    #[inline]
    pub fn verify(&mut self, index: u32, key: &Key, generation: u64) -> bool {
        let Some(flow) = self.flows.get(index as usize) else { return false };
        if flow.retired || !flow.matches(key) {
            return false;
        }
        if flow.is_current(generation) {
            return true;
        }
        self.retire(index);
        false
    }

    /// True when the flow at `index` is still the one with this serial number, and current.
    #[must_use]
    pub fn is_current(&self, index: u32, serial: u64, generation: u64) -> bool {
        self.flows
            .get(index as usize)
            .is_some_and(|flow| flow.serial == serial && !flow.retired && flow.is_current(generation))
    }

    /// The current flow that matches `key`.
    pub fn search(&mut self, key: &Key, generation: u64) -> Option<u32> {
        self.searches += 1;
        if self.searches >= SORT_EVERY {
            self.sort();
        }
        for position in 0..self.order.len() {
            let Some(&at) = self.order.get(position) else { break };
            let Some(subtable) = self.subtables.get_mut(at) else { continue };
            let hash = subtable.hash(self.seed, key);
            let flows = &self.flows;
            let found = subtable
                .flows
                .find(hash, |&index| flows.get(index as usize).is_some_and(|flow| flow.matches(key)));
            if let Some(&index) = found {
                subtable.hits += 1;
                if self.verify(index, key, generation) {
                    return Some(index);
                }
                // It was stale and is gone; other subtables may still hold a current one. Positions may have
                // shifted when its subtable went too, which at worst costs a translation.
            }
        }
        None
    }

    #[cold]
    fn sort(&mut self) {
        self.searches = 0;
        let subtables = &self.subtables;
        self.order.sort_by_key(|&at| core::cmp::Reverse(subtables.get(at).map_or(0, |table| table.hits)));
        for (_, subtable) in &mut self.subtables {
            subtable.hits /= 2;
        }
    }

    /// True when another flow fits.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.flows.len() < self.limit
    }

    /// Installs a flow for packets that look like `key` where the recipe's mask is 1.
    pub fn insert(&mut self, key: &Key, recipe: Recipe, generation: u64, now: u64) -> u32 {
        (self.edition, self.serial) = (self.edition + 1, self.serial + 1);
        let mask = recipe.mask;
        let at = match self.subtables.iter().find(|(_, subtable)| subtable.mask == mask) {
            Some((at, _)) => at,
            None => {
                let words = (0..DATAPATH_WORDS).filter(|&word| mask.words[word] != 0).collect();
                let at = self.subtables.insert(Subtable { mask, words, flows: HashTable::new(), hits: 0 });
                self.order.push(at);
                at
            }
        };
        let subtable = &mut self.subtables[at];
        let hash = subtable.hash(self.seed, key);
        let masked = key.masked(&mask);
        let compared = subtable.words.iter().map(|&word| {
            let (mask, value) = (mask.words[word], masked.words[word]);
            Compared { word, mask, value }
        });
        let index = self.flows.insert(Megaflow {
            key: masked,
            compared: compared.collect(),
            recipe,
            packets: 0,
            bytes: 0,
            tcp_flags: 0,
            used: None,
            created: now,
            serial: self.serial,
            generation,
            hash,
            subtable: at,
            reported: (0, 0),
            retired: false,
            pins: 0,
        }) as u32;
        let flows = &self.flows;
        subtable
            .flows
            .insert_unique(hash, index, |&other| flows.get(other as usize).map_or(0, |flow| flow.hash));
        index
    }

    /// Takes the flow out of the search; its index stays readable until [`Megaflows::reclaim`].
    pub fn retire(&mut self, index: u32) {
        let Some(flow) = self.flows.get_mut(index as usize) else { return };
        if core::mem::replace(&mut flow.retired, true) {
            return;
        }
        self.edition += 1;
        self.retired.push(index);
        let Some(subtable) = self.subtables.get_mut(flow.subtable) else { return };
        if let Ok(entry) = subtable.flows.find_entry(flow.hash, |&other| other == index) {
            entry.remove();
        }
        if subtable.flows.is_empty() {
            let at = flow.subtable;
            self.subtables.remove(at);
            self.order.retain(|&other| other != at);
        }
    }

    /// Frees the retired flows; `gone` gets each of them. Not while a burst is under way.
    pub fn reclaim(&mut self, mut gone: impl FnMut(&Megaflow)) {
        while let Some(index) = self.retired.pop() {
            if self.flows.get(index as usize).is_some_and(|flow| flow.pins > 0) {
                self.lingering += 1;
                continue;
            }
            let mut flow = self.flows.remove(index as usize);
            flow.report();
            gone(&flow);
        }
    }

    /// Keeps a flow's index readable until it is unpinned as often, whatever becomes of the flow.
    #[cold]
    pub fn pin(&mut self, index: u32) {
        if let Some(flow) = self.flows.get_mut(index as usize) {
            flow.pins += 1;
        }
    }

    /// Undoes [`Megaflows::pin`]; the index stays readable until the next [`Megaflows::reclaim`].
    #[cold]
    pub fn unpin(&mut self, index: u32) {
        let Some(flow) = self.flows.get_mut(index as usize) else { return };
        flow.pins -= 1;
        // A flow that was retired in this very burst is in the list still.
        if flow.retired && flow.pins == 0 && !self.retired.contains(&index) {
            self.lingering -= 1;
            self.retired.push(index);
        }
    }

    /// True when something waits for [`Megaflows::reclaim`].
    #[inline]
    #[must_use]
    pub fn has_retired(&self) -> bool {
        !self.retired.is_empty()
    }

    /// Looks at the next `count` flows: reports their counters, keeps their senders known and retires the
    /// idle and the stale.
    pub fn sweep(&mut self, count: usize, generation: u64, now: u64) {
        let end = self.flows.capacity();
        for _ in 0..count.min(end) {
            let index = self.cursor;
            self.cursor = if index + 1 >= end { 0 } else { index + 1 };
            let Some(flow) = self.flows.get_mut(index) else { continue };
            flow.report();
            let idle = now.saturating_sub(flow.used.unwrap_or(flow.created));
            if flow.generation != generation || idle > MAX_IDLE {
                self.retire(index as u32);
            }
        }
    }

    /// Adds what the flows of `slots` slots from `from` on have counted since their last report to their rules; the
    /// slot to go on at, if there are more.
    pub fn report(&mut self, from: usize, slots: usize) -> Option<usize> {
        let (end, last) = (from.saturating_add(slots), self.flows.capacity());
        for slot in from..end.min(last) {
            if let Some(flow) = self.flows.get_mut(slot) {
                flow.report();
            }
        }
        (end < last).then_some(end)
    }

    /// Retires the flows of `slots` slots from `from` on that are stale, or all of these with `purge`; the slot to go
    /// on at, if there are more.
    pub fn revalidate(&mut self, from: usize, slots: usize, generation: u64, purge: bool) -> Option<usize> {
        let (end, last) = (from.saturating_add(slots), self.flows.capacity());
        for slot in from..end.min(last) {
            let Some(flow) = self.flows.get(slot) else { continue };
            if purge || !flow.is_current(generation) {
                self.retire(slot as u32);
            }
        }
        (end < last).then_some(end)
    }

    /// Retires all flows.
    pub fn clear(&mut self) {
        let all: Vec<u32> = self.flows.iter().map(|(index, _)| index as u32).collect();
        for index in all {
            self.retire(index);
        }
    }

    /// Copies of the live flows from slot `from` on, out of `slots` slots, and the slot to go on at, if there are
    /// more.
    #[must_use]
    pub fn page(&self, from: usize, slots: usize) -> (Vec<FlowCopy>, Option<usize>) {
        let end = from.saturating_add(slots);
        let live = (from..end.min(self.flows.capacity())).filter_map(|slot| self.flows.get(slot));
        let copies = live.filter(|flow| !flow.retired).map(FlowCopy::of).collect();
        (copies, (end < self.flows.capacity()).then_some(end))
    }

    /// Live flows and masks.
    #[must_use]
    pub fn sizes(&self) -> (usize, usize) {
        (self.flows.len() - self.retired.len() - self.lingering, self.subtables.len())
    }
}

impl Megaflow {
    /// True if no look-up finds it any more.
    #[must_use]
    pub const fn is_retired(&self) -> bool {
        self.retired
    }

    /// True while it is what the tables of this generation would come to again.
    #[inline]
    fn is_current(&self, generation: u64) -> bool {
        self.generation == generation && self.recipe.learned.iter().all(Learned::is_current)
    }

    /// True if it is for packets with this key.
    #[inline]
    #[must_use]
    pub fn matches(&self, key: &Key) -> bool {
        self.compared.iter().all(|compared| {
            key.words.get(compared.word).is_some_and(|word| word & compared.mask == compared.value)
        })
    }

    /// Gives the counts since the last report to the rules, and tells the learning table who still speaks.
    fn report(&mut self) {
        let (packets, bytes) = (self.packets - self.reported.0, self.bytes - self.reported.1);
        let (true, Some(used)) = (packets > 0, self.used) else { return };
        self.reported = (self.packets, self.bytes);
        for rule in &self.recipe.rules {
            rule.add(packets, bytes, used);
        }
        for learned in &self.recipe.learned {
            learned.fdb.refresh(learned.source, used);
        }
    }
}
