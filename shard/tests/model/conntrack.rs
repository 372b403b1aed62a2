//! The model: connections in ordered maps, looked up by equality, expired by looking at all of them. Each rule is
//! written from the description of the behaviour, the RFCs and pf, and takes the slowest way that is plain.

use std::collections::BTreeMap;

use weir_nat::{NatAction, NatRange};
use weir_shard::{
    Carried as Sum, ConnectionView, CtAction, CtState, DropReason, EndCause, Outcome, ProtocolState,
    SctpState, Timeout, Timeouts, Traffic, WindowScale,
};

use crate::nat::{Chosen, End, Promises};
use crate::packet::{Body, Packet, frame};
use crate::tcp::{self, Judgement, Side};
use crate::tuple::{Key, Subject, Tuple, is_query, subject};

/// Never given twice.
pub type Id = u64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Original,
    Reply,
}

#[derive(Clone, Debug)]
pub struct Connection {
    pub original: Tuple,
    pub reply: Tuple,
    pub mark: u32,
    pub label: u128,
    pub created: u64,
    /// It is gone from then on.
    pub ends: u64,
    pub nat: Option<End>,
    pub tracked: Tracked,
    /// What it has carried, by direction.
    pub carried: [Sum; 2],
    /// When its last packet came.
    pub seen: u64,
}

#[derive(Clone, Debug)]
pub enum Tracked {
    Tcp([Side; 2]),
    /// UDP and whatever has no tracker of its own.
    Datagrams(Datagrams),
    /// SCTP's path that begins with data, which is all that is drawn here: picked up midway (RFC 9260 section 5.4).
    Path {
        answered: bool,
    },
    Query {
        answered: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Datagrams {
    One,
    SeveralInOneDirection,
    InBothDirections,
}

/// What somebody who listens must hear.
#[derive(Clone, Debug, PartialEq)]
pub struct Heard {
    /// The connection, to tell ends of equal ones apart.
    pub id: Id,
    pub what: What,
    pub connection: ConnectionView,
}

#[derive(Clone, Debug, PartialEq)]
pub enum What {
    New,
    Update(Vec<&'static str>),
    Destroy(EndCause),
}

/// What a packet carries from one ct action to the next.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Carried {
    pub state: CtState,
    pub zone: u16,
    pub mark: u32,
    pub label: u128,
    pub original: Option<Tuple>,
    pub connection: Option<(Id, Direction)>,
}

/// What was counted; names as the shard's.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    pub created: u64,
    pub expired: u64,
    pub flushed: u64,
    pub replaced: u64,
    pub refused_by_limit: u64,
    pub refused_by_zone_limit: u64,
    pub refused_by_full_table: u64,
    pub refused_by_clash: u64,
    pub nat_exhausted: u64,
    pub established: u64,
    pub new: u64,
    pub related: u64,
}

pub struct Model {
    pub connections: BTreeMap<Id, Connection>,
    /// Both tuples of every connection.
    pub owners: BTreeMap<Tuple, (Id, Direction)>,
    next_id: Id,
    pub promises: Promises,
    /// Packets are on their way with tuples that are nobody's yet: what is free may be refused.
    pub is_reserving: bool,
    /// How often that was so.
    pub forgiven: u64,
    /// The clock that was shown last, and the time that passed by it.
    pub shown: Option<u64>,
    pub now: u64,
    pub capacity: usize,
    pub max_connections: usize,
    pub liberal: bool,
    pub timeouts: Timeouts,
    pub zone_timeouts: BTreeMap<u16, Timeouts>,
    pub zone_limits: BTreeMap<u16, usize>,
    pub default_zone_limit: Option<usize>,
    pub counts: Counts,
    counts_packets: bool,
    /// Since somebody asked.
    pub events: Vec<Heard>,
}

/// The verification tag of both sides, as packets are written here.
const TAG: u32 = 7;

/// Milliseconds in the unit in which deadlines are kept.
const TICK: u64 = 16;

const CONTINUE: Outcome = Outcome::Continue { rewritten: false };

impl Model {
    pub fn new(capacity: usize, max_connections: usize, liberal: bool, timeouts: Timeouts) -> Self {
        Self {
            connections: BTreeMap::new(),
            owners: BTreeMap::new(),
            next_id: 0,
            promises: Promises::default(),
            is_reserving: false,
            forgiven: 0,
            shown: None,
            now: 0,
            capacity,
            max_connections,
            liberal,
            timeouts,
            zone_timeouts: BTreeMap::new(),
            zone_limits: BTreeMap::new(),
            default_zone_limit: None,
            counts: Counts::default(),
            counts_packets: true,
            events: Vec::new(),
        }
    }

    /// The clock shows `reading` (milliseconds). Time never runs back: a clock that is back by up to ten seconds is
    /// waited for, one that is back further was set. It never leaps by more than 64 days.
    pub fn look_at_clock(&mut self, reading: u64) {
        match self.shown {
            Some(shown) if reading >= shown => self.now += (reading - shown).min(64 * 86_400_000),
            Some(shown) if shown - reading <= 10_000 => return,
            _ => {}
        }
        self.shown = Some(reading);
        let gone: Vec<Id> =
            self.connections.iter().filter(|(_, c)| c.ends <= self.now).map(|(id, _)| *id).collect();
        for id in gone {
            self.end(id, EndCause::Timeout);
        }
    }

    fn end(&mut self, id: Id, cause: EndCause) {
        *match cause {
            EndCause::Timeout => &mut self.counts.expired,
            EndCause::Flush => &mut self.counts.flushed,
            EndCause::Force | EndCause::Reopened => &mut self.counts.replaced,
        } += 1;
        self.tell(id, What::Destroy(cause));
        self.connections.remove(&id);
        self.owners.retain(|_, (owner, _)| *owner != id);
    }

    /// Removes what `filter` holds for.
    pub fn flush(&mut self, filter: impl Fn(&Connection) -> bool) {
        let gone: Vec<Id> = self.connections.iter().filter(|(_, c)| filter(c)).map(|(id, _)| *id).collect();
        for id in gone {
            self.end(id, EndCause::Flush);
        }
    }

    fn tell(&mut self, id: Id, what: What) {
        if let Some(connection) = self.connections.get(&id) {
            let connection = self.view(connection);
            self.events.push(Heard { id, what, connection });
        }
    }

    /// A connection as it is shown.
    pub fn view(&self, connection: &Connection) -> ConnectionView {
        ConnectionView {
            original: connection.original.shown(),
            reply: connection.reply.shown(),
            zone: connection.original.zone,
            mark: connection.mark,
            label: connection.label,
            remaining: connection.ends.saturating_sub(self.now),
            age: self.now - connection.created,
            state: shown_state(&connection.tracked),
            scales: match &connection.tracked {
                Tracked::Tcp(sides) => sides.map(|side| side.scale),
                _ => [WindowScale::None; 2],
            },
            helper: None,
            parent: None,
            source_nat: connection.nat == Some(End::Source),
            destination_nat: connection.nat == Some(End::Destination),
            traffic: Some(Traffic {
                original: connection.carried[0],
                reply: connection.carried[1],
                // In whole ticks.
                idle: (self.now / TICK - connection.seen / TICK) * TICK,
            }),
        }
    }

    /// When a connection of `zone` ends that is silent from now on: not before its timeout, and on a whole tick.
    fn deadline(&self, zone: u16, timeout: Timeout) -> u64 {
        let timeouts = self.zone_timeouts.get(&zone).unwrap_or(&self.timeouts);
        (self.now + u64::from(timeouts.seconds(timeout)) * 1000).next_multiple_of(TICK)
    }

    /// One ct action. `choice` tells the reply tuple that the shard gave a new connection. An error is a difference.
    pub fn ct(
        &mut self,
        packet: &mut Packet,
        carried: &mut Carried,
        action: &CtAction,
        choice: &dyn Fn(Tuple) -> Option<Tuple>,
    ) -> Result<Outcome, String> {
        let tracked = carried.state.has(CtState::TRK);
        if tracked && carried.zone != action.zone {
            // "State is reset when a packet enters ct in another zone than its last one."
            *carried = Carried::default();
        }
        carried.zone = action.zone;
        // A packet that comes to a zone twice counts once.
        self.counts_packets = !carried.state.has(CtState::TRK);
        if let Some((id, direction)) = carried.connection {
            return self.meet_again(packet, carried, action, (id, direction), choice);
        }
        self.meet(packet, carried, action, choice)
    }

    /// A packet goes to another shard, to be decided there. If it makes its connection start anew, the old one has
    /// ended already; that may be so of two, one that the packet was found to be of in an earlier ct and one that it is
    /// of with its headers as they are by now.
    pub fn leave(&mut self, packet: &Packet, carried: &mut Carried, action: &CtAction, replaced: u64) {
        self.events.clear();
        let known = carried.connection.take();
        let known = known.filter(|(id, _)| carried.zone == action.zone && self.connections.contains_key(id));
        let tracked = carried.zone == action.zone && carried.state.has(CtState::TRK);
        // It begins anew, but is counted already.
        let state = if tracked { CtState::TRK } else { CtState::NONE };
        *carried = Carried { state, zone: action.zone, ..Carried::default() };
        let met = match subject(packet, action.zone) {
            Subject::Itself(tuple) => self.owners.get(&tuple).copied(),
            _ => None,
        };
        let replaced = usize::try_from(replaced).unwrap();
        for (id, _) in known.into_iter().chain(met).take(replaced) {
            self.end(id, EndCause::Force);
        }
    }

    /// A packet whose connection an earlier ct of the zone has found: it is not tracked twice.
    fn meet_again(
        &mut self,
        packet: &mut Packet,
        carried: &mut Carried,
        action: &CtAction,
        (id, direction): (Id, Direction),
        choice: &dyn Fn(Tuple) -> Option<Tuple>,
    ) -> Result<Outcome, String> {
        let is_valid = !carried.state.has(CtState::INV);
        let is_error = carried.state.has(CtState::REL);
        if !self.connections.contains_key(&id) {
            if is_translated(carried) {
                // It cannot be told what it was before.
                return Ok(Outcome::Drop(DropReason::Stale));
            }
            *carried = Carried { zone: carried.zone, ..Carried::default() };
            return self.meet(packet, carried, action, choice);
        }
        if is_valid && !is_error && replaces(action, direction) {
            self.end(id, EndCause::Force);
            *carried = Carried { zone: carried.zone, ..Carried::default() };
            return self.meet(packet, carried, action, choice);
        }
        if is_valid {
            self.commit_again(id, action);
            self.show(id, direction, carried);
        }
        Ok(self.translate(packet, carried, action))
    }

    fn meet(
        &mut self,
        packet: &mut Packet,
        carried: &mut Carried,
        action: &CtAction,
        choice: &dyn Fn(Tuple) -> Option<Tuple>,
    ) -> Result<Outcome, String> {
        match subject(packet, action.zone) {
            Subject::Nothing => {
                invalidate(carried);
                Ok(invalid(action))
            }
            Subject::Quoted(tuple) => {
                // "ICMP errors whose inner packet belongs to no connection".
                let Some(&(id, direction)) = self.owners.get(&tuple) else {
                    invalidate(carried);
                    return Ok(invalid(action));
                };
                self.counts.related += 1;
                set_state(carried, CtState::REL, direction);
                self.commit_again(id, action);
                self.show(id, direction, carried);
                Ok(self.translate(packet, carried, action))
            }
            Subject::Impossible(tuple) => {
                let owner = self.owners.get(&tuple).copied();
                Ok(self.meet_outside(packet, carried, action, owner))
            }
            Subject::Itself(tuple) => {
                let Some(&(id, direction)) = self.owners.get(&tuple) else {
                    return self.start(packet, carried, action, tuple, choice);
                };
                if replaces(action, direction) {
                    self.end(id, EndCause::Force);
                    return self.start(packet, carried, action, tuple, choice);
                }
                match self.track(id, direction, packet) {
                    Judgement::Established => {
                        self.counts.established += u64::from(self.counts_packets);
                        set_state(carried, CtState::EST, direction);
                    }
                    Judgement::New => {
                        self.counts.new += u64::from(self.counts_packets);
                        set_state(carried, CtState::NEW, Direction::Original);
                    }
                    Judgement::StartsAnew => {
                        self.end(id, EndCause::Reopened);
                        return self.start(packet, carried, action, tuple, choice);
                    }
                    Judgement::Invalid => {
                        return Ok(self.meet_outside(packet, carried, action, Some((id, direction))));
                    }
                }
                self.commit_again(id, action);
                self.show(id, direction, carried);
                Ok(self.translate(packet, carried, action))
            }
        }
    }

    /// An invalid segment: if it names a connection it wears that one's translation, so that no private address shows.
    fn meet_outside(
        &mut self,
        packet: &mut Packet,
        carried: &mut Carried,
        action: &CtAction,
        owner: Option<(Id, Direction)>,
    ) -> Outcome {
        invalidate(carried);
        let Some((id, direction)) = owner else { return invalid(action) };
        self.show(id, direction, carried);
        self.translate(packet, carried, action)
    }

    fn track(&mut self, id: Id, direction: Direction, packet: &Packet) -> Judgement {
        let (liberal, replied) = (self.liberal, direction == Direction::Reply);
        let Some(connection) = self.connections.get_mut(&id) else { return Judgement::Invalid };
        let before = connection.tracked.clone();
        let (judgement, timeout) = match (&mut connection.tracked, &packet.body) {
            (Tracked::Tcp(sides), Body::Tcp(segment)) => {
                tcp::next(sides, usize::from(replied), segment, liberal)
            }
            (Tracked::Query { answered }, _) => {
                *answered |= replied;
                match answered {
                    true => (Judgement::Established, Some(Timeout::IcmpReply)),
                    false => (Judgement::New, Some(Timeout::IcmpFirst)),
                }
            }
            (Tracked::Path { answered }, _) => {
                *answered |= replied;
                match answered {
                    true => (Judgement::Established, Some(Timeout::SctpEstablished)),
                    false => (Judgement::New, Some(Timeout::SctpHeartbeatSent)),
                }
            }
            (Tracked::Datagrams(state), _) => {
                if replied {
                    *state = Datagrams::InBothDirections;
                } else if *state == Datagrams::One {
                    *state = Datagrams::SeveralInOneDirection;
                }
                match state {
                    Datagrams::InBothDirections => (Judgement::Established, Some(Timeout::UdpMultiple)),
                    _ => (Judgement::New, Some(Timeout::UdpSingle)),
                }
            }
            (Tracked::Tcp(_), _) => (Judgement::Invalid, None),
        };
        let (changed, zone) = (is_other_state(&before, &connection.tracked), connection.original.zone);
        if matches!(judgement, Judgement::Established | Judgement::New) {
            self.count(id, direction, packet);
        }
        if let Some(timeout) = timeout {
            let ends = self.deadline(zone, timeout);
            self.connections.entry(id).and_modify(|connection| connection.ends = ends);
        }
        if changed {
            self.tell(id, What::Update(vec!["state"]));
        }
        judgement
    }

    /// A packet of the connection has gone by.
    fn count(&mut self, id: Id, direction: Direction, packet: &Packet) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let sum = &mut connection.carried[usize::from(direction == Direction::Reply)];
        sum.packets += 1;
        sum.bytes += frame(packet).len() as u64;
        connection.seen = self.now;
    }

    /// A packet of no connection.
    fn start(
        &mut self,
        packet: &mut Packet,
        carried: &mut Carried,
        action: &CtAction,
        tuple: Tuple,
        choice: &dyn Fn(Tuple) -> Option<Tuple>,
    ) -> Result<Outcome, String> {
        let first = match (&packet.body, tuple.key) {
            // "a SYN+ACK that belongs to no connection".
            (Body::Tcp(segment), _) => {
                tcp::first(segment).map(|sides| (Tracked::Tcp(sides), Timeout::TcpSynSent))
            }
            // "an ICMP reply as first packet".
            (_, Key::Query { kind, .. }) => {
                is_query(kind).then_some((Tracked::Query { answered: false }, Timeout::IcmpFirst))
            }
            (Body::Sctp { .. }, _) => Some((Tracked::Path { answered: false }, Timeout::SctpHeartbeatSent)),
            _ => Some((Tracked::Datagrams(Datagrams::One), Timeout::UdpFirst)),
        };
        let Some((tracked, timeout)) = first else {
            invalidate(carried);
            return Ok(invalid(action));
        };
        self.counts.new += u64::from(self.counts_packets);
        *carried = Carried {
            state: CtState::TRK.with(CtState::NEW),
            zone: action.zone,
            original: Some(tuple),
            ..Carried::default()
        };
        if !action.commit {
            return Ok(CONTINUE);
        }
        let (nat, range) = match &action.nat {
            Some(NatAction::Source(range)) => (Some(End::Source), Some(range)),
            Some(NatAction::Destination(range)) => (Some(End::Destination), Some(range)),
            Some(NatAction::Apply) | None => (None, None),
        };
        // "Refused: the packet goes on as +new, uncommitted", but never with its private address.
        let refused = match nat {
            Some(_) => Outcome::Drop(DropReason::NatRefused),
            None => CONTINUE,
        };
        // "a limit of 0 given for a zone admits none".
        let in_zone = self.connections.values().filter(|other| other.original.zone == action.zone).count();
        let limit = self.zone_limits.get(&action.zone).copied().or(self.default_zone_limit);
        if limit.is_some_and(|limit| in_zone >= limit) {
            self.counts.refused_by_zone_limit += 1;
            return Ok(refused);
        }
        if self.connections.len() >= self.max_connections {
            self.counts.refused_by_limit += 1;
            return Ok(refused);
        }
        let reply = match (nat, range) {
            (Some(end), Some(range)) => match self.choose(range, end, tuple, choice)? {
                Ok(reply) => reply,
                Err(outcome) => return Ok(outcome),
            },
            _ => tuple.reversed(),
        };
        if self.owners.contains_key(&reply) {
            // The reply tuple is somebody else's.
            self.counts.refused_by_clash += 1;
            return Ok(CONTINUE);
        }
        if self.promises.has_asked && choice(tuple).is_none() {
            // It was when the packet asked.
            self.forgiven += 1;
            self.counts.refused_by_clash += 1;
            return Ok(CONTINUE);
        }
        if self.connections.len() >= self.capacity {
            self.counts.refused_by_full_table += 1;
            return Ok(refused);
        }
        self.counts.created += 1;
        let (id, ends) = (self.next_id, self.deadline(action.zone, timeout));
        self.next_id += 1;
        self.owners.insert(reply, (id, Direction::Reply));
        // Who talks to itself is its own reply.
        self.owners.insert(tuple, (id, Direction::Original));
        let connection = Connection {
            original: tuple,
            reply,
            mark: 0,
            label: 0,
            created: self.now,
            ends,
            nat,
            tracked,
            carried: [Sum::default(); 2],
            seen: self.now,
        };
        self.connections.insert(id, connection);
        self.count(id, Direction::Original, packet);
        self.set_fields(id, action);
        self.tell(id, What::New);
        self.show(id, Direction::Original, carried);
        Ok(self.translate(packet, carried, action))
    }

    /// The reply tuple of a translated connection, or what becomes of its packet.
    fn choose(
        &mut self,
        range: &NatRange,
        end: End,
        tuple: Tuple,
        choice: &dyn Fn(Tuple) -> Option<Tuple>,
    ) -> Result<Result<Tuple, Outcome>, String> {
        if self.connections.len() >= self.capacity {
            // The shard draws first, and has nothing to show for it when there is no place then: whether a tuple was
            // free is not asked of it.
            let is_free = |reply: Tuple| reply != tuple && !self.owners.contains_key(&reply);
            return match Promises::default().judge(range, end, tuple, None, &is_free) {
                Chosen::WrongFamily => Ok(Err(Outcome::Drop(DropReason::NatFamily))),
                Chosen::Exhausted => {
                    self.counts.nat_exhausted += 1;
                    Ok(Err(Outcome::Drop(DropReason::NatExhausted)))
                }
                Chosen::Legal | Chosen::Wrong(_) => {
                    self.counts.refused_by_full_table += 1;
                    Ok(Err(Outcome::Drop(DropReason::NatRefused)))
                }
            };
        }
        let chosen = choice(tuple);
        let owners = &self.owners;
        let is_free = |reply: Tuple| reply != tuple && !owners.contains_key(&reply);
        match (self.promises.judge(range, end, tuple, chosen, &is_free), chosen) {
            (Chosen::Legal, Some(reply)) => Ok(Ok(reply)),
            (Chosen::WrongFamily, _) => Ok(Err(Outcome::Drop(DropReason::NatFamily))),
            (Chosen::Legal | Chosen::Exhausted, _) => {
                self.counts.nat_exhausted += 1;
                Ok(Err(Outcome::Drop(DropReason::NatExhausted)))
            }
            (Chosen::Wrong(_), None) if self.is_reserving || self.promises.has_asked => {
                self.forgiven += 1;
                self.counts.nat_exhausted += 1;
                Ok(Err(Outcome::Drop(DropReason::NatExhausted)))
            }
            (Chosen::Wrong(why), Some(reply)) => {
                Err(format!("{tuple} was translated to {}: {why}", reply.reversed()))
            }
            (Chosen::Wrong(why), None) => Err(format!("{tuple} was not translated: {why}")),
        }
    }

    /// "commit on an existing connection refreshes mark, label".
    fn commit_again(&mut self, id: Id, action: &CtAction) {
        let changes = if action.commit { self.set_fields(id, action) } else { vec![] };
        if !changes.is_empty() {
            self.tell(id, What::Update(changes));
        }
    }

    /// Sets what the action says; names what is different now.
    fn set_fields(&mut self, id: Id, action: &CtAction) -> Vec<&'static str> {
        let Some(connection) = self.connections.get_mut(&id) else { return vec![] };
        let mut changes = Vec::new();
        let before = (connection.mark, connection.label);
        if let Some((value, mask)) = action.mark {
            connection.mark = connection.mark & !mask | value & mask;
        }
        if let Some((value, mask)) = action.label {
            connection.label = connection.label & !mask | value & mask;
        }
        if connection.mark != before.0 {
            changes.push("mark");
        }
        if connection.label != before.1 {
            changes.push("labels");
        }
        changes
    }

    fn show(&self, id: Id, direction: Direction, carried: &mut Carried) {
        let Some(connection) = self.connections.get(&id) else { return };
        carried.mark = connection.mark;
        carried.label = connection.label;
        carried.original = Some(connection.original);
        carried.connection = Some((id, direction));
    }

    /// Translates the packet as its connection says, if `nat` is asked for and the zone has not done so already.
    fn translate(&self, packet: &mut Packet, carried: &mut Carried, action: &CtAction) -> Outcome {
        let Some((id, direction)) = carried.connection else { return CONTINUE };
        let Some(connection) = self.connections.get(&id) else { return CONTINUE };
        let (Some(end), true, false) = (connection.nat, action.nat.is_some(), is_translated(carried)) else {
            return CONTINUE;
        };
        let bit = match (end, direction) {
            (End::Source, Direction::Original) | (End::Destination, Direction::Reply) => CtState::SNAT,
            (End::Source, Direction::Reply) | (End::Destination, Direction::Original) => CtState::DNAT,
        };
        carried.state = carried.state.with(bit);
        // What a packet of this direction looks like on the other side.
        let to = match direction {
            Direction::Original => connection.reply.reversed(),
            Direction::Reply => connection.original.reversed(),
        };
        if let Body::Error { quoted, .. } = &mut packet.body {
            let was = quoted.dst;
            dress(quoted, to.reversed());
            packet.dst = to.dst;
            // A router behind a translated end is not to be seen either (RFC 5508 section 4.2).
            if quoted.dst != was {
                packet.src = to.src;
            }
        } else {
            dress(packet, to);
        }
        Outcome::Continue { rewritten: true }
    }
}

/// Gives a packet the addresses and ports of a tuple.
fn dress(packet: &mut Packet, to: Tuple) {
    (packet.src, packet.dst) = (to.src, to.dst);
    match (&mut packet.body, to.key) {
        (Body::Tcp(segment), Key::Ports { src, dst }) => (segment.src, segment.dst) = (src, dst),
        (Body::Udp { src, dst, .. } | Body::Sctp { src, dst, .. }, Key::Ports { src: new, dst: newer }) => {
            (*src, *dst) = (new, newer);
        }
        (Body::Query { id, .. }, Key::Query { id: new, .. }) => *id = new,
        _ => {}
    }
}

fn is_translated(carried: &Carried) -> bool {
    carried.state.0 & (CtState::SNAT.0 | CtState::DNAT.0) != 0
}

/// What becomes of an invalid packet of no connection: if it was to be translated like a new one, it is not sent with its
/// private address.
fn invalid(action: &CtAction) -> Outcome {
    match action.nat {
        Some(NatAction::Source(_) | NatAction::Destination(_)) if action.commit => {
            Outcome::Drop(DropReason::NatInvalid)
        }
        _ => CONTINUE,
    }
}

fn invalidate(carried: &mut Carried) {
    let state = CtState::TRK.with(CtState::INV);
    *carried = Carried { state, zone: carried.zone, ..Carried::default() };
}

/// The state of a packet, which keeps what a translation has said of it.
fn set_state(carried: &mut Carried, state: CtState, direction: Direction) {
    let translated = CtState(carried.state.0 & (CtState::SNAT.0 | CtState::DNAT.0));
    carried.state = translated.with(CtState::TRK).with(state);
    if direction == Direction::Reply {
        carried.state = carried.state.with(CtState::RPL);
    }
}

/// "`force` in the reply direction removes the connection and starts one in this direction."
fn replaces(action: &CtAction, direction: Direction) -> bool {
    action.commit && action.force && direction == Direction::Reply
}

/// The TCP states of both sides, or whether both were heard.
fn shown_state(tracked: &Tracked) -> ProtocolState {
    match tracked {
        Tracked::Tcp([original, reply]) => {
            ProtocolState::Tcp { original: original.state, reply: reply.state }
        }
        Tracked::Datagrams(state) => ProtocolState::Other { answered: *state == Datagrams::InBothDirections },
        Tracked::Path { answered } => ProtocolState::Sctp {
            state: if *answered { SctpState::Established } else { SctpState::HeartbeatSent },
            tags: [TAG, if *answered { TAG } else { 0 }],
        },
        Tracked::Query { answered } => ProtocolState::Other { answered: *answered },
    }
}

fn is_other_state(before: &Tracked, after: &Tracked) -> bool {
    match (before, after) {
        (Tracked::Datagrams(before), Tracked::Datagrams(after)) => before != after,
        _ => shown_state(before) != shown_state(after),
    }
}
