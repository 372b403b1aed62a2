//! What flow actions do to packets, for mistakes that were made once: found by the comparison with Open vSwitch, and kept
//! here for machines without it.
#![allow(clippy::unwrap_used)]

use weir::flow::port::PortNumber;
use weir::flow::{Command, FlowFile, NoNames};
use weir::pipeline::Frame;
use weir::replay::{VirtualSwitch, secret};
use weir_shard::ShardConfig;
use weir_wire::build::PacketBuilder;
use weir_wire::{Layers, checksum};

/// What leaves a switch with these flows when `frame` comes in at port 1.
fn through(flows: &str, frame: &[u8]) -> Vec<(PortNumber, Vec<u8>)> {
    let flows = FlowFile::parse("test", flows.as_bytes(), Command::Add, &NoNames).unwrap().flows;
    let shard = ShardConfig { capacity: 16, ..ShardConfig::default() };
    let mut switch = VirtualSwitch::new(&[1, 2, 3, 4], &flows, shard, secret(1)).unwrap();
    switch.inject(1, frame, 0);
    switch.take_sent().into_iter().map(|(port, frame)| (port, frame.bytes().to_vec())).collect()
}

fn udp() -> PacketBuilder {
    PacketBuilder::new().ipv4([192, 0, 2, 1], [192, 0, 2, 2]).udp(4000, 53).payload(&[7; 21])
}

#[test]
fn mod_vlan_actions_change_a_tag_or_add_one() {
    let flows = "actions=mod_vlan_vid:99,2,mod_vlan_pcp:6,3,strip_vlan,4";
    for frame in [udp().build(), udp().vlan(0x0005).build()] {
        let sent = through(flows, &frame);
        assert_eq!(sent[0], (2, udp().vlan(99).build()));
        assert_eq!(sent[1], (3, udp().vlan(6 << 13 | 99).build()));
        assert_eq!(sent[2], (4, udp().build()));
    }
}

#[test]
fn the_port_of_a_resubmit_is_for_the_look_up_only() {
    let flows = "in_port=1,actions=resubmit:9\nin_port=9,actions=in_port,1,2";
    let ports: Vec<_> = through(flows, &udp().build()).into_iter().map(|(port, _)| port).collect();
    // To port 1 by `in_port`; not by `1`, which is where the packet came from.
    assert_eq!(ports, [1, 2]);
}

#[test]
fn a_resubmit_without_a_table_stays_in_its_own() {
    let flows = "actions=resubmit(,4)\ntable=4,in_port=1,actions=resubmit:9\ntable=4,in_port=9,actions=2\n\
                 in_port=9,priority=9,actions=3";
    assert_eq!(through(flows, &udp().build()).len(), 1);
    assert_eq!(through(flows, &udp().build())[0].0, 2);
}

#[test]
fn resubmits_to_later_tables_do_not_count_as_deep() {
    let line = |table: u8| format!("table={table},actions=resubmit(,{})\n", table + 1);
    let flows: String = (0..200).map(line).collect::<String>() + "table=200,actions=2\n";
    assert_eq!(through(&flows, &udp().build()).len(), 1);
    let circle = "actions=2,resubmit(,1)\ntable=1,actions=resubmit(,0)";
    assert_eq!(through(circle, &udp().build()).len(), 0, "what goes in circles is dropped whole");
    let wide = flows.replace("table=200,actions=2", "table=200,actions=2,resubmit(,0)");
    assert_eq!(through(&wide, &udp().build()).len(), 0, "as is what fills the stack");
}

#[test]
fn an_sctp_checksum_is_touched_with_the_ports_only_and_a_wrong_one_stays_wrong() {
    let right = PacketBuilder::new().ipv4([1; 4], [2; 4]).sctp(1, 2, 3).payload(&[5; 8]).build();
    let mut wrong = right.clone();
    wrong[42] ^= 1;
    let is_right = |frame: &[u8]| checksum::l4_is_valid(frame, &Layers::parse(frame));
    for (frame, expected) in [(right, true), (wrong, false)] {
        let sent = through("sctp,actions=dec_ttl,2,mod_tp_dst:99,3", &frame);
        assert_eq!(sent[0].1[34..], frame[34..]);
        assert_eq!(is_right(&sent[1].1), expected);
    }
}
