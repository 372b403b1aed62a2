//! Open vSwitch between real interfaces: the userspace datapath in a namespace, over packet sockets. Tests of
//! the laboratory run against it too, which shows that a failure is the switch's and not the laboratory's.

use super::{BRIDGE, Daemons, OvsError};
use crate::lab::Pair;

/// The reference switch for the tests with real programs.
#[derive(Debug)]
pub struct OvsNetdev {
    daemons: Daemons,
}

impl OvsNetdev {
    /// Starts it in the box of `pair`, port 1 inside and port 2 outside, with `flows`.
    ///
    /// # Errors
    /// If Open vSwitch is not installed, does not start or does not take the flows.
    pub fn start(pair: &Pair, flows: &str) -> Result<Self, OvsError> {
        let daemons = Daemons::start(&pair.lab, Some(&pair.middle), &["--disable-system"])?;
        let mut words: Vec<String> =
            ["add-br", BRIDGE, "--", "set", "bridge", BRIDGE].map(String::from).into();
        words.extend(["datapath_type=netdev", "fail-mode=secure"].map(String::from));
        for (name, number) in [("inside", 1), ("outside", 2)] {
            words.extend(["--", "add-port", BRIDGE, name, "--", "set", "interface", name].map(String::from));
            words.push(format!("ofport_request={number}"));
        }
        daemons.vsctl(&words)?;
        daemons.load(flows)?;
        Ok(Self { daemons })
    }

    /// The lines of `dpctl/dump-conntrack`.
    ///
    /// # Errors
    /// If the daemon is gone.
    pub fn connections(&self) -> Result<Vec<String>, OvsError> {
        let text = self.daemons.control()?.call("dpctl/dump-conntrack", &[])?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Forgets every connection.
    ///
    /// # Errors
    /// If the daemon is gone.
    pub fn flush(&self) -> Result<(), OvsError> {
        self.daemons.control()?.call("dpctl/flush-conntrack", &[])?;
        Ok(())
    }

    /// Whether the daemon still runs.
    pub fn is_running(&mut self) -> bool {
        self.daemons.vswitchd.is_running()
    }
}
