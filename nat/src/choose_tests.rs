use super::*;
use core::net::{IpAddr, Ipv6Addr};
use proptest::prelude::*;
use std::collections::HashSet;
use weir_wire::numbers::protocol;

const TCP: u8 = protocol::TCP;

/// [`super::reply_tuple`] of one who has learned nothing yet.
fn reply_tuple(
    action: &NatAction,
    original: &Tuple,
    hash: u64,
    source_hash: u64,
    random: &mut impl FnMut() -> u32,
    is_free: &mut impl FnMut(&Tuple) -> bool,
) -> Result<Tuple, ChooseError> {
    super::reply_tuple(action, original, hash, source_hash, random, &mut Occupancy::default(), is_free)
}

fn v4(src: [u8; 4], src_port: u16, dst: [u8; 4], dst_port: u16, protocol: u8) -> Tuple {
    Tuple4::new(src, dst, src_port, dst_port, protocol, 0).into()
}

fn tcp(src_port: u16) -> Tuple {
    v4([192, 168, 0, 1], src_port, [8, 8, 8, 8], 80, TCP)
}

fn range(addresses: Option<(&str, &str)>, ports: Option<(u16, u16)>) -> NatRange {
    let addresses = addresses.map(|(min, max)| match (min.parse().unwrap(), max.parse().unwrap()) {
        (IpAddr::V4(min), IpAddr::V4(max)) => AddressRange::V4(min, max),
        (IpAddr::V6(min), IpAddr::V6(max)) => AddressRange::V6(min, max),
        _ => panic!("families differ"),
    });
    NatRange { addresses, ports, selection: PortSelection::Default, persistent: false }
}

/// Chooses with a fixed hash until nothing is free; gives the translated tuples in order.
fn exhaust(action: &NatAction, original: &Tuple, hash: u64) -> Vec<Tuple> {
    let mut taken = HashSet::new();
    let mut translated = Vec::new();
    loop {
        let chosen = reply_tuple(action, original, hash, 7, &mut || 5, &mut |reply| !taken.contains(reply));
        match chosen {
            Ok(reply) => {
                assert!(taken.insert(reply), "{reply} was handed out twice");
                translated.push(reply.reversed());
            }
            Err(error) => {
                assert!(matches!(error, ChooseError::Exhausted { .. }));
                return translated;
            }
        }
    }
}

fn choose(action: &NatAction, original: &Tuple) -> Result<Tuple, ChooseError> {
    reply_tuple(action, original, 0x1234_5678_9abc_def0, 7, &mut || 5, &mut |_| true)
        .map(|reply| reply.reversed())
}

#[test]
fn the_original_port_is_kept_while_it_is_free() {
    let action = NatAction::Source(range(Some(("10.0.0.1", "10.0.0.1")), None));
    assert_eq!(choose(&action, &tcp(40000)).unwrap().src_port(), 40000);
    let order = exhaust(&action, &tcp(40000), 1);
    assert_eq!(order.iter().take(3).map(Tuple::src_port).collect::<Vec<_>>(), [40000, 40001, 40002]);
    assert!(order.iter().all(|tuple| tuple.src_port() >= 1024));
}

#[test]
fn without_a_range_a_port_stays_in_its_class() {
    let action = NatAction::Source(range(Some(("10.0.0.1", "10.0.0.1")), None));
    let low = exhaust(&action, &tcp(510), 1);
    assert_eq!(low.len(), 511);
    assert_eq!(low.iter().take(3).map(Tuple::src_port).collect::<Vec<_>>(), [510, 511, 1]);
    let middle = exhaust(&action, &tcp(1023), 1);
    assert_eq!(middle.len(), 424);
    assert!(middle.iter().all(|tuple| (600..1024).contains(&tuple.src_port())));
    // Between the classes a port is kept while it is free.
    for action in [action, NatAction::Source(range(Some(("10.0.0.1", "10.0.0.9")), None))] {
        let between = exhaust(&action, &tcp(555), 1);
        assert_eq!(between.iter().take(3).map(Tuple::src_port).collect::<Vec<_>>(), [555, 600, 601]);
        let addresses = between.iter().map(Tuple::src).collect::<HashSet<_>>().len();
        assert_eq!(between.len(), addresses * 425);
        assert_eq!(between.iter().filter(|tuple| tuple.src_port() == 555).count(), addresses);
    }
    let many = NatAction::Source(range(Some(("10.0.0.0", "10.0.15.255")), None));
    assert_eq!(choose(&many, &tcp(555)).unwrap().src_port(), 555);
}

#[test]
fn icmp_identifiers_count_up_from_the_original() {
    let action = NatAction::Source(range(Some(("10.0.0.1", "10.0.0.1")), None));
    let ping = v4([192, 168, 0, 1], 500, [8, 8, 8, 8], 8 << 8, protocol::ICMP);
    let order = exhaust(&action, &ping, 1);
    assert_eq!(order.iter().take(3).map(Tuple::src_port).collect::<Vec<_>>(), [500, 501, 502]);
    assert!(order.iter().all(|tuple| tuple.dst_port() == 8 << 8));
}

#[test]
fn a_one_port_range_serves_one_connection() {
    let action = NatAction::Source(range(Some(("10.0.0.1", "10.0.0.1")), Some((5000, 5000))));
    let order = exhaust(&action, &tcp(40000), 99);
    assert_eq!(order, [v4([10, 0, 0, 1], 5000, [8, 8, 8, 8], 80, TCP)]);
}

#[test]
fn other_protocols_are_translated_by_address_alone() {
    let action = NatAction::Source(range(Some(("10.0.0.1", "10.0.0.3")), Some((5000, 6000))));
    let gre = v4([192, 168, 0, 1], 0, [8, 8, 8, 8], 0, protocol::GRE);
    let order = exhaust(&action, &gre, 99);
    assert_eq!(order.len(), 3);
    assert!(order.iter().all(|tuple| tuple.src_port() == 0 && tuple.dst_port() == 0));
}

#[test]
fn null_translation_changes_the_port_only_on_a_collision() {
    for addresses in [Some(("0.0.0.0", "0.0.0.0")), None] {
        let action = NatAction::Source(range(addresses, None));
        let order = exhaust(&action, &tcp(40000), 3);
        assert_eq!(order.first(), Some(&tcp(40000)));
        assert!(order.iter().all(|tuple| tuple.src() == tcp(1).src()));
    }
    let action = NatAction::Source(range(Some(("0.0.0.0", "0.0.0.0")), Some((6000, 6001))));
    assert_eq!(
        exhaust(&action, &tcp(40000), 0).iter().map(Tuple::src_port).collect::<Vec<_>>(),
        [40000, 6000, 6001]
    );
}

#[test]
fn a_destination_range_takes_destination_ports_then_source_ports() {
    let action = NatAction::Destination(range(Some(("10.0.0.1", "10.0.0.2")), Some((8000, 8001))));
    let order = exhaust(&action, &tcp(300), 0);
    let kept: Vec<_> = order.iter().take(4).map(|tuple| (tuple.dst(), tuple.dst_port())).collect();
    assert_eq!(kept.iter().collect::<HashSet<_>>().len(), 4);
    assert!(order.iter().take(4).all(|tuple| tuple.src_port() == 300));
    assert!(order.iter().all(|tuple| tuple.src() == tcp(1).src()));
    // Then one destination port at both addresses with the other 510 source ports of the class.
    assert_eq!(order.len(), 4 + 2 * 510);
    let ping = v4([192, 168, 0, 1], 500, [8, 8, 8, 8], 8 << 8, protocol::ICMP);
    assert_eq!(choose(&action, &ping).unwrap().src_port(), 500);
}

#[test]
fn a_persistent_range_looks_at_the_source_hash_only() {
    let mut source = range(Some(("10.0.0.1", "10.0.0.200")), None);
    source.persistent = true;
    let action = NatAction::Source(source);
    let at = |hash: u64, source_hash: u64| {
        reply_tuple(&action, &tcp(40000), hash, source_hash, &mut || 0, &mut |_| true).unwrap().dst()
    };
    assert_eq!(at(1, u64::MAX / 3), at(u64::MAX, u64::MAX / 3));
    assert_ne!(at(1, u64::MAX / 3), at(1, u64::MAX / 2));
}

#[test]
fn a_random_range_starts_where_chance_says() {
    let mut source = range(Some(("10.0.0.1", "10.0.0.1")), Some((1000, 1999)));
    source.selection = PortSelection::Random;
    let action = NatAction::Source(source);
    let at = |drawn: u32| {
        reply_tuple(&action, &tcp(40000), 1, 1, &mut || drawn, &mut |_| true).unwrap().dst_port()
    };
    assert_eq!((at(0), at(17), at(1000)), (1000, 1017, 1000));
}

#[test]
fn families_that_differ_are_an_error() {
    let action = NatAction::Source(range(Some(("fd00::1", "fd00::2")), None));
    assert_eq!(choose(&action, &tcp(40000)), Err(ChooseError::FamilyMismatch));
}

#[test]
fn the_largest_ranges_neither_overflow_nor_run_away() {
    let original: Tuple = Tuple6::new([1; 16], [2; 16], 40000, 80, TCP, 0).into();
    for (min, max) in
        [("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), ("::1", "8000::"), ("fe00::", "ff00::")]
    {
        let action = NatAction::Source(range(Some((min, max)), Some((0, u16::MAX))));
        for hash in [0, 1, u64::MAX / 2, u64::MAX] {
            let chosen = reply_tuple(&action, &original, hash, 0, &mut || 0, &mut |_| true).unwrap().dst();
            let (min, max): (Ipv6Addr, Ipv6Addr) = (min.parse().unwrap(), max.parse().unwrap());
            assert!((IpAddr::V6(min)..=IpAddr::V6(max)).contains(&chosen));
            let refused = reply_tuple(&action, &original, hash, 0, &mut || 0, &mut |_| false);
            assert_eq!(refused, Err(ChooseError::Exhausted { probes: PROBES }));
        }
    }
}

#[test]
fn a_crowded_large_range_is_searched_across_its_whole_width() {
    let action = NatAction::Source(range(Some(("10.0.0.1", "10.0.0.1")), Some((1024, 65535))));
    // One solid block of taken ports, larger than the whole budget.
    let chosen = reply_tuple(&action, &tcp(40000), 0, 0, &mut || 0, &mut |reply| reply.dst_port() > 60000);
    assert!(chosen.is_ok());
}

#[test]
fn many_clients_with_one_port_share_a_range_without_ports() {
    let action = NatAction::Source(range(Some(("100.64.0.0", "100.64.0.255")), None));
    let mut taken = HashSet::new();
    for client in 0..50_000u32 {
        let original = v4((0x0a00_0000 | client).to_be_bytes(), 5060, [8, 8, 8, 8], 5060, protocol::UDP);
        let hash = original.hash(&[3, 4]);
        let mut asked = 0;
        let reply = reply_tuple(&action, &original, hash, 0, &mut || 0, &mut |reply| {
            asked += 1;
            !taken.contains(reply)
        })
        .unwrap_or_else(|error| panic!("client {client}: {error}"));
        assert!(asked < 100, "client {client} took {asked} probes");
        assert!(taken.insert(reply));
    }
}

#[test]
fn of_more_addresses_than_probes_every_tuple_tries_others() {
    let action = NatAction::Source(range(Some(("100.0.0.0", "100.15.255.255")), None));
    let asked = |hash: u64| {
        let mut asked = HashSet::new();
        let refused = reply_tuple(&action, &tcp(40000), hash, 0, &mut || 0, &mut |reply| {
            asked.insert(*reply);
            false
        });
        assert_eq!(refused, Err(ChooseError::Exhausted { probes: PROBES }));
        asked
    };
    let (first, second) = (asked(1 << 40), asked(1 << 63));
    assert!(first.is_disjoint(&second));
    // Half of them with the original port, one at each address.
    let kept = first.iter().filter(|reply| reply.dst_port() == 40000).count();
    assert!((2048..2100).contains(&kept), "{kept}");
    assert_eq!(first.iter().map(Tuple::dst).collect::<HashSet<_>>().len(), PROBES as usize);
}

#[test]
fn strides_are_coprime_to_every_length() {
    fn gcd(a: u32, b: u32) -> u32 {
        if b == 0 { a } else { gcd(b, a % b) }
    }
    for len in 1..=65536 {
        assert_eq!(gcd(stride(len), len), 1, "length {len}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn a_chosen_tuple_is_free_and_in_range(
        first in any::<u32>(), more in 0u32..300, ports in any::<(u16, u16)>(), hash in any::<u64>(),
        src_port in 1u16.., crowd in 0u64..8, destination in any::<bool>(), random in any::<bool>(),
    ) {
        let last = first.saturating_add(more);
        prop_assume!(last != 0);
        let ports = (ports.0.min(ports.1).max(1), ports.0.max(ports.1).max(1));
        let range = NatRange {
            addresses: Some(AddressRange::V4(Ipv4Addr::from_bits(first), Ipv4Addr::from_bits(last))),
            ports: Some(ports),
            selection: if random { PortSelection::Random } else { PortSelection::Default },
            persistent: false,
        };
        let action = if destination { NatAction::Destination(range) } else { NatAction::Source(range) };
        let free = |reply: &Tuple| reply.hash(&[1, 2]) % 8 >= crowd;
        let mut asked = 0u32;
        let chosen = reply_tuple(&action, &tcp(src_port), hash, hash, &mut || hash as u32, &mut |reply| {
            asked += 1;
            free(reply)
        });
        prop_assert!(asked <= 2 * PROBES);
        if let Ok(reply) = chosen {
            prop_assert!(free(&reply));
            let (address, port) = if destination {
                (reply.src(), reply.src_port())
            } else {
                (reply.dst(), reply.dst_port())
            };
            let wanted = IpAddr::V4(Ipv4Addr::from_bits(first))..=IpAddr::V4(Ipv4Addr::from_bits(last));
            prop_assert!(wanted.contains(&address));
            prop_assert!((ports.0..=ports.1).contains(&port));
        }
    }

    #[test]
    fn a_search_ends_within_its_budget_whatever_the_range(
        first in any::<u32>(), last in any::<u32>(), ports in prop::option::of(any::<(u16, u16)>()),
        hash in any::<u64>(), src_port in any::<u16>(), icmp in any::<bool>(), destination in any::<bool>(),
    ) {
        let addresses = AddressRange::V4(Ipv4Addr::from_bits(first), Ipv4Addr::from_bits(last));
        let range = NatRange {
            addresses: Some(addresses),
            ports,
            selection: PortSelection::Default,
            persistent: false,
        };
        let action = if destination { NatAction::Destination(range) } else { NatAction::Source(range) };
        let original = if icmp {
            v4([10, 0, 0, 1], src_port, [8, 8, 8, 8], 8 << 8, protocol::ICMP)
        } else {
            tcp(src_port)
        };
        let mut asked = 0;
        let mut first_asked = None;
        let refused = reply_tuple(&action, &original, hash, 0, &mut || 0, &mut |reply| {
            first_asked.get_or_insert(*reply);
            asked += 1;
            false
        });
        // A destination range has a second pass, with source ports; the null address one question more.
        let passes = if destination { 2 } else { 1 };
        prop_assert!(asked <= passes * PROBES + 1, "{} questions", asked);
        prop_assert_eq!(refused, Err(ChooseError::Exhausted { probes: asked }));
        // What is foreseen is what is asked about, unless that is the tuple itself.
        let request = Request { action: &action, original: &original, hash, source_hash: 0 };
        if let Some(foreseen) = request.first_reply(&mut || 0) {
            prop_assert_eq!(Some(foreseen), first_asked);
        }
    }

    #[test]
    fn a_small_range_is_searched_to_the_last_tuple(
        addresses in 1u32..20, size in 1u16..200, first in 1u16..60000, hash in any::<u64>(), pick in any::<u32>(),
    ) {
        let combinations = addresses * u32::from(size);
        let range = NatRange {
            addresses: Some(AddressRange::V4(Ipv4Addr::from_bits(100), Ipv4Addr::from_bits(99 + addresses))),
            ports: Some((first, first + size - 1)),
            selection: PortSelection::Default,
            persistent: false,
        };
        let only = pick % combinations;
        let free = |reply: &Tuple| {
            let Tuple::V4(reply) = reply else { return false };
            let address = u32::from_be_bytes(reply.dst) - 100;
            address * u32::from(size) + u32::from(reply.dst_port - first) == only
        };
        let chosen = reply_tuple(&NatAction::Source(range), &tcp(9), hash, 0, &mut || 0, &mut |reply| free(reply));
        prop_assert!(chosen.is_ok_and(|reply| free(&reply)));
    }
}

/// A table of taken tuples, as a shard keeps one, with what it has learned; counts the questions of each call.
#[derive(Default)]
struct Table {
    taken: HashSet<Tuple>,
    occupancy: Occupancy,
    most: u32,
}

impl Table {
    fn choose(&mut self, action: &NatAction, original: &Tuple) -> Result<Tuple, ChooseError> {
        let Self { taken, occupancy, most } = self;
        let mut asked = 0;
        let chosen = super::reply_tuple(
            action,
            original,
            original.hash(&[5, 6]),
            7,
            &mut || 5,
            occupancy,
            &mut |reply| {
                asked += 1;
                !taken.contains(reply)
            },
        );
        *most = asked.max(*most);
        assert!(*most <= PROBES, "{asked} questions");
        chosen
    }

    fn add(&mut self, action: &NatAction, original: &Tuple) -> Result<Tuple, ChooseError> {
        let reply = self.choose(action, original)?;
        assert!(self.taken.insert(reply), "{reply} was handed out twice");
        self.occupancy.take(&reply);
        Ok(reply)
    }

    fn remove(&mut self, reply: &Tuple) {
        assert!(self.taken.remove(reply));
        self.occupancy.release(reply);
    }
}

/// Clients that all talk to one remote endpoint.
fn client(number: u32, protocol: u8) -> Tuple {
    let [_, a, b, c] = number.to_be_bytes();
    v4([10, a, b, c], 40_000, [8, 8, 8, 8], 80, protocol)
}

#[test]
fn one_address_serves_every_one_of_its_ports_towards_one_remote_and_then_no_more() {
    let all_ports = range(Some(("192.0.2.1", "192.0.2.1")), Some((1, u16::MAX)));
    for selection in [PortSelection::Default, PortSelection::Random] {
        let action = NatAction::Source(NatRange { selection, ..all_ports });
        let mut table = Table::default();
        for number in 0..65_535 {
            table
                .add(&action, &client(number, TCP))
                .unwrap_or_else(|error| panic!("client {number}: {error}"));
        }
        assert!(matches!(table.choose(&action, &client(70_000, TCP)), Err(ChooseError::Exhausted { .. })));
        assert!(table.occupancy.len() <= 1);
        // Another remote has all of them.
        let elsewhere = v4([10, 0, 0, 1], 40_000, [8, 8, 8, 9], 80, TCP);
        assert!(table.choose(&action, &elsewhere).is_ok());
        // What is released is found again, each of them.
        let released: HashSet<Tuple> =
            table.taken.iter().copied().filter(|reply| reply.dst_port() % 9_000 == 17).collect();
        for reply in &released {
            table.remove(reply);
        }
        let found: HashSet<Tuple> =
            (0..released.len()).map(|_| table.add(&action, &client(71_000, TCP)).unwrap()).collect();
        assert_eq!(found, released);
        assert!(table.choose(&action, &client(70_001, TCP)).is_err());
        let all: Vec<Tuple> = table.taken.iter().copied().collect();
        for reply in &all {
            table.remove(reply);
        }
        assert!(table.occupancy.is_empty());
    }
}

#[test]
fn identifiers_of_pings_are_handed_out_to_the_last_one_too() {
    let action = NatAction::Source(range(Some(("192.0.2.1", "192.0.2.1")), None));
    let mut table = Table::default();
    for number in 0..65_536u32 {
        let [_, a, b, c] = number.to_be_bytes();
        table.add(&action, &v4([10, a, b, c], 500, [8, 8, 8, 8], 8 << 8, protocol::ICMP)).unwrap();
    }
    assert!(table.choose(&action, &v4([10, 9, 9, 9], 500, [8, 8, 8, 8], 8 << 8, protocol::ICMP)).is_err());
}

#[test]
fn of_a_large_pool_every_address_serves_to_its_last_port() {
    // 255 addresses, 300 ports each: 76 500 combinations.
    let action = NatAction::Source(range(Some(("10.0.0.1", "10.0.0.255")), Some((5000, 5299))));
    let mut table = Table::default();
    for number in 0..255 * 300 {
        table.add(&action, &client(number, TCP)).unwrap_or_else(|error| panic!("client {number}: {error}"));
    }
    assert!(matches!(table.choose(&action, &client(99_999, TCP)), Err(ChooseError::Exhausted { .. })));
    assert_eq!(table.taken.iter().map(Tuple::dst).collect::<HashSet<_>>().len(), 255);
    for address in 1..=255u8 {
        let only = v4([8, 8, 8, 8], 80, [10, 0, 0, address], 5000 + u16::from(address), TCP);
        table.remove(&only);
        assert_eq!(table.add(&action, &client(88_888, TCP)), Ok(only));
    }
}

#[test]
fn what_is_full_is_known_and_asks_nothing_any_more() {
    let action = NatAction::Source(range(Some(("10.0.0.1", "10.0.0.4")), Some((1024, u16::MAX))));
    let mut occupancy = Occupancy::default();
    let mut calls = 0;
    // Nothing is free, and nobody has learned so: each call learns more, within its budget, until all is known.
    loop {
        let refused =
            super::reply_tuple(&action, &client(calls, TCP), 9, 7, &mut || 5, &mut occupancy, &mut |_| false);
        let Err(ChooseError::Exhausted { probes }) = refused else { panic!("{refused:?}") };
        calls += 1;
        assert!(probes <= PROBES);
        if probes == 0 {
            break;
        }
        assert!(calls < 100, "{probes} questions still");
    }
    assert!(calls >= 4 * 64_512 / PROBES, "{calls} calls");
}

/// A host that sends on through a range that has run out must not cost its lcore a whole search for each packet.
#[test]
fn a_range_that_has_run_out_costs_next_to_nothing_whatever_its_size() {
    for (last, ports, most) in [
        ("10.0.0.1", (5000, 5003), 4),
        ("10.0.0.1", (5000, 5999), 0),
        ("10.0.0.1", (5000, 9095), 0),
        ("10.0.0.1", (5000, 9096), 0),
        ("10.0.0.255", (5000, 5015), 0),
        ("10.0.3.255", (5000, 5001), 0),
    ] {
        let action = NatAction::Source(range(Some(("10.0.0.1", last)), Some(ports)));
        let mut occupancy = Occupancy::default();
        let mut refuse = |number| {
            let call = client(number, TCP);
            let hash = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            super::reply_tuple(&action, &call, hash, 7, &mut || 5, &mut occupancy, &mut |_| false)
        };
        for number in 0..4 {
            let Err(ChooseError::Exhausted { probes }) = refuse(number) else { panic!("{last} {ports:?}") };
            assert!(probes <= PROBES);
        }
        assert_eq!(refuse(4), Err(ChooseError::Exhausted { probes: most }), "{last} {ports:?}");
    }
}

#[test]
fn a_destination_range_of_one_port_serves_as_many_clients_as_there_are_source_ports_in_the_class() {
    let action = NatAction::Destination(range(Some(("10.0.0.1", "10.0.0.1")), Some((80, 80))));
    let mut table = Table::default();
    // One client behind an address that reuses its port in many zones' stead: the same source end again and again.
    let call = v4([192, 0, 2, 7], 40_000, [203, 0, 113, 1], 80, TCP);
    for number in 0..64_512 {
        let reply = table.add(&action, &call).unwrap_or_else(|error| panic!("{number}: {error}"));
        assert_eq!((reply.src_port(), reply.dst_port() >= 1024), (80, true));
    }
    assert!(table.choose(&action, &call).is_err());
}
