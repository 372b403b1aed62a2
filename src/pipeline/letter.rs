//! What goes from one worker to another: packets that their receiver does not own, and what shards tell each other.

use weir_shard::{Errand, Notice, Reason};

use super::PortId;
use super::worker::Packet;

/// One entry of a mailbox.
#[derive(Debug)]
pub enum Letter<F> {
    /// A packet as it came in: it begins at its new worker, which counts it for its flows.
    Packet {
        /// The port it came in by.
        port: PortId,
        /// The packet.
        frame: F,
        /// Why it was sent.
        why: Reason,
    },
    /// A packet in the middle of its way.
    Parcel(Box<Parcel<F>>),
    /// Something to know.
    Notice(Notice),
}

/// A packet that waits at a `ct`, with all that it needs to go on at another worker.
#[derive(Debug)]
pub struct Parcel<F> {
    pub(super) packet: Packet<F>,
    pub(super) errand: Errand,
    pub(super) why: Reason,
}
