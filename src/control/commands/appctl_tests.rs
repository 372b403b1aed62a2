//! The text of appctl's commands, which others' scripts read: each as Open vSwitch 3.1 prints it.

use super::testing::daemon;
use super::tests::{call_on, error, output};
use super::*;
use crate::control::engine::FailMode;

#[test]
fn statistics_of_connections_have_open_vswitchs_layout() {
    let (daemon, engine, _) = daemon();
    let mut others = engine.state().connections.clone();
    for (connection, protocol) in others.iter_mut().zip([17, 1, 47]) {
        let (src, dst) = ([10, 1, 1, 1].into(), [10, 1, 1, 2].into());
        connection.original = weir_wire::Tuple::new(src, dst, 1, 2, protocol, 1).unwrap();
        connection.state = weir_shard::ProtocolState::Other { answered: false };
    }
    engine.state().connections.extend(others);
    assert_eq!(
        call_on(&daemon, "appctl dpctl/ct-stats-show -m", &[]).0,
        "Connections Stats:\n    Total: 6\n  TCP: 3\n    Conn per TCP states:\n\t  [ESTABLISHED]=3\n  UDP: 1\n  ICMP: 1\n  Other: 1\n"
    );
    assert_eq!(output("appctl dpctl/ct-stats-show zone=9"), "Connections Stats:\n    Total: 0\n");
}

#[test]
fn a_connection_in_full_has_the_kernels_fields_and_both_states() {
    let text = output("appctl dpctl/dump-conntrack -m -s");
    let wanted = "sport=80,dport=40000),id=0,zone=1,status=0,timeout=86399,mark=1,labels=0x1,\
                  protoinfo=(state_orig=ESTABLISHED,state_reply=ESTABLISHED,wscale_orig=7,wscale_reply=7,\
                  flags_orig=WINDOW_SCALE,flags_reply=WINDOW_SCALE)";
    assert!(text.lines().all(|line| line.contains(wanted)), "{text}");
}

#[test]
fn tcp_sequence_checking_is_shown_and_switched() {
    let (daemon, _, _) = daemon();
    for (line, text) in [
        ("get", "TCP sequence checking: enabled\n"),
        ("disable", "disabling TCP sequence checking successful\n"),
        ("get", "TCP sequence checking: disabled\n"),
        ("enable", "enabling TCP sequence checking successful\n"),
        ("get", "TCP sequence checking: enabled\n"),
    ] {
        let line = format!("appctl dpctl/ct-{line}-tcp-seq-chk");
        assert_eq!(call_on(&daemon, &line, &[]), (text.to_owned(), End::default()));
    }
}

#[test]
fn buckets_print_in_rows_of_eight() {
    let text = output("appctl dpctl/ct-bkts");
    let rule = "+-----------+-----------------------------------------+\n";
    let title = "|  Buckets  |         Connections per Buckets         |\n";
    let head = format!("Total Buckets: 20\nCurrent Connections: 3\n\n{rule}{title}{rule}");
    assert_eq!(
        text,
        format!(
            "{head}   0..  7   |     .     1     2     3     4     5     6     7\n   \
             8.. 15   |     8     .     1     2     3     4     5     6\n  \
             16.. 23   |     7     8     .     1\n\n"
        )
    );
    let many = output("appctl dpctl/ct-bkts gt=7");
    assert_eq!(many.lines().filter(|line| line.contains("..")).count(), 2, "{many}");
    assert_eq!(output("appctl dpctl/ct-bkts gt=100"), "Total Buckets: 20\nCurrent Connections: 3\n\n");
    let json: serde_json::Value = serde_json::from_str(&output("appctl dpctl/ct-bkts --json")).unwrap();
    assert_eq!((&json["buckets"], &json["buckets_by_entries"]["8"]), (&20.into(), &2.into()));
}

#[test]
fn megaflows_in_full_show_every_field_and_an_identity_that_finds_them_again() {
    let full = output("appctl dpctl/dump-flows -m");
    let line = full.lines().nth(1).unwrap();
    for part in [
        "skb_priority(0/0),skb_mark(0/0),ct_state(0/0),ct_zone(0/0),ct_mark(0/0),ct_label(0/0),recirc_id(0),dp_hash(0/0),",
        "in_port(p1),packet_type(ns=0,id=0),eth(src=00:00:00:00:00:00/00:00:00:00:00:00,dst=",
        "ipv4(src=0.0.0.0/0.0.0.0,dst=0.0.0.0/0.0.0.0,proto=0/0,tos=0/0,ttl=0/0,frag=no)",
        ", dp:ovs, actions:ct,recirc(0x8)",
    ] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    assert!(output("appctl dpctl/dump-flows -m --no-names").contains("in_port(1),"));
    let ufid = line.split(',').next().unwrap();
    assert_eq!(ufid.len(), "ufid:01234567-89ab-cdef-0123-456789abcdef".len());
    assert!(output(&format!("appctl dpctl/get-flow {ufid}")).starts_with(ufid));
    let zero = "ufid:00000000-0000-0000-0000-000000000000";
    let gone = (2, "getting flow (No such file or directory)".into());
    assert_eq!(error(&format!("appctl dpctl/get-flow {zero}")), gone);
    assert_eq!(error("appctl dpctl/get-flow x"), (2, "parsing flow ufid (Invalid argument)".into()));
    let bridge = output("appctl dpif/dump-flows -m br0");
    assert!(
        bridge.starts_with(&format!("{ufid} skb_priority(0/0)")) && !bridge.contains("dp:ovs"),
        "{bridge}"
    );
}

#[test]
fn megaflows_are_chosen_by_what_they_may_match_by_lcore_and_by_bridge() {
    for (selection, count) in [
        ("", 2),
        ("filter=tcp", 2),
        ("filter=ipv6", 0),
        ("filter=in_port=1", 2),
        ("filter=in_port=p2", 0),
        ("pmd=1", 2),
        ("pmd=3", 0),
        ("type=ovs", 2),
        ("type=tc,offloaded", 0),
        ("netdev@weir type=all", 2),
    ] {
        let text = output(&format!("appctl dpctl/dump-flows {selection}"));
        assert_eq!(text.lines().filter(|line| line.contains("actions:")).count(), count, "{selection}");
    }
    for (line, message) in [
        ("dpctl/dump-flows type=x", "Failed to parse type (x) (Invalid argument)"),
        ("dpctl/dump-flows --bogus", "Unrecognized option --bogus"),
        ("dpif/dump-flows br9", "no such bridge"),
        ("dpif/dump-flows -m", "\"dpif/dump-flows\" command requires at least 1 arguments"),
    ] {
        assert_eq!(error(&format!("appctl {line}")), (2, message.to_owned()), "{line}");
    }
    let (status, message) = error("appctl dpctl/dump-flows filter=bogus=1");
    assert!(status == 2 && message.starts_with("Failed to parse filter (bogus=1: "), "{message}");
}

#[test]
fn learning_and_the_datapath_print_their_figures() {
    assert_eq!(
        output("appctl fdb/stats-show br0"),
        "Statistics for bridge \"br0\":\n  Current/maximum MAC entries in the table: 1/8192\n  \
         Current static MAC entries in the table : 0\n  Total number of learned MAC entries     : 3\n  \
         Total number of expired MAC entries     : 2\n  Total number of evicted MAC entries     : 0\n  \
         Total number of port moved MAC entries  : 1\n"
    );
    assert_eq!(output("appctl fdb/stats-clear"), "statistics successfully cleared\n");
    assert_eq!(output("appctl dpctl/dump-dps"), "netdev@weir\n");
    assert_eq!(output("appctl dpif/dump-dps"), "netdev@br0\n");
    assert_eq!(output("appctl coverage/read-counter nat_exhausted"), "3\n");
    let counter = (2, "No such counter\ndid you mean nat_exhausted?".into());
    assert_eq!(error("appctl coverage/read-counter nat_exhaust"), counter);
    let show = output("appctl dpctl/show -s");
    let port = "  port 1: p1 (net_null)\n    RX packets:7 errors:0 dropped:0 overruns:? frame:?\n    \
                TX packets:0 errors:0 dropped:0 aborted:? carrier:?\n    collisions:?\n    RX bytes:420  TX bytes:0\n    \
                note: the device has no MTU of its own\n";
    assert!(show.contains(port), "{show}");
    assert_eq!(
        output("appctl dpif-netdev/pmd-rxq-show -secs 5"),
        "pmd thread numa_id 0 core_id 1:\n  isolated : false\n  port: p1                queue-id:  0 (enabled)   \
               pmd usage: NOT AVAIL\n"
    );
    let (daemon, engine, _) = daemon();
    call_on(&daemon, "appctl revalidator/wait", &[]);
    assert!(!engine.state().purged);
    assert_eq!(call_on(&daemon, "appctl revalidator/purge", &[]), (String::new(), End::default()));
    assert!(engine.state().purged);
}

#[test]
fn a_bridges_fail_mode_is_set_shown_and_left_open() {
    let (daemon, engine, _) = daemon();
    let run = |line: &str| call_on(&daemon, line, &[]);
    let answer = |text: &str| (text.to_owned(), End::default());
    assert_eq!(run("vsctl get-fail-mode br0"), answer(""));
    assert_eq!(run("vsctl get Bridge br0 fail_mode"), answer("[]\n"));
    for line in [
        "vsctl set Bridge br0 fail_mode=secure",
        "vsctl set bridge br0 datapath_type=netdev fail-mode=secure",
    ] {
        assert_eq!(run(line), answer(""), "{line}");
        assert_eq!(engine.state().bridges[0].fail_mode, Some(FailMode::Secure));
    }
    assert_eq!(run("vsctl get-fail-mode br0"), answer("secure\n"));
    assert!(run("vsctl show").0.contains("    fail_mode: secure\n"));
    run("vsctl add-br br1 -- set Bridge br1 fail_mode=secure -- set-fail-mode br0 standalone");
    assert_eq!(run("vsctl get Bridge br1 fail_mode -- get-fail-mode br0"), answer("secure\nstandalone\n"));
    run("vsctl del-fail-mode br0");
    assert_eq!(engine.state().bridges[0].fail_mode, None);
    let words = "constraint violation: bogus is not one of the allowed values ([secure, standalone])";
    for (line, message) in [
        ("vsctl set bridge br0 fail_mode=bogus", words),
        ("vsctl set-fail-mode br0 bogus", "fail-mode must be \"standalone\" or \"secure\""),
        ("vsctl set-fail-mode br9 secure", "no bridge named br9"),
        ("vsctl get bridge br9 fail_mode", "no row \"br9\" in table bridge"),
        (
            "vsctl set Bridge br0 fail_mod=secure",
            "Bridge does not contain a column whose name matches \"fail_mod\"; did you mean fail_mode?",
        ),
    ] {
        assert_eq!(error(line), (1, message.to_owned()), "{line}");
    }
}
