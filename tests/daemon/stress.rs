//! Two lcores under full load, each with a queue that brings packets of both: connections are handed over, asked for,
//! dumped and flushed, and tables swapped, all at once. In the end every packet and every buffer is accounted for.
//!
//! `WEIR_STRESS_SECONDS` asks for a time in place of a number of packets, `WEIR_STRESS_SEED` for other choices.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::lcores::{answer_of, figures, two_cpus};
use crate::rig::{Daemon, SMALL, Scratch, bridge, udp};

/// Hosts to 63 are answered as they are; those above have their destination or source translated, so that shards ask
/// each other for reply tuples and draw ports of their own.
const FLOWS: &str = "\
in_port=1,ip,ct_state=-trk,actions=ct(nat,table=1)
table=1,priority=20,ip,nw_src=10.1.0.64/26,ct_state=+new,actions=ct(commit,nat(dst=198.51.100.1-198.51.100.3)),2
table=1,priority=20,ip,nw_src=10.1.0.128/26,ct_state=+new,actions=ct(commit,nat(src=192.0.2.1-192.0.2.4:5000-60000)),2
table=1,priority=10,ip,ct_state=+new,actions=ct(commit),2
table=1,priority=10,ip,ct_state=+est,actions=2
";

/// What may become of a packet but that it is sent: the source is faster than the lcores, connections are flushed while
/// packets that they have translated are under way, and in the end the port goes by which the last ones came.
const ALLOWED: [&str; 3] = ["drop_mailbox_full", "drop_stale_connection", "drop_renumbered"];

/// SplitMix64 (Steele, Lea and Flood 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ z >> 31) % end as u64).unwrap()
    }
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap())
}

/// Runs a command. On a machine that gives an lcore no CPU for seconds it may end without an answer, and says so.
fn command(daemon: &Daemon, line: &str, unanswered: &mut u32) -> String {
    let answer = daemon.weir(line);
    let late = answer.stderr.contains("does not answer");
    *unanswered += u32::from(late);
    assert!(answer.status == 0 || late, "{line}: {}", answer.stderr);
    answer.stdout
}

/// Packets dropped, by cause.
fn drops(daemon: &Daemon) -> Vec<(String, u64)> {
    let shown = daemon.ok("appctl coverage/show");
    let names = shown.lines().filter_map(|line| line.split_whitespace().next());
    let count = |name: &str| {
        let count = daemon.ok(&format!("appctl coverage/read-counter {name}"));
        (name.to_owned(), count.trim().parse().unwrap())
    };
    names.filter(|name| name.starts_with("drop_")).map(count).filter(|(_, count)| *count > 0).collect()
}

#[test]
fn two_lcores_under_dumps_flushes_and_swaps_account_for_every_packet_and_buffer() {
    if !two_cpus() {
        return;
    }
    let (seed, seconds) = (number("WEIR_STRESS_SEED", 1), number("WEIR_STRESS_SECONDS", 0));
    println!("seed {seed}");
    let mut random = Random(seed);
    let mut frames = Vec::new();
    for host in 1..=190 {
        let asked = udp(host, u16::from(host).wrapping_mul(0x9e37), 90);
        if host < 64 {
            frames.push(answer_of(&asked));
        }
        frames.push(asked);
    }
    for last in (1..frames.len()).rev() {
        frames.swap(last, random.below(last + 1));
    }
    let scratch = Scratch::new("two-stressed");
    scratch.write("flows", FLOWS);
    let (half, other) = frames.split_at(frames.len() / 2);
    let source = format!(
        "net_pcap0,rx_pcap={},rx_pcap={},tx_pcap=/dev/null,tx_pcap=/dev/null,infinite_rx=1",
        scratch.capture("a.pcap", half),
        scratch.capture("b.pcap", other)
    );
    let config = format!("lcores = \"0-1\"\n{SMALL}{}", bridge(&[&source, "net_null0,no-rx=1"]));
    let mut weir = Command::new(env!("CARGO_BIN_EXE_weir"));
    let mut daemon = Daemon::start_as(scratch, &config, &mut weir, &[]);

    let begin = Instant::now();
    let (mut dumped, mut rows, mut flushed, mut swapped, mut unanswered) = (0, 0, 0, 0, 0);
    let mut run = |daemon: &Daemon, line: &str| command(daemon, line, &mut unanswered);
    let enough = |daemon: &Daemon| match seconds {
        0 => figures(daemon, "taken_over").iter().all(|count| *count > 20_000),
        seconds => begin.elapsed() >= Duration::from_secs(seconds),
    };
    for turn in 0.. {
        // One of each at least.
        match if turn < 5 { turn } else { random.below(5) } {
            0 => {
                rows += run(&daemon, "appctl dpctl/dump-conntrack").lines().count();
                dumped += 1;
            }
            1 => {
                run(&daemon, "appctl dpctl/flush-conntrack");
                flushed += 1;
            }
            2 => {
                run(&daemon, &format!("ct flush src=10.1.0.{}", 1 + random.below(190)));
                flushed += 1;
            }
            3 => {
                // The same in other words, and then others: unchanged flows keep their counters.
                let more = format!("{FLOWS}table=9,priority={},actions=drop\n", random.below(1000));
                let file = daemon.scratch.write("more.flows", &more);
                run(&daemon, &format!("ofctl replace-flows br0 {file}"));
                swapped += 1;
            }
            _ => {
                rows += run(&daemon, "ct list").lines().count().saturating_sub(1);
                dumped += 1;
            }
        }
        if turn >= 20 && enough(&daemon) {
            break;
        }
        assert!(seconds > 0 || begin.elapsed() < Duration::from_secs(60), "hardly a packet moves");
    }
    // No packet comes any more, and those under way arrive before the port has gone.
    daemon.ok("vsctl del-port br0 p1");
    daemon.until("no buffer in use", |daemon| daemon.buffers() == 0);
    let figure = |name: &str| figures(&daemon, name);
    let (received, sent) = (figure("packets"), figure("tx_packets"));
    let (over, taken, refused) = (figure("handed_over"), figure("taken_over"), figure("refused"));
    let drops = drops(&daemon);
    println!(
        "{:?}: received {received:?}, sent {sent:?}, handed over {over:?}, taken over {taken:?}, refused {refused:?}; \
         {drops:?}; {dumped} dumps of {rows} rows, {flushed} flushes, {swapped} swaps, \
         {unanswered} without answer",
        begin.elapsed()
    );
    assert_eq!((over[0], over[1]), (taken[1], taken[0]), "lost between lcores");
    let sum = |counts: &[u64]| counts.iter().sum::<u64>();
    let dropped: u64 = drops.iter().map(|(_, count)| count).sum();
    assert_eq!(sum(&received), sum(&sent) + dropped, "seed {seed}");
    assert_eq!(sum(&sent), daemon.port(2, "tx_packets"));
    for (cause, count) in &drops {
        assert!(ALLOWED.contains(&cause.as_str()), "seed {seed}: {count} by {cause}");
    }
    let full = drops.iter().find(|(cause, _)| cause == ALLOWED[0]).map_or(0, |(_, count)| *count);
    assert_eq!(full, sum(&refused));
    assert!(rows > 0, "dumps saw nothing");
    daemon.ok("appctl dpctl/flush-conntrack");
    assert_eq!(daemon.ok("appctl dpctl/ct-get-nconns"), "0\n");
    assert_eq!(daemon.buffers(), 0);
    daemon.finish();
}
