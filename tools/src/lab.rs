//! A laboratory: network namespaces joined by veth pairs, made with `ip` and gone when it drops.
//!
//! ```text
//!   inside                    box                     outside
//!   eth0 ------------ inside      outside ------------ eth0
//!   192.168.1.1/24        the switch           192.168.1.2/24
//! ```
//!
//! The switch under test runs in a namespace of its own, the *box*, so that the machine's own interfaces and
//! routes are never touched and several laboratories can stand side by side.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::cleanup::{self, Guard, Leftover, PREFIX};
use crate::process::{self, Background, ProcessError};

pub mod checks;
pub mod files;
pub mod helped;
pub mod pair;
pub mod peer;
pub mod programs;
pub mod routed;
pub mod weir;

pub use self::weir::Weir;
pub use pair::{Pair, Resolution};
pub use routed::Routed;

/// Whether we are root; says so and returns false if not, for a test to return early:
///
/// ```no_run
/// if !weir_tools::lab::root_or_skip() {
///     return;
/// }
/// ```
pub fn root_or_skip() -> bool {
    let root = is_root();
    if !root {
        println!("skipped: needs root");
    }
    root
}

/// Whether the effective user is root (proc(5): the second number after `Uid:`).
pub fn is_root() -> bool {
    fs::read_to_string("/proc/self/status").is_ok_and(|status| {
        status
            .lines()
            .find_map(|line| line.strip_prefix("Uid:"))
            .is_some_and(|ids| ids.split_whitespace().nth(1) == Some("0"))
    })
}

/// The namespaces, files and interfaces of one test.
#[derive(Debug)]
pub struct Lab {
    name: String,
    // Namespaces before the directory: what runs in them writes there. Fields drop in this order.
    namespaces: Vec<Guard>,
    directory: PathBuf,
    _directory: Guard,
}

impl Lab {
    /// A new, empty laboratory; removes what killed runs have left.
    ///
    /// # Errors
    /// If its directory cannot be made.
    pub fn new() -> Result<Self, ProcessError> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        cleanup::sweep();
        let io = |what: &str, source| ProcessError::Io { what: what.to_owned(), source };
        let identity = cleanup::identity(std::process::id())
            .ok_or_else(|| io("cannot read /proc/self/stat", std::io::ErrorKind::InvalidData.into()))?;
        let name = format!("{PREFIX}{identity}-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(&name);
        fs::create_dir(&directory)
            .map_err(|source| io(&format!("cannot make {}", directory.display()), source))?;
        let guard = Guard::new(Leftover::Directory(directory.clone()));
        Ok(Self { name, namespaces: Vec::new(), directory, _directory: guard })
    }

    /// Where its files lie (sockets, logs, configuration).
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Adds a namespace; its loopback is up, and it neither forwards nor sends IPv6 on its own account.
    ///
    /// # Errors
    /// If `ip` refuses, most likely because we are not root.
    pub fn namespace(&mut self, name: &str) -> Result<Namespace, ProcessError> {
        let full = format!("{}-{name}", self.name);
        ip(&["netns", "add", &full])?;
        self.namespaces.push(Guard::new(Leftover::Namespace(full.clone())));
        let namespace = Namespace { name: full, directory: self.directory.clone() };
        namespace.ip(&["link", "set", "lo", "up"])?;
        for key in ["all", "default"] {
            // Router solicitations and multicast reports would be packets that no test has sent.
            namespace.sysctl(&format!("ipv6.conf.{key}.router_solicitations"), "0")?;
            namespace.sysctl(&format!("ipv6.conf.{key}.accept_dad"), "0")?;
            namespace.sysctl(&format!("ipv6.conf.{key}.addr_gen_mode"), "1")?;
        }
        Ok(namespace)
    }
}

/// One network namespace of a [`Lab`], which owns it.
#[derive(Clone, Debug)]
pub struct Namespace {
    name: String,
    directory: PathBuf,
}

impl Namespace {
    /// Its name for `ip netns`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Joins it to `other` by a veth pair; both ends are up, with transmit offloads as the kernel gives them.
    ///
    /// # Errors
    /// If `ip` refuses.
    pub fn veth(&self, device: &str, other: &Self, other_device: &str) -> Result<(), ProcessError> {
        self.ip(&[
            "link",
            "add",
            device,
            "type",
            "veth",
            "peer",
            "name",
            other_device,
            "netns",
            &other.name,
        ])?;
        self.ip(&["link", "set", device, "up"])?;
        other.ip(&["link", "set", other_device, "up"])
    }

    /// Gives the device a hardware address.
    ///
    /// # Errors
    /// If `ip` refuses.
    pub fn hardware_address(&self, device: &str, address: &str) -> Result<(), ProcessError> {
        self.ip(&["link", "set", device, "address", address])
    }

    /// Adds an address with its prefix length (`192.168.1.1/24`).
    ///
    /// # Errors
    /// If `ip` refuses.
    pub fn address(&self, device: &str, address: &str) -> Result<(), ProcessError> {
        let mut words = vec!["address", "add", address, "dev", device];
        if address.contains(':') {
            words.push("nodad");
        }
        self.ip(&words)
    }

    /// Sends what goes to `prefix` by way of `gateway`.
    ///
    /// # Errors
    /// If `ip` refuses.
    pub fn route(&self, prefix: &str, gateway: IpAddr) -> Result<(), ProcessError> {
        self.ip(&["route", "add", prefix, "via", &gateway.to_string()])
    }

    /// Enters a permanent neighbour, so that nothing has to be asked for (ARP, neighbour discovery).
    ///
    /// # Errors
    /// If `ip` refuses.
    pub fn neighbour(&self, device: &str, address: IpAddr, hardware: &str) -> Result<(), ProcessError> {
        let address = address.to_string();
        self.ip(&["neigh", "replace", &address, "lladdr", hardware, "dev", device, "nud", "permanent"])
    }

    /// Turns the transmit offloads off: a veth pair passes on what a network card would have finished, so
    /// that packets would arrive oversized and with partial checksums.
    ///
    /// # Errors
    /// If `ethtool` refuses.
    pub fn offloads_off(&self, device: &str) -> Result<(), ProcessError> {
        self.run("ethtool", &["-K", device, "tx", "off", "gso", "off", "tso", "off"]).map(drop)
    }

    /// Sets a key below `net`.
    ///
    /// # Errors
    /// If it does not exist or cannot be written.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<(), ProcessError> {
        let path = format!("/proc/sys/net/{}", key.replace('.', "/"));
        self.run("sh", &["-c", "echo \"$1\" >\"$2\"", "sh", value, &path]).map(drop)
    }

    /// `ip` with `words`, inside.
    ///
    /// # Errors
    /// If it fails.
    pub fn ip(&self, words: &[&str]) -> Result<(), ProcessError> {
        let mut all = vec!["-n", &self.name];
        all.extend(words);
        ip(&all)
    }

    /// Whether `device` is up, with a carrier, and sends.
    #[must_use]
    pub fn carries(&self, device: &str) -> bool {
        let shown = process::run(Command::new("ip").args(["-n", &self.name, "link", "show", "dev", device]));
        shown.is_ok_and(|text| text.contains("state UP"))
    }

    /// A command that will run inside.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Runs a program inside, to its end, and returns what it printed.
    ///
    /// # Errors
    /// If it fails.
    pub fn run(&self, program: &str, words: &[&str]) -> Result<String, ProcessError> {
        process::run(self.command(program).args(words))
    }

    /// Starts a program inside, in the background; `title` names its log.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(&self, title: &str, command: &mut Command) -> Result<Background, ProcessError> {
        Background::start(title, command, &self.directory.join(format!("{title}.log")))
    }
}

fn ip(words: &[&str]) -> Result<(), ProcessError> {
    process::run(Command::new("ip").args(words)).map(drop)
}
