//! Several captures as one sequence of packets in the order of their timestamps. Packets of equal time come in
//! the order of the ports on the command line; one capture's packets never change their order.

use std::fs::File;
use std::path::PathBuf;

use weir_wire::pcap::{CaptureError, CaptureReader, Captured, Precision};

use super::ReplayError;
use crate::flow::port::PortNumber;

struct Source {
    port: PortNumber,
    path: PathBuf,
    reader: CaptureReader<File>,
    head: Option<Captured>,
}

/// The merged captures.
pub struct Merge {
    sources: Vec<Source>,
    /// Where a capture broke, told once the packet in front of it is out.
    broken: Option<ReplayError>,
}

impl Source {
    fn advance(&mut self) -> Result<(), ReplayError> {
        let mut next = Captured::default();
        let more = self
            .reader
            .read_into(&mut next)
            .map_err(|source| ReplayError::Read { path: self.path.clone(), source })?;
        self.head = more.then_some(next);
        Ok(())
    }
}

impl Merge {
    /// Opens the captures of the ports that have one.
    ///
    /// # Errors
    /// When one cannot be opened or its first packet not be read.
    pub fn open(ports: &[(PortNumber, Option<PathBuf>)]) -> Result<Self, ReplayError> {
        let mut sources = Vec::new();
        for (port, path) in ports {
            let Some(path) = path else { continue };
            let failed = |source| ReplayError::Read { path: path.clone(), source };
            let file = File::open(path).map_err(|source| failed(CaptureError::Io { offset: 0, source }))?;
            let reader = CaptureReader::new(file).map_err(failed)?;
            let mut source = Source { port: *port, path: path.clone(), reader, head: None };
            source.advance()?;
            sources.push(source);
        }
        Ok(Self { sources, broken: None })
    }

    /// The next packet and the port it came in by.
    ///
    /// # Errors
    /// When a capture is broken at this point.
    #[expect(clippy::should_implement_trait, reason = "it can fail")]
    pub fn next(&mut self) -> Result<Option<(PortNumber, Captured)>, ReplayError> {
        if let Some(error) = self.broken.take() {
            return Err(error);
        }
        // A handful of ports: a scan beats a heap. min_by_key gives the first of equals.
        let earliest = self
            .sources
            .iter_mut()
            .filter(|source| source.head.is_some())
            .min_by_key(|source| source.head.as_ref().map_or(u64::MAX, |packet| packet.time_ns));
        let Some(source) = earliest else { return Ok(None) };
        let packet = source.head.take().map(|packet| (source.port, packet));
        self.broken = source.advance().err();
        Ok(packet)
    }

    /// The finest precision of the captures.
    #[must_use]
    pub fn precision(&self) -> Precision {
        let is_nano = |source: &Source| source.reader.precision() == Precision::Nano;
        if self.sources.iter().any(is_nano) { Precision::Nano } else { Precision::Micro }
    }

    /// Bytes of the captures read so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.sources.iter().map(|source| source.reader.offset()).sum()
    }
}
