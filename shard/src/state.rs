//! The connection-tracking state that a packet carries through the pipeline (ovs-fields(7), `ct_state`).

/// Bits of `ct_state`. Without [`CtState::TRK`] nothing else is set; [`CtState::INV`] excludes all but `TRK`
/// (and, for a segment that is no valid part of its translated connection, `SNAT` or `DNAT`);
/// `NEW` excludes `EST` and `RPL`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CtState(pub u8);

impl CtState {
    /// Not tracked.
    pub const NONE: Self = Self(0);
    /// First packet of a connection that is not committed.
    pub const NEW: Self = Self(0x01);
    /// Part of an established connection.
    pub const EST: Self = Self(0x02);
    /// Related to a connection: an ICMP error or an ALG's data connection.
    pub const REL: Self = Self(0x04);
    /// In the reply direction.
    pub const RPL: Self = Self(0x08);
    /// Invalid: belongs to no connection and may not start one.
    pub const INV: Self = Self(0x10);
    /// Tracked: ct() has seen it.
    pub const TRK: Self = Self(0x20);
    /// Source address or port was translated.
    pub const SNAT: Self = Self(0x40);
    /// Destination address or port was translated.
    pub const DNAT: Self = Self(0x80);

    /// True when every bit of `bits` is set.
    #[must_use]
    pub const fn has(self, bits: Self) -> bool {
        self.0 & bits.0 == bits.0
    }
    /// The union of both.
    #[must_use]
    pub const fn with(self, bits: Self) -> Self {
        Self(self.0 | bits.0)
    }
}
