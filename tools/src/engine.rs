//! The control side of a switch in memory: what the commands of `weir appctl` and `weir ofctl` need of a datapath, over
//! the virtual switch that scripts run on. What only real devices have it declines.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use weir::config::{PortNumber, ZoneTimeouts, Zones};
use weir::control::Host;
use weir::control::engine::{
    Bridge, Change, ConnectionFilter, ConnectionTotals, Counter, Cursor, DatapathFlow, DatapathTotals,
    Engine, EngineError, FragmentChange, FragmentStatus, GroupRow, Lcore, Learned, Learning, PoolUse, Port,
    PortCounters, Table,
};
use weir::control::events::Subscription;
use weir::control::steering::SteeringStatus;
use weir::control::tracking::{DEFAULT_SWEEP_INTERVAL, EventFilter, LimitChange, Limits, Tracking, record};
use weir::flow::{Applied, FlowMod, GroupMod, PacketOut, Rule};
use weir::pipeline::{Snapshot, Worker, fdb};
use weir::replay::VirtualSwitch;
use weir_shard::fragments::{DatagramView, Family};
use weir_shard::{ConnectionView, DumpCursor, ExpectationView, FragmentCounters};

/// Slots looked at in one piece.
const BATCH: usize = 256;
/// Connections looked at by one sweep.
const SWEEP: u32 = 256;

/// A virtual switch behind a lock, and what it was told about zones.
#[derive(Debug)]
pub struct MemoryEngine {
    switch: Mutex<VirtualSwitch>,
    zones: Mutex<Zones>,
    sweep_interval: AtomicU32,
}

impl MemoryEngine {
    /// The control side of `switch`.
    pub fn new(switch: VirtualSwitch) -> Self {
        Self {
            switch: Mutex::new(switch),
            zones: Mutex::default(),
            sweep_interval: DEFAULT_SWEEP_INTERVAL.into(),
        }
    }

    /// The switch itself. A test that panicked elsewhere leaves it as it was.
    pub fn switch(&self) -> MutexGuard<'_, VirtualSwitch> {
        self.switch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn zones(&self) -> MutexGuard<'_, Zones> {
        self.zones.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every event counter.
    pub fn counts(&self) -> Vec<Counter> {
        let mut switch = self.switch();
        let mut counts: Vec<Counter> = Vec::new();
        for worker in switch.workers() {
            let of_worker = counts_of(worker);
            if counts.is_empty() {
                counts = of_worker;
            } else {
                counts.iter_mut().zip(of_worker).for_each(|(sum, count)| sum.total += count.total);
            }
        }
        counts
    }
}

/// Every event counter of one worker, always in the same order.
fn counts_of(worker: &Worker) -> Vec<Counter> {
    let drops = worker.counters().drops().map(|(cause, total)| Counter {
        name: format!("drop_{}", cause.name()),
        total,
        help: cause.help().into(),
    });
    let handovers =
        worker.counters().handovers().map(|(name, total, help)| Counter { name, total, help: help.into() });
    let tracked = worker.shard().counters().iter().map(|(name, total, help)| Counter {
        name: format!("conntrack_{name}"),
        total,
        help,
    });
    let fragments = Family::ALL.map(|family| (family.name(), worker.fragments().status(family).counters));
    let fragments = fragments.iter().flat_map(|(family, counters)| {
        counters.iter().map(move |(name, total, help)| Counter {
            name: format!("fragment_{family}_{name}"),
            total,
            help: help.into(),
        })
    });
    drops.chain(handovers).chain(tracked).chain(fragments).collect()
}

/// Where a walk over all shards goes on that has come to `next` in the one at `shard`.
fn then(shard: usize, next: Option<u64>, shards: usize) -> Option<Cursor> {
    match next {
        Some(slot) => Some(Cursor { shard, slot }),
        None => (shard + 1 < shards).then_some(Cursor { shard: shard + 1, slot: 0 }),
    }
}

fn no_devices<T>() -> Result<T, EngineError> {
    Err(EngineError::Refused("a switch in memory has no devices".into()))
}

impl Tracking for MemoryEngine {
    fn limits(&self, zones: &[u16]) -> Result<Limits, EngineError> {
        let mut switch = self.switch();
        let now = switch.now();
        let workers = switch.workers();
        for worker in &mut *workers {
            while worker.shard_mut().sweep(now, SWEEP) == SWEEP {}
        }
        let used = |zone| workers.iter().map(|worker| u64::from(worker.shard().zone_len(zone))).sum();
        Ok(Limits::new(&self.zones(), zones, used))
    }

    fn change_limits(&self, change: LimitChange) -> Result<(), EngineError> {
        let mut switch = self.switch();
        for worker in switch.workers() {
            let shard = worker.shard_mut();
            if let Some(default) = change.default {
                shard.set_default_zone_limit(default);
            }
            change.zones.iter().for_each(|(&zone, &limit)| shard.set_zone_limit(zone, limit));
        }
        change.record(&mut self.zones());
        Ok(())
    }

    fn zone_timeouts(&self) -> BTreeMap<u16, ZoneTimeouts> {
        self.zones().timeouts.clone()
    }

    fn set_zone_timeouts(&self, zones: BTreeMap<u16, Option<ZoneTimeouts>>) -> Result<(), EngineError> {
        let mut switch = self.switch();
        for worker in switch.workers() {
            let shard = worker.shard_mut();
            for (&zone, own) in &zones {
                let timeouts = own.as_ref().map(|own| own.over(shard.timeouts()));
                shard
                    .set_zone_timeouts(zone, timeouts)
                    .map_err(|error| EngineError::Refused(error.to_string()))?;
            }
        }
        record(&mut self.zones().timeouts, zones);
        Ok(())
    }

    fn checks_sequence(&self) -> bool {
        !self.switch().worker().shard().liberal_tcp()
    }

    fn check_sequence(&self, check: bool) -> Result<(), EngineError> {
        for worker in self.switch().workers() {
            worker.shard_mut().set_liberal_tcp(!check);
        }
        Ok(())
    }

    fn sweep_interval(&self) -> u32 {
        self.sweep_interval.load(Ordering::Relaxed)
    }

    fn set_sweep_interval(&self, milliseconds: u32) {
        self.sweep_interval.store(milliseconds, Ordering::Relaxed);
    }

    fn subscribe(&self, _: EventFilter) -> Result<Subscription, EngineError> {
        Err(EngineError::Refused(
            "a switch in memory is looked at between packets: it has no listeners".into(),
        ))
    }
}

impl Engine for MemoryEngine {
    fn bridges(&self) -> Result<Vec<Bridge>, EngineError> {
        let switch = self.switch();
        let refused = |error: &dyn std::fmt::Display| EngineError::Refused(error.to_string());
        let mut bridges = Vec::new();
        for bridge in switch.switch().bridges() {
            let mut ports = Vec::new();
            for (&number, name) in bridge.ports() {
                ports.push(Port {
                    name: name.parse().map_err(|error| refused(&error))?,
                    number: PortNumber::new(number).ok_or_else(|| refused(&"port 0"))?,
                    id: number.into(),
                    devargs: "net_null0".parse().map_err(|error| refused(&error))?,
                    driver: "net_null".into(),
                    mac: [0; 6],
                    link: None,
                    rx_queues: 1,
                    notes: Vec::new(),
                    counters: PortCounters::default(),
                });
            }
            let name = bridge.name().parse().map_err(|error| refused(&error))?;
            bridges.push(Bridge { name, fail_mode: bridge.fail_mode(), ports });
        }
        Ok(bridges)
    }

    fn learning(&self, bridge: &str) -> Result<Learning, EngineError> {
        let switch = self.switch();
        let seen = switch.switch().bridge(bridge)?.fdb().statistics();
        Ok(Learning {
            current: u64::try_from(seen.current).unwrap_or(u64::MAX),
            maximum: u64::try_from(fdb::CAPACITY).unwrap_or(u64::MAX),
            learned: seen.learned,
            expired: seen.expired,
            moved: seen.moved,
            refused: seen.refused,
        })
    }

    fn clear_learning(&self, bridge: Option<&str>) -> Result<(), EngineError> {
        let switch = self.switch();
        match bridge {
            Some(name) => switch.switch().bridge(name)?.fdb().clear_statistics(),
            None => switch.switch().bridges().for_each(|bridge| bridge.fdb().clear_statistics()),
        }
        Ok(())
    }

    fn reconfigure(&self, _: Vec<Change>) -> Result<(), EngineError> {
        no_devices()
    }

    fn change_flows(&self, bridge: &str, changes: Vec<FlowMod>) -> Result<Applied, EngineError> {
        let mut switch = self.switch();
        switch.switch().bridge(bridge)?;
        Ok(switch.apply(&changes)?)
    }

    fn replace_flows(&self, bridge: &str, wanted: Vec<FlowMod>, readd: bool) -> Result<Applied, EngineError> {
        let mut switch = self.switch();
        let changes = switch.switch().bridge(bridge)?.tables().replacement(&wanted, readd);
        Ok(switch.apply(&changes)?)
    }

    fn flows(&self, bridge: &str, filter: &FlowMod) -> Result<Vec<Arc<Rule>>, EngineError> {
        let mut switch = self.switch();
        switch.rules()?;
        Ok(switch.switch().bridge(bridge)?.tables().dump(filter))
    }

    fn change_groups(&self, bridge: &str, changes: Vec<GroupMod>) -> Result<(), EngineError> {
        let mut switch = self.switch();
        switch.switch().bridge(bridge)?;
        Ok(switch.apply_groups(&changes)?)
    }

    fn groups(&self, bridge: &str) -> Result<Vec<GroupRow>, EngineError> {
        let mut switch = self.switch();
        switch.rules()?;
        Ok(GroupRow::all(switch.switch().bridge(bridge)?.tables()))
    }

    fn packet_out(&self, bridge: &str, packets: PacketOut) -> Result<(), EngineError> {
        let mut switch = self.switch();
        switch.switch().bridge(bridge)?;
        switch.packet_out(&packets)
    }

    fn snapshot(&self) -> Result<(Arc<Snapshot>, u64), EngineError> {
        let mut switch = self.switch();
        let now = switch.now();
        Ok((Arc::new(switch.worker().snapshot().clone()), now))
    }

    fn now_ms(&self) -> u64 {
        self.switch().now()
    }

    fn tables(&self, bridge: &str) -> Result<Vec<Table>, EngineError> {
        let mut switch = self.switch();
        switch.rules()?;
        let seen = switch.switch().bridge(bridge)?.table_statistics();
        Ok(seen
            .map(|seen| Table {
                id: seen.table,
                active: u64::try_from(seen.rules).unwrap_or(u64::MAX),
                lookup: seen.lookups,
                matched: seen.matched,
            })
            .collect())
    }

    fn learned(&self, bridge: &str) -> Result<Vec<Learned>, EngineError> {
        let switch = self.switch();
        let rows = switch.switch().bridge(bridge)?.fdb().rows(switch.now());
        Ok(rows
            .into_iter()
            .map(|row| {
                let [_, _, mac @ ..] = row.station.mac.to_be_bytes();
                let age = u32::try_from(row.age / 1000).unwrap_or(u32::MAX);
                Learned { port: row.port, vlan: row.station.vlan, mac, age }
            })
            .collect())
    }

    fn forget_learned(&self, name: Option<&str>) -> Result<(), EngineError> {
        let switch = self.switch();
        // There is one bridge: all of them are the one that is named.
        name.map(|name| switch.switch().bridge(name)).transpose()?;
        for bridge in switch.switch().bridges() {
            bridge.fdb().forget(switch.now(), |_| true);
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
        let mut switch = self.switch();
        let now = switch.now();
        let mut cursor = DumpCursor::at(u32::try_from(from.slot).unwrap_or(u32::MAX));
        let workers = switch.workers();
        let Some(worker) = workers.get_mut(from.shard) else { return Ok(None) };
        let reader = worker.shard_mut().reader();
        rows.extend(filter.page(&reader, now, &mut cursor, BATCH, most));
        let next = (!cursor.is_done()).then(|| cursor.slot().into());
        Ok(then(from.shard, next, workers.len()))
    }

    fn expectations(
        &self,
        from: Cursor,
        rows: &mut Vec<ExpectationView>,
    ) -> Result<Option<Cursor>, EngineError> {
        let mut switch = self.switch();
        let now = switch.now();
        let workers = switch.workers();
        let Some(worker) = workers.get(from.shard) else { return Ok(None) };
        let next = worker.shard().dump_expectations(now, from.slot, BATCH, &mut |row| rows.push(row.clone()));
        Ok(then(from.shard, next, workers.len()))
    }

    fn flush_connections(&self, filter: &ConnectionFilter) -> Result<u64, EngineError> {
        let mut switch = self.switch();
        let now = switch.now();
        let mut removed = 0;
        for worker in switch.workers() {
            let (shard, mut cursor) = (worker.shard_mut(), DumpCursor::default());
            while !cursor.is_done() {
                let mut admits = |connection: &ConnectionView| filter.admits(connection);
                removed += u64::from(shard.flush(now, &mut cursor, BATCH, &mut admits));
            }
        }
        // What the shards have to tell each other about it arrives before the next packet.
        switch.flush();
        Ok(removed)
    }

    fn connection_totals(&self) -> Result<ConnectionTotals, EngineError> {
        let mut switch = self.switch();
        let limit = switch.worker().shard().max_connections();
        let total = switch.workers().iter().map(|worker| u64::from(worker.shard().len())).sum();
        Ok(ConnectionTotals { total, limit })
    }

    fn set_connection_limit(&self, limit: u32) -> Result<(), EngineError> {
        for worker in self.switch().workers() {
            worker.shard_mut().set_max_connections(limit);
        }
        Ok(())
    }

    fn index_buckets(&self) -> Result<u64, EngineError> {
        let mut switch = self.switch();
        Ok(switch.workers().iter().map(|worker| worker.shard().index_buckets() as u64).sum())
    }

    fn index_occupancy(&self, from: Cursor, entries: &mut Vec<u8>) -> Result<Option<Cursor>, EngineError> {
        let mut switch = self.switch();
        let workers = switch.workers();
        let Some(worker) = workers.get(from.shard) else { return Ok(None) };
        let at = usize::try_from(from.slot).unwrap_or(usize::MAX);
        worker.shard().index_occupancy(at, BATCH, entries);
        let next = at.saturating_add(BATCH);
        let slot = u64::try_from(next).unwrap_or(u64::MAX);
        Ok(then(from.shard, (next < worker.shard().index_buckets()).then_some(slot), workers.len()))
    }

    fn revalidate(&self, purge: bool) -> Result<(), EngineError> {
        for worker in self.switch().workers() {
            let mut slot = Some(0);
            while let Some(at) = slot {
                slot = worker.revalidate(at, BATCH, purge);
            }
        }
        Ok(())
    }

    fn fragments(&self) -> Result<FragmentStatus, EngineError> {
        let mut switch = self.switch();
        let workers = switch.workers();
        Ok(FragmentStatus {
            settings: workers.first().map(|worker| *worker.fragments().settings()).unwrap_or_default(),
            held: workers.iter().map(|worker| u64::from(worker.fragments().held())).sum(),
            counters: Family::ALL.map(|family| {
                let mut sum = FragmentCounters::default();
                workers.iter().for_each(|worker| sum.add(&worker.fragments().status(family).counters));
                sum
            }),
        })
    }

    fn set_fragments(&self, change: FragmentChange) -> Result<(), EngineError> {
        let mut switch = self.switch();
        let mut settings = *switch.worker().fragments().settings();
        change.apply(&mut settings);
        switch.workers().iter_mut().for_each(|worker| worker.set_fragments(settings));
        Ok(())
    }

    fn fragmented_datagrams(
        &self,
        from: Cursor,
        rows: &mut Vec<DatagramView>,
    ) -> Result<Option<Cursor>, EngineError> {
        let slot = usize::try_from(from.slot).unwrap_or(usize::MAX);
        let mut switch = self.switch();
        let workers = switch.workers();
        let Some(worker) = workers.get(from.shard) else { return Ok(None) };
        let (found, next) = worker.fragments().page(slot, BATCH);
        rows.extend(found);
        let next = next.map(|slot| u64::try_from(slot).unwrap_or(u64::MAX));
        Ok(then(from.shard, next, workers.len()))
    }

    fn datapath_flows(
        &self,
        from: Cursor,
        rows: &mut Vec<DatapathFlow>,
    ) -> Result<Option<Cursor>, EngineError> {
        let mut switch = self.switch();
        let now = switch.now();
        let slot = usize::try_from(from.slot).unwrap_or(usize::MAX);
        let workers = switch.workers();
        let Some(worker) = workers.get(from.shard) else { return Ok(None) };
        let (flows, next) = worker.megaflow_page(slot, BATCH);
        // One thread works for all shards.
        rows.extend(flows.into_iter().map(|flow| DatapathFlow { cpu: 0, flow, now }));
        let next = next.map(|slot| u64::try_from(slot).unwrap_or(u64::MAX));
        Ok(then(from.shard, next, workers.len()))
    }

    fn datapath(&self) -> Result<DatapathTotals, EngineError> {
        let mut switch = self.switch();
        let counters = switch.counters();
        let flows: usize = switch.workers().iter().map(|worker| worker.megaflow_sizes().0).sum();
        Ok(DatapathTotals {
            hit: counters.hits(),
            missed: counters.translations,
            lost: counters.uncached,
            flows: u64::try_from(flows).unwrap_or(u64::MAX),
        })
    }

    fn lcores(&self) -> Result<Vec<Lcore>, EngineError> {
        Ok(Vec::new())
    }

    fn clear_lcore_counters(&self) -> Result<(), EngineError> {
        self.switch().workers().iter_mut().for_each(Worker::clear_counters);
        Ok(())
    }

    fn steering(&self) -> Result<SteeringStatus, EngineError> {
        let switch = self.switch();
        let workers = switch.workers_now();
        // On one thread: none of them has a CPU.
        let mut status = SteeringStatus::new(switch.steering().view(), &vec![0; workers.len()]);
        let counters: Vec<_> = workers.iter().map(|worker| *worker.counters()).collect();
        status.count(&counters);
        Ok(status)
    }

    fn counters(&self) -> Result<Vec<Counter>, EngineError> {
        Ok(self.counts())
    }

    fn pools(&self) -> Vec<PoolUse> {
        Vec::new()
    }
}

/// There is no process around a switch in memory.
#[derive(Debug)]
pub struct NoHost;

impl Host for NoHost {
    fn stop(&self) {}

    fn set_log_level(&self, _: Option<&str>, _: &str) -> Result<(), String> {
        Err("a switch in memory has no log".into())
    }

    fn log_levels(&self) -> Vec<(String, String)> {
        Vec::new()
    }
}
