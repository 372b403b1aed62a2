//! A switch in memory: the real control side and real workers, one for each shard, driven packet by packet by the
//! caller on one thread. What `weir replay` runs on, and what the tests inject into.

use std::sync::Arc;

use weir_shard::errand::Directory;
use weir_shard::steering::{MAX_SHARDS, SteeringError};
use weir_shard::{
    ConnectionView, DumpCursor, Leases, ShardConfig, ShardError, ShardNumber, Steering, TooManyPolicies,
};
use weir_wire::Layers;

use crate::config::{self, Zones};
use crate::control::engine::{EngineError, check_groups};
use crate::flow::Applied;
use crate::flow::flow::FlowMod;
use crate::flow::port::PortNumber;
use crate::flow::rule::Rule;
use crate::flow::{GroupMod, PacketOut};
use crate::pipeline::worker::DEFAULT_MEGAFLOWS;
use crate::pipeline::{
    Burst, Counters, Frame as _, HeapFrame, Injection, Letter, PortCounters, PortId, PublishedSnapshot,
    Transmit, Worker, WorkerConfig,
};
use crate::switch::{Switch, SwitchError};

use super::layout::{Arrival, Draw, Layout};
use super::mail::Mail;

/// Name of the only bridge.
pub const BRIDGE: &str = "br0";

/// Milliseconds between two looks for flows and stations whose time is over.
const EXPIRY_PERIOD: u64 = 100;

/// A packet that a tracker has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tracked {
    /// [`HeapFrame::stamp`] of the packet: whatever its sender has written there.
    pub stamp: u64,
    /// Whose tracker it was.
    pub shard: ShardNumber,
    /// Milliseconds.
    pub now: u64,
}

/// What the workers do to the world.
#[derive(Debug)]
struct World {
    /// What came out, in the order it was sent.
    sent: Vec<(PortId, HeapFrame)>,
    mail: Mail,
    /// What trackers saw, in this order, if anybody wants to know.
    history: Option<Vec<Tracked>>,
    /// [`HeapFrame::stamp`] of each packet that found a mailbox full, if somebody wants to know what trackers saw.
    refused: Vec<u64>,
}

/// The world as one worker sees it.
struct Outside<'a> {
    world: &'a mut World,
    shard: ShardNumber,
    now: u64,
}

impl Transmit<HeapFrame> for Outside<'_> {
    fn send(&mut self, port: PortId, frame: HeapFrame) {
        self.world.sent.push((port, frame));
    }

    fn tracked(&mut self, frame: &HeapFrame) {
        if let Some(history) = &mut self.world.history {
            history.push(Tracked { stamp: frame.stamp(), shard: self.shard, now: self.now });
        }
    }

    fn refused(&mut self, frame: &HeapFrame) {
        if self.world.history.is_some() {
            self.world.refused.push(frame.stamp());
        }
    }

    fn post(&mut self, to: ShardNumber, letter: Letter<HeapFrame>) -> Result<(), Letter<HeapFrame>> {
        self.world.mail.post(self.shard, to, letter)
    }
}

/// One bridge, a worker for each shard, no I/O.
#[derive(Debug)]
pub struct VirtualSwitch {
    switch: Switch,
    published: PublishedSnapshot,
    workers: Vec<Worker>,
    layout: Layout,
    steering: Arc<Steering>,
    directory: Arc<Directory>,
    draw: Draw,
    /// The shard that the next packet comes to, where they take turns.
    turn: usize,
    now: u64,
    next_expiry: u64,
    ports: Vec<(PortNumber, PortId)>,
    burst: Burst<HeapFrame>,
    burst_port: PortId,
    burst_shard: usize,
    world: World,
}

/// Why a virtual switch cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum VirtualSwitchError {
    /// The ports or flows are wrong.
    #[error(transparent)]
    Switch(#[from] SwitchError),
    /// The shard cannot be made.
    #[error(transparent)]
    Shard(#[from] ShardError),
    /// Connections cannot be shared out so.
    #[error(transparent)]
    Steering(#[from] SteeringError),
    /// Too many zones differ.
    #[error(transparent)]
    Zones(#[from] TooManyPolicies),
}

impl VirtualSwitch {
    /// A switch with these ports (named `p1`, `p2`, ... after their numbers) and flows. `secret` decides all
    /// that is random: the same secret and packets give the same result.
    ///
    /// # Errors
    /// When a port number is wrong or taken, the flows are refused, or memory runs out.
    pub fn new(
        ports: &[PortNumber],
        flows: &[FlowMod],
        shard: ShardConfig,
        secret: [u64; 8],
    ) -> Result<Self, VirtualSwitchError> {
        Self::with_groups(ports, &[], flows, shard, secret)
    }

    /// As [`VirtualSwitch::new`], with groups that the flows may name.
    ///
    /// # Errors
    /// As [`VirtualSwitch::new`], and when the groups are refused.
    pub fn with_groups(
        ports: &[PortNumber],
        groups: &[GroupMod],
        flows: &[FlowMod],
        shard: ShardConfig,
        secret: [u64; 8],
    ) -> Result<Self, VirtualSwitchError> {
        Self::with_layout(ports, groups, flows, shard, secret, Layout::default())
    }

    /// As [`VirtualSwitch::with_groups`], divided. Each shard is as large as `shard` says; limits are
    /// those of all together.
    ///
    /// # Errors
    /// As [`VirtualSwitch::with_groups`].
    pub fn with_layout(
        ports: &[PortNumber],
        groups: &[GroupMod],
        flows: &[FlowMod],
        shard: ShardConfig,
        secret: [u64; 8],
        layout: Layout,
    ) -> Result<Self, VirtualSwitchError> {
        Self::with_steering(ports, groups, flows, shard, secret, layout, &config::Steering::default())
    }

    /// As [`VirtualSwitch::with_layout`], with owners that are configured.
    ///
    /// # Errors
    /// As [`VirtualSwitch::with_layout`], and if connections cannot be shared out so among this many shards.
    pub fn with_steering(
        ports: &[PortNumber],
        groups: &[GroupMod],
        flows: &[FlowMod],
        shard: ShardConfig,
        secret: [u64; 8],
        layout: Layout,
        steering: &config::Steering,
    ) -> Result<Self, VirtualSwitchError> {
        let mut switch = Switch::default();
        switch.add_bridge(BRIDGE, 0)?;
        let mut ids = Vec::new();
        for &number in ports {
            ids.push((number, switch.add_port(BRIDGE, &format!("p{number}"), Some(number))?));
        }
        switch.apply_groups(BRIDGE, groups, 0)?;
        switch.replace(BRIDGE, flows, false, 0)?;
        let mut published = PublishedSnapshot::new(switch.snapshot());
        let shards = layout.shards.clamp(1, MAX_SHARDS);
        let steering = Arc::new(match shards {
            1 => Steering::alone(),
            _ => steering.owners(shards, (secret[0] >> 48) as u16)?,
        });
        let directory = Arc::new(Directory::new(secret[5]));
        let leases = Arc::new(Leases::new(shards));
        let mut workers = Vec::new();
        for number in (0..shards).filter_map(ShardNumber::new) {
            let (steering, directory, leases) = (steering.clone(), directory.clone(), leases.clone());
            let shard = ShardConfig { number, steering, directory, leases, ..shard.clone() };
            let config = WorkerConfig { shard, megaflows: DEFAULT_MEGAFLOWS, secret, trajectories: true };
            let mut worker = Worker::new(config, published.reader())?;
            ids.iter().for_each(|&(_, port)| worker.set_steered(port, !layout.steered_early));
            // All clocks start together, so that all count their ticks from the same time.
            worker.housekeeping(0);
            workers.push(worker);
        }
        Ok(Self {
            switch,
            published,
            workers,
            layout,
            steering,
            directory,
            draw: Draw::new(!layout.seed),
            turn: 0,
            now: 0,
            next_expiry: 0,
            ports: ids,
            burst: Burst::new(),
            burst_port: 0,
            burst_shard: 0,
            world: World {
                sent: Vec::new(),
                mail: Mail::new(&layout, shards),
                history: None,
                refused: Vec::new(),
            },
        })
    }

    /// Gives all shards what some zones have of their own.
    ///
    /// # Errors
    /// Too many zones differ.
    pub fn set_zones(&mut self, zones: &Zones) -> Result<(), VirtualSwitchError> {
        Ok(self.workers.iter_mut().try_for_each(|worker| zones.apply(worker.shard_mut()))?)
    }

    /// Queues a packet that came in by port `number` at `now` (milliseconds). It is processed together with
    /// its neighbours on the same port, before anything else happens; a port that does not exist drops it.
    pub fn inject(&mut self, number: PortNumber, frame: &[u8], now: u64) {
        self.inject_frame(number, HeapFrame::new(frame), now);
    }

    /// As [`VirtualSwitch::inject`], with a frame that may be [stamped](HeapFrame::stamped).
    pub fn inject_frame(&mut self, number: PortNumber, frame: HeapFrame, now: u64) {
        let shard = self.arrival(&frame);
        self.inject_at(shard, number, frame, now);
    }

    /// As [`VirtualSwitch::inject_frame`], to the shard at `shard`, whatever the layout says.
    pub fn inject_at(&mut self, shard: usize, number: PortNumber, frame: HeapFrame, now: u64) {
        let port = self.id(number).unwrap_or(0);
        let is_another = self.burst_port != port || self.burst_shard != shard;
        if self.burst.is_full() || !self.burst.is_empty() && is_another || now != self.now {
            self.work();
        }
        self.advance(now);
        (self.burst_port, self.burst_shard) = (port, shard);
        self.burst.push(frame);
    }

    /// The shard that a packet comes to.
    fn arrival(&mut self, frame: &HeapFrame) -> usize {
        let shards = self.workers.len();
        if shards == 1 {
            return 0;
        }
        let home = || {
            let home = self.steering.home_of_frame(frame.bytes(), &Layers::parse(frame.bytes()));
            home.map_or(0, ShardNumber::index)
        };
        match self.layout.arrival {
            Arrival::Steered => home(),
            Arrival::Adverse => (home() + 1 + self.draw.below(shards - 1)) % shards,
            Arrival::Random => self.draw.below(shards),
            Arrival::RoundRobin => {
                self.turn = (self.turn + 1) % shards;
                self.turn
            }
        }
    }

    /// Processes what is queued, and what arrives at once; letters that take longer stay under way.
    pub fn work(&mut self) {
        if !self.burst.is_empty() {
            let Self { workers, world, now, .. } = self;
            let (now, shard) = (*now, self.burst_shard);
            if let Some((worker, mut outside)) = at(workers, world, shard, now) {
                worker.process(now, self.burst_port, &mut self.burst, &mut outside);
            }
            self.world.mail.step();
        }
        self.deliver();
    }

    /// Lets the letters that have arrived be read.
    fn deliver(&mut self) {
        while let Some((from, to, mut letters)) = self.world.mail.take() {
            let Self { workers, world, now, .. } = self;
            if let Some((worker, mut outside)) = at(workers, world, to.index(), *now) {
                worker.receive(*now, from, &mut letters, &mut outside);
            }
            self.world.mail.step();
        }
    }

    /// Processes what is queued, until no packet is under way; notices may be. False if that does not come to an end
    /// within `steps`.
    pub fn settle(&mut self, steps: u32) -> bool {
        self.work();
        for _ in 0..steps {
            if !self.world.mail.has_parcels() {
                return true;
            }
            self.world.mail.step();
            self.deliver();
        }
        false
    }

    /// Processes what is queued, until no letter is under way and none waits.
    pub fn flush(&mut self) {
        self.work();
        loop {
            self.post_notices();
            self.deliver();
            let is_silent = |worker: &Worker| worker.waiting_notices() == 0 && worker.shard().notices() == 0;
            if self.world.mail.is_empty() && self.workers.iter().all(is_silent) {
                break;
            }
            self.world.mail.step();
        }
    }

    fn post_notices(&mut self) {
        for index in 0..self.workers.len() {
            let Self { workers, world, now, .. } = self;
            if let Some((worker, mut outside)) = at(workers, world, index, *now) {
                worker.post_notices(&mut outside);
            }
        }
    }

    /// Lets the clock run up to `now`; it never runs back.
    pub fn advance(&mut self, now: u64) {
        if now <= self.now {
            return;
        }
        if self.layout.settles_with_time {
            self.flush();
        } else {
            self.work();
        }
        self.now = now;
        for worker in &mut self.workers {
            while worker.housekeeping(now) > 0 {}
        }
        self.post_notices();
        self.deliver();
        if now >= self.next_expiry {
            self.next_expiry = now - now % EXPIRY_PERIOD + EXPIRY_PERIOD;
            // Flows and stations that cached flows have kept busy are not idle.
            self.report_flows();
            if self.switch.expire(now) {
                self.publish();
            }
        }
    }

    /// What was sent since the last call: port numbers and frames, in order.
    pub fn take_sent(&mut self) -> Vec<(PortNumber, HeapFrame)> {
        self.flush();
        self.take_sent_now()
    }

    /// As [`VirtualSwitch::take_sent`], whatever is queued or under way.
    pub fn take_sent_now(&mut self) -> Vec<(PortNumber, HeapFrame)> {
        let sent = std::mem::take(&mut self.world.sent);
        sent.into_iter()
            .filter_map(|(id, frame)| {
                self.ports.iter().find(|(_, port)| *port == id).map(|(number, _)| (*number, frame))
            })
            .collect()
    }

    /// Changes the flows, all or nothing.
    ///
    /// # Errors
    /// When a change is refused.
    pub fn apply(&mut self, changes: &[FlowMod]) -> Result<Applied, SwitchError> {
        self.work();
        let applied = self.switch.apply(BRIDGE, changes, self.now)?;
        self.publish();
        Ok(applied)
    }

    /// Sends packets with their actions, now.
    ///
    /// # Errors
    /// When the actions name a group that does not exist; nothing is sent then.
    pub fn packet_out(&mut self, packets: &PacketOut) -> Result<(), EngineError> {
        self.work();
        check_groups(packets, self.switch.bridge(BRIDGE)?.tables())?;
        let PacketOut { in_port, fields, packets, actions } = packets;
        let (bridge, actions) = (BRIDGE.to_owned(), actions.as_slice().into());
        let injection = Injection { bridge, in_port: *in_port, fields: *fields, actions };
        for packet in packets {
            let frame = HeapFrame::new(packet);
            let shard = self.arrival(&frame);
            let Self { workers, world, now, .. } = self;
            if let Some((worker, mut outside)) = at(workers, world, shard, *now) {
                worker.inject(*now, &injection, frame, &mut outside);
            }
            self.world.mail.step();
            self.deliver();
        }
        Ok(())
    }

    /// Changes the groups, all or nothing.
    ///
    /// # Errors
    /// When a change is refused.
    pub fn apply_groups(&mut self, changes: &[GroupMod]) -> Result<(), SwitchError> {
        self.work();
        self.switch.apply_groups(BRIDGE, changes, self.now)?;
        self.publish();
        Ok(())
    }

    /// Takes a port's link away, or gives it back.
    pub fn set_link(&mut self, number: PortNumber, up: bool) {
        self.work();
        if self.id(number).is_some_and(|id| self.switch.set_link(id, up)) {
            self.publish();
        }
    }

    fn publish(&mut self) {
        let accepted = self.published.publish(self.switch.snapshot());
        // Taken at once: so there is always room for the next one.
        debug_assert_eq!(accepted, Ok(()));
        for worker in &mut self.workers {
            worker.take_snapshot();
        }
    }

    /// Removes a port, and gives its number to a new one if `again` says so. What is under way stays so.
    ///
    /// # Errors
    /// When there is no such port.
    pub fn delete_port(&mut self, number: PortNumber, again: bool) -> Result<(), SwitchError> {
        self.work();
        let name = format!("p{number}");
        self.switch.delete_port(BRIDGE, &name)?;
        self.ports.retain(|(other, _)| *other != number);
        if again {
            self.ports.push((number, self.switch.add_port(BRIDGE, &name, Some(number))?));
        }
        self.publish();
        Ok(())
    }

    fn report_flows(&mut self) {
        for worker in &mut self.workers {
            worker.report_flows(0, usize::MAX);
        }
    }

    /// The flows with their counters brought up to date.
    ///
    /// # Errors
    /// Never, as long as the bridge exists.
    pub fn rules(&mut self) -> Result<Vec<Arc<Rule>>, SwitchError> {
        self.flush();
        self.report_flows();
        let bridge = self.switch.bridge(BRIDGE)?;
        Ok(bridge.tables().tables().flat_map(|(_, _, rules)| rules.iter().cloned()).collect())
    }

    /// Milliseconds now.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.now
    }

    /// The control side.
    #[must_use]
    pub fn switch(&self) -> &Switch {
        &self.switch
    }

    /// The first shard's worker, the only one of a switch that is not divided, with everything that was injected
    /// processed.
    pub fn worker(&mut self) -> &mut Worker {
        self.flush();
        &mut self.workers[0]
    }

    /// The workers by shard, with everything that was injected processed.
    pub fn workers(&mut self) -> &mut [Worker] {
        self.flush();
        &mut self.workers
    }

    /// How it is divided.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Who owns what.
    #[must_use]
    pub fn steering(&self) -> &Arc<Steering> {
        &self.steering
    }

    /// Who expects which data connection.
    #[must_use]
    pub fn directory(&self) -> &Arc<Directory> {
        &self.directory
    }

    /// What all workers have counted.
    pub fn counters(&mut self) -> Counters {
        let mut sum = Counters::default();
        self.workers().iter().for_each(|worker| sum.add(worker.counters()));
        sum
    }

    /// What all workers have counted for a port.
    pub fn port_counters(&mut self, port: PortId) -> PortCounters {
        let mut sum = PortCounters::default();
        self.workers().iter().for_each(|worker| sum.add(&worker.port_counters(port)));
        sum
    }

    /// Lets `visit` see all connections, shard by shard.
    pub fn connections(&mut self, visit: &mut impl FnMut(&ConnectionView)) {
        let now = self.now;
        for worker in self.workers() {
            let mut cursor = DumpCursor::default();
            while !cursor.is_done() {
                worker.shard().dump(now, &mut cursor, usize::MAX, &mut *visit);
            }
        }
    }

    /// Packets that wait for the rest of their datagrams.
    pub fn held_fragments(&mut self) -> u64 {
        self.workers().iter().map(Worker::held_fragments).sum()
    }

    /// Packets that are on their way from one shard to another right now.
    #[must_use]
    pub fn under_way(&self) -> u64 {
        self.world.mail.packets()
    }

    /// The workers as they are, whatever is queued or under way.
    #[must_use]
    pub fn workers_now(&self) -> &[Worker] {
        &self.workers
    }

    /// From now on notes which packets trackers see, and which find a mailbox full.
    pub fn write_history(&mut self) {
        self.world.history.get_or_insert_default();
    }

    /// What trackers have seen since the last call, in the order of their seeing it.
    pub fn take_history(&mut self) -> Vec<Tracked> {
        self.flush();
        self.take_history_now()
    }

    /// As [`VirtualSwitch::take_history`], whatever is queued or under way.
    pub fn take_history_now(&mut self) -> Vec<Tracked> {
        self.world.history.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The [stamps](HeapFrame::stamp) of the packets that found a mailbox full since the last call, in this order.
    pub fn take_refused_now(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.world.refused)
    }

    fn id(&self, number: PortNumber) -> Option<PortId> {
        self.ports.iter().find(|(candidate, _)| *candidate == number).map(|(_, id)| *id)
    }
}

/// A worker and what is around it.
fn at<'a>(
    workers: &'a mut [Worker],
    world: &'a mut World,
    shard: usize,
    now: u64,
) -> Option<(&'a mut Worker, Outside<'a>)> {
    Some((workers.get_mut(shard)?, Outside { world, shard: ShardNumber::new(shard)?, now }))
}
