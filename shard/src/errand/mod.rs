//! Packets and notices that travel between shards. A connection belongs to the shard that [`Steering`] names for its
//! original tuple (or that expects it); where a tuple of its own has another home, that home holds a *redirect*, put
//! there while the connection's first packet waits, so that no packet can come to the home before it.
//!
//! [`Steering`]: crate::steering::Steering

mod travel;

use weir_wire::Tuple;

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
