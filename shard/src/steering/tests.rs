use super::*;
use proptest::prelude::*;
use weir_wire::build::PacketBuilder;
use weir_wire::numbers::protocol::{GRE, ICMP, ICMPV6, SCTP, TCP, UDP};
use weir_wire::{ChecksumTrust, Extracted, Layers, Tuple4, Tuple6};

const ZONE: u16 = 9;

fn spans(texts: &[&str]) -> Vec<AddressSpan> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn config(shards: usize, pool: &[&str], inside: &[&str]) -> SteeringConfig {
    let subscribers = vec![(ZONE, Subscribers { pool: spans(pool), inside: spans(inside) })];
    SteeringConfig { shards, word: KeyWord::WELL_KNOWN, table_size: TABLE_SIZE, subscribers }
}

fn subscriber(shards: usize, pool: &[&str]) -> Steering {
    Steering::new(&config(shards, pool, &["10.0.0.0/8", "fd00::/16"])).unwrap()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn tuple(src: &str, src_port: u16, dst: &str, dst_port: u16, protocol: u8) -> Tuple {
    Tuple::new(address(src), address(dst), src_port, dst_port, protocol, ZONE).unwrap()
}

#[test]
fn both_directions_have_one_home_and_every_shard_has_some() {
    let steering = Steering::symmetric(3, KeyWord::WELL_KNOWN);
    let mut seen = [0; 3];
    for port in 1000..4000 {
        let tuple = Tuple::new([10, 0, 0, 1].into(), [192, 0, 2, 7].into(), port, 80, 6, 5).unwrap();
        assert_eq!(steering.home(&tuple), steering.home(&tuple.reversed()));
        seen[steering.home(&tuple).index()] += 1;
    }
    assert!(seen.iter().all(|&count| count > 900), "{seen:?}");
}

#[test]
fn a_redirection_table_of_any_size_is_shared_evenly() {
    for shards in 1..=MAX_SHARDS {
        let steering = Steering::symmetric(shards, KeyWord::WELL_KNOWN);
        assert_eq!((steering.shards(), steering.table().len()), (shards, TABLE_SIZE));
        for bits in 0..=11 {
            let size = 1 << bits;
            let sized = steering.with_table_size(size);
            if size < shards {
                assert_eq!(sized.unwrap_err(), SteeringError::TableTooSmall { entries: size, shards });
                continue;
            }
            let view = sized.unwrap().view();
            assert_eq!((view.table_size, view.entries.iter().sum::<usize>()), (size, size));
            let (least, most) = (view.entries.iter().min().unwrap(), view.entries.iter().max().unwrap());
            assert!(most - least <= 1, "{shards} shards, {size} entries");
        }
    }
    let steering = Steering::symmetric(4, KeyWord::WELL_KNOWN);
    for entries in [0, 3, 500, 4096] {
        assert_eq!(steering.with_table_size(entries).unwrap_err(), SteeringError::TableSize { entries });
    }
    assert!(Steering::alone().is_alone() && !steering.is_alone());
}

#[test]
fn a_configuration_that_cannot_be_is_refused_with_the_reason() {
    let (pool, inside) = (["192.0.2.0/28"], ["10.0.0.0/8"]);
    let twice = |mut config: SteeringConfig| {
        config.subscribers.push(config.subscribers[0].clone());
        config
    };
    let zones = |count: u16| {
        let mut config = config(4, &pool, &inside);
        let addresses = config.subscribers[0].1.clone();
        config.subscribers = (0..count).map(|zone| (zone, addresses.clone())).collect();
        config
    };
    let many: Vec<String> =
        (0..=MAX_SPANS).map(|at| format!("192.0.{}.{}", at >> 7, at << 1 & 255)).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for (config, reason) in [
        (config(0, &pool, &inside), "0 shards; there may be 1 to 64"),
        (config(65, &pool, &inside), "65 shards; there may be 1 to 64"),
        (SteeringConfig { table_size: 32, ..config(64, &pool, &inside) }, "32 entries is too small for 64"),
        (SteeringConfig { table_size: 100, ..config(4, &pool, &inside) }, "table of 100 entries"),
        (config(4, &[], &inside), "zone 9 is steered by subscriber but has no public addresses"),
        (config(4, &pool, &[]), "zone 9 is steered by subscriber but has no inside addresses"),
        (config(4, &["10.2.0.0/24"], &inside), "zone 9: 10.0.0.0/8 and 10.2.0.0/24 overlap"),
        (config(4, &["192.0.2.0/28", "192.0.2.15"], &inside), "192.0.2.0/28 and 192.0.2.15 overlap"),
        (config(4, &["192.0.0.0/7"], &inside), "192.0.0.0/7 is too large for a pool"),
        (config(4, &["2000::/15"], &inside), "2000::/15 is too large for a pool"),
        (config(4, &many, &inside), "zone 9 has more than 256 runs"),
        (twice(config(4, &pool, &inside)), "zone 9 is steered by subscriber twice"),
        (zones(65), "more than 64 zones"),
    ] {
        let refused = Steering::new(&config).map(|_| ()).unwrap_err().to_string();
        assert!(refused.contains(reason), "{refused} is not {reason}");
    }
    assert!(Steering::new(&zones(64)).is_ok());
}

#[test]
fn the_widest_pools_are_dealt_evenly_and_at_once() {
    let steering = subscriber(64, &["11.0.0.0/8", "2001::/16"]);
    for pool in &steering.view().zones[0].pools {
        assert_eq!(pool.addresses, 1 << if pool.is_ipv4 { 24 } else { 112 });
        assert_eq!((pool.evenness, &pool.ports), (Evenness { least: 100, most: 100 }, &None));
    }
}

#[test]
fn what_is_shown_is_what_is_done() {
    for (shards, pool, least) in [
        (3, "192.0.2.0-192.0.2.99", 97),
        (4, "192.0.2.0/24", 100),
        (16, "192.0.2.0/26", 100),
        (4, "192.0.2.1", 100),
        (5, "192.0.2.0/31", 99),
        (64, "192.0.2.0/28", 98),
    ] {
        let steering = subscriber(shards, &[pool]);
        let view = steering.view();
        assert_eq!((view.shards, view.default_scheme, view.zones.len()), (shards, Scheme::Symmetric, 1));
        let [shown] = &view.zones[0].pools[..] else { panic!("{:?}", view.zones) };
        let span: AddressSpan = pool.parse().unwrap();
        let (mut whole, mut ports) = (vec![0; shards], vec![0; shards]);
        let (first, last) = span.bits();
        for bits in first..=last {
            let public = span::address_of(true, bits).to_string();
            whole[steering.home(&tuple("8.8.8.8", 0, &public, 0, GRE)).index()] += 1;
            for port in 0..=u16::MAX {
                ports[steering.home(&tuple("8.8.8.8", 80, &public, port, TCP)).index()] += 1;
            }
        }
        assert_eq!(shown.whole, whole, "{pool}");
        assert_eq!(shown.addresses, last - first + 1);
        match &shown.ports {
            Some(shown) => assert!(
                shown.iter().zip(&ports).all(|(one, all)| u128::from(*one) * (last - first + 1) == *all)
            ),
            None => assert!(whole.iter().zip(&ports).all(|(whole, ports)| whole << 16 == *ports)),
        }
        assert_eq!(shown.evenness, Evenness::of(&ports), "{pool}: {ports:?}");
        assert!(shown.evenness.least >= least, "{shards} shards, {pool}: {:?}", shown.evenness);
    }
}

#[test]
fn every_shard_has_ports_of_every_class_of_an_address_that_is_cut() {
    for shards in 2..=MAX_SHARDS {
        let steering = subscriber(shards, &["192.0.2.1"]);
        for class in [1..=511, 600..=1023, 1024..=u16::MAX] {
            let mut has = vec![0_u32; shards];
            for port in class {
                has[steering.home(&tuple("8.8.8.8", 80, "192.0.2.1", port, UDP)).index()] += 1;
            }
            let (least, most) = (has.iter().min().unwrap(), has.iter().max().unwrap());
            // Port 0 is in no class.
            assert!(*least > 0 && most - least <= 2, "{shards} shards: {has:?}");
        }
    }
}

#[test]
fn a_card_that_hashes_destinations_alone_finds_the_owner_of_whole_public_addresses() {
    let steering = subscriber(6, &["192.0.2.0/25", "2001:db8::/120"]);
    let toeplitz = Toeplitz::new(&steering.key());
    for number in 0..100_u8 {
        for (is_ipv4, public) in
            [(true, IpAddr::from([192, 0, 2, number])), (false, address(&format!("2001:db8::{number:x}")))]
        {
            let table = steering.pool_table(ZONE, is_ipv4).unwrap();
            let octets = match public {
                IpAddr::V4(public) => public.octets().to_vec(),
                IpAddr::V6(public) => public.octets().to_vec(),
            };
            let chosen = table[toeplitz.hash(&octets) as usize & (table.len() - 1)];
            let outside = if is_ipv4 { "8.8.8.8" } else { "2001:4860::8" };
            assert_eq!(chosen, steering.home(&tuple(outside, 80, &public.to_string(), 4000, TCP)));
        }
    }
    assert!(steering.pool_table(ZONE + 1, true).is_none());
}

#[test]
fn hashes_of_tuples_are_those_that_a_card_computes() {
    let steering = Steering::symmetric(4, KeyWord::from_random(0x4321));
    let toeplitz = Toeplitz::new(&steering.key());
    let tuple = Tuple4::new([10, 1, 2, 3], [8, 8, 4, 4], 40_000, 443, TCP, 0);
    let mut input = [tuple.src, tuple.dst].concat();
    let tuple = Tuple::from(tuple);
    assert_eq!(steering.card_hash_of_addresses(tuple.src(), tuple.dst()), toeplitz.hash(&input));
    input.extend([0x9c, 0x40, 0x01, 0xbb]);
    assert_eq!(steering.card_hash(&tuple), toeplitz.hash(&input));
    assert_eq!(steering.card_choice(toeplitz.hash(&input)), steering.home(&tuple));
    let tuple = Tuple6::new([0xfd; 16], [0x20; 16], 40_000, 443, SCTP, 0);
    let mut input = [tuple.src, tuple.dst].concat();
    input.extend([0x9c, 0x40, 0x01, 0xbb]);
    assert_eq!(steering.card_hash(&tuple.into()), toeplitz.hash(&input));
}

/// What comes from outside names its owner by the public address alone: whoever sent it, in whatever pieces.
#[test]
fn packets_errors_and_fragments_from_outside_reach_the_owner_of_a_public_address() {
    for (pool, is_whole) in [("192.0.2.0/24", true), ("192.0.2.0/31", false)] {
        let steering = subscriber(8, &[pool]);
        for number in 0..2_u8 {
            let public = [192, 0, 2, number];
            for port in [80, 1023, 1024, 30_000, u16::MAX] {
                let query = Tuple4::new(public, [8, 8, 8, 8], port, 53, UDP, ZONE);
                let owner = steering.home(&query.into());
                for remote in 1..20 {
                    let frame =
                        PacketBuilder::new().ipv4([8, 8, remote, 8], public).udp(remote.into(), port).build();
                    assert_eq!(steering.home_of_frame(&frame, &Layers::parse(&frame)), Some(owner));
                    // An error from a router on the way, about a packet to that remote.
                    let sent = PacketBuilder::new().ipv4(public, [8, 8, remote, 8]).udp(port, 99).build();
                    let error = PacketBuilder::new()
                        .ipv4([100, 64, remote, 1], public)
                        .icmp_error(3, 1, 0, &sent, 28)
                        .build();
                    let layers = Layers::parse(&error);
                    let extracted = Tuple::extract(&error, &layers, ZONE, ChecksumTrust::NONE).unwrap();
                    assert!(matches!(extracted, Extracted::IcmpError { .. }));
                    assert_eq!(steering.home(&extracted.lookup()), owner);
                    assert_eq!(steering.home_of_frame(&error, &layers), Some(owner));
                }
                let home = steering.home_of_fragments([8, 8, 8, 8].into(), public.into());
                let frame = PacketBuilder::new()
                    .ipv4([8, 8, 8, 8], public)
                    .fragment(7, 1480, false)
                    .udp(9, port)
                    .payload(&[1; 32])
                    .build();
                assert_eq!(steering.home_of_frame(&frame, &Layers::parse(&frame)), Some(home));
                assert!(!is_whole || home == owner);
                let identifier = Tuple4::new(public, [8, 8, 8, 8], port, 8 << 8, ICMP, ZONE);
                assert_eq!(steering.home(&identifier.into()), owner, "an identifier is cut like a port");
            }
        }
    }
}

#[test]
fn other_zones_of_a_datapath_with_subscribers_stay_symmetric() {
    let steering = subscriber(7, &["192.0.2.0/24"]);
    let symmetric = Steering::symmetric(7, KeyWord::WELL_KNOWN);
    for port in 1..500 {
        let tuple = tuple("10.0.0.1", port, "192.0.2.9", 80, TCP);
        assert_eq!(steering.home(&tuple.in_zone(1)), symmetric.home(&tuple));
        let unknown = self::tuple("172.16.0.1", port, "8.8.8.8", 80, TCP);
        assert_eq!(steering.home(&unknown), symmetric.home(&unknown));
    }
}

proptest! {
    #[test]
    fn every_tuple_has_one_home_in_both_directions(
        shards in 1usize..65, bits in any::<u16>(), size in 6u32..12, is_ipv4 in any::<bool>(),
        kinds in (0u8..4, 0u8..4), low in any::<(u8, u8)>(), ports in any::<(u16, u16)>(), number in 0usize..5,
        zone in 8u16..11, is_small in any::<bool>(),
    ) {
        let pool: &[&str] = if is_small { &["192.0.2.7", "2001:db8::7"] } else { &["192.0.2.0/24", "2001:db8::/120"] };
        let word = KeyWord::from_random(bits);
        let config = SteeringConfig { word, table_size: 1 << size, ..config(shards, pool, &["10.0.0.0/8", "fd00::/16"]) };
        let steering = Steering::new(&config).unwrap();
        let address = |kind: u8, low: u8| match (kind, is_ipv4) {
            (0, true) => [192, 0, 2, low].into(),
            (1, true) => [192, 0, 2, 7].into(),
            (2, true) => [10, 0, 0, low].into(),
            (_, true) => [8, 8, 8, low].into(),
            (0, false) => address(&format!("2001:db8::{low:x}")),
            (1, false) => address("2001:db8::7"),
            (2, false) => address(&format!("fd00::{low:x}")),
            (_, false) => address(&format!("2001:4860::{low:x}")),
        };
        let (src, dst) = (address(kinds.0, low.0), address(kinds.1, low.1));
        let (number, dst_port) = match number {
            4 => (if is_ipv4 { ICMP } else { ICMPV6 }, if is_ipv4 { 8 << 8 } else { 128 << 8 }),
            other => ([TCP, UDP, SCTP, GRE][other], ports.1),
        };
        let ports = if number == GRE { (0, 0) } else { (ports.0, dst_port) };
        let tuple = Tuple::new(src, dst, ports.0, ports.1, number, zone).unwrap();
        let home = steering.home(&tuple);
        prop_assert!(home.index() < shards);
        prop_assert_eq!(steering.home(&tuple.reversed()), home);
        prop_assert_eq!(steering.home_of_fragments(src, dst), steering.home_of_fragments(dst, src));
        if number == GRE && zone == ZONE {
            prop_assert_eq!(steering.home_of_fragments(src, dst), home);
        }
        prop_assert_eq!(Steering::alone().home(&tuple).index(), 0);
    }
}
