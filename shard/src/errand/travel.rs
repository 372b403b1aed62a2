//! The shard's side of travelling: who is to have a packet of no connection, and what becomes of one that arrives.
//! Called by the ways of `conntrack` on which nothing was found, and by the worker for packets under way. With one
//! shard alone none of this runs.

use weir_wire::{Layers, Tuple};

use super::{Addressed, Errand, MAX_HOPS, Notice, Reason};
use crate::action::CtAction;
use crate::clock::Millis;
use crate::conntrack::Packet;
use crate::meta::CtMeta;
use crate::outcome::{DropReason, Outcome};
use crate::shard::Shard;
use crate::steering::ShardNumber;

impl Shard {
    /// Where a packet of no connection here is to go: to its tuple's home. `None` if it is to be decided here.
    #[cold]
    pub(crate) fn elsewhere(
        &mut self,
        packet: &mut Packet<'_>,
        tuple: &Tuple,
        why: Reason,
    ) -> Option<Outcome> {
        let home = self.steering.home(tuple);
        (home != self.number).then(|| self.hand_over(packet, home, why))
    }

    /// Sends a packet on. What it was found to be here counts for nothing.
    fn hand_over(&mut self, packet: &mut Packet<'_>, to: ShardNumber, why: Reason) -> Outcome {
        let mut errand = self.arrived.take().unwrap_or_default();
        errand.again |= packet.again;
        packet.meta.leave(packet.action.zone);
        if errand.hops >= MAX_HOPS {
            self.counters.handover_hops += 1;
            return Outcome::Drop(DropReason::HandoverHops);
        }
        errand.hops += 1;
        self.errand = errand;
        Outcome::Elsewhere { to, why }
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
            return self.drop_untranslated(DropReason::Stale);
        }
        let again = errand.again || meta.is_tracked_in(action.zone);
        meta.leave(action.zone);
        self.arrived = Some(errand);
        let mut packet = Packet { moment, frame, layers, action, meta, again };
        let outcome = self.execute_again(&mut packet);
        self.arrived = None;
        outcome
    }

    /// The errand of the packet whose ct action ended as [`Outcome::Elsewhere`].
    pub fn take_errand(&mut self) -> Errand {
        core::mem::take(&mut self.errand)
    }

    /// A packet that this shard has sent, or was to send, cannot travel: undoes what its errand has reserved.
    #[cold]
    pub fn abandon(&mut self, errand: Errand) {
        let _ = errand;
    }

    /// Hears what another shard has to tell.
    #[cold]
    pub fn hear(&mut self, from: ShardNumber, notice: Notice) {
        let _ = (from, notice);
    }

    /// The next notice to be sent to another shard; ask after each burst and each housekeeping, until there is none.
    pub fn next_notice(&mut self) -> Option<Addressed> {
        None
    }
}
