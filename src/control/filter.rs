//! Which connections a command means, as a type: what `dpctl/flush-conntrack`, `ct-flush` and `weir ct` were asked
//! for is parsed once into a [`ConnectionFilter`], which is then held against each connection. Knows no text.

use std::net::IpAddr;
use std::ops::{ControlFlow, RangeInclusive};

use weir_shard::{ConnectionView, DumpCursor, Helper, ProtocolState, SctpState, ShardReader, TcpState};
use weir_wire::Tuple;

/// Which connections are meant; all parts must hold. The default means all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionFilter {
    /// The zone.
    pub zone: Option<u16>,
    /// Value and mask.
    pub mark: Option<(u32, u32)>,
    /// Value and mask.
    pub labels: Option<(u128, u128)>,
    /// The original direction.
    pub original: TupleFilter,
    /// The reply direction.
    pub reply: TupleFilter,
    /// One of the four addresses of both directions.
    pub address: Option<Prefix>,
    /// One of the four ports of both directions.
    pub port: Option<RangeInclusive<u16>>,
    /// The state's name, see [`state_name`].
    pub state: Option<&'static str>,
    /// The translation.
    pub translation: Option<Translation>,
    /// The helper.
    pub helper: Option<Helper>,
}

/// One direction of the connections that are meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct TupleFilter {
    pub src: Option<Prefix>,
    pub dst: Option<Prefix>,
    pub protocol: Option<u8>,
    pub tp_src: Option<RangeInclusive<u16>>,
    pub tp_dst: Option<RangeInclusive<u16>>,
    pub icmp_id: Option<u16>,
    pub icmp_type: Option<u8>,
    pub icmp_code: Option<u8>,
}

/// Addresses of one family that begin alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

impl Prefix {
    /// One address.
    #[must_use]
    pub const fn host(address: IpAddr) -> Self {
        Self { address, length: if address.is_ipv4() { 32 } else { 128 } }
    }

    /// The addresses that agree with this one in its first `length` bits; `None` if it has fewer.
    #[must_use]
    pub fn new(address: IpAddr, length: u8) -> Option<Self> {
        (length <= Self::host(address).length).then_some(Self { address, length })
    }

    /// Whether an address is among them.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let differing = match (self.address, address) {
            (IpAddr::V4(ours), IpAddr::V4(other)) => u128::from(ours.to_bits() ^ other.to_bits()) << 96,
            (IpAddr::V6(ours), IpAddr::V6(other)) => ours.to_bits() ^ other.to_bits(),
            _ => return false,
        };
        differing.leading_zeros() >= u32::from(self.length)
    }
}

/// What is translated of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Translation {
    /// The source of the original direction.
    Source,
    /// Its destination.
    Destination,
    /// One of them or both.
    Any,
    /// Nothing.
    None,
}

impl TupleFilter {
    /// Whether a direction is meant.
    #[must_use]
    pub fn admits(&self, tuple: &Tuple) -> bool {
        fn holds<T: PartialEq>(wanted: Option<T>, found: Option<T>) -> bool {
            wanted.is_none() || wanted == found
        }
        fn within(wanted: Option<&RangeInclusive<u16>>, found: Option<u16>) -> bool {
            wanted.is_none_or(|range| found.is_some_and(|port| range.contains(&port)))
        }
        let ports = tuple.has_ports().then(|| (tuple.src_port(), tuple.dst_port()));
        let icmp = icmp_parts(tuple);
        self.src.is_none_or(|prefix| prefix.contains(tuple.src()))
            && self.dst.is_none_or(|prefix| prefix.contains(tuple.dst()))
            && holds(self.protocol, Some(tuple.protocol()))
            && within(self.tp_src.as_ref(), ports.map(|p| p.0))
            && within(self.tp_dst.as_ref(), ports.map(|p| p.1))
            && holds(self.icmp_id, icmp.map(|i| i.0))
            && holds(self.icmp_type, icmp.map(|i| i.1))
            && holds(self.icmp_code, icmp.map(|i| i.2))
    }
}

impl ConnectionFilter {
    /// A page of a shard's connections from `cursor` on: looks at `slots` of its slots at most and ends right behind
    /// the connection that makes it `most`. Milliseconds.
    pub fn page(
        &self,
        shard: &ShardReader,
        now: u64,
        cursor: &mut DumpCursor,
        slots: usize,
        most: usize,
    ) -> Vec<ConnectionView> {
        let mut rows = Vec::new();
        if most == 0 {
            return rows;
        }
        shard.dump(now, cursor, slots, &mut |_, connection| {
            if self.admits(&connection) {
                rows.push(connection);
            }
            if rows.len() < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        rows
    }

    /// Whether a connection is meant.
    #[must_use]
    pub fn admits(&self, connection: &ConnectionView) -> bool {
        self.zone.is_none_or(|zone| zone == connection.zone)
            && self.mark.is_none_or(|(value, mask)| (connection.mark ^ value) & mask == 0)
            && self.labels.is_none_or(|(value, mask)| (connection.label ^ value) & mask == 0)
            && self.original.admits(&connection.original)
            && self.reply.admits(&connection.reply)
            && self.state.is_none_or(|state| state == state_name(connection))
            && self.helper.is_none_or(|helper| connection.helper == Some(helper))
            && self.translation.is_none_or(|translation| translation.is_of(connection))
            && self.touches(connection)
    }

    /// Whether some side of it has the address and some side the port.
    fn touches(&self, connection: &ConnectionView) -> bool {
        let tuples = [&connection.original, &connection.reply];
        let has = |port: &RangeInclusive<u16>| {
            let ports = tuples.iter().filter(|tuple| tuple.has_ports());
            ports.flat_map(|tuple| [tuple.src_port(), tuple.dst_port()]).any(|one| port.contains(&one))
        };
        self.address.is_none_or(|prefix| {
            tuples.iter().flat_map(|tuple| [tuple.src(), tuple.dst()]).any(|one| prefix.contains(one))
        }) && self.port.as_ref().is_none_or(has)
    }
}

impl Translation {
    fn is_of(self, connection: &ConnectionView) -> bool {
        let (source, destination) = (connection.source_nat, connection.destination_nat);
        match self {
            Self::Source => source,
            Self::Destination => destination,
            Self::Any => source || destination,
            Self::None => !source && !destination,
        }
    }
}

/// Names of the states of connections whose protocol has no machine.
const ANSWERED: &str = "ANSWERED";
const UNANSWERED: &str = "UNANSWERED";

/// The state of a connection in one word: TCP's and SCTP's as dumps show it, of others whether both sides were seen.
#[must_use]
pub fn state_name(connection: &ConnectionView) -> &'static str {
    match connection.state {
        ProtocolState::Tcp { original, reply } => original.max(reply).summary(),
        ProtocolState::Sctp { state, .. } => state.name(),
        ProtocolState::Other { answered: true } => ANSWERED,
        ProtocolState::Other { answered: false } => UNANSWERED,
    }
}

/// Every word that [`state_name`] gives.
#[must_use]
pub fn state_names() -> Vec<&'static str> {
    let mut names: Vec<&str> = TcpState::ALL.into_iter().map(TcpState::summary).collect();
    names.extend(SctpState::ALL.map(SctpState::name));
    names.extend([ANSWERED, UNANSWERED]);
    names.sort_unstable();
    names.dedup();
    names
}

/// Identifier, type and code of an ICMP direction (the tuple keeps type and code in its destination port).
#[must_use]
pub fn icmp_parts(tuple: &Tuple) -> Option<(u16, u8, u8)> {
    let [kind, code] = tuple.dst_port().to_be_bytes();
    tuple.is_icmp().then_some((tuple.src_port(), kind, code))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::commands::testing::connection;

    #[test]
    fn a_prefix_holds_the_addresses_that_begin_like_it_and_of_its_family_only() {
        let prefix = |text: &str, length| Prefix::new(text.parse().unwrap(), length).unwrap();
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(prefix("10.1.2.3", 16).contains(address("10.1.255.255")));
        assert!(!prefix("10.1.2.3", 16).contains(address("10.2.0.0")));
        assert!(prefix("0.0.0.0", 0).contains(address("203.0.113.1")));
        assert!(!prefix("0.0.0.0", 0).contains(address("::")));
        assert!(prefix("2001:db8::1", 33).contains(address("2001:db8:7fff::")));
        assert!(!prefix("2001:db8::1", 33).contains(address("2001:db8:8000::")));
        assert!(!Prefix::host(address("::1")).contains(address("::2")));
        assert_eq!(Prefix::new(address("10.0.0.0"), 33), None);
    }

    #[test]
    fn each_part_of_a_filter_alone_can_refuse() {
        let view = connection(7);
        let admitted = |filter: ConnectionFilter| filter.admits(&view);
        assert!(admitted(ConnectionFilter::default()));
        let host = |text: &str| Some(Prefix::host(text.parse().unwrap()));
        for (good, bad) in [
            (
                ConnectionFilter { zone: Some(1), ..Default::default() },
                ConnectionFilter { zone: Some(0), ..Default::default() },
            ),
            (
                ConnectionFilter { mark: Some((3, 1)), ..Default::default() },
                ConnectionFilter { mark: Some((3, 3)), ..Default::default() },
            ),
            (
                ConnectionFilter { labels: Some((1, u128::MAX)), ..Default::default() },
                ConnectionFilter { labels: Some((1 << 127, 1 << 127)), ..Default::default() },
            ),
            // Only the reply direction knows the translated address.
            (
                ConnectionFilter { address: host("10.1.1.240"), ..Default::default() },
                ConnectionFilter { address: host("10.1.1.241"), ..Default::default() },
            ),
            (
                ConnectionFilter { port: Some(79..=80), ..Default::default() },
                ConnectionFilter { port: Some(81..=39_999), ..Default::default() },
            ),
            (
                ConnectionFilter { state: Some("ESTABLISHED"), ..Default::default() },
                ConnectionFilter { state: Some("SYN_SENT"), ..Default::default() },
            ),
            (
                ConnectionFilter { translation: Some(Translation::Source), ..Default::default() },
                ConnectionFilter { translation: Some(Translation::None), ..Default::default() },
            ),
            (
                ConnectionFilter { translation: Some(Translation::Any), ..Default::default() },
                ConnectionFilter { translation: Some(Translation::Destination), ..Default::default() },
            ),
            (
                ConnectionFilter {
                    original: TupleFilter { tp_dst: Some(80..=80), ..Default::default() },
                    ..Default::default()
                },
                ConnectionFilter {
                    reply: TupleFilter { icmp_id: Some(80), ..Default::default() },
                    ..Default::default()
                },
            ),
            (
                ConnectionFilter {
                    reply: TupleFilter { protocol: Some(6), ..Default::default() },
                    ..Default::default()
                },
                ConnectionFilter { helper: Some(Helper::Ftp), ..Default::default() },
            ),
        ] {
            assert!(admitted(good.clone()), "{good:?}");
            assert!(!admitted(bad.clone()), "{bad:?}");
        }
    }

    #[test]
    fn the_states_to_filter_by_are_those_that_connections_have() {
        assert!(state_names().contains(&state_name(&connection(1))));
        assert!(state_names().contains(&"UNANSWERED"));
    }
}
