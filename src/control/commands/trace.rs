//! `ofproto/trace`: the way of a packet through a bridge's tables, without sending one.

use core::fmt::Write as _;

use serde::Serialize;
use weir_nat::{AddressRange, NatAction};
use weir_wire::Layers;

use super::{Call, CommandError, Daemon, datapath};
use crate::control::output::Output;
use crate::flow::flow::DEFAULT_PRIORITY;
use crate::flow::key::{Key, Mask, ORIGINAL_TUPLE, at};
use crate::flow::matching::{Match, VLAN_PRESENT, ether_type, protocol};
use crate::flow::value::CT_STATE_FLAGS;
use crate::flow::{Command, FlowMod, NoNames, PortNumber, print, render};
use crate::pipeline::recirculation::Contexts;
use crate::pipeline::trace::{Recirculation, Trace};
use crate::pipeline::translate::translate_traced;
use crate::pipeline::{BridgeView, PortId, Snapshot, dump, extract, group};

/// Recirculations that one trace follows.
const MAX_STAGES: usize = 64;
/// State of a packet behind a ct that nobody has said anything about.
const DEFAULT_NEXT: u8 = 0x21;

/// One way through the tables, between two recirculations.
#[derive(Serialize)]
struct Stage {
    flow: String,
    rules: String,
    final_flow: String,
    megaflow: String,
    datapath_actions: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    dropped: Option<&'static str>,
}

/// What was asked for.
struct Question {
    flow: String,
    packet: Option<Vec<u8>>,
    next: Vec<u8>,
}

pub(super) fn trace(call: &Call<'_>, daemon: &Daemon, out: &mut Output<'_>) -> Result<(), CommandError> {
    let question = question(call)?;
    let bridge = datapath::bridge(daemon, call.arg(0))?;
    let parsed = FlowMod::parse(&question.flow, Command::Dump, &bridge).map_err(|error| {
        CommandError::Failed(render("flow", 1, &question.flow, &error.span, &error.to_string()))
    })?;
    for warning in &parsed.warnings {
        out.warn(render("flow", 1, &question.flow, &warning.span, &warning.to_string()));
    }
    let (snapshot, now) = daemon.engine.snapshot()?;
    let Some(view) = snapshot.bridges.iter().flatten().find(|view| view.name == call.arg(0)) else {
        return Err(CommandError::Failed(format!("{}: unknown bridge", call.arg(0))));
    };
    let mut key = parsed.flow.matching.key;
    if let Some(packet) = &question.packet {
        let (port, state) = (key.read(at::IN_PORT, 4), key.words[at::CT_STATE / 8]);
        let mut found = Key::ZERO;
        extract::headers(packet, &Layers::parse(packet), &mut found);
        found.write(at::IN_PORT, 4, port);
        found.words[at::CT_STATE / 8] = state;
        key = found;
    } else if key.read(at::VLAN_TCI, 2) != 0 {
        key.write(at::VLAN_TPID, 2, 0x8100);
    }
    let mut run = Run {
        snapshot: &snapshot,
        bridge: view,
        now,
        contexts: Contexts::new(MAX_STAGES * 64),
        next: question.next.into_iter(),
    };
    let stages = run.follow(key);
    if call.json {
        let stages: Vec<&Stage> = stages.iter().map(|(_, stage)| stage).collect();
        return Ok(out.json(&stages)?);
    }
    for (heading, stage) in &stages {
        out.text(format_args!("{heading}{}", text(call.arg(0), stage)))?;
    }
    Ok(())
}

fn text(bridge: &str, stage: &Stage) -> String {
    let title = format!("bridge(\"{bridge}\")");
    let mut out = format!("Flow: {}\n\n{title}\n{}\n{}\n", stage.flow, "-".repeat(title.len()), stage.rules);
    let _ = write!(
        out,
        "Final flow: {}\nMegaflow: {}\nDatapath actions: {}\n",
        stage.final_flow, stage.megaflow, stage.datapath_actions
    );
    if let Some(cause) = stage.dropped.filter(|_| stage.datapath_actions == "drop") {
        let _ = writeln!(out, "The packet is dropped: {cause}.");
    }
    out
}

fn question(call: &Call<'_>) -> Result<Question, CommandError> {
    let failed = |text: String| CommandError::Failed(text);
    let mut words = call.args.iter().skip(1);
    let (mut plain, mut next) = (Vec::new(), Vec::new());
    while let Some(word) = words.next() {
        match word.as_str() {
            "--ct-next" => {
                let state =
                    words.next().ok_or_else(|| failed("Missing argument for option --ct-next".into()))?;
                next.push(ct_state(state)?);
            }
            // The packet that is made from the flow has what the flow says.
            "-generate" | "--generate" | "-names" | "--names" | "--no-names" | "--l7-len" => {}
            option if option.starts_with("--") => {
                return Err(failed(format!("{option}: invalid option")));
            }
            word => plain.push(word),
        }
    }
    let (flow, packet) = match plain.as_slice() {
        [flow] => (*flow, None),
        [flow, packet] => (*flow, Some(*packet)),
        _ => return Err(failed("give BRIDGE FLOW [PACKET]".into())),
    };
    let packet = match packet {
        Some(hex) => {
            let parsed = crate::flow::packet_out::packet(hex);
            Some(parsed.map_err(|error| failed(render("packet", 1, hex, &error.span, &error.to_string())))?)
        }
        None => None,
    };
    Ok(Question { flow: flow.to_owned(), packet, next })
}

fn ct_state(text: &str) -> Result<u8, CommandError> {
    text.split([',', '|']).try_fold(0, |state, name| {
        let bit = CT_STATE_FLAGS.iter().position(|flag| *flag == name.trim());
        let unknown = || CommandError::Failed(format!("{name}: unknown connection tracking state flag"));
        Ok(state | 1 << bit.ok_or_else(unknown)?)
    })
}

/// A trace under way.
struct Run<'a, N> {
    snapshot: &'a Snapshot,
    bridge: &'a BridgeView,
    now: u64,
    contexts: Contexts,
    /// What `--ct-next` gave.
    next: N,
}

impl<N: Iterator<Item = u8>> Run<'_, N> {
    /// Every stage with what is said in front of it, for a packet whose port is still a number.
    fn follow(&mut self, key: Key) -> Vec<(String, Stage)> {
        let (first, mut waiting) = self.stage(key);
        let mut stages = vec![(String::new(), first)];
        let mut done = 0;
        while done < waiting.len() && stages.len() < MAX_STAGES {
            let Some(recirculation) = waiting.get(done).cloned() else { break };
            done += 1;
            let (heading, key) = self.resume(&recirculation);
            let (mut stage, more) = self.stage(key);
            let table = self.contexts.find(recirculation.id).map_or(0, |context| context.table);
            stage.rules.insert_str(0, &format!("    thaw\n        Resuming from table {table}\n"));
            stages.push((heading, stage));
            waiting.extend(more);
        }
        stages
    }

    fn stage(&mut self, mut flow: Key) -> (Stage, Vec<Recirculation>) {
        if self.snapshot.wants_hash {
            group::stamp(&mut flow);
        }
        let number = flow.read(at::IN_PORT, 4);
        let port = PortNumber::try_from(number).ok().and_then(|number| self.bridge.port(number));
        let mut key = flow;
        key.write(at::IN_PORT, 4, u128::from(port.unwrap_or(PortId::MAX)));
        let mut trace = Trace::default();
        let recipe = translate_traced(self.snapshot, &mut self.contexts, &key, self.now, &mut trace);
        let recirculations = core::mem::take(&mut trace.recirculations);
        let mut last = trace.last;
        last.write(at::RECIRC_ID, 4, flow.read(at::RECIRC_ID, 4));
        let unchanged = last == flow;
        let stage = Stage {
            flow: flow_text(&flow),
            final_flow: if unchanged { "unchanged".into() } else { flow_text(&last) },
            megaflow: megaflow_text(&flow, &recipe.mask),
            datapath_actions: dump::steps(&recipe.steps, &key, &dump::number),
            dropped: recipe.drop.map(crate::pipeline::DropCause::help),
            rules: trace.text(),
        };
        (stage, recirculations)
    }

    /// The packet behind its ct, and what is said of that.
    fn resume(&mut self, from: &Recirculation) -> (String, Key) {
        let given = self.next.next();
        let state = given.unwrap_or(DEFAULT_NEXT);
        let flags = flags(state.into());
        let how = match given {
            Some(_) => format!("ct_state={flags}"),
            None => format!("default ct_state={} (use --ct-next to customize)", "trk|new"),
        };
        let mut key = from.flow;
        key.write(at::RECIRC_ID, 4, from.id.into());
        key.write(at::CT_STATE, 4, state.into());
        key.write(at::CT_ZONE, 2, from.action.zone.into());
        if let Some((value, mask)) = from.action.mark.filter(|_| from.action.commit) {
            let old = key.read(at::CT_MARK, 4);
            key.write(at::CT_MARK, 4, old & !u128::from(mask) | u128::from(value));
        }
        if let Some((value, mask)) = from.action.label.filter(|_| from.action.commit) {
            let old = key.read(at::CT_LABEL, 16);
            key.write(at::CT_LABEL, 16, old & !mask | value);
        }
        let line = "=".repeat(79);
        let mut heading = format!("\n{line}\nrecirc({:#x}) - resume conntrack with {how}\n", from.id);
        if let Some(nat) = &from.action.nat {
            let before = endpoints(&key);
            translate(&mut key, nat);
            let (before, after) = match nat {
                NatAction::Apply => (String::new(), String::new()),
                _ => (before, endpoints(&key)),
            };
            let _ = write!(
                heading,
                "Replacing src/dst IP/ports to simulate NAT:\n Initial flow: {before}\n Modified flow: {after}\n"
            );
        }
        let _ = write!(heading, "{line}\n\n");
        (heading, key)
    }
}

/// The first address and port of a range: what a connection would really get is its shard's to choose.
fn translate(key: &mut Key, nat: &NatAction) {
    let (range, v4, v6, port) = match nat {
        NatAction::Apply => return,
        NatAction::Source(range) => (range, at::NW_SRC, at::IPV6_SRC, at::TP_SRC),
        NatAction::Destination(range) => (range, at::NW_DST, at::IPV6_DST, at::TP_DST),
    };
    match range.addresses {
        Some(AddressRange::V4(first, _)) => key.write(v4, 4, u32::from(first).into()),
        Some(AddressRange::V6(first, _)) => key.write(v6, 16, u128::from(first)),
        None => {}
    }
    if let Some((first, _)) = range.ports {
        key.write(port, 2, first.into());
    }
}

fn ipv4(key: &Key, offset: usize) -> core::net::Ipv4Addr {
    u32::try_from(key.read(offset, 4)).unwrap_or(0).into()
}

fn ipv6(key: &Key, offset: usize) -> core::net::Ipv6Addr {
    key.read(offset, 16).into()
}

fn endpoints(key: &Key) -> String {
    let (src, dst) = (key.read(at::TP_SRC, 2), key.read(at::TP_DST, 2));
    if key.read(at::ETH_TYPE, 2) == u128::from(ether_type::IPV6) {
        let (from, to) = (ipv6(key, at::IPV6_SRC), ipv6(key, at::IPV6_DST));
        return format!("ipv6_src={from},tp_src={src},ipv6_dst={to},tp_dst={dst}");
    }
    format!("nw_src={},tp_src={src},nw_dst={},tp_dst={dst}", ipv4(key, at::NW_SRC), ipv4(key, at::NW_DST))
}

fn flags(state: u128) -> String {
    let set = CT_STATE_FLAGS.iter().enumerate().filter(|(bit, _)| state >> bit & 1 == 1);
    set.map(|(_, name)| *name).collect::<Vec<_>>().join("|")
}

fn mac(key: &Key, offset: usize) -> String {
    let [.., a, b, c, d, e, f] = key.read(offset, 6).to_be_bytes();
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

/// Every field of a packet, as ovs-appctl shows it.
fn flow_text(key: &Key) -> String {
    let number = |offset, length| key.read(offset, length);
    let mut parts: Vec<String> = Vec::new();
    let recirculated = number(at::RECIRC_ID, 4) != 0;
    if recirculated {
        parts.push(format!("recirc_id={:#x}", number(at::RECIRC_ID, 4)));
    }
    if number(at::DP_HASH, 4) != 0 {
        parts.push(format!("dp_hash={:#x}", number(at::DP_HASH, 4)));
    }
    if number(at::CT_STATE, 4) != 0 {
        parts.push(format!("ct_state={}", flags(number(at::CT_STATE, 4))));
    }
    for (name, offset, length) in [("ct_mark", at::CT_MARK, 4), ("ct_label", at::CT_LABEL, 16)] {
        if number(offset, length) != 0 {
            parts.push(format!("{name}={:#x}", number(offset, length)));
        }
    }
    if number(at::CT_ZONE, 2) != 0 {
        parts.push(format!("ct_zone={}", number(at::CT_ZONE, 2)));
    }
    if recirculated {
        parts.push("eth".into());
    }
    let mut kind = Match::ANY;
    let ip = matches!(number(at::ETH_TYPE, 2) as u16, ether_type::IPV4 | ether_type::IPV6);
    for (offset, length) in [(at::ETH_TYPE, 2), (at::NW_PROTO, 1)] {
        if offset == at::ETH_TYPE || ip && number(at::NW_FRAG, 1) & 2 == 0 || ip {
            kind.key.write(offset, length, number(offset, length));
            kind.mask.write(offset, length, u128::MAX);
        }
    }
    let named = print::matching(&kind, DEFAULT_PRIORITY, &NoNames);
    // The protocol by its number stands further behind, and so does a type.
    let (word, rest) =
        named.split_once(',').map_or((named.as_str(), None), |(word, rest)| (word, Some(rest)));
    if !word.contains('=') {
        parts.push(word.into());
    }
    for register in 0..16 {
        let value = number(at::REG0 + 4 * register, 4);
        if value != 0 {
            parts.push(format!("reg{register}={value:#x}"));
        }
    }
    if number(at::METADATA, 8) != 0 {
        parts.push(format!("metadata={:#x}", number(at::METADATA, 8)));
    }
    let port = PortNumber::try_from(number(at::IN_PORT, 4)).unwrap_or(PortNumber::MAX);
    parts.push(if port == 0 { "in_port=ANY".into() } else { format!("in_port={port}") });
    let tci = u16::try_from(number(at::VLAN_TCI, 2)).unwrap_or(0);
    parts.push(if tci & VLAN_PRESENT == 0 {
        "vlan_tci=0x0000".into()
    } else {
        format!(
            "dl_vlan={},dl_vlan_pcp={},vlan_tci1={:#06x}",
            tci & 0xfff,
            tci >> 13,
            number(at::VLAN2_TCI, 2)
        )
    });
    parts.push(format!("dl_src={},dl_dst={}", mac(key, at::ETH_SRC), mac(key, at::ETH_DST)));
    if word.contains('=') {
        parts.push(format!("dl_type={:#06x}", number(at::ETH_TYPE, 2)));
    }
    network_text(key, rest, &mut parts);
    parts.join(",")
}

fn network_text(key: &Key, protocol_by_number: Option<&str>, parts: &mut Vec<String>) {
    let number = |offset, length| key.read(offset, length);
    match number(at::ETH_TYPE, 2) as u16 {
        ether_type::ARP | ether_type::RARP => {
            parts.push(format!(
                "arp_spa={},arp_tpa={},arp_op={},arp_sha={},arp_tha={}",
                ipv4(key, at::NW_SRC),
                ipv4(key, at::NW_DST),
                number(at::NW_PROTO, 1),
                mac(key, at::ARP_SHA),
                mac(key, at::ARP_THA)
            ));
            return;
        }
        ether_type::IPV4 => {
            parts.push(format!("nw_src={},nw_dst={}", ipv4(key, at::NW_SRC), ipv4(key, at::NW_DST)));
        }
        ether_type::IPV6 => parts.push(format!(
            "ipv6_src={},ipv6_dst={},ipv6_label={:#07x}",
            ipv6(key, at::IPV6_SRC),
            ipv6(key, at::IPV6_DST),
            number(at::IPV6_LABEL, 4)
        )),
        _ => return,
    }
    parts.extend(protocol_by_number.map(str::to_owned));
    let (tos, ttl) = (number(at::NW_TOS, 1), number(at::NW_TTL, 1));
    let fragment = ["no", "first", "later", "later"].get(number(at::NW_FRAG, 1) as usize & 3).copied();
    parts.push(format!(
        "nw_tos={},nw_ecn={},nw_ttl={ttl},nw_frag={}",
        tos & 0xfc,
        tos & 3,
        fragment.unwrap_or("no")
    ));
    if number(at::NW_FRAG, 1) & 2 != 0 {
        return;
    }
    let (src, dst) = (number(at::TP_SRC, 2), number(at::TP_DST, 2));
    match number(at::NW_PROTO, 1) as u8 {
        protocol::TCP => {
            parts.push(format!("tp_src={src},tp_dst={dst}"));
            let bits = number(at::TCP_FLAGS, 2);
            let names =
                crate::flow::value::TCP_FLAGS.iter().enumerate().filter(|(bit, _)| bits >> bit & 1 == 1);
            let names: Vec<&str> = names.map(|(_, name)| *name).collect();
            parts.push(format!("tcp_flags={}", if names.is_empty() { "0".into() } else { names.join("|") }));
        }
        protocol::UDP | protocol::SCTP => parts.push(format!("tp_src={src},tp_dst={dst}")),
        protocol::ICMP | protocol::ICMPV6 => parts.push(format!("icmp_type={src},icmp_code={dst}")),
        _ => {}
    }
}

/// What packets have to have in common with this one to be treated alike.
fn megaflow_text(flow: &Key, mask: &Mask) -> String {
    let (mut state, mut rest) = (Match::ANY, Match { key: *flow, mask: *mask });
    for (offset, length) in
        [(at::RECIRC_ID, 4), (at::PACKET_TYPE, 4), (at::DP_HASH, 4), (at::VLAN_TPID, 2), (at::VLAN2_TCI, 2)]
    {
        rest.mask.write(offset, length, 0);
    }
    if flow.read(at::VLAN_TCI, 2) == 0 {
        rest.mask.write(at::VLAN_TCI, 2, 0);
    }
    let own = [(at::CT_STATE, 4), (at::CT_ZONE, 2), (at::CT_MARK, 4), (at::CT_LABEL, 16)];
    for (offset, length) in own.into_iter().chain(ORIGINAL_TUPLE) {
        let bits = rest.mask.read(offset, length);
        state.mask.write(offset, length, bits);
        state.key.write(offset, length, flow.read(offset, length) & bits);
        rest.mask.write(offset, length, 0);
    }
    rest.key = flow.masked(&rest.mask);
    let id = flow.read(at::RECIRC_ID, 4);
    let mut parts = vec![if id == 0 { "recirc_id=0".into() } else { format!("recirc_id={id:#x}") }];
    let bits = mask.read(at::DP_HASH, 4);
    if bits != 0 {
        parts.push(format!("dp_hash={:#x}/{bits:#x}", flow.read(at::DP_HASH, 4) & bits));
    }
    parts.push(print::matching(&state, DEFAULT_PRIORITY, &NoNames));
    parts.push("eth".into());
    parts.push(print::matching(&rest, DEFAULT_PRIORITY, &NoNames));
    parts.retain(|part| !part.is_empty());
    parts.join(",")
}
