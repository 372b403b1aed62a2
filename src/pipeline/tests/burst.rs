//! A burst comes out as its packets would one by one.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// One packet of a random sequence: who, what, at which port.
#[derive(Clone, Copy, Debug)]
struct Step {
    host: u8,
    peer: u8,
    kind: u8,
    inside: bool,
}

fn step() -> impl Strategy<Value = Step> {
    (0..3u8, 0..2u8, 0..8u8, prop::bool::weighted(0.7)).prop_map(|(host, peer, kind, inside)| Step {
        host,
        peer,
        kind,
        inside,
    })
}

impl Step {
    /// The packet; from outside it goes to an address that a translation may have given the host.
    fn frame(self, translated: bool) -> Vec<u8> {
        let host =
            if self.inside || !translated { [192, 168, 0, self.host] } else { [10, 0, 0, 1 + self.host] };
        let (peer, sport) = ([203, 0, 113, self.peer], 4000);
        let ends = if self.inside { (host, sport, peer, 80) } else { (peer, 80, host, sport) };
        let (src, sport, dst, dport) = ends;
        let flags = match self.kind {
            0 | 1 => flag::SYN,
            2 => flag::SYN | flag::ACK,
            3 => flag::ACK,
            4 => flag::ACK | flag::FIN,
            5 => flag::RST,
            6 => return udp(src, sport, dst, dport),
            _ => return PacketBuilder::new().ipv4(src, dst).echo_request(7, 1).build(),
        };
        tcp(src, sport, dst, dport, flags, 1000, 1000)
    }
}

/// Outputs by port, protocol and tuple, those of a connection in their order; and the connections in the end.
type Result = (BTreeMap<(PortNumber, u8, String), Vec<Vec<u8>>>, Vec<String>);

fn run(flows: &str, steps: &[Step], cuts: &[usize], translated: bool) -> Result {
    // No sequence numbers: the packets are random, and their connections are to live.
    let mut bench = Bench::with(flows, ShardConfig { liberal_tcp: true, ..shard() });
    let mut out: BTreeMap<_, Vec<_>> = BTreeMap::new();
    let mut pending: Vec<(PortNumber, Vec<u8>)> = Vec::new();
    let mut flush = |bench: &mut Bench, pending: &mut Vec<(PortNumber, Vec<u8>)>| {
        for (port, frame) in pending.drain(..) {
            bench.0.inject(port, &frame, 0);
        }
        for (port, frame) in bench.0.take_sent() {
            out.entry((port, frame.bytes()[23], tuple(frame.bytes())))
                .or_default()
                .push(frame.bytes().to_vec());
        }
    };
    for (index, step) in steps.iter().enumerate() {
        if cuts.contains(&index) {
            flush(&mut bench, &mut pending);
        }
        pending.push((if step.inside { 1 } else { 2 }, step.frame(translated)));
    }
    flush(&mut bench, &mut pending);
    bench.balance();
    let connections = bench.connections();
    (out, connections)
}

/// One address for each host, so that the choice does not depend on the order among connections.
const NAT_BY_HOST: &str = "table=0,ip,ct_state=-trk,action=ct(nat,table=1)
    table=1,in_port=1,ip,nw_src=192.168.0.0,ct_state=+trk+new,action=ct(nat(src=10.0.0.1),commit),2
    table=1,in_port=1,ip,nw_src=192.168.0.1,ct_state=+trk+new,action=ct(nat(src=10.0.0.2),commit),2
    table=1,in_port=1,ip,nw_src=192.168.0.2,ct_state=+trk+new,action=ct(nat(src=10.0.0.3),commit),2
    table=1,in_port=1,ip,ct_state=+trk+est,action=2
    table=1,in_port=1,ip,ct_state=+trk+inv,action=3
    table=1,in_port=2,ip,ct_state=+trk+est,action=1";

/// New connections take a way with one more ct than the others.
const LONG: &str = "table=0,ip,ct_state=-trk,action=ct(table=1)
    table=1,ip,ct_state=+trk+new,action=ct(commit,exec(set_field:1->ct_mark),table=2)
    table=1,ip,ct_state=+trk+est,ct_mark=1,action=resubmit(,3)
    table=1,ip,ct_state=+trk+inv,action=4
    table=2,ip,ct_mark=1,action=ct(table=4,zone=2)
    table=4,ip,action=ct(commit,zone=2),resubmit(,3)
    table=3,in_port=1,action=2
    table=3,in_port=2,action=1";

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_burst_comes_out_as_its_packets_would_one_by_one(
        steps in prop::collection::vec(step(), 1..64),
        cuts in prop::collection::vec(0..64usize, 0..8),
        which in 0..3usize,
    ) {
        let (flows, translated) = [(NAT_BY_HOST, true), (ACL, false), (LONG, false)][which];
        let every: Vec<usize> = (0..steps.len()).collect();
        let (bursts, single) = (run(flows, &steps, &cuts, translated), run(flows, &steps, &every, translated));
        prop_assert_eq!(bursts, single);
    }
}

#[test]
fn the_second_packet_of_a_new_connection_sees_it_open() {
    let mut bench = Bench::new(LONG);
    let (first, second) = (syn(A, 1, X, 2), tcp(A, 1, X, 2, flag::ACK, 1001, 1));
    let sent = bench.burst(1, &[&first, &second, &first, &second], 0);
    assert_eq!(sent.len(), 4);
    assert_eq!(bench.connections().len(), 2, "one in each zone");
}

#[test]
fn an_established_packet_does_not_overtake_the_retransmission_in_front_of_it() {
    let mut bench = Bench::new(ACL);
    let (first, second) = (syn(A, 1, X, 2), tcp(A, 1, X, 2, flag::ACK, 1001, 1));
    bench.through(&first);
    let sent = bench.burst(1, &[&first, &second], 0);
    assert_eq!(sent, [(2, first), (2, second)]);
}
