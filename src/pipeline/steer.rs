//! Steering in software: packets of a port whose card does not bring them to their owners are looked at before all
//! else, and those of other shards go there raw, before anything was counted or looked up for them. Done to the bursts of
//! [`Worker::process`] when some table tracks; never for one shard alone. It only makes things fast: whoever arrives at
//! the wrong shard in spite of it is handed over at its `ct`.

use weir_shard::steering::ShardNumber;
use weir_shard::{PlainLookup, Reason};
use weir_wire::Layers;

use super::frame::{BURST, Burst, Frame, Transmit};
use super::letter::Letter;
use super::worker::Worker;
use super::{DropCause, PortId};

impl<F: Frame> Worker<F> {
    /// Says whether the packets of a port are brought to their owners by its card. Until it is said they are not.
    pub fn set_steered(&mut self, port: PortId, by_card: bool) {
        let index = port as usize;
        if index >= self.by_card.len() {
            if !by_card {
                return;
            }
            self.by_card.resize(index + 1, false);
        }
        if let Some(steered) = self.by_card.get_mut(index) {
            *steered = by_card;
        }
    }

    /// True if packets of this port are to be steered here.
    #[inline]
    pub(super) fn steers(&self, port: PortId) -> bool {
        self.is_shared && self.snapshot().tracks && !self.by_card.get(port as usize).copied().unwrap_or(false)
    }

    /// Lets those packets of a burst leave that are other shards', with their look-ups; the plain ones among these need no
    /// other parse. Gives the bytes of all.
    #[inline(never)]
    pub(super) fn steer<T: Transmit<F>>(
        &mut self,
        port: PortId,
        burst: &mut Burst<F>,
        lookups: &mut [PlainLookup],
        out: &mut T,
    ) -> u64 {
        self.post_notices(out);
        let (own, steering) = (self.shard.number(), self.shard.steering());
        let (mut bytes, mut homes) = (0, [own; BURST]);
        for ((frame, lookup), home) in burst.iter().zip(&*lookups).zip(&mut homes) {
            let content = frame.bytes();
            bytes += content.len() as u64;
            let layers = if lookup.is_plain() { lookup.layers() } else { Layers::parse(content) };
            *home = steering.home_of_frame(content, &layers).unwrap_or(own);
        }
        if homes.iter().any(|home| *home != own) {
            self.part(port, burst, lookups, &homes, out);
        }
        bytes
    }

    /// Sends the packets of a burst to these shards, but for those that are to stay.
    fn part<T: Transmit<F>>(
        &mut self,
        port: PortId,
        burst: &mut Burst<F>,
        lookups: &mut [PlainLookup],
        homes: &[ShardNumber; BURST],
        out: &mut T,
    ) {
        let numbering = self.snapshot().numbering;
        let Self { shard, counters, outbox, .. } = self;
        let (own, why) = (shard.number(), Reason::Steered);
        let (mut handed_over, mut kept) = (0, Burst::new());
        for (at, (frame, &to)) in burst.drain(..).zip(homes).enumerate() {
            if to == own {
                lookups.swap(kept.len(), at);
                kept.push(frame);
                continue;
            }
            let letter = Letter::Packet { port, numbering, frame, why };
            let posted = if outbox.is_behind(to) { Err(letter) } else { out.post(to, letter) };
            let Err(letter) = posted else {
                handed_over += 1;
                continue;
            };
            counters.refused_full[why.index()] += 1;
            counters.count_drop(DropCause::MailboxFull);
            if let Letter::Packet { frame, .. } = letter {
                out.refused(&frame);
            }
        }
        counters.handed_over[why.index()] += handed_over;
        *burst = kept;
    }
}
