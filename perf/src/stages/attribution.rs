//! Which stage of a packet's way a sample belongs to: that of the innermost function that belongs to one at all. Files
//! that several stages use (checksums, the table's parts, the standard library) have no rule, so they count for whoever
//! uses them.

use serde::Serialize;

use super::symbols::Frame;

/// A stage of the way of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Not weir's: the bench writes the packets that weir then receives.
    Generate,
    /// The driver's receive function, and what makes a burst of it.
    Receive,
    /// Headers: offsets, and the key where one is needed.
    Parse,
    /// Tuple, checksums, hash, index: the tracker's first two stages.
    LookUp,
    /// Trajectories, caches, tables: what to do with the packet.
    Classify,
    /// Its connection's state, windows, deadline.
    Track,
    /// A connection begins, and gets its translation.
    SetUp,
    /// Addresses, ports, checksums are written.
    Rewrite,
    /// Packets and bytes of connections, flows, ports.
    Account,
    /// The steps that send, and the driver's transmit function.
    Transmit,
    /// Sweeps between rounds, jobs of the control side.
    Housekeeping,
    /// The loop around all of that, the kernel, what no rule knows.
    Rest,
}

impl Stage {
    /// All, in the order in which a packet meets them.
    pub const ALL: [Self; 12] = [
        Self::Generate,
        Self::Receive,
        Self::Parse,
        Self::LookUp,
        Self::Classify,
        Self::Track,
        Self::SetUp,
        Self::Rewrite,
        Self::Account,
        Self::Transmit,
        Self::Housekeeping,
        Self::Rest,
    ];

    /// For people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Generate => "generate (the bench)",
            Self::Receive => "receive",
            Self::Parse => "parse",
            Self::LookUp => "look up",
            Self::Classify => "classify",
            Self::Track => "track",
            Self::SetUp => "set up",
            Self::Rewrite => "rewrite",
            Self::Account => "account",
            Self::Transmit => "transmit",
            Self::Housekeeping => "housekeeping",
            Self::Rest => "rest",
        }
    }
}

/// Functions of a stage: the first rule that fits a frame counts.
struct Rule {
    /// A file, or a folder with a slash at its end, from the workspace's root.
    at: &'static str,
    /// Functions in it; all, if none is named.
    functions: &'static [&'static str],
    /// `None` if they belong to whoever uses them.
    stage: Option<Stage>,
}

const fn all(at: &'static str, stage: Stage) -> Rule {
    Rule { at, functions: &[], stage: Some(stage) }
}

const fn some(at: &'static str, functions: &'static [&'static str], stage: Stage) -> Rule {
    Rule { at, functions, stage: Some(stage) }
}

const fn shared(at: &'static str) -> Rule {
    Rule { at, functions: &[], stage: None }
}

const RULES: &[Rule] = &[
    all("perf/src/", Stage::Generate),
    all("ffi/src/source.rs", Stage::Generate),
    some("ffi/src/queue.rs", &["tx_burst", "tx_burst_or_drop", "flush"], Stage::Transmit),
    all("ffi/src/queue.rs", Stage::Receive),
    shared("ffi/"),
    some("src/lcore/poll.rs", &["between"], Stage::Housekeeping),
    some("src/lcore/poll.rs", &["round", "examine"], Stage::Receive),
    all("src/lcore/arrivals.rs", Stage::Receive),
    all("src/lcore/mailboxes.rs", Stage::Receive),
    all("src/lcore/transmit.rs", Stage::Transmit),
    all("src/lcore/", Stage::Rest),
    some("src/pipeline/worker.rs", &["housekeeping", "revalidate", "reclaim", "tidy"], Stage::Housekeeping),
    some("src/pipeline/worker.rs", &["parse"], Stage::Parse),
    some("src/pipeline/worker.rs", &["track", "meet", "pass"], Stage::Track),
    some("src/pipeline/worker.rs", &["count", "count_received"], Stage::Account),
    some("src/pipeline/worker.rs", &["advance", "steps", "edit"], Stage::Transmit),
    some("src/pipeline/worker.rs", &["process", "begin", "run", "take_snapshot"], Stage::Rest),
    some("src/pipeline/express.rs", &["run_tracked"], Stage::Track),
    some("src/pipeline/express.rs", &["run_output"], Stage::Transmit),
    some("src/pipeline/express.rs", &["count_sent"], Stage::Account),
    some("src/pipeline/plain.rs", &["take_plain", "run_any"], Stage::Parse),
    some("src/pipeline/plain.rs", &["run_plain", "run_alike_plain"], Stage::Track),
    some("src/pipeline/plain.rs", &["run_openings", "foresee_opening"], Stage::SetUp),
    some("src/pipeline/megaflow.rs", &["sweep", "report", "reclaim"], Stage::Housekeeping),
    some("src/pipeline/megaflow.rs", &["count"], Stage::Account),
    some("src/pipeline/packet.rs", &["length", "tcp_flags"], Stage::Account),
    all("src/pipeline/packet.rs", Stage::Parse),
    all("src/pipeline/extract.rs", Stage::Parse),
    all("src/pipeline/steer.rs", Stage::Parse),
    all("src/pipeline/counters.rs", Stage::Account),
    all("src/pipeline/rewrite.rs", Stage::Rewrite),
    all("src/pipeline/payload.rs", Stage::Rewrite),
    all("src/pipeline/order.rs", Stage::Track),
    shared("src/pipeline/frame.rs"),
    all("src/pipeline/", Stage::Classify),
    all("src/flow/", Stage::Classify),
    some("shard/src/shard.rs", &["sweep", "sweep_to", "look_at"], Stage::Housekeeping),
    some("shard/src/admission.rs", &["sweep_hungry"], Stage::Housekeeping),
    some("shard/src/conntrack.rs", &["apply_nat"], Stage::Rewrite),
    some(
        "shard/src/conntrack.rs",
        &["begin", "start", "admit", "choose_reply", "first_packet"],
        Stage::SetUp,
    ),
    all("shard/src/translation.rs", Stage::SetUp),
    all("shard/src/lookup.rs", Stage::LookUp),
    some("shard/src/plain.rs", &["read"], Stage::Parse),
    some("shard/src/plain.rs", &["prepare_plain", "prefetch_plain"], Stage::LookUp),
    some("shard/src/plain.rs", &["open_plain", "foresee_plain"], Stage::SetUp),
    all("shard/src/steering/", Stage::Parse),
    all("shard/src/table/account.rs", Stage::Account),
    shared("shard/src/table/"),
    shared("shard/src/wheel.rs"),
    shared("shard/src/epoch/"),
    all("shard/src/", Stage::Track),
    all("nat/src/rewrite.rs", Stage::Rewrite),
    all("nat/src/", Stage::SetUp),
    all("wire/src/layers.rs", Stage::Parse),
    shared("wire/src/"),
    shared("numa/src/"),
    shared("src/"),
];

impl Rule {
    /// Where in a path the part begins that the rule names.
    fn place(&self, file: &str) -> Option<usize> {
        let at = file.rfind(self.at)?;
        let is_whole = at == 0 || file[..at].ends_with('/');
        let ends = self.at.ends_with('/') || at + self.at.len() == file.len();
        // Crates of others and the standard library have folders of the same names.
        (is_whole && ends && !file.contains("/registry/") && !file.contains("/rustc/")).then_some(at)
    }

    fn fits(&self, frame: &Frame) -> bool {
        self.place(&frame.file).is_some()
            && (self.functions.is_empty() || self.functions.contains(&frame.function.as_str()))
    }
}

/// A line of our source.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Line {
    /// From the workspace's root.
    pub file: String,
    /// From 1.
    pub line: u32,
}

/// The stage of a sample whose functions are these, the innermost first, and the innermost line of our own.
#[must_use]
pub fn attribute(frames: &[Frame]) -> (Stage, Option<Line>) {
    let rule = |frame: &Frame| RULES.iter().find(|rule| rule.fits(frame));
    let stage = frames.iter().find_map(|frame| rule(frame)?.stage).unwrap_or(Stage::Rest);
    // Code that the compiler has made of several lines has number 0.
    let line = frames.iter().filter(|frame| frame.line > 0).find_map(|frame| {
        let at = rule(frame)?.place(&frame.file)?;
        Some(Line { file: frame.file.get(at..)?.to_owned(), line: frame.line })
    });
    (stage, line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(path: &[(&str, &str)]) -> Vec<Frame> {
        let frame = |&(file, function): &(&str, &str)| Frame {
            file: file.to_owned(),
            line: 7,
            function: function.to_owned(),
        };
        path.iter().map(frame).collect()
    }

    fn stage(path: &[(&str, &str)]) -> Stage {
        attribute(&frames(path)).0
    }

    const CORE: (&str, &str) = ("/rustc/5980/library/core/src/ptr/mod.rs", "read");
    const CHECKSUM: (&str, &str) = ("/w/wire/src/checksum.rs", "fold");
    const POLL: (&str, &str) = ("/w/src/lcore/poll.rs", "run");

    #[test]
    fn the_innermost_function_with_a_stage_counts() {
        let execute = ("/w/shard/src/conntrack.rs", "execute");
        for (path, wanted) in [
            (&[CORE, CHECKSUM, ("/w/nat/src/rewrite.rs", "translate_v4"), execute, POLL][..], Stage::Rewrite),
            (&[CHECKSUM, ("/w/shard/src/lookup.rs", "prepare"), POLL], Stage::LookUp),
            (&[("/w/shard/src/table/mod.rs", "holds"), execute], Stage::Track),
            (&[CHECKSUM, ("/w/shard/src/plain.rs", "read"), POLL], Stage::Parse),
            (
                &[("/w/shard/src/table/mod.rs", "candidate"), ("/w/shard/src/plain.rs", "prefetch_plain")],
                Stage::LookUp,
            ),
            (
                &[("/w/shard/src/table/mod.rs", "renew"), ("/w/shard/src/plain.rs", "execute_plain")],
                Stage::Track,
            ),
            (&[("/w/shard/src/table/account.rs", "count_in_line"), execute], Stage::Account),
            (&[("/w/shard/src/table/mod.rs", "find"), ("/w/shard/src/plain.rs", "open_plain")], Stage::SetUp),
            (&[("/w/shard/src/conntrack.rs", "apply_nat"), execute], Stage::Rewrite),
            (&[("/w/nat/src/choose.rs", "choose"), execute], Stage::SetUp),
            (&[("/w/src/pipeline/express.rs", "foresee"), POLL], Stage::Classify),
            (&[("/w/src/pipeline/worker.rs", "advance"), POLL], Stage::Transmit),
            (&[("/w/src/pipeline/worker.rs", "process"), POLL], Stage::Rest),
            (&[("/w/src/lcore/poll.rs", "between"), POLL], Stage::Housekeeping),
            (&[("/w/src/lcore/poll.rs", "round"), POLL], Stage::Receive),
            (&[("/w/ffi/src/queue.rs", "tx_burst"), POLL], Stage::Transmit),
            (&[("/w/ffi/src/queue.rs", "rx_burst"), POLL], Stage::Receive),
            (
                &[("ffi/dpdk-sys/shim/shim.h", "weir_rx_burst"), ("/w/ffi/src/queue.rs", "rx_burst")],
                Stage::Receive,
            ),
            (&[("/w/perf/src/generator.rs", "fill"), ("/w/ffi/src/source.rs", "fill")], Stage::Generate),
            (&[CORE], Stage::Rest),
            (&[], Stage::Rest),
        ] {
            assert_eq!(stage(path), wanted, "{path:?}");
        }
    }

    #[test]
    fn other_people_s_files_of_the_same_name_are_not_ours() {
        let theirs = ("/home/user/.cargo/registry/src/index/slab-0.4/src/flow/mod.rs", "get");
        assert_eq!(stage(&[theirs, ("/w/nat/src/rewrite.rs", "translate")]), Stage::Rewrite);
        assert_eq!(stage(&[("/w/mynat/src/choose.rs", "x")]), Stage::Rest);
        assert_eq!(stage(&[("/w/shard/src/lookup.rs.old", "x")]), Stage::Track, "a file in our folder");
    }

    #[test]
    fn the_innermost_line_of_ours_is_named_from_the_root() {
        let path = frames(&[CORE, CHECKSUM, ("/w/nat/src/rewrite.rs", "translate_v4")]);
        let line = Line { file: "wire/src/checksum.rs".to_owned(), line: 7 };
        assert_eq!(attribute(&path), (Stage::Rewrite, Some(line)));
        assert_eq!(attribute(&frames(&[CORE])), (Stage::Rest, None));
        let mut merged = path;
        merged.iter_mut().take(2).for_each(|frame| frame.line = 0);
        let line = Line { file: "nat/src/rewrite.rs".to_owned(), line: 7 };
        assert_eq!(attribute(&merged), (Stage::Rewrite, Some(line)), "no line, so the next one around it");
    }

    #[test]
    fn every_rule_names_a_file_or_folder_that_is_there() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for rule in RULES {
            assert!(root.join(rule.at).exists(), "{}", rule.at);
        }
    }

    #[test]
    fn every_function_that_a_rule_names_is_in_its_file() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for rule in RULES.iter().filter(|rule| !rule.functions.is_empty()) {
            let text = std::fs::read_to_string(root.join(rule.at)).expect("a file");
            for function in rule.functions {
                assert!(text.contains(&format!("fn {function}")), "{}: {function}", rule.at);
            }
        }
    }
}
