//! Starting and ending.

use std::process::Command;

use crate::rig::{Daemon, SMALL, Scratch, bridge};

fn idle(name: &str) -> Daemon {
    Daemon::start(Scratch::new(name), &bridge(&["net_null0,no-rx=1"]))
}

#[test]
fn signals_and_the_exit_command_end_it_in_order() {
    for (name, end) in [("term", "TERM"), ("int", "INT"), ("exit", "")] {
        let mut daemon = idle(name);
        match end {
            "" => drop(daemon.ok("appctl exit")),
            signal => daemon.signal(signal),
        }
        let (code, log) = daemon.wait();
        assert_eq!(code, 0, "{log}");
        assert!(log.contains("ending") && !log.contains("ERROR") && !log.contains("WARN"), "{log}");
        daemon.leaves_nothing();
    }
}

#[test]
fn a_second_signal_ends_it_while_the_first_still_waits_for_a_client() {
    let mut daemon = idle("twice");
    let _slow = daemon.slow_client();
    daemon.ok("appctl version");
    daemon.signal("TERM");
    daemon.until("the first signal's effect", |daemon| daemon.log().contains("ending"));
    daemon.signal("INT");
    let (code, log) = daemon.wait();
    assert_eq!(code, 130, "{log}");
    // What it left behind does not stand in the way of the next one.
    let scratch = std::mem::replace(&mut daemon.scratch, Scratch::new("twice-empty"));
    drop(daemon);
    Daemon::start(scratch, &bridge(&["net_null0,no-rx=1"])).finish();
}

#[test]
fn a_client_that_does_not_read_holds_up_the_end_for_a_moment_only() {
    let mut daemon = idle("unread");
    let _slow = daemon.slow_client();
    daemon.ok("appctl version");
    daemon.signal("TERM");
    assert_eq!(daemon.wait().0, 0);
    daemon.leaves_nothing();
}

#[test]
fn a_second_daemon_on_the_same_socket_is_refused_before_it_touches_a_port() {
    let first = idle("first");
    let scratch = Scratch::new("second");
    let output = scratch.text("out.pcap");
    let config = format!(
        "socket = \"{}\"\nmemory_mib = 128\n{}",
        first.socket().display(),
        bridge(&[&format!("net_pcap0,tx_pcap={output}")])
    );
    let mut second = Daemon::spawn(scratch, &config, &mut Command::new(env!("CARGO_BIN_EXE_weir")), &[]);
    let (code, log) = second.wait();
    assert_eq!(code, 1, "{log}");
    assert!(log.contains("another weir is running on this socket") && log.contains("exit"), "{log}");
    assert!(!log.contains("DPDK started"), "{log}");
    assert!(second.scratch.frames("out.pcap").is_empty() && !second.scratch.path("out.pcap").exists());
    assert_eq!(first.ok("vsctl list-br"), "br0\n");
    first.finish();
}

#[test]
fn the_log_can_be_json_and_its_levels_change_while_it_runs() {
    let scratch = Scratch::new("json");
    let config = format!("{SMALL}{}", bridge(&["net_null0,no-rx=1"]));
    let mut weir = Command::new(env!("CARGO_BIN_EXE_weir"));
    let mut daemon =
        Daemon::start_as(scratch, &config, &mut weir, &["--json-log", "--log", "warn,daemon=info"]);
    daemon.ok("appctl vlog/set dpdk:dbg");
    assert!(daemon.ok("appctl vlog/list").contains("dpdk               DBG"));
    daemon.ok("vsctl add-port br0 p2 options:dpdk-devargs=net_null2,no-rx=1");
    daemon.ok("appctl exit");
    let (code, log) = daemon.wait();
    assert_eq!(code, 0, "{log}");
    let lines: Vec<serde_json::Value> =
        log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect();
    let has = |key: &str, value: &str| lines.iter().any(|line| line[key] == value);
    assert!(has("message", "port started") && has("port", "p2") && has("driver", "net_null"), "{log}");
    assert!(!has("message", "weir is running"), "{log}");
}

#[test]
fn a_log_that_nobody_reads_any_more_does_not_stop_it() {
    let scratch = Scratch::new("closed");
    let config = format!("{SMALL}{}", bridge(&["net_null0,no-rx=1"]));
    let mut shell = Command::new("sh");
    // The reader of its log ends at once.
    shell.args(["-c", "exec \"$0\" \"$@\" 2> >(exec true)", env!("CARGO_BIN_EXE_weir")]);
    let mut bash = Command::new("bash");
    bash.args(shell.get_args());
    let mut daemon = Daemon::start_as(scratch, &config, &mut bash, &["--log", "debug"]);
    daemon.ok("vsctl add-port br0 p2 options:dpdk-devargs=net_null2,no-rx=1");
    daemon.ok("vsctl del-port p2");
    daemon.ok("appctl exit");
    assert_eq!(daemon.wait().0, 0);
}

#[test]
fn checking_a_configuration_starts_nothing() {
    let scratch = Scratch::new("check");
    let output = scratch.text("out.pcap");
    let config = format!("{SMALL}{}", bridge(&[&format!("net_pcap0,tx_pcap={output}")]));
    let mut daemon =
        Daemon::spawn(scratch, &config, &mut Command::new(env!("CARGO_BIN_EXE_weir")), &["--check"]);
    let (code, log) = daemon.wait();
    assert_eq!((code, log.lines().count()), (0, 1), "{log}");
    assert!(log.ends_with("weir.toml: fine\n"), "{log}");
    assert!(!daemon.scratch.path("out.pcap").exists());
    daemon.leaves_nothing();
}
