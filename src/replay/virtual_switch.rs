//! A switch in memory: the real control side and one real worker, driven packet by packet by the caller.
//! What `weir replay` runs on, and what the tests inject into.

use std::sync::Arc;

use weir_shard::{ShardConfig, ShardError};

use crate::control::engine::{EngineError, check_groups};
use crate::flow::Applied;
use crate::flow::flow::FlowMod;
use crate::flow::port::PortNumber;
use crate::flow::rule::Rule;
use crate::flow::{GroupMod, PacketOut};
use crate::pipeline::worker::DEFAULT_MEGAFLOWS;
use crate::pipeline::{
    Burst, HeapFrame, Injection, PortId, PublishedSnapshot, Transmit, Worker, WorkerConfig,
};
use crate::switch::{Switch, SwitchError};

/// Name of the only bridge.
pub const BRIDGE: &str = "br0";

/// Milliseconds between two looks for flows and stations whose time is over.
const EXPIRY_PERIOD: u64 = 100;

/// What came out, in the order it was sent.
#[derive(Debug, Default)]
struct Sent(Vec<(PortId, HeapFrame)>);

impl Transmit<HeapFrame> for Sent {
    fn send(&mut self, port: PortId, frame: HeapFrame) {
        self.0.push((port, frame));
    }
}

/// One bridge, one worker, no I/O.
#[derive(Debug)]
pub struct VirtualSwitch {
    switch: Switch,
    published: PublishedSnapshot,
    worker: Worker,
    now: u64,
    next_expiry: u64,
    ports: Vec<(PortNumber, PortId)>,
    burst: Burst<HeapFrame>,
    burst_port: PortId,
    sent: Sent,
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
        let mut switch = Switch::default();
        switch.add_bridge(BRIDGE, 0)?;
        let mut ids = Vec::new();
        for &number in ports {
            ids.push((number, switch.add_port(BRIDGE, &format!("p{number}"), Some(number))?));
        }
        switch.apply_groups(BRIDGE, groups, 0)?;
        switch.replace(BRIDGE, flows, false, 0)?;
        let mut published = PublishedSnapshot::new(switch.snapshot());
        let config = WorkerConfig { shard, megaflows: DEFAULT_MEGAFLOWS, secret };
        let worker = Worker::new(config, published.reader())?;
        Ok(Self {
            switch,
            published,
            worker,
            now: 0,
            next_expiry: 0,
            ports: ids,
            burst: Burst::new(),
            burst_port: 0,
            sent: Sent::default(),
        })
    }

    /// Queues a packet that came in by port `number` at `now` (milliseconds). It is processed together with
    /// its neighbours on the same port, before anything else happens; a port that does not exist drops it.
    pub fn inject(&mut self, number: PortNumber, frame: &[u8], now: u64) {
        self.inject_frame(number, HeapFrame::new(frame), now);
    }

    /// As [`VirtualSwitch::inject`], with a frame that may be [stamped](HeapFrame::stamped).
    pub fn inject_frame(&mut self, number: PortNumber, frame: HeapFrame, now: u64) {
        let port = self.id(number).unwrap_or(0);
        if self.burst.is_full() || !self.burst.is_empty() && self.burst_port != port || now != self.now {
            self.flush();
        }
        self.advance(now);
        self.burst_port = port;
        self.burst.push(frame);
    }

    /// Processes what is queued.
    pub fn flush(&mut self) {
        if !self.burst.is_empty() {
            self.worker.process(self.now, self.burst_port, &mut self.burst, &mut self.sent);
        }
    }

    /// Lets the clock run up to `now`; it never runs back.
    pub fn advance(&mut self, now: u64) {
        if now <= self.now {
            return;
        }
        self.flush();
        self.now = now;
        while self.worker.housekeeping(now) > 0 {}
        if now >= self.next_expiry {
            self.next_expiry = now - now % EXPIRY_PERIOD + EXPIRY_PERIOD;
            // Flows and stations that cached flows have kept busy are not idle.
            self.worker.report_flows(0, usize::MAX);
            if self.switch.expire(now) {
                self.publish();
            }
        }
    }

    /// What was sent since the last call: port numbers and frames, in order.
    pub fn take_sent(&mut self) -> Vec<(PortNumber, HeapFrame)> {
        self.flush();
        let sent = std::mem::take(&mut self.sent.0);
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
        self.flush();
        let applied = self.switch.apply(BRIDGE, changes, self.now)?;
        self.publish();
        Ok(applied)
    }

    /// Sends packets with their actions, now.
    ///
    /// # Errors
    /// When the actions name a group that does not exist; nothing is sent then.
    pub fn packet_out(&mut self, packets: &PacketOut) -> Result<(), EngineError> {
        self.flush();
        check_groups(packets, self.switch.bridge(BRIDGE)?.tables())?;
        let PacketOut { in_port, fields, packets, actions } = packets;
        let (bridge, actions) = (BRIDGE.to_owned(), actions.as_slice().into());
        let injection = Injection { bridge, in_port: *in_port, fields: *fields, actions };
        for packet in packets {
            self.worker.inject(self.now, &injection, HeapFrame::new(packet), &mut self.sent);
        }
        Ok(())
    }

    /// Changes the groups, all or nothing.
    ///
    /// # Errors
    /// When a change is refused.
    pub fn apply_groups(&mut self, changes: &[GroupMod]) -> Result<(), SwitchError> {
        self.flush();
        self.switch.apply_groups(BRIDGE, changes, self.now)?;
        self.publish();
        Ok(())
    }

    /// Takes a port's link away, or gives it back.
    pub fn set_link(&mut self, number: PortNumber, up: bool) {
        self.flush();
        if self.id(number).is_some_and(|id| self.switch.set_link(id, up)) {
            self.publish();
        }
    }

    fn publish(&mut self) {
        let accepted = self.published.publish(self.switch.snapshot());
        // Taken at once: so there is always room for the next one.
        debug_assert_eq!(accepted, Ok(()));
        self.worker.take_snapshot();
    }

    /// The flows with their counters brought up to date.
    ///
    /// # Errors
    /// Never, as long as the bridge exists.
    pub fn rules(&mut self) -> Result<Vec<Arc<Rule>>, SwitchError> {
        self.flush();
        self.worker.report_flows(0, usize::MAX);
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

    /// The datapath, with everything that was injected processed.
    pub fn worker(&mut self) -> &mut Worker {
        self.flush();
        &mut self.worker
    }

    fn id(&self, number: PortNumber) -> Option<PortId> {
        self.ports.iter().find(|(candidate, _)| *candidate == number).map(|(_, id)| *id)
    }
}
