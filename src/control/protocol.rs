//! What travels over the control socket: one JSON object a line. The client sends a [`Request`]; the daemon
//! answers with any number of [`Reply::Chunk`] and one [`Reply::End`], after which the next request may
//! follow. Both sides bound what they read; nothing here touches a socket.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The longest request line the daemon reads, in bytes: a flow file of about a million flows.
pub const MAX_REQUEST_BYTES: usize = 64 << 20;
/// The longest reply line the client reads, in bytes. Chunks are far smaller ([`CHUNK_BYTES`]).
pub const MAX_REPLY_BYTES: usize = 4 << 20;
/// Output is sent in chunks of about this many bytes.
pub const CHUNK_BYTES: usize = 64 << 10;

/// One command for the daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Family and name, as in `ofctl dump-flows`.
    pub command: String,
    /// The command's arguments, without its name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Files the arguments name, read by the client: argument -> content.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, String>,
    /// What was given as options of the client's command line.
    #[serde(default)]
    pub options: Options,
    /// Answer in JSON.
    #[serde(default)]
    pub json: bool,
}

/// Options of `weir ofctl` that change what the daemon does or prints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// `--strict`: match flows exactly, priority included.
    pub strict: bool,
    /// `--no-stats`: flows without cookie, duration and counters.
    pub no_stats: bool,
    /// `--names`: port names in place of numbers.
    pub names: bool,
    /// `--readd`: `replace-flows` installs unchanged flows anew, which resets their counters.
    pub readd: bool,
    /// `--may-create`: `mod-group` adds the group when there is none.
    pub may_create: bool,
    /// `--bare`: `compose-packet` prints digits only.
    pub bare: bool,
    /// `--bad-csum`: `compose-packet` makes a packet with a wrong IP checksum.
    pub bad_csum: bool,
    /// `--sort` and `--rsort`, most significant first.
    pub sort: Vec<SortKey>,
}

/// One `--sort=FIELD` or `--rsort=FIELD`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SortKey {
    /// `priority`, or the name of a match field.
    pub field: String,
    /// Largest first.
    pub descending: bool,
}

/// One line of the daemon's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Reply {
    /// A piece of standard output.
    Chunk {
        /// The text.
        stdout: String,
    },
    /// The command is done.
    End(End),
}

/// How a command ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Exit status of the client.
    pub exit: u8,
    /// What goes to standard error; empty without an error.
    pub stderr: String,
}

impl End {
    /// An end with an error message.
    pub fn failed(exit: u8, stderr: impl Into<String>) -> Self {
        Self { exit, stderr: stderr.into() }
    }
}

/// A value as a line of JSON.
///
/// # Errors
/// Those of serde_json, for values that JSON cannot hold.
pub fn encode(value: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_needs_only_its_command() {
        let request: Request = serde_json::from_str(r#"{"command":"ofctl show"}"#).unwrap();
        assert_eq!(request, Request { command: "ofctl show".into(), ..Request::default() });
    }

    #[test]
    fn unknown_keys_of_a_request_are_refused() {
        let error = serde_json::from_str::<Request>(r#"{"command":"a","commnd":1}"#).unwrap_err();
        assert!(error.to_string().contains("commnd"), "{error}");
    }

    #[test]
    fn replies_survive_the_round_trip_whatever_the_text_holds() {
        for reply in [
            Reply::Chunk { stdout: "line\n\"quoted\"\u{0}\u{2028}".into() },
            Reply::End(End::failed(2, "no such bridge")),
        ] {
            let line = encode(&reply).unwrap();
            assert_eq!(line.iter().filter(|&&b| b == b'\n').count(), 1);
            assert_eq!(serde_json::from_slice::<Reply>(&line).unwrap(), reply);
        }
    }
}
