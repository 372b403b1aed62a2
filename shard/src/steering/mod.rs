//! Which shard a packet belongs to. The owner of a connection is found from its tuple alone, by the arithmetic that
//! network cards use for receive-side scaling (RSS), so that a card that is set up alike brings a packet to its owner
//! at once. Whoever receives one elsewhere asks [`Steering::home`] and hands it over. Pure functions of tuples: nothing
//! here knows connections, queues or cards.

mod frame;
pub(crate) mod slices;
mod span;
mod subscriber;
pub mod toeplitz;
mod view;

use core::fmt;
use core::net::IpAddr;

use thiserror::Error;
use weir_wire::Tuple;

pub use self::span::{AddressSpan, SpanError};
pub use self::subscriber::{MAX_SPANS, SEGMENTS, Subscribers};
use self::subscriber::{SubscriberZone, at};
pub use self::toeplitz::{KEY_LEN, KeyWord, SymmetricHash, Toeplitz};
pub use self::view::{Evenness, PoolView, Scheme, SteeringView, ZoneView};

/// Most shards that one datapath has.
pub const MAX_SHARDS: usize = 64;

/// Entries of a redirection table (RETA) unless a card wants another number: as many as common cards have.
pub const TABLE_SIZE: usize = 512;

/// Most entries of a redirection table.
pub const MAX_TABLE_SIZE: usize = 2048;

/// Most zones with the scheme `subscriber`.
pub const MAX_SUBSCRIBER_ZONES: usize = 64;

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

/// How packets are to be steered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SteeringConfig {
    /// How many shards there are, 1 to [`MAX_SHARDS`].
    pub shards: usize,
    /// What the key is made of.
    pub word: KeyWord,
    /// Entries of the redirection table: a power of two up to [`MAX_TABLE_SIZE`], no fewer than shards.
    pub table_size: usize,
    /// Zones with the scheme `subscriber`; all others are symmetric.
    pub subscribers: Vec<(u16, Subscribers)>,
}

/// Why packets cannot be steered so.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SteeringError {
    /// No shards, or too many.
    #[error("{shards} shards; there may be 1 to {MAX_SHARDS}")]
    Shards {
        /// How many were asked for.
        shards: usize,
    },
    /// No size that a redirection table has.
    #[error("a redirection table of {entries} entries; it has a power of two from 1 to {MAX_TABLE_SIZE}")]
    TableSize {
        /// How many were asked for.
        entries: usize,
    },
    /// Some shard would own nothing.
    #[error("a redirection table of {entries} entries is too small for {shards} shards")]
    TableTooSmall {
        /// Entries.
        entries: usize,
        /// Shards.
        shards: usize,
    },
    /// Too many zones have subscribers.
    #[error("more than {MAX_SUBSCRIBER_ZONES} zones are steered by subscriber")]
    TooManyZones,
    /// A zone is named twice.
    #[error("zone {zone} is steered by subscriber twice")]
    ZoneTwice {
        /// The zone.
        zone: u16,
    },
    /// A zone has no public addresses.
    #[error("zone {zone} is steered by subscriber but has no public addresses")]
    NoPool {
        /// The zone.
        zone: u16,
    },
    /// A zone has no inside addresses.
    #[error("zone {zone} is steered by subscriber but has no inside addresses")]
    NoInside {
        /// The zone.
        zone: u16,
    },
    /// A zone has too many runs of addresses.
    #[error("zone {zone} has more than {MAX_SPANS} runs of public or of inside addresses")]
    TooManySpans {
        /// The zone.
        zone: u16,
    },
    /// Too many public addresses in one run.
    #[error("zone {zone}: {span} is too large for a pool; at most an IPv4 /8 or an IPv6 /16")]
    TooWide {
        /// The zone.
        zone: u16,
        /// The run.
        span: AddressSpan,
    },
    /// An address would be public and inside, or is there twice.
    #[error("zone {zone}: {one} and {other} overlap")]
    Overlap {
        /// The zone.
        zone: u16,
        /// The run that begins first.
        one: AddressSpan,
        /// The other one.
        other: AddressSpan,
    },
}

/// Who owns what. Immutable once packets run; all shards of a datapath have the same.
#[derive(Clone, Debug)]
pub struct Steering {
    word: KeyWord,
    hash: SymmetricHash,
    /// Shards by the low bits of the hash; a power of two of entries.
    table: Box<[ShardNumber]>,
    shards: usize,
    /// In the order of their numbers.
    subscribers: Box<[SubscriberZone]>,
}

impl Steering {
    /// One shard that owns everything.
    #[must_use]
    pub fn alone() -> Self {
        Self::uniform(1, KeyWord::WELL_KNOWN, 1)
    }

    /// `shards` shards (1 to [`MAX_SHARDS`], what is beyond is cut) under the scheme `symmetric`.
    #[must_use]
    pub fn symmetric(shards: usize, word: KeyWord) -> Self {
        Self::uniform(shards.clamp(1, MAX_SHARDS), word, TABLE_SIZE)
    }

    /// Entries in turn: no shard has more than one more than another.
    fn uniform(shards: usize, word: KeyWord, entries: usize) -> Self {
        let table = (0..entries).map(|entry| ShardNumber((entry % shards) as u8)).collect();
        Self { word, hash: SymmetricHash::new(word), table, shards, subscribers: Box::default() }
    }

    /// What `config` says.
    ///
    /// # Errors
    /// It cannot be done.
    pub fn new(config: &SteeringConfig) -> Result<Self, SteeringError> {
        let (shards, entries) = (config.shards, config.table_size);
        if !(1..=MAX_SHARDS).contains(&shards) {
            return Err(SteeringError::Shards { shards });
        }
        if !entries.is_power_of_two() || entries > MAX_TABLE_SIZE {
            return Err(SteeringError::TableSize { entries });
        }
        if entries < shards {
            return Err(SteeringError::TableTooSmall { entries, shards });
        }
        if config.subscribers.len() > MAX_SUBSCRIBER_ZONES {
            return Err(SteeringError::TooManyZones);
        }
        let mut steering = Self::uniform(shards, config.word, entries);
        let mut zones = Vec::with_capacity(config.subscribers.len());
        for (zone, addresses) in &config.subscribers {
            if zones.iter().any(|known: &SubscriberZone| known.zone == *zone) {
                return Err(SteeringError::ZoneTwice { zone: *zone });
            }
            zones.push(SubscriberZone::new(*zone, addresses, shards, entries, &steering.hash)?);
        }
        zones.sort_by_key(|zone| zone.zone);
        steering.subscribers = zones.into();
        Ok(steering)
    }

    /// The same with a redirection table of `entries` entries, a power of two up to [`MAX_TABLE_SIZE`]: what the cards
    /// have. A card with a larger table repeats it.
    ///
    /// # Errors
    /// There is no such table, or it has fewer entries than there are shards.
    pub fn with_table_size(&self, entries: usize) -> Result<Self, SteeringError> {
        let subscribers = self.subscribers.iter().map(|zone| (zone.zone, zone.addresses.clone())).collect();
        let (shards, word) = (self.shards, self.word);
        Self::new(&SteeringConfig { shards, word, table_size: entries, subscribers })
    }

    /// How many shards there are.
    #[inline]
    #[must_use]
    pub const fn shards(&self) -> usize {
        self.shards
    }

    /// True if there is one shard, which owns everything.
    #[inline]
    #[must_use]
    pub const fn is_alone(&self) -> bool {
        self.shards == 1
    }

    /// What the key repeats. A secret: not to be shown.
    #[must_use]
    pub const fn word(&self) -> KeyWord {
        self.word
    }

    /// The key that a card is programmed with.
    #[must_use]
    pub const fn key(&self) -> [u8; KEY_LEN] {
        self.word.key()
    }

    /// The redirection table that a card is programmed with: shards by the low bits of the hash.
    #[must_use]
    pub const fn table(&self) -> &[ShardNumber] {
        &self.table
    }

    /// The redirection table of a card that receives from outside in a zone with the scheme `subscriber` and hashes
    /// destination addresses alone with the same key; `None` of any other zone.
    #[must_use]
    pub fn pool_table(&self, zone: u16, is_ipv4: bool) -> Option<&[ShardNumber]> {
        self.subscribers_of(zone).map(|zone| &*zone.pool(is_ipv4).table)
    }

    /// True if a zone has the scheme `subscriber`.
    #[must_use]
    pub fn has_subscribers(&self, zone: u16) -> bool {
        self.subscribers_of(zone).is_some()
    }

    /// The hash that a card with the [key](Self::key) computes of addresses and ports (12 or 36 bytes), as it does for
    /// TCP, UDP and SCTP.
    #[must_use]
    pub fn card_hash(&self, tuple: &Tuple) -> u32 {
        doubled(self.hash.hash(
            fold_address(tuple.src()) ^ fold_address(tuple.dst()) ^ tuple.src_port() ^ tuple.dst_port(),
        ))
    }

    /// The hash that a card with the [key](Self::key) computes of the addresses alone (8 or 32 bytes), as it does for
    /// fragments, ICMP and protocols without ports.
    #[must_use]
    pub fn card_hash_of_addresses(&self, src: IpAddr, dst: IpAddr) -> u32 {
        doubled(self.hash.hash(fold_address(src) ^ fold_address(dst)))
    }

    /// The shard that a card with the [key](Self::key) and the [table](Self::table) sends a packet with this hash to.
    #[inline]
    #[must_use]
    pub fn card_choice(&self, hash: u32) -> ShardNumber {
        at(&self.table, hash as u16)
    }

    /// The shard that a connection with this tuple, in either direction, belongs to.
    ///
    /// Symmetric: by the hash of addresses and ports. An identifier of an ICMP query counts as a port, type and code do
    /// not; protocols without ports have addresses alone. In a zone with the scheme `subscriber`: whom the public
    /// address belongs to (of two the smaller one), else by the hash of the inside address (of two the smaller one),
    /// else symmetric.
    #[inline]
    #[must_use]
    pub fn home(&self, tuple: &Tuple) -> ShardNumber {
        if !self.subscribers.is_empty() {
            return self.home_in_zone(tuple);
        }
        self.symmetric_home(tuple)
    }

    /// The shard that puts the fragments between two addresses together, whichever is the source. Asked before their
    /// zone is known, so of zones with the scheme `subscriber` the first one that knows either address counts.
    #[inline]
    #[must_use]
    pub fn home_of_fragments(&self, src: IpAddr, dst: IpAddr) -> ShardNumber {
        for zone in &self.subscribers {
            if let Some(home) = zone.home_of_addresses(src, dst, &self.hash, &self.table) {
                return home;
            }
        }
        at(&self.table, self.hash.hash(fold_address(src) ^ fold_address(dst)))
    }

    #[inline]
    fn symmetric_home(&self, tuple: &Tuple) -> ShardNumber {
        at(&self.table, self.hash.hash(fold(tuple)))
    }

    fn home_in_zone(&self, tuple: &Tuple) -> ShardNumber {
        self.subscribers_of(tuple.zone())
            .and_then(|zone| zone.home(tuple, &self.hash, &self.table))
            .unwrap_or_else(|| self.symmetric_home(tuple))
    }

    fn subscribers_of(&self, zone: u16) -> Option<&SubscriberZone> {
        let at = self.subscribers.binary_search_by_key(&zone, |zone| zone.zone);
        at.ok().and_then(|at| self.subscribers.get(at))
    }
}

/// With a key that repeats 16 bits, both halves of the hash are the same.
const fn doubled(hash: u16) -> u32 {
    (hash as u32) << 16 | hash as u32
}

/// The exclusive or of a tuple's 16-bit words. An ICMP identifier counts, type and code do not: they differ between a
/// query and its answer.
#[inline]
fn fold(tuple: &Tuple) -> u16 {
    let ports = if tuple.is_icmp() { tuple.src_port() } else { tuple.src_port() ^ tuple.dst_port() };
    fold_address(tuple.src()) ^ fold_address(tuple.dst()) ^ ports
}

#[inline]
fn fold_address(address: IpAddr) -> u16 {
    fold_bits(span::bits_of(address))
}

/// The exclusive or of the eight 16-bit words of a number.
#[inline]
const fn fold_bits(bits: u128) -> u16 {
    let bits = bits as u64 ^ (bits >> 64) as u64;
    let bits = bits as u32 ^ (bits >> 32) as u32;
    bits as u16 ^ (bits >> 16) as u16
}

#[cfg(test)]
mod tests;
