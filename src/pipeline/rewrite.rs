//! Writes header fields of a key into the packet they came from, keeping every checksum right by increments
//! (RFC 1624). Fields that the packet does not have are passed over.

use weir_wire::checksum::{self, Delta};
use weir_wire::numbers::{ether_type, protocol};
use weir_wire::{Fragment, Layers};

use super::Frame;
use super::step::Fields;
use crate::flow::key::{Key, at};

/// Any of the bits of these 64-bit words set?
fn touches(mask: &Key, words: core::ops::RangeInclusive<usize>) -> bool {
    mask.words.get(words).is_some_and(|words| words.iter().any(|&word| word != 0))
}

/// Replaces `length` bytes at `place` where the field's mask is 1; the change goes to `sum`, counted from an
/// even offset when `place - start` is even.
fn put(
    frame: &mut [u8],
    start: usize,
    place: usize,
    fields: &Fields,
    (offset, length): (usize, usize),
    sum: &mut Delta,
) {
    let mask = fields.mask.read(offset, length);
    if mask == 0 {
        return;
    }
    let Some(bytes) = frame.get_mut(place..place + length) else { return };
    let old = bytes.iter().fold(0u128, |value, &byte| value << 8 | u128::from(byte));
    let new = old & !mask | fields.value.read(offset, length) & mask;
    let (old, new) = (old.to_be_bytes(), new.to_be_bytes());
    let (old, new) = (&old[16 - length..], &new[16 - length..]);
    sum.change_at((place - start) % 2 == 1, old, new);
    bytes.copy_from_slice(new);
}

/// Writes `fields` into `frame`, whose headers start where `layers` says.
pub fn apply(frame: &mut [u8], layers: &Layers, fields: &Fields) {
    let mut unsummed = Delta::NONE;
    put(frame, 0, 0, fields, (at::ETH_DST, 6), &mut unsummed);
    put(frame, 0, 6, fields, (at::ETH_SRC, 6), &mut unsummed);
    if layers.l3 == 0 {
        return;
    }
    // What lies behind the packet's own length is padding.
    let Some(frame) = frame.get_mut(..usize::from(layers.l3_end)) else { return };
    match layers.ether_type {
        ether_type::IPV4 => ipv4(frame, layers, fields),
        ether_type::IPV6 => ipv6(frame, layers, fields),
        ether_type::ARP => arp(frame, usize::from(layers.l3), fields),
        _ => {}
    }
}

fn arp(frame: &mut [u8], l3: usize, fields: &Fields) {
    let mut unsummed = Delta::NONE;
    if fields.mask.read(at::NW_PROTO, 1) != 0
        && let Some(high) = frame.get_mut(l3 + 6)
    {
        *high = 0;
    }
    for (place, field) in [
        (7, (at::NW_PROTO, 1)),
        (8, (at::ARP_SHA, 6)),
        (14, (at::NW_SRC, 4)),
        (18, (at::ARP_THA, 6)),
        (24, (at::NW_DST, 4)),
    ] {
        put(frame, l3, l3 + place, fields, field, &mut unsummed);
    }
}

fn ipv4(frame: &mut [u8], layers: &Layers, fields: &Fields) {
    let l3 = usize::from(layers.l3);
    let (mut header, mut addresses) = (Delta::NONE, Delta::NONE);
    put(frame, l3, l3 + 1, fields, (at::NW_TOS, 1), &mut header);
    put(frame, l3, l3 + 8, fields, (at::NW_TTL, 1), &mut header);
    put(frame, l3, l3 + 12, fields, (at::NW_SRC, 4), &mut addresses);
    put(frame, l3, l3 + 16, fields, (at::NW_DST, 4), &mut addresses);
    header.merge(addresses);
    update(frame, l3 + 10, |checksum| header.apply(checksum));
    transport(frame, layers, fields, addresses);
}

fn ipv6(frame: &mut [u8], layers: &Layers, fields: &Fields) {
    let l3 = usize::from(layers.l3);
    let mut unsummed = Delta::NONE;
    put(frame, l3, l3 + 7, fields, (at::NW_TTL, 1), &mut unsummed);
    // Traffic class and flow label straddle bytes (RFC 8200 section 3).
    let tos = fields.mask.read(at::NW_TOS, 1) << 20;
    let label = fields.mask.read(at::IPV6_LABEL, 4) & 0xf_ffff;
    let mask = (tos | label) as u32;
    if mask != 0
        && let Some(first) = frame.get_mut(l3..l3 + 4).and_then(|bytes| bytes.first_chunk_mut::<4>())
    {
        let value = fields.value.read(at::NW_TOS, 1) << 20 | fields.value.read(at::IPV6_LABEL, 4) & 0xf_ffff;
        *first = (u32::from_be_bytes(*first) & !mask | value as u32 & mask).to_be_bytes();
    }
    let mut addresses = Delta::NONE;
    put(frame, l3, l3 + 8, fields, (at::IPV6_SRC, 16), &mut addresses);
    put(frame, l3, l3 + 24, fields, (at::IPV6_DST, 16), &mut addresses);
    transport(frame, layers, fields, addresses);
}

/// Ports, ICMP type and code, neighbour discovery, and the transport checksum for these and for `addresses`.
fn transport(frame: &mut [u8], layers: &Layers, fields: &Fields, addresses: Delta) {
    if layers.l4 == 0 || layers.fragment == Fragment::Later {
        return;
    }
    let l4 = usize::from(layers.l4);
    let present = frame.len().saturating_sub(l4);
    let mut sum = addresses;
    // The lengths are those below which the key shows no ports (see `extract`).
    match layers.protocol {
        protocol::TCP if present >= 20 => {
            ports(frame, l4, fields, &mut sum);
            update(frame, l4 + 16, |checksum| sum.apply(checksum));
        }
        protocol::UDP if present >= 8 => {
            ports(frame, l4, fields, &mut sum);
            // 0 says that the sender made no checksum (RFC 768).
            update(
                frame,
                l4 + 6,
                |checksum| if checksum == [0; 2] { checksum } else { sum.apply_udp(checksum) },
            );
        }
        protocol::SCTP if present >= 12 && fields.mask.read(at::TP_SRC, 4) != 0 => {
            let old = checksum::sctp(layers.l4_bytes(frame));
            ports(frame, l4, fields, &mut sum);
            if layers.fragment == Fragment::No {
                let new = checksum::sctp(layers.l4_bytes(frame));
                // What was wrong stays wrong: CRC32c is linear.
                if let Some(bytes) = frame.get_mut(l4 + 8..l4 + 12) {
                    for ((byte, old), new) in bytes.iter_mut().zip(old).zip(new) {
                        *byte ^= old ^ new;
                    }
                }
            }
        }
        protocol::ICMP if present >= 8 && layers.is_ipv4() => {
            sum = Delta::NONE;
            message(frame, l4, fields, &mut sum);
            update(frame, l4 + 2, |checksum| sum.apply(checksum));
        }
        protocol::ICMPV6 if present >= 8 && layers.is_ipv6() => {
            message(frame, l4, fields, &mut sum);
            neighbour(frame, layers, fields, &mut sum);
            update(frame, l4 + 2, |checksum| sum.apply(checksum));
        }
        _ => {}
    }
}

fn ports(frame: &mut [u8], l4: usize, fields: &Fields, sum: &mut Delta) {
    put(frame, l4, l4, fields, (at::TP_SRC, 2), sum);
    put(frame, l4, l4 + 2, fields, (at::TP_DST, 2), sum);
}

/// Type and code, which the key keeps in the low bytes of the ports.
fn message(frame: &mut [u8], l4: usize, fields: &Fields, sum: &mut Delta) {
    put(frame, l4, l4, fields, (at::TP_SRC + 1, 1), sum);
    put(frame, l4, l4 + 1, fields, (at::TP_DST + 1, 1), sum);
}

/// RFC 4861 section 4: the target, and the first link-layer address option of the message's own kind.
fn neighbour(frame: &mut [u8], layers: &Layers, fields: &Fields, sum: &mut Delta) {
    if !touches(&fields.mask, at::ND_TARGET / 8..=at::ARP_THA / 8) {
        return;
    }
    let (l4, end) = (usize::from(layers.l4), usize::from(layers.l3_end));
    let Some(kind @ (135 | 136)) = frame.get(l4).copied() else { return };
    if l4 + 24 > end {
        return;
    }
    put(frame, l4, l4 + 8, fields, (at::ND_TARGET, 16), sum);
    let (wanted, field) = if kind == 135 { (1, (at::ARP_SHA, 6)) } else { (2, (at::ARP_THA, 6)) };
    let mut option = l4 + 24;
    while let Some(&[code, units]) = frame.get(option..option + 2).and_then(|head| head.first_chunk::<2>()) {
        let length = usize::from(units) * 8;
        if length == 0 || option + length > end {
            return;
        }
        if code == wanted && units == 1 {
            put(frame, l4, option + 2, fields, field, sum);
            return;
        }
        option += length;
    }
}

fn update(frame: &mut [u8], place: usize, new: impl FnOnce([u8; 2]) -> [u8; 2]) {
    if let Some(checksum) = frame.get_mut(place..place + 2).and_then(|bytes| bytes.first_chunk_mut::<2>()) {
        *checksum = new(*checksum);
    }
}

/// Puts an outer tag in front of the ethertype; false (and no change) when the frame has no room or no header.
pub fn push_vlan<F: Frame>(frame: &mut F, tpid: u16, tci: u16) -> bool {
    if frame.bytes().len() < 14 || !frame.grow_front(4) {
        return false;
    }
    let bytes = frame.bytes_mut();
    bytes.copy_within(4..16, 0);
    let ([t0, t1], [c0, c1]) = (tpid.to_be_bytes(), tci.to_be_bytes());
    if let Some(tag) = bytes.get_mut(12..16) {
        tag.copy_from_slice(&[t0, t1, c0, c1]);
    }
    true
}

/// Removes the outer tag; a frame without one stays as it is.
pub fn pop_vlan<F: Frame>(frame: &mut F) {
    let bytes = frame.bytes_mut();
    let tagged = bytes
        .get(12..14)
        .and_then(|tpid| tpid.first_chunk::<2>())
        .is_some_and(|tpid| matches!(u16::from_be_bytes(*tpid), ether_type::VLAN | ether_type::QINQ));
    if tagged && bytes.len() >= 18 {
        bytes.copy_within(0..12, 4);
        frame.shrink_front(4);
    }
}
