//! The scripts of `tests/scripts`: finding them, and running one against weir. Against Open vSwitch they are run by
//! `tools/tests/ovs_compare.rs`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use weir::replay::{Arrival, Layout};

use crate::exact;
use crate::scenario::{self, Transcript};
use crate::script::{Script, ScriptError, Table};
use crate::weir::{WeirError, WeirSwitch};

/// Where they lie, from the workspace's root.
pub const DIRECTORY: &str = "tests/scripts";

/// Why the scripts cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A directory or file.
    #[error("{}: {source}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A script.
    #[error(transparent)]
    Script(#[from] ScriptError),
}

/// A script, or why it cannot be read, with the way to its file.
pub type Found = (String, Result<Script, LoadError>);

/// All scripts with the way to their files from the root, by name. What cannot be read stands in its place.
///
/// # Errors
/// If the directory cannot be read.
pub fn all() -> Result<Vec<Found>, LoadError> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    let mut open = vec![root.join(DIRECTORY)];
    let mut found = Vec::new();
    while let Some(directory) = open.pop() {
        let failed = |source| LoadError::File { path: directory.clone(), source };
        for entry in fs::read_dir(&directory).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|end| end == "pkt") {
                let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
                let text = fs::read_to_string(&path).map_err(|source| LoadError::File { path, source });
                let script = text.and_then(|text| Ok(Script::parse(&name, &text)?));
                found.push((name, script));
            }
        }
    }
    found.sort_by(|(one, _), (two, _)| one.cmp(two));
    Ok(found)
}

/// Three shards, of which every packet comes to a wrong one, that look at a packet's owner in time or only at its `ct`.
#[must_use]
pub fn three_shards(steered_early: bool) -> Layout {
    Layout { shards: 3, arrival: Arrival::Adverse, steered_early, ..Layout::default() }
}

/// weir's transcript of a script with tables, which must have neither failures nor leaks.
///
/// # Errors
/// What it did otherwise than the script says.
pub fn weir_through(script: &Script, table: Table) -> Result<Transcript, String> {
    through(script, table, Layout::default())
}

fn through(script: &Script, table: Table, layout: Layout) -> Result<Transcript, String> {
    let told = |error: WeirError| format!("{}: {error}", script.name);
    let mut weir = WeirSwitch::divided(layout).map_err(told)?;
    let transcript = scenario::run(&mut weir, script, table).map_err(told)?;
    let wrong: Vec<_> = transcript.failures.iter().chain(&transcript.leaks).collect();
    if wrong.is_empty() {
        return Ok(transcript);
    }
    let wrong = wrong.iter().map(|failure| format!("{} through {}: {failure}", script.name, table.name()));
    Err(wrong.collect::<Vec<_>>().join("\n"))
}

/// What weir does with a script that has its own flows.
///
/// # Errors
/// What it did otherwise than the script says.
pub fn weir_exactly(script: &Script) -> Result<exact::Report, String> {
    exactly(script, Layout::default())
}

fn exactly(script: &Script, layout: Layout) -> Result<exact::Report, String> {
    let told = |error: WeirError| format!("{}: {error}", script.name);
    let mut weir = WeirSwitch::divided(layout).map_err(told)?;
    let report = exact::run(&mut weir, script, false).map_err(told)?;
    if report.failures.is_empty() { Ok(report) } else { Err(report.failures.join("\n")) }
}

/// Runs a script against weir, through its tables or its flows.
///
/// # Errors
/// What weir did otherwise than the script says.
pub fn weir(script: &Script) -> Result<(), String> {
    weir_divided(script, Layout::default())
}

/// As [`weir()`], against one that is divided into shards.
///
/// # Errors
/// What weir did otherwise than the script says.
pub fn weir_divided(script: &Script, layout: Layout) -> Result<(), String> {
    if script.flows.is_some() {
        return exactly(script, layout).map(drop);
    }
    let through = |table: &Table| through(script, *table, layout).err();
    let wrong: Vec<_> = script.tables.iter().filter_map(through).collect();
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}

/// As [`weir_divided()`], for a script that names a port which one shard chooses, mostly the packet's own. A shard among
/// several chooses among those that bring replies home to it, which depend on the secret key word. So the script is run
/// under one word after the other, up to `words`, until its ports are those of one shard.
///
/// # Errors
/// What weir did otherwise than the script says under the last word.
pub fn weir_divided_under_some_word(script: &Script, layout: Layout, words: u64) -> Result<(), String> {
    let mut result = Ok(());
    for seed in 0..words {
        result = weir_divided(script, Layout { seed, ..layout });
        if result.is_ok() {
            break;
        }
    }
    result
}
