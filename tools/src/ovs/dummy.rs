//! Open vSwitch with dummy ports: packets come in through the control socket and go out into captures, and
//! the clock stands still between steps. This is the set-up that its own manual offers for such tests
//! (`--enable-dummy`, ovs-vswitchd(8)); classifier, conntrack and translation are those of the userspace datapath.

use std::fmt::Write;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::{BRIDGE, Daemons, OvsError, START, Unixctl, UnixctlError};
use crate::lab::Lab;
use crate::process::ProcessError;
use crate::switch::{Emission, PORTS, Switch};

/// A packet is worked on some time after the command that brought it has been answered. So each is followed, at
/// the same port, by a marker of this ethertype (IEEE 802, local experiments), which leaves through a port of its own:
/// when it is out, whatever the packet caused is out.
const MARKER: u16 = 0x88b5;
const MARKER_PORT: u32 = 99;
/// What needs longer, a marker or an end of cached flows, never comes.
const PATIENCE: Duration = Duration::from_secs(30);

/// The reference switch for packet scripts.
#[derive(Debug)]
pub struct OvsDummy {
    control: Unixctl,
    outputs: Vec<Output>,
    markers: Output,
    markers_sent: u32,
    daemons: Daemons,
    _lab: Lab,
}

/// The growing capture of what left through a port.
#[derive(Debug)]
struct Output {
    port: u32,
    path: PathBuf,
    file: File,
    pending: Vec<u8>,
    /// Whether the file header has been read.
    open: bool,
}

impl OvsDummy {
    /// Starts it with all of [`PORTS`] and no flows; the clock stands.
    ///
    /// # Errors
    /// If Open vSwitch is not installed or does not start.
    pub fn start() -> Result<Self, OvsError> {
        let lab = Lab::new()?;
        // "override" replaces every datapath type by the dummy, so that no device of the system is opened.
        let daemons = Daemons::start(&lab, None, &["--enable-dummy=override", "--disable-system"])?;
        let mut words: Vec<String> =
            ["add-br", BRIDGE, "--", "set", "bridge", BRIDGE].map(String::from).into();
        words.extend(["datapath_type=dummy", "fail-mode=secure"].map(String::from));
        for port in PORTS.into_iter().chain([MARKER_PORT]) {
            let capture = daemons.directory.join(format!("{port}.pcap"));
            words.extend(["--", "add-port", BRIDGE].map(String::from));
            words.extend([
                format!("p{port}"),
                "--".into(),
                "set".into(),
                "interface".into(),
                format!("p{port}"),
            ]);
            words.push("type=dummy".into());
            words.push(format!("ofport_request={port}"));
            words.push(format!("options:tx_pcap={}", capture.display()));
        }
        daemons.vsctl(&words)?;
        let mut control = daemons.control()?;
        control.call("time/stop", &[])?;
        let outputs = PORTS.iter().map(|&port| Output::open(&daemons, port)).collect::<Result<_, _>>()?;
        let markers = Output::open(&daemons, MARKER_PORT)?;
        Ok(Self { control, outputs, markers, markers_sent: 0, daemons, _lab: lab })
    }

    /// Runs a command of `ovs-appctl`.
    ///
    /// # Errors
    /// If the daemon refuses it.
    pub fn appctl(&mut self, method: &str, words: &[&str]) -> Result<String, OvsError> {
        Ok(self.control.call(method, words)?)
    }

    /// The lines of `ovs-ofctl dump-flows`, with everything counted that went through cached flows; the cached
    /// flows are gone afterwards.
    ///
    /// # Errors
    /// If the daemon is gone.
    pub fn rules(&mut self) -> Result<Vec<String>, OvsError> {
        self.purge()?;
        let text = self.daemons.dump()?;
        let marker = format!("dl_type={MARKER:#06x}");
        let ours = |line: &str| !line.contains("actions=") || line.contains(&marker);
        Ok(text.lines().filter(|line| !ours(line)).map(str::to_owned).collect())
    }

    /// Replaces all groups of the bridge; the flows that name them go.
    ///
    /// # Errors
    /// If it refuses one.
    pub fn load_groups(&mut self, groups: &str) -> Result<(), OvsError> {
        self.daemons.load_groups(groups)
    }

    /// The lines of `ovs-ofctl dump-groups`, by number.
    ///
    /// # Errors
    /// If the daemon is gone.
    pub fn groups(&mut self) -> Result<Vec<String>, OvsError> {
        let text = self.daemons.dump_groups()?;
        let mut lines: Vec<_> =
            text.lines().filter(|line| line.contains("group_id=")).map(str::to_owned).collect();
        lines.sort_by_key(|line| {
            line.trim_start().trim_start_matches("group_id=").split(',').next()?.parse::<u32>().ok()
        });
        Ok(lines)
    }

    /// Sends packets with their actions (`ovs-ofctl packet-out`) and gives what came out.
    ///
    /// # Errors
    /// If they are refused.
    pub fn packet_out(&mut self, packets: &str) -> Result<Vec<Emission>, OvsError> {
        self.daemons.packet_out(packets)?;
        self.settle(PORTS[0])?;
        let mut emissions = Vec::new();
        for output in &mut self.outputs {
            output.read(&mut emissions)?;
        }
        Ok(emissions)
    }

    /// Waits until everything that came in at `port` has been worked on.
    fn settle(&mut self, port: u32) -> Result<(), OvsError> {
        self.markers_sent += 1;
        let number = self.markers_sent.to_be_bytes();
        let marker = format!("{}{MARKER:04x}{}{}", "02".repeat(12), hex(&number), "00".repeat(42));
        self.control.call("netdev-dummy/receive", &[&format!("p{port}"), &marker])?;
        let start = Instant::now();
        let mut seen = Vec::new();
        while !seen.iter().any(|marker: &Emission| marker.frame.get(14..18) == Some(&number)) {
            if start.elapsed() > PATIENCE {
                let what = format!("the marker behind a packet at port {port}");
                return Err(ProcessError::Timeout { what, seconds: PATIENCE.as_secs() }.into());
            }
            // A command wakes the daemon's main loop.
            self.control.call("version", &[])?;
            self.markers.read(&mut seen)?;
        }
        Ok(())
    }

    /// Makes it forget all cached flows. Those that one of its own threads just looks at are passed over, so that it has to
    /// be told until none is left.
    fn purge(&mut self) -> Result<(), OvsError> {
        let start = Instant::now();
        loop {
            self.control.call("revalidator/purge", &[])?;
            if self.lines("dpctl/dump-flows")?.iter().all(|line| line.starts_with("flow-dump from")) {
                return Ok(());
            }
            if start.elapsed() > PATIENCE {
                let what = "the end of all cached flows".to_owned();
                return Err(ProcessError::Timeout { what, seconds: PATIENCE.as_secs() }.into());
            }
        }
    }

    fn lines(&mut self, method: &str) -> Result<Vec<String>, OvsError> {
        let text = self.control.call(method, &[])?;
        Ok(text.lines().map(str::to_owned).filter(|line| !line.is_empty()).collect())
    }
}

impl Switch for OvsDummy {
    type Error = OvsError;

    fn name(&self) -> &'static str {
        "Open vSwitch"
    }

    fn load(&mut self, flows: &str) -> Result<(), OvsError> {
        let marker = format!("table=0,priority=65535,dl_type={MARKER:#06x},actions=output:{MARKER_PORT}");
        self.daemons.load(&format!("{flows}\n{marker}\n"))?;
        self.purge()?;
        self.control.call("fdb/flush", &[BRIDGE])?;
        self.control.call("dpctl/flush-conntrack", &[])?;
        Ok(())
    }

    fn inject(&mut self, port: u32, frame: &[u8]) -> Result<Vec<Emission>, OvsError> {
        self.control.call("netdev-dummy/receive", &[&format!("p{port}"), &hex(frame)])?;
        self.settle(port)?;
        let mut emissions = Vec::new();
        for output in &mut self.outputs {
            output.read(&mut emissions)?;
        }
        Ok(emissions)
    }

    fn advance(&mut self, by: Duration) -> Result<(), OvsError> {
        self.control.call("time/warp", &[&by.as_millis().to_string()])?;
        self.settle(PORTS[0])
    }

    fn connections(&mut self) -> Result<Vec<String>, OvsError> {
        self.lines("dpctl/dump-conntrack")
    }

    fn flows(&mut self) -> Result<Vec<String>, OvsError> {
        let lines = self.lines("dpctl/dump-flows")?;
        let marker = format!("eth_type({MARKER:#06x})");
        let ours = |line: &String| line.starts_with("flow-dump from") || line.contains(&marker);
        Ok(lines.into_iter().filter(|line| !ours(line)).collect())
    }

    fn command(&mut self, family: &str, words: &[&str]) -> Result<Result<String, String>, OvsError> {
        let answer = match (family, words.split_first()) {
            ("appctl", Some((name, args))) => self.control.call(name, args).map_err(OvsError::from),
            // What changes flows counts for the next packet, not from the next look of the revalidators on.
            ("ofctl", _) => self.daemons.ofctl(words).and_then(|text| {
                self.purge()?;
                Ok(text)
            }),
            _ => return Ok(Err(format!("Open vSwitch has no `{family}`"))),
        };
        match answer {
            Ok(text) => Ok(Ok(text)),
            Err(OvsError::Unixctl(UnixctlError::Refused { reason, .. })) => Ok(Err(reason)),
            Err(OvsError::Process(ProcessError::Failed { output, .. })) => Ok(Err(output)),
            Err(error) => Err(error),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing into a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

impl Output {
    fn open(daemons: &Daemons, port: u32) -> Result<Self, OvsError> {
        let path = daemons.directory.join(format!("{port}.pcap"));
        crate::process::wait_until("the dummy ports' captures", START, || path.exists())?;
        let file = File::open(&path).map_err(|source| OvsError::File { path: path.clone(), source })?;
        Ok(Self { port, path, file, pending: Vec::new(), open: false })
    }

    /// Takes what has been appended since.
    fn read(&mut self, emissions: &mut Vec<Emission>) -> Result<(), OvsError> {
        self.file
            .read_to_end(&mut self.pending)
            .map_err(|source| OvsError::File { path: self.path.clone(), source })?;
        let wrong = |what| OvsError::Capture { path: self.path.clone(), what };
        let mut at = 0;
        if !self.open {
            let Some(header) = self.pending.get(..24) else { return Ok(()) };
            if header[..4] != 0xa1b2_c3d4_u32.to_ne_bytes() {
                return Err(wrong("magic number"));
            }
            self.open = true;
            at = 24;
        }
        while let Some(header) = self.pending.get(at..at + 16) {
            let length = <[u8; 4]>::try_from(&header[8..12]).map(u32::from_ne_bytes).unwrap_or(0);
            let length = usize::try_from(length).map_err(|_| wrong("record length"))?;
            let Some(frame) = self.pending.get(at + 16..at + 16 + length) else { break };
            emissions.push(Emission { port: self.port, frame: frame.to_vec() });
            at += 16 + length;
        }
        self.pending.drain(..at);
        Ok(())
    }
}
