//! `weir-reclaim` (`perf/reclaim`): crossbeam-epoch beside seize, see `weir_perf::reclaim`.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use weir_perf::reclaim::{Plan, Row, measure};

/// What a look at shared data costs an lcore under crossbeam-epoch and under seize, in nanoseconds: medians, in brackets
/// the least. On a machine that does other things too, build it and then run `chrt -f 10 target/release/weir-reclaim`.
#[derive(Debug, Parser)]
#[command(name = "weir-reclaim", version)]
struct Args {
    /// Measurements of each figure.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u16).range(1..))]
    samples: u16,
    /// Looks in each of them.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    looks: u32,
    /// Microseconds between two changes.
    #[arg(long, default_value_t = 1000)]
    period: u64,
    /// The CPU that looks.
    #[arg(long, default_value_t = 1)]
    core: u32,
    /// The CPU that changes.
    #[arg(long, default_value_t = 0)]
    other_core: u32,
    /// Print JSON lines alone.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let plan = Plan {
        samples: usize::from(args.samples),
        looks: args.looks,
        period: Duration::from_micros(args.period),
        cpus: [args.core, args.other_core],
    };
    match measure(&plan) {
        Ok(rows) => {
            print(&rows.unwrap_or_default(), args.json);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("weir-reclaim: {error}");
            ExitCode::FAILURE
        }
    }
}

fn print(rows: &[Row], json: bool) {
    if !json {
        println!("{:<9} {:<56} {:>16} {:>16} {:>18}", "data", "way", "look", "while changing", "change");
    }
    for row in rows {
        if json {
            match serde_json::to_string(row) {
                Ok(line) => println!("{line}"),
                Err(error) => eprintln!("weir-reclaim: {error}"),
            }
            continue;
        }
        let figure =
            |summary: weir_perf::statistics::Summary| format!("{:.1} ({:.1})", summary.median, summary.min);
        let (quiet, changing, change) = (figure(row.quiet), figure(row.changing), figure(row.change));
        println!("{:<9} {:<56} {quiet:>16} {changing:>16} {change:>18}", row.data, row.way);
    }
}
