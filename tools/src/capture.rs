//! Captures as the demonstration and its example need them: written, read and shown. The program has a reader
//! of its own in `weir-wire`; this one judges what that one wrote.

use crate::packet::{ETHERNET, Endpoint, Places, protocol};

/// Magic number of a capture with microseconds, and its version.
const MAGIC: u32 = 0xa1b2_c3d4;
const MAGIC_NANOSECONDS: u32 = 0xa1b2_3c4d;
const ETHERNET_LINK: u32 = 1;

/// A little-endian capture of the frames, a millisecond apart from the epoch on.
pub fn write(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(MAGIC.to_le_bytes());
    bytes.extend([2, 0, 4, 0]);
    for word in [0, 0, 65535, ETHERNET_LINK] {
        bytes.extend(word.to_le_bytes());
    }
    for (number, frame) in (0_u32..).zip(frames) {
        let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        for word in [number / 1000, number % 1000 * 1000, length, length] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(frame);
    }
    bytes
}

/// The frames of a capture in either byte order; None if it is none or ends early.
pub fn frames(bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    let word = |at: usize| -> Option<[u8; 4]> { bytes.get(at..at + 4)?.try_into().ok() };
    let known = |magic| magic == MAGIC || magic == MAGIC_NANOSECONDS;
    let little = known(u32::from_le_bytes(word(0)?));
    if !little && !known(u32::from_be_bytes(word(0)?)) {
        return None;
    }
    let number =
        |at| word(at).map(|raw| if little { u32::from_le_bytes(raw) } else { u32::from_be_bytes(raw) });
    let (mut at, mut found) = (24, Vec::new());
    while at < bytes.len() {
        let length = usize::try_from(number(at + 8)?).ok()?;
        found.push(bytes.get(at + 16..at + 16 + length)?.to_vec());
        at += 16 + length;
    }
    Some(found)
}

/// A frame in one line: `tcp 192.168.0.2:4000 > 198.51.100.2:80, 60 bytes`.
pub fn describe(frame: &[u8]) -> String {
    let shown = |end: Option<Endpoint>| match end {
        Some(Endpoint { address, port: 0 }) => address.to_string(),
        Some(Endpoint { address, port }) => format!("{address}:{port}"),
        None => "?".into(),
    };
    let Some(places) = Places::find(frame, ETHERNET) else { return format!("{} bytes, no IP", frame.len()) };
    let name = match places.protocol {
        protocol::TCP => "tcp".into(),
        protocol::UDP => "udp".into(),
        protocol::ICMP | protocol::ICMPV6 => "icmp".into(),
        other => format!("protocol {other}"),
    };
    let (src, dst) = (shown(places.src(frame)), shown(places.dst(frame)));
    format!("{name:<5} {src:>22} > {dst:<22} {:>5} bytes", frame.len())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::script::Script;

    /// The scripts that the captures in examples/ are made of.
    const SCRIPTS: [(&str, &str); 2] = [
        ("inside", include_str!("../../examples/inside.pkt")),
        ("outside", include_str!("../../examples/outside.pkt")),
    ];

    fn example(text: &str) -> Vec<u8> {
        let script = Script::parse("example", text).unwrap();
        let frames: Vec<_> = script
            .steps
            .iter()
            .filter_map(|placed| match &placed.step {
                crate::script::Step::Packet(line) => Some(
                    line.packet(false, |_, inside, _| inside).frame([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]),
                ),
                _ => None,
            })
            .collect();
        write(&frames)
    }

    #[test]
    fn what_is_written_reads_back() {
        let frames_in = vec![vec![1; 60], vec![2; 1500]];
        assert_eq!(frames(&write(&frames_in)), Some(frames_in));
        assert_eq!(frames(b"no capture at all"), None);
        let whole = write(&[vec![1; 60]]);
        assert_eq!(frames(&whole[..whole.len() - 1]), None);
    }

    /// To make them anew after a change of a script: `WEIR_BLESS=1 cargo test -p weir-tools example`.
    #[test]
    fn the_example_captures_are_what_their_scripts_say() {
        for (name, text) in SCRIPTS {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../examples/{name}.pcap"));
            if std::env::var_os("WEIR_BLESS").is_some() {
                std::fs::write(&path, example(text)).unwrap();
            }
            assert!(std::fs::read(path).unwrap() == example(text), "see the comment on this test");
        }
    }
}
