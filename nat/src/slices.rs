//! Where a reply has to arrive: with several shards, one that chooses a reply tuple may want only those that are
//! steered back to itself. The shards say which they are through [`Homes`]; [`crate::choose`] draws from them. Nothing
//! here knows how packets are steered.

use weir_wire::Tuple;

use crate::occupancy::End;

/// The ports of one end of a reply tuple, all else of it being fixed, with which it has the right home.
pub trait PortSlice {
    /// How many there are: up to 65 536, 0 among them if it is one.
    fn count(&self) -> u32;

    /// Each of them once as `number` goes from 0 to below [`PortSlice::count`]; any port beyond. Costs a few
    /// instructions, whatever the number.
    fn nth(&self, number: u32) -> u16;

    /// True if `port` is one of them.
    fn contains(&self, port: u16) -> bool;

    /// Which of the 64 ports from `64 * word` on are: the first one in the lowest bit. `word` is below 1024.
    fn word(&self, word: u16) -> u64;
}

/// Which reply tuples have the right home.
pub trait Homes {
    /// The ports of one end.
    type Slice<'h>: PortSlice
    where
        Self: 'h;

    /// True if a search may give any tuple. Then [`Homes::slice`] is not asked, and [`Homes::is_own`] only for what may
    /// be [remembered](crate::Occupancy): who learns that a tuple is free again can remember that it was taken.
    const ANY: bool = false;

    /// True if the tuple has the right home.
    fn is_own(&self, reply: &Tuple) -> bool;

    /// The ports of the end that would be translated, whatever `reply` has there. Of an ICMP query it is the identifier.
    fn slice(&self, reply: &Tuple, end: End) -> Self::Slice<'_>;

    /// Of this many addresses about one has a slice that is not empty.
    fn one_address_in(&self, reply: &Tuple) -> u32;
}

/// For one shard alone: every home is its own.
#[derive(Clone, Copy, Debug)]
pub struct Anywhere;

impl Homes for Anywhere {
    type Slice<'h> = Anywhere;
    const ANY: bool = true;

    #[inline]
    fn is_own(&self, _: &Tuple) -> bool {
        true
    }

    fn slice(&self, _: &Tuple, _: End) -> Self {
        Self
    }

    fn one_address_in(&self, _: &Tuple) -> u32 {
        1
    }
}

impl PortSlice for Anywhere {
    fn count(&self) -> u32 {
        1 << 16
    }

    fn nth(&self, number: u32) -> u16 {
        number as u16
    }

    fn contains(&self, _: u16) -> bool {
        true
    }

    fn word(&self, _: u16) -> u64 {
        u64::MAX
    }
}

/// In the order of one shard alone, whatever home a tuple has: for ranges that leave no choice of ports.
#[derive(Clone, Copy, Debug)]
pub struct InOrder<'h, H>(
    /// Says which tuples are remembered here.
    pub &'h H,
);

impl<H: Homes> Homes for InOrder<'_, H> {
    type Slice<'s>
        = H::Slice<'s>
    where
        Self: 's;
    const ANY: bool = true;

    fn is_own(&self, reply: &Tuple) -> bool {
        self.0.is_own(reply)
    }

    fn slice(&self, reply: &Tuple, end: End) -> Self::Slice<'_> {
        self.0.slice(reply, end)
    }

    fn one_address_in(&self, reply: &Tuple) -> u32 {
        self.0.one_address_in(reply)
    }
}
