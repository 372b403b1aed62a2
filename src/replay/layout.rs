//! How a virtual switch is divided: its shards, which of them a packet comes to, and how long letters between them are
//! under way. Everything is drawn from a seed, so that a run can be repeated.

use core::str::FromStr;

/// Which shard a packet comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Arrival {
    /// Its owner, as a card that is set up alike would bring it there.
    #[default]
    Steered,
    /// Any.
    Random,
    /// One after the other.
    RoundRobin,
    /// Not the one that it belongs to by its tuple, if there is another one.
    Adverse,
}

impl Arrival {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Steered, Self::Random, Self::RoundRobin, Self::Adverse];

    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Steered => "steered",
            Self::Random => "random",
            Self::RoundRobin => "round-robin",
            Self::Adverse => "adverse",
        }
    }
}

impl FromStr for Arrival {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = Self::ALL.into_iter().find(|arrival| arrival.name() == text);
        named.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("\"{text}\" is none of {names}")
        })
    }
}

/// How a virtual switch is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Shards, from 1 to [`MAX_SHARDS`](weir_shard::steering::MAX_SHARDS); what is beyond is cut.
    pub shards: usize,
    /// Which of them a packet comes to.
    pub arrival: Arrival,
    /// Packets of other shards are handed over as soon as they are parsed; otherwise they travel when a `ct` asks.
    pub steered_early: bool,
    /// Steps that a letter is under way at the most; each draws how many. A step is a burst that is received, from a
    /// port or from another shard. 0: at once.
    pub mailbox_delay: u32,
    /// Letters that are under way from one shard to another at the most.
    pub mailbox_capacity: usize,
    /// All letters arrive before the clock goes on.
    pub settles_with_time: bool,
    /// Decides what is drawn.
    pub seed: u64,
}

impl Default for Layout {
    fn default() -> Self {
        Self {
            shards: 1,
            arrival: Arrival::Steered,
            steered_early: true,
            mailbox_delay: 0,
            mailbox_capacity: 1024,
            settles_with_time: true,
            seed: 0,
        }
    }
}

/// Draws numbers (splitmix64, Steele et al. 2014).
#[derive(Clone, Copy, Debug)]
pub(super) struct Draw(u64);

impl Draw {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// A number below `bound`, which is not 0; of few, so that a remainder does.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}
