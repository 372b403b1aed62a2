//! What a flow can match: the key of a packet, field by field.

pub mod key;

pub use key::{Key, Mask};
