//! What the comparisons with Open vSwitch share.
#![allow(dead_code)] // each test binary uses its part

use std::fs;
use std::path::Path;

use weir_tools::ovs::{self, OvsDummy};
use weir_tools::scenario::{self, Transcript};
use weir_tools::script::{Script, Table};
use weir_tools::weir::WeirSwitch;

/// The reference switch, started again where its secret was unlucky.
pub(crate) struct Reference(pub(crate) OvsDummy);

impl Reference {
    pub(crate) fn start() -> Option<Self> {
        if ovs::daemon().is_none() {
            println!("skipped: needs Open vSwitch (tools/setup test)");
            return None;
        }
        Some(Self(OvsDummy::start().expect("Open vSwitch starts")))
    }

    pub(crate) fn run(&mut self, script: &Script, table: Table) -> Transcript {
        for _ in 0..10 {
            let transcript = scenario::run(&mut self.0, script, table).expect("Open vSwitch lives");
            if transcript.leaks.is_empty() {
                return transcript;
            }
            self.0 = OvsDummy::start().expect("Open vSwitch starts");
        }
        panic!("Open vSwitch sent untranslated packets ten times over: that is no bad luck\n{script}");
    }
}

/// weir's transcript, which must have neither failures nor leaks.
pub(crate) fn run_weir(script: &Script, table: Table) -> Result<Transcript, String> {
    let mut weir = WeirSwitch::start().expect("weir starts");
    let transcript = scenario::run(&mut weir, script, table).expect("weir takes the flows");
    let wrong: Vec<_> = transcript.failures.iter().chain(&transcript.leaks).cloned().collect();
    if wrong.is_empty() { Ok(transcript) } else { Err(wrong.join("\n")) }
}

/// The scripts of tools/scenarios.
pub(crate) fn scripts() -> Vec<Script> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let files =
        fs::read_dir(directory).expect("tools/scenarios is there").map(|file| file.expect("read").path());
    let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "pkt")).collect();
    files.sort();
    let read = |path: &std::path::PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Script::parse(&name, &fs::read_to_string(path).expect("read"))
            .unwrap_or_else(|error| panic!("{error}"))
    };
    files.iter().map(read).collect()
}
