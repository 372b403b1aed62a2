//! The machine, and how a datapath lies on it: what `weir show topology` prints, as text and JSON. The daemon fills it in;
//! without one the machine is shown alone.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::Serialize;
use weir_numa::topology::{Crossing, Topology, TopologyError};

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TopologyReport {
    /// NUMA nodes, by number.
    pub nodes: Vec<Node>,
    /// In the order of their shards.
    pub lcores: Vec<Lcore>,
    /// By name.
    pub ports: Vec<Port>,
    /// What costs speed, and what helps.
    pub warnings: Vec<String>,
}

/// A NUMA node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Node {
    /// Its number.
    pub node: u32,
    /// Its CPUs that are online, as "0-3,8".
    pub cpus: String,
    /// The same in groups that share a core.
    pub cores: Vec<String>,
    /// The way to each node's memory as the firmware tells, 10 being the shortest.
    pub distances: BTreeMap<u32, u32>,
    /// Its memory.
    pub memory_mib: u64,
    /// What of it is free.
    pub free_mib: u64,
    /// Its hugepages, smallest size first.
    pub hugepages: Vec<Hugepages>,
}

/// Hugepages of one size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hugepages {
    /// Size of one.
    pub size_kib: u64,
    /// How many are reserved.
    pub total: u64,
    /// How many of them nobody uses.
    pub free: u64,
}

/// An lcore.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Lcore {
    /// The CPU it was given.
    pub cpu: u32,
    /// That CPU's node.
    pub node: u32,
    /// The CPUs that its thread may run on, as the kernel told just now; `None` if it did not.
    pub may_run_on: Option<String>,
    /// Its connection table.
    pub memory: Memory,
}

/// Where memory really is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// KiB that have been touched, all the rest is nowhere yet; `None` if the kernel does not tell.
    pub touched_kib: Option<u64>,
    /// Of these on transparent huge pages.
    pub transparent_kib: u64,
    /// Of these on hugepages that the administrator has reserved.
    pub reserved_kib: u64,
    /// KiB by node, from samples; `None` if the kernel does not tell.
    pub nodes: Option<BTreeMap<u32, u64>>,
}

/// A port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Its driver.
    pub driver: String,
    /// Its card's node; `None` for virtual devices, or if the firmware does not tell.
    pub node: Option<u32>,
    /// The CPUs of the lcores that receive from it.
    pub polled_by: Vec<u32>,
}

impl TopologyReport {
    /// This machine alone.
    ///
    /// # Errors
    /// When sysfs cannot be read.
    pub fn of_machine() -> Result<Self, TopologyError> {
        Ok(Self::of(&Topology::read(Path::new("/"))?))
    }

    /// A machine alone.
    #[must_use]
    pub fn of(topology: &Topology) -> Self {
        let node = |node: &weir_numa::topology::Node| Node {
            node: node.id,
            cpus: node.cpus.to_string(),
            cores: topology
                .cores
                .iter()
                .filter(|core| core.iter().next().is_some_and(|cpu| node.cpus.contains(cpu)))
                .map(ToString::to_string)
                .collect(),
            distances: topology
                .nodes
                .iter()
                .filter_map(|to| Some((to.id, topology.distance(node.id, to.id)?)))
                .collect(),
            memory_mib: node.memory_kib >> 10,
            free_mib: node.free_kib >> 10,
            hugepages: node
                .hugepages
                .iter()
                .map(|pages| Hugepages { size_kib: pages.size_kib, total: pages.total, free: pages.free })
                .collect(),
        };
        Self { nodes: topology.nodes.iter().map(node).collect(), ..Self::default() }
    }

    /// Finds what costs speed: ports far from an lcore that receives from them, threads that are not pinned, memory of
    /// other nodes.
    pub fn warn(&mut self, topology: &Topology) {
        let mut warnings = Vec::new();
        for port in &self.ports {
            let polled_by = |lcore: &&Lcore| port.polled_by.contains(&lcore.cpu);
            let lcores = self.lcores.iter().filter(polled_by).map(|lcore| (lcore.cpu, lcore.node));
            warnings.extend(far(topology, &port.name, port.node, lcores));
        }
        for lcore in &self.lcores {
            let cpu = lcore.cpu;
            if let Some(cpus) = lcore.may_run_on.as_ref().filter(|cpus| **cpus != cpu.to_string()) {
                warnings.push(format!(
                    "the lcore on CPU {cpu} may run on {cpus}: something has set its thread's affinity (taskset -cp)"
                ));
            }
            warnings.extend(lcore.far_memory(topology));
        }
        self.warnings = warnings;
    }
}

impl Lcore {
    /// What to say of its memory on other nodes.
    pub fn far_memory(&self, topology: &Topology) -> Vec<String> {
        let Self { cpu, node: own, .. } = self;
        let nodes = self.memory.nodes.iter().flatten();
        let far = |(&node, kib): (&u32, &u64)| {
            let crossing = topology.crossing(*own, node)?;
            Some(format!(
                "{} MiB of the connection table of the lcore on CPU {cpu} (node {own}) are on node {node}, which had to \
                 help out: {crossing}",
                kib >> 10
            ))
        };
        nodes.filter_map(far).collect()
    }
}

/// What to say of a port whose card is on another node than some of the lcores (CPU and node) that receive from it.
#[must_use]
pub fn far(
    topology: &Topology,
    port: &str,
    card: Option<u32>,
    lcores: impl Iterator<Item = (u32, u32)>,
) -> Option<String> {
    let card = card?;
    let mut crossings: BTreeMap<u32, (Crossing, Vec<String>)> = BTreeMap::new();
    for (cpu, node) in lcores {
        if let Some(crossing) = topology.crossing(node, card) {
            crossings.entry(node).or_insert((crossing, Vec::new())).1.push(cpu.to_string());
        }
    }
    let parts: Vec<String> = crossings
        .iter()
        .map(|(node, (crossing, cpus))| {
            format!("for the lcores on CPU {} (node {node}) {crossing}", cpus.join(", "))
        })
        .collect();
    (!parts.is_empty()).then(|| {
        format!(
            "port {port}: its card is on node {card}, so packets cross between nodes: {}; name CPUs of node {card} as \
             lcores (cat /sys/devices/system/node/node{card}/cpulist)",
            parts.join(", ")
        )
    })
}

/// A size of pages.
fn size(kib: u64) -> String {
    match kib {
        kib if kib % (1 << 20) == 0 => format!("{} GiB", kib >> 20),
        kib if kib % (1 << 10) == 0 => format!("{} MiB", kib >> 10),
        kib => format!("{kib} KiB"),
    }
}

fn joined<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for TopologyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for node in &self.nodes {
            writeln!(f, "node {}: {} MiB of memory, {} MiB free", node.node, node.memory_mib, node.free_mib)?;
            writeln!(f, "  CPUs {}; cores {}", node.cpus, node.cores.join(" "))?;
            for Hugepages { size_kib, total, free } in &node.hugepages {
                writeln!(f, "  hugepages of {}: {free} of {total} free", size(*size_kib))?;
            }
            if self.nodes.len() > 1 {
                let to = |(to, distance): (&u32, &u32)| format!("{distance} to node {to}");
                writeln!(f, "  distances: {}", joined(node.distances.iter().map(to)))?;
            }
        }
        for lcore in &self.lcores {
            let pinned = match &lcore.may_run_on {
                Some(cpus) if *cpus == lcore.cpu.to_string() => "pinned".to_owned(),
                Some(cpus) => format!("not pinned, it may run on {cpus}"),
                None => "pinned as far as is known".to_owned(),
            };
            writeln!(f, "lcore on CPU {}: node {}, {pinned}", lcore.cpu, lcore.node)?;
            writeln!(f, "  connections: {}", lcore.memory)?;
        }
        for port in &self.ports {
            let node = port.node.map_or("no node".to_owned(), |node| format!("node {node}"));
            let lcores = joined(&port.polled_by);
            writeln!(
                f,
                "port {}: {}, {node}; received from by the lcore on CPU {lcores}",
                port.name, port.driver
            )?;
        }
        self.warnings.iter().try_for_each(|warning| writeln!(f, "warning: {warning}"))
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(touched) = self.touched_kib else { return f.write_str("the kernel does not tell where") };
        write!(f, "{touched} KiB touched")?;
        if touched == 0 {
            return Ok(());
        }
        let small = touched.saturating_sub(self.reserved_kib + self.transparent_kib);
        let kinds = [
            (self.reserved_kib, "reserved hugepages"),
            (self.transparent_kib, "transparent huge pages"),
            (small, "small pages"),
        ];
        let there = kinds.iter().filter(|(kib, _)| *kib > 0);
        write!(f, ", {}", joined(there.map(|(kib, kind)| format!("{kib} KiB on {kind}"))))?;
        match &self.nodes {
            None => f.write_str("; on which node the kernel does not tell"),
            Some(nodes) if nodes.len() == 1 => write!(f, "; on node {}", joined(nodes.keys())),
            Some(nodes) => {
                let each = nodes.iter().map(|(node, kib)| format!("{kib} KiB on node {node}"));
                write!(f, "; {}", joined(each))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::fs;
    use std::path::PathBuf;

    /// A machine made of files, removed with the value.
    struct FakeRoot(PathBuf);

    impl FakeRoot {
        /// Two nodes of two CPUs each.
        fn new(name: &str) -> Self {
            let root =
                Self(std::env::temp_dir().join(format!("weir-topology-{name}-{}", std::process::id())));
            root.file("devices/system/cpu/online", "0-3");
            for (node, cpus, distances) in [(0, "0-1", "10 21"), (1, "2-3", "21 10")] {
                let path = format!("devices/system/node/node{node}");
                root.file(&format!("{path}/cpulist"), cpus);
                root.file(&format!("{path}/distance"), distances);
                root.file(
                    &format!("{path}/meminfo"),
                    "Node 0 MemTotal: 8388608 kB\nNode 0 MemFree: 1048576 kB\n",
                );
                for (size, total, free) in [(2_048, 512, 12), (1_048_576, 4, 4)] {
                    root.file(
                        &format!("{path}/hugepages/hugepages-{size}kB/nr_hugepages"),
                        &format!("{total}"),
                    );
                    root.file(
                        &format!("{path}/hugepages/hugepages-{size}kB/free_hugepages"),
                        &format!("{free}"),
                    );
                }
            }
            root
        }

        fn file(&self, path: &str, content: &str) {
            let path = self.0.join("sys").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }

        fn topology(&self) -> Topology {
            Topology::read(&self.0).unwrap()
        }
    }

    impl Drop for FakeRoot {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn running(topology: &Topology) -> TopologyReport {
        let mut report = TopologyReport::of(topology);
        let memory = |nodes: &[(u32, u64)]| Memory {
            touched_kib: Some(16_400),
            transparent_kib: 2_048,
            reserved_kib: 8_192,
            nodes: Some(nodes.iter().copied().collect()),
        };
        report.lcores = vec![
            Lcore { cpu: 1, node: 0, may_run_on: Some("1".into()), memory: memory(&[(0, 16_400)]) },
            Lcore {
                cpu: 2,
                node: 1,
                may_run_on: Some("0-3".into()),
                memory: memory(&[(0, 4_096), (1, 12_304)]),
            },
            Lcore {
                cpu: 3,
                node: 1,
                memory: Memory { touched_kib: Some(0), ..Memory::default() },
                ..Lcore::default()
            },
        ];
        let port = |name: &str, node, polled_by: &[u32]| Port {
            name: name.into(),
            driver: "net_ixgbe".into(),
            node,
            polled_by: polled_by.to_vec(),
        };
        report.ports =
            vec![port("p1", Some(0), &[1]), port("p2", Some(0), &[1, 2, 3]), port("p3", None, &[2])];
        report.warn(topology);
        report
    }

    #[test]
    fn a_machine_of_two_nodes_prints_with_what_runs_on_it_and_what_that_costs() {
        let root = FakeRoot::new("text");
        let text = running(&root.topology()).to_string();
        assert_eq!(
            text,
            "\
node 0: 8192 MiB of memory, 1024 MiB free
  CPUs 0-1; cores 0 1
  hugepages of 2 MiB: 12 of 512 free
  hugepages of 1 GiB: 4 of 4 free
  distances: 10 to node 0, 21 to node 1
node 1: 8192 MiB of memory, 1024 MiB free
  CPUs 2-3; cores 2 3
  hugepages of 2 MiB: 12 of 512 free
  hugepages of 1 GiB: 4 of 4 free
  distances: 21 to node 0, 10 to node 1
lcore on CPU 1: node 0, pinned
  connections: 16400 KiB touched, 8192 KiB on reserved hugepages, 2048 KiB on transparent huge pages, 6160 KiB on small pages; on node 0
lcore on CPU 2: node 1, not pinned, it may run on 0-3
  connections: 16400 KiB touched, 8192 KiB on reserved hugepages, 2048 KiB on transparent huge pages, 6160 KiB on small pages; 4096 KiB on node 0, 12304 KiB on node 1
lcore on CPU 3: node 1, pinned as far as is known
  connections: 0 KiB touched
port p1: net_ixgbe, node 0; received from by the lcore on CPU 1
port p2: net_ixgbe, node 0; received from by the lcore on CPU 1, 2, 3
port p3: net_ixgbe, no node; received from by the lcore on CPU 2
warning: port p2: its card is on node 0, so packets cross between nodes: for the lcores on CPU 2, 3 (node 1) memory of node 0 is 2.1 times as far; name CPUs of node 0 as lcores (cat /sys/devices/system/node/node0/cpulist)
warning: the lcore on CPU 2 may run on 0-3: something has set its thread's affinity (taskset -cp)
warning: 4 MiB of the connection table of the lcore on CPU 2 (node 1) are on node 0, which had to help out: memory of node 0 is 2.1 times as far
"
        );
    }

    #[test]
    fn programs_read_the_same_as_json() {
        let root = FakeRoot::new("json");
        let json = serde_json::to_value(running(&root.topology())).unwrap();
        assert_eq!(json["nodes"][1]["distances"], serde_json::json!({ "0": 21, "1": 10 }));
        assert_eq!(
            json["nodes"][0]["hugepages"][0],
            serde_json::json!({ "size_kib": 2048, "total": 512, "free": 12 })
        );
        assert_eq!(json["lcores"][1]["memory"]["nodes"], serde_json::json!({ "0": 4096, "1": 12304 }));
        assert_eq!(
            json["ports"][2],
            serde_json::json!({
                "name": "p3", "driver": "net_ixgbe", "node": null, "polled_by": [2]
            })
        );
        assert_eq!(json["warnings"].as_array().map(Vec::len), Some(3));
    }

    #[test]
    fn ports_next_to_their_lcores_and_those_without_a_place_warn_of_nothing() {
        let root = FakeRoot::new("near");
        let topology = root.topology();
        assert_eq!(far(&topology, "p", Some(1), [(2, 1), (3, 1)].into_iter()), None);
        assert_eq!(far(&topology, "p", None, [(2, 1)].into_iter()), None);
        assert_eq!(far(&topology, "p", Some(1), std::iter::empty()), None);
    }
}
