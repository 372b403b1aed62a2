use super::super::*;
use crate::slices::{InOrder, PortSlice};
use core::net::IpAddr;
use proptest::prelude::*;
use std::collections::HashSet;
use weir_wire::numbers::protocol;

/// Ports with one rest of a division are at home; of addresses, those that end in an even octet.
#[derive(Clone, Copy, Debug)]
struct Rest {
    of: u16,
    is: u16,
    even_addresses: bool,
}

struct Ports(Option<Rest>);

impl Homes for Rest {
    type Slice<'h> = Ports;

    fn is_own(&self, reply: &Tuple) -> bool {
        let (_, port) = Place::of(reply, End::Source);
        self.slice(reply, End::Source).contains(port)
    }

    fn slice(&self, reply: &Tuple, _: End) -> Ports {
        let IpAddr::V4(address) = reply.dst() else { return Ports(Some(*self)) };
        Ports(Some(*self).filter(|_| !self.even_addresses || address.octets()[3] % 2 == 0))
    }

    fn one_address_in(&self, _: &Tuple) -> u32 {
        1 + u32::from(self.even_addresses)
    }
}

impl PortSlice for Ports {
    fn count(&self) -> u32 {
        self.0.map_or(0, |Rest { of, is, .. }| (65_535 - u32::from(is)) / u32::from(of) + 1)
    }

    fn nth(&self, number: u32) -> u16 {
        self.0.map_or(0, |Rest { of, is, .. }| is.wrapping_add(of.wrapping_mul(number as u16)))
    }

    fn contains(&self, port: u16) -> bool {
        self.0.is_some_and(|Rest { of, is, .. }| port % of == is)
    }

    fn word(&self, word: u16) -> u64 {
        (0..64).fold(0, |bits, bit| bits | u64::from(self.contains(word << 6 | bit)) << bit)
    }
}

/// The home's table of taken tuples, with what it has learned.
struct Home {
    rest: Rest,
    taken: HashSet<Tuple>,
    occupancy: Occupancy,
    asked: u32,
}

impl Home {
    fn new(of: u16, is: u16) -> Self {
        let rest = Rest { of, is, even_addresses: false };
        Self { rest, taken: HashSet::new(), occupancy: Occupancy::default(), asked: 0 }
    }

    fn choose(&mut self, action: &NatAction, original: &Tuple, random: u32) -> Result<Tuple, ChooseError> {
        let Self { rest, taken, occupancy, asked } = self;
        let hash = original.hash(&[5, 6]);
        *asked = 0;
        let mut first = None;
        let request = Request { action, original, hash, source_hash: 7 };
        let chosen = reply_tuple_at(&request, rest, &mut || random, occupancy, &mut |reply| {
            *asked += 1;
            first.get_or_insert(*reply);
            !taken.contains(reply)
        });
        // What is foreseen is what is asked about, unless it is known to be taken.
        let foreseen = request.first_reply_at(rest, &mut || random);
        if let Some(foreseen) = foreseen.filter(|foreseen| !taken.contains(foreseen)) {
            assert_eq!((Some(foreseen), Ok(foreseen)), (first, chosen));
        }
        assert!(self.asked <= PROBES, "{} questions", self.asked);
        if let Ok(reply) = chosen {
            assert!(self.rest.is_own(&reply), "{reply} does not lead home");
        }
        chosen
    }

    fn add(&mut self, action: &NatAction, original: &Tuple) -> Result<Tuple, ChooseError> {
        let reply = self.choose(action, original, 5)?;
        assert!(self.taken.insert(reply), "{reply} was handed out twice");
        self.occupancy.take(&reply);
        Ok(reply)
    }

    fn remove(&mut self, reply: &Tuple) {
        assert!(self.taken.remove(reply));
        self.occupancy.release(reply);
    }

    /// Opens connections until none is left.
    fn exhaust(&mut self, action: &NatAction, protocol: u8) -> usize {
        for number in 0.. {
            match self.add(action, &client(number, protocol)) {
                Ok(_) => {}
                Err(error) => {
                    assert!(matches!(error, ChooseError::Exhausted { .. }));
                    break;
                }
            }
        }
        self.taken.len()
    }
}

/// Clients that all talk to one remote endpoint from one port.
fn client(number: u32, protocol: u8) -> Tuple {
    let [_, a, b, c] = number.to_be_bytes();
    let dst_port = if protocol == protocol::ICMP { 8 << 8 } else { 80 };
    Tuple4::new([10, a, b, c], [8, 8, 8, 8], 40_000, dst_port, protocol, 0).into()
}

fn pool(first: [u8; 4], last: [u8; 4], ports: Option<(u16, u16)>) -> NatRange {
    NatRange {
        addresses: Some(AddressRange::V4(first.into(), last.into())),
        ports,
        selection: PortSelection::Default,
        persistent: false,
    }
}

const ONE: [u8; 4] = [192, 0, 2, 2];

#[test]
fn every_port_with_the_right_home_serves_to_the_last_and_is_found_again() {
    for (of, is) in [(2, 1), (7, 3), (64, 0)] {
        let action = NatAction::Source(pool(ONE, ONE, Some((1, u16::MAX))));
        let mut home = Home::new(of, is);
        let own = (1..=u16::MAX).filter(|port| port % of == is).count();
        assert_eq!(home.exhaust(&action, protocol::TCP), own, "rest {is} of {of}");
        assert!(home.occupancy.len() <= 1);
        let released: HashSet<Tuple> = home.taken.iter().copied().take(9).collect();
        for reply in &released {
            home.remove(reply);
        }
        let found: HashSet<Tuple> =
            (0..9).map(|_| home.add(&action, &client(71_000, protocol::TCP)).unwrap()).collect();
        assert_eq!(found, released);
        assert!(home.choose(&action, &client(72_000, protocol::TCP), 5).is_err());
        assert_eq!(home.asked, 0, "a slice that is full asks nothing");
        for reply in home.taken.clone() {
            home.remove(&reply);
        }
        assert!(home.occupancy.is_empty());
    }
}

#[test]
fn narrow_ranges_large_pools_classes_and_identifiers_serve_to_the_last_too() {
    let (first, last) = ([10, 0, 0, 0], [10, 0, 0, 254]);
    for (range, protocol, each, addresses) in [
        (pool(ONE, ONE, Some((5000, 5099))), protocol::UDP, 5000..=5099, 1),
        (pool(ONE, ONE, Some((5000, 5000))), protocol::UDP, 5000..=5000, 1),
        (pool(first, last, Some((5000, 5099))), protocol::UDP, 5000..=5099, 255),
        (pool(ONE, ONE, None), protocol::TCP, 1024..=u16::MAX, 1),
        (pool(ONE, ONE, None), protocol::ICMP, 0..=u16::MAX, 1),
    ] {
        let own = each.filter(|port| port % 5 == 0).count();
        let mut home = Home::new(5, 0);
        assert_eq!(home.exhaust(&NatAction::Source(range), protocol), own * addresses, "{range:?}");
    }
}

#[test]
fn addresses_without_a_slice_are_passed_over() {
    let action = NatAction::Source(pool([10, 0, 0, 0], [10, 0, 0, 9], Some((5000, 5019))));
    let mut home = Home::new(4, 0);
    home.rest.even_addresses = true;
    assert_eq!(home.exhaust(&action, protocol::TCP), 5 * 5);
    let odd = NatAction::Source(pool([10, 0, 0, 1], [10, 0, 0, 1], None));
    let refused = home.choose(&odd, &client(1, protocol::TCP), 5);
    assert_eq!(refused, Err(ChooseError::Exhausted { probes: 0 }));
    // So many that they cannot all be walked.
    let many = NatAction::Source(pool([10, 0, 0, 0], [10, 127, 255, 255], None));
    for number in 0..1000 {
        let reply = home.add(&many, &client(number, protocol::TCP)).unwrap();
        assert!(matches!(reply, Tuple::V4(reply) if reply.dst[3] % 2 == 0));
    }
}

#[test]
fn what_is_asked_about_first_at_home_is_foreseen() {
    let foresee = |home: Home, range: NatRange, number: u32| {
        let (action, original) = (NatAction::Source(range), client(number, protocol::UDP));
        let request = Request { action: &action, original: &original, hash: 1, source_hash: 0 };
        request.first_reply_at(&home.rest, &mut || 9)
    };
    let many = pool([10, 0, 0, 0], [10, 0, 0, 9], Some((5000, 50_000)));
    for number in 0..100 {
        let mut home = Home::new(64, 9);
        home.rest.even_addresses = number % 2 == 0;
        assert!(foresee(home, many, number).is_some());
    }
    let mut home = Home::new(2, 0);
    home.rest.even_addresses = true;
    assert_eq!(foresee(home, pool([10, 0, 0, 1], [10, 0, 0, 1], None), 1), None, "no address");
    assert_eq!(foresee(Home::new(64, 9), pool(ONE, ONE, Some((5000, 5000))), 1), None, "no port");
}

#[test]
fn the_original_port_is_kept_if_it_leads_home_and_is_free() {
    let action = NatAction::Source(pool(ONE, ONE, None));
    let mut home = Home::new(10, 0);
    assert_eq!(home.add(&action, &client(1, protocol::TCP)).unwrap().dst_port(), 40_000);
    assert_ne!(home.add(&action, &client(2, protocol::TCP)).unwrap().dst_port(), 40_000);
    let mut elsewhere = Home::new(10, 3);
    assert_eq!(elsewhere.add(&action, &client(1, protocol::TCP)).unwrap().dst_port() % 10, 3);
    // Between two classes as well.
    let between: Tuple = Tuple4::new([10, 0, 0, 1], [8, 8, 8, 8], 550, 80, protocol::TCP, 0).into();
    assert_eq!(home.add(&action, &between).unwrap().dst_port(), 550);
    assert!((600..1024).contains(&home.add(&action, &between).unwrap().dst_port()));
    assert!((600..1024).contains(&elsewhere.add(&action, &between).unwrap().dst_port()));
}

#[test]
fn the_null_address_keeps_a_tuple_only_if_it_leads_home() {
    let action = NatAction::Source(NatRange { addresses: None, ..pool(ONE, ONE, None) });
    let original = client(1, protocol::TCP);
    assert_eq!(Home::new(10, 0).add(&action, &original), Ok(original.reversed()));
    let reply = Home::new(10, 7).add(&action, &original).unwrap();
    assert_eq!((reply.dst(), reply.dst_port() % 10), (original.src(), 7));
}

#[test]
fn a_hash_draws_the_same_port_again_and_chance_another_one() {
    let range = pool(ONE, ONE, Some((1024, u16::MAX)));
    let draw = |selection, number, random| {
        let action = NatAction::Source(NatRange { selection, ..range });
        Home::new(64, 9).choose(&action, &client(number, protocol::TCP), random).unwrap().dst_port()
    };
    for selection in [PortSelection::Default, PortSelection::Hash] {
        assert_eq!(draw(selection, 1, 5), draw(selection, 1, 6));
        let ports: HashSet<u16> = (0..100).map(|number| draw(selection, number, 5)).collect();
        assert!(ports.len() > 80, "{}", ports.len());
    }
    let ports: HashSet<u16> =
        (0..100).map(|chance| draw(PortSelection::Random, 1, chance * 0x0123_4567)).collect();
    assert!(ports.len() > 80, "{}", ports.len());
}

#[test]
fn a_persistent_range_looks_at_the_source_hash_only() {
    let range = NatRange { persistent: true, ..pool([10, 0, 0, 1], [10, 0, 0, 200], None) };
    let mut home = Home::new(16, 3);
    let addresses: HashSet<IpAddr> = (0..200)
        .map(|number| home.add(&NatAction::Source(range), &client(number, protocol::UDP)).unwrap().dst())
        .collect();
    assert_eq!(addresses.len(), 1, "all have one source hash");
}

#[test]
fn in_order_is_the_order_of_one_alone_and_forgets_what_has_another_home() {
    for action in [
        NatAction::Destination(pool([10, 0, 0, 1], [10, 0, 0, 9], Some((8000, 8007)))),
        NatAction::Source(pool([10, 0, 0, 1], [10, 0, 0, 9], Some((8000, 8007)))),
    ] {
        let original = client(1, protocol::TCP);
        let request = Request { action: &action, original: &original, hash: 3 << 60, source_hash: 7 };
        let order = |homes: bool| {
            let (mut refused, mut occupancy) = (Vec::new(), Occupancy::default());
            while refused.len() < 72 {
                let mut is_free = |reply: &Tuple| !refused.contains(reply);
                let rest = Rest { of: 3, is: 1, even_addresses: false };
                let next = if homes {
                    reply_tuple_at(&request, &InOrder(&rest), &mut || 5, &mut occupancy, &mut is_free)
                } else {
                    reply_tuple(&action, &original, request.hash, 7, &mut || 5, &mut occupancy, &mut is_free)
                };
                refused.push(next.unwrap());
                // Nobody would tell that it is free again.
                let remembered = refused.iter().filter(|reply| rest.is_own(reply)).count();
                assert!(!homes || occupancy.len() <= remembered);
            }
            refused
        };
        assert_eq!(order(true), order(false), "{action:?}");
    }
}

#[test]
fn only_ranges_with_many_ports_are_drawn_from() {
    let tcp = client(1, protocol::TCP);
    let draws = |action: &NatAction, original: &Tuple| {
        Request { action, original, hash: 0, source_hash: 0 }.draws_ports()
    };
    assert!(draws(&NatAction::Source(pool(ONE, ONE, None)), &tcp));
    assert!(draws(&NatAction::Source(pool(ONE, ONE, None)), &client(1, protocol::ICMP)));
    assert!(draws(&NatAction::Source(pool(ONE, ONE, Some((5000, 5064)))), &tcp));
    assert!(!draws(&NatAction::Source(pool(ONE, ONE, Some((5000, 5063)))), &tcp));
    assert!(!draws(&NatAction::Source(pool(ONE, ONE, None)), &client(1, protocol::GRE)));
    assert!(!draws(&NatAction::Destination(pool(ONE, ONE, None)), &tcp));
    assert!(!draws(&NatAction::Apply, &tcp));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_search_ends_within_its_budget_with_a_tuple_in_range_that_leads_home(
        first in any::<u32>(), last in any::<u32>(), ports in prop::option::of(any::<(u16, u16)>()),
        hash in any::<u64>(), src_port in any::<u16>(), icmp in any::<bool>(), destination in any::<bool>(),
        of in 1u16..65, is in any::<u16>(), even_addresses in any::<bool>(), crowd in 0u64..5,
    ) {
        let ports = ports.map(|(a, b)| (a.min(b).max(1), a.max(b).max(1)));
        let (first, last) = (first.min(last).max(1), first.max(last).max(1));
        let range = pool(first.to_be_bytes(), last.to_be_bytes(), ports);
        let action = if destination { NatAction::Destination(range) } else { NatAction::Source(range) };
        let (number, dst_port) = if icmp { (protocol::ICMP, 8 << 8) } else { (protocol::TCP, 80) };
        let original: Tuple = Tuple4::new([10, 0, 0, 1], [8, 8, 8, 8], src_port, dst_port, number, 0).into();
        // What `is_own` says is of the source's end.
        let rest = Rest { of, is: is % of, even_addresses: even_addresses && !destination };
        let mut asked = 0;
        let request = Request { action: &action, original: &original, hash, source_hash: hash };
        let chosen = reply_tuple_at(&request, &rest, &mut || 9, &mut Occupancy::default(), &mut |reply| {
            asked += 1;
            reply.hash(&[1, 2]) % 4 >= crowd
        });
        prop_assert!(asked <= 2 * PROBES + 1, "{} questions", asked);
        match chosen {
            Ok(reply) if destination => {
                let addresses = Ipv4Addr::from_bits(first)..=Ipv4Addr::from_bits(last);
                prop_assert!(matches!(reply.src(), IpAddr::V4(address) if addresses.contains(&address)));
            }
            Ok(reply) => {
                prop_assert!(rest.is_own(&reply));
                let addresses = Ipv4Addr::from_bits(first)..=Ipv4Addr::from_bits(last);
                prop_assert!(matches!(reply.dst(), IpAddr::V4(address) if addresses.contains(&address)));
                let port = if icmp { reply.src_port() } else { reply.dst_port() };
                prop_assert!(ports.is_none_or(|(min, max)| (min..=max).contains(&port)));
            }
            Err(error) => prop_assert_eq!(error, ChooseError::Exhausted { probes: asked }),
        }
    }
}
