//! Header writes: every group of fields, with all checksums verified behind them.

use core::net::Ipv6Addr;

use weir_wire::numbers::protocol;

use super::*;

const C6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const D6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
const E6: &str = "2001:db8::ffff";

/// Sends a packet through `actions` and says what came out of it.
fn through(actions: &str, packet: &PacketBuilder) -> Vec<u8> {
    // What may be written depends on what is matched.
    let family = if Layers::parse(&packet.build()).is_ipv6() { "ipv6" } else { "ip" };
    let kind = if actions.contains("set_field") || actions.contains("load") { family } else { "priority=1" };
    let mut bench = Bench::new(&format!("{kind},actions={actions},2\n priority=0,actions=drop"));
    let out = bench.through(&packet.build());
    assert_eq!(bench.through(&packet.build()), out, "by the cached flow");
    bench.balance();
    out
}

fn v4() -> PacketBuilder {
    PacketBuilder::new().ipv4(A, X)
}

fn v6() -> PacketBuilder {
    PacketBuilder::new().ipv6(C6, D6)
}

/// What a flow would have to be written as for the packet to be the same without it.
fn same_as(actions: &str, packet: &PacketBuilder, expected: &PacketBuilder) {
    assert_eq!(through(actions, packet), expected.build(), "{actions}");
}

#[test]
fn ethernet_addresses() {
    let expected = v4().ethernet([2, 0, 0, 0, 0, 0x77], [2, 0, 0, 0, 0, 0x88]).udp(1, 2);
    same_as("set_field:02:00:00:00:00:77->eth_src,mod_dl_dst:02:00:00:00:00:88", &v4().udp(1, 2), &expected);
}

#[test]
fn ipv4_addresses_with_every_transport() {
    for (packet, expected) in [
        (v4().tcp(1, 2), PacketBuilder::new().ipv4(B, [10, 0, 113, 9]).tcp(1, 2)),
        (
            v4().udp(1, 2).payload(b"odd"),
            PacketBuilder::new().ipv4(B, [10, 0, 113, 9]).udp(1, 2).payload(b"odd"),
        ),
        (v4().sctp(1, 2, 3), PacketBuilder::new().ipv4(B, [10, 0, 113, 9]).sctp(1, 2, 3)),
        (v4().echo_request(7, 1), PacketBuilder::new().ipv4(B, [10, 0, 113, 9]).echo_request(7, 1)),
        (v4().protocol(47), PacketBuilder::new().ipv4(B, [10, 0, 113, 9]).protocol(47)),
        (
            v4().udp(1, 2).without_udp_checksum(),
            PacketBuilder::new().ipv4(B, [10, 0, 113, 9]).udp(1, 2).without_udp_checksum(),
        ),
    ] {
        same_as("mod_nw_src:192.168.0.2,load:0xa->nw_dst[24..31]", &packet, &expected);
    }
}

#[test]
fn type_of_service_and_time_to_live() {
    let packet = v4().tos(0x03).ttl(9).tcp(1, 2);
    same_as("mod_nw_tos:0x28", &packet, &v4().tos(0x2b).ttl(9).tcp(1, 2));
    same_as("set_field:1->nw_ecn", &packet, &v4().tos(0x01).ttl(9).tcp(1, 2));
    same_as("mod_nw_ttl:77", &packet, &v4().tos(0x03).ttl(77).tcp(1, 2));
    same_as("dec_ttl", &packet, &v4().tos(0x03).ttl(8).tcp(1, 2));
    let packet = v6().tos(0x13).ttl(9).tcp(1, 2);
    same_as("mod_nw_tos:0x28,dec_ttl,dec_ttl", &packet, &v6().tos(0x2b).ttl(7).tcp(1, 2));
}

#[test]
fn ipv6_addresses_and_flow_label_with_every_transport() {
    let e6: Ipv6Addr = E6.parse().unwrap();
    let actions = format!("set_field:{E6}->ipv6_src,set_field:0x54321->ipv6_label");
    let with = || PacketBuilder::new().ipv6(e6, D6).flow_label(0x54321);
    for (packet, expected) in [
        (v6().tcp(1, 2), with().tcp(1, 2)),
        (v6().udp(1, 2), with().udp(1, 2)),
        (v6().sctp(1, 2, 3), with().sctp(1, 2, 3)),
        (v6().echo_request(1, 2), with().echo_request(1, 2)),
    ] {
        same_as(&actions, &packet, &expected);
    }
    same_as(
        &format!("set_field:{E6}->ipv6_dst"),
        &v6().udp(1, 2),
        &PacketBuilder::new().ipv6(C6, e6).udp(1, 2),
    );
}

#[test]
fn ports_of_every_transport() {
    same_as("mod_tp_src:77,mod_tp_dst:88", &v4().tcp(1, 2), &v4().tcp(77, 88));
    same_as("mod_tp_src:77,mod_tp_dst:88", &v4().udp(1, 2), &v4().udp(77, 88));
    same_as("mod_tp_src:77,mod_tp_dst:88", &v6().udp(1, 2), &v6().udp(77, 88));
    same_as("mod_tp_src:77,mod_tp_dst:88", &v4().sctp(1, 2, 3), &v4().sctp(77, 88, 3));
}

#[test]
fn arp_fields() {
    let (mac, other) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 9]);
    let packet = PacketBuilder::new().arp(1, (mac, A), ([0; 6], X));
    let expected = PacketBuilder::new().arp(2, (other, B), (mac, A));
    let actions = "set_field:2->arp_op,set_field:02:00:00:00:00:09->arp_sha,set_field:192.168.0.2->arp_spa,\
                   set_field:02:00:00:00:00:01->arp_tha,set_field:192.168.0.1->arp_tpa";
    let mut bench = Bench::new(&format!("arp,actions={actions},2"));
    assert_eq!(bench.through(&packet.build()), expected.build());
}

#[test]
fn neighbour_discovery_fields() {
    let e6: Ipv6Addr = E6.parse().unwrap();
    let packet = v6().neighbour_solicitation(D6, [2, 0, 0, 0, 0, 1]);
    let expected = v6().neighbour_solicitation(e6, [2, 0, 0, 0, 0, 9]);
    let flow = format!(
        "icmp6,icmp_type=135,icmp_code=0,actions=set_field:{E6}->nd_target,set_field:02:00:00:00:00:09->nd_sll,2"
    );
    assert_eq!(Bench::new(&flow).through(&packet.build()), expected.build());
}

#[test]
fn icmp_type_and_code() {
    let flow = "icmp,actions=set_field:0->icmp_type,2";
    let out = Bench::new(flow).through(&v4().echo_request(7, 1).build());
    assert_eq!(out, v4().echo_reply(7, 1).build());
}

#[test]
fn a_packet_without_the_field_stays_as_it_is() {
    let arp = PacketBuilder::new().arp(1, ([2; 6], A), ([0; 6], X));
    same_as(
        "mod_nw_src:1.2.3.4,mod_nw_dst:1.2.3.4,mod_nw_tos:4,mod_nw_ttl:3,mod_tp_src:9,dec_ttl",
        &arp,
        &arp,
    );
    let icmp = v4().echo_request(7, 1);
    same_as("mod_tp_src:9,mod_tp_dst:9", &icmp, &icmp);
    let v6 = v6().udp(1, 2);
    same_as("mod_nw_src:1.2.3.4", &v6, &v6);
    same_as("strip_vlan", &v6, &v6);
    // A later fragment has no ports.
    let later = v4().fragment(7, 64, false).udp(0x4142, 0x4344);
    same_as("mod_tp_src:9,mod_tp_dst:9", &later, &later);
    // The other ICMP is opaque.
    let strange = v4().protocol(protocol::ICMPV6).payload(&[128, 0, 1, 2, 3, 4, 5, 6]);
    same_as("mod_tp_src:9", &strange, &strange);
    let moved =
        PacketBuilder::new().ipv4(B, X).protocol(protocol::ICMPV6).payload(&[128, 0, 1, 2, 3, 4, 5, 6]);
    same_as("mod_nw_src:192.168.0.2", &strange, &moved);
}

#[test]
fn a_cut_header_is_not_written_into_the_padding_behind_it() {
    // An IP packet of 20 + 4 bytes in a padded frame: the ports are there, the checksum is not.
    let packet = v4().protocol(protocol::TCP).payload(&[0, 1, 0, 2]).pad_to(60);
    let expected = PacketBuilder::new().ipv4(B, X).protocol(protocol::TCP).payload(&[0, 1, 0, 2]).pad_to(60);
    same_as("mod_tp_src:9,mod_nw_src:192.168.0.2", &packet, &expected);
}

#[test]
fn move_copies_between_headers() {
    let mut bench = Bench::new("udp,actions=move:udp_src->udp_dst,move:nw_src[0..7]->nw_dst[0..7],2");
    let out = bench.through(&v4().udp(7, 8).build());
    assert_eq!(out, PacketBuilder::new().ipv4(A, [203, 0, 113, 1]).udp(7, 7).build());
    let swap = "actions=push:eth_src,push:eth_dst,pop:eth_src,pop:eth_dst,2";
    let out = Bench::new(swap).through(&v4().ethernet([2; 6], [4; 6]).udp(7, 8).build());
    assert_eq!(out, v4().ethernet([4; 6], [2; 6]).udp(7, 8).build());
}

#[test]
fn tags_are_pushed_popped_and_rewritten() {
    let plain = v4().udp(1, 2);
    let tagged = |tci| v4().vlan(tci).udp(1, 2);
    same_as("push_vlan:0x8100,set_field:5->vlan_vid", &plain, &tagged(5));
    same_as("push_vlan:0x8100", &plain, &tagged(0));
    same_as("strip_vlan", &tagged(0x6005), &plain);
    same_as("mod_vlan_vid:9", &tagged(0x6005), &tagged(0x6009));
    same_as("mod_vlan_pcp:7", &tagged(0x6005), &tagged(0xe005));
    same_as("mod_vlan_vid:9", &plain, &tagged(9));
    same_as("mod_vlan_pcp:2", &plain, &tagged(0x4000));
    same_as("mod_vlan_pcp:2,mod_vlan_vid:9", &plain, &tagged(0x4009));
    same_as("load:0x1007->vlan_tci", &plain, &tagged(7));
    same_as("load:0->vlan_tci", &tagged(7), &plain);
    let double = v4().service_vlan(0x100).vlan(5).udp(1, 2);
    same_as("push_vlan:0x88a8,set_field:256->vlan_vid", &tagged(5), &double);
    same_as("strip_vlan", &double, &tagged(5));
    same_as("strip_vlan,strip_vlan", &double, &plain);
    same_as("strip_vlan,strip_vlan,mod_vlan_vid:4", &double, &tagged(4));
    let mut bench = Bench::new("actions=push_vlan:0x8100,2");
    assert_eq!(bench.ports(1, &double.build()), NOWHERE, "three tags do not fit");
    assert_eq!(bench.dropped(DropCause::VlanRoom), 1);
}

#[test]
fn each_output_gets_the_packet_as_it_was_then() {
    let mut bench = Bench::new(
        "udp,actions=2,mod_nw_src:192.168.0.2,3,push_vlan:0x8100,mod_tp_src:9,4,strip_vlan,in_port",
    );
    let sent = bench.send(1, &v4().udp(1, 2).build());
    let moved = || PacketBuilder::new().ipv4(B, X);
    let expected = [
        (2, v4().udp(1, 2).build()),
        (3, moved().udp(1, 2).build()),
        (4, moved().vlan(0).udp(9, 2).build()),
        (1, moved().udp(9, 2).build()),
    ];
    assert_eq!(sent, expected);
    bench.balance();
}

#[test]
fn written_fields_are_what_later_tables_match() {
    let flows = "ip,actions=mod_nw_src:192.168.0.2,mod_tp_dst:9,dec_ttl,resubmit(,1)
        table=1,udp,nw_src=192.168.0.2,tp_dst=9,nw_ttl=63,actions=ct(table=2)
        table=2,udp,nw_src=192.168.0.2,tp_dst=9,nw_ttl=63,ct_state=+new,actions=2";
    Bench::new(flows).through(&v4().udp(1, 2).build());
}
