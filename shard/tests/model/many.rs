//! The same steps with several shards and one model. Packets come in at any shard; what goes elsewhere waits in mailboxes
//! for as long as a seed says; a full mailbox loses it. Wherever a packet is decided the model is shown it, so the
//! model is one shard that sees all packets in the order in which their owners handled them. In the end nothing may be
//! left anywhere: no connection, no redirect, no notice.

use std::collections::{BTreeSet, VecDeque};
use std::fmt::Write;
use std::sync::Arc;

use weir_shard::steering::{AddressSpan, KeyWord, SteeringConfig, Subscribers};
use weir_shard::{
    CtMeta, Directory, DropReason, DumpCursor, Errand, Notice, Outcome, Reason, Shard, ShardConfig,
    ShardNumber, Steering,
};

use crate::conntrack::{Carried, Model};
use crate::random::{Clock, Op, Random, Step};
use crate::run::{Setting, Shown, Way, compare, line};
use crate::tuple::Tuple;

/// Letters that a mailbox holds.
const ROOM: usize = 5;

/// Steps between two comparisons of everything.
const DUMP_EACH: usize = 8;

/// The longest that the clock goes on in a step: a shard takes no longer leaps.
const LEAP: u64 = 10 * 86_400_000;

/// What came by, to know whether the steps are worth taking.
#[derive(Debug, Default)]
pub struct Seen {
    reasons: BTreeSet<&'static str>,
    counters: BTreeSet<&'static str>,
    decided: u64,
    lost_for_hops: u64,
    forgiven: u64,
    lost_for_room: u64,
    redirects: usize,
}

impl Seen {
    /// All of the protocol was used, and hardly a packet travelled for too long.
    pub fn check(&self) {
        for reason in [Reason::Steered, Reason::Redirected, Reason::Related, Reason::Tuple] {
            assert!(self.reasons.contains(reason.name()), "none was {}: {self:?}", reason.name());
        }
        for counter in ["asks", "nat_exhausted", "refused_by_clash", "expired", "flushed", "replaced"] {
            assert!(self.counters.contains(counter), "nothing was counted as {counter}: {self:?}");
        }
        assert!(self.lost_for_room > 0 && self.redirects > 0, "{self:?}");
        assert!((self.lost_for_hops + self.forgiven) * 1000 < self.decided, "{self:?}");
    }
}

enum Letter<'a> {
    Parcel(Box<(Way<'a>, Errand, Reason)>),
    Notice(Notice),
}

/// From one shard to another.
#[derive(Default)]
struct Mailbox<'a> {
    /// With the time from which on each may be taken out.
    letters: VecDeque<(u64, Letter<'a>)>,
    /// Notices that found no room.
    backlog: VecDeque<Notice>,
}

struct Lab<'a, 's> {
    shards: Vec<Shard>,
    /// From, to.
    mail: Vec<Vec<Mailbox<'a>>>,
    model: Model,
    reading: u64,
    random: Random,
    time: u64,
    seen: &'s mut Seen,
}

/// Takes the steps; what was done is written to `story`.
pub fn run(
    seed: u64,
    setting: &Setting,
    steps: &[Step],
    story: &mut String,
    seen: &mut Seen,
) -> Result<(), String> {
    let mut random = Random(seed ^ 0x5eed);
    let count = random.pick(&[2, 2, 3, 4, 5, 8, 16]);
    let steering = Arc::new(steering(&mut random, count));
    let directory = Arc::new(Directory::new(seed));
    let shards = (0..count).map(|number| {
        let config = ShardConfig {
            capacity: 4096,
            liberal_tcp: setting.liberal,
            timeouts: setting.timeouts.clone(),
            number: ShardNumber::new(number).unwrap(),
            steering: steering.clone(),
            directory: directory.clone(),
            ..ShardConfig::default()
        };
        Shard::new(config, setting.secret).unwrap()
    });
    let mut model = Model::new(usize::MAX, usize::MAX, setting.liberal, setting.timeouts.clone());
    model.promises.many = true;
    let mut lab = Lab {
        shards: shards.collect(),
        mail: (0..count).map(|_| (0..count).map(|_| Mailbox::default()).collect()).collect(),
        model,
        reading: setting.reading,
        random,
        time: 0,
        seen,
    };
    lab.turn();
    for (number, step) in steps.iter().enumerate() {
        lab.step(step, story)?;
        if number % DUMP_EACH == 0 {
            lab.compare_all()?;
        }
    }
    lab.finish(story)
}

/// Every zone symmetric, or some by subscriber: then the public address of a tuple names its home, or part of its ports
/// where there are few addresses.
fn steering(random: &mut Random, shards: usize) -> Steering {
    let word = KeyWord::from_random(u16::try_from(random.up_to(0xffff)).unwrap());
    let span =
        |first: &str, last: &str| AddressSpan::range(first.parse().unwrap(), last.parse().unwrap()).unwrap();
    let zone = |last: &str, last6: &str| Subscribers {
        pool: vec![span("198.51.100.1", last), span("2001:db8:1::1", last6)],
        inside: vec![span("10.0.0.0", "10.255.255.255"), span("fd00::", "fd00::ffff")],
    };
    let subscribers = if random.one_in(2) {
        vec![(0, zone("198.51.100.2", "2001:db8:1::1")), (1, zone("198.51.100.40", "2001:db8:1::ff"))]
    } else {
        Vec::new()
    };
    Steering::new(&SteeringConfig { shards, word, table_size: 512, subscribers }).unwrap()
}

impl<'a> Lab<'a, '_> {
    fn pick_shard(&mut self) -> usize {
        usize::try_from(self.random.up_to(self.shards.len() as u64 - 1)).unwrap()
    }

    /// All shards see the clock, as lcores do that turn all the time.
    fn turn(&mut self) {
        self.model.look_at_clock(self.reading);
        for shard in &mut self.shards {
            shard.sweep(self.reading, 0);
        }
    }

    fn step(&mut self, step: &'a Step, story: &mut String) -> Result<(), String> {
        match step {
            Step::Burst { clock, packets } => {
                if let Clock::Forward(by) = clock {
                    self.reading = self.reading.saturating_add((*by).min(LEAP));
                }
                self.turn();
                for sent in packets {
                    let way = Way::new(sent, &self.model);
                    let at = self.pick_shard();
                    let _ = writeln!(story, "at {}: shard {at}: {}", self.reading, way.packet);
                    self.go(at, way, None, story)?;
                }
            }
            Step::Sweep { budget } => {
                let at = self.pick_shard();
                self.shards[at].sweep(self.reading, *budget);
            }
            Step::Flush { zone, mark, slots } => {
                let _ = writeln!(story, "flush zone={zone:?} mark={mark:?}");
                for shard in &mut self.shards {
                    let mut cursor = DumpCursor::default();
                    while !cursor.is_done() {
                        shard.flush(self.reading, &mut cursor, *slots, &mut |view| {
                            zone.is_none_or(|zone| view.zone == zone)
                                && mark.is_none_or(|(value, mask)| view.mark & mask == value & mask)
                        });
                    }
                }
                self.model.flush(|connection| {
                    zone.is_none_or(|zone| connection.original.zone == zone)
                        && mark.is_none_or(|(value, mask)| connection.mark & mask == value & mask)
                });
            }
            Step::ZoneTimeouts(zone, timeouts) => {
                for shard in &mut self.shards {
                    shard.set_zone_timeouts(*zone, timeouts.clone()).unwrap();
                }
                self.model.zone_timeouts.remove(zone);
                self.model.zone_timeouts.extend(timeouts.clone().map(|timeouts| (*zone, timeouts)));
            }
            Step::Liberal(liberal) => {
                self.shards.iter_mut().for_each(|shard| shard.set_liberal_tcp(*liberal));
                self.model.liberal = *liberal;
            }
            // A limit is each shard's own part of one; other tests hold it against a model.
            Step::MaxConnections(_) | Step::ZoneLimit(..) => {}
        }
        for _ in 0..self.random.up_to(6) {
            self.deliver(story)?;
        }
        Ok(())
    }

    /// A packet goes on at a shard, with an errand if it has travelled.
    fn go(
        &mut self,
        at: usize,
        mut way: Way<'a>,
        mut errand: Option<(Errand, Reason)>,
        story: &mut String,
    ) -> Result<(), String> {
        loop {
            while let [Op::Clear, rest @ ..] = way.ops {
                way.ops = rest;
                way.meta.clear();
                way.carried = Carried::default();
            }
            let [Op::Ct(action), rest @ ..] = way.ops else { return Ok(()) };
            let shard = &mut self.shards[at];
            let meta: &mut CtMeta = &mut way.meta;
            let before = way.bytes.clone();
            let replaced = shard.counters().replaced;
            self.model.promises.has_asked = matches!(errand, Some((_, Reason::Tuple)));
            let outcome = if let Some((errand, _)) = errand.take() {
                shard.resume(self.reading, &mut way.bytes, &way.layers, action, meta, errand)
            } else {
                let mut lookup = shard.prepare(&way.bytes, &way.layers, action.zone, meta, way.trusted);
                shard.prefetch(&mut lookup);
                shard.foresee(&mut lookup, action);
                shard.execute(self.reading, &mut way.bytes, &way.layers, &lookup, action, meta)
            };
            let _ = writeln!(story, "  shard {at}: {} for {}: {outcome:?}", Shown(action), way.packet);
            match outcome {
                Outcome::Elsewhere { to, why } => {
                    if way.bytes != before || meta.connection.is_some() || to.index() == at {
                        return Err(format!("a packet goes from {at} to {to} and is not as it came"));
                    }
                    let errand = self.shards[at].take_errand();
                    let replaced = self.shards[at].counters().replaced - replaced;
                    self.model.leave(&way.packet, &mut way.carried, action, replaced);
                    self.seen.reasons.insert(why.name());
                    self.post(at, to.index(), way, errand, why);
                    return Ok(());
                }
                Outcome::Drop(DropReason::HandoverHops) => {
                    let replaced = self.shards[at].counters().replaced - replaced;
                    self.model.leave(&way.packet, &mut way.carried, action, replaced);
                    self.seen.lost_for_hops += 1;
                    return Ok(());
                }
                Outcome::Edit => return Err("an edit without a helper".into()),
                Outcome::Continue { .. } | Outcome::Drop(_) => {}
            }
            self.seen.decided += 1;
            let has_asks =
                |letter: &Letter<'_>| matches!(letter, Letter::Parcel(parcel) if parcel.2 == Reason::Tuple);
            self.model.is_reserving = self
                .mail
                .iter()
                .flatten()
                .flat_map(|mailbox| &mailbox.letters)
                .any(|(_, letter)| has_asks(letter));
            let (shards, reading) = (&self.shards, self.reading);
            let choice = |tuple: Tuple| reply_of(shards, reading, tuple);
            let expected = self.model.ct(&mut way.packet, &mut way.carried, action, &choice)?;
            compare(&way, outcome, expected)?;
            if matches!(outcome, Outcome::Drop(_)) {
                return Ok(());
            }
            way.ops = rest;
        }
    }

    /// Notices first, in order.
    fn collect(&mut self, from: usize) {
        while let Some(addressed) = self.shards[from].next_notice() {
            self.mail[from][addressed.to.index()].backlog.push_back(addressed.notice);
        }
        for to in 0..self.shards.len() {
            while self.mail[from][to].letters.len() < ROOM
                && let Some(notice) = self.mail[from][to].backlog.pop_front()
            {
                self.put(from, to, Letter::Notice(notice));
            }
        }
    }

    fn put(&mut self, from: usize, to: usize, letter: Letter<'a>) {
        let ready = self.time + self.random.pick(&[0, 0, 1, 2, 5, 20]);
        self.mail[from][to].letters.push_back((ready, letter));
    }

    fn post(&mut self, from: usize, to: usize, way: Way<'a>, errand: Errand, why: Reason) {
        self.collect(from);
        let mailbox = &self.mail[from][to];
        if !mailbox.backlog.is_empty() || mailbox.letters.len() >= ROOM {
            self.seen.lost_for_room += 1;
            self.shards[from].abandon(errand);
            return;
        }
        self.put(from, to, Letter::Parcel(Box::new((way, errand, why))));
    }

    /// Delivers the next letter of some mailbox, if it has been under way for long enough.
    fn deliver(&mut self, story: &mut String) -> Result<(), String> {
        let (from, to) = (self.pick_shard(), self.pick_shard());
        self.deliver_from(from, to, story)
    }

    fn deliver_from(&mut self, from: usize, to: usize, story: &mut String) -> Result<(), String> {
        self.time += 1;
        self.collect(from);
        let letters = &mut self.mail[from][to].letters;
        if letters.front().is_none_or(|(ready, _)| *ready > self.time) {
            return Ok(());
        }
        let Some((_, letter)) = letters.pop_front() else { return Ok(()) };
        match letter {
            Letter::Notice(notice) => {
                self.shards[to].hear(ShardNumber::new(from).unwrap(), notice);
                Ok(())
            }
            Letter::Parcel(parcel) => {
                let (way, errand, why) = *parcel;
                let _ = writeln!(story, "at {}: from {from} to {to}: {why:?}: {}", self.reading, way.packet);
                self.go(to, way, Some((errand, why)), story)
            }
        }
    }

    /// The dump of all shards together: a tuple that stood in two tables would show.
    fn compare_all(&mut self) -> Result<(), String> {
        let mut found: Vec<String> = Vec::new();
        let mut tuples = BTreeSet::new();
        for shard in &self.shards {
            shard.dump(self.reading, &mut DumpCursor::default(), usize::MAX, &mut |view| {
                let both = [Tuple::read(&view.original), Tuple::read(&view.reply)];
                let is_unique = tuples.insert(both[0]) && (both[0] == both[1] || tuples.insert(both[1]));
                assert!(is_unique, "in two tables: {}", line(view));
                found.push(line(view));
            });
        }
        let mut expected: Vec<String> =
            self.model.connections.values().map(|connection| line(&self.model.view(connection))).collect();
        found.sort();
        expected.sort();
        if found != expected {
            found.retain(|line| {
                !expected.contains(line) || {
                    expected.retain(|other| other != line);
                    false
                }
            });
            return Err(format!("the dump differs\n  shards: {found:#?}\n  model: {expected:#?}"));
        }
        self.seen.redirects += self.shards.iter().map(Shard::redirects).sum::<usize>();
        let sum = |of: &dyn Fn(&weir_shard::Counters) -> u64| -> u64 {
            self.shards.iter().map(|shard| of(shard.counters())).sum()
        };
        let counts = &self.model.counts;
        for (name, shards, model) in [
            ("created", sum(&|of| of.created), counts.created),
            ("flushed", sum(&|of| of.flushed), counts.flushed),
            ("replaced", sum(&|of| of.replaced), counts.replaced),
            ("refused_by_clash", sum(&|of| of.refused_by_clash), counts.refused_by_clash),
            ("nat_exhausted", sum(&|of| of.nat_exhausted), counts.nat_exhausted),
            ("established", sum(&|of| of.established), counts.established),
            ("new", sum(&|of| of.new), counts.new),
            ("related", sum(&|of| of.related), counts.related),
        ] {
            if shards != model {
                return Err(format!("{name}: {shards} in the shards, {model} in the model"));
            }
        }
        Ok(())
    }

    fn finish(&mut self, story: &mut String) -> Result<(), String> {
        let numbers = 0..self.shards.len();
        let settle = |lab: &mut Self, story: &mut String| {
            for _ in 0..2000 {
                for from in numbers.clone() {
                    for to in numbers.clone() {
                        lab.deliver_from(from, to, story)?;
                    }
                }
                let is_quiet = lab.mail.iter().flatten().all(|mailbox| mailbox.letters.is_empty());
                if is_quiet && lab.shards.iter().all(|shard| shard.notices() == 0) {
                    return Ok(());
                }
            }
            Err(String::from("packets travel for ever"))
        };
        settle(self, story)?;
        self.compare_all()?;
        self.seen.forgiven += self.model.forgiven;
        // A redirect for each tuple with another home, and no other.
        for shard in &self.shards {
            for (name, count, _) in shard.counters().iter().filter(|(_, count, _)| *count > 0) {
                let _ = count;
                self.seen.counters.insert(name);
            }
        }
        for _ in 0..20 {
            self.reading = self.reading.saturating_add(LEAP);
            self.turn();
        }
        for shard in &mut self.shards {
            shard.sweep(self.reading, u32::MAX);
        }
        settle(self, story)?;
        for (number, shard) in self.shards.iter().enumerate() {
            let left = (shard.len(), shard.redirects(), shard.notices());
            if left != (0, 0, 0) {
                return Err(format!("shard {number} is left with {left:?} connections, redirects, notices"));
            }
        }
        Ok(())
    }
}

/// The reply tuple of the connection with this original tuple, wherever it is.
fn reply_of(shards: &[Shard], reading: u64, original: Tuple) -> Option<Tuple> {
    let mut reply = None;
    let shown = original.shown();
    for shard in shards {
        shard.dump(reading, &mut DumpCursor::default(), usize::MAX, &mut |view| {
            if view.original == shown {
                reply = Some(Tuple::read(&view.reply));
            }
        });
    }
    reply
}
