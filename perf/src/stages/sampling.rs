//! Samples of a polling thread, by perf: where it is, a few thousand times a second, and who has called it there. The
//! callers matter because drivers and the C library have no line tables here: a sample in them belongs to whoever
//! called them.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::StagesError;
use crate::BenchError;
use crate::process::run;

/// Samples a second. More would disturb what is sampled.
const FREQUENCY: u32 = 4000;
/// Bytes of stack that perf keeps of each sample: enough for the frames of a driver and those of the C library.
const STACK: u32 = 1024;

/// One sample: where the thread was, and the callers, innermost first.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sample(pub Vec<Place>);

/// An address in a file: its offset there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// As perf names it: a path, or `[kernel.kallsyms]` and the like.
    pub object: String,
    /// The offset of the instruction.
    pub offset: u64,
}

/// The polling thread of a process.
///
/// # Errors
/// When it has none, or is not there.
pub fn polling_thread(process: u32) -> Result<u32, StagesError> {
    let threads = format!("/proc/{process}/task");
    let threads = Path::new(&threads);
    let found = fs::read_dir(threads).map_err(BenchError::at(threads))?.flatten().find(|thread| {
        fs::read_to_string(thread.path().join("comm")).is_ok_and(|name| name.starts_with("lcore-"))
    });
    let number = found.and_then(|thread| thread.file_name().to_str()?.parse().ok());
    number.ok_or(StagesError::NoThread { process })
}

/// Samples a process's polling thread for `time`, into `file`.
///
/// # Errors
/// When there is no such thread, or perf cannot.
pub fn record(process: u32, time: Duration, file: &Path) -> Result<(), StagesError> {
    let thread = polling_thread(process)?.to_string();
    let (frequency, stack) = (FREQUENCY.to_string(), format!("dwarf,{STACK}"));
    let mut command = Command::new("perf");
    command.args([
        "record",
        "-q",
        "-e",
        "cycles",
        "-F",
        &frequency,
        "--call-graph",
        &stack,
        "-t",
        &thread,
        "-o",
    ]);
    command.arg(file).args(["--", "sleep", &time.as_secs_f64().to_string()]);
    run(&mut command).map_err(StagesError::Perf)?;
    Ok(())
}

/// The samples in a file.
///
/// # Errors
/// When perf cannot read it, or what it prints is not understood.
pub fn read(file: &Path) -> Result<Vec<Sample>, StagesError> {
    let mut command = Command::new("perf");
    command.args(["script", "--no-inline", "-F", "ip,dso", "-i"]).arg(file);
    let samples = parse(&run(&mut command).map_err(StagesError::Perf)?)?;
    if samples.is_empty() { Err(StagesError::NoSamples) } else { Ok(samples) }
}

/// Samples stand apart by empty lines; each line is `ADDRESS (OBJECT)`, the address relative to the file.
fn parse(text: &str) -> Result<Vec<Sample>, StagesError> {
    let (mut samples, mut places) = (Vec::new(), Vec::new());
    for line in text.lines().map(str::trim).chain([""]) {
        if line.is_empty() {
            if !places.is_empty() {
                samples.push(Sample(std::mem::take(&mut places)));
            }
            continue;
        }
        let place = place(line).ok_or_else(|| StagesError::Sample { line: line.to_owned() })?;
        places.push(place);
    }
    Ok(samples)
}

fn place(line: &str) -> Option<Place> {
    let (address, object) = line.split_once(' ')?;
    let object = object.trim().strip_prefix('(')?.strip_suffix(')')?;
    Some(Place { object: object.to_owned(), offset: u64::from_str_radix(address, 16).ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(object: &str, offset: u64) -> Place {
        Place { object: object.to_owned(), offset }
    }

    #[test]
    fn samples_are_read_with_their_callers() {
        let text = "\n\t          4e7875 (/x/release/weir-bench)\n\n\n\
                    \t            42f5 (/usr/lib/librte_net_pcap.so.23.0)\n\
                    \t          524aa2 (/x/release/weir-bench)\n\
                    \tffffffffffffffff ([unknown])\n\n";
        assert_eq!(
            parse(text).ok(),
            Some(vec![
                Sample(vec![at("/x/release/weir-bench", 0x4e_7875)]),
                Sample(vec![
                    at("/usr/lib/librte_net_pcap.so.23.0", 0x42f5),
                    at("/x/release/weir-bench", 0x52_4aa2),
                    at("[unknown]", u64::MAX),
                ]),
            ])
        );
    }

    #[test]
    fn an_end_without_an_empty_line_is_an_end_too() {
        assert_eq!(parse("1 (a)\n2 (b)").ok(), Some(vec![Sample(vec![at("a", 1), at("b", 2)])]));
        assert_eq!(parse("").ok(), Some(Vec::new()));
    }

    #[test]
    fn what_is_no_address_is_refused_and_named() {
        for line in ["xyz (a)", "12 a", "12", "(a)"] {
            let error = parse(line).map_or_else(|error| error.to_string(), |samples| format!("{samples:?}"));
            assert_eq!(error, format!("perf printed {line:?} for an address"));
        }
    }

    #[test]
    fn a_process_without_a_polling_thread_is_told() {
        let error = polling_thread(std::process::id());
        assert!(matches!(error, Err(StagesError::NoThread { .. })), "{error:?}");
        assert!(matches!(polling_thread(u32::MAX), Err(StagesError::Bench(_))));
    }
}
