//! What was measured, as JSON lines for programs and as a table for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

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

/// The summary of one workload: one row of the table, and one JSON line.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Under which traffic.
    pub workload: Workload,
    /// Distinct flows.
    pub sessions: u32,
    /// Cycles a packet of weir.
    pub weir: Option<Summary>,
    /// Cycles a packet of OVS-DPDK.
    pub ovs_dpdk: Option<Summary>,
    /// Median of OVS-DPDK through median of weir.
    pub ratio: Option<f64>,
}

/// One row for each workload and number of sessions.
#[must_use]
pub fn rows(figures: &[Figure]) -> Vec<Row> {
    let mut groups: BTreeMap<(Workload, u32), [Vec<f64>; 2]> = BTreeMap::new();
    for figure in figures {
        let [weir, ovs] = groups.entry((figure.workload, figure.sessions)).or_default();
        let values = if figure.system == Kind::Weir { weir } else { ovs };
        values.push(figure.cycles_per_packet);
    }
    let row = |((workload, sessions), [weir, ovs]): ((Workload, u32), [Vec<f64>; 2])| {
        let (weir, ovs_dpdk) = (Summary::of(&weir), Summary::of(&ovs));
        let ratio = weir.zip(ovs_dpdk).map(|(weir, ovs)| ovs.median / weir.median);
        Row { workload, sessions, weir, ovs_dpdk, ratio }
    };
    groups.into_iter().map(row).collect()
}

/// The rows for people.
#[must_use]
pub fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "cycles a packet, median (min to max)\n\
         workload     connections  weir                        OVS-DPDK                    ratio\n",
    );
    let shown = |summary: Option<Summary>| {
        summary.map_or_else(
            || "-".to_owned(),
            |Summary { median, min, max }| format!("{median:.0} ({min:.0} to {max:.0})"),
        )
    };
    for row in rows {
        let ratio = row.ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.1}"));
        let (weir, ovs) = (shown(row.weir), shown(row.ovs_dpdk));
        let _ = writeln!(text, "{:<12} {:>11}  {weir:<26}  {ovs:<26}  {ratio}", row.workload, row.sessions);
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

    #[test]
    fn rounds_are_summed_up_and_compared() {
        let figures = [
            figure(Kind::Weir, 1, 3000),
            figure(Kind::OvsDpdk, 1, 9000),
            figure(Kind::Weir, 2, 2000),
            figure(Kind::OvsDpdk, 2, 9200),
            figure(Kind::Weir, 3, 3100),
            figure(Kind::OvsDpdk, 3, 8000),
        ];
        let rows = rows(&figures);
        assert_eq!(
            table(&rows),
            "cycles a packet, median (min to max)\n\
             workload     connections  weir                        OVS-DPDK                    ratio\n\
             established         1000  300 (200 to 310)            900 (800 to 920)            3.0\n"
        );
    }

    #[test]
    fn a_switch_without_figures_is_a_dash() {
        let rows = rows(&[figure(Kind::Weir, 1, 3000)]);
        assert!(table(&rows).ends_with("300 (300 to 300)            -                           -\n"));
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
