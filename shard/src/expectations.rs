//! Data connections that control connections have announced: what is expected, until when, and whose it is. A packet
//! asks here only when it starts a connection, and only if anything is expected at all. Everything is bounded:
//! entries in all, for each source of control connections and for each control connection, and the time that each is
//! kept.
//!
//! An entry is found by the tuple that its connection's first packet will come in with, source port left open. The
//! zone is part of it.

use std::collections::{BTreeMap, btree_map};
use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashTable;
use weir_wire::Tuple;

use crate::action::Helper;
use crate::clock::Moment;
use crate::errand::Directory;
use crate::errand::directory::without_source_port;
use crate::shares::{self, Shares, Source};
use crate::steering::ShardNumber;

/// Milliseconds that a data connection is waited for. Clients connect or are called at once; servers give up after a
/// minute (vsftpd's `accept_timeout` and `connect_timeout`; RFC 1350 section 7 leaves it to the parties).
pub(crate) const LIFETIME: u64 = 60_000;

/// Expectations of one shard.
pub(crate) const MAX_EXPECTATIONS: usize = 65_536;

/// Expectations of one source's control connections, which it can have any number of.
pub(crate) const MAX_FOR_SOURCE: u32 = 65_536 / shares::PART;

/// Expectations of one control connection; a further one replaces the oldest. A client announces the next one when
/// the last one has served.
pub(crate) const MAX_FOR_ONE: usize = 4;

/// Names an expectation; later ones have greater numbers.
type Id = u64;

/// One expected data connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expectation {
    id: Id,
    /// What comes in: source port 0.
    pub(crate) tuple: Tuple,
    /// Where it really goes: address and port of who waits for it.
    pub(crate) target: (IpAddr, u16),
    /// The address that who waits for it knows the other side by.
    pub(crate) caller: IpAddr,
    /// The control connection's slot.
    pub(crate) parent: u32,
    pub(crate) helper: Helper,
    /// Who answers for it.
    source: Source,
    expires: Moment,
}

impl Expectation {
    /// True if the data connection is to be translated at all.
    pub(crate) fn is_translated(&self) -> bool {
        self.has_other_target() || self.caller != self.tuple.src()
    }

    /// True if the destination is translated.
    pub(crate) fn has_other_target(&self) -> bool {
        self.target != (self.tuple.dst(), self.tuple.dst_port())
    }

    /// The reply tuple of its connection, whose first packet comes in as `tuple`, if the caller shows `port`.
    pub(crate) fn reply(&self, tuple: &Tuple, port: u16) -> Option<Tuple> {
        let (address, own) = self.target;
        Tuple::new(address, self.caller, own, port, tuple.protocol(), tuple.zone())
    }

    /// Milliseconds until it is given up.
    pub(crate) const fn remaining(&self, moment: Moment) -> u64 {
        self.expires.saturating_sub(moment)
    }
}

/// What is to be expected, see [`Expectation`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Announced {
    pub(crate) tuple: Tuple,
    pub(crate) target: (IpAddr, u16),
    pub(crate) caller: IpAddr,
    pub(crate) parent: u32,
    /// Whom it counts for: the control connection's original source.
    pub(crate) source: IpAddr,
    pub(crate) helper: Helper,
}

/// Why something cannot be expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// As many are expected as may be.
    Full,
    /// As many are expected for its source as may be.
    SourceFull,
    /// The same tuple is expected for another target.
    Taken,
}

/// All that is expected.
#[derive(Debug)]
pub(crate) struct Expectations {
    table: HashTable<Expectation>,
    /// The oldest first, which expires first: all live equally long.
    by_age: BTreeMap<Id, Tuple>,
    /// Of each control connection, the oldest first.
    by_parent: BTreeMap<(u32, Id), Tuple>,
    by_source: Shares,
    secret: [u64; 2],
    next: Id,
    /// Where other shards find what this one expects.
    shared: Option<(Arc<Directory>, ShardNumber)>,
}

impl Expectations {
    pub(crate) fn new(secret: [u64; 2], shared: Option<(Arc<Directory>, ShardNumber)>) -> Self {
        Self {
            table: HashTable::new(),
            by_age: BTreeMap::new(),
            by_parent: BTreeMap::new(),
            by_source: Shares::new(secret[0].rotate_left(32)),
            secret,
            next: 0,
            shared,
        }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// What is expected of a packet with this tuple.
    pub(crate) fn find(&self, tuple: &Tuple, moment: Moment) -> Option<Expectation> {
        let key = without_source_port(tuple)?;
        self.table
            .find(key.hash(&self.secret), |entry| entry.tuple == key)
            .filter(|entry| moment < entry.expires)
            .copied()
    }

    /// Expects something from now on. What was expected with the same tuple for the same target is expected anew.
    pub(crate) fn add(&mut self, moment: Moment, announced: &Announced) -> Result<(), Refused> {
        let &Announced { tuple, target, caller, parent, source, helper } = announced;
        let source = shares::source(source);
        self.expire(moment, 2);
        match self.find(&tuple, moment) {
            Some(old) if old.target == target && old.caller == caller => {
                // Who has no room takes nothing away from others.
                if old.source != source && !self.has_share(source, parent) {
                    return Err(Refused::SourceFull);
                }
                // Nothing below refuses what takes an old one's place.
                self.remove_here(&old);
            }
            Some(_) => return Err(Refused::Taken),
            None => {
                // One that has expired and was not swept.
                if let Some(old) = self.find(&tuple, 0) {
                    self.remove(&old);
                }
            }
        }
        if self.has_its_few(parent)
            && let Some((_, oldest)) = self.of_parent(parent).next()
            && let Some(oldest) = self.find(&oldest.clone(), 0)
        {
            self.remove(&oldest);
        }
        if self.len() >= MAX_EXPECTATIONS {
            return Err(Refused::Full);
        }
        if !self.has_share(source, parent) {
            return Err(Refused::SourceFull);
        }
        let id = self.next;
        self.next += 1;
        let entry = Expectation {
            id,
            tuple,
            target,
            caller,
            parent,
            helper,
            source,
            expires: moment.saturating_add(LIFETIME),
        };
        let secret = self.secret;
        self.table.insert_unique(tuple.hash(&secret), entry, |entry| entry.tuple.hash(&secret));
        self.by_age.insert(id, tuple);
        self.by_parent.insert((parent, id), tuple);
        self.by_source.take(source);
        Ok(())
    }

    fn of_parent(&self, parent: u32) -> btree_map::Range<'_, (u32, Id), Tuple> {
        self.by_parent.range((parent, 0)..=(parent, Id::MAX))
    }

    /// True if a control connection's next one replaces its oldest.
    fn has_its_few(&self, parent: u32) -> bool {
        self.of_parent(parent).count() >= MAX_FOR_ONE
    }

    /// True if the source of the control connection `parent` may have what that announces next.
    fn has_share(&self, source: Source, parent: u32) -> bool {
        self.by_source.of(source) < MAX_FOR_SOURCE || self.has_its_few(parent)
    }

    /// Forgets one, if it is still there.
    pub(crate) fn remove(&mut self, expectation: &Expectation) {
        if self.remove_here(expectation)
            && let Some((directory, number)) = &self.shared
        {
            directory.release(&expectation.tuple, *number);
        }
    }

    /// The same, and other shards still find it. True if it was there.
    fn remove_here(&mut self, expectation: &Expectation) -> bool {
        let hash = expectation.tuple.hash(&self.secret);
        let found = self.table.find_entry(hash, |entry| entry.id == expectation.id);
        let is_found = found.is_ok();
        if let Ok(found) = found {
            let (gone, _) = found.remove();
            self.by_source.release(gone.source, 1);
            self.by_age.remove(&expectation.id);
            self.by_parent.remove(&(expectation.parent, expectation.id));
        }
        if self.table.is_empty() {
            // A crowd that is gone keeps no memory.
            self.table = HashTable::new();
        }
        is_found
    }

    /// Forgets what a control connection has announced.
    pub(crate) fn remove_of(&mut self, parent: u32) {
        while let Some((_, tuple)) = self.of_parent(parent).next() {
            let tuple = *tuple;
            let Some(expectation) = self.find(&tuple, 0) else { return };
            self.remove(&expectation);
        }
    }

    /// Forgets up to `budget` of those that nobody has come for. Returns how many.
    pub(crate) fn expire(&mut self, moment: Moment, budget: u32) -> u32 {
        for done in 0..budget {
            let Some((_, tuple)) = self.by_age.first_key_value() else { return done };
            let tuple = *tuple;
            match self.find(&tuple, 0) {
                Some(oldest) if oldest.expires <= moment => self.remove(&oldest),
                _ => return done,
            }
        }
        budget
    }

    /// Up to `limit` of them, beginning with number `from`; and the number to go on with.
    pub(crate) fn page(&self, from: u64, limit: usize) -> (impl Iterator<Item = &Expectation>, Option<u64>) {
        let found = |tuple: &Tuple| self.table.find(tuple.hash(&self.secret), |entry| entry.tuple == *tuple);
        let next = self.by_age.range(from..).nth(limit).map(|(id, _)| *id);
        (self.by_age.range(from..).take(limit).filter_map(move |(_, tuple)| found(tuple)), next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announced(parent: u32, port: u16) -> Announced {
        let (src, dst) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        Announced {
            tuple: Tuple::new(src, dst, 0, port, 6, 5).unwrap(),
            target: (dst, port),
            caller: src,
            parent,
            source: src,
            helper: Helper::Ftp,
        }
    }

    fn coming(port: u16, zone: u16) -> Tuple {
        Tuple::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), 20, port, 6, zone).unwrap()
    }

    fn consistent(all: &Expectations) {
        assert_eq!((all.by_age.len(), all.by_parent.len()), (all.len(), all.len()));
        assert_eq!(all.by_source.is_empty(), all.is_empty());
        for entry in &all.table {
            let same = all.table.iter().filter(|other| other.source == entry.source).count();
            assert_eq!(usize::try_from(all.by_source.of(entry.source)).unwrap(), same);
        }
    }

    /// Announced by the connection `parent` of a source, no two alike.
    fn of_source(source: [u8; 4], parent: u32) -> Announced {
        let [.., a, b] = parent.to_be_bytes();
        let tuple = Tuple::new([10, 0, a, b].into(), source.into(), 0, 69, 17, 0).unwrap();
        Announced { tuple, parent, source: source.into(), helper: Helper::Tftp, ..announced(0, 69) }
    }

    #[test]
    fn a_source_that_floods_leaves_room_for_another() {
        let (flooding, other) = ([192, 0, 2, 1], [192, 0, 2, 2]);
        let mut all = Expectations::new([1, 2], None);
        for parent in 0..MAX_FOR_SOURCE {
            all.add(0, &of_source(flooding, parent)).unwrap();
        }
        assert_eq!(all.add(0, &of_source(flooding, MAX_FOR_SOURCE)), Err(Refused::SourceFull));
        all.add(0, &of_source(other, MAX_FOR_SOURCE)).unwrap();
        // What is expected anew needs no more room, and nothing is taken of what another waits for.
        all.add(1, &of_source(flooding, 7)).unwrap();
        let other_tuple = of_source(other, MAX_FOR_SOURCE);
        let taking = Announced { source: flooding.into(), ..other_tuple };
        assert_eq!(all.add(1, &taking), Err(Refused::SourceFull));
        assert_eq!(all.find(&other_tuple.tuple, 1).map(|entry| entry.parent), Some(MAX_FOR_SOURCE));
        assert_eq!(all.by_source.of(shares::source(flooding.into())), MAX_FOR_SOURCE);

        // One that has served, and one whose control connection has ended, make room for one each.
        let served = all.find(&of_source(flooding, 8).tuple, 1).unwrap();
        all.remove(&served);
        all.remove(&served);
        all.add(1, &of_source(flooding, 10_000)).unwrap();
        all.remove_of(9);
        all.add(1, &of_source(flooding, 10_001)).unwrap();
        assert_eq!(all.add(1, &of_source(flooding, 10_002)), Err(Refused::SourceFull));
        all.expire(LIFETIME + 1, u32::MAX);
        assert!(all.is_empty());
        consistent(&all);
    }

    #[test]
    fn addresses_of_one_ipv6_network_share_what_it_may_have() {
        let mut all = Expectations::new([1, 2], None);
        let of = |number: u32, network: u128| {
            let source = std::net::Ipv6Addr::from_bits((network << 64) | u128::from(number));
            Announced { source: source.into(), ..of_source([192, 0, 2, 1], number) }
        };
        for number in 0..MAX_FOR_SOURCE {
            all.add(0, &of(number, 0x2001_0db8_0000_0001)).unwrap();
        }
        assert_eq!(all.add(0, &of(MAX_FOR_SOURCE, 0x2001_0db8_0000_0001)), Err(Refused::SourceFull));
        all.add(0, &of(MAX_FOR_SOURCE, 0x2001_0db8_0000_0002)).unwrap();
    }

    #[test]
    fn any_source_port_is_expected_and_nothing_else_may_differ() {
        let mut all = Expectations::new([1, 2], None);
        all.add(0, &announced(3, 8080)).unwrap();
        assert_eq!(all.find(&coming(8080, 5), 0).unwrap().parent, 3);
        assert!(all.find(&coming(8081, 5), 0).is_none());
        assert!(all.find(&coming(8080, 6), 0).is_none(), "another zone");
        assert!(all.find(&coming(8080, 5).reversed(), 0).is_none());
        assert!(!all.find(&coming(8080, 5), 0).unwrap().is_translated());
    }

    #[test]
    fn what_nobody_comes_for_is_given_up_after_its_time() {
        let mut all = Expectations::new([1, 2], None);
        all.add(1000, &announced(3, 8080)).unwrap();
        all.add(2000, &announced(4, 8081)).unwrap();
        assert!(all.find(&coming(8080, 5), 1000 + LIFETIME - 1).is_some());
        assert!(all.find(&coming(8080, 5), 1000 + LIFETIME).is_none());
        assert_eq!(all.expire(1000 + LIFETIME, 10), 1);
        assert_eq!(all.expire(2000 + LIFETIME, 10), 1);
        assert!(all.is_empty());
        consistent(&all);
    }

    #[test]
    fn an_announcement_that_is_repeated_lives_on_and_another_target_is_refused() {
        let mut all = Expectations::new([1, 2], None);
        all.add(0, &announced(3, 8080)).unwrap();
        all.add(LIFETIME - 1, &announced(4, 8080)).unwrap();
        assert_eq!(all.find(&coming(8080, 5), LIFETIME + 1).unwrap().parent, 4);
        let other = Announced { target: ([10, 0, 0, 3].into(), 8080), ..announced(5, 8080) };
        assert_eq!(all.add(LIFETIME, &other), Err(Refused::Taken));
        all.add(3 * LIFETIME, &other).unwrap();
        assert_eq!(all.len(), 1, "what has expired is in nobody's way");
        consistent(&all);
    }

    #[test]
    fn a_control_connection_has_few_and_the_oldest_goes_first() {
        let mut all = Expectations::new([1, 2], None);
        for port in 1..=10 {
            all.add(u64::from(port), &announced(3, port)).unwrap();
        }
        all.add(11, &announced(4, 100)).unwrap();
        assert_eq!(all.len(), MAX_FOR_ONE + 1);
        assert!(all.find(&coming(6, 5), 11).is_none() && all.find(&coming(7, 5), 11).is_some());
        all.remove_of(3);
        assert_eq!(all.len(), 1);
        consistent(&all);
    }

    #[test]
    fn a_crowd_is_refused_and_leaves_nothing() {
        let mut all = Expectations::new([1, 2], None);
        let of = |number: usize| {
            let [.., a, b, c, d] = number.to_be_bytes();
            let tuple = Tuple::new([a, b, c, d].into(), [10, 0, 0, 2].into(), 0, 80, 6, 0).unwrap();
            Announced {
                tuple,
                parent: u32::try_from(number).unwrap(),
                source: tuple.src(),
                ..announced(0, 80)
            }
        };
        for number in 0..MAX_EXPECTATIONS {
            all.add(0, &of(number)).unwrap();
        }
        assert_eq!(all.add(0, &of(MAX_EXPECTATIONS)), Err(Refused::Full));
        let (page, next) = all.page(0, 100);
        assert_eq!((page.count(), next), (100, Some(100)));
        assert_eq!(all.page(65_500, 100).1, None);
        assert_eq!(all.expire(LIFETIME, u32::MAX), u32::try_from(MAX_EXPECTATIONS).unwrap());
        assert!(all.is_empty());
        consistent(&all);
    }
}
