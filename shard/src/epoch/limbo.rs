//! When a slot of the table may be used again: after every reader that may still look at the connection which lived
//! in it has let go. The owner of a table calls this when it ends connections and between bursts; packets of known
//! connections never come here.
//!
//! **The protocol.** (`table::memory` says what readers see of a slot.)
//!
//! 1. While nobody but the owner holds the table there is no limbo: a slot is free at once. Readers are made by the
//!    owner, on its thread, so it knows when the first one comes; that the last one has gone it learns from the count
//!    of their references, with Acquire.
//! 2. A reader registers with the table's own collector (crossbeam-epoch) and *pins* it while it looks at a few dozen
//!    slots: never while its caller's code runs, so that a guard lasts microseconds.
//! 3. The owner first stores 0 in the slot's `rest`, then puts the slot on the *open* chain; chains are linked through
//!    the owner's own array, so retiring costs two stores and no memory. It does not pin for that.
//! 4. An open chain is *sealed*, when it is long enough or between bursts: the owner pins, defers one function a chain,
//!    which sets the chain's bit in `ripe` with Release, and lets the collector try to move its epoch on. The collector
//!    runs the function, on whichever thread finds out first, once every guard is gone that was there when the chain
//!    was sealed: two steps of the epoch later. A guard taken afterwards is ordered behind the seal by the sequentially
//!    consistent fences of both, and so sees the 0.
//! 5. The owner loads `ripe` with Acquire, which orders all that readers have read before what it writes next, and puts
//!    whole chains on its free list.
//!
//! **Bounds.** At most [`CHAINS`] chains are sealed; when they all wait, the open one grows. How many slots may wait in
//! all is the table's affair ([`RESERVE`]).

#![allow(unsafe_code)]

use core::mem::ManuallyDrop;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use crossbeam_epoch::{Collector, Guard, LocalHandle};

/// Chains that wait for their grace period at once.
const CHAINS: usize = 8;

/// Slots that make an open chain long enough to be sealed. Sealing costs some 300 ns.
const LENGTH: u32 = 64;

/// Slots beyond its capacity that a table has for those which wait: at full churn, some two million connections ended
/// a second, readers may hold an epoch up for an eighth of a second, many time slices of a scheduler that has taken
/// the CPU from a reader which holds a guard. It is address space until it is used (40 MB, without IPv6).
pub(crate) const RESERVE: u32 = 1 << 18;

/// Where the links between slots of a chain are kept.
pub(crate) trait Next {
    /// The slot behind this one + 1, or 0.
    fn next(&mut self, index: u32) -> &mut u32;
}

/// What readers register with. Who has read once is kept for the next one: each that leaves costs the collector work.
#[derive(Debug, Default)]
pub(crate) struct Epochs {
    collector: Collector,
    /// Registered, and without a guard. Readers alone lock it, for a moment, and none waits for it: whoever finds it
    /// locked does without.
    idle: Mutex<Vec<Participant>>,
}

impl Epochs {
    /// Makes the caller a participant for as long as it keeps what it gets.
    pub(crate) fn participate(&self) -> Visit<'_> {
        let idle = self.idle.try_lock().ok().and_then(|mut idle| idle.pop());
        let participant = ManuallyDrop::new(idle.unwrap_or_else(|| self.register()));
        Visit { participant, epochs: self }
    }

    fn register(&self) -> Participant {
        Participant(self.collector.register())
    }
}

/// A reader's turn.
pub(crate) struct Visit<'e> {
    /// Taken out when this is dropped, and never used then.
    participant: ManuallyDrop<Participant>,
    epochs: &'e Epochs,
}

impl Visit<'_> {
    /// Takes a guard.
    pub(crate) fn pin(&self) -> Pin<'_> {
        self.participant.pin()
    }
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        // SAFETY: this is the only place that takes it, and nothing uses it afterwards.
        let participant = unsafe { ManuallyDrop::take(&mut self.participant) };
        if let Ok(mut idle) = self.epochs.idle.try_lock() {
            idle.push(participant);
        }
    }
}

/// Someone who may hold guards.
#[derive(Debug)]
struct Participant(LocalHandle);

// SAFETY: a LocalHandle points to a record that only its holder uses, but for an atomic that others read; it cannot be
// cloned, and `pin` gives a guard that borrows the participant, so none exists when it moves to another thread.
unsafe impl Send for Participant {}

/// While it exists, no slot is used anew whose connection its holder may have seen.
pub(crate) struct Pin<'p> {
    guard: Guard,
    _participant: core::marker::PhantomData<&'p Participant>,
}

impl Participant {
    /// Takes a guard.
    fn pin(&self) -> Pin<'_> {
        Pin { guard: self.0.pin(), _participant: core::marker::PhantomData }
    }
}

/// Slots that wait together.
#[derive(Clone, Copy, Debug, Default)]
struct Chain {
    /// First and last slot + 1; 0 without any.
    first: u32,
    last: u32,
    len: u32,
}

impl Chain {
    fn push(&mut self, links: &mut impl Next, index: u32) {
        *links.next(index) = self.first;
        self.first = index + 1;
        if self.len == 0 {
            self.last = index + 1;
        }
        self.len += 1;
    }

    /// Puts all of it in front of the list that begins with `free` (slot + 1, or 0).
    fn release(&mut self, links: &mut impl Next, free: &mut u32) {
        let chain = core::mem::take(self);
        if let Some(last) = chain.last.checked_sub(1) {
            *links.next(last) = *free;
            *free = chain.first;
        }
    }
}

/// The slots of a table that wait.
pub(crate) struct Limbo {
    /// `None` while there are no readers.
    owner: Option<Participant>,
    open: Chain,
    sealed: [Chain; CHAINS],
    /// A bit for each sealed chain whose grace period is over.
    ripe: Arc<AtomicU32>,
    len: u32,
}

impl Limbo {
    pub(crate) fn new() -> Self {
        Self {
            owner: None,
            open: Chain::default(),
            sealed: [Chain::default(); CHAINS],
            ripe: Arc::default(),
            len: 0,
        }
    }

    /// From now on slots wait. To be called before a reader gets to see the table.
    pub(crate) fn open(&mut self, epochs: &Epochs) {
        self.owner.get_or_insert_with(|| epochs.register());
    }

    /// True if slots have to wait.
    #[inline]
    pub(crate) const fn is_open(&self) -> bool {
        self.owner.is_some()
    }

    /// Slots that wait.
    pub(crate) const fn len(&self) -> u32 {
        self.len
    }

    /// There are no readers any more: frees everything, and nothing waits from now on.
    pub(crate) fn close(&mut self, links: &mut impl Next, free: &mut u32) {
        for chain in self.sealed.iter_mut().chain([&mut self.open]) {
            chain.release(links, free);
        }
        // Functions that have not run yet set bits in the old one.
        *self = Self::new();
    }

    /// Takes a slot whose connection readers can no longer come to.
    pub(crate) fn retire(&mut self, links: &mut impl Next, index: u32) {
        self.open.push(links, index);
        self.len += 1;
        if self.open.len.is_multiple_of(LENGTH) {
            self.seal();
        }
    }

    /// Moves the epoch on if it can be, and frees what has waited long enough; to be called between bursts.
    pub(crate) fn tend(&mut self, links: &mut impl Next, free: &mut u32) {
        if self.len != 0 {
            self.seal();
            self.reap(links, free);
        }
    }

    /// Frees what has waited long enough.
    pub(crate) fn reap(&mut self, links: &mut impl Next, free: &mut u32) {
        let mut ripe = self.ripe.load(Ordering::Acquire);
        if ripe == 0 {
            return;
        }
        self.ripe.fetch_and(!ripe, Ordering::Relaxed);
        while ripe != 0 {
            if let Some(chain) = self.sealed.get_mut(ripe.trailing_zeros() as usize) {
                self.len -= chain.len;
                chain.release(links, free);
            }
            ripe &= ripe - 1;
        }
    }

    #[cold]
    fn seal(&mut self) {
        let Some(owner) = &self.owner else { return };
        let pin = owner.pin();
        let vacant = (0u32..).zip(&mut self.sealed).find(|(_, chain)| chain.len == 0);
        if let Some((number, chain)) = vacant
            && self.open.len != 0
        {
            *chain = core::mem::take(&mut self.open);
            let ripe = Arc::clone(&self.ripe);
            // Two words: the collector keeps them without taking memory.
            pin.guard.defer(move || {
                ripe.fetch_or(1 << number, Ordering::Release);
            });
        }
        pin.guard.flush();
    }
}

#[cfg(all(test, not(loom)))]
mod tests;

#[cfg(all(test, loom))]
mod models;
