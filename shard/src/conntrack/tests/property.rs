//! Random packets, whole and broken, through a shard: nothing panics, nothing leaks.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
struct Sent {
    packet: Frame,
    actions: Vec<CtAction>,
    /// Byte, and what it is XORed with.
    damage: Vec<(usize, u8)>,
    cut: Option<usize>,
    checksums_trusted: bool,
    pause: u64,
}

fn packet() -> impl Strategy<Value = Frame> {
    let hosts = prop::sample::select(vec![INSIDE, "10.1.1.3", OUTSIDE, PUBLIC, "192.0.2.2"]);
    let hosts6 = prop::sample::select(vec!["2001:db8::1", "2001:db8::2", "2001:db8::3"]);
    let ends = prop_oneof![(hosts.clone(), hosts), (hosts6.clone(), hosts6)];
    let flags = prop::sample::select(vec!["S", "SA", "A", "PA", "FA", "RA", "R"]);
    let number = prop_oneof![Just(100u32), Just(101), Just(500), Just(501), any::<u32>()];
    (ends, 1u16..4, 1u16..4, 0u8..6, flags, number.clone(), number, any::<bool>()).prop_map(
        |((src, dst), src_port, dst_port, kind, flags, seq, ack, error)| {
            let v6 = src.contains(':');
            let packet = match (kind, v6) {
                (0 | 1, _) => Frame::tcp(&tuple(6, src, src_port, dst, dst_port), flags, seq, ack),
                (2, _) => Frame::udp(&tuple(17, src, src_port, dst, dst_port)),
                (3, false) => {
                    Frame::icmp(&tuple(1, src, src_port, dst, if dst_port == 1 { 0 } else { 8 << 8 }))
                }
                (3, true) => Frame::icmp(&tuple(58, src, src_port, dst, (127 + dst_port.min(2)) << 8)),
                _ => Frame::generic(&tuple(100 + kind, src, 0, dst, 0)),
            };
            if error && kind < 4 {
                let router = if v6 { "2001:db8::9" } else { "10.9.9.9" };
                packet.unreachable_from(router)
            } else {
                packet
            }
        },
    )
}

fn action() -> impl Strategy<Value = CtAction> {
    let nat = prop_oneof![
        Just(None),
        Just(Some(NatAction::Apply)),
        Just(Some(NatAction::Source(range(PUBLIC, None)))),
        Just(Some(NatAction::Source(range(PUBLIC, Some((6000, 6002)))))),
        Just(Some(NatAction::Destination(range(OUTSIDE, Some((80, 81)))))),
        Just(Some(NatAction::Source(NatRange { addresses: None, ..range(PUBLIC, None) }))),
    ];
    let label = prop::option::of((any::<u128>(), any::<u128>()));
    (0u16..2, any::<bool>(), any::<bool>(), prop::option::of(any::<(u32, u32)>()), label, nat).prop_map(
        |(zone, commit, force, mark, label, nat)| CtAction {
            zone,
            commit,
            force,
            mark,
            label,
            helper: None,
            nat,
        },
    )
}

fn sent() -> impl Strategy<Value = Sent> {
    (
        packet(),
        prop::collection::vec(action(), 1..4),
        prop_oneof![4 => Just(vec![]), 1 => prop::collection::vec((0usize..120, any::<u8>()), 1..4)],
        prop_oneof![9 => Just(None), 1 => (0usize..80).prop_map(Some)],
        any::<bool>(),
        prop_oneof![6 => Just(0), 2 => 0u64..40_000, 1 => 0u64..100_000_000],
    )
        .prop_map(|(packet, actions, damage, cut, checksums_trusted, pause)| Sent {
            packet,
            actions,
            damage,
            cut,
            checksums_trusted,
            pause,
        })
}

/// What must hold whatever was sent.
fn check(shard: &Shard) {
    let counters = shard.counters();
    let ended = counters.expired + counters.flushed + counters.replaced;
    assert_eq!(u64::from(shard.len()), counters.created - ended);
    let mut live = 0;
    let mut cursor = DumpCursor::default();
    shard.dump(0, &mut cursor, usize::MAX, &mut |_| live += 1);
    assert!(cursor.is_done() && live <= shard.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn no_packet_panics_leaks_a_slot_or_leaves_untranslated(
        capacity in 1u32..20,
        max_connections in 1u32..25,
        sequence in prop::collection::vec(sent(), 1..120),
    ) {
        let mut lab = Lab::with(ShardConfig { max_connections, ..config(capacity) });
        for Sent { mut packet, actions, damage, cut, checksums_trusted, pause } in sequence {
            lab.now += pause;
            for (at, change) in damage {
                if let Some(byte) = packet.bytes.get_mut(at) {
                    *byte ^= change;
                }
            }
            packet.bytes.truncate(cut.unwrap_or(usize::MAX));
            packet.layers = Layers::parse(&packet.bytes);
            let mut meta = CtMeta::default();
            for action in actions {
                let mut lookup = lab.shard.prepare(
                    &packet.bytes, &packet.layers, action.zone, &meta, checksums_trusted,
                );
                lab.shard.prefetch(&mut lookup);
                lab.shard.foresee(&mut lookup, &action);
                let before = packet.bytes.clone();
                let outcome =
                    lab.shard.execute(lab.now, &mut packet.bytes, &packet.layers, &lookup, &action, &mut meta);
                match outcome {
                    Outcome::Elsewhere { .. } => prop_assert!(false, "a shard alone owns everything"),
                    Outcome::Continue { rewritten: false } => {
                        prop_assert_eq!(&packet.bytes, &before);
                        let ranged = matches!(action.nat, Some(NatAction::Source(_) | NatAction::Destination(_)));
                        let translated = meta.is_translated_in(action.zone);
                        // A connection that was committed without a translation stays without.
                        let plain = meta.connection.is_some();
                        prop_assert!(!(ranged && action.commit) || translated || plain);
                    }
                    Outcome::Continue { rewritten: true } => prop_assert!(meta.is_translated_in(action.zone)),
                    Outcome::Edit => prop_assert!(!lab.shard.take_edits().is_empty()),
                    Outcome::Drop(_) => break,
                }
                prop_assert!(meta.state.has(CtState::TRK));
                prop_assert!(!meta.state.has(CtState::NEW) || meta.state.0 & (CtState::EST.0 | CtState::RPL.0) == 0);
            }
            check(&lab.shard);
        }
        lab.now += 10 * 86_400_000;
        lab.sweep();
        prop_assert_eq!(lab.shard.len(), 0);
        check(&lab.shard);
        // Every slot is free again.
        for n in 0..capacity.min(max_connections) {
            lab.send(&Frame::udp(&flow(u16::try_from(n).unwrap() + 1)), &commit());
        }
        prop_assert_eq!(lab.shard.len(), capacity.min(max_connections));
    }
}
