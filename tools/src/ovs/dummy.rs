//! Open vSwitch with dummy ports: packets come in through the control socket and go out into captures, and
//! the clock stands still between steps. This is the set-up that its own manual offers for such tests
//! (`--enable-dummy`, ovs-vswitchd(8)); classifier, conntrack and translation are those of the userspace datapath.

use std::fmt::Write;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use super::{BRIDGE, Daemons, OvsError, START, Unixctl};
use crate::lab::Lab;
use crate::switch::{Emission, PORTS, Switch};

/// A packet is worked on in the daemon's main loop, after the command that brought it has been answered. Each
/// further command takes at least one turn of that loop; one has always been enough, three are safe.
const TURNS: u32 = 3;

/// The reference switch for packet scripts.
#[derive(Debug)]
pub struct OvsDummy {
    control: Unixctl,
    outputs: Vec<Output>,
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
        let mut words: Vec<String> = ["add-br", BRIDGE, "--", "set", "bridge", BRIDGE].map(String::from).into();
        words.extend(["datapath_type=dummy", "fail-mode=secure"].map(String::from));
        for port in PORTS {
            let capture = daemons.directory.join(format!("{port}.pcap"));
            words.extend(["--", "add-port", BRIDGE].map(String::from));
            words.extend([format!("p{port}"), "--".into(), "set".into(), "interface".into(), format!("p{port}")]);
            words.push("type=dummy".into());
            words.push(format!("ofport_request={port}"));
            words.push(format!("options:tx_pcap={}", capture.display()));
        }
        daemons.vsctl(&words)?;
        let mut control = daemons.control()?;
        control.call("time/stop", &[])?;
        let outputs = PORTS.iter().map(|&port| Output::open(&daemons, port)).collect::<Result<_, _>>()?;
        Ok(Self { control, outputs, daemons, _lab: lab })
    }

    /// Runs a command of `ovs-appctl`.
    ///
    /// # Errors
    /// If the daemon refuses it.
    pub fn appctl(&mut self, method: &str, words: &[&str]) -> Result<String, OvsError> {
        Ok(self.control.call(method, words)?)
    }

    fn turn(&mut self) -> Result<(), OvsError> {
        for _ in 0..TURNS {
            self.control.call("version", &[])?;
        }
        Ok(())
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
        self.daemons.load(flows)?;
        self.control.call("revalidator/purge", &[])?;
        self.control.call("fdb/flush", &[BRIDGE])?;
        self.control.call("dpctl/flush-conntrack", &[])?;
        Ok(())
    }

    fn inject(&mut self, port: u32, frame: &[u8]) -> Result<Vec<Emission>, OvsError> {
        let mut hex = String::with_capacity(frame.len() * 2);
        for byte in frame {
            // Writing into a string cannot fail.
            let _ = write!(hex, "{byte:02x}");
        }
        self.control.call("netdev-dummy/receive", &[&format!("p{port}"), &hex])?;
        self.turn()?;
        let mut emissions = Vec::new();
        for output in &mut self.outputs {
            output.read(&mut emissions)?;
        }
        Ok(emissions)
    }

    fn advance(&mut self, by: Duration) -> Result<(), OvsError> {
        self.control.call("time/warp", &[&by.as_millis().to_string()])?;
        self.turn()
    }

    fn connections(&mut self) -> Result<Vec<String>, OvsError> {
        self.lines("dpctl/dump-conntrack")
    }

    fn flows(&mut self) -> Result<Vec<String>, OvsError> {
        let lines = self.lines("dpctl/dump-flows")?;
        Ok(lines.into_iter().filter(|line| !line.starts_with("flow-dump from")).collect())
    }
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
