//! Which ranges of addresses and ports have run out, for the control side to say so. Bounded: a few ranges are told
//! apart, the packets of all others are counted together.

use weir_nat::NatAction;

/// Ranges that are told apart between two readings.
const RANGES: usize = 8;

/// A range that had nothing free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhaustion {
    /// Zone and translation; `None` stands for all that are not told apart.
    pub range: Option<(u16, NatAction)>,
    /// Packets dropped for it since the last reading.
    pub packets: u64,
}

/// What has run out since the last reading.
#[derive(Debug, Default)]
pub(crate) struct Exhaustions(Vec<Exhaustion>);

impl Exhaustions {
    /// One more packet was dropped.
    #[cold]
    pub(crate) fn note(&mut self, zone: u16, action: NatAction) {
        let range = Some((zone, action));
        let others = self.0.len() >= RANGES;
        match self.0.iter_mut().find(|entry| entry.range == range || others && entry.range.is_none()) {
            Some(entry) => entry.packets += 1,
            None => self.0.push(Exhaustion { range: range.filter(|_| !others), packets: 1 }),
        }
    }

    /// What there is, to be forgotten.
    pub(crate) fn take(&mut self) -> Vec<Exhaustion> {
        core::mem::take(&mut self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_nat::{NatRange, PortSelection};

    #[test]
    fn ranges_are_counted_apart_up_to_a_bound_and_the_others_together() {
        let action = |port| {
            NatAction::Source(NatRange {
                addresses: None,
                ports: Some((port, port)),
                selection: PortSelection::Default,
                persistent: false,
            })
        };
        let mut exhaustions = Exhaustions::default();
        for round in 0..3 {
            for port in 1..=20 {
                exhaustions.note(round % 2, action(port));
            }
        }
        exhaustions.note(0, action(1));
        let taken = exhaustions.take();
        assert_eq!(taken.len(), RANGES + 1);
        assert_eq!(taken[0], Exhaustion { range: Some((0, action(1))), packets: 3 });
        assert_eq!(taken.iter().map(|entry| entry.packets).sum::<u64>(), 61);
        assert!(taken[RANGES].range.is_none());
        assert!(exhaustions.take().is_empty());
    }
}
