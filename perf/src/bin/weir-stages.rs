//! `weir-stages` (`perf/stages`): where the cycles of a packet go, see `weir_perf::stages`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use weir_perf::machine::Machine;
use weir_perf::point::{MAX_CONNECTIONS, Point, Traffic};
use weir_perf::process::{Directory, Stop};
use weir_perf::runner::{Runner, reserve};
use weir_perf::stages::report::{Report, Section};
use weir_perf::stages::{Breakdown, StagesError, Symbols, sampling};
use weir_perf::statistics::Summary;
use weir_perf::{BenchError, documents, process};

/// Where the cycles of a packet go, by stage and by line of source: weir-bench measures, then its polling thread is
/// sampled by perf for as long.
///
/// Prints a section of docs/performance.md. Needs root and perf. Reserves 2 MiB hugepages and gives them back.
#[derive(Debug, Parser)]
#[command(name = "weir-stages", version)]
struct Args {
    /// Connections.
    #[arg(long, value_delimiter = ',', default_values_t = [1000, 100_000],
          value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_CONNECTIONS)))]
    connections: Vec<u32>,
    /// What the packets are; new connections are over too quickly to be sampled.
    #[arg(long, value_enum, default_value_t)]
    traffic: Traffic,
    /// Rounds; the figure is the median, samples are put together.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Milliseconds that each measurement counts, and then samples.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    milliseconds: u64,
    /// Lines of source to show.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u16).range(0..=1000))]
    lines: u16,
    /// The CPU that polls. Default: the second, if there is one.
    #[arg(long)]
    cpu: Option<u16>,
    /// Profile lab: no hugepages.
    #[arg(long)]
    lab: bool,
    /// Print one line of JSON, no tables.
    #[arg(long)]
    json: bool,
    /// Also puts the tables into docs/performance.md.
    #[arg(long)]
    renew: bool,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weir-stages: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), StagesError> {
    process::must_be_root()?;
    let stop = Stop::on_signals().map_err(BenchError::at(Path::new("signal handlers")))?;
    let program = program()?;
    let symbols = Symbols::load(&program)?;
    let directory = Directory::new()?;
    let (traffic, milliseconds, lab, cpu) = (args.traffic, args.milliseconds, args.lab, args.cpu);
    let samples = Some(directory.path().join("perf.data"));
    let point = |&connections: &u32| Point {
        traffic,
        connections,
        milliseconds,
        lab,
        cpu,
        samples: samples.clone(),
        ..Point::default()
    };
    let mut points: Vec<Point> = args.connections.iter().map(point).collect();
    points.iter().try_for_each(Point::check).map_err(BenchError::Refused)?;
    let _hugepages = if lab { None } else { reserve(&mut points, directory.path()) };
    let runner = Runner { program: program.clone(), directory: directory.path(), stop: &stop };
    let mut sections = Vec::new();
    for point in points {
        let (mut cycles, mut found) = (Vec::new(), Vec::new());
        for round in 1..=args.rounds {
            cycles.push(runner.run(&point)?.cycles_per_packet());
            found.extend(sampling::read(&directory.path().join("perf.data"))?);
            eprintln!("{} connections, round {round} of {}", point.connections, args.rounds);
        }
        let median = Summary::of(&cycles).map_or(0.0, |summary| summary.median);
        let breakdown = Breakdown::new(&found, &program, &symbols)?;
        sections.push(Section::new(point, median, &breakdown, args.lines.into()));
    }
    let report = Report { machine: Machine::here(), sections };
    let text = report.markdown(Path::new("."));
    if args.renew {
        documents::renew(Path::new("docs/performance.md"), "stages", &text)?;
    }
    if args.json {
        let line = serde_json::to_string(&report).map_err(|error| BenchError::Refused(error.to_string()))?;
        println!("{line}");
    } else {
        print!("{text}");
    }
    Ok(())
}

/// `weir-bench`, beside this one, as perf names it.
fn program() -> Result<PathBuf, BenchError> {
    let own = std::env::current_exe().map_err(BenchError::at(Path::new("the program's own path")))?;
    let program = own.with_file_name("weir-bench");
    std::fs::canonicalize(&program).map_err(BenchError::at(&program))
}
