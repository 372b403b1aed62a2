//! A value that one thread publishes and lcores read: the pipeline's snapshot. A reader never waits, never allocates
//! and never drops one; a new value is one exchanged pointer, so that every reader takes it whole, at a moment of its
//! own choosing (between two bursts). What was replaced is dropped by the publisher's thread.
//!
//! # Protocol
//!
//! There is one [`Published`] and any number of [`Reader`]s, participants of one crossbeam-epoch collector of their
//! own, so that nothing else that uses epochs delays what is retired here.
//!
//! *Who writes what.* `current` and the collector's epoch are written by the publisher alone. Each reader writes its
//! own epoch, and nothing that another reader reads. The list of returned nodes is written by whoever runs what was
//! deferred (below) and emptied by the publisher.
//!
//! *A reader is pinned all its life* and moves its pin to the present epoch in [`Reader::refresh`], once a burst. In
//! place of pinning and unpinning, which costs a locked instruction and has crossbeam collect other threads' garbage at
//! every 128th turn, this is a few loads and a comparison; the reader's epoch is stored only if it has changed. The price
//! is that a reader that does not refresh for long holds back what has been replaced: that is bounded, see below.
//! An order to keep in `refresh`: move the pin, *then* load `current`. The reference got by it lasts until the next
//! `refresh`, which wants the reader for itself alone.
//!
//! *The publisher* exchanges `current` (release: a reader that sees the node sees what it holds), defers the return of
//! the old node to the present epoch, and tries to advance. A deferred function is run two advances later. The epoch
//! advances only if every pinned participant has been seen in it.
//!
//! *Why no node is dropped under a reader.* Let a reader be pinned in epoch `k` and hold node `p`. The epoch is `k + 1` at
//! the most, since to go further the publisher has to see the reader in `k + 1`. So whatever runs was deferred in
//! `k - 1` or before. Were `p` among that, the publisher would have exchanged it before it advanced to `k`; the
//! reader saw `k` (relaxed, in crossbeam), passed an acquire fence and then loaded `current`; the fence pairs with the
//! release store of `k`, so the load would have seen the exchange. A reader's pin only grows, so a stale look at it
//! delays the publisher and harms nobody. The reader's last use of a node comes before the release store of its new
//! pin, which the publisher acquires before it advances, and hence before the node is dropped.
//!
//! *Who drops.* crossbeam runs deferred functions on any thread that collects: the publisher's mostly, but also the one
//! on which the last participant goes. Therefore the deferred function only links the node into the list of returned
//! ones, through a word that the node itself has: no allocation, no drop. The publisher drops what it finds there in
//! [`Published::publish`] and [`Published::reclaim`]. What is out when publisher and readers are gone is dropped by the
//! last of them; who cares ends the readers first.
//!
//! *Bounds.* At most [`MAX_RETIRED`] replaced values are out. With more, `publish` refuses, and a reader that is stuck
//! costs no more than that. A reader never sees less than the last value that was accepted.

#![allow(unsafe_code)] // an epoch module

use core::fmt;
use core::ops::Deref;
use core::ptr;

use crossbeam_epoch::{Atomic, Collector, Guard, LocalHandle, Owned};

use crate::sync::{Arc, AtomicPtr, Ordering, fence};

/// Replaced values that may wait for readers; more are not accepted. A daemon publishes at most a few a second while
/// every reader is well, so this is only reached when one is stuck.
pub const MAX_RETIRED: usize = 32;

/// How often [`Published::reclaim`] tries to advance: two advances free a value, and each try returns no more than
/// eight bags of deferred functions (crossbeam's bound), of which every publication fills one.
const TRIES: usize = 2 + MAX_RETIRED / 8;

/// As many replaced values are out as may be: some reader does not refresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the last {MAX_RETIRED} changes still wait for a reader that has not looked since; nothing was published"
)]
pub struct Full;

/// One published value.
struct Node<T> {
    /// Counts publications: an address may come back, a number does not.
    number: u64,
    /// The next of the returned list; used by its owner alone, once the node is out of readers' reach.
    next: *mut Self,
    value: T,
}

/// What readers load. On lines of its own, for allocations beside it are written.
#[repr(align(128))]
struct Place<T> {
    current: Atomic<Node<T>>,
}

impl<T> Drop for Place<T> {
    fn drop(&mut self) {
        // SAFETY: the last reader and the publisher hold this by reference counts; whoever drops it is the only one
        // left, and `current` always points to a node from `Owned::new` that nobody has retired.
        let node = unsafe { core::mem::take(&mut self.current).try_into_owned() };
        drop(node);
    }
}

/// Nodes out of all readers' reach, on their way to the publisher.
struct Returned<T> {
    head: AtomicPtr<Node<T>>,
}

impl<T> Returned<T> {
    fn push(&self, node: Box<Node<T>>) {
        let node = Box::into_raw(node);
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            // SAFETY: the node came out of its box here, and is nobody else's until the exchange succeeds.
            unsafe { (*node).next = head };
            match self.head.compare_exchange_weak(head, node, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(other) => head = other,
            }
        }
    }

    /// Drops them all, here, and says how many there were.
    fn empty(&self) -> usize {
        let mut dropped = 0;
        // All at once: with no single pops, no address can come back in the middle of one.
        let mut next = self.head.swap(ptr::null_mut(), Ordering::Acquire);
        while !next.is_null() {
            // SAFETY: every node in the list came from a box in `push`, is in it once, and belongs to who took the
            // list's head.
            let node = unsafe { Box::from_raw(next) };
            next = node.next;
            dropped += 1;
        }
        dropped
    }
}

impl<T> Drop for Returned<T> {
    fn drop(&mut self) {
        self.empty();
    }
}

/// The publisher's end. See the [module](self) for what may be relied upon.
///
/// ```
/// use weir_shard::epoch::Published;
///
/// let mut published = Published::new("first");
/// let mut reader = published.reader();
/// published.publish("second")?;
/// assert_eq!(*reader, "first", "until the reader looks");
/// assert!(reader.refresh());
/// assert_eq!(*reader, "second");
/// # Ok::<(), weir_shard::epoch::Full>(())
/// ```
pub struct Published<T: Send + Sync + 'static> {
    // In this order: what the collector returns when it goes must still find its list.
    handle: LocalHandle,
    collector: Collector,
    returned: Arc<Returned<T>>,
    place: Arc<Place<T>>,
    number: u64,
    retired: usize,
}

// SAFETY: what keeps `LocalHandle` on its thread are cells that its owner alone uses, without atomics. It is the only
// handle and the only guards of its participant live within methods that borrow `self` mutably, so that the participant
// moves as a whole. The values are dropped and shared where this goes: they are `Send + Sync`.
unsafe impl<T: Send + Sync + 'static> Send for Published<T> {}

impl<T: Send + Sync + 'static> Published<T> {
    /// Publishes a first value.
    #[must_use]
    pub fn new(value: T) -> Self {
        let collector = Collector::new();
        let node = Node { number: 0, next: ptr::null_mut(), value };
        Self {
            handle: collector.register(),
            collector,
            returned: Arc::new(Returned { head: AtomicPtr::new(ptr::null_mut()) }),
            place: Arc::new(Place { current: Atomic::new(node) }),
            number: 0,
            retired: 0,
        }
    }

    /// A new reader, which has the present value.
    #[must_use]
    pub fn reader(&mut self) -> Reader<T> {
        // The handle goes and the guard stays: it keeps the participant.
        let guard = self.collector.register().pin();
        let place = Arc::clone(&self.place);
        let seen = place.current.load(Ordering::Acquire, &guard).as_raw();
        Reader { guard, seen, number: self.number, place }
    }

    /// Replaces the value: whatever a reader takes from now on is this one. Readers that have the old one keep it until
    /// they refresh. Drops what has come back.
    ///
    /// # Errors
    /// When [`MAX_RETIRED`] values are out, even after a try to get them back. Nothing has changed then.
    pub fn publish(&mut self, value: T) -> Result<(), Full> {
        if !self.has_room() {
            return Err(Full);
        }
        self.number += 1;
        let node = Owned::new(Node { number: self.number, next: ptr::null_mut(), value });
        let guard = self.handle.pin();
        let old = self.place.current.swap(node, Ordering::AcqRel, &guard);
        let returned = Arc::clone(&self.returned);
        // Counted first, so that nothing comes back that was not out.
        self.retired += 1;
        // SAFETY: `old` came from `Owned::new`, is not reachable any more since the exchange, and is deferred this
        // once; the function runs when no participant that was pinned by now is (module documentation). What it holds
        // may go to any thread: the list is shared by an `Arc` and `T` is `Send`. It borrows nothing.
        unsafe { guard.defer_unchecked(move || returned.push(old.into_owned().into_box())) };
        guard.flush();
        drop(guard);
        self.retired -= self.returned.empty();
        Ok(())
    }

    /// A value would be accepted now, as far as it depends on what is out: if need be after a try to get some back.
    #[must_use]
    pub fn has_room(&mut self) -> bool {
        self.retired < MAX_RETIRED || self.reclaim() < MAX_RETIRED
    }

    /// Tries to get replaced values back, drops those that came, and says how many are still out. It never waits; when
    /// every reader refreshes between two calls, the second or the third one gets all.
    pub fn reclaim(&mut self) -> usize {
        for _ in 0..TRIES {
            if self.retired == 0 {
                break;
            }
            // Pinned anew each time, for a pin of an older epoch is in the way of advancing.
            self.handle.pin().flush();
            self.retired -= self.returned.empty();
        }
        self.retired
    }

    /// Replaced values that have not come back, as of the last call.
    #[must_use]
    pub fn retired(&self) -> usize {
        self.retired
    }
}

impl<T: Send + Sync + 'static> fmt::Debug for Published<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, retired, .. } = self;
        f.debug_struct("Published").field("number", number).field("retired", retired).finish_non_exhaustive()
    }
}

/// One lcore's end: dereferences to the value that it took with its last [`refresh`](Self::refresh).
pub struct Reader<T: Send + Sync + 'static> {
    // In this order: the place may go with the last reader, and no pin must be left then.
    guard: Guard,
    /// Loaded under `guard` after it was last moved.
    seen: *const Node<T>,
    number: u64,
    place: Arc<Place<T>>,
}

// SAFETY: what keeps `Guard` on its thread are cells of its participant, used without atomics; this is the only guard
// of its participant, and there is no handle of it left. `seen` is protected by the pin, whichever thread holds it.
unsafe impl<T: Send + Sync + 'static> Send for Reader<T> {}

impl<T: Send + Sync + 'static> Reader<T> {
    /// Takes the present value, and lets go of the one before; true if they are different ones. To be called between
    /// bursts, and now and then without any: until then nothing that was replaced since can be dropped.
    #[inline]
    pub fn refresh(&mut self) -> bool {
        self.guard.repin();
        // crossbeam reads the epoch relaxed: what was replaced before it began must not be loaded below.
        fence(Ordering::Acquire);
        let current = self.place.current.load(Ordering::Acquire, &self.guard);
        self.seen = current.as_raw();
        // SAFETY: never null, and loaded after the pin was moved: not dropped while it stays.
        let number = unsafe { current.deref() }.number;
        core::mem::replace(&mut self.number, number) != number
    }
}

impl<T: Send + Sync + 'static> Deref for Reader<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: loaded after the pin was last moved, and it is only moved through `&mut self`, when this borrow is
        // over (module documentation).
        unsafe { &(*self.seen).value }
    }
}

impl<T: fmt::Debug + Send + Sync + 'static> fmt::Debug for Reader<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reader").field(&**self).finish()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::thread::{self, ThreadId};

    use super::*;

    /// Knows how many of its kind live and where they may be dropped.
    struct Counted {
        name: usize,
        alive: Arc<AtomicUsize>,
        home: ThreadId,
    }

    impl Drop for Counted {
        fn drop(&mut self) {
            self.alive.fetch_sub(1, Ordering::SeqCst);
            assert_eq!(thread::current().id(), self.home, "dropped on a thread that only reads");
            // So that a use after the drop shows.
            self.name = usize::MAX;
        }
    }

    #[derive(Default)]
    struct Census(Arc<AtomicUsize>);

    impl Census {
        fn make(&self, name: usize) -> Counted {
            self.0.fetch_add(1, Ordering::SeqCst);
            Counted { name, alive: Arc::clone(&self.0), home: thread::current().id() }
        }

        fn alive(&self) -> usize {
            self.0.load(Ordering::SeqCst)
        }
    }

    #[test]
    fn a_reader_has_one_value_until_it_refreshes_and_then_the_last_one() {
        let census = Census::default();
        let mut published = Published::new(census.make(0));
        let (mut first, mut second) = (published.reader(), published.reader());
        assert!(!first.refresh());
        for name in 1..=3 {
            published.publish(census.make(name)).unwrap();
        }
        assert_eq!((first.name, published.reader().name), (0, 3));
        assert!(first.refresh() && !first.refresh());
        assert_eq!((first.name, second.name), (3, 0));
        assert!(second.refresh());
        assert_eq!(second.name, 3);
    }

    #[test]
    fn what_was_replaced_is_dropped_once_every_reader_has_refreshed_and_not_before() {
        let census = Census::default();
        let mut published = Published::new(census.make(0));
        let (mut first, mut second) = (published.reader(), published.reader());
        published.publish(census.make(1)).unwrap();
        for _ in 0..10 {
            first.refresh();
            assert_eq!(published.reclaim(), 1, "the second reader has it");
            assert_eq!((census.alive(), second.name), (2, 0));
        }
        for _ in 0..3 {
            first.refresh();
            second.refresh();
            published.reclaim();
        }
        assert_eq!((census.alive(), published.retired()), (1, 0));
    }

    #[test]
    fn without_readers_nothing_is_kept() {
        let census = Census::default();
        let mut published = Published::new(census.make(0));
        for name in 1..1000 {
            published.publish(census.make(name)).unwrap();
            assert_eq!((published.reclaim(), census.alive()), (0, 1), "{name}");
        }
    }

    #[test]
    fn a_reader_that_goes_holds_nothing_back() {
        let census = Census::default();
        let mut published = Published::new(census.make(0));
        let reader = published.reader();
        published.publish(census.make(1)).unwrap();
        assert_eq!(published.reclaim(), 1);
        drop(reader);
        assert_eq!((published.reclaim(), census.alive()), (0, 1));
    }

    #[test]
    fn a_stuck_reader_costs_a_bounded_number_and_the_bound_is_an_error() {
        let census = Census::default();
        let mut published = Published::new(census.make(0));
        let mut stuck = published.reader();
        for name in 1..=MAX_RETIRED {
            published.publish(census.make(name)).unwrap();
        }
        for _ in 0..3 {
            assert_eq!(published.publish(census.make(1000)), Err(Full));
            assert_eq!((published.retired(), census.alive()), (MAX_RETIRED, MAX_RETIRED + 1));
        }
        assert_eq!(stuck.name, 0);
        assert!(stuck.refresh());
        assert_eq!(stuck.name, MAX_RETIRED, "the last that was accepted");
        published.reclaim();
        stuck.refresh();
        published.publish(census.make(7)).unwrap();
        stuck.refresh();
        published.reclaim();
        stuck.refresh();
        assert_eq!((published.reclaim(), stuck.name, census.alive()), (0, 7, 1));
    }

    #[test]
    fn nothing_leaks_whoever_goes_first() {
        for readers_first in [true, false] {
            let census = Census::default();
            let mut published = Published::new(census.make(0));
            let readers: Vec<_> = (0..3).map(|_| published.reader()).collect();
            for name in 1..=5 {
                published.publish(census.make(name)).unwrap();
            }
            if readers_first {
                drop(readers);
                drop(published);
            } else {
                drop(published);
                assert!(readers.iter().all(|reader| reader.name == 0));
                drop(readers);
            }
            assert_eq!(census.alive(), 0, "readers first: {readers_first}");
        }
    }

    /// How often the stress publishes; a sanitizer's run may want fewer.
    fn publications() -> usize {
        std::env::var("WEIR_PUBLICATIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(4_000)
    }

    #[test]
    fn two_threads_never_meet_a_dropped_value_and_lose_none() {
        let census = Census::default();
        let mut published = Published::new(census.make(0));
        let last = publications();
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let mut reader = published.reader();
                thread::spawn(move || {
                    let (mut seen, mut changes) = (0, 0);
                    while seen < last {
                        let changed = reader.refresh();
                        let name = reader.name;
                        assert!(name <= last, "a dropped value");
                        assert_eq!(changed, name != seen, "{seen} {name}");
                        assert!(name >= seen, "{name} came after {seen}");
                        changes += usize::from(changed);
                        // The same one for as long as it is not refreshed.
                        for _ in 0..64 {
                            assert_eq!(core::hint::black_box(&reader).name, name);
                        }
                        seen = name;
                    }
                    (reader, changes)
                })
            })
            .collect();
        for name in 1..=last {
            while published.publish(census.make(name)).is_err() {
                thread::yield_now();
            }
            assert!(census.alive() <= MAX_RETIRED + 1);
        }
        for reader in readers {
            let (reader, changes) = reader.join().unwrap();
            assert!(changes > 0);
            drop(reader);
        }
        assert_eq!((published.reclaim(), census.alive()), (0, 1));
        drop(published);
        assert_eq!(census.alive(), 0);
    }
}

/// The interleavings of one publisher and one reader, and all that the memory model lets their loads see. crossbeam's own
/// atomics have to be explored as well (`tools/loom`). Fails without the fence in `refresh`, and if the pin is moved after
/// `current` is loaded.
#[cfg(all(test, loom))]
mod models {
    use std::sync::atomic::AtomicUsize;

    use loom::cell::UnsafeCell;
    use loom::thread;

    use super::*;

    /// loom fails where its drop, a write, is not ordered after every read.
    struct Watched(UnsafeCell<usize>);

    // SAFETY: that it is read by one thread while another drops it is what loom looks for.
    unsafe impl Sync for Watched {}

    impl Watched {
        fn new(number: usize) -> Self {
            Self(UnsafeCell::new(number))
        }

        fn read(&self) -> usize {
            // SAFETY: nobody writes it but its drop.
            self.0.with(|number| unsafe { *number })
        }
    }

    impl Drop for Watched {
        fn drop(&mut self) {
            // SAFETY: what is dropped is nobody else's; loom checks just that.
            self.0.with_mut(|number| unsafe { *number = usize::MAX });
        }
    }

    #[test]
    fn loom_a_value_outlives_its_readers() {
        static RETURNED: AtomicUsize = AtomicUsize::new(0);
        assert!(cfg!(crossbeam_loom), "without --cfg crossbeam_loom the epochs would not be explored");
        let mut model = loom::model::Builder::new();
        // Some thousand orders, seconds: all of them even in a short run, which would miss those that matter.
        model.preemption_bound = None;
        model.check(|| {
            let mut published = Published::new(Watched::new(0));
            // crossbeam advances at a participant's first pin: that is over before the story begins.
            published.reclaim();
            let mut reader = published.reader();
            published.publish(Watched::new(0)).unwrap();
            for _ in 0..3 {
                reader.refresh();
                published.reclaim();
            }
            reader.refresh();
            assert_eq!(published.retired(), 0);
            let publisher = thread::spawn(move || {
                for number in 1..=2 {
                    published.publish(Watched::new(number)).unwrap();
                }
                published.reclaim();
                published
            });
            let mut seen = 0;
            for _ in 0..3 {
                reader.refresh();
                let now = reader.read();
                assert!(now >= seen && now <= 2, "{now} came after {seen}");
                seen = now;
            }
            let published = publisher.join().unwrap();
            assert!(published.retired() <= 2);
            if published.retired() == 0 {
                RETURNED.fetch_add(1, Ordering::Relaxed);
            }
        });
        // A model in which nothing is dropped beside the reader would prove nothing.
        assert!(RETURNED.load(Ordering::Relaxed) > 0);
    }
}
