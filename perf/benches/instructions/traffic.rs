//! The packets of the benches, and workers and shards that know their connections.

use std::sync::Arc;

use arrayvec::ArrayVec;
use weir::flow::{Command, FlowFile, NoNames};
use weir::pipeline::{
    BURST, Burst, Frame, HeapFrame, PortId, PublishedSnapshot, Snapshot, Transmit, Worker, WorkerConfig,
};
use weir::replay::secret;
use weir::switch::Switch;
use weir_shard::steering::{KeyWord, ShardNumber, Steering};
use weir_shard::{CtAction, CtMeta, Leases, Lookup, Outcome, Shard, ShardConfig};
use weir_wire::build::PacketBuilder;
use weir_wire::header::tcp::flag;
use weir_wire::{ChecksumTrust, Layers, Tuple};

/// The README's tables.
pub(crate) const NAT: &str = include_str!("../../../examples/nat.flows");
pub(crate) const FORWARD: &str = "in_port=1,actions=2";
/// Seeds all hashes.
pub(crate) const SEED: u64 = 1;
/// Ports of the switch.
pub(crate) const INSIDE: PortId = 1;
pub(crate) const OUTSIDE: PortId = 2;
/// Connections beside those that are measured.
pub(crate) const CONNECTIONS: u16 = 2048;
const CAPACITY: u32 = 8192;

/// What a packet is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Udp4,
    Tcp4,
    Udp6,
    Tcp6,
}

impl Kind {
    /// A packet of a client to the server, or of the server to whoever is called `to`.
    fn between(self, from: (u16, u16), to: (u16, u16)) -> PacketBuilder {
        let v4 = |host: u16| {
            let [high, low] = host.to_be_bytes();
            [192, 168, high, low]
        };
        let v6 = |host| [0x2001, 0xdb8, 0, 0, 0, 0, 0, host];
        let builder = PacketBuilder::new();
        match self {
            Self::Udp4 => builder.ipv4(v4(from.0), v4(to.0)).udp(from.1, to.1),
            Self::Tcp4 => builder.ipv4(v4(from.0), v4(to.0)).tcp(from.1, to.1),
            Self::Udp6 => builder.ipv6(v6(from.0), v6(to.0)).udp(from.1, to.1),
            Self::Tcp6 => builder.ipv6(v6(from.0), v6(to.0)).tcp(from.1, to.1),
        }
    }

    /// A packet of a client, of the smallest size that Ethernet has (without its check sequence).
    pub(crate) fn forth(self, client: u16) -> PacketBuilder {
        self.between((client, 4000), (0xffff, 443)).flags(flag::ACK).seq(1001).ack(5001).pad_to(60)
    }

    /// The answer to a packet that has come to the server as `frame`.
    fn back(self, frame: &[u8]) -> PacketBuilder {
        let tuple = tuple(frame).reversed();
        let builder = PacketBuilder::new().ip(tuple.src(), tuple.dst());
        let builder = match self {
            Self::Udp4 | Self::Udp6 => builder.udp(tuple.src_port(), tuple.dst_port()),
            Self::Tcp4 | Self::Tcp6 => builder.tcp(tuple.src_port(), tuple.dst_port()),
        };
        builder.flags(flag::ACK).seq(5001).ack(1001).pad_to(60)
    }

    /// One packet of each of a burst's clients.
    pub(crate) fn burst(self) -> Vec<Vec<u8>> {
        (0..BURST as u16).map(|client| self.forth(client).build()).collect()
    }
}

/// What a frame is, on behalf of zone 0.
pub(crate) fn tuple(frame: &[u8]) -> Tuple {
    Tuple::extract(frame, &Layers::parse(frame), 0, ChecksumTrust::NONE).unwrap().lookup()
}

/// True if a frame belongs to the first shard.
fn is_own(steering: &Steering, frame: &[u8]) -> bool {
    steering.home(&tuple(frame)) == ShardNumber::default()
}

/// Frames with their parses.
pub(crate) fn parsed(frames: Vec<Vec<u8>>) -> Vec<(Vec<u8>, Layers)> {
    let parse = |frame: Vec<u8>| {
        let layers = Layers::parse(&frame);
        (frame, layers)
    };
    frames.into_iter().map(parse).collect()
}

/// A shard with established connections, and a packet of each of [`BURST`] of them.
pub(crate) struct Established {
    pub(crate) shard: Shard,
    pub(crate) frames: Vec<(Vec<u8>, Layers)>,
    pub(crate) lookups: ArrayVec<Lookup, BURST>,
    pub(crate) action: CtAction,
    pub(crate) metas: [CtMeta; BURST],
}

impl Established {
    pub(crate) fn new(kind: Kind) -> Box<Self> {
        let config = ShardConfig { capacity: CAPACITY, ..ShardConfig::default() };
        let [a, b, c, d, ..] = secret(SEED);
        let mut this = Self {
            shard: Shard::new(config, [a, b, c, d]).unwrap(),
            frames: parsed(kind.burst()),
            lookups: ArrayVec::new(),
            action: CtAction { commit: true, ..CtAction::default() },
            metas: [CtMeta::default(); BURST],
        };
        for client in 0..CONNECTIONS {
            let forth = kind.forth(client);
            let back = kind.back(&forth.build());
            this.track(&forth.clone().flags(flag::SYN).seq(1000).build());
            this.track(&back.clone().flags(flag::SYN | flag::ACK).seq(5000).build());
            this.track(&forth.build());
            this.track(&back.build());
        }
        this.action.commit = false;
        Box::new(this)
    }

    fn track(&mut self, frame: &[u8]) {
        let (mut frame, mut meta) = (frame.to_vec(), CtMeta::default());
        let layers = Layers::parse(&frame);
        let mut lookup = self.shard.prepare(&frame, &layers, 0, &meta, false);
        self.shard.prefetch(&mut lookup);
        let outcome = self.shard.execute(0, &mut frame, &layers, &lookup, &self.action, &mut meta);
        assert_eq!(outcome, Outcome::Continue { rewritten: false });
    }

    /// The first two stages of a burst.
    pub(crate) fn look_up(&mut self) {
        let Self { shard, frames, lookups, metas, .. } = self;
        for ((frame, layers), meta) in frames.iter().zip(&*metas) {
            lookups.push(shard.prepare(frame, layers, 0, meta, false));
        }
        for lookup in lookups {
            shard.prefetch(lookup);
        }
    }

    /// With the first two stages done.
    pub(crate) fn looked_up(kind: Kind) -> Box<Self> {
        let mut this = Self::new(kind);
        this.look_up();
        this
    }
}

/// Catches what is sent.
#[derive(Default)]
pub(crate) struct Caught(pub(crate) ArrayVec<(PortId, HeapFrame), BURST>);

impl Transmit<HeapFrame> for Caught {
    fn send(&mut self, port: PortId, frame: HeapFrame) {
        self.0.push((port, frame));
    }
}

/// A worker behind one bridge, and a burst for it.
pub(crate) struct Bench {
    pub(crate) worker: Worker,
    pub(crate) burst: Burst<HeapFrame>,
    pub(crate) port: PortId,
    pub(crate) out: Caught,
    pub(crate) now: u64,
}

/// A bridge `br0` with the ports [`INSIDE`] and [`OUTSIDE`].
pub(crate) fn snapshot(flows: &str) -> Snapshot {
    let mut switch = Switch::default();
    switch.add_bridge("br0", 0).unwrap();
    for (name, number) in [("inside", 1), ("outside", 2)] {
        switch.add_port("br0", name, Some(number)).unwrap();
    }
    let flows = FlowFile::parse("flows", flows.as_bytes(), Command::Add, &NoNames).unwrap().flows;
    switch.replace("br0", &flows, false, 0).unwrap();
    switch.snapshot()
}

/// Which packets start connections, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    /// Plain ones.
    Plain,
    /// Plain ones at one of two shards, which a card has brought to it as its own.
    OfTwo,
    /// With a tag, which makes them go the general way.
    Tagged,
}

impl Bench {
    pub(crate) fn new(flows: &str) -> Box<Self> {
        Self::of(flows, Steering::alone())
    }

    /// The first of so many shards.
    fn of(flows: &str, steering: Steering) -> Box<Self> {
        let leases = Arc::new(Leases::new(steering.shards()));
        let steering = Arc::new(steering);
        let shard = ShardConfig { capacity: CAPACITY, steering, leases, ..ShardConfig::default() };
        let config = WorkerConfig { shard, megaflows: 1024, secret: secret(SEED), trajectories: true };
        let worker = Worker::new(config, PublishedSnapshot::new(snapshot(flows)).reader()).unwrap();
        Box::new(Self { worker, burst: Burst::new(), port: INSIDE, out: Caught::default(), now: 0 })
    }

    /// Takes the burst through the pipeline.
    pub(crate) fn process(&mut self) {
        let Self { worker, burst, port, out, now } = self;
        worker.process(*now, *port, burst, out);
    }

    /// Sends one packet and gives what comes out.
    fn exchange(&mut self, port: PortId, frame: &[u8]) -> Vec<u8> {
        self.fill(port, [frame.to_vec()]);
        self.process();
        let (to, frame) = self.out.0.pop().expect("it goes through");
        assert_eq!(to, 3 - port);
        frame.bytes().to_vec()
    }

    /// What is to come next by `port`.
    pub(crate) fn fill(&mut self, port: PortId, frames: impl IntoIterator<Item = Vec<u8>>) {
        self.port = port;
        self.burst.extend(frames.into_iter().map(|frame| HeapFrame::new(&frame)));
    }

    /// Through the README's table, with established connections and a burst of packets that come by `port`. One such
    /// burst has been through already.
    pub(crate) fn established(kind: Kind, port: PortId) -> Box<Self> {
        Self::established_at(1, kind, port)
    }

    /// The same at one of two shards, to which all these packets belong, as it finds out itself.
    pub(crate) fn steered(kind: Kind, port: PortId) -> Box<Self> {
        Self::established_at(2, kind, port)
    }

    fn established_at(shards: usize, kind: Kind, port: PortId) -> Box<Self> {
        let steering = Steering::symmetric(shards, KeyWord::WELL_KNOWN);
        let mut this = Self::of(NAT, steering.clone());
        let is_own = |client: &u16| is_own(&steering, &kind.forth(*client).build());
        let (mut inside, mut outside) = (Vec::new(), Vec::new());
        for client in (0..).filter(is_own).take(usize::from(CONNECTIONS)) {
            let forth = kind.forth(client);
            let sent = this.exchange(INSIDE, &forth.clone().flags(flag::SYN).seq(1000).build());
            let back = kind.back(&sent);
            this.exchange(OUTSIDE, &back.clone().flags(flag::SYN | flag::ACK).seq(5000).build());
            let (forth, back) = (forth.build(), back.build());
            this.exchange(INSIDE, &forth);
            this.exchange(OUTSIDE, &back);
            inside.push(forth);
            outside.push(back);
        }
        let burst = if port == INSIDE { &inside[..BURST] } else { &outside[..BURST] };
        this.fill(port, burst.to_vec());
        this.process();
        this.out.0.clear();
        this.fill(port, burst.to_vec());
        this
    }

    /// Through the README's table, with many connections and a burst of the first packets of others.
    pub(crate) fn opening(opening: Opening) -> Box<Self> {
        let shards = if opening == Opening::OfTwo { 2 } else { 1 };
        let steering = Steering::symmetric(shards, KeyWord::WELL_KNOWN);
        let mut this = Self::of(NAT, steering.clone());
        this.worker.set_steered(INSIDE, true);
        let forth = |client| {
            let forth = Kind::Udp4.forth(client);
            if opening == Opening::Tagged { forth.vlan(5).build() } else { forth.build() }
        };
        let mut own = (0..).map(forth).filter(|frame| is_own(&steering, frame));
        for frame in own.by_ref().take(usize::from(CONNECTIONS)) {
            this.exchange(INSIDE, &frame);
        }
        this.fill(INSIDE, own.take(BURST));
        this
    }

    /// With connections that have all expired, of which some have been swept.
    pub(crate) fn closing() -> Box<Self> {
        let mut this = Self::opening(Opening::Plain);
        this.burst.clear();
        this.now = 3_600_000;
        assert_eq!(this.worker.shard_mut().sweep(this.now, BURST as u32), BURST as u32);
        this
    }

    /// Through a table of one flow without tracking.
    pub(crate) fn forwarding() -> Box<Self> {
        let mut this = Self::new(FORWARD);
        this.exchange(INSIDE, &Kind::Udp4.forth(0).build());
        this.fill(INSIDE, Kind::Udp4.burst());
        this
    }
}
