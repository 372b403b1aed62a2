//! One packet through several zones: source translation in one and destination translation in another, floating
//! addresses, hairpins, and the errors about all of them.

use core::net::IpAddr;

use weir_wire::Extracted;

use super::*;

/// Addresses of one family: a client, the address that it calls, who answers there, the client as that one knows it.
struct Names {
    client: IpAddr,
    called: IpAddr,
    server: IpAddr,
    public: IpAddr,
    router: IpAddr,
    /// The match that `ct` needs.
    ip: &'static str,
}

fn names(v6: bool) -> Names {
    let [client, called, server, public, router] = if v6 {
        ["fd00::1", "2001:db8:5::5", "2001:db8:9::9", "2001:db8:1::1", "2001:db8:7::7"]
    } else {
        ["192.168.0.1", "203.0.113.5", "203.0.113.9", "10.0.0.1", "198.51.100.1"]
    }
    .map(|text| text.parse().unwrap());
    Names { client, called, server, public, router, ip: if v6 { "ipv6" } else { "ip" } }
}

fn datagram(src: IpAddr, sport: u16, dst: IpAddr, dport: u16) -> Vec<u8> {
    PacketBuilder::new().ip(src, dst).udp(sport, dport).payload(b"hello").build()
}

fn shows(src: IpAddr, sport: u16, dst: IpAddr, dport: u16) -> String {
    format!("src={src},dst={dst},sport={sport},dport={dport}")
}

/// The frame that must be the only one, and leave by `port`.
#[track_caller]
fn only(sent: Sent, port: PortNumber) -> Vec<u8> {
    assert_eq!(ports(&sent), [port]);
    sent.into_iter().next().unwrap().1
}

/// Outer source and destination of an error, and the packet that it quotes.
fn error_parts(frame: &[u8]) -> (IpAddr, IpAddr, Vec<u8>) {
    let layers = Layers::parse(frame);
    let l3 = layers.l3_bytes(frame);
    let address = |from: usize, len: usize| -> IpAddr {
        let bytes = &l3[from..from + len];
        <[u8; 4]>::try_from(bytes).map_or_else(|_| <[u8; 16]>::try_from(bytes).unwrap().into(), IpAddr::from)
    };
    let (src, dst) =
        if layers.is_ipv6() { (address(8, 16), address(24, 16)) } else { (address(12, 4), address(16, 4)) };
    match Tuple::extract(frame, &layers, 0, ChecksumTrust::NONE) {
        Ok(Extracted::IcmpError { inner_layers, .. }) => (src, dst, inner_layers.l3_bytes(frame).to_vec()),
        other => panic!("no error with right checksums: {other:?}"),
    }
}

/// The destination is translated in zone 2, then the source in zone 1; answers go the other way round.
fn both_ways(names: &Names) -> String {
    format!(
        "table=0,in_port=1,{ip},actions=ct(zone=2,commit,nat(dst={}),table=1)
         table=1,{ip},actions=ct(zone=1,commit,nat(src={}),table=2)
         table=2,ct_state=-inv,actions=2
         table=0,in_port=2,{ip},actions=ct(zone=1,nat,table=3)
         table=3,ct_state=+trk-new-inv,{ip},actions=ct(zone=2,nat,table=4)
         table=4,ct_state=+rpl,actions=1",
        names.server,
        names.public,
        ip = names.ip
    )
}

#[test]
fn source_and_destination_are_translated_in_a_zone_each_and_back() {
    for v6 in [false, true] {
        let names = names(v6);
        let Names { client, called, server, public, .. } = names;
        let mut bench = Bench::new(&both_ways(&names));
        for _ in 0..3 {
            let out = only(bench.send(1, &datagram(client, 4000, called, 53)), 2);
            assert_eq!(tuple(&out), shows(public, 4000, server, 53));
            let back = only(bench.send(2, &datagram(server, 53, public, 4000)), 1);
            assert_eq!(tuple(&back), shows(called, 53, client, 4000));
        }
        assert_eq!(bench.connections().len(), 2);
        assert_eq!(bench.ports(2, &datagram(server, 53, public, 4001)), NOWHERE);
        bench.balance();
    }
}

#[test]
fn errors_from_host_and_router_of_either_side_are_translated_in_both_zones() {
    for v6 in [false, true] {
        let names = names(v6);
        let Names { client, called, server, public, router, .. } = names;
        let mut bench = Bench::new(&both_ways(&names));
        let kind = if v6 { 1 } else { 3 };
        let sent = datagram(client, 4000, called, 53);
        let out = only(bench.send(1, &sent), 2);
        for from in [server, router] {
            let error = PacketBuilder::new().ip(from, public).icmp_error(kind, 1, 0, &out, 200).build();
            let (src, dst, quoted) = error_parts(&only(bench.send(2, &error), 1));
            // Who is behind the translated destination is not to be seen.
            assert_eq!((src, dst), (called, client));
            assert_eq!(quoted, Layers::parse(&sent).l3_bytes(&sent));
        }
        // About an answer, from inside: neither the client nor a router beside it may be seen.
        let answer = datagram(server, 53, public, 4000);
        let back = only(bench.send(2, &answer), 1);
        let beside: IpAddr = if v6 { "fd00::9" } else { "192.168.0.9" }.parse().unwrap();
        for from in [client, beside] {
            let error = PacketBuilder::new().ip(from, called).icmp_error(kind, 1, 0, &back, 200).build();
            let (src, dst, quoted) = error_parts(&only(bench.send(1, &error), 2));
            assert_eq!((src, dst), (public, server));
            assert_eq!(quoted, Layers::parse(&answer).l3_bytes(&answer));
        }
        bench.balance();
    }
}

#[test]
fn a_floating_address_works_in_both_directions() {
    // 192.168.0.1 inside is 10.0.0.77 outside: what it opens is translated in zone 1, what it is called in zone 2.
    let mut bench = Bench::new(
        "table=0,priority=9,in_port=1,ip,actions=ct(zone=2,nat,table=1)
         table=1,ct_state=+est,actions=2
         table=1,ct_state=+new,ip,actions=ct(zone=1,commit,nat(src=10.0.0.77),table=2)
         table=2,actions=2
         table=0,priority=9,in_port=2,ip,actions=ct(zone=1,nat,table=3)
         table=3,ct_state=+est,actions=1
         table=3,ct_state=+new,ip,nw_dst=10.0.0.77,actions=ct(zone=2,commit,nat(dst=192.168.0.1),table=4)
         table=4,actions=1",
    );
    let floating = [10, 0, 0, 77];
    for sport in [4000, 4001] {
        let out = only(bench.send(1, &udp(A, sport, X, 53)), 2);
        assert_eq!(tuple(&out), shows(floating.into(), sport, X.into(), 53));
        let back = only(bench.send(2, &udp(X, 53, floating, sport)), 1);
        assert_eq!(tuple(&back), shows(X.into(), 53, A.into(), sport));
    }
    let call = only(bench.send(2, &udp(X, 7000, floating, 80)), 1);
    assert_eq!(tuple(&call), shows(X.into(), 7000, A.into(), 80));
    let answer = only(bench.send(1, &udp(A, 80, X, 7000)), 2);
    assert_eq!(tuple(&answer), shows(floating.into(), 80, X.into(), 7000));
    let again = only(bench.send(2, &udp(X, 7000, floating, 80)), 1);
    assert_eq!(tuple(&again), shows(X.into(), 7000, A.into(), 80));
    assert_eq!(bench.connections().len(), 3);
    bench.balance();
}

#[test]
fn a_hairpin_goes_through_two_zones_and_back_out_of_its_port() {
    // B is 10.0.0.2 to the world, and to its neighbour A, whom it must not see as such.
    let mut bench = Bench::new(
        "table=0,ip,nw_dst=10.0.0.2,actions=ct(zone=2,commit,nat(dst=192.168.0.2),table=1)
         table=1,ip,actions=ct(zone=1,commit,nat(src=10.0.0.1:6000-6009),table=2)
         table=2,actions=in_port
         table=0,ip,nw_dst=10.0.0.1,actions=ct(zone=1,nat,table=3)
         table=3,ct_state=+est,ip,actions=ct(zone=2,nat,table=4)
         table=4,ct_state=+est+rpl,actions=in_port",
    );
    let out = only(bench.send(1, &syn(A, 4000, [10, 0, 0, 2], 80)), 1);
    let Tuple::V4(seen) =
        Tuple::extract(&out, &Layers::parse(&out), 0, ChecksumTrust::NONE).unwrap().lookup()
    else {
        panic!("IPv4")
    };
    assert_eq!((seen.src, seen.dst, seen.dst_port), ([10, 0, 0, 1], B, 80));
    assert!((6000..=6009).contains(&seen.src_port));
    let answer = tcp(B, 80, [10, 0, 0, 1], seen.src_port, flag::SYN | flag::ACK, 500, 1001);
    let back = only(bench.send(1, &answer), 1);
    assert_eq!(tuple(&back), "src=10.0.0.2,dst=192.168.0.1,sport=80,dport=4000");
    let third = only(bench.send(1, &tcp(A, 4000, [10, 0, 0, 2], 80, flag::ACK, 1001, 501)), 1);
    assert_eq!(tuple(&third), shows([10, 0, 0, 1].into(), seen.src_port, B.into(), 80));
    assert!(bench.connections().iter().all(|line| line.contains("state=ESTABLISHED")));
    bench.balance();
}

#[test]
fn calls_are_spread_over_a_range_of_servers_and_ports() {
    let mut bench = Bench::new(
        "table=0,in_port=1,ip,actions=ct(commit,nat(dst=203.0.113.1-203.0.113.4:8000-8001),table=1)
         table=1,ct_state=-inv,actions=2",
    );
    let mut served = std::collections::BTreeMap::new();
    for sport in 1..=400 {
        let out = bench.through(&udp(A, sport, [10, 0, 0, 9], 80));
        let Ok(Extracted::Packet(Tuple::V4(seen))) =
            Tuple::extract(&out, &Layers::parse(&out), 0, ChecksumTrust::NONE)
        else {
            panic!("a datagram with right checksums")
        };
        assert_eq!((seen.src, seen.src_port), (A, sport), "the source stays");
        *served.entry((seen.dst, seen.dst_port)).or_insert(0) += 1;
    }
    assert_eq!(served.len(), 8);
    assert!(served.values().all(|count| (20..100).contains(count)), "{served:?}");
}

#[test]
fn an_invalid_packet_that_its_flow_would_translate_is_dropped_and_one_that_is_only_looked_at_goes_on() {
    let mut bench = Bench::new(
        "table=0,in_port=1,ip,actions=ct(commit,nat(src=10.0.0.1),table=1)
         table=0,in_port=3,ip,actions=ct(nat,table=1)
         table=1,actions=2",
    );
    let stray = tcp(A, 4000, X, 80, flag::SYN | flag::ACK, 500, 1001);
    assert_eq!(bench.ports(1, &stray), NOWHERE);
    assert_eq!(bench.dropped(DropCause::NatInvalid), 1);
    assert_eq!(bench.ports(3, &stray), [2]);
    let mut broken = udp(A, 4000, X, 53);
    *broken.last_mut().unwrap() ^= 1;
    assert_eq!(bench.ports(1, &broken), NOWHERE);
    assert_eq!(bench.dropped(DropCause::NatInvalid), 2);
    assert!(bench.connections().is_empty());
    bench.balance();
}

#[test]
fn a_translation_that_keeps_the_address_changes_a_port_only_where_it_must() {
    for (v6, null) in [(false, "0.0.0.0"), (true, "::0")] {
        let names = names(v6);
        let mut bench = Bench::new(&format!(
            "table=0,in_port=1,{ip},actions=ct(commit,nat(src={null}),table=1)
             table=0,in_port=3,{ip},actions=ct(commit,nat(src={}),table=1)
             table=1,ct_state=-inv,actions=2",
            names.client,
            ip = names.ip
        ));
        let out = bench.through(&datagram(names.client, 4000, names.server, 53));
        assert_eq!(tuple(&out), shows(names.client, 4000, names.server, 53));
        // Another host is translated to that address, and the port is taken.
        let other = only(bench.send(3, &datagram(names.router, 4000, names.server, 53)), 2);
        assert_eq!(tuple(&other), shows(names.client, 4001, names.server, 53));
        // Whose port is now in the way of the first one's next flow.
        let moved = bench.through(&datagram(names.client, 4001, names.server, 53));
        assert_eq!(tuple(&moved), shows(names.client, 4002, names.server, 53));
    }
}
