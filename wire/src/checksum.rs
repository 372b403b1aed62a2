//! Checksums: the Internet checksum over slices (RFC 1071) and its incremental update (RFC 1624), SCTP's
//! CRC32c (RFC 9260 section 6.8), and verifying or filling those of a parsed frame.
//!
//! Sums are kept in the machine's byte order, which the ones-complement sum does not mind (RFC 1071
//! section 2 (B)); only [`finish`] and [`Delta::apply`] give bytes as they stand in a header.

use crate::layers::{Fragment, Layers};
use crate::numbers::{ether_type, protocol};

/// Unfolded ones-complement sum of `bytes` as 16-bit words in machine order; an odd last byte is padded with
/// 0. Below 2^34, so that sums may be added up before they are folded.
#[inline(always)] // so that headers of known lengths are summed without a loop
#[must_use]
pub fn sum(bytes: &[u8]) -> u64 {
    // Blocks first, so that the few words behind them need no loop.
    let (blocks, rest) = bytes.as_chunks::<32>();
    let total = blocks.iter().fold(0, |total, block| add(total, block));
    let total = add(total, rest);
    let tail = match bytes.last_chunk::<8>() {
        // The last word, of which all but the bytes that no whole word has are shifted out.
        Some(last) => (u64::from_le_bytes(*last) >> 1 >> (63 - bytes.len() % 8 * 8)).to_le(),
        None => short(bytes),
    };
    let (total, carry) = total.overflowing_add(tail);
    (total & 0xffff_ffff) + (total >> 32) + u64::from(carry)
}

/// A sum and the whole words of `bytes`. 2^16 is 1 in ones-complement arithmetic of 16 bits: words of any width may be
/// added, each carry as a 1.
#[inline(always)]
fn add(total: u64, bytes: &[u8]) -> u64 {
    bytes.as_chunks::<8>().0.iter().fold(total, |total, word| {
        let (sum, carry) = total.overflowing_add(u64::from_ne_bytes(*word));
        sum + u64::from(carry)
    })
}

/// Less than 8 bytes as a word.
#[inline(always)]
fn short(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)).to_le()
}

/// Folds a sum to 16 bits. 0 comes out only if 0 went in.
#[inline]
#[must_use]
pub const fn fold(sum: u64) -> u16 {
    let (sum, carry) = (sum as u32).overflowing_add((sum >> 32) as u32);
    let sum = sum + carry as u32;
    // In the upper half both halves and the carry of their sum.
    (sum.wrapping_add(sum.rotate_left(16)) >> 16) as u16
}

/// The checksum to write for a sum: its complement, as header bytes.
#[inline]
#[must_use]
pub const fn finish(sum: u64) -> [u8; 2] {
    (!fold(sum)).to_ne_bytes()
}

/// True if data that includes its checksum sums up right.
#[inline(always)]
#[must_use]
pub const fn is_valid(sum: u64) -> bool {
    fold(sum) == 0xffff
}

/// Sum of the IPv4 pseudo header (RFC 793 section 3.1); `len` is that of L4, header and payload.
#[inline]
#[must_use]
pub const fn pseudo_v4(src: [u8; 4], dst: [u8; 4], protocol: u8, len: u16) -> u64 {
    u32::from_ne_bytes(src) as u64
        + u32::from_ne_bytes(dst) as u64
        + u16::from_ne_bytes([0, protocol]) as u64
        + u16::from_ne_bytes(len.to_be_bytes()) as u64
}

/// Sum of the IPv6 pseudo header (RFC 8200 section 8.1).
#[inline]
#[must_use]
pub fn pseudo_v6(src: &[u8; 16], dst: &[u8; 16], protocol: u8, len: u32) -> u64 {
    sum(src)
        + sum(dst)
        + u64::from(u32::from_ne_bytes(len.to_be_bytes()))
        + u64::from(u16::from_ne_bytes([0, protocol]))
}

/// SCTP's checksum of a whole SCTP packet, as header bytes; what stands in the checksum field (bytes 8 to 11)
/// does not matter. Less than a header gives the checksum of nothing.
#[must_use]
pub fn sctp(packet: &[u8]) -> [u8; 4] {
    let (Some(head), Some(chunks)) = (packet.get(..8), packet.get(12..)) else { return [0; 4] };
    let crc = crc32c::crc32c(head);
    let crc = crc32c::crc32c_append(crc, &[0; 4]);
    crc32c::crc32c_append(crc, chunks).to_le_bytes()
}

/// The checksum of an SCTP packet of `len` bytes whose ports change from `old` to `new`, as header bytes, from that
/// which it had: without its other bytes, of which an ICMP error may quote a few only. A CRC is linear, so the
/// difference of two equally long packets has the difference of their checksums, whatever else they hold.
#[must_use]
pub fn sctp_change(checksum: [u8; 4], old: [u8; 4], new: [u8; 4], len: u16) -> [u8; 4] {
    const ZEROS: [u8; 256] = [0; 256];
    let Some(mut rest) = usize::from(len).checked_sub(4) else { return checksum };
    let (mut old, mut new) = (crc32c::crc32c(&old), crc32c::crc32c(&new));
    while let Some(piece) = ZEROS.get(..rest.min(ZEROS.len())).filter(|piece| !piece.is_empty()) {
        (old, new) = (crc32c::crc32c_append(old, piece), crc32c::crc32c_append(new, piece));
        rest -= piece.len();
    }
    (u32::from_le_bytes(checksum) ^ old ^ new).to_le_bytes()
}

/// What changed in checksummed data: collects any number of field changes and applies them to any number of
/// checksums (RFC 1624 equation 3). A checksum that was right stays right, bit for bit what a
/// recomputation gives; one that was wrong stays wrong by the same amount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delta(u64);

impl Delta {
    /// Nothing changed.
    pub const NONE: Self = Self(0);

    /// A 2-byte field at an even offset.
    #[inline]
    pub const fn change2(&mut self, old: [u8; 2], new: [u8; 2]) {
        self.0 += (!u16::from_ne_bytes(old)) as u64 + u16::from_ne_bytes(new) as u64;
    }

    /// A 4-byte field at an even offset.
    #[inline]
    pub const fn change4(&mut self, old: [u8; 4], new: [u8; 4]) {
        self.0 += (!u32::from_ne_bytes(old)) as u64 + u32::from_ne_bytes(new) as u64;
    }

    /// A 6-byte field at an even offset.
    #[inline]
    pub const fn change6(&mut self, old: [u8; 6], new: [u8; 6]) {
        let [o0, o1, o2, o3, o4, o5] = old;
        let [n0, n1, n2, n3, n4, n5] = new;
        self.change4([o0, o1, o2, o3], [n0, n1, n2, n3]);
        self.change2([o4, o5], [n4, n5]);
    }

    /// A 16-byte field at an even offset.
    #[inline]
    pub fn change16(&mut self, old: &[u8; 16], new: &[u8; 16]) {
        let (old, new) = (old.as_chunks::<4>().0, new.as_chunks::<4>().0);
        for (old, new) in old.iter().zip(new) {
            self.change4(*old, *new);
        }
    }

    /// A field of 1 to 16 bytes at any offset; `odd` tells whether its first byte stands at an odd offset
    /// from the start of the checksummed data. If the lengths differ, the shorter field is padded with 0.
    pub fn change_at(&mut self, odd: bool, old: &[u8], new: &[u8]) {
        let mut delta = Self::NONE;
        // ~m + m' of RFC 1624 with m padded alike on both sides: the padding adds ~0 + 0, which is zero.
        for at in (0..old.len().max(new.len())).step_by(2) {
            delta.change2(word_at(old, at), word_at(new, at));
        }
        // Shifted by one byte, every 16-bit word's bytes change places (RFC 1071 section 2 (B)).
        let folded = fold(delta.0);
        self.0 += u64::from(if odd { folded.swap_bytes() } else { folded });
    }

    /// Everything that `other` collected.
    #[inline]
    pub const fn merge(&mut self, other: Self) {
        self.0 += other.0;
    }

    /// The checksum after the change. Not for UDP: see [`Self::apply_udp`].
    #[inline]
    #[must_use]
    pub const fn apply(self, checksum: [u8; 2]) -> [u8; 2] {
        finish((!u16::from_ne_bytes(checksum)) as u64 + self.0)
    }

    /// As [`Self::apply`], but never gives 0, which means "no checksum" in UDP (RFC 768). The caller leaves a
    /// UDP checksum of 0 alone.
    #[inline]
    #[must_use]
    pub const fn apply_udp(self, checksum: [u8; 2]) -> [u8; 2] {
        match self.apply(checksum) {
            [0, 0] => [0xff, 0xff],
            checksum => checksum,
        }
    }
}

/// True if the IPv4 header's checksum is right; false if the frame has no IPv4 header.
#[inline]
#[must_use]
pub fn ipv4_header_is_valid(frame: &[u8], layers: &Layers) -> bool {
    let packet = layers.l3_bytes(frame);
    // Nearly every header has no options, and is then summed without a loop.
    if let Some(header) = packet.first_chunk::<20>()
        && header[0] == 0x45
    {
        return is_valid(sum(header));
    }
    layers.is_ipv4() && ipv4_header(packet).is_some_and(|header| is_valid(sum(header)))
}

/// True if the checksum of the L4 header is right, or the protocol has none. UDP's 0 counts as right over
/// IPv4 and wrong over IPv6 (RFC 8200 section 8.1). False for what cannot be verified: no L4 header, a cut
/// one, a fragment. With an IPv6 routing header that has segments left, the destination in the header stands for
/// the final one, so that the checksum comes out wrong.
#[inline]
#[must_use]
pub fn l4_is_valid(frame: &[u8], layers: &Layers) -> bool {
    let l4 = layers.l4_bytes(frame);
    if layers.l4 == 0 || layers.fragment != Fragment::No {
        return false;
    }
    let ipv6 = layers.ether_type == ether_type::IPV6;
    match layers.protocol {
        protocol::TCP => l4.len() >= 20 && is_valid(pseudo(frame, layers, l4.len()) + sum(l4)),
        protocol::UDP => {
            let Some(&[_, _, _, _, high, low, c0, c1]) = l4.first_chunk::<8>() else { return false };
            if [c0, c1] == [0, 0] {
                return !ipv6;
            }
            // The datagram may be shorter than the packet (RFC 768 "Length"). The checksum is taken over all that
            // the IP header announces, as network cards and Open vSwitch take it; RFC 9868 section 9 has senders
            // arrange their surplus bytes so that this comes out right.
            let len = usize::from(u16::from_be_bytes([high, low]));
            len >= 8 && len <= l4.len() && is_valid(pseudo(frame, layers, l4.len()) + sum(l4))
        }
        protocol::ICMP if !ipv6 => l4.len() >= 4 && is_valid(sum(l4)),
        protocol::ICMPV6 if ipv6 => l4.len() >= 4 && is_valid(pseudo(frame, layers, l4.len()) + sum(l4)),
        protocol::SCTP => l4.get(8..12).is_some_and(|checksum| checksum == sctp(l4)),
        _ => true,
    }
}

/// Computes every checksum of the frame anew: IPv4 header, TCP, UDP, SCTP, ICMP, ICMPv6. What cannot be
/// computed (fragments' L4, cut headers) is left as it is. The packet that an ICMP error quotes is not touched.
pub fn fill(frame: &mut [u8], layers: &Layers) {
    if layers.is_ipv4()
        && let Some(header) = ipv4_header_mut(layers.l3_bytes_mut(frame))
    {
        put(header, 10, [0, 0]);
        let checksum = finish(sum(header));
        put(header, 10, checksum);
    }
    if layers.l4 == 0 || layers.fragment != Fragment::No {
        return;
    }
    let ipv6 = layers.ether_type == ether_type::IPV6;
    let len = layers.l4_bytes(frame).len();
    let (at, len, with_pseudo) = match layers.protocol {
        protocol::TCP if len >= 20 => (16, len, true),
        protocol::UDP if len >= 8 => {
            let header = layers.l4_bytes(frame);
            let announced = header.get(4..6).and_then(|field| field.first_chunk::<2>());
            let announced = announced.map_or(0, |field| usize::from(u16::from_be_bytes(*field)));
            if announced < 8 || announced > len {
                return;
            }
            (6, len, true)
        }
        protocol::ICMP if len >= 4 && !ipv6 => (2, len, false),
        protocol::ICMPV6 if len >= 4 && ipv6 => (2, len, true),
        protocol::SCTP if len >= 12 => {
            let packet = layers.l4_bytes_mut(frame);
            let checksum = sctp(packet);
            put(packet, 8, checksum);
            return;
        }
        _ => return,
    };
    let mut total = if with_pseudo { pseudo(frame, layers, len) } else { 0 };
    let l4 = layers.l4_bytes_mut(frame);
    put(l4, at, [0, 0]);
    total += sum(l4.get(..len).unwrap_or_default());
    let checksum = match finish(total) {
        [0, 0] if layers.protocol == protocol::UDP => [0xff, 0xff],
        checksum => checksum,
    };
    put(l4, at, checksum);
}

/// The pseudo header's sum for `len` bytes of L4.
#[inline]
fn pseudo(frame: &[u8], layers: &Layers, len: usize) -> u64 {
    let packet = layers.l3_bytes(frame);
    // Sums need no order: the two addresses are added up as one slice.
    let addresses =
        if layers.ether_type == ether_type::IPV6 { packet.get(8..40) } else { packet.get(12..20) };
    pseudo_sum(sum(addresses.unwrap_or_default()), layers.protocol, len)
}

/// Sum of a pseudo header whose addresses sum up to `addresses`; `len` is that of L4.
#[inline(always)]
pub(crate) fn pseudo_sum(addresses: u64, protocol: u8, len: usize) -> u64 {
    // L4 lies within one frame of at most 65535 bytes.
    let len = u16::try_from(len).unwrap_or(u16::MAX);
    addresses
        + u64::from(u16::from_ne_bytes(len.to_be_bytes()))
        + u64::from(u16::from_ne_bytes([0, protocol]))
}

fn ipv4_header(packet: &[u8]) -> Option<&[u8]> {
    packet.get(..usize::from(packet.first()? & 0x0f) * 4)
}

fn ipv4_header_mut(packet: &mut [u8]) -> Option<&mut [u8]> {
    let len = usize::from(packet.first()? & 0x0f) * 4;
    packet.get_mut(..len)
}

fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    if let Some(field) = bytes.get_mut(at..at + N) {
        field.copy_from_slice(&value);
    }
}

fn word_at(bytes: &[u8], at: usize) -> [u8; 2] {
    let byte = |at: usize| bytes.get(at).copied().unwrap_or(0);
    [byte(at), byte(at + 1)]
}

#[cfg(test)]
#[path = "checksum_tests.rs"]
mod tests;
