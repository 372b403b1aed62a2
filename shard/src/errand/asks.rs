//! Getting a tuple whose home is another shard. A commit that needs one ends as
//! [`Outcome::Elsewhere`](crate::Outcome::Elsewhere) with what it asks for in its errand; the shards on its way answer
//! here, and back at the asker the commit runs anew with the answer in hand. See the parent module for the rules.

use std::net::IpAddr;

use arrayvec::ArrayVec;
use weir_nat::NatAction;
use weir_nat::choose::ChooseError;
use weir_wire::Tuple;
use weir_wire::extract::ChecksumTrust;

use super::{Errand, Reason};
use crate::assist::caller_ports;
use crate::clock::Moment;
use crate::conntrack::{Packet, UNTOUCHED};
use crate::expectations::Expectation;
use crate::lookup::Target;
use crate::outcome::Outcome;
use crate::shard::Shard;
use crate::steering::ShardNumber;
use crate::table::bucket::Direction;
use crate::table::connection::flag;

/// Refused tuples after which a packet gives up. One shard would look at 4096; but these travel, and only translations
/// that choose no port (destinations, protocols without ports) ask for one tuple after the other.
pub(crate) const MAX_REFUSALS: usize = 16;

/// Steps of one packet's asks: four for each refusal and for the tuple that is given, and two rounds of 64 shards.
const MAX_STEPS: u16 = 4 * (MAX_REFUSALS as u16 + 1) + 2 * 64;

/// What a packet asks for and has been given.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Asking {
    /// Who commits the connection in the end.
    asker: ShardNumber,
    stage: Stage,
    /// The connection's own tuple, given by its home.
    original: Option<Tuple>,
    /// The reply tuple, given by its home.
    reply: Option<Tuple>,
    /// Reply tuples that are others'.
    refused: ArrayVec<Tuple, MAX_REFUSALS>,
    /// No shard has a port left.
    is_drawn_out: bool,
    /// Of the expected data connection that it asks for: another one's answers are of no use.
    target: Option<(IpAddr, u16)>,
    steps: u16,
}

/// What is to be done where the packet arrives.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stage {
    /// Its commit, with all answers.
    Answered,
    /// At the tuple's home: give it away.
    Reserve { tuple: Tuple, is_challenged: bool },
    /// At the owner that a redirect names: end its connection if that has expired.
    Challenge { tuple: Tuple },
    /// Give away any tuple of the packet's range.
    Draw { is_second: bool, has_swept: bool },
}

/// Where a reply tuple stands with the shard that wants it.
enum Standing {
    Free,
    Taken,
    Ask(ShardNumber, Stage),
}

impl Asking {
    /// Nothing so far.
    fn new(asker: ShardNumber) -> Self {
        Self {
            asker,
            stage: Stage::Answered,
            original: None,
            reply: None,
            refused: ArrayVec::new(),
            is_drawn_out: false,
            target: None,
            steps: 0,
        }
    }

    /// The packet takes its own tuple along to `owner`.
    pub(super) fn with_original(owner: ShardNumber, tuple: Tuple) -> Self {
        Self { original: Some(tuple), ..Self::new(owner) }
    }

    fn answer(&mut self) -> ShardNumber {
        self.stage = Stage::Answered;
        self.asker
    }

    fn refuse(&mut self, tuple: Tuple) -> ShardNumber {
        // Nobody asks with a full list.
        let _ = self.refused.try_push(tuple);
        self.answer()
    }
}

impl Shard {
    /// The reply tuple of a new connection, where there are other shards: free in the table and at its home. Else what
    /// becomes of the packet, which may be that it goes and asks.
    #[cold]
    pub(crate) fn choose_among_many(
        &mut self,
        packet: &mut Packet<'_>,
        tuple: &Tuple,
        hash: u64,
        expected: Option<&Expectation>,
    ) -> Result<Tuple, Outcome> {
        self.forget_answers_to_others(expected);
        let asking = self.arrived.as_ref().and_then(|errand| errand.asking.as_deref());
        let (original, reply) = asking.map_or((None, None), |asking| (asking.original, asking.reply));
        if self.steering.home(tuple) != self.number && original != Some(*tuple) {
            // The home could give away no more.
            self.counters.refused_by_home += 1;
            return Err(packet.refused());
        }
        if let Some(reply) = reply {
            return Ok(reply);
        }
        if let Some(expected) = expected {
            return self.expected_among_many(packet, tuple, expected);
        }
        match packet.action.nat {
            Some(nat @ (NatAction::Source(_) | NatAction::Destination(_))) => {
                self.translate_among_many(packet, &nat, tuple, hash)
            }
            Some(NatAction::Apply) | None => self.settle_standing(packet, tuple, &tuple.reversed(), None),
        }
    }

    /// Draws a port that leads home where there are ports to draw from, and a port of others when those are used up.
    /// Else tries one tuple after the other.
    fn translate_among_many(
        &mut self,
        packet: &mut Packet<'_>,
        nat: &NatAction,
        tuple: &Tuple,
        hash: u64,
    ) -> Result<Tuple, Outcome> {
        let draws = self.draws_at_home(nat, tuple);
        let chosen = if draws {
            self.draw(packet.moment, nat, tuple, hash)
        } else {
            self.next_candidate(packet.moment, nat, tuple, hash)
        };
        match chosen {
            Ok(reply) if draws => Ok(reply),
            Ok(reply) => self.settle_standing(packet, tuple, &reply, None),
            Err(ChooseError::Exhausted { .. })
                if matches!(nat, NatAction::Source(_))
                    && (draws || !self.has_refusals_left())
                    && !self.is_drawn_out() =>
            {
                let stage = Stage::Draw { is_second: false, has_swept: false };
                Err(self.ask(packet, self.after(self.number), stage, None))
            }
            Err(error) => Err(self.not_chosen(packet, *nat, error)),
        }
    }

    /// As [`Shard::expected_reply`].
    fn expected_among_many(
        &mut self,
        packet: &mut Packet<'_>,
        tuple: &Tuple,
        expected: &Expectation,
    ) -> Result<Tuple, Outcome> {
        if !self.has_refusals_left() {
            return Err(self.expected_exhausted());
        }
        for caller_port in caller_ports(tuple, expected) {
            let Some(reply) = expected.reply(tuple, caller_port) else { break };
            match self.standing(packet.moment, tuple, &reply) {
                Standing::Free => return Ok(reply),
                Standing::Taken => {}
                Standing::Ask(to, stage) => return Err(self.ask(packet, to, stage, Some(expected))),
            }
        }
        Err(self.expected_exhausted())
    }

    /// The reply tuple if it is free here; else the packet asks for it, or another connection owns it.
    fn settle_standing(
        &mut self,
        packet: &mut Packet<'_>,
        tuple: &Tuple,
        reply: &Tuple,
        expected: Option<&Expectation>,
    ) -> Result<Tuple, Outcome> {
        match self.standing(packet.moment, tuple, reply) {
            Standing::Free => Ok(*reply),
            Standing::Ask(to, stage) => Err(self.ask(packet, to, stage, expected)),
            Standing::Taken => {
                self.counters.refused_by_clash += 1;
                Err(UNTOUCHED)
            }
        }
    }

    fn standing(&mut self, moment: Moment, original: &Tuple, reply: &Tuple) -> Standing {
        if reply == original {
            return Standing::Free;
        }
        if self.refusals().contains(reply) || self.has_live(moment, reply) {
            return Standing::Taken;
        }
        let home = self.steering.home(reply);
        if home != self.number {
            return Standing::Ask(home, Stage::Reserve { tuple: *reply, is_challenged: false });
        }
        match self.redirects.owner(reply) {
            Some(owner) => Standing::Ask(owner, Stage::Challenge { tuple: *reply }),
            None => Standing::Free,
        }
    }

    /// True if a connection that has not expired has this tuple here. One that has is ended.
    fn has_live(&mut self, moment: Moment, tuple: &Tuple) -> bool {
        let found = self.table.find(tuple, self.table.hash(tuple));
        found.and_then(|slot| self.if_live(slot, moment)).is_some()
    }

    fn asking(&self) -> Option<&Asking> {
        self.arrived.as_ref()?.asking.as_deref()
    }

    fn refusals(&self) -> &[Tuple] {
        self.asking().map_or(&[], |asking| &asking.refused)
    }

    fn has_refusals_left(&self) -> bool {
        self.refusals().len() < MAX_REFUSALS
    }

    fn is_drawn_out(&self) -> bool {
        self.asking().is_some_and(|asking| asking.is_drawn_out)
    }

    /// The shard after this one, in the order in which packets go round.
    fn after(&self, number: ShardNumber) -> ShardNumber {
        ShardNumber::new((number.index() + 1) % self.steering.shards()).unwrap_or_default()
    }

    /// What was asked for while something else was expected is given back.
    fn forget_answers_to_others(&mut self, expected: Option<&Expectation>) {
        let target = expected.map(|expected| expected.target);
        let Some(asking) = self.arrived.as_mut().and_then(|errand| errand.asking.as_deref_mut()) else {
            return;
        };
        if asking.target == target {
            return;
        }
        asking.target = target;
        asking.refused.clear();
        asking.is_drawn_out = false;
        if let Some(reply) = asking.reply.take() {
            self.release(reply);
        }
    }

    /// A reply tuple of the range with its home here, free and not given away. If there is none, what is due is swept.
    fn draw(
        &mut self,
        moment: Moment,
        nat: &NatAction,
        tuple: &Tuple,
        hash: u64,
    ) -> Result<Tuple, ChooseError> {
        let reply = self.choose_at_home(moment, nat, tuple, hash)?;
        // What has expired makes way at once.
        let _ = self.has_live(moment, &reply);
        Ok(reply)
    }

    /// The first reply tuple, in the order of one shard alone, that is neither taken here nor was refused.
    fn next_candidate(
        &mut self,
        moment: Moment,
        nat: &NatAction,
        tuple: &Tuple,
        hash: u64,
    ) -> Result<Tuple, ChooseError> {
        if !self.has_refusals_left() {
            return Err(ChooseError::Exhausted { probes: u32::from(MAX_STEPS) });
        }
        let refused: ArrayVec<Tuple, MAX_REFUSALS> = self.refusals().iter().copied().collect();
        let chosen = self.candidate(moment, nat, tuple, hash, &refused);
        if !self.occupancy.is_empty() {
            // What was refused may be free at this home by now: nobody would tell the boards.
            refused.iter().for_each(|reply| self.occupancy.release(reply));
        }
        chosen
    }

    /// Sends the packet to ask.
    fn ask(
        &mut self,
        packet: &mut Packet<'_>,
        to: ShardNumber,
        stage: Stage,
        expected: Option<&Expectation>,
    ) -> Outcome {
        let mut errand = self.arrived.take().unwrap_or_default();
        let number = self.number;
        let asking = errand.asking.get_or_insert_with(|| Box::new(Asking::new(number)));
        (asking.asker, asking.stage) = (number, stage);
        asking.target = expected.map(|expected| expected.target);
        self.send(packet, errand, to)
    }

    /// Sends a packet on that asks or was answered.
    fn send(&mut self, packet: &mut Packet<'_>, mut errand: Errand, to: ShardNumber) -> Outcome {
        let steps = errand.asking.as_mut().map_or(MAX_STEPS, |asking| {
            asking.steps += 1;
            asking.steps
        });
        if steps > MAX_STEPS {
            return self.lose(errand);
        }
        self.counters.asks += 1;
        self.depart(packet, errand, to, Reason::Tuple)
    }

    /// A packet has arrived: answers what it asks for and sends it on, or executes it if it is to be executed here.
    #[cold]
    pub(super) fn serve(&mut self, packet: &mut Packet<'_>, mut errand: Errand) -> Outcome {
        while let Some(asking) = errand.asking.as_deref_mut() {
            let to = match asking.stage {
                Stage::Answered => break,
                Stage::Reserve { tuple, is_challenged } => {
                    self.answer_reserve(packet.moment, asking, tuple, is_challenged)
                }
                Stage::Challenge { tuple } => {
                    let is_live = self.has_live(packet.moment, &tuple);
                    if is_live && asking.asker == self.number {
                        asking.refuse(tuple)
                    } else {
                        asking.stage = Stage::Reserve { tuple, is_challenged: true };
                        self.steering.home(&tuple)
                    }
                }
                Stage::Draw { is_second, has_swept } => {
                    self.answer_draw(packet, asking, is_second, has_swept)
                }
            };
            if to != self.number {
                return self.send(packet, errand, to);
            }
        }
        self.arrived = Some(errand);
        self.execute_again(packet)
    }

    fn answer_reserve(
        &mut self,
        moment: Moment,
        asking: &mut Asking,
        tuple: Tuple,
        is_challenged: bool,
    ) -> ShardNumber {
        if self.has_live(moment, &tuple) {
            return asking.refuse(tuple);
        }
        match self.redirects.owner(&tuple) {
            Some(owner) if !is_challenged => {
                asking.stage = Stage::Challenge { tuple };
                owner
            }
            Some(_) => asking.refuse(tuple),
            None if asking.asker == self.number => asking.answer(),
            None => {
                if !self.give_away(tuple, asking.asker) {
                    return asking.refuse(tuple);
                }
                asking.reply = Some(tuple);
                asking.answer()
            }
        }
    }

    fn answer_draw(
        &mut self,
        packet: &Packet<'_>,
        asking: &mut Asking,
        is_second: bool,
        has_swept: bool,
    ) -> ShardNumber {
        let before = self.table.len();
        let target = Target::of(packet.frame, packet.layers, packet.action.zone, ChecksumTrust::ALL);
        if let (Some(nat), Some(tuple)) = (&packet.action.nat, target.tuple())
            && let Ok(reply) = self.draw(packet.moment, nat, tuple, self.table.hash(tuple))
        {
            if self.give_away(reply, asking.asker) {
                asking.reply = Some(reply);
            } else {
                asking.is_drawn_out = true;
            }
            return asking.answer();
        }
        let has_swept = has_swept || self.table.len() < before;
        let next = self.after(self.number);
        if next != asking.asker {
            asking.stage = Stage::Draw { is_second, has_swept };
            return next;
        }
        if has_swept && !is_second {
            // What has gone may have given tuples back to shards that were asked before.
            asking.stage = Stage::Draw { is_second: true, has_swept: false };
            return self.after(next);
        }
        asking.is_drawn_out = true;
        asking.answer()
    }

    /// Gives a free tuple, whose home this is, to another shard. False if no more may be given away.
    pub(super) fn give_away(&mut self, tuple: Tuple, owner: ShardNumber) -> bool {
        if self.redirects.insert(tuple, owner).is_err() {
            self.counters.redirects_refused += 1;
            return false;
        }
        if !self.occupancy.is_empty() {
            self.occupancy.take(&tuple);
        }
        true
    }

    /// Gives a tuple back to its home.
    pub(super) fn release(&mut self, tuple: Tuple) {
        let home = self.steering.home(&tuple);
        if home == self.number {
            self.take_back(&tuple);
        } else {
            self.notices.push(home, super::Notice::Release(tuple));
        }
    }

    /// A tuple that was given away has come back.
    pub(super) fn take_back(&mut self, tuple: &Tuple) {
        self.redirects.remove(tuple);
        if !self.occupancy.is_empty() {
            self.occupancy.release(tuple);
        }
    }

    /// Gives back what an errand was given and nobody has used.
    pub(super) fn release_given(&mut self, errand: &mut Errand) {
        let Some(asking) = errand.asking.take() else { return };
        for tuple in [asking.original, asking.reply].into_iter().flatten() {
            self.release(tuple);
        }
    }

    /// A connection was made: the tuples that were given for it are its own.
    #[inline]
    pub(crate) fn settle(&mut self, index: u32, original: &Tuple, reply: &Tuple) {
        if let Some(asking) = self.arrived.as_mut().and_then(|errand| errand.asking.as_deref_mut()) {
            asking.original.take_if(|given| given == original);
            asking.reply.take_if(|given| given == reply);
        }
        let is_foreign = |tuple: &Tuple| self.steering.home(tuple) != self.number;
        if is_foreign(original) || is_foreign(reply) {
            self.table.connection_mut(index).set(flag::REDIRECTED, true);
        }
    }

    /// A connection ends: its tuples go back to their homes.
    #[cold]
    pub(crate) fn unsettle(&mut self, index: u32) {
        let original = self.table.tuple(index, Direction::Original);
        let reply = self.table.tuple(index, Direction::Reply);
        for tuple in [Some(original), (reply != original).then_some(reply)].into_iter().flatten() {
            if self.steering.home(&tuple) != self.number {
                self.release(tuple);
            }
        }
    }
}
