//! `weir replay`: captures in, captures out, no DPDK and no privileges. Time is the captures' own; the ports'
//! captures are merged by timestamp. The same flows, captures and seed always give the same result.

mod merge;
mod report;
mod virtual_switch;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use weir_shard::ShardConfig;
use weir_wire::pcap::{CaptureError, CaptureWriter, Precision};

pub use merge::Merge;
pub use report::{PortReport, Report};
pub use virtual_switch::{BRIDGE, VirtualSwitch, VirtualSwitchError};

use crate::flow::file::{FileError, FlowFile};
use crate::flow::flow::Command;
use crate::flow::port::{NoNames, PortNumber};

/// What to replay.
#[derive(Clone, Debug)]
pub struct Options {
    /// Flow file, as `ovs-ofctl add-flows` takes it.
    pub flows: PathBuf,
    /// Ports with their captures; a port without one only sends.
    pub ports: Vec<(PortNumber, Option<PathBuf>)>,
    /// Folder for what each port sent, as `PORT.pcap`; made when missing.
    pub out: PathBuf,
    /// The shard's size and limits.
    pub shard: ShardConfig,
    /// Decides everything that is drawn at random.
    pub seed: u64,
}

/// Why a replay ended early.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The flow file cannot be read.
    #[error("cannot read {path}: {source}", path = .path.display())]
    Flows {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The flow file has an error.
    #[error(transparent)]
    Syntax(#[from] FileError),
    /// A port is named twice, or has a wrong number.
    #[error(transparent)]
    Switch(#[from] VirtualSwitchError),
    /// A capture cannot be read.
    #[error("{path}: {source}", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and where.
        source: CaptureError,
    },
    /// A result cannot be written.
    #[error("cannot write {path}: {source}", path = .path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// The reason.
        source: CaptureError,
    },
    /// No port was given.
    #[error("no ports; give at least one as --port NUMBER=CAPTURE")]
    NoPorts,
}

const NANOSECONDS: u64 = 1_000_000;

/// Replays everything; `progress` is told the bytes of input worked off so far, now and then.
///
/// # Errors
/// When an input cannot be read or the output cannot be written. What was written until then stays.
pub fn run(options: &Options, progress: &mut dyn FnMut(u64)) -> Result<Report, ReplayError> {
    if options.ports.is_empty() {
        return Err(ReplayError::NoPorts);
    }
    let text = std::fs::read(&options.flows)
        .map_err(|source| ReplayError::Flows { path: options.flows.clone(), source })?;
    let name = options.flows.display().to_string();
    let flows = FlowFile::parse(&name, &text, Command::Add, &NoNames)?.flows;
    let numbers: Vec<PortNumber> = options.ports.iter().map(|(number, _)| *number).collect();
    let mut switch = VirtualSwitch::new(&numbers, &flows, options.shard.clone(), secret(options.seed))?;
    let mut merge = Merge::open(&options.ports)?;
    let mut writers = Writers::create(&options.out, &numbers)?;
    let mut start = None;
    let mut last = 0;
    let mut packets = 0u64;
    while let Some((port, captured)) = merge.next()? {
        let start = *start.get_or_insert(captured.time_ns);
        // Captures may step back in time; the tracker's clock does not.
        let now = captured.time_ns.saturating_sub(start) / NANOSECONDS;
        if now != switch.now() || packets.is_multiple_of(256) {
            writers.write(&mut switch, last)?;
            progress(merge.bytes());
        }
        last = captured.time_ns.max(last);
        switch.inject(port, &captured.data, now.max(switch.now()));
        packets += 1;
    }
    writers.write(&mut switch, last)?;
    writers.finish()?;
    progress(merge.bytes());
    Ok(Report::of(&mut switch, &numbers))
}

/// The seed spread over the secrets that a worker wants (splitmix64, Steele et al. 2014).
#[must_use]
pub fn secret(seed: u64) -> [u64; 8] {
    let mut state = seed;
    [(); 8].map(|()| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    })
}

/// One capture for each port.
struct Writers {
    files: BTreeMap<PortNumber, (PathBuf, CaptureWriter<BufWriter<File>>)>,
}

impl Writers {
    fn create(folder: &Path, ports: &[PortNumber]) -> Result<Self, ReplayError> {
        std::fs::create_dir_all(folder)
            .map_err(|source| ReplayError::Write { path: folder.into(), source: CaptureError::Io { offset: 0, source } })?;
        let mut files = BTreeMap::new();
        for &port in ports {
            let path = folder.join(format!("{port}.pcap"));
            let writer = File::create(&path)
                .map_err(|source| CaptureError::Io { offset: 0, source })
                .and_then(|file| CaptureWriter::new(BufWriter::new(file), Precision::Nano))
                .map_err(|source| ReplayError::Write { path: path.clone(), source })?;
            files.insert(port, (path, writer));
        }
        Ok(Self { files })
    }

    fn write(&mut self, switch: &mut VirtualSwitch, time_ns: u64) -> Result<(), ReplayError> {
        for (port, frame) in switch.take_sent() {
            if let Some((path, writer)) = self.files.get_mut(&port) {
                use crate::pipeline::Frame as _;
                writer
                    .write(time_ns, frame.bytes())
                    .map_err(|source| ReplayError::Write { path: path.clone(), source })?;
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<(), ReplayError> {
        use std::io::Write as _;
        for (path, writer) in self.files.into_values() {
            let flushed = writer.finish().and_then(|mut file| {
                file.flush().map_err(|source| CaptureError::Io { offset: 0, source })
            });
            flushed.map_err(|source| ReplayError::Write { path, source })?;
        }
        Ok(())
    }
}
