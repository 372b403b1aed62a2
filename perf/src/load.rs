//! What commands cost under full load: one lcore forwards established connections as fast as it can while all
//! connections are dumped, one zone of them is flushed, or its table of flows is replaced again and again.
//! `weir-lcores load` is the program. Packets and time come from the lcore's own counters, read at one moment between
//! two bursts, so the time includes everything that the lcore did beside packets.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::BenchError;
use crate::process::Stop;
use crate::statistics::Summary;
use crate::switch::Switch;
use crate::traffic::{self, Flow};

/// Room for the connections, which must not expire meanwhile, and a key word.
pub const SETTINGS: &str = "[conntrack]\ncapacity = 1_500_000\n\
    [conntrack.timeouts]\nudp_first = 7200\nudp_single = 7200\nudp_multiple = 7200\n";
/// NAT in two zones: the inside network says which, and the public addresses.
const FLOWS: &str = include_str!("../zones.flows");
/// From this connection on they are in zone 2: the first address with a second octet of 48.
const ZONE_2: u32 = 48 << 14;
/// Caches fill, megaflows are made.
const SETTLE: Duration = Duration::from_millis(700);
/// For a million connections to be set up.
const SET_UP: Duration = Duration::from_secs(120);

/// A command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Command {
    /// None: how much the rate varies by itself.
    Nothing,
    /// All connections are listed.
    Dump,
    /// The connections of zone 2 are ended.
    Flush,
    /// The flow table is replaced, again and again.
    Swap,
}

impl std::fmt::Display for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Nothing => "nothing",
            Self::Dump => "dump",
            Self::Flush => "flush",
            Self::Swap => "swap",
        })
    }
}

/// One measurement, and one JSON line.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Figure {
    /// What was going on.
    pub command: Command,
    /// From 1.
    pub round: u32,
    /// How long that took.
    pub seconds: f64,
    /// Connections listed or ended, or tables replaced.
    pub units: u64,
    /// Packets sent in a thousand time stamp counter ticks, right before.
    pub rate_before: f64,
    /// Meanwhile.
    pub rate_during: f64,
    /// Right after.
    pub rate_after: f64,
    /// Part of the packets that were not forwarded meanwhile: the rate held against the mean of before and after.
    pub cost: f64,
    /// Packets that were received meanwhile and not sent.
    pub lost: u64,
}

/// The figures of one command.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Row {
    /// Which.
    pub command: Command,
    /// How long it took.
    pub seconds: Summary,
    /// Connections listed or ended, or tables replaced, in the first round.
    pub units: u64,
    /// Per cent of the packets that were not forwarded meanwhile.
    pub cost: Summary,
    /// Packets that were received meanwhile and not sent, in all rounds.
    pub lost: u64,
}

/// What all rounds have in common.
#[derive(Debug)]
pub struct Load<'a> {
    /// The switch, with one lcore.
    pub switch: &'a Switch,
    /// All connections.
    pub connections: u32,
    /// Those that packets belong to.
    pub flows: u32,
    /// Flows in the table that is replaced.
    pub table: u32,
    /// How long the rate is measured before and after, and tables are replaced.
    pub time: Duration,
    /// Ends every wait.
    pub stop: &'a Stop,
}

/// What the lcore has counted.
#[derive(Clone, Copy)]
struct Sample {
    received: u64,
    sent: u64,
    cycles: u64,
}

impl Sample {
    fn of(switch: &Switch) -> Result<Self, BenchError> {
        let mut sum = Self { received: 0, sent: 0, cycles: 0 };
        for lcore in switch.lcores()? {
            sum.received += lcore.packets;
            sum.sent += lcore.tx_packets;
            sum.cycles += lcore.ticks();
        }
        Ok(sum)
    }

    #[expect(clippy::cast_precision_loss, reason = "counters of a few minutes stay below 2^53")]
    fn rate_since(&self, before: &Self) -> f64 {
        let sent = self.sent.saturating_sub(before.sent) as f64;
        1000.0 * sent / self.cycles.saturating_sub(before.cycles).max(1) as f64
    }
}

impl Load<'_> {
    /// Sets the connections up and lets packets flow.
    ///
    /// # Errors
    /// Whatever goes wrong; the switch is to be stopped then.
    pub fn start(&self) -> Result<(), BenchError> {
        let tables = [self.table_file(1)?, self.table_file(2)?];
        self.switch.swap_flows(&tables[0])?;
        self.switch.add_port("pout", 2, "net_null0,no-rx=1")?;
        // Those with traffic first, through a looped capture: no packet of theirs can be missed.
        self.open(
            "load",
            (0..self.flows).map(Flow::numbered).collect(),
            ",infinite_rx=1",
            self.flows.into(),
        )?;
        let connections = traffic::connections(&self.switch.dump_connections()?);
        self.open(
            "rest",
            (self.flows..self.connections).map(Flow::numbered).collect(),
            "",
            self.connections.into(),
        )?;
        let (inside, outside): (Vec<Flow>, Vec<Flow>) = connections.into_iter().unzip();
        for (name, port, flows) in [("pin", 1, inside), ("pback", 3, outside)] {
            let capture = self.switch.file(&format!("{name}.pcap"));
            traffic::write(&capture, flows, u64::from(port) + 1)?;
            let device = format!("net_pcap_{name},infinite_rx=1,rx_pcap={}", capture.display());
            self.switch.add_port(name, port, &device)?;
        }
        self.stop.pause(SETTLE)
    }

    /// Sends a packet of each flow in, until there are so many connections.
    fn open(&self, name: &str, flows: Vec<Flow>, looped: &str, wanted: u64) -> Result<(), BenchError> {
        let capture = self.switch.file(&format!("{name}.pcap"));
        traffic::write(&capture, flows, 1)?;
        self.switch.add_port(name, 4, &format!("net_pcap_{name}{looped},rx_pcap={}", capture.display()))?;
        self.stop.wait_for(&format!("{wanted} connections"), SET_UP, || {
            Ok((self.switch.connections()? >= wanted).then_some(()))
        })?;
        self.switch.del_port(name)
    }

    /// Measures one command; there are as many connections afterwards as before.
    ///
    /// # Errors
    /// Whatever goes wrong; the switch is to be stopped then.
    pub fn run(&self, command: Command, round: u32) -> Result<Figure, BenchError> {
        let first = Sample::of(self.switch)?;
        self.stop.pause(self.time)?;
        let connections = self.switch.connections()?;
        let before = Sample::of(self.switch)?;
        let start = Instant::now();
        let units = self.work(command)?;
        let seconds = start.elapsed().as_secs_f64();
        let during = Sample::of(self.switch)?;
        let left = self.switch.connections()?;
        let settled = Sample::of(self.switch)?;
        self.stop.pause(self.time)?;
        let after = Sample::of(self.switch)?;
        let units = if command == Command::Flush { connections.saturating_sub(left) } else { units };
        if command == Command::Flush {
            let zone = (ZONE_2..self.connections).map(Flow::numbered).collect();
            self.open(&format!("zone{round}"), zone, "", self.connections.into())?;
        }
        let (rate_before, rate_during) = (before.rate_since(&first), during.rate_since(&before));
        let rate_after = after.rate_since(&settled);
        let received = during.received.saturating_sub(before.received);
        Ok(Figure {
            command,
            round,
            seconds,
            units,
            rate_before,
            rate_during,
            rate_after,
            cost: 1.0 - rate_during / f64::midpoint(rate_before, rate_after),
            lost: received.saturating_sub(during.sent.saturating_sub(before.sent)),
        })
    }

    fn work(&self, command: Command) -> Result<u64, BenchError> {
        match command {
            Command::Nothing => self.stop.pause(self.time).map(|()| 0),
            Command::Dump => self.switch.count_dumped_connections(),
            Command::Flush => self.switch.appctl(&["dpctl/flush-conntrack", "zone=2"]).map(|_| 0),
            Command::Swap => {
                let start = Instant::now();
                let mut swaps = 0;
                while start.elapsed() < self.time {
                    self.stop.check()?;
                    swaps += 1;
                    self.switch.swap_flows(&self.table_name(1 + swaps % 2))?;
                }
                Ok(swaps)
            }
        }
    }

    fn table_name(&self, number: u64) -> PathBuf {
        self.switch.file(&format!("table-{number}.flows"))
    }

    /// The NAT flows, and below them as many others as make the table as large as it is to be. Half of them differ from
    /// table to table.
    fn table_file(&self, number: u64) -> Result<PathBuf, BenchError> {
        let file = self.table_name(number);
        let mut text = FLOWS.to_owned();
        let used = u32::try_from(FLOWS.lines().filter(|line| !line.starts_with('#')).count()).unwrap_or(0);
        for index in 0..self.table.saturating_sub(used) {
            let action = if index % 2 == 0 { 5 } else { 5 + number };
            let [_, a, b, c] = index.to_be_bytes();
            text.push_str(&format!(
                "table=1,priority=2,ip,in_port=9,nw_src=172.{a}.{b}.{c},actions={action}\n"
            ));
        }
        std::fs::write(&file, text).map_err(BenchError::at(&file))?;
        Ok(file)
    }
}

/// One row for each command.
#[must_use]
pub fn rows(figures: &[Figure]) -> Vec<Row> {
    let row = |command: Command| {
        let of = || figures.iter().filter(|figure| figure.command == command);
        Some(Row {
            command,
            seconds: Summary::of(&of().map(|figure| figure.seconds).collect::<Vec<_>>())?,
            units: of().next()?.units,
            cost: Summary::of(&of().map(|figure| 100.0 * figure.cost).collect::<Vec<_>>())?,
            lost: of().map(|figure| figure.lost).sum(),
        })
    };
    [Command::Nothing, Command::Dump, Command::Flush, Command::Swap].into_iter().filter_map(row).collect()
}

/// The rows for people.
#[must_use]
pub fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "command       units  seconds  packets not forwarded meanwhile    received and not sent\n",
    );
    for Row { command, seconds, units, cost, lost } in rows {
        let cost = format!("{:.2} % ({:.2} to {:.2})", cost.median, cost.min, cost.max);
        text.push_str(&format!("{command:<8} {units:>10}  {:>7.2}  {cost:<33}  {lost}\n", seconds.median));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_summed_up_by_command() {
        let figure = |command, round, cost, lost| Figure {
            command,
            round,
            seconds: 2.0,
            units: 7,
            rate_before: 4.0,
            rate_during: 4.0 * (1.0 - cost),
            rate_after: 4.0,
            cost,
            lost,
        };
        let figures = [
            figure(Command::Flush, 1, 0.01, 0),
            figure(Command::Dump, 1, 0.005, 1),
            figure(Command::Dump, 2, -0.005, 2),
        ];
        assert_eq!(
            table(&rows(&figures)),
            "command       units  seconds  packets not forwarded meanwhile    received and not sent\n\
             dump              7     2.00  0.00 % (-0.50 to 0.50)             3\n\
             flush             7     2.00  1.00 % (1.00 to 1.00)              0\n"
        );
    }

    #[test]
    fn a_rate_is_packets_by_the_lcores_own_time() {
        let before = Sample { received: 10, sent: 10, cycles: 1000 };
        let after = Sample { received: 40, sent: 30, cycles: 11_000 };
        assert!((after.rate_since(&before) - 2.0).abs() < 1e-9);
    }

    #[test]
    fn connections_of_the_zone_to_flush_are_those_that_its_flows_name() {
        for (number, zone_2) in [(0, false), (ZONE_2 - 1, false), (ZONE_2, true), (1_000_000, true)] {
            let second = Flow::numbered(number).src.0.octets()[1];
            assert_eq!(second & 0xf0 == 48, zone_2, "{number}");
        }
        assert!(FLOWS.contains("nw_src=10.48.0.0/12") && FLOWS.contains("zone=2"));
    }
}
