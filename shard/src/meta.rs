//! What a packet carries of its connection between the ct actions that it meets.

use weir_wire::Tuple;

use crate::state::CtState;
use crate::table::bucket::Slot;

/// Names a connection and the direction that a packet has in it. Goes stale when the connection ends; a shard
/// notices. It means nothing to another shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionRef {
    pub(crate) slot: Slot,
    pub(crate) generation: u16,
}

impl ConnectionRef {
    /// Number of the connection's slot, below the shard's capacity.
    #[must_use]
    pub const fn index(&self) -> u32 {
        self.slot.index()
    }
}

/// A packet's conntrack fields. The default is an untracked packet's.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CtMeta {
    /// ct_state.
    pub state: CtState,
    /// ct_zone: of the last ct action.
    pub zone: u16,
    /// ct_mark.
    pub mark: u32,
    /// ct_label, host order.
    pub label: u128,
    /// The original direction's tuple: of the packet's connection, or of the one that it could start. Not kept true
    /// where [`Shard::set_shows_original`](crate::Shard::set_shows_original) says so.
    pub original: Option<Tuple>,
    /// The packet's connection, if it has one.
    pub connection: Option<ConnectionRef>,
}

impl CtMeta {
    /// `ct_clear`: the packet is as if no ct action had seen it.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// The packet leaves its shard before a ct action in `zone`, of which nothing shows: at the next shard it is as if
    /// none of that zone had seen it. Nothing is lost, for a packet leaves only if it was found to be of no connection,
    /// and then the action would have begun anew. The number of a connection means nothing there.
    pub fn leave(&mut self, zone: u16) {
        *self = Self { zone, ..Self::default() };
    }

    /// True if the last ct action was in `zone`.
    pub(crate) const fn is_tracked_in(&self, zone: u16) -> bool {
        self.zone == zone && self.state.has(CtState::TRK)
    }

    /// True if a ct action in `zone` has translated the packet's headers already.
    pub(crate) const fn is_translated_in(&self, zone: u16) -> bool {
        self.zone == zone && self.state.0 & (CtState::SNAT.0 | CtState::DNAT.0) != 0
    }

    /// True if the last ct action was in `zone` and has found the packet's connection.
    #[must_use]
    pub fn is_known_in(&self, zone: u16) -> bool {
        self.connection_in(zone).is_some()
    }

    /// The packet's connection, if the last ct action was in `zone`.
    pub(crate) fn connection_in(&self, zone: u16) -> Option<ConnectionRef> {
        self.connection.filter(|_| self.zone == zone && self.state.has(CtState::TRK))
    }
}
