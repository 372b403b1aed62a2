use proptest::prelude::*;
use weir_shard::{CtMeta, CtState};
use weir_wire::build::PacketBuilder;
use weir_wire::numbers::ether_type;

use super::*;
use crate::pipeline::megaflow::Recipe;

const GENERATION: u64 = 1;

fn class(port: PortId) -> Class {
    let frame = PacketBuilder::new().ipv4([192, 168, 0, 1], [203, 0, 113, 9]).udp(1, 2).build();
    Class::of(port, &Layers::parse(&frame))
}

/// A megaflow for packets with these bits of a field.
fn install(megaflows: &mut Megaflows, (offset, length): (usize, usize), value: u128) -> u32 {
    let (mut mask, mut key) = (Key::ZERO, Key::ZERO);
    mask.write(offset, length, u128::MAX);
    key.write(offset, length, value);
    let steps = Box::new([Step::Output(2)]);
    let (rules, learned, contexts) = (Box::default(), Box::default(), Box::default());
    let recipe = Recipe { mask, steps, rules, learned, contexts, drop: None };
    megaflows.insert(&key, recipe, GENERATION, 0)
}

fn course(class: Class, flows: &[u32]) -> Course {
    let mut course = Course::NONE;
    course.begin(class, 0);
    for (hop, flow) in (0..).zip(flows) {
        course.pass(hop, *flow);
    }
    course
}

const ADDRESS: (usize, usize) = (at::NW_SRC, 4);

#[test]
fn numbers_that_have_run_out_are_used_again_for_others() {
    let (mut megaflows, mut trajectories) = (Megaflows::new(10_000, 1), Trajectories::new(true));
    let flows: Vec<u32> =
        (0..u128::from(HINTS) + 10).map(|value| install(&mut megaflows, ADDRESS, value)).collect();
    let course = |flow: u32| course(class(1), &[flow]);
    let numbers: Vec<u16> =
        flows.iter().map(|flow| trajectories.learn(&course(*flow), 0, &megaflows)).collect();
    assert!(numbers.iter().all(|number| (1..HINTS).contains(number)));
    assert_eq!(trajectories.len(), usize::from(HINTS) - 1);
    // The first ones have given way, in their order.
    assert_eq!(numbers[usize::from(HINTS) - 1..], numbers[..11]);
    for (flow, number) in flows.iter().zip(&numbers).skip(11) {
        assert_eq!(trajectories.find(*number).unwrap().hops[0].flow, *flow);
        assert_eq!(trajectories.learn(&course(*flow), 0, &megaflows), *number, "it is known");
    }
    // One that has given way is learned anew, and does not find what has its number now.
    let again = trajectories.learn(&course(flows[0]), 0, &megaflows);
    assert_ne!(again, numbers[0]);
    assert_eq!(trajectories.find(again).unwrap().hops[0].flow, flows[0]);
}

#[test]
fn a_megaflow_that_has_another_ones_index_is_not_taken_for_it() {
    let (mut megaflows, mut trajectories) = (Megaflows::new(10, 1), Trajectories::new(true));
    let flow = install(&mut megaflows, ADDRESS, 1);
    let number = trajectories.learn(&course(class(1), &[flow]), 0, &megaflows);
    assert!(trajectories.find_for(number, class(1), &megaflows, GENERATION).is_some());
    megaflows.retire(flow);
    assert!(trajectories.find_for(number, class(1), &megaflows, GENERATION).is_none(), "retired");
    assert_eq!(trajectories.learn(&course(class(1), &[flow]), 0, &megaflows), 0, "nothing is learned of it");
    megaflows.reclaim(|_| {});
    assert_eq!(install(&mut megaflows, ADDRESS, 2), flow);
    assert!(trajectories.find_for(number, class(1), &megaflows, GENERATION).is_none(), "another one");
    assert_ne!(trajectories.learn(&course(class(1), &[flow]), 0, &megaflows), number);
}

#[test]
fn a_trajectory_ends_with_the_generation_of_its_megaflows() {
    let (mut megaflows, mut trajectories) = (Megaflows::new(10, 1), Trajectories::new(true));
    let flow = install(&mut megaflows, ADDRESS, 1);
    let number = trajectories.learn(&course(class(1), &[flow]), 0, &megaflows);
    trajectories.set_usual(1, number, true);
    assert!(trajectories.has_usual(1, &megaflows, GENERATION));
    megaflows.begin_burst();
    assert!(trajectories.find_for(number, class(1), &megaflows, GENERATION + 1).is_none());
    assert!(!trajectories.has_usual(1, &megaflows, GENERATION + 1));
}

#[test]
fn classes_tell_ports_families_protocols_and_tags_apart() {
    let v4 = || PacketBuilder::new().ipv4([192, 168, 0, 1], [203, 0, 113, 9]);
    let (near, far) = (std::net::Ipv6Addr::LOCALHOST, std::net::Ipv6Addr::UNSPECIFIED);
    let packets = [
        v4().udp(1, 2).build(),
        v4().tcp(1, 2).build(),
        v4().vlan(5).udp(1, 2).build(),
        PacketBuilder::new().ipv6(near, far).udp(1, 2).build(),
    ];
    let mut classes: Vec<Class> = packets.iter().map(|packet| Class::of(1, &Layers::parse(packet))).collect();
    classes.push(class(2));
    for (at, one) in classes.iter().enumerate() {
        assert_ne!(*one, Class::NONE);
        assert!(!classes[..at].contains(one), "{at}");
    }
    let fragment = v4().fragment(7, 0, true).udp(1, 2).build();
    let bare = PacketBuilder::new().ether_type(0x88b5).build();
    for packet in [fragment, bare] {
        assert_eq!(Class::of(1, &Layers::parse(&packet)), Class::NONE);
    }

    let (mut megaflows, mut trajectories) = (Megaflows::new(10, 1), Trajectories::new(true));
    let flow = install(&mut megaflows, ADDRESS, 1);
    let [number, other] = [1, 2].map(|port| trajectories.learn(&course(class(port), &[flow]), 0, &megaflows));
    assert_ne!(number, other);
    assert!(trajectories.find_for(number, class(1), &megaflows, GENERATION).is_some());
    assert!(trajectories.find_for(number, class(2), &megaflows, GENERATION).is_none());
}

#[test]
fn of_a_long_way_the_beginning_is_remembered() {
    let (mut megaflows, mut trajectories) = (Megaflows::new(10, 1), Trajectories::new(true));
    let flows: Vec<u32> = (0..6).map(|value| install(&mut megaflows, ADDRESS, value)).collect();
    let number = trajectories.learn(&course(class(1), &flows), 5, &megaflows);
    let hops: Vec<u32> = trajectories.find(number).unwrap().hops.iter().map(|hop| hop.flow).collect();
    assert_eq!(hops, flows[..MAX_HOPS]);
    // A shorter way over the same megaflows is another one.
    assert_ne!(trajectories.learn(&course(class(1), &flows), 1, &megaflows), number);
}

#[test]
fn what_no_single_word_says_is_compared_by_key() {
    let mut megaflows = Megaflows::new(10, 1);
    let mut hop = |field| {
        let index = install(&mut megaflows, field, 1);
        Hop::new(index, megaflows.flow(index).unwrap())
    };
    let known = hop((at::IN_PORT, 4));
    assert!(!known.by_key && known.compared.is_empty() && known.fits_all_untracked());
    for field in [ADDRESS, (at::CT_MARK, 4), (at::IPV6_DST, 16), (at::CT_LABEL, 16), (at::ETH_SRC, 6)] {
        let single = hop(field);
        assert!(!single.by_key && !single.compared.is_empty() && !single.fits_all_untracked());
    }
    for field in [(at::TCP_FLAGS, 2), (at::CT_NW_SRC, 4), (at::CT_NW_PROTO, 1), (at::ND_TARGET, 16)] {
        let other = hop(field);
        assert!(other.by_key && !other.fits_all_untracked(), "{field:?}");
    }
    let tracked = hop((at::CT_STATE, 4));
    assert!(tracked.compared.is_empty() && !tracked.fits_all_untracked());
}

#[test]
fn packets_without_a_connection_change_what_is_usual_after_a_while() {
    let mut trajectories = Trajectories::new(true);
    assert_eq!(trajectories.usual(7), 0);
    trajectories.set_usual(7, 3, false);
    assert_eq!((trajectories.usual(7), trajectories.usual(6), trajectories.usual(8)), (3, 0, 0));
    let patient = (0..).take_while(|_| !trajectories.is_out_of_patience()).count();
    assert_eq!(patient as u32 + 1, PATIENCE);
}

/// IP packets of all sorts, some of them damaged or cut.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let addresses = (any::<[u8; 4]>(), any::<[u8; 16]>(), any::<[u8; 16]>());
    let shape = (0..6u8, 0..3u8, any::<bool>(), any::<bool>());
    let damage = (any::<prop::sample::Index>(), prop::option::of(any::<u8>()), 0..64usize);
    (addresses, shape, any::<(u16, u16)>(), damage).prop_map(
        |((v4, src, dst), (kind, tags, is_v4, has_options), (sport, dport), (at, byte, cut))| {
            let mut builder = PacketBuilder::new();
            for tag in 0..tags {
                builder = builder.vlan(u16::from(tag) + 5);
            }
            builder = if is_v4 { builder.ipv4(v4, [9, 8, 7, 6]) } else { builder.ipv6(src, dst) };
            if has_options && is_v4 {
                builder = builder.ipv4_options(&[1, 1, 1, 0]);
            }
            let mut frame = match kind {
                0 => builder.tcp(sport, dport),
                1 => builder.udp(sport, dport),
                2 => builder.sctp(sport, dport, 7),
                3 => builder.echo_request(sport, dport),
                4 => builder.neighbour_solicitation(std::net::Ipv6Addr::from(src), [2; 6]),
                _ => builder.protocol(47),
            }
            .payload(&v4)
            .build();
            if let Some(byte) = byte {
                let at = at.index(frame.len());
                frame[at] = byte;
            }
            frame.truncate(frame.len().saturating_sub(cut.saturating_sub(32)));
            frame
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_single_word_is_that_of_the_whole_key(
        frame in frames(), state: u8, zone: u16, mark: u32, label: u128
    ) {
        let layers = Layers::parse(&frame);
        if Class::of(1, &layers) == Class::NONE {
            return Ok(());
        }
        prop_assert!([ether_type::IPV4, ether_type::IPV6].contains(&layers.ether_type));
        let state = CtState(state);
        let meta = CtMeta { state, zone, mark, label, ..CtMeta::default() };
        let mut key = Key::ZERO;
        extract::headers(&frame, &layers, &mut key);
        extract::connection(&meta, false, &mut key);
        for word in SINGLE_WORDS {
            let single = extract::word(&frame, &layers, &meta, word);
            prop_assert_eq!(single & word_bits(word), key.words[word] & word_bits(word), "{}", word);
        }
    }
}
