//! Packets, bytes and times of connections.

use super::*;
use crate::tcp::Peer;
use crate::view::{Carried, Traffic};

fn traffic(lab: &Lab) -> Traffic {
    let views = lab.views();
    assert_eq!(views.len(), 1);
    views[0].traffic.unwrap()
}

#[test]
fn packets_and_bytes_are_counted_by_direction_and_the_last_packet_is_remembered() {
    let mut lab = Lab::new();
    let (there, back) = (Frame::udp(&flow(1000)), Frame::udp(&flow(1000).reversed()));
    lab.send(&there, &commit());
    lab.now += 20_000;
    lab.send(&there, &look());
    lab.send(&back, &look());
    lab.now += 5_000;
    let bytes = there.bytes.len() as u64;
    let seen = traffic(&lab);
    assert_eq!(seen.original, Carried { packets: 2, bytes: 2 * bytes });
    assert_eq!(seen.reply, Carried { packets: 1, bytes });
    assert!((4_985..=5_015).contains(&seen.idle), "{}", seen.idle);
    assert_eq!(lab.views()[0].age, 25_000);
}

#[test]
fn a_packet_counts_once_however_many_ct_actions_of_its_zone_it_meets() {
    let mut lab = Lab::new();
    // As the tables of a translator have it: look, and then commit what is new.
    for packet in [Frame::udp(&flow(1000)), Frame::udp(&flow(1000))] {
        let (mut frame, mut meta) = (packet, CtMeta::default());
        lab.again(&mut frame, &apply(), &mut meta);
        lab.again(&mut frame, &source_nat(PUBLIC, None), &mut meta);
        lab.again(&mut frame, &look(), &mut meta);
    }
    assert_eq!(traffic(&lab).original.packets, 2);
    assert_eq!(traffic(&lab).reply, Carried::default());
    assert_eq!((lab.shard.counters().new, lab.shard.counters().established), (2, 0));
    assert_eq!(lab.shard.counters().created, 1);
}

#[test]
fn the_packet_that_is_in_two_zones_counts_in_both() {
    let mut lab = Lab::new();
    let (mut frame, mut meta) = (Frame::udp(&flow(1000)), CtMeta::default());
    lab.again(&mut frame, &commit_in(1), &mut meta);
    lab.again(&mut frame, &commit_in(2), &mut meta);
    assert!(lab.views().iter().all(|view| view.traffic.unwrap().original.packets == 1));
    assert_eq!((lab.views().len(), lab.shard.counters().new), (2, 2));
}

#[test]
fn invalid_segments_and_icmp_errors_do_not_count() {
    let mut lab = Lab::new();
    let (there, back) = (stream(4000), stream(4000).reversed());
    lab.send(&Frame::tcp(&there, "S", 100, 0), &commit());
    let answer = Frame::tcp(&back, "SA", 500, 101);
    lab.send(&answer, &look());
    lab.send(&Frame::tcp(&back, "A", 501, 4_000_000), &look());
    lab.send(&answer.unreachable_from(INSIDE), &look());
    assert_eq!((lab.shard.counters().related, lab.shard.counters().tcp_out_of_window), (1, 1));
    let seen = traffic(&lab);
    assert_eq!((seen.original.packets, seen.reply.packets), (1, 1));
}

#[test]
fn a_slot_s_next_connection_starts_from_zero_whatever_both_are() {
    let udp = |port| Frame::udp(&flow(port));
    let tcp = |port| Frame::tcp(&stream(port), "S", 100, 0);
    let udp6 = |port| Frame::udp(&tuple(17, "2001:db8::1", port, "2001:db8::2", 53));
    let kinds: [&dyn Fn(u16) -> Frame; 3] = [&udp, &tcp, &udp6];
    let mut lab = Lab::with(config(1));
    for (round, (first, second)) in
        (0..3).flat_map(|first| (0..3).map(move |second| (first, second))).enumerate()
    {
        let port = 1000 + 2 * round as u16;
        for (kind, port, sent) in [(first, port, 3), (second, port + 1, 1)] {
            lab.now += 500_000;
            let packet = kinds[kind](port);
            for _ in 0..sent {
                lab.send(&packet, &commit());
            }
            let bytes = sent * packet.bytes.len() as u64;
            assert_eq!(traffic(&lab).original, Carried { packets: sent, bytes }, "{first} {second}");
            assert_eq!((traffic(&lab).reply, traffic(&lab).idle / 20), (Carried::default(), 0));
        }
    }
}

#[test]
fn what_a_connection_without_windows_carries_is_counted_beyond_32_bits_and_goes_with_it() {
    let mut lab = Lab::with(config(1));
    let (there, back) = (Frame::udp(&flow(1000)), Frame::udp(&flow(1000).reversed()));
    lab.send(&there, &commit());
    let counting = [Peer::counting(u32::MAX, u32::MAX), Peer::counting(7, u32::MAX)];
    lab.shard.table.connection_mut(0).set_peers(counting);
    lab.send(&there, &look());
    lab.send(&back, &look());
    let bytes = there.bytes.len() as u64;
    let more = u64::from(u32::MAX);
    assert_eq!(traffic(&lab).original, Carried { packets: more + 1, bytes: more + bytes });
    assert_eq!(traffic(&lab).reply, Carried { packets: 8, bytes: more + bytes });
    lab.now += 500_000;
    lab.send(&Frame::udp(&flow(2000)), &commit());
    assert_eq!(traffic(&lab).original, Carried { packets: 1, bytes });
    assert_eq!(traffic(&lab).reply, Carried::default());
}

#[test]
fn without_accounting_there_are_no_counts_and_all_else_is_the_same() {
    let mut lab = Lab::with(ShardConfig { accounting: false, ..config(10) });
    lab.send(&Frame::udp(&flow(1000)), &commit());
    assert_eq!(lab.state(&Frame::udp(&flow(1000).reversed()), &look()), "est rpl trk");
    assert_eq!(lab.views()[0].traffic, None);
}
