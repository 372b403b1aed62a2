use super::*;
use crate::steering::{KeyWord, SteeringConfig, Subscribers, TABLE_SIZE};
use core::net::{Ipv4Addr, Ipv6Addr};
use proptest::prelude::*;
use weir_wire::build::PacketBuilder;
use weir_wire::numbers::{icmp_type, icmpv6_type};
use weir_wire::{ChecksumTrust, Extracted};

const ZONE: u16 = 7;

/// Symmetric, and with a zone of subscribers of both families.
fn both(shards: usize, bits: u16) -> [Steering; 2] {
    let word = KeyWord::from_random(bits);
    let spans = |texts: [&str; 2]| texts.map(|text| text.parse().unwrap()).to_vec();
    let subscribers = Subscribers {
        pool: spans(["203.0.113.0/28", "2001:db8:1::/124"]),
        inside: spans(["10.0.0.0/8", "fd00::/16"]),
    };
    let config =
        SteeringConfig { shards, word, table_size: TABLE_SIZE, subscribers: vec![(ZONE, subscribers)] };
    [Steering::symmetric(shards, word), Steering::new(&config).unwrap()]
}

/// Addresses of which many are public or inside.
fn address(is_ipv4: bool, kind: u8, bits: u128) -> core::net::IpAddr {
    let low = bits & 15;
    if is_ipv4 {
        Ipv4Addr::from_bits(match kind {
            0 => 0xcb00_7100 | low as u32,
            1 => 0x0a00_0000 | bits as u32 >> 8,
            _ => bits as u32,
        })
        .into()
    } else {
        Ipv6Addr::from_bits(match kind {
            0 => 0x2001_0db8_0001 << 80 | low,
            1 => 0xfd00 << 112 | bits >> 16,
            _ => bits,
        })
        .into()
    }
}

fn packet(
    number: u8,
    src: core::net::IpAddr,
    dst: core::net::IpAddr,
    (sport, dport): (u16, u16),
) -> PacketBuilder {
    let builder = PacketBuilder::new().ip(src, dst);
    match number {
        0 => builder.tcp(sport, dport).payload(&[1; 9]),
        1 => builder.udp(sport, dport).payload(&[2; 40]),
        2 => builder.sctp(sport, dport, 9).payload(&[0; 16]),
        3 => builder.echo_request(sport, dport),
        4 => builder.echo_reply(sport, dport),
        _ => builder.protocol(47).payload(&[0, 0, 8, 0, 0, 0, 0, 0]),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn the_home_of_a_frame_is_that_of_the_tuple_which_the_tracker_finds(
        shards in 1usize..65, bits in any::<u16>(), is_ipv4 in any::<bool>(), number in 0u8..6,
        kinds in (0u8..3, 0u8..3), addresses in any::<(u128, u128)>(), ports in (1u16.., 1u16..), tagged in any::<bool>(),
        quoted in any::<bool>(),
    ) {
        let (src, dst) = (address(is_ipv4, kinds.0, addresses.0), address(is_ipv4, kinds.1, addresses.1));
        let mut builder = packet(number, src, dst, ports);
        if tagged {
            builder = builder.vlan(5);
        }
        let mut frame = builder.build();
        if quoted {
            let router = address(is_ipv4, 2, 0x0102_0304_0506);
            let kind = if is_ipv4 { icmp_type::UNREACHABLE } else { icmpv6_type::UNREACHABLE };
            frame = PacketBuilder::new().ip(router, src).icmp_error(kind, 1, 0, &frame, 60).build();
        }
        let layers = Layers::parse(&frame);
        let extracted = Tuple::extract(&frame, &layers, ZONE, ChecksumTrust::ALL);
        let Ok(extracted) = extracted else { return Err(TestCaseError::fail(format!("{extracted:?}"))) };
        prop_assert_eq!(quoted, matches!(extracted, Extracted::IcmpError { .. }));
        for steering in both(shards, bits) {
            prop_assert_eq!(steering.home_of_frame(&frame, &layers), Some(steering.home(&extracted.lookup())));
        }
    }

    #[test]
    fn the_home_of_a_fragment_is_that_of_its_addresses(
        shards in 1usize..65, bits in any::<u16>(), is_ipv4 in any::<bool>(), kinds in (0u8..3, 0u8..3),
        addresses in any::<(u128, u128)>(), ports in any::<(u16, u16)>(), first in any::<bool>(), id in any::<u16>(),
    ) {
        let (src, dst) = (address(is_ipv4, kinds.0, addresses.0), address(is_ipv4, kinds.1, addresses.1));
        let (offset, more) = if first { (0, true) } else { (1480, false) };
        let frame = PacketBuilder::new()
            .ip(src, dst)
            .fragment(id.into(), offset, more)
            .udp(ports.0, ports.1)
            .payload(&[3; 64])
            .build();
        let layers = Layers::parse(&frame);
        prop_assert_ne!(layers.fragment, Fragment::No);
        for steering in both(shards, bits) {
            let home = steering.home_of_fragments(src, dst);
            prop_assert_eq!(steering.home_of_frame(&frame, &layers), Some(home));
            prop_assert_eq!(steering.home_of_fragments(dst, src), home);
        }
    }

    #[test]
    fn any_bytes_have_a_home_or_none(bytes in prop::collection::vec(any::<u8>(), 0..120), kind in 0usize..3, cut in 0usize..120) {
        let mut frame = bytes;
        for (at, byte) in [[8, 0], [0x86, 0xdd], [8, 6]][kind].into_iter().enumerate() {
            if let Some(place) = frame.get_mut(12 + at) {
                *place = byte;
            }
        }
        let layers = Layers::parse(&frame);
        // Headers that were parsed of a longer frame do no harm.
        for frame in [&frame[..], &frame[..cut.min(frame.len())]] {
            for steering in both(5, 77) {
                let home = steering.home_of_frame(frame, &layers);
                prop_assert!(home.is_none_or(|home| home.index() < 5));
            }
        }
    }
}

#[test]
fn what_is_no_ip_packet_has_no_home() {
    let steering = Steering::symmetric(4, KeyWord::WELL_KNOWN);
    let arp = PacketBuilder::new().ether_type(0x88cc).payload(&[0; 60]).build();
    assert_eq!(steering.home_of_frame(&arp, &Layers::parse(&arp)), None);
    let cut = PacketBuilder::new().ipv4([10, 0, 0, 1], [10, 0, 0, 2]).protocol(6).payload(&[1, 2, 3]).build();
    assert_eq!(steering.home_of_frame(&cut, &Layers::parse(&cut)), None);
}
