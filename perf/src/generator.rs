//! The generator: packets of up to 2^26 flows without a capture, written into the buffers that net_null hands out
//! (`weir_ffi::source`). A packet is a template with two addresses and two ports put in; its checksums are the template's,
//! and theirs added. Where a flow's number says what they are, in either direction, nothing is read from memory; the
//! answers of translated connections come from a list, twelve bytes each, that is shuffled once and read in order. Used
//! by `inside`; knows no switch.

use weir_ffi::Mbuf;
use weir_ffi::source::Source;

use crate::frames::{Ends, Frames, MIX, Places, Shape, Template, Transport};
use crate::order::Order;
use crate::traffic::{Flow, shuffle};

/// Where the ends of the next packet come from.
#[derive(Clone, Debug)]
pub enum Flows {
    /// Flows by their numbers, upwards from this one. Connections are opened in this order, so that they lie in it in
    /// the table. The powers of one root are no mixture for those of another: they would be met at equal distances.
    Counted(u32),
    /// Flows by their numbers, the first one's given, in an order of their own.
    Numbered {
        /// Number of the first.
        first: u32,
        /// Of all.
        order: Order,
        /// Their answers.
        reversed: bool,
    },
    /// What stands in a list, again and again.
    Listed {
        /// Shuffled.
        list: Vec<Ends>,
        /// Where the next is.
        next: usize,
    },
}

impl Flows {
    /// `count` flows from the number `first` on; another `seed`, another order.
    #[must_use]
    pub fn numbered(first: u32, count: u32, seed: u32) -> Self {
        Self::Numbered { first, order: Order::new(count, seed), reversed: false }
    }

    /// Their answers, untranslated.
    #[must_use]
    pub fn answers(first: u32, count: u32, seed: u32) -> Self {
        Self::Numbered { first, order: Order::new(count, seed), reversed: true }
    }

    /// Those of a list, which it shuffles.
    #[must_use]
    pub fn listed(mut list: Vec<Ends>, seed: u64) -> Self {
        shuffle(&mut list, seed);
        Self::Listed { list, next: 0 }
    }

    #[inline]
    fn next(&mut self, transport: Transport) -> Ends {
        match self {
            Self::Counted(next) => {
                let number = *next;
                *next = number.wrapping_add(1);
                Ends::of(&Flow::numbered(number), transport)
            }
            Self::Numbered { first, order, reversed } => {
                let ends = Ends::of(&Flow::numbered(*first + order.next()), transport);
                if *reversed { ends.reversed() } else { ends }
            }
            Self::Listed { list, next } => {
                let ends = list.get(*next).copied().unwrap_or_default();
                *next = if *next + 1 < list.len() { *next + 1 } else { 0 };
                ends
            }
        }
    }
}

/// A source of packets of one shape.
#[derive(Clone, Debug)]
pub struct Generator {
    flows: Flows,
    transport: Transport,
    places: Places,
    templates: Vec<Template>,
    /// Which template is next.
    turn: usize,
    /// Packets yet to come.
    left: u64,
}

impl Generator {
    /// Packets of `flows` without end.
    #[must_use]
    pub fn endless(shape: Shape, flows: Flows) -> Self {
        Self::limited(shape, flows, u64::MAX)
    }

    /// So many packets of `flows`.
    #[must_use]
    pub fn limited(shape: Shape, flows: Flows, packets: u64) -> Self {
        let lengths: &[u16] = match shape.frames {
            Frames::Small => &[60],
            Frames::Mix => &MIX,
        };
        let templates = lengths.iter().map(|&length| Template::new(shape, length)).collect();
        Self {
            flows,
            transport: shape.transport,
            places: Places::of(shape),
            templates,
            turn: 0,
            left: packets,
        }
    }

    /// Bytes that a buffer must have before a packet is written into it.
    #[must_use]
    pub fn longest(&self) -> usize {
        self.templates.iter().map(|template| template.length).max().unwrap_or(0)
    }
}

impl Source for Generator {
    #[inline]
    fn fill(&mut self, buffers: &mut [Mbuf]) -> usize {
        let count = buffers.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.left -= count as u64;
        for buffer in &mut buffers[..count] {
            let ends = self.flows.next(self.transport);
            let Some(template) = self.templates.get(self.turn) else { return 0 };
            self.turn = if self.turn + 1 < self.templates.len() { self.turn + 1 } else { 0 };
            let excess = buffer.len().saturating_sub(template.length);
            if excess > 0 {
                // Never more than there is.
                let _ = buffer.trim(excess);
            }
            template.write(&self.places, ends, buffer.bytes_mut());
        }
        count
    }
}
#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    #[test]
    fn connections_that_were_opened_in_turn_are_met_at_no_equal_distances() {
        let count = 100_003;
        let mut counted = Flows::Counted(0);
        let ends: Vec<Ends> = (0..count).map(|_| counted.next(Transport::Udp)).collect();
        let place: HashMap<Ends, u32> = ends.into_iter().zip(0..).collect();
        let mut met = Flows::numbered(0, count, 4);
        let places: Vec<i64> = (0..1000).map(|_| place[&met.next(Transport::Udp)].into()).collect();
        let steps: HashSet<i64> =
            places.windows(2).map(|pair| (pair[1] - pair[0]).rem_euclid(count.into())).collect();
        assert!(steps.len() > 990, "{}", steps.len());
    }

    #[test]
    fn a_list_is_read_to_its_end_and_again() {
        let list: Vec<Ends> = (0..5_u16).map(|port| Ends::new([0; 4], [0; 4], port, 0)).collect();
        let all: HashSet<Ends> = list.iter().copied().collect();
        let mut flows = Flows::listed(list, 3);
        let lap = |flows: &mut Flows| (0..5).map(|_| flows.next(Transport::Udp)).collect::<Vec<_>>();
        let first = lap(&mut flows);
        assert_eq!(lap(&mut flows), first);
        assert_eq!(first.into_iter().collect::<HashSet<_>>(), all);
    }
}
