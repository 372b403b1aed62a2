//! One of two switches that everything happens to alike: it remembers trajectories, or it does not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use weir::flow::{FlowMod, GroupCommand, GroupMod, GroupType, Place, Rule, Selection};
use weir::pipeline::{
    Burst, Counters, Frame as _, HeapFrame, PortCounters, PortId, PublishedSnapshot, Transmit, Worker,
    WorkerConfig,
};
use weir::replay::secret;
use weir::switch::Switch;
use weir_shard::{ConnectionView, Counters as ShardCounters, DumpCursor, ShardConfig};
use weir_wire::{ChecksumTrust, Layers, Tuple};

use crate::tables::Table;

const BRIDGE: &str = "br0";
pub(crate) const PORTS: [u16; 4] = [1, 2, 3, 4];
/// Connections that there is room for.
const CAPACITY: u32 = 512;

/// What was sent: number of the packet in its burst, port, bytes.
pub(crate) type Sent = (u64, PortId, Vec<u8>);

#[derive(Default)]
struct Out(Vec<Sent>);

impl Transmit<HeapFrame> for Out {
    fn send(&mut self, port: PortId, frame: HeapFrame) {
        self.0.push((frame.stamp(), port, frame.bytes().to_vec()));
    }
}

pub(crate) struct Side {
    pub(crate) switch: Switch,
    published: PublishedSnapshot,
    pub(crate) worker: Worker,
}

impl Side {
    pub(crate) fn new(seed: u64, megaflows: usize, trajectories: bool) -> Self {
        let mut switch = Switch::default();
        switch.add_bridge(BRIDGE, 0).unwrap();
        for number in PORTS {
            switch.add_port(BRIDGE, &format!("p{number}"), Some(number)).unwrap();
        }
        let mut published = PublishedSnapshot::new(switch.snapshot());
        let shard = ShardConfig { capacity: CAPACITY, max_connections: CAPACITY, ..ShardConfig::default() };
        let config = WorkerConfig { shard, megaflows, secret: secret(seed), trajectories };
        let worker = Worker::new(config, published.reader()).unwrap();
        Self { switch, published, worker }
    }

    /// Lets the worker see what has changed.
    pub(crate) fn publish(&mut self) {
        let snapshot = self.switch.snapshot();
        assert!(self.published.publish(snapshot).is_ok());
    }

    /// Flows and groups become those of `table`.
    pub(crate) fn load(&mut self, table: &Table, now: u64) {
        self.switch.replace(BRIDGE, &[], false, now).unwrap();
        let all = GroupMod {
            command: GroupCommand::Delete,
            id: None,
            kind: GroupType::All,
            selection: Selection::Default,
            place: Place::All,
            buckets: Vec::new(),
        };
        self.switch.apply_groups(BRIDGE, &[all], now).unwrap();
        self.switch.apply_groups(BRIDGE, &table.groups(), now).unwrap();
        self.switch.replace(BRIDGE, &table.flows(), false, now).unwrap();
        self.publish();
    }

    /// Changes flows; false if that is refused.
    pub(crate) fn apply(&mut self, changes: &[FlowMod], now: u64) -> bool {
        let done = self.switch.apply(BRIDGE, changes, now).is_ok();
        self.publish();
        done
    }

    /// Changes groups; false if that is refused.
    pub(crate) fn apply_groups(&mut self, changes: &[GroupMod], now: u64) -> bool {
        let done = self.switch.apply_groups(BRIDGE, changes, now).is_ok();
        self.publish();
        done
    }

    /// Takes a port away, or brings it back.
    pub(crate) fn turn_port(&mut self, number: u16) {
        let name = format!("p{number}");
        if self.switch.delete_port(BRIDGE, &name).is_err() {
            let id = self.switch.add_port(BRIDGE, &name, Some(number)).unwrap();
            self.worker.clear_port_counters(id);
        }
        self.publish();
    }

    pub(crate) fn rules(&self) -> Vec<Arc<Rule>> {
        let tables = self.switch.bridge(BRIDGE).unwrap().tables();
        tables.tables().flat_map(|(_, _, rules)| rules.iter().cloned()).collect()
    }

    /// What comes out for packets that come in together by `port`.
    pub(crate) fn process(&mut self, now: u64, port: u16, packets: &[Vec<u8>]) -> Vec<Sent> {
        let mut burst = Burst::new();
        for (number, packet) in (0..).zip(packets) {
            burst.push(HeapFrame::new(packet).stamped(number));
        }
        let mut out = Out::default();
        self.worker.process(now, PortId::from(port), &mut burst, &mut out);
        out.0
    }

    /// What is counted, but for which cache has answered; and what ports have seen.
    pub(crate) fn counters(&self) -> (Counters, Vec<PortCounters>, String) {
        let mut counters = *self.worker.counters();
        // A cache that is full depends on which megaflows are looked for.
        (counters.exact_hits, counters.uncached) = (counters.hits() + counters.translations, 0);
        (counters.trajectory_hits, counters.megaflow_hits, counters.translations) = (0, 0, 0);
        // New connections sweep some others, and which these are depends on what came before in the burst.
        let shard = ShardCounters { expired: 0, ..self.worker.shard().counters().clone() };
        let ports = PORTS.iter().map(|port| self.worker.port_counters(PortId::from(*port))).collect();
        (counters, ports, format!("{shard:?}"))
    }

    /// Every flow with its counters, and what tables and stations there are.
    pub(crate) fn statistics(&mut self, now: u64) -> Vec<String> {
        while self.worker.report_flows(0, usize::MAX).is_some() {}
        let bridge = self.switch.bridge(BRIDGE).unwrap();
        let mut lines: Vec<String> =
            self.rules().iter().map(|rule| rule.dump_line(Some(now), &weir::flow::NoNames)).collect();
        lines.extend(bridge.tables().groups().iter().map(|group| format!("{group:?}")));
        lines
    }

    /// Every connection with all that is known of it, sorted.
    pub(crate) fn connections(&self, now: u64) -> Vec<String> {
        let (mut cursor, mut lines) = (DumpCursor::default(), Vec::new());
        while !cursor.is_done() {
            let visit = &mut |view: &ConnectionView| lines.push(format!("{view:?}"));
            self.worker.shard().dump(now, &mut cursor, usize::MAX, visit);
        }
        lines.sort();
        lines
    }

    /// Lets everything end that ends by itself; how many connections there have been.
    pub(crate) fn end(&mut self, now: u64) -> u64 {
        while self.worker.housekeeping(now) > 0 {}
        assert_eq!((self.worker.shard().len(), self.worker.held_fragments()), (0, 0));
        self.worker.clear_megaflows();
        assert_eq!(self.worker.recirculation_contexts(), 0);
        self.worker.shard().counters().expired
    }

    /// Ends the connections for which `filter` is true.
    pub(crate) fn flush(&mut self, now: u64, filter: &dyn Fn(&ConnectionView) -> bool) -> u32 {
        let mut cursor = DumpCursor::default();
        self.worker.shard_mut().flush(now, &mut cursor, usize::MAX, &mut |view| filter(view))
    }
}

/// What is to be the same of what was sent for a burst.
pub(crate) struct Outcome<'a> {
    /// For each packet: by which ports, and what.
    packets: BTreeMap<u64, Vec<(PortId, &'a [u8])>>,
    /// For each port, and what looks like one direction of a connection: the packets in their order, the first copies of
    /// all apart from the second ones, and so on. Those of different connections may overtake each other, for a burst
    /// is worked in waves or packet by packet; and so may those of one that are classified more often than others.
    orders: BTreeMap<(PortId, String, usize), Vec<u64>>,
}

impl<'a> Outcome<'a> {
    pub(crate) fn of(sent: &'a [Sent]) -> Self {
        let (mut packets, mut orders) = (BTreeMap::<_, Vec<_>>::new(), BTreeMap::<_, Vec<_>>::new());
        for (number, port, bytes) in sent {
            let copies: &mut Vec<_> = packets.entry(*number).or_default();
            let copy = copies.iter().filter(|(other, _)| other == port).count();
            copies.push((*port, &**bytes));
            let layers = Layers::parse(bytes);
            let tuple = Tuple::extract(bytes, &layers, 0, ChecksumTrust::ALL);
            let name = tuple.map_or_else(|invalid| invalid.to_string(), |tuple| tuple.lookup().to_string());
            // An error is no packet of the connection that it is about.
            let name = format!("protocol {} {name}", layers.protocol);
            orders.entry((*port, name, copy)).or_default().push(*number);
        }
        Self { packets, orders }
    }

    /// What is not as in `other`: the order may be that, or that in which the packets came.
    pub(crate) fn differences(&self, other: &Self) -> String {
        let mut text = String::new();
        for number in self.packets.keys().chain(other.packets.keys()).collect::<BTreeSet<_>>() {
            let (with, without) = (self.packets.get(number), other.packets.get(number));
            if with != without {
                text += &format!("  {number} with {with:02x?}\n    without {without:02x?}\n");
            }
        }
        for (name, order) in &self.orders {
            if other.orders.get(name) != Some(order) && !order.is_sorted() {
                text += &format!("  {name:?} with {order:?} without {:?}\n", other.orders.get(name));
            }
        }
        text
    }
}
