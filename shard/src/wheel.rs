//! A lazy hierarchical timer wheel. It knows for each connection a tick before which nothing need be looked at;
//! packets only move the deadline in their connection's hot line, and when the wheel comes to a connection whose
//! deadline moved on, the owner puts it back. Lists are linked by index through the cold array, so that a
//! connection that is removed early leaves at once. A shard has one wheel a zone, and one more over the zones
//! (`zones`).
//!
//! Level `n` has 64 slots of `64^n` ticks. An element sits on the level of the highest bit in which its tick and the
//! wheel's differ, so slots never wrap round and a leap of days costs as much as there are elements to look at.

/// "No element".
pub(crate) const NONE: u32 = u32::MAX;

const BITS: u32 = 6;
const SLOTS: usize = 1 << BITS;
/// 11 levels of 6 bits cover every `u64` tick.
const LEVELS: usize = 11;

/// An element's place in the wheel. All zero means: in none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Link {
    next: u32,
    prev: u32,
    /// Level * 64 + slot + 1; 0 = not linked.
    place: u16,
}

impl Link {
    /// Those that are written when this element leaves.
    pub(crate) fn neighbours(&self) -> impl Iterator<Item = u32> {
        let linked = if self.place == 0 { [NONE; 2] } else { [self.next, self.prev] };
        linked.into_iter().filter(|index| *index != NONE)
    }
}

/// Where the links live.
pub(crate) trait Links {
    /// The link of an element that is in range.
    fn link(&mut self, index: u32) -> &mut Link;
}

/// The wheel.
#[derive(Clone, Debug)]
pub(crate) struct Wheel {
    /// No element's slot starts before this tick.
    now: u64,
    /// The levels that were needed so far: four reach three days.
    heads: Vec<[u32; SLOTS]>,
    occupied: [u64; LEVELS],
    /// A bit for each level with an element.
    levels: u16,
    /// Nothing has to be looked at before this tick: what the last search for it found, less what came since.
    quiet: u64,
}

impl Wheel {
    pub(crate) const fn new() -> Self {
        Self { now: 0, heads: Vec::new(), occupied: [0; LEVELS], levels: 0, quiet: 0 }
    }

    /// True without elements.
    #[inline]
    pub(crate) const fn is_empty(&self) -> bool {
        self.levels == 0
    }

    /// Brings a wheel without elements to `tick`, so that what comes next lands on a low level.
    #[inline]
    pub(crate) fn start_at(&mut self, tick: u64) {
        if self.is_empty() {
            self.now = self.now.max(tick);
        }
    }

    /// Links `index`, which must not be linked, to come up at `tick` or, if that is past, next. Returns the tick at
    /// which it has to be looked at first.
    pub(crate) fn insert(&mut self, links: &mut impl Links, index: u32, tick: u64) -> u64 {
        let tick = tick.max(self.now);
        // The lowest level for ticks that differ in the low 6 bits only.
        let level = ((tick ^ self.now) | 1).ilog2() / BITS;
        let slot = (tick >> (level * BITS)) & (SLOTS as u64 - 1);
        if self.heads.len() <= level as usize {
            self.heads.resize(level as usize + 1, [NONE; SLOTS]);
        }
        self.occupied[level as usize] |= 1 << slot;
        self.levels |= 1 << level;
        let head = &mut self.heads[level as usize][slot as usize];
        let place = (level * SLOTS as u32 + slot as u32 + 1) as u16;
        *links.link(index) = Link { next: *head, prev: NONE, place };
        if *head != NONE {
            links.link(*head).prev = index;
        }
        *head = index;
        let start = tick >> (level * BITS) << (level * BITS);
        self.quiet = self.quiet.min(start);
        start
    }

    /// Unlinks `index` if it is linked.
    pub(crate) fn remove(&mut self, links: &mut impl Links, index: u32) {
        let link = core::mem::take(links.link(index));
        let Some(place) = usize::from(link.place).checked_sub(1) else { return };
        if link.next != NONE {
            links.link(link.next).prev = link.prev;
        }
        if link.prev != NONE {
            links.link(link.prev).next = link.next;
            return;
        }
        let (level, slot) = (place / SLOTS, place % SLOTS);
        self.heads[level][slot] = link.next;
        if link.next == NONE {
            self.occupied[level] &= !(1 << slot);
            self.levels &= !(u16::from(self.occupied[level] == 0) << level);
        }
    }

    /// Unlinks and returns the next element whose slot starts at `until` or before; its own tick may be later, then
    /// it goes back by [`Wheel::insert`]. `None` when there is none: the wheel has then come to `until`.
    pub(crate) fn pop(&mut self, links: &mut impl Links, until: u64) -> Option<u32> {
        let index = self.peek(until)?;
        self.remove(links, index);
        Some(index)
    }

    /// What [`Wheel::pop`] would return, which stays linked.
    #[inline]
    pub(crate) fn peek(&mut self, until: u64) -> Option<u32> {
        if until < self.quiet {
            self.now = self.now.max(until);
            return None;
        }
        self.search(until)
    }

    fn search(&mut self, until: u64) -> Option<u32> {
        match self.earliest() {
            Some((start, level, slot)) if start <= until => {
                self.now = self.now.max(start);
                Some(self.heads[level][slot])
            }
            later => {
                self.now = self.now.max(until);
                self.quiet = later.map_or(u64::MAX, |(start, ..)| start);
                None
            }
        }
    }

    /// The tick at which the next element has to be looked at.
    pub(crate) fn next(&self) -> Option<u64> {
        self.earliest().map(|(start, ..)| start)
    }

    /// First tick, level and slot of the occupied slot that starts first.
    fn earliest(&self) -> Option<(u64, usize, usize)> {
        let mut best: Option<(u64, usize, usize)> = None;
        let mut levels = self.levels;
        while levels != 0 {
            let level = levels.trailing_zeros();
            levels &= levels - 1;
            let shift = level * BITS;
            let slot = self.occupied[level as usize].trailing_zeros();
            // The bits above this level are the wheel's own.
            let above =
                self.now.checked_shr(shift + BITS).unwrap_or(0).checked_shl(shift + BITS).unwrap_or(0);
            let start = above | u64::from(slot) << shift;
            if best.is_none_or(|(earliest, ..)| start < earliest) {
                best = Some((start, level as usize, slot as usize));
            }
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    impl Links for Vec<Link> {
        fn link(&mut self, index: u32) -> &mut Link {
            &mut self[index as usize]
        }
    }

    /// Links that count how often one of them is asked for.
    struct Counted {
        links: Vec<Link>,
        asked: usize,
    }

    impl Links for Counted {
        fn link(&mut self, index: u32) -> &mut Link {
            self.asked += 1;
            &mut self.links[index as usize]
        }
    }

    #[test]
    fn of_a_million_elements_armed_for_one_tick_those_alone_are_touched_that_come_up() {
        const ELEMENTS: u32 = 1_000_000;
        let mut links = Counted { links: vec![Link::default(); ELEMENTS as usize], asked: 0 };
        let mut wheel = Wheel::new();
        // Far enough that they stand on the fourth level.
        let tick = 300_000;
        for index in 0..ELEMENTS {
            wheel.insert(&mut links, index, tick);
        }
        // Their slot comes up long before they do: no level is emptied into the ones below it at once.
        let start = wheel.next().unwrap();
        assert!(start < tick - 10_000);
        for now in [start, tick] {
            links.asked = 0;
            for number in 1..=32 {
                let index = wheel.pop(&mut links, now).unwrap();
                if now < tick {
                    wheel.insert(&mut links, index, tick);
                }
                // Itself, and at most one neighbour in the list that it leaves and one in that it comes to.
                assert!(links.asked <= 4 * number, "{} links for {number} elements", links.asked);
            }
        }
        assert_eq!(wheel.pop(&mut links, start - 1), None);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u32, u64),
        Remove(u32),
        Advance(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let distance = (0u32..40).prop_flat_map(|bits| 0..=(1u64 << bits));
        prop_oneof![
            (0u32..50, distance.clone()).prop_map(|(i, d)| Step::Insert(i, d)),
            (0u32..50).prop_map(Step::Remove),
            distance.prop_map(Step::Advance),
        ]
    }

    proptest! {
        #[test]
        fn elements_come_up_exactly_when_a_sorted_map_says(start in any::<u32>(), steps in prop::collection::vec(step(), 1..400)) {
            let mut links = vec![Link::default(); 50];
            let mut wheel = Wheel::new();
            let mut now = u64::from(start);
            assert_eq!(wheel.pop(&mut links, now), None);
            let mut model: BTreeMap<u32, u64> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Insert(index, distance) => {
                        wheel.remove(&mut links, index);
                        wheel.insert(&mut links, index, now + distance);
                        model.insert(index, now + distance);
                    }
                    Step::Remove(index) => {
                        wheel.remove(&mut links, index);
                        model.remove(&index);
                    }
                    Step::Advance(distance) => {
                        now += distance;
                        let mut pops = 0;
                        while let Some(index) = wheel.pop(&mut links, now) {
                            pops += 1;
                            prop_assert!(pops <= 50 * (LEVELS + 1), "work is bounded by the elements");
                            let tick = model[&index];
                            if tick > now {
                                wheel.insert(&mut links, index, tick);
                            } else {
                                model.remove(&index);
                            }
                        }
                        prop_assert!(model.values().all(|&tick| tick > now));
                    }
                }
            }
            for index in 0..50 {
                prop_assert_eq!(links[index as usize] != Link::default(), model.contains_key(&index));
            }
        }
    }
}
