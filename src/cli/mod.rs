//! The command line: what can be typed, parsed by clap into plain structs, and the client's side of the control
//! commands. Help texts here are the manual.

mod client;
mod colour;
mod ct;
mod daemon;
mod log;
mod replay;
mod show;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use client::{appctl, native, ofctl, vsctl};
pub use colour::Colour;
pub use ct::ct;
pub use daemon::{Launch, run};
pub use log::{Log, LogError};
pub use replay::{PortCapture, ReplayArgs, replay};
pub use show::{DaemonArgs, Show, ShowArgs, show};

use crate::config::{DEFAULT_SOCKET, Profile};
use crate::control::Family;

/// weir: a stateful packet datapath that speaks Open vSwitch's flow language.
#[derive(Debug, Parser)]
#[command(name = "weir", version, propagate_version = true, disable_help_subcommand = true)]
#[command(
    after_help = "For people used to Open vSwitch:  alias ovs-ofctl='weir ofctl' ovs-appctl='weir appctl' \
                        ovs-vsctl='weir vsctl'"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon over DPDK ports, in the foreground.
    ///
    /// Reads CONFIG (see `weir config example`), starts its ports, loads its flows, and serves the control
    /// socket until SIGINT, SIGTERM or `weir appctl exit`; a second signal ends it at once. Logs go to
    /// standard error. Exit status: 0 after an orderly end, 1 when something did not start, 2 when the command
    /// line or the configuration is wrong.
    Run(RunArgs),
    /// Send capture files through flow tables, without root and without DPDK.
    ///
    /// Packets of all captures are merged by their time stamps, which are the only clock: connections
    /// time out as the captures say. What leaves port N is written to DIR/N.pcap. At the end weir says
    /// what it did: packets in, out, dropped by cause, connections. Example:
    ///
    ///   weir replay --flows nat.flows --port 1=inside.pcap --port 2=outside.pcap --out after/
    #[command(verbatim_doc_comment)]
    Replay(ReplayArgs),
    /// Show and change bridges' flows: the arguments of ovs-ofctl.
    #[command(after_help = Family::Ofctl.help())]
    Ofctl(OfctlArgs),
    /// Show and control the running daemon: the arguments of ovs-appctl.
    #[command(after_help = Family::Appctl.help())]
    Appctl(AppctlArgs),
    /// Show, add and delete bridges and ports while running: the arguments of ovs-vsctl.
    ///
    /// Several commands, separated by `--`, are one change: an error in any of them changes nothing. What is
    /// changed here lasts until the daemon ends; the configuration file stays as it is. Example:
    ///
    ///   weir vsctl add-port br0 p1 -- set Interface p1 type=dpdk
    ///       options:dpdk-devargs=0000:01:00.0 ofport_request=1
    ///
    /// A port over one end of a veth pair gets whole frames with finished checksums only when the other end
    /// leaves no work to hardware; weir turns that end's transmit offloads off when it is named:
    ///
    ///   weir vsctl add-port br0 p2 options:dpdk-devargs=net_af_packet0,iface=veth0
    ///       options:peer=eth0 options:peer-netns=inside
    #[command(after_help = Family::Vsctl.help(), verbatim_doc_comment)]
    Vsctl(VsctlArgs),
    /// Print the tables that connections are tracked by, who owns which connections, or how the datapath lies on the
    /// machine.
    Show(ShowArgs),
    /// List, filter, count, watch and remove connections.
    ///
    /// What people read is aligned; `--json` gives programs the same. A long list comes page by page, as it is
    /// read: it neither holds up packets nor takes memory, however many connections there are.
    #[command(after_help = Family::Ct.help())]
    Ct(NativeArgs),
    /// Show and set what is particular to some connection tracking zones.
    ///
    /// A zone's connection limit is set by `weir appctl dpctl/ct-set-limits zone=N,limit=L`. Example:
    ///
    ///   weir zone set-timeout 5 udp_first=30 udp_multiple=120
    #[command(after_help = Family::Zone.help(), verbatim_doc_comment)]
    Zone(NativeArgs),
    /// Help with the configuration file.
    Config(ConfigArgs),
}

/// `weir run`
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The configuration file (TOML).
    pub config: PathBuf,
    /// Use this profile in place of the configuration's.
    #[arg(long, value_name = "PROFILE")]
    pub profile: Option<RunProfile>,
    /// Check the configuration, say so, and end.
    #[arg(long)]
    pub check: bool,
    /// What to log.
    #[command(flatten)]
    pub log: LogArgs,
}

/// Profiles that the daemon can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RunProfile {
    /// DPDK over virtual devices, without hugepages.
    Lab,
    /// DPDK with hugepages and PCI devices.
    Metal,
}

impl From<RunProfile> for Profile {
    fn from(profile: RunProfile) -> Self {
        match profile {
            RunProfile::Lab => Self::Lab,
            RunProfile::Metal => Self::Metal,
        }
    }
}

/// What to log.
#[derive(Clone, Debug, Args)]
pub struct LogArgs {
    /// Log level: off, error, warn, info, debug or trace, for all modules or for some, as in
    /// `info,control=debug`.
    #[arg(long = "log", value_name = "LEVEL", default_value = "info")]
    pub level: String,
    /// Log in JSON, one object a line.
    #[arg(long = "json-log")]
    pub json: bool,
}

/// Which daemon a control command is for.
#[derive(Clone, Debug, Args)]
pub struct Target {
    /// The daemon's control socket.
    #[arg(long, value_name = "PATH", env = "WEIR_SOCKET", default_value = DEFAULT_SOCKET)]
    pub socket: PathBuf,
    /// Answer in JSON (commands that read).
    #[arg(long)]
    pub json: bool,
}

/// `weir ofctl`
#[derive(Debug, Args)]
pub struct OfctlArgs {
    /// Which daemon.
    #[command(flatten)]
    pub target: Target,
    /// Match flows exactly, priority included, when modifying and deleting.
    #[arg(long)]
    pub strict: bool,
    /// Accepted: every change is one transaction anyway.
    #[arg(long)]
    pub bundle: bool,
    /// Show flows without cookie, duration and counters.
    #[arg(long)]
    pub no_stats: bool,
    /// Show port names in place of numbers.
    #[arg(long, overrides_with = "no_names")]
    pub names: bool,
    /// Show port numbers, the default.
    #[arg(long)]
    pub no_names: bool,
    /// With replace-flows: install unchanged flows anew, counters at zero.
    #[arg(long)]
    pub readd: bool,
    /// With mod-group: add the group when there is none.
    #[arg(long)]
    pub may_create: bool,
    /// With compose-packet: hexadecimal digits only.
    #[arg(long)]
    pub bare: bool,
    /// With compose-packet: a wrong IP checksum.
    #[arg(long)]
    pub bad_csum: bool,
    /// Sort flows by FIELD, ascending; without FIELD by priority. May be given several times.
    #[arg(long, value_name = "FIELD", num_args = 0..=1, require_equals = true, default_missing_value = "priority")]
    pub sort: Vec<String>,
    /// Sort flows by FIELD, descending.
    #[arg(long, value_name = "FIELD", num_args = 0..=1, require_equals = true, default_missing_value = "priority")]
    pub rsort: Vec<String>,
    /// Accepted when every version in the list exists; the output is the same for all.
    #[arg(short = 'O', long = "protocols", value_name = "VERSIONS", action = clap::ArgAction::Append)]
    pub protocols: Vec<OpenFlowVersions>,
    /// Accepted when every format in the list exists; flows always show in full, as in NXM+table_id.
    #[arg(short = 'F', long = "flow-format", value_name = "FORMATS")]
    pub flow_format: Option<FlowFormats>,
    /// Accepted: there are no OpenFlow messages to show more of.
    #[arg(short, long)]
    pub more: bool,
    /// Colour flows: always, auto (on a terminal) or never; without WHEN always.
    #[arg(long, value_name = "WHEN", num_args = 0..=1, require_equals = true, default_value = "never", default_missing_value = "always")]
    pub color: Colour,
    /// Give up after SECS seconds without an answer.
    #[arg(short, long, value_name = "SECS")]
    pub timeout: Option<u32>,
    /// The command, the bridge, and what the command needs.
    #[arg(value_name = "COMMAND")]
    pub words: Vec<String>,
}

/// A list of `OpenFlow10` to `OpenFlow15`, checked and otherwise ignored.
#[derive(Clone, Debug)]
pub struct OpenFlowVersions;

impl std::str::FromStr for OpenFlowVersions {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        for version in text.split(',') {
            if !matches!(
                version.trim().to_ascii_lowercase().as_str(),
                "openflow10" | "openflow11" | "openflow12" | "openflow13" | "openflow14" | "openflow15"
            ) {
                return Err(format!("Unknown OpenFlow version: \"{version}\""));
            }
        }
        Ok(Self)
    }
}

/// A list of flow formats, checked and otherwise ignored.
#[derive(Clone, Debug)]
pub struct FlowFormats;

impl std::str::FromStr for FlowFormats {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        for format in text.split(',') {
            let lower = format.trim().to_ascii_lowercase();
            let base = lower.strip_suffix("+table_id").or_else(|| lower.strip_suffix("-table_id"));
            let known = match base {
                Some(base) => matches!(base, "openflow10" | "nxm"),
                None => matches!(
                    lower.as_str(),
                    "any"
                        | "openflow10"
                        | "nxm"
                        | "oxm"
                        | "oxm-openflow11"
                        | "oxm-openflow12"
                        | "oxm-openflow13"
                        | "oxm-openflow14"
                        | "oxm-openflow15"
                ),
            };
            if !known {
                return Err(format!("{format}: unknown flow protocol"));
            }
        }
        Ok(Self)
    }
}

/// `weir appctl`
#[derive(Debug, Args)]
pub struct AppctlArgs {
    /// Which daemon.
    #[command(flatten)]
    pub target: Target,
    /// The same as --socket.
    #[arg(short = 't', long = "target", value_name = "PATH")]
    pub target_socket: Option<PathBuf>,
    /// Give up after SECS seconds without an answer.
    #[arg(short = 'T', long, value_name = "SECS")]
    pub timeout: Option<u32>,
    /// The command and its arguments.
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    pub words: Vec<String>,
}

/// `weir vsctl`
#[derive(Debug, Args)]
pub struct VsctlArgs {
    /// Which daemon.
    #[command(flatten)]
    pub target: Target,
    /// Give up after SECS seconds without an answer.
    #[arg(short, long, value_name = "SECS")]
    pub timeout: Option<u32>,
    /// The commands, separated by `--`.
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    pub words: Vec<String>,
}

/// weir's own families of commands.
#[derive(Debug, Args)]
pub struct NativeArgs {
    /// Which daemon.
    #[command(flatten)]
    pub target: Target,
    /// Give up after SECS seconds without an answer.
    #[arg(short = 'T', long, value_name = "SECS")]
    pub timeout: Option<u32>,
    /// The command and its arguments.
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    pub words: Vec<String>,
}

/// `weir config`
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// What to show.
    #[command(subcommand)]
    pub command: ConfigCommand,
}

/// What `weir config` shows.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print a commented configuration with every key and its default.
    Example,
}

/// Parses the command line. On an error, or when help or the version was asked for, the message has been
/// printed and the exit status comes back: 2, but 1 for the control families, as with Open vSwitch's programs.
///
/// # Errors
/// The exit status.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Cli, u8> {
    let args: Vec<OsString> = args.into_iter().collect();
    let family = Family::ALL.into_iter().find(|family| args.get(1).is_some_and(|word| word == family.name()));
    Cli::try_parse_from(protect_separators(args, family)).map_err(|error| {
        let _ = error.print();
        match error.exit_code() {
            0 => 0,
            _ if family.is_some() => 1,
            _ => 2,
        }
    })
}

/// clap takes the first `--` for its own; vsctl's first one separates commands. Doubling it keeps it.
fn protect_separators(mut args: Vec<OsString>, family: Option<Family>) -> Vec<OsString> {
    if family == Some(Family::Vsctl)
        && let Some(at) = args.iter().position(|arg| arg == "--")
    {
        args.insert(at, "--".into());
    }
    args
}
