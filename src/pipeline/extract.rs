//! Fills a flow key from a packet's headers. What a header does not have, or cannot have because the packet
//! is cut or inconsistent, stays 0, as if no such header were there.

use weir_shard::CtMeta;
use weir_wire::numbers::{ether_type, protocol};
use weir_wire::{Fragment, Layers, Tuple};

use crate::flow::key::{Key, at};

/// Bit of the key's VLAN TCI that says a tag is present (ovs-fields(7), `vlan_tci`).
pub const VLAN_PRESENT: u16 = 0x1000;

fn bytes<const N: usize>(frame: &[u8], at: usize) -> Option<[u8; N]> {
    frame.get(at..at + N)?.first_chunk().copied()
}

fn u64_at(frame: &[u8], at: usize) -> u64 {
    bytes(frame, at).map_or(0, u64::from_be_bytes)
}

fn u32_at(frame: &[u8], at: usize) -> u32 {
    bytes(frame, at).map_or(0, u32::from_be_bytes)
}

fn u16_at(frame: &[u8], at: usize) -> u16 {
    bytes(frame, at).map_or(0, u16::from_be_bytes)
}

/// Fills in `key`, all 0 so far, but for port, recirculation and connection fields.
#[inline]
pub fn headers(frame: &[u8], layers: &Layers, key: &mut Key) {
    let Some(macs) = bytes::<12>(frame, 0) else { return };
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5] = macs;
    let tci = outer_tci(frame, layers);
    if layers.vlan_tags > 0 {
        key.words[at::VLAN_TPID / 8] |= u64::from(u16_at(frame, 12)) << 32;
        if layers.vlan_tags > 1 {
            key.write(at::VLAN2_TCI, 2, u128::from(u16_at(frame, 18) | VLAN_PRESENT));
        }
    }
    let [t0, t1] = layers.ether_type.to_be_bytes();
    let [v0, v1] = tci.to_be_bytes();
    key.words[at::ETH_DST / 8] = u64::from_be_bytes([d0, d1, d2, d3, d4, d5, t0, t1]);
    key.words[at::ETH_SRC / 8] = u64::from_be_bytes([s0, s1, s2, s3, s4, s5, v0, v1]);
    network(frame, layers, key);
}

/// The outer VLAN tag's TCI as the key has it; 0 without one.
#[inline]
fn outer_tci(frame: &[u8], layers: &Layers) -> u16 {
    if layers.vlan_tags > 0 { u16_at(frame, 14) | VLAN_PRESENT } else { 0 }
}

/// (Re-)reads the network and transport fields, after a translation has changed them.
#[inline]
pub fn network(frame: &[u8], layers: &Layers, key: &mut Key) {
    if layers.l3 == 0 {
        return;
    }
    let l3 = usize::from(layers.l3);
    match layers.ether_type {
        ether_type::IPV4 => ipv4(frame, l3, layers, key),
        ether_type::IPV6 => ipv6(frame, l3, layers, key),
        ether_type::ARP => arp(frame, l3, key),
        _ => {}
    }
}

fn fragment_bits(fragment: Fragment) -> u8 {
    match fragment {
        Fragment::No => 0,
        Fragment::First => 1,
        Fragment::Later => 3,
    }
}

/// The upper half of the key's word of the transport layer.
#[inline]
fn network_bits(layers: &Layers, tos: u8, ttl: u8) -> u64 {
    u64::from_be_bytes([layers.protocol, tos, ttl, fragment_bits(layers.fragment), 0, 0, 0, 0])
}

#[inline]
fn ipv4(frame: &[u8], l3: usize, layers: &Layers, key: &mut Key) {
    let Some(header) = bytes::<20>(frame, l3) else { return };
    let [_, tos, _, _, _, _, _, _, ttl, _, _, _, a, b, c, d, e, f, g, h] = header;
    key.words[at::NW_SRC / 8] = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
    key.words[at::NW_PROTO / 8] = network_bits(layers, tos, ttl);
    transport(frame, layers, key);
}

fn ipv6(frame: &[u8], l3: usize, layers: &Layers, key: &mut Key) {
    let Some(header) = bytes::<40>(frame, l3) else { return };
    let first = u32::from_be_bytes([header[0], header[1], header[2], header[3]]);
    key.write(at::IPV6_LABEL, 4, u128::from(first & 0xf_ffff));
    let tos = (first >> 20) as u8;
    key.words[at::NW_PROTO / 8] = network_bits(layers, tos, header[7]);
    for (offset, from) in [(at::IPV6_SRC, 8), (at::IPV6_DST, 24)] {
        key.write(offset, 16, bytes(&header, from).map_or(0, u128::from_be_bytes));
    }
    transport(frame, layers, key);
    if layers.protocol == protocol::ICMPV6 && layers.l4 != 0 {
        neighbour(frame, layers, key);
    }
}

#[inline]
fn transport(frame: &[u8], layers: &Layers, key: &mut Key) {
    key.words[at::TP_SRC / 8] |= ports(frame, layers);
    if layers.protocol == protocol::TCP {
        let rest = &mut key.words[at::TCP_FLAGS / 8];
        *rest = *rest & 0xffff_ffff_ffff | u64::from(tcp_flags(frame, layers)) << 48;
    }
}

/// The lower half of that word: ports, or type and code of an ICMP message.
#[inline]
fn ports(frame: &[u8], layers: &Layers) -> u64 {
    let present = layers.l4_bytes(frame);
    let header = match layers.protocol {
        protocol::TCP => 20,
        protocol::UDP => 8,
        protocol::SCTP => 12,
        protocol::ICMP if layers.is_ipv4() => return message(present),
        protocol::ICMPV6 if layers.is_ipv6() => return message(present),
        _ => return 0,
    };
    if present.len() >= header { u64::from(u32_at(present, 0)) } else { 0 }
}

/// The flags of a TCP segment (12 bits) whose header is whole, else 0. `layers` says that it is TCP.
#[inline]
pub fn tcp_flags(frame: &[u8], layers: &Layers) -> u16 {
    let present = layers.l4_bytes(frame);
    if present.len() >= 20 { u16_at(present, 12) & 0x0fff } else { 0 }
}

/// The words of a key that [`word`] knows.
pub const SINGLE_WORDS: [usize; 12] = [
    at::CT_STATE / 8,
    at::CT_MARK / 8,
    at::ETH_DST / 8,
    at::ETH_SRC / 8,
    at::NW_SRC / 8,
    at::NW_PROTO / 8,
    at::CT_LABEL / 8,
    at::CT_LABEL / 8 + 1,
    at::IPV6_SRC / 8,
    at::IPV6_SRC / 8 + 1,
    at::IPV6_DST / 8,
    at::IPV6_DST / 8 + 1,
];

/// One of the [`SINGLE_WORDS`] of the key that [`headers`] and [`connection`] would make of an IP packet, but for the
/// original tuple's protocol; 0 for any other word.
#[inline]
pub fn word(frame: &[u8], layers: &Layers, meta: &CtMeta, word: usize) -> u64 {
    const STATE: usize = at::CT_STATE / 8;
    const MARK: usize = at::CT_MARK / 8;
    const ETH_DST: usize = at::ETH_DST / 8;
    const ETH_SRC: usize = at::ETH_SRC / 8;
    const ADDRESSES: usize = at::NW_SRC / 8;
    const TRANSPORT: usize = at::NW_PROTO / 8;
    const LABEL: usize = at::CT_LABEL / 8;
    const IPV6_SRC: usize = at::IPV6_SRC / 8;
    const LAST: usize = at::IPV6_DST / 8 + 1;
    let l3 = usize::from(layers.l3);
    match word {
        STATE => u64::from(meta.state.0) << 32 | u64::from(meta.zone) << 16,
        MARK => {
            let label = if layers.is_ipv6() { u32_at(frame, l3) & 0xf_ffff } else { 0 };
            u64::from(meta.mark) << 32 | u64::from(label)
        }
        ETH_DST => u64_at(frame, 0) & !0xffff | u64::from(layers.ether_type),
        ETH_SRC => u64_at(frame, 6) & !0xffff | u64::from(outer_tci(frame, layers)),
        ADDRESSES if layers.is_ipv4() => u64_at(frame, l3 + 12),
        TRANSPORT if layers.is_ipv4() => {
            let [tos, ttl] = [frame.get(l3 + 1), frame.get(l3 + 8)].map(|byte| byte.copied().unwrap_or(0));
            network_bits(layers, tos, ttl) | ports(frame, layers)
        }
        TRANSPORT if layers.is_ipv6() => {
            let (tos, ttl) = ((u32_at(frame, l3) >> 20) as u8, frame.get(l3 + 7).copied().unwrap_or(0));
            network_bits(layers, tos, ttl) | ports(frame, layers)
        }
        LABEL => (meta.label >> 64) as u64,
        word if word == LABEL + 1 => meta.label as u64,
        IPV6_SRC..=LAST if layers.is_ipv6() => u64_at(frame, l3 + 8 + (word - IPV6_SRC) * 8),
        _ => 0,
    }
}

/// Type and code of an ICMP message.
#[inline]
fn message(present: &[u8]) -> u64 {
    match *present {
        [kind, code, _, _, _, _, _, _, ..] => u64::from(kind) << 16 | u64::from(code),
        _ => 0,
    }
}

/// Target and link-layer options of a neighbour solicitation (135) or advertisement (136), RFC 4861 section 4.
fn neighbour(frame: &[u8], layers: &Layers, key: &mut Key) {
    let message = frame.get(usize::from(layers.l4)..usize::from(layers.l3_end)).unwrap_or_default();
    let (Some(kind @ (135 | 136)), Some(0), Some(target)) =
        (message.first().copied(), message.get(1).copied(), bytes::<16>(message, 8))
    else {
        return;
    };
    key.write(at::ND_TARGET, 16, u128::from_be_bytes(target));
    let mut options = message.get(24..).unwrap_or_default();
    while let [option, units, ..] = *options {
        let length = usize::from(units) * 8;
        if length == 0 || length > options.len() {
            break;
        }
        if units == 1 {
            let address = options[2..8].iter().fold(0, |sum, &byte| sum << 8 | u128::from(byte));
            let place = match (kind, option) {
                (135, 1) => Some(at::ARP_SHA),
                (136, 2) => Some(at::ARP_THA),
                _ => None,
            };
            if let Some(place) = place {
                if key.read(place, 6) != 0 {
                    // Given twice: nobody can tell which one counts, so the message counts as malformed.
                    key.write(at::ND_TARGET, 16, 0);
                    key.write(place, 6, 0);
                    return;
                }
                key.write(place, 6, address);
            }
        }
        options = &options[length..];
    }
}

/// Ethernet/IPv4 ARP (RFC 826); other hardware or protocol types leave the fields 0.
fn arp(frame: &[u8], l3: usize, key: &mut Key) {
    let Some(header) = bytes::<28>(frame, l3) else { return };
    if header[..6] != [0, 1, 8, 0, 6, 4] {
        return;
    }
    let number = |range: core::ops::Range<usize>| {
        header[range].iter().fold(0u128, |sum, &byte| sum << 8 | u128::from(byte))
    };
    // Opcodes above 255 do not fit the key's byte and show as 0 (ovs-fields(7), arp_op).
    let opcode = number(6..8);
    key.write(at::NW_PROTO, 1, if opcode > 255 { 0 } else { opcode });
    key.write(at::ARP_SHA, 6, number(8..14));
    key.write(at::NW_SRC, 4, number(14..18));
    key.write(at::ARP_THA, 6, number(18..24));
    key.write(at::NW_DST, 4, number(24..28));
}

/// Writes the connection fields of `meta` into `key`, with the original tuple only where `with_tuple` says
/// that somebody matches on it.
#[inline]
pub fn connection(meta: &CtMeta, with_tuple: bool, key: &mut Key) {
    key.words[at::CT_STATE / 8] = u64::from(meta.state.0) << 32 | u64::from(meta.zone) << 16;
    let mark = at::CT_MARK / 8;
    key.words[mark] = key.words[mark] & 0xffff_ffff | u64::from(meta.mark) << 32;
    key.write(at::CT_LABEL, 16, meta.label);
    if with_tuple {
        original(meta, key);
    }
}

fn original(meta: &CtMeta, key: &mut Key) {
    for word in [at::CT_NW_SRC / 8, at::CT_TP_SRC / 8] {
        key.words[word] = 0;
    }
    for offset in [at::CT_IPV6_SRC, at::CT_IPV6_DST] {
        key.write(offset, 16, 0);
    }
    let (protocol, ports) = match &meta.original {
        Some(Tuple::V4(tuple)) => {
            key.write(at::CT_NW_SRC, 4, u128::from(u32::from_be_bytes(tuple.src)));
            key.write(at::CT_NW_DST, 4, u128::from(u32::from_be_bytes(tuple.dst)));
            (tuple.protocol, (tuple.src_port, tuple.dst_port))
        }
        Some(Tuple::V6(tuple)) => {
            key.write(at::CT_IPV6_SRC, 16, u128::from_be_bytes(tuple.src));
            key.write(at::CT_IPV6_DST, 16, u128::from_be_bytes(tuple.dst));
            (tuple.protocol, (tuple.src_port, tuple.dst_port))
        }
        None => return,
    };
    // For ICMP the key shows type and code, as the packet's own tp_src and tp_dst do; the tuple keeps them
    // both in its destination port.
    let ports = match protocol {
        protocol::ICMP | protocol::ICMPV6 => (ports.1 >> 8, ports.1 & 0xff),
        _ => ports,
    };
    key.write(at::CT_NW_PROTO, 1, u128::from(protocol));
    key.write(at::CT_TP_SRC, 2, u128::from(ports.0));
    key.write(at::CT_TP_DST, 2, u128::from(ports.1));
}
