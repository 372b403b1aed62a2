//! Pools that fill up, run out and are released, through a whole shard.

use weir_nat::{AddressRange, NatRange, PortSelection};
use weir_wire::Layers;
use weir_wire::build::PacketBuilder;

use super::*;
use crate::{CtAction, CtMeta, DropReason, DumpCursor, Outcome, ShardConfig};

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
