//! One flow as a bridge holds it: shared between the control side, which owns it, and the packet path, which counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::action::Action;
use super::flow::Flags;
use super::matching::Match;
use super::port::PortNames;
use super::print::{self, Counters, Properties};

/// A flow in a table. Its match and actions never change: a modified flow is a new `Rule` with the same counters.
#[derive(Debug)]
pub struct Rule {
    /// Order of coming in, over all tables of the bridge.
    pub id: u64,
    pub table: u8,
    pub priority: u16,
    pub cookie: u64,
    pub matching: Match,
    pub actions: Arc<[Action]>,
    pub stats: Arc<RuleStats>,
    pub created_ms: u64,
    /// When it was last added or modified; the hard timeout counts from here.
    pub modified_ms: u64,
    /// Seconds without a packet after which it goes; 0 is never.
    pub idle_timeout: u16,
    /// Seconds after which it goes; 0 is never.
    pub hard_timeout: u16,
    pub importance: u16,
    pub flags: Flags,
}

/// What a rule has seen. The packet path adds its own sums from time to time; nobody needs them to be exact together.
#[derive(Debug, Default)]
pub struct RuleStats {
    pub packets: AtomicU64,
    pub bytes: AtomicU64,
    /// Milliseconds, 0 before the first packet.
    pub used_ms: AtomicU64,
}

impl RuleStats {
    /// Adds packets seen at `now_ms`.
    pub fn add(&self, packets: u64, bytes: u64, now_ms: u64) {
        self.packets.fetch_add(packets, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.used_ms.fetch_max(now_ms, Ordering::Relaxed);
    }
}

/// Why a rule went of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    Idle,
    Hard,
}

impl Rule {
    /// Whether the rule's time is over.
    #[must_use]
    pub fn expired(&self, now_ms: u64) -> Option<Expiry> {
        let passed = |since: u64, seconds: u16| {
            seconds != 0 && now_ms.saturating_sub(since) >= u64::from(seconds) * 1000
        };
        let used = self.stats.used_ms.load(Ordering::Relaxed).max(self.modified_ms);
        if passed(self.modified_ms, self.hard_timeout) {
            Some(Expiry::Hard)
        } else if passed(used, self.idle_timeout) {
            Some(Expiry::Idle)
        } else {
            None
        }
    }

    /// The rule as `dump-flows` prints it; `now_ms` is for its duration, `None` leaves the counters out.
    #[must_use]
    pub fn dump_line(&self, now_ms: Option<u64>, ports: &dyn PortNames) -> String {
        let properties = Properties {
            table: self.table,
            priority: self.priority,
            cookie: self.cookie,
            idle_timeout: self.idle_timeout,
            hard_timeout: self.hard_timeout,
            importance: self.importance,
            flags: self.flags,
        };
        let counters = now_ms.map(|now| Counters {
            duration_ms: now.saturating_sub(self.created_ms),
            packets: self.stats.packets.load(Ordering::Relaxed),
            bytes: self.stats.bytes.load(Ordering::Relaxed),
        });
        print::dump_line(&properties, &self.matching, &self.actions, counters.as_ref(), ports)
    }
}
