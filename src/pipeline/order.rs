//! Which packets of a batch have to keep their order. A packet that its tracker has called new may be about to open, or
//! to reopen, a connection; those behind it that belong to the same one wait at their ct until it is through, so that a
//! burst comes out as its packets would one by one. (Not those of an established connection whose mark or label a packet
//! in front of them is about to change: they may still see the old one.)
//!
//! Nearly always nobody waits, and that is found out from a few words: a bit for each value that part of a connection's
//! hash may have says whether it was seen, another whether it was seen more than once. Only where the bits leave it open
//! are hashes compared.

use arrayvec::ArrayVec;

use super::frame::BURST;

/// Connections that packets of one batch may be about to open. More are packets of tables with a ct in many zones: their
/// order is lost.
const MAX_OPENING: usize = 2 * BURST;

/// The order of one batch.
#[derive(Default)]
pub(super) struct Order {
    /// The connection's hash, the same for both directions, and the packet.
    opening: ArrayVec<(u64, usize), MAX_OPENING>,
    seen: Marks,
    seen_again: Marks,
    /// Packets that wait.
    pub(super) waiting: ArrayVec<usize, BURST>,
}

impl Order {
    /// True if nobody has to wait.
    #[inline]
    pub(super) const fn is_free(&self) -> bool {
        self.opening.is_empty()
    }

    /// True if the packet at `index`, of the connection with this hash, has to wait for another one.
    #[inline]
    pub(super) fn is_behind(&self, index: usize, hash: Option<u64>) -> bool {
        let Some(hash) = hash.filter(|&hash| self.seen.has(hash)) else { return false };
        // Where one packet alone has left the mark, it is most often this one itself.
        let is_own =
            !self.seen_again.has(hash) && self.opening.get(index).is_some_and(|own| *own == (hash, index));
        !is_own && self.opening.iter().any(|&(opening, other)| opening == hash && other != index)
    }

    /// The packet at `index` may be about to open the connection with this hash.
    #[inline]
    pub(super) fn open(&mut self, index: usize, hash: u64) {
        // A burst of new packets comes by in the order of its numbers, wave after wave.
        if self.opening.get(index) == Some(&(hash, index)) {
            return;
        }
        if self.seen.has(hash) {
            if self.opening.contains(&(hash, index)) {
                return;
            }
            self.seen_again.set(hash);
        }
        self.seen.set(hash);
        let _ = self.opening.try_push((hash, index));
    }

    /// All that may have opened connections are through.
    pub(super) fn settle(&mut self) {
        self.opening.clear();
        self.seen = Marks::default();
        self.seen_again = Marks::default();
    }
}

/// A bit for each of 256 parts of a hash.
#[derive(Clone, Copy, Default)]
struct Marks([u64; 4]);

impl Marks {
    const fn at(hash: u64) -> (usize, u64) {
        ((hash >> 62) as usize, 1 << (hash >> 56 & 63))
    }

    #[inline]
    const fn has(&self, hash: u64) -> bool {
        let (word, bit) = Self::at(hash);
        self.0[word] & bit != 0
    }

    #[inline]
    const fn set(&mut self, hash: u64) {
        let (word, bit) = Self::at(hash);
        self.0[word] |= bit;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// The model: a list of what may be opened.
        #[test]
        fn a_packet_waits_if_another_one_may_open_its_connection(
            steps in prop::collection::vec((0usize..BURST, 0u64..4, 0u64..4), 0..200),
        ) {
            let mut order = Order::default();
            let mut model: Vec<(u64, usize)> = Vec::new();
            for (index, high, low) in steps {
                let hash = high << 62 | low;
                let behind = model.iter().any(|&(opening, other)| opening == hash && other != index);
                prop_assert_eq!(order.is_behind(index, Some(hash)), behind);
                prop_assert_eq!(order.is_free(), model.is_empty());
                if model.len() == MAX_OPENING {
                    order.settle();
                    model.clear();
                }
                order.open(index, hash);
                if !model.contains(&(hash, index)) {
                    model.push((hash, index));
                }
            }
            prop_assert!(!order.is_behind(0, None));
        }
    }
}
