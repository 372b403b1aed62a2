//! The flows of one bridge on the control side. A list of changes is applied as a whole or not at all; the packet path
//! gets its own snapshot, made from [`FlowTables::tables`] for those tables whose version moved.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::HashTable;

use super::action::Action;
use super::flow::{Command, FlowMod};
use super::group::GroupMod;
use super::groups::{GroupError, Groups};
use super::matching::Match;
use super::rule::{Expiry, Rule, RuleStats};

/// Flows a bridge holds at most, unless told otherwise. A flow takes about 1 KB.
pub const DEFAULT_MAX_FLOWS: usize = 1_000_000;

/// Flows that one list of changes may look at, all together: changes that are not strict and `check_overlap` look at every
/// flow of a table, and a list of many of them would keep the control side busy for hours.
pub const MAX_VISITS: usize = 1 << 28;

/// Why a change was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyProblem {
    #[error("the bridge already holds {limit} flows, its limit; delete some or raise the limit")]
    Full { limit: usize },
    #[error("the flow overlaps another of the same priority, and check_overlap forbids that: {other}")]
    Overlap { other: String },
    #[error(
        "the changes look at too many flows together; split the list (strict changes and additions without \
         check_overlap look at one flow only)"
    )]
    TooMuchWork,
    #[error("the flow names group {group}, which does not exist; add the group first (OFPBAC_BAD_OUT_GROUP)")]
    NoSuchGroup { group: u32 },
    #[error("a flow to show cannot be applied")]
    NotAChange,
}

/// Which change of a list was refused; none of them was made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("change {} was refused and nothing was changed: {problem}", index + 1)]
pub struct ApplyError {
    /// Place in the list, from 0.
    pub index: usize,
    pub problem: ApplyProblem,
}

/// What a list of changes did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    pub added: usize,
    pub modified: usize,
    pub deleted: usize,
}

/// The rules of one table.
#[derive(Debug, Default)]
struct Table {
    rules: Vec<Arc<Rule>>,
    /// Places in `rules` by priority and match.
    index: HashTable<usize>,
    version: u64,
    /// Rules that can expire.
    timed: usize,
}

/// The flow tables of one bridge.
#[derive(Debug)]
pub struct FlowTables {
    tables: BTreeMap<u8, Table>,
    groups: Groups,
    hasher: RandomState,
    count: usize,
    max_flows: usize,
    max_visits: usize,
    next_id: u64,
    /// Counts every change that succeeded.
    generation: u64,
}

impl Default for FlowTables {
    fn default() -> Self {
        Self::new(DEFAULT_MAX_FLOWS)
    }
}

/// How to take back a step.
enum Step {
    Inserted {
        table: u8,
        priority: u16,
        matching: Box<Match>,
    },
    Removed(Arc<Rule>),
    /// The rule that was there before.
    Replaced(Arc<Rule>),
}

impl Table {
    fn find(&self, hasher: &RandomState, priority: u16, matching: &Match) -> Option<usize> {
        let same = |at: &usize| {
            self.rules.get(*at).is_some_and(|r| r.priority == priority && r.matching == *matching)
        };
        self.index.find(hasher.hash_one((priority, matching)), same).copied()
    }

    fn insert(&mut self, hasher: &RandomState, rule: Arc<Rule>) {
        let Self { rules, index, timed, .. } = self;
        *timed += usize::from(is_timed(&rule));
        let hash = hasher.hash_one((rule.priority, &rule.matching));
        rules.push(rule);
        let rehash = |at: &usize| rules.get(*at).map_or(0, |r| hasher.hash_one((r.priority, &r.matching)));
        index.insert_unique(hash, rules.len() - 1, rehash);
    }

    fn remove(&mut self, hasher: &RandomState, at: usize) -> Option<Arc<Rule>> {
        let last = self.rules.len().checked_sub(1)?;
        let hash_at = |rules: &[Arc<Rule>], at: usize| {
            rules.get(at).map(|r| hasher.hash_one((r.priority, &r.matching)))
        };
        let hash = hash_at(&self.rules, at)?;
        self.index.find_entry(hash, |found| *found == at).ok()?.remove();
        if at != last {
            let moved = hash_at(&self.rules, last)?;
            *self.index.find_mut(moved, |found| *found == last)? = at;
        }
        let rule = self.rules.swap_remove(at);
        self.timed -= usize::from(is_timed(&rule));
        Some(rule)
    }

    /// Puts `rule` where another of the same priority and match is.
    fn replace(&mut self, at: usize, rule: Arc<Rule>) -> Option<Arc<Rule>> {
        let place = self.rules.get_mut(at)?;
        self.timed += usize::from(is_timed(&rule));
        let old = std::mem::replace(place, rule);
        self.timed -= usize::from(is_timed(&old));
        Some(old)
    }
}

fn is_timed(rule: &Rule) -> bool {
    rule.idle_timeout != 0 || rule.hard_timeout != 0
}

/// True if a non-strict or strict change, or a question, is about this rule.
fn selected(rule: &Rule, by: &FlowMod, strict: bool) -> bool {
    let matches = if strict {
        rule.priority == by.priority && rule.matching == by.matching
    } else {
        rule.matching.is_within(&by.matching)
    };
    matches
        && by.table.is_none_or(|table| table == rule.table)
        && by.cookie_match.is_none_or(|(cookie, mask)| rule.cookie & mask == cookie)
        && by.out_group.is_none_or(|group| rule.actions.contains(&Action::Group(group)))
        && by.out_port.is_none_or(|port| rule.actions.iter().any(|action| action.outputs_to(port)))
}

impl FlowTables {
    /// No flows, and room for `max_flows`.
    #[must_use]
    pub fn new(max_flows: usize) -> Self {
        Self {
            tables: BTreeMap::new(),
            groups: Groups::default(),
            hasher: RandomState::new(),
            count: 0,
            max_flows,
            max_visits: MAX_VISITS,
            next_id: 0,
            generation: 0,
        }
    }

    /// Number of flows.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// True if there are no flows.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Changes with every change.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// The tables that hold, or once held, flows: number, version and rules in no particular order. A table whose
    /// version is what it was has the same rules as then.
    pub fn tables(&self) -> impl Iterator<Item = (u8, u64, &[Arc<Rule>])> {
        self.tables.iter().map(|(number, table)| (*number, table.version, table.rules.as_slice()))
    }

    /// The groups that flows can name.
    #[must_use]
    pub const fn groups(&self) -> &Groups {
        &self.groups
    }

    /// Makes all the changes of groups in order, or none of them. Flows that name a deleted group go with it
    /// (`OpenFlow` 1.3 section 6.7); their number.
    pub fn apply_groups(&mut self, changes: &[GroupMod], now_ms: u64) -> Result<usize, GroupError> {
        let gone = self.groups.apply(changes, now_ms)?;
        if gone.is_empty() {
            return Ok(0);
        }
        let names = |action: &Action| matches!(action, Action::Group(group) if gone.contains(group));
        let (mut deleted, mut touched) = (0, Vec::new());
        for (number, table) in &mut self.tables {
            let rules = table.rules.iter().enumerate();
            let places: Vec<_> =
                rules.filter(|(_, rule)| rule.actions.iter().any(names)).map(|(at, _)| at).collect();
            if !places.is_empty() {
                touched.push(*number);
            }
            // From behind, so that the places before stay what they are.
            for at in places.into_iter().rev() {
                deleted += usize::from(table.remove(&self.hasher, at).is_some());
            }
        }
        self.count -= deleted;
        self.touch(touched);
        Ok(deleted)
    }

    /// How many flows name each group.
    #[must_use]
    pub fn group_references(&self) -> BTreeMap<u32, usize> {
        let mut counts = BTreeMap::new();
        for rule in self.tables.values().flat_map(|table| &table.rules) {
            let named: BTreeSet<u32> = rule
                .actions
                .iter()
                .filter_map(|action| match action {
                    Action::Group(group) => Some(*group),
                    _ => None,
                })
                .collect();
            for group in named {
                *counts.entry(group).or_insert(0) += 1;
            }
        }
        counts
    }

    /// Makes all the changes in order, or none of them.
    pub fn apply(&mut self, changes: &[FlowMod], now_ms: u64) -> Result<Applied, ApplyError> {
        let mut steps = Vec::new();
        let mut done = Applied::default();
        let mut visits = 0usize;
        for (index, change) in changes.iter().enumerate() {
            visits = visits.saturating_add(self.visits(change));
            let result = if visits > self.max_visits {
                Err(ApplyProblem::TooMuchWork)
            } else {
                self.one(change, now_ms, &mut steps, &mut done)
            };
            if let Err(problem) = result {
                self.take_back(steps);
                return Err(ApplyError { index, problem });
            }
        }
        let touched: BTreeSet<u8> = steps
            .iter()
            .map(|step| match step {
                Step::Inserted { table, .. } => *table,
                Step::Removed(rule) | Step::Replaced(rule) => rule.table,
            })
            .collect();
        self.touch(touched);
        Ok(done)
    }

    /// Flows that a change will look at.
    fn visits(&self, change: &FlowMod) -> usize {
        let rules = |number: u8| self.tables.get(&number).map_or(0, |table| table.rules.len());
        match change.command {
            Command::Modify | Command::Delete => change.table.map_or(self.count, rules),
            Command::Add if change.flags.check_overlap => rules(change.table.unwrap_or(0)),
            _ => 1,
        }
    }

    fn touch(&mut self, tables: impl IntoIterator<Item = u8>) {
        let mut any = false;
        for table in tables {
            any = true;
            self.tables.entry(table).or_default().version = self.generation + 1;
        }
        self.generation += u64::from(any);
    }

    fn take_back(&mut self, steps: Vec<Step>) {
        for step in steps.into_iter().rev() {
            match step {
                Step::Inserted { table, priority, matching } => {
                    let Some(table) = self.tables.get_mut(&table) else { continue };
                    if let Some(at) = table.find(&self.hasher, priority, &matching) {
                        table.remove(&self.hasher, at);
                        self.count -= 1;
                    }
                }
                Step::Removed(rule) => {
                    self.count += 1;
                    self.tables.entry(rule.table).or_default().insert(&self.hasher, rule);
                }
                Step::Replaced(rule) => {
                    let Some(table) = self.tables.get_mut(&rule.table) else { continue };
                    if let Some(at) = table.find(&self.hasher, rule.priority, &rule.matching) {
                        table.replace(at, rule);
                    }
                }
            }
        }
    }

    fn one(
        &mut self,
        change: &FlowMod,
        now_ms: u64,
        steps: &mut Vec<Step>,
        done: &mut Applied,
    ) -> Result<(), ApplyProblem> {
        if !change.command.selects() {
            let missing = |action: &Action| match action {
                Action::Group(group) if self.groups.find(*group).is_none() => Some(*group),
                _ => None,
            };
            if let Some(group) = change.actions.iter().find_map(missing) {
                return Err(ApplyProblem::NoSuchGroup { group });
            }
        }
        match change.command {
            Command::Add => self.add(change, now_ms, steps, done),
            Command::Modify | Command::ModifyStrict => self.modify(change, now_ms, steps, done),
            Command::Delete | Command::DeleteStrict => {
                let strict = change.command == Command::DeleteStrict;
                for (number, at) in self.places(change, strict).into_iter().rev() {
                    let Some(table) = self.tables.get_mut(&number) else { continue };
                    if let Some(rule) = table.remove(&self.hasher, at) {
                        steps.push(Step::Removed(rule));
                        self.count -= 1;
                        done.deleted += 1;
                    }
                }
                Ok(())
            }
            Command::Dump => Err(ApplyProblem::NotAChange),
        }
    }

    /// Where the rules are that `by` is about, in rising order within each table.
    fn places(&self, by: &FlowMod, strict: bool) -> Vec<(u8, usize)> {
        let mut found = Vec::new();
        let tables =
            self.tables.iter().filter(|(number, _)| by.table.is_none_or(|wanted| wanted == **number));
        for (number, table) in tables {
            if strict {
                let at = table.find(&self.hasher, by.priority, &by.matching);
                let at = at.filter(|at| table.rules.get(*at).is_some_and(|rule| selected(rule, by, true)));
                found.extend(at.map(|at| (*number, at)));
            } else {
                let hits = table.rules.iter().enumerate().filter(|(_, rule)| selected(rule, by, false));
                found.extend(hits.map(|(at, _)| (*number, at)));
            }
        }
        found
    }

    fn add(
        &mut self,
        change: &FlowMod,
        now_ms: u64,
        steps: &mut Vec<Step>,
        done: &mut Applied,
    ) -> Result<(), ApplyProblem> {
        let number = change.table.unwrap_or(0);
        let (limit, count) = (self.max_flows, self.count);
        let table = self.tables.entry(number).or_default();
        let existing = table.find(&self.hasher, change.priority, &change.matching);
        if existing.is_none() && change.flags.check_overlap {
            let overlaps = |rule: &&Arc<Rule>| {
                rule.priority == change.priority && rule.matching.overlaps(&change.matching)
            };
            if let Some(other) = table.rules.iter().find(overlaps) {
                let other = other.dump_line(None, &super::port::NoNames).trim().to_owned();
                return Err(ApplyProblem::Overlap { other });
            }
        }
        if existing.is_none() && count >= limit {
            return Err(ApplyProblem::Full { limit });
        }
        let rule = Arc::new(Rule {
            id: self.next_id,
            table: number,
            priority: change.priority,
            cookie: change.cookie.unwrap_or(0),
            matching: change.matching,
            actions: change.actions.as_slice().into(),
            stats: Arc::new(RuleStats::default()),
            created_ms: now_ms,
            modified_ms: now_ms,
            idle_timeout: change.idle_timeout,
            hard_timeout: change.hard_timeout,
            importance: change.importance,
            flags: change.flags,
        });
        self.next_id += 1;
        done.added += 1;
        if let Some(at) = existing {
            steps.extend(table.replace(at, rule).map(Step::Replaced));
        } else {
            let matching = Box::new(change.matching);
            steps.push(Step::Inserted { table: number, priority: change.priority, matching });
            table.insert(&self.hasher, rule);
            self.count += 1;
        }
        Ok(())
    }

    /// Gives the selected rules new actions and, where the change has one, a new cookie. Where there are none, the
    /// change adds a rule, unless it looks for a cookie.
    fn modify(
        &mut self,
        change: &FlowMod,
        now_ms: u64,
        steps: &mut Vec<Step>,
        done: &mut Applied,
    ) -> Result<(), ApplyProblem> {
        let places = self.places(change, change.command == Command::ModifyStrict);
        if places.is_empty() && change.cookie_match.is_none() {
            return self.add(change, now_ms, steps, done);
        }
        let actions: Arc<[_]> = change.actions.as_slice().into();
        for (number, at) in places {
            let Some(table) = self.tables.get_mut(&number) else { continue };
            let Some(old) = table.rules.get(at) else { continue };
            let stats = if change.flags.reset_counts { Arc::default() } else { Arc::clone(&old.stats) };
            let rule = Arc::new(Rule {
                id: old.id,
                table: old.table,
                priority: old.priority,
                cookie: change.cookie.unwrap_or(old.cookie),
                matching: old.matching,
                actions: Arc::clone(&actions),
                stats,
                created_ms: old.created_ms,
                modified_ms: now_ms,
                idle_timeout: old.idle_timeout,
                hard_timeout: old.hard_timeout,
                importance: old.importance,
                flags: old.flags,
            });
            steps.extend(table.replace(at, rule).map(Step::Replaced));
            done.modified += 1;
        }
        Ok(())
    }

    /// The changes that make the tables hold exactly `wanted` (flows to add; of two alike the later counts). Flows that
    /// are the same already keep their counters, unless `readd`.
    #[must_use]
    pub fn replacement(&self, wanted: &[FlowMod], readd: bool) -> Vec<FlowMod> {
        let mut last: std::collections::HashMap<(u8, u16, &Match), &FlowMod> =
            std::collections::HashMap::new();
        for flow in wanted {
            last.insert((flow.table.unwrap_or(0), flow.priority, &flow.matching), flow);
        }
        let mut changes = Vec::new();
        for rule in self.tables.values().flat_map(|table| &table.rules) {
            let key = (rule.table, rule.priority, &rule.matching);
            match last.get(&key) {
                None => changes.push(FlowMod {
                    table: Some(rule.table),
                    priority: rule.priority,
                    matching: rule.matching,
                    ..FlowMod::new(Command::DeleteStrict)
                }),
                Some(flow) if !readd && same(rule, flow) => {
                    last.remove(&key);
                }
                Some(_) => {}
            }
        }
        // In the order of the file.
        for flow in wanted {
            let key = (flow.table.unwrap_or(0), flow.priority, &flow.matching);
            if last.get(&key).is_some_and(|chosen| std::ptr::eq(*chosen, flow)) {
                changes.push(FlowMod { command: Command::Add, ..flow.clone() });
            }
        }
        changes
    }

    /// The rules that `filter` (a [`Command::Dump`]) asks for, by table, falling priority and age.
    #[must_use]
    pub fn dump(&self, filter: &FlowMod) -> Vec<Arc<Rule>> {
        let rules = self.tables.values().flat_map(|table| &table.rules);
        let mut found: Vec<_> = rules.filter(|rule| selected(rule, filter, false)).cloned().collect();
        found.sort_by_key(|rule| (rule.table, std::cmp::Reverse(rule.priority), rule.id));
        found
    }

    /// Takes out the rules whose time is over.
    pub fn expire(&mut self, now_ms: u64) -> Vec<(Arc<Rule>, Expiry)> {
        let mut gone = Vec::new();
        let mut touched = Vec::new();
        for (number, table) in self.tables.iter_mut().filter(|(_, table)| table.timed > 0) {
            let over = |(at, rule): (usize, &Arc<Rule>)| rule.expired(now_ms).map(|why| (at, why));
            let places: Vec<_> = table.rules.iter().enumerate().filter_map(over).collect();
            if !places.is_empty() {
                touched.push(*number);
            }
            // From behind, so that the places before stay what they are.
            for (at, why) in places.into_iter().rev() {
                gone.extend(table.remove(&self.hasher, at).map(|rule| (rule, why)));
            }
        }
        self.count -= gone.len();
        self.touch(touched);
        gone
    }
}

/// True if the rule already is what the flow asks for.
fn same(rule: &Rule, flow: &FlowMod) -> bool {
    *rule.actions == *flow.actions
        && rule.cookie == flow.cookie.unwrap_or(0)
        && (rule.idle_timeout, rule.hard_timeout) == (flow.idle_timeout, flow.hard_timeout)
        && rule.importance == flow.importance
}

/// Sorts rules as `dump-flows --sort` (or `--rsort`) does: by a field of their match, those without it last; or by
/// priority where no field is named.
pub fn sort(rules: &mut [Arc<Rule>], field: Option<&super::field::Field>, descending: bool) {
    use std::cmp::Ordering;
    rules.sort_by(|a, b| {
        let turned = |order: Ordering| if descending { order.reverse() } else { order };
        let Some(field) = field else { return turned(a.priority.cmp(&b.priority)) };
        let value = |rule: &Rule| {
            let (value, mask) = rule.matching.field(field);
            (mask != 0).then_some(value)
        };
        match (value(a), value(b)) {
            (Some(a), Some(b)) => turned(a.cmp(&b)),
            (a, b) => b.is_some().cmp(&a.is_some()),
        }
    });
}

#[cfg(test)]
mod tests;
