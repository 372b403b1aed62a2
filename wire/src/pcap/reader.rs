//! Finds out which format a capture has, and reads on.

use std::io::{BufReader, ErrorKind, Read};

use super::classic::Classic;
use super::ng::Ng;
use super::{CaptureError, Captured, MAX_CAPTURED, Precision};

/// Reads the packets of a capture in file order. Memory is bounded by one packet and, in pcapng, by the number
/// of interfaces (which is bounded too).
#[derive(Debug)]
pub struct CaptureReader<R> {
    source: Source<R>,
    format: Format,
    failed: bool,
}

#[derive(Debug)]
enum Format {
    Classic(Classic),
    Ng(Ng),
}

impl<R: Read> CaptureReader<R> {
    /// Reads the file header. `input` need not be buffered.
    ///
    /// # Errors
    /// Not a capture, a link type other than Ethernet, or the input's own.
    pub fn new(input: R) -> Result<Self, CaptureError> {
        let mut source =
            Source { input: BufReader::with_capacity(1 << 16, input), offset: 0, start: 0, packets: 0 };
        let mut magic = Vec::new();
        source.up_to(4, &mut magic)?;
        let format = if let Some(classic) = Classic::new(&magic, &mut source)? {
            Format::Classic(classic)
        } else if let Some(ng) = Ng::new(&magic, &mut source)? {
            Format::Ng(ng)
        } else {
            return Err(CaptureError::NotACapture { magic });
        };
        Ok(Self { source, format, failed: false })
    }

    /// The next packet into `packet`, whose memory is used again. `false` at the end of the file.
    ///
    /// # Errors
    /// See [`CaptureError`]. After an error the reader is at its end.
    pub fn read_into(&mut self, packet: &mut Captured) -> Result<bool, CaptureError> {
        if self.failed {
            return Ok(false);
        }
        let read = match &mut self.format {
            Format::Classic(classic) => classic.read_into(&mut self.source, packet),
            Format::Ng(ng) => ng.read_into(&mut self.source, packet),
        };
        match read {
            Ok(true) => self.source.packets += 1,
            Ok(false) => {}
            Err(_) => self.failed = true,
        }
        read
    }

    /// Bytes of the file consumed so far, for progress displays.
    pub const fn offset(&self) -> u64 {
        self.source.offset
    }

    /// Packets read so far.
    pub const fn packets(&self) -> u64 {
        self.source.packets
    }

    /// The unit of the timestamps; for pcapng the finest of the interfaces seen so far.
    pub const fn precision(&self) -> Precision {
        match &self.format {
            Format::Classic(classic) => classic.precision,
            Format::Ng(ng) => ng.precision,
        }
    }
}

/// Packets one by one, each in memory of its own; ends after the first error.
impl<R: Read> Iterator for CaptureReader<R> {
    type Item = Result<Captured, CaptureError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut packet = Captured::default();
        match self.read_into(&mut packet) {
            Ok(true) => Some(Ok(packet)),
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        }
    }
}

/// The input with what error messages need: where we are, where the current record began, packets so far.
#[derive(Debug)]
pub(super) struct Source<R> {
    input: BufReader<R>,
    offset: u64,
    start: u64,
    packets: u64,
}

impl<R: Read> Source<R> {
    /// A record or block begins here.
    pub(super) const fn begin(&mut self) {
        self.start = self.offset;
    }

    /// Reads as much of `len` bytes as there is.
    pub(super) fn up_to(&mut self, len: u32, into: &mut Vec<u8>) -> Result<(), CaptureError> {
        into.clear();
        let read = self.input.by_ref().take(u64::from(len)).read_to_end(into);
        self.offset += into.len() as u64;
        read.map(drop).map_err(|source| CaptureError::Io { offset: self.offset, source })
    }

    /// Reads `len` bytes; the caller has bounded `len`.
    pub(super) fn exactly(&mut self, len: u32, into: &mut Vec<u8>) -> Result<(), CaptureError> {
        self.up_to(len, into)?;
        if into.len() < len as usize { Err(self.truncated()) } else { Ok(()) }
    }

    /// Reads a fixed number of bytes, or `None` if the input ends right here.
    pub(super) fn array_or_end<const N: usize>(&mut self) -> Result<Option<[u8; N]>, CaptureError> {
        let mut array = [0; N];
        let mut have = 0;
        while let Some(room) = array.get_mut(have..).filter(|room| !room.is_empty()) {
            match self.input.read(room) {
                Ok(0) if have == 0 => return Ok(None),
                Ok(0) => return Err(self.truncated()),
                Ok(read) => {
                    have += read;
                    self.offset += read as u64;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(source) => return Err(CaptureError::Io { offset: self.offset, source }),
            }
        }
        Ok(Some(array))
    }

    /// Reads a fixed number of bytes.
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], CaptureError> {
        self.array_or_end()?.ok_or_else(|| self.truncated())
    }

    /// Passes over `len` bytes without keeping them.
    pub(super) fn skip(&mut self, len: u64) -> Result<(), CaptureError> {
        let skipped = std::io::copy(&mut self.input.by_ref().take(len), &mut std::io::sink())
            .map_err(|source| CaptureError::Io { offset: self.offset, source })?;
        self.offset += skipped;
        if skipped < len { Err(self.truncated()) } else { Ok(()) }
    }

    /// Refuses a packet that cannot be.
    pub(super) fn check_len(&self, len: u32) -> Result<(), CaptureError> {
        if len > MAX_CAPTURED {
            return Err(CaptureError::Oversized {
                packet: self.packets + 1,
                offset: self.start,
                len: u64::from(len),
            });
        }
        Ok(())
    }

    pub(super) const fn truncated(&self) -> CaptureError {
        CaptureError::Truncated { packet: self.packets + 1, offset: self.start }
    }

    pub(super) const fn malformed(&self, what: &'static str) -> CaptureError {
        CaptureError::Malformed { packet: self.packets + 1, offset: self.start, what }
    }

    pub(super) const fn link_type(&self, link_type: u16) -> CaptureError {
        CaptureError::LinkType { link_type, offset: self.start }
    }
}

/// The byte order of a file or section.
#[derive(Clone, Copy, Debug)]
pub(super) enum Endian {
    Big,
    Little,
}

impl Endian {
    pub(super) const fn u16(self, bytes: [u8; 2]) -> u16 {
        match self {
            Self::Big => u16::from_be_bytes(bytes),
            Self::Little => u16::from_le_bytes(bytes),
        }
    }

    pub(super) const fn u32(self, bytes: [u8; 4]) -> u32 {
        match self {
            Self::Big => u32::from_be_bytes(bytes),
            Self::Little => u32::from_le_bytes(bytes),
        }
    }
}
