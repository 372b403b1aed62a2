//! Neighbour solicitations and advertisements (RFC 4861 sections 4.3 and 4.4).

use super::{HeaderError, check_len, view};

mod field {
    use core::ops::Range;
    pub(super) const KIND: Range<usize> = 0..1;
    pub(super) const CODE: Range<usize> = 1..2;
    pub(super) const CHECKSUM: Range<usize> = 2..4;
    pub(super) const FLAGS: Range<usize> = 4..8;
    pub(super) const TARGET: Range<usize> = 8..24;
    pub(super) const OPTIONS: usize = 24;
}

/// Kind of the option that carries the sender's link-layer address.
const SOURCE_LINK_ADDRESS: u8 = 1;
/// Kind of the option that carries the target's link-layer address.
const TARGET_LINK_ADDRESS: u8 = 2;

view! {
    /// A neighbour solicitation (type 135) or advertisement (type 136).
    NeighbourDiscovery, "neighbour discovery", field::OPTIONS;
    /// ICMPv6 type.
    kind, set_kind: u8 = field::KIND;
    /// ICMPv6 code, 0.
    code, set_code: u8 = field::CODE;
    /// Checksum.
    checksum, set_checksum: [2] = field::CHECKSUM;
    /// Reserved in solicitations; router, solicited and override in the top bits of advertisements.
    flags, set_flags: u32 = field::FLAGS;
    /// The address that is asked for or answered about.
    target, set_target: [16] = field::TARGET;
}

impl<T: AsRef<[u8]>> NeighbourDiscovery<T> {
    /// A view of a message.
    ///
    /// # Errors
    /// Fewer than 24 bytes.
    pub fn new_checked(bytes: T) -> Result<Self, HeaderError> {
        check_len("neighbour discovery", bytes.as_ref(), Self::MIN_LEN)?;
        Ok(Self(bytes))
    }

    /// The source link-layer address option, if it is there with an Ethernet address.
    pub fn source_link_address(&self) -> Option<[u8; 6]> {
        self.link_address(SOURCE_LINK_ADDRESS)
    }

    /// The target link-layer address option, if it is there with an Ethernet address.
    pub fn target_link_address(&self) -> Option<[u8; 6]> {
        self.link_address(TARGET_LINK_ADDRESS)
    }

    /// First option of the kind, of length 1 (8 bytes): RFC 4861 section 4.6. The list ends at an option
    /// that is cut or has the illegal length 0.
    fn link_address(&self, wanted: u8) -> Option<[u8; 6]> {
        let mut rest = self.0.as_ref().get(field::OPTIONS..)?;
        while let &[kind, len, ref data @ ..] = rest {
            if kind == wanted && len == 1 {
                return data.first_chunk::<6>().copied();
            }
            if len == 0 {
                return None;
            }
            rest = rest.get(usize::from(len) * 8..)?;
        }
        None
    }
}
