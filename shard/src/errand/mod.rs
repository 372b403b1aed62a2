//! Packets and notices that travel between shards, and by which rules. `travel` has what a shard does with them, `asks`
//! how it gets a tuple of another one's, `redirects` what it remembers of those that it has given away, `directory` who
//! expects which data connection.
//!
//! # The protocol
//!
//! A connection lives in one shard, its *owner*, and stands in its table with two tuples. [`Steering`] gives each tuple a
//! *home*. A shard puts a tuple into its table only if it is that tuple's home and has not given it away, or if the home
//! has given it to this shard: then a *redirect* (tuple, owner) stands at the home. So **no tuple is in two tables**:
//! its home decides alone, in one thread, who has it, and looks into its own table and its redirects before it says so.
//!
//! *Look-up.* A packet that finds its tuple in the table of whatever shard it is at is executed there, and nobody is
//! asked. Else it goes to its tuple's home; there to the owner that a redirect names; else to the shard that the
//! directory names, if a data connection is expected; else the home decides what it is. Only where it is decided is
//! anything counted or changed, so each counter moves once.
//!
//! *Asking.* A commit needs both tuples. The original one's home is where the packet is. If the reply tuple's home is
//! another shard, **the packet travels** there with what it asks for ([`Asking`](asks::Asking)), the home puts up a
//! redirect to the asker or refuses, and the packet travels back and is executed anew with the answer in hand: committed,
//! or tried with the next candidate, as if the tuple was found free or taken at home. Nothing was sent before, so nobody
//! outside can answer before the redirect stands: **no reply outruns its redirect**. Whoever comes to the home for this
//! tuple all the same is sent behind the answer, in the same mailbox, and finds the connection.
//!
//! *Challenge.* A redirect may be that of a connection which has expired and was not swept yet. Before a home refuses, the
//! packet goes by the redirect's owner, which ends what has expired. Its release reaches the home ahead of the packet,
//! which asks once more, and the second answer is final.
//!
//! *Draw.* If source translation finds no port with its home here, the packet goes round the other shards, each of which
//! searches among those that have their home there, with its own table, and gives one away. Each sweeps what is due
//! before it passes the packet on; if anything went, the packet goes round once more.
//!
//! *Release.* The owner tells the home when a connection with a redirect ends, whatever the cause ([`Notice`]). A packet
//! that has a tuple given to it and does not need it (its connection exists by now, a limit refuses it, it cannot travel
//! on) gives it back: **no redirect stays for nobody**. A tuple is given away to one asker, who releases it once, so a
//! release can be for nobody else's. Mailboxes keep the order between two shards, and notices go ahead of packets, so a
//! packet which the owner sends back to the home for want of a connection finds the redirect gone. Notices are never
//! lost: one that finds no room waits, and so do the packets behind it. There are no more of them than redirects.
//!
//! *Expected data connections* belong to their control connection's shard. The home of the first packet's tuple finds
//! that shard in the directory and sends the packet there, for a commit together with the redirect of its tuple. If
//! nothing is expected there any more the packet comes back with a mark, and is new at its home.
//!
//! *Ends.* A packet is handed on [`MAX_HOPS`] times at most, asks apart. Asks end: a candidate is given or refused, each
//! within four steps, [`MAX_REFUSALS`](asks::MAX_REFUSALS) refusals are the end of the search, and a draw goes round
//! twice. What is bounded in number beside: redirects by the shard's capacity; a home that is full refuses.
//!
//! [`Steering`]: crate::steering::Steering

mod asks;
pub mod directory;
mod redirects;
mod travel;
use std::collections::VecDeque;

use weir_wire::Tuple;

use self::asks::Asking;
pub use self::directory::Directory;
pub(crate) use self::redirects::Redirects;
use crate::steering::ShardNumber;

/// Most times that a packet is handed on, asks for tuples apart: from where it arrived to its home, to the owner that a
/// redirect names, back if the connection has ended meanwhile, to a control connection's shard and back, with some to
/// spare for connections that come and go while it travels.
pub(crate) const MAX_HOPS: u8 = 8;

/// Why a packet was handed to another shard; counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// It arrived where its tuple has no home.
    Steered,
    /// Its tuple is one of a connection that another shard owns.
    Redirected,
    /// It is an ICMP error about a connection of another shard.
    Related,
    /// It is a data connection's that another shard expects.
    Expected,
    /// It is a fragment, or a datagram that was put together.
    Fragment,
    /// It asks for a tuple whose home is another shard, or comes back with the answer.
    Tuple,
}

impl Reason {
    /// All of them, in the order of [`Reason::index`].
    pub const ALL: [Self; 6] =
        [Self::Steered, Self::Redirected, Self::Related, Self::Expected, Self::Fragment, Self::Tuple];

    /// A number below `ALL.len()`.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Name for counters.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Steered => "steered",
            Self::Redirected => "redirected",
            Self::Related => "related",
            Self::Expected => "expected",
            Self::Fragment => "fragment",
            Self::Tuple => "tuple",
        }
    }
}

/// What a packet that travels is to do where it arrives. Made by a shard together with
/// [`Outcome::Elsewhere`](crate::Outcome::Elsewhere), given to the one that it arrives at by
/// [`Shard::resume`](crate::Shard::resume), or back to the one that made it by
/// [`Shard::abandon`](crate::Shard::abandon) if it cannot travel.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Errand {
    /// Shards that it has been sent to so far: no packet travels for ever.
    pub(crate) hops: u8,
    /// An earlier ct action of the zone has counted the packet.
    pub(crate) again: bool,
    /// It was sent where its data connection is expected, to be executed there.
    pub(crate) expected: bool,
    /// It has come from there, where nothing is expected any more: it is new at its home.
    pub(crate) unexpected: bool,
    /// Tuples that it asks for, or has been given.
    pub(crate) asking: Option<Box<Asking>>,
}

/// What shards tell each other without a packet. None may be lost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Notice {
    /// The connection that the redirect of this tuple stood for is no more.
    Release(Tuple),
}

/// A notice under way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Addressed {
    /// Who is told.
    pub to: ShardNumber,
    /// What.
    pub notice: Notice,
}

/// Notices that wait to be sent. No more than the connections of a shard have tuples of other homes, and packets under
/// way have been given: each of those is released once.
#[derive(Debug, Default)]
pub(crate) struct Notices(VecDeque<Addressed>);

impl Notices {
    /// Notices that an empty queue may keep the memory for.
    const KEPT: usize = 1024;

    fn push(&mut self, to: ShardNumber, notice: Notice) {
        self.0.push_back(Addressed { to, notice });
    }

    fn pop(&mut self) -> Option<Addressed> {
        let next = self.0.pop_front();
        if self.0.is_empty() && self.0.capacity() > Self::KEPT {
            self.0 = VecDeque::new();
        }
        next
    }

    fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests;
