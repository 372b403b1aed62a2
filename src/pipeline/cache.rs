//! The exact-match cache: from the hash of a packet's whole header to the megaflow that took such a packet
//! last. An entry is a hint of 8 bytes (the whole cache is 64 KiB, half of it fits L1); the caller verifies it
//! against the megaflow's masked key, so a collision costs a search and never gives a wrong answer.

use crate::flow::key::{Key, at};

const ENTRIES: usize = 8192;
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Entry {
    tag: u32,
    flow: u32,
}

/// Signature to megaflow index.
#[derive(Debug)]
pub struct ExactMatch {
    entries: Box<[Entry; ENTRIES]>,
    seeds: [u64; 4],
}

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ (product >> 64) as u64
}

impl ExactMatch {
    /// An empty cache; `seeds` are secret, so that nobody outside can aim at one entry.
    #[must_use]
    pub fn new(seeds: [u64; 4]) -> Self {
        let entries = vec![Entry { tag: 0, flow: NONE }; ENTRIES].into_boxed_slice();
        let entries =
            entries.try_into().unwrap_or_else(|_| Box::new([Entry { tag: 0, flow: NONE }; ENTRIES]));
        Self { entries, seeds }
    }

    /// Hash of the fields that tell connections and recirculations apart.
    #[inline]
    #[must_use]
    pub fn hash(&self, key: &Key) -> u64 {
        let [a, b, c, d] = self.seeds;
        let w = &key.words;
        let mut hash = fold(w[0] ^ a, w[1] ^ b) ^ fold(w[2] ^ c, w[3] ^ d);
        hash ^= fold(w[4] ^ b.rotate_left(17), w[5] ^ c.rotate_left(31));
        hash ^= fold(w[6] ^ d.rotate_left(43), w[7] ^ a.rotate_left(7));
        const ADDRESSES: usize = at::IPV6_SRC / 8;
        if w[ADDRESSES] | w[ADDRESSES + 2] != 0 {
            hash ^= fold(w[ADDRESSES] ^ a, w[ADDRESSES + 1] ^ c);
            hash = fold(hash ^ w[ADDRESSES + 2] ^ b, w[ADDRESSES + 3] ^ d);
        }
        hash
    }

    /// The megaflow to try first.
    #[inline]
    #[must_use]
    pub fn lookup(&self, hash: u64) -> Option<u32> {
        let entry = self.entries[hash as usize % ENTRIES];
        (entry.tag == (hash >> 32) as u32 && entry.flow != NONE).then_some(entry.flow)
    }

    /// Remembers `flow` for packets of this hash.
    #[inline]
    pub fn insert(&mut self, hash: u64, flow: u32) {
        self.entries[hash as usize % ENTRIES] = Entry { tag: (hash >> 32) as u32, flow };
    }
}
