//! Captures drawn from a seed. Most packets answer an earlier one: they are made from what came out for that, so that an
//! answer goes to whatever port was drawn. Few hosts and ports, so that packets meet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use weir_wire::build::PacketBuilder;
use weir_wire::extract::Extracted;
use weir_wire::header::tcp::flag;
use weir_wire::numbers::protocol;
use weir_wire::{ChecksumTrust, Fragment, Layers, Tuple};

/// What happens next.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// A packet comes in.
    Packet { port: u16, bytes: Vec<u8> },
    /// One that answers what the packet of another step has become, by the port that that went to.
    Answer { to: usize, how: How },
    /// Milliseconds pass.
    Pause(u64),
}

/// What an answer is.
#[derive(Clone, Debug)]
pub(crate) enum How {
    /// As a stack would, with flags more and this payload.
    Stack { flags: u16, payload: Vec<u8> },
    /// The same, in two fragments, of which this is one.
    Part { first: bool },
    /// An ICMP error that quotes so many bytes.
    Error { code: u8, quoted: usize },
    /// From another port: TFTP's first block of data.
    OtherPort(u16),
    /// An FTP command or reply that announces this port.
    Announce { passive: bool, port: u16 },
    /// A connection to what an FTP command or reply has announced.
    Data { from: u16 },
}

/// Ports of data connections: so few that several hosts behind one address announce the same to one server.
pub(crate) const ANNOUNCED: [u16; 4] = [20_000, 20_001, 30_000, 40_255];

/// Ports of services, each as often as packets go there.
pub(crate) const SERVICES: [u16; 6] = [80, 80, 80, 21, 21, 69];

/// Draws numbers (xorshift64*, Vigna 2016).
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }

    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    pub(crate) fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }
}

/// A capture of `length` steps; `is_helped` ones are mostly FTP's.
pub(crate) fn draw(random: &mut Random, length: usize, is_helped: bool) -> Vec<Option<Step>> {
    let mut steps: Vec<Option<Step>> = Vec::new();
    while steps.len() < length {
        let packets = steps.len();
        if packets > 0 && !random.one_in(3) {
            let to = packets - 1 - random.below(packets.min(8));
            let how = how(random);
            if let How::Part { first } = how {
                steps.push(Some(Step::Answer { to, how: How::Part { first: !first } }));
            }
            steps.push(Some(Step::Answer { to, how }));
        } else if random.one_in(10) {
            steps.push(Some(Step::Pause(random.pick(&[1, 90, 1500, 31_000, 130_000, 600_000]))));
        } else {
            opening(random, &mut steps, is_helped);
        }
    }
    steps
}

fn how(random: &mut Random) -> How {
    match random.below(16) {
        0 => How::Error { code: random.pick(&[1, 3, 4]), quoted: random.pick(&[28, 40, 60, 200]) },
        1 => How::Part { first: random.one_in(2) },
        2 => How::OtherPort(random.pick(&[3000, 3001, 50_000])),
        3 | 4 => How::Announce { passive: random.one_in(2), port: random.pick(&ANNOUNCED) },
        5 | 6 => How::Data { from: random.pick(&[20, 4001, 4002, 40_000]) },
        7 => How::Stack { flags: flag::RST, payload: Vec::new() },
        8 | 9 => How::Stack { flags: flag::FIN, payload: Vec::new() },
        10 => How::Stack { flags: 0, payload: b"data".to_vec() },
        _ => How::Stack { flags: 0, payload: Vec::new() },
    }
}

/// A packet that answers nothing; some of them in pieces.
fn opening(random: &mut Random, steps: &mut Vec<Option<Step>>, is_helped: bool) {
    let is_ftp = is_helped && !random.one_in(3);
    let outside = !is_ftp && random.one_in(3);
    let port = if outside { 2 } else { 1 };
    let v6 = random.one_in(5);
    let inside_host = random.pick(&[1, 2, 3]);
    let far_host = random.pick(&[9, 9, 9, 10]);
    let (near, far): (IpAddr, IpAddr) = if v6 {
        let near = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, inside_host.into());
        (near.into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, far_host.into()).into())
    } else {
        (Ipv4Addr::new(192, 168, 0, inside_host).into(), Ipv4Addr::new(203, 0, 113, far_host).into())
    };
    let public: IpAddr = random.pick(&[[10, 0, 0, 1], [10, 0, 0, 2]]).into();
    let (src, dst) = match (outside, v6) {
        (true, true) => (far, near),
        (true, false) => (far, if random.one_in(3) { near } else { public }),
        // Now and then to a public address: a hairpin.
        (false, false) if random.one_in(4) => (near, public),
        (false, _) => (near, far),
    };
    let caller = random.pick(&[4000, 4001, 4002]);
    let service = if is_ftp { 21 } else { random.pick(&SERVICES) };
    let builder = PacketBuilder::new().ip(src, dst);
    let seq = random.pick(&[1000, 0xffff_fffe]);
    match if is_ftp { 0 } else { random.below(12) } {
        0..=4 => {
            let flags =
                if random.one_in(6) { random.pick(&[flag::ACK, flag::RST, flag::FIN, 0]) } else { flag::SYN };
            let bytes = builder.tcp(caller, service).seq(seq).flags(flags).window(1000).build();
            steps.push(Some(Step::Packet { port, bytes }));
            if service == 21 && flags == flag::SYN {
                announcing(random, steps);
            }
        }
        5 => {
            let bytes = builder.udp(caller, 69).payload(b"\0\x01name\0octet\0").build();
            steps.push(Some(Step::Packet { port, bytes }));
        }
        6 | 7 => {
            let bytes = builder.udp(caller, service).payload(b"hello").build();
            steps.push(Some(Step::Packet { port, bytes }));
        }
        8 => {
            let chunk = [1, 0, 0, 20, 0, 0, 0, 7, 0, 0, 0x10, 0, 0, 1, 0, 1, 0, 0, 0, 1];
            let bytes = builder.sctp(caller, service, 0).payload(&chunk).build();
            steps.push(Some(Step::Packet { port, bytes }));
        }
        9 => {
            // To a public address it would meet a connection or not by what was drawn: its identifier is both ends'.
            let builder =
                if dst == public { builder.ip(src, if outside { near } else { far }) } else { builder };
            let bytes = builder.echo_request(caller, 1).payload(b"ping").build();
            steps.push(Some(Step::Packet { port, bytes }));
        }
        10 => {
            let payload: Vec<u8> = (0..100).collect();
            let id = random.pick(&[7, 100 + steps.len() as u16]);
            let whole = builder.id(id).udp(caller, service).payload(&payload).build();
            let mut parts = cut(&whole, &[32, 64], id);
            while !parts.is_empty() {
                let bytes = parts.swap_remove(random.below(parts.len()));
                steps.push(Some(Step::Packet { port, bytes }));
            }
        }
        _ => {
            let mut bytes = builder.udp(caller, service).payload(b"hello").build();
            let at = random.below(bytes.len());
            bytes[at] ^= 1 << random.below(8);
            if random.one_in(2) {
                bytes.truncate(random.below(bytes.len()));
            }
            steps.push(Some(Step::Packet { port, bytes }));
        }
    }
}

/// The rest of an FTP conversation whose first packet is the last step: a data connection is announced and made.
fn announcing(random: &mut Random, steps: &mut Vec<Option<Step>>) {
    let plain = || How::Stack { flags: 0, payload: Vec::new() };
    let (passive, port) = (random.one_in(2), random.pick(&ANNOUNCED));
    let mut ways = vec![plain(), How::Announce { passive: false, port }];
    if passive {
        ways = vec![
            plain(),
            How::Stack { flags: 0, payload: b"PASV\r\n".to_vec() },
            How::Announce { passive, port },
        ];
    }
    ways.extend([How::Data { from: random.pick(&[20, 40_000]) }, plain(), plain()]);
    for how in ways {
        steps.push(Some(Step::Answer { to: steps.len() - 1, how }));
    }
}

/// A packet without options in fragments that begin at these offsets of its payload, multiples of 8; over IPv6 with
/// this identification. What cannot be cut stays whole.
fn cut(frame: &[u8], at: &[usize], id: u16) -> Vec<Vec<u8>> {
    let layers = Layers::parse(frame);
    let header = if layers.is_ipv6() { 40 } else { 20 };
    if layers.fragment != Fragment::No || layers.l4 != layers.l3 + header {
        return vec![frame.to_vec()];
    }
    let (l3, l4) = (usize::from(layers.l3), usize::from(layers.l4));
    let payload = layers.l4_bytes(frame);
    let mut ends: Vec<usize> = at.iter().copied().filter(|end| *end < payload.len()).collect();
    ends.push(payload.len());
    let mut begin = 0;
    let parts = ends.iter().map(|&end| {
        let (place, is_last) = (begin as u16, end == payload.len());
        let mut part = frame[..l4].to_vec();
        if layers.is_ipv6() {
            let next = std::mem::replace(&mut part[l3 + 6], protocol::FRAGMENT);
            part[l3 + 4..l3 + 6].copy_from_slice(&(8 + (end - begin) as u16).to_be_bytes());
            part.extend([next, 0]);
            part.extend((place | u16::from(!is_last)).to_be_bytes());
            part.extend(u32::from(id).to_be_bytes());
        }
        part.extend_from_slice(&payload[begin..end]);
        begin = end;
        if layers.is_ipv6() {
            return part;
        }
        let length = (part.len() - l3) as u16;
        part[l3 + 2..l3 + 4].copy_from_slice(&length.to_be_bytes());
        part[l3 + 6..l3 + 8].copy_from_slice(&((place / 8) | (u16::from(!is_last) << 13)).to_be_bytes());
        part[l3 + 10..l3 + 12].fill(0);
        let sum: u32 =
            part[l3..l4].chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
        let sum = (sum & 0xffff) + (sum >> 16);
        part[l3 + 10..l3 + 12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
        part
    });
    parts.collect()
}

/// What a stack that got `frame` sends; `None` if it sends nothing.
pub(crate) fn answer(frame: &[u8], how: &How) -> Option<Vec<u8>> {
    let layers = Layers::parse(frame);
    let tuple = Tuple::extract(frame, &layers, 0, ChecksumTrust::NONE).ok()?;
    if let How::Error { code, quoted } = how {
        // No error is about an error (RFC 1122 section 3.2.2).
        if matches!(tuple, Extracted::IcmpError { .. }) {
            return None;
        }
        let of = |tuple: &Tuple| (tuple.src(), tuple.dst());
        let (src, dst) = of(&tuple.lookup());
        let kind = if layers.is_ipv6() { 1 } else { 3 };
        return Some(PacketBuilder::new().ip(dst, src).icmp_error(kind, *code, 0, frame, *quoted).build());
    }
    if tuple.lookup().protocol() != layers.protocol || layers.fragment != Fragment::No {
        return None;
    }
    let tuple = tuple.lookup();
    let builder = PacketBuilder::new().ip(tuple.dst(), tuple.src());
    let l4 = layers.l4_bytes(frame);
    let (mut from, to) = (tuple.dst_port(), tuple.src_port());
    if let How::OtherPort(port) = how {
        from = *port;
    }
    let word = |at: usize| u32::from_be_bytes([l4[at], l4[at + 1], l4[at + 2], l4[at + 3]]);
    let mut payload = match how {
        How::Stack { payload, .. } => payload.clone(),
        How::Announce { passive, port } => announcement(tuple.dst(), *passive, *port),
        How::Part { .. } => vec![7; 60],
        _ => b"answer".to_vec(),
    };
    let whole = match layers.protocol {
        protocol::TCP => {
            let header = usize::from(l4[12] >> 4) * 4;
            let data = l4.len().saturating_sub(header) as u32;
            let theirs = u16::from(l4[13]);
            if let How::Data { from } = how {
                let (address, port) = announced(l4.get(header..)?)?;
                let builder = PacketBuilder::new().ip(tuple.dst(), address.unwrap_or(tuple.src()));
                return Some(builder.tcp(*from, port).seq(9000).flags(flag::SYN).window(1000).build());
            }
            let more = if let How::Stack { flags, .. } = how { *flags } else { 0 };
            let is_first = theirs & flag::SYN != 0;
            let ends = u32::from(theirs & (flag::SYN | flag::FIN) != 0);
            let seq = if theirs & flag::ACK != 0 { word(8) } else { 5000 };
            let opens = is_first && theirs & flag::ACK == 0;
            if opens {
                payload.clear();
            }
            let flags = flag::ACK | more | if opens { flag::SYN } else { 0 };
            let builder = builder.tcp(from, to).seq(seq).ack(word(4).wrapping_add(data + ends));
            builder.flags(flags).window(1000).payload(&payload).build()
        }
        protocol::UDP => builder.udp(from, to).id(77).payload(&payload).build(),
        protocol::SCTP => {
            let chunk = [2, 0, 0, 20, 0, 0, 0, 9, 0, 0, 0x10, 0, 0, 1, 0, 1, 0, 0, 0, 1];
            builder.sctp(from, to, word(if l4.len() > 20 { 16 } else { 4 })).payload(&chunk).build()
        }
        protocol::ICMP if l4[0] == 8 => builder.echo_reply(tuple.src_port(), 1).payload(&l4[8..]).build(),
        protocol::ICMPV6 if l4[0] == 128 => builder.echo_reply(tuple.src_port(), 1).payload(&l4[8..]).build(),
        _ => return None,
    };
    if let How::Part { first } = how {
        let mut parts = cut(&whole, &[40], 77);
        return if *first { parts.drain(..1).next() } else { parts.pop().filter(|_| parts.len() == 1) };
    }
    Some(whole)
}

fn announcement(own: IpAddr, passive: bool, port: u16) -> Vec<u8> {
    let IpAddr::V4(v4) = own else {
        let text = if passive {
            format!("229 Passive (|||{port}|)\r\n")
        } else {
            format!("EPRT |2|{own}|{port}|\r\n")
        };
        return text.into_bytes();
    };
    let [a, b, c, d] = v4.octets();
    let numbers = format!("{a},{b},{c},{d},{},{}", port >> 8, port & 0xff);
    let text = if passive { format!("227 Passive ({numbers})\r\n") } else { format!("PORT {numbers}\r\n") };
    text.into_bytes()
}

/// What an FTP line announces; no address is that of its sender.
fn announced(payload: &[u8]) -> Option<(Option<IpAddr>, u16)> {
    let text = core::str::from_utf8(payload).ok()?;
    if let Some(rest) = text.strip_prefix("EPRT |2|") {
        let mut parts = rest.split('|');
        return Some((Some(parts.next()?.parse().ok()?), parts.next()?.parse().ok()?));
    }
    if let Some(rest) = text.strip_prefix("229 Passive (|||") {
        return Some((None, rest.split('|').next()?.parse().ok()?));
    }
    let rest = text.strip_prefix("PORT ").or_else(|| text.strip_prefix("227 Passive ("))?;
    let numbers: Vec<u8> = rest.split([',', ')', '\r']).map_while(|number| number.parse().ok()).collect();
    let &[a, b, c, d, high, low] = numbers.first_chunk::<6>()?;
    Some((Some(Ipv4Addr::new(a, b, c, d).into()), u16::from_be_bytes([high, low])))
}
