use super::*;
use crate::build::PacketBuilder;
use crate::{ChecksumTrust, Tuple};

fn piece(frame: &[u8]) -> Option<Piece> {
    Piece::of(frame, &Layers::parse(frame))
}

fn v4() -> PacketBuilder {
    PacketBuilder::new().ipv4([10, 0, 0, 1], [10, 0, 0, 2])
}

fn v6() -> PacketBuilder {
    PacketBuilder::new().ipv6([1u16, 2, 3, 4, 5, 6, 7, 8], [2u16, 0, 0, 0, 0, 0, 0, 9])
}

#[test]
fn a_whole_packet_is_no_piece() {
    assert_eq!(piece(&v4().udp(1, 2).payload(&[1; 40]).build()), None);
    assert_eq!(piece(&v6().udp(1, 2).payload(&[1; 40]).build()), None);
    // RFC 6946: an atomic fragment is whole.
    assert_eq!(piece(&v6().fragment(9, 0, false).udp(1, 2).build()), None);
    assert_eq!(piece(&[]), None);
}

#[test]
fn ipv4_pieces_leave_options_and_padding_out() {
    let frame =
        v4().ipv4_options(&[1; 8]).fragment(0xabcd, 1480, true).protocol(17).payload(&[7; 16]).build();
    let piece = piece(&frame).unwrap();
    assert_eq!((piece.id, piece.offset, piece.more, piece.protocol), (0xabcd, 1480, true, 17));
    assert_eq!(frame[piece.data.clone()], [7; 16]);
    let short = v4().fragment(1, 8, false).protocol(17).payload(&[7; 3]).pad_to(60).build();
    assert_eq!(short[Piece::of(&short, &Layers::parse(&short)).unwrap().data], [7; 3]);
}

#[test]
fn ipv6_pieces_are_found_behind_other_extension_headers_and_vlan_tags() {
    let builder = v6()
        .vlan(7)
        .extension(protocol::HOP_BY_HOP, &[1, 4, 0, 0, 0, 0])
        .extension(protocol::DESTINATION, &[1, 4, 0, 0, 0, 0]);
    let frame = builder.fragment(0x1234_5678, 64, false).protocol(17).payload(&[7; 5]).build();
    let piece = piece(&frame).unwrap();
    assert_eq!((piece.id, piece.offset, piece.more, piece.protocol), (0x1234_5678, 64, false, 17));
    assert_eq!((piece.header_len, &frame[piece.data.clone()]), (56, &[7; 5][..]));
}

/// Cuts the IP packet in `whole` (untagged Ethernet) after the headers into fragments of `size` bytes of data.
fn reassembled(first: &[u8], data: &[u8]) -> Vec<u8> {
    let layers = Layers::parse(first);
    let piece = Piece::of(first, &layers).unwrap();
    let mut frame = first[..usize::from(layers.l3)].to_vec();
    let mut header = [0; 200];
    assert!(piece.write_header(first, &layers, u16::try_from(data.len()).unwrap(), &mut header));
    assert!(!piece.write_header(first, &layers, 1, &mut [0; 19]), "no room");
    frame.extend_from_slice(&header[..usize::from(piece.header_len)]);
    frame.extend_from_slice(data);
    frame
}

#[test]
fn the_header_written_for_a_datagram_makes_a_packet_with_right_checksums() {
    let whole = v4().udp(1000, 2000).payload(&[5; 600]).build();
    let data = &whole[34..];
    let first = v4().ipv4_options(&[1; 4]).fragment(3, 0, true).protocol(17).payload(&data[..400]).build();
    let packet = reassembled(&first, data);
    let tuple = Tuple::extract(&packet, &Layers::parse(&packet), 0, ChecksumTrust::NONE).unwrap().lookup();
    assert_eq!(tuple.to_string(), "src=10.0.0.1,dst=10.0.0.2,sport=1000,dport=2000");

    let whole = v6().udp(1000, 2000).payload(&[5; 600]).build();
    let data = &whole[54..];
    let first = v6().extension(protocol::HOP_BY_HOP, &[1, 4, 0, 0, 0, 0]);
    let first = first.fragment(3, 0, true).protocol(17).payload(&data[..400]).build();
    let packet = reassembled(&first, data);
    let layers = Layers::parse(&packet);
    assert_eq!((layers.fragment, layers.protocol), (Fragment::No, 17));
    assert!(Tuple::extract(&packet, &layers, 0, ChecksumTrust::NONE).is_ok());
}

#[test]
fn cut_and_odd_fragment_headers_are_no_pieces_or_empty_ones() {
    let whole = v6()
        .extension(protocol::DESTINATION, &[1, 4, 0, 0, 0, 0])
        .fragment(1, 8, true)
        .protocol(17)
        .payload(&[1; 64])
        .build();
    for len in 0..whole.len() {
        for fill in [0, 0xff] {
            let mut frame = whole.clone();
            frame[len..].fill(fill);
            let layers = Layers::parse(&frame);
            if let Some(piece) = Piece::of(&frame, &layers) {
                assert!(
                    piece.data.end <= frame.len() && piece.data.start <= piece.data.end,
                    "{len} {piece:?}"
                );
            }
        }
    }
}
