//! Flows in colour for people at a terminal, with the colours that ovs-ofctl has for them: names of fields, of what is
//! special about a flow, of actions. Works on the text, so that what is coloured is exactly what is printed without.

use std::io::{IsTerminal, stdout};

/// `--color[=WHEN]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// For people and programs.
    Always,
    /// Only on a terminal.
    Auto,
    /// Never, the default.
    Never,
}

impl std::str::FromStr for Colour {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "always" | "yes" | "force" => Ok(Self::Always),
            "auto" | "tty" | "if-tty" => Ok(Self::Auto),
            "never" | "no" | "none" => Ok(Self::Never),
            _ => Err(format!("incorrect value `{text}' for --color; give always, auto or never")),
        }
    }
}

impl Colour {
    /// Whether the output is to be coloured.
    pub(super) fn applies(self) -> bool {
        match self {
            Self::Always => true,
            Self::Auto => stdout().is_terminal(),
            Self::Never => false,
        }
    }
}

const FIELD: &str = "36";
const SPECIAL: &str = "33";
const ACTIONS: &str = "1;31";
const CALL: &str = "35";
const WORD: &str = "32";

/// Whole lines of flows, coloured; lines that are none stay as they are.
pub(super) fn flows(text: &str) -> String {
    text.split_inclusive('\n')
        .map(|line| if line.contains("actions=") { flow(line) } else { line.into() })
        .collect()
}

fn flow(line: &str) -> String {
    let mut coloured = String::with_capacity(4 * line.len());
    let mut paint = |text: &str, colour: Option<&str>| match colour {
        Some(colour) => coloured.push_str(&format!("\x1b[{colour}m\x1b[K{text}\x1b[m\x1b[K")),
        None => coloured.push_str(text),
    };
    let mut rest = line;
    // True where a value stands, which has no colour.
    let mut value = false;
    while let Some(first) = rest.chars().next() {
        if rest.starts_with("->") {
            rest = rest.get(2..).unwrap_or_default();
            paint("->", Some(SPECIAL));
            value = true;
            continue;
        }
        if !is_word(first) {
            let (symbol, behind) = rest.split_at(first.len_utf8());
            paint(symbol, (first == ')').then_some(CALL));
            value = value && !matches!(first, ',' | ' ' | ')' | '(');
            rest = behind;
            continue;
        }
        let end = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
        let (word, behind) = rest.split_at(end);
        let (colour, taken) = match behind.chars().next() {
            _ if value => (None, 0),
            Some('=') if word == "actions" => (Some(ACTIONS), 1),
            Some('=') if word == "table" || word == "priority" => (Some(SPECIAL), 1),
            Some('=') => (Some(FIELD), 1),
            Some('(') => (Some(CALL), 1),
            Some(':') => (Some(SPECIAL), 1),
            _ if word.starts_with(|c: char| c.is_ascii_digit()) => (None, 0),
            _ => (Some(WORD), 0),
        };
        let (token, behind) = rest.split_at(end + taken);
        paint(token, colour);
        // Behind a field's name or an action's colon comes a value; behind `actions=` come words again.
        value = value || (taken == 1 && !matches!(colour, Some(ACTIONS | CALL)));
        rest = behind;
    }
    coloured
}

const fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> String {
        let mut text = text.replace("\x1b[m", "").replace("\x1b[K", "");
        for colour in [FIELD, SPECIAL, ACTIONS, CALL, WORD] {
            text = text.replace(&format!("\x1b[{colour}m"), "");
        }
        text
    }

    #[test]
    fn a_flow_has_the_colours_of_ovs_ofctl_and_the_same_text() {
        let line = " cookie=0x0, table=0, priority=10,ct_state=-trk,ip,nw_src=10.1.1.1 actions=ct(commit,zone=1),output:2\n";
        let coloured = flows(line);
        assert_eq!(plain(&coloured), line);
        // As version 3.1 prints it, but for `cookie=0x0` and what follows it.
        let observed = "\x1b[33m\x1b[Kpriority=\x1b[m\x1b[K10,\x1b[36m\x1b[Kct_state=\x1b[m\x1b[K-trk,\x1b[32m\x1b[Kip\x1b[m\x1b[K,\
                        \x1b[36m\x1b[Knw_src=\x1b[m\x1b[K10.1.1.1 \x1b[1;31m\x1b[Kactions=\x1b[m\x1b[K\x1b[35m\x1b[Kct(\x1b[m\x1b[K\
                        \x1b[32m\x1b[Kcommit\x1b[m\x1b[K,\x1b[36m\x1b[Kzone=\x1b[m\x1b[K1\x1b[35m\x1b[K)\x1b[m\x1b[K,\
                        \x1b[33m\x1b[Koutput:\x1b[m\x1b[K2\n";
        assert!(coloured.ends_with(observed), "{coloured:?}");
        let header = "NXST_FLOW reply (xid=0x4):\n";
        assert_eq!(flows(header), header);
    }

    #[test]
    fn every_flow_of_the_corpus_keeps_its_text() {
        let corpus = include_str!("../flow/testdata/corpus.flows");
        assert_eq!(plain(&flows(corpus)), corpus);
    }
}
