//! What becomes +inv: each item of the reference page, over IPv4 and over IPv6, through a whole shard. (Fragments that
//! cannot be reassembled and broken FTP control are tested where they are worked on; TCP windows in `tcp`.)

use weir_wire::build::PacketBuilder;
use weir_wire::checksum;
use weir_wire::header::tcp::flag as bit;

use super::*;

const V4: [[u8; 4]; 2] = [[10, 1, 1, 1], [10, 1, 1, 2]];
const A6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const B6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];

/// A packet from the first host to the second, or back, of either family.
fn families(back: bool) -> [PacketBuilder; 2] {
    let ([a, b], [c, d]) = if back { ([V4[1], V4[0]], [B6, A6]) } else { ([V4[0], V4[1]], [A6, B6]) };
    [PacketBuilder::new().ipv4(a, b), PacketBuilder::new().ipv6(c, d)]
}

fn frame(bytes: Vec<u8>) -> Frame {
    Frame { layers: Layers::parse(&bytes), bytes }
}

/// Changes bytes of L4 and mends the checksums.
fn with(builder: &PacketBuilder, changes: &[(usize, u8)]) -> Vec<u8> {
    let mut bytes = builder.build();
    let layers = Layers::parse(&bytes);
    for (at, value) in changes {
        bytes[usize::from(layers.l4) + at] = *value;
    }
    checksum::fill(&mut bytes, &layers);
    bytes
}

/// The packet is invalid whether it is looked at or committed, counted by this name, starts nothing, and a flow that
/// would translate it drops it.
#[track_caller]
fn invalid_to(lab: &mut Lab, bytes: &[u8], counter: &str) {
    let frame = frame(bytes.to_vec());
    let count = |lab: &Lab| lab.shard.counters().iter().find(|(name, ..)| *name == counter).unwrap().1;
    let (before, connections) = (count(lab), lab.shard.len());
    assert_eq!(lab.state(&frame, &look()), "inv trk");
    assert_eq!(lab.state(&frame, &apply()), "inv trk");
    assert_eq!(lab.state(&frame, &commit()), "inv trk");
    let mut meta = CtMeta::default();
    let outcome = lab.again(&mut frame.clone(), &source_nat(PUBLIC, None), &mut meta);
    assert_eq!(outcome, Outcome::Drop(DropReason::NatInvalid));
    assert_eq!(count(lab), before + 4);
    assert_eq!(lab.shard.len(), connections);
}

#[track_caller]
fn invalid(bytes: &[u8], counter: &str) {
    invalid_to(&mut Lab::new(), bytes, counter);
}

#[test]
fn short_headers() {
    for builder in families(false) {
        for (number, len) in [(6, 19), (17, 7), (132, 11)] {
            invalid(&builder.clone().protocol(number).payload(&vec![1; len]).build(), "l4_header");
        }
    }
    let [v4, v6] = families(false);
    invalid(&v4.clone().protocol(1).payload(&[8, 0, 0, 0, 1, 2, 3]).build(), "l4_header");
    invalid(&v6.clone().protocol(58).payload(&[128, 0, 0, 0, 1, 2, 3]).build(), "l4_header");
    // The frame ends before the packet does, or in its header.
    for bytes in [v4.udp(1, 2).build(), v6.udp(1, 2).build()] {
        invalid(&bytes[..bytes.len() - 1], "ip_header");
        invalid(&bytes[..20], "ip_header");
    }
}

#[test]
fn a_bad_header_length_or_version() {
    for (at, value, v6) in
        [(14, 0x44, false), (14, 0x55, false), (14, 0x45, true), (16, 0xff, false), (18, 0xff, true)]
    {
        let [four, six] = families(false);
        let mut bytes = if v6 { six.udp(1, 2).build() } else { four.udp(1, 2).build() };
        bytes[at] = value;
        invalid(&bytes, "ip_header");
    }
}

#[test]
fn a_bad_ipv4_checksum() {
    let [v4, _] = families(false);
    let mut bytes = v4.udp(1, 2).build();
    bytes[24] ^= 1;
    invalid(&bytes, "ipv4_checksum");
}

#[test]
fn a_bad_l4_checksum() {
    for builder in families(false) {
        let chunk = [0, 3, 0, 17, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0];
        for (builder, counter) in [
            (builder.clone().tcp(1, 2).payload(b"data"), "tcp_checksum"),
            (builder.clone().udp(1, 2).payload(b"data"), "udp_checksum"),
            (builder.clone().sctp(1, 2, 3).payload(&chunk), "sctp_checksum"),
            (builder.clone().echo_request(1, 2).payload(b"data"), "icmp_checksum"),
        ] {
            let mut bytes = builder.build();
            assert_eq!(Lab::new().state(&frame(bytes.clone()), &look()), "new trk", "{counter}");
            *bytes.last_mut().unwrap() ^= 0x20;
            invalid(&bytes, counter);
        }
    }
}

#[test]
fn no_udp_checksum_is_fine_over_ipv4_alone() {
    let [v4, v6] = families(false);
    assert_eq!(Lab::new().state(&frame(v4.udp(1, 2).without_udp_checksum().build()), &commit()), "new trk");
    invalid(&v6.udp(1, 2).without_udp_checksum().build(), "udp_no_checksum");
}

#[test]
fn a_bad_tcp_data_offset() {
    for builder in families(false) {
        for offset in [0x00, 0x40, 0x60, 0xf0] {
            invalid(&with(&builder.clone().tcp(1, 2), &[(12, offset)]), "tcp_data_offset");
        }
    }
}

#[test]
fn a_bad_udp_length() {
    for builder in families(false) {
        for len in [0, 7, 13, 255] {
            invalid(&with(&builder.clone().udp(1, 2).payload(&[0; 4]), &[(5, len)]), "udp_length");
        }
    }
}

#[test]
fn port_zero() {
    for builder in families(false) {
        for (src, dst) in [(0, 2), (1, 0), (0, 0)] {
            invalid(&builder.clone().tcp(src, dst).build(), "port_zero");
            invalid(&builder.clone().udp(src, dst).build(), "port_zero");
            invalid(&builder.clone().sctp(src, dst, 3).build(), "port_zero");
        }
    }
}

#[test]
fn tcp_flags_that_no_stack_sends() {
    for builder in families(false) {
        let flags = |flags| builder.clone().tcp(1, 2).flags(flags).build();
        for both in [bit::SYN | bit::FIN, bit::SYN | bit::RST, bit::SYN | bit::FIN | bit::ACK] {
            invalid(&flags(both), "tcp_syn_fin_rst");
        }
        for none in [0, bit::FIN, bit::PSH, bit::URG] {
            invalid(&flags(none), "tcp_no_flags");
        }
        for without_ack in
            [bit::SYN | bit::PSH, bit::SYN | bit::URG, bit::RST | bit::FIN, bit::RST | bit::PSH]
        {
            invalid(&flags(without_ack), "tcp_no_ack");
        }
    }
}

#[test]
fn a_syn_ack_that_belongs_to_no_connection() {
    for builder in families(false) {
        invalid(&builder.tcp(1, 2).flags(bit::SYN | bit::ACK).build(), "tcp_bad_start");
    }
}

#[test]
fn a_tcp_segment_outside_its_window() {
    for (there, back) in families(false).into_iter().zip(families(true)) {
        let mut lab = Lab::new();
        let segment = |builder: &PacketBuilder, ports: (u16, u16), flags, seq, ack| {
            frame(builder.clone().tcp(ports.0, ports.1).flags(flags).seq(seq).ack(ack).build())
        };
        let out = |flags, seq, ack| segment(&there, (4000, 80), flags, seq, ack);
        lab.send(&out(bit::SYN, 100, 0), &commit());
        lab.send(&segment(&back, (80, 4000), bit::SYN | bit::ACK, 500, 101), &look());
        lab.send(&out(bit::ACK, 101, 501), &look());
        assert_eq!(lab.state(&out(bit::RST, 0x7000_0000, 0), &look()), "inv trk");
        assert_eq!(lab.state(&out(bit::ACK, 101, 0x7000_0000), &look()), "inv trk");
        assert_eq!(lab.shard.counters().tcp_out_of_window, 2);
        for (seq, state) in
            [(109, "inv trk"), (110, "est trk"), (111, "est trk"), (112, "est trk"), (113, "inv trk")]
        {
            let mut lab = Lab::new();
            lab.send(&out(bit::SYN, 100, 0), &commit());
            lab.send(&segment(&back, (80, 4000), bit::SYN | bit::ACK, 500, 101), &look());
            let data =
                there.clone().tcp(4000, 80).flags(bit::ACK).seq(101).ack(501).payload(&[7; 10]).build();
            lab.send(&frame(data), &look());
            assert_eq!(lab.state(&out(bit::RST, seq, 0), &look()), state, "a reset at {seq}, expected 111");
        }
        lab.shard.set_liberal_tcp(true);
        assert_eq!(lab.state(&out(bit::ACK, 101, 0x7000_0000), &look()), "est trk");
    }
}

#[test]
fn a_code_in_a_query() {
    let [v4, v6] = families(false);
    for kind in [8, 0, 13, 14, 15, 16] {
        invalid(&v4.clone().icmp(kind, 1, 7 << 16).build(), "icmp_code");
    }
    for kind in [128, 129] {
        invalid(&v6.clone().icmp(kind, 1, 7 << 16).build(), "icmp_code");
    }
}

#[test]
fn an_icmp_reply_as_first_packet() {
    let [v4, v6] = families(false);
    for kind in [0, 14, 16] {
        invalid(&v4.clone().icmp(kind, 0, 7 << 16).build(), "icmp_bad_start");
    }
    invalid(&v6.icmp(129, 0, 7 << 16).build(), "icmp_bad_start");
}

#[test]
fn unsupported_icmp_types() {
    let [v4, v6] = families(false);
    for kind in (0..=255).filter(|kind| ![0, 3, 4, 5, 8, 11, 12, 13, 14, 15, 16].contains(kind)) {
        invalid(&v4.clone().icmp(kind, 0, 0).payload(&[0; 40]).build(), "icmp_type");
    }
    for kind in (0..=255).filter(|kind| ![1, 2, 3, 4, 128, 129].contains(kind)) {
        invalid(&v6.clone().icmp(kind, 0, 0).payload(&[0; 60]).build(), "icmp_type");
    }
}

/// The IP header's length in the packets of these tests.
const HEADER: [usize; 2] = [20, 40];
/// Types of errors.
const ERRORS: [&[u8]; 2] = [&[3, 4, 5, 11, 12], &[1, 2, 3, 4]];

#[test]
fn every_type_of_error_is_related_whatever_its_code_if_it_quotes_eight_bytes_of_l4() {
    for family in 0..2 {
        let mut lab = Lab::new();
        let query = families(false)[family].clone().udp(1000, 53).payload(b"query").build();
        lab.send(&frame(query.clone()), &commit());
        for kind in ERRORS[family] {
            for code in [0, 1, 13] {
                let error = |quoted| {
                    families(true)[family].clone().icmp_error(*kind, code, 1400, &query, quoted).build()
                };
                let header = HEADER[family];
                assert_eq!(lab.state(&frame(error(header + 8)), &look()), "rel rpl trk");
                assert_eq!(lab.state(&frame(error(header + 13)), &look()), "rel rpl trk");
                invalid_to(&mut lab, &error(header + 7), "icmp_quote");
                invalid_to(&mut lab, &error(header - 1), "icmp_quote");
                invalid_to(&mut lab, &error(0), "icmp_quote");
            }
        }
    }
}

#[test]
fn an_error_whose_packet_belongs_to_no_connection() {
    for (family, kinds) in ERRORS.into_iter().enumerate() {
        let [query, back] = [&families(false)[family], &families(true)[family]];
        for inner in [query.clone().udp(1000, 53), query.clone().tcp(1, 2), query.clone().echo_request(1, 1)]
        {
            let error = back.clone().icmp_error(kinds[0], 0, 0, &inner.build(), 64).build();
            invalid(&error, "icmp_unknown");
        }
    }
}

#[test]
fn an_error_that_was_not_sent_to_the_source_of_what_it_quotes() {
    for (family, kinds) in ERRORS.into_iter().enumerate() {
        let mut lab = Lab::new();
        let query = families(false)[family].clone().udp(1000, 53).build();
        lab.send(&frame(query.clone()), &commit());
        // To the destination of the quoted packet.
        let error = families(false)[family].clone().icmp_error(kinds[0], 0, 0, &query, 64).build();
        invalid_to(&mut lab, &error, "icmp_quote_source");
    }
}

#[test]
fn an_error_about_an_error_or_about_what_is_no_tuple() {
    for (family, kinds) in ERRORS.into_iter().enumerate() {
        let there = &families(false)[family];
        let query = there.clone().udp(1000, 53).build();
        let error = there.clone().icmp_error(kinds[0], 0, 0, &query, 64).build();
        for quoted in [error, there.clone().udp(0, 53).build()] {
            let about = families(true)[family].clone().icmp_error(kinds[0], 0, 0, &quoted, 100).build();
            invalid(&about, "icmp_quote");
        }
    }
}

#[test]
fn extension_headers_are_walked_in_packets_and_in_what_errors_quote() {
    let chains: [&[u8]; 5] = [&[0], &[43], &[60], &[0, 60, 43, 60], &[60; 12]];
    for chain in chains {
        let dressed = |builder: PacketBuilder| {
            chain.iter().fold(builder, |builder, number| builder.extension(*number, &[0; 6]))
        };
        let mut lab = Lab::new();
        let query = dressed(families(false)[1].clone()).udp(1000, 53).build();
        assert_eq!(lab.state(&frame(query.clone()), &commit()), "new trk", "{chain:?}");
        let answer = dressed(families(true)[1].clone()).udp(53, 1000).build();
        assert_eq!(lab.state(&frame(answer), &look()), "est rpl trk");
        let error = families(true)[1].clone().icmp_error(1, 0, 0, &query, 200).build();
        assert_eq!(lab.state(&frame(error), &look()), "rel rpl trk");
    }
    let authenticated = families(false)[1].clone().authentication().udp(1000, 53).build();
    assert_eq!(Lab::new().state(&frame(authenticated), &commit()), "new trk");
    // Cut, or without an end.
    let mut cut = families(false)[1].clone().extension(60, &[0; 6]).udp(1000, 53).build();
    cut[55] = 40;
    invalid(&cut, "extension_headers");
    let endless = (0..13).fold(families(false)[1].clone(), |builder, _| builder.extension(60, &[0; 6]));
    invalid(&endless.udp(1000, 53).build(), "extension_headers");
}

#[test]
fn an_invalid_packet_of_a_known_connection_is_translated_or_was_never_to_be() {
    let mut lab = Lab::new();
    lab.send(&Frame::tcp(&stream(4000), "S", 100, 0), &source_nat(PUBLIC, None));
    lab.send(&Frame::tcp(&tuple(6, OUTSIDE, 80, PUBLIC, 4000), "SA", 500, 101), &apply());
    let (out, meta) = lab.send(&Frame::tcp(&stream(4000), "R", 0x7000_0000, 0), &source_nat(PUBLIC, None));
    assert_eq!((name(meta.state).as_str(), out.tuple().src()), ("inv trk snat", PUBLIC.parse().unwrap()));
    lab.send(&Frame::tcp(&stream(4001), "S", 100, 0), &commit());
    lab.send(&Frame::tcp(&stream(4001).reversed(), "SA", 500, 101), &look());
    let (out, meta) = lab.send(&Frame::tcp(&stream(4001), "R", 0x7000_0000, 0), &source_nat(PUBLIC, None));
    assert_eq!((name(meta.state).as_str(), out.tuple()), ("inv trk", stream(4001)));
}

#[test]
fn an_sctp_association_is_followed_through_a_translation_and_strangers_are_invalid() {
    for v6 in [false, true] {
        let mut lab = Lab::new();
        let (a, b, public) =
            if v6 { ("2001:db8::1", "2001:db8::2", "2001:db8:f::1") } else { (INSIDE, OUTSIDE, PUBLIC) };
        let [a, b, public] = [a, b, public].map(|text| text.parse::<core::net::IpAddr>().unwrap());
        let nat = NatAction::Source(NatRange {
            addresses: Some(match public {
                core::net::IpAddr::V4(v4) => AddressRange::V4(v4, v4),
                core::net::IpAddr::V6(v6) => AddressRange::V6(v6, v6),
            }),
            ports: Some((7000, 7000)),
            selection: PortSelection::Default,
            persistent: false,
        });
        let translating = CtAction { commit: true, nat: Some(nat), ..CtAction::default() };
        let packet = |src, dst, ports: (u16, u16), tag, kind: u8, offer: u32| {
            let mut chunk = vec![kind, 0, 0, 20];
            chunk.extend(offer.to_be_bytes());
            chunk.extend([0; 12]);
            frame(PacketBuilder::new().ip(src, dst).sctp(ports.0, ports.1, tag).payload(&chunk).build())
        };
        let there = |tag, kind, offer| packet(a, b, (5000, 3868), tag, kind, offer);
        let back = |tag, kind, offer| packet(b, public, (3868, 7000), tag, kind, offer);
        let (out, meta) = lab.send(&there(0, 1, 0xa), &translating);
        assert_eq!(name(meta.state), "new trk snat");
        // The checksum is right, else it would have no tuple.
        assert_eq!((out.tuple().src(), out.tuple().src_port()), (public, 7000));
        assert_eq!(lab.state(&back(0xbad, 2, 0xb), &apply()), "inv trk dnat", "translated all the same");
        assert_eq!(lab.state(&back(0xa, 2, 0xb), &apply()), "est rpl trk dnat");
        assert_eq!(lab.state(&there(0xb, 10, 0), &apply()), "est trk snat");
        assert_eq!(lab.state(&back(0xa, 11, 0), &apply()), "est rpl trk dnat");
        let dump = lab.dump();
        assert!(dump[0].ends_with(",protoinfo=(state=ESTABLISHED,vtag_orig=11,vtag_reply=10)"), "{dump:?}");
        assert_eq!(lab.state(&there(0xdead, 6, 0), &apply()), "inv trk snat");
        assert_eq!(lab.state(&there(0xb, 6, 0), &apply()), "est trk snat");
        assert_eq!(lab.shard.counters().sctp_out_of_state, 2);
        assert!(lab.dump()[0].contains("state=CLOSED"));
        lab.now += 10_100;
        assert!(lab.dump().is_empty());
        lab.sweep();
        // Nothing but INIT, or a path to be picked up, starts one.
        invalid_to(&mut lab, &there(0xb, 10, 0).bytes, "sctp_bad_start");
    }
}
