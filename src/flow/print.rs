//! Writes flows, matches and actions as `ovs-ofctl` does.

use core::fmt::Write as _;

use weir_nat::{AddressRange, NatAction, NatRange, PortSelection};

use super::action::{Action, Controller, CtSpec, Reason, Zone};
use super::field::{FIELDS, Field, Format, Prerequisite, Subfield};
use super::flow::{Command, DEFAULT_PRIORITY, Flags, FlowMod, SHORTHANDS};
use super::matching::{Match, VLAN_PRESENT};
use super::port::PortNames;
use super::value::{self, hex};

/// The order in which a match's fields are written, behind the word for its protocol and the registers.
const ORDER: [&str; 29] = [
    "metadata",
    "in_port",
    "vlan_tci",
    "dl_src",
    "dl_dst",
    "dl_type",
    "nw_src",
    "nw_dst",
    "arp_spa",
    "arp_tpa",
    "ipv6_src",
    "ipv6_dst",
    "ipv6_label",
    "arp_op",
    "nw_proto",
    "arp_sha",
    "arp_tha",
    "nw_tos",
    "nw_ecn",
    "nw_ttl",
    "nw_frag",
    "icmp_type",
    "icmp_code",
    "tp_src",
    "tp_dst",
    "tcp_flags",
    "nd_target",
    "nd_sll",
    "nd_tll",
];

/// Fields written in front of everything else.
const FIRST: [&str; 12] = [
    "ct_state",
    "ct_zone",
    "ct_mark",
    "ct_label",
    "ct_nw_src",
    "ct_nw_dst",
    "ct_ipv6_src",
    "ct_ipv6_dst",
    "ct_nw_proto",
    "ct_tp_src",
    "ct_tp_dst",
    "packet_type",
];

/// A match with its priority, as in `priority=10,ip,ct_state=-trk`; empty for everything at the default priority.
#[must_use]
pub fn matching(matching: &Match, priority: u16, ports: &dyn PortNames) -> String {
    let mut parts = Vec::new();
    if priority != DEFAULT_PRIORITY {
        parts.push(format!("priority={priority}"));
    }
    for name in FIRST {
        field(&mut parts, matching, name, ports);
    }
    let kind = shorthand(matching);
    parts.extend(kind.map(|(name, _)| name.to_owned()));
    for register in FIELDS.iter().filter(|field| field.name.starts_with("reg")) {
        field(&mut parts, matching, register.name, ports);
    }
    for name in ORDER {
        match name {
            "vlan_tci" => vlan(&mut parts, matching),
            "dl_type" => {
                if let Some(ether_type) = matching.ether_type().filter(|_| kind.is_none()) {
                    parts.push(format!("dl_type=0x{ether_type:04x}"));
                }
            }
            "nw_proto" if kind.is_some_and(|(_, protocol)| protocol) => {}
            "ipv6_label" => {
                if let Some((value, mask)) = matched(matching, name) {
                    let mask = if mask == 0xf_ffff { String::new() } else { format!("/0x{mask:05x}") };
                    parts.push(format!("ipv6_label=0x{value:05x}{mask}"));
                }
            }
            _ if applies(matching, name) => field(&mut parts, matching, name, ports),
            _ => {}
        }
    }
    parts.join(",")
}

/// Fields that share their place with others are written under the name that suits the packets.
fn applies(matching: &Match, name: &str) -> bool {
    let icmp = || matching.meets(Prerequisite::Icmp4) || matching.meets(Prerequisite::Icmp6);
    let arp = || matching.meets(Prerequisite::Arp);
    match name {
        "nw_src" | "nw_dst" | "nw_proto" => !arp(),
        "arp_spa" | "arp_tpa" | "arp_op" | "arp_sha" | "arp_tha" => arp(),
        "nd_sll" | "nd_tll" => !arp(),
        "icmp_type" | "icmp_code" => icmp(),
        "tp_src" | "tp_dst" => !icmp(),
        _ => true,
    }
}

fn matched(matching: &Match, name: &str) -> Option<(u128, u128)> {
    let field = Field::for_match(name)?;
    let (value, mask) = matching.field(field);
    // The part of the traffic class that the field speaks of.
    let mask = mask & field.bits;
    (mask != 0).then_some((value & mask, mask))
}

fn field(parts: &mut Vec<String>, matching: &Match, name: &str, ports: &dyn PortNames) {
    let (Some(field), Some((value, mask))) = (Field::for_match(name), matched(matching, name)) else {
        return;
    };
    let text = match name {
        // A zone is counted, not a set of bits.
        "ct_zone" => value.to_string(),
        _ => value::print(field, value, mask, ports),
    };
    parts.push(format!("{name}={text}"));
}

/// The word for what is matched, and whether it says the IP protocol as well.
fn shorthand(matching: &Match) -> Option<(&'static str, bool)> {
    let (ether_type, protocol) = (matching.ether_type()?, matching.ip_protocol());
    let find = |wanted: Option<u8>| SHORTHANDS.iter().find(|(_, t, p)| *t == ether_type && *p == wanted);
    let full = protocol.and_then(|protocol| find(Some(protocol)));
    full.map(|(name, ..)| (*name, true)).or_else(|| find(None).map(|(name, ..)| (*name, false)))
}

fn vlan(parts: &mut Vec<String>, matching: &Match) {
    let Some((value, mask)) = matched(matching, "vlan_tci") else { return };
    let present = u128::from(VLAN_PRESENT);
    let id = mask & (0xfff | present) == 0xfff | present;
    let priority = mask & (0xe000 | present) == 0xe000 | present;
    let rest = mask & !((if id { 0xfff } else { 0 }) | (if priority { 0xe000 } else { 0 }) | present);
    if value & present == 0 || rest != 0 || !(id || priority) {
        let mask = if mask == 0xffff { String::new() } else { format!("/0x{mask:04x}") };
        parts.push(format!("vlan_tci=0x{value:04x}{mask}"));
        return;
    }
    if id {
        parts.push(format!("dl_vlan={}", value & 0xfff));
    }
    if priority {
        parts.push(format!("dl_vlan_pcp={}", value >> 13));
    }
}

/// `NXM_NX_REG0[3..7]`.
#[must_use]
pub fn subfield(subfield: &Subfield) -> String {
    let name = subfield.field.nxm;
    let (first, last) = (subfield.start, subfield.start + (subfield.width - 1));
    match () {
        () if subfield.is_whole() => format!("{name}[]"),
        () if first == last => format!("{name}[{first}]"),
        () => format!("{name}[{first}..{last}]"),
    }
}

/// A list of actions; `drop` for none.
#[must_use]
pub fn actions(actions: &[Action], ports: &dyn PortNames) -> String {
    if actions.is_empty() {
        return "drop".into();
    }
    actions.iter().map(|one| action(one, ports)).collect::<Vec<_>>().join(",")
}

/// One action.
#[must_use]
pub fn action(action: &Action, ports: &dyn PortNames) -> String {
    let port = |number: u16| value::print_port(number, ports);
    match action {
        Action::Output(number) => format!("output:{}", port(*number)),
        Action::OutputTruncated { port: number, max_len } => {
            format!("output(port={},max_len={max_len})", port(*number))
        }
        Action::OutputField(src) => format!("output:{}", subfield(src)),
        Action::Normal => "NORMAL".into(),
        Action::Flood => "FLOOD".into(),
        Action::All => "ALL".into(),
        Action::InPort => "IN_PORT".into(),
        Action::Local => "LOCAL".into(),
        Action::Controller(spec) => controller(spec),
        Action::Resubmit { port: number, table, ct } => resubmit(number.map(port), *table, *ct),
        Action::GotoTable(table) => format!("goto_table:{table}"),
        Action::Group(group) => format!("group:{group}"),
        Action::Ct(spec) => ct(spec, ports),
        Action::CtClear => "ct_clear".into(),
        Action::SetField { field, value, mask } => set_field(field, *value, *mask, ports),
        Action::Load { value, dst } => format!("load:{}->{}", hex(*value), subfield(dst)),
        Action::Move { src, dst } => format!("move:{}->{}", subfield(src), subfield(dst)),
        Action::Push(src) => format!("push:{}", subfield(src)),
        Action::Pop(dst) => format!("pop:{}", subfield(dst)),
        Action::ModDlSrc(address) => format!("mod_dl_src:{}", value::mac_text(value::mac_number(*address))),
        Action::ModDlDst(address) => format!("mod_dl_dst:{}", value::mac_text(value::mac_number(*address))),
        Action::ModNwSrc(address) => format!("mod_nw_src:{address}"),
        Action::ModNwDst(address) => format!("mod_nw_dst:{address}"),
        Action::ModNwTos(tos) => format!("mod_nw_tos:{tos}"),
        Action::ModNwEcn(ecn) => format!("mod_nw_ecn:{ecn}"),
        Action::ModNwTtl(ttl) => format!("mod_nw_ttl:{ttl}"),
        Action::ModTpSrc(number) => format!("mod_tp_src:{number}"),
        Action::ModTpDst(number) => format!("mod_tp_dst:{number}"),
        Action::ModVlanVid(id) => format!("mod_vlan_vid:{id}"),
        Action::ModVlanPcp(priority) => format!("mod_vlan_pcp:{priority}"),
        Action::PushVlan(tpid) => format!("push_vlan:{tpid:#06x}"),
        Action::StripVlan => "strip_vlan".into(),
        Action::DecTtl(ids) if ids.is_empty() => "dec_ttl".into(),
        Action::DecTtl(ids) => {
            format!("dec_ttl({})", ids.iter().map(u16::to_string).collect::<Vec<_>>().join(","))
        }
        Action::SetQueue(queue) => format!("set_queue:{queue}"),
        Action::PopQueue => "pop_queue".into(),
        Action::WriteMetadata { value, mask: u64::MAX } => format!("write_metadata:{}", hex((*value).into())),
        Action::WriteMetadata { value, mask } => {
            format!("write_metadata:{}/{}", hex((*value).into()), hex((*mask).into()))
        }
        Action::Note(bytes) => format!("note:{}", dotted(bytes)),
        Action::Exit => "exit".into(),
    }
}

fn dotted(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(".")
}

/// A field's name where the field itself is meant, not its value in a match.
pub(super) fn set_name(field: &Field) -> &'static str {
    match field.name {
        "nw_src" => "ip_src",
        "nw_dst" => "ip_dst",
        name => name,
    }
}

fn set_field(field: &Field, value: u128, mask: u128, ports: &dyn PortNames) -> String {
    // A VLAN id is written with the bit that says that there is a tag.
    let value = if field.name == "vlan_vid" { value | u128::from(VLAN_PRESENT) } else { value };
    let name = set_name(field);
    let text = match field.format {
        Format::Decimal if mask != field.bits => format!("{value}/{}", hex(mask)),
        _ => value::print(field, value, mask, ports),
    };
    format!("set_field:{text}->{name}")
}

fn controller(spec: &Controller) -> String {
    let plain = Controller { max_len: spec.max_len, ..Controller::default() };
    if *spec == plain {
        return format!("CONTROLLER:{}", spec.max_len);
    }
    let mut parts = Vec::new();
    if spec.reason != Reason::Action {
        let name = Reason::NAMES
            .iter()
            .find(|(reason, _)| *reason == spec.reason)
            .map_or("action", |(_, name)| *name);
        parts.push(format!("reason={name}"));
    }
    if spec.max_len != u16::MAX {
        parts.push(format!("max_len={}", spec.max_len));
    }
    if spec.id != 0 {
        parts.push(format!("id={}", spec.id));
    }
    if !spec.userdata.is_empty() {
        parts.push(format!("userdata={}", dotted(&spec.userdata)));
    }
    if spec.pause {
        parts.push("pause".into());
    }
    format!("controller({})", parts.join(","))
}

fn resubmit(port: Option<String>, table: Option<u8>, ct: bool) -> String {
    match (port, table, ct) {
        (Some(port), None, false) => format!("resubmit:{port}"),
        (port, table, ct) => {
            let table = table.map_or_else(String::new, |table| table.to_string());
            format!("resubmit({},{table}{})", port.unwrap_or_default(), if ct { ",ct" } else { "" })
        }
    }
}

fn ct(spec: &CtSpec, ports: &dyn PortNames) -> String {
    let mut parts: Vec<String> = Vec::new();
    if spec.commit {
        parts.push("commit".into());
    }
    if spec.force {
        parts.push("force".into());
    }
    parts.extend(spec.table.map(|table| format!("table={table}")));
    match &spec.zone {
        Zone::Immediate(0) => {}
        Zone::Immediate(zone) => parts.push(format!("zone={zone}")),
        Zone::Field(src) => parts.push(format!("zone={}", subfield(src))),
    }
    parts.extend(spec.nat.as_ref().map(nat_text));
    if !spec.exec.is_empty() {
        parts.push(format!("exec({})", actions(&spec.exec, ports)));
    }
    parts.extend(spec.helper.map(|helper| format!("alg={}", helper.name())));
    format!("ct({})", parts.join(","))
}

/// What a `ct` has inside, an action each: translation and what `exec` does; `drop` for nothing.
pub(crate) fn inside_ct(spec: &CtSpec, ports: &dyn PortNames) -> Vec<String> {
    let exec = spec.exec.iter().map(|one| action(one, ports));
    let all: Vec<String> = spec.nat.as_ref().map(nat_text).into_iter().chain(exec).collect();
    if all.is_empty() { vec!["drop".into()] } else { all }
}

/// A `nat(...)` as flows write it.
#[must_use]
pub fn nat_text(action: &NatAction) -> String {
    let (direction, range) = match action {
        NatAction::Apply => return "nat".into(),
        NatAction::Source(range) => ("src", range),
        NatAction::Destination(range) => ("dst", range),
    };
    format!("nat({direction}{})", nat_range(range))
}

fn nat_range(range: &NatRange) -> String {
    let mut out = String::new();
    match range.addresses {
        Some(AddressRange::V4(low, high)) if low == high => out = format!("={low}"),
        Some(AddressRange::V4(low, high)) => out = format!("={low}-{high}"),
        Some(AddressRange::V6(low, high)) => {
            let (open, close) = if range.ports.is_some() { ("[", "]") } else { ("", "") };
            out = format!("={open}{}{close}", value::ipv6_text(low));
            if low != high {
                let _ = write!(out, "-{open}{}{close}", value::ipv6_text(high));
            }
        }
        None => {}
    }
    match range.ports {
        Some((low, high)) if low == high => _ = write!(out, ":{low}"),
        Some((low, high)) => _ = write!(out, ":{low}-{high}"),
        None => {}
    }
    if range.persistent {
        out.push_str(",persistent");
    }
    out.push_str(match range.selection {
        PortSelection::Default => "",
        PortSelection::Hash => ",hash",
        PortSelection::Random => ",random",
    });
    out
}

fn flags(flags: &Flags) -> impl Iterator<Item = &'static str> + use<> {
    let all = [
        (flags.send_flow_rem, "send_flow_rem"),
        (flags.check_overlap, "check_overlap"),
        (flags.reset_counts, "reset_counts"),
        (flags.no_packet_counts, "no_packet_counts"),
        (flags.no_byte_counts, "no_byte_counts"),
    ];
    all.into_iter().filter(|(set, _)| *set).map(|(_, name)| name)
}

/// What a dump says of a flow beside its match and actions.
#[derive(Clone, Copy, Debug, Default)]
pub struct Properties {
    pub table: u8,
    pub priority: u16,
    pub cookie: u64,
    pub idle_timeout: u16,
    pub hard_timeout: u16,
    pub importance: u16,
    pub flags: Flags,
}

/// What a dump says of a flow's past.
#[derive(Clone, Copy, Debug)]
pub struct Counters {
    pub duration_ms: u64,
    pub packets: u64,
    pub bytes: u64,
}

/// One line of `dump-flows`, with its leading space; without counters as with `--no-stats`.
#[must_use]
pub fn dump_line(
    properties: &Properties,
    match_: &Match,
    actions_: &[Action],
    counters: Option<&Counters>,
    ports: &dyn PortNames,
) -> String {
    let mut out = String::from(" ");
    if let Some(Counters { duration_ms, packets, bytes }) = counters {
        let (seconds, rest) = (duration_ms / 1000, duration_ms % 1000);
        let (cookie, table) = (hex_always(properties.cookie), properties.table);
        let _ = write!(
            out,
            "cookie={cookie}, duration={seconds}.{rest:03}s, table={table}, n_packets={packets}, n_bytes={bytes}, "
        );
    } else {
        if properties.cookie != 0 {
            let _ = write!(out, "cookie={}, ", hex_always(properties.cookie));
        }
        if properties.table != 0 {
            let _ = write!(out, "table={}, ", properties.table);
        }
    }
    for (name, seconds) in
        [("idle_timeout", properties.idle_timeout), ("hard_timeout", properties.hard_timeout)]
    {
        if seconds != 0 {
            let _ = write!(out, "{name}={seconds}, ");
        }
    }
    for flag in flags(&properties.flags) {
        let _ = write!(out, "{flag} ");
    }
    if properties.importance != 0 {
        let _ = write!(out, "importance={}, ", properties.importance);
    }
    let text = matching(match_, properties.priority, ports);
    let gap = if text.is_empty() { "" } else { " " };
    let _ = write!(out, "{text}{gap}actions={}", actions(actions_, ports));
    out
}

fn hex_always(value: u64) -> String {
    format!("{value:#x}")
}

/// A flow as it would be written for its command; reading it gives the flow again.
#[must_use]
pub fn flow(flow: &FlowMod, ports: &dyn PortNames) -> String {
    let mut parts: Vec<String> = Vec::new();
    parts.extend(flow.table.map(|table| format!("table={table}")));
    parts.extend(flow.cookie_match.map(|(cookie, mask)| format!("cookie={cookie:#x}/{mask:#x}")));
    parts.extend(flow.cookie.map(|cookie| format!("cookie={cookie:#x}")));
    let numbers = [
        ("idle_timeout", flow.idle_timeout),
        ("hard_timeout", flow.hard_timeout),
        ("importance", flow.importance),
    ];
    parts.extend(numbers.iter().filter(|(_, n)| *n != 0).map(|(name, n)| format!("{name}={n}")));
    parts.extend(flow.out_port.map(|number| format!("out_port={}", value::print_port(number, ports))));
    parts.extend(flow.out_group.map(|group| format!("out_group={group}")));
    parts.extend(flags(&flow.flags).map(str::to_owned));
    parts.push(matching(&flow.matching, flow.priority, ports));
    parts.retain(|part| !part.is_empty());
    let mut out = parts.join(",");
    if !flow.command.selects() {
        if !out.is_empty() {
            out.push(' ');
        }
        let _ = write!(out, "actions={}", actions(&flow.actions, ports));
    }
    out
}

/// The word for a command in a file of flows.
#[must_use]
pub const fn command(command: Command) -> &'static str {
    match command {
        Command::Add => "add",
        Command::Modify => "modify",
        Command::ModifyStrict => "modify_strict",
        Command::Delete => "delete",
        Command::DeleteStrict => "delete_strict",
        Command::Dump => "dump",
    }
}
