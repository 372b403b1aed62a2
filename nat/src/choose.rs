//! Which address and port a new connection gets. The tracker calls this once for each new translated connection;
//! it knows no table: whether a tuple is free is asked through a function, randomness is drawn through another.
//!
//! The search is bounded by work, [`PROBES`] questions for each end of the tuple that may change, and by [`WALKED`]
//! addresses:
//!
//! * A range of a few combinations of address and port is asked to the last each time.
//! * Of a larger one with no more than [`WALKED`] addresses, each address is asked for a few ports and then what is
//!   left is spent where [`Occupancy`] does not know of every port that it is taken. What is learned stays learned, so
//!   a full address is skipped at once (a range that has run out costs next to nothing, however often it is asked), and
//!   the last free port of a crowded one is found. No more than [`PROBES`] combinations are all asked for at once.
//! * Of still more addresses every one gets an equal share of the questions (of more than [`PROBES`], that many get
//!   one). Half of a share stays near the port to start with, the other half goes where the tuple's hash says: clients
//!   that all come from one port must not all ask about the same few.
//!
//! With several shards a search may be for tuples with the right home alone: [`reply_tuple_at`].

use core::net::Ipv4Addr;

use weir_wire::{Tuple, Tuple4, Tuple6};

use crate::action::{AddressRange, NatAction, NatRange, PortSelection};
use crate::occupancy::{End, Occupancy, Place};
use crate::slices::{Anywhere, Homes};

mod own;

/// How many candidate tuples are asked about in one pass over a range. At some 100 ns for a probe of a large table
/// a refused connection costs its lcore about 0.4 ms.
pub const PROBES: u32 = 4096;

/// Most addresses of a range that are all walked to their last port. With as many boards in use this is some 0.1 ms.
pub const WALKED: u32 = 1024;

/// Combinations of address and port that are asked for each time: less work than remembering them.
const FEW: u32 = 64;

/// Ports tried one after the other before the search jumps and strides, if that is not more than half of an
/// address's probes: neighbours stay neighbours while a range is thinly used, and no cluster of taken ports eats up
/// the probes of a crowded one.
const NEIGHBOURS: u32 = 16;

/// Why a new connection cannot be translated. Its packet must be dropped, never sent as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ChooseError {
    /// No free tuple was found within the budget.
    #[error("no free address and port in the nat range after {probes} probes; widen the range")]
    Exhausted {
        /// How many tuples were asked about.
        probes: u32,
    },
    /// The range's addresses are of another family than the packet's.
    #[error("the nat range and the packet are of different address families; give each family its own flow")]
    FamilyMismatch,
}

/// The reply tuple of a new connection whose first packet has the tuple `original`: the reverse of what that
/// packet is translated to, so that [`Tuple::reversed`] of the result is the translated packet's tuple.
///
/// * `hash` is a keyed hash of `original`; `source_hash` one of its source address alone, by which `persistent`
///   ranges choose the address (to survive restarts, its key must).
/// * `random` is drawn from where a port range says `random`.
/// * `is_free` tells whether no connection has the given reply tuple.
/// * `occupancy` is what earlier calls have learned, to be told of tuples that are released.
///
/// The address is taken by hash over the range; when it has no free port the following ones are tried, the
/// range being a ring. That holds for `persistent` too: it gives up the same address before the connection.
///
/// A port range is searched from `min + hash % size`, or from a random port. Without one, the original port is
/// kept if it is free, else the search stays within its class: 1 to 511, 600 to 1023 (for 512 to 599 too), 1024 to
/// 65535. An ICMP identifier is a port without classes. Other protocols have addresses only.
///
/// A destination range changes the destination port only if it has ports; when nothing is free, the source port
/// is changed too. The null address (0.0.0.0 or ::), or none, keeps the address, and the port unless that is
/// taken. [`NatAction::Apply`] gives the plain reverse without asking.
///
/// # Errors
/// See [`ChooseError`].
pub fn reply_tuple(
    action: &NatAction,
    original: &Tuple,
    hash: u64,
    source_hash: u64,
    random: &mut impl FnMut() -> u32,
    occupancy: &mut Occupancy,
    is_free: &mut impl FnMut(&Tuple) -> bool,
) -> Result<Tuple, ChooseError> {
    let request = Request { action, original, hash, source_hash };
    reply_tuple_at(&request, &Anywhere, random, occupancy, is_free)
}

/// What a reply tuple is asked for; as the arguments of [`reply_tuple`].
#[derive(Clone, Copy, Debug)]
pub struct Request<'r> {
    /// The translation.
    pub action: &'r NatAction,
    /// The tuple of the new connection's first packet.
    pub original: &'r Tuple,
    /// A keyed hash of it; the same at all shards where they must agree.
    pub hash: u64,
    /// One of its source address.
    pub source_hash: u64,
}

impl Request<'_> {
    /// The reply tuple that [`reply_tuple`] asks about first, to be looked up before it is asked for: where it is free,
    /// it is what the search gives, unless that knows better. `None` where the search has to say what is wrong.
    /// [`NatAction::Apply`] has one too.
    #[must_use]
    pub fn first_reply(&self, random: &mut impl FnMut() -> u32) -> Option<Tuple> {
        self.first_reply_at(&Anywhere, random)
    }

    /// As [`Request::first_reply`], but of [`reply_tuple_at`]; `None` too where finding it takes long. That of
    /// [`NatAction::Apply`] may have any home.
    #[must_use]
    pub fn first_reply_at<H: Homes>(&self, homes: &H, random: &mut impl FnMut() -> u32) -> Option<Tuple> {
        let (range, end) = match self.action {
            NatAction::Apply => return Some(self.original.reversed()),
            NatAction::Source(range) => (range, End::Source),
            NatAction::Destination(range) => (range, End::Destination),
        };
        let hash = if range.persistent { self.source_hash } else { self.hash };
        let addresses = AddressRing::new(range, self.original, end, hash).ok()?;
        let keeps = addresses.keep && (H::ANY || homes.is_own(&self.original.reversed()));
        let translated = if keeps {
            *self.original
        } else {
            let ports = PortRing::new(range, self.original, end, self.hash, random);
            let candidate = |address, port| with_end(self.original, end, address, port);
            if H::ANY {
                let address = addresses.first.wrapping_add(addresses.start);
                candidate(address, ports.kept.unwrap_or(ports.at(0)))
            } else {
                own::first_at_home(homes, &addresses, &ports, end, &candidate)?
            }
        };
        let reply = translated.reversed();
        (reply != *self.original).then_some(reply)
    }

    /// True if there are enough ports to choose from that each of many shards may well have some: then draw one that
    /// leads home. False where a single tuple, or one of a few, is wanted: those are tried in order, whatever home each
    /// has ([`InOrder`](crate::slices::InOrder)). That goes for destinations too, which ports must not choose among.
    #[must_use]
    pub fn draws_ports(&self) -> bool {
        let NatAction::Source(range) = self.action else { return false };
        let has_ports = self.original.has_ports() || self.original.is_icmp();
        has_ports && range.ports.is_none_or(|(min, max)| u32::from(max.saturating_sub(min)) >= FEW)
    }
}

/// As [`reply_tuple`], giving no tuple but one that `homes` wants. The search is the same but for the ports: the
/// original one is kept where it is free and leads home, others are drawn by number from the slice that does (`random`
/// by chance, all else by the hash), and every free one of the slice is found in the end. Addresses that have none are
/// passed over.
///
/// # Errors
/// See [`ChooseError`]; other homes may have free tuples when this one is exhausted.
pub fn reply_tuple_at<H: Homes>(
    request: &Request<'_>,
    homes: &H,
    random: &mut impl FnMut() -> u32,
    occupancy: &mut Occupancy,
    is_free: &mut impl FnMut(&Tuple) -> bool,
) -> Result<Tuple, ChooseError> {
    let Request { action, original, hash, source_hash } = *request;
    let (range, end) = match action {
        NatAction::Apply => return Ok(original.reversed()),
        NatAction::Source(range) => (range, End::Source),
        NatAction::Destination(range) => (range, End::Destination),
    };
    let addresses =
        AddressRing::new(range, original, end, if range.persistent { source_hash } else { hash })?;
    let mut search = Search { own: original, homes, occupancy, is_free, probes: 0, limit: PROBES };
    let mut found = None;
    if addresses.keep && (H::ANY || homes.is_own(&original.reversed())) {
        found = search.ask(*original);
        search.limit += search.probes;
    }
    let ports = PortRing::new(range, original, end, hash, random);
    if found.is_none() {
        let candidate = |address, port| with_end(original, end, address, port);
        found = search.run(&addresses, &ports, end, &candidate);
    }
    if found.is_none() && end == End::Destination && (original.has_ports() || original.is_icmp()) {
        let source_ports = PortRing::of_class(original, original.src_port(), hash);
        let candidate = |address, source_port| {
            with_source_port(&with_end(original, end, address, ports.at(0)), source_port)
        };
        search.limit = search.probes + PROBES;
        found = search.run(&addresses, &source_ports, End::Source, &candidate);
    }
    let probes = search.probes;
    found.ok_or(ChooseError::Exhausted { probes })
}

/// A search under way.
struct Search<'s, F, H> {
    /// The new connection's own tuple, which cannot be its reply's too.
    own: &'s Tuple,
    homes: &'s H,
    occupancy: &'s mut Occupancy,
    is_free: &'s mut F,
    /// Questions so far, and how many there may be.
    probes: u32,
    limit: u32,
}

impl<F: FnMut(&Tuple) -> bool, H: Homes> Search<'_, F, H> {
    /// The reply tuple of this translated one, if it is free.
    fn ask(&mut self, translated: Tuple) -> Option<Tuple> {
        self.probes += 1;
        let reply = translated.reversed();
        (reply != *self.own && (self.is_free)(&reply)).then_some(reply)
    }

    /// Keeps in mind that a reply tuple was taken. The connection's own is not in the table; of one with another home
    /// nobody would say when it is free again.
    fn learn(&mut self, reply: &Tuple, end: End) {
        if reply != self.own && self.homes.is_own(reply) {
            self.occupancy.learn(reply, end);
        }
    }

    /// Walks the addresses and their ports; `candidate` makes the translated tuple.
    fn run(
        &mut self,
        addresses: &AddressRing,
        ports: &PortRing,
        end: End,
        candidate: &impl Fn(u128, u16) -> Tuple,
    ) -> Option<Tuple> {
        let count = addresses.count();
        if !H::ANY {
            return self.run_at_home(addresses, count, ports, end, candidate);
        }
        let few = ports.asked().checked_mul(count).is_some_and(|all| all <= FEW);
        if few || ports.asked() == 1 || count > WALKED {
            self.share_out(addresses, count.min(PROBES), ports, candidate)
        } else {
            self.walk(addresses, count, ports, end, candidate)
        }
    }

    /// Equal shares: everything, if that is within the budget.
    fn share_out(
        &mut self,
        addresses: &AddressRing,
        count: u32,
        ports: &PortRing,
        candidate: &impl Fn(u128, u16) -> Tuple,
    ) -> Option<Tuple> {
        let each = PROBES / count;
        for (number, address) in addresses.walk_round(count) {
            for port in ports.share(each, number) {
                if let Some(reply) = self.ask(candidate(address, port)) {
                    return Some(reply);
                }
            }
        }
        None
    }

    /// Half of the budget in equal shares, then all that is left wherever a port may be free.
    fn walk(
        &mut self,
        addresses: &AddressRing,
        count: u32,
        ports: &PortRing,
        end: End,
        candidate: &impl Fn(u128, u16) -> Tuple,
    ) -> Option<Tuple> {
        let each = PROBES / 2 / count;
        for (number, address) in addresses.walk_round(count) {
            let place = Place::of(&candidate(address, ports.first).reversed(), end).0;
            if self.occupancy.next(&place, ports.first, ports.last(), ports.first).is_none()
                && ports.kept.is_none()
            {
                continue;
            }
            let near = each.div_ceil(2).min(NEIGHBOURS).min(ports.asked());
            for port in ports.near(near) {
                if let Some(reply) = self.ask(candidate(address, port)) {
                    return Some(reply);
                }
            }
            // Only now, since an address with a free port nearby needs no board.
            for port in ports.near(near) {
                self.learn(&candidate(address, port).reversed(), end);
            }
            let found = self.walk_address(&place, address, (ports, number), end, each - near, candidate);
            if found.is_some() {
                return found;
            }
        }
        for (number, address) in addresses.walk_round(count) {
            let left = self.limit.saturating_sub(self.probes);
            if left == 0 {
                return None;
            }
            let place = Place::of(&candidate(address, ports.first).reversed(), end).0;
            let found = self.walk_address(&place, address, (ports, number), end, left, candidate);
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// Asks for up to `budget` ports of an address that are not known to be taken, far apart.
    fn walk_address(
        &mut self,
        place: &Place,
        address: u128,
        (ports, number): (&PortRing, u32),
        end: End,
        budget: u32,
        candidate: &impl Fn(u128, u16) -> Tuple,
    ) -> Option<Tuple> {
        for tried in 0..budget {
            let from = ports.far(number, tried);
            let port = self.occupancy.next(place, ports.first, ports.last(), from)?;
            let translated = candidate(address, port);
            if let Some(reply) = self.ask(translated) {
                return Some(reply);
            }
            self.learn(&translated.reversed(), end);
        }
        None
    }
}

/// The addresses of a range as numbers, entered at `first + start` and walked around.
struct AddressRing {
    first: u128,
    /// Offset of the last address: 0 for a single one. A count could overflow.
    last_offset: u128,
    /// Offset of the address to try first, at most `last_offset`.
    start: u128,
    /// The address stays as it is (null translation).
    keep: bool,
}

impl AddressRing {
    /// How many there are, or as many as can be counted.
    fn count(&self) -> u32 {
        u32::try_from(self.last_offset).unwrap_or(u32::MAX).saturating_add(1)
    }

    /// The first `count` addresses from the one to start with, numbered.
    fn walk_round(&self, count: u32) -> impl Iterator<Item = (u32, u128)> {
        let (first, last) = (self.first, self.last_offset);
        let mut offset = self.start;
        (0..count).map(move |number| {
            let address = first.wrapping_add(offset);
            offset = if offset == last { 0 } else { offset + 1 };
            (number, address)
        })
    }

    fn new(range: &NatRange, original: &Tuple, end: End, hash: u64) -> Result<Self, ChooseError> {
        let own = match (original, end) {
            (Tuple::V4(tuple), End::Source) => u128::from(u32::from_be_bytes(tuple.src)),
            (Tuple::V4(tuple), End::Destination) => u128::from(u32::from_be_bytes(tuple.dst)),
            (Tuple::V6(tuple), End::Source) => u128::from_be_bytes(tuple.src),
            (Tuple::V6(tuple), End::Destination) => u128::from_be_bytes(tuple.dst),
        };
        let (min, max) = match (original, range.addresses) {
            (_, None) => (0, 0),
            (Tuple::V4(_), Some(AddressRange::V4(min, max))) => (v4_bits(min), v4_bits(max)),
            (Tuple::V6(_), Some(AddressRange::V6(min, max))) => (min.to_bits(), max.to_bits()),
            _ => return Err(ChooseError::FamilyMismatch),
        };
        // As `NatRange::keeps_address`, of which this is the shorter form here.
        if (min, max) == (0, 0) {
            return Ok(Self { first: own, last_offset: 0, start: 0, keep: true });
        }
        let last_offset = max.saturating_sub(min);
        Ok(Self { first: min, last_offset, start: scale(hash, last_offset), keep: false })
    }
}

/// Ports from `first` on, entered at `first + start` and walked around.
struct PortRing {
    first: u16,
    /// 1 to 65536.
    len: u32,
    /// Below `len`.
    start: u32,
    /// Of the tuple: where the search goes when the ports at `start` are taken.
    hash: u64,
    /// The original port where it lies between two classes: asked for before the ring.
    kept: Option<u16>,
}

impl PortRing {
    fn new(
        range: &NatRange,
        original: &Tuple,
        end: End,
        hash: u64,
        random: &mut impl FnMut() -> u32,
    ) -> Self {
        let kept = match end {
            End::Source => original.src_port(),
            End::Destination => original.dst_port(),
        };
        let has_choice = original.has_ports() || original.is_icmp() && matches!(end, End::Source);
        if !has_choice {
            return Self::single(kept);
        }
        match (range.ports, end) {
            (Some((min, max)), _) => {
                // Port 0 is no port (RFC 6335 section 6), but it is an identifier.
                let min = if original.is_icmp() { min } else { min.max(1) };
                let len = u32::from(max.saturating_sub(min)) + 1;
                let drawn = match range.selection {
                    PortSelection::Random => random(),
                    // The address was chosen by the high bits.
                    PortSelection::Default | PortSelection::Hash => (hash & 0xffff_ffff) as u32,
                };
                Self { first: min, len, start: drawn % len, hash, kept: None }
            }
            (None, End::Source) => Self::of_class(original, kept, hash),
            (None, End::Destination) => Self::single(kept),
        }
    }

    const fn single(port: u16) -> Self {
        Self { first: port, len: 1, start: 0, hash: 0, kept: None }
    }

    /// The ports that may stand in for `port`, `port` first.
    fn of_class(original: &Tuple, port: u16, hash: u64) -> Self {
        let (first, last): (u16, u16) = match port {
            _ if original.is_icmp() => (0, u16::MAX),
            0..512 => (1, 511),
            512..1024 => (600, 1023),
            1024.. => (1024, u16::MAX),
        };
        Self {
            first,
            len: u32::from(last - first) + 1,
            start: u32::from(port.saturating_sub(first)),
            hash,
            kept: (port != 0 && port < first).then_some(port),
        }
    }

    /// The first `count` ports to ask for, no more than there are.
    fn near(&self, count: u32) -> impl Iterator<Item = u16> {
        self.kept.into_iter().chain((0..self.len).map(|offset| self.at(offset))).take(count as usize)
    }

    /// Ports that there are to ask for.
    fn asked(&self) -> u32 {
        self.len + u32::from(self.kept.is_some())
    }

    fn last(&self) -> u16 {
        // first + len - 1 is a port.
        self.first.wrapping_add(u16::try_from(self.len - 1).unwrap_or(0))
    }

    /// Where this tuple goes at the `number`th address when the ports at `start` are taken.
    fn far(&self, number: u32, tried: u32) -> u16 {
        let jump = (self.hash ^ u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let offset = (jump + u64::from(tried) * u64::from(stride(self.len))) % u64::from(self.len);
        self.at(u32::try_from(offset).unwrap_or(0))
    }

    /// The ports to ask about at one address, the `number`th that is tried: all of them if `count` is that many, else
    /// some from `start` on and the others, far apart, from a place that this tuple has for this address.
    fn share(&self, count: u32, number: u32) -> impl Iterator<Item = u16> {
        let ring = count.min(self.asked()) - u32::from(self.kept.is_some() && count > 0);
        // Of an odd share every other address gets the smaller half: a share of one is spent on both in turn.
        let half = (ring + (number + 1) % 2) / 2;
        let near = if ring == self.len { ring } else { half.min(NEIGHBOURS) };
        self.kept.into_iter().take(count as usize).chain((0..ring).map(move |tried| {
            match tried.checked_sub(near) {
                None => self.at(tried),
                Some(far) => self.far(number, far),
            }
        }))
    }

    /// The port `offset` behind the one to start with; `offset` is below `len`.
    fn at(&self, offset: u32) -> u16 {
        let from_first = self.start + offset;
        let from_first = if from_first >= self.len { from_first - self.len } else { from_first };
        // first + len - 1 is a port, so this is one too.
        self.first.wrapping_add(u16::try_from(from_first).unwrap_or(0))
    }
}

/// A step that comes by all numbers below `len`: a prime between half the length and the length cannot divide it. The
/// primes lie apart by the golden section, which spreads steps evenly.
fn stride(len: u32) -> u32 {
    const PRIMES: [u32; 19] =
        [40507, 25033, 15473, 9587, 5927, 3671, 2269, 1409, 877, 541, 337, 211, 131, 83, 53, 37, 23, 17, 11];
    PRIMES.into_iter().find(|prime| *prime < len).unwrap_or(1)
}

/// A number in `0..=last`, evenly by the hash's high bits.
fn scale(hash: u64, last: u128) -> u128 {
    if let Ok(last) = u64::try_from(last) {
        return (u128::from(hash) * (u128::from(last) + 1)) >> 64;
    }
    // More than 2^64 addresses: the hash twice, cut to the bits of `last` and folded into the range. Half the
    // addresses may be twice as likely as the others, which nobody will live to see.
    let wide = u128::from(hash) << 64 | u128::from(hash.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let cut = wide & (u128::MAX >> last.leading_zeros());
    if cut > last { cut - last - 1 } else { cut }
}

/// `original` with one end replaced; an ICMP message has only the identifier, in the source port.
fn with_end(original: &Tuple, end: End, address: u128, port: u16) -> Tuple {
    match (*original, end) {
        (Tuple::V4(tuple), End::Source) => {
            Tuple::V4(Tuple4 { src: v4_octets(address), src_port: port, ..tuple })
        }
        (Tuple::V4(tuple), End::Destination) => {
            Tuple::V4(Tuple4 { dst: v4_octets(address), dst_port: port, ..tuple })
        }
        (Tuple::V6(tuple), End::Source) => {
            Tuple::V6(Tuple6 { src: address.to_be_bytes(), src_port: port, ..tuple })
        }
        (Tuple::V6(tuple), End::Destination) => {
            Tuple::V6(Tuple6 { dst: address.to_be_bytes(), dst_port: port, ..tuple })
        }
    }
}

fn with_source_port(tuple: &Tuple, src_port: u16) -> Tuple {
    match *tuple {
        Tuple::V4(tuple) => Tuple::V4(Tuple4 { src_port, ..tuple }),
        Tuple::V6(tuple) => Tuple::V6(Tuple6 { src_port, ..tuple }),
    }
}

fn v4_bits(address: Ipv4Addr) -> u128 {
    u128::from(address.to_bits())
}

/// The low 32 bits, where [`v4_bits`] put the address.
const fn v4_octets(address: u128) -> [u8; 4] {
    let [.., a, b, c, d] = address.to_be_bytes();
    [a, b, c, d]
}

#[cfg(test)]
#[path = "choose_tests.rs"]
mod tests;
