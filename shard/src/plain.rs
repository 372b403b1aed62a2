//! The three stages for what nearly every packet is: one of TCP or UDP over IPv4, in one piece and valid, of a connection
//! that is established and has nothing about it that takes more than tracking and translating; or one that is found new
//! by a `ct` and starts its connection at the next. Such a packet takes half a cache line on its way through them. Of any
//! other the last stage says so, having done nothing, and the packet goes through the stages of
//! [`lookup`](crate::lookup), which do all that there is to do. Only what a tracker takes for something else than
//! established is taken to its end here, as it would be there.

use weir_nat::rewrite::translate_v4;
use weir_wire::extract::ChecksumTrust;
use weir_wire::numbers::protocol;
use weir_wire::{Layers, Tuple, Tuple4};

use crate::action::CtAction;
use crate::clock::{Deadline, Millis, Moment};
use crate::conntrack::{Packet, translation_state};
use crate::datagram;
use crate::lookup::{Lookup, Target};
use crate::meta::CtMeta;
use crate::outcome::{DropReason, Outcome};
use crate::shard::Shard;
use crate::state::CtState;
use crate::table::bucket::{Direction, HINTS, Slot};
use crate::table::connection::flag;
use crate::tcp::{self, Segment};
use crate::timeouts::Timeout;
use crate::translation::DraftNumber;
use crate::verdict::Verdict;

/// A plain packet on its way to [`Shard::execute_plain`].
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct PlainLookup {
    tuple: Tuple4,
    hash: u64,
    /// What stage 2 has found, where there is a hint; of a packet without a connection the number of its draft.
    found: u32,
    hint: u16,
    /// [`Layers::l3_end`], 0 of a packet that is not plain.
    end: u16,
}

const _: () = assert!(size_of::<PlainLookup>() == 32);

/// In place of a hint, of packets without a connection.
const NO_CONNECTION: u16 = HINTS;

impl PlainLookup {
    /// True of a plain packet, of which the other methods tell.
    #[inline]
    #[must_use]
    pub const fn is_plain(&self) -> bool {
        self.end != 0
    }

    /// Reads a frame that no `ct` action has seen and that is to be looked up in `zone`: what it is, and if it is valid.
    #[inline(always)]
    pub fn read(&mut self, frame: &[u8], zone: u16, checksum_trusted: bool) {
        let trust = if checksum_trusted { ChecksumTrust::ALL } else { ChecksumTrust::NONE };
        (self.hint, self.end) = (0, 0);
        if let Some((tuple, end)) = Tuple4::read_plain(frame, zone, trust) {
            (self.tuple, self.end) = (tuple, end);
        }
    }

    /// The packet after stage 1 of those that do everything; `None` of one that is not plain.
    #[must_use]
    pub fn to_lookup(&self) -> Option<Lookup> {
        let Self { tuple, hash, .. } = *self;
        self.is_plain().then(|| Lookup::of(Target::Packet(Tuple::V4(tuple)), hash, tuple.zone))
    }

    /// As [`Lookup::hint`], or [`HINTS`], which is none, of a packet [without a connection](Self::has_no_connection).
    #[inline]
    #[must_use]
    pub const fn hint(&self) -> u16 {
        self.hint
    }

    /// True after stage 2 if there was no sign of a connection of this packet in the table.
    #[inline]
    #[must_use]
    pub const fn has_no_connection(&self) -> bool {
        self.hint == NO_CONNECTION
    }

    /// The connection that it seems to be of, where it has a hint.
    #[inline]
    const fn slot(&self) -> Slot {
        Slot(self.found)
    }

    /// Forgets the hint.
    #[inline]
    pub const fn clear_hint(&mut self) {
        self.hint = 0;
    }

    /// TCP or UDP.
    #[inline]
    #[must_use]
    pub const fn protocol(&self) -> u8 {
        self.tuple.protocol
    }

    /// What [`Layers::parse`] says of the frame.
    #[inline]
    #[must_use]
    pub const fn layers(&self) -> Layers {
        Layers::plain(self.tuple.protocol, self.end)
    }
}

/// What plain packets that go to the same `ct` action at the same time have in common.
#[derive(Clone, Copy, Debug)]
pub struct PlainRun<'a> {
    action: &'a CtAction,
    moment: Moment,
    /// When connections end that are in the state that nearly all are in, [`Timeout::TcpEstablished`]
    tcp: Deadline,
    /// and [`Timeout::UdpMultiple`].
    udp: Deadline,
}

/// What has become of a plain packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Met {
    /// It is established, tracked, translated if that was asked for, and this is its ct_state.
    Established(CtState),
    /// Nothing: it is for [`Shard::execute`].
    Nothing,
    /// The same as by [`Shard::execute`].
    Done(Outcome),
}

impl Shard {
    /// True if packets of this action may be plain: those of established connections leave no trace but in the tracker
    /// and the account.
    #[must_use]
    pub fn takes_plain(&self, action: &CtAction) -> bool {
        let sets = action.mark.is_some() || action.label.is_some() || action.helper.is_some();
        !(action.commit && (sets || action.force)) && !self.events.listening()
    }

    /// Stage 1: hashes the tuples of a burst and asks for their index buckets. With nothing else between them, these arrive
    /// together: each is on a page of its own, which takes the CPU longer to find than to hash a tuple.
    #[inline(always)]
    pub fn prepare_plain(&self, lookups: &mut [PlainLookup]) {
        for lookup in lookups.iter_mut().filter(|lookup| lookup.is_plain()) {
            lookup.hash = self.table.hash4(&lookup.tuple);
            self.table.prefetch_bucket(lookup.hash);
        }
    }

    /// Stage 2: as [`Shard::prefetch_connection`], of packets with hints.
    #[inline(always)]
    pub fn prefetch_plain(&self, lookups: &mut [PlainLookup]) {
        for lookup in lookups.iter_mut().filter(|lookup| lookup.is_plain()) {
            (lookup.found, lookup.hint) = match self.table.candidate(lookup.hash) {
                Some((slot, hint)) => (slot.0, hint),
                None => (0, NO_CONNECTION),
            };
        }
        for lookup in lookups.iter().filter(|lookup| lookup.hint != 0 && !lookup.has_no_connection()) {
            self.table.prefetch_connection(lookup.slot(), false);
        }
    }

    /// The rest of stage 2, of a packet with a hint.
    #[inline(always)]
    pub fn prefetch_plain_account(&self, lookup: &PlainLookup) {
        self.table.prefetch_account(lookup.slot(), lookup.protocol());
    }

    /// The same of one [without a connection](PlainLookup::has_no_connection): as [`Shard::foresee`], of one that `action`
    /// is to start.
    #[inline]
    pub fn foresee_plain(&mut self, lookup: &mut PlainLookup, action: &CtAction) {
        lookup.found = self.draft(&Tuple::V4(lookup.tuple), lookup.hash, action).to_bits();
    }

    /// Begins a run of plain packets to an action that [may have them](Shard::takes_plain), or that
    /// [starts their connections](Shard::open_plain). It holds until anything else is done to the shard.
    #[inline]
    pub fn begin_plain<'a>(&mut self, now: Millis, action: &'a CtAction) -> PlainRun<'a> {
        let moment = self.clock.advance(now);
        let timeouts = self.zones.timeouts(action.zone);
        let [tcp, udp] = [Timeout::TcpEstablished, Timeout::UdpMultiple]
            .map(|timeout| Deadline::after(moment, timeouts.milliseconds(timeout)));
        PlainRun { action, moment, tcp, udp }
    }

    /// Stage 3: as [`Shard::execute`] of a packet with a hint that no action has seen. `meta`, which is an untracked
    /// packet's, is only written where it is [`Met::Done`]; [`Shard::show_plain`] makes it up.
    #[inline(always)]
    pub fn execute_plain(
        &mut self,
        run: &PlainRun<'_>,
        frame: &mut [u8],
        lookup: &PlainLookup,
        meta: &mut CtMeta,
    ) -> Met {
        const APART: u16 = flag::ASSISTED | flag::MIRROR;
        let row = self.table.row(lookup.slot());
        let flags = row.connection.flags();
        if !row.is_of(&lookup.tuple) || flags & APART != 0 || row.connection.deadline().is_past(run.moment) {
            return Met::Nothing;
        }
        if lookup.protocol() == protocol::UDP {
            if !datagram::is_answered(row.connection.state()) {
                return Met::Nothing;
            }
            let judged = (Verdict::Established, Some(Timeout::UdpMultiple));
            if row.renew(protocol::UDP, judged, run.moment, frame.len(), |_| run.udp) {
                self.arm_earlier(lookup.slot().index());
            }
        } else if let Some(met) = self.track_plain(run, frame, lookup, meta) {
            return met;
        }
        self.counters.established += 1;
        let direction = lookup.slot().direction();
        let mut state = CtState::TRK.with(CtState::EST);
        if direction == Direction::Reply {
            state = state.with(CtState::RPL);
        }
        if run.action.nat.is_some() && flags & (flag::SOURCE_NAT | flag::DESTINATION_NAT) != 0 {
            let to = self.table.row(lookup.slot()).translation();
            if translate_v4(frame, &lookup.layers(), &to).is_err() {
                return Met::Done(self.drop_untranslated(DropReason::Untranslatable));
            }
            state = state.with(translation_state(flags, direction));
        }
        Met::Established(state)
    }

    /// True if packets without a connection may be plain that go to a `ct` which does not commit and then to one of the same
    /// zone which does. While any shard expects a connection, that may say what one becomes, and where.
    #[inline]
    #[must_use]
    pub fn opens_plain(&self) -> bool {
        self.expectations.is_empty() && self.directory.is_empty()
    }

    /// Stage 3 of a packet [without a connection](PlainLookup::has_no_connection): as [`Shard::execute`] twice, by the
    /// two actions as [`Shard::opens_plain`] says, of which this is the run of the second. Gives what that one comes to;
    /// `None` of a packet for [`Shard::execute`], to which nothing was done.
    #[inline]
    pub fn open_plain(
        &mut self,
        run: &PlainRun<'_>,
        frame: &mut [u8],
        lookup: &PlainLookup,
        meta: &mut CtMeta,
    ) -> Option<Outcome> {
        let (layers, tuple) = (lookup.layers(), Tuple::V4(lookup.tuple));
        let PlainRun { action, moment, .. } = *run;
        let draft = DraftNumber::from_bits(lookup.found);
        let mut packet = Packet { moment, frame, layers: &layers, action, meta, again: true, draft };
        // A packet in front of it may have started its connection, or announced it.
        let is_first = self.table.find(&tuple, lookup.hash).is_none() && packet.may_start(&tuple);
        let is_others = self.is_one_of_many && self.whose(&tuple).is_some();
        if !is_first || is_others || !self.opens_plain() {
            return None;
        }
        self.counters.new += 1;
        Some(self.start(&mut packet, &tuple, lookup.hash))
    }

    /// Shows a segment to its connection's tracker. What has become of it, unless it is one of an established connection.
    #[inline(never)]
    fn track_plain(
        &mut self,
        run: &PlainRun<'_>,
        frame: &mut [u8],
        lookup: &PlainLookup,
        meta: &mut CtMeta,
    ) -> Option<Met> {
        let Some(segment) = Segment::parse(frame, &lookup.layers()) else { return Some(Met::Nothing) };
        let direction = lookup.slot().direction();
        let row = self.table.row(lookup.slot());
        let [source, destination] =
            [direction, direction.opposite()].map(|side| row.connection.peer_mut(side));
        let judged = tcp::track(source, destination, &segment, self.liberal_tcp);
        let timeouts = self.zones.timeouts(run.action.zone);
        let after = |timeout| match timeout {
            Timeout::TcpEstablished => run.tcp,
            _ => Deadline::after(run.moment, timeouts.milliseconds(timeout)),
        };
        if row.renew(protocol::TCP, judged, run.moment, frame.len(), after) {
            self.arm_earlier(lookup.slot().index());
        }
        match judged.0 {
            Verdict::Established => None,
            verdict => Some(self.conclude_plain(run, frame, lookup, verdict, meta)),
        }
    }

    /// The fields of a packet that [`Shard::execute_plain`] has found to be established, and its outcome.
    #[cold]
    pub fn show_plain(&self, run: &PlainRun<'_>, lookup: &PlainLookup, state: CtState) -> (CtMeta, Outcome) {
        let mut meta = CtMeta { state, zone: run.action.zone, ..CtMeta::default() };
        self.show(&mut meta, lookup.slot());
        let rewritten = state.0 & (CtState::SNAT.0 | CtState::DNAT.0) != 0;
        (meta, Outcome::Continue { rewritten })
    }

    /// A segment that the tracker takes for something else than one of an established connection.
    #[cold]
    fn conclude_plain(
        &mut self,
        run: &PlainRun<'_>,
        frame: &mut [u8],
        lookup: &PlainLookup,
        verdict: Verdict,
        meta: &mut CtMeta,
    ) -> Met {
        meta.zone = run.action.zone;
        let (layers, tuple) = (lookup.layers(), Tuple::V4(lookup.tuple));
        let PlainRun { action, moment, .. } = *run;
        let mut packet =
            Packet { moment, frame, layers: &layers, action, meta, again: false, draft: DraftNumber::NONE };
        Met::Done(self.conclude(&mut packet, &tuple, lookup.hash, lookup.slot(), verdict))
    }
}
