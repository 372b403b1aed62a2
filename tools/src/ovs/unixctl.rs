//! The control socket of Open vSwitch's daemons: JSON-RPC (version 1) over a Unix socket, as `ovs-appctl`
//! speaks it. Kept open, it takes some ten thousand commands a second where a program for each takes three
//! hundred.

use std::io::{self, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Deserializer, Value, json};

/// An answer that takes longer is none: the daemon hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why a command was not answered.
#[derive(Debug, thiserror::Error)]
pub enum UnixctlError {
    /// The socket failed.
    #[error("control socket: {0}")]
    Io(#[from] io::Error),
    /// What came back is no answer.
    #[error("control socket: {0}")]
    Json(#[from] serde_json::Error),
    /// The daemon refused.
    #[error("`{command}`: {reason}")]
    Refused {
        /// The command with its arguments.
        command: String,
        /// The daemon's words.
        reason: String,
    },
    /// The daemon closed the connection.
    #[error("control socket: closed while `{0}` was waiting")]
    Closed(String),
}

/// An open connection.
#[derive(Debug)]
pub struct Unixctl {
    stream: UnixStream,
    number: u64,
}

impl Unixctl {
    /// Connects to the socket at `path`.
    ///
    /// # Errors
    /// If nobody listens there.
    pub fn connect(path: &Path) -> Result<Self, UnixctlError> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream, number: 0 })
    }

    /// Runs one command and returns what it printed.
    ///
    /// # Errors
    /// If the daemon refuses it or is gone.
    pub fn call(&mut self, method: &str, words: &[&str]) -> Result<String, UnixctlError> {
        self.number += 1;
        let request = json!({ "method": method, "params": words, "id": self.number });
        self.stream.write_all(request.to_string().as_bytes())?;
        // One request is out at a time, so that the buffer cannot swallow the next.
        let mut answers = Deserializer::from_reader(BufReader::new(&self.stream)).into_iter::<Value>();
        let answer = answers.next().ok_or_else(|| UnixctlError::Closed(method.to_owned()))??;
        if let Some(reason) = answer["error"].as_str() {
            let command = std::iter::once(method).chain(words.iter().copied()).collect::<Vec<_>>().join(" ");
            return Err(UnixctlError::Refused { command, reason: reason.trim_end().to_owned() });
        }
        Ok(answer["result"].as_str().unwrap_or_default().to_owned())
    }
}
