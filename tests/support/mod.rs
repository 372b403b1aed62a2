//! What tests that drive whole workers at random have in common: frames whose end is noticed, and chance.

use std::sync::Arc;

use weir::pipeline::{Frame, HeapFrame};

/// A frame that is counted as long as it lives.
#[derive(Debug)]
pub(crate) struct Counted {
    pub(crate) frame: HeapFrame,
    pub(crate) alive: Arc<()>,
}

impl Frame for Counted {
    fn bytes(&self) -> &[u8] {
        self.frame.bytes()
    }
    fn bytes_mut(&mut self) -> &mut [u8] {
        self.frame.bytes_mut()
    }
    fn grow_front(&mut self, count: usize) -> bool {
        self.frame.grow_front(count)
    }
    fn shrink_front(&mut self, count: usize) -> bool {
        self.frame.shrink_front(count)
    }
    fn grow_back(&mut self, count: usize) -> bool {
        self.frame.grow_back(count)
    }
    fn truncate(&mut self, length: usize) {
        self.frame.truncate(length);
    }
    fn duplicate(&self) -> Option<Self> {
        Some(Self { frame: self.frame.duplicate()?, alive: Arc::clone(&self.alive) })
    }
}

/// SplitMix64 (Steele, Lea and Flood 2014).
pub(crate) struct Random(pub u64);

impl Random {
    pub(crate) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub(crate) fn up_to(&mut self, last: u16) -> u16 {
        u16::try_from(self.number() % (u64::from(last) + 1)).unwrap()
    }

    /// True in `percent` of a hundred cases.
    pub(crate) fn likely(&mut self, percent: u16) -> bool {
        self.up_to(99) < percent
    }
}
