//! The Ethernet II header.

use super::{HeaderError, check_len, view};

mod field {
    use core::ops::Range;
    pub(super) const DST: Range<usize> = 0..6;
    pub(super) const SRC: Range<usize> = 6..12;
    pub(super) const ETHER_TYPE: Range<usize> = 12..14;
    pub(super) const PAYLOAD: usize = 14;
}

view! {
    /// An Ethernet frame without FCS. VLAN tags are part of its payload: see [`super::Vlan`].
    Ethernet, "Ethernet", field::PAYLOAD;
    /// Destination address.
    dst, set_dst: [6] = field::DST;
    /// Source address.
    src, set_src: [6] = field::SRC;
    /// Ethertype, or length below 0x0600 (802.3).
    ether_type, set_ether_type: u16 = field::ETHER_TYPE;
}

impl<T: AsRef<[u8]>> Ethernet<T> {
    /// A view of a frame.
    ///
    /// # Errors
    /// Fewer than 14 bytes.
    pub fn new_checked(bytes: T) -> Result<Self, HeaderError> {
        check_len("Ethernet", bytes.as_ref(), Self::MIN_LEN)?;
        Ok(Self(bytes))
    }

    /// What follows the header, padding included.
    pub fn payload(&self) -> &[u8] {
        self.0.as_ref().get(field::PAYLOAD..).unwrap_or_default()
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Ethernet<T> {
    /// As [`Self::payload`], to be written to.
    pub fn payload_mut(&mut self) -> &mut [u8] {
        self.0.as_mut().get_mut(field::PAYLOAD..).unwrap_or_default()
    }
}
