//! The Toeplitz hash of receive-side scaling (Microsoft, "RSS hashing types" and "Verifying the RSS hash calculation"):
//! [`Toeplitz`] with any key, as cards compute it, and [`SymmetricHash`] with a key that repeats one 16-bit word. Such a
//! hash depends on the exclusive or of all 16-bit words of its input only, so that both directions of a connection hash
//! alike (S. Woo and K. Park, "Scalable TCP session monitoring with symmetric receive-side scaling", KAIST 2012).

/// Bytes of the key that a card needs for the longest input, IPv6 with ports: 36 of input and 4 of hash.
pub const KEY_LEN: usize = 40;

/// The Toeplitz hash with some key: one look-up and one exclusive or for each byte of input.
#[derive(Clone, Debug)]
pub struct Toeplitz {
    /// For each byte of input what each of its values adds to the hash; 1 KiB a byte.
    tables: Box<[[u32; 256]]>,
}

impl Toeplitz {
    /// The hash with `key`, for inputs of up to four bytes less than it has; a shorter key than that hashes all to 0.
    #[must_use]
    pub fn new(key: &[u8]) -> Self {
        let tables = key.windows(5).map(|window| {
            // Bit i of a byte of input, the highest first, adds the 32 bits of key that begin i bits behind that
            // byte's place.
            let bits = window.iter().fold(0, |bits, byte| bits << 8 | u64::from(*byte));
            let mut table = [0; 256];
            for (value, sum) in (0_u8..=255).zip(&mut table) {
                for bit in (0..8).filter(|bit| value & 0x80 >> bit != 0) {
                    *sum ^= (bits >> (8 - bit)) as u32;
                }
            }
            table
        });
        Self { tables: tables.collect() }
    }

    /// The hash of an input in network order: source address, destination address and, where they count, source port
    /// and destination port. Bytes that the key does not reach add nothing.
    #[must_use]
    pub fn hash(&self, input: &[u8]) -> u32 {
        self.tables.iter().zip(input).fold(0, |hash, (table, byte)| hash ^ table[usize::from(*byte)])
    }
}

/// A 16-bit word of odd weight that the key repeats. Seen as a circulant matrix over GF(2) it then has an inverse
/// (its polynomial is coprime to x^16 + 1 = (x + 1)^16), so that the words of a tuple and the lower half of the hash
/// determine each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyWord(u16);

impl KeyWord {
    /// The one that everybody knows (Woo and Park). Whoever knows the word can choose tuples that crowd one shard:
    /// draw another one at each start.
    pub const WELL_KNOWN: Self = Self(0x6d5a);

    /// A word made of random bits: one of 13 662 that spread neighbours. Of odd weight there are 32 768, but with some
    /// of them, 1 for one, neighbouring addresses and ports have the same entry of a redirection table.
    #[must_use]
    pub const fn from_random(bits: u16) -> Self {
        let mut word = bits;
        while !(word.count_ones() % 2 == 1 && Self(word).spreads()) {
            // Comes by all 65 536 words (Hull and Dobell 1962), so it ends.
            word = word.wrapping_mul(0x6255).wrapping_add(0x3619);
        }
        Self(word)
    }

    /// The word itself.
    #[must_use]
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// The key to programme a card with. One that wants a longer key (52 bytes are usual) gets it repeated.
    #[must_use]
    pub const fn key(self) -> [u8; KEY_LEN] {
        let mut key = [0; KEY_LEN];
        let mut at = 0;
        while at < KEY_LEN {
            key[at] = self.0.to_be_bytes()[at % 2];
            at += 1;
        }
        key
    }

    /// The lower half of the hash (the upper one is the same) of an input whose 16-bit words have the exclusive or
    /// `fold`: bit by bit, for tables to be made of.
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

    /// True if 2^k neighbours, for each k that a redirection table's size may have, reach at least half of its 2^k
    /// entries: the lowest k bits of the input and those of the hash make a matrix of rank k - 1 at least.
    const fn spreads(self) -> bool {
        let mut width = 2;
        while width <= 11 {
            // Each row in place of its leading bit, as Gauss does it.
            let mut pivots = [0_u16; 16];
            let (mut rank, mut bit) = (0, 0);
            while bit < width {
                let mut row = self.hash(1 << bit) & ((1 << width) - 1);
                while row != 0 {
                    let lead = row.ilog2() as usize;
                    if pivots[lead] == 0 {
                        pivots[lead] = row;
                        rank += 1;
                        break;
                    }
                    row ^= pivots[lead];
                }
                bit += 1;
            }
            if rank + 1 < width {
                return false;
            }
            width += 1;
        }
        true
    }
}

/// A linear map of 16 bits: what the upper and what the lower byte add.
type Map = [[u16; 256]; 2];

#[inline]
fn apply(map: &Map, value: u16) -> u16 {
    let [high, low] = value.to_be_bytes();
    map[0][usize::from(high)] ^ map[1][usize::from(low)]
}

/// The lower half of the hash with the key of a [`KeyWord`], and the way back, by two look-ups each.
#[derive(Clone, Debug)]
pub struct SymmetricHash {
    forward: Map,
    backward: Map,
}

impl SymmetricHash {
    /// The hash with the key that repeats `word`.
    #[must_use]
    pub fn new(word: KeyWord) -> Self {
        // Row i of the inverse is the fold that hashes to bit i. A circulant matrix' inverse is circulant: one row
        // gives all.
        let unit = (0..=u16::MAX).find(|fold| word.hash(*fold) == 1).unwrap_or(0);
        let of = |hash: u16| {
            (0..16).filter(|bit| hash >> bit & 1 != 0).fold(0, |fold, bit| fold ^ unit.rotate_right(bit))
        };
        let table = |map: &dyn Fn(u16) -> u16| {
            [
                core::array::from_fn(|byte| map((byte as u16) << 8)),
                core::array::from_fn(|byte| map(byte as u16)),
            ]
        };
        Self { forward: table(&|fold| word.hash(fold)), backward: table(&of) }
    }

    /// The lower half of the hash (the upper one is the same) of an input whose 16-bit words have the exclusive or
    /// `fold`.
    #[inline]
    #[must_use]
    pub fn hash(&self, fold: u16) -> u16 {
        apply(&self.forward, fold)
    }

    /// The exclusive or of the 16-bit words of the inputs that have this hash.
    #[inline]
    #[must_use]
    pub fn fold(&self, hash: u16) -> u16 {
        apply(&self.backward, hash)
    }
}

#[cfg(test)]
#[path = "toeplitz_tests.rs"]
mod tests;
