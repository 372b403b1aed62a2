//! Packets as bytes: header views, the one-pass parser, checksums, connection tuples and capture files.
//!
//! Everything here is sans-IO: no clock, no thread, no DPDK. Multi-byte header fields are read and written
//! in network byte order; values that cross this crate's API are host integers unless a name says otherwise.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod build;
pub mod checksum;
pub mod extract;
pub mod header;
pub mod layers;
pub mod numbers;
pub mod pcap;
pub mod tuple;

pub use extract::{ChecksumTrust, Extracted, Invalid};
pub use layers::{Fragment, Layers};
pub use tuple::{Tuple, Tuple4, Tuple6};
