//! The ICMP header (RFC 792), which ICMPv6 (RFC 4443) lays out alike; only the types and the pseudo header in the
//! checksum differ.

use super::{HeaderError, check_len, view};

mod field {
    use core::ops::Range;
    pub(super) const KIND: Range<usize> = 0..1;
    pub(super) const CODE: Range<usize> = 1..2;
    pub(super) const CHECKSUM: Range<usize> = 2..4;
    pub(super) const ID: Range<usize> = 4..6;
    pub(super) const SEQUENCE: Range<usize> = 6..8;
    pub(super) const REST: Range<usize> = 4..8;
    pub(super) const PAYLOAD: usize = 8;
}

view! {
    /// An ICMP or ICMPv6 message with the 8-byte header of queries and errors.
    Icmp, "ICMP", field::PAYLOAD;
    /// Type.
    kind, set_kind: u8 = field::KIND;
    /// Code.
    code, set_code: u8 = field::CODE;
    /// Checksum.
    checksum, set_checksum: [2] = field::CHECKSUM;
    /// Identifier of a query or reply.
    id, set_id: u16 = field::ID;
    /// Sequence number of a query or reply.
    sequence, set_sequence: u16 = field::SEQUENCE;
    /// Bytes 4 to 7 of an error: unused, gateway, next-hop MTU (low 16 bits; all 32 in ICMPv6) or pointer.
    rest, set_rest: u32 = field::REST;
}

impl<T: AsRef<[u8]>> Icmp<T> {
    /// A view of a message.
    ///
    /// # Errors
    /// Fewer than 8 bytes.
    pub fn new_checked(bytes: T) -> Result<Self, HeaderError> {
        check_len("ICMP", bytes.as_ref(), Self::MIN_LEN)?;
        Ok(Self(bytes))
    }

    /// What follows the header: a query's data, or the packet that an error quotes.
    pub fn payload(&self) -> &[u8] {
        self.0.as_ref().get(field::PAYLOAD..).unwrap_or_default()
    }
}
