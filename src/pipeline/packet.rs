//! A packet on its way through a worker, and the memory that a burst of them is in. A packet's flow key is made when
//! somebody asks for it: one that follows a trajectory never needs it, and a key is five cache lines.

use arrayvec::ArrayVec;
use weir_shard::{ConnectionRef, CtMeta, CtState, Lookup};
use weir_wire::Layers;
use weir_wire::numbers::protocol;

use super::frame::{BURST, Frame};
use super::trajectory::Course;
use super::{PortId, Snapshot, extract, group};
use crate::flow::key::{Key, at};

/// A packet on its way.
#[derive(Debug)]
pub(super) struct Packet<F> {
    /// Gone once it is sent.
    pub(super) frame: Option<F>,
    pub(super) layers: Layers,
    pub(super) meta: CtMeta,
    /// The port that it came in by.
    pub(super) port: PortId,
    /// The id that it is classified under, 0 for one that came in by a port.
    pub(super) recirculation: u32,
    /// How often it was recirculated.
    pub(super) recirculated: u8,
    /// How far the headers are from what the key says.
    pub(super) changed: Changed,
    /// Nothing has written to its headers.
    pub(super) as_it_came: bool,
    /// The key has been made.
    pub(super) keyed: bool,
    /// Index of its megaflow and the step to do next.
    pub(super) flow: u32,
    pub(super) step: usize,
    pub(super) course: Course,
    /// Where its connection seemed to be when it came in, for the `ct` that its way is expected to begin with.
    pub(super) lookup: Option<Lookup>,
    /// Its connection, if it was established when it met it there.
    pub(super) connection: Option<ConnectionRef>,
    /// Nothing of meaning before `keyed`. To be read by [`Packet::key`].
    pub(super) key: Key,
}

/// How far the headers are from what the key says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Changed {
    /// Not at all.
    No,
    /// A translation has written addresses and ports.
    Network,
    /// Anything may be different.
    Everything,
}

/// Packets that are worked on together.
pub(super) type Batch<F> = ArrayVec<Packet<F>, BURST>;

/// The packets of a received burst, in memory that the next burst has again: what a packet does not need is never written.
#[derive(Debug)]
pub(super) struct Received<F> {
    packets: Vec<Packet<F>>,
    count: usize,
}

impl<F> Default for Received<F> {
    fn default() -> Self {
        Self { packets: Vec::new(), count: 0 }
    }
}

impl<F> Received<F> {
    /// Parses a frame that has just come in by `port` and adds it; there is room for a burst. Gives its bytes and what
    /// was found.
    #[inline(always)]
    pub(super) fn push(&mut self, frame: F, port: PortId) -> (&[u8], &Layers)
    where
        F: Frame,
    {
        if self.count >= self.packets.len() {
            self.grow();
        }
        let packet = &mut self.packets[self.count];
        self.count += 1;
        packet.layers.parse_into(frame.bytes());
        packet.renew(frame, port);
        (packet.frame.as_ref().map_or(&[], Frame::bytes), &packet.layers)
    }

    /// [`Received::push`] of a frame whose connection has been looked up.
    pub(super) fn push_looked_up(&mut self, frame: F, port: PortId, lookup: Option<Lookup>) -> &Layers
    where
        F: Frame,
    {
        let at = self.count;
        self.push(frame, port);
        let packet = &mut self.packets[at];
        packet.lookup = lookup;
        &packet.layers
    }

    #[cold]
    fn grow(&mut self) {
        self.packets.resize_with(self.count.next_multiple_of(BURST).max(BURST), Packet::empty);
    }

    /// All of them, to be sent, dropped or taken.
    #[inline]
    pub(super) fn take(&mut self) -> &mut [Packet<F>] {
        let count = core::mem::take(&mut self.count);
        self.packets.get_mut(..count).unwrap_or_default()
    }
}

impl<F> Packet<F> {
    /// A packet that has just come in.
    pub(super) fn new(frame: F, layers: Layers, port: PortId) -> Self {
        let mut packet = Self { layers, ..Self::empty() };
        packet.renew(frame, port);
        packet
    }

    /// Room for a packet.
    fn empty() -> Self {
        Self {
            frame: None,
            layers: Layers::default(),
            meta: CtMeta::default(),
            port: 0,
            recirculation: 0,
            recirculated: 0,
            changed: Changed::No,
            as_it_came: true,
            keyed: false,
            flow: 0,
            step: 0,
            course: Course::NONE,
            lookup: None,
            connection: None,
            key: Key::ZERO,
        }
    }

    /// Begins with another frame, which has been parsed; the key stays where it is.
    #[inline(always)]
    fn renew(&mut self, frame: F, port: PortId) {
        self.frame = Some(frame);
        self.meta = CtMeta::default();
        self.port = port;
        self.recirculation = 0;
        self.recirculated = 0;
        self.changed = Changed::No;
        self.as_it_came = true;
        self.keyed = false;
        self.flow = 0;
        self.step = 0;
        self.course = Course::NONE;
        self.lookup = None;
        self.connection = None;
    }

    /// Takes the packet out; what stays is one that went nowhere.
    pub(super) fn take(&mut self) -> Self {
        Self { frame: self.frame.take(), ..*self }
    }
}

impl<F> Packet<F> {
    /// True if its early look-up is one for a `ct` in `zone` and for what the packet is now. In a zone that knows the packet
    /// to be of a connection there is nothing to look up.
    #[inline]
    pub(super) fn is_looked_up_in(&self, zone: u16) -> bool {
        self.as_it_came
            && self.lookup.as_ref().is_some_and(|early| early.is_for(zone))
            && !self.meta.is_known_in(zone)
    }

    /// Its headers have changed, or may have, as far as this.
    #[inline]
    pub(super) fn change(&mut self, changed: Changed) {
        self.changed = self.changed.max(changed);
        self.as_it_came = false;
    }

    /// It has met the tracker: at its first `ct` the connection is the one of its early look-up.
    pub(super) fn note_connection(&mut self) {
        let is_first = self.recirculated == 0 && self.step == 1;
        let is_found = self.lookup.as_ref().is_some_and(|lookup| lookup.is_for(self.meta.zone));
        if is_first && is_found && self.meta.state.has(CtState::EST) {
            self.connection = self.meta.connection;
        }
    }
}

impl<F: Frame> Packet<F> {
    /// Bytes that it has now.
    #[inline]
    pub(super) fn length(&self) -> usize {
        self.frame.as_ref().map_or(0, |frame| frame.bytes().len())
    }

    /// The flags of a TCP segment that has all of its header, 0 of any other packet.
    #[inline]
    pub(super) fn tcp_flags(&self) -> u16 {
        if self.layers.protocol != protocol::TCP {
            return 0;
        }
        self.frame.as_ref().map_or(0, |frame| extract::tcp_flags(frame.bytes(), &self.layers))
    }

    /// The key as the headers, the tracker and the recirculation say.
    #[inline]
    pub(super) fn key(&mut self, snapshot: &Snapshot) -> &Key {
        if !self.keyed {
            self.make_key(snapshot);
        }
        &self.key
    }

    #[inline]
    fn make_key(&mut self, snapshot: &Snapshot) {
        let Some(frame) = &self.frame else { return };
        self.key = Key::ZERO;
        extract::headers(frame.bytes(), &self.layers, &mut self.key);
        self.key.words[at::IN_PORT / 8] = u64::from(self.port) << 32 | u64::from(self.recirculation);
        // A packet that came in by a port is untracked, which is 0.
        if self.recirculated > 0 {
            extract::connection(&self.meta, snapshot.wants_original_tuple, &mut self.key);
        }
        if snapshot.wants_hash {
            group::stamp(&mut self.key);
        }
        (self.keyed, self.changed) = (true, Changed::No);
    }

    /// Brings a key that was made before the packet was recirculated up to date.
    #[inline]
    pub(super) fn renew_key(&mut self, snapshot: &Snapshot) {
        let (true, Some(frame)) = (self.keyed, &self.frame) else { return };
        match self.changed {
            Changed::No => {}
            Changed::Network => extract::network(frame.bytes(), &self.layers, &mut self.key),
            Changed::Everything => return self.make_key(snapshot),
        }
        self.changed = Changed::No;
        let word = &mut self.key.words[at::RECIRC_ID / 8];
        *word = *word & !0xffff_ffff | u64::from(self.recirculation);
        extract::connection(&self.meta, snapshot.wants_original_tuple, &mut self.key);
        if snapshot.wants_hash {
            group::stamp(&mut self.key);
        }
    }
}
