//! Groups as the lcores have them: which buckets are live, and for select groups which bucket a hash leads to.
//! Made on the control side with every snapshot that changes them, immutable from then on.
//!
//! A select group has a table of slots, a power of two; the low bits of the packet's hash choose a slot and so a
//! bucket. A megaflow then matches these few bits, not the whole 5-tuple: a group of two equal buckets takes 16
//! megaflows, however many connections it spreads. Each live bucket has slots in proportion to its weight, at least
//! one. Which ones follows from a hash of slot and bucket number (rendezvous hashing), so that when a bucket goes,
//! mostly its own connections move.

use std::sync::Arc;

use hashbrown::HashMap;

use crate::flow::groups::{GroupEntry, Groups};
use crate::flow::key::{Key, Mask, at};
use crate::flow::port::PortNumber;
use crate::flow::{Group, GroupType, Selection};

/// Slots of a select group: at least these many, so that unequal weights come out, and at most.
const MIN_SLOTS: usize = 16;
const MAX_SLOTS: usize = 4096;
/// Groups that watch one another, one behind the other.
const MAX_WATCHED: u32 = 32;

/// All groups of a bridge.
pub type GroupViews = HashMap<u32, Arc<GroupView>>;

/// A group at work.
#[derive(Debug)]
pub struct GroupView {
    /// What it is.
    pub entry: Arc<GroupEntry>,
    /// Which of its buckets are live.
    pub live: Box<[bool]>,
    /// The bucket of each slot; empty where none is live, or the group selects nothing.
    slots: Box<[u16]>,
}

impl GroupView {
    /// The first live bucket.
    #[must_use]
    pub fn first_live(&self) -> Option<usize> {
        self.live.iter().position(|live| *live)
    }

    /// The bits of a hash that choose a bucket.
    #[must_use]
    pub fn hash_mask(&self) -> u32 {
        u32::try_from(self.slots.len().saturating_sub(1)).unwrap_or(0)
    }

    /// The bucket for a hash.
    #[must_use]
    pub fn select(&self, hash: u32) -> Option<usize> {
        let basis = match self.entry.group.selection {
            Selection::DpHash { param } => param as u32,
            Selection::Default | Selection::Hash { .. } => 0,
        };
        let slot = (hash ^ basis) & self.hash_mask();
        self.slots.get(usize::try_from(slot).ok()?).map(|bucket| usize::from(*bucket))
    }
}

/// The groups of a bridge as they are now. `port_up` tells whether a port is there and has a link. Views that would
/// come out as they were are taken over from `old`.
#[must_use]
pub fn views(groups: &Groups, port_up: &dyn Fn(PortNumber) -> bool, old: &GroupViews) -> GroupViews {
    let mut known = HashMap::new();
    groups
        .iter()
        .map(|entry| {
            let buckets = entry.group.buckets.iter();
            let live: Box<[bool]> =
                buckets.map(|bucket| is_live(bucket, groups, port_up, &mut known, 0)).collect();
            let id = entry.group.id;
            let view = match old.get(&id) {
                Some(old) if Arc::ptr_eq(&old.entry, entry) && old.live == live => Arc::clone(old),
                _ => {
                    let slots = slots(&entry.group, &live);
                    Arc::new(GroupView { entry: Arc::clone(entry), live, slots })
                }
            };
            (id, view)
        })
        .collect()
}

/// A bucket that watches nothing is always live, one that watches port and group is live with either.
fn is_live(
    bucket: &crate::flow::Bucket,
    groups: &Groups,
    port_up: &dyn Fn(PortNumber) -> bool,
    known: &mut HashMap<u32, bool>,
    depth: u32,
) -> bool {
    if bucket.watch_port.is_none() && bucket.watch_group.is_none() {
        return true;
    }
    bucket.watch_port.is_some_and(port_up)
        || bucket.watch_group.is_some_and(|id| group_is_live(id, groups, port_up, known, depth + 1))
}

/// Groups that watch each other in a circle have nothing to be live by.
fn group_is_live(
    id: u32,
    groups: &Groups,
    port_up: &dyn Fn(PortNumber) -> bool,
    known: &mut HashMap<u32, bool>,
    depth: u32,
) -> bool {
    if let Some(known) = known.get(&id) {
        return *known;
    }
    if depth > MAX_WATCHED {
        return false;
    }
    known.insert(id, false);
    let live = groups.find(id).is_some_and(|entry| {
        entry.group.buckets.iter().any(|bucket| is_live(bucket, groups, port_up, known, depth))
    });
    known.insert(id, live);
    live
}

/// Which bucket each slot leads to.
fn slots(group: &Group, live: &[bool]) -> Box<[u16]> {
    if group.kind != GroupType::Select {
        return Box::default();
    }
    let weights: Vec<(usize, u32, usize)> = group
        .buckets
        .iter()
        .zip(live)
        .enumerate()
        .filter(|(_, (bucket, live))| **live && bucket.weight > 0)
        .map(|(index, (bucket, _))| (index, bucket.id.unwrap_or(0), usize::from(bucket.weight)))
        .collect();
    let total: usize = weights.iter().map(|(.., weight)| weight).sum();
    let Some(least) = weights.iter().map(|(.., weight)| *weight).min() else { return Box::default() };
    // Enough for the lightest bucket to have its share.
    let count = total.div_ceil(least).next_power_of_two().clamp(MIN_SLOTS, MAX_SLOTS);
    let mut quotas = quotas(&weights, total, count);
    (0..count)
        .map(|slot| {
            let score = |place: &usize| {
                let (_, id, _) = weights[*place];
                mix(((slot as u64) << 32 | u64::from(id)) + 1)
            };
            let place = (0..weights.len()).filter(|place| quotas[*place] > 0).max_by_key(score).unwrap_or(0);
            quotas[place] = quotas[place].saturating_sub(1);
            u16::try_from(weights[place].0).unwrap_or(0)
        })
        .collect()
}

/// How many of `count` slots each bucket gets: in proportion to its weight by largest remainders, and one at least.
fn quotas(weights: &[(usize, u32, usize)], total: usize, count: usize) -> Vec<usize> {
    let mut quotas: Vec<usize> = weights.iter().map(|(.., weight)| (weight * count / total).max(1)).collect();
    let mut given: usize = quotas.iter().sum();
    // What the lightest got beyond their share is taken from those that have most.
    while given > count {
        let Some(most) = quotas.iter_mut().max() else { break };
        *most -= 1;
        given -= 1;
    }
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by_key(|place| core::cmp::Reverse(weights[*place].2 * count % total));
    for place in order.into_iter().cycle().take(count - given) {
        quotas[place] += 1;
    }
    quotas
}

/// Spreads the bits of a number over all of it (the finaliser of `splitmix64`).
#[inline]
const fn mix(value: u64) -> u64 {
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

/// The hash that select groups go by: of addresses, protocol and ports, the same in both directions and on every lcore,
/// and after a restart. Never 0. Fragments have no ports that all of them show, so theirs are left out, and they stay
/// together. What is no IP goes by its Ethernet addresses.
#[must_use]
pub fn five_tuple(key: &Key) -> u32 {
    let words = &key.words;
    let both = |a: u64, b: u64| mix(a ^ b).wrapping_add(mix(a.wrapping_add(b)));
    let addresses = words[at::NW_SRC / 8];
    let mut hash = both(addresses >> 32, addresses & 0xffff_ffff);
    const SRC: usize = at::IPV6_SRC / 8;
    const DST: usize = at::IPV6_DST / 8;
    hash ^= both(words[SRC], words[DST]) ^ both(words[SRC + 1], words[DST + 1]).rotate_left(17);
    let header = words[at::NW_PROTO / 8];
    let fragment = key.read(at::NW_FRAG, 1) != 0;
    let ports = if fragment { 0 } else { header & 0xffff_ffff };
    hash ^= both(ports >> 16, ports & 0xffff).rotate_left(31) ^ header >> 56 << 40;
    if addresses | words[SRC] | words[SRC + 1] | words[DST] | words[DST + 1] == 0 {
        hash ^= both(words[at::ETH_SRC / 8] >> 16, words[at::ETH_DST / 8] >> 16);
    }
    (mix(hash) as u32).max(1)
}

/// Puts the packet's hash into its key.
#[inline]
pub fn stamp(key: &mut Key) {
    let hash = five_tuple(key);
    key.write(at::DP_HASH, 4, u128::from(hash));
}

/// A hash of the fields that a group names, or of all that tell connections apart, symmetric; and the bits that it
/// looked at.
#[must_use]
pub fn fields(key: &Key, selection: &Selection) -> (u32, Mask) {
    let (param, fields) = match selection {
        Selection::Hash { param, fields } => (*param, fields.as_slice()),
        Selection::Default | Selection::DpHash { .. } => (0, &[][..]),
    };
    let mut mask = Key::ZERO;
    if fields.is_empty() {
        for (offset, length) in CONNECTION {
            mask.write(offset, length, u128::MAX);
        }
        let hash = u64::from(five_tuple(key));
        let ethernet = (key.read(at::ETH_SRC, 6) ^ key.read(at::ETH_DST, 6)) as u64;
        let kind = (key.read(at::VLAN_TCI, 2) << 16 | key.read(at::ETH_TYPE, 2)) as u64;
        return (mix(hash ^ mix(ethernet) ^ mix(kind << 8).rotate_left(7) ^ mix(param)) as u32, mask);
    }
    for (field, bits) in fields {
        field.write(&mut mask, u128::MAX, *bits);
    }
    let words = key.masked(&mask).words;
    let hash = words.iter().fold(mix(param), |hash, word| mix(hash ^ word).wrapping_add(hash.rotate_left(5)));
    (mix(hash) as u32, mask)
}

/// What tells connections apart.
const CONNECTION: [(usize, usize); 12] = [
    (at::ETH_SRC, 6),
    (at::ETH_DST, 6),
    (at::VLAN_TCI, 2),
    (at::ETH_TYPE, 2),
    (at::NW_SRC, 4),
    (at::NW_DST, 4),
    (at::IPV6_SRC, 16),
    (at::IPV6_DST, 16),
    (at::NW_PROTO, 1),
    (at::TP_SRC, 2),
    (at::TP_DST, 2),
    (at::NW_FRAG, 1),
];

#[cfg(test)]
mod tests;
