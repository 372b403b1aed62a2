//! examples/acl.flows and examples/acl6.flows, end to end.

use core::net::Ipv6Addr;

use super::*;

const INSIDE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const OUTSIDE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 9);

#[test]
fn connections_from_inside_pass_both_ways_unchanged() {
    let mut bench = Bench::new(ACL);
    let first = syn(A, 4000, X, 80);
    assert_eq!(bench.through(&first), first);
    let answer = tcp(X, 80, A, 4000, flag::SYN | flag::ACK, 9, 1001);
    assert_eq!(bench.send(2, &answer), [(1, answer.clone())]);
    let third = tcp(A, 4000, X, 80, flag::ACK, 1001, 10);
    assert_eq!(bench.through(&third), third);
    bench.balance();
}

#[test]
fn connections_from_outside_do_not_pass() {
    let mut bench = Bench::new(ACL);
    assert_eq!(bench.ports(2, &syn(X, 4000, A, 80)), NOWHERE);
    assert_eq!(bench.ports(2, &udp(X, 4000, A, 80)), NOWHERE);
    assert!(bench.connections().is_empty());
    bench.balance();
}

#[test]
fn damaged_and_stray_packets_do_not_pass() {
    let mut bench = Bench::new(ACL);
    let mut damaged = syn(A, 4000, X, 80);
    damaged[40] ^= 1;
    assert_eq!(bench.ports(1, &damaged), NOWHERE);
    assert_eq!(bench.ports(1, &tcp(A, 4000, X, 80, flag::SYN | flag::ACK, 9, 9)), NOWHERE);
    assert_eq!(bench.dropped(DropCause::TableMiss), 2);
    assert!(bench.connections().is_empty());
}

#[test]
fn the_same_over_ipv6() {
    let mut bench = Bench::new(ACL6);
    let packet = |src, sport, dst, dport| PacketBuilder::new().ipv6(src, dst).udp(sport, dport).build();
    let first = packet(INSIDE, 4000, OUTSIDE, 53);
    assert_eq!(bench.ports(2, &packet(OUTSIDE, 53, INSIDE, 4000)), NOWHERE);
    assert_eq!(bench.through(&first), first);
    assert_eq!(bench.ports(2, &packet(OUTSIDE, 53, INSIDE, 4000)), [1]);
    assert_eq!(bench.ports(2, &packet(OUTSIDE, 53, INSIDE, 4001)), NOWHERE);
    let echo = PacketBuilder::new().ipv6(INSIDE, OUTSIDE).echo_request(5, 1).build();
    let reply = PacketBuilder::new().ipv6(OUTSIDE, INSIDE).echo_reply(5, 1).build();
    assert_eq!(bench.ports(2, &reply), NOWHERE);
    assert_eq!(bench.ports(1, &echo), [2]);
    assert_eq!(bench.ports(2, &reply), [1]);
    assert_eq!(bench.connections().len(), 2);
    bench.balance();
}
