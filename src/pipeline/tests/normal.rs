//! `normal`, the learning switch.

use super::*;

const FLOWS: &str = "actions=normal";
const STATION: [[u8; 6]; 3] = [[2, 0, 0, 0, 0, 0xa], [2, 0, 0, 0, 0, 0xb], [2, 0, 0, 0, 0, 0xc]];

fn frame(from: usize, to: usize) -> Vec<u8> {
    PacketBuilder::new().ethernet(STATION[from], STATION[to]).ipv4(A, B).udp(1, 2).build()
}

fn tagged(from: usize, to: usize, vlan: u16) -> Vec<u8> {
    PacketBuilder::new().ethernet(STATION[from], STATION[to]).vlan(vlan).ipv4(A, B).udp(1, 2).build()
}

#[test]
fn the_unknown_is_flooded_and_the_known_is_not() {
    let mut bench = Bench::new(FLOWS);
    assert_eq!(bench.ports(1, &frame(0, 1)), [2, 3, 4]);
    assert_eq!(bench.ports(2, &frame(1, 0)), [1]);
    assert_eq!(bench.ports(1, &frame(0, 1)), [2], "the flow made before the answer is not used again");
    bench.balance();
}

#[test]
fn a_station_that_moves_is_found_at_its_new_port_at_once() {
    let mut bench = Bench::new(FLOWS);
    bench.send(1, &frame(0, 1));
    for _ in 0..2 {
        assert_eq!(bench.ports(2, &frame(1, 0)), [1]);
    }
    bench.send(3, &frame(0, 2));
    assert_eq!(bench.ports(2, &frame(1, 0)), [3]);
    // And back, by a flow that was cached long ago.
    bench.send(1, &frame(0, 1));
    assert_eq!(bench.ports(2, &frame(1, 0)), [1]);
}

#[test]
fn a_frame_for_a_station_at_its_own_port_goes_nowhere() {
    let mut bench = Bench::new(FLOWS);
    bench.send(1, &frame(0, 2));
    assert_eq!(bench.ports(1, &frame(1, 0)), NOWHERE);
    assert_eq!(bench.dropped(DropCause::Normal), 1);
}

#[test]
fn stations_are_known_in_their_own_vlan_only() {
    let mut bench = Bench::new(FLOWS);
    bench.send(1, &tagged(0, 1, 5));
    assert_eq!(bench.ports(2, &tagged(1, 0, 5)), [1]);
    assert_eq!(bench.ports(2, &tagged(1, 0, 6)), [1, 3, 4]);
    assert_eq!(bench.ports(2, &frame(1, 0)), [1, 3, 4]);
    assert_eq!(bench.ports(2, &tagged(1, 0, 0x2005)), [1], "the priority does not tell VLANs apart");
}

#[test]
fn group_addresses_are_flooded_and_never_learned_and_the_reserved_are_dropped() {
    let mut bench = Bench::new(FLOWS);
    let to = |address| PacketBuilder::new().ethernet(STATION[0], address).ether_type(0x88b5).build();
    assert_eq!(bench.ports(1, &to([0xff; 6])), [2, 3, 4]);
    assert_eq!(bench.ports(1, &to([1, 0, 0x5e, 0, 0, 1])), [2, 3, 4]);
    let group = PacketBuilder::new().ethernet([1, 0, 0x5e, 0, 0, 2], STATION[0]).ether_type(0x88b5).build();
    bench.send(4, &group);
    assert_eq!(bench.ports(2, &to([1, 0, 0x5e, 0, 0, 2])), [1, 3, 4]);
    for last in [0, 0x0f] {
        assert_eq!(bench.ports(3, &to([1, 0x80, 0xc2, 0, 0, last])), NOWHERE);
    }
    assert_eq!(bench.ports(3, &to([1, 0x80, 0xc2, 0, 0, 0x10])), [1, 2, 4]);
    assert_eq!(bench.dropped(DropCause::Normal), 2);
}

#[test]
fn the_silent_are_forgotten_and_those_who_speak_through_cached_flows_are_not() {
    let mut bench = Bench::new(FLOWS);
    bench.send(1, &frame(0, 2));
    bench.send(2, &frame(1, 2));
    // Station 1 goes on speaking, by one cached flow; station 0 does not.
    for now in (0..=300_000).step_by(5_000) {
        bench.send_at(now, 2, &frame(1, 2));
    }
    assert_eq!(bench.ports(3, &frame(2, 1)), [2]);
    assert_eq!(bench.ports(3, &frame(2, 0)), [1, 2, 4]);
}

#[test]
fn a_port_that_goes_takes_its_stations_along() {
    let mut switch = crate::switch::Switch::default();
    switch.add_bridge("br", 0).unwrap();
    switch.add_port("br", "a", Some(1)).unwrap();
    let fdb = std::sync::Arc::clone(switch.bridge("br").unwrap().fdb());
    let station = crate::pipeline::fdb::Station { vlan: 0, mac: 0xa };
    fdb.learn(station, 1, 0);
    fdb.learn(crate::pipeline::fdb::Station { vlan: 0, mac: 0xb }, 2, 0);
    switch.delete_port("br", "a").unwrap();
    assert_eq!((fdb.port(station), fdb.rows(0).len()), (None, 1));
}
