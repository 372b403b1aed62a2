//! The `nat` argument of a ct action (ovs-actions(7), `nat`).

use core::net::{Ipv4Addr, Ipv6Addr};

/// Inclusive address range, `min <= max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AddressRange {
    /// IPv4 addresses.
    V4(Ipv4Addr, Ipv4Addr),
    /// IPv6 addresses.
    V6(Ipv6Addr, Ipv6Addr),
}

/// How a port is chosen from the range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PortSelection {
    /// Neither keyword given.
    #[default]
    Default,
    /// Stable for a tuple.
    Hash,
    /// Drawn at random.
    Random,
}

/// `src=` or `dst=` with its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NatRange {
    /// Addresses to draw from; `None` when only ports were given.
    pub addresses: Option<AddressRange>,
    /// Inclusive ports (host order, `min <= max`), where given.
    pub ports: Option<(u16, u16)>,
    /// How ports are drawn.
    pub selection: PortSelection,
    /// The same inside address keeps its outside address.
    pub persistent: bool,
}

impl NatRange {
    /// True if the address is to stay what it is, and the port unless that is taken: without addresses, or with the null
    /// address (0.0.0.0 or ::).
    #[must_use]
    pub const fn keeps_address(&self) -> bool {
        match self.addresses {
            None => true,
            Some(AddressRange::V4(min, max)) => min.is_unspecified() && max.is_unspecified(),
            Some(AddressRange::V6(min, max)) => min.is_unspecified() && max.is_unspecified(),
        }
    }
}

/// What `nat(...)` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NatAction {
    /// `nat`: apply an existing translation.
    Apply,
    /// `nat(src=...)`: translate the source of a new connection.
    Source(NatRange),
    /// `nat(dst=...)`: translate the destination of a new connection.
    Destination(NatRange),
}
