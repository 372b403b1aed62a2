//! The key of one direction of a connection: how it is compared, hashed, reversed and printed.
//! [`crate::extract`] makes it from a packet.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::numbers::{icmp_type, icmpv6_type, protocol};

/// IPv4 tuple, 16 bytes without padding so that it compares as one `u128`.
///
/// For TCP, UDP and SCTP the ports are the header's. For ICMP queries `src_port` is the identifier and
/// `dst_port` is `type << 8 | code`. For every other protocol both are 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C, align(16))]
pub struct Tuple4 {
    /// Source address, network order.
    pub src: [u8; 4],
    /// Destination address, network order.
    pub dst: [u8; 4],
    /// Source port (host order).
    pub src_port: u16,
    /// Destination port (host order).
    pub dst_port: u16,
    /// Conntrack zone.
    pub zone: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Always 4.
    pub family: u8,
}

/// IPv6 tuple; fields as in [`Tuple4`], `family` is always 6.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C, align(8))]
pub struct Tuple6 {
    /// Source address, network order.
    pub src: [u8; 16],
    /// Destination address, network order.
    pub dst: [u8; 16],
    /// Source port (host order).
    pub src_port: u16,
    /// Destination port (host order).
    pub dst_port: u16,
    /// Conntrack zone.
    pub zone: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Always 6.
    pub family: u8,
}

/// One direction of a connection with its zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tuple {
    /// Over IPv4.
    V4(Tuple4),
    /// Over IPv6.
    V6(Tuple6),
}

/// What both tuples do alike, written once.
macro_rules! tuple {
    ($tuple:ident, $variant:ident, $address:ty, $family:literal, $icmp:path, $counterpart:path) => {
        impl $tuple {
            /// A tuple from its fields; ports in host order.
            #[inline]
            #[must_use]
            pub const fn new(
                src: $address,
                dst: $address,
                src_port: u16,
                dst_port: u16,
                protocol: u8,
                zone: u16,
            ) -> Self {
                Self { src, dst, src_port, dst_port, zone, protocol, family: $family }
            }

            /// The tuple of an answer to this one: endpoints swapped. An ICMP identifier stays in `src_port`
            /// and the type in `dst_port` becomes its counterpart (echo and echo reply), so that translating
            /// the source port translates the identifier in both directions.
            #[inline]
            #[must_use]
            pub const fn reversed(&self) -> Self {
                let (src_port, dst_port) = if self.is_icmp() {
                    let [kind, code] = self.dst_port.to_be_bytes();
                    let kind = match $counterpart(kind) {
                        Some(counterpart) => counterpart,
                        None => kind,
                    };
                    (self.src_port, u16::from_be_bytes([kind, code]))
                } else {
                    (self.dst_port, self.src_port)
                };
                Self { src: self.dst, dst: self.src, src_port, dst_port, ..*self }
            }

            /// True for ICMP of this family: `src_port` is an identifier, `dst_port` type and code.
            #[inline]
            #[must_use]
            pub const fn is_icmp(&self) -> bool {
                self.protocol == $icmp
            }

            /// True if the protocol has ports of its own: TCP, UDP, SCTP.
            #[inline]
            #[must_use]
            pub const fn has_ports(&self) -> bool {
                matches!(self.protocol, protocol::TCP | protocol::UDP | protocol::SCTP)
            }
        }

        impl From<$tuple> for Tuple {
            #[inline]
            fn from(tuple: $tuple) -> Self {
                Self::$variant(tuple)
            }
        }

        impl fmt::Display for $tuple {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                Tuple::from(*self).fmt(f)
            }
        }
    };
}

tuple!(Tuple4, V4, [u8; 4], 4, protocol::ICMP, icmp_type::counterpart);
tuple!(Tuple6, V6, [u8; 16], 6, protocol::ICMPV6, icmpv6_type::counterpart);

impl Tuple4 {
    /// The whole tuple as one integer: equal integers are equal tuples. The value depends on the machine's
    /// byte order and must not leave it.
    #[inline]
    #[must_use]
    pub const fn as_u128(&self) -> u128 {
        let [s0, s1, s2, s3] = self.src;
        let [d0, d1, d2, d3] = self.dst;
        let [p0, p1] = self.src_port.to_ne_bytes();
        let [q0, q1] = self.dst_port.to_ne_bytes();
        let [z0, z1] = self.zone.to_ne_bytes();
        u128::from_ne_bytes([
            s0,
            s1,
            s2,
            s3,
            d0,
            d1,
            d2,
            d3,
            p0,
            p1,
            q0,
            q1,
            z0,
            z1,
            self.protocol,
            self.family,
        ])
    }

    /// Keyed hash for hash tables; see [`Tuple::hash`].
    #[inline]
    #[must_use]
    pub const fn hash(&self, secret: &[u64; 2]) -> u64 {
        let whole = self.as_u128();
        let (low, high) = multiply(whole as u64 ^ secret[0], (whole >> 64) as u64 ^ secret[1]);
        mix(low ^ secret[1].rotate_left(32), high ^ secret[0])
    }
}

impl Tuple6 {
    /// The whole tuple as integers, for comparing and hashing; as [`Tuple4::as_u128`].
    #[inline]
    #[must_use]
    pub const fn as_words(&self) -> [u64; 5] {
        let source = u128::from_ne_bytes(self.src);
        let destination = u128::from_ne_bytes(self.dst);
        let [p0, p1] = self.src_port.to_ne_bytes();
        let [q0, q1] = self.dst_port.to_ne_bytes();
        let [z0, z1] = self.zone.to_ne_bytes();
        [
            source as u64,
            (source >> 64) as u64,
            destination as u64,
            (destination >> 64) as u64,
            u64::from_ne_bytes([p0, p1, q0, q1, z0, z1, self.protocol, self.family]),
        ]
    }

    /// Keyed hash for hash tables; see [`Tuple::hash`].
    #[inline]
    #[must_use]
    pub const fn hash(&self, secret: &[u64; 2]) -> u64 {
        let [s0, s1, d0, d1, rest] = self.as_words();
        let source = mix(s0 ^ secret[0], s1 ^ secret[1]);
        let destination = mix(d0 ^ secret[1].rotate_left(24), d1 ^ secret[0].rotate_left(24));
        let (low, high) = multiply(source ^ rest ^ secret[0].rotate_left(48), destination ^ secret[1]);
        mix(low ^ secret[1].rotate_left(32), high ^ secret[0])
    }
}

impl Tuple {
    /// A tuple from its fields; ports in host order. `None` if the addresses are of different families.
    #[must_use]
    pub const fn new(
        src: IpAddr,
        dst: IpAddr,
        src_port: u16,
        dst_port: u16,
        protocol: u8,
        zone: u16,
    ) -> Option<Self> {
        match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                Some(Self::V4(Tuple4::new(src.octets(), dst.octets(), src_port, dst_port, protocol, zone)))
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                Some(Self::V6(Tuple6::new(src.octets(), dst.octets(), src_port, dst_port, protocol, zone)))
            }
            _ => None,
        }
    }

    /// Source address.
    #[inline]
    #[must_use]
    pub const fn src(&self) -> IpAddr {
        match self {
            Self::V4(tuple) => IpAddr::V4(octets4(tuple.src)),
            Self::V6(tuple) => IpAddr::V6(octets6(tuple.src)),
        }
    }

    /// Destination address.
    #[inline]
    #[must_use]
    pub const fn dst(&self) -> IpAddr {
        match self {
            Self::V4(tuple) => IpAddr::V4(octets4(tuple.dst)),
            Self::V6(tuple) => IpAddr::V6(octets6(tuple.dst)),
        }
    }

    /// Source port or ICMP identifier, host order.
    #[inline]
    #[must_use]
    pub const fn src_port(&self) -> u16 {
        match self {
            Self::V4(tuple) => tuple.src_port,
            Self::V6(tuple) => tuple.src_port,
        }
    }

    /// Destination port, or ICMP type and code (`type << 8 | code`), host order.
    #[inline]
    #[must_use]
    pub const fn dst_port(&self) -> u16 {
        match self {
            Self::V4(tuple) => tuple.dst_port,
            Self::V6(tuple) => tuple.dst_port,
        }
    }

    /// IP protocol number.
    #[inline]
    #[must_use]
    pub const fn protocol(&self) -> u8 {
        match self {
            Self::V4(tuple) => tuple.protocol,
            Self::V6(tuple) => tuple.protocol,
        }
    }

    /// Conntrack zone.
    #[inline]
    #[must_use]
    pub const fn zone(&self) -> u16 {
        match self {
            Self::V4(tuple) => tuple.zone,
            Self::V6(tuple) => tuple.zone,
        }
    }

    /// The same endpoints in another zone.
    #[inline]
    #[must_use]
    pub const fn in_zone(self, zone: u16) -> Self {
        match self {
            Self::V4(tuple) => Self::V4(Tuple4 { zone, ..tuple }),
            Self::V6(tuple) => Self::V6(Tuple6 { zone, ..tuple }),
        }
    }

    /// True for ICMP over IPv4 and ICMPv6 over IPv6: `src_port` is an identifier.
    #[inline]
    #[must_use]
    pub const fn is_icmp(&self) -> bool {
        match self {
            Self::V4(tuple) => tuple.is_icmp(),
            Self::V6(tuple) => tuple.is_icmp(),
        }
    }

    /// True if the protocol has ports of its own: TCP, UDP, SCTP.
    #[inline]
    #[must_use]
    pub const fn has_ports(&self) -> bool {
        matches!(self.protocol(), protocol::TCP | protocol::UDP | protocol::SCTP)
    }

    /// The tuple of an answer to this one; see [`Tuple4::reversed`].
    #[inline]
    #[must_use]
    pub const fn reversed(&self) -> Self {
        match self {
            Self::V4(tuple) => Self::V4(tuple.reversed()),
            Self::V6(tuple) => Self::V6(tuple.reversed()),
        }
    }

    /// Keyed hash for hash tables: two rounds of a folded 64 by 64 bit multiplication, as wyhash does it. All 64
    /// bits are usable. Without the secret, drawn at random at every start, collisions cannot be prepared;
    /// it is no cryptographic authenticator. Not symmetric: the two directions hash differently.
    #[inline]
    #[must_use]
    pub const fn hash(&self, secret: &[u64; 2]) -> u64 {
        match self {
            Self::V4(tuple) => tuple.hash(secret),
            Self::V6(tuple) => tuple.hash(secret),
        }
    }
}

/// As dpctl/dump-conntrack prints it: `src=10.1.1.1,dst=10.1.1.2,sport=40000,dport=80`, or with
/// `id=7,type=8,code=0` for ICMP. Protocols without ports show them as 0. The zone is not shown.
impl fmt::Display for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "src={},dst={},", self.src(), self.dst())?;
        if self.is_icmp() {
            let [kind, code] = self.dst_port().to_be_bytes();
            write!(f, "id={},type={kind},code={code}", self.src_port())
        } else {
            write!(f, "sport={},dport={}", self.src_port(), self.dst_port())
        }
    }
}

/// `Ipv4Addr::from` is not const.
const fn octets4(octets: [u8; 4]) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from_be_bytes(octets))
}

const fn octets6(octets: [u8; 16]) -> Ipv6Addr {
    Ipv6Addr::from_bits(u128::from_be_bytes(octets))
}

/// Low and high half of the product.
#[inline]
const fn multiply(a: u64, b: u64) -> (u64, u64) {
    let product = (a as u128) * (b as u128);
    (product as u64, (product >> 64) as u64)
}

#[inline]
const fn mix(a: u64, b: u64) -> u64 {
    let (low, high) = multiply(a, b);
    low ^ high
}

#[cfg(test)]
#[path = "tuple_tests.rs"]
mod tests;
