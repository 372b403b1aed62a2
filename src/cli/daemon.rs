//! `weir run`: configuration, log, datapath, control socket, and then nothing but waiting for the end: a signal
//! or `appctl exit`. What the datapath is, the caller says; this module holds the order of starting and ending.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{self, Sender};
use std::thread;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tracing::{error, info, warn};

use super::{Log, RunArgs};
use crate::config::{self, Config, Profile, Tables};
use crate::control::{ControlSocket, Daemon, Engine, Host, Limits, Server};
use crate::daemon::Died;

/// Starts the datapath a configuration asks for, each bridge with its flows (in the order of the configuration's
/// bridges). It runs until the last reference to the engine is dropped; when it breaks down before, [`Died`] is told.
pub type Launch = fn(&Config, Vec<Tables>, &Died) -> Result<Arc<dyn Engine>, String>;

const ORDERLY: u8 = 0;
const FAILED: u8 = 1;
const WRONG_INPUT: u8 = 2;

/// Why the daemon ends.
enum End {
    Signal(i32),
    Command,
    /// The datapath has broken down.
    Fault(String),
}

/// The process, as the control commands see it.
struct Process {
    end: Sender<End>,
    log: Log,
}

impl Host for Process {
    fn stop(&self) {
        // Nobody listens any more when the daemon is ending already.
        let _ = self.end.send(End::Command);
    }
    fn set_log_level(&self, module: Option<&str>, level: &str) -> Result<(), String> {
        self.log.set(module, level)
    }
    fn log_levels(&self) -> Vec<(String, String)> {
        self.log.levels()
    }
}

/// Runs `weir run`; the exit status.
#[must_use]
pub fn run(args: &RunArgs, launch: Launch) -> u8 {
    let mut config = match config::load(&args.config) {
        Ok(config) => config,
        Err(error) => return complain(&error, WRONG_INPUT),
    };
    if let Some(profile) = args.profile {
        config.profile = profile.into();
    }
    if config.profile == Profile::Replay {
        let message = "profile \"replay\" is for `weir replay`; `weir run` takes lab or metal";
        return complain(&message, WRONG_INPUT);
    }
    // All flow files are read before anything starts.
    let mut flows = Vec::new();
    let mut groups = Vec::new();
    for bridge in &config.bridges {
        match config::groups(bridge).and_then(|groups| Ok((groups, config::flows(bridge)?))) {
            Ok((of_groups, of_flows)) => {
                groups.push(of_groups);
                flows.push(of_flows);
            }
            Err(error) => return complain(&error, WRONG_INPUT),
        }
    }
    let warnings = || {
        let of_flows = flows.iter().flat_map(|file| &file.warnings).map(ToString::to_string);
        groups.iter().flat_map(|file| file.warnings.clone()).chain(of_flows)
    };
    if args.check {
        warnings().for_each(|warning| eprintln!("weir run: {warning}"));
        eprintln!("{}: fine", args.config.display());
        return ORDERLY;
    }
    let log = match Log::start(&args.log) {
        Ok(log) => log,
        Err(error) => return complain(&error, WRONG_INPUT),
    };
    warnings().for_each(|warning| warn!("{warning}"));
    // A fault of the program itself belongs in the log too.
    std::panic::set_hook(Box::new(|fault| error!("{fault}")));
    let both = groups.into_iter().zip(flows);
    let tables = both.map(|(groups, flows)| Tables { groups: groups.changes, flows: flows.flows }).collect();
    match serve(&config, tables, log, launch) {
        Ok(()) => ORDERLY,
        Err(reason) => {
            error!("{reason}");
            FAILED
        }
    }
}

fn complain(message: &dyn std::fmt::Display, status: u8) -> u8 {
    eprintln!("weir run: {message}");
    status
}

fn serve(config: &Config, tables: Vec<Tables>, log: Log, launch: Launch) -> Result<(), String> {
    let (end, ended) = mpsc::channel();
    watch_signals(end.clone()).map_err(|error| format!("cannot watch for signals: {error}"))?;
    // The socket first: a second daemon has to stop before it touches any port.
    let socket = ControlSocket::bind(&config.socket).map_err(|error| error.to_string())?;
    let faults = end.clone();
    let died: Died = Arc::new(move |reason| drop(faults.send(End::Fault(reason))));
    let engine = launch(config, tables, &died)?;
    let daemon = Daemon { engine: Arc::clone(&engine), host: Arc::new(Process { end, log }) };
    let server = Server::start(socket, Limits::default(), Arc::new(daemon))
        .map_err(|error| format!("cannot serve the control socket: {error}"))?;
    info!(socket = %config.socket.display(), profile = %config.profile, "weir is running");
    let end = ended.recv();
    match &end {
        Ok(End::Signal(number)) => info!(signal = number, "ending"),
        Ok(End::Command) => info!("ending, as asked by a command"),
        Ok(End::Fault(_)) => error!("ending after a fault"),
        Err(_) => info!("ending"),
    }
    // Nobody can ask anything of an engine that is about to go.
    drop(server);
    drop(engine);
    match end {
        Ok(End::Fault(reason)) => Err(format!("{reason}; the log above says where")),
        _ => Ok(()),
    }
}

/// Sends the first signal on as the request to end; the second ends the process there and then.
fn watch_signals(end: Sender<End>) -> io::Result<()> {
    let armed = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the first signal finds the flag unset and sets it.
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&armed))?;
        signal_hook::flag::register(signal, Arc::clone(&armed))?;
    }
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            if end.send(End::Signal(signal)).is_err() {
                return;
            }
        }
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::cli::LogArgs;
    use crate::control::commands::testing;
    use crate::control::testing::Scratch;

    #[test]
    fn a_datapath_that_breaks_down_ends_the_daemon_with_an_error() {
        let scratch = Scratch::new();
        let path = scratch.join("weir.sock");
        let text = format!("socket = \"{}\"", path.display());
        let config = config::parse(&text, Path::new("weir.toml")).unwrap();
        let log = Log::start(&LogArgs { level: "off".into(), json: false }).unwrap();
        let launch: Launch = |_, _, died| {
            let died = Arc::clone(died);
            thread::spawn(move || died("the lcore on CPU 3 has ended".into()));
            Ok(testing::engine())
        };
        let error = serve(&config, Vec::new(), log, launch).unwrap_err();
        assert!(error.contains("CPU 3"), "{error}");
        assert!(!path.exists());
    }
}
