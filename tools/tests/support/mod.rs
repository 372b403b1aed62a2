//! What the comparisons with Open vSwitch share.
#![allow(dead_code)] // each test binary uses its part

use weir_tools::exact::{self, Report};
use weir_tools::ovs::{self, OvsDummy};
use weir_tools::scenario::{self, Transcript};
use weir_tools::script::{Script, Table};
use weir_tools::scripts as files;

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

    /// A script with tables.
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

    /// A script with flows.
    pub(crate) fn run_exactly(&mut self, script: &Script) -> Report {
        let failed = |error: ovs::OvsError| Report {
            failures: vec![format!("{}: {error}", script.name)],
            ..Report::default()
        };
        let report = exact::run(&mut self.0, script, true).unwrap_or_else(failed);
        if exact::leaves_traces(script) {
            self.0 = OvsDummy::start().expect("Open vSwitch starts");
        }
        report
    }
}

/// weir's transcript, which must have neither failures nor leaks.
pub(crate) fn run_weir(script: &Script, table: Table) -> Result<Transcript, String> {
    files::weir_through(script, table)
}

/// The scripts of tests/scripts; WEIR_SCRIPTS picks those that have this in their name.
pub(crate) fn scripts() -> Vec<Script> {
    let wanted = std::env::var("WEIR_SCRIPTS").unwrap_or_default();
    let all = files::all().unwrap_or_else(|error| panic!("{error}")).into_iter();
    let all = all.map(|(_, script)| script.unwrap_or_else(|error| panic!("{error}")));
    all.filter(|script| script.name.contains(&wanted)).collect()
}
