//! The whole way of each measurement, small: without hugepages, as root, which devices and priorities need.
#![allow(clippy::expect_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// True for root; otherwise says that the test is skipped.
fn is_root() -> bool {
    let user = Command::new("id").arg("-u").output().expect("id runs");
    let root = user.stdout == b"0\n";
    if !root {
        eprintln!("skipped: needs root");
    }
    root
}

/// A directory that goes with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("weir-perf-{}-{name}", std::process::id()));
        std::fs::create_dir(&path).expect("a fresh directory");
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn run(program: &str, args: &[&str]) -> Output {
    Command::new(program).args(args).output().expect("the program starts")
}

/// What a successful run has printed.
fn printed(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

fn json(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(path).expect("a file")).expect("JSON")
}

const BENCH: &str = env!("CARGO_BIN_EXE_weir-bench");

#[test]
fn a_short_bench_has_a_figure_for_every_kind_of_traffic() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new("bench");
    let out = scratch.0.to_string_lossy();
    let traffic = "harness,forward,acl,established,new,new-beside";
    let args =
        ["--lab", "--rounds", "1", "--milliseconds", "50", "--connections", "1000", "--traffic", traffic];
    let text = printed(&run(BENCH, &[&args[..], &["--transport", "udp,tcp", "--out", &out]].concat()));
    let results = json(&scratch.0.join("bench.json"));
    let figures = results["figures"].as_array().expect("figures");
    assert_eq!(figures.len(), 12, "{text}");
    for figure in figures {
        assert!(figure["cycles_per_packet"].as_f64().is_some_and(|cycles| cycles > 10.0), "{figure}");
        let connections = match figure["point"]["traffic"].as_str() {
            Some("harness" | "forward") => 0,
            Some("new-beside") => 101_000,
            _ => 1000,
        };
        assert_eq!(figure["outcome"]["connections"], connections, "{figure}");
    }
    assert!(text.contains("NAT both ways, TCP") && text.contains("new, NAT, beside, UDP"), "{text}");
    let markdown = std::fs::read_to_string(scratch.0.join("bench.md")).expect("markdown");
    assert!(markdown.contains("| ACL both ways, UDP | 1 k |"), "{markdown}");
    assert!(std::fs::read_to_string(scratch.0.join("bench.svg")).expect("a plot").starts_with("<svg"));
}

#[test]
fn every_shape_of_packets_goes_through_and_all_of_them() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new("shapes");
    let out = scratch.0.to_string_lossy();
    let args = [
        "--lab",
        "--rounds",
        "1",
        "--milliseconds",
        "20",
        "--connections",
        "77",
        "--traffic",
        "acl,established",
    ];
    let axes = ["--transport", "udp,tcp", "--ip", "4,6", "--frames", "small,mix", "--out", &out];
    let output = run(BENCH, &[&args[..], &axes].concat());
    let text = printed(&output);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("Left out: established is measured with examples/nat.flows"), "{said}");
    let results = json(&scratch.0.join("bench.json"));
    assert_eq!(results["rows"].as_array().map(Vec::len), Some(12), "{text}");
}

#[test]
fn a_bench_beside_open_vswitch_ends_with_a_line_of_json_for_each_workload() {
    let weir = Path::new(BENCH).with_file_name("weir");
    if !is_root() {
        return;
    }
    if !weir.exists() {
        eprintln!("skipped: {} is not built (cargo build --bins)", weir.display());
        return;
    }
    let args = ["--lab", "--rounds", "1", "--seconds", "1", "--connections", "1000"];
    let text = printed(&run(env!("CARGO_BIN_EXE_weir-bench-ovs"), &args));
    let lines: Vec<&str> = text.lines().rev().take(3).collect();
    for (line, workload) in lines.into_iter().rev().zip(["forward", "established", "new"]) {
        let row: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(
            (row["workload"].as_str(), row["connections"].as_u64()),
            (Some(workload), Some(1000)),
            "{line}"
        );
        assert!(row["weir"].as_f64().is_some_and(|cycles| cycles > 10.0), "{line}");
        assert!(row["ovs"].is_null() && row["ratio"].is_null(), "without hugepages weir is alone: {line}");
    }
}

#[test]
fn what_is_taken_away_has_a_factor() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new("ablation");
    let out = scratch.0.to_string_lossy();
    let args = ["--lab", "--rounds", "1", "--milliseconds", "20", "--connections", "50", "--out", &out];
    let variants = ["--without-prefetch", BENCH, "--variants", "no-trajectories,burst8,burst1"];
    let text = printed(&run(env!("CARGO_BIN_EXE_weir-ablation"), &[&args[..], &variants].concat()));
    assert!(text.contains("| without trajectories |") && text.contains("| bursts of 1 |"), "{text}");
    assert_eq!(json(&scratch.0.join("ablation.json"))["rows"].as_array().map(Vec::len), Some(4));
    // This build has the prefetches that the variant is to be without.
    let output =
        run(env!("CARGO_BIN_EXE_weir-ablation"), &[&args[..], &["--without-prefetch", BENCH]].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("built without the feature no-prefetch"), "{said}");
}

#[test]
fn what_cannot_be_measured_is_refused_with_the_reason() {
    for (args, reason) in [
        (&["--connections", "0"][..], "0 is not in 1..=20000000"),
        (&["--connections", "many"], "invalid digit"),
        (&["--traffic", "nat"], "invalid value 'nat'"),
        (&["--rounds", "0"], "0 is not in 1..=100"),
        (&["--lcores", "3"], "3 is not in 1..=2"),
        (&["one", "--burst", "65"], "65 is not in 1..=64"),
        (&["one", "--traffic", "established", "--ip", "6"], "with --ip 6 take --traffic acl"),
        (&["one", "--quick"], "unexpected argument"),
        (&["one", "--cpu", "9999", "--lab"], "9999"),
    ] {
        let output = run(BENCH, args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(reason), "{args:?}: {said}");
    }
}
