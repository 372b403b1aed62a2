//! What a flow matches: a key, and which of its bits count.

use super::field::Field;
use super::key::{Key, Mask};

/// A match. `key & mask == key`, always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Match {
    pub key: Key,
    pub mask: Mask,
}

impl Match {
    /// Matches every packet.
    pub const ANY: Self = Self { key: Key::ZERO, mask: Key::ZERO };

    /// True if a packet with these fields is matched.
    #[inline]
    #[must_use]
    pub fn matches(&self, packet: &Key) -> bool {
        self.key
            .words
            .iter()
            .zip(&self.mask.words)
            .zip(&packet.words)
            .all(|((key, mask), word)| word & mask == *key)
    }

    /// Adds `field = value/mask` to the match, replacing what it said about the bits of `mask`.
    pub fn set(&mut self, field: &Field, value: u128, mask: u128) {
        field.write(&mut self.key, value & mask, mask);
        field.write(&mut self.mask, mask, mask);
    }

    /// The field's value and mask.
    #[must_use]
    pub fn field(&self, field: &Field) -> (u128, u128) {
        (field.read(&self.key), field.read(&self.mask))
    }

    /// True if every packet that `self` matches is matched by `other` too.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        let mut words =
            self.key.words.iter().zip(&self.mask.words).zip(other.key.words.iter().zip(&other.mask.words));
        words.all(|((key, mask), (wide_key, wide_mask))| {
            wide_mask & !mask == 0 && key & wide_mask == *wide_key
        })
    }

    /// True if some packet could be matched by both.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let mut words =
            self.key.words.iter().zip(&self.mask.words).zip(other.key.words.iter().zip(&other.mask.words));
        words.all(|((key, mask), (other_key, other_mask))| (key ^ other_key) & mask & other_mask == 0)
    }
}
