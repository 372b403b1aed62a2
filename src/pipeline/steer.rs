//! Steering in software: packets of a port whose card does not bring them to their owners are looked at before all
//! else, and those of other shards go there raw, before anything was counted or looked up for them. Called by
//! [`Worker::process`] when some table tracks; never for one shard alone. It only makes things fast: whoever arrives at
//! the wrong shard in spite of it is handed over at its `ct`.

use weir_shard::Reason;
use weir_wire::Layers;

use super::frame::{Burst, Frame, Transmit};
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

    /// Lets those packets of a burst leave that are other shards'. Gives the bytes of all.
    #[inline(never)]
    pub(super) fn steer<T: Transmit<F>>(&mut self, port: PortId, burst: &mut Burst<F>, out: &mut T) -> u64 {
        self.post_notices(out);
        let numbering = self.snapshot().numbering;
        let Self { shard, counters, outbox, .. } = self;
        let (own, steering) = (shard.number(), shard.steering());
        let (mut bytes, mut handed_over, mut kept) = (0, 0, Burst::new());
        let why = Reason::Steered;
        for frame in burst.drain(..) {
            let content = frame.bytes();
            bytes += content.len() as u64;
            let to = steering.home_of_frame(content, &Layers::parse(content)).unwrap_or(own);
            if to == own {
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
        bytes
    }
}
