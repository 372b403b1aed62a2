//! Packets that the control side sends into the datapath with their own list of actions (packet-out). They take the
//! way of every other packet but for the first look-up, in whose place their actions stand.

use std::sync::Arc;

use weir_wire::Layers;

use super::packet::{Batch, Packet};
use super::worker::{MAX_COPIES, Start};
use super::{Frame, PortId, Transmit, Worker};
use crate::flow::port::PortNumber;
use crate::flow::{Action, Match};

/// What to do with a packet.
#[derive(Clone, Debug)]
pub struct Injection {
    /// Name of the bridge.
    pub bridge: String,
    /// The port that it counts as received on; it need not exist.
    pub in_port: PortNumber,
    /// Metadata and registers that it begins with.
    pub fields: Match,
    /// As a rule's.
    pub actions: Arc<[Action]>,
}

/// Where a packet came in that came in by no port.
const NOWHERE: PortId = PortId::MAX;

impl<F: Frame> Worker<F> {
    /// Takes one packet through the pipeline; to be called between bursts. `now` is [`Worker::process`]'s.
    pub fn inject<T: Transmit<F>>(&mut self, now: u64, injection: &Injection, frame: F, out: &mut T) {
        self.take_snapshot();
        let snapshot = self.snapshot();
        let bridge = snapshot.bridges.iter().flatten().find(|bridge| bridge.name == injection.bridge);
        let port = bridge.and_then(|bridge| bridge.port(injection.in_port)).unwrap_or(NOWHERE);
        let layers = Layers::parse(frame.bytes());
        let mut packet = Packet::new(frame, layers, port);
        packet.flow = self.install(now, packet.key(snapshot), injection);
        self.count_received(1);
        self.count(&packet, now);
        self.copies_left = MAX_COPIES;
        let mut batch = Batch::new();
        batch.push(packet);
        self.run(now, &mut batch, out, 0, Start::Resume);
        if self.has_ready_fragments() {
            self.run_ready(now, out);
        }
        self.tidy();
        self.post_notices(out);
    }
}
