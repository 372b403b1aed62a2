//! Choosing what a new connection is translated to, with the shard's own table as the judge of what is free.

use weir_nat::choose::{ChooseError, reply_tuple};
use weir_nat::{NatAction, Occupancy};
use weir_wire::{Tuple, Tuple4};

use crate::clock::Moment;
use crate::shard::Shard;

/// Due connections that are swept away before a new one is refused for want of a port: what has expired must not
/// stand in its way. They go in pieces, each twice as large as the one before it and followed by another search, 4032
/// in all; more are left to the sweeps that run anyway.
const PIECES: [u32; 6] = [64, 128, 256, 512, 1024, 2048];

impl Shard {
    /// The reply tuple of a new connection, free in the table.
    pub(crate) fn choose_translation(
        &mut self,
        moment: Moment,
        nat: &NatAction,
        tuple: &Tuple,
        hash: u64,
    ) -> Result<Tuple, ChooseError> {
        match self.choose_free(moment, nat, tuple, hash) {
            Err(exhausted @ ChooseError::Exhausted { .. }) => {
                self.choose_swept(moment, nat, tuple, hash).ok_or(exhausted)
            }
            chosen => chosen,
        }
    }

    fn choose_free(
        &mut self,
        moment: Moment,
        nat: &NatAction,
        tuple: &Tuple,
        hash: u64,
    ) -> Result<Tuple, ChooseError> {
        let source_hash = source_of(tuple).hash(&self.address_secret);
        let Self { table, random, occupancy, steering, redirects, .. } = self;
        let (is_one_of_many, number) = (self.is_one_of_many, self.number);
        let mut scratch = Occupancy::default();
        // What the boards are told is taken must be in the table, or nobody would tell them when it is free again.
        let occupancy = if is_one_of_many { &mut scratch } else { occupancy };
        let mut is_free = |reply: &Tuple| {
            if is_one_of_many && (steering.home(reply) != number || redirects.owner(reply).is_some()) {
                return false;
            }
            let found = table.find(reply, table.hash(reply));
            found.is_none_or(|slot| table.connection(slot.index()).deadline.is_past(moment))
        };
        reply_tuple(nat, tuple, hash, source_hash, &mut || random.next(), occupancy, &mut is_free)
    }

    /// Nothing was free: sweeps what is due and looks again where something went.
    #[cold]
    fn choose_swept(&mut self, moment: Moment, nat: &NatAction, tuple: &Tuple, hash: u64) -> Option<Tuple> {
        for piece in PIECES {
            let before = self.table.len();
            let swept = self.sweep_to(moment, piece);
            if self.table.len() < before
                && let Ok(reply) = self.choose_free(moment, nat, tuple, hash)
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

/// A tuple of the source address alone, to be hashed.
pub(crate) fn source_of(tuple: &Tuple) -> Tuple {
    match tuple {
        Tuple::V4(tuple) => Tuple::V4(Tuple4 { src: tuple.src, family: 4, ..Tuple4::default() }),
        Tuple::V6(tuple) => Tuple::V6(weir_wire::Tuple6 { src: tuple.src, family: 6, ..Default::default() }),
    }
}

#[cfg(test)]
mod tests;
