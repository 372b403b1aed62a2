//! `weir-ablation` (`perf/ablation`): what parts of the packet path are worth, see `weir_perf::ablation`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use weir_perf::ablation::{Measured, Results, Variant, rows};
use weir_perf::machine::Machine;
use weir_perf::point::{MAX_CONNECTIONS, Point};
use weir_perf::process::{Directory, Stop};
use weir_perf::results::{Figure, short};
use weir_perf::runner::{Runner, reserve};
use weir_perf::{BenchError, documents, process};

/// What parts of the packet path are worth: established connections, NAT both ways, as the program ships and with one
/// part taken away, in turn over several rounds.
///
/// `perf/ablation` builds what this needs. Needs root. Reserves 2 MiB hugepages and gives them back.
#[derive(Debug, Parser)]
#[command(name = "weir-ablation", version)]
struct Args {
    /// `weir-bench`, built with the feature no-prefetch.
    #[arg(long)]
    without_prefetch: PathBuf,
    /// Rounds over all variants.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Milliseconds that each measurement counts.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    milliseconds: u64,
    /// Connections.
    #[arg(long, value_delimiter = ',', default_values_t = [1000, 100_000, 1_000_000],
          value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_CONNECTIONS)))]
    connections: Vec<u32>,
    /// What is taken away; whole is measured in any case.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Variant::ALL)]
    variants: Vec<Variant>,
    /// The CPU that polls. Default: the second, if there is one.
    #[arg(long)]
    cpu: Option<u16>,
    /// Profile lab: no hugepages.
    #[arg(long)]
    lab: bool,
    /// Where results go: ablation.json, ablation.md.
    #[arg(long, default_value = "target/perf")]
    out: PathBuf,
    /// Also puts the table into docs/performance.md.
    #[arg(long)]
    renew: bool,
}

fn main() -> ExitCode {
    match ablate(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weir-ablation: {error}");
            ExitCode::FAILURE
        }
    }
}

fn ablate(args: &Args) -> Result<(), BenchError> {
    process::must_be_root()?;
    let stop = Stop::on_signals().map_err(BenchError::at(Path::new("signal handlers")))?;
    std::fs::create_dir_all(&args.out).map_err(BenchError::at(&args.out))?;
    let whole = std::env::current_exe().map_err(BenchError::at(Path::new("the program's own path")))?;
    let whole = whole.with_file_name("weir-bench");
    for program in [&whole, &args.without_prefetch] {
        std::fs::metadata(program).map_err(BenchError::at(program))?;
    }
    let mut variants = vec![Variant::Whole];
    variants.extend(args.variants.iter().filter(|variant| **variant != Variant::Whole));
    let (milliseconds, lab, cpu) = (args.milliseconds, args.lab, args.cpu);
    let point = |&connections: &u32| Point { connections, milliseconds, lab, cpu, ..Point::default() };
    let mut points: Vec<Point> = args.connections.iter().map(point).collect();
    let directory = Directory::new()?;
    let _hugepages = if lab { None } else { reserve(&mut points, directory.path()) };
    let mut figures = Vec::new();
    for round in 1..=args.rounds {
        for point in &points {
            for &variant in &variants {
                let prefetch = variant != Variant::NoPrefetch;
                let program = if prefetch { &whole } else { &args.without_prefetch };
                let runner = Runner { program: program.clone(), directory: directory.path(), stop: &stop };
                let point = variant.of(point);
                let outcome = runner.run(&point)?;
                if outcome.prefetch != prefetch {
                    return Err(BenchError::Refused(format!(
                        "{} was built {} the feature no-prefetch",
                        program.display(),
                        if prefetch { "with" } else { "without" }
                    )));
                }
                let figure = Figure::new(point, round, outcome);
                let (what, connections) = (variant.description(), short(figure.point.connections));
                eprintln!(
                    "round {round} of {}: {what}, {connections}: {:.1}",
                    args.rounds, figure.cycles_per_packet
                );
                figures.push(Measured { variant, figure });
            }
        }
    }
    let results = Results { machine: Machine::here(), rounds: args.rounds, rows: rows(&figures), figures };
    let json =
        serde_json::to_string_pretty(&results).map_err(|error| BenchError::Refused(error.to_string()))?;
    let text = results.markdown();
    for (name, text) in [("ablation.json", &json), ("ablation.md", &text)] {
        let file = args.out.join(name);
        std::fs::write(&file, text).map_err(BenchError::at(&file))?;
    }
    if args.renew {
        documents::renew(Path::new("docs/performance.md"), "ablation", &text)?;
    }
    print!("{text}");
    Ok(())
}
