//! Packet scripts: one line a packet, with the state it must be given. They are read from tools/scenarios, and
//! random ones are printed in the same language, so that a failure can be kept as a file.
//!
//! ```text
//! # A handshake and its first data.
//! tables acl nat acl6
//! 1 tcp a:4000 > x:80 S seq=1000 ws=7          new
//! 2 tcp x:80 > a:4000 SA seq=9000 ack=1001     est+rpl
//! 1 tcp a:4000 > x:80 PA seq=1001 ack=9001 len=100   est
//! 2 unreachable r > a about=tcp,a:4000,x:80    rel+rpl
//! wait 86401
//! connections 0
//! ```
//!
//! A line is: port, kind, source, destination, TCP flags, options, state. Hosts a, b, c are inside (port 1),
//! x, y, r outside (port 2). Inside hosts are always named by their own address: the runner follows the
//! translation. `about` names the packet that an error is about, in the direction in which *its sender* sent it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::time::Duration;

use crate::packet::{Body, Damage, Endpoint, Packet, protocol};

/// The tables that a script is run through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// The ACL example.
    Acl,
    /// The NAT example.
    Nat,
    /// The ACL example for IPv6.
    Acl6,
    /// Output by state, IPv4.
    States,
    /// Output by state behind the NAT example's translation.
    StatesNat,
    /// Output by state, IPv6.
    States6,
}

impl Table {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Acl, Self::Nat, Self::Acl6, Self::States, Self::StatesNat, Self::States6];

    /// Its name in a script; `states` follow from `acl` and `nat` and are not named.
    pub fn name(self) -> &'static str {
        match self {
            Self::Acl => "acl",
            Self::Nat => "nat",
            Self::Acl6 => "acl6",
            Self::States => "states",
            Self::StatesNat => "states-nat",
            Self::States6 => "states6",
        }
    }

    /// Its flows.
    pub fn flows(self) -> &'static str {
        match self {
            Self::Acl => crate::flows::ACL,
            Self::Nat => crate::flows::NAT,
            Self::Acl6 => crate::flows::ACL6,
            Self::States | Self::States6 => crate::flows::STATES,
            Self::StatesNat => crate::flows::STATES_NAT,
        }
    }

    /// Whether the packets are IPv6.
    pub fn is_v6(self) -> bool {
        matches!(self, Self::Acl6 | Self::States6)
    }

    /// Whether sources are translated to 10.0.0.1-10.0.0.255, ports 5000-50000.
    pub fn translates(self) -> bool {
        matches!(self, Self::Nat | Self::StatesNat)
    }

    fn shows_states(self) -> bool {
        matches!(self, Self::States | Self::StatesNat | Self::States6)
    }

    /// The table that shows the states of the same packets.
    fn with_states(self) -> Self {
        match self {
            Self::Acl | Self::States => Self::States,
            Self::Nat | Self::StatesNat => Self::StatesNat,
            Self::Acl6 | Self::States6 => Self::States6,
        }
    }
}

/// What must become of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// ct_state +new.
    New,
    /// ct_state +est-rpl.
    Est,
    /// ct_state +est+rpl.
    EstRpl,
    /// ct_state +rel-rpl.
    Rel,
    /// ct_state +rel+rpl.
    RelRpl,
    /// ct_state +inv.
    Inv,
    /// Dropped whatever the table, because it never gets a state.
    Gone,
    /// Whatever it is: only compared between switches.
    Any,
}

const VERDICTS: [(&str, Verdict); 8] = [
    ("new", Verdict::New),
    ("est", Verdict::Est),
    ("est+rpl", Verdict::EstRpl),
    ("rel", Verdict::Rel),
    ("rel+rpl", Verdict::RelRpl),
    ("inv", Verdict::Inv),
    ("gone", Verdict::Gone),
    ("any", Verdict::Any),
];

impl Verdict {
    /// The port that a packet from port `from` must leave through; None if it must be dropped.
    pub fn output(self, table: Table, from: u32) -> Option<u32> {
        if table.shows_states() {
            return match self {
                Self::New => Some(10),
                Self::Est => Some(11),
                Self::Rel => Some(12),
                Self::Inv => Some(13),
                Self::EstRpl => Some(21),
                Self::RelRpl => Some(22),
                Self::Gone | Self::Any => None,
            };
        }
        match (self, from) {
            (Self::New | Self::Est | Self::EstRpl, 1) => Some(2),
            (Self::Est | Self::EstRpl, 2) => Some(1),
            _ => None,
        }
    }
}

/// A host of the scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host(char);

impl Host {
    /// Inside, in the order of their addresses.
    pub const INSIDE: [Self; 3] = [Self('a'), Self('b'), Self('c')];
    /// Outside; r is a router, which sends errors.
    pub const OUTSIDE: [Self; 3] = [Self('x'), Self('y'), Self('r')];

    fn number(self) -> u8 {
        let all = Self::INSIDE.iter().chain(&Self::OUTSIDE);
        let at = all.clone().position(|host| *host == self).unwrap_or(0);
        u8::try_from(at % 3 + 2).unwrap_or(2)
    }

    /// Its address: 192.168.0.2.. or fd00::2.. inside, 198.51.100.2.. or 2001:db8::2.. outside.
    pub fn address(self, v6: bool) -> IpAddr {
        let number = self.number();
        match (Self::INSIDE.contains(&self), v6) {
            (true, false) => Ipv4Addr::new(192, 168, 0, number).into(),
            (false, false) => Ipv4Addr::new(198, 51, 100, number).into(),
            (true, true) => Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number.into()).into(),
            (false, true) => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number.into()).into(),
        }
    }
}

/// A host with a port or ICMP identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The host.
    pub host: Host,
    /// Port or identifier; 0 if not written.
    pub port: u16,
}

impl Place {
    fn endpoint(self, v6: bool) -> Endpoint {
        Endpoint { address: self.host.address(v6), port: self.port }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.host.0)?;
        if self.port == 0 { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

/// What kind of packet a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// TCP, with its flags octet.
    Tcp(u8),
    /// UDP.
    Udp,
    /// ICMP echo request.
    Echo,
    /// ICMP echo reply.
    EchoReply,
    /// ICMP port unreachable about a packet of the given kind from, to.
    Unreachable(About),
    /// ICMP timestamp request.
    Timestamp,
    /// ICMP timestamp reply.
    TimestampReply,
    /// ICMP of the given type.
    Icmp(u8),
    /// A protocol without ports: GRE.
    Gre,
    /// Another one: ESP.
    Esp,
}

/// The packet that an ICMP error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct About {
    /// Protocol of it.
    pub kind: AboutKind,
    /// Who sent it.
    pub src: Place,
    /// To whom.
    pub dst: Place,
}

/// Kinds of packet that errors are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AboutKind {
    /// A TCP segment.
    Tcp,
    /// A UDP datagram.
    Udp,
    /// An echo request.
    Echo,
}

const TCP_FLAGS: [(char, u8); 8] =
    [('F', 1), ('S', 2), ('R', 4), ('P', 8), ('A', 16), ('U', 32), ('E', 64), ('C', 128)];
const ABOUT: [(&str, AboutKind); 3] =
    [("tcp", AboutKind::Tcp), ("udp", AboutKind::Udp), ("echo", AboutKind::Echo)];

/// One packet of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The port that it arrives at.
    pub port: u32,
    /// Its kind.
    pub kind: Kind,
    /// Its source.
    pub src: Place,
    /// Its destination; for an inside host under translation, whatever outside knows it as.
    pub dst: Place,
    /// Options as written, `key=value`.
    pub options: Vec<(String, u32)>,
    /// What must become of it.
    pub verdict: Verdict,
}

/// Options that a line can have, with what they mean.
const OPTIONS: [&str; 22] = [
    "seq",
    "ack",
    "win",
    "ws",
    "len",
    "ttl",
    "id",
    "code", // fields
    "vlan",
    "ip-options",
    "extension", // a tag (its control information), words of IPv4 options, units of IPv6 options
    "from",
    "to", // fragment: these bytes of the L4 packet
    "bad-ip-checksum",
    "bad-checksum",
    "no-checksum", // =1
    "cut",
    "longer",
    "header-words",
    "data-offset",
    "udp-length", // damage, see packet::Damage
    "inner-port", // the error is about this destination port instead of the right one
];

impl Line {
    fn option(&self, key: &str) -> Option<u32> {
        self.options.iter().find(|(name, _)| name == key).map(|(_, value)| *value)
    }

    fn small<T: TryFrom<u32>>(&self, key: &str) -> Option<T> {
        self.option(key).and_then(|value| T::try_from(value).ok())
    }

    /// The packet, with `dst` (and for an error the source of the packet that it is about) as the sender
    /// knows them.
    pub fn packet(&self, v6: bool, known_as: impl Fn(u8, Endpoint, Endpoint) -> Endpoint) -> Packet {
        let body = match self.kind {
            Kind::Tcp(flags) => Body::Tcp {
                flags,
                seq: self.option("seq").unwrap_or(0),
                ack: self.option("ack").unwrap_or(0),
                window: self.small("win").unwrap_or(u16::MAX),
                scale: self.small("ws"),
            },
            Kind::Udp => Body::Udp,
            Kind::Echo => Body::Echo { reply: false, code: self.small("code").unwrap_or(0) },
            Kind::EchoReply => Body::Echo { reply: true, code: self.small("code").unwrap_or(0) },
            Kind::Icmp(kind) => Body::Icmp { kind },
            Kind::Timestamp => Body::Timestamp { reply: false },
            Kind::TimestampReply => Body::Timestamp { reply: true },
            Kind::Gre => Body::Other { protocol: protocol::GRE },
            Kind::Esp => Body::Other { protocol: protocol::ESP },
            Kind::Unreachable(about) => return self.error(about, v6, &known_as),
        };
        let mut packet = Packet::new(self.src.endpoint(v6), self.dst.endpoint(v6), body);
        self.dress(&mut packet);
        packet.dst = known_as(packet.port_space(), packet.dst, packet.src);
        packet
    }

    fn error(
        &self,
        about: About,
        v6: bool,
        known_as: &impl Fn(u8, Endpoint, Endpoint) -> Endpoint,
    ) -> Packet {
        let body = match about.kind {
            AboutKind::Tcp => Body::Tcp { flags: 16, seq: 1, ack: 1, window: 1000, scale: None },
            AboutKind::Udp => Body::Udp,
            AboutKind::Echo => Body::Echo { reply: false, code: 0 },
        };
        let mut inner = Packet::new(about.src.endpoint(v6), about.dst.endpoint(v6), body);
        inner.payload = 8;
        inner.ttl = 60;
        let mut dst = self.dst.endpoint(v6);
        let protocol = inner.protocol();
        // Inside knows its own packets untranslated.
        let known_as =
            |protocol, near, far| if self.port == 1 { near } else { known_as(protocol, near, far) };
        if Host::INSIDE.contains(&about.src.host) {
            let original = inner.src;
            inner.src = known_as(protocol, inner.src, inner.dst);
            if original.address == dst.address {
                dst.address = inner.src.address;
            }
        } else {
            inner.dst = known_as(protocol, inner.dst, inner.src);
        }
        if let Some(port) = self.small("inner-port") {
            inner.dst.port = port;
        }
        let mut packet = Packet::new(self.src.endpoint(v6), dst, Body::Unreachable { about: inner.bytes() });
        self.dress(&mut packet);
        packet
    }

    fn dress(&self, packet: &mut Packet) {
        packet.payload = self.small("len").unwrap_or(0);
        packet.ttl = self.small("ttl").unwrap_or(64);
        packet.id = self.small("id").unwrap_or(1);
        packet.tag = self.small("vlan");
        packet.option_words = self.small("ip-options").unwrap_or(0);
        packet.extension = self.small("extension");
        packet.slice = self.small("from").map(|from| (from, self.small("to").unwrap_or(u16::MAX)));
        let flagged = |key, damage| self.option(key).map(|_| damage);
        packet.damage = [
            flagged("bad-ip-checksum", Damage::L3Checksum),
            flagged("bad-checksum", Damage::L4Checksum),
            flagged("no-checksum", Damage::NoL4Checksum),
            self.small("cut").map(Damage::Cut),
            self.small("longer").map(Damage::Longer),
            self.small("header-words").map(Damage::HeaderWords),
            self.small("data-offset").map(Damage::DataOffset),
            self.small("udp-length").map(Damage::UdpLength),
        ]
        .into_iter()
        .flatten()
        .collect();
    }
}

/// One line of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A packet arrives.
    Packet(Line),
    /// Time passes.
    Wait(Duration),
    /// So many connections must now be shown.
    Connections(usize),
}

/// A whole script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// Its file name, or how it was made.
    pub name: String,
    /// The tables to run it through.
    pub tables: Vec<Table>,
    /// Its lines, each with its number.
    pub steps: Vec<(usize, Step)>,
}

/// Why a script cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name}, line {line}: {what}")]
pub struct ScriptError {
    /// The script.
    pub name: String,
    /// Line number from 1.
    pub line: usize,
    /// What is wrong and what was expected.
    pub what: String,
}

impl Script {
    /// Reads a script. Every table named is run, and with it the one that shows states.
    ///
    /// # Errors
    /// The first line that is none.
    pub fn parse(name: &str, text: &str) -> Result<Self, ScriptError> {
        let mut script = Self { name: name.to_owned(), tables: Vec::new(), steps: Vec::new() };
        for (at, raw) in text.lines().enumerate() {
            let error = |what| ScriptError { name: name.to_owned(), line: at + 1, what };
            let line = raw.split('#').next().unwrap_or_default();
            let words: Vec<_> = line.split_whitespace().collect();
            match words.as_slice() {
                [] => {}
                ["tables", names @ ..] => {
                    for name in names {
                        let table = Table::ALL.into_iter().find(|table| table.name() == *name);
                        let table = table.ok_or_else(|| error(format!("no table is called {name}")))?;
                        for one in [table, table.with_states()] {
                            if !script.tables.contains(&one) {
                                script.tables.push(one);
                            }
                        }
                    }
                }
                _ => script.steps.push((at + 1, parse_step(&words).map_err(error)?)),
            }
        }
        Ok(script)
    }
}

fn parse_step(words: &[&str]) -> Result<Step, String> {
    match words {
        ["wait", seconds] => {
            let seconds: f64 = number(seconds)?;
            Duration::try_from_secs_f64(seconds).map(Step::Wait).map_err(|error| error.to_string())
        }
        ["connections", count] => Ok(Step::Connections(number(count)?)),
        [port, kind, src, ">", dst, rest @ ..] => parse_packet(port, kind, src, dst, rest).map(Step::Packet),
        _ => {
            Err("expected `PORT KIND SOURCE > DESTINATION ... STATE`, `wait SECONDS` or `connections N`"
                .into())
        }
    }
}

fn parse_packet(port: &str, kind: &str, src: &str, dst: &str, rest: &[&str]) -> Result<Line, String> {
    let [middle @ .., verdict] = rest else { return Err("the state is missing at the end".into()) };
    let verdict = VERDICTS.iter().find(|(name, _)| name == verdict).map(|(_, verdict)| *verdict);
    let verdict = verdict.ok_or_else(|| {
        format!("the last word must be one of {}", VERDICTS.map(|(name, _)| name).join(", "))
    })?;
    let mut flags = None;
    let mut about = None;
    let mut options = Vec::new();
    for word in middle {
        match word.split_once('=') {
            Some(("about", value)) => about = Some(parse_about(value)?),
            Some((key, value)) if OPTIONS.contains(&key) => options.push((key.to_owned(), number(value)?)),
            Some((key, _)) => return Err(format!("unknown option {key}; there are {}", OPTIONS.join(", "))),
            None => flags = Some(parse_flags(word)?),
        }
    }
    let kind = match kind {
        "tcp" => Kind::Tcp(flags.ok_or("a TCP segment needs flags, or `-`")?),
        "udp" => Kind::Udp,
        "echo" => Kind::Echo,
        "echo-reply" => Kind::EchoReply,
        "timestamp" => Kind::Timestamp,
        "timestamp-reply" => Kind::TimestampReply,
        "gre" => Kind::Gre,
        "esp" => Kind::Esp,
        "unreachable" => Kind::Unreachable(about.ok_or("an error needs about=KIND,SOURCE,DESTINATION")?),
        other => match other.strip_prefix("icmp") {
            Some(kind) => Kind::Icmp(number(kind)?),
            None => return Err(format!("unknown kind of packet {other}")),
        },
    };
    Ok(Line { port: number(port)?, kind, src: parse_place(src)?, dst: parse_place(dst)?, options, verdict })
}

fn number<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text} is no number that fits here"))
}

fn parse_flags(text: &str) -> Result<u8, String> {
    let letters = text.chars().filter(|letter| *letter != '-');
    letters.into_iter().try_fold(0, |flags, letter| {
        let flag = TCP_FLAGS.iter().find(|(name, _)| *name == letter);
        flag.map(|(_, bit)| flags | bit).ok_or_else(|| format!("{text} is neither TCP flags nor an option"))
    })
}

fn parse_place(text: &str) -> Result<Place, String> {
    let (host, port) = text.split_once(':').unwrap_or((text, "0"));
    let known = Host::INSIDE.into_iter().chain(Host::OUTSIDE).find(|one| host.chars().eq([one.0]));
    let host = known.ok_or_else(|| format!("no host is called {host}; there are a, b, c, x, y, r"))?;
    Ok(Place { host, port: number(port)? })
}

fn parse_about(text: &str) -> Result<About, String> {
    let parts: Vec<_> = text.split(',').collect();
    let [kind, src, dst] = parts.as_slice() else { return Err("about=KIND,SOURCE,DESTINATION".into()) };
    let kind = ABOUT.iter().find(|(name, _)| name == kind).map(|(_, kind)| *kind);
    let kind = kind.ok_or_else(|| format!("errors are about {}", ABOUT.map(|(name, _)| name).join(", ")))?;
    Ok(About { kind, src: parse_place(src)?, dst: parse_place(dst)? })
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Tcp(_) => "tcp".into(),
            Kind::Udp => "udp".into(),
            Kind::Echo => "echo".into(),
            Kind::EchoReply => "echo-reply".into(),
            Kind::Unreachable(_) => "unreachable".into(),
            Kind::Icmp(kind) => format!("icmp{kind}"),
            Kind::Timestamp => String::from("timestamp"),
            Kind::TimestampReply => String::from("timestamp-reply"),
            Kind::Gre => String::from("gre"),
            Kind::Esp => String::from("esp"),
        };
        write!(f, "{} {kind} {} > {}", self.port, self.src, self.dst)?;
        if let Kind::Tcp(flags) = self.kind {
            let letters: String =
                TCP_FLAGS.iter().filter(|(_, bit)| flags & bit != 0).map(|(letter, _)| *letter).collect();
            write!(f, " {}", if letters.is_empty() { "-" } else { &letters })?;
        }
        if let Kind::Unreachable(about) = self.kind {
            let name = ABOUT.iter().find(|(_, kind)| *kind == about.kind).map_or("", |(name, _)| name);
            write!(f, " about={name},{},{}", about.src, about.dst)?;
        }
        for (key, value) in &self.options {
            write!(f, " {key}={value}")?;
        }
        let verdict = VERDICTS.iter().find(|(_, verdict)| *verdict == self.verdict);
        write!(f, " {}", verdict.map_or("any", |(name, _)| name))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Packet(line) => line.fmt(f),
            Self::Wait(time) => write!(f, "wait {}", time.as_secs_f64()),
            Self::Connections(count) => write!(f, "connections {count}"),
        }
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# {}", self.name)?;
        // `states` follow from the others where there are others.
        let only_states = self.tables.iter().all(|table| table.shows_states());
        let named =
            self.tables.iter().filter(|table| only_states || !table.shows_states()).map(|table| table.name());
        writeln!(f, "tables {}", named.collect::<Vec<_>>().join(" "))?;
        self.steps.iter().try_for_each(|(_, step)| writeln!(f, "{step}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_prints_as_it_reads() {
        let text = "# t\ntables acl nat\n1 tcp a:4000 > x:80 FS seq=1000 ws=7 new\n\
                    2 unreachable r > a about=udp,a:1,x:2 rel+rpl\nwait 1.5\n1 gre b > y any\n\
                    1 tcp a > x - inv\n2 icmp42 x > a inv\n\
                    1 timestamp a:7 > x vlan=8197 ip-options=2 new\n1 esp a > x extension=1 new\nconnections 3\n";
        let script = Script::parse("t", text).unwrap();
        assert_eq!(script.to_string(), text);
        assert_eq!(script.tables, [Table::Acl, Table::States, Table::Nat, Table::StatesNat]);
    }

    #[test]
    fn a_wrong_line_says_what_is_wrong() {
        for (text, part) in [
            ("1 tcp a:1 > x:2 S", "the last word must be one of"),
            ("1 tcp a:1 > x:2 new", "needs flags"),
            ("1 tcp a:1 > q:2 S new", "no host is called q"),
            ("1 tcp a:1 > x:99999 S new", "no number that fits"),
            ("1 udp a:1 > x:2 colour=1 new", "unknown option colour"),
            ("2 unreachable r > a rel", "needs about"),
            ("hello", "expected"),
            ("wait -1", "negative"),
        ] {
            let error = Script::parse("t", text).unwrap_err();
            assert!(
                error.to_string().starts_with("t, line 1: ") && error.what.contains(part),
                "{text}: {error}"
            );
        }
    }
}
