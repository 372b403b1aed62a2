//! ARP for IPv4 over Ethernet (RFC 826).

use super::{HeaderError, check_len, view};

mod field {
    use core::ops::Range;
    pub(super) const HARDWARE: Range<usize> = 0..2;
    pub(super) const PROTOCOL: Range<usize> = 2..4;
    pub(super) const LENGTHS: Range<usize> = 4..6;
    pub(super) const OPERATION: Range<usize> = 6..8;
    pub(super) const SENDER_HARDWARE: Range<usize> = 8..14;
    pub(super) const SENDER_PROTOCOL: Range<usize> = 14..18;
    pub(super) const TARGET_HARDWARE: Range<usize> = 18..24;
    pub(super) const TARGET_PROTOCOL: Range<usize> = 24..28;
    pub(super) const END: usize = 28;
}

view! {
    /// An ARP message; fields are laid out for 6-byte hardware and 4-byte protocol addresses.
    Arp, "ARP", field::END;
    /// Hardware type, 1 for Ethernet.
    hardware_type, set_hardware_type: u16 = field::HARDWARE;
    /// Protocol type, 0x0800 for IPv4.
    protocol_type, set_protocol_type: u16 = field::PROTOCOL;
    /// Lengths of hardware and protocol addresses: 6 and 4.
    lengths, set_lengths: [2] = field::LENGTHS;
    /// 1 request, 2 reply.
    operation, set_operation: u16 = field::OPERATION;
    /// Sender's Ethernet address.
    sender_hardware, set_sender_hardware: [6] = field::SENDER_HARDWARE;
    /// Sender's IPv4 address.
    sender_protocol, set_sender_protocol: [4] = field::SENDER_PROTOCOL;
    /// Target's Ethernet address.
    target_hardware, set_target_hardware: [6] = field::TARGET_HARDWARE;
    /// Target's IPv4 address.
    target_protocol, set_target_protocol: [4] = field::TARGET_PROTOCOL;
}

impl<T: AsRef<[u8]>> Arp<T> {
    /// A view of a message.
    ///
    /// # Errors
    /// Fewer than 28 bytes.
    pub fn new_checked(bytes: T) -> Result<Self, HeaderError> {
        check_len("ARP", bytes.as_ref(), Self::MIN_LEN)?;
        Ok(Self(bytes))
    }
}
