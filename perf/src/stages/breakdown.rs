//! Samples, counted by stage and by line of source.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use super::StagesError;
use super::attribution::{Line, Stage, attribute};
use super::sampling::Sample;
use super::symbols::{Frame, Symbols};

/// Where samples were.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Breakdown {
    /// By stage.
    stages: BTreeMap<Stage, u64>,
    /// By line of our source, with the stage that most of its samples belong to.
    lines: HashMap<Line, BTreeMap<Stage, u64>>,
}

impl Breakdown {
    /// Of samples of a program.
    ///
    /// # Errors
    /// When its line tables are damaged.
    pub fn new(samples: &[Sample], program: &Path, symbols: &Symbols) -> Result<Self, StagesError> {
        let program = program.to_string_lossy();
        let mut known: HashMap<u64, Vec<Frame>> = HashMap::new();
        let mut breakdown = Self::default();
        for Sample(places) in samples {
            let mut frames = Vec::new();
            // What the kernel does in between is nobody's.
            let is_kernel = places.first().is_some_and(|place| place.object.starts_with("[kernel"));
            for (depth, place) in places.iter().enumerate().filter(|_| !is_kernel) {
                if place.object != program {
                    continue;
                }
                // A caller's address is that of the instruction behind its call.
                let offset = place.offset - u64::from(depth > 0 && place.offset > 0);
                let here = match known.entry(offset) {
                    Entry::Occupied(entry) => entry.into_mut(),
                    Entry::Vacant(entry) => entry.insert(symbols.frames(offset)?),
                };
                frames.extend(here.iter().cloned());
            }
            breakdown.add(&frames);
        }
        Ok(breakdown)
    }

    fn add(&mut self, frames: &[Frame]) {
        let (stage, line) = attribute(frames);
        *self.stages.entry(stage).or_default() += 1;
        if let Some(line) = line {
            *self.lines.entry(line).or_default().entry(stage).or_default() += 1;
        }
    }

    /// Samples in all.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.stages.values().sum()
    }

    /// Cycles a packet of each stage, where all of a packet take `cycles`: those of rounds that received something. What
    /// is done between rounds is not in it, so housekeeping comes on top.
    #[must_use]
    pub fn cycles(&self, cycles: f64) -> BTreeMap<Stage, f64> {
        let one = self.cycles_of_a_sample(cycles);
        self.stages.iter().map(|(stage, samples)| (*stage, number(*samples) * one)).collect()
    }

    fn cycles_of_a_sample(&self, cycles: f64) -> f64 {
        let between = self.stages.get(&Stage::Housekeeping).copied().unwrap_or_default();
        cycles / number(self.samples().saturating_sub(between).max(1))
    }

    /// The lines where most cycles went, with their stage, at most `count` of them.
    #[must_use]
    pub fn hottest(&self, cycles: f64, count: usize) -> Vec<(Line, Stage, f64)> {
        let one = self.cycles_of_a_sample(cycles);
        let row = |(line, stages): (&Line, &BTreeMap<Stage, u64>)| {
            let stage =
                stages.iter().max_by_key(|(_, samples)| **samples).map_or(Stage::Rest, |(stage, _)| *stage);
            (line.clone(), stage, stages.values().sum::<u64>())
        };
        let mut rows: Vec<(Line, Stage, u64)> = self.lines.iter().map(row).collect();
        rows.sort_by(|a, b| b.2.cmp(&a.2).then_with(|| a.0.cmp(&b.0)));
        rows.into_iter()
            .take(count)
            .map(|(line, stage, samples)| (line, stage, number(samples) * one))
            .collect()
    }
}

#[expect(clippy::cast_precision_loss, reason = "samples of a few seconds")]
fn number(samples: u64) -> f64 {
    samples as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(file: &str, line: u32, function: &str) -> Frame {
        Frame { file: file.to_owned(), line, function: function.to_owned() }
    }

    fn breakdown() -> Breakdown {
        let mut breakdown = Breakdown::default();
        for (file, line, function, times) in [
            ("/w/wire/src/layers.rs", 60, "parse", 2),
            ("/w/wire/src/layers.rs", 61, "parse", 1),
            ("/w/shard/src/lookup.rs", 5, "prepare", 5),
            ("/w/src/lcore/poll.rs", 9, "between", 2),
        ] {
            for _ in 0..times {
                breakdown.add(&[frame(file, line, function)]);
            }
        }
        breakdown
    }

    #[test]
    fn stages_sum_up_to_the_cycles_of_a_packet_beside_housekeeping() {
        let breakdown = breakdown();
        assert_eq!(breakdown.samples(), 10);
        let cycles = breakdown.cycles(80.0);
        assert_eq!(cycles.get(&Stage::Parse), Some(&30.0));
        assert_eq!(cycles.get(&Stage::LookUp), Some(&50.0));
        assert_eq!(cycles.get(&Stage::Housekeeping), Some(&20.0));
        assert_eq!(cycles.get(&Stage::Track), None);
    }

    #[test]
    fn the_hottest_lines_come_first() {
        let line = |file: &str, line| Line { file: file.to_owned(), line };
        assert_eq!(
            breakdown().hottest(80.0, 3),
            [
                (line("shard/src/lookup.rs", 5), Stage::LookUp, 50.0),
                (line("src/lcore/poll.rs", 9), Stage::Housekeeping, 20.0),
                (line("wire/src/layers.rs", 60), Stage::Parse, 20.0),
            ]
        );
    }

    #[test]
    fn without_samples_there_is_nothing() {
        let none = Breakdown::default();
        assert_eq!((none.samples(), none.cycles(10.0).len(), none.hottest(10.0, 5).len()), (0, 0, 0));
    }
}
