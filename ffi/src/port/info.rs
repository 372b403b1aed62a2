//! What a device is and can do, its link, and its counters.

use std::ffi::CStr;
use std::fmt;

use dpdk_sys as sys;

use super::rss::RssCapabilities;

/// What a port's device is and can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortInfo {
    /// The driver, as "net_af_packet".
    pub driver: String,
    /// DPDK's name of the device, as "net_af_packet0".
    pub name: String,
    /// Most receive queues.
    pub max_rx_queues: u16,
    /// Most transmit queues.
    pub max_tx_queues: u16,
    /// How it can spread packets over its receive queues.
    pub rss: RssCapabilities,
    /// The device can verify IPv4, TCP and UDP checksums.
    pub can_verify_checksums: bool,
    /// The longest frame it receives, in bytes.
    pub max_frame: u32,
    /// Its MTU now, in bytes.
    pub mtu: u16,
    /// Its MAC address.
    pub mac: MacAddress,
    /// Its NUMA node, where it has one.
    pub socket: Option<u32>,
    /// Its kernel interface, where it has one (0 if not).
    pub interface_index: u32,
    /// Its link.
    pub link: Link,
}

/// An Ethernet address; prints as 02:00:00:00:00:01.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// The state of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// It carries.
    pub up: bool,
    /// Both ways at once.
    pub full_duplex: bool,
    /// In Mbit/s; `None` if unknown. Virtual devices make it up.
    pub speed_mbps: Option<u32>,
}

/// What a device counted since the port was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortStats {
    /// Packets received.
    pub rx_packets: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets the device dropped because nobody fetched them.
    pub rx_missed: u64,
    /// Packets received with an error.
    pub rx_errors: u64,
    /// Packets that could not be sent.
    pub tx_errors: u64,
    /// Packets dropped because no buffer was free.
    pub rx_no_buffer: u64,
}

impl From<sys::rte_eth_stats> for PortStats {
    fn from(stats: sys::rte_eth_stats) -> Self {
        Self {
            rx_packets: stats.ipackets,
            tx_packets: stats.opackets,
            rx_bytes: stats.ibytes,
            tx_bytes: stats.obytes,
            rx_missed: stats.imissed,
            rx_errors: stats.ierrors,
            tx_errors: stats.oerrors,
            rx_no_buffer: stats.rx_nombuf,
        }
    }
}

/// The device's own description; a negative error number if it has none.
pub(super) fn device(port: u16) -> Result<sys::rte_eth_dev_info, i32> {
    let mut info = sys::rte_eth_dev_info::default();
    // SAFETY: DPDK checks the port and fills the struct.
    let result = unsafe { sys::rte_eth_dev_info_get(port, &raw mut info) };
    if result == 0 { Ok(info) } else { Err(result) }
}

/// All of it.
pub(super) fn read(port: u16, name: &str) -> Result<PortInfo, i32> {
    let device = device(port)?;
    let mut mac = sys::rte_ether_addr::default();
    let mut mtu = 0;
    // SAFETY: DPDK checks the port; every pointer is to a local. A driver's name is static.
    let (driver, socket) = unsafe {
        // A device without an address keeps zeros; one without an MTU keeps 0.
        sys::rte_eth_macaddr_get(port, &raw mut mac);
        sys::rte_eth_dev_get_mtu(port, &raw mut mtu);
        let driver = match device.driver_name.is_null() {
            true => String::new(),
            false => CStr::from_ptr(device.driver_name).to_string_lossy().into_owned(),
        };
        (driver, sys::rte_eth_dev_socket_id(port))
    };
    Ok(PortInfo {
        driver,
        name: name.to_owned(),
        max_rx_queues: device.max_rx_queues,
        max_tx_queues: device.max_tx_queues,
        rss: RssCapabilities::of(&device),
        can_verify_checksums: device.rx_offload_capa & sys::SHIM_RX_OFFLOAD_CHECKSUM
            == sys::SHIM_RX_OFFLOAD_CHECKSUM,
        max_frame: device.max_rx_pktlen,
        mtu,
        mac: MacAddress(mac.addr_bytes),
        socket: u32::try_from(socket).ok(),
        interface_index: device.if_index,
        link: link(port),
    })
}

/// The link now, without waiting for it; down if the device does not tell.
pub(super) fn link(port: u16) -> Link {
    let (mut speed, mut up, mut full) = (0, 0, 0);
    // SAFETY: DPDK checks the port; the pointers are to locals.
    if unsafe { sys::shim_link(port, &raw mut speed, &raw mut up, &raw mut full) } != 0 {
        return Link::default();
    }
    let speed_mbps = (speed != 0 && speed != u32::MAX).then_some(speed);
    Link { up: up == 1, full_duplex: full == 1, speed_mbps }
}
