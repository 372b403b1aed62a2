//! TFTP through the whole pipeline: the server answers from a port that nobody has announced.

use super::*;

const REQUEST: &[u8] = b"\0\x01boot.img\0octet\0";

/// As the tables for FTP: what is related leaves a copy at port 4 and shows its parent's mark and tuple.
fn tables(nat: &str, port: u16) -> String {
    let mut flows = String::from("table=0,ip,ct_state=-trk,actions=ct(nat,table=1)\n");
    for (from, to) in [(1, 2), (2, 1)] {
        let parent = format!("ct_mark=7,ct_nw_proto=17,ct_tp_dst={port}");
        flows += &format!(
            "table=1,priority=90,udp,ct_state=+trk+new+rel,{parent},in_port={from},actions=ct(commit,nat),4,{to}\n\
             table=1,priority=70,udp,ct_state=+trk+est+rel,{parent},in_port={from},actions=4,{to}\n\
             table=1,priority=60,udp,ct_state=+trk+est-rel,in_port={from},actions={to}\n"
        );
    }
    flows += &format!(
        "table=1,priority=80,udp,ct_state=+trk+new-rel,in_port=1,\
         actions=ct(commit,alg=tftp{nat},exec(load:7->NXM_NX_CT_MARK[])),2\n"
    );
    flows
}

fn datagram(src: [u8; 4], sport: u16, dst: [u8; 4], dport: u16, payload: &[u8]) -> Vec<u8> {
    PacketBuilder::new().ipv4(src, dst).udp(sport, dport).payload(payload).build()
}

/// Where a packet came out, related ones with their copy.
fn way(sent: &Sent) -> (Vec<PortNumber>, String) {
    (ports(sent), sent.last().map(|(_, frame)| tuple(frame)).unwrap_or_default())
}

#[test]
fn a_transfer_is_related_whatever_port_its_request_goes_to() {
    for port in [69, 6900] {
        let mut bench = Bench::new(&tables("", port));
        assert_eq!(bench.ports(1, &datagram(A, 4000, X, port, REQUEST)), [2]);
        let data = bench.send(2, &datagram(X, 3333, A, 4000, b"\0\x03\0\x01data"));
        assert_eq!(way(&data), (vec![4, 1], "src=203.0.113.9,dst=192.168.0.1,sport=3333,dport=4000".into()));
        assert_eq!(bench.ports(1, &datagram(A, 4000, X, 3333, b"\0\x04\0\x01")), [4, 2]);
        assert_eq!(
            bench.ports(2, &datagram(X, 3334, A, 4000, b"\0\x03\0\x01data")),
            NOWHERE,
            "one transfer a request"
        );
        assert!(bench.connections().iter().any(|line| line.ends_with("mark=7,helper=tftp")));
        bench.balance();
    }
}

#[test]
fn a_transfer_finds_its_client_behind_a_translated_port() {
    let mut bench = Bench::new(&tables(",nat(src=10.0.0.9:7000)", 69));
    assert_eq!(
        way(&bench.send(1, &datagram(A, 4000, X, 69, REQUEST))),
        (vec![2], "src=10.0.0.9,dst=203.0.113.9,sport=7000,dport=69".into())
    );
    let public = [10, 0, 0, 9];
    assert_eq!(
        bench.ports(2, &datagram([203, 0, 113, 8], 3333, public, 7000, b"\0\x03")),
        NOWHERE,
        "another server"
    );
    let data = bench.send(2, &datagram(X, 3333, public, 7000, b"\0\x03\0\x01data"));
    assert_eq!(way(&data), (vec![4, 1], "src=203.0.113.9,dst=192.168.0.1,sport=3333,dport=4000".into()));
    let acknowledged = bench.send(1, &datagram(A, 4000, X, 3333, b"\0\x04\0\x01"));
    assert_eq!(way(&acknowledged), (vec![4, 2], "src=10.0.0.9,dst=203.0.113.9,sport=7000,dport=3333".into()));
    // A request that is sent again is expected again.
    bench.send(1, &datagram(A, 4000, X, 69, REQUEST));
    assert_eq!(bench.ports(2, &datagram(X, 4444, public, 7000, b"\0\x03\0\x01data")), [4, 1]);
}

#[test]
fn what_is_no_request_expects_nothing() {
    for payload in [&b"\0\x03\0\x01data"[..], b"\0\x01", b"", b"\0\x01boot.img\0octet"] {
        let mut bench = Bench::new(&tables("", 69));
        bench.send(1, &datagram(A, 4000, X, 69, payload));
        assert_eq!(bench.ports(2, &datagram(X, 3333, A, 4000, b"\0\x03\0\x01data")), NOWHERE, "{payload:?}");
        assert_eq!(bench.0.worker().shard().expectations(), 0);
    }
}

#[test]
fn a_client_that_asks_from_every_port_leaves_room_for_another_until_it_is_flushed() {
    const SHARE: u16 = 8192;
    let mut bench = Bench::with(&tables("", 69), ShardConfig { capacity: 16_384, ..shard() });
    let flood = |bench: &mut Bench| {
        let now = bench.0.now();
        for port in 1..=SHARE + 10 {
            assert_eq!(ports(&bench.send_at(now, 1, &datagram(A, 10_000 + port, X, 69, REQUEST))), [2]);
        }
        assert_eq!(bench.0.worker().shard().expectations(), usize::from(SHARE));
    };
    flood(&mut bench);
    assert_eq!(bench.0.worker().shard().counters().expectations_refused_by_share, 10);
    let other = [192, 168, 0, 77];
    bench.send(1, &datagram(other, 4000, X, 69, REQUEST));
    assert_eq!(bench.ports(2, &datagram(X, 3333, other, 4000, b"\0\x03\0\x01data")), [4, 1]);
    assert_eq!(
        bench.ports(2, &datagram(X, 3333, A, 10_000 + SHARE + 1, b"\0\x03\0\x01data")),
        NOWHERE,
        "one too many"
    );

    let (now, mut cursor) = (bench.0.now(), DumpCursor::default());
    bench.0.worker().shard_mut().flush(now, &mut cursor, usize::MAX, &mut |_| true);
    let shard = bench.0.worker().shard();
    assert_eq!((shard.len(), shard.expectations(), shard.companions()), (0, 0, 0));
    flood(&mut bench);
    let later = bench.0.now() + 61_000;
    bench.0.advance(later);
    assert_eq!(bench.0.worker().shard().expectations(), 0);
    flood(&mut bench);
}

#[test]
fn ports_that_were_expected_and_taken_are_free_again_when_nobody_came() {
    let mut bench = Bench::new(&tables("", 69));
    bench.send(1, &datagram(A, 4000, X, 69, REQUEST));
    assert_eq!(bench.0.worker().shard().expectations(), 1);
    let later = bench.0.now() + 61_000;
    bench.0.advance(later);
    assert_eq!(bench.0.worker().shard().expectations(), 0);
    assert_eq!(bench.0.worker().shard().companions(), 0);
}
