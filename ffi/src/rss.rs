//! DPDK's own software versions of the Toeplitz hash that network cards steer by: a second opinion for tests of weir's.
//! Pure functions: no EAL, no device.

use dpdk_sys as sys;

/// `rte_softrss` of `input` (as it is on the wire, a multiple of 4 bytes) with `key` (as it is given to a card, at least
/// 4 bytes longer than the input); `None` for other lengths.
#[must_use]
pub fn softrss(input: &[u8], key: &[u8]) -> Option<u32> {
    let (mut input, key) = words(input, key)?;
    // SAFETY: the key has one word more than the input, which is what the function reads.
    Some(unsafe { sys::shim_softrss(input.as_mut_ptr(), count(&input), key.as_ptr()) })
}

/// The same by `rte_softrss_be`, which is another code path.
#[must_use]
pub fn softrss_be(input: &[u8], key: &[u8]) -> Option<u32> {
    let (mut input, key) = words(input, key)?;
    let mut room = vec![0; key.len()];
    // SAFETY: as above; `room` is as long as the key.
    Some(unsafe { sys::shim_softrss_be(input.as_mut_ptr(), count(&input), key.as_ptr(), room.as_mut_ptr()) })
}

/// The input in host order; of the key one word more, left as it is in memory.
fn words(input: &[u8], key: &[u8]) -> Option<(Vec<u32>, Vec<u32>)> {
    let (input, rest) = input.as_chunks::<4>();
    let key = key.as_chunks::<4>().0.get(..input.len() + 1)?;
    let key = key.iter().map(|&bytes| u32::from_ne_bytes(bytes)).collect();
    rest.is_empty().then(|| (input.iter().map(|&bytes| u32::from_be_bytes(bytes)).collect(), key))
}

/// A key is in memory, so its words can be counted by 32 bits.
fn count(words: &[u32]) -> u32 {
    u32::try_from(words.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key of "Verifying the RSS hash calculation" (Microsoft), and its first IPv4 example with ports.
    const KEY: [u8; 40] = [
        0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0,
        0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42,
        0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
    ];

    #[test]
    fn both_variants_give_the_published_hash_and_refuse_lengths_that_they_would_overrun() {
        let input = [66, 9, 149, 187, 161, 142, 100, 80, 0x0a, 0xea, 0x06, 0xe6];
        assert_eq!(softrss(&input, &KEY), Some(0x51cc_c178));
        assert_eq!(softrss_be(&input, &KEY), Some(0x51cc_c178));
        assert_eq!(softrss(&input[..11], &KEY), None);
        assert_eq!(softrss(&input, &KEY[..15]), None);
        assert_eq!(softrss_be(&[0; 40], &KEY), None);
        assert_eq!(softrss(&[], &KEY), Some(0));
    }
}
