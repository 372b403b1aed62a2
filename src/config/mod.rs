//! The configuration file: TOML in, a checked [`Config`] out, or an error that shows the line, points at the
//! place and says what would be right. Unknown keys are errors, with the nearest known one as a hint.

mod check;
mod file;
mod flows;
mod steering;
mod types;
mod zones;

use std::fmt;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::flow::nearest;

pub use check::DEFAULT_SOCKET;
pub use flows::{FlowsError, Tables, flows, groups};
pub use steering::{Role, Steering};
pub use types::{
    Bridge, Config, Conntrack, DevArgs, DevArgsError, Lcores, Name, NameError, Peer, Pool, Port, PortNumber,
    Profile, Tuning, is_system_name,
};
pub use zones::{ZoneTimeouts, Zones};

/// A commented configuration with every key, printed by `weir config example`.
pub const EXAMPLE: &str = include_str!("example.toml");

/// The longest configuration read, in bytes.
const MAX_BYTES: u64 = 4 << 20;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot read the configuration: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Longer than any configuration.
    #[error("{}: longer than {MAX_BYTES} bytes; is this a configuration?", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// Something in it is wrong.
    #[error("{}", display(path, place, message))]
    Content {
        /// The file.
        path: PathBuf,
        /// Where; `None` when it concerns the whole file.
        place: Option<Place>,
        /// What is wrong, and what would be right.
        message: String,
    },
}

/// A place in the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// The whole line.
    pub text: String,
    /// How many characters are meant, at least 1.
    pub width: usize,
}

/// Reads and checks a configuration file.
///
/// # Errors
/// [`ConfigError`].
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    let read = |source| ConfigError::Read { path: path.to_owned(), source };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(read)?;
    file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(read)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(ConfigError::TooLong { path: path.to_owned() });
    }
    parse(&text, path)
}

/// Checks a configuration's text; `path` is for messages, and its directory is where relative paths begin.
///
/// # Errors
/// [`ConfigError::Content`].
pub fn parse(text: &str, path: &Path) -> Result<Config, ConfigError> {
    let fail = |span: Option<Range<usize>>, message| ConfigError::Content {
        path: path.to_owned(),
        place: span.map(|span| place(text, span)),
        message,
    };
    let file: file::File =
        toml::from_str(text).map_err(|error| fail(error.span(), with_hint(error.message())))?;
    let directory = path.parent().unwrap_or(Path::new(""));
    check::check(file, directory).map_err(|fault| fail(Some(fault.span), fault.message))
}

/// serde lists every known key when it meets an unknown one; the nearest is enough when there is one.
fn with_hint(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let (Some(kind), Some(name)) = (message.split('`').next(), quoted.next()) else {
        return message.to_owned();
    };
    let kind = kind.trim();
    if kind != "unknown field" && kind != "unknown variant" {
        return message.to_owned();
    }
    let word = if kind == "unknown field" { "key" } else { "value" };
    let known: Vec<&str> = quoted.collect();
    unknown(word, name, &known)
}

/// The message for a name that is none of `known`.
fn unknown(word: &str, name: &str, known: &[&str]) -> String {
    match nearest(name, known.iter().copied()) {
        Some(near) => format!("unknown {word} `{name}`; did you mean `{near}`?"),
        None => format!("unknown {word} `{name}`; known are {}", known.join(", ")),
    }
}

fn place(text: &str, span: Range<usize>) -> Place {
    let start = boundary(text, span.start);
    let before = text.get(..start).unwrap_or_default();
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let rest = text.get(line_start..).unwrap_or_default();
    let line_text = rest.lines().next().unwrap_or_default();
    let meant = text.get(start..boundary(text, span.end)).unwrap_or_default();
    Place {
        line: before.matches('\n').count() + 1,
        column: text.get(line_start..start).unwrap_or_default().chars().count() + 1,
        text: line_text.to_owned(),
        width: meant.lines().next().unwrap_or_default().chars().count().max(1),
    }
}

/// The last place at or before `at` where a character begins.
fn boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
}

fn display(path: &Path, place: &Option<Place>, message: &str) -> impl fmt::Display {
    let path = path.display();
    match place {
        None => format!("{path}: {message}"),
        Some(Place { line, column, text, width }) => {
            // Tabs stay tabs, so that the caret stands below its character.
            let indent: String =
                text.chars().take(column - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
            format!("{path}:{line}:{column}: {message}\n    {text}\n    {indent}{}", "^".repeat(*width))
        }
    }
}

#[cfg(test)]
mod tests;
