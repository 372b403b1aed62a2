//! The ct action: the third stage, in which a packet meets its connection, or starts one. All that ovs-actions(7)
//! says of `ct` happens here, in the order verify, track, commit, translate.

use weir_nat::choose::ChooseError;
use weir_nat::rewrite::translate_v4;
use weir_nat::{NatAction, Untranslatable, translate, translate_icmp_error};
use weir_wire::extract::{ChecksumTrust, Extracted};
use weir_wire::numbers::protocol;
use weir_wire::{Invalid, Layers, Tuple};

use crate::action::{CtAction, Helper};
use crate::clock::{Deadline, Millis, Moment, tick};
use crate::errand::Reason;
use crate::events::{Changes, EndCause, EventKind};
use crate::expectations::Expectation;
use crate::lookup::{Lookup, Target};
use crate::meta::{ConnectionRef, CtMeta};
use crate::outcome::{DropReason, Outcome};
use crate::sequence::{Round, Stream};
use crate::shard::{AT_ONCE, Shard};
use crate::state::CtState;
use crate::table::Full;
use crate::table::bucket::{Direction, Slot};
use crate::table::connection::{Connection, Owned, Rest, flag};
use crate::tcp::{self, Peer, Segment};
use crate::timeouts::Timeout;
use crate::translation::{Draft, DraftNumber};
use crate::verdict::Verdict;
use crate::{datagram, icmp, sctp};

/// Connections that are looked at for each new one: two leave for one that comes, so that those that have expired
/// never pile up faster than the sweep between bursts takes them.
const TOLL: u32 = 2;

pub(crate) const UNTOUCHED: Outcome = Outcome::Continue { rewritten: false };

impl Shard {
    /// Stage 3: verifies, tracks, commits and translates. `lookup` is what [`Shard::prepare`] made of the same frame,
    /// `layers`, `meta` and zone. Packets of one burst are executed in order.
    #[inline]
    pub fn execute(
        &mut self,
        now: Millis,
        frame: &mut [u8],
        layers: &Layers,
        lookup: &Lookup,
        action: &CtAction,
        meta: &mut CtMeta,
    ) -> Outcome {
        let moment = self.clock.advance(now);
        if !meta.state.has(CtState::TRK) {
            debug_assert_eq!(*meta, CtMeta { zone: meta.zone, ..CtMeta::default() }, "an untracked packet's");
            meta.zone = action.zone;
        } else if meta.zone != action.zone {
            // ct_state begins anew in another zone.
            *meta = CtMeta { zone: action.zone, ..CtMeta::default() };
        }
        let again = meta.state.has(CtState::TRK);
        let draft = lookup.draft;
        let mut packet = Packet { moment, frame, layers, action, meta, again, draft };
        self.execute_target(&mut packet, &lookup.target, lookup.hash, lookup.candidate)
    }

    #[inline(always)]
    fn execute_target(
        &mut self,
        packet: &mut Packet<'_>,
        target: &Target,
        hash: u64,
        candidate: Option<Slot>,
    ) -> Outcome {
        match target {
            Target::Packet(tuple) => self.execute_packet(packet, tuple, hash, candidate),
            Target::Known(connection) => self.execute_known(packet, *connection),
            Target::Related { tuple, inner_layers } => {
                self.execute_related(packet, tuple, hash, inner_layers)
            }
            Target::Impossible { tuple, cause } => self.execute_impossible(packet, tuple, hash, *cause),
            Target::Invalid(cause) => {
                self.counters.invalid[cause.index()] += 1;
                packet.judge_invalid()
            }
        }
    }

    #[inline(always)]
    fn execute_packet(
        &mut self,
        packet: &mut Packet<'_>,
        tuple: &Tuple,
        hash: u64,
        candidate: Option<Slot>,
    ) -> Outcome {
        let found = candidate
            .filter(|&slot| self.table.holds(slot, tuple, hash))
            .or_else(|| self.table.find(tuple, hash));
        let Some(slot) = found.and_then(|slot| self.if_live(slot, packet.moment)) else {
            return self.start(packet, tuple, hash);
        };
        if packet.replaces(slot.direction()) {
            self.end(slot.index(), EndCause::Force);
            return self.start(packet, tuple, hash);
        }
        let verdict = self.track(packet, slot);
        self.conclude(packet, tuple, hash, slot, verdict)
    }

    /// What becomes of a packet that its connection's tracker has judged.
    #[inline(always)]
    pub(crate) fn conclude(
        &mut self,
        packet: &mut Packet<'_>,
        tuple: &Tuple,
        hash: u64,
        slot: Slot,
        verdict: Verdict,
    ) -> Outcome {
        let state = match verdict {
            Verdict::Established => {
                self.counters.established += u64::from(!packet.again);
                CtState::EST
            }
            Verdict::New => {
                self.counters.new += u64::from(!packet.again);
                CtState::NEW
            }
            Verdict::Restart => {
                self.end(slot.index(), EndCause::Reopened);
                return self.start(packet, tuple, hash);
            }
            Verdict::Invalid => {
                if tuple.protocol() == protocol::SCTP {
                    self.counters.sctp_out_of_state += 1;
                } else {
                    self.counters.tcp_out_of_window += 1;
                }
                return self.judge_outside(packet, slot);
            }
        };
        let reply = match slot.direction() {
            Direction::Reply if state == CtState::EST => CtState::RPL,
            _ => CtState::NONE,
        };
        packet.set_state(state.with(reply));
        let flags = self.belong(packet, slot);
        if flags & flag::ASSISTED != 0 {
            return self.assist(packet, slot);
        }
        self.apply_nat(packet, slot, flags, None)
    }

    /// The packet met its connection in an earlier ct action of this zone, where it was tracked.
    fn execute_known(&mut self, packet: &mut Packet<'_>, known: ConnectionRef) -> Outcome {
        let (slot, connection) = (known.slot, self.table.connection(known.slot.index()));
        let is_current = connection.is_used() && connection.generation() == known.generation;
        let is_valid = !packet.meta.state.has(CtState::INV);
        // An error belongs to its connection and can start none: `force` does not make it end one either.
        let is_error = packet.meta.state.has(CtState::REL)
            && matches!(packet.layers.protocol, protocol::ICMP | protocol::ICMPV6);
        let replaces = is_valid && !is_error && packet.replaces(slot.direction());
        if is_current && !replaces {
            if is_valid {
                self.belong(packet, slot);
            }
            if !packet.wants_nat() || packet.meta.is_translated_in(packet.action.zone) {
                return UNTOUCHED;
            }
            return match packet.inner_layers() {
                Ok(inner_layers) => self.translate(packet, slot, inner_layers.as_ref()),
                Err(()) => self.drop_untranslated(DropReason::Untranslatable),
            };
        }
        if !is_current && packet.meta.is_translated_in(packet.action.zone) {
            // Its headers are those of a connection that is no more; nothing tells what they were before.
            return self.drop_untranslated(DropReason::Stale);
        }
        if is_current {
            self.end(slot.index(), EndCause::Force);
        }
        self.execute_again(packet)
    }

    /// Looks at the packet as if it came here first.
    #[cold]
    pub(crate) fn execute_again(&mut self, packet: &mut Packet<'_>) -> Outcome {
        *packet.meta = CtMeta { zone: packet.action.zone, ..CtMeta::default() };
        let target = Target::of(packet.frame, packet.layers, packet.action.zone, ChecksumTrust::ALL);
        let hash = target.tuple().map_or(0, |tuple| self.table.hash(tuple));
        self.execute_target(packet, &target, hash, None)
    }

    /// An ICMP error: related to the connection whose packet it quotes. It keeps no connection alive.
    #[cold]
    fn execute_related(
        &mut self,
        packet: &mut Packet<'_>,
        tuple: &Tuple,
        hash: u64,
        inner_layers: &Layers,
    ) -> Outcome {
        let found = self.table.find(tuple, hash);
        let Some(slot) = found.and_then(|slot| self.if_live(slot, packet.moment)) else {
            if self.is_one_of_many
                && let Some(outcome) = self.elsewhere(packet, tuple, Reason::Related)
            {
                return outcome;
            }
            self.counters.icmp_unknown += 1;
            return packet.judge_invalid();
        };
        self.counters.related += 1;
        packet.set_state(match slot.direction() {
            Direction::Original => CtState::REL,
            Direction::Reply => CtState::REL.with(CtState::RPL),
        });
        self.belong(packet, slot);
        self.translate(packet, slot, Some(inner_layers))
    }

    /// The slot, unless its connection has expired: then it is removed on sight.
    #[inline]
    pub(crate) fn if_live(&mut self, slot: Slot, moment: Moment) -> Option<Slot> {
        if self.table.connection(slot.index()).deadline().is_past(moment) {
            self.end(slot.index(), EndCause::Timeout);
            return None;
        }
        Some(slot)
    }

    /// Shows the packet to its connection's tracker and moves the deadline.
    #[inline]
    fn track(&mut self, packet: &Packet<'_>, slot: Slot) -> Verdict {
        let before = self.events.listening().then(|| self.states(slot));
        let verdict = self.track_unwatched(packet, slot);
        if let Some(before) = before {
            self.tell_state(slot, before);
        }
        verdict
    }

    #[cold]
    fn states(&self, slot: Slot) -> [u8; 2] {
        self.table.connection(slot.index()).peers().map(|peer| peer.state)
    }

    /// Tells whoever listens if a packet has changed its connection's state.
    #[cold]
    fn tell_state(&mut self, slot: Slot, before: [u8; 2]) {
        if self.states(slot) != before {
            self.record(slot.index(), EventKind::Update(Changes::STATE));
        }
    }

    #[inline(always)] // the compiler would leave it out of line, which costs a packet twenty instructions
    fn track_unwatched(&mut self, packet: &Packet<'_>, slot: Slot) -> Verdict {
        let Self { table, companions, zones, .. } = self;
        let direction = slot.direction();
        let row = table.row(slot);
        let acknowledged = if row.connection.has(flag::EDITED) {
            companions.stream(row.companion(), direction.opposite())
        } else {
            None
        };
        let (verdict, timeout) = judge(row.connection, direction, packet, acknowledged, self.liberal_tcp);
        let timeouts = zones.timeouts(packet.action.zone);
        let moment = packet.moment;
        let after = |timeout| Deadline::after(moment, timeouts.milliseconds(timeout));
        let protocol = packet.layers.protocol;
        if row.renew(protocol, (verdict, timeout), moment, packet.frame.len(), after) {
            self.arm_earlier(slot.index());
        }
        verdict
    }

    /// Puts a connection where the wheel finds it at its deadline, which has moved closer.
    #[cold]
    pub(crate) fn arm_earlier(&mut self, index: u32) {
        let now = tick(self.clock.moment());
        let connection = self.table.connection(index);
        let (zone, deadline) = (connection.zone(), connection.deadline().near(now));
        self.zones.arm_again(self.table.links(), zone, index, deadline, now);
    }

    /// A segment whose flags make it invalid before any window is looked at.
    #[cold]
    fn execute_impossible(
        &mut self,
        packet: &mut Packet<'_>,
        tuple: &Tuple,
        hash: u64,
        cause: Invalid,
    ) -> Outcome {
        let found = self.table.find(tuple, hash);
        let live = found.and_then(|slot| self.if_live(slot, packet.moment));
        if self.is_one_of_many
            && live.is_none()
            && let Some(outcome) = self.elsewhere(packet, tuple, Reason::Steered)
        {
            return outcome;
        }
        self.counters.invalid[cause.index()] += 1;
        match live {
            Some(slot) => self.judge_outside(packet, slot),
            None => packet.judge_invalid(),
        }
    }

    /// A segment that does not belong to the connection which its tuple names: invalid, but never shown with a
    /// private address, so its connection's translation is applied, as Open vSwitch does it.
    #[cold]
    pub(crate) fn judge_outside(&mut self, packet: &mut Packet<'_>, slot: Slot) -> Outcome {
        let _ = packet.judge_invalid();
        self.show(packet.meta, slot);
        self.translate(packet, slot, None)
    }

    /// Takes mark and label of a commit over into the connection, and the connection's into the packet. Gives the
    /// connection's flags.
    #[inline(always)]
    fn belong(&mut self, packet: &mut Packet<'_>, slot: Slot) -> u16 {
        if packet.action.commit {
            let changes = self.refresh(packet.action, slot.index());
            if self.events.listening() && changes != Changes::NONE {
                self.record(slot.index(), EventKind::Update(changes));
            }
        }
        self.show(packet.meta, slot)
    }

    /// Shows a packet what is known of its connection, whose flags it gives.
    #[inline(always)]
    pub(crate) fn show(&self, meta: &mut CtMeta, slot: Slot) -> u16 {
        let connection = self.table.connection(slot.index());
        let flags = connection.flags();
        meta.mark = connection.mark();
        meta.label = if flags & flag::LABEL != 0 { self.table.cold(slot.index()).label() } else { 0 };
        meta.connection = Some(ConnectionRef { slot, generation: connection.generation() });
        if self.shows_original {
            meta.original = Some(self.table.tuple(slot.index(), Direction::Original));
        }
        if flags & flag::RELATED != 0 {
            self.show_parent(meta, slot.index());
        }
        flags
    }

    /// Takes mark, label and helper of a commit over; says which of them are different now.
    fn refresh(&mut self, action: &CtAction, index: u32) -> Changes {
        let mut changes = Changes::NONE;
        if let Some((value, mask)) = action.mark {
            let connection = self.table.connection_mut(index);
            let mark = connection.mark();
            let new = mark & !mask | value & mask;
            changes = changes.with(Changes::MARK.when(new != mark));
            connection.set_mark(new);
        }
        if let Some((value, mask)) = action.label {
            let cold = self.table.cold_mut(index);
            let label = cold.label();
            let new = label & !mask | value & mask;
            if new != label {
                changes = changes.with(Changes::LABEL);
                cold.set_label(new);
            }
            self.table.connection_mut(index).set(flag::LABEL, new != 0);
        }
        if let Some(number) = action.helper.map(Helper::number) {
            let cold = self.table.cold_mut(index);
            changes = changes.with(Changes::HELPER.when(number != cold.helper()));
            cold.set_helper(number);
            self.table.connection_mut(index).set(flag::HELPED, true);
        }
        changes
    }

    /// A packet that belongs to no connection: new, and with commit the first of one.
    #[inline(never)]
    pub(crate) fn start(&mut self, packet: &mut Packet<'_>, tuple: &Tuple, hash: u64) -> Outcome {
        let outcome = self.begin(packet, tuple, hash);
        if let Some(share) = &mut self.share {
            share.settle();
        }
        outcome
    }

    #[inline]
    fn begin(&mut self, packet: &mut Packet<'_>, tuple: &Tuple, hash: u64) -> Outcome {
        if self.is_one_of_many
            && let Some(outcome) = self.start_elsewhere(packet, tuple)
        {
            return outcome;
        }
        let Some((peers, timeout)) = first_packet(packet, tuple) else {
            let counter = match tuple.protocol() {
                protocol::TCP => &mut self.counters.tcp_bad_start,
                protocol::SCTP => &mut self.counters.sctp_bad_start,
                _ => &mut self.counters.icmp_bad_start,
            };
            *counter += u64::from(!packet.again);
            return packet.judge_invalid();
        };
        *packet.meta = CtMeta {
            state: CtState::TRK.with(CtState::NEW),
            zone: packet.action.zone,
            original: Some(*tuple),
            ..CtMeta::default()
        };
        let expected = if self.expectations.is_empty() { None } else { self.expected(packet, tuple) };
        let expected_nat = expected.filter(|expected| packet.wants_nat() && expected.is_translated());
        let reply = if packet.action.commit {
            self.choose_reply(packet, tuple, hash, expected_nat.as_ref())
        } else {
            Err(UNTOUCHED)
        };
        if let Err(elsewhere @ Outcome::Elsewhere { .. }) = reply {
            return elsewhere;
        }
        // A packet that an earlier ct action of this zone has found new is counted there.
        self.counters.new += u64::from(!packet.again);
        let Draft { reply, hash: reply_hash } = match reply {
            Ok(chosen) => chosen,
            Err(outcome) => return outcome,
        };
        let index = match self.insert(packet.moment, (tuple, hash), (&reply, reply_hash)) {
            Ok(index) => index,
            Err(Full) => {
                let held_up = self.table.is_held_up();
                self.counters.refused_by_readers += u64::from(held_up);
                self.counters.refused_by_full_table += u64::from(!held_up);
                return packet.refused();
            }
        };
        self.counters.created += 1;
        if self.is_one_of_many {
            self.settle(index, tuple, &reply);
        }
        if !self.occupancy.is_empty() {
            self.occupancy.take(tuple);
            self.occupancy.take(&reply);
        }
        self.zones.enter(packet.action.zone);
        if let Some(share) = &mut self.share {
            share.entered();
        }
        let timeouts = self.zones.timeouts(packet.action.zone);
        let deadline = Deadline::after(packet.moment, timeouts.milliseconds(timeout));
        let connection = self.table.connection_mut(index);
        connection.set_peers(peers);
        connection.set_deadline(deadline);
        match packet.action.nat {
            Some(NatAction::Source(_)) => connection.set(flag::SOURCE_NAT, true),
            Some(NatAction::Destination(_)) => connection.set(flag::DESTINATION_NAT, true),
            Some(NatAction::Apply) | None => {}
        }
        self.table.cold_mut(index).set_created(packet.moment);
        let slot = Slot::new(index, Direction::Original);
        self.table.count_first(index, tuple.protocol(), packet.frame.len(), tick(packet.moment));
        match &expected {
            // Mark and label are the parent's; this commit's own do not apply (as observed of Open vSwitch).
            Some(expected) => self.adopt(packet, tuple, index, expected, expected_nat.is_some()),
            None => {
                let _ = self.refresh(packet.action, index);
            }
        }
        // Readers on other threads see it from here on, with all that it begins with.
        self.table.publish(index, tuple);
        let now = tick(packet.moment);
        self.zones.arm(self.table.links(), packet.action.zone, index, deadline.near(now), now);
        if self.events.listening() {
            self.record(index, EventKind::New);
        }
        self.show(packet.meta, slot);
        let outcome = if self.table.connection(index).has(flag::ASSISTED) {
            self.assist(packet, slot)
        } else {
            self.translate(packet, slot, None)
        };
        self.pay_toll(packet.moment);
        outcome
    }

    /// Has a new connection pay for others' ends, a few connections at once: what they touch is asked for together.
    #[inline]
    fn pay_toll(&mut self, moment: Moment) {
        self.toll += TOLL;
        if self.toll >= AT_ONCE {
            let budget = core::mem::take(&mut self.toll);
            self.sweep_to(moment, budget);
        }
    }

    /// Puts a connection into the table; where that is full, what has expired makes way.
    #[inline]
    fn insert(&mut self, moment: Moment, original: (&Tuple, u64), reply: (&Tuple, u64)) -> Result<u32, Full> {
        self.table.insert(original, reply).or_else(|Full| self.insert_after_sweep(moment, original, reply))
    }

    #[cold]
    fn insert_after_sweep(
        &mut self,
        moment: Moment,
        original: (&Tuple, u64),
        reply: (&Tuple, u64),
    ) -> Result<u32, Full> {
        // Where slots wait for readers, no ended connection gives one at once.
        if !self.table.is_held_up() {
            let _ = self.make_room(moment, None, |shard| shard.table.has_free_slot());
        }
        self.table.insert(original, reply)
    }

    /// Whether there may be one more connection in the packet's zone, and in all; or what becomes of the packet.
    /// The answer is the one that it would be if every connection left at the moment it expires.
    #[inline]
    fn admit(&mut self, packet: &Packet<'_>) -> Result<(), Outcome> {
        if self.share.is_some() {
            return self.admit_shared(packet);
        }
        let zone = packet.action.zone;
        if let Some(limit) = self.zones.limit(zone) {
            let has_room = |shard: &Self| shard.zones.connections(zone) < limit;
            if !has_room(self) && (limit == 0 || !self.make_room(packet.moment, Some(zone), has_room)) {
                self.counters.refused_by_zone_limit += 1;
                return Err(packet.refused());
            }
        }
        let has_room = |shard: &Self| shard.table.len() < shard.max_connections;
        if !has_room(self) && !self.make_room(packet.moment, None, has_room) {
            self.counters.refused_by_limit += 1;
            return Err(packet.refused());
        }
        Ok(())
    }

    /// The reply tuple that a new connection gets, free in the table, and its hash; or what becomes of its packet instead.
    fn choose_reply(
        &mut self,
        packet: &mut Packet<'_>,
        tuple: &Tuple,
        hash: u64,
        expected: Option<&Expectation>,
    ) -> Result<Draft, Outcome> {
        self.admit(packet)?;
        if expected.is_none()
            && let Some(draft) = self.drafted(packet.draft)
        {
            return Ok(draft);
        }
        if self.is_one_of_many {
            let reply = self.choose_among_many(packet, tuple, hash, expected)?;
            return Ok(self.draft_of(reply));
        }
        if let Some(expected) = expected {
            let reply = self.expected_reply(packet, tuple, expected)?;
            return Ok(self.draft_of(reply));
        }
        let reply = match packet.action.nat {
            Some(nat @ (NatAction::Source(_) | NatAction::Destination(_))) => {
                match self.choose_translation(packet.moment, &nat, tuple, hash) {
                    Ok(reply) => reply,
                    Err(error) => return Err(self.not_chosen(packet, nat, error)),
                }
            }
            Some(NatAction::Apply) | None => tuple.reversed(),
        };
        // Free, or another connection's: one that has expired, or of an untranslated tuple that somebody's
        // translation has taken.
        let chosen = self.draft_of(reply);
        let owner = self.table.find(&reply, chosen.hash);
        if owner.and_then(|slot| self.if_live(slot, packet.moment)).is_some() {
            self.counters.refused_by_clash += 1;
            return Err(UNTOUCHED);
        }
        Ok(chosen)
    }

    /// What becomes of a packet for whose connection no translation was found.
    #[cold]
    pub(crate) fn not_chosen(&mut self, packet: &Packet<'_>, nat: NatAction, error: ChooseError) -> Outcome {
        match error {
            ChooseError::Exhausted { .. } => {
                self.counters.nat_exhausted += 1;
                self.exhaustions.note(packet.action.zone, nat);
                Outcome::Drop(DropReason::NatExhausted)
            }
            ChooseError::FamilyMismatch => self.drop_untranslated(DropReason::NatFamily),
        }
    }

    /// [`Shard::apply_nat`], but for packets of established connections, which have it in line.
    #[inline(never)]
    pub(crate) fn translate(
        &mut self,
        packet: &mut Packet<'_>,
        slot: Slot,
        inner_layers: Option<&Layers>,
    ) -> Outcome {
        let flags = self.table.connection(slot.index()).flags();
        self.apply_nat(packet, slot, flags, inner_layers)
    }

    /// Translates the packet as its connection and direction say, if the action asks for it and no earlier one in
    /// this zone has. An ICMP error comes with the headers that it quotes.
    #[inline(always)]
    fn apply_nat(
        &mut self,
        packet: &mut Packet<'_>,
        slot: Slot,
        flags: u16,
        inner_layers: Option<&Layers>,
    ) -> Outcome {
        if !packet.wants_nat()
            || flags & (flag::SOURCE_NAT | flag::DESTINATION_NAT) == 0
            || packet.meta.is_translated_in(packet.action.zone)
        {
            return UNTOUCHED;
        }
        let bits = translation_state(flags, slot.direction());
        let edited = flags & flag::EDITED != 0 && inner_layers.is_none();
        let table = &self.table;
        let done: Result<(), Untranslatable> = match (inner_layers, table.plain_translation(slot)) {
            (None, Some(to)) => translate_v4(packet.frame, packet.layers, &to),
            (None, None) => translate(packet.frame, packet.layers, &table.translation(slot)),
            (Some(inner_layers), _) => {
                translate_icmp_error(packet.frame, packet.layers, inner_layers, &table.translation(slot))
            }
        };
        match done {
            Ok(()) => {
                packet.meta.state = packet.meta.state.with(bits);
                if edited {
                    return self.adjust(packet, slot);
                }
                Outcome::Continue { rewritten: true }
            }
            Err(_) => self.drop_untranslated(DropReason::Untranslatable),
        }
    }

    #[cold]
    pub(crate) fn drop_untranslated(&mut self, reason: DropReason) -> Outcome {
        self.counters.untranslated += 1;
        Outcome::Drop(reason)
    }
}

/// What ct_state says of a packet that goes in this direction and was translated, by its connection's flags.
#[inline]
pub(crate) const fn translation_state(flags: u16, direction: Direction) -> CtState {
    match (flags & flag::SOURCE_NAT != 0, direction) {
        (true, Direction::Original) | (false, Direction::Reply) => CtState::SNAT,
        (true, Direction::Reply) | (false, Direction::Original) => CtState::DNAT,
    }
}

/// One call's arguments.
pub(crate) struct Packet<'a> {
    pub(crate) moment: Moment,
    pub(crate) frame: &'a mut [u8],
    pub(crate) layers: &'a Layers,
    pub(crate) action: &'a CtAction,
    pub(crate) meta: &'a mut CtMeta,
    /// An earlier ct action of this zone has seen it, and counted it.
    pub(crate) again: bool,
    /// What [`Shard::foresee`] expects of its connection, if it is to start one.
    pub(crate) draft: DraftNumber,
}

impl Packet<'_> {
    const fn wants_nat(&self) -> bool {
        self.action.nat.is_some()
    }

    /// True if a packet with this tuple may be the first one of a connection.
    #[inline]
    pub(crate) fn may_start(&self, tuple: &Tuple) -> bool {
        first_packet(self, tuple).is_some()
    }

    /// True if `force` makes the packet, which goes in `direction`, start its connection anew.
    fn replaces(&self, direction: Direction) -> bool {
        self.action.commit && self.action.force && direction == Direction::Reply
    }

    /// The state that this action found, beside what an earlier one in the zone did to the headers.
    #[inline]
    fn set_state(&mut self, state: CtState) {
        let translated = CtState(self.meta.state.0 & (CtState::SNAT.0 | CtState::DNAT.0));
        self.meta.state = translated.with(CtState::TRK).with(state);
        self.meta.zone = self.action.zone;
    }

    /// Invalid. Of a known connection the caller translates it; any other has no translation, and is not sent
    /// without one where the action would have translated it.
    #[cold]
    fn judge_invalid(&mut self) -> Outcome {
        let state = CtState::TRK.with(CtState::INV);
        *self.meta = CtMeta { state, zone: self.action.zone, ..CtMeta::default() };
        match self.action.nat {
            Some(NatAction::Source(_) | NatAction::Destination(_)) if self.action.commit => {
                Outcome::Drop(DropReason::NatInvalid)
            }
            _ => UNTOUCHED,
        }
    }

    /// A connection that may not be: its packet goes on as new, unless it was to be translated first.
    #[cold]
    pub(crate) fn refused(&self) -> Outcome {
        match self.action.nat {
            Some(NatAction::Source(_) | NatAction::Destination(_)) => Outcome::Drop(DropReason::NatRefused),
            Some(NatAction::Apply) | None => UNTOUCHED,
        }
    }

    /// The headers that an ICMP error quotes, read again; `None` of any other packet.
    fn inner_layers(&self) -> Result<Option<Layers>, ()> {
        if !self.meta.state.has(CtState::REL) {
            return Ok(None);
        }
        match Tuple::extract(self.frame, self.layers, self.action.zone, ChecksumTrust::ALL) {
            Ok(Extracted::Packet(_)) => Ok(None),
            Ok(Extracted::IcmpError { inner_layers, .. }) => Ok(Some(inner_layers)),
            Err(_) => Err(()),
        }
    }
}

/// What the protocol's tracker says of a packet, and how long the connection may be silent from now on.
#[inline(always)] // as track_unwatched
fn judge(
    connection: Owned<'_, Connection>,
    direction: Direction,
    packet: &Packet<'_>,
    acknowledged: Option<&Stream>,
    liberal: bool,
) -> (Verdict, Option<Timeout>) {
    let (verdict, timeout) = match (packet.layers.protocol, connection_family(packet.layers)) {
        (protocol::TCP, _) => {
            let Some(mut segment) = Segment::parse(packet.frame, packet.layers) else {
                return (Verdict::Invalid, None);
            };
            if let Some(stream) = acknowledged {
                // Each side is tracked in its own numbers, from which an edit may have taken its peer away.
                segment.ack = stream.backward(segment.ack, Round::Down);
            }
            let source = connection.peer_mut(direction);
            let destination = connection.peer_mut(direction.opposite());
            return tcp::track(source, destination, &segment, liberal);
        }
        (protocol::SCTP, _) => {
            let Some(packet) = sctp::Packet::parse(packet.frame, packet.layers) else {
                return (Verdict::Invalid, None);
            };
            let mut peers = connection.peers();
            let judged = sctp::track(&mut peers, direction, &packet);
            connection.set_peers(peers);
            return judged;
        }
        (protocol::ICMP, Family::V4) | (protocol::ICMPV6, Family::V6) => {
            let mut state = connection.state();
            let judged = icmp::track(&mut state, direction);
            connection.set_state(state);
            judged
        }
        _ => {
            let mut state = connection.state();
            let judged = datagram::track(&mut state, direction);
            connection.set_state(state);
            judged
        }
    };
    (verdict, Some(timeout))
}

#[derive(Clone, Copy)]
enum Family {
    V4,
    V6,
}

#[inline]
fn connection_family(layers: &Layers) -> Family {
    if layers.is_ipv6() { Family::V6 } else { Family::V4 }
}

/// Both sides after a connection's first packet; `None` if it may not start one.
fn first_packet(packet: &Packet<'_>, tuple: &Tuple) -> Option<([Peer; 2], Timeout)> {
    let (state, timeout) = match tuple.protocol() {
        protocol::TCP => return tcp::start(&Segment::parse(packet.frame, packet.layers)?),
        protocol::SCTP => return sctp::start(&sctp::Packet::parse(packet.frame, packet.layers)?),
        _ if tuple.is_icmp() => icmp::start(tuple)?,
        _ => datagram::start(),
    };
    Some(([Peer::with_state(state), Peer::default()], timeout))
}

/// True if a connection other than TCP and SCTP, whose tracker is in `state`, was seen in both directions.
pub(crate) const fn is_answered(rest: Rest, state: u8) -> bool {
    let is_icmp = matches!((rest.family(), rest.protocol()), (4, protocol::ICMP) | (6, protocol::ICMPV6));
    if is_icmp { icmp::is_answered(state) } else { datagram::is_answered(state) }
}

#[cfg(test)]
pub(crate) mod tests;
