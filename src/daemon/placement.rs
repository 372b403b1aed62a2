//! Where the lcores run and where memory has to be: on the CPUs that the configuration names, or next to the
//! ports' cards. In profile metal also what the machine lacks, told before DPDK starts.

use std::collections::BTreeSet;
use std::path::Path;

use weir_numa::lcores::{self, Lcore};
use weir_numa::pin;
use weir_numa::preflight::{self, Wanted};
use weir_numa::topology::Topology;

use super::DaemonError;
use crate::config::{Config, DevArgs, Lcores, Profile};
use crate::control::topology::far;

/// Where things are.
#[derive(Debug)]
pub(super) struct Placement {
    topology: Topology,
    pub(super) lcores: Vec<Lcore>,
    /// Nodes that lcores and cards are on.
    nodes: BTreeSet<u32>,
}

impl Placement {
    /// Chooses CPUs; in profile metal also refuses a machine that DPDK could not start on, naming what is missing.
    pub(super) fn find(config: &Config) -> Result<Self, DaemonError> {
        let topology = Topology::read(Path::new("/"))?;
        let allowed = pin::allowed_cpus()?;
        let ports: Vec<_> = config.bridges.iter().flat_map(|bridge| &bridge.ports).collect();
        let cards: Vec<_> = ports.iter().map(|port| card_node(&topology, &port.devargs)).collect();
        let lcores = match &config.lcores {
            Lcores::On(list) => lcores::from_list(&topology, &allowed, &list.to_string())?,
            Lcores::Automatic(count) => lcores::choose(&topology, &allowed, count.get(), &cards)?,
        };
        let nodes = lcores.iter().map(|lcore| lcore.node).chain(cards.iter().copied().flatten()).collect();
        let placement = Self { topology, lcores, nodes };
        if config.profile == Profile::Metal {
            placement.preflight(config)?;
        }
        Ok(placement)
    }

    /// The NUMA node of an lcore's CPU.
    pub(super) fn node_of(&self, cpu: usize) -> u32 {
        let own = |lcore: &&Lcore| usize::try_from(lcore.cpu) == Ok(cpu);
        self.lcores.iter().find(own).map_or(0, |lcore| lcore.node)
    }

    /// The machine as it was at the start.
    pub(super) const fn topology(&self) -> &Topology {
        &self.topology
    }

    fn preflight(&self, config: &Config) -> Result<(), DaemonError> {
        let ports = config.bridges.iter().flat_map(|bridge| &bridge.ports);
        let wanted = Wanted {
            hugepages: self.nodes.iter().map(|&node| (node, config.memory_mib.into())).collect(),
            cards: ports.filter_map(|port| weir_ffi::devargs::pci_address(port.devargs.as_str())).collect(),
            lcores: self.lcores.clone(),
        };
        let report = preflight::check(Path::new("/"), &self.topology, &wanted);
        if !report.can_start() {
            return Err(DaemonError::Preflight(Box::new(report)));
        }
        Ok(())
    }

    /// The lcores that receive from a port's queues, one for each queue. Queue q is lcore q's where there is one for each
    /// lcore, as a card that steers has it. Otherwise each goes to the lcore with the fewest of this port's, next to the
    /// card if there is a choice, and of those to the one with the fewest of `others`, other ports' queues by lcore.
    pub(super) fn receivers(&self, devargs: &DevArgs, queues: u16, others: &[usize]) -> Vec<usize> {
        let nodes: Vec<_> = self.lcores.iter().map(|lcore| lcore.node).collect();
        spread(&nodes, self.card_node(devargs), queues, others)
    }

    /// Says so when a port's card is on another node than some lcore that receives from it.
    pub(super) fn warn_if_far(&self, name: &str, devargs: &DevArgs, receivers: &[usize]) {
        let receiving = self.lcores.iter().enumerate().filter(|(lcore, _)| receivers.contains(lcore));
        let receiving = receiving.map(|(_, lcore)| (lcore.cpu, lcore.node));
        if let Some(warning) = far(&self.topology, name, self.card_node(devargs), receiving) {
            tracing::warn!("{warning}");
        }
    }

    /// The node of the card behind a port; `None` for virtual devices, or if nobody knows.
    pub(super) fn card_node(&self, devargs: &DevArgs) -> Option<u32> {
        card_node(&self.topology, devargs)
    }

    /// MiB of hugepages for each node from 0 on, as DPDK takes them: `mib` where something runs, 0 elsewhere.
    pub(super) fn memory(&self, mib: u32) -> Vec<u32> {
        let last = self.nodes.last().copied().unwrap_or(0);
        (0..=last).map(|node| if self.nodes.contains(&node) { mib } else { 0 }).collect()
    }

    /// The node for a port's packets: its card's if memory was reserved there, otherwise the first lcore's.
    pub(super) fn packet_node(&self, card: Option<u32>) -> Option<u32> {
        card.filter(|node| self.nodes.contains(node)).or(self.lcores.first().map(|lcore| lcore.node))
    }
}

/// The node of the card behind a port; `None` for virtual devices, or if nobody knows.
fn card_node(topology: &Topology, devargs: &DevArgs) -> Option<u32> {
    if let Some(address) = weir_ffi::devargs::pci_address(devargs.as_str()) {
        return topology.pci_device(&address).ok()?.node;
    }
    topology.interface_node(&weir_ffi::devargs::interface(devargs.as_str())?).ok()?
}

/// [`Placement::receivers`], with the lcores' nodes and the card's.
fn spread(nodes: &[u32], card: Option<u32>, queues: u16, others: &[usize]) -> Vec<usize> {
    if usize::from(queues) == nodes.len() {
        return (0..nodes.len()).collect();
    }
    let mut own = vec![0u16; nodes.len()];
    let mut receivers = Vec::new();
    for _ in 0..queues {
        let cost = |&lcore: &usize| {
            let far = card.is_some() && nodes.get(lcore).copied() != card;
            (own.get(lcore).copied(), far, others.get(lcore).copied().unwrap_or(0))
        };
        let Some(best) = (0..nodes.len()).min_by_key(cost) else { break };
        if let Some(count) = own.get_mut(best) {
            *count += 1;
        }
        receivers.push(best);
    }
    receivers
}

#[cfg(test)]
mod tests {
    use super::spread;

    #[test]
    fn a_queue_for_each_lcore_is_that_lcores() {
        assert_eq!(spread(&[0, 0, 1], Some(1), 3, &[9, 0, 0]), [0, 1, 2]);
        assert_eq!(spread(&[0], None, 1, &[5]), [0]);
    }

    #[test]
    fn single_queues_go_to_the_lcores_with_the_fewest() {
        let mut others = [0; 3];
        for expected in [0, 1, 2, 0, 1, 2] {
            assert_eq!(spread(&[0; 3], None, 1, &others), [expected]);
            others[expected] += 1;
        }
    }

    #[test]
    fn a_ports_queues_are_spread_before_nearness_and_others_count() {
        // Near ones first, the one with less to do before the other; far ones only for want of near ones.
        assert_eq!(spread(&[0, 1, 1, 0], Some(1), 3, &[0, 7, 2, 1]), [2, 1, 0]);
        assert_eq!(spread(&[0, 1, 1, 0], Some(1), 6, &[0, 7, 2, 1]), [2, 1, 0, 3, 2, 1]);
        // More queues than lcores and more still.
        assert_eq!(spread(&[0, 0], None, 5, &[0, 0]), [0, 1, 0, 1, 0]);
        assert_eq!(spread(&[], None, 2, &[]), [0usize; 0]);
    }
}
