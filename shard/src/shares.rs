//! Bounds for each source of what packets can have a shard keep, so that one who floods leaves room for others. A
//! source is an IPv4 address or, of IPv6, the first 64 bits, which whoever has one address has all of (RFC 4291
//! section 2.5.4).

use core::net::IpAddr;
use std::collections::HashMap;

use foldhash::quality::FixedState;

/// What part of all one source may have: as many as this who flood are needed to take everything.
pub(crate) const PART: u32 = 8;

/// Sources that an empty count may keep the memory for.
const KEPT_SOURCES: usize = 64;

/// Names a source.
pub(crate) type Source = u64;

/// The source that an address belongs to.
pub(crate) fn source(address: IpAddr) -> Source {
    match address {
        // In IPv6 an address that begins with 64 zero bits but for these is no other host's (RFC 4291 section 2.5).
        IpAddr::V4(address) => u64::from(address.to_bits()),
        IpAddr::V6(address) => u64::try_from(address.to_bits() >> 64).unwrap_or(u64::MAX),
    }
}

/// How much each source has: exactly, and nothing of those that have nothing.
#[derive(Debug)]
pub(crate) struct Shares(HashMap<Source, u32, FixedState>);

impl Shares {
    /// Nobody has anything. `secret` keys the hashes.
    pub(crate) fn new(secret: u64) -> Self {
        Self(HashMap::with_hasher(FixedState::with_seed(secret)))
    }

    /// How much a source has.
    pub(crate) fn of(&self, source: Source) -> u32 {
        self.0.get(&source).copied().unwrap_or(0)
    }

    /// It gets one more.
    pub(crate) fn take(&mut self, source: Source) {
        *self.0.entry(source).or_default() += 1;
    }

    /// It gives `count` back.
    pub(crate) fn release(&mut self, source: Source, count: u32) {
        if let Some(held) = self.0.get_mut(&source) {
            *held = held.saturating_sub(count);
            if *held == 0 {
                self.0.remove(&source);
            }
        }
        if self.0.is_empty() && self.0.capacity() > KEPT_SOURCES {
            // A crowd that is gone keeps no memory.
            self.0.shrink_to(KEPT_SOURCES);
        }
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_an_address_of_ipv4_and_a_network_of_ipv6() {
        let of = |text: &str| source(text.parse().unwrap());
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
        assert_eq!(of("2001:db8:0:1::1"), of("2001:db8:0:1:ffff::2"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8:0:2::1"));
    }

    #[test]
    fn who_gives_everything_back_is_forgotten_and_so_is_a_crowd() {
        let mut shares = Shares::new(3);
        (0..1000).for_each(|source| shares.take(source));
        shares.take(5);
        assert_eq!((shares.of(5), shares.of(6), shares.of(1000)), (2, 1, 0));
        shares.release(5, 1);
        assert_eq!(shares.of(5), 1);
        (0..1000).for_each(|source| shares.release(source, 1));
        assert!(shares.is_empty() && shares.0.capacity() < 1000);
    }
}
