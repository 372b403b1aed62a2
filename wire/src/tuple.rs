//! The key of one direction of a connection.

/// IPv4 tuple, 16 bytes without padding so that it compares as one `u128`.
///
/// For TCP, UDP and SCTP the ports are the header's. For ICMP queries `src_port` is the identifier and
/// `dst_port` is `type << 8 | code`. For every other protocol both are 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C, align(16))]
pub struct Tuple4 {
    /// Source address, network order.
    pub src: [u8; 4],
    /// Destination address, network order.
    pub dst: [u8; 4],
    /// Source port (host order).
    pub src_port: u16,
    /// Destination port (host order).
    pub dst_port: u16,
    /// Conntrack zone.
    pub zone: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Always 4.
    pub family: u8,
}

/// IPv6 tuple; fields as in [`Tuple4`], `family` is always 6.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C, align(8))]
pub struct Tuple6 {
    /// Source address, network order.
    pub src: [u8; 16],
    /// Destination address, network order.
    pub dst: [u8; 16],
    /// Source port (host order).
    pub src_port: u16,
    /// Destination port (host order).
    pub dst_port: u16,
    /// Conntrack zone.
    pub zone: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Always 6.
    pub family: u8,
}

/// One direction of a connection with its zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tuple {
    /// Over IPv4.
    V4(Tuple4),
    /// Over IPv6.
    V6(Tuple6),
}
