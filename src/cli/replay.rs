//! The arguments of `weir replay`. The replay itself is elsewhere; this is what can be asked of it.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;

use crate::config::PortNumber;

/// `weir replay`
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// Flows in ovs-ofctl's language, one a line; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    pub flows: PathBuf,
    /// Packets that come in by port NUMBER (pcap, microseconds or nanoseconds); once for each port. `N=` without a
    /// file is a port that only sends.
    #[arg(long = "port", value_name = "NUMBER=FILE", required = true)]
    pub ports: Vec<PortCapture>,
    /// Where to write the captures of what was sent; made when missing.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Connections there is room for, all shards together.
    #[arg(long, value_name = "N", default_value_t = 65_536, value_parser = clap::value_parser!(u32).range(1..=1 << 28))]
    pub capacity: u32,
    /// Shards, as if on so many lcores; the result is the same for every number.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub shards: u16,
    /// Draw random numbers (NAT ports among them) from this seed, so that a run can be repeated. Default: a new
    /// one each time, which is printed.
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Accept TCP segments outside their window.
    #[arg(long)]
    pub liberal_tcp: bool,
    /// Print the connection table as it is after the last packet.
    #[arg(long)]
    pub dump_conntrack: bool,
    /// Print the flows with their counters after the last packet.
    #[arg(long)]
    pub dump_flows: bool,
    /// Print the result in JSON.
    #[arg(long)]
    pub json: bool,
    /// No progress bar, even on a terminal.
    #[arg(long)]
    pub quiet: bool,
}

/// One `--port NUMBER=FILE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortCapture {
    /// The port.
    pub number: PortNumber,
    /// What comes in by it.
    pub capture: Option<PathBuf>,
}

impl FromStr for PortCapture {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, file) =
            text.split_once('=').ok_or("write it as NUMBER=FILE, for example 1=inside.pcap")?;
        let number =
            number.parse().ok().and_then(PortNumber::new).ok_or_else(|| {
                format!("\"{number}\" is no port number; ports are 1 to {}", PortNumber::MAX)
            })?;
        Ok(Self { number, capture: (!file.is_empty()).then(|| PathBuf::from(file)) })
    }
}

impl ReplayArgs {
    /// What clap cannot see: a port given twice.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> Result<(), String> {
        let mut seen = std::collections::BTreeSet::new();
        match self.ports.iter().find(|port| !seen.insert(port.number)) {
            Some(port) => Err(format!("--port {} is given twice; merge its captures first", port.number)),
            None => Ok(()),
        }
    }
}
