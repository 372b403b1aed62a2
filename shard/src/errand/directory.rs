//! Which shard expects which data connection, and which of them there are. Two maps for all shards of a datapath, written
//! by the owner of a control connection when an expectation or a data connection comes or goes. The first is read at the
//! home of a packet that would be new, and but for its count only while anything is expected anywhere; both are read
//! where a port is to be announced, so that **no two hosts are announced at the same port**, whichever shards have their
//! connections.
//!
//! The maps are papaya's: look-ups take no lock and write no shared line but the reader's own (seize reclaims what is
//! replaced). An entry is a hint: the shard that it names looks into its own [`Expectations`] and sends the packet back
//! if nothing is there any more. A shard removes only entries that name itself. The count beside the map is a hint too:
//! it is raised before an entry can be found, so a reader that sees 0 can have missed only what came at this moment, and
//! what follows an announcement through the network comes long after it.
//!
//! *Between expected and connected.* Who has a data connection made enters it among the connected before its expectation
//! goes. Who announces a port claims it as an expectation and looks among the connected afterwards: what it finds
//! released there it finds connected here, and so nobody slips through between both.
//!
//! [`Expectations`]: crate::expectations::Expectations

use core::sync::atomic::{AtomicUsize, Ordering};
use std::net::IpAddr;

use foldhash::quality::FixedState;
use papaya::{Compute, HashMap, Operation};
use weir_wire::Tuple;

use crate::clock::Millis;
use crate::steering::ShardNumber;

/// What is expected by whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) shard: ShardNumber,
    /// Who waits for it, as in the owner's expectation.
    pub(crate) target: (IpAddr, u16),
    /// What that one knows the caller by.
    pub(crate) caller: IpAddr,
    /// By the callers' clock, which all shards share: for others to judge, the owner has its own.
    pub(crate) until: Millis,
}

impl Entry {
    fn bars(&self, other: &Self, now: Millis) -> bool {
        self.shard != other.shard
            && now < self.until
            && (self.target, self.caller) != (other.target, other.caller)
    }
}

/// The shared map.
#[derive(Debug)]
pub struct Directory {
    /// By the tuple of the data connection's first packet, source port 0. No more than each shard may expect.
    entries: HashMap<Tuple, Entry, FixedState>,
    count: AtomicUsize,
    /// Original tuples of the data connections there are, expired ones included that were not swept. No more than
    /// there are connections.
    connected: HashMap<Tuple, ShardNumber, FixedState>,
}

impl Directory {
    /// An empty one. `secret` keys the hashes.
    #[must_use]
    pub fn new(secret: u64) -> Self {
        let state = || FixedState::with_seed(secret);
        Self {
            entries: HashMap::with_hasher(state()),
            count: AtomicUsize::new(0),
            connected: HashMap::with_hasher(state()),
        }
    }

    /// Data connections that are expected.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// True if none is.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The shard that expects a connection which begins with this tuple.
    pub(crate) fn find(&self, tuple: &Tuple) -> Option<ShardNumber> {
        if self.is_empty() {
            return None;
        }
        let key = without_source_port(tuple)?;
        self.entries.pin().get(&key).map(|entry| entry.shard)
    }

    /// True if another shard than that of `entry` waits at `key`, for another target.
    pub(crate) fn is_anothers(&self, key: &Tuple, entry: &Entry, now: Millis) -> bool {
        self.entries.pin().get(key).is_some_and(|old| old.bars(entry, now))
    }

    /// Names the shard of `entry` for `key`. False if another one waits there, for another target.
    pub(crate) fn claim(&self, key: Tuple, entry: Entry, now: Millis) -> bool {
        self.count.fetch_add(1, Ordering::Relaxed);
        let entries = self.entries.pin();
        let done = entries.compute(key, |old| match old {
            Some((_, old)) if old.bars(&entry, now) => Operation::Abort(()),
            _ => Operation::Insert(entry),
        });
        let (is_added, is_claimed) =
            (matches!(done, Compute::Inserted(..)), !matches!(done, Compute::Aborted(())));
        if !is_added {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
        is_claimed
    }

    /// Forgets `key` if it is `shard`'s.
    pub(crate) fn release(&self, key: &Tuple, shard: ShardNumber) {
        if let Ok(Some(_)) = self.entries.pin().remove_if(key, |_, entry| entry.shard == shard) {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Data connections of all shards.
    #[must_use]
    pub fn connected(&self) -> usize {
        self.connected.pin().len()
    }

    /// `shard` has a data connection with this original tuple, and is about to release what it expected.
    pub(crate) fn connect(&self, tuple: Tuple, shard: ShardNumber) {
        self.connected.pin().insert(tuple, shard);
    }

    /// `shard`'s data connection with this original tuple is no more.
    pub(crate) fn disconnect(&self, tuple: &Tuple, shard: ShardNumber) {
        // The tuple may be another shard's by now.
        let _ = self.connected.pin().remove_if(tuple, |_, owner| *owner == shard);
    }

    /// True if some shard has a data connection with this original tuple.
    pub(crate) fn is_connected(&self, tuple: &Tuple) -> bool {
        self.connected.pin().contains_key(tuple)
    }
}

impl Default for Directory {
    /// For a shard alone, where it stays empty.
    fn default() -> Self {
        Self::new(0)
    }
}

pub(crate) fn without_source_port(tuple: &Tuple) -> Option<Tuple> {
    Tuple::new(tuple.src(), tuple.dst(), 0, tuple.dst_port(), tuple.protocol(), tuple.zone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(source_port: u16) -> Tuple {
        Tuple::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), source_port, 2020, 6, 0).unwrap()
    }

    fn entry(shard: usize, port: u16, until: Millis) -> Entry {
        let (caller, shard) = ([10, 0, 0, 1].into(), ShardNumber::new(shard).unwrap());
        Entry { shard, target: ([10, 0, 0, 2].into(), port), caller, until }
    }

    #[test]
    fn who_waits_at_a_tuple_keeps_it_until_it_is_released_or_late() {
        let directory = Directory::new(7);
        assert!(directory.claim(key(0), entry(1, 5, 100), 0));
        assert_eq!(directory.find(&key(4000)), ShardNumber::new(1));
        assert!(!directory.claim(key(0), entry(2, 6, 199), 99), "another target");
        assert!(directory.claim(key(0), entry(2, 5, 199), 99), "the same, announced once more");
        directory.release(&key(0), ShardNumber::new(1).unwrap());
        assert_eq!((directory.find(&key(1)), directory.len()), (ShardNumber::new(2), 1));
        assert!(directory.claim(key(0), entry(1, 6, 300), 199), "nobody came in time");
        directory.release(&key(0), ShardNumber::new(1).unwrap());
        assert_eq!((directory.find(&key(1)), directory.len()), (None, 0));
    }

    #[test]
    fn a_data_connection_is_its_shards_until_that_says_otherwise() {
        let directory = Directory::new(7);
        let [one, two] = [1, 2].map(|number| ShardNumber::new(number).unwrap());
        directory.connect(key(20), one);
        assert!(directory.is_connected(&key(20)));
        assert!(!directory.is_connected(&key(21)), "a call from another port");
        // It ends, the next one comes first.
        directory.connect(key(20), two);
        directory.disconnect(&key(20), one);
        assert!(directory.is_connected(&key(20)));
        directory.disconnect(&key(20), two);
        assert_eq!((directory.is_connected(&key(20)), directory.connected()), (false, 0));
    }

    #[test]
    fn shards_that_announce_at_once_lose_nothing_and_leave_nothing() {
        let directory = Directory::new(7);
        std::thread::scope(|scope| {
            let directory = &directory;
            let announce = move |number: usize| {
                for round in 0..2000u16 {
                    let key =
                        Tuple::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), 0, round % 16, 6, 0).unwrap();
                    assert!(directory.claim(key, entry(number, 5, 1), 0), "all for one target");
                    directory.release(&key, ShardNumber::new(number).unwrap());
                }
            };
            let threads = [0, 1, 2, 3].map(|number| scope.spawn(move || announce(number)));
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
        assert_eq!(directory.len(), 0);
        assert_eq!(directory.entries.pin().len(), 0);
    }
}
