//! One lcore's share of the datapath: its shard, its caches, its counters, and the way of a burst through
//! them. A burst stays whole: all its packets are parsed, then all are classified, then all of those that go
//! to the tracker go there together, stage by stage, and those that are recirculated form the next wave.

use arrayvec::ArrayVec;
use weir_shard::fragments::Family;
use weir_shard::{CtMeta, CtState, DropReason, Lookup, Outcome, PlainLookup, Shard, ShardConfig, ShardError};
use weir_wire::{Fragment, Layers};

use super::cache::ExactMatch;
use super::counters::{Counters, PortCounters};
use super::fragments::Held;
use super::frame::{BURST, Burst, Frame, HeapFrame, Transmit};
use super::handover::Departure;
use super::inject::Injection;
use super::letter::Task;
use super::megaflow::{FlowCopy, Megaflows, Recipe, Tally};
use super::order::Order;
use super::outbox::Outbox;
use super::packet::{Batch, Changed, Packet, Received};
use super::payload;
use super::recirculation::Contexts;
use super::rewrite;
use super::step::Step;
use super::trajectory::{Course, Trajectories};
use super::translate::{translate, translate_actions};
use super::{DropCause, PortId, Snapshot, SnapshotReader};
use crate::flow::key::Key;

/// How often a packet may be recirculated.
const MAX_RECIRCULATIONS: u8 = 32;
/// Copies of copies that may be under way at once, and recirculated copies that a burst may come to in all:
/// tables that recirculate a packet twice each time would make 2^32 of it.
const MAX_NESTING: usize = 6;
pub(super) const MAX_COPIES: u32 = 64 * BURST as u32;
/// Connections and megaflows that one housekeeping looks at, at the most.
const SWEEP: u32 = 32;

/// What a worker is made with.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// Its shard.
    pub shard: ShardConfig,
    /// Megaflows it caches; more are translated packet by packet.
    pub megaflows: usize,
    /// Random bits that nobody outside knows.
    pub secret: [u64; 8],
    /// Packets of established connections go where earlier ones went, as long as that is right; without, each is
    /// classified from its headers. The outcome is the same.
    pub trajectories: bool,
}

/// Megaflows cached by default (ovs-vswitchd.conf.db(5), `flow-limit`, is 200000 for all threads together).
pub const DEFAULT_MEGAFLOWS: usize = 65_536;

/// One lcore's share of the datapath, whose packets are `F`.
#[derive(Debug)]
pub struct Worker<F = HeapFrame> {
    pub(super) shard: Shard,
    /// What all of a burst goes by; renewed before each.
    snapshot: SnapshotReader,
    /// [`Snapshot::numbering`] when the fragments were held.
    numbering: u64,
    exact: ExactMatch,
    pub(super) trajectories: Trajectories,
    /// The packets of the running burst.
    received: Received<F>,
    /// Look-ups of a burst of plain ones.
    pub(super) plain_lookups: Vec<PlainLookup>,
    pub(super) megaflows: Megaflows,
    pub(super) contexts: Contexts,
    pub(super) counters: Counters,
    /// Fragments that wait for the rest of their datagrams.
    pub(super) held: Held<F>,
    /// By [`PortId`], one for every port that some snapshot had so far.
    pub(super) ports: Vec<PortCounters>,
    /// Recirculated copies that the running burst may still make.
    pub(super) copies_left: u32,
    /// There are other shards.
    pub(super) is_shared: bool,
    /// By [`PortId`], true where the card brings packets to their owners.
    pub(super) by_card: Vec<bool>,
    /// Notices on their way to other shards.
    pub(super) outbox: Outbox,
}

type Indices = ArrayVec<usize, BURST>;

/// Where the packets of a batch begin.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// With the tables.
    Classify,
    /// With the next step of their megaflows.
    Resume,
}

/// Why a packet's steps paused.
pub(super) enum Pause {
    /// They are done.
    Done,
    /// It waits for the tracker; `step` still points at the ct.
    Track,
    /// It goes on under this recirculation id.
    Recirculate(u32),
    /// A copy goes on under this id, and the packet with its next step.
    RecirculateCopy(u32),
}

impl<F: Frame> Worker<F> {
    /// A worker without any cached state.
    ///
    /// # Errors
    /// As [`Shard::new`].
    pub fn new(config: WorkerConfig, snapshot: SnapshotReader) -> Result<Self, ShardError> {
        let [a, b, c, d, e, f, g, h] = config.secret;
        let ports = vec![PortCounters::default(); snapshot.ports.len()];
        let is_shared = !config.shard.steering.is_alone();
        let held = Held::new(config.shard.fragments, d.rotate_left(16) ^ e);
        let mut shard = Shard::new(config.shard, [a, b, c, d])?;
        shard.set_shows_original(snapshot.wants_original_tuple);
        Ok(Self {
            shard,
            numbering: snapshot.numbering,
            snapshot,
            exact: ExactMatch::new([e, f, g, h]),
            trajectories: Trajectories::new(config.trajectories),
            received: Received::default(),
            plain_lookups: vec![PlainLookup::default(); BURST],
            megaflows: Megaflows::new(config.megaflows, a.rotate_left(32) ^ h),
            contexts: Contexts::new(config.megaflows.saturating_mul(2)),
            counters: Counters::default(),
            held,
            ports,
            copies_left: 0,
            is_shared,
            by_card: Vec::new(),
            outbox: Outbox::default(),
        })
    }

    /// Takes over what was published last. Every burst begins with it, and so do housekeeping and revalidation: only who
    /// wants to see it earlier calls it, between two bursts.
    #[inline]
    pub fn take_snapshot(&mut self) {
        if self.snapshot.refresh() {
            self.adopt_snapshot();
        }
    }

    #[cold]
    fn adopt_snapshot(&mut self) {
        if core::mem::replace(&mut self.numbering, self.snapshot.numbering) != self.snapshot.numbering {
            // What is held may be on its way to a port or a bridge whose number is another one's now.
            self.purge_fragments(&Family::ALL);
        }
        self.shard.set_shows_original(self.snapshot.wants_original_tuple);
        if self.snapshot.ports.len() > self.ports.len() {
            self.ports.resize(self.snapshot.ports.len(), PortCounters::default());
        }
    }

    /// The configuration in use.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The connections.
    #[must_use]
    pub fn shard(&self) -> &Shard {
        &self.shard
    }

    /// The connections.
    pub fn shard_mut(&mut self) -> &mut Shard {
        &mut self.shard
    }

    /// What it has counted.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Starts the counters anew.
    /// Packets that are held then were received before: they count as copies from now on, so that the sums are right.
    pub fn clear_counters(&mut self) {
        self.counters = Counters::default();
        self.counters.copies = self.held_fragments();
    }

    /// What it has counted for a port.
    #[must_use]
    pub fn port_counters(&self, port: PortId) -> PortCounters {
        self.ports.get(port as usize).copied().unwrap_or_default()
    }

    /// Forgets what was counted for a port, for the next one that gets its number.
    pub fn clear_port_counters(&mut self, port: PortId) {
        if let Some(counters) = self.ports.get_mut(port as usize) {
            *counters = PortCounters::default();
        }
    }

    /// Some of the cached megaflows, see [`Megaflows::page`].
    #[must_use]
    pub fn megaflow_page(&self, from: usize, slots: usize) -> (Vec<FlowCopy>, Option<usize>) {
        self.megaflows.page(from, slots)
    }

    /// Cached megaflows and their distinct masks.
    #[must_use]
    pub fn megaflow_sizes(&self) -> (usize, usize) {
        self.megaflows.sizes()
    }

    /// Live recirculation contexts.
    #[must_use]
    pub fn recirculation_contexts(&self) -> usize {
        self.contexts.len()
    }

    /// Adds what the megaflows of some slots have counted to the rules' counters, see [`Megaflows::report`].
    pub fn report_flows(&mut self, from: usize, slots: usize) -> Option<usize> {
        self.megaflows.report(from, slots)
    }

    /// Forgets the megaflows of some slots that are stale, or all of them with `purge`, see
    /// [`Megaflows::revalidate`]. To be called between bursts.
    pub fn revalidate(&mut self, from: usize, slots: usize, purge: bool) -> Option<usize> {
        self.take_snapshot();
        let next = self.megaflows.revalidate(from, slots, self.snapshot.generation, purge);
        self.reclaim();
        next
    }

    /// Forgets all megaflows.
    pub fn clear_megaflows(&mut self) {
        self.megaflows.clear();
        self.reclaim();
    }

    /// A bounded piece of the work that no packet asks for: expiry of connections, fragments and megaflows. To be called
    /// now and then between bursts, also without traffic; returns how much it found to do.
    pub fn housekeeping(&mut self, now: u64) -> u32 {
        self.take_snapshot();
        let mut expired = self.shard.sweep(now, SWEEP);
        if self.held.packets() > 0 {
            expired += self.expire_fragments(now, SWEEP);
        }
        self.megaflows.sweep(SWEEP as usize, self.snapshot.generation, now);
        if self.megaflows.has_retired() {
            self.reclaim();
        }
        expired
    }

    pub(super) fn reclaim(&mut self) {
        let Self { megaflows, contexts, .. } = self;
        megaflows.reclaim(|flow| {
            for &id in &flow.recipe.contexts {
                contexts.release(id);
            }
        });
    }

    /// Takes a burst that came in by `port` through the pipeline. `now` is in milliseconds of any clock that
    /// does not run backwards. The burst is empty afterwards.
    pub fn process<T: Transmit<F>>(&mut self, now: u64, port: PortId, burst: &mut Burst<F>, out: &mut T) {
        for frame in &*burst {
            frame.prefetch();
        }
        self.take_snapshot();
        let packets = burst.len() as u64;
        self.counters.bursts += 1;
        self.count_received(packets);
        let steers = self.steers(port);
        let bytes = self.take_burst(now, port, burst, steers, out);
        if let Some(counters) = self.ports.get_mut(port as usize) {
            counters.received += packets;
            counters.received_bytes += bytes;
        }
        self.tidy();
        self.post_notices(out);
    }

    /// Takes a burst through the tables whose packets came in by `port`; if it `steers`, without those that are other shards',
    /// which leave first. Gives the bytes of all.
    #[inline(always)]
    pub(super) fn take_burst<T: Transmit<F>>(
        &mut self,
        now: u64,
        port: PortId,
        burst: &mut Burst<F>,
        steers: bool,
        out: &mut T,
    ) -> u64 {
        self.copies_left = MAX_COPIES;
        self.megaflows.begin_burst();
        if let Some(zone) = self.plain_zone(port) {
            return self.take_plain(now, port, zone, burst, steers, out);
        }
        let steered = steers.then(|| self.steer(port, burst, &mut [PlainLookup::default(); BURST], out));
        let mut batch = self.room();
        let (bytes, fragmented) = Self::parse(port, burst, &mut batch);
        self.begin(now, port, batch, fragmented, out);
        steered.unwrap_or(bytes)
    }

    /// Memory for a burst, to be given back to [`Worker::begin`].
    pub(super) fn room(&mut self) -> Received<F> {
        core::mem::take(&mut self.received)
    }

    /// Parses a burst that came in by `port`. Gives its bytes, and whether there are fragments in it.
    #[inline(always)]
    fn parse(port: PortId, burst: &mut Burst<F>, batch: &mut Received<F>) -> (u64, bool) {
        let (mut bytes, mut fragmented) = (0, false);
        for frame in burst.drain(..) {
            bytes += frame.bytes().len() as u64;
            fragmented |= batch.push(frame, port).1.fragment != Fragment::No;
        }
        (bytes, fragmented)
    }

    /// Takes packets that came in by `port` through the tables.
    #[inline(always)]
    pub(super) fn begin<T: Transmit<F>>(
        &mut self,
        now: u64,
        port: PortId,
        mut received: Received<F>,
        fragmented: bool,
        out: &mut T,
    ) {
        let batch = received.take();
        if fragmented {
            self.run_apart(now, batch, out);
        } else if self.trajectories.is_enabled() && self.foresee(port, batch) {
            self.run_in_turn(now, batch, out);
        } else {
            self.run(now, batch, out, 0, Start::Classify);
        }
        if self.held.has_ready() {
            self.run_ready(now, out);
        }
        self.received = received;
    }

    #[inline]
    pub(super) fn count_received(&mut self, packets: u64) {
        self.counters.received += packets;
    }

    #[inline]
    pub(super) fn has_ready_fragments(&self) -> bool {
        self.held.has_ready()
    }

    /// Frees what no packet names any more, now that no burst is under way.
    #[inline]
    pub(super) fn tidy(&mut self) {
        if self.megaflows.has_retired() {
            self.reclaim();
        }
    }

    /// Works through a batch, wave after wave, until every packet is sent or dropped.
    pub(super) fn run<T: Transmit<F>>(
        &mut self,
        now: u64,
        batch: &mut [Packet<F>],
        out: &mut T,
        nesting: usize,
        mut start: Start,
    ) {
        let mut wave: Indices = (0..batch.len()).collect();
        let mut order = Order::default();
        while !wave.is_empty() {
            if core::mem::replace(&mut start, Start::Classify) == Start::Classify {
                self.classify(now, batch, &wave);
            }
            let mut next = Indices::new();
            let mut pending = core::mem::take(&mut wave);
            loop {
                self.steps(now, batch, &mut pending, &mut next, &mut order, out, nesting);
                if !next.is_empty() || order.waiting.is_empty() {
                    break;
                }
                // All the others are through.
                order.settle();
                pending = core::mem::take(&mut order.waiting);
            }
            wave = next;
        }
    }

    /// Finds each packet's megaflow, translating where there is none.
    fn classify(&mut self, now: u64, batch: &mut [Packet<F>], wave: &Indices) {
        let generation = self.snapshot.generation;
        // Neighbours in a burst mostly belong to the same megaflow, so that of the packet before is tried first:
        // any current flow that matches is right, and comparing is cheaper than hashing.
        let mut previous = None;
        for &index in wave {
            let packet = &mut batch[index];
            if self.follow(now, packet) {
                continue;
            }
            let key = packet.key(&self.snapshot);
            let flow = match previous {
                Some(flow) if self.megaflows.verify(flow, key, generation) => {
                    self.counters.exact_hits += 1;
                    flow
                }
                _ => self.look_up(now, key, generation),
            };
            previous = Some(flow);
            self.assign(now, packet, flow);
        }
    }

    /// Gives a packet its megaflow, and counts it there.
    #[inline]
    pub(super) fn assign(&mut self, now: u64, packet: &mut Packet<F>, flow: u32) {
        packet.flow = flow;
        packet.step = 0;
        packet.course.pass(packet.recirculated, flow);
        self.count(packet, now);
    }

    /// Counts a packet that was given its flow for the flow's rules.
    #[inline]
    pub(super) fn count(&mut self, packet: &Packet<F>, now: u64) {
        let mut tally = Tally::default();
        tally.add(packet.length(), packet.tcp_flags());
        self.megaflows.count(packet.flow, tally, now);
    }

    /// The packet's megaflow by way of the caches, or else of the tables.
    fn look_up(&mut self, now: u64, key: &Key, generation: u64) -> u32 {
        let hash = self.exact.hash(key);
        if let Some(flow) = self.exact.lookup(hash)
            && self.megaflows.verify(flow, key, generation)
        {
            self.counters.exact_hits += 1;
            return flow;
        }
        let flow = match self.megaflows.search(key, generation) {
            Some(flow) => {
                self.counters.megaflow_hits += 1;
                flow
            }
            None => self.translate(now, key),
        };
        self.exact.insert(hash, flow);
        flow
    }

    #[cold]
    fn translate(&mut self, now: u64, key: &Key) -> u32 {
        self.counters.translations += 1;
        let room = self.megaflows.has_room();
        let recipe = translate(&self.snapshot, &mut self.contexts, key, now);
        let flow = self.megaflows.insert(key, recipe, self.snapshot.generation, now);
        if !room {
            // It serves this packet and is gone after the burst.
            self.counters.uncached += 1;
            self.megaflows.retire(flow);
        }
        flow
    }

    /// A flow for one packet that brings its actions along. It is gone after the burst and no other packet finds it.
    #[cold]
    pub(super) fn install(&mut self, now: u64, key: &Key, injection: &Injection) -> u32 {
        let recipe = translate_actions(&self.snapshot, &mut self.contexts, key, now, injection);
        self.install_recipe(now, key, recipe)
    }

    /// As [`Worker::install`], for a recipe that is ready.
    #[cold]
    pub(super) fn install_recipe(&mut self, now: u64, key: &Key, recipe: Recipe) -> u32 {
        let flow = self.megaflows.insert(key, recipe, self.snapshot.generation, now);
        self.megaflows.retire(flow);
        flow
    }

    /// Does the steps of the `pending` packets. Afterwards each of them is done, in `next` (recirculated) or
    /// waits in `order`.
    #[expect(clippy::too_many_arguments, reason = "the lists of one wave")]
    fn steps<T: Transmit<F>>(
        &mut self,
        now: u64,
        batch: &mut [Packet<F>],
        pending: &mut Indices,
        next: &mut Indices,
        order: &mut Order,
        out: &mut T,
        nesting: usize,
    ) {
        while !pending.is_empty() {
            let mut tracked = Indices::new();
            let mut resumed = Indices::new();
            let mut copies: Batch<F> = ArrayVec::new();
            for index in pending.drain(..) {
                let packet = &mut batch[index];
                match self.advance(packet, out) {
                    Pause::Done => self.settle(packet),
                    Pause::Track => tracked.push(index),
                    Pause::Recirculate(id) => {
                        if self.enter(packet, id) {
                            next.push(index);
                        }
                    }
                    Pause::RecirculateCopy(id) => {
                        self.copy(packet, id, nesting, &mut copies);
                        resumed.push(index);
                    }
                }
            }
            if !copies.is_empty() {
                self.run(now, &mut copies, out, nesting + 1, Start::Classify);
            }
            self.track(now, batch, &tracked, &mut resumed, order, out, nesting);
            *pending = resumed;
        }
    }

    /// Makes the packet ready to be classified again; false if it was dropped, having been so too often.
    #[inline]
    pub(super) fn enter(&mut self, packet: &mut Packet<F>, id: u32) -> bool {
        self.counters.recirculations += 1;
        if packet.frame.is_none() {
            return false;
        }
        if packet.recirculated >= MAX_RECIRCULATIONS {
            packet.frame = None;
            self.counters.count_drop(DropCause::TooManyRecirculations);
            return false;
        }
        packet.recirculated += 1;
        packet.recirculation = id;
        packet.renew_key(&self.snapshot);
        true
    }

    #[cold]
    pub(super) fn copy(&mut self, packet: &Packet<F>, id: u32, nesting: usize, copies: &mut Batch<F>) {
        self.counters.copies += 1;
        if nesting >= MAX_NESTING || self.copies_left == 0 {
            self.counters.count_drop(DropCause::TooManyRecirculations);
            return;
        }
        self.copies_left -= 1;
        let Some(frame) = packet.frame.as_ref().and_then(Frame::duplicate) else {
            self.counters.count_drop(DropCause::NoBuffers);
            return;
        };
        let mut copy = Packet { frame: Some(frame), step: 0, lookup: None, course: Course::NONE, ..*packet };
        if self.enter(&mut copy, id) {
            copies.push(copy);
        }
    }

    /// Sends the packets at `tracked`, each waiting at its ct, through the tracker: tuples and hashes of all,
    /// then the index of all, then the connections one by one. They land in `resumed` or wait in `order`.
    #[expect(clippy::too_many_arguments, reason = "the lists of one wave")]
    fn track<T: Transmit<F>>(
        &mut self,
        now: u64,
        batch: &mut [Packet<F>],
        tracked: &Indices,
        resumed: &mut Indices,
        order: &mut Order,
        out: &mut T,
        nesting: usize,
    ) {
        let Self { shard, megaflows, .. } = self;
        let mut lookups: ArrayVec<(usize, Lookup), BURST> = ArrayVec::new();
        // Those that still have to be looked for in the index.
        let mut fresh = Indices::new();
        let mut fragments = Indices::new();
        for &index in tracked {
            let packet = &batch[index];
            if packet.layers.fragment != Fragment::No {
                fragments.push(index);
                continue;
            }
            let (Some(frame), Some(Step::Ct(action))) = (
                &packet.frame,
                megaflows.flow(packet.flow).and_then(|flow| flow.recipe.steps.get(packet.step)),
            ) else {
                continue;
            };
            let place = lookups.len();
            let lookup = match &packet.lookup {
                Some(early) if packet.is_looked_up_in(action.zone) => {
                    if !early.is_through_index() {
                        fresh.push(place);
                    }
                    *early
                }
                _ => {
                    fresh.push(place);
                    let trusted = frame.checksums_verified();
                    shard.prepare(frame.bytes(), &packet.layers, action.zone, &packet.meta, trusted)
                }
            };
            lookups.push((index, lookup));
        }
        for place in fresh {
            if let Some((_, lookup)) = lookups.get_mut(place) {
                shard.prefetch_connection(lookup);
            }
        }
        for (index, lookup) in &mut lookups {
            shard.prefetch_account(lookup);
            let packet = &batch[*index];
            if lookup.new_connection_hash().is_some()
                && let Some(Step::Ct(action)) =
                    megaflows.flow(packet.flow).and_then(|flow| flow.recipe.steps.get(packet.step))
            {
                shard.foresee(lookup, action);
            }
        }
        for &(index, ref lookup) in &lookups {
            if !order.is_free() && order.is_behind(index, self.shard.connection_hash(lookup)) {
                order.waiting.push(index);
                continue;
            }
            let packet = &mut batch[index];
            if !self.meet(now, packet, Some(lookup), nesting, out) {
                continue;
            }
            if packet.meta.state.has(CtState::NEW)
                && let Some(hash) = self.shard.connection_hash(lookup)
            {
                order.open(index, hash);
            }
            resumed.push(index);
        }
        for index in fragments {
            self.track_fragment(now, &mut batch[index], nesting, out);
        }
    }

    /// Shows a packet, which waits at a `ct`, to the tracker, with its early look-up if no other is given. True if it
    /// goes on here.
    #[inline(always)]
    pub(super) fn meet<T: Transmit<F>>(
        &mut self,
        now: u64,
        packet: &mut Packet<F>,
        lookup: Option<&Lookup>,
        nesting: usize,
        out: &mut T,
    ) -> bool {
        let Self { shard, megaflows, .. } = self;
        let step = megaflows.flow(packet.flow).and_then(|flow| flow.recipe.steps.get(packet.step));
        let Some(Step::Ct(action)) = step else { return false };
        let alone;
        let is_early = packet.is_looked_up_in(action.zone);
        let lookup = match lookup.or(packet.lookup.as_ref().filter(|_| is_early)) {
            Some(lookup) => lookup,
            None => {
                alone = look_up(shard, packet, action.zone);
                &alone
            }
        };
        let Some(frame) = &mut packet.frame else { return false };
        let outcome = shard.execute(now, frame.bytes_mut(), &packet.layers, lookup, action, &mut packet.meta);
        self.leave_tracker(packet, outcome, nesting, out)
    }

    /// Does what the tracker has said to a packet that stands at its `ct`. True if it goes on here.
    #[inline(always)]
    pub(super) fn leave_tracker<T: Transmit<F>>(
        &mut self,
        packet: &mut Packet<F>,
        outcome: Outcome,
        nesting: usize,
        out: &mut T,
    ) -> bool {
        if let Outcome::Elsewhere { to, why } = outcome {
            let task = Task::Track(self.shard.take_errand());
            self.hand_over(packet.take(), Vec::new(), Departure { to, why, task, nesting }, out);
            return false;
        }
        packet.step += 1;
        packet.frame.iter().for_each(|frame| out.tracked(frame));
        if !packet.course.settled {
            packet.note_connection();
        }
        self.pass(packet, outcome);
        packet.frame.is_some()
    }

    /// Does to a packet what its tracker has said; one that may not go on is gone afterwards.
    #[inline(always)]
    pub(super) fn pass(&mut self, packet: &mut Packet<F>, outcome: Outcome) {
        let Some(frame) = &mut packet.frame else { return };
        let outcome = match outcome {
            Outcome::Continue { rewritten } => Ok(rewritten),
            Outcome::Edit => edit(&mut self.shard, frame, &mut packet.layers),
            Outcome::Drop(reason) => Err(reason),
            // Whoever asked has sent it there.
            Outcome::Elsewhere { .. } => return,
        };
        match outcome {
            Ok(true) => packet.change(Changed::Network),
            Ok(false) => {}
            Err(reason) => {
                self.counters.count_drop(reason.into());
                packet.frame = None;
            }
        }
    }

    /// Does a packet's steps up to the next one that needs company.
    #[inline]
    pub(super) fn advance<T: Transmit<F>>(&mut self, packet: &mut Packet<F>, out: &mut T) -> Pause {
        let Self { megaflows, counters, ports, .. } = self;
        let Some(flow) = megaflows.flow(packet.flow) else { return Pause::Done };
        let steps = &flow.recipe.steps;
        loop {
            let Some(frame) = &mut packet.frame else { return Pause::Done };
            let Some(step) = steps.get(packet.step) else { break };
            let last = packet.step + 1 == steps.len();
            if let Step::Ct(_) = step {
                return Pause::Track;
            }
            packet.step += 1;
            match step {
                Step::Output(port) | Step::Truncated { port, .. } => {
                    let sent = if last { packet.frame.take() } else { frame.duplicate() };
                    counters.copies += u64::from(!last);
                    let Some(mut sent) = sent else {
                        counters.count_drop(DropCause::NoBuffers);
                        continue;
                    };
                    if let Step::Truncated { length, .. } = step {
                        sent.truncate(usize::try_from(*length).unwrap_or(usize::MAX));
                    }
                    counters.sent += 1;
                    if let Some(port) = ports.get_mut(*port as usize) {
                        port.sent += 1;
                        port.sent_bytes += sent.bytes().len() as u64;
                    }
                    out.send(*port, sent);
                }
                Step::Recirculate(id) if last => return Pause::Recirculate(*id),
                Step::Recirculate(id) => return Pause::RecirculateCopy(*id),
                Step::Set(fields) => {
                    rewrite::apply(frame.bytes_mut(), &packet.layers, fields);
                    packet.change(Changed::Everything);
                }
                Step::PushVlan { tpid, tci } => {
                    if !rewrite::push_vlan(frame, *tpid, *tci) {
                        counters.count_drop(DropCause::VlanRoom);
                        packet.frame = None;
                        return Pause::Done;
                    }
                    packet.layers = Layers::parse(frame.bytes());
                    packet.change(Changed::Everything);
                }
                Step::PopVlan => {
                    rewrite::pop_vlan(frame);
                    packet.layers = Layers::parse(frame.bytes());
                    packet.change(Changed::Everything);
                }
                Step::ClearCt => packet.meta = CtMeta::default(),
                Step::Ct(_) => return Pause::Track,
            }
        }
        if packet.frame.take().is_some() {
            match flow.recipe.drop {
                Some(cause) => counters.count_drop(cause),
                // It went somewhere by copies, all of them counted; this is the original.
                None => counters.copies -= 1,
            }
        }
        Pause::Done
    }
}

/// Looks a packet's connection up, both stages at once.
#[inline(never)]
fn look_up<F: Frame>(shard: &Shard, packet: &Packet<F>, zone: u16) -> Lookup {
    let (bytes, trusted) =
        packet.frame.as_ref().map_or((&[][..], false), |frame| (frame.bytes(), frame.checksums_verified()));
    let mut lookup = shard.prepare(bytes, &packet.layers, zone, &packet.meta, trusted);
    shard.prefetch(&mut lookup);
    lookup
}

/// Edits the payload of a packet as the tracker has said.
#[cold]
fn edit<F: Frame>(shard: &mut Shard, frame: &mut F, layers: &mut Layers) -> Result<bool, DropReason> {
    let edits = shard.take_edits();
    if !payload::edit(frame, layers, &edits) {
        return Err(DropReason::Untranslatable);
    }
    *layers = Layers::parse(frame.bytes());
    Ok(true)
}
