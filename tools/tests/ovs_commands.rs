//! Every command of appctl that both have, Open vSwitch's text beside weir's: after the same packets through the same
//! tables, and with the same mistakes. What differs on purpose stands here with its reason.
#![allow(clippy::expect_used, clippy::panic)] // a test may; helpers here are only called by tests

mod support;

use std::time::Duration;

use support::Reference;
use weir_tools::packet::{Body, Endpoint, Packet};
use weir_tools::switch::Switch;
use weir_tools::weir::WeirSwitch;

const FLOWS: &str = "\
table=0,priority=10,ip,ct_state=-trk,nw_src=10.1.1.1,actions=ct(commit,zone=1,exec(set_field:1->ct_mark,set_field:1->ct_label)),2
table=0,priority=10,tcp,ct_state=-trk,nw_src=10.1.1.3,actions=ct(commit,zone=5,alg=ftp,nat(src=10.9.9.9)),2
table=0,priority=9,ip,ct_state=-trk,actions=ct(commit),2
table=0,priority=1,actions=normal";

fn frame(source: &str, target: &str, ports: (u16, u16), body: Body) -> Vec<u8> {
    let end = |address: &str, port| Endpoint { address: address.parse().expect("an address"), port };
    Packet::new(end(source, ports.0), end(target, ports.1), body)
        .frame([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
}

fn tcp(flags: u8, seq: u32, ack: u32, scale: Option<u8>) -> Body {
    Body::Tcp { flags, seq, ack, window: 1000, scale, options: Default::default() }
}

/// TCP with and without scales, half open, established and picked up midway; UDP, ICMP and GRE, in three zones.
fn packets() -> Vec<(u32, Vec<u8>)> {
    let syn = |scale| tcp(0x02, 100, 0, scale);
    let answer = |scale| tcp(0x12, 500, 101, scale);
    let ack = || tcp(0x10, 101, 501, None);
    let echo = || Body::Echo { reply: false, code: 0 };
    let mut frames = vec![
        frame("10.1.1.1", "10.1.1.2", (40000, 80), syn(None)),
        frame("10.1.1.1", "10.1.1.2", (5000, 53), Body::Udp),
        frame("10.1.1.1", "10.1.1.2", (7, 0), echo()),
        frame("10.1.1.3", "10.1.1.2", (40001, 21), syn(None)),
        frame("10.1.1.4", "10.1.1.2", (40002, 80), syn(Some(7))),
        frame("10.1.1.4", "10.1.1.2", (5001, 53), Body::Udp),
        frame("10.1.1.4", "10.1.1.2", (8, 0), echo()),
        frame("10.1.1.6", "10.1.1.2", (1, 2), ack()),
    ];
    for (host, ours, theirs) in [
        ("10.1.1.7", Some(7), Some(7)),
        ("10.1.1.8", None, None),
        ("10.1.1.9", Some(0), Some(3)),
        ("10.1.1.10", Some(7), None),
    ] {
        frames.push(frame(host, "10.1.1.2", (1, 2), syn(ours)));
        frames.push(frame("10.1.1.2", host, (2, 1), answer(theirs)));
        frames.push(frame(host, "10.1.1.2", (1, 2), ack()));
    }
    frames.into_iter().map(|frame| (1, frame)).collect()
}

/// How a command's text is compared.
#[derive(Clone, Copy)]
enum Compare {
    /// Line by line.
    Exactly,
    /// In any order.
    Sorted,
    /// The first line: weir says below it what would help.
    FirstLine,
}

/// The daemon's name before a message, and names and numbers that are each one's own.
fn plain(answer: Result<String, String>, how: Compare) -> Result<Vec<String>, Vec<String>> {
    let lines = |text: String| {
        let mut lines: Vec<String> = text
            .lines()
            .map(|line| {
                let line = line.strip_prefix("ovs-vswitchd: ").unwrap_or(line).trim_end();
                let line = line.replace("dummy@ovs-dummy", "DATAPATH").replace("netdev@weir", "DATAPATH");
                line.replace("dummy@br0", "netdev@br0")
            })
            .collect();
        match how {
            Compare::Exactly => {}
            Compare::Sorted => lines.sort(),
            Compare::FirstLine => lines.truncate(1),
        }
        lines
    };
    answer.map(lines).map_err(|text| {
        let mut lines = lines(text);
        lines.truncate(1);
        lines
    })
}

#[test]
fn commands_print_as_open_vswitch_prints_them() {
    let Some(mut reference) = Reference::start() else { return };
    let ovs = &mut reference.0;
    let mut weir = WeirSwitch::start().expect("weir starts");
    use Compare::{Exactly, FirstLine, Sorted};
    // Names of the datapaths differ, so a line names neither.
    let lines: &[(Compare, &str)] = &[
        (Sorted, "dpctl/dump-conntrack"),
        (Sorted, "dpctl/dump-conntrack -m"),
        (Sorted, "dpctl/dump-conntrack -s"),
        (Sorted, "dpctl/dump-conntrack -m -s"),
        (Sorted, "dpctl/dump-conntrack zone=1"),
        (Sorted, "dpctl/dump-conntrack -s zone=5"),
        (Sorted, "dpctl/dump-conntrack zone=9"),
        (FirstLine, "dpctl/dump-conntrack bogus"),
        (FirstLine, "dpctl/dump-conntrack mark=1"),
        (Exactly, "dpctl/dump-conntrack -q"),
        (Exactly, "dpctl/ct-stats-show"),
        (Exactly, "dpctl/ct-stats-show -m"),
        (Exactly, "dpctl/ct-stats-show zone=1"),
        (Exactly, "dpctl/ct-stats-show zone=9"),
        (Exactly, "dpctl/ct-get-nconns"),
        (FirstLine, "dpctl/ct-get-nconns bogus"),
        (FirstLine, "dpctl/ct-bkts bogus"),
        (Exactly, "dpctl/ct-get-tcp-seq-chk"),
        (Exactly, "dpctl/ct-disable-tcp-seq-chk"),
        (Exactly, "dpctl/ct-get-tcp-seq-chk"),
        (Exactly, "dpctl/ct-enable-tcp-seq-chk"),
        (Exactly, "dpctl/ct-get-tcp-seq-chk"),
        (FirstLine, "dpctl/ct-get-tcp-seq-chk bogus"),
        (Exactly, "dpctl/ct-set-maxconns"),
        (Exactly, "dpctl/ct-set-maxconns x"),
        (FirstLine, "dpctl/ct-set-maxconns bogus 3"),
        (Exactly, "dpctl/ct-set-maxconns 4000"),
        (Exactly, "dpctl/ct-get-maxconns"),
        (Exactly, "dpctl/dump-dps"),
        (Exactly, "dpctl/dump-dps x"),
        (Exactly, "dpif/dump-dps"),
        (Exactly, "dpif/dump-flows"),
        (Exactly, "dpif/dump-flows br9"),
        (FirstLine, "dpctl/dump-flows bogus"),
        (Exactly, "dpctl/dump-flows --bogus"),
        (Exactly, "dpctl/dump-flows type=x"),
        (Exactly, "dpctl/dump-flows pmd=9"),
        (Exactly, "fdb/show br9"),
        (Exactly, "fdb/show"),
        (Exactly, "fdb/stats-show br0"),
        (Exactly, "fdb/stats-show br9"),
        (Exactly, "fdb/stats-show"),
        (Exactly, "fdb/stats-clear br0"),
        (Exactly, "fdb/stats-clear br9"),
        (Exactly, "fdb/flush br0"),
        (Exactly, "fdb/flush br9"),
        (Exactly, "fdb/flush"),
        (Exactly, "fdb/show br0"),
        (Exactly, "coverage/read-counter"),
        (FirstLine, "coverage/read-counter bogus"),
        (Exactly, "vlog/set bogus"),
        (Exactly, "vlog/set bogus:dbg"),
        (Exactly, "version x"),
        (Exactly, "bogus"),
        (Exactly, "list-commands x"),
        (Exactly, "dpif/show x"),
        (Exactly, "dpif-netdev/pmd-stats-clear"),
        (Exactly, "revalidator/wait"),
        (Exactly, "revalidator/wait x"),
        (Exactly, "revalidator/purge x"),
        (Exactly, "revalidator/purge"),
        (Exactly, "dpctl/dump-flows"),
        (Exactly, "dpif/dump-flows br0"),
    ];
    ovs.load(FLOWS).expect("Open vSwitch takes the flows");
    weir.load(FLOWS).expect("weir takes the flows");
    fill(ovs, &mut weir);
    let mut failures = Vec::new();
    for &(how, line) in lines {
        compare(ovs, &mut weir, line, how, &mut failures);
    }
    assert!(failures.is_empty(), "{} differences\n{}", failures.len(), failures.join("\n"));
}

fn fill(ovs: &mut weir_tools::ovs::OvsDummy, weir: &mut WeirSwitch) {
    for (port, frame) in packets() {
        ovs.inject(port, &frame).expect("Open vSwitch lives");
        weir.inject(port, &frame).expect("weir lives");
    }
}

fn compare(
    ovs: &mut weir_tools::ovs::OvsDummy,
    weir: &mut WeirSwitch,
    line: &str,
    how: Compare,
    failures: &mut Vec<String>,
) {
    let words: Vec<&str> = line.split(' ').collect();
    // The other's control socket hands an empty argument on as it stands.
    let words: Vec<&str> = words.iter().map(|word| if *word == "''" { "" } else { word }).collect();
    let theirs = plain(ovs.command("appctl", &words).expect("Open vSwitch lives"), how);
    let ours = plain(weir.command("appctl", &words).expect("weir lives"), how);
    if theirs != ours {
        failures.push(format!("{line}\n  Open vSwitch: {theirs:#?}\n  weir: {ours:#?}"));
    }
}

#[test]
fn flushes_take_the_connections_that_open_vswitch_takes() {
    let Some(mut reference) = Reference::start() else { return };
    let ovs = &mut reference.0;
    let mut weir = WeirSwitch::start().expect("weir starts");
    let mut failures = Vec::new();
    // Not here: an ICMP tuple that is not given in full, which 3.1 holds against nothing (its manual calls that a
    // limitation) and weir against what there is; zones beyond 65535, which 3.1 cuts and weir refuses; and hexadecimal
    // ones, of which 3.1 reads the 0.
    for line in [
        "",
        "zone=5",
        "zone=9",
        "zone=x",
        "zone=",
        "ct_nw_src=10.1.1.4",
        "zone=1 ct_nw_src=10.1.1.1",
        "zone=1 ct_nw_src=10.1.1.4",
        "ct_nw_proto=6",
        "ct_nw_proto=0x6,ct_tp_src=0x9c42",
        "ct_tp_dst=80,ct_nw_proto=6,ct_nw_dst=10.1.1.2",
        "ct_nw_src=10.1.1.4,ct_nw_dst=10.1.1.2,ct_nw_proto=1,icmp_type=8,icmp_code=0,icmp_id=8",
        "ct_nw_src=10.1.1.4 ct_nw_src=10.1.1.2",
        "ct_nw_src=10.1.1.4 ct_nw_src=10.1.1.99",
        "'' ct_nw_dst=10.9.9.9",
        "'' ''",
        ",ct_nw_src=10.1.1.4",
        "ct_ipv6_src=fd00::1",
        "bogus",
        "bogus=3",
        "ct_nw_src=",
        "ct_nw_src=x",
        "ct_nw_src=10.1.1.1/24",
        "ct_ipv6_src=x",
        "ct_nw_src=10.1.1.4,ct_ipv6_src=::1",
        "ct_ipv6_src=::1,ct_nw_src=1.1.1.1",
        "ct_nw_src=10.1.1.4,ct_nw_src=10.1.1.5",
        "ct_nw_proto=tcp",
        "ct_nw_proto=300",
        "ct_tp_src=40002",
        "ct_tp_src=70000",
        "icmp_id=8",
        "ct_nw_proto=6,icmp_id=8",
        "ct_nw_proto=1,icmp_type=300",
    ] {
        ovs.load(FLOWS).expect("Open vSwitch takes the flows");
        weir.load(FLOWS).expect("weir takes the flows");
        fill(ovs, &mut weir);
        // Its clock stands; both have the same.
        ovs.advance(Duration::from_millis(1)).expect("Open vSwitch lives");
        weir.advance(Duration::from_millis(1)).expect("weir lives");
        let command = format!("dpctl/flush-conntrack {line}");
        compare(ovs, &mut weir, command.trim_end(), Compare::Exactly, &mut failures);
        let sorted = |lines: Vec<String>| {
            let mut lines = lines;
            lines.sort();
            lines
        };
        let theirs = sorted(ovs.connections().expect("Open vSwitch lives"));
        let ours = sorted(weir.connections().expect("weir lives"));
        if theirs != ours {
            failures.push(format!("after {command}\n  Open vSwitch: {theirs:#?}\n  weir: {ours:#?}"));
        }
    }
    assert!(failures.is_empty(), "{} differences\n{}", failures.len(), failures.join("\n"));
}
