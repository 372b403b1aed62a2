//! The switches under measurement, weir and Debian's OVS-DPDK, started with the same polling cores and driven by the same
//! commands: weir's control programs take the arguments of ovs-vsctl, ovs-ofctl and ovs-appctl. Only starting them
//! and reading their statistics differ.

use std::ffi::OsString;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::BenchError;
use crate::process::{Background, Stop, discard, run};

/// How long a daemon may take to start.
const START: Duration = Duration::from_secs(30);
/// MiB of packet memory: 262143 buffers and some.
pub const MEMORY_MIB: u32 = 2048;
/// Where Debian has it.
const OVS: &str = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk";
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
const BRIDGE: &str = "br0";

/// Which switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// This project's.
    Weir,
    /// Debian's openvswitch-switch-dpdk.
    OvsDpdk,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Weir => "weir",
            Self::OvsDpdk => "ovs-dpdk",
        })
    }
}

/// What every switch of a bench is started with.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The program `weir`.
    pub weir: PathBuf,
    /// The CPUs that poll.
    pub cores: Vec<u8>,
    /// The one for everything else.
    pub other_core: u8,
    /// What weir's configuration says beside: whole tables.
    pub settings: &'static str,
    /// There are hugepages.
    pub hugepages: bool,
    /// Ends every wait.
    pub stop: Stop,
}

/// Packets that the polling core received, and the cycles that it spent on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statistics {
    /// Received.
    pub packets: u64,
    /// Time stamp counter ticks in rounds that received something.
    pub cycles: u64,
}

/// What one of weir's lcores has counted, at one moment between two of its bursts.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
pub struct LcoreStatistics {
    /// Received from queues.
    pub packets: u64,
    /// Sent.
    pub tx_packets: u64,
    /// Time stamp counter ticks in rounds without packets.
    pub idle_cycles: u64,
    /// Likewise, with packets.
    pub busy_cycles: u64,
    /// Given to and taken from other lcores.
    #[serde(default)]
    pub exchange: Vec<Exchange>,
}

impl LcoreStatistics {
    /// Ticks of the time stamp counter, with packets and without.
    #[must_use]
    pub fn ticks(&self) -> u64 {
        self.idle_cycles.saturating_add(self.busy_cycles)
    }

    /// Packets that it gave to others.
    #[must_use]
    pub fn handed_over(&self) -> u64 {
        self.exchange.iter().map(|reason| reason.handed_over).sum()
    }
}

/// Packets that an lcore and the others gave each other for one reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
pub struct Exchange {
    /// Given.
    pub handed_over: u64,
    /// Taken.
    pub taken_over: u64,
    /// Dropped, as the other's mailbox was full.
    pub refused: u64,
}

/// A running switch; ended when dropped.
#[derive(Debug)]
pub struct Switch {
    kind: Kind,
    weir: PathBuf,
    directory: PathBuf,
    stop: Stop,
    /// The daemons, the one that polls first.
    daemons: Vec<Background>,
}

/// True if Debian's package is installed.
#[must_use]
pub fn ovs_is_installed() -> bool {
    Path::new(OVS).exists() && Path::new(SCHEMA).exists()
}

impl Switch {
    /// Starts the switch with a bridge without ports; its files go to `directory`, which must be empty.
    ///
    /// # Errors
    /// When it does not start, with the end of its log; nothing is left running.
    pub fn start(kind: Kind, setup: &Setup, directory: PathBuf) -> Result<Self, BenchError> {
        fs::create_dir_all(&directory).map_err(BenchError::at(&directory))?;
        let (weir, stop) = (setup.weir.clone(), setup.stop.clone());
        let mut switch = Self { kind, weir, directory, stop, daemons: Vec::new() };
        match kind {
            Kind::Weir => switch.start_weir(setup)?,
            Kind::OvsDpdk => switch.start_ovs(setup)?,
        }
        Ok(switch)
    }

    fn start_weir(&mut self, setup: &Setup) -> Result<(), BenchError> {
        let (config, flows) = (self.directory.join("weir.toml"), self.directory.join("none.flows"));
        let text = format!(
            "profile = \"{}\"\nsocket = \"weir.sock\"\nlcores = \"{}\"\nmemory_mib = {MEMORY_MIB}\n\
             [pool]\nmbufs = 262143\n[[bridge]]\nname = \"{BRIDGE}\"\nflows = \"none.flows\"\n{}",
            if setup.hugepages { "metal" } else { "lab" },
            setup.cores.iter().map(u8::to_string).collect::<Vec<_>>().join(","),
            setup.settings
        );
        fs::write(&config, text).map_err(BenchError::at(&config))?;
        fs::write(&flows, "").map_err(BenchError::at(&flows))?;
        let args = ["run", "--log", "warn", &config.to_string_lossy()];
        self.run_daemon(&setup.weir.clone().into_os_string(), &args, "weir.log")?;
        self.wait_until("weir to start", |switch| Ok(switch.appctl(&["version"]).is_ok()))
    }

    fn start_ovs(&mut self, setup: &Setup) -> Result<(), BenchError> {
        let path = |name: &str| self.directory.join(name).to_string_lossy().into_owned();
        let unix = |prefix: &str, name: &str| format!("{prefix}unix:{}", path(name));
        let (database, socket) = (path("conf.db"), path("db.sock"));
        run(self.command("ovsdb-tool").args(["create", &database, SCHEMA]))?;
        let listen = format!("--remote=punix:{socket}");
        let (server_control, connect) = (format!("--unixctl={}", path("db.ctl")), unix("", "db.sock"));
        let control = format!("--unixctl={}", path("vswitchd.ctl"));
        self.run_daemon(&"ovsdb-server".into(), &[&database, &listen, &server_control], "db.log")?;
        let mask = setup.cores.iter().fold(0, |mask, core| mask | 1u128 << core);
        self.wait_until("ovsdb-server to listen", |_| Ok(UnixStream::connect(&socket).is_ok()))?;
        self.vsctl(&["--no-wait", "init"])?;
        self.vsctl(&[
            "--no-wait",
            "set",
            "Open_vSwitch",
            ".",
            "other_config:dpdk-init=true",
            &format!("other_config:dpdk-socket-mem={MEMORY_MIB}"),
            &format!("other_config:dpdk-lcore-mask={:#x}", 1u128 << setup.other_core),
            &format!("other_config:pmd-cpu-mask={:#x}", mask),
            "other_config:dpdk-extra=--no-pci --file-prefix=weir-bench-ovs --huge-unlink",
            "other_config:emc-insert-inv-prob=100",
        ])?;
        self.run_daemon(&OVS.into(), &[&connect, &control], "vswitchd.log")?;
        // The one that polls first: its log is the interesting one.
        self.daemons.reverse();
        self.wait_until("DPDK to start in OVS", |switch| {
            let answer = switch.vsctl(&["get", "Open_vSwitch", ".", "dpdk_initialized"]);
            Ok(answer.is_ok_and(|answer| answer.trim() == "true"))
        })?;
        self.vsctl(&["add-br", BRIDGE, "--", "set", "bridge", BRIDGE, "datapath_type=netdev"])?;
        self.appctl(&["dpctl/ct-set-maxconns", "3000000"])?;
        Ok(())
    }

    fn run_daemon(&mut self, program: &OsString, args: &[&str], log: &str) -> Result<(), BenchError> {
        let directory = self.directory.clone();
        let env = ["OVS_RUNDIR", "OVS_DBDIR", "OVS_LOGDIR"].map(|name| (name, directory.as_path()));
        self.daemons.push(Background::start(program, args, &env, directory.join(log))?);
        Ok(())
    }

    fn wait_until(
        &mut self,
        what: &str,
        mut condition: impl FnMut(&Self) -> Result<bool, BenchError>,
    ) -> Result<(), BenchError> {
        let stop = self.stop.clone();
        stop.wait_for(what, START, || {
            self.daemons.iter_mut().try_for_each(Background::check)?;
            Ok(condition(self)?.then_some(()))
        })
    }

    /// The file of a name in the switch's directory.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Which it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The end of its log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        self.daemons.first().map(Background::log_tail).unwrap_or_default()
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for name in ["OVS_RUNDIR", "OVS_DBDIR", "OVS_LOGDIR"] {
            command.env(name, &self.directory);
        }
        command
    }

    fn control(&self, family: &str, args: &[&str]) -> Result<String, BenchError> {
        let path = |name: &str| self.directory.join(name).to_string_lossy().into_owned();
        let mut command = match self.kind {
            Kind::Weir => {
                let mut command = Command::new(&self.weir);
                command.arg(family).env("WEIR_SOCKET", self.directory.join("weir.sock"));
                command
            }
            Kind::OvsDpdk => self.command(&format!("ovs-{family}")),
        };
        match (self.kind, family) {
            (Kind::OvsDpdk, "vsctl") => {
                command.arg("--timeout=20").arg(format!("--db=unix:{}", path("db.sock")))
            }
            (Kind::OvsDpdk, "appctl") => command.args(["-t", &path("vswitchd.ctl")]),
            _ => &mut command,
        };
        run(command.args(args))
    }

    fn vsctl(&self, args: &[&str]) -> Result<String, BenchError> {
        self.control("vsctl", args)
    }

    /// What an `appctl` command says.
    ///
    /// # Errors
    /// The switch's.
    pub fn appctl(&self, args: &[&str]) -> Result<String, BenchError> {
        self.control("appctl", args)
    }

    /// Adds a port with a number and a DPDK device; packets flow when this returns.
    ///
    /// # Errors
    /// The switch's.
    pub fn add_port(&self, name: &str, number: u16, devargs: &str) -> Result<(), BenchError> {
        let (devargs, number) =
            (format!("options:dpdk-devargs={devargs}"), format!("ofport_request={number}"));
        let set = ["--", "set", "Interface", name, "type=dpdk", &devargs, &number];
        self.vsctl(&[["add-port", BRIDGE, name].as_slice(), &set].concat()).map(drop)
    }

    /// Deletes a port.
    ///
    /// # Errors
    /// The switch's.
    pub fn del_port(&self, name: &str) -> Result<(), BenchError> {
        self.vsctl(&["del-port", BRIDGE, name]).map(drop)
    }

    /// Makes the flow table what `text` says.
    ///
    /// # Errors
    /// The switch's.
    pub fn set_flows(&self, text: &str) -> Result<(), BenchError> {
        let file = self.file("table.flows");
        fs::write(&file, text).map_err(BenchError::at(&file))?;
        let bridge = match self.kind {
            Kind::Weir => BRIDGE.to_owned(),
            Kind::OvsDpdk => self.file(&format!("{BRIDGE}.mgmt")).to_string_lossy().into_owned(),
        };
        self.control("ofctl", &["del-flows", &bridge])?;
        self.control("ofctl", &["add-flows", &bridge, &file.to_string_lossy()]).map(drop)
    }

    /// Makes the flow table what `file` says in one step, without a moment between. Of weir alone.
    ///
    /// # Errors
    /// The switch's.
    pub fn swap_flows(&self, file: &Path) -> Result<(), BenchError> {
        self.control("ofctl", &["replace-flows", BRIDGE, &file.to_string_lossy()]).map(drop)
    }

    /// What weir's lcores have counted.
    ///
    /// # Errors
    /// The switch's.
    pub fn lcores(&self) -> Result<Vec<LcoreStatistics>, BenchError> {
        let text = self.appctl(&["--json", "dpif-netdev/pmd-stats-show"])?;
        serde_json::from_str(&text).map_err(|_| BenchError::Answer { what: "pmd-stats-show", text })
    }

    /// Process number of the daemon that polls.
    #[must_use]
    pub fn process(&self) -> Option<u32> {
        self.daemons.first().map(Background::id)
    }

    /// Forgets all connections.
    ///
    /// # Errors
    /// The switch's.
    pub fn flush(&self) -> Result<(), BenchError> {
        self.appctl(&["dpctl/flush-conntrack"]).map(drop)
    }

    /// How many connections there are.
    ///
    /// # Errors
    /// The switch's.
    pub fn connections(&self) -> Result<u64, BenchError> {
        let text = self.appctl(&["dpctl/ct-get-nconns"])?;
        text.trim().parse().map_err(|_| BenchError::Answer { what: "the number of connections", text })
    }

    /// The connections.
    ///
    /// # Errors
    /// The switch's.
    pub fn dump_connections(&self) -> Result<String, BenchError> {
        self.appctl(&["dpctl/dump-conntrack"])
    }

    /// Has all connections listed, into nothing; says how many there were before.
    ///
    /// # Errors
    /// The switch's.
    pub fn count_dumped_connections(&self) -> Result<u64, BenchError> {
        let found = self.connections()?;
        let mut command = Command::new(&self.weir);
        command.args(["appctl", "dpctl/dump-conntrack"]).env("WEIR_SOCKET", self.directory.join("weir.sock"));
        discard(&mut command)?;
        Ok(found)
    }

    /// Starts the statistics anew.
    ///
    /// # Errors
    /// The switch's.
    pub fn clear_statistics(&self) -> Result<(), BenchError> {
        self.appctl(&["dpif-netdev/pmd-stats-clear"]).map(drop)
    }

    /// Packets and cycles since the statistics were cleared.
    ///
    /// # Errors
    /// The switch's, or [`BenchError::Silent`] without any packet.
    pub fn statistics(&self) -> Result<Statistics, BenchError> {
        let show = "dpif-netdev/pmd-stats-show";
        let (text, found) = match self.kind {
            Kind::Weir => {
                let text = self.appctl(&["--json", show])?;
                let found = weir_statistics(&text);
                (text, found)
            }
            Kind::OvsDpdk => {
                let text = self.appctl(&[show])?;
                let found = ovs_statistics(&text);
                (text, found)
            }
        };
        match found {
            None => Err(BenchError::Answer { what: "pmd-stats-show", text }),
            Some(Statistics { packets: 0, .. }) => {
                Err(BenchError::Silent { system: self.kind.to_string(), log: self.log_tail() })
            }
            Some(found) => Ok(found),
        }
    }
}

/// From `pmd-stats-show --json`: of the one lcore.
fn weir_statistics(text: &str) -> Option<Statistics> {
    let lcores: Value = serde_json::from_str(text).ok()?;
    let [lcore] = lcores.as_array()?.as_slice() else { return None };
    Some(Statistics { packets: lcore.get("packets")?.as_u64()?, cycles: lcore.get("busy_cycles")?.as_u64()? })
}

/// From the text of `pmd-stats-show`: of the one polling thread, not of the main thread.
fn ovs_statistics(text: &str) -> Option<Statistics> {
    let mut sections = text.split("pmd thread ");
    let section = sections.nth(1)?.split("main thread").next()?;
    if sections.next().is_some() {
        return None;
    }
    let number = |key: &str| {
        let rest = section.lines().find_map(|line| line.trim().strip_prefix(key))?;
        rest.split_whitespace().next()?.parse().ok()
    };
    Some(Statistics { packets: number("packets received:")?, cycles: number("processing cycles:")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OVS_TEXT: &str = "pmd thread numa_id 0 core_id 1:
  packets received: 1200
  packet recirculations: 1200
  avg. datapath passes per packet: 2.00
  idle cycles: 77 (0.01%)
  processing cycles: 3600000 (99.99%)
  avg cycles per packet: 3000.06 (3600077/1200)
main thread:
  packets received: 5
  processing cycles: 9 (100.00%)
";

    #[test]
    fn the_polling_thread_of_ovs_is_read_and_not_its_main_thread() {
        assert_eq!(ovs_statistics(OVS_TEXT), Some(Statistics { packets: 1200, cycles: 3_600_000 }));
        assert_eq!(ovs_statistics("main thread:\n  packets received: 5\n"), None);
        assert_eq!(ovs_statistics(&format!("{OVS_TEXT}{OVS_TEXT}")), None);
        assert_eq!(ovs_statistics(""), None);
    }

    #[test]
    fn the_one_lcore_of_weir_is_read() {
        let text = r#"[{"cpu":1,"packets":7,"busy_cycles":700,"idle_cycles":3}]"#;
        assert_eq!(weir_statistics(text), Some(Statistics { packets: 7, cycles: 700 }));
        assert_eq!(weir_statistics("[]"), None);
        assert_eq!(weir_statistics("{"), None);
        assert_eq!(weir_statistics(r#"[{"packets":7}]"#), None);
    }
}
