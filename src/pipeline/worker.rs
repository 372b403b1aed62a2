//! One lcore's share of the datapath: its shard, its caches, its counters, and the way of a burst through
//! them. A burst stays whole: all its packets are parsed, then all are classified, then all of those that go
//! to the tracker go there together, stage by stage, and those that are recirculated form the next wave.

use std::sync::Arc;

use arrayvec::ArrayVec;
use weir_shard::{CtMeta, Lookup, Outcome, Shard, ShardConfig, ShardError};
use weir_wire::Layers;

use super::cache::ExactMatch;
use super::counters::{Counters, PortCounters};
use super::extract;
use super::frame::{BURST, Burst, Frame, Transmit};
use super::megaflow::{FlowCopy, Megaflows};
use super::recirculation::Contexts;
use super::rewrite;
use super::step::Step;
use super::translate::translate;
use super::{DropCause, PortId, Snapshot};
use crate::flow::key::{Key, at};

/// How often a packet may be recirculated, and copies of copies that may be under way at once.
const MAX_RECIRCULATIONS: u8 = 32;
const MAX_NESTING: usize = 6;
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
}

/// Megaflows cached by default (ovs-vswitchd.conf.db(5), `flow-limit`, is 200000 for all threads together).
pub const DEFAULT_MEGAFLOWS: usize = 65_536;

/// One lcore's share of the datapath.
#[derive(Debug)]
pub struct Worker {
    shard: Shard,
    snapshot: Arc<Snapshot>,
    exact: ExactMatch,
    megaflows: Megaflows,
    contexts: Contexts,
    counters: Counters,
    ports: Vec<PortCounters>,
}

/// A packet on its way.
struct Packet<F> {
    /// Gone once it is sent.
    frame: Option<F>,
    layers: Layers,
    key: Key,
    meta: CtMeta,
    /// Index of its megaflow and the step to do next.
    flow: u32,
    step: usize,
    /// The headers no longer are what `key` says.
    changed: bool,
    /// How often it was recirculated.
    recirculated: u8,
}

type Batch<F> = ArrayVec<Packet<F>, BURST>;
type Indices = ArrayVec<usize, BURST>;

/// Why a packet's steps paused.
enum Pause {
    /// They are done.
    Done,
    /// It waits for the tracker; `step` still points at the ct.
    Track,
    /// It goes on under this recirculation id.
    Recirculate(u32),
    /// A copy goes on under this id, and the packet with its next step.
    RecirculateCopy(u32),
}

impl Worker {
    /// A worker without any cached state.
    ///
    /// # Errors
    /// As [`Shard::new`].
    pub fn new(config: WorkerConfig, snapshot: Arc<Snapshot>) -> Result<Self, ShardError> {
        let [a, b, c, d, e, f, g, h] = config.secret;
        Ok(Self {
            shard: Shard::new(config.shard, [a, b, c, d])?,
            snapshot,
            exact: ExactMatch::new([e, f, g, h]),
            megaflows: Megaflows::new(config.megaflows, a.rotate_left(32) ^ h),
            contexts: Contexts::new(config.megaflows.saturating_mul(2)),
            counters: Counters::default(),
            ports: Vec::new(),
        })
    }

    /// Takes a new configuration over; to be called between bursts. Gives the old one back, to be dropped
    /// where that may take time.
    pub fn replace_snapshot(&mut self, snapshot: Arc<Snapshot>) -> Arc<Snapshot> {
        core::mem::replace(&mut self.snapshot, snapshot)
    }

    /// The configuration in use.
    #[must_use]
    pub fn snapshot(&self) -> &Arc<Snapshot> {
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
    pub fn clear_counters(&mut self) {
        self.counters = Counters::default();
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

    /// Recirculation contexts that megaflows hold.
    #[must_use]
    pub fn recirculation_contexts(&self) -> usize {
        self.contexts.len()
    }

    /// Adds all that the megaflows have counted to the rules' counters.
    pub fn report_flows(&mut self) {
        self.megaflows.report();
    }

    /// Forgets all megaflows.
    pub fn clear_megaflows(&mut self) {
        self.megaflows.clear();
        self.reclaim();
    }

    /// A bounded piece of the work that no packet asks for: expiry of connections and megaflows. To be called
    /// now and then between bursts, also without traffic; returns how much it found to do.
    pub fn housekeeping(&mut self, now: u64) -> u32 {
        let expired = self.shard.sweep(now, SWEEP);
        self.megaflows.sweep(SWEEP as usize, self.snapshot.generation, now);
        if self.megaflows.has_retired() {
            self.reclaim();
        }
        expired
    }

    fn reclaim(&mut self) {
        let Self { megaflows, contexts, .. } = self;
        megaflows.reclaim(|flow| {
            for &id in &flow.recipe.contexts {
                contexts.release(id);
            }
        });
    }

    /// Takes a burst that came in by `port` through the pipeline. `now` is in milliseconds of any clock that
    /// does not run backwards. The burst is empty afterwards.
    pub fn process<F: Frame, T: Transmit<F>>(
        &mut self,
        now: u64,
        port: PortId,
        burst: &mut Burst<F>,
        out: &mut T,
    ) {
        for frame in &*burst {
            frame.prefetch();
        }
        let mut batch: Batch<F> = ArrayVec::new();
        let mut bytes = 0;
        for frame in burst.drain(..) {
            bytes += frame.bytes().len() as u64;
            let layers = Layers::parse(frame.bytes());
            let mut key = extract::headers(frame.bytes(), &layers);
            key.words[at::IN_PORT / 8] = u64::from(port) << 32;
            let meta = CtMeta::default();
            batch.push(Packet {
                frame: Some(frame),
                layers,
                key,
                meta,
                flow: 0,
                step: 0,
                changed: false,
                recirculated: 0,
            });
        }
        let packets = batch.len() as u64;
        self.counters.bursts += 1;
        self.counters.received += packets;
        let counters = self.counters_of(port);
        counters.received += packets;
        counters.received_bytes += bytes;
        self.run(now, &mut batch, out, 0);
        if self.megaflows.has_retired() {
            self.reclaim();
        }
    }

    fn counters_of(&mut self, port: PortId) -> &mut PortCounters {
        let index = port as usize;
        if index >= self.ports.len() {
            self.ports.resize(index + 1, PortCounters::default());
        }
        &mut self.ports[index]
    }

    /// Works through a batch, wave after wave, until every packet is sent or dropped.
    fn run<F: Frame, T: Transmit<F>>(&mut self, now: u64, batch: &mut Batch<F>, out: &mut T, nesting: usize) {
        let mut wave: Indices = (0..batch.len()).collect();
        // Packets of connections that an earlier packet of the batch may be about to open: they wait until it
        // is through, so that a burst comes out as its packets would one by one.
        let mut waiting: Indices = ArrayVec::new();
        while !wave.is_empty() {
            self.classify(now, batch, &wave);
            let mut next = Indices::new();
            let mut pending = core::mem::take(&mut wave);
            loop {
                self.steps(now, batch, &mut pending, &mut next, &mut waiting, out, nesting);
                if !next.is_empty() || waiting.is_empty() {
                    break;
                }
                pending = core::mem::take(&mut waiting);
            }
            wave = next;
        }
    }

    /// Finds each packet's megaflow, translating where there is none.
    fn classify<F: Frame>(&mut self, now: u64, batch: &mut Batch<F>, wave: &Indices) {
        let generation = self.snapshot.generation;
        let mut hashes: ArrayVec<u64, BURST> = ArrayVec::new();
        for &index in wave {
            hashes.push(self.exact.hash(&batch[index].key));
        }
        for (&index, hash) in wave.iter().zip(hashes) {
            let packet = &mut batch[index];
            let flow = match self.exact.lookup(hash) {
                Some(flow) if self.megaflows.verify(flow, &packet.key, generation) => {
                    self.counters.exact_hits += 1;
                    flow
                }
                _ => {
                    let flow = match self.megaflows.search(&packet.key, generation) {
                        Some(flow) => {
                            self.counters.megaflow_hits += 1;
                            flow
                        }
                        None => self.translate(now, &packet.key),
                    };
                    self.exact.insert(hash, flow);
                    flow
                }
            };
            packet.flow = flow;
            packet.step = 0;
            let flags = (packet.key.words[at::TCP_FLAGS / 8] >> 48) as u16;
            let length = packet.frame.as_ref().map_or(0, |frame| frame.bytes().len());
            self.megaflows.count(flow, length, flags, now);
        }
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

    /// Does the steps of the `pending` packets. Afterwards each of them is done, in `next` (recirculated) or in
    /// `waiting` (at its ct, behind a packet that may open its connection).
    #[expect(clippy::too_many_arguments, reason = "the lists of one wave")]
    fn steps<F: Frame, T: Transmit<F>>(
        &mut self,
        now: u64,
        batch: &mut Batch<F>,
        pending: &mut Indices,
        next: &mut Indices,
        waiting: &mut Indices,
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
                    Pause::Done => {}
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
                self.run(now, &mut copies, out, nesting + 1);
            }
            self.track(now, batch, &tracked, &mut resumed, waiting);
            *pending = resumed;
        }
    }

    /// Makes the packet ready to be classified again; false if it was dropped, having been so too often.
    #[inline]
    fn enter<F: Frame>(&mut self, packet: &mut Packet<F>, id: u32) -> bool {
        self.counters.recirculations += 1;
        let Some(frame) = &packet.frame else { return false };
        if packet.recirculated >= MAX_RECIRCULATIONS {
            packet.frame = None;
            self.counters.count_drop(DropCause::TooManyRecirculations);
            return false;
        }
        packet.recirculated += 1;
        if packet.changed {
            let port = packet.key.words[at::IN_PORT / 8];
            packet.key = extract::headers(frame.bytes(), &packet.layers);
            packet.key.words[at::IN_PORT / 8] = port;
            packet.changed = false;
        }
        let word = &mut packet.key.words[at::RECIRC_ID / 8];
        *word = *word & !0xffff_ffff | u64::from(id);
        extract::connection(&packet.meta, self.snapshot.wants_original_tuple, &mut packet.key);
        true
    }

    #[cold]
    fn copy<F: Frame>(&mut self, packet: &Packet<F>, id: u32, nesting: usize, copies: &mut Batch<F>) {
        self.counters.copies += 1;
        if nesting >= MAX_NESTING {
            self.counters.count_drop(DropCause::TooManyRecirculations);
            return;
        }
        let Some(frame) = packet.frame.as_ref().and_then(Frame::duplicate) else {
            self.counters.count_drop(DropCause::NoBuffers);
            return;
        };
        let mut copy = Packet {
            frame: Some(frame),
            layers: packet.layers,
            key: packet.key,
            meta: packet.meta,
            flow: packet.flow,
            step: 0,
            changed: packet.changed,
            recirculated: packet.recirculated,
        };
        if self.enter(&mut copy, id) {
            copies.push(copy);
        }
    }

    /// Sends the packets at `tracked`, each waiting at its ct, through the tracker: tuples and hashes of all,
    /// then the index of all, then the connections one by one. They land in `resumed` or `waiting`.
    fn track<F: Frame>(
        &mut self,
        now: u64,
        batch: &mut Batch<F>,
        tracked: &Indices,
        resumed: &mut Indices,
        waiting: &mut Indices,
    ) {
        let Self { shard, megaflows, counters, .. } = self;
        let mut lookups: ArrayVec<Lookup, BURST> = ArrayVec::new();
        for &index in tracked {
            let packet = &batch[index];
            let (Some(frame), Some(Step::Ct(action))) = (
                &packet.frame,
                megaflows.flow(packet.flow).and_then(|flow| flow.recipe.steps.get(packet.step)),
            ) else {
                continue;
            };
            let trusted = frame.checksums_verified();
            lookups.push(shard.prepare(frame.bytes(), &packet.layers, action.zone, &packet.meta, trusted));
        }
        for lookup in &mut lookups {
            shard.prefetch(lookup);
        }
        let mut opening: ArrayVec<u64, BURST> = ArrayVec::new();
        for (&index, lookup) in tracked.iter().zip(&lookups) {
            let packet = &mut batch[index];
            let (Some(frame), Some(Step::Ct(action))) = (
                &mut packet.frame,
                megaflows.flow(packet.flow).and_then(|flow| flow.recipe.steps.get(packet.step)),
            ) else {
                continue;
            };
            if let Some(hash) = lookup.new_connection_hash() {
                if opening.contains(&hash) {
                    waiting.push(index);
                    continue;
                }
                opening.push(hash);
            }
            packet.step += 1;
            match shard.execute(now, frame.bytes_mut(), &packet.layers, lookup, action, &mut packet.meta) {
                Outcome::Continue { rewritten } => {
                    packet.changed |= rewritten;
                    resumed.push(index);
                }
                Outcome::Drop(reason) => {
                    counters.count_drop(reason.into());
                    packet.frame = None;
                }
            }
        }
    }

    /// Does a packet's steps up to the next one that needs company.
    #[inline]
    fn advance<F: Frame, T: Transmit<F>>(&mut self, packet: &mut Packet<F>, out: &mut T) -> Pause {
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
                Step::Output(port) => {
                    let sent = if last { packet.frame.take() } else { frame.duplicate() };
                    counters.copies += u64::from(!last);
                    let Some(sent) = sent else {
                        counters.count_drop(DropCause::NoBuffers);
                        continue;
                    };
                    counters.sent += 1;
                    let index = *port as usize;
                    if index >= ports.len() {
                        ports.resize(index + 1, PortCounters::default());
                    }
                    ports[index].sent += 1;
                    ports[index].sent_bytes += sent.bytes().len() as u64;
                    out.send(*port, sent);
                }
                Step::Recirculate(id) if last => return Pause::Recirculate(*id),
                Step::Recirculate(id) => return Pause::RecirculateCopy(*id),
                Step::Set(fields) => {
                    rewrite::apply(frame.bytes_mut(), &packet.layers, fields);
                    packet.changed = true;
                }
                Step::PushVlan { tpid, tci } => {
                    if !rewrite::push_vlan(frame, *tpid, *tci) {
                        counters.count_drop(DropCause::VlanRoom);
                        packet.frame = None;
                        return Pause::Done;
                    }
                    packet.layers = Layers::parse(frame.bytes());
                    packet.changed = true;
                }
                Step::PopVlan => {
                    rewrite::pop_vlan(frame);
                    packet.layers = Layers::parse(frame.bytes());
                    packet.changed = true;
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
