//! Any bytes as a file of flows. What is read prints as text that reads as the same flows.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir::flow::{Command, FlowFile, NoNames};

fuzz_target!(|bytes: &[u8]| {
    for command in [Command::Add, Command::Modify, Command::Delete] {
        match FlowFile::parse("fuzz", bytes, command, &NoNames) {
            Ok(file) => {
                assert_eq!(file.flows.len(), file.lines.len());
                for flow in &file.flows {
                    let _ = format!("{flow:?}");
                }
            }
            // The message points into the line: the pointing itself must not fail.
            Err(error) => drop(error.to_string()),
        }
    }
});
