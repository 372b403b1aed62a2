use super::*;
use crate::build::PacketBuilder;
use proptest::prelude::*;

const V4: ([u8; 4], [u8; 4]) = ([10, 0, 0, 1], [10, 0, 0, 2]);

fn v4() -> PacketBuilder {
    PacketBuilder::new().ipv4(V4.0, V4.1)
}

fn v6() -> PacketBuilder {
    PacketBuilder::new().ipv6([1; 16], [2; 16])
}

#[test]
fn plain_headers_are_found_where_they_are() {
    let frame = v4().udp(1, 2).payload(b"abc").pad_to(60).build();
    let wanted = Layers {
        ether_type: ether_type::IPV4,
        vlan_tags: 0,
        protocol: protocol::UDP,
        fragment: Fragment::No,
        l3: 14,
        l4: 34,
        l3_end: 45,
    };
    assert_eq!(Layers::parse(&frame), wanted);
    assert_eq!(Layers::parse(&frame).l4_bytes(&frame).len(), 11);
}

#[test]
fn up_to_two_vlan_tags_are_skipped() {
    let one = Layers::parse(&v4().vlan(5).udp(1, 2).build());
    assert_eq!((one.vlan_tags, one.l3, one.l4), (1, 18, 38));
    let two = Layers::parse(&v6().service_vlan(5).vlan(6).udp(1, 2).build());
    assert_eq!((two.vlan_tags, two.l3, two.l4, two.ether_type), (2, 22, 62, ether_type::IPV6));
    let three = Layers::parse(&v4().vlan(5).vlan(6).vlan(7).udp(1, 2).build());
    assert_eq!((three.vlan_tags, three.l3, three.ether_type), (2, 0, ether_type::VLAN));
    let cut = Layers::parse(&v4().vlan(5).build()[..17]);
    assert_eq!((cut.vlan_tags, cut.ether_type), (0, ether_type::NONE));
}

#[test]
fn snap_frames_have_an_ethertype_and_other_802_3_frames_none() {
    let ip = v4().udp(1, 2).build();
    let snap = [&[0xaa, 0xaa, 3, 0, 0, 0, 0x08, 0x00][..], &ip[14..]].concat();
    let frame = PacketBuilder::new().ether_type(100).payload(&snap).build();
    let layers = Layers::parse(&frame);
    assert_eq!((layers.ether_type, layers.l3, layers.l4), (ether_type::IPV4, 22, 42));
    let frame = PacketBuilder::new().ether_type(38).payload(&[0x42, 0x42, 3, 0, 0, 0, 0, 0]).build();
    assert_eq!(Layers::parse(&frame), Layers { ether_type: ether_type::NONE, ..Layers::default() });
}

#[test]
fn arp_for_ipv4_is_found_and_other_arp_is_not() {
    let mut frame = PacketBuilder::new().arp(1, ([2; 6], V4.0), ([0; 6], V4.1)).pad_to(60).build();
    let layers = Layers::parse(&frame);
    assert_eq!((layers.ether_type, layers.l3, layers.l3_end, layers.l4), (ether_type::ARP, 14, 42, 0));
    frame[15] = 6;
    assert_eq!(Layers::parse(&frame).l3, 0);
}

#[test]
fn ipv4_options_move_the_l4_header() {
    let layers = Layers::parse(&v4().ipv4_options(&[7, 3, 4, 0, 1]).tcp(1, 2).build());
    assert_eq!((layers.l4, layers.l3_end), (14 + 28, 14 + 28 + 20));
}

#[test]
fn ipv4_headers_that_contradict_themselves_are_absent() {
    let frame = v4().udp(1, 2).build();
    // Version, header length, and total length: too small for the header, beyond the frame.
    for (at, value) in [(14, 0x55), (14, 0x44), (14, 0x4f), (17, 19), (17, 29)] {
        let mut frame = frame.clone();
        frame[at] = value;
        let layers = Layers::parse(&frame);
        assert_eq!((layers.l3, layers.l4, layers.protocol), (0, 0, 0), "byte {at} = {value:#x}");
    }
}

#[test]
fn fragments_are_told_apart() {
    for builder in [v4(), v6()] {
        let first = Layers::parse(&builder.clone().fragment(7, 0, true).udp(1, 2).build());
        assert_eq!(first.fragment, Fragment::First);
        assert_ne!(first.l4, 0);
        let later =
            Layers::parse(&builder.clone().fragment(7, 1480, false).protocol(17).payload(&[0; 8]).build());
        assert_eq!((later.fragment, later.l4), (Fragment::Later, 0));
        let whole = Layers::parse(&builder.fragment(7, 0, false).udp(1, 2).build());
        assert_eq!(whole.fragment, Fragment::No);
    }
}

#[test]
fn extension_headers_are_walked() {
    let frame = v6()
        .extension(protocol::HOP_BY_HOP, &[1, 4, 0, 0, 0, 0])
        .extension(protocol::ROUTING, &[0; 22])
        .authentication()
        .extension(protocol::DESTINATION, &[0; 6])
        .tcp(1, 2)
        .build();
    let layers = Layers::parse(&frame);
    assert_eq!((layers.protocol, layers.l4), (protocol::TCP, 14 + 40 + 8 + 24 + 24 + 8));
    // The same, cut inside each of them.
    for end in 54..layers.l4 {
        let mut cut = frame[..usize::from(end)].to_vec();
        cut[19] = u8::try_from(end - 54).unwrap();
        let cut = Layers::parse(&cut);
        assert_eq!((cut.l3, cut.l4), (14, 0), "cut at {end}");
    }
}

#[test]
fn a_long_chain_of_extension_headers_is_given_up() {
    let chain = |len| (0..len).fold(v6(), |builder, _| builder.extension(protocol::DESTINATION, &[0; 6]));
    assert_ne!(Layers::parse(&chain(MAX_EXTENSIONS).udp(1, 2).build()).l4, 0);
    assert_eq!(Layers::parse(&chain(MAX_EXTENSIONS + 1).udp(1, 2).build()).l4, 0);
}

#[test]
fn the_largest_frames_are_read() {
    let frame = v4().udp(1, 2).payload(&[7; 65_000]).build();
    assert_eq!(usize::from(Layers::parse(&frame).l3_end), frame.len());
    let mut longer = frame;
    longer.resize(200_000, 0);
    assert_eq!(Layers::parse(&longer).l4, 34);
}

/// What every reader relies on.
fn check(layers: &Layers, frame: &[u8]) {
    assert_eq!(*layers, Layers::parse_any(frame), "the short way sees what the long one does");
    assert!(usize::from(layers.l3_end) <= frame.len());
    assert!(layers.l3 <= layers.l3_end);
    assert!(layers.l4 <= layers.l3_end);
    assert!(layers.l4 == 0 || layers.l4 > layers.l3);
    assert!(layers.l3 != 0 || (layers.l4 == 0 && layers.l3_end == 0 && layers.protocol == 0));
    let quoted = layers.parse_quoted(frame, layers.l4.saturating_add(8));
    assert!(quoted.l3_end <= layers.l3_end);
    assert!(quoted.l4 <= quoted.l3_end);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn any_bytes_can_be_parsed(mut frame in proptest::collection::vec(any::<u8>(), 0..200), kind in 0usize..6) {
        // Random ethertypes are nearly never interesting.
        let kinds = [[0x08, 0x00], [0x86, 0xdd], [0x81, 0x00], [0x88, 0xa8], [0x08, 0x06], [0, 50]];
        if frame.len() > 14 {
            frame[12..14].copy_from_slice(&kinds[kind]);
            // So are random versions.
            frame[14] = frame[14] & 0x0f | if kind == 1 { 0x60 } else { 0x40 };
        }
        check(&Layers::parse(&frame), &frame);
    }

    #[test]
    fn mutated_and_cut_packets_can_be_parsed(
        ipv6 in any::<bool>(), tags in 0u16..4, extensions in 0u8..4,
        changes in proptest::collection::vec((0usize..160, any::<u8>()), 0..5), cut in 0usize..160,
    ) {
        let mut builder = if ipv6 { v6() } else { v4() };
        for tag in 0..tags {
            builder = builder.vlan(tag);
        }
        for number in (0..extensions).zip([0, 43, 44, 60].iter().cycle()) {
            builder = builder.extension(*number.1, &[0; 6]);
        }
        let mut frame = builder.tcp(1, 2).tcp_options(&[2, 4, 5, 0xb4]).payload(&[9; 30]).build();
        for (at, value) in changes {
            if let Some(byte) = frame.get_mut(at) {
                *byte = value;
            }
        }
        frame.truncate(frame.len().saturating_sub(cut));
        check(&Layers::parse(&frame), &frame);
    }
}
