//! `weir-instructions` (`perf/instructions`): instructions a packet beside the baseline, see `weir_perf::instructions`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use serde_json::json;
use weir_perf::instructions::{self, Baseline, Comparison, InstructionsError};

/// Builds the benches, counts their instructions with callgrind and holds the counts a packet against the baseline.
/// Fails when one grew by more than 3 %, or stands on one side alone, unless another compiler made the baseline.
#[derive(Debug, Parser)]
#[command(name = "weir-instructions", version)]
struct Args {
    /// Renew the baseline by what is counted now.
    #[arg(long)]
    save: bool,
    /// Print JSON alone, no table.
    #[arg(long)]
    json: bool,
    /// The baseline.
    #[arg(long, default_value = "perf/instructions.json")]
    baseline: PathBuf,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("weir-instructions: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Says whether the counts pass.
fn run(args: &Args) -> Result<bool, InstructionsError> {
    let old = Baseline::load(&args.baseline);
    let old = if args.save { old.ok() } else { Some(old?) };
    let new = Baseline::new(instructions::compiler()?, &instructions::count()?);
    let comparison = old.map(|old| Comparison::new(&old, &new));
    if args.save {
        new.save(&args.baseline)?;
    }
    if args.json {
        let comparison = comparison.as_ref();
        let line = json!({
            "saved": args.save,
            "gate": comparison.map(Comparison::is_gate),
            "passes": comparison.map(Comparison::passes),
            "comparison": comparison,
        });
        println!("{line}");
    } else if let Some(comparison) = &comparison {
        print!("{}", comparison.table());
        if !args.save {
            println!("{}", comparison.conclusion());
        }
    }
    if args.save {
        eprintln!("weir-instructions: {} benches saved to {}", new.benches.len(), args.baseline.display());
    }
    Ok(args.save || comparison.is_none_or(|comparison| comparison.passes()))
}
