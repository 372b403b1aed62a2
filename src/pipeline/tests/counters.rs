//! Every packet is counted once: for its rule, its table, its port and its fate.

use std::sync::atomic::Ordering;

use super::super::dump;
use super::*;

/// Packets and bytes of the only rule whose text contains `part`.
fn of_rule(bench: &mut Bench, part: &str) -> (u64, u64) {
    let rules = bench.0.rules().unwrap();
    let mut found = rules.iter().filter(|rule| rule.dump_line(None, &NoNames).contains(part));
    let rule = found.next().unwrap();
    assert!(found.next().is_none(), "{part} is not one rule");
    (rule.stats.packets.load(Ordering::Relaxed), rule.stats.bytes.load(Ordering::Relaxed))
}

#[test]
fn a_rule_counts_each_of_its_packets_once_however_often_it_is_asked() {
    let mut bench = Bench::new("udp,actions=2\n tcp,actions=3");
    let packet = udp(A, 1, X, 2);
    for expected in 1..=5 {
        bench.through(&packet);
        assert_eq!(of_rule(&mut bench, "udp"), (expected, expected * packet.len() as u64));
        assert_eq!(of_rule(&mut bench, "udp").0, expected);
    }
    assert_eq!(of_rule(&mut bench, "tcp"), (0, 0));
}

#[test]
fn counts_survive_other_snapshots_modification_and_idle_flows() {
    let mut bench = Bench::new("udp,actions=2");
    bench.through(&udp(A, 1, X, 2));
    bench.through(&udp(A, 1, X, 2));
    bench.change(Command::Add, "tcp,actions=3");
    bench.through(&udp(A, 1, X, 2));
    bench.change(Command::ModifyStrict, "udp,actions=3");
    assert_eq!(bench.ports(1, &udp(A, 1, X, 2)), [3]);
    for _ in 0..40 {
        let later = bench.0.now() + 20_000;
        bench.0.advance(later);
    }
    assert_eq!(of_rule(&mut bench, "udp").0, 4);
    assert_eq!(bench.0.worker().megaflow_sizes(), (0, 0));
    assert_eq!(bench.ports(1, &udp(A, 1, X, 2)), [3]);
    assert_eq!(of_rule(&mut bench, "udp").0, 5);
}

#[test]
fn a_replaced_rule_starts_anew() {
    let mut bench = Bench::new("udp,actions=2");
    bench.through(&udp(A, 1, X, 2));
    bench.change(Command::Add, "udp,actions=2");
    assert_eq!(of_rule(&mut bench, "udp").0, 0);
    bench.through(&udp(A, 1, X, 2));
    assert_eq!(of_rule(&mut bench, "udp").0, 1);
}

#[test]
fn each_rule_on_the_way_counts() {
    let mut bench = Bench::new(ACL);
    bench.through(&syn(A, 1, X, 2));
    bench.send(2, &tcp(X, 2, A, 1, flag::SYN | flag::ACK, 5, 1001));
    for _ in 0..3 {
        bench.through(&tcp(A, 1, X, 2, flag::ACK, 1001, 6));
    }
    assert_eq!(of_rule(&mut bench, "ct_state=-trk").0, 5);
    assert_eq!(of_rule(&mut bench, "ct(commit)").0, 1);
    assert_eq!(of_rule(&mut bench, "in_port=1 actions=output:2").0, 3);
}

#[test]
fn tables_count_look_ups_and_matches() {
    let mut bench = Bench::new("udp,actions=resubmit(,1)\n table=1,nw_src=192.168.0.1,udp,actions=2");
    bench.through(&udp(A, 1, X, 2));
    bench.send(1, &udp(B, 1, X, 2));
    bench.send(1, &syn(B, 1, X, 2));
    let _ = bench.0.rules().unwrap();
    let bridge = bench.0.switch().bridge(crate::replay::BRIDGE).unwrap();
    let counts: Vec<_> =
        bridge.table_statistics().map(|table| (table.table, table.lookups, table.matched)).collect();
    assert_eq!(counts, [(0, 3, 2), (1, 2, 1)]);
}

#[test]
fn ports_count_what_goes_through_them() {
    let mut bench = Bench::new("actions=2,3");
    let packet = udp(A, 1, X, 2);
    bench.send(1, &packet);
    let worker = bench.0.worker();
    let (one, three) = (worker.port_counters(1), worker.port_counters(3));
    assert_eq!((one.received, one.received_bytes, one.sent), (1, packet.len() as u64, 0));
    assert_eq!((three.sent, three.sent_bytes, three.received), (1, packet.len() as u64, 0));
    assert_eq!(worker.port_counters(u32::MAX), Default::default());
    worker.clear_port_counters(3);
    assert_eq!(worker.port_counters(3), Default::default());
    bench.balance();
}

#[test]
fn a_megaflow_shows_its_packets_and_their_flags() {
    let mut bench = Bench::new("tcp,actions=2");
    bench.through(&syn(A, 1, X, 2));
    bench.through(&tcp(A, 1, X, 2, flag::ACK, 1, 1));
    let (flows, more) = bench.0.worker().megaflow_page(0, 100);
    assert!(more.is_none());
    let line = dump::line(&flows[0], 0, &dump::number);
    assert!(line.ends_with("packets:2, bytes:108, used:0.000s, flags:S., actions:2"), "{line}");
    let named = dump::line(&flows[0], 0, &|port| format!("veth{port}"));
    assert!(named.contains("in_port(veth1)") && named.ends_with("actions:veth2"), "{named}");
}
