//! `weir-bench-ovs` (`perf/bench-ovs`): several rounds over all workloads, weir and OVS-DPDK in turn; then medians.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use weir_perf::hugepages::Hugepages;
use weir_perf::machine::Machine;
use weir_perf::process::{Directory, Stop};
use weir_perf::report::{Figure, markdown, rows, table};
use weir_perf::switch::{Kind, MEMORY_MIB, Setup, Switch, ovs_is_installed};
use weir_perf::traffic::MAX_FLOWS;
use weir_perf::workload::{Measurement, Workload};
use weir_perf::{BenchError, documents, process};

/// Pages of 2 MiB beside the packet memory: queues, rings and what OVS adds.
const SPARE_PAGES: u64 = 128;

/// Cycles a packet on one polling core, of weir and of Debian's OVS-DPDK in the same run.
///
/// Packets of 64 bytes come from captures that DPDK's net_pcap loops from memory; both switches have the README's NAT
/// table. Each round starts both one after the other, ahead of ordinary processes; the figures are medians over the
/// rounds, the ratios those of each round. The output ends with one line of JSON for each workload. Needs root. Reserves
/// 2 MiB hugepages and gives them back; without hugepages weir runs in profile lab, alone.
#[derive(Debug, Parser)]
#[command(name = "weir-bench-ovs", version)]
struct Args {
    /// Rounds over all workloads.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds that each measurement counts.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Connections, one run each.
    #[arg(long, value_delimiter = ',', default_values_t = [1000, 100_000],
          value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_FLOWS)))]
    connections: Vec<u32>,
    /// Workloads.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Workload::Forward, Workload::Established, Workload::New])]
    workloads: Vec<Workload>,
    /// The CPU that polls. Default: the second, if there is one.
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..128))]
    core: Option<u8>,
    /// Measure weir alone.
    #[arg(long)]
    no_ovs: bool,
    /// Profile lab: no hugepages, weir alone.
    #[arg(long)]
    lab: bool,
    /// Print JSON alone: a line for each measurement, then those for each workload.
    #[arg(long)]
    json: bool,
    /// Also puts the figures into README.md and docs/performance.md.
    #[arg(long)]
    renew: bool,
    /// The program `weir`. Default: beside this one.
    #[arg(long)]
    weir: Option<PathBuf>,
}

fn main() -> ExitCode {
    match bench(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weir-bench-ovs: {error}");
            ExitCode::FAILURE
        }
    }
}

fn bench(args: &Args) -> Result<(), BenchError> {
    process::must_be_root()?;
    let stop = Stop::on_signals().map_err(BenchError::at(Path::new("signal handlers")))?;
    let weir = process::weir_program(args.weir.as_deref())?;
    // Dropped in the reverse order: switches, hugepages, directory.
    let directory = Directory::new()?;
    let hugepages = if args.lab {
        None
    } else {
        let pages = u64::from(MEMORY_MIB / 2) + SPARE_PAGES;
        Hugepages::reserve(pages, &directory.path().join("huge"))
            .inspect_err(|reason| eprintln!("No hugepages ({reason}): profile lab, weir alone."))
            .ok()
    };
    let kinds = match (args.no_ovs || hugepages.is_none(), ovs_is_installed()) {
        (true, _) => vec![Kind::Weir],
        (false, true) => vec![Kind::Weir, Kind::OvsDpdk],
        (false, false) => {
            eprintln!("Without openvswitch-switch-dpdk (apt-get install it) weir is measured alone.");
            vec![Kind::Weir]
        }
    };
    let core = args.core.unwrap_or_else(second_cpu);
    let setup = Setup {
        weir,
        cores: vec![core],
        other_core: u8::from(core == 0),
        settings: "",
        hugepages: hugepages.is_some(),
        stop: stop.clone(),
    };
    let mut figures = Vec::new();
    for round in 1..=args.rounds {
        for &kind in &kinds {
            eprintln!("round {round} of {}: {kind}", args.rounds);
            let place = directory.path().join(format!("{kind}-{round}"));
            let switch = Switch::start(kind, &setup, place)?;
            measure(args, &switch, &stop, round, &mut figures)?;
        }
    }
    let rows = rows(&figures);
    if args.renew {
        let text = markdown(&rows, &Machine::here(), args.rounds);
        for file in ["README.md", "docs/performance.md"] {
            documents::renew(Path::new(file), "bench-ovs", &text)?;
        }
    }
    if !args.json {
        print!("\n{}\n", table(&rows));
    }
    for row in &rows {
        println!("{}", row.json().map_err(|error| BenchError::Refused(error.to_string()))?);
    }
    Ok(())
}

fn measure(
    args: &Args,
    switch: &Switch,
    stop: &Stop,
    round: u32,
    figures: &mut Vec<Figure>,
) -> Result<(), BenchError> {
    let mut number = 0;
    for &sessions in &args.connections {
        for &workload in &args.workloads {
            number += 1;
            let time = Duration::from_secs(args.seconds);
            let counted = Measurement { switch, sessions, time, number, stop }.run(workload)?;
            let figure = Figure::new(switch.kind(), workload, sessions, round, counted);
            if args.json {
                print_json(&figure);
            }
            figures.push(figure);
        }
    }
    Ok(())
}

fn print_json(value: &impl serde::Serialize) {
    match serde_json::to_string(value) {
        Ok(line) => println!("{line}"),
        Err(error) => eprintln!("weir-bench-ovs: {error}"),
    }
}

fn second_cpu() -> u8 {
    u8::from(std::thread::available_parallelism().is_ok_and(|cpus| cpus.get() > 1))
}
