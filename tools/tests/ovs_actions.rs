//! Debian's Open vSwitch and weir through the same tables of plain actions and matches: every frame that leaves must be
//! the same byte for byte, and every flow must have counted the same.
#![allow(clippy::expect_used, clippy::panic)] // a test may; helpers here are only called by tests

mod support;

use support::Reference;
use weir_tools::packet::{Body, Damage, Endpoint, Packet, protocol};
use weir_tools::switch::{Emission, Switch};
use weir_tools::weir::WeirSwitch;

const A: [u8; 6] = [2, 0, 0, 0, 0, 1];
const B: [u8; 6] = [2, 0, 0, 0, 0, 2];
const BROADCAST: [u8; 6] = [0xff; 6];

/// Tables, each fed with every frame of [`frames`] at ports 1 and 2.
const TABLES: &[(&str, &str)] = &[
    ("ethernet", "actions=mod_dl_src:02:aa:bb:cc:dd:01,mod_dl_dst:02:aa:bb:cc:dd:02,output:2"),
    ("ethernet, masked", "actions=load:0x55->NXM_OF_ETH_DST[8..15],output:2"),
    (
        "ipv4",
        "priority=9,ip,actions=mod_nw_src:1.2.3.4,mod_nw_dst:5.6.7.8,mod_nw_tos:32,output:2\n\
         priority=1,actions=output:10",
    ),
    (
        "ipv4 fields",
        "priority=9,ip,actions=load:10->NXM_OF_IP_SRC[24..31],set_field:9->ip_dscp,set_field:2->nw_ecn,\
         set_field:7->nw_ttl,output:2\npriority=1,actions=output:10",
    ),
    (
        "transport",
        "priority=9,tcp,actions=set_field:99->tcp_src,set_field:65535->tcp_dst,output:2\n\
         priority=9,udp,actions=mod_tp_src:1,mod_tp_dst:2,output:2\n\
         priority=9,tcp6,actions=set_field:99->tcp_src,set_field:65535->tcp_dst,output:2\n\
         priority=9,udp6,actions=mod_tp_src:1,mod_tp_dst:2,output:2\n\
         priority=9,sctp,actions=set_field:7->sctp_src,set_field:8->sctp_dst,output:2\n\
         priority=1,actions=output:10",
    ),
    (
        "icmp",
        "priority=9,icmp,actions=set_field:13->icmp_type,set_field:5->icmp_code,output:2\n\
         priority=9,icmp6,actions=set_field:1->icmpv6_type,set_field:5->icmpv6_code,output:2\n\
         priority=1,actions=output:10",
    ),
    (
        "addresses and ports together",
        "priority=9,tcp,actions=mod_nw_src:1.2.3.4,mod_tp_src:5,mod_dl_dst:02:00:00:00:00:09,dec_ttl,output:2\n\
         priority=9,udp,actions=mod_nw_dst:255.255.255.255,mod_tp_dst:65535,output:2\n\
         priority=9,udp6,actions=set_field:fe80::1->ipv6_dst,mod_tp_dst:65535,dec_ttl,output:2\n\
         priority=9,icmp,actions=mod_nw_src:1.2.3.4,set_field:3->icmp_code,output:2",
    ),
    (
        "an arp responder",
        "priority=9,arp,arp_op=1,actions=move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[],mod_dl_src:02:00:00:00:00:99,\
         load:2->NXM_OF_ARP_OP[],move:NXM_NX_ARP_SHA[]->NXM_NX_ARP_THA[],load:0x020000000099->NXM_NX_ARP_SHA[],\
         move:NXM_OF_ARP_SPA[]->NXM_NX_REG0[],move:NXM_OF_ARP_TPA[]->NXM_OF_ARP_SPA[],\
         move:NXM_NX_REG0[]->NXM_OF_ARP_TPA[],in_port\npriority=1,actions=output:10",
    ),
    (
        "ipv6",
        "priority=9,ipv6,actions=set_field:fe80::9->ipv6_src,set_field:fe80::8->ipv6_dst,set_field:0x12345->ipv6_label,\
         set_field:63->ip_dscp,set_field:1->nw_ecn,output:2\npriority=1,actions=output:10",
    ),
    (
        "ipv6, masked",
        "priority=9,ipv6,actions=set_field:fd00::/ffff::->ipv6_src,output:2\npriority=1,actions=output:10",
    ),
    (
        "neighbour discovery",
        "priority=9,icmp6,icmp_type=135,actions=set_field:fe80::77->nd_target,set_field:02:11:22:33:44:55->nd_sll,output:2\n\
         priority=9,icmp6,icmp_type=136,actions=set_field:fe80::77->nd_target,set_field:02:11:22:33:44:55->nd_tll,output:2\n\
         priority=1,actions=output:10",
    ),
    (
        "registers",
        "priority=9,tcp,actions=load:0x1234->NXM_NX_REG0[0..15],move:NXM_OF_TCP_SRC[]->NXM_NX_REG0[16..31],\
         move:NXM_NX_REG0[0..15]->NXM_OF_TCP_SRC[],move:NXM_NX_REG0[16..31]->NXM_OF_TCP_DST[],resubmit(,3)\n\
         priority=9,udp,actions=set_field:0x5/0xf->reg15,set_field:7->metadata,set_field:3->xreg2,resubmit(,3)\n\
         table=3,reg0=0x0fa01234,actions=output:2\n\
         table=3,reg15=5,metadata=7,reg5=3,reg4=0,actions=output:10\n\
         table=3,priority=1,actions=output:11",
    ),
    (
        "output to what a register says",
        "priority=9,ip,actions=load:10->NXM_NX_REG1[0..15],output:NXM_NX_REG1[0..15],load:1->NXM_NX_REG1[],\
         output:NXM_NX_REG1[],load:2->NXM_NX_REG1[],output:NXM_NX_REG1[0..15]\n\
         priority=1,actions=load:0xfff8->NXM_NX_REG1[],output:NXM_NX_REG1[0..15]",
    ),
    (
        "stack",
        "priority=9,ip,actions=push:NXM_OF_IP_SRC[],push:NXM_OF_IP_DST[],pop:NXM_OF_IP_SRC[],pop:NXM_OF_IP_DST[],output:2\n\
         priority=1,actions=pop:NXM_NX_REG0[],push:NXM_OF_ETH_SRC[],push:NXM_OF_ETH_DST[],pop:NXM_OF_ETH_SRC[],\
         pop:NXM_OF_ETH_DST[],output:10",
    ),
    (
        "ttl",
        "priority=9,ip,actions=dec_ttl,output:2\npriority=9,ipv6,actions=dec_ttl,output:2\npriority=1,actions=dec_ttl,output:10",
    ),
    ("ttl within a resubmit", "actions=resubmit(,1),output:11\ntable=1,actions=dec_ttl,output:2"),
    (
        "ttl to zero",
        "priority=9,ip,actions=set_field:1->nw_ttl,output:2,dec_ttl,output:10\npriority=1,actions=output:11",
    ),
    (
        "tables",
        "actions=set_field:0x1122334455667788->metadata,resubmit(,1),mod_dl_src:02:00:00:00:00:44,resubmit(,2),output:10\n\
         table=1,metadata=0x1122334455667788,actions=mod_dl_dst:02:00:00:00:00:55,output:2\n\
         table=2,dl_src=02:00:00:00:00:44,dl_dst=02:00:00:00:00:55,actions=resubmit(7,3)\n\
         table=2,priority=1,actions=output:21\n\
         table=3,in_port=7,actions=output:11,in_port\ntable=3,in_port=1,actions=output:12",
    ),
    (
        "goto_table",
        "priority=9,ip,actions=mod_nw_tos:64,goto_table:7\npriority=1,actions=goto_table:8\n\
         table=7,ip,nw_tos=64,actions=output:2\ntable=7,priority=1,actions=output:10",
    ),
    ("exit", "actions=output:2,resubmit(,1),output:10\ntable=1,actions=output:11,exit,output:12"),
    ("a circle", "actions=output:2,resubmit(,1)\ntable=1,actions=resubmit(,0)"),
    ("several ports", "actions=output:2,output:10,output:1,output:77,output:11,in_port,output:2"),
    ("flood", "actions=flood"),
    ("all", "actions=mod_dl_src:02:00:00:00:00:44,all,in_port"),
    (
        "a change between outputs",
        "priority=9,ip,actions=output:2,mod_nw_src:1.1.1.1,output:2,mod_nw_src:2.2.2.2,\
      mod_dl_src:02:00:00:00:00:44,output:10,output:2\npriority=1,actions=output:2,mod_dl_dst:02:00:00:00:00:44,output:2",
    ),
    (
        "a change and back",
        "priority=9,ip,actions=move:NXM_OF_IP_SRC[]->NXM_NX_REG0[],mod_nw_src:1.1.1.1,output:2,\
      move:NXM_NX_REG0[]->NXM_OF_IP_SRC[],output:10\npriority=1,actions=drop",
    ),
    ("a tag", "actions=push_vlan:0x8100,set_field:0x1005->vlan_vid,set_field:3->vlan_pcp,output:2"),
    ("an outer tag", "actions=push_vlan:0x88a8,set_field:0x1fff->vlan_vid,output:2"),
    ("no tag", "actions=strip_vlan,output:2"),
    ("a number for the tag", "actions=mod_vlan_vid:99,output:2"),
    ("a priority for the tag", "actions=mod_vlan_pcp:6,output:2"),
    ("number and priority", "actions=mod_vlan_pcp:6,mod_vlan_vid:1,output:2,strip_vlan,output:10"),
    (
        "resubmit in the same table",
        "in_port=1,actions=resubmit:9\nin_port=2,actions=resubmit(,4)\nin_port=9,actions=in_port,output:1\n\
      table=4,in_port=2,actions=resubmit(9),output:10\ntable=4,in_port=9,actions=output:11,resubmit(,5)\n\
      table=5,in_port=2,actions=output:12",
    ),
    ("in and out", "actions=push_vlan:0x8100,set_field:0x1005->vlan_vid,output:2,pop_vlan,output:10"),
    (
        "a field of the tag",
        "priority=9,vlan_tci=0x1000/0x1000,actions=set_field:0x1007->vlan_vid,output:2\npriority=1,actions=output:10",
    ),
    ("the whole tag", "actions=load:0x3005->NXM_OF_VLAN_TCI[],output:2,load:0->NXM_OF_VLAN_TCI[],output:10"),
    (
        "tags matched",
        "priority=9,dl_vlan=5,actions=output:2\npriority=8,vlan_tci=0x0000,actions=output:10\n\
         priority=7,dl_vlan_pcp=1,actions=output:11\npriority=6,vlan_tci=0x1000/0x1000,actions=output:12",
    ),
    (
        "fragments matched",
        "priority=9,ip,ip_frag=first,actions=output:2\npriority=9,ip,ip_frag=later,actions=output:10\n\
         priority=9,ipv6,ip_frag=first,actions=output:2\npriority=9,ipv6,ip_frag=later,actions=output:10\n\
         priority=8,udp,tp_dst=53,actions=output:11\npriority=7,ip,actions=output:12\npriority=6,ipv6,actions=output:13",
    ),
    (
        "bits matched",
        "priority=9,tcp,tcp_flags=+syn-ack,actions=output:2\npriority=9,tcp,tp_src=4000/0xfff0,actions=output:10\n\
         priority=8,ip,nw_ttl=1,actions=output:11\npriority=8,ip,nw_ecn=1,actions=output:12\n\
         priority=7,ip,nw_src=192.0.2.0/24,nw_proto=17,actions=output:13\n\
         priority=7,icmp,icmp_type=8,actions=output:21\npriority=7,ipv6,ipv6_src=fd00::/16,nw_proto=58,actions=output:22\n\
         priority=2,dl_type=0x05ff,actions=output:2\npriority=1,dl_dst=01:00:00:00:00:00/01:00:00:00:00:00,actions=output:10",
    ),
    (
        "arp and nd matched",
        "priority=9,arp,arp_spa=192.0.2.1,arp_op=1,actions=output:2\npriority=8,arp,arp_tha=00:00:00:00:00:00,actions=output:10\n\
         priority=9,icmp6,icmp_type=135,nd_target=fd00::2,nd_sll=02:00:00:00:00:01,actions=output:11\n\
         priority=8,icmp6,icmp_type=136,actions=output:12\npriority=7,rarp,actions=output:13",
    ),
    ("normal", "actions=normal"),
    ("normal after a change", "actions=mod_dl_src:02:00:00:00:00:44,normal"),
    (
        "tracked and on",
        "priority=9,ip,actions=ct(table=1),output:10\npriority=9,ipv6,actions=ct(table=1),output:10\n\
      priority=1,actions=output:12\n\
      table=1,ct_state=+new,ip,actions=ct(commit,exec(load:7->NXM_NX_CT_MARK[])),output:2\n\
      table=1,ct_state=+new,ipv6,actions=ct(commit,exec(load:7->NXM_NX_CT_MARK[])),output:2\n\
      table=1,ct_state=+inv,actions=output:13\ntable=1,ct_state=+est,ct_mark=7,actions=output:11",
    ),
    (
        "committed twice in two zones",
        "priority=9,ip,actions=ct(commit,zone=1,nat(src=10.0.0.9)),ct(commit,zone=2,nat(dst=10.0.0.8)),\
      output:2\npriority=1,actions=drop",
    ),
    (
        "tracked, changed, tracked",
        "priority=9,udp,actions=mod_nw_dst:9.9.9.9,ct(table=1)\ntable=1,udp,actions=mod_tp_dst:99,ct(table=2,zone=7)\n\
      table=2,ct_state=+new,ct_zone=7,nw_dst=9.9.9.9,udp,tp_dst=99,actions=ct_clear,resubmit(,3)\ntable=2,priority=1,actions=output:12\n\
      table=3,ct_state=-trk,actions=output:2\ntable=3,priority=1,actions=output:10",
    ),
    (
        "registers across a recirculation",
        "priority=9,ip,actions=set_field:5->reg3,set_field:9->metadata,ct(table=1)\n\
      table=1,reg3=5,metadata=9,actions=output:2\ntable=1,priority=1,actions=output:10",
    ),
    ("nothing", ""),
];

fn end(address: &str, port: u16) -> Endpoint {
    Endpoint { address: address.parse().expect("an address"), port }
}

fn ip(v6: bool, body: Body, change: impl FnOnce(&mut Packet)) -> Vec<u8> {
    let (src, dst) = if v6 { ("fd00::1", "fd00::2") } else { ("192.0.2.1", "192.0.2.2") };
    let mut packet = Packet::new(end(src, 4000), end(dst, 53), body);
    packet.payload = 21;
    change(&mut packet);
    packet.frame(A, B)
}

fn tcp(flags: u8) -> Body {
    Body::Tcp { flags, seq: 1, ack: 2, window: 100, scale: None, options: Vec::new() }
}

fn raw(to: [u8; 6], rest: &[u8]) -> Vec<u8> {
    let mut frame = [&to[..], &A, rest].concat();
    frame.resize(frame.len().max(60), 0);
    frame
}

/// A neighbour message of this type with the target fd00::2 and a link-layer address option of `option`.
fn neighbour(kind: u8, option: u8) -> Vec<u8> {
    let mut packet = Packet::new(end("fd00::1", 0), end("fd00::2", 0), Body::Icmp { kind, code: 0 });
    packet.ttl = 255;
    packet.payload = 24;
    let mut frame = packet.frame(A, B);
    let target: [u8; 16] = std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2).octets();
    frame[62..78].copy_from_slice(&target);
    frame[78..86].copy_from_slice(&[option, 1, 2, 0, 0, 0, 0, 1]);
    checksum(&mut frame);
    frame
}

/// Makes the ICMPv6 checksum of a frame right (RFC 4443 section 2.3).
fn checksum(frame: &mut [u8]) {
    frame[56..58].fill(0);
    let length = frame.len() - 54;
    let words =
        frame[22..].chunks(2).map(|two| u32::from(two[0]) << 8 | two.get(1).map_or(0, |b| u32::from(*b)));
    let mut sum = words.sum::<u32>() + 58 + u32::try_from(length).expect("small");
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let value = !u16::try_from(sum).expect("folded");
    frame[56..58].copy_from_slice(&value.to_be_bytes());
}

/// One of everything.
fn frames() -> Vec<(&'static str, Vec<u8>)> {
    let arp = |op: u8, to: [u8; 6]| {
        let mut body = vec![0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, op];
        body.extend(A);
        body.extend([192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 192, 0, 2, 2]);
        raw(to, &body)
    };
    let udp = |change: fn(&mut Packet)| ip(false, Body::Udp, change);
    // INIT, the chunk that starts an association (RFC 9260 section 3.3.2).
    let init = [1, 0, 0, 20, 0, 0, 0, 7, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1];
    let sctp = |damage| {
        let body = Body::Sctp { tag: 0, chunks: init.to_vec() };
        let mut frame = ip(false, body, |packet| packet.payload = 0);
        frame[42] ^= damage;
        frame
    };
    let (wrong_sctp, sctp) = (sctp(1), sctp(0));
    let mut frames = vec![
        ("tcp syn", ip(false, tcp(2), |_| ())),
        ("tcp ack", ip(false, tcp(16), |packet| packet.src.port = 4100)),
        ("udp", udp(|_| ())),
        ("udp without checksum", udp(|packet| packet.damage = vec![Damage::NoL4Checksum])),
        ("udp, wrong checksum", udp(|packet| packet.damage = vec![Damage::L4Checksum])),
        ("udp, wrong ip checksum", udp(|packet| packet.damage = vec![Damage::L3Checksum])),
        ("udp, ttl 1", udp(|packet| packet.ttl = 1)),
        ("udp, ttl 0", udp(|packet| packet.ttl = 0)),
        ("udp, options", udp(|packet| packet.option_words = 3)),
        ("udp, tagged", udp(|packet| packet.tag = Some(0x2005))),
        ("udp, priority-tagged", udp(|packet| packet.tag = Some(0x6000))),
        ("udp, first fragment", udp(|packet| packet.slice = Some((0, 16)))),
        ("udp, later fragment", udp(|packet| packet.slice = Some((16, 100)))),
        ("udp, cut", udp(|packet| packet.damage = vec![Damage::Cut(40)])),
        ("udp, in the ip header cut", udp(|packet| packet.damage = vec![Damage::Cut(30)])),
        ("udp, length beyond the frame", udp(|packet| packet.damage = vec![Damage::Longer(50)])),
        ("udp, header too short", udp(|packet| packet.damage = vec![Damage::HeaderWords(4)])),
        ("echo", ip(false, Body::Echo { reply: false, code: 0 }, |_| ())),
        ("gre", ip(false, Body::Other { protocol: protocol::GRE }, |_| ())),
        ("sctp", sctp),
        ("sctp, wrong checksum", wrong_sctp),
        ("tcp6", ip(true, tcp(2), |_| ())),
        ("udp6", ip(true, Body::Udp, |_| ())),
        ("udp6, hop limit 1", ip(true, Body::Udp, |packet| packet.ttl = 1)),
        (
            "udp6, options, tagged",
            ip(true, Body::Udp, |packet| {
                packet.extensions = vec![(60, 2)];
                packet.tag = Some(5);
            }),
        ),
        ("udp6, first fragment", ip(true, Body::Udp, |packet| packet.slice = Some((0, 16)))),
        ("udp6, later fragment", ip(true, Body::Udp, |packet| packet.slice = Some((16, 100)))),
        ("udp6, cut", ip(true, Body::Udp, |packet| packet.damage = vec![Damage::Cut(58)])),
        ("echo6", ip(true, Body::Echo { reply: false, code: 0 }, |_| ())),
        ("solicitation", neighbour(135, 1)),
        ("advertisement", neighbour(136, 2)),
        ("solicitation with another's option", neighbour(135, 2)),
        ("arp request", arp(1, BROADCAST)),
        ("arp reply", arp(2, B)),
        ("rarp", raw(BROADCAST, &[0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3])),
        ("another ethertype", raw(B, &[0x90, 0, 1, 2, 3])),
        ("an 802.3 length", raw(B, &[0, 46, 0x42, 0x42, 3])),
        ("a multicast", raw([1, 0, 0x5e, 0, 0, 1], &[0x90, 0])),
        ("a bridge protocol data unit", raw([1, 0x80, 0xc2, 0, 0, 0], &[0, 38, 0x42, 0x42, 3])),
        ("to itself", raw(A, &[0x90, 0])),
    ];
    // Two tags: an outer one in front of the tagged frame.
    let mut double = udp(|packet| packet.tag = Some(5));
    double.splice(12..12, [0x88, 0xa8, 0x00, 0x07]);
    frames.push(("two tags", double));
    frames
}

/// Where the two differ on purpose or Open vSwitch cannot be followed: table (or `*`), frame (or `*`), and why.
const DEVIATIONS: &[(&str, &str, &str)] = &[
    (
        "*",
        "two tags",
        "Open vSwitch's userspace datapath looks behind one tag (vlan-limit), weir behind two.",
    ),
    (
        "*",
        "udp, later fragment",
        "Open vSwitch changes a checksum that a later fragment does not have, in the middle of its payload.",
    ),
    ("*", "udp6, later fragment", "As udp, later fragment."),
    (
        "tracked and on",
        "sctp, wrong checksum",
        "Open vSwitch 3.1 does not verify SCTP's checksum; to weir, and to later ones, it is +inv.",
    ),
    ("committed twice in two zones", "sctp, wrong checksum", "As above: what is +inv is not translated."),
    ("committed twice in two zones", "udp, first fragment", INVALID),
    ("committed twice in two zones", "udp, wrong checksum", INVALID),
    ("committed twice in two zones", "udp, wrong ip checksum", INVALID),
    ("committed twice in two zones", "udp, cut", INVALID),
    ("committed twice in two zones", "udp, in the ip header cut", INVALID),
    ("committed twice in two zones", "udp, length beyond the frame", INVALID),
    ("committed twice in two zones", "udp, header too short", INVALID),
];

/// What is +inv has no connection, hence no translation.
const INVALID: &str = "Open vSwitch sends an invalid packet on with its private address where the flow would translate \
                       it; weir drops it (nat_invalid).";

fn excused(table: &str, frame: &str) -> bool {
    DEVIATIONS.iter().any(|(t, f, _)| [table, "*"].contains(t) && [frame, "*"].contains(f))
}

fn text(emissions: &[Emission]) -> String {
    let one = |emission: &Emission| {
        let hex: String = emission.frame.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{} {hex}", emission.port)
    };
    if emissions.is_empty() {
        "dropped".into()
    } else {
        emissions.iter().map(one).collect::<Vec<_>>().join("\n      ")
    }
}

/// The match and counters of a line of `dump-flows`.
fn counted(line: &str) -> String {
    let line = line.split(" actions=").next().unwrap_or_default();
    let timed = |part: &&str| {
        let part = part.trim_start();
        !["cookie=", "duration="].iter().any(|name| part.starts_with(name))
    };
    // The switch forgets on the wire what ovs-ofctl shows of its own flows; and a mask without a value in the tag's
    // free bit is written in two ways.
    let line = line
        .replace("reset_counts ", "")
        .replace(", reset_counts", "")
        .replace("vlan_tci=0x0000/0x1fff", "vlan_tci=0x0000");
    line.split(", ")
        .filter(timed)
        .collect::<Vec<_>>()
        .join(", ")
        .trim()
        .trim_end_matches([',', ' '])
        .to_owned()
}

#[test]
fn actions_and_matches_do_the_same_to_every_frame() {
    let Some(mut reference) = Reference::start() else { return };
    let ovs = &mut reference.0;
    let mut weir = WeirSwitch::start().expect("weir starts");
    let mut failures = Vec::new();
    let chosen = std::env::var("WEIR_TABLE").ok();
    for (name, flows) in TABLES.iter().filter(|(name, _)| chosen.as_ref().is_none_or(|one| one == name)) {
        ovs.load(flows).unwrap_or_else(|error| panic!("{name}: {error}"));
        weir.load(flows).unwrap_or_else(|error| panic!("{name}: {error}"));
        for port in [1, 2] {
            for (frame_name, frame) in frames() {
                if excused(name, frame_name) {
                    continue;
                }
                let theirs = ovs.inject(port, &frame).expect("Open vSwitch lives");
                let ours = weir.inject(port, &frame).expect("weir lives");
                if theirs != ours {
                    failures.push(format!(
                        "{name}: {frame_name} at port {port}:\n      {}\n    weir:\n      {}",
                        text(&theirs),
                        text(&ours)
                    ));
                }
            }
        }
        let mut theirs: Vec<_> = ovs.rules().expect("lives").iter().map(|line| counted(line)).collect();
        let mut ours: Vec<_> = weir.rules().expect("lives").iter().map(|line| counted(line)).collect();
        theirs.sort();
        ours.sort();
        if theirs != ours {
            failures.push(format!(
                "{name}: counters:\n  {}\n weir:\n  {}",
                theirs.join("\n  "),
                ours.join("\n  ")
            ));
        }
    }
    assert!(failures.is_empty(), "{} differences\n{}", failures.len(), failures.join("\n"));
}
