//! Prints scripts as they are read.

use std::fmt;

use super::words::quote;
use super::{
    ABOUT, About, ERRORS, Excuse, KINDS, Kind, Line, Options, Outcome, Output, Script, Setting, Step,
    TCP_FLAGS, Verdict, state,
};

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("gone"),
            Self::Any => f.write_str("any"),
            Self::State(flags) if flags & state::TRK == 0 => f.write_str("untracked"),
            Self::State(flags) => {
                let names = state::NAMES.iter().filter(|(_, flag)| flags & flag != 0).map(|(name, _)| *name);
                f.write_str(&names.collect::<Vec<_>>().join("+"))
            }
        }
    }
}

fn kind(line: &Line) -> String {
    match line.kind {
        Kind::Tcp(_) => "tcp".to_owned(),
        Kind::Raw => "raw".to_owned(),
        Kind::Icmp(number) => format!("icmp{number}"),
        Kind::Error(kind, _) => {
            ERRORS.iter().find(|row| row.1 == kind).map_or_else(String::new, |row| row.0.to_owned())
        }
        kind => KINDS.iter().find(|row| row.1 == kind).map_or_else(String::new, |row| row.0.to_owned()),
    }
}

fn about(f: &mut fmt::Formatter<'_>, about: About) -> fmt::Result {
    let name = ABOUT.iter().find(|(_, kind)| *kind == about.kind).map_or("", |(name, _)| name);
    write!(f, " about={name},{},{}", about.src, about.dst)
}

fn options(f: &mut fmt::Formatter<'_>, options: &Options) -> fmt::Result {
    for (key, value) in options.iter().filter(|(key, _)| key != "chunks") {
        match value {
            Setting::Number(number) => write!(f, " {key}={number}")?,
            Setting::Text(text) => write!(f, " {key}={text}")?,
            Setting::Pairs(pairs) => {
                let pairs: Vec<_> = pairs.iter().map(|(one, two)| format!("{one}-{two}")).collect();
                write!(f, " {key}={}", pairs.join(","))?;
            }
            Setting::Bytes(bytes) => {
                write!(f, " {key}=")?;
                bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
            }
        }
    }
    Ok(())
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "-> {}", self.port)?;
        if let Some((src, dst)) = self.ends {
            write!(f, " {src} > {dst}")?;
        }
        if let Some(packet) = self.about {
            about(f, packet)?;
        }
        options(f, &self.options)
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.port, kind(self))?;
        if self.kind != Kind::Raw {
            write!(f, " {} > {}", self.src, self.dst)?;
        }
        if let Kind::Tcp(flags) = self.kind {
            let letters: String =
                TCP_FLAGS.iter().filter(|(_, bit)| flags & bit != 0).map(|(letter, _)| *letter).collect();
            write!(f, " {}", if letters.is_empty() { "-" } else { &letters })?;
        }
        if let Some(Setting::Text(chunks)) = super::find(&self.options, "chunks") {
            write!(f, " {chunks}")?;
        }
        if let Kind::Error(_, packet) = self.kind {
            about(f, packet)?;
        }
        options(f, &self.options)?;
        let silent = matches!(self.outcome, Outcome::Dropped(_) | Outcome::Held);
        if !(silent && self.verdict == Verdict::Gone) {
            write!(f, " {}", self.verdict)?;
        }
        for (name, value) in [
            ("zone", u32::from(self.shown.zone)),
            ("mark", self.shown.mark),
            ("label", u32::from(self.shown.label)),
        ] {
            if value != 0 {
                write!(f, " {name}={value:#x}")?;
            }
        }
        match &self.outcome {
            Outcome::Across => Ok(()),
            Outcome::Dropped(None) => f.write_str(" -> drop"),
            Outcome::Dropped(Some(cause)) => write!(f, " -> drop {cause}"),
            Outcome::Held => f.write_str(" -> held"),
            Outcome::Sent(outputs) => {
                for (at, output) in outputs.iter().enumerate() {
                    write!(f, "{}{output}", if at == 0 { " " } else { "\n  " })?;
                }
                Ok(())
            }
        }
    }
}

fn lines(f: &mut fmt::Formatter<'_>, words: &[String], lines: &[String]) -> fmt::Result {
    for word in words {
        let plain = !word.is_empty() && !word.contains([' ', '#']);
        if plain { write!(f, " {word}")? } else { write!(f, " {}", quote(word.as_bytes()))? }
    }
    lines.iter().try_for_each(|line| write!(f, "\n  {line}"))
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Packet(line) => line.fmt(f),
            Self::Wait(time) => write!(f, "wait {}", time.as_secs_f64()),
            Self::Connections(count) => write!(f, "connections {count}"),
            Self::Dump { args, lines: expected } => {
                f.write_str("dump")?;
                lines(f, args, expected)
            }
            Self::Command { family, words, lines: expected } => {
                f.write_str(family)?;
                lines(f, words, expected)
            }
            Self::Counter(name, more) => write!(f, "counter {name} +{more}"),
            Self::Differ(names) => {
                f.write_str("differ")?;
                names.iter().try_for_each(|name| write!(f, " {name}"))
            }
            Self::Let(name, None) => write!(f, "let {name}"),
            Self::Let(name, Some((from, to))) => write!(f, "let {name} in {from}-{to}"),
        }
    }
}

impl fmt::Display for Excuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ovs {}{}", if self.may { "may " } else { "" }, self.reason)
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# {}", self.name)?;
        if let Some(reason) = &self.weir_only {
            writeln!(f, "weir-only {reason}")?;
        }
        if let Some(flows) = &self.flows {
            writeln!(f, "flows")?;
            flows.lines().try_for_each(|flow| writeln!(f, "  {flow}"))?;
        } else {
            // `states` follow from the others where there are others.
            let only_states = self.tables.iter().all(|table| table.shows_states());
            let named = self.tables.iter().filter(|table| only_states || !table.shows_states());
            let named: Vec<_> = named.map(|table| table.name()).collect();
            writeln!(f, "tables {}", named.join(" "))?;
        }
        for placed in &self.steps {
            writeln!(f, "{}", placed.step)?;
            if let Some(excuse) = &placed.excuse {
                writeln!(f, "  {excuse}")?;
            }
        }
        Ok(())
    }
}
