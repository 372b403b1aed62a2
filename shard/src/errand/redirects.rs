//! Tuples that this shard, their home, has given to others. Asked only for tuples that the table does not have, and
//! only where there is more than one shard.

use hashbrown::HashTable;
use weir_wire::Tuple;

use crate::steering::ShardNumber;

/// Entries that an empty map may keep the memory for.
const KEPT: usize = 1024;

/// As many redirects as there may be are there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// Who owns the connection that a tuple leads to.
#[derive(Debug)]
pub(crate) struct Redirects {
    table: HashTable<(Tuple, ShardNumber)>,
    secret: [u64; 2],
    /// Most entries.
    capacity: usize,
}

impl Redirects {
    /// None, and no more than `capacity` ever. `secret` keys the hashes.
    pub(crate) const fn new(capacity: usize, secret: [u64; 2]) -> Self {
        Self { table: HashTable::new(), secret, capacity }
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// The owner of a tuple that was given away.
    pub(crate) fn owner(&self, tuple: &Tuple) -> Option<ShardNumber> {
        if self.table.is_empty() {
            return None;
        }
        self.table.find(tuple.hash(&self.secret), |(key, _)| key == tuple).map(|&(_, owner)| owner)
    }

    /// Gives away a tuple that has no owner.
    pub(crate) fn insert(&mut self, tuple: Tuple, owner: ShardNumber) -> Result<(), Full> {
        debug_assert_eq!(self.owner(&tuple), None, "{tuple} was given away before");
        if self.table.len() >= self.capacity {
            return Err(Full);
        }
        let secret = self.secret;
        self.table.insert_unique(tuple.hash(&secret), (tuple, owner), |(tuple, _)| tuple.hash(&secret));
        Ok(())
    }

    /// Takes a tuple back.
    pub(crate) fn remove(&mut self, tuple: &Tuple) {
        if let Ok(entry) = self.table.find_entry(tuple.hash(&self.secret), |(key, _)| key == tuple) {
            entry.remove();
        }
        if self.table.is_empty() && self.table.capacity() > KEPT {
            // A crowd that is gone keeps no memory.
            self.table = HashTable::new();
        }
    }

    /// All of them, in no order.
    #[cfg(test)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Tuple, ShardNumber)> {
        self.table.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(port: u16) -> Tuple {
        Tuple::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), port, 80, 6, 0).unwrap()
    }

    #[test]
    fn a_tuple_that_was_given_away_is_its_owners_until_it_is_taken_back() {
        let (one, two) = (ShardNumber::new(1).unwrap(), ShardNumber::new(2).unwrap());
        let mut redirects = Redirects::new(2, [1, 2]);
        redirects.insert(tuple(1), one).unwrap();
        redirects.insert(tuple(2), two).unwrap();
        assert_eq!(redirects.insert(tuple(3), two), Err(Full));
        assert_eq!((redirects.owner(&tuple(1)), redirects.owner(&tuple(3))), (Some(one), None));
        redirects.remove(&tuple(1));
        redirects.remove(&tuple(1));
        redirects.insert(tuple(3), one).unwrap();
        assert_eq!(
            (redirects.owner(&tuple(1)), redirects.owner(&tuple(2)), redirects.len()),
            (None, Some(two), 2)
        );
    }

    #[test]
    fn a_crowd_that_is_gone_keeps_no_memory() {
        let mut redirects = Redirects::new(usize::MAX, [1, 2]);
        (1..=5000).for_each(|port| redirects.insert(tuple(port), ShardNumber::default()).unwrap());
        (1..=5000).for_each(|port| redirects.remove(&tuple(port)));
        assert_eq!((redirects.len(), redirects.table.capacity()), (0, 0));
    }
}
