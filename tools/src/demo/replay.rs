//! The demonstration without root: `weir replay` on the capture in examples/, its packets shown before and after.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use weir_tools::capture;
use weir_tools::cleanup::{Guard, Leftover};
use weir_tools::lab::weir;
use weir_tools::packet::{ETHERNET, Places};
use weir_tools::process;

use super::{DemoError, command, heading, note, outcome};

pub(super) fn run() -> Result<(), DemoError> {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let flows = examples.join("nat.flows");
    let (inside, outside) = (examples.join("inside.pcap"), examples.join("outside.pcap"));
    let directory = std::env::temp_dir().join(format!("weir-demo-{}", std::process::id()));
    // Not one that somebody else has made.
    fs::create_dir(&directory).map_err(|source| file("cannot make a directory for the output", source))?;
    let _directory = Guard::new(Leftover::Directory(directory.clone()));

    heading("The tables, written for Open vSwitch");
    outcome(&read(&flows)?, usize::MAX);
    let before = frames(&inside)?;
    heading("The packets that arrive at port 1, from inside");
    outcome(&shown(&before), 12);
    heading("The packets that arrive at port 2, which nobody asked for");
    outcome(&shown(&frames(&outside)?), 12);

    heading("Through weir");
    let mut replay = Command::new(weir::binary()?);
    replay.arg("replay").arg("--flows").arg(&flows);
    replay.arg("--port").arg(format!("1={}", inside.display()));
    replay.arg("--port").arg(format!("2={}", outside.display()));
    replay.arg("--out").arg(&directory);
    command("weir replay --flows nat.flows --port 1=inside.pcap --port 2=outside.pcap --out DIR");
    outcome(&process::run(&mut replay)?, 40);

    heading("The packets that leave through port 2");
    let after = frames(&directory.join("2.pcap"))?;
    outcome(&shown(&after), 12);

    let translated = |frame: &&Vec<u8>| {
        let places = Places::find(frame, ETHERNET);
        places.is_some_and(|places| {
            places.src(frame).is_some_and(|source| in_pool(source.address))
                && places.l3_checksum_is_right(frame)
                && places.l4_checksum_is_right(frame)
        })
    };
    let good = after.iter().filter(translated).count();
    if good != before.len() || good != after.len() {
        let text = format!(
            "{good} of {} packets are translated with right checksums, {} went in",
            after.len(),
            before.len()
        );
        return Err(DemoError::Unexpected(text));
    }
    note(&format!("all {good} packets carry an address of 10.0.0.1-255, and right checksums"));

    heading("The packets that leave through port 1");
    let back = directory.join("1.pcap");
    let back = if back.exists() { frames(&back)? } else { Vec::new() };
    if !back.is_empty() {
        outcome(&shown(&back), 12);
        return Err(DemoError::Unexpected("packets that nobody asked for went inside".into()));
    }
    note("none");
    Ok(())
}

fn in_pool(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(v4) if v4.octets().starts_with(&[10, 0, 0]))
}

fn shown(frames: &[Vec<u8>]) -> String {
    frames.iter().map(|frame| capture::describe(frame)).collect::<Vec<_>>().join("\n")
}

fn frames(path: &PathBuf) -> Result<Vec<Vec<u8>>, DemoError> {
    let bytes = fs::read(path).map_err(|source| file(&format!("cannot read {}", path.display()), source))?;
    capture::frames(&bytes).ok_or_else(|| DemoError::Unexpected(format!("{} is no capture", path.display())))
}

fn read(path: &Path) -> Result<String, DemoError> {
    fs::read_to_string(path).map_err(|source| file(&format!("cannot read {}", path.display()), source))
}

fn file(what: &str, source: std::io::Error) -> DemoError {
    DemoError::File { what: what.to_owned(), source }
}
