//! Fragments: held at a ct, put together for the tracker, and sent on as they came, translated.

use std::ops::Range;

use weir_shard::FragmentSettings;
use weir_shard::fragments::{Family, LIFETIME};
use weir_wire::fragment::Piece;
use weir_wire::numbers::protocol;

use super::*;

/// Cuts a frame's packet into fragments at these offsets of its data, as a host or router would.
pub(super) fn cut(whole: &[u8], id: u32, at: &[usize]) -> Vec<Vec<u8>> {
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
pub(super) fn join(frames: &[Vec<u8>]) -> Vec<u8> {
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

pub(super) fn payload(length: usize) -> Vec<u8> {
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
    let orders = [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]];
    for (order, layout) in orders.into_iter().flat_map(|order| layouts().map(|layout| (order, layout))) {
        let mut bench = Bench::divided(NAT, layout);
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
        assert_eq!(bench.0.held_fragments(), 0);
        bench.balance();
    }
}

/// The public address and port of the only connection.
fn public(bench: &mut Bench) -> (std::net::Ipv4Addr, u16) {
    let shown = bench.connections();
    assert_eq!(shown.len(), 1, "{shown:?}");
    let reply = shown[0].split("reply=").nth(1).unwrap();
    let field = |name: &str| reply.split(name).nth(1).unwrap().split([',', ')']).next().unwrap().to_owned();
    (field("dst=").parse().unwrap(), field("dport=").parse().unwrap())
}

#[test]
fn answers_in_fragments_go_back_to_the_host_that_asked() {
    let mut bench = Bench::new(NAT);
    assert_eq!(bench.pass(1, &cut(&long_udp(3000), 7, &[1480])).len(), 2);
    let (address, port) = public(&mut bench);
    let answer = PacketBuilder::new().ipv4(X, address).udp(53, port).payload(&payload(4000)).build();
    let mut parts = cut(&answer, 9, &[1480, 2960]);
    parts.reverse();
    let sent = bench.pass(2, &parts);
    assert_eq!(ports(&sent), [1; 3]);
    let joined = join(&frames(sent));
    assert_eq!(tuple(&joined), "src=203.0.113.9,dst=192.168.0.1,sport=53,dport=4000");
    assert_eq!(joined[42..], answer[42..]);
    assert!(bench.connections()[0].starts_with("udp,orig=(src=192.168.0.1,"));
    bench.balance();
}

#[test]
fn one_datagram_is_one_packet_to_the_tracker_and_one_connection() {
    let mut bench = Bench::new(NAT);
    bench.pass(1, &cut(&long_udp(8000), 7, &[1480, 2960, 4440, 5920, 7400]));
    assert_eq!(bench.0.worker().shard().counters().created, 1);
    let mut carried = Vec::new();
    let mut visit = |view: &ConnectionView| carried.push(view.traffic.unwrap().original);
    bench.0.worker().shard().dump(0, &mut DumpCursor::default(), usize::MAX, &mut visit);
    // As the one frame that it would have been.
    assert_eq!(
        carried.iter().map(|carried| (carried.packets, carried.bytes)).collect::<Vec<_>>(),
        [(1, 8042)]
    );
}

#[test]
fn echoes_of_sixty_thousand_bytes_keep_their_order_and_get_their_identifier_back() {
    let whole = PacketBuilder::new().ipv4(A, X).echo_request(500, 1).payload(&payload(60_000)).build();
    let cuts: Vec<usize> = (1480..60_008).step_by(1480).collect();
    let parts = cut(&whole, 77, &cuts);
    assert_eq!(parts.len(), 41);
    let mut bench = Bench::new(NAT);
    // Another host has the identifier already, at every address.
    let flows = "table=0,priority=10,ip,ct_state=-trk,action=ct(nat,table=1)\n\
        table=1,in_port=1,ip,ct_state=+trk+new,action=ct(nat(src=10.0.0.1),commit),2\n\
        table=1,in_port=1,ip,ct_state=+trk+est,action=2\n\
        table=1,in_port=2,ip,ct_state=+trk+est,action=1";
    bench.change(Command::Delete, "");
    bench.change(Command::Add, flows);
    let other = PacketBuilder::new().ipv4(B, X).echo_request(500, 1).build();
    assert_eq!(bench.ports(1, &other), [2]);
    // In bursts, as a driver gives them.
    let slices: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    let mut sent = bench.burst(1, &slices, 0);
    assert_eq!(sent.len(), 41);
    let joined = join(&frames(std::mem::take(&mut sent)));
    let layers = Layers::parse(&joined);
    let id = u16::from_be_bytes([joined[38], joined[39]]);
    assert_ne!(id, 500, "taken");
    assert!(weir_wire::checksum::l4_is_valid(&joined, &layers));
    assert_eq!(joined[42..], whole[42..]);
    let answer =
        PacketBuilder::new().ipv4(X, [10, 0, 0, 1]).echo_reply(id, 1).payload(&payload(60_000)).build();
    let back = cut(&answer, 3, &cuts);
    let slices: Vec<&[u8]> = back.iter().map(Vec::as_slice).collect();
    let sent = bench.burst(2, &slices, 0);
    let joined = join(&frames(sent));
    assert_eq!(
        joined[26..42],
        [&X[..], &A[..], &[0, 0], &joined[36..38], &500u16.to_be_bytes(), &[0, 1]].concat()
    );
    assert!(weir_wire::checksum::l4_is_valid(&joined, &Layers::parse(&joined)));
    bench.balance();
}

#[test]
fn destinations_are_translated_too_behind_vlan_tags_and_options() {
    let flows = "table=0,in_port=1,ip,action=ct(commit,nat(dst=10.9.9.9:5353),table=1)\n\
        table=0,in_port=2,ip,action=ct(nat,table=1)\ntable=1,in_port=1,action=2\ntable=1,in_port=2,action=1";
    let mut bench = Bench::new(flows);
    let builder = PacketBuilder::new().vlan(0x2007).ipv4(A, X).udp(4000, 53);
    let whole = builder.payload(&payload(3000)).build();
    let mut parts = cut(&whole, 5, &[1480, 2000]);
    // The last fragment alone has options (no-operations), as if a router had left them out of the copy.
    let last = parts.last_mut().unwrap();
    let l3 = usize::from(Layers::parse(last).l3);
    last.splice(l3 + 20..l3 + 20, [1; 4]);
    last[l3] = 0x46;
    let total = u16::try_from(last.len() - l3).unwrap();
    last[l3 + 2..l3 + 4].copy_from_slice(&total.to_be_bytes());
    let layers = Layers::parse(last);
    weir_wire::checksum::fill(last, &layers);
    let mut middle = parts.remove(1);
    // The middle one is too small: it is made the least size that is asked for.
    assert!(middle.len() < 1200);
    let settings = FragmentSettings { min_size: [400, 400], ..FragmentSettings::default() };
    bench.0.worker().set_fragments(settings);
    parts.insert(0, std::mem::take(&mut middle));
    let sent = bench.pass(1, &parts);
    assert_eq!(ports(&sent), [2; 3]);
    assert!(sent.iter().all(|(_, frame)| frame[12..16] == [0x81, 0, 0x20, 7]), "tags");
    let joined = join(&frames(sent));
    assert_eq!(tuple(&joined), "src=192.168.0.1,dst=10.9.9.9,sport=4000,dport=5353");
    let answer = PacketBuilder::new().ipv4([10, 9, 9, 9], A).udp(5353, 4000).payload(&payload(3000)).build();
    let back = bench.pass(2, &cut(&answer, 6, &[1480]));
    assert_eq!(tuple(&join(&frames(back))), "src=203.0.113.9,dst=192.168.0.1,sport=53,dport=4000");
    bench.balance();
}

fn inside6() -> std::net::Ipv6Addr {
    "fd00::1".parse().unwrap()
}

fn outside6() -> std::net::Ipv6Addr {
    "2001:db8::9".parse().unwrap()
}

#[test]
fn ipv6_fragments_behind_other_extension_headers_are_translated() {
    let flows = "table=0,in_port=1,ipv6,action=ct(commit,nat(src=[2001:db8::1]:5000-6000),table=1)\n\
        table=0,in_port=2,ipv6,action=ct(nat,table=1)\ntable=1,in_port=1,action=2\ntable=1,in_port=2,action=1";
    let hop_by_hop = |builder: PacketBuilder| builder.extension(protocol::HOP_BY_HOP, &[1, 4, 0, 0, 0, 0]);
    for with_extension in [false, true] {
        for transport in [protocol::UDP, protocol::TCP, protocol::ICMPV6] {
            let mut bench = Bench::new(flows);
            let builder = PacketBuilder::new().ipv6(inside6(), outside6());
            let builder = if with_extension { hop_by_hop(builder) } else { builder };
            let builder = match transport {
                protocol::UDP => builder.udp(4000, 53),
                protocol::TCP => builder.tcp(4000, 80).flags(flag::SYN),
                _ => builder.echo_request(4000, 1),
            };
            let whole = builder.payload(&payload(4000)).build();
            let mut parts = cut(&whole, 0x1234_5678, &[1400, 2800]);
            parts.rotate_left(1);
            let sent = bench.pass(1, &parts);
            assert_eq!(ports(&sent), [2; 3], "{transport} {with_extension}");
            let joined = join(&frames(sent));
            let shown = tuple(&joined);
            assert!(shown.starts_with("src=2001:db8::1,dst=2001:db8::9,"), "{shown}");
            assert_eq!(bench.connections().len(), 1);
            bench.balance();
        }
    }
}

/// Every packet is tracked and leaves by the port that names its state: 2 new, 3 established, 4 invalid.
const STATES: &str = "table=0,ip,ct_state=-trk,action=ct(table=1)\ntable=0,ipv6,ct_state=-trk,action=ct(table=1)\n\
    table=1,priority=9,ct_state=+trk+inv,action=4\ntable=1,priority=8,ct_state=+trk+new,ip,action=ct(commit),2\n\
    table=1,priority=8,ct_state=+trk+new,ipv6,action=ct(commit),2\ntable=1,priority=7,ct_state=+trk+est,action=3";

#[test]
fn what_cannot_be_put_together_is_invalid() {
    let whole = long_udp(3000);
    let parts = cut(&whole, 7, &[1480]);
    let mut bench = Bench::new(STATES);

    // A repetition, alone.
    assert_eq!(ports(&bench.send(1, &parts[0])), NOWHERE);
    assert_eq!(ports(&bench.send(1, &parts[0])), [4]);
    assert_eq!(ports(&bench.send(1, &parts[1])), [2, 2]);

    // An overlap, and with it all that is there and still comes.
    let data = &whole[34..];
    let teardrop = fragment(&whole, 14..34, data, 8, 800..2280);
    let parts = cut(&whole, 8, &[1480]);
    assert_eq!(ports(&bench.send(1, &parts[0])), NOWHERE);
    assert_eq!(ports(&bench.send(1, &teardrop)), [4, 4]);
    assert_eq!(ports(&bench.send(1, &parts[1])), [4]);

    // Too small, a wrong header checksum, a length that is no multiple of 8.
    assert_eq!(ports(&bench.send(1, &cut(&whole, 9, &[1176])[0])), [4]);
    let mut damaged = cut(&whole, 10, &[1480]).remove(0);
    damaged[24] ^= 0x55;
    assert_eq!(ports(&bench.send(1, &damaged)), [4]);
    assert_eq!(ports(&bench.send(1, &cut(&whole, 11, &[1481])[0])), [4]);

    // A wrong checksum of the whole shows when it is whole.
    let mut wrong = long_udp(3000);
    wrong[2000] ^= 1;
    let wrong = cut(&wrong, 12, &[1480]);
    assert_eq!(ports(&bench.pass(1, &wrong)), [4, 4]);

    // The store is full, or turned off.
    let settings = FragmentSettings { max: 0, ..FragmentSettings::default() };
    bench.0.worker().set_fragments(settings);
    assert_eq!(ports(&bench.send(1, &cut(&whole, 13, &[1480])[0])), [4]);
    bench
        .0
        .worker()
        .set_fragments(FragmentSettings { enabled: [false, true], ..FragmentSettings::default() });
    assert_eq!(ports(&bench.send(1, &cut(&whole, 14, &[1480])[0])), [4]);

    let counters = bench.0.worker().fragments().status(Family::V4).counters;
    let seen = [
        counters.duplicates,
        counters.overlapped,
        counters.refused,
        counters.too_small,
        counters.malformed,
        counters.store_full,
        counters.disabled,
        counters.datagrams,
    ];
    // Datagrams: the first twice, for its second ct, and the one with the wrong checksum.
    assert_eq!(seen, [1, 1, 1, 1, 1, 1, 1, 3]);
    assert_eq!(bench.connections().len(), 1);
    assert_eq!(bench.0.worker().held_fragments(), 0);
    bench.balance();
}

#[test]
fn a_first_fragment_of_ipv6_without_all_its_headers_is_invalid() {
    let mut bench = Bench::new(STATES);
    let builder = PacketBuilder::new().ipv6(inside6(), outside6()).fragment(9, 0, true);
    // RFC 7112: destination options that go on in the next fragment.
    let mut content = payload(1400);
    content[0] = protocol::UDP;
    content[1] = 255;
    let first = builder.protocol(protocol::DESTINATION).payload(&content).build();
    assert_eq!(ports(&bench.send(1, &first)), [4]);
    bench.balance();
}

#[test]
fn a_datagram_that_stays_incomplete_is_dropped_after_fifteen_seconds_and_counted() {
    let mut bench = Bench::new(STATES);
    let parts = cut(&long_udp(4500), 7, &[1480, 2960]);
    for part in &parts[..2] {
        assert_eq!(bench.send(1, part), []);
    }
    bench.balance();
    bench.0.advance(LIFETIME - 1);
    assert_eq!(bench.0.worker().held_fragments(), 2);
    bench.0.advance(LIFETIME);
    assert_eq!(bench.0.worker().held_fragments(), 0);
    assert_eq!(bench.dropped(DropCause::FragmentExpired), 2);
    // What comes too late begins anew.
    assert_eq!(bench.send(1, &parts[2]), []);
    assert_eq!(bench.connections(), Vec::<String>::new());
    bench.balance();
}

#[test]
fn held_fragments_go_on_as_their_tables_said_though_these_have_changed_or_their_flow_has_gone() {
    let whole = long_udp(3000);
    let parts = cut(&whole, 7, &[1480]);
    let mut bench = Bench::new(STATES);
    assert_eq!(bench.send(1, &parts[0]), []);
    bench.0.worker().clear_megaflows();
    assert_eq!(bench.0.worker().megaflow_sizes().0, 0);
    // Idle flows go after ten seconds.
    bench.0.advance(12_000);
    bench.change(Command::Add, "table=9,action=drop");
    for id in 100..120 {
        bench.send(1, &udp(A, id, X, 53));
    }
    assert_eq!(ports(&bench.send(1, &parts[1])), [2, 2]);
    bench.0.worker().clear_megaflows();
    assert_eq!(bench.0.worker().recirculation_contexts(), 0, "nothing holds on to them any more");
    assert_eq!(bench.0.worker().megaflow_sizes(), (0, 0));
    bench.balance();
}

#[test]
fn what_is_held_goes_when_reassembly_is_turned_off() {
    let mut bench = Bench::new(STATES);
    bench.send(1, &cut(&long_udp(3000), 7, &[1480])[0]);
    assert_eq!(bench.0.worker().held_fragments(), 1);
    bench.0.worker().set_fragments(FragmentSettings { enabled: [false; 2], ..FragmentSettings::default() });
    assert_eq!(bench.dropped(DropCause::FragmentPurged), 1);
    bench.0.worker().clear_megaflows();
    assert_eq!(bench.0.worker().recirculation_contexts(), 0);
    bench.balance();
}

#[test]
fn a_datagram_that_is_complete_is_through_before_the_packets_behind_it_in_its_burst() {
    let mut bench = Bench::new(NAT);
    let parts = cut(&long_udp(3000), 7, &[1480]);
    let behind = udp(A, 4000, X, 53);
    let sent = bench.burst(1, &[&udp(B, 1, X, 2), &parts[1], &parts[0], &behind, &parts[0]], 0);
    let lengths: Vec<_> = sent.iter().map(|(_, frame)| frame.len()).collect();
    assert_eq!(lengths, [47, parts[0].len(), parts[1].len(), behind.len()]);
    assert_eq!(bench.connections().len(), 2);
    // All of one connection, and so to one address.
    let translated = |at: usize| sent[at].1[26..30].to_vec();
    assert_eq!((translated(1), translated(1)), (translated(2), translated(3)));
    bench.balance();
}

#[test]
fn tables_with_several_cts_and_copies_hold_fragments_at_each() {
    let flows = "table=0,in_port=1,ip,action=ct(commit,zone=1,nat(src=10.1.1.1)),\
        ct(commit,zone=2),ct(table=1,zone=3),3,ct(table=2,zone=4)\n\
        table=1,ct_state=+trk+new,ip,action=ct(commit,zone=3),2\n\
        table=2,ct_state=+trk+new,ip,action=4";
    let mut bench = Bench::new(flows);
    let parts = cut(&long_udp(3000), 7, &[1480]);
    let mut sent = ports(&bench.pass(1, &parts));
    sent.sort_unstable();
    assert_eq!(sent, [2, 2, 3, 3, 4, 4]);
    assert_eq!(bench.0.worker().held_fragments(), 0);
    assert_eq!(bench.connections().len(), 3);
    bench.balance();
}

#[test]
fn the_least_fragment_size_and_checksums_of_tcp_segments_hold_as_well() {
    let mut bench = Bench::new(NAT);
    let whole =
        PacketBuilder::new().ipv4(A, X).tcp(4000, 80).flags(flag::SYN).payload(&payload(2500)).build();
    let sent = bench.pass(1, &cut(&whole, 1, &[1480]));
    let joined = join(&frames(sent));
    assert!(tuple(&joined).contains("dst=203.0.113.9"), "{}", tuple(&joined));
    assert!(bench.connections()[0].starts_with("tcp,"));
    bench.balance();
}

/// The packet in the buffers of a reassembler, which frames have no room for: its L4 bytes, and whether their checksum
/// is right under these addresses.
fn data_of(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut pieces: Vec<_> =
        frames.iter().map(|frame| (Piece::of(frame, &Layers::parse(frame)).unwrap(), frame)).collect();
    pieces.sort_by_key(|(piece, _)| piece.offset);
    pieces.iter().flat_map(|(piece, frame)| frame[piece.data.clone()].to_vec()).collect()
}

/// Fragments of a datagram with these L4 bytes, made one by one.
fn long_fragments(builder: &PacketBuilder, number: u8, data: &[u8]) -> Vec<Vec<u8>> {
    let count = data.len().div_ceil(1400);
    let parts = data.chunks(1400).enumerate();
    parts
        .map(|(at, part)| {
            let offset = u16::try_from(at * 1400).unwrap();
            builder.clone().fragment(7, offset, at + 1 < count).protocol(number).payload(part).build()
        })
        .collect()
}

#[test]
fn the_longest_datagrams_there_are_get_through() {
    use weir_wire::checksum::{finish, is_valid, pseudo_v4, pseudo_v6, sum};
    let v4 = "table=0,in_port=1,ip,action=ct(commit,nat(src=10.0.0.1:7000-7009),table=1)\n\
        table=1,ct_state=+trk+inv,action=4\ntable=1,priority=1,action=2";
    let v6 = "table=0,in_port=1,ipv6,action=ct(commit,nat(src=[2001:db8::1]:7000-7009),table=1)\n\
        table=1,ct_state=+trk+inv,action=4\ntable=1,priority=1,action=2";
    let (public4, public6) = ([10, 0, 0, 1], "2001:db8::1".parse::<std::net::Ipv6Addr>().unwrap().octets());
    let (inside6, outside6) = (inside6().octets(), outside6().octets());
    for (is_v6, number, length) in [
        (false, protocol::ICMP, 65_515usize),
        (false, protocol::UDP, 65_515),
        (false, protocol::UDP, 65_514),
        (true, protocol::ICMPV6, 65_535),
        (true, protocol::UDP, 65_535),
        (true, protocol::UDP, 65_495),
    ] {
        let len = u16::try_from(length).unwrap();
        let mut data = payload(length);
        match number {
            protocol::UDP => {
                data[..4].copy_from_slice(&[0x0f, 0xa0, 0, 53]);
                data[4..6].copy_from_slice(&len.to_be_bytes());
            }
            protocol::ICMP => data[..2].copy_from_slice(&[8, 0]),
            _ => data[..2].copy_from_slice(&[128, 0]),
        }
        let place = if number == protocol::UDP { 6 } else { 2 };
        data[place..place + 2].fill(0);
        let pseudo = |v4: [u8; 4], v6: [u8; 16]| match (is_v6, number) {
            (true, _) => pseudo_v6(&v6, &outside6, number, len.into()),
            (false, protocol::ICMP) => 0,
            (false, _) => pseudo_v4(v4, X, number, len),
        };
        let right = finish(pseudo(A, inside6) + sum(&data));
        data[place..place + 2].copy_from_slice(&right);
        let builder = PacketBuilder::new();
        let builder = if is_v6 { builder.ipv6(inside6, outside6) } else { builder.ipv4(A, X) };
        let flows = if is_v6 { v6 } else { v4 };
        let context = format!("IPv6 {is_v6}, protocol {number}, {length} bytes");

        let mut bench = Bench::new(flows);
        let sent = bench.pass(1, &long_fragments(&builder, number, &data));
        assert_eq!((sent.len(), sent[0].0), (47, 2), "{context}");
        let out = data_of(&frames(sent));
        assert!(is_valid(pseudo(public4, public6) + sum(&out)), "{context}");
        let changed: Vec<_> = (0..length).filter(|&at| out[at] != data[at]).collect();
        assert!(
            changed.iter().all(|&at| at < 8 && ![4, 5].contains(&at) || number != protocol::UDP && at < 6),
            "{context}: {changed:?}"
        );
        assert_eq!(bench.connections().len(), 1, "{context}");
        bench.balance();

        // A wrong checksum in the last byte shows.
        *data.last_mut().unwrap() ^= 0x10;
        let mut bench = Bench::new(flows);
        let sent = bench.pass(1, &long_fragments(&builder, number, &data));
        assert!(sent.iter().all(|(port, _)| *port == 4), "{context}");
        assert!(bench.connections().is_empty(), "{context}");
        bench.balance();
    }
}

/// A held packet may have been copied before its `ct`; clearing the counters in between made the sums wrong.
#[test]
fn counters_that_are_cleared_while_a_fragment_is_held_stay_balanced() {
    for actions in ["2,ct(commit)", "2,ct(commit),2", "ct(commit),2"] {
        let mut bench = Bench::new(&format!("in_port=1,ip,actions={actions}"));
        let parts = cut(&long_udp(3000), 7, &[1480]);
        bench.send(1, &parts[0]);
        bench.0.worker().clear_counters();
        bench.balance();
        bench.send(1, &parts[1]);
        bench.balance();
        assert_eq!(bench.0.worker().held_fragments(), 0);
    }
}
