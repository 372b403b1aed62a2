//! Packets as fields, and how they are written as bytes: whole headers, every checksum summed over all it covers.
//! Nothing here reads bytes or changes a part of them, so that it shares no idea with the code that does.

use core::fmt;
use core::net::IpAddr;

/// TCP flags.
pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const PSH: u8 = 0x08;
pub const ACK: u8 = 0x10;
pub const URG: u8 = 0x20;

#[derive(Clone, Debug, PartialEq)]
pub struct Packet {
    pub src: IpAddr,
    pub dst: IpAddr,
    /// Something without meaning between the IP header and what it carries: options, or an extension header.
    pub filler: bool,
    pub body: Body,
    pub fault: Option<Fault>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    Tcp(Segment),
    Udp {
        src: u16,
        dst: u16,
        payload: usize,
        /// Without it the checksum field is 0.
        summed: bool,
    },
    Sctp {
        src: u16,
        dst: u16,
        payload: usize,
    },
    /// An ICMP query or its answer.
    Query {
        kind: u8,
        code: u8,
        id: u16,
    },
    /// An ICMP error: `room` bytes of what `quoted` carries, behind its IP header.
    Error {
        kind: u8,
        code: u8,
        quoted: Box<Packet>,
        room: usize,
    },
    /// Any other protocol.
    Other {
        protocol: u8,
        payload: usize,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub struct Segment {
    pub src: u16,
    pub dst: u16,
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub window: u16,
    /// The window scale option.
    pub scale: Option<u8>,
    pub payload: usize,
}

impl Segment {
    pub const fn has(&self, flags: u8) -> bool {
        self.flags & flags == flags
    }

    pub const fn has_any(&self, flags: u8) -> bool {
        self.flags & flags != 0
    }
}

/// What is wrong with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A wrong IPv4 header checksum.
    IpChecksum,
    /// A wrong checksum of TCP, UDP, SCTP, ICMP.
    Checksum,
    /// The packet ends inside the header that it carries.
    Cut,
    /// A UDP length or TCP data offset beyond the end.
    TooLong,
    /// A UDP length or TCP data offset shorter than the header.
    TooShort,
}

pub fn protocol_of(packet: &Packet) -> u8 {
    match packet.body {
        Body::Tcp(_) => 6,
        Body::Udp { .. } => 17,
        Body::Sctp { .. } => 132,
        Body::Query { .. } | Body::Error { .. } if packet.src.is_ipv6() => 58,
        Body::Query { .. } | Body::Error { .. } => 1,
        Body::Other { protocol, .. } => protocol,
    }
}

/// The packet in an Ethernet frame of at least 60 bytes.
pub fn frame(packet: &Packet) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    frame.extend(if packet.src.is_ipv6() { [0x86, 0xdd] } else { [0x08, 0x00] });
    frame.extend(ip(packet, usize::MAX));
    while frame.len() < 60 {
        frame.push(0);
    }
    frame
}

/// The IP packet; of what it carries the first `room` bytes, though its header speaks of all.
fn ip(packet: &Packet, room: usize) -> Vec<u8> {
    let mut carried = carried(packet);
    if packet.fault == Some(Fault::Cut) {
        carried.truncate(5);
    }
    let mut bytes = match (packet.src, packet.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let options: &[u8] = if packet.filler { &[1, 1, 1, 0] } else { &[] };
            let words = 5 + options.len() / 4;
            let mut header = vec![0x40 | byte(words), 0];
            header.extend(short(words * 4 + carried.len()).to_be_bytes());
            header.extend([0x12, 0x34, 0x40, 0, 64, protocol_of(packet), 0, 0]);
            header.extend(src.octets());
            header.extend(dst.octets());
            header.extend(options);
            let mut sum = checksum(&[&header]);
            if packet.fault == Some(Fault::IpChecksum) {
                sum ^= 0x0100;
            }
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            header
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            // Destination options: six bytes of padding (RFC 8200 section 4.2).
            let extension =
                if packet.filler { vec![protocol_of(packet), 0, 1, 4, 0, 0, 0, 0] } else { vec![] };
            let mut header = vec![0x60, 0, 0, 0];
            header.extend(short(extension.len() + carried.len()).to_be_bytes());
            header.extend([if packet.filler { 60 } else { protocol_of(packet) }, 64]);
            header.extend(src.octets());
            header.extend(dst.octets());
            header.extend(extension);
            header
        }
        _ => panic!("a packet of two families: {packet:?}"),
    };
    carried.truncate(room);
    bytes.extend(carried);
    bytes
}

/// How many bytes an error quotes of what this packet carries, if it has room for so many.
pub fn quoted(packet: &Packet, room: usize) -> usize {
    carried(packet).len().min(room)
}

/// What the IP packet carries.
fn carried(packet: &Packet) -> Vec<u8> {
    let v6 = packet.src.is_ipv6();
    let mut bytes = Vec::new();
    // Where the checksum is, whether it covers the addresses too, and whether there is one.
    let (at, with_addresses, summed) = match &packet.body {
        Body::Tcp(segment) => {
            let options = match segment.scale {
                // Maximum segment size, nothing, window scale.
                Some(scale) => vec![2, 4, 5, 180, 1, 3, 3, scale],
                None => vec![],
            };
            let mut words = 5 + options.len() / 4;
            match packet.fault {
                Some(Fault::TooLong) => words = 15,
                Some(Fault::TooShort) => words = 4,
                _ => {}
            }
            bytes.extend(segment.src.to_be_bytes());
            bytes.extend(segment.dst.to_be_bytes());
            bytes.extend(segment.seq.to_be_bytes());
            bytes.extend(segment.ack.to_be_bytes());
            bytes.extend([byte(words) << 4, segment.flags]);
            bytes.extend(segment.window.to_be_bytes());
            bytes.extend([0, 0, 0, 0]);
            bytes.extend(options);
            bytes.extend(payload(segment.payload));
            (16, true, true)
        }
        Body::Udp { src, dst, payload: length, summed } => {
            let declared = match packet.fault {
                Some(Fault::TooLong) => 9 + length,
                Some(Fault::TooShort) => 7,
                _ => 8 + length,
            };
            bytes.extend(src.to_be_bytes());
            bytes.extend(dst.to_be_bytes());
            bytes.extend(short(declared).to_be_bytes());
            bytes.extend([0, 0]);
            bytes.extend(payload(*length));
            (6, true, *summed)
        }
        Body::Sctp { src, dst, payload: length } => {
            bytes.extend(src.to_be_bytes());
            bytes.extend(dst.to_be_bytes());
            bytes.extend([0, 0, 0, 7, 0, 0, 0, 0]);
            // One DATA chunk (RFC 9260 section 3.3.1), as far as a tracker reads it.
            bytes.extend([0, 3]);
            bytes.extend(short(4 + length).to_be_bytes());
            bytes.extend(payload(*length));
            let mut sum = crc32c(&bytes);
            if packet.fault == Some(Fault::Checksum) {
                sum ^= 1;
            }
            bytes[8..12].copy_from_slice(&sum.to_le_bytes());
            return bytes;
        }
        Body::Query { kind, code, id } => {
            bytes.extend([*kind, *code, 0, 0]);
            bytes.extend(id.to_be_bytes());
            bytes.extend([0, 1]);
            bytes.extend(payload(8));
            (2, v6, true)
        }
        Body::Error { kind, code, quoted, room } => {
            bytes.extend([*kind, *code, 0, 0, 0, 0, 0, 0]);
            bytes.extend(ip(quoted, *room));
            (2, v6, true)
        }
        Body::Other { payload: length, .. } => return payload(*length),
    };
    if summed {
        let mut sum = match (packet.src, packet.dst) {
            _ if !with_addresses => checksum(&[&bytes]),
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let lengths = [0, protocol_of(packet)];
                checksum(&[&src.octets(), &dst.octets(), &lengths, &short(bytes.len()).to_be_bytes(), &bytes])
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let lengths = [0, 0, 0, protocol_of(packet)];
                let length = u32::from(short(bytes.len())).to_be_bytes();
                checksum(&[&src.octets(), &dst.octets(), &length, &lengths, &bytes])
            }
            _ => panic!("a packet of two families: {packet:?}"),
        };
        if sum == 0 && matches!(packet.body, Body::Udp { .. }) {
            // 0 would say that there is none (RFC 768).
            sum = 0xffff;
        }
        if packet.fault == Some(Fault::Checksum) {
            // Wrong, and not 0 either.
            sum ^= if sum == 0x0100 { 0x0200 } else { 0x0100 };
        }
        bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }
    bytes
}

/// RFC 1071, as it stands there; every part but the last has an even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for part in parts {
        for word in part.chunks(2) {
            sum += u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0));
            if sum > 0xffff {
                sum = (sum & 0xffff) + 1;
            }
        }
    }
    !short(sum as usize)
}

/// RFC 9260 appendix A, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

fn payload(length: usize) -> Vec<u8> {
    (0..length).map(|n| byte(n % 251)).collect()
}

fn byte(number: usize) -> u8 {
    u8::try_from(number).unwrap()
}

fn short(number: usize) -> u16 {
    u16::try_from(number).unwrap()
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (src, dst) = (self.src, self.dst);
        match &self.body {
            Body::Tcp(s) => {
                let names = [(SYN, 'S'), (FIN, 'F'), (RST, 'R'), (PSH, 'P'), (ACK, 'A'), (URG, 'U')];
                let flags: String =
                    names.iter().filter(|(bit, _)| s.has(*bit)).map(|(_, name)| *name).collect();
                write!(f, "tcp {src}:{} > {dst}:{} {flags:.<1} seq={} ack={}", s.src, s.dst, s.seq, s.ack)?;
                write!(f, " win={} len={}", s.window, s.payload)?;
                s.scale.map_or(Ok(()), |scale| write!(f, " ws={scale}"))?;
            }
            Body::Udp { src: from, dst: to, payload, summed } => {
                write!(f, "udp {src}:{from} > {dst}:{to} len={payload}")?;
                f.write_str(if *summed { "" } else { " without checksum" })?;
            }
            Body::Sctp { src: from, dst: to, payload } => {
                write!(f, "sctp {src}:{from} > {dst}:{to} len={payload}")?;
            }
            Body::Query { kind, code, id } => {
                write!(f, "icmp {src} > {dst} type={kind} code={code} id={id}")?;
            }
            Body::Error { kind, code, quoted, room } => {
                write!(f, "icmp {src} > {dst} type={kind} code={code} about {room} bytes of [{quoted}]")?;
            }
            Body::Other { protocol, payload } => {
                write!(f, "protocol {protocol} {src} > {dst} len={payload}")?;
            }
        }
        if self.filler {
            f.write_str(" with options")?;
        }
        self.fault.map_or(Ok(()), |fault| write!(f, " fault: {fault:?}"))
    }
}
