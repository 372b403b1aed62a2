//! Connections as commands see them: pages of dumps, and flushes. Both look at the shards' memory beside the lcores,
//! without the control side's lock; only what is to end is handed to the lcore that owns it, some dozens at a time.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use weir_shard::{ConnectionRef, ConnectionView, DumpCursor, ShardReader};

use super::Datapath;
use super::engine::next_shard;
use super::state::State;
use crate::control::engine::{ConnectionFilter, Cursor};
use crate::lcore::{CallError, Clock, Cycles};

/// Slots that are looked at for one page: under a millisecond.
const SLOTS: usize = 4096;

/// Connections of one page: what a client that does not read on makes the daemon keep, some 200 KB.
const ROWS: usize = 512;

/// Connections that an lcore ends between two bursts: some 20 microseconds. Each time it also wakes the control side up.
const AT_ONCE: usize = 128;

/// A busy lcore works for a flush one part in so many of its time: 0.6 %, and about as much again for the waking up and
/// for what its caches lose. A flush of a million takes half a minute then.
const SHARE: u32 = 160;

/// An lcore with more than one part in so many of its time to spare is not busy.
const SPARE: u64 = 8;

/// The shards' memory, one reader an lcore in their order, and the clock that they go by.
#[derive(Debug)]
pub(super) struct Readers {
    shards: Vec<ShardReader>,
    clock: Clock,
}

impl Readers {
    pub(super) fn of(state: &State) -> Result<Self, CallError> {
        let shards = state.ask(|polling| polling.worker_mut().shard_mut().reader())?;
        Ok(Self { shards, clock: state.clock })
    }

    fn now(&self) -> u64 {
        self.clock.milliseconds(weir_ffi::tsc())
    }
}

impl Datapath {
    /// The next of the connections that are meant, at most `most` of them.
    pub(super) fn connections(
        &self,
        filter: &ConnectionFilter,
        from: Cursor,
        most: usize,
        rows: &mut Vec<ConnectionView>,
    ) -> Option<Cursor> {
        let shards = &self.readers.shards;
        let mut cursor = DumpCursor::at(u32::try_from(from.slot).unwrap_or(u32::MAX));
        rows.extend(filter.page(
            shards.get(from.shard)?,
            self.readers.now(),
            &mut cursor,
            SLOTS,
            most.min(ROWS),
        ));
        if cursor.is_done() {
            return next_shard(from, shards.len());
        }
        Some(Cursor { shard: from.shard, slot: u64::from(cursor.slot()) })
    }

    /// Ends the connections that are meant; says how many those were.
    pub(super) fn flush(&self, filter: &ConnectionFilter) -> Result<u64, CallError> {
        let filter = Arc::new(filter.clone());
        let mut removed = 0;
        for (index, reader) in self.readers.shards.iter().enumerate() {
            let mut pace = Pace::default();
            let mut cursor = DumpCursor::default();
            while !cursor.is_done() {
                let mut named = Vec::with_capacity(AT_ONCE);
                while named.len() < AT_ONCE && !cursor.is_done() {
                    reader.dump(self.readers.now(), &mut cursor, SLOTS, &mut |name, view| {
                        if filter.admits(&view) {
                            named.push(name);
                        }
                        if named.len() < AT_ONCE { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
                    });
                }
                if named.is_empty() {
                    break;
                }
                let Some(ended) = self.end(index, named, &filter)? else { break };
                removed += u64::from(ended.connections);
                if let Some(rest) = pace.rest_after(&ended, weir_ffi::tsc_hz()) {
                    std::thread::sleep(rest);
                }
            }
        }
        Ok(removed)
    }

    /// Has an lcore end those that are still meant; `None` if there is no such lcore.
    fn end(
        &self,
        lcore: usize,
        named: Vec<ConnectionRef>,
        filter: &Arc<ConnectionFilter>,
    ) -> Result<Option<Ended>, CallError> {
        // Locked for this alone: a long flush holds up no other command.
        let state = self.state();
        let Some(lcore) = state.lcores.get(lcore) else { return Ok(None) };
        let filter = Arc::clone(filter);
        let ended = lcore.call(move |polling| {
            let (now, start) = (polling.now(), weir_ffi::tsc());
            let shard = polling.worker_mut().shard_mut();
            let connections = shard.flush_named(now, &named, &mut |view| filter.admits(view));
            Ended { connections, took: weir_ffi::tsc().wrapping_sub(start), cycles: polling.cycles() }
        })?;
        Ok(Some(ended))
    }
}

/// What an lcore has done for a flush.
struct Ended {
    connections: u32,
    /// Cycles.
    took: u64,
    cycles: Cycles,
}

/// How fast a flush may go: a busy lcore gives it a small part of its time, one that has time to spare all of that.
#[derive(Default)]
struct Pace(Cycles);

impl Pace {
    /// How long to leave the lcore alone after this; its counter runs at `hz`.
    fn rest_after(&mut self, ended: &Ended, hz: u64) -> Option<Duration> {
        let before = core::mem::replace(&mut self.0, ended.cycles);
        let idle = ended.cycles.idle.wrapping_sub(before.idle);
        let busy = ended.cycles.processing.wrapping_sub(before.processing);
        if idle.saturating_mul(SPARE) > idle.saturating_add(busy) {
            return None;
        }
        let nanoseconds = u128::from(ended.took) * 1_000_000_000 / u128::from(hz.max(1));
        Some(Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(0)) * SHARE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_lcore_is_left_alone_for_a_hundred_times_as_long_and_an_idle_one_not_at_all() {
        let hz = 2_600_000_000;
        let ended = |processing, idle| Ended {
            connections: 64,
            took: hz / 50_000,
            cycles: Cycles { processing, idle, ..Cycles::default() },
        };
        let mut pace = Pace::default();
        let rest = pace.rest_after(&ended(1000, 10), hz).unwrap();
        assert!((3100..3300).contains(&rest.as_micros()), "{rest:?}");
        assert_eq!(pace.rest_after(&ended(1100, 1000), hz), None, "since it was last asked");
        assert!(pace.rest_after(&ended(9000, 1001), hz).is_some());
    }
}
