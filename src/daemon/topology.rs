//! How the running datapath lies on the machine: asked of the kernel and of the lcores at the moment it is shown.

use std::path::Path;

use weir_numa::pin::allowed_cpus;
use weir_numa::residence::{self, Span};
use weir_numa::topology::Topology;

use super::state::State;
use crate::control::engine::EngineError;
use crate::control::topology::{Lcore, Memory, Port, TopologyReport};

impl State {
    /// The machine with lcores, their memory and ports, and what is slow about it.
    pub(super) fn topology(&self) -> Result<TopologyReport, EngineError> {
        // Hugepages come and go: what was read at the start is out of date.
        let topology =
            Topology::read(Path::new("/")).map_err(|error| EngineError::Refused(error.to_string()))?;
        let mut report = TopologyReport::of(&topology);
        // Not having it is no fault: some containers hide it.
        let smaps = std::fs::read_to_string("/proc/self/smaps").ok();
        let mut inputs = Vec::new();
        for lcore in &self.lcores {
            let (spans, may_run_on, ports) = lcore.call(|polling| {
                let ports: Vec<_> = polling.inputs().into_iter().map(|(port, _)| port).collect();
                (polling.worker().shard().memory(), allowed_cpus().ok(), ports)
            })?;
            let cpu = u32::try_from(lcore.cpu()).unwrap_or(u32::MAX);
            inputs.push((cpu, ports));
            report.lcores.push(Lcore {
                cpu,
                node: self.placement().node_of(lcore.cpu()),
                may_run_on: may_run_on.map(|cpus| cpus.to_string()),
                memory: memory(smaps.as_deref(), &spans),
            });
        }
        for (id, device) in &self.devices {
            let polls = |(cpu, ports): &(u32, Vec<_>)| ports.contains(id).then_some(*cpu);
            report.ports.push(Port {
                name: device.spec.name.to_string(),
                driver: device.driver.clone(),
                node: self.placement().card_node(&device.spec.devargs),
                polled_by: inputs.iter().filter_map(polls).collect(),
            });
        }
        report.ports.sort_by(|a, b| a.name.cmp(&b.name));
        report.warn(&topology);
        Ok(report)
    }
}

fn memory(smaps: Option<&str>, spans: &[Span]) -> Memory {
    let sizes = smaps.map(|smaps| residence::page_sizes(smaps, spans));
    let nodes = residence::nodes(spans).ok();
    let kib = |bytes: u64| bytes >> 10;
    Memory {
        touched_kib: sizes.map(|sizes| sizes.resident_kib),
        transparent_kib: sizes.map_or(0, |sizes| sizes.transparent_kib),
        reserved_kib: sizes.map_or(0, |sizes| sizes.reserved_kib),
        nodes: nodes.map(|nodes| nodes.bytes.into_iter().map(|(node, bytes)| (node, kib(bytes))).collect()),
    }
}
