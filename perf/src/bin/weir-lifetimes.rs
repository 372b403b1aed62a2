//! `weir-lifetimes` (`perf/lifetimes`): connections that begin and end, see `weir_perf::lifetimes`.

use std::process::ExitCode;

use clap::Parser;
use weir_perf::lifetimes::{MAX_CONNECTIONS, Plan, measure, table};

/// What a connection costs that begins, and how long bursts of another take while a million end within a second.
///
/// In this process and without devices, so that the pipeline alone is measured. Needs no root. An lcore's memory is on
/// hugepages of 2 MiB where some are reserved, else on transparent ones.
#[derive(Debug, Parser)]
#[command(name = "weir-lifetimes", version)]
struct Args {
    /// Connections that begin in each round.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=2_000_000))]
    connections: u32,
    /// Connections that live meanwhile, and that end together at last.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=2_000_000))]
    others: u32,
    /// Measurements of set-up, with and without others.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Bursts to compare with, while nothing ends.
    #[arg(long, default_value_t = 500_000, value_parser = clap::value_parser!(u32).range(1..=4_000_000))]
    bursts: u32,
    /// The CPU.
    #[arg(long, default_value_t = 0)]
    core: u32,
    /// Print JSON lines alone, no table.
    #[arg(long)]
    json: bool,
}

const _: () = assert!(2 * 2_000_000 <= MAX_CONNECTIONS);

fn main() -> ExitCode {
    let Args { connections, others, rounds, bursts, core, json } = Args::parse();
    match measure(&Plan { connections, others, rounds, bursts, core }) {
        Ok(rows) => {
            for row in &rows {
                match serde_json::to_string(row) {
                    Ok(line) => println!("{line}"),
                    Err(error) => eprintln!("weir-lifetimes: {error}"),
                }
            }
            if !json {
                print!("\n{}", table(&rows));
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("weir-lifetimes: {error}");
            ExitCode::FAILURE
        }
    }
}
