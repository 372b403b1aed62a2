//! A safe wrapper of DPDK: the environment (EAL), packet pools, packets, bursts and ports.
//!
//! Users of this crate write no `unsafe`. Ownership does the work: a [`Mbuf`] is one packet and frees itself, a
//! queue handle belongs to one thread, a [`Port`] stops, closes and detaches its device when its last handle goes,
//! and everything made from an [`Eal`] keeps it alive. Errors carry DPDK's own words, taken from its log.
//!
//! Three rules of DPDK shape the interface: EAL starts once per process; a queue is polled by one thread at a time;
//! memory of a pool may not go away while a packet of it exists. The last one is kept without lifetimes on packets:
//! a pool that is dropped while packets are out stays in memory, and EAL with it.
#![warn(missing_docs)]

mod af_packet;
mod burst;
pub mod devargs;
mod eal;
mod interface;
mod log;
mod mbuf;
mod mend;
pub mod offload;
mod pool;
pub mod port;
mod queue;
pub mod rss;
pub mod source;

pub use burst::{BURST, Burst};
pub use eal::{Eal, EalConfig, EalError, Profile, ThreadGuard, tsc, tsc_hz};
pub use log::{LogLine, LogSink, Severity};
pub use mbuf::{ChecksumStatus, Mbuf, MbufError};
pub use pool::{MAX_DATA_ROOM, Pool, PoolError};
pub use port::{Port, PortConfig, PortError};
pub use queue::{RxCounters, RxQueue, TxQueue};
