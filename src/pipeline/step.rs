//! What a megaflow does to its packets: the flow tables' actions after translation, without names, tables
//! or choices left in them.

use weir_shard::CtAction;

use super::PortId;
use crate::flow::key::{Key, Mask};

/// One datapath action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send a copy (the frame itself, if it is the last step).
    Output(PortId),
    /// Send a copy cut to a length; later steps have the whole packet.
    Truncated {
        /// Where to.
        port: PortId,
        /// Bytes at most.
        length: u32,
    },
    /// Write header fields.
    Set(Box<Fields>),
    /// Add an outer VLAN tag.
    PushVlan {
        /// Tag protocol identifier.
        tpid: u16,
        /// Tag control information without the presence bit.
        tci: u16,
    },
    /// Remove the outer VLAN tag.
    PopVlan,
    /// Send to the tracker.
    Ct(Box<CtAction>),
    /// Forget the tracking state.
    ClearCt,
    /// Classify again under this recirculation id.
    Recirculate(u32),
}

/// Header fields to write: the bits of `value` where `mask` is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    /// New values.
    pub value: Key,
    /// Bits to write.
    pub mask: Mask,
}
