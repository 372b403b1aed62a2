//! The control commands' view of the datapath: every answer is put together here from what the lcores and the
//! control side hold.

use std::sync::Arc;

use weir_shard::{ConnectionView, DumpCursor};

use super::{DaemonError, Datapath};
use crate::config::{Name, PortNumber};
use crate::control::engine::{
    Bridge, Change, ConnectionFilter, ConnectionTotals, Counter, Cursor, DatapathFlow, DatapathTotals,
    Engine, EngineError, Lcore, Learned, Link, NewPort, Port, PortCounters, Queue, Table,
};
use crate::flow::{Applied, FlowMod, PortNames as _, Rule};
use crate::lcore::CallError;
use crate::switch::SwitchError;

/// Connections and megaflows that an lcore looks at for one batch of a dump: some ten microseconds.
const BATCH: usize = 256;

impl From<DaemonError> for EngineError {
    fn from(error: DaemonError) -> Self {
        match error {
            DaemonError::Switch(error) => error.into(),
            error => Self::Refused(error.to_string()),
        }
    }
}

impl From<SwitchError> for EngineError {
    fn from(error: SwitchError) -> Self {
        match error {
            SwitchError::NoSuchBridge { name, .. } => Self::NoBridge(name),
            error => Self::Refused(error.to_string()),
        }
    }
}

impl From<CallError> for EngineError {
    fn from(error: CallError) -> Self {
        Self::Refused(error.to_string())
    }
}

impl Engine for Datapath {
    fn bridges(&self) -> Vec<Bridge> {
        let state = self.state();
        let mut bridges = Vec::new();
        for bridge in state.switch.bridges() {
            let Ok(name) = bridge.name().parse::<Name>() else { continue };
            let mut ports = Vec::new();
            for (&id, device) in &state.devices {
                if device.spec.bridge != name {
                    continue;
                }
                let Some(number) = bridge.port_number(device.spec.name.as_str()) else { continue };
                let counted = state
                    .ask(move |polling| (polling.worker().port_counters(id), polling.refused(id)))
                    .unwrap_or_default();
                let stats = device.stats();
                let mut counters = PortCounters {
                    rx_dropped: stats.rx_missed + stats.rx_no_buffer,
                    rx_errors: stats.rx_errors,
                    tx_errors: stats.tx_errors,
                    ..PortCounters::default()
                };
                for (counted, refused) in counted {
                    counters.rx_packets += counted.received;
                    counters.rx_bytes += counted.received_bytes;
                    counters.tx_packets += counted.sent - refused;
                    counters.tx_bytes += counted.sent_bytes;
                    counters.tx_dropped += refused;
                }
                let link = device.link();
                ports.push(Port {
                    name: device.spec.name.clone(),
                    number,
                    devargs: device.spec.devargs.clone(),
                    driver: device.driver.clone(),
                    mac: device.mac,
                    link: link.up.then_some(Link { speed_mbps: link.speed_mbps }),
                    rx_queues: device.rx_queues,
                    counters,
                });
            }
            ports.sort_by_key(|port| port.number);
            bridges.push(Bridge { name, ports });
        }
        bridges.sort_by(|a, b| a.name.cmp(&b.name));
        bridges
    }

    fn reconfigure(&self, changes: Vec<Change>) -> Result<(), EngineError> {
        let mut state = self.state();
        let mut undo = Vec::new();
        let result = changes.into_iter().try_for_each(|change| state.change(change, &mut undo));
        if result.is_err() {
            // What was there before starts again; a device that does not is told in the log.
            while let Some(change) = undo.pop() {
                if let Err(error) = state.change(change, &mut Vec::new()) {
                    tracing::error!("a change could not be taken back: {error}");
                }
            }
        }
        Ok(result?)
    }

    fn change_flows(&self, bridge: &str, changes: Vec<FlowMod>) -> Result<Applied, EngineError> {
        let mut state = self.state();
        let now = state.now();
        let applied = state.switch.apply(bridge, &changes, now)?;
        state.publish()?;
        Ok(applied)
    }

    fn replace_flows(&self, bridge: &str, wanted: Vec<FlowMod>, readd: bool) -> Result<Applied, EngineError> {
        let mut state = self.state();
        let now = state.now();
        let applied = state.switch.replace(bridge, &wanted, readd, now)?;
        state.publish()?;
        Ok(applied)
    }

    fn flows(&self, bridge: &str, filter: &FlowMod) -> Result<Vec<Arc<Rule>>, EngineError> {
        let state = self.state();
        state.report_flows()?;
        Ok(state.switch.bridge(bridge)?.tables().dump(filter))
    }

    fn now_ms(&self) -> u64 {
        self.state().now()
    }

    fn tables(&self, bridge: &str) -> Result<Vec<Table>, EngineError> {
        let state = self.state();
        state.report_flows()?;
        let bridge = state.switch.bridge(bridge)?;
        Ok(bridge
            .table_statistics()
            .map(|seen| Table {
                id: seen.table,
                active: seen.rules as u64,
                lookup: seen.lookups,
                matched: seen.matched,
            })
            .collect())
    }

    fn learned(&self, bridge: &str) -> Result<Vec<Learned>, EngineError> {
        let state = self.state();
        let now = state.now();
        let mut rows: Vec<Learned> = state
            .switch
            .bridge(bridge)?
            .fdb()
            .rows(now)
            .into_iter()
            .map(|row| {
                let [_, _, mac @ ..] = row.station.mac.to_be_bytes();
                let age = u32::try_from(row.age / 1000).unwrap_or(u32::MAX);
                Learned { port: row.port, vlan: row.station.vlan, mac, age }
            })
            .collect();
        rows.sort_by_key(|row| (row.vlan, row.mac));
        Ok(rows)
    }

    fn forget_learned(&self, bridge: Option<&str>) -> Result<(), EngineError> {
        let state = self.state();
        let now = state.now();
        match bridge {
            Some(name) => {
                state.switch.bridge(name)?.fdb().forget(now, |_| true);
            }
            None => {
                for bridge in state.switch.bridges() {
                    bridge.fdb().forget(now, |_| true);
                }
            }
        }
        Ok(())
    }

    fn connections(
        &self,
        filter: &ConnectionFilter,
        from: Cursor,
        rows: &mut Vec<ConnectionView>,
    ) -> Option<Cursor> {
        let state = self.state();
        let lcore = state.lcores.get(from.shard)?;
        let filter = filter.clone();
        let batch = lcore.call(move |polling| {
            let now = polling.now();
            let mut cursor = DumpCursor::at(u32::try_from(from.slot).unwrap_or(u32::MAX));
            let mut rows = Vec::new();
            polling.worker().shard().dump(now, &mut cursor, BATCH, &mut |connection| {
                if filter.admits(connection) {
                    rows.push(connection.clone());
                }
            });
            (rows, cursor)
        });
        let Ok((found, cursor)) = batch else { return next_shard(from, state.lcores.len()) };
        rows.extend(found);
        if cursor.is_done() {
            return next_shard(from, state.lcores.len());
        }
        Some(Cursor { shard: from.shard, slot: u64::from(cursor.slot()) })
    }

    fn flush_connections(&self, filter: &ConnectionFilter) -> u64 {
        let state = self.state();
        let mut removed = 0;
        for lcore in &state.lcores {
            let mut cursor = DumpCursor::default();
            while !cursor.is_done() {
                let (filter, at) = (filter.clone(), cursor);
                let batch = lcore.call(move |polling| {
                    let mut cursor = at;
                    let shard = polling.worker_mut().shard_mut();
                    let removed =
                        shard.flush(&mut cursor, BATCH, &mut |connection| filter.admits(connection));
                    (removed, cursor)
                });
                let Ok((some, next)) = batch else { break };
                removed += u64::from(some);
                cursor = next;
            }
        }
        removed
    }

    fn connection_totals(&self) -> ConnectionTotals {
        let state = self.state();
        let shards = state
            .ask(|polling| {
                let shard = polling.worker().shard();
                (u64::from(shard.len()), shard.max_connections())
            })
            .unwrap_or_default();
        ConnectionTotals {
            total: shards.iter().map(|(total, _)| total).sum(),
            limit: shards.iter().map(|(_, limit)| limit).sum(),
        }
    }

    fn set_connection_limit(&self, limit: u32) -> Result<(), EngineError> {
        let state = self.state();
        let capacity: u32 = state.ask(|polling| polling.worker().shard().capacity())?.iter().sum();
        if limit > capacity {
            return Err(EngineError::Refused(format!(
                "there is memory for {capacity} connections; start with a larger conntrack.capacity to admit {limit}"
            )));
        }
        let lcores = u32::try_from(state.lcores.len()).unwrap_or(u32::MAX).max(1);
        for (index, lcore) in (0..).zip(&state.lcores) {
            // What does not divide goes to the first ones.
            let share = limit / lcores + u32::from(index < limit % lcores);
            lcore.call(move |polling| polling.worker_mut().shard_mut().set_max_connections(share))?;
        }
        Ok(())
    }

    fn datapath_flows(&self, from: Cursor, rows: &mut Vec<DatapathFlow>) -> Option<Cursor> {
        let state = self.state();
        let lcore = state.lcores.get(from.shard)?;
        let cpu = u16::try_from(lcore.cpu()).unwrap_or(u16::MAX);
        let slot = usize::try_from(from.slot).unwrap_or(usize::MAX);
        let page = lcore.call(move |polling| (polling.worker().megaflow_page(slot, BATCH), polling.now()));
        let Ok(((flows, next), now)) = page else { return next_shard(from, state.lcores.len()) };
        rows.extend(flows.into_iter().map(|flow| DatapathFlow { cpu, flow, now }));
        match next {
            Some(slot) => Some(Cursor { shard: from.shard, slot: slot as u64 }),
            None => next_shard(from, state.lcores.len()),
        }
    }

    fn datapath(&self) -> DatapathTotals {
        let state = self.state();
        let all = state
            .ask(|polling| (*polling.worker().counters(), polling.worker().megaflow_sizes().0))
            .unwrap_or_default();
        let mut totals = DatapathTotals::default();
        for (counters, flows) in all {
            totals.hit += counters.exact_hits + counters.megaflow_hits;
            totals.missed += counters.translations;
            totals.lost += counters.uncached;
            totals.flows += flows as u64;
        }
        totals
    }

    fn lcores(&self) -> Vec<Lcore> {
        let state = self.state();
        let names: Vec<_> =
            state.devices.iter().map(|(&id, device)| (id, device.spec.name.clone())).collect();
        let mut lcores = Vec::new();
        for lcore in &state.lcores {
            let Ok((counters, cycles, inputs)) =
                lcore.call(|polling| (*polling.worker().counters(), polling.cycles(), polling.inputs()))
            else {
                continue;
            };
            let name = |id| names.iter().find(|(known, _)| *known == id).map(|(_, name)| name.clone());
            lcores.push(Lcore {
                cpu: u16::try_from(lcore.cpu()).unwrap_or(u16::MAX),
                packets: counters.received,
                recirculations: counters.recirculations,
                emc_hits: counters.exact_hits,
                megaflow_hits: counters.megaflow_hits,
                misses: counters.translations,
                tx_packets: counters.sent,
                idle_cycles: cycles.idle,
                busy_cycles: cycles.processing,
                queues: inputs
                    .into_iter()
                    .filter_map(|(id, queue)| Some(Queue { port: name(id)?, queue }))
                    .collect(),
            });
        }
        lcores
    }

    fn clear_lcore_counters(&self) {
        let cleared = self.state().ask(crate::lcore::Polling::clear_statistics);
        if let Err(error) = cleared {
            tracing::warn!("not every lcore's counters were cleared: {error}");
        }
    }

    fn counters(&self) -> Vec<Counter> {
        let all = self
            .state()
            .ask(|polling| (*polling.worker().counters(), polling.worker().shard().counters().clone()))
            .unwrap_or_default();
        let mut counters = crate::pipeline::Counters::default();
        let mut conntrack = weir_shard::Counters::default();
        for (worker, shard) in &all {
            counters.add(worker);
            conntrack.add(shard);
        }
        let drops = counters.drops().map(|(cause, total)| Counter {
            name: format!("drop_{}", cause.name()),
            total,
            help: cause.help().into(),
        });
        let tracked = conntrack.iter().map(|(name, total, help)| Counter {
            name: format!("conntrack_{name}"),
            total,
            help,
        });
        drops.chain(tracked).collect()
    }
}

impl super::state::State {
    /// Makes one change and notes what takes it back.
    fn change(&mut self, change: Change, undo: &mut Vec<Change>) -> Result<(), DaemonError> {
        match change {
            Change::AddBridge(name) => {
                let now = self.now();
                self.switch.add_bridge(name.as_str(), now)?;
                undo.push(Change::RemoveBridge(name));
            }
            Change::RemoveBridge(name) => {
                let ports: Vec<Name> = self
                    .devices
                    .values()
                    .filter(|device| device.spec.bridge == name)
                    .map(|device| device.spec.name.clone())
                    .collect();
                // A bridge that is not there must not be found out after its ports are gone.
                self.switch.bridge(name.as_str())?;
                for port in ports {
                    undo.push(Change::AddPort(self.remove_port(&port)?));
                }
                self.switch.delete_bridge(name.as_str())?;
                undo.push(Change::AddBridge(name));
            }
            Change::AddPort(spec) => {
                let name = spec.name.clone();
                self.add_port(&spec)?;
                undo.push(Change::RemovePort(name));
            }
            Change::RemovePort(name) => undo.push(Change::AddPort(self.remove_port(&name)?)),
        }
        Ok(self.publish()?)
    }
}

impl NewPort {
    /// The port of a configuration.
    pub(super) fn of(bridge: &Name, port: &crate::config::Port) -> Self {
        Self {
            bridge: bridge.clone(),
            name: port.name.clone(),
            number: Some(port.number),
            devargs: port.devargs.clone(),
            rx_queues: port.rx_queues,
            peer: port.peer.clone(),
        }
    }
}

impl crate::switch::Bridge {
    /// The number of the port called `name`.
    pub(super) fn port_number(&self, name: &str) -> Option<PortNumber> {
        PortNumber::new(self.ports().number(name)?)
    }
}

fn next_shard(from: Cursor, shards: usize) -> Option<Cursor> {
    let shard = from.shard + 1;
    (shard < shards).then_some(Cursor { shard, slot: 0 })
}
