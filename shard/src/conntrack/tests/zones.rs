//! Timeouts and limits of zones, step by step. Random sequences are in `limits`.

use super::*;
use crate::timeouts::{Timeout, Timeouts};

fn policy(timeout: Timeout, seconds: u32) -> Option<Timeouts> {
    let mut timeouts = Timeouts::default();
    timeouts.set(timeout, seconds).unwrap();
    Some(timeouts)
}

fn remaining(lab: &Lab, zone: u16) -> u64 {
    let views = lab.views();
    views.iter().find(|view| view.zone == zone).map_or(0, |view| view.remaining / 1000)
}

#[test]
fn a_zone_s_timeouts_hold_in_that_zone_only_and_from_the_next_packet_on() {
    let mut lab = Lab::new();
    lab.shard.set_zone_timeouts(7, policy(Timeout::UdpFirst, 5)).unwrap();
    for zone in ZONES {
        lab.send(&Frame::udp(&flow(1000)), &commit_in(zone));
    }
    assert_eq!(ZONES.map(|zone| remaining(&lab, zone)), [60, 60, 5, 60]);
    // A policy that comes later: the packet after it goes by it.
    lab.shard.set_zone_timeouts(1, policy(Timeout::UdpSingle, 200)).unwrap();
    assert_eq!(remaining(&lab, 1), 60);
    lab.send(&Frame::udp(&flow(1000)), &CtAction { zone: 1, ..look() });
    assert_eq!(remaining(&lab, 1), 200);
    lab.now += 5_100;
    lab.sweep();
    assert_eq!((lab.shard.len(), lab.shard.zone_len(7)), (3, 0));
    lab.shard.set_zone_timeouts(7, None).unwrap();
    lab.send(&Frame::udp(&flow(1000)), &commit_in(7));
    assert_eq!(remaining(&lab, 7), 60);
    assert_eq!(lab.shard.zone_timeouts(7), None);
}

#[test]
fn a_shorter_timeout_ends_a_connection_early_without_any_sweep_before() {
    let mut lab = Lab::new();
    lab.send(&Frame::udp(&flow(1000)), &commit_in(7));
    lab.shard.set_zone_timeouts(7, policy(Timeout::UdpSingle, 1)).unwrap();
    lab.send(&Frame::udp(&flow(1000)), &CtAction { zone: 7, ..look() });
    lab.now += 1_100;
    lab.sweep();
    assert_eq!(lab.shard.len(), 0);
}

#[test]
fn a_zone_at_its_limit_refuses_and_the_packet_goes_on_as_new_or_is_dropped_if_it_had_to_be_translated() {
    let mut lab = Lab::new();
    lab.shard.set_default_zone_limit(Some(2));
    lab.shard.set_zone_limit(1, Some(0));
    lab.shard.set_zone_limit(7, Some(3));
    for (zone, limit) in [(0, 2), (1, 0), (7, 3), (65_535, 2)] {
        for port in 0..5u32 {
            let action = commit_in(zone);
            let (_, meta) = lab.send(&Frame::udp(&flow(1000 + u16::try_from(port).unwrap())), &action);
            assert_eq!(name(meta.state), "new trk");
            assert_eq!(meta.connection.is_some(), port < limit, "zone {zone}, connection {port}");
        }
        assert_eq!(lab.shard.zone_len(zone), limit);
        let nat = CtAction { zone, ..source_nat(PUBLIC, None) };
        let (mut frame, mut meta) = (Frame::udp(&flow(2000)), CtMeta::default());
        assert_eq!(lab.again(&mut frame, &nat, &mut meta), Outcome::Drop(DropReason::NatRefused));
    }
    assert_eq!(lab.shard.counters().refused_by_zone_limit, 3 + 5 + 2 + 3 + 4);
    // Those that are there go on.
    assert_eq!(
        lab.state(&Frame::udp(&flow(1000).reversed()), &CtAction { zone: 7, ..look() }),
        "est rpl trk"
    );
    // Lowered: none is removed, none comes in. Raised or removed: more come.
    lab.shard.set_zone_limit(7, Some(1));
    lab.send(&Frame::udp(&flow(3000)), &commit_in(7));
    assert_eq!(lab.shard.zone_len(7), 3);
    lab.shard.set_zone_limit(7, None);
    lab.shard.set_zone_limit(1, None);
    lab.shard.set_default_zone_limit(None);
    for zone in ZONES {
        assert!(lab.send(&Frame::udp(&flow(3000)), &commit_in(zone)).1.connection.is_some());
    }
}

#[test]
fn a_connection_that_has_expired_makes_room_at_once_in_its_zone_and_in_all() {
    let mut lab = Lab::with(ShardConfig { max_connections: 3, ..config(100) });
    lab.shard.set_zone_limit(1, Some(1));
    lab.send(&Frame::udp(&flow(1000)), &commit_in(1));
    lab.now += 1_000;
    lab.send(&Frame::udp(&flow(1000)), &commit_in(2));
    lab.send(&Frame::udp(&flow(1001)), &commit_in(2));
    lab.now += 58_900;
    assert!(lab.send(&Frame::udp(&flow(2000)), &commit_in(1)).1.connection.is_none());
    assert!(lab.send(&Frame::udp(&flow(2000)), &commit_in(2)).1.connection.is_none());
    lab.now += 132;
    assert!(lab.send(&Frame::udp(&flow(2000)), &commit_in(2)).1.connection.is_some(), "zone 1 has left");
    assert!(lab.send(&Frame::udp(&flow(2000)), &commit_in(1)).1.connection.is_none(), "all are full again");
    let counters = lab.shard.counters();
    assert_eq!((counters.refused_by_zone_limit, counters.refused_by_limit), (1, 2));
}

/// Connections of zone 1 that the wheel has to look at, and that all have been refreshed.
fn crowd(lab: &mut Lab, count: u16) {
    for port in 1..=count {
        lab.send(&Frame::udp(&flow(port)), &commit_in(1));
    }
    lab.now += 59_000;
    for port in 1..=count {
        lab.send(&Frame::udp(&flow(port)), &CtAction { zone: 1, ..look() });
    }
    lab.now += 1_050;
}

#[test]
fn a_crowd_in_another_zone_does_not_keep_a_zone_from_its_own_expired_connections() {
    let mut lab = Lab::with(config(20_000));
    lab.shard.set_zone_limit(2, Some(1));
    lab.send(&Frame::udp(&flow(1000)), &commit_in(2));
    crowd(&mut lab, 10_000);
    assert!(lab.send(&Frame::udp(&flow(2000)), &commit_in(2)).1.connection.is_some());
    assert_eq!(lab.shard.counters().refused_unsettled, 0);
}

#[test]
fn a_packet_looks_at_so_many_and_those_after_it_go_on_where_it_stopped() {
    let mut lab = Lab::with(config(20_000));
    lab.shard.set_zone_limit(1, Some(10_001));
    crowd(&mut lab, 10_000);
    lab.send(&Frame::udp(&flow(20_000)), &commit_in(1));
    let mut refused = 0;
    // One of zone 1 expires: the crowd, all alive, stands before it in the wheel.
    lab.now += 61_000;
    for port in 1..=10_000 {
        lab.send(&Frame::udp(&flow(port)), &CtAction { zone: 1, ..look() });
    }
    while lab.send(&Frame::udp(&flow(30_000)), &commit_in(1)).1.connection.is_none() {
        refused += 1;
        assert!(refused < 20, "it comes to an end");
    }
    assert_eq!(lab.shard.counters().refused_by_zone_limit, refused);
    assert_eq!(lab.shard.counters().refused_unsettled, refused, "each of them was undecided");
}

#[test]
fn every_one_of_65_536_zones_counts_for_itself() {
    let mut lab = Lab::with(config(70_000));
    lab.shard.set_default_zone_limit(Some(1));
    for zone in 0..=u16::MAX {
        lab.send(&Frame::udp(&flow(1000)), &commit_in(zone));
        lab.send(&Frame::udp(&flow(1001)), &commit_in(zone));
    }
    assert_eq!(lab.shard.len(), 65_536);
    assert!((0..=u16::MAX).all(|zone| lab.shard.zone_len(zone) == 1));
    lab.now += 61_000;
    lab.sweep();
    assert_eq!(lab.shard.len(), 0);
    assert!((0..=u16::MAX).all(|zone| lab.shard.zone_len(zone) == 0));
}
