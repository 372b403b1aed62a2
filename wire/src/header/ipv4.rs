//! The IPv4 header (RFC 791).

use super::{HeaderError, check_field, check_len, view};

mod field {
    use core::ops::Range;
    pub(super) const VERSION_IHL: Range<usize> = 0..1;
    pub(super) const TOS: Range<usize> = 1..2;
    pub(super) const TOTAL_LEN: Range<usize> = 2..4;
    pub(super) const ID: Range<usize> = 4..6;
    pub(super) const FRAGMENT: Range<usize> = 6..8;
    pub(super) const TTL: Range<usize> = 8..9;
    pub(super) const PROTOCOL: Range<usize> = 9..10;
    pub(super) const CHECKSUM: Range<usize> = 10..12;
    pub(super) const SRC: Range<usize> = 12..16;
    pub(super) const DST: Range<usize> = 16..20;
    pub(super) const OPTIONS: usize = 20;
}

view! {
    /// An IPv4 packet.
    Ipv4, "IPv4", field::OPTIONS;
    /// Version (4 bits) and header length in 32-bit words (4 bits).
    version_ihl, set_version_ihl: u8 = field::VERSION_IHL;
    /// DSCP (6 bits) and ECN (2 bits).
    tos, set_tos: u8 = field::TOS;
    /// Length of header and payload in bytes.
    total_len, set_total_len: u16 = field::TOTAL_LEN;
    /// Identification of a datagram's fragments.
    id, set_id: u16 = field::ID;
    /// Reserved, DF, MF (3 bits) and fragment offset in 8-byte units (13 bits).
    fragment, set_fragment: u16 = field::FRAGMENT;
    /// Time to live.
    ttl, set_ttl: u8 = field::TTL;
    /// Protocol number.
    protocol, set_protocol: u8 = field::PROTOCOL;
    /// Header checksum.
    checksum, set_checksum: [2] = field::CHECKSUM;
    /// Source address.
    src, set_src: [4] = field::SRC;
    /// Destination address.
    dst, set_dst: [4] = field::DST;
}

impl<T: AsRef<[u8]>> Ipv4<T> {
    /// A view of a packet.
    ///
    /// # Errors
    /// Fewer than 20 bytes; a header length below 20 or beyond the bytes; a total length below the header's
    /// or beyond the bytes.
    pub fn new_checked(bytes: T) -> Result<Self, HeaderError> {
        check_len("IPv4", bytes.as_ref(), Self::MIN_LEN)?;
        let have = bytes.as_ref().len();
        let view = Self(bytes);
        check_field("IPv4", "header length", view.header_len(), Self::MIN_LEN, have)?;
        check_field("IPv4", "total length", usize::from(view.total_len()), view.header_len(), have)?;
        Ok(view)
    }

    /// IP version, 4.
    pub fn version(&self) -> u8 {
        self.version_ihl() >> 4
    }

    /// Bytes of the header with its options.
    pub fn header_len(&self) -> usize {
        usize::from(self.version_ihl() & 0x0f) * 4
    }

    /// The options; empty where there are none.
    pub fn options(&self) -> &[u8] {
        self.0.as_ref().get(field::OPTIONS..self.header_len()).unwrap_or_default()
    }

    /// What the header says belongs to the packet.
    pub fn payload(&self) -> &[u8] {
        self.0.as_ref().get(self.header_len()..usize::from(self.total_len())).unwrap_or_default()
    }

    /// "More fragments" is set.
    pub fn more_fragments(&self) -> bool {
        self.fragment() & 0x2000 != 0
    }

    /// "Don't fragment" is set.
    pub fn dont_fragment(&self) -> bool {
        self.fragment() & 0x4000 != 0
    }

    /// Fragment offset in bytes.
    pub fn fragment_offset(&self) -> u16 {
        (self.fragment() & 0x1fff) << 3
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Ipv4<T> {
    /// As [`Self::payload`], to be written to.
    pub fn payload_mut(&mut self) -> &mut [u8] {
        let payload = self.header_len()..usize::from(self.total_len());
        self.0.as_mut().get_mut(payload).unwrap_or_default()
    }
}
