//! A look at a shard's connections from other threads, while its lcore works: what dumps, look-ups and flushes use.
//! It never writes to the table, never waits for the owner but for the two stores of a label, and never makes the
//! owner wait.

use core::ops::ControlFlow;
use std::sync::Arc;

use arrayvec::ArrayVec;

use crate::clock::{Clock, Millis};
use crate::meta::ConnectionRef;
use crate::shard::DumpCursor;
use crate::table::Readable;
use crate::view::ConnectionView;

/// Slots that are looked at under one guard. The views are kept on the stack, 20 KB, and shown without a guard.
const UNDER_GUARD: u32 = 64;

/// How many slots ahead are asked for: some 100 ns each come from memory.
const AHEAD: u32 = 8;

/// A hold on the connections of a [`Shard`](crate::Shard), from [`Shard::reader`](crate::Shard::reader). The memory
/// outlives the shard while there is one.
#[derive(Clone)]
pub struct ShardReader {
    table: Arc<Readable>,
}

impl core::fmt::Debug for ShardReader {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("ShardReader").field("slots", &self.table.used()).finish_non_exhaustive()
    }
}

impl ShardReader {
    pub(crate) const fn new(table: Arc<Readable>) -> Self {
        Self { table }
    }

    /// Shows live connections to `visit`, with the names that [`Shard::flush_named`](crate::Shard::flush_named)
    /// takes, looking at `limit` slots at most, or until `visit` breaks: the cursor then stands right behind the
    /// connection that it broke at. `now` is of the clock that the owner reads. As with
    /// [`Shard::dump`](crate::Shard::dump), connections that come and go meanwhile may be missed, none is shown twice
    /// unless its slot was taken anew, and each is shown as it was while its slot was looked at; deadline, state and
    /// counters may be a packet apart.
    pub fn dump(
        &self,
        now: Millis,
        cursor: &mut DumpCursor,
        limit: usize,
        visit: &mut dyn FnMut(ConnectionRef, ConnectionView) -> ControlFlow<()>,
    ) {
        let moment = Clock::moment_since(self.table.origin(), now);
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        let used = self.table.used();
        let end = cursor.slot().saturating_add(limit).min(used);
        let reader = self.table.epochs.participate();
        let mut found: ArrayVec<_, { UNDER_GUARD as usize }> = ArrayVec::new();
        let mut at = cursor.slot();
        while at < end {
            let behind = at.saturating_add(UNDER_GUARD).min(end);
            let guard = reader.pin();
            for index in at..behind {
                self.table.memory.prefetch_view(index.saturating_add(AHEAD));
                found.extend(self.table.memory.view(index, moment));
            }
            drop(guard);
            for (name, view) in found.drain(..) {
                if visit(name, view).is_break() {
                    *cursor = DumpCursor::up_to(name.index() + 1, used);
                    return;
                }
            }
            at = behind;
        }
        *cursor = DumpCursor::up_to(at, used);
    }
}

#[cfg(test)]
mod tests;
