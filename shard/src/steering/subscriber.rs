//! The scheme `subscriber` of a zone: a public address names its owner, an inside address is hashed alone. Called by
//! [`Steering`](super::Steering), which answers for all other tuples.
//!
//! Public addresses go to shards by entries of a redirection table, as a card with a hash of the destination alone
//! would do it. Entries are dealt so that each shard has as many addresses as any other. Where that cannot give one to
//! each, as with fewer addresses than shards, every address is cut into *slices*: of each of [`SEGMENTS`]' segments of
//! ports shard n has the n-th of as many equal runs as there are shards. The address as a whole still has an
//! owner: fragments meet there, and protocols without ports belong to it. Slices know nothing of a translation's range
//! of ports: of one that is narrower than 1024 to 65535 some shards may have none, and ask the others.

use core::net::IpAddr;

use weir_nat::End;
use weir_wire::Tuple;

use super::span::bits_of;
use super::toeplitz::SymmetricHash;
use super::{AddressSpan, ShardNumber, SteeringError, fold_bits};

/// Most spans that a zone has of public, and as many of inside addresses.
pub const MAX_SPANS: usize = 256;

/// Where segments of ports begin that are each cut into slices: as ports are chosen within classes (1 to 511, 600 to
/// 1023, 1024 to 65535), each shard must have some of each. An identifier of ICMP is cut like a port.
pub const SEGMENTS: [u32; 5] = [0, 512, 600, 1024, 65_536];

/// Which addresses a zone with the scheme `subscriber` has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subscribers {
    /// Public ones, that connections are translated to.
    pub pool: Vec<AddressSpan>,
    /// The subscribers' own.
    pub inside: Vec<AddressSpan>,
}

/// A zone's addresses, ready to be looked up.
#[derive(Clone, Debug)]
pub(super) struct SubscriberZone {
    pub(super) zone: u16,
    /// As configured, to be made again for another size of table.
    pub(super) addresses: Subscribers,
    /// Of IPv4 and IPv6.
    pools: [Pool; 2],
    inside: [Spans; 2],
}

/// The public addresses of one family.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    spans: Spans,
    /// Owners of whole addresses by the low bits of their hash.
    pub(super) table: Box<[ShardNumber]>,
    /// How many addresses have each entry.
    pub(super) addresses: Box<[u128]>,
    /// The number of shards where addresses are cut into slices.
    pub(super) slices: Option<u32>,
}

/// Disjoint runs of addresses in order.
#[derive(Clone, Debug)]
pub(super) struct Spans(Box<[(u128, u128)]>);

/// An address, and the port there if the protocol has ports.
type Endpoint = (u128, Option<u16>);

impl SubscriberZone {
    pub(super) fn new(
        zone: u16,
        addresses: &Subscribers,
        shards: usize,
        entries: usize,
        hash: &SymmetricHash,
    ) -> Result<Self, SteeringError> {
        if addresses.pool.is_empty() {
            return Err(SteeringError::NoPool { zone });
        }
        if addresses.inside.is_empty() {
            return Err(SteeringError::NoInside { zone });
        }
        if addresses.pool.len().max(addresses.inside.len()) > MAX_SPANS {
            return Err(SteeringError::TooManySpans { zone });
        }
        if let Some(span) = addresses.pool.iter().find(|span| is_too_wide(span)) {
            return Err(SteeringError::TooWide { zone, span: *span });
        }
        let mut all: Vec<&AddressSpan> = addresses.pool.iter().chain(&addresses.inside).collect();
        all.sort_by_key(|span| (span.first(), span.last()));
        for (one, next) in all.iter().zip(all.iter().skip(1)) {
            if one.first().is_ipv4() == next.first().is_ipv4() && next.first() <= one.last() {
                return Err(SteeringError::Overlap { zone, one: **one, other: **next });
            }
        }
        let of = |spans: &[AddressSpan], is_ipv4: bool| {
            let mut spans: Vec<_> = spans
                .iter()
                .filter(|span| span.first().is_ipv4() == is_ipv4)
                .map(AddressSpan::bits)
                .collect();
            spans.sort_unstable();
            Spans(spans.into())
        };
        Ok(Self {
            zone,
            addresses: addresses.clone(),
            pools: [true, false].map(|v4| Pool::new(of(&addresses.pool, v4), shards, entries, hash)),
            inside: [true, false].map(|v4| of(&addresses.inside, v4)),
        })
    }

    /// The owner of a tuple; `None` if neither of its addresses is known here.
    pub(super) fn home(
        &self,
        tuple: &Tuple,
        hash: &SymmetricHash,
        table: &[ShardNumber],
    ) -> Option<ShardNumber> {
        let (src_port, dst_port) = if tuple.has_ports() {
            (Some(tuple.src_port()), Some(tuple.dst_port()))
        } else if tuple.is_icmp() {
            (Some(tuple.src_port()), Some(tuple.src_port()))
        } else {
            (None, None)
        };
        let (src, dst) = ((bits_of(tuple.src()), src_port), (bits_of(tuple.dst()), dst_port));
        self.home_between(matches!(tuple, Tuple::V4(_)), src, dst, hash, table)
    }

    /// The owner of addresses as a whole.
    pub(super) fn home_of_addresses(
        &self,
        src: IpAddr,
        dst: IpAddr,
        hash: &SymmetricHash,
        table: &[ShardNumber],
    ) -> Option<ShardNumber> {
        self.home_between(src.is_ipv4(), (bits_of(src), None), (bits_of(dst), None), hash, table)
    }

    fn home_between(
        &self,
        is_ipv4: bool,
        src: Endpoint,
        dst: Endpoint,
        hash: &SymmetricHash,
        table: &[ShardNumber],
    ) -> Option<ShardNumber> {
        let pool = self.pool(is_ipv4);
        let public = match pool.namer(src.0, dst.0) {
            Some(Namer::Source) => Some(src),
            Some(Namer::Destination) => Some(dst),
            // Only the whole address is the same in both directions.
            Some(Namer::Both) => Some((src.0, None)),
            None => None,
        };
        if let Some(end) = public {
            return Some(pool.owner(end, hash));
        }
        let inside = &self.inside[usize::from(!is_ipv4)];
        let address = match (inside.contains(src.0), inside.contains(dst.0)) {
            (true, true) => src.0.min(dst.0),
            (true, false) => src.0,
            (false, true) => dst.0,
            (false, false) => return None,
        };
        Some(at(table, hash.hash(fold_bits(address))))
    }

    /// The ports of one end of a reply tuple that `shard` owns, whatever the tuple has there; `None` if neither of its
    /// addresses is known here.
    pub(super) fn ports(
        &self,
        reply: &Tuple,
        end: End,
        shard: ShardNumber,
        hash: &SymmetricHash,
        table: &[ShardNumber],
    ) -> Option<Ports> {
        let owner = self.home(reply, hash, table)?;
        let pool = self.pool(matches!(reply, Tuple::V4(_)));
        let named_by_port = match pool.namer(bits_of(reply.src()), bits_of(reply.dst())) {
            Some(Namer::Source) => reply.is_icmp() || reply.has_ports() && end == End::Destination,
            Some(Namer::Destination) => reply.is_icmp() || reply.has_ports() && end == End::Source,
            Some(Namer::Both) | None => false,
        };
        Some(match pool.slices {
            Some(slices) if named_by_port => Ports::Slice { shard, slices },
            _ if owner == shard => Ports::All,
            _ => Ports::None,
        })
    }

    /// True if public addresses are not cut into slices.
    pub(super) const fn owns_whole(&self, is_ipv4: bool) -> bool {
        self.pool(is_ipv4).slices.is_none()
    }

    pub(super) const fn pool(&self, is_ipv4: bool) -> &Pool {
        let [v4, v6] = &self.pools;
        if is_ipv4 { v4 } else { v6 }
    }
}

/// Which address names the owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Namer {
    Source,
    Destination,
    /// They are the same public address.
    Both,
}

#[inline]
pub(super) fn at(table: &[ShardNumber], hash: u16) -> ShardNumber {
    table[usize::from(hash) & (table.len() - 1)]
}

impl Pool {
    fn new(spans: Spans, shards: usize, entries: usize, hash: &SymmetricHash) -> Self {
        let mut addresses = vec![0_u128; entries].into_boxed_slice();
        for (first, last) in &spans.0 {
            count(*first, *last, hash, &mut addresses);
        }
        let table = deal(&addresses, shards);
        let used = addresses.iter().filter(|count| **count != 0).count();
        let slices = u32::try_from(shards).ok().filter(|_| used < shards);
        Self { spans, table, addresses, slices }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.spans.0.is_empty()
    }

    /// Of two public addresses the smaller one, so that both directions agree, and fragments unless it is cut.
    fn namer(&self, src: u128, dst: u128) -> Option<Namer> {
        match (self.spans.contains(src), self.spans.contains(dst)) {
            (true, true) if src == dst => Some(Namer::Both),
            (true, true) if src > dst => Some(Namer::Destination),
            (true, _) => Some(Namer::Source),
            (false, true) => Some(Namer::Destination),
            (false, false) => None,
        }
    }

    fn owner(&self, (address, port): Endpoint, hash: &SymmetricHash) -> ShardNumber {
        match (self.slices, port) {
            (Some(slices), Some(port)) => slice_of(port, slices),
            _ => at(&self.table, hash.hash(fold_bits(address))),
        }
    }
}

/// What a shard has of a public address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ports {
    /// All of it.
    All,
    /// Nothing.
    None,
    /// One of so many slices.
    Slice { shard: ShardNumber, slices: u32 },
}

impl Ports {
    pub(super) fn contain(self, port: u16) -> bool {
        match self {
            Self::All => true,
            Self::None => false,
            Self::Slice { shard, slices } => slice_of(port, slices) == shard,
        }
    }
}

/// The owner of a port of an address that is cut.
fn slice_of(port: u16, slices: u32) -> ShardNumber {
    let port = u32::from(port);
    let (first, end) = SEGMENTS
        .iter()
        .zip(&SEGMENTS[1..])
        .find(|(_, end)| port < **end)
        .map_or((0, 65_536), |(first, end)| (*first, *end));
    // Below `slices`, which is a number of shards.
    ShardNumber(((port - first) * slices / (end - first)) as u8)
}

/// The ports of a shard's slice in each segment: the first one and how many.
pub(super) fn slice_ports(shard: ShardNumber, slices: u32) -> [(u32, u32); 4] {
    core::array::from_fn(|segment| {
        let (first, len) = (SEGMENTS[segment], SEGMENTS[segment + 1] - SEGMENTS[segment]);
        let cut = |number: u32| (number * len).div_ceil(slices);
        let number = u32::from(shard.0);
        (first + cut(number), cut(number + 1) - cut(number))
    })
}

impl Spans {
    fn contains(&self, address: u128) -> bool {
        let behind = self.0.partition_point(|(first, _)| *first <= address);
        behind.checked_sub(1).and_then(|at| self.0.get(at)).is_some_and(|(_, last)| address <= *last)
    }
}

/// Adds how many addresses of `first..=last` have each entry.
fn count(mut first: u128, last: u128, hash: &SymmetricHash, entries: &mut [u128]) {
    let mask = entries.len() - 1;
    loop {
        // The largest aligned block of 2^bits addresses that begins here and does not go beyond the last one.
        let left = last - first;
        let fits = left.checked_add(1).map_or(127, u128::ilog2);
        let bits = first.trailing_zeros().min(fits);
        if bits >= 16 {
            // Whatever the rest is, the lowest word comes by all its values equally often.
            for entry in entries.iter_mut() {
                *entry += (1 << bits) / (mask as u128 + 1);
            }
        } else {
            for address in first..=first | ((1 << bits) - 1) {
                entries[usize::from(hash.hash(fold_bits(address))) & mask] += 1;
            }
        }
        // No span is so wide that this overflows.
        let block = 1 << bits;
        if left + 1 == block {
            return;
        }
        first += block;
    }
}

/// Deals entries to shards: the ones with most addresses first, each to the shard that has fewest addresses so far,
/// among equals to that with fewest entries.
fn deal(addresses: &[u128], shards: usize) -> Box<[ShardNumber]> {
    let mut order: Vec<usize> = (0..addresses.len()).collect();
    order.sort_by_key(|entry| (core::cmp::Reverse(addresses[*entry]), *entry));
    let mut has: Vec<(u128, usize, usize)> = (0..shards).map(|shard| (0, 0, shard)).collect();
    let mut table = vec![ShardNumber(0); addresses.len()].into_boxed_slice();
    for entry in order {
        if let Some(least) = has.iter_mut().min() {
            least.0 += addresses[entry];
            least.1 += 1;
            table[entry] = ShardNumber(least.2 as u8);
        }
    }
    table
}

/// Counting addresses must not take long, nor their sum overflow: an IPv4 /8, an IPv6 /16.
fn is_too_wide(span: &AddressSpan) -> bool {
    let (first, last) = span.bits();
    last - first >= 1 << if span.first().is_ipv4() { 24 } else { 112 }
}
