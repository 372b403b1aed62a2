//! What the commands about zones, limits and events need of the running datapath: the part of
//! [`Engine`](super::Engine) that concerns the tracker's settings.

use std::collections::BTreeMap;

use serde::Serialize;
use weir_shard::Shard;

use super::engine::{ConnectionFilter, EngineError};
use super::events::Subscription;
use crate::config::{ZoneTimeouts, Zones};

/// The tracker's settings, and its stream of events. Changes are made as a whole or not at all.
pub trait Tracking: Send + Sync {
    /// The limits with the connections that count towards them: of `zones`, or of those that have a limit of their
    /// own if `zones` is empty.
    ///
    /// # Errors
    /// When an lcore does not answer.
    fn limits(&self, zones: &[u16]) -> Result<Limits, EngineError>;
    /// Makes these changes of limits; connections that are there stay.
    ///
    /// # Errors
    /// When an lcore does not answer.
    fn change_limits(&self, change: LimitChange) -> Result<(), EngineError>;

    /// The zones that have timeouts of their own.
    fn zone_timeouts(&self) -> BTreeMap<u16, ZoneTimeouts>;
    /// Makes these changes of zones' timeouts: `None` takes a zone's own away. Connections go by them from their next
    /// packet on.
    ///
    /// # Errors
    /// When an lcore does not answer, or there are too many different ones.
    fn set_zone_timeouts(&self, zones: BTreeMap<u16, Option<ZoneTimeouts>>) -> Result<(), EngineError>;

    /// Whether TCP segments outside their window are invalid.
    fn checks_sequence(&self) -> bool;
    /// Sets whether TCP segments outside their window are invalid.
    ///
    /// # Errors
    /// When an lcore does not answer.
    fn check_sequence(&self, check: bool) -> Result<(), EngineError>;

    /// Milliseconds that `ct-set-sweep-interval` was told.
    fn sweep_interval(&self) -> u32;
    /// Remembers a sweep interval. Nothing else follows from it: expired connections leave counts and limits at once,
    /// and their memory within a fraction of a second.
    fn set_sweep_interval(&self, milliseconds: u32);

    /// Listens to what happens to connections from now on.
    ///
    /// # Errors
    /// When there are too many listeners, or an lcore does not answer.
    fn subscribe(&self, filter: EventFilter) -> Result<Subscription, EngineError>;
}

/// Open vSwitch's sweep interval, in milliseconds.
pub const DEFAULT_SWEEP_INTERVAL: u32 = 20_000;

/// What the control side remembers of the tracker's settings, beside what the shards were told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What is different in some zones.
    pub zones: Zones,
    /// TCP segments outside their window are valid.
    pub liberal_tcp: bool,
    /// Milliseconds that `ct-set-sweep-interval` was told.
    pub sweep_interval: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { zones: Zones::default(), liberal_tcp: false, sweep_interval: DEFAULT_SWEEP_INTERVAL }
    }
}

impl Settings {
    /// The zones that a look at `zones` means: those, or all with a limit of their own.
    #[must_use]
    pub fn asked(&self, zones: &[u16]) -> Vec<u16> {
        if zones.is_empty() { self.zones.limits.keys().copied().collect() } else { zones.to_vec() }
    }

    /// The limits of `zones`, which have so many connections.
    #[must_use]
    pub fn limits(&self, zones: &[u16], counts: &[u64]) -> Limits {
        let rows = zones.iter().zip(counts).map(|(&zone, &count)| ZoneLimit {
            zone,
            limit: self.zones.limits.get(&zone).copied().or(self.zones.default_limit),
            count,
        });
        Limits { default: self.zones.default_limit, zones: rows.collect() }
    }

    /// Remembers a change of limits.
    pub fn change_limits(&mut self, change: LimitChange) {
        self.zones.default_limit = change.default.unwrap_or(self.zones.default_limit);
        assign(&mut self.zones.limits, change.zones);
    }

    /// Remembers a change of timeouts.
    pub fn set_zone_timeouts(&mut self, zones: BTreeMap<u16, Option<ZoneTimeouts>>) {
        assign(&mut self.zones.timeouts, zones);
    }
}

fn assign<T>(known: &mut BTreeMap<u16, T>, changes: BTreeMap<u16, Option<T>>) {
    for (zone, value) in changes {
        match value {
            Some(value) => drop(known.insert(zone, value)),
            None => drop(known.remove(&zone)),
        }
    }
}

/// How many connections zones may have, and have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Of zones without a limit of their own; `None` is any number.
    pub default: Option<u32>,
    /// Ascending.
    pub zones: Vec<ZoneLimit>,
}

/// One zone of [`Limits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ZoneLimit {
    /// The zone.
    pub zone: u16,
    /// Connections that it may have, by its own limit or the default; `None` is any number.
    pub limit: Option<u32>,
    /// Connections that it has, without those that have expired.
    pub count: u64,
}

/// A change of limits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LimitChange {
    /// A new default: `Some(None)` removes it.
    pub default: Option<Option<u32>>,
    /// Zones' own limits: `None` removes one.
    pub zones: BTreeMap<u16, Option<u32>>,
}

impl LimitChange {
    /// Tells a shard, whose part of a limit `part` says.
    pub fn apply(&self, shard: &mut Shard, part: impl Fn(u32) -> u32) {
        if let Some(default) = self.default {
            shard.set_default_zone_limit(default.map(&part));
        }
        for (&zone, limit) in &self.zones {
            shard.set_zone_limit(zone, limit.map(&part));
        }
    }
}

/// Tells a shard the timeouts of a zone.
///
/// # Errors
/// As [`Shard::set_zone_timeouts`].
pub fn apply_timeouts(shard: &mut Shard, zone: u16, own: Option<&ZoneTimeouts>) -> Result<(), EngineError> {
    let timeouts = own.map(|own| own.over(shard.timeouts()));
    shard.set_zone_timeouts(zone, timeouts).map_err(|error| EngineError::Refused(error.to_string()))
}

/// Which events are meant; all parts must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// Kinds by name; empty is all.
    pub kinds: Vec<&'static str>,
    /// The connection after the event.
    pub connections: ConnectionFilter,
}
