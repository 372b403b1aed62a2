//! Whole packets through a whole shard.

mod accounting;
mod events;
mod invalid;
mod limits;
pub(crate) mod packets;
mod plain;
mod property;
mod shared_limits;
mod there_and_back;
mod zones;

use weir_nat::{AddressRange, NatRange, PortSelection};

use self::packets::{Frame, tuple};
use super::*;
use crate::action::Helper;
use crate::shard::{DumpCursor, ShardConfig};
use crate::view::ConnectionView;

const INSIDE: &str = "10.1.1.1";
const OUTSIDE: &str = "10.1.1.2";
const PUBLIC: &str = "192.0.2.1";

/// Some zones of the tests.
const ZONES: [u16; 4] = [0, 1, 7, 65_535];

/// A shard and its time.
struct Lab {
    shard: Shard,
    now: Millis,
}

fn config(capacity: u32) -> ShardConfig {
    ShardConfig { capacity, max_connections: u32::MAX, ..ShardConfig::default() }
}

impl Lab {
    fn new() -> Self {
        Self::with(config(100))
    }

    fn with(config: ShardConfig) -> Self {
        Self { shard: Shard::new(config, [1, 2, 3, 4]).unwrap(), now: 1_000_000 }
    }

    /// A ct action on a packet that may have met others.
    fn again(&mut self, frame: &mut Frame, action: &CtAction, meta: &mut CtMeta) -> Outcome {
        let mut lookup = self.shard.prepare(&frame.bytes, &frame.layers, action.zone, meta, false);
        self.shard.prefetch(&mut lookup);
        self.shard.foresee(&mut lookup, action);
        self.shard.execute(self.now, &mut frame.bytes, &frame.layers, &lookup, action, meta)
    }

    /// The first ct action on a packet that must go on: what it is afterwards.
    #[track_caller]
    fn send(&mut self, frame: &Frame, action: &CtAction) -> (Frame, CtMeta) {
        let (mut frame, mut meta) = (frame.clone(), CtMeta::default());
        let outcome = self.again(&mut frame, action, &mut meta);
        assert!(matches!(outcome, Outcome::Continue { .. }), "{outcome:?}");
        (frame, meta)
    }

    /// As [`Lab::send`], the state only.
    #[track_caller]
    fn state(&mut self, frame: &Frame, action: &CtAction) -> String {
        name(self.send(frame, action).1.state)
    }

    fn dump(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut cursor = DumpCursor::default();
        while !cursor.is_done() {
            self.shard.dump(self.now, &mut cursor, 3, &mut |view| lines.push(view.to_string()));
        }
        lines
    }

    fn views(&self) -> Vec<ConnectionView> {
        let mut views = Vec::new();
        let mut cursor = DumpCursor::default();
        self.shard.dump(self.now, &mut cursor, usize::MAX, &mut |view| views.push(view.clone()));
        views
    }

    fn sweep(&mut self) {
        while self.shard.sweep(self.now, 7) == 7 {}
    }
}

fn name(state: CtState) -> String {
    let names = ["new", "est", "rel", "rpl", "inv", "trk", "snat", "dnat"];
    let set = names.iter().enumerate().filter(|(bit, _)| state.0 & 1 << bit != 0);
    set.map(|(_, name)| *name).collect::<Vec<_>>().join(" ")
}

fn look() -> CtAction {
    CtAction::default()
}

fn commit() -> CtAction {
    CtAction { commit: true, ..CtAction::default() }
}

fn commit_in(zone: u16) -> CtAction {
    CtAction { zone, ..commit() }
}

fn apply() -> CtAction {
    CtAction { nat: Some(NatAction::Apply), ..CtAction::default() }
}

fn range(address: &str, ports: Option<(u16, u16)>) -> NatRange {
    let address = address.parse().unwrap();
    NatRange {
        addresses: Some(AddressRange::V4(address, address)),
        ports,
        selection: PortSelection::Default,
        persistent: false,
    }
}

fn source_nat(address: &str, ports: Option<(u16, u16)>) -> CtAction {
    CtAction { commit: true, nat: Some(NatAction::Source(range(address, ports))), ..CtAction::default() }
}

fn destination_nat(address: &str, ports: Option<(u16, u16)>) -> CtAction {
    CtAction { commit: true, nat: Some(NatAction::Destination(range(address, ports))), ..CtAction::default() }
}

fn flow(port: u16) -> Tuple {
    tuple(17, INSIDE, port, OUTSIDE, 53)
}

fn stream(port: u16) -> Tuple {
    tuple(6, INSIDE, port, OUTSIDE, 80)
}

#[test]
fn a_packet_is_new_until_its_connection_is_committed_and_answered() {
    let mut lab = Lab::new();
    let query = Frame::udp(&flow(1000));
    let answer = Frame::udp(&flow(1000).reversed());
    assert_eq!(lab.state(&query, &look()), "new trk");
    assert_eq!(lab.shard.len(), 0);
    assert_eq!(lab.state(&query, &commit()), "new trk");
    assert_eq!(lab.shard.len(), 1);
    assert_eq!(lab.state(&query, &look()), "new trk");
    assert_eq!(lab.state(&answer, &look()), "est rpl trk");
    assert_eq!(lab.state(&query, &look()), "est trk");
    assert_eq!(lab.shard.counters().created, 1);
}

#[test]
fn ipv6_and_protocols_without_ports_are_tracked_alike() {
    let mut lab = Lab::new();
    let v6 = tuple(17, "2001:db8::1", 1000, "2001:db8::2", 53);
    let gre = tuple(47, INSIDE, 0, OUTSIDE, 0);
    let ping6 = tuple(58, "2001:db8::1", 7, "2001:db8::2", 128 << 8);
    for (query, answer) in [
        (Frame::udp(&v6), Frame::udp(&v6.reversed())),
        (Frame::generic(&gre), Frame::generic(&gre.reversed())),
        (Frame::icmp(&ping6), Frame::icmp(&ping6.reversed())),
    ] {
        assert_eq!(lab.state(&query, &commit()), "new trk");
        assert_eq!(lab.state(&answer, &look()), "est rpl trk");
    }
    assert_eq!(
        lab.dump()[2],
        "icmpv6,orig=(src=2001:db8::1,dst=2001:db8::2,id=7,type=128,code=0),\
         reply=(src=2001:db8::2,dst=2001:db8::1,id=7,type=129,code=0)"
    );
}

#[test]
fn tcp_is_established_from_its_first_answer_on_and_invalid_outside_its_window() {
    let mut lab = Lab::new();
    let (there, back) = (stream(40_000), stream(40_000).reversed());
    assert_eq!(lab.state(&Frame::tcp(&back, "SA", 500, 101), &commit()), "inv trk");
    assert_eq!(lab.state(&Frame::tcp(&there, "S", 100, 0), &commit()), "new trk");
    assert_eq!(lab.state(&Frame::tcp(&there, "S", 100, 0), &commit()), "new trk");
    assert_eq!(lab.state(&Frame::tcp(&back, "SA", 500, 101), &look()), "est rpl trk");
    assert_eq!(lab.state(&Frame::tcp(&there, "A", 101, 501), &look()), "est trk");
    assert_eq!(lab.state(&Frame::tcp(&there, "R", 5_000_000, 0), &look()), "inv trk");
    lab.shard.set_liberal_tcp(true);
    assert_eq!(lab.state(&Frame::tcp(&there, "R", 5_000_000, 0), &look()), "est trk");
    assert_eq!(lab.shard.counters().tcp_out_of_window, 1);
    assert_eq!(lab.shard.counters().tcp_bad_start, 1);
}

#[test]
fn a_syn_on_a_closed_connection_is_new_and_replaces_it() {
    let mut lab = Lab::new();
    let (there, back) = (stream(40_000), stream(40_000).reversed());
    lab.send(&Frame::tcp(&there, "S", 100, 0), &commit());
    lab.send(&Frame::tcp(&back, "RA", 0, 101), &look());
    assert_eq!(lab.state(&Frame::tcp(&there, "S", 9_000_000, 0), &look()), "new trk");
    assert_eq!((lab.shard.len(), lab.shard.counters().replaced), (0, 1));
    assert_eq!(lab.state(&Frame::tcp(&there, "S", 9_000_000, 0), &commit()), "new trk");
    assert_eq!(lab.state(&Frame::tcp(&back, "SA", 700, 9_000_001), &look()), "est rpl trk");
}

#[test]
fn source_translation_goes_both_ways_and_keeps_checksums_right() {
    let mut lab = Lab::new();
    let (out, meta) = lab.send(&Frame::udp(&flow(1000)), &source_nat(PUBLIC, None));
    assert_eq!(out.tuple(), tuple(17, PUBLIC, 1000, OUTSIDE, 53));
    assert_eq!(name(meta.state), "new trk snat");
    assert_eq!(meta.original, Some(flow(1000)));
    let (back, meta) = lab.send(&Frame::udp(&out.tuple().reversed()), &apply());
    assert_eq!(back.tuple(), flow(1000).reversed());
    assert_eq!(name(meta.state), "est rpl trk dnat");
    let (again, meta) = lab.send(&Frame::udp(&flow(1000)), &apply());
    assert_eq!(again.tuple(), out.tuple());
    assert_eq!(name(meta.state), "est trk snat");
    assert_eq!(
        lab.dump(),
        ["udp,orig=(src=10.1.1.1,dst=10.1.1.2,sport=1000,dport=53),\
          reply=(src=10.1.1.2,dst=192.0.2.1,sport=53,dport=1000)"]
    );
}

#[test]
fn destination_translation_goes_both_ways() {
    let mut lab = Lab::new();
    let call = tuple(17, OUTSIDE, 2000, PUBLIC, 53);
    let (out, meta) = lab.send(&Frame::udp(&call), &destination_nat(INSIDE, Some((5353, 5353))));
    assert_eq!(out.tuple(), tuple(17, OUTSIDE, 2000, INSIDE, 5353));
    assert_eq!(name(meta.state), "new trk dnat");
    let (back, meta) = lab.send(&Frame::udp(&out.tuple().reversed()), &apply());
    assert_eq!(back.tuple(), call.reversed());
    assert_eq!(name(meta.state), "est rpl trk snat");
}

#[test]
fn a_packet_is_translated_once_however_often_it_comes_back() {
    let mut lab = Lab::new();
    let (mut frame, mut meta) = (Frame::udp(&flow(1000)), CtMeta::default());
    assert_eq!(lab.again(&mut frame, &apply(), &mut meta), UNTOUCHED);
    assert_eq!(
        lab.again(&mut frame, &source_nat(PUBLIC, None), &mut meta),
        Outcome::Continue { rewritten: true }
    );
    let out = frame.clone();
    for action in [apply(), source_nat("192.0.2.9", None), destination_nat(INSIDE, None), look()] {
        assert_eq!(lab.again(&mut frame, &action, &mut meta), UNTOUCHED);
    }
    assert_eq!(frame, out);
    assert_eq!(name(meta.state), "new trk snat");
    assert_eq!(lab.shard.len(), 1);
}

#[test]
fn a_second_nat_of_the_zone_is_ignored_and_another_zone_translates_once_more() {
    let mut lab = Lab::new();
    lab.send(&Frame::udp(&flow(1000)), &source_nat(PUBLIC, None));
    let (frame, _) = lab.send(&Frame::udp(&flow(1000)), &destination_nat("10.9.9.9", None));
    assert_eq!(frame.tuple(), tuple(17, PUBLIC, 1000, OUTSIDE, 53));

    let (mut frame, mut meta) = (Frame::udp(&flow(1000)), CtMeta::default());
    lab.again(&mut frame, &apply(), &mut meta);
    let second = CtAction { zone: 2, ..destination_nat("10.9.9.9", None) };
    lab.again(&mut frame, &second, &mut meta);
    assert_eq!(frame.tuple(), tuple(17, PUBLIC, 1000, "10.9.9.9", 53));
    assert_eq!((name(meta.state).as_str(), meta.zone), ("new trk dnat", 2));
}

#[test]
fn an_exhausted_range_drops_the_packet_and_never_shows_it_untranslated() {
    let mut lab = Lab::new();
    let one_port = source_nat(PUBLIC, Some((6000, 6000)));
    let (first, _) = lab.send(&Frame::udp(&flow(1000)), &one_port);
    assert_eq!(first.tuple(), tuple(17, PUBLIC, 6000, OUTSIDE, 53));
    for two_steps in [false, true] {
        let (mut frame, mut meta) = (Frame::udp(&flow(1001)), CtMeta::default());
        if two_steps {
            lab.again(&mut frame, &apply(), &mut meta);
        }
        let outcome = lab.again(&mut frame, &one_port, &mut meta);
        assert_eq!(outcome, Outcome::Drop(DropReason::NatExhausted));
    }
    assert_eq!(lab.shard.counters().nat_exhausted, 2);
    assert_eq!(lab.shard.len(), 1);
    // The port is free again as soon as its connection has expired, swept or not.
    lab.now += 61_000;
    let (frame, _) = lab.send(&Frame::udp(&flow(1001)), &one_port);
    assert_eq!(frame.tuple(), tuple(17, PUBLIC, 6000, OUTSIDE, 53));
}

#[test]
fn hosts_with_the_same_ping_identifier_get_one_each() {
    let mut lab = Lab::new();
    let mut ids = Vec::new();
    for host in ["10.1.1.1", "10.1.1.3", "10.1.1.4"] {
        let (out, _) =
            lab.send(&Frame::icmp(&tuple(1, host, 500, OUTSIDE, 8 << 8)), &source_nat(PUBLIC, None));
        let (back, _) = lab.send(&Frame::icmp(&out.tuple().reversed()), &apply());
        assert_eq!(back.tuple(), tuple(1, host, 500, OUTSIDE, 8 << 8).reversed());
        ids.push(out.tuple().src_port());
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 3);
}

#[test]
fn an_answer_starts_no_ping() {
    let mut lab = Lab::new();
    assert_eq!(lab.state(&Frame::icmp(&tuple(1, INSIDE, 1, OUTSIDE, 0)), &commit()), "inv trk");
    assert_eq!(lab.shard.counters().icmp_bad_start, 1);
}

#[test]
fn an_icmp_error_is_related_and_translated_outside_and_inside() {
    let mut lab = Lab::new();
    let (out, _) = lab.send(&Frame::udp(&flow(1000)), &source_nat(PUBLIC, None));
    // From outside, about a packet that left translated.
    let (error, meta) = lab.send(&out.unreachable_from("10.9.9.9"), &apply());
    assert_eq!(name(meta.state), "rel rpl trk dnat");
    assert_eq!(error.tuple(), flow(1000));
    assert_eq!(error.ends(), ("10.9.9.9".into(), INSIDE.into()));
    // From inside, about an answer that arrived translated.
    let (back, _) = lab.send(&Frame::udp(&out.tuple().reversed()), &apply());
    let (error, meta) = lab.send(&back.unreachable_from(INSIDE), &apply());
    assert_eq!(name(meta.state), "rel trk snat");
    assert_eq!(error.tuple(), out.tuple().reversed());
    assert_eq!(error.ends(), (PUBLIC.into(), OUTSIDE.into()));
    // Tracked first, translated when it comes back, and not twice.
    let (mut error, mut meta) = (out.unreachable_from("10.9.9.9"), CtMeta::default());
    assert_eq!(lab.again(&mut error, &look(), &mut meta), UNTOUCHED);
    assert_eq!(lab.again(&mut error, &apply(), &mut meta), Outcome::Continue { rewritten: true });
    assert_eq!(error.tuple(), flow(1000));
    assert_eq!(lab.again(&mut error, &apply(), &mut meta), UNTOUCHED);
}

/// Found by the model: the second ct of a zone, with `force`, met an ICMP error in the reply direction, ended the
/// connection for it and then called the error invalid, its connection being unknown. Anybody who can forge an error
/// could so cut connections.
#[test]
fn an_icmp_error_never_ends_the_connection_that_it_belongs_to() {
    let mut lab = Lab::new();
    lab.send(&Frame::udp(&flow(1000)), &commit());
    let force = CtAction { force: true, ..commit() };
    let mut error = Frame::udp(&flow(1000)).unreachable_from(OUTSIDE);
    let mut meta = CtMeta::default();
    for action in [look(), force.clone(), force] {
        lab.again(&mut error, &action, &mut meta);
        assert_eq!(name(meta.state), "rel rpl trk");
    }
    assert_eq!((lab.shard.len(), lab.shard.counters().replaced), (1, 0));
}

#[test]
fn an_icmp_error_about_nothing_known_is_invalid_and_creates_nothing() {
    let mut lab = Lab::new();
    let error = Frame::udp(&flow(1000)).unreachable_from(OUTSIDE);
    assert_eq!(lab.state(&error, &commit()), "inv trk");
    assert_eq!((lab.shard.len(), lab.shard.counters().icmp_unknown), (0, 1));
}

#[test]
fn a_segment_outside_its_window_is_invalid_and_still_translated() {
    let mut lab = Lab::new();
    lab.send(&Frame::tcp(&stream(4000), "S", 100, 0), &source_nat(PUBLIC, None));
    lab.send(&Frame::tcp(&tuple(6, OUTSIDE, 80, PUBLIC, 4000), "SA", 500, 101), &apply());
    let (frame, meta) = lab.send(&Frame::tcp(&stream(4000), "A", 0x7000_0000, 501), &apply());
    assert_eq!(name(meta.state), "est trk snat", "a bare acknowledgement may carry any number");
    assert_eq!(frame.tuple(), tuple(6, PUBLIC, 4000, OUTSIDE, 80));
    let (frame, meta) = lab.send(&Frame::tcp(&stream(4000), "R", 0x7000_0000, 0), &apply());
    assert_eq!(name(meta.state), "inv trk snat");
    assert_eq!(frame.tuple(), tuple(6, PUBLIC, 4000, OUTSIDE, 80));
}

#[test]
fn a_segment_with_impossible_flags_is_invalid_and_still_translated() {
    let mut lab = Lab::new();
    lab.send(&Frame::tcp(&stream(4000), "S", 100, 0), &source_nat(PUBLIC, None));
    for flags in ["SF", "F", "P", "SR", ""] {
        let (frame, meta) = lab.send(&Frame::tcp(&stream(4000), flags, 101, 0), &apply());
        assert_eq!(name(meta.state), "inv trk snat");
        assert_eq!(&frame.bytes[26..30], [192, 0, 2, 1]);
    }
    assert_eq!(lab.shard.counters().invalid.iter().sum::<u64>(), 5);
    assert_eq!(lab.state(&Frame::tcp(&stream(4001), "SF", 101, 0), &commit()), "inv trk");
    assert_eq!(lab.shard.len(), 1);
}

#[test]
fn over_the_limit_packets_go_on_as_new_unless_they_were_to_be_translated() {
    let mut lab = Lab::with(ShardConfig { max_connections: 1, ..config(100) });
    lab.send(&Frame::udp(&flow(1000)), &commit());
    let (_, meta) = lab.send(&Frame::udp(&flow(1001)), &CtAction { mark: Some((5, u32::MAX)), ..commit() });
    assert_eq!((name(meta.state).as_str(), meta.mark, meta.connection), ("new trk", 0, None));
    let mut frame = Frame::udp(&flow(1002));
    let outcome = lab.again(&mut frame, &source_nat(PUBLIC, None), &mut CtMeta::default());
    assert_eq!(outcome, Outcome::Drop(DropReason::NatRefused));
    assert_eq!(lab.shard.counters().refused_by_limit, 2);
    // What has expired makes room at once.
    lab.now += 61_000;
    lab.send(&Frame::udp(&flow(1003)), &commit());
    assert_eq!((lab.shard.counters().created, lab.shard.counters().expired), (2, 1));
}

#[test]
fn a_full_table_refuses_and_evicts_nothing_live() {
    let mut lab = Lab::with(config(2));
    for port in 1000..1004 {
        assert_eq!(lab.state(&Frame::udp(&flow(port)), &commit()), "new trk");
    }
    assert_eq!((lab.shard.len(), lab.shard.counters().refused_by_full_table), (2, 2));
    assert_eq!(lab.state(&Frame::udp(&flow(1000).reversed()), &look()), "est rpl trk");
    assert_eq!(lab.state(&Frame::udp(&flow(1001).reversed()), &look()), "est rpl trk");
    lab.now += 61_000;
    lab.send(&Frame::udp(&flow(1004)), &commit());
    assert_eq!(lab.shard.counters().refused_by_full_table, 2);
}

#[test]
fn an_untranslated_connection_cannot_take_a_reply_tuple_that_a_translation_owns() {
    let mut lab = Lab::new();
    lab.send(&Frame::udp(&flow(1000)), &source_nat(PUBLIC, None));
    assert_eq!(lab.state(&Frame::udp(&tuple(17, PUBLIC, 1000, OUTSIDE, 53)), &commit()), "new trk");
    assert_eq!((lab.shard.len(), lab.shard.counters().refused_by_clash), (1, 1));
}

#[test]
fn marks_and_labels_are_set_by_mask_refreshed_by_commit_and_seen_by_all() {
    let mut lab = Lab::new();
    let set = |mark, label| CtAction { mark: Some(mark), label: Some(label), ..commit() };
    let (_, meta) = lab.send(&Frame::udp(&flow(1000)), &set((0x1234, 0xff00), (1 << 100, u128::MAX)));
    assert_eq!((meta.mark, meta.label), (0x1200, 1 << 100));
    let (_, meta) = lab.send(&Frame::udp(&flow(1000).reversed()), &set((0x34, 0xff), (1, 1)));
    assert_eq!((meta.mark, meta.label), (0x1234, 1 << 100 | 1));
    let (_, meta) = lab.send(&Frame::udp(&flow(1000)), &look());
    assert_eq!((meta.mark, meta.label), (0x1234, 1 << 100 | 1));
    let ftp = CtAction { helper: Some(Helper::Ftp), ..set((0, u32::MAX), (0, u128::MAX)) };
    let (_, meta) = lab.send(&Frame::udp(&flow(1000)), &ftp);
    assert_eq!((meta.mark, meta.label), (0, 0));
    assert!(lab.dump()[0].ends_with(",helper=ftp"));
}

/// Found by the model: two packets of a burst were looked up together, as replies of a connection that the first one
/// then replaced by another in the same slot, from a host to itself. Such a connection has no reply direction, and yet
/// the second packet was taken for one, for the keys of both directions are equal.
#[test]
fn a_packet_from_a_host_to_itself_is_no_reply_whatever_was_in_its_slot_before() {
    let mut lab = Lab::new();
    let itself = Frame::generic(&tuple(47, PUBLIC, 0, PUBLIC, 0));
    lab.send(&Frame::generic(&tuple(47, PUBLIC, 0, INSIDE, 0)), &destination_nat(PUBLIC, None));
    let force = CtAction { force: true, ..commit() };
    let mut packets = [(itself.clone(), force), (itself, look())].map(|(frame, action)| {
        let meta = CtMeta::default();
        let mut lookup = lab.shard.prepare(&frame.bytes, &frame.layers, 0, &meta, false);
        lab.shard.prefetch(&mut lookup);
        (frame, action, meta, lookup)
    });
    for (frame, action, meta, lookup) in &mut packets {
        lab.shard.execute(lab.now, &mut frame.bytes, &frame.layers, lookup, action, meta);
        assert_eq!(name(meta.state), "new trk");
    }
    assert_eq!((lab.shard.len(), lab.shard.counters().replaced), (1, 1));
}

#[test]
fn force_in_the_reply_direction_turns_the_connection_round() {
    let mut lab = Lab::new();
    let force = CtAction { force: true, ..commit() };
    lab.send(&Frame::udp(&flow(1000)), &force);
    lab.send(&Frame::udp(&flow(1000)), &force);
    assert_eq!(lab.shard.counters().replaced, 0);
    let (mut frame, mut meta) = (Frame::udp(&flow(1000).reversed()), CtMeta::default());
    lab.again(&mut frame, &look(), &mut meta);
    assert_eq!(name(meta.state), "est rpl trk");
    lab.again(&mut frame, &force, &mut meta);
    assert_eq!(name(meta.state), "new trk");
    assert_eq!((lab.shard.len(), lab.shard.counters().replaced), (1, 1));
    assert_eq!(meta.original, Some(flow(1000).reversed()));
    assert_eq!(lab.state(&Frame::udp(&flow(1000)), &look()), "est rpl trk");
}

#[test]
fn a_commit_in_the_reply_direction_changes_no_direction() {
    let mut lab = Lab::new();
    lab.send(&Frame::udp(&flow(1000)), &source_nat(PUBLIC, None));
    let (mut frame, mut meta) = (Frame::udp(&tuple(17, OUTSIDE, 53, PUBLIC, 1000)), CtMeta::default());
    lab.again(&mut frame, &apply(), &mut meta);
    lab.again(&mut frame, &source_nat("192.0.2.77", None), &mut meta);
    assert_eq!(frame.tuple(), flow(1000).reversed());
    assert_eq!((lab.shard.len(), name(meta.state).as_str()), (1, "est rpl trk dnat"));
}

#[test]
fn zones_know_nothing_of_each_other_and_state_begins_anew_in_each() {
    let mut lab = Lab::new();
    let zone = |zone| CtAction { zone, ..commit() };
    let (mut frame, mut meta) = (Frame::udp(&flow(1000)), CtMeta::default());
    lab.again(&mut frame, &CtAction { mark: Some((9, 9)), ..zone(1) }, &mut meta);
    lab.again(&mut Frame::udp(&flow(1000).reversed()), &zone(1), &mut CtMeta::default());
    lab.again(&mut frame, &CtAction { zone: 2, ..look() }, &mut meta);
    assert_eq!((name(meta.state).as_str(), meta.zone, meta.mark), ("new trk", 2, 0));
    lab.again(&mut frame, &CtAction { zone: 1, ..look() }, &mut meta);
    assert_eq!((name(meta.state).as_str(), meta.zone, meta.mark), ("est trk", 1, 9));
    meta.clear();
    assert_eq!(meta, CtMeta::default());
}

#[test]
fn a_packet_whose_connection_ends_between_two_actions_is_never_shown_untranslated() {
    let end_all = |lab: &mut Lab| {
        let mut cursor = DumpCursor::default();
        assert_eq!(lab.shard.flush(lab.now, &mut cursor, 1000, &mut |_| true), 1);
    };
    // Translated already: nobody knows what it was.
    let mut lab = Lab::new();
    lab.send(&Frame::udp(&flow(1000)), &source_nat(PUBLIC, None));
    let (mut frame, mut meta) = (Frame::udp(&flow(1000)), CtMeta::default());
    lab.again(&mut frame, &apply(), &mut meta);
    end_all(&mut lab);
    assert_eq!(lab.again(&mut frame, &source_nat(PUBLIC, None), &mut meta), Outcome::Drop(DropReason::Stale));
    // Not translated yet: it starts a connection and is translated.
    lab.send(&Frame::udp(&flow(1000)), &source_nat(PUBLIC, None));
    let (mut frame, mut meta) = (Frame::udp(&flow(1000)), CtMeta::default());
    lab.again(&mut frame, &look(), &mut meta);
    end_all(&mut lab);
    lab.again(&mut frame, &source_nat(PUBLIC, None), &mut meta);
    assert_eq!(frame.tuple(), tuple(17, PUBLIC, 1000, OUTSIDE, 53));
}

#[test]
fn connections_end_by_their_state_s_timeout_also_when_it_got_shorter() {
    let mut lab = Lab::new();
    let (there, back) = (stream(4000), stream(4000).reversed());
    lab.send(&Frame::tcp(&there, "S", 100, 0), &commit());
    lab.send(&Frame::tcp(&back, "SA", 500, 101), &look());
    lab.send(&Frame::tcp(&there, "A", 101, 501), &look());
    lab.now += 86_399_000;
    lab.sweep();
    assert_eq!(lab.shard.len(), 1);
    lab.send(&Frame::tcp(&there, "A", 101, 501), &look());
    lab.now += 80_000_000;
    lab.send(&Frame::tcp(&there, "RA", 101, 501), &look());
    lab.now += 29_000;
    lab.sweep();
    assert_eq!(lab.shard.len(), 1);
    lab.now += 1_100;
    lab.sweep();
    assert_eq!((lab.shard.len(), lab.shard.counters().expired), (0, 1));
}

#[test]
fn a_sweep_looks_at_no_more_than_it_may_however_many_connections_end_at_once() {
    const CONNECTIONS: u16 = 5000;
    let mut lab = Lab::with(config(u32::from(CONNECTIONS)));
    for port in 1..=CONNECTIONS {
        lab.send(&Frame::udp(&flow(port)), &commit());
    }
    lab.now += 61_000;
    let mut left = u32::from(CONNECTIONS);
    for budget in [1, 7, 31, 32, 33, 100].into_iter().cycle() {
        let looked_at = lab.shard.sweep(lab.now, budget);
        let ended = left - lab.shard.len();
        assert!(
            looked_at <= budget && ended <= looked_at,
            "{looked_at} looked at, {ended} ended of {budget}"
        );
        left -= ended;
        if looked_at < budget {
            break;
        }
    }
    assert_eq!((left, lab.shard.counters().expired), (0, u64::from(CONNECTIONS)));
}

#[test]
fn an_expired_connection_is_gone_for_packets_and_dumps_before_any_sweep() {
    let mut lab = Lab::new();
    lab.send(&Frame::udp(&flow(1000)), &commit());
    lab.now += 60_100;
    assert!(lab.dump().is_empty());
    assert_eq!(lab.state(&Frame::udp(&flow(1000).reversed()), &look()), "new trk");
    assert_eq!(lab.shard.len(), 0);
}

#[test]
fn clocks_that_leap_stand_still_or_step_back_do_no_harm() {
    let mut lab = Lab::new();
    for port in 1000..1050 {
        lab.now = 5_000_000 - u64::from(port % 3) * 100;
        lab.send(&Frame::udp(&flow(port)), &commit());
    }
    lab.now = 1;
    assert_eq!(lab.state(&Frame::udp(&flow(1000)), &look()), "new trk");
    assert_eq!(lab.shard.len(), 50);
    lab.now = u64::MAX / 2;
    assert_eq!(lab.shard.sweep(lab.now, 10), 10);
    lab.sweep();
    assert_eq!(lab.shard.len(), 0);
    assert_eq!(lab.shard.counters().expired, 50);
}

#[test]
fn flushes_take_what_the_filter_says_and_dumps_go_on_where_they_stopped() {
    let mut lab = Lab::new();
    for port in 1000..1010 {
        lab.send(&Frame::udp(&flow(port)), &commit());
    }
    assert_eq!(lab.dump().len(), 10);
    let (mut cursor, mut removed, mut calls) = (DumpCursor::default(), 0, 0);
    while !cursor.is_done() {
        removed += lab.shard.flush(lab.now, &mut cursor, 3, &mut |view| view.original.src_port() % 2 == 0);
        calls += 1;
    }
    assert_eq!((removed, calls, lab.shard.len()), (5, 4, 5));
    assert_eq!(lab.shard.counters().flushed, 5);
    assert!(lab.dump().iter().all(|line| line.contains("sport=100")));
    lab.now += 61_000;
    lab.sweep();
    assert_eq!(lab.shard.len(), 0);
}

#[test]
fn a_packet_without_a_connection_says_which_one_it_would_start() {
    let lab = Lab::new();
    let hash = |frame: &Frame| {
        let mut lookup = lab.shard.prepare(&frame.bytes, &frame.layers, 3, &CtMeta::default(), true);
        lab.shard.prefetch(&mut lookup);
        lookup.new_connection_hash()
    };
    let there = hash(&Frame::udp(&flow(1000)));
    assert!(there.is_some());
    assert_eq!(there, hash(&Frame::udp(&flow(1000).reversed())));
    assert_ne!(there, hash(&Frame::udp(&flow(1001))));
    assert_eq!(hash(&Frame::udp(&flow(1000)).unreachable_from(OUTSIDE)), None);
}

#[test]
fn a_frame_that_is_no_ip_packet_is_invalid_and_counted_by_cause() {
    let mut lab = Lab::new();
    let bytes = vec![0xff; 64];
    let frame = Frame { layers: Layers::parse(&bytes), bytes };
    assert_eq!(lab.state(&frame, &commit()), "inv trk");
    assert_eq!(lab.shard.counters().invalid.iter().sum::<u64>(), 1);
}
