//! What a packet script runs against: anything that takes frames at ports, gives frames at ports, has
//! conntrack, and whose clock the script holds.

use std::collections::BTreeMap;
use std::time::Duration;

/// A frame that left through a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emission {
    /// OpenFlow port number.
    pub port: u32,
    /// The frame, from its Ethernet header on.
    pub frame: Vec<u8>,
}

/// A switch under test. Ports [`PORTS`] exist.
pub trait Switch {
    /// Why it could not do as told.
    type Error: std::error::Error;

    /// For messages.
    fn name(&self) -> &str;

    /// Replaces all flows by these and forgets every connection, cached flow and learned address.
    ///
    /// # Errors
    /// If the switch does not take the flows.
    fn load(&mut self, flows: &str) -> Result<(), Self::Error>;

    /// Receives a frame at a port and returns what leaves because of it.
    ///
    /// # Errors
    /// If the switch is gone or cannot take the frame at all.
    fn inject(&mut self, port: u32, frame: &[u8]) -> Result<Vec<Emission>, Self::Error>;

    /// Moves the clock on; it stands still otherwise.
    ///
    /// # Errors
    /// If the switch is gone.
    fn advance(&mut self, by: Duration) -> Result<(), Self::Error>;

    /// The lines of `dpctl/dump-conntrack`, in no particular order.
    ///
    /// # Errors
    /// If the switch is gone.
    fn connections(&mut self) -> Result<Vec<String>, Self::Error>;

    /// The lines of `dpctl/dump-flows`, in no particular order.
    ///
    /// # Errors
    /// If the switch is gone.
    fn flows(&mut self) -> Result<Vec<String>, Self::Error>;

    /// Runs a command, `words` of the family `appctl`, `ofctl` or another; the bridge is called `br0`. What it
    /// prints, or what it says in refusing.
    ///
    /// # Errors
    /// If the switch is gone, or knows no such family.
    fn command(&mut self, family: &str, words: &[&str]) -> Result<Result<String, String>, Self::Error>;

    /// Event counters by name, those of dropped packets beginning with `drop_`; none if the switch has none of
    /// ours.
    fn counters(&mut self) -> BTreeMap<String, u64> {
        BTreeMap::new()
    }
}

/// Port 1 is inside, port 2 outside; the others name the ct_state in the tables of tests/scripts/flows.
pub const PORTS: [u32; 8] = [1, 2, 10, 11, 12, 13, 21, 22];
