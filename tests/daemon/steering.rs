//! Who steers the ports of a daemon with two lcores, and what it says of that.

use std::collections::BTreeSet;
use std::process::Command;

use crate::lcores::{answer_of, figures};
use crate::rig::{Daemon, SMALL, Scratch, udp};

/// A port for each device, with what else is to be said of it.
fn ports(devices: &[(&str, &str)]) -> String {
    let mut text = "[[bridge]]\nname = \"br0\"\n".to_owned();
    for (number, (devargs, more)) in (1..).zip(devices) {
        text += &format!("[[bridge.port]]\nname = \"p{number}\"\ndevargs = \"{devargs}\"\n{more}\n");
    }
    text
}

fn start(name: &str, config: &str) -> Option<Daemon> {
    start_in(Scratch::new(name), config)
}

fn start_in(scratch: Scratch, config: &str) -> Option<Daemon> {
    if std::thread::available_parallelism().is_ok_and(|count| count.get() < 2) {
        println!("skipped: two lcores need two CPUs");
        return None;
    }
    let config = format!("lcores = \"0-1\"\n{SMALL}{config}");
    let mut weir = Command::new(env!("CARGO_BIN_EXE_weir"));
    Some(Daemon::start_as(scratch, &config, &mut weir, &[]))
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

#[test]
fn subscribers_keep_to_their_shards_addresses_and_replies_find_them_from_any_queue() {
    let scratch = Scratch::new("subscriber-packets");
    scratch.write(
        "flows",
        "in_port=1,ip,actions=ct(zone=7,commit,nat(src=192.0.2.0-192.0.2.7)),2\n\
         in_port=3,ip,actions=ct(zone=7,nat,table=1)\n\
         table=1,ip,ct_state=+trk+est+rpl,actions=1\n",
    );
    // Two packets of each of 60 subscribers, one by either queue.
    let asked = [1000, 2000].map(|port| (1..=60).map(|host| udp(host, port, 90)).collect::<Vec<_>>());
    let captures = |names: [&str; 2]| names.map(|name| scratch.text(name));
    let [a, b] =
        [("a.pcap", &asked[0]), ("b.pcap", &asked[1])].map(|(name, frames)| scratch.capture(name, frames));
    let [home, away] = captures(["c.pcap", "d.pcap"]);
    let inside = format!("net_pcap0,rx_pcap={a},rx_pcap={b},tx_pcap={home},tx_pcap={away}");
    let [x, y] = captures(["x.pcap", "y.pcap"]);
    let config = format!(
        "[[bridge]]\nname = \"br0\"\nflows = \"flows\"\n\
         [[bridge.port]]\nname = \"p1\"\nnumber = 1\ndevargs = \"{inside}\"\nrole = \"inside\"\n\
         [[bridge.port]]\nname = \"p2\"\nnumber = 2\ndevargs = \"net_pcap1,tx_pcap={x},tx_pcap={y}\"\nrole = \"outside\"\n\
         [[steering.zone]]\nid = 7\nscheme = \"subscriber\"\npool = [\"192.0.2.0/29\"]\ninside = [\"10.1.0.0/24\"]\n"
    );
    let Some(mut daemon) = start_in(scratch, &config) else { return };
    daemon.until("all packets", |daemon| daemon.port(2, "tx_packets") == 120);
    let sent = ["x.pcap", "y.pcap"].map(|name| daemon.scratch.frames(name));
    let public = sent
        .each_ref()
        .map(|frames| frames.iter().map(|frame| frame[26..30].to_vec()).collect::<BTreeSet<_>>());
    assert!(
        public.iter().flatten().all(|address| address[..3] == [192, 0, 2] && address[3] < 8),
        "{public:?}"
    );
    assert!(public[0].is_disjoint(&public[1]) && public.iter().all(|all| !all.is_empty()), "{public:?}");
    // Who a subscriber is stands in the payload: both of his packets leave by one lcore.
    let hosts = sent.each_ref().map(|frames| frames.iter().map(|frame| frame[60]).collect::<BTreeSet<_>>());
    assert!(hosts[0].is_disjoint(&hosts[1]), "{hosts:?}");
    assert_eq!(hosts.iter().map(BTreeSet::len).sum::<usize>(), 60);
    let handed_over: u64 = figures(&daemon, "handed_over").iter().sum();
    assert_eq!(handed_over, 60, "one packet of each came by the other's queue");
    // Every reply comes by the wrong queue.
    let replies = [1, 0].map(|lcore: usize| {
        let frames: Vec<_> = sent[lcore].iter().map(|frame| answer_of(frame)).collect();
        daemon.scratch.capture(&format!("replies-{lcore}.pcap"), &frames)
    });
    daemon.ok(&format!(
        "vsctl add-port br0 p3 -- set Interface p3 type=dpdk ofport_request=3 options:role=outside \
         options:dpdk-devargs=net_pcap2,rx_pcap={},rx_pcap={},tx_pcap=/dev/null,tx_pcap=/dev/null",
        replies[0], replies[1]
    ));
    daemon.until("all replies", |daemon| daemon.port(1, "tx_packets") == 120);
    let received = ["c.pcap", "d.pcap"].map(|name| daemon.scratch.frames(name));
    // Whose payload goes where: the inside end of each packet.
    let inside_ends = |frames: Vec<Vec<u8>>, address: usize, port: usize| {
        let end = |frame: &Vec<u8>| {
            (frame[60], frame[address..address + 4].to_vec(), frame[port..port + 2].to_vec())
        };
        let mut ends: Vec<_> = frames.iter().map(end).collect();
        ends.sort();
        ends
    };
    assert_eq!(inside_ends(received.concat(), 30, 36), inside_ends(asked.concat(), 26, 34));
    assert_eq!(figures(&daemon, "handed_over").iter().sum::<u64>(), 60 + 120);
    // Each goes to its subscriber by the lcore that has his packets.
    for (frames, hosts) in received.iter().zip(&hosts) {
        assert!(frames.iter().all(|frame| hosts.contains(&frame[60])));
    }
    daemon.finish();
}
