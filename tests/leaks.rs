//! A million connections opened and closed at random through a whole worker: nothing is left behind. Clients and
//! servers answer what they receive, with lives of every kind: handshakes finished and not, both ways to close, silence,
//! errors, ranges that run out, FTP's calls that come and that do not, over both families.
//!
//! `WEIR_LEAK_CONNECTIONS` asks for another number, `WEIR_LEAK_SEED` for others.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod support;

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use arrayvec::ArrayVec;
use weir::flow::{Command, FlowFile, NoNames};
use weir::pipeline::{
    Burst, DropCause, Frame, HeapFrame, PortId, PublishedSnapshot, Transmit, Worker, WorkerConfig,
};
use weir::replay::secret;
use weir::switch::Switch;
use weir_nat::alg::ftp::{Side, announcements};
use weir_shard::fragments::Family;
use weir_shard::{ShardConfig, Timeout, Timeouts};
use weir_wire::build::PacketBuilder;
use weir_wire::header::tcp::flag;
use weir_wire::header::{Ipv4, Tcp};
use weir_wire::{ChecksumTrust, Extracted, Layers, Tuple};

use support::{Counted, Random};

/// Every address and port of the range can be had for each server's port, and no search of it ends early.
const FLOWS: &str = "\
table=0,priority=1,action=normal
table=0,priority=10,ip,ct_state=-trk,action=ct(nat,table=1)
table=0,priority=10,ipv6,ct_state=-trk,action=ct(nat,table=1)
table=1,priority=40000,in_port=1,tcp,tp_dst=21,ct_state=+trk+new,action=ct(nat(src=10.0.0.1-10.0.0.4:5000-5999),commit,alg=ftp),2
table=1,priority=40000,in_port=1,tcp6,tp_dst=21,ct_state=+trk+new,action=ct(nat(src=[fd00::1]-[fd00::4]:5000-5999),commit,alg=ftp),2
table=1,in_port=1,ip,ct_state=+trk+new,action=ct(nat(src=10.0.0.1-10.0.0.4:5000-5999),commit),2
table=1,in_port=1,ipv6,ct_state=+trk+new,action=ct(nat(src=[fd00::1]-[fd00::4]:5000-5999),commit),2
table=1,priority=40000,in_port=2,tcp,ct_state=+trk+new+rel,action=ct(nat,commit),1
table=1,priority=40000,in_port=2,tcp6,ct_state=+trk+new+rel,action=ct(nat,commit),1
table=1,in_port=1,ipv6,ct_state=+trk+est,action=2
table=1,in_port=2,ipv6,ct_state=+trk+est,action=1
table=1,priority=40000,in_port=1,udp,ct_state=+trk+est,action=2,3
table=1,in_port=1,ip,ct_state=+trk+est,action=2
table=1,in_port=2,ip,ct_state=+trk+est,action=1
table=1,in_port=2,icmp,ct_state=+trk+rel,action=1";
/// Where FTP servers listen.
const CONTROL: u16 = 21;
/// Combinations of address and port in it.
const RANGE: u32 = 4000;

/// What is under way to the worker, by port.
#[derive(Default)]
struct Wire {
    to_worker: [VecDeque<Vec<u8>>; 2],
}

impl Wire {
    fn send(&mut self, port: PortId, packet: Vec<u8>) {
        self.to_worker[port as usize - 1].push_back(packet);
    }
}

/// Frames that came out.
#[derive(Default)]
struct Out(Vec<(PortId, Counted)>);

impl Transmit<Counted> for Out {
    fn send(&mut self, port: PortId, frame: Counted) {
        self.0.push((port, frame));
    }
}

struct World {
    worker: Worker<Counted>,
    _switch: Switch,
    random: Random,
    wire: Wire,
    out: Out,
    alive: Arc<()>,
    now: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut switch = Switch::default();
        switch.add_bridge("br0", 0).unwrap();
        for number in [1, 2, 3] {
            switch.add_port("br0", &format!("p{number}"), Some(number)).unwrap();
        }
        let flows = FlowFile::parse("flows", FLOWS.as_bytes(), Command::Add, &NoNames).unwrap().flows;
        switch.replace("br0", &flows, false, 0).unwrap();
        let mut timeouts = Timeouts::default();
        // Minutes in place of a day and of a quarter of an hour, so that connections of every kind come and go.
        timeouts.set(Timeout::TcpEstablished, 120).unwrap();
        timeouts.set(Timeout::TcpFinWait, 60).unwrap();
        let shard = ShardConfig { capacity: 1 << 17, timeouts, ..ShardConfig::default() };
        let config = WorkerConfig { shard, megaflows: 1024, secret: secret(seed), trajectories: true };
        let worker = Worker::new(config, PublishedSnapshot::new(switch.snapshot()).reader()).unwrap();
        Self {
            worker,
            _switch: switch,
            random: Random(seed),
            wire: Wire::default(),
            out: Out::default(),
            alive: Arc::new(()),
            now: 0,
        }
    }

    /// Sends what waits at a port, a burst of it, and answers what comes out.
    fn burst(&mut self, port: PortId) {
        let mut burst: Burst<Counted> = ArrayVec::new();
        let waiting = &mut self.wire.to_worker[port as usize - 1];
        while !burst.is_full()
            && let Some(packet) = waiting.pop_front()
        {
            burst.push(Counted { frame: HeapFrame::new(&packet), alive: Arc::clone(&self.alive) });
        }
        self.worker.process(self.now, port, &mut burst, &mut self.out);
        for (port, frame) in std::mem::take(&mut self.out.0) {
            self.answer(port, frame.frame.bytes());
        }
    }

    /// A new client's first packet.
    fn open(&mut self) {
        let random = &mut self.random;
        let client =
            [192, 168, u8::try_from(random.up_to(255)).unwrap(), u8::try_from(random.up_to(255)).unwrap()];
        let server = [203, 0, 113, u8::try_from(random.up_to(7)).unwrap()];
        let (from, to) = (1024 + random.up_to(60_000), 80 + random.up_to(1));
        let (from, to) = (from, if random.likely(5) { CONTROL } else { to });
        let packet = if random.likely(20) {
            let place = u16::from_be_bytes([client[2], client[3]]);
            PacketBuilder::new().ipv6(
                Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, place),
                Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, server[3].into()),
            )
        } else {
            PacketBuilder::new().ipv4(client, server)
        };
        let packet = match random.up_to(20) {
            _ if to == CONTROL => packet.tcp(from, to).flags(flag::SYN).seq(u32::from(from) << 16).build(),
            20 => return self.open_in_fragments(client, server, (from, to)),
            0..=10 => packet.tcp(from, to).flags(flag::SYN).seq(u32::from(from) << 16).build(),
            11..=16 => packet.udp(from, to).payload(b"question").build(),
            17 | 18 => packet.echo_request(from, 1).payload(b"ping").build(),
            // Of no connection, in the middle of something, and broken.
            _ => match random.up_to(2) {
                0 => packet.tcp(from, to).flags(flag::SYN | flag::ACK).build(),
                1 => packet.tcp(from, to).flags(flag::ACK).seq(7).ack(9).build(),
                _ => {
                    let mut packet = packet.udp(from, to).payload(b"question").build();
                    packet.truncate(38);
                    packet
                }
            },
        };
        self.wire.send(1, packet);
    }

    /// A datagram in three fragments, in any order; now and then one is missing, repeated or of another length.
    fn open_in_fragments(&mut self, client: [u8; 4], server: [u8; 4], ports: (u16, u16)) {
        let random = &mut self.random;
        let datagram =
            PacketBuilder::new().ipv4(client, server).udp(ports.0, ports.1).payload(&[7; 3000]).build();
        // What the IP header of 20 bytes carries.
        let carried = &datagram[34..];
        let id = random.up_to(u16::MAX);
        let mut fragments: Vec<Vec<u8>> = [(0, 1400), (1400, 2800), (2800, carried.len())]
            .into_iter()
            .map(|(from, to)| {
                let more = to != carried.len();
                PacketBuilder::new()
                    .ipv4(client, server)
                    .fragment(id.into(), u16::try_from(from).unwrap(), more)
                    .protocol(17)
                    .payload(&carried[from..to])
                    .build()
            })
            .collect();
        let turn = usize::from(random.up_to(2));
        fragments.rotate_left(turn);
        match random.up_to(9) {
            0 => drop(fragments.pop()),
            1 => fragments[1] = fragments[0].clone(),
            2 => fragments[2].truncate(60),
            _ => {}
        }
        for fragment in fragments {
            self.wire.send(1, fragment);
        }
    }

    /// What the host behind `port` makes of a packet.
    fn answer(&mut self, port: PortId, frame: &[u8]) {
        let random = &mut self.random;
        let server = port == 2;
        let layers = Layers::parse(frame);
        let Ok(Extracted::Packet(tuple)) = Tuple::extract(frame, &layers, 0, ChecksumTrust::NONE) else {
            return;
        };
        if port == 3 || !random.likely(90) {
            return;
        }
        if let Tuple::V4(tuple) = tuple
            && server
            && random.likely(2)
        {
            let error = PacketBuilder::new().ipv4([198, 51, 100, 1], tuple.src);
            self.wire.send(2, error.icmp_error(3, 1, 0, frame, 64).build());
            return;
        }
        let (src, dst) = (tuple.dst(), tuple.src());
        let (src_port, dst_port) = (tuple.dst_port(), tuple.src_port());
        let packet = PacketBuilder::new().ip(src, dst);
        let packet = match tuple.protocol() {
            6 => {
                let tcp = Tcp::new_checked(layers.l4_bytes(frame)).unwrap();
                if server && src_port == CONTROL && random.likely(60) {
                    // As active servers do; some never call, some call another port.
                    for call in announcements(tcp.payload(), Side::Client).flatten() {
                        let packet = PacketBuilder::new().ip(src, call.address.unwrap());
                        let port = if random.likely(90) { call.port } else { 7 };
                        self.wire.send(2, packet.tcp(20, port).flags(flag::SYN).seq(1).build());
                    }
                }
                if !server && dst_port == CONTROL && tcp.payload().is_empty() && random.likely(70) {
                    let port = 1024 + random.up_to(60_000);
                    let [high, low] = port.to_be_bytes();
                    let command = match src {
                        IpAddr::V4(src) => {
                            format!("PORT {},{high},{low}\r\n", src.to_string().replace('.', ","))
                        }
                        IpAddr::V6(src) => format!("EPRT |2|{src}|{port}|\r\n"),
                    };
                    let end = u32::from(tcp.flags() & flag::SYN != 0);
                    let packet = packet
                        .tcp(src_port, dst_port)
                        .flags(flag::PSH | flag::ACK)
                        .seq(tcp.acknowledgment())
                        .ack(tcp.sequence().wrapping_add(end))
                        .payload(command.as_bytes());
                    return self.wire.send(1, packet.build());
                }
                let has = |flags: u16| tcp.flags() & flags == flags;
                let flags = if has(flag::RST) {
                    return;
                } else if has(flag::SYN) && !has(flag::ACK) {
                    flag::SYN | flag::ACK
                } else if has(flag::FIN) {
                    // The first FIN gets one back, the second an acknowledgement; a side has no memory of which
                    // it was.
                    if server { flag::FIN | flag::ACK } else { flag::ACK }
                } else {
                    match random.up_to(9) {
                        0 => flag::RST | flag::ACK,
                        1..=4 if !server => flag::FIN | flag::ACK,
                        5..=7 => flag::ACK,
                        _ => return,
                    }
                };
                let end = u32::from(has(flag::SYN))
                    + u32::from(has(flag::FIN))
                    + u32::try_from(tcp.payload().len()).unwrap();
                let seq = if has(flag::ACK) {
                    tcp.acknowledgment()
                } else {
                    u32::from(random.up_to(u16::MAX)) << 16
                };
                packet
                    .tcp(src_port, dst_port)
                    .flags(flags)
                    .seq(seq)
                    .ack(tcp.sequence().wrapping_add(end))
                    .build()
            }
            17 if server || random.likely(30) => packet.udp(src_port, dst_port).payload(b"answer").build(),
            1 | 58 if server => packet.echo_reply(src_port, 1).payload(b"ping").build(),
            _ => return,
        };
        self.wire.send(if server { 2 } else { 1 }, packet);
    }

    /// Opens connections until `count` were created in all. Their number alive is kept below what there are ports for,
    /// but now and then it is not.
    fn run_until(&mut self, count: u64) {
        while self.worker.shard().counters().created < count {
            for _ in 0..16 {
                self.open();
            }
            self.burst(1);
            self.burst(2);
            self.now += u64::from(self.random.up_to(20));
            self.worker.housekeeping(self.now);
        }
    }

    /// Lets everybody finish, and all timeouts pass.
    fn drain(&mut self) {
        while self.wire.to_worker.iter().any(|waiting| !waiting.is_empty()) {
            self.burst(1);
            self.burst(2);
        }
        self.now += 3_600_000;
        while self.worker.housekeeping(self.now) > 0 {}
    }
}

/// Bytes of this process that are in memory.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    // Pages of 4 KiB, which is what x86-64 has (proc_pid_statm(5)).
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap())
}

#[test]
fn a_million_connections_leave_nothing_behind() {
    let (count, seed) = (number("WEIR_LEAK_CONNECTIONS", 1_000_000), number("WEIR_LEAK_SEED", 1));
    println!("seed {seed}");
    let mut world = World::new(seed);
    // By then as many connections end as begin: five minutes have passed, which is longer than any timeout here.
    world.run_until(count / 2);
    let before = resident();
    world.run_until(count);
    let after = resident();
    let busiest = world.worker.shard().len();
    world.drain();

    let counters = *world.worker.counters();
    assert_eq!(
        counters.received + counters.copies,
        counters.sent + counters.dropped_in_all(),
        "seed {seed}: {counters:?}"
    );
    assert!(counters.dropped(DropCause::NatExhausted) < counters.sent / 10, "{counters:?}");
    assert!(counters.copies > 0 && busiest > 1000, "{busiest} connections: {counters:?}");
    assert_eq!(Arc::strong_count(&world.alive), 1, "seed {seed}: frames are left");
    assert_eq!(world.worker.shard().len(), 0, "seed {seed}: connections are left");
    let fragments = world.worker.fragments().status(Family::V4).counters;
    assert!(fragments.datagrams > 0 && fragments.expired > 0, "{fragments:?}");
    assert_eq!(world.worker.held_fragments(), 0, "seed {seed}: fragments are left");
    let (expected, companions) = (world.worker.shard().expectations(), world.worker.shard().companions());
    assert_eq!((expected, companions), (0, 0), "seed {seed}: helpers left something");
    let shard = world.worker.shard().counters().clone();
    assert!(
        shard.edited > 0 && shard.expected > 0 && shard.expectations > shard.expected * 5 / 4,
        "{shard:?}"
    );
    assert_eq!(shard.created, shard.expired + shard.replaced + shard.flushed);
    println!("{} KiB before, {} KiB after, {busiest} connections at a time", before / 1024, after / 1024);
    assert!(after < before + MOST_GROWTH, "seed {seed}: {before} bytes before, {after} after");

    all_ports_are_free(&mut world);
}

/// Slots that are used for the first time in a moment with more connections than ever, and pages of the heap (64 KiB
/// over three million connections, measured). A leak of the smallest thing that a connection has, a line of 64 bytes,
/// would be 32 MB.
const MOST_GROWTH: u64 = 1 << 20;

/// As many connections to one server's port can be opened as the range has ports, each with its own, and no more.
fn all_ports_are_free(world: &mut World) {
    let mut ends = std::collections::BTreeSet::new();
    for number in 0..=RANGE {
        let [high, low] = u16::try_from(number).unwrap().to_be_bytes();
        let packet = PacketBuilder::new().ipv4([192, 168, high, low], [203, 0, 113, 1]).udp(4000, 80).build();
        let mut burst: Burst<Counted> = ArrayVec::new();
        burst.push(Counted { frame: HeapFrame::new(&packet), alive: Arc::clone(&world.alive) });
        world.worker.process(world.now, 1, &mut burst, &mut world.out);
        let sent = world.out.0.pop();
        assert_eq!(sent.is_some(), number < RANGE, "the client number {number}");
        if let Some((_, frame)) = sent {
            let layers = Layers::parse(frame.bytes());
            let source = Ipv4::new_checked(layers.l3_bytes(frame.bytes())).unwrap().src();
            let port = u16::from_be_bytes(*layers.l4_bytes(frame.bytes()).first_chunk().unwrap());
            assert!(ends.insert((source, port)), "{source:?}:{port} was given twice");
        }
    }
    world.drain();
    assert_eq!((world.worker.shard().len(), Arc::strong_count(&world.alive)), (0, 1));
}
