//! Packets whose way is known before it begins ([`trajectory`](super::trajectory)). Their connections are looked up for
//! the whole burst, stage by stage, before any of them is classified; then each packet goes its whole way in turn, from
//! the tracker to its port, without a key and without a search. One that leaves its trajectory goes on by itself as all
//! packets do. A burst in which many have none is worked in waves, as in [`Worker::run`], where trajectories save those
//! that have one their keys.

use super::PortId;
use super::frame::{Frame, Transmit};
use super::packet::{Batch, Packet};
use super::trajectory::{Class, Found};
use super::worker::{Pause, Start, Worker};

impl<F: Frame> Worker<F> {
    /// Looks the connections of a burst up that came in by `port`, and finds the first megaflow of each packet, as far
    /// as trajectories tell. True if most packets have a trajectory on which nothing else needs to be looked up.
    #[inline]
    pub(super) fn foresee(&mut self, now: u64, port: PortId, batch: &mut [Packet<F>]) -> bool {
        self.megaflows.begin_burst();
        let usual = self.trajectories.usual(port);
        if let Some(zone) = self.trajectories.zone(usual) {
            let shard = &self.shard;
            for packet in &mut *batch {
                let Some(frame) = &packet.frame else { continue };
                let trusted = frame.checksums_verified();
                let (bytes, place) = (frame.bytes(), &mut packet.lookup);
                shard.prepare_into(place, bytes, &packet.layers, zone, &packet.meta, trusted);
            }
            for packet in &mut *batch {
                packet.lookup.iter_mut().for_each(|lookup| shard.prefetch(lookup));
            }
        }
        let mut ready = 0;
        for packet in &mut *batch {
            packet.course.begin(Class::of(port, &packet.layers));
            if packet.course.settled {
                continue;
            }
            let known = packet.lookup.as_ref().map(|lookup| lookup.hint());
            packet.course.number = known.filter(|number| *number != 0).unwrap_or(usual);
            packet.classified = self.follow(now, packet);
            if !packet.classified && known.is_some_and(|number| number != 0 && number != usual) {
                packet.course.number = usual;
                packet.classified = self.follow(now, packet);
            }
            if packet.classified {
                let number = packet.course.number;
                packet.course.settled = known.is_none_or(|known| known == number);
                ready += usize::from(packet.course.settled && self.trajectories.looks_up_once(number));
            }
        }
        ready * 4 >= batch.len() * 3
    }

    /// Gives a packet the megaflow that its trajectory says, if that is right; else it has no trajectory any more.
    #[inline(always)]
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
        for packet in batch {
            match core::mem::take(&mut packet.classified) {
                true => self.go(now, packet, out),
                false => self.run(now, core::slice::from_mut(packet), out, 0, Start::Classify),
            }
        }
    }

    /// Takes a packet that has its first megaflow all its way.
    #[inline(always)]
    fn go<T: Transmit<F>>(&mut self, now: u64, packet: &mut Packet<F>, out: &mut T) {
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
        let Self { trajectories, megaflows, shard, .. } = self;
        let (course, port) = (&packet.course, packet.port);
        let connection = packet.lookup.as_ref().zip(packet.connection);
        // What packets of no established connection do shows nothing to those that have one, unless it is all there is.
        let is_usual = connection.is_some()
            || trajectories.usual(port) == 0
            || (packet.recirculated == 0 && trajectories.is_out_of_patience(port));
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
        trajectories.set_usual(port, number, connection.is_some());
        if let Some((lookup, connection)) = connection {
            shard.remember(lookup, connection, number);
        }
    }
}
