//! The programs at both ends: a server outside, clients inside. They are one Python script, carried along in
//! this library and written into the laboratory's directory, so that a test needs no file of the repository.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use super::Namespace;
use super::Pair;
use crate::process::{Background, ProcessError};

const SCRIPT: &str = include_str!("peer.py");
/// Port of the HTTP server.
pub const HTTP: u16 = 8080;
/// Port of the echo servers.
pub const ECHO: u16 = 7000;

/// Starts the servers in `namespace` and waits until they listen.
///
/// # Errors
/// If Python cannot be started or does not listen within 10 s.
pub fn serve(pair: &Pair, namespace: &Namespace, title: &str) -> Result<Background, ProcessError> {
    let script = script(pair)?;
    let mut command = namespace.command("python3");
    let mut background = namespace.start(title, command.arg("-u").arg(&script).arg("serve"))?;
    let log = pair.lab.directory().join(format!("{title}.log"));
    background.wait_until("the servers listen", Duration::from_secs(10), || {
        fs::read_to_string(&log).is_ok_and(|text| text.contains("ready"))
    })?;
    Ok(background)
}

/// Runs a client in `namespace` and returns the line that it prints.
///
/// # Errors
/// If it fails; its own line says why.
pub fn client(pair: &Pair, namespace: &Namespace, words: &[&str]) -> Result<String, ProcessError> {
    let script = script(pair)?;
    let mut command = namespace.command("python3");
    crate::process::run(command.arg(&script).args(words)).map(|text| text.trim().to_owned())
}

fn script(pair: &Pair) -> Result<PathBuf, ProcessError> {
    let path = pair.lab.directory().join("peer.py");
    if !path.exists() {
        fs::write(&path, SCRIPT).map_err(|source| ProcessError::Io {
            what: format!("cannot write {}", path.display()),
            source,
        })?;
    }
    Ok(path)
}
