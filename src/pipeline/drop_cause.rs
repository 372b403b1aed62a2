//! Why a packet went nowhere. Every packet that comes in leaves by a port or is counted here once.

use weir_shard::DropReason;

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
    /// The flow's group does not exist.
    NoSuchGroup,
    /// The flow's group has no live bucket.
    NoLiveBucket,
    /// Only a controller would have got it, and there is none.
    NoController,
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
    /// It had to be translated to an address of another family.
    NatFamily,
    /// It had to be translated and its connection was refused: the limit or the table's end was reached.
    NatRefused,
    /// It is invalid, and a new connection of its flow would have been translated.
    NatInvalid,
    /// Its headers, or the addresses in its payload, cannot carry the translation.
    Untranslatable,
    /// The connection that had translated it ended before its next ct action.
    StaleConnection,
    /// It came in by a port that belongs to no bridge.
    UnknownPort,
    /// Buffers ran out while copying it.
    NoBuffers,
    /// A VLAN tag that had to be added or removed did not fit.
    VlanRoom,
    /// A fragment whose datagram was not complete in time.
    FragmentExpired,
    /// A fragment that was held when reassembly was turned off, or ports or bridges changed.
    FragmentPurged,
    /// The mailbox to the shard that owns it was full.
    MailboxFull,
    /// It was on its way to its shard while numbers of ports or bridges became free for others.
    Renumbered,
    /// It was handed from one lcore to another too often.
    HandoverHops,
}

impl DropCause {
    /// All causes.
    pub const ALL: [Self; 25] = [
        Self::Action,
        Self::TableMiss,
        Self::Normal,
        Self::NoSuchPort,
        Self::NoSuchGroup,
        Self::NoLiveBucket,
        Self::NoController,
        Self::TtlExpired,
        Self::TooManyResubmits,
        Self::TooManyRecirculations,
        Self::RecirculationContexts,
        Self::NatExhausted,
        Self::NatFamily,
        Self::NatRefused,
        Self::NatInvalid,
        Self::Untranslatable,
        Self::StaleConnection,
        Self::UnknownPort,
        Self::NoBuffers,
        Self::VlanRoom,
        Self::FragmentExpired,
        Self::FragmentPurged,
        Self::MailboxFull,
        Self::Renumbered,
        Self::HandoverHops,
    ];

    /// The counter's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Action => "action",
            Self::TableMiss => "table_miss",
            Self::Normal => "normal",
            Self::NoSuchPort => "no_such_port",
            Self::NoSuchGroup => "no_such_group",
            Self::NoLiveBucket => "no_live_bucket",
            Self::NoController => "no_controller",
            Self::TtlExpired => "ttl_expired",
            Self::TooManyResubmits => "too_many_resubmits",
            Self::TooManyRecirculations => "too_many_recirculations",
            Self::RecirculationContexts => "recirculation_contexts",
            Self::NatExhausted => "nat_exhausted",
            Self::NatFamily => "nat_family",
            Self::NatRefused => "nat_refused",
            Self::NatInvalid => "nat_invalid",
            Self::Untranslatable => "untranslatable",
            Self::StaleConnection => "stale_connection",
            Self::UnknownPort => "unknown_port",
            Self::NoBuffers => "no_buffers",
            Self::VlanRoom => "vlan_room",
            Self::FragmentExpired => "fragment_expired",
            Self::FragmentPurged => "fragment_purged",
            Self::MailboxFull => "mailbox_full",
            Self::Renumbered => "renumbered",
            Self::HandoverHops => "handover_hops",
        }
    }

    /// What it means, in a sentence.
    #[must_use]
    pub const fn help(self) -> &'static str {
        match self {
            Self::Action => "a flow without output, or with drop",
            Self::TableMiss => "no flow matched",
            Self::Normal => "normal does not forward it: to its own port, or to a reserved multicast address",
            Self::NoSuchPort => "the flow's output port does not exist",
            Self::NoSuchGroup => "the flow's group does not exist",
            Self::NoLiveBucket => "the flow's group has no live bucket",
            Self::NoController => "it was for a controller, and weir speaks to none",
            Self::TtlExpired => "the TTL or hop limit ran out in dec_ttl",
            Self::TooManyResubmits => "the tables resubmit in circles, or too deep",
            Self::TooManyRecirculations => "the tables recirculate in circles",
            Self::RecirculationContexts => "no room for another recirculation context",
            Self::NatExhausted => "it had to be translated and every address and port was taken",
            Self::NatFamily => "it had to be translated to an address of another family",
            Self::NatRefused => "it had to be translated and its connection was refused",
            Self::NatInvalid => {
                "it is invalid, and its flow translates: untranslated it would show its address"
            }
            Self::Untranslatable => "its headers, or its payload, cannot carry the translation",
            Self::StaleConnection => "the connection that had translated it ended on the way",
            Self::UnknownPort => "it came in by a port of no bridge",
            Self::NoBuffers => "buffers ran out while copying it",
            Self::VlanRoom => "a VLAN tag did not fit",
            Self::FragmentExpired => "the rest of a fragment's datagram did not come in time",
            Self::FragmentPurged => {
                "a fragment was held when reassembly was turned off, or ports or bridges changed"
            }
            Self::MailboxFull => "the mailbox to the shard that owns it was full",
            Self::Renumbered => {
                "a port or bridge was removed while it was on its way to the shard that owns it"
            }
            Self::HandoverHops => "it was handed from one lcore to another too often",
        }
    }

    /// Position in [`DropCause::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl From<DropReason> for DropCause {
    fn from(reason: DropReason) -> Self {
        match reason {
            DropReason::NatExhausted => Self::NatExhausted,
            DropReason::NatFamily => Self::NatFamily,
            DropReason::NatRefused => Self::NatRefused,
            DropReason::NatInvalid => Self::NatInvalid,
            DropReason::Untranslatable => Self::Untranslatable,
            DropReason::Stale => Self::StaleConnection,
            DropReason::HandoverHops => Self::HandoverHops,
        }
    }
}
