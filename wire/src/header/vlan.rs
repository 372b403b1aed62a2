//! The VLAN tag (IEEE 802.1Q, 802.1ad) behind its TPID.

use super::{HeaderError, check_len, view};

mod field {
    use core::ops::Range;
    pub(super) const TCI: Range<usize> = 0..2;
    pub(super) const ETHER_TYPE: Range<usize> = 2..4;
    pub(super) const PAYLOAD: usize = 4;
}

view! {
    /// A tag: the 4 bytes that follow the TPID, and what they tag. The payload of an [`super::Ethernet`]
    /// view with a VLAN ethertype is one.
    Vlan, "VLAN", field::PAYLOAD;
    /// Priority (3 bits), drop eligible (1 bit), VLAN id (12 bits).
    tci, set_tci: u16 = field::TCI;
    /// Ethertype of what is tagged.
    ether_type, set_ether_type: u16 = field::ETHER_TYPE;
}

impl<T: AsRef<[u8]>> Vlan<T> {
    /// A view of a tag.
    ///
    /// # Errors
    /// Fewer than 4 bytes.
    pub fn new_checked(bytes: T) -> Result<Self, HeaderError> {
        check_len("VLAN", bytes.as_ref(), Self::MIN_LEN)?;
        Ok(Self(bytes))
    }

    /// VLAN id, 0 to 4095.
    pub fn id(&self) -> u16 {
        self.tci() & 0x0fff
    }

    /// Priority, 0 to 7.
    pub fn priority(&self) -> u8 {
        self.tci().to_be_bytes()[0] >> 5
    }

    /// What is tagged.
    pub fn payload(&self) -> &[u8] {
        self.0.as_ref().get(field::PAYLOAD..).unwrap_or_default()
    }
}
