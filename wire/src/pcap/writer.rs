//! Writes classic pcap, little-endian, Ethernet.

use std::io::{BufWriter, Write};

use super::{CaptureError, ETHERNET, MAX_CAPTURED, Precision};

/// Writes packets to a classic pcap file. Ask for [`Precision::Nano`] only when the input had it: some tools
/// do not know that variant.
#[derive(Debug)]
pub struct CaptureWriter<W: Write> {
    output: BufWriter<W>,
    precision: Precision,
    offset: u64,
    packets: u64,
}

impl<W: Write> CaptureWriter<W> {
    /// Writes the file header. `output` need not be buffered.
    ///
    /// # Errors
    /// Only the output's own.
    pub fn new(output: W, precision: Precision) -> Result<Self, CaptureError> {
        let magic: u32 = match precision {
            Precision::Micro => 0xa1b2_c3d4,
            Precision::Nano => 0xa1b2_3c4d,
        };
        let mut header = Vec::with_capacity(24);
        header.extend_from_slice(&magic.to_le_bytes());
        header.extend_from_slice(&2u16.to_le_bytes());
        header.extend_from_slice(&4u16.to_le_bytes());
        header.extend_from_slice(&[0; 8]);
        header.extend_from_slice(&MAX_CAPTURED.to_le_bytes());
        header.extend_from_slice(&u32::from(ETHERNET).to_le_bytes());
        let mut writer = Self { output: BufWriter::new(output), precision, offset: 0, packets: 0 };
        writer.put(&header)?;
        Ok(writer)
    }

    /// Appends a frame; `time_ns` is nanoseconds since 1970, cut to the file's precision.
    ///
    /// # Errors
    /// A time beyond 2106, a frame longer than [`MAX_CAPTURED`] (nothing is written then), or the output's own.
    pub fn write(&mut self, time_ns: u64, frame: &[u8]) -> Result<(), CaptureError> {
        let seconds = u32::try_from(time_ns / 1_000_000_000).map_err(|_| CaptureError::Time { time_ns })?;
        let nanoseconds = time_ns % 1_000_000_000;
        let fraction = match self.precision {
            Precision::Micro => nanoseconds / 1000,
            Precision::Nano => nanoseconds,
        };
        // Below 10^9, so this cannot fail.
        let fraction = u32::try_from(fraction).unwrap_or(0);
        let len = u32::try_from(frame.len()).ok().filter(|len| *len <= MAX_CAPTURED);
        let len = len.ok_or(CaptureError::Oversized {
            packet: self.packets + 1,
            offset: self.offset,
            len: frame.len() as u64,
        })?;
        let mut header = [0u8; 16];
        for (field, value) in header.as_chunks_mut::<4>().0.iter_mut().zip([seconds, fraction, len, len]) {
            *field = value.to_le_bytes();
        }
        self.put(&header)?;
        self.put(frame)?;
        self.packets += 1;
        Ok(())
    }

    /// Packets written so far.
    pub const fn packets(&self) -> u64 {
        self.packets
    }

    /// Writes out what is buffered and gives the output back. Without it errors at the end go unseen.
    ///
    /// # Errors
    /// The output's own.
    pub fn finish(self) -> Result<W, CaptureError> {
        let offset = self.offset;
        self.output.into_inner().map_err(|error| CaptureError::Io { offset, source: error.into_error() })
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), CaptureError> {
        self.output.write_all(bytes).map_err(|source| CaptureError::Io { offset: self.offset, source })?;
        self.offset += bytes.len() as u64;
        Ok(())
    }
}
