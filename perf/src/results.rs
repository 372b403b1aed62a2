//! What a bench has measured: figures and their medians, as JSON with the machine, as a table, as markdown and as a plot.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::frames::{Family, Frames, Transport};
use crate::machine::Machine;
use crate::plot::{self, Line};
use crate::point::{Outcome, Point, Traffic};
use crate::scale;
use crate::statistics::Summary;

/// A point that was measured once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// What was measured.
    pub point: Point,
    /// From 1.
    pub round: u32,
    /// What came of it.
    pub outcome: Outcome,
    /// Ticks of the time stamp counter for each packet.
    pub cycles_per_packet: f64,
}

/// All rounds of a point.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// What was measured.
    pub point: Point,
    /// Ticks of the time stamp counter for each packet; where connections are opened, for each of those.
    pub cycles: Summary,
    /// Millions of packets per second at the median: the counter's rate by its ticks for each packet.
    pub mpps: f64,
}

/// Everything, for one JSON file.
#[derive(Clone, Debug, Serialize)]
pub struct Results {
    /// On what.
    pub machine: Machine,
    /// How often each point was measured.
    pub rounds: u32,
    /// Every measurement.
    pub figures: Vec<Figure>,
    /// Their medians.
    pub rows: Vec<Row>,
    /// Two lcores beside one.
    pub lcores: Vec<scale::Row>,
}

impl Figure {
    /// Of an outcome.
    #[must_use]
    pub fn new(point: Point, round: u32, outcome: Outcome) -> Self {
        Self { point, round, outcome, cycles_per_packet: outcome.cycles_per_packet() }
    }
}

/// One row for each point, in the figures' order.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "a rate of some GHz")]
pub fn rows(figures: &[Figure]) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for figure in figures {
        if rows.iter().any(|row| row.point == figure.point) {
            continue;
        }
        let of = figures.iter().filter(|other| other.point == figure.point);
        let Some(cycles) = Summary::of(&of.map(|figure| figure.cycles_per_packet).collect::<Vec<_>>()) else {
            continue;
        };
        let mpps = figure.outcome.tsc_hz as f64 / cycles.median.max(1.0) * 1e-6;
        rows.push(Row { point: figure.point.clone(), cycles, mpps });
    }
    rows
}

/// What the packets of a point are, in words.
#[must_use]
pub fn name(point: &Point) -> String {
    let traffic = match point.traffic {
        Traffic::Harness => "harness alone",
        Traffic::Forward => "forward",
        Traffic::Acl => "ACL both ways",
        Traffic::Established => "NAT both ways",
        Traffic::New => "new, NAT",
        Traffic::NewBeside => "new, NAT, beside",
    };
    let transport = match point.transport {
        Transport::Udp => "UDP",
        Transport::Tcp => "TCP",
    };
    let ip = match point.ip {
        Family::V4 => "",
        Family::V6 => ", IPv6",
    };
    let frames = match point.frames {
        Frames::Small => "",
        Frames::Mix => ", mixed sizes",
    };
    format!("{traffic}, {transport}{ip}{frames}")
}

/// 1000000 as "1 M".
#[must_use]
pub fn short(number: u32) -> String {
    match number {
        0..1000 => number.to_string(),
        _ if number.is_multiple_of(1_000_000) => format!("{} M", number / 1_000_000),
        _ if number.is_multiple_of(1000) => format!("{} k", number / 1000),
        _ => number.to_string(),
    }
}

/// "150 (148 to 160)".
#[must_use]
pub fn spread(Summary { median, min, max }: Summary) -> String {
    format!("{median:.0} ({min:.0} to {max:.0})")
}

impl Results {
    /// For people at a terminal.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = format!(
            "{}\ncycles a packet by the time stamp counter, generator and devices included: median (min to max)\n\
             {:<34} {:>11}  {:<24}  {:>7}\n",
            self.machine.sentence(),
            "traffic",
            "connections",
            "cycles",
            "Mpps"
        );
        for Row { point, cycles, mpps } in &self.rows {
            let connections = short(point.connections);
            let _ =
                writeln!(text, "{:<34} {connections:>11}  {:<24}  {mpps:>7.2}", name(point), spread(*cycles));
        }
        if !self.lcores.is_empty() {
            let _ = write!(text, "\n{}", scale::table(&self.lcores));
        }
        text
    }

    /// For docs/performance.md.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut text = format!(
            "{} rounds: {}.\n\n| traffic | connections | cycles | Mpps |\n|---|---:|---:|---:|\n",
            self.rounds,
            self.machine.sentence()
        );
        for Row { point, cycles, mpps } in &self.rows {
            let connections = short(point.connections);
            let _ = writeln!(text, "| {} | {connections} | {} | {mpps:.2} |", name(point), spread(*cycles));
        }
        if !self.lcores.is_empty() {
            let head = "\nTwo lcores, packets of one second by those of one lcore, medians of the rounds' ratios:\n\n\
                        | packets arrive | one lcore, Mpps | two lcores, Mpps | ratio | handed over | lost at most |\n\
                        |---|---:|---:|---:|---:|---:|\n";
            text.push_str(head);
            for row in &self.lcores {
                let [one, two] = [row.one, row.two].map(|rate| rate.median * row.megahertz / 1000.0);
                let [handed_over, lost] = [row.handed_over, row.lost].map(|part| 100.0 * part);
                let _ = writeln!(
                    text,
                    "| {} | {one:.2} | {two:.2} | {:.2} | {handed_over:.1} % | {lost:.1} % |",
                    row.arrival, row.ratio
                );
            }
        }
        text
    }

    /// Cycles over connections, a line for each kind of packets that was measured with several numbers of them.
    #[must_use]
    pub fn plot(&self) -> String {
        let mut lines: Vec<Line> = Vec::new();
        for Row { point, cycles, .. } in &self.rows {
            let (name, place) = (name(point), (point.connections, cycles.median));
            match lines.iter_mut().find(|line| line.name == name) {
                Some(line) => line.points.push(place),
                None => lines.push(Line { name, points: vec![place] }),
            }
        }
        lines.retain(|line| line.points.len() > 1);
        lines.iter_mut().for_each(|line| line.points.sort_by_key(|point| point.0));
        plot::svg("weir, one lcore: cycles for each packet, I/O included", &lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(connections: u32, round: u32, cycles: u64) -> Figure {
        let point = Point { connections, ..Point::default() };
        let outcome = Outcome { packets: 10, cycles, sent: 10, tsc_hz: 2_000_000_000, ..Outcome::default() };
        Figure::new(point, round, outcome)
    }

    fn results() -> Results {
        let figures = vec![
            figure(1000, 1, 1000),
            figure(1_000_000, 1, 2000),
            figure(1000, 2, 1200),
            figure(1_000_000, 2, 2600),
            figure(1000, 3, 900),
        ];
        Results { machine: Machine::default(), rounds: 3, rows: rows(&figures), figures, lcores: Vec::new() }
    }

    #[test]
    fn rounds_become_rows() {
        let rows = results().rows;
        let shown: Vec<_> =
            rows.iter().map(|row| (row.point.connections, spread(row.cycles), row.mpps)).collect();
        assert_eq!(
            shown,
            [
                (1000, "100 (90 to 120)".to_owned(), 20.0),
                (1_000_000, "230 (200 to 260)".to_owned(), 2000.0 / 230.0)
            ]
        );
    }

    #[test]
    fn every_form_has_every_row() {
        let results = results();
        assert!(results.markdown().ends_with(
            "| NAT both ways, UDP | 1 k | 100 (90 to 120) | 20.00 |\n\
             | NAT both ways, UDP | 1 M | 230 (200 to 260) | 8.70 |\n"
        ));
        assert!(
            results.table().contains("NAT both ways, UDP                         1 M  230 (200 to 260)"),
            "{}",
            results.table()
        );
        assert_eq!(results.plot().matches("<circle").count(), 2);
        let json = serde_json::to_value(&results).unwrap();
        assert_eq!(json["rows"][1]["cycles"]["median"], 230.0);
        assert_eq!(json["figures"][4]["point"]["traffic"], "established");
        assert!(json["machine"]["cpus"].is_number());
    }

    #[test]
    fn numbers_are_shortened_only_where_nothing_is_lost() {
        for (number, text) in
            [(7, "7"), (1000, "1 k"), (1500, "1500"), (100_000, "100 k"), (10_000_000, "10 M")]
        {
            assert_eq!(short(number), text);
        }
    }
}
