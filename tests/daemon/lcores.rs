//! More than one lcore, and lcores that have nothing to do.

use std::collections::BTreeSet;
use std::process::Command;

use crate::rig::{Daemon, SMALL, Scratch, bridge, udp};

pub(crate) fn two_cpus() -> bool {
    let enough = std::thread::available_parallelism().is_ok_and(|count| count.get() > 1);
    if !enough {
        println!("skipped: two lcores need two CPUs");
    }
    enough
}

/// The packet that answers a frame of [`udp`].
pub(crate) fn answer_of(frame: &[u8]) -> Vec<u8> {
    let mut answer = frame.to_vec();
    for (to, from, length) in [(0, 6, 6), (26, 30, 4), (34, 36, 2)] {
        answer[to..to + length].copy_from_slice(&frame[from..from + length]);
        answer[from..from + length].copy_from_slice(&frame[to..to + length]);
    }
    answer
}

/// Tracks connections between addresses; counts packets that open one (1) and that belong to one (2).
const TRACKED: &str = "in_port=1,ip,ct_state=-trk,actions=ct(table=1)\n\
    table=1,cookie=1,ip,ct_state=+new,actions=ct(commit),2\n\
    table=1,cookie=2,ip,ct_state=+est,actions=2\n";

fn on_two_lcores(scratch: Scratch, flows: &str, devices: &[&str]) -> Daemon {
    scratch.write("flows", flows);
    let config = format!("lcores = \"0-1\"\n{SMALL}{}", bridge(devices));
    Daemon::start_as(scratch, &config, &mut Command::new(env!("CARGO_BIN_EXE_weir")), &[])
}

/// A figure of each lcore, or the sum of one over all reasons for which packets are exchanged.
pub(crate) fn figures(daemon: &Daemon, figure: &str) -> Vec<u64> {
    let lcores = daemon.json("appctl dpif-netdev/pmd-stats-show");
    let of = |lcore: &serde_json::Value| match lcore["exchange"].as_array() {
        _ if lcore[figure].is_u64() => lcore[figure].as_u64().unwrap(),
        reasons => reasons.unwrap().iter().map(|reason| reason[figure].as_u64().unwrap()).sum(),
    };
    lcores.as_array().unwrap().iter().map(of).collect()
}

#[test]
fn packets_of_a_queue_go_to_the_lcore_that_owns_their_connection_and_leave_there() {
    if !two_cpus() {
        return;
    }
    let scratch = Scratch::new("owners");
    // All by the one queue of lcore 0: each connection's first packet and, some packets behind, its answer. Their ports
    // differ in every bit, so that no key brings all to one owner: the hash is linear.
    let asked: Vec<_> = (1..=60).map(|n| udp(n, u16::from(n).wrapping_mul(0x9e37), 90)).collect();
    let frames: Vec<_> = asked.iter().cloned().chain(asked.iter().map(|frame| answer_of(frame))).collect();
    let source = format!(
        "net_pcap0,rx_pcap={},tx_pcap={},tx_pcap={}",
        scratch.capture("in.pcap", &frames),
        scratch.text("a.pcap"),
        scratch.text("b.pcap")
    );
    let sink = format!("net_pcap1,tx_pcap={},tx_pcap={}", scratch.text("x.pcap"), scratch.text("y.pcap"));
    let mut daemon = on_two_lcores(scratch, TRACKED, &[&source, &sink]);
    daemon.until("all packets", |daemon| daemon.port(2, "tx_packets") == 120);
    assert_eq!((daemon.packets(1), daemon.packets(2)), (60, 60), "both directions meet");
    // What lcore 0 sends and what lcore 1 does: together all, and of each connection both packets or none, in order.
    let halves = ["x.pcap", "y.pcap"].map(|name| daemon.scratch.frames(name));
    let at = |frame: &Vec<u8>, half: &Vec<Vec<u8>>| half.iter().position(|sent| sent == frame);
    for frame in &asked {
        let places = halves.each_ref().map(|half| (at(frame, half), at(&answer_of(frame), half)));
        let in_order = |(asked, answered): (Option<usize>, Option<usize>)| {
            asked.zip(answered).is_some_and(|(asked, answered)| asked < answered)
        };
        let nowhere = (None, None);
        let [first, second] = places;
        assert!(in_order(first) && second == nowhere || in_order(second) && first == nowhere, "{places:?}");
    }
    let over = halves[1].len() as u64;
    assert!(over > 0 && over < 120, "{over}");
    assert_eq!(halves[0].len() as u64 + over, 120);
    assert_eq!(figures(&daemon, "packets"), [120, 0], "lcore 1 polls nothing");
    assert_eq!(figures(&daemon, "handed_over"), [over, 0]);
    assert_eq!(figures(&daemon, "taken_over"), [0, over]);
    assert_eq!(figures(&daemon, "refused"), [0, 0]);
    let shown = daemon.ok("appctl dpif-netdev/pmd-stats-show");
    assert!(
        shown.contains(&format!("  packets handed over to other cores: {over} (steered {over})\n")),
        "{shown}"
    );
    assert!(
        shown.contains("  mailbox from core_id 0: ") && shown.contains(" of 1024 entries used"),
        "{shown}"
    );
    assert_eq!(daemon.ok("appctl dpctl/ct-get-nconns"), "60\n", "a dump adds the shards up");
    assert_eq!(daemon.ok("appctl dpctl/dump-conntrack").lines().count(), 60);
    assert_eq!(daemon.buffers(), 0);
    daemon.ok("appctl dpctl/ct-set-maxconns 7");
    assert_eq!(daemon.ok("appctl dpctl/ct-get-maxconns"), "7\n");
    daemon.ok("appctl dpctl/flush-conntrack");
    assert_eq!(daemon.ok("appctl dpctl/ct-get-nconns"), "0\n");
    // A port that does not have a transmit queue for each.
    let answer = daemon.weir("vsctl add-port br0 p3 options:dpdk-devargs=net_pcap3,tx_pcap=/dev/null");
    assert_eq!(answer.status, 1);
    assert!(
        answer.stderr.contains("1 transmit queues") && answer.stderr.contains("one tx_pcap a queue"),
        "{}",
        answer.stderr
    );
    daemon.finish();
}

#[test]
fn flows_that_track_nothing_leave_packets_where_they_are() {
    if !two_cpus() {
        return;
    }
    let scratch = Scratch::new("untracked");
    let halves: [Vec<_>; 2] = [1, 2].map(|half: u16| (0..40).map(|n| udp(n, half, 90)).collect());
    let source = format!(
        "net_pcap0,rx_pcap={},rx_pcap={},tx_pcap={},tx_pcap={}",
        scratch.capture("a.pcap", &halves[0]),
        scratch.capture("b.pcap", &halves[1]),
        scratch.text("c.pcap"),
        scratch.text("d.pcap")
    );
    let sink = format!("net_pcap1,tx_pcap={},tx_pcap={}", scratch.text("x.pcap"), scratch.text("y.pcap"));
    let mut daemon = on_two_lcores(scratch, "in_port=1,actions=2\n", &[&source, &sink]);
    daemon.until("all packets", |daemon| daemon.port(2, "tx_packets") == 80);
    assert_eq!(["x.pcap", "y.pcap"].map(|name| daemon.scratch.frames(name)), halves);
    assert_eq!((figures(&daemon, "packets"), figures(&daemon, "handed_over")), (vec![40, 40], vec![0, 0]));
    daemon.finish();
}

#[test]
fn ports_with_one_queue_are_dealt_to_the_lcores() {
    if !two_cpus() {
        return;
    }
    let scratch = Scratch::new("dealt");
    let halves: [Vec<_>; 2] = [1, 2].map(|half: u16| (0..40).map(|n| udp(n, half, 90)).collect());
    let [one, two] = [0, 1].map(|n| {
        let capture = scratch.capture(&format!("{n}.pcap"), &halves[n]);
        format!("net_pcap{n},rx_pcap={capture},tx_pcap=/dev/null,tx_pcap=/dev/null")
    });
    let sink = format!("net_pcap2,tx_pcap={},tx_pcap={}", scratch.text("x.pcap"), scratch.text("y.pcap"));
    let flows = "in_port=1,actions=3\nin_port=2,actions=3\n";
    let mut daemon = on_two_lcores(scratch, flows, &[&one, &two, &sink]);
    daemon.until("all packets", |daemon| daemon.port(3, "tx_packets") == 80);
    assert_eq!(["x.pcap", "y.pcap"].map(|name| daemon.scratch.frames(name)), halves);
    assert_eq!(figures(&daemon, "packets"), [40, 40]);
    daemon.finish();
}

#[test]
fn a_port_that_goes_while_its_packets_are_under_way_between_lcores_leaves_no_buffer_behind() {
    if !two_cpus() {
        return;
    }
    let scratch = Scratch::new("underway");
    // Without end, as fast as lcore 0 can.
    let frames: Vec<_> = (1..=60).map(|n| udp(n, u16::from(n).wrapping_mul(0x9e37), 90)).collect();
    let source = format!(
        "net_pcap0,rx_pcap={},tx_pcap=/dev/null,tx_pcap=/dev/null,infinite_rx=1",
        scratch.capture("in.pcap", &frames)
    );
    let sink = "net_null0,no-rx=1";
    let mut daemon = on_two_lcores(scratch, TRACKED, &[&source, sink]);
    for round in 1..=3 {
        // Some are refused where lcore 1 does not keep up: the more are under way.
        daemon.until("packets on both", |daemon| figures(daemon, "taken_over")[1] > 2000 * round);
        daemon.ok("vsctl del-port br0 p1");
        assert_eq!(daemon.buffers(), 0);
        let (over, taken) = (figures(&daemon, "handed_over"), figures(&daemon, "taken_over"));
        assert_eq!(over[0], taken[1], "all that was handed over has arrived");
        daemon.ok(&format!(
            "vsctl add-port br0 p1 -- set Interface p1 ofport_request=1 options:dpdk-devargs={source}"
        ));
    }
    // It ends in order under full load, too.
    daemon.finish();
}

#[test]
fn limits_smaller_than_the_number_of_lcores_hold_for_all_of_them_together() {
    if !two_cpus() {
        return;
    }
    let scratch = Scratch::new("two-limits");
    let tables = "in_port=1,udp,tp_src=1,actions=ct(commit,zone=3),2\n\
                  in_port=1,udp,tp_src=2,actions=ct(commit,zone=3),2\n\
                  in_port=1,udp,tp_src=3,actions=ct(commit,zone=4),2\n";
    scratch.write("flows", tables);
    // Both queues bring connections of zone 3, the second one zone 4's too.
    let captures = [vec![1], vec![2, 3]].map(|ports: Vec<u16>| {
        ports.iter().flat_map(|&port| (0..40).map(move |n| udp(n, port, 90))).collect::<Vec<_>>()
    });
    let inputs = [scratch.capture("a.pcap", &captures[0]), scratch.capture("b.pcap", &captures[1])];
    let source = format!("net_pcap0,rx_pcap={},rx_pcap={}", inputs[0], inputs[1]);
    let settings = "[[conntrack.zone]]\nid = 3\nlimit = 1\n[pool]";
    let small = SMALL.replace("capacity = 1000\n", "capacity = 1000\nmax_connections = 31\n");
    let ports = bridge(&[&source, "net_null0,no-rx=1"]);
    let config = format!("lcores = \"0-1\"\n{}{ports}", small.replace("[pool]", settings));
    let mut weir = Command::new(env!("CARGO_BIN_EXE_weir"));
    let mut daemon = Daemon::start_as(scratch, &config, &mut weir, &[]);
    daemon.until("all packets", |daemon| daemon.port(2, "tx_packets") == 120);
    // One lcore may have nearly all that there may be.
    assert_eq!(daemon.ok("appctl dpctl/ct-get-nconns"), "31\n");
    assert_eq!(daemon.ok("appctl dpctl/ct-get-maxconns"), "31\n");
    let limits = daemon.ok("appctl dpctl/ct-get-limits zone=3,4");
    assert_eq!(limits, "default limit=0\nzone=3,limit=1,count=1\nzone=4,limit=0,count=30\n");
    let counted = |daemon: &Daemon, name: &str| {
        let lines = daemon.ok("appctl coverage/show");
        lines.lines().find(|line| line.starts_with(name)).map(str::to_owned)
    };
    for (name, count) in [("conntrack_refused_by_zone_limit", " 79"), ("conntrack_refused_by_limit", " 10")] {
        let line = counted(&daemon, name).unwrap();
        assert!(line.contains(count), "{line}");
    }
    let answer = daemon.weir("appctl dpctl/ct-set-maxconns 1001");
    assert!(answer.stderr.contains("memory for 1000 connections"), "{}", answer.stderr);
    daemon.finish();
}

#[test]
fn lcores_that_are_counted_run_on_cpus_of_their_own_and_the_topology_shows_where() {
    if !two_cpus() {
        return;
    }
    let config = format!("lcores = \"auto:2\"\n{SMALL}{}", bridge(&["net_null0,no-rx=1", "net_ring0"]));
    let mut weir = Command::new(env!("CARGO_BIN_EXE_weir"));
    let daemon = Daemon::start_as(Scratch::new("topology"), &config, &mut weir, &[]);
    let report = daemon.json("show topology");
    let lcores = report["lcores"].as_array().unwrap();
    let cpus: BTreeSet<_> = lcores.iter().map(|lcore| lcore["cpu"].as_u64().unwrap()).collect();
    assert_eq!(cpus.len(), 2, "{report}");
    for lcore in lcores {
        assert_eq!(lcore["may_run_on"], lcore["cpu"].to_string(), "pinned");
        let nodes = report["nodes"].as_array().unwrap();
        assert!(nodes.iter().any(|node| node["node"] == lcore["node"]));
        // Nothing is touched yet but perhaps a page; whatever is, is where it should be.
        for node in lcore["memory"]["nodes"].as_object().into_iter().flat_map(|nodes| nodes.keys()) {
            assert_eq!(*node, lcore["node"].to_string());
        }
    }
    assert_eq!(report["ports"].as_array().map(Vec::len), Some(2));
    assert_eq!(report["warnings"], serde_json::json!([]));
    let text = daemon.ok("show topology");
    assert!(text.contains(", pinned\n") && text.contains("port p1: net_null, no node; "), "{text}");
    daemon.finish();
}

#[test]
fn without_a_daemon_the_machine_is_shown_alone() {
    let show = |args: &[&str]| {
        let mut weir = Command::new(env!("CARGO_BIN_EXE_weir"));
        weir.args(["show", "topology", "--socket", "/nonexistent/weir.sock"]).args(args).output().unwrap()
    };
    let text = show(&[]);
    assert!(text.status.success());
    assert!(String::from_utf8_lossy(&text.stdout).starts_with("node 0: "));
    assert!(String::from_utf8_lossy(&text.stderr).contains("no daemon answers at /nonexistent/weir.sock"));
    let json: serde_json::Value = serde_json::from_slice(&show(&["--json"]).stdout).unwrap();
    assert!(!json["nodes"].as_array().unwrap().is_empty());
    assert_eq!(json["lcores"], serde_json::json!([]));
}

#[test]
fn cpus_that_are_not_there_are_named() {
    let config = format!("lcores = \"1000\"\n{SMALL}{}", bridge(&["net_null0,no-rx=1"]));
    let mut daemon =
        Daemon::spawn(Scratch::new("nocpu"), &config, &mut Command::new(env!("CARGO_BIN_EXE_weir")), &[]);
    let (code, log) = daemon.wait();
    assert_eq!(code, 1);
    assert!(log.contains("CPU 1000 is not online; online are"), "{log}");
}

/// Ticks of CPU time that a process has used, and ticks a second.
fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn an_idle_lcore_of_profile_lab_leaves_its_cpu_to_others() {
    let daemon = Daemon::start(Scratch::new("idle"), &bridge(&["net_null0,no-rx=1", "net_ring0"]));
    std::thread::sleep(std::time::Duration::from_millis(200));
    let before = cpu_ticks(daemon.pid());
    std::thread::sleep(std::time::Duration::from_secs(2));
    let used = cpu_ticks(daemon.pid()) - before;
    // 100 ticks a second: a lcore that polled on, or only yielded to nobody, would have used 200.
    assert!(used < 60, "{used} of 200 ticks");
    daemon.finish();
}
