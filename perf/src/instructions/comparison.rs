//! Counts beside the baseline: what grew, what shrank, what is there on one side alone, and whether that may pass.

use std::fmt::Write as _;

use serde::Serialize;

use super::Baseline;

/// Percent that a count may move without being spoken of, and grow without being refused.
pub const TOLERANCE: f64 = 3.0;

/// What became of a bench.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Within the tolerance.
    Same,
    /// More instructions.
    Grown,
    /// Fewer.
    Shrunk,
    /// Not in the baseline.
    New,
    /// In the baseline alone.
    Missing,
}

impl Verdict {
    /// It may not pass.
    const fn fails(self) -> bool {
        matches!(self, Self::Grown | Self::New | Self::Missing)
    }

    const fn remark(self) -> &'static str {
        match self {
            Self::Same => "",
            Self::Grown => "  grown",
            Self::Shrunk => "  shrunk",
            Self::New => "  not in the baseline",
            Self::Missing => "  in the baseline alone",
        }
    }
}

/// A bench on both sides: instructions a packet.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// `function/id`.
    pub name: String,
    /// In the baseline.
    pub old: Option<f64>,
    /// Now.
    pub new: Option<f64>,
    /// By how much it has grown, of the old one.
    pub percent: Option<f64>,
    /// What that means.
    pub verdict: Verdict,
}

impl Row {
    fn new(name: &str, old: Option<f64>, new: Option<f64>) -> Self {
        let percent = old.zip(new).map(|(old, new)| (new - old) / old * 100.0);
        let verdict = match (old, percent) {
            (_, Some(percent)) if percent > TOLERANCE => Verdict::Grown,
            (_, Some(percent)) if percent < -TOLERANCE => Verdict::Shrunk,
            (_, Some(_)) => Verdict::Same,
            (None, None) => Verdict::New,
            (Some(_), None) => Verdict::Missing,
        };
        Self { name: name.to_owned(), old, new, percent, verdict }
    }
}

/// All benches on both sides.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// That of the baseline.
    pub old_compiler: String,
    /// That of the new counts.
    pub new_compiler: String,
    /// As they ran; then those that did not.
    pub rows: Vec<Row>,
}

impl Comparison {
    /// Of the baseline with what was counted now.
    #[must_use]
    pub fn new(old: &Baseline, new: &Baseline) -> Self {
        let find = |side: &Baseline, name: &str| {
            side.benches.iter().find(|bench| bench.name == name).map(|bench| bench.instructions)
        };
        let ran = new
            .benches
            .iter()
            .map(|bench| Row::new(&bench.name, find(old, &bench.name), Some(bench.instructions)));
        let gone = old
            .benches
            .iter()
            .filter(|bench| find(new, &bench.name).is_none())
            .map(|bench| Row::new(&bench.name, Some(bench.instructions), None));
        let (old_compiler, new_compiler) = (old.compiler.clone(), new.compiler.clone());
        Self { old_compiler, new_compiler, rows: ran.chain(gone).collect() }
    }

    /// Both sides come from the same compiler. Otherwise they tell nothing about a change, and everything passes.
    #[must_use]
    pub fn is_gate(&self) -> bool {
        self.old_compiler == self.new_compiler
    }

    /// It may pass.
    #[must_use]
    pub fn passes(&self) -> bool {
        !self.is_gate() || !self.rows.iter().any(|row| row.verdict.fails())
    }

    /// For people.
    #[must_use]
    pub fn table(&self) -> String {
        let width = self.rows.iter().map(|row| row.name.len()).max().unwrap_or_default().max(5);
        let mut text = format!("{:<width$}  baseline       now  percent\n", "bench");
        let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}"));
        for row in &self.rows {
            let percent = row.percent.map_or_else(|| "-".to_owned(), |percent| format!("{percent:+.2}"));
            let (old, new, remark) = (number(row.old), number(row.new), row.verdict.remark());
            let _ = writeln!(text, "{:<width$}  {old:>8}  {new:>8}  {percent:>7}{remark}", row.name);
        }
        text
    }

    /// What follows from it, in sentences.
    #[must_use]
    pub fn conclusion(&self) -> String {
        if !self.is_gate() {
            let Self { old_compiler, new_compiler, .. } = self;
            return format!(
                "The baseline was made with {old_compiler}; this is {new_compiler}. Counts of different compilers tell \
                 nothing about a change: nothing is refused. `perf/instructions --save` makes a baseline of this one."
            );
        }
        let count = |wanted| self.rows.iter().filter(|row| row.verdict == wanted).count();
        let (grown, shrunk) = (count(Verdict::Grown), count(Verdict::Shrunk));
        let (new, missing) = (count(Verdict::New), count(Verdict::Missing));
        if !self.passes() {
            return format!(
                "{grown} grew by more than {TOLERANCE} %, {new} not in the baseline, {missing} in the baseline alone. If \
                 that is meant to be, `perf/instructions --save` renews the baseline; say in the commit what it buys."
            );
        }
        if shrunk > 0 {
            return format!(
                "{shrunk} shrank by more than {TOLERANCE} %: `perf/instructions --save` keeps what was gained."
            );
        }
        format!("No bench grew by more than {TOLERANCE} %.")
    }
}

#[cfg(test)]
mod tests {
    use super::super::baseline::Bench;
    use super::*;

    fn side(compiler: &str, benches: &[(&str, f64)]) -> Baseline {
        let bench =
            |&(name, instructions): &(&str, f64)| Bench { name: name.to_owned(), packets: 64, instructions };
        Baseline { compiler: compiler.to_owned(), benches: benches.iter().map(bench).collect() }
    }

    fn compare(old: &[(&str, f64)], new: &[(&str, f64)]) -> Comparison {
        Comparison::new(&side("rustc 1", old), &side("rustc 1", new))
    }

    #[test]
    fn what_stays_within_three_percent_passes_in_silence() {
        let comparison = compare(&[("a", 100.0), ("b", 100.0)], &[("a", 103.0), ("b", 97.0)]);
        assert!(comparison.passes());
        assert!(comparison.rows.iter().all(|row| row.verdict == Verdict::Same));
        assert_eq!(comparison.conclusion(), "No bench grew by more than 3 %.");
    }

    #[test]
    fn what_grew_by_more_is_refused() {
        let comparison = compare(&[("a", 100.0), ("b", 50.0)], &[("a", 103.01), ("b", 50.0)]);
        assert!(!comparison.passes());
        assert_eq!(
            comparison.table(),
            "bench  baseline       now  percent\n\
             a         100.0     103.0    +3.01  grown\n\
             b          50.0      50.0    +0.00\n"
        );
        let conclusion = comparison.conclusion();
        assert!(conclusion.starts_with("1 grew by more than 3 %, 0 not in"), "{conclusion}");
        assert!(conclusion.contains("perf/instructions --save"), "{conclusion}");
    }

    #[test]
    fn what_shrank_by_more_is_said_and_passes() {
        let comparison = compare(&[("a", 100.0)], &[("a", 50.0)]);
        assert!(comparison.passes());
        assert!(comparison.table().ends_with("a         100.0      50.0   -50.00  shrunk\n"));
        assert!(comparison.conclusion().starts_with("1 shrank by more than 3 %"));
    }

    #[test]
    fn what_is_missing_on_either_side_is_refused() {
        let comparison = compare(&[("a", 1.0), ("gone", 2.0)], &[("come", 3.0), ("a", 1.0)]);
        assert!(!comparison.passes());
        assert_eq!(
            comparison.table(),
            "bench  baseline       now  percent\n\
             come          -       3.0        -  not in the baseline\n\
             a           1.0       1.0    +0.00\n\
             gone        2.0         -        -  in the baseline alone\n"
        );
        assert!(!compare(&[("a", 1.0)], &[("a", 1.0), ("come", 3.0)]).passes());
        assert!(!compare(&[("a", 1.0), ("gone", 3.0)], &[("a", 1.0)]).passes());
    }

    #[test]
    fn counts_of_another_compiler_are_shown_and_refuse_nothing() {
        let comparison = Comparison::new(
            &side("rustc 1", &[("a", 100.0), ("gone", 1.0)]),
            &side("rustc 2", &[("a", 200.0)]),
        );
        assert!(comparison.passes() && !comparison.is_gate());
        assert!(comparison.table().contains("+100.00  grown"));
        let conclusion = comparison.conclusion();
        assert!(
            conclusion.starts_with("The baseline was made with rustc 1; this is rustc 2."),
            "{conclusion}"
        );
        assert!(conclusion.contains("nothing is refused"), "{conclusion}");
    }
}
