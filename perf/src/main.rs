//! `weir-bench` (`perf/bench`): cycles for each packet of weir, over kinds of traffic and numbers of connections.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use weir_perf::machine::Machine;
use weir_perf::matrix::Axes;
use weir_perf::point::Point;
use weir_perf::process::{Directory, Stop};
use weir_perf::results::{Figure, Results, name, rows, short};
use weir_perf::runner::{Runner, reserve};
use weir_perf::scale::{self, Arrival, Scale};
use weir_perf::switch::{MEMORY_MIB, Setup};
use weir_perf::{BenchError, documents, hugepages::Hugepages, inside, process};

/// Pages of 2 MiB beside the packet memory, with two lcores: queues, rings, tables.
const SPARE_PAGES: u64 = 384;
/// What the two lcores are measured over.
const SCALE_SESSIONS: u32 = 10_000;

/// Cycles for each packet on one polling core, and what a second one brings.
///
/// Packets are made up where a driver would receive them (net_null and a generator), go through the datapath that `weir run`
/// serves, and are freed where a driver would send them. Each point has a process of its own, ahead of ordinary ones:
/// connections are set up and counted, then packets are measured, then everything received must have been sent. The
/// figures are medians over the rounds. Needs root. Reserves 2 MiB hugepages and gives them back.
#[derive(Debug, Parser)]
#[command(name = "weir-bench", version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    bench: Bench,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Measures one point in this process and prints one line of JSON: the thing to profile.
    One(Point),
}

#[derive(Debug, Args)]
struct Bench {
    /// A few points, one round: a minute.
    #[arg(long)]
    quick: bool,
    /// Rounds over all points. Default: 5, with --quick 1.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: Option<u32>,
    /// Milliseconds that each measurement counts. Default: 1000, with --quick 300.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    milliseconds: Option<u64>,
    #[command(flatten)]
    axes: Axes,
    /// Numbers of lcores: 1 measures the points, 2 what a second one brings. Default: both; with axes or --quick 1.
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u8).range(1..=2))]
    lcores: Vec<u8>,
    /// The CPU that polls. Default: the second, if there is one.
    #[arg(long)]
    cpu: Option<u16>,
    /// Profile lab: no hugepages.
    #[arg(long)]
    lab: bool,
    /// Where results go: bench.json, bench.md, bench.svg.
    #[arg(long, default_value = "target/perf")]
    out: PathBuf,
    /// Also puts figures and plot into docs/performance.md.
    #[arg(long)]
    renew: bool,
    /// The program `weir`, which --lcores 2 runs. Default: beside this one.
    #[arg(long)]
    weir: Option<PathBuf>,
}

fn main() -> ExitCode {
    let Arguments { what, bench } = Arguments::parse();
    let result = match what {
        Some(What::One(point)) => one(&point),
        None => bench.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weir-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn one(point: &Point) -> Result<(), BenchError> {
    let stop = Stop::on_signals().map_err(BenchError::at(Path::new("signal handlers")))?;
    let directory = Directory::new()?;
    let outcome = inside::run(point, directory.path(), &stop)?;
    println!("{}", serde_json::to_string(&outcome).map_err(|error| BenchError::Refused(error.to_string()))?);
    Ok(())
}

impl Bench {
    fn run(&self) -> Result<(), BenchError> {
        process::must_be_root()?;
        let stop = Stop::on_signals().map_err(BenchError::at(Path::new("signal handlers")))?;
        std::fs::create_dir_all(&self.out).map_err(BenchError::at(&self.out))?;
        let base = Point {
            milliseconds: self.milliseconds.unwrap_or(if self.quick { 300 } else { 1000 }),
            lab: self.lab,
            cpu: self.cpu,
            ..Point::default()
        };
        let (mut points, refused) = self.axes.points(self.quick, &base);
        refused.iter().for_each(|reason| eprintln!("Left out: {reason}."));
        let rounds = self.rounds.unwrap_or(if self.quick { 1 } else { 5 });
        let lcores = match (self.lcores.as_slice(), self.quick || !self.axes.is_empty()) {
            ([], true) => vec![1],
            ([], false) => vec![1, 2],
            (given, _) => given.to_vec(),
        };
        if !lcores.contains(&1) {
            points.clear();
        } else if points.is_empty() {
            return Err(BenchError::Refused("nothing of what was asked for can be measured".to_owned()));
        }
        let directory = Directory::new()?;
        let figures = measure(&mut points, rounds, self.lab, directory.path(), &stop)?;
        let scaled = if lcores.contains(&2) {
            self.scale(rounds, &base, directory.path(), &stop)?
        } else {
            Vec::new()
        };
        let results =
            Results { machine: Machine::here(), rounds, rows: rows(&figures), figures, lcores: scaled };
        self.write(&results)
    }

    /// What a second lcore brings, by `weir_perf::scale`.
    fn scale(
        &self,
        rounds: u32,
        base: &Point,
        directory: &Path,
        stop: &Stop,
    ) -> Result<Vec<scale::Row>, BenchError> {
        if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
            eprintln!("Left out: two lcores need two CPUs.");
            return Ok(Vec::new());
        }
        let pages = u64::from(MEMORY_MIB / 2) + SPARE_PAGES;
        let hugepages = if self.lab { None } else { Hugepages::reserve(pages, &directory.join("huge")).ok() };
        let setup = Setup {
            weir: process::weir_program(self.weir.as_deref())?,
            cores: Vec::new(),
            other_core: 0,
            settings: scale::SETTINGS,
            hugepages: hugepages.is_some(),
            stop: stop.clone(),
        };
        let scale = Scale { sessions: SCALE_SESSIONS, time: base.time(), stop };
        let all = [Arrival::Forward, Arrival::Owner, Arrival::Wrong, Arrival::Random];
        let figures = scale.rounds(&setup, directory, rounds, &all, &mut |_| {})?;
        Ok(scale::rows(&figures))
    }

    fn write(&self, results: &Results) -> Result<(), BenchError> {
        let json =
            serde_json::to_string_pretty(results).map_err(|error| BenchError::Refused(error.to_string()))?;
        for (name, text) in
            [("bench.json", json), ("bench.md", results.markdown()), ("bench.svg", results.plot())]
        {
            let file = self.out.join(name);
            std::fs::write(&file, text).map_err(BenchError::at(&file))?;
        }
        if self.renew {
            documents::renew(Path::new("docs/performance.md"), "bench", &results.markdown())?;
            let plot = Path::new("docs/performance.svg");
            std::fs::write(plot, results.plot()).map_err(BenchError::at(plot))?;
        }
        print!("{}", results.table());
        eprintln!("{} has everything as JSON, markdown and SVG.", self.out.display());
        Ok(())
    }
}

fn measure(
    points: &mut Vec<Point>,
    rounds: u32,
    lab: bool,
    directory: &Path,
    stop: &Stop,
) -> Result<Vec<Figure>, BenchError> {
    let _hugepages = if lab { None } else { reserve(points, directory) };
    let program = std::env::current_exe().map_err(BenchError::at(Path::new("the bench's own path")))?;
    let runner = Runner { program, directory, stop };
    let mut figures = Vec::new();
    for round in 1..=rounds {
        for point in points.iter() {
            let outcome = runner.run(point)?;
            let figure = Figure::new(point.clone(), round, outcome);
            let (name, connections) = (name(point), short(point.connections));
            eprintln!("round {round} of {rounds}: {name}, {connections}: {:.1}", figure.cycles_per_packet);
            figures.push(figure);
        }
        // What is left of one round's disturbance is not the next one's.
        stop.pause(Duration::from_millis(100))?;
    }
    Ok(figures)
}
