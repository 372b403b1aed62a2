//! The flow files that bridges of a configuration name: read and parsed before anything starts, with the names of
//! the bridge's ports.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::types::Bridge;
use crate::flow::file::MAX_BYTES;
use crate::flow::{
    Command, FileError, FlowFile, FlowMod, GroupCommand, GroupFile, GroupMod, PortNames, PortNumber,
};

/// What a bridge begins with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// Its groups, which the flows may name.
    pub groups: Vec<GroupMod>,
    /// Its flows.
    pub flows: Vec<FlowMod>,
}

/// Why a bridge has no flows.
#[derive(Debug, thiserror::Error)]
pub enum FlowsError {
    /// The file cannot be read.
    #[error("{}: cannot read the {what} of bridge \"{bridge}\": {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Whose.
        bridge: String,
        /// What it holds.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Longer than any flow file.
    #[error("{}: longer than {MAX_BYTES} bytes; is this a flow file?", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// A flow is wrong.
    #[error(transparent)]
    Content(#[from] FileError),
}

/// Reads a bridge's flow file; without one, the bridge has the one flow that a new bridge has, action NORMAL.
///
/// # Errors
/// [`FlowsError`].
pub fn flows(bridge: &Bridge) -> Result<FlowFile, FlowsError> {
    let Some(path) = &bridge.flows else {
        return Ok(FlowFile::parse("default", b"priority=0,actions=normal", Command::Add, bridge)?);
    };
    let bytes = read(bridge, path, "flows")?;
    Ok(FlowFile::parse(&path.display().to_string(), &bytes, Command::Add, bridge)?)
}

/// Reads a bridge's group file, if it has one.
///
/// # Errors
/// [`FlowsError`].
pub fn groups(bridge: &Bridge) -> Result<GroupFile, FlowsError> {
    let Some(path) = &bridge.groups else { return Ok(GroupFile::default()) };
    let bytes = read(bridge, path, "groups")?;
    Ok(GroupFile::parse(&path.display().to_string(), &bytes, GroupCommand::Add, bridge)?)
}

fn read(bridge: &Bridge, path: &Path, what: &'static str) -> Result<Vec<u8>, FlowsError> {
    let failed =
        |source| FlowsError::Read { path: path.to_owned(), bridge: bridge.name.to_string(), what, source };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if u64::try_from(bytes.len()).map_or(true, |length| length > MAX_BYTES) {
        return Err(FlowsError::TooLong { path: path.to_owned() });
    }
    Ok(bytes)
}

impl PortNames for Bridge {
    fn number(&self, name: &str) -> Option<PortNumber> {
        self.ports.iter().find(|port| port.name.as_str() == name).map(|port| port.number.number())
    }
    fn name(&self, number: PortNumber) -> Option<&str> {
        self.ports.iter().find(|port| port.number.number() == number).map(|port| port.name.as_str())
    }
}
