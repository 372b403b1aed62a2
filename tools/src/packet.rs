//! Test packets: made from a description, damaged on purpose where it says so, and taken apart again to see
//! what a switch did to them.
//!
//! Deliberately independent of `weir-wire`: an error in that crate's checksums or offsets must not hide behind
//! the same error here.

use std::net::IpAddr;

/// Bytes of an Ethernet header without tags.
pub const ETHERNET: usize = 14;
/// A frame is padded to this (IEEE 802.3, without the frame check sequence).
const LEAST_FRAME: usize = 60;

/// IPv6 extension headers that are walked: hop-by-hop options, routing, destination options; and the fragment header.
const EXTENSIONS: [u8; 3] = [0, ROUTING, 60];
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;

/// Protocol numbers (IANA).
pub mod protocol {
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// SCTP.
    pub const SCTP: u8 = 132;
    /// Generic routing encapsulation: here "any protocol without ports".
    pub const GRE: u8 = 47;
    /// Encapsulating security payload: another one.
    pub const ESP: u8 = 50;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// Stands for ICMP's timestamp queries, whose identifiers are none of echo's (253 is for experiments, RFC 3692).
    pub const TIMESTAMP: u8 = 253;
}

/// An address with a port; for ICMP queries the identifier is the port of whoever asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    /// IPv4 or IPv6.
    pub address: IpAddr,
    /// Port or ICMP identifier; 0 where there is none.
    pub port: u16,
}

/// What follows the IP header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// A TCP segment.
    Tcp {
        /// The flags octet (RFC 9293 section 3.1).
        flags: u8,
        /// Sequence number.
        seq: u32,
        /// Acknowledgment number.
        ack: u32,
        /// Window as it stands in the header.
        window: u16,
        /// Window scale option (RFC 7323 section 2.2).
        scale: Option<u8>,
        /// Further options as they stand in the header, a multiple of 4 bytes.
        options: Vec<u8>,
    },
    /// A UDP datagram.
    Udp,
    /// An ICMP or ICMPv6 echo request or reply.
    Echo {
        /// Whether it is the reply.
        reply: bool,
        /// Code, 0 if it is to be well-formed.
        code: u8,
    },
    /// An ICMP or ICMPv6 error.
    Error {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
        /// The four bytes behind the checksum: the next hop's MTU, a gateway, a pointer, or nothing.
        word: u32,
        /// The packet that it is about, from its IP header on.
        about: Vec<u8>,
    },
    /// An ICMP timestamp request or reply (RFC 792).
    Timestamp {
        /// Whether it is the reply.
        reply: bool,
    },
    /// An ICMP information request or reply (RFC 792).
    Information {
        /// Whether it is the reply.
        reply: bool,
    },
    /// Any other ICMP type.
    Icmp {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
    },
    /// An SCTP packet (RFC 9260 section 3).
    Sctp {
        /// Verification tag.
        tag: u32,
        /// Chunks, each padded to a multiple of 4 bytes.
        chunks: Vec<u8>,
    },
    /// Payload of a protocol without ports.
    Other {
        /// Its number.
        protocol: u8,
    },
}

/// What is done wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// The IPv4 header checksum is off by one.
    L3Checksum,
    /// The TCP, UDP or ICMP checksum is off by one.
    L4Checksum,
    /// The UDP checksum is 0: "none" over IPv4 (RFC 768), forbidden over IPv6 (RFC 8200 section 8.1).
    NoL4Checksum,
    /// The frame ends after so many bytes.
    Cut(u16),
    /// The IP total (or payload) length is so many bytes more than there are; the header checksum is right.
    Longer(u16),
    /// The IPv4 header length field, in 4-byte words.
    HeaderWords(u8),
    /// The TCP data offset field, in 4-byte words.
    DataOffset(u8),
    /// The UDP length field.
    UdpLength(u16),
}

/// A packet to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Source; its family is the packet's.
    pub src: Endpoint,
    /// Destination.
    pub dst: Endpoint,
    /// Its body.
    pub body: Body,
    /// Bytes after the L4 header; what they are nobody looks at.
    pub payload: u16,
    /// The payload itself, in place of `payload` bytes, where it is not empty.
    pub data: Vec<u8>,
    /// Time to live or hop limit.
    pub ttl: u8,
    /// Identification (IPv4, or of the fragment header).
    pub id: u16,
    /// VLAN tag: its tag control information.
    pub tag: Option<u16>,
    /// 4-byte words of IPv4 options (no-operations).
    pub option_words: u8,
    /// Extension headers of IPv6 in this order: next header number, and 8-byte units after the first (RFC 8200
    /// section 4).
    pub extensions: Vec<(u8, u8)>,
    /// Only these bytes of the L4 packet, as a fragment: from, to (multiples of 8 but for the last).
    pub slice: Option<(u16, u16)>,
    /// Whether more fragments follow, if the fragment is to say otherwise than its place in the packet.
    pub more: Option<bool>,
    /// What is wrong with it.
    pub damage: Vec<Damage>,
}

/// RFC 1071: the ones' complement sum, not yet complemented.
fn sum(bytes: &[u8], start: u32) -> u32 {
    let mut total = start;
    for pair in bytes.chunks(2) {
        total += u32::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u32::from);
        total = (total & 0xffff) + (total >> 16);
    }
    total
}

/// RFC 1071 checksum of `bytes`, on top of the sum `start`.
fn checksum(bytes: &[u8], start: u32) -> u16 {
    let folded = sum(bytes, start);
    !u16::try_from(folded & 0xffff).unwrap_or(0)
}

/// CRC32c (RFC 9260 appendix A) of an SCTP packet whose checksum field counts as zero.
fn crc32c(packet: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for (at, byte) in packet.iter().enumerate() {
        crc ^= u32::from(if (8..12).contains(&at) { 0 } else { *byte });
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// Sum of the pseudo header (RFC 9293 section 3.1, RFC 8200 section 8.1).
fn pseudo(src: &[u8], dst: &[u8], protocol: u8, length: usize) -> u32 {
    let length = u32::try_from(length).unwrap_or(0);
    let addresses = sum(dst, sum(src, 0));
    sum(&length.to_be_bytes(), addresses + u32::from(protocol))
}

fn put16(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(place) = bytes.get_mut(at..at + 2) {
        place.copy_from_slice(&value.to_be_bytes());
    }
}

fn word(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |b| u16::from_be_bytes([b[0], b[1]]))
}

/// Where the checksum stands in an L4 header.
fn checksum_offset(protocol: u8) -> Option<usize> {
    match protocol {
        protocol::TCP => Some(16),
        protocol::UDP => Some(6),
        protocol::ICMP | protocol::ICMPV6 => Some(2),
        _ => None,
    }
}

impl Packet {
    /// A whole, well-formed packet without payload.
    pub fn new(src: Endpoint, dst: Endpoint, body: Body) -> Self {
        Self {
            src,
            dst,
            body,
            payload: 0,
            ttl: 64,
            id: 1,
            tag: None,
            option_words: 0,
            data: Vec::new(),
            extensions: Vec::new(),
            slice: None,
            more: None,
            damage: Vec::new(),
        }
    }

    /// Its protocol number.
    pub fn protocol(&self) -> u8 {
        match self.body {
            Body::Tcp { .. } => protocol::TCP,
            Body::Udp => protocol::UDP,
            Body::Sctp { .. } => protocol::SCTP,
            Body::Other { protocol } => protocol,
            _ if self.src.address.is_ipv6() => protocol::ICMPV6,
            _ => protocol::ICMP,
        }
    }

    /// Whose ports or identifiers its own are: its protocol, but for timestamp queries.
    pub fn port_space(&self) -> u8 {
        if let Body::Timestamp { .. } = self.body { protocol::TIMESTAMP } else { self.protocol() }
    }

    /// The Ethernet frame, from hardware address `from` to `to`.
    pub fn frame(&self, from: [u8; 6], to: [u8; 6]) -> Vec<u8> {
        let mut frame = Vec::with_capacity(LEAST_FRAME);
        frame.extend(to);
        frame.extend(from);
        if let Some(tag) = self.tag {
            frame.extend([0x81, 0x00]);
            frame.extend(tag.to_be_bytes());
        }
        frame.extend(if self.src.address.is_ipv6() { [0x86, 0xdd] } else { [0x08, 0x00] });
        frame.extend(self.bytes());
        if frame.len() < LEAST_FRAME {
            frame.resize(LEAST_FRAME, 0);
        }
        for damage in &self.damage {
            if let Damage::Cut(length) = damage {
                frame.truncate(usize::from(*length));
            }
        }
        frame
    }

    /// The packet from its IP header on.
    pub fn bytes(&self) -> Vec<u8> {
        let mut l4 = self.l4();
        let whole = l4.len();
        if let Some((from, to)) = self.slice {
            l4 = l4.get(usize::from(from)..usize::from(to).min(whole)).unwrap_or_default().to_vec();
        }
        let more = self.more.unwrap_or(self.slice.is_some_and(|(_, to)| usize::from(to) < whole));
        let offset = self.slice.map_or(0, |(from, _)| from);
        let mut bytes = if self.src.address.is_ipv6() {
            self.v6_header(l4.len(), self.slice.map(|_| (offset, more)))
        } else {
            self.v4_header(l4.len(), offset, more)
        };
        bytes.extend(l4);
        bytes
    }

    fn v4_header(&self, length: usize, offset: u16, more: bool) -> Vec<u8> {
        let words = 5 + self.option_words.min(10);
        let mut header = vec![0x40 | words, 0, 0, 0, 0, 0, 0, 0, self.ttl, self.protocol(), 0, 0];
        header.extend(octets(self.src.address));
        header.extend(octets(self.dst.address));
        header.resize(usize::from(words) * 4, 1);
        let total = u16::try_from(header.len() + length).unwrap_or(u16::MAX);
        put16(&mut header, 2, total.saturating_add(self.longer()));
        put16(&mut header, 4, self.id);
        let flags: u16 = if self.slice.is_some() { if more { 0x2000 } else { 0 } } else { 0x4000 };
        put16(&mut header, 6, flags | (offset / 8));
        for damage in &self.damage {
            if let Damage::HeaderWords(words) = damage {
                header[0] = 0x40 | words & 0x0f;
            }
        }
        let mut value = checksum(&header, 0);
        if self.damage.contains(&Damage::L3Checksum) {
            value ^= 1;
        }
        put16(&mut header, 10, value);
        header
    }

    fn v6_header(&self, length: usize, fragment: Option<(u16, bool)>) -> Vec<u8> {
        let mut header = vec![0x60, 0, 0, 0, 0, 0, 0, self.ttl];
        header.extend(octets(self.src.address));
        header.extend(octets(self.dst.address));
        // Where the number of the header that comes next has to be written.
        let mut next = 6;
        for &(kind, units) in &self.extensions {
            header[next] = kind;
            next = header.len();
            let length = 8 * (1 + usize::from(units));
            header.extend([0, units]);
            // Options: one PadN over the rest. A routing header: of type 1, with no segment left.
            header.extend([1, if kind == ROUTING { 0 } else { u8::try_from(length - 4).unwrap_or(0) }]);
            header.resize(next + length, 0);
        }
        if let Some((offset, more)) = fragment {
            header[next] = FRAGMENT;
            next = header.len();
            // RFC 8200 section 4.5: the offset counts 8-byte units in the upper 13 bits, so bytes as they are.
            let [high, low] = (offset & 0xfff8 | u16::from(more)).to_be_bytes();
            let [id_high, id_low] = self.id.to_be_bytes();
            header.extend([0, 0, high, low, 0, 0, id_high, id_low]);
        }
        header[next] = self.protocol();
        let total = u16::try_from(header.len() - 40 + length).unwrap_or(u16::MAX);
        put16(&mut header, 4, total.saturating_add(self.longer()));
        header
    }

    fn longer(&self) -> u16 {
        self.damage.iter().map(|damage| if let Damage::Longer(by) = damage { *by } else { 0 }).sum()
    }

    fn l4(&self) -> Vec<u8> {
        let v6 = self.src.address.is_ipv6();
        let mut l4 = Vec::new();
        match &self.body {
            Body::Tcp { flags, seq, ack, window, scale, options } => {
                l4.extend(self.src.port.to_be_bytes());
                l4.extend(self.dst.port.to_be_bytes());
                l4.extend(seq.to_be_bytes());
                l4.extend(ack.to_be_bytes());
                let words = 5 + usize::from(scale.is_some()) + options.len().div_ceil(4);
                l4.extend([u8::try_from(words.min(15) << 4).unwrap_or(0), *flags]);
                l4.extend(window.to_be_bytes());
                l4.extend([0; 4]);
                if let Some(shift) = scale {
                    l4.extend([1, 3, 3, *shift]);
                }
                l4.extend(options);
                // Padded with no-operations.
                l4.resize(l4.len().next_multiple_of(4), 1);
            }
            Body::Sctp { tag, chunks } => {
                l4.extend(self.src.port.to_be_bytes());
                l4.extend(self.dst.port.to_be_bytes());
                l4.extend(tag.to_be_bytes());
                l4.extend([0; 4]);
                l4.extend(chunks);
            }
            Body::Udp => {
                l4.extend(self.src.port.to_be_bytes());
                l4.extend(self.dst.port.to_be_bytes());
                let payload = if self.data.is_empty() { usize::from(self.payload) } else { self.data.len() };
                l4.extend(u16::try_from(8 + payload).unwrap_or(u16::MAX).to_be_bytes());
                l4.extend([0; 2]);
            }
            Body::Echo { reply, code } => {
                let kind = match (v6, reply) {
                    (false, false) => 8,
                    (false, true) => 0,
                    (true, false) => 128,
                    (true, true) => 129,
                };
                let id = if *reply { self.dst.port } else { self.src.port };
                l4.extend([kind, *code, 0, 0]);
                l4.extend(id.to_be_bytes());
                l4.extend([0, 1]);
            }
            Body::Timestamp { reply } => {
                let id = if *reply { self.dst.port } else { self.src.port };
                l4.extend([if *reply { 14 } else { 13 }, 0, 0, 0]);
                l4.extend(id.to_be_bytes());
                l4.extend([0, 1]);
                l4.extend([0; 12]);
            }
            Body::Information { reply } => {
                let id = if *reply { self.dst.port } else { self.src.port };
                l4.extend([if *reply { 16 } else { 15 }, 0, 0, 0]);
                l4.extend(id.to_be_bytes());
                l4.extend([0, 1]);
            }
            Body::Error { kind, code, word, about } => {
                l4.extend([*kind, *code, 0, 0]);
                l4.extend(word.to_be_bytes());
                l4.extend(about);
            }
            Body::Icmp { kind, code } => l4.extend([*kind, *code, 0, 0, 0, 0, 0, 0]),
            Body::Other { .. } => {}
        }
        if self.data.is_empty() {
            l4.extend((0..self.payload).map(|at| u8::try_from(at % 251).unwrap_or(0)));
        } else {
            l4.extend(&self.data);
        }
        for damage in &self.damage {
            match damage {
                Damage::DataOffset(words) if l4.len() > 12 => l4[12] = words << 4,
                Damage::UdpLength(length) => put16(&mut l4, 4, *length),
                _ => {}
            }
        }
        self.finish_checksum(&mut l4);
        l4
    }

    fn finish_checksum(&self, l4: &mut [u8]) {
        let protocol = self.protocol();
        if protocol == protocol::SCTP {
            let flipped = u32::from(self.damage.contains(&Damage::L4Checksum));
            let value = crc32c(l4) ^ flipped;
            // RFC 9260 appendix A: transmitted with the least significant byte first.
            l4[8..12].copy_from_slice(&value.to_le_bytes());
            return;
        }
        let Some(at) = checksum_offset(protocol) else { return };
        let start = if protocol == protocol::ICMP {
            0
        } else {
            pseudo(&octets(self.src.address), &octets(self.dst.address), protocol, l4.len())
        };
        let mut value = checksum(l4, start);
        if protocol == protocol::UDP && value == 0 {
            value = 0xffff;
        }
        if self.damage.contains(&Damage::L4Checksum) {
            value ^= 1;
        }
        if self.damage.contains(&Damage::NoL4Checksum) {
            value = 0;
        }
        put16(l4, at, value);
    }
}

/// The places of a packet's fields, as offsets into the bytes that it was found in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// Start of the IP header.
    pub l3: usize,
    /// Start of the L4 header.
    pub l4: usize,
    /// End of the packet, by its own length field or where the bytes end.
    pub end: usize,
    /// Whether the bytes reach as far as its length field says.
    pub whole: bool,
    /// Protocol after extension headers.
    pub protocol: u8,
    /// 4 or 16.
    pub address_length: usize,
    /// Whether it is a fragment other than the first.
    pub later_fragment: bool,
    /// Whether it is any fragment.
    pub fragment: bool,
}

/// Where the IP header of a frame starts that has at most one VLAN tag.
pub fn network(frame: &[u8]) -> usize {
    if word(frame, 12) == 0x8100 { ETHERNET + 4 } else { ETHERNET }
}

impl Places {
    /// Finds a packet whose IP header starts at `l3`; None if its headers do not fit.
    pub fn find(bytes: &[u8], l3: usize) -> Option<Self> {
        let first = *bytes.get(l3)?;
        match first >> 4 {
            4 if bytes.len() >= l3 + 20 => {
                let l4 = l3 + usize::from(first & 0x0f) * 4;
                let end = l3 + usize::from(word(bytes, l3 + 2));
                let fragment = word(bytes, l3 + 6);
                Some(Self {
                    l3,
                    l4,
                    end,
                    whole: true,
                    protocol: bytes[l3 + 9],
                    address_length: 4,
                    later_fragment: fragment & 0x1fff != 0,
                    fragment: fragment & 0x3fff != 0,
                })
            }
            6 if bytes.len() >= l3 + 40 => {
                let end = l3 + 40 + usize::from(word(bytes, l3 + 4));
                let (mut l4, mut protocol, mut field) = (l3 + 40, bytes[l3 + 6], None);
                while EXTENSIONS.contains(&protocol) && bytes.len() >= l4 + 8 {
                    protocol = bytes[l4];
                    l4 += 8 * (1 + usize::from(bytes[l4 + 1]));
                }
                if protocol == 44 && bytes.len() >= l4 + 8 {
                    field = Some(word(bytes, l4 + 2));
                    protocol = bytes[l4];
                    l4 += 8;
                }
                Some(Self {
                    l3,
                    l4,
                    end,
                    whole: true,
                    protocol,
                    address_length: 16,
                    later_fragment: field.is_some_and(|field| field & 0xfff8 != 0),
                    fragment: field.is_some(),
                })
            }
            _ => None,
        }
        .map(|places| Self { whole: places.end <= bytes.len(), end: places.end.min(bytes.len()), ..places })
        .filter(|places| places.l4 <= places.end)
    }

    fn address_at(&self, second: bool) -> usize {
        let first = self.l3 + if self.address_length == 4 { 12 } else { 8 };
        first + if second { self.address_length } else { 0 }
    }

    fn address(&self, bytes: &[u8], second: bool) -> Option<IpAddr> {
        let at = self.address_at(second);
        let raw = bytes.get(at..at + self.address_length)?;
        match self.address_length {
            4 => <[u8; 4]>::try_from(raw).ok().map(IpAddr::from),
            _ => <[u8; 16]>::try_from(raw).ok().map(IpAddr::from),
        }
    }

    /// Whether it is ICMP of either version.
    pub fn is_icmp(&self) -> bool {
        matches!(self.protocol, protocol::ICMP | protocol::ICMPV6)
    }

    /// As [`Packet::port_space`].
    pub fn port_space(&self, bytes: &[u8]) -> u8 {
        match (self.protocol, bytes.get(self.l4)) {
            (protocol::ICMP, Some(13 | 14)) if !self.later_fragment => protocol::TIMESTAMP,
            _ => self.protocol,
        }
    }

    /// Where the port (or ICMP query identifier) of one end stands, if the packet has it.
    fn port_at(&self, bytes: &[u8], second: bool) -> Option<usize> {
        if self.later_fragment {
            return None;
        }
        match self.protocol {
            // A packet that an error quotes may end right behind its ports.
            protocol::TCP | protocol::UDP | protocol::SCTP if self.end >= self.l4 + 4 => {
                Some(self.l4 + if second { 2 } else { 0 })
            }
            protocol::ICMP | protocol::ICMPV6 if self.end >= self.l4 + 8 => match bytes[self.l4] {
                8 | 13 | 15 | 128 if !second => Some(self.l4 + 4),
                0 | 14 | 16 | 129 if second => Some(self.l4 + 4),
                _ => None,
            },
            _ => None,
        }
    }

    fn endpoint(&self, bytes: &[u8], second: bool) -> Option<Endpoint> {
        let port = self.port_at(bytes, second).map_or(0, |at| word(bytes, at));
        Some(Endpoint { address: self.address(bytes, second)?, port })
    }

    /// Source endpoint.
    pub fn src(&self, bytes: &[u8]) -> Option<Endpoint> {
        self.endpoint(bytes, false)
    }

    /// Destination endpoint.
    pub fn dst(&self, bytes: &[u8]) -> Option<Endpoint> {
        self.endpoint(bytes, true)
    }

    /// The packet inside an ICMP error.
    pub fn inner(&self, bytes: &[u8]) -> Option<Self> {
        let kind = *bytes.get(self.l4)?;
        let error = match self.protocol {
            protocol::ICMP => matches!(kind, 3 | 4 | 5 | 11 | 12),
            protocol::ICMPV6 => (1..=4).contains(&kind),
            _ => false,
        };
        if error && !self.later_fragment { Self::find(bytes, self.l4 + 8) } else { None }
    }

    /// Whether the IPv4 header checksum is right (true for IPv6, which has none).
    pub fn l3_checksum_is_right(&self, bytes: &[u8]) -> bool {
        self.address_length == 16
            || bytes.get(self.l3..self.l4).is_some_and(|header| checksum(header, 0) == 0)
    }

    /// Whether the L4 checksum is right; true where there is none or it cannot be seen (fragments).
    pub fn l4_checksum_is_right(&self, bytes: &[u8]) -> bool {
        if self.protocol == protocol::SCTP && !self.fragment {
            let packet = bytes.get(self.l4..self.end).unwrap_or_default();
            return packet.get(8..12).is_some_and(|found| found == crc32c(packet).to_le_bytes());
        }
        let Some(at) = checksum_offset(self.protocol) else { return true };
        let Some(l4) = bytes.get(self.l4..self.end) else { return false };
        if self.fragment || self.protocol == protocol::UDP && word(l4, at) == 0 {
            return true;
        }
        let addresses = bytes.get(self.address_at(false)..self.address_at(true) + self.address_length);
        let start = match (self.protocol, addresses) {
            (protocol::ICMP, _) => 0,
            (_, Some(both)) => pseudo(both, &[], self.protocol, l4.len()),
            _ => return false,
        };
        checksum(l4, start) == 0
    }

    /// Overwrites one end and blanks the checksums that depend on it.
    pub fn replace(&self, bytes: &mut [u8], second: bool, with: Endpoint) {
        let at = self.address_at(second);
        let raw = octets(with.address);
        if raw.len() == self.address_length
            && let Some(place) = bytes.get_mut(at..at + self.address_length)
        {
            place.copy_from_slice(&raw);
        }
        if let Some(at) = self.port_at(bytes, second) {
            put16(bytes, at, with.port);
        }
        self.blank_checksums(bytes);
    }

    /// Sets both checksums to 0.
    pub fn blank_checksums(&self, bytes: &mut [u8]) {
        if self.address_length == 4 {
            put16(bytes, self.l3 + 10, 0);
        }
        if let Some(at) = checksum_offset(self.protocol)
            && !self.later_fragment
            && self.l4 + at + 2 <= self.end
        {
            put16(bytes, self.l4 + at, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(address: &str, port: u16) -> Endpoint {
        Endpoint { address: address.parse().unwrap(), port }
    }

    fn bodies() -> Vec<Body> {
        let tcp = Body::Tcp { flags: 2, seq: 1, ack: 0, window: 1000, scale: Some(7), options: vec![4, 2] };
        vec![
            tcp,
            Body::Udp,
            Body::Echo { reply: false, code: 0 },
            Body::Echo { reply: true, code: 0 },
            Body::Other { protocol: protocol::GRE },
            Body::Timestamp { reply: false },
            Body::Information { reply: true },
            Body::Sctp { tag: 7, chunks: vec![10, 0, 0, 4] },
        ]
    }

    #[test]
    fn what_is_made_whole_is_found_whole() {
        for (a, b) in [("192.0.2.1", "198.51.100.1"), ("fd00::1", "fd00::2")] {
            for body in bodies() {
                for payload in [0, 1, 100] {
                    let mut packet = Packet::new(end(a, 4000), end(b, 80), body.clone());
                    packet.payload = payload;
                    let frame = packet.frame([2; 6], [4; 6]);
                    let places = Places::find(&frame, ETHERNET).unwrap();
                    assert!(places.l3_checksum_is_right(&frame) && places.l4_checksum_is_right(&frame));
                    assert_eq!(places.src(&frame).unwrap().address, packet.src.address);
                    assert_eq!(places.dst(&frame).unwrap().address, packet.dst.address);
                }
            }
        }
    }

    #[test]
    fn a_known_packet_comes_out_byte_by_byte() {
        let mut packet = Packet::new(end("192.168.0.2", 4000), end("198.51.100.1", 53), Body::Udp);
        packet.id = 0;
        packet.payload = 3;
        assert_eq!(
            packet.bytes(),
            [
                0x45, 0, 0, 31, 0, 0, 0x40, 0, 64, 17, 0x4f, 0xef, 192, 168, 0, 2, 198, 51, 100,
                1, // IP
                0x0f, 0xa0, 0, 53, 0, 11, 0x03, 0x23, 0, 1, 2, // UDP
            ]
        );
    }

    #[test]
    fn crc32c_gives_the_check_value_of_its_catalogue() {
        // "123456789" gives 0xe3069283; bytes 8 to 11 count as zero here, so only the first eight can stand.
        assert_eq!(crc32c(b"12345678"), 0x6087_809a);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa); // RFC 3720 appendix B.4
    }

    #[test]
    fn damage_is_seen() {
        let mut packet = Packet::new(end("192.0.2.1", 4000), end("198.51.100.1", 80), Body::Udp);
        packet.damage = vec![Damage::L4Checksum];
        let frame = packet.frame([2; 6], [4; 6]);
        assert!(!Places::find(&frame, ETHERNET).unwrap().l4_checksum_is_right(&frame));
        packet.damage = vec![Damage::Longer(100)];
        assert!(!Places::find(&packet.frame([2; 6], [4; 6]), ETHERNET).unwrap().whole);
    }
}
