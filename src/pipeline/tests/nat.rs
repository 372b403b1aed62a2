//! examples/nat.flows, end to end.

use weir_wire::Layers;
use weir_wire::header::Ipv4;

use super::*;

/// Source address and port of a translated packet.
fn source(frame: &[u8]) -> ([u8; 4], u16) {
    match Tuple::extract(frame, &Layers::parse(frame), 0, ChecksumTrust::NONE).unwrap().lookup() {
        Tuple::V4(tuple) => (tuple.src, tuple.src_port),
        Tuple::V6(_) => panic!("not IPv4"),
    }
}

#[test]
fn a_new_connection_is_committed_and_its_first_packet_translated_at_once() {
    let mut bench = Bench::new(NAT);
    let out = bench.through(&syn(A, 4000, X, 80));
    let (address, port) = source(&out);
    assert_eq!(address[..3], [10, 0, 0]);
    assert!((5000..=50000).contains(&port), "{port}");
    let [connection] = bench.connections().try_into().unwrap();
    assert!(
        connection.starts_with("tcp,orig=(src=192.168.0.1,dst=203.0.113.9,sport=4000,dport=80)"),
        "{connection}"
    );
    bench.balance();
}

#[test]
fn replies_are_translated_back_and_later_packets_keep_their_translation() {
    let mut bench = Bench::new(NAT);
    let (address, port) = source(&bench.through(&syn(A, 4000, X, 80)));
    let sent = bench.send(2, &tcp(X, 80, address, port, flag::SYN | flag::ACK, 5000, 1001));
    assert_eq!(ports(&sent), [1]);
    assert_eq!(tuple(&sent[0].1), "src=203.0.113.9,dst=192.168.0.1,sport=80,dport=4000");
    for _ in 0..3 {
        assert_eq!(source(&bench.through(&tcp(A, 4000, X, 80, flag::ACK, 1001, 5001))), (address, port));
        let sent = bench.send(2, &tcp(X, 80, address, port, flag::ACK, 5001, 1001));
        assert_eq!(tuple(&sent[0].1), "src=203.0.113.9,dst=192.168.0.1,sport=80,dport=4000");
    }
    assert!(bench.connections()[0].ends_with("protoinfo=(state=ESTABLISHED)"));
    bench.balance();
}

#[test]
fn an_echo_keeps_its_way_by_its_identifier() {
    let mut bench = Bench::new(NAT);
    let request = PacketBuilder::new().ipv4(A, X).echo_request(7, 1).payload(b"ping").build();
    let (address, id) = source(&bench.through(&request));
    let reply = PacketBuilder::new().ipv4(X, address).echo_reply(id, 1).payload(b"ping").build();
    let sent = bench.send(2, &reply);
    assert_eq!(ports(&sent), [1]);
    assert_eq!(tuple(&sent[0].1), "src=203.0.113.9,dst=192.168.0.1,id=7,type=0,code=0");
}

#[test]
fn an_error_about_a_translated_packet_reaches_its_sender_translated_inside_and_outside() {
    // As the example, and related packets pass.
    let flows = format!("{NAT}table=1,in_port=2,ip,ct_state=+trk+rel,action=1\n");
    let mut bench = Bench::new(&flows);
    let out = bench.through(&udp(A, 5353, X, 53));
    let (address, _) = source(&out);
    let router = [198, 51, 100, 1];
    let error = PacketBuilder::new().ipv4(router, address).icmp_error(3, 3, 0, &out, 60).build();
    let sent = bench.send(2, &error);
    assert_eq!(ports(&sent), [1]);
    let frame = &sent[0].1;
    let layers = Layers::parse(frame);
    let outer = Ipv4::new_checked(layers.l3_bytes(frame)).unwrap();
    assert_eq!((outer.src(), outer.dst()), (router, A));
    // The tuple of the direction that the error travels in, from the packet that it quotes.
    assert_eq!(tuple(frame), "src=203.0.113.9,dst=192.168.0.1,sport=53,dport=5353");
}

#[test]
fn what_nobody_asked_for_is_dropped() {
    let mut bench = Bench::new(NAT);
    bench.through(&udp(A, 5353, X, 53));
    assert_eq!(bench.ports(2, &udp(X, 53, [10, 0, 0, 1], 4)), NOWHERE);
    assert_eq!(bench.ports(2, &syn(X, 1, A, 22)), NOWHERE);
    assert_eq!(bench.dropped(DropCause::Action), 2);
    assert_eq!(bench.connections().len(), 1);
    bench.balance();
}

/// One address and one port for everybody.
const NARROW: &str = "table=0,priority=10,ip,ct_state=-trk,action=ct(nat,table=1)
    table=1,in_port=1,ip,ct_state=+trk+new,action=ct(nat(src=10.0.0.1:5000-5000),commit),2
    table=1,in_port=1,ip,ct_state=+trk+est,action=2
    table=1,in_port=2,ip,ct_state=+trk+est,action=1";

#[test]
fn without_a_free_port_a_packet_is_dropped_and_counted_and_never_sent_with_its_private_address() {
    let mut bench = Bench::new(NARROW);
    assert_eq!(source(&bench.through(&syn(A, 4000, X, 80))), ([10, 0, 0, 1], 5000));
    for _ in 0..2 {
        assert_eq!(bench.ports(1, &syn(B, 4000, X, 80)), NOWHERE);
    }
    assert_eq!(bench.dropped(DropCause::NatExhausted), 2);
    // To somebody else the port is free.
    assert_eq!(bench.ports(1, &syn(B, 4000, X, 81)), [2]);
    assert_eq!(bench.connections().len(), 2);
    bench.balance();
}

#[test]
fn two_connections_that_want_the_last_port_in_one_burst_do_not_both_get_it() {
    let mut bench = Bench::new(NARROW);
    let (a, b) = (syn(A, 4000, X, 80), syn(B, 4000, X, 80));
    let sent = bench.burst(1, &[&a, &b, &b, &a], 0);
    assert_eq!(ports(&sent), [2, 2]);
    assert!(sent.iter().all(|(_, frame)| source(frame) == ([10, 0, 0, 1], 5000)));
    assert_eq!(bench.dropped(DropCause::NatExhausted), 2);
    bench.balance();
}

#[test]
fn a_port_is_free_again_when_its_connection_has_expired() {
    let mut bench = Bench::new(NARROW);
    bench.through(&syn(A, 4000, X, 80));
    assert_eq!(bench.send_at(31_000, 1, &syn(B, 4000, X, 80)).len(), 1);
    assert_eq!(bench.connections().len(), 1);
}

#[test]
fn a_full_table_drops_what_had_to_be_translated() {
    let mut bench = Bench::with(NAT, ShardConfig { max_connections: 1, ..shard() });
    bench.through(&udp(A, 1, X, 53));
    assert_eq!(bench.ports(1, &udp(A, 2, X, 53)), NOWHERE);
    assert_eq!(bench.dropped(DropCause::NatRefused), 1);
    bench.balance();
}

#[test]
fn arp_and_other_traffic_goes_as_through_a_learning_switch() {
    let mut bench = Bench::new(NAT);
    let arp = PacketBuilder::new().arp(1, ([2, 0, 0, 0, 0, 1], A), ([0; 6], X)).build();
    assert_eq!(bench.ports(1, &arp), [2, 3, 4]);
}
