//! Whether trajectories are remembered or not, the outcome is the same: two switches are given the same bursts at the same
//! times, and between them the same happens to flows, groups, ports, zones, connections and the clock. What they send,
//! count and know of connections has to agree, after every burst.
//!
//! Packets answer what came out, or come again as they were or with another TTL, TOS, station or tag; so most belong to
//! established connections. Openings, fragments, ICMP errors and damaged packets are those of `tests/equivalence`.
//!
//! `WEIR_TRAJECTORIES_CASES` sets how many cases are drawn.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

#[expect(dead_code, reason = "captures of divided switches answer one another")]
#[path = "../equivalence/capture.rs"]
mod capture;
mod side;
mod tables;

use std::net::IpAddr;

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use weir::flow::{Command, FlowFile, FlowMod, GroupCommand, NoNames, Rule};
use weir::pipeline::BURST;
use weir_shard::Timeout;
use weir_wire::header::tcp::flag;
use weir_wire::numbers::protocol;
use weir_wire::{ChecksumTrust, Layers, Tuple, checksum};

use capture::{How, Random, Step};
use side::{Outcome, PORTS, Side};
use tables::{EXTRA, IN_SINGLE_FILE, MORE, TABLES, Table};

/// What happens next. Details are drawn from the number.
#[derive(Clone, Copy, Debug)]
enum Event {
    Burst(u64),
    Table(u64),
    Flow(u64),
    Group(u64),
    Port(u64),
    Zone(u64),
    Flush(u64),
    Pause(u64),
    Housekeeping(u64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        80 => any::<u64>().prop_map(Event::Burst),
        1 => any::<u64>().prop_map(Event::Table),
        4 => any::<u64>().prop_map(Event::Flow),
        1 => any::<u64>().prop_map(Event::Group),
        1 => any::<u64>().prop_map(Event::Port),
        2 => any::<u64>().prop_map(Event::Zone),
        1 => any::<u64>().prop_map(Event::Flush),
        4 => any::<u64>().prop_map(Event::Pause),
        4 => any::<u64>().prop_map(Event::Housekeeping),
    ]
}

fn all_tables() -> Vec<&'static Table> {
    TABLES.iter().chain(MORE).collect()
}

/// Packets that are kept to come again.
const KEPT: usize = 48;

/// The two switches, and the packets that are on their way.
struct Pair {
    with: Side,
    without: Side,
    table: &'static Table,
    now: u64,
    /// A limit is so low that the order of packets says who is refused.
    is_limited: bool,
    /// Connections may want the same tuple, which the first one gets.
    is_contended: bool,
    /// Most packets have come before.
    is_quiet: bool,
    /// By port: packets that came in.
    came: Vec<Vec<Vec<u8>>>,
    /// By port: packets that went out.
    went: Vec<Vec<Vec<u8>>>,
}

fn keep(packets: &mut Vec<Vec<u8>>, packet: &[u8], random: &mut Random) {
    if packets.len() < KEPT {
        packets.push(packet.to_vec());
    } else {
        packets[random.below(KEPT)] = packet.to_vec();
    }
}

/// The packet with something else about it that no connection depends on.
fn dressed(packet: &[u8], random: &mut Random) -> Vec<u8> {
    let (layers, mut frame) = (Layers::parse(packet), packet.to_vec());
    let l3 = usize::from(layers.l3);
    let byte = random.pick(&[0, 1, 2, 3]);
    if layers.is_ipv4() {
        match byte {
            0 => frame[l3 + 8] = random.pick(&[63, 64, 2]),
            1 => frame[l3 + 1] = random.pick(&[0, 32, 1]),
            _ => {}
        }
        let end = l3 + usize::from(frame[l3] & 0xf) * 4;
        if end <= frame.len() {
            frame[l3 + 10..l3 + 12].fill(0);
            let sum = checksum::finish(checksum::sum(&frame[l3..end]));
            frame[l3 + 10..l3 + 12].copy_from_slice(&sum);
        }
    } else if layers.is_ipv6() {
        match byte {
            0 => frame[l3 + 7] = random.pick(&[63, 64, 2]),
            1 => frame[l3] = random.pick(&[0x60, 0x62]),
            _ => {}
        }
    }
    match byte {
        2 if frame.len() > 12 => frame[11] = random.pick(&[1, 7]),
        3 if layers.vlan_tags == 0 && frame.len() > 14 => {
            frame.splice(12..12, [0x81, 0, 0, random.pick(&[5, 6])]);
        }
        _ => {}
    }
    frame
}

fn how(random: &mut Random) -> How {
    match random.below(24) {
        0 => How::Error { code: random.pick(&[1, 3, 4]), quoted: random.pick(&[28, 48, 200]) },
        1 => How::Part { first: random.one_in(2) },
        2 => How::Stack { flags: flag::FIN, payload: Vec::new() },
        3 => How::Stack { flags: flag::RST, payload: Vec::new() },
        4..=9 => How::Stack { flags: 0, payload: b"data".to_vec() },
        _ => How::Stack { flags: 0, payload: Vec::new() },
    }
}

fn shown(packet: &[u8]) -> String {
    let tuple = Tuple::extract(packet, &Layers::parse(packet), 0, ChecksumTrust::NONE);
    format!(
        "{} {packet:02x?}",
        tuple.map_or_else(|invalid| invalid.to_string(), |tuple| tuple.lookup().to_string())
    )
}

/// Source and destination.
fn ends(packet: &[u8]) -> Option<[(IpAddr, u16); 2]> {
    let tuple = Tuple::extract(packet, &Layers::parse(packet), 0, ChecksumTrust::ALL).ok()?.lookup();
    Some([(tuple.src(), tuple.src_port()), (tuple.dst(), tuple.dst_port())])
}

/// Who talks with whom, whichever of both a packet is from; and whether the packet may end the connection that there is
/// for another one, as a SYN does.
fn conversation(packet: &[u8]) -> Option<([(IpAddr, u16); 2], bool)> {
    let (layers, mut ends) = (Layers::parse(packet), ends(packet)?);
    ends.sort_unstable();
    let flags = layers.l4_bytes(packet).get(13).copied().map_or(0, u16::from);
    let is_syn = layers.protocol == protocol::TCP && flags & (flag::SYN | flag::ACK) == flag::SYN;
    Some((ends, is_syn || layers.protocol == protocol::SCTP))
}

/// Leaves packets whose outcome does not depend on how far others of the burst are, which is not the same in waves and in
/// turn: one of each conversation in which another connection may begin, whose first packet would end the old one between
/// two `ct` of the packets in front of it; and of packets that share one end only, of which one may be the answer to what
/// another becomes when it is translated.
fn thin(packets: &mut Vec<Vec<u8>>) {
    let mut ways: Vec<[(IpAddr, u16); 2]> = Vec::new();
    packets.retain(|packet| {
        let Some([src, dst]) = ends(packet) else { return true };
        let answers =
            |&[from, to]: &[(IpAddr, u16); 2]| (to == src || from == dst) && [from, to] != [dst, src];
        let is_alone = !ways.iter().any(answers);
        ways.push([src, dst]);
        is_alone
    });
    let known: Vec<_> = packets.iter().map(|packet| conversation(packet)).collect();
    let begins = |ends| known.iter().flatten().any(|(other, begins)| *begins && *other == ends);
    let mut seen = Vec::new();
    packets.retain(|packet| match conversation(packet) {
        Some((ends, _)) if begins(ends) => {
            let is_first = !seen.contains(&ends);
            seen.push(ends);
            is_first
        }
        _ => true,
    });
}

fn strict(rule: &Rule, command: Command) -> FlowMod {
    FlowMod {
        table: Some(rule.table),
        priority: rule.priority,
        matching: rule.matching,
        actions: if command.selects() { Vec::new() } else { rule.actions.to_vec() },
        ..FlowMod::new(command)
    }
}

impl Pair {
    fn new(seed: u64, table: &'static Table, megaflows: usize, is_quiet: bool) -> Self {
        let [with, without] = [true, false].map(|trajectories| Side::new(seed, megaflows, trajectories));
        let none = || vec![Vec::new(); PORTS.len() + 1];
        let mut pair = Self {
            with,
            without,
            table,
            now: 0,
            is_limited: false,
            is_contended: false,
            is_quiet,
            came: none(),
            went: none(),
        };
        pair.load(table);
        pair
    }

    fn load(&mut self, table: &'static Table) {
        self.table = table;
        self.with.load(table, self.now);
        self.without.load(table, self.now);
        self.is_contended = self.has("nat(dst");
    }

    /// True if some flow's text has this in it.
    fn has(&self, text: &str) -> bool {
        self.with.rules().iter().any(|rule| rule.dump_line(None, &NoNames).contains(text))
    }

    fn both<T: PartialEq + std::fmt::Debug>(&mut self, mut with: impl FnMut(&mut Side) -> T) -> T {
        let (one, other) = (with(&mut self.with), with(&mut self.without));
        assert_eq!(one, other);
        one
    }

    /// A packet that comes in by `port`.
    fn packet(&self, port: u16, random: &mut Random) -> Vec<u8> {
        let (came, went) = (&self.came[usize::from(port)], &self.went[usize::from(port)]);
        let (again, otherwise, answers) = if self.is_quiet { (24, 26, 31) } else { (16, 19, 30) };
        let which = random.below(32);
        if which < again && !came.is_empty() {
            return came[random.below(came.len())].clone();
        }
        if which < otherwise && !came.is_empty() {
            return dressed(&came[random.below(came.len())], random);
        }
        if which < answers && !went.is_empty() {
            let answered = &went[random.below(went.len())];
            return capture::answer(answered, &how(random)).unwrap_or_else(|| answered.clone());
        }
        loop {
            let helped = self.table.has_helpers() && random.one_in(2);
            if let Some(Some(Step::Packet { bytes, .. })) = capture::draw(random, 1, helped).pop() {
                return bytes;
            }
        }
    }

    fn burst(&mut self, random: &mut Random) -> Result<(), String> {
        let port = random.pick(&[1, 1, 1, 2, 2, 2, 3, 4]);
        let is_single = self.is_limited
            || self.is_contended
            || self.table.is_crowded
            || IN_SINGLE_FILE.contains(&self.table.name);
        let most = if is_single { 1 } else { random.pick(&[1, 4, 16, BURST]) };
        let mut packets: Vec<Vec<u8>> =
            (0..1 + random.below(most)).map(|_| self.packet(port, random)).collect();
        thin(&mut packets);
        let now = self.now;
        let sent = self.with.process(now, port, &packets);
        let other = self.without.process(now, port, &packets);
        let differences = Outcome::of(&sent).differences(&Outcome::of(&other));
        if !differences.is_empty() {
            let shown: Vec<_> = packets.iter().map(|packet| shown(packet)).collect();
            return Err(format!("by port {port}: {shown:#?}\n{differences}"));
        }
        for (number, packet) in (0..).zip(&packets) {
            // Those that went somewhere are the more likely to belong to a connection.
            if sent.iter().any(|(of, ..)| *of == number) || random.one_in(16) {
                keep(&mut self.came[usize::from(port)], packet, random);
            }
        }
        for (_, to, bytes) in &sent {
            keep(&mut self.went[*to as usize], bytes, random);
        }
        Ok(())
    }

    fn change_flow(&mut self, random: &mut Random) {
        let now = self.now;
        let rules = self.with.rules();
        let changes = match random.below(4) {
            0 | 1 => {
                let line = format!("{}\n", random.pick(&EXTRA));
                FlowFile::parse("extra", line.as_bytes(), Command::Add, &NoNames).unwrap().flows
            }
            _ if rules.is_empty() => return,
            2 => vec![strict(&rules[random.below(rules.len())], Command::DeleteStrict)],
            _ => {
                let actions = rules[random.below(rules.len())].actions.to_vec();
                let rule = &rules[random.below(rules.len())];
                vec![FlowMod { actions, ..strict(rule, Command::ModifyStrict) }]
            }
        };
        self.both(|side| side.apply(&changes, now));
        let is_moved = changes.iter().any(|change| change.command == Command::ModifyStrict);
        self.is_contended |= is_moved && self.has("nat(");
    }

    fn change_group(&mut self, random: &mut Random) {
        let groups = self.table.groups();
        if groups.is_empty() {
            return;
        }
        let now = self.now;
        let mut change = groups[random.below(groups.len())].clone();
        change.command = GroupCommand::Modify;
        let turn = random.below(change.buckets.len());
        change.buckets.rotate_left(turn);
        if random.one_in(3) {
            change.buckets.truncate(1);
        }
        self.both(|side| side.apply_groups(std::slice::from_ref(&change), now));
    }

    fn change_zone(&mut self, random: &mut Random) {
        let zone = random.pick(&[0, 1, 2, 3, 4]);
        let (what, seconds) = (random.below(6), random.pick(&[1, 5, 600]));
        let limit = random.pick(&[None, None, Some(3)]);
        self.is_limited |= what < 3 && limit.is_some();
        self.both(|side| {
            let shard = side.worker.shard_mut();
            match what {
                0 => shard.set_zone_limit(zone, limit),
                1 => shard.set_default_zone_limit(limit),
                2 => shard.set_max_connections(limit.unwrap_or(512)),
                3 => shard.set_liberal_tcp(seconds > 1),
                _ => {
                    let mut timeouts = shard.timeouts().clone();
                    Timeout::ALL.iter().for_each(|timeout| timeouts.set(*timeout, seconds).unwrap());
                    shard.set_zone_timeouts(zone, (what == 4).then_some(timeouts)).unwrap();
                }
            }
        });
    }

    fn change_port(&mut self, random: &mut Random) {
        let (number, link) = (random.pick(&[2, 3, 4]), random.below(3));
        self.both(|side| match link {
            0 => side.turn_port(number),
            _ => {
                side.switch.set_link(u32::from(number), link == 1);
                side.publish();
            }
        });
    }

    fn happen(&mut self, event: Event) -> Result<(), String> {
        let (Event::Burst(seed)
        | Event::Table(seed)
        | Event::Flow(seed)
        | Event::Group(seed)
        | Event::Port(seed)
        | Event::Zone(seed)
        | Event::Flush(seed)
        | Event::Pause(seed)
        | Event::Housekeeping(seed)) = event;
        let random = &mut Random::new(seed);
        let now = self.now;
        match event {
            Event::Burst(_) => self.burst(random)?,
            Event::Table(_) => {
                let all = all_tables();
                self.load(all[random.below(all.len())]);
            }
            Event::Flow(_) => self.change_flow(random),
            Event::Group(_) => self.change_group(random),
            Event::Port(_) => self.change_port(random),
            Event::Zone(_) => self.change_zone(random),
            Event::Flush(_) => {
                let which = random.below(4);
                self.both(|side| {
                    side.flush(now, &|view| match which {
                        0 => true,
                        which => usize::from(view.original.src_port()) % 4 == which,
                    })
                });
            }
            Event::Pause(_) => self.now += random.pick(&[1, 1, 90, 90, 1500, 11_000, 61_000, 100_000_000]),
            Event::Housekeeping(_) => {
                let what = random.below(8);
                self.both(|side| match what {
                    0 => side.worker.clear_megaflows(),
                    1 => {
                        side.worker.revalidate(0, usize::MAX, false);
                    }
                    2 => {
                        side.switch.expire(now);
                        side.publish();
                    }
                    _ => {
                        side.worker.housekeeping(now);
                    }
                });
            }
        }
        self.compare(|side| side.counters())
    }

    fn compare<T: PartialEq + std::fmt::Debug>(
        &mut self,
        mut of: impl FnMut(&mut Side) -> T,
    ) -> Result<(), String> {
        let (with, without) = (of(&mut self.with), of(&mut self.without));
        if with == without {
            return Ok(());
        }
        let (with, without) = (format!("{with:#?}"), format!("{without:#?}"));
        let lines = with.lines().zip(without.lines());
        let differ: String = lines
            .filter(|(with, without)| with != without)
            .map(|(with, without)| format!("{with}\n not {without}\n"))
            .collect();
        Err(differ)
    }

    /// All of `events` happen, and the two sides know the same in the end. Gives the look-ups that trajectories have
    /// spared, and all.
    fn run(mut self, events: &[Event]) -> Result<(u64, u64), String> {
        for (number, event) in events.iter().enumerate() {
            let table = self.table.name;
            self.happen(*event)
                .map_err(|error| format!("{number}: {event:?} with table {table}: {error}"))?;
            if number % 16 == 0 {
                let now = self.now;
                self.compare(|side| side.connections(now))?;
                self.compare(|side| side.statistics(now))?;
            }
        }
        let now = self.now;
        self.compare(|side| side.connections(now))?;
        self.compare(|side| side.statistics(now))?;
        self.both(|side| side.end(now + 200_000_000));
        self.compare(|side| side.counters())?;
        assert_eq!(self.without.worker.counters().trajectory_hits, 0);
        let counters = self.with.worker.counters();
        Ok((counters.trajectory_hits, counters.hits() + counters.translations))
    }
}

fn cases() -> u32 {
    std::env::var("WEIR_TRAJECTORIES_CASES").map_or(1000, |cases| cases.parse().unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(),
        max_shrink_iters: 2000,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("proptest-regressions"))),
        ..ProptestConfig::default() })]

    #[test]
    fn whatever_changes_the_outcome_is_that_without_trajectories(
        seed: u64,
        table in 0..all_tables().len(),
        megaflows in prop::sample::select(vec![4, 4096, 4096]),
        events in prop::collection::vec(event(), 1..200),
    ) {
        let done = Pair::new(seed, all_tables()[table], megaflows, false).run(&events);
        prop_assert!(done.is_ok(), "{}", done.unwrap_err());
    }
}

/// Through each table in turn bursts and nothing else, most packets of which have come before: many look-ups are spared,
/// so that the comparison above says something. (Not all: packets of a port take many ways here, and stations move.)
#[test]
fn trajectories_spare_look_ups_with_every_table() {
    let (mut spared, mut all) = (0, 0);
    for (seed, table) in (1..).zip(all_tables()) {
        let bursts: Vec<Event> = (0..300).map(|burst| Event::Burst(seed << 32 | burst)).collect();
        let done = Pair::new(seed, table, 4096, true).run(&bursts);
        let (own, looked_up) = done.unwrap_or_else(|error| panic!("seed {seed}, {}: {error}", table.name));
        println!("{}: {own} of {looked_up}", table.name);
        assert!(own > 0, "{}: none of {looked_up} look-ups", table.name);
        (spared, all) = (spared + own, all + looked_up);
    }
    assert!(spared * 3 > all, "{spared} of {all} look-ups");
}
