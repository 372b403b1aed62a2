//! `weir-bench`: see the library. (The rest follows.)
use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use weir_perf::BenchError;
use weir_perf::inside;
use weir_perf::point::Point;
use weir_perf::process::{Directory, Stop};

#[derive(Debug, Parser)]
#[command(name = "weir-bench", version)]
struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Measures one point in this process.
    One(Point),
}

fn main() -> ExitCode {
    match bench(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weir-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn bench(args: &Args) -> Result<(), BenchError> {
    let stop = Stop::on_signals().map_err(BenchError::at(Path::new("signal handlers")))?;
    let directory = Directory::new()?;
    match &args.what {
        What::One(point) => {
            let outcome = inside::run(point, directory.path(), &stop)?;
            println!("{}", serde_json::to_string(&outcome).unwrap_or_default());
            println!("{:.1}", outcome.cycles_per_packet());
        }
    }
    Ok(())
}
