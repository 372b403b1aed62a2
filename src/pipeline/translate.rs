//! A miss: the packet's key goes through the flow tables, the actions it meets become datapath steps, and
//! every bit that was looked at is noted, so that the result serves all packets that agree in those bits.
//! Runs on the lcore that had the miss, over an immutable snapshot; writes nothing but the learning table.

mod group;
mod headers;

use std::sync::Arc;

use weir_shard::CtAction;
use weir_wire::numbers::ether_type;

use super::fdb::Station;
use super::inject::Injection;
use super::megaflow::{Learned, Recipe};
use super::recirculation::{Context, Contexts};
use super::step::Step;
use super::trace::{Kind, Recirculation, Trace};
use super::{BridgeView, DropCause, Snapshot};
use crate::flow::flow::DEFAULT_PRIORITY;
use crate::flow::key::{DATAPATH_WORDS, Key, Mask, ORIGINAL_TUPLE, WORDS, at};
use crate::flow::port::NoNames;
use crate::flow::port::{self, PortNumber};
use crate::flow::rule::{Rule, RuleStats};
use crate::flow::{Action, CtSpec, Subfield, Zone, print};

/// Resubmits to the same or an earlier table inside each other, and resubmits in all, that a packet may take
/// (ovs-actions(7), "Error Handling").
const MAX_DEPTH: u32 = 64;
const MAX_RESUBMITS: u32 = 4096;
/// Lists of actions inside each other, those in ever later tables included: each costs stack.
const MAX_NESTING: u32 = 320;
/// Values that `push` may leave on the stack.
const MAX_STACK: usize = 1024;
/// Values that a recirculated packet may take along: they may come from the packet, and each variety of them is a
/// context of its own.
const MAX_STACK_KEPT: usize = 32;
/// Steps that one flow may come to; a table that asks for more is a loop gone wrong.
const MAX_STEPS: usize = 4096;

/// Translates the packet with this datapath key. The contexts that the recipe names are held for it.
pub fn translate(snapshot: &Snapshot, contexts: &mut Contexts, key: &Key, now: u64) -> Recipe {
    run(snapshot, contexts, key, now, None)
}

/// As [`translate`], and writes down what it does. Learns nothing.
pub fn translate_traced(
    snapshot: &Snapshot,
    contexts: &mut Contexts,
    key: &Key,
    now: u64,
    trace: &mut Trace,
) -> Recipe {
    run(snapshot, contexts, key, now, Some(trace))
}

fn run(
    snapshot: &Snapshot,
    contexts: &mut Contexts,
    key: &Key,
    now: u64,
    trace: Option<&mut Trace>,
) -> Recipe {
    let recirculation = key.read(at::RECIRC_ID, 4) as u32;
    let context = contexts.find(recirculation).cloned();
    let start = match &context {
        Some(context) => Some((context.bridge, context.in_port, context.table)),
        None if recirculation == 0 => {
            snapshot.port(key.read(at::IN_PORT, 4) as u32).map(|port| (port.bridge, port.number, 0))
        }
        None => None,
    };
    let mut seen = Key::ZERO;
    for (offset, length) in [(at::IN_PORT, 4), (at::RECIRC_ID, 4), (at::ETH_TYPE, 2), (at::PACKET_TYPE, 4)] {
        seen.write(offset, length, u128::MAX);
    }
    let ip = matches!(key.read(at::ETH_TYPE, 2) as u16, ether_type::IPV4 | ether_type::IPV6);
    if ip {
        seen.write(at::NW_FRAG, 1, 0x3);
    }
    // The id stays this context's while a megaflow has it in its key, whatever becomes of the packet.
    let held = if context.is_some() { vec![recirculation] } else { Vec::new() };
    for &id in &held {
        contexts.retain(id);
    }
    let bridge = start.and_then(|(index, ..)| snapshot.bridge(index));
    let (Some((bridge_index, in_port, table)), Some(bridge)) = (start, bridge) else {
        return Recipe::dropping(seen, held, DropCause::UnknownPort);
    };
    let mut flow = *key;
    flow.write(at::IN_PORT, 4, u128::from(in_port));
    flow.write(at::RECIRC_ID, 4, 0);
    if let Some(context) = &context {
        flow.words[at::METADATA / 8] = context.metadata;
        flow.words[at::REG0 / 8..at::REG0 / 8 + 8].copy_from_slice(&context.registers);
    }
    let stack = context.map_or_else(Vec::new, |context| context.stack.into());
    let mut translator = Translator::new(bridge, bridge_index, contexts, now, flow);
    (translator.seen, translator.held, translator.stack) = (seen, held, stack);
    translator.trace = trace;
    if let Some(rule) = translator.search(table) {
        translator.enter(table, &rule);
    } else {
        translator.note_miss(table);
    }
    translator.finish()
}

/// Translates `actions` for one packet that the control side sends, with this datapath key: nothing was looked up for
/// it, and its recipe is for it alone.
pub fn translate_actions(
    snapshot: &Snapshot,
    contexts: &mut Contexts,
    key: &Key,
    now: u64,
    injection: &Injection,
) -> Recipe {
    let named = |bridge: &Option<Arc<BridgeView>>| {
        bridge.as_ref().is_some_and(|bridge| bridge.name == injection.bridge)
    };
    let index = snapshot.bridges.iter().position(named);
    let Some((index, bridge)) = index.and_then(|index| Some((index, snapshot.bridge(index)?))) else {
        return Recipe::dropping(Key::ZERO, Vec::new(), DropCause::UnknownPort);
    };
    let mut flow = *key;
    flow.write(at::IN_PORT, 4, u128::from(injection.in_port));
    let given = injection.fields.key;
    for word in DATAPATH_WORDS..WORDS {
        flow.words[word] = given.words[word];
    }
    let mut translator = Translator::new(bridge, index, contexts, now, flow);
    translator.list(&injection.actions);
    translator.finish()
}

impl Recipe {
    fn dropping(mask: Mask, held: Vec<u32>, cause: DropCause) -> Self {
        Self {
            mask,
            steps: Box::default(),
            rules: Box::default(),
            learned: Box::default(),
            contexts: held.into(),
            drop: Some(cause),
        }
    }
}

/// A rule as a trace shows it.
fn headline(table: u8, rule: &Rule) -> String {
    let matching = print::matching(&rule.matching, DEFAULT_PRIORITY, &NoNames);
    let gap = if matching.is_empty() { "" } else { ", " };
    let cookie = if rule.cookie == 0 { String::new() } else { format!(", cookie {:#x}", rule.cookie) };
    format!("{table:>2}. {matching}{gap}priority {}{cookie}", rule.priority)
}

/// Whether the list of actions goes on.
#[derive(PartialEq, Eq)]
enum Then {
    Next,
    /// The rest of this list is skipped.
    EndList,
    /// The packet is done with.
    Exit,
}

struct Translator<'a> {
    bridge: &'a Arc<BridgeView>,
    bridge_index: usize,
    contexts: &'a mut Contexts,
    now: u64,
    /// The packet as the steps so far leave it.
    base: Key,
    /// The packet as the actions so far want it.
    flow: Key,
    /// Bits of `flow` that were written since `base` was brought up to it.
    written: Mask,
    /// Bits of `flow` that were written at all.
    changed: Mask,
    seen: Mask,
    steps: Vec<Step>,
    rules: Vec<Arc<RuleStats>>,
    learned: Vec<Learned>,
    held: Vec<u32>,
    stack: Vec<u128>,
    /// The table whose actions are at work.
    table: u8,
    depth: u32,
    nesting: u32,
    resubmits: u32,
    /// The likeliest reason, should the packet go nowhere.
    cause: Option<DropCause>,
    /// Translation broke off: the packet is dropped whatever came before.
    failed: Option<DropCause>,
    /// Somebody wants to know.
    trace: Option<&'a mut Trace>,
}

impl<'a> Translator<'a> {
    fn new(
        bridge: &'a Arc<BridgeView>,
        bridge_index: usize,
        contexts: &'a mut Contexts,
        now: u64,
        flow: Key,
    ) -> Self {
        Self {
            bridge,
            bridge_index,
            contexts,
            now,
            base: flow,
            flow,
            written: Key::ZERO,
            changed: Key::ZERO,
            seen: Key::ZERO,
            steps: Vec::new(),
            rules: Vec::new(),
            learned: Vec::new(),
            held: Vec::new(),
            stack: Vec::new(),
            table: 0,
            depth: 0,
            nesting: 0,
            resubmits: 0,
            cause: None,
            failed: None,
            trace: None,
        }
    }
}

impl Translator<'_> {
    /// Writes something down if somebody wants to know.
    fn note(&mut self, kind: Kind, text: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.line(kind, text());
        }
    }

    fn note_begin(&mut self, kind: Kind, text: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.begin(kind, text());
        }
    }

    fn note_end(&mut self) {
        if let Some(trace) = &mut self.trace {
            trace.end();
        }
    }

    fn note_miss(&mut self, table: u8) {
        if let Some(trace) = &mut self.trace {
            trace.begin(Kind::Table, format!("{table:>2}. No match."));
            trace.line(Kind::Action, "drop");
            trace.end();
        }
    }

    fn finish(mut self) -> Recipe {
        if let Some(trace) = &mut self.trace {
            trace.last = self.flow;
        }
        if self.failed.is_some() {
            self.steps.clear();
        }
        let forwards = self
            .steps
            .iter()
            .any(|step| matches!(step, Step::Output(_) | Step::Truncated { .. } | Step::Recirculate(_)));
        let drop = if forwards { None } else { self.failed.or(self.cause).or(Some(DropCause::Action)) };
        if !forwards && !self.steps.iter().any(|step| matches!(step, Step::Ct(_))) {
            self.steps.clear();
        }
        for word in DATAPATH_WORDS..WORDS {
            self.seen.words[word] = 0;
        }
        Recipe {
            mask: self.seen,
            steps: self.steps.into(),
            rules: self.rules.into(),
            learned: self.learned.into(),
            contexts: self.held.into(),
            drop,
        }
    }

    fn fail(&mut self, cause: DropCause) -> Then {
        self.failed.get_or_insert(cause);
        Then::Exit
    }

    fn look(&mut self, offset: usize, length: usize) -> u128 {
        self.seen.write(offset, length, u128::MAX);
        self.flow.read(offset, length)
    }

    /// The rule for the packet as it is now.
    fn search(&mut self, table: u8) -> Option<Arc<Rule>> {
        let bridge = self.bridge;
        let found = bridge.tables.get(usize::from(table)).and_then(Option::as_ref).and_then(|classifier| {
            self.rules.push(Arc::clone(classifier.lookups()));
            let rule = classifier.lookup(&self.flow, &mut self.seen)?;
            self.rules.push(Arc::clone(classifier.matched()));
            self.rules.push(Arc::clone(&rule.stats));
            Some(Arc::clone(rule))
        });
        if found.is_none() {
            self.cause = Some(DropCause::TableMiss);
        }
        found
    }

    /// Does what a rule of `table` says.
    fn enter(&mut self, table: u8, rule: &Rule) -> Then {
        let from = core::mem::replace(&mut self.table, table);
        let deeper = u32::from(table <= from);
        self.depth += deeper;
        self.nesting += 1;
        self.note_begin(Kind::Table, || headline(table, rule));
        let then = self.list(&rule.actions);
        self.note_end();
        self.nesting -= 1;
        self.depth -= deeper;
        self.table = from;
        then
    }

    fn list(&mut self, actions: &[Action]) -> Then {
        if actions.is_empty() {
            self.note(Kind::Action, || "drop".into());
        }
        for action in actions {
            self.note(Kind::Action, || print::action(action, &NoNames));
            if self.steps.len() > MAX_STEPS {
                return self.fail(DropCause::TooManyResubmits);
            }
            match self.action(action) {
                Then::Next => {}
                Then::EndList => return Then::Next,
                Then::Exit => return Then::Exit,
            }
        }
        Then::Next
    }

    fn action(&mut self, action: &Action) -> Then {
        if let Some(assignment) = action.assignment() {
            self.assign_constant(action, assignment.field, assignment.value, assignment.mask);
            return Then::Next;
        }
        match action {
            Action::Output(number) => self.output(*number, None),
            Action::OutputTruncated { port: port::IN_PORT, max_len } => {
                self.send(self.in_port(), Some(*max_len))
            }
            Action::OutputTruncated { port, max_len } => self.output(*port, Some(*max_len)),
            Action::OutputField(subfield) => {
                let number = self.read(subfield);
                match PortNumber::try_from(number) {
                    Ok(port::IN_PORT) => self.send(self.in_port(), None),
                    Ok(port::NORMAL) => self.normal(),
                    Ok(port::FLOOD | port::ALL) => self.flood(),
                    Ok(port::CONTROLLER) => self.cause = Some(DropCause::NoController),
                    Ok(number) => self.output(number, None),
                    Err(_) => self.cause = Some(DropCause::NoSuchPort),
                }
            }
            Action::Normal => self.normal(),
            Action::Flood | Action::All => self.flood(),
            Action::InPort => self.send(self.in_port(), None),
            Action::Local => self.output(port::LOCAL, None),
            Action::Resubmit { port, table, ct } => return self.resubmit(*port, *table, *ct),
            Action::GotoTable(table) => {
                return match self.resubmit(None, Some(*table), false) {
                    Then::Exit => Then::Exit,
                    Then::Next | Then::EndList => Then::EndList,
                };
            }
            Action::Group(id) => return self.group(*id),
            Action::Ct(spec) => return self.ct(spec),
            Action::CtClear => {
                self.steps.push(Step::ClearCt);
                self.forget_connection();
            }
            Action::Move { src, dst } => {
                let value = self.read(src);
                self.assign(dst.field, value << dst.start, dst.mask());
            }
            Action::Push(subfield) => {
                if self.stack.len() >= MAX_STACK {
                    return self.fail(DropCause::TooManyResubmits);
                }
                let value = self.read(subfield);
                self.stack.push(value);
            }
            Action::Pop(subfield) => {
                if let Some(value) = self.stack.pop() {
                    self.assign(subfield.field, value << subfield.start, subfield.mask());
                }
            }
            Action::PushVlan(tpid) => return self.push_vlan(*tpid),
            Action::StripVlan => self.pop_vlan(),
            Action::DecTtl(_) => return self.decrement_ttl(),
            Action::Exit => return Then::Exit,
            Action::ModVlanVid(id) => self.modify_tag(*id, 0x0fff),
            Action::ModVlanPcp(priority) => self.modify_tag(u16::from(*priority) << 13, 0xe000),
            // weir speaks to no controller: a packet that only one would get is dropped, and counted as such.
            Action::Controller(_) => self.cause = Some(DropCause::NoController),
            // Ports have one queue for each lcore and no quality of service to choose between them; a note says
            // something to people only. None of them has an effect, as in a bridge without QoS.
            Action::SetQueue(_) | Action::PopQueue | Action::Note(_) => {}
            // Constants, which `assignment` has taken care of.
            Action::SetField { .. }
            | Action::Load { .. }
            | Action::ModDlSrc(_)
            | Action::ModDlDst(_)
            | Action::ModNwSrc(_)
            | Action::ModNwDst(_)
            | Action::ModNwTos(_)
            | Action::ModNwEcn(_)
            | Action::ModNwTtl(_)
            | Action::ModTpSrc(_)
            | Action::ModTpDst(_)
            | Action::WriteMetadata { .. } => {}
        }
        Then::Next
    }

    fn see(&mut self, subfield: &Subfield) {
        subfield.field.write(&mut self.seen, u128::MAX, subfield.mask());
    }

    fn read(&mut self, subfield: &Subfield) -> u128 {
        self.see(subfield);
        subfield.read(&self.flow)
    }

    fn in_port(&self) -> PortNumber {
        self.flow.read(at::IN_PORT, 4) as PortNumber
    }

    // Output.

    fn output(&mut self, number: PortNumber, cut: Option<u32>) {
        if number == self.in_port() {
            // Only in_port sends a packet back (ovs-actions(7), `output`).
            self.note(Kind::Warning, || "skipping output to input port".into());
            self.cause.get_or_insert(DropCause::Action);
            return;
        }
        self.send(number, cut);
    }

    /// To a port; with `cut`, at most so many bytes of the packet.
    fn send(&mut self, number: PortNumber, cut: Option<u32>) {
        match self.bridge.port(number) {
            Some(id) => {
                self.commit();
                self.steps.push(match cut {
                    Some(length) => Step::Truncated { port: id, length },
                    None => Step::Output(id),
                });
            }
            None => {
                self.cause = Some(DropCause::NoSuchPort);
                self.note(Kind::Warning, || "Nonexistent output port".into());
            }
        }
    }

    fn flood(&mut self) {
        let bridge = self.bridge;
        let in_port = self.in_port();
        self.commit();
        for (number, id) in &bridge.ports {
            if *number != in_port {
                self.steps.push(Step::Output(*id));
            }
        }
    }

    fn normal(&mut self) {
        const MULTICAST: u64 = 1 << 40;
        // IEEE 802.1D's reserved block, which bridges do not forward.
        const RESERVED: u64 = 0x0180_c200_0000;
        let source = self.look(at::ETH_SRC, 6) as u64;
        let destination = self.look(at::ETH_DST, 6) as u64;
        self.look_at_tags();
        let vlan = self.flow.read(at::VLAN_TCI, 2) as u16 & 0x0fff;
        if destination & !0xf == RESERVED {
            self.cause = Some(DropCause::Normal);
            return;
        }
        let source = Station { vlan, mac: source };
        let destination = Station { vlan, mac: destination };
        let in_port = self.in_port();
        let fdb = &self.bridge.fdb;
        if source.mac & MULTICAST == 0 && self.bridge.port(in_port).is_some() && self.trace.is_none() {
            fdb.learn(source, in_port, self.now);
        }
        let version = fdb.version(source, destination);
        let port = if destination.mac & MULTICAST == 0 { fdb.port(destination) } else { None };
        self.learned.push(Learned { fdb: Arc::clone(fdb), source, destination, version });
        let port = port.filter(|number| self.bridge.port(*number).is_some());
        self.note(Kind::Detail, || match port {
            _ if destination.mac & MULTICAST != 0 => "multicast packet, flooding".into(),
            Some(_) => "forwarding to learned port".into(),
            None => "no learned MAC for destination, flooding".into(),
        });
        match port {
            Some(number) if number == in_port => self.cause = Some(DropCause::Normal),
            Some(number) => self.send(number, None),
            None => self.flood(),
        }
    }

    // Tables.

    /// Port and tuple are changed for the search only; the actions found see the packet as it was.
    fn resubmit(&mut self, port: Option<PortNumber>, table: Option<u8>, ct: bool) -> Then {
        let table = table.unwrap_or(self.table);
        self.resubmits += 1;
        // The first table counts as entered once; and as in Open vSwitch, who is too deep goes to no later table either.
        let too_deep = self.depth > MAX_DEPTH;
        if too_deep || self.resubmits > MAX_RESUBMITS || self.nesting >= MAX_NESTING {
            return self.fail(DropCause::TooManyResubmits);
        }
        let own = self.flow.read(at::IN_PORT, 4);
        if let Some(port) = port
            && port != port::IN_PORT
        {
            self.flow.write(at::IN_PORT, 4, u128::from(port));
        }
        let swapped = ct && self.swap_tuple();
        let rule = self.search(table);
        if swapped {
            self.swap_tuple();
        }
        self.flow.write(at::IN_PORT, 4, own);
        let Some(rule) = rule else {
            self.note_miss(table);
            return Then::Next;
        };
        self.enter(table, &rule)
    }

    /// `resubmit(...,ct)`: looks up with the connection's original tuple in place of the packet's (and back).
    fn swap_tuple(&mut self) -> bool {
        let state = self.look(at::CT_STATE, 4) as u8;
        let protocol = self.look(at::CT_NW_PROTO, 1);
        if !weir_shard::CtState(state).has(weir_shard::CtState::TRK) || protocol == 0 {
            return false;
        }
        let v6 = self.flow.read(at::ETH_TYPE, 2) as u16 == ether_type::IPV6;
        let addresses: [(usize, usize, usize); 2] = if v6 {
            [(at::IPV6_SRC, at::CT_IPV6_SRC, 16), (at::IPV6_DST, at::CT_IPV6_DST, 16)]
        } else {
            [(at::NW_SRC, at::CT_NW_SRC, 4), (at::NW_DST, at::CT_NW_DST, 4)]
        };
        let rest = [
            (at::NW_PROTO, at::CT_NW_PROTO, 1),
            (at::TP_SRC, at::CT_TP_SRC, 2),
            (at::TP_DST, at::CT_TP_DST, 2),
        ];
        for (own, original, length) in addresses.into_iter().chain(rest) {
            let (a, b) = (self.look(own, length), self.look(original, length));
            self.flow.write(own, length, b);
            self.flow.write(original, length, a);
        }
        true
    }

    // Connection tracking.

    fn ct(&mut self, spec: &CtSpec) -> Then {
        self.commit();
        let zone = match &spec.zone {
            Zone::Immediate(zone) => *zone,
            Zone::Field(subfield) => self.read(subfield) as u16,
        };
        let (mark, label) = self.exec(&spec.exec);
        let action = Box::new(CtAction {
            zone,
            commit: spec.commit,
            force: spec.force,
            mark: (mark.1 != 0).then_some((mark.0 as u32, mark.1 as u32)),
            label: (label.1 != 0).then_some(label),
            helper: spec.helper,
            nat: spec.nat,
        });
        if self.trace.is_some() {
            print::inside_ct(spec, &NoNames).into_iter().for_each(|text| self.note(Kind::Action, || text));
        }
        self.steps.push(Step::Ct(action.clone()));
        if let Some(table) = spec.table {
            if self.stack.len() > MAX_STACK_KEPT {
                return self.fail(DropCause::RecirculationContexts);
            }
            let mut registers = [0; 8];
            registers.copy_from_slice(&self.flow.words[at::REG0 / 8..at::REG0 / 8 + 8]);
            let context = Context {
                bridge: self.bridge_index,
                table,
                metadata: self.flow.words[at::METADATA / 8],
                registers,
                in_port: self.in_port(),
                stack: self.stack.as_slice().into(),
            };
            let Some(id) = self.contexts.acquire(&context) else {
                return self.fail(DropCause::RecirculationContexts);
            };
            self.held.push(id);
            self.steps.push(Step::Recirculate(id));
            self.note(Kind::Detail, || {
                format!("A clone of the packet is forked to recirculate. The forked pipeline will be resumed at table {table}.")
            });
            let flow = self.flow;
            if let Some(trace) = &mut self.trace {
                trace.recirculations.push(Recirculation { id, flow, action: *action });
            }
        }
        self.note(Kind::Detail, || {
            "Sets the packet to an untracked state, and clears all the conntrack fields.".into()
        });
        // What follows sees the packet untracked (ovs-actions(7), `ct`).
        self.forget_connection();
        Then::Next
    }

    fn forget_connection(&mut self) {
        let own = [(at::CT_STATE, 4), (at::CT_ZONE, 2), (at::CT_MARK, 4), (at::CT_LABEL, 16)];
        for (offset, length) in own.into_iter().chain(ORIGINAL_TUPLE) {
            self.flow.write(offset, length, 0);
        }
    }

    /// The mark and label that `exec(...)` sets, each as value and mask.
    fn exec(&mut self, actions: &[Action]) -> ((u128, u128), (u128, u128)) {
        let (mut value, mut mask) = (self.flow, Key::ZERO);
        for action in actions {
            if let Some(assignment) = action.assignment() {
                assignment.field.write(&mut value, assignment.value, assignment.mask);
                assignment.field.write(&mut mask, u128::MAX, assignment.mask);
            } else if let Action::Move { src, dst } = action {
                self.see(src);
                let moved = src.read(&value);
                dst.write(&mut value, moved);
                dst.field.write(&mut mask, u128::MAX, dst.mask());
            }
        }
        let masked = |offset, length| {
            let mask = mask.read(offset, length);
            (value.read(offset, length) & mask, mask)
        };
        (masked(at::CT_MARK, 4), masked(at::CT_LABEL, 16))
    }
}
