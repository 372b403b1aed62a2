//! Programs that the bench runs: to their end, or in the background under a guard that ends them. Every wait looks
//! at the stop flag, so that Ctrl-C unwinds through all guards.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::BenchError;

const POLL: Duration = Duration::from_millis(20);
/// For an orderly end; after that a program is killed.
const PATIENCE: Duration = Duration::from_secs(5);

/// Set by a signal.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Set by SIGINT and SIGTERM from now on.
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    pub fn on_signals() -> std::io::Result<Self> {
        let stop = Self::default();
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&stop.0))?;
        }
        Ok(stop)
    }

    /// # Errors
    /// [`BenchError::Interrupted`] once it is set.
    pub fn check(&self) -> Result<(), BenchError> {
        if self.0.load(Ordering::Relaxed) { Err(BenchError::Interrupted) } else { Ok(()) }
    }

    /// Waits until `condition` gives something.
    ///
    /// # Errors
    /// [`BenchError::Timeout`] after `limit`, the condition's own, or [`BenchError::Interrupted`].
    pub fn wait_for<T>(
        &self,
        what: &str,
        limit: Duration,
        mut condition: impl FnMut() -> Result<Option<T>, BenchError>,
    ) -> Result<T, BenchError> {
        let start = Instant::now();
        loop {
            self.check()?;
            if let Some(found) = condition()? {
                return Ok(found);
            }
            if start.elapsed() >= limit {
                return Err(BenchError::Timeout { what: what.to_owned(), seconds: limit.as_secs() });
            }
            sleep(POLL);
        }
    }

    /// Lets `time` pass.
    ///
    /// # Errors
    /// [`BenchError::Interrupted`].
    pub fn pause(&self, time: Duration) -> Result<(), BenchError> {
        let end = Instant::now() + time;
        loop {
            self.check()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            sleep(left.min(POLL));
        }
    }
}

/// # Errors
/// [`BenchError::NotRoot`].
pub fn must_be_root() -> Result<(), BenchError> {
    let user = run(Command::new("id").arg("-u"))?;
    if user.trim() == "0" { Ok(()) } else { Err(BenchError::NotRoot) }
}

/// The program `weir`: the one given, or that beside the running one.
///
/// # Errors
/// If it is not there: said here, with its path, rather than by the first failing command.
pub fn weir_program(given: Option<&Path>) -> Result<PathBuf, BenchError> {
    let own = || std::env::current_exe().map(|own| own.with_file_name("weir"));
    let path = match given {
        Some(path) => path.to_owned(),
        None => own().map_err(BenchError::at(Path::new("the bench's own path")))?,
    };
    std::fs::metadata(&path).map_err(BenchError::at(&path))?;
    Ok(path)
}

fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// Runs a program to its end and gives what it printed. It is in a process group of its own: Ctrl-C in a terminal
/// must not cut it short while guards need it.
///
/// # Errors
/// If it cannot be started or does not end with status 0.
pub fn run(command: &mut Command) -> Result<String, BenchError> {
    let name = describe(command);
    let output = command.stdin(Stdio::null()).process_group(0).output();
    let output = output.map_err(|source| BenchError::Start { command: name.clone(), source })?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    let said = format!("{stdout}{}", String::from_utf8_lossy(&output.stderr).trim_end());
    Err(BenchError::Failed { command: name, status: output.status.to_string(), output: said })
}

/// Runs a program to its end and throws away what it prints, which may be a lot.
///
/// # Errors
/// As [`run`].
pub fn discard(command: &mut Command) -> Result<(), BenchError> {
    let name = describe(command);
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).process_group(0).status();
    let status = status.map_err(|source| BenchError::Start { command: name.clone(), source })?;
    if status.success() {
        return Ok(());
    }
    Err(BenchError::Failed { command: name, status: status.to_string(), output: String::new() })
}

/// A program in the background, its output in a file; ended when dropped.
#[derive(Debug)]
pub struct Background {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Background {
    /// Starts `program` ahead of all ordinary processes: a measurement that shares its CPU is none. Where the kernel
    /// shares CPUs out among sessions (sched(7), autogroup), a nice value counts within one session alone; so it gets a
    /// session of its own, and that the same nice value. It dies with the bench, whatever ends that.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(
        program: &OsStr,
        args: &[&str],
        env: &[(&str, &Path)],
        log: PathBuf,
    ) -> Result<Self, BenchError> {
        let name = program.to_string_lossy().into_owned();
        let output = File::create(&log).map_err(BenchError::at(&log))?;
        let errors = output.try_clone().map_err(BenchError::at(&log))?;
        let mut command = Command::new("setsid");
        command.args(["nice", "-n", "-20", "setpriv", "--pdeathsig", "KILL"]).arg(program).args(args);
        command.envs(env.iter().copied());
        let child = command.stdin(Stdio::null()).stdout(output).stderr(errors).spawn();
        let child = child.map_err(|source| BenchError::Start { command: name.clone(), source })?;
        let started = Self { name, child, log };
        started.favour_session();
        Ok(started)
    }

    /// Gives its session the nice value that it has itself; without autogroups there is nothing to be done.
    fn favour_session(&self) {
        let file = |name: &str| format!("/proc/{}/{name}", self.id());
        let session = |process: &str| std::fs::read_to_string(format!("/proc/{process}/autogroup")).ok();
        let Some(ours) = session("self") else { return };
        // Not before `setsid` has taken it out of ours.
        for _ in 0..100 {
            if session(&self.id().to_string()).is_none_or(|theirs| theirs != ours) {
                let _ = std::fs::write(file("autogroup"), "-20");
                return;
            }
            sleep(POLL / 10);
        }
    }

    /// Its process number: `setsid`, `nice` and `setpriv` become the program.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// # Errors
    /// If it has ended, with the end of its log.
    pub fn check(&mut self) -> Result<(), BenchError> {
        match self.child.try_wait() {
            Ok(Some(status)) => Err(BenchError::Failed {
                command: self.name.clone(),
                status: status.to_string(),
                output: self.log_tail(),
            }),
            _ => Ok(()),
        }
    }

    /// Waits for its end; what it printed.
    ///
    /// # Errors
    /// [`BenchError::Failed`] if it does not end with status 0, [`BenchError::Timeout`], [`BenchError::Interrupted`].
    pub fn finish(mut self, stop: &Stop, limit: Duration) -> Result<String, BenchError> {
        let name = self.name.clone();
        let status = stop.wait_for(&format!("the end of {name}"), limit, || {
            self.child.try_wait().map_err(|source| BenchError::Start { command: name.clone(), source })
        })?;
        if !status.success() {
            let (status, output) = (status.to_string(), self.log_tail());
            return Err(BenchError::Failed { command: name, status, output });
        }
        let text = std::fs::read(&self.log).map_err(BenchError::at(&self.log))?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// The last lines that it printed.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines.get(lines.len().saturating_sub(8)..).unwrap_or_default().join("\n")
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let id = self.child.id().to_string();
        // Not reaped yet, so the number is still its own.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = run(Command::new("kill").args(["-TERM", &id]));
        }
        let start = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if start.elapsed() > PATIENCE {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            sleep(POLL);
        }
    }
}

/// A directory that goes with its guard.
#[derive(Debug)]
pub struct Directory(PathBuf);

impl Directory {
    /// Makes one below the system's directory for temporary files.
    ///
    /// # Errors
    /// The system's.
    pub fn new() -> Result<Self, BenchError> {
        let path = std::env::temp_dir().join(format!("weir-bench-{}", std::process::id()));
        std::fs::create_dir(&path).map_err(BenchError::at(&path))?;
        Ok(Self(path))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_ends_every_wait() {
        let stop = Stop::default();
        stop.0.store(true, Ordering::Relaxed);
        assert!(matches!(stop.pause(Duration::from_secs(1000)), Err(BenchError::Interrupted)));
        let waited = stop.wait_for::<()>("nothing", Duration::from_secs(1000), || Ok(None));
        assert!(matches!(waited, Err(BenchError::Interrupted)));
    }

    #[test]
    fn a_wait_in_vain_says_for_what() {
        let waited = Stop::default().wait_for::<()>("Godot", Duration::ZERO, || Ok(None));
        assert!(waited.is_err_and(|error| error.to_string().contains("Godot")));
    }

    #[test]
    fn a_failed_program_is_quoted() {
        let ended = run(Command::new("sh").args(["-c", "echo why >&2; exit 3"]));
        let Err(BenchError::Failed { output, status, .. }) = ended else { panic!("{ended:?}") };
        assert_eq!(output, "why");
        assert!(status.contains('3'));
    }
}
