//! One point of the bench: what traffic, over how many connections, with which settings. `weir-bench` measures each in
//! a process of its own, which is told by the same options that a person would give it (`weir-bench one --help`).

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::frames::{Family, Frames, Transport};

/// A kind of traffic.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Traffic {
    /// The generator and its devices without weir: what is received by one port is sent by the other.
    Harness,
    /// From port to port by one flow, without tracking.
    Forward,
    /// Established connections through examples/acl.flows or acl6.flows, both directions in equal parts.
    Acl,
    /// Established connections through the README's NAT table, examples/nat.flows, both directions in equal parts.
    #[default]
    Established,
    /// The README's NAT table, every packet opens a connection.
    New,
    /// Likewise, 100 000 connections beside so many that are there already.
    NewBeside,
}

impl Traffic {
    /// As it is typed.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Harness => "harness",
            Self::Forward => "forward",
            Self::Acl => "acl",
            Self::Established => "established",
            Self::New => "new",
            Self::NewBeside => "new-beside",
        }
    }
}

/// Connections that [`Traffic::NewBeside`] opens.
pub const OPENED_BESIDE: u32 = 100_000;

/// Packets that weir receives at once, at most and by default.
#[expect(clippy::cast_possible_truncation, reason = "some tens")]
const MOST: u8 = weir_ffi::BURST as u8;

/// Most connections: 10 million, and what is opened beside them.
pub const MAX_CONNECTIONS: u32 = 20_000_000;

/// What is measured.
#[derive(Clone, Debug, PartialEq, Eq, Args, Serialize, Deserialize)]
pub struct Point {
    /// What the packets are.
    #[arg(long, value_enum, default_value_t)]
    pub traffic: Traffic,
    /// Connections.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_CONNECTIONS)))]
    pub connections: u32,
    /// Transport protocol.
    #[arg(long, value_enum, default_value_t)]
    pub transport: Transport,
    /// Version of IP; NAT is measured with 4.
    #[arg(long, value_enum, default_value_t)]
    pub ip: Family,
    /// Lengths of frames.
    #[arg(long, value_enum, default_value_t)]
    pub frames: Frames,
    /// Milliseconds that are counted; new connections are counted until there are as many as asked for.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    pub milliseconds: u64,
    /// Packets that weir receives at once.
    #[arg(long, default_value_t = MOST, value_parser = clap::value_parser!(u8).range(1..=i64::from(MOST)))]
    pub burst: u8,
    /// Without trajectories.
    #[arg(long)]
    pub no_trajectories: bool,
    /// Profile lab: no hugepages.
    #[arg(long)]
    pub lab: bool,
    /// The CPU that polls. Default: the second, if there is one.
    #[arg(long)]
    pub cpu: Option<u16>,
    /// After it was counted, the polling thread is sampled for as long by perf, into this file.
    #[arg(long)]
    #[serde(skip)]
    pub samples: Option<PathBuf>,
}

impl Default for Point {
    fn default() -> Self {
        Self {
            traffic: Traffic::default(),
            connections: 1000,
            transport: Transport::default(),
            ip: Family::default(),
            frames: Frames::default(),
            milliseconds: 1000,
            burst: MOST,
            no_trajectories: false,
            lab: false,
            cpu: None,
            samples: None,
        }
    }
}

impl Point {
    /// The options that say the same.
    #[must_use]
    pub fn options(&self) -> Vec<String> {
        fn name(value: impl clap::ValueEnum) -> String {
            value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
        }
        let mut options: Vec<String> = [
            ("--traffic", name(self.traffic)),
            ("--connections", self.connections.to_string()),
            ("--transport", name(self.transport)),
            ("--ip", name(self.ip)),
            ("--frames", name(self.frames)),
            ("--milliseconds", self.milliseconds.to_string()),
            ("--burst", self.burst.to_string()),
        ]
        .into_iter()
        .flat_map(|(option, value)| [option.to_owned(), value])
        .collect();
        if self.no_trajectories {
            options.push("--no-trajectories".to_owned());
        }
        if self.lab {
            options.push("--lab".to_owned());
        }
        if let Some(cpu) = self.cpu {
            options.extend(["--cpu".to_owned(), cpu.to_string()]);
        }
        if let Some(samples) = &self.samples {
            options.extend(["--samples".to_owned(), samples.to_string_lossy().into_owned()]);
        }
        options
    }

    /// How long to count.
    #[must_use]
    pub const fn time(&self) -> Duration {
        Duration::from_millis(self.milliseconds)
    }

    /// Connections there must be room for.
    #[must_use]
    pub const fn capacity(&self) -> u32 {
        match self.traffic {
            Traffic::NewBeside => self.connections + OPENED_BESIDE,
            _ => self.connections,
        }
    }

    /// The CPU that polls.
    #[must_use]
    pub fn polling_cpu(&self) -> u16 {
        self.cpu.unwrap_or_else(|| {
            u16::from(std::thread::available_parallelism().is_ok_and(|cpus| cpus.get() > 1))
        })
    }

    /// Why this cannot be measured, if it cannot.
    ///
    /// # Errors
    /// For people.
    pub fn check(&self) -> Result<(), String> {
        let is_endless = matches!(self.traffic, Traffic::Forward | Traffic::Acl | Traffic::Established);
        if self.samples.is_some() && !is_endless {
            return Err(format!(
                "{} cannot be sampled: take --traffic forward, acl or established",
                self.traffic.name()
            ));
        }
        let translated = matches!(self.traffic, Traffic::Established | Traffic::New | Traffic::NewBeside);
        if translated && self.ip == Family::V6 {
            return Err(format!(
                "{} is measured with examples/nat.flows, which translate IPv4; with --ip 6 take --traffic acl",
                self.traffic.name()
            ));
        }
        Ok(())
    }
}

/// What came of a point, and one JSON line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Packets received while it counted.
    pub packets: u64,
    /// Ticks of the time stamp counter in rounds with packets.
    pub cycles: u64,
    /// Packets sent.
    pub sent: u64,
    /// Connections in the table afterwards.
    pub connections: u64,
    /// Ticks of the time stamp counter in a second.
    pub tsc_hz: u64,
    /// False if built with the feature no-prefetch.
    pub prefetch: bool,
}

impl Default for Outcome {
    fn default() -> Self {
        let prefetch = !cfg!(feature = "no-prefetch");
        Self { packets: 0, cycles: 0, sent: 0, connections: 0, tsc_hz: 0, prefetch }
    }
}

impl Outcome {
    /// Ticks for each packet.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counters of a few minutes stay below 2^53")]
    pub fn cycles_per_packet(&self) -> f64 {
        self.cycles as f64 / self.packets.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Typed {
        #[command(flatten)]
        point: Point,
    }

    fn parse(options: &[String]) -> Result<Point, String> {
        let words = std::iter::once("one".to_owned()).chain(options.iter().cloned());
        Typed::try_parse_from(words).map(|typed| typed.point).map_err(|error| error.to_string())
    }

    #[test]
    fn options_say_what_the_point_is() {
        assert_eq!(parse(&[]).as_ref(), Ok(&Point::default()));
        let point = Point {
            traffic: Traffic::NewBeside,
            connections: 10_000_000,
            transport: Transport::Tcp,
            ip: Family::V6,
            frames: Frames::Mix,
            milliseconds: 7,
            burst: 4,
            no_trajectories: true,
            lab: true,
            cpu: Some(300),
            samples: Some("/x/y z".into()),
        };
        assert_eq!(parse(&point.options()), Ok(point));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for words in [
            ["--connections", "0"],
            ["--connections", "20000001"],
            ["--burst", "0"],
            ["--burst", "65"],
            ["--ip", "5"],
            ["--traffic", "nat"],
            ["--milliseconds", "0"],
        ] {
            assert!(parse(&words.map(str::to_owned)).is_err(), "{words:?}");
        }
        let six = Point { ip: Family::V6, ..Point::default() };
        assert!(six.check().is_err_and(|reason| reason.contains("acl")));
        assert_eq!(Point { traffic: Traffic::Acl, ..six }.check(), Ok(()));
    }
}
