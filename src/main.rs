//! The `weir` program: parses the command line and hands over. What a command does is in the library.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use weir::cli::{self, Command, ConfigCommand};
use weir::config;
use weir::control::Family;

fn main() -> ExitCode {
    let cli = match cli::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(status) => return status.into(),
    };
    let status = match cli.command {
        Command::Run(args) => cli::run(&args, weir::daemon::launch),
        Command::Replay(args) => cli::replay(&args),
        Command::Ofctl(args) => cli::ofctl(args),
        Command::Appctl(args) => cli::appctl(args),
        Command::Vsctl(args) => cli::vsctl(args),
        Command::Show(args) => cli::show(&args),
        Command::Ct(args) => cli::ct(args),
        Command::Zone(args) => cli::native(Family::Zone, args),
        Command::Config(args) => match args.command {
            ConfigCommand::Example => {
                print!("{}", config::EXAMPLE);
                0
            }
        },
    };
    status.into()
}
