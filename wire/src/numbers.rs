//! The assigned numbers that more than one module needs: ethertypes, IP protocols and ICMP types, in host order.

/// Ethertypes (IEEE 802 numbers).
pub mod ether_type {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// Address resolution.
    pub const ARP: u16 = 0x0806;
    /// Customer VLAN tag (802.1Q).
    pub const VLAN: u16 = 0x8100;
    /// Service VLAN tag (802.1ad).
    pub const QINQ: u16 = 0x88a8;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
    /// Smallest ethertype; below it the field is an 802.3 length.
    pub const MIN: u16 = 0x0600;
    /// Stands for "this frame has no ethertype" (802.3 without SNAP, or cut); OpenFlow's OFP_DL_TYPE_NOT_ETH_TYPE.
    pub const NONE: u16 = 0x05ff;
}

/// IP protocols and IPv6 next headers (IANA protocol-numbers).
pub mod protocol {
    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 routing header.
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// Generic routing encapsulation.
    pub const GRE: u8 = 47;
    /// Authentication header (RFC 4302).
    pub const AUTHENTICATION: u8 = 51;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// IPv6: nothing follows.
    pub const NO_NEXT: u8 = 59;
    /// IPv6 destination options.
    pub const DESTINATION: u8 = 60;
    /// SCTP.
    pub const SCTP: u8 = 132;
}

/// ICMP types for IPv4 (RFC 792).
pub mod icmp_type {
    /// Answer to [`ECHO`].
    pub const ECHO_REPLY: u8 = 0;
    /// Error: destination unreachable.
    pub const UNREACHABLE: u8 = 3;
    /// Error: source quench.
    pub const SOURCE_QUENCH: u8 = 4;
    /// Error: redirect.
    pub const REDIRECT: u8 = 5;
    /// Query: ping.
    pub const ECHO: u8 = 8;
    /// Error: time exceeded.
    pub const TIME_EXCEEDED: u8 = 11;
    /// Error: parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 12;
    /// Query: timestamp.
    pub const TIMESTAMP: u8 = 13;
    /// Answer to [`TIMESTAMP`].
    pub const TIMESTAMP_REPLY: u8 = 14;
    /// Query: information.
    pub const INFORMATION: u8 = 15;
    /// Answer to [`INFORMATION`].
    pub const INFORMATION_REPLY: u8 = 16;

    /// True for the types that quote the packet they complain about.
    #[inline]
    #[must_use]
    pub const fn is_error(kind: u8) -> bool {
        matches!(kind, UNREACHABLE | SOURCE_QUENCH | REDIRECT | TIME_EXCEEDED | PARAMETER_PROBLEM)
    }

    /// The type that answers a query, or that a reply answers; `None` for every other type.
    #[inline]
    #[must_use]
    pub const fn counterpart(kind: u8) -> Option<u8> {
        match kind {
            ECHO => Some(ECHO_REPLY),
            ECHO_REPLY => Some(ECHO),
            TIMESTAMP => Some(TIMESTAMP_REPLY),
            TIMESTAMP_REPLY => Some(TIMESTAMP),
            INFORMATION => Some(INFORMATION_REPLY),
            INFORMATION_REPLY => Some(INFORMATION),
            _ => None,
        }
    }
}

/// ICMPv6 types (RFC 4443, RFC 4861).
pub mod icmpv6_type {
    /// Error: destination unreachable.
    pub const UNREACHABLE: u8 = 1;
    /// Error: packet too big.
    pub const TOO_BIG: u8 = 2;
    /// Error: time exceeded.
    pub const TIME_EXCEEDED: u8 = 3;
    /// Error: parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 4;
    /// Query: ping.
    pub const ECHO: u8 = 128;
    /// Answer to [`ECHO`].
    pub const ECHO_REPLY: u8 = 129;
    /// Neighbour solicitation.
    pub const NEIGHBOUR_SOLICITATION: u8 = 135;
    /// Neighbour advertisement.
    pub const NEIGHBOUR_ADVERTISEMENT: u8 = 136;

    /// True for the types that quote the packet they complain about.
    #[inline]
    #[must_use]
    pub const fn is_error(kind: u8) -> bool {
        matches!(kind, UNREACHABLE | TOO_BIG | TIME_EXCEEDED | PARAMETER_PROBLEM)
    }

    /// The type that answers a query, or that a reply answers; `None` for every other type.
    #[inline]
    #[must_use]
    pub const fn counterpart(kind: u8) -> Option<u8> {
        match kind {
            ECHO => Some(ECHO_REPLY),
            ECHO_REPLY => Some(ECHO),
            _ => None,
        }
    }
}
