//! What a second lcore brings: packets per second by wall clock of one lcore and of two, with packets that arrive at
//! their owners, at the other lcore, or anywhere. `weir-lcores scale` is the program. Each lcore has devices of its own:
//! two queues of one net_pcap share a cache line (DPDK 22.11 keeps 4240 bytes a queue, so that the ring's address, which
//! every packet reads, stands beside the next queue's statistics, which every burst writes), and so do those of
//! net_null. Packets then cost some 15 cycles more with two lcores than with one in dpdk-testpmd too, without any weir.
//! The lcores' share of their CPUs is read from the kernel: a machine that does other things too takes some of it, and an
//! lcore that has none cannot take what others hand over.

use std::fmt::Write as _;
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
use crate::switch::{Kind, LcoreStatistics, Setup, Switch};
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
    /// Sent in a thousand ticks of the time stamp counter, by all lcores together. That counter is a wall clock which
    /// each lcore reads in the same moment as its packets, whatever the machine does in between.
    pub per_kilotick: f64,
    /// Ticks in a microsecond, roughly.
    pub megahertz: f64,
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
    /// Packets in a thousand ticks by one lcore.
    pub one: Summary,
    /// Packets in a thousand ticks by two.
    pub two: Summary,
    /// Of two by one in the same round, median.
    pub ratio: f64,
    /// Ticks in a microsecond: a thousandth of this and the figures above are millions of packets per second.
    pub megahertz: f64,
    /// Least part of the time that the lcores had their CPUs in any round.
    pub cpu_share: f64,
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

/// From one lcore's ports to the next one's: inside 1, outside 2, replies 3, then 11, 12, 13.
const PORTS: u16 = 10;

/// One direction of the traffic: what arrives at each lcore, by a port of its own.
struct Input {
    name: &'static str,
    /// The first lcore's.
    port: u16,
    flows: Vec<Vec<Flow>>,
}

impl Scale<'_> {
    /// Several rounds of one lcore and of two, in turn, each with a switch of its own below `directory`; `tell` is told
    /// of each figure.
    ///
    /// # Errors
    /// Whatever goes wrong.
    pub fn rounds(
        &self,
        setup: &Setup,
        directory: &Path,
        rounds: u32,
        arrivals: &[Arrival],
        tell: &mut dyn FnMut(&Figure),
    ) -> Result<Vec<Figure>, BenchError> {
        let mut figures = Vec::new();
        for round in 1..=rounds {
            for cores in [vec![1], vec![0, 1]] {
                let lcores = cores.len();
                eprintln!("round {round} of {rounds}: {lcores} lcores");
                let setup = Setup { cores, settings: SETTINGS, ..setup.clone() };
                let switch = Switch::start(Kind::Weir, &setup, directory.join(format!("{round}-{lcores}")))?;
                let measured = self.run(&switch, lcores, round, arrivals)?;
                measured.iter().for_each(&mut *tell);
                figures.extend(measured);
            }
        }
        Ok(figures)
    }

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
        for lcore in numbers(lcores) {
            switch.add_port(
                &format!("pout{lcore}"),
                2 + PORTS * lcore,
                &format!("net_null{lcore},no-rx=1"),
            )?;
        }
        if arrivals.contains(&Arrival::Forward) {
            switch.set_flows(&for_lcores(FORWARD, lcores))?;
            let input = Input { name: "pin", port: 1, flows: dealt(&flows, lcores) };
            figures.push(self.measure(switch, Arrival::Forward, round, &[input])?);
        }
        if arrivals.iter().all(|arrival| *arrival == Arrival::Forward) {
            return Ok(figures);
        }
        switch.set_flows(&for_lcores(NAT, lcores))?;
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
                Input { name: "pin", port: 1, flows: place(&inside) },
                Input { name: "pback", port: 3, flows: place(&outside) },
            ];
            figures.push(self.measure(switch, arrival, round, &inputs)?);
        }
        Ok(figures)
    }

    /// Opens the connections; gives both directions of each.
    fn open(&self, switch: &Switch, flows: Vec<Vec<Flow>>) -> Result<Vec<(Flow, Flow)>, BenchError> {
        let wanted = u64::from(self.sessions);
        let input = Input { name: "pin", port: 1, flows };
        add_input(switch, &input, "open")?;
        self.stop.wait_for(&format!("{wanted} connections"), SET_UP, || {
            Ok((switch.connections()? >= wanted).then_some(()))
        })?;
        remove_input(switch, &input)?;
        let connections = traffic::connections(&switch.dump_connections()?);
        let found = connections.len().try_into().unwrap_or(u64::MAX);
        if found == wanted { Ok(connections) } else { Err(BenchError::Connections { found, wanted }) }
    }

    fn measure(
        &self,
        switch: &Switch,
        arrival: Arrival,
        round: u32,
        inputs: &[Input],
    ) -> Result<Figure, BenchError> {
        let tag = format!("{arrival:?}").to_lowercase();
        inputs.iter().try_for_each(|input| add_input(switch, input, &tag))?;
        self.stop.pause(SETTLE)?;
        let before = Sample::of(switch)?;
        self.stop.pause(self.time)?;
        let after = Sample::of(switch)?;
        inputs.iter().try_for_each(|input| remove_input(switch, input))?;
        let silent = || BenchError::Silent { system: switch.kind().to_string(), log: switch.log_tail() };
        after.since(&before, arrival, round).ok_or_else(silent)
    }
}

/// A port for each lcore, with a capture that DPDK loops from memory. A port with one queue is polled by the lcore with
/// the fewest queues, so that they are dealt in turn.
fn add_input(switch: &Switch, input: &Input, tag: &str) -> Result<(), BenchError> {
    for (lcore, flows) in (0..).zip(&input.flows) {
        let name = format!("{}{lcore}", input.name);
        let capture = switch.file(&format!("{name}-{tag}.pcap"));
        traffic::write(&capture, flows.clone(), u64::from(input.port) + 1)?;
        // Each lcore wants a queue to send by, though nothing is sent there.
        let device = format!(
            "net_pcap_{name}_{tag},infinite_rx=1,rx_pcap={}{}",
            capture.display(),
            ",tx_pcap=/dev/null".repeat(input.flows.len())
        );
        switch.add_port(&name, input.port + PORTS * lcore, &device)?;
    }
    Ok(())
}

fn remove_input(switch: &Switch, input: &Input) -> Result<(), BenchError> {
    (0..input.flows.len()).try_for_each(|lcore| switch.del_port(&format!("{}{lcore}", input.name)))
}

fn numbers(lcores: usize) -> std::ops::Range<u16> {
    0..u16::try_from(lcores).unwrap_or(u16::MAX)
}

/// A table for one lcore's ports, said again for each: lines about a port are about its own ports.
fn for_lcores(table: &str, lcores: usize) -> String {
    let mut text = String::new();
    for line in table.lines() {
        for lcore in if line.contains("in_port=") { numbers(lcores) } else { 0..1 } {
            let mut own = line.to_owned();
            for port in [1, 3] {
                own = own.replace(&format!("in_port={port},"), &format!("in_port={},", port + PORTS * lcore));
            }
            if let Some(rest) = own.strip_suffix('2') {
                own = format!("{rest}{}", 2 + PORTS * lcore);
            }
            let _ = writeln!(text, "{own}");
        }
    }
    text
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
    lcores: Vec<LcoreStatistics>,
}

impl Sample {
    fn of(switch: &Switch) -> Result<Self, BenchError> {
        let lcores = switch.lcores()?;
        let on_cpu = switch.process().map_or(Ok(0), on_cpu)?;
        Ok(Self { at: Instant::now(), on_cpu, lcores })
    }

    /// What came between; `None` if that was nothing.
    #[expect(clippy::cast_precision_loss, reason = "counters of a few seconds stay below 2^53")]
    fn since(&self, before: &Self, arrival: Arrival, round: u32) -> Option<Figure> {
        let seconds = self.at.duration_since(before.at).as_secs_f64();
        let (mut received, mut sent, mut handed_over, mut ticks, mut per_kilotick) = (0, 0, 0, 0, 0.0);
        for (after, before) in self.lcores.iter().zip(&before.lcores) {
            let lcore_sent = after.tx_packets.checked_sub(before.tx_packets)?;
            let lcore_ticks = after.ticks().checked_sub(before.ticks()).filter(|ticks| *ticks > 0)?;
            received += after.packets.checked_sub(before.packets)?;
            handed_over += after.handed_over().saturating_sub(before.handed_over());
            sent += lcore_sent;
            ticks += lcore_ticks;
            per_kilotick += 1000.0 * lcore_sent as f64 / lcore_ticks as f64;
        }
        let lcores = self.lcores.len();
        let on_cpu = self.on_cpu.saturating_sub(before.on_cpu) as f64 * 1e-9;
        (received > 0 && sent > 0).then(|| Figure {
            arrival,
            lcores,
            round,
            per_kilotick,
            megahertz: ticks as f64 / lcores as f64 / seconds * 1e-6,
            cpu_share: on_cpu / seconds / lcores as f64,
            handed_over: handed_over as f64 / received as f64,
            // Packets that were under way at either moment are no loss, nor a gain.
            lost: (1.0 - sent as f64 / received as f64).max(0.0),
        })
    }
}

/// Nanoseconds that a process's lcores had a CPU so far (proc(5), `schedstat`: the first number).
fn on_cpu(process: u32) -> Result<u64, BenchError> {
    let mut sum = 0;
    for task in lcore_tasks(process)? {
        let file = task.join("schedstat");
        let text = fs::read_to_string(&file).map_err(BenchError::at(&file))?;
        let first = text.split_whitespace().next().and_then(|number| number.parse::<u64>().ok());
        sum += first.ok_or(BenchError::Answer { what: "schedstat", text })?;
    }
    Ok(sum)
}

/// Directories of a process's lcores in /proc.
fn lcore_tasks(process: u32) -> Result<Vec<PathBuf>, BenchError> {
    let tasks = PathBuf::from(format!("/proc/{process}/task"));
    let mut lcores = Vec::new();
    for task in fs::read_dir(&tasks).map_err(BenchError::at(&tasks))? {
        let task = task.map_err(BenchError::at(&tasks))?.path();
        let comm = task.join("comm");
        if fs::read_to_string(&comm).map_err(BenchError::at(&comm))?.starts_with("lcore-") {
            lcores.push(task);
        }
    }
    Ok(lcores)
}

/// One row for each kind of arrival that was measured with one lcore and with two.
#[must_use]
pub fn rows(figures: &[Figure]) -> Vec<Row> {
    let of = |arrival: Arrival, lcores: usize| {
        figures.iter().filter(move |figure| figure.arrival == arrival && figure.lcores == lcores)
    };
    let row = |arrival: Arrival| {
        let alone = if arrival == Arrival::Forward { arrival } else { Arrival::Owner };
        let of_two = |value: fn(&Figure) -> f64| of(arrival, 2).map(value).collect::<Vec<_>>();
        let one = Summary::of(&of(alone, 1).map(|figure| figure.per_kilotick).collect::<Vec<_>>())?;
        let two = Summary::of(&of_two(|figure| figure.per_kilotick))?;
        // Of one round each: a machine that is shared is faster in one round than in another.
        let ratio = |two: &Figure| {
            let one = of(alone, 1).find(|one| one.round == two.round)?;
            Some(two.per_kilotick / one.per_kilotick)
        };
        let ratios: Vec<_> = of(arrival, 2).filter_map(ratio).collect();
        Some(Row {
            arrival,
            one,
            two,
            ratio: Summary::of(&ratios)?.median,
            megahertz: Summary::of(&of_two(|figure| figure.megahertz))?.median,
            cpu_share: Summary::of(&of_two(|figure| figure.cpu_share))?.min,
            handed_over: Summary::of(&of_two(|figure| figure.handed_over))?.median,
            lost: Summary::of(&of_two(|figure| figure.lost))?.max,
        })
    };
    [Arrival::Forward, Arrival::Owner, Arrival::Wrong, Arrival::Random].into_iter().filter_map(row).collect()
}

/// The rows for people.
#[must_use]
pub fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "millions of packets per second by wall clock, median (min to max)\n\
         packets            one lcore               two lcores              ratio  handed over  lost at most  CPU at least\n",
    );
    for row in rows {
        let shown = |Summary { median, min, max }: Summary| {
            let [median, min, max] = [median, min, max].map(|value| value * row.megahertz / 1000.0);
            format!("{median:.2} ({min:.2} to {max:.2})")
        };
        let [handed_over, lost, cpu] = [row.handed_over, row.lost, row.cpu_share].map(|part| 100.0 * part);
        let _ = writeln!(
            text,
            "{:<17}  {:<22}  {:<22}  {:>5.2}  {handed_over:>9.1} %  {lost:>10.1} %  {cpu:>10.0} %",
            row.arrival,
            shown(row.one),
            shown(row.two),
            row.ratio,
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::switch::Exchange;

    fn figure(arrival: Arrival, lcores: usize, per_kilotick: f64) -> Figure {
        let (handed_over, lost, round, cpu_share, megahertz) = (0.5, 0.0, 1, 1.0, 2000.0);
        Figure { arrival, lcores, round, per_kilotick, megahertz, cpu_share, handed_over, lost }
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
    fn every_lcore_has_the_table_for_its_own_ports() {
        assert_eq!(for_lcores(NAT, 1), NAT);
        let two = for_lcores("# x\ntable=0,priority=1,action=drop\nin_port=3,ip,actions=ct(nat),2\n", 2);
        let said = "table=0,priority=1,action=drop\nin_port=3,ip,actions=ct(nat),2\nin_port=13,ip,actions=ct(nat),12\n";
        assert_eq!(two, format!("# x\n{said}"));
        assert!(for_lcores(FORWARD, 2).ends_with("in_port=1,actions=2\nin_port=11,actions=12\n"));
    }

    #[test]
    fn every_way_of_arriving_is_held_against_one_lcore() {
        let figures = [
            figure(Arrival::Owner, 1, 4.0),
            figure(Arrival::Owner, 2, 6.0),
            figure(Arrival::Wrong, 2, 5.0),
            figure(Arrival::Forward, 2, 5.0),
        ];
        let rows = rows(&figures);
        let ratios: Vec<_> = rows.iter().map(|row| (row.arrival, row.ratio)).collect();
        assert_eq!(ratios, [(Arrival::Owner, 1.5), (Arrival::Wrong, 1.25)]);
        assert!(table(&rows).contains("NAT, at the owner  8.00 (8.00 to 8.00)"), "{}", table(&rows));
    }

    #[test]
    fn a_ratio_is_of_one_round_whatever_the_machine_does_in_another() {
        let of_round = |round, lcores, rate| Figure { round, ..figure(Arrival::Forward, lcores, rate) };
        let rounds = [(1, 10.0), (2, 5.0), (3, 8.0)];
        let figures: Vec<_> = rounds
            .iter()
            .flat_map(|&(round, rate)| [of_round(round, 1, rate), of_round(round, 2, 2.0 * rate)])
            .collect();
        assert_eq!(rows(&figures)[0].ratio, 2.0);
        // A round that was cut short says nothing.
        assert_eq!(rows(&figures[..5])[0].ratio, 2.0);
    }

    #[test]
    fn what_is_not_sent_is_lost_and_what_others_send_is_not() {
        let lcore = |packets, tx_packets, handed_over, busy_cycles| LcoreStatistics {
            packets,
            tx_packets,
            idle_cycles: 100,
            busy_cycles,
            exchange: vec![Exchange { handed_over, taken_over: 0, refused: 0 }],
        };
        let sample = |lcores| Sample { at: Instant::now(), on_cpu: 0, lcores };
        let before = sample(vec![lcore(100, 90, 5, 0), lcore(0, 0, 0, 0)]);
        let after = sample(vec![lcore(200, 90, 55, 1000), lcore(100, 150, 0, 2000)]);
        let figure = after.since(&before, Arrival::Wrong, 1).unwrap();
        assert_eq!(
            (figure.lcores, figure.lost, figure.handed_over, figure.per_kilotick),
            (2, 0.25, 0.25, 75.0)
        );
        assert!(before.since(&before, Arrival::Wrong, 1).is_none());
        assert!(before.since(&after, Arrival::Wrong, 1).is_none());
    }
}
