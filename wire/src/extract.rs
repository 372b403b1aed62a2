//! From a packet to its connection tuple: everything that makes a packet `+inv` before any connection is looked
//! at. The trackers judge the rest (windows, replies without a request, errors about unknown connections).

use crate::checksum;
use crate::layers::{Fragment, Layers};
use crate::numbers::{ether_type, icmp_type, icmpv6_type, protocol};
use crate::tuple::{Tuple, Tuple4, Tuple6};

/// Declares [`Invalid`] with a counter name and a message for each cause.
macro_rules! causes {
    ($($(#[doc = $doc:literal])+ $cause:ident, $name:literal, $message:literal;)+) => {
        /// Why a packet has no tuple and is `+inv`. Variants are causes, to be counted by [`Invalid::index`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
        #[repr(u8)]
        pub enum Invalid {
            $($(#[doc = $doc])+ #[error($message)] $cause,)+
        }

        impl Invalid {
            /// All causes in the order of their index.
            pub const ALL: [Self; Self::COUNT] = [$(Self::$cause),+];
            /// How many causes there are.
            pub const COUNT: usize = [$($name),+].len();

            /// A number below [`Self::COUNT`].
            #[inline]
            #[must_use]
            pub const fn index(self) -> usize {
                self as usize
            }

            /// The counter's name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$cause => $name,)+
                }
            }
        }
    };
}

causes! {
    /// Neither IPv4 nor IPv6.
    NotIp, "not_ip", "the frame carries neither IPv4 nor IPv6";
    /// IPv4 or IPv6 header cut, of the wrong version, or with a length that does not fit the frame.
    IpHeader, "ip_header", "the IP header is cut, of the wrong version, or its lengths do not fit the frame";
    /// IPv4 header checksum.
    Ipv4Checksum, "ipv4_checksum", "the IPv4 header checksum is wrong";
    /// IPv6 extension headers cut or too many.
    ExtensionHeaders, "extension_headers", "the IPv6 extension headers are cut or too many";
    /// A first fragment that was not reassembled: L4 cannot be verified.
    FirstFragment, "first_fragment", "a first fragment that was not reassembled";
    /// A later fragment that was not reassembled.
    LaterFragment, "later_fragment", "a later fragment that was not reassembled";
    /// L4 header cut.
    L4Header, "l4_header", "the packet ends inside its TCP, UDP, SCTP or ICMP header";
    /// TCP data offset below 5 or beyond the packet.
    TcpDataOffset, "tcp_data_offset", "the TCP data offset is below 5 or points beyond the packet";
    /// TCP SYN together with FIN or RST.
    TcpSynFinRst, "tcp_syn_fin_rst", "a TCP segment with SYN and FIN or RST";
    /// TCP without any of SYN, ACK, RST.
    TcpNoFlags, "tcp_no_flags", "a TCP segment without SYN, ACK and RST";
    /// TCP FIN, PSH or URG without ACK.
    TcpNoAck, "tcp_no_ack", "a TCP segment with FIN, PSH or URG but without ACK";
    /// TCP checksum.
    TcpChecksum, "tcp_checksum", "the TCP checksum is wrong";
    /// UDP length below 8 or beyond the packet.
    UdpLength, "udp_length", "the UDP length is below 8 or beyond the packet";
    /// UDP checksum.
    UdpChecksum, "udp_checksum", "the UDP checksum is wrong";
    /// UDP over IPv6 without a checksum (RFC 8200 section 8.1).
    UdpNoChecksum, "udp_no_checksum", "UDP over IPv6 without a checksum";
    /// SCTP checksum.
    SctpChecksum, "sctp_checksum", "the SCTP checksum is wrong";
    /// Source or destination port 0.
    PortZero, "port_zero", "the source or destination port is 0";
    /// ICMP or ICMPv6 checksum.
    IcmpChecksum, "icmp_checksum", "the ICMP checksum is wrong";
    /// An ICMP type that is neither a query nor an error that conntrack knows.
    IcmpType, "icmp_type", "an ICMP type that is not tracked";
    /// An ICMP query or reply with a code.
    IcmpCode, "icmp_code", "an ICMP query with a code other than 0";
    /// The packet that an ICMP error quotes cannot be read, or has less than 8 bytes of L4.
    IcmpQuote, "icmp_quote", "the packet that the ICMP error quotes is cut or malformed";
    /// An ICMP error that was not sent to the source of the packet that it quotes.
    IcmpQuoteSource, "icmp_quote_source", "the ICMP error's destination is not the source of the packet that it quotes";
}

/// Checksums that somebody else (the network card, a reassembler) has verified already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChecksumTrust {
    /// The IPv4 header's is known to be right.
    pub ip: bool,
    /// The L4 header's is known to be right.
    pub l4: bool,
}

impl ChecksumTrust {
    /// Verify everything.
    pub const NONE: Self = Self { ip: false, l4: false };
    /// Verify nothing.
    pub const ALL: Self = Self { ip: true, l4: true };
}

/// What a packet is to conntrack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extracted {
    /// A packet of the connection with this tuple.
    Packet(Tuple),
    /// An ICMP error about a packet of a connection.
    IcmpError {
        /// The tuple of the quoted packet as it was sent. The error travels the other way: it belongs to
        /// the direction whose tuple is `inner.reversed()`.
        inner: Tuple,
        /// Where the quoted packet's headers are, from the start of the outer frame.
        inner_layers: Layers,
    },
}

impl Extracted {
    /// The tuple to look up: the packet's own, or for an ICMP error that of the direction it travels in.
    #[inline]
    #[must_use]
    pub const fn lookup(&self) -> Tuple {
        match self {
            Self::Packet(tuple) => *tuple,
            Self::IcmpError { inner, .. } => inner.reversed(),
        }
    }
}

impl Tuple4 {
    /// [`Tuple::extract`] for what most packets are, TCP and UDP over IPv4 in one piece; `None` of anything else.
    #[inline(always)]
    #[must_use]
    pub fn extract_plain(
        frame: &[u8],
        layers: &Layers,
        zone: u16,
        trust: ChecksumTrust,
    ) -> Option<Result<Self, Invalid>> {
        let is_plain = layers.is_ipv4()
            && layers.l4 != 0
            && layers.fragment == Fragment::No
            && matches!(layers.protocol, protocol::TCP | protocol::UDP);
        is_plain.then(|| Self::of_plain(frame, layers, zone, trust))
    }

    /// The tuple of what nearly every packet is, a valid one of TCP or UDP over IPv4 without options in one piece, behind
    /// an untagged Ethernet header, in one pass over its headers; and where it ends ([`Layers::l3_end`]). `None` of any
    /// other frame: [`Layers::parse`] and [`Tuple::extract`] say what that is.
    #[inline(always)]
    #[must_use]
    pub fn read_plain(frame: &[u8], zone: u16, trust: ChecksumTrust) -> Option<(Self, u16)> {
        let (protocol, l3_end) = Layers::parse_plain(frame)?;
        let tuple = Self::extract_plain(frame, &Layers::plain(protocol, l3_end), zone, trust)?.ok()?;
        Some((tuple, l3_end))
    }

    // Always: a tuple that is given back in memory is written in pieces, and read as words at once to be hashed.
    #[inline(always)]
    fn of_plain(frame: &[u8], layers: &Layers, zone: u16, trust: ChecksumTrust) -> Result<Self, Invalid> {
        let packet = layers.l3_bytes(frame);
        let header_len = usize::from(layers.l4.wrapping_sub(layers.l3));
        let (header, l4) = packet.split_at_checked(header_len).ok_or(Invalid::IpHeader)?;
        let (header, options) = header.split_first_chunk::<20>().ok_or(Invalid::IpHeader)?;
        // The addresses count twice: in the header and in the pseudo header.
        let addresses = checksum::sum(&header[12..]);
        if !trust.ip && !checksum::is_valid(checksum::sum(&header[..12]) + addresses + checksum::sum(options))
        {
            return Err(Invalid::Ipv4Checksum);
        }
        let (wrong_checksum, has_checksum) = if layers.protocol == protocol::TCP {
            check_tcp(l4)?;
            (Invalid::TcpChecksum, true)
        } else {
            check_udp(l4, false)?;
            (Invalid::UdpChecksum, l4.get(6..8) != Some(&[0, 0]))
        };
        let (src_port, dst_port) = ports(l4)?;
        if !trust.l4
            && has_checksum
            && !checksum::is_valid(
                checksum::pseudo_sum(addresses, layers.protocol, l4.len()) + checksum::sum(l4),
            )
        {
            return Err(wrong_checksum);
        }
        let tuple = addresses_v4(packet, layers.protocol, zone).ok_or(Invalid::IpHeader)?;
        Ok(Self { src_port, dst_port, ..tuple })
    }
}

impl Tuple {
    /// The tuple of a frame, of which `layers` is the parse. A cause is given when the packet must be `+inv`
    /// whatever connections there are. Checksums are verified unless `trust` says that this was done.
    #[inline]
    pub fn extract(
        frame: &[u8],
        layers: &Layers,
        zone: u16,
        trust: ChecksumTrust,
    ) -> Result<Extracted, Invalid> {
        if let Some(plain) = Tuple4::extract_plain(frame, layers, zone, trust) {
            return plain.map(|tuple| Extracted::Packet(Self::V4(tuple)));
        }
        let packet = layers.l3_bytes(frame);
        let l4 = layers.l4_bytes(frame);
        if layers.l4 == 0 || layers.fragment != Fragment::No {
            return Err(no_l4(layers));
        }
        let tuple = match layers.ether_type {
            ether_type::IPV4 => {
                if !trust.ip && !checksum::ipv4_header_is_valid(frame, layers) {
                    return Err(Invalid::Ipv4Checksum);
                }
                Self::V4(addresses_v4(packet, layers.protocol, zone).ok_or(Invalid::IpHeader)?)
            }
            ether_type::IPV6 => {
                Self::V6(addresses_v6(packet, layers.protocol, zone).ok_or(Invalid::IpHeader)?)
            }
            _ => return Err(Invalid::NotIp),
        };
        let wrong_checksum = match layers.protocol {
            protocol::TCP => {
                check_tcp(l4)?;
                Invalid::TcpChecksum
            }
            protocol::UDP => {
                check_udp(l4, layers.ether_type == ether_type::IPV6)?;
                Invalid::UdpChecksum
            }
            protocol::SCTP if l4.len() < 12 => return Err(Invalid::L4Header),
            protocol::SCTP => Invalid::SctpChecksum,
            _ if tuple.is_icmp() => Invalid::IcmpChecksum,
            // Every other protocol: addresses only.
            _ => return Ok(Extracted::Packet(tuple)),
        };
        if tuple.is_icmp() {
            return extract_icmp(frame, layers, tuple, trust);
        }
        let tuple = tuple.with_ports(l4)?;
        if !trust.l4 && !checksum::l4_is_valid(frame, layers) {
            return Err(wrong_checksum);
        }
        Ok(Extracted::Packet(tuple))
    }

    /// Fills in the ports of TCP, UDP and SCTP.
    #[inline]
    fn with_ports(self, l4: &[u8]) -> Result<Self, Invalid> {
        let (src_port, dst_port) = ports(l4)?;
        Ok(self.with_keys(src_port, dst_port))
    }

    #[inline]
    const fn with_keys(self, src_port: u16, dst_port: u16) -> Self {
        match self {
            Self::V4(tuple) => Self::V4(Tuple4 { src_port, dst_port, ..tuple }),
            Self::V6(tuple) => Self::V6(Tuple6 { src_port, dst_port, ..tuple }),
        }
    }
}

/// Source and destination port; 0 is none (RFC 6335 section 6).
#[inline]
fn ports(l4: &[u8]) -> Result<(u16, u16), Invalid> {
    let Some(&[s0, s1, d0, d1]) = l4.first_chunk::<4>() else { return Err(Invalid::L4Header) };
    let (src_port, dst_port) = (u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1]));
    if src_port == 0 || dst_port == 0 {
        return Err(Invalid::PortZero);
    }
    Ok((src_port, dst_port))
}

#[cold]
fn no_l4(layers: &Layers) -> Invalid {
    match (layers.ether_type, layers.fragment) {
        (ether_type::IPV4 | ether_type::IPV6, _) if layers.l3 == 0 => Invalid::IpHeader,
        (ether_type::IPV4 | ether_type::IPV6, Fragment::First) => Invalid::FirstFragment,
        (ether_type::IPV4 | ether_type::IPV6, Fragment::Later) => Invalid::LaterFragment,
        (ether_type::IPV4 | ether_type::IPV6, Fragment::No) => Invalid::ExtensionHeaders,
        _ => Invalid::NotIp,
    }
}

#[inline]
fn addresses_v4(packet: &[u8], protocol: u8, zone: u16) -> Option<Tuple4> {
    let &[s0, s1, s2, s3, d0, d1, d2, d3] = packet.get(12..)?.first_chunk::<8>()?;
    Some(Tuple4::new([s0, s1, s2, s3], [d0, d1, d2, d3], 0, 0, protocol, zone))
}

#[inline]
fn addresses_v6(packet: &[u8], protocol: u8, zone: u16) -> Option<Tuple6> {
    let src = packet.get(8..)?.first_chunk::<16>()?;
    let dst = packet.get(24..)?.first_chunk::<16>()?;
    Some(Tuple6::new(*src, *dst, 0, 0, protocol, zone))
}

/// Data offset (RFC 9293 section 3.1) and flag combinations that no stack sends.
#[inline]
fn check_tcp(l4: &[u8]) -> Result<(), Invalid> {
    const FIN: u8 = 0x01;
    const SYN: u8 = 0x02;
    const RST: u8 = 0x04;
    const PSH: u8 = 0x08;
    const ACK: u8 = 0x10;
    const URG: u8 = 0x20;
    let header = l4.first_chunk::<20>().ok_or(Invalid::L4Header)?;
    let header_len = usize::from(header[12] >> 4) * 4;
    if header_len < 20 || header_len > l4.len() {
        return Err(Invalid::TcpDataOffset);
    }
    let flags = header[13];
    if flags & SYN != 0 && flags & (FIN | RST) != 0 {
        return Err(Invalid::TcpSynFinRst);
    }
    if flags & (SYN | ACK | RST) == 0 {
        return Err(Invalid::TcpNoFlags);
    }
    if flags & ACK == 0 && flags & (FIN | PSH | URG) != 0 {
        return Err(Invalid::TcpNoAck);
    }
    Ok(())
}

#[inline]
fn check_udp(l4: &[u8], ipv6: bool) -> Result<(), Invalid> {
    let &[_, _, _, _, high, low, c0, c1] = l4.first_chunk::<8>().ok_or(Invalid::L4Header)?;
    let len = usize::from(u16::from_be_bytes([high, low]));
    if len < 8 || len > l4.len() {
        return Err(Invalid::UdpLength);
    }
    if ipv6 && [c0, c1] == [0, 0] {
        return Err(Invalid::UdpNoChecksum);
    }
    Ok(())
}

/// What an ICMP message of a type is to conntrack.
enum IcmpKind {
    Query,
    Error,
}

fn icmp_kind(tuple: &Tuple, kind: u8) -> Result<IcmpKind, Invalid> {
    let (query, error) = match tuple {
        Tuple::V4(_) => (icmp_type::counterpart(kind).is_some(), icmp_type::is_error(kind)),
        Tuple::V6(_) => (icmpv6_type::counterpart(kind).is_some(), icmpv6_type::is_error(kind)),
    };
    match (query, error) {
        (true, _) => Ok(IcmpKind::Query),
        (_, true) => Ok(IcmpKind::Error),
        _ => Err(Invalid::IcmpType),
    }
}

fn extract_icmp(
    frame: &[u8],
    layers: &Layers,
    tuple: Tuple,
    trust: ChecksumTrust,
) -> Result<Extracted, Invalid> {
    let l4 = layers.l4_bytes(frame);
    let &[kind, code, _, _, i0, i1, _, _] = l4.first_chunk::<8>().ok_or(Invalid::L4Header)?;
    let kind_of = icmp_kind(&tuple, kind)?;
    if matches!(kind_of, IcmpKind::Query) && code != 0 {
        return Err(Invalid::IcmpCode);
    }
    if !trust.l4 && !checksum::l4_is_valid(frame, layers) {
        return Err(Invalid::IcmpChecksum);
    }
    match kind_of {
        IcmpKind::Query => {
            let id = u16::from_be_bytes([i0, i1]);
            Ok(Extracted::Packet(tuple.with_keys(id, u16::from_be_bytes([kind, code]))))
        }
        IcmpKind::Error => {
            let inner_layers = layers.parse_quoted(frame, layers.l4.saturating_add(8));
            let inner = quoted_tuple(frame, &inner_layers, tuple.zone())?;
            if inner.src() != tuple.dst() {
                return Err(Invalid::IcmpQuoteSource);
            }
            Ok(Extracted::IcmpError { inner, inner_layers })
        }
    }
}

/// The tuple of a packet that an ICMP error quotes: at least 8 bytes of its L4 must be there (RFC 792), its
/// checksums cannot be verified. An error about an error is not tracked (RFC 1122 section 3.2.2 forbids it).
fn quoted_tuple(frame: &[u8], layers: &Layers, zone: u16) -> Result<Tuple, Invalid> {
    let packet = layers.l3_bytes(frame);
    let l4 = layers.l4_bytes(frame);
    let Some(&[kind, code, _, _, i0, i1, _, _]) = l4.first_chunk::<8>() else {
        return Err(Invalid::IcmpQuote);
    };
    let tuple = match layers.ether_type {
        ether_type::IPV6 => addresses_v6(packet, layers.protocol, zone).map(Tuple::V6),
        _ => addresses_v4(packet, layers.protocol, zone).map(Tuple::V4),
    }
    .ok_or(Invalid::IcmpQuote)?;
    if tuple.has_ports() {
        return tuple.with_ports(l4).map_err(|_| Invalid::IcmpQuote);
    }
    if tuple.is_icmp() {
        let query = matches!(icmp_kind(&tuple, kind), Ok(IcmpKind::Query));
        if !query || code != 0 {
            return Err(Invalid::IcmpQuote);
        }
        return Ok(tuple.with_keys(u16::from_be_bytes([i0, i1]), u16::from_be_bytes([kind, code])));
    }
    Ok(tuple)
}

#[cfg(test)]
#[path = "extract_tests.rs"]
mod tests;
