//! What must not outlive us: namespaces, processes, directories. Each is registered when it is made and
//! undone when its guard drops (also while a panic unwinds), when SIGINT, SIGTERM or SIGHUP arrives, or,
//! after a SIGKILL, by [`sweep`] in a later run. Only things that carry our name are ever touched.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Namespaces and directories start with this, then `PID-STARTTIME-NUMBER`.
pub const PREFIX: &str = "weir-lab-";

/// Something to undo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leftover {
    /// A process, by its id. Killed and, if it is our child, left to its guard to reap.
    Process(u32),
    /// A network namespace with everything that runs in it.
    Namespace(String),
    /// A directory with everything in it.
    Directory(PathBuf),
}

static LEFTOVERS: Mutex<Vec<Leftover>> = Mutex::new(Vec::new());
static SIGNALS: Once = Once::new();

fn leftovers() -> MutexGuard<'static, Vec<Leftover>> {
    LEFTOVERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Undoes one [`Leftover`] when dropped.
#[derive(Debug)]
pub struct Guard {
    leftover: Leftover,
    armed: bool,
}

impl Guard {
    /// Registers something that already exists.
    pub fn new(leftover: Leftover) -> Self {
        SIGNALS.call_once(clean_up_on_signals);
        leftovers().push(leftover.clone());
        Self { leftover, armed: true }
    }
}

impl Guard {
    /// Forgets it without undoing anything: it is gone already (a reaped child, whose id may be used again).
    pub fn disarm(mut self) {
        leftovers().retain(|other| *other != self.leftover);
        self.armed = false;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.armed {
            undo(&self.leftover);
            leftovers().retain(|other| *other != self.leftover);
        }
    }
}

/// Ctrl-C and its like undo everything, then end the program with the usual status.
fn clean_up_on_signals() {
    match Signals::new([SIGINT, SIGTERM, SIGHUP]) {
        Ok(mut signals) => {
            std::thread::spawn(move || {
                if let Some(signal) = signals.forever().next() {
                    undo_everything();
                    std::process::exit(128 + signal);
                }
            });
        }
        Err(error) => eprintln!("weir-lab: no clean-up on Ctrl-C: {error}"),
    }
}

/// Undoes everything still registered, youngest first.
pub fn undo_everything() {
    let all: Vec<_> = std::mem::take(&mut *leftovers());
    for leftover in all.iter().rev() {
        undo(leftover);
    }
}

fn undo(leftover: &Leftover) {
    match leftover {
        Leftover::Process(id) => kill(*id),
        Leftover::Namespace(name) => remove_namespace(name),
        Leftover::Directory(path) => {
            if let Err(error) = fs::remove_dir_all(path)
                && error.kind() != io::ErrorKind::NotFound
            {
                eprintln!("weir-lab: cannot remove {}: {error}", path.display());
            }
        }
    }
}

/// Sends SIGKILL; a process that has already ended is no error.
pub fn kill(id: u32) {
    signal("KILL", id);
}

/// Sends a signal. The shell's own `kill` does it: a minimal Debian has no other.
pub fn signal(name: &str, id: u32) {
    quiet(Command::new("sh").args(["-c", "kill -\"$1\" \"$2\"", "sh", name, &id.to_string()]));
}

/// Ends what runs in the namespace, then removes it; its interfaces go with it.
fn remove_namespace(name: &str) {
    if let Ok(output) = Command::new("ip").args(["netns", "pids", name]).stderr(Stdio::null()).output() {
        for id in String::from_utf8_lossy(&output.stdout).split_whitespace().filter_map(|id| id.parse().ok())
        {
            kill(id);
        }
    }
    // The namespace lives on while a dying process holds it; deleting its name is enough for the kernel to finish.
    quiet(Command::new("ip").args(["netns", "delete", name]));
}

fn quiet(command: &mut Command) {
    // Failing here means that the thing is gone already.
    let _ = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
}

/// `PID-STARTTIME` of a process: a name that is not used again when the process id is.
pub fn identity(id: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The command name, in parentheses, may hold spaces; starttime is field 22, the 20th after it (proc(5)).
    let start = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?;
    Some(format!("{id}-{start}"))
}

/// Whether a name of ours belongs to a process that is gone.
fn is_stale(name: &str) -> bool {
    let Some(rest) = name.strip_prefix(PREFIX) else { return false };
    let mut parts = rest.splitn(3, '-');
    let (Some(id), Some(start), Some(_)) = (parts.next(), parts.next(), parts.next()) else { return false };
    let Ok(number) = id.parse() else { return false };
    identity(number).is_none_or(|identity| identity != format!("{id}-{start}"))
}

/// Removes what runs that were killed have left, and returns the names of what went.
pub fn sweep() -> Vec<String> {
    let mut removed = Vec::new();
    for entry in entries(&std::env::temp_dir()) {
        let name = entry.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if is_stale(&name) {
            end_processes_of(&entry);
            undo(&Leftover::Directory(entry));
            removed.push(name);
        }
    }
    for entry in entries(Path::new("/run/netns")) {
        let name = entry.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if is_stale(&name) {
            undo(&Leftover::Namespace(name.clone()));
            removed.push(name);
        }
    }
    removed
}

/// Ends the daemons whose pid files lie in `directory` and whose command lines name it.
fn end_processes_of(directory: &Path) {
    for file in entries(directory).into_iter().filter(|path| path.extension().is_some_and(|e| e == "pid")) {
        let id = fs::read_to_string(&file).ok().and_then(|text| text.trim().parse::<u32>().ok());
        let Some(id) = id else { continue };
        let command = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&command).contains(&*directory.to_string_lossy()) {
            kill(id);
        }
    }
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).map(|all| all.flatten().map(|entry| entry.path()).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_dead_processes_are_stale() {
        let own = identity(std::process::id()).unwrap();
        assert!(!is_stale(&format!("{PREFIX}{own}-0-inside")));
        let (id, start) = own.split_once('-').unwrap();
        assert!(is_stale(&format!("{PREFIX}{id}-{start}1-0-inside")), "a process id used again");
        assert!(!is_stale("weir-lab-"));
        assert!(!is_stale("weir-lab-abc-1-0"));
        assert!(!is_stale("somebody-elses"));
    }

    #[test]
    fn a_directory_goes_with_its_guard() {
        let path = std::env::temp_dir().join(format!("weir-guard-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        drop(Guard::new(Leftover::Directory(path.clone())));
        assert!(!path.exists());
    }
}
