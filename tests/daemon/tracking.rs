//! Zones, limits and the stream of events of a daemon that carries traffic.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use crate::rig::{Daemon, SMALL, Scratch, bridge, udp};

const TABLES: &str = "table=0,priority=1,action=drop
table=0,priority=100,in_port=1,udp,action=ct(commit,zone=3,exec(set_field:7->ct_mark)),2
";

/// `count` connections in zone 3, each packet of which comes once, or again and again.
fn tracking(name: &str, count: u16, settings: &str, for_ever: bool) -> Daemon {
    let scratch = Scratch::new(name);
    scratch.write("flows", TABLES);
    let packets: Vec<_> =
        (0..count).map(|n| udp(u8::try_from(n % 250).unwrap(), 1000 + n / 250, 100)).collect();
    let input = scratch.capture("in.pcap", &packets);
    let again = if for_ever { ",infinite_rx=1" } else { "" };
    let ports = bridge(&[&format!("net_pcap0,rx_pcap={input}{again}"), "net_null0,no-rx=1"]);
    let config = format!("{}{ports}", SMALL.replace("[pool]", &format!("{settings}[pool]")));
    let mut weir = Command::new(env!("CARGO_BIN_EXE_weir"));
    let mut daemon = Daemon::start_as(scratch, &config, &mut weir, &[]);
    daemon.until("all packets", |daemon| daemon.port(2, "tx_packets") >= count.into());
    daemon
}

/// Somebody who listens to events.
struct Listener {
    lines: BufReader<UnixStream>,
    /// Text of which not all lines were taken yet.
    text: String,
}

impl Listener {
    /// Begins to listen and waits until it does: the daemon keeps in touch while nothing happens.
    fn start(daemon: &Daemon, args: &[&str]) -> Self {
        let mut listener = Self::ask(daemon, args);
        let line = listener.line();
        assert!(line.contains("\"stdout\""), "{line}");
        listener.keep(&line);
        listener
    }

    fn ask(daemon: &Daemon, args: &[&str]) -> Self {
        let mut stream = UnixStream::connect(daemon.socket()).unwrap();
        let request = serde_json::json!({ "command": "ct events", "args": args, "json": true });
        stream.write_all(format!("{request}\n").as_bytes()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Self { lines: BufReader::new(stream), text: String::new() }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line
    }

    fn keep(&mut self, line: &str) {
        let reply: serde_json::Value = serde_json::from_str(line).unwrap();
        self.text += reply["stdout"].as_str().unwrap();
    }

    /// The next event.
    fn next(&mut self) -> serde_json::Value {
        loop {
            if let Some((line, rest)) = self.text.split_once('\n') {
                let event = serde_json::from_str(line).unwrap();
                self.text = rest.to_owned();
                return event;
            }
            let line = self.line();
            self.keep(&line);
        }
    }
}

#[test]
fn a_zone_s_limit_holds_from_the_configuration_and_can_be_changed_while_running() {
    let daemon = tracking("limit", 64, "[[conntrack.zone]]\nid = 3\nlimit = 10\n", false);
    assert_eq!(daemon.ok("appctl dpctl/ct-get-limits"), "default limit=0\nzone=3,limit=10,count=10\n");
    assert_eq!(daemon.ok("appctl dpctl/ct-get-nconns"), "10\n");
    assert_eq!(daemon.ok("appctl dpctl/dump-conntrack zone=3").lines().count(), 10);
    let refused = daemon.json("appctl coverage/show");
    let refused =
        refused.as_array().unwrap().iter().find(|row| row["name"] == "conntrack_refused_by_zone_limit");
    assert_eq!(refused.unwrap()["total"], 54);
    // Refused is not lost: all packets went on.
    assert_eq!(daemon.port(2, "tx_packets"), 64);
    daemon.ok("appctl dpctl/ct-set-limits default=7 zone=3,limit=20");
    assert_eq!(
        daemon.ok("appctl dpctl/ct-get-limits zone=3,4"),
        "default limit=7\nzone=3,limit=20,count=10\nzone=4,limit=7,count=0\n"
    );
    daemon.ok("appctl dpctl/ct-del-limits zone=3");
    assert_eq!(daemon.ok("appctl dpctl/ct-get-limits"), "default limit=7\n");
    daemon.finish();
}

#[test]
fn a_zone_s_timeouts_reach_its_connections() {
    let mut daemon = tracking("timeouts", 20, "", true);
    daemon.ok("zone set-timeout 3 udp_single=4000 udp_first=4000");
    daemon.until("the new timeout", |daemon| {
        let connections = daemon.json("appctl dpctl/dump-conntrack");
        let mut timeouts = connections.as_array().unwrap().iter().map(|row| row["timeout"].as_u64().unwrap());
        timeouts.all(|timeout| timeout > 3000)
    });
    assert!(daemon.ok("zone list").contains("udp_first=4000 udp_single=4000"));
    let connections = daemon.json("appctl dpctl/dump-conntrack");
    let first = &connections[0];
    assert!(first["orig"]["packets"].as_u64().unwrap() > 1 && first["reply"]["packets"] == 0, "{first}");
    assert_eq!(first["orig"]["bytes"].as_u64().unwrap() % 100, 0);
    assert!(first["start"].as_u64() < first["last_seen"].as_u64(), "{first}");
    daemon.ok("vsctl del-zone-tp netdev zone=3");
    daemon.until("the old timeout", |daemon| {
        let connections = daemon.json("appctl dpctl/dump-conntrack");
        let mut timeouts = connections.as_array().unwrap().iter().map(|row| row["timeout"].as_u64().unwrap());
        timeouts.all(|timeout| timeout <= 60)
    });
    daemon.finish();
}

#[test]
fn a_listener_hears_of_every_end_and_every_beginning() {
    let daemon = tracking("events", 20, "", true);
    let mut listener = Listener::start(&daemon, &["destroy", "new", "zone=3"]);
    daemon.ok("appctl dpctl/flush-conntrack");
    let events: Vec<_> = (0..40).map(|_| listener.next()).collect();
    let count = |kind: &str| events.iter().filter(|event| event["event"] == kind).count();
    assert_eq!((count("destroy"), count("new")), (20, 20), "{events:?}");
    let ended = events.iter().find(|event| event["event"] == "destroy").unwrap();
    assert_eq!((&ended["cause"], &ended["connection"]["mark"]), (&"flush".into(), &7.into()));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    let late = now.abs_diff(ended["time"].as_u64().unwrap().into());
    assert!(late < 10_000, "{late} ms apart");
    daemon.finish();
}

#[test]
fn the_command_ends_after_as_many_events_as_were_asked_for_and_after_its_time() {
    let daemon = tracking("count", 20, "", true);
    let output = daemon.ok("ct events --count 3 --seconds 1 update zone=4");
    assert_eq!(output, "", "there is no zone 4, so its time was up");
    daemon.finish();
}

#[test]
fn a_listener_that_stalls_stops_nobody_and_learns_what_it_lost() {
    let mut daemon = tracking("stall", 900, "", true);
    let mut stalled = Listener::start(&daemon, &[]);
    let before = daemon.port(2, "tx_packets");
    // Far more than the socket and the queue hold: each flush ends and begins some 900 connections.
    for _ in 0..60 {
        daemon.ok("appctl dpctl/flush-conntrack");
        daemon.until("they are back", |daemon| daemon.ok("appctl dpctl/ct-get-nconns") == "900\n");
    }
    assert!(daemon.port(2, "tx_packets") > before + 50_000, "packets go on");
    let mut heard = 0_u64;
    let lost = loop {
        let event = stalled.next();
        match event["count"].as_u64() {
            Some(lost) => break lost,
            None => heard += 1,
        }
    };
    assert!(lost > 0 && heard > 1_000, "{heard} heard, {lost} lost");
    daemon.until("they are counted", |daemon| {
        let count = |name| daemon.ok(&format!("appctl coverage/read-counter {name}"));
        let counts = ["listener_events_lost", "conntrack_events_lost"].map(count);
        counts.iter().map(|count| count.trim().parse::<u64>().unwrap()).sum::<u64>() >= lost
    });
    drop(stalled);
    // Nobody listens any more: a place is free again and the lcores record nothing.
    Listener::start(&daemon, &[]);
    daemon.finish();
}

#[test]
fn only_so_many_may_listen_and_whoever_goes_makes_room() {
    let mut daemon = tracking("many", 5, "", false);
    let mut listeners: Vec<_> = (0..8).map(|_| Listener::start(&daemon, &[])).collect();
    let answer = daemon.weir("ct events --count 1");
    assert_eq!(answer.status, 1);
    assert!(answer.stderr.contains("8 clients listen to connection events already"), "{}", answer.stderr);
    listeners.pop();
    daemon.until("a place is free", |daemon| daemon.weir("ct events --seconds 1").status == 0);
    daemon.finish();
}
