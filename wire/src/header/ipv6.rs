//! The IPv6 header (RFC 8200). Extension headers are walked by [`crate::Layers`].

use super::{HeaderError, check_field, check_len, view};

mod field {
    use core::ops::Range;
    pub(super) const FIRST_WORD: Range<usize> = 0..4;
    pub(super) const PAYLOAD_LEN: Range<usize> = 4..6;
    pub(super) const NEXT_HEADER: Range<usize> = 6..7;
    pub(super) const HOP_LIMIT: Range<usize> = 7..8;
    pub(super) const SRC: Range<usize> = 8..24;
    pub(super) const DST: Range<usize> = 24..40;
    pub(super) const PAYLOAD: usize = 40;
}

view! {
    /// An IPv6 packet.
    Ipv6, "IPv6", field::PAYLOAD;
    /// Version (4 bits), traffic class (8 bits), flow label (20 bits).
    first_word, set_first_word: u32 = field::FIRST_WORD;
    /// Bytes behind the fixed header, extension headers included.
    payload_len, set_payload_len: u16 = field::PAYLOAD_LEN;
    /// Protocol or first extension header.
    next_header, set_next_header: u8 = field::NEXT_HEADER;
    /// Hop limit.
    hop_limit, set_hop_limit: u8 = field::HOP_LIMIT;
    /// Source address.
    src, set_src: [16] = field::SRC;
    /// Destination address.
    dst, set_dst: [16] = field::DST;
}

impl<T: AsRef<[u8]>> Ipv6<T> {
    /// A view of a packet.
    ///
    /// # Errors
    /// Fewer than 40 bytes, or a payload length beyond the bytes (jumbograms are not supported).
    pub fn new_checked(bytes: T) -> Result<Self, HeaderError> {
        check_len("IPv6", bytes.as_ref(), Self::MIN_LEN)?;
        let room = bytes.as_ref().len() - Self::MIN_LEN;
        let view = Self(bytes);
        check_field("IPv6", "payload length", usize::from(view.payload_len()), 0, room)?;
        Ok(view)
    }

    /// IP version, 6.
    pub fn version(&self) -> u8 {
        self.first_word().to_be_bytes()[0] >> 4
    }

    /// Traffic class: DSCP (6 bits) and ECN (2 bits).
    pub fn traffic_class(&self) -> u8 {
        (self.first_word() >> 4).to_be_bytes()[1]
    }

    /// Flow label, 20 bits.
    pub fn flow_label(&self) -> u32 {
        self.first_word() & 0x000f_ffff
    }

    /// What the header says belongs to the packet: extension headers, then L4.
    pub fn payload(&self) -> &[u8] {
        self.0
            .as_ref()
            .get(field::PAYLOAD..field::PAYLOAD + usize::from(self.payload_len()))
            .unwrap_or_default()
    }
}
