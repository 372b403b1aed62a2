//! What most likely helps when a driver does not start: looks at what the driver needs (interface, rights, files, kernel
//! driver) and names what is missing, with the command that mends it.

use std::fs;
use std::path::Path;

use crate::devargs::Devargs;
use crate::interface::Interface;

const CAP_NET_ADMIN: u32 = 12;
const CAP_NET_RAW: u32 = 13;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_BPF: u32 = 39;

/// The likely mend, as sentences without a final full stop.
pub(crate) fn likely(devargs: &Devargs) -> String {
    let mut hints = Vec::new();
    if devargs.is("net_af_packet") {
        interface(devargs, "iface", &mut hints);
        capability(CAP_NET_RAW, "CAP_NET_RAW", &mut hints);
        otherwise(
            &mut hints,
            "framesz must be a multiple of 16 and at most blocksz, blocksz a multiple of the page size",
        );
    } else if devargs.is("net_af_xdp") {
        interface(devargs, "iface", &mut hints);
        capability(CAP_NET_ADMIN, "CAP_NET_ADMIN", &mut hints);
        capability(CAP_NET_RAW, "CAP_NET_RAW", &mut hints);
        if !has_capability(CAP_SYS_ADMIN) {
            capability(CAP_BPF, "CAP_BPF", &mut hints);
        }
        locked_memory(&mut hints);
        otherwise(
            &mut hints,
            "the kernel must have CONFIG_XDP_SOCKETS, the interface the queues asked for (ethtool -L) and no other XDP \
             program (ip link set dev IFACE xdp off); net_af_packet needs less",
        );
    } else if devargs.is("net_pcap") {
        capture_files(devargs, &mut hints);
        for key in ["rx_iface", "tx_iface", "iface"] {
            if devargs.value(key).is_some() {
                interface(devargs, key, &mut hints);
                capability(CAP_NET_RAW, "CAP_NET_RAW", &mut hints);
            }
        }
        otherwise(&mut hints, "net_pcap takes rx_pcap=FILE, tx_pcap=FILE, rx_iface=, tx_iface= or iface=");
    } else if devargs.is("net_tap") || devargs.is("net_tun") {
        if !Path::new("/dev/net/tun").exists() {
            hints.push("/dev/net/tun is missing: modprobe tun".to_owned());
        }
        capability(CAP_NET_ADMIN, "CAP_NET_ADMIN", &mut hints);
    } else if devargs.is("net_memif") {
        let socket = devargs.value("socket").unwrap_or("/run/memif.sock");
        if let Some(directory) = Path::new(socket).parent().filter(|directory| !directory.is_dir()) {
            hints.push(format!("the socket's directory {} does not exist: mkdir -p it", directory.display()));
        }
        otherwise(
            &mut hints,
            "the two sides of a memif need the same id and one role=server, one role=client",
        );
    } else if devargs.is_pci() {
        pci(devargs.name(), &mut hints);
    } else {
        otherwise(
            &mut hints,
            "check the driver's name and keys; a virtual device is DRIVER and a number, as net_af_packet0, a PCI device \
             its address, as 0000:01:00.0",
        );
    }
    otherwise(&mut hints, "check the keys and values of the device description");
    hints.join("; ")
}

fn otherwise(hints: &mut Vec<String>, text: &str) {
    if hints.is_empty() {
        hints.push(text.to_owned());
    }
}

fn interface(devargs: &Devargs, key: &str, hints: &mut Vec<String>) {
    let Some(name) = devargs.value(key) else {
        hints.push(format!("name an interface: {key}=NAME"));
        return;
    };
    if Interface::named(name).and_then(|interface| interface.index()).is_err() {
        hints.push(format!(
            "interface {name:?} does not exist in this network namespace (ip link shows those that do; \
             ip link add {name} type veth peer name PEER makes one)"
        ));
    }
}

fn capability(bit: u32, name: &str, hints: &mut Vec<String>) {
    if !has_capability(bit) {
        let flag = name.to_ascii_lowercase();
        hints.push(format!("the process lacks {name}: run it as root, or setcap {flag}+ep PROGRAM"));
    }
}

/// Whether the calling thread has a capability; assumed where /proc does not tell.
fn has_capability(bit: u32) -> bool {
    let Ok(status) = fs::read_to_string("/proc/thread-self/status") else { return true };
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).is_none_or(|set| set >> bit & 1 == 1)
}

fn locked_memory(hints: &mut Vec<String>) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: writes the struct given.
    let result = unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) };
    // 5.11 and later kernels charge BPF memory to the cgroup, but a UMEM still counts as locked.
    if result == 0 && limit.rlim_cur < 64 << 20 {
        let kib = limit.rlim_cur >> 10;
        hints.push(format!(
            "locked memory is limited to {kib} KiB: ulimit -l unlimited (LimitMEMLOCK=infinity)"
        ));
    }
}

fn capture_files(devargs: &Devargs, hints: &mut Vec<String>) {
    if let Some(path) = devargs.value("rx_pcap")
        && let Err(error) = fs::File::open(path)
    {
        hints.push(format!("the capture {path:?} cannot be read: {error}"));
    }
    if let Some(path) = devargs.value("tx_pcap") {
        let directory = Path::new(path).parent().filter(|parent| !parent.as_os_str().is_empty());
        if let Some(directory) = directory.filter(|directory| !directory.is_dir()) {
            hints.push(format!("the directory {} does not exist: mkdir -p it", directory.display()));
        }
    }
}

fn pci(address: &str, hints: &mut Vec<String>) {
    let full = if address.matches(':').count() == 1 { format!("0000:{address}") } else { address.to_owned() };
    let device = Path::new("/sys/bus/pci/devices").join(&full);
    if !device.exists() {
        hints.push(format!(
            "there is no PCI device {full}: dpdk-devbind.py --status-dev net shows those there are"
        ));
        return;
    }
    let driver = fs::read_link(device.join("driver")).ok();
    let driver = driver.as_deref().and_then(Path::file_name).and_then(|name| name.to_str());
    match driver {
        Some("vfio-pci" | "igb_uio" | "uio_pci_generic" | "mlx4_core" | "mlx5_core" | "gve") => {
            hints.push("profile metal is needed, with rights on /dev/vfio and enough locked memory".to_owned());
        }
        Some(other) => hints.push(format!(
            "{full} belongs to the kernel's driver {other}: modprobe vfio-pci && dpdk-devbind.py -b vfio-pci {full} \
             (the kernel loses the interface)"
        )),
        None => hints
            .push(format!("{full} has no driver: modprobe vfio-pci && dpdk-devbind.py -b vfio-pci {full}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn for_devargs(text: &str) -> String {
        likely(&Devargs::new(text).expect("valid"))
    }

    #[test]
    fn what_is_missing_is_named_with_the_command_that_mends_it() {
        assert!(for_devargs("net_af_packet0,iface=no-such0").contains("ip link"));
        assert!(for_devargs("net_af_packet0").contains("iface=NAME"));
        assert!(for_devargs("net_pcap0,rx_pcap=/no/such.pcap").contains("cannot be read"));
        assert!(for_devargs("net_pcap0,tx_pcap=/no/such/dir/x.pcap").contains("mkdir -p"));
        assert!(for_devargs("0000:ff:1f.7").contains("dpdk-devbind.py"));
        assert!(for_devargs("net_no_such_driver0").contains("driver's name"));
    }
}
