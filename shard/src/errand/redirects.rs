//! Tuples that this shard, their home, has given to others. Asked only for tuples that the table does not have, and
//! only where there is more than one shard. Room for all of them is taken at the start: a map that grew would move
//! everything it has while packets wait, and one that shrank would give memory back to the kernel meanwhile. What is
//! not used costs a byte an entry, the rest is address space.

use hashbrown::{HashTable, TryReserveError};
use weir_wire::Tuple;

use crate::steering::ShardNumber;

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
    ///
    /// # Errors
    /// There is no memory for as many.
    pub(crate) fn new(capacity: usize, secret: [u64; 2]) -> Result<Self, TryReserveError> {
        let mut table = HashTable::new();
        table.try_reserve(capacity, |(tuple, _): &(Tuple, _)| tuple.hash(&secret))?;
        Ok(Self { table, secret, capacity })
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
        let mut redirects = Redirects::new(2, [1, 2]).unwrap();
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
    fn no_packet_waits_for_the_map_to_grow_or_to_shrink() {
        let mut redirects = Redirects::new(5000, [1, 2]).unwrap();
        let room = redirects.table.allocation_size();
        (1..=5000).for_each(|port| redirects.insert(tuple(port), ShardNumber::default()).unwrap());
        assert_eq!((redirects.len(), redirects.table.allocation_size()), (5000, room));
        (1..=5000).for_each(|port| redirects.remove(&tuple(port)));
        assert_eq!((redirects.len(), redirects.table.allocation_size()), (0, room));
        assert!(Redirects::new(usize::MAX, [1, 2]).is_err());
        assert_eq!(
            Redirects::new(0, [1, 2]).unwrap().table.capacity(),
            0,
            "a shard alone gives nothing away"
        );
    }
}
