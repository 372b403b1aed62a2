//! The example tables, as the repository has them in examples/, and what tests derive from them.

/// Port 1 may open connections to port 2, port 2 may only answer.
pub const ACL: &str = include_str!("../../examples/acl.flows");
/// Sources behind port 1 leave as 10.0.0.1-255, ports 5000-50000.
pub const NAT: &str = include_str!("../../examples/nat.flows");
/// The ACL for IPv6.
pub const ACL6: &str = include_str!("../../examples/acl6.flows");
/// Sends every packet to a port that names its ct_state, see [`crate::script::Verdict`].
pub const STATES: &str = include_str!("../../tests/scripts/flows/states.flows");
/// The same behind the NAT example's translation.
pub const STATES_NAT: &str = include_str!("../../tests/scripts/flows/states-nat.flows");

/// Between two routers: both families translated to an address each in zone 5, ICMP errors let through.
pub const ROUTED: &str = include_str!("lab/routed.flows");

/// Flows that scripts name: tests/scripts/flows, with `{KEY}`s that they fill in.
pub const NAMED: [(&str, &str); 5] = [
    ("forward", include_str!("../../tests/scripts/flows/forward.flows")),
    ("translate", include_str!("../../tests/scripts/flows/translate.flows")),
    ("publish", include_str!("../../tests/scripts/flows/publish.flows")),
    ("helped", include_str!("../../tests/scripts/flows/helped.flows")),
    ("two-zones", include_str!("../../tests/scripts/flows/two-zones.flows")),
];

/// The named flows `name`; with a 6 behind the name, those for IPv6 in place of IPv4.
pub fn named(name: &str) -> Option<String> {
    let find =
        |name: &str| NAMED.iter().find(|(known, _)| *known == name).map(|(_, text)| (*text).to_owned());
    find(name)
        .or_else(|| find(name.strip_suffix('6')?).map(|text| text.replace(",ip actions", ",ipv6 actions")))
}

/// The NAT example with a pool of a single address and port.
pub fn one_port_nat() -> String {
    NAT.replace("10.0.0.1-10.0.0.255:5000-50000", "10.0.0.1:5000")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ipv6_table_is_the_acl_with_ipv6_in_place_of_ip() {
        assert_eq!(ACL6, ACL.replace(",ip,", ",ipv6,"));
    }

    #[test]
    fn the_small_pool_differs_from_the_example() {
        assert_ne!(one_port_nat(), NAT);
    }
}
