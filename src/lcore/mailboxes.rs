//! The rings between lcores: for each ordered pair of them one [mailbox](weir_shard::mailbox) of [`Letter`]s. Each lcore
//! has the outgoing ends of those to its peers and the incoming ends of those from them. A letter that finds no room
//! goes back to its worker when it posts it; nobody waits.

use arrayvec::ArrayVec;
use weir_numa::memory::MemoryError;
use weir_shard::ShardNumber;
use weir_shard::mailbox::{Receiver, Sender, channel};
use weir_shard::steering::MAX_SHARDS;

use crate::pipeline::{Frame, Letter, Letters};

/// What one lcore has of the rings.
#[derive(Debug)]
pub struct Mailboxes<F> {
    /// To its peers.
    pub outgoing: Outgoing<F>,
    /// From its peers.
    pub incoming: Incoming<F>,
}

/// The rings to all other lcores.
#[derive(Debug)]
pub struct Outgoing<F> {
    /// By shard number; its own is missing.
    rings: Vec<Option<Sender<Letter<F>>>>,
    /// Those with letters that their receivers have not been shown, one bit each.
    touched: u64,
}

/// The rings from all other lcores.
#[derive(Debug)]
pub struct Incoming<F> {
    rings: Vec<(ShardNumber, Receiver<Letter<F>>)>,
}

/// How full a mailbox got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// Whose letters it holds.
    pub from: ShardNumber,
    /// Most letters that were ever seen waiting.
    pub most: usize,
    /// Letters there is room for.
    pub capacity: usize,
}

impl<F> Default for Mailboxes<F> {
    fn default() -> Self {
        Self { outgoing: Outgoing::default(), incoming: Incoming::default() }
    }
}

impl<F> Default for Outgoing<F> {
    fn default() -> Self {
        Self { rings: Vec::new(), touched: 0 }
    }
}

impl<F> Default for Incoming<F> {
    fn default() -> Self {
        Self { rings: Vec::new() }
    }
}

impl<F: Send> Mailboxes<F> {
    /// Rings of `capacity` letters between as many lcores as there are `nodes`, whose memory is to be on these NUMA nodes
    /// (`None` is anywhere). The first lcore has shard 0; from [`MAX_SHARDS`] on they have no number and no rings.
    ///
    /// # Errors
    /// When there is no memory for them.
    pub fn between(nodes: &[Option<u32>], capacity: usize) -> Result<Vec<Self>, MemoryError> {
        let mut all: Vec<Self> = nodes.iter().map(|_| Self::default()).collect();
        let numbers = || (0..nodes.len()).filter_map(ShardNumber::new);
        for from in numbers() {
            for to in numbers() {
                if from == to {
                    all[from.index()].outgoing.rings.push(None);
                    continue;
                }
                let (sender, receiver) = channel(capacity, nodes[to.index()])?;
                all[from.index()].outgoing.rings.push(Some(sender));
                all[to.index()].incoming.rings.push((from, receiver));
            }
        }
        Ok(all)
    }
}

impl<F> Outgoing<F> {
    /// Takes a letter for the lcore of the shard `to`, which sees it after the next [`flush`](Self::flush).
    ///
    /// # Errors
    /// The letter, when the mailbox is full or there is none.
    #[inline]
    pub fn post(&mut self, to: ShardNumber, letter: Letter<F>) -> Result<(), Letter<F>> {
        let Some(Some(ring)) = self.rings.get_mut(to.index()) else { return Err(letter) };
        ring.stage(letter)?;
        self.touched |= 1 << to.index();
        Ok(())
    }

    /// Shows the receivers what was posted.
    #[inline]
    pub fn flush(&mut self) {
        const { assert!(MAX_SHARDS <= u64::BITS as usize) };
        while self.touched != 0 {
            let index = self.touched.trailing_zeros() as usize;
            self.touched &= self.touched - 1;
            if let Some(Some(ring)) = self.rings.get_mut(index) {
                ring.publish();
            }
        }
    }
}

impl<F: Frame> Incoming<F> {
    /// Gives `work` what the peers have sent, so many bursts of each at the most; true if there was anything. As many as
    /// the lcore has queues are right: with more of them it would send its peers less than it gets from them, and those
    /// would stand idle. While a burst is worked on, the next one's packets come from their sender's cache.
    #[inline]
    pub fn collect(&mut self, bursts: usize, mut work: impl FnMut(ShardNumber, &mut Letters<F>)) -> bool {
        let mut any = false;
        for (from, ring) in &mut self.rings {
            let mut burst = [Letters::new(), Letters::new()];
            let [letters, next] = &mut burst;
            let (mut letters, mut next) = (letters, next);
            let mut left = bursts;
            fetch(ring, letters, &mut left);
            while !letters.is_empty() {
                any = true;
                fetch(ring, next, &mut left);
                work(*from, letters);
                letters.clear();
                core::mem::swap(&mut letters, &mut next);
            }
        }
        any
    }
}

/// Takes a burst out of a ring, if there are `left` to take, and has the CPU look for its packets.
#[inline(always)]
fn fetch<F: Frame>(ring: &mut Receiver<Letter<F>>, into: &mut Letters<F>, left: &mut usize) {
    if *left == 0 || ring.receive_burst(into) == 0 {
        return;
    }
    *left -= 1;
    for letter in into {
        if let Letter::Packet { frame, .. } = letter {
            frame.prefetch_unread();
        }
    }
}

impl<F> Incoming<F> {
    /// Gives `work` everything that was sent before this call, however much that is.
    pub fn collect_all(&mut self, mut work: impl FnMut(ShardNumber, &mut Letters<F>)) {
        for (from, ring) in &mut self.rings {
            let mut left = ring.waiting();
            while left > 0 {
                let mut letters = ArrayVec::new();
                left = left.saturating_sub(ring.receive_burst(&mut letters));
                work(*from, &mut letters);
            }
        }
    }

    /// How full each got.
    pub fn fills(&self) -> impl Iterator<Item = Fill> {
        self.rings.iter().map(|(from, ring)| Fill {
            from: *from,
            most: ring.high_water(),
            capacity: ring.capacity(),
        })
    }

    /// Starts [`fills`](Self::fills) anew.
    pub fn clear_fills(&mut self) {
        self.rings.iter_mut().for_each(|(_, ring)| ring.clear_high_water());
    }
}

#[cfg(test)]
mod tests {
    use weir_shard::Reason;

    use super::*;
    use crate::pipeline::{BURST, HeapFrame};

    fn letter(port: u32) -> Letter<HeapFrame> {
        Letter::Packet { port, numbering: 0, frame: HeapFrame::new(&[0; 60]), why: Reason::Steered }
    }

    fn port(letter: &Letter<HeapFrame>) -> u32 {
        match letter {
            Letter::Packet { port, .. } => *port,
            _ => panic!("{letter:?}"),
        }
    }

    fn shard(number: usize) -> ShardNumber {
        ShardNumber::new(number).unwrap()
    }

    /// All that `mailboxes` have received: sender and port.
    fn collected(mailboxes: &mut Mailboxes<HeapFrame>) -> Vec<(usize, u32)> {
        let mut all = Vec::new();
        mailboxes.incoming.collect(8, |from, letters| {
            all.extend(letters.drain(..).map(|letter| (from.index(), port(&letter))));
        });
        all
    }

    #[test]
    fn each_pair_has_a_ring_and_nobody_one_to_himself() {
        let mut all = Mailboxes::between(&[None; 3], 4).unwrap();
        for (from, mailboxes) in all.iter_mut().enumerate() {
            for to in 0..4 {
                let posted = mailboxes.outgoing.post(shard(to), letter((10 * from + to) as u32));
                assert_eq!(posted.is_ok(), from != to && to < 3);
            }
        }
        for mailboxes in &mut all {
            assert_eq!(collected(mailboxes), [], "nothing is to be seen before it is flushed");
        }
        all.iter_mut().for_each(|mailboxes| mailboxes.outgoing.flush());
        for (to, peers) in [(0, [1, 2]), (1, [0, 2]), (2, [0, 1])] {
            let mut seen = collected(&mut all[to]);
            seen.sort_unstable();
            assert_eq!(seen, peers.map(|from| (from, (10 * from + to) as u32)));
        }
        let mut alone = Mailboxes::between(&[None], 4).unwrap();
        assert!(alone[0].outgoing.post(shard(0), letter(1)).is_err());
        assert!(!alone[0].incoming.collect(1, |_, _| ()));
    }

    #[test]
    fn a_full_mailbox_gives_the_letter_back_at_once() {
        let mut all = Mailboxes::between(&[None; 2], 4).unwrap();
        let posted: Vec<bool> = (0..6)
            .map(|n| {
                all[0].outgoing.post(shard(1), letter(n)).map_err(|back| assert_eq!(port(&back), n)).is_ok()
            })
            .collect();
        assert_eq!(posted, [true, true, true, true, false, false]);
        all[0].outgoing.flush();
        assert_eq!(collected(&mut all[1]), [(0, 0), (0, 1), (0, 2), (0, 3)]);
        let fill = Fill { from: shard(0), most: 4, capacity: 4 };
        assert!(all[1].incoming.fills().eq([fill]));
        all[1].incoming.clear_fills();
        assert!(all[1].incoming.fills().eq([Fill { most: 0, ..fill }]));
    }

    #[test]
    fn one_peer_does_not_keep_the_others_from_being_heard_but_nothing_is_left_when_all_is_asked_for() {
        let mut all = Mailboxes::between(&[None; 3], 1024).unwrap();
        let most = (8 * BURST) as u32;
        for n in 0..most + 40 {
            all[0].outgoing.post(shard(2), letter(n)).unwrap();
        }
        all[1].outgoing.post(shard(2), letter(7)).unwrap();
        all[0].outgoing.flush();
        all[1].outgoing.flush();
        let first = collected(&mut all[2]);
        assert_eq!(first.len() as u32, most + 1);
        assert_eq!(first.last(), Some(&(1, 7)));
        let mut rest = 0;
        all[2].incoming.collect_all(|_, letters| rest += letters.drain(..).count());
        assert_eq!(rest, 40);
    }
}
