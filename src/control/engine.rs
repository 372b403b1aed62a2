//! What the commands need of the running datapath, in plain types: no DPDK, no tables, no text layout. The
//! daemon implements [`Engine`] over its control thread and shards; tests implement it in memory.
//!
//! Reads that can be long (connections, datapath flows) go in batches with a [`Cursor`], so that an
//! implementation never holds an epoch guard or a lock while a slow client takes its output.

use std::sync::Arc;

use serde::Serialize;
use weir_shard::fragments::{DatagramView, Family};
use weir_shard::{ConnectionView, ExpectationView, FragmentCounters, FragmentSettings};

use super::steering::SteeringStatus;
use super::topology::TopologyReport;
use super::tracking::Tracking;
use crate::config::{DevArgs, Name, Peer, PortNumber, Role};
use crate::flow::{self, Applied, ApplyError, FlowMod, GroupEntry, GroupError, GroupMod, PacketOut, Rule};
use crate::pipeline::{FlowCopy, PortId, Snapshot};

pub use crate::switch::FailMode;

pub use super::filter::{ConnectionFilter, TupleFilter};

/// Why the engine did not do what was asked. Nothing has changed then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// There is no bridge of that name.
    #[error("{0} is not a bridge")]
    NoBridge(String),
    /// The tables refuse the flows.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The group table refuses the groups.
    #[error(transparent)]
    Groups(#[from] GroupError),
    /// Anything else, told in full.
    #[error("{0}")]
    Refused(String),
}

/// The running datapath, as the control side sees it. Every method may be called from several threads at
/// once; changes are applied one after another, each whole or not at all.
pub trait Engine: Tracking + Send + Sync {
    /// Bridges with their ports, ordered by name and number.
    ///
    /// # Errors
    /// When an lcore does not answer.
    fn bridges(&self) -> Result<Vec<Bridge>, EngineError>;
    /// Adds and removes bridges and ports: all of `changes`, in order, or none.
    ///
    /// # Errors
    /// When a device does not start or a change does not fit the bridges there are.
    fn reconfigure(&self, changes: Vec<Change>) -> Result<(), EngineError>;

    /// Makes all of these changes of flows, in order, or none.
    ///
    /// # Errors
    /// [`EngineError::NoBridge`], [`EngineError::Apply`].
    fn change_flows(&self, bridge: &str, changes: Vec<FlowMod>) -> Result<Applied, EngineError>;
    /// Makes `wanted` the bridge's flows; those that are there unchanged keep their counters, unless `readd`.
    ///
    /// # Errors
    /// [`EngineError::NoBridge`], [`EngineError::Apply`].
    fn replace_flows(&self, bridge: &str, wanted: Vec<FlowMod>, readd: bool) -> Result<Applied, EngineError>;
    /// The flows that `filter` (a [`Command::Dump`](crate::flow::Command::Dump)) asks for, by table, falling
    /// priority and age, their counters up to date.
    ///
    /// # Errors
    /// [`EngineError::NoBridge`].
    fn flows(&self, bridge: &str, filter: &FlowMod) -> Result<Vec<Arc<Rule>>, EngineError>;
    /// Makes all of these changes of groups, in order, or none. Flows that name a deleted group go with it.
    ///
    /// # Errors
    /// [`EngineError::NoBridge`], [`EngineError::Groups`].
    fn change_groups(&self, bridge: &str, changes: Vec<GroupMod>) -> Result<(), EngineError>;
    /// The groups by number, their counters up to date.
    ///
    /// # Errors
    /// [`EngineError::NoBridge`].
    fn groups(&self, bridge: &str) -> Result<Vec<GroupRow>, EngineError>;
    /// Sends packets through the datapath with their list of actions, one after another.
    ///
    /// # Errors
    /// [`EngineError::NoBridge`]; when a group does not exist, or a packet is longer than the buffers. None was sent
    /// then.
    fn packet_out(&self, bridge: &str, packets: PacketOut) -> Result<(), EngineError>;
    /// The bridges as an lcore would see them now, and the lcores' clock in milliseconds.
    ///
    /// # Errors
    /// When there is none.
    fn snapshot(&self) -> Result<(Arc<Snapshot>, u64), EngineError>;
    /// The clock of the flows' times, in milliseconds.
    fn now_ms(&self) -> u64;
    /// The bridge's tables that hold flows or were looked up, ascending.
    ///
    /// # Errors
    /// [`EngineError::NoBridge`].
    fn tables(&self, bridge: &str) -> Result<Vec<Table>, EngineError>;

    /// What action NORMAL has learned, ordered by VLAN and address.
    ///
    /// # Errors
    /// [`EngineError::NoBridge`].
    fn learned(&self, bridge: &str) -> Result<Vec<Learned>, EngineError>;
    /// What a bridge's learning table has seen.
    ///
    /// # Errors
    /// [`EngineError::NoBridge`].
    fn learning(&self, bridge: &str) -> Result<Learning, EngineError>;
    /// Starts the learning tables' statistics anew, of one bridge or of all.
    ///
    /// # Errors
    /// [`EngineError::NoBridge`].
    fn clear_learning(&self, bridge: Option<&str>) -> Result<(), EngineError>;
    /// Forgets what was learned, on one bridge or on all.
    ///
    /// # Errors
    /// [`EngineError::NoBridge`].
    fn forget_learned(&self, bridge: Option<&str>) -> Result<(), EngineError>;

    /// Appends some hundred of the connections that match, beginning at `from`; `None` when there are no more.
    ///
    /// # Errors
    /// When an lcore does not answer.
    fn connections(
        &self,
        filter: &ConnectionFilter,
        from: Cursor,
        rows: &mut Vec<ConnectionView>,
    ) -> Result<Option<Cursor>, EngineError> {
        self.connection_page(filter, from, usize::MAX, rows)
    }
    /// The same, but no more than `most` of them: where it goes on is right behind the last one that it gave.
    ///
    /// # Errors
    /// When an lcore does not answer.
    fn connection_page(
        &self,
        filter: &ConnectionFilter,
        from: Cursor,
        most: usize,
        rows: &mut Vec<ConnectionView>,
    ) -> Result<Option<Cursor>, EngineError>;
    /// Appends some hundred of the data connections that are expected, beginning at `from`; `None` when there are no
    /// more.
    ///
    /// # Errors
    /// When an lcore does not answer.
    fn expectations(
        &self,
        from: Cursor,
        rows: &mut Vec<ExpectationView>,
    ) -> Result<Option<Cursor>, EngineError>;
    /// Removes the connections that match; their number.
    ///
    /// # Errors
    /// When an lcore does not answer.
    fn flush_connections(&self, filter: &ConnectionFilter) -> Result<u64, EngineError>;
    /// How many connections there are and may be.
    ///
    /// # Errors
    /// When an lcore does not answer.
    fn connection_totals(&self) -> Result<ConnectionTotals, EngineError>;
    /// Changes how many connections may be; removes none.
    ///
    /// # Errors
    /// When there is no room for so many.
    fn set_connection_limit(&self, limit: u32) -> Result<(), EngineError>;

    /// Buckets of the index over connections, all lcores together.
    ///
    /// # Errors
    /// When an lcore does not answer.
    fn index_buckets(&self) -> Result<u64, EngineError>;
    /// Appends the number of entries in each of some hundred buckets, beginning at `from`; a connection has an
    /// entry for each direction. `None` when there are no more.
    ///
    /// # Errors
    /// When an lcore does not answer.
    fn index_occupancy(&self, from: Cursor, entries: &mut Vec<u8>) -> Result<Option<Cursor>, EngineError>;

    /// Forgets the megaflows that are out of date, or all with `purge`, and returns when that is done.
    ///
    /// # Errors
    /// When an lcore does not answer.
    fn revalidate(&self, purge: bool) -> Result<(), EngineError>;
    /// What is done with fragments, and what was.
    ///
    /// # Errors
    /// When an lcore does not answer.
    fn fragments(&self) -> Result<FragmentStatus, EngineError>;
    /// Changes what is done with fragments.
    ///
    /// # Errors
    /// When an lcore does not answer.
    fn set_fragments(&self, change: FragmentChange) -> Result<(), EngineError>;
    /// Appends some hundred of the datagrams that are not complete, beginning at `from`; `None` when there are no more.
    ///
    /// # Errors
    /// When an lcore does not answer.
    fn fragmented_datagrams(
        &self,
        from: Cursor,
        rows: &mut Vec<DatagramView>,
    ) -> Result<Option<Cursor>, EngineError>;

    /// Appends some hundred megaflows, beginning at `from`; `None` when there are no more.
    ///
    /// # Errors
    /// When an lcore does not answer.
    fn datapath_flows(
        &self,
        from: Cursor,
        rows: &mut Vec<DatapathFlow>,
    ) -> Result<Option<Cursor>, EngineError>;
    /// The datapath's totals.
    ///
    /// # Errors
    /// When an lcore does not answer.
    fn datapath(&self) -> Result<DatapathTotals, EngineError>;
    /// The lcores, by CPU.
    ///
    /// # Errors
    /// When an lcore does not answer.
    fn lcores(&self) -> Result<Vec<Lcore>, EngineError>;
    /// Starts the lcores' counters again from zero.
    ///
    /// # Errors
    /// When an lcore does not answer.
    fn clear_lcore_counters(&self) -> Result<(), EngineError>;
    /// Which shard owns what, and how packets get there.
    ///
    /// # Errors
    /// When an lcore does not answer.
    fn steering(&self) -> Result<SteeringStatus, EngineError>;
    /// The machine, and how the datapath lies on it; one without lcores of its own shows the machine alone.
    ///
    /// # Errors
    /// When the machine does not tell, or an lcore does not answer.
    fn topology(&self) -> Result<TopologyReport, EngineError> {
        TopologyReport::of_machine().map_err(|error| EngineError::Refused(error.to_string()))
    }
    /// Every event counter, by name.
    ///
    /// # Errors
    /// When an lcore does not answer.
    fn counters(&self) -> Result<Vec<Counter>, EngineError>;
    /// How full the pools of packet buffers are.
    fn pools(&self) -> Vec<PoolUse>;
}

/// A group, and how many flows name it.
#[derive(Clone, Debug)]
pub struct GroupRow {
    /// The group with its counters.
    pub entry: Arc<GroupEntry>,
    /// Flows.
    pub flows: usize,
}

impl GroupRow {
    /// All groups of `tables`, by number.
    #[must_use]
    pub fn all(tables: &flow::FlowTables) -> Vec<Self> {
        let references = tables.group_references();
        let flows = |entry: &GroupEntry| references.get(&entry.group.id).copied().unwrap_or(0);
        let entries = tables.groups().iter();
        entries.map(|entry| Self { flows: flows(entry), entry: Arc::clone(entry) }).collect()
    }
}

/// Refuses packets whose actions name a group that does not exist.
///
/// # Errors
/// [`EngineError::Refused`].
pub fn check_groups(packets: &PacketOut, tables: &flow::FlowTables) -> Result<(), EngineError> {
    let missing = packets.actions.iter().find_map(|action| match action {
        flow::Action::Group(group) if tables.groups().find(*group).is_none() => Some(*group),
        _ => None,
    });
    match missing {
        Some(group) => Err(EngineError::Refused(format!(
            "there is no group {group} (OFPBAC_BAD_OUT_GROUP); nothing was sent"
        ))),
        None => Ok(()),
    }
}

/// Where a batched read goes on. The default begins at the beginning; what the parts mean is the engine's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Which shard or lcore.
    pub shard: usize,
    /// Which slot of it.
    pub slot: u64,
}

/// A bridge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Bridge {
    /// Its name.
    pub name: Name,
    /// What it does without a controller, if something was said.
    pub fail_mode: Option<FailMode>,
    /// Its ports by number.
    pub ports: Vec<Port>,
}

impl flow::PortNames for Bridge {
    fn number(&self, name: &str) -> Option<flow::PortNumber> {
        self.ports.iter().find(|port| port.name.as_str() == name).map(|port| port.number.number())
    }
    fn name(&self, number: flow::PortNumber) -> Option<&str> {
        self.ports.iter().find(|port| port.number.number() == number).map(|port| port.name.as_str())
    }
}

/// A port with its counters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Port {
    /// Its name.
    pub name: Name,
    /// The number that flows use.
    pub number: PortNumber,
    /// The number that megaflows use, different for each port of all bridges.
    pub id: PortId,
    /// The DPDK device.
    pub devargs: DevArgs,
    /// The driver that runs it.
    pub driver: String,
    /// Six bytes in transmission order.
    pub mac: [u8; 6],
    /// The link, when there is one.
    pub link: Option<Link>,
    /// Receive queues.
    pub rx_queues: u16,
    /// What its driver declined when it was started, and what is particular to it.
    pub notes: Vec<String>,
    /// Since the port was added.
    pub counters: PortCounters,
}

/// A link that is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Link {
    /// In Mbit/s; `None` when the driver does not know.
    pub speed_mbps: Option<u32>,
}

/// A port's counters: packets, and bytes without frame check sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct PortCounters {
    pub rx_packets: u64,
    pub rx_bytes: u64,
    pub rx_dropped: u64,
    pub rx_errors: u64,
    pub tx_packets: u64,
    pub tx_bytes: u64,
    pub tx_dropped: u64,
    pub tx_errors: u64,
}

/// One change of bridges or ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A new bridge without ports, with the one flow that sends everything by action NORMAL.
    AddBridge(Name),
    /// A bridge goes, with its ports and flows.
    RemoveBridge(Name),
    /// A new port.
    AddPort(NewPort),
    /// A port goes.
    RemovePort(Name),
    /// What a bridge does without a controller; a change between secure and not forgets its flows.
    SetFailMode(Name, Option<FailMode>),
}

/// A port to add.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPort {
    /// Where.
    pub bridge: Name,
    /// Its name, unique among bridges and ports.
    pub name: Name,
    /// Its number; `None` for the lowest that is free.
    pub number: Option<PortNumber>,
    /// The device.
    pub devargs: DevArgs,
    /// Receive queues; `None` for one an lcore, as far as the device has them.
    pub rx_queues: Option<u16>,
    /// Its side of zones that are steered by subscriber: what its card is to hash.
    pub role: Option<Role>,
    /// The other end of a veth pair, whose transmit offloads are turned off.
    pub peer: Option<Peer>,
}

/// A flow table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Table {
    /// Its number.
    pub id: u8,
    /// Flows in it.
    pub active: u64,
    /// Packets looked up.
    pub lookup: u64,
    /// Packets that matched a flow.
    pub matched: u64,
}

/// A station that action NORMAL has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Learned {
    /// The port it is behind.
    pub port: u16,
    /// Its VLAN, 0 without.
    pub vlan: u16,
    /// Its address in transmission order.
    pub mac: [u8; 6],
    /// Seconds since it was seen.
    pub age: u32,
}

/// What a bridge's learning table has seen since its statistics were cleared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Learning {
    /// Stations that it knows.
    pub current: u64,
    /// Stations that it has room for.
    pub maximum: u64,
    /// Stations that became known.
    pub learned: u64,
    /// Stations that were silent for too long.
    pub expired: u64,
    /// Stations that were seen at another port than before.
    pub moved: u64,
    /// Frames whose sender was not learned for want of room.
    pub refused: u64,
}

/// How many connections there are, and may be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ConnectionTotals {
    /// Now.
    pub total: u64,
    /// At most.
    pub limit: u32,
}

/// Fragments, all lcores together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FragmentStatus {
    /// What is done with them.
    pub settings: FragmentSettings,
    /// How many are held now.
    pub held: u64,
    /// By [`Family`].
    pub counters: [FragmentCounters; 2],
}

/// A change of what is done with fragments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FragmentChange {
    /// Put a family's fragments together, or no longer.
    Enabled(Family, bool),
    /// The least length of a family's fragments other than the last, in bytes of IP packet.
    MinSize(Family, u32),
    /// How many are held at the most, all lcores together.
    Max(u32),
}

impl FragmentChange {
    /// Makes it.
    pub fn apply(self, settings: &mut FragmentSettings) {
        match self {
            Self::Enabled(family, enabled) => settings.enabled[family as usize] = enabled,
            Self::MinSize(family, size) => settings.min_size[family as usize] = size,
            Self::Max(max) => settings.max = max,
        }
    }
}

/// A megaflow of one lcore.
#[derive(Clone, Debug)]
pub struct DatapathFlow {
    /// The CPU whose flow it is.
    pub cpu: u16,
    /// The flow.
    pub flow: FlowCopy,
    /// Milliseconds now, on the clock of its `used`.
    pub now: u64,
}

/// The datapath's totals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DatapathTotals {
    /// Look-ups that found a cached flow.
    pub hit: u64,
    /// Look-ups that were translated through the tables.
    pub missed: u64,
    /// Packets lost for want of room while they were to be translated.
    pub lost: u64,
    /// Cached flows now.
    pub flows: u64,
}

/// What one lcore has done since its counters were cleared.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Lcore {
    /// Its CPU.
    pub cpu: u16,
    /// The NUMA node of its CPU.
    pub node: u32,
    /// Packets received.
    pub packets: u64,
    /// Times packets went through the datapath again.
    pub recirculations: u64,
    /// Classifications spared by trajectories.
    pub trajectory_hits: u64,
    /// Hits in the exact-match cache.
    pub emc_hits: u64,
    /// Hits among the megaflows.
    pub megaflow_hits: u64,
    /// Translations through the tables that ended well.
    pub misses: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Time-stamp counter cycles spent in turns that found no packet.
    pub idle_cycles: u64,
    /// Cycles spent in turns that found packets.
    pub busy_cycles: u64,
    /// Its receive queues.
    pub queues: Vec<Queue>,
    /// Packets that it and the others gave each other, by reason; nothing where it is alone.
    pub exchange: Vec<Exchange>,
    /// The mailboxes from the other lcores.
    pub mailboxes: Vec<Mailbox>,
}

/// Packets that lcores gave each other for one reason.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Exchange {
    /// Its name.
    pub reason: &'static str,
    /// Given to others.
    pub handed_over: u64,
    /// Taken from others.
    pub taken_over: u64,
    /// Dropped because another one's mailbox was full.
    pub refused: u64,
}

/// How full a mailbox got.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Mailbox {
    /// The CPU of the lcore whose packets it holds.
    pub from: u16,
    /// Most entries that were seen waiting.
    pub most: usize,
    /// Entries there is room for.
    pub capacity: usize,
}

/// A receive queue.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Queue {
    /// The port's name.
    pub port: Name,
    /// The queue's number.
    pub queue: u16,
}

/// An event counter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Counter {
    /// Its name.
    pub name: String,
    /// How often it happened.
    pub total: u64,
    /// What happened.
    pub help: String,
}

/// How full a pool of packet buffers is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PoolUse {
    /// DPDK's name of it.
    pub name: String,
    /// The port that alone uses it; `None` when all do.
    pub port: Option<Name>,
    /// The NUMA node its memory is on; `None` is any.
    pub node: Option<u32>,
    /// Buffers.
    pub size: u32,
    /// Those that hold a packet, or wait in a driver's ring for one.
    pub in_use: u32,
    /// Bytes of packet that one has room for.
    pub data_room: u16,
}
