//! Who steers the ports of a daemon with two lcores, and what it says of that.

use std::process::Command;

use crate::rig::{Daemon, SMALL, Scratch};

/// A port for each device, with what else is to be said of it.
fn ports(devices: &[(&str, &str)]) -> String {
    let mut text = "[[bridge]]\nname = \"br0\"\n".to_owned();
    for (number, (devargs, more)) in (1..).zip(devices) {
        text += &format!("[[bridge.port]]\nname = \"p{number}\"\ndevargs = \"{devargs}\"\n{more}\n");
    }
    text
}

fn start(name: &str, config: &str) -> Option<Daemon> {
    if std::thread::available_parallelism().is_ok_and(|count| count.get() < 2) {
        println!("skipped: two lcores need two CPUs");
        return None;
    }
    let config = format!("lcores = \"0-1\"\n{SMALL}{config}");
    let mut weir = Command::new(env!("CARGO_BIN_EXE_weir"));
    Some(Daemon::start_as(Scratch::new(name), &config, &mut weir, &[]))
}

#[test]
fn each_port_says_who_steers_it_and_why_not_its_card() {
    let devices = [("net_null0,no-rx=1", ""), ("net_null1,no-rx=1", "rx_queues = 1"), ("net_ring2", "")];
    let config = format!("{}[steering]\nkey_word = 0x6d5a\n", ports(&devices));
    let Some(daemon) = start("steering", &config) else { return };
    let status = daemon.json("show steering");
    // The table is the null device's.
    assert_eq!((&status["scheme"], &status["table_size"]), (&"symmetric".into(), &128.into()));
    let entries: Vec<_> =
        status["shards"].as_array().unwrap().iter().map(|shard| &shard["entries"]).collect();
    assert_eq!(entries, [64, 64]);
    let port = |status: &serde_json::Value, index: usize| {
        let port = &status["ports"][index];
        [&port["port"], &port["steered_by"], &port["why"]]
            .map(|value| value.as_str().unwrap_or("-").to_owned())
    };
    assert_eq!(port(&status, 0), ["p1", "card", "-"]);
    assert_eq!(port(&status, 1), ["p2", "software", "1 receive queue for 2 lcores"]);
    assert_eq!(port(&status, 2), ["p3", "software", "the device spreads no packets over queues"]);
    assert_eq!(status["ports"][0]["first_packets"]["compared"], 0);
    assert!(status["ports"][2]["notes"].to_string().contains("spreads no packets"), "{status}");
    assert!(!status.to_string().contains("6d5a"), "the key is nobody's business");
    // A port that comes later is told the same.
    daemon.ok("vsctl add-port br0 p4 options:dpdk-devargs=net_null4,no-rx=1 options:role=inside");
    assert_eq!(
        port(&daemon.json("show steering"), 3),
        ["p4", "software", "the device does not hash over the source address"]
    );
    let text = daemon.ok("show steering");
    for line in
        ["zones: symmetric\n", "port p1 (net_null), 2 queues:\n  steered by card\n", "between shards:\n"]
    {
        assert!(text.contains(line), "{line} in {text}");
    }
    daemon.ok("appctl coverage/read-counter card_hash_mismatched");
    daemon.finish();
}

#[test]
fn zones_with_subscribers_show_who_owns_their_addresses() {
    let devices = [("net_null0,no-rx=1", "role = \"inside\""), ("net_null1,no-rx=1", "")];
    let zone = "[[steering.zone]]\nid = 7\nscheme = \"subscriber\"\npool = [\"192.0.2.0/29\"]\n\
                inside = [\"100.64.0.0/10\"]\n";
    let Some(daemon) = start("subscribers", &format!("{}{zone}", ports(&devices))) else { return };
    let status = daemon.json("show steering");
    let pool = &status["zones"][0]["pools"][0];
    let whole: Vec<u64> = pool["whole"].as_array().unwrap().iter().filter_map(|n| n.as_u64()).collect();
    assert_eq!((whole.len(), whole.iter().sum::<u64>(), pool["ports"].is_null()), (2, 8, true), "{status}");
    assert_eq!(status["ports"][0]["why"], "the device does not hash over the source address");
    assert_eq!(status["ports"][1]["why"], "zones are steered by subscriber and the port has no role");
    daemon.finish();
}
