//! What profile metal needs and this machine lacks, found before EAL starts: hugepages on the nodes, the binding of network
//! cards, lcores near their cards. Each finding names what is missing and the command that mends it. Changes nothing.

use std::fmt;
use std::fs;
use std::path::Path;

use crate::lcores::Lcore;
use crate::topology::{Hugepages, PciDevice, Topology};

/// Kernel drivers that DPDK works beside, or through which it reaches a device.
const DPDK_DRIVERS: &[&str] =
    &["vfio-pci", "igb_uio", "uio_pci_generic", "mlx4_core", "mlx5_core", "mana", "gve"];

/// What is to be run.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// MiB of hugepages on each node that needs some.
    pub hugepages: Vec<(u32, u64)>,
    /// PCI addresses of the network cards.
    pub cards: Vec<String>,
    /// Where the lcores run.
    pub lcores: Vec<Lcore>,
}

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// It will not start.
    Blocks,
    /// It will be slow.
    Slows,
}

/// Something missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How much it matters.
    pub weight: Weight,
    /// What is missing, and where.
    pub missing: String,
    /// The command that mends it, or what to change.
    pub mend: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let weight = match self.weight {
            Weight::Blocks => "missing",
            Weight::Slows => "slow",
        };
        write!(f, "{weight}: {}\n    {}", self.missing, self.mend)
    }
}

/// The state of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeReport {
    /// The node.
    pub node: u32,
    /// Its hugepages.
    pub hugepages: Vec<Hugepages>,
    /// Free memory, in KiB.
    pub free_kib: u64,
    /// Lcores on it.
    pub lcores: Vec<u32>,
}

/// The state of one card; `None` if it is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CardReport {
    /// As it was asked for.
    pub address: String,
    /// What it is.
    pub device: Option<PciDevice>,
}

/// What there is, and what is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The nodes.
    pub nodes: Vec<NodeReport>,
    /// The cards.
    pub cards: Vec<CardReport>,
    /// What is missing.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether starting makes sense.
    pub fn can_start(&self) -> bool {
        self.findings.iter().all(|finding| finding.weight != Weight::Blocks)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for node in &self.nodes {
            write!(f, "node {}: {} MiB free", node.node, node.free_kib >> 10)?;
            for pages in &node.hugepages {
                write!(f, ", {} of {} hugepages of {} free", pages.free, pages.total, size(pages.size_kib))?;
            }
            let lcores: Vec<String> = node.lcores.iter().map(u32::to_string).collect();
            match lcores.is_empty() {
                true => writeln!(f, ", no lcore")?,
                false => writeln!(f, ", lcores on CPU {}", lcores.join(","))?,
            }
        }
        for card in &self.cards {
            let Some(device) = &card.device else {
                writeln!(f, "card {}: not there", card.address)?;
                continue;
            };
            let driver = device.driver.as_deref().unwrap_or("none");
            match device.node {
                Some(node) => writeln!(f, "card {}: node {node}, driver {driver}", device.address)?,
                None => writeln!(f, "card {}: node unknown, driver {driver}", device.address)?,
            }
        }
        for finding in &self.findings {
            writeln!(f, "{finding}")?;
        }
        Ok(())
    }
}

fn size(kib: u64) -> String {
    match kib {
        kib if kib % (1 << 20) == 0 => format!("{} GiB", kib >> 20),
        kib => format!("{} MiB", kib >> 10),
    }
}

/// Looks at the machine below `root` ("/" but for tests).
pub fn check(root: &Path, topology: &Topology, wanted: &Wanted) -> Report {
    let mut findings = Vec::new();
    hugepages(root, topology, wanted, &mut findings);
    let mut cards = Vec::new();
    for address in &wanted.cards {
        let device = topology.pci_device(address);
        match &device {
            Ok(device) => card(root, device, wanted, &mut findings),
            Err(error) => findings.push(Finding {
                weight: Weight::Blocks,
                missing: format!("card {address}: {error}"),
                mend: "dpdk-devbind.py --status-dev net".to_owned(),
            }),
        }
        cards.push(CardReport { address: address.clone(), device: device.ok() });
    }
    let node = |node: &crate::topology::Node| NodeReport {
        node: node.id,
        hugepages: node.hugepages.clone(),
        free_kib: node.free_kib,
        lcores: wanted.lcores.iter().filter(|lcore| lcore.node == node.id).map(|lcore| lcore.cpu).collect(),
    };
    Report { nodes: topology.nodes.iter().map(node).collect(), cards, findings }
}

fn hugepages(root: &Path, topology: &Topology, wanted: &Wanted, findings: &mut Vec<Finding>) {
    for &(id, mib) in &wanted.hugepages {
        let Some(node) = topology.node(id) else {
            findings.push(Finding {
                weight: Weight::Blocks,
                missing: format!("NUMA node {id}, which is to give {mib} MiB of hugepages"),
                mend: format!("use one of the {} nodes there are (numactl --hardware)", topology.nodes.len()),
            });
            continue;
        };
        // EAL uses one size or the other; the sum would promise too much.
        let free = node.hugepages.iter().map(|pages| pages.free.saturating_mul(pages.size_kib)).max();
        let (free, needed) = (free.unwrap_or(0), mib.saturating_mul(1024));
        if free >= needed {
            continue;
        }
        let missing = format!("node {id} has {} MiB of free hugepages, {mib} MiB are needed", free >> 10);
        let mend = match node.hugepages.first() {
            None => "this kernel has no hugepages (CONFIG_HUGETLBFS)".to_owned(),
            Some(pages) => {
                // Those in use stay in use: the new total is they and the ones needed.
                let used = pages.total.saturating_sub(pages.free);
                let total = used.saturating_add(needed.div_ceil(pages.size_kib.max(1)));
                let kib = pages.size_kib;
                let path =
                    format!("sys/devices/system/node/node{id}/hugepages/hugepages-{kib}kB/nr_hugepages");
                match root.join(&path).exists() {
                    true => format!("echo {total} > /{path}"),
                    false => {
                        format!("echo {total} > /sys/kernel/mm/hugepages/hugepages-{kib}kB/nr_hugepages")
                    }
                }
            }
        };
        findings.push(Finding { weight: Weight::Blocks, missing, mend });
    }
}

fn card(root: &Path, device: &PciDevice, wanted: &Wanted, findings: &mut Vec<Finding>) {
    let address = &device.address;
    if device.class >> 16 != 0x02 {
        findings.push(Finding {
            weight: Weight::Blocks,
            missing: format!("{address} is no network card (PCI class {:#08x})", device.class),
            mend: "dpdk-devbind.py --status-dev net".to_owned(),
        });
        return;
    }
    let bind = format!("modprobe vfio-pci && dpdk-devbind.py --bind=vfio-pci {address}");
    let unbound = match device.driver.as_deref() {
        Some(driver) if DPDK_DRIVERS.contains(&driver) => None,
        Some(driver) => Some(format!("card {address} belongs to the kernel's driver {driver}")),
        None => Some(format!("card {address} has no driver")),
    };
    if let Some(missing) = unbound {
        findings.push(Finding { weight: Weight::Blocks, missing, mend: bind });
    }
    if device.driver.as_deref().is_none_or(|driver| driver == "vfio-pci") && !device.iommu {
        let unsafe_mode =
            fs::read_to_string(root.join("sys/module/vfio/parameters/enable_unsafe_noiommu_mode"));
        if !unsafe_mode.is_ok_and(|mode| mode.trim() == "Y" || mode.trim() == "1") {
            findings.push(Finding {
                weight: Weight::Blocks,
                missing: format!("card {address} is behind no IOMMU, which vfio-pci wants"),
                mend: "boot with intel_iommu=on (or amd_iommu=on) iommu=pt, or, giving up protection: \
                       echo 1 > /sys/module/vfio/parameters/enable_unsafe_noiommu_mode"
                    .to_owned(),
            });
        }
    }
    if let Some(node) = device.node
        && !wanted.lcores.is_empty()
        && wanted.lcores.iter().all(|lcore| lcore.node != node)
    {
        findings.push(Finding {
            weight: Weight::Slows,
            missing: format!("card {address} is on node {node}, where no lcore runs"),
            mend: format!(
                "name CPUs of node {node} as lcores (cat /sys/devices/system/node/node{node}/cpulist), or leave the choice \
                 to the program"
            ),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::tests::FakeMachine;

    fn machine() -> FakeMachine {
        let machine = FakeMachine::two_nodes();
        machine.pci("0000:01:00.0", "0x020000", 0, Some("vfio-pci"));
        machine.file("sys/bus/pci/devices/0000:01:00.0/iommu_group/type", "DMA\n");
        machine.pci("0000:81:00.0", "0x020000", 1, Some("ixgbe"));
        machine.pci("0000:00:1f.0", "0x060100", -1, None);
        machine
    }

    fn report(machine: &FakeMachine, wanted: &Wanted) -> Report {
        check(machine.root(), &machine.topology(), wanted)
    }

    #[test]
    fn a_machine_that_is_ready_has_no_findings() {
        let wanted = Wanted {
            hugepages: vec![(0, 1024)],
            cards: vec!["01:00.0".to_owned()],
            lcores: vec![Lcore { cpu: 1, node: 0 }],
        };
        let report = report(&machine(), &wanted);
        assert_eq!(report.findings, []);
        assert!(report.can_start());
        let text = report.to_string();
        assert!(
            text.contains("512 of 512 hugepages of 2 MiB free, 0 of 0 hugepages of 1 GiB free"),
            "{text}"
        );
        assert!(text.contains("card 0000:01:00.0: node 0, driver vfio-pci"), "{text}");
    }

    #[test]
    fn missing_hugepages_are_named_by_node_with_the_command_that_reserves_them() {
        let machine = machine();
        machine.hugepages(0, 2048, 512, 12);
        let wanted = Wanted { hugepages: vec![(0, 1024), (1, 64), (7, 1)], ..Wanted::default() };
        let report = report(&machine, &wanted);
        let mends: Vec<_> = report.findings.iter().map(|finding| finding.mend.as_str()).collect();
        assert_eq!(
            mends[0],
            "echo 1012 > /sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages"
        );
        assert_eq!(
            mends[1],
            "echo 32 > /sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages"
        );
        assert!(report.findings[2].missing.contains("node 7"));
        assert_eq!(mends.len(), 3, "EAL needs no mount for memory that nobody shares");
        assert!(!report.can_start());
    }

    #[test]
    fn a_card_with_the_wrong_driver_or_place_is_named_with_its_mend() {
        let wanted = Wanted {
            cards: ["81:00.0", "0000:00:1f.0", "0000:55:00.0"].map(str::to_owned).to_vec(),
            lcores: vec![Lcore { cpu: 1, node: 0 }],
            ..Wanted::default()
        };
        let report = report(&machine(), &wanted);
        let text = report.to_string();
        for part in [
            "0000:81:00.0 belongs to the kernel's driver ixgbe",
            "modprobe vfio-pci && dpdk-devbind.py --bind=vfio-pci 0000:81:00.0",
            "slow: card 0000:81:00.0 is on node 1, where no lcore runs",
            "0000:00:1f.0 is no network card",
            "card 0000:55:00.0: not there",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        assert_eq!(report.cards[2].device, None);
    }

    #[test]
    fn vfio_without_an_iommu_needs_its_unsafe_mode() {
        let machine = machine();
        machine.pci("0000:02:00.0", "0x020000", -1, Some("vfio-pci"));
        let wanted = Wanted { cards: vec!["02:00.0".to_owned()], ..Wanted::default() };
        assert!(report(&machine, &wanted).findings[0].mend.contains("enable_unsafe_noiommu_mode"));
        machine.file("sys/module/vfio/parameters/enable_unsafe_noiommu_mode", "Y\n");
        assert!(report(&machine, &wanted).can_start());
    }
}
