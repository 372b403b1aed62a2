use super::*;
use crate::build::PacketBuilder;
use crate::header::tcp::flag;
use proptest::prelude::*;

const A: [u8; 4] = [10, 1, 1, 1];
const B: [u8; 4] = [10, 1, 1, 2];
const A6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const B6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];

fn v4() -> PacketBuilder {
    PacketBuilder::new().ipv4(A, B)
}

fn v6() -> PacketBuilder {
    PacketBuilder::new().ipv6(A6, B6)
}

fn extract(frame: &[u8]) -> Result<Extracted, Invalid> {
    let layers = Layers::parse(frame);
    let extracted = Tuple::extract(frame, &layers, 5, ChecksumTrust::NONE);
    // What is read in one pass is what is read step by step.
    let plain = Tuple4::read_plain(frame, 5, ChecksumTrust::NONE);
    let is_plain = layers == Layers::plain(layers.protocol, layers.l3_end)
        && matches!(layers.protocol, protocol::TCP | protocol::UDP);
    let expected = match extracted {
        Ok(Extracted::Packet(Tuple::V4(tuple))) if is_plain => Some((tuple, layers.l3_end)),
        _ => None,
    };
    assert_eq!(plain, expected);
    extracted
}

fn tuple(frame: &[u8]) -> Tuple {
    match extract(frame) {
        Ok(Extracted::Packet(tuple)) => tuple,
        other => panic!("not a packet: {other:?}"),
    }
}

fn cause(frame: &[u8]) -> Invalid {
    extract(frame).unwrap_err()
}

/// Changes a byte and mends the checksums.
fn with(builder: &PacketBuilder, l4_at: usize, value: u8) -> Vec<u8> {
    let mut frame = builder.build();
    let layers = Layers::parse(&frame);
    frame[usize::from(layers.l4) + l4_at] = value;
    checksum::fill(&mut frame, &layers);
    frame
}

#[test]
fn tuples_print_as_the_connection_dump_shows_them() {
    assert_eq!(
        tuple(&v4().tcp(40000, 80).build()).to_string(),
        "src=10.1.1.1,dst=10.1.1.2,sport=40000,dport=80"
    );
    let ping = tuple(&v4().echo_request(7, 1).build());
    assert_eq!(ping.to_string(), "src=10.1.1.1,dst=10.1.1.2,id=7,type=8,code=0");
    assert_eq!(ping.reversed().to_string(), "src=10.1.1.2,dst=10.1.1.1,id=7,type=0,code=0");
    let ping = tuple(&v6().echo_request(7, 1).build());
    assert_eq!(ping.reversed().to_string(), "src=fd00::2,dst=fd00::1,id=7,type=129,code=0");
    let gre = tuple(&v4().protocol(47).payload(&[0; 4]).build());
    assert_eq!(gre.to_string(), "src=10.1.1.1,dst=10.1.1.2,sport=0,dport=0");
    assert_eq!(gre.zone(), 5);
}

#[test]
fn every_way_to_be_invalid_has_its_cause() {
    let fill = |mut frame: Vec<u8>| {
        let layers = Layers::parse(&frame);
        checksum::fill(&mut frame, &layers);
        frame
    };
    let broken = |builder: PacketBuilder, from_end: usize| {
        let mut frame = builder.payload(&[0; 4]).build();
        let at = frame.len() - from_end;
        frame[at] ^= 0x10;
        frame
    };
    assert_eq!(
        cause(&PacketBuilder::new().arp(1, (A6[..6].try_into().unwrap(), A), ([0; 6], B)).build()),
        Invalid::NotIp
    );
    assert_eq!(cause(&[]), Invalid::NotIp);
    assert_eq!(cause(&v4().tcp(1, 2).build()[..40]), Invalid::IpHeader);
    let mut frame = v4().tcp(1, 2).build();
    frame[22] ^= 1;
    assert_eq!(cause(&frame), Invalid::Ipv4Checksum);
    let mut frame = v6().extension(60, &[0; 6]).build();
    frame[55] = 9;
    assert_eq!(cause(&frame), Invalid::ExtensionHeaders);
    assert_eq!(cause(&v4().fragment(1, 0, true).udp(1, 2).build()), Invalid::FirstFragment);
    assert_eq!(cause(&v6().fragment(1, 64, true).protocol(17).build()), Invalid::LaterFragment);
    for number in [protocol::TCP, protocol::UDP, protocol::SCTP, protocol::ICMP] {
        assert_eq!(cause(&v4().protocol(number).payload(&[1; 7]).build()), Invalid::L4Header);
    }
    for offset in [0x40, 0x60] {
        assert_eq!(cause(&with(&v4().tcp(1, 2), 12, offset)), Invalid::TcpDataOffset);
    }
    for (flags, wanted) in [
        (flag::SYN | flag::FIN, Invalid::TcpSynFinRst),
        (flag::SYN | flag::RST | flag::ACK, Invalid::TcpSynFinRst),
        (0, Invalid::TcpNoFlags),
        (flag::FIN, Invalid::TcpNoFlags),
        (flag::SYN | flag::PSH, Invalid::TcpNoAck),
        (flag::RST | flag::URG, Invalid::TcpNoAck),
        (flag::RST | flag::FIN, Invalid::TcpNoAck),
    ] {
        assert_eq!(cause(&v4().tcp(1, 2).flags(flags).build()), wanted, "flags {flags:#x}");
    }
    assert_eq!(cause(&broken(v4().tcp(1, 2), 1)), Invalid::TcpChecksum);
    for len in [7, 13] {
        assert_eq!(cause(&with(&v4().udp(1, 2).payload(&[0; 4]), 5, len)), Invalid::UdpLength);
    }
    assert_eq!(cause(&broken(v6().udp(1, 2), 1)), Invalid::UdpChecksum);
    assert_eq!(cause(&v6().udp(1, 2).without_udp_checksum().build()), Invalid::UdpNoChecksum);
    assert_eq!(cause(&broken(v4().sctp(1, 2, 3), 1)), Invalid::SctpChecksum);
    for frame in [v4().tcp(0, 2).build(), v4().udp(1, 0).build(), v6().sctp(0, 2, 3).build()] {
        assert_eq!(cause(&frame), Invalid::PortZero);
    }
    assert_eq!(cause(&broken(v4().echo_request(1, 2), 1)), Invalid::IcmpChecksum);
    assert_eq!(cause(&broken(v6().echo_request(1, 2), 1)), Invalid::IcmpChecksum);
    for kind in [1, 2, 6, 7, 9, 10, 17, 18, 255] {
        assert_eq!(cause(&v4().icmp(kind, 0, 0).build()), Invalid::IcmpType);
    }
    assert_eq!(cause(&v6().neighbour_solicitation(B6, [2; 6]).build()), Invalid::IcmpType);
    assert_eq!(cause(&v4().icmp(8, 1, 0).build()), Invalid::IcmpCode);
    assert_eq!(cause(&v4().icmp(3, 1, 0).payload(&[0; 40]).build()), Invalid::IcmpQuote);
    let quoted = PacketBuilder::new().ipv4(A, B).udp(1, 2).build();
    assert_eq!(cause(&v4().icmp_error(3, 1, 0, &quoted, 28).build()), Invalid::IcmpQuoteSource);
    assert_eq!(
        cause(&fill(PacketBuilder::new().ipv4(B, A).icmp_error(3, 1, 0, &quoted, 27).build())),
        Invalid::IcmpQuote
    );
}

#[test]
fn causes_have_indices_names_and_messages_of_their_own() {
    for (index, cause) in Invalid::ALL.iter().enumerate() {
        assert_eq!(cause.index(), index);
        assert_eq!(Invalid::ALL.iter().filter(|other| other.name() == cause.name()).count(), 1);
        assert!(!cause.to_string().is_empty());
    }
}

#[test]
fn udp_without_checksum_and_trailing_bytes_are_fine_over_ipv4() {
    assert_eq!(tuple(&v4().udp(1, 2).without_udp_checksum().build()).dst_port(), 2);
    // The datagram may end before the packet.
    assert_eq!(tuple(&with(&v4().udp(1, 2).payload(&[7; 9]), 5, 10)).dst_port(), 2);
    assert_eq!(tuple(&v4().udp(1, 2).pad_to(60).build()).dst_port(), 2);
}

#[test]
fn what_is_beyond_the_longest_frame_is_no_part_of_a_packet() {
    for (total, is_whole) in [(65_521u16, true), (65_522, false), (65_535, false)] {
        let mut frame = v4().udp(1, 2).without_udp_checksum().build();
        frame.resize(70_000, 0);
        frame[16..18].copy_from_slice(&total.to_be_bytes());
        frame[24..26].fill(0);
        let sum = checksum::finish(checksum::sum(&frame[14..34]));
        frame[24..26].copy_from_slice(&sum);
        assert_eq!(extract(&frame).is_ok(), is_whole, "{total}");
    }
}

#[test]
fn trusted_checksums_are_not_looked_at() {
    let mut frame = v4().tcp(1, 2).build();
    frame[24] ^= 1;
    frame[50] ^= 1;
    let layers = Layers::parse(&frame);
    assert!(Tuple::extract(&frame, &layers, 0, ChecksumTrust::ALL).is_ok());
    let ip_only = ChecksumTrust { ip: true, l4: false };
    assert_eq!(Tuple::extract(&frame, &layers, 0, ip_only), Err(Invalid::TcpChecksum));
}

#[test]
fn an_icmp_error_gives_the_tuple_of_the_packet_it_quotes() {
    for (sent, error) in [
        (v4().tcp(40000, 80).payload(&[1; 100]), PacketBuilder::new().ipv4([9; 4], A)),
        (v4().udp(40000, 80).ipv4_options(&[1; 12]), PacketBuilder::new().ipv4([9; 4], A)),
        (v4().echo_request(7, 1), PacketBuilder::new().ipv4([9; 4], A)),
        (v4().protocol(47).payload(&[0; 8]), PacketBuilder::new().ipv4([9; 4], A)),
        (v6().sctp(40000, 80, 1), PacketBuilder::new().ipv6([9; 16], A6)),
        (v6().extension(60, &[0; 6]).udp(40000, 80), PacketBuilder::new().ipv6([9; 16], A6)),
    ] {
        let sent = sent.build();
        let l4 = usize::from(Layers::parse(&sent).l4);
        let kind = if sent[12] == 0x08 { 11 } else { 3 };
        for quoted_len in [l4 - 14 + 8, sent.len()] {
            let frame = error.clone().icmp_error(kind, 0, 0, &sent, quoted_len).build();
            let Ok(Extracted::IcmpError { inner, inner_layers }) = extract(&frame) else {
                panic!("{:?}", extract(&frame));
            };
            assert_eq!(inner, tuple(&sent));
            assert_eq!(extract(&frame).unwrap().lookup(), tuple(&sent).reversed());
            let outer = Layers::parse(&frame);
            assert_eq!(inner_layers.l3, outer.l4 + 8);
            assert_eq!(inner_layers.l3_end, outer.l3_end);
        }
    }
}

#[test]
fn an_error_about_an_error_is_invalid() {
    let sent = v4().icmp(3, 0, 0).payload(&[0; 28]).build();
    let frame = PacketBuilder::new().ipv4([9; 4], A).icmp_error(11, 0, 0, &sent, 60).build();
    assert_eq!(cause(&frame), Invalid::IcmpQuote);
}

fn any_packet() -> impl Strategy<Value = Vec<u8>> {
    let ports = (1u16.., 1u16..);
    (any::<bool>(), 0u8..8, ports, proptest::collection::vec(any::<u8>(), 0..64), any::<u16>()).prop_map(
        |(ipv6, kind, (src, dst), payload, id)| {
            let quoted = if ipv6 { v6() } else { v4() }.tcp(src, dst).payload(&payload).build();
            let builder = if ipv6 { v6() } else { v4() };
            match kind {
                0 => builder.tcp(src, dst).tcp_options(&payload).payload(&payload),
                1 => builder.udp(src, dst).payload(&payload),
                2 => builder.sctp(src, dst, 1).payload(&payload),
                3 => builder.echo_request(id, 1).payload(&payload),
                4 => builder.extension(60, &payload).ipv4_options(&payload).udp(src, dst),
                5 if ipv6 => PacketBuilder::new().ipv6(B6, A6).icmp_error(1, 0, 0, &quoted, 1000),
                5 => PacketBuilder::new().ipv4(B, A).icmp_error(3, 0, 0, &quoted, 1000),
                6 => builder.vlan(id).tcp(src, dst).payload(&payload),
                _ => builder.protocol(50).payload(&payload),
            }
            .build()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn built_packets_are_valid(frame in any_packet()) {
        prop_assert!(extract(&frame).is_ok());
    }

    #[test]
    fn mutated_and_cut_packets_are_judged_without_panic(
        mut frame in any_packet(), cut in 0usize..200, trust in any::<(bool, bool)>(),
        changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..6),
    ) {
        for (at, value) in changes {
            let at = at % frame.len();
            frame[at] = value;
        }
        frame.truncate(frame.len() - cut.min(frame.len()) / 2);
        let _ = extract(&frame);
        let layers = Layers::parse(&frame);
        let trust = ChecksumTrust { ip: trust.0, l4: trust.1 };
        if let Ok(Extracted::IcmpError { inner_layers, .. }) = Tuple::extract(&frame, &layers, 0, trust) {
            prop_assert!(inner_layers.l4 + 8 <= inner_layers.l3_end);
            prop_assert!(inner_layers.l3_end <= layers.l3_end);
        }
        // A parse of another frame must do no harm either.
        frame.truncate(frame.len() / 2);
        let _ = Tuple::extract(&frame, &layers, 0, trust);
        checksum::fill(&mut frame, &layers);
    }
}
