//! Where helpers are tested: a table in which only they let data connections through, with and without
//! translation, and the two hosts with what has to be routed for it.

use super::{Pair, Resolution};
use crate::process::ProcessError;

/// Source translation of the control connection, to a pool that is routed to the host inside.
pub const SNAT: &str = ",nat(src=10.0.0.1-10.0.0.3)";
/// The same for IPv6.
pub const SNAT6: &str = ",nat(src=fd00:0:0:2::1-fd00:0:0:2::3)";
const POOL6: &str = "fd00:0:0:2::/64";
/// An address by which a server outside may be known inside; it is routed to the host outside.
pub const PUBLISHED: &str = "10.1.0.1";
/// The same for IPv6.
pub const PUBLISHED6: &str = "fd00:0:0:3::1";

/// The control connection gets its helper, a mark and what translation there is; what it announces comes back as
/// related, everything else has to be established.
const HELPED: &str = "\
table=0,priority=9,arp,actions=normal
table=0,priority=9,icmp6,icmp_type=135,actions=normal
table=0,priority=9,icmp6,icmp_type=136,actions=normal
table=0,priority=5,{IP},ct_state=-trk,actions=ct(nat,table=1)
table=1,priority=9,ct_state=+trk+inv,actions=drop
table=1,in_port=1,{CONTROL},ct_state=+trk+new-rel,actions=ct(commit{ALG}{NAT},exec(set_field:7->ct_mark)),2
table=1,in_port=1,{IP},ct_state=+trk+new+rel,actions=ct(commit,nat),2
table=1,in_port=2,{IP},ct_state=+trk+new+rel,actions=ct(commit,nat),1
table=1,in_port=1,{IP},ct_state=+trk+est,actions=2
table=1,in_port=2,{IP},ct_state=+trk+est,actions=1
";

/// The table for one family (`ip` or `ipv6`), with a match for what the host inside may open (`control`), its
/// helper if it has one (`,alg=ftp`) and its translation ([`SNAT`], or nothing). It gets mark 7, which connections
/// related to it inherit.
pub fn helped(ip: &str, control: &str, helper: &str, translation: &str) -> String {
    HELPED
        .replace("{IP}", ip)
        .replace("{CONTROL}", control)
        .replace("{ALG}", helper)
        .replace("{NAT}", translation)
}

/// Both hosts, with routes to the pools and the published addresses.
///
/// # Errors
/// If `ip` or `ethtool` refuses.
pub fn pair() -> Result<Pair, ProcessError> {
    let pair = Pair::new(Resolution::Dynamic)?;
    pair.outside.namespace.route(POOL6, pair.inside.v6)?;
    pair.inside.namespace.route(PUBLISHED, pair.outside.v4)?;
    pair.inside.namespace.route(PUBLISHED6, pair.outside.v6)?;
    Ok(pair)
}
