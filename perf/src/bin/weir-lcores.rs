//! `weir-lcores` (`perf/lcores`): two lcores beside one, and commands under full load, see `weir_perf::scale` and
//! `weir_perf::load`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use weir_perf::hugepages::Hugepages;
use weir_perf::load::{self, Command, Load};
use weir_perf::process::{Directory, Stop};
use weir_perf::scale::{self, Arrival, Scale};
use weir_perf::switch::{Kind, MEMORY_MIB, Setup, Switch};
use weir_perf::traffic::MAX_FLOWS;
use weir_perf::{BenchError, process};

/// Pages of 2 MiB beside the packet memory: queues, rings, and the connections' table.
const SPARE_PAGES: u64 = 128;
/// Likewise, for the table of a million connections.
const TABLE_PAGES: u64 = 320;

/// What a second lcore brings, and what commands cost under full load.
///
/// Packets of 64 bytes come from captures that DPDK's net_pcap loops from memory, one a queue, and go to net_null. Needs
/// root and two CPUs. Reserves 2 MiB hugepages and gives them back; without hugepages weir runs in profile lab.
#[derive(Debug, Parser)]
#[command(name = "weir-lcores", version)]
struct Args {
    #[command(subcommand)]
    what: What,
    /// Profile lab: no hugepages.
    #[arg(long, global = true)]
    lab: bool,
    /// Print JSON lines alone, no table.
    #[arg(long, global = true)]
    json: bool,
    /// The program `weir`. Default: beside this one.
    #[arg(long, global = true)]
    weir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Packets per second of one lcore and of two, in turn.
    Scale {
        /// Rounds.
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
        rounds: u32,
        /// Milliseconds that each measurement counts.
        #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=600_000))]
        milliseconds: u64,
        /// Connections.
        #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(2..=i64::from(MAX_FLOWS)))]
        sessions: u32,
        /// What arrives where.
        #[arg(long, value_enum, value_delimiter = ',',
              default_values_t = [Arrival::Forward, Arrival::Owner, Arrival::Wrong, Arrival::Random])]
        arrivals: Vec<Arrival>,
    },
    /// What is forwarded while connections are dumped or flushed, or flows replaced. The lcore is on the second CPU.
    Load {
        /// Rounds over all commands.
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
        rounds: u32,
        /// Milliseconds that the rate is measured before and after.
        #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u64).range(1..=600_000))]
        milliseconds: u64,
        /// Connections.
        #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(800_000..=1_200_000))]
        connections: u32,
        /// Connections that packets belong to.
        #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_FLOWS)))]
        flows: u32,
        /// Flows in the table that is replaced.
        #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
        table: u32,
        /// Commands.
        #[arg(long, value_enum, value_delimiter = ',',
              default_values_t = [Command::Nothing, Command::Dump, Command::Flush, Command::Swap])]
        commands: Vec<Command>,
    },
}

fn main() -> ExitCode {
    match bench(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weir-lcores: {error}");
            ExitCode::FAILURE
        }
    }
}

fn bench(args: &Args) -> Result<(), BenchError> {
    process::must_be_root()?;
    if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        return Err(BenchError::OneCpu);
    }
    let stop = Stop::on_signals().map_err(BenchError::at(Path::new("signal handlers")))?;
    let weir = process::weir_program(args.weir.as_deref())?;
    // Dropped in the reverse order: hugepages, directory.
    let directory = Directory::new()?;
    let table = if matches!(args.what, What::Load { .. }) { TABLE_PAGES } else { 0 };
    let hugepages = (!args.lab).then(|| {
        Hugepages::reserve(u64::from(MEMORY_MIB / 2) + SPARE_PAGES + table, &directory.path().join("huge"))
            .inspect_err(|reason| eprintln!("No hugepages ({reason}): profile lab."))
            .ok()
    });
    let hugepages = hugepages.flatten();
    let setup = Setup {
        weir,
        cores: vec![1],
        other_core: 0,
        settings: "",
        hugepages: hugepages.is_some(),
        stop: stop.clone(),
    };
    match &args.what {
        What::Scale { rounds, milliseconds, sessions, arrivals } => {
            let time = Duration::from_millis(*milliseconds);
            let scale = Scale { sessions: *sessions, time, stop: &stop };
            let figures = scale
                .rounds(&setup, directory.path(), *rounds, arrivals, &mut |figure| print_json(figure))?;
            let rows = scale::rows(&figures);
            rows.iter().for_each(print_json);
            if !args.json {
                print!("\n{}", scale::table(&rows));
            }
        }
        What::Load { rounds, milliseconds, connections, flows, table, commands } => {
            let setup = Setup { settings: load::SETTINGS, ..setup };
            let switch = Switch::start(Kind::Weir, &setup, directory.path().join("load"))?;
            let load = Load {
                switch: &switch,
                connections: *connections,
                flows: *flows,
                table: *table,
                time: Duration::from_millis(*milliseconds),
                stop: &stop,
            };
            load.start()?;
            let mut figures = Vec::new();
            for round in 1..=*rounds {
                for command in commands {
                    eprintln!("round {round} of {rounds}: {command}");
                    let figure = load.run(*command, round)?;
                    print_json(&figure);
                    figures.push(figure);
                }
            }
            let rows = load::rows(&figures);
            rows.iter().for_each(print_json);
            if !args.json {
                print!("\n{}", load::table(&rows));
            }
        }
    }
    Ok(())
}

fn print_json(value: &impl serde::Serialize) {
    match serde_json::to_string(value) {
        Ok(line) => println!("{line}"),
        Err(error) => eprintln!("weir-lcores: {error}"),
    }
}
