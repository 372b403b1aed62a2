//! The whole way of a measurement, small: weir alone, without hugepages.
#![allow(clippy::expect_used)]

use std::path::Path;
use std::process::Command;

#[test]
fn a_short_bench_of_weir_gives_a_figure_for_every_workload() {
    let user = Command::new("id").arg("-u").output().expect("id runs");
    if user.stdout != b"0\n" {
        eprintln!("skipped: needs root");
        return;
    }
    let bench = Path::new(env!("CARGO_BIN_EXE_weir-bench"));
    let weir = bench.with_file_name("weir");
    if !weir.exists() {
        eprintln!("skipped: {} is not built (cargo build --bins)", weir.display());
        return;
    }
    let output = Command::new(bench)
        .args(["--lab", "--rounds", "1", "--seconds", "1", "--sessions", "1000", "--json"])
        .output()
        .expect("the bench starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    for workload in ["forward", "established", "new"] {
        let start = format!("{{\"system\":\"weir\",\"workload\":\"{workload}\",\"sessions\":1000,");
        let line = text.lines().find(|line| line.starts_with(&start)).expect("a line for each workload");
        let figure: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert!(figure["packets"].as_u64().is_some_and(|packets| packets >= 1000), "{line}");
        assert!(figure["cycles_per_packet"].as_f64().is_some_and(|cycles| cycles > 10.0), "{line}");
    }
}
