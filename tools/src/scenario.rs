//! Runs a packet script against a switch and writes down what happened in a form that two switches can be
//! compared by: what was drawn at random (translated addresses and ports) is replaced by numbers in the order
//! of appearance, checksums that depend on it by whether they are right.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use crate::packet::{self, Endpoint, Packet, Places, protocol};
use crate::script::{Placed, Script, Step, Table, Verdict};
use crate::switch::{Emission, Switch};

const INSIDE_HARDWARE: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// Ports that a packet from inside reaches as part of a connection: outside, and the states new, est, est+rpl.
const LEAVES: [u32; 4] = [2, 10, 11, 21];
const OUTSIDE_HARDWARE: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// What one switch did with a script.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transcript {
    /// One line a step, then the connections.
    pub lines: Vec<String>,
    /// Expectations of the script that did not come true.
    pub failures: Vec<String>,
    /// Packets of connections that left with their own source instead of a translated one. Open vSwitch lets
    /// that happen when the address that its secret hash chose is taken (an ICMP identifier in use there);
    /// another start has another secret.
    pub leaks: Vec<String>,
}

impl Transcript {
    /// The first line in which two transcripts differ, for a message; None if they agree.
    pub fn difference(&self, other: &Self) -> Option<String> {
        let longest = self.lines.len().max(other.lines.len());
        let nothing = String::from("(nothing)");
        (0..longest).find_map(|at| {
            let (one, two) =
                (self.lines.get(at).unwrap_or(&nothing), other.lines.get(at).unwrap_or(&nothing));
            (one != two).then(|| format!("  {one}\n  {two}"))
        })
    }
}

/// The protocol and the two real ends of a connection from inside.
type Connection = (u8, Endpoint, Endpoint);

/// The translations seen so far. A connection has a number in the order of appearance, whatever it draws, and
/// keeps it when it draws again after it had expired.
#[derive(Debug, Default)]
struct Translations {
    /// As whom outside knows the inside end of a connection, and its number.
    known_as: HashMap<Connection, (Endpoint, u16)>,
    /// The number of the connection that last used a (protocol, drawn endpoint, remote endpoint).
    drawn: HashMap<Connection, u16>,
}

impl Translations {
    fn known_as(&self, protocol: u8, inside: Endpoint, remote: Endpoint) -> Endpoint {
        self.known_as.get(&key(protocol, inside, remote)).map_or(inside, |(drawn, _)| *drawn)
    }

    /// The number of a drawn endpoint; 0 if it was never seen.
    fn number(&self, protocol: u8, drawn: Endpoint, remote: Endpoint) -> u16 {
        self.drawn.get(&key(protocol, drawn, remote)).copied().unwrap_or(0)
    }

    /// Notes that `inside` was seen as `drawn`; returns its number.
    fn note(&mut self, protocol: u8, inside: Endpoint, drawn: Endpoint, remote: Endpoint) -> u16 {
        let next = u16::try_from(self.known_as.len() + 1).unwrap_or(u16::MAX);
        let known = self.known_as.entry(key(protocol, inside, remote)).or_insert((drawn, next));
        known.0 = drawn;
        self.drawn.insert(key(protocol, drawn, remote), known.1);
        known.1
    }

    /// What contradicts the packets in the lines of a connection dump.
    fn contradictions(&self, dump: &[String]) -> Vec<String> {
        let mut found = Vec::new();
        let mut taken = HashMap::new();
        for line in dump {
            let Some((connection, reply)) = ends(line) else { continue };
            if let Some(other) = taken.insert(key(connection.0, reply, connection.2), line) {
                found.push(format!("two connections share a translation:\n    {other}\n    {line}"));
            }
            let seen = self.known_as(connection.0, connection.1, connection.2);
            if seen != connection.1 && seen != reply {
                found.push(format!("last seen as {seen:?}, which the dump does not show:\n    {line}"));
            }
        }
        found
    }
}

/// A dumped connection's (protocol, inside end, remote end), and the inside end as the remote one knows it.
fn ends(line: &str) -> Option<(Connection, Endpoint)> {
    let protocol = match line.split(',').next()? {
        "tcp" => 6,
        "udp" => 17,
        "icmp" if line.contains("type=13,") => protocol::TIMESTAMP,
        "icmp" => 1,
        "icmpv6" => 58,
        number => number.parse().ok()?,
    };
    let tuple = |text: &str| -> Option<(Endpoint, Endpoint)> {
        let fields: HashMap<_, _> = text.split(',').filter_map(|field| field.split_once('=')).collect();
        let address = |key| fields.get(key).and_then(|value: &&str| value.parse().ok());
        let port = |key| fields.get(key).or(fields.get("id")).and_then(|value| value.parse().ok());
        Some((
            Endpoint { address: address("src")?, port: port("sport")? },
            Endpoint { address: address("dst")?, port: port("dport")? },
        ))
    };
    let (original, reply) = line.split_once("orig=(")?.1.split_once("),reply=(")?;
    let (inside, remote) = tuple(original)?;
    let (_, known) = tuple(reply.split(')').next()?)?;
    let (protocol, inside, remote) = key(protocol, inside, remote);
    Some(((protocol, inside, remote), known))
}

/// ICMP queries have an identifier on one side only.
fn key(protocol: u8, near: Endpoint, far: Endpoint) -> Connection {
    let far =
        if matches!(protocol, 1 | 58 | protocol::TIMESTAMP) { Endpoint { port: 0, ..far } } else { far };
    (protocol, near, far)
}

/// Whether an address is of the NAT example's pool.
fn in_pool(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(v4) if v4.octets().starts_with(&[10, 0, 0]))
}

/// Stands for the translated endpoint of this number.
fn placeholder(number: u16) -> Endpoint {
    Endpoint { address: Ipv4Addr::new(203, 0, 113, 0).into(), port: number }
}

/// Runs `script` through `table`.
///
/// # Errors
/// If the switch fails; what it does wrongly is in the transcript instead.
pub fn run<S: Switch>(switch: &mut S, script: &Script, table: Table) -> Result<Transcript, S::Error> {
    switch.load(table.flows())?;
    let mut transcript = Transcript::default();
    let mut translations = Translations::default();
    for Placed { number, step, .. } in &script.steps {
        match step {
            Step::Wait(time) => {
                switch.advance(*time)?;
                transcript.lines.push(format!("{number}: {step}"));
            }
            Step::Connections(count) => {
                let shown = switch.connections()?;
                if shown.len() != *count {
                    let text = shown.join("\n    ");
                    transcript.failures.push(format!(
                        "{number}: {count} connections expected, {} shown:\n    {text}",
                        shown.len()
                    ));
                }
            }
            Step::Packet(line) => {
                let packet = line.packet(table.is_v6(), |protocol, inside, remote| {
                    translations.known_as(protocol, inside, remote)
                });
                let (from, to) = if line.port == 1 {
                    (INSIDE_HARDWARE, OUTSIDE_HARDWARE)
                } else {
                    (OUTSIDE_HARDWARE, INSIDE_HARDWARE)
                };
                let emissions = switch.inject(line.port, &packet.frame(from, to))?;
                if line.verdict != Verdict::Any {
                    let expected = line.verdict.output(table, line.port);
                    let ports: Vec<_> = emissions.iter().map(|emission| emission.port).collect();
                    if ports != expected.into_iter().collect::<Vec<_>>() {
                        transcript.failures.push(format!(
                            "{number}: {line}: must go to {}, went to {ports:?}",
                            expected.map_or("nowhere".into(), |port| format!("port {port}"))
                        ));
                    }
                }
                let text = describe(
                    &format!("{number}: {line}"),
                    line.port,
                    &packet,
                    &emissions,
                    table,
                    &mut translations,
                    &mut transcript,
                );
                transcript.lines.push(text);
            }
            other => transcript
                .failures
                .push(format!("{number}: {other}: only for scripts with flows of their own")),
        }
    }
    let shown = switch.connections()?;
    transcript.failures.extend(translations.contradictions(&shown));
    let mut connections: Vec<_> = shown.iter().map(|line| normalise_connection(line, table)).collect();
    connections.sort();
    transcript.lines.extend(connections);
    Ok(transcript)
}

fn describe(
    line: &str,
    port: u32,
    sent: &Packet,
    emissions: &[Emission],
    table: Table,
    translations: &mut Translations,
    transcript: &mut Transcript,
) -> String {
    let mut text = line.to_owned();
    if emissions.is_empty() {
        text += " -> dropped";
    }
    for emission in emissions {
        let mut frame = emission.frame.clone();
        let mut notes = String::new();
        if table.translates() {
            match normalise(&mut frame, port, sent, translations) {
                Ok(checksums) => notes = checksums,
                Err(failure) => transcript.failures.push(format!("{line}: {failure}")),
            }
            if port == 1
                && LEAVES.contains(&emission.port)
                && source(&emission.frame) == Some(sent.src.address)
            {
                transcript.leaks.push(line.to_owned());
            }
        }
        let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
        text += &format!(" -> port {} {notes}{hex}", emission.port);
    }
    text
}

fn source(frame: &[u8]) -> Option<IpAddr> {
    Places::find(frame, packet::network(frame))?.src(frame).map(|end| end.address)
}

/// Replaces what was drawn, and says which checksums were right before.
fn normalise(
    frame: &mut [u8],
    port: u32,
    sent: &Packet,
    translations: &mut Translations,
) -> Result<String, String> {
    let Some(places) = Places::find(frame, packet::network(frame)) else { return Ok(String::new()) };
    let (Some(src), Some(dst)) = (places.src(frame), places.dst(frame)) else { return Ok(String::new()) };
    let inner = places.inner(frame);
    let mut notes = String::new();
    let mut note =
        |name: &str, right: bool| notes += &format!("{name}={} ", if right { "right" } else { "wrong" });
    let drawn_is_inside = [Some(&places), inner.as_ref()].into_iter().flatten().any(|places| {
        [places.src(frame), places.dst(frame)].into_iter().flatten().any(|end| in_pool(end.address))
    });
    if drawn_is_inside || inner.is_some() {
        note("ip", places.l3_checksum_is_right(frame));
        note("l4", places.l4_checksum_is_right(frame));
        if let Some(inner) = &inner {
            note("inner-ip", inner.l3_checksum_is_right(frame));
            note("inner-l4", inner.l4_checksum_is_right(frame));
        }
        places.blank_checksums(frame);
        if let Some(inner) = &inner {
            inner.blank_checksums(frame);
        }
    }
    if let Some(inner) = inner {
        // Whatever end is still known to outside only: an error on its way out, or one that was not translated.
        for (second, near, far) in
            [(false, inner.src(frame), inner.dst(frame)), (true, inner.dst(frame), inner.src(frame))]
        {
            if let (Some(near), Some(far)) = (near, far)
                && in_pool(near.address)
            {
                inner.replace(frame, second, placeholder(translations.number(inner.protocol, near, far)));
            }
        }
        for (second, end) in [(false, src), (true, dst)] {
            if in_pool(end.address) {
                places.replace(frame, second, placeholder(0));
            }
        }
        return Ok(notes);
    }
    if port == 1 && in_pool(src.address) {
        // Open vSwitch keeps the identifier of a query; a switch that draws one may take any.
        if src.port != 0 && !places.is_icmp() && !(5000..=50000).contains(&src.port) {
            return Err(format!("translated to port {}, which is not of the range", src.port));
        }
        let number = if places.later_fragment {
            // It shows no port; its datagram's first fragment says whose it is.
            0
        } else {
            translations.note(places.port_space(frame), sent.src, src, dst)
        };
        places.replace(frame, false, placeholder(number));
    } else if port == 2 && in_pool(dst.address) {
        // An untranslated packet from outside, shown by a table that shows everything.
        places.replace(frame, true, placeholder(translations.number(places.port_space(frame), dst, src)));
    }
    Ok(notes)
}

/// A line of the connection dump without what was drawn.
fn normalise_connection(line: &str, table: Table) -> String {
    if !table.translates() {
        return line.to_owned();
    }
    let Some((original, reply)) = line.split_once(",reply=(") else { return line.to_owned() };
    let Some((reply, rest)) = reply.split_once(')') else { return line.to_owned() };
    let drawn = reply.split(',').any(|field| field.starts_with("dst=10.0.0."));
    let fields = reply.split(',').map(|field| match field.split_once('=') {
        Some(("dst", address)) if address.starts_with("10.0.0.") => "dst=DRAWN".to_owned(),
        Some((key @ ("dport" | "id"), _)) if drawn => format!("{key}=DRAWN"),
        _ => field.to_owned(),
    });
    format!("{original},reply=({}){rest}", fields.collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_that_contradicts_the_packets_is_found() {
        let end = |address: &str, port| Endpoint { address: address.parse().unwrap(), port };
        let remote = end("198.51.100.2", 53);
        let mut translations = Translations::default();
        assert_eq!(translations.note(17, end("192.168.0.2", 1), end("10.0.0.9", 5000), remote), 1);
        let line = |inside, port| {
            format!(
                "udp,orig=(src={inside},dst=198.51.100.2,sport=1,dport=53),\
                 reply=(src=198.51.100.2,dst=10.0.0.9,sport=53,dport={port})"
            )
        };
        assert!(translations.contradictions(&[line("192.168.0.2", 5000)]).is_empty());
        assert_eq!(translations.contradictions(&[line("192.168.0.2", 5001)]).len(), 1);
        let shared = [line("192.168.0.2", 5000), line("192.168.0.3", 5000)];
        assert_eq!(translations.contradictions(&shared).len(), 1);
    }

    #[test]
    fn a_drawn_address_and_port_do_not_count() {
        let line = "udp,orig=(src=192.168.0.2,dst=198.51.100.2,sport=1,dport=53),\
                    reply=(src=198.51.100.2,dst=10.0.0.99,sport=53,dport=38352),mark=1";
        let expected = "udp,orig=(src=192.168.0.2,dst=198.51.100.2,sport=1,dport=53),\
                        reply=(src=198.51.100.2,dst=DRAWN,sport=53,dport=DRAWN),mark=1";
        assert_eq!(normalise_connection(line, Table::Nat), expected);
        assert_eq!(normalise_connection(line, Table::Acl), line);
    }
}
