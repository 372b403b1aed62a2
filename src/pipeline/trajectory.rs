//! Trajectories: which megaflows a packet has met one after another, each by one classification, remembered for the
//! packets behind it. A connection keeps the number of its last trajectory for each direction, beside its entry in
//! the index; so a packet whose connection is looked up before anything else knows what its classifications are going to
//! come to. For a packet without such a number that of the packets before it at its port is tried.
//!
//! A number is no more than a hint. Every megaflow of a trajectory is compared with the packet when its turn comes, by
//! all bits that translation looked at: port and protocols at once, ct_state, mark and fields of the headers one by one,
//! out of the packet and not out of a key made of it. A megaflow that is gone, stale or does not fit ends the trajectory,
//! and the packet is classified like any other. So nothing is served stale, whatever changes, and numbers may be used
//! again.

use arrayvec::ArrayVec;
use hashbrown::HashTable;
use weir_shard::{CtState, HINTS};
use weir_wire::numbers::protocol;
use weir_wire::{Fragment, Layers};

use super::PortId;
use super::extract::{self, SINGLE_WORDS};
use super::frame::Frame;
use super::megaflow::{Compared, Megaflow, Megaflows};
use super::packet::Packet;
use super::step::Step;
use crate::flow::key::{DATAPATH_WORDS, Key, Mask, at};

/// Classifications of a trajectory; further ones are made as if there were none.
pub(super) const MAX_HOPS: usize = 4;
/// Packets that do not fit their port's trajectory and have no connection to keep one with, until one of them replaces it;
/// and packets that start connections, until one of them replaces an opening that whole runs cannot take.
const PATIENCE: u32 = 64;

/// The class of a packet: what no table changes on its way, and what is compared first. 0 where trajectories are not
/// for it: fragments, and what is not IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Class(u64);

impl Class {
    pub(super) const NONE: Self = Self(0);

    /// Of a packet that came in by `port`.
    #[inline]
    pub(super) fn of(port: PortId, layers: &Layers) -> Self {
        if layers.fragment != Fragment::No || !(layers.is_ipv4() || layers.is_ipv6()) {
            return Self::NONE;
        }
        let kind = u64::from(layers.ether_type) << 16;
        Self(u64::from(port) << 32 | kind | u64::from(layers.protocol) << 8 | u64::from(layers.vlan_tags))
    }

    /// Of a plain packet ([`weir_shard::plain`]).
    #[inline]
    pub(super) fn of_plain(port: PortId, protocol: u8) -> Self {
        Self::of(port, &Layers::plain(protocol, 0))
    }
}

/// A packet's part of it: where it is expected to go, and where it has gone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Course {
    /// The trajectory that it follows, 0 for none.
    pub(super) number: u16,
    /// It goes where its connection's trajectory leads, or nobody is to learn where it goes.
    pub(super) settled: bool,
    pub(super) class: Class,
    /// Its megaflows so far, by how often it had been recirculated.
    flows: [u32; MAX_HOPS],
}

impl Course {
    /// Of a packet that begins in the middle of its way.
    pub(super) const NONE: Self = Self { number: 0, settled: true, class: Class::NONE, flows: [0; MAX_HOPS] };

    /// Of a packet of this class that begins with trajectory `number`.
    #[inline]
    pub(super) fn begin(&mut self, class: Class, number: u16) {
        self.class = class;
        self.number = number;
    }

    /// The packet was given a megaflow, having been recirculated `hop` times.
    #[inline]
    pub(super) fn pass(&mut self, hop: u8, flow: u32) {
        if let Some(place) = self.flows.get_mut(usize::from(hop)) {
            *place = flow;
        }
    }

    /// The packet's megaflow is not the one of its trajectory.
    #[inline]
    pub(super) fn leave(&mut self) {
        self.number = 0;
        self.settled = self.class == Class::NONE;
    }
}

/// One classification.
#[derive(Clone, Debug)]
pub(super) struct Hop {
    /// Index of the megaflow, and its serial number.
    pub(super) flow: u32,
    serial: u64,
    /// The recirculation id that it is for.
    recirculation: u32,
    /// The bits of ct_state that the megaflow looks at, and what they are.
    state: [u32; 2],
    /// What else it looks at beside its class.
    compared: Box<[Compared]>,
    /// It looks at something that takes a whole key to compare.
    by_key: bool,
}

/// What is found at a hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The megaflow at this index.
    Flow(u32),
    /// The megaflow at this index, if it matches the packet's key.
    ByKey(u32),
    /// Nothing.
    Nothing,
}

/// Trajectories that whole runs of packets are taken along at once; nearly all traffic is on one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Out by this port.
    Output(PortId),
    /// Tracked, recirculated, and out by this port.
    Tracked(PortId),
    /// Tracked by a `ct` that finds them new, recirculated, tracked by one that starts their connections, and out by this
    /// port.
    Opening(PortId),
    /// Any other.
    Other,
}

/// Where packets went.
#[derive(Clone, Debug)]
pub(super) struct Trajectory {
    class: Class,
    hash: u64,
    /// The zone of the `ct` that it begins with.
    pub(super) zone: Option<u16>,
    /// Every `ct` on it is in this zone, so that its packets need no other look-up.
    pub(super) looks_up_once: bool,
    pub(super) shape: Shape,
    /// [`Megaflows::edition`] when all of its megaflows were last seen to be current, and whether they were.
    seen: (u64, bool),
    pub(super) hops: ArrayVec<Hop, MAX_HOPS>,
}

/// The trajectory that packets took which started connections.
#[derive(Clone, Copy, Debug, Default)]
struct Learnt {
    number: u16,
    /// Packets to wait for before another one is tried, where this one is of no use.
    patience: u32,
}

/// All trajectories of a worker.
#[derive(Debug)]
pub(super) struct Trajectories {
    /// By number; 0 is nobody's.
    all: Vec<Trajectory>,
    numbers: HashTable<u16>,
    /// The next to give way once all numbers are taken.
    hand: u16,
    /// By port: the trajectory that its packets take, as it seems.
    usual: Vec<u16>,
    /// By port: those that packets take that start connections, of TCP and of UDP.
    openings: Vec<[Learnt; 2]>,
    patience: u32,
    enabled: bool,
}

impl Trajectories {
    /// None so far; never any unless `enabled`.
    pub(super) fn new(enabled: bool) -> Self {
        Self {
            all: Vec::new(),
            numbers: HashTable::new(),
            hand: 0,
            usual: Vec::new(),
            openings: Vec::new(),
            patience: 0,
            enabled,
        }
    }

    #[inline]
    pub(super) const fn is_enabled(&self) -> bool {
        self.enabled
    }

    #[inline]
    pub(super) fn find(&self, number: u16) -> Option<&Trajectory> {
        self.all.get(usize::from(number).wrapping_sub(1))
    }

    /// The trajectory that packets of a port usually take, 0 if none is known.
    #[inline]
    pub(super) fn usual(&self, port: PortId) -> u16 {
        self.usual.get(port as usize).copied().unwrap_or(0)
    }

    /// The trajectory with this number, if all of its megaflows are current.
    #[inline]
    fn find_current(&mut self, number: u16, megaflows: &Megaflows, generation: u64) -> Option<&Trajectory> {
        let trajectory = self.all.get_mut(usize::from(number).wrapping_sub(1))?;
        trajectory.is_current(megaflows, generation).then_some(&*trajectory)
    }

    /// The same, if it is for this class.
    #[inline]
    pub(super) fn find_for(
        &mut self,
        number: u16,
        class: Class,
        megaflows: &Megaflows,
        generation: u64,
    ) -> Option<&Trajectory> {
        self.find_current(number, megaflows, generation).filter(|trajectory| trajectory.class == class)
    }

    /// What its trajectory says of a packet that is about to be classified.
    #[inline(always)]
    pub(super) fn look<F: Frame>(
        &mut self,
        packet: &Packet<F>,
        megaflows: &Megaflows,
        generation: u64,
    ) -> Found {
        let Course { number, class, .. } = packet.course;
        let Some(trajectory) = self.find_for(number, class, megaflows, generation) else {
            return Found::Nothing;
        };
        match trajectory.hops.get(usize::from(packet.recirculated)) {
            Some(hop) if hop.recirculation == packet.recirculation && hop.fits(packet) => match hop.by_key {
                true => Found::ByKey(hop.flow),
                false => Found::Flow(hop.flow),
            },
            _ => Found::Nothing,
        }
    }

    /// The number of the trajectory over the megaflows that a packet has met; 0 if there can be none.
    pub(super) fn learn(&mut self, course: &Course, hops: u8, megaflows: &Megaflows) -> u16 {
        let indices = course.flows.get(..=usize::from(hops)).unwrap_or(&course.flows);
        let mut flows: ArrayVec<(u32, &Megaflow), MAX_HOPS> = ArrayVec::new();
        for &index in indices {
            let Some(flow) = megaflows.flow(index).filter(|flow| !flow.is_retired()) else { return 0 };
            flows.push((index, flow));
        }
        let hash = flows.iter().fold(course.class.0, |hash, (_, flow)| {
            (hash.rotate_left(23) ^ flow.serial).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        });
        let is_same = |trajectory: &Trajectory| {
            trajectory.class == course.class
                && trajectory.hops.iter().map(|hop| hop.serial).eq(flows.iter().map(|(_, flow)| flow.serial))
        };
        let all = &self.all;
        let of = |number: &u16| all.get(usize::from(*number).wrapping_sub(1));
        if let Some(&number) = self.numbers.find(hash, |number| of(number).is_some_and(is_same)) {
            return number;
        }
        let trajectory = Trajectory::new(course.class, hash, &flows);
        let number = self.put(trajectory);
        let Self { numbers, all, .. } = self;
        let hash_of =
            |number: &u16| all.get(usize::from(*number).wrapping_sub(1)).map_or(0, |other| other.hash);
        numbers.insert_unique(hash, number, hash_of);
        number
    }

    /// Puts a trajectory under a free number, or under that of another one, which is forgotten.
    fn put(&mut self, trajectory: Trajectory) -> u16 {
        if let Some(number) = u16::try_from(self.all.len() + 1).ok().filter(|number| *number < HINTS) {
            self.all.push(trajectory);
            return number;
        }
        self.hand = self.hand % (HINTS - 1) + 1;
        let number = self.hand;
        if let Some(place) = self.all.get_mut(usize::from(number) - 1) {
            if let Ok(entry) = self.numbers.find_entry(place.hash, |other| *other == number) {
                entry.remove();
            }
            *place = trajectory;
        }
        number
    }

    /// Packets of a port usually take this trajectory: one of an established connection does, which `is_sure`, or at
    /// times one without.
    pub(super) fn set_usual(&mut self, port: PortId, number: u16, is_sure: bool) {
        let index = port as usize;
        if index >= self.usual.len() {
            self.usual.resize(index + 1, 0);
        }
        if let Some(usual) = self.usual.get_mut(index) {
            *usual = number;
        }
        if !is_sure {
            self.patience = PATIENCE;
        }
    }

    /// The trajectory that packets of a port take that start connections of TCP or UDP, 0 if none is known.
    #[inline]
    pub(super) fn opening(&self, port: PortId, protocol: u8) -> u16 {
        let both = self.openings.get(port as usize).copied().unwrap_or_default();
        both[usize::from(protocol == protocol::UDP)].number
    }

    /// Learns from a packet that was found to be new where those go that start connections of TCP or UDP. It is of no use
    /// unless whole runs can be taken along; else another one is tried now and then.
    pub(super) fn learn_opening(
        &mut self,
        port: PortId,
        protocol: u8,
        course: &Course,
        megaflows: &Megaflows,
        generation: u64,
    ) {
        if course.class != Class::of_plain(port, protocol) {
            return;
        }
        let index = port as usize;
        if index >= self.openings.len() {
            self.openings.resize(index + 1, Default::default());
        }
        let place = usize::from(protocol == protocol::UDP);
        let Learnt { number, patience } = self.openings[index][place];
        let known = self.find_current(number, megaflows, generation).map(|known| known.shape);
        self.openings[index][place] = match known {
            Some(Shape::Opening(_)) => return,
            Some(_) if patience > 0 => Learnt { number, patience: patience - 1 },
            _ => Learnt { number: self.learn(course, 1, megaflows), patience: PATIENCE },
        };
    }

    /// True if it is known what packets of a port usually do, and still so.
    pub(super) fn has_usual(&mut self, port: PortId, megaflows: &Megaflows, generation: u64) -> bool {
        self.find_current(self.usual(port), megaflows, generation).is_some()
    }

    /// True if it is time to learn from a packet without a connection what packets of its port usually do.
    pub(super) fn is_out_of_patience(&mut self) -> bool {
        self.patience = self.patience.saturating_sub(1);
        self.patience == 0
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }
}

impl Trajectory {
    fn new(class: Class, hash: u64, flows: &[(u32, &Megaflow)]) -> Self {
        let steps = || flows.iter().flat_map(|(_, flow)| &flow.recipe.steps);
        let zones = || {
            steps().filter_map(|step| match step {
                Step::Ct(action) => Some(action.zone),
                _ => None,
            })
        };
        let begins_with_ct = matches!(steps().next(), Some(Step::Ct(_)));
        let zone = zones().next().filter(|_| begins_with_ct);
        let hops: ArrayVec<Hop, MAX_HOPS> =
            flows.iter().map(|&(index, flow)| Hop::new(index, flow)).collect();
        Self {
            class,
            hash,
            zone,
            looks_up_once: zones().all(|other| Some(other) == zone),
            shape: Shape::of(flows, &hops),
            seen: (0, false),
            hops,
        }
    }

    /// True while all of its megaflows are what they were.
    #[inline]
    fn is_current(&mut self, megaflows: &Megaflows, generation: u64) -> bool {
        let edition = megaflows.edition();
        if self.seen.0 != edition {
            let is_current = |hop: &Hop| megaflows.is_current(hop.flow, hop.serial, generation);
            self.seen = (edition, self.hops.iter().all(is_current));
        }
        self.seen.1
    }
}

impl Shape {
    fn of(flows: &[(u32, &Megaflow)], hops: &[Hop]) -> Self {
        let mut steps = flows.iter().map(|(_, flow)| &*flow.recipe.steps);
        match (steps.next(), steps.next(), hops) {
            (Some([Step::Output(port)]), None, [only]) if only.fits_all_untracked() => Self::Output(*port),
            (Some([Step::Ct(_), Step::Recirculate(_)]), Some([Step::Output(port)]), [first, second])
                if first.fits_all_untracked() && !second.by_key =>
            {
                Self::Tracked(*port)
            }
            (
                Some([Step::Ct(look), Step::Recirculate(_)]),
                Some([Step::Ct(start), Step::Output(port)]),
                [first, second],
            ) if first.fits_all_untracked()
                && second.fits_all_new()
                && (!look.commit && start.commit && look.zone == start.zone) =>
            {
                Self::Opening(*port)
            }
            _ => Self::Other,
        }
    }
}

impl Hop {
    fn new(index: u32, flow: &Megaflow) -> Self {
        let (mask, key) = (&flow.recipe.mask, &flow.key);
        let state = |key: &Key| u32::try_from(key.read(at::CT_STATE, 4)).unwrap_or(0);
        let left = |word: usize| mask.words[word] & !KNOWN.words[word];
        let is_single = |word: &usize| SINGLE_WORDS.contains(word) && left(*word) & !word_bits(*word) == 0;
        let (single, other): (Vec<usize>, Vec<usize>) =
            (0..DATAPATH_WORDS).filter(|&word| left(word) != 0).partition(is_single);
        let compared = |word: usize| Compared { word, mask: left(word), value: key.words[word] & left(word) };
        Self {
            flow: index,
            serial: flow.serial,
            recirculation: u32::try_from(key.read(at::RECIRC_ID, 4)).unwrap_or(0),
            state: [state(mask), state(key)],
            compared: single.into_iter().map(compared).collect(),
            by_key: !other.is_empty(),
        }
    }

    /// True if the packet is what the megaflow looked at, but for what takes a key to compare.
    #[inline(always)]
    pub(super) fn fits<F: Frame>(&self, packet: &Packet<F>) -> bool {
        let [mask, state] = self.state;
        u32::from(packet.meta.state.0) & mask == state
            && (self.compared.is_empty() || self.fields_fit(packet))
    }

    /// The bits of ct_state that the megaflow looks at and what they are, if it looks at nothing else beside its class.
    #[inline]
    pub(super) fn only_state(&self) -> Option<[u32; 2]> {
        (self.compared.is_empty() && !self.by_key).then_some(self.state)
    }

    /// True if all packets of the class fit that the tracker has not seen.
    #[inline]
    fn fits_all_untracked(&self) -> bool {
        self.only_state().is_some_and(|[_, state]| state == 0)
    }

    /// True if all packets of the class fit that the tracker has found to be new.
    #[inline]
    fn fits_all_new(&self) -> bool {
        let new = u32::from(CtState::TRK.with(CtState::NEW).0);
        self.only_state().is_some_and(|[mask, state]| new & mask == state)
    }

    #[inline(never)]
    fn fields_fit<F: Frame>(&self, packet: &Packet<F>) -> bool {
        let Some(frame) = &packet.frame else { return false };
        let (bytes, layers, meta) = (frame.bytes(), &packet.layers, &packet.meta);
        self.compared.iter().all(|compared| {
            extract::word(bytes, layers, meta, compared.word) & compared.mask == compared.value
        })
    }
}

/// The bits of a key that a trajectory's [`Class`], recirculation ids and states say.
const KNOWN: Mask = {
    let mut known = Key::ZERO;
    let fields = [
        (at::IN_PORT, 4),
        (at::RECIRC_ID, 4),
        (at::CT_STATE, 4),
        (at::ETH_TYPE, 2),
        (at::NW_PROTO, 1),
        (at::NW_FRAG, 1),
        (at::PACKET_TYPE, 4),
    ];
    let mut field = 0;
    while field < fields.len() {
        known.write(fields[field].0, fields[field].1, u128::MAX);
        field += 1;
    }
    known
};

/// The bits of a word that [`extract::word`] knows.
fn word_bits(word: usize) -> u64 {
    let mut bits = Key::ZERO;
    bits.words[word] = u64::MAX;
    bits.write(at::CT_NW_PROTO, 1, 0);
    bits.words[word]
}

#[cfg(test)]
mod tests;
