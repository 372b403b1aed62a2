//! The packet pipeline: from a burst of frames to the frames that leave, through the flow tables, the
//! tracker and the caches in front of them. One [`Worker`] belongs to one lcore; nothing here knows DPDK,
//! threads or clocks, so that `weir replay` and the tests run exactly what the lcores run.

pub mod cache;
pub mod classifier;
pub mod counters;
pub mod drop_cause;
pub mod dump;
mod express;
pub mod extract;
pub mod fdb;
pub mod fragments;
pub mod frame;
pub mod group;
mod handover;
pub mod inject;
pub mod letter;
pub mod megaflow;
mod order;
mod outbox;
mod packet;
pub mod payload;
mod plain;
pub mod recirculation;
pub mod rewrite;
pub mod snapshot;
mod steer;
pub mod step;
pub mod trace;
mod trajectory;
pub mod translate;
pub mod worker;

pub use counters::{Counters, PortCounters};
pub use drop_cause::DropCause;
pub use fdb::Fdb;
pub use frame::{BURST, Burst, Frame, HeapFrame, Transmit};
pub use inject::Injection;
pub use letter::{Letter, Letters, Parcel};
pub use megaflow::FlowCopy;
pub use snapshot::{BridgeView, PortEntry, PortId, PublishedSnapshot, Snapshot, SnapshotReader};
pub use worker::{Worker, WorkerConfig};

#[cfg(test)]
mod tests;
