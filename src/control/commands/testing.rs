//! An engine in memory, and a host that only notes what it was asked, for tests of the commands.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use weir_shard::fragments::{DatagramKey, DatagramView};
use weir_shard::{
    Carried, Changes, ConnectionView, EndCause, Event, EventKind, ExpectationView, Helper, ProtocolState,
    TcpState, Timeout, Traffic, WindowScale,
};
use weir_wire::Tuple;

use super::{Daemon, Host};
use crate::config::{Name, Peer, PortNumber, ZoneTimeouts, Zones};
use crate::control::engine::*;
use crate::control::events::{EventQueue, Subscription, TimedEvent};
use crate::control::steering::SteeringStatus;
use crate::control::tracking::*;
use crate::flow::key::{Key, at};
use crate::flow::{
    Applied, Command, FlowFile, FlowMod, FlowTables, GroupCommand, GroupMod, NoNames, PacketOut, Rule,
};
use crate::pipeline::step::Step;
use crate::pipeline::{FlowCopy, Snapshot};

/// Everything is in plain sight behind one lock; all bridges share their flow tables.
#[derive(Debug, Default)]
pub(crate) struct TestEngine(pub(crate) Mutex<State>);

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) bridges: Vec<Bridge>,
    pub(crate) tables: Option<FlowTables>,
    pub(crate) connections: Vec<ConnectionView>,
    pub(crate) expectations: Vec<ExpectationView>,
    pub(crate) limit: u32,
    pub(crate) fragments: FragmentStatus,
    pub(crate) cleared: bool,
    pub(crate) purged: bool,
    pub(crate) peers: Vec<Peer>,
    pub(crate) sent: Vec<PacketOut>,
    /// The tables that a trace sees.
    pub(crate) flows: String,
    pub(crate) zones: Zones,
    pub(crate) liberal: bool,
    pub(crate) interval: u32,
    pub(crate) listeners: Vec<Arc<EventQueue>>,
    /// Who owns what; one shard everything if that is not said.
    pub(crate) steering: Option<SteeringStatus>,
}

pub(crate) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub(crate) fn connection(host: u8) -> ConnectionView {
    let original = Tuple::new([10, 1, 1, host].into(), [10, 1, 1, 2].into(), 40_000, 80, 6, 1).unwrap();
    let reply = Tuple::new([10, 1, 1, 2].into(), [10, 1, 1, 240].into(), 80, 40_000, 6, 1).unwrap();
    ConnectionView {
        original,
        reply,
        zone: 1,
        mark: 1,
        label: 1,
        remaining: 86_399_000,
        age: 1000,
        state: ProtocolState::Tcp { original: TcpState::Established, reply: TcpState::Established },
        helper: None,
        source_nat: true,
        destination_nat: false,
        scales: [WindowScale::Offered(7); 2],
        traffic: Some(Traffic {
            original: Carried { packets: 12, bytes: 1_404 },
            reply: Carried { packets: 9, bytes: 12_870 },
            idle: 992,
        }),
        parent: None,
    }
}

pub(crate) fn expectation(zone: u16) -> ExpectationView {
    let (client, server) = ([10, 1, 1, 1].into(), [10, 1, 1, 2].into());
    ExpectationView {
        original: Tuple::new(server, [10, 1, 1, 240].into(), 0, 8080, 6, zone).unwrap(),
        target: (client, 8080),
        parent: Tuple::new(client, server, 40_000, 21, 6, zone).unwrap(),
        zone,
        mark: 7,
        label: 0x55,
        remaining: 59_999,
        helper: Helper::Ftp,
    }
}

/// A bridge `br0` with ports 1 and 2, one flow, and connections of hosts 1 to 3.
pub(crate) fn engine() -> Arc<TestEngine> {
    let port = |text: &str, number| Port {
        name: name(text),
        number: PortNumber::new(number).unwrap(),
        id: number.into(),
        devargs: format!("net_null{number}").parse().unwrap(),
        driver: "net_null".into(),
        mac: [2, 0, 0, 0, 0, u8::try_from(number).unwrap()],
        link: Some(Link { speed_mbps: Some(10_000) }),
        rx_queues: 1,
        notes: vec!["the device has no MTU of its own".into()],
        counters: PortCounters { rx_packets: 7, rx_bytes: 420, ..PortCounters::default() },
    };
    let mut tables = FlowTables::new(100);
    let text = "table=1,priority=10,ip,ct_state=-trk,idle_timeout=60,action=ct(nat,table=2)";
    tables.apply(&[FlowMod::parse(text, Command::Add, &NoNames).unwrap().flow], 500).unwrap();
    let group =
        GroupMod::parse("group_id=7,type=select,bucket=1", GroupCommand::Add, &NoNames).unwrap().change;
    tables.apply_groups(&[group], 500).unwrap();
    tables.dump(&FlowMod::new(Command::Dump))[0].stats.add(14, 1096, 1_000);
    let mut timeouts = ZoneTimeouts::default();
    timeouts.set(Timeout::UdpFirst, 7).unwrap();
    let zones = Zones { timeouts: BTreeMap::from([(1, timeouts)]), ..Zones::default() };
    let state = State {
        zones,
        bridges: vec![Bridge {
            name: name("br0"),
            fail_mode: None,
            ports: vec![port("p1", 1), port("p2", 2)],
        }],
        tables: Some(tables),
        connections: (1..=3).map(connection).collect(),
        expectations: vec![expectation(1), expectation(2)],
        limit: 3_000_000,
        interval: DEFAULT_SWEEP_INTERVAL,
        ..State::default()
    };
    Arc::new(TestEngine(Mutex::new(state)))
}

impl TestEngine {
    pub(crate) fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
    fn known(&self, bridge: &str) -> Result<(), EngineError> {
        let state = self.state();
        let known = state.bridges.iter().any(|known| known.name.as_str() == bridge);
        if known { Ok(()) } else { Err(EngineError::NoBridge(bridge.into())) }
    }
}

impl Engine for TestEngine {
    fn bridges(&self) -> Result<Vec<Bridge>, EngineError> {
        Ok(self.state().bridges.clone())
    }

    fn reconfigure(&self, changes: Vec<Change>) -> Result<(), EngineError> {
        let mut state = self.state();
        for change in changes {
            match change {
                Change::AddBridge(name) => {
                    state.bridges.push(Bridge { name, fail_mode: None, ports: Vec::new() });
                }
                Change::SetFailMode(name, mode) => {
                    let bridge = state.bridges.iter_mut().find(|bridge| bridge.name == name);
                    bridge.unwrap().fail_mode = mode;
                }
                Change::RemoveBridge(name) => state.bridges.retain(|bridge| bridge.name != name),
                Change::RemovePort(name) => {
                    state.bridges.iter_mut().for_each(|bridge| bridge.ports.retain(|port| port.name != name));
                }
                Change::AddPort(new) => {
                    if new.devargs.device() == "net_broken" {
                        return Err(EngineError::Refused("net_broken: no such driver".into()));
                    }
                    state.peers.extend(new.peer);
                    let bridge = state.bridges.iter_mut().find(|bridge| bridge.name == new.bridge).unwrap();
                    bridge.ports.push(Port {
                        name: new.name,
                        number: new.number.or(PortNumber::new(9)).unwrap(),
                        id: 9,
                        driver: new.devargs.device().into(),
                        devargs: new.devargs,
                        mac: [0; 6],
                        link: None,
                        rx_queues: new.rx_queues.unwrap_or(1),
                        notes: Vec::new(),
                        counters: PortCounters::default(),
                    });
                }
            }
        }
        Ok(())
    }

    fn change_flows(&self, bridge: &str, changes: Vec<FlowMod>) -> Result<Applied, EngineError> {
        self.known(bridge)?;
        Ok(self.state().tables.as_mut().unwrap().apply(&changes, 1_000)?)
    }

    fn replace_flows(&self, bridge: &str, wanted: Vec<FlowMod>, readd: bool) -> Result<Applied, EngineError> {
        self.known(bridge)?;
        let mut state = self.state();
        let tables = state.tables.as_mut().unwrap();
        Ok(tables.apply(&tables.replacement(&wanted, readd), 1_000)?)
    }

    fn flows(&self, bridge: &str, filter: &FlowMod) -> Result<Vec<Arc<Rule>>, EngineError> {
        self.known(bridge)?;
        Ok(self.state().tables.as_ref().unwrap().dump(filter))
    }

    fn change_groups(&self, bridge: &str, changes: Vec<GroupMod>) -> Result<(), EngineError> {
        self.known(bridge)?;
        self.state().tables.as_mut().unwrap().apply_groups(&changes, 1_000)?;
        Ok(())
    }

    fn groups(&self, bridge: &str) -> Result<Vec<GroupRow>, EngineError> {
        self.known(bridge)?;
        Ok(GroupRow::all(self.state().tables.as_ref().unwrap()))
    }

    fn packet_out(&self, bridge: &str, packets: PacketOut) -> Result<(), EngineError> {
        self.known(bridge)?;
        let mut state = self.state();
        check_groups(&packets, state.tables.as_ref().unwrap())?;
        state.sent.push(packets);
        Ok(())
    }

    /// A switch with the engine's bridge and ports and the NAT example.
    fn snapshot(&self) -> Result<(Arc<Snapshot>, u64), EngineError> {
        let mut switch = crate::switch::Switch::default();
        let state = self.state();
        for bridge in &state.bridges {
            switch.add_bridge(bridge.name.as_str(), 0).unwrap();
            for port in &bridge.ports {
                switch
                    .add_port(bridge.name.as_str(), port.name.as_str(), Some(port.number.number()))
                    .unwrap();
            }
            let file = FlowFile::parse("f", state.flows.as_bytes(), Command::Add, &NoNames).unwrap();
            switch.replace(bridge.name.as_str(), &file.flows, false, 0).unwrap();
        }
        Ok((Arc::new(switch.snapshot()), 0))
    }

    fn now_ms(&self) -> u64 {
        2_000
    }

    fn tables(&self, bridge: &str) -> Result<Vec<Table>, EngineError> {
        self.known(bridge)?;
        Ok(vec![Table { id: 1, active: 1, lookup: 20, matched: 14 }])
    }

    fn learned(&self, bridge: &str) -> Result<Vec<Learned>, EngineError> {
        self.known(bridge)?;
        Ok(vec![Learned { port: 1, vlan: 0, mac: [0x66, 0xb9, 0x24, 0x96, 0x45, 0xa8], age: 0 }])
    }

    fn learning(&self, bridge: &str) -> Result<Learning, EngineError> {
        self.known(bridge)?;
        Ok(Learning { current: 1, maximum: 8192, learned: 3, expired: 2, moved: 1, refused: 0 })
    }

    fn clear_learning(&self, bridge: Option<&str>) -> Result<(), EngineError> {
        bridge.map_or(Ok(()), |bridge| self.known(bridge))
    }

    fn forget_learned(&self, bridge: Option<&str>) -> Result<(), EngineError> {
        bridge.map_or(Ok(()), |bridge| self.known(bridge))
    }

    /// Two rows a batch while there are few, so that every dump takes several.
    fn connection_page(
        &self,
        filter: &ConnectionFilter,
        from: Cursor,
        most: usize,
        rows: &mut Vec<ConnectionView>,
    ) -> Result<Option<Cursor>, EngineError> {
        let state = self.state();
        let batch = if state.connections.len() < 100 { 2 } else { 256 };
        let mut at = usize::try_from(from.slot).unwrap();
        let (end, before) = (at + batch, rows.len());
        while at < end.min(state.connections.len()) && rows.len() - before < most {
            rows.extend(state.connections.get(at).filter(|connection| filter.admits(connection)).cloned());
            at += 1;
        }
        let next = Cursor { slot: u64::try_from(at).unwrap(), ..from };
        Ok((at < state.connections.len()).then_some(next))
    }

    /// One row a batch.
    fn expectations(
        &self,
        from: Cursor,
        rows: &mut Vec<ExpectationView>,
    ) -> Result<Option<Cursor>, EngineError> {
        let state = self.state();
        let start = usize::try_from(from.slot).unwrap();
        rows.extend(state.expectations.get(start).cloned());
        Ok((start + 1 < state.expectations.len()).then_some(Cursor { slot: from.slot + 1, ..from }))
    }

    fn flush_connections(&self, filter: &ConnectionFilter) -> Result<u64, EngineError> {
        let mut state = self.state();
        let before = state.connections.len();
        state.connections.retain(|connection| !filter.admits(connection));
        Ok(u64::try_from(before - state.connections.len()).unwrap())
    }

    fn connection_totals(&self) -> Result<ConnectionTotals, EngineError> {
        let state = self.state();
        let total = u64::try_from(state.connections.len()).unwrap();
        Ok(ConnectionTotals { total, limit: state.limit })
    }

    fn set_connection_limit(&self, limit: u32) -> Result<(), EngineError> {
        self.state().limit = limit;
        Ok(())
    }

    fn index_buckets(&self) -> Result<u64, EngineError> {
        Ok(20)
    }

    /// Bucket `n` of 20 holds `n % 9` entries; ten at a time.
    fn index_occupancy(&self, from: Cursor, entries: &mut Vec<u8>) -> Result<Option<Cursor>, EngineError> {
        entries.extend((from.slot..from.slot + 10).map(|bucket| u8::try_from(bucket % 9).unwrap()));
        Ok((from.slot == 0).then_some(Cursor { slot: 10, ..from }))
    }

    fn steering(&self) -> Result<SteeringStatus, EngineError> {
        let alone = || SteeringStatus::new(weir_shard::Steering::alone().view(), &[1]);
        Ok(self.state().steering.clone().unwrap_or_else(alone))
    }

    fn revalidate(&self, purge: bool) -> Result<(), EngineError> {
        self.state().purged |= purge;
        Ok(())
    }

    fn fragments(&self) -> Result<FragmentStatus, EngineError> {
        Ok(self.state().fragments)
    }

    fn set_fragments(&self, change: FragmentChange) -> Result<(), EngineError> {
        change.apply(&mut self.state().fragments.settings);
        Ok(())
    }

    /// One row a batch.
    fn fragmented_datagrams(
        &self,
        from: Cursor,
        rows: &mut Vec<DatagramView>,
    ) -> Result<Option<Cursor>, EngineError> {
        let v4 = DatagramView {
            key: DatagramKey {
                src: [10, 1, 1, 1].into(),
                dst: [10, 1, 1, 2].into(),
                id: 3,
                protocol: 17,
                zone: 1,
                recirculation: 0,
            },
            protocol: 17,
            fragments: 2,
            has_first: true,
            has_last: true,
            refused: false,
        };
        let (src, dst) = ([0xfc00u16, 0, 0, 0, 0, 0, 0, 1].into(), [0xfc00u16, 0, 0, 0, 0, 0, 0, 2].into());
        let key = DatagramKey { src, dst, recirculation: 8, ..v4.key };
        let v6 = DatagramView { key, fragments: 1, has_last: false, ..v4 };
        rows.push(if from.slot == 0 { v4 } else { v6 });
        Ok((from.slot == 0).then_some(Cursor { slot: 1, ..from }))
    }

    fn datapath_flows(
        &self,
        from: Cursor,
        rows: &mut Vec<DatapathFlow>,
    ) -> Result<Option<Cursor>, EngineError> {
        let (mut key, mut mask) = (Key::ZERO, Key::ZERO);
        for (offset, length, value) in [(at::IN_PORT, 4, 1), (at::ETH_TYPE, 2, 0x0800)] {
            key.write(offset, length, value);
            mask.write(offset, length, u128::MAX);
        }
        mask.write(at::NW_FRAG, 1, 3);
        let flow = FlowCopy {
            key,
            mask,
            steps: Box::new([Step::Ct(Box::default()), Step::Recirculate(8)]),
            packets: 5 * from.slot,
            bytes: 300,
            used: (from.slot > 0).then_some(1_750),
            tcp_flags: 0x12,
        };
        rows.push(DatapathFlow { cpu: 1, flow, now: 2_000 });
        Ok((from.slot == 0).then_some(Cursor { slot: 1, ..from }))
    }

    fn datapath(&self) -> Result<DatapathTotals, EngineError> {
        Ok(DatapathTotals { hit: 609, missed: 2, lost: 0, flows: 2 })
    }

    fn lcores(&self) -> Result<Vec<Lcore>, EngineError> {
        Ok(vec![Lcore {
            cpu: 1,
            packets: 100,
            recirculations: 50,
            busy_cycles: 20_000,
            idle_cycles: 60_000,
            queues: vec![Queue { port: name("p1"), queue: 0 }],
            exchange: vec![
                Exchange { reason: "steered", handed_over: 40, taken_over: 0, refused: 2 },
                Exchange { reason: "related", handed_over: 1, taken_over: 0, refused: 0 },
            ],
            mailboxes: vec![Mailbox { from: 3, most: 17, capacity: 1024 }],
            ..Lcore::default()
        }])
    }

    fn clear_lcore_counters(&self) -> Result<(), EngineError> {
        self.state().cleared = true;
        Ok(())
    }

    fn counters(&self) -> Result<Vec<Counter>, EngineError> {
        Ok(vec![
            counter("nat_exhausted", 3, "no free port for a new connection"),
            counter("mailbox_full", 0, "a hand-over found no room"),
        ])
    }

    fn pools(&self) -> Vec<PoolUse> {
        let pool = PoolUse {
            name: "packets-0".into(),
            port: None,
            node: Some(0),
            size: 32_767,
            in_use: 2_048,
            data_room: 2_176,
        };
        let own = PoolUse { name: "xdp-1".into(), port: Some(name("p1")), node: None, ..pool.clone() };
        vec![pool, own]
    }
}

impl Tracking for TestEngine {
    fn limits(&self, zones: &[u16]) -> Result<Limits, EngineError> {
        let state = self.state();
        let of_zone =
            |zone| state.connections.iter().filter(|connection| connection.zone == zone).count() as u64;
        Ok(Limits::new(&state.zones, zones, of_zone))
    }

    fn change_limits(&self, change: LimitChange) -> Result<(), EngineError> {
        change.record(&mut self.state().zones);
        Ok(())
    }

    fn zone_timeouts(&self) -> BTreeMap<u16, ZoneTimeouts> {
        self.state().zones.timeouts.clone()
    }

    fn set_zone_timeouts(&self, zones: BTreeMap<u16, Option<ZoneTimeouts>>) -> Result<(), EngineError> {
        record(&mut self.state().zones.timeouts, zones);
        Ok(())
    }

    fn checks_sequence(&self) -> bool {
        !self.state().liberal
    }

    fn check_sequence(&self, check: bool) -> Result<(), EngineError> {
        self.state().liberal = !check;
        Ok(())
    }

    fn sweep_interval(&self) -> u32 {
        self.state().interval
    }

    fn set_sweep_interval(&self, milliseconds: u32) {
        self.state().interval = milliseconds;
    }

    /// Each connection is told of at once, and then no more.
    fn subscribe(&self, filter: EventFilter) -> Result<Subscription, EngineError> {
        let queue = Arc::new(EventQueue::new(filter, 100));
        let kinds = [
            EventKind::New,
            EventKind::Update(Changes::STATE.with(Changes::MARK)),
            EventKind::Destroy(EndCause::Timeout),
        ];
        let connections = self.state().connections.clone();
        let events = connections.into_iter().zip(kinds).map(|(connection, kind)| {
            let event = Event { at: 0, kind, connection };
            Arc::new(TimedEvent { event, time: 1_700_000_000_123 })
        });
        let _ = queue.push(&events.collect::<Vec<_>>(), 4);
        queue.end();
        self.state().listeners.push(Arc::clone(&queue));
        Ok(Subscription::new(queue))
    }
}

fn counter(name: &str, total: u64, help: &str) -> Counter {
    Counter { name: name.into(), total, help: help.into() }
}

/// Notes what it was asked.
#[derive(Debug, Default)]
pub(crate) struct TestHost(pub(crate) Mutex<Vec<String>>);

impl Host for TestHost {
    fn stop(&self) {
        self.0.lock().unwrap().push("stop".into());
    }
    fn set_log_level(&self, module: Option<&str>, level: &str) -> Result<(), String> {
        self.0.lock().unwrap().push(format!("{}={level}", module.unwrap_or("all")));
        Ok(())
    }
    fn log_levels(&self) -> Vec<(String, String)> {
        vec![("control".into(), "INFO".into())]
    }
}

pub(crate) fn daemon() -> (Daemon, Arc<TestEngine>, Arc<TestHost>) {
    let (engine, host) = (engine(), Arc::new(TestHost::default()));
    let daemon =
        Daemon { engine: Arc::clone(&engine) as Arc<dyn Engine>, host: Arc::clone(&host) as Arc<dyn Host> };
    (daemon, engine, host)
}
