//! The values a configuration is made of, each checked once, when it is made. The command line and the control
//! commands take the same types, so a name that is refused here is refused there.

use std::fmt;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use weir_numa::cpulist::CpuList;
use weir_shard::{FragmentSettings, ShardConfig, Timeouts};

use super::{Role, Steering, Zones};

/// How packets come and go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// Capture files in, capture files out; no DPDK.
    Replay,
    /// DPDK over virtual devices, without hugepages.
    #[default]
    Lab,
    /// DPDK with hugepages and PCI devices.
    Metal,
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Replay => "replay",
            Self::Lab => "lab",
            Self::Metal => "metal",
        })
    }
}

/// A bridge's or port's name: letters, digits, `_`, `-`, `.`, `:` and `@`, at most 63 of them, no number and
/// none of the words that the flow language reserves for ports.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Name(String);

/// Why a text is no [`Name`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing there.
    #[error("a name cannot be empty")]
    Empty,
    /// More than 63 characters.
    #[error("a name has at most {max} characters, this one has {0}", max = Name::MAX)]
    TooLong(usize),
    /// Not one of the characters allowed.
    #[error("{0:?} cannot be part of a name; letters, digits and _-.:@ can")]
    Character(char),
    /// Could be taken for a port number.
    #[error("\"{0}\" is a number, which flows would take for a port number; begin the name with a letter")]
    Number(String),
    /// Means something else in flows.
    #[error("\"{0}\" is a word of the flow language; choose another name")]
    Reserved(String),
}

impl Name {
    const MAX: usize = 63;
    const RESERVED: [&str; 11] =
        ["IN_PORT", "TABLE", "NORMAL", "FLOOD", "ALL", "CONTROLLER", "LOCAL", "NONE", "ANY", "UNSET", "drop"];

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_-.:@".contains(c);
        if text.is_empty() {
            Err(NameError::Empty)
        } else if let Some(bad) = text.chars().find(|&c| !allowed(c)) {
            Err(NameError::Character(bad))
        } else if text.len() > Self::MAX {
            Err(NameError::TooLong(text.len()))
        } else if text.bytes().all(|b| b.is_ascii_digit()) {
            Err(NameError::Number(text.to_owned()))
        } else if Self::RESERVED.iter().any(|word| word.eq_ignore_ascii_case(text)) {
            Err(NameError::Reserved(text.to_owned()))
        } else {
            Ok(Self(text.to_owned()))
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An OpenFlow port number that a port can have: 1 to 65279 (0xfeff; above are reserved ones).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct PortNumber(u16);

impl PortNumber {
    /// The largest.
    pub const MAX: u16 = 0xfeff;

    /// `None` outside 1 to 65279.
    #[must_use]
    pub fn new(number: u16) -> Option<Self> {
        (1..=Self::MAX).contains(&number).then_some(Self(number))
    }

    /// The number.
    #[must_use]
    pub fn number(self) -> u16 {
        self.0
    }
}

impl fmt::Display for PortNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A DPDK device: what `rte_dev_probe` takes, a PCI address or a driver's name with arguments.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct DevArgs(String);

/// Why a text is no [`DevArgs`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DevArgsError {
    /// Nothing there, or no device before the first comma.
    #[error("device arguments begin with a device, as in \"net_af_packet0,iface=eth1\" or \"0000:01:00.0\"")]
    NoDevice,
    /// Over the limit.
    #[error("device arguments have at most {max} bytes, these have {0}", max = DevArgs::MAX)]
    TooLong(usize),
    /// A control character or blank.
    #[error("{0:?} cannot be part of device arguments")]
    Character(char),
}

impl DevArgs {
    const MAX: usize = 255;

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The device's name or address, in front of the first comma.
    #[must_use]
    pub fn device(&self) -> &str {
        self.0.split(',').next().unwrap_or_default()
    }
}

impl FromStr for DevArgs {
    type Err = DevArgsError;

    fn from_str(text: &str) -> Result<Self, DevArgsError> {
        if let Some(bad) = text.chars().find(|c| c.is_whitespace() || c.is_control()) {
            Err(DevArgsError::Character(bad))
        } else if text.len() > Self::MAX {
            Err(DevArgsError::TooLong(text.len()))
        } else if text.is_empty() || text.starts_with(',') {
            Err(DevArgsError::NoDevice)
        } else {
            Ok(Self(text.to_owned()))
        }
    }
}

impl fmt::Display for DevArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// CPUs that poll, one shard each; at most as many as there may be shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lcores {
    /// These, at least one.
    On(CpuList),
    /// So many, next to the ports' cards.
    Automatic(NonZeroUsize),
}

/// A checked configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// How packets come and go.
    pub profile: Profile,
    /// The control socket.
    pub socket: PathBuf,
    /// CPUs that poll.
    pub lcores: Lcores,
    /// DPDK's memory in MiB.
    pub memory_mib: u32,
    /// Connection tracking.
    pub conntrack: Conntrack,
    /// Which lcore owns what.
    pub steering: Steering,
    /// Packet buffers.
    pub pool: Pool,
    /// How the packet path works.
    pub tuning: Tuning,
    /// Bridges, in the file's order.
    pub bridges: Vec<Bridge>,
}

/// Connection tracking's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conntrack {
    /// Room, in connections, all shards together.
    pub capacity: NonZeroU32,
    /// Connections admitted, at most the capacity.
    pub max_connections: u32,
    /// Accept TCP segments outside their window.
    pub liberal_tcp: bool,
    /// Keep packets, bytes and the time of the last packet for each connection.
    pub accounting: bool,
    /// Seconds without a packet after which a connection is forgotten.
    pub timeouts: Timeouts,
    /// What is different in some zones.
    pub zones: Zones,
    /// What is done with fragments, all shards together.
    pub fragments: FragmentSettings,
}

impl Conntrack {
    /// A shard that has all of it, and is alone; what zones have of their own is [`Zones::apply`]'s.
    #[must_use]
    pub fn shard(&self) -> ShardConfig {
        ShardConfig {
            capacity: self.capacity.get(),
            max_connections: self.max_connections,
            liberal_tcp: self.liberal_tcp,
            timeouts: self.timeouts.clone(),
            fragments: self.fragments,
            accounting: self.accounting,
            ..ShardConfig::default()
        }
    }
}

/// Packet buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Pool {
    /// How many.
    pub mbufs: u32,
    /// Bytes in each, 128 of headroom included.
    pub data_room: u16,
}

/// How the packet path works: the same results, at another price. For measuring what its parts are worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Tuning {
    /// Packets received at once, at most [`weir_ffi::BURST`].
    pub burst: usize,
    /// Packets of known connections follow trajectories.
    pub trajectories: bool,
}

impl Default for Tuning {
    fn default() -> Self {
        Self { burst: weir_ffi::BURST, trajectories: true }
    }
}

/// A bridge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Bridge {
    /// Its name.
    pub name: Name,
    /// Groups to load at start, before the flows that name them; the path is resolved as theirs.
    pub groups: Option<PathBuf>,
    /// Flows to load at start, already resolved against the configuration's directory.
    pub flows: Option<PathBuf>,
    /// Its ports, in the file's order.
    pub ports: Vec<Port>,
}

/// A port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Port {
    /// Its name, unique among all bridges and ports.
    pub name: Name,
    /// Its number, given or the lowest that was free.
    pub number: PortNumber,
    /// The device.
    pub devargs: DevArgs,
    /// The other end of a veth pair.
    pub peer: Option<Peer>,
    /// Receive queues; `None` for one an lcore, as far as the device has them.
    pub rx_queues: Option<u16>,
    /// Its side of a zone that is steered by subscriber.
    pub role: Option<Role>,
}

/// A device whose transmit offloads are to be turned off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Peer {
    /// The network device.
    pub dev: String,
    /// The network namespace it is in; `None` is our own.
    pub netns: Option<String>,
}

/// What Linux takes for a device and `ip netns` for a namespace, which becomes a file's name.
#[must_use]
pub fn is_system_name(text: &str) -> bool {
    let bad = |c: char| c == '/' || c.is_whitespace() || c.is_control();
    !text.is_empty() && text.len() < 64 && !text.starts_with(['.', '-']) && !text.contains(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_flows_would_misread_are_refused() {
        for good in ["br0", "veth-in", "p1.100", "dpdk0", "a"] {
            assert_eq!(good.parse::<Name>().unwrap().as_str(), good);
        }
        assert_eq!("".parse::<Name>(), Err(NameError::Empty));
        assert_eq!("12".parse::<Name>(), Err(NameError::Number("12".into())));
        assert_eq!("normal".parse::<Name>(), Err(NameError::Reserved("normal".into())));
        assert_eq!("a b".parse::<Name>(), Err(NameError::Character(' ')));
        assert_eq!("a/b".parse::<Name>(), Err(NameError::Character('/')));
        assert_eq!("x".repeat(64).parse::<Name>(), Err(NameError::TooLong(64)));
    }

    #[test]
    fn device_arguments_name_a_device() {
        assert_eq!("net_null0,no-rx=1".parse::<DevArgs>().unwrap().device(), "net_null0");
        assert_eq!("".parse::<DevArgs>(), Err(DevArgsError::NoDevice));
        assert_eq!(",iface=x".parse::<DevArgs>(), Err(DevArgsError::NoDevice));
        assert_eq!("net null".parse::<DevArgs>(), Err(DevArgsError::Character(' ')));
        assert_eq!("x".repeat(256).parse::<DevArgs>(), Err(DevArgsError::TooLong(256)));
    }
}
