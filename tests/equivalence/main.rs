//! Any number of shards is as good as one. Captures drawn from seeds go through flow tables on a switch that is divided
//! into up to sixteen shards, packets coming to any of them and letters taking any time, and through the same on one
//! shard: what comes out, byte by byte, which packets are dropped and why, what is counted and every connection are the
//! same, but for the ports that were drawn; those correspond one to one, each being named after its connection. In the
//! end nothing is left.
//!
//! *Which order the one shard sees.* Packets one by one: each is through, wherever it had to go, before the next one
//! comes (notices may be under way still). Then the order is that of the capture, whatever the tables do. Packets
//! together: several are under way, and trackers write down what they saw. A packet meets several owners if its tables
//! have several `ct`, and two owners may see two packets of the same hosts in opposite orders, or the second packet
//! between two `ct` of the first: no single order of whole packets is that of all owners then. Such captures are not
//! compared with one shard, only held against what has to be true in any case; they are counted, and have to be few. The
//! same goes for captures in which connections contend for a tuple or a limit: it is its home that decides who is first, when it
//! gives the tuple away, and no tracker writes that down; and for those that have a fragment twice, of which the shard
//! that they meet at takes the first that comes.
//!
//! *Full mailboxes* lose packets. Each of them is counted, and if it was lost before its first tracker saw it and before
//! anything was sent for it, it has changed nothing: one shard gives the same without it. A packet that was lost in the
//! middle of its way has changed something, and such captures are only held against what has to be true in any case.
//!
//! `WEIR_EQUIVALENCE_CASES` sets how many cases each test runs, `WEIR_EQUIVALENCE_SEED` the first one's seed.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod bench;
mod capture;
mod tables;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use weir::pipeline::DropCause;
use weir::replay::{Arrival, Layout};
use weir_wire::{Fragment, Layers};

use bench::{Bench, Counts, Sent};
use capture::{Random, Step};
use tables::{TABLES, Table};

/// One capture and how it is sent.
struct Case {
    seed: u64,
    table: &'static Table,
    layout: Layout,
    /// Connections that are admitted.
    most: u32,
    steps: Vec<Option<Step>>,
}

fn layout(random: &mut Random, seed: u64) -> Layout {
    Layout {
        shards: random.pick(&[1, 2, 2, 3, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]),
        arrival: random.pick(&Arrival::ALL),
        steered_early: random.one_in(2),
        mailbox_delay: random.pick(&[0, 1, 5, 20]),
        seed,
        ..Layout::default()
    }
}

impl Case {
    fn draw(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let table = &TABLES[random.below(TABLES.len())];
        let length = random.pick(&[5, 20, 40, 60]);
        let layout = layout(&mut random, seed);
        let most = if random.one_in(5) { 2 } else { 256 };
        let steps = capture::draw(&mut random, length, table.has_helpers());
        Self { seed, table, layout, most, steps }
    }

    /// With mailboxes that are full most of the time.
    fn draw_full(seed: u64) -> Self {
        let (case, mut random) = (Self::draw(seed), Random::new(!seed));
        let layout = Layout {
            // So few that many packets want the same way.
            shards: random.pick(&[2, 2, 3, 4, 16]),
            arrival: random.pick(&[Arrival::Adverse, Arrival::Adverse, Arrival::Random]),
            mailbox_delay: random.pick(&[5, 20]),
            mailbox_capacity: random.pick(&[1, 1, 2]),
            ..case.layout
        };
        Self { layout, ..case }
    }

    fn bench(&self, layout: Layout) -> Bench {
        Bench::new(self.table.switch(self.seed, self.most, layout), self.steps.len(), self.table.is_crowded)
    }

    /// Drops steps for as long as what is left still fails.
    fn shrink(&mut self, run: fn(&Self) -> Result<Verdict, String>) {
        let mut chunk = self.steps.len();
        while chunk > 0 {
            for at in (0..self.steps.len()).step_by(chunk) {
                let whole = self.steps.clone();
                let end = (at + chunk).min(whole.len());
                self.steps[at..end].fill(None);
                if run(self).is_ok() {
                    self.steps = whole;
                }
            }
            chunk /= 2;
        }
    }

    fn told(&self) -> String {
        let mut text =
            format!("seed {} table {} of {} {:?}\n", self.seed, self.table.name, self.most, self.layout);
        for (number, step) in self.steps.iter().enumerate() {
            if let Some(step) = step {
                let _ = match step {
                    Step::Packet { port, bytes } => {
                        let layers = Layers::parse(bytes);
                        let tuple =
                            weir_wire::Tuple::extract(bytes, &layers, 0, weir_wire::ChecksumTrust::NONE);
                        let tuple =
                            tuple.map_or_else(|error| error.to_string(), |tuple| tuple.lookup().to_string());
                        writeln!(
                            text,
                            "  {number}: port {port}: {tuple} {:?} {:?}",
                            layers.protocol, layers.fragment
                        )
                    }
                    step => writeln!(text, "  {number}: {step:?}"),
                };
            }
        }
        text
    }
}

/// Everything that shards tell and ask each other, and what it is told and asked for.
const WORTH_SEEING: [&str; 20] = [
    "handed_over_steered",
    "handed_over_redirected",
    "handed_over_related",
    "handed_over_expected",
    "handed_over_fragment",
    "handed_over_tuple",
    "created",
    "established",
    "expired",
    "replaced",
    "related",
    "expectations",
    "expected",
    "edited",
    "nat_exhausted",
    "refused_by_limit",
    "tcp_out_of_window",
    "icmp_bad_start",
    "sent fragment of ipv4",
    "sent fragment of ipv6",
];

/// What mailboxes have no room for. (Data connections, too, but seldom.)
const FULL: [&str; 5] = [
    "mailbox_full_steered",
    "mailbox_full_redirected",
    "mailbox_full_related",
    "mailbox_full_fragment",
    "mailbox_full_tuple",
];

/// How a case was judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Same,
    /// The same but for packets that found a mailbox full and changed nothing: one shard never saw them.
    SameWithoutLost,
    /// No order of whole packets is that of all owners, or nobody can tell whose a port is.
    Undecided,
}

/// Two lists, sorted, that have to be the same.
fn same<T: Ord + std::fmt::Debug>(what: &str, many: &[T], one: &[T]) -> Result<(), String> {
    if many == one {
        return Ok(());
    }
    let only = |these: &[T], those: &[T]| -> String {
        let count = |of: &[T], item: &T| of.iter().filter(|other| *other == item).count();
        let items = these.iter().filter(|item| count(these, item) > count(those, item));
        items.map(|item| format!("    {item:?}\n")).collect()
    };
    Err(format!("{what}\n  many:\n{}  one:\n{}", only(many, one), only(one, many)))
}

/// Everything has to agree right now, when one shard has not seen the packets that were `lost`.
fn compare(many: &Bench, one: &Bench, lost: u64) -> Result<(), String> {
    let twice = many.twice();
    if !twice.is_empty() {
        return Err(format!("in two tables: {twice:?}"));
    }
    same("dump", &many.dump(), &one.dump())?;
    let mut counts = one.counts();
    if lost > 0 {
        *counts.entry("received".into()).or_default() += lost;
        counts.insert(DropCause::MailboxFull.name().into(), lost);
    }
    let list = |counts: Counts| -> Vec<_> { counts.into_iter().collect() };
    same("counts", &list(many.counts()), &list(counts))
}

fn shown(bench: &Bench, sent: &[Sent]) -> Vec<String> {
    let mut lines: Vec<_> =
        sent.iter().map(|(step, port, frame)| format!("{step} by {port}: {}", bench.show(frame))).collect();
    lines.sort();
    lines
}

/// What came by in all cases, to know whether they are worth running.
static SEEN: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

fn see(many: &mut Bench) {
    let mut seen = SEEN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    seen.extend(many.counts().into_keys());
    let handed_over = many.switch.counters();
    seen.extend(handed_over.handovers().filter(|(_, count, _)| *count > 0).map(|(name, ..)| name));
    let fragments = many.sent().map(Layers::parse).filter(|layers| layers.fragment != Fragment::No);
    seen.extend(
        fragments.map(|layers| format!("sent fragment of ipv{}", if layers.is_ipv6() { 6 } else { 4 })),
    );
}

/// Nothing is left of anything once all has had its time.
fn ends(bench: &mut Bench) -> Result<(), String> {
    for _ in 0..40 {
        bench.pause(86_400_000);
    }
    bench.switch.flush();
    for (number, worker) in bench.switch.workers().iter_mut().enumerate() {
        let shard = worker.shard();
        let left = (
            shard.len(),
            shard.redirects(),
            shard.notices(),
            worker.waiting_notices(),
            worker.held_fragments(),
        );
        if left != (0, 0, 0, 0, 0) {
            return Err(format!(
                "shard {number} is left with {left:?} connections, redirects, notices, held"
            ));
        }
        let expected = worker.shard().expectations();
        worker.clear_megaflows();
        if (expected, worker.recirculation_contexts()) != (0, 0) {
            return Err(format!(
                "shard {number}: {expected} expected, {} contexts",
                worker.recirculation_contexts()
            ));
        }
        let counters = worker.counters();
        let came = counters.received + counters.copies + counters.taken_over_in_all();
        let went = counters.sent + counters.dropped_in_all() + counters.handed_over_in_all();
        if came != went {
            return Err(format!("shard {number}: {came} packets came and {went} went"));
        }
    }
    let directory = bench.switch.directory();
    let left = (directory.len(), directory.connected());
    if left != (0, 0) {
        return Err(format!("the directory is left with {left:?} expected, connected"));
    }
    Ok(())
}

fn one_by_one(case: &Case) -> Result<Verdict, String> {
    let (mut many, mut one) = (case.bench(case.layout), case.bench(Layout::default()));
    let mut verdict = Verdict::Same;
    for (number, step) in case.steps.iter().enumerate() {
        let Some(step) = step else { continue };
        if let Step::Pause(by) = step {
            many.pause(*by);
            one.pause(*by);
        }
        match (many.packet(step), one.packet(step)) {
            (Some(packet), Some(same)) => {
                many.inject(number, packet);
                one.inject(number, same);
            }
            (None, None) => {}
            _ => return Err(format!("{number}: only one of both has something to answer")),
        }
        many.learn();
        one.learn();
        many.settle()?;
        one.settle()?;
        let sent = (many.collect(), one.collect());
        if many.is_ambiguous || one.is_ambiguous {
            verdict = Verdict::Undecided;
            break;
        }
        let sent = (shown(&many, &sent.0), shown(&one, &sent.1));
        same("sent", &sent.0, &sent.1).map_err(|error| format!("{number}: {error}"))?;
        compare(&many, &one, 0).map_err(|error| format!("{number}: {error}"))?;
    }
    many.loses(0)?;
    see(&mut many);
    ends(&mut many)?;
    ends(&mut one)?;
    if verdict == Verdict::Same {
        compare(&many, &one, 0)?;
    }
    Ok(verdict)
}

/// The steps in the order in which their owners saw them, of those without an owner each in its place; `None` if
/// two owners do not agree.
fn order(came: &[usize], history: &[weir::replay::Tracked]) -> Option<Vec<usize>> {
    let mut order: Vec<usize> = Vec::new();
    for event in history {
        let step = event.stamp as usize;
        if came.contains(&step) && !order.contains(&step) {
            order.push(step);
        }
    }
    let place = |step: u64| order.iter().position(|other| *other as u64 == step);
    for shard in history.iter().map(|event| event.shard) {
        let seen: Vec<_> = history
            .iter()
            .filter(|event| event.shard == shard)
            .filter_map(|event| place(event.stamp))
            .collect();
        if !seen.is_sorted() {
            return None;
        }
    }
    order.extend(came.iter().filter(|step| history.iter().all(|event| event.stamp != **step as u64)));
    Some(order)
}

fn together(case: &Case) -> Result<Verdict, String> {
    let (mut many, mut one) = (case.bench(case.layout), case.bench(Layout::default()));
    many.switch.write_history();
    let mut random = Random::new(case.seed ^ 0x7065);
    let mut places = BTreeSet::new();
    let (mut came, mut verdict, mut lost) = (Vec::new(), Verdict::Same, 0);
    let (mut sent_by_many, mut sent_by_one) = (Vec::new(), Vec::new());
    for (number, step) in case.steps.iter().map(Some).chain([None]).enumerate() {
        if let Some(Some(step)) = step
            && !matches!(step, Step::Pause(_))
        {
            if let Some(packet) = many.packet(step) {
                if place_of_fragment(&packet.1).is_some_and(|place| !places.insert(place)) {
                    verdict = Verdict::Undecided;
                }
                many.inject(number, packet);
                came.push(number);
            }
            let work = random.below(12);
            if work < 5 {
                // Now and then all arrive, so that there is something to answer.
                if work == 0 {
                    many.settle()?
                } else {
                    many.switch.work()
                }
                let sent = many.collect();
                sent_by_many.extend(shown(&many, &sent));
            }
        }
        if step.is_some() && !matches!(step, Some(Some(Step::Pause(_)))) {
            continue;
        }
        // All arrive, and one shard sees the same.
        many.settle()?;
        let sent = many.collect();
        sent_by_many.extend(shown(&many, &sent));
        let history = many.switch.take_history_now();
        for step in many.switch.take_refused_now() {
            lost += 1;
            let (step, before) = (step as usize, came.len());
            came.retain(|number| *number != step);
            let is_partly_through =
                came.len() == before || history.iter().any(|event| event.stamp == step as u64);
            if is_partly_through || many.has_sent(step) {
                verdict = Verdict::Undecided;
            }
        }
        let contends = |bench: &Bench| {
            let counts = bench.counts();
            ["refused_by_clash", "nat_exhausted", "refused_by_limit"]
                .iter()
                .any(|name| counts.contains_key(*name))
        };
        if contends(&many) || many.is_contended {
            verdict = Verdict::Undecided;
        }
        if verdict == Verdict::Same {
            let order = order(&came, &history);
            verdict = if order.is_some() { Verdict::Same } else { Verdict::Undecided };
            for number in order.into_iter().flatten() {
                if let Some(step) = &case.steps[number] {
                    let Some(packet) = one.packet(step) else {
                        if contends(&one) {
                            verdict = Verdict::Undecided;
                            break;
                        }
                        return Err(format!("{number}: nothing to answer"));
                    };
                    one.inject(number, packet);
                    one.learn();
                    one.settle()?;
                    let sent = one.collect();
                    sent_by_one.extend(shown(&one, &sent));
                }
            }
        }
        came.clear();
        if contends(&one) || many.is_ambiguous || one.is_ambiguous {
            verdict = Verdict::Undecided;
        }
        let replaced = |bench: &Bench| bench.counts().get("replaced").copied();
        if lost > 0 && replaced(&many) != replaced(&one) {
            // A commit that ends a connection before it asks for the tuple of the next one.
            verdict = Verdict::Undecided;
        }
        if verdict == Verdict::Same {
            sent_by_many.sort();
            sent_by_one.sort();
            same("sent", &sent_by_many, &sent_by_one).map_err(|error| format!("up to {number}: {error}"))?;
            compare(&many, &one, lost).map_err(|error| format!("up to {number}: {error}"))?;
        }
        if let Some(Some(Step::Pause(by))) = step {
            many.pause(*by);
            one.pause(*by);
        }
    }
    many.loses(lost)?;
    see(&mut many);
    ends(&mut many)?;
    Ok(if verdict == Verdict::Same && lost > 0 { Verdict::SameWithoutLost } else { verdict })
}

/// What a fragment is a part of, and which.
fn place_of_fragment(frame: &[u8]) -> Option<Vec<u8>> {
    let layers = Layers::parse(frame);
    // Identification and offset. Not its addresses: tables may give several hosts the same one.
    let place = if layers.is_ipv6() { 42..48 } else { 4..8 };
    let header = layers.l3_bytes(frame);
    if layers.fragment == Fragment::No { None } else { header.get(place).map(<[u8]>::to_vec) }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// How many cases there were, and how they were judged.
struct Tally {
    cases: u64,
    without_lost: u64,
    undecided: u64,
}

/// Runs many cases on all cores; the first that fails is told as shortly as it can be.
fn run_all(
    default: u64,
    draw: fn(u64) -> Case,
    run: fn(&Case) -> Result<Verdict, String>,
    worth_seeing: &[&str],
) -> Tally {
    let (cases, first) = (number("WEIR_EQUIVALENCE_CASES", default), number("WEIR_EQUIVALENCE_SEED", 1));
    println!("{cases} cases from seed {first} on");
    let (next, failed) = (AtomicU64::new(0), Mutex::new(None));
    let (undecided, without_lost) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let case = next.fetch_add(1, Ordering::Relaxed);
                    if case >= cases || failed.lock().unwrap().is_some() {
                        break;
                    }
                    let mut case = draw(first + case);
                    match run(&case) {
                        Ok(Verdict::Same) => {}
                        Ok(Verdict::SameWithoutLost) => {
                            without_lost.fetch_add(1, Ordering::Relaxed);
                        }
                        Ok(Verdict::Undecided) => {
                            undecided.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(_) => {
                            case.shrink(run);
                            let error = run(&case).unwrap_err();
                            failed.lock().unwrap().get_or_insert(format!("{}{error}", case.told()));
                        }
                    }
                }
            });
        }
    });
    if let Some(failed) = failed.into_inner().unwrap() {
        panic!("{failed}");
    }
    let seen = SEEN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    for name in worth_seeing {
        assert!(cases < default || seen.contains(*name), "no case has {name}: {seen:?}");
    }
    Tally { cases, without_lost: without_lost.into_inner(), undecided: undecided.into_inner() }
}

#[test]
fn packets_one_by_one_are_treated_as_by_one_shard() {
    let Tally { cases, undecided, .. } = run_all(3000, Case::draw, one_by_one, &WORTH_SEEING);
    println!("{undecided} of {cases} drew a port that the capture names");
    assert!(undecided * 50 < cases.max(50), "{undecided} of {cases} drew a port that the capture names");
}

#[test]
fn packets_under_way_together_are_treated_as_by_one_shard_in_their_owners_order() {
    let Tally { cases, undecided, .. } = run_all(3000, Case::draw, together, &WORTH_SEEING);
    println!("{undecided} of {cases} have no order");
    assert!(undecided * 3 < cases, "{undecided} of {cases} have no order");
}

#[test]
fn what_finds_a_mailbox_full_is_counted_and_changes_nothing() {
    let Tally { cases, without_lost, undecided } = run_all(1000, Case::draw_full, together, &FULL);
    println!("{without_lost} of {cases} lost packets, {undecided} have no order");
    assert!(without_lost * 10 > cases || cases < 100, "only {without_lost} of {cases} lost packets");
}
