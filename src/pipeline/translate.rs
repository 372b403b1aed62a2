//! A miss: the packet's key goes through the flow tables, the actions it meets become datapath steps, and
//! every bit that was looked at is noted, so that the result serves all packets that agree in those bits.
//! Runs on the lcore that had the miss, over an immutable snapshot; writes nothing but the learning table.

use std::sync::Arc;

use arrayvec::ArrayVec;
use weir_shard::CtAction;
use weir_wire::numbers::ether_type;

use super::extract::VLAN_PRESENT;
use super::fdb::Station;
use super::megaflow::{Learned, Recipe};
use super::recirculation::{Context, Contexts};
use super::step::{Fields, Step};
use super::{BridgeView, DropCause, Snapshot};
use crate::flow::key::{DATAPATH_WORDS, Key, Mask, WORDS, at};
use crate::flow::port::{self, PortNumber};
use crate::flow::rule::RuleStats;
use crate::flow::{Action, CtSpec, Field, Subfield, Zone};

/// Resubmits a packet may take (ovs-actions(7), `resubmit`): 64 deep, not counting those to a later table, and 4096
/// in total.
const MAX_DEPTH: u32 = 64;
const MAX_RESUBMITS: u32 = 4096;
/// Resubmits of any kind inside one another: all tables in a row, and again half as many. The lcore's stack holds them.
const MAX_NESTING: u32 = 384;
/// Values that `push` may leave on the stack.
const MAX_STACK: usize = 1024;
/// Steps that one flow may come to; a table that asks for more is a loop gone wrong.
const MAX_STEPS: usize = 4096;

/// Translates the packet with this datapath key. The contexts that the recipe names are held for it.
pub fn translate(snapshot: &Snapshot, contexts: &mut Contexts, key: &Key, now: u64) -> Recipe {
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
    let Some((bridge_index, in_port, table)) = start else {
        return Recipe::dropping(seen, DropCause::UnknownPort);
    };
    let Some(bridge) = snapshot.bridge(bridge_index) else {
        return Recipe::dropping(seen, DropCause::UnknownPort);
    };
    let mut flow = *key;
    flow.write(at::IN_PORT, 4, u128::from(in_port));
    flow.write(at::RECIRC_ID, 4, 0);
    if let Some(context) = &context {
        flow.words[at::METADATA / 8] = context.metadata;
        flow.words[at::REG0 / 8..at::REG0 / 8 + 8].copy_from_slice(&context.registers);
    }
    let mut translator = Translator {
        bridge,
        bridge_index,
        contexts,
        now,
        base: flow,
        flow,
        written: Key::ZERO,
        seen,
        steps: Vec::new(),
        rules: Vec::new(),
        learned: Vec::new(),
        held: Vec::new(),
        stack: Vec::new(),
        current: table,
        depth: 0,
        nesting: 0,
        resubmits: 0,
        cause: None,
        failed: None,
    };
    if context.is_some() {
        translator.contexts.retain(recirculation);
        translator.held.push(recirculation);
    }
    translator.table(table, in_port);
    translator.finish()
}

impl Recipe {
    fn dropping(mask: Mask, cause: DropCause) -> Self {
        Self {
            mask,
            steps: Box::default(),
            rules: Box::default(),
            learned: Box::default(),
            contexts: Box::default(),
            drop: Some(cause),
        }
    }
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
    seen: Mask,
    steps: Vec<Step>,
    rules: Vec<Arc<RuleStats>>,
    learned: Vec<Learned>,
    held: Vec<u32>,
    stack: Vec<u128>,
    /// The table whose actions are being done.
    current: u8,
    depth: u32,
    nesting: u32,
    resubmits: u32,
    /// The likeliest reason, should the packet go nowhere.
    cause: Option<DropCause>,
    /// Translation broke off: the packet is dropped whatever came before.
    failed: Option<DropCause>,
}

impl Translator<'_> {
    fn finish(mut self) -> Recipe {
        if self.failed.is_some() {
            self.steps.clear();
        }
        let forwards = self.steps.iter().any(|step| matches!(step, Step::Output(_) | Step::Recirculate(_)));
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

    /// Looks up in `table` as if the packet had come by `port`, and does what is found there.
    fn table(&mut self, table: u8, port: PortNumber) -> Then {
        let bridge = self.bridge;
        let Some(classifier) = bridge.tables.get(usize::from(table)).and_then(Option::as_ref) else {
            self.cause = Some(DropCause::TableMiss);
            return Then::Next;
        };
        self.rules.push(Arc::clone(classifier.lookups()));
        let own = self.in_port();
        self.flow.write(at::IN_PORT, 4, u128::from(port));
        let found = classifier.lookup(&self.flow, &mut self.seen);
        // The actions go by the port that the packet really came by (ovs-actions(7), `resubmit`).
        self.flow.write(at::IN_PORT, 4, u128::from(own));
        let Some(rule) = found else {
            self.cause = Some(DropCause::TableMiss);
            return Then::Next;
        };
        self.rules.push(Arc::clone(classifier.matched()));
        self.rules.push(Arc::clone(&rule.stats));
        let outer = core::mem::replace(&mut self.current, table);
        self.nesting += 1;
        let then = self.list(&rule.actions);
        self.nesting -= 1;
        self.current = outer;
        then
    }

    fn list(&mut self, actions: &[Action]) -> Then {
        for action in actions {
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
            self.assign(assignment.field, assignment.value, assignment.mask);
            return Then::Next;
        }
        match action {
            Action::Output(number) => self.output(*number),
            Action::OutputField(subfield) => {
                let number = self.read(subfield);
                match PortNumber::try_from(number) {
                    Ok(port::IN_PORT) => self.send(self.in_port()),
                    Ok(port::NORMAL) => self.normal(),
                    Ok(port::FLOOD | port::ALL) => self.flood(),
                    Ok(number) => self.output(number),
                    Err(_) => self.cause = Some(DropCause::NoSuchPort),
                }
            }
            Action::Normal => self.normal(),
            Action::Flood | Action::All => self.flood(),
            Action::InPort => self.send(self.in_port()),
            Action::Local => self.output(port::LOCAL),
            Action::Resubmit { port, table, ct } => return self.resubmit(*port, *table, *ct),
            Action::GotoTable(table) => {
                return match self.resubmit(None, Some(*table), false) {
                    Then::Exit => Then::Exit,
                    Then::Next | Then::EndList => Then::EndList,
                };
            }
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
            Action::ModVlanVid(vid) => self.change_tag(*vid, 0x0fff),
            Action::ModVlanPcp(priority) => self.change_tag(u16::from(*priority) << 13, 0xe000),
            Action::PushVlan(tpid) => return self.push_vlan(*tpid),
            Action::StripVlan => self.pop_vlan(),
            Action::DecTtl(_) => return self.decrement_ttl(),
            Action::Exit => return Then::Exit,
            other => return self.unsupported(other),
        }
        Then::Next
    }

    /// Actions that need a peer weir does not have (a controller, queues) do nothing.
    #[expect(clippy::unused_self, reason = "stands in the row of the other actions")]
    fn unsupported(&self, _action: &Action) -> Then {
        Then::Next
    }

    fn read(&mut self, subfield: &Subfield) -> u128 {
        subfield.field.write(&mut self.seen, u128::MAX, subfield.mask());
        subfield.read(&self.flow)
    }

    fn assign(&mut self, field: &Field, value: u128, mask: u128) {
        if field.offset / 8 == at::VLAN_TCI / 8 && field.offset >= at::VLAN_TCI {
            // Tags are added and removed by comparison with the packet's own, which must then be known.
            self.look_at_tags();
            if !self.has_tag() {
                self.flow.write(at::VLAN_TPID, 2, u128::from(ether_type::VLAN));
            }
        }
        field.write(&mut self.flow, value, mask);
        field.write(&mut self.written, u128::MAX, mask);
    }

    fn in_port(&self) -> PortNumber {
        self.flow.read(at::IN_PORT, 4) as PortNumber
    }

    // Output.

    fn output(&mut self, number: PortNumber) {
        if number == self.in_port() {
            // Only in_port sends a packet back (ovs-actions(7), `output`).
            self.cause.get_or_insert(DropCause::Action);
            return;
        }
        self.send(number);
    }

    fn send(&mut self, number: PortNumber) {
        match self.bridge.port(number) {
            Some(id) => {
                self.commit();
                self.steps.push(Step::Output(id));
            }
            None => self.cause = Some(DropCause::NoSuchPort),
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
        if source.mac & MULTICAST == 0 && self.bridge.port(in_port).is_some() {
            fdb.learn(source, in_port, self.now);
        }
        let version = fdb.version(source, destination);
        let port = if destination.mac & MULTICAST == 0 { fdb.port(destination) } else { None };
        self.learned.push(Learned { fdb: Arc::clone(fdb), source, destination, version });
        match port.filter(|number| self.bridge.port(*number).is_some()) {
            Some(number) if number == in_port => self.cause = Some(DropCause::Normal),
            Some(number) => self.send(number),
            None => self.flood(),
        }
    }

    // Tables.

    fn resubmit(&mut self, port: Option<PortNumber>, table: Option<u8>, ct: bool) -> Then {
        let table = table.unwrap_or(self.current);
        let deepens = table <= self.current;
        self.resubmits += 1;
        self.depth += u32::from(deepens);
        if self.depth > MAX_DEPTH || self.nesting > MAX_NESTING || self.resubmits > MAX_RESUBMITS {
            return self.fail(DropCause::TooManyResubmits);
        }
        let port = port.filter(|port| *port != port::IN_PORT).unwrap_or_else(|| self.in_port());
        let swapped = ct && self.swap_tuple();
        let then = self.table(table, port);
        if swapped {
            self.swap_tuple();
        }
        self.depth -= u32::from(deepens);
        then
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
        self.steps.push(Step::Ct(Box::new(CtAction {
            zone,
            commit: spec.commit,
            force: spec.force,
            mark: (mark.1 != 0).then_some((mark.0 as u32, mark.1 as u32)),
            label: (label.1 != 0).then_some(label),
            helper: spec.helper,
            nat: spec.nat,
        })));
        if let Some(table) = spec.table {
            let mut registers = [0; 8];
            registers.copy_from_slice(&self.flow.words[at::REG0 / 8..at::REG0 / 8 + 8]);
            let context = Context {
                bridge: self.bridge_index,
                table,
                metadata: self.flow.words[at::METADATA / 8],
                registers,
                in_port: self.in_port(),
            };
            let Some(id) = self.contexts.acquire(&context) else {
                return self.fail(DropCause::RecirculationContexts);
            };
            self.held.push(id);
            self.steps.push(Step::Recirculate(id));
        }
        // What follows sees the packet untracked (ovs-actions(7), `ct`).
        self.forget_connection();
        Then::Next
    }

    fn forget_connection(&mut self) {
        for (offset, length) in [
            (at::CT_STATE, 4),
            (at::CT_ZONE, 2),
            (at::CT_NW_PROTO, 1),
            (at::CT_MARK, 4),
            (at::CT_LABEL, 16),
            (at::CT_NW_SRC, 4),
            (at::CT_NW_DST, 4),
            (at::CT_TP_SRC, 2),
            (at::CT_TP_DST, 2),
            (at::CT_IPV6_SRC, 16),
            (at::CT_IPV6_DST, 16),
        ] {
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
                let moved = self.read(src);
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

    // Header fields.

    fn decrement_ttl(&mut self) -> Then {
        let ether_type = self.flow.read(at::ETH_TYPE, 2) as u16;
        if !matches!(ether_type, ether_type::IPV4 | ether_type::IPV6) {
            return Then::Next;
        }
        let ttl = self.look(at::NW_TTL, 1);
        if ttl <= 1 {
            self.cause = Some(DropCause::TtlExpired);
            return Then::EndList;
        }
        self.flow.write(at::NW_TTL, 1, ttl - 1);
        self.written.write(at::NW_TTL, 1, u128::MAX);
        Then::Next
    }

    fn look_at_tags(&mut self) {
        for offset in [at::VLAN_TCI, at::VLAN_TPID, at::VLAN2_TCI] {
            self.seen.write(offset, 2, u128::MAX);
        }
    }

    fn has_tag(&self) -> bool {
        self.flow.read(at::VLAN_TCI, 2) as u16 & VLAN_PRESENT != 0
    }

    fn push_vlan(&mut self, tpid: u16) -> Then {
        self.look_at_tags();
        if self.flow.read(at::VLAN2_TCI, 2) != 0 {
            return self.fail(DropCause::VlanRoom);
        }
        let outer = self.flow.read(at::VLAN_TCI, 2);
        self.flow.write(at::VLAN2_TCI, 2, outer);
        self.flow.write(at::VLAN_TCI, 2, u128::from(VLAN_PRESENT));
        self.flow.write(at::VLAN_TPID, 2, u128::from(tpid));
        Then::Next
    }

    /// Sets the bits of `mask` in the outer tag; a packet without one gets one (ovs-actions(7), `mod_vlan_vid`).
    fn change_tag(&mut self, value: u16, mask: u16) {
        self.look_at_tags();
        if !self.has_tag() {
            self.flow.write(at::VLAN_TPID, 2, u128::from(ether_type::VLAN));
        }
        let tci = self.flow.read(at::VLAN_TCI, 2) as u16;
        self.flow.write(at::VLAN_TCI, 2, u128::from(tci & !mask | value & mask | VLAN_PRESENT));
    }

    fn pop_vlan(&mut self) {
        self.look_at_tags();
        let inner = self.flow.read(at::VLAN2_TCI, 2);
        self.flow.write(at::VLAN_TCI, 2, inner);
        self.flow.write(at::VLAN2_TCI, 2, 0);
        let tpid = if inner == 0 { 0 } else { ether_type::VLAN };
        self.flow.write(at::VLAN_TPID, 2, u128::from(tpid));
    }

    /// Brings the packet up to what the actions want of it, before it is sent or tracked.
    fn commit(&mut self) {
        self.commit_tags();
        let mask = self.written.masked(&HEADERS);
        if !mask.is_zero() {
            if mask.words[at::NW_SRC / 8..].iter().any(|&word| word != 0) {
                self.seen.write(at::NW_PROTO, 1, u128::MAX);
            }
            self.steps.push(Step::Set(Box::new(Fields { value: self.flow.masked(&mask), mask })));
        }
        self.written = Key::ZERO;
        self.base = self.flow;
    }

    fn commit_tags(&mut self) {
        let (have, want) = (tags(&self.base), tags(&self.flow));
        let common = have.iter().rev().zip(want.iter().rev()).take_while(|(a, b)| a == b).count();
        for _ in common..have.len() {
            self.steps.push(Step::PopVlan);
        }
        for &(tpid, tci) in want[..want.len() - common].iter().rev() {
            self.steps.push(Step::PushVlan { tpid, tci: tci & !VLAN_PRESENT });
        }
    }
}

/// Outer tag first, as (TPID, TCI). The key does not tell an inner tag's TPID: 0x8100 is taken.
fn tags(key: &Key) -> ArrayVec<(u16, u16), 2> {
    let outer = (key.read(at::VLAN_TPID, 2) as u16, key.read(at::VLAN_TCI, 2) as u16);
    let inner = (ether_type::VLAN, key.read(at::VLAN2_TCI, 2) as u16);
    [outer, inner].into_iter().filter(|(_, tci)| tci & VLAN_PRESENT != 0).collect()
}

/// The fields that live in the packet's headers, VLAN tags aside.
const HEADERS: Mask = headers();

const fn headers() -> Mask {
    let mut mask = Key::ZERO;
    let fields = [
        (at::ETH_DST, 6),
        (at::ETH_SRC, 6),
        (at::NW_SRC, 4),
        (at::NW_DST, 4),
        (at::NW_PROTO, 1),
        (at::NW_TOS, 1),
        (at::NW_TTL, 1),
        (at::TP_SRC, 2),
        (at::TP_DST, 2),
        (at::IPV6_LABEL, 4),
        (at::IPV6_SRC, 16),
        (at::IPV6_DST, 16),
        (at::ND_TARGET, 16),
        (at::ARP_SHA, 6),
        (at::ARP_THA, 6),
    ];
    let mut index = 0;
    while index < fields.len() {
        mask.write(fields[index].0, fields[index].1, u128::MAX);
        index += 1;
    }
    mask
}
