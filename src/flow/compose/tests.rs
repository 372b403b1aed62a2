use std::process::Command as Process;

use weir_wire::{ChecksumTrust, Tuple};

use super::*;
use crate::flow::NoNames;

fn hex(frame: &[u8]) -> String {
    frame.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn frame(flow: &str) -> Vec<u8> {
    compose(flow, &Payload::default(), &NoNames).unwrap_or_else(|error| panic!("{flow}: {error}")).frame
}

/// What ovs-ofctl makes of it; `None` where it is not installed.
fn theirs(flow: &str, payload: Option<&str>) -> Option<String> {
    let output = Process::new("ovs-ofctl").arg("compose-packet").arg(flow).args(payload).output().ok()?;
    let text = String::from_utf8(output.stdout).unwrap();
    // It says so where it could not put everything in, and goes on.
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let dump = text.find("00000000  ").unwrap_or_else(|| panic!("{flow}: {text}{errors}"));
    let lines =
        text[dump..].lines().filter(|line| !line.is_empty()).map(|line| line[10..].replace(['-', ' '], ""));
    Some(lines.collect())
}

#[test]
fn packets_are_those_that_ovs_ofctl_composes() {
    let mut wrong = Vec::new();
    for flow in [
        "ip",
        "ipv6",
        "arp",
        "rarp",
        "dl_type=0x1234",
        "tcp",
        "udp",
        "icmp",
        "tcp6",
        "udp6",
        "icmp6",
        "in_port=3,tcp,dl_src=02:00:00:00:00:01,dl_dst=02:00:00:00:00:02,nw_src=10.1.1.1,nw_dst=10.1.1.2,tp_src=4000,tp_dst=80",
        "tcp,tcp_flags=2,nw_src=10.0.0.1,nw_dst=10.0.0.2,tp_src=65535,tp_dst=1,nw_ttl=64",
        "tcp,tcp_flags=16,nw_src=10.0.0.1,nw_dst=10.0.0.2",
        "tcp,tcp_flags=4",
        "tcp,tcp_flags=17",
        "udp,nw_tos=4,nw_ttl=3,nw_ecn=1,nw_src=192.168.0.1,nw_dst=8.8.8.8,udp_src=53,udp_dst=53",
        "icmp,icmp_type=8,icmp_code=0,nw_src=1.1.1.1,nw_dst=2.2.2.2",
        "icmp,icmp_type=0,icmp_code=0",
        "icmp,icmp_type=8,icmp_code=1",
        "icmp,icmp_type=3,icmp_code=1",
        "ip,nw_proto=47,nw_src=1.1.1.1",
        "ipv6,nw_proto=47",
        "ip,nw_proto=2",
        "tcp6,ipv6_src=fd00::1,ipv6_dst=fd00::2,tp_src=1,tp_dst=2,ipv6_label=0x12345,nw_ttl=9,nw_tos=8",
        "udp6,ipv6_src=fd00::1,ipv6_dst=fd00::2,udp_src=1,udp_dst=2",
        "arp,arp_op=1,arp_spa=10.0.0.1,arp_tpa=10.0.0.2,arp_sha=02:00:00:00:00:01,dl_dst=ff:ff:ff:ff:ff:ff",
        "arp,arp_op=2,arp_spa=10.0.0.1,arp_tpa=10.0.0.2,arp_sha=1:2:3:4:5:6,arp_tha=2:2:2:2:2:2",
        "vlan_tci=0x1005,ip",
        "dl_vlan=7,dl_vlan_pcp=3,udp,nw_src=1.2.3.4,nw_dst=4.3.2.1,udp_src=9,udp_dst=10",
        "ip,ip_frag=first",
        "tcp,ip_frag=later",
        "udp,ip_frag=later,nw_src=1.2.3.4",
        "udp,ip_frag=first,nw_src=1.2.3.4,nw_dst=4.3.2.1,udp_src=9,udp_dst=10",
        "tcp,ip_frag=first,nw_src=1.2.3.4,nw_dst=4.3.2.1,tp_src=9,tp_dst=10",
    ] {
        let Some(theirs) = theirs(flow, None) else {
            println!("skipped: needs ovs-ofctl (apt-get install openvswitch-common)");
            return;
        };
        let ours = hex(&frame(flow));
        if ours != theirs {
            wrong.push(format!("{flow}\n  ours {ours}\ntheirs {theirs}"));
        }
    }
    for (flow, payload) in [("udp,udp_dst=5", "abcdef"), ("tcp", "00"), ("icmp,icmp_type=8", "0102")] {
        let ours = compose(flow, &Payload::parse(payload).unwrap(), &NoNames).unwrap().frame;
        let theirs = theirs(flow, Some(payload)).unwrap();
        if hex(&ours) != theirs {
            wrong.push(format!("{flow} {payload}\n  ours {}\ntheirs {theirs}", hex(&ours)));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn what_ovs_ofctl_leaves_wrong_is_right() {
    let good = |flow: &str| {
        let frame = frame(flow);
        let layers = Layers::parse(&frame);
        Tuple::extract(&frame, &layers, 0, ChecksumTrust::NONE).unwrap().lookup().to_string()
    };
    // A checksum (RFC 9260 section 6.8), where ovs-ofctl has 0.
    assert_eq!(
        good("sctp,nw_src=1.1.1.1,nw_dst=2.2.2.2,tp_src=7,tp_dst=8"),
        "src=1.1.1.1,dst=2.2.2.2,sport=7,dport=8"
    );
    assert_eq!(good("sctp6,ipv6_src=::1,ipv6_dst=::2,tp_src=7,tp_dst=8"), "src=::1,dst=::2,sport=7,dport=8");
    let fragment = frame("udp6,ip_frag=first,ipv6_src=fd00::1,ipv6_dst=fd00::2,tp_src=5,tp_dst=6");
    let layers = Layers::parse(&fragment);
    assert_eq!(layers.fragment, weir_wire::Fragment::First);
    let whole = frame("udp6,ipv6_src=fd00::1,ipv6_dst=fd00::2,tp_src=5,tp_dst=6");
    assert_eq!(layers.l4_bytes(&fragment), Layers::parse(&whole).l4_bytes(&whole));
    assert_eq!(Layers::parse(&frame("tcp6,ip_frag=later")).fragment, weir_wire::Fragment::Later);
}

/// A neighbour message, which Debian's ovs-ofctl refuses to compose.
#[test]
fn the_composed_packet_is_matched_by_its_flow() {
    for flow in [
        "icmp6,icmp_type=135,icmp_code=0,ipv6_src=fd00::1,nd_target=fd00::2,nd_sll=02:00:00:00:00:01",
        "icmp6,icmp_type=136,icmp_code=0,nd_target=fd00::2,nd_tll=02:00:00:00:00:01",
        "icmp6,icmp_type=128,icmp_code=0,ipv6_src=fd00::1,ipv6_dst=fd00::2",
        "tcp,tcp_flags=+syn-ack,tp_src=5,nw_ttl=3",
        "ipv6,ip_frag=later,ipv6_src=fd00::1",
        "dl_vlan=5,arp,arp_op=2,arp_spa=1.2.3.4",
    ] {
        let frame = frame(flow);
        let mut key = Key::ZERO;
        crate::pipeline::extract::headers(&frame, &Layers::parse(&frame), &mut key);
        let matching = FlowMod::parse(flow, Command::Dump, &NoNames).unwrap().flow.matching;
        assert!(matching.matches(&key), "{flow}");
    }
}

#[test]
fn a_payload_is_bytes_or_a_length() {
    assert_eq!(Payload::parse("abCD").unwrap().0, [0xab, 0xcd]);
    assert_eq!(Payload::parse("/3").unwrap().0, [0, 1, 2]);
    assert_eq!(Payload::parse("ff00/5").unwrap().0, [0xff, 0, 0xff, 0, 0xff]);
    assert!(Payload::parse("").unwrap().0.is_empty());
    for wrong in ["abc", "zz", "/", "/x", "/65001", "1/"] {
        assert!(Payload::parse(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn mistakes_are_shown_and_nothing_is_composed() {
    for (flow, message) in [
        ("tpc", "unknown field 'tpc'; did you mean 'tcp'?"),
        ("mpls", "composing MPLS packets is part of the language but not supported here"),
        ("ip,actions=1", "a flow to select others has no actions; leave them out"),
    ] {
        let error = compose(flow, &Payload::default(), &NoNames).unwrap_err();
        assert_eq!(error.to_string(), message, "{flow}");
    }
}

#[test]
fn a_spoilt_checksum_is_the_ipv4_headers() {
    let good = frame("tcp");
    let mut bad = good.clone();
    spoil_checksum(&mut bad);
    assert_eq!(bad.iter().zip(&good).filter(|(a, b)| a != b).count(), 2);
    let mut other = frame("tcp6");
    spoil_checksum(&mut other);
    assert_eq!(other, frame("tcp6"));
}
