//! Why a packet went nowhere. Every packet that comes in leaves by a port or is counted here once.

/// The causes, in the order in which they are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DropCause {
    /// A flow without output, or with `drop`.
    Action,
    /// No flow matched.
    TableMiss,
    /// `normal` will not forward it: back to its own port, or to a reserved multicast address.
    Normal,
    /// The flow's output port does not exist.
    NoSuchPort,
    /// TTL or hop limit ran out in `dec_ttl`.
    TtlExpired,
    /// Translation ran into its bound on resubmits.
    TooManyResubmits,
    /// More recirculations than a packet may take.
    TooManyRecirculations,
    /// No room for another recirculation context.
    RecirculationContexts,
    /// It had to be translated and every address and port was taken.
    NatExhausted,
    /// It came in by a port that belongs to no bridge.
    UnknownPort,
    /// Buffers ran out while copying it.
    NoBuffers,
    /// A VLAN tag that had to be added or removed did not fit.
    VlanRoom,
}

impl DropCause {
    /// All causes.
    pub const ALL: [Self; 12] = [
        Self::Action,
        Self::TableMiss,
        Self::Normal,
        Self::NoSuchPort,
        Self::TtlExpired,
        Self::TooManyResubmits,
        Self::TooManyRecirculations,
        Self::RecirculationContexts,
        Self::NatExhausted,
        Self::UnknownPort,
        Self::NoBuffers,
        Self::VlanRoom,
    ];

    /// The counter's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Action => "action",
            Self::TableMiss => "table_miss",
            Self::Normal => "normal",
            Self::NoSuchPort => "no_such_port",
            Self::TtlExpired => "ttl_expired",
            Self::TooManyResubmits => "too_many_resubmits",
            Self::TooManyRecirculations => "too_many_recirculations",
            Self::RecirculationContexts => "recirculation_contexts",
            Self::NatExhausted => "nat_exhausted",
            Self::UnknownPort => "unknown_port",
            Self::NoBuffers => "no_buffers",
            Self::VlanRoom => "vlan_room",
        }
    }

    /// Position in [`DropCause::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}
