//! Random steps. A step is made of numbers alone: what they mean (the third connection, two behind the window's edge)
//! is settled when it is taken, so that steps can be left out and the others still mean something.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use weir_nat::{AddressRange, NatAction, NatRange};
use weir_shard::{CtAction, TcpState, Timeout, Timeouts, WindowScale};

use crate::conntrack::{Connection, Direction, Model, Tracked};
use crate::nat::SELECTIONS;
use crate::packet::{ACK, Body, FIN, Fault, PSH, Packet, RST, SYN, Segment, URG};
use crate::tcp::Side;
use crate::tuple::{Key, Tuple};

/// SplitMix64 (Steele, Lea and Flood 2014).
pub struct Random(pub u64);

impl Random {
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number from 0 to `last`.
    pub fn up_to(&mut self, last: u64) -> u64 {
        self.number() % (last + 1)
    }

    /// True in one of `n` cases.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.number().is_multiple_of(n)
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.up_to(from.len() as u64 - 1)).unwrap()]
    }

    fn pick_by(&mut self, number: usize) -> usize {
        usize::try_from(self.up_to(number as u64 - 1)).unwrap()
    }

    fn word(&mut self) -> u32 {
        u32::try_from(self.number() >> 32).unwrap()
    }
}

#[derive(Clone, Debug)]
pub enum Step {
    /// Packets that are received together, after the clock was changed.
    Burst {
        clock: Clock,
        packets: Vec<Sent>,
    },
    /// What lcores do between bursts.
    Sweep {
        budget: u32,
    },
    Flush {
        zone: Option<u16>,
        mark: Option<(u32, u32)>,
        slots: usize,
    },
    MaxConnections(u32),
    Liberal(bool),
    /// Of a zone, or of all without their own.
    ZoneLimit(Option<u16>, Option<u32>),
    ZoneTimeouts(u16, Option<Timeouts>),
}

#[derive(Clone, Copy, Debug)]
pub enum Clock {
    Stands,
    Forward(u64),
    Back(u64),
}

#[derive(Clone, Debug)]
pub struct Sent {
    pub what: What,
    pub ops: Vec<Op>,
    /// The card has verified the checksums.
    pub trusted: bool,
}

#[derive(Clone, Debug)]
pub enum Op {
    Ct(CtAction),
    Clear,
}

#[derive(Clone, Debug)]
pub enum What {
    Fresh(Packet),
    /// A packet of some connection.
    Of {
        pick: u64,
        reply: bool,
        follow: Follow,
        fault: Option<Fault>,
    },
    /// An ICMP error about a packet of some connection, which went in the direction `reply`.
    About {
        pick: u64,
        reply: bool,
        follow: Follow,
        router: Option<u64>,
        kind: u64,
        room: usize,
        filler: bool,
    },
}

/// How a segment relates to its connection.
#[derive(Clone, Copy, Debug)]
pub struct Follow {
    flags: Flags,
    seq: Place,
    ack: Place,
    window: u16,
    scale: Option<u8>,
    payload: usize,
}

#[derive(Clone, Copy, Debug)]
enum Flags {
    /// What a host would send now; and it has nothing more to send.
    Sensible {
        last: bool,
    },
    These(u8),
}

#[derive(Clone, Copy, Debug)]
enum Place {
    /// What comes next.
    Next(i32),
    /// The edge of what is allowed, less the payload.
    Edge(i32),
    /// One window back.
    Back(i32),
    /// As far back or forward as acknowledgements and stray segments may be.
    Far(i32),
    FarBack(i32),
    Zero,
    At(u32),
}

const HOSTS: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)),
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)),
    // Of a pool.
    IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)),
];
const HOSTS6: [IpAddr; 4] = [
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1)),
];
const PORTS: [u16; 8] = [1, 511, 520, 600, 1023, 5000, 5001, 65535];

/// The next step.
pub fn step(random: &mut Random) -> Step {
    match random.up_to(199) {
        0 => Step::Sweep { budget: random.pick(&[1, 7, 32, 1000]) },
        1 if random.one_in(3) => Step::Flush {
            zone: random.one_in(2).then(|| random.pick(&[0, 1, 2])),
            mark: random.one_in(2).then(|| (random.word() & 3, 3)),
            slots: random.pick(&[1, 5, 1000]),
        },
        2 if random.one_in(4) => Step::MaxConnections(random.pick(&[0, 3, 10, 100, 100])),
        3 if random.one_in(4) => Step::Liberal(random.one_in(3)),
        4 if random.one_in(3) => Step::ZoneLimit(
            random.one_in(2).then(|| random.pick(&[0, 1, 2])),
            random.one_in(2).then(|| random.pick(&[0, 2, 5, 20])),
        ),
        5 if random.one_in(3) => {
            Step::ZoneTimeouts(random.pick(&[0, 1, 65535]), random.one_in(2).then(|| timeouts(random)))
        }
        _ => {
            let together = random.pick(&[1, 1, 1, 1, 1, 2, 3]);
            // Often of one connection, where they get in each other's way.
            let pick = random.one_in(2).then(|| random.number());
            let packets = (0..together).map(|_| sent(random, pick)).collect();
            Step::Burst { clock: clock(random), packets }
        }
    }
}

/// Timeouts that differ from each other.
pub fn timeouts(random: &mut Random) -> Timeouts {
    let mut timeouts = Timeouts::default();
    for timeout in Timeout::ALL {
        timeouts.set(timeout, random.pick(&[1, 2, 30, 60, 300, 45 * 86_400])).unwrap();
    }
    timeouts
}

fn clock(random: &mut Random) -> Clock {
    match random.up_to(99) {
        0..=39 => Clock::Stands,
        40..=84 => Clock::Forward(random.up_to(40)),
        85..=92 => Clock::Forward(random.up_to(4_000)),
        93..=95 => {
            // Around a timeout.
            let seconds = random.pick(&[30, 30, 45, 60, 60, 900]);
            Clock::Forward((seconds * 1000 + random.up_to(40)).saturating_sub(20))
        }
        96 if random.one_in(4) => Clock::Forward(random.pick(&[100_000_000, 1 << 33, 1 << 45])),
        97 => Clock::Back(random.up_to(200)),
        98 if random.one_in(4) => Clock::Back(random.pick(&[9_999, 10_000, 10_001, 1 << 20, 1 << 50])),
        _ => Clock::Forward(1),
    }
}

fn sent(random: &mut Random, pick: Option<u64>) -> Sent {
    let pick = pick.unwrap_or_else(|| random.number());
    let reply = random.one_in(2);
    let what = match random.up_to(99) {
        0..=24 => What::Fresh(fresh(random)),
        25..=32 => What::About {
            pick,
            reply,
            follow: follow(random),
            router: random.one_in(2).then(|| random.up_to(3)),
            kind: random.number(),
            room: random.pick(&[8, 8, 12, 20, 28, 64, 7]),
            filler: random.one_in(8),
        },
        _ => What::Of { pick, reply, follow: follow(random), fault: fault(random) },
    };
    let mut ops = Vec::new();
    let mut zone = random.pick(&[0, 0, 0, 1, 1, 2, 65535]);
    for _ in 0..random.pick(&[1, 1, 1, 2, 2, 3, 4]) {
        if random.one_in(30) {
            ops.push(Op::Clear);
        }
        if random.one_in(5) {
            zone = random.pick(&[0, 1, 2]);
        }
        ops.push(Op::Ct(action(random, zone)));
    }
    Sent { what, ops, trusted: random.one_in(10) }
}

fn fault(random: &mut Random) -> Option<Fault> {
    let faults = [Fault::IpChecksum, Fault::Checksum, Fault::Cut, Fault::TooLong, Fault::TooShort];
    random.one_in(40).then(|| random.pick(&faults))
}

fn fresh(random: &mut Random) -> Packet {
    let hosts = if random.one_in(3) { HOSTS6 } else { HOSTS };
    let (src, dst) = (random.pick(&hosts), random.pick(&hosts));
    let (from, to) = (random.pick(&PORTS), random.pick(&PORTS));
    let (from, to) = (if random.one_in(50) { 0 } else { from }, if random.one_in(50) { 0 } else { to });
    let body = match random.up_to(19) {
        0..=8 => {
            let Follow { window, scale, payload, .. } = follow(random);
            let flags = flags(random);
            let number = random.word();
            let seq = random.pick(&[0, 1, 1000, 0x7fff_ffff, 0xffff_ff00, u32::MAX, number]);
            let flags = if random.one_in(4) { flags } else { SYN };
            let (ack, payload) = if flags == SYN { (0, payload % 3) } else { (random.word(), payload) };
            Body::Tcp(Segment { src: from, dst: to, seq, ack, flags, window, scale, payload })
        }
        9..=12 => {
            Body::Udp { src: from, dst: to, payload: random.pick(&[0, 1, 18, 31]), summed: !random.one_in(6) }
        }
        13 | 14 => Body::Sctp { src: from, dst: to, payload: random.pick(&[0, 4, 16]) },
        15..=17 => Body::Query {
            kind: if src.is_ipv6() {
                random.pick(&[128, 128, 128, 129, 133, 135])
            } else {
                random.pick(&[8, 8, 8, 8, 0, 13, 14, 15, 16, 9])
            },
            code: u8::from(random.one_in(20)),
            id: random.pick(&[0, 1, 500, 501, 65535]),
        },
        _ => Body::Other { protocol: random.pick(&[47, 50, 99]), payload: random.pick(&[0, 3, 40]) },
    };
    let fault = fault(random);
    let mut packet = Packet { src, dst, filler: random.one_in(12), body, fault: None };
    packet.fault = fault.filter(|&fault| can_have(&packet, fault));
    packet
}

/// True if the fault makes this packet invalid.
fn can_have(packet: &Packet, fault: Fault) -> bool {
    match (fault, &packet.body) {
        (Fault::IpChecksum, _) => packet.src.is_ipv4(),
        (_, Body::Other { .. } | Body::Error { .. }) => false,
        (Fault::Checksum, Body::Udp { summed, .. }) => *summed,
        (Fault::TooLong | Fault::TooShort, Body::Tcp(segment)) => segment.payload < 32,
        (Fault::TooLong | Fault::TooShort, body) => matches!(body, Body::Udp { .. }),
        (Fault::Checksum | Fault::Cut, _) => true,
    }
}

fn flags(random: &mut Random) -> u8 {
    const LIKELY: [u8; 12] = [
        ACK,
        ACK,
        ACK | PSH,
        ACK | PSH,
        SYN,
        SYN | ACK,
        SYN | ACK,
        SYN | ACK,
        FIN | ACK,
        FIN | ACK,
        RST | ACK,
        RST,
    ];
    match random.up_to(19) {
        0 => u8::try_from(random.up_to(63)).unwrap(),
        1 => random.pick(&[FIN, 0, PSH, URG, FIN | PSH | URG, SYN | FIN, SYN | RST]),
        _ => random.pick(&LIKELY),
    }
}

fn follow(random: &mut Random) -> Follow {
    let payload = match random.up_to(9) {
        0..=5 => 0,
        6 => random.pick(&[1, 2, 9]),
        7 | 8 => random.pick(&[100, 535, 1460]),
        _ => random.pick_by(1400),
    };
    let polite = random.one_in(2);
    let sensible = random.up_to(2) > 0;
    Follow {
        flags: if polite && sensible {
            Flags::Sensible { last: random.one_in(4) }
        } else {
            Flags::These(flags(random))
        },
        seq: if polite { Place::Next(0) } else { place(random) },
        ack: if polite { Place::Next(0) } else { place(random) },
        window: random.pick(&[0, 1, 2, 100, 1000, 8192, 65535]),
        scale: random.pick(&[None, None, Some(0), Some(2), Some(7), Some(14), Some(15), Some(255)]),
        payload,
    }
}

fn place(random: &mut Random) -> Place {
    let beside = i32::try_from(random.up_to(6)).unwrap() - 3;
    match random.up_to(11) {
        0..=3 => Place::Next(beside),
        4..=6 => Place::Edge(beside),
        7 => Place::Back(beside),
        8 => Place::Far(beside),
        9 => Place::FarBack(beside),
        10 => Place::Zero,
        _ => Place::At(random.word()),
    }
}

fn action(random: &mut Random, zone: u16) -> CtAction {
    let commit = random.one_in(2);
    CtAction {
        zone,
        commit,
        force: commit && random.one_in(8),
        mark: random.one_in(4).then(|| (random.word(), random.pick(&[u32::MAX, 1, 0xff00, 0]))),
        label: random.one_in(5).then(|| {
            let value = u128::from(random.number()) << 64 | u128::from(random.number());
            (value, random.pick(&[u128::MAX, 1, 1 << 127, 0xffff << 56]))
        }),
        nat: random.one_in(2).then(|| nat(random)),
        ..CtAction::default()
    }
}

fn nat(random: &mut Random) -> NatAction {
    if random.one_in(4) {
        return NatAction::Apply;
    }
    let v4 = |last: u8, to: u8| AddressRange::V4([198, 51, 100, last].into(), [198, 51, 100, to].into());
    let v6 = |last: u16, to: u16| {
        let address = |last| Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, last);
        AddressRange::V6(address(last), address(to))
    };
    let addresses = match random.up_to(11) {
        0..=4 => Some(v4(1, 1)),
        5 => Some(v4(1, 2)),
        6 => Some(v4(1, 4)),
        7 => Some(v6(1, 1)),
        8 => Some(v6(1, 3)),
        9 => Some(AddressRange::V4(Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED)),
        10 => Some(AddressRange::V6(Ipv6Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED)),
        _ => None,
    };
    let ports = match random.up_to(7) {
        0..=2 => None,
        3 => Some((5000, 5000)),
        4 => Some((5000, 5001)),
        5 => Some((5000, 5007)),
        6 => Some((65534, 65535)),
        _ => Some((1024, 65535)),
    };
    let range =
        NatRange { addresses, ports, selection: random.pick(&SELECTIONS), persistent: random.one_in(4) };
    if random.one_in(3) { NatAction::Destination(range) } else { NatAction::Source(range) }
}

/// The packet that is meant, given what connections there are.
pub fn packet(what: &What, model: &Model) -> Packet {
    let connection = |pick: u64| -> Option<&Connection> {
        let count = model.connections.len() as u64;
        if count == 0 {
            return None;
        }
        // Half of them the newest, so that some connections come through a whole life.
        let recent = if pick >> 32 & 1 == 0 { count } else { count.min(3) };
        let number = count - 1 - pick % recent;
        model.connections.values().nth(usize::try_from(number).unwrap())
    };
    match what {
        What::Fresh(packet) => packet.clone(),
        What::Of { pick, reply, follow, fault } => {
            let Some(connection) = connection(*pick) else { return nothing() };
            let mut packet = of(connection, *reply, follow);
            packet.fault = fault.filter(|&fault| can_have(&packet, fault));
            packet
        }
        What::About { pick, reply, follow, router, kind, room, filler } => {
            let Some(connection) = connection(*pick) else { return nothing() };
            // The quoted packet was translated on its way, and the error comes back to where it went out.
            let mut quoted = of(connection, *reply, follow);
            let to = if *reply { connection.original } else { connection.reply };
            quoted = with_tuple(quoted, to.reversed());
            quoted.filler = *filler;
            let (hosts, kinds): (_, &[u8]) = if quoted.src.is_ipv6() {
                (HOSTS6, &[1, 2, 3, 4, 1, 0, 100, 137])
            } else {
                (HOSTS, &[3, 3, 4, 5, 11, 12, 6])
            };
            let number = |of: u64, count: usize| usize::try_from(of % count as u64).unwrap();
            let source = router.map_or(quoted.dst, |router| hosts[number(router, hosts.len())]);
            // Now and then the error goes to somebody else.
            let destination = if *kind >> 32 & 31 == 0 { hosts[0] } else { quoted.src };
            Packet {
                src: source,
                dst: destination,
                filler: false,
                body: Body::Error {
                    kind: kinds[number(*kind, kinds.len())],
                    code: u8::try_from(kind >> 16 & 3).unwrap(),
                    quoted: Box::new(quoted),
                    room: *room,
                },
                fault: None,
            }
        }
    }
}

fn nothing() -> Packet {
    let body = Body::Udp { src: 9, dst: 9, payload: 0, summed: true };
    Packet { src: HOSTS[0], dst: HOSTS[1], filler: false, body, fault: None }
}

fn of(connection: &Connection, reply: bool, follow: &Follow) -> Packet {
    let (direction, tuple) = match reply {
        false => (Direction::Original, connection.original),
        true => (Direction::Reply, connection.reply),
    };
    let body = match (&connection.tracked, tuple.key) {
        (Tracked::Tcp(sides), _) => Body::Tcp(segment(sides, direction, follow)),
        (_, Key::Query { kind, .. }) => Body::Query { kind, code: 0, id: 0 },
        (_, Key::Ports { .. }) if tuple.protocol == 132 => {
            Body::Sctp { src: 0, dst: 0, payload: follow.payload }
        }
        (_, Key::Ports { .. }) => Body::Udp { src: 0, dst: 0, payload: follow.payload, summed: true },
        (_, Key::Nothing) => Body::Other { protocol: tuple.protocol, payload: follow.payload },
    };
    with_tuple(Packet { src: tuple.src, dst: tuple.dst, filler: false, body, fault: None }, tuple)
}

fn with_tuple(mut packet: Packet, tuple: Tuple) -> Packet {
    (packet.src, packet.dst) = (tuple.src, tuple.dst);
    match (&mut packet.body, tuple.key) {
        (Body::Tcp(segment), Key::Ports { src, dst }) => (segment.src, segment.dst) = (src, dst),
        (Body::Udp { src, dst, .. } | Body::Sctp { src, dst, .. }, Key::Ports { src: from, dst: to }) => {
            (*src, *dst) = (from, to);
        }
        (Body::Query { id, kind, .. }, Key::Query { id: new, kind: new_kind }) => {
            (*id, *kind) = (new, new_kind);
        }
        _ => {}
    }
    packet
}

fn segment(sides: &[Side; 2], direction: Direction, follow: &Follow) -> Segment {
    let own = sides[usize::from(direction == Direction::Reply)];
    let other = sides[usize::from(direction == Direction::Original)];
    let window = |side: Side| match side.scale {
        WindowScale::Offered(scale) => side.window << scale,
        WindowScale::Unknown => side.window << 14,
        WindowScale::None => side.window,
    };
    let payload = u32::try_from(follow.payload).unwrap();
    let far = 0xffff + 1500;
    let at = |place: Place, side: Side, back: u32, payload: u32| match place {
        Place::Next(by) => side.sent.wrapping_add_signed(by),
        Place::Edge(by) => side.allowed.unwrap_or(1).wrapping_sub(payload).wrapping_add_signed(by),
        Place::Back(by) => side.sent.wrapping_sub(back).wrapping_add_signed(by),
        Place::Far(by) => {
            side.allowed.unwrap_or(1).wrapping_add(far).wrapping_sub(payload).wrapping_add_signed(by)
        }
        Place::FarBack(by) => side.sent.wrapping_sub(far).wrapping_add_signed(by),
        Place::Zero => 0,
        Place::At(number) => number,
    };
    let flags = match follow.flags {
        Flags::These(flags) => flags,
        Flags::Sensible { .. } if own.state == TcpState::Closed => SYN | ACK,
        Flags::Sensible { last: true } if own.state >= TcpState::Established => FIN | ACK,
        Flags::Sensible { .. } => ACK,
    };
    Segment {
        src: 0,
        dst: 0,
        seq: at(follow.seq, own, window(other), payload),
        ack: if flags & ACK == 0 { 0 } else { at(follow.ack, other, window(own), 0) },
        flags,
        window: follow.window,
        scale: follow.scale.filter(|_| flags & SYN != 0),
        payload: follow.payload,
    }
}
