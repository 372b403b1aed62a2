//! SCTP (RFC 9260): the state of an association as somebody between its ends sees it, and the verification tags that
//! its packets must carry. Nothing here knows the table.
//!
//! A packet is a bundle of chunks. Each is an event of the state machine, taken in order; one that does not fit makes
//! the whole packet invalid, which then has changed nothing. Tags are learned from INIT and INIT ACK (section 5.1), so
//! that who has not seen the handshake cannot end or take over an association. A path that begins with data or a
//! HEARTBEAT (multi-homing, section 5.4, or a tracker that was started midway) is picked up and learns its tags from
//! the first packet of each side.

use core::fmt;

use weir_wire::Layers;
use weir_wire::header::Sctp;

use crate::table::bucket::Direction;
use crate::tcp::Peer;
use crate::timeouts::Timeout;
use crate::verdict::Verdict;

/// How far an association is. `SHUTDOWN_SENT` means that the side which started it has sent SHUTDOWN, `SHUTDOWN_RECD`
/// that the other one has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum SctpState {
    /// Over: aborted, or the shutdown is complete.
    #[default]
    Closed,
    /// INIT was seen.
    CookieWait,
    /// COOKIE ECHO was seen.
    CookieEchoed,
    /// COOKIE ACK was seen, or both sides of a path that was picked up.
    Established,
    /// SHUTDOWN of the original direction was seen.
    ShutdownSent,
    /// SHUTDOWN of the reply direction was seen.
    ShutdownReceived,
    /// SHUTDOWN ACK was seen.
    ShutdownAckSent,
    /// A path that began without a handshake and was not answered yet.
    HeartbeatSent,
}

impl SctpState {
    /// All states in order.
    pub const ALL: [Self; 8] = [
        Self::Closed,
        Self::CookieWait,
        Self::CookieEchoed,
        Self::Established,
        Self::ShutdownSent,
        Self::ShutdownReceived,
        Self::ShutdownAckSent,
        Self::HeartbeatSent,
    ];

    /// Name as dpctl/dump-conntrack shows it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "CLOSED",
            Self::CookieWait => "COOKIE_WAIT",
            Self::CookieEchoed => "COOKIE_ECHOED",
            Self::Established => "ESTABLISHED",
            Self::ShutdownSent => "SHUTDOWN_SENT",
            Self::ShutdownReceived => "SHUTDOWN_RECD",
            Self::ShutdownAckSent => "SHUTDOWN_ACK_SENT",
            Self::HeartbeatSent => "HEARTBEAT_SENT",
        }
    }

    const fn timeout(self) -> Timeout {
        match self {
            Self::Closed => Timeout::SctpClosed,
            Self::CookieWait => Timeout::SctpCookieWait,
            Self::CookieEchoed => Timeout::SctpCookieEchoed,
            Self::Established => Timeout::SctpEstablished,
            Self::ShutdownSent => Timeout::SctpShutdownSent,
            Self::ShutdownReceived => Timeout::SctpShutdownReceived,
            Self::ShutdownAckSent => Timeout::SctpShutdownAckSent,
            Self::HeartbeatSent => Timeout::SctpHeartbeatSent,
        }
    }
}

impl fmt::Display for SctpState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a chunk is to the state machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SctpChunk {
    /// INIT (type 1).
    Init,
    /// INIT ACK (2).
    InitAck,
    /// COOKIE ECHO (10) with the association's tag.
    CookieEcho,
    /// COOKIE ECHO with the tag of a later INIT ACK: an end has restarted (section 5.2.4).
    CookieEchoAnew,
    /// COOKIE ACK (11).
    CookieAck,
    /// DATA (0), SACK (3), and every type that has no row of its own.
    Data,
    /// HEARTBEAT (4).
    Heartbeat,
    /// HEARTBEAT ACK (5).
    HeartbeatAck,
    /// ERROR (9).
    Error,
    /// SHUTDOWN (7).
    Shutdown,
    /// SHUTDOWN ACK (8).
    ShutdownAck,
    /// SHUTDOWN COMPLETE (14).
    ShutdownComplete,
    /// ABORT (6).
    Abort,
}

impl SctpChunk {
    /// All of them in the order of the table.
    pub const ALL: [Self; 13] = [
        Self::Init,
        Self::InitAck,
        Self::CookieEcho,
        Self::CookieEchoAnew,
        Self::CookieAck,
        Self::Data,
        Self::Heartbeat,
        Self::HeartbeatAck,
        Self::Error,
        Self::Shutdown,
        Self::ShutdownAck,
        Self::ShutdownComplete,
        Self::Abort,
    ];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Init => "INIT",
            Self::InitAck => "INIT_ACK",
            Self::CookieEcho => "COOKIE_ECHO",
            Self::CookieEchoAnew => "COOKIE_ECHO anew",
            Self::CookieAck => "COOKIE_ACK",
            Self::Data => "DATA and others",
            Self::Heartbeat => "HEARTBEAT",
            Self::HeartbeatAck => "HEARTBEAT_ACK",
            Self::Error => "ERROR",
            Self::Shutdown => "SHUTDOWN",
            Self::ShutdownAck => "SHUTDOWN_ACK",
            Self::ShutdownComplete => "SHUTDOWN_COMPLETE",
            Self::Abort => "ABORT",
        }
    }

    const fn of_type(kind: u8) -> Self {
        match kind {
            1 => Self::Init,
            2 => Self::InitAck,
            4 => Self::Heartbeat,
            5 => Self::HeartbeatAck,
            6 => Self::Abort,
            7 => Self::Shutdown,
            8 => Self::ShutdownAck,
            9 => Self::Error,
            10 => Self::CookieEcho,
            11 => Self::CookieAck,
            14 => Self::ShutdownComplete,
            _ => Self::Data,
        }
    }
}

/// What an event does to the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SctpNext {
    /// The association is in this state now; the same one means that it stays.
    To(SctpState),
    /// The packet does not belong to the association: +inv, and nothing changes.
    Invalid,
    /// The old association is over and the packet starts another.
    Anew,
}

/// One row of the state machine.
#[derive(Clone, Copy, Debug)]
pub struct SctpTransition {
    /// The chunk.
    pub chunk: SctpChunk,
    /// True for a packet of the reply direction.
    pub reply: bool,
    /// What it does where there is no association.
    pub first: SctpNext,
    /// What it does in each state, in the order of [`SctpState::ALL`].
    pub next: [SctpNext; 8],
    /// Why.
    pub why: &'static str,
}

const fn to(state: SctpState) -> SctpNext {
    SctpNext::To(state)
}

const CL: SctpNext = to(SctpState::Closed);
const CW: SctpNext = to(SctpState::CookieWait);
const CE: SctpNext = to(SctpState::CookieEchoed);
const ES: SctpNext = to(SctpState::Established);
const SS: SctpNext = to(SctpState::ShutdownSent);
const SR: SctpNext = to(SctpState::ShutdownReceived);
const SA: SctpNext = to(SctpState::ShutdownAckSent);
const HS: SctpNext = to(SctpState::HeartbeatSent);
/// Not part of the association.
const NO: SctpNext = SctpNext::Invalid;
const NEW: SctpNext = SctpNext::Anew;

const ORIGINAL: bool = false;
const REPLY: bool = true;

const fn row(
    chunk: SctpChunk,
    reply: bool,
    first: SctpNext,
    next: [SctpNext; 8],
    why: &'static str,
) -> SctpTransition {
    SctpTransition { chunk, reply, first, next, why }
}

/// Two rows a chunk, in the order of [`SctpChunk::ALL`], the original direction's first.
#[rustfmt::skip]
const MACHINE: [SctpTransition; 26] = [
    //                                           none  Closed CookieW CookieE Estab ShSent ShRecd ShAckS HbSent
    row(SctpChunk::Init, ORIGINAL,               CW,  [NEW,   CW,     CE,     ES,   SS,    SR,    SA,    NEW],
        "starts an association; in one that lives it may be a restart, which the COOKIE ECHO decides (5.2.2)"),
    row(SctpChunk::Init, REPLY,                  NO,  [NEW,   CW,     CE,     ES,   SS,    SR,    SA,    NO],
        "both sides start at once (5.2.1), or the other one restarts (5.2.2)"),
    row(SctpChunk::InitAck, ORIGINAL,            NO,  [NO,    CW,     CE,     ES,   SS,    SR,    NO,    NO],
        "answers an INIT of the other side (5.2.1, 5.2.2)"),
    row(SctpChunk::InitAck, REPLY,               NO,  [NO,    CW,     CE,     ES,   SS,    SR,    NO,    NO],
        "brings the tag of who answers (5.1)"),
    row(SctpChunk::CookieEcho, ORIGINAL,         NO,  [NO,    CE,     CE,     ES,   SS,    SR,    SA,    NO],
        "proves that who started it can be reached (5.1); a repeated one changes nothing"),
    row(SctpChunk::CookieEcho, REPLY,            NO,  [NO,    CE,     CE,     ES,   SS,    SR,    SA,    NO],
        "after INITs of both sides (5.2.1)"),
    row(SctpChunk::CookieEchoAnew, ORIGINAL,     NO,  [NO,    CE,     CE,     CE,   CE,    CE,    NO,    NO],
        "a restart (5.2.4 action A); not while SHUTDOWN ACK is under way"),
    row(SctpChunk::CookieEchoAnew, REPLY,        NO,  [NO,    CE,     CE,     CE,   CE,    CE,    NO,    NO],
        "a restart (5.2.4 action A); not while SHUTDOWN ACK is under way"),
    row(SctpChunk::CookieAck, ORIGINAL,          NO,  [NO,    NO,     ES,     ES,   SS,    SR,    SA,    NO],
        "the handshake is done (5.1)"),
    row(SctpChunk::CookieAck, REPLY,             NO,  [NO,    NO,     ES,     ES,   SS,    SR,    SA,    NO],
        "the handshake is done (5.1)"),
    row(SctpChunk::Data, ORIGINAL,               HS,  [CL,    NO,     CE,     ES,   SS,    SR,    SA,    HS],
        "picked up midway where nothing is known; strays after the end pass and keep nothing alive"),
    row(SctpChunk::Data, REPLY,                  NO,  [CL,    NO,     CE,     ES,   SS,    SR,    SA,    ES],
        "both sides of a path that was picked up are known now"),
    row(SctpChunk::Heartbeat, ORIGINAL,          HS,  [CL,    NO,     CE,     ES,   SS,    SR,    SA,    HS],
        "a further path of a multi-homed association begins so (5.4)"),
    row(SctpChunk::Heartbeat, REPLY,             NO,  [CL,    NO,     CE,     ES,   SS,    SR,    SA,    ES],
        "both sides of a path that was picked up are known now"),
    row(SctpChunk::HeartbeatAck, ORIGINAL,       NO,  [CL,    NO,     CE,     ES,   SS,    SR,    SA,    HS],
        "an answer starts nothing"),
    row(SctpChunk::HeartbeatAck, REPLY,          NO,  [CL,    NO,     CE,     ES,   SS,    SR,    SA,    ES],
        "the path is confirmed (5.4)"),
    row(SctpChunk::Error, ORIGINAL,              NO,  [CL,    NO,     CE,     ES,   SS,    SR,    SA,    HS],
        "reports, and changes nothing (3.3.10)"),
    row(SctpChunk::Error, REPLY,                 NO,  [CL,    NO,     CE,     ES,   SS,    SR,    SA,    ES],
        "reports, a stale cookie for one, after which a new INIT comes (5.2.6)"),
    row(SctpChunk::Shutdown, ORIGINAL,           NO,  [CL,    NO,     CE,     SS,   SS,    SR,    SA,    SS],
        "who started it has sent all its data (9.2)"),
    row(SctpChunk::Shutdown, REPLY,              NO,  [CL,    NO,     CE,     SR,   SS,    SR,    SA,    SR],
        "the other side has sent all its data (9.2)"),
    row(SctpChunk::ShutdownAck, ORIGINAL,        NO,  [CL,    NO,     CE,     ES,   SA,    SA,    SA,    NO],
        "answers SHUTDOWN, also one that crossed its own (9.2)"),
    row(SctpChunk::ShutdownAck, REPLY,           NO,  [CL,    NO,     CE,     ES,   SA,    SA,    SA,    NO],
        "answers SHUTDOWN, also one that crossed its own (9.2)"),
    row(SctpChunk::ShutdownComplete, ORIGINAL,   NO,  [CL,    NO,     NO,     NO,   SS,    SR,    CL,    NO],
        "the end (9.2); before a SHUTDOWN ACK its receiver discards it (8.5.1 C)"),
    row(SctpChunk::ShutdownComplete, REPLY,      NO,  [CL,    NO,     NO,     NO,   SS,    SR,    CL,    NO],
        "the end (9.2); before a SHUTDOWN ACK its receiver discards it (8.5.1 C)"),
    row(SctpChunk::Abort, ORIGINAL,              NO,  [CL,    CL,     CL,     CL,   CL,    CL,    CL,    CL],
        "the end at once (9.1)"),
    row(SctpChunk::Abort, REPLY,                 NO,  [CL,    CL,     CL,     CL,   CL,    CL,    CL,    CL],
        "the end at once (9.1)"),
];

/// The state machine, to be shown.
#[must_use]
pub const fn sctp_machine() -> &'static [SctpTransition] {
    &MACHINE
}

#[inline]
fn transition(chunk: SctpChunk, direction: Direction) -> &'static SctpTransition {
    &MACHINE[chunk as usize * 2 + usize::from(direction == Direction::Reply)]
}

/// Both sides as the tracker keeps them. A side's tag is the one that packets *in its direction* carry, which the
/// other side has chosen; 0 is not known yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Association {
    state: SctpState,
    /// The other side has sent something.
    answered: bool,
    tags: [u32; 2],
    /// Tags of the last INIT and INIT ACK, which a restart makes the association's.
    offered: [u32; 2],
}

impl Association {
    fn of(peers: &[Peer; 2]) -> Self {
        let [first, second] = peers;
        Self {
            state: state(first),
            answered: second.state != 0,
            tags: [first.numbers().0, second.numbers().0],
            offered: [first.numbers().1, second.numbers().1],
        }
    }

    fn peers(&self) -> [Peer; 2] {
        let [first, second] = [0, 1].map(|side| Peer::with_numbers(self.tags[side], self.offered[side]));
        [first.in_state(self.state as u8), second.in_state(u8::from(self.answered))]
    }

    /// Takes a chunk of a packet with this tag into account.
    fn take(&mut self, chunk: &Chunk<'_>, tag: u32, direction: Direction) -> SctpNext {
        let (own, other) = (direction as usize, direction.opposite() as usize);
        let mut kind = chunk.kind;
        if self.state == SctpState::HeartbeatSent && self.tags[own] == 0 && !chunk.is_reflected() {
            self.tags[own] = tag;
        }
        let is_own = tag != 0 && tag == self.tags[own];
        let fits = match kind {
            SctpChunk::Init => tag == 0,
            SctpChunk::CookieEcho if !is_own && tag != 0 && tag == self.offered[own] => {
                kind = SctpChunk::CookieEchoAnew;
                true
            }
            SctpChunk::InitAck => is_own || tag != 0 && tag == self.offered[own],
            // Section 8.5.1 B and C: who does not know the receiver's tag reflects its own and sets the T bit.
            SctpChunk::Abort | SctpChunk::ShutdownComplete if chunk.is_reflected() => {
                tag != 0 && tag == self.tags[other]
            }
            _ => is_own,
        };
        if !fits {
            return NO;
        }
        let initiate = chunk.initiate_tag().unwrap_or(0);
        if initiate == 0 && matches!(kind, SctpChunk::Init | SctpChunk::InitAck) {
            return NO;
        }
        let next = transition(kind, direction).next[self.state as usize];
        let SctpNext::To(state) = next else { return next };
        match kind {
            SctpChunk::Init | SctpChunk::InitAck => {
                self.offered[other] = initiate;
                // Before the first COOKIE ECHO nothing depends on a tag yet, and an INIT may come with another.
                if self.tags[other] == 0 || self.state == SctpState::CookieWait {
                    self.tags[other] = initiate;
                }
            }
            SctpChunk::CookieEchoAnew => {
                for side in [own, other] {
                    if self.offered[side] != 0 {
                        self.tags[side] = self.offered[side];
                    }
                }
            }
            _ => {}
        }
        self.state = state;
        next
    }
}

/// The state that a connection's first side holds.
fn state(first: &Peer) -> SctpState {
    SctpState::ALL.get(usize::from(first.state)).copied().unwrap_or_default()
}

/// State and tags, to be shown.
pub(crate) fn shown(peers: &[Peer; 2]) -> (SctpState, [u32; 2]) {
    let association = Association::of(peers);
    (association.state, association.tags)
}

/// One chunk (section 3.2).
#[derive(Clone, Copy, Debug)]
struct Chunk<'p> {
    kind: SctpChunk,
    flags: u8,
    value: &'p [u8],
}

impl Chunk<'_> {
    /// The T bit of ABORT and SHUTDOWN COMPLETE.
    const fn is_reflected(&self) -> bool {
        self.flags & 1 != 0 && matches!(self.kind, SctpChunk::Abort | SctpChunk::ShutdownComplete)
    }

    /// The Initiate Tag of INIT and INIT ACK, of which a whole one has 16 bytes and whose tag is never 0
    /// (section 3.3.2).
    fn initiate_tag(&self) -> Option<u32> {
        let [a, b, c, d, ..] = *self.value.first_chunk::<16>()?;
        Some(u32::from_be_bytes([a, b, c, d])).filter(|tag| *tag != 0)
    }
}

/// Cuts the first chunk off; `None` if it is malformed.
fn next_chunk(bytes: &[u8]) -> Option<(Chunk<'_>, &[u8])> {
    let (&[kind, flags, high, low], _) = bytes.split_first_chunk::<4>()?;
    let len = usize::from(u16::from_be_bytes([high, low]));
    let value = bytes.get(4..len)?;
    // Padded to four bytes, which the length does not count; the last one's padding may be missing.
    let rest = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    Some((Chunk { kind: SctpChunk::of_type(kind), flags, value }, rest))
}

/// The verification tag and the chunks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet<'p> {
    tag: u32,
    chunks: &'p [u8],
}

impl<'p> Packet<'p> {
    /// The SCTP packet of a frame; `None` if it is cut.
    #[inline]
    pub(crate) fn parse(frame: &'p [u8], layers: &Layers) -> Option<Self> {
        let l4 = layers.l4_bytes(frame);
        let tag = Sctp::new_checked(l4).ok()?.verification_tag();
        Some(Self { tag, chunks: l4.get(12..)? })
    }
}

/// Both sides after the first packet of a connection; `None` if it may not start one.
pub(crate) fn start(packet: &Packet<'_>) -> Option<([Peer; 2], Timeout)> {
    let (first, rest) = next_chunk(packet.chunks)?;
    let SctpNext::To(state) = transition(first.kind, Direction::Original).first else { return None };
    let mut association = Association { state, answered: false, tags: [0; 2], offered: [0; 2] };
    if first.kind == SctpChunk::Init {
        if packet.tag != 0 || !rest.is_empty() {
            return None;
        }
        let initiate = first.initiate_tag()?;
        association.tags[1] = initiate;
        association.offered[1] = initiate;
    } else if bundle(&mut association, packet, Direction::Original) == NO {
        return None;
    }
    Some((association.peers(), association.state.timeout()))
}

/// Takes all chunks of a packet into account, or says which does not fit.
fn bundle(association: &mut Association, packet: &Packet<'_>, direction: Direction) -> SctpNext {
    let mut rest = packet.chunks;
    let mut last = NO;
    while !rest.is_empty() {
        let Some((chunk, behind)) = next_chunk(rest) else { return NO };
        let alone = matches!(chunk.kind, SctpChunk::Init | SctpChunk::InitAck | SctpChunk::ShutdownComplete);
        if alone && (rest.len() != packet.chunks.len() || !behind.is_empty()) {
            return NO;
        }
        last = association.take(&chunk, packet.tag, direction);
        if !matches!(last, SctpNext::To(_)) {
            return last;
        }
        rest = behind;
    }
    last
}

/// Judges a packet of a known connection and takes it into account. The timeout is what the connection may now be
/// silent for; `None` leaves its deadline.
#[inline]
pub(crate) fn track(
    peers: &mut [Peer; 2],
    direction: Direction,
    packet: &Packet<'_>,
) -> (Verdict, Option<Timeout>) {
    let mut association = Association::of(peers);
    let before = association.state;
    match bundle(&mut association, packet, direction) {
        SctpNext::Invalid => return (Verdict::Invalid, None),
        SctpNext::Anew => return (Verdict::Restart, None),
        SctpNext::To(_) => {}
    }
    association.answered |= direction == Direction::Reply;
    *peers = association.peers();
    let verdict = if association.answered { Verdict::Established } else { Verdict::New };
    // What strays after the end keeps nothing alive.
    let is_over = before == SctpState::Closed && association.state == SctpState::Closed;
    (verdict, (!is_over).then(|| association.state.timeout()))
}

#[cfg(test)]
mod tests;
