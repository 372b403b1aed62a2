//! Fragments: held at a ct, put together for the tracker, and sent on as they came, translated.

use std::ops::Range;

use weir_shard::FragmentSettings;
use weir_shard::fragments::{Family, LIFETIME};
use weir_wire::fragment::Piece;
use weir_wire::numbers::protocol;

use super::*;

/// Cuts a frame's packet into fragments at these offsets of its data, as a host or router would.
fn cut(whole: &[u8], id: u32, at: &[usize]) -> Vec<Vec<u8>> {
    let layers = Layers::parse(whole);
    let (l3, l4, end) = (usize::from(layers.l3), usize::from(layers.l4), usize::from(layers.l3_end));
    let data = &whole[l4..end];
    let mut cuts = vec![0];
    cuts.extend_from_slice(at);
    cuts.push(data.len());
    cuts.windows(2).map(|window| fragment(whole, l3..l4, data, id, window[0]..window[1])).collect()
}

/// The fragment with these bytes of `data`, behind the headers of `whole`.
fn fragment(whole: &[u8], headers: Range<usize>, data: &[u8], id: u32, part: Range<usize>) -> Vec<u8> {
    let more = part.end < data.len();
    let mut frame = whole[..headers.start].to_vec();
    let mut header = whole[headers.clone()].to_vec();
    if header[0] >> 4 == 4 {
        let total = u16::try_from(header.len() + part.len()).unwrap();
        header[2..4].copy_from_slice(&total.to_be_bytes());
        header[4..6].copy_from_slice(&u16::try_from(id).unwrap().to_be_bytes());
        let field = u16::try_from(part.start / 8).unwrap() | u16::from(more) << 13;
        header[6..8].copy_from_slice(&field.to_be_bytes());
    } else {
        let total = u16::try_from(header.len() - 40 + 8 + part.len()).unwrap();
        header[4..6].copy_from_slice(&total.to_be_bytes());
        // All extension headers go in front of the fragment header; the last one's next header is at their beginning.
        let mut next = 6;
        let mut at = 40;
        while at < header.len() {
            next = at;
            at += (usize::from(header[at + 1]) + 1) * 8;
        }
        let field = u16::try_from(part.start).unwrap() | u16::from(more);
        let behind = std::mem::replace(&mut header[next], protocol::FRAGMENT);
        header.extend([behind, 0]);
        header.extend(field.to_be_bytes());
        header.extend(id.to_be_bytes());
    }
    frame.extend(header);
    frame.extend(&data[part]);
    let layers = Layers::parse(&frame);
    weir_wire::checksum::fill(&mut frame, &layers);
    frame
}

/// What a host makes of these fragments: the packet, in which every checksum can be verified.
fn join(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut pieces: Vec<_> = frames
        .iter()
        .map(|frame| (Piece::of(frame, &Layers::parse(frame)).expect("a fragment"), frame))
        .collect();
    pieces.sort_by_key(|(piece, _)| piece.offset);
    let mut data = Vec::new();
    for (piece, frame) in &pieces {
        let layers = Layers::parse(frame);
        assert_eq!(usize::from(piece.offset), data.len());
        assert!(layers.is_ipv6() || weir_wire::checksum::ipv4_header_is_valid(frame, &layers));
        data.extend_from_slice(&frame[piece.data.clone()]);
    }
    let (first, frame) = &pieces[0];
    let layers = Layers::parse(frame);
    let mut header = [0; 256];
    assert!(first.write_header(frame, &layers, u16::try_from(data.len()).unwrap(), &mut header));
    let mut whole = frame[..usize::from(layers.l3)].to_vec();
    whole.extend_from_slice(&header[..usize::from(first.header_len)]);
    whole.extend(data);
    whole
}

fn payload(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from(at * 7 % 251).unwrap()).collect()
}

fn long_udp(length: usize) -> Vec<u8> {
    PacketBuilder::new().ipv4(A, X).udp(4000, 53).payload(&payload(length)).build()
}

fn frames(sent: Sent) -> Vec<Vec<u8>> {
    sent.into_iter().map(|(_, frame)| frame).collect()
}

impl Bench {
    /// What comes out for fragments that come one by one.
    fn pass(&mut self, port: PortNumber, frames: &[Vec<u8>]) -> Sent {
        frames.iter().flat_map(|frame| self.send(port, frame)).collect()
    }
}

#[test]
fn fragments_leave_translated_alike_with_checksums_that_are_right_when_put_together() {
    let whole = long_udp(5000);
    for order in [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]] {
        let mut bench = Bench::new(NAT);
        let parts = cut(&whole, 7, &[1480, 2960, 4440]);
        let parts: Vec<_> = order.iter().map(|&at| parts[at].clone()).collect();
        for part in &parts[..3] {
            assert_eq!(bench.send(1, part), []);
            bench.balance();
        }
        let sent = bench.send(1, &parts[3]);
        assert_eq!(ports(&sent), [2; 4], "{order:?}");
        let sent = frames(sent);
        let offsets: Vec<_> =
            sent.iter().map(|frame| Piece::of(frame, &Layers::parse(frame)).unwrap().offset).collect();
        assert_eq!(offsets, [0, 1480, 2960, 4440]);
        let joined = join(&sent);
        let shown = tuple(&joined);
        assert!(shown.starts_with("src=10.0.0.") && shown.contains("dst=203.0.113.9"), "{shown}");
        assert_eq!(joined[42..], whole[42..], "the payload");
        assert_eq!(bench.connections().len(), 1);
        assert_eq!(bench.0.worker().held_fragments(), 0);
        bench.balance();
    }
}
