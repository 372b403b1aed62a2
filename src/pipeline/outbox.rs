//! Notices that found their mailbox full. None is lost, and no packet to the same shard passes one: the shard that
//! hears that a tuple is free must not meet a packet of the next connection before. They are as many as the tuples
//! that other shards keep for this one, because a shard is asked for new ones by packets only, and these wait as well.

use std::collections::VecDeque;

use weir_shard::{Addressed, Notice, ShardNumber};

use super::frame::Transmit;
use super::letter::Letter;

/// What waits, for each shard.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: Vec<VecDeque<Notice>>,
    count: usize,
}

impl Outbox {
    /// Notices that wait.
    #[inline]
    pub(super) const fn len(&self) -> usize {
        self.count
    }

    /// True if something for this shard waits already.
    #[inline]
    pub(super) fn is_behind(&self, to: ShardNumber) -> bool {
        self.count > 0 && self.waiting.get(to.index()).is_some_and(|notices| !notices.is_empty())
    }

    /// Sends a notice, or keeps it.
    #[cold]
    pub(super) fn send<F, T: Transmit<F>>(&mut self, Addressed { to, notice }: Addressed, out: &mut T) {
        if !self.is_behind(to) && out.post(to, Letter::Notice(notice)).is_ok() {
            return;
        }
        if self.waiting.len() <= to.index() {
            self.waiting.resize_with(to.index() + 1, VecDeque::new);
        }
        if let Some(notices) = self.waiting.get_mut(to.index()) {
            notices.push_back(notice);
            self.count += 1;
        }
    }

    /// Sends what there is room for by now.
    #[cold]
    pub(super) fn send_waiting<F, T: Transmit<F>>(&mut self, out: &mut T) {
        for (index, notices) in self.waiting.iter_mut().enumerate() {
            let Some(to) = ShardNumber::new(index) else { continue };
            while let Some(&notice) = notices.front() {
                if out.post(to, Letter::Notice(notice)).is_err() {
                    break;
                }
                notices.pop_front();
                self.count -= 1;
            }
        }
    }
}
