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
//! `WEIR_EQUIVALENCE_CASES` sets how many cases each test runs, `WEIR_EQUIVALENCE_SEED` the first one's seed.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod bench;
mod capture;
mod tables;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use weir::replay::{Arrival, Layout};

use bench::{Bench, Sent};
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
                        let layers = weir_wire::Layers::parse(bytes);
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
const WORTH_SEEING: [&str; 18] = [
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
];

/// How a case was judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Same,
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

/// Everything has to agree right now.
fn compare(many: &Bench, one: &Bench) -> Result<(), String> {
    let twice = many.twice();
    if !twice.is_empty() {
        return Err(format!("in two tables: {twice:?}"));
    }
    same("dump", &many.dump(), &one.dump())?;
    let counts = |bench: &Bench| -> Vec<_> { bench.counts().into_iter().collect() };
    same("counts", &counts(many), &counts(one))
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
        compare(&many, &one).map_err(|error| format!("{number}: {error}"))?;
    }
    if many.lost() > 0 {
        return Err(format!("{} packets were lost under way", many.lost()));
    }
    see(&mut many);
    ends(&mut many)?;
    ends(&mut one)?;
    if verdict == Verdict::Same {
        compare(&many, &one)?;
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
    let (mut came, mut verdict) = (Vec::new(), Verdict::Same);
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
            if random.one_in(3) {
                many.switch.work();
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
        let contends = |bench: &Bench| {
            let counts = bench.counts();
            ["refused_by_clash", "nat_exhausted", "refused_by_limit"]
                .iter()
                .any(|name| counts.contains_key(*name))
        };
        if contends(&many) {
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
        if verdict == Verdict::Same {
            sent_by_many.sort();
            sent_by_one.sort();
            same("sent", &sent_by_many, &sent_by_one).map_err(|error| format!("up to {number}: {error}"))?;
            compare(&many, &one).map_err(|error| format!("up to {number}: {error}"))?;
        }
        if let Some(Some(Step::Pause(by))) = step {
            many.pause(*by);
            one.pause(*by);
        }
    }
    if many.lost() > 0 {
        return Err(format!("{} packets were lost under way", many.lost()));
    }
    see(&mut many);
    ends(&mut many)?;
    Ok(verdict)
}

/// What an IPv4 fragment is a part of, and which.
fn place_of_fragment(frame: &[u8]) -> Option<Vec<u8>> {
    let layers = weir_wire::Layers::parse(frame);
    let is_one = layers.is_ipv4() && layers.fragment != weir_wire::Fragment::No;
    // Not by its addresses: tables may give several hosts the same one.
    let header = layers.l3_bytes(frame);
    if is_one { header.get(4..8).map(<[u8]>::to_vec) } else { None }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Runs many cases on all cores; the first that fails is told as shortly as it can be.
fn run_all(default: u64, run: fn(&Case) -> Result<Verdict, String>) -> (u64, u64) {
    let (cases, first) = (number("WEIR_EQUIVALENCE_CASES", default), number("WEIR_EQUIVALENCE_SEED", 1));
    println!("{cases} cases from seed {first} on");
    let (next, undecided, failed) = (AtomicU64::new(0), AtomicU64::new(0), Mutex::new(None));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let case = next.fetch_add(1, Ordering::Relaxed);
                    if case >= cases || failed.lock().unwrap().is_some() {
                        break;
                    }
                    let mut case = Case::draw(first + case);
                    match run(&case) {
                        Ok(Verdict::Same) => {}
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
    for name in WORTH_SEEING {
        assert!(cases < default || seen.contains(name), "no case has {name}: {seen:?}");
    }
    (cases, undecided.into_inner())
}

#[test]
fn packets_one_by_one_are_treated_as_by_one_shard() {
    let (cases, undecided) = run_all(3000, one_by_one);
    println!("{undecided} of {cases} drew a port that the capture names");
    assert!(undecided * 50 < cases.max(50), "{undecided} of {cases} drew a port that the capture names");
}

#[test]
fn packets_under_way_together_are_treated_as_by_one_shard_in_their_owners_order() {
    let (cases, undecided) = run_all(3000, together);
    println!("{undecided} of {cases} have no order");
    assert!(undecided * 3 < cases, "{undecided} of {cases} have no order");
}
