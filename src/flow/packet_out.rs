//! Packets to send from a bridge with a list of actions (ovs-ofctl(8), "Packet-Out Syntax"), in both of ovs-ofctl's
//! forms.

use super::action::Action;
use super::action_parse::{Context, Reader};
use super::error::{Error, Problem};
use super::field::Field;
use super::flow::{MAX_ACTIONS, actions_in};
use super::key::at;
use super::lexer::{Items, Joint, Text};
use super::matching::Match;
use super::port::{self, PortNames, PortNumber};
use super::{nearest, value};

/// Bytes of a packet: an Ethernet header at least, and no more than a frame can have.
pub const MIN_PACKET: usize = 14;
/// See [`MIN_PACKET`].
pub const MAX_PACKET: usize = weir_wire::layers::MAX_FRAME;
/// Bytes of a description: a packet in hexadecimal digits and actions.
const MAX_LINE: usize = 2 * MAX_PACKET + super::flow::MAX_LINE;

/// Packets and what to do with each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacketOut {
    /// The port that they count as received on: one of the bridge, or LOCAL, CONTROLLER or NONE.
    pub in_port: PortNumber,
    /// Metadata and registers that they begin with.
    pub fields: Match,
    /// At least one.
    pub packets: Vec<Vec<u8>>,
    pub actions: Vec<Action>,
}

impl PacketOut {
    /// Reads `in_port=PORT, packet=HEX, actions=...`, registers and metadata beside them.
    ///
    /// # Errors
    /// With the place of the mistake.
    pub fn parse(text: &str, ports: &dyn PortNames) -> Result<Self, Error> {
        let text = Text::line(text);
        if text.text.len() > MAX_LINE {
            return Err(text.slice(0, 1).error(Problem::LineTooLong { length: text.text.len() }));
        }
        let mut found =
            Self { in_port: port::NONE, fields: Match::ANY, packets: Vec::new(), actions: Vec::new() };
        let mut items = Items::new(text);
        loop {
            let rest = items.rest();
            if let Some((_, text)) = actions_in(rest) {
                found.actions = actions(text, ports)?;
                break;
            }
            let Some(item) = items.next() else { break };
            let item = item?;
            let key = item.key;
            match key.text {
                "in_port" => found.in_port = in_port(item.needed_value()?, ports)?,
                "packet" if found.packets.is_empty() => {
                    found.packets.push(bytes(item.needed_value()?)?);
                }
                "packet" => return Err(key.error(Problem::Twice { key: "packet".into() })),
                name => found.field(key, name, item.needed_value()?, ports)?,
            }
        }
        if found.packets.is_empty() {
            let end = Text { text: "", at: text.end().start };
            return Err(
                end.error(Problem::Expected { expected: "packet=HEX in front of the actions".into() })
            );
        }
        Ok(found)
    }

    /// Reads the arguments of the older form: port, actions, and each packet.
    ///
    /// # Errors
    /// The argument's number, from 0, and the place of the mistake in it.
    pub fn parse_words(
        port: &str,
        list: &str,
        packets: &[String],
        ports: &dyn PortNames,
    ) -> Result<Self, (usize, Error)> {
        let in_port = in_port(Text::line(port), ports).map_err(|error| (0, error))?;
        let actions = actions(Text::line(list), ports).map_err(|error| (1, error))?;
        let packets = packets.iter().zip(2..).map(|(text, index)| packet(text).map_err(|e| (index, e)));
        Ok(Self { in_port, fields: Match::ANY, packets: packets.collect::<Result<_, _>>()?, actions })
    }

    fn field(
        &mut self,
        key: Text<'_>,
        name: &str,
        text: Text<'_>,
        ports: &dyn PortNames,
    ) -> Result<(), Error> {
        let carried = |field: &&Field| field.offset >= at::METADATA;
        let Some(field) = Field::for_match(name).filter(carried) else {
            let words = super::field::FIELDS.iter().filter(carried).map(|field| field.name);
            let near = nearest(name, words.chain(["in_port", "packet", "actions"]));
            return Err(key.error(Problem::UnknownField { name: name.to_owned(), near }));
        };
        let (value, mask) = value::parse(field, text, ports)?;
        if !self.fields.agree((field.offset, field.bytes), value, mask) {
            return Err(key.error(Problem::Conflict { field: name.to_owned() }));
        }
        Ok(())
    }
}

fn in_port(text: Text<'_>, ports: &dyn PortNames) -> Result<PortNumber, Error> {
    match value::port(text, ports)? {
        number
            if number >= port::FIRST_RESERVED
                && !matches!(number, port::LOCAL | port::CONTROLLER | port::NONE) =>
        {
            Err(text.error(Problem::Other(
                "no packet comes from there; give a port of the bridge, LOCAL, CONTROLLER or NONE",
            )))
        }
        number => Ok(number),
    }
}

/// Reads a packet in hexadecimal digits.
///
/// # Errors
/// With the place of the mistake.
pub fn packet(text: &str) -> Result<Vec<u8>, Error> {
    bytes(Text::line(text))
}

fn bytes(text: Text<'_>) -> Result<Vec<u8>, Error> {
    let text = text.trim();
    let digits = text.text.as_bytes();
    if let Some(bad) = digits.iter().position(|byte| !byte.is_ascii_hexdigit()) {
        let problem =
            Problem::Expected { expected: "a packet in hexadecimal digits, without anything between".into() };
        return Err(text.slice(bad, bad + 1).error(problem));
    }
    if !digits.len().is_multiple_of(2) {
        let last = text.slice(digits.len() - 1, digits.len());
        return Err(last.error(Problem::Other("the last byte of the packet has one digit only")));
    }
    let length = digits.len() / 2;
    if !(MIN_PACKET..=MAX_PACKET).contains(&length) {
        return Err(text.error(Problem::PacketLength { length }));
    }
    let nibble =
        |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok()).unwrap_or(0);
    Ok(digits.as_chunks::<2>().0.iter().map(|[high, low]| nibble(*high) << 4 | nibble(*low)).collect())
}

/// Actions, with `table` for a look-up in table 0.
fn actions(text: Text<'_>, ports: &dyn PortNames) -> Result<Vec<Action>, Error> {
    let mut reader = Reader::new(Context::any(), ports);
    let (mut found, mut dropped) = (Vec::new(), None);
    for item in Items::new(text) {
        let item = item?;
        let word = |text: Text<'_>, word: &str| text.text.eq_ignore_ascii_case(word);
        let table = item.joint == Joint::None && word(item.key, "table")
            || item.joint == Joint::Sign && word(item.key, "output") && word(item.value, "table");
        if item.joint == Joint::None && word(item.key, "drop") {
            dropped = Some(item.span());
        } else if table {
            found.push(Action::Resubmit { port: None, table: Some(0), ct: false });
        } else {
            let action = reader.action(&item)?;
            if matches!(action, Action::GotoTable(_) | Action::WriteMetadata { .. }) {
                let problem = Problem::Other(
                    "this is for flows; a packet is sent with actions alone (use resubmit, or load)",
                );
                return Err(Error { problem, span: item.span() });
            }
            found.push(action);
        }
        if found.len() > MAX_ACTIONS {
            return Err(item.key.error(Problem::TooManyActions));
        }
        if let Some(span) = dropped.clone().filter(|_| !found.is_empty()) {
            return Err(Error { problem: Problem::DropNotAlone, span });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{NoNames, print};

    const PACKET: &str = "ffffffffffff0000000000010800";

    fn parse(text: &str) -> Result<PacketOut, String> {
        PacketOut::parse(&text.replace("PACKET", PACKET), &NoNames)
            .map_err(|error| format!("{}: {error}", error.span.start))
    }

    #[test]
    fn a_packet_is_described_as_for_ovs_ofctl() {
        let out = parse("in_port=1 packet=PACKET actions=output:2,resubmit(,3)").unwrap();
        assert_eq!((out.in_port, out.packets[0].len()), (1, 14));
        assert_eq!(print::actions(&out.actions, &NoNames), "output:2,resubmit(,3)");
        assert!(parse("in_port=1,packet=PACKET").unwrap().actions.is_empty());
        assert_eq!(parse("packet=PACKET,actions=drop").unwrap().in_port, port::NONE);
        let out = parse(
            "in_port=controller,reg3=7,metadata=0x12/0xff,packet=PACKET,actions=table,output:TABLE,group:1",
        );
        let out = out.unwrap();
        assert_eq!(print::actions(&out.actions, &NoNames), "resubmit(,0),resubmit(,0),group:1");
        assert_eq!(Field::named("reg3").unwrap().read(&out.fields.key), 7);
        assert_eq!(Field::named("metadata").unwrap().read(&out.fields.key), 0x12);
        let packets = [PACKET.to_uppercase(), PACKET.to_owned()];
        let out =
            PacketOut::parse_words("none", "ct(commit,nat(src=10.0.0.1)),2", &packets, &NoNames).unwrap();
        assert_eq!((out.in_port, out.packets.len()), (port::NONE, 2));
        assert_eq!(out.packets[0], out.packets[1]);
    }

    #[test]
    fn mistakes_are_shown_where_they_are() {
        for (text, message) in [
            ("in_port=1,packet=0102,actions=2", "17: a packet has 14 to 65535 bytes, not 2"),
            ("in_port=1,packet=PACKET1,actions=2", "45: the last byte of the packet has one digit only"),
            (
                "in_port=1,packet=ffxx,actions=2",
                "19: expected a packet in hexadecimal digits, without anything between",
            ),
            ("in_port=1,actions=2", "19: expected packet=HEX in front of the actions"),
            (
                "in_port=normal,packet=PACKET",
                "8: no packet comes from there; give a port of the bridge, LOCAL, CONTROLLER or NONE",
            ),
            ("in_port=1,packet=PACKET,packet=PACKET", "46: 'packet' is given twice"),
            ("in_port=1,ip,packet=PACKET", "10: 'ip' needs a value"),
            ("in_port=1,nw_src=1.1.1.1,packet=PACKET", "10: unknown field 'nw_src'"),
            ("in_port=1,reg33=1,packet=PACKET", "10: unknown field 'reg33'; did you mean 'reg3'?"),
            ("in_port=1,packet=PACKET,actions=otput:2", "54: unknown action 'otput'; did you mean 'output'?"),
            (
                "in_port=1,packet=PACKET,actions=goto_table:2",
                "54: this is for flows; a packet is sent with actions alone (use resubmit, or load)",
            ),
            ("in_port=1,packet=PACKET,actions=drop,2", "54: drop stands alone: no other action goes with it"),
        ] {
            assert_eq!(parse(text).unwrap_err(), message, "{text}");
        }
        let long = format!("in_port=1,packet={}", "0".repeat(2 * MAX_PACKET + 2));
        assert!(parse(&long).unwrap_err().contains("not 65536"));
        assert!(parse(&"x".repeat(MAX_LINE + 1)).is_err());
        let wrong = PacketOut::parse_words("1", "2", &[PACKET.into(), "zz".into()], &NoNames).unwrap_err();
        assert_eq!((wrong.0, wrong.1.span.start), (3, 0));
    }
}
