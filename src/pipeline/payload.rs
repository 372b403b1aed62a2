//! Carrying out a helper's edits: bytes of a TCP payload are replaced by others, the frame grows or shrinks at its
//! end, and lengths and checksums follow. Only control packets whose translation changes an announced address come
//! here.

use weir_nat::alg::Edits;
use weir_wire::checksum::{self, Delta};
use weir_wire::numbers::protocol;
use weir_wire::{Fragment, Layers};

use super::frame::Frame;

/// Edits the payload of the TCP segment that `layers` describes. False if that cannot be: there is no room in the
/// buffer, the packet would be longer than its length field can say, or it is only part of a segment. The frame may
/// then be half done and must not be sent. Its layers have to be read again in any case.
///
/// A packet may come to be longer than the MTU of the port that it leaves by, if a sender fills a segment to the last
/// byte with pipelined commands; such a packet is lost there, as one too long always is.
#[cold]
pub fn edit<F: Frame>(frame: &mut F, layers: &Layers, edits: &Edits) -> bool {
    if layers.protocol != protocol::TCP || layers.l4 == 0 || layers.fragment != Fragment::No {
        return false;
    }
    let (l3, l4) = (usize::from(layers.l3), usize::from(layers.l4));
    let mut end = usize::from(layers.l3_end);
    let Some(offset) = frame.bytes().get(l4 + 12).map(|byte| usize::from(byte >> 4) * 4) else {
        return false;
    };
    let payload = l4 + offset;
    // What pads a short frame need not be kept.
    frame.truncate(end);
    // The last one first, so that the places of the others stay right.
    for edit in edits.iter().rev() {
        let at = payload + usize::from(edit.at);
        let (old, new) = (at + usize::from(edit.remove), at + edit.text.len());
        if old > end || (new > old && !frame.grow_back(new - old)) {
            return false;
        }
        let bytes = frame.bytes_mut();
        if new + (end - old) > bytes.len() {
            return false;
        }
        bytes.copy_within(old..end, new);
        if let Some(place) = bytes.get_mut(at..new) {
            place.copy_from_slice(edit.text.as_bytes());
        }
        end = end - old + new;
        frame.truncate(end);
    }
    let bytes = frame.bytes_mut();
    let Some((ip, tcp)) = bytes.get_mut(l3..end).and_then(|packet| packet.split_at_mut_checked(l4 - l3))
    else {
        return false;
    };
    let length = if layers.is_ipv6() { end - l3 - 40 } else { end - l3 };
    let Ok(length) = u16::try_from(length).map(u16::to_be_bytes) else { return false };
    let Ok(tcp_len) = u16::try_from(tcp.len()) else { return false };
    let pseudo = if layers.is_ipv6() {
        let Some(ip) = ip.first_chunk_mut::<40>() else { return false };
        [ip[4], ip[5]] = length;
        let (addresses, _) = ip[8..].as_chunks::<16>();
        let [src, dst] = addresses else { return false };
        checksum::pseudo_v6(src, dst, protocol::TCP, tcp_len.into())
    } else {
        let Some(ip) = ip.first_chunk_mut::<20>() else { return false };
        let mut delta = Delta::NONE;
        delta.change2([ip[2], ip[3]], length);
        [ip[2], ip[3]] = length;
        [ip[10], ip[11]] = delta.apply([ip[10], ip[11]]);
        let src = [ip[12], ip[13], ip[14], ip[15]];
        checksum::pseudo_v4(src, [ip[16], ip[17], ip[18], ip[19]], protocol::TCP, tcp_len)
    };
    // In full: what stands behind an edit may have moved by an odd number of bytes. The tracker has verified the old
    // checksum, so that no wrong one is made right here.
    let Some(header) = tcp.first_chunk_mut::<20>() else { return false };
    [header[16], header[17]] = [0, 0];
    let sum = checksum::finish(pseudo + checksum::sum(tcp));
    if let Some(header) = tcp.first_chunk_mut::<20>() {
        [header[16], header[17]] = sum;
    }
    true
}

#[cfg(test)]
mod tests {
    use weir_nat::alg::{Replacement, Text};
    use weir_wire::build::PacketBuilder;
    use weir_wire::header::{Ipv4, Tcp};
    use weir_wire::{ChecksumTrust, Tuple};

    use super::*;
    use crate::pipeline::HeapFrame;

    fn edits(list: &[(u16, u16, &str)]) -> Edits {
        list.iter()
            .map(|&(at, remove, text)| Replacement { at, remove, text: Text::from(text).unwrap() })
            .collect()
    }

    fn edited(packet: &PacketBuilder, list: &[(u16, u16, &str)]) -> (Vec<u8>, Vec<u8>) {
        let mut frame = HeapFrame::new(&packet.build());
        let layers = Layers::parse(frame.bytes());
        assert!(edit(&mut frame, &layers, &edits(list)));
        let layers = Layers::parse(frame.bytes());
        assert_eq!(usize::from(layers.l3_end), frame.bytes().len());
        Tuple::extract(frame.bytes(), &layers, 0, ChecksumTrust::NONE).expect("right lengths and checksums");
        let tcp = Tcp::new_checked(layers.l4_bytes(frame.bytes())).unwrap();
        (tcp.payload().to_vec(), frame.bytes().to_vec())
    }

    #[test]
    fn texts_of_any_length_replace_others_over_both_families() {
        let v4 = PacketBuilder::new().ipv4([10, 0, 0, 1], [10, 0, 0, 2]).tcp(1, 2).payload(b"one two three");
        let v6 = PacketBuilder::new()
            .vlan(5)
            .ipv6([1u16, 0, 0, 0, 0, 0, 0, 1], [1u16, 0, 0, 0, 0, 0, 0, 2])
            .extension(60, &[0; 6])
            .tcp(1, 2)
            .tcp_options(&[1, 1, 1, 0])
            .payload(b"one two three");
        for packet in [v4, v6] {
            assert_eq!(edited(&packet, &[(4, 3, "two")]).0, b"one two three");
            assert_eq!(edited(&packet, &[(4, 3, "twenty")]).0, b"one twenty three");
            assert_eq!(edited(&packet, &[(0, 3, "2"), (4, 3, ""), (8, 5, "3333333")]).0, b"2  3333333");
            assert_eq!(edited(&packet, &[]).0, b"one two three");
        }
    }

    #[test]
    fn padding_behind_a_short_packet_is_not_taken_for_payload() {
        let packet = PacketBuilder::new().ipv4([10, 0, 0, 1], [10, 0, 0, 2]).tcp(1, 2).payload(b"ab").build();
        let mut frame = HeapFrame::new(&[&packet[..], &[0x55; 30]].concat());
        let layers = Layers::parse(frame.bytes());
        assert!(edit(&mut frame, &layers, &edits(&[(1, 1, "cd")])));
        let layers = Layers::parse(frame.bytes());
        assert_eq!(layers.l4_bytes(frame.bytes())[20..], *b"acd");
        assert_eq!(Ipv4::new_checked(layers.l3_bytes(frame.bytes())).unwrap().total_len(), 43);
    }

    #[test]
    fn what_has_no_room_or_is_no_whole_segment_is_refused() {
        // As long as the builder makes them: some bytes below the most that there can be.
        let full = vec![b'x'; 65_535];
        let packet = PacketBuilder::new().ipv4([10, 0, 0, 1], [10, 0, 0, 2]).tcp(1, 2).payload(&full).build();
        let mut frame = HeapFrame::new(&packet);
        let layers = Layers::parse(frame.bytes());
        assert_ne!(layers.l4, 0);
        assert!(!edit(
            &mut frame,
            &layers,
            &edits(&[(1, 1, "a much longer text than it was"), (9, 1, "and one more after it")])
        ));
        let udp = PacketBuilder::new().ipv4([10, 0, 0, 1], [10, 0, 0, 2]).udp(1, 2).payload(b"abc").build();
        let mut frame = HeapFrame::new(&udp);
        let layers = Layers::parse(frame.bytes());
        assert!(!edit(&mut frame, &layers, &edits(&[(0, 1, "b")])));
    }
}
