//! `weir replay`: captures in, captures out, no DPDK and no privileges. Time is the captures' own; the ports'
//! captures are merged by timestamp. The same flows, captures and seed always give the same result.

mod layout;
mod mail;
mod merge;
mod report;
mod virtual_switch;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use weir_shard::ShardConfig;
use weir_wire::pcap::{CaptureError, CaptureWriter, Precision};

pub use layout::{Arrival, Layout};
pub use merge::Merge;
pub use report::{PortReport, Report, ShardReport};
pub use virtual_switch::{BRIDGE, Tracked, VirtualSwitch, VirtualSwitchError};

use crate::config::{Steering, Zones};
use crate::flow::file::{FileError, FlowFile, MAX_BYTES};
use crate::flow::flow::Command;
use crate::flow::port::{NoNames, PortNumber};
use crate::flow::{GroupCommand, GroupFile};
use crate::pipeline::{Frame as _, HeapFrame};

/// What to replay.
#[derive(Clone, Debug)]
pub struct Options {
    /// Flow file, as `ovs-ofctl add-flows` takes it; `-` is standard input.
    pub flows: PathBuf,
    /// Group file, as `ovs-ofctl add-groups` takes it.
    pub groups: Option<PathBuf>,
    /// Ports with their captures; a port without one only sends.
    pub ports: Vec<(PortNumber, Option<PathBuf>)>,
    /// Folder for what each port sent, as `PORT.pcap`; made when missing.
    pub out: PathBuf,
    /// The shard's size and limits.
    pub shard: ShardConfig,
    /// What is different in some zones.
    pub zones: Zones,
    /// Which shard owns what, where there are several.
    pub steering: Steering,
    /// Decides everything that is drawn at random.
    pub seed: u64,
    /// How the switch is divided.
    pub layout: Layout,
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
        source: io::Error,
    },
    /// Longer than any flow file.
    #[error("{path}: longer than {MAX_BYTES} bytes; is this a flow file?", path = .path.display())]
    FlowsTooLong {
        /// The file.
        path: PathBuf,
    },
    /// The flow file has an error.
    #[error(transparent)]
    Syntax(#[from] FileError),
    /// The switch cannot be made as ports, flows and configuration want it.
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
    /// A result would replace a capture that is being read.
    #[error("{path} is one of the captures to replay; choose another folder for the results", path = .path.display())]
    Overwrites {
        /// The capture.
        path: PathBuf,
    },
    /// No port was given.
    #[error("no ports; give at least one as --port NUMBER=CAPTURE")]
    NoPorts,
}

/// Nanoseconds in a millisecond, the unit of the switch's clock.
const NANOSECONDS: u64 = 1_000_000;
/// Packets of one moment whose outputs wait in memory.
const FLUSH_EVERY: u64 = 256;

/// Replays everything; `progress` is told the bytes of input worked off so far, now and then.
///
/// # Errors
/// When an input cannot be read or the output cannot be written. What was written until then stays.
pub fn run(options: &Options, progress: &mut dyn FnMut(u64)) -> Result<Report, ReplayError> {
    if options.ports.is_empty() {
        return Err(ReplayError::NoPorts);
    }
    let groups = match &options.groups {
        Some(path) => {
            let text = read_flows(path)?;
            GroupFile::parse(&path.display().to_string(), &text, GroupCommand::Add, &NoNames)?.changes
        }
        None => Vec::new(),
    };
    let text = read_flows(&options.flows)?;
    let name = options.flows.display().to_string();
    let flows = FlowFile::parse(&name, &text, Command::Add, &NoNames)?.flows;
    let numbers: Vec<PortNumber> = options.ports.iter().map(|(number, _)| *number).collect();
    let (shard, secret) = (options.shard.clone(), secret(options.seed));
    let Options { layout, steering, .. } = options;
    let mut switch =
        VirtualSwitch::with_steering(&numbers, &groups, &flows, shard, secret, *layout, steering)?;
    switch.set_zones(&options.zones)?;
    let mut merge = Merge::open(&options.ports)?;
    let mut writers = Writers::create(&options.out, &options.ports, merge.precision())?;
    let end = feed(&mut switch, &mut merge, &mut writers, progress);
    // What came before an error is worth having.
    writers.write(&mut switch)?;
    writers.finish()?;
    end?;
    progress(merge.bytes());
    Ok(Report::of(&mut switch, &numbers))
}

fn read_flows(path: &Path) -> Result<Vec<u8>, ReplayError> {
    let mut text = Vec::new();
    let read = if path == Path::new("-") {
        io::stdin().lock().take(MAX_BYTES + 1).read_to_end(&mut text)
    } else {
        File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut text))
    };
    let length = read.map_err(|source| ReplayError::Flows { path: path.into(), source })?;
    if u64::try_from(length).map_or(true, |length| length > MAX_BYTES) {
        return Err(ReplayError::FlowsTooLong { path: path.into() });
    }
    Ok(text)
}

/// Lets the switch have all packets, each at its time.
fn feed(
    switch: &mut VirtualSwitch,
    merge: &mut Merge,
    writers: &mut Writers,
    progress: &mut dyn FnMut(u64),
) -> Result<(), ReplayError> {
    let (mut start, mut last, mut packets) = (None, 0, 0u64);
    while let Some((port, captured)) = merge.next()? {
        let start = *start.get_or_insert(captured.time_ns);
        // Captures may step back in time; the tracker's clock does not.
        last = captured.time_ns.max(last);
        let now = last.saturating_sub(start) / NANOSECONDS;
        if now != switch.now() || packets.is_multiple_of(FLUSH_EVERY) {
            writers.write(switch)?;
            progress(merge.bytes());
        }
        switch.inject_frame(port, HeapFrame::new(&captured.data).stamped(last), now);
        packets += 1;
    }
    Ok(())
}

/// The seed spread over the secrets that a worker wants .
#[must_use]
pub fn secret(seed: u64) -> [u64; 8] {
    let mut draw = layout::Draw::new(seed);
    [(); 8].map(|()| draw.next())
}

/// One capture for each port.
struct Writers {
    files: BTreeMap<PortNumber, (PathBuf, CaptureWriter<File>)>,
}

impl Writers {
    fn create(
        folder: &Path,
        ports: &[(PortNumber, Option<PathBuf>)],
        precision: Precision,
    ) -> Result<Self, ReplayError> {
        std::fs::create_dir_all(folder).map_err(|source| ReplayError::Write {
            path: folder.into(),
            source: CaptureError::Io { offset: 0, source },
        })?;
        let inputs: Vec<PathBuf> =
            ports.iter().filter_map(|(_, path)| path.as_ref()?.canonicalize().ok()).collect();
        let mut files = BTreeMap::new();
        for &(port, _) in ports {
            let path = folder.join(format!("{port}.pcap"));
            if path.canonicalize().is_ok_and(|path| inputs.contains(&path)) {
                return Err(ReplayError::Overwrites { path });
            }
            let writer = File::create(&path)
                .map_err(|source| CaptureError::Io { offset: 0, source })
                .and_then(|file| CaptureWriter::new(file, precision))
                .map_err(|source| ReplayError::Write { path: path.clone(), source })?;
            files.insert(port, (path, writer));
        }
        Ok(Self { files })
    }

    /// Writes what the packets of one moment have caused, each output with the time of its packet. A burst's
    /// packets may overtake each other inside the switch; in the capture they do not.
    fn write(&mut self, switch: &mut VirtualSwitch) -> Result<(), ReplayError> {
        let mut sent = switch.take_sent();
        sent.sort_by_key(|(_, frame)| frame.stamp());
        for (port, frame) in sent {
            if let Some((path, writer)) = self.files.get_mut(&port) {
                writer
                    .write(frame.stamp(), frame.bytes())
                    .map_err(|source| ReplayError::Write { path: path.clone(), source })?;
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<(), ReplayError> {
        for (path, writer) in self.files.into_values() {
            writer.finish().map_err(|source| ReplayError::Write { path, source })?;
        }
        Ok(())
    }
}
