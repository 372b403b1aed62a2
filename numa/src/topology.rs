//! NUMA nodes with their CPUs, memory and hugepages, and the place of PCI devices and network interfaces, from sysfs.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::cpulist::{CpuList, CpuListError};

/// Nodes a machine may have; sysfs numbers beyond are ignored.
const MOST_NODES: u32 = 1024;

/// Why the topology could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TopologyError {
    /// A file is missing or unreadable.
    #[error("{}: {source}; is sysfs mounted (mount -t sysfs sysfs /sys)?", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A file with a list of CPUs has none.
    #[error("{}: {source}", path.display())]
    List {
        /// The file.
        path: PathBuf,
        /// What is wrong with its content.
        source: CpuListError,
    },
    /// A device's name could lead out of its directory.
    #[error("{name:?} is no name of a device")]
    Name {
        /// As it was given.
        name: String,
    },
    /// There is no such device.
    #[error("there is no device {name}; {mend} shows those there are")]
    NoDevice {
        /// As it was given.
        name: String,
        /// The command that lists them.
        mend: &'static str,
    },
}

/// Hugepages of one size on one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hugepages {
    /// Size of one, in KiB: 2048 or 1048576 on x86.
    pub size_kib: u64,
    /// How many are reserved.
    pub total: u64,
    /// How many of them nobody uses.
    pub free: u64,
}

/// One NUMA node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its number.
    pub id: u32,
    /// Its CPUs that are online.
    pub cpus: CpuList,
    /// Distances to the nodes, in the order of [`Topology::nodes`]; 10 is the node itself.
    pub distances: Vec<u32>,
    /// Its memory, in KiB.
    pub memory_kib: u64,
    /// What of it is free, in KiB.
    pub free_kib: u64,
    /// Its hugepages, smallest size first.
    pub hugepages: Vec<Hugepages>,
}

/// A PCI device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PciDevice {
    /// Its address, as 0000:01:00.0.
    pub address: String,
    /// Its node; `None` if the firmware does not tell.
    pub node: Option<u32>,
    /// The kernel driver that has it.
    pub driver: Option<String>,
    /// Its class; 0x02.... is a network controller.
    pub class: u32,
    /// Whether an IOMMU confines it.
    pub iommu: bool,
}

/// The machine.
#[derive(Clone, Debug)]
pub struct Topology {
    root: PathBuf,
    /// The nodes, by number. A kernel without NUMA has one, number 0.
    pub nodes: Vec<Node>,
    /// For each core, its threads: CPUs that share it. Cores by their first thread.
    pub cores: Vec<CpuList>,
}

impl Topology {
    /// Reads what is below `root`, which is "/" but for tests.
    ///
    /// # Errors
    /// [`TopologyError::Read`], [`TopologyError::List`].
    pub fn read(root: &Path) -> Result<Self, TopologyError> {
        let online = cpu_list(&root.join("sys/devices/system/cpu/online"))?;
        let directory = root.join("sys/devices/system/node");
        let mut nodes = Vec::new();
        for id in numbered(&directory, "node") {
            let path = directory.join(format!("node{id}"));
            let cpus = cpu_list(&path.join("cpulist"))?;
            let cpus = cpus.iter().filter(|&cpu| online.contains(cpu)).collect();
            let memory = fs::read_to_string(path.join("meminfo")).unwrap_or_default();
            nodes.push(Node {
                id,
                cpus,
                distances: words(&path.join("distance")),
                memory_kib: meminfo(&memory, "MemTotal:"),
                free_kib: meminfo(&memory, "MemFree:"),
                hugepages: hugepages(&path.join("hugepages")),
            });
        }
        if nodes.is_empty() {
            let memory = fs::read_to_string(root.join("proc/meminfo")).unwrap_or_default();
            nodes.push(Node {
                id: 0,
                cpus: online.clone(),
                distances: vec![10],
                memory_kib: meminfo(&memory, "MemTotal:"),
                free_kib: meminfo(&memory, "MemFree:"),
                hugepages: hugepages(&root.join("sys/kernel/mm/hugepages")),
            });
        }
        let cores = cores(root, &online);
        Ok(Self { root: root.to_owned(), nodes, cores })
    }

    /// The node of a CPU; `None` if the CPU is not online.
    pub fn node_of(&self, cpu: u32) -> Option<u32> {
        self.nodes.iter().find(|node| node.cpus.contains(cpu)).map(|node| node.id)
    }

    /// A node by its number.
    pub fn node(&self, id: u32) -> Option<&Node> {
        self.nodes.iter().find(|node| node.id == id)
    }

    /// How far it is from one node to another, 10 being none; `None` if the firmware does not tell.
    pub fn distance(&self, from: u32, to: u32) -> Option<u32> {
        let place = self.nodes.iter().position(|node| node.id == to)?;
        self.node(from)?.distances.get(place).copied()
    }

    /// All CPUs that are online.
    pub fn cpus(&self) -> CpuList {
        self.nodes.iter().flat_map(|node| node.cpus.iter()).collect()
    }

    /// A PCI device by its address, with or without the domain 0000.
    ///
    /// # Errors
    /// [`TopologyError::Name`], [`TopologyError::NoDevice`].
    pub fn pci_device(&self, address: &str) -> Result<PciDevice, TopologyError> {
        let valid = !address.is_empty() && address.chars().all(|c| c.is_ascii_hexdigit() || ":.".contains(c));
        if !valid || !address.contains(':') || address.contains("..") || address.len() > 32 {
            return Err(TopologyError::Name { name: address.to_owned() });
        }
        let domain = if address.matches(':').count() == 1 { "0000:" } else { "" };
        let address = format!("{domain}{}", address.to_ascii_lowercase());
        let path = self.root.join("sys/bus/pci/devices").join(&address);
        if !path.is_dir() {
            return Err(TopologyError::NoDevice { name: address, mend: "lspci -D" });
        }
        let class = fs::read_to_string(path.join("class")).unwrap_or_default();
        Ok(PciDevice {
            node: device_node(&path),
            driver: link_name(&path.join("driver")),
            class: u32::from_str_radix(class.trim().trim_start_matches("0x"), 16).unwrap_or(0),
            iommu: path.join("iommu_group").exists(),
            address,
        })
    }

    /// The node of the card behind a network interface; `None` for virtual ones, or if the firmware does not tell.
    ///
    /// # Errors
    /// [`TopologyError::Name`], [`TopologyError::NoDevice`].
    pub fn interface_node(&self, name: &str) -> Result<Option<u32>, TopologyError> {
        if name.is_empty() || name.len() > 15 || name.starts_with('.') || name.contains(['/', '\0']) {
            return Err(TopologyError::Name { name: name.to_owned() });
        }
        let path = self.root.join("sys/class/net").join(name);
        if !path.exists() {
            return Err(TopologyError::NoDevice { name: name.to_owned(), mend: "ip link" });
        }
        Ok(device_node(&path.join("device")))
    }
}

/// Hugepages of `size_kib` that nobody uses, on a node or on all.
#[must_use]
pub fn free_hugepages(root: &Path, node: Option<u32>, size_kib: u64) -> u64 {
    let node = node.map(|node| root.join(format!("sys/devices/system/node/node{node}/hugepages")));
    let all = || root.join("sys/kernel/mm/hugepages");
    // A kernel without NUMA has no nodes.
    let directory = node.filter(|path| path.is_dir()).unwrap_or_else(all);
    hugepages(&directory).iter().find(|pages| pages.size_kib == size_kib).map_or(0, |pages| pages.free)
}

/// How far a node's memory is from a CPU of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crossing {
    /// The CPU's node.
    pub from: u32,
    /// The memory's, or the card's.
    pub to: u32,
    /// Tenths of the way to its own memory, as the firmware tells; 21 is 2.1 times as far.
    pub tenths: Option<u32>,
}

impl fmt::Display for Crossing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.tenths {
            Some(tenths) => {
                write!(f, "memory of node {} is {}.{} times as far", self.to, tenths / 10, tenths % 10)
            }
            None => {
                write!(f, "memory of node {} is farther, by how much the firmware does not tell", self.to)
            }
        }
    }
}

impl Topology {
    /// What it costs that a CPU of node `from` works on what is on node `to`; `None` if they are one.
    #[must_use]
    pub fn crossing(&self, from: u32, to: u32) -> Option<Crossing> {
        let tenths = || Some(self.distance(from, to)?.saturating_mul(10) / self.distance(from, from)?.max(1));
        (from != to).then(|| Crossing { from, to, tenths: tenths() })
    }
}

/// sysfs says -1 where the firmware does not tell.
fn device_node(device: &Path) -> Option<u32> {
    fs::read_to_string(device.join("numa_node")).ok()?.trim().parse().ok()
}

fn link_name(link: &Path) -> Option<String> {
    fs::read_link(link).ok()?.file_name()?.to_str().map(str::to_owned)
}

fn cpu_list(path: &Path) -> Result<CpuList, TopologyError> {
    let text =
        fs::read_to_string(path).map_err(|source| TopologyError::Read { path: path.to_owned(), source })?;
    text.parse().map_err(|source| TopologyError::List { path: path.to_owned(), source })
}

/// The numbers of a directory's entries "PREFIX0", "PREFIX1", ..., ascending.
fn numbered(directory: &Path, prefix: &str) -> Vec<u32> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let number = |name: &str| name.strip_prefix(prefix)?.parse().ok().filter(|&id| id < MOST_NODES);
    let mut ids: Vec<u32> =
        entries.flatten().filter_map(|entry| entry.file_name().to_str().and_then(number)).collect();
    ids.sort_unstable();
    ids
}

fn words(path: &Path) -> Vec<u32> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

/// The KiB behind `key`, in the format of /proc/meminfo or of a node ("Node 0 MemTotal: 1 kB").
fn meminfo(text: &str, key: &str) -> u64 {
    let after = |line: &str| line.split_whitespace().skip_while(|&word| word != key).nth(1)?.parse().ok();
    text.lines().find_map(after).unwrap_or(0)
}

fn hugepages(directory: &Path) -> Vec<Hugepages> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let count = |path: PathBuf| fs::read_to_string(path).ok()?.trim().parse().ok();
    let mut sizes: Vec<Hugepages> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            let size_kib = name.to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
            let total = count(entry.path().join("nr_hugepages"))?;
            Some(Hugepages { size_kib, total, free: count(entry.path().join("free_hugepages"))? })
        })
        .collect();
    sizes.sort_unstable_by_key(|pages| pages.size_kib);
    sizes
}

/// The online CPUs in groups that share a core; each on its own where the kernel does not tell.
fn cores(root: &Path, online: &CpuList) -> Vec<CpuList> {
    let mut cores: Vec<CpuList> = Vec::new();
    for cpu in online.iter() {
        if cores.iter().any(|core| core.contains(cpu)) {
            continue;
        }
        let path = root.join(format!("sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"));
        let threads = cpu_list(&path).unwrap_or_default();
        let threads = threads.iter().filter(|&thread| online.contains(thread)).chain([cpu]);
        cores.push(threads.collect());
    }
    cores
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    use std::sync::atomic::{AtomicU32, Ordering};

    /// A machine made of files, removed with the value.
    pub(crate) struct FakeMachine(PathBuf);

    impl FakeMachine {
        pub(crate) fn new() -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("weir-numa-{}-{number}", std::process::id()));
            fs::create_dir(&path).expect("a fresh directory");
            Self(path)
        }

        /// Two nodes of four CPUs each, two threads a core (n and n + 4), hugepages on the first node only.
        pub(crate) fn two_nodes() -> Self {
            let machine = Self::new();
            machine.file("sys/devices/system/cpu/online", "0-7\n");
            for (node, cpus, distance, pages) in
                [(0, "0-1,4-5\n", "10 21\n", 512), (1, "2-3,6-7\n", "21 10\n", 0)]
            {
                let path = format!("sys/devices/system/node/node{node}");
                machine.file(&format!("{path}/cpulist"), cpus);
                machine.file(&format!("{path}/distance"), distance);
                machine.file(
                    &format!("{path}/meminfo"),
                    &format!("Node {node} MemTotal:  8388608 kB\nNode {node} MemFree:  4194304 kB\n"),
                );
                machine.hugepages(node, 2048, pages, pages);
                machine.hugepages(node, 1_048_576, 0, 0);
            }
            for cpu in 0..8 {
                let core = cpu % 4;
                let path = format!("sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
                machine.file(&path, &format!("{core},{}\n", core + 4));
            }
            machine
        }

        pub(crate) fn root(&self) -> &Path {
            &self.0
        }

        pub(crate) fn topology(&self) -> Topology {
            Topology::read(&self.0).expect("a machine")
        }

        pub(crate) fn file(&self, path: &str, content: &str) {
            let path = self.0.join(path);
            fs::create_dir_all(path.parent().expect("a directory")).expect("made");
            fs::write(path, content).expect("written");
        }

        pub(crate) fn hugepages(&self, node: u32, size_kib: u64, total: u64, free: u64) {
            let path = format!("sys/devices/system/node/node{node}/hugepages/hugepages-{size_kib}kB");
            self.file(&format!("{path}/nr_hugepages"), &format!("{total}\n"));
            self.file(&format!("{path}/free_hugepages"), &format!("{free}\n"));
        }

        pub(crate) fn pci(&self, address: &str, class: &str, node: i32, driver: Option<&str>) {
            let path = format!("sys/bus/pci/devices/{address}");
            self.file(&format!("{path}/class"), &format!("{class}\n"));
            self.file(&format!("{path}/numa_node"), &format!("{node}\n"));
            if let Some(driver) = driver {
                let to = format!("../../../bus/pci/drivers/{driver}");
                std::os::unix::fs::symlink(to, self.0.join(path).join("driver")).expect("linked");
            }
        }
    }

    impl Drop for FakeMachine {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn nodes_have_their_cpus_distances_memory_and_hugepages() {
        let machine = FakeMachine::two_nodes();
        let topology = machine.topology();
        assert_eq!(topology.nodes.len(), 2);
        let node = &topology.nodes[1];
        assert_eq!((node.id, node.cpus.to_string().as_str()), (1, "2-3,6-7"));
        assert_eq!((node.memory_kib, node.free_kib), (8_388_608, 4_194_304));
        assert_eq!(topology.nodes[0].hugepages[0], Hugepages { size_kib: 2048, total: 512, free: 512 });
        assert_eq!(
            (topology.distance(0, 1), topology.distance(1, 1), topology.distance(0, 9)),
            (Some(21), Some(10), None)
        );
        assert_eq!((topology.node_of(6), topology.node_of(8)), (Some(1), None));
        assert_eq!(
            topology.cores.iter().map(CpuList::to_string).collect::<Vec<_>>(),
            ["0,4", "1,5", "2,6", "3,7"]
        );
    }

    #[test]
    fn what_it_costs_to_cross_between_nodes_is_told_as_the_firmware_has_it() {
        let machine = FakeMachine::two_nodes();
        let topology = machine.topology();
        assert_eq!(topology.crossing(1, 1), None);
        assert_eq!(topology.crossing(0, 1).unwrap().to_string(), "memory of node 1 is 2.1 times as far");
        machine.file("sys/devices/system/node/node0/distance", "");
        let crossing = machine.topology().crossing(0, 1).unwrap();
        assert_eq!(
            crossing.to_string(),
            "memory of node 1 is farther, by how much the firmware does not tell"
        );
    }

    #[test]
    fn free_hugepages_are_those_of_the_node() {
        let machine = FakeMachine::two_nodes();
        machine.hugepages(0, 2048, 512, 500);
        machine.file("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "9\n");
        machine.file("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "7\n");
        let free = |node| free_hugepages(machine.root(), node, 2048);
        assert_eq!((free(Some(0)), free(Some(1)), free(Some(9)), free(None)), (500, 0, 7, 7));
        assert_eq!(free_hugepages(machine.root(), Some(0), 4), 0);
    }

    #[test]
    fn a_cpu_that_is_offline_is_on_no_node() {
        let machine = FakeMachine::two_nodes();
        machine.file("sys/devices/system/cpu/online", "0-3,5-7\n");
        let topology = machine.topology();
        assert_eq!(topology.nodes[0].cpus.to_string(), "0-1,5");
        assert_eq!(topology.cores[0].to_string(), "0");
    }

    #[test]
    fn a_kernel_without_numa_has_one_node() {
        let machine = FakeMachine::new();
        machine.file("sys/devices/system/cpu/online", "0-3\n");
        machine.file("proc/meminfo", "MemTotal:  1000 kB\nMemFree:  10 kB\n");
        machine.file("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "4\n");
        machine.file("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "3\n");
        let topology = machine.topology();
        let [node] = &topology.nodes[..] else { panic!("one node") };
        assert_eq!((node.cpus.len(), node.memory_kib, node.free_kib), (4, 1000, 10));
        assert_eq!(node.hugepages, [Hugepages { size_kib: 2048, total: 4, free: 3 }]);
        assert_eq!(topology.cores.len(), 4);
    }

    #[test]
    fn devices_have_their_place_and_driver() {
        let machine = FakeMachine::two_nodes();
        machine.pci("0000:81:00.0", "0x020000", 1, Some("ixgbe"));
        machine.pci("0000:00:03.0", "0x020000", -1, None);
        machine.file("sys/class/net/eth0/device/numa_node", "1\n");
        machine.file("sys/class/net/veth0/mtu", "1500\n");
        let topology = machine.topology();
        let device = topology.pci_device("81:00.0").expect("there");
        assert_eq!((device.address.as_str(), device.node), ("0000:81:00.0", Some(1)));
        assert_eq!((device.driver.as_deref(), device.class), (Some("ixgbe"), 0x02_0000));
        let device = topology.pci_device("0000:00:03.0").expect("there");
        assert_eq!((device.node, device.driver), (None, None));
        assert!(matches!(topology.pci_device("0000:99:00.0"), Err(TopologyError::NoDevice { .. })));
        assert_eq!(topology.interface_node("eth0").expect("there"), Some(1));
        assert_eq!(topology.interface_node("veth0").expect("there"), None);
        assert!(topology.interface_node("eth9").is_err());
    }

    #[test]
    fn names_cannot_lead_out_of_sysfs() {
        let topology = FakeMachine::two_nodes().topology();
        for name in ["", "..", "../..", "a/b", "0000:00:00.0/..", "::.."] {
            assert!(matches!(topology.pci_device(name), Err(TopologyError::Name { .. })), "{name:?}");
        }
        for name in ["", "..", "../x", "sixteen-letters-"] {
            assert!(matches!(topology.interface_node(name), Err(TopologyError::Name { .. })), "{name:?}");
        }
    }

    #[test]
    fn a_missing_or_malformed_sysfs_is_an_error_with_its_path() {
        let machine = FakeMachine::new();
        let error = Topology::read(machine.root()).expect_err("nothing there").to_string();
        assert!(error.contains("cpu/online") && error.contains("mount"), "{error}");
        machine.file("sys/devices/system/cpu/online", "garbage\n");
        assert!(matches!(Topology::read(machine.root()), Err(TopologyError::List { .. })));
    }

    #[test]
    fn this_machine_can_be_read() {
        let topology = Topology::read(Path::new("/")).expect("a Linux machine");
        assert!(!topology.cpus().is_empty());
    }
}
