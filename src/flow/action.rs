//! What a flow does with the packets it matches (ovs-actions(7)). An empty list of actions drops the packet; there is
//! no action for that.

use core::net::Ipv4Addr;

use weir_nat::NatAction;
use weir_shard::Helper;

use super::field::{Field, Subfield};
use super::port::{self, PortNumber};

/// One action. An action that does not fit the packet (TTL of an ARP packet, say) does nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// To one port, unless the packet came in by it. Never a reserved port: those have actions of their own.
    Output(PortNumber),
    /// As [`Action::Output`], cut to `max_len` bytes. The port may be [`LOCAL`](super::port::LOCAL) or
    /// [`IN_PORT`](super::port::IN_PORT).
    OutputTruncated {
        port: PortNumber,
        max_len: u32,
    },
    /// To the port whose number the subfield holds.
    OutputField(Subfield),
    /// Learning switch.
    Normal,
    /// To all ports but the packet's own, as far as flooding is on for them.
    Flood,
    /// To all ports but the packet's own.
    All,
    /// Back to where it came from.
    InPort,
    /// To the bridge's own port.
    Local,
    /// To whoever listens for packets.
    Controller(Controller),
    /// Looks the packet up again and then goes on behind this action.
    Resubmit {
        port: Option<PortNumber>,
        table: Option<u8>,
        ct: bool,
    },
    /// Goes on in a later table; the last action of a flow.
    GotoTable(u8),
    /// To a group.
    Group(u32),
    /// Connection tracking.
    Ct(Box<CtSpec>),
    /// Forgets the connection.
    CtClear,
    /// `set_field`: sets the bits of `mask` (`value & mask == value`, both within the field's width).
    SetField {
        field: &'static Field,
        value: u128,
        mask: u128,
    },
    /// `load`: sets the subfield.
    Load {
        value: u128,
        dst: Subfield,
    },
    /// `move`: copies; both are equally wide.
    Move {
        src: Subfield,
        dst: Subfield,
    },
    /// `push`: puts a subfield's value on the stack.
    Push(Subfield),
    /// `pop`: takes the top of the stack into a subfield; does nothing when the stack is empty.
    Pop(Subfield),
    ModDlSrc([u8; 6]),
    ModDlDst([u8; 6]),
    ModNwSrc(Ipv4Addr),
    ModNwDst(Ipv4Addr),
    /// Sets the DSCP; a multiple of 4, the ECN bits stay.
    ModNwTos(u8),
    ModNwEcn(u8),
    ModNwTtl(u8),
    ModTpSrc(u16),
    ModTpDst(u16),
    /// Sets the VLAN id, pushing a tag with priority 0 where there is none.
    ModVlanVid(u16),
    /// Sets the VLAN priority, pushing a tag with id 0 where there is none.
    ModVlanPcp(u8),
    /// Pushes a tag with this TPID, 0x8100 or 0x88a8.
    PushVlan(u16),
    /// Removes the outer tag (`strip_vlan`, `pop_vlan`).
    StripVlan,
    /// Decrements the TTL or hop limit; a packet whose TTL is 0 or 1 goes no further in this list. The controllers told.
    DecTtl(Vec<u16>),
    SetQueue(u32),
    PopQueue,
    WriteMetadata {
        value: u64,
        mask: u64,
    },
    /// Bytes that mean nothing here.
    Note(Vec<u8>),
    /// Ends processing of the packet.
    Exit,
}

/// `controller(...)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Controller {
    /// Bytes of the packet to send; `u16::MAX` is all of it.
    pub max_len: u16,
    pub reason: Reason,
    pub id: u16,
    pub userdata: Vec<u8>,
    pub pause: bool,
}

/// Why a packet is sent to the controller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reason {
    NoMatch,
    #[default]
    Action,
    InvalidTtl,
    ActionSet,
    Group,
    PacketOut,
}

impl Default for Controller {
    fn default() -> Self {
        Self { max_len: u16::MAX, reason: Reason::default(), id: 0, userdata: Vec::new(), pause: false }
    }
}

impl Reason {
    /// Every reason and its name.
    pub const NAMES: [(Self, &'static str); 6] = [
        (Self::NoMatch, "no_match"),
        (Self::Action, "action"),
        (Self::InvalidTtl, "invalid_ttl"),
        (Self::ActionSet, "action_set"),
        (Self::Group, "group"),
        (Self::PacketOut, "packet_out"),
    ];
}

/// `ct(...)` as written; the pipeline makes a [`weir_shard::CtAction`] of it for a packet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CtSpec {
    pub commit: bool,
    /// Only with `commit`.
    pub force: bool,
    /// Where the tracked packet goes on.
    pub table: Option<u8>,
    pub zone: Zone,
    /// Only with `commit`, and only actions whose [`Action::assignment`] is into `ct_mark` or `ct_label`, or moves
    /// into these.
    pub exec: Vec<Action>,
    pub helper: Option<Helper>,
    pub nat: Option<NatAction>,
}

/// The zone of a `ct`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zone {
    Immediate(u16),
    /// At most 16 bits wide.
    Field(Subfield),
}

impl Default for Zone {
    fn default() -> Self {
        Self::Immediate(0)
    }
}

/// A constant put into some bits of a field: what `set_field`, `load` and most `mod_*` actions come down to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assignment {
    pub field: &'static Field,
    /// `value & mask == value`.
    pub value: u128,
    pub mask: u128,
}

impl Action {
    /// The constant that the action puts into a field. The fields of `mod_nw_src` and its kin may be missing in a
    /// packet, and the action does nothing then: look at the field's prerequisite. `mod_tp_src` and `mod_tp_dst` name
    /// the TCP field and mean UDP and SCTP too. `mod_vlan_*` are not among them, as they may push a tag.
    #[must_use]
    pub fn assignment(&self) -> Option<Assignment> {
        let whole = |name: &str, value: u128| {
            Field::named(name).map(|field| Assignment { field, value, mask: field.bits })
        };
        let mac = super::value::mac_number;
        match self {
            Self::SetField { field, value, mask } => Some(Assignment { field, value: *value, mask: *mask }),
            Self::Load { value, dst } => {
                Some(Assignment { field: dst.field, value: value << dst.start, mask: dst.mask() })
            }
            Self::ModDlSrc(address) => whole("eth_src", mac(*address)),
            Self::ModDlDst(address) => whole("eth_dst", mac(*address)),
            Self::ModNwSrc(address) => whole("nw_src", u32::from(*address).into()),
            Self::ModNwDst(address) => whole("nw_dst", u32::from(*address).into()),
            Self::ModNwTos(tos) => whole("nw_tos", (*tos).into()),
            Self::ModNwEcn(ecn) => whole("nw_ecn", (*ecn).into()),
            Self::ModNwTtl(ttl) => whole("nw_ttl", (*ttl).into()),
            Self::ModTpSrc(port) => whole("tcp_src", (*port).into()),
            Self::ModTpDst(port) => whole("tcp_dst", (*port).into()),
            Self::WriteMetadata { value, mask } => {
                let assignment = whole("metadata", (*value).into())?;
                Some(Assignment { mask: (*mask).into(), ..assignment })
            }
            _ => None,
        }
    }

    /// True if the action sends packets to this very port, which may be a reserved one.
    #[must_use]
    pub const fn outputs_to(&self, wanted: PortNumber) -> bool {
        match self {
            Self::Output(port) | Self::OutputTruncated { port, .. } => *port == wanted,
            Self::InPort => wanted == port::IN_PORT,
            Self::Normal => wanted == port::NORMAL,
            Self::Flood => wanted == port::FLOOD,
            Self::All => wanted == port::ALL,
            Self::Local => wanted == port::LOCAL,
            Self::Controller(_) => wanted == port::CONTROLLER,
            _ => false,
        }
    }
}
