//! What parts of the packet path are worth: established connections as the program ships, and with one part taken away.
//! `weir-ablation` (`perf/ablation`) is the program.

use std::fmt::Write as _;

use serde::Serialize;

use crate::machine::Machine;
use crate::point::Point;
use crate::results::{Figure, short, spread};
use crate::statistics::Summary;

/// The program, or what is taken away from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Variant {
    /// As it ships.
    Whole,
    /// Nothing is prefetched: built with the feature no-prefetch.
    NoPrefetch,
    /// Packets of known connections go through the classifier each time.
    NoTrajectories,
    /// Bursts of 8 in place of 64.
    Burst8,
    /// Bursts of 4.
    Burst4,
    /// One packet at a time.
    Burst1,
}

impl Variant {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Whole, Self::NoPrefetch, Self::NoTrajectories, Self::Burst8, Self::Burst4, Self::Burst1];

    /// In words.
    #[must_use]
    pub const fn description(self) -> &'static str {
        match self {
            Self::Whole => "as it ships",
            Self::NoPrefetch => "without prefetch",
            Self::NoTrajectories => "without trajectories",
            Self::Burst8 => "bursts of 8",
            Self::Burst4 => "bursts of 4",
            Self::Burst1 => "bursts of 1",
        }
    }

    /// The point measured in this way.
    #[must_use]
    pub fn of(self, point: &Point) -> Point {
        let point = point.clone();
        match self {
            Self::Whole | Self::NoPrefetch => point,
            Self::NoTrajectories => Point { no_trajectories: true, ..point },
            Self::Burst8 => Point { burst: 8, ..point },
            Self::Burst4 => Point { burst: 4, ..point },
            Self::Burst1 => Point { burst: 1, ..point },
        }
    }
}

/// A variant that was measured once.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// Which.
    pub variant: Variant,
    /// What came of it.
    #[serde(flatten)]
    pub figure: Figure,
}

/// All rounds of a variant over so many connections.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Which.
    pub variant: Variant,
    /// Connections.
    pub connections: u32,
    /// Cycles for each packet.
    pub cycles: Summary,
    /// By those of the whole program in the same round, median.
    pub factor: Option<f64>,
}

/// Everything, for one JSON file.
#[derive(Clone, Debug, Serialize)]
pub struct Results {
    /// On what.
    pub machine: Machine,
    /// How often each variant was measured.
    pub rounds: u32,
    /// Every measurement.
    pub figures: Vec<Measured>,
    /// Their medians.
    pub rows: Vec<Row>,
}

/// One row for each variant and number of connections, in the figures' order.
#[must_use]
pub fn rows(figures: &[Measured]) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for first in figures {
        let (variant, connections) = (first.variant, first.figure.point.connections);
        if rows.iter().any(|row| (row.variant, row.connections) == (variant, connections)) {
            continue;
        }
        let of = |variant| {
            let same = move |other: &&Measured| {
                (other.variant, other.figure.point.connections) == (variant, connections)
            };
            figures.iter().filter(same).map(|measured| &measured.figure)
        };
        let factor = |figure: &Figure| {
            let whole = of(Variant::Whole).find(|whole| whole.round == figure.round)?;
            Some(figure.cycles_per_packet / whole.cycles_per_packet)
        };
        let cycles: Vec<f64> = of(variant).map(|figure| figure.cycles_per_packet).collect();
        let factors: Vec<f64> = of(variant).filter_map(factor).collect();
        if let Some(cycles) = Summary::of(&cycles) {
            let factor = Summary::of(&factors).map(|factors| factors.median);
            rows.push(Row { variant, connections, cycles, factor });
        }
    }
    rows
}

impl Results {
    /// A table in markdown, which people can read as it is: a line for each variant, two columns for each number of
    /// connections.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut sizes: Vec<u32> = self.rows.iter().map(|row| row.connections).collect();
        sizes.sort_unstable();
        sizes.dedup();
        let mut text =
            format!("{} rounds: {}.\n\n| established, NAT both ways |", self.rounds, self.machine.sentence());
        for &size in &sizes {
            let _ = write!(text, " {} | factor |", short(size));
        }
        text.push_str("\n|---|");
        sizes.iter().for_each(|_| text.push_str("---:|---:|"));
        for variant in Variant::ALL {
            if !self.rows.iter().any(|row| row.variant == variant) {
                continue;
            }
            let _ = write!(text, "\n| {} |", variant.description());
            for &size in &sizes {
                match self.rows.iter().find(|row| (row.variant, row.connections) == (variant, size)) {
                    None => text.push_str(" - | - |"),
                    Some(row) => {
                        let factor =
                            row.factor.map_or_else(|| "-".to_owned(), |factor| format!("{factor:.2}"));
                        let _ = write!(text, " {} | {factor} |", spread(row.cycles));
                    }
                }
            }
        }
        text.push('\n');
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::point::Outcome;

    fn measured(variant: Variant, connections: u32, round: u32, cycles: u64) -> Measured {
        let point = variant.of(&Point { connections, ..Point::default() });
        let outcome = Outcome { packets: 10, cycles, ..Outcome::default() };
        Measured { variant, figure: Figure::new(point, round, outcome) }
    }

    #[test]
    fn factors_are_of_one_round_each() {
        let figures = vec![
            measured(Variant::Whole, 1000, 1, 1000),
            measured(Variant::NoPrefetch, 1000, 1, 2000),
            measured(Variant::Whole, 1000, 2, 4000),
            measured(Variant::NoPrefetch, 1000, 2, 8000),
            measured(Variant::Whole, 100_000, 1, 3000),
        ];
        let results = Results { machine: Machine::default(), rounds: 2, rows: rows(&figures), figures };
        let table: Vec<String> = results.markdown().lines().skip(2).map(str::to_owned).collect();
        assert_eq!(
            table,
            [
                "| established, NAT both ways | 1 k | factor | 100 k | factor |",
                "|---|---:|---:|---:|---:|",
                "| as it ships | 250 (100 to 400) | 1.00 | 300 (300 to 300) | 1.00 |",
                "| without prefetch | 500 (200 to 800) | 2.00 | - | - |",
            ]
        );
    }

    #[test]
    fn each_variant_takes_one_part_away() {
        let whole = Point::default();
        let differing = Variant::ALL.map(|variant| variant.of(&whole) != whole);
        assert_eq!(differing, [false, false, true, true, true, true]);
    }
}
