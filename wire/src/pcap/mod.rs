//! Capture files: reads classic pcap (microseconds and nanoseconds, both byte orders) and pcapng as a stream,
//! writes classic pcap. A capture is hostile input: lengths are bounded before anything is allocated,
//! and every error names the packet and the file offset it was found at. Compressed captures are not read.
//!
//! Formats: draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng.

mod classic;
mod ng;
mod reader;
mod writer;

#[cfg(test)]
mod tests;

pub use reader::CaptureReader;
pub use writer::CaptureWriter;

/// Longest packet that is read or written, in bytes; what tcpdump uses as the largest snapshot length.
pub const MAX_CAPTURED: u32 = 262_144;

/// Link type of Ethernet frames in both formats.
const ETHERNET: u16 = 1;

/// A captured frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captured {
    /// Nanoseconds since 1970-01-01 00:00 UTC.
    pub time_ns: u64,
    /// Length on the wire in bytes; more than `data` holds if the capture cut the frame.
    pub original_len: u32,
    /// The frame, from its Ethernet header on.
    pub data: Vec<u8>,
}

/// The unit of a file's timestamps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// Microseconds or coarser, what nearly every tool expects.
    #[default]
    Micro,
    /// Finer than microseconds; written as nanoseconds.
    Nano,
}

/// Why a capture cannot be read or written. `offset` counts bytes from the start of the file, `packet` packets
/// from 1.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The system refused to read or write.
    #[error("at byte {offset} of the capture: {source}")]
    Io {
        /// Where.
        offset: u64,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Unknown magic number.
    #[error("not a capture: it starts with {magic:02x?}; pcap and pcapng are read, uncompressed")]
    NotACapture {
        /// The first bytes of the file.
        magic: Vec<u8>,
    },
    /// Frames of another link type.
    #[error("at byte {offset}: link type {link_type} is not Ethernet (1); capture on an Ethernet device")]
    LinkType {
        /// What the file says.
        link_type: u16,
        /// Where the packet or header is.
        offset: u64,
    },
    /// The file ends inside a packet or block.
    #[error(
        "the capture ends inside packet {packet}, which starts at byte {offset}; cut it off there to use the rest"
    )]
    Truncated {
        /// Number of the packet that would have been next.
        packet: u64,
        /// Where its record starts.
        offset: u64,
    },
    /// A packet longer than [`MAX_CAPTURED`].
    #[error("packet {packet} at byte {offset} claims {len} bytes; at most {MAX_CAPTURED} are possible")]
    Oversized {
        /// Number of the packet.
        packet: u64,
        /// Where its record starts.
        offset: u64,
        /// What it claims.
        len: u64,
    },
    /// A block or record that contradicts itself.
    #[error("at byte {offset}, before the end of packet {packet}: {what}")]
    Malformed {
        /// Number of the packet that would have been next.
        packet: u64,
        /// Where the block starts.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// A time after 2106-02-07, which classic pcap cannot express.
    #[error("{time_ns} ns since 1970 is beyond what pcap can express (the year 2106)")]
    Time {
        /// The time that was to be written.
        time_ns: u64,
    },
}
