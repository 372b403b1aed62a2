//! Fragments of IP packets as a reassembler sees them: which piece of which datagram a frame carries, and the header
//! of the datagram that they make up (RFC 791 section 3.2, RFC 8200 section 4.5). Judges nothing beyond what it needs
//! to read.

use core::ops::Range;

use crate::checksum;
use crate::layers::{Fragment, Layers};
use crate::numbers::protocol;

/// The piece of a datagram that one frame carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Identification: 16 bits in IPv4, 32 in IPv6.
    pub id: u32,
    /// Where its data belong in the datagram's data, in bytes.
    pub offset: u16,
    /// More fragments follow.
    pub more: bool,
    /// The protocol of what was cut: IPv4's, or the fragment header's next header.
    pub protocol: u8,
    /// The data, in the frame.
    pub data: Range<usize>,
    /// Length of the headers that [`Piece::write_header`] puts in front of the datagram's data.
    pub header_len: u16,
    /// Where in these headers the number of the first header behind the fragment header stands; IPv6 alone.
    next_header_at: usize,
}

/// Length of an IPv4 header without options, and of IPv6's.
const IPV4: u16 = 20;
const IPV6: u16 = 40;

/// Extension headers in front of a fragment header that are walked, as [`Layers::parse`] walks them.
const MAX_EXTENSIONS: usize = 12;

impl Piece {
    /// What the frame, of which `layers` is the parse, carries; `None` of anything but a fragment.
    #[must_use]
    pub fn of(frame: &[u8], layers: &Layers) -> Option<Self> {
        if layers.fragment == Fragment::No {
            return None;
        }
        let packet = layers.l3_bytes(frame);
        if layers.is_ipv4() { Self::of_ipv4(packet, layers) } else { Self::of_ipv6(packet, layers) }
    }

    fn of_ipv4(packet: &[u8], layers: &Layers) -> Option<Self> {
        let header = packet.first_chunk::<20>()?;
        let field = u16::from_be_bytes([header[6], header[7]]);
        let start = usize::from(layers.l3) + usize::from(header[0] & 0x0f) * 4;
        Some(Self {
            id: u16::from_be_bytes([header[4], header[5]]).into(),
            offset: (field & 0x1fff) << 3,
            more: field & 0x2000 != 0,
            protocol: header[9],
            data: start..usize::from(layers.l3_end),
            header_len: IPV4,
            next_header_at: 0,
        })
    }

    fn of_ipv6(packet: &[u8], layers: &Layers) -> Option<Self> {
        let (mut next, mut next_header_at, mut at) = (*packet.get(6)?, 6, usize::from(IPV6));
        for _ in 0..MAX_EXTENSIONS {
            let header = packet.get(at..)?.first_chunk::<8>()?;
            let len = match next {
                protocol::FRAGMENT => {
                    let field = u16::from_be_bytes([header[2], header[3]]);
                    let start = usize::from(layers.l3) + at + 8;
                    return Some(Self {
                        id: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
                        offset: field & 0xfff8,
                        more: field & 1 != 0,
                        protocol: header[0],
                        data: start..usize::from(layers.l3_end).max(start),
                        header_len: u16::try_from(at).ok()?,
                        next_header_at,
                    });
                }
                protocol::AUTHENTICATION => (usize::from(header[1]) + 2) * 4,
                protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION => {
                    (usize::from(header[1]) + 1) * 8
                }
                _ => return None,
            };
            (next, next_header_at, at) = (header[0], at, at + len);
        }
        None
    }

    /// Bytes of IP packet, headers included.
    #[must_use]
    pub const fn packet_len(layers: &Layers) -> u16 {
        layers.l3_end.saturating_sub(layers.l3)
    }

    /// Writes the headers of the datagram with `data_len` bytes of data into the beginning of `out`, from its first
    /// fragment, of which this is the piece: without IPv4's options, and with IPv6's extension headers but the fragment
    /// header. IPv4's checksum is made anew: verify the fragments' own first. A length that does not fit its field is
    /// written as the longest one. False if `out` is too short.
    #[must_use]
    pub fn write_header(&self, frame: &[u8], layers: &Layers, data_len: u16, out: &mut [u8]) -> bool {
        let len = usize::from(self.header_len);
        let (Some(from), Some(out)) = (layers.l3_bytes(frame).get(..len), out.get_mut(..len)) else {
            return false;
        };
        out.copy_from_slice(from);
        let put = |out: &mut [u8], at: usize, bytes: [u8; 2]| {
            if let Some(place) = out.get_mut(at..at + 2) {
                place.copy_from_slice(&bytes);
            }
        };
        if layers.is_ipv4() {
            if let Some(first) = out.first_mut() {
                *first = 0x45;
            }
            put(out, 2, data_len.saturating_add(IPV4).to_be_bytes());
            put(out, 6, [0, 0]);
            put(out, 10, [0, 0]);
            let checksum = checksum::finish(checksum::sum(out));
            put(out, 10, checksum);
        } else {
            let extensions = self.header_len.saturating_sub(IPV6);
            put(out, 4, data_len.saturating_add(extensions).to_be_bytes());
            if let Some(next) = out.get_mut(self.next_header_at) {
                *next = self.protocol;
            }
        }
        true
    }
}

#[cfg(test)]
#[path = "fragment_tests.rs"]
mod tests;
