//! The frames of the generator: a template for each length and kind of packet, with two addresses and two ports put in;
//! checksums are the template's, and theirs added.

use weir_wire::checksum;
use weir_wire::numbers::protocol;

use crate::traffic::Flow;

/// Bytes of a template; what is longer goes on with the zeros that the buffer has.
const TEMPLATE: usize = 80;
/// Frames of 64, 594 and 1518 bytes at 7:4:1 (CSIT's IMIX) less four of check sequence, in turn.
pub(crate) const MIX: [u16; 12] = [60, 590, 60, 60, 590, 60, 1514, 60, 590, 60, 590, 60];

/// UDP or TCP.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    clap::ValueEnum,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// UDP to port 53.
    #[default]
    Udp,
    /// TCP to port 80.
    Tcp,
}

/// IPv4 or IPv6.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    clap::ValueEnum,
    serde::Serialize,
    serde::Deserialize,
)]
pub enum Family {
    /// IPv4.
    #[default]
    #[value(name = "4")]
    #[serde(rename = "4")]
    V4,
    /// IPv6, the IPv4 addresses in the last four bytes.
    #[value(name = "6")]
    #[serde(rename = "6")]
    V6,
}

/// How long frames are.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    clap::ValueEnum,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Frames {
    /// 64 bytes with the check sequence; as many more as the headers of IPv6 need.
    #[default]
    Small,
    /// 64, 594 and 1518 bytes at 7:4:1.
    Mix,
}

/// Which packet of a connection it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The first from inside: a SYN with TCP.
    Open,
    /// The first answer: a SYN with ACK.
    Accept,
    /// From inside, all others.
    Forth,
    /// From outside, all others.
    Back,
}

/// What the packets of a generator have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Protocol.
    pub transport: Transport,
    /// IP version.
    pub family: Family,
    /// Lengths.
    pub frames: Frames,
    /// Stage of the connection.
    pub step: Step,
}

/// What differs: the last four bytes of both addresses, and both ports, as they lie in a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ends {
    src: u32,
    dst: u32,
    ports: u32,
}

impl Ends {
    /// Of a flow's packets from inside.
    #[inline]
    #[must_use]
    pub fn of(flow: &Flow, transport: Transport) -> Self {
        let port = if transport == Transport::Tcp { 80 } else { flow.dst.1 };
        Self::new(flow.src.0.octets(), flow.dst.0.octets(), flow.src.1, port)
    }

    /// With these addresses (their last four bytes) and ports.
    #[inline]
    #[must_use]
    pub fn new(src: [u8; 4], dst: [u8; 4], src_port: u16, dst_port: u16) -> Self {
        let [[a, b], [c, d]] = [src_port, dst_port].map(u16::to_be_bytes);
        let [src, dst, ports] = [src, dst, [a, b, c, d]].map(u32::from_ne_bytes);
        Self { src, dst, ports }
    }

    /// Of the answers, where nothing is translated.
    #[inline]
    #[must_use]
    pub fn reversed(self) -> Self {
        Self { src: self.dst, dst: self.src, ports: self.ports.rotate_left(16) }
    }
}

/// A frame of one length, all but its ends, and what its bytes come to in checksums.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    bytes: [u8; TEMPLATE],
    pub(crate) length: usize,
    ip_sum: u64,
    l4_sum: u64,
}

/// Where things are in a frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Places {
    src: usize,
    dst: usize,
    ports: usize,
    ip_checksum: Option<usize>,
    l4_checksum: usize,
}

impl Places {
    pub(crate) const fn of(shape: Shape) -> Self {
        let behind = match shape.transport {
            Transport::Udp => 6,
            Transport::Tcp => 16,
        };
        match shape.family {
            Family::V4 => {
                Self { src: 26, dst: 30, ports: 34, ip_checksum: Some(24), l4_checksum: 34 + behind }
            }
            Family::V6 => Self { src: 34, dst: 50, ports: 54, ip_checksum: None, l4_checksum: 54 + behind },
        }
    }
}

impl Template {
    pub(crate) fn new(shape: Shape, length: u16) -> Self {
        let (network, upper) = match (shape.family, shape.transport) {
            (Family::V4, Transport::Udp) => (20, 8),
            (Family::V4, Transport::Tcp) => (20, 20),
            (Family::V6, Transport::Udp) => (40, 8),
            (Family::V6, Transport::Tcp) => (40, 20),
        };
        let length = length.max(14 + network + upper);
        // A short TCP segment is an acknowledgement alone: the rest of the frame is padding.
        let payload = match shape.transport {
            Transport::Tcp if length <= 60 => 0,
            _ => length - 14 - network - upper,
        };
        let l4_length = upper + payload;
        let number = match shape.transport {
            Transport::Udp => protocol::UDP,
            Transport::Tcp => protocol::TCP,
        };
        let mut bytes = Vec::with_capacity(TEMPLATE);
        bytes.extend([2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1]);
        match shape.family {
            Family::V4 => {
                bytes.extend([8, 0, 0x45, 0]);
                bytes.extend((network + l4_length).to_be_bytes());
                // Do not fragment, 64 hops, checksum and addresses to come.
                bytes.extend([0, 0, 0x40, 0, 64, number, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            }
            Family::V6 => {
                bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                bytes.extend(l4_length.to_be_bytes());
                bytes.extend([number, 64]);
                for _ in 0..2 {
                    // RFC 3849's prefix for documentation.
                    bytes.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
                }
            }
        }
        bytes.extend([0; 4]);
        match shape.transport {
            Transport::Udp => {
                bytes.extend(l4_length.to_be_bytes());
                bytes.extend([0, 0]);
            }
            Transport::Tcp => {
                let (sequence, acknowledged, flags) = match shape.step {
                    Step::Open => (1000_u32, 0_u32, 0x02),
                    Step::Accept => (9000, 1001, 0x12),
                    Step::Forth => (1001, 9001, 0x10),
                    Step::Back => (9001, 1001, 0x10),
                };
                bytes.extend(sequence.to_be_bytes());
                bytes.extend(acknowledged.to_be_bytes());
                bytes.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
            }
        }
        let l4 = bytes.get(usize::from(14 + network)..).unwrap_or_default();
        // Both addresses are in the pseudo header (RFC 768, RFC 8200 section 8.1), and are added to it later.
        let pseudo = match shape.family {
            Family::V4 => checksum::pseudo_v4([0; 4], [0; 4], number, l4_length),
            Family::V6 => {
                let mut prefix = [0; 16];
                prefix.copy_from_slice(bytes.get(22..38).unwrap_or(&[0; 16]));
                checksum::pseudo_v6(&prefix, &prefix, number, u32::from(l4_length))
            }
        };
        let l4_sum = pseudo + checksum::sum(l4);
        let ip_sum = checksum::sum(bytes.get(14..34).unwrap_or_default());
        bytes.resize(TEMPLATE, 0);
        let bytes = bytes.try_into().unwrap_or([0; TEMPLATE]);
        Self { bytes, length: usize::from(length), ip_sum, l4_sum }
    }

    /// Makes `frame`, which is as long as this, a packet.
    #[inline]
    pub(crate) fn write(&self, places: &Places, ends: Ends, frame: &mut [u8]) {
        let Ends { src, dst, ports } = ends;
        // A whole template where there is room is one copy of fixed length.
        if let Some(start) = frame.first_chunk_mut() {
            *start = self.bytes;
        } else {
            let length = frame.len();
            frame.copy_from_slice(&self.bytes[..length]);
        }
        put(frame, places.src, src.to_ne_bytes());
        put(frame, places.dst, dst.to_ne_bytes());
        put(frame, places.ports, ports.to_ne_bytes());
        let addresses = u64::from(src) + u64::from(dst);
        if let Some(at) = places.ip_checksum {
            put(frame, at, checksum::finish(self.ip_sum + addresses));
        }
        let l4 = checksum::finish(self.l4_sum + addresses + u64::from(ports));
        // With UDP 0 means "none" (RFC 768); a TCP checksum may be either zero.
        put(frame, places.l4_checksum, if l4 == [0, 0] { [0xff, 0xff] } else { l4 });
    }
}

#[inline]
fn put<const N: usize>(frame: &mut [u8], at: usize, value: [u8; N]) {
    if let Some(to) = frame.get_mut(at..at + N) {
        to.copy_from_slice(&value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_wire::extract::{ChecksumTrust, Extracted};
    use weir_wire::{Layers, Tuple};

    fn shapes() -> Vec<Shape> {
        let mut shapes = Vec::new();
        for transport in [Transport::Udp, Transport::Tcp] {
            for family in [Family::V4, Family::V6] {
                for frames in [Frames::Small, Frames::Mix] {
                    for step in [Step::Open, Step::Accept, Step::Forth, Step::Back] {
                        shapes.push(Shape { transport, family, frames, step });
                    }
                }
            }
        }
        shapes
    }

    #[test]
    fn every_packet_is_whole_and_says_what_its_ends_say() {
        for shape in shapes() {
            let places = Places::of(shape);
            for template in MIX.map(|length| Template::new(shape, length)) {
                for number in [0, 1, 4711, 5_000_000] {
                    let flow = Flow::numbered(number);
                    let mut frame = vec![0; template.length];
                    template.write(&places, Ends::of(&flow, shape.transport), &mut frame);
                    let layers = Layers::parse(&frame);
                    let v4 = shape.family == Family::V4;
                    assert!(!v4 || checksum::ipv4_header_is_valid(&frame, &layers), "{shape:?}");
                    assert!(checksum::l4_is_valid(&frame, &layers), "{shape:?} {frame:02x?}");
                    let extracted = Tuple::extract(&frame, &layers, 0, ChecksumTrust::NONE);
                    let Ok(Extracted::Packet(tuple)) = extracted else { panic!("{shape:?}: {extracted:?}") };
                    assert_eq!(tuple.src_port(), flow.src.1);
                    match (shape.family, tuple.src()) {
                        (Family::V4, src) => assert_eq!(src, flow.src.0),
                        (Family::V6, std::net::IpAddr::V6(src)) => {
                            assert_eq!(src.octets()[12..], flow.src.0.octets());
                        }
                        _ => panic!("{tuple:?}"),
                    }
                }
            }
        }
    }

    #[test]
    fn the_mix_is_seven_to_four_to_one() {
        let count = |length| MIX.iter().filter(|&&other| other == length).count();
        assert_eq!([60, 590, 1514].map(count), [7, 4, 1]);
    }

    #[test]
    fn answers_are_the_flows_the_other_way_round() {
        let flow = Flow::numbered(12_345);
        let ends = Ends::of(&flow, Transport::Udp);
        let back = Ends::new(flow.dst.0.octets(), flow.src.0.octets(), flow.dst.1, flow.src.1);
        assert_eq!(ends.reversed(), back);
        assert_eq!(back.reversed(), ends);
    }
}
