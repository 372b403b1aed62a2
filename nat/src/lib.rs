//! Translation: what a `nat(...)` asks for, which address and port a new connection gets, and the
//! rewriting of headers, checksums and ICMP errors' inner packets. Sans-IO: randomness, hashes and the
//! question "is this tuple free?" are arguments.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod action;
pub mod choose;
pub mod rewrite;

pub use action::{AddressRange, NatAction, NatRange, PortSelection};
pub use choose::{ChooseError, reply_tuple};
pub use rewrite::{Untranslatable, translate, translate_icmp_error};
