//! What goes from one worker to another: packets that their receiver does not own, and what shards tell each other.
//! A worker posts letters by [`Transmit::post`](super::Transmit::post) and gets them by
//! [`Worker::receive`](super::Worker::receive); who carries them keeps those from one worker to another in their order.

use arrayvec::ArrayVec;
use weir_shard::{Errand, Notice, Reason};

use super::frame::BURST;
use super::packet::Packet;
use super::recirculation::Context;
use super::step::Step;
use super::{DropCause, PortId};

/// Letters of one sender, in the order in which they were posted.
pub type Letters<F> = ArrayVec<Letter<F>, BURST>;

/// One entry of a mailbox.
#[derive(Debug)]
pub enum Letter<F> {
    /// A packet as it came in: it begins at its new worker, which counts it for its flows.
    Packet {
        /// The port it came in by.
        port: PortId,
        /// [`Snapshot::numbering`](super::Snapshot::numbering) that the port's number belongs to.
        numbering: u64,
        /// The packet.
        frame: F,
        /// Why it was sent.
        why: Reason,
    },
    /// A packet in the middle of its way, or the fragments of one.
    Parcel(Box<Parcel<F>>),
    /// Something to know.
    Notice(Notice),
}

impl<F> Letter<F> {
    /// Packets in it that count as handed over.
    #[must_use]
    pub fn packets(&self) -> u64 {
        match self {
            Self::Packet { .. } => 1,
            Self::Parcel(parcel) => parcel.pieces().filter(|piece| !piece.is_tail()).count() as u64,
            Self::Notice(_) => 0,
        }
    }
}

/// A packet that waits at a `ct`, with all that it needs to go on at another worker.
#[derive(Debug)]
pub struct Parcel<F> {
    pub(super) head: Piece<F>,
    /// The other fragments, if it is a datagram, in the order of their offsets.
    pub(super) rest: Vec<Piece<F>>,
    pub(super) task: Task,
    pub(super) why: Reason,
    /// What the numbers of ports and bridges in it belong to.
    pub(super) numbering: u64,
    /// Recirculated copies that may still be made of it.
    pub(super) copies: u32,
    /// Of how many copies it is a copy.
    pub(super) nesting: usize,
}

impl<F> Parcel<F> {
    pub(super) fn pieces(&self) -> impl Iterator<Item = &Piece<F>> {
        core::iter::once(&self.head).chain(&self.rest)
    }
}

/// What the receiver does with a parcel.
#[derive(Debug)]
pub(super) enum Task {
    /// It is a fragment, to wait for the rest of its datagram.
    Meet,
    /// It goes on at its `ct`.
    Track(Errand),
}

/// A packet and what it has still to do, told without any number that only its worker knows.
#[derive(Debug)]
pub(super) struct Piece<F> {
    pub(super) packet: Packet<F>,
    /// From the `ct` on.
    pub(super) steps: Box<[Step]>,
    /// Why it goes nowhere, when it does not.
    pub(super) drop: Option<DropCause>,
    /// The sender's recirculation ids, of the key and of the steps, and what they stand for.
    pub(super) contexts: Vec<(u32, Context)>,
}

impl<F> Piece<F> {
    /// True if the packet has gone everywhere already by copies, and only the tracker is still to see it. The sender
    /// counts the last of the copies as the packet, and this one not at all.
    pub(super) fn is_tail(&self) -> bool {
        let forwards =
            |step: &Step| matches!(step, Step::Output(_) | Step::Truncated { .. } | Step::Recirculate(_));
        self.drop.is_none() && !self.steps.iter().any(forwards)
    }
}
