//! The control commands' view of the datapath: every answer is put together here from what the lcores and the
//! control side hold.

use std::sync::Arc;

use weir_shard::fragments::DatagramView;
use weir_shard::{ConnectionView, ExpectationView, Reason};

use super::devices::Device;
use super::publication::PublishError;
use super::state::BATCH;
use super::{DaemonError, Datapath};
use crate::config::PortNumber;
use crate::control::engine::{
    Bridge, Change, ConnectionFilter, ConnectionTotals, Counter, Cursor, DatapathFlow, DatapathTotals,
    Engine, EngineError, Exchange, FragmentChange, FragmentStatus, GroupRow, Lcore, Learned, Learning, Link,
    Mailbox, PoolUse, Port, PortCounters, Queue, Table, check_groups,
};
use crate::control::steering::SteeringStatus;
use crate::control::topology::TopologyReport;
use crate::flow::{Applied, FlowMod, GroupMod, PacketOut, PortNames as _, Rule};
use crate::lcore::{CallError, Fill, PortFigures};
use crate::pipeline::{PortId, Snapshot, fdb};
use crate::switch::SwitchError;

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

impl From<PublishError> for EngineError {
    fn from(error: PublishError) -> Self {
        Self::Refused(error.to_string())
    }
}

impl Engine for Datapath {
    fn bridges(&self) -> Result<Vec<Bridge>, EngineError> {
        let state = self.state();
        let ids: Vec<PortId> = state.devices.keys().copied().collect();
        let figures = state.ask(move |polling| {
            ids.iter().map(|&id| polling.port_figures(id)).collect::<Vec<PortFigures>>()
        })?;
        let mut bridges: Vec<Bridge> = Vec::new();
        for bridge in state.switch.bridges() {
            if let Ok(name) = bridge.name().parse() {
                bridges.push(Bridge { name, fail_mode: bridge.fail_mode(), ports: Vec::new() });
            }
        }
        for (index, (&id, device)) in state.devices.iter().enumerate() {
            let own = |bridge: &&mut Bridge| bridge.name == device.spec.bridge;
            let Some(bridge) = bridges.iter_mut().find(own) else { continue };
            let tables = state.switch.bridge(bridge.name.as_str())?;
            let Some(number) = tables.port_number(device.spec.name.as_str()) else { continue };
            let lcores = figures.iter().filter_map(|lcore| lcore.get(index));
            bridge.ports.push(port(device, number, id, lcores));
        }
        for bridge in &mut bridges {
            bridge.ports.sort_by_key(|port| port.number);
        }
        bridges.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(bridges)
    }

    fn reconfigure(&self, changes: Vec<Change>) -> Result<(), EngineError> {
        Ok(self.state().reconfigure(changes)?)
    }

    fn change_flows(&self, bridge: &str, changes: Vec<FlowMod>) -> Result<Applied, EngineError> {
        let mut state = self.state();
        state.responsive()?;
        let now = state.now();
        let applied = state.switch.apply(bridge, &changes, now)?;
        state.publish()?;
        Ok(applied)
    }

    fn replace_flows(&self, bridge: &str, wanted: Vec<FlowMod>, readd: bool) -> Result<Applied, EngineError> {
        let mut state = self.state();
        state.responsive()?;
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

    fn change_groups(&self, bridge: &str, changes: Vec<GroupMod>) -> Result<(), EngineError> {
        let mut state = self.state();
        state.responsive()?;
        let now = state.now();
        let deleted = state.switch.apply_groups(bridge, &changes, now)?;
        if deleted > 0 {
            tracing::info!(bridge, flows = deleted, "flows were deleted with the groups that they name");
        }
        state.publish()?;
        Ok(())
    }

    fn groups(&self, bridge: &str) -> Result<Vec<GroupRow>, EngineError> {
        let state = self.state();
        state.report_flows()?;
        Ok(GroupRow::all(state.switch.bridge(bridge)?.tables()))
    }

    fn packet_out(&self, bridge: &str, packets: PacketOut) -> Result<(), EngineError> {
        let mut state = self.state();
        check_groups(&packets, state.switch.bridge(bridge)?.tables())?;
        Ok(state.send(bridge, packets)?)
    }

    fn snapshot(&self) -> Result<(Arc<Snapshot>, u64), EngineError> {
        let mut state = self.state();
        let now = state.now();
        Ok((Arc::new(state.switch.snapshot()), now))
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

    fn learning(&self, bridge: &str) -> Result<Learning, EngineError> {
        let state = self.state();
        let seen = state.switch.bridge(bridge)?.fdb().statistics();
        Ok(Learning {
            current: seen.current as u64,
            maximum: fdb::CAPACITY as u64,
            learned: seen.learned,
            expired: seen.expired,
            moved: seen.moved,
            refused: seen.refused,
        })
    }

    fn clear_learning(&self, bridge: Option<&str>) -> Result<(), EngineError> {
        let state = self.state();
        match bridge {
            Some(name) => state.switch.bridge(name)?.fdb().clear_statistics(),
            None => state.switch.bridges().for_each(|bridge| bridge.fdb().clear_statistics()),
        }
        Ok(())
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

    fn connection_page(
        &self,
        filter: &ConnectionFilter,
        from: Cursor,
        most: usize,
        rows: &mut Vec<ConnectionView>,
    ) -> Result<Option<Cursor>, EngineError> {
        Ok(self.connections(filter, from, most, rows))
    }

    fn expectations(
        &self,
        from: Cursor,
        rows: &mut Vec<ExpectationView>,
    ) -> Result<Option<Cursor>, EngineError> {
        let state = self.state();
        let Some(lcore) = state.lcores.get(from.shard) else { return Ok(None) };
        let (found, next) = lcore.call(move |polling| {
            let (now, mut rows) = (polling.now(), Vec::new());
            let shard = polling.worker().shard();
            let next = shard.dump_expectations(now, from.slot, BATCH, &mut |row| rows.push(row.clone()));
            (rows, next)
        })?;
        rows.extend(found);
        Ok(match next {
            Some(slot) => Some(Cursor { shard: from.shard, slot }),
            None => next_shard(from, state.lcores.len()),
        })
    }

    fn flush_connections(&self, filter: &ConnectionFilter) -> Result<u64, EngineError> {
        Ok(self.flush(filter)?)
    }

    fn connection_totals(&self) -> Result<ConnectionTotals, EngineError> {
        Ok(self.totals()?)
    }

    fn set_connection_limit(&self, limit: u32) -> Result<(), EngineError> {
        let state = self.state();
        state.responsive()?;
        let capacity = state.capacity;
        if limit > capacity {
            return Err(EngineError::Refused(format!(
                "there is memory for {capacity} connections; start with a larger conntrack.capacity to admit {limit}"
            )));
        }
        state.ask(move |polling| polling.worker_mut().shard_mut().set_max_connections(limit))?;
        Ok(())
    }

    fn index_buckets(&self) -> Result<u64, EngineError> {
        let lcores = self.state().ask(|polling| polling.worker().shard().index_buckets() as u64)?;
        Ok(lcores.iter().sum())
    }

    fn index_occupancy(&self, from: Cursor, entries: &mut Vec<u8>) -> Result<Option<Cursor>, EngineError> {
        let state = self.state();
        let Some(lcore) = state.lcores.get(from.shard) else { return Ok(None) };
        let at = usize::try_from(from.slot).unwrap_or(usize::MAX);
        let (found, all) = lcore.call(move |polling| {
            let (shard, mut found) = (polling.worker().shard(), Vec::new());
            shard.index_occupancy(at, BATCH, &mut found);
            (found, shard.index_buckets())
        })?;
        let next = at.saturating_add(found.len());
        entries.extend(found);
        if next >= all {
            return Ok(next_shard(from, state.lcores.len()));
        }
        Ok(Some(Cursor { slot: next as u64, ..from }))
    }

    fn revalidate(&self, purge: bool) -> Result<(), EngineError> {
        // A lock taken in the head of the loop would be held through all of it.
        let count = self.state().lcores.len();
        for index in 0..count {
            let mut slot = Some(0);
            while let Some(at) = slot {
                // Locked anew for each batch, so that no other command waits for all of it.
                let state = self.state();
                let Some(lcore) = state.lcores.get(index) else { break };
                slot = lcore.call(move |polling| polling.worker_mut().revalidate(at, BATCH, purge))?;
            }
        }
        Ok(())
    }

    fn fragments(&self) -> Result<FragmentStatus, EngineError> {
        Ok(self.state().fragments()?)
    }

    fn set_fragments(&self, change: FragmentChange) -> Result<(), EngineError> {
        Ok(self.state().set_fragments(change)?)
    }

    fn fragmented_datagrams(
        &self,
        from: Cursor,
        rows: &mut Vec<DatagramView>,
    ) -> Result<Option<Cursor>, EngineError> {
        self.state().fragmented_datagrams(from, rows)
    }

    fn datapath_flows(
        &self,
        from: Cursor,
        rows: &mut Vec<DatapathFlow>,
    ) -> Result<Option<Cursor>, EngineError> {
        let state = self.state();
        let Some(lcore) = state.lcores.get(from.shard) else { return Ok(None) };
        let cpu = u16::try_from(lcore.cpu()).unwrap_or(u16::MAX);
        let slot = usize::try_from(from.slot).unwrap_or(usize::MAX);
        let ((flows, next), now) =
            lcore.call(move |polling| (polling.worker().megaflow_page(slot, BATCH), polling.now()))?;
        rows.extend(flows.into_iter().map(|flow| DatapathFlow { cpu, flow, now }));
        Ok(match next {
            Some(slot) => Some(Cursor { shard: from.shard, slot: slot as u64 }),
            None => next_shard(from, state.lcores.len()),
        })
    }

    fn datapath(&self) -> Result<DatapathTotals, EngineError> {
        let all = self
            .state()
            .ask(|polling| (*polling.worker().counters(), polling.worker().megaflow_sizes().0))?;
        let mut totals = DatapathTotals::default();
        for (counters, flows) in all {
            totals.hit += counters.hits();
            totals.missed += counters.translations;
            totals.lost += counters.uncached;
            totals.flows += flows as u64;
        }
        Ok(totals)
    }

    fn lcores(&self) -> Result<Vec<Lcore>, EngineError> {
        let state = self.state();
        let names: Vec<_> =
            state.devices.iter().map(|(&id, device)| (id, device.spec.name.clone())).collect();
        let mut lcores = Vec::new();
        for lcore in &state.lcores {
            let (counters, cycles, inputs, fills) = lcore.call(|polling| {
                (*polling.worker().counters(), polling.cycles(), polling.inputs(), polling.fills())
            })?;
            let cpu = |lcore: &crate::lcore::Lcore| u16::try_from(lcore.cpu()).unwrap_or(u16::MAX);
            // Lcores stand in the order of their shards.
            let mailbox = |Fill { from, most, capacity }| {
                state.lcores.get(from.index()).map(|peer| Mailbox { from: cpu(peer), most, capacity })
            };
            let name = |id| names.iter().find(|(known, _)| *known == id).map(|(_, name)| name.clone());
            lcores.push(Lcore {
                cpu: cpu(lcore),
                node: state.placement().node_of(lcore.cpu()),
                packets: counters.received,
                recirculations: counters.recirculations,
                trajectory_hits: counters.trajectory_hits,
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
                exchange: if fills.is_empty() { Vec::new() } else { exchange(&counters) },
                mailboxes: fills.into_iter().filter_map(mailbox).collect(),
            });
        }
        Ok(lcores)
    }

    fn topology(&self) -> Result<TopologyReport, EngineError> {
        self.state().topology()
    }

    fn clear_lcore_counters(&self) -> Result<(), EngineError> {
        self.state().ask(crate::lcore::Polling::clear_statistics)?;
        Ok(())
    }

    fn steering(&self) -> Result<SteeringStatus, EngineError> {
        self.steering_status()
    }

    fn counters(&self) -> Result<Vec<Counter>, EngineError> {
        let all = self.state().ask(|polling| {
            let worker = polling.worker();
            (*worker.counters(), worker.shard().counters().clone(), polling.unroutable())
        })?;
        let mut counters = crate::pipeline::Counters::default();
        let mut conntrack = weir_shard::Counters::default();
        let mut unroutable = 0;
        for (worker, shard, lost) in &all {
            counters.add(worker);
            conntrack.add(shard);
            unroutable += lost;
        }
        let drops = counters.drops().map(|(cause, total)| Counter {
            name: format!("drop_{}", cause.name()),
            total,
            help: cause.help().into(),
        });
        let handovers =
            counters.handovers().map(|(name, total, help)| Counter { name, total, help: help.into() });
        let gone = Counter {
            name: "drop_port_gone".into(),
            total: unroutable,
            help: "the port to send by was just being removed".into(),
        };
        let tracked = conntrack.iter().map(|(name, total, help)| Counter {
            name: format!("conntrack_{name}"),
            total,
            help,
        });
        let cards = self.state().arrivals()?.counters();
        let status = self.state().fragments()?;
        let fragments = super::fragments::counters(&status);
        Ok(drops
            .chain(handovers)
            .chain([gone])
            .chain(tracked)
            .chain([self.collector.counter()])
            .chain(fragments)
            .chain(cards)
            .collect())
    }

    fn pools(&self) -> Vec<PoolUse> {
        let state = self.state();
        state.pools.usage().chain(state.devices.values().filter_map(Device::pool_usage)).collect()
    }
}

/// A port with what the lcores and the device have counted.
fn port<'a>(
    device: &Device,
    number: PortNumber,
    id: PortId,
    lcores: impl Iterator<Item = &'a PortFigures>,
) -> Port {
    let stats = device.stats();
    let mut counters = PortCounters {
        rx_dropped: stats.rx_missed + stats.rx_no_buffer,
        rx_errors: stats.rx_errors,
        tx_errors: stats.tx_errors,
        ..PortCounters::default()
    };
    for PortFigures { carried, unusable, refused } in lcores {
        counters.rx_packets += carried.received;
        counters.rx_bytes += carried.received_bytes;
        counters.rx_dropped += unusable;
        counters.tx_packets += carried.sent.saturating_sub(*refused);
        counters.tx_bytes += carried.sent_bytes;
        counters.tx_dropped += refused;
    }
    let link = device.link();
    Port {
        name: device.spec.name.clone(),
        number,
        id,
        devargs: device.spec.devargs.clone(),
        driver: device.driver.clone(),
        mac: device.mac,
        link: link.up.then_some(Link { speed_mbps: link.speed_mbps }),
        rx_queues: device.rx_queues,
        notes: device.notes.clone(),
        counters,
    }
}

impl crate::switch::Bridge {
    /// The number of the port called `name`.
    pub(super) fn port_number(&self, name: &str) -> Option<PortNumber> {
        PortNumber::new(self.ports().number(name)?)
    }
}

pub(super) fn next_shard(from: Cursor, shards: usize) -> Option<Cursor> {
    let shard = from.shard + 1;
    (shard < shards).then_some(Cursor { shard, slot: 0 })
}

/// What a worker has given to others, and they to it.
fn exchange(counters: &crate::pipeline::Counters) -> Vec<Exchange> {
    Reason::ALL
        .into_iter()
        .map(|reason| Exchange {
            reason: reason.name(),
            handed_over: counters.handed_over[reason.index()],
            taken_over: counters.taken_over[reason.index()],
            refused: counters.refused_full[reason.index()],
        })
        .collect()
}
