//! The tracker's settings over all lcores: kept here, and given to each shard. Limits are divided among the lcores,
//! as the connections are.

use std::collections::BTreeMap;

use weir_shard::Shard;

use super::Datapath;
use super::state::{BATCH, State, share};
use crate::config::ZoneTimeouts;
use crate::control::engine::{ConnectionTotals, EngineError};
use crate::control::events::Subscription;
use crate::control::tracking::{EventFilter, LimitChange, Limits, Tracking, apply_timeouts};
use crate::lcore::CallError;

/// Looks at expired connections for one answer: more than there can be, should they come faster than they go.
const MAX_SETTLING: u32 = 1 << 16;

impl State {
    /// Gives the shards what the configuration says of zones.
    pub(super) fn apply_settings(&self) -> Result<(), EngineError> {
        let zones = self.settings.zones.clone();
        let limits = zones.limits.into_iter().map(|(zone, limit)| (zone, Some(limit))).collect();
        self.apply_limits(&LimitChange { default: Some(zones.default_limit), zones: limits })?;
        let timeouts = zones.timeouts.into_iter().map(|(zone, timeouts)| (zone, Some(timeouts))).collect();
        self.apply_timeouts(&timeouts)
    }

    fn apply_limits(&self, change: &LimitChange) -> Result<(), EngineError> {
        let count = u32::try_from(self.lcores.len()).unwrap_or(u32::MAX);
        for (index, lcore) in (0..).zip(&self.lcores) {
            let change = change.clone();
            let part = move |limit| share(limit, count, index);
            lcore.call(move |polling| change.apply(polling.worker_mut().shard_mut(), part))?;
        }
        Ok(())
    }

    fn apply_timeouts(&self, zones: &BTreeMap<u16, Option<ZoneTimeouts>>) -> Result<(), EngineError> {
        for lcore in &self.lcores {
            for (&zone, own) in zones {
                let own = own.clone();
                lcore.call(move |polling| {
                    apply_timeouts(polling.worker_mut().shard_mut(), zone, own.as_ref())
                })??;
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
            limit: shards.iter().map(|(_, limit)| limit).sum(),
        })
    }
}

impl Tracking for Datapath {
    fn limits(&self, zones: &[u16]) -> Result<Limits, EngineError> {
        let settings = self.state().settings.clone();
        let asked = settings.asked(zones);
        let counted = asked.clone();
        let shards = self.settled(move |shard| {
            counted.iter().map(|&zone| u64::from(shard.zone_len(zone))).collect::<Vec<_>>()
        })?;
        let mut counts = vec![0; asked.len()];
        for shard in shards {
            counts.iter_mut().zip(shard).for_each(|(sum, count)| *sum += count);
        }
        Ok(settings.limits(&asked, &counts))
    }

    fn change_limits(&self, change: LimitChange) -> Result<(), EngineError> {
        let mut state = self.state();
        state.responsive()?;
        state.apply_limits(&change)?;
        state.settings.change_limits(change);
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
        state.settings.set_zone_timeouts(zones);
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
