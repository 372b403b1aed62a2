//! Megaflows as text, in the form of `ovs-appctl dpctl/dump-flows`: what is matched (fields whose mask is 0
//! are left out), the statistics, and the steps.

use core::fmt::{self, Write as _};
use core::net::{Ipv4Addr, Ipv6Addr};

use weir_nat::{AddressRange, NatAction, NatRange, PortSelection};
use weir_shard::CtAction;
use weir_wire::numbers::{ether_type, protocol};

use super::extract::VLAN_PRESENT;
use super::megaflow::FlowCopy;
use super::snapshot::PortId;
use super::step::{Fields, Step};
use crate::flow::key::{Key, Mask, at};

/// Names of the `ct_state` bits, lowest first.
const CT_STATE: [&str; 8] = ["new", "est", "rel", "rpl", "inv", "trk", "snat", "dnat"];
/// TCP flags, lowest bit first (RFC 9293 section 3.1, tcpdump's letters).
const TCP_FLAGS: [char; 8] = ['F', 'S', 'R', 'P', '.', 'U', 'E', 'C'];

/// How a port of the datapath is written: [`number`], or as its bridge calls it.
pub type Ports<'a> = &'a dyn Fn(PortId) -> String;

/// A port by its number.
#[must_use]
pub fn number(port: PortId) -> String {
    port.to_string()
}

/// One line for one flow; `now` in milliseconds.
#[must_use]
pub fn line(flow: &FlowCopy, now: u64, ports: Ports<'_>) -> String {
    matched(&flow.key, &flow.mask, ports) + &statistics(flow, now) + &does(flow, ports)
}

/// The line of `dpctl/dump-flows -m`: with the flow's identity, and every field of its packets, those that it does
/// not look at with a mask of 0.
#[must_use]
pub fn full_line(flow: &FlowCopy, now: u64, ports: Ports<'_>) -> String {
    let full = full_match(&flow.key, &flow.mask, ports);
    format!("ufid:{}, {full}{}, dp:ovs{}", ufid(flow), statistics(flow, now), does(flow, ports))
}

/// The line of `dpif/dump-flows -m`, which is punctuated differently.
#[must_use]
pub fn full_bridge_line(flow: &FlowCopy, now: u64, ports: Ports<'_>) -> String {
    let full = full_match(&flow.key, &flow.mask, ports);
    format!("ufid:{} {full}{}{}", ufid(flow), statistics(flow, now), does(flow, ports))
}

/// A flow's identity: a hash of what it matches, in the form of a UUID. Equal flows of different lcores share it.
#[must_use]
pub fn ufid(flow: &FlowCopy) -> String {
    use core::hash::Hasher as _;
    let half = |first: u64| {
        let mut hasher = std::hash::DefaultHasher::new();
        hasher.write_u64(first);
        flow.key.words.iter().chain(&flow.mask.words).for_each(|&word| hasher.write_u64(word));
        hasher.finish()
    };
    let digits = format!("{:016x}{:016x}", half(1), half(2));
    let cut = |from: usize, to: usize| digits.get(from..to).unwrap_or_default();
    [cut(0, 8), cut(8, 12), cut(12, 16), cut(16, 20), cut(20, 32)].join("-")
}

fn does(flow: &FlowCopy, ports: Ports<'_>) -> String {
    format!(", actions:{}", steps(&flow.steps, &flow.key, ports))
}

fn statistics(flow: &FlowCopy, now: u64) -> String {
    let mut text = String::new();
    let _ = write!(text, ", packets:{}, bytes:{}, used:", flow.packets, flow.bytes);
    match flow.used {
        Some(used) => {
            let idle = now.saturating_sub(used);
            let _ = write!(text, "{}.{:03}s", idle / 1000, idle % 1000);
        }
        None => text.push_str("never"),
    }
    if flow.tcp_flags != 0 {
        text.push_str(", flags:");
        text.extend((0..8).filter(|bit| flow.tcp_flags >> bit & 1 == 1).map(|bit| TCP_FLAGS[bit]));
    }
    text
}

/// Collects `name(...)` groups, each with its comma-separated parts.
struct Groups<'a> {
    key: &'a Key,
    mask: &'a Mask,
    text: String,
    /// Shows fields that are not looked at too.
    full: bool,
}

/// How a part of a group is written.
#[derive(Clone, Copy)]
enum Form {
    Decimal,
    Hex,
    Mac,
    Ipv4,
    Ipv6,
}

struct Shown(u128, Form);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            Form::Decimal => write!(f, "{}", self.0),
            // As C's `%#x` writes it.
            Form::Hex if self.0 == 0 => f.write_str("0"),
            Form::Hex => write!(f, "{:#x}", self.0),
            Form::Mac => {
                let [.., a, b, c, d, e, g] = self.0.to_be_bytes();
                write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
            }
            Form::Ipv4 => write!(f, "{}", Ipv4Addr::from(self.0 as u32)),
            Form::Ipv6 => write!(f, "{}", Ipv6Addr::from(self.0)),
        }
    }
}

type Part = (&'static str, usize, usize, Form);

/// Every bit of a field of `length` bytes at `offset`.
const fn full(offset: usize, length: usize) -> u128 {
    match length {
        _ if offset == at::IPV6_LABEL => 0xf_ffff,
        16 => u128::MAX,
        _ => (1 << (8 * length)) - 1,
    }
}

/// `name=value/mask` for the parts that the mask covers, or for all.
fn parts(key: &Key, mask: &Mask, parts: &[Part], all: bool) -> Vec<String> {
    parts
        .iter()
        .filter_map(|&(name, offset, length, form)| {
            let bits = mask.read(offset, length);
            if bits == 0 && !all {
                return None;
            }
            let equals = if name.is_empty() { "" } else { "=" };
            let value = Shown(key.read(offset, length), form);
            Some(if bits == full(offset, length) {
                format!("{name}{equals}{value}")
            } else {
                format!(
                    "{name}{equals}{value}/{}",
                    Shown(bits, if matches!(form, Form::Decimal) { Form::Hex } else { form })
                )
            })
        })
        .collect()
}

impl Groups<'_> {
    fn raw(&mut self, name: &str, inside: &[String]) {
        if inside.is_empty() {
            return;
        }
        if !self.text.is_empty() {
            self.text.push(',');
        }
        let _ = write!(self.text, "{name}({})", inside.join(","));
    }

    fn group(&mut self, name: &str, list: &[Part]) {
        let inside = parts(self.key, self.mask, list, self.full);
        self.raw(name, &inside);
    }
}

/// The match of a flow, field by field.
#[must_use]
pub fn matched(key: &Key, mask: &Mask, ports: Ports<'_>) -> String {
    fields(Groups { key, mask, text: String::new(), full: false }, ports)
}

/// The match of a flow with every field that its packets have.
#[must_use]
pub fn full_match(key: &Key, mask: &Mask, ports: Ports<'_>) -> String {
    fields(Groups { key, mask, text: String::new(), full: true }, ports)
}

fn fields(mut groups: Groups<'_>, ports: Ports<'_>) -> String {
    let Groups { key, mask, full, .. } = groups;
    let (state, state_mask) = (key.read(at::CT_STATE, 4), mask.read(at::CT_STATE, 4));
    let flags: String = (0..8)
        .filter(|bit| state_mask >> bit & 1 == 1)
        .map(|bit| format!("{}{}", if state >> bit & 1 == 1 { '+' } else { '-' }, CT_STATE[bit]))
        .collect();
    if full {
        // Fields that Open vSwitch's packets have and weir's have not: always 0, never looked at.
        groups.raw("skb_priority", &["0/0".into()]);
        groups.raw("skb_mark", &["0/0".into()]);
        groups.group("ct_state", &[("", at::CT_STATE, 4, Form::Hex)]);
    } else if !flags.is_empty() {
        groups.raw("ct_state", &[flags]);
    }
    groups.group("ct_zone", &[("", at::CT_ZONE, 2, Form::Hex)]);
    groups.group("ct_mark", &[("", at::CT_MARK, 4, Form::Hex)]);
    groups.group("ct_label", &[("", at::CT_LABEL, 16, Form::Hex)]);
    let protocol: [Part; 3] = [
        ("proto", at::CT_NW_PROTO, 1, Form::Decimal),
        ("src_port", at::CT_TP_SRC, 2, Form::Decimal),
        ("dst_port", at::CT_TP_DST, 2, Form::Decimal),
    ];
    let ether_type = key.read(at::ETH_TYPE, 2) as u16;
    // The original tuple is no part of an untracked packet.
    groups.full = false;
    if ether_type == ether_type::IPV6 {
        let v6 = [("src", at::CT_IPV6_SRC, 16, Form::Ipv6), ("dst", at::CT_IPV6_DST, 16, Form::Ipv6)];
        groups.group("ct_tuple6", &[&v6[..], &protocol].concat());
    } else {
        let v4 = [("src", at::CT_NW_SRC, 4, Form::Ipv4), ("dst", at::CT_NW_DST, 4, Form::Ipv4)];
        groups.group("ct_tuple4", &[&v4[..], &protocol].concat());
    }
    groups.full = full;
    let recirculation = key.read(at::RECIRC_ID, 4);
    let hash = [("", at::DP_HASH, 4, Form::Hex)];
    // In the short form it comes in front, in the full one behind.
    if !full {
        groups.group("dp_hash", &hash);
    }
    groups.raw("recirc_id", &[if recirculation == 0 { "0".into() } else { format!("{recirculation:#x}") }]);
    if full {
        groups.group("dp_hash", &hash);
    }
    if full || mask.read(at::IN_PORT, 4) != 0 {
        groups.raw("in_port", &[ports(key.read(at::IN_PORT, 4) as PortId)]);
    }
    groups.raw("packet_type", &["ns=0,id=0".into()]);
    groups.group("eth", &[("src", at::ETH_SRC, 6, Form::Mac), ("dst", at::ETH_DST, 6, Form::Mac)]);
    ether(&mut groups);
    groups.text
}

/// Tags, ethertype and what is inside.
fn ether(groups: &mut Groups<'_>) {
    let Groups { key, mask, full, .. } = *groups;
    let tag_mask = mask.read(at::VLAN_TCI, 2) as u16;
    let tagged = key.read(at::VLAN_TCI, 2) as u16 & VLAN_PRESENT != 0;
    if (full || tag_mask != 0) && tagged {
        let tpid = key.read(at::VLAN_TPID, 2);
        let tpid = if tpid == 0 { u128::from(ether_type::VLAN) } else { tpid };
        groups.raw("eth_type", &[format!("{tpid:#06x}")]);
        let tci = key.read(at::VLAN_TCI, 2) as u16;
        let mut inside = Vec::new();
        for (name, value, bits, all) in
            [("vid", tci & 0xfff, tag_mask & 0xfff, 0xfff), ("pcp", tci >> 13, tag_mask >> 13, 7)]
        {
            let value = value & bits;
            inside.push(if bits == all {
                format!("{name}={value}")
            } else {
                format!("{name}={value}/{bits:#x}")
            });
        }
        groups.raw("vlan", &inside);
        let mut inner = Groups { key, mask, text: String::new(), full };
        network(&mut inner);
        groups.raw("encap", &[inner.text]);
    } else {
        network(groups);
    }
}

fn network(groups: &mut Groups<'_>) {
    let Groups { key, mask, full, .. } = *groups;
    let ether_type = key.read(at::ETH_TYPE, 2) as u16;
    groups.raw("eth_type", &[format!("{ether_type:#06x}")]);
    let frag = || {
        (full || mask.read(at::NW_FRAG, 1) != 0).then(|| {
            format!("frag={}", ["no", "first", "later", "later"][key.read(at::NW_FRAG, 1) as usize & 3])
        })
    };
    match ether_type {
        ether_type::IPV4 => {
            let list: [Part; 5] = [
                ("src", at::NW_SRC, 4, Form::Ipv4),
                ("dst", at::NW_DST, 4, Form::Ipv4),
                ("proto", at::NW_PROTO, 1, Form::Decimal),
                ("tos", at::NW_TOS, 1, Form::Hex),
                ("ttl", at::NW_TTL, 1, Form::Decimal),
            ];
            let mut inside = parts(key, mask, &list, full);
            inside.extend(frag());
            groups.raw("ipv4", &inside);
            transport(groups);
        }
        ether_type::IPV6 => {
            let list: [Part; 6] = [
                ("src", at::IPV6_SRC, 16, Form::Ipv6),
                ("dst", at::IPV6_DST, 16, Form::Ipv6),
                ("label", at::IPV6_LABEL, 4, Form::Hex),
                ("proto", at::NW_PROTO, 1, Form::Decimal),
                ("tclass", at::NW_TOS, 1, Form::Hex),
                ("hlimit", at::NW_TTL, 1, Form::Decimal),
            ];
            let mut inside = parts(key, mask, &list, full);
            inside.extend(frag());
            groups.raw("ipv6", &inside);
            transport(groups);
        }
        ether_type::ARP => groups.group(
            "arp",
            &[
                ("sip", at::NW_SRC, 4, Form::Ipv4),
                ("tip", at::NW_DST, 4, Form::Ipv4),
                ("op", at::NW_PROTO, 1, Form::Decimal),
                ("sha", at::ARP_SHA, 6, Form::Mac),
                ("tha", at::ARP_THA, 6, Form::Mac),
            ],
        ),
        _ => {}
    }
}

fn transport(groups: &mut Groups<'_>) {
    let ports: [Part; 2] = [("src", at::TP_SRC, 2, Form::Decimal), ("dst", at::TP_DST, 2, Form::Decimal)];
    let message: [Part; 2] =
        [("type", at::TP_SRC + 1, 1, Form::Decimal), ("code", at::TP_DST + 1, 1, Form::Decimal)];
    match groups.key.read(at::NW_PROTO, 1) as u8 {
        protocol::TCP => {
            groups.group("tcp", &ports);
            tcp_flags(groups);
        }
        protocol::UDP => groups.group("udp", &ports),
        protocol::SCTP => groups.group("sctp", &ports),
        protocol::ICMP => groups.group("icmp", &message),
        protocol::ICMPV6 => {
            groups.group("icmpv6", &message);
            // Only neighbour discovery has these.
            groups.full = false;
            groups.group(
                "nd",
                &[
                    ("target", at::ND_TARGET, 16, Form::Ipv6),
                    ("sll", at::ARP_SHA, 6, Form::Mac),
                    ("tll", at::ARP_THA, 6, Form::Mac),
                ],
            );
        }
        _ => {}
    }
}

/// The flags that are looked at, each with whether it is set (ovs-fields(7), `tcp_flags`).
fn tcp_flags(groups: &mut Groups<'_>) {
    const NAMES: [&str; 12] =
        ["fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr", "ns", "[200]", "[400]", "[800]"];
    let (flags, mask) = (groups.key.read(at::TCP_FLAGS, 2), groups.mask.read(at::TCP_FLAGS, 2));
    let shown = NAMES.iter().enumerate().filter(|(bit, _)| mask >> bit & 1 == 1);
    let text: String =
        shown.map(|(bit, name)| format!("{}{name}", if flags >> bit & 1 == 1 { '+' } else { '-' })).collect();
    if groups.full {
        groups.group("tcp_flags", &[("", at::TCP_FLAGS, 2, Form::Hex)]);
    } else if !text.is_empty() {
        groups.raw("tcp_flags", &[text]);
    }
}

/// The steps as text, for packets that look like `key`; none is `drop`.
#[must_use]
pub fn steps(steps: &[Step], key: &Key, ports: Ports<'_>) -> String {
    if steps.is_empty() {
        return "drop".into();
    }
    steps.iter().map(|one| step(one, key, ports)).collect::<Vec<_>>().join(",")
}

fn step(step: &Step, key: &Key, ports: Ports<'_>) -> String {
    match step {
        Step::Output(port) => ports(*port),
        Step::Truncated { port, length } => format!("trunc({length}),{}", ports(*port)),
        Step::Set(fields) => set(fields, key),
        Step::PushVlan { tpid, tci } => {
            let tpid = if *tpid == ether_type::VLAN { String::new() } else { format!("tpid={tpid:#06x},") };
            format!("push_vlan({tpid}vid={},pcp={})", tci & 0xfff, tci >> 13)
        }
        Step::PopVlan => "pop_vlan".into(),
        Step::Ct(action) => ct(action),
        Step::ClearCt => "ct_clear".into(),
        Step::Recirculate(id) => format!("recirc({id:#x})"),
    }
}

/// The headers that are written, outermost first.
fn set(fields: &Fields, key: &Key) -> String {
    const ETHERNET: &[Part] = &[("src", at::ETH_SRC, 6, Form::Mac), ("dst", at::ETH_DST, 6, Form::Mac)];
    const IPV4: &[Part] = &[
        ("src", at::NW_SRC, 4, Form::Ipv4),
        ("dst", at::NW_DST, 4, Form::Ipv4),
        ("tos", at::NW_TOS, 1, Form::Hex),
        ("ttl", at::NW_TTL, 1, Form::Decimal),
    ];
    const IPV6: &[Part] = &[
        ("src", at::IPV6_SRC, 16, Form::Ipv6),
        ("dst", at::IPV6_DST, 16, Form::Ipv6),
        ("label", at::IPV6_LABEL, 4, Form::Hex),
        ("tclass", at::NW_TOS, 1, Form::Hex),
        ("hlimit", at::NW_TTL, 1, Form::Decimal),
    ];
    const ARP: &[Part] = &[
        ("sip", at::NW_SRC, 4, Form::Ipv4),
        ("tip", at::NW_DST, 4, Form::Ipv4),
        ("op", at::NW_PROTO, 1, Form::Decimal),
        ("sha", at::ARP_SHA, 6, Form::Mac),
        ("tha", at::ARP_THA, 6, Form::Mac),
    ];
    const PORTS: &[Part] = &[("src", at::TP_SRC, 2, Form::Decimal), ("dst", at::TP_DST, 2, Form::Decimal)];
    const MESSAGE: &[Part] =
        &[("type", at::TP_SRC + 1, 1, Form::Decimal), ("code", at::TP_DST + 1, 1, Form::Decimal)];
    const NEIGHBOUR: &[Part] = &[
        ("target", at::ND_TARGET, 16, Form::Ipv6),
        ("sll", at::ARP_SHA, 6, Form::Mac),
        ("tll", at::ARP_THA, 6, Form::Mac),
    ];
    let mut groups: Vec<(&str, &[Part])> = vec![("eth", ETHERNET)];
    match key.read(at::ETH_TYPE, 2) as u16 {
        ether_type::ARP => groups.push(("arp", ARP)),
        kind @ (ether_type::IPV4 | ether_type::IPV6) => {
            groups.push(if kind == ether_type::IPV4 { ("ipv4", IPV4) } else { ("ipv6", IPV6) });
            match key.read(at::NW_PROTO, 1) as u8 {
                protocol::TCP => groups.push(("tcp", PORTS)),
                protocol::UDP => groups.push(("udp", PORTS)),
                protocol::SCTP => groups.push(("sctp", PORTS)),
                protocol::ICMP => groups.push(("icmp", MESSAGE)),
                protocol::ICMPV6 => groups.extend([("icmpv6", MESSAGE), ("nd", NEIGHBOUR)]),
                _ => {}
            }
        }
        _ => {}
    }
    let shown = groups.into_iter().filter_map(|(name, list)| {
        let inside = parts(&fields.value, &fields.mask, list, false);
        (!inside.is_empty()).then(|| format!("set({name}({}))", inside.join(",")))
    });
    shown.collect::<Vec<_>>().join(",")
}

fn ct(action: &CtAction) -> String {
    let mut inside = Vec::new();
    if action.commit {
        inside.push(if action.force { "force_commit" } else { "commit" }.to_owned());
    }
    if action.zone != 0 {
        inside.push(format!("zone={}", action.zone));
    }
    if let Some((value, mask)) = action.mark {
        inside.push(format!("mark={value:#x}/{mask:#x}"));
    }
    if let Some((value, mask)) = action.label {
        // Unlike the mark's, a mask of all ones is left out.
        let mask = if mask == u128::MAX { String::new() } else { format!("/{mask:#x}") };
        inside.push(format!("label={value:#x}{mask}"));
    }
    if let Some(helper) = action.helper {
        inside.push(format!("helper={}", helper.name()));
    }
    match &action.nat {
        None => {}
        Some(NatAction::Apply) => inside.push("nat".into()),
        Some(NatAction::Source(range)) => inside.push(nat("src", range)),
        Some(NatAction::Destination(range)) => inside.push(nat("dst", range)),
    }
    if inside.is_empty() { "ct".into() } else { format!("ct({})", inside.join(",")) }
}

fn nat(side: &str, range: &NatRange) -> String {
    let mut text = format!("nat({side}=");
    let v6 = matches!(range.addresses, Some(AddressRange::V6(..))) && range.ports.is_some();
    let (open, close) = if v6 { ("[", "]") } else { ("", "") };
    match range.addresses {
        Some(AddressRange::V4(min, max)) if min == max => text.push_str(&min.to_string()),
        Some(AddressRange::V4(min, max)) => text.push_str(&format!("{min}-{max}")),
        Some(AddressRange::V6(min, max)) if min == max => text.push_str(&format!("{open}{min}{close}")),
        Some(AddressRange::V6(min, max)) => text.push_str(&format!("{open}{min}{close}-{open}{max}{close}")),
        None => {}
    }
    if let Some((min, max)) = range.ports {
        let _ = write!(text, ":{min}");
        if max != min {
            let _ = write!(text, "-{max}");
        }
    }
    if range.persistent {
        text.push_str(",persistent");
    }
    match range.selection {
        PortSelection::Default => {}
        PortSelection::Hash => text.push_str(",hash"),
        PortSelection::Random => text.push_str(",random"),
    }
    text.push(')');
    text
}
