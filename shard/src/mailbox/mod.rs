//! Bounded rings from one lcore to another: how packets and notices get to the shard that they belong to. One thread
//! sends, one receives, neither ever waits: what finds no room comes back to whoever wants to send it. There is one
//! ring for each ordered pair of lcores; what is sent in one order arrives in it.
//!
//! # Protocol
//!
//! Entries are counted from 0, wrapping; entry `n` lies in slot `n % capacity`. Two counters are shared:
//!
//! * `tail`, **written by the sender only**: entries below it have been published.
//! * `head`, **written by the receiver only**: entries below it have been taken out.
//!
//! So `head <= tail <= head + capacity`, and a slot has one owner at any time: those of the entries `head..tail` are
//! the receiver's, all others the sender's. A slot changes hands by the counters alone:
//!
//! 1. The sender writes a slot of its own and *then* stores `tail` (release). A receiver that loads this `tail`
//!    (acquire) sees the entry whole.
//! 2. The receiver moves an entry out and *then* stores `head` (release). A sender that loads this `head` (acquire)
//!    may write the slot again: the receiver's reading has happened before.
//!
//! Each side remembers what it last saw of the other's counter. That is never more than the truth, because counters
//! only grow, so acting on it is safe; a side looks again only when what it remembers does not suffice. Staging
//! ([`Sender::stage`]) writes slots and keeps `tail` to itself until [`Sender::publish`]: a burst costs one store of a
//! shared line on either side. An empty ring costs its receiver one load of a line that nobody writes meanwhile.
//!
//! `tail` and `head` lie on lines of their own, 128 bytes apart (the CPU fetches lines in pairs), each together with
//! the flag that its writer has gone. Slots are written by the sender alone. The sides' private parts are aligned alike,
//! wherever their owners keep them.
//!
//! **Ends.** A sender that goes publishes what it has staged, then raises its flag (release): a receiver that sees the
//! flag (acquire) and then finds the ring empty knows that nothing will come. A receiver that goes drops what is
//! published, then raises its flag (release). A sender that sees it (acquire) is alone with the ring: it drops what it
//! had published since, and takes nothing any more. It looks when it finds the ring full, when asked
//! ([`Sender::is_disconnected`]), and at its own end. So entries live no longer than the later of both sides.
#![allow(unsafe_code)] // slots that two threads pass to each other

#[cfg(all(test, loom))]
mod models;
mod slots;
#[cfg(all(test, not(loom)))]
mod tests;

use arrayvec::ArrayVec;
use weir_numa::memory::MemoryError;

use self::slots::Slots;
use crate::sync::{Arc, AtomicBool, AtomicUsize, Ordering};

/// Entries of a ring between two lcores unless somebody wants otherwise. Between two looks of a receiver lies one burst
/// of each of its queues and of each of its peers, some ten microseconds; at 20 million packets a second, all of which
/// go to one peer, that is 32 x 20 = 640. Models of the protocol use the fewest that can be full and wrap.
pub const DEFAULT_CAPACITY: usize = if cfg!(loom) { 2 } else { 1024 };

/// A pair of cache lines: they are fetched together by Intel's and AMD's adjacent-line prefetchers, and are one line
/// on some arm64.
#[derive(Debug, Default)]
#[repr(C, align(128))]
struct Apart<T>(T);

/// A counter and its writer's flag.
#[derive(Debug)]
struct Side {
    count: AtomicUsize,
    gone: AtomicBool,
}

impl Side {
    fn new() -> Self {
        Self { count: AtomicUsize::new(0), gone: AtomicBool::new(false) }
    }
}

/// What both sides see. See the module's protocol.
#[derive(Debug)]
#[repr(C)]
struct Shared<T> {
    /// `tail`.
    sender: Apart<Side>,
    /// `head`.
    receiver: Apart<Side>,
    slots: Apart<Slots<T>>,
}

impl<T> Shared<T> {
    /// Drops the entries from `head` on, below `tail`.
    ///
    /// # Safety
    /// They are published, and the caller is the only one that takes entries out; nobody will take them again.
    unsafe fn discard(&self, head: usize, tail: usize) {
        let mut next = head;
        while next != tail {
            let entry = next;
            next = next.wrapping_add(1);
            // SAFETY: entries from `head` to `tail` are published and not taken, as the caller says; each is read once.
            drop(unsafe { self.slots.0.take(entry) });
        }
    }
}

/// A ring of `capacity` entries, rounded up to a power of two, in memory of NUMA node `node` (anywhere without one).
/// That of the receiver is best: it looks far more often than a sender writes.
///
/// # Errors
/// When there is no memory for it, or not on that node.
pub fn channel<T: Send>(capacity: usize, node: Option<u32>) -> Result<(Sender<T>, Receiver<T>), MemoryError> {
    let slots = Slots::new(capacity, node)?;
    let shared = Shared { sender: Apart(Side::new()), receiver: Apart(Side::new()), slots: Apart(slots) };
    let shared = Arc::new(shared);
    let receiver = Receiver { shared: Arc::clone(&shared), head: 0, tail: 0, most: 0 };
    Ok((Sender { shared, published: 0, tail: 0, head: 0, abandoned: false }, receiver))
}

/// The end that entries go in by.
#[derive(Debug)]
#[repr(align(128))]
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
    /// What `tail` says.
    published: usize,
    /// Entries written, of which those from `published` on are staged.
    tail: usize,
    /// `head` as last seen.
    head: usize,
    /// The receiver was seen to be gone.
    abandoned: bool,
}

impl<T> Sender<T> {
    /// Entries that it can hold.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.shared.slots.0.capacity()
    }

    /// Puts an entry into the ring, to be seen by the receiver from the next [`publish`](Self::publish) on.
    ///
    /// # Errors
    /// The entry, when there is no room for it or nobody to receive it.
    #[inline]
    pub fn stage(&mut self, entry: T) -> Result<(), T> {
        if self.tail.wrapping_sub(self.head) >= self.capacity() && !self.look() || self.abandoned {
            return Err(entry);
        }
        // SAFETY: `head` was seen at a value that leaves room, so the slot's last entry has been taken out, and the
        // receiver takes nothing from `tail` on.
        unsafe { self.shared.slots.0.put(self.tail, entry) };
        self.tail = self.tail.wrapping_add(1);
        Ok(())
    }

    /// Lets the receiver see what was staged.
    #[inline]
    pub fn publish(&mut self) {
        if self.published != self.tail {
            self.published = self.tail;
            self.shared.sender.0.count.store(self.tail, Ordering::Release);
        }
    }

    /// Stages and publishes one entry.
    ///
    /// # Errors
    /// As [`stage`](Self::stage).
    #[inline]
    pub fn send(&mut self, entry: T) -> Result<(), T> {
        self.stage(entry)?;
        self.publish();
        Ok(())
    }

    /// Stages and publishes as many entries as there is room for, from the front; gives their number. The others stay
    /// where they are.
    pub fn send_burst<const N: usize>(&mut self, entries: &mut ArrayVec<T, N>) -> usize {
        let room = |sender: &Self| sender.capacity() - sender.tail.wrapping_sub(sender.head);
        if room(self) < entries.len() {
            self.look();
        }
        let count = if self.abandoned { 0 } else { room(self).min(entries.len()) };
        for entry in entries.drain(..count) {
            // SAFETY: `count` is not more than the room that the last look at `head` has left, see `stage`.
            unsafe { self.shared.slots.0.put(self.tail, entry) };
            self.tail = self.tail.wrapping_add(1);
        }
        self.publish();
        count
    }

    /// True when the receiver has gone: nothing will be received any more.
    pub fn is_disconnected(&mut self) -> bool {
        self.look();
        self.abandoned
    }

    /// Looks at the receiver's side; says whether there is room.
    #[cold]
    fn look(&mut self) -> bool {
        let Side { count, gone } = &self.shared.receiver.0;
        let gone = gone.load(Ordering::Acquire);
        self.head = count.load(Ordering::Acquire);
        if gone {
            self.abandoned = true;
            // What the receiver has left here, and what is only staged. After this there is nothing in the ring.
            let (from, to) = (self.head, self.tail);
            self.publish();
            self.head = to;
            // Nobody else will write it again, and the ring's memory is looked after by none but us.
            self.shared.receiver.0.count.store(to, Ordering::Relaxed);
            // SAFETY: the receiver raised its flag as the last thing it did, so we are the only one to take entries;
            // both counters say that the ring is empty, so they are not taken again should a drop panic.
            unsafe { self.shared.discard(from, to) };
            return false;
        }
        self.tail.wrapping_sub(self.head) < self.capacity()
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.publish();
        self.shared.sender.0.gone.store(true, Ordering::Release);
        // What a receiver has left that went before goes with `Shared`.
    }
}

/// The end that entries come out of.
#[derive(Debug)]
#[repr(align(128))]
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    /// What `head` says.
    head: usize,
    /// `tail` as last seen.
    tail: usize,
    /// Most entries that were seen waiting.
    most: usize,
}

impl<T> Receiver<T> {
    /// Entries that it can hold.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.shared.slots.0.capacity()
    }

    /// Most entries that ever waited when they were looked at.
    #[must_use]
    pub fn high_water(&self) -> usize {
        self.most
    }

    /// Starts [`high_water`](Self::high_water) anew.
    pub fn clear_high_water(&mut self) {
        self.most = 0;
    }

    /// Moves as many entries into `into` as are there and it has room for; gives their number.
    #[inline]
    pub fn receive_burst<const N: usize>(&mut self, into: &mut ArrayVec<T, N>) -> usize {
        let room = into.remaining_capacity();
        let mut waiting = self.tail.wrapping_sub(self.head);
        if waiting < room {
            waiting = self.look();
        }
        let count = waiting.min(room);
        if count == 0 {
            return 0;
        }
        for _ in 0..count {
            // SAFETY: `tail` was seen beyond this entry, so it is published; `head` grows with it, so it is read once,
            // and the sender does not write the slot before it sees that.
            into.push(unsafe { self.shared.slots.0.take(self.head) });
            self.head = self.head.wrapping_add(1);
        }
        self.shared.receiver.0.count.store(self.head, Ordering::Release);
        count
    }

    /// Entries that wait now.
    pub fn waiting(&mut self) -> usize {
        self.look()
    }

    /// Looks at the sender's side; the number of entries that wait.
    #[inline]
    fn look(&mut self) -> usize {
        self.tail = self.shared.sender.0.count.load(Ordering::Acquire);
        let waiting = self.tail.wrapping_sub(self.head);
        self.most = self.most.max(waiting);
        waiting
    }

    /// True when the sender has gone and nothing is left: nothing will come any more.
    pub fn is_disconnected(&mut self) -> bool {
        // In this order: a sender that has gone publishes nothing more.
        let gone = self.shared.sender.0.gone.load(Ordering::Acquire);
        self.look() == 0 && gone
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let from = self.head;
        self.look();
        self.head = self.tail;
        // Before the entries are dropped, so that none goes twice should that panic. The sender may not use the slots
        // until it sees the flag, so `head` itself stays where it was until the entries are out.
        let entries = Leaving { shared: &self.shared, head: self.head };
        // SAFETY: we are the receiver, the entries are published, and `Leaving` puts `head` behind them whatever happens.
        unsafe { self.shared.discard(from, self.head) };
        drop(entries);
    }
}

/// Puts `head` behind what a leaving receiver drops and raises its flag, also if a drop panics: what is then left is
/// forgotten rather than dropped twice.
struct Leaving<'a, T> {
    shared: &'a Shared<T>,
    head: usize,
}

impl<T> Drop for Leaving<'_, T> {
    fn drop(&mut self) {
        let Side { count, gone } = &self.shared.receiver.0;
        count.store(self.head, Ordering::Release);
        gone.store(true, Ordering::Release);
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        let (head, tail) =
            (self.receiver.0.count.load(Ordering::Acquire), self.sender.0.count.load(Ordering::Acquire));
        // SAFETY: both sides have gone, so nobody takes entries but us; those between the counters are published and
        // were not taken.
        unsafe { self.discard(head, tail) };
    }
}
