//! What a shard remembers of ports that are taken, so that a crowded range is searched in words of 64 ports instead of
//! one question to the connection table each. [`crate::choose`] fills and reads it; the shard tells it which tuples
//! have become free.
//!
//! A *board* is a bitmap of the 65 536 ports of one end, all else of the reply tuple being fixed: zone, protocol,
//! outside address **and remote endpoint**, so that the same outside port may serve one connection to each remote
//! (endpoint-dependent translation). Boards exist only where the first few questions have failed; a range that is
//! thinly used never makes one.
//!
//! **A bit says that the table has this tuple.** It is set when a question was answered with "taken" or when a
//! connection was made with it, and cleared when that connection goes. A clear bit says nothing: the table is asked. So
//! a board that is thrown away costs questions and never a wrong answer. Each question that fails sets a bit, hence
//! over its life a board costs no more questions than there are connections on it.

use std::collections::BTreeMap;

use weir_wire::{Tuple, Tuple4, Tuple6};

/// Boards of one shard: 16 MiB when all are in use. One more takes the place of another.
pub const MAX_BOARDS: usize = 2048;

const WORDS: usize = 65_536 / 64;

/// Which end's port varies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// The source of the translated packet.
    Source,
    /// Its destination.
    Destination,
}

/// The reply tuple with the port that varies at 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    end: End,
    tuple: Tuple,
}

impl Place {
    /// Where a reply tuple belongs, and its port there. An ICMP identifier is a source port in both directions.
    pub(crate) fn of(reply: &Tuple, end: End) -> (Self, u16) {
        let in_source = reply.is_icmp() || end == End::Destination;
        let (tuple, port) = match *reply {
            Tuple::V4(tuple) if in_source => (Tuple::V4(Tuple4 { src_port: 0, ..tuple }), tuple.src_port),
            Tuple::V4(tuple) => (Tuple::V4(Tuple4 { dst_port: 0, ..tuple }), tuple.dst_port),
            Tuple::V6(tuple) if in_source => (Tuple::V6(Tuple6 { src_port: 0, ..tuple }), tuple.src_port),
            Tuple::V6(tuple) => (Tuple::V6(Tuple6 { dst_port: 0, ..tuple }), tuple.dst_port),
        };
        (Self { end, tuple }, port)
    }
}

/// The bitmap of one place.
#[derive(Debug)]
struct Board {
    taken: [u64; WORDS],
    /// Bits set.
    count: u32,
    /// A range all of whose bits are set, as the last search of it found; or, if true, all those of one's own ports,
    /// which are always the same ones of a place.
    full: Option<(u16, u16, bool)>,
}

impl Board {
    const fn position(port: u16) -> (usize, u64) {
        ((port >> 6) as usize, 1 << (port & 63))
    }

    fn set(&mut self, port: u16) {
        let (word, bit) = Self::position(port);
        self.count += u32::from(self.taken[word] & bit == 0);
        self.taken[word] |= bit;
    }

    fn clear(&mut self, port: u16) {
        let (word, bit) = Self::position(port);
        if self.taken[word] & bit != 0 {
            self.taken[word] &= !bit;
            self.count -= 1;
            self.full = None;
        }
    }

    /// The first clear bit in `first..=last`.
    fn first_clear(&self, first: u16, last: u16) -> Option<u16> {
        first_in(first, last, |word| !self.taken[word])
    }
}

/// The first bit set in `first..=last` of a bitmap.
fn first_in(first: u16, last: u16, bits: impl Fn(usize) -> u64) -> Option<u16> {
    let ((mut word, _), (last_word, _)) = (Board::position(first), Board::position(last));
    let mut left = bits(word) & (u64::MAX << (first & 63));
    loop {
        if left != 0 {
            let port = word * 64 + left.trailing_zeros() as usize;
            return u16::try_from(port).ok().filter(|port| *port <= last);
        }
        if word == last_word {
            return None;
        }
        word += 1;
        left = bits(word);
    }
}

/// The boards of a shard.
#[derive(Debug, Default)]
pub struct Occupancy {
    boards: BTreeMap<Place, Box<Board>>,
    /// The place behind which the next board to be given up is looked for.
    given_up: Option<Place>,
}

impl Occupancy {
    /// True where nothing is crowded. A caller need not tell of released tuples then.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.boards.is_empty()
    }

    /// Boards in use.
    #[must_use]
    pub fn len(&self) -> usize {
        self.boards.len()
    }

    /// A tuple has left the connection table: its original direction's or its reply direction's. So has one that was
    /// kept for another shard's connection, and is free again.
    #[cold]
    pub fn release(&mut self, tuple: &Tuple) {
        for end in [End::Source, End::Destination] {
            let (place, port) = Place::of(tuple, end);
            let Some(board) = self.boards.get_mut(&place) else { continue };
            board.clear(port);
            if board.count == 0 {
                self.boards.remove(&place);
            }
        }
    }

    /// A reply tuple was found to be taken; makes a board for it if need be.
    pub(crate) fn learn(&mut self, reply: &Tuple, end: End) {
        let (place, port) = Place::of(reply, end);
        if !self.boards.contains_key(&place) {
            let board = if self.boards.len() >= MAX_BOARDS {
                let mut board = self.give_up();
                board.taken.fill(0);
                (board.count, board.full) = (0, None);
                board
            } else {
                Box::new(Board { taken: [0; WORDS], count: 0, full: None })
            };
            self.boards.insert(place, board);
        }
        if let Some(board) = self.boards.get_mut(&place) {
            board.set(port);
        }
    }

    /// A tuple is in the connection table now, its original direction's or its reply direction's. Need not be told where
    /// nothing is crowded.
    #[cold]
    pub fn take(&mut self, tuple: &Tuple) {
        for end in [End::Source, End::Destination] {
            let (place, port) = Place::of(tuple, end);
            if let Some(board) = self.boards.get_mut(&place) {
                board.set(port);
            }
        }
    }

    /// The first port from `from` on in the ring `first..=last` that is not known to be taken.
    pub(crate) fn next(&mut self, place: &Place, first: u16, last: u16, from: u16) -> Option<u16> {
        let Some(board) = self.boards.get_mut(place) else { return Some(from) };
        if board.full == Some((first, last, false)) {
            return None;
        }
        let found = board.first_clear(from, last).or_else(|| board.first_clear(first, from));
        if found.is_none() {
            board.full = Some((first, last, false));
        }
        found
    }

    /// As [`Occupancy::next`], of the ports that `own` says, 64 at a time.
    pub(crate) fn next_own(
        &mut self,
        place: &Place,
        first: u16,
        last: u16,
        from: u16,
        own: &impl Fn(u16) -> u64,
    ) -> Option<u16> {
        // There are 1024 words.
        let own = |word: usize| own(word as u16);
        let Some(board) = self.boards.get_mut(place) else {
            return first_in(from, last, own).or_else(|| first_in(first, from, own));
        };
        if board.full == Some((first, last, true)) {
            return None;
        }
        let free = |word: usize| own(word) & !board.taken[word];
        let found = first_in(from, last, free).or_else(|| first_in(first, from, free));
        if found.is_none() {
            board.full = Some((first, last, true));
        }
        found
    }

    /// Takes a board away, each in turn.
    fn give_up(&mut self) -> Box<Board> {
        use core::ops::Bound::{Excluded, Unbounded};

        let behind = self.given_up.and_then(|place| self.boards.range((Excluded(place), Unbounded)).next());
        let victim = behind.or_else(|| self.boards.iter().next()).map(|(place, _)| *place);
        self.given_up = victim;
        victim
            .and_then(|place| self.boards.remove(&place))
            .unwrap_or_else(|| Box::new(Board { taken: [0; WORDS], count: 0, full: None }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn reply(remote: u8, port: u16) -> Tuple {
        Tuple4::new([8, 8, 8, remote], [10, 0, 0, 1], 80, port, 6, 0).into()
    }

    fn place(remote: u8) -> Place {
        Place::of(&reply(remote, 1), End::Source).0
    }

    #[test]
    fn the_next_port_is_the_first_one_round_the_ring_that_is_not_known_to_be_taken() {
        let mut occupancy = Occupancy::default();
        assert_eq!(occupancy.next(&place(1), 100, 200, 150), Some(150));
        for port in (150..=200).chain(100..130) {
            occupancy.learn(&reply(1, port), End::Source);
        }
        assert_eq!(occupancy.next(&place(1), 100, 200, 150), Some(130));
        assert_eq!(occupancy.next(&place(1), 100, 129, 110), None);
        assert_eq!(occupancy.next(&place(1), 100, 129, 100), None);
        occupancy.release(&reply(1, 115));
        assert_eq!(occupancy.next(&place(1), 100, 129, 120), Some(115));
        assert_eq!(
            occupancy.next(&place(2), 100, 129, 120),
            Some(120),
            "another remote has ports of its own"
        );
    }

    #[test]
    fn every_port_of_the_number_space_can_be_taken_and_released() {
        let mut occupancy = Occupancy::default();
        let mut left: HashSet<u16> = (0..=u16::MAX).collect();
        let mut from = 12_345;
        while let Some(port) = occupancy.next(&place(1), 0, u16::MAX, from) {
            assert!(left.remove(&port));
            occupancy.learn(&reply(1, port), End::Source);
            from = port.wrapping_add(40_507);
        }
        assert!(left.is_empty());
        for port in 0..=u16::MAX {
            occupancy.release(&reply(1, port));
        }
        assert!(occupancy.is_empty());
    }

    #[test]
    fn boards_are_bounded_and_each_is_given_up_in_turn() {
        let mut occupancy = Occupancy::default();
        for client in 0..3 * u16::try_from(MAX_BOARDS).unwrap() {
            let [a, b] = client.to_be_bytes();
            let tuple: Tuple = Tuple4::new([9, 9, a, b], [10, 0, 0, 1], 80, 7, 6, 0).into();
            occupancy.learn(&tuple, End::Source);
            assert!(occupancy.len() <= MAX_BOARDS);
            // It is clean but for this port.
            let (place, _) = Place::of(&tuple, End::Source);
            assert_eq!(occupancy.next(&place, 0, u16::MAX, 7), Some(8));
        }
    }

    #[test]
    fn a_tuple_that_is_both_a_source_s_and_a_destination_s_is_released_from_both() {
        let mut occupancy = Occupancy::default();
        occupancy.learn(&reply(1, 5), End::Source);
        occupancy.learn(&reply(1, 5), End::Destination);
        assert_eq!(occupancy.len(), 2);
        occupancy.take(&reply(2, 5));
        assert_eq!(occupancy.len(), 2);
        occupancy.release(&reply(1, 5));
        assert!(occupancy.is_empty());
    }
}
