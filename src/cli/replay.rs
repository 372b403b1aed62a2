//! `weir replay` on the command line: its arguments, the progress bar, and the report as text or JSON.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use weir_shard::ShardConfig;

use crate::config::{self, ConfigError, PortNumber, Steering, Zones};
use crate::replay::{self, Arrival, Layout, Options, ReplayError, Report};

/// `weir replay`
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// Flows in ovs-ofctl's language, one a line; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    pub flows: PathBuf,
    /// Groups that flows name, one a line; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    pub groups: Option<PathBuf>,
    /// Packets that come in by port NUMBER (pcap, microseconds or nanoseconds); once for each port. `N=` without a
    /// file is a port that only sends.
    #[arg(long = "port", value_name = "NUMBER=FILE", required = true)]
    pub ports: Vec<PortCapture>,
    /// Where to write the captures of what was sent; made when missing.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Take `[conntrack]` and `[steering]` from this configuration of `weir run`: limits, timeouts, zones, fragments,
    /// who owns what. Its ports, bridges and flows are not used.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Connections there is room for. Default: as configured, and 65536 without a configuration.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1 << 28))]
    pub capacity: Option<u32>,
    /// Draw random numbers (NAT ports among them) from this seed, so that a run can be repeated. Default: a new
    /// one each time, which is printed.
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Divide the connections among so many shards, as so many lcores would; a capture then comes to the same result.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub shards: u8,
    /// Which shard a packet comes to: `steered` (the one that owns it, as with RSS), `random`, `round-robin`, or
    /// `adverse` (always another one).
    #[arg(long, value_name = "HOW", default_value = "steered")]
    pub arrival: Arrival,
    /// Bursts that a packet or a message is under way from shard to shard at the most; how many is drawn. It arrives
    /// before the clock of the captures goes on.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub mailbox_delay: u32,
    /// Packets and messages that can be under way from one shard to another.
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub mailbox_capacity: u32,
    /// Packets of other shards are handed over when a `ct` asks for their connections, not as soon as they are parsed.
    #[arg(long)]
    pub late_steering: bool,
    /// Accept TCP segments outside their window.
    #[arg(long)]
    pub liberal_tcp: bool,
    /// Print the connection table as it is after the last packet.
    #[arg(long)]
    pub dump_conntrack: bool,
    /// Print the flows with their counters after the last packet.
    #[arg(long)]
    pub dump_flows: bool,
    /// Print the result in JSON.
    #[arg(long)]
    pub json: bool,
    /// No progress bar, even on a terminal.
    #[arg(long)]
    pub quiet: bool,
}

/// One `--port NUMBER=FILE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortCapture {
    /// The port.
    pub number: PortNumber,
    /// What comes in by it.
    pub capture: Option<PathBuf>,
}

impl FromStr for PortCapture {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, file) =
            text.split_once('=').ok_or("write it as NUMBER=FILE, for example 1=inside.pcap")?;
        let number =
            number.parse().ok().and_then(PortNumber::new).ok_or_else(|| {
                format!("\"{number}\" is no port number; ports are 1 to {}", PortNumber::MAX)
            })?;
        Ok(Self { number, capture: (!file.is_empty()).then(|| PathBuf::from(file)) })
    }
}

impl ReplayArgs {
    /// What clap cannot see: a port given twice.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> Result<(), String> {
        let stdin = std::path::Path::new("-");
        if self.flows == stdin && self.groups.as_deref() == Some(stdin) {
            return Err("flows and groups cannot both come from standard input".into());
        }
        let mut seen = std::collections::BTreeSet::new();
        match self.ports.iter().find(|port| !seen.insert(port.number)) {
            Some(port) => Err(format!("--port {} is given twice; merge its captures first", port.number)),
            None => Ok(()),
        }
    }
}

/// Captures shorter than this are replayed before a progress bar could be read, in bytes.
const WORTH_A_BAR: u64 = 32 << 20;
const ORDERLY: u8 = 0;
const FAILED: u8 = 1;
const WRONG_INPUT: u8 = 2;

/// Runs `weir replay`; the exit status.
#[must_use]
pub fn replay(args: &ReplayArgs) -> u8 {
    if let Err(message) = args.check() {
        eprintln!("weir replay: {message}");
        return WRONG_INPUT;
    }
    let Some(seed) = args.seed.or_else(|| getrandom::u64().ok()) else {
        eprintln!("weir replay: the system gave no random numbers; give a seed with --seed");
        return FAILED;
    };
    let options = match options(args, seed) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("weir replay: {error}");
            return WRONG_INPUT;
        }
    };
    let bar = progress_bar(args);
    match replay::run(&options, &mut |bytes| bar.set_position(bytes)) {
        Ok(report) => {
            bar.finish_and_clear();
            print(args, &report, seed)
        }
        Err(error) => {
            bar.abandon();
            eprintln!("weir replay: {error}");
            if matches!(error, ReplayError::Write { .. }) { FAILED } else { WRONG_INPUT }
        }
    }
}

/// Connections there is room for where nobody says how many.
const CAPACITY: u32 = 65_536;

fn options(args: &ReplayArgs, seed: u64) -> Result<Options, ConfigError> {
    let (mut shard, zones, steering) = match &args.config {
        Some(path) => {
            let config = config::load(path)?;
            (config.conntrack.shard(), config.conntrack.zones, config.steering)
        }
        None => {
            let shard =
                ShardConfig { capacity: CAPACITY, max_connections: CAPACITY, ..ShardConfig::default() };
            (shard, Zones::default(), Steering::default())
        }
    };
    if let Some(capacity) = args.capacity {
        (shard.capacity, shard.max_connections) = (capacity, capacity);
    }
    shard.liberal_tcp |= args.liberal_tcp;
    Ok(Options {
        flows: args.flows.clone(),
        groups: args.groups.clone(),
        ports: args.ports.iter().map(|port| (port.number.number(), port.capture.clone())).collect(),
        out: args.out.clone(),
        shard,
        zones,
        steering,
        seed,
        layout: Layout {
            shards: args.shards.into(),
            arrival: args.arrival,
            steered_early: !args.late_steering,
            mailbox_delay: args.mailbox_delay,
            mailbox_capacity: usize::try_from(args.mailbox_capacity).unwrap_or(usize::MAX),
            seed,
            ..Layout::default()
        },
    })
}

/// Shown on a terminal for captures that take a while.
fn progress_bar(args: &ReplayArgs) -> ProgressBar {
    let captures = args.ports.iter().filter_map(|port| port.capture.as_ref());
    let bytes = captures.filter_map(|path| std::fs::metadata(path).ok()).map(|file| file.len()).sum();
    if args.quiet || bytes < WORTH_A_BAR || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta} left");
    let bar = ProgressBar::new(bytes);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// The report with what was asked for beside it.
#[derive(serde::Serialize)]
struct Shown<'a> {
    seed: u64,
    #[serde(flatten)]
    report: &'a Report,
}

fn print(args: &ReplayArgs, report: &Report, seed: u64) -> u8 {
    if args.json {
        return match serde_json::to_string_pretty(&Shown { seed, report }) {
            Ok(text) => {
                println!("{text}");
                ORDERLY
            }
            Err(error) => {
                eprintln!("weir replay: {error}");
                FAILED
            }
        };
    }
    print!("{report}");
    if args.seed.is_none() {
        println!("seed         {seed}");
    }
    for (asked, title, lines) in [
        (args.dump_flows, "flows", &report.flows),
        (args.dump_conntrack, "connection table", &report.connections),
    ] {
        if asked {
            println!("\n{title}");
            lines.iter().for_each(|line| println!("  {}", line.trim_start()));
        }
    }
    ORDERLY
}
