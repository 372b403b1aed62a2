//! What a worker counts, and what it counts for each port. Plain integers: only the worker's own lcore
//! writes them, readers get copies.

use weir_shard::Reason;

use super::DropCause;

/// A worker's packet counters. `received + copies + taken_over == sent + dropped + held + handed_over` between bursts,
/// where held is [`Worker::held_fragments`](super::Worker::held_fragments).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Bursts that came in.
    pub bursts: u64,
    /// Packets that came in.
    pub received: u64,
    /// Packets handed to a port for sending.
    pub sent: u64,
    /// Packets made by copying another, for more than one output or a recirculation before the last action.
    pub copies: u64,
    /// Look-ups spared by a trajectory.
    pub trajectory_hits: u64,
    /// Look-ups answered by the exact-match cache, or by the megaflow of the packet before.
    pub exact_hits: u64,
    /// Look-ups answered by the megaflow search.
    pub megaflow_hits: u64,
    /// Look-ups that needed a translation through the flow tables.
    pub translations: u64,
    /// Translations that found no room in the megaflow cache.
    pub uncached: u64,
    /// Recirculations.
    pub recirculations: u64,
    /// Packets given to other shards' workers, by [`Reason::index`].
    pub handed_over: [u64; Reason::ALL.len()],
    /// Packets that other shards' workers gave to this one, likewise.
    pub taken_over: [u64; Reason::ALL.len()],
    /// Packets that found no room in another shard's mailbox; they are among the dropped as well.
    pub refused_full: [u64; Reason::ALL.len()],
    dropped: [u64; DropCause::ALL.len()],
}

impl Counters {
    /// One more packet dropped for `cause`.
    #[inline]
    pub fn count_drop(&mut self, cause: DropCause) {
        self.dropped[cause.index()] += 1;
    }

    /// Look-ups that found a megaflow, whichever way.
    #[must_use]
    pub const fn hits(&self) -> u64 {
        self.trajectory_hits + self.exact_hits + self.megaflow_hits
    }

    /// Packets given to other workers.
    #[must_use]
    pub fn handed_over_in_all(&self) -> u64 {
        self.handed_over.iter().sum()
    }

    /// Packets taken over from other workers.
    #[must_use]
    pub fn taken_over_in_all(&self) -> u64 {
        self.taken_over.iter().sum()
    }

    /// What went from worker to worker, by reason: the counter's name, the count and what it means.
    pub fn handovers(&self) -> impl Iterator<Item = (String, u64, &'static str)> {
        [
            ("handed_over", self.handed_over, "packets given to another lcore, by reason"),
            ("taken_over", self.taken_over, "packets that another lcore gave, by reason"),
            (
                "mailbox_full",
                self.refused_full,
                "packets dropped as another lcore's mailbox was full, by reason",
            ),
        ]
        .into_iter()
        .flat_map(|(what, counts, help)| {
            let named = Reason::ALL.into_iter().zip(counts);
            named.map(move |(reason, count)| (format!("{what}_{}", reason.name()), count, help))
        })
    }

    /// Packets dropped for `cause`.
    #[must_use]
    pub fn dropped(&self, cause: DropCause) -> u64 {
        self.dropped[cause.index()]
    }

    /// Every counter of drops, in order.
    pub fn drops(&self) -> impl Iterator<Item = (DropCause, u64)> {
        DropCause::ALL.into_iter().zip(self.dropped)
    }

    /// All packets dropped.
    #[must_use]
    pub fn dropped_in_all(&self) -> u64 {
        self.dropped.iter().sum()
    }

    /// Adds another worker's counters.
    pub fn add(&mut self, other: &Self) {
        self.bursts += other.bursts;
        self.received += other.received;
        self.sent += other.sent;
        self.copies += other.copies;
        self.trajectory_hits += other.trajectory_hits;
        self.exact_hits += other.exact_hits;
        self.megaflow_hits += other.megaflow_hits;
        self.translations += other.translations;
        self.uncached += other.uncached;
        self.recirculations += other.recirculations;
        for (sums, counts) in [
            (&mut self.handed_over[..], &other.handed_over[..]),
            (&mut self.taken_over, &other.taken_over),
            (&mut self.refused_full, &other.refused_full),
            (&mut self.dropped, &other.dropped),
        ] {
            sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
    }
}

/// What went through a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortCounters {
    /// Packets that came in by it.
    pub received: u64,
    /// Their bytes, without FCS.
    pub received_bytes: u64,
    /// Packets handed to it.
    pub sent: u64,
    /// Their bytes, without FCS.
    pub sent_bytes: u64,
}

impl PortCounters {
    /// Adds another worker's counters.
    pub fn add(&mut self, other: &Self) {
        self.received += other.received;
        self.received_bytes += other.received_bytes;
        self.sent += other.sent;
        self.sent_bytes += other.sent_bytes;
    }
}
