//! The `weir` program: parses the command line and hands over. What a command does is in the library.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::sync::Arc;

use weir::cli::{self, Command, ConfigCommand};
use weir::config::{self, Config};
use weir::control::Engine;
use weir::flow::FlowMod;

fn main() -> ExitCode {
    let cli = match cli::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(status) => return status.into(),
    };
    let status = match cli.command {
        Command::Run(args) => cli::run(&args, launch),
        Command::Replay(args) => replay(&args),
        Command::Ofctl(args) => cli::ofctl(args),
        Command::Appctl(args) => cli::appctl(args),
        Command::Vsctl(args) => cli::vsctl(args),
        Command::Config(args) => match args.command {
            ConfigCommand::Example => {
                print!("{}", config::EXAMPLE);
                0
            }
        },
    };
    status.into()
}

/// The seam to the datapath over DPDK.
fn launch(_: &Config, _: Vec<Vec<FlowMod>>) -> Result<Arc<dyn Engine>, String> {
    Err("this build has no datapath over DPDK".into())
}

/// The seam to the replay engine.
fn replay(args: &cli::ReplayArgs) -> u8 {
    let reason = args.check().err().unwrap_or_else(|| "this build has no replay engine".into());
    eprintln!("weir replay: {reason}");
    2
}
