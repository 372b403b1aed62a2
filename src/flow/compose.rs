//! A packet that a flow matches (`compose-packet` of ovs-ofctl): for scripts that put packets through tables. What the
//! flow leaves open is 0, as ovs-ofctl has it; lengths and checksums are right.

use core::net::{Ipv4Addr, Ipv6Addr};

use weir_wire::Layers;
use weir_wire::build::PacketBuilder;
use weir_wire::header::tcp::flag;

use super::error::{Error, Problem, Warning};
use super::flow::{Command, FlowMod};
use super::key::{Key, at};
use super::lexer::Text;
use super::matching::{VLAN_PRESENT, ether_type, protocol};
use super::port::PortNames;
use super::value;

/// Bytes of payload that a packet with none given has.
const DEFAULT_LENGTH: usize = 64;
/// Bytes of payload at most, so that a packet stays one.
const MAX_LENGTH: usize = 65_000;
/// Where a later fragment begins, in bytes, when only that it is one is said.
const LATER: u16 = 800;

const IGMP: u8 = 2;

/// What follows the innermost header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload(Vec<u8>);

impl Default for Payload {
    fn default() -> Self {
        Self::counting(DEFAULT_LENGTH)
    }
}

impl Payload {
    /// 0, 1, 2, ...
    fn counting(length: usize) -> Self {
        Self((0..=u8::MAX).cycle().take(length).collect())
    }

    /// `HEX`, `/LENGTH`, or `HEX/LENGTH`, which repeats the bytes.
    ///
    /// # Errors
    /// With the place of the mistake.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let text = Text::line(text);
        let (hex, length) = text.split_once("/").map_or((text, None), |(hex, length)| (hex, Some(length)));
        let length = match length {
            Some(text) => {
                let max = u32::try_from(MAX_LENGTH).unwrap_or(u32::MAX);
                let length = value::small("the length of the payload", text, max)?;
                Some(usize::try_from(length).unwrap_or(0))
            }
            None => None,
        };
        let digits = hex.text.as_bytes();
        let wrong = || {
            hex.error(Problem::BadValue {
                what: "the payload".into(),
                found: hex.text.chars().take(40).collect(),
                expected: "pairs of hexadecimal digits, or /LENGTH".into(),
            })
        };
        if !digits.len().is_multiple_of(2) || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(wrong());
        }
        if digits.len() / 2 > MAX_LENGTH {
            return Err(hex.slice(0, 1).error(Problem::LineTooLong { length: digits.len() }));
        }
        let byte = |pair: &[u8; 2]| {
            core::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok())
        };
        let bytes: Vec<u8> = digits.as_chunks::<2>().0.iter().filter_map(byte).collect();
        Ok(match length {
            None => Self(bytes),
            Some(length) if bytes.is_empty() => Self::counting(length),
            Some(length) => Self(bytes.iter().copied().cycle().take(length).collect()),
        })
    }
}

/// A packet, and what of the flow is not in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Composed {
    /// An Ethernet frame.
    pub frame: Vec<u8>,
    /// Fields that packets of this kind do not have.
    pub warnings: Vec<Warning>,
}

/// Makes a packet that `flow` (a match, without actions) matches. Where a mask leaves bits open they are 0. Payload is
/// added to TCP (without SYN, FIN, RST), UDP and ICMP echo, and where some is asked for to SCTP and other protocols.
///
/// # Errors
/// With the place of the mistake.
pub fn compose(flow: &str, payload: &Payload, ports: &dyn PortNames) -> Result<Composed, Error> {
    let parsed = FlowMod::parse(flow, Command::Dump, ports)?;
    let key = parsed.flow.matching.key;
    let kind = number(&key, at::ETH_TYPE, 2);
    if matches!(kind, ether_type::MPLS | ether_type::MPLS_MULTICAST) {
        let what = "composing MPLS packets".into();
        return Err(Text::line(flow).error(Problem::Unsupported { what }));
    }
    let builder = link(&key, kind);
    let frame = match kind {
        ether_type::ARP | ether_type::RARP => {
            let sender = (mac(&key, at::ARP_SHA), address(&key, at::NW_SRC));
            let target = (mac(&key, at::ARP_THA), address(&key, at::NW_DST));
            builder.arp(number(&key, at::NW_PROTO, 1), sender, target).build()
        }
        ether_type::IPV4 | ether_type::IPV6 => internet(builder, &key, kind, payload),
        _ => {
            let given = *payload != Payload::default();
            builder.payload(if given { &payload.0 } else { &[] }).build()
        }
    };
    Ok(Composed { frame, warnings: parsed.warnings })
}

/// Inverts the checksum of an IPv4 header; other packets stay as they are.
pub fn spoil_checksum(frame: &mut [u8]) {
    let layers = Layers::parse(frame);
    let place = usize::from(layers.l3) + 10;
    if layers.is_ipv4()
        && let Some(checksum) = frame.get_mut(place..place + 2)
    {
        checksum.iter_mut().for_each(|byte| *byte ^= 0xff);
    }
}

fn number(key: &Key, offset: usize, length: usize) -> u16 {
    u16::try_from(key.read(offset, length)).unwrap_or(u16::MAX)
}

fn mac(key: &Key, offset: usize) -> [u8; 6] {
    let [.., a, b, c, d, e, f] = key.read(offset, 6).to_be_bytes();
    [a, b, c, d, e, f]
}

fn address(key: &Key, offset: usize) -> Ipv4Addr {
    Ipv4Addr::from(u32::try_from(key.read(offset, 4)).unwrap_or(0))
}

fn link(key: &Key, kind: u16) -> PacketBuilder {
    let builder =
        PacketBuilder::new().ethernet(mac(key, at::ETH_SRC), mac(key, at::ETH_DST)).ether_type(kind);
    let tci = number(key, at::VLAN_TCI, 2);
    if tci & VLAN_PRESENT == 0 { builder } else { builder.vlan(tci & !VLAN_PRESENT) }
}

fn internet(builder: PacketBuilder, key: &Key, kind: u16, payload: &Payload) -> Vec<u8> {
    let byte = |offset| u8::try_from(key.read(offset, 1)).unwrap_or(0);
    let builder = if kind == ether_type::IPV4 {
        builder.ipv4(address(key, at::NW_SRC), address(key, at::NW_DST))
    } else {
        let label = u32::try_from(key.read(at::IPV6_LABEL, 4)).unwrap_or(0);
        let (src, dst) = (key.read(at::IPV6_SRC, 16), key.read(at::IPV6_DST, 16));
        builder.ipv6(Ipv6Addr::from(src), Ipv6Addr::from(dst)).flow_label(label)
    };
    let builder = builder.tos(byte(at::NW_TOS)).ttl(byte(at::NW_TTL));
    let number_of_protocol = byte(at::NW_PROTO);
    match byte(at::NW_FRAG) & 3 {
        0 => transport(builder, key, kind, number_of_protocol, payload).build(),
        1 => first_fragment(&transport(builder, key, kind, number_of_protocol, payload), kind),
        // What a later fragment holds nobody can tell.
        _ => builder.protocol(number_of_protocol).fragment(0, LATER, true).build(),
    }
}

/// The builder leaves a fragment's transport checksum out; here the whole packet is known, and it is what that packet
/// has.
fn first_fragment(whole: &PacketBuilder, kind: u16) -> Vec<u8> {
    let complete = whole.build();
    let mut frame = whole.clone().fragment(0, 0, true).build();
    let (from, to) = (Layers::parse(&complete), Layers::parse(&frame));
    let bytes = from.l4_bytes(&complete).to_vec();
    let fits = to.l4 != 0 && (kind == ether_type::IPV4 || kind == ether_type::IPV6);
    if fits && let Some(place) = frame.get_mut(usize::from(to.l4)..usize::from(to.l4) + bytes.len()) {
        place.copy_from_slice(&bytes);
    }
    frame
}

fn transport(
    builder: PacketBuilder,
    key: &Key,
    kind: u16,
    number_of_protocol: u8,
    payload: &Payload,
) -> PacketBuilder {
    let (src, dst) = (number(key, at::TP_SRC, 2), number(key, at::TP_DST, 2));
    let given = *payload != Payload::default();
    let low = |word: u16| word.to_be_bytes()[1];
    match (number_of_protocol, kind) {
        (protocol::TCP, _) => {
            let flags = number(key, at::TCP_FLAGS, 2);
            let control = flags & (flag::SYN | flag::FIN | flag::RST) != 0;
            let builder = builder.tcp(src, dst).flags(flags).window(0);
            if control && !given { builder } else { builder.payload(&payload.0) }
        }
        (protocol::UDP, _) => builder.udp(src, dst).payload(&payload.0),
        (protocol::SCTP, _) => {
            let builder = builder.sctp(src, dst, 0);
            if given { builder.payload(&payload.0) } else { builder }
        }
        (protocol::ICMP, ether_type::IPV4) => {
            let echo = matches!(src, 0 | 8) && dst == 0;
            let builder = builder.icmp(low(src), low(dst), 0);
            if echo || given { builder.payload(&payload.0) } else { builder }
        }
        (protocol::ICMPV6, ether_type::IPV6) => {
            let builder = builder.icmp(low(src), low(dst), 0);
            match low(src) {
                135 | 136 if low(dst) == 0 => builder.payload(&neighbour(key, low(src))),
                128 | 129 => builder.payload(&payload.0),
                _ if given => builder.payload(&payload.0),
                _ => builder,
            }
        }
        // A query with nothing asked for: type and group 0, and the checksum of that (RFC 2236 section 2).
        (IGMP, ether_type::IPV4) if !given => builder.protocol(IGMP).payload(&[0, 0, 0xff, 0xff, 0, 0, 0, 0]),
        (other, _) => {
            let builder = builder.protocol(other);
            if given { builder.payload(&payload.0) } else { builder }
        }
    }
}

/// RFC 4861 sections 4.3 and 4.4: target, and a link-layer address if the flow has one.
fn neighbour(key: &Key, kind: u8) -> Vec<u8> {
    let mut body = key.read(at::ND_TARGET, 16).to_be_bytes().to_vec();
    let (option, place) = if kind == 135 { (1, at::ARP_SHA) } else { (2, at::ARP_THA) };
    let address = mac(key, place);
    if address != [0; 6] {
        body.extend([option, 1]);
        body.extend(address);
    }
    body
}

#[cfg(test)]
mod tests;
