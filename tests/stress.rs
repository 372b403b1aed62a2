//! Real threads, each with a worker, hand packets over to each other by mailboxes: clients and servers answer what comes
//! out, their packets arrive at any thread, and meanwhile tables are swapped, a zone is flushed and connections are
//! dumped. FTP clients behind one address announce the same few ports, and each is called itself; a zone never has more
//! connections than its limit. In the end every packet is accounted for and nothing is left: frames, connections,
//! redirects, notices, expected data connections.
//!
//! `WEIR_STRESS_CONNECTIONS` asks for another number of connections, `WEIR_STRESS_SECONDS` for a time in place of it,
//! `WEIR_STRESS_SEED` for other ones, `WEIR_STRESS_LCORES` for more threads. `tools/sanitize` runs it under the sanitizers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod support;

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use weir::flow::{Command, FlowFile, FlowMod, NoNames};
use weir::lcore::{Incoming, Mailboxes, Outgoing};
use weir::pipeline::{
    Burst, Counters, DropCause, Frame, HeapFrame, Letter, PortId, PublishedSnapshot, Transmit, Worker,
    WorkerConfig,
};
use weir::replay::secret;
use weir::switch::Switch;
use weir_shard::steering::KeyWord;
use weir_shard::{
    Directory, DumpCursor, Leases, Reason, ShardConfig, ShardNumber, ShardReader, Steering, Timeout, Timeouts,
};
use weir_wire::build::PacketBuilder;
use weir_wire::header::Tcp;
use weir_wire::header::tcp::flag;
use weir_wire::{ChecksumTrust, Extracted, Layers, Tuple};

use support::{Counted, Random};

/// Plain and translated connections. Those to 8080 ask other shards for their reply tuples, zone 1 is flushed now and
/// then, nothing may happen to those of zone 2, and zone 3 has a limit. FTP's all have one address.
const FLOWS: &str = "\
table=0,priority=20,udp,tp_dst=82,ct_state=-trk,action=ct(zone=1,table=2)
table=0,priority=20,udp,tp_src=82,ct_state=-trk,action=ct(zone=1,table=2)
table=0,priority=20,udp,tp_dst=83,ct_state=-trk,action=ct(zone=2,table=3)
table=0,priority=20,udp,tp_src=83,ct_state=-trk,action=ct(zone=2,table=3)
table=0,priority=20,udp,tp_dst=8400,ct_state=-trk,action=ct(zone=3,table=4)
table=0,priority=20,udp,tp_src=8400,ct_state=-trk,action=ct(zone=3,table=4)
table=0,priority=10,ip,ct_state=-trk,action=ct(nat,table=1)
table=1,priority=40000,in_port=1,tcp,tp_dst=21,ct_state=+trk+new,action=ct(alg=ftp,nat(src=10.0.0.5:5000-9999),commit),2
table=1,in_port=2,tcp,ct_state=+trk+new+rel,action=ct(nat,commit),1
table=1,priority=40000,in_port=1,tcp,tp_dst=8080,ct_state=+trk+new,action=ct(nat(dst=198.51.100.1-198.51.100.3),commit),2
table=1,in_port=1,ip,ct_state=+trk+new,action=ct(nat(src=10.0.0.1-10.0.0.4:5000-5999),commit),2
table=1,in_port=1,ip,ct_state=+trk+est,action=2
table=1,in_port=2,ip,ct_state=+trk+est,action=1
table=1,in_port=2,icmp,ct_state=+trk+rel,action=1
table=2,in_port=1,ip,ct_state=+trk,action=ct(commit,zone=1),2
table=2,in_port=2,ip,ct_state=+trk,action=1
table=3,in_port=1,ip,ct_state=+trk,action=ct(commit,zone=2),2
table=3,in_port=2,ip,ct_state=+trk+est,action=1
table=4,in_port=1,ip,ct_state=+trk,action=ct(commit,zone=3),2
table=4,in_port=2,ip,ct_state=+trk+est,action=1
";
const STEADY: u16 = 83;
/// What FTP's clients are translated to.
const FTP_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);
/// Connections that zone 3 may have, all threads together.
const LIMIT: u32 = 100;
/// Where packets may end that go nowhere here: invalid ones, broken ones, those without a free port, fragments without
/// their datagrams, those whose connections were closed before them; and what did not fit a mailbox.
const ALLOWED: [DropCause; 7] = [
    DropCause::TableMiss,
    DropCause::NatExhausted,
    DropCause::NatInvalid,
    DropCause::Untranslatable,
    DropCause::StaleConnection,
    DropCause::FragmentExpired,
    DropCause::MailboxFull,
];

/// What a thread sends: frames, and letters to the others.
struct Out {
    frames: Vec<(PortId, Counted)>,
    letters: Outgoing<Counted>,
}

impl Transmit<Counted> for Out {
    fn send(&mut self, port: PortId, frame: Counted) {
        self.frames.push((port, frame));
    }

    fn post(&mut self, to: ShardNumber, letter: Letter<Counted>) -> Result<(), Letter<Counted>> {
        self.letters.post(to, letter)
    }
}

type Job = Box<dyn FnOnce(&mut Worker<Counted>, u64) + Send>;

/// What all threads see.
struct Shared {
    /// Milliseconds. Whoever turns lets some pass.
    now: AtomicU64,
    /// What each thread took for now in its last turn.
    seen: Vec<AtomicU64>,
    offered: AtomicU64,
    stop: AtomicBool,
    /// Work that was found in a round of the end.
    found: AtomicU64,
    barrier: Barrier,
}

/// Milliseconds that may pass while a thread makes one turn, however long it waits for a CPU. A packet may wait a hundred
/// turns behind others, and less than any timeout must pass meanwhile, or connections end between a question and its
/// answer.
const LAG: u64 = 100;

/// One thread's part.
struct Core {
    index: usize,
    worker: Worker<Counted>,
    out: Out,
    letters: Incoming<Counted>,
    random: Random,
    /// What waits at its ports.
    waiting: [VecDeque<Vec<u8>>; 2],
    /// Packets from outside, by whoever sends them, and to whoever receives them.
    wire: Receiver<(PortId, Vec<u8>)>,
    wires: Vec<Sender<(PortId, Vec<u8>)>>,
    jobs: Receiver<Job>,
    alive: Arc<()>,
    turns: u32,
    /// Packets of zone 2 that came in and went out.
    steady: (u64, u64),
    /// FTP clients that were called, and calls that were expected at their first `ct` and not at the second any more: here
    /// minutes may pass while a packet goes from thread to thread.
    called: u64,
    late: u64,
}

/// What is left of a thread.
struct Left {
    counters: Counters,
    shard: weir_shard::Counters,
    connections: u32,
    redirects: usize,
    notices: usize,
    fragments: u64,
    steady: (u64, u64),
    called: u64,
    late: u64,
    /// How full its mailboxes were.
    fills: Vec<weir::lcore::Fill>,
}

impl Core {
    /// To any thread, whoever owns it.
    fn send(&mut self, port: PortId, packet: Vec<u8>) {
        let to = usize::from(self.random.up_to(u16::try_from(self.wires.len() - 1).unwrap()));
        // All threads live until all are quiet.
        self.wires[to].send((port, packet)).unwrap();
    }

    /// A new client's first packet.
    fn open(&mut self) {
        let random = &mut self.random;
        let bytes = random.number().to_be_bytes();
        let (client, server) = ([192, 168, bytes[0], bytes[1]], [203, 0, 113, bytes[2] & 7]);
        let from = 1024 + random.up_to(60_000);
        let packet = PacketBuilder::new().ipv4(client, server);
        let packet = match random.up_to(37) {
            0..=7 => packet.tcp(from, 80).flags(flag::SYN).seq(u32::from(from) << 16).build(),
            8..=15 => packet.tcp(from, 8080).flags(flag::SYN).seq(u32::from(from) << 16).build(),
            16..=19 => packet.udp(from, 81).payload(b"question").build(),
            20..=22 => packet.udp(from, 82).payload(b"question").build(),
            // From no port that another flow looks for.
            23..=26 => packet.udp(0x100 | (from & 0xff), STEADY).payload(b"question").build(),
            27 | 28 => packet.echo_request(from, 1).payload(b"ping").build(),
            29 | 30 => return self.open_in_fragments(client, server, from),
            31..=33 => packet.tcp(from, 21).flags(flag::SYN).seq(u32::from(from) << 16).build(),
            34..=36 => packet.udp(from, 8400).payload(b"question").build(),
            // In the middle of something.
            _ => packet.tcp(from, 80).flags(flag::SYN | flag::ACK).build(),
        };
        self.send(1, packet);
    }

    /// A datagram in three fragments, of which one may be missing.
    fn open_in_fragments(&mut self, client: [u8; 4], server: [u8; 4], from: u16) {
        let datagram = PacketBuilder::new().ipv4(client, server).udp(from, 81).payload(&[7; 3000]).build();
        // What the IP header of 20 bytes carries.
        let carried = &datagram[34..];
        let id = self.random.up_to(u16::MAX);
        for (begin, end) in [(0, 1400), (1400, 2800), (2800, carried.len())] {
            if self.random.likely(3) {
                continue;
            }
            let more = end != carried.len();
            let fragment = PacketBuilder::new().ipv4(client, server).fragment(
                id.into(),
                u16::try_from(begin).unwrap(),
                more,
            );
            self.send(1, fragment.protocol(17).payload(&carried[begin..end]).build());
        }
    }

    /// What the host behind `port` makes of a packet.
    fn answer(&mut self, port: PortId, frame: &[u8]) {
        let server = port == 2;
        let layers = Layers::parse(frame);
        let Ok(Extracted::Packet(tuple)) = Tuple::extract(frame, &layers, 0, ChecksumTrust::NONE) else {
            return;
        };
        let (src_port, dst_port) = (tuple.dst_port(), tuple.src_port());
        if src_port == STEADY || dst_port == STEADY {
            self.steady.1 += 1;
        }
        let random = &mut self.random;
        if !random.likely(90) {
            return;
        }
        if let Tuple::V4(tuple) = tuple
            && server
            && random.likely(2)
        {
            let error = PacketBuilder::new().ipv4([198, 51, 100, 9], tuple.src);
            return self.send(2, error.icmp_error(3, 1, 0, frame, 64).build());
        }
        let packet = PacketBuilder::new().ip(tuple.dst(), tuple.src());
        let packet = match tuple.protocol() {
            6 if [src_port, dst_port].contains(&21) => match self.converse(frame, &layers, tuple) {
                Some(packet) => packet,
                None => return,
            },
            6 => {
                let tcp = Tcp::new_checked(layers.l4_bytes(frame)).unwrap();
                if !server && dst_port == 20 && tcp.flags() == flag::SYN {
                    // The server writes down who has told it to call.
                    let IpAddr::V4(own) = tuple.dst() else { return };
                    if own == FTP_ADDRESS {
                        self.late += 1;
                        return;
                    }
                    assert_eq!(Ipv4Addr::from_bits(tcp.sequence()), own, "somebody else's call");
                    self.called += 1;
                }
                let random = &mut self.random;
                let has = |flags: u16| tcp.flags() & flags == flags;
                let flags = if has(flag::RST) {
                    return;
                } else if has(flag::SYN) && !has(flag::ACK) {
                    flag::SYN | flag::ACK
                } else if has(flag::FIN) {
                    if server { flag::FIN | flag::ACK } else { flag::ACK }
                } else {
                    match random.up_to(9) {
                        0 => flag::RST | flag::ACK,
                        1..=3 if !server => flag::FIN | flag::ACK,
                        4..=8 => flag::ACK,
                        _ => return,
                    }
                };
                let end = u32::from(has(flag::SYN)) + u32::from(has(flag::FIN));
                let begin = u32::from(random.up_to(u16::MAX)) << 16;
                let seq = if has(flag::ACK) { tcp.acknowledgment() } else { begin };
                let ack = tcp.sequence().wrapping_add(end);
                packet.tcp(src_port, dst_port).flags(flags).seq(seq).ack(ack).build()
            }
            17 => packet.udp(src_port, dst_port).payload(b"answer").build(),
            1 if server => packet.echo_reply(src_port, 1).payload(b"ping").build(),
            _ => return,
        };
        self.send(if server { 2 } else { 1 }, packet);
    }

    /// What a host answers on an FTP control connection: a client announces one of a few ports and who it is, and the
    /// server calls it.
    fn converse(&mut self, frame: &[u8], layers: &Layers, tuple: Tuple) -> Option<Vec<u8>> {
        let (IpAddr::V4(src), IpAddr::V4(dst)) = (tuple.src(), tuple.dst()) else { return None };
        let tcp = Tcp::new_checked(layers.l4_bytes(frame)).unwrap();
        let (seq, ack) = (tcp.acknowledgment(), tcp.sequence().wrapping_add(1));
        let packet = PacketBuilder::new().ipv4(dst, src);
        let back = packet.tcp(tuple.dst_port(), tuple.src_port());
        if tcp.flags() == flag::SYN {
            return Some(back.flags(flag::SYN | flag::ACK).seq(self.random.number() as u32).ack(ack).build());
        }
        if tcp.flags() == flag::SYN | flag::ACK {
            let [a, b, c, d] = dst.octets();
            let line =
                format!("USER {}\r\nPORT {a},{b},{c},{d},78,{}\r\n", dst.to_bits(), self.random.up_to(3));
            return Some(back.flags(flag::ACK).seq(seq).ack(ack).payload(line.as_bytes()).build());
        }
        let text = std::str::from_utf8(tcp.payload()).ok()?.strip_prefix("USER ")?;
        let (client, told) = text.split_once("\r\nPORT ")?;
        let numbers: Vec<u8> = told.trim_end().split(',').map(|number| number.parse().unwrap()).collect();
        let &[a, b, c, d, high, low] = numbers.first_chunk::<6>()?;
        assert_eq!([a, b, c, d], src.octets(), "a private address");
        let call = PacketBuilder::new().ipv4(dst, src).tcp(20, u16::from_be_bytes([high, low]));
        Some(call.flags(flag::SYN).seq(client.parse().unwrap()).build())
    }

    /// Shows the others and the hosts outside what it has sent.
    fn flush(&mut self) {
        self.out.letters.flush();
        for (port, frame) in std::mem::take(&mut self.out.frames) {
            self.answer(port, frame.bytes());
        }
    }

    /// Works on a burst that came in by `port`; its packets.
    fn burst(&mut self, now: u64, port: PortId) -> usize {
        let mut burst: Burst<Counted> = ArrayVec::new();
        let waiting = &mut self.waiting[port as usize - 1];
        while !burst.is_full()
            && let Some(packet) = waiting.pop_front()
        {
            if packet[23] == 17
                && [&packet[34..36], &packet[36..38]].contains(&STEADY.to_be_bytes().as_slice())
            {
                self.steady.0 += 1;
            }
            burst.push(Counted { frame: HeapFrame::new(&packet), alive: Arc::clone(&self.alive) });
        }
        let packets = burst.len();
        if packets > 0 {
            self.worker.process(now, port, &mut burst, &mut self.out);
            self.flush();
        }
        packets
    }

    /// One turn of its loop. How much it found to do.
    fn turn(&mut self, shared: &Shared) -> usize {
        let now = shared.now.load(Ordering::Relaxed);
        shared.seen[self.index].store(now, Ordering::Relaxed);
        let mut found = 0;
        for (port, packet) in self.wire.try_iter().take(64) {
            self.waiting[port as usize - 1].push_back(packet);
        }
        for port in if self.random.likely(50) { [1, 2] } else { [2, 1] } {
            found += self.burst(now, port);
        }
        let Self { worker, out, letters, .. } = self;
        letters.collect(8, |from, letters| {
            found += letters.len();
            worker.receive(now, from, letters, out);
            out.letters.flush();
        });
        self.turns += 1;
        if self.turns.is_multiple_of(8) {
            let pass = u64::from(self.random.up_to(40));
            if shared.seen.iter().all(|seen| seen.load(Ordering::Relaxed) + LAG > now) {
                shared.now.fetch_add(pass, Ordering::Relaxed);
            }
            found += self.worker.housekeeping(now) as usize;
            while let Ok(job) = self.jobs.try_recv() {
                job(&mut self.worker, now);
            }
            self.worker.post_notices(&mut self.out);
        }
        self.flush();
        found + self.worker.waiting_notices() + self.waiting.iter().map(VecDeque::len).sum::<usize>()
    }

    /// Until nobody has anything to do any more.
    fn settle(&mut self, shared: &Shared) {
        loop {
            let found: usize = (0..16).map(|_| self.turn(shared)).sum();
            shared.found.fetch_add(found as u64, Ordering::SeqCst);
            shared.barrier.wait();
            let all = shared.found.load(Ordering::SeqCst);
            if shared.barrier.wait().is_leader() {
                shared.found.store(0, Ordering::SeqCst);
            }
            shared.barrier.wait();
            if all == 0 {
                return;
            }
        }
    }

    fn run(mut self, shared: &Shared) -> Left {
        while !shared.stop.load(Ordering::Relaxed) {
            // No more than there are ports for, mostly, and than is under way anyway.
            if self.worker.shard().len() < 3000 && self.waiting[0].len() < 256 {
                (0..16).for_each(|_| self.open());
                shared.offered.fetch_add(16, Ordering::Relaxed);
            }
            if self.turn(shared) == 0 {
                std::thread::yield_now();
            }
        }
        self.settle(shared);
        // Longer than any timeout.
        shared.now.fetch_add(3_600_000, Ordering::Relaxed);
        self.settle(shared);
        let shard = self.worker.shard();
        Left {
            counters: *self.worker.counters(),
            shard: shard.counters().clone(),
            connections: shard.len(),
            redirects: shard.redirects(),
            notices: shard.notices() + self.worker.waiting_notices(),
            fragments: self.worker.held_fragments(),
            steady: self.steady,
            called: self.called,
            late: self.late,
            fills: self.letters.fills().collect(),
        }
    }
}

/// The side that commands come from: dumps by readers, flushes by jobs, tables by publishing.
struct Control {
    switch: Switch,
    published: PublishedSnapshot,
    readers: Vec<ShardReader>,
    jobs: Vec<Sender<Job>>,
    random: Random,
    dumped: u64,
    swapped: u64,
    /// The most connections of zone 3 that were there at once.
    most: u32,
}

impl Control {
    fn command(&mut self, now: u64) {
        match self.random.up_to(4) {
            4 => self.count_limited(),
            0 => {
                for reader in &self.readers {
                    let (mut cursor, mut rows) = (DumpCursor::default(), 0);
                    while !cursor.is_done() {
                        reader.dump(now, &mut cursor, 256, &mut |_, view| {
                            assert!(
                                [0, 1, 2, 3].contains(&view.original.zone()),
                                "half a connection: {view:?}"
                            );
                            rows += 1;
                            ControlFlow::Continue(())
                        });
                    }
                    self.dumped += rows;
                }
            }
            1 => {
                for jobs in &self.jobs {
                    let flush: Job = Box::new(|worker, now| {
                        let mut cursor = DumpCursor::default();
                        let shard = worker.shard_mut();
                        shard.flush(now, &mut cursor, usize::MAX, &mut |view| view.original.zone() == 1);
                    });
                    jobs.send(flush).unwrap();
                }
            }
            _ => {
                // The same in other words: nothing may come of it but new snapshots.
                let extra = format!("table=9,priority={},actions=drop\n", self.random.up_to(1000));
                self.switch.replace("br0", &parse(&format!("{FLOWS}{extra}")), false, 0).unwrap();
                self.published.reclaim();
                if self.published.has_room() {
                    self.published.publish(self.switch.snapshot()).unwrap();
                    self.swapped += 1;
                }
            }
        }
    }
}

impl Control {
    /// Stops all threads between two bursts and counts the connections of zone 3. Gates open by being dropped, so that
    /// nobody waits for a thread that has failed.
    fn count_limited(&mut self) {
        let ((here, arrivals), (count, counts)) = (channel(), channel());
        let (mut all_here, mut all_counted) = (Vec::new(), Vec::new());
        for jobs in &self.jobs {
            let (here, count) = (here.clone(), count.clone());
            let ((first, first_gate), (second, second_gate)) = (channel::<()>(), channel::<()>());
            all_here.push(first);
            all_counted.push(second);
            let job: Job = Box::new(move |worker, _| {
                let _ = here.send(());
                drop(here);
                let _ = wait(&first_gate);
                let _ = count.send(worker.shard().zone_len(3));
                drop(count);
                let _ = wait(&second_gate);
            });
            let _ = jobs.send(job);
        }
        drop((here, count));
        while wait(&arrivals).is_some() {}
        drop(all_here);
        let connections: u32 = std::iter::from_fn(|| wait(&counts)).sum();
        drop(all_counted);
        assert!(connections <= LIMIT, "{connections} connections where {LIMIT} may be");
        self.most = self.most.max(connections);
    }
}

/// The next thing that comes, `None` once nobody is left who could send it. Not [`Receiver::recv`]: how that goes to sleep is
/// in the standard library's precompiled part, which ThreadSanitizer does not see.
fn wait<T>(receiver: &Receiver<T>) -> Option<T> {
    loop {
        match receiver.try_recv() {
            Ok(value) => return Some(value),
            Err(TryRecvError::Disconnected) => return None,
            Err(TryRecvError::Empty) => std::thread::yield_now(),
        }
    }
}

fn parse(flows: &str) -> Vec<FlowMod> {
    FlowFile::parse("flows", flows.as_bytes(), Command::Add, &NoNames).unwrap().flows
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap())
}

/// Lets threads with mailboxes of `capacity` at each other and looks at what is left.
fn stress(capacity: usize) {
    let seed = number("WEIR_STRESS_SEED", 1);
    let lcores = usize::try_from(number("WEIR_STRESS_LCORES", 2)).unwrap();
    let seconds = number("WEIR_STRESS_SECONDS", 0);
    println!("seed {seed}, {lcores} threads, mailboxes of {capacity}");

    let mut switch = Switch::default();
    switch.add_bridge("br0", 0).unwrap();
    for port in [1, 2] {
        switch.add_port("br0", &format!("p{port}"), Some(port)).unwrap();
    }
    switch.replace("br0", &parse(FLOWS), false, 0).unwrap();
    let mut published = PublishedSnapshot::new(switch.snapshot());
    let steering = Arc::new(Steering::symmetric(lcores, KeyWord::from_random(seed as u16)));
    let (directory, leases) = (Arc::new(Directory::new(seed)), Arc::new(Leases::new(lcores)));
    let mut timeouts = Timeouts::default();
    // Minutes in place of a day and of a quarter of an hour, so that connections of every kind come and go.
    timeouts.set(Timeout::TcpEstablished, 120).unwrap();
    timeouts.set(Timeout::TcpFinWait, 60).unwrap();
    let shared = Shared {
        now: AtomicU64::new(0),
        seen: (0..lcores).map(|_| AtomicU64::new(0)).collect(),
        offered: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        found: AtomicU64::new(0),
        barrier: Barrier::new(lcores),
    };
    let alive = Arc::new(());
    let (wires, mut ends): (Vec<_>, VecDeque<_>) = (0..lcores).map(|_| channel()).unzip();
    let (mut cores, mut readers, mut jobs) = (Vec::new(), Vec::new(), Vec::new());
    for (index, mailboxes) in
        Mailboxes::between(&vec![None; lcores], capacity).unwrap().into_iter().enumerate()
    {
        let shard = ShardConfig {
            capacity: 1 << 16,
            timeouts: timeouts.clone(),
            number: ShardNumber::new(index).unwrap(),
            steering: Arc::clone(&steering),
            directory: Arc::clone(&directory),
            leases: Arc::clone(&leases),
            ..ShardConfig::default()
        };
        let config = WorkerConfig { shard, megaflows: 1024, secret: secret(seed), trajectories: true };
        let mut worker = Worker::new(config, published.reader()).unwrap();
        // As if a card were to steer these, and did it wrong: they find their owners at their ct.
        worker.set_steered(if index % 2 == 0 { 2 } else { 1 }, true);
        worker.shard_mut().set_zone_limit(3, Some(LIMIT));
        readers.push(worker.shard_mut().reader());
        let (sender, receiver) = channel();
        jobs.push(sender);
        cores.push(Core {
            index,
            worker,
            out: Out { frames: Vec::new(), letters: mailboxes.outgoing },
            letters: mailboxes.incoming,
            random: Random(seed ^ (index as u64) << 32),
            waiting: Default::default(),
            wire: ends.pop_front().unwrap(),
            wires: wires.clone(),
            jobs: receiver,
            alive: Arc::clone(&alive),
            turns: 0,
            steady: (0, 0),
            called: 0,
            late: 0,
        });
    }
    let mut control =
        Control { switch, published, readers, jobs, random: Random(!seed), dumped: 0, swapped: 0, most: 0 };
    let begin = Instant::now();
    let left: Vec<Left> = std::thread::scope(|scope| {
        let threads: Vec<_> = cores.into_iter().map(|core| scope.spawn(|| core.run(&shared))).collect();
        let connections = number("WEIR_STRESS_CONNECTIONS", 100_000);
        let enough = || match seconds {
            0 => shared.offered.load(Ordering::Relaxed) >= connections,
            seconds => begin.elapsed() >= Duration::from_secs(seconds),
        };
        let mut due = 0;
        while !enough() && threads.iter().all(|thread| !thread.is_finished()) {
            // So many packets between two commands, however fast the machine is.
            if shared.offered.load(Ordering::Relaxed) >= due {
                due += 200;
                control.command(shared.now.load(Ordering::Relaxed));
            }
            std::thread::yield_now();
        }
        shared.stop.store(true, Ordering::Relaxed);
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });

    let (mut all, mut tracked, mut steady) = (Counters::default(), weir_shard::Counters::default(), (0, 0));
    let (called, late) =
        left.iter().fold((0, 0), |(called, late), left| (called + left.called, late + left.late));
    for left in &left {
        let Left {
            counters, shard, connections, redirects, notices, fragments, steady: (came, went), ..
        } = left;
        assert_eq!(
            counters.received + counters.copies + counters.taken_over_in_all(),
            counters.sent + counters.dropped_in_all() + counters.handed_over_in_all(),
            "seed {seed}: {counters:?}"
        );
        assert_eq!(
            (*connections, *redirects, *notices, *fragments),
            (0, 0, 0, 0),
            "seed {seed}: something is left"
        );
        all.add(counters);
        tracked.add(shard);
        steady = (steady.0 + came, steady.1 + went);
        println!("mailboxes: {:?}", left.fills);
    }
    let drops: Vec<_> = all.drops().filter(|(_, count)| *count > 0).collect();
    println!(
        "{} received, {} swaps, {} rows dumped; {drops:?}",
        all.received, control.swapped, control.dumped
    );
    println!("handed over {:?}, refused {:?}", all.handed_over, all.refused_full);
    println!("{tracked:?}");
    assert_eq!(all.handed_over, all.taken_over, "seed {seed}: lost between threads");
    for (cause, count) in &drops {
        assert!(ALLOWED.contains(cause), "seed {seed}: {count} packets lost by {}", cause.name());
    }
    let refused = all.dropped(DropCause::MailboxFull);
    assert_eq!(refused, all.refused_full.iter().sum::<u64>());
    assert!(steady.0 - steady.1 <= refused, "seed {seed}: {steady:?} of zone 2, {refused} refused");
    assert_eq!(
        tracked.created,
        tracked.expired + tracked.replaced + tracked.flushed,
        "seed {seed}: {tracked:?}"
    );
    assert_eq!((directory.len(), directory.connected()), (0, 0), "seed {seed}: expected, connected");
    assert_eq!(Arc::strong_count(&alive), 1, "seed {seed}: frames are left");
    assert!(late * 100 <= called, "seed {seed}: {late} calls came untranslated, {called} translated");
    println!("{called} FTP clients called, {late} late, {} connections of zone 3 at the most", control.most);
    // And it was a stress.
    assert!(
        called > 0 && tracked.expected > 0 && tracked.refused_by_zone_limit > 0,
        "seed {seed}: {tracked:?}"
    );
    let expected = all.handed_over[Reason::Expected.index()];
    assert!(lcores == 1 || expected > 0, "seed {seed}: no data connection was handed over");
    assert!(lcores == 1 || all.handed_over.iter().filter(|count| **count > 0).count() >= 4, "{all:?}");
    assert!(
        control.swapped > 0 && control.dumped > 0 && tracked.flushed > 0,
        "{} {}",
        control.swapped,
        control.dumped
    );
}

#[test]
fn threads_that_exchange_packets_lose_and_leave_nothing() {
    stress(1024);
}

#[test]
fn mailboxes_that_are_always_full_lose_only_what_they_count() {
    stress(4);
}
