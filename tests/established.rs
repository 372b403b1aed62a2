//! Nothing is taken from the heap by a packet of an established connection, by the first packet of a new one, nor by the
//! end of connections.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

use std::alloc::System;

use arrayvec::ArrayVec;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use weir::flow::{Command, FlowFile, NoNames};
use weir::pipeline::{Burst, Frame, HeapFrame, PortId, PublishedSnapshot, Transmit, Worker, WorkerConfig};
use weir::replay::secret;
use weir::switch::Switch;
use weir_shard::ShardConfig;
use weir_wire::build::PacketBuilder;
use weir_wire::header::tcp::flag;
use weir_wire::{Layers, Tuple};

#[global_allocator]
static HEAP: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const NAT: &str = include_str!("../examples/nat.flows");
const ACL6: &str = include_str!("../examples/acl6.flows");
const BURST: usize = weir::pipeline::BURST;

/// Catches what is sent, to be used again.
#[derive(Default)]
struct Caught(ArrayVec<(PortId, HeapFrame), { 2 * BURST }>);

impl Transmit<HeapFrame> for Caught {
    fn send(&mut self, port: PortId, frame: HeapFrame) {
        self.0.push((port, frame));
    }
}

/// A worker with established connections, and their packets.
struct Setup {
    worker: Worker,
    _switch: Switch,
    /// Port and packet, in bursts of one port.
    packets: Vec<(PortId, Vec<u8>)>,
    frames: Vec<HeapFrame>,
    out: Caught,
}

impl Setup {
    fn new(flows: &str) -> Self {
        let mut switch = Switch::default();
        switch.add_bridge("br0", 0).unwrap();
        for number in [1, 2] {
            assert_eq!(
                switch.add_port("br0", &format!("p{number}"), Some(number)).unwrap(),
                u32::from(number)
            );
        }
        let flows = FlowFile::parse("flows", flows.as_bytes(), Command::Add, &NoNames).unwrap().flows;
        switch.replace("br0", &flows, false, 0).unwrap();
        let shard = ShardConfig { capacity: 1 << 17, ..ShardConfig::default() };
        let worker = Worker::new(
            WorkerConfig { shard, megaflows: 1024, secret: secret(1), trajectories: true },
            PublishedSnapshot::new(switch.snapshot()).reader(),
        )
        .unwrap();
        Self { worker, _switch: switch, packets: Vec::new(), frames: Vec::new(), out: Caught::default() }
    }

    /// Sends one packet and gives what comes out by the other port.
    fn exchange(&mut self, port: PortId, packet: &[u8]) -> Vec<u8> {
        let mut burst = Burst::new();
        burst.push(HeapFrame::new(packet));
        self.worker.process(0, port, &mut burst, &mut self.out);
        let (to, frame) = self.out.0.pop().expect("it goes through");
        assert_eq!(to, 3 - port);
        frame.bytes().to_vec()
    }

    /// Establishes a TCP connection with what `first` is the SYN of, and adds a packet of each direction.
    fn establish(
        &mut self,
        first: &PacketBuilder,
        back: impl Fn(&Tuple) -> PacketBuilder,
        inside: &mut Vec<Vec<u8>>,
        outside: &mut Vec<Vec<u8>>,
    ) {
        let sent = self.exchange(1, &first.clone().flags(flag::SYN).seq(1000).build());
        let layers = Layers::parse(&sent);
        let tuple =
            Tuple::extract(&sent, &layers, 0, weir_wire::ChecksumTrust::NONE).unwrap().lookup().reversed();
        let back = back(&tuple);
        self.exchange(2, &back.clone().flags(flag::SYN | flag::ACK).seq(5000).ack(1001).build());
        let forth = first.clone().flags(flag::ACK).seq(1001).ack(5001).pad_to(60).build();
        let back = back.flags(flag::ACK).seq(5001).ack(1001).pad_to(60).build();
        self.exchange(1, &forth);
        self.exchange(2, &back);
        inside.push(forth);
        outside.push(back);
    }

    fn fill(&mut self, inside: &[Vec<u8>], outside: &[Vec<u8>]) {
        for (inside, outside) in inside.chunks_exact(BURST).zip(outside.chunks_exact(BURST)) {
            self.packets.extend(inside.iter().map(|packet| (1, packet.clone())));
            self.packets.extend(outside.iter().map(|packet| (2, packet.clone())));
        }
        self.frames = (0..BURST).map(|_| HeapFrame::new(&[0; 80])).collect();
    }

    fn nat(connections: u16) -> Self {
        let mut setup = Self::new(NAT);
        let (mut inside, mut outside) = (Vec::new(), Vec::new());
        for host in 0..connections {
            let [high, low] = host.to_be_bytes();
            let first = PacketBuilder::new().ipv4([192, 168, high, low], [203, 0, 113, 9]).tcp(4000, 80);
            let back = |tuple: &Tuple| {
                let Tuple::V4(tuple) = tuple else { panic!("IPv4") };
                PacketBuilder::new().ipv4(tuple.src, tuple.dst).tcp(tuple.src_port, tuple.dst_port)
            };
            setup.establish(&first, back, &mut inside, &mut outside);
        }
        setup.fill(&inside, &outside);
        setup
    }

    fn acl6(connections: u16) -> Self {
        let mut setup = Self::new(ACL6);
        let (mut inside, mut outside) = (Vec::new(), Vec::new());
        let address = |network, host| std::net::Ipv6Addr::new(0x2001, 0xdb8, network, 0, 0, 0, 0, host);
        for host in 0..connections {
            let first = PacketBuilder::new().ipv6(address(0, host), address(1, 9)).tcp(4000, 80);
            let back = |tuple: &Tuple| {
                let Tuple::V6(tuple) = tuple else { panic!("IPv6") };
                PacketBuilder::new().ipv6(tuple.src, tuple.dst).tcp(tuple.src_port, tuple.dst_port)
            };
            setup.establish(&first, back, &mut inside, &mut outside);
        }
        setup.fill(&inside, &outside);
        setup
    }

    /// Runs all packets through once, in bursts.
    fn round(&mut self, now: u64) {
        let Self { worker, packets, frames, out, .. } = self;
        let mut burst: Burst<HeapFrame> = Burst::new();
        for packets in packets.chunks_exact(BURST) {
            for (_, packet) in packets {
                let mut frame = frames.pop().unwrap_or_else(|| HeapFrame::new(&[0; 80]));
                frame.truncate(packet.len());
                frame.bytes_mut().copy_from_slice(packet);
                burst.push(frame);
            }
            let port = packets[0].0;
            worker.process(now, port, &mut burst, out);
            assert_eq!(out.0.len(), BURST);
            frames.extend(out.0.drain(..).map(|(_, frame)| frame));
        }
    }
}

#[test]
fn an_established_burst_takes_nothing_from_the_heap() {
    for mut setup in [Setup::nat(256), Setup::acl6(256)] {
        setup.round(1);
        // The runner's own thread may allocate meanwhile, not much and not always.
        let quiet = (0..20).any(|_| {
            let region = Region::new(HEAP);
            setup.round(2);
            let change = region.change();
            change.allocations + change.reallocations + change.deallocations == 0
        });
        assert!(quiet, "{:?}", Region::new(HEAP).change());
        assert_eq!(setup.worker.counters().dropped_in_all(), 0);
    }
}

impl Setup {
    /// First packets of so many clients, those of one round different from those of all others; if they may not all be
    /// plain ones, with pings between them.
    fn newcomers(&mut self, round: u8, all_plain: bool) {
        self.packets.clear();
        for host in 0..8 * BURST {
            let [_, _, _, _, _, _, high, low] = host.to_be_bytes();
            let first = PacketBuilder::new().ipv4([10, round, high, low], [203, 0, 113, 7]);
            let packet = match host % 3 {
                0 => first.tcp(4000, 80).flags(flag::SYN).seq(1).pad_to(60).build(),
                2 if !all_plain => first.echo_request(7, 1).pad_to(60).build(),
                _ => first.udp(4000, 53).pad_to(60).build(),
            };
            self.packets.push((1, packet));
        }
    }
}

#[test]
fn connections_that_begin_and_end_take_nothing_from_the_heap() {
    for all_plain in [false, true] {
        let mut setup = Setup::nat(0);
        setup.frames = (0..BURST).map(|_| HeapFrame::new(&[0; 80])).collect();
        let mut now = 0;
        let mut last = None;
        // The first rounds make megaflows, and the levels of the timer wheel that time comes by. Then connections end in
        // each, after half a minute or a whole one.
        let quiet = (0..=200).any(|round| {
            setup.newcomers(round, all_plain);
            let expired = setup.worker.shard().counters().expired;
            let region = Region::new(HEAP);
            setup.round(now);
            now += 6_000;
            while setup.worker.housekeeping(now) > 0 {}
            let change = region.change();
            let ended = setup.worker.shard().counters().expired - expired;
            last = Some((ended, change));
            ended > 0 && change.allocations + change.reallocations + change.deallocations == 0
        });
        assert!(quiet, "ended, and taken from the heap: {last:?}");
        assert_eq!(setup.worker.counters().dropped_in_all(), 0);
    }
}
