//! The log of address ranges that have run out: at most [`crate::daemon`]'s timer once in [`PERIOD`] milliseconds, one
//! line for each range, however many packets it cost.

use weir_shard::Exhaustion;

use crate::flow::nat_text;

/// Milliseconds between two reports.
const PERIOD: u64 = 10_000;

/// When the last report was made.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Report {
    last: Option<u64>,
}

impl Report {
    /// True when it is time to look again.
    pub(super) fn is_due(&self, now: u64) -> bool {
        self.last.is_none_or(|last| now.saturating_sub(last) >= PERIOD)
    }

    /// The lines for what all lcores have told; none does not count as a report.
    pub(super) fn lines(&mut self, now: u64, told: impl IntoIterator<Item = Exhaustion>) -> Vec<String> {
        let mut sums: Vec<Exhaustion> = Vec::new();
        for entry in told {
            match sums.iter_mut().find(|sum| sum.range == entry.range) {
                Some(sum) => sum.packets += entry.packets,
                None => sums.push(entry),
            }
        }
        if !sums.is_empty() {
            self.last = Some(now);
        }
        sums.iter().map(line).collect()
    }
}

fn line(entry: &Exhaustion) -> String {
    let packets = entry.packets;
    let what = match &entry.range {
        Some((zone, action)) => format!("{} in zone {zone}", nat_text(action)),
        None => "other ranges".into(),
    };
    format!("{packets} packets were dropped because no address and port was free: {what}; widen the range")
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_nat::{AddressRange, NatAction, NatRange, PortSelection};

    #[test]
    fn a_range_has_one_line_a_period_however_many_lcores_and_packets_it_ran_out_for() {
        let action = NatAction::Source(NatRange {
            addresses: Some(AddressRange::V4([10, 0, 0, 1].into(), [10, 0, 0, 9].into())),
            ports: Some((5000, 6000)),
            selection: PortSelection::Random,
            persistent: false,
        });
        let told = |packets| Exhaustion { range: Some((7, action)), packets };
        let mut report = Report::default();
        assert!(report.is_due(50));
        assert!(report.lines(50, []).is_empty());
        assert!(report.is_due(1_050));
        assert_eq!(
            report.lines(1_050, [told(3), Exhaustion { range: None, packets: 1 }, told(4)]),
            [
                "7 packets were dropped because no address and port was free: \
                 nat(src=10.0.0.1-10.0.0.9:5000-6000,random) in zone 7; widen the range",
                "1 packets were dropped because no address and port was free: other ranges; widen the range",
            ]
        );
        assert!(!report.is_due(11_049));
        assert!(report.is_due(11_050));
    }
}
