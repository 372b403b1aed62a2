//! Choosing what a new connection is translated to, with the shard's own table as the judge of what is free.
//!
//! With several shards the home of a reply tuple judges whether it is free. Where there are ports to draw from, a shard
//! draws one that makes itself the home ([`Shard::choose_at_home`]), and when it has no more, each other shard may draw
//! one of its own for it, by the same function. Destinations and single tuples leave no choice: they are tried in the
//! order in which one shard alone would try them ([`Shard::candidate`]), whatever home each has.

use weir_nat::choose::{ChooseError, Request, reply_tuple, reply_tuple_at};
use weir_nat::slices::Homes;
use weir_nat::{InOrder, NatAction, Occupancy};
use weir_wire::{Tuple, Tuple4};

use crate::action::CtAction;
use crate::clock::Moment;
use crate::lookup::{Lookup, Target};
use crate::shard::Shard;
use crate::steering::slices::Own;
use crate::table::Table;

/// Due connections that are swept away before a new one is refused for want of a port: what has expired must not
/// stand in its way. They go in pieces, each twice as large as the one before it and followed by another search, 4032
/// in all; more are left to the sweeps that run anyway.
const PIECES: [u32; 6] = [64, 128, 256, 512, 1024, 2048];

/// What a new connection's reply tuple is, or may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draft {
    pub(crate) reply: Tuple,
    /// Of the reply tuple, keyed as the table's.
    pub(crate) hash: u64,
}

/// Names a draft until as many others were made as are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DraftNumber(u32);

impl DraftNumber {
    /// No draft.
    pub(crate) const NONE: Self = Self(0);

    #[inline]
    pub(crate) const fn to_bits(self) -> u32 {
        self.0
    }

    #[inline]
    pub(crate) const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }
}

/// Drafts that are kept: those of a burst, twice over.
const DRAFTS: u32 = 128;

/// The drafts made last. They lie here and not in the look-ups they belong to, because those are copied.
pub(crate) struct Drafts {
    ring: [Draft; DRAFTS as usize],
    last: u32,
}

impl Drafts {
    pub(crate) fn new() -> Self {
        Self { ring: [Draft { reply: Tuple::V4(Tuple4::default()), hash: 0 }; DRAFTS as usize], last: 0 }
    }

    #[inline]
    fn keep(&mut self, draft: Draft) -> DraftNumber {
        // 0 is none.
        self.last = self.last.wrapping_add(1).max(1);
        self.ring[(self.last % DRAFTS) as usize] = draft;
        DraftNumber(self.last)
    }

    /// The draft of this number, if it is still kept.
    #[inline]
    pub(crate) fn get(&self, DraftNumber(number): DraftNumber) -> Option<Draft> {
        let is_kept = number != 0 && self.last.wrapping_sub(number) < DRAFTS - 1;
        is_kept.then(|| self.ring[(number % DRAFTS) as usize])
    }
}

impl Shard {
    /// Between stages 2 and 3, of a packet that [may be a connection's first](Lookup::new_connection_hash): says which
    /// reply tuple its connection will probably get under `action`, and asks for the line of the index where that goes.
    /// [`Shard::execute`] looks there before it searches.
    #[inline]
    pub fn foresee(&mut self, lookup: &mut Lookup, action: &CtAction) {
        if lookup.new_connection_hash().is_none() {
            return;
        }
        let Target::Packet(tuple) = &lookup.target else { return };
        lookup.draft = self.draft(tuple, lookup.hash, action);
    }

    /// Drafts the reply tuple of the connection that a packet with this tuple, of this hash, may start by `action`. Among
    /// several shards it is one whose home is here.
    #[inline]
    pub(crate) fn draft(&mut self, tuple: &Tuple, hash: u64, action: &CtAction) -> DraftNumber {
        if !action.commit {
            return DraftNumber::NONE;
        }
        let nat = action.nat.unwrap_or(NatAction::Apply);
        let source_hash = self.source_hash(&nat, tuple);
        let request = Request { action: &nat, original: tuple, hash, source_hash };
        let first = match self.is_one_of_many {
            true => self.foreseen_at_home(&request),
            false => request.first_reply(&mut || self.random.next()),
        };
        let Some(reply) = first else { return DraftNumber::NONE };
        let hash = self.table.hash(&reply);
        self.table.prefetch_bucket(hash);
        self.drafts.keep(Draft { reply, hash })
    }

    /// The reply tuple that a search of one of several shards asks about first, if its home is here.
    #[inline(never)]
    fn foreseen_at_home(&mut self, request: &Request<'_>) -> Option<Tuple> {
        let draws = self.draws_at_home(request.action, request.original);
        let Self { random, steering, number, own_entries, .. } = self;
        let homes = Own { steering, number: *number, entries: own_entries };
        let mut random = || random.next();
        if draws {
            return request.first_reply_at(&homes, &mut random);
        }
        request.first_reply(&mut random).filter(|reply| homes.is_own(reply))
    }

    /// What was drafted for a packet, if it is still free.
    #[inline]
    pub(crate) fn drafted(&self, number: DraftNumber) -> Option<Draft> {
        let draft = self.drafts.get(number)?;
        let is_free = self.table.find(&draft.reply, draft.hash).is_none()
            && (!self.is_one_of_many || self.redirects.owner(&draft.reply).is_none());
        is_free.then_some(draft)
    }

    /// A reply tuple with its hash.
    #[inline]
    pub(crate) fn draft_of(&self, reply: Tuple) -> Draft {
        Draft { reply, hash: self.table.hash(&reply) }
    }

    /// What `persistent` ranges choose the address by; 0 for others, which do not ask.
    #[inline]
    fn source_hash(&self, nat: &NatAction, tuple: &Tuple) -> u64 {
        match nat {
            NatAction::Source(range) | NatAction::Destination(range) if range.persistent => {
                source_of(tuple).hash(&self.address_secret)
            }
            _ => 0,
        }
    }

    /// The reply tuple of a new connection of a shard alone, free in the table.
    pub(crate) fn choose_translation(
        &mut self,
        moment: Moment,
        nat: &NatAction,
        tuple: &Tuple,
        hash: u64,
    ) -> Result<Tuple, ChooseError> {
        self.choose_swept(moment, |shard| shard.choose_alone(moment, nat, tuple, hash))
    }

    /// A reply tuple whose home this shard is, free in its table, for a connection of its own or of another shard;
    /// `hash` is the keyed hash of `tuple` at the shard that asks. The ports follow the original one, the hash or chance
    /// as [`reply_tuple_at`] says. A tuple that was given to another shard is not free.
    pub(crate) fn choose_at_home(
        &mut self,
        moment: Moment,
        nat: &NatAction,
        tuple: &Tuple,
        hash: u64,
    ) -> Result<Tuple, ChooseError> {
        self.choose_swept(moment, |shard| {
            let source_hash = shard.source_hash(nat, tuple);
            let Self { table, random, occupancy, redirects, steering, number, own_entries, .. } = shard;
            let request = Request { action: nat, original: tuple, hash, source_hash };
            let homes = Own { steering, number: *number, entries: own_entries };
            let mut is_free =
                |reply: &Tuple| is_free(table, moment, reply) && redirects.owner(reply).is_none();
            reply_tuple_at(&request, &homes, &mut || random.next(), occupancy, &mut is_free)
        })
    }

    /// The first reply tuple in the order of one shard alone that is not among `refused`, nor taken here if its home is
    /// here; it may have been given away. What another home says of it is to be asked there; if it refuses, ask for the
    /// next candidate with this one among `refused`. Exhausted when no candidate is left, or within the bounds of a
    /// search.
    pub(crate) fn candidate(
        &mut self,
        moment: Moment,
        nat: &NatAction,
        tuple: &Tuple,
        hash: u64,
        refused: &[Tuple],
    ) -> Result<Tuple, ChooseError> {
        self.choose_swept(moment, |shard| {
            let source_hash = shard.source_hash(nat, tuple);
            let Self { table, random, occupancy, steering, number, own_entries, .. } = shard;
            let request = Request { action: nat, original: tuple, hash, source_hash };
            let homes = Own { steering, number: *number, entries: own_entries };
            let mut is_free = |reply: &Tuple| !refused.contains(reply) && is_free(table, moment, reply);
            reply_tuple_at(&request, &InOrder(&homes), &mut || random.next(), occupancy, &mut is_free)
        })
    }

    /// True if a translation is to be drawn at home: where it leaves ports to draw from ([`Request::draws_ports`]), and
    /// where each shard has public addresses of its own; but not where it is to change nothing if that can be.
    pub(crate) fn draws_at_home(&self, nat: &NatAction, tuple: &Tuple) -> bool {
        let NatAction::Source(range) = nat else { return false };
        let request = Request { action: nat, original: tuple, hash: 0, source_hash: 0 };
        !range.keeps_address() && (request.draws_ports() || self.steering.has_subscribers(tuple.zone()))
    }

    fn choose_alone(
        &mut self,
        moment: Moment,
        nat: &NatAction,
        tuple: &Tuple,
        hash: u64,
    ) -> Result<Tuple, ChooseError> {
        let source_hash = self.source_hash(nat, tuple);
        let Self { table, random, occupancy, .. } = self;
        let mut is_free = |reply: &Tuple| is_free(table, moment, reply);
        reply_tuple(nat, tuple, hash, source_hash, &mut || random.next(), occupancy, &mut is_free)
    }

    /// What `choose` finds, at once or when what is due has been swept.
    fn choose_swept(
        &mut self,
        moment: Moment,
        mut choose: impl FnMut(&mut Self) -> Result<Tuple, ChooseError>,
    ) -> Result<Tuple, ChooseError> {
        match choose(self) {
            Err(exhausted @ ChooseError::Exhausted { .. }) => {
                self.choose_again(moment, choose).ok_or(exhausted)
            }
            chosen => chosen,
        }
    }

    /// Nothing was free: sweeps what is due and looks again where something went.
    #[cold]
    fn choose_again(
        &mut self,
        moment: Moment,
        mut choose: impl FnMut(&mut Self) -> Result<Tuple, ChooseError>,
    ) -> Option<Tuple> {
        for piece in PIECES {
            let before = self.table.len();
            let swept = self.sweep_to(moment, piece);
            if self.table.len() < before
                && let Ok(reply) = choose(self)
            {
                return Some(reply);
            }
            if swept < piece {
                break;
            }
        }
        None
    }

    /// What is known of crowded ranges, for tests and to be shown.
    #[must_use]
    pub const fn occupancy(&self) -> &Occupancy {
        &self.occupancy
    }
}

/// True if no live connection of the table has this tuple.
fn is_free(table: &Table, moment: Moment, reply: &Tuple) -> bool {
    let found = table.find(reply, table.hash(reply));
    found.is_none_or(|slot| table.connection(slot.index()).deadline().is_past(moment))
}

/// A tuple of the source address alone, to be hashed.
pub(crate) fn source_of(tuple: &Tuple) -> Tuple {
    match tuple {
        Tuple::V4(tuple) => Tuple::V4(Tuple4 { src: tuple.src, family: 4, ..Tuple4::default() }),
        Tuple::V6(tuple) => Tuple::V6(weir_wire::Tuple6 { src: tuple.src, family: 6, ..Default::default() }),
    }
}

#[cfg(test)]
mod tests;
