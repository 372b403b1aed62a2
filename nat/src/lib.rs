//! Translation: what a `nat(...)` asks for, which address and port a new connection gets, and the
//! rewriting of headers, checksums and ICMP errors' inner packets. Sans-IO: randomness, hashes and the
//! question "is this tuple free?" are arguments.
//!
//! ```
//! use weir_nat::{AddressRange, NatAction, NatRange, Occupancy, PortSelection, reply_tuple, translate};
//! use weir_wire::build::PacketBuilder;
//! use weir_wire::{ChecksumTrust, Layers, Tuple};
//!
//! // nat(src=10.0.0.1:5000-50000)
//! let nat = NatAction::Source(NatRange {
//!     addresses: Some(AddressRange::V4([10, 0, 0, 1].into(), [10, 0, 0, 1].into())),
//!     ports: Some((5000, 50000)),
//!     selection: PortSelection::Default,
//!     persistent: false,
//! });
//! let mut frame = PacketBuilder::new().ipv4([192, 168, 1, 1], [192, 168, 1, 2]).udp(40000, 53).build();
//! let layers = Layers::parse(&frame);
//! let tuple_of = |frame: &[u8]| Tuple::extract(frame, &layers, 0, ChecksumTrust::NONE).unwrap().lookup();
//!
//! // Hashes and random numbers are the caller's, as is the table that knows what is free, and what was learned of it.
//! let mut occupancy = Occupancy::default();
//! let (hash, source_hash) = (7, 8);
//! let mut is_free = |reply: &Tuple| reply.dst_port() != 5007;
//! let reply =
//!     reply_tuple(&nat, &tuple_of(&frame), hash, source_hash, &mut || 0, &mut occupancy, &mut is_free)?;
//! translate(&mut frame, &layers, &reply.reversed())?;
//! // It still has a tuple, so its checksums are right.
//! assert_eq!(tuple_of(&frame).to_string(), "src=10.0.0.1,dst=192.168.1.2,sport=5008,dport=53");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod action;
pub mod alg;
pub mod choose;
pub mod occupancy;
pub mod rewrite;
pub mod slices;

pub use action::{AddressRange, NatAction, NatRange, PortSelection};
pub use choose::{ChooseError, Request, reply_tuple, reply_tuple_at};
pub use occupancy::{End, Occupancy};
pub use rewrite::{Untranslatable, translate, translate_icmp_error};
pub use slices::{Homes, InOrder, PortSlice};
