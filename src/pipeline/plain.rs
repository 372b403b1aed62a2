//! Bursts of plain packets ([`weir_shard::plain`]) on trajectories that lead through one `ct` to a port, which nearly all
//! established traffic is, or through a second one that starts their connections. Of each the table's stages keep half a
//! cache line, and nothing else is written but the frame and the connection. What is not plain, or turns out to be on its
//! way elsewhere, goes on in its turn as any packet does.

use arrayvec::Drain;
use weir_shard::{CtAction, CtMeta, CtState, Met, Outcome, PlainLookup};
use weir_wire::Fragment;
use weir_wire::numbers::protocol;

use super::frame::{BURST, Burst, Frame, Transmit};
use super::megaflow::{Megaflows, Tally};
use super::packet::Packet;
use super::step::Step;
use super::trajectory::{Class, Shape};
use super::worker::Worker;
use super::{PortId, extract};

/// Frames of a burst that are still to be taken.
type Frames<'b, F> = Drain<'b, F, BURST>;

/// Where plain packets of a class go.
#[derive(Clone, Copy)]
struct Way {
    /// Their trajectory.
    number: u16,
    /// The hint that they have.
    hint: u16,
    protocol: u8,
    /// The megaflow before the `ct` and the one behind it.
    flows: [u32; 2],
    /// The bits of ct_state that the second looks at, and what they are.
    state: [u32; 2],
    to: PortId,
}

impl Way {
    #[inline]
    fn has(&self, lookup: &PlainLookup) -> bool {
        lookup.hint() == self.hint && lookup.protocol() == self.protocol
    }

    #[inline]
    fn fits(&self, state: CtState) -> bool {
        let [mask, value] = self.state;
        u32::from(state.0) & mask == value
    }

    /// The flags of a segment, 0 of UDP.
    #[inline(always)]
    fn tcp_flags(&self, bytes: &[u8], lookup: &PlainLookup) -> u16 {
        match self.protocol {
            protocol::TCP => extract::tcp_flags(bytes, &lookup.layers()),
            _ => 0,
        }
    }

    /// A packet that goes on by itself from the first `ct`, which has found this.
    #[cold]
    fn packet_of<F: Frame>(&self, frame: F, lookup: &PlainLookup, port: PortId, meta: CtMeta) -> Packet<F> {
        let mut packet = Packet::new(frame, lookup.layers(), port);
        packet.lookup = lookup.to_lookup();
        packet.meta = meta;
        packet.flow = self.flows[0];
        packet.course.begin(Class::of_plain(port, self.protocol), self.number);
        packet.course.pass(0, self.flows[0]);
        packet
    }
}

/// The `ct` that a megaflow begins with.
#[inline(always)]
fn first_ct(megaflows: &Megaflows, flow: u32) -> Option<&CtAction> {
    match megaflows.flow(flow)?.recipe.steps.first()? {
        Step::Ct(action) => Some(action),
        _ => None,
    }
}

impl<F: Frame> Worker<F> {
    /// The zone of the `ct` that packets of a port usually go to on such a trajectory.
    #[inline]
    pub(super) fn plain_zone(&self, port: PortId) -> Option<u16> {
        let trajectory = self.trajectories.find(self.trajectories.usual(port))?;
        let is_plain = match trajectory.shape {
            Shape::Tracked(_) => true,
            Shape::Opening(_) => self.shard.opens_plain(),
            _ => false,
        };
        trajectory.zone.filter(|_| is_plain)
    }

    /// Takes a burst through the tables as [`Worker::take_burst`]. `zone` is where most of its packets are to be looked up.
    #[inline(always)]
    pub(super) fn take_plain<T: Transmit<F>>(
        &mut self,
        now: u64,
        port: PortId,
        zone: u16,
        burst: &mut Burst<F>,
        steers: bool,
        out: &mut T,
    ) -> u64 {
        let mut memory = core::mem::take(&mut self.plain_lookups);
        let mut lookups = memory.get_mut(..burst.len()).unwrap_or_default();
        let mut bytes = 0;
        for (frame, lookup) in burst.iter().zip(&mut *lookups) {
            let content = frame.bytes();
            bytes += content.len() as u64;
            lookup.read(content, zone, frame.checksums_verified());
        }
        if steers {
            self.steer(port, burst, lookups, out);
            lookups = lookups.get_mut(..burst.len()).unwrap_or_default();
        }
        self.shard.prepare_plain(lookups);
        let ready = self.foresee_plain(port, zone, lookups);
        let mut frames = burst.drain(..);
        if ready * 4 >= lookups.len() * 3 {
            self.run_plain(now, port, zone, &mut frames, lookups, out);
        } else {
            self.run_any(now, port, &mut frames, lookups, out);
        }
        drop(frames);
        self.plain_lookups = memory;
        bytes
    }

    /// Finds the candidates of a burst in the index; says how many packets go on as plain ones. The others have no hint
    /// afterwards.
    #[inline(always)]
    fn foresee_plain(&mut self, port: PortId, zone: u16, lookups: &mut [PlainLookup]) -> usize {
        let (mut last, mut way, mut ready) = ((0, 0), None, 0);
        self.shard.prefetch_plain(lookups);
        for lookup in lookups {
            let kind = (lookup.hint(), lookup.protocol());
            if kind.0 != 0 && kind != last {
                (last, way) = (kind, self.way(port, zone, lookup));
            }
            match &way {
                Some(way) if kind.0 != 0 => {
                    ready += 1;
                    if lookup.has_no_connection() {
                        self.foresee_opening(way, lookup);
                    } else {
                        self.shard.prefetch_plain_account(lookup);
                    }
                }
                _ => lookup.clear_hint(),
            }
        }
        ready
    }

    #[inline]
    fn foresee_opening(&mut self, way: &Way, lookup: &mut PlainLookup) {
        let Self { megaflows, shard, .. } = self;
        if let Some(action) = first_ct(megaflows, way.flows[1]) {
            shard.foresee_plain(lookup, action);
        }
    }

    /// Where a packet with a hint or without a connection goes, if that is right and a way for plain packets.
    #[inline(never)]
    fn way(&mut self, port: PortId, zone: u16, lookup: &PlainLookup) -> Option<Way> {
        let (hint, protocol) = (lookup.hint(), lookup.protocol());
        let generation = self.snapshot().generation;
        let Self { trajectories, megaflows, shard, .. } = self;
        let opens = lookup.has_no_connection();
        let number = if opens { trajectories.opening(port, protocol) } else { hint };
        let trajectory =
            trajectories.find_for(number, Class::of_plain(port, protocol), megaflows, generation)?;
        let [first, second] = &*trajectory.hops else { return None };
        let flows = [first.flow, second.flow];
        let state = second.only_state()?;
        let action = first_ct(megaflows, flows[0])?;
        let (is_plain, to) = match trajectory.shape {
            Shape::Tracked(to) if !opens => (shard.takes_plain(action), to),
            Shape::Opening(to) if opens => (shard.opens_plain(), to),
            _ => return None,
        };
        let is_plain = is_plain && action.zone == zone;
        is_plain.then_some(Way { number, hint, protocol, flows, state, to })
    }

    /// Takes the packets of a burst, most of which have hints, all their way one after another.
    #[inline(always)]
    fn run_plain<T: Transmit<F>>(
        &mut self,
        now: u64,
        port: PortId,
        zone: u16,
        frames: &mut Frames<'_, F>,
        lookups: &[PlainLookup],
        out: &mut T,
    ) {
        let mut left = lookups;
        // Packets without a connection that go the general way beside one that had to: about twice as many each time, so that
        // a burst of such packets does not go there one by one.
        let mut along = 0;
        while let Some(first) = left.first() {
            // What packets in front have brought about may have ended it.
            let way = if first.hint() == 0 { None } else { self.way(port, zone, first) };
            let (taken, refused) = match way {
                Some(way) if first.has_no_connection() => {
                    self.run_openings(now, port, &way, frames, left, out)
                }
                Some(way) => self.run_alike_plain(now, port, &way, frames, left, out),
                None => (0, None),
            };
            left = left.get(taken..).unwrap_or_default();
            if taken == 0 || refused.is_some() {
                let mut openings = 0;
                let goes_along = |lookup: &&PlainLookup| {
                    openings += usize::from(lookup.has_no_connection());
                    lookup.hint() == 0 || (lookup.has_no_connection() && openings <= along)
                };
                let others = left.iter().skip(1).take_while(goes_along).count();
                along = 2 * along + 1;
                let (these, rest) = left.split_at(left.len().min(1 + others));
                self.run_any(now, port, &mut refused.into_iter().chain(frames.by_ref()), these, out);
                left = rest;
            }
        }
        if self.has_ready_fragments() {
            self.run_ready(now, out);
        }
    }

    /// Takes the first packets along that go the same way. Gives their number, and the packet behind them if it turned out
    /// not to be plain.
    #[inline(always)]
    fn run_alike_plain<T: Transmit<F>>(
        &mut self,
        now: u64,
        port: PortId,
        way: &Way,
        frames: &mut Frames<'_, F>,
        lookups: &[PlainLookup],
        out: &mut T,
    ) -> (usize, Option<F>) {
        let Self { megaflows, shard, .. } = self;
        let Some(action) = first_ct(megaflows, way.flows[0]) else { return (0, None) };
        let run = shard.begin_plain(now, action);
        let (mut met, mut sent) = (Tally::default(), Tally::default());
        let (mut taken, mut refused, mut left, mut meta) = (0, None, None, CtMeta::default());
        for lookup in lookups {
            if !way.has(lookup) {
                break;
            }
            let Some(mut frame) = frames.next() else { break };
            let bytes = frame.bytes_mut();
            let flags = way.tcp_flags(bytes, lookup);
            let length = bytes.len();
            let outcome = shard.execute_plain(&run, bytes, lookup, &mut meta);
            if outcome == Met::Nothing {
                refused = Some(frame);
                break;
            }
            taken += 1;
            met.add(length, flags);
            match outcome {
                Met::Established(state) if way.fits(state) => {
                    out.tracked(&frame);
                    sent.add(length, flags);
                    out.send(way.to, frame);
                    continue;
                }
                Met::Established(state) => {
                    let outcome;
                    (meta, outcome) = shard.show_plain(&run, lookup, state);
                    left = Some((frame, lookup, outcome));
                }
                Met::Done(outcome) => left = Some((frame, lookup, outcome)),
                Met::Nothing => {}
            }
            break;
        }
        self.count_run(now, way.flows, [met, sent], sent, way.to);
        if let Some((frame, lookup, outcome)) = left {
            let mut packet = way.packet_of(frame, lookup, port, meta);
            if self.leave_tracker(&mut packet, outcome, 0, out) {
                self.go(now, &mut packet, out);
            }
        }
        (taken, refused)
    }

    /// [`Worker::run_alike_plain`] of packets that start connections.
    #[inline(never)]
    fn run_openings<T: Transmit<F>>(
        &mut self,
        now: u64,
        port: PortId,
        way: &Way,
        frames: &mut Frames<'_, F>,
        lookups: &[PlainLookup],
        out: &mut T,
    ) -> (usize, Option<F>) {
        let Self { megaflows, shard, .. } = self;
        let Some(action) = first_ct(megaflows, way.flows[1]) else { return (0, None) };
        let run = shard.begin_plain(now, action);
        let (mut met, mut sent) = (Tally::default(), Tally::default());
        let (mut taken, mut refused, mut left, mut meta) = (0, None, None, CtMeta::default());
        for lookup in lookups {
            if !way.has(lookup) {
                break;
            }
            let Some(mut frame) = frames.next() else { break };
            let bytes = frame.bytes_mut();
            let flags = way.tcp_flags(bytes, lookup);
            let length = bytes.len();
            let Some(outcome) = shard.open_plain(&run, bytes, lookup, &mut meta) else {
                refused = Some(frame);
                break;
            };
            taken += 1;
            met.add(length, flags);
            out.tracked(&frame);
            if !matches!(outcome, Outcome::Continue { .. }) {
                left = Some((frame, lookup, outcome));
                break;
            }
            out.tracked(&frame);
            sent.add(length, flags);
            out.send(way.to, frame);
        }
        self.count_run(now, way.flows, [met, met], sent, way.to);
        if let Some((frame, lookup, outcome)) = left {
            let mut packet = way.packet_of(frame, lookup, port, meta);
            // Under which id it was recirculated nobody asks: behind this `ct` comes its port.
            packet.recirculated = 1;
            packet.flow = way.flows[1];
            packet.course.pass(1, way.flows[1]);
            if self.leave_tracker(&mut packet, outcome, 0, out) {
                self.go(now, &mut packet, out);
            }
        }
        (taken, refused)
    }

    /// Takes as many packets as there are `lookups` through the tables as any others.
    #[inline(never)]
    fn run_any<T: Transmit<F>>(
        &mut self,
        now: u64,
        port: PortId,
        frames: &mut impl Iterator<Item = F>,
        lookups: &[PlainLookup],
        out: &mut T,
    ) {
        let (mut batch, mut fragmented) = (self.room(), false);
        for (lookup, frame) in lookups.iter().zip(frames) {
            let layers = batch.push_looked_up(frame, port, lookup.to_lookup());
            fragmented |= layers.fragment != Fragment::No;
        }
        self.begin(now, port, batch, fragmented, out);
    }
}
