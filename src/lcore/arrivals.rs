//! Whether a card steers as it was told: the first packets of each of its queues are held against what the steering
//! says of them. Called by the polling loop with frames as they come in; the control side reads what was seen and
//! decides (`daemon/steering.rs`). Knows no driver, and changes no packet.

use std::sync::Arc;

use serde::Serialize;
use weir_shard::{ShardNumber, Steering};
use weir_wire::numbers::protocol;
use weir_wire::{Fragment, Layers, Tuple};

use crate::config::Role;

/// Packets of a queue that are compared.
const COMPARED: u32 = 1024;
/// Frames of a queue that are looked at for them: where nearly nothing can be compared, that ends too.
const LOOKED_AT: u32 = 64 * COMPARED;

/// What the first packets of a card's queues showed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Arrivals {
    /// TCP and UDP packets, fragments aside, that were compared: all cards that are used hash these alike.
    pub compared: u64,
    /// The card's hash was ours.
    pub hash_matched: u64,
    /// The card's hash was another one.
    pub hash_mismatched: u64,
    /// The driver passed no hash on.
    pub without_hash: u64,
    /// Packets that came to another lcore than their owner's.
    pub elsewhere: u64,
    /// Packets that came elsewhere, had another hash, or both.
    pub wrong: u64,
}

impl Arrivals {
    /// Packets without which nothing is decided.
    const ENOUGH: u64 = 64;

    /// Adds another queue's.
    pub fn add(&mut self, other: &Self) {
        self.compared += other.compared;
        self.hash_matched += other.hash_matched;
        self.hash_mismatched += other.hash_mismatched;
        self.without_hash += other.without_hash;
        self.elsewhere += other.elsewhere;
        self.wrong += other.wrong;
    }

    /// True if the card is no help: of at least 64 packets more than a quarter were wrong. A card that sends packets
    /// anywhere brings half of them to the right one of two lcores, and fewer to the right one of more, so it does not
    /// pass; a card that steers and has a few packets of zones or tunnels that it cannot know of does.
    #[must_use]
    pub fn condemn(&self) -> bool {
        self.compared >= Self::ENOUGH && self.wrong * 4 > self.compared
    }
}

/// Looks at the first packets of one queue.
#[derive(Debug)]
pub struct Examination {
    steering: Arc<Steering>,
    /// Who polls the queue.
    shard: ShardNumber,
    role: Option<Role>,
    looked_at: u32,
    seen: Arrivals,
}

impl Examination {
    /// Of a queue that `shard` polls, of a port with this role.
    #[must_use]
    pub fn new(steering: Arc<Steering>, shard: ShardNumber, role: Option<Role>) -> Self {
        Self { steering, shard, role, looked_at: 0, seen: Arrivals::default() }
    }

    /// What was seen so far.
    #[must_use]
    pub const fn seen(&self) -> &Arrivals {
        &self.seen
    }

    /// True when enough was seen.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.looked_at >= LOOKED_AT || self.seen.compared >= COMPARED as u64
    }

    /// Looks at a frame as it came in, with the card's hash if the driver passes one on.
    #[cold]
    pub fn observe(&mut self, frame: &[u8], hash: Option<u32>) {
        if self.is_over() {
            return;
        }
        self.looked_at += 1;
        let layers = Layers::parse(frame);
        let Some(tuple) = endpoints(frame, &layers) else { return };
        let Some(home) = self.steering.home_of_frame(frame, &layers) else { return };
        let seen = &mut self.seen;
        seen.compared += 1;
        let mismatched = match hash {
            Some(hash) if hash == expected(&self.steering, self.role, &tuple) => {
                seen.hash_matched += 1;
                false
            }
            Some(_) => {
                seen.hash_mismatched += 1;
                true
            }
            None => {
                seen.without_hash += 1;
                false
            }
        };
        let elsewhere = home != self.shard;
        seen.elsewhere += u64::from(elsewhere);
        seen.wrong += u64::from(elsewhere || mismatched);
    }
}

/// The hash that a card is to compute of a packet. An address that is all zeros adds nothing to it.
fn expected(steering: &Steering, role: Option<Role>, tuple: &Tuple) -> u32 {
    let (src, dst) = (tuple.src(), tuple.dst());
    let nothing = if src.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    match role {
        None => steering.card_hash(tuple),
        Some(Role::Inside) => steering.card_hash_of_addresses(src, nothing),
        Some(Role::Outside) => steering.card_hash_of_addresses(nothing, dst),
    }
}

/// Addresses and ports of a whole TCP or UDP packet.
fn endpoints(frame: &[u8], layers: &Layers) -> Option<Tuple> {
    if layers.fragment != Fragment::No || !matches!(layers.protocol, protocol::TCP | protocol::UDP) {
        return None;
    }
    let packet = layers.l3_bytes(frame);
    let [src, dst] = layers.l4_bytes(frame).first_chunk::<4>()?.as_chunks::<2>().0 else { return None };
    let (src_port, dst_port) = (u16::from_be_bytes(*src), u16::from_be_bytes(*dst));
    let (src, dst) = if layers.is_ipv4() {
        ((*packet.get(12..)?.first_chunk::<4>()?).into(), (*packet.get(16..)?.first_chunk::<4>()?).into())
    } else if layers.is_ipv6() {
        ((*packet.get(8..)?.first_chunk::<16>()?).into(), (*packet.get(24..)?.first_chunk::<16>()?).into())
    } else {
        return None;
    };
    Tuple::new(src, dst, src_port, dst_port, layers.protocol, 0)
}

#[cfg(test)]
mod tests {
    use weir_shard::steering::{KeyWord, SteeringConfig, Subscribers};

    use super::*;

    fn udp(src: [u8; 4], dst: [u8; 4], ports: [u16; 2]) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
        frame.extend([0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0]);
        frame.extend(src.into_iter().chain(dst));
        frame.extend(ports.into_iter().flat_map(u16::to_be_bytes));
        frame.extend([0, 8, 0, 0]);
        frame
    }

    fn steering() -> Arc<Steering> {
        let subscribers = Subscribers {
            pool: vec!["192.0.2.0/24".parse().unwrap()],
            inside: vec!["10.0.0.0/8".parse().unwrap()],
        };
        let config = SteeringConfig {
            shards: 2,
            word: KeyWord::WELL_KNOWN,
            table_size: 128,
            subscribers: vec![(1, subscribers)],
        };
        Arc::new(Steering::new(&config).unwrap())
    }

    /// What a card that does as it is told shows of 1000 connections, with its hash passed through `change`.
    fn seen(role: Option<Role>, change: impl Fn(u32) -> Option<u32>) -> Arrivals {
        let steering = match role {
            None => Arc::new(Steering::symmetric(2, KeyWord::from_random(77))),
            Some(_) => steering(),
        };
        let mut all = Arrivals::default();
        let mut queues = [0, 1]
            .map(|queue| Examination::new(Arc::clone(&steering), ShardNumber::new(queue).unwrap(), role));
        for port in 0..1000_u16 {
            let low = port.to_be_bytes();
            let (src, dst) = match role {
                Some(Role::Outside) => ([198, 51, 100, low[1]], [192, 0, 2, low[1]]),
                _ => ([10, 0, low[0], low[1]], [198, 51, 100, 1]),
            };
            let frame = udp(src, dst, [port, 53]);
            let tuple = endpoints(&frame, &Layers::parse(&frame)).unwrap();
            let hash = expected(&steering, role, &tuple);
            let table = match role {
                Some(Role::Outside) => steering.pool_table(1, true).unwrap(),
                _ => steering.table(),
            };
            let queue = table[hash as usize % table.len()];
            queues[queue.index()].observe(&frame, change(hash));
        }
        queues.iter().for_each(|queue| all.add(queue.seen()));
        all
    }

    #[test]
    fn a_card_that_does_as_told_passes_in_every_role() {
        for role in [None, Some(Role::Inside), Some(Role::Outside)] {
            let all = seen(role, Some);
            assert_eq!((all.compared, all.hash_matched, all.wrong), (1000, 1000, 0), "{role:?}");
            assert!(!all.condemn());
            let silent = seen(role, |_| None);
            assert_eq!((silent.without_hash, silent.wrong), (1000, 0), "{role:?}");
        }
    }

    #[test]
    fn a_card_with_another_hash_is_no_help_though_some_packets_come_right() {
        let all = seen(None, |hash| Some(hash ^ 1));
        assert_eq!((all.hash_mismatched, all.elsewhere, all.wrong), (1000, 0, 1000));
        assert!(all.condemn());
    }

    #[test]
    fn a_card_without_a_hash_is_judged_by_where_packets_come() {
        let steering = Arc::new(Steering::symmetric(2, KeyWord::from_random(77)));
        let mut queue = Examination::new(steering, ShardNumber::new(0).unwrap(), None);
        for port in 0..63 {
            queue.observe(&udp([10, 0, 0, 1], [10, 0, 0, 2], [port, 53]), None);
        }
        assert!(!queue.seen().condemn(), "too few to tell");
        for port in 63..1000 {
            queue.observe(&udp([10, 0, 0, 1], [10, 0, 0, 2], [port, 53]), None);
        }
        let seen = queue.seen();
        assert!(seen.elsewhere > 400 && seen.elsewhere == seen.wrong && seen.condemn(), "{seen:?}");
    }

    #[test]
    fn a_quarter_may_be_wrong() {
        let arrivals = |wrong| Arrivals { compared: 100, wrong, ..Arrivals::default() };
        assert!(!arrivals(25).condemn() && arrivals(26).condemn());
    }

    #[test]
    fn looking_ends_and_what_cannot_be_compared_counts_for_nothing() {
        let mut queue = Examination::new(Arc::new(Steering::alone()), ShardNumber::default(), None);
        let mut fragment = udp([10, 0, 0, 1], [10, 0, 0, 2], [1, 2]);
        fragment[20] = 0x20;
        for frame in [&fragment[..], &[], &[0; 60], &fragment[..30]] {
            queue.observe(frame, Some(1));
        }
        assert_eq!(queue.seen(), &Arrivals::default());
        for _ in 0..2 * COMPARED {
            queue.observe(&udp([10, 0, 0, 1], [10, 0, 0, 2], [1, 2]), None);
        }
        assert!(queue.is_over() && queue.seen().compared == u64::from(COMPARED));
        let mut idle = Examination::new(Arc::new(Steering::alone()), ShardNumber::default(), None);
        (0..LOOKED_AT).for_each(|_| idle.observe(&fragment, None));
        assert!(idle.is_over() && idle.seen().compared == 0);
    }
}
