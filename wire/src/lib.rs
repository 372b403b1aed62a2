//! Packets as bytes: header views, the one-pass parser, checksums, connection tuples and capture files.
//!
//! Everything here is sans-IO: no clock, no thread, no DPDK. Multi-byte header fields are read and written
//! in network byte order; values that cross this crate's API are host integers unless a name says otherwise.
//!
//! A frame is parsed once; everything else starts from the offsets found then:
//!
//! ```
//! use weir_wire::build::PacketBuilder;
//! use weir_wire::header::Udp;
//! use weir_wire::{ChecksumTrust, Extracted, Layers, Tuple};
//!
//! let frame = PacketBuilder::new().ipv4([192, 168, 1, 1], [192, 168, 1, 2]).udp(5353, 53).build();
//! let layers = Layers::parse(&frame);
//! assert_eq!(Udp::new_checked(layers.l4_bytes(&frame))?.dst_port(), 53);
//!
//! let Ok(Extracted::Packet(tuple)) = Tuple::extract(&frame, &layers, 7, ChecksumTrust::NONE) else {
//!     panic!("a whole packet with right checksums has a tuple");
//! };
//! assert_eq!(tuple.reversed().to_string(), "src=192.168.1.2,dst=192.168.1.1,sport=53,dport=5353");
//! # Ok::<(), weir_wire::header::HeaderError>(())
//! ```
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod build;
pub mod checksum;
pub mod extract;
pub mod fragment;
pub mod header;
pub mod layers;
pub mod numbers;
pub mod pcap;
pub mod tuple;

pub use extract::{ChecksumTrust, Extracted, Invalid};
pub use layers::{Fragment, Layers};
pub use tuple::{Tuple, Tuple4, Tuple6};
