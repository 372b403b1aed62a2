//! Packets sent by hand, through groups and the NAT table of a running daemon, as a script would.

use crate::rig::{Daemon, Scratch, bridge};

const NAT: &str = include_str!("../../examples/nat.flows");

#[test]
fn a_script_puts_composed_packets_through_the_nat_table_and_groups() {
    let scratch = Scratch::new("packet-out");
    scratch.write("flows", &format!("{NAT}table=7,ip,actions=group:1\n"));
    let servers: String =
        (10..12).map(|n| format!(",bucket=ct(commit,zone=9,nat(dst=10.0.0.{n}),table=8)")).collect();
    scratch.write("groups", &format!("group_id=1,type=select{servers}\n"));
    let config = bridge(&["net_null0,no-rx=1", "net_null1,no-rx=1"]);
    let daemon = Daemon::start(scratch, &config.replace("flows = ", "groups = \"groups\"\nflows = "));
    daemon.ok("ofctl add-flow br0 table=8,actions=2");
    let compose = |flow: &str| daemon.ok(&format!("ofctl compose-packet --bare {flow}")).trim().to_owned();
    let syn =
        compose("tcp,tcp_flags=2,nw_src=192.168.0.1,nw_dst=203.0.113.9,tp_src=4000,tp_dst=80,nw_ttl=64");
    assert_eq!(daemon.ok(&format!("ofctl packet-out br0 in_port=p1,packet={syn},actions=table")), "");
    let lines = daemon.ok("appctl dpctl/dump-conntrack");
    assert!(lines.starts_with("tcp,orig=(src=192.168.0.1,dst=203.0.113.9,sport=4000,dport=80)"), "{lines}");
    assert_eq!(daemon.port(2, "tx_packets"), 1);
    // 40 clients through the balancer, in the older form.
    for port in 0..40 {
        let packet = compose(&format!(
            "udp,nw_src=192.168.0.2,nw_dst=1.1.1.1,udp_src={},udp_dst=53,nw_ttl=9",
            5000 + port
        ));
        daemon.ok(&format!("ofctl packet-out br0 1 resubmit(,7) {packet} {packet}"));
    }
    assert_eq!(daemon.port(2, "tx_packets"), 81);
    let lines = daemon.ok("appctl dpctl/dump-conntrack zone=9");
    let to =
        |server: &str| lines.lines().filter(|line| line.contains(&format!("reply=(src={server},"))).count();
    let (ten, eleven) = (to("10.0.0.10"), to("10.0.0.11"));
    assert!(ten > 5 && eleven > 5 && ten + eleven == 40, "{ten} and {eleven}");
    let stats = daemon.json("ofctl dump-group-stats br0");
    assert_eq!((&stats[0]["packet_count"], &stats[0]["ref_count"]), (&80.into(), &1.into()));
    let trace = daemon.ok("appctl ofproto/trace br0 in_port=1,tcp,nw_src=192.168.0.9,nw_dst=1.1.1.1");
    assert!(trace.contains("    ct(commit,nat(src=10.0.0.1-10.0.0.255:5000-50000))\n"), "{trace}");
    // What is wrong changes and sends nothing.
    let long = "00".repeat(9000);
    for (line, message) in [
        (format!("ofctl packet-out br0 in_port=1,packet={long},actions=2"), "the packet cannot be sent"),
        (format!("ofctl packet-out br0 in_port=1,packet={syn},actions=group:9"), "OFPBAC_BAD_OUT_GROUP"),
        ("ofctl add-group br0 group_id=1,type=all,bucket=2".into(), "OFPGMFC_GROUP_EXISTS"),
    ] {
        let answer = daemon.weir(&line);
        assert!(answer.status == 1 && answer.stderr.contains(message), "{}", answer.stderr);
    }
    assert_eq!(daemon.port(2, "tx_packets"), 81);
    daemon.ok("ofctl del-groups br0");
    assert!(!daemon.ok("ofctl dump-flows br0").contains("group:1"));
    daemon.finish();
}

#[test]
fn a_group_file_that_is_wrong_is_told_before_anything_starts() {
    let scratch = Scratch::new("wrong-groups");
    scratch.write("groups", "group_id=1,typo=all\n");
    let config = bridge(&["net_null0,no-rx=1"]).replace("flows = ", "groups = \"groups\"\nflows = ");
    let config = format!("{}{config}", crate::rig::SMALL);
    let mut daemon =
        Daemon::spawn(scratch, &config, &mut std::process::Command::new(env!("CARGO_BIN_EXE_weir")), &[]);
    let (status, log) = daemon.wait();
    assert!(status == 2 && log.contains("groups:1:12: unknown word 'typo' in a group"), "{status}: {log}");
}
