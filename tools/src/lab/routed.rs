//! The topology for routed programs: a client and a server, each behind a router of its own, and the switch
//! between the routers.
//!
//! ```text
//!   client ------- inside ------- box ------- outside ------- server
//!   172.16.0.2     (gate)      the switch     (router)        198.51.100.2
//!   eth0      eth1      eth0                eth0      eth1         eth0
//! ```
//!
//! Both routers answer as routers do: they count the hop limit down and say so, and they say when a packet is
//! too long for the way on. That way can be made narrow ([`Routed::narrow`]) while both hosts' own links stay
//! as wide as usual, so that only an ICMP error through the switch can tell a host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::pair::{DEVICE, Host};
use super::{Pair, Resolution};
use crate::process::ProcessError;

/// Each router's device away from the switch.
const BEHIND: &str = "eth1";
/// The IPv6 addresses that `routed.flows` gives to what comes from inside.
pub const POOL6: &str = "fd00:0:0:a::/64";

/// One side: a host, and its router's addresses towards it.
struct Side {
    host: (IpAddr, IpAddr),
    router: (IpAddr, IpAddr),
    hardware: &'static str,
}

const INSIDE: Side = Side {
    host: (
        IpAddr::V4(Ipv4Addr::new(172, 16, 0, 2)),
        IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0x10, 0, 0, 0, 2)),
    ),
    router: (
        IpAddr::V4(Ipv4Addr::new(172, 16, 0, 1)),
        IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0x10, 0, 0, 0, 1)),
    ),
    hardware: "02:00:00:00:01:01",
};
const OUTSIDE: Side = Side {
    host: (
        IpAddr::V4(Ipv4Addr::new(198, 51, 100, 2)),
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 2, 0, 0, 0, 2)),
    ),
    router: (
        IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)),
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 2, 0, 0, 0, 1)),
    ),
    hardware: "02:00:00:00:02:02",
};

/// Two hosts, two routers, and the switch between the routers.
#[derive(Debug)]
pub struct Routed {
    /// Behind the inside router.
    pub client: Host,
    /// Behind the outside router.
    pub server: Host,
    /// The routers and the box; it owns every namespace, so it drops last.
    pub pair: Pair,
}

impl Routed {
    /// Sets the topology up.
    ///
    /// # Errors
    /// If `ip` or `ethtool` refuses.
    pub fn new() -> Result<Self, ProcessError> {
        let mut pair = Pair::new(Resolution::Dynamic)?;
        let client = behind(&mut pair, "client", true, &INSIDE)?;
        let server = behind(&mut pair, "server", false, &OUTSIDE)?;
        // The gate leaves the way to the server to the router, which knows where the pools are.
        pair.inside.namespace.route("default", pair.outside.v4)?;
        pair.inside.namespace.route("default", pair.outside.v6)?;
        pair.outside.namespace.route(POOL6, pair.inside.v6)?;
        Ok(Self { client, server, pair })
    }

    /// Lets packets of at most `mtu` bytes pass from the router to the host behind it; `client` says which side.
    /// The link itself stays as it is: the route alone is narrow, so that answers still come at full length.
    ///
    /// # Errors
    /// If `ip` refuses.
    pub fn narrow(&self, client: bool, mtu: u16) -> Result<(), ProcessError> {
        let (side, router) =
            if client { (&INSIDE, &self.pair.inside) } else { (&OUTSIDE, &self.pair.outside) };
        let mtu = mtu.to_string();
        for host in [side.host.0, side.host.1] {
            // Without `lock`, Linux forwards by the device's MTU and not by the route's.
            let words = ["route", "add", &host.to_string(), "dev", BEHIND, "mtu", "lock", &mtu];
            router.namespace.ip(&words)?;
        }
        Ok(())
    }
}

fn behind(pair: &mut Pair, name: &str, inside: bool, side: &Side) -> Result<Host, ProcessError> {
    let namespace = pair.lab.namespace(name)?;
    let router = if inside { &pair.inside.namespace } else { &pair.outside.namespace };
    namespace.veth(DEVICE, router, BEHIND)?;
    namespace.hardware_address(DEVICE, side.hardware)?;
    for (here, device, (v4, v6)) in [(&namespace, DEVICE, side.host), (router, BEHIND, side.router)] {
        here.address(device, &format!("{v4}/24"))?;
        here.address(device, &format!("{v6}/64"))?;
        here.offloads_off(device)?;
    }
    // A router asks for neighbours on behalf of others from its link-local address, and not at all without one.
    for device in [DEVICE, BEHIND] {
        router.address(device, if inside { "fe80::1/64" } else { "fe80::2/64" })?;
    }
    namespace.route("default", side.router.0)?;
    namespace.route("default", side.router.1)?;
    for (key, value) in [
        ("ipv4.ip_forward", "1"),
        ("ipv6.conf.all.forwarding", "1"),
        // Every probe is answered, and no answer goes another way than the probe came.
        ("ipv4.icmp_ratelimit", "0"),
        ("ipv6.icmp.ratelimit", "0"),
        ("ipv4.conf.all.send_redirects", "0"),
        ("ipv4.conf.eth0.send_redirects", "0"),
    ] {
        router.sysctl(key, value)?;
    }
    for (key, value) in [("ipv4.icmp_ratelimit", "0"), ("ipv6.icmp.ratelimit", "0")] {
        namespace.sysctl(key, value)?;
    }
    Ok(Host { namespace, v4: side.host.0, v6: side.host.1, hardware: side.hardware })
}
