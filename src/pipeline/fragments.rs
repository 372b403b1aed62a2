//! Fragments on their way through the tracker. At a `ct` a fragment leaves its burst and waits for the rest of its
//! datagram. When that is complete the tracker sees it once, as one packet, put together in a buffer that is always
//! there; then every fragment takes over the state and the translation and goes on by itself, from the step behind the
//! `ct`, in the order of offsets. The next `ct` holds them again.
//!
//! A fragment that cannot be put together goes to the tracker alone, to which it is invalid. What waits in vain is
//! dropped after 15 seconds, as hosts do; nobody waits for it any more.
//!
//! Bursts with fragments are worked in pieces, each fragment by itself, so that a datagram that is complete is through
//! with all its steps before the packets behind it begin theirs. Nothing here is on the way of other packets.

use std::collections::VecDeque;

use slab::Slab;
use weir_shard::fragments::{DatagramKey, Family, Fragment as Place, MAX_LENGTH, Offer};
use weir_shard::{CtMeta, CtState, DropReason, Errand, FragmentSettings, Fragments, Outcome, Reason};
use weir_wire::checksum::{self, Delta};
use weir_wire::fragment::Piece;
use weir_wire::numbers::protocol;
use weir_wire::{Fragment, Layers};

use super::DropCause;
use super::frame::{Frame, Transmit};
use super::handover::Departure;
use super::letter::Task;
use super::packet::{Batch, Changed, Packet};
use super::step::Step;
use super::worker::{Start, Worker};

/// Where the datagram begins in its buffer: 0 would mean that there is none.
const START: u16 = 1;
/// Room behind it, so that with [`START`] the whole counts as an Ethernet frame.
const REST: usize = 13;

/// The fragments that wait, with all that is needed to bring them together.
#[derive(Debug)]
pub(super) struct Held<F> {
    store: Fragments<u32>,
    /// By the store's tokens.
    packets: Slab<Packet<F>>,
    /// Those whose waiting is over, until they are run.
    ready: VecDeque<Packet<F>>,
    taken: Vec<u32>,
    /// Holds one datagram at a time.
    buffer: Box<[u8]>,
}

impl<F> Held<F> {
    pub(super) fn new(settings: FragmentSettings, secret: u64) -> Self {
        Self {
            store: Fragments::new(settings, secret),
            packets: Slab::new(),
            ready: VecDeque::new(),
            taken: Vec::new(),
            buffer: vec![0; usize::from(START) + MAX_LENGTH[1] as usize + REST].into(),
        }
    }

    pub(super) fn packets(&self) -> usize {
        // Datagrams that were refused end by the sweep too.
        self.packets.len() + self.store.datagrams()
    }

    #[inline]
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    fn key(
        &self,
        packet: &Packet<F>,
        piece: &Piece,
        frame: &[u8],
        zone: u16,
    ) -> Option<(DatagramKey, Place)> {
        let header = packet.layers.l3_bytes(frame);
        let addresses = |at: usize, length: usize| header.get(at..at + length);
        let (src, dst) = if packet.layers.is_ipv4() {
            let part = |at| Some(<[u8; 4]>::try_from(addresses(at, 4)?).ok()?.into());
            (part(12)?, part(16)?)
        } else {
            let part = |at| Some(<[u8; 16]>::try_from(addresses(at, 16)?).ok()?.into());
            (part(8)?, part(24)?)
        };
        let key = DatagramKey {
            src,
            dst,
            id: piece.id,
            protocol: if packet.layers.is_ipv4() { piece.protocol } else { 0 },
            zone,
            recirculation: packet.recirculation,
        };
        let place = Place {
            offset: piece.offset,
            length: u16::try_from(piece.data.len()).unwrap_or(u16::MAX),
            more: piece.more,
            packet_len: Piece::packet_len(&packet.layers),
            header_len: piece.header_len,
            protocol: piece.protocol,
        };
        Some((key, place))
    }

    /// Puts the datagram of the taken fragments together.
    fn assemble(&mut self) -> Option<Assembled>
    where
        F: Frame,
    {
        let (head, piece) = self.taken.first().and_then(|&token| piece_of(&self.packets, token))?;
        let frame = head.frame.as_ref()?.bytes();
        let (_, last) = self.taken.last().and_then(|&token| piece_of(&self.packets, token))?;
        let data_len = last.offset.checked_add(u16::try_from(last.data.len()).ok()?)?;
        let start = usize::from(START);
        let data_at = start + usize::from(piece.header_len);
        let end = data_at + usize::from(data_len);
        let shown = u16::try_from(end).unwrap_or(u16::MAX);
        let beyond = u16::try_from(end - usize::from(shown)).ok()?;
        let whole = self.buffer.get_mut(start..)?;
        if !piece.write_header(frame, &head.layers, data_len.saturating_sub(beyond), whole) {
            return None;
        }
        let data = whole.get_mut(usize::from(piece.header_len)..)?;
        for &token in &self.taken {
            let (packet, piece) = piece_of(&self.packets, token)?;
            let from = packet.frame.as_ref()?.bytes().get(piece.data)?;
            let at = usize::from(piece.offset);
            data.get_mut(at..at + from.len())?.copy_from_slice(from);
        }
        let outer =
            Layers { ether_type: head.layers.ether_type, l3: START, l3_end: shown, ..Layers::default() };
        let layers = outer.parse_quoted(&self.buffer, START);
        if beyond > 0 && !shorten(&mut self.buffer, &layers, end, beyond) {
            return None;
        }
        Some(Assembled { layers, data: data_at, beyond })
    }
}

/// A datagram in the buffer.
struct Assembled {
    layers: Layers,
    /// Where its data begin.
    data: usize,
    /// Bytes of it behind the last that `layers` can name; see [`shorten`].
    beyond: u16,
}

/// Offsets of 16 bits do not reach the last bytes of the longest datagrams, those of `ping -s 65507` for one. For ICMP
/// and UDP, which nobody else fills so far, the checksum is verified here, over all of it, and what the tracker is
/// shown is shorter by `beyond` bytes, the length that UDP announces too. False if the checksum is wrong, and for any
/// other protocol.
#[cold]
fn shorten(buffer: &mut [u8], layers: &Layers, end: usize, beyond: u16) -> bool {
    let Some((header, l4)) =
        buffer.get_mut(..end).and_then(|whole| whole.split_at_mut_checked(layers.l4.into()))
    else {
        return false;
    };
    let header = header.get(usize::from(START)..).unwrap_or_default();
    let Ok(len) = u16::try_from(l4.len()) else { return false };
    let part = |at: usize| header.get(at..);
    let pseudo = if layers.is_ipv6() {
        let (Some(src), Some(dst)) =
            (part(8).and_then(|b| b.first_chunk()), part(24).and_then(|b| b.first_chunk()))
        else {
            return false;
        };
        checksum::pseudo_v6(src, dst, layers.protocol, len.into())
    } else {
        let (Some(src), Some(dst)) =
            (part(12).and_then(|b| b.first_chunk()), part(16).and_then(|b| b.first_chunk()))
        else {
            return false;
        };
        checksum::pseudo_v4(*src, *dst, layers.protocol, len)
    };
    match layers.protocol {
        protocol::ICMP if layers.is_ipv4() => checksum::is_valid(checksum::sum(l4)),
        protocol::ICMPV6 if layers.is_ipv6() => checksum::is_valid(pseudo + checksum::sum(l4)),
        protocol::UDP => {
            let Some(&[_, _, _, _, high, low, c0, c1]) = l4.first_chunk::<8>() else { return false };
            let announced = u16::from_be_bytes([high, low]);
            let is_right = match [c0, c1] {
                [0, 0] => layers.is_ipv4(),
                _ => checksum::is_valid(pseudo + checksum::sum(l4)),
            };
            is_right && announced <= len && announce(l4, announced.saturating_sub(beyond))
        }
        _ => false,
    }
}

/// Writes the length into a UDP header.
fn announce(udp: &mut [u8], length: u16) -> bool {
    udp.get_mut(4..6).map(|field| field.copy_from_slice(&length.to_be_bytes())).is_some()
}

/// Undoes what [`shorten`] did to a UDP header.
fn lengthen(buffer: &mut [u8], layers: &Layers, beyond: u16) {
    if layers.protocol == protocol::UDP
        && let Some(udp) = buffer.get_mut(usize::from(layers.l4)..)
        && let Some(&[high, low]) = udp.get(4..6).and_then(|field| field.first_chunk())
    {
        announce(udp, u16::from_be_bytes([high, low]).saturating_add(beyond));
    }
}

fn piece_of<F: Frame>(packets: &Slab<Packet<F>>, token: u32) -> Option<(&Packet<F>, Piece)> {
    let packet = packets.get(token as usize)?;
    Some((packet, Piece::of(packet.frame.as_ref()?.bytes(), &packet.layers)?))
}

impl<F: Frame> Packet<F> {
    /// Takes addresses and data over from the datagram that the tracker has translated.
    fn copy_back(&mut self, buffer: &[u8], data: usize) {
        let Some(frame) = &mut self.frame else { return };
        let Some(piece) = Piece::of(frame.bytes(), &self.layers) else { return };
        let (header, l3) = (usize::from(START), usize::from(self.layers.l3));
        let data = data + usize::from(piece.offset);
        let bytes = frame.bytes_mut();
        if let (Some(to), Some(from)) =
            (bytes.get_mut(piece.data.clone()), buffer.get(data..data + piece.data.len()))
        {
            to.copy_from_slice(from);
        }
        let (at, length) = if self.layers.is_ipv4() { (12, 8) } else { (8, 32) };
        let (Some(to), Some(from)) =
            (bytes.get_mut(l3 + at..l3 + at + length), buffer.get(header + at..header + at + length))
        else {
            return;
        };
        let mut change = Delta::NONE;
        change.change_at(false, to, from);
        to.copy_from_slice(from);
        if self.layers.is_ipv4()
            && let Some(checksum) =
                bytes.get_mut(l3 + 10..l3 + 12).and_then(|bytes| bytes.first_chunk_mut::<2>())
        {
            *checksum = change.apply(*checksum);
        }
        self.change(Changed::Network);
    }
}

/// Whether the headers were rewritten. Fragments keep their lengths, so a payload that has to be edited is one that
/// cannot be translated: no FTP or TFTP host fragments its control packets.
/// A fragment by itself is no connection's, and so nobody's elsewhere.
const fn without_edit(outcome: Outcome) -> Result<bool, DropReason> {
    match outcome {
        Outcome::Continue { rewritten } => Ok(rewritten),
        Outcome::Edit | Outcome::Elsewhere { .. } => Err(DropReason::Untranslatable),
        Outcome::Drop(reason) => Err(reason),
    }
}

impl<F: Frame> Worker<F> {
    /// Works a burst with fragments: each of them apart from the packets in front of it and behind it.
    #[cold]
    pub(super) fn run_apart<T: Transmit<F>>(&mut self, now: u64, batch: &mut [Packet<F>], out: &mut T) {
        let mut part = Batch::new();
        for packet in batch.iter_mut().map(Packet::take) {
            let is_fragment = packet.layers.fragment != Fragment::No;
            if is_fragment {
                self.run(now, &mut part, out, 0, Start::Classify);
                part.clear();
            }
            part.push(packet);
            if is_fragment {
                self.run(now, &mut part, out, 0, Start::Classify);
                part.clear();
                self.run_ready(now, out);
            }
        }
        self.run(now, &mut part, out, 0, Start::Classify);
    }

    /// Lets the fragments whose waiting is over go on. Those that meet another ct are ready once more; a packet meets
    /// no more of them than its flows have steps and it may be recirculated.
    #[cold]
    pub(super) fn run_ready<T: Transmit<F>>(&mut self, now: u64, out: &mut T) {
        let mut batch = Batch::new();
        while self.held.has_ready() {
            let count = self.held.ready.len().min(batch.capacity());
            batch.extend(self.held.ready.drain(..count));
            self.run(now, &mut batch, out, 0, Start::Resume);
            batch.clear();
        }
    }

    /// A fragment has come to its ct: `packet` is taken, to wait or to be run when its turn is.
    #[cold]
    pub(super) fn track_fragment<T: Transmit<F>>(
        &mut self,
        now: u64,
        packet: &mut Packet<F>,
        nesting: usize,
        out: &mut T,
    ) {
        let step = self.megaflows.flow(packet.flow).and_then(|flow| flow.recipe.steps.get(packet.step));
        let (Some(frame), Some(Step::Ct(action))) = (&packet.frame, step) else { return };
        // The first fragment has all headers (RFC 7112), and every IPv4 header its own checksum.
        let is_readable = (packet.layers.fragment == Fragment::Later || packet.layers.l4 != 0)
            && (packet.layers.is_ipv6() || checksum::ipv4_header_is_valid(frame.bytes(), &packet.layers));
        let bytes = frame.bytes();
        let piece = if is_readable { Piece::of(bytes, &packet.layers) } else { None };
        let named = piece.and_then(|piece| self.held.key(packet, &piece, bytes, action.zone));
        let Some((key, place)) = named else {
            let mut packet = packet.take();
            self.track_alone(now, &mut packet, out);
            self.held.ready.push_back(packet);
            return;
        };
        // Those that a tracker has seen are all here: they travel as a whole.
        if self.is_shared && !packet.meta.state.has(CtState::TRK) {
            let to = self.shard.steering().home_of_fragments(key.src, key.dst);
            if to != self.shard.number() {
                let departure = Departure { to, why: Reason::Fragment, task: Task::Meet, nesting };
                return self.hand_over(packet.take(), Vec::new(), departure, out);
            }
        }
        self.megaflows.pin(packet.flow);
        let slot = self.held.packets.insert(packet.take());
        let token = u32::try_from(slot).unwrap_or(u32::MAX);
        loop {
            let Self { held, .. } = self;
            let offer = held.store.offer(now, &key, &place, token, &mut held.taken);
            match offer {
                Offer::Held => return,
                Offer::Complete => return self.track_datagram(now, None, out),
                // Those that are given back go first, as they came first.
                Offer::Refused(_) | Offer::Broken(_) => {
                    held.taken.push(token);
                    return self.track_each(now, out);
                }
                Offer::Expired => {
                    for token in core::mem::take(&mut held.taken) {
                        self.drop_held(token, DropCause::FragmentExpired);
                    }
                }
            }
        }
    }

    /// Shows the fragments of a datagram, which another shard has handed over as a whole, to the tracker.
    #[cold]
    pub(super) fn track_taken<T: Transmit<F>>(
        &mut self,
        now: u64,
        head: Packet<F>,
        rest: Vec<Packet<F>>,
        errand: Errand,
        out: &mut T,
    ) {
        self.held.taken.clear();
        for packet in core::iter::once(head).chain(rest) {
            self.megaflows.pin(packet.flow);
            let slot = self.held.packets.insert(packet);
            self.held.taken.push(u32::try_from(slot).unwrap_or(u32::MAX));
        }
        self.track_datagram(now, Some(errand), out);
    }

    /// Sends the datagram of the taken fragments to another shard.
    #[cold]
    fn hand_over_taken<T: Transmit<F>>(&mut self, departure: Departure, out: &mut T) {
        let mut packets = Vec::new();
        for token in core::mem::take(&mut self.held.taken) {
            let Some(packet) = self.held.packets.try_remove(token as usize) else { continue };
            self.megaflows.unpin(packet.flow);
            packets.push(packet);
        }
        let mut packets = packets.into_iter();
        if let Some(head) = packets.next() {
            self.hand_over(head, packets.collect(), departure, out);
        }
    }

    /// Shows the datagram of the taken fragments to the tracker.
    fn track_datagram<T: Transmit<F>>(&mut self, now: u64, errand: Option<Errand>, out: &mut T) {
        let Some((outcome, meta, data)) = self.execute_datagram(now, errand) else {
            return self.track_each(now, out);
        };
        if let Outcome::Elsewhere { to, why } = outcome {
            let task = Task::Track(self.shard.take_errand());
            return self.hand_over_taken(Departure { to, why, task, nesting: 0 }, out);
        }
        let outcome = without_edit(outcome);
        let Self { megaflows, held, counters, .. } = self;
        for token in core::mem::take(&mut held.taken) {
            let Some(mut packet) = held.packets.try_remove(token as usize) else { continue };
            megaflows.unpin(packet.flow);
            packet.frame.iter().for_each(|frame| out.tracked(frame));
            match outcome {
                Ok(rewritten) => {
                    packet.meta = meta;
                    packet.step += 1;
                    if rewritten {
                        packet.copy_back(&held.buffer, data);
                    }
                    held.ready.push_back(packet);
                }
                Err(reason) => counters.count_drop(reason.into()),
            }
        }
    }

    /// What the tracker makes of the taken fragments as one packet in the buffer: the outcome, what they carry on, and
    /// where their data begin. `None` leaves them as they are.
    fn execute_datagram(&mut self, now: u64, errand: Option<Errand>) -> Option<(Outcome, CtMeta, usize)> {
        let Assembled { layers, data, beyond } = self.held.assemble()?;
        let Self { shard, megaflows, held, .. } = self;
        let head = held.packets.get(*held.taken.first()? as usize)?;
        let Step::Ct(action) = megaflows.flow(head.flow)?.recipe.steps.get(head.step)? else { return None };
        let mut meta = head.meta;
        let whole = held.buffer.get_mut(..usize::from(layers.l3_end) + REST)?;
        let outcome = if let Some(errand) = errand {
            shard.resume(now, whole, &layers, action, &mut meta, errand)
        } else {
            let mut lookup = shard.prepare(whole, &layers, action.zone, &meta, beyond > 0);
            shard.prefetch(&mut lookup);
            shard.execute(now, whole, &layers, &lookup, action, &mut meta)
        };
        if beyond > 0 {
            lengthen(&mut held.buffer, &layers, beyond);
        }
        Some((outcome, meta, data))
    }

    /// Shows each of the taken fragments to the tracker by itself.
    fn track_each<T: Transmit<F>>(&mut self, now: u64, out: &mut T) {
        for token in core::mem::take(&mut self.held.taken) {
            let Some(mut packet) = self.held.packets.try_remove(token as usize) else { continue };
            self.megaflows.unpin(packet.flow);
            self.track_alone(now, &mut packet, out);
            self.held.ready.push_back(packet);
        }
    }

    /// Shows a fragment to the tracker by itself: invalid, unless its datagram has met its connection in this zone
    /// already.
    fn track_alone<T: Transmit<F>>(&mut self, now: u64, packet: &mut Packet<F>, out: &mut T) {
        let Self { shard, megaflows, counters, .. } = self;
        let step = megaflows.flow(packet.flow).and_then(|flow| flow.recipe.steps.get(packet.step));
        let (Some(frame), Some(Step::Ct(action))) = (&mut packet.frame, step) else { return };
        packet.step += 1;
        let mut lookup = shard.prepare(frame.bytes(), &packet.layers, action.zone, &packet.meta, false);
        shard.prefetch(&mut lookup);
        let outcome =
            shard.execute(now, frame.bytes_mut(), &packet.layers, &lookup, action, &mut packet.meta);
        out.tracked(frame);
        match without_edit(outcome) {
            Ok(true) => packet.change(Changed::Network),
            Ok(false) => {}
            Err(reason) => {
                counters.count_drop(reason.into());
                packet.frame = None;
            }
        }
    }

    fn drop_held(&mut self, token: u32, cause: DropCause) {
        if let Some(packet) = self.held.packets.try_remove(token as usize) {
            self.megaflows.unpin(packet.flow);
            self.counters.count_drop(cause);
        }
    }

    /// Drops the fragments of up to `budget` datagrams whose time is over; how many datagrams it found.
    #[cold]
    pub(super) fn expire_fragments(&mut self, now: u64, budget: u32) -> u32 {
        let mut gone = core::mem::take(&mut self.held.taken);
        let mut tokens = Vec::new();
        let found = self.held.store.sweep(now, budget, &mut gone, |token| tokens.push(token));
        for token in tokens {
            self.drop_held(token, DropCause::FragmentExpired);
        }
        self.held.taken = gone;
        found
    }

    /// Drops what is held of these families.
    #[cold]
    pub fn purge_fragments(&mut self, families: &[Family]) {
        let mut tokens = Vec::new();
        self.held.store.purge(families, |token| tokens.push(token));
        for token in tokens {
            self.drop_held(token, DropCause::FragmentPurged);
        }
        if self.megaflows.has_retired() {
            self.reclaim();
        }
    }

    /// Changes what is done with fragments. Those held of a family that is turned off are dropped.
    pub fn set_fragments(&mut self, settings: FragmentSettings) {
        self.held.store.set(settings);
        for family in Family::ALL {
            if !settings.enabled[family as usize] {
                self.purge_fragments(&[family]);
            }
        }
    }

    /// The store of fragments: settings, counters and what it holds.
    #[must_use]
    pub fn fragments(&self) -> &Fragments<u32> {
        &self.held.store
    }

    /// Packets that wait for the rest of their datagrams.
    #[must_use]
    pub fn held_fragments(&self) -> u64 {
        self.held.packets.len() as u64
    }
}
