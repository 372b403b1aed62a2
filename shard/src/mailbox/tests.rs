use std::cell::Cell;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicU64;

use memoffset::{offset_of, span_of};
use proptest::prelude::*;

use super::*;

/// What both threads write is on other lines than what the other one writes, in pairs of 64 bytes.
#[test]
fn no_line_is_written_by_both_sides() {
    type Ring = Shared<u64>;
    const PAIR: usize = 128;
    let lines = |span: std::ops::Range<usize>| span.start / PAIR..=(span.end - 1) / PAIR;
    let parts = [span_of!(Ring, sender), span_of!(Ring, receiver), span_of!(Ring, slots)].map(lines);
    for (index, part) in parts.iter().enumerate() {
        for other in &parts[index + 1..] {
            assert!(part.end() < other.start() || other.end() < part.start(), "{part:?} {other:?}");
        }
    }
    assert_eq!(offset_of!(Ring, sender) % PAIR, 0);
    assert_eq!(
        (align_of::<Ring>(), align_of::<Sender<u64>>(), align_of::<Receiver<u64>>()),
        (PAIR, PAIR, PAIR)
    );
    assert_eq!((size_of::<Sender<u64>>() % PAIR, size_of::<Receiver<u64>>() % PAIR), (0, 0));
    // Both sides' counters and flags fit a line.
    assert!(size_of::<Side>() <= 64);
    // The slots have pages of their own, so that they share no line with anything.
    let (sender, _receiver) = channel::<u64>(8, None).unwrap();
    assert_eq!(sender.shared.slots.0.address() % 4096, 0);
}

#[test]
fn capacities_are_rounded_up_and_impossible_ones_refused() {
    for (asked, made) in [(0, 1), (1, 1), (2, 2), (3, 4), (1000, 1024)] {
        let (sender, receiver) = channel::<u8>(asked, None).unwrap();
        assert_eq!((sender.capacity(), receiver.capacity()), (made, made));
    }
    for capacity in [usize::MAX, usize::MAX / 2, 1 << 62] {
        assert!(matches!(channel::<[u64; 9]>(capacity, None), Err(MemoryError::TooLarge { .. })));
    }
    assert!(channel::<u64>(8, Some(0)).is_ok());
    assert!(matches!(channel::<u64>(8, Some(4000)), Err(MemoryError::Bind { .. })));
}

#[test]
fn a_full_ring_refuses_until_there_is_room_again() {
    let (mut sender, mut receiver) = channel(2, None).unwrap();
    assert_eq!((sender.send(1), sender.stage(2), sender.send(3)), (Ok(()), Ok(()), Err(3)));
    let mut got = ArrayVec::<_, 8>::new();
    assert_eq!(receiver.receive_burst(&mut got), 1, "what is staged is not to be seen");
    sender.publish();
    assert_eq!((sender.send(4), sender.send(5)), (Ok(()), Err(5)));
    assert_eq!((receiver.waiting(), receiver.receive_burst(&mut got)), (2, 2));
    assert_eq!(got.as_slice(), [1, 2, 4]);
    assert_eq!(receiver.high_water(), 2);
    receiver.clear_high_water();
    assert_eq!((receiver.receive_burst(&mut got), receiver.high_water()), (0, 0));
}

#[test]
fn each_side_learns_that_the_other_has_gone() {
    let (mut sender, mut receiver) = channel(4, None).unwrap();
    assert!(!sender.is_disconnected() && !receiver.is_disconnected());
    sender.stage(1).unwrap();
    drop(sender);
    assert!(!receiver.is_disconnected(), "something is left");
    let mut got = ArrayVec::<_, 4>::new();
    assert_eq!((receiver.receive_burst(&mut got), receiver.is_disconnected()), (1, true));

    let (mut sender, receiver) = channel(2, None).unwrap();
    drop(receiver);
    // Until it looks, it does not know; what it sends meanwhile is dropped.
    assert_eq!((sender.send(1), sender.send(2), sender.send(3)), (Ok(()), Ok(()), Err(3)));
    assert!(sender.is_disconnected());
    let mut burst: ArrayVec<_, 2> = [4, 5].into();
    assert_eq!((sender.stage(6), sender.send_burst(&mut burst), burst.len()), (Err(6), 0, 2));
}

#[test]
fn counters_may_wrap() {
    let (mut sender, mut receiver) = channel(4, None).unwrap();
    let near = usize::MAX - 1;
    (sender.published, sender.tail, sender.head) = (near, near, near);
    (receiver.head, receiver.tail) = (near, near);
    sender.shared.sender.0.count.store(near, Ordering::Relaxed);
    sender.shared.receiver.0.count.store(near, Ordering::Relaxed);
    for round in 0..3 {
        let mut burst: ArrayVec<_, 5> = (0..5).map(|n| round * 10 + n).collect();
        assert_eq!((sender.send_burst(&mut burst), burst.len()), (4, 1));
        let mut got = ArrayVec::<_, 3>::new();
        assert_eq!(receiver.receive_burst(&mut got), 3);
        assert_eq!(got.as_slice(), [round * 10, round * 10 + 1, round * 10 + 2]);
        got.clear();
        assert_eq!((receiver.receive_burst(&mut got), got[0]), (1, round * 10 + 3));
    }
}

/// Tells when it goes, and fails on demand.
struct Fuse<'a>(&'a Cell<usize>, bool);

impl Drop for Fuse<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
        assert!(!self.1, "on purpose");
    }
}

// SAFETY: the test that uses it has one thread.
unsafe impl Send for Fuse<'_> {}

#[test]
fn an_entry_whose_drop_panics_makes_none_go_twice() {
    for receiver_first in [true, false] {
        let gone = Cell::new(0);
        let (mut sender, receiver) = channel(4, None).unwrap();
        for fails in [false, true, false] {
            assert!(sender.send(Fuse(&gone, fails)).is_ok());
        }
        let both = move || {
            if receiver_first { (drop(receiver), drop(sender)) } else { (drop(sender), drop(receiver)) }
        };
        assert!(catch_unwind(AssertUnwindSafe(both)).is_err());
        assert_eq!(gone.get(), 2, "the third is forgotten");
    }
}

/// What may be done to a ring.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Stage(u8),
    Publish,
    Burst(u8),
    Receive(u8),
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let deed = prop_oneof![
        (1..5u8).prop_map(Deed::Stage),
        Just(Deed::Publish),
        (0..9u8).prop_map(Deed::Burst),
        (0..9u8).prop_map(Deed::Receive),
    ];
    prop::collection::vec(deed, 0..200)
}

proptest! {
    /// Against a queue that is obviously right, with whatever end first: the same entries in the same order, the same
    /// refusals, and every entry goes once.
    #[test]
    fn a_ring_is_a_bounded_queue(exponent in 0..4u32, deeds in deeds(), sender_first: bool) {
        let capacity = 1usize << exponent;
        let (mut sender, mut receiver) = channel(capacity, None).unwrap();
        let (mut seen, mut staged) = (VecDeque::new(), VecDeque::new());
        let alive = Arc::new(());
        let mut numbers = 0..;
        let mut entry = || (numbers.next().unwrap(), Arc::clone(&alive));
        for deed in deeds {
            match deed {
                Deed::Stage(count) => for _ in 0..count {
                    let new = entry();
                    let number = new.0;
                    match sender.stage(new) {
                        Ok(()) => staged.push_back(number),
                        Err((back, _)) => {
                            prop_assert_eq!(back, number);
                            prop_assert_eq!(seen.len() + staged.len(), capacity);
                        }
                    }
                    prop_assert!(seen.len() + staged.len() <= capacity);
                },
                Deed::Publish => {
                    sender.publish();
                    seen.append(&mut staged);
                }
                Deed::Burst(count) => {
                    let mut burst: ArrayVec<_, 8> = (0..count).map(|_| entry()).collect();
                    let first: Vec<u64> = burst.iter().map(|entry| entry.0).collect();
                    let fits = first.len().min(capacity - seen.len() - staged.len());
                    prop_assert_eq!(sender.send_burst(&mut burst), fits);
                    prop_assert!(burst.iter().map(|entry| entry.0).eq(first[fits..].iter().copied()));
                    seen.append(&mut staged);
                    seen.extend(&first[..fits]);
                }
                Deed::Receive(count) => {
                    let mut got = ArrayVec::<(u64, Arc<()>), 8>::new();
                    for _ in count..8 {
                        got.push((u64::MAX, Arc::clone(&alive)));
                    }
                    let taken = receiver.receive_burst(&mut got);
                    prop_assert_eq!(taken, seen.len().min(usize::from(count)));
                    for (number, _) in got.drain(usize::from(8 - count)..) {
                        prop_assert_eq!(Some(number), seen.pop_front());
                    }
                }
            }
            prop_assert_eq!(Arc::strong_count(&alive), 1 + seen.len() + staged.len());
        }
        if sender_first {
            drop(sender);
            prop_assert_eq!(receiver.is_disconnected(), seen.is_empty() && staged.is_empty());
            drop(receiver);
        } else {
            drop(receiver);
            prop_assert!(sender.is_disconnected());
            prop_assert_eq!(Arc::strong_count(&alive), 1);
            drop(sender);
        }
        prop_assert_eq!(Arc::strong_count(&alive), 1);
    }
}

/// Two threads, entries with memory of their own, all bursts and capacities mixed: each arrives once and in order.
/// `WEIR_STRESS_ENTRIES` asks for more.
#[test]
fn stress_two_threads_pass_entries_in_order() {
    let entries = std::env::var("WEIR_STRESS_ENTRIES").map_or(400_000, |text| text.parse().unwrap());
    for capacity in [1, 2, 64, 1024] {
        let (mut sender, mut receiver) = channel::<Box<u64>>(capacity, None).unwrap();
        let refused = &AtomicU64::new(0);
        std::thread::scope(|scope| {
            // The sender goes with its thread.
            scope.spawn(move || {
                let mut next = 0u64;
                let mut burst = ArrayVec::<Box<u64>, 32>::new();
                let mut draw = 1u64;
                while next < entries || !burst.is_empty() {
                    draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    for _ in 0..(draw >> 59).min(entries - next) {
                        if burst.is_full() {
                            break;
                        }
                        burst.push(Box::new(next));
                        next += 1;
                    }
                    let wanted = burst.len();
                    if sender.send_burst(&mut burst) < wanted {
                        refused.fetch_add(1, Ordering::Relaxed);
                        std::thread::yield_now();
                    }
                }
            });
            let mut expected = 0;
            while !receiver.is_disconnected() {
                let mut burst = ArrayVec::<Box<u64>, 32>::new();
                if receiver.receive_burst(&mut burst) == 0 {
                    std::thread::yield_now();
                }
                for entry in burst {
                    assert_eq!(*entry, expected);
                    expected += 1;
                }
            }
            assert_eq!(expected, entries);
        });
        assert!(receiver.high_water() <= capacity);
        println!("capacity {capacity}: {} bursts did not fit", refused.load(Ordering::Relaxed));
    }
}

/// A receiver that goes in the middle of traffic, over and over: nothing leaks and nothing goes twice.
#[test]
fn stress_receivers_that_leave_leak_nothing() {
    for round in 0..300 {
        let alive = Arc::new(());
        let (mut sender, mut receiver) = channel(16, None).unwrap();
        std::thread::scope(|scope| {
            let sending = scope.spawn(|| {
                let mut refused = 0;
                while refused < 20 {
                    if sender.send(Box::new(Arc::clone(&alive))).is_err() {
                        refused += 1;
                        std::thread::yield_now();
                    }
                }
                drop(sender);
            });
            for _ in 0..round % 7 {
                receiver.receive_burst(&mut ArrayVec::<_, 4>::new());
            }
            drop(receiver);
            sending.join().unwrap();
        });
        assert_eq!(Arc::strong_count(&alive), 1);
    }
}
