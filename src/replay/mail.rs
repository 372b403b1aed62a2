//! The mailboxes of a virtual switch: one queue for each ordered pair of shards, whose letters arrive in their order,
//! some steps after they were posted.

use std::collections::VecDeque;

use weir_shard::ShardNumber;

use super::layout::{Draw, Layout};
use crate::pipeline::{HeapFrame, Letter, Letters};

/// What is under way from one shard to another, each letter with the step that it arrives in.
type Queue = VecDeque<(u64, Letter<HeapFrame>)>;

/// All mailboxes.
#[derive(Debug)]
pub(super) struct Mail {
    /// By sender, then by receiver.
    queues: Vec<Vec<Queue>>,
    /// Steps so far.
    step: u64,
    delay: u32,
    capacity: usize,
    draw: Draw,
}

impl Mail {
    pub(super) fn new(layout: &Layout, shards: usize) -> Self {
        let queues = (0..shards).map(|_| (0..shards).map(|_| Queue::new()).collect()).collect();
        Self {
            queues,
            step: 0,
            delay: layout.mailbox_delay,
            capacity: layout.mailbox_capacity,
            draw: Draw::new(layout.seed),
        }
    }

    /// Queues a letter; gives it back if there is no room or no such shard.
    pub(super) fn post(
        &mut self,
        from: ShardNumber,
        to: ShardNumber,
        letter: Letter<HeapFrame>,
    ) -> Result<(), Letter<HeapFrame>> {
        let delay = match self.delay {
            0 => 0,
            most => self.draw.next() % (u64::from(most) + 1),
        };
        let queue = self.queues.get_mut(from.index()).and_then(|row| row.get_mut(to.index()));
        let Some(queue) = queue.filter(|queue| from != to && queue.len() < self.capacity) else {
            return Err(letter);
        };
        // None arrives before those in front of it.
        let due = queue.back().map_or(0, |(due, _)| *due).max(self.step + delay);
        queue.push_back((due, letter));
        Ok(())
    }

    /// Lets one step pass.
    pub(super) fn step(&mut self) {
        self.step += 1;
    }

    /// Up to a burst of letters that have arrived, from one shard to one.
    pub(super) fn take(&mut self) -> Option<(ShardNumber, ShardNumber, Letters<HeapFrame>)> {
        let (step, shards) = (self.step, self.queues.len());
        let has_arrived = |queue: &Queue| queue.front().is_some_and(|(due, _)| *due <= step);
        let pairs: Vec<_> = (0..shards)
            .flat_map(|from| (0..shards).map(move |to| (from, to)))
            .filter(|&(from, to)| has_arrived(&self.queues[from][to]))
            .collect();
        if pairs.is_empty() {
            return None;
        }
        let (from, to) = pairs[self.draw.below(pairs.len())];
        let queue = &mut self.queues[from][to];
        let mut letters = Letters::new();
        while !letters.is_full() && has_arrived(queue) {
            letters.extend(queue.pop_front().map(|(_, letter)| letter));
        }
        Some((ShardNumber::new(from)?, ShardNumber::new(to)?, letters))
    }

    /// True if nothing is under way.
    pub(super) fn is_empty(&self) -> bool {
        self.queues.iter().flatten().all(VecDeque::is_empty)
    }

    /// True if a packet is under way, also one that only a tracker is still to see.
    pub(super) fn has_parcels(&self) -> bool {
        let letters = self.queues.iter().flatten().flatten();
        letters.into_iter().any(|(_, letter)| !matches!(letter, Letter::Notice(_)))
    }

    /// Packets under way.
    pub(super) fn packets(&self) -> u64 {
        self.queues.iter().flatten().flatten().map(|(_, letter)| letter.packets()).sum()
    }
}
