//! The shard's side of travelling: who is to have a packet of no connection, and what becomes of one that arrives.
//! Called by the ways of `conntrack` on which nothing was found, and by the worker for packets under way. With one
//! shard alone none of this runs.

use weir_wire::{Layers, Tuple};

use super::asks::Asking;
use super::{Addressed, Errand, MAX_HOPS, Notice, Reason};
use crate::action::CtAction;
use crate::clock::Millis;
use crate::conntrack::Packet;
use crate::meta::CtMeta;
use crate::outcome::{DropReason, Outcome};
use crate::shard::Shard;
use crate::steering::ShardNumber;
use crate::translation::DraftNumber;

impl Shard {
    /// The other shard that knows what becomes of a packet without a connection here: its tuple's home, or there who has
    /// been given the tuple. `None` if that is this one.
    #[inline]
    pub(crate) fn whose(&self, tuple: &Tuple) -> Option<ShardNumber> {
        match self.steering.home(tuple) {
            home if home != self.number => Some(home),
            _ => self.redirects.owner(tuple),
        }
    }

    /// Where the packet of no connection here goes that would start one. `None` if it is to be decided here.
    #[inline]
    pub(crate) fn start_elsewhere(&mut self, packet: &mut Packet<'_>, tuple: &Tuple) -> Option<Outcome> {
        // Nearly all come to where they belong.
        if self.arrived.is_none() && self.directory.is_empty() && self.whose(tuple).is_none() {
            return None;
        }
        self.send_to_start(packet, tuple)
    }

    #[cold]
    fn send_to_start(&mut self, packet: &mut Packet<'_>, tuple: &Tuple) -> Option<Outcome> {
        if self.arrived.as_ref().is_some_and(|errand| errand.expected)
            && self.steering.home(tuple) != self.number
        {
            if self.is_expected(packet.moment, tuple) {
                return None;
            }
            if let Some(errand) = &mut self.arrived {
                errand.unexpected = true;
            }
        }
        if let Some(outcome) = self.elsewhere(packet, tuple, Reason::Steered) {
            return Some(outcome);
        }
        if self.arrived.as_ref().is_some_and(|errand| errand.unexpected) {
            return None;
        }
        let owner = self.directory.find(tuple).filter(|&owner| owner != self.number)?;
        let mut errand = self.leave();
        errand.expected = true;
        if packet.action.commit && self.give_away(*tuple, owner) {
            errand.asking = Some(Box::new(Asking::with_original(owner, *tuple)));
        }
        Some(self.hand_over(packet, errand, owner, Reason::Expected))
    }

    /// Where a packet of no connection here is to go: to its tuple's home, from there to the owner. `None` if it is to
    /// be decided here.
    #[cold]
    pub(crate) fn elsewhere(
        &mut self,
        packet: &mut Packet<'_>,
        tuple: &Tuple,
        why: Reason,
    ) -> Option<Outcome> {
        let to = self.whose(tuple)?;
        let is_redirected = why == Reason::Steered && self.steering.home(tuple) == self.number;
        let why = if is_redirected { Reason::Redirected } else { why };
        let errand = self.leave();
        Some(self.hand_over(packet, errand, to, why))
    }

    /// The errand of the packet that is being executed and goes on: it asks for nothing any more.
    fn leave(&mut self) -> Errand {
        let mut errand = self.arrived.take().unwrap_or_default();
        self.release_given(&mut errand);
        errand.expected = false;
        errand
    }

    /// Sends a packet to where it belongs.
    fn hand_over(
        &mut self,
        packet: &mut Packet<'_>,
        mut errand: Errand,
        to: ShardNumber,
        why: Reason,
    ) -> Outcome {
        if errand.hops >= MAX_HOPS {
            return self.lose(errand);
        }
        errand.hops += 1;
        self.depart(packet, errand, to, why)
    }

    /// A packet leaves. What it was found to be here counts for nothing.
    pub(super) fn depart(
        &mut self,
        packet: &mut Packet<'_>,
        mut errand: Errand,
        to: ShardNumber,
        why: Reason,
    ) -> Outcome {
        errand.again |= packet.again;
        packet.meta.leave(packet.action.zone);
        self.errand = errand;
        Outcome::Elsewhere { to, why }
    }

    /// A packet that has travelled for too long.
    pub(super) fn lose(&mut self, mut errand: Errand) -> Outcome {
        self.release_given(&mut errand);
        self.counters.handover_hops += 1;
        Outcome::Drop(DropReason::HandoverHops)
    }

    /// Goes on with a packet that another shard handed over, which has verified its checksums: as stages 1 to 3 for it
    /// alone.
    #[cold]
    pub fn resume(
        &mut self,
        now: Millis,
        frame: &mut [u8],
        layers: &Layers,
        action: &CtAction,
        meta: &mut CtMeta,
        errand: Errand,
    ) -> Outcome {
        let moment = self.clock.advance(now);
        if meta.is_translated_in(action.zone) {
            // Only its connection knows what its headers were, and that is elsewhere.
            self.abandon(errand);
            return self.drop_untranslated(DropReason::Stale);
        }
        let again = errand.again || meta.is_tracked_in(action.zone);
        meta.leave(action.zone);
        let mut packet = Packet { moment, frame, layers, action, meta, again, draft: DraftNumber::NONE };
        let outcome = self.serve(&mut packet, errand);
        if let Some(mut errand) = self.arrived.take() {
            self.release_given(&mut errand);
        }
        outcome
    }

    /// The errand of the packet whose ct action ended as [`Outcome::Elsewhere`].
    pub fn take_errand(&mut self) -> Errand {
        core::mem::take(&mut self.errand)
    }

    /// A packet that was to be sent to another shard, or that has come from one, travels no more: gives back what its
    /// errand was given.
    #[cold]
    pub fn abandon(&mut self, mut errand: Errand) {
        self.release_given(&mut errand);
    }

    /// Hears what another shard has to tell.
    #[cold]
    pub fn hear(&mut self, from: ShardNumber, notice: Notice) {
        debug_assert_ne!(from, self.number, "nobody tells itself");
        match notice {
            Notice::Release(tuple) => self.take_back(&tuple),
        }
    }

    /// The next notice to be sent to another shard; ask after each burst and each housekeeping, until there is none.
    /// One that finds no room must be kept by whoever asked, and nothing may be sent to the same shard before it.
    pub fn next_notice(&mut self) -> Option<Addressed> {
        self.notices.pop()
    }

    /// Notices that wait to be sent.
    #[must_use]
    pub fn notices(&self) -> usize {
        self.notices.len()
    }

    /// Tuples with their home here that connections of other shards have, or are being given.
    #[must_use]
    pub fn redirects(&self) -> usize {
        self.redirects.len()
    }
}
