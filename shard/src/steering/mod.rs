//! Which shard a packet belongs to. The owner of a connection is found from its tuple alone, by the arithmetic that
//! network cards use for receive-side scaling (RSS), so that a card that is set up alike brings a packet to its owner
//! at once. Whoever receives one elsewhere asks [`Steering::home`] and hands it over. Pure functions of tuples: nothing
//! here knows connections, queues or cards.

pub mod toeplitz;

use core::fmt;

use weir_wire::Tuple;

pub use self::toeplitz::KeyWord;

/// Most shards that one datapath has.
pub const MAX_SHARDS: usize = 64;

/// Names one shard of a datapath, from 0 on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardNumber(u8);

impl ShardNumber {
    /// The shard called `number`; `None` from [`MAX_SHARDS`] on.
    #[must_use]
    pub const fn new(number: usize) -> Option<Self> {
        if number < MAX_SHARDS { Some(Self(number as u8)) } else { None }
    }

    /// Its place among the shards.
    #[inline]
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for ShardNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Who owns what. Immutable once packets run; all shards of a datapath have the same.
#[derive(Clone, Debug)]
pub struct Steering {
    word: KeyWord,
    /// Shards by the low bits of the hash; a power of two of entries.
    table: Box<[ShardNumber]>,
    shards: usize,
}

impl Steering {
    /// One shard that owns everything.
    #[must_use]
    pub fn alone() -> Self {
        Self { word: KeyWord::WELL_KNOWN, table: Box::new([ShardNumber(0)]), shards: 1 }
    }

    /// `shards` shards (1 to [`MAX_SHARDS`], what is beyond is cut) under the scheme `symmetric`.
    #[must_use]
    pub fn symmetric(shards: usize, word: KeyWord) -> Self {
        /// Entries, as many as common cards have, and enough for any number of shards to have equal parts.
        const ENTRIES: usize = 512;
        let shards = shards.clamp(1, MAX_SHARDS);
        let table = (0..ENTRIES).map(|entry| ShardNumber((entry % shards) as u8)).collect();
        Self { word, table, shards }
    }

    /// How many shards there are.
    #[inline]
    #[must_use]
    pub const fn shards(&self) -> usize {
        self.shards
    }

    /// The shard that a connection with this tuple, in either direction, belongs to.
    #[inline]
    #[must_use]
    pub fn home(&self, tuple: &Tuple) -> ShardNumber {
        self.at(self.word.hash(fold(tuple)))
    }

    /// The shard that puts the fragments between two addresses together, whichever is the source.
    #[inline]
    #[must_use]
    pub fn home_of_fragments(&self, src: core::net::IpAddr, dst: core::net::IpAddr) -> ShardNumber {
        self.at(self.word.hash(fold_address(src) ^ fold_address(dst)))
    }

    #[inline]
    fn at(&self, hash: u16) -> ShardNumber {
        self.table[usize::from(hash) & (self.table.len() - 1)]
    }
}

/// The exclusive or of a tuple's 16-bit words. An ICMP identifier counts, type and code do not: they differ between a
/// query and its answer.
fn fold(tuple: &Tuple) -> u16 {
    let ports = if tuple.is_icmp() { tuple.src_port() } else { tuple.src_port() ^ tuple.dst_port() };
    fold_address(tuple.src()) ^ fold_address(tuple.dst()) ^ ports
}

fn fold_address(address: core::net::IpAddr) -> u16 {
    match address {
        core::net::IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            u16::from_be_bytes([a, b]) ^ u16::from_be_bytes([c, d])
        }
        core::net::IpAddr::V6(address) => address.segments().into_iter().fold(0, |sum, word| sum ^ word),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_directions_have_one_home_and_every_shard_has_some() {
        let steering = Steering::symmetric(3, KeyWord::WELL_KNOWN);
        let mut seen = [0; 3];
        for port in 1000..4000 {
            let tuple = Tuple::new([10, 0, 0, 1].into(), [192, 0, 2, 7].into(), port, 80, 6, 5).unwrap();
            assert_eq!(steering.home(&tuple), steering.home(&tuple.reversed()));
            seen[steering.home(&tuple).index()] += 1;
        }
        assert!(seen.iter().all(|&count| count > 900), "{seen:?}");
    }
}
