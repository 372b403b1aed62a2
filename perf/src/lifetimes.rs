//! Connections from beginning to end, through a whole worker in this process: what one costs that begins, alone and while
//! others live, and what bursts of an established connection wait while a great many others end within a second.
//! `weir-lifetimes` (`perf/lifetimes`) prints it.
//!
//! Frames lie in memory and are used again, so that a burst costs what the pipeline does with it (parsing, tables,
//! tracking, translation, checksums) and no device. The table is the README's. Time is an argument of the worker: a
//! minute passes by saying so, and only the second in which connections end passes as it does.
//!
//! Interrupts, a hypervisor and other users of the memory make bursts late that have nothing to do. So beside the time
//! that bursts took stands what of it the CPU spent on this program: core cycles in user mode, over the cycles of a
//! microsecond (those of the median burst over its time); and the instructions, which say what there was to do.

use std::time::Instant;

use arrayvec::ArrayVec;
use perf_event::events::Hardware;
use perf_event::{Builder, Counter};
use serde::Serialize;
use weir::flow::{Command, FlowFile, NoNames};
use weir::pipeline::{
    BURST, Burst, Frame, HeapFrame, PortId, PublishedSnapshot, Transmit, Worker, WorkerConfig,
};
use weir::replay::secret;
use weir::switch::Switch;
use weir_numa::memory::Placing;
use weir_numa::pin::{PinError, pin_current_thread};
use weir_shard::{ShardConfig, ShardError};

use crate::statistics::Summary;
use crate::traffic::{FRAME, Flow};

const NAT: &str = include_str!("../../examples/nat.flows");
const BRIDGE: &str = "br0";
/// Where clients are.
const INSIDE: PortId = 1;
/// Where servers are.
const OUTSIDE: PortId = 2;
/// Bursts between two housekeepings, as an lcore has rounds.
const ROUNDS: u32 = 8;
/// Milliseconds that an unanswered UDP connection lives (`Timeout::UdpFirst`).
const LIFE: u64 = 60_000;
/// The flow of the established connection; those of others are below.
const ESTABLISHED: u32 = (1 << 22) - 1;
/// Most connections: each has a flow of its own.
pub const MAX_CONNECTIONS: u32 = (1 << 22) - 2;

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum LifetimesError {
    /// There is no worker.
    #[error(transparent)]
    Shard(#[from] ShardError),
    /// The thread cannot have its CPU.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// The tables are refused.
    #[error("examples/nat.flows is refused: {0}")]
    Tables(String),
    /// Not all connections came about.
    #[error("{found} of {wanted} connections were set up")]
    Connections {
        /// In the table.
        found: u32,
        /// Sent.
        wanted: u32,
    },
}

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Connections that begin in each measurement of set-up.
    pub connections: u32,
    /// Connections that live meanwhile in the second of them, and that end together later.
    pub others: u32,
    /// Measurements of set-up.
    pub rounds: u32,
    /// Bursts of the established connection while nothing ends.
    pub bursts: u32,
    /// The CPU.
    pub core: u32,
}

/// One result, and one JSON line.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum Row {
    /// What a connection costs that begins.
    SetUp {
        /// Connections that began.
        connections: u32,
        /// Those that lived meanwhile.
        others: u32,
        /// Time stamp counter ticks for one.
        cycles: Summary,
    },
    /// How long bursts of an established connection took, with the housekeeping behind every eighth.
    Bursts {
        /// Connections that ended meanwhile.
        ended: u32,
        /// Bursts.
        bursts: usize,
        /// Microseconds.
        microseconds: Distribution,
        /// Microseconds without what interrupts and a hypervisor took; `None` where the kernel counts no cycles.
        own: Option<Distribution>,
        /// Instructions of a burst, of half of all at most and of all at most; `None` where the kernel counts none.
        instructions: Option<[u64; 2]>,
    },
}

/// How long something took.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Distribution {
    /// Half took no longer.
    pub p50: f64,
    /// 99 of 100.
    pub p99: f64,
    /// 999 of 1000.
    pub p99_9: f64,
    /// All.
    pub max: f64,
    /// How many took [`LATE`] longer than half of all.
    pub late: usize,
}

/// Microseconds beyond the median from which on a burst is late.
pub const LATE: f64 = 50.0;

impl Distribution {
    /// Of `values`; `None` of none.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().checked_sub(1)?;
        let at = |thousandths: usize| sorted.get(last * thousandths / 1000).copied();
        let p50 = at(500)?;
        let late = sorted.len() - sorted.partition_point(|value| *value <= p50 + LATE);
        Some(Self { p50, p99: at(990)?, p99_9: at(999)?, max: at(1000)?, late })
    }
}

/// Takes what is sent and keeps it, to be used again.
#[derive(Default)]
struct Sent(ArrayVec<HeapFrame, BURST>);

impl Transmit<HeapFrame> for Sent {
    fn send(&mut self, _: PortId, frame: HeapFrame) {
        // No more come out of a burst than went in.
        let _ = self.0.try_push(frame);
    }
}

impl core::fmt::Display for Distribution {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self { p50, p99, p99_9, max, late } = self;
        write!(f, "{p50:>10.1}{p99:>10.1}{p99_9:>10.1}{max:>10.1}{late:>10}")
    }
}

/// A worker and its traffic.
struct Rig {
    worker: Worker,
    _switch: Switch,
    sent: Sent,
    /// Milliseconds.
    now: u64,
    bursts: u32,
    /// Core cycles and instructions of this thread in user mode, where the kernel counts them.
    counters: [Option<Counter>; 2],
}

/// What a burst took.
#[derive(Clone, Copy, Default)]
struct Took {
    /// Of the time stamp counter.
    ticks: u64,
    /// Core cycles and instructions in user mode; 0 where nobody counts them.
    own: [u64; 2],
}

/// Counts events of this thread in user mode.
fn counter(event: Hardware) -> Option<Counter> {
    let mut counter = Builder::new(event).build().ok()?;
    counter.enable().ok()?;
    Some(counter)
}

impl Rig {
    fn new(capacity: u32) -> Result<Self, LifetimesError> {
        let refused = |error: &dyn std::fmt::Display| LifetimesError::Tables(error.to_string());
        let mut switch = Switch::default();
        switch.add_bridge(BRIDGE, 0).map_err(|error| refused(&error))?;
        for number in [1, 2] {
            let name = format!("p{number}");
            switch.add_port(BRIDGE, &name, Some(number)).map_err(|error| refused(&error))?;
        }
        let file = FlowFile::parse("nat.flows", NAT.as_bytes(), Command::Add, &NoNames);
        let flows = file.map_err(|error| refused(&error))?.flows;
        switch.replace(BRIDGE, &flows, false, 0).map_err(|error| refused(&error))?;
        let memory = Placing { node: None, hugepages: true };
        let shard = ShardConfig { capacity, max_connections: capacity, memory, ..ShardConfig::default() };
        let config = WorkerConfig { shard, megaflows: 1024, secret: secret(1), trajectories: true };
        let mut worker = Worker::new(config, PublishedSnapshot::new(switch.snapshot()).reader())?;
        worker.shard_mut().prefault();
        let sent = Sent((0..BURST).map(|_| HeapFrame::new(&[0; FRAME])).collect());
        let counters = [Hardware::CPU_CYCLES, Hardware::INSTRUCTIONS].map(counter);
        Ok(Self { worker, _switch: switch, sent, now: 1, bursts: 0, counters })
    }

    fn own(&mut self) -> [u64; 2] {
        let read = |counter: &mut Option<Counter>| counter.as_mut().and_then(|counter| counter.read().ok());
        self.counters.each_mut().map(|counter| read(counter).unwrap_or(0))
    }

    /// A packet of each of so many flows, a burst at the most.
    fn packets(&mut self, flows: impl Iterator<Item = u32>) -> Burst<HeapFrame> {
        let mut burst: Burst<HeapFrame> = Burst::new();
        for flow in flows.take(BURST) {
            let mut frame = self.sent.0.pop().unwrap_or_else(|| HeapFrame::new(&[0; FRAME]));
            frame.bytes_mut().copy_from_slice(&Flow::numbered(flow).frame());
            burst.push(frame);
        }
        burst
    }

    /// Sends packets; how many ticks of the time stamp counter that took.
    fn burst(&mut self, mut burst: Burst<HeapFrame>) -> u64 {
        let start = weir_ffi::tsc();
        self.work(&mut burst);
        weir_ffi::tsc().wrapping_sub(start)
    }

    /// What an lcore does with a burst; a function of its own that profilers can be told of.
    #[inline(never)]
    fn work(&mut self, burst: &mut Burst<HeapFrame>) {
        self.worker.process(self.now, INSIDE, burst, &mut self.sent);
        self.bursts = self.bursts.wrapping_add(1);
        if self.bursts.is_multiple_of(ROUNDS) {
            self.worker.housekeeping(self.now);
        }
    }

    /// Opens connections within a second; ticks for each.
    #[expect(clippy::cast_precision_loss, reason = "ticks of a few seconds stay below 2^53")]
    fn open(&mut self, flows: core::ops::Range<u32>) -> Result<f64, LifetimesError> {
        let (before, wanted, began) = (self.worker.shard().len(), flows.end - flows.start, self.now);
        let mut ticks = 0;
        for first in flows.clone().step_by(BURST) {
            self.now = began + u64::from(first - flows.start) * 1000 / u64::from(wanted);
            let packets = self.packets(first..flows.end);
            ticks += self.burst(packets);
        }
        let found = self.worker.shard().len() - before;
        if found != wanted {
            return Err(LifetimesError::Connections { found, wanted });
        }
        Ok(ticks as f64 / f64::from(wanted))
    }

    /// Has the server answer the established connection's client.
    fn establish(&mut self) {
        let opening = self.packets(core::iter::once(ESTABLISHED));
        self.burst(opening);
        let Some(mut frame) = self.sent.0.pop() else { return };
        // Addresses and ports of IPv4 without options, as they were translated.
        if let Some(&[a, b, c, d, e, f, g, h, p, q, r, s]) =
            frame.bytes().get(26..38).and_then(<[u8]>::first_chunk)
        {
            let dst = ([a, b, c, d].into(), u16::from_be_bytes([p, q]));
            let answer = Flow { src: ([e, f, g, h].into(), u16::from_be_bytes([r, s])), dst };
            frame.bytes_mut().copy_from_slice(&answer.frame());
        }
        let mut burst: Burst<HeapFrame> = core::iter::once(frame).collect();
        self.worker.process(self.now, OUTSIDE, &mut burst, &mut self.sent);
    }

    /// Lets all connections end.
    fn settle(&mut self) {
        self.now += LIFE + 1000;
        while self.worker.housekeeping(self.now) > 0 {}
    }

    /// Bursts of the established connection while the clock goes, until `done`, and the row that says how long they took.
    #[expect(clippy::cast_precision_loss, reason = "ticks of a few seconds stay below 2^53")]
    fn bursts_until(&mut self, ended: u32, mut done: impl FnMut(&Self, usize) -> bool) -> Option<Row> {
        let mut all: Vec<Took> = Vec::with_capacity(1 << 22);
        let (began, start, first) = (self.now, Instant::now(), weir_ffi::tsc());
        while !done(self, all.len()) {
            self.now = began + u64::try_from(start.elapsed().as_millis()).unwrap_or(0);
            let packets = self.packets(core::iter::repeat_n(ESTABLISHED, BURST));
            let before = self.own();
            let ticks = self.burst(packets);
            let after = self.own();
            all.push(Took { ticks, own: core::array::from_fn(|at| after[at].saturating_sub(before[at])) });
        }
        let tick = start.elapsed().as_secs_f64() * 1e6 / weir_ffi::tsc().wrapping_sub(first).max(1) as f64;
        let times: Vec<f64> = all.iter().map(|took| took.ticks as f64 * tick).collect();
        let own: Vec<[f64; 2]> = all.iter().map(|took| took.own.map(|count| count as f64)).collect();
        Row::of(ended, &times, &own)
    }
}

/// All rows of a plan.
///
/// # Errors
/// What cannot be had for it.
pub fn measure(plan: &Plan) -> Result<Vec<Row>, LifetimesError> {
    pin_current_thread(plan.core)?;
    let Plan { connections, others, rounds, bursts, .. } = *plan;
    let mut rig = Rig::new(connections.saturating_add(others).saturating_add(1))?;
    // Megaflows are made, caches and branches are warm: an lcore that works.
    rig.open(0..connections)?;
    rig.settle();
    let mut rows = Vec::new();
    for others in [0, others] {
        let mut cycles = Vec::new();
        for _ in 0..rounds {
            if others > 0 {
                rig.open(connections..connections + others)?;
            }
            cycles.push(rig.open(0..connections)?);
            rig.settle();
        }
        rows.extend(Summary::of(&cycles).map(|cycles| Row::SetUp { connections, others, cycles }));
    }
    // All of them begin within a second, and live while nothing ends.
    let began = rig.now;
    rig.open(0..others)?;
    rig.establish();
    rig.bursts_until(0, |_, done| done >= BURST);
    rows.extend(rig.bursts_until(0, |_, done| done >= bursts as usize));
    // The established one is heard of in time, and then the others end.
    for third in [LIFE / 3, LIFE / 3 * 2] {
        rig.now = rig.now.max(began + third);
        rig.bursts_until(0, |_, done| done >= BURST);
    }
    rig.now = began + LIFE;
    let before = rig.worker.shard().counters().expired;
    let all_ended = |rig: &Rig, _| rig.worker.shard().counters().expired - before >= u64::from(others);
    rows.extend(rig.bursts_until(others, all_ended));
    Ok(rows)
}

impl Row {
    /// Of bursts that took so many microseconds, and core cycles and instructions of their own, each.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts below 2^53")]
    fn of(ended: u32, times: &[f64], own: &[[f64; 2]]) -> Option<Self> {
        let microseconds = Distribution::of(times)?;
        let [cycles, instructions] = [0, 1].map(|at| own.iter().map(|own| own[at]).collect::<Vec<_>>());
        let a_microsecond = Distribution::of(&cycles)?.p50 / microseconds.p50;
        let own = (a_microsecond > 0.0)
            .then(|| cycles.iter().map(|cycles| cycles / a_microsecond).collect::<Vec<_>>())
            .and_then(|own| Distribution::of(&own));
        let instructions = Distribution::of(&instructions)
            .filter(|all| all.p50 > 0.0)
            .map(|all| [all.p50 as u64, all.max as u64]);
        Some(Self::Bursts { ended, bursts: times.len(), microseconds, own, instructions })
    }
}

/// The rows for people.
#[must_use]
pub fn table(rows: &[Row]) -> String {
    let mut set_up =
        String::from("set-up, cycles a connection: median (min to max)\n connections      others\n");
    let mut waits = String::from(
        "\nbursts of an established connection, microseconds\n      bursts       ended       p50       p99     p99.9       max  50 later\n",
    );
    for row in rows {
        match row {
            Row::SetUp { connections, others, cycles: Summary { median, min, max } } => {
                set_up += &format!("{connections:>12}{others:>12}  {median:.0} ({min:.0} to {max:.0})\n");
            }
            Row::Bursts { ended, bursts, microseconds, own, instructions } => {
                waits += &format!("{bursts:>12}{ended:>12}{microseconds}\n");
                if let Some(own) = own {
                    waits += &format!("{:>24}{own}\n", "on the CPU");
                }
                if let Some([half, all]) = instructions {
                    waits += &format!("{:>24}{half:>10}{all:>30}\n", "instructions");
                }
            }
        }
    }
    set_up + &waits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distribution_names_its_tail() {
        let values: Vec<f64> = (0..=1000).rev().map(f64::from).collect();
        let wanted = Distribution { p50: 500.0, p99: 990.0, p99_9: 999.0, max: 1000.0, late: 450 };
        assert_eq!(Distribution::of(&values), Some(wanted));
        assert_eq!(Distribution::of(&[]), None);
        let one = Distribution { p50: 2.5, p99: 2.5, p99_9: 2.5, max: 2.5, late: 0 };
        assert_eq!(Distribution::of(&[2.5]), Some(one));
    }

    #[test]
    fn rows_are_shown_by_kind() {
        let cycles = Summary { median: 600.0, min: 590.4, max: 700.0 };
        let microseconds = Distribution { p50: 2.0, p99: 9.0, p99_9: 12.34, max: 80.0, late: 3 };
        let own = Some(Distribution { max: 40.0, late: 0, ..microseconds });
        let rows = [
            Row::SetUp { connections: 1000, others: 0, cycles },
            Row::Bursts { ended: 7, bursts: 99, microseconds, own, instructions: Some([35_000, 59_000]) },
            Row::Bursts { ended: 8, bursts: 99, microseconds, own: None, instructions: None },
        ];
        let text = table(&rows);
        assert!(text.contains("        1000           0  600 (590 to 700)\n"), "{text}");
        let lines = "          99           7       2.0       9.0      12.3      80.0         3
              on the CPU       2.0       9.0      12.3      40.0         0
            instructions     35000                         59000
          99           8       2.0       9.0      12.3      80.0         3\n";
        assert!(text.ends_with(lines), "{text}");
    }

    #[test]
    fn own_time_is_in_the_unit_of_the_median_burst() {
        // Four cycles a microsecond; the last burst was interrupted for most of its time.
        let own = [[8.0, 30.0], [8.0, 31.0], [8.0, 31.0], [8.0, 31.0], [12.0, 40.0]];
        let Some(Row::Bursts { microseconds, own: Some(own), instructions, .. }) =
            Row::of(0, &[2.0, 2.0, 2.0, 2.0, 900.0], &own)
        else {
            panic!("both are known");
        };
        assert_eq!((microseconds.max, microseconds.late), (900.0, 1));
        assert_eq!((own.p50, own.max, own.late), (2.0, 3.0, 0));
        assert_eq!(instructions, Some([31, 40]));
        // Without counters.
        let Some(Row::Bursts { own, instructions, .. }) = Row::of(0, &[2.0], &[[0.0; 2]]) else {
            panic!("the time is known")
        };
        assert_eq!((own, instructions), (None, None));
    }

    #[test]
    fn no_burst_has_much_more_to_do_while_connections_end() {
        let plan = Plan { connections: 1000, others: 30_000, rounds: 1, bursts: 2000, core: 0 };
        let rows = measure(&plan).unwrap();
        let counted = rows.iter().filter_map(|row| match row {
            Row::Bursts { ended, instructions, .. } => Some((*ended, instructions.unwrap_or_default())),
            Row::SetUp { .. } => None,
        });
        let [(0, quiet), (30_000, ending)] = counted.collect::<Vec<_>>()[..] else {
            panic!("bursts with and without: {rows:?}")
        };
        if quiet == [0; 2] {
            println!("skipped: the kernel counts no instructions here");
            return;
        }
        let [half, all] = ending;
        // A burst takes 36 000 instructions, and a sweep some 650 more for each of the 32 connections that it ends.
        assert!(all < half * 2 && half < quiet[0] * 11 / 10, "{quiet:?} {ending:?}");
    }
}
