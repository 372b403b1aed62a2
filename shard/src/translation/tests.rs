//! Pools that fill up, run out and are released, through a whole shard.

use std::collections::HashSet;
use std::sync::Arc;

use weir_nat::{AddressRange, NatRange, PortSelection};
use weir_wire::build::PacketBuilder;
use weir_wire::{ChecksumTrust, Layers};

use super::*;
use crate::steering::{KeyWord, SteeringConfig, Subscribers};
use crate::{CtAction, CtMeta, CtState, DropReason, DumpCursor, Outcome, ShardConfig, ShardNumber, Steering};

const REMOTE: [u8; 4] = [8, 8, 8, 8];

struct Lab {
    shard: Shard,
    now: u64,
    action: CtAction,
}

fn pool(first: [u8; 4], last: [u8; 4], ports: (u16, u16)) -> CtAction {
    let range = NatRange {
        addresses: Some(AddressRange::V4(first.into(), last.into())),
        ports: Some(ports),
        selection: PortSelection::Default,
        persistent: false,
    };
    CtAction { commit: true, nat: Some(NatAction::Source(range)), ..CtAction::default() }
}

impl Lab {
    fn new(capacity: u32, action: CtAction) -> Self {
        let config = ShardConfig { capacity, max_connections: capacity, ..ShardConfig::default() };
        Self { shard: Shard::new(config, [1, 2, 3, 4]).unwrap(), now: 1_000_000, action }
    }

    /// A first datagram of the `number`th client.
    fn open(&mut self, number: u32, remote_port: u16) -> Outcome {
        let [_, a, b, c] = number.to_be_bytes();
        let mut frame = PacketBuilder::new().ipv4([10, a, b, c], REMOTE).udp(40_000, remote_port).build();
        let (layers, mut meta) = (Layers::parse(&frame), CtMeta::default());
        let mut lookup = self.shard.prepare(&frame, &layers, 0, &meta, true);
        self.shard.prefetch(&mut lookup);
        self.shard.foresee(&mut lookup, &self.action);
        self.shard.execute(self.now, &mut frame, &layers, &lookup, &self.action, &mut meta)
    }
}

const TRANSLATED: Outcome = Outcome::Continue { rewritten: true };
const EXHAUSTED: Outcome = Outcome::Drop(DropReason::NatExhausted);

#[test]
fn a_pool_of_65535_ports_is_used_to_the_last_towards_one_remote_runs_out_and_comes_back() {
    let mut lab = Lab::new(140_000, pool([192, 0, 2, 1], [192, 0, 2, 1], (1, u16::MAX)));
    for number in 0..65_535 {
        assert_eq!(lab.open(number, 53), TRANSLATED, "client {number}");
    }
    for number in 70_000..70_010 {
        assert_eq!(lab.open(number, 53), EXHAUSTED);
    }
    assert_eq!((lab.shard.counters().nat_exhausted, lab.shard.len()), (10, 65_535));
    let told = lab.shard.take_exhaustions();
    assert_eq!((told.len(), told[0].packets), (1, 10));
    // Outside ports are taken towards one remote endpoint only.
    assert_eq!(lab.open(70_000, 54), TRANSLATED);
    // Flushed: each of them is found again.
    let (mut cursor, mut removed) = (DumpCursor::default(), 0);
    while !cursor.is_done() {
        let filter = &mut |view: &crate::ConnectionView| view.reply.dst_port() % 4_000 == 7;
        removed += lab.shard.flush(lab.now, &mut cursor, 1000, filter);
    }
    assert_eq!(removed, 17);
    for number in 0..removed {
        assert_eq!(lab.open(80_000 + number, 53), TRANSLATED);
    }
    assert_eq!(lab.open(90_000, 53), EXHAUSTED);
    // Expired and not swept yet: no obstacle.
    lab.now += 61_000;
    assert_eq!(lab.open(90_001, 53), TRANSLATED);
    // Nothing is kept of what has gone.
    lab.now += 61_000;
    while lab.shard.sweep(lab.now, 1000) == 1000 {}
    assert!(lab.shard.is_empty() && lab.shard.occupancy().is_empty());
}

#[test]
fn every_address_of_a_pool_is_used_before_a_connection_is_refused() {
    let mut lab = Lab::new(80_000, pool([10, 0, 0, 1], [10, 0, 0, 255], (5000, 5199)));
    for number in 0..255 * 200 {
        assert_eq!(lab.open(number, 53), TRANSLATED, "client {number}");
    }
    assert_eq!(lab.open(99_999, 53), EXHAUSTED);
    let mut uses = std::collections::BTreeMap::new();
    let mut cursor = DumpCursor::default();
    while !cursor.is_done() {
        lab.shard
            .dump(lab.now, &mut cursor, 1000, &mut |view| *uses.entry(view.reply.dst()).or_insert(0) += 1);
    }
    assert_eq!(uses.len(), 255);
    assert!(uses.values().all(|count| *count == 200));
}

#[test]
fn what_has_expired_is_found_although_later_deadlines_stand_before_it_in_the_wheel() {
    let mut lab = Lab::new(20_000, pool([192, 0, 2, 1], [192, 0, 2, 1], (10_000, 14_999)));
    for number in 0..5_000 {
        assert_eq!(lab.open(number, 53), TRANSLATED);
    }
    // All but one are seen again, which moves their deadlines but not their places in the wheel.
    lab.now += 40_000;
    for number in 1..5_000 {
        lab.open(number, 53);
    }
    assert_eq!(lab.open(9_999, 53), EXHAUSTED);
    lab.now += 30_000;
    let mut tries = 0;
    // A single packet sweeps 4032 at the most.
    while lab.open(9_999, 53) == EXHAUSTED {
        tries += 1;
        assert!(tries <= 1, "the sweeps have come to all 5000");
    }
}

#[test]
fn a_connection_that_is_not_translated_takes_a_port_too_and_gives_it_back() {
    let mut lab = Lab::new(20_000, pool([192, 0, 2, 1], [192, 0, 2, 1], (10_000, 14_999)));
    let plain = |lab: &mut Lab| {
        let mut frame = PacketBuilder::new().ipv4([192, 0, 2, 1], REMOTE).udp(12_345, 53).build();
        let (layers, mut meta) = (Layers::parse(&frame), CtMeta::default());
        let lookup = lab.shard.prepare(&frame, &layers, 0, &meta, true);
        let action = CtAction { commit: true, ..CtAction::default() };
        lab.shard.execute(lab.now, &mut frame, &layers, &lookup, &action, &mut meta)
    };
    assert_eq!(plain(&mut lab), Outcome::Continue { rewritten: false });
    for number in 0..4_999 {
        assert_eq!(lab.open(number, 53), TRANSLATED);
    }
    assert_eq!(lab.open(9_999, 53), EXHAUSTED);
    let mut cursor = DumpCursor::default();
    let filter = &mut |view: &crate::ConnectionView| !view.source_nat;
    assert_eq!(lab.shard.flush(lab.now, &mut cursor, 20_000, filter), 1);
    assert_eq!(lab.open(9_999, 53), TRANSLATED);
}

/// Several shards, each at work on what has its home there.
struct Shards {
    shards: Vec<Shard>,
    steering: Arc<Steering>,
    action: CtAction,
}

impl Shards {
    fn new(steering: Steering, action: CtAction) -> Self {
        let steering = Arc::new(steering);
        let of = |number| ShardConfig {
            capacity: 70_000,
            number: ShardNumber::new(number).unwrap(),
            steering: Arc::clone(&steering),
            ..ShardConfig::default()
        };
        let shards = (0..steering.shards()).map(|number| Shard::new(of(number), [1, 2, 3, 4]).unwrap());
        Self { shards: shards.collect(), steering, action }
    }

    /// Gives the frame to whom a card or the first shard to see it would give it.
    fn execute(&mut self, frame: &mut [u8]) -> (Outcome, CtMeta) {
        let (layers, mut meta) = (Layers::parse(frame), CtMeta::default());
        let home = self.steering.home_of_frame(frame, &layers).unwrap();
        let shard = &mut self.shards[home.index()];
        let mut lookup = shard.prepare(frame, &layers, self.action.zone, &meta, false);
        shard.prefetch(&mut lookup);
        shard.foresee(&mut lookup, &self.action);
        let outcome = shard.execute(1_000_000, frame, &layers, &lookup, &self.action, &mut meta);
        (outcome, meta)
    }
}

fn subscribers_of(shards: usize, pool: &str) -> Steering {
    let spans = |text: &str| vec![text.parse().unwrap()];
    let subscribers = vec![(5, Subscribers { pool: spans(pool), inside: spans("10.0.0.0/8") })];
    let word = KeyWord::WELL_KNOWN;
    Steering::new(&SteeringConfig { shards, word, table_size: 128, subscribers }).unwrap()
}

#[test]
fn replies_to_translated_connections_are_established_where_they_arrive() {
    let word = KeyWord::from_random(0xbeef);
    for (steering, zone) in [
        (Steering::symmetric(3, word), 0),
        (Steering::symmetric(16, word), 0),
        (subscribers_of(4, "192.0.2.0/26"), 5),
        (subscribers_of(40, "192.0.2.0/29"), 5),
    ] {
        for selection in [PortSelection::Default, PortSelection::Random] {
            let mut action = pool([192, 0, 2, 0], [192, 0, 2, 7], (1024, u16::MAX));
            action.zone = zone;
            if let Some(NatAction::Source(range)) = &mut action.nat {
                range.selection = selection;
            }
            let mut shards = Shards::new(steering.clone(), action);
            for number in 0..2000_u16 {
                let [a, b] = number.to_be_bytes();
                let client = PacketBuilder::new().ipv4([10, 7, a, b], REMOTE);
                let mut frame = if number % 3 == 0 {
                    client.echo_request(number, 1).build()
                } else {
                    client.udp(40_000, 53).build()
                };
                assert_eq!(shards.execute(&mut frame).0, TRANSLATED, "client {number}");
                let sent = Layers::parse(&frame);
                let sent = Tuple::extract(&frame, &sent, zone, ChecksumTrust::NONE).unwrap().lookup();
                let answer = PacketBuilder::new().ip(sent.dst(), sent.src());
                let mut answer = if number % 3 == 0 {
                    answer.echo_reply(sent.src_port(), 1).build()
                } else {
                    answer.udp(53, sent.src_port()).build()
                };
                let (outcome, meta) = shards.execute(&mut answer);
                assert_eq!(outcome, TRANSLATED, "{sent}");
                let established = CtState::TRK.with(CtState::EST).with(CtState::RPL).with(CtState::DNAT);
                assert_eq!(meta.state, established, "{sent}");
            }
            assert_eq!(shards.shards.iter().map(Shard::len).sum::<u32>(), 2000);
        }
    }
}

#[test]
fn candidates_come_in_the_order_of_one_shard_alone_until_none_is_left() {
    let word = KeyWord::from_random(0xbeef);
    let range = NatRange {
        addresses: Some(AddressRange::V4([192, 0, 2, 1].into(), [192, 0, 2, 3].into())),
        ports: Some((8000, 8003)),
        selection: PortSelection::Default,
        persistent: false,
    };
    let gre = Tuple4::new([10, 0, 0, 1], REMOTE, 0, 0, 47, 0).into();
    let tcp = Tuple4::new([10, 0, 0, 1], REMOTE, 40_000, 80, 6, 0).into();
    for (nat, tuple, count) in [
        (NatAction::Source(range), tcp, 12),
        (NatAction::Source(range), gre, 3),
        // Source ports of the class of 40 000 come behind: the neighbours first, which need no memory.
        (NatAction::Destination(range), tcp, 24),
        (NatAction::Destination(range), gre, 3),
    ] {
        let order = |shards: usize| {
            let steering = if shards == 1 { Steering::alone() } else { Steering::symmetric(shards, word) };
            let mut shard = Shards::new(steering, CtAction::default()).shards.remove(0);
            let moment = shard.clock.advance(1_000_000);
            let mut refused = Vec::new();
            while let Ok(reply) = shard.candidate(moment, &nat, &tuple, 77 << 40, &refused) {
                refused.push(reply);
                if refused.len() == count {
                    break;
                }
            }
            let homes: HashSet<ShardNumber> =
                refused.iter().map(|reply| shard.steering.home(reply)).collect();
            assert!(shards == 1 || homes.len() > 1, "{nat:?}");
            if count != 24 {
                assert!(shard.candidate(moment, &nat, &tuple, 77 << 40, &refused).is_err());
            }
            refused
        };
        let alone = order(1);
        assert_eq!(alone.len(), count);
        assert_eq!(order(8), alone, "{nat:?}");
    }
}

#[test]
fn a_home_draws_for_another_shard_what_it_would_draw_for_itself() {
    let nat = pool([192, 0, 2, 1], [192, 0, 2, 1], (1024, u16::MAX)).nat.unwrap();
    let mut shards = Shards::new(Steering::symmetric(5, KeyWord::WELL_KNOWN), CtAction::default());
    let tuple = Tuple4::new([10, 0, 0, 1], REMOTE, 40_000, 80, 6, 0).into();
    let mut drawn = HashSet::new();
    for shard in &mut shards.shards {
        let moment = shard.clock.advance(1_000_000);
        assert!(shard.draws_at_home(&nat, &tuple));
        let reply = shard.choose_at_home(moment, &nat, &tuple, 99 << 40).unwrap();
        assert_eq!(shard.steering.home(&reply), shard.number);
        assert_eq!(shard.choose_at_home(moment, &nat, &tuple, 99 << 40), Ok(reply), "nothing was kept");
        drawn.insert(reply);
    }
    assert_eq!(drawn.len(), 5);
}

/// In a zone of subscribers even what has no ports is translated to an address of the shard's own.
#[test]
fn a_shard_gives_its_subscribers_its_own_addresses_first() {
    let nat = pool([192, 0, 2, 0], [192, 0, 2, 63], (5000, 5003)).nat.unwrap();
    let mut shards = Shards::new(subscribers_of(4, "192.0.2.0/26"), CtAction::default());
    for shard in &mut shards.shards {
        let moment = shard.clock.advance(1_000_000);
        for protocol in [6, 47] {
            let port = if protocol == 6 { 40_000 } else { 0 };
            let tuple: Tuple = Tuple4::new([10, 0, 0, 1], REMOTE, port, port, protocol, 5).into();
            assert!(shard.draws_at_home(&nat, &tuple) && !shard.draws_at_home(&nat, &tuple.in_zone(6)));
            let reply = shard.choose_at_home(moment, &nat, &tuple, 99 << 40).unwrap();
            assert_eq!(shard.steering.home(&reply), shard.number);
        }
    }
}

/// A burst of first datagrams of clients, each foreseen before the first of them is executed.
fn open_together(lab: &mut Lab, clients: impl Iterator<Item = u32>) -> Vec<(Outcome, Vec<u8>)> {
    let mut burst: Vec<_> = clients
        .map(|number| {
            let [_, a, b, c] = number.to_be_bytes();
            let frame = PacketBuilder::new().ipv4([10, a, b, c], REMOTE).udp(40_000, 53).build();
            let (layers, meta) = (Layers::parse(&frame), CtMeta::default());
            let mut lookup = lab.shard.prepare(&frame, &layers, 0, &meta, true);
            lab.shard.prefetch(&mut lookup);
            lab.shard.foresee(&mut lookup, &lab.action);
            (frame, layers, meta, lookup)
        })
        .collect();
    burst
        .iter_mut()
        .map(|(frame, layers, meta, lookup)| {
            let outcome = lab.shard.execute(lab.now, frame, layers, lookup, &lab.action, meta);
            (outcome, frame.clone())
        })
        .collect()
}

#[test]
fn packets_for_which_the_same_reply_tuple_was_foreseen_get_different_ones() {
    // 40 ports for 32 clients of one remote: many first choices are the same.
    let action = pool([192, 0, 2, 1], [192, 0, 2, 1], (5000, 5039));
    let mut lab = Lab::new(1000, action);
    let sent = open_together(&mut lab, 0..32);
    let ports: HashSet<[u8; 2]> = sent
        .iter()
        .map(|(outcome, frame)| {
            assert_eq!(*outcome, TRANSLATED);
            [frame[34], frame[35]]
        })
        .collect();
    assert_eq!(ports.len(), 32);
    let rest = open_together(&mut lab, 32..48);
    let refused = rest.iter().filter(|(outcome, _)| *outcome == EXHAUSTED).count();
    assert_eq!((refused, lab.shard.len()), (8, 40));
}

#[test]
fn what_was_foreseen_too_long_ago_is_searched_for() {
    let mut lab = Lab::new(1000, pool([192, 0, 2, 1], [192, 0, 2, 9], (5000, 50_000)));
    // More than are kept wait to be executed.
    let sent = open_together(&mut lab, 0..200);
    assert!(sent.iter().all(|(outcome, _)| *outcome == TRANSLATED));
    let replies: HashSet<Vec<u8>> = sent.into_iter().map(|(_, frame)| frame[26..36].to_vec()).collect();
    assert_eq!((replies.len(), lab.shard.len()), (200, 200));
}

#[test]
fn what_is_foreseen_is_what_would_be_chosen() {
    let action = pool([192, 0, 2, 1], [192, 0, 2, 200], (5000, 50_000));
    let (mut with, mut without) = (Lab::new(1000, action.clone()), Lab::new(1000, action));
    let together = open_together(&mut with, 0..64);
    for (number, (_, frame)) in together.into_iter().enumerate() {
        let [_, a, b, c] = u32::try_from(number).unwrap().to_be_bytes();
        let mut alone = PacketBuilder::new().ipv4([10, a, b, c], REMOTE).udp(40_000, 53).build();
        let (layers, mut meta) = (Layers::parse(&alone), CtMeta::default());
        let lookup = without.shard.prepare(&alone, &layers, 0, &meta, true);
        without.shard.execute(without.now, &mut alone, &layers, &lookup, &without.action, &mut meta);
        assert_eq!(alone, frame);
    }
}

#[test]
fn what_one_of_several_shards_foresees_is_what_it_would_choose() {
    let word = KeyWord::from_random(0xbeef);
    for (steering, zone) in [
        (Steering::symmetric(3, word), 0),
        (Steering::symmetric(32, word), 0),
        // Addresses of their own, and too few of them for that.
        (subscribers_of(4, "192.0.2.0/26"), 5),
        (subscribers_of(40, "192.0.2.0/29"), 5),
    ] {
        for ports in [(1024, u16::MAX), (10_000, 20_000), (5000, 5099), (5000, 5000)] {
            let action = pool([192, 0, 2, 0], [192, 0, 2, 7], ports);
            let nat = action.nat.unwrap();
            let mut shards = Shards::new(steering.clone(), action.clone());
            let (mut asked, mut foreseen) = (0, 0);
            for shard in &mut shards.shards {
                let moment = shard.clock.advance(1_000_000);
                for port in 2000..2020 {
                    let tuple: Tuple = Tuple4::new([10, 0, 0, 1], REMOTE, port, 80, 6, zone).into();
                    let hash = shard.table.hash(&tuple);
                    let chosen = match shard.draws_at_home(&nat, &tuple) {
                        true => shard.choose_at_home(moment, &nat, &tuple, hash),
                        false => shard.candidate(moment, &nat, &tuple, hash, &[]),
                    };
                    let number = shard.draft(&tuple, hash, &action);
                    asked += 1;
                    if let Some(Draft { reply, hash }) = shard.drafted(number) {
                        assert_eq!((Ok(reply), hash), (chosen, shard.table.hash(&reply)));
                        assert_eq!(shard.steering.home(&reply), shard.number);
                        foreseen += 1;
                        // Given away since, it is another one's.
                        let other = ShardNumber::new((shard.number.index() + 1) % 3).unwrap();
                        shard.redirects.insert(reply, other).unwrap();
                        assert!(shard.drafted(number).is_none());
                        shard.redirects.remove(&reply);
                    }
                }
            }
            let most = if ports.1 == u16::MAX { asked * 9 / 10 } else { asked / 100 };
            assert!(foreseen > most, "{foreseen} of {asked} for {ports:?} among {}", steering.shards());
        }
    }
}
