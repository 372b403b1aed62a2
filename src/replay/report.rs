//! What a replay did, as text and as JSON.

use core::fmt;
use std::collections::BTreeMap;

use serde::Serialize;
use weir_shard::{ConnectionView, DumpCursor};

use super::VirtualSwitch;
use crate::flow::port::{NoNames, PortNumber};

/// One port's packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PortReport {
    /// OpenFlow number.
    pub port: PortNumber,
    /// Packets and bytes read from its capture.
    pub received: u64,
    /// Bytes of these.
    pub received_bytes: u64,
    /// Packets written to its capture.
    pub sent: u64,
    /// Bytes of these.
    pub sent_bytes: u64,
}

/// What a replay did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Packets in.
    pub received: u64,
    /// Packets out.
    pub sent: u64,
    /// Copies made on the way: `received + copies == sent + dropped`.
    pub copies: u64,
    /// Packets dropped.
    pub dropped: u64,
    /// The same by cause, without the causes that did not occur.
    pub dropped_by: BTreeMap<&'static str, u64>,
    /// The tracker's counters that are not 0.
    pub conntrack: BTreeMap<&'static str, u64>,
    /// Flows with their counters, as dump-flows prints them.
    pub flows: Vec<String>,
    /// Connections at the end, one line each, as dpctl/dump-conntrack prints them.
    pub connections: Vec<String>,
    /// Port by port.
    pub ports: Vec<PortReport>,
}

impl Report {
    pub(super) fn of(switch: &mut VirtualSwitch, ports: &[PortNumber]) -> Self {
        let now = switch.now();
        let ids: Vec<_> = switch
            .switch()
            .ports()
            .filter(|(_, entry)| ports.contains(&entry.number))
            .map(|(id, entry)| (id, entry.number))
            .collect();
        let rules = switch.rules().unwrap_or_default();
        let flows = rules.iter().map(|rule| rule.dump_line(Some(now), &NoNames)).collect();
        let worker = switch.worker();
        let counters = worker.counters();
        let ports = ids
            .into_iter()
            .map(|(id, port)| {
                let counters = worker.port_counters(id);
                PortReport {
                    port,
                    received: counters.received,
                    received_bytes: counters.received_bytes,
                    sent: counters.sent,
                    sent_bytes: counters.sent_bytes,
                }
            })
            .collect();
        let mut connections = Vec::new();
        let mut cursor = DumpCursor::default();
        while !cursor.is_done() {
            let mut visit = |connection: &ConnectionView| connections.push(connection.to_string());
            worker.shard().dump(now, &mut cursor, usize::MAX, &mut visit);
        }
        connections.sort_unstable();
        Self {
            received: counters.received,
            sent: counters.sent,
            copies: counters.copies,
            dropped: counters.dropped_in_all(),
            dropped_by: counters
                .drops()
                .filter(|(_, count)| *count > 0)
                .map(|(cause, count)| (cause.name(), count))
                .collect(),
            conntrack: worker
                .shard()
                .counters()
                .iter()
                .filter(|(_, count, _)| *count > 0)
                .map(|(name, count, _)| (name, count))
                .collect(),
            flows,
            connections,
            ports,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "packets      {:>12} in  {:>12} out  {:>12} dropped",
            self.received, self.sent, self.dropped
        )?;
        for port in &self.ports {
            writeln!(f, "  port {:<6} {:>11} in  {:>12} out", port.port, port.received, port.sent)?;
        }
        for (title, counts) in [("dropped by cause", &self.dropped_by), ("conntrack", &self.conntrack)] {
            if !counts.is_empty() {
                writeln!(f, "{title}")?;
            }
            for (name, count) in counts {
                writeln!(f, "  {name:<28} {count:>12}")?;
            }
        }
        writeln!(f, "connections  {:>12}", self.connections.len())
    }
}
