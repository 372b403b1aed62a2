//! The whole way of weir-lifetimes, small.
#![allow(clippy::expect_used, clippy::panic)]

use std::process::Command;

fn run(args: &[&str]) -> (bool, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_weir-lifetimes")).args(args).output().expect("it starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_short_run_gives_a_row_for_set_up_and_bursts_with_others_and_without() {
    let (success, out, errors) =
        run(&["--connections", "1000", "--others", "5000", "--rounds", "2", "--bursts", "500", "--json"]);
    assert!(success, "{out}{errors}");
    let rows: Vec<serde_json::Value> =
        out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let [alone, beside, quiet, ending] = rows.as_slice() else { panic!("four rows: {out}") };
    for (row, others) in [(alone, 0), (beside, 5000)] {
        assert_eq!((&row["what"], row["connections"].as_u64()), (&"set-up".into(), Some(1000)), "{row}");
        assert_eq!(row["others"].as_u64(), Some(others));
        assert!(row["cycles"]["median"].as_f64().is_some_and(|cycles| cycles > 50.0), "{row}");
    }
    for (row, ended) in [(quiet, 0), (ending, 5000)] {
        assert_eq!((&row["what"], row["ended"].as_u64()), (&"bursts".into(), Some(ended)), "{row}");
        assert!(row["microseconds"]["p50"].as_f64() <= row["microseconds"]["max"].as_f64(), "{row}");
    }
    // 32 connections a housekeeping, one of which comes behind 16 bursts.
    let bursts = ending["bursts"].as_u64().expect("a number");
    assert!(bursts >= 5000 / 32 * 16 - 16, "{bursts} bursts for 5000 ends");
}

#[test]
fn what_makes_no_sense_is_refused() {
    for args in [["--connections", "0"], ["--others", "3000000"], ["--core", "4000"], ["--rounds", "many"]] {
        let (success, out, errors) = run(&args);
        assert!(!success && out.is_empty() && !errors.is_empty(), "{args:?}: {out}{errors}");
    }
}
