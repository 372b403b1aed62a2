//! Debian's Open vSwitch as the reference: its userspace datapath in a private directory, beside whatever
//! Open vSwitch the machine itself may run. Two shapes: [`OvsDummy`] needs neither root nor interfaces and
//! its clock stands still; [`OvsNetdev`] forwards between real interfaces of a namespace.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::lab::{Lab, Namespace};
use crate::process::{self, Background, ProcessError};

mod dummy;
mod netdev;
mod unixctl;

pub use dummy::OvsDummy;
pub use netdev::OvsNetdev;
pub use unixctl::{Unixctl, UnixctlError};

/// Where Debian puts the daemon; the first that exists is taken.
const DAEMONS: [&str; 4] = [
    "/usr/lib/openvswitch-switch/ovs-vswitchd",
    "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk",
    "/usr/sbin/ovs-vswitchd",
    "/usr/local/sbin/ovs-vswitchd",
];
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
const BRIDGE: &str = "br0";
/// Some actions (`push_vlan`) cannot be sent in the OpenFlow 1.0 that `ovs-ofctl` speaks by default; others, and
/// less strict prerequisites, only in that.
const VERSIONS: &str = "--protocols=OpenFlow10,OpenFlow13";
/// How long its daemons may take to answer.
const START: Duration = Duration::from_secs(20);

/// Why the reference switch did not do as told.
#[derive(Debug, thiserror::Error)]
pub enum OvsError {
    /// Its daemon is not installed.
    #[error("no ovs-vswitchd in {0}: install it with tools/setup test")]
    Missing(String),
    /// One of its programs failed.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// Its control socket failed or refused a command.
    #[error(transparent)]
    Unixctl(#[from] UnixctlError),
    /// A file of it could not be read or written.
    #[error("{path}: {source}", path = .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// What it wrote as a capture is none.
    #[error("{} is no capture as expected: {what}", .path.display())]
    Capture {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
}

/// The two daemons with their private directory.
#[derive(Debug)]
struct Daemons {
    vswitchd: Background,
    _ovsdb: Background,
    directory: PathBuf,
    namespace: Option<Namespace>,
}

/// The daemon's path, if Open vSwitch is installed.
pub fn daemon() -> Option<PathBuf> {
    DAEMONS.iter().map(PathBuf::from).find(|path| path.exists())
}

impl Daemons {
    /// Starts `ovsdb-server` and `ovs-vswitchd` with `options`, in the namespace if there is one.
    fn start(lab: &Lab, namespace: Option<&Namespace>, options: &[&str]) -> Result<Self, OvsError> {
        let daemon = daemon().ok_or_else(|| OvsError::Missing(DAEMONS.join(", ")))?;
        let directory = lab.directory().join("ovs");
        let file = |path: &Path, source| OvsError::File { path: path.to_owned(), source };
        fs::create_dir(&directory).map_err(|source| file(&directory, source))?;
        let database = directory.join("conf.db");
        process::run(Command::new("ovsdb-tool").arg("create").arg(&database).arg(SCHEMA))?;
        let socket = directory.join("db.sock");
        let mut server = command(namespace, "ovsdb-server", &directory);
        server.arg(&database).arg(format!("--remote=punix:{}", socket.display()));
        server.arg(format!("--unixctl={}/ovsdb.ctl", directory.display()));
        server.arg(format!("--pidfile={}/ovsdb.pid", directory.display()));
        let mut ovsdb = Background::start("ovsdb-server", &mut server, &directory.join("ovsdb.log"))?;
        ovsdb.wait_until("it listens", START, || listens(&socket))?;
        process::run(
            command(namespace, "ovs-vsctl", &directory)
                .arg(format!("--db=unix:{}", socket.display()))
                .args(["--no-wait", "init"]),
        )?;
        let mut vswitchd = command(namespace, &daemon.to_string_lossy(), &directory);
        vswitchd.arg(format!("unix:{}", socket.display())).args(options);
        vswitchd.arg(format!("--unixctl={}/vswitchd.ctl", directory.display()));
        vswitchd.arg(format!("--pidfile={}/vswitchd.pid", directory.display()));
        vswitchd.args(["-vconsole:info", "-vsyslog:off"]);
        let mut vswitchd = Background::start("ovs-vswitchd", &mut vswitchd, &directory.join("vswitchd.log"))?;
        let control = directory.join("vswitchd.ctl");
        vswitchd.wait_until("it listens for commands", START, || listens(&control))?;
        Ok(Self { vswitchd, _ovsdb: ovsdb, directory, namespace: namespace.cloned() })
    }

    fn command(&self, program: &str) -> Command {
        command(self.namespace.as_ref(), program, &self.directory)
    }

    /// `ovs-vsctl` with `words`; waits until the daemon has done as told.
    fn vsctl(&self, words: &[String]) -> Result<(), OvsError> {
        let socket = format!("--db=unix:{}", self.directory.join("db.sock").display());
        process::run(self.command("ovs-vsctl").arg("--timeout=20").arg(socket).args(words))?;
        Ok(())
    }

    /// Replaces all flows of the bridge.
    fn load(&self, flows: &str) -> Result<(), OvsError> {
        let path = self.directory.join("flows");
        fs::write(&path, flows).map_err(|source| OvsError::File { path: path.clone(), source })?;
        let bridge = self.bridge();
        process::run(self.command("ovs-ofctl").args(["del-flows", &bridge]))?;
        let add = |options: &[&str]| {
            let mut command = self.command("ovs-ofctl");
            process::run(command.args(options).args(["add-flows", &bridge]).arg(&path))
        };
        // A list of flows fits one version or the other.
        add(&[]).or_else(|_| add(&[VERSIONS]))?;
        Ok(())
    }

    /// Replaces all groups of the bridge; the flows that name them go.
    fn load_groups(&self, groups: &str) -> Result<(), OvsError> {
        let path = self.directory.join("groups");
        fs::write(&path, groups).map_err(|source| OvsError::File { path: path.clone(), source })?;
        let bridge = self.bridge();
        let run =
            |words: &[&str]| process::run(self.command("ovs-ofctl").args(["-O", "OpenFlow15"]).args(words));
        run(&["del-groups", &bridge])?;
        run(&["add-groups", &bridge, &path.to_string_lossy()])?;
        Ok(())
    }

    /// What its bridge shows of its groups.
    fn dump_groups(&self) -> Result<String, OvsError> {
        let bridge = self.bridge();
        // OpenFlow 1.0 with Nicira's extensions, which shows actions by the words they were given in.
        Ok(process::run(self.command("ovs-ofctl").args(["--no-names", "dump-groups", &bridge]))?)
    }

    fn packet_out(&self, packets: &str) -> Result<(), OvsError> {
        process::run(self.command("ovs-ofctl").args([
            "-O",
            "OpenFlow15",
            "packet-out",
            &self.bridge(),
            packets,
        ]))?;
        Ok(())
    }

    /// `ovs-ofctl` with `words`, among which the bridge is called as scripts do.
    fn ofctl(&self, words: &[&str]) -> Result<String, OvsError> {
        let bridge = self.bridge();
        let words = words.iter().map(|word| if *word == BRIDGE { bridge.as_str() } else { word });
        Ok(process::run(self.command("ovs-ofctl").arg(VERSIONS).args(words))?)
    }

    /// What its bridge shows of its flows.
    fn dump(&self) -> Result<String, OvsError> {
        let bridge = self.bridge();
        Ok(process::run(self.command("ovs-ofctl").args([VERSIONS, "--no-names", "dump-flows", &bridge]))?)
    }

    fn bridge(&self) -> String {
        format!("unix:{}", self.directory.join(format!("{BRIDGE}.mgmt")).display())
    }

    fn control(&self) -> Result<Unixctl, OvsError> {
        Ok(Unixctl::connect(&self.directory.join("vswitchd.ctl"))?)
    }
}

/// Whether a daemon takes connections at `socket`; between its bind and its listen the file is there and refuses them.
fn listens(socket: &Path) -> bool {
    UnixStream::connect(socket).is_ok()
}

/// A command with Open vSwitch's directories set to ours.
fn command(namespace: Option<&Namespace>, program: &str, directory: &Path) -> Command {
    let mut command = namespace.map_or_else(|| Command::new(program), |inside| inside.command(program));
    for variable in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR"] {
        command.env(variable, directory);
    }
    command
}
