//! Commands against a daemon that carries traffic.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::rig::{Daemon, SMALL, Scratch, bridge, udp};

const ACL: &str = "table=0,priority=1,cookie=9,action=drop
table=0,priority=100,ip,ct_state=-trk,cookie=1,action=ct(table=1)
table=1,in_port=1,ip,ct_state=+trk+new,cookie=2,action=ct(commit,zone=3,exec(set_field:7->ct_mark)),2
";

/// 64 hosts each open one connection, in zone 3, with mark 7.
fn tracking(name: &str) -> Daemon {
    let scratch = Scratch::new(name);
    scratch.write("flows", ACL);
    let input = scratch.capture("in.pcap", &(0..64).map(|n| udp(n, 1000, 100)).collect::<Vec<_>>());
    let mut daemon =
        Daemon::start(scratch, &bridge(&[&format!("net_pcap0,rx_pcap={input}"), "net_null0,no-rx=1"]));
    daemon.until("all packets", |daemon| daemon.port(2, "tx_packets") == 64);
    daemon
}

#[test]
fn every_reading_command_answers_in_text_and_in_json() {
    let daemon = tracking("reading");
    for line in [
        "ofctl show br0",
        "ofctl dump-ports br0",
        "ofctl dump-ports br0 p1",
        "ofctl dump-ports-desc br0 2",
        "ofctl dump-tables br0",
        "ofctl dump-flows br0",
        "ofctl dump-flows br0 table=1",
        "ofctl dump-aggregate br0",
        "appctl coverage/show",
        "show topology",
        "appctl dpctl/ct-get-maxconns",
        "appctl dpctl/ct-get-nconns",
        "appctl dpctl/ct-stats-show -m",
        "appctl dpctl/dump-conntrack",
        "appctl dpctl/dump-conntrack -m -s zone=3",
        "appctl dpctl/dump-flows",
        "appctl dpctl/ipf-get-status -m",
        "appctl dpctl/show -s",
        "appctl dpif-netdev/pmd-rxq-show",
        "appctl dpif-netdev/pmd-stats-show",
        "appctl dpif/show",
        "appctl fdb/show br0",
        "appctl list-commands",
        "appctl netdev-dpdk/get-mempool-info p1",
        "appctl version",
        "appctl vlog/list",
        "appctl coverage/read-counter drop_action",
        "appctl coverage/read-counter listener_events_lost",
        "appctl dpctl/ct-bkts",
        "appctl dpctl/ct-get-tcp-seq-chk",
        "appctl dpctl/dump-dps",
        "appctl dpctl/dump-flows -m",
        "appctl dpif/dump-dps",
        "appctl dpif/dump-flows br0",
        "appctl fdb/stats-show br0",
        "ct list",
        "ct show src=10.1.0.5",
        "ct stats",
        "vsctl get Bridge br0 fail_mode",
        "vsctl show",
        "vsctl list-br",
        "vsctl list-ports br0",
        "vsctl port-to-br p1",
    ] {
        assert!(!daemon.ok(line).is_empty(), "{line}");
        assert!(!daemon.json(line).is_null(), "{line}");
    }
    assert!(daemon.ok("appctl dpctl/dump-flows").contains("recirc_id(0),in_port(1)"));
    daemon.finish();
}

#[test]
fn mistakes_have_open_vswitchs_exit_statuses_and_change_nothing() {
    let daemon = tracking("mistakes");
    let flows = daemon.ok("ofctl --no-stats dump-flows br0");
    let file = daemon.scratch.write("bad.flows", "table=7,actions=drop\ntable=8,ipp,actions=drop\n");
    for (line, status, part) in [
        ("ofctl add-flow br0 tcp,nw_scr=1.1.1.1,actions=drop", 1, "did you mean 'nw_src'?"),
        ("ofctl add-flow br0 tcp,nw_scr=1.1.1.1,actions=drop", 1, "    ^^^^^^"),
        ("ofctl add-flow br7 actions=drop", 1, "br7 is not a bridge"),
        ("ofctl dump-flows br7", 1, "br7 is not a bridge"),
        ("ofctl dump-flows br0 bogus=1", 1, "unknown field 'bogus'"),
        ("ofctl dump-ports br0 p9", 1, "unknown port `p9'"),
        (&format!("ofctl add-flows br0 {file}"), 1, "bad.flows:2:9"),
        (&format!("ofctl replace-flows br0 {file}"), 1, "bad.flows:2:9"),
        ("appctl dpctl/flush-conntrack zone=nonsense", 2, "zone"),
        ("appctl dpctl/flush-conntrack ct_nw_scr=1.1.1.1", 2, "ct_nw_scr"),
        ("appctl dpctl/dump-conntrack otherdp", 2, "datapath not found"),
        ("appctl dpctl/ct-set-maxconns many", 2, "maxconns missing or malformed"),
        ("appctl dpctl/ct-set-maxconns 4000000000", 2, "there is memory for 1000 connections"),
        ("appctl nonesuch", 2, "is not a valid command"),
        ("appctl fdb/show br7", 2, "no such bridge"),
        ("vsctl add-br br0", 1, "already exists"),
        ("vsctl del-port nonesuch", 1, "no port named nonesuch"),
        ("vsctl br-exists br7", 2, ""),
    ] {
        let answer = daemon.weir(line);
        assert_eq!((answer.status, answer.stdout.as_str()), (status, ""), "{line}: {answer:?}");
        assert!(answer.stderr.contains(part), "{line}: {}", answer.stderr);
        assert_eq!(daemon.ok("ofctl --no-stats dump-flows br0"), flows, "{line}");
    }
    assert_eq!(daemon.ok("appctl dpctl/ct-get-nconns"), "64\n");
    daemon.finish();
}

#[test]
fn flows_change_as_each_command_says_and_keep_their_counters() {
    let daemon = tracking("flows");
    assert_eq!(daemon.packets(1), 64);
    daemon.ok("ofctl mod-flows br0 table=1,in_port=1,ip,ct_state=+trk+new,actions=drop");
    assert_eq!(daemon.packets(2), 64, "modifying keeps the counters");
    assert!(daemon.ok("ofctl dump-flows br0 table=1").contains("actions=drop"));
    let file = daemon.scratch.write("new.flows", &format!("{ACL}table=4,cookie=44,actions=drop\n"));
    daemon.ok(&format!("ofctl replace-flows br0 {file}"));
    assert_eq!(daemon.packets(1), 64, "an unchanged flow keeps its counters");
    assert_eq!(daemon.packets(44), 0);
    assert!(daemon.ok("ofctl dump-flows br0 table=1").contains("ct(commit,zone=3"));
    // Strict is exactly this match and priority.
    daemon.ok("ofctl --strict del-flows br0 table=0,ip");
    assert_eq!(
        daemon.ok("ofctl dump-flows br0 table=0").lines().filter(|line| line.contains("cookie")).count(),
        2
    );
    daemon.ok("ofctl --strict del-flows br0 table=0,priority=1");
    assert_eq!(
        daemon.ok("ofctl dump-flows br0 table=0").lines().filter(|line| line.contains("cookie")).count(),
        1
    );
    daemon.ok("ofctl del-flows br0 cookie=44/-1");
    assert_eq!(daemon.json("ofctl dump-flows br0 table=4"), serde_json::json!([]));
    daemon.ok("ofctl del-flows br0");
    assert_eq!(daemon.json("ofctl dump-flows br0"), serde_json::json!([]));
    let answer = daemon.weir_with(&["ofctl", "add-flows", "br0", "-"], ACL);
    assert_eq!((answer.status, answer.stderr.as_str()), (0, ""));
    assert_eq!(daemon.json("ofctl dump-flows br0").as_array().unwrap().len(), 3);
    daemon.finish();
}

#[test]
fn connections_are_flushed_by_filters_and_limited() {
    let daemon = tracking("flush");
    let count = |daemon: &Daemon| daemon.ok("appctl dpctl/ct-get-nconns").trim().parse::<u32>().unwrap();
    for (line, left) in [
        ("appctl dpctl/flush-conntrack zone=4", 64),
        ("appctl dpctl/flush-conntrack zone=3 mark=8", 64),
        ("appctl dpctl/flush-conntrack zone=3 mark=7 ct_nw_src=10.1.0.5,ct_nw_proto=17", 63),
        ("ofctl ct-flush br0 ct_nw_src=10.1.0.6", 62),
        ("ofctl ct-flush-zone br0 4", 62),
        ("appctl dpctl/flush-conntrack", 0),
    ] {
        daemon.ok(line);
        assert_eq!(count(&daemon), left, "{line}");
    }
    assert_eq!(daemon.ok("appctl dpctl/ct-get-maxconns"), "1000\n");
    daemon.ok("appctl dpctl/ct-set-maxconns 10");
    assert_eq!(daemon.ok("appctl dpctl/ct-get-maxconns"), "10\n");
    let input = daemon.scratch.text("in.pcap");
    let mut daemon = daemon;
    daemon.ok("vsctl del-port p1");
    daemon.ok(&format!(
        "vsctl add-port br0 p1 options:dpdk-devargs=net_pcap0,rx_pcap={input} ofport_request=1"
    ));
    daemon.until("the packets again", |daemon| daemon.port(1, "rx_packets") == 64);
    assert_eq!(count(&daemon), 10);
    daemon.finish();
}

#[test]
fn connections_are_listed_filtered_watched_and_flushed_natively() {
    let daemon = tracking("native");
    let list = daemon.ok("ct list protocol=udp dport=53 src=10.1.0.0/28");
    assert_eq!(list.lines().count(), 17, "{list}");
    assert!(list.starts_with("PROTOCOL  ZONE  STATE"), "{list}");
    let (mut after, mut seen) = (String::new(), 0);
    loop {
        let page = daemon.json(&format!("ct list --limit 10 {after}"));
        seen += page["connections"].as_array().unwrap().len();
        let Some(next) = page["next"].as_str() else { break };
        after = format!("--after {next}");
    }
    assert_eq!(seen, 64);
    assert_eq!(daemon.json("ct show src=10.1.0.5")["mark"], 7);
    let watched = daemon.ok("ct watch --every 0.1 --count 2 zone=3");
    assert_eq!(watched.matches("1 rows, 64 connections").count(), 2, "{watched}");
    assert!(daemon.ok("ct watch list --count 1 --limit 3").contains("3 rows, 3 packets"));
    for (line, part) in [
        ("ct flush", "requires at least 1 arguments"),
        ("ct list dprt=1", "did you mean dport=?"),
        ("ct watch --every never", "not a number"),
        ("ct lst", "unknown command 'lst'"),
    ] {
        let answer = daemon.weir(line);
        assert_eq!(answer.status, 1, "{line}: {answer:?}");
        assert!(answer.stderr.contains(part), "{line}: {}", answer.stderr);
    }
    assert_eq!(daemon.ok("ct flush src=10.1.0.0/28"), "16 connections removed\n");
    assert_eq!(daemon.json("ct flush --all")["removed"], 48);
    daemon.finish();
}

#[test]
fn megaflows_are_purged_and_a_fail_mode_changes_the_flows() {
    let daemon = tracking("purge");
    let full = daemon.ok("appctl dpctl/dump-flows -m");
    let line = full.lines().find(|line| line.starts_with("ufid:")).unwrap();
    let ufid = line.split(',').next().unwrap();
    assert!(daemon.ok(&format!("appctl dpctl/get-flow {ufid}")).contains("skb_priority(0/0)"));
    assert_eq!(daemon.ok("appctl revalidator/wait"), "");
    assert_eq!(daemon.ok("appctl revalidator/purge"), "");
    assert_eq!(daemon.json("appctl dpctl/dump-flows"), serde_json::json!([]));
    assert_eq!(daemon.packets(2), 64, "what they counted is with the flows");
    let colour = daemon.ok("ofctl --color dump-flows br0 table=1");
    assert!(colour.contains("\u{1b}[1;31m\u{1b}[Kactions="), "{colour:?}");
    assert_eq!(daemon.weir("ofctl -F bogus dump-flows br0").status, 1);
    daemon.ok("ofctl -F nxm+table_id dump-flows br0");
    daemon.ok("vsctl set Bridge br0 fail_mode=secure");
    assert_eq!(daemon.json("ofctl dump-flows br0"), serde_json::json!([]));
    daemon.ok("ofctl add-flow br0 actions=drop");
    let answer = daemon.weir("vsctl set-fail-mode br0 standalone -- del-br br9");
    assert_eq!(answer.status, 1);
    assert!(daemon.ok("ofctl --no-stats dump-flows br0").contains("actions=drop"), "nothing has changed");
    daemon.ok("vsctl del-fail-mode br0");
    assert_eq!(daemon.ok("ofctl --no-stats dump-flows br0"), " priority=0 actions=NORMAL\n");
    daemon.finish();
}

#[test]
fn what_action_normal_learns_is_shown_and_forgotten() {
    let scratch = Scratch::new("fdb");
    let input = scratch.capture("in.pcap", &[udp(1, 1, 60)]);
    let mut daemon =
        Daemon::start(scratch, &bridge(&[&format!("net_pcap0,rx_pcap={input}"), "net_null0,no-rx=1"]));
    daemon.until("the packet", |daemon| daemon.port(2, "tx_packets") == 1);
    let shown = daemon.ok("appctl fdb/show br0");
    assert!(shown.contains("02:00:00:00:00:01"), "{shown}");
    assert_eq!(daemon.json("appctl fdb/show br0").as_array().unwrap().len(), 1);
    daemon.ok("appctl fdb/flush br0");
    assert_eq!(daemon.json("appctl fdb/show br0"), serde_json::json!([]));
    daemon.finish();
}

/// A source that never ends on port 1, a sink on port 2.
fn endless(name: &str) -> Daemon {
    let scratch = Scratch::new(name);
    scratch.write("flows", "cookie=1,in_port=1,actions=2\n");
    let input = scratch.capture("in.pcap", &(0..64).map(|n| udp(n, 1000, 100)).collect::<Vec<_>>());
    let source = format!("net_pcap0,rx_pcap={input},infinite_rx=1");
    let mut daemon = Daemon::start(scratch, &bridge(&[&source, "net_null0,no-rx=1"]));
    daemon.until("packets", |daemon| daemon.port(2, "tx_packets") > 1000);
    daemon
}

#[test]
fn flows_that_change_under_traffic_cost_no_packet() {
    let daemon = endless("under-traffic");
    for round in 0..20 {
        let flows: String =
            (0..200).map(|n| format!("table=9,priority={n},in_port={},actions=drop\n", round + 5)).collect();
        let file = daemon.scratch.write("more.flows", &flows);
        daemon.ok(&format!("ofctl add-flows br0 {file}"));
    }
    daemon.ok("ofctl del-flows br0 table=9");
    daemon.ok("vsctl del-port p1");
    let lcore = &daemon.json("appctl dpif-netdev/pmd-stats-show")[0];
    assert_eq!(lcore["packets"], lcore["tx_packets"]);
    assert_eq!(Some(daemon.port(2, "tx_packets")), lcore["packets"].as_u64());
    let drops = daemon.ok("appctl coverage/show");
    assert!(!drops.contains("drop_"), "{drops}");
    assert_eq!(Some(daemon.packets(1)), lcore["packets"].as_u64());
    daemon.finish();
}

#[test]
fn a_client_that_does_not_read_its_dump_holds_up_nobody() {
    let mut daemon = endless("slow");
    let slow: Vec<_> = (0..4).map(|_| daemon.slow_client()).collect();
    for _ in 0..3 {
        let before = daemon.port(2, "tx_packets");
        daemon.until("further packets", |daemon| daemon.port(2, "tx_packets") > before + 1000);
        daemon.ok("ofctl add-flow br0 table=4,actions=drop");
    }
    drop(slow);
    daemon.finish();
}

/// 100 000 connections from a capture of as many ports and hosts.
fn crowded(name: &str) -> Daemon {
    let scratch = Scratch::new(name);
    scratch.write("flows", "priority=10,ip,ct_state=-trk,actions=ct(commit,zone=3),2\n");
    let frames: Vec<_> = (0..100_000_u32)
        .map(|n| udp(u8::try_from(n % 250).unwrap(), u16::try_from(1000 + n / 250).unwrap(), 60))
        .collect();
    let input = scratch.capture("in.pcap", &frames);
    let ports = bridge(&[&format!("net_pcap0,rx_pcap={input}"), "net_null0,no-rx=1"]);
    let config = SMALL.replace("capacity = 1000", "capacity = 120000");
    let mut daemon = Daemon::start_as(
        scratch,
        &format!("{config}{ports}"),
        &mut std::process::Command::new(env!("CARGO_BIN_EXE_weir")),
        &[],
    );
    daemon.until("all connections", |daemon| daemon.ok("appctl dpctl/ct-get-nconns") == "100000\n");
    daemon
}

/// A client that asks for all connections and does not read on.
fn unread_dump(daemon: &Daemon) -> UnixStream {
    let mut stream = UnixStream::connect(daemon.socket()).unwrap();
    stream.write_all(b"{\"command\":\"appctl dpctl/dump-conntrack\"}\n").unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.read_exact(&mut [0]).unwrap();
    stream
}

/// Pages of memory that the daemon holds.
fn resident(daemon: &Daemon) -> u64 {
    let statm = std::fs::read_to_string(format!("/proc/{}/statm", daemon.pid())).unwrap();
    statm.split(' ').nth(1).unwrap().parse().unwrap()
}

#[test]
fn commands_over_a_hundred_thousand_connections_hold_neither_memory_nor_lcore() {
    let daemon = crowded("crowded");
    // Once for what is allocated and kept for the next command.
    assert_eq!(daemon.ok("appctl dpctl/dump-conntrack").lines().count(), 100_000);
    let before = resident(&daemon);
    // Their answers have begun; the rest stays with the daemon.
    let slow: Vec<_> = (0..4).map(|_| unread_dump(&daemon)).collect();
    for (line, lines) in [
        ("appctl dpctl/dump-conntrack -m -s", 100_000),
        ("ct list", 100_001),
        ("ct list src=10.1.0.7", 401),
        ("ct list --sort packets --limit 50", 51),
        ("ct stats", 3),
    ] {
        assert_eq!(daemon.ok(line).lines().count(), lines, "{line}");
    }
    assert_eq!(daemon.json("ct list")["connections"].as_array().unwrap().len(), 100_000);
    assert!(daemon.ok("appctl dpctl/ct-bkts").lines().count() > 3_000);
    // A dump as text is 12 MB, as JSON 40.
    let grown = resident(&daemon).saturating_sub(before) * 4096;
    assert!(grown < 6 << 20, "{grown} bytes more than before");
    drop(slow);
    assert_eq!(daemon.ok("ct flush src=10.1.0.7"), "400 connections removed\n");
    assert_eq!(daemon.ok("ct flush --all"), "99600 connections removed\n");
    daemon.finish();
}
