//! The counts that are part of the project: a JSON file with a line for each bench, so that a change of it reads
//! well.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Count, InstructionsError, PACKETS};

/// Counts to be held against others.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    /// What compiled the benches, see [`compiler`](super::compiler).
    pub compiler: String,
    /// In the order in which they ran.
    pub benches: Vec<Bench>,
}

/// One bench.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bench {
    /// `function/id`.
    pub name: String,
    /// Packets in the measured call.
    pub packets: u32,
    /// Instructions for each of them, to a hundredth.
    pub instructions: f64,
}

impl Bench {
    fn of(count: &Count) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "a call of a few milliseconds")]
        let hundredths = (count.instructions as f64 * 100.0 / f64::from(PACKETS)).round();
        Self { name: count.name.clone(), packets: PACKETS, instructions: hundredths / 100.0 }
    }
}

impl Baseline {
    /// What was counted just now.
    #[must_use]
    pub fn new(compiler: String, counts: &[Count]) -> Self {
        Self { compiler, benches: counts.iter().map(Bench::of).collect() }
    }

    /// Reads a file that [`Baseline::save`] has written.
    ///
    /// # Errors
    /// When it is not there, or is something else.
    pub fn load(path: &Path) -> Result<Self, InstructionsError> {
        let text = fs::read_to_string(path).map_err(InstructionsError::at(path))?;
        Self::parse(&text).map_err(|reason| InstructionsError::Baseline { path: path.to_owned(), reason })
    }

    fn parse(text: &str) -> Result<Self, String> {
        let baseline: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        for (at, bench) in baseline.benches.iter().enumerate() {
            if !(bench.instructions.is_finite() && bench.instructions > 0.0) {
                return Err(format!("{} has {} instructions", bench.name, bench.instructions));
            }
            if baseline.benches.iter().take(at).any(|other| other.name == bench.name) {
                return Err(format!("{} stands there twice", bench.name));
            }
        }
        Ok(baseline)
    }

    /// Writes the file.
    ///
    /// # Errors
    /// When that is not possible.
    pub fn save(&self, path: &Path) -> Result<(), InstructionsError> {
        fs::write(path, self.text()).map_err(InstructionsError::at(path))
    }

    fn text(&self) -> String {
        let mut text = format!("{{\n\"compiler\": {},\n\"benches\": [\n", quoted(&self.compiler));
        for (at, Bench { name, packets, instructions }) in self.benches.iter().enumerate() {
            let comma = if at + 1 == self.benches.len() { "" } else { "," };
            let name = quoted(name);
            let _ = writeln!(
                text,
                "{{\"name\": {name}, \"packets\": {packets}, \"instructions\": {instructions:.2}}}{comma}"
            );
        }
        text.push_str("]\n}\n");
        text
    }
}

fn quoted(text: &str) -> serde_json::Value {
    serde_json::Value::from(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn baseline() -> Baseline {
        let count = |name: &str, instructions| Count { name: name.to_owned(), instructions };
        Baseline::new("rustc 1 \"x\"".to_owned(), &[count("a/b", 2954), count("c", 64)])
    }

    #[test]
    fn a_file_has_a_line_for_each_bench() {
        assert_eq!(
            baseline().text(),
            "{\n\
             \"compiler\": \"rustc 1 \\\"x\\\"\",\n\
             \"benches\": [\n\
             {\"name\": \"a/b\", \"packets\": 64, \"instructions\": 46.16},\n\
             {\"name\": \"c\", \"packets\": 64, \"instructions\": 1.00}\n\
             ]\n\
             }\n"
        );
    }

    #[test]
    fn what_was_written_is_read_again() {
        assert_eq!(Baseline::parse(&baseline().text()), Ok(baseline()));
    }

    #[test]
    fn a_file_that_makes_no_sense_is_refused() {
        let text = baseline().text();
        for (wrong, reason) in [
            (text.replace("46.16", "-1"), "a/b has -1 instructions"),
            (text.replace("46.16", "0"), "a/b has 0 instructions"),
            (text.replace("\"c\"", "\"a/b\""), "a/b stands there twice"),
            (text.replace("packets", "packages"), "unknown field `packages`"),
            (text.replace("compiler", "rustc"), "unknown field `rustc`"),
            (text.replace(']', ""), "expected"),
        ] {
            let said = Baseline::parse(&wrong).err().unwrap_or_default();
            assert!(said.contains(reason), "{said}");
        }
    }
}
