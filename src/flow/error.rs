//! What can be wrong with a flow, where in the line, and how that is shown to the person who wrote it.

use core::fmt::Write as _;

use super::lexer::Span;

/// A mistake in one flow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct Error {
    pub problem: Problem,
    /// Bytes of the line it is about.
    pub span: Span,
}

/// The kinds of mistake.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("unknown field '{name}'{}", suggestion(*.near))]
    UnknownField { name: String, near: Option<&'static str> },
    #[error("unknown action '{name}'{}", suggestion(*.near))]
    UnknownAction { name: String, near: Option<&'static str> },
    #[error("unknown argument '{name}' of {action}{}", suggestion(*.near))]
    UnknownArgument { action: &'static str, name: String, near: Option<&'static str> },
    #[error("unknown flag '{name}' in {field}; known are {known}")]
    UnknownFlag { field: &'static str, name: String, known: String },
    #[error(
        "unknown port '{name}'; give a port number, the name of a port of the bridge, or one of in_port, local, normal, flood, all, controller"
    )]
    UnknownPort { name: String },
    #[error(
        "packets cannot be sent to port {port}; ports are 0 to 65279, in_port, local, normal, flood, all and controller"
    )]
    BadOutputPort { port: String },
    #[error("'{key}' needs a value")]
    MissingValue { key: String },
    #[error("'{key}' takes no value")]
    UnwantedValue { key: String },
    #[error("expected {expected}")]
    Expected { expected: String },
    #[error("{what} needs {expected}, not '{found}'")]
    BadValue { what: String, found: String, expected: String },
    #[error("{value} is too large for {what}; the largest is {max}")]
    TooLarge { what: String, value: String, max: u128 },
    #[error("{field} cannot be masked; match all of it or leave it out")]
    NotMaskable { field: &'static str },
    #[error("{field} cannot be set, only matched")]
    ReadOnly { field: &'static str },
    #[error("'{field}' contradicts what the flow says before")]
    Conflict { field: String },
    #[error("'{key}' is given twice")]
    Twice { key: String },
    #[error("{what} needs {needs}")]
    Prerequisite { what: String, needs: String },
    #[error("bits {start} to {end} do not exist in {field}, which has bits 0 to {last}")]
    BadBits { field: &'static str, start: u32, end: u32, last: u8 },
    #[error("{src} is {src_width} bits wide but {dst} is {dst_width}")]
    WidthMismatch { src: String, src_width: u8, dst: String, dst_width: u8 },
    #[error("'{what}' is never closed")]
    Unclosed { what: char },
    #[error("')' closes nothing")]
    Unopened,
    #[error("the flow says nothing of actions; end it with actions=, and with actions=drop to drop")]
    MissingActions,
    #[error("a flow to select others has no actions; leave them out")]
    UnwantedActions,
    #[error("drop stands alone: no other action goes with it")]
    DropNotAlone,
    #[error("{first} has to stand before {second}")]
    Order { first: &'static str, second: &'static str },
    #[error("{what} is only possible inside ct(exec(...)) with commit")]
    OnlyInExec { what: String },
    #[error("ct(exec(...)) can only set ct_mark and ct_label")]
    NotInExec,
    #[error("{what} is part of the language but not supported here")]
    Unsupported { what: String },
    #[error("{0}")]
    Other(&'static str),
    #[error("the line is {length} bytes long; the limit is {limit}", limit = super::flow::MAX_LINE)]
    LineTooLong { length: usize },
    #[error("more than {limit} actions", limit = super::flow::MAX_ACTIONS)]
    TooManyActions,
    #[error("unknown word '{name}' in a group{}", suggestion(*.near))]
    UnknownGroupWord { name: String, near: Option<&'static str> },
    #[error("a packet has {min} to {max} bytes, not {length}", min = super::packet_out::MIN_PACKET, max = super::packet_out::MAX_PACKET)]
    PacketLength { length: usize },
    #[error("a group has at most {limit} buckets", limit = super::group::MAX_BUCKETS)]
    TooManyBuckets,
    #[error(
        "'{name}' has no place in a bucket, which is a set of actions; put it in a table and resubmit there"
    )]
    NotInBucket { name: String },
}

fn suggestion(near: Option<&str>) -> String {
    near.map_or_else(String::new, |name| format!("; did you mean '{name}'?"))
}

/// Something that was accepted, but probably does not do what its writer thinks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{field}' is left out of the match: it needs {needs}")]
pub struct Warning {
    pub field: String,
    pub needs: &'static str,
    pub span: Span,
}

/// Columns of a line that are shown at most.
const SHOWN: usize = 120;

/// The message with its place and the line, a caret under what it is about:
/// ```text
/// nat.flows:3:22: unknown field 'nw_scr'; did you mean 'nw_src'?
///   table=1,in_port=1,ip,nw_scr=10.0.0.1,action=drop
///                        ^^^^^^
/// ```
#[must_use]
pub fn render(source: &str, line: usize, text: &str, span: &Span, message: &str) -> String {
    // White space and control characters show as one column each, so that the caret stands right.
    let columns: Vec<(usize, char)> = text
        .char_indices()
        .map(|(at, c)| (at, if c.is_control() || c.is_whitespace() { ' ' } else { c }))
        .collect();
    let start = columns.partition_point(|(at, _)| *at < span.start);
    let end = columns.partition_point(|(at, _)| *at < span.end).max(start + 1);
    let from = if columns.len() <= SHOWN { 0 } else { start.saturating_sub(SHOWN / 2) };
    let to = columns.len().min(from + SHOWN);
    let shown: String = columns.get(from..to).unwrap_or_default().iter().map(|(_, c)| *c).collect();
    let dots = if from > 0 { "..." } else { "" };
    let carets = end.min(to.max(start + 1)) - start;
    let mut out = format!("{source}:{line}:{}: {message}\n  {dots}{}\n  ", start + 1, shown.trim_end());
    let _ = write!(out, "{:indent$}{}", "", "^".repeat(carets), indent = dots.len() + start - from);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caret_stands_under_the_mistake_even_far_out_and_behind_wide_characters() {
        let text = format!("{}BAD", "x".repeat(5000));
        let shown = render("f", 1, &text, &(5000..5003), "m");
        let lines: Vec<_> = shown.lines().collect();
        assert_eq!(lines[0], "f:1:5001: m");
        assert_eq!(lines[1].find("BAD"), lines[2].find('^'));
        assert_eq!(render("f", 2, "ä\tB", &(3..4), "m"), "f:2:3: m\n  ä B\n    ^");
        assert_eq!(render("f", 2, "", &(0..0), "m"), "f:2:1: m\n  \n  ^");
    }
}
