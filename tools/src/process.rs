//! Programs run by the laboratory: waited for with a deadline, or kept in the background under a guard that
//! ends them. What a background program prints goes to a file, shown when a test fails.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::cleanup::{Guard, Leftover};

/// How often a condition is looked at while waiting for it.
const POLL: Duration = Duration::from_millis(5);
/// The end of a log that is worth showing.
const TAIL_BYTES: u64 = 8 * 1024;

/// Why a program did not do what it was run for.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// It could not be started.
    #[error("cannot start `{command}`: {source} (tools/setup test installs what the tests need)")]
    Start {
        /// The command line.
        command: String,
        /// The system's reason.
        source: io::Error,
    },
    /// It ended with an error.
    #[error("`{command}` ended with {status}: {output}")]
    Failed {
        /// The command line.
        command: String,
        /// Exit status or signal.
        status: String,
        /// What it had printed.
        output: String,
    },
    /// It, or what was waited for, took too long.
    #[error("waited {seconds} s in vain for {what}")]
    Timeout {
        /// What was waited for.
        what: String,
        /// For how long.
        seconds: u64,
    },
    /// A file or pipe of it could not be used.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// The system's reason.
        source: io::Error,
    },
}

/// The command line as a person would type it.
pub fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// Runs a program to its end and returns what it printed to standard output.
///
/// # Errors
/// If it cannot be started or ends with a status other than 0 (its standard error is in the message).
pub fn run(command: &mut Command) -> Result<String, ProcessError> {
    let output = output(command)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(ProcessError::Failed {
        command: describe(command),
        status: output.status.to_string(),
        output: format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr).trim_end()
        ),
    })
}

/// Runs a program to its end, whatever its status.
///
/// # Errors
/// If it cannot be started.
pub fn output(command: &mut Command) -> Result<Output, ProcessError> {
    let described = describe(command);
    command.stdin(Stdio::null()).output().map_err(|source| ProcessError::Start { command: described, source })
}

/// Waits until `condition` holds.
///
/// # Errors
/// [`ProcessError::Timeout`] after `limit`.
pub fn wait_until(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> bool,
) -> Result<(), ProcessError> {
    let start = Instant::now();
    while !condition() {
        if start.elapsed() > limit {
            return Err(ProcessError::Timeout { what: what.to_owned(), seconds: limit.as_secs() });
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}

/// A program in the background; ended when dropped.
#[derive(Debug)]
pub struct Background {
    name: String,
    child: Child,
    log: PathBuf,
    /// None once the child is reaped: its id may then be another's.
    guard: Option<Guard>,
}

impl Background {
    /// Starts `command`; what it prints goes to `log`.
    ///
    /// # Errors
    /// If the log cannot be written or the program cannot be started.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Result<Self, ProcessError> {
        let io = |source| ProcessError::Io { what: format!("cannot write {}", log.display()), source };
        let file = File::create(log).map_err(io)?;
        let copy = file.try_clone().map_err(io)?;
        let described = describe(command);
        let child = command
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(copy)
            .spawn()
            .map_err(|source| ProcessError::Start { command: described, source })?;
        let guard = Guard::new(Leftover::Process(child.id()));
        Ok(Self { name: name.to_owned(), child, log: log.to_owned(), guard: Some(guard) })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has not ended yet.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// The last lines that it has printed.
    pub fn log_tail(&self) -> String {
        let read = || -> io::Result<String> {
            let mut file = File::open(&self.log)?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        read().unwrap_or_else(|error| format!("({}: {error})", self.log.display()))
    }

    /// Everything that it has printed.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn log(&self) -> Result<String, ProcessError> {
        let io = |source| ProcessError::Io { what: format!("cannot read {}", self.log.display()), source };
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).map_err(io)
    }

    /// Waits until `condition` holds; gives up at once when the program ends before.
    ///
    /// # Errors
    /// [`ProcessError::Failed`] if it ended, [`ProcessError::Timeout`] after `limit`; the log is in the message.
    pub fn wait_until(
        &mut self,
        what: &str,
        limit: Duration,
        mut condition: impl FnMut() -> bool,
    ) -> Result<(), ProcessError> {
        let mut ended = None;
        let waited = wait_until(what, limit, || {
            if condition() {
                return true;
            }
            ended = self.child.try_wait().ok().flatten();
            ended.is_some()
        });
        if let Some(status) = ended {
            return Err(ProcessError::Failed {
                command: self.name.clone(),
                status: format!("{status} before {what}"),
                output: self.log_tail(),
            });
        }
        waited.map_err(|error| ProcessError::Failed {
            command: self.name.clone(),
            status: error.to_string(),
            output: self.log_tail(),
        })
    }

    fn reaped(&mut self) {
        if let Some(guard) = self.guard.take() {
            guard.disarm();
        }
    }

    /// Asks it to end (SIGTERM) and waits for that; returns whether it ended with status 0.
    ///
    /// # Errors
    /// [`ProcessError::Timeout`] after `limit`.
    pub fn terminate(&mut self, limit: Duration) -> Result<bool, ProcessError> {
        crate::cleanup::signal("TERM", self.child.id());
        let mut status = None;
        wait_until(&format!("{} to end", self.name), limit, || {
            status = self.child.try_wait().ok().flatten();
            status.is_some()
        })?;
        self.reaped();
        Ok(status.is_some_and(|status| status.success()))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- {} printed ({}):\n{}", self.name, self.log.display(), self.log_tail());
        }
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.reaped();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_background_program_is_ended_when_dropped() {
        let log = std::env::temp_dir().join(format!("weir-background-{}.log", std::process::id()));
        let mut background = Background::start("sleep", Command::new("sleep").arg("1000"), &log).unwrap();
        let id = background.id();
        assert!(background.is_running());
        drop(background);
        assert!(!Path::new(&format!("/proc/{id}")).exists());
        fs::remove_file(log).unwrap();
    }

    #[test]
    fn a_program_that_ends_early_shows_its_last_words() {
        let log = std::env::temp_dir().join(format!("weir-early-{}.log", std::process::id()));
        let mut command = Command::new("sh");
        let mut background =
            Background::start("sh", command.args(["-c", "echo no such port; exit 3"]), &log).unwrap();
        let error =
            background.wait_until("ready", Duration::from_secs(10), || false).unwrap_err().to_string();
        assert!(error.contains("no such port") && error.contains("exit status: 3"), "{error}");
        fs::remove_file(log).unwrap();
    }
}
