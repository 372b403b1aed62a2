//! The SCTP common header (RFC 9260 section 3.1).

use super::{HeaderError, check_len, view};

mod field {
    use core::ops::Range;
    pub(super) const SRC_PORT: Range<usize> = 0..2;
    pub(super) const DST_PORT: Range<usize> = 2..4;
    pub(super) const VERIFICATION_TAG: Range<usize> = 4..8;
    pub(super) const CHECKSUM: Range<usize> = 8..12;
    pub(super) const CHUNKS: usize = 12;
}

view! {
    /// An SCTP packet.
    Sctp, "SCTP", field::CHUNKS;
    /// Source port.
    src_port, set_src_port: u16 = field::SRC_PORT;
    /// Destination port.
    dst_port, set_dst_port: u16 = field::DST_PORT;
    /// Verification tag.
    verification_tag, set_verification_tag: u32 = field::VERIFICATION_TAG;
    /// CRC32c as it stands in the header: see [`crate::checksum::sctp`].
    checksum, set_checksum: [4] = field::CHECKSUM;
}

impl<T: AsRef<[u8]>> Sctp<T> {
    /// A view of a packet.
    ///
    /// # Errors
    /// Fewer than 12 bytes.
    pub fn new_checked(bytes: T) -> Result<Self, HeaderError> {
        check_len("SCTP", bytes.as_ref(), Self::MIN_LEN)?;
        Ok(Self(bytes))
    }

    /// What follows the common header.
    pub fn chunks(&self) -> &[u8] {
        self.0.as_ref().get(field::CHUNKS..).unwrap_or_default()
    }
}
