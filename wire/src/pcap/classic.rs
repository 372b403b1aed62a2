//! Classic pcap (draft-ietf-opsawg-pcap).

use std::io::Read;

use super::reader::{Endian, Source};
use super::{CaptureError, Captured, ETHERNET, Precision};

#[derive(Debug)]
pub(super) struct Classic {
    endian: Endian,
    pub(super) precision: Precision,
}

impl Classic {
    /// Reads the file header behind the magic number; `None` if that is another format's.
    pub(super) fn new<R: Read>(magic: &[u8], source: &mut Source<R>) -> Result<Option<Self>, CaptureError> {
        let (endian, precision) = match magic {
            [0xa1, 0xb2, 0xc3, 0xd4] => (Endian::Big, Precision::Micro),
            [0xd4, 0xc3, 0xb2, 0xa1] => (Endian::Little, Precision::Micro),
            [0xa1, 0xb2, 0x3c, 0x4d] => (Endian::Big, Precision::Nano),
            [0x4d, 0x3c, 0xb2, 0xa1] => (Endian::Little, Precision::Nano),
            _ => return Ok(None),
        };
        // Version, time zone, accuracy and snapshot length say nothing that matters here.
        let [.., l0, l1, l2, l3] = source.array::<20>()?;
        // The upper 16 bits tell of a frame check sequence.
        let [.., high, low] = endian.u32([l0, l1, l2, l3]).to_be_bytes();
        match u16::from_be_bytes([high, low]) {
            ETHERNET => Ok(Some(Self { endian, precision })),
            other => Err(source.link_type(other)),
        }
    }

    pub(super) fn read_into<R: Read>(
        &self,
        source: &mut Source<R>,
        packet: &mut Captured,
    ) -> Result<bool, CaptureError> {
        source.begin();
        let Some(header) = source.array_or_end::<16>()? else { return Ok(false) };
        let [s0, s1, s2, s3, f0, f1, f2, f3, c0, c1, c2, c3, o0, o1, o2, o3] = header;
        let fraction = u64::from(self.endian.u32([f0, f1, f2, f3]));
        let nanoseconds = match self.precision {
            Precision::Micro => fraction * 1000,
            Precision::Nano => fraction,
        };
        // 2^32 seconds are 4.3e18 ns: no overflow, even with an absurd fraction.
        packet.time_ns = u64::from(self.endian.u32([s0, s1, s2, s3])) * 1_000_000_000 + nanoseconds;
        packet.original_len = self.endian.u32([o0, o1, o2, o3]);
        let captured_len = self.endian.u32([c0, c1, c2, c3]);
        source.check_len(captured_len)?;
        source.exactly(captured_len, &mut packet.data)?;
        Ok(true)
    }
}
