//! The UDP header (RFC 768).

use super::{HeaderError, check_field, check_len, view};

mod field {
    use core::ops::Range;
    pub(super) const SRC_PORT: Range<usize> = 0..2;
    pub(super) const DST_PORT: Range<usize> = 2..4;
    pub(super) const LEN: Range<usize> = 4..6;
    pub(super) const CHECKSUM: Range<usize> = 6..8;
    pub(super) const PAYLOAD: usize = 8;
}

view! {
    /// A UDP datagram.
    Udp, "UDP", field::PAYLOAD;
    /// Source port.
    src_port, set_src_port: u16 = field::SRC_PORT;
    /// Destination port.
    dst_port, set_dst_port: u16 = field::DST_PORT;
    /// Bytes of header and payload.
    len, set_len: u16 = field::LEN;
    /// Checksum; 0 means that there is none.
    checksum, set_checksum: [2] = field::CHECKSUM;
}

impl<T: AsRef<[u8]>> Udp<T> {
    /// A view of a datagram.
    ///
    /// # Errors
    /// Fewer than 8 bytes; a length below 8 or beyond the bytes.
    pub fn new_checked(bytes: T) -> Result<Self, HeaderError> {
        check_len("UDP", bytes.as_ref(), Self::MIN_LEN)?;
        let have = bytes.as_ref().len();
        let view = Self(bytes);
        check_field("UDP", "length", usize::from(view.len()), Self::MIN_LEN, have)?;
        Ok(view)
    }

    /// True without payload.
    pub fn is_empty(&self) -> bool {
        self.payload().is_empty()
    }

    /// What the header says belongs to the datagram.
    pub fn payload(&self) -> &[u8] {
        self.0.as_ref().get(field::PAYLOAD..usize::from(self.len())).unwrap_or_default()
    }
}
