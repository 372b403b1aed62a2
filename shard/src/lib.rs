//! What one lcore owns: the connection table, the protocol trackers, timers and zones.
//!
//! A burst meets a [`Shard`] in three stages: [`Shard::prepare`] for every packet, [`Shard::prefetch`] for every
//! packet, [`Shard::execute`] for every packet in order. Before the last of them [`Shard::foresee`] prepares for
//! connections that begin. What nearly all packets are has shorter stages of its own ([`plain`]). Between bursts the lcore calls [`Shard::sweep`].
//!
//! ```
//! use weir_shard::{CtAction, CtMeta, CtState, Outcome, Shard, ShardConfig};
//! use weir_wire::Layers;
//! use weir_wire::build::PacketBuilder;
//!
//! let config = ShardConfig { capacity: 1000, max_connections: 1000, ..ShardConfig::default() };
//! let mut shard = Shard::new(config, [1, 2, 3, 4])?;
//! // ct(commit), with the clock at `now` milliseconds.
//! let mut track = |now: u64, frame: &mut [u8]| {
//!     let (layers, action) = (Layers::parse(frame), CtAction { commit: true, ..CtAction::default() });
//!     let mut meta = CtMeta::default();
//!     let mut lookup = shard.prepare(frame, &layers, action.zone, &meta, false);
//!     shard.prefetch(&mut lookup);
//!     let outcome = shard.execute(now, frame, &layers, &lookup, &action, &mut meta);
//!     assert_eq!(outcome, Outcome::Continue { rewritten: false });
//!     meta.state
//! };
//! let (inside, outside) = ([192, 168, 1, 1], [192, 168, 1, 2]);
//! let mut query = PacketBuilder::new().ipv4(inside, outside).udp(5353, 53).build();
//! let mut answer = PacketBuilder::new().ipv4(outside, inside).udp(53, 5353).build();
//! assert_eq!(track(0, &mut query), CtState::TRK.with(CtState::NEW));
//! assert_eq!(track(20, &mut answer), CtState::TRK.with(CtState::EST).with(CtState::RPL));
//! assert_eq!(shard.len(), 1);
//! assert_eq!(shard.sweep(3_600_000, 32), 1, "an hour of silence later");
//! # Ok::<(), weir_shard::ShardError>(())
//! ```
#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod action;
mod admission;
mod assist;
mod clock;
mod companions;
mod conntrack;
pub mod counters;
mod datagram;
pub mod epoch;
pub mod errand;
pub mod events;
pub mod exhaustion;
mod expectations;
pub mod fragments;
mod icmp;
pub mod leases;
pub mod lookup;
pub mod mailbox;
pub mod meta;
pub mod outcome;
pub mod plain;
pub mod reader;
pub mod sctp;
mod sequence;
pub mod shard;
mod shares;
pub mod state;
pub mod steering;
mod sync;
pub mod table;
pub mod tcp;
pub mod timeouts;
mod translation;
mod verdict;
pub mod view;
mod wheel;
mod zones;

pub use action::{CtAction, Helper};
pub use clock::Millis;
pub use counters::Counters;
pub use errand::{Addressed, Directory, Errand, Notice, Reason};
pub use events::{Changes, EndCause, Event, EventBatch, EventKind};
pub use exhaustion::Exhaustion;
pub use fragments::{FragmentCounters, FragmentSettings, Fragments};
pub use leases::Leases;
pub use lookup::Lookup;
pub use meta::{ConnectionRef, CtMeta};
pub use outcome::{DropReason, Outcome};
pub use plain::{Met, PlainLookup, PlainRun};
pub use reader::ShardReader;
pub use sctp::{SctpState, sctp_machine};
pub use shard::{DumpCursor, Shard, ShardConfig, ShardError};
pub use state::CtState;
pub use steering::{ShardNumber, Steering};
pub use table::bucket::HINTS;
pub use tcp::{TcpState, WindowScale, tcp_machine};
pub use timeouts::{Timeout, Timeouts};
pub use view::{Carried, ConnectionView, ExpectationView, ProtocolState, Traffic};
pub use zones::TooManyPolicies;
