//! `weir-lab`: the demonstration and the laboratory's housekeeping.
#![forbid(unsafe_code)]

mod demo;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Laboratory of network namespaces for weir.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// The NAT example between two network namespaces; without root, on a capture.
    Demo {
        /// Replay the capture even as root.
        #[arg(long)]
        replay: bool,
    },
    /// Removes what killed runs have left.
    Clean,
}

fn main() -> ExitCode {
    match Arguments::parse().verb {
        Verb::Clean => {
            for name in weir_tools::cleanup::sweep() {
                println!("removed {name}");
            }
            ExitCode::SUCCESS
        }
        Verb::Demo { replay } => match demo::run(replay) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("\nThe demonstration failed: {error}");
                ExitCode::FAILURE
            }
        },
    }
}
