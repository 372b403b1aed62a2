use super::*;
use core::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};
use proptest::prelude::*;

/// The key of Microsoft's "Verifying the RSS hash calculation".
const PUBLISHED: [u8; KEY_LEN] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0,
    0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42,
    0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
];

/// The definition, bit by bit.
fn defined(key: &[u8], input: &[u8]) -> u32 {
    let bit = |bytes: &[u8], at: usize| u32::from(bytes[at / 8] >> (7 - at % 8) & 1);
    let window = |at: usize| (at..at + 32).fold(0, |window, at| window << 1 | bit(key, at));
    (0..input.len() * 8).filter(|at| bit(input, *at) == 1).fold(0, |hash, at| hash ^ window(at))
}

#[test]
fn the_published_vectors_for_ipv4_come_out() {
    let toeplitz = Toeplitz::new(&PUBLISHED);
    for (destination, source, addresses, ports) in [
        ("161.142.100.80:1766", "66.9.149.187:2794", 0x323e_8fc2, 0x51cc_c178),
        ("65.69.140.83:4739", "199.92.111.2:14230", 0xd718_262a, 0xc626_b0ea),
        ("12.22.207.184:38024", "24.19.198.95:12898", 0xd2d0_a5de, 0x5c2b_394a),
        ("209.142.163.6:2217", "38.27.205.30:48228", 0x8298_9176, 0xafc7_327f),
        ("202.188.127.2:1303", "153.39.163.191:44251", 0x5d18_09c5, 0x10e8_28a2),
    ] {
        let [source, destination] = [source, destination].map(|end| end.parse::<SocketAddrV4>().unwrap());
        let mut input = [source.ip().octets(), destination.ip().octets()].concat();
        assert_eq!(toeplitz.hash(&input), addresses, "{source} {destination}");
        input.extend([source.port().to_be_bytes(), destination.port().to_be_bytes()].concat());
        assert_eq!(toeplitz.hash(&input), ports, "{source} {destination}");
    }
    let input = [Ipv4Addr::new(66, 9, 149, 187).octets(), Ipv4Addr::new(161, 142, 100, 80).octets()].concat();
    assert_eq!(defined(&PUBLISHED, &input), 0x323e_8fc2, "the reference of the tests below");
}

#[test]
fn the_published_vectors_for_ipv6_come_out() {
    let toeplitz = Toeplitz::new(&PUBLISHED);
    for (destination, source, addresses, ports) in [
        ("[3ffe:2501:200:3::1]:1766", "[3ffe:2501:200:1fff::7]:2794", 0x2cc1_8cd5, 0x4020_7d3d),
        ("[ff02::1]:4739", "[3ffe:501:8::260:97ff:fe40:efab]:14230", 0x0f0c_461c, 0xdde5_1bbf),
        (
            "[fe80::200:f8ff:fe21:67cf]:38024",
            "[3ffe:1900:4545:3:200:f8ff:fe21:67cf]:44251",
            0x4b61_e985,
            0x02d1_feef,
        ),
    ] {
        let [source, destination] = [source, destination].map(|end| end.parse::<SocketAddrV6>().unwrap());
        let address = |end: &SocketAddrV6| Ipv6Addr::octets(end.ip());
        let mut input = [address(&source), address(&destination)].concat();
        assert_eq!(toeplitz.hash(&input), addresses, "{source} {destination}");
        input.extend([source.port().to_be_bytes(), destination.port().to_be_bytes()].concat());
        assert_eq!(toeplitz.hash(&input), ports, "{source} {destination}");
    }
}

#[test]
fn keys_that_are_too_short_hash_to_zero_and_input_beyond_the_key_adds_nothing() {
    assert_eq!(Toeplitz::new(&[]).hash(&[1, 2, 3]), 0);
    assert_eq!(Toeplitz::new(&[1, 2, 3, 4]).hash(&[255; 40]), 0);
    let toeplitz = Toeplitz::new(&PUBLISHED);
    assert_eq!(toeplitz.hash(&[7; 36]), toeplitz.hash(&[7; 99]));
}

#[test]
fn every_word_spreads_neighbours_and_makes_a_hash_that_has_an_inverse() {
    let mut words = vec![false; 1 << 16];
    for bits in 0..=u16::MAX {
        let word = KeyWord::from_random(bits);
        assert_eq!(word.bits().count_ones() % 2, 1);
        words[usize::from(word.bits())] = true;
    }
    assert_eq!(words.iter().filter(|&&is_drawn| is_drawn).count(), 13_662);
    assert!(words[usize::from(KeyWord::WELL_KNOWN.bits())]);
    for bits in [0, 1, 0x1234, 0x8000, u16::MAX, KeyWord::WELL_KNOWN.bits()] {
        let hash = SymmetricHash::new(KeyWord::from_random(bits));
        for fold in 0..=u16::MAX {
            assert_eq!(hash.fold(hash.hash(fold)), fold, "{bits:#x}");
        }
        // 512 neighbours reach half of 512 entries at least.
        let mut reached = [false; 512];
        for fold in 0..512 {
            reached[usize::from(hash.hash(fold) & 511)] = true;
        }
        assert!(reached.iter().filter(|&&is_reached| is_reached).count() >= 256, "{bits:#x}");
    }
}

proptest! {
    #[test]
    fn any_key_and_input_hash_as_the_definition_says(
        key in prop::collection::vec(any::<u8>(), 5..60), input in prop::collection::vec(any::<u8>(), 0..56),
    ) {
        let input = &input[..input.len().min(key.len() - 4)];
        prop_assert_eq!(Toeplitz::new(&key).hash(input), defined(&key, input));
    }

    #[test]
    fn the_symmetric_hash_is_the_one_that_a_card_computes_with_its_key(
        bits in any::<u16>(), words in prop::collection::vec(any::<u16>(), 1..19),
    ) {
        let word = KeyWord::from_random(bits);
        let input: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        let fold = words.iter().fold(0, |fold, word| fold ^ word);
        let hash = u32::from(SymmetricHash::new(word).hash(fold));
        prop_assert_eq!(Toeplitz::new(&word.key()).hash(&input), hash << 16 | hash);
        let long: Vec<u8> = word.key().iter().copied().cycle().take(52).collect();
        prop_assert_eq!(Toeplitz::new(&long).hash(&input), hash << 16 | hash);
        prop_assert_eq!(word.hash(fold), SymmetricHash::new(word).hash(fold));
    }
}
