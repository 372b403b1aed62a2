use super::*;
use proptest::prelude::*;
use weir_wire::build::PacketBuilder;
use weir_wire::{ChecksumTrust, Extracted};

/// A packet in the making and how its outside looks, for both families.
#[derive(Clone, Debug)]
struct Case {
    ipv6: bool,
    kind: u8,
    ends: [u8; 2],
    new_ends: [u8; 2],
    ports: [u16; 2],
    new_ports: [u16; 2],
    payload: Vec<u8>,
    options: bool,
}

fn any_case() -> impl Strategy<Value = Case> {
    let ends = || any::<[u8; 2]>();
    let ports = || [1u16.., 1u16..];
    let payload = proptest::collection::vec(any::<u8>(), 0..80);
    (any::<bool>(), 0u8..6, ends(), ends(), ports(), ports(), payload, any::<bool>()).prop_map(
        |(ipv6, kind, ends, new_ends, ports, new_ports, payload, options)| Case {
            ipv6,
            kind,
            ends,
            new_ends,
            ports,
            new_ports,
            payload,
            options,
        },
    )
}

fn v4_address(end: u8) -> [u8; 4] {
    [10, end, end.wrapping_mul(7), 1]
}

fn v6_address(end: u8) -> [u8; 16] {
    let mut address = [end.wrapping_mul(31); 16];
    address[0] = 0xfd;
    address
}

impl Case {
    fn ip(&self, src: u8, dst: u8) -> PacketBuilder {
        let builder = PacketBuilder::new();
        match (self.ipv6, self.options) {
            (false, false) => builder.ipv4(v4_address(src), v4_address(dst)),
            (false, true) => builder.ipv4(v4_address(src), v4_address(dst)).ipv4_options(&[1; 8]).vlan(9),
            (true, false) => builder.ipv6(v6_address(src), v6_address(dst)),
            (true, true) => builder.ipv6(v6_address(src), v6_address(dst)).extension(60, &[0; 6]).vlan(9),
        }
    }

    fn packet(&self) -> PacketBuilder {
        let builder = self.ip(self.ends[0], self.ends[1]).payload(&self.payload);
        let [src, dst] = self.ports;
        match self.kind {
            0 => builder.tcp(src, dst).seq(77),
            1 => builder.udp(src, dst),
            2 => builder.sctp(src, dst, 5),
            3 => builder.echo_request(src, 1),
            4 => builder.udp(src, dst).without_udp_checksum(),
            _ => builder.protocol(50),
        }
    }

    /// What the packet's tuple is to become.
    fn translated(&self, from: &Tuple) -> Tuple {
        let [src, dst] = self.new_ends;
        let ports = match () {
            () if from.is_icmp() => (self.new_ports[0], from.dst_port()),
            () if from.has_ports() => (self.new_ports[0], self.new_ports[1]),
            () => (0, 0),
        };
        match *from {
            Tuple::V4(from) => {
                Tuple4::new(v4_address(src), v4_address(dst), ports.0, ports.1, from.protocol, from.zone)
                    .into()
            }
            Tuple::V6(from) => {
                Tuple6::new(v6_address(src), v6_address(dst), ports.0, ports.1, from.protocol, from.zone)
                    .into()
            }
        }
    }
}

/// The tuple of a valid packet; UDP over IPv6 without checksum is let through.
fn tuple(frame: &[u8]) -> Tuple {
    let layers = Layers::parse(frame);
    let mut frame = frame.to_vec();
    if layers.protocol == 17 && layers.is_ipv6() && layers.l4_bytes(&frame)[6..8] == [0, 0] {
        checksum::fill(&mut frame, &layers);
    }
    Tuple::extract(&frame, &layers, 0, ChecksumTrust::NONE).unwrap().lookup()
}

#[test]
fn what_does_not_fit_is_refused_and_left_alone() {
    let case = Case {
        ipv6: false,
        kind: 0,
        ends: [1, 2],
        new_ends: [3, 4],
        ports: [5, 6],
        new_ports: [7, 8],
        payload: vec![],
        options: false,
    };
    let frame = case.packet().build();
    let layers = Layers::parse(&frame);
    let from = tuple(&frame);
    let to = case.translated(&from);
    let refused = |frame: &[u8], layers: &Layers, to: &Tuple| {
        let mut copy = frame.to_vec();
        let error = translate(&mut copy, layers, to).unwrap_err();
        assert_eq!(copy, frame);
        error
    };
    let v6: Tuple = Tuple6::new([1; 16], [2; 16], 1, 2, 6, 0).into();
    assert_eq!(refused(&frame, &layers, &v6), Untranslatable::Mismatch);
    let udp: Tuple = Tuple4::new([1; 4], [2; 4], 1, 2, 17, 0).into();
    assert_eq!(refused(&frame, &layers, &udp), Untranslatable::Mismatch);
    assert_eq!(refused(&frame[..50], &layers, &to), Untranslatable::IpHeader);
    let tiny = case.ip(1, 2).fragment(1, 0, true).protocol(6).payload(&[1; 8]).build();
    assert_eq!(refused(&tiny, &Layers::parse(&tiny), &to), Untranslatable::L4Header);
    let sctp = case.ip(1, 2).fragment(1, 0, true).sctp(1, 2, 3).build();
    let to: Tuple = Tuple4::new([1; 4], [2; 4], 9, 2, 132, 0).into();
    assert_eq!(refused(&sctp, &Layers::parse(&sctp), &to), Untranslatable::SctpFragment);
}

#[test]
fn fragments_put_together_after_translation_have_the_right_checksum() {
    for ipv6 in [false, true] {
        let case = Case {
            ipv6,
            kind: 1,
            ends: [1, 2],
            new_ends: [3, 4],
            ports: [5, 6],
            new_ports: [7, 8],
            payload: (0..200).collect(),
            options: false,
        };
        let whole = case.packet().build();
        let datagram = Layers::parse(&whole).l4_bytes(&whole).to_vec();
        let to = case.translated(&tuple(&whole));
        let mut joined = Vec::new();
        for (offset, part) in [(0, &datagram[..104]), (104, &datagram[104..])] {
            let mut frame = case.ip(1, 2).fragment(1, offset, offset == 0).protocol(17).payload(part).build();
            let layers = Layers::parse(&frame);
            translate(&mut frame, &layers, &to).unwrap();
            assert!(ipv6 || checksum::ipv4_header_is_valid(&frame, &layers));
            joined.extend_from_slice(&frame[frame.len() - part.len()..]);
        }
        let joined = case.ip(case.new_ends[0], case.new_ends[1]).protocol(17).payload(&joined).build();
        let layers = Layers::parse(&joined);
        assert!(checksum::l4_is_valid(&joined, &layers));
        assert_eq!(tuple(&joined), to);
    }
}

#[test]
fn a_routers_address_is_hidden_only_at_the_translated_end() {
    // Inside 10.1.7.1 is seen as 10.9.63.1 by 10.2.14.1.
    let (inside, outside, remote, router) = (v4_address(1), v4_address(9), v4_address(2), [172, 16, 0, 1]);
    let source_of = |frame: &[u8]| <[u8; 4]>::try_from(&frame[26..30]).unwrap();
    let translate_error = |mut frame: Vec<u8>, to: Tuple| {
        let layers = Layers::parse(&frame);
        let Ok(Extracted::IcmpError { inner_layers, .. }) =
            Tuple::extract(&frame, &layers, 0, ChecksumTrust::NONE)
        else {
            panic!("no error");
        };
        translate_icmp_error(&mut frame, &layers, &inner_layers, &to).unwrap();
        frame
    };
    // A router outside complains about a packet from inside: the sender may learn who it was.
    let sent = PacketBuilder::new().ipv4(outside, remote).udp(7, 53).build();
    let error = PacketBuilder::new().ipv4(router, outside).icmp_error(11, 0, 0, &sent, 28).build();
    let to = Tuple4::new(remote, inside, 53, 40000, 17, 0).into();
    assert_eq!(source_of(&translate_error(error, to)), router);
    // A router inside complains about an answer: it must not be seen.
    let sent = PacketBuilder::new().ipv4(remote, inside).udp(53, 40000).build();
    let error = PacketBuilder::new().ipv4(router, remote).icmp_error(3, 3, 0, &sent, 28).build();
    let to = Tuple4::new(outside, remote, 7, 53, 17, 0).into();
    assert_eq!(source_of(&translate_error(error, to)), outside);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn a_translated_packet_is_the_one_that_would_have_been_built(case in any_case()) {
        let mut frame = case.packet().build();
        let layers = Layers::parse(&frame);
        let to = case.translated(&tuple(&frame));
        translate(&mut frame, &layers, &to).unwrap();
        prop_assert_eq!(tuple(&frame), to);
        let wanted = Case { ends: case.new_ends, ports: case.new_ports, ..case }.packet().build();
        prop_assert_eq!(frame, wanted);
    }

    #[test]
    fn translating_back_restores_every_byte(case in any_case()) {
        let before = case.packet().build();
        let mut frame = before.clone();
        let layers = Layers::parse(&frame);
        let from = tuple(&frame);
        translate(&mut frame, &layers, &case.translated(&from)).unwrap();
        translate(&mut frame, &layers, &from).unwrap();
        prop_assert_eq!(frame, before);
    }

    #[test]
    fn a_wrong_checksum_is_not_mended(case in any_case(), wrong in 1u16..0xffff) {
        let case = Case { kind: [0, 1, 3][usize::from(case.kind) % 3], ..case };
        let mut frame = case.packet().build();
        let layers = Layers::parse(&frame);
        let from = tuple(&frame);
        let at = usize::from(layers.l4) + match case.kind { 0 => 16, 1 => 6, _ => 2 };
        let field = u16::from_be_bytes([frame[at], frame[at + 1]]);
        // The same number modulo 0xffff would be right.
        prop_assume!(field != wrong && wrong != 0);
        frame[at..at + 2].copy_from_slice(&wrong.to_be_bytes());
        translate(&mut frame, &layers, &case.translated(&from)).unwrap();
        prop_assert!(!checksum::l4_is_valid(&frame, &layers));
    }

    #[test]
    fn icmp_errors_are_translated_inside_and_outside(
        case in any_case(), router in any::<u8>(), quoted_len in 0usize..200, third in any::<bool>(),
    ) {
        // The error travels against the packet it quotes, from a router or from the end itself.
        let sent = case.packet().build();
        let sent_layers = Layers::parse(&sent);
        prop_assume!(sent_layers.l4_bytes(&sent).len() >= 8);
        let sent_tuple = tuple(&sent);
        let shown = case.translated(&sent_tuple);
        let least = usize::from(sent_layers.l4 - sent_layers.l3) + 8;
        let kind = if case.ipv6 { 1 } else { 3 };
        let router = if third { router } else { case.ends[1] };
        let before = case.ip(router, case.ends[0]).icmp_error(kind, 0, 0, &sent, quoted_len.max(least)).build();
        let layers = Layers::parse(&before);
        let extracted = Tuple::extract(&before, &layers, 0, ChecksumTrust::NONE);
        let Ok(Extracted::IcmpError { inner, inner_layers }) = extracted else {
            return Err(TestCaseError::fail(format!("{extracted:?}")));
        };
        prop_assert_eq!(inner, sent_tuple);

        let mut frame = before.clone();
        translate_icmp_error(&mut frame, &layers, &inner_layers, &shown.reversed()).unwrap();
        let extracted = Tuple::extract(&frame, &layers, 0, ChecksumTrust::NONE);
        let Ok(Extracted::IcmpError { inner, .. }) = extracted else {
            return Err(TestCaseError::fail(format!("{extracted:?}")));
        };
        prop_assert_eq!(inner, shown);
        // The quote is what the translated packet would have been, but for SCTP's checksum and for one that
        // the quote cuts in half.
        let half_checksum = case.kind == 0 && inner_layers.l4_bytes(&frame).len() == 17;
        if case.kind != 2 && !half_checksum {
            let wanted = Case { ends: case.new_ends, ports: case.new_ports, ..case.clone() }.packet().build();
            let quote = inner_layers.l3_bytes(&frame);
            let wanted = Layers::parse(&wanted).l3_bytes(&wanted).to_vec();
            prop_assert_eq!(quote, &wanted[..quote.len()]);
        }
        // Back again; the router's own address is lost where the translation hides it.
        if !third {
            translate_icmp_error(&mut frame, &layers, &inner_layers, &sent_tuple.reversed()).unwrap();
            prop_assert_eq!(frame, before);
        }
    }

    #[test]
    fn cut_and_mutated_packets_are_translated_or_left_alone(
        case in any_case(), error in any::<bool>(), cut in 0usize..160,
        changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..4), stale in any::<bool>(),
    ) {
        let sent = case.packet().build();
        let from = tuple(&sent);
        let mut frame = if error {
            case.ip(9, case.ends[0]).icmp_error(3, 0, 0, &sent, 120).build()
        } else {
            sent
        };
        let early = Layers::parse(&frame);
        for (at, value) in changes {
            let at = at % frame.len();
            frame[at] = value;
        }
        frame.truncate(frame.len().saturating_sub(cut));
        // Even a parse of what the frame was before must do no harm.
        let layers = if stale { early } else { Layers::parse(&frame) };
        let inner = layers.parse_quoted(&frame, layers.l4.saturating_add(8));
        for to in [case.translated(&from), case.translated(&from).reversed()] {
            let before = frame.clone();
            if translate(&mut frame, &layers, &to).is_err() {
                prop_assert_eq!(&frame, &before);
            }
            let before = frame.clone();
            if translate_icmp_error(&mut frame, &layers, &inner, &to).is_err() {
                prop_assert_eq!(&frame, &before);
            }
        }
    }
}
