//! Builds packets readably, with right lengths and checksums: for tests everywhere, captures for replay, and
//! tools that compose packets. Not for the packet path: it allocates.
//!
//! ```
//! use weir_wire::build::PacketBuilder;
//! use weir_wire::{ChecksumTrust, Layers, Tuple};
//!
//! let frame = PacketBuilder::new()
//!     .ipv4([10, 1, 1, 1], [10, 1, 1, 2])
//!     .tcp(40000, 80)
//!     .seq(1)
//!     .flags(weir_wire::header::tcp::flag::SYN)
//!     .build();
//! let tuple = Tuple::extract(&frame, &Layers::parse(&frame), 0, ChecksumTrust::NONE).unwrap().lookup();
//! assert_eq!(tuple.to_string(), "src=10.1.1.1,dst=10.1.1.2,sport=40000,dport=80");
//! ```

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::checksum;
use crate::layers::{Layers, MAX_FRAME};
use crate::numbers::{ether_type, icmp_type, icmpv6_type, protocol};

/// A packet under construction. Setters may come in any order but for the outermost: a header named twice is
/// replaced. What is left out has a sensible default; without a network header the payload follows the
/// Ethernet header.
#[derive(Clone, Debug)]
pub struct PacketBuilder {
    eth_dst: [u8; 6],
    eth_src: [u8; 6],
    /// TPID and TCI of each tag, outermost first.
    tags: Vec<(u16, u16)>,
    ether_type: Option<u16>,
    network: Network,
    tos: u8,
    ttl: u8,
    id: u16,
    /// The IPv4 flags and offset field: reserved, DF, MF, then 13 bits of offset.
    fragment: u16,
    flow_label: u32,
    ipv4_options: Vec<u8>,
    /// IPv6 extension headers: their number, and their bytes with a hole for the next header.
    extensions: Vec<(u8, Vec<u8>)>,
    transport: Transport,
    payload: Vec<u8>,
    udp_without_checksum: bool,
    min_len: usize,
}

#[derive(Clone, Debug)]
enum Network {
    None,
    Arp([u8; 28]),
    V4([u8; 4], [u8; 4]),
    V6([u8; 16], [u8; 16]),
}

#[derive(Clone, Debug)]
enum Transport {
    /// The payload follows the IP header; protocol number.
    Raw(u8),
    Tcp {
        ports: [u16; 2],
        seq: u32,
        ack: u32,
        flags: u16,
        window: u16,
        options: Vec<u8>,
    },
    Udp {
        ports: [u16; 2],
    },
    Sctp {
        ports: [u16; 2],
        tag: u32,
    },
    Icmp {
        kind: u8,
        code: u8,
        rest: u32,
    },
}

impl Default for PacketBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl PacketBuilder {
    /// An empty frame from 02:00:00:00:00:01 to 02:00:00:00:00:02.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            eth_dst: [2, 0, 0, 0, 0, 2],
            eth_src: [2, 0, 0, 0, 0, 1],
            tags: Vec::new(),
            ether_type: None,
            network: Network::None,
            tos: 0,
            ttl: 64,
            id: 0,
            fragment: 0,
            flow_label: 0,
            ipv4_options: Vec::new(),
            extensions: Vec::new(),
            transport: Transport::Raw(protocol::NO_NEXT),
            payload: Vec::new(),
            udp_without_checksum: false,
            min_len: 0,
        }
    }

    /// Ethernet source and destination.
    #[must_use]
    pub const fn ethernet(mut self, src: [u8; 6], dst: [u8; 6]) -> Self {
        self.eth_src = src;
        self.eth_dst = dst;
        self
    }

    /// Another ethertype than the network header's; needed only for frames without one.
    #[must_use]
    pub const fn ether_type(mut self, ether_type: u16) -> Self {
        self.ether_type = Some(ether_type);
        self
    }

    /// An 802.1Q tag, inside those that were added before; `tci` is priority and VLAN id.
    #[must_use]
    pub fn vlan(mut self, tci: u16) -> Self {
        self.tags.push((ether_type::VLAN, tci));
        self
    }

    /// An 802.1ad service tag, inside those that were added before.
    #[must_use]
    pub fn service_vlan(mut self, tci: u16) -> Self {
        self.tags.push((ether_type::QINQ, tci));
        self
    }

    /// An ARP message: operation (1 request, 2 reply), sender and target.
    #[must_use]
    pub fn arp(
        mut self,
        operation: u16,
        sender: ([u8; 6], impl Into<Ipv4Addr>),
        target: ([u8; 6], impl Into<Ipv4Addr>),
    ) -> Self {
        let mut message = [0; 28];
        let parts: [&[u8]; 6] = [
            &[0, 1, 0x08, 0, 6, 4],
            &operation.to_be_bytes(),
            &sender.0,
            &sender.1.into().octets(),
            &target.0,
            &target.1.into().octets(),
        ];
        for (to, from) in message.iter_mut().zip(parts.concat()) {
            *to = from;
        }
        self.network = Network::Arp(message);
        self
    }

    /// An IPv4 header.
    #[must_use]
    pub fn ipv4(mut self, src: impl Into<Ipv4Addr>, dst: impl Into<Ipv4Addr>) -> Self {
        self.network = Network::V4(src.into().octets(), dst.into().octets());
        self
    }

    /// An IPv6 header.
    #[must_use]
    pub fn ipv6(mut self, src: impl Into<Ipv6Addr>, dst: impl Into<Ipv6Addr>) -> Self {
        self.network = Network::V6(src.into().octets(), dst.into().octets());
        self
    }

    /// The header of the addresses' family; addresses of two families leave the packet without one.
    #[must_use]
    pub fn ip(self, src: IpAddr, dst: IpAddr) -> Self {
        match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => self.ipv4(src, dst),
            (IpAddr::V6(src), IpAddr::V6(dst)) => self.ipv6(src, dst),
            _ => self,
        }
    }

    /// TTL or hop limit; 64 if not set.
    #[must_use]
    pub const fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }

    /// DSCP and ECN.
    #[must_use]
    pub const fn tos(mut self, tos: u8) -> Self {
        self.tos = tos;
        self
    }

    /// IPv6 flow label, 20 bits.
    #[must_use]
    pub const fn flow_label(mut self, label: u32) -> Self {
        self.flow_label = label & 0x000f_ffff;
        self
    }

    /// IPv4 identification.
    #[must_use]
    pub const fn id(mut self, id: u16) -> Self {
        self.id = id;
        self
    }

    /// IPv4 "don't fragment".
    #[must_use]
    pub const fn dont_fragment(mut self) -> Self {
        self.fragment |= 0x4000;
        self
    }

    /// IPv4 options, padded with 0 to a multiple of 4 and cut to 40 bytes.
    #[must_use]
    pub fn ipv4_options(mut self, options: &[u8]) -> Self {
        self.ipv4_options = padded(options, 4, 40);
        self
    }

    /// An IPv6 extension header (hop-by-hop, routing, destination options) behind those added before;
    /// `content` is what follows its length field, padded to fit.
    #[must_use]
    pub fn extension(mut self, number: u8, content: &[u8]) -> Self {
        let mut bytes = vec![0, 0];
        bytes.extend_from_slice(content);
        let mut bytes = padded(&bytes, 8, 2048);
        let units = u8::try_from(bytes.len() / 8 - 1).unwrap_or(u8::MAX);
        if let [_, len, ..] = bytes.as_mut_slice() {
            *len = units;
        }
        self.extensions.push((number, bytes));
        self
    }

    /// An IPv6 authentication header with a 12-byte check value of zeros.
    #[must_use]
    pub fn authentication(mut self) -> Self {
        let mut bytes = vec![0; 24];
        if let [_, len, ..] = bytes.as_mut_slice() {
            *len = 4;
        }
        self.extensions.push((protocol::AUTHENTICATION, bytes));
        self
    }

    /// Makes the packet a fragment: `offset` in bytes (a multiple of 8), and whether more follow. Over IPv6 a
    /// fragment header is added behind the extension headers added before. L4 checksums of fragments
    /// are left 0; with an offset, use [`Self::protocol`] and a payload.
    #[must_use]
    pub fn fragment(mut self, id: u32, offset: u16, more: bool) -> Self {
        let [.., high, low] = id.to_be_bytes();
        self.id = u16::from_be_bytes([high, low]);
        self.fragment = self.fragment & 0x4000 | offset >> 3 | if more { 0x2000 } else { 0 };
        if matches!(self.network, Network::V6(..)) {
            let field = offset & 0xfff8 | u16::from(more);
            let bytes = [&[0, 0][..], &field.to_be_bytes(), &id.to_be_bytes()].concat();
            self.extensions.push((protocol::FRAGMENT, bytes));
        }
        self
    }

    /// A TCP header: a bare ACK with a window of 65535 until told otherwise.
    #[must_use]
    pub fn tcp(mut self, src_port: u16, dst_port: u16) -> Self {
        let ports = [src_port, dst_port];
        self.transport =
            Transport::Tcp { ports, seq: 0, ack: 0, flags: 0x10, window: 65535, options: Vec::new() };
        self
    }

    /// TCP sequence number. This and the next four change nothing if the packet is no TCP.
    #[must_use]
    pub const fn seq(mut self, value: u32) -> Self {
        if let Transport::Tcp { seq, .. } = &mut self.transport {
            *seq = value;
        }
        self
    }

    /// TCP acknowledgment number.
    #[must_use]
    pub const fn ack(mut self, value: u32) -> Self {
        if let Transport::Tcp { ack, .. } = &mut self.transport {
            *ack = value;
        }
        self
    }

    /// TCP flags, 12 bits: see [`crate::header::tcp::flag`].
    #[must_use]
    pub const fn flags(mut self, value: u16) -> Self {
        if let Transport::Tcp { flags, .. } = &mut self.transport {
            *flags = value & 0x0fff;
        }
        self
    }

    /// TCP window, unscaled.
    #[must_use]
    pub const fn window(mut self, value: u16) -> Self {
        if let Transport::Tcp { window, .. } = &mut self.transport {
            *window = value;
        }
        self
    }

    /// TCP options, padded with 0 to a multiple of 4 and cut to 40 bytes.
    #[must_use]
    pub fn tcp_options(mut self, value: &[u8]) -> Self {
        if let Transport::Tcp { options, .. } = &mut self.transport {
            *options = padded(value, 4, 40);
        }
        self
    }

    /// A UDP header.
    #[must_use]
    pub fn udp(mut self, src_port: u16, dst_port: u16) -> Self {
        self.transport = Transport::Udp { ports: [src_port, dst_port] };
        self
    }

    /// UDP checksum 0, "none".
    #[must_use]
    pub const fn without_udp_checksum(mut self) -> Self {
        self.udp_without_checksum = true;
        self
    }

    /// An SCTP common header; the payload is its chunks.
    #[must_use]
    pub fn sctp(mut self, src_port: u16, dst_port: u16, verification_tag: u32) -> Self {
        self.transport = Transport::Sctp { ports: [src_port, dst_port], tag: verification_tag };
        self
    }

    /// An ICMP header, over IPv6 an ICMPv6 one; `rest` is bytes 4 to 7.
    #[must_use]
    pub fn icmp(mut self, kind: u8, code: u8, rest: u32) -> Self {
        self.transport = Transport::Icmp { kind, code, rest };
        self
    }

    /// An echo request of the network header's family, which must have been named before.
    #[must_use]
    pub fn echo_request(self, id: u16, sequence: u16) -> Self {
        let kind = if self.is_ipv6() { icmpv6_type::ECHO } else { icmp_type::ECHO };
        self.icmp(kind, 0, u32::from(id) << 16 | u32::from(sequence))
    }

    /// An echo reply of the network header's family, which must have been named before.
    #[must_use]
    pub fn echo_reply(self, id: u16, sequence: u16) -> Self {
        let kind = if self.is_ipv6() { icmpv6_type::ECHO_REPLY } else { icmp_type::ECHO_REPLY };
        self.icmp(kind, 0, u32::from(id) << 16 | u32::from(sequence))
    }

    /// An ICMP error about `frame`, of whose IP packet at most `quoted_len` bytes are quoted.
    #[must_use]
    pub fn icmp_error(self, kind: u8, code: u8, rest: u32, frame: &[u8], quoted_len: usize) -> Self {
        let packet = Layers::parse(frame).l3_bytes(frame);
        self.icmp(kind, code, rest).payload(packet.get(..quoted_len).unwrap_or(packet))
    }

    /// A neighbour solicitation (RFC 4861 section 4.3) for `target`, with the sender's Ethernet address.
    #[must_use]
    pub fn neighbour_solicitation(self, target: impl Into<Ipv6Addr>, source: [u8; 6]) -> Self {
        let body = [&target.into().octets()[..], &[1, 1], &source].concat();
        self.ttl(255).icmp(icmpv6_type::NEIGHBOUR_SOLICITATION, 0, 0).payload(&body)
    }

    /// A solicited neighbour advertisement (RFC 4861 section 4.4): `target` is at `address`.
    #[must_use]
    pub fn neighbour_advertisement(self, target: impl Into<Ipv6Addr>, address: [u8; 6]) -> Self {
        let body = [&target.into().octets()[..], &[2, 1], &address].concat();
        self.ttl(255).icmp(icmpv6_type::NEIGHBOUR_ADVERTISEMENT, 0, 0x6000_0000).payload(&body)
    }

    /// No L4 header: the payload follows the IP header, whose protocol is `number`.
    #[must_use]
    pub fn protocol(mut self, number: u8) -> Self {
        self.transport = Transport::Raw(number);
        self
    }

    /// What follows the innermost header. Cut so that the frame stays within [`MAX_FRAME`].
    #[must_use]
    pub fn payload(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    /// Pads the frame with zeros to at least `len` bytes, 60 being Ethernet's minimum.
    #[must_use]
    pub const fn pad_to(mut self, len: usize) -> Self {
        self.min_len = len;
        self
    }

    /// The frame.
    #[must_use]
    pub fn build(&self) -> Vec<u8> {
        let mut frame = self.link_header();
        let transport = self.transport_header();
        let overhead = frame.len() + 60 + self.extensions.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
        let room = MAX_FRAME.saturating_sub(overhead + transport.len());
        let payload = self.payload.get(..room).unwrap_or(&self.payload);
        let mut l4 = transport;
        l4.extend_from_slice(payload);
        if matches!(self.transport, Transport::Udp { .. }) {
            let len = u16::try_from(l4.len()).unwrap_or(u16::MAX).to_be_bytes();
            if let [_, _, _, _, high, low, ..] = l4.as_mut_slice() {
                [*high, *low] = len;
            }
        }
        match &self.network {
            Network::None => frame.extend_from_slice(payload),
            Network::Arp(message) => frame.extend_from_slice(message),
            Network::V4(src, dst) => self.put_ipv4(&mut frame, src, dst, l4.len()),
            Network::V6(src, dst) => self.put_ipv6(&mut frame, src, dst, l4.len()),
        }
        if matches!(self.network, Network::V4(..) | Network::V6(..)) {
            frame.extend_from_slice(&l4);
        }
        let layers = Layers::parse(&frame);
        checksum::fill(&mut frame, &layers);
        if self.udp_without_checksum
            && matches!(self.transport, Transport::Udp { .. })
            && let Some(field) = layers.l4_bytes_mut(&mut frame).get_mut(6..8)
        {
            field.fill(0);
        }
        frame.resize(frame.len().max(self.min_len), 0);
        frame
    }

    const fn is_ipv6(&self) -> bool {
        matches!(self.network, Network::V6(..))
    }

    fn link_header(&self) -> Vec<u8> {
        let mut header = [self.eth_dst, self.eth_src].concat();
        for (tpid, tci) in &self.tags {
            header.extend_from_slice(&tpid.to_be_bytes());
            header.extend_from_slice(&tci.to_be_bytes());
        }
        let ether_type = self.ether_type.unwrap_or(match self.network {
            Network::V4(..) => ether_type::IPV4,
            Network::V6(..) => ether_type::IPV6,
            Network::Arp(_) => ether_type::ARP,
            // "Local experimental ethertype 1" (IEEE 802).
            Network::None => 0x88b5,
        });
        header.extend_from_slice(&ether_type.to_be_bytes());
        header
    }

    fn transport_protocol(&self) -> u8 {
        match &self.transport {
            Transport::Raw(number) => *number,
            Transport::Tcp { .. } => protocol::TCP,
            Transport::Udp { .. } => protocol::UDP,
            Transport::Sctp { .. } => protocol::SCTP,
            Transport::Icmp { .. } if self.is_ipv6() => protocol::ICMPV6,
            Transport::Icmp { .. } => protocol::ICMP,
        }
    }

    /// The L4 header with length and checksum 0.
    fn transport_header(&self) -> Vec<u8> {
        let joined = |ports: &[u16; 2]| ports.map(u16::to_be_bytes).concat();
        match &self.transport {
            Transport::Raw(_) => Vec::new(),
            Transport::Tcp { ports, seq, ack, flags, window, options } => {
                // At most 15 words, as options are at most 40 bytes.
                let words = u16::try_from(5 + options.len() / 4).unwrap_or(15);
                [
                    &joined(ports)[..],
                    &seq.to_be_bytes(),
                    &ack.to_be_bytes(),
                    &(words << 12 | flags).to_be_bytes(),
                    &window.to_be_bytes(),
                    &[0; 4],
                    options,
                ]
                .concat()
            }
            Transport::Udp { ports } => [&joined(ports)[..], &[0; 4]].concat(),
            Transport::Sctp { ports, tag } => [&joined(ports)[..], &tag.to_be_bytes(), &[0; 4]].concat(),
            Transport::Icmp { kind, code, rest } => [&[*kind, *code, 0, 0][..], &rest.to_be_bytes()].concat(),
        }
    }

    fn put_ipv4(&self, frame: &mut Vec<u8>, src: &[u8; 4], dst: &[u8; 4], l4_len: usize) {
        let header_len = 20 + self.ipv4_options.len();
        let version_ihl = 0x40 | u8::try_from(header_len / 4).unwrap_or(5);
        frame.extend_from_slice(&[version_ihl, self.tos]);
        frame.extend_from_slice(&u16::try_from(header_len + l4_len).unwrap_or(u16::MAX).to_be_bytes());
        frame.extend_from_slice(&self.id.to_be_bytes());
        frame.extend_from_slice(&self.fragment.to_be_bytes());
        frame.extend_from_slice(&[self.ttl, self.transport_protocol(), 0, 0]);
        frame.extend_from_slice(src);
        frame.extend_from_slice(dst);
        frame.extend_from_slice(&self.ipv4_options);
    }

    fn put_ipv6(&self, frame: &mut Vec<u8>, src: &[u8; 16], dst: &[u8; 16], l4_len: usize) {
        let extensions: usize = self.extensions.iter().map(|(_, bytes)| bytes.len()).sum();
        let first_word = 6 << 28 | u32::from(self.tos) << 20 | self.flow_label;
        frame.extend_from_slice(&first_word.to_be_bytes());
        frame.extend_from_slice(&u16::try_from(extensions + l4_len).unwrap_or(u16::MAX).to_be_bytes());
        // Each header names the next.
        let mut names = self.extensions.iter().map(|(number, _)| *number).chain([self.transport_protocol()]);
        frame.push(names.next().unwrap_or(protocol::NO_NEXT));
        frame.push(self.ttl);
        frame.extend_from_slice(src);
        frame.extend_from_slice(dst);
        for (_, bytes) in &self.extensions {
            frame.push(names.next().unwrap_or(protocol::NO_NEXT));
            frame.extend_from_slice(bytes.get(1..).unwrap_or_default());
        }
    }
}

/// `bytes` cut to `max` and filled up with zeros to a multiple of `unit`, which divides `max`.
fn padded(bytes: &[u8], unit: usize, max: usize) -> Vec<u8> {
    let mut bytes = bytes.get(..max).unwrap_or(bytes).to_vec();
    bytes.resize(bytes.len().next_multiple_of(unit), 0);
    bytes
}
