//! Instructions a packet against a baseline that is part of the project, so that a change which makes the packet path
//! longer is seen before it is merged. callgrind counts (`perf/benches/instructions`), `weir-instructions`
//! (`perf/instructions`) compares; what is here runs the one and is the other.

pub mod baseline;
pub mod comparison;
pub mod counts;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub use self::baseline::Baseline;
pub use self::comparison::{Comparison, Row, Verdict};
pub use self::counts::Count;

/// Packets that each measured call works on: weir's burst.
pub const PACKETS: u32 = 64;

/// Why there is no comparison.
#[derive(Debug, thiserror::Error)]
pub enum InstructionsError {
    /// A program could not be started.
    #[error("cannot start `{program}`: {source}")]
    Start {
        /// Its name.
        program: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The benches did not run to their end; what they said is on standard error.
    #[error(
        "the benches failed ({status}); valgrind and iai-callgrind-runner are installed by `tools/setup test`"
    )]
    Benches {
        /// How they ended.
        status: String,
    },
    /// No count was printed, or one that is not understood.
    #[error("what iai-callgrind-runner printed is not understood ({reason}): {line}")]
    Count {
        /// What is wrong with it.
        reason: String,
        /// The line.
        line: String,
    },
    /// The baseline could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The baseline makes no sense.
    #[error("{}: {reason}; `perf/instructions --save` makes it anew", path.display())]
    Baseline {
        /// Its path.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl InstructionsError {
    fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }
}

/// The compiler that cargo uses here, with the machine that it compiles for: the same source has other counts with
/// another one.
///
/// # Errors
/// When it cannot be asked.
pub fn compiler() -> Result<String, InstructionsError> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let text = output(Command::new(&rustc).arg("-vV"), &rustc)?.1;
    let version = text.lines().next().unwrap_or_default();
    let host = text.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default();
    Ok(format!("{version} {host}"))
}

/// Builds the benches of the package in the current directory's workspace and runs them, twice: the lesser of two
/// counts is given, as flow tables and maps draw seeds of their own, which now and then make one of them longer.
///
/// # Errors
/// When one of them fails, or what comes out is not understood.
pub fn count() -> Result<Vec<Count>, InstructionsError> {
    Ok(counts::lesser(run()?, &run()?))
}

fn run() -> Result<Vec<Count>, InstructionsError> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(&cargo);
    command.args(["bench", "--package", "weir-perf", "--bench", "instructions", "--"]);
    let (status, text) = output(command.arg("--output-format=json"), &cargo)?;
    if !status.success() {
        return Err(InstructionsError::Benches { status: status.to_string() });
    }
    counts::parse(&text)
}

/// Runs a program whose errors go where ours go.
fn output(
    command: &mut Command,
    program: &OsString,
) -> Result<(std::process::ExitStatus, String), InstructionsError> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.map_err(|source| InstructionsError::Start {
        program: program.to_string_lossy().into_owned(),
        source,
    })?;
    Ok((output.status, String::from_utf8_lossy(&output.stdout).into_owned()))
}
