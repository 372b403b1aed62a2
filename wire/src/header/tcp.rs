//! The TCP header (RFC 9293) and its options.

use super::{HeaderError, check_field, check_len, view};

mod field {
    use core::ops::Range;
    pub(super) const SRC_PORT: Range<usize> = 0..2;
    pub(super) const DST_PORT: Range<usize> = 2..4;
    pub(super) const SEQUENCE: Range<usize> = 4..8;
    pub(super) const ACKNOWLEDGMENT: Range<usize> = 8..12;
    pub(super) const OFFSET_FLAGS: Range<usize> = 12..14;
    pub(super) const WINDOW: Range<usize> = 14..16;
    pub(super) const CHECKSUM: Range<usize> = 16..18;
    pub(super) const URGENT: Range<usize> = 18..20;
    pub(super) const OPTIONS: usize = 20;
}

/// Flag bits of [`Tcp::flags`].
pub mod flag {
    /// No more data from the sender.
    pub const FIN: u16 = 0x001;
    /// Synchronize sequence numbers.
    pub const SYN: u16 = 0x002;
    /// Reset the connection.
    pub const RST: u16 = 0x004;
    /// Push.
    pub const PSH: u16 = 0x008;
    /// The acknowledgment number counts.
    pub const ACK: u16 = 0x010;
    /// The urgent pointer counts.
    pub const URG: u16 = 0x020;
    /// ECN echo.
    pub const ECE: u16 = 0x040;
    /// Congestion window reduced.
    pub const CWR: u16 = 0x080;
}

view! {
    /// A TCP segment.
    Tcp, "TCP", field::OPTIONS;
    /// Source port.
    src_port, set_src_port: u16 = field::SRC_PORT;
    /// Destination port.
    dst_port, set_dst_port: u16 = field::DST_PORT;
    /// Sequence number.
    sequence, set_sequence: u32 = field::SEQUENCE;
    /// Acknowledgment number.
    acknowledgment, set_acknowledgment: u32 = field::ACKNOWLEDGMENT;
    /// Data offset in 32-bit words (4 bits) and flags (12 bits).
    offset_flags, set_offset_flags: u16 = field::OFFSET_FLAGS;
    /// Window as it stands in the header, unscaled.
    window, set_window: u16 = field::WINDOW;
    /// Checksum.
    checksum, set_checksum: [2] = field::CHECKSUM;
    /// Urgent pointer.
    urgent, set_urgent: u16 = field::URGENT;
}

/// One TCP option (RFC 9293 section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpOption<'a> {
    /// Option kind: 2 is the maximum segment size, 3 window scale, 4 SACK permitted, 8 timestamps.
    pub kind: u8,
    /// What follows kind and length.
    pub data: &'a [u8],
}

impl<T: AsRef<[u8]>> Tcp<T> {
    /// A view of a segment.
    ///
    /// # Errors
    /// Fewer than 20 bytes; a data offset below 20 bytes or beyond the bytes.
    pub fn new_checked(bytes: T) -> Result<Self, HeaderError> {
        check_len("TCP", bytes.as_ref(), Self::MIN_LEN)?;
        let have = bytes.as_ref().len();
        let view = Self(bytes);
        check_field("TCP", "data offset", view.header_len(), Self::MIN_LEN, have)?;
        Ok(view)
    }

    /// Bytes of the header with its options.
    pub fn header_len(&self) -> usize {
        usize::from(self.offset_flags() >> 12) * 4
    }

    /// The 12 bits of flags; see [`flag`].
    pub fn flags(&self) -> u16 {
        self.offset_flags() & 0x0fff
    }

    /// The options, in order; ends at the end-of-options marker or at the first malformed one.
    pub fn options(&self) -> impl Iterator<Item = TcpOption<'_>> {
        let mut rest = self.0.as_ref().get(field::OPTIONS..self.header_len()).unwrap_or_default();
        core::iter::from_fn(move || {
            loop {
                match *rest {
                    // No-operation.
                    [1, ref next @ ..] => rest = next,
                    [kind, len, ..] if kind != 0 && len >= 2 => {
                        let data = rest.get(2..usize::from(len))?;
                        rest = rest.get(usize::from(len)..)?;
                        return Some(TcpOption { kind, data });
                    }
                    _ => return None,
                }
            }
        })
    }

    /// The window scale that a SYN offers (RFC 7323 section 2), at most 14; `None` without the option.
    pub fn window_scale(&self) -> Option<u8> {
        self.options().find_map(|option| match (option.kind, option.data) {
            (3, [shift]) => Some((*shift).min(14)),
            _ => None,
        })
    }

    /// What follows header and options.
    pub fn payload(&self) -> &[u8] {
        self.0.as_ref().get(self.header_len()..).unwrap_or_default()
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Tcp<T> {
    /// As [`Self::payload`], to be written to.
    pub fn payload_mut(&mut self) -> &mut [u8] {
        let start = self.header_len();
        self.0.as_mut().get_mut(start..).unwrap_or_default()
    }
}
