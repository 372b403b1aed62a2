//! Reads packet scripts. Whatever is wrong is pointed at by file, line and column.

use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use super::words::{self, Fault, Word, words};
use super::{
    ABOUT, About, Address, CHUNKS, ERRORS, Excuse, Form, Host, KINDS, Kind, Line, Name, OPTIONS, Options,
    Outcome, Output, Place, Placed, Port, Script, ScriptError, Setting, Shown, Step, TCP_FLAGS, Table, Value,
    Verdict, state,
};

/// Families of commands that a script may give.
const FAMILIES: [&str; 6] = ["appctl", "ofctl", "vsctl", "ct", "zone", "show"];

impl Script {
    /// Reads a script. Every table named is run, and with it the one that shows states.
    ///
    /// # Errors
    /// The first thing that cannot be read.
    pub fn parse(name: &str, text: &str) -> Result<Self, ScriptError> {
        let script = Self {
            name: name.to_owned(),
            tables: Vec::new(),
            flows: None,
            weir_only: None,
            steps: Vec::new(),
        };
        let mut reader = Reader { script, in_flows: false };
        for (number, line) in (1..).zip(text.lines()) {
            let read = reader.line(number, line);
            read.map_err(|Fault { column, what }| ScriptError {
                name: name.to_owned(),
                line: number,
                column,
                what,
            })?;
        }
        let script = reader.script;
        if script.tables.is_empty() == script.flows.is_none() {
            let what = "a script has either `tables` or `flows`".to_owned();
            return Err(ScriptError { name: name.to_owned(), line: 1, column: 1, what });
        }
        Ok(script)
    }
}

struct Reader {
    script: Script,
    /// Whether indented lines are flows.
    in_flows: bool,
}

impl Reader {
    fn line(&mut self, number: usize, line: &str) -> Result<(), Fault> {
        if line.trim_start().starts_with('#') {
            return Ok(());
        }
        if line.starts_with([' ', '\t']) && !line.trim().is_empty() {
            return self.continuation(line);
        }
        let words = words(line)?;
        let Some((first, rest)) = words.split_first() else { return Ok(()) };
        self.in_flows = false;
        match first.text.as_str() {
            "tables" => self.tables(rest),
            "flows" => self.flows(first, rest),
            "weir-only" => {
                self.script.weir_only = Some(reason(first, rest)?);
                Ok(())
            }
            _ => {
                let step = step(first, rest)?;
                self.script.steps.push(Placed { number, step, excuse: None });
                Ok(())
            }
        }
    }

    fn tables(&mut self, names: &[Word]) -> Result<(), Fault> {
        for name in names {
            let table = Table::ALL.into_iter().find(|table| table.name() == name.text);
            let table = table.ok_or_else(|| {
                name.fault(format!("no table is called {}; there are acl, nat, acl6", name.text))
            })?;
            for one in [table, table.with_states()] {
                if !self.script.tables.contains(&one) {
                    self.script.tables.push(one);
                }
            }
        }
        Ok(())
    }

    fn flows(&mut self, keyword: &Word, rest: &[Word]) -> Result<(), Fault> {
        if self.script.flows.is_some() {
            return Err(keyword.fault("there are flows already"));
        }
        self.in_flows = true;
        let Some((name, settings)) = rest.split_first() else {
            self.script.flows = Some(String::new());
            return Ok(());
        };
        let mut text = crate::flows::named(&name.text).ok_or_else(|| {
            let names: Vec<_> = crate::flows::NAMED.iter().map(|(known, _)| *known).collect();
            name.fault(format!("no flows are called {}; there are {}", name.text, names.join(", ")))
        })?;
        for word in settings {
            let (key, value) = word.text.split_once('=').ok_or_else(|| word.fault("expected KEY=VALUE"))?;
            let place = format!("{{{key}}}");
            if !text.contains(&place) {
                return Err(word.fault(format!("{} has no {place}", name.text)));
            }
            text = text.replace(&place, value);
        }
        let open = text.lines().filter(|line| !line.starts_with('#')).find_map(|line| line.split_once('{'));
        if let Some((key, _)) = open.and_then(|(_, rest)| rest.split_once('}')) {
            return Err(name.fault(format!("{} needs {key}=...", name.text)));
        }
        self.script.flows = Some(text);
        Ok(())
    }

    fn continuation(&mut self, line: &str) -> Result<(), Fault> {
        if self.in_flows {
            if let Some(flows) = &mut self.script.flows {
                *flows += line.trim();
                flows.push('\n');
            }
            return Ok(());
        }
        let indent = line.chars().take_while(|letter| letter.is_whitespace()).count();
        let Some(placed) = self.script.steps.last_mut() else {
            return Err(Fault::new(
                indent + 1,
                "an indented line belongs to the one above it, and there is none",
            ));
        };
        if let Some(rest) = line.trim().strip_prefix("ovs ") {
            let (may, reason) = rest.strip_prefix("may ").map_or((false, rest), |rest| (true, rest));
            placed.excuse = Some(Excuse { reason: reason.trim().to_owned(), may });
            return Ok(());
        }
        match &mut placed.step {
            Step::Dump { lines, .. } | Step::Command { lines, .. } => {
                lines.push(line.trim().to_owned());
                Ok(())
            }
            Step::Packet(packet) => {
                let words = words(line)?;
                match words.split_first() {
                    None => Ok(()),
                    Some((arrow, rest)) if arrow.text == "->" => {
                        let output = output(arrow, rest, packet)?;
                        match &mut packet.outcome {
                            Outcome::Sent(outputs) => outputs.push(output),
                            Outcome::Across => packet.outcome = Outcome::Sent(vec![output]),
                            _ => return Err(arrow.fault("the line above says that nothing leaves")),
                        }
                        Ok(())
                    }
                    Some((word, _)) => Err(word.fault("expected `-> PORT ...` or `ovs REASON`")),
                }
            }
            _ => Err(Fault::new(indent + 1, "this step has no lines of its own; expected `ovs REASON`")),
        }
    }
}

fn reason(keyword: &Word, words: &[Word]) -> Result<String, Fault> {
    let words: Vec<_> = words.iter().map(|word| word.text.as_str()).collect();
    if words.is_empty() { Err(keyword.fault("the reason is missing")) } else { Ok(words.join(" ")) }
}

fn texts(words: &[Word]) -> Vec<String> {
    words.iter().map(|word| word.text.trim_matches('"').to_owned()).collect()
}

fn step(first: &Word, rest: &[Word]) -> Result<Step, Fault> {
    match (first.text.as_str(), rest) {
        ("wait", [seconds]) => {
            let time: f64 = number(seconds)?;
            let time = Duration::try_from_secs_f64(time);
            time.map(Step::Wait).map_err(|error| seconds.fault(error.to_string()))
        }
        ("connections", [count]) => Ok(Step::Connections(number(count)?)),
        ("dump", args) => Ok(Step::Dump { args: texts(args), lines: Vec::new() }),
        ("counter", [name, count]) => {
            let sign = count.text.strip_prefix('+').ok_or_else(|| count.fault("expected +N"))?;
            let more = sign.parse().map_err(|_| count.fault("expected +N"))?;
            Ok(Step::Counter(name.text.clone(), more))
        }
        ("differ", names) if names.len() > 1 => {
            names.iter().map(variable).collect::<Result<_, _>>().map(Step::Differ)
        }
        ("let", [name]) => Ok(Step::Let(variable(name)?, None)),
        ("let", [name, keyword, range]) if keyword.text == "in" => {
            let (from, to) = range.text.split_once('-').unwrap_or((&range.text, &range.text));
            let (from, to) = (value(&range.after(0), from)?, value(range, to)?);
            Ok(Step::Let(variable(name)?, Some((from, to))))
        }
        (family, words) if FAMILIES.contains(&family) => {
            Ok(Step::Command { family: family.to_owned(), words: texts(words), lines: Vec::new() })
        }
        (_, rest) => packet(first, rest).map(Step::Packet),
    }
}

fn value(word: &Word, text: &str) -> Result<Value, Fault> {
    if let Ok(number) = text.parse() {
        return Ok(Value::Number(number));
    }
    let address = text.parse().map(Value::Address);
    address.map_err(|_| word.fault(format!("{text} is neither an address nor a port")))
}

fn variable(word: &Word) -> Result<Name, Fault> {
    let name = word.text.strip_prefix('$').and_then(Name::new);
    name.ok_or_else(|| word.fault("expected a variable: $ and up to eight letters or digits"))
}

fn packet(first: &Word, rest: &[Word]) -> Result<Line, Fault> {
    let port = first.text.parse().map_err(|_| {
        first.fault(
            "expected a packet (PORT KIND SOURCE > DESTINATION ...), tables, flows, wait, connections, dump, \
             appctl, ofctl, counter, differ, let or weir-only",
        )
    })?;
    let Some((kind, rest)) = rest.split_first() else {
        return Err(first.fault("the packet's kind is missing"));
    };
    let arrow = rest.iter().position(|word| word.text == "->").unwrap_or(rest.len());
    let (before, after) = rest.split_at(arrow);
    let (src, dst, words) = match before {
        words if kind.text == "raw" => {
            let nowhere = Place::new(Host::INSIDE[0], 0);
            (nowhere, nowhere, words)
        }
        [src, angle, dst, words @ ..] if angle.text == ">" => (place(src)?, place(dst)?, words),
        _ => return Err(kind.fault("expected KIND SOURCE > DESTINATION")),
    };
    let mut line = Line {
        port,
        kind: Kind::Udp,
        src,
        dst,
        options: Vec::new(),
        verdict: Verdict::Gone,
        shown: Shown::default(),
        outcome: Outcome::Across,
    };
    let (mut flags, mut about, mut verdict) = (None, None, None);
    for word in words {
        match word.text.split_once('=') {
            Some(("about", text)) => about = Some(parse_about(&word.after(6), text)?),
            Some((key @ ("zone" | "mark" | "label"), text)) => {
                let value: u32 = integer(&word.after(key.len() + 1), text)?;
                let small = || u16::try_from(value).map_err(|_| word.fault("this is more than 16 bits"));
                match key {
                    "zone" => line.shown.zone = small()?,
                    "label" => line.shown.label = small()?,
                    _ => line.shown.mark = value,
                }
            }
            Some((key, text)) => line.options.push(option(word, key, text)?),
            None if kind.text == "tcp" && flags.is_none() => flags = Some(tcp_flags(word)?),
            None if kind.text == "sctp" && flags.is_none() => {
                flags = Some(0);
                line.options.push(("chunks".to_owned(), Setting::Text(chunks(word)?)));
            }
            None if verdict.is_none() => verdict = Some(parse_verdict(word)?),
            None => return Err(word.fault("the state stands before this; expected `->`, or nothing")),
        }
    }
    line.kind = match kind.text.as_str() {
        "tcp" => Kind::Tcp(flags.ok_or_else(|| kind.fault("a TCP segment needs flags, or `-`"))?),
        "sctp" if flags.is_none() => return Err(kind.fault("an SCTP packet needs chunks")),
        "raw" => Kind::Raw,
        name => match (KINDS.iter().find(|row| row.0 == name), ERRORS.iter().find(|row| row.0 == name)) {
            (Some((_, kind)), _) => *kind,
            (_, Some((_, error, ..))) => {
                let about =
                    about.ok_or_else(|| kind.fault("an error needs about=KIND,SOURCE,DESTINATION"))?;
                Kind::Error(*error, about)
            }
            _ => match name.strip_prefix("icmp").and_then(|number| number.parse().ok()) {
                Some(number) => Kind::Icmp(number),
                None => return Err(kind.fault(format!("unknown kind of packet {name}"))),
            },
        },
    };
    if let Some((arrow, after)) = after.split_first() {
        line.outcome = match after {
            [word, cause @ ..] if word.text == "drop" && cause.len() < 2 => {
                Outcome::Dropped(cause.first().map(|cause| cause.text.clone()))
            }
            [word] if word.text == "held" => Outcome::Held,
            after => Outcome::Sent(vec![output(arrow, after, &line)?]),
        };
    }
    line.verdict = match (verdict, &line.outcome) {
        (Some(verdict), _) => verdict,
        (None, Outcome::Dropped(_) | Outcome::Held) => Verdict::Gone,
        (None, _) => return Err(words.last().unwrap_or(kind).fault("the state is missing behind this")),
    };
    Ok(line)
}

/// What stands behind an arrow.
fn output(arrow: &Word, words: &[Word], line: &Line) -> Result<Output, Fault> {
    let Some((port, rest)) = words.split_first() else { return Err(arrow.fault("the port is missing")) };
    let mut output = Output::unchanged(number(port)?);
    let rest = match rest {
        [src, angle, dst, rest @ ..] if angle.text == ">" => {
            output.ends = Some((place(src)?, place(dst)?));
            rest
        }
        rest => rest,
    };
    for word in rest {
        match word.text.split_once('=') {
            Some(("about", text)) if matches!(line.kind, Kind::Error(..)) => {
                output.about = Some(parse_about(&word.after(6), text)?);
            }
            Some((key, text)) => output.options.push(option(word, key, text)?),
            None => return Err(word.fault("expected SOURCE > DESTINATION or KEY=VALUE behind the port")),
        }
    }
    Ok(output)
}

fn option(word: &Word, key: &str, text: &str) -> Result<(String, Setting), Fault> {
    let known = OPTIONS.iter().find(|(known, _)| *known == key);
    let at = word.after(key.chars().count() + 1);
    let (_, form) = known.ok_or_else(|| {
        let names: Vec<_> = OPTIONS.iter().map(|(name, _)| *name).collect();
        word.fault(format!("unknown option {key}; there are {}", names.join(", ")))
    })?;
    let setting = match form {
        Form::Number => Setting::Number(integer(&at, text)?),
        Form::Text => {
            words::bytes(&at)?;
            Setting::Text(text.to_owned())
        }
        Form::Hex => {
            let digits: Option<Vec<_>> = text.chars().map(|digit| digit.to_digit(16)).collect();
            let digits = digits.filter(|digits| digits.len() % 2 == 0 && !digits.is_empty());
            let digits = digits.ok_or_else(|| at.fault("expected an even number of hexadecimal digits"))?;
            let byte = |pair: &[u32]| u8::try_from(pair[0] << 4 | pair[1]).unwrap_or(0);
            Setting::Bytes(digits.chunks(2).map(byte).collect())
        }
        Form::Pairs => {
            let pair = |text: &str| -> Result<(u32, u32), Fault> {
                let both = text.split_once('-').ok_or_else(|| at.fault("expected FIRST-SECOND"))?;
                Ok((integer(&at, both.0)?, integer(&at, both.1)?))
            };
            Setting::Pairs(text.split(',').map(pair).collect::<Result<_, _>>()?)
        }
    };
    Ok((key.to_owned(), setting))
}

fn number<T: FromStr>(word: &Word) -> Result<T, Fault> {
    word.text.parse().map_err(|_| word.fault(format!("{} is no number that fits here", word.text)))
}

/// Decimal or, behind 0x, hexadecimal.
fn integer(word: &Word, text: &str) -> Result<u32, Fault> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| word.fault(format!("{text} is no number that fits here")))
}

fn tcp_flags(word: &Word) -> Result<u8, Fault> {
    let letters = word.text.chars().filter(|letter| *letter != '-');
    letters.into_iter().try_fold(0, |flags, letter| {
        let flag = TCP_FLAGS.iter().find(|(name, _)| *name == letter);
        let flag = flag.map(|(_, bit)| flags | bit);
        flag.ok_or_else(|| {
            word.fault(format!("{} is neither TCP flags (FSRPAUEC, or -) nor an option", word.text))
        })
    })
}

fn chunks(word: &Word) -> Result<String, Fault> {
    for name in word.text.split(',') {
        let plain = name.strip_suffix(".T").unwrap_or(name);
        if !CHUNKS.iter().any(|(known, ..)| *known == plain) {
            let names = CHUNKS.map(|(name, ..)| name).join(", ");
            return Err(word.fault(format!("{plain} is no SCTP chunk; there are {names}")));
        }
    }
    Ok(word.text.clone())
}

fn parse_verdict(word: &Word) -> Result<Verdict, Fault> {
    match word.text.as_str() {
        "gone" => return Ok(Verdict::Gone),
        "any" => return Ok(Verdict::Any),
        "untracked" => return Ok(Verdict::State(0)),
        _ => {}
    }
    let mut flags = state::TRK;
    for name in word.text.split('+') {
        let flag = state::NAMES.iter().find(|(known, _)| *known == name);
        flags |= flag.map(|(_, flag)| *flag).ok_or_else(|| {
            let names = state::NAMES.map(|(name, _)| name).join("+");
            word.fault(format!("{} must be a state: flags of {names}, or untracked, gone or any", word.text))
        })?;
    }
    Ok(Verdict::State(flags))
}

fn place(word: &Word) -> Result<Place, Fault> {
    parse_place(word, &word.text)
}

fn parse_place(word: &Word, text: &str) -> Result<Place, Fault> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(Place { address: Address::Literal(address), port: Port::Number(0) });
    }
    let (address, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once("]:")) {
        Some(both) => both,
        None => text.split_once(':').unwrap_or((text, "0")),
    };
    let address = if let Some(name) = address.strip_prefix('$').and_then(Name::new) {
        Address::Variable(name)
    } else if let Ok(address) = address.parse() {
        Address::Literal(address)
    } else {
        let (letter, six) = address.strip_suffix('6').map_or((address, false), |letter| (letter, true));
        let known = Host::INSIDE.into_iter().chain(Host::OUTSIDE).find(|host| letter.chars().eq([host.0]));
        let host = known.ok_or_else(|| {
            word.fault(format!(
                "no host is called {address}; there are a, b, c, x, y, r, addresses and $variables"
            ))
        })?;
        if six { Address::Host6(host) } else { Address::Host(host) }
    };
    let port = match port.strip_prefix('$').and_then(Name::new) {
        Some(name) => Port::Variable(name),
        None => {
            let fault = |_| word.fault(format!("{port} is no number that fits here"));
            Port::Number(port.parse().map_err(fault)?)
        }
    };
    Ok(Place { address, port })
}

fn parse_about(word: &Word, text: &str) -> Result<About, Fault> {
    let parts: Vec<_> = text.split(',').collect();
    let [kind, src, dst] = parts.as_slice() else {
        return Err(word.fault("expected about=KIND,SOURCE,DESTINATION"));
    };
    let kind = ABOUT.iter().find(|(name, _)| name == kind).map(|(_, kind)| *kind);
    let kind =
        kind.ok_or_else(|| word.fault(format!("errors are about {}", ABOUT.map(|row| row.0).join(", "))))?;
    Ok(About { kind, src: parse_place(word, src)?, dst: parse_place(word, dst)? })
}

/// Used where options are put together by code.
impl Line {
    /// A line that is only compared.
    pub fn any(port: u32, kind: Kind, src: Place, dst: Place) -> Self {
        Self {
            port,
            kind,
            src,
            dst,
            options: Options::new(),
            verdict: Verdict::Any,
            shown: Shown::default(),
            outcome: Outcome::Across,
        }
    }
}
