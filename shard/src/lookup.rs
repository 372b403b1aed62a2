//! The first two of the three stages in which a burst meets the table: what a packet is, and where its connection
//! may be. Both only ask the cache for lines; the third stage, which reads them, decides.

use weir_wire::extract::{ChecksumTrust, Extracted};
use weir_wire::{Invalid, Layers, Tuple};

use crate::meta::{ConnectionRef, CtMeta};
use crate::shard::Shard;
use crate::table::bucket::Slot;

/// A packet on its way to [`Shard::execute`].
#[derive(Clone, Copy, Debug)]
pub struct Lookup {
    pub(crate) target: Target,
    /// Of the tuple to look up.
    pub(crate) hash: u64,
    pub(crate) candidate: Option<Slot>,
    new_connection: Option<u64>,
}

/// What is to be looked up.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    /// Nothing: the packet's connection is known.
    Known(ConnectionRef),
    /// The packet's own tuple.
    Packet(Tuple),
    /// The tuple of the direction that an ICMP error travels in.
    Related { tuple: Tuple, inner_layers: Layers },
    /// Nothing: the packet is invalid.
    Invalid(Invalid),
}

impl Lookup {
    /// A hash that both directions of a connection share, if the packet may be the first of one: it has a tuple of
    /// its own, and stage 2 found no sign of it in the table. Two packets of a burst with the same value have to be
    /// worked in order. (A connection that has just expired still shows; sweep before the burst.)
    #[inline]
    #[must_use]
    pub const fn new_connection_hash(&self) -> Option<u64> {
        self.new_connection
    }

    /// Why the packet has no tuple, if it has none.
    #[must_use]
    pub const fn invalid(&self) -> Option<Invalid> {
        match self.target {
            Target::Invalid(cause) => Some(cause),
            _ => None,
        }
    }
}

impl Shard {
    /// Stage 1: extracts and validates the tuple, hashes it and asks for the index bucket. A packet whose `meta`
    /// names its connection in this zone already needs no look-up. `layers` must be the parse of `frame`.
    #[inline]
    #[must_use]
    pub fn prepare(
        &self,
        frame: &[u8],
        layers: &Layers,
        zone: u16,
        meta: &CtMeta,
        checksum_trusted: bool,
    ) -> Lookup {
        let idle = |target| Lookup { target, hash: 0, candidate: None, new_connection: None };
        if let Some(connection) = meta.connection_in(zone) {
            return idle(Target::Known(connection));
        }
        let trust = if checksum_trusted { ChecksumTrust::ALL } else { ChecksumTrust::NONE };
        let (target, tuple) = match Tuple::extract(frame, layers, zone, trust) {
            Ok(Extracted::Packet(tuple)) => (Target::Packet(tuple), tuple),
            Ok(Extracted::IcmpError { inner, inner_layers }) => {
                let tuple = inner.reversed();
                (Target::Related { tuple, inner_layers }, tuple)
            }
            Err(cause) => return idle(Target::Invalid(cause)),
        };
        let hash = self.table.hash(&tuple);
        self.table.prefetch_bucket(hash);
        Lookup { target, hash, candidate: None, new_connection: None }
    }

    /// Stage 2: compares the bucket's tags and asks for the line of the connection that they point to.
    #[inline]
    pub fn prefetch(&self, lookup: &mut Lookup) {
        match &lookup.target {
            Target::Packet(tuple) | Target::Related { tuple, .. } => {
                lookup.candidate = self.table.candidate(lookup.hash);
                match (lookup.candidate, &lookup.target) {
                    (Some(slot), _) => self.table.prefetch_connection(slot, matches!(tuple, Tuple::V6(_))),
                    (None, Target::Packet(tuple)) => {
                        let reversed = self.table.hash(&tuple.reversed());
                        lookup.new_connection = Some(lookup.hash.wrapping_add(reversed));
                    }
                    _ => {}
                }
            }
            Target::Known(connection) => self.table.prefetch_connection(connection.slot, false),
            Target::Invalid(_) => {}
        }
    }
}
