//! Which address and port a new connection gets. The tracker calls this once for each new translated connection;
//! it knows no table: whether a tuple is free is asked through a function, randomness is drawn through another.
//!
//! The search is bounded by work, [`PROBES`] questions for each end of the tuple that may change. A range with
//! no more combinations of address and port than that is searched to the last; of a larger one every address gets
//! an equal share of the probes (of more than [`PROBES`] addresses, that many get one). Half of a share stays near
//! the port to start with, the other half goes where the tuple's hash says: clients that all come from one port
//! must not all ask about the same few.

use core::net::Ipv4Addr;

use weir_wire::{Tuple, Tuple4, Tuple6};

use crate::action::{AddressRange, NatAction, NatRange, PortSelection};

/// How many candidate tuples are asked about in one pass over a range. At some 100 ns for a probe of a large table
/// a refused connection costs its lcore about 0.4 ms; with nine of ten ports of a large range taken, the chance
/// to miss the free ones is below 10^-180.
pub const PROBES: u32 = 4096;

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
///
/// The address is taken by hash over the range; when it has no free port the following ones are tried, the
/// range being a ring. That holds for `persistent` too: it gives up the same address before the connection.
///
/// A port range is searched from `min + hash % size`, or from a random port. Without one, the original port is
/// kept if it is free, else the search stays within its class: 1 to 511, 512 to 1023, 1024 to 65535. An ICMP
/// identifier is a port without classes. Other protocols have addresses only. If a range is too large to be searched
/// to the last, each address is asked for a few ports from there on, then for some from where `hash` says.
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
    is_free: &mut impl FnMut(&Tuple) -> bool,
) -> Result<Tuple, ChooseError> {
    let (range, end) = match action {
        NatAction::Apply => return Ok(original.reversed()),
        NatAction::Source(range) => (range, End::Source),
        NatAction::Destination(range) => (range, End::Destination),
    };
    let addresses =
        AddressRing::new(range, original, end, if range.persistent { source_hash } else { hash })?;
    let mut probes = 0;
    let mut attempt = |translated: Tuple| {
        probes += 1;
        let reply = translated.reversed();
        is_free(&reply).then_some(reply)
    };

    let mut found = None;
    if addresses.keep {
        found = attempt(*original);
    }
    let ports = PortRing::new(range, original, end, hash, random);
    if found.is_none() {
        found =
            search(&addresses, &ports, &mut |address, port| attempt(with_end(original, end, address, port)));
    }
    if found.is_none() && matches!(end, End::Destination) && (original.has_ports() || original.is_icmp()) {
        let source_ports = PortRing::of_class(original, original.src_port(), hash);
        found = search(&addresses, &source_ports, &mut |address, source_port| {
            let translated = with_end(original, end, address, ports.at(0));
            attempt(with_source_port(&translated, source_port))
        });
    }
    found.ok_or(ChooseError::Exhausted { probes })
}

/// Which end of the tuple a range replaces.
#[derive(Clone, Copy)]
enum End {
    Source,
    Destination,
}

/// Walks the addresses and, for each, its share of the ports. At most [`PROBES`] attempts.
fn search(
    addresses: &AddressRing,
    ports: &PortRing,
    attempt: &mut impl FnMut(u128, u16) -> Option<Tuple>,
) -> Option<Tuple> {
    let address_count =
        u32::try_from(addresses.last_offset).unwrap_or(u32::MAX).saturating_add(1).min(PROBES);
    // Everything, if that is within the budget; else equal shares.
    let ports_each = ports.len.min(PROBES / address_count);
    let mut address_offset = addresses.start;
    for number in 0..address_count {
        let address = addresses.first.wrapping_add(address_offset);
        for port in ports.share(ports_each, number) {
            if let Some(reply) = attempt(address, port) {
                return Some(reply);
            }
        }
        address_offset = if address_offset == addresses.last_offset { 0 } else { address_offset + 1 };
    }
    None
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
                Self { first: min, len, start: drawn % len, hash }
            }
            (None, End::Source) => Self::of_class(original, kept, hash),
            (None, End::Destination) => Self::single(kept),
        }
    }

    const fn single(port: u16) -> Self {
        Self { first: port, len: 1, start: 0, hash: 0 }
    }

    /// The ports that may stand in for `port`, `port` first.
    fn of_class(original: &Tuple, port: u16, hash: u64) -> Self {
        let (first, last): (u16, u16) = match port {
            _ if original.is_icmp() => (0, u16::MAX),
            0..512 => (1, 511),
            512..1024 => (512, 1023),
            1024.. => (1024, u16::MAX),
        };
        Self { first, len: u32::from(last - first) + 1, start: u32::from(port.saturating_sub(first)), hash }
    }

    /// The ports to ask about at one address, the `number`th that is tried: all of them if `count` is that many, else
    /// some from `start` on and the others, far apart, from a place that this tuple has for this address.
    fn share(&self, count: u32, number: u32) -> impl Iterator<Item = u16> {
        // Of an odd share every other address gets the smaller half: a share of one is spent on both in turn.
        let half = (count + (number + 1) % 2) / 2;
        let near = if count == self.len { count } else { half.min(NEIGHBOURS) };
        let stride = u64::from(self.stride());
        let jump = (self.hash ^ u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        (0..count).map(move |tried| match tried.checked_sub(near) {
            None => self.at(tried),
            Some(far) => {
                let offset = (jump + u64::from(far) * stride) % u64::from(self.len);
                self.at(u32::try_from(offset).unwrap_or(0))
            }
        })
    }

    /// The port `offset` behind the one to start with; `offset` is below `len`.
    fn at(&self, offset: u32) -> u16 {
        let from_first = self.start + offset;
        let from_first = if from_first >= self.len { from_first - self.len } else { from_first };
        // first + len - 1 is a port, so this is one too.
        self.first.wrapping_add(u16::try_from(from_first).unwrap_or(0))
    }

    /// A step that comes by every port: a prime between half the length and the length cannot divide it. The
    /// primes lie apart by the golden section, which spreads steps evenly.
    fn stride(&self) -> u32 {
        const PRIMES: [u32; 19] = [
            40507, 25033, 15473, 9587, 5927, 3671, 2269, 1409, 877, 541, 337, 211, 131, 83, 53, 37, 23, 17,
            11,
        ];
        PRIMES.into_iter().find(|prime| *prime < self.len).unwrap_or(1)
    }
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
