//! Several shards and the mail between them. The random one, against the model of one shard, is `tests/model/many.rs`.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use weir_nat::{AddressRange, NatAction, NatRange, PortSelection};
use weir_wire::Layers;
use weir_wire::build::PacketBuilder;

use super::*;
use crate::action::{CtAction, Helper};
use crate::conntrack::tests::packets::{Frame, tuple};
use crate::meta::CtMeta;
use crate::outcome::{DropReason, Outcome};
use crate::plain::PlainLookup;
use crate::shard::{DumpCursor, Shard, ShardConfig};
use crate::state::CtState;
use crate::steering::{KeyWord, Steering};

const ACK: u16 = 0x10;
const CLIENT: &str = "10.0.0.1";
const SERVER: &str = "192.0.2.7";
const POOL: &str = "198.51.100.1";

/// Shards whose mail is delivered at once, but what the test holds back.
struct Net {
    shards: Vec<Shard>,
    /// From, to, letter: between two shards the first is the oldest.
    mail: VecDeque<(ShardNumber, ShardNumber, Letter)>,
    directory: Arc<Directory>,
    now: u64,
    /// Packets that are posted until one finds its mailbox full.
    room: Option<usize>,
    handed_over: usize,
}

enum Letter {
    Packet(Box<Under>),
    Notice(Notice),
}

/// A packet under way.
struct Under {
    frame: Frame,
    meta: CtMeta,
    action: CtAction,
    errand: Errand,
}

/// What has become of a packet, and where.
type End = (usize, Frame, CtMeta, Outcome);

impl Net {
    fn new(count: usize) -> Self {
        Self::with_capacity(count, 1000)
    }

    fn with_capacity(count: usize, capacity: u32) -> Self {
        let steering = Arc::new(Steering::symmetric(count, KeyWord::WELL_KNOWN));
        let directory = Arc::new(Directory::new(9));
        let shards = (0..count).map(|number| {
            let config = ShardConfig {
                capacity,
                max_connections: u32::MAX,
                number: ShardNumber::new(number).unwrap(),
                steering: steering.clone(),
                directory: directory.clone(),
                ..ShardConfig::default()
            };
            Shard::new(config, [1, 2, 3, 4]).unwrap()
        });
        let shards = shards.collect();
        Self { shards, mail: VecDeque::new(), directory, now: 1_000_000, room: None, handed_over: 0 }
    }

    fn home(&self, tuple: &Tuple) -> usize {
        self.shards[0].steering().home(tuple).index()
    }

    /// A shard's notices go before its packets.
    fn collect(&mut self) {
        for number in 0..self.shards.len() {
            while let Some(Addressed { to, notice }) = self.shards[number].next_notice() {
                self.mail.push_back((ShardNumber::new(number).unwrap(), to, Letter::Notice(notice)));
            }
        }
    }

    /// A packet at a shard that it has come to; its end if that is there, or if it is lost.
    fn step(&mut self, at: usize, mut under: Under, has_travelled: bool) -> Option<End> {
        let Under { frame, meta, action, errand } = &mut under;
        let shard = &mut self.shards[at];
        let outcome = if has_travelled {
            let errand = core::mem::take(errand);
            shard.resume(self.now, &mut frame.bytes, &frame.layers, action, meta, errand)
        } else {
            let mut lookup = shard.prepare(&frame.bytes, &frame.layers, action.zone, meta, false);
            shard.prefetch(&mut lookup);
            shard.foresee(&mut lookup, action);
            shard.execute(self.now, &mut frame.bytes, &frame.layers, &lookup, action, meta)
        };
        let Outcome::Elsewhere { to, .. } = outcome else {
            return Some((at, under.frame, under.meta, outcome));
        };
        assert_ne!(to.index(), at);
        under.errand = self.shards[at].take_errand();
        self.collect();
        self.handed_over += 1;
        if let Some(room) = &mut self.room {
            if *room == 0 {
                self.shards[at].abandon(under.errand);
                return Some((at, under.frame, under.meta, outcome));
            }
            *room -= 1;
        }
        self.mail.push_back((ShardNumber::new(at).unwrap(), to, Letter::Packet(Box::new(under))));
        None
    }

    /// Delivers the oldest letter; the end of a packet, if it is one's.
    fn deliver(&mut self) -> Option<End> {
        self.collect();
        let (from, to, letter) = self.mail.pop_front()?;
        match letter {
            Letter::Notice(notice) => {
                self.shards[to.index()].hear(from, notice);
                None
            }
            Letter::Packet(under) => self.step(to.index(), *under, true),
        }
    }

    fn settle(&mut self) -> Vec<End> {
        let mut ends = Vec::new();
        self.collect();
        while !self.mail.is_empty() {
            ends.extend(self.deliver());
            self.collect();
        }
        ends
    }

    /// A ct action on a packet that comes in at a shard, to its end.
    fn meet(&mut self, at: usize, frame: &Frame, meta: CtMeta, action: &CtAction) -> End {
        let errand = Errand::default();
        let under = Under { frame: frame.clone(), meta, action: action.clone(), errand };
        let end = self.step(at, under, false);
        let mut ends = self.settle();
        let end = end.or_else(|| ends.pop()).unwrap();
        assert!(ends.is_empty());
        end
    }

    /// The first ct action on a packet that must go on: what it is afterwards, and where.
    #[track_caller]
    fn send(&mut self, at: usize, frame: &Frame, action: &CtAction) -> (usize, Frame, CtState) {
        let (at, frame, meta, outcome) = self.meet(at, frame, CtMeta::default(), action);
        assert!(matches!(outcome, Outcome::Continue { .. }), "{outcome:?}");
        (at, frame, meta.state)
    }

    fn connections(&self) -> u32 {
        self.shards.iter().map(Shard::len).sum()
    }

    fn redirects(&self) -> usize {
        self.shards.iter().map(Shard::redirects).sum()
    }

    /// Every redirect stands at its tuple's home for a connection of the shard that it names.
    fn consistent(&self) {
        let mut foreign = BTreeSet::new();
        for (number, shard) in self.shards.iter().enumerate() {
            shard.dump(self.now, &mut DumpCursor::default(), usize::MAX, &mut |view| {
                for tuple in [view.original, view.reply] {
                    let home = self.home(&tuple);
                    if home != number {
                        foreign.insert((home, tuple, number));
                    }
                }
            });
        }
        let found: BTreeSet<_> = self
            .shards
            .iter()
            .enumerate()
            .flat_map(|(home, shard)| {
                shard.redirects.iter().map(move |(tuple, owner)| (home, tuple, owner.index()))
            })
            .collect();
        assert_eq!(found, foreign);
    }

    /// Everything ends: nothing may be left.
    fn finish(&mut self) {
        self.now += 10 * 86_400_000;
        for shard in &mut self.shards {
            while shard.sweep(self.now, 100) == 100 {}
        }
        self.settle();
        for shard in &self.shards {
            assert_eq!((shard.len(), shard.redirects(), shard.notices()), (0, 0, 0));
            assert_eq!((shard.expectations(), shard.companions()), (0, 0));
        }
        assert_eq!((self.directory.len(), self.directory.connected()), (0, 0));
    }

    /// A client of `POOL` calls an FTP server and announces a port: what the server is told, and the owner.
    fn announce(&mut self, client: &str, from: u16, port: u16) -> (u16, usize) {
        let mut control = source(range(POOL, POOL, None));
        control.helper = Some(Helper::Ftp);
        let call = tuple(6, client, from, SERVER, 21);
        let (_, out, _) = self.send(0, &Frame::tcp(&call, "S", 100, 0), &control);
        self.send(1, &Frame::tcp(&out.tuple().reversed(), "SA", 900, 101), &look());
        self.send(2, &Frame::tcp(&call, "A", 101, 901), &look());
        let [high, low] = port.to_be_bytes();
        let line = format!("PORT {},{high},{low}\r\n", client.replace('.', ","));
        let builder = PacketBuilder::new().ip(call.src(), call.dst()).tcp(from, 21).seq(101).ack(901);
        let bytes = builder.flags(ACK).payload(line.as_bytes()).build();
        let frame = Frame { layers: Layers::parse(&bytes), bytes };
        let (owner, .., outcome) = self.meet(3, &frame, CtMeta::default(), &look());
        assert_eq!(outcome, Outcome::Edit);
        let edits = self.shards[owner].take_edits();
        let told: Vec<u8> = edits[0].text.split(',').map(|number| number.parse().unwrap()).collect();
        assert_eq!(told[..4], [198, 51, 100, 1], "all of the text is new");
        (u16::from_be_bytes([told[4], told[5]]), owner)
    }
}

fn look() -> CtAction {
    CtAction { nat: Some(NatAction::Apply), ..CtAction::default() }
}

fn commit() -> CtAction {
    CtAction { commit: true, ..look() }
}

fn range(first: &str, last: &str, ports: Option<(u16, u16)>) -> NatRange {
    let addresses = Some(AddressRange::V4(first.parse().unwrap(), last.parse().unwrap()));
    NatRange { addresses, ports, selection: PortSelection::Default, persistent: false }
}

fn source(range: NatRange) -> CtAction {
    CtAction { nat: Some(NatAction::Source(range)), ..commit() }
}

fn destination(range: NatRange) -> CtAction {
    CtAction { nat: Some(NatAction::Destination(range)), ..commit() }
}

fn flow(port: u16) -> Tuple {
    tuple(17, CLIENT, port, SERVER, 53)
}

const NEW: CtState = CtState::NEW.with(CtState::TRK);
const REPLY: CtState = CtState::EST.with(CtState::RPL).with(CtState::TRK);

#[test]
fn whoever_receives_a_packet_its_home_decides() {
    let mut net = Net::new(4);
    for port in 1..200 {
        let home = net.home(&flow(port));
        let (first, second) = (usize::from(port) % 4, usize::from(port / 4) % 4);
        assert_eq!(net.send(first, &Frame::udp(&flow(port)), &commit()).0, home);
        let (at, _, state) = net.send(second, &Frame::udp(&flow(port).reversed()), &look());
        assert_eq!((at, state), (home, REPLY));
    }
    assert_eq!((net.connections(), net.redirects()), (199, 0));
    let established: u64 = net.shards.iter().map(|shard| shard.counters().established).sum();
    assert_eq!(established, 199, "each was counted once");
    net.finish();
}

#[test]
fn a_packet_that_two_actions_meet_is_counted_once_wherever_they_are() {
    let mut net = Net::new(2);
    let frame = Frame::udp(&flow(1));
    let elsewhere = 1 - net.home(&flow(1));
    let (at, frame, meta, _) = net.meet(elsewhere, &frame, CtMeta::default(), &look());
    // As if the packet had gone on to another shard between the two.
    let (_, _, meta, outcome) = net.meet(1 - at, &frame, meta, &commit());
    assert_eq!((meta.state, outcome), (NEW, Outcome::Continue { rewritten: false }));
    assert_eq!(net.shards.iter().map(|shard| shard.counters().new).sum::<u64>(), 1);
    net.finish();
}

#[test]
fn replies_of_a_translated_destination_find_their_owner_from_anywhere() {
    let mut net = Net::new(5);
    for port in 1..300u16 {
        let call = tuple(6, CLIENT, port, POOL, 80);
        let at = usize::from(port) % 5;
        let (owner, out, state) = net.send(
            at,
            &Frame::tcp(&call, "S", 100, 0),
            &destination(range(SERVER, SERVER, Some((8080, 8080)))),
        );
        assert_eq!((owner, state), (net.home(&call), NEW.with(CtState::DNAT)));
        assert_eq!(out.tuple(), tuple(6, CLIENT, port, SERVER, 8080));
        for at in 0..5 {
            let answer = Frame::tcp(&out.tuple().reversed(), "SA", 500, 101);
            let (found, back, state) = net.send(at, &answer, &look());
            assert_eq!((found, state), (owner, REPLY.with(CtState::SNAT)));
            assert_eq!(back.tuple(), call.reversed());
        }
    }
    assert!(net.redirects() > 150, "{}", net.redirects());
    net.consistent();
    for number in 0..5 {
        let mut cursor = DumpCursor::default();
        net.shards[number].flush(net.now, &mut cursor, usize::MAX, &mut |_| true);
    }
    net.settle();
    assert_eq!((net.connections(), net.redirects()), (0, 0));
    net.finish();
}

#[test]
fn what_another_shard_has_opens_nothing_the_short_way() {
    let mut net = Net::new(3);
    let (to, action, mut given_away) = (destination(range(SERVER, SERVER, Some((8080, 8080)))), commit(), 0);
    for port in 1..60 {
        let call = tuple(17, CLIENT, port, POOL, 80);
        let (owner, out, _) = net.send(net.home(&call), &Frame::udp(&call), &to);
        let answer = Frame::udp(&out.tuple().reversed());
        for at in (0..3).filter(|at| *at != owner) {
            let (mut lookups, mut bytes, mut meta) =
                ([PlainLookup::default()], answer.bytes.clone(), CtMeta::default());
            lookups[0].read(&bytes, 0, false);
            let shard = &mut net.shards[at];
            shard.prepare_plain(&mut lookups);
            shard.prefetch_plain(&mut lookups);
            assert!(lookups[0].has_no_connection());
            shard.foresee_plain(&mut lookups[0], &action);
            let run = shard.begin_plain(net.now, &action);
            assert_eq!(shard.open_plain(&run, &mut bytes, &lookups[0], &mut meta), None);
            assert_eq!((bytes, meta), (answer.bytes.clone(), CtMeta::default()));
            given_away += usize::from(net.home(&answer.tuple()) == at);
        }
    }
    assert!(given_away > 10, "{given_away}");
    net.finish();
}

#[test]
fn replies_to_a_translated_source_come_home_and_nobody_is_asked_while_there_are_ports() {
    let mut net = Net::new(4);
    for port in 1024..1524 {
        let home = net.home(&flow(port));
        let (owner, out, _) = net.send(home, &Frame::udp(&flow(port)), &source(range(POOL, POOL, None)));
        assert_eq!((owner, net.home(&out.tuple())), (home, home));
    }
    assert_eq!((net.handed_over, net.redirects()), (0, 0));
    net.finish();
}

#[test]
fn the_ports_of_all_shards_are_used_up_before_a_connection_is_refused() {
    for (count, ports) in
        [(2, (6000, 6000)), (3, (6000, 6007)), (5, (6000, 6039)), (4, (6000, 6200)), (16, (1024, 1343))]
    {
        let mut net = Net::new(count);
        let all = usize::from(ports.1 - ports.0) + 1;
        let action = source(range(POOL, POOL, Some(ports)));
        for round in 0..3 {
            let mut used = BTreeSet::new();
            let mut port = 5000;
            let mut refused = 0;
            while used.len() < all && refused < 10 * all {
                port += 1;
                let frame = Frame::udp(&flow(port));
                let (_, out, _, outcome) =
                    net.meet(usize::from(port) % count, &frame, CtMeta::default(), &action);
                match outcome {
                    Outcome::Continue { .. } => assert!(used.insert(out.tuple().src_port())),
                    outcome => {
                        // No more than 16 are asked for where each is asked for by itself: not of so few.
                        assert_eq!(outcome, Outcome::Drop(DropReason::NatExhausted));
                        refused += 1;
                    }
                }
            }
            assert_eq!((used.len(), refused), (all, 0), "{count} shards, round {round}");
            net.consistent();
            let late = Frame::udp(&flow(4999));
            let (.., outcome) = net.meet(0, &late, CtMeta::default(), &action);
            assert_eq!(outcome, Outcome::Drop(DropReason::NatExhausted));
            // What has expired is in nobody's way, swept or not, whichever shard has it.
            net.now += 3_600_000;
        }
        net.finish();
    }
}

#[test]
fn a_tuple_whose_owner_has_expired_is_given_anew() {
    let mut net = Net::new(6);
    let action = destination(range(SERVER, SERVER, Some((53, 53))));
    // All callers are translated to one tuple, for they differ in nothing but what they call.
    let calls: Vec<_> = (1..40).map(|host| tuple(17, CLIENT, 7, &format!("198.51.100.{host}"), 53)).collect();
    for call in &calls {
        let (_, out, _) = net.send(0, &Frame::udp(call), &action);
        assert_eq!(out.tuple(), tuple(17, CLIENT, 7, SERVER, 53));
        assert_eq!((net.redirects() <= 1, net.connections() <= 6), (true, true));
        net.now += 600_000;
    }
    net.finish();
}

#[test]
fn a_forced_commit_and_a_reopened_connection_leave_no_redirect_behind() {
    let mut net = Net::new(3);
    for port in 1..60 {
        let call = tuple(6, CLIENT, port, POOL, 80);
        let translated = destination(range(SERVER, SERVER, Some((8080, 8080))));
        let (_, out, _) = net.send(0, &Frame::tcp(&call, "S", 100, 0), &translated);
        let back = out.tuple().reversed();
        if port % 2 == 0 {
            let (at, _, state) =
                net.send(1, &Frame::tcp(&back, "S", 9, 0), &CtAction { force: true, ..commit() });
            assert_eq!((at, state), (net.home(&back), NEW));
        } else {
            net.send(2, &Frame::tcp(&back, "RA", 0, 101), &look());
            let (at, again, state) = net.send(1, &Frame::tcp(&call, "S", 9_000_000, 0), &translated);
            assert_eq!((at, again.tuple(), state), (net.home(&call), out.tuple(), NEW.with(CtState::DNAT)));
        }
        net.consistent();
    }
    net.finish();
}

#[test]
fn a_packet_that_cannot_travel_on_gives_back_what_it_was_given() {
    let actions = [
        destination(range(SERVER, SERVER, Some((8080, 8080)))),
        source(range(POOL, POOL, Some((6000, 6000)))),
        commit(),
    ];
    for action in &actions {
        for room in 0..8 {
            let mut net = Net::new(4);
            for port in 1..20 {
                net.room = Some(room);
                let frame = Frame::udp(&tuple(17, CLIENT, port, "198.51.100.9", 53));
                net.meet(usize::from(port) % 4, &frame, CtMeta::default(), action);
                net.consistent();
            }
            net.room = None;
            net.finish();
        }
    }
}

#[test]
fn two_first_packets_of_a_connection_make_one() {
    let mut net = Net::new(4);
    let action = destination(range(SERVER, SERVER, Some((8080, 8080))));
    for port in 1..100 {
        let call = Frame::tcp(&tuple(6, CLIENT, port, POOL, 80), "S", 100, 0);
        let mut ends = Vec::new();
        for at in 0..4 {
            let (frame, meta, errand) = (call.clone(), CtMeta::default(), Errand::default());
            ends.extend(net.step(at, Under { frame, meta, action: action.clone(), errand }, false));
        }
        ends.extend(net.settle());
        assert_eq!(ends.len(), 4);
        for (_, frame, meta, outcome) in ends {
            assert_eq!(outcome, Outcome::Continue { rewritten: true });
            assert_eq!(frame.tuple(), tuple(6, CLIENT, port, SERVER, 8080));
            assert_eq!(meta.state, NEW.with(CtState::DNAT));
        }
        net.consistent();
    }
    assert_eq!(net.connections(), 99);
    net.finish();
}

#[test]
fn an_error_about_a_redirected_connection_is_related_wherever_it_arrives() {
    let mut net = Net::new(4);
    for port in 1..50 {
        let call = tuple(17, CLIENT, port, POOL, 53);
        let (owner, out, _) =
            net.send(0, &Frame::udp(&call), &destination(range(SERVER, SERVER, Some((53, 53)))));
        for at in 0..4 {
            let (found, error, state) = net.send(at, &out.unreachable_from("203.0.113.1"), &look());
            assert_eq!(found, owner);
            assert!(state.has(CtState::REL) && state.has(CtState::RPL), "{state:?}");
            assert_eq!(error.tuple(), call);
        }
    }
    let unknown = Frame::udp(&tuple(17, CLIENT, 99, POOL, 53)).unreachable_from("203.0.113.1");
    for at in 0..4 {
        assert!(net.send(at, &unknown, &look()).2.has(CtState::INV));
    }
    assert_eq!(net.shards.iter().map(|shard| shard.counters().icmp_unknown).sum::<u64>(), 4);
    net.finish();
}

#[test]
fn a_home_that_is_full_refuses_and_nothing_is_left() {
    let mut net = Net::with_capacity(2, 3);
    let action = destination(range(SERVER, SERVER, Some((53, 53))));
    let mut refused = 0;
    for port in 1..60 {
        let frame = Frame::udp(&tuple(17, CLIENT, port, POOL, 53));
        let (.., outcome) = net.meet(0, &frame, CtMeta::default(), &action);
        refused += u32::from(matches!(outcome, Outcome::Drop(_)));
        net.consistent();
    }
    assert!(refused > 40);
    net.finish();
}

fn tftp_request(client: &str, port: u16) -> Frame {
    let (src, dst): (std::net::Ipv4Addr, std::net::Ipv4Addr) =
        (client.parse().unwrap(), SERVER.parse().unwrap());
    let bytes = PacketBuilder::new().ipv4(src, dst).udp(port, 69).payload(b"\0\x01file\0octet\0").build();
    Frame { layers: Layers::parse(&bytes), bytes }
}

#[test]
fn a_data_connection_is_its_control_connections_wherever_it_arrives() {
    let related = NEW.with(CtState::REL);
    for translated in [false, true] {
        let mut net = Net::new(5);
        for port in 2000..2060u16 {
            let at = usize::from(port);
            let mut control = if translated { source(range(POOL, POOL, None)) } else { commit() };
            (control.helper, control.mark) = (Some(Helper::Tftp), Some((u32::from(port), u32::MAX)));
            let (owner, out, _) = net.send(at % 5, &tftp_request(CLIENT, port), &control);
            assert_eq!(net.directory.len(), 1);
            // The server answers from any port.
            let data =
                tuple(17, SERVER, 40_000 + port, &out.tuple().src().to_string(), out.tuple().src_port());
            let (at, frame, meta, _) = net.meet((at / 5) % 5, &Frame::udp(&data), CtMeta::default(), &look());
            assert_eq!((at, meta.mark), (owner, u32::from(port)));
            assert!(meta.state.has(related), "{:?}", meta.state);
            let (at, back, meta, outcome) = net.meet(at, &frame, meta, &commit());
            assert!(matches!(outcome, Outcome::Continue { .. }), "{outcome:?}");
            assert_eq!((at, meta.mark), (owner, u32::from(port)));
            assert_eq!(back.tuple().dst_port(), port);
            assert_eq!(back.tuple().dst().to_string(), CLIENT);
            assert!(net.directory.is_empty(), "it has served");
            let (at, out, state) =
                net.send((usize::from(port) + 1) % 5, &Frame::udp(&back.tuple().reversed()), &look());
            assert_eq!((at, out.tuple()), (owner, data.reversed()));
            assert!(state.has(REPLY.with(CtState::REL)), "{state:?}");
            net.consistent();
        }
        assert!(net.redirects() > 50, "{}", net.redirects());
        net.finish();
    }
}

#[test]
fn no_two_hosts_behind_one_address_are_announced_at_one_port() {
    for is_called in [false, true] {
        let mut net = Net::new(4);
        let (mut ports, mut owners) = (BTreeSet::new(), BTreeSet::new());
        for host in 1..=20 {
            let client = format!("10.0.0.{host}");
            let (port, owner) = net.announce(&client, 4000 + 7 * host, 20_000);
            assert!(ports.insert(port), "{port} is announced twice");
            owners.insert(owner);
            if is_called {
                let data = tuple(6, SERVER, 20, POOL, port);
                let (at, frame, _) = net.send(1, &Frame::tcp(&data, "S", 7, 0), &commit());
                assert_eq!(
                    (at, frame.tuple().dst().to_string(), frame.tuple().dst_port()),
                    (owner, client, 20_000)
                );
            }
            assert_eq!((net.directory.len(), net.directory.connected()).0 == 0, is_called);
            net.consistent();
        }
        // Each kept the port that is next to be had, as one shard would have announced it.
        assert_eq!(ports, (20_000..20_020).collect());
        assert_eq!((owners.len(), net.directory.connected()), (4, if is_called { 20 } else { 0 }));
        net.finish();
        // What has ended is in nobody's way.
        assert_eq!(net.announce("10.0.0.1", 4001, 20_000).0, 20_000);
        net.finish();
    }
}

#[test]
fn what_is_expected_no_more_is_new_at_its_home() {
    let mut net = Net::new(4);
    for port in 2000..2040u16 {
        let control = CtAction { helper: Some(Helper::Tftp), ..commit() };
        let (owner, out, _) = net.send(0, &tftp_request(CLIENT, port), &control);
        let data = tuple(17, SERVER, 40_000 + port, CLIENT, out.tuple().src_port());
        let is_flushed = port % 2 == 0;
        if is_flushed {
            let mut cursor = DumpCursor::default();
            net.shards[owner].flush(net.now, &mut cursor, usize::MAX, &mut |_| true);
            assert!(net.directory.is_empty());
        } else {
            // Late, and nobody has swept.
            net.now += 61_000;
            assert!(!net.directory.is_empty());
        }
        let (at, _, state) = net.send(1, &Frame::udp(&data), &commit());
        assert_eq!((at, state), (net.home(&data), NEW));
        net.consistent();
        for shard in &mut net.shards {
            shard.sweep(net.now, 100);
        }
        net.settle();
    }
    net.finish();
}

#[test]
fn a_data_connection_that_is_lost_on_its_way_leaves_nothing() {
    for room in 0..6 {
        let mut net = Net::new(4);
        for port in 2000..2020u16 {
            let mut control = source(range(POOL, POOL, None));
            control.helper = Some(Helper::Tftp);
            let (_, out, _) = net.send(0, &tftp_request(CLIENT, port), &control);
            let data = tuple(17, SERVER, 40_000 + port, POOL, out.tuple().src_port());
            net.room = Some(room);
            net.meet(usize::from(port) % 4, &Frame::udp(&data), CtMeta::default(), &commit());
            net.room = None;
            net.consistent();
        }
        net.finish();
    }
}

#[test]
fn a_packet_that_is_sent_round_and_round_is_dropped_and_gives_back_what_it_has() {
    let mut net = Net::new(2);
    let call = tuple(17, CLIENT, 7, POOL, 53);
    let home = net.home(&call);
    // A redirect for nobody, as none may ever be: each shard sends the packet to the other.
    net.shards[home].redirects.insert(call, ShardNumber::new(1 - home).unwrap()).unwrap();
    let (.., outcome) = net.meet(home, &Frame::udp(&call), CtMeta::default(), &commit());
    assert_eq!(outcome, Outcome::Drop(DropReason::HandoverHops));
    assert_eq!(net.handed_over, usize::from(MAX_HOPS));
    assert_eq!(net.shards.iter().map(|shard| shard.counters().handover_hops).sum::<u64>(), 1);
}

#[test]
fn shards_with_one_secret_choose_one_address_and_different_ports() {
    let mut net = Net::new(2);
    let pool = NatRange {
        selection: PortSelection::Random,
        persistent: true,
        ..range(POOL, "198.51.100.200", None)
    };
    let mut outside = BTreeSet::new();
    for port in 1024..1100 {
        let (_, out, _) = net.send(0, &Frame::udp(&flow(port)), &source(pool));
        outside.insert(out.tuple().src());
    }
    assert_eq!(outside.len(), 1, "{outside:?}");
    let [a, b] = &mut net.shards[..] else { panic!("two shards") };
    assert_ne!([(); 4].map(|()| a.random.next()), [(); 4].map(|()| b.random.next()));
    net.finish();
}
