//! Debian's Open vSwitch and weir with the same groups: groups must print alike, every frame that a group
//! without choice by hash sends must be the same, as must packets that are sent by hand.
#![allow(clippy::expect_used, clippy::panic)] // a test may; helpers here are only called by tests

mod support;

use support::Reference;
use weir_tools::packet::{Body, Endpoint, Packet};
use weir_tools::switch::Switch;
use weir_tools::weir::WeirSwitch;
use weir_wire::build::PacketBuilder;

const A: [u8; 6] = [2, 0, 0, 0, 0, 1];
const B: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// Groups, and the flows that name them.
const TABLES: &[(&str, &str, &str)] = &[
    (
        "all",
        "group_id=1,type=all,bucket=output:2,bucket=output:10,bucket=drop,bucket=output:11",
        "actions=group:1,output:12",
    ),
    (
        "each from the packet as it came",
        "group_id=1,type=all,bucket=mod_nw_dst:9.9.9.9,output:2,bucket=mod_nw_src:8.8.8.8,push_vlan:0x8100,output:10,\
         bucket=mod_tp_dst:77,dec_ttl,output:11,bucket=mod_dl_dst:02:00:00:00:00:77,strip_vlan,output:12",
        "priority=9,ip,actions=group:1,output:13\npriority=1,actions=group:1,output:13",
    ),
    (
        "changes in front stay",
        "group_id=1,type=all,bucket=mod_nw_dst:9.9.9.9,output:2,bucket=output:10",
        "ip,actions=mod_nw_dst:7.7.7.7,mod_vlan_vid:5,group:1,output:11",
    ),
    (
        "a set of actions",
        "group_id=1,type=all,bucket=output:2,mod_nw_dst:9.9.9.9,bucket=output:10,output:11,\
         bucket=resubmit(,2),output:12,bucket=resubmit(,1),resubmit(,2),bucket=ct_clear,ct(commit),\
         bucket=mod_nw_ttl:9,dec_ttl,output:13",
        "ip,actions=group:1\ntable=1,actions=output:21\ntable=2,actions=output:22",
    ),
    ("indirect", "group_id=7,type=indirect,bucket=mod_nw_dst:9.9.9.9,output:2", "ip,actions=group:7"),
    (
        "chains",
        "group_id=3,type=all,bucket=output:2,bucket=output:10\ngroup_id=2,type=indirect,bucket=mod_nw_src:7.7.7.7,group:3\n\
         group_id=1,type=all,bucket=group:2,bucket=group:3,bucket=output:11",
        "ip,actions=group:1",
    ),
    (
        "a register in a bucket",
        "group_id=1,type=all,bucket=set_field:1->reg0,resubmit(,1),bucket=resubmit(,1)",
        "actions=group:1,resubmit(,1)\ntable=1,reg0=1,actions=output:2\ntable=1,reg0=0,actions=output:10",
    ),
    (
        "an exit ends its bucket alone",
        "group_id=1,type=all,bucket=resubmit(,1),bucket=output:10",
        "actions=group:1,output:11\ntable=1,actions=output:2,exit,output:12",
    ),
    (
        "fast failover",
        "group_id=1,type=ff,bucket=watch_port:77,output:2,bucket=watch_port:10,output:10,bucket=watch_port:11,output:11\n\
         group_id=2,type=ff,bucket=watch_group:9,output:2,bucket=watch_group:1,output:12\n\
         group_id=3,type=ff,bucket=watch_port:77,output:2",
        "actions=group:1,group:2,group:3",
    ),
    (
        "nothing to do",
        "group_id=1,type=all\ngroup_id=2,type=all,bucket=mod_nw_ttl:7",
        "actions=group:1,group:2,output:2",
    ),
    (
        "tracked in a bucket",
        "group_id=1,type=all,bucket=ct(commit,zone=3,nat(dst=10.0.0.10),table=1),bucket=output:10",
        "ip,actions=group:1,output:11\ntable=1,ct_state=+trk+new+dnat,ip,ct_zone=3,actions=output:2\ntable=1,priority=1,actions=output:12",
    ),
    (
        "one server",
        "group_id=1,type=select,bucket=weight:5,output:2,bucket=weight:0,output:10",
        "actions=group:1",
    ),
];

fn frames() -> Vec<Vec<u8>> {
    let end = |address: &str, port| Endpoint { address: address.parse().expect("an address"), port };
    let mut frames = Vec::new();
    for (src, dst) in [("192.0.2.1", "192.0.2.2"), ("fd00::1", "fd00::2")] {
        for body in
            [Body::Udp, Body::Tcp { flags: 2, seq: 1, ack: 0, window: 100, scale: None, options: Vec::new() }]
        {
            let mut packet = Packet::new(end(src, 4000), end(dst, 53), body);
            packet.payload = 21;
            frames.push(packet.frame(A, B));
        }
    }
    frames.push(
        PacketBuilder::new()
            .ethernet(A, B)
            .vlan(0x6007)
            .ipv4([1, 1, 1, 1], [2, 2, 2, 2])
            .udp(1, 2)
            .pad_to(64)
            .build(),
    );
    frames.push(
        PacketBuilder::new()
            .ethernet(A, B)
            .arp(1, (A, [1, 1, 1, 1]), ([0; 6], [2, 2, 2, 2]))
            .pad_to(60)
            .build(),
    );
    frames
}

#[test]
fn groups_forward_alike() {
    let Some(mut reference) = Reference::start() else { return };
    let ovs = &mut reference.0;
    let mut weir = WeirSwitch::start().expect("weir starts");
    let mut failures = Vec::new();
    for (name, groups, flows) in TABLES {
        ovs.load("").unwrap_or_else(|error| panic!("{name}: {error}"));
        ovs.load_groups(groups).unwrap_or_else(|error| panic!("{name}: {error}"));
        ovs.load(flows).unwrap_or_else(|error| panic!("{name}: {error}"));
        weir.load_groups(groups).unwrap_or_else(|error| panic!("{name}: {error}"));
        weir.load(flows).unwrap_or_else(|error| panic!("{name}: {error}"));
        for frame in frames() {
            let theirs = ovs.inject(1, &frame).expect("Open vSwitch takes a frame");
            let ours = weir.inject(1, &frame).expect("weir takes a frame");
            if ours != theirs {
                failures.push(format!("{name}: {frame:02x?}\n  ours {ours:02x?}\ntheirs {theirs:02x?}"));
            }
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

/// Text alone: the choice of a select group is each switch's own. (Only actions that keep their words in the OpenFlow
/// 1.0 that ovs-ofctl dumps by.)
#[test]
fn groups_print_alike() {
    let Some(mut reference) = Reference::start() else { return };
    let ovs = &mut reference.0;
    let mut weir = WeirSwitch::start().expect("weir starts");
    let groups = "group_id=1,type=select,bucket=weight:10,actions=output:2,bucket=bucket_id:7,actions=output:10\n\
        group_id=2,type=select,selection_method=hash,fields(ip_src,tcp_dst=0xff),bucket=output:2\n\
        group_id=3,type=select,selection_method=hash,fields=ip_src,bucket=weight:1,output:2\n\
        group_id=4,type=select,selection_method=hash,fields(eth_src,vlan_tci,ipv6_src=ffff::,reg0,in_port,nw_dst=255.255.0.0),bucket=output:2\n\
        group_id=5,type=select,selection_method=dp_hash,selection_method_param=5,bucket=output:2,bucket=drop\n\
        group_id=6,type=select,selection_method=hash,bucket=output:2\n\
        group_id=7,type=select,bucket=weight:0,ct(commit,nat(dst=10.0.0.10),table=2),bucket=bucket_id:4,weight:5,watch_port:2,watch_group:3,mod_nw_dst:1.2.3.4,resubmit(,3)\n\
        group_id=4294967040,type=all,bucket=bucket_id:9,NORMAL,bucket=in_port,bucket=flood\n\
        group_id=9,type=all,bucket=load:5->NXM_OF_IP_TTL[],mod_nw_src:1.2.3.4,move:NXM_OF_IP_SRC[]->NXM_OF_IP_DST[],output:2";
    let groups = groups.replace("load:5->NXM_OF_IP_TTL[],", "load:5->NXM_NX_IP_TTL[],");
    ovs.load_groups(&groups).expect("Open vSwitch takes the groups");
    weir.load_groups(&groups).expect("weir takes the groups");
    weir.load("").expect("no flows");
    assert_eq!(weir.groups().expect("groups"), ovs.groups().expect("groups"));
}

#[test]
fn packets_sent_by_hand_come_out_alike() {
    let Some(mut reference) = Reference::start() else { return };
    let ovs = &mut reference.0;
    let mut weir = WeirSwitch::start().expect("weir starts");
    let flows = "in_port=1,reg2=0,actions=output:2\nin_port=1,reg2=7,actions=output:10\n\
        table=5,ip,ct_state=+trk+new,actions=output:11\ntable=5,priority=1,actions=output:12";
    let groups = "group_id=1,type=all,bucket=output:21,bucket=mod_dl_src:02:00:00:00:00:55,output:22";
    ovs.load("").expect("no flows");
    ovs.load_groups(groups).expect("groups");
    ovs.load(flows).expect("flows");
    weir.load_groups(groups).expect("groups");
    weir.load(flows).expect("flows");
    let mut failures = Vec::new();
    for frame in frames() {
        let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
        for actions in [
            "in_port=1 packet=HEX actions=table",
            "in_port=1 reg2=7 packet=HEX actions=table,output:13",
            "in_port=none packet=HEX actions=output:2,output:13",
            "in_port=1 packet=HEX actions=output:1,in_port",
            "in_port=1 packet=HEX actions=mod_dl_src:02:00:00:00:00:44,resubmit(,0),output:21",
            "in_port=77 packet=HEX actions=resubmit(,0),output:21",
            "in_port=controller packet=HEX actions=group:1,output:13",
            "in_port=1 packet=HEX",
        ] {
            let text = actions.replace("HEX", &hex);
            let theirs = ovs.packet_out(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
            let ours = weir.packet_out(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
            if ours != theirs {
                failures.push(format!("{text}\n  ours {ours:02x?}\ntheirs {theirs:02x?}"));
            }
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}
