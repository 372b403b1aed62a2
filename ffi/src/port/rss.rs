//! Receive-side scaling: what a device says it can do, and how much of a request it really took. Called while a port is
//! described and started. Nothing is taken on trust: keys, types and tables are read back.

use dpdk_sys as sys;

use super::config::{Applied, AppliedRss, HashOver, RssConfig};

/// More entries than any device's redirection table has; a driver that claims more is not believed.
const MOST_RETA: usize = 4096;

/// What a device says it can do to spread packets over its receive queues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RssCapabilities {
    /// It hashes addresses.
    pub addresses: bool,
    /// It hashes the ports of TCP too.
    pub tcp: bool,
    /// It hashes the ports of UDP too.
    pub udp: bool,
    /// It hashes the ports of SCTP too.
    pub sctp: bool,
    /// It can leave the destination out.
    pub source_only: bool,
    /// It can leave the source out.
    pub destination_only: bool,
    /// Entries of its redirection table; 0 if there is none.
    pub table_size: u16,
    /// Bytes of its hash key; 0 if there is none, or the driver does not say.
    pub key_size: u8,
    /// It passes the hash on with each packet.
    pub hash_in_packet: bool,
}

impl RssCapabilities {
    pub(super) fn of(device: &sys::rte_eth_dev_info) -> Self {
        let has = |bits: u64| device.flow_type_rss_offloads & bits != 0;
        Self {
            addresses: has(sys::SHIM_RSS_IP),
            tcp: has(sys::SHIM_RSS_TCP),
            udp: has(sys::SHIM_RSS_UDP),
            sctp: has(sys::SHIM_RSS_SCTP),
            source_only: has(sys::SHIM_RSS_L3_SRC_ONLY),
            destination_only: has(sys::SHIM_RSS_L3_DST_ONLY),
            table_size: device.reta_size,
            key_size: device.hash_key_size,
            hash_in_packet: device.rx_offload_capa & sys::SHIM_RX_OFFLOAD_RSS_HASH != 0,
        }
    }

    /// It can spread packets at all.
    #[must_use]
    pub fn any(&self) -> bool {
        self.addresses || self.tcp || self.udp || self.sctp
    }
}

/// The part of an [`RssConfig`] that is within a device's own limits.
#[derive(Debug)]
pub(super) struct Request {
    over: HashOver,
    /// Types that the device knows; without any it is not asked.
    types: u64,
    /// The key in the device's length, empty if it cannot be used.
    key: Vec<u8>,
    tells_length: bool,
    in_packet: bool,
}

impl Request {
    /// Tells in `applied` what it has to leave out; `None` if nothing is left.
    pub(super) fn new(
        rss: &RssConfig,
        device: &sys::rte_eth_dev_info,
        applied: &mut Applied,
    ) -> Option<Self> {
        let types = hash_types(rss.over) & device.flow_type_rss_offloads;
        if types & !(sys::SHIM_RSS_L3_SRC_ONLY | sys::SHIM_RSS_L3_DST_ONLY) == 0 {
            applied.notes.push("the device spreads no packets over queues".to_owned());
            return None;
        }
        let key = device_key(rss, device, applied);
        let in_packet = device.rx_offload_capa & sys::SHIM_RX_OFFLOAD_RSS_HASH != 0;
        Some(Self { over: rss.over, types, key, tells_length: device.hash_key_size != 0, in_packet })
    }

    /// Asks for it when the device is configured. The request points to the key from then on.
    pub(super) fn put_into(&mut self, request: &mut sys::rte_eth_conf) {
        request.rxmode.mq_mode = sys::SHIM_MQ_RX_RSS;
        request.rx_adv_conf.rss_conf.rss_hf = self.types;
        // Where the driver tells no length, later releases of DPDK refuse a key at this point.
        if !self.key.is_empty() && self.tells_length {
            request.rx_adv_conf.rss_conf.rss_key = self.key.as_mut_ptr();
            request.rx_adv_conf.rss_conf.rss_key_len = self.key_length();
        }
        if self.in_packet {
            request.rxmode.offloads |= sys::SHIM_RX_OFFLOAD_RSS_HASH;
        }
    }

    /// What a device takes only once it runs, and what it has taken of all.
    pub(super) fn finish(mut self, port: u16, rss: &RssConfig, size: u16, applied: &mut Applied) {
        // Some drivers take key and types only in this way, net_null for one.
        if !self.is_in_use(port) && !self.key.is_empty() {
            #[allow(clippy::needless_update, reason = "later releases have more fields")]
            let mut request = sys::rte_eth_rss_conf {
                rss_key_len: self.key_length(),
                rss_key: self.key.as_mut_ptr(),
                rss_hf: self.types,
                ..Default::default()
            };
            // SAFETY: the port is ours; the key lives for the call, which copies it.
            unsafe { sys::rte_eth_dev_rss_hash_update(port, &raw mut request) };
        }
        let (key, types) = match read_hash(port, self.key.len()) {
            Some((key, types)) => (!self.key.is_empty() && key == self.key, types & self.types),
            None => (false, 0),
        };
        let fields = is_complete(self.over, types);
        let table = set_table(port, &rss.table, size);
        for (done, what) in [(key, "use the hash key"), (table, "use the redirection table")] {
            if !done {
                applied.notes.push(format!("the device does not {what}"));
            }
        }
        if !fields {
            applied
                .notes
                .push(format!("the device does not hash over {} for every protocol", self.over.name()));
        }
        applied.rss = Some(AppliedRss { fields, key, table, hash_in_packet: self.in_packet });
    }

    fn is_in_use(&self, port: u16) -> bool {
        read_hash(port, self.key.len())
            .is_some_and(|(key, types)| key == self.key && types & self.types == self.types)
    }

    /// `device_key` gives as many bytes as a u8 says.
    fn key_length(&self) -> u8 {
        u8::try_from(self.key.len()).unwrap_or(u8::MAX)
    }
}

/// The key in the device's length, empty if it cannot be used. Drivers that do not tell a length have the usual one.
fn device_key(rss: &RssConfig, device: &sys::rte_eth_dev_info, applied: &mut Applied) -> Vec<u8> {
    /// Bytes that hash an IPv6 connection: both addresses, both ports, and 32 bits more. DPDK takes it for the
    /// length of a key where a driver does not say another one.
    const USUAL: usize = 40;
    let length = match usize::from(device.hash_key_size) {
        0 => USUAL,
        length => length,
    };
    if rss.key.is_empty() {
        return Vec::new();
    }
    if length < rss.key.len() {
        let wanted = rss.key.len();
        applied.notes.push(format!("the device's hash key has {length} bytes, {wanted} were to be set"));
        return Vec::new();
    }
    rss.key.iter().copied().cycle().take(length).collect()
}

/// Where one address alone counts, the protocols with ports are asked for too: to some drivers "IP" means packets of
/// other protocols only.
fn hash_types(over: HashOver) -> u64 {
    let all = sys::SHIM_RSS_IP | sys::SHIM_RSS_TCP | sys::SHIM_RSS_UDP | sys::SHIM_RSS_SCTP;
    all | match over {
        HashOver::Endpoints => 0,
        HashOver::SourceAddress => sys::SHIM_RSS_L3_SRC_ONLY,
        HashOver::DestinationAddress => sys::SHIM_RSS_L3_DST_ONLY,
    }
}

/// Whether what was granted steers as asked for. Devices differ in how finely they split protocols, so a type counts as
/// covered if any bit of its family is there; the missing restriction to one address does not.
fn is_complete(over: HashOver, granted: u64) -> bool {
    let has = |bits: u64| granted & bits != 0;
    has(sys::SHIM_RSS_IP)
        && match over {
            HashOver::Endpoints => has(sys::SHIM_RSS_TCP) && has(sys::SHIM_RSS_UDP),
            HashOver::SourceAddress => has(sys::SHIM_RSS_L3_SRC_ONLY),
            HashOver::DestinationAddress => has(sys::SHIM_RSS_L3_DST_ONLY),
        }
}

/// The device's key of `length` bytes (none are asked for if that is 0) and its types; `None` if it does not tell.
fn read_hash(port: u16, length: usize) -> Option<(Vec<u8>, u64)> {
    // Longer than any key that a u8 can measure: drivers write all of theirs, whatever length they are told.
    let mut key = vec![0_u8; usize::from(u8::MAX)];
    let mut request = sys::rte_eth_rss_conf::default();
    if length > 0 {
        request.rss_key = key.as_mut_ptr();
        request.rss_key_len = u8::try_from(length).unwrap_or(u8::MAX);
    }
    // SAFETY: the port is ours; the buffer, if it is given, has room for any key.
    let result = unsafe { sys::rte_eth_dev_rss_hash_conf_get(port, &raw mut request) };
    key.truncate(length);
    (result == 0).then_some((key, request.rss_hf))
}

/// Fills the redirection table; says whether the device has taken all of it.
fn set_table(port: u16, table: &[u16], size: u16) -> bool {
    let entries = usize::from(size);
    if table.is_empty() || entries == 0 || entries > MOST_RETA {
        return false;
    }
    let mut groups = empty_table(entries);
    for (index, &queue) in (0..entries).zip(table.iter().cycle()) {
        groups[index / GROUP].reta[index % GROUP] = queue;
    }
    // SAFETY: the port is ours; the groups cover `size` entries.
    if unsafe { sys::rte_eth_dev_rss_reta_update(port, groups.as_mut_ptr(), size) } != 0 {
        return false;
    }
    let mut read = empty_table(entries);
    // SAFETY: as above.
    if unsafe { sys::rte_eth_dev_rss_reta_query(port, read.as_mut_ptr(), size) } != 0 {
        return false;
    }
    groups.iter().zip(&read).all(|(wanted, read)| wanted.reta == read.reta)
}

const GROUP: usize = sys::SHIM_RETA_GROUP as usize;

/// A table of zeros with every one of its entries marked.
fn empty_table(entries: usize) -> Vec<sys::rte_eth_rss_reta_entry64> {
    let mut groups = vec![sys::rte_eth_rss_reta_entry64::default(); entries.div_ceil(GROUP)];
    for index in 0..entries {
        groups[index / GROUP].mask |= 1 << (index % GROUP);
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_complete_when_its_addresses_and_protocols_are_granted() {
        let all = hash_types(HashOver::Endpoints);
        assert!(is_complete(HashOver::Endpoints, all));
        assert!(!is_complete(HashOver::Endpoints, all & !sys::SHIM_RSS_UDP));
        assert!(!is_complete(HashOver::Endpoints, all & !sys::SHIM_RSS_IP));
        assert!(!is_complete(HashOver::SourceAddress, all), "the destination counts too");
        assert!(is_complete(HashOver::SourceAddress, hash_types(HashOver::SourceAddress)));
        assert!(!is_complete(HashOver::DestinationAddress, hash_types(HashOver::SourceAddress)));
    }

    #[test]
    fn a_key_takes_the_devices_length_or_is_not_set() {
        let rss = |length: usize| RssConfig {
            key: [1, 2].repeat(length / 2),
            over: HashOver::Endpoints,
            table: Vec::new(),
        };
        let device = |size| sys::rte_eth_dev_info { hash_key_size: size, ..Default::default() };
        let mut applied = Applied::default();
        assert_eq!(device_key(&rss(40), &device(52), &mut applied), [1, 2].repeat(26));
        assert_eq!(device_key(&rss(40), &device(0), &mut applied).len(), 40);
        assert!(device_key(&rss(0), &device(40), &mut applied).is_empty());
        assert!(applied.notes.is_empty());
        assert!(device_key(&rss(40), &device(16), &mut applied).is_empty());
        assert_eq!(applied.notes, ["the device's hash key has 16 bytes, 40 were to be set"]);
    }
}
