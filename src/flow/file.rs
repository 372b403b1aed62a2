//! Files of flows: one a line, `#` begins a comment, and a line may say what to do with its flow (`add`, `modify`,
//! `modify_strict`, `delete`, `delete_strict`, with `flow` in front of that in a bundle).

use super::error::{Error, Warning, render};
use super::flow::{Command, FlowMod};
use super::lexer::Text;
use super::port::PortNames;
use super::print;

/// Lines with flows in a file.
pub const MAX_FLOWS: usize = 1_000_000;
/// The longest flow file that is read, in bytes: as much as a control request carries.
pub const MAX_BYTES: u64 = 64 << 20;

/// A mistake in a file of flows. Shows the line and points at the place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    #[error("{}", render(source_name, *line, text, &error.span, &error.to_string()))]
    Flow { source_name: String, line: usize, text: String, error: Box<Error> },
    #[error("{source_name}:{line}: more than {MAX_FLOWS} flows in one file; split it")]
    TooManyFlows { source_name: String, line: usize },
    #[error("{source_name}:{line}: more than {limit} groups in one file; split it", limit = super::group_parse::MAX_GROUPS)]
    TooManyGroups { source_name: String, line: usize },
    #[error("{source_name}:{line}: the line is not UTF-8 text")]
    NotText { source_name: String, line: usize },
}

/// Something odd in a file; shown as a [`FileError`] is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", render(source_name, *line, text, &warning.span, &warning.to_string()))]
pub struct FileWarning {
    pub source_name: String,
    pub line: usize,
    pub text: String,
    pub warning: Warning,
}

/// The flows of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowFile {
    pub flows: Vec<FlowMod>,
    /// Line of each flow, from 1.
    pub lines: Vec<usize>,
    /// At most [`MAX_WARNINGS`].
    pub warnings: Vec<FileWarning>,
}

/// Warnings kept of one file.
pub const MAX_WARNINGS: usize = 100;

const PREFIXES: [Command; 5] =
    [Command::Add, Command::Modify, Command::ModifyStrict, Command::Delete, Command::DeleteStrict];

impl FlowFile {
    /// Reads a file whose lines mean `default` unless they say otherwise. `source_name` is for messages.
    pub fn parse(
        source_name: &str,
        bytes: &[u8],
        default: Command,
        ports: &dyn PortNames,
    ) -> Result<Self, FileError> {
        let mut file = Self::default();
        for line in lines(source_name, bytes) {
            let (line_number, line) = line?;
            let flow = line.split('#').next().unwrap_or_default();
            if flow.trim().is_empty() {
                continue;
            }
            if file.flows.len() >= MAX_FLOWS {
                return Err(FileError::TooManyFlows {
                    source_name: source_name.to_owned(),
                    line: line_number,
                });
            }
            let parsed = parse_line(flow, default, ports).map_err(|error| FileError::Flow {
                source_name: source_name.to_owned(),
                line: line_number,
                text: shortened(line),
                error: Box::new(error),
            })?;
            let room = MAX_WARNINGS.saturating_sub(file.warnings.len());
            file.warnings.extend(parsed.warnings.into_iter().take(room).map(|warning| FileWarning {
                source_name: source_name.to_owned(),
                line: line_number,
                text: shortened(line),
                warning,
            }));
            file.flows.push(parsed.flow);
            file.lines.push(line_number);
        }
        Ok(file)
    }
}

/// The lines of a file with their numbers, from 1.
pub(super) fn lines<'a>(
    source_name: &'a str,
    bytes: &'a [u8],
) -> impl Iterator<Item = Result<(usize, &'a str), FileError>> {
    bytes.split(|byte| *byte == b'\n').zip(1..).map(move |(line, number)| {
        let not_text = |_| FileError::NotText { source_name: source_name.to_owned(), line: number };
        let line = core::str::from_utf8(line).map_err(not_text)?;
        Ok((number, line.trim_end_matches('\r')))
    })
}

/// A line as it is kept for a message: what is longer than any line may be is not worth keeping.
pub(super) fn shortened(line: &str) -> String {
    line.chars().take(super::flow::MAX_LINE).collect()
}

/// Reads one flow with or without a word in front that says what to do with it.
pub fn parse_line(line: &str, default: Command, ports: &dyn PortNames) -> Result<super::flow::Parsed, Error> {
    let text = Text::line(line);
    let mut rest = text.trim();
    let mut command = default;
    if let Some(behind) = behind_word(rest, "flow") {
        rest = behind;
    }
    let prefixed = PREFIXES.iter().find_map(|c| Some((*c, behind_word(rest, print::command(*c))?)));
    if let Some((named, behind)) = prefixed {
        (command, rest) = (named, behind);
    }
    FlowMod::parse_text(rest, command, ports)
}

/// What follows `word` and white space.
pub(super) fn behind_word<'a>(text: Text<'a>, word: &str) -> Option<Text<'a>> {
    let rest = text.text.strip_prefix(word)?;
    let whole = rest.is_empty() || rest.starts_with([' ', '\t']);
    whole.then(|| text.slice(word.len(), text.text.len()).trim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::port::NoNames;

    fn parse(text: &str) -> Result<FlowFile, FileError> {
        FlowFile::parse("f", text.as_bytes(), Command::Add, &NoNames)
    }

    #[test]
    fn comments_and_blank_lines_are_skipped_and_lines_counted() {
        let file =
            parse("# all\r\n\n  ip, actions=1 # one\r\n\t\ndelete table=3\nflow modify_strict arp actions=2")
                .unwrap();
        let commands: Vec<_> = file.flows.iter().map(|flow| flow.command).collect();
        assert_eq!(commands, [Command::Add, Command::Delete, Command::ModifyStrict]);
        assert_eq!(file.lines, [3, 5, 6]);
    }

    #[test]
    fn an_error_points_into_its_line() {
        let text = "table=0,priority=1,action=normal\n\ntable=1,in_port=1,ip,nw_scr=10.0.0.1,action=drop\n";
        let shown = parse(text).unwrap_err().to_string();
        let expected = "f:3:22: unknown field 'nw_scr'; did you mean 'nw_src'?\n  table=1,in_port=1,ip,nw_scr=10.0.0.1,action=drop\n                       ^^^^^^";
        assert_eq!(shown, expected);
    }

    /// Found by the fuzz target `flows`: a deletion of everything prints as nothing, so its command must be printed too
    /// before it can be read again.
    #[test]
    fn a_command_alone_selects_every_flow() {
        for (line, command) in [("delete", Command::Delete), ("flow delete_strict", Command::DeleteStrict)] {
            let file = parse(line).unwrap();
            assert_eq!((file.flows.len(), file.flows[0].command), (1, command));
            assert_eq!(print::flow(&file.flows[0], &NoNames), "");
            let printed = print::command(command);
            assert_eq!(parse(printed).unwrap().flows, file.flows);
        }
        assert!(parse("add").is_err() && parse("modify").is_err());
    }

    #[test]
    fn what_is_no_text_or_too_long_is_refused() {
        assert!(FlowFile::parse("f", b"ip,\xff", Command::Add, &NoNames).is_err());
        let long = format!("ip,actions={}", "1,".repeat(100_000));
        assert!(parse(&long).unwrap_err().to_string().contains("the limit is 65536"));
    }

    #[test]
    fn both_example_tables_load() {
        for (text, flows) in
            [(include_str!("testdata/acl.flows"), 7), (include_str!("testdata/nat.flows"), 6)]
        {
            let file = parse(text).unwrap();
            assert_eq!((file.flows.len(), file.warnings.len()), (flows, 0));
        }
    }
}
