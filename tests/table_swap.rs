//! Tables of 10 000 flows are swapped under an lcore that never stops receiving: no packet is lost, every burst goes by
//! one table from its first packet to its last, and once a change is known to be through, nothing goes by the old one.
#![allow(clippy::unwrap_used)] // a test may; helpers here are only called by tests

use std::fmt::Write;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use arrayvec::ArrayVec;
use weir::flow::{Command, FlowFile, FlowMod, NoNames};
use weir::pipeline::{
    BURST, Burst, HeapFrame, PortId, PublishedSnapshot, SnapshotReader, Transmit, Worker, WorkerConfig,
};
use weir::replay::secret;
use weir::switch::Switch;
use weir_shard::ShardConfig;
use weir_wire::build::PacketBuilder;

/// Flows of a table; each is for one destination.
const FLOWS: u32 = 10_000;

/// What the control side tells the lcore between two bursts.
enum Say {
    /// From now on every packet leaves by this port; answered when a burst has.
    Only(PortId),
    /// By any of them; answered at once.
    Any,
    End,
}

/// What went out: the port of each packet, in order.
#[derive(Default)]
struct Out(ArrayVec<PortId, { 2 * BURST }>);

impl Transmit<HeapFrame> for Out {
    fn send(&mut self, port: PortId, _: HeapFrame) {
        self.0.push(port);
    }
}

/// 10 000 flows that all send to `port`.
fn table(port: u16) -> Vec<FlowMod> {
    let mut text = String::new();
    for flow in 0..FLOWS {
        let [_, b, c, d] = flow.to_be_bytes();
        writeln!(text, "udp,nw_dst=10.{b}.{c}.{d},actions=output:{port}").unwrap();
    }
    FlowFile::parse("flows", text.as_bytes(), Command::Add, &NoNames).unwrap().flows
}

/// Receives until it is told to end; the bursts, and how many of them saw another table than the one before.
fn lcore(snapshot: SnapshotReader, orders: &Receiver<Say>, answers: &Sender<()>) -> (u64, u64) {
    let config = WorkerConfig {
        shard: ShardConfig { capacity: 8, max_connections: 8, ..ShardConfig::default() },
        megaflows: 4096,
        secret: secret(1),
        trajectories: true,
    };
    let mut worker: Worker = Worker::new(config, snapshot).unwrap();
    let packets: Vec<_> = (0..FLOWS)
        .map(|flow| {
            let [_, b, c, d] = flow.to_be_bytes();
            HeapFrame::new(&PacketBuilder::new().ipv4([192, 168, 0, 1], [10, b, c, d]).udp(1, 2).build())
        })
        .collect();
    let (mut burst, mut out): (Burst<HeapFrame>, Out) = (Burst::new(), Out::default());
    let (mut only, mut last, mut changes, mut bursts) = (None, 0, 0, 0u64);
    loop {
        let order = orders.try_recv();
        match order {
            Ok(Say::Only(port)) => only = Some(port),
            Ok(Say::Any) => {
                only = None;
                answers.send(()).unwrap();
            }
            Ok(Say::End) => break,
            Err(_) => {}
        }
        let start = bursts as usize * BURST;
        burst.extend((start..start + BURST).map(|packet| packets[packet % packets.len()].clone()));
        bursts += 1;
        worker.process(bursts, 1, &mut burst, &mut out);
        assert_eq!(out.0.len(), BURST, "burst {bursts}");
        let port = out.0[0];
        assert!(out.0.iter().all(|other| *other == port), "burst {bursts} went by two tables: {:?}", out.0);
        assert!(only.is_none_or(|only| only == port), "burst {bursts} left by {port}, not {only:?}");
        changes += u64::from(port != last);
        last = port;
        out.0.clear();
        if matches!(order, Ok(Say::Only(_))) {
            answers.send(()).unwrap();
        }
        if bursts.is_multiple_of(16) {
            worker.housekeeping(bursts);
        }
    }
    let counters = worker.counters();
    assert_eq!((counters.received, counters.dropped_in_all()), (bursts * BURST as u64, 0));
    (bursts, changes)
}

#[test]
fn swapping_a_table_of_10_000_flows_under_load_loses_no_packet_and_cuts_no_burst() {
    let swaps = std::env::var("WEIR_SWAPS").ok().and_then(|text| text.parse().ok()).unwrap_or(8);
    let mut switch = Switch::default();
    switch.add_bridge("br0", 0).unwrap();
    let ids: Vec<PortId> =
        (1..=3).map(|number| switch.add_port("br0", &format!("p{number}"), Some(number)).unwrap()).collect();
    let tables = [(ids[1], table(2)), (ids[2], table(3))];
    switch.replace("br0", &tables[0].1, false, 0).unwrap();
    let mut published = PublishedSnapshot::new(switch.snapshot());
    let reader = published.reader();
    let ((say, orders), (answers, answer)) = (channel(), channel());
    let receiving = thread::spawn(move || lcore(reader, &orders, &answers));
    for (port, table) in tables.iter().cycle().skip(1).take(swaps) {
        switch.replace("br0", table, false, 0).unwrap();
        let snapshot = switch.snapshot();
        // Until here, not a packet has gone by anything but the table before.
        say.send(Say::Any).unwrap();
        answer.recv().unwrap();
        published.publish(snapshot).unwrap();
        // An answer between two bursts is how the daemon knows that a change is through.
        say.send(Say::Only(*port)).unwrap();
        answer.recv().unwrap();
        published.reclaim();
        assert!(published.retired() <= 2, "{}", published.retired());
    }
    say.send(Say::End).unwrap();
    let (bursts, changes) = receiving.join().unwrap();
    assert_eq!(changes, swaps as u64 + 1, "{bursts} bursts");
}
