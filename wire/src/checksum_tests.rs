use super::*;
use crate::build::PacketBuilder;
use proptest::prelude::*;

/// RFC 1071 section 4.1, word for word: the oracle.
fn plain(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for word in bytes.chunks(2) {
        sum += u32::from(word[0]) << 8 | word.get(1).map_or(0, |low| u32::from(*low));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[test]
fn the_example_of_rfc_1071_sums_up() {
    let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
    assert_eq!(u16::from_ne_bytes(fold(sum(&bytes)).to_ne_bytes()).to_be(), 0xddf2);
}

#[test]
fn the_crc32c_of_a_captured_sctp_packet_is_right() {
    // CRC32c of "123456789" is 0xe3069283 (RFC 3720 appendix B.4's polynomial); placed behind an empty header.
    assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
    let mut packet = PacketBuilder::new().ipv4([1; 4], [2; 4]).sctp(1, 2, 3).payload(&[1, 0, 0, 4]).build();
    let layers = Layers::parse(&packet);
    assert!(l4_is_valid(&packet, &layers));
    packet[40] ^= 1;
    assert!(!l4_is_valid(&packet, &layers));
}

#[test]
fn a_udp_checksum_of_zero_is_right_over_ipv4_only() {
    let v4 = PacketBuilder::new().ipv4([1; 4], [2; 4]).udp(1, 2).without_udp_checksum().build();
    assert!(l4_is_valid(&v4, &Layers::parse(&v4)));
    let v6 = PacketBuilder::new().ipv6([1; 16], [2; 16]).udp(1, 2).without_udp_checksum().build();
    assert!(!l4_is_valid(&v6, &Layers::parse(&v6)));
}

#[test]
fn a_udp_checksum_covers_what_the_ip_header_announces_even_if_udp_announces_less() {
    let mut frame = PacketBuilder::new().ipv4([1; 4], [2; 4]).udp(1, 2).payload(&[7; 9]).build();
    let layers = Layers::parse(&frame);
    frame[39] = 10;
    assert!(!l4_is_valid(&frame, &layers), "the length itself is covered");
    fill(&mut frame, &layers);
    assert!(l4_is_valid(&frame, &layers));
    frame[50] ^= 1;
    assert!(!l4_is_valid(&frame, &layers), "a byte behind the datagram is covered");
}

#[test]
fn a_computed_udp_checksum_is_never_zero() {
    // One of the 65536 payloads makes the sum 0.
    for word in 0..=u16::MAX {
        let mut frame =
            PacketBuilder::new().ipv4([1; 4], [2; 4]).udp(1, 2).payload(&word.to_be_bytes()).build();
        assert_ne!(frame[40..42], [0, 0]);
        let layers = Layers::parse(&frame);
        assert!(l4_is_valid(&frame, &layers));
        let before = frame.clone();
        fill(&mut frame, &layers);
        assert_eq!(frame, before);
    }
}

#[test]
fn a_update_of_a_udp_checksum_to_zero_is_written_as_ffff() {
    let mut delta = Delta::NONE;
    delta.change2([0x00, 0x00], [0x12, 0x34]);
    assert_eq!(delta.apply([0x12, 0x34]), [0, 0]);
    assert_eq!(delta.apply_udp([0x12, 0x34]), [0xff, 0xff]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn the_fast_sum_is_the_plain_sum(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(sum(&bytes) < 1 << 34);
        prop_assert_eq!(finish(sum(&bytes)), plain(&bytes).to_be_bytes());
    }

    #[test]
    fn an_incremental_update_is_a_recomputation(
        mut bytes in proptest::collection::vec(any::<u8>(), 40..80),
        at in 0usize..24, len in 1usize..=16, new in any::<[u8; 16]>(),
    ) {
        // Checksummed data of zeros alone has two representations; headers are never that.
        bytes[39] |= 1;
        let old_checksum = finish(sum(&bytes));
        let old: Vec<u8> = bytes[at..at + len].to_vec();
        let mut delta = Delta::NONE;
        delta.change_at(at % 2 == 1, &old, &new[..len]);
        bytes[at..at + len].copy_from_slice(&new[..len]);
        prop_assert_eq!(delta.apply(old_checksum), finish(sum(&bytes)));
    }

    #[test]
    fn fields_of_fixed_size_are_updated_like_recomputed(
        mut bytes in any::<[u8; 28]>(), two in any::<[u8; 2]>(), four in any::<[u8; 4]>(),
        six in any::<[u8; 6]>(), sixteen in any::<[u8; 16]>(),
    ) {
        let data = |bytes: &[u8]| finish(sum(bytes) + sum(&[0, 1]));
        let old = data(&bytes);
        let mut delta = Delta::NONE;
        delta.change2([bytes[0], bytes[1]], two);
        delta.change4(*bytes[2..].first_chunk().unwrap(), four);
        delta.change6(*bytes[6..].first_chunk().unwrap(), six);
        delta.change16(bytes[12..].first_chunk().unwrap(), &sixteen);
        bytes = [&two[..], &four, &six, &sixteen].concat().try_into().unwrap();
        prop_assert_eq!(delta.apply(old), data(&bytes));
    }

    #[test]
    fn filling_makes_valid_and_a_flipped_bit_makes_invalid(
        ipv6 in any::<bool>(), kind in 0u8..4, payload in proptest::collection::vec(any::<u8>(), 0..100),
        bit in any::<usize>(),
    ) {
        let builder = PacketBuilder::new();
        let builder = if ipv6 { builder.ipv6([1; 16], [2; 16]) } else { builder.ipv4([1; 4], [2; 4]) };
        let builder = match kind {
            0 => builder.tcp(1, 2),
            1 => builder.udp(1, 2),
            2 => builder.sctp(1, 2, 3),
            _ => builder.echo_request(1, 2),
        };
        let mut frame = builder.payload(&payload).build();
        let layers = Layers::parse(&frame);
        prop_assert!(l4_is_valid(&frame, &layers));
        prop_assert!(ipv6 || ipv4_header_is_valid(&frame, &layers));
        let l4 = layers.l4_bytes_mut(&mut frame);
        let at = bit % (l4.len() * 8);
        l4[at / 8] ^= 1 << (at % 8);
        // A flipped length bit changes what is covered, a flipped checksum may become 0.
        let udp_exempt = kind == 1 && matches!(at / 8, 4..8);
        prop_assert!(udp_exempt || !l4_is_valid(&frame, &layers));
    }
}

proptest! {
    #[test]
    fn an_sctp_checksum_follows_its_ports_without_the_packet_s_other_bytes(
        mut packet in prop::collection::vec(any::<u8>(), 12..2000), ports: [u8; 4],
    ) {
        let (before, old) = (sctp(&packet), packet[..4].try_into().unwrap());
        let len = u16::try_from(packet.len()).unwrap();
        packet[..4].copy_from_slice(&ports);
        prop_assert_eq!(sctp_change(before, old, ports, len), sctp(&packet));
        // One that was wrong stays wrong by as much.
        let wrong = before.map(|byte| byte ^ 0x5a);
        prop_assert_eq!(sctp_change(wrong, old, ports, len), sctp(&packet).map(|byte| byte ^ 0x5a));
    }
}
