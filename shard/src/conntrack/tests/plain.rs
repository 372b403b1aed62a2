//! Packets that may be plain come out as all packets do, and leave the same behind.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::leases::Leases;
use crate::steering::{KeyWord, ShardNumber, Steering};
use crate::{Errand, Met, PlainLookup};

/// Any number but 0: these tests only ask whether a connection has been seen established.
const HINT: u16 = 9;

/// What becomes of a packet, and whether that was found out the short way.
#[derive(Debug)]
struct Passed {
    outcome: Outcome,
    meta: CtMeta,
    bytes: Vec<u8>,
    was_plain: bool,
    /// What takes it to another shard.
    errand: Option<Errand>,
}

impl Lab {
    fn passed(&mut self, outcome: Outcome, meta: CtMeta, bytes: Vec<u8>, was_plain: bool) -> Passed {
        let is_elsewhere = matches!(outcome, Outcome::Elsewhere { .. });
        let errand = is_elsewhere.then(|| self.shard.take_errand());
        Passed { outcome, meta, bytes, was_plain, errand }
    }

    fn execute(&mut self, packet: &Frame, lookup: &Lookup, action: &CtAction) -> Passed {
        let (mut bytes, mut meta) = (packet.bytes.clone(), CtMeta::default());
        let outcome = self.shard.execute(self.now, &mut bytes, &packet.layers, lookup, action, &mut meta);
        if let Some(connection) = meta.connection.filter(|_| meta.state.has(CtState::EST)) {
            self.shard.remember(lookup, connection, HINT);
        }
        self.passed(outcome, meta, bytes, false)
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
        let is_known = lookup.hint() != 0 && !lookup.has_no_connection();
        if is_known && self.shard.takes_plain(action) {
            let (mut bytes, mut meta) = (packet.bytes.clone(), CtMeta::default());
            let run = self.shard.begin_plain(self.now, action);
            match self.shard.execute_plain(&run, &mut bytes, lookup, &mut meta) {
                Met::Nothing => assert_eq!((&bytes, meta), (&packet.bytes, CtMeta::default())),
                Met::Done(outcome) => return self.passed(outcome, meta, bytes, true),
                Met::Established(state) => {
                    let (meta, outcome) = self.shard.show_plain(&run, lookup, state);
                    return self.passed(outcome, meta, bytes, true);
                }
            }
        }
        match lookup.to_lookup() {
            Some(lookup) => self.execute(packet, &lookup, action),
            None => self.whole(packet, action),
        }
    }

    /// Packets that come together, by two actions one after the other on the way that does everything: each packet is
    /// through before the next one.
    fn whole_twice(&mut self, packets: &[Frame], actions: [&CtAction; 2]) -> Vec<Passed> {
        let pass = |packet: &Frame| {
            let (mut packet, mut meta) = (packet.clone(), CtMeta::default());
            let mut outcome = Outcome::Continue { rewritten: false };
            for action in actions {
                outcome = self.again(&mut packet, action, &mut meta);
                if matches!(outcome, Outcome::Elsewhere { .. }) {
                    break;
                }
            }
            self.passed(outcome, meta, packet.bytes, false)
        };
        packets.iter().map(pass).collect()
    }

    /// The same, the short way for those that are for that.
    fn open(&mut self, packets: &[Frame], actions: [&CtAction; 2]) -> Vec<Passed> {
        let [first, second] = actions;
        let mut lookups = vec![PlainLookup::default(); packets.len()];
        for (lookup, packet) in lookups.iter_mut().zip(packets) {
            lookup.read(&packet.bytes, first.zone, false);
        }
        self.shard.prepare_plain(&mut lookups);
        self.shard.prefetch_plain(&mut lookups);
        let opens = self.shard.opens_plain();
        for lookup in lookups.iter_mut().filter(|lookup| opens && lookup.has_no_connection()) {
            self.shard.foresee_plain(lookup, second);
        }
        let pass = |(packet, lookup): (&Frame, &PlainLookup)| {
            if opens && lookup.has_no_connection() {
                let (mut bytes, mut meta) = (packet.bytes.clone(), CtMeta::default());
                let run = self.shard.begin_plain(self.now, second);
                if let Some(outcome) = self.shard.open_plain(&run, &mut bytes, lookup, &mut meta) {
                    return self.passed(outcome, meta, bytes, true);
                }
                assert_eq!((&bytes, meta), (&packet.bytes, CtMeta::default()));
            }
            self.whole_twice(core::slice::from_ref(packet), actions).remove(0)
        };
        packets.iter().zip(&lookups).map(pass).collect()
    }
}

/// Two shards, one of which has the short way.
struct Both([Lab; 2]);

impl Both {
    fn new() -> Self {
        Self::with(&config(100))
    }

    fn with(config: &ShardConfig) -> Self {
        Self([Lab::with(config.clone()), Lab::with(config.clone())])
    }

    /// Each the first of so many shards.
    fn among(shards: usize) -> Self {
        let steering = Arc::new(Steering::symmetric(shards, KeyWord::WELL_KNOWN));
        Self([(); 2].map(|()| {
            let (steering, leases) = (Arc::clone(&steering), Arc::new(Leases::new(shards)));
            Lab::with(ShardConfig { steering, leases, directory: Arc::default(), ..config(100) })
        }))
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

    /// Packets that come together to one action, and then, at once, to another one.
    #[track_caller]
    fn open(&mut self, packets: &[Frame], actions: [&CtAction; 2]) -> Vec<Passed> {
        let [short, whole] = &mut self.0;
        let (opened, others) = (short.open(packets, actions), whole.whole_twice(packets, actions));
        for (opened, other) in opened.iter().zip(&others) {
            assert_eq!(
                (opened.outcome, &opened.bytes, opened.meta, &opened.errand),
                (other.outcome, &other.bytes, other.meta, &other.errand)
            );
        }
        assert_eq!(short.shard.counters(), whole.shard.counters());
        assert_eq!(short.dump(), whole.dump());
        opened
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

#[test]
fn a_packet_that_starts_a_connection_is_plain() {
    let mut both = Both::new();
    let (udp, syn) = (Frame::udp(&flow(4000)), Frame::tcp(&stream(4000), "S", 100, 0));
    let nat = source_nat(PUBLIC, Some((6000, 6001)));
    for sent in both.open(&[udp.clone(), syn], [&apply(), &nat]) {
        assert!(sent.was_plain);
        assert_eq!(name(sent.meta.state), "new trk snat");
        assert_eq!(sent.outcome, Outcome::Continue { rewritten: true });
        assert_eq!(sent.meta.original.map(|tuple| tuple.src()), Some(INSIDE.parse().unwrap()));
    }
    let counters = both.0[0].shard.counters();
    assert_eq!((counters.new, counters.created, counters.established), (2, 2, 0));
    // What has a connection is none that starts one, answered or not.
    assert!(!both.open(core::slice::from_ref(&udp), [&apply(), &nat])[0].was_plain);
    // Without translation, with a mark and a label, and with events.
    both.each(|lab| lab.shard.listen(Vec::with_capacity(4)));
    let marking = CtAction { mark: Some((7, 15)), label: Some((9, u128::MAX)), zone: 3, ..commit() };
    let looking = CtAction { zone: 3, ..look() };
    let sent = both.open(&[udp], [&looking, &marking]).remove(0);
    assert!(sent.was_plain);
    assert_eq!((sent.meta.mark, sent.meta.label, sent.meta.zone), (7, 9, 3));
    assert_eq!(name(sent.meta.state), "new trk");
    for lab in &mut both.0 {
        assert_eq!(lab.shard.stop_listening().events.len(), 1);
    }
}

#[test]
fn only_the_first_packet_of_those_that_come_together_starts_their_connection() {
    let mut both = Both::new();
    let nat = source_nat(PUBLIC, Some((6000, 6000)));
    let query = Frame::udp(&flow(4000));
    let answer = Frame::udp(&tuple(17, OUTSIDE, 53, PUBLIC, 6000));
    let sent = both.open(&[query.clone(), query.clone(), answer, query], [&apply(), &nat]);
    assert_eq!(sent.iter().map(|sent| sent.was_plain).collect::<Vec<_>>(), [true, false, false, false]);
    assert_eq!(name(sent[2].meta.state), "est rpl trk dnat");
    assert_eq!(name(sent[3].meta.state), "est trk snat");
    assert_eq!(both.0[0].shard.len(), 1);
}

#[test]
fn a_packet_that_may_start_nothing_is_judged_as_ever() {
    let mut both = Both::new();
    let nat = source_nat(PUBLIC, None);
    let answer = Frame::tcp(&stream(4000), "SA", 100, 5);
    let sent = both.open(&[answer], [&apply(), &nat]).remove(0);
    assert!(!sent.was_plain);
    assert_eq!(
        (name(sent.meta.state).as_str(), sent.outcome),
        ("inv trk", Outcome::Drop(DropReason::NatInvalid))
    );
    assert_eq!(both.0[0].shard.counters().tcp_bad_start, 1);
}

#[test]
fn a_connection_that_may_not_be_is_refused_on_the_short_way_too() {
    let one = source_nat(PUBLIC, Some((6000, 6000)));
    let queries: Vec<Frame> = (1..4).map(|port| Frame::udp(&flow(port))).collect();
    // Ports run out.
    let mut both = Both::new();
    let sent = both.open(&queries, [&apply(), &one]);
    let exhausted = Outcome::Drop(DropReason::NatExhausted);
    assert_eq!(sent.iter().map(|sent| sent.outcome).collect::<Vec<_>>()[1..], [exhausted; 2]);
    assert!(sent.iter().all(|sent| sent.was_plain));
    // A limit of the zone, with and without translation.
    let many = source_nat(PUBLIC, None);
    for (action, refused) in
        [(many, Outcome::Drop(DropReason::NatRefused)), (commit(), Outcome::Continue { rewritten: false })]
    {
        let mut both = Both::new();
        both.each(|lab| lab.shard.set_zone_limit(0, Some(1)));
        let sent = both.open(&queries, [&look(), &action]);
        assert_eq!((sent[1].outcome, sent[1].was_plain), (refused, true));
        assert_eq!(both.0[0].shard.len(), 1);
        // It has expired, and makes way.
        both.each(|lab| lab.now += 86_400_000);
        let sent = both.open(&queries[1..], [&look(), &action]);
        assert_eq!(name(sent[0].meta.state).split(' ').next(), Some("new"));
        assert_eq!(both.0[0].shard.len(), 1);
    }
}

#[test]
fn forced_random_and_persistent_openings_are_what_they_are_the_long_way() {
    let range =
        |selection, persistent| NatRange { selection, persistent, ..range(PUBLIC, Some((6000, 6900))) };
    for (selection, persistent) in
        [(PortSelection::Hash, false), (PortSelection::Random, false), (PortSelection::Default, true)]
    {
        let nat = Some(NatAction::Source(range(selection, persistent)));
        let action = CtAction { commit: true, force: true, nat, ..CtAction::default() };
        let mut both = Both::new();
        // One at a time: chance is drawn in the same order then.
        for port in 1..20 {
            let sent = both.open(&[Frame::udp(&flow(port))], [&apply(), &action]).remove(0);
            assert!(sent.was_plain);
            assert_eq!(name(sent.meta.state), "new trk snat");
        }
        assert_eq!(both.0[0].shard.len(), 19);
    }
}

#[test]
fn without_accounting_openings_and_those_behind_them_are_plain_all_the_same() {
    let mut both = Both::with(&ShardConfig { accounting: false, ..config(10) });
    let query = Frame::udp(&flow(4000));
    let nat = source_nat(PUBLIC, Some((6000, 6000)));
    assert!(both.open(core::slice::from_ref(&query), [&apply(), &nat])[0].was_plain);
    for _ in 0..2 {
        both.send(&Frame::udp(&tuple(17, OUTSIDE, 53, PUBLIC, 6000)), &apply());
        both.send(&query, &apply());
    }
    assert!(both.send(&query, &apply()).was_plain);
    assert_eq!(both.0[0].views()[0].traffic, None);
}

#[test]
fn one_of_several_shards_opens_the_short_way_what_is_its_own() {
    let mut both = Both::among(3);
    let ports = source_nat(PUBLIC, Some((6000, 9000)));
    let one = source_nat(PUBLIC, Some((6000, 6000)));
    let destination = destination_nat(PUBLIC, None);
    let mut went_on = Vec::new();
    for (zone, action) in (0..).zip([ports, one, destination, commit()]) {
        let (looking, action) = (CtAction { zone, ..apply() }, CtAction { zone, ..action });
        let (mut own, mut settled) = (0, 0);
        for port in 1..60 {
            let is_own = both.0[0].shard.steering().home(&flow(port)) == both.0[0].shard.number();
            let sent = both.open(&[Frame::udp(&flow(port))], [&looking, &action]).remove(0);
            assert_eq!(sent.was_plain, is_own, "port {port}");
            own += u32::from(is_own);
            settled += u32::from(is_own && matches!(sent.outcome, Outcome::Continue { .. }));
        }
        assert!((10..30).contains(&own), "{own}");
        went_on.push((settled, own));
    }
    let [(drawn, all), (alone, _), (somewhere, _), (untranslated, _)] = went_on[..] else { panic!() };
    // Of a range a port that leads here is drawn; of a destination nobody may choose whose its answers are.
    assert_eq!((drawn, untranslated), (all, all));
    assert!(alone <= 1 && (1..all).contains(&somewhere), "{went_on:?}");
}

#[test]
fn nothing_opens_the_short_way_while_another_shard_expects_a_connection() {
    let steering = Arc::new(Steering::symmetric(2, KeyWord::WELL_KNOWN));
    let directory = Arc::default();
    let mut labs = [0, 1].map(|number| {
        let number = ShardNumber::new(number).unwrap();
        let (steering, directory) = (Arc::clone(&steering), Arc::clone(&directory));
        Lab::with(ShardConfig { number, steering, directory, ..config(100) })
    });
    assert!(labs.iter().all(|lab| lab.shard.opens_plain()));
    let is_own = |tuple: &Tuple| steering.home(tuple).index() == 0;
    let request = (1..).map(|port| tuple(17, INSIDE, port, OUTSIDE, 69)).find(is_own).unwrap();
    let frame = Frame::udp_with(&request, b"\x00\x01file\x00octet\x00");
    let helping = CtAction { helper: Some(Helper::Tftp), ..commit() };
    labs[0].send(&frame, &helping);
    assert!(labs.iter().all(|lab| !lab.shard.opens_plain()));
    labs[0].now += 86_400_000;
    labs[0].sweep();
    assert!(labs.iter().all(|lab| lab.shard.opens_plain()), "its time is over");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_short_way_is_the_long_one(
        steps in
            prop::collection::vec((0u8..8, 1u16..4, 0u8..3, 0u32..4, 0u32..3, 0u64..20_000), 1..80),
    ) {
        let mut both = Both::new();
        for (kind, port, way, seq, ack, pause) in steps {
            let (is_back, looks_first) = (way == 0, way == 1);
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
            if looks_first {
                both.open(&[packet], [&apply(), &action]);
            } else {
                both.send(&packet, &action);
            }
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

    #[test]
    fn bursts_of_openings_are_what_they_are_one_by_one(
        shards in 1usize..4,
        bursts in prop::collection::vec(
            prop::collection::vec((any::<bool>(), 1u16..6, 0u8..4), 1..24), 1..12),
    ) {
        let mut both = Both::among(shards);
        // Fewer ports than clients.
        let nat = source_nat(PUBLIC, Some((6000, 6003)));
        for burst in bursts {
            both.each(|lab| lab.now += 9_000);
            let packet = |(is_tcp, port, kind): (bool, u16, u8)| {
                let protocol = if is_tcp { 6 } else { 17 };
                let tuple = match kind {
                    0 => tuple(protocol, OUTSIDE, 80, PUBLIC, 6000 + port % 4),
                    _ => tuple(protocol, INSIDE, port, OUTSIDE, 80),
                };
                match (is_tcp, kind) {
                    (false, _) => Frame::udp(&tuple),
                    (true, 0) => Frame::tcp(&tuple, "SA", 500, 101),
                    (true, 1) => Frame::tcp(&tuple, "A", 101, 501),
                    (true, _) => Frame::tcp(&tuple, "S", 100, 0),
                }
            };
            let packets: Vec<Frame> = burst.into_iter().map(packet).collect();
            both.open(&packets, [&apply(), &nat]);
        }
    }
}
