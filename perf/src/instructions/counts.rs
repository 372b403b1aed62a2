//! What iai-callgrind-runner prints with `--output-format=json`: a line for each bench, of which name and
//! instructions are read.

use serde::Deserialize;

use super::InstructionsError;

/// Instructions of one bench's measured call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    /// `function/id`.
    pub name: String,
    /// Instructions of the call.
    pub instructions: u64,
}

/// The summary's parts that matter (its schema has version 6).
#[derive(Deserialize)]
struct Summary {
    function_name: String,
    id: Option<String>,
    profiles: Vec<Profile>,
}

#[derive(Deserialize)]
struct Profile {
    summaries: Summaries,
}

#[derive(Deserialize)]
struct Summaries {
    total: Total,
}

#[derive(Deserialize)]
struct Total {
    summary: Tool,
}

#[derive(Deserialize)]
struct Tool {
    #[serde(rename = "Callgrind")]
    callgrind: Callgrind,
}

#[derive(Deserialize)]
struct Callgrind {
    #[serde(rename = "Ir")]
    instructions: Instructions,
}

#[derive(Deserialize)]
struct Instructions {
    metrics: Metrics,
}

/// Of this run, and of the run before where there are files of one left.
#[derive(Deserialize)]
enum Metrics {
    Left(Metric),
    Both(Metric, #[expect(dead_code, reason = "the run before")] Metric),
}

#[derive(Deserialize)]
enum Metric {
    Int(u64),
}

/// The counts of all benches, in the order in which they ran.
///
/// # Errors
/// When a line is not a summary, or there is none.
pub fn parse(text: &str) -> Result<Vec<Count>, InstructionsError> {
    let mistake = |reason: String, line: &str| InstructionsError::Count { reason, line: line.to_owned() };
    let mut counts = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let summary: Summary =
            serde_json::from_str(line).map_err(|error| mistake(error.to_string(), line))?;
        let Some(profile) = summary.profiles.first() else {
            return Err(mistake("no profile".to_owned(), line));
        };
        let (Metrics::Left(Metric::Int(instructions)) | Metrics::Both(Metric::Int(instructions), _)) =
            profile.summaries.total.summary.callgrind.instructions.metrics;
        let name = match summary.id {
            Some(id) => format!("{}/{id}", summary.function_name),
            None => summary.function_name,
        };
        counts.push(Count { name, instructions });
    }
    if counts.is_empty() {
        return Err(mistake("no bench has run".to_owned(), text.trim()));
    }
    Ok(counts)
}

/// Of two runs of the same benches the lesser counts.
#[must_use]
pub fn lesser(mut counts: Vec<Count>, again: &[Count]) -> Vec<Count> {
    for count in &mut counts {
        if let Some(other) = again.iter().find(|other| other.name == count.name) {
            count.instructions = count.instructions.min(other.instructions);
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(name: &str, instructions: u64) -> Count {
        Count { name: name.to_owned(), instructions }
    }

    #[test]
    fn the_lesser_of_two_counts_is_taken() {
        let (once, again) = ([count("a", 5), count("b", 7)], [count("b", 9), count("a", 4)]);
        assert_eq!(lesser(once.to_vec(), &again), [count("a", 4), count("b", 7)]);
    }

    /// A line as the runner prints it, without what is not read.
    const LINE: &str = r#"{"baselines":[null,null],"details":"x","function_name":"parse","id":ID,"profiles":[{"summaries":{"parts":[],"total":{"regressions":[],"summary":{"Callgrind":{"Ir":{"diffs":null,"metrics":METRICS}}}}},"tool":"Callgrind"}],"version":"6"}"#;

    fn line(id: &str, metrics: &str) -> String {
        LINE.replace("ID", id).replace("METRICS", metrics)
    }

    #[test]
    fn the_first_of_two_numbers_is_this_run_s() {
        let text = format!(
            "{}\n{}\n",
            line("\"udp\"", r#"{"Left":{"Int":1476}}"#),
            line("null", r#"{"Both":[{"Int":7},{"Int":9}]}"#)
        );
        assert_eq!(parse(&text).ok(), Some(vec![count("parse/udp", 1476), count("parse", 7)]));
    }

    #[test]
    fn what_is_no_summary_is_refused_with_its_line() {
        let left = line("\"udp\"", r#"{"Left":{"Int":1}}"#);
        for (text, reason) in [
            ("", "no bench has run"),
            ("Hello", "expected value"),
            ("{}", "missing field `function_name`"),
            (&*left.replace("Callgrind", "Dhat"), "missing field `Callgrind`"),
            (&*left.replace("\"Left\"", "\"Right\""), "unknown variant `Right`"),
            (r#"{"function_name":"f","id":null,"profiles":[]}"#, "no profile"),
        ] {
            let error = parse(text).map_or_else(|error| error.to_string(), |counts| format!("{counts:?}"));
            assert!(error.contains(reason) && error.ends_with(text), "{error}");
        }
    }
}
