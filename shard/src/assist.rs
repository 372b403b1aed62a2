//! What is done for connections with a helper and for those that helpers announce, all of it beside the way of
//! ordinary packets: reading control connections, expecting data connections, and keeping sequence numbers right
//! where a payload had to be edited.
//!
//! A control packet is read once, when it is tracked. If an announced address has to be another one behind the
//! connection's translation, the edit is recorded in its stream; it is carried out wherever the packet is translated,
//! in this ct action or a later one of the zone.

use std::net::IpAddr;

use weir_nat::alg::ftp::{self, Announcement, Side};
use weir_nat::alg::{Edits, MAX_EDITS, tftp};
use weir_wire::checksum::Delta;
use weir_wire::numbers::protocol;
use weir_wire::{Layers, Tuple};

use crate::action::Helper;
use crate::clock::{Millis, Moment};
use crate::companions::NotEdited;
use crate::conntrack::Packet;
use crate::errand::directory::Entry;
use crate::expectations::{Announced, Expectation, LIFETIME, Refused};
use crate::meta::CtMeta;
use crate::outcome::{DropReason, Outcome};
use crate::sequence::Round;
use crate::shard::Shard;
use crate::state::CtState;
use crate::table::bucket::{Direction, Slot};
use crate::table::connection::flag;
use crate::view::ExpectationView;

/// Ports tried when the wanted one is taken.
const PORT_PROBES: u16 = 128;

/// The lowest port that is taken where the wanted one is not free (RFC 6335 section 6: below are system ports).
const LOWEST_PORT: u16 = 1024;

/// Why a control packet does not go on as it came.
enum Refusal {
    /// Broken FTP control.
    Broken,
    Drop(DropReason),
}

/// The addresses of a control connection, as a side that announces something needs them.
#[derive(Clone, Copy)]
struct Ends {
    /// Of who announces, as it knows itself and as the other side knows it.
    own: IpAddr,
    seen: IpAddr,
    /// Of who is told, likewise.
    peer: IpAddr,
    peer_seen: IpAddr,
}

impl Shard {
    /// A packet of a connection that has a helper, was announced, or was edited.
    #[cold]
    pub(crate) fn assist(&mut self, packet: &mut Packet<'_>, slot: Slot) -> Outcome {
        let connection = self.table.connection(slot.index());
        if connection.has(flag::RELATED) {
            packet.meta.state = packet.meta.state.with(CtState::REL);
        }
        if connection.has(flag::HELPED) {
            match self.observe(packet, slot) {
                Ok(()) => {}
                Err(Refusal::Broken) => {
                    self.counters.broken_control += 1;
                    return self.judge_outside(packet, slot);
                }
                Err(Refusal::Drop(reason)) => return Outcome::Drop(reason),
            }
        }
        self.translate(packet, slot, None)
    }

    /// A data connection shows its parent's tuple as the original one.
    #[cold]
    pub(crate) fn show_parent(&self, meta: &mut CtMeta, index: u32) {
        if let Some(parent) = self.table.parent(index) {
            meta.original = Some(parent);
        }
    }

    /// What an ended connection leaves beside the table.
    #[cold]
    pub(crate) fn forget(&mut self, index: u32) {
        let companion = self.table.cold(index).companion();
        if companion != 0 {
            self.companions.remove(companion);
        }
        let connection = self.table.connection(index);
        if connection.has(flag::HELPED) {
            self.expectations.remove_of(index);
        }
        if self.is_one_of_many && connection.has(flag::RELATED) {
            self.directory.disconnect(&self.table.tuple(index, Direction::Original), self.number);
        }
    }

    /// Reads a control packet, which its tracker has accepted.
    fn observe(&mut self, packet: &Packet<'_>, slot: Slot) -> Result<(), Refusal> {
        let helper = Helper::from_number(self.table.cold(slot.index()).helper());
        match (helper, packet.layers.protocol) {
            (Some(Helper::Ftp), protocol::TCP) => self.observe_ftp(packet, slot),
            (Some(Helper::Tftp), protocol::UDP) if slot.direction() == Direction::Original => {
                let request = packet.layers.l4_bytes(packet.frame).get(8..).is_some_and(tftp::is_request);
                if request {
                    self.expect_tftp(packet.moment, slot.index());
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn observe_ftp(&mut self, packet: &Packet<'_>, slot: Slot) -> Result<(), Refusal> {
        let Some((seq, payload)) = segment(packet.frame, packet.layers) else { return Ok(()) };
        if payload.is_empty() {
            return Ok(());
        }
        let side = match slot.direction() {
            Direction::Original => Side::Client,
            Direction::Reply => Side::Server,
        };
        let ends = self.ends(slot);
        let end = seq.wrapping_add(u32::try_from(payload.len()).unwrap_or(0));
        // More than a FIN behind it.
        let is_overtaken =
            self.table.connection(slot.index()).peer(slot.direction()).sent().wrapping_sub(end).cast_signed()
                > 1;
        for (count, announcement) in ftp::announcements(payload, side).enumerate() {
            let announcement = announcement.map_err(|ftp::Broken| Refusal::Broken)?;
            // Somebody else's address would have the other side connect to whom it was never told to (RFC 2577
            // section 3, the bounce attack).
            if count >= MAX_EDITS || announcement.address.is_some_and(|address| address != ends.own) {
                return Err(Refusal::Broken);
            }
            let start = announcement.range.start;
            let at = seq.wrapping_add(u32::try_from(start).unwrap_or(0));
            let old = payload.get(announcement.range.clone()).unwrap_or_default();
            self.expect_ftp(packet.moment, slot, ends, &announcement, at, old, is_overtaken)?;
        }
        let companion = self.table.cold(slot.index()).companion();
        if ends.own != ends.seen {
            self.pass_cut_line(slot, seq, payload, side);
        }
        if companion != 0
            && let Some(companion) = self.companions.get_mut(companion)
        {
            companion.forget_before(slot.direction(), seq);
        }
        Ok(())
    }

    /// A line that the segment's end cuts goes on as it is. Dropped it might never come whole: a sender that waits for
    /// the acknowledgement of the first piece sends that piece again and nothing else (RFC 9293 section 3.7.4). What has
    /// gone on so can be edited no more, lest the receiver's numbers be others than those it has acknowledged.
    fn pass_cut_line(&mut self, slot: Slot, seq: u32, payload: &[u8], side: Side) {
        let length = u16::try_from(payload.len()).unwrap_or(u16::MAX);
        let stream = self.companions.stream(self.table.cold(slot.index()).companion(), slot.direction());
        let unfinished = ftp::unfinished(payload, side).filter(|line| {
            // Not if it is part of what was edited when it came whole.
            let edited = stream.map(|stream| stream.edits_in(seq, length)).unwrap_or_default();
            edited.iter().all(|edit| usize::from(edit.at) < line.start)
        });
        if unfinished.is_some_and(|line| line.has_address) {
            self.counters.cut_control += 1;
        }
        if unfinished.is_none() && !stream.is_some_and(|stream| stream.goes_on_at(seq)) {
            return;
        }
        let companion = self.companion_of(slot.index());
        let source = self.table.tuple(slot.index(), Direction::Original).src();
        if let Ok(stream) = self.companions.stream_mut(companion, slot.direction(), source) {
            stream.pass(seq.wrapping_add(u32::from(length)));
        }
    }

    fn ends(&self, slot: Slot) -> Ends {
        let own = self.table.tuple(slot.index(), slot.direction());
        let other = self.table.tuple(slot.index(), slot.direction().opposite());
        Ends { own: own.src(), seen: other.dst(), peer: other.src(), peer_seen: own.dst() }
    }

    /// Expects what was announced, and records the edit that the translation asks for. `at` is the sequence number
    /// of the announcement's text `old`. If its segment is overtaken, later ones went on with numbers that an edit would
    /// change.
    #[expect(clippy::too_many_arguments, reason = "what is known of one announcement")]
    fn expect_ftp(
        &mut self,
        moment: Moment,
        slot: Slot,
        ends: Ends,
        announcement: &Announcement,
        at: u32,
        old: &[u8],
        is_overtaken: bool,
    ) -> Result<(), Refusal> {
        let index = slot.index();
        let own = self.table.tuple(index, slot.direction());
        let source = self.table.tuple(index, Direction::Original).src();
        let expected = |port: u16| {
            let tuple = Tuple::new(ends.peer, ends.seen, 0, port, protocol::TCP, own.zone())?;
            let (target, caller) = ((ends.own, announcement.port), ends.peer_seen);
            Some(Announced { tuple, target, caller, parent: index, source, helper: Helper::Ftp })
        };
        let companion = self.table.cold(index).companion();
        let recorded = self
            .companions
            .stream(companion, slot.direction())
            .and_then(|stream| stream.edit_at(at, old.len()))
            .map(|edit| edit.port);
        if ends.own == ends.seen {
            // Nothing to edit. If it cannot be expected its data connection is like any other.
            return match expected(announcement.port) {
                Some(announced) => self.expect(moment, &announced, None).or(Ok(())),
                None => Ok(()),
            };
        }
        if let Some(port) = recorded {
            // Sent again: the words are settled. Should somebody else wait there by now, the first call is theirs.
            if let Some(announced) = expected(port) {
                let _ = self.expect(moment, &announced, None);
            }
            return Ok(());
        }
        let stream = self.companions.stream(companion, slot.direction());
        if stream.is_some_and(|stream| stream.has_passed(at))
            || is_overtaken && stream.is_none_or(|stream| stream.may_edit(at))
        {
            self.counters.cut_control += 1;
            return Ok(());
        }
        // Active clients are called from the port below the server's control port (RFC 959 section 3.2).
        let calling_port = self.table.tuple(index, slot.direction().opposite()).src_port().wrapping_sub(1);
        for port in ports_from(announcement.port, PORT_PROBES) {
            let Some(announced) = expected(port) else { continue };
            let Some(call) = called_from(&announced.tuple, calling_port) else { continue };
            if self.is_somebodys(&call, moment) {
                continue;
            }
            match self.expect(moment, &announced, Some(&call)) {
                Ok(()) => {}
                Err(Refused::Taken) => continue,
                Err(Refused::Full | Refused::SourceFull) => {
                    return Err(Refusal::Drop(DropReason::NatRefused));
                }
            }
            let text = announcement.text(ends.seen, port).ok_or(Refusal::Broken)?;
            let Ok(length) = u16::try_from(old.len()) else { return Err(Refusal::Broken) };
            if text.as_bytes() == old {
                return Ok(());
            }
            return self.record_edit(slot, at, length, text, port).map_err(Refusal::Drop);
        }
        self.counters.nat_exhausted += 1;
        Err(Refusal::Drop(DropReason::NatExhausted))
    }

    fn record_edit(
        &mut self,
        slot: Slot,
        at: u32,
        old: u16,
        text: weir_nat::alg::Text,
        port: u16,
    ) -> Result<(), DropReason> {
        let companion = self.companion_of(slot.index());
        let source = self.table.tuple(slot.index(), Direction::Original).src();
        let stream = match self.companions.stream_mut(companion, slot.direction(), source) {
            Ok(stream) => stream,
            Err(refused) => {
                *match refused {
                    NotEdited::Full => &mut self.counters.edits_refused,
                    NotEdited::SourceFull => &mut self.counters.edits_refused_by_share,
                } += 1;
                return Err(DropReason::NatRefused);
            }
        };
        if !stream.record(at, old, text, port) {
            // In the middle of what was edited before: no sender cuts its stream like that.
            return Err(DropReason::Untranslatable);
        }
        self.table.connection_mut(slot.index()).set(flag::EDITED, true);
        Ok(())
    }

    fn companion_of(&mut self, index: u32) -> u32 {
        let companion = self.table.cold(index).companion();
        if companion != 0 {
            return companion;
        }
        let companion = self.companions.add();
        self.table.cold_mut(index).set_companion(companion);
        companion
    }

    /// True if a call to a port that could be announced already leads to a connection of somebody else: of this shard,
    /// with its home here, or a data connection.
    fn is_somebodys(&self, call: &Tuple, moment: Moment) -> bool {
        let found = self.table.find(call, self.table.hash(call));
        found.is_some_and(|slot| !self.table.connection(slot.index()).deadline().is_past(moment))
            || self.is_one_of_many
                && (self.redirects.owner(call).is_some() || self.directory.is_connected(call))
    }

    /// The answer to a TFTP request comes from any port to the one that it was sent from.
    fn expect_tftp(&mut self, moment: Moment, index: u32) {
        let original = self.table.tuple(index, Direction::Original);
        let reply = self.table.tuple(index, Direction::Reply);
        let (src, dst, port) = (reply.src(), reply.dst(), reply.dst_port());
        if let Some(tuple) = Tuple::new(src, dst, 0, port, protocol::UDP, original.zone()) {
            let (source, target) = (original.src(), (original.src(), original.src_port()));
            let caller = original.dst();
            // A refusal is counted; the answer is then like any packet that nobody asked for.
            let helper = Helper::Tftp;
            let announced = Announced { tuple, target, caller, parent: index, source, helper };
            let _ = self.expect(moment, &announced, None);
        }
    }

    /// Expects something; where a port is chosen for it, `call` is the tuple that the call will probably have.
    fn expect(&mut self, moment: Moment, announced: &Announced, call: Option<&Tuple>) -> Result<(), Refused> {
        let done = self.add_expectation(moment, announced, call);
        match done {
            Ok(()) => self.counters.expectations += 1,
            Err(Refused::Full) => self.counters.expectations_refused += 1,
            Err(Refused::SourceFull) => self.counters.expectations_refused_by_share += 1,
            Err(Refused::Taken) => {}
        }
        done
    }

    /// Expects something, and lets other shards know. What two shards wait for with different targets is the first
    /// one's.
    fn add_expectation(
        &mut self,
        moment: Moment,
        announced: &Announced,
        call: Option<&Tuple>,
    ) -> Result<(), Refused> {
        if !self.is_one_of_many {
            return self.expectations.add(moment, announced);
        }
        let now = self.clock.reading();
        let &Announced { tuple, target, caller, .. } = announced;
        let entry = Entry { shard: self.number, target, caller, until: now.saturating_add(LIFETIME) };
        if self.directory.is_anothers(&tuple, &entry, now) {
            return Err(Refused::Taken);
        }
        self.expectations.add(moment, announced)?;
        if self.directory.claim(tuple, entry, now)
            && !call.is_some_and(|call| self.directory.is_connected(call))
        {
            return Ok(());
        }
        // Another shard was quicker.
        if let Some(expectation) = self.expectations.find(&tuple, moment) {
            self.expectations.remove(&expectation);
        }
        Err(Refused::Taken)
    }

    /// True if the data connection that begins with this tuple is expected by this shard, and its parent lives.
    #[cold]
    pub(crate) fn is_expected(&mut self, moment: Moment, tuple: &Tuple) -> bool {
        if self.directory.find(tuple) != Some(self.number) {
            return false;
        }
        let Some(expectation) = self.expectations.find(tuple, moment) else { return false };
        self.if_live(Slot::new(expectation.parent, Direction::Original), moment).is_some()
    }

    /// What is expected of a packet that starts a connection, if its parent lives. Its mark and label are its
    /// parent's.
    #[cold]
    pub(crate) fn expected(&mut self, packet: &mut Packet<'_>, tuple: &Tuple) -> Option<Expectation> {
        if self.is_one_of_many && !self.is_expected(packet.moment, tuple) {
            return None;
        }
        let expectation = self.expectations.find(tuple, packet.moment)?;
        let parent = self.if_live(Slot::new(expectation.parent, Direction::Original), packet.moment)?.index();
        let connection = self.table.connection(parent);
        packet.meta.state = packet.meta.state.with(CtState::REL);
        packet.meta.mark = connection.mark();
        packet.meta.label = if connection.has(flag::LABEL) { self.table.cold(parent).label() } else { 0 };
        packet.meta.original = Some(self.table.tuple(parent, Direction::Original));
        Some(expectation)
    }

    /// The reply tuple of an expected connection, which its control connection's translation settles but for the
    /// port that its caller shows.
    #[cold]
    pub(crate) fn expected_reply(
        &mut self,
        packet: &Packet<'_>,
        tuple: &Tuple,
        expectation: &Expectation,
    ) -> Result<Tuple, Outcome> {
        for caller_port in caller_ports(tuple, expectation) {
            let Some(reply) = expectation.reply(tuple, caller_port) else { break };
            let owner = self.table.find(&reply, self.table.hash(&reply));
            if owner.and_then(|slot| self.if_live(slot, packet.moment)).is_none() {
                return Ok(reply);
            }
        }
        Err(self.expected_exhausted())
    }

    /// No port is left that the caller could show.
    pub(crate) const fn expected_exhausted(&mut self) -> Outcome {
        self.counters.nat_exhausted += 1;
        Outcome::Drop(DropReason::NatExhausted)
    }

    /// Makes a connection that was just inserted for `tuple` the expected one.
    #[cold]
    pub(crate) fn adopt(
        &mut self,
        packet: &Packet<'_>,
        tuple: &Tuple,
        index: u32,
        expectation: &Expectation,
        translated: bool,
    ) {
        if let Some(parent) = &packet.meta.original {
            self.table.set_parent(index, parent);
        }
        self.table.cold_mut(index).set_label(packet.meta.label);
        let connection = self.table.connection_mut(index);
        connection.set_mark(packet.meta.mark);
        connection.set(flag::LABEL, packet.meta.label != 0);
        if translated {
            connection.set(flag::SOURCE_NAT | flag::DESTINATION_NAT, false);
            let flag = if expectation.has_other_target() { flag::DESTINATION_NAT } else { flag::SOURCE_NAT };
            connection.set(flag, true);
        }
        if self.is_one_of_many {
            self.directory.connect(*tuple, self.number);
        }
        self.expectations.remove(expectation);
        self.counters.expected += 1;
    }

    /// Brings the numbers of a translated segment of an edited connection into those that its receiver knows, and
    /// says what is to change in its payload.
    #[cold]
    pub(crate) fn adjust(&mut self, packet: &mut Packet<'_>, slot: Slot) -> Outcome {
        const DONE: Outcome = Outcome::Continue { rewritten: true };
        let companion = self.table.cold(slot.index()).companion();
        let own = self.companions.stream(companion, slot.direction());
        let other = self.companions.stream(companion, slot.direction().opposite());
        let mut edits = Edits::new();
        if let Some(own) = own
            && let Some((seq, payload)) = segment(packet.frame, packet.layers)
        {
            edits = own.edits_in(seq, u16::try_from(payload.len()).unwrap_or(u16::MAX));
        }
        let tcp = packet.layers.l4_bytes_mut(packet.frame);
        let Some((header, options)) = tcp.split_first_chunk_mut::<20>() else { return DONE };
        let options_len = (usize::from(header[12] >> 4) * 4).saturating_sub(20);
        let options = options.get_mut(..options_len).unwrap_or_default();
        let mut delta = Delta::NONE;
        if let Some(own) = own {
            let old = [header[4], header[5], header[6], header[7]];
            let new = own.forward(u32::from_be_bytes(old)).to_be_bytes();
            delta.change4(old, new);
            [header[4], header[5], header[6], header[7]] = new;
        }
        if let Some(other) = other {
            if header[13] & ACK != 0 {
                let old = [header[8], header[9], header[10], header[11]];
                let new = other.backward(u32::from_be_bytes(old), Round::Down).to_be_bytes();
                delta.change4(old, new);
                [header[8], header[9], header[10], header[11]] = new;
            }
            selective_acknowledgements(
                options,
                |left, right| {
                    let (from, to) = (other.backward(left, Round::Up), other.backward(right, Round::Down));
                    // A block inside an inserted text holds no whole byte of the sender's.
                    if to.wrapping_sub(from).cast_signed() < 0 { (from, from) } else { (from, to) }
                },
                &mut delta,
            );
        }
        [header[16], header[17]] = delta.apply([header[16], header[17]]);
        if edits.is_empty() {
            return DONE;
        }
        self.counters.edited += 1;
        self.edits = edits;
        Outcome::Edit
    }

    /// What is to change in the payload of the packet that [`Shard::execute`] has just said this of.
    pub fn take_edits(&mut self) -> Edits {
        core::mem::take(&mut self.edits)
    }

    /// Data connections that are expected.
    #[must_use]
    pub fn expectations(&self) -> usize {
        self.expectations.len()
    }

    /// What is kept beside the table for connections that helpers have to do with.
    #[must_use]
    pub fn companions(&self) -> usize {
        self.companions.len()
    }

    /// Shows up to `limit` of what is expected to `visit`, the oldest first, beginning with number `from` (0 at
    /// first). Gives the number to go on with, or `None` when all were shown.
    pub fn dump_expectations(
        &self,
        now: Millis,
        from: u64,
        limit: usize,
        visit: &mut dyn FnMut(&ExpectationView),
    ) -> Option<u64> {
        let moment = self.clock.peek(now);
        let (page, next) = self.expectations.page(from, limit);
        for expectation in page.filter(|expectation| expectation.remaining(moment) > 0) {
            let parent = self.table.connection(expectation.parent);
            if parent.deadline().is_past(moment) {
                continue;
            }
            visit(&ExpectationView {
                original: expectation.tuple,
                target: expectation.target,
                parent: self.table.tuple(expectation.parent, Direction::Original),
                zone: expectation.tuple.zone(),
                mark: parent.mark(),
                label: self.table.cold(expectation.parent).label(),
                remaining: expectation.remaining(moment),
                helper: expectation.helper,
            });
        }
        next
    }
}

const ACK: u8 = 0x10;

/// Sequence number and payload of a TCP segment.
fn segment<'f>(frame: &'f [u8], layers: &Layers) -> Option<(u32, &'f [u8])> {
    let l4 = layers.l4_bytes(frame);
    let header = l4.first_chunk::<20>()?;
    let payload = l4.get(usize::from(header[12] >> 4) * 4..)?;
    Some((u32::from_be_bytes([header[4], header[5], header[6], header[7]]), payload))
}

/// `wanted`, then those above it, going round within the ports that anybody may use.
fn ports_from(wanted: u16, probes: u16) -> impl Iterator<Item = u16> {
    let mut port = wanted;
    (0..probes).map(move |_| {
        let this = port;
        port = port.checked_add(1).map_or(LOWEST_PORT, |next| next.max(LOWEST_PORT));
        this
    })
}

/// The tuple of a call from `port` to where `expected` is announced.
fn called_from(expected: &Tuple, port: u16) -> Option<Tuple> {
    let (src, dst) = (expected.src(), expected.dst());
    Tuple::new(src, dst, port, expected.dst_port(), expected.protocol(), expected.zone())
}

/// The ports that the caller of an expected connection may show in place of its own: where its address is its own its
/// port is too.
pub(crate) fn caller_ports(tuple: &Tuple, expectation: &Expectation) -> impl Iterator<Item = u16> + use<> {
    let probes = if expectation.caller == tuple.src() { 1 } else { PORT_PROBES };
    ports_from(tuple.src_port(), probes)
}

/// Changes the blocks of each SACK option (kind 5, RFC 2018 section 3) as `change` says.
fn selective_acknowledgements(
    options: &mut [u8],
    change: impl Fn(u32, u32) -> (u32, u32),
    delta: &mut Delta,
) {
    let mut at = 0;
    while let Some(kind) = options.get(at) {
        match kind {
            0 => return,
            1 => {
                at += 1;
                continue;
            }
            _ => {}
        }
        let Some(length) =
            options.get(at + 1).map(|length| usize::from(*length)).filter(|length| *length >= 2)
        else {
            return;
        };
        if *kind == 5
            && let Some(blocks) = options.get_mut(at + 2..at + length)
        {
            let (blocks, _) = blocks.as_chunks_mut::<8>();
            for block in blocks {
                let [a, b, c, d, e, f, g, h] = *block;
                let (left, right) =
                    change(u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]));
                let ([a, b, c, d], [e, f, g, h]) = (left.to_be_bytes(), right.to_be_bytes());
                let new = [a, b, c, d, e, f, g, h];
                // The header in front of the options has an even length.
                delta.change_at(at % 2 != 0, &*block, &new);
                *block = new;
            }
        }
        at += length;
    }
}
