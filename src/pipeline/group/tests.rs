use weir_wire::Layers;
use weir_wire::build::PacketBuilder;

use super::*;
use crate::flow::{FlowTables, GroupCommand, GroupFile, NoNames};
use crate::pipeline::extract;

fn groups(text: &str) -> FlowTables {
    let mut tables = FlowTables::new(10);
    let file = GroupFile::parse("g", text.as_bytes(), GroupCommand::Add, &NoNames).unwrap();
    tables.apply_groups(&file.changes, 0).unwrap();
    tables
}

fn view(text: &str, up: &[PortNumber]) -> GroupViews {
    views(groups(text).groups(), &|port| up.contains(&port), &GroupViews::new())
}

/// How many slots each bucket of group 1 has.
fn shares(text: &str, up: &[PortNumber]) -> Vec<usize> {
    let views = view(text, up);
    let group = &views[&1];
    let count = |bucket: usize| group.slots.iter().filter(|slot| usize::from(**slot) == bucket).count();
    (0..group.live.len()).map(count).collect()
}

#[test]
fn slots_are_shared_by_weight_and_nobody_is_left_out() {
    let weighted = |weights: &[u16]| {
        let buckets: String = weights.iter().map(|weight| format!(",bucket=weight:{weight},1")).collect();
        shares(&format!("group_id=1,type=select{buckets}"), &[])
    };
    assert_eq!(weighted(&[1, 1]), [8, 8]);
    assert_eq!(weighted(&[1, 3]), [4, 12]);
    assert_eq!(weighted(&[7]), [16]);
    assert_eq!(weighted(&[5, 0, 5]), [8, 0, 8], "weight 0 is never chosen");
    assert_eq!(weighted(&[0]), [0]);
    assert_eq!(weighted(&[100, 200, 300]), [3, 5, 8]);
    // 4096 slots are the most, and still the lightest has one.
    assert_eq!(weighted(&[1, 65535]), [1, 4095]);
    let many = weighted(&[1; 256]);
    assert!(many.iter().all(|share| *share == 1), "{many:?}");
    let lopsided: Vec<u16> = (0..256).map(|i| if i == 0 { 65_535 } else { 1 }).collect();
    let shared = weighted(&lopsided);
    assert_eq!((shared.iter().sum::<usize>(), *shared.iter().min().unwrap()), (4096, 1));
}

#[test]
fn a_bucket_that_goes_takes_only_its_own_slots_along() {
    let text = "group_id=1,type=select,bucket=watch_port:1,1,bucket=watch_port:2,2,bucket=watch_port:3,3,bucket=watch_port:4,4";
    let (all, three) = (view(text, &[1, 2, 3, 4]), view(text, &[1, 2, 4]));
    let pairs = all[&1].slots.iter().zip(&three[&1].slots);
    let moved = pairs.clone().filter(|(before, after)| before != after && **before != 2).count();
    assert_eq!((all[&1].slots.len(), three[&1].slots.len()), (16, 16));
    assert!(pairs.clone().all(|(_, after)| *after != 2));
    // With quotas a few others move too; without them nearly all would.
    assert!(moved <= 4, "{moved} of 12 moved: {pairs:?}");
}

#[test]
fn buckets_live_with_what_they_watch() {
    let text =
        "group_id=1,type=ff,bucket=watch_port:1,1,bucket=watch_group:2,2,bucket=watch_group:9,watch_port:4,3
        group_id=2,type=ff,bucket=watch_port:2,1,bucket=watch_group:3,2
        group_id=3,type=all,bucket=1
        group_id=4,type=ff,bucket=watch_group:5,1
        group_id=5,type=ff,bucket=watch_group:4,1";
    let live = |up: &[PortNumber], id: u32| view(text, up)[&id].live.to_vec();
    assert_eq!(live(&[1], 1), [true, true, false]);
    assert_eq!(live(&[4], 1), [false, true, true], "group 2 lives by group 3, which watches nothing");
    assert_eq!(live(&[1, 2], 4), [false], "they watch each other");
    assert_eq!(view(text, &[])[&1].first_live(), Some(1));
    assert_eq!(view("group_id=1,type=select,bucket=watch_port:1,1", &[])[&1].select(7), None);
}

#[test]
fn views_that_stay_as_they_are_are_kept() {
    let mut tables = groups("group_id=1,type=all,bucket=1\ngroup_id=2,type=ff,bucket=watch_port:1,1");
    let before = views(tables.groups(), &|_| true, &GroupViews::new());
    let change = GroupFile::parse("g", b"group_id=3,type=all", GroupCommand::Add, &NoNames).unwrap();
    tables.apply_groups(&change.changes, 0).unwrap();
    let after = views(tables.groups(), &|_| false, &before);
    assert!(Arc::ptr_eq(&before[&1], &after[&1]) && !Arc::ptr_eq(&before[&2], &after[&2]));
}

fn key(packet: &PacketBuilder) -> Key {
    let frame = packet.build();
    let mut key = Key::ZERO;
    extract::headers(&frame, &Layers::parse(&frame), &mut key);
    key
}

#[test]
fn the_hash_is_the_same_in_both_directions_and_for_all_fragments() {
    let v4 = || PacketBuilder::new().ipv4([10, 0, 0, 1], [10, 0, 0, 2]);
    let hash = |packet: &PacketBuilder| five_tuple(&key(packet));
    let back = PacketBuilder::new().ipv4([10, 0, 0, 2], [10, 0, 0, 1]);
    assert_eq!(hash(&v4().tcp(1, 2)), hash(&back.tcp(2, 1)));
    assert_ne!(hash(&v4().tcp(1, 2)), hash(&v4().udp(1, 2)));
    assert_ne!(hash(&v4().tcp(1, 2)), hash(&v4().tcp(1, 3)));
    let fragments =
        [v4().udp(1, 2).fragment(7, 0, true), v4().protocol(17).fragment(7, 800, false).payload(&[1; 8])];
    assert_eq!(hash(&fragments[0]), hash(&fragments[1]));
    let v6 = |src: &str, dst: &str| {
        PacketBuilder::new()
            .ipv6(src.parse::<core::net::Ipv6Addr>().unwrap(), dst.parse::<core::net::Ipv6Addr>().unwrap())
    };
    assert_eq!(hash(&v6("fd00::1", "fd00::2").udp(1, 2)), hash(&v6("fd00::2", "fd00::1").udp(2, 1)));
    assert_ne!(hash(&v6("fd00::1", "fd00::2").udp(1, 2)), hash(&v6("fd00::1", "fd00::3").udp(1, 2)));
    assert_ne!(hash(&v6("fd00:1::1", "fd00::2").udp(1, 2)), hash(&v6("fd00::1", "fd00::2").udp(1, 2)));
    let bare = PacketBuilder::new().ether_type(0x88b5);
    assert_ne!(hash(&bare), hash(&bare.clone().ethernet([2, 0, 0, 0, 0, 9], [2; 6])));
}

/// The low bits alone must spread: clients differ in a few bits of one address or port.
#[test]
fn neighbouring_connections_spread_over_the_slots() {
    for vary in 0..3 {
        let mut slots = [0usize; 16];
        for n in 0..4096u16 {
            let [high, low] = n.to_be_bytes();
            let packet = match vary {
                0 => PacketBuilder::new().ipv4([10, 0, high, low], [192, 0, 2, 1]).tcp(40_000, 80),
                1 => PacketBuilder::new().ipv4([10, 0, 0, 1], [192, 0, 2, 1]).tcp(40_000 + n, 80),
                _ => PacketBuilder::new().ipv4([10, 0, 0, 1], [192, 0, high, low]).udp(53, 53),
            };
            slots[five_tuple(&key(&packet)) as usize % 16] += 1;
        }
        // 256 each, with a standard deviation of 15.5: five of them either way.
        assert!(slots.iter().all(|count| (178..334).contains(count)), "{vary}: {slots:?}");
    }
}
