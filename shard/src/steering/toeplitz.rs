//! The Toeplitz hash of receive-side scaling (Microsoft, "RSS hashing types" and "Verifying the RSS hash calculation")
//! with a key that repeats one 16-bit word. Such a hash depends on the exclusive or of all 16-bit words of its input
//! only, so that both directions of a connection hash alike (S. Woo and K. Park, "Scalable TCP session monitoring with
//! symmetric receive-side scaling", KAIST 2012).

/// A 16-bit word of odd weight that the key repeats. Seen as a circulant matrix over GF(2) it then has an inverse
/// (its polynomial is coprime to x^16 + 1 = (x + 1)^16), so that the words of a tuple and the lower half of the hash
/// determine each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyWord(u16);

impl KeyWord {
    /// The one that everybody knows (Woo and Park). Whoever knows the word can choose tuples that crowd one shard:
    /// draw another one at each start.
    pub const WELL_KNOWN: Self = Self(0x6d5a);

    /// A word made of random bits.
    #[must_use]
    pub const fn from_random(bits: u16) -> Self {
        Self(if bits.count_ones() % 2 == 1 { bits } else { bits ^ 1 })
    }

    /// The word itself.
    #[must_use]
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// The lower half of the hash (the upper one is the same) of an input whose 16-bit words have the exclusive or
    /// `fold`.
    #[inline]
    #[must_use]
    pub const fn hash(self, fold: u16) -> u16 {
        let (mut hash, mut bit) = (0, 0);
        while bit < 16 {
            if fold & (0x8000 >> bit) != 0 {
                hash ^= self.0.rotate_left(bit);
            }
            bit += 1;
        }
        hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_of_a_tuple_has_a_hash_of_its_own() {
        let word = KeyWord::from_random(0x1234);
        let mut seen = vec![false; 1 << 16];
        for fold in 0..=u16::MAX {
            seen[usize::from(word.hash(fold))] = true;
        }
        assert!(seen.iter().all(|&seen| seen));
    }
}
