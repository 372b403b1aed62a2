//! The ports that bring a reply home: what a shard draws from for a new translated connection ([`weir_nat::slices`]).
//!
//! Under the scheme `symmetric` the hash is linear over GF(2) and one to one: the ports whose reply has a given entry of
//! the redirection table are a coset of 2^(16 - k) ports, k being the bits that number the entries, and each entry has
//! another one. The port with a wanted hash follows from the inverse of the hash; nothing is searched. Under the scheme
//! `subscriber` it is all ports of an address, none, or one run in each of four segments.

use weir_nat::End;
use weir_nat::slices::{Homes, PortSlice};
use weir_wire::{Tuple, Tuple4, Tuple6};

use super::subscriber::{Ports, at, slice_ports};
use super::{ShardNumber, Steering, fold};

/// What one shard needs to find its ports; made once.
#[derive(Clone, Debug, Default)]
pub(crate) struct OwnEntries {
    /// Its entries of the redirection table.
    entries: Box<[u16]>,
    /// For each entry that the first of 64 ports leads to: which of them lead to one of its own.
    words: Box<[u64]>,
}

impl OwnEntries {
    pub(crate) fn new(steering: &Steering, number: ShardNumber) -> Self {
        let owns = |hash: u16| at(&steering.table, hash) == number;
        // A table has up to 2048 entries.
        let all = 0..steering.table.len() as u16;
        let word = |entry: u16| {
            (0..64).fold(0, |word, bit| word | u64::from(owns(entry ^ steering.hash.hash(bit))) << bit)
        };
        Self { entries: all.clone().filter(|entry| owns(*entry)).collect(), words: all.map(word).collect() }
    }
}

/// The homes that one shard wants: its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Own<'s> {
    pub(crate) steering: &'s Steering,
    pub(crate) number: ShardNumber,
    pub(crate) entries: &'s OwnEntries,
}

/// A shard's ports of one end of a reply tuple.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Slice<'s> {
    /// Those whose hash has one of its entries, `fold` being that of the tuple with port 0.
    Cosets { own: Own<'s>, fold: u16 },
    /// Those that the owner of the address has.
    OfAddress(Ports),
}

impl Homes for Own<'_> {
    type Slice<'h>
        = Slice<'h>
    where
        Self: 'h;

    fn is_own(&self, reply: &Tuple) -> bool {
        self.steering.home(reply) == self.number
    }

    fn slice(&self, reply: &Tuple, end: End) -> Slice<'_> {
        let zone = self.steering.subscribers_of(reply.zone());
        let ports = zone
            .and_then(|zone| zone.ports(reply, end, self.number, &self.steering.hash, &self.steering.table));
        ports.map_or_else(
            || Slice::Cosets { own: *self, fold: fold(&without_port(reply, end)) },
            Slice::OfAddress,
        )
    }

    fn one_address_in(&self, reply: &Tuple) -> u32 {
        let zone = self.steering.subscribers_of(reply.zone());
        let is_whole = zone.is_some_and(|zone| zone.owns_whole(matches!(reply, Tuple::V4(_))));
        if is_whole { self.steering.shards as u32 } else { 1 }
    }
}

/// The tuple with port or identifier 0 at the end that is translated. An identifier is in the source port.
const fn without_port(reply: &Tuple, end: End) -> Tuple {
    let in_source = reply.is_icmp() || matches!(end, End::Destination);
    match *reply {
        Tuple::V4(tuple) if in_source => Tuple::V4(Tuple4 { src_port: 0, ..tuple }),
        Tuple::V4(tuple) => Tuple::V4(Tuple4 { dst_port: 0, ..tuple }),
        Tuple::V6(tuple) if in_source => Tuple::V6(Tuple6 { src_port: 0, ..tuple }),
        Tuple::V6(tuple) => Tuple::V6(Tuple6 { dst_port: 0, ..tuple }),
    }
}

impl PortSlice for Slice<'_> {
    fn count(&self) -> u32 {
        match self {
            Self::Cosets { own, .. } => {
                // At most as many as there are hashes.
                own.entries.entries.len() as u32 * (65_536 / own.steering.table.len() as u32)
            }
            Self::OfAddress(Ports::All) => 65_536,
            Self::OfAddress(Ports::None) => 0,
            Self::OfAddress(Ports::Slice { shard, slices }) => {
                slice_ports(*shard, *slices).iter().map(|(_, len)| len).sum()
            }
        }
    }

    fn nth(&self, number: u32) -> u16 {
        match self {
            Self::Cosets { own, fold } => {
                let bits = own.steering.table.len().trailing_zeros();
                let entry = own.entries.entries.get((number >> (16 - bits)) as usize).copied().unwrap_or(0);
                // The upper bits of the hash are free: each choice of them is another port of the entry's coset.
                let hash = entry | (number << bits) as u16;
                fold ^ own.steering.hash.fold(hash)
            }
            Self::OfAddress(Ports::Slice { shard, slices }) => {
                let mut number = number;
                for (first, len) in slice_ports(*shard, *slices) {
                    if number < len {
                        return (first + number) as u16;
                    }
                    number -= len;
                }
                0
            }
            Self::OfAddress(Ports::All | Ports::None) => number as u16,
        }
    }

    fn contains(&self, port: u16) -> bool {
        match self {
            Self::Cosets { own, fold } => {
                at(&own.steering.table, own.steering.hash.hash(fold ^ port)) == own.number
            }
            Self::OfAddress(ports) => ports.contain(port),
        }
    }

    fn word(&self, word: u16) -> u64 {
        match self {
            Self::Cosets { own, fold } => {
                let entry = own.steering.hash.hash(fold ^ word << 6);
                let mask = own.entries.words.len() - 1;
                own.entries.words[usize::from(entry) & mask]
            }
            Self::OfAddress(Ports::All) => u64::MAX,
            Self::OfAddress(Ports::None) => 0,
            Self::OfAddress(ports @ Ports::Slice { .. }) => {
                let first = word << 6;
                (0..64).fold(0, |bits, bit| bits | u64::from(ports.contain(first | bit)) << bit)
            }
        }
    }
}

#[cfg(test)]
#[path = "slices_tests.rs"]
mod tests;
