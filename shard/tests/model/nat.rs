//! Which address and port a new connection may get. Of a range the shard draws as it likes; here stands which draws
//! are legal, by trying everything.

use std::collections::BTreeMap;

use core::net::IpAddr;

use weir_nat::{AddressRange, NatRange, PortSelection};

use crate::tuple::{Key, Tuple};

/// Which end of a connection's original direction is translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    Source,
    Destination,
}

/// What the shard did for a new connection.
pub enum Chosen<'a> {
    /// This reply tuple was free and is legal.
    Legal,
    /// Nothing is free.
    Exhausted,
    /// The range is for another family.
    WrongFamily,
    /// It is wrong, and why.
    Wrong(&'a str),
}

/// What earlier choices bind later ones to.
#[derive(Default)]
pub struct Promises {
    /// `persistent`: the outside address of an inside one, by the range's first and last.
    addresses: BTreeMap<(IpAddr, IpAddr, IpAddr), IpAddr>,
    /// There are several shards: each draws ports that lead home, rather than keep the original one or the address.
    pub many: bool,
    /// The packet has asked: what was taken then may be free by now.
    pub has_asked: bool,
}

/// Ports in a row.
type Ports = std::ops::RangeInclusive<u16>;

impl Promises {
    /// Judges `chosen`, the reply tuple that the connection of `original` got, or `None` if it was refused.
    pub fn judge(
        &mut self,
        range: &NatRange,
        end: End,
        original: Tuple,
        chosen: Option<Tuple>,
        is_free: &dyn Fn(Tuple) -> bool,
    ) -> Chosen<'static> {
        let Some(addresses) = addresses(range, end, original) else { return Chosen::WrongFamily };
        let free = |translated: Tuple| is_free(translated.reversed());
        let kept = key_port(end, original);
        let ports = ports(range, end, original);

        // A null translation changes nothing, unless that is taken.
        let is_null = is_null(range);
        if is_null && free(original) {
            match chosen {
                Some(reply) if reply == original.reversed() => return Chosen::Legal,
                _ if self.has_asked => {}
                _ => return Chosen::Wrong("a null translation had nothing to change"),
            }
        }
        // First the end itself; for destinations, when nothing else is left, the source port too.
        let mut found = false;
        for &address in &addresses {
            found = found || range.ports.is_none() && free(replace(original, end, address, kept));
            found = found || ports.clone().any(|port| free(replace(original, end, address, port)));
        }
        let Some(reply) = chosen else {
            let with_source_ports = || {
                end == End::Destination
                    && original.key != Key::Nothing
                    && addresses.iter().any(|&address| {
                        class(original).any(|source| {
                            let start = *ports.start();
                            free(with_source(replace(original, end, address, start), source))
                        })
                    })
            };
            return if found || (ports.clone().count() == 1 && with_source_ports()) {
                Chosen::Wrong("refused, though a tuple of the range is free")
            } else {
                Chosen::Exhausted
            };
        };
        let translated = reply.reversed();
        let (address, port) = match end {
            End::Source => (translated.src, key_port(end, translated)),
            End::Destination => (translated.dst, key_port(end, translated)),
        };
        if !addresses.contains(&address) {
            return Chosen::Wrong("the address is outside the range");
        }
        // The original port may stay, also where it lies between two classes.
        if !(ports.contains(&port) || range.ports.is_none() && port == kept) {
            return Chosen::Wrong("the port is outside the range or class");
        }
        if !free(translated) {
            return Chosen::Wrong("the tuple is taken");
        }
        if replace(original, end, address, port) == translated {
            if !self.many
                && range.ports.is_none()
                && port != kept
                && free(replace(original, end, address, kept))
            {
                return Chosen::Wrong("the original port was free and is not kept");
            }
        } else {
            let source = translated.src_port();
            let changed = with_source(replace(original, end, address, port), source);
            if end == End::Source
                || found && !self.has_asked
                || changed != translated
                || !class(original).contains(&source) && source != original.src_port()
            {
                return Chosen::Wrong("something else was changed than the range says");
            }
        }
        self.check_persistent(range, end, original, &addresses, &ports, address, &free)
    }

    /// "the same inside address keeps its outside address": as long as there is room on it.
    #[expect(clippy::too_many_arguments, reason = "one question about all of it")]
    fn check_persistent(
        &mut self,
        range: &NatRange,
        end: End,
        original: Tuple,
        addresses: &[IpAddr],
        ports: &Ports,
        address: IpAddr,
        free: &dyn Fn(Tuple) -> bool,
    ) -> Chosen<'static> {
        let (true, false, Some(first), Some(last)) =
            (range.persistent, is_null(range), addresses.first(), addresses.last())
        else {
            return Chosen::Legal;
        };
        let has_room = |address| ports.clone().any(|port| free(replace(original, end, address, port)));
        if self.many {
            return Chosen::Legal;
        }
        let place = (*first, *last, original.src);
        match self.addresses.get(&place) {
            Some(&promised) if promised != address && has_room(promised) => {
                Chosen::Wrong("persistent, and another address than the last time")
            }
            Some(_) => Chosen::Legal,
            None => {
                if addresses.iter().all(|&address| has_room(address)) {
                    self.addresses.insert(place, address);
                }
                Chosen::Legal
            }
        }
    }
}

fn is_null(range: &NatRange) -> bool {
    match range.addresses {
        None => true,
        Some(AddressRange::V4(first, last)) => first.is_unspecified() && last.is_unspecified(),
        Some(AddressRange::V6(first, last)) => first.is_unspecified() && last.is_unspecified(),
    }
}

/// Every address that the end may get; `None` if they are of another family.
fn addresses(range: &NatRange, end: End, original: Tuple) -> Option<Vec<IpAddr>> {
    let own = match end {
        End::Source => original.src,
        End::Destination => original.dst,
    };
    let all: Vec<IpAddr> = match range.addresses {
        None => return Some(vec![own]),
        Some(AddressRange::V4(first, last)) => {
            (first.to_bits()..=last.to_bits()).map(|bits| IpAddr::V4(bits.into())).collect()
        }
        Some(AddressRange::V6(first, last)) => {
            (first.to_bits()..=last.to_bits()).map(|bits| IpAddr::V6(bits.into())).collect()
        }
    };
    match all.first() {
        Some(first) if first.is_ipv4() != own.is_ipv4() => None,
        _ if is_null(range) => Some(vec![own]),
        _ => Some(all),
    }
}

/// The ports that the end may get.
fn ports(range: &NatRange, end: End, original: Tuple) -> Ports {
    let kept = key_port(end, original);
    match (original.key, end, range.ports) {
        (Key::Nothing, ..) | (Key::Query { .. }, End::Destination, _) => kept..=kept,
        (Key::Query { .. }, End::Source, Some((first, last))) => first..=last,
        // 0 is no port.
        (Key::Ports { .. }, _, Some((first, last))) => first.max(1)..=last,
        (_, End::Source, None) => class(original),
        (_, End::Destination, None) => kept..=kept,
    }
}

/// "within its class" of the source port; an identifier has no classes.
fn class(original: Tuple) -> Ports {
    match (original.key, original.src_port()) {
        (Key::Query { .. }, _) => 0..=u16::MAX,
        (_, 0..=511) => 1..=511,
        (_, 512..=1023) => 600..=1023,
        (_, 1024..) => 1024..=u16::MAX,
    }
}

/// Port of an end: of a query the identifier at its source, nothing at its destination.
fn key_port(end: End, tuple: Tuple) -> u16 {
    match (end, tuple.key) {
        (End::Source, _) => tuple.src_port(),
        (End::Destination, Key::Ports { dst, .. }) => dst,
        (End::Destination, _) => 0,
    }
}

fn replace(tuple: Tuple, end: End, address: IpAddr, port: u16) -> Tuple {
    match end {
        End::Source => with_source(Tuple { src: address, ..tuple }, port),
        End::Destination => {
            let key = match tuple.key {
                Key::Ports { src, .. } => Key::Ports { src, dst: port },
                other => other,
            };
            Tuple { dst: address, key, ..tuple }
        }
    }
}

fn with_source(tuple: Tuple, port: u16) -> Tuple {
    let key = match tuple.key {
        Key::Ports { dst, .. } => Key::Ports { src: port, dst },
        Key::Query { kind, .. } => Key::Query { id: port, kind },
        Key::Nothing => Key::Nothing,
    };
    Tuple { key, ..tuple }
}

/// How a range's ports are drawn makes no difference to what is legal.
pub const SELECTIONS: [PortSelection; 3] =
    [PortSelection::Default, PortSelection::Hash, PortSelection::Random];
