//! What one lcore owns: the connection table, the protocol trackers, timers and zones.
//!
//! A burst meets a [`Shard`] in three stages: [`Shard::prepare`] for every packet, [`Shard::prefetch`] for every
//! packet, [`Shard::execute`] for every packet in order. Between bursts the lcore calls [`Shard::sweep`].
#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod action;
mod clock;
mod conntrack;
pub mod counters;
mod datagram;
mod icmp;
pub mod lookup;
pub mod meta;
pub mod outcome;
pub mod shard;
pub mod state;
pub mod table;
pub mod tcp;
pub mod timeouts;
mod verdict;
pub mod view;
mod wheel;

pub use action::{CtAction, Helper};
pub use clock::Millis;
pub use counters::Counters;
pub use lookup::Lookup;
pub use meta::{ConnectionRef, CtMeta};
pub use outcome::{DropReason, Outcome};
pub use shard::{DumpCursor, Shard, ShardConfig, ShardError};
pub use state::CtState;
pub use tcp::{TcpState, tcp_machine};
pub use timeouts::{Timeout, Timeouts};
pub use view::{ConnectionView, ProtocolState};
