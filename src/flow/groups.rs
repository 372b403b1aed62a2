//! The groups of one bridge on the control side. A list of changes is made as a whole or not at all; what a group is
//! never changes: a modified one is a new [`GroupEntry`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::action::Action;
use super::group::{
    Bucket, Group, GroupCommand, GroupMod, GroupType, MAX_BUCKETS, MAX_CHAIN, Place, action_set,
};
pub use super::group_parse::MAX_GROUPS;
use super::port::PortNames;
use super::rule::RuleStats;

/// A group as the bridge holds it: shared between the control side and the packet path, which counts.
#[derive(Debug)]
pub struct GroupEntry {
    pub group: Group,
    /// What each bucket does, in the order of the group's.
    pub programs: Vec<Arc<[Action]>>,
    pub stats: Arc<RuleStats>,
    /// One for each bucket.
    pub bucket_stats: Vec<Arc<RuleStats>>,
    pub created_ms: u64,
}

/// Why a change of groups was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupProblem {
    #[error("group {id} exists already; change it with mod-group (OFPGMFC_GROUP_EXISTS)")]
    Exists { id: u32 },
    #[error("there is no group {id} (OFPGMFC_UNKNOWN_GROUP)")]
    Unknown { id: u32 },
    #[error("group {group} has no bucket {bucket} (OFPGMFC_UNKNOWN_BUCKET)")]
    UnknownBucket { group: u32, bucket: u32 },
    #[error("group {group} has a bucket {bucket} already (OFPGMFC_BUCKET_EXISTS)")]
    BucketExists { group: u32, bucket: u32 },
    #[error("group {id} would lead back to itself through group {through} (OFPGMFC_LOOP)")]
    Loop { id: u32, through: u32 },
    #[error("groups would lead from one to the next more than {MAX_CHAIN} times behind group {id}")]
    TooDeep { id: u32 },
    #[error("group {id} would have more than {MAX_BUCKETS} buckets")]
    TooManyBuckets { id: u32 },
    #[error("group {id} is indirect and has exactly one bucket")]
    NotIndirect { id: u32 },
    #[error("a bucket of fast failover group {id} needs watch_port or watch_group")]
    NothingWatched { id: u32 },
    #[error("the bridge already holds {MAX_GROUPS} groups, the most there can be")]
    Full,
}

/// Which change of a list was refused; none of them was made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("change {} was refused and nothing was changed: {problem}", index + 1)]
pub struct GroupError {
    /// Place in the list, from 0.
    pub index: usize,
    pub problem: GroupProblem,
}

/// All groups of a bridge.
#[derive(Debug, Default)]
pub struct Groups {
    entries: BTreeMap<u32, Arc<GroupEntry>>,
    version: u64,
}

impl GroupEntry {
    fn new(group: Group, old: Option<&Self>, now_ms: u64) -> Self {
        let programs = group.buckets.iter().map(|bucket| action_set(&bucket.actions).into()).collect();
        let kept = |bucket: &Bucket| {
            let old = old?;
            let place = old.group.buckets.iter().position(|known| known == bucket)?;
            old.bucket_stats.get(place).map(Arc::clone)
        };
        Self {
            programs,
            stats: old.map_or_else(Arc::default, |old| Arc::clone(&old.stats)),
            bucket_stats: group.buckets.iter().map(|bucket| kept(bucket).unwrap_or_default()).collect(),
            created_ms: old.map_or(now_ms, |old| old.created_ms),
            group,
        }
    }

    /// The line of `dump-groups`.
    #[must_use]
    pub fn dump_line(&self, ports: &dyn PortNames) -> String {
        super::group::dump_line(&self.group, ports)
    }

    /// The groups that its buckets lead to.
    fn leads_to(&self) -> impl Iterator<Item = u32> {
        self.programs.iter().flat_map(|program| program.iter()).filter_map(|action| match action {
            Action::Group(id) => Some(*id),
            _ => None,
        })
    }
}

impl Groups {
    /// The group with this number.
    #[must_use]
    pub fn find(&self, id: u32) -> Option<&Arc<GroupEntry>> {
        self.entries.get(&id)
    }

    /// All of them by number.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<GroupEntry>> {
        self.entries.values()
    }

    /// Changes with every change.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// Makes the changes in order, or none; the groups that are gone then.
    pub(super) fn apply(&mut self, changes: &[GroupMod], now_ms: u64) -> Result<BTreeSet<u32>, GroupError> {
        let mut undo = Vec::new();
        for (index, change) in changes.iter().enumerate() {
            if let Err(problem) = self.one(change, now_ms, &mut undo) {
                for (id, entry) in undo.into_iter().rev() {
                    self.put(id, entry);
                }
                return Err(GroupError { index, problem });
            }
        }
        self.version += u64::from(!undo.is_empty());
        let touched = undo.into_iter();
        // One that was deleted and added again has lost its flows all the same (OpenFlow 1.3 section 6.7).
        let deleted = changes.iter().any(|change| change.command == GroupCommand::Delete);
        Ok(touched
            .filter(|(id, before)| {
                let after = self.entries.get(id);
                let same = |before: &Arc<GroupEntry>, after: &Arc<GroupEntry>| {
                    Arc::ptr_eq(&before.stats, &after.stats)
                };
                deleted
                    && before.as_ref().is_some_and(|before| after.is_none_or(|after| !same(before, after)))
            })
            .map(|(id, _)| id)
            .collect())
    }

    fn put(&mut self, id: u32, entry: Option<Arc<GroupEntry>>) -> Option<Arc<GroupEntry>> {
        match entry {
            Some(entry) => self.entries.insert(id, entry),
            None => self.entries.remove(&id),
        }
    }

    fn one(
        &mut self,
        change: &GroupMod,
        now_ms: u64,
        undo: &mut Vec<(u32, Option<Arc<GroupEntry>>)>,
    ) -> Result<(), GroupProblem> {
        let Some(id) = change.id else {
            undo.extend(std::mem::take(&mut self.entries).into_iter().map(|(id, entry)| (id, Some(entry))));
            return Ok(());
        };
        let old = self.entries.get(&id).cloned();
        let mut group = match (change.command, &old) {
            (GroupCommand::Delete, _) => {
                if old.is_some() {
                    undo.push((id, self.put(id, None)));
                }
                return Ok(());
            }
            (GroupCommand::Add, Some(_)) => return Err(GroupProblem::Exists { id }),
            (GroupCommand::Add | GroupCommand::AddOrModify, None) if self.entries.len() >= MAX_GROUPS => {
                return Err(GroupProblem::Full);
            }
            (GroupCommand::Add | GroupCommand::AddOrModify, None)
            | (GroupCommand::Modify | GroupCommand::AddOrModify, Some(_)) => Group {
                id,
                kind: change.kind,
                selection: change.selection.clone(),
                buckets: change.buckets.clone(),
            },
            (_, None) => return Err(GroupProblem::Unknown { id }),
            (GroupCommand::InsertBuckets, Some(old)) => inserted(&old.group, change)?,
            (GroupCommand::RemoveBuckets, Some(old)) => removed(&old.group, change.place)?,
        };
        number(&mut group);
        check(&group)?;
        let entry = GroupEntry::new(group, old.as_deref(), now_ms);
        self.put(id, Some(Arc::new(entry)));
        undo.push((id, old));
        self.no_loop(id)
    }

    /// Follows every way that leads on from a group.
    fn no_loop(&self, start: u32) -> Result<(), GroupProblem> {
        let mut seen = BTreeSet::new();
        let mut row = vec![start];
        for _ in 0..=MAX_CHAIN {
            let mut next = Vec::new();
            for &id in &row {
                for to in self.entries.get(&id).into_iter().flat_map(|entry| entry.leads_to()) {
                    if to == start {
                        return Err(GroupProblem::Loop { id: start, through: id });
                    }
                    if seen.insert(to) {
                        next.push(to);
                    }
                }
            }
            if next.is_empty() {
                return Ok(());
            }
            row = next;
        }
        Err(GroupProblem::TooDeep { id: start })
    }
}

fn inserted(old: &Group, change: &GroupMod) -> Result<Group, GroupProblem> {
    let mut group = old.clone();
    let taken =
        |bucket: &Bucket| bucket.id.filter(|id| old.buckets.iter().any(|known| known.id == Some(*id)));
    if let Some(bucket) = change.buckets.iter().find_map(taken) {
        return Err(GroupProblem::BucketExists { group: old.id, bucket });
    }
    let at = match change.place {
        Place::First => 0,
        Place::Last | Place::All => group.buckets.len(),
        Place::Bucket(bucket) => place(&group, bucket)?,
    };
    group.buckets.splice(at..at, change.buckets.iter().cloned());
    Ok(group)
}

fn removed(old: &Group, which: Place) -> Result<Group, GroupProblem> {
    let mut group = old.clone();
    match which {
        Place::All => group.buckets.clear(),
        Place::Last => _ = group.buckets.pop(),
        Place::First if group.buckets.is_empty() => {}
        Place::First => _ = group.buckets.remove(0),
        Place::Bucket(bucket) => _ = group.buckets.remove(place(&group, bucket)?),
    }
    Ok(group)
}

fn place(group: &Group, bucket: u32) -> Result<usize, GroupProblem> {
    let place = group.buckets.iter().position(|known| known.id == Some(bucket));
    place.ok_or(GroupProblem::UnknownBucket { group: group.id, bucket })
}

/// Gives the buckets without a number the lowest free ones.
fn number(group: &mut Group) {
    let mut taken: BTreeSet<u32> = group.buckets.iter().filter_map(|bucket| bucket.id).collect();
    let mut free = 0;
    for bucket in group.buckets.iter_mut().filter(|bucket| bucket.id.is_none()) {
        while !taken.insert(free) {
            free += 1;
        }
        bucket.id = Some(free);
    }
}

/// What only the whole group shows.
fn check(group: &Group) -> Result<(), GroupProblem> {
    let id = group.id;
    let watches = |bucket: &Bucket| bucket.watch_port.is_some() || bucket.watch_group.is_some();
    if group.buckets.len() > MAX_BUCKETS {
        return Err(GroupProblem::TooManyBuckets { id });
    }
    match group.kind {
        GroupType::Indirect if group.buckets.len() != 1 => Err(GroupProblem::NotIndirect { id }),
        GroupType::FastFailover if !group.buckets.iter().all(watches) => {
            Err(GroupProblem::NothingWatched { id })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
