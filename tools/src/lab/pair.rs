//! The topology of every test: a host inside, a host outside, a box between them.
//!
//! The switch forwards on the Ethernet level, so both hosts share one subnet and find each other by ARP, which
//! both example tables let through. Translated packets come from 10.0.0.0/24, which is nobody's subnet: as
//! in a carrier's network, outside has a *route* to the pool whose next hop is the inside host, so that ARP
//! asks for an address that exists and nobody has to answer for 255 that do not.

use std::net::IpAddr;

use super::{Lab, Namespace};
use crate::process::ProcessError;

/// How the hosts find each other's hardware address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// By asking, through the switch.
    Dynamic,
    /// Entered by hand: for tables that let neither ARP nor neighbour discovery through.
    Static,
}

/// One end of the pair.
#[derive(Clone, Debug)]
pub struct Host {
    /// Where it runs.
    pub namespace: Namespace,
    /// Its IPv4 address.
    pub v4: IpAddr,
    /// Its IPv6 address.
    pub v6: IpAddr,
    /// Hardware address of its `eth0`.
    pub hardware: &'static str,
}

/// Two hosts with a box between them.
#[derive(Debug)]
pub struct Pair {
    /// Behind port 1.
    pub inside: Host,
    /// Behind port 2.
    pub outside: Host,
    /// Where the switch runs; its interfaces are called `inside` and `outside`.
    pub middle: Namespace,
    /// Owns the namespaces; last, so that it drops last.
    pub lab: Lab,
}

/// Each host's device.
pub const DEVICE: &str = "eth0";
/// The pool of the NAT example.
pub const POOL: &str = "10.0.0.0/24";

impl Pair {
    /// Sets the topology up.
    ///
    /// # Errors
    /// If `ip` or `ethtool` refuses.
    pub fn new(resolution: Resolution) -> Result<Self, ProcessError> {
        let mut lab = Lab::new()?;
        let middle = lab.namespace("box")?;
        let inside = Host::new(&mut lab, "inside", 1, "02:00:00:00:00:01")?;
        let outside = Host::new(&mut lab, "outside", 2, "02:00:00:00:00:02")?;
        for (host, port, other) in [(&inside, "inside", &outside), (&outside, "outside", &inside)] {
            let namespace = &host.namespace;
            namespace.veth(DEVICE, &middle, port)?;
            namespace.hardware_address(DEVICE, host.hardware)?;
            namespace.address(DEVICE, &format!("{}/24", host.v4))?;
            namespace.address(DEVICE, &format!("{}/64", host.v6))?;
            namespace.offloads_off(DEVICE)?;
            if resolution == Resolution::Static {
                namespace.neighbour(DEVICE, other.v4, other.hardware)?;
                namespace.neighbour(DEVICE, other.v6, other.hardware)?;
            }
        }
        outside.namespace.route(POOL, inside.v4)?;
        Ok(Self { inside, outside, middle, lab })
    }
}

impl Host {
    fn new(lab: &mut Lab, name: &str, number: u8, hardware: &'static str) -> Result<Self, ProcessError> {
        Ok(Self {
            namespace: lab.namespace(name)?,
            v4: IpAddr::from([192, 168, 1, number]),
            v6: IpAddr::from([0xfd00, 0, 0, 1, 0, 0, 0, u16::from(number)]),
            hardware,
        })
    }
}
