//! What a shard knows of each of the 65 536 zones: how many connections it has and may have, how long they may be
//! silent, and a timer wheel of its own.
//!
//! A wheel a zone makes limits exact. A connection that has expired leaves the counts when somebody looks at it; when a
//! zone is at its limit, what has expired *in that zone* is one pop away, however many connections of other zones
//! wait to be looked at. A wheel above the zones' knows which zone has to be looked at next, for the sweep and for the
//! limit on all zones together. Wheels exist for zones with connections only (about 1 KiB each) and are reused.
//!
//! Limits and policies are arrays by zone, made when the first zone gets one: a look-up is one load, and as long as
//! no zone has any, one test.

use thiserror::Error;

use crate::timeouts::Timeouts;
use crate::wheel::{Link, Links, Wheel};

/// Zones there are.
const ZONES: usize = 1 << 16;

/// There are more different timeout policies than can be told apart.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("{MAX_POLICIES} different timeout policies are in use already; give the zone one of them")]
pub struct TooManyPolicies;

/// Policies are numbered with 16 bits, 0 being none.
const MAX_POLICIES: usize = (1 << 16) - 1;

/// A value for each zone, without memory until one differs from the default.
#[derive(Clone, Debug)]
struct PerZone<T> {
    values: Vec<T>,
    /// Zones whose value is not the default.
    set: u32,
}

impl<T: Copy + Default + PartialEq> PerZone<T> {
    const fn new() -> Self {
        Self { values: Vec::new(), set: 0 }
    }

    #[inline]
    fn value(&self, zone: u16) -> T {
        self.values.get(usize::from(zone)).copied().unwrap_or_default()
    }

    /// Returns the value before.
    fn set(&mut self, zone: u16, value: T) -> T {
        let none = T::default();
        if self.values.is_empty() && value != none {
            self.values.resize(ZONES, none);
        }
        let Some(place) = self.values.get_mut(usize::from(zone)) else { return none };
        let before = core::mem::replace(place, value);
        self.set = self.set + u32::from(value != none) - u32::from(before != none);
        if self.set == 0 {
            self.values = Vec::new();
        }
        before
    }
}

/// A zone with connections.
#[derive(Clone, Debug)]
struct Active {
    connections: u32,
    /// First tick at which the wheel has to be looked at, as far as the wheel above knows.
    due: u64,
    /// Place in the wheel above.
    link: Link,
    wheel: Wheel,
}

impl Links for Vec<Active> {
    #[inline]
    fn link(&mut self, index: u32) -> &mut Link {
        &mut self[index as usize].link
    }
}

/// What the sweep finds next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// A connection to be looked at, which has left its wheel.
    Connection(u32),
    /// A zone that had nothing to look at after all.
    Zone,
    /// Nothing is left.
    Nothing,
}

/// All zones.
#[derive(Debug)]
pub(crate) struct Zones {
    /// Each zone's place in `active` + 1; 0 without connections.
    place: Vec<u32>,
    active: Vec<Active>,
    /// Places in `active` that no zone uses.
    free: Vec<u32>,
    /// Over `active`: when each has to be looked at.
    above: Wheel,
    /// A zone's own limit.
    limits: PerZone<Option<u32>>,
    default_limit: Option<u32>,
    timeouts: Timeouts,
    /// Numbers of policies + 1.
    policies: PerZone<u16>,
    /// Policies and how many zones have them; those of nobody are reused.
    policy_table: Vec<(Timeouts, u32)>,
}

impl Zones {
    pub(crate) fn new(timeouts: Timeouts) -> Self {
        Self {
            place: vec![0; ZONES],
            active: Vec::new(),
            free: Vec::new(),
            above: Wheel::new(),
            limits: PerZone::new(),
            default_limit: None,
            timeouts,
            policies: PerZone::new(),
            policy_table: Vec::new(),
        }
    }

    /// The timeouts of zones without their own.
    pub(crate) const fn default_timeouts(&self) -> &Timeouts {
        &self.timeouts
    }

    /// The timeouts that hold in a zone.
    #[inline]
    pub(crate) fn timeouts(&self, zone: u16) -> &Timeouts {
        self.own_timeouts(zone).unwrap_or(&self.timeouts)
    }

    /// A zone's own timeouts.
    #[inline]
    pub(crate) fn own_timeouts(&self, zone: u16) -> Option<&Timeouts> {
        let number = usize::from(self.policies.value(zone));
        number.checked_sub(1).and_then(|at| self.policy_table.get(at)).map(|(timeouts, _)| timeouts)
    }

    /// Gives a zone timeouts of its own, or those of all others.
    pub(crate) fn set_timeouts(
        &mut self,
        zone: u16,
        timeouts: Option<Timeouts>,
    ) -> Result<(), TooManyPolicies> {
        let at = match timeouts {
            None => None,
            Some(timeouts) => Some(self.policy(timeouts)?),
        };
        let number = at.map_or(0, |at| u16::try_from(at + 1).unwrap_or(0));
        let before = self.policies.set(zone, number);
        if let Some((_, users)) = at.and_then(|at| self.policy_table.get_mut(at)) {
            *users += 1;
        }
        let before = usize::from(before).checked_sub(1);
        if let Some((_, users)) = before.and_then(|at| self.policy_table.get_mut(at)) {
            *users -= 1;
        }
        Ok(())
    }

    /// The place of a policy, old or new.
    fn policy(&mut self, timeouts: Timeouts) -> Result<usize, TooManyPolicies> {
        let table = &mut self.policy_table;
        if let Some(at) = table.iter().position(|(known, _)| *known == timeouts) {
            return Ok(at);
        }
        if let Some(at) = table.iter().position(|(_, users)| *users == 0) {
            table[at].0 = timeouts;
            return Ok(at);
        }
        if table.len() >= MAX_POLICIES {
            return Err(TooManyPolicies);
        }
        table.push((timeouts, 0));
        Ok(table.len() - 1)
    }

    /// How many connections a zone may have; `None` is any number.
    #[inline]
    pub(crate) fn limit(&self, zone: u16) -> Option<u32> {
        self.limits.value(zone).or(self.default_limit)
    }

    pub(crate) fn own_limit(&self, zone: u16) -> Option<u32> {
        self.limits.value(zone)
    }

    pub(crate) fn set_limit(&mut self, zone: u16, limit: Option<u32>) {
        self.limits.set(zone, limit);
    }

    pub(crate) const fn set_default_limit(&mut self, limit: Option<u32>) {
        self.default_limit = limit;
    }

    /// Connections of a zone, those included that have expired and were not looked at since.
    pub(crate) fn connections(&self, zone: u16) -> u32 {
        self.at(zone).map_or(0, |at| self.active[at as usize].connections)
    }

    fn at(&self, zone: u16) -> Option<u32> {
        self.place[usize::from(zone)].checked_sub(1)
    }

    /// One connection more in a zone.
    pub(crate) fn enter(&mut self, zone: u16) {
        let at = self.at(zone).unwrap_or_else(|| self.activate(zone));
        self.active[at as usize].connections += 1;
    }

    #[cold]
    #[expect(clippy::cast_possible_truncation, reason = "at most one for each of 65 536 zones")]
    fn activate(&mut self, zone: u16) -> u32 {
        let at = self.free.pop().unwrap_or_else(|| {
            let fresh = Active { connections: 0, due: 0, link: Link::default(), wheel: Wheel::new() };
            self.active.push(fresh);
            self.active.len() as u32 - 1
        });
        self.place[usize::from(zone)] = at + 1;
        at
    }

    /// Takes a connection of `zone` out of its wheel, if it is in there, and out of the zone's count.
    pub(crate) fn leave(&mut self, links: &mut impl Links, zone: u16, index: u32) {
        let Some(at) = self.at(zone) else { return };
        let active = &mut self.active[at as usize];
        active.wheel.remove(links, index);
        active.connections -= 1;
        if active.connections == 0 {
            self.above.remove(&mut self.active, at);
            self.place[usize::from(zone)] = 0;
            self.free.push(at);
        }
    }

    /// Puts a connection that is in no wheel where its zone's finds it at `tick`; `now` is the present one.
    #[inline]
    pub(crate) fn arm(&mut self, links: &mut impl Links, zone: u16, index: u32, tick: u64, now: u64) {
        let Some(at) = self.at(zone) else { return };
        let active = &mut self.active[at as usize];
        active.wheel.start_at(now);
        let due = active.wheel.insert(links, index, tick);
        if active.link == Link::default() || due < active.due {
            self.look_earlier(at, due);
        }
    }

    /// The same of a connection that may be in its zone's wheel already.
    pub(crate) fn arm_again(&mut self, links: &mut impl Links, zone: u16, index: u32, tick: u64, now: u64) {
        let Some(at) = self.at(zone) else { return };
        self.active[at as usize].wheel.remove(links, index);
        self.arm(links, zone, index, tick, now);
    }

    /// A zone has to be looked at by `due`.
    #[cold]
    fn look_earlier(&mut self, at: u32, due: u64) {
        self.active[at as usize].due = due;
        self.above.remove(&mut self.active, at);
        self.above.insert(&mut self.active, at, due);
    }

    /// The next of all connections that has to be looked at by `until`.
    pub(crate) fn next(&mut self, links: &mut impl Links, until: u64) -> Due {
        let Some(at) = self.above.peek(until) else { return Due::Nothing };
        let active = &mut self.active[at as usize];
        if let Some(index) = active.wheel.pop(links, until) {
            if active.wheel.is_empty() {
                self.above.remove(&mut self.active, at);
            }
            return Due::Connection(index);
        }
        let next = active.wheel.next();
        self.above.remove(&mut self.active, at);
        if let Some(due) = next {
            self.active[at as usize].due = due;
            self.above.insert(&mut self.active, at, due);
        }
        Due::Zone
    }

    /// The next connection of `zone` that has to be looked at by `until`; it has left its wheel.
    pub(crate) fn next_of(&mut self, links: &mut impl Links, zone: u16, until: u64) -> Option<u32> {
        let at = self.at(zone)?;
        self.active[at as usize].wheel.pop(links, until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timeouts::Timeout;

    fn policy(seconds: u32) -> Timeouts {
        let mut timeouts = Timeouts::default();
        timeouts.set(Timeout::UdpFirst, seconds).unwrap();
        timeouts
    }

    #[test]
    fn zones_without_a_policy_keep_the_default_and_equal_policies_are_stored_once() {
        let mut zones = Zones::new(policy(9));
        for zone in [0, 1, 65_535] {
            assert_eq!(zones.timeouts(zone), &policy(9));
            assert_eq!(zones.own_timeouts(zone), None);
        }
        for zone in 0..=65_535 {
            zones.set_timeouts(zone, Some(policy(u32::from(zone) % 3 + 1))).unwrap();
        }
        assert_eq!(zones.policy_table.len(), 3);
        assert_eq!(zones.timeouts(65_534), &policy(3));
        for zone in 0..=65_535 {
            zones.set_timeouts(zone, None).unwrap();
        }
        assert!(zones.policies.values.is_empty(), "no memory for what nobody has");
        assert!(zones.policy_table.iter().all(|(_, users)| *users == 0));
        zones.set_timeouts(7, Some(policy(77))).unwrap();
        assert_eq!(zones.policy_table.len(), 3, "a place is used again");
        assert_eq!((zones.timeouts(7), zones.timeouts(8)), (&policy(77), &policy(9)));
    }

    #[test]
    fn a_zone_s_own_limit_goes_before_the_default_and_can_be_taken_back() {
        let mut zones = Zones::new(Timeouts::default());
        assert_eq!(zones.limit(3), None);
        zones.set_default_limit(Some(10));
        zones.set_limit(3, Some(0));
        assert_eq!((zones.limit(3), zones.limit(4)), (Some(0), Some(10)));
        zones.set_limit(3, None);
        assert_eq!((zones.limit(3), zones.own_limit(3)), (Some(10), None));
    }

    #[test]
    fn every_zone_can_be_active_and_places_are_used_again() {
        let mut links: Vec<Link> = vec![Link::default(); ZONES];
        let mut zones = Zones::new(Timeouts::default());
        for round in 0..2u64 {
            for zone in 0..=u16::MAX {
                zones.enter(zone);
                let tick = 1000 + round * 1000 + u64::from(zone) % 100;
                zones.arm(&mut links, zone, u32::from(zone), tick, round * 1500);
            }
            let mut seen = 0;
            loop {
                match zones.next(&mut links, 1050 + round * 1000) {
                    Due::Connection(index) => {
                        let zone = u16::try_from(index).unwrap();
                        if u64::from(zone) % 100 <= 50 {
                            seen += 1;
                        }
                        zones.leave(&mut links, zone, index);
                    }
                    Due::Zone => {}
                    Due::Nothing => break,
                }
            }
            assert!(seen > ZONES / 2);
            for zone in 0..=u16::MAX {
                if zones.connections(zone) == 1 {
                    zones.leave(&mut links, zone, u32::from(zone));
                }
            }
            assert_eq!((zones.active.len(), zones.free.len()), (ZONES, ZONES));
            assert_eq!(zones.above.next(), None);
        }
    }
}
