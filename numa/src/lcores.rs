//! Where lcores run: on the CPUs the configuration names, or next to their network cards.

use std::cmp::Reverse;

use crate::cpulist::{CpuList, CpuListError};
use crate::topology::Topology;

/// A CPU for one lcore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lcore {
    /// The CPU.
    pub cpu: u32,
    /// Its NUMA node.
    pub node: u32,
}

/// Why there are no CPUs for the lcores.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LcoreError {
    /// The list cannot be read.
    #[error(transparent)]
    List(#[from] CpuListError),
    /// The list is empty, or no lcore was asked for.
    #[error("no lcore was asked for; name CPUs as 1,3-5, or a number of lcores of at least 1")]
    None,
    /// The list names a CPU that is not online.
    #[error("CPU {cpu} is not online; online are {online}")]
    Offline {
        /// The CPU.
        cpu: u32,
        /// Those that are.
        online: CpuList,
    },
    /// The list names a CPU this process may not use.
    #[error(
        "CPU {cpu} is not allowed for this process; allowed are {allowed} (taskset, systemd's CPUAffinity and cgroups can \
         restrict them)"
    )]
    NotAllowed {
        /// The CPU.
        cpu: u32,
        /// Those that are.
        allowed: CpuList,
    },
    /// More lcores than CPUs.
    #[error("{wanted} lcores were asked for, but only the CPUs {allowed} are allowed for this process")]
    TooMany {
        /// Lcores wanted.
        wanted: usize,
        /// CPUs there are.
        allowed: CpuList,
    },
}

/// The CPUs of a configured list, as "1,3-5".
///
/// # Errors
/// [`LcoreError`], for a list that is malformed or empty, or names CPUs that are offline or not allowed.
pub fn from_list(topology: &Topology, allowed: &CpuList, list: &str) -> Result<Vec<Lcore>, LcoreError> {
    let cpus: CpuList = list.parse()?;
    if cpus.is_empty() {
        return Err(LcoreError::None);
    }
    let place = |cpu| {
        let Some(node) = topology.node_of(cpu) else {
            return Err(LcoreError::Offline { cpu, online: topology.cpus() });
        };
        if !allowed.contains(cpu) {
            return Err(LcoreError::NotAllowed { cpu, allowed: allowed.clone() });
        }
        Ok(Lcore { cpu, node })
    };
    cpus.iter().map(place).collect()
}

/// `wanted` CPUs for the lcores of ports whose cards are on `card_nodes` (one entry a port; `None` for cards and virtual
/// devices without a place).
///
/// The nearer to the cards the better; a core's second thread only after all first ones; and the core of CPU 0, where the
/// kernel does its housekeeping, last. The result depends on nothing else.
///
/// # Errors
/// [`LcoreError::None`], [`LcoreError::TooMany`].
pub fn choose(
    topology: &Topology,
    allowed: &CpuList,
    wanted: usize,
    card_nodes: &[Option<u32>],
) -> Result<Vec<Lcore>, LcoreError> {
    if wanted == 0 {
        return Err(LcoreError::None);
    }
    let mut candidates = Vec::new();
    for node in &topology.nodes {
        let near = nearness(topology, node.id, card_nodes);
        for cpu in node.cpus.iter().filter(|&cpu| allowed.contains(cpu)) {
            let core = topology.cores.iter().find(|core| core.contains(cpu));
            let earlier = |thread: u32| thread < cpu && allowed.contains(thread);
            let thread = core.map_or(0, |core| core.iter().filter(|&thread| earlier(thread)).count());
            let housekeeping = cpu == 0 || core.is_some_and(|core| core.contains(0));
            candidates.push(((near, thread, housekeeping, cpu), Lcore { cpu, node: node.id }));
        }
    }
    if candidates.len() < wanted {
        let allowed = candidates.iter().map(|&(_, lcore)| lcore.cpu).collect();
        return Err(LcoreError::TooMany { wanted, allowed });
    }
    candidates.sort_unstable_by_key(|&(key, _)| key);
    Ok(candidates.into_iter().take(wanted).map(|(_, lcore)| lcore).collect())
}

/// Less is nearer: first the sum of distances to the cards, then the more cards the better.
fn nearness(topology: &Topology, node: u32, card_nodes: &[Option<u32>]) -> (u32, Reverse<usize>) {
    // Where the firmware tells no distance, another node is as far as the usual neighbour.
    let far = |card: u32| topology.distance(node, card).unwrap_or(if node == card { 10 } else { 20 });
    let sum = card_nodes.iter().flatten().fold(0_u32, |sum, &card| sum.saturating_add(far(card)));
    (sum, Reverse(card_nodes.iter().flatten().filter(|&&card| card == node).count()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::tests::FakeMachine;

    fn chosen(wanted: usize, allowed: &str, cards: &[Option<u32>]) -> Vec<u32> {
        let machine = FakeMachine::two_nodes();
        let allowed = allowed.parse().expect("a list");
        let lcores = choose(&machine.topology(), &allowed, wanted, cards).expect("enough");
        lcores.iter().map(|lcore| lcore.cpu).collect()
    }

    #[test]
    fn lcores_run_next_to_their_card_and_spill_over_when_it_is_full() {
        assert_eq!(chosen(2, "0-7", &[Some(1), None]), [2, 3]);
        assert_eq!(chosen(3, "0-7", &[Some(1), Some(1)]), [2, 3, 6], "second threads of the near cores");
        assert_eq!(chosen(5, "0-7", &[Some(1)]), [2, 3, 6, 7, 1], "then the far node");
    }

    #[test]
    fn cores_are_filled_before_second_threads_and_housekeeping_comes_last() {
        assert_eq!(chosen(8, "0-7", &[]), [1, 2, 3, 0, 5, 6, 7, 4]);
        assert_eq!(chosen(2, "0-7", &[Some(0)]), [1, 0]);
    }

    #[test]
    fn a_second_thread_whose_first_is_not_allowed_counts_as_a_first() {
        assert_eq!(chosen(2, "1-2,7", &[Some(1)]), [2, 7]);
    }

    #[test]
    fn more_lcores_than_cpus_are_refused() {
        let machine = FakeMachine::two_nodes();
        let allowed = "2-3".parse().expect("a list");
        let topology = machine.topology();
        let error = choose(&topology, &allowed, 3, &[]).expect_err("two CPUs").to_string();
        assert!(error.contains("3 lcores") && error.contains("2-3"), "{error}");
        assert_eq!(choose(&topology, &allowed, 0, &[]), Err(LcoreError::None));
    }

    #[test]
    fn a_configured_list_is_checked_against_the_machine() {
        let machine = FakeMachine::two_nodes();
        let (topology, allowed) = (machine.topology(), "0-5".parse().expect("a list"));
        let lcores = from_list(&topology, &allowed, "1,3-4").expect("valid");
        assert_eq!(lcores, [Lcore { cpu: 1, node: 0 }, Lcore { cpu: 3, node: 1 }, Lcore { cpu: 4, node: 0 }]);
        assert!(matches!(from_list(&topology, &allowed, "9"), Err(LcoreError::Offline { cpu: 9, .. })));
        assert!(matches!(from_list(&topology, &allowed, "6"), Err(LcoreError::NotAllowed { cpu: 6, .. })));
        assert!(matches!(from_list(&topology, &allowed, "1,"), Err(LcoreError::List(_))));
        assert_eq!(from_list(&topology, &allowed, ""), Err(LcoreError::None));
    }
}
