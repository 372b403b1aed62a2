//! What a replay did, as text and as JSON.

use core::fmt;
use std::collections::BTreeMap;

use serde::Serialize;
use weir_shard::{ConnectionView, Reason};

use super::VirtualSwitch;
use crate::flow::port::{NoNames, PortNumber};
use crate::pipeline::Worker;

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

/// One shard's packets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ShardReport {
    /// Its number.
    pub shard: usize,
    /// Packets that came to it first.
    pub received: u64,
    /// Packets that it sent.
    pub sent: u64,
    /// Packets that it dropped.
    pub dropped: u64,
    /// Packets that it gave to other shards, by reason, without the reasons that did not occur.
    pub handed_over: BTreeMap<&'static str, u64>,
    /// Packets that other shards gave to it, likewise.
    pub taken_over: BTreeMap<&'static str, u64>,
    /// Packets dropped because another shard's mailbox was full, likewise.
    pub refused_full: BTreeMap<&'static str, u64>,
    /// Connections that it holds at the end.
    pub connections: u32,
}

impl ShardReport {
    fn of(shard: usize, worker: &Worker) -> Self {
        let counters = worker.counters();
        let by_reason = |counts: &[u64]| {
            let named = Reason::ALL.iter().map(|reason| reason.name()).zip(counts.iter().copied());
            named.filter(|(_, count)| *count > 0).collect()
        };
        Self {
            shard,
            received: counters.received,
            sent: counters.sent,
            dropped: counters.dropped_in_all(),
            handed_over: by_reason(&counters.handed_over),
            taken_over: by_reason(&counters.taken_over),
            refused_full: by_reason(&counters.refused_full),
            connections: worker.shard().len(),
        }
    }
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
    /// Shard by shard, where there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shards: Vec<ShardReport>,
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
        let counters = switch.counters();
        let ports = ids
            .into_iter()
            .map(|(id, port)| {
                let counters = switch.port_counters(id);
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
        switch.connections(&mut |connection: &ConnectionView| connections.push(connection.to_string()));
        connections.sort_unstable();
        let mut conntrack = BTreeMap::new();
        for worker in switch.workers() {
            for (name, count, _) in worker.shard().counters().iter().filter(|(_, count, _)| *count > 0) {
                *conntrack.entry(name).or_default() += count;
            }
        }
        let mut shards = Vec::new();
        if switch.workers().len() > 1 {
            shards.extend(
                (0..).zip(switch.workers().iter()).map(|(shard, worker)| ShardReport::of(shard, worker)),
            );
        }
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
            conntrack,
            flows,
            connections,
            ports,
            shards,
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
        for shard in &self.shards {
            let ShardReport { shard: number, received, sent, dropped, connections, .. } = shard;
            writeln!(
                f,
                "  shard {number:<5} {received:>11} in  {sent:>12} out  {dropped:>12} dropped  {connections:>8} connections"
            )?;
            for (what, counts) in [
                ("handed over", &shard.handed_over),
                ("taken over", &shard.taken_over),
                ("mailbox full", &shard.refused_full),
            ] {
                for (reason, count) in counts {
                    writeln!(f, "    {:<26} {count:>12}", format!("{what}, {reason}"))?;
                }
            }
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
