//! Has points measured, each in a process of its own ahead of ordinary ones, over several rounds in turn.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::BenchError;
use crate::hugepages::Hugepages;
use crate::point::{Outcome, Point};
use crate::process::{Background, Stop};

/// Longest that a point may take beside what it counts.
const PATIENCE: Duration = Duration::from_secs(300);
/// Bytes of hugepages for a connection and its share of the index, accounts and timers; somewhat more than it takes.
const CONNECTION: u64 = 224;
/// Pages of 2 MiB for packets (memory_mib's default) and what DPDK and the lcore take beside.
const PAGES: u64 = 256 + 64;

/// Pages of 2 MiB that a point needs.
#[must_use]
pub fn pages(point: &Point) -> u64 {
    PAGES + (u64::from(point.capacity().max(1_000_000)) * CONNECTION).div_ceil(2 << 20)
}

/// Hugepages for all `points`. Where there is no memory for so many, the largest points go, with a word about it; where
/// there are none at all, the rest is measured in profile lab.
pub fn reserve(points: &mut Vec<Point>, directory: &Path) -> Option<Hugepages> {
    while let Some(wanted) = points.iter().map(pages).max() {
        match Hugepages::reserve(wanted, &directory.join("huge")) {
            Ok(hugepages) => return Some(hugepages),
            Err(reason) => {
                let smaller: Vec<Point> =
                    points.iter().filter(|point| pages(point) < wanted).cloned().collect();
                if smaller.is_empty() {
                    eprintln!("No hugepages ({reason}): profile lab.");
                    points.iter_mut().for_each(|point| point.lab = true);
                    return None;
                }
                eprintln!("{reason}: without the points that need them.");
                *points = smaller;
            }
        }
    }
    None
}

/// Starts the program that measures.
#[derive(Clone, Debug)]
pub struct Runner<'a> {
    /// `weir-bench`, of this build or another.
    pub program: PathBuf,
    /// For logs and what a point writes.
    pub directory: &'a Path,
    /// Ends every wait.
    pub stop: &'a Stop,
}

impl Runner<'_> {
    /// Measures one point.
    ///
    /// # Errors
    /// The process's own, or what it printed is not understood.
    pub fn run(&self, point: &Point) -> Result<Outcome, BenchError> {
        let options = point.options();
        let words: Vec<&str> = std::iter::once("one").chain(options.iter().map(String::as_str)).collect();
        let program: OsString = self.program.clone().into_os_string();
        let log = self.directory.join("one.log");
        let process = Background::start(&program, &words, &[("TMPDIR", self.directory)], log)?;
        let text = process.finish(self.stop, PATIENCE + point.time())?;
        let outcome = text.lines().rev().find_map(|line| serde_json::from_str(line).ok());
        outcome.ok_or(BenchError::Answer { what: "what weir-bench one has measured", text })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_million_connections_take_two_gib_and_a_thousand_as_much_as_a_million() {
        let of = |connections| pages(&Point { connections, ..Point::default() });
        assert_eq!(of(1000), of(1_000_000));
        assert!((1024..2048).contains(&(of(10_000_000) - PAGES)));
    }
}
