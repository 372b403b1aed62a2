//! Fragments as the control side sees them: the lcores' stores, put together.

use weir_shard::fragments::{DatagramView, Family};

use super::engine::next_shard;
use super::state::{BATCH, State, share_of_fragments};
use crate::control::engine::{Counter, Cursor, EngineError, FragmentChange, FragmentStatus};
use crate::lcore::CallError;

impl State {
    pub(super) fn fragments(&self) -> Result<FragmentStatus, CallError> {
        let all = self.ask(|polling| {
            let store = polling.worker().fragments();
            let counters = Family::ALL.map(|family| store.status(family).counters);
            (*store.settings(), store.held(), counters)
        })?;
        let mut status = FragmentStatus::default();
        status.settings.max = 0;
        for (settings, held, counters) in all {
            let max = status.settings.max.saturating_add(settings.max);
            status.settings = settings;
            status.settings.max = max;
            status.held += u64::from(held);
            for (sum, counters) in status.counters.iter_mut().zip(counters) {
                sum.add(&counters);
            }
        }
        Ok(status)
    }

    pub(super) fn set_fragments(&self, change: FragmentChange) -> Result<(), CallError> {
        let lcores = u32::try_from(self.lcores.len()).unwrap_or(u32::MAX);
        for (index, lcore) in (0..).zip(&self.lcores) {
            let change = match change {
                FragmentChange::Max(max) => FragmentChange::Max(share_of_fragments(max, lcores, index)),
                other => other,
            };
            lcore.call(move |polling| {
                let worker = polling.worker_mut();
                let mut settings = *worker.fragments().settings();
                change.apply(&mut settings);
                worker.set_fragments(settings);
            })?;
        }
        Ok(())
    }

    pub(super) fn fragmented_datagrams(
        &self,
        from: Cursor,
        rows: &mut Vec<DatagramView>,
    ) -> Result<Option<Cursor>, EngineError> {
        let Some(lcore) = self.lcores.get(from.shard) else { return Ok(None) };
        let slot = usize::try_from(from.slot).unwrap_or(usize::MAX);
        let (found, next) = lcore.call(move |polling| polling.worker().fragments().page(slot, BATCH))?;
        rows.extend(found);
        Ok(match next {
            Some(slot) => Some(Cursor { shard: from.shard, slot: slot as u64 }),
            None => next_shard(from, self.lcores.len()),
        })
    }
}

/// Every counter of fragments, by name.
pub(super) fn counters(status: &FragmentStatus) -> impl Iterator<Item = Counter> + '_ {
    Family::ALL.into_iter().zip(&status.counters).flat_map(|(family, counters)| {
        counters.iter().map(move |(name, total, help)| Counter {
            name: format!("fragment_{}_{name}", family.name()),
            total,
            help: help.into(),
        })
    })
}
