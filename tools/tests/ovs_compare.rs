//! Debian's Open vSwitch and weir against the packet scripts and against one another: what the reference page says
//! is what Open vSwitch does, and weir does it too, packet for packet and connection for connection.
#![allow(clippy::expect_used, clippy::panic)] // a test may; helpers here are only called by tests

mod support;

use std::time::{Duration, Instant};

use support::{Reference, run_weir, scripts};
use weir_tools::script::{Script, Table};
use weir_tools::scripts::weir_exactly;
use weir_tools::vocabulary;

/// Where the two differ on purpose, or where Open vSwitch is wrong: the script that shows it, who does what it says,
/// and why. (Scripts with flows of their own say so in place.) Everything else is compared. The vocabulary of random scripts keeps clear of these.
const DEVIATIONS: [(&str, Who, &str); 2] = [
    (
        "tests/scripts/fragments/overlap.pkt",
        Who::Weir,
        "Open vSwitch takes what came first and refuses the overlapping fragment alone; RFC 5722 and RFC 8200 want the \
         whole datagram discarded.",
    ),
    (
        "tests/scripts/tcp/window-unscaled.pkt",
        Who::Weir,
        "Open vSwitch keeps windows in 16 bits and takes one of 65535, rounded up to a multiple of its scale, for 0; \
         data before the client's next segment is then +inv.",
    ),
];

/// A switch under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    OpenVswitch,
    Weir,
}

/// Seeds whose random scripts are compared, so that every machine compares the same ones; and the time after which
/// a slow machine compares no more. WEIR_COMPARE_SECONDS asks for a run of that length, over as many as fit.
const SEEDS: u64 = 80;
const RANDOM: Duration = Duration::from_secs(60);
const PACKETS: usize = 150;

/// The scripts with tables that Open vSwitch must do as they say.
fn scripts_for_the_reference() -> impl Iterator<Item = Script> {
    let excused = move |script: &Script| {
        DEVIATIONS.iter().any(|(name, right, _)| *name == script.name && *right != Who::OpenVswitch)
    };
    scripts().into_iter().filter(move |script| !excused(script))
}

/// The scripts that both do alike.
fn compared() -> impl Iterator<Item = Script> {
    scripts().into_iter().filter(|script| DEVIATIONS.iter().all(|(name, ..)| *name != script.name))
}

#[test]
fn open_vswitch_does_what_the_scripts_say() {
    let Some(mut ovs) = Reference::start() else { return };
    let mut failures = Vec::new();
    for script in scripts_for_the_reference() {
        for &table in &script.tables {
            let transcript = ovs.run(&script, table);
            if std::env::var_os("WEIR_SHOW").is_some() {
                println!("== {} through {}\n{}", script.name, table.name(), transcript.lines.join("\n"));
            }
            let title = format!("{} through {}: ", script.name, table.name());
            failures.extend(transcript.failures.into_iter().map(|failure| title.clone() + &failure));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn every_deviation_names_a_script() {
    let scripts = scripts();
    for (name, ..) in DEVIATIONS {
        assert!(scripts.iter().any(|script| script.name == name), "{name} is no script");
    }
}

#[test]
fn open_vswitch_does_what_the_scripts_with_flows_say_and_ends_up_with_the_same_connections() {
    let Some(mut ovs) = Reference::start() else { return };
    let mut failures = Vec::new();
    for script in scripts().into_iter().filter(|script| script.flows.is_some() && script.weir_only.is_none())
    {
        let reference = ovs.run_exactly(&script);
        failures.extend(reference.failures.iter().cloned());
        if !reference.failures.is_empty() {
            continue;
        }
        // What weir does otherwise than the script says is tests/scripts.rs' to tell.
        let Ok(weir) = weir_exactly(&script) else { continue };
        if weir.lines != reference.lines {
            let (one, two) = (reference.lines.join("\n  "), weir.lines.join("\n  "));
            failures.push(format!("{}: Open vSwitch, then weir:\n  {one}\n\n  {two}", script.name));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn a_run_again_gives_the_same_transcript_though_the_drawn_ports_differ() {
    let (Some(mut one), Some(mut two)) = (Reference::start(), Reference::start()) else { return };
    for seed in 0..5 {
        for table in Table::ALL {
            let script = vocabulary::script(seed, 100, table);
            let first = one.run(&script, table);
            let second = two.run(&script, table);
            if let Some(difference) = first.difference(&second) {
                panic!("the same script, twice:\n{difference}\nin\n{script}");
            }
            assert!(first.failures.is_empty(), "{}\nin\n{script}", first.failures.join("\n"));
        }
    }
}

/// Compares both switches; what differs as text.
fn compare(ovs: &mut Reference, script: &Script, table: Table) -> Result<(), String> {
    let weir = run_weir(script, table)?;
    match ovs.run(script, table).difference(&weir) {
        None => Ok(()),
        Some(difference) => Err(format!("Open vSwitch, then weir:\n{difference}")),
    }
}

/// The script without the steps that the difference does not need: what to keep as a file of tests/scripts.
fn shortest(ovs: &mut Reference, script: &Script, table: Table) -> Script {
    let mut best = script.clone();
    let mut piece = best.steps.len() / 2;
    while piece > 0 {
        let mut at = 0;
        while at < best.steps.len() {
            let mut shorter = best.clone();
            shorter.steps.drain(at..(at + piece).min(best.steps.len()));
            if compare(ovs, &shorter, table).is_err() {
                best = shorter;
            } else {
                at += piece;
            }
        }
        piece /= 2;
    }
    best
}

#[test]
fn weir_does_with_every_script_what_open_vswitch_does() {
    let Some(mut ovs) = Reference::start() else { return };
    let mut failures = Vec::new();
    for script in compared() {
        for &table in &script.tables {
            if let Err(difference) = compare(&mut ovs, &script, table) {
                failures.push(format!("{} through {}: {difference}", script.name, table.name()));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn weir_does_with_random_scripts_what_open_vswitch_does() {
    let Some(mut ovs) = Reference::start() else { return };
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let asked = number("WEIR_COMPARE_SECONDS");
    let time = asked.map_or(RANDOM, Duration::from_secs);
    let first = number("WEIR_COMPARE_SEED").unwrap_or(0);
    let seeds = if asked.is_some() { u64::MAX } else { SEEDS };
    let start = Instant::now();
    let mut seed = first;
    while start.elapsed() < time && seed - first < seeds {
        for table in Table::ALL {
            let script = vocabulary::script(seed, PACKETS, table);
            if compare(&mut ovs, &script, table).is_err() {
                let script = shortest(&mut ovs, &script, table);
                let difference = compare(&mut ovs, &script, table).err().unwrap_or_default();
                panic!("seed {seed} through {}: {difference}\nin\n{script}", table.name());
            }
        }
        seed += 1;
    }
    println!("seeds {first} to {}, {PACKETS} packets through each of {} tables", seed - 1, Table::ALL.len());
}
