//! What a network between two hosts must carry: each function is one check, from inside to outside, through
//! whatever stands in the box. They fail with a message that can be read without the code.

use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use super::{Pair, peer};
use crate::process::{self, ProcessError};

/// As whom the outside host must see the inside host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Under its own address.
    Itself,
    /// As an address of 10.0.0.1-10.0.0.255 and a port of 5000-50000: the NAT example.
    Translated,
}

/// Why a check failed.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// A program failed.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// Everything ran, but the outcome is wrong.
    #[error("{0}")]
    Wrong(String),
}

fn wrong<T>(message: String) -> Result<T, CheckError> {
    Err(CheckError::Wrong(message))
}

/// An address as a URL has it.
fn in_url(address: IpAddr) -> String {
    if address.is_ipv6() { format!("[{address}]") } else { address.to_string() }
}

fn curl(pair: &Pair, address: IpAddr, path: &str, more: &[&str]) -> Result<String, ProcessError> {
    let url = format!("http://{}:{}/{path}", in_url(address), peer::HTTP);
    let mut words = vec!["--silent", "--show-error", "--fail", "--globoff", "--max-time", "120"];
    words.extend(more);
    words.push(&url);
    pair.inside.namespace.run("curl", &words)
}

/// `ADDRESS PORT`, as the servers print a client.
fn check_seen(pair: &Pair, text: &str, to: IpAddr, seen: Seen) -> Result<(), CheckError> {
    let mut words = text.split_whitespace();
    let (address, port) =
        (words.next().and_then(|w| w.parse().ok()), words.next().and_then(|w| w.parse().ok()));
    let (Some(address), Some(port)) = (address, port) else {
        return wrong(format!("the server's answer is no address and port: {text:?}"));
    };
    let good = match seen {
        Seen::Itself => address == if to.is_ipv6() { pair.inside.v6 } else { pair.inside.v4 },
        Seen::Translated => in_pool(address) && (5000..=50000_u16).contains(&port),
    };
    if good { Ok(()) } else { wrong(format!("outside saw {address} port {port}, which is not {seen:?}")) }
}

fn in_pool(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(v4) if v4.octets().starts_with(&[10, 0, 0]) && v4.octets() != [10, 0, 0, 0])
}

/// A web page, which says whom it was sent to; returns that line.
///
/// # Errors
/// If it does not come or the server saw the wrong client.
pub fn page(pair: &Pair, to: IpAddr, seen: Seen) -> Result<String, CheckError> {
    let text = curl(pair, to, "", &[])?.trim().to_owned();
    check_seen(pair, &text, to, seen)?;
    Ok(text)
}

/// A file of so many bytes, with an equal checksum at both ends.
///
/// # Errors
/// If it does not come, or comes changed.
pub fn download(pair: &Pair, to: IpAddr, bytes: u64) -> Result<(), CheckError> {
    let file = pair.lab.directory().join("download");
    let name = file.to_string_lossy();
    curl(pair, to, &format!("bytes/{bytes}"), &["--output", &name])?;
    let sent = curl(pair, to, &format!("sha256/{bytes}"), &[])?;
    let got = process::run(std::process::Command::new("sha256sum").arg(&file))?;
    let length = fs::metadata(&file).map(|data| data.len()).unwrap_or(0);
    let same = got.split_whitespace().next() == Some(sent.trim());
    let _ = fs::remove_file(&file);
    if same && length == bytes {
        Ok(())
    } else {
        wrong(format!("{length} of {bytes} bytes came, or not the same"))
    }
}

/// Datagrams of several sizes, each echoed.
///
/// # Errors
/// If one is lost or changed.
pub fn udp(pair: &Pair, to: IpAddr) -> Result<(), CheckError> {
    for size in ["4", "512", "1400"] {
        peer::client(pair, &pair.inside.namespace, &["udp", &to.to_string(), "100", size])?;
    }
    Ok(())
}

/// Five echo requests with so many bytes of payload, none lost.
///
/// # Errors
/// If an answer is missing or damaged.
pub fn ping(pair: &Pair, to: IpAddr, payload: u16) -> Result<(), CheckError> {
    let (size, to) = (payload.to_string(), to.to_string());
    let text = pair
        .inside
        .namespace
        .run("ping", &["-c", "5", "-i", "0.05", "-W", "5", "-s", &size, "-M", "do", &to])?;
    if text.contains("5 received") && text.contains(" 0% packet loss") {
        return Ok(());
    }
    wrong(format!("not every ping of {size} bytes was answered:\n{text}"))
}

/// Five echo requests too long for one packet, which travel in fragments both ways; none lost.
///
/// # Errors
/// If an answer is missing or damaged.
pub fn large_ping(pair: &Pair, to: IpAddr, payload: u16) -> Result<(), CheckError> {
    let (size, to) = (payload.to_string(), to.to_string());
    let namespace = &pair.inside.namespace;
    let text = namespace.run("ping", &["-c", "5", "-i", "0.05", "-W", "5", "-s", &size, &to])?;
    if text.contains("5 received") && text.contains(" 0% packet loss") && !text.contains("wrong data") {
        return Ok(());
    }
    wrong(format!("not every ping of {size} bytes was answered:\n{text}"))
}

/// A connection that is silent for a while and then goes on.
///
/// # Errors
/// If it breaks.
pub fn idle(pair: &Pair, to: IpAddr, silence: Duration, seen: Seen) -> Result<(), CheckError> {
    let seconds = silence.as_secs().to_string();
    let text = peer::client(pair, &pair.inside.namespace, &["tcp-idle", &to.to_string(), &seconds])?;
    check_seen(pair, &text, to, seen)
}

/// So many connections open at once, each with 100 000 bytes of its own both ways.
///
/// # Errors
/// If one fails, or two were seen as one client.
pub fn parallel(pair: &Pair, to: IpAddr, connections: u32) -> Result<(), CheckError> {
    let (to, count) = (to.to_string(), connections.to_string());
    peer::client(pair, &pair.inside.namespace, &["tcp-many", &to, &count, "100000"]).map(drop)?;
    Ok(())
}

/// A connection from outside to the inside host's own address, where a server listens: must be refused by
/// silence. `_server` is the proof that it listens.
///
/// # Errors
/// If it is answered in any way.
pub fn unsolicited(pair: &Pair, _server: &process::Background) -> Result<(), CheckError> {
    let url = format!("http://{}:{}/", pair.inside.v4, peer::HTTP);
    let reached = pair.inside.namespace.run("curl", &["--silent", "--fail", "--max-time", "5", &url]);
    if let Err(error) = reached {
        return wrong(format!("the server inside does not even answer its own host: {error}"));
    }
    let mut command = pair.outside.namespace.command("curl");
    let output = process::output(command.args(["--silent", "--connect-timeout", "2", &url]))?;
    match output.status.code() {
        Some(28) => Ok(()), // curl(1): operation timeout
        code => wrong(format!("a connection from outside was not met with silence (curl's status {code:?})")),
    }
}

/// One datagram from the given source port; as whom it was seen, or None if nothing came back in three seconds.
///
/// # Errors
/// If the client could not be run at all.
pub fn datagram(pair: &Pair, to: IpAddr, source_port: u16) -> Result<Option<String>, CheckError> {
    let (to, port) = (to.to_string(), source_port.to_string());
    match peer::client(pair, &pair.inside.namespace, &["udp-once", &to, &port]) {
        Ok(text) => Ok(Some(text)),
        Err(ProcessError::Failed { output, .. }) if output.contains("timed out") => Ok(None),
        Err(error) => Err(error.into()),
    }
}
