//! Application-layer gateways: protocols that announce addresses and ports of further connections in their payload.
//! Here payloads are read and replacement texts are written, nothing else; who expects what, and which numbers a TCP
//! stream has after an edit, is the tracker's affair (`weir-shard`). All input is hostile: reading is linear in the
//! payload's length, keeps nothing, and never fails but by saying so.

pub mod ftp;
pub mod tftp;

use arrayvec::{ArrayString, ArrayVec};

/// Longest text that stands in place of an announced address and port: an IPv6 address (39), a delimiter and a port.
pub const MAX_TEXT: usize = 48;

/// Announcements that one segment may hold, and places of it that may be changed.
pub const MAX_EDITS: usize = 4;

/// A replacement text.
pub type Text = ArrayString<MAX_TEXT>;

/// One place of a payload that is to read differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replacement {
    /// First byte, from the start of the TCP payload.
    pub at: u16,
    /// Bytes to remove; may be 0.
    pub remove: u16,
    /// What to put there; may be empty.
    pub text: Text,
}

/// What is to change in one payload: ascending, without overlap.
pub type Edits = ArrayVec<Replacement, MAX_EDITS>;
