//! Packet scripts: one line a packet, with what must become of it. `tests/scripts` is full of them; random ones are
//! printed in the same language, so that a failure can be kept as a file.
//!
//! ```text
//! # A source behind the translator is known by the pool's address, and answers find the way back (RFC 3022).
//! flows translate nat=src=10.0.0.1-10.0.0.9:5000-5999
//! let $n in 10.0.0.1-10.0.0.9
//! let $p in 5000-5999
//! 1 tcp a:4000 > x:80 S seq=1000          new                -> 2 $n:$p > x:80
//! 2 tcp x:80 > $n:$p SA seq=9 ack=1001    est+rpl+dnat       -> 1 x:80 > a:4000
//! 1 tcp a:4000 > x:81 RA seq=1            new                -> drop nat_exhausted
//! wait 31
//! dump
//!   tcp,orig=(src=192.168.0.2,...),reply=(...,dst=$n,sport=80,dport=$p),protoinfo=(state=SYN_SENT)
//! ```
//!
//! **A packet** is: the port it comes in by, its kind, source `>` destination, TCP flags or SCTP chunks, options,
//! the ct_state that its last flow saw, and `->` what leaves. Without `->` it leaves unchanged through the port on the
//! other side. `-> PORT [SOURCE > DESTINATION] [OPTIONS]` says what is different from what came in, and *nothing
//! else may be*: the frame is compared byte by byte, checksums included. `-> drop [CAUSE]` and `-> held` send
//! nothing (CAUSE is the counter's name, `held` is counted under none). A packet that brings out several has a line
//! beginning with `->` for each.
//!
//! **Hosts** a, b, c are inside, x, y, r outside; `a6` is a's IPv6 address; any other is written as it is, IPv6 in
//! brackets. `$NAME` is what a switch draws: the first packet that leaves with it gives it its value, every later one
//! must agree, and `let $NAME [in FROM-TO]` says in which range, or that it begins anew.
//!
//! **Flows** stand in the script (`flows`, then lines that are indented) or in a file of `tests/scripts/flows`
//! (`flows NAME KEY=VALUE...` fills in its `{KEY}`s). The action `show` in them writes the state into the frame's
//! hardware addresses, which is how a script sees what a flow saw, in any switch (see [`crate::exact`]).
//!
//! `tables acl nat acl6` in place of flows runs the script through those examples, and through tables that send each
//! packet to a port that names its state; inside hosts are then always named by their own address, and the runner
//! follows the translation.
//!
//! **Other lines**: `wait SECONDS`; `connections N`; `dump [-s] [zone=N]` and the connections that it must show;
//! `appctl COMMAND ...`, `ofctl COMMAND ...` and the lines it must answer (`error: ` before those of a refusal, `*`
//! for any); `counter NAME +N` for what weir counted since the last such line; `differ $p $q` for variables that
//! must not agree.
//!
//! **Differences from Open vSwitch**: a line `weir-only REASON` keeps a script from it, an indented line `ovs REASON`
//! excuses the step above it (and must be needed; `ovs may REASON` need not).

mod parse;
mod place;
mod print;
mod words;

use std::time::Duration;

pub use place::{Address, Host, Name, Place, Port, Unbound, Value, Variables};

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

/// Flags of ct_state (ovs-fields(7)).
pub mod state {
    /// A new connection.
    pub const NEW: u8 = 0x01;
    /// Part of an established connection.
    pub const EST: u8 = 0x02;
    /// Related to one.
    pub const REL: u8 = 0x04;
    /// In its reply direction.
    pub const RPL: u8 = 0x08;
    /// Invalid.
    pub const INV: u8 = 0x10;
    /// Seen by conntrack.
    pub const TRK: u8 = 0x20;
    /// Its source was translated.
    pub const SNAT: u8 = 0x40;
    /// Its destination was translated.
    pub const DNAT: u8 = 0x80;
    /// Their names in scripts; that it was tracked goes without saying.
    pub const NAMES: [(&str, u8); 7] = [
        ("new", NEW),
        ("est", EST),
        ("rel", REL),
        ("rpl", RPL),
        ("inv", INV),
        ("snat", SNAT),
        ("dnat", DNAT),
    ];
}

/// What ct_state a packet must have had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// These flags of [`state`], `TRK` among them unless it was not tracked.
    State(u8),
    /// Dropped whatever the table, because it never gets a state.
    Gone,
    /// Whatever it is: only compared between switches.
    Any,
}

impl Verdict {
    /// The port that a packet from port `from` must leave through; None if it must be dropped.
    pub fn output(self, table: Table, from: u32) -> Option<u32> {
        const NEW: u8 = state::TRK | state::NEW;
        const EST: u8 = state::TRK | state::EST;
        const EST_RPL: u8 = EST | state::RPL;
        const REL: u8 = state::TRK | state::REL;
        const REL_RPL: u8 = REL | state::RPL;
        const INV: u8 = state::TRK | state::INV;
        let Self::State(flags) = self else { return None };
        if table.shows_states() {
            return match flags {
                NEW => Some(10),
                EST => Some(11),
                REL => Some(12),
                INV => Some(13),
                EST_RPL => Some(21),
                REL_RPL => Some(22),
                _ => None,
            };
        }
        match (flags, from) {
            (NEW | EST | EST_RPL, 1) => Some(2),
            (EST | EST_RPL, 2) => Some(1),
            _ => None,
        }
    }
}

/// What kind of packet a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// TCP, with its flags octet.
    Tcp(u8),
    /// UDP.
    Udp,
    /// SCTP; its chunks are the option `chunks`.
    Sctp,
    /// ICMP echo request.
    Echo,
    /// ICMP echo reply.
    EchoReply,
    /// An ICMP error about a packet.
    Error(ErrorKind, About),
    /// ICMP timestamp request.
    Timestamp,
    /// ICMP timestamp reply.
    TimestampReply,
    /// ICMP information request.
    Information,
    /// ICMP information reply.
    InformationReply,
    /// ICMP of the given type.
    Icmp(u8),
    /// A protocol without ports: GRE.
    Gre,
    /// Another one: ESP.
    Esp,
    /// The frame is the option `hex`.
    Raw,
}

const KINDS: [(&str, Kind); 10] = [
    ("udp", Kind::Udp),
    ("sctp", Kind::Sctp),
    ("echo", Kind::Echo),
    ("echo-reply", Kind::EchoReply),
    ("timestamp", Kind::Timestamp),
    ("timestamp-reply", Kind::TimestampReply),
    ("information", Kind::Information),
    ("information-reply", Kind::InformationReply),
    ("gre", Kind::Gre),
    ("esp", Kind::Esp),
];

/// Kinds of ICMP errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Destination unreachable; without `code`: the port.
    Unreachable,
    /// Source quench (RFC 792; IPv4 only).
    Quench,
    /// Redirect (RFC 792; IPv4 only).
    Redirect,
    /// Time exceeded.
    TimeExceeded,
    /// Parameter problem.
    ParameterProblem,
    /// Too big for the next link: ICMPv6's own type, fragmentation needed in ICMP (RFC 1191).
    TooBig,
}

/// Name, (type, code) in ICMP, (type, code) in ICMPv6; ICMPv6 has no quench and no redirect of this form.
type ErrorRow = (&'static str, ErrorKind, (u8, u8), (u8, u8));
const ERRORS: [ErrorRow; 6] = [
    ("unreachable", ErrorKind::Unreachable, (3, 3), (1, 4)),
    ("quench", ErrorKind::Quench, (4, 0), (1, 0)),
    ("redirect", ErrorKind::Redirect, (5, 1), (1, 0)),
    ("time-exceeded", ErrorKind::TimeExceeded, (11, 0), (3, 0)),
    ("parameter-problem", ErrorKind::ParameterProblem, (12, 0), (4, 0)),
    ("too-big", ErrorKind::TooBig, (3, 4), (2, 0)),
];

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
    /// An echo reply.
    EchoReply,
    /// An SCTP packet.
    Sctp,
    /// A GRE packet.
    Gre,
}

const TCP_FLAGS: [(char, u8); 8] =
    [('F', 1), ('S', 2), ('R', 4), ('P', 8), ('A', 16), ('U', 32), ('E', 64), ('C', 128)];
const ABOUT: [(&str, AboutKind); 6] = [
    ("tcp", AboutKind::Tcp),
    ("udp", AboutKind::Udp),
    ("echo", AboutKind::Echo),
    ("echo-reply", AboutKind::EchoReply),
    ("sctp", AboutKind::Sctp),
    ("gre", AboutKind::Gre),
];
/// SCTP chunks (RFC 9260 section 3.2) and the length of their fixed part.
const CHUNKS: [(&str, u8, u16); 13] = [
    ("DATA", 0, 16),
    ("INIT", 1, 20),
    ("INIT-ACK", 2, 20),
    ("SACK", 3, 16),
    ("HEARTBEAT", 4, 8),
    ("HEARTBEAT-ACK", 5, 8),
    ("ABORT", 6, 4),
    ("SHUTDOWN", 7, 8),
    ("SHUTDOWN-ACK", 8, 4),
    ("ERROR", 9, 4),
    ("COOKIE-ECHO", 10, 8),
    ("COOKIE-ACK", 11, 4),
    ("SHUTDOWN-COMPLETE", 14, 4),
];

/// The value of an option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setting {
    /// A number.
    Number(u32),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A text in which variables are replaced.
    Text(String),
    /// Pairs of numbers.
    Pairs(Vec<(u32, u32)>),
}

impl From<u32> for Setting {
    fn from(number: u32) -> Self {
        Self::Number(number)
    }
}

/// How the value of an option is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Number,
    Text,
    Hex,
    Pairs,
}

/// Options that a packet can have. Those of the packet that an error is about have `inner-` before the name.
const OPTIONS: [(&str, Form); 42] = [
    // TCP
    ("seq", Form::Number),
    ("ack", Form::Number),
    ("win", Form::Number),
    ("ws", Form::Number),
    ("mss", Form::Number),
    ("sack-ok", Form::Number),
    ("sack", Form::Pairs), // edges of blocks: 1000-2000,3000-4000
    ("ts", Form::Pairs),   // value-echo
    // SCTP
    ("chunks", Form::Text),
    ("tag", Form::Number),  // verification tag
    ("itag", Form::Number), // initiate tag of INIT and INIT-ACK
    // payload: so many bytes, or these
    ("len", Form::Number),
    ("data", Form::Text),
    // header fields
    ("ttl", Form::Number),
    ("id", Form::Number),
    ("type", Form::Number),
    ("code", Form::Number),
    ("mtu", Form::Number),
    // a tag's control information, words of IPv4 options, units of IPv6 extension headers
    ("vlan", Form::Number),
    ("ip-options", Form::Number),
    ("extension", Form::Number),
    ("hop-by-hop", Form::Number),
    ("routing", Form::Number),
    // a fragment: these bytes of the L4 packet; whether it says that more follow
    ("from", Form::Number),
    ("to", Form::Number),
    ("more", Form::Number),
    // damage, see packet::Damage
    ("bad-ip-checksum", Form::Number),
    ("bad-checksum", Form::Number),
    ("no-checksum", Form::Number),
    ("cut", Form::Number),
    ("longer", Form::Number),
    ("header-words", Form::Number),
    ("data-offset", Form::Number),
    ("udp-length", Form::Number),
    // the packet that an error is about: its destination port, how much of it there is
    ("inner-port", Form::Number),
    ("inner-bytes", Form::Number),
    ("inner-seq", Form::Number),
    ("inner-ack", Form::Number),
    ("inner-len", Form::Number),
    ("inner-ttl", Form::Number),
    ("inner-bad-checksum", Form::Number),
    // a whole frame
    ("hex", Form::Hex),
];

/// Options of a packet, in the order written.
pub type Options = Vec<(String, Setting)>;

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
    /// Options as written.
    pub options: Options,
    /// What must become of it.
    pub verdict: Verdict,
    /// Zone, mark and label that its last flow saw.
    pub shown: Shown,
    /// What must leave.
    pub outcome: Outcome,
}

/// What the action `show` writes down beside ct_state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// `ct_zone`.
    pub zone: u16,
    /// `ct_mark`.
    pub mark: u32,
    /// The lower 16 bits of `ct_label`.
    pub label: u16,
}

/// What leaves because of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The packet as it is, through the port on the other side.
    Across,
    /// Nothing; weir counts it under this cause, if one is given.
    Dropped(Option<String>),
    /// Nothing yet: it is kept.
    Held,
    /// These, in the order of ports.
    Sent(Vec<Output>),
}

/// A packet that leaves: what differs from the one that came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// The port.
    pub port: u32,
    /// Source and destination, if they differ.
    pub ends: Option<(Place, Place)>,
    /// The packet that an error is about, if it differs.
    pub about: Option<About>,
    /// Options that differ.
    pub options: Options,
}

impl Output {
    /// The packet as it came in, through `port`.
    pub fn unchanged(port: u32) -> Self {
        Self { port, ends: None, about: None, options: Vec::new() }
    }
}

fn find<'a>(options: &'a Options, key: &str) -> Option<&'a Setting> {
    options.iter().find(|(name, _)| name == key).map(|(_, value)| value)
}

fn number(options: &Options, key: &str) -> Option<u32> {
    match find(options, key)? {
        Setting::Number(number) => Some(*number),
        _ => None,
    }
}

fn small<T: TryFrom<u32>>(options: &Options, key: &str) -> Option<T> {
    number(options, key).and_then(|value| T::try_from(value).ok())
}

impl Line {
    /// The line that describes an output of this one.
    #[must_use]
    pub fn leaving(&self, output: &Output) -> Self {
        let mut line = self.clone();
        if let Some((src, dst)) = output.ends {
            (line.src, line.dst) = (src, dst);
        }
        if let (Some(about), Kind::Error(_, old)) = (output.about, &mut line.kind) {
            *old = about;
        }
        for (key, value) in &output.options {
            line.options.retain(|(name, _)| name != key);
            line.options.push((key.clone(), value.clone()));
        }
        line
    }

    /// The same with variables replaced by what they stand for.
    ///
    /// # Errors
    /// The variable that stands for nothing yet.
    pub fn bound(&self, variables: &Variables) -> Result<Self, Unbound> {
        let mut line = self.clone();
        line.src = self.src.bound(variables)?;
        line.dst = self.dst.bound(variables)?;
        if let Kind::Error(kind, about) = self.kind {
            let (src, dst) = (about.src.bound(variables)?, about.dst.bound(variables)?);
            line.kind = Kind::Error(kind, About { src, dst, ..about });
        }
        for (_, value) in &mut line.options {
            if let Setting::Text(text) = value {
                *value = Setting::Text(expand(text, variables)?);
            }
        }
        Ok(line)
    }

    /// The frame itself, where the line gives its bytes.
    pub fn raw(&self) -> Option<Vec<u8>> {
        match (self.kind, find(&self.options, "hex")) {
            (Kind::Raw, Some(Setting::Bytes(bytes))) => Some(bytes.clone()),
            _ => None,
        }
    }

    /// The packet, with `dst` (and for an error the source of the packet that it is about) as the sender
    /// knows them. Variables must be bound.
    pub fn packet(&self, v6: bool, known_as: impl Fn(u8, Endpoint, Endpoint) -> Endpoint) -> Packet {
        let options = &self.options;
        let code = small(options, "code").unwrap_or(0);
        let (src, dst) = (self.src.endpoint(v6), self.dst.endpoint(v6));
        let body = match self.kind {
            Kind::Tcp(flags) => Body::Tcp {
                flags,
                seq: number(options, "seq").unwrap_or(0),
                ack: number(options, "ack").unwrap_or(0),
                window: small(options, "win").unwrap_or(u16::MAX),
                scale: small(options, "ws"),
                options: tcp_options(options),
            },
            Kind::Udp => Body::Udp,
            Kind::Sctp => {
                Body::Sctp { tag: number(options, "tag").unwrap_or(0), chunks: sctp_chunks(options) }
            }
            Kind::Echo => Body::Echo { reply: false, code },
            Kind::EchoReply => Body::Echo { reply: true, code },
            Kind::Icmp(kind) => Body::Icmp { kind: small(options, "type").unwrap_or(kind), code },
            Kind::Timestamp => Body::Timestamp { reply: false },
            Kind::TimestampReply => Body::Timestamp { reply: true },
            Kind::Information => Body::Information { reply: false },
            Kind::InformationReply => Body::Information { reply: true },
            Kind::Gre => Body::Other { protocol: protocol::GRE },
            Kind::Esp | Kind::Raw => Body::Other { protocol: protocol::ESP },
            Kind::Error(kind, about) => return self.error(kind, about, v6, &known_as),
        };
        let mut packet = Packet::new(src, dst, body);
        dress(options, &mut packet);
        if self.kind == Kind::Sctp {
            // They are in its DATA chunk.
            packet.payload = 0;
        }
        packet.dst = known_as(packet.port_space(), packet.dst, packet.src);
        packet
    }

    fn error(
        &self,
        kind: ErrorKind,
        about: About,
        v6: bool,
        known_as: &impl Fn(u8, Endpoint, Endpoint) -> Endpoint,
    ) -> Packet {
        let own: Options = self
            .options
            .iter()
            .filter_map(|(key, value)| Some((key.strip_prefix("inner-")?.to_owned(), value.clone())))
            .collect();
        let body = match about.kind {
            AboutKind::Tcp => Body::Tcp {
                flags: 16,
                seq: number(&own, "seq").unwrap_or(1),
                ack: number(&own, "ack").unwrap_or(1),
                window: 1000,
                scale: None,
                options: Vec::new(),
            },
            AboutKind::Udp => Body::Udp,
            AboutKind::Echo => Body::Echo { reply: false, code: 0 },
            AboutKind::EchoReply => Body::Echo { reply: true, code: 0 },
            AboutKind::Sctp => Body::Sctp { tag: 1, chunks: chunk(11, 0, &[]) },
            AboutKind::Gre => Body::Other { protocol: protocol::GRE },
        };
        let mut inner = Packet::new(about.src.endpoint(v6), about.dst.endpoint(v6), body);
        dress(&own, &mut inner);
        inner.payload = small(&own, "len").unwrap_or(8);
        inner.ttl = small(&own, "ttl").unwrap_or(60);
        let mut dst = self.dst.endpoint(v6);
        let protocol = inner.protocol();
        // Inside knows its own packets untranslated.
        let known_as =
            |protocol, near, far| if self.port == 1 { near } else { known_as(protocol, near, far) };
        if about.src.is_inside() {
            let original = inner.src;
            inner.src = known_as(protocol, inner.src, inner.dst);
            if original.address == dst.address {
                dst.address = inner.src.address;
            }
        } else {
            inner.dst = known_as(protocol, inner.dst, inner.src);
        }
        if let Some(port) = small(&own, "port") {
            inner.dst.port = port;
        }
        let mut quoted = inner.bytes();
        if let Some(bytes) = small(&own, "bytes") {
            quoted.truncate(bytes);
        }
        let src = self.src.endpoint(v6);
        let row = ERRORS.iter().find(|row| row.1 == kind).unwrap_or(&ERRORS[0]);
        let (kind, code) = if src.address.is_ipv6() { row.3 } else { row.2 };
        let body = Body::Error {
            kind: small(&self.options, "type").unwrap_or(kind),
            code: small(&self.options, "code").unwrap_or(code),
            word: number(&self.options, "mtu").unwrap_or(0),
            about: quoted,
        };
        let mut packet = Packet::new(src, dst, body);
        dress(&self.options, &mut packet);
        packet
    }
}

/// `text` with `${NAME}` replaced by what the variable stands for; `${NAME.commas}`, `${NAME.hi}` and `${NAME.lo}` are
/// its parts as FTP writes them (RFC 959 section 5.3.2).
fn expand(text: &str, variables: &Variables) -> Result<String, Unbound> {
    let (mut whole, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once("${") {
        let Some((inside, after)) = after.split_once('}') else { break };
        let (name, part) = inside.split_once('.').unwrap_or((inside, ""));
        let Some(name) = Name::new(name) else { break };
        whole += before;
        whole += &match (variables.value(name)?, part) {
            (Value::Number(number), "hi") => (number >> 8).to_string(),
            (Value::Number(number), "lo") => (number & 0xff).to_string(),
            (value, "commas") => value.to_string().replace('.', ","),
            (value, _) => value.to_string(),
        };
        rest = after;
    }
    Ok(whole + rest)
}

/// What stands around the body, and what is wrong with it.
fn dress(options: &Options, packet: &mut Packet) {
    packet.payload = small(options, "len").unwrap_or(0);
    if let Some(Setting::Text(text)) = find(options, "data") {
        packet.data = words::bytes(&words::Word { column: 1, text: text.clone() }).unwrap_or_default();
    }
    packet.ttl = small(options, "ttl").unwrap_or(64);
    packet.id = small(options, "id").unwrap_or(1);
    packet.tag = small(options, "vlan");
    packet.option_words = small(options, "ip-options").unwrap_or(0);
    packet.extensions = [("hop-by-hop", 0), ("routing", 43), ("extension", 60)]
        .into_iter()
        .filter_map(|(key, kind)| Some((kind, small(options, key)?)))
        .collect();
    packet.slice = small(options, "from").map(|from| (from, small(options, "to").unwrap_or(u16::MAX)));
    packet.more = number(options, "more").map(|more| more != 0);
    let flagged = |key, damage| number(options, key).filter(|value| *value != 0).map(|_| damage);
    packet.damage = [
        flagged("bad-ip-checksum", Damage::L3Checksum),
        flagged("bad-checksum", Damage::L4Checksum),
        flagged("no-checksum", Damage::NoL4Checksum),
        small(options, "cut").map(Damage::Cut),
        small(options, "longer").map(Damage::Longer),
        small(options, "header-words").map(Damage::HeaderWords),
        small(options, "data-offset").map(Damage::DataOffset),
        small(options, "udp-length").map(Damage::UdpLength),
    ]
    .into_iter()
    .flatten()
    .collect();
}

/// TCP options but for the window scale, padded (RFC 9293 section 3.1, RFC 2018, RFC 7323).
fn tcp_options(options: &Options) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(mss) = small::<u16>(options, "mss") {
        bytes.extend([2, 4]);
        bytes.extend(mss.to_be_bytes());
    }
    if number(options, "sack-ok").is_some() {
        bytes.extend([1, 1, 4, 2]);
    }
    for (key, kind) in [("ts", 8), ("sack", 5)] {
        if let Some(Setting::Pairs(pairs)) = find(options, key) {
            bytes.extend([1, 1, kind, u8::try_from(2 + 8 * pairs.len()).unwrap_or(2)]);
            for (first, second) in pairs {
                bytes.extend(first.to_be_bytes());
                bytes.extend(second.to_be_bytes());
            }
        }
    }
    bytes
}

fn chunk(kind: u8, flags: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind, flags];
    bytes.extend(u16::try_from(4 + body.len()).unwrap_or(4).to_be_bytes());
    bytes.extend(body);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// The chunks of an SCTP packet: names apart by commas, `.T` behind one sets its T bit (RFC 9260 section 3.3.7).
fn sctp_chunks(options: &Options) -> Vec<u8> {
    let Some(Setting::Text(names)) = find(options, "chunks") else { return Vec::new() };
    let mut bytes = Vec::new();
    for name in names.split(',') {
        let (name, flag) = name.strip_suffix(".T").map_or((name, 0), |name| (name, 1));
        let Some((_, kind, length)) = CHUNKS.iter().find(|(known, ..)| *known == name) else { continue };
        let mut body = vec![0; usize::from(length - 4)];
        if let (1 | 2, Some(tag), Some(place)) = (*kind, number(options, "itag"), body.get_mut(..4)) {
            place.copy_from_slice(&tag.to_be_bytes());
        }
        // A DATA chunk is whole: first and last piece.
        let flags = if *kind == 0 { 3 } else { flag };
        if *kind == 0 {
            body.extend(
                (0..small(options, "len").unwrap_or(4)).map(|at: u16| u8::try_from(at % 251).unwrap_or(0)),
            );
        }
        bytes.extend(chunk(*kind, flags, &body));
    }
    bytes
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
    /// The connections must now be these.
    Dump {
        /// Arguments of dpctl/dump-conntrack.
        args: Vec<String>,
        /// Its lines in any order, with variables.
        lines: Vec<String>,
    },
    /// A command must give this answer.
    Command {
        /// `appctl`, `ofctl` or another family of commands.
        family: String,
        /// Name and arguments.
        words: Vec<String>,
        /// The lines it answers; `error: ` before those that go to standard error, `*` for any.
        lines: Vec<String>,
    },
    /// weir has counted so many more since the last such step, or the beginning.
    Counter(String, u64),
    /// These variables must all be different.
    Differ(Vec<Name>),
    /// A variable begins anew, in this range.
    Let(Name, Option<(Value, Value)>),
}

/// Why Open vSwitch is not held to a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excuse {
    /// The reason.
    pub reason: String,
    /// Whether it may do it all the same; otherwise the excuse is wrong when it does.
    pub may: bool,
}

/// A step with where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Line number from 1.
    pub number: usize,
    /// The step.
    pub step: Step,
    /// Why Open vSwitch does otherwise.
    pub excuse: Option<Excuse>,
}

/// A whole script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// Its file name, or how it was made.
    pub name: String,
    /// The example tables to run it through.
    pub tables: Vec<Table>,
    /// The flows to run it through, with `show` among their actions.
    pub flows: Option<String>,
    /// Why it is for weir alone.
    pub weir_only: Option<String>,
    /// Its lines.
    pub steps: Vec<Placed>,
}

/// Why a script cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name}:{line}:{column}: {what}")]
pub struct ScriptError {
    /// The script.
    pub name: String,
    /// Line number from 1.
    pub line: usize,
    /// Column from 1.
    pub column: usize,
    /// What is wrong and what was expected.
    pub what: String,
}

#[cfg(test)]
mod tests;
