//! Packets that may be plain come out as all packets do, and leave the same behind.

use proptest::prelude::*;

use super::*;
use crate::{Met, PlainLookup};

/// Any number but 0: these tests only ask whether a connection has been seen established.
const HINT: u16 = 9;

/// What becomes of a packet, and whether that was found out the short way.
#[derive(Debug)]
struct Passed {
    outcome: Outcome,
    meta: CtMeta,
    bytes: Vec<u8>,
    was_plain: bool,
}

impl Lab {
    fn execute(&mut self, packet: &Frame, lookup: &Lookup, action: &CtAction) -> Passed {
        let (mut bytes, mut meta) = (packet.bytes.clone(), CtMeta::default());
        let outcome = self.shard.execute(self.now, &mut bytes, &packet.layers, lookup, action, &mut meta);
        if let Some(connection) = meta.connection.filter(|_| meta.state.has(CtState::EST)) {
            self.shard.remember(lookup, connection, HINT);
        }
        Passed { outcome, meta, bytes, was_plain: false }
    }

    /// A packet on the way that does everything.
    fn whole(&mut self, packet: &Frame, action: &CtAction) -> Passed {
        let none = CtMeta::default();
        let mut lookup = self.shard.prepare(&packet.bytes, &packet.layers, action.zone, &none, false);
        self.shard.prefetch(&mut lookup);
        self.execute(packet, &lookup, action)
    }

    /// A packet on the short way, if it is one for that.
    fn plain(&mut self, packet: &Frame, action: &CtAction) -> Passed {
        let mut lookups = [PlainLookup::default()];
        lookups[0].read(&packet.bytes, action.zone, false);
        self.shard.prepare_plain(&mut lookups);
        self.shard.prefetch_plain(&mut lookups);
        let [lookup] = &lookups;
        assert!(!lookup.is_plain() || lookup.layers() == packet.layers);
        if lookup.hint() != 0 && self.shard.takes_plain(action) {
            let (mut bytes, mut meta) = (packet.bytes.clone(), CtMeta::default());
            let run = self.shard.begin_plain(self.now, action);
            match self.shard.execute_plain(&run, &mut bytes, lookup, &mut meta) {
                Met::Nothing => assert_eq!((&bytes, meta), (&packet.bytes, CtMeta::default())),
                Met::Done(outcome) => return Passed { outcome, meta, bytes, was_plain: true },
                Met::Established(state) => {
                    let (meta, outcome) = self.shard.show_plain(&run, lookup, state);
                    return Passed { outcome, meta, bytes, was_plain: true };
                }
            }
        }
        match lookup.to_lookup() {
            Some(lookup) => self.execute(packet, &lookup, action),
            None => self.whole(packet, action),
        }
    }
}

/// Two shards, one of which has the short way.
struct Both([Lab; 2]);

impl Both {
    fn new() -> Self {
        Self([Lab::new(), Lab::new()])
    }

    fn each(&mut self, change: impl Fn(&mut Lab)) {
        self.0.iter_mut().for_each(change);
    }

    #[track_caller]
    fn send(&mut self, packet: &Frame, action: &CtAction) -> Passed {
        let [short, whole] = &mut self.0;
        let (plain, other) = (short.plain(packet, action), whole.whole(packet, action));
        assert_eq!((plain.outcome, &plain.bytes, plain.meta), (other.outcome, &other.bytes, other.meta));
        assert_eq!(short.shard.counters(), whole.shard.counters());
        assert_eq!(short.dump(), whole.dump());
        plain
    }

    /// A UDP connection that was translated, and the packets of both its directions.
    fn establish(&mut self) -> [Frame; 2] {
        let forth = Frame::udp(&flow(4000));
        let sent = self.send(&forth, &source_nat(PUBLIC, Some((6000, 6000))));
        assert!(!sent.was_plain);
        let back = Frame::udp(&tuple(17, OUTSIDE, 53, PUBLIC, 6000));
        for _ in 0..2 {
            self.send(&back, &apply());
            self.send(&forth, &apply());
        }
        [forth, back]
    }
}

#[test]
fn packets_of_an_established_translated_connection_are_plain_both_ways() {
    let mut both = Both::new();
    let [forth, back] = both.establish();
    let sent = both.send(&forth, &apply());
    assert!(sent.was_plain);
    assert_eq!(
        (name(sent.meta.state).as_str(), sent.outcome),
        ("est trk snat", Outcome::Continue { rewritten: true })
    );
    let sent = both.send(&back, &apply());
    assert!(sent.was_plain);
    assert_eq!(name(sent.meta.state), "est rpl trk dnat");
    assert_eq!(Layers::parse(&sent.bytes), back.layers);
    // Without nat, and with a commit that sets nothing.
    for action in [look(), commit()] {
        let sent = both.send(&forth, &action);
        assert!(sent.was_plain);
        assert_eq!(sent.outcome, Outcome::Continue { rewritten: false });
        assert_eq!(sent.bytes, forth.bytes);
    }
}

#[test]
fn an_action_that_leaves_traces_has_no_plain_packets() {
    let mut both = Both::new();
    let [forth, _] = both.establish();
    let marking = CtAction { mark: Some((7, u32::MAX)), ..commit() };
    let forcing = CtAction { force: true, ..commit() };
    let labelling = CtAction { label: Some((7, u128::MAX)), ..commit() };
    for action in [marking, forcing, labelling] {
        assert!(!both.send(&forth, &action).was_plain);
    }
    // What they have left is shown.
    let sent = both.send(&forth, &apply());
    assert!(sent.was_plain);
    assert_eq!((sent.meta.mark, sent.meta.label), (7, 7));
}

#[test]
fn a_connection_that_has_expired_or_gone_is_not_met() {
    let mut both = Both::new();
    let [forth, _] = both.establish();
    both.each(|lab| lab.now += 86_400_000);
    let sent = both.send(&forth, &apply());
    assert!(!sent.was_plain);
    assert_eq!(name(sent.meta.state), "new trk");
    let [forth, _] = both.establish();
    both.each(|lab| {
        let now = lab.now;
        assert_eq!(lab.shard.flush(now, &mut DumpCursor::default(), usize::MAX, &mut |_| true), 1);
    });
    assert!(!both.send(&forth, &apply()).was_plain);
}

#[test]
fn who_listens_to_events_hears_of_plain_packets_too() {
    let mut both = Both::new();
    let [forth, _] = both.establish();
    both.each(|lab| lab.shard.listen(Vec::new()));
    assert!(!both.send(&forth, &apply()).was_plain);
    both.each(|lab| drop(lab.shard.stop_listening()));
    assert!(both.send(&forth, &apply()).was_plain);
}

#[test]
fn a_segment_outside_the_window_is_invalid_and_translated_all_the_same() {
    let mut both = Both::new();
    let (there, back) = (stream(4000), tuple(6, OUTSIDE, 80, PUBLIC, 6000));
    both.send(&Frame::tcp(&there, "S", 100, 0), &source_nat(PUBLIC, Some((6000, 6000))));
    both.send(&Frame::tcp(&back, "SA", 500, 101), &apply());
    for _ in 0..2 {
        both.send(&Frame::tcp(&there, "A", 101, 501), &apply());
    }
    assert!(both.send(&Frame::tcp(&there, "A", 101, 501), &apply()).was_plain);
    let sent = both.send(&Frame::tcp(&there, "A", 101, 0x7000_0000), &apply());
    assert!(sent.was_plain);
    assert_eq!(name(sent.meta.state), "inv trk snat");
    let mut damaged = Frame::tcp(&there, "A", 101, 501);
    damaged.bytes[40] ^= 1;
    assert!(!both.send(&damaged, &apply()).was_plain);
    // Both sides say goodbye, and a SYN begins anew.
    both.send(&Frame::tcp(&there, "FA", 101, 501), &apply());
    both.send(&Frame::tcp(&back, "FA", 501, 102), &apply());
    both.send(&Frame::tcp(&there, "A", 102, 502), &apply());
    let sent = both.send(&Frame::tcp(&there, "S", 9000, 0), &apply());
    assert_eq!(name(sent.meta.state), "new trk");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_short_way_is_the_long_one(
        steps in prop::collection::vec((0u8..8, 1u16..4, any::<bool>(), 0u32..4, 0u32..3, 0u64..20_000), 1..80),
    ) {
        let mut both = Both::new();
        for (kind, port, is_back, seq, ack, pause) in steps {
            both.each(|lab| lab.now += pause);
            let (seq, ack) = (100 + seq, [0, 101, 500][ack as usize]);
            let protocol = if kind < 3 { 17 } else { 6 };
            let tuple = match is_back {
                false => tuple(protocol, INSIDE, port, OUTSIDE, 80),
                true => tuple(protocol, OUTSIDE, 80, PUBLIC, 6000 + port),
            };
            let packet = match kind {
                0..3 => Frame::udp(&tuple),
                3 => Frame::tcp(&tuple, if is_back { "SA" } else { "S" }, seq, ack),
                4 | 5 => Frame::tcp(&tuple, "A", seq, ack),
                6 => Frame::tcp(&tuple, "FA", seq, ack),
                _ => Frame::tcp(&tuple, "R", seq, ack),
            };
            // Each inner port has an outer one of its own.
            let action = match (is_back, kind) {
                (false, _) => source_nat(PUBLIC, Some((6000 + port, 6000 + port))),
                (true, 1) => look(),
                _ => apply(),
            };
            both.send(&packet, &action);
        }
        // Each connection ends when its timer says.
        for _ in 0..20 {
            both.each(|lab| {
                lab.now += 20_000;
                lab.sweep();
            });
            let [short, whole] = &both.0;
            prop_assert_eq!((short.shard.len(), short.shard.counters()), (whole.shard.len(), whole.shard.counters()));
        }
    }
}
