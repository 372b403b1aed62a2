//! The packets of the bench: 64-byte UDP frames (60 without the frame check sequence) with valid checksums, one for
//! each of many flows from inside (10/8) to outside (198.18/15), or one each way for connections that a table dump
//! names. Orders are shuffled, so that neither caches nor prefetchers see a pattern, and the same in every run.

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::Path;

use weir_wire::Layers;
use weir_wire::checksum;
use weir_wire::pcap::{CaptureWriter, Precision};

use crate::BenchError;

/// Bytes of a frame without the frame check sequence.
pub const FRAME: usize = 60;

/// Most flows in a capture: a port of OVS has 262144 packet buffers, and both directions have to fit.
pub const MAX_FLOWS: u32 = 100_000;

/// One direction of a UDP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Source address and port.
    pub src: (Ipv4Addr, u16),
    /// Destination address and port.
    pub dst: (Ipv4Addr, u16),
}

impl Flow {
    /// The flow number `i`; distinct for all numbers below 2^26: where the address is the same, the number
    /// differs by a multiple of 2^22, and so the port does.
    #[inline]
    #[must_use]
    pub fn numbered(i: u32) -> Self {
        let low = |value: u32| value.to_le_bytes()[0];
        let src = Ipv4Addr::new(10, low(i >> 14), low(i >> 6), low(i & 0x3f) + 1);
        let dst =
            Ipv4Addr::new(198, 18 + low(i & 1), low(i.wrapping_mul(7)), low(i.wrapping_mul(13) % 250) + 1);
        let src_port = u16::try_from(1024 + i.wrapping_mul(31) % 60_000).unwrap_or(1024);
        Self { src: (src, src_port), dst: (dst, 53) }
    }

    /// Its frame.
    #[must_use]
    pub fn frame(&self) -> [u8; FRAME] {
        let mut frame = [0; FRAME];
        let header = [
            [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0].as_slice(),
            // IPv4, total length 46, do not fragment, 64 hops, UDP, checksum to come.
            &[0x45, 0, 0, 46, 0, 0, 0x40, 0, 64, 17, 0, 0],
            &self.src.0.octets(),
            &self.dst.0.octets(),
            &self.src.1.to_be_bytes(),
            &self.dst.1.to_be_bytes(),
            &[0, 26],
        ];
        for (to, from) in frame.iter_mut().zip(header.concat()) {
            *to = from;
        }
        let layers = Layers::parse(&frame);
        checksum::fill(&mut frame, &layers);
        frame
    }
}

/// Both directions of the connections in a table dump, each as its packets arrive: the original direction at the
/// inside, the reply direction at the outside. Lines of other protocols are passed over.
#[must_use]
pub fn connections(dump: &str) -> Vec<(Flow, Flow)> {
    dump.lines().filter_map(connection).collect()
}

/// `udp,orig=(src=..,dst=..,sport=..,dport=..),reply=(...)`
fn connection(line: &str) -> Option<(Flow, Flow)> {
    let rest = line.trim_start().strip_prefix("udp,orig=(")?;
    let (original, rest) = rest.split_once("),reply=(")?;
    let (reply, _) = rest.split_once(')')?;
    Some((flow(original)?, flow(reply)?))
}

fn flow(text: &str) -> Option<Flow> {
    let mut parts = text.split(',');
    let mut next = |key: &str| parts.next()?.strip_prefix(key)?.strip_prefix('=');
    let (src, dst) = (next("src")?.parse().ok()?, next("dst")?.parse().ok()?);
    Some(Flow { src: (src, next("sport")?.parse().ok()?), dst: (dst, next("dport")?.parse().ok()?) })
}

/// Writes one frame for each flow, shuffled.
///
/// # Errors
/// When the file cannot be written.
pub fn write(path: &Path, mut flows: Vec<Flow>, seed: u64) -> Result<(), BenchError> {
    shuffle(&mut flows, seed);
    let file = File::create(path).map_err(BenchError::at(path))?;
    let mut capture = CaptureWriter::new(file, Precision::Micro)?;
    for flow in flows {
        capture.write(0, &flow.frame())?;
    }
    capture.finish()?;
    Ok(())
}

/// Fisher and Yates's shuffle with Steele, Lea and Flood's SplitMix64.
pub(crate) fn shuffle<T>(items: &mut [T], seed: u64) {
    let mut state = seed;
    for end in (1..items.len()).rev() {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        let bound = u64::try_from(end).unwrap_or(u64::MAX - 1) + 1;
        items.swap(end, usize::try_from(z % bound).unwrap_or(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use weir_wire::Tuple;
    use weir_wire::extract::{ChecksumTrust, Extracted};

    #[test]
    fn flows_are_distinct_and_their_frames_valid() {
        let flows: HashSet<Flow> = (0..MAX_FLOWS).map(Flow::numbered).collect();
        assert_eq!(flows.len(), MAX_FLOWS as usize);
        for number in [0, 1, 77_777, (1 << 22) - 1] {
            let ports: HashSet<u16> = (0..16).map(|lap| Flow::numbered(number + (lap << 22)).src.1).collect();
            assert_eq!(ports.len(), 16, "{number}");
        }
        for flow in flows.iter().take(1000) {
            let frame = flow.frame();
            let layers = Layers::parse(&frame);
            let extracted = Tuple::extract(&frame, &layers, 0, ChecksumTrust::NONE);
            let Ok(Extracted::Packet(tuple)) = extracted else { panic!("{flow:?}: {extracted:?}") };
            assert_eq!((tuple.src(), tuple.src_port()), (flow.src.0.into(), flow.src.1));
            assert_eq!((tuple.dst(), tuple.dst_port()), (flow.dst.0.into(), flow.dst.1));
            assert!(checksum::ipv4_header_is_valid(&frame, &layers));
        }
    }

    #[test]
    fn connections_are_read_from_a_dump() {
        let dump = "udp,orig=(src=10.0.0.1,dst=198.18.0.1,sport=1024,dport=53),reply=(src=198.18.0.1,dst=100.64.0.9,\
                    sport=53,dport=5001)\n\
                    tcp,orig=(src=10.0.0.1,dst=198.18.0.1,sport=1,dport=2),reply=(src=198.18.0.1,dst=10.0.0.1,sport=2,\
                    dport=1),protoinfo=(state=SYN_SENT)\n\
                    udp,orig=(src=10.0.0.1,dst=no\n\n";
        let address = |text: &str| text.parse::<Ipv4Addr>().unwrap_or(Ipv4Addr::UNSPECIFIED);
        let original = Flow { src: (address("10.0.0.1"), 1024), dst: (address("198.18.0.1"), 53) };
        let reply = Flow { src: (address("198.18.0.1"), 53), dst: (address("100.64.0.9"), 5001) };
        assert_eq!(connections(dump), [(original, reply)]);
    }

    #[test]
    fn a_shuffle_loses_nothing_and_is_the_same_again() {
        let shuffled = |seed| {
            let mut items: Vec<u32> = (0..1000).collect();
            shuffle(&mut items, seed);
            items
        };
        let mut sorted = shuffled(1);
        assert_eq!(sorted, shuffled(1));
        assert_ne!(sorted, shuffled(2));
        sorted.sort_unstable();
        assert_eq!(sorted, (0..1000).collect::<Vec<_>>());
    }
}
