//! Reads the actions of a flow (ovs-actions(7)) and checks them against its match: a field may only be used where every
//! matched packet has it.

use super::action::{Action, Controller, Reason};
use super::ct_parse;
use super::error::{Error, Problem};
use super::field::{Field, Prerequisite, Subfield, low_bits};
use super::flow::{LAST_TABLE, MAX_ACTIONS};
use super::lexer::{Item, Items, Joint, Text};
use super::matching::{Match, VLAN_PRESENT};
use super::nearest::nearest;
use super::port::{self, PortNames, PortNumber};
use super::value;

/// Words that actions begin with.
const NAMES: [&str; 41] = [
    "output",
    "normal",
    "flood",
    "all",
    "in_port",
    "local",
    "controller",
    "drop",
    "resubmit",
    "goto_table",
    "group",
    "ct",
    "ct_clear",
    "set_field",
    "load",
    "move",
    "push",
    "pop",
    "mod_dl_src",
    "mod_dl_dst",
    "mod_nw_src",
    "mod_nw_dst",
    "mod_nw_tos",
    "mod_nw_ecn",
    "mod_nw_ttl",
    "mod_tp_src",
    "mod_tp_dst",
    "mod_vlan_vid",
    "mod_vlan_pcp",
    "set_vlan_vid",
    "set_vlan_pcp",
    "push_vlan",
    "strip_vlan",
    "pop_vlan",
    "dec_ttl",
    "set_queue",
    "pop_queue",
    "write_metadata",
    "check_pkt_larger",
    "note",
    "exit",
];

/// Actions of the language that have no meaning here (yet).
const UNSUPPORTED: [&str; 27] = [
    "learn",
    "enqueue",
    "bundle",
    "bundle_load",
    "multipath",
    "push_mpls",
    "pop_mpls",
    "set_mpls_label",
    "set_mpls_tc",
    "set_mpls_ttl",
    "dec_mpls_ttl",
    "encap",
    "decap",
    "dec_nsh_ttl",
    "delete_field",
    "set_tunnel",
    "set_tunnel64",
    "fin_timeout",
    "conjunction",
    "sample",
    "meter",
    "clone",
    "clear_actions",
    "write_actions",
    "debug_recirc",
    "debug_slow",
    "unroll_xlate",
];

/// What the actions stand beside.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    /// `None` where there is no match: in a group, or for a packet that comes with its actions. Any packet may come
    /// then.
    pub(crate) matching: Option<&'a Match>,
    pub(crate) table: Option<u8>,
}

impl Context<'_> {
    /// Nothing is known of the packets.
    pub(crate) const fn any() -> Self {
        Self { matching: None, table: None }
    }

    /// True if an action that needs `prerequisite` may be written.
    pub(crate) fn meets(&self, prerequisite: Prerequisite) -> bool {
        self.matching.is_none_or(|matching| matching.meets(prerequisite))
    }
}

/// Reads a list of actions.
pub(crate) fn actions(
    text: Text<'_>,
    context: Context<'_>,
    ports: &dyn PortNames,
) -> Result<Vec<Action>, Error> {
    let mut reader = Reader::new(context, ports);
    let mut actions = Vec::new();
    let mut dropped = None;
    for item in Items::new(text) {
        let item = item?;
        if item.key.text.eq_ignore_ascii_case("drop") {
            item.no_value()?;
            dropped = Some(item.span());
        } else {
            let action = reader.action(&item)?;
            reader.in_order(&actions, &action, &item)?;
            actions.push(action);
        }
        if let Some(span) = dropped.clone().filter(|_| !actions.is_empty()) {
            return Err(Error { problem: Problem::DropNotAlone, span });
        }
    }
    Ok(actions)
}

/// Reads actions one after the other.
pub(crate) struct Reader<'a> {
    pub(crate) context: Context<'a>,
    pub(crate) ports: &'a dyn PortNames,
    /// Inside `ct(exec(...))`.
    pub(crate) in_exec: bool,
    /// Packets have a VLAN tag by now.
    tagged: bool,
    count: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(context: Context<'a>, ports: &'a dyn PortNames) -> Self {
        let tagged = context.meets(Prerequisite::Vlan);
        Self { context, ports, in_exec: false, tagged, count: 0 }
    }

    /// One action, `drop` excepted.
    pub(crate) fn action(&mut self, item: &Item<'_>) -> Result<Action, Error> {
        self.count += 1;
        if self.count > MAX_ACTIONS {
            return Err(item.key.error(Problem::TooManyActions));
        }
        let action = self.read(item)?;
        match action {
            Action::ModVlanVid(_) | Action::ModVlanPcp(_) | Action::PushVlan(_) => self.tagged = true,
            // A second tag may be left, but nothing says so.
            Action::StripVlan => self.tagged = false,
            _ => {}
        }
        let writes = match &action {
            Action::SetField { field, .. } => Some(*field),
            Action::Load { dst, .. } | Action::Move { dst, .. } | Action::Pop(dst) => Some(dst.field),
            _ => None,
        };
        let tracking = writes.is_some_and(|field| matches!(field.name, "ct_mark" | "ct_label"));
        if self.in_exec && !tracking {
            return Err(Error { problem: Problem::NotInExec, span: item.span() });
        }
        if tracking && !self.in_exec {
            let what = format!("setting {}", writes.map_or("", |field| field.name));
            return Err(Error { problem: Problem::OnlyInExec { what }, span: item.span() });
        }
        Ok(action)
    }

    fn read(&mut self, item: &Item<'_>) -> Result<Action, Error> {
        if item.joint == Joint::None
            && let Some(action) = self.bare_port(item)?
        {
            return Ok(action);
        }
        if item.destination.is_some() && !item.key.text.eq_ignore_ascii_case("check_pkt_larger") {
            return Err(item.key.error(Problem::Other("'->' does not go with this action")));
        }
        // Words for actions are read in any case.
        let Some(key) = NAMES.into_iter().find(|name| name.eq_ignore_ascii_case(item.key.text)) else {
            return Err(unknown(item));
        };
        let simple = match key {
            "ct_clear" => Some(Action::CtClear),
            "strip_vlan" | "pop_vlan" => Some(Action::StripVlan),
            "pop_queue" => Some(Action::PopQueue),
            "exit" => Some(Action::Exit),
            _ => None,
        };
        if let Some(action) = simple {
            item.no_value()?;
            return Ok(action);
        }
        let text = item.value;
        match key {
            "ct" => return ct_parse::ct(self, item).map(|spec| Action::Ct(Box::new(spec))),
            "dec_ttl" => return dec_ttl(item),
            "resubmit" => return self.resubmit(item),
            "controller" => return controller(item),
            _ => {}
        }

        let number = |max: u16| value::small::<u16>(key, item.needed_value()?, max);
        let byte = |max: u8| value::small::<u8>(key, item.needed_value()?, max);
        Ok(match key {
            "output" => self.output(item)?,
            "goto_table" => self.goto_table(item)?,
            "group" => Action::Group(value::small("a group", item.needed_value()?, super::group::MAX_GROUP)?),
            "set_field" => self.set_field(text)?,
            "load" => self.load(text)?,
            "move" => self.move_(text)?,
            "push" => Action::Push(self.source(item.needed_value()?)?),
            "pop" => Action::Pop(self.destination(item.needed_value()?)?),
            "mod_dl_src" => Action::ModDlSrc(value::mac(key, text)?),
            "mod_dl_dst" => Action::ModDlDst(value::mac(key, text)?),
            "mod_nw_src" => Action::ModNwSrc(value::ipv4(key, text)?),
            "mod_nw_dst" => Action::ModNwDst(value::ipv4(key, text)?),
            "mod_nw_tos" => match byte(255)? {
                tos if tos & 3 == 0 => Action::ModNwTos(tos),
                _ => {
                    let expected = "a multiple of 4 (the low two bits are ECN)".into();
                    return Err(text.error(Problem::BadValue {
                        what: key.into(),
                        found: text.text.into(),
                        expected,
                    }));
                }
            },
            "mod_nw_ecn" => Action::ModNwEcn(byte(3)?),
            "mod_nw_ttl" => Action::ModNwTtl(byte(255)?),
            "mod_tp_src" => Action::ModTpSrc(number(u16::MAX)?),
            "mod_tp_dst" => Action::ModTpDst(number(u16::MAX)?),
            "mod_vlan_vid" | "set_vlan_vid" => Action::ModVlanVid(number(0xfff)?),
            "mod_vlan_pcp" | "set_vlan_pcp" => Action::ModVlanPcp(byte(7)?),
            "push_vlan" => match number(u16::MAX)? {
                tpid @ (0x8100 | 0x88a8) => Action::PushVlan(tpid),
                _ => {
                    let expected = "0x8100 or 0x88a8".into();
                    return Err(text.error(Problem::BadValue {
                        what: key.into(),
                        found: text.text.into(),
                        expected,
                    }));
                }
            },
            "set_queue" => Action::SetQueue(value::small(key, text, u32::MAX)?),
            "write_metadata" => {
                let Some(field) = Field::named("metadata") else { return Err(unknown(item)) };
                let (value, mask) = value::parse(field, text, self.ports)?;
                let narrow = |n: u128| u64::try_from(n).unwrap_or(u64::MAX);
                Action::WriteMetadata { value: narrow(value), mask: narrow(mask) }
            }
            "check_pkt_larger" => {
                let needs = || {
                    item.key
                        .error(Problem::Expected { expected: "check_pkt_larger(LENGTH)->FIELD[BIT]".into() })
                };
                let dst = self.destination(item.destination.ok_or_else(needs)?)?;
                if dst.width != 1 {
                    return Err(item
                        .key
                        .error(Problem::Other("the result of check_pkt_larger is one bit, like reg0[0]")));
                }
                value::small::<u16>(key, text, u16::MAX)?;
                // Its result decides about what follows in the same list, which a megaflow cannot express yet.
                return Err(item.key.error(Problem::Unsupported { what: format!("action '{key}'") }));
            }
            "note" => Action::Note(bytes(text)?),
            _ => {
                item.no_value()?;
                return Err(unknown(item));
            }
        })
    }

    /// A port or one of the words that stand for one.
    fn bare_port(&self, item: &Item<'_>) -> Result<Option<Action>, Error> {
        let text = item.key.text;
        let numeric = text.starts_with(|c: char| c.is_ascii_digit());
        let reserved = port::RESERVED.iter().any(|(_, name)| name.eq_ignore_ascii_case(text));
        let named = !NAMES.contains(&text) && self.ports.number(text).is_some();
        if numeric || reserved || named || text.starts_with('"') {
            return to_port(item.key, value::port(item.key, self.ports)?).map(Some);
        }
        Ok(None)
    }

    fn output(&self, item: &Item<'_>) -> Result<Action, Error> {
        if item.joint == Joint::Parentheses && item.value.text.contains('=') {
            let (mut port, mut max_len) = (None, None);
            for argument in Items::new(item.value) {
                let argument = argument?;
                match argument.key.text {
                    "port" => {
                        port = Some((argument.value, value::port(argument.needed_value()?, self.ports)?))
                    }
                    "max_len" => {
                        let length = value::small::<u32>("max_len", argument.needed_value()?, u32::MAX)?;
                        if length < 14 {
                            let problem = Problem::Other("max_len is at least 14, an Ethernet header");
                            return Err(argument.value.error(problem));
                        }
                        max_len = Some(length);
                    }
                    _ => return Err(unknown_argument("output", argument.key, &["port", "max_len"])),
                }
            }
            let (Some((text, port)), Some(max_len)) = (port, max_len) else {
                return Err(item
                    .value
                    .error(Problem::Expected { expected: "output(port=PORT,max_len=BYTES)".into() }));
            };
            if port >= port::FIRST_RESERVED && !matches!(port, port::LOCAL | port::IN_PORT) {
                return Err(text.error(Problem::BadOutputPort { port: text.text.to_owned() }));
            }
            return Ok(Action::OutputTruncated { port, max_len });
        }
        let text = item.needed_value()?;
        match value::port(text, self.ports) {
            Ok(port) => to_port(text, port),
            Err(error) => {
                let name = text.text.split('[').next().unwrap_or_default();
                if Field::named(name).is_none() {
                    Err(error)
                } else {
                    self.source(text).map(Action::OutputField)
                }
            }
        }
    }

    fn resubmit(&self, item: &Item<'_>) -> Result<Action, Error> {
        let port = |text: Text<'_>| match value::port(text, self.ports)? {
            port::IN_PORT => Ok(None),
            port => Ok(Some(port)),
        };
        // in_port and table 255 say as little as leaving them out.
        let nothing = || item.value.error(Problem::Other("resubmit needs a port, a table or both"));
        if item.joint != Joint::Parentheses {
            let port = port(item.needed_value()?)?.ok_or_else(nothing)?;
            return Ok(Action::Resubmit { port: Some(port), table: None, ct: false });
        }
        let (mut parts, mut from) = ([Text { text: "", at: item.value.at }; 3], 0);
        for (i, part) in item.value.text.split(',').enumerate() {
            let piece = item.value.slice(from, from + part.len()).trim();
            from += part.len() + 1;
            let extra =
                || piece.error(Problem::Expected { expected: "resubmit([PORT],[TABLE][,ct])".into() });
            *parts.get_mut(i).ok_or_else(extra)? = piece;
        }
        let [port_text, table, ct] = parts;
        let table_number = match table.text {
            "" => None,
            _ => Some(value::small::<u8>("the table", table, u8::MAX)?).filter(|table| *table <= LAST_TABLE),
        };
        let port = if port_text.text.is_empty() { None } else { port(port_text)? };
        if port.is_none() && table_number.is_none() {
            return Err(nothing());
        }
        match ct.text {
            "" => {}
            "ct" if self.context.meets(Prerequisite::Ct) => {}
            "ct" => {
                return Err(ct.error(Problem::Prerequisite {
                    what: "resubmit(...,ct)".into(),
                    needs: Prerequisite::Ct.needs().into(),
                }));
            }
            _ => return Err(ct.error(Problem::Expected { expected: "'ct' or nothing".into() })),
        }
        Ok(Action::Resubmit { port, table: table_number, ct: !ct.text.is_empty() })
    }

    fn goto_table(&self, item: &Item<'_>) -> Result<Action, Error> {
        let text = item.needed_value()?;
        let table = value::small("goto_table", text, LAST_TABLE)?;
        if self.context.table.is_some_and(|own| table <= own) {
            return Err(
                text.error(Problem::Other("goto_table only goes to later tables; use resubmit(,TABLE)"))
            );
        }
        Ok(Action::GotoTable(table))
    }

    /// Instructions stand behind actions: `write_metadata`, then `goto_table`.
    fn in_order(&self, before: &[Action], action: &Action, item: &Item<'_>) -> Result<(), Error> {
        let rank = |action: &Action| match action {
            Action::WriteMetadata { .. } => (1, "write_metadata"),
            Action::GotoTable(_) => (2, "goto_table"),
            _ => (0, "every action"),
        };
        let Some(last) = before.last() else { return Ok(()) };
        let ((earlier, second), (own, first)) = (rank(last), rank(action));
        if earlier > own {
            return Err(Error { problem: Problem::Order { first, second }, span: item.span() });
        }
        if earlier == own && own > 0 {
            return Err(item.key.error(Problem::Twice { key: first.to_owned() }));
        }
        Ok(())
    }

    fn set_field(&self, text: Text<'_>) -> Result<Action, Error> {
        let (value_text, name) = arrow(text)?;
        if name.text.contains('[') {
            return Err(name.error(Problem::Other(
                "set_field sets a whole field, with a mask if need be; use load for bits",
            )));
        }
        let field = self.field(name)?;
        writable(name, field)?;
        self.has(name, field)?;
        let (value, mask) = if field.name == "vlan_vid" {
            // Written with or without the bit that says that there is a tag.
            let value = value::number(field.name, value_text, 0x1fff)?;
            (value & !u128::from(VLAN_PRESENT), field.bits)
        } else {
            value::parse(field, value_text, self.ports)?
        };
        if mask == 0 {
            return Err(value_text.error(Problem::Other("the mask is 0, so that nothing would be set")));
        }
        Ok(Action::SetField { field, value, mask })
    }

    fn load(&self, text: Text<'_>) -> Result<Action, Error> {
        let (value_text, name) = arrow(text)?;
        let dst = self.destination(name)?;
        let what = format!("the {} bits of {}", dst.width, name.text);
        let value = value::number(&what, value_text, low_bits(dst.width))?;
        Ok(Action::Load { value, dst })
    }

    fn move_(&self, text: Text<'_>) -> Result<Action, Error> {
        let (from, to) = arrow(text)?;
        let (src, dst) = (self.source(from)?, self.destination(to)?);
        if src.width != dst.width {
            return Err(text.error(Problem::WidthMismatch {
                src: from.text.into(),
                src_width: src.width,
                dst: to.text.into(),
                dst_width: dst.width,
            }));
        }
        Ok(Action::Move { src, dst })
    }

    /// A field or subfield to read.
    pub(crate) fn source(&self, text: Text<'_>) -> Result<Subfield, Error> {
        let text = text.trim();
        let (name, bits) = match text.split_once("[") {
            Some((name, bits)) => (name, Some(bits)),
            None => (text, None),
        };
        let field = self.field(name)?;
        self.has(name, field)?;
        let Some(bits) = bits else { return Ok(field.whole()) };
        let expected =
            || text.error(Problem::Expected { expected: "FIELD, FIELD[BIT] or FIELD[FIRST..LAST]".into() });
        let bits = bits.slice(0, bits.text.strip_suffix(']').ok_or_else(expected)?.len()).trim();
        if bits.text.is_empty() {
            return Ok(field.whole());
        }
        let (first, last) = bits.split_once("..").unwrap_or((bits, bits));
        let start = value::small::<u32>("the first bit", first.trim(), u32::MAX)?;
        let end = value::small::<u32>("the last bit", last.trim(), u32::MAX)?;
        let wrong = || bits.error(Problem::BadBits { field: field.name, start, end, last: field.width - 1 });
        if start > end || end >= field.width.into() {
            return Err(wrong());
        }
        let narrow = |n: u32| u8::try_from(n).map_err(|_| wrong());
        Ok(Subfield { field, start: narrow(start)?, width: narrow(end - start + 1)? })
    }

    /// A field or subfield to write.
    fn destination(&self, text: Text<'_>) -> Result<Subfield, Error> {
        let subfield = self.source(text)?;
        writable(text, subfield.field)?;
        Ok(subfield)
    }

    fn field(&self, name: Text<'_>) -> Result<&'static Field, Error> {
        if name.text.is_empty() {
            return Err(name.error(Problem::Expected { expected: "the name of a field".into() }));
        }
        Field::named(name.text).ok_or_else(|| {
            let known = super::field::FIELDS.iter().flat_map(Field::names);
            name.error(Problem::UnknownField { name: name.text.to_owned(), near: nearest(name.text, known) })
        })
    }

    /// Checks that every packet has the field by now.
    fn has(&self, text: Text<'_>, field: &Field) -> Result<(), Error> {
        let met = match field.prerequisite {
            Prerequisite::Vlan => self.tagged,
            needed => self.context.meets(needed),
        };
        if met {
            return Ok(());
        }
        let what = format!("an action on {}", field.name);
        let needs = format!("{} in the match", field.prerequisite.needs());
        Err(text.error(Problem::Prerequisite { what, needs }))
    }
}

fn writable(text: Text<'_>, field: &Field) -> Result<(), Error> {
    if field.writable { Ok(()) } else { Err(text.error(Problem::ReadOnly { field: field.name })) }
}

/// `value->destination`.
fn arrow(text: Text<'_>) -> Result<(Text<'_>, Text<'_>), Error> {
    let (value, destination) = text.split_once("->").ok_or_else(|| {
        Text { text: "", at: text.end().start }
            .error(Problem::Expected { expected: "'->' and a field".into() })
    })?;
    Ok((value.trim(), destination.trim()))
}

fn to_port(text: Text<'_>, port: PortNumber) -> Result<Action, Error> {
    Ok(match port {
        port::IN_PORT => Action::InPort,
        port::NORMAL => Action::Normal,
        port::FLOOD => Action::Flood,
        port::ALL => Action::All,
        port::LOCAL => Action::Local,
        port::CONTROLLER => Action::Controller(Controller::default()),
        port if port >= port::FIRST_RESERVED => {
            return Err(text.error(Problem::BadOutputPort { port: text.text.to_owned() }));
        }
        port => Action::Output(port),
    })
}

fn controller(item: &Item<'_>) -> Result<Action, Error> {
    let mut made = Controller::default();
    if item.joint == Joint::Sign {
        made.max_len = value::small("max_len", item.needed_value()?, u16::MAX)?;
        return Ok(Action::Controller(made));
    }
    for argument in Items::new(item.value) {
        let argument = argument?;
        match argument.key.text {
            "max_len" => made.max_len = value::small("max_len", argument.needed_value()?, u16::MAX)?,
            "id" => made.id = value::small("the controller id", argument.needed_value()?, u16::MAX)?,
            "userdata" => made.userdata = bytes(argument.needed_value()?)?,
            "pause" => {
                argument.no_value()?;
                made.pause = true;
            }
            "reason" => {
                let text = argument.needed_value()?;
                let found = Reason::NAMES.iter().find(|(_, name)| *name == text.text);
                let names = || Reason::NAMES.map(|(_, name)| name).join(", ");
                (made.reason, _) = *found.ok_or_else(|| {
                    let expected = format!("one of {}", names());
                    text.error(Problem::BadValue { what: "reason".into(), found: text.text.into(), expected })
                })?;
            }
            _ => {
                let known = ["max_len", "reason", "id", "userdata", "pause"];
                return Err(unknown_argument("controller", argument.key, &known));
            }
        }
    }
    Ok(Action::Controller(made))
}

fn dec_ttl(item: &Item<'_>) -> Result<Action, Error> {
    let ids = Items::new(item.value).map(|id| {
        let id = id?;
        id.no_value()?;
        value::small("a controller id", id.key, u16::MAX)
    });
    Ok(Action::DecTtl(ids.collect::<Result<_, _>>()?))
}

/// Pairs of hexadecimal digits, dots between them allowed.
fn bytes(text: Text<'_>) -> Result<Vec<u8>, Error> {
    let digits: String = text.text.chars().filter(|c| *c != '.').collect();
    let wrong = || {
        let expected = "pairs of hexadecimal digits like 01.02.ff".into();
        text.error(Problem::BadValue { what: "the action".into(), found: text.text.into(), expected })
    };
    if !digits.len().is_multiple_of(2) || !digits.chars().all(|c| c.is_ascii_hexdigit()) {
        return Err(wrong());
    }
    digits
        .as_bytes()
        .chunks_exact(2)
        .map(|pair| {
            core::str::from_utf8(pair).ok().and_then(|p| u8::from_str_radix(p, 16).ok()).ok_or_else(wrong)
        })
        .collect()
}

fn unknown(item: &Item<'_>) -> Error {
    let name = item.key.text.to_owned();
    if UNSUPPORTED.contains(&item.key.text) {
        return item.key.error(Problem::Unsupported { what: format!("action '{name}'") });
    }
    if item.key.text.is_empty() {
        return item.key.error(Problem::Expected { expected: "an action".into() });
    }
    let near = nearest(item.key.text, NAMES);
    item.key.error(Problem::UnknownAction { name, near })
}

pub(crate) fn unknown_argument(action: &'static str, key: Text<'_>, known: &[&'static str]) -> Error {
    let near = nearest(key.text, known.iter().copied());
    key.error(Problem::UnknownArgument { action, name: key.text.to_owned(), near })
}
