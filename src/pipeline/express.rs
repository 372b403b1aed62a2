//! Packets whose way is known before it begins ([`trajectory`](super::trajectory)). Their connections are looked up for
//! the whole burst, stage by stage, before any of them is classified; then each packet goes its whole way in turn, from
//! the tracker to its port, without a key and without a search. One that leaves its trajectory goes on by itself as all
//! packets do. A burst in which many have none is worked in waves, as in [`Worker::run`], where trajectories save those
//! that have one their keys.

use weir_shard::{CtState, Outcome};
use weir_wire::numbers::protocol;

use super::PortId;
use super::frame::{Frame, Transmit};
use super::megaflow::Tally;
use super::packet::{Batch, Packet};
use super::step::Step;
use super::trajectory::{Class, Course, Found, Shape};
use super::worker::{Pause, Start, Worker};

/// How many packets before its turn a connection's account is asked for.
const AHEAD: usize = 12;

/// What is foreseen of packets of a class.
struct Foreseen {
    class: Class,
    /// Their trajectory.
    number: u16,
    /// It needs no further look-up.
    is_ready: bool,
}

impl<F: Frame> Worker<F> {
    /// Looks up the connections of a burst that came in by `port`, where that was not done yet, and finds the first megaflow
    /// of each packet, as far as trajectories tell. True if most packets have a trajectory on which nothing else needs to be looked up.
    #[inline]
    pub(super) fn foresee(&mut self, port: PortId, batch: &mut [Packet<F>]) -> bool {
        let usual = self.trajectories.usual(port);
        if let Some(zone) = self.trajectories.find(usual).and_then(|trajectory| trajectory.zone) {
            let shard = &self.shard;
            for packet in &mut *batch {
                let (Some(frame), None) = (&packet.frame, &packet.lookup) else { continue };
                let trusted = frame.checksums_verified();
                let (bytes, place) = (frame.bytes(), &mut packet.lookup);
                shard.prepare_into(place, bytes, &packet.layers, zone, &packet.meta, trusted);
            }
            for packet in &mut *batch {
                packet.lookup.iter_mut().for_each(|lookup| shard.prefetch_connection(lookup));
            }
        }
        let (mut ready, mut last) = (0, Foreseen { class: Class::NONE, number: 0, is_ready: false });
        for packet in &mut *batch {
            let class = Class::of(port, &packet.layers);
            let known = packet.lookup.as_ref().map(|lookup| lookup.hint());
            let number = known.filter(|number| *number != 0).unwrap_or(usual);
            if last.number != number || last.class != class {
                last = self.foresee_class(class, number, usual);
            }
            packet.course.begin(class, last.number);
            packet.course.settled =
                class == Class::NONE || (last.number != 0 && known.is_none_or(|known| known == last.number));
            ready += usize::from(packet.course.settled && last.is_ready);
        }
        for packet in batch.iter().take(AHEAD) {
            packet.lookup.iter().for_each(|lookup| self.shard.prefetch_account(lookup));
        }
        ready * 4 >= batch.len() * 3
    }

    /// The trajectory of packets of a class, of which one has kept a number, or another one that is usual.
    #[inline(never)]
    fn foresee_class(&mut self, class: Class, number: u16, usual: u16) -> Foreseen {
        let generation = self.snapshot().generation;
        let Self { trajectories, megaflows, .. } = self;
        let number = [number, usual]
            .into_iter()
            .find(|number| trajectories.find_for(*number, class, megaflows, generation).is_some())
            .unwrap_or(0);
        let is_ready = trajectories.find(number).is_some_and(|trajectory| trajectory.looks_up_once);
        Foreseen { class, number, is_ready }
    }

    /// Gives a packet the megaflow that its trajectory says, if that is right; else it has no trajectory any more.
    #[inline]
    pub(super) fn follow(&mut self, now: u64, packet: &mut Packet<F>) -> bool {
        if packet.course.number == 0 {
            return false;
        }
        let generation = self.snapshot().generation;
        let Self { trajectories, megaflows, .. } = self;
        let flow = match trajectories.look(packet, megaflows, generation) {
            Found::Flow(flow) => flow,
            Found::ByKey(flow) if self.matches(packet, flow) => flow,
            Found::ByKey(_) | Found::Nothing => {
                packet.course.leave();
                return false;
            }
        };
        self.counters.trajectory_hits += 1;
        self.assign(now, packet, flow);
        true
    }

    /// True if a megaflow matches a packet's key.
    #[inline(never)]
    fn matches(&self, packet: &mut Packet<F>, flow: u32) -> bool {
        let key = packet.key(self.snapshot());
        self.megaflows.flow(flow).is_some_and(|flow| flow.matches(key))
    }

    /// Takes the packets of a burst one after another all their way.
    #[inline]
    pub(super) fn run_in_turn<T: Transmit<F>>(&mut self, now: u64, batch: &mut [Packet<F>], out: &mut T) {
        let mut at = 0;
        while let Some(left) = batch.get_mut(at..).filter(|left| !left.is_empty()) {
            let alike = self.run_alike(now, left, out);
            at += alike.max(1);
            let Some(packet) = left.first_mut().filter(|_| alike == 0) else { continue };
            match self.follow(now, packet) {
                true => self.go(now, packet, out),
                false => self.run(now, core::slice::from_mut(packet), out, 0, Start::Classify),
            }
        }
    }

    /// Takes the first packets along that have the same trajectory, if it is one for runs; says how many these were.
    #[inline]
    fn run_alike<T: Transmit<F>>(&mut self, now: u64, batch: &mut [Packet<F>], out: &mut T) -> usize {
        let Some(Course { number, class, .. }) = batch.first().map(|packet| packet.course) else { return 0 };
        let generation = self.snapshot().generation;
        // What packets in front have brought about may have ended it.
        let trajectory = self.trajectories.find_for(number, class, &self.megaflows, generation);
        match trajectory.map(|trajectory| (trajectory.shape, &*trajectory.hops)) {
            Some((Shape::Tracked(port), _)) => self.run_tracked(now, number, port, batch, out),
            Some((Shape::Output(port), [only])) => {
                let flow = only.flow;
                self.run_output(now, number, (port, flow), batch, out)
            }
            _ => 0,
        }
    }

    /// [`Worker::run_alike`] of packets that are tracked and go out by `port`.
    #[inline(always)]
    fn run_tracked<T: Transmit<F>>(
        &mut self,
        now: u64,
        number: u16,
        port: PortId,
        batch: &mut [Packet<F>],
        out: &mut T,
    ) -> usize {
        let Self { trajectories, megaflows, shard, .. } = self;
        let Some([first, second]) = trajectories.find(number).map(|trajectory| &*trajectory.hops) else {
            return 0;
        };
        let flows = [first.flow, second.flow];
        let Some(Step::Ct(action)) = megaflows.flow(flows[0]).and_then(|flow| flow.recipe.steps.first())
        else {
            return 0;
        };
        let (mut met, mut sent) = (Tally::default(), Tally::default());
        let mut taken = 0_usize;
        let mut left = None;
        for index in 0..batch.len() {
            if let Some(lookup) = batch.get(index + AHEAD).and_then(|packet| packet.lookup.as_ref()) {
                shard.prefetch_account(lookup);
            }
            let Some(packet) = batch.get_mut(index) else { break };
            let is_alike = packet.course.number == number && packet.course.settled;
            let (flags, length) = (packet.tcp_flags(), packet.length());
            let (Some(frame), Some(lookup), true) = (&mut packet.frame, &packet.lookup, is_alike) else {
                break;
            };
            if !lookup.is_for(action.zone) {
                break;
            }
            taken += 1;
            let (layers, meta) = (&packet.layers, &mut packet.meta);
            met.add(length, flags);
            let outcome = shard.execute(now, frame.bytes_mut(), layers, lookup, action, meta);
            if !matches!(outcome, Outcome::Continue { .. }) || !second.fits(packet) {
                left = Some(outcome);
                break;
            }
            if let Some(frame) = packet.frame.take() {
                out.tracked(&frame);
                sent.add(frame.bytes().len(), flags);
                out.send(port, frame);
            }
        }
        self.count_run(now, flows, [met, sent], sent, port);
        if let (Some(outcome), Some(packet)) = (left, batch.get_mut(taken.saturating_sub(1))) {
            packet.flow = flows[0];
            packet.course.pass(0, flows[0]);
            if self.leave_tracker(packet, outcome, 0, out) {
                self.go(now, packet, out);
            }
        }
        taken
    }

    /// [`Worker::run_alike`] of packets that go out by a port as the one megaflow says that they meet.
    #[inline(always)]
    fn run_output<T: Transmit<F>>(
        &mut self,
        now: u64,
        number: u16,
        (port, flow): (PortId, u32),
        batch: &mut [Packet<F>],
        out: &mut T,
    ) -> usize {
        let (mut sent, mut taken) = (Tally::default(), 0);
        for packet in batch {
            if packet.course.number != number {
                break;
            }
            taken += 1;
            let flags = packet.tcp_flags();
            if let Some(frame) = packet.frame.take() {
                sent.add(frame.bytes().len(), flags);
                out.send(port, frame);
            }
        }
        self.megaflows.count(flow, sent, now);
        self.counters.trajectory_hits += sent.packets;
        self.count_sent(port, sent);
        taken
    }

    /// Counts a run of packets that met these two megaflows, so many the one and so many the other, and of which some were
    /// sent to `to`.
    pub(super) fn count_run(&mut self, now: u64, flows: [u32; 2], met: [Tally; 2], sent: Tally, to: PortId) {
        for (flow, tally) in flows.into_iter().zip(met) {
            // A megaflow that carried nothing was not used.
            if tally.packets > 0 {
                self.megaflows.count(flow, tally, now);
            }
        }
        let [first, second] = met;
        self.counters.trajectory_hits += first.packets + second.packets;
        self.counters.recirculations += second.packets;
        self.count_sent(to, sent);
    }

    fn count_sent(&mut self, port: PortId, sent: Tally) {
        self.counters.sent += sent.packets;
        if let Some(port) = self.ports.get_mut(port as usize) {
            port.sent += sent.packets;
            port.sent_bytes += sent.bytes;
        }
    }

    /// Takes a packet that has its first megaflow all its way.
    #[inline(never)]
    pub(super) fn go<T: Transmit<F>>(&mut self, now: u64, packet: &mut Packet<F>, out: &mut T) {
        loop {
            match self.advance(packet, out) {
                Pause::Done => return self.settle(packet),
                Pause::Track => {
                    if !self.meet(now, packet, None, 0, out) {
                        return;
                    }
                }
                Pause::Recirculate(id) => {
                    if !self.enter(packet, id) {
                        return;
                    }
                    if !self.follow(now, packet) {
                        return self.run(now, core::slice::from_mut(packet), out, 0, Start::Classify);
                    }
                }
                Pause::RecirculateCopy(id) => {
                    let mut copies = Batch::new();
                    self.copy(packet, id, 0, &mut copies);
                    self.run(now, &mut copies, out, 1, Start::Classify);
                }
            }
        }
    }

    /// A packet is through: where its connection does not know the way yet, it learns it.
    #[inline]
    pub(super) fn settle(&mut self, packet: &Packet<F>) {
        if !packet.course.settled {
            self.learn(packet);
        }
    }

    #[cold]
    fn learn(&mut self, packet: &Packet<F>) {
        let generation = self.snapshot().generation;
        let Self { trajectories, megaflows, shard, .. } = self;
        let (course, port) = (&packet.course, packet.port);
        let protocol = packet.layers.protocol;
        let opens = packet.meta.state.has(CtState::NEW) && packet.recirculated == 1;
        if opens && matches!(protocol, protocol::TCP | protocol::UDP) {
            trajectories.learn_opening(port, protocol, course, megaflows, generation);
        }
        // What packets of no established connection do shows nothing to those that have one, unless it is all there is.
        let is_established = packet.meta.state.has(CtState::EST);
        let is_usual = is_established
            || !trajectories.has_usual(port, megaflows, generation)
            || (packet.recirculated == 0 && trajectories.is_out_of_patience());
        if !is_usual {
            return;
        }
        let number = match course.number {
            0 => trajectories.learn(course, packet.recirculated, megaflows),
            number => number,
        };
        if number == 0 {
            return;
        }
        trajectories.set_usual(port, number, is_established);
        let Some(lookup) = &packet.lookup else { return };
        // One that has left its trajectory behind the tracker had no reason to note its connection there.
        let met = packet.meta.connection.filter(|_| is_established && lookup.is_for(packet.meta.zone));
        if let Some(connection) = packet.connection.or(met) {
            shard.remember(lookup, connection, number);
        }
    }
}
