//! What happens to connections, for whoever listens: a new one, a change, an end with its cause. While nobody does,
//! nothing is recorded, and a packet pays one test. Events gather in a buffer that the listener has given; it takes
//! the full one away in exchange for an empty one, so the packet path neither allocates nor copies, and what does not
//! fit is counted as lost.

use crate::clock::Millis;
use crate::shard::Shard;
use crate::view::ConnectionView;

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EndCause {
    /// It was silent for too long.
    Timeout,
    /// A command removed it.
    Flush,
    /// A packet of its reply direction was committed with `force`.
    Force,
    /// A SYN came after both sides had closed, and started another connection with the same tuple.
    Reopened,
}

impl EndCause {
    /// Every cause.
    pub const ALL: [Self; 4] = [Self::Timeout, Self::Flush, Self::Force, Self::Reopened];

    /// Its name in the stream of events.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Flush => "flush",
            Self::Force => "force",
            Self::Reopened => "reopened",
        }
    }
}

/// What of a connection has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Changes(u8);

impl Changes {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Its tracker's state.
    pub const STATE: Self = Self(1);
    /// Its mark.
    pub const MARK: Self = Self(2);
    /// Its label.
    pub const LABEL: Self = Self(4);
    /// Its helper.
    pub const HELPER: Self = Self(8);

    const NAMES: [(Self, &str); 4] =
        [(Self::STATE, "state"), (Self::MARK, "mark"), (Self::LABEL, "labels"), (Self::HELPER, "helper")];

    /// Both.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// `self` if `condition` holds, otherwise nothing.
    pub(crate) const fn when(self, condition: bool) -> Self {
        if condition { self } else { Self::NONE }
    }

    /// The names of what changed.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.into_iter().filter(move |(bit, _)| self.0 & bit.0 != 0).map(|(_, name)| name)
    }
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// It was committed.
    New,
    /// A packet changed it.
    Update(Changes),
    /// It is gone.
    Destroy(EndCause),
}

impl EventKind {
    /// Its name in the stream of events.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Update(_) => "update",
            Self::Destroy(_) => "destroy",
        }
    }
}

/// One event.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The caller's clock when it happened.
    pub at: Millis,
    /// What happened.
    pub kind: EventKind,
    /// The connection after it; of one that is gone, its last state.
    pub connection: ConnectionView,
}

/// The buffer under way.
#[derive(Debug, Default)]
pub(crate) struct Events {
    listening: bool,
    /// Its capacity is the bound.
    buffer: Vec<Event>,
    /// Events that found no room in `buffer`.
    lost: u64,
}

impl Events {
    /// The one test that packets pay.
    #[inline]
    pub(crate) const fn listening(&self) -> bool {
        self.listening
    }
}

/// What happened since the last exchange of buffers, in order.
#[derive(Debug, Default)]
pub struct EventBatch {
    /// The events.
    pub events: Vec<Event>,
    /// How many more there were after them.
    pub lost: u64,
}

impl Shard {
    /// Begins to record events, up to the capacity of `buffer`.
    pub fn listen(&mut self, mut buffer: Vec<Event>) {
        buffer.clear();
        self.events = Events { listening: true, buffer, lost: 0 };
    }

    /// Records no more; what was recorded since the last exchange comes back.
    pub fn stop_listening(&mut self) -> EventBatch {
        let Events { buffer, lost, .. } = core::mem::take(&mut self.events);
        EventBatch { events: buffer, lost }
    }

    /// Takes what was recorded, and leaves an empty buffer (or, while nobody listens, nothing) in its place.
    pub fn exchange_events(&mut self, mut empty: Vec<Event>) -> EventBatch {
        if !self.events.listening() {
            return EventBatch::default();
        }
        empty.clear();
        let events = core::mem::replace(&mut self.events.buffer, empty);
        EventBatch { events, lost: core::mem::take(&mut self.events.lost) }
    }

    /// Records an event of the connection in slot `index`.
    #[cold]
    pub(crate) fn record(&mut self, index: u32, kind: EventKind) {
        if self.events.buffer.len() == self.events.buffer.capacity() {
            self.events.lost += 1;
            self.counters.events_lost += 1;
            return;
        }
        let Some(connection) = self.table.view(index, self.clock.moment()) else { return };
        self.events.buffer.push(Event { at: self.clock.reading(), kind, connection });
    }
}
