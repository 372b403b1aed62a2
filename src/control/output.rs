//! What a command writes: text or JSON, gathered into chunks and handed on as they fill, so that a dump of any
//! length takes constant memory and goes no faster than its reader.

use std::fmt::{self, Write};
use std::io;

use serde::Serialize;

use super::protocol::CHUNK_BYTES;

/// The reader is gone; whatever the command was doing is pointless.
#[derive(Debug, thiserror::Error)]
#[error("the client does not take its output: {0}")]
pub struct Disconnected(#[from] io::Error);

/// A command's standard output.
pub struct Output<'a> {
    sink: &'a mut dyn FnMut(&str) -> io::Result<()>,
    chunk: String,
    /// Elements written of the JSON array under way.
    elements: u64,
    /// What goes to standard error though the command succeeds.
    warnings: String,
}

impl fmt::Debug for Output<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output").field("chunk", &self.chunk.len()).finish_non_exhaustive()
    }
}

impl<'a> Output<'a> {
    /// Writes to `sink`, which blocks while the reader is slow.
    pub fn new(sink: &'a mut dyn FnMut(&str) -> io::Result<()>) -> Self {
        Self { sink, chunk: String::new(), elements: 0, warnings: String::new() }
    }

    /// Writes text as it is.
    ///
    /// # Errors
    /// [`Disconnected`].
    pub fn text(&mut self, text: impl fmt::Display) -> Result<(), Disconnected> {
        write!(self.chunk, "{text}").map_err(io::Error::other)?;
        if self.chunk.len() >= CHUNK_BYTES { self.flush() } else { Ok(()) }
    }

    /// Writes a line.
    ///
    /// # Errors
    /// [`Disconnected`].
    pub fn line(&mut self, text: impl fmt::Display) -> Result<(), Disconnected> {
        self.text(format_args!("{text}\n"))
    }

    /// Writes one JSON value and a newline.
    ///
    /// # Errors
    /// [`Disconnected`].
    pub fn json(&mut self, value: &impl Serialize) -> Result<(), Disconnected> {
        let text = serde_json::to_string(value).map_err(io::Error::other)?;
        self.line(text)
    }

    /// Writes the next element of a JSON array, one a line.
    ///
    /// # Errors
    /// [`Disconnected`].
    pub fn element(&mut self, value: &impl Serialize) -> Result<(), Disconnected> {
        let text = serde_json::to_string(value).map_err(io::Error::other)?;
        let start = if self.elements == 0 { "[" } else { ",\n " };
        self.elements += 1;
        self.text(format_args!("{start}{text}"))
    }

    /// Ends the array that [`Output::element`] began, or writes an empty one.
    ///
    /// # Errors
    /// [`Disconnected`].
    pub fn end_array(&mut self) -> Result<(), Disconnected> {
        self.close_array()?;
        self.text("\n")
    }

    /// The same without the newline, for an array inside something.
    ///
    /// # Errors
    /// [`Disconnected`].
    pub fn close_array(&mut self) -> Result<(), Disconnected> {
        let end = if self.elements == 0 { "[]" } else { "]" };
        self.elements = 0;
        self.text(end)
    }

    /// Keeps something odd to tell the user at the end.
    pub fn warn(&mut self, warning: impl fmt::Display) {
        let separator = if self.warnings.is_empty() { "" } else { "\n" };
        self.warnings.push_str(separator);
        self.warnings.push_str(&warning.to_string());
    }

    /// What [`Output::warn`] was given, a line each.
    #[must_use]
    pub fn warnings(&self) -> &str {
        &self.warnings
    }

    /// Hands on what is gathered, and finds out whether the reader is still there even if that is nothing. For
    /// commands that wait for something to happen.
    ///
    /// # Errors
    /// [`Disconnected`].
    pub fn stay_in_touch(&mut self) -> Result<(), Disconnected> {
        if self.chunk.is_empty() { Ok((self.sink)("")?) } else { self.flush() }
    }

    /// Hands on what is gathered.
    ///
    /// # Errors
    /// [`Disconnected`].
    pub fn flush(&mut self) -> Result<(), Disconnected> {
        if !self.chunk.is_empty() {
            (self.sink)(&self.chunk)?;
            self.chunk.clear();
        }
        Ok(())
    }
}
