use super::*;
use proptest::prelude::*;
use std::collections::HashSet;

#[test]
fn sizes_are_those_the_connection_table_counts_on() {
    assert_eq!((size_of::<Tuple4>(), align_of::<Tuple4>()), (16, 16));
    assert_eq!((size_of::<Tuple6>(), align_of::<Tuple6>()), (40, 8));
}

#[test]
fn addresses_of_two_families_make_no_tuple() {
    let (v4, v6) = ("10.0.0.1".parse().unwrap(), "::1".parse().unwrap());
    assert_eq!(Tuple::new(v4, v6, 1, 2, 6, 0), None);
    assert_eq!(Tuple::new(v6, v6, 1, 2, 6, 0).unwrap().src(), v6);
}

/// Ports, addresses and zones counting up are what tables see; each 16-bit part of the hash must spread them.
#[test]
fn neighbouring_tuples_spread_evenly_over_high_and_low_bits() {
    let secret = [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210];
    let v4 = |i: u16| {
        Tuple::from(Tuple4::new([10, 0, i.to_be_bytes()[0], 1], [8; 4], 1024 + i, 80, 6, 0)).hash(&secret)
    };
    let v6 = |i: u16| Tuple::from(Tuple6::new([1; 16], [2; 16], 1024 + i, 80, 6, 0)).hash(&secret);
    let hashes: [Vec<u64>; 2] = [(0..32768).map(v4).collect(), (0..32768).map(v6).collect()];
    for hashes in hashes {
        assert_eq!(hashes.iter().collect::<HashSet<_>>().len(), hashes.len());
        for shift in [0, 16, 32, 54] {
            let mut buckets = [0u32; 1024];
            for hash in &hashes {
                buckets[usize::try_from(hash >> shift & 1023).unwrap()] += 1;
            }
            // 32 each on average; 8 standard deviations are 45.
            let (least, most) = (buckets.iter().min().unwrap(), buckets.iter().max().unwrap());
            assert!(*least > 2 && *most < 77, "bits from {shift}: {least} to {most}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn reversing_twice_changes_nothing(
        src in any::<[u8; 4]>(), dst in any::<[u8; 4]>(), ports in any::<(u16, u16)>(), protocol in any::<u8>(),
    ) {
        for protocol in [protocol, 1, 6, 17, 58] {
            let v4 = Tuple4::new(src, dst, ports.0, ports.1, protocol, 9);
            prop_assert_eq!(v4.reversed().reversed(), v4);
            let v6 = Tuple6::new([src[0]; 16], [dst[0]; 16], ports.0, ports.1, protocol, 9);
            prop_assert_eq!(v6.reversed().reversed(), v6);
        }
    }

    #[test]
    fn one_flipped_bit_changes_half_of_the_hash(bit in 0usize..128, words in any::<(u64, u64)>(), secret in any::<[u64; 2]>()) {
        let make = |whole: u128| {
            let b = whole.to_ne_bytes();
            Tuple4::new([b[0], b[1], b[2], b[3]], [b[4], b[5], b[6], b[7]], u16::from_ne_bytes([b[8], b[9]]),
                u16::from_ne_bytes([b[10], b[11]]), b[14], u16::from_ne_bytes([b[12], b[13]]))
        };
        let whole = u128::from(words.0) << 64 | u128::from(words.1);
        let (one, other) = (make(whole), make(whole ^ 1 << bit));
        prop_assert_eq!(one == other, one.as_u128() == other.as_u128());
        if one != other {
            let flipped = (one.hash(&secret) ^ other.hash(&secret)).count_ones();
            prop_assert!((8..=56).contains(&flipped), "{} bits", flipped);
        }
    }
}
