//! Runs a script that has its own flows: every packet that leaves is compared byte by byte with what the script
//! says, checksums included, and so are ct_state, zone, mark and label.
//!
//! How a script sees a state, in any switch: the action `show` in its flows stands for moves of those fields into
//! the frame's hardware addresses, where the runner reads them back ([`SHOW`]).

use std::collections::BTreeMap;

use crate::packet::{self, Damage, Endpoint, Packet, Places};
use crate::script::{
    Address, Line, Name, Outcome, Output, Place, Placed, Port, Script, Shown, Step, Value, Variables,
    Verdict, state,
};
use crate::switch::{Emission, PORTS, Switch};

/// What `show` stands for: the source address becomes a tag, the zone and ct_state, the destination address the
/// label's lower 16 bits and the mark.
pub const SHOW: &str = "load:0x5c7e->NXM_OF_ETH_SRC[32..47],load:1->NXM_OF_ETH_SRC[24..31],\
                        move:NXM_NX_CT_ZONE[]->NXM_OF_ETH_SRC[8..23],move:NXM_NX_CT_STATE[0..7]->NXM_OF_ETH_SRC[0..7],\
                        move:NXM_NX_CT_MARK[]->NXM_OF_ETH_DST[0..31],move:NXM_NX_CT_LABEL[0..15]->NXM_OF_ETH_DST[32..47]";
const TAG: [u8; 3] = [0x5c, 0x7e, 1];

const INSIDE_HARDWARE: [u8; 6] = [2, 0, 0, 0, 0, 1];
const OUTSIDE_HARDWARE: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// What one switch did with a script.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What the script does not decide: packets whose state is `any`, the connections in the end. Drawn values have
    /// the names of their variables.
    pub lines: Vec<String>,
    /// Where it did not do as the script says, each beginning with the file and line.
    pub failures: Vec<String>,
}

/// The flows of a script with `show` written out.
pub fn flows(script: &Script) -> String {
    let mut text = String::new();
    for line in script.flows.as_deref().unwrap_or_default().lines().filter(|line| !line.starts_with('#')) {
        let (matches, actions) = line.split_once("actions=").unwrap_or((line, ""));
        let actions: Vec<_> = actions.split(',').map(|one| if one == "show" { SHOW } else { one }).collect();
        text += &format!("{matches}actions={}\n", actions.join(","));
    }
    text
}

/// Runs `script`. Where `reference` is set, the switch is Open vSwitch: what the script excuses it from is not held
/// against it, but that it needed no excuse.
///
/// # Errors
/// If the switch fails; what it does wrongly is in the report instead.
pub fn run<S: Switch>(switch: &mut S, script: &Script, reference: bool) -> Result<Report, S::Error> {
    switch.load(&flows(script))?;
    let mut run =
        Run { switch, variables: Variables::default(), counted: BTreeMap::new(), lines: Vec::new() };
    run.counted = run.switch.counters();
    let mut report = Report::default();
    for placed in &script.steps {
        let at = format!("{}:{}: ", script.name, placed.number);
        let found = run.step(placed)?;
        match &placed.excuse {
            Some(excuse) if reference => {
                if found.is_empty() && !excuse.may {
                    report.failures.push(format!("{at}does as the script says; drop the line `{excuse}`"));
                }
            }
            _ => report
                .failures
                .extend(found.into_iter().map(|failure| format!("{at}{}\n    {failure}", placed.step))),
        }
    }
    let dump = run.switch.connections()?;
    let mut named: Vec<_> = dump.iter().map(|line| named(line, &run.variables)).collect();
    named.sort();
    report.lines = run.lines;
    // A switch that did otherwise on the way ends up otherwise.
    if script.steps.iter().all(|placed| placed.excuse.is_none()) {
        report.lines.extend(named);
    }
    Ok(report)
}

struct Run<'a, S: Switch> {
    switch: &'a mut S,
    variables: Variables,
    counted: BTreeMap<String, u64>,
    lines: Vec<String>,
}

impl<S: Switch> Run<'_, S> {
    /// What was wrong about a step.
    fn step(&mut self, placed: &Placed) -> Result<Vec<String>, S::Error> {
        let mut wrong = Vec::new();
        match &placed.step {
            Step::Packet(line) => return self.packet(placed.number, line),
            Step::Wait(time) => self.switch.advance(*time)?,
            Step::Connections(count) => {
                let shown = self.switch.connections()?;
                if shown.len() != *count {
                    wrong.push(format!("there are {}:\n    {}", shown.len(), shown.join("\n    ")));
                }
            }
            Step::Dump { args, lines } => {
                let words: Vec<_> =
                    ["dpctl/dump-conntrack"].into_iter().chain(args.iter().map(String::as_str)).collect();
                let answer = self.switch.command("appctl", &words)?;
                wrong.extend(self.dump(lines, &answer));
            }
            Step::Command { family, words, lines } => {
                let words: Vec<_> = words.iter().map(String::as_str).collect();
                let answer = self.switch.command(family, &words)?;
                wrong.extend(self.answer(lines, &answer));
            }
            Step::Counter(name, more) => {
                let now = self.switch.counters();
                // A switch without counters is only compared otherwise.
                if !now.is_empty() {
                    match (now.get(name), self.counted.get(name)) {
                        (Some(now), Some(before)) if now - before == *more => {}
                        (Some(now), before) => {
                            wrong.push(format!("it grew by {}", now - before.copied().unwrap_or(0)));
                        }
                        (None, _) => {
                            let names: Vec<_> = now.keys().map(String::as_str).collect();
                            wrong.push(format!("no such counter; there are {}", names.join(", ")));
                        }
                    }
                }
                self.counted = now;
            }
            Step::Differ(names) => {
                for (at, one) in names.iter().enumerate() {
                    for two in &names[at + 1..] {
                        match (self.variables.value(*one), self.variables.value(*two)) {
                            (Ok(first), Ok(second)) if first != second => {}
                            (Ok(first), Ok(_)) => wrong.push(format!("{one} and {two} are both {first}")),
                            (Err(error), _) | (_, Err(error)) => wrong.push(error.to_string()),
                        }
                    }
                }
            }
            Step::Let(name, range) => self.variables.declare(*name, *range),
        }
        Ok(wrong)
    }

    fn packet(&mut self, number: usize, line: &Line) -> Result<Vec<String>, S::Error> {
        let before = self.switch.counters();
        let sent = match line.bound(&self.variables) {
            Ok(bound) => bound,
            Err(error) => return Ok(vec![error.to_string()]),
        };
        let packet = sent.packet(false, |_, end, _| end);
        let (from, to) = if line.port == 2 {
            (OUTSIDE_HARDWARE, INSIDE_HARDWARE)
        } else {
            (INSIDE_HARDWARE, OUTSIDE_HARDWARE)
        };
        let frame = sent.raw().unwrap_or_else(|| packet.frame(from, to));
        let emissions = self.switch.inject(line.port, &frame)?;
        let mut wrong = Vec::new();
        if line.verdict == Verdict::Any {
            let shown = |emission: &Emission| {
                format!(" -> {} {}", emission.port, hex(emission.frame.get(12..).unwrap_or_default()))
            };
            let shown: String = emissions.iter().map(shown).collect();
            self.lines.push(format!("{number}: {line}{shown}"));
        }
        let mut outputs = match &line.outcome {
            Outcome::Across if line.verdict == Verdict::Any => return Ok(wrong),
            Outcome::Across if line.verdict == Verdict::Gone => Vec::new(),
            Outcome::Across => vec![Output::unchanged(if line.port == 1 { 2 } else { 1 })],
            Outcome::Dropped(_) | Outcome::Held => Vec::new(),
            Outcome::Sent(outputs) => outputs.clone(),
        };
        outputs.sort_by_key(|output| PORTS.iter().position(|port| *port == output.port));
        let ports: Vec<_> = emissions.iter().map(|emission| emission.port).collect();
        if ports != outputs.iter().map(|output| output.port).collect::<Vec<_>>() {
            let left: Vec<_> = emissions.iter().map(described).collect();
            wrong.push(match left.as_slice() {
                [] => format!("nothing left{}", causes(&before, &self.switch.counters())),
                left => format!("left through {ports:?}:\n    {}", left.join("\n    ")),
            });
            return Ok(wrong);
        }
        for (output, emission) in outputs.iter().zip(&emissions) {
            wrong.extend(self.emission(line, &packet, &frame, output, emission));
        }
        wrong.extend(self.cause(&line.outcome, &before));
        Ok(wrong)
    }

    /// What is wrong about a frame that left.
    fn emission(
        &mut self,
        line: &Line,
        sent: &Packet,
        frame: &[u8],
        output: &Output,
        emission: &Emission,
    ) -> Vec<String> {
        let mut wrong = Vec::new();
        let shown = shown(&emission.frame);
        match (line.verdict, shown) {
            (Verdict::Any, _) => {}
            (_, None) => wrong.push("it shows no state: its last flow lacks the action `show`".to_owned()),
            (verdict, Some((flags, fields))) => {
                if verdict != Verdict::State(flags) {
                    wrong.push(format!("its state was {}", Verdict::State(flags)));
                }
                if fields != line.shown {
                    wrong.push(format!(
                        "it had zone={} mark={:#x} label={:#x}",
                        fields.zone, fields.mark, fields.label
                    ));
                }
            }
        }
        let leaving = line.leaving(output);
        let bound = self.bind(&leaving, &emission.frame);
        if !bound.is_empty() {
            return bound;
        }
        let expected = match leaving.bound(&self.variables) {
            Ok(bound) if bound.raw().is_some() => bound.raw().unwrap_or_default(),
            Ok(bound) => bound.packet(false, |_, end, _| end).frame([0; 6], [0; 6]),
            Err(error) => {
                wrong.push(error.to_string());
                return wrong;
            }
        };
        let untouched = shown.is_some() || emission.frame.get(..12) == frame.get(..12);
        if !untouched {
            wrong.push("its hardware addresses changed".to_owned());
        }
        if sent.damage.is_empty() && line.raw().is_none() {
            wrong.extend(checksums(&emission.frame));
        }
        if let Some(difference) =
            difference(&expected, &emission.frame, sent.damage.contains(&Damage::L4Checksum))
        {
            wrong.push(format!("left as {}\n    {difference}", described(emission)));
        }
        wrong
    }

    /// Gives variables the values that the frame has in their places.
    fn bind(&mut self, line: &Line, frame: &[u8]) -> Vec<String> {
        let Some(places) = Places::find(frame, packet::network(frame)) else { return Vec::new() };
        let mut wrong = Vec::new();
        for (place, end) in [(line.src, places.src(frame)), (line.dst, places.dst(frame))] {
            let Some(Endpoint { address, port }) = end else { continue };
            if let Address::Variable(name) = place.address {
                wrong.extend(self.variables.bind(name, Value::Address(address)).err());
            }
            if let Port::Variable(name) = place.port
                && !places.later_fragment
            {
                wrong.extend(self.variables.bind(name, Value::Number(port)).err());
            }
        }
        wrong
    }

    /// Whether the packet was counted under the cause that the script names, or none if it was kept.
    fn cause(&mut self, outcome: &Outcome, before: &BTreeMap<String, u64>) -> Option<String> {
        let now = self.switch.counters();
        if now.is_empty() {
            return None;
        }
        let grew = causes(before, &now);
        match outcome {
            Outcome::Dropped(Some(cause)) if grew != format!(", counted as {cause}") => {
                Some(format!("nothing left{grew}"))
            }
            Outcome::Held if !grew.is_empty() => Some(format!("it was not kept{grew}")),
            _ => None,
        }
    }

    /// Compares the lines of a dump, in any order.
    fn dump(&mut self, expected: &[String], answer: &Result<String, String>) -> Option<String> {
        let answer = match answer {
            Ok(text) => text,
            Err(error) => return Some(format!("error: {error}")),
        };
        let mut left: Vec<_> = answer.lines().filter(|line| !line.is_empty()).collect();
        let mut missing = Vec::new();
        for pattern in expected {
            match left.iter().position(|line| self.matches(pattern, line)) {
                Some(at) => {
                    left.remove(at);
                }
                None => missing.push(pattern.as_str()),
            }
        }
        if missing.is_empty() && left.is_empty() {
            return None;
        }
        Some(format!("missing:\n    {}\n    too many:\n    {}", missing.join("\n    "), left.join("\n    ")))
    }

    /// Compares a command's answer, line by line.
    fn answer(&mut self, expected: &[String], answer: &Result<String, String>) -> Option<String> {
        let found: Vec<String> = match answer {
            Ok(text) => text.lines().map(|line| line.trim().to_owned()).collect(),
            Err(text) => text.lines().map(|line| format!("error: {}", line.trim())).collect(),
        };
        let open = expected.last().is_some_and(|line| line == "*");
        let wanted = if open { &expected[..expected.len() - 1] } else { expected };
        let enough = if open { found.len() >= wanted.len() } else { found.len() == wanted.len() };
        if enough && wanted.iter().zip(&found).all(|(pattern, line)| self.matches(pattern, line)) {
            return None;
        }
        Some(format!("it answered:\n    {}", found.join("\n    ")))
    }

    /// Whether a line is as the pattern says. An unknown variable takes what stands in its place, up to the next
    /// comma, parenthesis or space; `*` takes any text up to one of those.
    fn matches(&mut self, pattern: &str, line: &str) -> bool {
        let mut variables = self.variables.clone();
        let (mut pattern, mut line) = (pattern, line);
        while let Some(at) = pattern.find(['$', '*']) {
            let Some(rest) = line.strip_prefix(&pattern[..at]) else { return false };
            let end = rest.find([',', ')', ' ']).unwrap_or(rest.len());
            let (text, after) = rest.split_at(end);
            if pattern[at..].starts_with('*') {
                (pattern, line) = (&pattern[at + 1..], after);
                continue;
            }
            let name = &pattern[at + 1..];
            let length = name.find(|letter: char| !letter.is_ascii_alphanumeric()).unwrap_or(name.len());
            let (Some(variable), Some(value)) = (Name::new(&name[..length]), parsed(text)) else {
                return false;
            };
            if variables.bind(variable, value).is_err() {
                return false;
            }
            (pattern, line) = (&name[length..], after);
        }
        let agrees = pattern == line;
        if agrees {
            self.variables = variables;
        }
        agrees
    }
}

fn parsed(text: &str) -> Option<Value> {
    text.parse().map(Value::Number).or_else(|_| text.parse().map(Value::Address)).ok()
}

/// The drop counters that grew, as text; empty if none.
fn causes(before: &BTreeMap<String, u64>, now: &BTreeMap<String, u64>) -> String {
    let grew = now.iter().filter(|(name, total)| before.get(*name).is_none_or(|before| before != *total));
    let names: Vec<_> = grew.filter_map(|(name, _)| name.strip_prefix("drop_")).collect();
    if names.is_empty() { String::new() } else { format!(", counted as {}", names.join(", ")) }
}

/// What `show` wrote into the frame.
fn shown(frame: &[u8]) -> Option<(u8, Shown)> {
    let address = frame.get(6..12).filter(|address| address.starts_with(&TAG))?;
    let (label, mark) = frame.get(..6)?.split_at(2);
    let zone = u16::from_be_bytes([address[3], address[4]]);
    let label = u16::from_be_bytes([label[0], label[1]]);
    let mark = u32::from_be_bytes([mark[0], mark[1], mark[2], mark[3]]);
    let flags = if address[5] & state::TRK == 0 { 0 } else { address[5] };
    Some((flags, Shown { zone, mark, label }))
}

/// Which checksums of a frame are wrong.
fn checksums(frame: &[u8]) -> Option<String> {
    let places = Places::find(frame, packet::network(frame))?;
    let mut wrong = Vec::new();
    let mut check = |name, right: bool| {
        if !right {
            wrong.push(name);
        }
    };
    check("IP", places.l3_checksum_is_right(frame));
    check("L4", places.l4_checksum_is_right(frame));
    if let Some(inner) = places.inner(frame) {
        check("inner IP", inner.l3_checksum_is_right(frame));
        // One that is cut off cannot be summed up.
        check("inner L4", !inner.whole || inner.l4_checksum_is_right(frame));
    }
    (!wrong.is_empty()).then(|| format!("wrong checksums: {}", wrong.join(", ")))
}

/// Where two frames differ behind their hardware addresses, the padding behind a whole packet aside.
fn difference(expected: &[u8], found: &[u8], wrong_checksum: bool) -> Option<String> {
    let content = |frame: &[u8]| {
        let places = Places::find(frame, packet::network(frame)).filter(|places| places.whole);
        let end = places.map_or(frame.len(), |places| places.end);
        frame.get(12..end).unwrap_or_default().to_vec()
    };
    let (mut one, mut two) = (content(expected), content(found));
    if wrong_checksum {
        // It stays wrong, by an amount that does not matter.
        for (content, frame) in [(&mut one, expected), (&mut two, found)] {
            let mut frame = frame.to_vec();
            if let Some(places) = Places::find(&frame, packet::network(&frame)) {
                places.blank_checksums(&mut frame);
                *content = frame.get(12..12 + content.len()).unwrap_or_default().to_vec();
            }
        }
    }
    if one == two {
        return None;
    }
    let at = one.iter().zip(&two).position(|(a, b)| a != b).unwrap_or(one.len().min(two.len()));
    Some(format!(
        "differs from byte {} on: expected {} bytes\n    {}\n    found {} bytes\n    {}",
        at + 12,
        one.len() + 12,
        hex(&one),
        two.len() + 12,
        hex(&two)
    ))
}

/// A frame that left, in the words of scripts as far as they are simple.
fn described(emission: &Emission) -> String {
    let frame = &emission.frame;
    let state = shown(frame).map_or(String::new(), |(flags, shown)| {
        format!(
            "{} zone={} mark={:#x} label={:#x} ",
            Verdict::State(flags),
            shown.zone,
            shown.mark,
            shown.label
        )
    });
    let place = |end: Option<Endpoint>| {
        end.map_or("?".to_owned(), |end| {
            let place = Place { address: Address::Literal(end.address), port: Port::Number(end.port) };
            place.to_string()
        })
    };
    let packet = |places: &Places| format!("{} > {}", place(places.src(frame)), place(places.dst(frame)));
    let Some(places) = Places::find(frame, packet::network(frame)) else {
        return format!("{state}-> {} {}", emission.port, hex(frame));
    };
    let inner = places.inner(frame).map_or(String::new(), |inner| format!(" about {}", packet(&inner)));
    format!("{state}-> {} {}{inner} ({} bytes)", emission.port, packet(&places), places.end - places.l3)
}

/// A line of a dump with drawn values replaced by their variables' names. Only the reply direction has any.
fn named(line: &str, variables: &Variables) -> String {
    let Some((original, reply)) = line.split_once(",reply=(") else { return line.to_owned() };
    let Some((reply, rest)) = reply.split_once(')') else { return line.to_owned() };
    let fields = reply.split(',').map(|field| match field.split_once('=') {
        Some((key @ ("src" | "dst" | "sport" | "dport" | "id"), value)) => match variables.name_of(value) {
            Some(name) => format!("{key}={name}"),
            None => field.to_owned(),
        },
        _ => field.to_owned(),
    });
    format!("{original},reply=({}){rest}", fields.collect::<Vec<_>>().join(","))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether a script leaves more behind than connections, settings or fragments that wait for others, so that a switch
/// should not be used again.
pub fn leaves_traces(script: &Script) -> bool {
    const HARMLESS: [&str; 4] = ["dump", "show", "get", "flush"];
    script.steps.iter().any(|placed| match &placed.step {
        Step::Command { words, .. } => {
            words.first().is_some_and(|name| !HARMLESS.iter().any(|harmless| name.contains(harmless)))
        }
        Step::Packet(line) => line.options.iter().any(|(key, _)| key == "from"),
        _ => false,
    })
}

#[cfg(test)]
mod tests;
