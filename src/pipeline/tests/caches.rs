//! What is cached is never served stale, never grows without bound, and never changes a result.

use proptest::prelude::*;

use super::*;
use crate::pipeline::{Burst, HeapFrame, PortId, PublishedSnapshot, Transmit, Worker, WorkerConfig};
use crate::switch::Switch;

/// Stateless rules, of which random ones are there at a time.
const RULES: [&str; 12] = [
    "priority=1,ip,actions=2",
    "priority=5,ip,actions=3",
    "priority=9,udp,tp_dst=53,actions=4",
    "priority=9,udp,actions=resubmit(,1),4",
    "priority=10,ip,nw_src=192.168.0.0/24,actions=resubmit(,1)",
    "priority=10,tcp,tcp_flags=+syn-ack,actions=mod_nw_src:1.2.3.4,2",
    "priority=20,nw_src=192.168.0.1,ip,actions=resubmit(,2)",
    "table=1,priority=3,ip,actions=load:1->reg0,resubmit(,2)",
    "table=1,priority=4,ip,nw_dst=203.0.113.9,actions=ct(table=2),2",
    "table=2,priority=2,ip,reg0=1,actions=3",
    "table=2,priority=1,ip,actions=push_vlan:0x8100,4",
    "table=2,priority=7,udp,tp_src=0x100/0x100,actions=drop",
];

fn frame(kind: u8) -> Vec<u8> {
    let (src, dst) = ([192, 168, kind & 1, 1 + (kind >> 1 & 1)], if kind & 4 == 0 { X } else { B });
    match kind >> 3 & 3 {
        0 => udp(src, 0x100 | u16::from(kind), dst, 53),
        1 => udp(src, u16::from(kind), dst, 54),
        2 => syn(src, 1, dst, 2),
        _ => PacketBuilder::new().ipv4(src, dst).echo_request(1, 1).build(),
    }
}

#[derive(Clone, Debug)]
enum Event {
    Packet(u8),
    Add(usize),
    Delete(usize),
    Modify(usize, usize),
    Pass(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let rule = 0..RULES.len();
    prop_oneof![
        8 => (0..32u8).prop_map(Event::Packet),
        2 => rule.clone().prop_map(Event::Add),
        1 => rule.clone().prop_map(Event::Delete),
        1 => (rule.clone(), rule).prop_map(|(rule, other)| Event::Modify(rule, other)),
        1 => (0..20_000u64).prop_map(Event::Pass),
    ]
}

fn matching(rule: usize) -> &'static str {
    RULES[rule].split_once(",actions=").unwrap().0
}

fn change(event: &Event) -> Option<(Command, String)> {
    Some(match event {
        Event::Add(rule) => (Command::Add, RULES[*rule].into()),
        Event::Delete(rule) => (Command::DeleteStrict, matching(*rule).into()),
        Event::Modify(rule, other) => {
            let actions = RULES[*other].split_once(",actions=").unwrap().1;
            (Command::ModifyStrict, format!("{},actions={actions}", matching(*rule)))
        }
        Event::Packet(_) | Event::Pass(_) => return None,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_changes_between_packets_the_result_is_that_of_empty_caches(
        events in prop::collection::vec(event(), 1..80)
    ) {
        let mut bench = Bench::new("table=9,actions=drop");
        let mut changes: Vec<(Command, String)> = Vec::new();
        for event in events {
            match (&event, change(&event)) {
                (_, Some((command, flow))) => {
                    bench.change(command, &flow);
                    changes.push((command, flow));
                }
                (Event::Packet(kind), _) => {
                    let mut fresh = Bench::new("table=9,actions=drop");
                    for (command, flow) in &changes {
                        fresh.change(*command, flow);
                    }
                    prop_assert_eq!(bench.send(1, &frame(*kind)), fresh.send(1, &frame(*kind)));
                }
                (Event::Pass(time), _) => {
                    let now = bench.0.now() + time;
                    bench.0.advance(now);
                }
                _ => {}
            }
        }
        bench.balance();
    }
}

/// Keeps nothing.
#[derive(Default)]
struct Count(u64);

impl Transmit<HeapFrame> for Count {
    fn send(&mut self, _: PortId, _: HeapFrame) {
        self.0 += 1;
    }
}

/// A worker with room for few megaflows, each of which is for one source port.
fn worker(flows: &str, megaflows: usize) -> (Worker, PortId, (Switch, PublishedSnapshot)) {
    let mut switch = Switch::default();
    switch.add_bridge("br", 0).unwrap();
    let port = switch.add_port("br", "a", None).unwrap();
    switch.replace("br", &parse(flows, Command::Add), false, 0).unwrap();
    let config = WorkerConfig { shard: shard(), megaflows, secret: secret(1), trajectories: true };
    let mut published = PublishedSnapshot::new(switch.snapshot());
    (Worker::new(config, published.reader()).unwrap(), port, (switch, published))
}

fn receive(worker: &mut Worker, now: u64, port: PortId, packet: &[u8]) -> u64 {
    let mut out = Count::default();
    let mut burst = Burst::new();
    burst.push(HeapFrame::new(packet));
    worker.process(now, port, &mut burst, &mut out);
    out.0
}

/// Looks at all bits of the source port.
const BY_SOURCE: &str = "udp,tp_src=9999,actions=drop\n priority=1,actions=in_port";

#[test]
fn a_full_megaflow_cache_costs_time_and_nothing_else() {
    let (mut worker, port, _switch) = worker(BY_SOURCE, 8);
    for round in 0..3 {
        for source in 1..=40 {
            assert_eq!(receive(&mut worker, 0, port, &udp(A, source, X, 2)), 1, "{round} {source}");
        }
        assert_eq!(receive(&mut worker, 0, port, &udp(A, 9999, X, 2)), 0);
    }
    assert_eq!(worker.megaflow_sizes(), (8, 1));
    assert!(worker.counters().uncached >= 90);
    worker.report_flows(0, usize::MAX);
}

#[test]
fn idle_megaflows_go_and_the_busy_stay() {
    let (mut worker, port, _switch) = worker(BY_SOURCE, 1000);
    for source in 1..=100 {
        receive(&mut worker, 0, port, &udp(A, source, X, 2));
    }
    assert_eq!(worker.megaflow_sizes(), (100, 1));
    for now in (0..=12_000).step_by(1_000) {
        receive(&mut worker, now, port, &udp(A, 7, X, 2));
        for _ in 0..8 {
            worker.housekeeping(now);
        }
    }
    assert_eq!(worker.megaflow_sizes(), (1, 1));
    for _ in 0..8 {
        worker.housekeeping(60_000);
    }
    assert_eq!(worker.megaflow_sizes(), (0, 0));
}

#[test]
fn megaflows_of_an_old_snapshot_are_swept_away() {
    let (mut worker, port, (mut switch, mut published)) = worker(BY_SOURCE, 1000);
    for source in 1..=100 {
        receive(&mut worker, 0, port, &udp(A, source, X, 2));
    }
    published.publish(switch.snapshot()).unwrap();
    for _ in 0..8 {
        worker.housekeeping(1);
    }
    assert_eq!(worker.megaflow_sizes(), (0, 0));
}

#[test]
fn one_wide_megaflow_serves_all_that_the_tables_do_not_tell_apart() {
    let mut bench = Bench::new("ip,nw_dst=203.0.113.0/24,actions=2");
    for source in 0..100 {
        bench.through(&udp([192, 168, 1, source], 1 + u16::from(source), X, 53));
    }
    assert_eq!(bench.0.worker().counters().translations, 1);
    assert_eq!(bench.0.worker().megaflow_sizes(), (1, 1));
}

#[test]
fn an_ended_rule_stops_at_once_and_gives_way_to_the_next() {
    let mut bench = Bench::new("priority=1,actions=3\n hard_timeout=5,actions=2");
    assert_eq!(bench.ports(1, &udp(A, 1, X, 2)), [2]);
    assert_eq!(ports(&bench.send_at(4_900, 1, &udp(A, 1, X, 2))), [2]);
    assert_eq!(ports(&bench.send_at(5_000, 1, &udp(A, 1, X, 2))), [3]);
}

#[test]
fn a_rule_that_a_cached_flow_keeps_busy_is_not_idle() {
    let mut bench = Bench::new("priority=1,actions=3\n idle_timeout=5,actions=2");
    for now in (0..20_000).step_by(1_000) {
        assert_eq!(ports(&bench.send_at(now, 1, &udp(A, 1, X, 2))), [2], "{now}");
    }
    assert_eq!(ports(&bench.send_at(24_100, 1, &udp(A, 1, X, 2))), [3]);
}
