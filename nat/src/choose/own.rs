//! The search among ports with the right home, as [`super`] searches among all of them. A port comes from its slice by
//! its number, in O(1); one outside the range is passed over, and a range of [`WIDE`] ports has each 64th at least. A
//! narrower range is walked instead.
//!
//! What is known to be taken is kept as for all ports. The last free port of a slice is found by words of 64 ports: one
//! look-up gives those that have the right home.

use weir_wire::Tuple;

use super::{AddressRing, NEIGHBOURS, PROBES, PortRing, Search, WALKED, stride};
use crate::occupancy::{End, Place};
use crate::slices::{Homes, PortSlice};

/// Ports that a range has at least to be drawn from by number.
const WIDE: u32 = 1024;

/// Numbers drawn in one go at one address: that all of them lie outside a wide range has a chance of 10^-7, and then it
/// is walked.
const DRAWS: u32 = 1024;

/// Addresses that are looked at for one's own, at most, for each that may be asked about: some 0.5 ms.
const LOOKS: u32 = 16;

/// Addresses that are looked at where only the first tuple is wanted: this often as many as one is likely to be among.
const FORESIGHT: u32 = 4;

/// The translated tuple that a search at home asks about first; `None` if that takes more than a few steps.
#[inline]
pub(super) fn first_at_home<H: Homes>(
    homes: &H,
    addresses: &AddressRing,
    ports: &PortRing,
    end: End,
    candidate: &impl Fn(u128, u16) -> Tuple,
) -> Option<Tuple> {
    let reply = |address| candidate(address, ports.first).reversed();
    let looks = homes.one_address_in(&reply(addresses.first)).saturating_mul(FORESIGHT);
    let (number, address, slice) =
        addresses.walk_round(addresses.count().min(looks)).find_map(|(number, address)| {
            let slice = homes.slice(&reply(address), end);
            (slice.count() != 0).then_some((number, address, slice))
        })?;
    let port = ports.draws(&slice, number, NEIGHBOURS).next()?;
    Some(candidate(address, port))
}

/// One address under search.
struct Spot<S> {
    address: u128,
    /// How many addresses came before it.
    number: u32,
    place: Place,
    slice: S,
}

impl<F: FnMut(&Tuple) -> bool, H: Homes> Search<'_, F, H> {
    /// Walks the addresses and those of their ports that have the right home: a few of each that has any, then, of no
    /// more than [`WALKED`], all that is left.
    pub(super) fn run_at_home(
        &mut self,
        addresses: &AddressRing,
        count: u32,
        ports: &PortRing,
        end: End,
        candidate: &impl Fn(u128, u16) -> Tuple,
    ) -> Option<Tuple> {
        let homes = self.homes;
        let one_in = homes.one_address_in(&candidate(addresses.first, ports.first).reversed()).max(1);
        let own = count.div_ceil(one_in);
        let each = (PROBES / 2 / own).max(2);
        let near = each.div_ceil(2).min(NEIGHBOURS);
        let looks = count.min(PROBES.saturating_mul(one_in.min(LOOKS)));
        let spots = || {
            addresses.walk_round(looks).filter_map(|(number, address)| {
                let reply = candidate(address, ports.first).reversed();
                let slice = homes.slice(&reply, end);
                (slice.count() != 0).then(|| Spot { address, number, place: Place::of(&reply, end).0, slice })
            })
        };
        for spot in spots() {
            if self.probes >= self.limit {
                return None;
            }
            if ports.kept.is_none() && self.next_own(&spot, ports, ports.first).is_none() {
                continue;
            }
            for port in ports.draws(&spot.slice, spot.number, DRAWS).take(near as usize) {
                if let Some(reply) = self.ask(candidate(spot.address, port)) {
                    return Some(reply);
                }
            }
            if own > WALKED {
                continue;
            }
            // Only now, since an address with a free port among the first ones needs no board.
            for port in ports.draws(&spot.slice, spot.number, DRAWS).take(near as usize) {
                self.learn(&candidate(spot.address, port).reversed(), end);
            }
            let found = self.walk_own(&spot, ports, end, each - near, candidate);
            if found.is_some() {
                return found;
            }
        }
        if own > WALKED {
            return None;
        }
        for spot in spots() {
            let left = self.limit.saturating_sub(self.probes);
            if left == 0 {
                return None;
            }
            let found = self.walk_own(&spot, ports, end, left, candidate);
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// Asks for up to `budget` ports of an address that are not known to be taken, far apart.
    fn walk_own<S: PortSlice>(
        &mut self,
        spot: &Spot<S>,
        ports: &PortRing,
        end: End,
        budget: u32,
        candidate: &impl Fn(u128, u16) -> Tuple,
    ) -> Option<Tuple> {
        for tried in 0..budget {
            let port = self.next_own(spot, ports, ports.far(spot.number, tried))?;
            let translated = candidate(spot.address, port);
            if let Some(reply) = self.ask(translated) {
                return Some(reply);
            }
            self.learn(&translated.reversed(), end);
        }
        None
    }

    fn next_own<S: PortSlice>(&mut self, spot: &Spot<S>, ports: &PortRing, from: u16) -> Option<u16> {
        let own = |word| spot.slice.word(word);
        self.occupancy.next_own(&spot.place, ports.first, ports.last(), from, &own)
    }
}

impl PortRing {
    /// Ports of a slice to ask for at the `number`th address: the original one or what chance or the hash say, if it is
    /// in the slice, then others, each equally likely in a wide range, of which `most` are looked at. Some may come twice.
    fn draws<S: PortSlice>(&self, slice: &S, number: u32, most: u32) -> impl Iterator<Item = u16> {
        let begin = self.kept.into_iter().chain([self.at(0)]);
        let (draws, walked) = if self.len < WIDE { (0, 1..self.len.min(most)) } else { (most, 0..0) };
        let count = slice.count();
        // The place in the ring has its part in it, because it is what chance says where chance is asked.
        let mixed =
            (self.hash ^ u64::from(number) ^ u64::from(self.start) << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 32;
        // Below `count`.
        let mut at = ((mixed * u64::from(count)) >> 32) as u32;
        let step = stride(count);
        let by_number = (0..draws).map(move |_| {
            let port = slice.nth(at);
            at = if at + step >= count { at + step - count } else { at + step };
            port
        });
        let by_number = by_number.filter(|port| (self.first..=self.last()).contains(port));
        let in_turn = walked.map(|offset| self.at(offset));
        begin.chain(in_turn).filter(|port| slice.contains(*port)).chain(by_number)
    }
}

#[cfg(test)]
mod tests;
