//! Lines over a socket against the clock: a whole line in or out before a deadline, however the bytes drip.
//! Used by both ends of the control socket; knows nothing of what the lines say.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// A connected socket whose reads and writes can be bounded in time.
pub(crate) trait Timed: Read + Write {
    fn bound_read(&self, limit: Option<Duration>) -> io::Result<()>;
    fn bound_write(&self, limit: Option<Duration>) -> io::Result<()>;
}

impl Timed for UnixStream {
    fn bound_read(&self, limit: Option<Duration>) -> io::Result<()> {
        self.set_read_timeout(limit)
    }
    fn bound_write(&self, limit: Option<Duration>) -> io::Result<()> {
        self.set_write_timeout(limit)
    }
}

/// Why no line was read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadLineError {
    #[error("the line is longer than {limit} bytes")]
    TooLong { limit: usize },
    #[error("the connection ended in the middle of a line")]
    Truncated,
    #[error("the line did not arrive in time")]
    TooSlow,
    #[error("more unfinished requests are held than the daemon has room for; try again")]
    OutOfRoom,
    #[error(transparent)]
    Io(io::Error),
}

/// Reads lines, keeping what lies behind a newline for the next one.
#[derive(Debug, Default)]
pub(crate) struct LineReader {
    buffer: Vec<u8>,
    /// Bytes of `buffer` known to hold no newline.
    scanned: usize,
}

/// When a read has to be done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadLimits {
    /// Longest line in bytes, newline excluded.
    pub(crate) bytes: usize,
    /// How long the first byte may take; `None` is for ever.
    pub(crate) idle: Option<Duration>,
    /// How long the rest may take from then on; `None` is for ever.
    pub(crate) line: Option<Duration>,
}

impl LineReader {
    /// The next line without its newline; `None` at the end of the stream. `grow` is asked before the buffer
    /// takes that many bytes more, and may refuse.
    pub(crate) fn next(
        &mut self,
        stream: &mut impl Timed,
        limits: ReadLimits,
        mut grow: impl FnMut(usize) -> bool,
    ) -> Result<Option<Vec<u8>>, ReadLineError> {
        let start = Instant::now();
        let mut deadline = limits.idle.map(|limit| start + limit);
        let mut begun = false;
        let mut piece = vec![0_u8; 64 << 10];
        loop {
            if let Some(line) = self.take_line() {
                return Ok(Some(line));
            }
            if self.buffer.len() > limits.bytes {
                return Err(ReadLineError::TooLong { limit: limits.bytes });
            }
            if !begun && !self.buffer.is_empty() {
                begun = true;
                deadline = limits.line.map(|limit| Instant::now() + limit);
            }
            stream.bound_read(remaining(deadline)?).map_err(ReadLineError::Io)?;
            let count = match stream.read(&mut piece) {
                Ok(0) if self.buffer.is_empty() => return Ok(None),
                Ok(0) => return Err(ReadLineError::Truncated),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if is_timeout(&error) => return Err(ReadLineError::TooSlow),
                Err(error) => return Err(ReadLineError::Io(error)),
            };
            if !grow(count) {
                return Err(ReadLineError::OutOfRoom);
            }
            self.buffer.extend_from_slice(piece.get(..count).unwrap_or_default());
        }
    }

    /// Bytes held: the start of a line that has not ended yet.
    pub(crate) fn held(&self) -> usize {
        self.buffer.len()
    }

    fn take_line(&mut self) -> Option<Vec<u8>> {
        let unseen = self.buffer.get(self.scanned..)?;
        let Some(offset) = unseen.iter().position(|&byte| byte == b'\n') else {
            self.scanned = self.buffer.len();
            return None;
        };
        let rest = self.buffer.split_off(self.scanned + offset + 1);
        let mut line = std::mem::replace(&mut self.buffer, rest);
        line.pop();
        self.scanned = 0;
        Some(line)
    }
}

/// Writes all of `bytes` within `limit`, however slowly the other side reads.
pub(crate) fn write_all(stream: &mut impl Timed, bytes: &[u8], limit: Option<Duration>) -> io::Result<()> {
    let deadline = limit.map(|limit| Instant::now() + limit);
    let mut left = bytes;
    while !left.is_empty() {
        let time = remaining(deadline).map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?;
        stream.bound_write(time)?;
        match stream.write(left) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => left = left.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if is_timeout(&error) => return Err(io::ErrorKind::TimedOut.into()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn remaining(deadline: Option<Instant>) -> Result<Option<Duration>, ReadLineError> {
    let Some(deadline) = deadline else { return Ok(None) };
    match deadline.checked_duration_since(Instant::now()) {
        // A time-out of zero would mean none, to the kernel and to std.
        Some(time) if time > Duration::from_micros(1) => Ok(Some(time)),
        _ => Err(ReadLineError::TooSlow),
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: ReadLimits = ReadLimits {
        bytes: 100,
        idle: Some(Duration::from_millis(50)),
        line: Some(Duration::from_millis(50)),
    };

    fn lines_of(bytes: &[u8]) -> (Vec<Vec<u8>>, Result<(), ReadLineError>) {
        let (mut near, mut far) = UnixStream::pair().unwrap();
        far.write_all(bytes).unwrap();
        drop(far);
        let (mut reader, mut lines) = (LineReader::default(), Vec::new());
        loop {
            match reader.next(&mut near, LIMITS, |_| true) {
                Ok(Some(line)) => lines.push(line),
                Ok(None) => return (lines, Ok(())),
                Err(error) => return (lines, Err(error)),
            }
        }
    }

    #[test]
    fn two_lines_of_one_write_come_one_by_one() {
        let (lines, end) = lines_of(b"one\n\ntwo\n");
        assert_eq!(lines, [b"one".to_vec(), Vec::new(), b"two".to_vec()]);
        assert!(end.is_ok());
    }

    #[test]
    fn a_line_that_never_ends_is_cut_off_by_length_by_time_and_by_the_end_of_the_stream() {
        assert!(matches!(lines_of(&[b'x'; 200]).1, Err(ReadLineError::TooLong { limit: 100 })));
        assert!(matches!(lines_of(b"half").1, Err(ReadLineError::Truncated)));
        let (mut near, mut far) = UnixStream::pair().unwrap();
        far.write_all(b"half").unwrap();
        let error = LineReader::default().next(&mut near, LIMITS, |_| true).unwrap_err();
        assert!(matches!(error, ReadLineError::TooSlow));
    }

    #[test]
    fn writing_to_a_reader_that_does_not_read_ends_in_time() {
        let (mut near, _far) = UnixStream::pair().unwrap();
        let error = write_all(&mut near, &vec![0; 8 << 20], Some(Duration::from_millis(50))).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
