//! One flow table, frozen for look-ups: a tuple space (one hash table for each distinct mask, tried in the
//! order of the highest priority inside) that also tells which bits of the packet the answer depended on.
//!
//! Each subtable is searched in stages (metadata, L2, L3, L4): when the fields of a stage already rule a
//! subtable out, the later fields were not looked at, and the megaflow stays wide. Built on the control side,
//! read by every lcore, never changed.

use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashSet};

use crate::flow::key::{Key, Mask, WORDS, at};
use crate::flow::rule::{Rule, RuleStats};
use crate::flow::{Action, Zone};

/// Bits that each stage adds to those before it.
const STAGES: [Mask; 4] = stages();

const fn stages() -> [Mask; 4] {
    let mut stages = [Key::ZERO; 4];
    let mut word = 0;
    while word < WORDS {
        let bits = [stage_bits(word, 0), stage_bits(word, 1), stage_bits(word, 2)];
        stages[0].words[word] = bits[0];
        stages[1].words[word] = bits[1];
        stages[2].words[word] = bits[2];
        stages[3].words[word] = !(bits[0] | bits[1] | bits[2]);
        word += 1;
    }
    stages
}

/// The bits of `word` that belong to `stage` 0 (port, connection, metadata, registers), 1 (L2) or 2 (L3);
/// what is left is L4.
const fn stage_bits(word: usize, stage: usize) -> u64 {
    const MARK: usize = at::CT_MARK / 8;
    const ADDRESSES: usize = at::NW_SRC / 8;
    const TRANSPORT: usize = at::TP_SRC / 8;
    const FLAGS: usize = at::TCP_FLAGS / 8;
    let home = match word {
        MARK if stage == 0 => return u64::MAX << 32,
        MARK if stage == 2 => return u64::MAX >> 32,
        TRANSPORT if stage == 2 => return u64::MAX << 32,
        FLAGS if stage == 1 => return u64::MAX >> 16,
        MARK | TRANSPORT | FLAGS => return 0,
        3 | 4 => 1,
        ADDRESSES | 12..=15 | 20..=23 => 2,
        _ => 0,
    };
    if stage == home { u64::MAX } else { 0 }
}

/// A flow table.
#[derive(Debug, Default)]
pub struct Classifier {
    hasher: RandomState,
    subtables: Vec<Subtable>,
    lookups: Arc<RuleStats>,
    matched: Arc<RuleStats>,
}

#[derive(Debug)]
struct Subtable {
    mask: Mask,
    /// Highest priority of a rule inside.
    priority: u16,
    /// The stages in front of the last: what the packet must hash to for a rule to be possible.
    stages: Vec<Stage>,
    rules: HashMap<Key, Arc<Rule>, RandomState>,
}

#[derive(Debug)]
struct Stage {
    mask: Mask,
    present: HashSet<u64, RandomState>,
}

impl Classifier {
    /// Freezes `rules`. Of rules with equal match and priority the last one counts.
    #[must_use]
    pub fn new<'a>(rules: impl IntoIterator<Item = &'a Arc<Rule>>) -> Self {
        let hasher = RandomState::default();
        let mut by_mask: HashMap<Mask, Vec<&Arc<Rule>>> = HashMap::new();
        for rule in rules {
            by_mask.entry(rule.matching.mask).or_default().push(rule);
        }
        let mut subtables: Vec<_> =
            by_mask.into_iter().map(|(mask, rules)| Subtable::new(mask, &rules, &hasher)).collect();
        subtables.sort_by_key(|subtable| (core::cmp::Reverse(subtable.priority), subtable.mask.words));
        Self { hasher, subtables, lookups: Arc::default(), matched: Arc::default() }
    }

    /// The same table with other rules, which goes on counting where this one is.
    #[must_use]
    pub fn with_rules<'a>(&self, rules: impl IntoIterator<Item = &'a Arc<Rule>>) -> Self {
        let (lookups, matched) = (Arc::clone(&self.lookups), Arc::clone(&self.matched));
        Self { lookups, matched, ..Self::new(rules) }
    }

    /// Counts the packets looked up here.
    #[must_use]
    pub fn lookups(&self) -> &Arc<RuleStats> {
        &self.lookups
    }

    /// Counts the packets for which there was a rule.
    #[must_use]
    pub fn matched(&self) -> &Arc<RuleStats> {
        &self.matched
    }

    /// Packets looked up and matched so far.
    #[must_use]
    pub fn statistics(&self) -> (u64, u64) {
        let read = |stats: &RuleStats| stats.packets.load(Ordering::Relaxed);
        (read(&self.lookups), read(&self.matched))
    }

    /// The rule of highest priority that matches `key`; every bit that was looked at is set in `seen`.
    pub fn lookup(&self, key: &Key, seen: &mut Mask) -> Option<&Arc<Rule>> {
        let mut best: Option<&Arc<Rule>> = None;
        for subtable in &self.subtables {
            if best.is_some_and(|rule| rule.priority >= subtable.priority) {
                break;
            }
            if let Some(rule) = subtable.lookup(key, seen, &self.hasher)
                && best.is_none_or(|best| rule.priority > best.priority)
            {
                best = Some(rule);
            }
        }
        best
    }

    /// True when some rule matches on one of the bits of `mask`, or has an action that reads one.
    #[must_use]
    pub fn reads(&self, mask: &Mask) -> bool {
        let shares = |read: &Mask| !read.masked(mask).is_zero();
        self.subtables.iter().any(|subtable| {
            shares(&subtable.mask) || subtable.rules.values().any(|rule| shares(&read_by(&rule.actions)))
        })
    }

    /// True when some rule sends packets to the tracker.
    #[must_use]
    pub fn tracks(&self) -> bool {
        self.subtables.iter().any(|subtable| subtable.rules.values().any(|rule| track(&rule.actions)))
    }
}

/// True if one of these actions sends packets to the tracker.
pub(super) fn track(actions: &[Action]) -> bool {
    actions.iter().any(|action| matches!(action, Action::Ct(_)))
}

/// The bits of the packet that actions read, beside those that their rule has matched.
pub(super) fn read_by(actions: &[Action]) -> Mask {
    let mut read = Key::ZERO;
    for action in actions {
        let subfield = match action {
            Action::Move { src, .. } | Action::Push(src) | Action::OutputField(src) => src,
            Action::Ct(spec) => {
                read.add(&read_by(&spec.exec));
                let Zone::Field(zone) = &spec.zone else { continue };
                zone
            }
            // It searches with the original tuple in place of the packet's.
            Action::Resubmit { ct: true, .. } => {
                read.write(at::CT_NW_PROTO, 1, u128::MAX);
                continue;
            }
            _ => continue,
        };
        subfield.field.write(&mut read, u128::MAX, subfield.mask());
    }
    read
}

impl Subtable {
    fn new(mask: Mask, rules: &[&Arc<Rule>], hasher: &RandomState) -> Self {
        let mut stages: Vec<Stage> = Vec::new();
        let mut reached = Key::ZERO;
        for stage in STAGES {
            let wider = reached.union(&mask.masked(&stage));
            if wider != reached && wider != mask {
                let present =
                    rules.iter().map(|rule| hasher.hash_one(rule.matching.key.masked(&wider))).collect();
                stages.push(Stage { mask: wider, present });
            }
            reached = wider;
        }
        let mut by_key: HashMap<Key, Arc<Rule>, RandomState> = HashMap::default();
        for rule in rules {
            let place = by_key.entry(rule.matching.key).or_insert_with(|| Arc::clone(rule));
            if rule.priority >= place.priority {
                *place = Arc::clone(rule);
            }
        }
        let priority = rules.iter().map(|rule| rule.priority).max().unwrap_or_default();
        Self { mask, priority, stages, rules: by_key }
    }

    fn lookup(&self, key: &Key, seen: &mut Mask, hasher: &RandomState) -> Option<&Arc<Rule>> {
        for stage in &self.stages {
            seen.add(&stage.mask);
            if !stage.present.contains(&hasher.hash_one(key.masked(&stage.mask))) {
                return None;
            }
        }
        seen.add(&self.mask);
        self.rules.get(&key.masked(&self.mask))
    }
}
