//! Several shards, and packets that come to any of them: what comes out is what one shard would send, and every packet
//! is accounted for.

use std::collections::BTreeSet;

use weir_shard::Reason;

use super::fragments::{cut, join, payload};
use super::groups::packet_out;
use super::*;

/// Three shards under everything that may happen to a letter but that it finds no room.
fn everything() -> impl Iterator<Item = Layout> {
    let arrivals = Arrival::ALL.into_iter().flat_map(|arrival| [(arrival, true), (arrival, false)]);
    arrivals.flat_map(|(arrival, steered_early)| {
        [0, 5].map(|mailbox_delay| {
            let layout =
                Layout { shards: 3, arrival, steered_early, mailbox_delay, seed: 11, ..Layout::default() };
            println!("{layout:?}");
            layout
        })
    })
}

/// Every packet arrives where it does not belong and travels at its `ct`.
fn late() -> Layout {
    Layout { shards: 3, arrival: Arrival::Adverse, steered_early: false, seed: 3, ..Layout::default() }
}

fn client(number: u8) -> ([u8; 4], u16) {
    ([192, 168, 0, number], 4000 + u16::from(number))
}

/// Both ends of a packet.
fn ends(frame: &[u8]) -> (([u8; 4], u16), ([u8; 4], u16)) {
    match Tuple::extract(frame, &Layers::parse(frame), 0, ChecksumTrust::NONE).unwrap().lookup() {
        Tuple::V4(tuple) => ((tuple.src, tuple.src_port), (tuple.dst, tuple.dst_port)),
        Tuple::V6(_) => panic!("not IPv4"),
    }
}

/// Nothing is left of any connection: no redirect, no notice, no context.
fn is_clean(bench: &mut Bench) {
    let now = bench.0.now() + 1_000_000_000;
    bench.0.advance(now);
    bench.0.flush();
    for worker in bench.0.workers() {
        assert_eq!(worker.shard().len(), 0);
        assert_eq!(worker.shard().redirects(), 0, "every tuple was given back");
        assert_eq!((worker.waiting_notices(), worker.shard().notices()), (0, 0));
        worker.clear_megaflows();
        assert_eq!(worker.recirculation_contexts(), 0);
    }
    bench.balance();
}

#[test]
fn connections_are_translated_there_and_back_wherever_their_packets_arrive() {
    for layout in everything() {
        let mut bench = Bench::divided(NAT, layout);
        let mut public = BTreeSet::new();
        for number in 0..40 {
            let (host, port) = client(number);
            let ((address, outside), to) = ends(&bench.through(&syn(host, port, X, 80)));
            assert_eq!((address[..3].to_vec(), to), (vec![10, 0, 0], (X, 80)));
            assert!(public.insert((address, outside)), "nobody else has it");
            let answer = tcp(X, 80, address, outside, flag::SYN | flag::ACK, 5000, 1001);
            let sent = bench.send(2, &answer);
            assert_eq!(ports(&sent), [1]);
            assert_eq!(ends(&sent[0].1), ((X, 80), (host, port)));
            let ack = bench.through(&tcp(host, port, X, 80, flag::ACK, 1001, 5001));
            assert_eq!(ends(&ack), ((address, outside), (X, 80)));
            bench.balance();
        }
        assert_eq!(bench.connections().len(), 40);
        assert!(bench.connections().iter().all(|line| line.contains("ESTABLISHED")));
        assert_eq!(bench.0.counters().handed_over_in_all() > 0, layout.arrival != Arrival::Steered);
        is_clean(&mut bench);
    }
}

/// A public service inside, and everybody inside may call outside.
const SERVICE: &str = "table=0,ip,ct_state=-trk,action=ct(nat,table=1)
    table=1,in_port=2,ip,ct_state=+trk+new,action=ct(nat(dst=192.168.0.1-192.168.0.9),commit),1
    table=1,ip,ct_state=+trk+inv,action=drop
    table=1,in_port=1,ip,ct_state=+trk-new,action=2
    table=1,in_port=2,ip,ct_state=+trk-new,action=1";

#[test]
fn the_answers_of_a_translated_service_find_their_connections() {
    for layout in everything() {
        let mut bench = Bench::divided(SERVICE, layout);
        for number in 0..40u16 {
            let caller = ([203, 0, 113, 9], 1000 + number);
            let sent = bench.send(2, &syn(caller.0, caller.1, [10, 0, 0, 1], 80));
            assert_eq!(ports(&sent), [1]);
            let (from, server) = ends(&sent[0].1);
            assert_eq!((from, &server.0[..3], server.1), (caller, &[192, 168, 0][..], 80));
            let answer = tcp(server.0, 80, caller.0, caller.1, flag::SYN | flag::ACK, 5000, 1001);
            let sent = bench.send(1, &answer);
            assert_eq!(ports(&sent), [2], "its redirect was there before it");
            assert_eq!(ends(&sent[0].1), (([10, 0, 0, 1], 80), caller));
            bench.balance();
        }
        assert_eq!(bench.connections().len(), 40);
        let counters = bench.0.counters();
        assert!(counters.handed_over[Reason::Tuple.index()] > 0, "some asked for their reply tuples");
        assert!(counters.handed_over[Reason::Redirected.index()] > 0);
        is_clean(&mut bench);
    }
}

#[test]
fn errors_about_translated_packets_reach_their_senders() {
    let flows = format!("{NAT}table=1,in_port=2,ip,ct_state=+trk+rel,action=1\n");
    for layout in everything() {
        let mut bench = Bench::divided(&flows, layout);
        for number in 0..10 {
            let (host, port) = client(number);
            let out = bench.through(&udp(host, port, X, 53));
            let ((address, _), _) = ends(&out);
            let error = PacketBuilder::new().ipv4([198, 51, 100, 1], address).icmp_error(3, 3, 0, &out, 60);
            let sent = bench.send(2, &error.build());
            assert_eq!(ports(&sent), [1]);
            let wanted = format!("src=203.0.113.9,dst=192.168.0.{number},sport=53,dport={port}");
            assert_eq!(tuple(&sent[0].1), wanted);
        }
        is_clean(&mut bench);
    }
}

#[test]
fn fragments_meet_at_one_shard_and_travel_to_the_owner_as_a_whole() {
    for layout in everything() {
        let mut bench = Bench::divided(SERVICE, layout);
        for number in 0..12u16 {
            let (caller, id) = (([203, 0, 113, 9], 2000 + number), u32::from(number));
            let question = PacketBuilder::new().ipv4(caller.0, [10, 0, 0, 1]).udp(caller.1, 53);
            let parts = cut(&question.payload(&payload(4000)).build(), id, &[1480, 2960]);
            let sent: Sent = parts.iter().flat_map(|part| bench.send(2, part)).collect();
            assert_eq!(ports(&sent), [1; 3], "{number} {:?}", bench.0.counters());
            let (from, server) = ends(&join(&frames(sent)));
            assert_eq!((from, server.1), (caller, 53));
            let answer = PacketBuilder::new().ipv4(server.0, caller.0).udp(53, caller.1);
            let parts = cut(&answer.payload(&payload(2000)).build(), id, &[1400]);
            let sent: Sent = parts.iter().rev().flat_map(|part| bench.send(1, part)).collect();
            assert_eq!(ports(&sent), [2; 2]);
            assert_eq!(ends(&join(&frames(sent))), (([10, 0, 0, 1], 53), caller));
            bench.balance();
        }
        assert_eq!(bench.connections().len(), 12);
        // What is never completed is invalid where it met.
        let lonely = cut(&udp_of(3000), 99, &[1480]);
        assert_eq!(bench.send(2, &lonely[1]), []);
        assert_eq!(bench.0.held_fragments(), 1);
        is_clean(&mut bench);
        assert_eq!(bench.dropped(DropCause::FragmentExpired), 1);
    }
}

fn udp_of(length: usize) -> Vec<u8> {
    PacketBuilder::new().ipv4(X, [10, 0, 0, 1]).udp(9, 53).payload(&payload(length)).build()
}

fn frames(sent: Sent) -> Vec<Vec<u8>> {
    sent.into_iter().map(|(_, frame)| frame).collect()
}

/// The last bytes of what a host sends in two bursts, which come to one shard: whichever, as a card brings them there.
fn numbers_behind(
    bench: &mut Bench,
    shard: usize,
    port: PortNumber,
    packet: impl Fn(u8) -> Vec<u8>,
) -> Vec<u8> {
    for number in 0..60 {
        bench.0.inject_at(shard, port, super::super::HeapFrame::new(&packet(number)), 0);
    }
    let sent = bench.0.take_sent();
    assert_eq!(sent.iter().map(|(_, frame)| ends(frame.bytes())).collect::<BTreeSet<_>>().len(), 1);
    sent.iter().filter_map(|(_, frame)| frame.bytes().get(42).copied()).collect()
}

#[test]
fn packets_of_a_connection_keep_their_order_in_a_burst_and_over_bursts() {
    let in_order: Vec<u8> = (0..60).collect();
    let packet = |from: ([u8; 4], u16), to: ([u8; 4], u16), number: u8| {
        PacketBuilder::new().ipv4(from.0, to.0).udp(from.1, to.1).payload(&[number]).build()
    };
    for layout in everything() {
        // The first of them opens the connection; its port is one of its own shard.
        let flows = NAT.replace(
            "in_port=1,ip,ct_state=+trk+new",
            "in_port=1,ip,nw_src=192.168.0.0/16,ct_state=+trk+new",
        ) + "table=1,priority=1,in_port=1,ip,ct_state=+trk+new,action=2\n";
        let mut bench = Bench::divided(&flows, layout);
        for number in 0..12 {
            let numbers = numbers_behind(&mut bench, usize::from(number % 3), 1, |at| {
                packet(client(number), (X, 53), at)
            });
            assert_eq!(numbers, in_order, "{number}");
        }
        assert_eq!(bench.connections().len(), 12);
        is_clean(&mut bench);
        // Its answers go by the home of their own tuple.
        let mut bench = Bench::divided(SERVICE, layout);
        for number in 0..12u8 {
            let caller = (X, 3000 + u16::from(number));
            let out = bench.send(2, &packet(caller, ([10, 0, 0, 1], 53), 0));
            let (_, server) = ends(&out[0].1);
            let numbers =
                numbers_behind(&mut bench, usize::from(number % 3), 1, |at| packet(server, caller, at));
            assert_eq!(numbers, in_order, "{number}");
        }
        assert!(bench.0.counters().handed_over[Reason::Redirected.index()] > 0);
        is_clean(&mut bench);
    }
}

#[test]
fn a_packet_sent_by_hand_is_tracked_by_its_owner() {
    for layout in everything() {
        let mut bench =
            Bench::divided("table=5,in_port=1,reg2=7,ct_state=+trk+new,ip,ct_zone=9,actions=3", layout);
        let text =
            "in_port=1,reg2=7,packet=PACKET,actions=ct(commit,zone=9,table=5,exec(set_field:5->ct_mark)),4";
        for number in 0..10 {
            let (host, port) = client(number);
            let sent = packet_out(&mut bench, text, &udp(host, port, X, 2));
            let mut out = ports(&sent);
            out.sort_unstable();
            assert_eq!(out, [3, 4]);
        }
        assert_eq!(bench.connections().len(), 10);
        assert!(bench.connections().iter().all(|line| line.contains("zone=9,mark=5")));
        is_clean(&mut bench);
    }
}

/// The tuple is translated between the zones, and so has another owner in each.
const ZONES: &str = "table=0,in_port=1,ip,actions=ct(zone=1,nat,table=1)
    table=0,in_port=2,ip,actions=ct(zone=2,nat,table=5)
    table=1,ip,ct_state=+trk+new,actions=load:7->NXM_NX_REG3[],ct(commit,zone=1,nat(dst=198.51.100.7),table=2)
    table=1,ip,ct_state=+trk+est,actions=load:7->NXM_NX_REG3[],resubmit(,2)
    table=2,reg3=7,ip,actions=ct(zone=2,nat,table=3)
    table=3,reg3=7,ip,ct_state=+trk+new,actions=ct(commit,zone=2,nat(src=10.0.0.1)),2
    table=3,reg3=7,ip,ct_state=+trk+est,actions=2
    table=5,ip,ct_state=+trk+est,actions=ct(zone=1,nat,table=6)
    table=6,ip,ct_state=+trk+est,actions=1";

#[test]
fn a_connection_may_have_another_owner_in_each_zone() {
    let mut owners = BTreeSet::new();
    for layout in everything() {
        let mut bench = Bench::divided(ZONES, layout);
        bench.0.write_history();
        for number in 0..12 {
            let (host, port) = client(number);
            let out = bench.through(&syn(host, port, X, 80));
            let ((address, outside), to) = ends(&out);
            assert_eq!((address, to), ([10, 0, 0, 1], ([198, 51, 100, 7], 80)));
            let seen = bench.0.take_history();
            assert_eq!(seen.len(), 4, "it met four actions: {seen:?}");
            owners.insert((seen[0].shard, seen[3].shard));
            let answer = tcp(to.0, 80, address, outside, flag::SYN | flag::ACK, 5000, 1001);
            let sent = bench.send(2, &answer);
            assert_eq!(ports(&sent), [1]);
            assert_eq!(ends(&sent[0].1), ((X, 80), (host, port)));
            assert_eq!(bench.0.take_history().len(), 2);
            bench.balance();
        }
        assert_eq!(bench.connections().len(), 24);
        is_clean(&mut bench);
    }
    assert!(owners.iter().any(|(one, two)| one != two), "{owners:?}");
}

#[test]
fn tables_may_be_swapped_while_packets_are_under_way() {
    for steered_early in [true, false] {
        let layout = Layout { mailbox_delay: 1000, steered_early, ..late() };
        let mut bench = Bench::divided(NAT, layout);
        for number in 0..20 {
            let (host, port) = client(number);
            bench.0.inject(1, &syn(host, port, X, 80), 0);
        }
        bench.0.work();
        assert!(bench.0.under_way() > 0);
        bench.balance_now();
        bench.change(Command::Add, "table=9,priority=7,actions=drop");
        let sent = bench.0.take_sent();
        assert_eq!(sent.len(), 20, "none is lost");
        is_clean(&mut bench);
    }
}

#[test]
fn packets_under_way_to_a_port_whose_number_is_free_are_dropped_and_leave_nothing_behind() {
    for steered_early in [true, false] {
        let layout = Layout { mailbox_delay: 1000, steered_early, ..late() };
        let mut bench = Bench::divided(SERVICE, layout);
        for number in 0..20 {
            bench.0.inject(2, &syn(X, 1000 + number, [10, 0, 0, 1], 80), 0);
        }
        bench.0.work();
        let under_way = bench.0.under_way();
        assert!(under_way > 0);
        bench.0.delete_port(4, true).unwrap();
        bench.0.flush();
        assert_eq!(bench.dropped(DropCause::Renumbered), under_way);
        bench.balance();
        is_clean(&mut bench);
    }
}

#[test]
fn a_full_mailbox_drops_and_counts_by_reason_and_what_was_reserved_is_given_back() {
    for steered_early in [true, false] {
        let layout = Layout { mailbox_delay: 3, mailbox_capacity: 2, steered_early, ..late() };
        let mut bench = Bench::divided(SERVICE, layout);
        for number in 0..200 {
            bench.0.inject(2, &syn(X, 1000 + number, [10, 0, 0, 1], 80), 0);
        }
        bench.0.work();
        bench.balance_now();
        bench.balance();
        let counters = bench.0.counters();
        assert!(counters.sent > 0);
        assert_eq!(counters.refused_full.iter().sum::<u64>(), counters.dropped(DropCause::MailboxFull));
        assert_eq!(counters.sent + counters.dropped(DropCause::MailboxFull), 200);
        assert!(counters.refused_full[Reason::Steered.index()] > 0);
        bench.0.take_sent();
        // Whoever was dropped tries again and gets through.
        for number in 0..200 {
            let sent = bench.send(2, &syn(X, 1000 + number, [10, 0, 0, 1], 80));
            assert_eq!(ports(&sent), [1]);
        }
        assert_eq!(bench.connections().len(), 200);
        is_clean(&mut bench);
    }
}

#[test]
fn notices_wait_for_room_and_no_packet_passes_them() {
    let layout = Layout { mailbox_delay: 50, mailbox_capacity: 1, settles_with_time: false, ..late() };
    let mut bench = Bench::divided(SERVICE, layout);
    for number in 0..100 {
        assert_eq!(bench.ports(2, &syn(X, 1000 + number, [10, 0, 0, 1], 80)), [1]);
    }
    let redirects =
        |bench: &mut Bench| bench.0.workers_now().iter().map(|worker| worker.shard().redirects()).sum();
    let before: usize = redirects(&mut bench);
    assert!(before > 10, "{before}");
    // All of them expire at once.
    let now = bench.0.now() + 10_000_000;
    bench.0.advance(now);
    let waiting: usize = bench.0.workers_now().iter().map(|worker| worker.waiting_notices()).sum();
    assert!(waiting > 0, "they do not fit");
    // Those that call again meanwhile find no room, or their tuples free.
    for number in 0..100 {
        bench.0.inject(2, &syn(X, 1000 + number, [10, 0, 0, 1], 80), now);
    }
    bench.0.work();
    bench.balance_now();
    bench.balance();
    let counters = bench.0.counters();
    assert_eq!(counters.sent + counters.dropped(DropCause::MailboxFull), 200);
    is_clean(&mut bench);
}

#[test]
fn a_packet_that_only_its_tracker_is_still_to_see_is_counted_once() {
    for layout in everything() {
        let mut bench = Bench::divided("in_port=1,ip,actions=2,3,ct(commit)", layout);
        for number in 0..10 {
            let (host, port) = client(number);
            assert_eq!(bench.ports(1, &udp(host, port, X, 53)), [2, 3]);
            bench.balance();
        }
        assert_eq!((bench.0.counters().sent, bench.0.counters().copies), (20, 10));
        assert_eq!(bench.connections().len(), 10);
        is_clean(&mut bench);
    }
}

#[test]
fn tables_without_a_tracker_steer_nothing() {
    let mut bench = Bench::divided("in_port=1,actions=2", Layout { steered_early: true, ..late() });
    for number in 0..10 {
        let (host, port) = client(number);
        assert_eq!(bench.ports(1, &udp(host, port, X, 53)), [2]);
    }
    assert_eq!(bench.0.counters().handed_over_in_all(), 0);
    bench.balance();
}

#[test]
fn recirculated_copies_stay_bounded_though_their_packet_goes_from_shard_to_shard() {
    // Each round doubles the packet and translates it, so that its copies belong to other shards.
    let flows = "table=0,ip,actions=ct(commit,zone=1,nat(src=10.0.0.1-10.0.0.9),table=0),\
        ct(commit,zone=2,nat(dst=10.9.0.1-10.9.0.9),table=0)";
    for layout in everything() {
        let mut bench = Bench::divided(flows, layout);
        bench.0.inject(1, &udp(A, 1, X, 2), 0);
        bench.balance();
        let copies = bench.0.counters().copies;
        assert!(copies <= 2 * u64::from(super::super::worker::MAX_COPIES), "{copies}");
    }
}
