//! The breakdown for people, as a section of docs/performance.md, and for programs.

use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;

use super::attribution::{Line, Stage};
use super::breakdown::Breakdown;
use crate::machine::Machine;
use crate::point::Point;
use crate::results::short;

/// The breakdown of one point.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Section {
    /// What was measured.
    pub point: Point,
    /// Cycles a packet, without sampling.
    pub cycles_per_packet: f64,
    /// Samples that the rest was made of.
    pub samples: u64,
    /// Those of each stage; all but housekeeping sum up to those of the packet.
    pub stages: Vec<StageCycles>,
    /// The lines that most went to.
    pub lines: Vec<LineCycles>,
}

/// Cycles of one stage.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct StageCycles {
    /// Which.
    pub stage: Stage,
    /// For each packet.
    pub cycles: f64,
}

/// Cycles of one line of source.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LineCycles {
    /// Where it is.
    #[serde(flatten)]
    pub line: Line,
    /// What most of its samples belong to.
    pub stage: Stage,
    /// For each packet.
    pub cycles: f64,
}

impl Section {
    /// Of a point that takes `cycles` a packet, with its `count` hottest lines.
    #[must_use]
    pub fn new(point: Point, cycles: f64, breakdown: &Breakdown, count: usize) -> Self {
        let stages = breakdown.cycles(cycles).into_iter();
        let lines = breakdown.hottest(cycles, count).into_iter();
        Self {
            point,
            cycles_per_packet: cycles,
            samples: breakdown.samples(),
            stages: stages.map(|(stage, cycles)| StageCycles { stage, cycles }).collect(),
            lines: lines.map(|(line, stage, cycles)| LineCycles { line, stage, cycles }).collect(),
        }
    }

    fn cycles(&self, stage: Stage) -> Option<f64> {
        self.stages.iter().find(|cycles| cycles.stage == stage).map(|cycles| cycles.cycles)
    }
}

/// What was measured where, and one JSON line.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The machine.
    pub machine: Machine,
    /// By number of connections.
    pub sections: Vec<Section>,
}

impl Report {
    /// Tables, with the lines of source from below `root`, as they are there now.
    #[must_use]
    pub fn markdown(&self, root: &Path) -> String {
        let mut text = format!("{}.\n\n| cycles a packet |", self.machine.sentence());
        for section in &self.sections {
            let Point { traffic, connections, .. } = section.point;
            let _ = write!(text, " {}, {} |", traffic.name(), short(connections));
        }
        text.push_str("\n|---|");
        self.sections.iter().for_each(|_| text.push_str("---:|"));
        text.push('\n');
        let row = |text: &mut String, name: &str, cycles: &dyn Fn(&Section) -> Option<f64>| {
            if self.sections.iter().all(|section| cycles(section).is_none()) {
                return;
            }
            let _ = write!(text, "| {name} |");
            for section in &self.sections {
                let _ = write!(text, " {:.1} |", cycles(section).unwrap_or_default());
            }
            text.push('\n');
        };
        for stage in Stage::ALL.into_iter().filter(|stage| *stage != Stage::Housekeeping) {
            row(&mut text, stage.name(), &|section| section.cycles(stage));
        }
        row(&mut text, "**a packet, all of that**", &|section| Some(section.cycles_per_packet));
        row(&mut text, "housekeeping between bursts, beside it", &|section| {
            section.cycles(Stage::Housekeeping)
        });
        for section in &self.sections {
            let Point { traffic, connections, .. } = section.point;
            let _ = write!(
                text,
                "\nThe lines that cost most, {}, {} connections ({} samples):\n\n\
                 | cycles | stage | line | |\n|---:|---|---|---|\n",
                traffic.name(),
                short(connections),
                section.samples
            );
            for LineCycles { line, stage, cycles } in &section.lines {
                let source = source(root, line);
                let Line { file, line } = line;
                let _ = writeln!(text, "| {cycles:.1} | {} | {file}:{line} | {source} |", stage.name());
            }
        }
        text
    }
}

/// A line of source for a table's cell: in backticks, and not too long.
fn source(root: &Path, line: &Line) -> String {
    const LONGEST: usize = 72;
    let text = std::fs::read_to_string(root.join(&line.file)).unwrap_or_default();
    let place = usize::try_from(line.line).unwrap_or(usize::MAX).saturating_sub(1);
    let text = text.lines().nth(place).unwrap_or_default().trim();
    if text.is_empty() {
        return String::new();
    }
    let mut short: String = text.chars().take(LONGEST).collect();
    if short.len() < text.len() {
        short.push_str("...");
    }
    format!("`{}`", short.replace('|', "\\|").replace('`', "'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_reads_as_tables() {
        let line = Line { file: "src/a.rs".to_owned(), line: 2 };
        let section = |connections, factor: f64| Section {
            point: Point { connections, ..Point::default() },
            cycles_per_packet: 100.0 * factor,
            samples: 1000,
            stages: vec![
                StageCycles { stage: Stage::Receive, cycles: 30.0 * factor },
                StageCycles { stage: Stage::LookUp, cycles: 70.0 * factor },
                StageCycles { stage: Stage::Housekeeping, cycles: 0.5 },
            ],
            lines: vec![LineCycles { line: line.clone(), stage: Stage::LookUp, cycles: 12.34 }],
        };
        let root = std::env::temp_dir().join(format!("weir-stages-{}", std::process::id()));
        std::fs::create_dir_all(root.join("src")).expect("a folder");
        std::fs::write(root.join("src/a.rs"), "fn a() {\n    let b = c | d; // `e`\n}\n").expect("a file");
        let report =
            Report { machine: Machine::default(), sections: vec![section(1000, 1.0), section(100_000, 2.0)] };
        let text = report.markdown(&root);
        std::fs::remove_dir_all(&root).expect("removed");
        let (_, tables) = text.split_once("\n\n").expect("a sentence first");
        assert_eq!(
            tables,
            "| cycles a packet | established, 1 k | established, 100 k |\n\
             |---|---:|---:|\n\
             | receive | 30.0 | 60.0 |\n\
             | look up | 70.0 | 140.0 |\n\
             | **a packet, all of that** | 100.0 | 200.0 |\n\
             | housekeeping between bursts, beside it | 0.5 | 0.5 |\n\
             \n\
             The lines that cost most, established, 1 k connections (1000 samples):\n\
             \n\
             | cycles | stage | line | |\n\
             |---:|---|---|---|\n\
             | 12.3 | look up | src/a.rs:2 | `let b = c \\| d; // 'e'` |\n\
             \n\
             The lines that cost most, established, 100 k connections (1000 samples):\n\
             \n\
             | cycles | stage | line | |\n\
             |---:|---|---|---|\n\
             | 12.3 | look up | src/a.rs:2 | `let b = c \\| d; // 'e'` |\n"
        );
    }

    #[test]
    fn a_line_that_is_not_there_is_empty() {
        assert_eq!(source(Path::new("/nowhere"), &Line { file: "a.rs".to_owned(), line: 0 }), "");
    }
}
