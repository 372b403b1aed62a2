//! A whole flow as `ovs-ofctl` takes it: what to do with it, its properties, its match and its actions.

use super::action::Action;
use super::error::{Error, Problem, Warning};
use super::field::{FIELDS, Field, Prerequisite};
use super::lexer::{Item, Items, Joint, Text};
use super::matching::{Match, VLAN_PRESENT, ether_type, protocol};
use super::nearest::nearest;
use super::port::{PortNames, PortNumber};
use super::{action_parse, key::at, value};

/// Bytes in a line.
pub const MAX_LINE: usize = 1 << 16;
/// Actions of a flow, those in `ct(exec(...))` included.
pub const MAX_ACTIONS: usize = 4096;
/// Priority of a flow that does not say.
pub const DEFAULT_PRIORITY: u16 = 0x8000;
/// The last table; 255 stands for all of them.
pub const LAST_TABLE: u8 = 254;

/// What to do with a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    Add,
    Modify,
    ModifyStrict,
    Delete,
    DeleteStrict,
    /// Show flows; written as for deleting.
    Dump,
}

impl Command {
    /// True if flows are selected, not written: no actions, and cookies with masks.
    #[must_use]
    pub const fn selects(self) -> bool {
        matches!(self, Self::Delete | Self::DeleteStrict | Self::Dump)
    }
}

/// Switches of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "five independent switches of the language")]
pub struct Flags {
    pub send_flow_rem: bool,
    pub check_overlap: bool,
    pub reset_counts: bool,
    pub no_packet_counts: bool,
    pub no_byte_counts: bool,
}

/// A flow to add, modify, delete or look for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowMod {
    pub command: Command,
    /// `None`: the first one for adding, all of them otherwise.
    pub table: Option<u8>,
    pub priority: u16,
    /// The cookie to give; `None` leaves a modified flow its own.
    pub cookie: Option<u64>,
    /// Value and mask of the cookies of the flows to modify, delete or show.
    pub cookie_match: Option<(u64, u64)>,
    /// Seconds; 0 is never.
    pub idle_timeout: u16,
    /// Seconds; 0 is never.
    pub hard_timeout: u16,
    pub importance: u16,
    pub flags: Flags,
    /// Only flows that send to this port are deleted or shown.
    pub out_port: Option<PortNumber>,
    /// Only flows that send to this group are deleted or shown.
    pub out_group: Option<u32>,
    pub matching: Match,
    pub actions: Vec<Action>,
}

impl FlowMod {
    /// A flow that matches everything and drops it.
    #[must_use]
    pub const fn new(command: Command) -> Self {
        Self {
            command,
            table: None,
            priority: DEFAULT_PRIORITY,
            cookie: None,
            cookie_match: None,
            idle_timeout: 0,
            hard_timeout: 0,
            importance: 0,
            flags: Flags {
                send_flow_rem: false,
                check_overlap: false,
                reset_counts: false,
                no_packet_counts: false,
                no_byte_counts: false,
            },
            out_port: None,
            out_group: None,
            matching: Match::ANY,
            actions: Vec::new(),
        }
    }

    /// Reads a flow.
    pub fn parse(text: &str, command: Command, ports: &dyn PortNames) -> Result<Parsed, Error> {
        Self::parse_text(Text::line(text), command, ports)
    }

    /// Reads a flow that is part of a line.
    pub(crate) fn parse_text(
        text: Text<'_>,
        command: Command,
        ports: &dyn PortNames,
    ) -> Result<Parsed, Error> {
        if text.text.len() > MAX_LINE {
            let at = text.slice(0, 1);
            return Err(at.error(Problem::LineTooLong { length: text.text.len() }));
        }
        Parser { flow: Self::new(command), seen: Vec::new(), ports }.run(text)
    }
}

/// A flow and what is odd about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    pub flow: FlowMod,
    pub warnings: Vec<Warning>,
}

/// Words that stand for an Ethernet type and a protocol.
pub(crate) const SHORTHANDS: [(&str, u16, Option<u8>); 14] = [
    ("ip", ether_type::IPV4, None),
    ("ipv6", ether_type::IPV6, None),
    ("tcp", ether_type::IPV4, Some(protocol::TCP)),
    ("tcp6", ether_type::IPV6, Some(protocol::TCP)),
    ("udp", ether_type::IPV4, Some(protocol::UDP)),
    ("udp6", ether_type::IPV6, Some(protocol::UDP)),
    ("sctp", ether_type::IPV4, Some(protocol::SCTP)),
    ("sctp6", ether_type::IPV6, Some(protocol::SCTP)),
    ("icmp", ether_type::IPV4, Some(protocol::ICMP)),
    ("icmp6", ether_type::IPV6, Some(protocol::ICMPV6)),
    ("arp", ether_type::ARP, None),
    ("rarp", ether_type::RARP, None),
    ("mpls", ether_type::MPLS, None),
    ("mplsm", ether_type::MPLS_MULTICAST, None),
];

/// Words beside fields.
const PROPERTIES: [&str; 18] = [
    "table",
    "priority",
    "cookie",
    "idle_timeout",
    "hard_timeout",
    "importance",
    "out_port",
    "out_group",
    "send_flow_rem",
    "check_overlap",
    "reset_counts",
    "no_packet_counts",
    "no_byte_counts",
    "actions",
    "dl_vlan",
    "dl_vlan_pcp",
    "icmp_type",
    "eth",
];

/// Starts of the names of fields that the language has and this datapath has not.
const UNSUPPORTED: [&str; 10] = [
    "tun_",
    "tunnel_id",
    "mpls_",
    "nsh_",
    "nsp",
    "nsi",
    "pkt_mark",
    "skb_priority",
    "conj_id",
    "actset_output",
];

struct Parser<'a> {
    flow: FlowMod,
    /// Fields by the word that set them, each field once.
    seen: Vec<(Text<'a>, &'static Field, u128, u128)>,
    ports: &'a dyn PortNames,
}

impl<'a> Parser<'a> {
    fn run(mut self, text: Text<'a>) -> Result<Parsed, Error> {
        let mut actions = None;
        let mut items = Items::new(text);
        loop {
            let rest = items.rest();
            let Some(item) = items.next() else { break };
            // The actions are the rest of the line, whatever is in it; so look for them before judging the item.
            if let Some(found) = actions_in(rest) {
                actions = Some(found);
                break;
            }
            self.item(&item?)?;
        }
        let warnings = self.finish()?;
        match actions {
            Some((key, _)) if self.flow.command.selects() => return Err(key.error(Problem::UnwantedActions)),
            Some((_, text)) => {
                let context =
                    action_parse::Context { matching: Some(&self.flow.matching), table: self.flow.table };
                self.flow.actions = action_parse::actions(text, context, self.ports)?;
            }
            None if self.flow.command.selects() => {}
            None => return Err(text.trim().error(Problem::MissingActions)),
        }
        Ok(Parsed { flow: self.flow, warnings })
    }

    fn item(&mut self, item: &Item<'a>) -> Result<(), Error> {
        let key = item.key;
        if let Some((_, kind, protocol)) = SHORTHANDS.iter().find(|(name, ..)| *name == key.text) {
            item.no_value()?;
            return self.kind(key, *kind, *protocol);
        }
        if self.property(item)? {
            return Ok(());
        }
        let vlan = ["dl_vlan", "dl_vlan_pcp", "vlan_vid", "vlan_pcp"].contains(&key.text);
        if !vlan && Field::for_match(key.text).is_none() {
            return Err(unknown(key));
        }
        if item.joint == Joint::Parentheses {
            return Err(item.value.error(Problem::Expected { expected: format!("'=' after {}", key.text) }));
        }
        let text = item.needed_value()?;
        if vlan {
            let (value, mask) = vlan_tag(key.text, text)?;
            return self.agree(key, (at::VLAN_TCI, 2), value, mask);
        }
        let Some(field) = Field::for_match(key.text) else { return Err(unknown(key)) };
        let (value, mask) = value::parse(field, text, self.ports)?;
        match self.seen.iter().find(|(_, known, ..)| *known == field) {
            Some((.., old, old_mask)) if (*old, *old_mask) == (value, mask) => return Ok(()),
            Some(_) => return Err(key.error(Problem::Twice { key: key.text.to_owned() })),
            None => self.seen.push((key, field, value, mask)),
        }
        self.agree(key, (field.offset, field.bytes), value << field.shift, mask << field.shift)
    }

    fn agree(&mut self, key: Text<'a>, place: (usize, usize), value: u128, mask: u128) -> Result<(), Error> {
        if self.flow.matching.agree(place, value, mask) {
            return Ok(());
        }
        Err(key.error(Problem::Conflict { field: key.text.to_owned() }))
    }

    fn kind(&mut self, key: Text<'a>, ether_type: u16, protocol: Option<u8>) -> Result<(), Error> {
        self.agree(key, (at::ETH_TYPE, 2), ether_type.into(), 0xffff)?;
        protocol.map_or(Ok(()), |protocol| self.agree(key, (at::NW_PROTO, 1), protocol.into(), 0xff))
    }

    /// Takes what is no field; false if it is one.
    fn property(&mut self, item: &Item<'a>) -> Result<bool, Error> {
        let flow = &mut self.flow;
        let flag = match item.key.text {
            "send_flow_rem" => Some(&mut flow.flags.send_flow_rem),
            "check_overlap" => Some(&mut flow.flags.check_overlap),
            "reset_counts" => Some(&mut flow.flags.reset_counts),
            "no_packet_counts" => Some(&mut flow.flags.no_packet_counts),
            "no_byte_counts" => Some(&mut flow.flags.no_byte_counts),
            _ => None,
        };
        if let Some(flag) = flag {
            item.no_value()?;
            *flag = true;
            return Ok(true);
        }
        match item.key.text {
            "actions" | "action" => return Err(item.key.error(Problem::MissingActions)),
            // Every packet is an Ethernet frame here.
            "eth" => item.no_value()?,
            "table" => {
                let table: u8 = value::small("the table", item.needed_value()?, u8::MAX)?;
                flow.table = (table <= LAST_TABLE).then_some(table);
            }
            "priority" => flow.priority = value::small("the priority", item.needed_value()?, u16::MAX)?,
            "idle_timeout" => {
                flow.idle_timeout = value::small("idle_timeout", item.needed_value()?, u16::MAX)?
            }
            "hard_timeout" => {
                flow.hard_timeout = value::small("hard_timeout", item.needed_value()?, u16::MAX)?
            }
            "importance" => flow.importance = value::small("importance", item.needed_value()?, u16::MAX)?,
            "cookie" => self.cookie(item.key, item.needed_value()?)?,
            "out_port" if flow.command.selects() => {
                let port = value::port(item.needed_value()?, self.ports)?;
                flow.out_port = (port != super::port::NONE).then_some(port);
            }
            "out_group" if flow.command.selects() => {
                let group = value::small("a group", item.needed_value()?, u32::MAX)?;
                // OFPG_ANY, as leaving it out.
                flow.out_group = (group != u32::MAX).then_some(group);
            }
            "out_group" => {
                let problem =
                    Problem::Other("out_group selects flows to delete or show; a new flow has none");
                return Err(item.key.error(problem));
            }
            "out_port" => {
                let problem = Problem::Other("out_port selects flows to delete or show; a new flow has none");
                return Err(item.key.error(problem));
            }
            // What dumps say beside the flow itself, so that they can be loaded again.
            "duration" | "n_packets" | "n_bytes" | "idle_age" | "hard_age" => {
                item.needed_value()?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn cookie(&mut self, key: Text<'a>, text: Text<'a>) -> Result<(), Error> {
        let read = |text: Text<'a>| value::small("the cookie", text, u64::MAX);
        match (text.split_once("/"), self.flow.command) {
            (Some(_), Command::Add) => {
                Err(text.error(Problem::Other("a flow to add has a cookie, but its cookie has no mask")))
            }
            (Some((cookie, mask)), _) => {
                let (cookie, mask) = (read(cookie)?, read(mask)?);
                self.flow.cookie_match = Some((cookie & mask, mask));
                Ok(())
            }
            (None, command) if command.selects() => {
                Err(key
                    .error(Problem::Other("flows are selected by cookie with a mask, such as cookie=7/-1")))
            }
            (None, _) => {
                self.flow.cookie = Some(read(text)?);
                Ok(())
            }
        }
    }

    /// Checks what can only be judged once all fields are known, and takes out what means nothing.
    fn finish(&mut self) -> Result<Vec<Warning>, Error> {
        let matching = &mut self.flow.matching;
        let icmp = matching.meets(Prerequisite::Icmp4) || matching.meets(Prerequisite::Icmp6);
        if let Some((key, ..)) = self.seen.iter().find(|(_, field, value, _)| {
            icmp && field.offset < at::TCP_FLAGS
                && field.offset >= at::TP_SRC
                && field.bytes == 2
                && *value > 255
        }) {
            return Err(key.error(Problem::TooLarge {
                what: "an ICMP type or code".into(),
                value: key.text.into(),
                max: 255,
            }));
        }
        let dropped = matching.normalise();
        let mut warnings = Vec::new();
        for (key, field, _, mask) in &self.seen {
            let hit = dropped
                .iter()
                .find(|(at, bytes, _)| field.offset < at + bytes && *at < field.offset + field.bytes);
            if *mask == 0 {
                continue;
            }
            if let Some((.., needs)) = hit {
                warnings.push(Warning { field: key.text.to_owned(), needs, span: key.span() });
            } else if !fits(field, key.text, matching) {
                let (what, needs) = (key.text.to_owned(), field.prerequisite.needs().to_owned());
                return Err(key.error(Problem::Prerequisite { what, needs }));
            }
        }
        Ok(warnings)
    }
}

/// True if `field`, written as `word`, means something to the packets matched. Words of one protocol are taken for the
/// same place in another where that is customary: `nw_src` of ARP, `tp_src` of everything with ports or types.
fn fits(field: &Field, word: &str, matching: &Match) -> bool {
    let has = |prerequisite| matching.meets(prerequisite);
    match field.prerequisite {
        Prerequisite::Ipv4 | Prerequisite::Arp if matches!(field.offset, at::NW_SRC | at::NW_DST) => true,
        Prerequisite::Ip | Prerequisite::Arp if field.offset == at::NW_PROTO => true,
        Prerequisite::Tcp | Prerequisite::Udp | Prerequisite::Sctp if field.offset != at::TCP_FLAGS => {
            let ports = [Prerequisite::Tcp, Prerequisite::Udp, Prerequisite::Sctp].into_iter().any(has);
            ports || word.starts_with("tp_")
        }
        Prerequisite::Icmp4 | Prerequisite::Icmp6 => has(Prerequisite::Icmp4) || has(Prerequisite::Icmp6),
        needed => has(needed),
    }
}

fn unknown(key: Text<'_>) -> Error {
    let name = key.text.to_owned();
    if UNSUPPORTED.iter().any(|start| key.text.starts_with(start)) {
        return key.error(Problem::Unsupported { what: format!("field '{name}'") });
    }
    let shorthands = SHORTHANDS.iter().map(|(name, ..)| *name);
    let fields = FIELDS.iter().flat_map(|f| f.aliases.iter().copied().chain([f.name]));
    let near = nearest(key.text, fields.chain(PROPERTIES).chain(shorthands));
    key.error(Problem::UnknownField { name, near })
}

/// The tag that `dl_vlan` and its kin match, as a TCI with its mask.
fn vlan_tag(key: &str, text: Text<'_>) -> Result<(u128, u128), Error> {
    let present = u128::from(VLAN_PRESENT);
    match key {
        "dl_vlan" => Ok(match value::number(key, text, 0xffff)? {
            // "No tag" of old controllers.
            0xffff => (0, 0xffff),
            id if id > 0xfff => {
                return Err(text.error(Problem::TooLarge {
                    what: key.into(),
                    value: text.text.into(),
                    max: 0xfff,
                }));
            }
            id => (present | id, present | 0xfff),
        }),
        "vlan_vid" => {
            let read = |text| value::number(key, text, 0x1fff);
            let (value, mask) = match text.split_once("/") {
                Some((value, mask)) => (read(value)?, read(mask)?),
                None => (read(text)?, 0x1fff),
            };
            Ok((value & mask, mask))
        }
        _ => {
            let priority = value::number(key, text, 7)?;
            Ok((priority << 13 | present, 0xe000 | present))
        }
    }
}

/// Where the actions begin, if `text` begins with them.
pub(super) fn actions_in(text: Text<'_>) -> Option<(Text<'_>, Text<'_>)> {
    let text = text.slice(
        text.text.len() - text.text.trim_start_matches([',', ' ', '\t', '\r', '\n']).len(),
        text.text.len(),
    );
    let key = if text.text.starts_with("actions") { 7 } else { 6 };
    let behind = text.slice(key, text.text.len()).trim();
    let found = text.text.starts_with("action") && behind.text.starts_with('=');
    found.then(|| (text.slice(0, key), behind.slice(1, behind.text.len())))
}
