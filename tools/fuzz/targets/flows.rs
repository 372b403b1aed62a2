//! Any bytes as a file of flows. What is read prints as text that reads as the same flows.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir::flow::{Command, FlowFile, FlowMod, NoNames, print};

fuzz_target!(|bytes: &[u8]| {
    for command in [Command::Add, Command::Modify, Command::Delete] {
        match FlowFile::parse("fuzz", bytes, command, &NoNames) {
            Ok(file) => {
                assert_eq!(file.flows.len(), file.lines.len());
                if command != Command::Add {
                    continue;
                }
                for flow in &file.flows {
                    // A line may name its own command, and a command that selects may select everything.
                    let line = |flow: &FlowMod| format!("{} {}", print::command(flow.command), print::flow(flow, &NoNames));
                    let text = line(flow);
                    let again = FlowFile::parse("printed", text.as_bytes(), command, &NoNames)
                        .unwrap_or_else(|error| panic!("printed {text}, which does not read: {error}"));
                    let printed_again: Vec<_> = again.flows.iter().map(line).collect();
                    assert_eq!(printed_again, [text]);
                }
            }
            // The message points into the line: the pointing itself must not fail.
            Err(error) => drop(error.to_string()),
        }
    }
});
