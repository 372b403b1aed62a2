//! Groups during translation. Each bucket starts from the packet as the group found it, and what follows the group
//! does so too (ovs-actions(7), `group`); only the stack keeps what a bucket's tables did to it.

use std::sync::Arc;

use super::super::group::{self, GroupView};
use super::super::trace::Kind;
use super::super::{BridgeView, DropCause};
use super::headers::HEADERS;
use super::{MAX_DEPTH, MAX_NESTING, Then, Translator};
use crate::flow::GroupType;
use crate::flow::Selection;
use crate::flow::key::{Key, at};

impl Translator<'_> {
    pub(super) fn group(&mut self, id: u32) -> Then {
        let bridge: &Arc<BridgeView> = self.bridge;
        let Some(view) = bridge.groups.get(&id) else {
            self.cause = Some(DropCause::NoSuchGroup);
            return Then::Next;
        };
        if self.depth >= MAX_DEPTH || self.nesting >= MAX_NESTING {
            return self.fail(DropCause::TooManyResubmits);
        }
        self.rules.push(Arc::clone(&view.entry.stats));
        let buckets = match view.entry.group.kind {
            GroupType::All | GroupType::Indirect => 0..view.live.len(),
            GroupType::FastFailover => one(view.first_live()),
            GroupType::Select => one(self.select(view)),
        };
        self.note_choice(view, buckets.clone().next());
        if buckets.is_empty() {
            self.cause = Some(DropCause::NoLiveBucket);
        }
        self.depth += 1;
        self.nesting += 1;
        for index in buckets {
            self.bucket(view, index);
            if self.failed.is_some() {
                return Then::Exit;
            }
        }
        self.nesting -= 1;
        self.depth -= 1;
        Then::Next
    }

    fn note_choice(&mut self, view: &GroupView, chosen: Option<usize>) {
        let group = &view.entry.group;
        if self.trace.is_none() || matches!(group.kind, GroupType::All | GroupType::Indirect) {
            return;
        }
        let number = |index: usize| group.buckets.get(index).and_then(|bucket| bucket.id).unwrap_or(0);
        let passed = view.live.iter().zip(&group.buckets).take(chosen.unwrap_or(view.live.len()));
        for (index, (_, bucket)) in passed.enumerate().filter(|(_, (live, _))| !**live) {
            let cause = match (bucket.watch_port, bucket.watch_group) {
                (Some(port), _) => format!("port {port}"),
                (None, group) => format!("group {}", group.unwrap_or(0)),
            };
            self.note(Kind::Detail, || format!("bucket {}: not live due to {cause}", number(index)));
        }
        self.note(Kind::Detail, || match chosen {
            Some(index) => format!("using bucket {}", number(index)),
            None => "no live bucket".into(),
        });
    }

    /// The bucket for the packet as it is now; what that depends on is marked as seen.
    fn select(&mut self, view: &GroupView) -> Option<usize> {
        let selection = &view.entry.group.selection;
        if let Selection::Hash { .. } = selection {
            let (hash, looked_at) = group::fields(&self.flow, selection);
            self.seen.add(&looked_at);
            return view.select(hash);
        }
        let mut mask = Key::ZERO;
        mask.write(at::DP_HASH, 4, u128::from(view.hash_mask()));
        self.seen.add(&mask);
        view.select(self.flow.read(at::DP_HASH, 4) as u32)
    }

    fn bucket(&mut self, view: &GroupView, index: usize) {
        let entry = &view.entry;
        let Some(program) = entry.programs.get(index) else { return };
        self.rules.extend(entry.bucket_stats.get(index).map(Arc::clone));
        let (flow, written) = (self.flow, self.written);
        let changed = core::mem::replace(&mut self.changed, Key::ZERO);
        // An exit in it, or in a table that it goes to, ends the bucket alone.
        self.note_begin(Kind::Bucket, || {
            format!("bucket {}", entry.group.buckets.get(index).and_then(|b| b.id).unwrap_or(0))
        });
        let _ = self.list(program);
        self.note_end();
        // Whatever the bucket wrote into headers is written back before the packet is used again, and what is written
        // back is part of what the packet must be.
        let back = self.changed.masked(&HEADERS);
        self.seen.add(&back);
        self.flow = flow;
        self.written = written.union(&back);
        self.changed = changed.union(&self.changed);
    }
}

fn one(index: Option<usize>) -> core::ops::Range<usize> {
    index.map_or(0..0, |index| index..index + 1)
}
