//! Debian's Open vSwitch against the packet scripts: what the reference page says is what it does. (A switch
//! of ours is then held against the same scripts, and against its transcripts.)
#![allow(clippy::expect_used, clippy::panic)] // a test may; helpers here are only called by tests

use std::fs;
use std::path::Path;

use weir_tools::ovs::{self, OvsDummy};
use weir_tools::scenario::{self, Transcript};
use weir_tools::script::{Script, Table};
use weir_tools::vocabulary;

/// The reference switch, started again where its secret was unlucky.
struct Reference(OvsDummy);

impl Reference {
    fn start() -> Option<Self> {
        if ovs::daemon().is_none() {
            println!("skipped: needs Open vSwitch (tools/setup test)");
            return None;
        }
        Some(Self(OvsDummy::start().expect("Open vSwitch starts")))
    }

    fn run(&mut self, script: &Script, table: Table) -> Transcript {
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

fn scripts() -> Vec<Script> {
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

#[test]
fn open_vswitch_does_what_the_scripts_say() {
    let Some(mut ovs) = Reference::start() else { return };
    let mut failures = Vec::new();
    for script in scripts() {
        for &table in &script.tables {
            let transcript = ovs.run(&script, table);
            if std::env::var_os("WEIR_SHOW").is_some() {
                println!("== {} through {}\n{}", script.name, table.name(), transcript.lines.join("\n"));
            }
            let title = format!("{} through {}: ", script.name, table.name());
            failures.extend(transcript.failures.into_iter().map(|failure| title.clone() + &failure));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn a_run_again_gives_the_same_transcript_though_the_drawn_ports_differ() {
    let (Some(mut one), Some(mut two)) = (Reference::start(), Reference::start()) else { return };
    for seed in 0..20 {
        for table in Table::ALL {
            let script = vocabulary::script(seed, 100, table);
            let first = one.run(&script, table);
            let second = two.run(&script, table);
            if let Some(difference) = first.difference(&second) {
                panic!("the same script, twice:\n{difference}\nin\n{script}");
            }
            assert!(first.failures.is_empty(), "{}\nin\n{script}", first.failures.join("\n"));
        }
    }
}
