//! TCP as OpenBSD's pf follows it: for each side the sequence space it may use next, the largest window it was
//! offered, its window scale and how far it is through the connection's life. Nothing here knows the table but for who may write it.
//!
//! Guido van Rooij, "Real Stateful TCP Packet Filtering in IP Filter" (SANE 2000) derives the four window bounds;
//! pf loosens them during the handshake and after the close. Sequence arithmetic is modulo 2^32 (RFC 9293
//! section 3.4).

use core::fmt;
use core::sync::atomic::{
    AtomicU8, AtomicU16, AtomicU32,
    Ordering::{Acquire, Relaxed, Release},
};

use weir_wire::Layers;

use crate::table::connection::Owned;
use crate::timeouts::Timeout;
use crate::verdict::Verdict;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// [`Peer::scale`]: the side offered a scale (RFC 7323 section 2.2).
const SCALE_OFFERED: u8 = 0x80;
/// [`Peer::scale`]: the stream was picked up midway.
const SCALE_UNKNOWN: u8 = 0x40;
const SCALE_MASK: u8 = 0x0f;
/// The largest scale there is (RFC 7323 section 2.3); taken where the scale is unknown.
const MAX_SCALE: u32 = 14;

/// How far an acknowledgement may lie behind, and a segment outside while the windows are not known: the largest
/// unscaled window and one reassembled Ethernet frame.
const SLACK: u32 = 0xffff + 1500;

/// How far one side of a connection is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum TcpState {
    /// Has sent nothing.
    #[default]
    Closed,
    /// Has sent its first segment.
    SynSent,
    /// Its SYN was acknowledged.
    Established,
    /// Has sent FIN.
    Closing,
    /// Its FIN was acknowledged.
    FinWait2,
    /// The connection was reset.
    TimeWait,
}

impl TcpState {
    /// All states in order.
    pub const ALL: [Self; 6] =
        [Self::Closed, Self::SynSent, Self::Established, Self::Closing, Self::FinWait2, Self::TimeWait];

    /// Name as dpctl/dump-conntrack -m shows it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "CLOSED",
            Self::SynSent => "SYN_SENT",
            Self::Established => "ESTABLISHED",
            Self::Closing => "CLOSING",
            Self::FinWait2 => "FIN_WAIT_2",
            Self::TimeWait => "TIME_WAIT",
        }
    }

    /// Name as dpctl/dump-conntrack shows the further of both sides.
    #[must_use]
    pub const fn summary(self) -> &'static str {
        match self {
            Self::FinWait2 => "TIME_WAIT",
            other => other.name(),
        }
    }
}

impl fmt::Display for TcpState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A flag of an accepted segment, as an event of the state machine. A segment with several is taken in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum TcpEvent {
    /// SYN.
    Syn = SYN,
    /// FIN.
    Fin = FIN,
    /// ACK.
    Ack = ACK,
    /// RST.
    Rst = RST,
}

/// Whose state an event changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TcpSide {
    /// Who sent the segment.
    Sender,
    /// Who receives it.
    Receiver,
}

/// One row of the state machine: the state that each of [`TcpState::ALL`] turns into.
#[derive(Clone, Copy, Debug)]
pub struct TcpTransition {
    /// What was seen in a segment inside the window.
    pub event: TcpEvent,
    /// Whose state changes.
    pub side: TcpSide,
    /// The new states, in the order of [`TcpState::ALL`].
    pub next: [TcpState; 6],
    /// Why.
    pub why: &'static str,
}

use TcpState::{Closed, Closing, Established, FinWait2, SynSent, TimeWait};

#[rustfmt::skip]
const MACHINE: [TcpTransition; 5] = [
    //                                                                 Closed     SynSent      Established  Closing   FinWait2  TimeWait
    TcpTransition { event: TcpEvent::Syn, side: TcpSide::Sender,   next: [SynSent,  SynSent,     Established, Closing,  FinWait2, TimeWait],
        why: "the first segment of a side opens it; a repeated SYN changes nothing" },
    TcpTransition { event: TcpEvent::Fin, side: TcpSide::Sender,   next: [Closing,  Closing,     Closing,     Closing,  FinWait2, TimeWait],
        why: "a side that has sent FIN sends no new data" },
    TcpTransition { event: TcpEvent::Ack, side: TcpSide::Receiver, next: [Closed,   Established, Established, FinWait2, FinWait2, TimeWait],
        why: "what the receiver has sent, SYN or FIN, has arrived" },
    TcpTransition { event: TcpEvent::Rst, side: TcpSide::Sender,   next: [TimeWait; 6],
        why: "a reset ends both sides (RFC 9293 section 3.5.3)" },
    TcpTransition { event: TcpEvent::Rst, side: TcpSide::Receiver, next: [TimeWait; 6],
        why: "a reset ends both sides (RFC 9293 section 3.5.3)" },
];

/// The state machine, to be shown.
#[must_use]
pub const fn tcp_machine() -> &'static [TcpTransition] {
    &MACHINE
}

/// What one side has sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Peer {
    /// End of what it has sent.
    low: u32,
    /// End of what the other side is ready for.
    high: u32,
    /// Largest window that it announced, unscaled.
    window: u16,
    /// Scale in the low bits, [`SCALE_OFFERED`], [`SCALE_UNKNOWN`].
    scale: u8,
    /// A [`TcpState`]; of connections other than TCP a state of their own tracker's.
    pub(crate) state: u8,
}

/// What is known of a TCP peer's window scale (RFC 7323 section 2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WindowScale {
    /// It offered none.
    #[default]
    None,
    /// Windows are shifted by this many bits.
    Offered(u8),
    /// The stream was picked up midway.
    Unknown,
}

impl Peer {
    /// Behind the last byte that it has sent.
    pub(crate) const fn sent(&self) -> u32 {
        self.low
    }

    /// Its window scale.
    pub(crate) const fn window_scale(&self) -> WindowScale {
        if self.scale & SCALE_UNKNOWN != 0 {
            WindowScale::Unknown
        } else if self.scale & SCALE_OFFERED != 0 {
            WindowScale::Offered(self.scale & SCALE_MASK)
        } else {
            WindowScale::None
        }
    }

    /// The state of a tracker other than TCP's.
    pub(crate) const fn with_state(state: u8) -> Self {
        Self { low: 0, high: 0, window: 0, scale: 0, state }
    }

    /// Two numbers of a tracker other than TCP's.
    pub(crate) const fn with_numbers(first: u32, second: u32) -> Self {
        Self { low: first, high: second, window: 0, scale: 0, state: 0 }
    }

    /// The numbers that [`Peer::with_numbers`] put there.
    #[inline]
    pub(crate) const fn numbers(&self) -> (u32, u32) {
        (self.low, self.high)
    }

    /// The same in a state of another tracker's.
    pub(crate) const fn in_state(self, state: u8) -> Self {
        Self { state, ..self }
    }

    /// Of a protocol without windows, one that has sent so many packets and bytes.
    #[cfg(test)]
    pub(crate) fn counting(packets: u32, bytes: u32) -> Self {
        Self { low: packets, high: bytes, ..Self::default() }
    }

    #[inline]
    pub(crate) fn tcp_state(&self) -> TcpState {
        TcpState::ALL.get(usize::from(self.state)).copied().unwrap_or_default()
    }

    const fn set(&mut self, state: TcpState) {
        self.state = state as u8;
    }

    const fn shift(&self) -> u32 {
        (self.scale & SCALE_MASK) as u32
    }
}

/// A [`Peer`] in the table: read by anyone, field by field, and written by the table's owner alone. The tracker works
/// here and not on a copy, which would cost a packet some fifty instructions.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct PeerCell {
    low: AtomicU32,
    high: AtomicU32,
    window: AtomicU16,
    scale: AtomicU8,
    state: AtomicU8,
}

impl PeerCell {
    /// All of it; of a peer that is being tracked meanwhile, some fields may be newer than others.
    #[inline]
    pub(crate) fn load(&self) -> Peer {
        Peer {
            low: self.low(),
            high: self.high(),
            window: self.window(),
            scale: self.scale(),
            state: self.state(),
        }
    }

    #[inline]
    fn low(&self) -> u32 {
        self.low.load(Relaxed)
    }

    #[inline]
    fn high(&self) -> u32 {
        self.high.load(Relaxed)
    }

    #[inline]
    fn window(&self) -> u16 {
        self.window.load(Relaxed)
    }

    #[inline]
    fn scale(&self) -> u8 {
        self.scale.load(Relaxed)
    }

    /// As [`Peer::state`].
    #[inline]
    pub(crate) fn state(&self) -> u8 {
        self.state.load(Relaxed)
    }

    /// Of a protocol without windows, what was [counted](Owned::count): packets and bytes.
    #[inline]
    pub(crate) fn counted(&self) -> [u32; 2] {
        [self.low(), self.high()]
    }

    /// Of a protocol without windows, what was [put](Owned::set_note) where TCP has its window.
    #[inline]
    pub(crate) fn note(&self) -> u16 {
        self.window.load(Acquire)
    }

    #[inline]
    fn tcp_state(&self) -> TcpState {
        TcpState::ALL.get(usize::from(self.state())).copied().unwrap_or_default()
    }

    #[inline]
    fn shift(&self) -> u32 {
        u32::from(self.scale() & SCALE_MASK)
    }
}

impl Owned<'_, PeerCell> {
    #[inline]
    pub(crate) fn store(self, peer: Peer) {
        self.set_low(peer.low);
        self.set_high(peer.high);
        self.set_window(peer.window);
        self.set_scale(peer.scale);
        self.set_state(peer.state);
    }

    /// Of a protocol without windows: counts a packet of so many bytes, both modulo 2^32 where TCP has its numbers. Says
    /// which of the two has wrapped.
    #[inline]
    pub(crate) fn count(self, bytes: u32) -> [bool; 2] {
        let (packets, more_packets) = self.low().overflowing_add(1);
        let (bytes, more_bytes) = self.high().overflowing_add(bytes);
        self.set_low(packets);
        self.set_high(bytes);
        [more_packets, more_bytes]
    }

    /// Of a protocol without windows: who reads this note sees what was written before it.
    #[inline]
    pub(crate) fn set_note(self, note: u16) {
        self.window.store(note, Release);
    }

    #[inline]
    fn set_low(self, low: u32) {
        self.low.store(low, Relaxed);
    }

    #[inline]
    fn set_high(self, high: u32) {
        self.high.store(high, Relaxed);
    }

    #[inline]
    fn set_window(self, window: u16) {
        self.window.store(window, Relaxed);
    }

    #[inline]
    fn set_scale(self, scale: u8) {
        self.scale.store(scale, Relaxed);
    }

    #[inline]
    pub(crate) fn set_state(self, state: u8) {
        self.state.store(state, Relaxed);
    }

    #[inline]
    fn set(self, state: TcpState) {
        self.set_state(state as u8);
    }

    /// Takes note of what a segment shows: data up to `end`, and a window.
    #[inline]
    fn saw(self, end: u32, window: u16) {
        self.set_window(self.window().max(window));
        if is_after(end, self.low()) {
            self.set_low(end);
        }
    }

    /// The other side is ready for bytes up to `end`.
    #[inline]
    fn may_send(self, ack: u32, window: u32) {
        if is_at_or_after(ack.wrapping_add(window), self.high()) {
            self.set_high(ack.wrapping_add(window.max(1)));
        }
    }
}

#[inline]
const fn is_after(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() > 0
}

#[inline]
const fn is_at_or_after(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() >= 0
}

/// What the tracker reads of a segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    seq: u32,
    pub(crate) ack: u32,
    window: u16,
    flags: u8,
    /// Window scale option; only looked for in a SYN.
    scale: Option<u8>,
    payload: u32,
}

impl Segment {
    /// Reads a TCP header; `None` if it is cut or its data offset is wrong.
    #[inline]
    pub(crate) fn parse(frame: &[u8], layers: &Layers) -> Option<Self> {
        let l4 = layers.l4_bytes(frame);
        let header = l4.first_chunk::<20>()?;
        let header_len = usize::from(header[12] >> 4) * 4;
        if header_len < 20 {
            return None;
        }
        let payload = u32::try_from(l4.len().checked_sub(header_len)?).ok()?;
        let [_, _, _, _, s0, s1, s2, s3, a0, a1, a2, a3, _, flags, w0, w1, ..] = *header;
        let scale = if flags & SYN == 0 { None } else { scale_option(l4.get(20..header_len)?) };
        Some(Self {
            seq: u32::from_be_bytes([s0, s1, s2, s3]),
            ack: u32::from_be_bytes([a0, a1, a2, a3]),
            window: u16::from_be_bytes([w0, w1]),
            flags,
            scale,
            payload,
        })
    }

    const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The sequence number behind this segment: SYN and FIN count one each.
    const fn end(&self) -> u32 {
        self.seq
            .wrapping_add(self.payload)
            .wrapping_add(self.has(SYN) as u32)
            .wrapping_add(self.has(FIN) as u32)
    }

    const fn is_opening(&self) -> bool {
        self.flags & (SYN | ACK) == SYN
    }

    /// The scale byte that this SYN's option makes.
    fn scale_bits(&self) -> u8 {
        // RFC 7323 section 2.3: a larger shift counts as 14.
        self.scale.map_or(0, |shift| shift.min(MAX_SCALE as u8) | SCALE_OFFERED)
    }
}

/// The window scale option (kind 3, RFC 7323 section 2.2) among a header's options.
fn scale_option(mut options: &[u8]) -> Option<u8> {
    loop {
        options = match options {
            [] | [0, ..] => return None,
            [1, rest @ ..] => rest,
            [3, 3, shift, ..] => return Some(*shift),
            [_, len, ..] if *len >= 2 => options.get(usize::from(*len)..)?,
            _ => return None,
        };
    }
}

/// Both sides after the first segment of a connection; `None` if it may not start one: a SYN+ACK answers a SYN
/// that was never seen.
pub(crate) fn start(segment: &Segment) -> Option<([Peer; 2], Timeout)> {
    if segment.flags & (SYN | ACK) == SYN | ACK {
        return None;
    }
    let mut source = Peer { low: segment.seq, window: segment.window.max(1), ..Peer::default() };
    // One byte beyond the segment, until the other side says how much it takes.
    source.high = segment.end().wrapping_add(1);
    source.set(SynSent);
    let mut destination = Peer { high: 1, window: 1, ..Peer::default() };
    if segment.has(SYN) {
        source.scale = segment.scale_bits();
        source.window = unscaled(source.window, source.shift());
    } else {
        source.scale = SCALE_UNKNOWN;
        destination.scale = SCALE_UNKNOWN;
    }
    Some(([source, destination], Timeout::TcpSynSent))
}

/// A SYN's window is never scaled (RFC 7323 section 2.2), all later ones are: keep it in their unit, rounded up.
fn unscaled(window: u16, shift: u32) -> u16 {
    u16::try_from(u32::from(window).div_ceil(1 << shift)).unwrap_or(u16::MAX)
}

/// Judges a segment of a known connection and takes it into account. The timeout is what the connection may now be
/// silent for; `None` leaves its deadline.
#[inline]
pub(crate) fn track(
    source: Owned<'_, PeerCell>,
    destination: Owned<'_, PeerCell>,
    segment: &Segment,
    liberal: bool,
) -> (Verdict, Option<Timeout>) {
    if segment.is_opening() {
        if source.tcp_state() >= FinWait2 && destination.tcp_state() >= FinWait2 {
            return (Verdict::Restart, None);
        }
        if source.tcp_state() == Closed {
            // Both sides open at once (RFC 9293 section 3.5): the other's SYN, to be answered by SYN+ACK.
            let mut window = segment.window;
            open(source, destination, segment, &mut window, 0, 0);
            return (Verdict::New, Some(Timeout::TcpSynSent));
        }
        if source.tcp_state() == SynSent {
            return (Verdict::New, Some(Timeout::TcpSynSent));
        }
    }

    let (mut source_shift, mut destination_shift) = shifts(&source, &destination, segment);
    let end_of_segment = segment.end();
    let mut window = segment.window;
    let mut opens = false;
    if source.tcp_state() == Closed {
        (source_shift, destination_shift, opens) =
            open(source, destination, segment, &mut window, source_shift, destination_shift);
    }

    // A segment without ACK, and a RST of stacks that leave the field 0, acknowledges nothing.
    let ack = if !segment.has(ACK) || (segment.ack == 0 && segment.has(RST)) {
        destination.low()
    } else {
        segment.ack
    };
    // Segments without data may carry any sequence number that was ever right.
    let (seq, end) = if segment.seq == end_of_segment {
        (source.low(), source.low())
    } else {
        (segment.seq, end_of_segment)
    };
    // What a side's first segment acknowledges is not held against it: the SYN that it answers may have been
    // followed by one with another number, which changes nothing here. Unless the other side has acknowledged further
    // than this segment opens the window: then the two have met before.
    let behind = if opens { 0 } else { destination.low().wrapping_sub(ack).cast_signed() };
    let destination_window = u32::from(destination.window()) << destination_shift;
    let offered = u32::from(window) << source_shift;

    let within = liberal
        || (is_at_or_after(source.high(), end)
            // Repeats of no more than one window.
            && is_at_or_after(seq, source.low().wrapping_sub(destination_window))
            && behind >= -SLACK.cast_signed()
            && i64::from(behind) <= i64::from(SLACK) << source_shift
            // A blind reset must hit the number exactly (RFC 5961 section 3).
            && (!segment.has(RST) || is_next(segment.seq, source.low())));
    if within {
        source.saw(end, window);
        destination.may_send(ack, offered);
        apply(source, destination, segment.flags);
        return (Verdict::Established, Some(timeout(source.tcp_state(), destination.tcp_state())));
    }

    // pf's looser rule while one side was not heard yet or both are done: SYNs sent in both directions at once,
    // streams picked up midway, stray FINs and RSTs after the close. The deadline stays, so that a flood gains nothing.
    let unsettled = destination.tcp_state() < SynSent
        || destination.tcp_state() >= FinWait2
        || source.tcp_state() >= FinWait2;
    if unsettled
        && is_at_or_after(source.high().wrapping_add(SLACK), end)
        && is_at_or_after(seq, source.low().wrapping_sub(SLACK))
    {
        source.saw(end, window);
        destination.may_send(ack, offered);
        apply(source, destination, segment.flags & (FIN | RST));
        return (Verdict::Established, None);
    }
    (Verdict::Invalid, None)
}

/// The expected sequence number, or one beside it.
const fn is_next(seq: u32, expected: u32) -> bool {
    seq.wrapping_sub(expected).wrapping_add(1) <= 2
}

/// By how much windows of either side are to be shifted.
#[inline]
fn shifts(source: &PeerCell, destination: &PeerCell, segment: &Segment) -> (u32, u32) {
    let both = source.scale() & destination.scale();
    if segment.has(SYN) {
        (0, 0)
    } else if both & SCALE_OFFERED != 0 {
        (source.shift(), destination.shift())
    } else if both & SCALE_UNKNOWN != 0 {
        (MAX_SCALE, MAX_SCALE)
    } else {
        (0, 0)
    }
}

/// The first segment of a side: learns its sequence number and settles the window scales. Gives the shifts of both
/// windows, and whether this segment is what opens its side's window.
#[cold]
fn open(
    source: Owned<'_, PeerCell>,
    destination: Owned<'_, PeerCell>,
    segment: &Segment,
    window: &mut u16,
    mut source_shift: u32,
    mut destination_shift: u32,
) -> (u32, u32, bool) {
    let end = segment.end();
    if segment.has(SYN) && destination.scale() & SCALE_OFFERED != 0 {
        source.set_scale(segment.scale_bits());
        if source.scale() & SCALE_OFFERED != 0 {
            source_shift = source.shift();
            *window = unscaled(*window, source_shift);
            destination_shift = destination.shift();
        } else {
            // Both must offer a scale, or none is used (RFC 7323 section 2.2): back to the unit of bytes.
            let bytes = u32::from(destination.window()) << destination.shift();
            destination.set_window(u16::try_from(bytes).unwrap_or(u16::MAX));
            destination.set_scale(0);
        }
    }
    source.set_low(segment.seq);
    source.set(SynSent);
    let high = end.wrapping_add((u32::from(destination.window()) << destination_shift).max(1));
    // 1: nothing was known of this side. Otherwise a segment of the other side may have moved it further.
    let opens = source.high() == 1 || is_at_or_after(high, source.high());
    if opens {
        source.set_high(high);
    }
    source.set_window(source.window().max(*window));
    (source_shift, destination_shift, opens)
}

#[inline]
fn apply(source: Owned<'_, PeerCell>, destination: Owned<'_, PeerCell>, flags: u8) {
    for row in &MACHINE {
        if flags & row.event as u8 != 0 {
            let peer = match row.side {
                TcpSide::Sender => source,
                TcpSide::Receiver => destination,
            };
            peer.set(row.next[peer.tcp_state() as usize]);
        }
    }
}

#[inline]
fn timeout(source: TcpState, destination: TcpState) -> Timeout {
    let (nearer, further) = (source.min(destination), source.max(destination));
    if nearer >= FinWait2 {
        Timeout::TcpClose
    } else if nearer >= Closing {
        Timeout::TcpTimeWait
    } else if nearer < Established {
        Timeout::TcpSynRecv
    } else if further >= Closing {
        Timeout::TcpFinWait
    } else {
        Timeout::TcpEstablished
    }
}

#[cfg(test)]
mod tests;
