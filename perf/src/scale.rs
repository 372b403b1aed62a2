//! What a second lcore brings: packets per second by wall clock of one lcore and of two, with packets that arrive at
//! their owners, at the other lcore, or anywhere. `weir-lcores scale` is the program. The lcores' share of their CPUs is
//! read from the kernel, because a machine that does other things too takes some of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;
use weir_shard::steering::{KeyWord, Steering};
use weir_wire::Tuple4;
use weir_wire::numbers::protocol;

use crate::BenchError;
use crate::process::Stop;
use crate::statistics::Summary;
use crate::switch::{LcoreStatistics, Switch};
use crate::traffic::{self, Flow};

/// The key word that the bench knows, so that it knows whose packets are whose.
pub const SETTINGS: &str = "[steering]\nkey_word = 0x6d5a\n";
const NAT: &str = include_str!("../nat.flows");
const FORWARD: &str = include_str!("../forward.flows");
/// Caches fill, megaflows are made.
const SETTLE: Duration = Duration::from_millis(700);
/// For all connections to be set up.
const SET_UP: Duration = Duration::from_secs(60);
/// UDP by number.
const UDP: u8 = protocol::UDP;

/// What the packets are, and at which queue they arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Arrival {
    /// From port to port without tracking.
    Forward,
    /// Established connections with NAT, both directions, each packet at the lcore that owns it.
    Owner,
    /// Likewise, each at an lcore that does not.
    Wrong,
    /// Likewise, each at either.
    Random,
}

impl std::fmt::Display for Arrival {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Forward => "forward",
            Self::Owner => "NAT, at the owner",
            Self::Wrong => "NAT, at the other",
            Self::Random => "NAT, at either",
        })
    }
}

/// One measurement, and one JSON line.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Figure {
    /// What arrived where; with one lcore there is no difference between the ways of arriving.
    pub arrival: Arrival,
    /// How many lcores polled.
    pub lcores: usize,
    /// From 1.
    pub round: u32,
    /// Sent, per second by wall clock, by all lcores.
    pub packets_per_second: f64,
    /// Sent, per second that an lcore had a CPU, by all lcores.
    pub packets_per_cpu_second: f64,
    /// Part of the time that the lcores had their CPUs.
    pub cpu_share: f64,
    /// Part of the packets received that were handed over.
    pub handed_over: f64,
    /// Part of the packets received that were not sent.
    pub lost: f64,
}

/// The summary of one kind of arrival, and one JSON line.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Row {
    /// What arrived where.
    pub arrival: Arrival,
    /// Millions of packets per second of one lcore.
    pub one: Summary,
    /// Millions of packets per second of two.
    pub two: Summary,
    /// Median of two by median of one, by wall clock.
    pub ratio: f64,
    /// Likewise by the time that the lcores had their CPUs.
    pub ratio_by_cpu_time: f64,
    /// Part of the packets that were handed over with two lcores.
    pub handed_over: f64,
    /// Most that was lost in any round with two.
    pub lost: f64,
}

/// What all rounds have in common.
#[derive(Debug)]
pub struct Scale<'a> {
    /// Connections.
    pub sessions: u32,
    /// How long each measurement counts.
    pub time: Duration,
    /// Ends every wait.
    pub stop: &'a Stop,
}

/// One direction of the traffic: a capture for each queue of its port.
struct Input {
    name: &'static str,
    port: u16,
    queues: Vec<Vec<Flow>>,
}

impl Scale<'_> {
    /// Measures what is in `arrivals` on a switch that has just started with this many lcores.
    ///
    /// # Errors
    /// Whatever goes wrong; the switch is to be stopped then.
    pub fn run(
        &self,
        switch: &Switch,
        lcores: usize,
        round: u32,
        arrivals: &[Arrival],
    ) -> Result<Vec<Figure>, BenchError> {
        let mut figures = Vec::new();
        let flows: Vec<Flow> = (0..self.sessions).map(Flow::numbered).collect();
        switch.add_port("pout", 2, "net_null0,no-rx=1")?;
        if arrivals.contains(&Arrival::Forward) {
            switch.set_flows(FORWARD)?;
            let input = Input { name: "pin", port: 1, queues: dealt(&flows, lcores) };
            figures.push(self.measure(switch, Arrival::Forward, lcores, round, &[input])?);
        }
        if arrivals.iter().all(|arrival| *arrival == Arrival::Forward) {
            return Ok(figures);
        }
        switch.set_flows(NAT)?;
        let connections = self.open(switch, dealt(&flows, lcores))?;
        let (inside, outside): (Vec<Flow>, Vec<Flow>) = connections.into_iter().unzip();
        let steering = Steering::symmetric(lcores, KeyWord::WELL_KNOWN);
        for &arrival in arrivals.iter().filter(|arrival| **arrival != Arrival::Forward) {
            // To one lcore everything comes in one way.
            if lcores == 1 && arrival != Arrival::Owner {
                continue;
            }
            let place = |flows| sorted(flows, &steering, lcores, arrival);
            let inputs = [
                Input { name: "pin", port: 1, queues: place(&inside) },
                Input { name: "pback", port: 3, queues: place(&outside) },
            ];
            figures.push(self.measure(switch, arrival, lcores, round, &inputs)?);
        }
        Ok(figures)
    }

    /// Opens the connections; gives both directions of each.
    fn open(&self, switch: &Switch, queues: Vec<Vec<Flow>>) -> Result<Vec<(Flow, Flow)>, BenchError> {
        let wanted = u64::from(self.sessions);
        add_input(switch, &Input { name: "pin", port: 1, queues }, "open")?;
        self.stop.wait_for(&format!("{wanted} connections"), SET_UP, || {
            Ok((switch.connections()? >= wanted).then_some(()))
        })?;
        switch.del_port("pin")?;
        let connections = traffic::connections(&switch.dump_connections()?);
        let found = connections.len().try_into().unwrap_or(u64::MAX);
        if found == wanted { Ok(connections) } else { Err(BenchError::Connections { found, wanted }) }
    }

    fn measure(
        &self,
        switch: &Switch,
        arrival: Arrival,
        lcores: usize,
        round: u32,
        inputs: &[Input],
    ) -> Result<Figure, BenchError> {
        let tag = format!("{arrival:?}").to_lowercase();
        inputs.iter().try_for_each(|input| add_input(switch, input, &tag))?;
        self.stop.pause(SETTLE)?;
        let before = Sample::of(switch)?;
        self.stop.pause(self.time)?;
        let after = Sample::of(switch)?;
        inputs.iter().try_for_each(|input| switch.del_port(input.name))?;
        let silent = || BenchError::Silent { system: switch.kind().to_string(), log: switch.log_tail() };
        after.since(&before, arrival, lcores, round).ok_or_else(silent)
    }
}

/// One capture for each queue, which DPDK loops from memory.
fn add_input(switch: &Switch, input: &Input, tag: &str) -> Result<(), BenchError> {
    let mut devargs = format!("net_pcap_{}_{tag},infinite_rx=1", input.name);
    for (queue, flows) in input.queues.iter().enumerate() {
        let capture = switch.file(&format!("{}-{tag}-{queue}.pcap", input.name));
        traffic::write(&capture, flows.clone(), u64::from(input.port) + 1)?;
        devargs.push_str(&format!(",rx_pcap={}", capture.display()));
    }
    switch.add_port(input.name, input.port, &devargs)
}

/// In turn.
fn dealt(flows: &[Flow], queues: usize) -> Vec<Vec<Flow>> {
    (0..queues).map(|queue| flows.iter().skip(queue).step_by(queues).copied().collect()).collect()
}

/// By the shard that owns them.
fn sorted(flows: &[Flow], steering: &Steering, queues: usize, arrival: Arrival) -> Vec<Vec<Flow>> {
    if arrival == Arrival::Random {
        return dealt(flows, queues);
    }
    let mut sorted = vec![Vec::new(); queues];
    for flow in flows {
        let tuple = Tuple4::new(flow.src.0.octets(), flow.dst.0.octets(), flow.src.1, flow.dst.1, UDP, 0);
        let away = usize::from(arrival == Arrival::Wrong);
        let queue = (steering.home(&tuple.into()).index() + away) % queues;
        if let Some(queue) = sorted.get_mut(queue) {
            queue.push(*flow);
        }
    }
    sorted
}

/// Everything that has been counted so far.
struct Sample {
    at: Instant,
    /// Nanoseconds that the lcores had a CPU.
    on_cpu: u64,
    sum: LcoreStatistics,
    handed_over: u64,
}

impl Sample {
    fn of(switch: &Switch) -> Result<Self, BenchError> {
        let mut sum = LcoreStatistics::default();
        let mut handed_over = 0;
        for lcore in switch.lcores()? {
            sum.packets += lcore.packets;
            sum.tx_packets += lcore.tx_packets;
            handed_over += lcore.exchange.iter().map(|reason| reason.handed_over).sum::<u64>();
        }
        let on_cpu = switch.process().map_or(Ok(0), on_cpu)?;
        Ok(Self { at: Instant::now(), on_cpu, sum, handed_over })
    }

    /// What came between; `None` if that was nothing.
    #[expect(clippy::cast_precision_loss, reason = "counters of a few seconds stay below 2^53")]
    fn since(&self, before: &Self, arrival: Arrival, lcores: usize, round: u32) -> Option<Figure> {
        let seconds = self.at.duration_since(before.at).as_secs_f64();
        let received = self.sum.packets.checked_sub(before.sum.packets).filter(|count| *count > 0)? as f64;
        let sent = self.sum.tx_packets.checked_sub(before.sum.tx_packets).filter(|count| *count > 0)? as f64;
        let on_cpu = self.on_cpu.saturating_sub(before.on_cpu) as f64 * 1e-9;
        let cpu_share = on_cpu / seconds / lcores as f64;
        let packets_per_second = sent / seconds;
        Some(Figure {
            arrival,
            lcores,
            round,
            packets_per_second,
            packets_per_cpu_second: packets_per_second / cpu_share,
            cpu_share,
            handed_over: self.handed_over.saturating_sub(before.handed_over) as f64 / received,
            // Packets that were under way at either moment are no loss, nor a gain.
            lost: (1.0 - sent / received).max(0.0),
        })
    }
}

/// Nanoseconds that a process's lcores had a CPU so far (proc(5), `schedstat`: the first number).
fn on_cpu(process: u32) -> Result<u64, BenchError> {
    let tasks = PathBuf::from(format!("/proc/{process}/task"));
    let mut sum = 0;
    for task in fs::read_dir(&tasks).map_err(BenchError::at(&tasks))? {
        let task = task.map_err(BenchError::at(&tasks))?.path();
        let read = |name: &str| -> Result<String, BenchError> {
            let file: &Path = &task.join(name);
            fs::read_to_string(file).map_err(BenchError::at(file))
        };
        if read("comm")?.starts_with("lcore-") {
            let text = read("schedstat")?;
            let first = text.split_whitespace().next().and_then(|number| number.parse::<u64>().ok());
            sum += first.ok_or(BenchError::Answer { what: "schedstat", text })?;
        }
    }
    Ok(sum)
}

/// One row for each kind of arrival that was measured with one lcore and with two.
#[must_use]
pub fn rows(figures: &[Figure]) -> Vec<Row> {
    let of = |arrival: Arrival, lcores: usize| {
        figures.iter().filter(move |figure| figure.arrival == arrival && figure.lcores == lcores)
    };
    let row = |arrival: Arrival| {
        let alone = if arrival == Arrival::Forward { arrival } else { Arrival::Owner };
        let rates = |arrival, lcores| {
            let rate = |figure: &Figure| figure.packets_per_second / 1e6;
            Summary::of(&of(arrival, lcores).map(rate).collect::<Vec<_>>())
        };
        let by_cpu_time = |arrival, lcores| {
            let rate = |figure: &Figure| figure.packets_per_cpu_second;
            Summary::of(&of(arrival, lcores).map(rate).collect::<Vec<_>>())
        };
        let (one, two) = (rates(alone, 1)?, rates(arrival, 2)?);
        Some(Row {
            arrival,
            one,
            two,
            ratio: two.median / one.median,
            ratio_by_cpu_time: by_cpu_time(arrival, 2)?.median / by_cpu_time(alone, 1)?.median,
            handed_over: Summary::of(&of(arrival, 2).map(|figure| figure.handed_over).collect::<Vec<_>>())?.median,
            lost: of(arrival, 2).map(|figure| figure.lost).fold(0.0, f64::max),
        })
    };
    [Arrival::Forward, Arrival::Owner, Arrival::Wrong, Arrival::Random].into_iter().filter_map(row).collect()
}

/// The rows for people.
#[must_use]
pub fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "millions of packets per second, median (min to max)\n\
         packets            one lcore               two lcores              ratio  by CPU time  handed over   lost\n",
    );
    let shown = |Summary { median, min, max }: Summary| format!("{median:.2} ({min:.2} to {max:.2})");
    for row in rows {
        text.push_str(&format!(
            "{:<17}  {:<22}  {:<22}  {:>5.2}  {:>11.2}  {:>9.1} %  {:>4.1} %\n",
            row.arrival,
            shown(row.one),
            shown(row.two),
            row.ratio,
            row.ratio_by_cpu_time,
            100.0 * row.handed_over,
            100.0 * row.lost
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(arrival: Arrival, lcores: usize, packets_per_second: f64, cpu_share: f64) -> Figure {
        let packets_per_cpu_second = packets_per_second / cpu_share;
        let (handed_over, lost, round) = (0.5, 0.0, 1);
        Figure { arrival, lcores, round, packets_per_second, packets_per_cpu_second, cpu_share, handed_over, lost }
    }

    #[test]
    fn every_flow_has_one_queue_and_the_wrong_one_is_the_other() {
        let flows: Vec<Flow> = (0..1000).map(Flow::numbered).collect();
        let steering = Steering::symmetric(2, KeyWord::WELL_KNOWN);
        let owner = sorted(&flows, &steering, 2, Arrival::Owner);
        let mut wrong = sorted(&flows, &steering, 2, Arrival::Wrong);
        wrong.reverse();
        assert_eq!(owner, wrong);
        assert_eq!(owner.iter().map(Vec::len).sum::<usize>(), flows.len());
        assert!(owner.iter().all(|queue| queue.len() > 400), "{:?}", owner.iter().map(Vec::len));
        let mut dealt = dealt(&flows, 3).concat();
        assert_eq!(dealt.len(), flows.len());
        dealt.sort_by_key(|flow| (flow.src, flow.dst));
        let mut all = flows.clone();
        all.sort_by_key(|flow| (flow.src, flow.dst));
        assert_eq!(dealt, all);
    }

    #[test]
    fn two_are_held_against_one_by_wall_clock_and_by_cpu_time() {
        let figures = [
            figure(Arrival::Owner, 1, 4e6, 1.0),
            figure(Arrival::Owner, 2, 6e6, 0.75),
            figure(Arrival::Wrong, 2, 5e6, 1.0),
        ];
        let rows = rows(&figures);
        let ratios: Vec<_> = rows.iter().map(|row| (row.arrival, row.ratio, row.ratio_by_cpu_time)).collect();
        assert_eq!(ratios, [(Arrival::Owner, 1.5, 2.0), (Arrival::Wrong, 1.25, 1.25)]);
        assert!(table(&rows).contains("NAT, at the owner  4.00 (4.00 to 4.00)"));
    }

    #[test]
    fn what_is_not_sent_is_lost_and_what_others_send_is_not() {
        let sample = |packets, tx_packets, handed_over| Sample {
            at: Instant::now(),
            on_cpu: 0,
            sum: LcoreStatistics { packets, tx_packets, ..LcoreStatistics::default() },
            handed_over,
        };
        let before = sample(100, 90, 5);
        let after = |packets, sent| sample(packets, sent, 55).since(&before, Arrival::Wrong, 2, 1);
        assert_eq!(after(300, 240).map(|figure| (figure.lost, figure.handed_over)), Some((0.25, 0.25)));
        assert_eq!(after(300, 300).map(|figure| figure.lost), Some(0.0));
        assert!(after(100, 90).is_none());
    }
}
