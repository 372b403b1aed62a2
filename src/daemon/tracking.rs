//! The tracker's settings over all lcores: kept here, and given to each shard. Limits are given as they are: the shards
//! keep them together.

use std::collections::BTreeMap;

use weir_shard::Shard;

use super::Datapath;
use super::state::{BATCH, State};
use crate::config::{ZoneTimeouts, Zones};
use crate::control::engine::{ConnectionTotals, EngineError};
use crate::control::events::Subscription;
use crate::control::tracking::{DEFAULT_SWEEP_INTERVAL, EventFilter, LimitChange, Limits, Tracking, record};
use crate::lcore::CallError;

/// What the control side remembers of the tracker's settings.
#[derive(Debug)]
pub(super) struct Settings {
    zones: Zones,
    liberal_tcp: bool,
    sweep_interval: u32,
}

impl Settings {
    pub(super) const fn new(zones: Zones, liberal_tcp: bool) -> Self {
        Self { zones, liberal_tcp, sweep_interval: DEFAULT_SWEEP_INTERVAL }
    }
}

/// Looks at expired connections for one answer: more than there can be, should they come faster than they go.
const MAX_SETTLING: u32 = 1 << 16;

impl State {
    /// Gives the shards what the configuration says of zones.
    pub(super) fn apply_settings(&self) -> Result<(), EngineError> {
        for lcore in &self.lcores {
            let zones = self.settings.zones.clone();
            let done = lcore.call(move |polling| zones.apply(polling.worker_mut().shard_mut()))?;
            done.map_err(|error| EngineError::Refused(error.to_string()))?;
        }
        Ok(())
    }

    fn apply_limits(&self, change: &LimitChange) -> Result<(), EngineError> {
        for lcore in &self.lcores {
            let LimitChange { default, zones } = change.clone();
            lcore.call(move |polling| {
                let shard = polling.worker_mut().shard_mut();
                if let Some(default) = default {
                    shard.set_default_zone_limit(default);
                }
                zones.into_iter().for_each(|(zone, limit)| shard.set_zone_limit(zone, limit));
            })?;
        }
        Ok(())
    }

    fn apply_timeouts(&self, zones: &BTreeMap<u16, Option<ZoneTimeouts>>) -> Result<(), EngineError> {
        for lcore in &self.lcores {
            for (&zone, own) in zones {
                let own = own.clone();
                let set = move |shard: &mut Shard| {
                    let timeouts = own.map(|own| own.over(shard.timeouts()));
                    shard.set_zone_timeouts(zone, timeouts)
                };
                let done = lcore.call(move |polling| set(polling.worker_mut().shard_mut()))?;
                done.map_err(|error| EngineError::Refused(error.to_string()))?;
            }
        }
        Ok(())
    }
}

impl Datapath {
    /// What `read` says of each shard at a moment when nothing expired is left in it.
    pub(super) fn settled<R: Send + 'static>(
        &self,
        read: impl Fn(&Shard) -> R + Clone + Send + 'static,
    ) -> Result<Vec<R>, CallError> {
        let count = self.state().lcores.len();
        let mut answers = Vec::new();
        for index in 0..count {
            for turn in 1.. {
                let read = read.clone();
                // Locked anew for each batch: a long look holds up no other command.
                let state = self.state();
                let Some(lcore) = state.lcores.get(index) else { break };
                let answer = lcore.call(move |polling| {
                    let now = polling.now();
                    let shard = polling.worker_mut().shard_mut();
                    let batch = u32::try_from(BATCH).unwrap_or(u32::MAX);
                    let is_settled = shard.sweep(now, batch) < batch || turn >= MAX_SETTLING;
                    is_settled.then(|| read(shard))
                })?;
                if let Some(answer) = answer {
                    answers.push(answer);
                    break;
                }
            }
        }
        Ok(answers)
    }

    /// How many connections there are and may be.
    pub(super) fn totals(&self) -> Result<ConnectionTotals, CallError> {
        let shards = self.settled(|shard| (u64::from(shard.len()), shard.max_connections()))?;
        Ok(ConnectionTotals {
            total: shards.iter().map(|(total, _)| total).sum(),
            // They all have the same.
            limit: shards.first().map_or(0, |(_, limit)| *limit),
        })
    }
}

impl Tracking for Datapath {
    fn limits(&self, zones: &[u16]) -> Result<Limits, EngineError> {
        let configured = self.state().settings.zones.clone();
        let asked: Vec<u16> =
            if zones.is_empty() { configured.limits.keys().copied().collect() } else { zones.to_vec() };
        let counts = self.settled(move |shard| {
            asked.iter().map(|&zone| (zone, u64::from(shard.zone_len(zone)))).collect::<BTreeMap<_, _>>()
        })?;
        let count = |zone| counts.iter().filter_map(|counts| counts.get(&zone)).sum();
        Ok(Limits::new(&configured, zones, count))
    }

    fn change_limits(&self, change: LimitChange) -> Result<(), EngineError> {
        let mut state = self.state();
        state.responsive()?;
        state.apply_limits(&change)?;
        change.record(&mut state.settings.zones);
        Ok(())
    }

    fn zone_timeouts(&self) -> BTreeMap<u16, ZoneTimeouts> {
        self.state().settings.zones.timeouts.clone()
    }

    fn set_zone_timeouts(&self, zones: BTreeMap<u16, Option<ZoneTimeouts>>) -> Result<(), EngineError> {
        let mut state = self.state();
        state.responsive()?;
        if let Err(error) = state.apply_timeouts(&zones) {
            // What some shards have taken already is taken back.
            let known = &state.settings.zones.timeouts;
            let before = zones.keys().map(|zone| (*zone, known.get(zone).cloned())).collect();
            state.apply_timeouts(&before)?;
            return Err(error);
        }
        record(&mut state.settings.zones.timeouts, zones);
        Ok(())
    }

    fn checks_sequence(&self) -> bool {
        !self.state().settings.liberal_tcp
    }

    fn check_sequence(&self, check: bool) -> Result<(), EngineError> {
        let mut state = self.state();
        state.responsive()?;
        state.ask(move |polling| polling.worker_mut().shard_mut().set_liberal_tcp(!check))?;
        state.settings.liberal_tcp = !check;
        Ok(())
    }

    fn sweep_interval(&self) -> u32 {
        self.state().settings.sweep_interval
    }

    fn set_sweep_interval(&self, milliseconds: u32) {
        self.state().settings.sweep_interval = milliseconds;
    }

    fn subscribe(&self, filter: EventFilter) -> Result<Subscription, EngineError> {
        self.collector.subscribe(filter)
    }
}
