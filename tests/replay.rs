//! The replay engine over capture files: packets in, packets out, as text that a person can check.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

use std::fs::File;
use std::path::{Path, PathBuf};

use weir::config::{Steering, Zones};
use weir::replay::{Arrival, Layout, Options, ReplayError, Report, run};
use weir_shard::ShardConfig;
use weir_wire::build::PacketBuilder;
use weir_wire::pcap::{CaptureReader, CaptureWriter, Precision};
use weir_wire::{ChecksumTrust, Layers, Tuple};

/// A folder that goes when the test is over.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("weir-replay-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn capture(&self, name: &str, packets: &[(u64, Vec<u8>)]) -> PathBuf {
        let path = self.0.join(name);
        let mut writer = CaptureWriter::new(File::create(&path).unwrap(), Precision::Nano).unwrap();
        for (time, packet) in packets {
            writer.write(*time, packet).unwrap();
        }
        writer.finish().unwrap();
        path
    }

    fn flows(&self, text: &str) -> PathBuf {
        let path = self.0.join("flows");
        std::fs::write(&path, text).unwrap();
        path
    }

    fn options(&self, flows: PathBuf, ports: Vec<(u16, Option<PathBuf>)>) -> Options {
        let shard = ShardConfig { capacity: 1024, ..ShardConfig::default() };
        Options {
            flows,
            groups: None,
            ports,
            out: self.0.join("out"),
            shard,
            zones: Zones::default(),
            steering: Steering::default(),
            seed: 1,
            layout: Layout::default(),
        }
    }

    /// What a port sent: nanoseconds and bytes.
    fn sent(&self, port: u16) -> Vec<(u64, Vec<u8>)> {
        let file = File::open(self.0.join("out").join(format!("{port}.pcap"))).unwrap();
        CaptureReader::new(file)
            .unwrap()
            .map(|packet| packet.map(|packet| (packet.time_ns, packet.data)).unwrap())
            .collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name)
}

fn quietly(options: &Options) -> Result<Report, ReplayError> {
    run(options, &mut |_| {})
}

/// The packet's tuple, all checksums verified; the choice of translated addresses and ports is left out.
fn describe(frame: &[u8]) -> String {
    let layers = Layers::parse(frame);
    let tuple = match Tuple::extract(frame, &layers, 0, ChecksumTrust::NONE) {
        Ok(extracted) => extracted.lookup(),
        Err(invalid) => return invalid.to_string(),
    };
    let mut text = tuple.to_string();
    if let Tuple::V4(tuple) = tuple
        && tuple.src.starts_with(&[10, 0, 0])
    {
        let port = format!("={},", tuple.src_port);
        text = text
            .replacen(&std::net::Ipv4Addr::from(tuple.src).to_string(), "CHOSEN", 1)
            .replacen(&port, "=CHOSEN,", 1);
    }
    format!("{} {text} {} bytes", layers.protocol, frame.len())
}

fn udp(src: u8, dst: u8) -> Vec<u8> {
    PacketBuilder::new().ipv4([10, 1, 1, src], [10, 1, 1, dst]).udp(1000 + u16::from(src), 2000).build()
}

#[test]
fn the_nat_example_gives_what_the_golden_text_says() {
    let folder = Folder::new("nat");
    let ports = vec![(1, Some(example("inside.pcap"))), (2, Some(example("outside.pcap")))];
    let options = folder.options(example("nat.flows"), ports);
    let report = quietly(&options).unwrap();
    let mut text = Report { conntrack: Default::default(), ..report.clone() }.to_string();
    for port in [1, 2] {
        for (time, frame) in folder.sent(port) {
            text += &format!(
                "{port} {}.{:09} {}\n",
                time / 1_000_000_000,
                time % 1_000_000_000,
                describe(&frame)
            );
        }
    }
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/replay_nat.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&golden, &text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(&golden).unwrap(), "UPDATE_GOLDEN=1 writes it anew");
    // And again, to the last byte.
    let first: Vec<_> = folder.sent(2);
    assert_eq!(quietly(&options).unwrap(), report);
    assert_eq!(folder.sent(2), first);
}

#[test]
fn captures_are_merged_by_time_and_every_output_has_the_time_of_its_packet() {
    let folder = Folder::new("merge");
    let start = 1_700_000_000_000_000_000;
    let one = folder
        .capture("one", &[(start, udp(1, 9)), (start + 300, udp(2, 9)), (start + 2_000_000, udp(3, 9))]);
    let two = folder.capture("two", &[(start + 200, udp(4, 9)), (start + 300, udp(5, 9))]);
    let options = folder.options(folder.flows("actions=3"), vec![(1, Some(one)), (2, Some(two)), (3, None)]);
    let report = quietly(&options).unwrap();
    let expected = [(0, 1), (200, 4), (300, 2), (300, 5), (2_000_000, 3)]
        .map(|(after, src)| (start + after, udp(src, 9)));
    assert_eq!(folder.sent(3), expected);
    assert_eq!((report.received, report.sent, report.dropped), (5, 5, 0));
    assert_eq!(
        report.ports.iter().map(|port| (port.port, port.received, port.sent)).collect::<Vec<_>>(),
        [(1, 3, 0), (2, 2, 0), (3, 0, 5)]
    );
}

#[test]
fn the_clock_follows_the_capture_forward_and_never_back() {
    let folder = Folder::new("clock");
    let second = 1_000_000_000;
    let start = 1_600_000_000 * second;
    // Opened, stepped back in time, kept open, and long after that gone.
    let times = [start, start - 5 * second, start + 20 * second, start + 1_000_000_000 * second];
    let one = folder.capture("one", &times.map(|time| (time, udp(1, 9))));
    let flows = "ip,ct_state=-trk,actions=ct(table=1)\n table=1,ip,ct_state=+new,actions=ct(commit),2\n table=1,priority=1,ip,actions=2";
    let options = folder.options(folder.flows(flows), vec![(1, Some(one)), (2, None)]);
    let report = quietly(&options).unwrap();
    assert_eq!(report.conntrack.get("created"), Some(&2), "{report:?}");
    assert_eq!(report.conntrack.get("expired"), Some(&1), "{report:?}");
    let sent: Vec<_> = folder.sent(2).into_iter().map(|(time, _)| time).collect();
    assert_eq!(sent, [times[0], times[0], times[2], times[3]]);
}

#[test]
fn a_broken_capture_is_named_and_what_came_before_it_is_kept() {
    let folder = Folder::new("broken");
    let one =
        folder.capture("one", &[(0, udp(1, 9)), (5_000_000_000, udp(2, 9)), (9_000_000_000, udp(2, 9))]);
    let whole = std::fs::read(&one).unwrap();
    std::fs::write(&one, &whole[..whole.len() - 7]).unwrap();
    let options = folder.options(folder.flows("actions=2"), vec![(1, Some(one.clone())), (2, None)]);
    let error = quietly(&options).unwrap_err().to_string();
    assert!(error.contains(&one.display().to_string()), "{error}");
    assert_eq!(folder.sent(2).len(), 2, "all packets in front of the broken one");
}

#[test]
fn a_result_never_replaces_a_capture_that_is_read() {
    let folder = Folder::new("overwrite");
    std::fs::create_dir_all(folder.0.join("out")).unwrap();
    let one = folder.capture("out/1.pcap", &[(0, udp(1, 9))]);
    let before = std::fs::read(&one).unwrap();
    let options = folder.options(folder.flows("actions=2"), vec![(1, Some(one.clone())), (2, None)]);
    assert!(matches!(quietly(&options), Err(ReplayError::Overwrites { .. })));
    assert_eq!(std::fs::read(&one).unwrap(), before);
}

#[test]
fn wrong_requests_are_refused_with_a_reason() {
    let folder = Folder::new("refused");
    let flows = folder.flows("actions=2");
    let refused = |options: &Options| quietly(options).unwrap_err().to_string();
    assert!(refused(&folder.options(flows.clone(), vec![])).contains("no ports"));
    assert!(refused(&folder.options(flows.clone(), vec![(1, None), (1, None)])).contains("port"));
    assert!(refused(&folder.options(flows.clone(), vec![(0, None)])).contains("cannot be a port number"));
    assert!(refused(&folder.options(folder.0.join("none"), vec![(1, None)])).contains("cannot read"));
    assert!(refused(&folder.options(flows.clone(), vec![(1, Some(folder.0.join("none")))])).contains("none"));
    assert!(refused(&folder.options(folder.flows("actions=fly"), vec![(1, None)])).contains("fly"));
    let text = folder.flows("actions=2");
    assert!(refused(&folder.options(text.clone(), vec![(1, Some(text))])).contains("flows"));
}

#[test]
fn a_capture_without_packets_gives_captures_without_packets() {
    let folder = Folder::new("empty");
    let one = folder.capture("one", &[]);
    let options = folder.options(folder.flows("actions=2"), vec![(1, Some(one)), (2, None)]);
    assert_eq!(quietly(&options).unwrap().received, 0);
    assert!(folder.sent(2).is_empty());
}

/// The replay of the NAT example, divided, and what came out of both ports in any order.
fn divided(name: &str, layout: Layout) -> (Report, Vec<(u16, String)>) {
    let folder = Folder::new(name);
    let ports = vec![(1, Some(example("inside.pcap"))), (2, None)];
    let options = Options { layout, ..folder.options(example("nat.flows"), ports) };
    let report = quietly(&options).unwrap();
    // The same seed gives the same, to the last byte.
    let first = [1, 2].map(|port| folder.sent(port));
    assert_eq!(quietly(&options).unwrap(), report);
    assert_eq!([1, 2].map(|port| folder.sent(port)), first);
    let frames =
        [1, 2].into_iter().flat_map(|port| folder.sent(port).into_iter().map(move |sent| (port, sent)));
    let mut frames: Vec<_> = frames.map(|(port, (_, frame))| (port, describe(&frame))).collect();
    frames.sort_unstable();
    (report, frames)
}

#[test]
fn several_shards_give_what_one_gives_wherever_packets_arrive() {
    let (alone, expected) = divided("one-shard", Layout::default());
    assert!(alone.shards.is_empty() && !expected.is_empty());
    for arrival in Arrival::ALL {
        for (steered_early, mailbox_delay) in [(true, 0), (true, 7), (false, 0), (false, 7)] {
            let layout =
                Layout { shards: 3, arrival, steered_early, mailbox_delay, seed: 9, ..Layout::default() };
            println!("{layout:?}");
            let (report, frames) =
                divided(&format!("{}-{steered_early}-{mailbox_delay}", arrival.name()), layout);
            assert_eq!(frames, expected);
            assert_eq!(
                (report.received, report.sent, report.dropped, report.connections.len()),
                (alone.received, alone.sent, alone.dropped, alone.connections.len())
            );
            let sum = |of: fn(&weir::replay::ShardReport) -> u64| report.shards.iter().map(of).sum::<u64>();
            assert_eq!(report.shards.len(), 3);
            assert_eq!(sum(|shard| shard.received), report.received);
            assert_eq!(sum(|shard| shard.connections.into()), report.connections.len() as u64);
            let handed = sum(|shard| shard.handed_over.values().sum());
            assert_eq!(handed, sum(|shard| shard.taken_over.values().sum()));
            assert_eq!(handed > 0, arrival != Arrival::Steered, "{report}");
            assert_eq!(report.to_string().contains("handed over, steered"), handed > 0);
        }
    }
}

#[test]
fn a_full_mailbox_shows_in_the_report() {
    let layout = Layout {
        shards: 2,
        arrival: Arrival::Adverse,
        mailbox_delay: 100,
        mailbox_capacity: 1,
        ..Layout::default()
    };
    let folder = Folder::new("full");
    let one = folder.capture("one", &(0..20).map(|host| (0, udp(host, 9))).collect::<Vec<_>>());
    let flows = folder.flows("ip,actions=ct(commit),2");
    let options = Options { layout, ..folder.options(flows, vec![(1, Some(one)), (2, None)]) };
    let report = quietly(&options).unwrap();
    let refused: u64 = report.shards.iter().flat_map(|shard| shard.refused_full.values()).sum();
    assert!(refused > 0, "{report}");
    assert_eq!(report.dropped_by.get("mailbox_full"), Some(&refused));
    assert_eq!(report.sent + refused, 20);
    assert!(report.to_string().contains("mailbox full, steered"), "{report}");
}

/// The replay of a translation to a pool in zone 5, divided as `text`, a configuration, says.
fn configured(name: &str, text: &str, shards: usize) -> Result<Report, ReplayError> {
    let folder = Folder::new(name);
    let config = weir::config::parse(text, Path::new("weir.toml")).unwrap();
    let hosts: Vec<_> = (1..=60).map(|host| (u64::from(host), udp(host, 9))).collect();
    let one = folder.capture("one", &hosts);
    let flows = folder.flows(
        "ip,in_port=1,actions=ct(commit,zone=5,nat(src=192.0.2.0-192.0.2.7:2000-60000)),2\n\
         ip,in_port=2,actions=ct(zone=5,nat,table=1)\ntable=1,ct_state=+est,actions=1",
    );
    let options = Options {
        shard: config.conntrack.shard(),
        zones: config.conntrack.zones,
        steering: config.steering,
        layout: Layout { shards, ..Layout::default() },
        ..folder.options(flows, vec![(1, Some(one)), (2, None)])
    };
    let out = quietly(&options)?;
    // And what was sent out is answered.
    let answers: Vec<_> =
        folder.sent(2).iter().map(|(time, frame)| (time + 1_000_000, answer(frame))).collect();
    let (asked, answered) = (folder.0.join("one"), folder.capture("two", &answers));
    let options = Options { ports: vec![(1, Some(asked)), (2, Some(answered))], ..options };
    let report = quietly(&options)?;
    assert_eq!(out.connections.len(), report.connections.len());
    Ok(report)
}

/// The packet that answers a UDP packet.
fn answer(frame: &[u8]) -> Vec<u8> {
    let layers = Layers::parse(frame);
    let extracted = Tuple::extract(frame, &layers, 0, ChecksumTrust::NONE).unwrap();
    let Tuple::V4(tuple) = extracted.lookup() else { panic!("IPv4") };
    PacketBuilder::new().ipv4(tuple.dst, tuple.src).udp(tuple.dst_port, tuple.src_port).build()
}

const SUBSCRIBERS: &str = "[[steering.zone]]\nid = 5\nscheme = \"subscriber\"\npool = [\"192.0.2.0/29\"]\n\
    inside = [\"10.1.1.0/24\"]\n";

#[test]
fn subscribers_of_a_configuration_keep_both_directions_at_the_owner_of_their_public_address() {
    // Eight addresses for four shards, and for sixteen: cut into slices.
    for shards in [1, 2, 4, 16] {
        let report = configured(&format!("subscribers-{shards}"), SUBSCRIBERS, shards).unwrap();
        println!("{report}");
        assert_eq!((report.received, report.sent, report.connections.len()), (120, 120, 60));
        let reasons: Vec<_> = report.shards.iter().flat_map(|shard| shard.handed_over.keys()).collect();
        assert!(reasons.is_empty(), "whoever is at the other end: {reasons:?}");
        assert!(report.shards.iter().filter(|shard| shard.connections > 0).count() >= shards.min(4) - 1);
    }
}

#[test]
fn zones_of_a_configuration_have_their_limits_however_many_shards_there_are() {
    let text = format!("[[conntrack.zone]]\nid = 5\nlimit = 7\n{SUBSCRIBERS}");
    for shards in [1, 3] {
        let report = configured(&format!("limit-{shards}"), &text, shards).unwrap();
        assert_eq!((report.connections.len(), report.sent), (7, 14), "{report}");
        assert_eq!(report.conntrack.get("refused_by_zone_limit"), Some(&53));
    }
}

#[test]
fn a_table_that_is_smaller_than_the_number_of_shards_is_refused() {
    let error = configured("table", "[steering]\ntable_size = 2\n", 3).unwrap_err();
    assert!(error.to_string().contains("2 entries is too small for 3 shards"), "{error}");
}
