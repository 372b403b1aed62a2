//! The text of `dpctl/dump-flows`, Open vSwitch's and weir's, for the same packets through the same tables: the same
//! matches, attributes, order and actions. Left out is where weir's masks are wider on purpose: it ignores tags that no
//! flow asks for, and the ARP fields under `normal`.
#![allow(clippy::expect_used, clippy::panic)] // a test may; helpers here are only called by tests

mod support;

use std::time::Duration;

use support::Reference;
use weir_tools::ovs::OvsDummy;
use weir_tools::packet::{Body, Endpoint, Packet};
use weir_tools::script::Table;
use weir_tools::switch::Switch;
use weir_tools::weir::WeirSwitch;

/// How often a case that differs is tried once more: what Open vSwitch has replaced, rules and cached flows, is there until
/// all its threads have let go of it, and the rules' fields are looked at meanwhile.
const LETTING_GO: usize = 50;

fn packet(v6: bool, body: Body, change: impl FnOnce(&mut Packet)) -> Vec<u8> {
    let (src, dst) = if v6 { ("fd00::2", "2001:db8::2") } else { ("192.168.0.2", "198.51.100.2") };
    let end = |address: &str, port| Endpoint { address: address.parse().expect("an address"), port };
    let mut packet = Packet::new(end(src, 4000), end(dst, 53), body);
    packet.payload = 30;
    change(&mut packet);
    packet.frame([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
}

fn tcp(flags: u8) -> Body {
    Body::Tcp { flags, seq: 1, ack: 2, window: 100, scale: None, options: Vec::new() }
}

fn arp() -> Vec<u8> {
    let mut frame = [[0xff; 6], [2, 0, 0, 0, 0, 1]].concat();
    frame.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1]);
    frame.extend([192, 168, 0, 2, 0, 0, 0, 0, 0, 0, 198, 51, 100, 2]);
    frame.resize(60, 0);
    frame
}

/// Tables and the packets that come in at port 1.
fn cases() -> Vec<(String, Vec<Vec<u8>>)> {
    let udp = || packet(false, Body::Udp, |_| ());
    let syn = || packet(false, tcp(2), |_| ());
    let echo = |v6| packet(v6, Body::Echo { reply: false, code: 0 }, |_| ());
    let tagged = || packet(false, Body::Udp, |packet| packet.tag = Some(0x6005));
    let one = |flows: &str, frame| (flows.to_owned(), vec![frame]);
    let mut cases: Vec<_> = [Table::Acl, Table::Nat, Table::States]
        .iter()
        .flat_map(|table| {
            [vec![udp()], vec![udp(), udp()], vec![syn()], vec![echo(false)]]
                .map(|frames| (table.flows().to_owned(), frames))
        })
        .collect();
    let ports = "tcp,tcp_dst=53,actions=2\ntcp6,tcp_dst=53,actions=2\nudp,udp_src=4000,actions=2\nicmp,icmp_type=8,actions=2\n\
                 icmp6,icmp_type=128,actions=2";
    for frame in [syn(), udp(), echo(false), packet(true, tcp(2), |_| ()), echo(true)] {
        cases.push(one(ports, frame));
    }
    for flows in [
        "ip,nw_src=192.168.0.2/31,actions=2,10,in_port",
        "ip,nw_ttl=64,nw_tos=0,actions=2",
        "tcp,tcp_flags=+syn-ack,actions=2",
        "actions=drop",
        "dl_dst=02:00:00:00:00:02,actions=mod_dl_src:02:00:00:00:00:09,mod_dl_dst:02:00:00:00:00:08,2",
        "ip,actions=mod_nw_src:1.2.3.4,mod_nw_tos:32,dec_ttl,2",
        "tcp,actions=mod_tp_src:5,2,mod_tp_dst:6,10",
        "actions=mod_vlan_vid:7,2,strip_vlan,10",
        "actions=push_vlan:0x88a8,mod_vlan_pcp:3,2",
        "ip,actions=ct(commit,zone=5,exec(load:1->NXM_NX_CT_MARK[],load:2->NXM_NX_CT_LABEL[])),2",
        "ip,actions=ct(commit,force,zone=5,exec(set_field:0x1/0xff->ct_mark)),2",
        "ip,actions=ct(commit,nat(src=10.0.0.1-10.0.0.9:5-9,random)),ct(nat),ct(commit,nat(dst=10.0.0.1,hash,persistent)),2",
        "tcp,actions=ct(commit,alg=ftp),2",
        "ip,actions=ct(table=1,zone=9)\ntable=1,ct_state=+new-est+trk,ct_zone=9,ct_mark=0/0xf,ct_label=0,actions=2",
        "ip,actions=ct(table=1,zone=9)\ntable=1,ip,ct_state=+new,ct_nw_src=192.168.0.2,ct_nw_proto=6,actions=2",
        "ip,actions=ct(commit,exec(set_field:0x12->ct_mark,set_field:0x34->ct_label),table=1)\n\
         table=1,ct_mark=0x12,ct_label=0x34,actions=2",
    ] {
        cases.push(one(flows, syn()));
    }
    for flows in [
        "dl_vlan=5,actions=2",
        "dl_vlan_pcp=3,actions=2",
        "vlan_tci=0x1000/0x1000,actions=2",
        "actions=strip_vlan,2",
    ] {
        cases.push(one(flows, tagged()));
        cases.push(one(flows, syn()));
    }
    for flows in [
        "ipv6,ipv6_src=fd00::2/127,actions=2",
        "ipv6,ipv6_label=0,nw_ttl=64,nw_tos=0,actions=2",
        "ipv6,actions=set_field:fe80::1->ipv6_dst,set_field:5->ipv6_label,dec_ttl,2",
        "ipv6,actions=ct(commit,nat(src=[fd00::1]-[fd00::9]:5-9)),2",
        "ipv6,actions=ct(table=1)\ntable=1,ipv6,ct_state=+new,ct_ipv6_src=fd00::2,ct_nw_proto=17,ct_tp_dst=53,actions=2",
    ] {
        cases.push(one(flows, packet(true, Body::Udp, |_| ())));
    }
    for flows in [
        "arp,arp_spa=192.168.0.2,arp_op=1,actions=2",
        "arp,arp_tpa=198.51.100.2/31,arp_sha=02:00:00:00:00:01,arp_tha=00:00:00:00:00:00,actions=2",
        "arp,actions=drop",
    ] {
        cases.push(one(flows, arp()));
    }
    cases
}

/// What differs only by circumstance: recirculation numbers, and what was counted.
fn plain(lines: &[String]) -> Vec<String> {
    // Flows of later recirculations come later; both number upwards.
    let mut ids: Vec<u32> = lines
        .iter()
        .flat_map(|line| line.split(['(', ')', ',']))
        .filter_map(|word| word.strip_prefix("0x").and_then(|hex| u32::from_str_radix(hex, 16).ok()))
        .collect();
    ids.sort_unstable();
    ids.dedup();
    let mut plain: Vec<_> = lines
        .iter()
        .map(|line| {
            let mut line = line.clone();
            for id in &ids {
                for name in ["recirc_id", "recirc"] {
                    line = line.replace(&format!("{name}({id:#x})"), &format!("{name}(N)"));
                }
            }
            // Open vSwitch does not count the packet that made the flow.
            let statistics = line.find(", packets:").zip(line.find(", actions:"));
            if let Some((from, to)) = statistics {
                line.replace_range(from..to, "");
            }
            // It shows the bits of a tag that it does not look at.
            line.replace("vid=5/0x0", "vid=0/0x0").replace("pcp=3/0x0", "pcp=0/0x0")
        })
        .collect();
    plain.sort();
    plain
}

/// What both print for packets that come in at port 1, where that differs.
fn difference(ovs: &mut OvsDummy, weir: &mut WeirSwitch, flows: &str, frames: &[Vec<u8>]) -> Option<String> {
    ovs.load(flows).unwrap_or_else(|error| panic!("{flows}: {error}"));
    weir.load(flows).unwrap_or_else(|error| panic!("{flows}: {error}"));
    for frame in frames {
        ovs.inject(1, frame).expect("Open vSwitch lives");
        weir.inject(1, frame).expect("weir lives");
    }
    let theirs = plain(&ovs.flows().expect("lives"));
    let ours = plain(&weir.flows().expect("lives"));
    // Open vSwitch matches every field that it writes, so as not to write what is there already; weir writes.
    let writes = ours.iter().any(|line| line.contains("set("));
    let actions = |lines: &[String]| -> Vec<_> {
        lines.iter().filter_map(|line| line.split_once("actions:")).map(|(_, does)| does.to_owned()).collect()
    };
    let differs = theirs != ours && !(writes && actions(&theirs) == actions(&ours));
    differs.then(|| format!("{flows}\n  {}\n weir:\n  {}", theirs.join("\n  "), ours.join("\n  ")))
}

#[test]
fn megaflows_print_as_open_vswitch_prints_them() {
    let Some(mut reference) = Reference::start() else { return };
    let ovs = &mut reference.0;
    let mut weir = WeirSwitch::start().expect("weir starts");
    let mut failures = Vec::new();
    for (flows, frames) in cases() {
        let mut differs = difference(ovs, &mut weir, &flows, &frames);
        for _ in 0..LETTING_GO {
            if differs.is_none() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
            differs = difference(ovs, &mut weir, &flows, &frames);
        }
        failures.extend(differs);
    }
    assert!(failures.is_empty(), "{} differences\n{}", failures.len(), failures.join("\n"));
}
