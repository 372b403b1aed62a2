//! The client's end of the control socket: sends one request, passes output on as it arrives, and returns how
//! the command ended.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::frame::{LineReader, ReadLimits, ReadLineError, write_all};
use super::protocol::{End, MAX_REPLY_BYTES, MAX_REQUEST_BYTES, Reply, Request, encode};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody there, or not for us.
    #[error("cannot connect to \"{}\" ({})", path.display(), reason(source))]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The files and arguments do not fit a request.
    #[error(
        "the command and its files are {bytes} bytes, which is more than the {limit} that fit one request; split the file"
    )]
    TooLarge {
        /// Encoded size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The connection broke in the middle.
    #[error("the daemon went away before the command ended ({0})")]
    Lost(String),
    /// No answer within the given time.
    #[error("no answer within the time given (--timeout)")]
    Timeout,
    /// Standard output is gone.
    #[error("cannot write the output: {0}")]
    Output(io::Error),
}

/// A connection to a daemon.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    lines: LineReader,
    timeout: Option<Duration>,
}

impl Client {
    /// Connects; `timeout` bounds each wait for the daemon, `None` waits for ever.
    ///
    /// # Errors
    /// [`ClientError::Connect`].
    pub fn connect(path: &Path, timeout: Option<Duration>) -> Result<Self, ClientError> {
        let stream = UnixStream::connect(path)
            .map_err(|source| ClientError::Connect { path: path.to_owned(), source })?;
        Ok(Self { stream, lines: LineReader::default(), timeout })
    }

    /// Runs one command; `out` gets its output as it arrives.
    ///
    /// # Errors
    /// [`ClientError`]; a command that failed is no error here but an [`End`] that says so.
    pub fn call(
        &mut self,
        request: &Request,
        out: &mut dyn FnMut(&str) -> io::Result<()>,
    ) -> Result<End, ClientError> {
        let line = encode(request).map_err(|error| ClientError::Lost(error.to_string()))?;
        if line.len() > MAX_REQUEST_BYTES {
            return Err(ClientError::TooLarge { bytes: line.len(), limit: MAX_REQUEST_BYTES });
        }
        // A daemon that refuses while we still write has its reason in the socket: read before giving up.
        let written = write_all(&mut self.stream, &line, self.timeout);
        let limits = ReadLimits { bytes: MAX_REPLY_BYTES, idle: self.timeout, line: self.timeout };
        loop {
            let line = match self.lines.next(&mut self.stream, limits, |_| true) {
                Ok(Some(line)) => line,
                Ok(None) => return Err(ClientError::Lost(cause(written, "it closed the connection"))),
                Err(ReadLineError::TooSlow) => return Err(ClientError::Timeout),
                Err(error) => return Err(ClientError::Lost(cause(written, &error.to_string()))),
            };
            match serde_json::from_slice(&line) {
                Ok(Reply::Chunk { stdout }) => out(&stdout).map_err(ClientError::Output)?,
                Ok(Reply::End(end)) => return Ok(end),
                Err(error) => return Err(ClientError::Lost(format!("it sent no valid reply: {error}"))),
            }
        }
    }
}

fn cause(written: io::Result<()>, otherwise: &str) -> String {
    written.map_or_else(|error| error.to_string(), |()| otherwise.to_owned())
}

/// The system's words without Rust's "(os error N)".
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().map(str::to_owned).unwrap_or(text)
}
