//! Our Toeplitz hashes beside DPDK's, over random addresses, ports and keys.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test may

use std::net::IpAddr;

use weir_ffi::rss::{softrss, softrss_be};
use weir_shard::Steering;
use weir_shard::steering::{KeyWord, Toeplitz};
use weir_wire::Tuple;

/// SplitMix64 (Steele and others, 2014): enough for inputs.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.next() as u8)
    }

    fn address(&mut self, is_ipv4: bool) -> IpAddr {
        if is_ipv4 { self.bytes::<4>().into() } else { self.bytes::<16>().into() }
    }
}

fn random() -> Random {
    let seed = std::env::var("WEIR_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(4);
    println!("WEIR_SEED={seed}");
    Random(seed)
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

#[test]
fn with_any_key_the_hash_is_the_one_that_dpdk_computes() {
    let mut random = random();
    for _ in 0..200 {
        let key = random.bytes::<52>();
        let hash = Toeplitz::new(&key);
        for _ in 0..50 {
            // Of IPv4 and IPv6, addresses alone and with ports.
            let input = random.bytes::<36>();
            for length in [8, 12, 32, 36] {
                let input = &input[..length];
                let ours = Some(hash.hash(input));
                assert_eq!(ours, softrss(input, &key), "{input:?} {key:?}");
                assert_eq!(ours, softrss_be(input, &key), "{input:?} {key:?}");
            }
        }
    }
}

#[test]
fn the_symmetric_hash_is_what_a_card_with_its_key_computes_of_either_direction() {
    let mut random = random();
    for round in 0..4000 {
        let steering = Steering::symmetric(8, KeyWord::from_random(random.next() as u16));
        let key = steering.key();
        for is_ipv4 in [true, false] {
            let (src, dst) = (random.address(is_ipv4), random.address(is_ipv4));
            let ports = [random.next() as u16, random.next() as u16];
            let tuple = Tuple::new(src, dst, ports[0], ports[1], 6, 0).unwrap();
            let addresses = [octets(src), octets(dst)].concat();
            let all = [&addresses[..], &ports[0].to_be_bytes(), &ports[1].to_be_bytes()].concat();
            let hash = steering.card_hash(&tuple);
            assert_eq!(Some(hash), softrss(&all, &key), "round {round}: {tuple:?}");
            assert_eq!(hash, steering.card_hash(&tuple.reversed()), "round {round}: {tuple:?}");
            assert_eq!(steering.card_choice(hash), steering.home(&tuple), "round {round}: {tuple:?}");
            let of_addresses = steering.card_hash_of_addresses(src, dst);
            assert_eq!(Some(of_addresses), softrss_be(&addresses, &key), "round {round}: {src} {dst}");
            // As a card does that leaves one of them out.
            let nothing = if is_ipv4 { [0; 4].into() } else { [0; 16].into() };
            let source_alone = steering.card_hash_of_addresses(src, nothing);
            assert_eq!(Some(source_alone), softrss(&octets(src), &key), "round {round}: {src}");
        }
    }
}
