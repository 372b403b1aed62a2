//! Packets that leave for another shard at a `ct`, and those that come from one. The sender has classified the packet
//! and counted it for its flows; the receiver gives it a flow of its own with the steps that are left, shows it to the
//! tracker and goes on. Numbers that only the sender knows (flows, recirculation ids) are replaced by what they stand
//! for. All of this is the rare case: a packet that arrives where its connection is never comes here.
//!
//! Packets of one connection stay in order: those in one mailbox are worked in the order in which they were posted, and
//! one that its tracker calls new is through with all its steps before the next one of the mailbox begins.

use weir_shard::{CtState, Errand, Outcome, Reason, ShardNumber};
use weir_wire::Fragment;

use super::frame::{Burst, Frame, Transmit};
use super::letter::{Letter, Letters, Parcel, Piece, Task};
use super::megaflow::Recipe;
use super::packet::{Batch, Packet};
use super::recirculation::Context;
use super::step::Step;
use super::trajectory::Course;
use super::worker::{MAX_COPIES, Start, Worker};
use super::{BURST, DropCause, PortId};
use crate::flow::key::{Key, at};

/// Recirculated copies that may still be made of a packet that leaves, and of all its copies together. They are taken
/// from those of its burst: a packet makes no more of them by going from shard to shard.
const COPIES_TAKEN_ALONG: u32 = MAX_COPIES / BURST as u32;
/// A copy that leaves takes along one of so many.
const PART_OF_A_COPY: u32 = 4;

/// Packets that have passed their trackers and go on together.
struct Resumed<F> {
    batch: Batch<F>,
    copies: u32,
    nesting: usize,
}

/// A packet that leaves: where, why and what for.
pub(super) struct Departure {
    pub(super) to: ShardNumber,
    pub(super) why: Reason,
    pub(super) task: Task,
    /// Of how many copies it is a copy.
    pub(super) nesting: usize,
}

impl<F: Frame> Worker<F> {
    /// Sends a packet that stands at a `ct` to another shard, with all fragments of its datagram. Where there is no
    /// room it is dropped.
    #[cold]
    pub(super) fn hand_over<T: Transmit<F>>(
        &mut self,
        head: Packet<F>,
        rest: Vec<Packet<F>>,
        Departure { to, why, task, nesting }: Departure,
        out: &mut T,
    ) {
        let packets = 1 + rest.len() as u64;
        let copies = match nesting {
            0 => self.copies_left.min(COPIES_TAKEN_ALONG),
            _ => self.copies_left / PART_OF_A_COPY,
        };
        let parcel = Parcel {
            head: self.pack(head),
            rest: rest.into_iter().map(|packet| self.pack(packet)).collect(),
            task,
            why,
            numbering: self.snapshot().numbering,
            copies,
            nesting,
        };
        let letter = Letter::Parcel(Box::new(parcel));
        let counted = letter.packets();
        let returned = match self.post(to, letter, out) {
            Ok(()) => {
                self.copies_left -= copies;
                self.counters.handed_over[why.index()] += counted;
                self.counters.copies -= packets - counted;
                return;
            }
            Err(letter) => letter,
        };
        self.counters.refused_full[why.index()] += packets;
        (0..packets).for_each(|_| self.counters.count_drop(DropCause::MailboxFull));
        if let Letter::Parcel(parcel) = returned {
            parcel
                .pieces()
                .filter_map(|piece| piece.packet.frame.as_ref())
                .for_each(|frame| out.refused(frame));
            if let Task::Track(errand) = parcel.task {
                self.shard.abandon(errand);
            }
        }
    }

    /// Posts a letter behind the notices that were there before it.
    fn post<T: Transmit<F>>(
        &mut self,
        to: ShardNumber,
        letter: Letter<F>,
        out: &mut T,
    ) -> Result<(), Letter<F>> {
        self.post_notices(out);
        if self.outbox.is_behind(to) { Err(letter) } else { out.post(to, letter) }
    }

    /// Posts what this shard has to tell the others. To be called after everything that may end connections: after
    /// [`Worker::housekeeping`] and after flushing some. [`Worker::process`], [`Worker::inject`] and
    /// [`Worker::receive`] do it themselves. What finds no room waits, and is lost by nothing.
    #[inline]
    pub fn post_notices<T: Transmit<F>>(&mut self, out: &mut T) {
        if !self.is_shared {
            return;
        }
        if self.outbox.len() > 0 {
            self.outbox.send_waiting(out);
        }
        while let Some(addressed) = self.shard.next_notice() {
            self.outbox.send(addressed, out);
        }
    }

    /// Notices that found no room in their mailboxes so far.
    #[must_use]
    pub fn waiting_notices(&self) -> usize {
        self.outbox.len()
    }

    /// Takes letters from the shard `from` over, in their order, and works on them until each packet is sent, dropped,
    /// held or handed on. `letters` is empty afterwards. `now` is [`Worker::process`]'s. To be called between bursts.
    pub fn receive<T: Transmit<F>>(
        &mut self,
        now: u64,
        from: ShardNumber,
        letters: &mut Letters<F>,
        out: &mut T,
    ) {
        for letter in &*letters {
            if let Letter::Packet { frame, .. } = letter {
                frame.prefetch();
            }
        }
        self.take_snapshot();
        let numbering = self.snapshot().numbering;
        let (mut raw, mut raw_port) = (Burst::new(), PortId::MAX);
        let mut resumed = Resumed { batch: Batch::new(), copies: 0, nesting: 0 };
        for letter in letters.drain(..) {
            match letter {
                Letter::Packet { port, numbering: theirs, frame, why } => {
                    self.run_resumed(now, &mut resumed, out);
                    self.counters.taken_over[why.index()] += 1;
                    if theirs != numbering {
                        self.counters.count_drop(DropCause::Renumbered);
                        continue;
                    }
                    if port != raw_port {
                        self.run_raw(now, raw_port, &mut raw, out);
                        raw_port = port;
                    }
                    raw.push(frame);
                }
                Letter::Parcel(parcel) => {
                    self.run_raw(now, raw_port, &mut raw, out);
                    self.take_over(now, *parcel, &mut resumed, out);
                }
                Letter::Notice(notice) => {
                    self.run_raw(now, raw_port, &mut raw, out);
                    self.run_resumed(now, &mut resumed, out);
                    self.shard.hear(from, notice);
                }
            }
        }
        self.run_raw(now, raw_port, &mut raw, out);
        self.run_resumed(now, &mut resumed, out);
        self.tidy();
        self.post_notices(out);
    }

    /// Lets packets that came raw begin.
    #[inline]
    fn run_raw<T: Transmit<F>>(&mut self, now: u64, port: PortId, burst: &mut Burst<F>, out: &mut T) {
        if !burst.is_empty() {
            self.take_burst(now, port, burst, false, out);
        }
    }

    /// Lets packets that have passed their trackers go on.
    fn run_resumed<T: Transmit<F>>(&mut self, now: u64, resumed: &mut Resumed<F>, out: &mut T) {
        if resumed.batch.is_empty() {
            return;
        }
        self.copies_left = core::mem::take(&mut resumed.copies);
        self.run(now, &mut resumed.batch, out, resumed.nesting, Start::Resume);
        resumed.batch.clear();
        if self.has_ready_fragments() {
            self.run_ready(now, out);
        }
    }

    /// Shows what came with a parcel to the tracker; a packet that may go on comes into `resumed`.
    #[cold]
    fn take_over<T: Transmit<F>>(
        &mut self,
        now: u64,
        parcel: Parcel<F>,
        resumed: &mut Resumed<F>,
        out: &mut T,
    ) {
        let Parcel { head, rest, task, why, numbering, copies, nesting } = parcel;
        for piece in core::iter::once(&head).chain(&rest) {
            match piece.is_tail() {
                true => self.counters.copies += 1,
                false => self.counters.taken_over[why.index()] += 1,
            }
        }
        let lost = 1 + rest.len();
        let cause = if numbering == self.snapshot().numbering {
            if let Some((head, rest)) = self.unpack_all(now, head, rest) {
                return self.go_on(now, head, rest, task, (copies, nesting), resumed, out);
            }
            DropCause::RecirculationContexts
        } else {
            DropCause::Renumbered
        };
        (0..lost).for_each(|_| self.counters.count_drop(cause));
        if let Task::Track(errand) = task {
            self.shard.abandon(errand);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "a parcel unpacked")]
    fn go_on<T: Transmit<F>>(
        &mut self,
        now: u64,
        mut head: Packet<F>,
        rest: Vec<Packet<F>>,
        task: Task,
        (copies, nesting): (u32, usize),
        resumed: &mut Resumed<F>,
        out: &mut T,
    ) {
        let errand = match task {
            Task::Track(errand) if head.layers.fragment == Fragment::No => errand,
            task => {
                self.run_resumed(now, resumed, out);
                self.copies_left = copies;
                match task {
                    Task::Meet => self.track_fragment(now, &mut head, nesting, out),
                    Task::Track(errand) => self.track_taken(now, head, rest, errand, out),
                }
                return self.run_ready(now, out);
            }
        };
        if resumed.nesting != nesting {
            self.run_resumed(now, resumed, out);
            resumed.nesting = nesting;
        }
        let outcome = self.resume(now, &mut head, errand, out);
        match outcome {
            Outcome::Elsewhere { to, why } => {
                // Those in front of it may be going there, too.
                self.run_resumed(now, resumed, out);
                self.copies_left = copies;
                let task = Task::Track(self.shard.take_errand());
                return self.hand_over(head, Vec::new(), Departure { to, why, task, nesting }, out);
            }
            outcome => self.pass(&mut head, outcome),
        }
        if head.frame.is_none() {
            return;
        }
        let is_new = head.meta.state.has(CtState::NEW);
        resumed.copies += copies;
        resumed.batch.push(head);
        if is_new || resumed.batch.is_full() {
            self.run_resumed(now, resumed, out);
        }
    }

    /// Shows a packet to the tracker at the `ct` that it came for.
    fn resume<T: Transmit<F>>(
        &mut self,
        now: u64,
        packet: &mut Packet<F>,
        errand: Errand,
        out: &mut T,
    ) -> Outcome {
        let step = self.megaflows.flow(packet.flow).and_then(|flow| flow.recipe.steps.get(packet.step));
        let (Some(frame), Some(Step::Ct(action))) = (&mut packet.frame, step) else {
            return Outcome::Continue { rewritten: false };
        };
        let outcome =
            self.shard.resume(now, frame.bytes_mut(), &packet.layers, action, &mut packet.meta, errand);
        if !matches!(outcome, Outcome::Elsewhere { .. }) {
            packet.step += 1;
            out.tracked(frame);
        }
        outcome
    }

    /// Makes a packet portable.
    fn pack(&self, mut packet: Packet<F>) -> Piece<F> {
        packet.key(self.snapshot());
        (packet.course, packet.lookup, packet.connection) = (Course::NONE, None, None);
        packet.meta.connection = None;
        let (mut steps, mut drop) = (Box::default(), None);
        if let Some(flow) = self.megaflows.flow(packet.flow) {
            steps = flow.recipe.steps.get(packet.step..).unwrap_or_default().into();
            drop = flow.recipe.drop;
        }
        let mut contexts: Vec<(u32, Context)> = Vec::new();
        for id in named(&steps).chain([packet.recirculation]) {
            if contexts.iter().all(|(known, _)| *known != id)
                && let Some(context) = self.contexts.find(id)
            {
                contexts.push((id, context.clone()));
            }
        }
        Piece { packet, steps, drop, contexts }
    }

    /// Gives each packet of a parcel a flow of its own; `None`, and none of them has one, if there is no room.
    fn unpack_all(
        &mut self,
        now: u64,
        head: Piece<F>,
        rest: Vec<Piece<F>>,
    ) -> Option<(Packet<F>, Vec<Packet<F>>)> {
        let head = self.unpack(now, head)?;
        let rest = rest.into_iter().map(|piece| self.unpack(now, piece)).collect::<Option<_>>()?;
        Some((head, rest))
    }

    fn unpack(&mut self, now: u64, piece: Piece<F>) -> Option<Packet<F>> {
        let Piece { mut packet, mut steps, drop, contexts } = piece;
        let mut ids = Vec::with_capacity(contexts.len());
        for (theirs, context) in &contexts {
            let Some(own) = self.contexts.acquire(context) else {
                ids.iter().for_each(|&(_, own)| self.contexts.release(own));
                return None;
            };
            ids.push((*theirs, own));
        }
        let own = |theirs: u32| ids.iter().find(|(id, _)| *id == theirs).map_or(0, |(_, own)| *own);
        for step in &mut steps {
            if let Step::Recirculate(id) = step {
                *id = own(*id);
            }
        }
        packet.recirculation = own(packet.recirculation);
        packet.key.write(at::RECIRC_ID, 4, packet.recirculation.into());
        let contexts = ids.iter().map(|&(_, own)| own).collect();
        // It counts for no rule: its sender has counted it.
        let (rules, learned) = (Box::default(), Box::default());
        let recipe = Recipe { mask: Key::ZERO, steps, rules, learned, contexts, drop };
        packet.flow = self.install_recipe(now, &packet.key, recipe);
        packet.step = 0;
        Some(packet)
    }
}

/// The recirculation ids in some steps.
fn named(steps: &[Step]) -> impl Iterator<Item = u32> {
    steps.iter().filter_map(|step| match step {
        Step::Recirculate(id) => Some(*id),
        _ => None,
    })
}
