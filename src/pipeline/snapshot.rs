//! The configuration as the lcores see it: ports, bridges and flow tables, immutable and swapped as a whole.
//! The control side builds a new one for every change, gives it a new generation and publishes it; every worker takes
//! it over with its next burst.

use std::sync::Arc;

use weir_shard::epoch::{Published, Reader};

use super::Fdb;
use super::classifier::{Classifier, read_by, track};
use super::group::GroupViews;
use crate::flow::key::{Key, Mask, ORIGINAL_TUPLE};
use crate::flow::port::PortNumber;
use crate::flow::{GroupType, Selection};

/// A port of the datapath, unique over all bridges.
pub type PortId = u32;

/// A port as the pipeline sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortEntry {
    /// Index of its bridge.
    pub bridge: usize,
    /// OpenFlow number inside the bridge.
    pub number: PortNumber,
    /// Name, unique over all bridges.
    pub name: String,
    /// It has a link, as far as anybody knows.
    pub up: bool,
}

/// A bridge with its tables frozen.
#[derive(Debug, Default)]
pub struct BridgeView {
    /// Name.
    pub name: String,
    /// Flow tables by number; a table without rules may be absent.
    pub tables: Vec<Option<Arc<Classifier>>>,
    /// Groups by number.
    pub groups: Arc<GroupViews>,
    /// OpenFlow number and datapath id of each port, ordered by number.
    pub ports: Vec<(PortNumber, PortId)>,
    /// Stations learned by `normal`.
    pub fdb: Arc<Fdb>,
}

impl BridgeView {
    /// The datapath id behind an OpenFlow port number.
    #[must_use]
    pub fn port(&self, number: PortNumber) -> Option<PortId> {
        let place = self.ports.binary_search_by_key(&number, |(candidate, _)| *candidate).ok()?;
        self.ports.get(place).map(|(_, id)| *id)
    }
}

/// The control side's end: it publishes snapshots, and drops those that no worker uses any more.
pub type PublishedSnapshot = Published<Snapshot>;

/// A worker's end: the snapshot of the burst under way.
pub type SnapshotReader = Reader<Snapshot>;

/// Everything a worker needs to translate a packet.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Different for every snapshot of one program run.
    pub generation: u64,
    /// Grows whenever the number of a port or a bridge may become another one's: what was told by number under one
    /// value means nothing under another.
    pub numbering: u64,
    /// Ports by [`PortId`].
    pub ports: Vec<Option<PortEntry>>,
    /// Bridges by index.
    pub bridges: Vec<Option<Arc<BridgeView>>>,
    /// Some rule matches on a connection's original tuple, or has an action that reads it.
    pub wants_original_tuple: bool,
    /// Some group selects by the datapath's hash.
    pub wants_hash: bool,
    /// Some rule or group sends packets to the tracker.
    pub tracks: bool,
}

impl Snapshot {
    /// A snapshot of these ports and bridges.
    #[must_use]
    pub fn new(
        generation: u64,
        numbering: u64,
        ports: Vec<Option<PortEntry>>,
        bridges: Vec<Option<Arc<BridgeView>>>,
    ) -> Self {
        let tuple = original_tuple_mask();
        let wants_original_tuple = bridges
            .iter()
            .flatten()
            .flat_map(|bridge| bridge.tables.iter().flatten())
            .any(|table| table.reads(&tuple));
        let groups = bridges.iter().flatten().flat_map(|bridge| bridge.groups.values());
        let wants_original_tuple = wants_original_tuple
            || groups
                .clone()
                .flat_map(|group| &group.entry.programs)
                .any(|program| !read_by(program).masked(&tuple).is_zero());
        let tracks = bridges
            .iter()
            .flatten()
            .flat_map(|bridge| bridge.tables.iter().flatten())
            .any(|table| table.tracks())
            || groups.clone().flat_map(|group| &group.entry.programs).any(|program| track(program));
        let by_hash = |selection: &Selection| !matches!(selection, Selection::Hash { .. });
        let wants_hash = groups
            .map(|group| &group.entry.group)
            .any(|group| group.kind == GroupType::Select && by_hash(&group.selection));
        Self { generation, numbering, ports, bridges, wants_original_tuple, wants_hash, tracks }
    }

    /// The port with this id.
    #[inline]
    #[must_use]
    pub fn port(&self, id: PortId) -> Option<&PortEntry> {
        self.ports.get(usize::try_from(id).ok()?)?.as_ref()
    }

    /// The bridge with this index.
    #[must_use]
    pub fn bridge(&self, index: usize) -> Option<&Arc<BridgeView>> {
        self.bridges.get(index)?.as_ref()
    }
}

fn original_tuple_mask() -> Mask {
    let mut mask = Key::ZERO;
    for (offset, length) in ORIGINAL_TUPLE {
        mask.write(offset, length, u128::MAX);
    }
    mask
}
