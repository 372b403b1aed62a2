//! The protocol in every order that the memory model allows, as a model of its own: a slot as `table::memory` writes
//! and reads it, and an epoch with one reader as crossbeam-epoch keeps it. (The collector itself has models of its
//! own, by its authors.) Run by `RUSTFLAGS="--cfg loom" cargo test -p weir-shard --lib loom`.

use loom::sync::Arc;
use loom::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use loom::sync::atomic::{AtomicUsize, fence};
use loom::thread;

/// A reader's epoch while it holds no guard.
const NONE: usize = usize::MAX;

/// One slot, and what decides when it may be used again.
struct Model {
    /// Names the connection; 0 is none.
    rest: AtomicUsize,
    tuple: AtomicUsize,
    generation: AtomicUsize,
    epoch: AtomicUsize,
    /// The epoch of the reader's guard.
    reader: AtomicUsize,
    /// Set when the grace period is over, by whoever finds out.
    ripe: AtomicUsize,
}

impl Model {
    fn new() -> Self {
        let model = Self {
            rest: AtomicUsize::new(0),
            tuple: AtomicUsize::new(0),
            generation: AtomicUsize::new(0),
            epoch: AtomicUsize::new(0),
            reader: AtomicUsize::new(NONE),
            ripe: AtomicUsize::new(0),
        };
        model.begin(1);
        model
    }

    /// Connection `n` begins.
    fn begin(&self, n: usize) {
        self.generation.store(n, Relaxed);
        self.tuple.store(n, Relaxed);
        self.rest.store(n, Release);
    }

    /// It ends, and its slot's chain is sealed; gives the epoch of the seal.
    fn end(&self) -> usize {
        self.rest.store(0, Relaxed);
        fence(SeqCst);
        self.epoch.load(Relaxed)
    }

    /// Moves the epoch on unless a reader holds a guard of an earlier one; where two steps lie behind the seal the
    /// slot is ripe.
    fn advance(&self, sealed: usize) {
        let epoch = self.epoch.load(Relaxed);
        fence(SeqCst);
        let guard = self.reader.load(Relaxed);
        if guard != NONE && guard != epoch {
            return;
        }
        fence(Acquire);
        self.epoch.store(epoch + 1, Release);
        if epoch + 1 - sealed >= 2 {
            self.ripe.store(1, Release);
        }
    }

    /// One look of a reader under a guard, at what it may see.
    fn look(&self) {
        let epoch = self.epoch.load(Relaxed);
        self.reader.store(epoch, Relaxed);
        fence(SeqCst);
        let rest = self.rest.load(Acquire);
        if rest != 0 {
            assert_eq!(self.generation.load(Relaxed), rest, "the generation of the connection that it saw");
            assert_eq!(self.tuple.load(Relaxed), rest, "the tuple of the connection that it saw");
        }
        self.reader.store(NONE, Release);
    }
}

#[test]
fn loom_a_reader_never_sees_two_connections_in_one() {
    loom::model(|| {
        let model = Arc::new(Model::new());
        let reader = {
            let model = Arc::clone(&model);
            thread::spawn(move || {
                model.look();
                model.look();
            })
        };
        let sealed = model.end();
        // As often as it takes, were there no reader.
        for _ in 0..3 {
            model.advance(sealed);
        }
        if model.ripe.load(Acquire) == 1 {
            model.begin(2);
        }
        reader.join().unwrap();
    });
}

#[test]
fn loom_a_reader_finds_out_first_and_the_owner_is_ordered_behind_it() {
    loom::model(|| {
        let model = Arc::new(Model::new());
        let sealed = model.end();
        let reader = {
            let model = Arc::clone(&model);
            thread::spawn(move || {
                model.look();
                model.advance(sealed);
                model.advance(sealed);
            })
        };
        if model.ripe.load(Acquire) == 1 {
            model.begin(2);
        }
        reader.join().unwrap();
    });
}

#[test]
#[should_panic(expected = "of the connection that it saw")]
fn loom_a_slot_that_is_used_at_once_is_found_out() {
    loom::model(|| {
        let model = Arc::new(Model::new());
        let reader = {
            let model = Arc::clone(&model);
            thread::spawn(move || model.look())
        };
        model.end();
        model.begin(2);
        reader.join().unwrap();
    });
}

/// The label of [`Cold`](crate::table::connection::Cold).
#[test]
fn loom_a_label_is_never_torn() {
    loom::model(|| {
        let (edition, low, high) =
            (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let reader = {
            let (edition, low, high) = (Arc::clone(&edition), Arc::clone(&low), Arc::clone(&high));
            thread::spawn(move || {
                let before = edition.load(Acquire);
                let halves = (low.load(Acquire), high.load(Acquire));
                // One try of the loop: what it would take is whole.
                if before & 1 == 0 && edition.load(Relaxed) == before {
                    assert_eq!(halves.0, halves.1);
                }
            })
        };
        for label in 1..3 {
            edition.store(2 * label - 1, Relaxed);
            low.store(label, Release);
            high.store(label, Release);
            edition.store(2 * label, Release);
        }
        reader.join().unwrap();
    });
}
