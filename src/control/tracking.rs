//! What the commands about zones, limits and events need of the running datapath: the part of
//! [`Engine`](super::Engine) that concerns the tracker's settings.

use std::collections::BTreeMap;

use serde::Serialize;

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

impl Limits {
    /// Those of `asked`, or of the zones that have one of their own if `asked` is empty, with each zone's count.
    pub fn new(configured: &Zones, asked: &[u16], mut count: impl FnMut(u16) -> u64) -> Self {
        let row = |zone: u16| ZoneLimit {
            zone,
            limit: configured.limits.get(&zone).copied().or(configured.default_limit),
            count: count(zone),
        };
        let zones = match asked {
            [] => configured.limits.keys().copied().map(row).collect(),
            _ => asked.iter().copied().map(row).collect(),
        };
        Self { default: configured.default_limit, zones }
    }
}

impl LimitChange {
    /// Writes the change down.
    pub fn record(self, zones: &mut Zones) {
        zones.default_limit = self.default.unwrap_or(zones.default_limit);
        record(&mut zones.limits, self.zones);
    }
}

/// Enters each zone's own value, or takes it away where that is `None`.
pub fn record<T>(known: &mut BTreeMap<u16, T>, changes: BTreeMap<u16, Option<T>>) {
    for (zone, own) in changes {
        match own {
            Some(own) => drop(known.insert(zone, own)),
            None => drop(known.remove(&zone)),
        }
    }
}

/// Which events are meant; all parts must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// Kinds by name; empty is all.
    pub kinds: Vec<&'static str>,
    /// The connection after the event.
    pub connections: ConnectionFilter,
}
