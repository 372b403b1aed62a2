//! The whole way from a running lcore to a stage, small: without hugepages, as root, which devices and priorities need.
#![allow(clippy::expect_used)]

use std::process::Command;

fn stages(args: &[&str]) -> (bool, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_weir-stages")).args(args).output().expect("it starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_short_run_finds_every_stage_of_an_established_packet() {
    let user = Command::new("id").arg("-u").output().expect("id runs");
    if user.stdout != b"0\n" {
        eprintln!("skipped: needs root");
        return;
    }
    let args = ["--lab", "--rounds", "1", "--milliseconds", "300", "--connections", "50", "--lines", "3"];
    let (succeeded, text, said) = stages(&[&args[..], &["--json"]].concat());
    if said.contains("cannot be sampled") {
        eprintln!("skipped: {said}");
        return;
    }
    assert!(succeeded, "{text}{said}");
    let report: serde_json::Value = serde_json::from_str(&text).expect("one line of JSON");
    let section = &report["sections"][0];
    let stages = section["stages"].as_array().expect("stages");
    let cycles = |name: &str| {
        let found = stages.iter().find(|stage| stage["stage"] == name);
        found.and_then(|stage| stage["cycles"].as_f64()).unwrap_or_default()
    };
    for name in ["generate", "receive", "parse", "look-up", "classify", "track", "rewrite", "transmit"] {
        assert!(cycles(name) > 0.0, "{name}: {text}");
    }
    let sum: f64 = stages.iter().filter_map(|stage| stage["cycles"].as_f64()).sum();
    let packet = section["cycles_per_packet"].as_f64().expect("cycles");
    assert!((sum - cycles("housekeeping") - packet).abs() < 0.01 * packet, "{text}");
    assert!(cycles("rest") < packet / 2.0, "rules know where most of it goes: {text}");
    assert_eq!(section["lines"].as_array().map(Vec::len), Some(3));
}

#[test]
fn what_cannot_be_sampled_is_refused_with_the_reason() {
    for (args, reason) in [
        (&["--connections", "0"][..], "0 is not in 1..=20000000"),
        (&["--rounds", "0"], "0 is not in 1..=100"),
        (&["--traffic", "nat"], "invalid value 'nat'"),
        (&["--lab", "--traffic", "new"], "new cannot be sampled"),
    ] {
        let (succeeded, _, said) = stages(args);
        let is_root_wanted = said.contains("as root");
        assert!(!succeeded && (said.contains(reason) || is_root_wanted), "{args:?}: {said}");
    }
}
