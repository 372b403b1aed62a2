//! Where each header of a frame starts: the result of the one pass over a packet's headers, made once
//! per packet and handed to whoever reads or rewrites them. It never judges more than it must: a header
//! that does not fit is absent here, and the callers decide what that means.

use crate::numbers::{ether_type, protocol};

/// How an IP packet is fragmented (RFC 791 section 3.1, RFC 8200 section 4.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fragment {
    /// A whole packet.
    #[default]
    No,
    /// The fragment at offset 0: it carries the L4 header.
    First,
    /// A fragment at another offset: no L4 header.
    Later,
}

/// Byte offsets from the start of the frame; 0 means "there is none".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layers {
    /// Ethertype after all VLAN tags (host order); 0x05ff for an 802.3 length or a frame cut inside its L2 header.
    pub ether_type: u16,
    /// VLAN tags in front of the ethertype (at most 2 are skipped).
    pub vlan_tags: u8,
    /// IP protocol after all IPv6 extension headers; 0 where `l3` is 0 and for ARP; 44 in a later
    /// IPv6 fragment (ovs-fields(7), `nw_proto`), in an IPv4 one what its header says.
    pub protocol: u8,
    /// How the packet is fragmented.
    pub fragment: Fragment,
    /// Start of the IPv4, IPv6 or ARP header; 0 if it is missing, cut or inconsistent
    /// (version, header length, total length beyond the frame).
    pub l3: u16,
    /// Start of the L4 header; 0 if there is none (later fragment, cut extension header). Never above
    /// `l3_end`, but the header itself may be cut.
    pub l4: u16,
    /// End of the IP packet as its own length field says (frames are padded to 60 bytes).
    pub l3_end: u16,
}

/// Frames are read up to this length; `Layers` holds offsets as `u16`.
pub const MAX_FRAME: usize = 65_535;

/// IPv6 extension headers walked before giving up. RFC 8200 section 4.1 lists six kinds, each once but for
/// destination options; twice that leaves room for oddities and bounds the work a packet can ask for.
const MAX_EXTENSIONS: usize = 12;

impl Layers {
    /// Reads the headers of an Ethernet frame (without FCS): up to two VLAN tags, 802.3 with SNAP, ARP for
    /// IPv4, IPv4 with options, IPv6 with extension headers. Takes any bytes; of a frame longer than
    /// [`MAX_FRAME`] only that much is looked at. Checksums are not verified here.
    #[inline]
    #[must_use]
    pub fn parse(frame: &[u8]) -> Self {
        let mut layers = Self::default();
        layers.parse_into(frame);
        layers
    }

    /// [`Layers::parse`] in the place where the result is to stay. A structure that is copied right after its fields
    /// were written has to wait until these have reached the cache, some twenty cycles.
    #[inline(always)]
    pub fn parse_into(&mut self, frame: &[u8]) {
        match Self::parse_plain(frame) {
            Some((protocol, l3_end)) => *self = Self::plain(protocol, l3_end),
            None => *self = Self::parse_any(frame.get(..MAX_FRAME).unwrap_or(frame)),
        }
    }

    /// Of an IPv4 packet in one piece without options, behind an untagged Ethernet header.
    #[inline(always)]
    #[must_use]
    pub const fn plain(protocol: u8, l3_end: u16) -> Self {
        let fragment = Fragment::No;
        Self { ether_type: ether_type::IPV4, vlan_tags: 0, protocol, fragment, l3: 14, l4: 34, l3_end }
    }

    /// Protocol and end of what nearly every frame is: an IPv4 packet in one piece without options, behind an untagged
    /// Ethernet header; `None` of any other.
    #[inline(always)]
    pub(crate) fn parse_plain(frame: &[u8]) -> Option<(u8, u16)> {
        let frame = frame.get(..MAX_FRAME).unwrap_or(frame);
        let (head, rest) = frame.split_first_chunk::<34>()?;
        let payload = u16::from_be_bytes([head[16], head[17]]).checked_sub(20)?;
        let is_plain = [head[12], head[13], head[14]] == [0x08, 0x00, 0x45]
            && usize::from(payload) <= rest.len()
            && u16::from_be_bytes([head[20], head[21]]) & 0x3fff == 0;
        // No more than the frame's length, which fits.
        is_plain.then(|| (head[23], payload.saturating_add(34)))
    }

    #[inline(never)]
    fn parse_any(frame: &[u8]) -> Self {
        let mut layers = Self { ether_type: ether_type::NONE, ..Self::default() };
        let Some(first_type) = be16(frame, 12) else { return layers };
        layers.ether_type = first_type;
        let mut l3 = 14;
        if first_type != ether_type::IPV4 && first_type != ether_type::IPV6 {
            l3 = layers.skip_link_headers(frame);
        }
        match layers.ether_type {
            ether_type::IPV4 => layers.read_ipv4(frame, l3, Cut::Refused),
            ether_type::IPV6 => layers.read_ipv6(frame, l3, Cut::Refused),
            ether_type::ARP => layers.read_arp(frame, l3),
            _ => {}
        }
        layers
    }

    /// Reads the IP packet that starts at `at` inside the packet that `self` describes: the one an ICMP error
    /// quotes. It is of the same family, and may be cut anywhere behind its fixed header: its `l3_end` never
    /// exceeds that of `self`. Offsets count from the start of the frame.
    #[must_use]
    pub fn parse_quoted(&self, frame: &[u8], at: u16) -> Self {
        let frame = frame.get(..usize::from(self.l3_end)).unwrap_or_default();
        let mut quoted = Self { ether_type: self.ether_type, ..Self::default() };
        match self.ether_type {
            ether_type::IPV4 => quoted.read_ipv4(frame, at, Cut::Accepted),
            ether_type::IPV6 => quoted.read_ipv6(frame, at, Cut::Accepted),
            _ => {}
        }
        quoted
    }

    /// True if the frame holds a readable IPv4 header.
    #[inline]
    #[must_use]
    pub const fn is_ipv4(&self) -> bool {
        self.ether_type == ether_type::IPV4 && self.l3 != 0
    }

    /// True if the frame holds a readable IPv6 header.
    #[inline]
    #[must_use]
    pub const fn is_ipv6(&self) -> bool {
        self.ether_type == ether_type::IPV6 && self.l3 != 0
    }

    /// The IP packet or ARP message without the frame's padding; empty if there is none. `frame` must be
    /// the one that was parsed, or one of the same length; with another the result is unspecified bytes of it.
    #[inline]
    #[must_use]
    pub fn l3_bytes<'f>(&self, frame: &'f [u8]) -> &'f [u8] {
        if self.l3 == 0 {
            return &[];
        }
        frame.get(usize::from(self.l3)..usize::from(self.l3_end)).unwrap_or_default()
    }

    /// The L4 header and payload without the frame's padding; empty if there is none. See [`Self::l3_bytes`].
    #[inline]
    #[must_use]
    pub fn l4_bytes<'f>(&self, frame: &'f [u8]) -> &'f [u8] {
        if self.l4 == 0 {
            return &[];
        }
        frame.get(usize::from(self.l4)..usize::from(self.l3_end)).unwrap_or_default()
    }

    /// As [`Self::l3_bytes`], to be written to.
    #[inline]
    #[must_use]
    pub fn l3_bytes_mut<'f>(&self, frame: &'f mut [u8]) -> &'f mut [u8] {
        if self.l3 == 0 {
            return &mut [];
        }
        frame.get_mut(usize::from(self.l3)..usize::from(self.l3_end)).unwrap_or_default()
    }

    /// As [`Self::l4_bytes`], to be written to.
    #[inline]
    #[must_use]
    pub fn l4_bytes_mut<'f>(&self, frame: &'f mut [u8]) -> &'f mut [u8] {
        if self.l4 == 0 {
            return &mut [];
        }
        frame.get_mut(usize::from(self.l4)..usize::from(self.l3_end)).unwrap_or_default()
    }

    /// Everything that is not plain Ethernet II with IP in it: counts and skips VLAN tags, then SNAP
    /// (RFC 1042). Sets `ether_type` and gives the offset behind the link header.
    fn skip_link_headers(&mut self, frame: &[u8]) -> u16 {
        let mut l3 = 14;
        while matches!(self.ether_type, ether_type::VLAN | ether_type::QINQ) && self.vlan_tags < 2 {
            let Some(inner_type) = be16(frame, usize::from(l3) + 2) else {
                self.ether_type = ether_type::NONE;
                return l3;
            };
            self.vlan_tags += 1;
            self.ether_type = inner_type;
            l3 += 4;
        }
        if self.ether_type < ether_type::MIN {
            self.ether_type = match chunk::<8>(frame, l3) {
                Some(&[0xaa, 0xaa, 0x03, 0, 0, 0, high, low]) => {
                    l3 += 8;
                    Some(u16::from_be_bytes([high, low])).filter(|inner| *inner >= ether_type::MIN)
                }
                _ => None,
            }
            .unwrap_or(ether_type::NONE);
        }
        l3
    }

    /// ARP for IPv4 over Ethernet (RFC 826); other hardware or protocol types are left unread.
    fn read_arp(&mut self, frame: &[u8], l3: u16) {
        if chunk::<28>(frame, l3).is_some_and(|arp| arp.starts_with(&[0, 1, 0x08, 0, 6, 4])) {
            self.l3 = l3;
            self.l3_end = l3 + 28;
        }
    }

    #[inline]
    fn read_ipv4(&mut self, frame: &[u8], l3: u16, cut: Cut) {
        let Some(header) = chunk::<20>(frame, l3) else { return };
        let header_len = u16::from(header[0] & 0x0f) * 4;
        let total_len = u16::from_be_bytes([header[2], header[3]]);
        let Some(l3_end) = end_of_packet(frame, l3, total_len, cut) else { return };
        // `l4` cannot overflow: total_len >= header_len, and l3 + total_len was just added up (or clipped to
        // the frame, which l4 is then compared with).
        let l4 = l3.saturating_add(header_len);
        if header[0] >> 4 != 4 || header_len < 20 || total_len < header_len || l4 > l3_end {
            return;
        }
        self.l3 = l3;
        self.l3_end = l3_end;
        self.protocol = header[9];
        self.l4 = l4;
        let fragment = u16::from_be_bytes([header[6], header[7]]);
        if fragment & 0x3fff != 0 {
            if fragment & 0x1fff == 0 {
                self.fragment = Fragment::First;
            } else {
                self.fragment = Fragment::Later;
                self.l4 = 0;
            }
        }
    }

    #[inline]
    fn read_ipv6(&mut self, frame: &[u8], l3: u16, cut: Cut) {
        let Some(header) = chunk::<40>(frame, l3) else { return };
        let payload_len = u16::from_be_bytes([header[4], header[5]]);
        let Some(l3_end) =
            payload_len.checked_add(40).and_then(|total_len| end_of_packet(frame, l3, total_len, cut))
        else {
            return;
        };
        if header[0] >> 4 != 6 {
            return;
        }
        self.l3 = l3;
        self.l3_end = l3_end;
        self.protocol = header[6];
        self.l4 = l3 + 40;
        if is_extension(self.protocol) {
            self.walk_extensions(frame);
        }
    }

    /// Follows the chain of RFC 8200 section 4 to the L4 header. Where the chain is cut, runs past the
    /// packet's end or is too long, `l4` becomes 0 and `protocol` stays what was announced last.
    #[cold]
    fn walk_extensions(&mut self, frame: &[u8]) {
        let packet = frame.get(..usize::from(self.l3_end)).unwrap_or_default();
        let mut at = self.l4;
        self.l4 = 0;
        for _ in 0..MAX_EXTENSIONS {
            let Some(&[next, len, high, low]) = chunk::<4>(packet, at) else { return };
            let len = match self.protocol {
                protocol::FRAGMENT => 8,
                // RFC 4302 section 2.2: in 32-bit words, minus 2.
                protocol::AUTHENTICATION => (u16::from(len) + 2) * 4,
                // In 64-bit words, not counting the first.
                _ => (u16::from(len) + 1) * 8,
            };
            let Some(behind) = at.checked_add(len).filter(|behind| *behind <= self.l3_end) else { return };
            if self.protocol == protocol::FRAGMENT {
                // Bit 0 is "more fragments", bits 3 to 15 the offset; an atomic fragment (RFC 6946) has
                // neither and counts as whole.
                let fragment = u16::from_be_bytes([high, low]);
                if fragment & 0xfff8 != 0 {
                    self.fragment = Fragment::Later;
                    return;
                }
                if fragment & 1 != 0 {
                    self.fragment = Fragment::First;
                }
            }
            self.protocol = next;
            at = behind;
            if !is_extension(next) {
                self.l4 = at;
                return;
            }
        }
    }
}

/// Whether a packet may be shorter than its length field says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cut {
    Refused,
    Accepted,
}

/// The end of the packet of `total_len` bytes at `l3`, if the frame holds it.
#[inline]
fn end_of_packet(frame: &[u8], l3: u16, total_len: u16, cut: Cut) -> Option<u16> {
    // `frame` was clipped to MAX_FRAME bytes.
    let frame_len = u16::try_from(frame.len()).unwrap_or(u16::MAX);
    match l3.checked_add(total_len) {
        Some(end) if end <= frame_len => Some(end),
        _ if cut == Cut::Accepted => Some(frame_len),
        _ => None,
    }
}

/// True for the extension headers that are walked. ESP hides what follows and so counts as L4.
#[inline]
const fn is_extension(next_header: u8) -> bool {
    matches!(
        next_header,
        protocol::HOP_BY_HOP
            | protocol::ROUTING
            | protocol::FRAGMENT
            | protocol::AUTHENTICATION
            | protocol::DESTINATION
    )
}

#[inline]
fn chunk<const N: usize>(frame: &[u8], at: u16) -> Option<&[u8; N]> {
    frame.get(usize::from(at)..)?.first_chunk::<N>()
}

#[inline]
fn be16(frame: &[u8], at: usize) -> Option<u16> {
    frame.get(at..)?.first_chunk::<2>().map(|bytes| u16::from_be_bytes(*bytes))
}

#[cfg(test)]
#[path = "layers_tests.rs"]
mod tests;
