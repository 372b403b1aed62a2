//! Why there is no figure.

use std::io;
use std::path::{Path, PathBuf};

use weir_wire::pcap::CaptureError;

/// Why a measurement, or the whole bench, ended without a result.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// Not run as root.
    #[error("the bench starts DPDK and takes hugepages: run it as root")]
    NotRoot,
    /// Too few CPUs.
    #[error("two lcores need two CPUs")]
    OneCpu,
    /// Ctrl-C or SIGTERM.
    #[error("interrupted")]
    Interrupted,
    /// A program could not be started.
    #[error("cannot start `{command}`: {source}")]
    Start {
        /// The command line.
        command: String,
        /// The system's reason.
        source: io::Error,
    },
    /// A program ended with an error.
    #[error("`{command}` ended with {status}: {output}")]
    Failed {
        /// The command line.
        command: String,
        /// Exit status or signal.
        status: String,
        /// What it had printed.
        output: String,
    },
    /// Something did not come about in time.
    #[error("waited {seconds} s in vain for {what}")]
    Timeout {
        /// What was waited for.
        what: String,
        /// For how long.
        seconds: u64,
    },
    /// What a program printed is not what was expected.
    #[error("{what} is not understood: {text:?}")]
    Answer {
        /// What was read.
        what: &'static str,
        /// What it said.
        text: String,
    },
    /// The connections in the table are not those that were sent.
    #[error("{found} of {wanted} connections were set up; are there other ports with traffic?")]
    Connections {
        /// In the table.
        found: u64,
        /// Sent.
        wanted: u64,
    },
    /// A measurement without packets.
    #[error("no packet was received in the time measured; {system}'s log says: {log}")]
    Silent {
        /// Which switch.
        system: String,
        /// The end of its log.
        log: String,
    },
    /// Not everything that came in went out.
    #[error("{packets} packets came in, {sent} went out: what is measured is not what it seems")]
    Lost {
        /// Received.
        packets: u64,
        /// Sent.
        sent: u64,
    },
    /// What was asked for cannot be measured, or did not start.
    #[error("{0}")]
    Refused(String),
    /// A file could not be used.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A capture could not be written.
    #[error(transparent)]
    Capture(#[from] CaptureError),
}

impl BenchError {
    /// The path of an I/O error, for `map_err`.
    pub fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }
}
