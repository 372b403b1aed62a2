//! The control side's picture of the datapath: bridges, their ports and flow tables. Every change makes a new
//! [`Snapshot`] for the lcores; nothing here is touched by a packet. `weir run` and `weir replay` both stand on
//! it.

mod error;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use error::SwitchError;
use serde::Serialize;

use crate::flow::GroupMod;
use crate::flow::action::Action;
use crate::flow::flow::{Command, FlowMod};
use crate::flow::port::{FIRST_RESERVED, PortNumber};
use crate::flow::table::{Applied, FlowTables};
use crate::pipeline::classifier::Classifier;
use crate::pipeline::group::{self, GroupViews};
use crate::pipeline::{BridgeView, Fdb, PortEntry, PortId, Snapshot};

/// Ports of all bridges together.
pub const MAX_PORTS: usize = 4096;
/// Bridges.
pub const MAX_BRIDGES: usize = 256;
/// Bytes in the name of a bridge or port.
const MAX_NAME: usize = 64;

/// A table as the lcores have it.
#[derive(Debug)]
struct Frozen {
    version: u64,
    classifier: Arc<Classifier>,
}

/// What one flow table has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableStatistics {
    /// Its number.
    pub table: u8,
    /// Rules in it.
    pub rules: usize,
    /// Packets looked up in it.
    pub lookups: u64,
    /// Packets for which it had a rule.
    pub matched: u64,
}

/// What a bridge does without a controller (ovs-vswitchd.conf.db(5), `fail_mode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FailMode {
    /// Forwards as a learning switch until it is given other flows.
    Standalone,
    /// Drops what no flow asks to forward.
    Secure,
}

impl FailMode {
    /// Its name in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Standalone => "standalone",
            Self::Secure => "secure",
        }
    }

    /// The mode called `name`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Self::Standalone, Self::Secure].into_iter().find(|mode| mode.name() == name)
    }
}

/// A bridge's flows and mode as they were before [`Switch::set_fail_mode`].
#[derive(Debug)]
pub struct FormerMode {
    mode: Option<FailMode>,
    tables: Option<FlowTables>,
}

/// A bridge as it is configured.
#[derive(Debug)]
pub struct Bridge {
    fail_mode: Option<FailMode>,
    name: String,
    tables: FlowTables,
    /// The tables as the lcores have them, with the version each was frozen at.
    frozen: Vec<Option<Frozen>>,
    fdb: Arc<Fdb>,
    ports: BTreeMap<PortNumber, String>,
    groups: FrozenGroups,
}

/// Groups as the lcores have them, and what they were made of.
#[derive(Debug, Default)]
struct FrozenGroups {
    version: u64,
    /// Ports with a link.
    up: Vec<PortNumber>,
    views: Arc<GroupViews>,
}

impl Bridge {
    /// Name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Flow tables.
    #[must_use]
    pub fn tables(&self) -> &FlowTables {
        &self.tables
    }

    /// What it does without a controller; standalone, if nothing was said.
    #[must_use]
    pub const fn fail_mode(&self) -> Option<FailMode> {
        self.fail_mode
    }

    /// Stations that `normal` has learned.
    #[must_use]
    pub fn fdb(&self) -> &Arc<Fdb> {
        &self.fdb
    }

    /// Ports by number, with their names; they translate names in flows too.
    #[must_use]
    pub fn ports(&self) -> &BTreeMap<PortNumber, String> {
        &self.ports
    }

    /// What each table has seen, as far as the lcores have reported it.
    pub fn table_statistics(&self) -> impl Iterator<Item = TableStatistics> {
        self.tables.tables().filter_map(|(table, _, rules)| {
            let classifier = &self.frozen.get(usize::from(table))?.as_ref()?.classifier;
            let (lookups, matched) = classifier.statistics();
            Some(TableStatistics { table, rules: rules.len(), lookups, matched })
        })
    }

    /// Freezes the groups, if they or the links of ports have changed.
    fn freeze_groups(&mut self, up: Vec<PortNumber>) -> Arc<GroupViews> {
        let groups = self.tables.groups();
        if self.groups.version != groups.version() || self.groups.up != up {
            let views = group::views(groups, &|port| up.contains(&port), &self.groups.views);
            self.groups = FrozenGroups { version: groups.version(), up, views: Arc::new(views) };
        }
        Arc::clone(&self.groups.views)
    }

    /// Freezes the tables that have changed.
    fn freeze(&mut self) -> Vec<Option<Arc<Classifier>>> {
        let count = self.tables.tables().map(|(number, ..)| usize::from(number) + 1).max().unwrap_or(0);
        self.frozen.resize_with(count, || None);
        for (number, version, rules) in self.tables.tables() {
            let slot = &mut self.frozen[usize::from(number)];
            match slot {
                Some(frozen) if frozen.version == version => {}
                Some(frozen) => {
                    let classifier = Arc::new(frozen.classifier.with_rules(rules));
                    *frozen = Frozen { version, classifier };
                }
                None => *slot = Some(Frozen { version, classifier: Arc::new(Classifier::new(rules)) }),
            }
        }
        self.frozen.iter().map(|slot| slot.as_ref().map(|frozen| Arc::clone(&frozen.classifier))).collect()
    }
}

/// All bridges and ports.
#[derive(Debug, Default)]
pub struct Switch {
    bridges: Vec<Option<Bridge>>,
    ports: Vec<Option<PortEntry>>,
    generation: u64,
    /// See [`Snapshot::numbering`].
    numbering: u64,
}

impl Switch {
    /// Freezes the present state under a new generation.
    pub fn snapshot(&mut self) -> Snapshot {
        self.generation += 1;
        let ports = self.ports.clone();
        let bridges = self
            .bridges
            .iter_mut()
            .enumerate()
            .map(|(index, bridge)| {
                let bridge = bridge.as_mut()?;
                let mut own: Vec<(PortNumber, PortId)> = (0..)
                    .zip(&ports)
                    .filter_map(|(id, port)| {
                        port.as_ref().filter(|port| port.bridge == index).map(|port| (port.number, id))
                    })
                    .collect();
                own.sort_unstable();
                let here = ports.iter().flatten().filter(|port| port.bridge == index && port.up);
                let groups = bridge.freeze_groups(here.map(|port| port.number).collect());
                Some(Arc::new(BridgeView {
                    name: bridge.name.clone(),
                    tables: bridge.freeze(),
                    groups,
                    ports: own,
                    fdb: Arc::clone(&bridge.fdb),
                }))
            })
            .collect();
        Snapshot::new(self.generation, self.numbering, ports, bridges)
    }

    /// The bridges, in the order they were added.
    pub fn bridges(&self) -> impl Iterator<Item = &Bridge> {
        self.bridges.iter().flatten()
    }

    fn index(&self, name: &str) -> Result<usize, SwitchError> {
        let named = |bridge: &Option<Bridge>| bridge.as_ref().is_some_and(|bridge| bridge.name == name);
        self.bridges.iter().position(named).ok_or_else(|| self.no_such_bridge(name))
    }

    fn no_such_bridge(&self, name: &str) -> SwitchError {
        let known = self.bridges().map(|bridge| bridge.name.clone()).collect();
        SwitchError::NoSuchBridge { name: name.into(), known }
    }

    fn bridge_mut(&mut self, name: &str) -> Result<&mut Bridge, SwitchError> {
        let index = self.index(name)?;
        self.bridges[index].as_mut().ok_or(SwitchError::NoSuchBridge { name: name.into(), known: Vec::new() })
    }

    /// The bridge called `name`.
    ///
    /// # Errors
    /// When there is none.
    pub fn bridge(&self, name: &str) -> Result<&Bridge, SwitchError> {
        self.bridges().find(|bridge| bridge.name == name).ok_or_else(|| self.no_such_bridge(name))
    }

    /// Adds an empty bridge whose table 0 forwards as a learning switch until flows are given, as a new bridge
    /// of Open vSwitch does.
    ///
    /// # Errors
    /// When the name is taken or is none, or there are too many bridges.
    pub fn add_bridge(&mut self, name: &str, now: u64) -> Result<(), SwitchError> {
        valid_name(name)?;
        if self.index(name).is_ok() {
            return Err(SwitchError::BridgeExists { name: name.into() });
        }
        let tables = learning_switch(now)?;
        *self.free_bridge()? = Some(Bridge {
            fail_mode: None,
            name: name.into(),
            tables,
            frozen: Vec::new(),
            fdb: Arc::default(),
            ports: BTreeMap::new(),
            groups: FrozenGroups::default(),
        });
        Ok(())
    }

    /// Removes a bridge that has no ports left, and gives what it was.
    ///
    /// # Errors
    /// When there is no such bridge, or it still has ports.
    pub fn delete_bridge(&mut self, name: &str) -> Result<Bridge, SwitchError> {
        let index = self.index(name)?;
        if let Some(port) = self.ports.iter().flatten().find(|port| port.bridge == index) {
            return Err(SwitchError::BridgeHasPorts { name: name.into(), port: port.name.clone() });
        }
        self.numbering += 1;
        self.bridges[index].take().ok_or_else(|| self.no_such_bridge(name))
    }

    /// Puts a bridge back that [`Switch::delete_bridge`] gave, with its flows and their counters.
    ///
    /// # Errors
    /// When its name is taken meanwhile, or there are too many bridges.
    pub fn restore_bridge(&mut self, bridge: Bridge) -> Result<(), SwitchError> {
        if self.index(&bridge.name).is_ok() {
            return Err(SwitchError::BridgeExists { name: bridge.name });
        }
        *self.free_bridge()? = Some(bridge);
        Ok(())
    }

    fn free_bridge(&mut self) -> Result<&mut Option<Bridge>, SwitchError> {
        let free = self.bridges.iter().position(Option::is_none).unwrap_or(self.bridges.len());
        if free == self.bridges.len() && free < MAX_BRIDGES {
            self.bridges.push(None);
        }
        self.bridges.get_mut(free).ok_or(SwitchError::TooManyBridges)
    }

    /// Sets what a bridge does without a controller. As Open vSwitch does, a change between secure and standalone (or
    /// none) forgets the bridge's flows, and a bridge that is then standalone gets the one of a learning switch.
    /// Gives what [`Switch::restore_fail_mode`] needs to take it back.
    ///
    /// # Errors
    /// When there is no such bridge.
    pub fn set_fail_mode(
        &mut self,
        bridge: &str,
        mode: Option<FailMode>,
        now: u64,
    ) -> Result<FormerMode, SwitchError> {
        let bridge = self.bridge_mut(bridge)?;
        let secure = |mode| mode == Some(FailMode::Secure);
        let mut former = FormerMode { mode: bridge.fail_mode, tables: None };
        if secure(mode) != secure(bridge.fail_mode) {
            let tables = if secure(mode) { FlowTables::default() } else { learning_switch(now)? };
            former.tables = Some(core::mem::replace(&mut bridge.tables, tables));
            bridge.frozen.clear();
        }
        bridge.fail_mode = mode;
        Ok(former)
    }

    /// Gives a bridge back the mode and flows that it had.
    ///
    /// # Errors
    /// When there is no such bridge.
    pub fn restore_fail_mode(&mut self, bridge: &str, former: FormerMode) -> Result<(), SwitchError> {
        let bridge = self.bridge_mut(bridge)?;
        bridge.fail_mode = former.mode;
        if let Some(tables) = former.tables {
            bridge.tables = tables;
            bridge.frozen.clear();
        }
        Ok(())
    }

    /// Adds a port, by default with the lowest free number, and gives its datapath id.
    ///
    /// # Errors
    /// When the bridge does not exist, or the name or number is taken or none.
    pub fn add_port(
        &mut self,
        bridge: &str,
        name: &str,
        number: Option<PortNumber>,
    ) -> Result<PortId, SwitchError> {
        let index = self.index(bridge)?;
        valid_name(name)?;
        if self.ports.iter().flatten().any(|port| port.name == name) {
            return Err(SwitchError::PortExists { name: name.into() });
        }
        let taken =
            |number| self.ports.iter().flatten().any(|port| port.bridge == index && port.number == number);
        let number = match number {
            Some(number @ 1..FIRST_RESERVED) if taken(number) => {
                return Err(SwitchError::PortNumberTaken { bridge: bridge.into(), number });
            }
            Some(number @ 1..FIRST_RESERVED) => number,
            Some(number) => return Err(SwitchError::PortNumber { number }),
            None => (1..FIRST_RESERVED).find(|&number| !taken(number)).ok_or(SwitchError::TooManyPorts)?,
        };
        // The datapath id is the OpenFlow number where that is free, so that both read alike in dumps.
        let wanted = usize::from(number);
        let id = if wanted < MAX_PORTS && self.ports.get(wanted).is_none_or(Option::is_none) {
            wanted
        } else {
            (1..MAX_PORTS)
                .find(|&id| self.ports.get(id).is_none_or(Option::is_none))
                .ok_or(SwitchError::TooManyPorts)?
        };
        if id >= self.ports.len() {
            self.ports.resize(id + 1, None);
        }
        self.ports[id] = Some(PortEntry { bridge: index, number, name: name.into(), up: true });
        self.list_ports(index);
        PortId::try_from(id).map_err(|_| SwitchError::TooManyPorts)
    }

    /// Removes a port and gives the datapath id that it had.
    ///
    /// # Errors
    /// When the bridge or the port does not exist.
    pub fn delete_port(&mut self, bridge: &str, name: &str) -> Result<PortId, SwitchError> {
        let index = self.index(bridge)?;
        let (id, slot) = (0..)
            .zip(&mut self.ports)
            .find(|(_, port)| port.as_ref().is_some_and(|port| port.bridge == index && port.name == name))
            .ok_or_else(|| SwitchError::NoSuchPort { bridge: bridge.into(), name: name.into() })?;
        let gone = slot.take();
        self.numbering += 1;
        if let (Some(port), Some(Some(bridge))) = (gone, self.bridges.get(index)) {
            // Another port may get the number: its stations are not the old one's.
            bridge.fdb.forget(0, |row| row.port == port.number);
        }
        self.list_ports(index);
        Ok(id)
    }

    /// Notes whether a port has a link; true if that is news.
    pub fn set_link(&mut self, id: PortId, up: bool) -> bool {
        let port = usize::try_from(id).ok().and_then(|id| self.ports.get_mut(id)?.as_mut());
        port.is_some_and(|port| core::mem::replace(&mut port.up, up) != up)
    }

    fn list_ports(&mut self, index: usize) {
        let list = self
            .ports
            .iter()
            .flatten()
            .filter(|port| port.bridge == index)
            .map(|port| (port.number, port.name.clone()))
            .collect();
        if let Some(Some(bridge)) = self.bridges.get_mut(index) {
            bridge.ports = list;
        }
    }

    /// All ports with their datapath ids.
    pub fn ports(&self) -> impl Iterator<Item = (PortId, &PortEntry)> {
        (0..).zip(&self.ports).filter_map(|(id, port)| Some((id, port.as_ref()?)))
    }

    /// Applies flow changes to a bridge: all of them, or on an error none.
    ///
    /// # Errors
    /// When the bridge does not exist or a change is refused.
    pub fn apply(&mut self, bridge: &str, changes: &[FlowMod], now: u64) -> Result<Applied, SwitchError> {
        Ok(self.bridge_mut(bridge)?.tables.apply(changes, now)?)
    }

    /// Applies changes of groups to a bridge, all of them or none; the number of flows that went with deleted groups.
    ///
    /// # Errors
    /// When the bridge does not exist or a change is refused.
    pub fn apply_groups(
        &mut self,
        bridge: &str,
        changes: &[GroupMod],
        now: u64,
    ) -> Result<usize, SwitchError> {
        Ok(self.bridge_mut(bridge)?.tables.apply_groups(changes, now)?)
    }

    /// Makes the flows of a bridge exactly these; flows that stay keep their counters,
    /// unless `readd`. All or nothing.
    ///
    /// # Errors
    /// As [`Switch::apply`].
    pub fn replace(
        &mut self,
        bridge: &str,
        flows: &[FlowMod],
        readd: bool,
        now: u64,
    ) -> Result<Applied, SwitchError> {
        let tables = &mut self.bridge_mut(bridge)?.tables;
        let changes = tables.replacement(flows, readd);
        Ok(tables.apply(&changes, now)?)
    }

    /// Removes flows whose timeout has passed; true if there were any.
    pub fn expire(&mut self, now: u64) -> bool {
        let mut any = false;
        for bridge in self.bridges.iter_mut().flatten() {
            any |= !bridge.tables.expire(now).is_empty();
            bridge.fdb.expire(now);
        }
        any
    }
}

/// One flow of the lowest priority that forwards as a learning switch.
fn learning_switch(now: u64) -> Result<FlowTables, SwitchError> {
    let mut tables = FlowTables::default();
    let normal = FlowMod { priority: 0, actions: vec![Action::Normal], ..FlowMod::new(Command::Add) };
    tables.apply(&[normal], now)?;
    Ok(tables)
}

fn valid_name(name: &str) -> Result<(), SwitchError> {
    let graphic = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'/' | b',' | b'"' | b'\'');
    if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(graphic) {
        return Err(SwitchError::Name { name: name.chars().take(MAX_NAME).collect() });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
