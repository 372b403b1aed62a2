//! Takes steps with a shard and with the model, and compares them.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};

use weir_nat::NatAction;
use weir_shard::{
    ConnectionView, CtMeta, CtState, DropReason, DumpCursor, EndCause, EventKind, Outcome, ProtocolState,
    Shard, ShardConfig, TcpState, Timeouts,
};
use weir_wire::Layers;

use crate::conntrack::{Carried, Heard, Model, What};
use crate::packet::{Packet, frame};
use crate::random::{Clock, Op, Random, Sent, Step, packet, timeouts};
use crate::tuple::Tuple;

/// Steps between two comparisons of everything.
const DUMP_EACH: usize = 8;

/// Room for more events than a step can cause.
const EVENTS: usize = 4096;

/// What a shard is made with.
#[derive(Clone, Debug)]
pub struct Setting {
    pub capacity: u32,
    pub max_connections: u32,
    pub liberal: bool,
    pub timeouts: Timeouts,
    pub secret: [u64; 4],
    pub reading: u64,
    /// The shard is told something else than the model.
    pub mistaken: bool,
}

impl Setting {
    pub fn draw(random: &mut Random) -> Self {
        let timeouts = if random.one_in(2) { timeouts(random) } else { Timeouts::default() };
        Self {
            capacity: random.pick(&[1, 5, 30, 64, 200]),
            max_connections: random.pick(&[5, 20, 1000, 1000]),
            liberal: random.one_in(5),
            timeouts,
            secret: [random.number(), random.number(), random.number(), random.number()],
            reading: random.pick(&[0, 17, 1_700_000_000_000, u64::MAX - (1 << 46)]),
            mistaken: false,
        }
    }
}

/// What came by, to know whether the steps are worth taking.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    states: BTreeSet<u8>,
    drops: BTreeSet<&'static str>,
    tcp: BTreeSet<(TcpState, TcpState)>,
    translated: u64,
    counters: BTreeSet<&'static str>,
}

impl Seen {
    pub fn add(&mut self, other: &Self) {
        self.states.extend(&other.states);
        self.drops.extend(&other.drops);
        self.tcp.extend(&other.tcp);
        self.translated += other.translated;
        self.counters.extend(&other.counters);
    }

    /// Every kind of answer was given.
    pub fn check(&self) {
        let all = [CtState::NONE, CtState::SNAT, CtState::DNAT];
        let tracked = [
            CtState::NEW,
            CtState::EST,
            CtState::EST.with(CtState::RPL),
            CtState::REL,
            CtState::REL.with(CtState::RPL),
            CtState::INV,
        ];
        for state in tracked {
            for translated in all {
                let state = state.with(translated).with(CtState::TRK);
                assert!(self.states.contains(&state.0), "no packet was {:#04x}", state.0);
            }
        }
        for reason in DropReason::ALL {
            // The headers that are drawn can carry any translation, and a shard alone hands nothing over.
            let is_drawn = !matches!(reason, DropReason::Untranslatable | DropReason::HandoverHops);
            assert!(
                !is_drawn || self.drops.contains(reason.name()),
                "none was dropped for {}",
                reason.name()
            );
        }
        for (state, other) in [
            (TcpState::SynSent, TcpState::Closed),
            (TcpState::Established, TcpState::Established),
            (TcpState::Closing, TcpState::Established),
            (TcpState::FinWait2, TcpState::FinWait2),
            (TcpState::TimeWait, TcpState::TimeWait),
        ] {
            assert!(self.tcp.contains(&(state, other)), "no connection was {state}, {other}");
        }
        for counter in [
            "expired",
            "flushed",
            "replaced",
            "refused_by_limit",
            "refused_by_clash",
            "refused_by_zone_limit",
        ] {
            assert!(self.counters.contains(counter), "nothing was {counter}");
        }
        assert!(self.counters.contains("refused_by_full_table") && self.counters.contains("nat_exhausted"));
        assert!(self.translated > 1000, "{}", self.translated);
    }
}

/// A packet on its way through its ct actions, on both sides.
pub struct Way<'a> {
    pub ops: &'a [Op],
    pub trusted: bool,
    pub bytes: Vec<u8>,
    pub layers: Layers,
    pub meta: CtMeta,
    pub packet: Packet,
    pub carried: Carried,
}

impl<'a> Way<'a> {
    /// A packet that comes in.
    pub fn new(sent: &'a Sent, model: &Model) -> Self {
        let packet = packet(&sent.what, model);
        let bytes = frame(&packet);
        Self {
            ops: &sent.ops,
            trusted: sent.trusted && packet.fault.is_none(),
            layers: Layers::parse(&bytes),
            bytes,
            meta: CtMeta::default(),
            carried: Carried::default(),
            packet,
        }
    }
}

/// Takes the steps; what was done is written to `story`. An error is a difference, or a panic of the shard.
pub fn run(setting: &Setting, steps: &[Step], story: &mut String) -> Result<Seen, String> {
    match catch_unwind(AssertUnwindSafe(|| Lab::new(setting).run(steps, story))) {
        Ok(result) => result,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            Err(format!("panic: {}", text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("?")))
        }
    }
}

struct Lab {
    shard: Shard,
    model: Model,
    reading: u64,
    seen: Seen,
    /// Ends by timeout that the shard still has to tell of: it does when it meets or sweeps the connection.
    owed: Vec<String>,
}

impl Lab {
    fn new(setting: &Setting) -> Self {
        let config = ShardConfig {
            capacity: setting.capacity,
            liberal_tcp: setting.liberal != setting.mistaken,
            timeouts: setting.timeouts.clone(),
            max_connections: setting.max_connections,
            ..ShardConfig::default()
        };
        let (capacity, limit) = (setting.capacity as usize, setting.max_connections as usize);
        let mut lab = Self {
            shard: Shard::new(config, setting.secret).unwrap(),
            model: Model::new(capacity, limit, setting.liberal, setting.timeouts.clone()),
            reading: setting.reading,
            seen: Seen::default(),
            owed: Vec::new(),
        };
        // Both see the clock for the first time, so that no dump, which only looks, comes before it.
        lab.sweep(0);
        lab.shard.listen(Vec::with_capacity(EVENTS));
        lab
    }

    fn run(mut self, steps: &[Step], story: &mut String) -> Result<Seen, String> {
        for (number, step) in steps.iter().enumerate() {
            self.step(step, story)?;
            self.compare_events(matches!(step, Step::Flush { .. }))?;
            if number % DUMP_EACH == 0 {
                self.compare_all()?;
            }
        }
        self.compare_all()?;
        // What has expired without being met yet is gone when everything was looked at.
        self.sweep(u32::MAX);
        self.compare_counters(true)?;
        self.compare_events(false)?;
        if let Some(never) = self.owed.first() {
            return Err(format!("nobody was told of the end of {never}"));
        }
        let counters = self.shard.counters();
        self.seen.counters =
            counters.iter().filter(|(_, count, _)| *count > 0).map(|(name, ..)| name).collect();
        Ok(self.seen)
    }

    fn step(&mut self, step: &Step, story: &mut String) -> Result<(), String> {
        match step {
            Step::Burst { clock, packets } => {
                self.reading = match clock {
                    Clock::Stands => self.reading,
                    Clock::Forward(by) => self.reading.saturating_add(*by),
                    Clock::Back(by) => self.reading.saturating_sub(*by),
                };
                self.burst(packets, story)
            }
            Step::Sweep { budget } => {
                let _ = writeln!(story, "sweep {budget}");
                self.sweep(*budget);
                Ok(())
            }
            Step::Flush { zone, mark, slots } => {
                let _ = writeln!(story, "flush zone={zone:?} mark={mark:?}");
                self.model.look_at_clock(self.reading);
                let mut cursor = DumpCursor::default();
                while !cursor.is_done() {
                    self.shard.flush(self.reading, &mut cursor, *slots, &mut |view| {
                        zone.is_none_or(|zone| view.zone == zone)
                            && mark.is_none_or(|(value, mask)| view.mark & mask == value & mask)
                    });
                }
                self.model.flush(|connection| {
                    zone.is_none_or(|zone| connection.original.zone == zone)
                        && mark.is_none_or(|(value, mask)| connection.mark & mask == value & mask)
                });
                Ok(())
            }
            Step::MaxConnections(limit) => {
                let _ = writeln!(story, "max_connections {limit}");
                self.shard.set_max_connections(*limit);
                self.model.max_connections = *limit as usize;
                Ok(())
            }
            Step::ZoneLimit(zone, limit) => {
                let _ = writeln!(story, "limit {limit:?} of zone {zone:?}");
                match zone {
                    Some(zone) => {
                        self.shard.set_zone_limit(*zone, *limit);
                        self.model.zone_limits.remove(zone);
                        self.model.zone_limits.extend(limit.map(|limit| (*zone, limit as usize)));
                    }
                    None => {
                        self.shard.set_default_zone_limit(*limit);
                        self.model.default_zone_limit = limit.map(|limit| limit as usize);
                    }
                }
                Ok(())
            }
            Step::ZoneTimeouts(zone, timeouts) => {
                let _ = writeln!(story, "timeouts {timeouts:?} of zone {zone}");
                self.shard.set_zone_timeouts(*zone, timeouts.clone()).unwrap();
                self.model.zone_timeouts.remove(zone);
                self.model.zone_timeouts.extend(timeouts.clone().map(|timeouts| (*zone, timeouts)));
                Ok(())
            }
            Step::Liberal(liberal) => {
                let _ = writeln!(story, "liberal {liberal}");
                self.shard.set_liberal_tcp(*liberal);
                self.model.liberal = *liberal;
                Ok(())
            }
        }
    }

    fn sweep(&mut self, budget: u32) {
        self.model.look_at_clock(self.reading);
        self.shard.sweep(self.reading, budget);
    }

    /// Packets that are received together: each does its first ct, then each its second, and so on.
    fn burst(&mut self, sent: &[Sent], story: &mut String) -> Result<(), String> {
        self.model.look_at_clock(self.reading);
        let mut ways: Vec<Way<'_>> = sent.iter().map(|sent| Way::new(sent, &self.model)).collect();
        for way in &ways {
            let _ = writeln!(story, "at {}: {}", self.reading, way.packet);
        }
        while ways.iter().any(|way| !way.ops.is_empty()) {
            let mut lookups = Vec::new();
            for way in &mut ways {
                while let [Op::Clear, rest @ ..] = way.ops {
                    let _ = writeln!(story, "  ct_clear");
                    way.ops = rest;
                    way.meta.clear();
                    way.carried = Carried::default();
                }
                let [Op::Ct(action), ..] = way.ops else {
                    lookups.push(None);
                    continue;
                };
                lookups.push(Some(self.shard.prepare(
                    &way.bytes,
                    &way.layers,
                    action.zone,
                    &way.meta,
                    way.trusted,
                )));
            }
            for (way, lookup) in ways.iter().zip(&mut lookups) {
                let ([Op::Ct(action), ..], Some(lookup)) = (way.ops, lookup) else { continue };
                self.shard.prefetch(lookup);
                self.shard.foresee(lookup, action);
            }
            for (way, lookup) in ways.iter_mut().zip(lookups) {
                let ([Op::Ct(action), rest @ ..], Some(lookup)) = (way.ops, lookup) else { continue };
                let _ = write!(story, "  {} for {}", Shown(action), way.packet);
                let outcome = self.shard.execute(
                    self.reading,
                    &mut way.bytes,
                    &way.layers,
                    &lookup,
                    action,
                    &mut way.meta,
                );
                let (shard, reading) = (&self.shard, self.reading);
                let choice = |tuple: Tuple| reply_of(shard, reading, tuple);
                let expected = self.model.ct(&mut way.packet, &mut way.carried, action, &choice);
                let state = way.meta.state;
                let _ = writeln!(story, ": {outcome:?}, ct_state {:#04x}", state.0);
                compare(way, outcome, expected?)?;
                way.ops = rest;
                match outcome {
                    Outcome::Elsewhere { .. } => panic!("a shard alone owns everything"),
                    Outcome::Continue { rewritten } => {
                        self.seen.states.insert(state.0);
                        self.seen.translated += u64::from(rewritten);
                    }
                    Outcome::Edit => return Err("an edit without a helper".into()),
                    Outcome::Drop(reason) => {
                        self.seen.drops.insert(reason.name());
                        way.ops = &[];
                    }
                }
            }
        }
        self.compare_counters(false)
    }

    /// The whole dump.
    fn compare_all(&mut self) -> Result<(), String> {
        self.model.look_at_clock(self.reading);
        let mut found: Vec<String> = Vec::new();
        let seen = &mut self.seen;
        let mut cursor = DumpCursor::default();
        while !cursor.is_done() {
            self.shard.dump(self.reading, &mut cursor, 7, &mut |view| {
                if let ProtocolState::Tcp { original, reply } = view.state {
                    seen.tcp.insert((original, reply));
                }
                found.push(line(view));
            });
        }
        let mut expected: Vec<String> =
            self.model.connections.values().map(|connection| line(&self.model.view(connection))).collect();
        found.sort();
        expected.sort();
        if found == expected {
            return Ok(());
        }
        let only = |these: &[String], those: &[String]| -> String {
            these.iter().filter(|line| !those.contains(line)).map(|line| format!("\n    {line}")).collect()
        };
        Err(format!(
            "the dump differs\n  shard:{}\n  model:{}",
            only(&found, &expected),
            only(&expected, &found)
        ))
    }

    /// New, update and destroy, each once and in order; but for timeouts, which are told of when they are found out.
    fn compare_events(&mut self, flushed: bool) -> Result<(), String> {
        let batch = self.shard.exchange_events(Vec::with_capacity(EVENTS));
        if batch.lost > 0 {
            return Err(format!("{} events were lost", batch.lost));
        }
        let shown = self.model.shown.unwrap_or_default();
        let mut expected = Vec::new();
        for Heard { what, connection, .. } in self.model.events.drain(..) {
            if what == What::Destroy(EndCause::Timeout) {
                self.owed.push(last_line(&connection));
            } else {
                expected.push(format!("at {shown}: {what:?} {}", line(&connection)));
            }
        }
        let mut found = Vec::new();
        for event in batch.events {
            let what = match event.kind {
                EventKind::New => What::New,
                EventKind::Update(changes) => What::Update(changes.names().collect()),
                EventKind::Destroy(EndCause::Timeout) => {
                    let last = last_line(&event.connection);
                    let Some(at) = self.owed.iter().position(|owed| *owed == last) else {
                        return Err(format!("the shard tells of the end of {last}, which has not ended"));
                    };
                    self.owed.swap_remove(at);
                    continue;
                }
                EventKind::Destroy(cause) => What::Destroy(cause),
            };
            found.push(format!("at {}: {what:?} {}", event.at, line(&event.connection)));
        }
        if flushed {
            // A flush goes by slots, the model by age.
            found.sort();
            expected.sort();
        }
        match found == expected {
            true => Ok(()),
            false => Err(format!("events differ\n  shard: {found:#?}\n  model: {expected:#?}")),
        }
    }

    /// What was counted; of expired connections only once the shard has met or swept them all.
    fn compare_counters(&self, swept: bool) -> Result<(), String> {
        let (shard, model) = (self.shard.counters(), &self.model.counts);
        let waiting = u64::from(self.shard.len()) - self.model.connections.len() as u64;
        let pairs = [
            ("created", shard.created, model.created),
            ("expired", shard.expired + waiting, model.expired),
            ("waiting for a sweep", if swept { waiting } else { 0 }, 0),
            ("flushed", shard.flushed, model.flushed),
            ("replaced", shard.replaced, model.replaced),
            ("refused_by_limit", shard.refused_by_limit, model.refused_by_limit),
            ("refused_by_zone_limit", shard.refused_by_zone_limit, model.refused_by_zone_limit),
            ("refused_by_full_table", shard.refused_by_full_table, model.refused_by_full_table),
            ("refused_by_clash", shard.refused_by_clash, model.refused_by_clash),
            ("nat_exhausted", shard.nat_exhausted, model.nat_exhausted),
            ("established", shard.established, model.established),
            ("new", shard.new, model.new),
            ("related", shard.related, model.related),
        ];
        match pairs.iter().find(|(_, shard, model)| shard != model) {
            Some((name, shard, model)) => Err(format!("{name}: {shard} in the shard, {model} in the model")),
            None => Ok(()),
        }
    }
}

/// Everything about a connection that is shown.
pub fn line(view: &ConnectionView) -> String {
    format!(
        "{} age={} remaining={} idle={:?}",
        last_line(view),
        view.age,
        view.remaining,
        view.traffic.map(|traffic| traffic.idle)
    )
}

/// Everything but its times.
fn last_line(view: &ConnectionView) -> String {
    let answered = match view.state {
        ProtocolState::Other { answered } => format!(" answered={answered}"),
        ProtocolState::Tcp { .. } | ProtocolState::Sctp { .. } => String::new(),
    };
    format!(
        "{} source_nat={} destination_nat={}{answered} carried={:?}",
        view.with_states(false),
        view.source_nat,
        view.destination_nat,
        view.traffic.map(|traffic| (traffic.original, traffic.reply))
    )
}

/// The reply tuple of the shard's connection with this original tuple.
fn reply_of(shard: &Shard, reading: u64, original: Tuple) -> Option<Tuple> {
    let mut reply = None;
    let shown = original.shown();
    shard.dump(reading, &mut DumpCursor::default(), usize::MAX, &mut |view| {
        if view.original == shown {
            reply = Some(Tuple::read(&view.reply));
        }
    });
    reply
}

/// What both sides say of a packet after a ct action.
pub fn compare(way: &Way<'_>, outcome: Outcome, expected: Outcome) -> Result<(), String> {
    if outcome != expected {
        return Err(format!("the shard says {outcome:?}, the model {expected:?}"));
    }
    if let Outcome::Drop(_) = outcome {
        return Ok(());
    }
    let (meta, carried) = (&way.meta, &way.carried);
    let found = (meta.state, meta.zone, meta.mark, meta.label, meta.original, meta.connection.is_some());
    let original = carried.original.map(Tuple::shown);
    let belongs = carried.connection.is_some();
    let expected = (carried.state, carried.zone, carried.mark, carried.label, original, belongs);
    if found != expected {
        return Err(format!(
            "state, zone, mark, label, original tuple, belongs\n  shard: {found:?}\n  model: {expected:?}"
        ));
    }
    let bytes = frame(&way.packet);
    if way.bytes != bytes {
        return Err(format!(
            "the packet should be {}\n  shard: {:02x?}\n  model: {bytes:02x?}",
            way.packet, way.bytes
        ));
    }
    Ok(())
}

/// A ct action as flows have it, near enough.
pub struct Shown<'a>(pub &'a weir_shard::CtAction);

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let action = self.0;
        write!(f, "ct(zone={}", action.zone)?;
        f.write_str(if action.commit { ",commit" } else { "" })?;
        f.write_str(if action.force { ",force" } else { "" })?;
        if let Some((value, mask)) = action.mark {
            write!(f, ",mark={value:#x}/{mask:#x}")?;
        }
        if let Some((value, mask)) = action.label {
            write!(f, ",label={value:#x}/{mask:#x}")?;
        }
        match &action.nat {
            Some(NatAction::Apply) => f.write_str(",nat")?,
            Some(nat) => write!(f, ",{nat:?}")?,
            None => {}
        }
        f.write_str(")")
    }
}
