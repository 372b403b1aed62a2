//! What is measured beside Open vSwitch, step by step, the same for every switch. Packets come from captures that net_pcap
//! loops from memory; the same device, or net_null, frees what is sent. The flow table is the README's.

use std::path::Path;
use std::time::Duration;

use crate::BenchError;
use crate::process::Stop;
use crate::switch::{Statistics, Switch};
use crate::traffic::{self, Flow};

const NAT: &str = include_str!("../../examples/nat.flows");
const FORWARD: &str = include_str!("../forward.flows");
/// After the ports are there: caches fill, megaflows are made.
const SETTLE: Duration = Duration::from_millis(700);
/// For all connections to be set up.
const SET_UP: Duration = Duration::from_secs(60);

/// A kind of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Workload {
    /// From port to port by one flow, without tracking: the floor of harness and classifier.
    Forward,
    /// The NAT table, both directions of established UDP connections in equal parts.
    Established,
    /// The NAT table, every packet opens a connection.
    New,
}

impl Workload {
    /// For documents.
    #[must_use]
    pub const fn description(self) -> &'static str {
        match self {
            Self::Forward => "forward, one flow, no tracking",
            Self::Established => "established, translated both ways",
            Self::New => "new, each packet a connection",
        }
    }
}

impl std::fmt::Display for Workload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Forward => "forward",
            Self::Established => "established",
            Self::New => "new",
        })
    }
}

/// One workload on one switch.
#[derive(Debug)]
pub struct Measurement<'a> {
    /// The switch, without ports.
    pub switch: &'a Switch,
    /// Distinct flows.
    pub sessions: u32,
    /// How long to count.
    pub time: Duration,
    /// Different for every measurement on a switch: devices are named by it.
    pub number: u32,
    /// Ends every wait.
    pub stop: &'a Stop,
}

impl Measurement<'_> {
    /// Measures; the switch is without ports and connections again afterwards.
    ///
    /// # Errors
    /// Whatever goes wrong; the switch is to be stopped then.
    pub fn run(&self, workload: Workload) -> Result<Statistics, BenchError> {
        self.switch.flush()?;
        let capture = self.switch.file("flows.pcap");
        traffic::write(&capture, (0..self.sessions).map(Flow::numbered).collect(), 1)?;
        self.switch.set_flows(if workload == Workload::Forward { FORWARD } else { NAT })?;
        self.add_sink()?;
        let measured = match workload {
            Workload::Forward => self.forward(&capture),
            Workload::Established => self.established(&capture),
            Workload::New => self.new_connections(&capture),
        }?;
        self.switch.del_port("outside")?;
        self.switch.flush()?;
        Ok(measured)
    }

    /// Port 2, where nothing comes in.
    fn add_sink(&self) -> Result<(), BenchError> {
        self.switch.add_port("outside", 2, &format!("net_null{},no-rx=1", self.number))
    }

    fn forward(&self, capture: &Path) -> Result<Statistics, BenchError> {
        self.add_input("inside", 1, 'a', capture, true)?;
        let measured = self.count()?;
        self.switch.del_port("inside")?;
        Ok(measured)
    }

    fn established(&self, capture: &Path) -> Result<Statistics, BenchError> {
        self.add_input("inside", 1, 'a', capture, true)?;
        self.wait_for_connections()?;
        self.switch.del_port("inside")?;
        let connections = traffic::connections(&self.switch.dump_connections()?);
        let (found, wanted) = (connections.len().try_into().unwrap_or(u64::MAX), u64::from(self.sessions));
        if found != wanted {
            return Err(BenchError::Connections { found, wanted });
        }
        let (inside, outside): (Vec<Flow>, Vec<Flow>) = connections.into_iter().unzip();
        let (forth, back) = (self.switch.file("forth.pcap"), self.switch.file("back.pcap"));
        traffic::write(&forth, inside, 2)?;
        traffic::write(&back, outside, 3)?;
        // Answers come in where they do in the README: by port 2, which frees what leaves by it.
        self.switch.del_port("outside")?;
        self.add_input("outside", 2, 'c', &back, true)?;
        self.add_input("inside", 1, 'b', &forth, true)?;
        let measured = self.count()?;
        self.switch.del_port("inside")?;
        Ok(measured)
    }

    /// The capture is read once, so its packets come from the file: that is in the figure. OVS drops some of the first
    /// packets while it still works on the change of ports, so what counts is cycles for each connection that was
    /// opened, and half of the packets must have opened one.
    fn new_connections(&self, capture: &Path) -> Result<Statistics, BenchError> {
        let wanted = u64::from(self.sessions);
        self.switch.clear_statistics()?;
        self.add_input("inside", 1, 'a', capture, false)?;
        let measured =
            self.stop.wait_for("the whole capture", SET_UP, || match self.switch.statistics() {
                Ok(counted) => Ok((counted.packets >= wanted).then_some(counted)),
                Err(BenchError::Silent { .. }) => Ok(None),
                Err(error) => Err(error),
            })?;
        let found = self.switch.connections()?;
        if found < wanted / 2 {
            return Err(BenchError::Connections { found, wanted });
        }
        self.switch.del_port("inside")?;
        Ok(Statistics { packets: found, ..measured })
    }

    fn add_input(
        &self,
        name: &str,
        port: u16,
        letter: char,
        capture: &Path,
        looped: bool,
    ) -> Result<(), BenchError> {
        let looped = if looped { ",infinite_rx=1" } else { "" };
        let device = format!("net_pcap{}{letter},rx_pcap={}{looped}", self.number, capture.display());
        self.switch.add_port(name, port, &device)
    }

    fn wait_for_connections(&self) -> Result<(), BenchError> {
        let what = format!("{} connections", self.sessions);
        self.stop.wait_for(&what, SET_UP, || {
            Ok((self.switch.connections()? >= u64::from(self.sessions)).then_some(()))
        })
    }

    fn count(&self) -> Result<Statistics, BenchError> {
        self.stop.pause(SETTLE)?;
        self.switch.clear_statistics()?;
        self.stop.pause(self.time)?;
        self.switch.statistics()
    }
}
