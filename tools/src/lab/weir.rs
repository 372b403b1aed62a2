//! weir itself as a process of the laboratory: started with a configuration, waited for, asked through its
//! command line, ended when dropped.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::Pair;
use crate::process::{self, Background, ProcessError};

/// How long it may take to start: DPDK probes devices and reserves memory.
const START: Duration = Duration::from_secs(60);

/// A DPDK driver for the ports of a laboratory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// Packet sockets.
    AfPacket,
    /// XDP sockets.
    AfXdp,
}

impl Driver {
    fn devargs(self, number: usize, interface: &str) -> String {
        match self {
            Self::AfPacket => format!("net_af_packet{number},iface={interface}"),
            Self::AfXdp => format!("net_af_xdp{number},iface={interface}"),
        }
    }
}

/// The running daemon.
#[derive(Debug)]
pub struct Weir {
    process: Background,
    binary: PathBuf,
    socket: PathBuf,
}

impl Weir {
    /// Starts it in the box of `pair`, port 1 inside and port 2 outside, with `flows`.
    ///
    /// # Errors
    /// If the program is not built, ends, or does not open its socket in a minute; its log is in the message.
    pub fn start(pair: &Pair, driver: Driver, flows: &str) -> Result<Self, ProcessError> {
        let binary = binary()?;
        let directory = pair.lab.directory();
        let socket = directory.join("weir.sock");
        write(&directory.join("test.flows"), flows)?;
        let config = directory.join("weir.toml");
        write(&config, &configuration(pair, driver, &socket))?;
        let mut command = pair.middle.command(&binary.to_string_lossy());
        let mut process = pair.middle.start("weir", command.arg("run").arg(&config))?;
        process.wait_until("its socket appears", START, || socket.exists())?;
        let weir = Self { process, binary, socket };
        // The socket is there before the ports are; a command is answered when they are.
        weir.ctl(&["appctl", "version"])?;
        // The kernel notices the new carrier a while later, and drops what is sent until then.
        for host in [&pair.inside, &pair.outside] {
            process::wait_until("the links come up", START, || host.namespace.carries("eth0"))?;
        }
        Ok(weir)
    }

    /// `weir ofctl|appctl ...` against this daemon; returns what it printed.
    ///
    /// # Errors
    /// If it is refused.
    pub fn ctl(&self, words: &[&str]) -> Result<String, ProcessError> {
        process::run(self.command().args(words))
    }

    /// The program with its socket in the environment.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command.env("WEIR_SOCKET", &self.socket);
        command
    }

    /// The lines of `dpctl/dump-conntrack`.
    ///
    /// # Errors
    /// If the daemon is gone.
    pub fn connections(&self) -> Result<Vec<String>, ProcessError> {
        Ok(self.ctl(&["appctl", "dpctl/dump-conntrack"])?.lines().map(str::to_owned).collect())
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// Asks it to end, as an operator would (SIGTERM).
    ///
    /// # Errors
    /// If it does not within ten seconds.
    pub fn terminate(&mut self) -> Result<bool, ProcessError> {
        self.process.terminate(Duration::from_secs(10))
    }
}

fn write(path: &Path, text: &str) -> Result<(), ProcessError> {
    fs::write(path, text)
        .map_err(|source| ProcessError::Io { what: format!("cannot write {}", path.display()), source })
}

fn configuration(pair: &Pair, driver: Driver, socket: &Path) -> String {
    let mut text = format!(
        "profile = \"lab\"\nsocket = \"{}\"\nlcores = \"1\"\nmemory_mib = 512\n\n\
         [conntrack]\ncapacity = 100000\n\n[[bridge]]\nname = \"br0\"\nflows = \"test.flows\"\n",
        socket.display()
    );
    for (number, (name, host)) in
        [("inside", &pair.inside), ("outside", &pair.outside)].into_iter().enumerate()
    {
        // Writing into a string cannot fail.
        let _ = write!(
            text,
            "\n[[bridge.port]]\nname = \"{name}\"\nnumber = {}\ndevargs = \"{}\"\n\
             peer = {{ dev = \"{}\", netns = \"{}\" }}\n",
            number + 1,
            driver.devargs(number, name),
            super::pair::DEVICE,
            host.namespace.name()
        );
    }
    text
}

/// The program: `WEIR_BIN`, or what lies in the build directory of the running program.
///
/// # Errors
/// If it has not been built.
pub fn binary() -> Result<PathBuf, ProcessError> {
    if let Some(path) = std::env::var_os("WEIR_BIN") {
        return Ok(path.into());
    }
    // Test programs lie in PROFILE/deps, others in PROFILE itself.
    let own = std::env::current_exe()
        .map_err(|source| ProcessError::Io { what: "cannot find the running program".into(), source })?;
    let found =
        own.ancestors().skip(1).take(2).map(|directory| directory.join("weir")).find(|path| path.is_file());
    found.ok_or_else(|| ProcessError::Io {
        what: format!("no weir beside {} (build the workspace first, or set WEIR_BIN)", own.display()),
        source: std::io::ErrorKind::NotFound.into(),
    })
}
