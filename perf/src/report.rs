//! What was measured beside Open vSwitch: as a table, as markdown, and as the JSON lines that the bench ends with.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde::Serialize;

use crate::machine::Machine;
use crate::results::{self, spread};
use crate::statistics::Summary;
use crate::switch::{Kind, Statistics};
use crate::workload::Workload;

/// One measurement, and one JSON line.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Figure {
    /// Of which switch.
    pub system: Kind,
    /// Under which traffic.
    pub workload: Workload,
    /// Distinct flows.
    pub sessions: u32,
    /// From 1.
    pub round: u32,
    /// Packets counted; under [`Workload::New`] connections opened.
    pub packets: u64,
    /// What they cost.
    pub cycles: u64,
    /// The one through the other.
    pub cycles_per_packet: f64,
}

impl Figure {
    /// From what a switch counted.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counters of a few seconds stay below 2^53")]
    pub fn new(system: Kind, workload: Workload, sessions: u32, round: u32, counted: Statistics) -> Self {
        let Statistics { packets, cycles } = counted;
        let cycles_per_packet = cycles as f64 / packets.max(1) as f64;
        Self { system, workload, sessions, round, packets, cycles, cycles_per_packet }
    }
}

/// The rounds of one workload.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Under which traffic.
    pub workload: Workload,
    /// Distinct flows.
    pub connections: u32,
    /// Cycles a packet of weir.
    pub weir: Option<Summary>,
    /// Cycles a packet of OVS-DPDK.
    pub ovs: Option<Summary>,
    /// OVS-DPDK by weir in the same round.
    pub ratio: Option<Summary>,
}

/// A row as the JSON line that the bench ends with.
#[derive(Clone, Copy, Debug, Serialize)]
struct Line {
    workload: Workload,
    connections: u32,
    weir: Option<f64>,
    ovs: Option<f64>,
    ratio: Option<f64>,
}

impl Row {
    /// The medians, as one JSON line: cycles to a tenth, the ratio to a hundredth, null for what was not measured.
    ///
    /// # Errors
    /// None that can happen: the parts are numbers and names.
    pub fn json(&self) -> Result<String, serde_json::Error> {
        let rounded = |summary: &Option<Summary>, parts: f64| {
            summary.map(|Summary { median, .. }| (median * parts).round() / parts)
        };
        let Self { workload, connections, .. } = *self;
        let (weir, ovs, ratio) =
            (rounded(&self.weir, 10.0), rounded(&self.ovs, 10.0), rounded(&self.ratio, 100.0));
        serde_json::to_string(&Line { workload, connections, weir, ovs, ratio })
    }
}

/// One row for each workload and number of connections.
#[must_use]
pub fn rows(figures: &[Figure]) -> Vec<Row> {
    let keys: BTreeSet<(Workload, u32)> =
        figures.iter().map(|figure| (figure.workload, figure.sessions)).collect();
    let row = |(workload, connections)| {
        let of = |system| {
            figures.iter().filter(move |figure| {
                (figure.workload, figure.sessions, figure.system) == (workload, connections, system)
            })
        };
        let summary =
            |system| Summary::of(&of(system).map(|figure| figure.cycles_per_packet).collect::<Vec<_>>());
        // Of one round each: a machine that is shared is faster in one round than in another.
        let ratio = |weir: &Figure| {
            let ovs = of(Kind::OvsDpdk).find(|ovs| ovs.round == weir.round)?;
            Some(ovs.cycles_per_packet / weir.cycles_per_packet)
        };
        let ratios: Vec<f64> = of(Kind::Weir).filter_map(ratio).collect();
        let (weir, ovs) = (summary(Kind::Weir), summary(Kind::OvsDpdk));
        Row { workload, connections, weir, ovs, ratio: Summary::of(&ratios) }
    };
    keys.into_iter().map(row).collect()
}

fn shown(summary: Option<Summary>) -> String {
    summary.map_or_else(|| "-".to_owned(), spread)
}

fn ratio(row: &Row) -> String {
    row.ratio.map_or_else(
        || "-".to_owned(),
        |Summary { median, min, max }| format!("{median:.1} ({min:.1} to {max:.1})"),
    )
}

/// The rows for people.
#[must_use]
pub fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "cycles a packet, median (min to max)\n\
         workload     connections  weir                        OVS-DPDK                    OVS / weir\n",
    );
    for row in rows {
        let (weir, ovs, ratio) = (shown(row.weir), shown(row.ovs), ratio(row));
        let _ =
            writeln!(text, "{:<12} {:>11}  {weir:<26}  {ovs:<26}  {ratio}", row.workload, row.connections);
    }
    text
}

/// The rows for documents, with what they were measured on.
#[must_use]
pub fn markdown(rows: &[Row], machine: &Machine, rounds: u32) -> String {
    let ovs = machine.ovs.as_deref().unwrap_or("Open vSwitch");
    let mut text = format!(
        "{rounds} rounds: {}; {ovs}.\n\n| workload | connections | weir | OVS-DPDK | OVS / weir |\n|---|---:|---:|---:|---:|\n",
        machine.sentence()
    );
    for row in rows {
        let (workload, connections) = (row.workload.description(), results::short(row.connections));
        let (weir, ovs, ratio) = (shown(row.weir), shown(row.ovs), ratio(row));
        let _ = writeln!(text, "| {workload} | {connections} | {weir} | {ovs} | {ratio} |");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(system: Kind, round: u32, cycles: u64) -> Figure {
        let counted = Statistics { packets: 10, cycles };
        Figure::new(system, Workload::Established, 1000, round, counted)
    }

    fn three_rounds() -> Vec<Row> {
        rows(&[
            figure(Kind::Weir, 1, 3000),
            figure(Kind::OvsDpdk, 1, 9000),
            figure(Kind::Weir, 2, 2000),
            figure(Kind::OvsDpdk, 2, 9200),
            figure(Kind::Weir, 3, 3100),
            figure(Kind::OvsDpdk, 3, 8000),
        ])
    }

    #[test]
    fn ratios_are_of_one_round_each() {
        assert_eq!(
            table(&three_rounds()),
            "cycles a packet, median (min to max)\n\
             workload     connections  weir                        OVS-DPDK                    OVS / weir\n\
             established         1000  300 (200 to 310)            900 (800 to 920)            3.0 (2.6 to 4.6)\n"
        );
    }

    #[test]
    fn a_row_is_the_line_that_the_bench_ends_with() {
        let line = r#"{"workload":"established","connections":1000,"weir":300.0,"ovs":900.0,"ratio":3.0}"#;
        assert_eq!(three_rounds()[0].json().unwrap(), line);
        let alone = rows(&[figure(Kind::Weir, 1, 3001)]);
        let line = r#"{"workload":"established","connections":1000,"weir":300.1,"ovs":null,"ratio":null}"#;
        assert_eq!(alone[0].json().unwrap(), line);
        assert!(table(&alone).ends_with("300 (300 to 300)            -                           -\n"));
    }

    #[test]
    fn a_document_has_the_same_rows() {
        let text = markdown(&three_rounds(), &Machine::default(), 3);
        let row = "| established, translated both ways | 1 k | 300 (200 to 310) | 900 (800 to 920) | 3.0 (2.6 to 4.6) |\n";
        assert!(text.ends_with(row), "{text}");
    }

    #[test]
    fn a_figure_is_one_line_of_json() {
        let line = serde_json::to_string(&figure(Kind::OvsDpdk, 2, 12345)).unwrap_or_default();
        assert_eq!(
            line,
            r#"{"system":"ovs-dpdk","workload":"established","sessions":1000,"round":2,"packets":10,"cycles":12345,"cycles_per_packet":1234.5}"#
        );
    }
}
