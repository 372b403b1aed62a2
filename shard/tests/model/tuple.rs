//! What names a connection in one direction, and what makes a packet invalid whatever connections there are.

use core::fmt;
use core::net::IpAddr;

use crate::packet::{
    ACK, Body, FIN, Fault, PSH, Packet, RST, SYN, Segment, URG, protocol_of, quoted as quoted_length,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tuple {
    pub zone: u16,
    pub protocol: u8,
    pub src: IpAddr,
    pub dst: IpAddr,
    pub key: Key,
}

/// What tells connections between two addresses apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    Ports {
        src: u16,
        dst: u16,
    },
    /// ICMP queries: identifier and type.
    Query {
        id: u16,
        kind: u8,
    },
    /// Protocols of which only the addresses count.
    Nothing,
}

impl Tuple {
    /// The tuple of an answer.
    pub fn reversed(self) -> Self {
        let key = match self.key {
            Key::Ports { src, dst } => Key::Ports { src: dst, dst: src },
            Key::Query { id, kind } => Key::Query { id, kind: answer_of(kind) },
            Key::Nothing => Key::Nothing,
        };
        Self { src: self.dst, dst: self.src, key, ..self }
    }

    /// The source port, or the identifier.
    pub fn src_port(self) -> u16 {
        match self.key {
            Key::Ports { src, .. } => src,
            Key::Query { id, .. } => id,
            Key::Nothing => 0,
        }
    }

    /// As the shard shows tuples: of a query the destination port is type and code.
    pub fn shown(self) -> weir_wire::Tuple {
        let dst_port = match self.key {
            Key::Ports { dst, .. } => dst,
            Key::Query { kind, .. } => u16::from_be_bytes([kind, 0]),
            Key::Nothing => 0,
        };
        weir_wire::Tuple::new(self.src, self.dst, self.src_port(), dst_port, self.protocol, self.zone)
            .unwrap()
    }

    /// The tuple of this protocol that the shard shows so.
    pub fn read(shown: &weir_wire::Tuple) -> Self {
        let key = match (shown.is_icmp(), shown.has_ports()) {
            (true, _) => Key::Query { id: shown.src_port(), kind: shown.dst_port().to_be_bytes()[0] },
            (_, true) => Key::Ports { src: shown.src_port(), dst: shown.dst_port() },
            _ => Key::Nothing,
        };
        Self { zone: shown.zone(), protocol: shown.protocol(), src: shown.src(), dst: shown.dst(), key }
    }
}

impl fmt::Display for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "zone {} protocol {} {}", self.zone, self.protocol, self.shown())
    }
}

/// Queries that are tracked and their answers: echo, timestamp, information (RFC 792); echo (RFC 4443).
const QUERIES: [(u8, u8); 4] = [(8, 0), (13, 14), (15, 16), (128, 129)];
/// Errors (RFC 792; RFC 4443).
const ERRORS: [u8; 5] = [3, 4, 5, 11, 12];
const ERRORS6: [u8; 4] = [1, 2, 3, 4];

fn answer_of(kind: u8) -> u8 {
    let found = QUERIES.iter().find(|(query, answer)| kind == *query || kind == *answer);
    found.map_or(kind, |(query, answer)| if kind == *query { *answer } else { *query })
}

pub fn is_query(kind: u8) -> bool {
    QUERIES.iter().any(|(query, _)| kind == *query)
}

fn is_query_or_answer(kind: u8, v6: bool) -> bool {
    QUERIES.iter().any(|(query, answer)| (kind == *query || kind == *answer) && v6 == (*query == 128))
}

/// What a packet is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The connection with its own tuple.
    Itself(Tuple),
    /// The connection of a packet that it quotes; the tuple is that of packets that travel the error's way.
    Quoted(Tuple),
    /// It is invalid, but for its flags alone, so that it is known whose translation it has to wear.
    Impossible(Tuple),
    /// Nothing: it is invalid.
    Nothing,
}

/// "What becomes +inv", as far as no connection has to be looked at.
pub fn subject(packet: &Packet, zone: u16) -> Subject {
    let v6 = packet.src.is_ipv6();
    if packet.fault.is_some() {
        // Short or malformed headers, bad checksums, bad lengths and offsets. No fault is drawn for a protocol that
        // has no header to be wrong.
        return Subject::Nothing;
    }
    match &packet.body {
        Body::Error { kind, quoted, room, .. } => {
            let known = if v6 { ERRORS6.contains(kind) } else { ERRORS.contains(kind) };
            let inner = match subject(quoted, zone) {
                // Flags and checksums of a quoted packet are not looked at.
                Subject::Itself(tuple) | Subject::Impossible(tuple) => Some(tuple),
                Subject::Quoted(_) | Subject::Nothing => quoted_regardless(quoted, zone),
            };
            match inner {
                // "whose inner source is not the outer destination"; "at least 8 bytes of inner L4".
                Some(tuple) if known && quoted_length(quoted, *room) >= 8 && tuple.src == packet.dst => {
                    Subject::Quoted(tuple.reversed())
                }
                _ => Subject::Nothing,
            }
        }
        Body::Query { kind, code, id } => {
            if *code != 0 || !is_query_or_answer(*kind, v6) {
                return Subject::Nothing;
            }
            Subject::Itself(tuple(packet, zone, Key::Query { id: *id, kind: *kind }))
        }
        Body::Other { .. } => Subject::Itself(tuple(packet, zone, Key::Nothing)),
        Body::Tcp(Segment { src, dst, .. }) | Body::Udp { src, dst, .. } | Body::Sctp { src, dst, .. } => {
            let tuple = tuple(packet, zone, Key::Ports { src: *src, dst: *dst });
            match &packet.body {
                // "port 0".
                _ if *src == 0 || *dst == 0 => Subject::Nothing,
                // UDP's checksum may be left out over IPv4 only.
                Body::Udp { summed: false, .. } if v6 => Subject::Nothing,
                Body::Tcp(segment) if !is_possible(segment) => Subject::Impossible(tuple),
                _ => Subject::Itself(tuple),
            }
        }
    }
}

/// "TCP SYN with FIN or RST, no flags of SYN/ACK/RST, FIN/PSH/URG without ACK".
fn is_possible(segment: &Segment) -> bool {
    let syn_with = segment.has(SYN) && segment.has_any(FIN | RST);
    let none = !segment.has_any(SYN | ACK | RST);
    let without_ack = segment.has_any(FIN | PSH | URG) && !segment.has(ACK);
    !(syn_with || none || without_ack)
}

/// The tuple of a quoted packet of which nothing but its ports or identifier counts.
fn quoted_regardless(packet: &Packet, zone: u16) -> Option<Tuple> {
    match packet.body {
        Body::Udp { src, dst, .. } if src != 0 && dst != 0 && packet.fault != Some(Fault::Cut) => {
            Some(tuple(packet, zone, Key::Ports { src, dst }))
        }
        _ => None,
    }
}

fn tuple(packet: &Packet, zone: u16, key: Key) -> Tuple {
    Tuple { zone, protocol: protocol_of(packet), src: packet.src, dst: packet.dst, key }
}
