//! `OpenFlow` groups (ovs-ofctl(8), "Group Syntax"): lists of actions, one or all of which a packet gets. What a group
//! is and how it is written; [`super::group_parse`] reads it, [`super::groups`] keeps a bridge's.

use core::fmt::Write as _;

use super::action::Action;
use super::field::Field;
use super::port::{PortNames, PortNumber};
use super::{print, value};

/// The largest group number (`OFPG_MAX`, `OpenFlow` 1.3 section 7.3.4.2).
pub const MAX_GROUP: u32 = 0xffff_ff00;
/// The largest number of a bucket (`OFPG_BUCKET_MAX`, `OpenFlow` 1.5).
pub const MAX_BUCKET: u32 = 0xffff_ff00;
/// Buckets of a group: as many as a select group of Open vSwitch spreads by `dp_hash`.
pub const MAX_BUCKETS: usize = 256;
/// Groups that lead from one to the next at most.
pub const MAX_CHAIN: usize = 32;

/// Which buckets of a group a packet gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupType {
    /// Every one, each with the packet as it came.
    All,
    /// One, the same for all packets of a connection.
    Select,
    /// The only one.
    Indirect,
    /// The first that is live.
    FastFailover,
}

impl GroupType {
    /// Every type by its names, the one that is printed first.
    pub const NAMES: [(&'static str, Self); 5] = [
        ("all", Self::All),
        ("select", Self::Select),
        ("indirect", Self::Indirect),
        ("ff", Self::FastFailover),
        ("fast_failover", Self::FastFailover),
    ];

    /// The name that is printed.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, kind)| *kind == self).map_or("all", |(name, _)| name)
    }
}

/// What a select group chooses a bucket by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Selection {
    /// Nothing was said: as `dp_hash`.
    #[default]
    Default,
    /// A symmetric hash of addresses, protocol and ports that the datapath takes.
    DpHash {
        /// The low half varies which hash goes to which bucket.
        param: u64,
    },
    /// A hash of fields, each with the bits that count; without fields of all that tell connections apart. Megaflows
    /// then match these fields.
    Hash {
        /// Varies the hash.
        param: u64,
        /// In the order of the table of fields.
        fields: Vec<(&'static Field, u128)>,
    },
}

/// One list of actions of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Its number; `None` until the table gives it one.
    pub id: Option<u32>,
    /// Its share among those of a select group.
    pub weight: u16,
    /// Live only while this port is.
    pub watch_port: Option<PortNumber>,
    /// Live only while this group has a live bucket.
    pub watch_group: Option<u32>,
    /// As written; what is done is [`action_set`].
    pub actions: Vec<Action>,
}

/// A group as a bridge has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub id: u32,
    pub kind: GroupType,
    pub selection: Selection,
    /// All with numbers, each a different one.
    pub buckets: Vec<Bucket>,
}

/// Which bucket to insert in front of or behind, or to remove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    All,
    First,
    Last,
    Bucket(u32),
}

/// What to do with a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupCommand {
    Add,
    Modify,
    /// `mod-group --may-create`.
    AddOrModify,
    Delete,
    InsertBuckets,
    RemoveBuckets,
}

impl GroupCommand {
    /// Every command by its word in a file.
    pub const NAMES: [(&'static str, Self); 6] = [
        ("add", Self::Add),
        ("modify", Self::Modify),
        ("add_or_mod", Self::AddOrModify),
        ("delete", Self::Delete),
        ("insert_bucket", Self::InsertBuckets),
        ("remove_bucket", Self::RemoveBuckets),
    ];

    /// True if the change gives a whole group.
    #[must_use]
    pub const fn defines(self) -> bool {
        matches!(self, Self::Add | Self::Modify | Self::AddOrModify)
    }
}

/// A change of groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMod {
    pub command: GroupCommand,
    /// `None` is all groups, only for deleting.
    pub id: Option<u32>,
    /// Only where [`GroupCommand::defines`].
    pub kind: GroupType,
    pub selection: Selection,
    /// Only for inserting and removing buckets.
    pub place: Place,
    pub buckets: Vec<Bucket>,
}

/// What an action of a bucket is in its action set (ovs-actions(7), "Action Sets").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    StripVlan,
    PushVlan,
    DecTtl,
    /// The only ones of which all are done, in their order.
    Set,
    Queue,
    Group,
    Output,
    Resubmit,
    ClearCt,
    Ct,
    /// Has no place in an action set.
    None,
}

impl Rank {
    /// True for what ends an action set: only the first of these that there is gets done.
    pub(super) const fn ends(self) -> bool {
        matches!(self, Self::Group | Self::Output | Self::Resubmit | Self::ClearCt | Self::Ct)
    }
}

pub(super) fn rank(action: &Action) -> Rank {
    match action {
        Action::StripVlan => Rank::StripVlan,
        Action::PushVlan(_) => Rank::PushVlan,
        Action::DecTtl(_) => Rank::DecTtl,
        Action::SetField { .. }
        | Action::Load { .. }
        | Action::Move { .. }
        | Action::ModDlSrc(_)
        | Action::ModDlDst(_)
        | Action::ModNwSrc(_)
        | Action::ModNwDst(_)
        | Action::ModNwTos(_)
        | Action::ModNwEcn(_)
        | Action::ModNwTtl(_)
        | Action::ModTpSrc(_)
        | Action::ModTpDst(_)
        | Action::ModVlanVid(_)
        | Action::ModVlanPcp(_) => Rank::Set,
        // A note is for people only.
        Action::SetQueue(_) | Action::Note(_) => Rank::Queue,
        Action::Group(_) => Rank::Group,
        Action::Output(_)
        | Action::OutputTruncated { .. }
        | Action::OutputField(_)
        | Action::Normal
        | Action::Flood
        | Action::All
        | Action::InPort
        | Action::Local
        | Action::Controller(_) => Rank::Output,
        Action::Resubmit { .. } => Rank::Resubmit,
        Action::CtClear => Rank::ClearCt,
        Action::Ct(_) => Rank::Ct,
        Action::GotoTable(_)
        | Action::Push(_)
        | Action::Pop(_)
        | Action::PopQueue
        | Action::WriteMetadata { .. }
        | Action::Exit => Rank::None,
    }
}

/// What a bucket does: its actions as an action set, in that order and each kind once, the last one given. Without
/// anything that sends the packet somewhere it does nothing.
#[must_use]
pub fn action_set(actions: &[Action]) -> Vec<Action> {
    let ranked = || actions.iter().map(|action| (rank(action), action));
    let Some(end) = ranked().map(|(rank, _)| rank).filter(|rank| rank.ends()).min() else {
        return Vec::new();
    };
    let last =
        |wanted: Rank| ranked().filter(move |(rank, _)| *rank == wanted).last().map(|(_, a)| a.clone());
    let sets = ranked().filter(|(rank, _)| *rank == Rank::Set).map(|(_, action)| action.clone());
    let front = [Rank::StripVlan, Rank::PushVlan, Rank::DecTtl].into_iter().filter_map(last);
    front.chain(sets).chain(last(Rank::Queue)).chain(last(end)).collect()
}

/// The line of `dump-groups`, with its leading space.
#[must_use]
pub fn dump_line(group: &Group, ports: &dyn PortNames) -> String {
    let mut out = format!(" group_id={},type={}", group.id, group.kind.name());
    selection(&mut out, &group.selection);
    buckets(&mut out, group.kind == GroupType::Select, &group.buckets, ports);
    out
}

/// A change as it would be written, behind its command's word; reading it gives the change again.
#[must_use]
pub fn text(change: &GroupMod, ports: &dyn PortNames) -> String {
    let mut out = match change.id {
        Some(id) => format!("group_id={id}"),
        None => "group_id=all".into(),
    };
    if change.command.defines() {
        let _ = write!(out, ",type={}", change.kind.name());
    }
    if matches!(change.command, GroupCommand::InsertBuckets | GroupCommand::RemoveBuckets) {
        out.push_str(",command_bucket_id=");
        match change.place {
            Place::All => out.push_str("all"),
            Place::First => out.push_str("first"),
            Place::Last => out.push_str("last"),
            Place::Bucket(id) => _ = write!(out, "{id}"),
        }
    }
    selection(&mut out, &change.selection);
    let weights = change.kind == GroupType::Select || !change.command.defines();
    buckets(&mut out, weights, &change.buckets, ports);
    out
}

fn selection(out: &mut String, selection: &Selection) {
    let (name, param, fields) = match selection {
        Selection::Default => return,
        Selection::DpHash { param } => ("dp_hash", *param, &[][..]),
        Selection::Hash { param, fields } => ("hash", *param, fields.as_slice()),
    };
    let _ = write!(out, ",selection_method={name}");
    if param != 0 {
        let _ = write!(out, ",selection_method_param={param}");
    }
    let one = |(field, mask): &(&'static Field, u128)| {
        let name = print::set_name(field);
        if *mask == field.bits { name.to_owned() } else { format!("{name}={}", mask_text(field, *mask)) }
    };
    let list: Vec<String> = fields.iter().map(one).collect();
    match list.as_slice() {
        [] => {}
        [only] => _ = write!(out, ",fields={only}"),
        many => _ = write!(out, ",fields({})", many.join(",")),
    }
}

/// A mask is written as a value of the field would be.
fn mask_text(field: &Field, mask: u128) -> String {
    value::print(field, mask, field.bits, &super::port::NoNames)
}

fn buckets(out: &mut String, weights: bool, buckets: &[Bucket], ports: &dyn PortNames) {
    for bucket in buckets {
        out.push_str(",bucket=");
        if let Some(id) = bucket.id {
            let _ = write!(out, "bucket_id:{id},");
        }
        if weights && bucket.weight != 1 {
            let _ = write!(out, "weight:{},", bucket.weight);
        }
        if let Some(port) = bucket.watch_port {
            let _ = write!(out, "watch_port:{},", value::print_port(port, ports));
        }
        if let Some(group) = bucket.watch_group {
            let _ = write!(out, "watch_group:{group},");
        }
        let _ = write!(out, "actions={}", print::actions(&bucket.actions, ports));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{Command, FlowMod, NoNames};

    fn set(actions: &str) -> String {
        let flow = FlowMod::parse(&format!("ip,actions={actions}"), Command::Add, &NoNames).unwrap().flow;
        print::actions(&action_set(&flow.actions), &NoNames)
    }

    #[test]
    fn a_buckets_actions_are_a_set() {
        assert_eq!(set("output:2,mod_nw_dst:9.9.9.9"), "mod_nw_dst:9.9.9.9,output:2");
        assert_eq!(
            set("mod_nw_src:8.8.8.8,push_vlan:0x8100,output:2,output:3"),
            "push_vlan:0x8100,mod_nw_src:8.8.8.8,output:3"
        );
        assert_eq!(set("ct(commit),resubmit(,2),output:3,resubmit(,3)"), "output:3");
        assert_eq!(set("ct(commit),resubmit(,2),resubmit(,3)"), "resubmit(,3)");
        assert_eq!(set("ct(table=1),group:7,output:1"), "group:7");
        assert_eq!(set("ct(table=1),ct_clear"), "ct_clear");
        assert_eq!(
            set("dec_ttl,mod_nw_ttl:7,strip_vlan,set_queue:3,IN_PORT"),
            "strip_vlan,dec_ttl,mod_nw_ttl:7,set_queue:3,IN_PORT"
        );
        assert_eq!(set("mod_nw_ttl:7"), "drop", "nothing sees the change");
    }
}
