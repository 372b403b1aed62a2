use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;

use weir_wire::Layers;
use weir_wire::build::PacketBuilder;

use super::*;
use crate::epoch::limbo::RESERVE;
use crate::{CtAction, CtMeta, Shard, ShardConfig};

fn shard(capacity: u32) -> Shard {
    let config = ShardConfig { capacity, max_connections: capacity, ..ShardConfig::default() };
    Shard::new(config, [1, 2, 3, 4]).unwrap()
}

/// What everything about connection `n` is derived from is its source address and port.
fn frame(n: u32) -> Vec<u8> {
    let [a, b, c, d] = n.to_be_bytes();
    let port = n as u16 | 1;
    if n.is_multiple_of(3) {
        let mut src = [0x20; 16];
        src[12..].copy_from_slice(&[a, b, c, d]);
        PacketBuilder::new().ipv6(src, [0x20; 16]).udp(port, 53).build()
    } else {
        PacketBuilder::new().ipv4([a, b, c, d], [192, 0, 2, 1]).udp(port, 53).build()
    }
}

fn mark(n: u32) -> u32 {
    n.wrapping_mul(0x9e37_79b9)
}

/// Both halves agree; `edition` tells one label of the connection from another.
fn label(n: u32, edition: u32) -> u128 {
    let half = u128::from(edition) << 32 | u128::from(mark(n));
    half << 64 | half
}

fn take(shard: &mut Shard, now: Millis, n: u32, edition: u32) {
    let action = CtAction {
        commit: true,
        mark: Some((mark(n), u32::MAX)),
        label: Some((label(n, edition), u128::MAX)),
        ..CtAction::default()
    };
    let mut frame = frame(n);
    let (layers, mut meta) = (Layers::parse(&frame), CtMeta::default());
    let mut lookup = shard.prepare(&frame, &layers, 0, &meta, false);
    shard.prefetch(&mut lookup);
    shard.execute(now, &mut frame, &layers, &lookup, &action, &mut meta);
}

/// The number of a connection that [`take`] made, if this is one; panics if anything of it is another's.
fn check(view: &ConnectionView) -> u32 {
    let n = match view.original.src() {
        std::net::IpAddr::V4(address) => address.to_bits(),
        std::net::IpAddr::V6(address) => address.to_bits() as u32,
    };
    assert_eq!(view.original.src_port(), n as u16 | 1, "{view:?}");
    assert_eq!(view.reply, view.original.reversed(), "{view:?}");
    assert_eq!(view.mark, mark(n), "{view:?}");
    let edition = (view.label >> 32) as u32;
    assert_eq!(view.label, label(n, edition), "{view:?}");
    assert!(view.traffic.unwrap().original.packets >= 1, "{view:?}");
    n
}

fn all(reader: &ShardReader, now: Millis) -> Vec<u32> {
    let (mut cursor, mut seen) = (DumpCursor::default(), Vec::new());
    while !cursor.is_done() {
        reader.dump(now, &mut cursor, 1000, &mut |_, view| {
            seen.push(check(&view));
            ControlFlow::Continue(())
        });
    }
    seen
}

#[test]
fn a_reader_shows_what_the_owner_shows_in_the_same_order_and_stops_where_it_is_told() {
    let mut shard = shard(1000);
    for n in 1..=300 {
        take(&mut shard, 1000, n, 0);
    }
    let reader = shard.reader();
    let (mut own, mut cursor) = (Vec::new(), DumpCursor::default());
    shard.dump(1500, &mut cursor, 1000, &mut |view| own.push(view.clone()));
    let mut shown = Vec::new();
    let mut cursor = DumpCursor::default();
    while !cursor.is_done() {
        // Pages that end in the middle of what is looked at under one guard.
        let full = shown.len() + 7;
        reader.dump(1500, &mut cursor, 100, &mut |_, view| {
            shown.push(view);
            if shown.len() < full { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        assert!(shown.len() <= full);
    }
    assert_eq!(shown, own);
    assert_eq!(shown.len(), 300);
    assert_eq!(shown[0].age, 500);
    // An hour on nothing lives, and before the first packet nothing is older than nothing.
    assert_eq!(all(&reader, 3_600_000), []);
    assert_eq!(all(&reader, 10).len(), 300);
    drop(shard);
    assert_eq!(all(&reader, 1500).len(), 300, "the memory outlives the shard");
}

#[test]
fn only_those_that_are_still_meant_are_flushed() {
    let mut shard = shard(100);
    for n in 1..=50 {
        take(&mut shard, 0, n, 0);
    }
    let reader = shard.reader();
    let mut named = Vec::new();
    reader.dump(0, &mut DumpCursor::default(), 100, &mut |name, view| {
        if check(&view) <= 20 {
            named.push(name);
        }
        ControlFlow::Continue(())
    });
    assert_eq!(named.len(), 20);
    // Some end meanwhile, and their slots have others in them.
    assert_eq!(shard.flush(0, &mut DumpCursor::default(), 5, &mut |_| true), 5);
    drop(reader);
    shard.sweep(1, 100);
    assert_eq!(shard.retired(), 0);
    for n in 101..=105 {
        take(&mut shard, 1, n, 0);
    }
    let removed = shard.flush_named(1, &named, &mut |view| check(view) != 20);
    assert_eq!((removed, shard.len()), (14, 36));
    assert_eq!(shard.flush_named(1, &named, &mut |_| true), 1);
    assert_eq!(shard.flush_named(1, &named, &mut |_| true), 0);
}

#[test]
fn a_slot_is_not_used_again_while_a_guard_may_see_what_lived_in_it() {
    let mut shard = shard(8);
    let table = shard.table.share(0);
    let participant = table.epochs.participate();
    let guard = participant.pin();
    let mut slots = BTreeSet::new();
    for n in 1..=100 {
        take(&mut shard, 0, n, 0);
        let mut cursor = DumpCursor::default();
        while !cursor.is_done() {
            ShardReader::new(Arc::clone(&table)).dump(0, &mut cursor, 100, &mut |name, view| {
                assert_eq!(check(&view), n);
                assert!(slots.insert(name.index()), "slot {} was used again", name.index());
                ControlFlow::Continue(())
            });
        }
        assert_eq!(shard.flush(0, &mut DumpCursor::default(), usize::MAX, &mut |_| true), 1);
        shard.sweep(0, 100);
    }
    assert_eq!((shard.retired(), slots.len()), (100, 100));
    drop(guard);
    for _ in 0..10 {
        shard.sweep(0, 100);
    }
    assert_eq!(shard.retired(), 0);
    take(&mut shard, 0, 101, 0);
    assert!(shard.table.used() <= 100, "an old slot is good enough now");
}

#[test]
fn readers_that_hold_on_for_ever_cost_new_connections_and_no_more() {
    let mut shard = shard(2);
    let table = shard.table.share(0);
    let participant = table.epochs.participate();
    let guard = participant.pin();
    let mut n = 0;
    while shard.counters().refused_by_readers == 0 {
        n += 1;
        take(&mut shard, 0, n, 0);
        // It is always a slot that was never used.
        shard.flush(0, &mut DumpCursor::at(n - 1), 1, &mut |_| true);
        assert!(n < 2 * RESERVE);
    }
    assert_eq!((shard.len(), shard.retired(), n), (0, RESERVE + 2, RESERVE + 3));
    assert_eq!(shard.counters().refused_by_full_table, 0);
    drop(guard);
    for _ in 0..20 {
        shard.sweep(0, 100);
    }
    take(&mut shard, 0, 1, 0);
    assert_eq!((shard.len(), shard.retired()), (1, 0));
}

#[test]
fn without_readers_nothing_waits() {
    let mut shard = shard(8);
    for n in 1..=1000 {
        take(&mut shard, 0, n, 0);
        shard.flush(0, &mut DumpCursor::default(), usize::MAX, &mut |_| true);
    }
    assert_eq!((shard.retired(), shard.table.used()), (0, 1));
    let reader = shard.reader();
    let second = reader.clone();
    drop(reader);
    take(&mut shard, 0, 1, 0);
    shard.flush(0, &mut DumpCursor::default(), usize::MAX, &mut |_| true);
    assert_eq!(shard.retired(), 1);
    drop(second);
    shard.sweep(0, 100);
    assert_eq!(shard.retired(), 0);
}

/// Rounds of the stress: some seconds with optimisation, and as many as a sanitizer can take.
const ROUNDS: u32 = 300;
const CAPACITY: u32 = 3000;

#[test]
fn whatever_readers_see_beside_a_busy_owner_is_a_connection_that_was() {
    let mut shard = shard(CAPACITY);
    let reader = shard.reader();
    let done = AtomicBool::new(false);
    let (names, named) = channel::<Vec<ConnectionRef>>();
    std::thread::scope(|scope| {
        for role in 0..2 {
            let (reader, names, done) = (reader.clone(), names.clone(), &done);
            scope.spawn(move || {
                let mut seen = 0usize;
                loop {
                    // Read before the walk: the last one comes behind the owner's last change.
                    let is_last = done.load(Ordering::Acquire);
                    let mut cursor = DumpCursor::default();
                    while !cursor.is_done() {
                        let mut some = Vec::new();
                        reader.dump(0, &mut cursor, 500, &mut |name, view| {
                            seen += 1;
                            if check(&view) % 5 == role {
                                some.push(name);
                            }
                            ControlFlow::Continue(())
                        });
                        let _ = names.send(some);
                    }
                    if is_last {
                        break;
                    }
                }
                assert!(seen > 0);
            });
        }
        let mut flushed = 0;
        for round in 0..ROUNDS {
            // Connections come, get other labels, and go by all ways.
            for step in 0..200 {
                let n = 1 + (round * 97 + step * 31) % 9000;
                take(&mut shard, 0, n, round);
            }
            while let Ok(some) = named.try_recv() {
                flushed += shard.flush_named(0, &some, &mut |view| {
                    check(view);
                    true
                });
            }
            let mut cursor = DumpCursor::at(round * 37 % CAPACITY);
            shard.flush(0, &mut cursor, 100, &mut |view| check(view).is_multiple_of(2));
            shard.sweep(0, 32);
        }
        done.store(true, Ordering::Release);
        println!(
            "{flushed} flushed by name, {} others, {} created",
            shard.counters().flushed,
            shard.counters().created
        );
    });
    assert_eq!(shard.counters().refused_by_readers, 0);
    let mut seen = all(&reader, 0);
    assert_eq!(seen.len(), shard.len() as usize);
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), shard.len() as usize);
    drop(reader);
    shard.sweep(0, 32);
    assert_eq!(shard.retired(), 0, "no reader, no limbo");
}
