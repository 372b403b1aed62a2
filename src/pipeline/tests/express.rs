//! Established packets are spared their classifications, and nothing is known of them a packet longer than it is right.

use std::net::Ipv6Addr;

use weir_shard::{PlainLookup, Reason};
use weir_wire::Fragment;

use super::*;

/// The first packet of a host's connection.
type Opening = fn(u8) -> PacketBuilder;

/// Both directions of one connection, as they come in.
struct Pair {
    forth: Vec<u8>,
    back: Vec<u8>,
}

fn answer(sent: &[u8], flags: u16, seq: u32, ack: u32) -> Vec<u8> {
    let extracted = Tuple::extract(sent, &Layers::parse(sent), 0, ChecksumTrust::NONE).unwrap();
    let tuple = extracted.lookup().reversed();
    let builder = PacketBuilder::new().ip(tuple.src(), tuple.dst());
    builder.tcp(tuple.src_port(), tuple.dst_port()).flags(flags).seq(seq).ack(ack).build()
}

impl Bench {
    /// Establishes the TCP connection that `first` is any packet of.
    fn establish(&mut self, first: &PacketBuilder) -> Pair {
        let sent = self.through(&first.clone().flags(flag::SYN).seq(1000).build());
        let back = answer(&sent, flag::SYN | flag::ACK, 5000, 1001);
        assert_eq!(self.ports(2, &back), [1]);
        let forth = first.clone().flags(flag::ACK).seq(1001).ack(5001).build();
        self.through(&forth);
        let back = answer(&sent, flag::ACK, 5001, 1001);
        assert_eq!(self.ports(2, &back), [1]);
        Pair { forth, back }
    }

    /// Look-ups that trajectories have spared, and others.
    fn look_ups(&mut self) -> (u64, u64) {
        let counters = self.0.counters();
        (counters.trajectory_hits, counters.exact_hits + counters.megaflow_hits + counters.translations)
    }
}

fn v4(host: u8) -> PacketBuilder {
    PacketBuilder::new().ipv4([192, 168, 0, host], X).tcp(4000, 80)
}

#[test]
fn established_packets_need_no_other_look_up() {
    let v6 = |host| {
        let address = |network, host| Ipv6Addr::new(0x2001, 0xdb8, network, 0, 0, 0, 0, host);
        PacketBuilder::new().ipv6(address(0, u16::from(host)), address(1, 9)).tcp(4000, 80)
    };
    let tables = [(NAT, v4 as Opening), (ACL, v4), (ACL6, v6)];
    for (flows, first) in tables {
        let mut bench = Bench::new(flows);
        let pairs: Vec<Pair> = (1..9).map(|host| bench.establish(&first(host))).collect();
        let forth: Vec<&[u8]> = pairs.iter().map(|pair| &*pair.forth).collect();
        let back: Vec<&[u8]> = pairs.iter().map(|pair| &*pair.back).collect();
        let mut round = || {
            assert_eq!(ports(&bench.burst(1, &forth, 0)), [2; 8]);
            assert_eq!(ports(&bench.burst(2, &back, 0)), [1; 8]);
            bench.look_ups()
        };
        let (_, others) = (round(), round().1);
        let (before, _) = round();
        assert_eq!(round(), (before + 2 * 2 * 8, others), "two each, on trajectories");
    }
}

#[test]
fn a_burst_with_all_sorts_of_packets_comes_out_in_order() {
    let mut bench = Bench::new(ACL);
    let pairs: Vec<Pair> = (1..7).map(|host| bench.establish(&v4(host))).collect();
    for _ in 0..3 {
        pairs.iter().for_each(|pair| drop(bench.through(&pair.forth)));
    }
    let (fresh, other) = (syn(A, 7, X, 9), udp(B, 7, X, 9));
    let burst: Vec<&[u8]> = [
        &*pairs[0].forth,
        &pairs[1].forth,
        &fresh,
        &pairs[2].forth,
        &pairs[3].forth,
        &other,
        &pairs[4].forth,
        &pairs[0].forth,
        &pairs[5].forth,
        &fresh,
        &pairs[1].forth,
        &pairs[2].forth,
        &pairs[3].forth,
    ]
    .to_vec();
    let expected: Sent = burst.iter().map(|frame| (2, frame.to_vec())).collect();
    let before = bench.look_ups();
    assert_eq!(bench.burst(1, &burst, 0), expected);
    let after = bench.look_ups();
    assert!(after.0 >= before.0 + 20 && after.1 > before.1, "some on trajectories, some not");
}

#[test]
fn a_change_of_tables_holds_for_the_very_next_packet() {
    let mut bench = Bench::new(ACL);
    let pair = bench.establish(&v4(1));
    for _ in 0..4 {
        bench.through(&pair.forth);
    }
    bench.change(Command::Add, "table=1,priority=60000,in_port=1,ip,ct_state=+trk+est,actions=3");
    assert_eq!(bench.ports(1, &pair.forth), [3]);
    bench.change(Command::DeleteStrict, "table=1,priority=60000,in_port=1,ip,ct_state=+trk+est");
    assert_eq!(bench.ports(1, &pair.forth), [2]);
    bench.change(Command::Add, "table=0,priority=60000,ip,actions=4");
    assert_eq!(bench.ports(1, &pair.forth), [4]);
}

#[test]
fn a_flush_makes_packets_new_at_once() {
    let mut bench = Bench::new(ACL);
    let pair = bench.establish(&v4(1));
    for _ in 0..4 {
        assert_eq!(bench.ports(2, &pair.back), [1]);
    }
    let now = bench.0.now();
    let shard = bench.0.worker().shard_mut();
    assert_eq!(shard.flush(now, &mut DumpCursor::default(), usize::MAX, &mut |_| true), 1);
    assert_eq!(bench.ports(2, &pair.back), NOWHERE, "nobody has asked for it");
}

#[test]
fn a_port_whose_packets_were_not_tracked_at_first_gets_trajectories_when_they_are() {
    let mut bench = Bench::new("table=0,in_port=1,ip,actions=2\ntable=0,in_port=2,ip,actions=1");
    for host in 1..100 {
        bench.through(&v4(host).build());
    }
    bench.change(Command::Delete, "table=0");
    bench.change(Command::Add, ACL);
    let pair = bench.establish(&v4(1));
    for _ in 0..4 {
        bench.through(&pair.forth);
    }
    let before = bench.look_ups();
    bench.through(&pair.forth);
    assert_eq!(bench.look_ups(), (before.0 + 2, before.1));
}

#[test]
fn a_connection_whose_mark_changes_gets_another_trajectory() {
    let flows = "table=0,ip,ct_state=-trk,actions=ct(table=1)
        table=1,ip,ct_state=+new,actions=ct(commit),2
        table=1,priority=40000,ip,in_port=1,nw_tos=32,ct_state=+est,actions=ct(commit,exec(set_field:7->ct_mark)),2
        table=1,ip,in_port=1,ct_state=+est,ct_mark=0,actions=2
        table=1,ip,in_port=1,ct_state=+est,ct_mark=7,actions=3
        table=1,ip,in_port=2,ct_state=+est,actions=1";
    let mut bench = Bench::new(flows);
    let (first, second) = (bench.establish(&v4(1)), bench.establish(&v4(2)));
    for _ in 0..4 {
        bench.through(&first.forth);
    }
    bench.through(&v4(1).tos(32).flags(flag::ACK).seq(1001).ack(5001).build());
    for _ in 0..4 {
        assert_eq!(bench.ports(1, &first.forth), [3]);
        bench.through(&second.forth);
    }
    let before = bench.look_ups();
    assert_eq!(bench.ports(1, &first.forth), [3]);
    assert_eq!(bench.look_ups(), (before.0 + 2, before.1));
}

/// Established packets go to port 2, invalid ones to port 4, what is new nowhere; both directions of port 1 and 2.
const JUDGED: &str = "table=0,ip,ct_state=-trk,actions=ct(table=1)
    table=1,ip,ct_state=+new,actions=ct(commit),2
    table=1,priority=40000,ip,ct_state=+inv,actions=4
    table=1,ip,in_port=1,ct_state=+est,actions=2
    table=1,ip,in_port=2,ct_state=+est,actions=1";

#[test]
fn packets_that_turn_out_otherwise_leave_a_run_in_their_turn() {
    let mut bench = Bench::new(JUDGED);
    let pairs: Vec<Pair> = (1..6).map(|host| bench.establish(&v4(host))).collect();
    let query = udp(A, 7, X, 9);
    assert_eq!(bench.ports(1, &query), [2]);
    assert_eq!(bench.ports(2, &udp(X, 9, A, 7)), [1]);
    let forth: Vec<&[u8]> = pairs.iter().map(|pair| &*pair.forth).chain([&*query]).collect();
    for _ in 0..3 {
        assert_eq!(ports(&bench.burst(1, &forth, 0)), [2; 6]);
    }
    let outside = v4(2).flags(flag::ACK).seq(1001).ack(0x7000_0000).build();
    let damaged = {
        let mut frame = pairs[3].forth.clone();
        frame[40] ^= 1;
        frame
    };
    let datagram = PacketBuilder::new().ipv4(A, X).udp(7, 9).payload(&[1; 2000]).build();
    let [first, last] = super::fragments::cut(&datagram, 5, &[1480]).try_into().unwrap();
    let burst: Vec<(&[u8], PortNumber)> = [
        (&*pairs[0].forth, 2),
        (&outside, 4),
        (&query, 2),
        (&pairs[2].forth, 2),
        (&damaged, 4),
        (&query, 2),
        (&pairs[0].forth, 2),
        (&first, 2),
        (&pairs[4].forth, 2),
        (&pairs[3].forth, 2),
        (&pairs[1].forth, 2),
        (&pairs[0].forth, 2),
        (&query, 2),
        (&query, 2),
        (&last, 2),
        (&query, 2),
    ]
    .to_vec();
    let frames: Vec<&[u8]> = burst.iter().map(|(frame, _)| *frame).collect();
    // The fragments wait for each other.
    let rest = burst.iter().filter(|(frame, _)| *frame != first && *frame != last);
    let expected: Sent = rest.map(|(frame, port)| (*port, frame.to_vec())).collect();
    let sent = bench.burst(1, &frames, 0);
    let (fragments, others): (Vec<_>, Vec<_>) =
        sent.into_iter().partition(|(_, frame)| Layers::parse(frame).fragment != Fragment::No);
    assert_eq!(others, expected);
    assert_eq!(fragments, [(2, first), (2, last)]);
    bench.balance();
}

#[test]
fn few_plain_packets_between_fragments_and_new_ones_lose_nothing() {
    let mut bench = Bench::new(JUDGED);
    let pair = bench.establish(&v4(1));
    for _ in 0..3 {
        bench.through(&pair.forth);
    }
    let datagram = PacketBuilder::new().ipv4(A, X).udp(7, 9).payload(&[1; 2000]).build();
    let [first, last] = super::fragments::cut(&datagram, 5, &[1480]).try_into().unwrap();
    let fresh: Vec<Vec<u8>> = (10..16).map(|host| udp([192, 168, 0, host], 7, X, 9)).collect();
    let burst =
        [&fresh[0], &pair.forth, &fresh[1], &first, &fresh[2], &fresh[3], &last, &pair.forth, &fresh[4]];
    let frames: Vec<&[u8]> = burst.iter().map(|frame| frame.as_slice()).collect();
    let before = bench.connections().len();
    assert_eq!(ports(&bench.burst(1, &frames, 0)), [2; 9]);
    assert_eq!(bench.connections().len(), before + 6, "five queries and the datagram");
    bench.balance();
}

#[test]
fn bursts_of_established_packets_are_taken_for_plain_ones() {
    let mut bench = Bench::new(NAT);
    let pairs: Vec<Pair> = (1..9).map(|host| bench.establish(&v4(host))).collect();
    for (port, frames) in [
        (1, pairs.iter().map(|pair| &*pair.forth).collect::<Vec<&[u8]>>()),
        (2, pairs.iter().map(|pair| &*pair.back).collect()),
    ] {
        for _ in 0..2 {
            assert_eq!(bench.burst(port, &frames, 0).len(), 8);
        }
        let lookups = &bench.0.worker().plain_lookups[..8];
        assert!(lookups.iter().all(|lookup| lookup.is_plain() && lookup.hint() != 0));
    }
}

#[test]
fn a_connection_that_is_opened_again_in_a_run_is_a_new_one_wherever_it_comes_to_be() {
    for layout in layouts() {
        let mut bench = Bench::divided(NAT, layout);
        let pairs: Vec<Pair> = (1..8).map(|host| bench.establish(&v4(host))).collect();
        let forth: Vec<&[u8]> = pairs.iter().map(|pair| &*pair.forth).collect();
        for _ in 0..3 {
            bench.burst(1, &forth, 0);
            bench.0.flush();
        }
        // The third one's both sides say goodbye.
        let fin = v4(3).flags(flag::FIN | flag::ACK).seq(1001).ack(5001).build();
        let sent = bench.through(&fin);
        let bye = answer(&sent, flag::FIN | flag::ACK, 5001, 1002);
        assert_eq!(bench.ports(2, &bye), [1]);
        bench.through(&v4(3).flags(flag::ACK).seq(1002).ack(5002).build());
        let syn = v4(3).flags(flag::SYN).seq(90_000).build();
        let burst = [forth[0], forth[1], &syn, forth[3], forth[4], forth[5], forth[6], forth[0]];
        for frame in burst {
            bench.0.inject(1, frame, 0);
        }
        bench.0.flush();
        let sent: Vec<Vec<u8>> =
            bench.0.take_sent().into_iter().map(|(_, frame)| frame.bytes().to_vec()).collect();
        assert_eq!(sent.len(), burst.len());
        let is_opening = |frame: &&Vec<u8>| frame[47] == 0x02;
        let opening = sent.iter().find(is_opening).expect("the SYN is among them");
        assert_eq!(bench.ports(2, &answer(opening, flag::SYN | flag::ACK, 7000, 90_001)), [1]);
        assert_eq!(bench.connections().len(), pairs.len());
        bench.balance();
    }
}

/// Packets of as many connections as there are hosts, which have not begun.
fn openings(hosts: core::ops::Range<u8>) -> Vec<Vec<u8>> {
    hosts.map(|host| udp([192, 168, 0, host], 7, X, 9)).collect()
}

/// The answer to one of them, as it was sent.
fn answer_to(sent: &[u8]) -> Vec<u8> {
    let extracted = Tuple::extract(sent, &Layers::parse(sent), 0, ChecksumTrust::NONE).unwrap();
    let to = extracted.lookup().reversed();
    PacketBuilder::new().ip(to.src(), to.dst()).udp(to.src_port(), to.dst_port()).build()
}

fn slices(frames: &[Vec<u8>]) -> Vec<&[u8]> {
    frames.iter().map(Vec::as_slice).collect()
}

#[test]
fn bursts_of_packets_that_start_connections_are_taken_for_plain_ones() {
    let mut bench = Bench::new(NAT);
    for frame in openings(1..4) {
        bench.through(&frame);
    }
    let (before, port_before) = (bench.0.counters(), bench.0.worker().port_counters(2));
    let fresh = openings(10..18);
    let sent = bench.burst(1, &slices(&fresh), 0);
    assert_eq!(ports(&sent), [2; 8]);
    assert!(bench.0.worker().plain_lookups[..8].iter().all(PlainLookup::has_no_connection));
    let after = bench.0.counters();
    assert_eq!(after.trajectory_hits, before.trajectory_hits + 16);
    assert_eq!(after.recirculations, before.recirculations + 8);
    assert_eq!((after.received, after.sent), (before.received + 8, before.sent + 8));
    assert_eq!(bench.0.worker().port_counters(2).sent, port_before.sent + 8);
    // Each has its connection, and its answer finds the way back.
    assert_eq!(bench.connections().len(), 11);
    for ((_, frame), original) in sent.iter().zip(&fresh) {
        let back = bench.send(2, &answer_to(frame));
        assert_eq!(ports(&back), [1]);
        let inside = Tuple::extract(original, &Layers::parse(original), 0, ChecksumTrust::NONE).unwrap();
        assert_eq!(tuple(&back[0].1), inside.lookup().reversed().to_string());
    }
    bench.balance();
}

#[test]
fn packets_that_start_connections_keep_their_place_between_others() {
    let mut bench = Bench::new(JUDGED);
    let pair = bench.establish(&v4(1));
    for frame in openings(1..4) {
        bench.through(&frame);
    }
    bench.through(&pair.forth);
    let fresh = openings(10..14);
    let (syn, answer) = (syn(B, 5, X, 6), tcp(B, 6, X, 7, flag::SYN | flag::ACK, 1, 2));
    let burst: Vec<(&[u8], PortNumber)> = vec![
        (&fresh[0], 2),
        (&pair.forth, 2),
        (&fresh[0], 2),
        (&fresh[1], 2),
        (&fresh[2], 2),
        (&answer, 4),
        (&fresh[1], 2),
        (&syn, 2),
        (&pair.forth, 2),
        (&fresh[3], 2),
    ];
    let before = bench.connections().len();
    let frames: Vec<&[u8]> = burst.iter().map(|(frame, _)| *frame).collect();
    let expected: Sent = burst.iter().map(|(frame, port)| (*port, frame.to_vec())).collect();
    assert_eq!(bench.burst(1, &frames, 0), expected);
    assert_eq!(bench.connections().len(), before + 5);
    // Those that came twice have only one connection, which has both.
    let twice = bench.connections().iter().filter(|line| line.contains("192.168.0.10,")).count();
    assert_eq!(twice, 1);
    bench.balance();
}

#[test]
fn many_that_may_start_nothing_come_out_as_they_should() {
    let mut bench = Bench::new(JUDGED);
    for host in 1..4 {
        bench.through(&syn([192, 168, 1, host], 5, X, 6));
    }
    let answers: Vec<Vec<u8>> =
        (0..64).map(|host| tcp([192, 168, 2, host], 6, X, 7, flag::SYN | flag::ACK, 1, 2)).collect();
    assert_eq!(
        bench.burst(1, &slices(&answers), 0),
        answers.iter().map(|frame| (4, frame.clone())).collect::<Sent>()
    );
    assert_eq!(bench.connections().len(), 3);
    // One connection's first packet, many times.
    let again = vec![syn(B, 5, X, 6); 64];
    assert_eq!(ports(&bench.burst(1, &slices(&again), 0)), [2; 64]);
    assert_eq!(bench.connections().len(), 4);
    bench.balance();
}

#[test]
fn behind_a_packet_that_announces_another_connection_nothing_is_opened_the_short_way() {
    let flows = "table=0,ip,ct_state=-trk,actions=ct(table=1)
        table=1,udp,in_port=1,ct_state=+new,actions=ct(commit,alg=tftp),2
        table=1,ip,in_port=2,ct_state=+new+rel,actions=ct(commit),1
        table=1,ip,ct_state=+est,actions=2";
    let mut bench = Bench::new(flows);
    for frame in openings(1..4) {
        bench.through(&frame);
    }
    let request = PacketBuilder::new().ipv4(B, X).udp(3000, 69).payload(b"\x00\x01file\x00octet\x00").build();
    let mut burst = openings(10..16);
    burst.insert(2, request);
    assert_eq!(
        bench.burst(1, &slices(&burst), 0),
        burst.iter().map(|frame| (2, frame.clone())).collect::<Sent>()
    );
    assert_eq!(bench.connections().len(), 10);
    assert!(!bench.0.worker().shard().opens_plain());
    // The announced connection comes, and others still go the long way.
    assert_eq!(bench.ports(2, &udp(X, 4000, B, 3000)), [1]);
    assert_eq!(ports(&bench.burst(1, &slices(&openings(20..24)), 0)), [2; 4]);
    bench.balance();
}

#[test]
fn each_of_several_shards_opens_the_short_way_what_comes_to_it() {
    let three = Layout { shards: 3, seed: 5, ..Layout::default() };
    for (layout, comes_home) in [
        (Layout::default(), true),
        (three, true),
        (Layout { arrival: Arrival::Adverse, ..three }, false),
        // Nobody brings packets to their homes: they leave at their first `ct`.
        (Layout { arrival: Arrival::Random, steered_early: false, ..three }, false),
        (Layout { arrival: Arrival::Adverse, steered_early: false, ..three }, false),
    ] {
        let mut bench = Bench::divided(NAT, layout);
        for frame in openings(1..40) {
            bench.0.inject(1, &frame, 0);
            bench.0.flush();
        }
        let before = bench.0.counters();
        for frame in openings(50..90) {
            bench.0.inject(1, &frame, 0);
        }
        bench.0.flush();
        let sent = bench.0.take_sent();
        assert!(sent.iter().all(|(port, _)| *port == 2));
        assert_eq!((sent.len(), bench.connections().len()), (79, 79));
        let workers = bench.0.workers_now();
        assert!(workers.iter().all(|worker| worker.shard().opens_plain()));
        // The last burst of a worker whose packets are its own was taken for plain openings; that these are opened the
        // short way is tested where that begins, in the shard.
        let opened = workers.iter().all(|worker| worker.plain_lookups[0].has_no_connection());
        assert!(opened || !comes_home, "{layout:?}");
        let counters = bench.0.counters();
        assert_eq!(counters.recirculations, before.recirculations + 40);
        for (_, frame) in sent {
            let back = answer_to(frame.bytes());
            assert_eq!(bench.ports(2, &back), [1]);
        }
        bench.balance();
    }
}

#[test]
fn openings_that_must_ask_another_shard_leave_their_runs() {
    // Whose the answers of a translated destination are nobody may choose.
    let flows = "table=0,ip,ct_state=-trk,actions=ct(nat,table=1)
        table=1,ip,in_port=1,ct_state=+new,actions=ct(commit,nat(dst=10.0.0.5)),2
        table=1,ip,in_port=1,ct_state=+est,actions=2
        table=1,ip,in_port=2,ct_state=+est,actions=1";
    for mailbox_capacity in [1024, 1] {
        let layout = Layout { shards: 3, seed: 5, mailbox_capacity, mailbox_delay: 3, ..Layout::default() };
        let mut bench = Bench::divided(flows, layout);
        for frame in openings(1..40) {
            bench.0.inject(1, &frame, 0);
            bench.0.flush();
        }
        bench.0.take_sent();
        let before = bench.connections().len();
        for frame in openings(50..90) {
            bench.0.inject(1, &frame, 0);
        }
        bench.0.flush();
        let sent = bench.0.take_sent();
        let lost = bench.dropped(DropCause::MailboxFull);
        assert_eq!(bench.connections().len() - before, sent.len());
        assert_eq!((sent.len() == 40, lost == 0), (mailbox_capacity > 1, mailbox_capacity > 1));
        assert!(bench.0.counters().handed_over[Reason::Tuple.index()] > 10);
        for (port, frame) in sent {
            assert_eq!(port, 2);
            let back = answer_to(frame.bytes());
            assert!(bench.ports(2, &back) == [1] || mailbox_capacity == 1);
        }
        bench.balance();
    }
}

#[test]
fn a_packet_for_whose_connection_there_is_no_port_leaves_its_run() {
    let flows = "table=0,ip,ct_state=-trk,actions=ct(nat,table=1)
        table=1,ip,in_port=1,ct_state=+new,actions=ct(commit,nat(src=10.0.0.1:6000-6004)),2
        table=1,ip,in_port=1,ct_state=+est,actions=2";
    let mut bench = Bench::new(flows);
    for frame in openings(1..4) {
        bench.through(&frame);
    }
    let before = bench.0.counters();
    let sent = bench.burst(1, &slices(&openings(10..16)), 0);
    assert!(bench.0.worker().plain_lookups[..6].iter().all(PlainLookup::has_no_connection));
    assert_eq!(ports(&sent), [2; 2], "of five ports two were left");
    assert_eq!(bench.dropped(DropCause::NatExhausted), 4);
    let after = bench.0.counters();
    assert_eq!(after.recirculations, before.recirculations + 6);
    assert_eq!(after.trajectory_hits, before.trajectory_hits + 12);
    bench.balance();
}

#[test]
fn a_change_of_tables_holds_for_the_next_packet_that_starts_a_connection() {
    let mut bench = Bench::new(JUDGED);
    for frame in openings(1..4) {
        bench.through(&frame);
    }
    assert_eq!(ports(&bench.burst(1, &slices(&openings(10..14)), 0)), [2; 4]);
    bench.change(Command::Add, "table=1,ip,ct_state=+new,actions=ct(commit),3");
    for hosts in [20..24, 30..34] {
        assert_eq!(ports(&bench.burst(1, &slices(&openings(hosts)), 0)), [3; 4]);
    }
    // Where it depends on the packet, each goes its own way.
    bench.change(Command::Add, "table=1,priority=40000,ip,nw_src=192.168.0.41,actions=4");
    for hosts in [40..44, 50..54] {
        let fresh = openings(hosts.clone());
        let mut sent = bench.burst(1, &slices(&fresh), 0);
        sent.sort_by_key(|(_, frame)| fresh.iter().position(|other| other == frame));
        let expected: Vec<PortNumber> = hosts.map(|host| if host == 41 { 4 } else { 3 }).collect();
        assert_eq!(ports(&sent), expected);
    }
    bench.balance();
}

#[test]
fn tagged_packets_that_start_connections_do_not_stand_in_the_way_of_others() {
    let mut bench = Bench::new(JUDGED);
    for host in 1..4 {
        let tagged = PacketBuilder::new().vlan(5).ipv4([192, 168, 0, host], X).udp(7, 9).build();
        bench.through(&tagged);
    }
    for frame in openings(4..8) {
        bench.through(&frame);
    }
    assert_eq!(ports(&bench.burst(1, &slices(&openings(10..14)), 0)), [2; 4]);
    assert!(bench.0.worker().plain_lookups[..4].iter().all(PlainLookup::has_no_connection));
    bench.balance();
}

#[test]
fn a_packet_whose_headers_were_written_between_two_cts_of_a_zone_is_looked_up_again() {
    let flows = "table=0,ip,ct_state=-trk,actions=ct(table=1)
        table=1,priority=40000,ip,ct_state=+new,nw_src=192.168.0.2,actions=mod_nw_dst:203.0.113.77,ct(commit),2
        table=1,ip,ct_state=+new,actions=ct(commit),2
        table=1,ip,in_port=1,ct_state=+est,actions=2
        table=1,ip,in_port=2,ct_state=+est,actions=1";
    let mut bench = Bench::new(flows);
    let pair = bench.establish(&v4(1));
    for _ in 0..3 {
        bench.through(&pair.forth);
    }
    assert_eq!(bench.ports(1, &udp([192, 168, 0, 2], 7, X, 9)), [2]);
    assert_eq!(bench.ports(1, &udp([192, 168, 0, 3], 7, X, 9)), [2]);
    let connections = bench.connections().join("\n");
    assert!(connections.contains("src=192.168.0.2,dst=203.0.113.77,"), "{connections}");
    assert!(connections.contains("src=192.168.0.3,dst=203.0.113.9,"), "{connections}");
    assert!(!connections.contains("src=192.168.0.2,dst=203.0.113.9,"), "{connections}");
}

#[test]
fn what_goes_by_two_protocols_is_counted_by_flow_and_port() {
    let mut bench = Bench::new(JUDGED);
    let pair = bench.establish(&v4(1));
    let query = udp(A, 7, X, 9);
    bench.through(&query);
    assert_eq!(bench.ports(2, &udp(X, 9, A, 7)), [1]);
    let burst: Vec<&[u8]> = vec![&pair.forth, &query, &query, &pair.forth, &query, &pair.forth];
    bench.burst(1, &burst, 0);
    let before = bench.0.counters();
    let port = |bench: &mut Bench| bench.0.worker().port_counters(1);
    let port_before = port(&mut bench);
    for round in 1..=3 {
        assert_eq!(
            bench.burst(1, &burst, 0),
            burst.iter().map(|frame| (2, frame.to_vec())).collect::<Sent>()
        );
        let after = bench.0.counters();
        assert_eq!(after.trajectory_hits, before.trajectory_hits + 12 * round);
        assert_eq!((after.received, after.sent), (before.received + 6 * round, before.sent + 6 * round));
        assert_eq!(after.recirculations, before.recirculations + 6 * round);
    }
    let bytes: usize = burst.iter().map(|frame| frame.len()).sum();
    assert_eq!(port(&mut bench).received_bytes, port_before.received_bytes + 3 * bytes as u64);
    bench.balance();
}
