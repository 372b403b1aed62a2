//! Configuring and starting a device: asks what it can do, requests no more, and tells what came of it.

use dpdk_sys as sys;

use super::config::{Applied, AppliedRss, HashOver, PortConfig, RssConfig};
use super::error::PortError;
use super::{PortInner, Slot, State, check, info};
use crate::af_packet;
use crate::log;
use crate::pool::Pool;

/// Entries of the redirection table come in groups of 64; more than 2048 no device has.
const MOST_RETA: usize = 4096;

/// See [`super::Port::start`].
pub(super) fn start(inner: &PortInner, config: &PortConfig) -> Result<Applied, PortError> {
    let mut state = inner.state();
    if state.started {
        return Err(PortError::Busy {
            port: inner.id,
            devargs: inner.devargs.text.clone(),
            queues: state.rx.len() + state.tx.len(),
        });
    }
    let mark = log::mark();
    let device =
        info::device(inner.id).map_err(|e| inner.failed("reading the device's description", e, mark))?;
    let pools = checked_pools(inner, config, &device)?;
    let mut applied = Applied::default();
    let key = configure(inner, config, &device, &mut applied)?;
    queues(inner, config, &device, &mut applied, pools, &mut state)?;
    // SAFETY: the port is configured and ours.
    check(unsafe { sys::rte_eth_dev_start(inner.id) })
        .map_err(|e| inner.failed("starting the device", e, mark))?;
    state.started = true;
    state.rx = vec![Slot::Free; usize::from(config.rx_queues)];
    state.tx = vec![Slot::Free; usize::from(config.tx_queues)];
    state.large = config.large.clone();
    after_start(inner, config, &device, &key, &mut applied);
    Ok(applied)
}

/// The requests that the device's own limits decide, checked before anything is changed.
fn checked_pools<'a>(
    inner: &PortInner,
    config: &'a PortConfig,
    device: &sys::rte_eth_dev_info,
) -> Result<&'a [Pool], PortError> {
    let directions = [
        ("receive", config.rx_queues, device.max_rx_queues),
        ("transmit", config.tx_queues, device.max_tx_queues),
    ];
    for (direction, wanted, most) in directions {
        if wanted == 0 || wanted > most {
            let hint = if inner.devargs.is("net_af_packet") { " (the devargs' qpairs=N)" } else { "" };
            return Err(
                inner.incapable(format!("{wanted} {direction} queues, where it has 1 to {most}{hint}"))
            );
        }
    }
    if config.pools.is_empty() {
        return Err(inner.incapable("no pool for received packets was given".to_owned()));
    }
    for pool in &config.pools {
        let buffer = u32::from(pool.data_room()) + u32::from(sys::SHIM_MBUF_HEADROOM);
        if buffer < device.min_rx_bufsize {
            return Err(inner.incapable(format!(
                "pool {:?} has buffers of {buffer} bytes, the device needs {}",
                pool.name(),
                device.min_rx_bufsize
            )));
        }
    }
    let least = af_packet::least_data_room(&inner.devargs);
    if let Some(pool) = config.pools.iter().find(|pool| u32::from(pool.data_room()) < least) {
        return Err(inner.incapable(format!(
            "pool {:?} has a data room of {} bytes, the devargs' framesz needs {least}; make either fit the other",
            pool.name(),
            pool.data_room()
        )));
    }
    if let Some(bad) = config.rss.iter().flat_map(|rss| &rss.table).find(|&&queue| queue >= config.rx_queues)
    {
        return Err(inner
            .incapable(format!("the redirection table names receive queue {bad}, of {}", config.rx_queues)));
    }
    Ok(&config.pools)
}

/// Configures the device; returns the hash key as it was given to it.
fn configure(
    inner: &PortInner,
    config: &PortConfig,
    device: &sys::rte_eth_dev_info,
    applied: &mut Applied,
) -> Result<Vec<u8>, PortError> {
    let mark = log::mark();
    let mut present = 0;
    // SAFETY: the port is ours; DPDK writes a number.
    check(unsafe { sys::rte_eth_dev_get_mtu(inner.id, &raw mut present) })
        .map_err(|e| inner.failed("reading the MTU", e, mark))?;
    let mtu = config.mtu.unwrap_or(present);
    if mtu < device.min_mtu || mtu > device.max_mtu {
        let (least, most) = (device.min_mtu, device.max_mtu);
        return Err(inner.incapable(format!("an MTU of {mtu}, where it has {least} to {most}")));
    }
    let mut request = sys::rte_eth_conf::default();
    request.rxmode.mtu = u32::from(mtu);
    request.rxmode.mq_mode = sys::SHIM_MQ_RX_NONE;
    if config.rx_checksum {
        request.rxmode.offloads |= device.rx_offload_capa & sys::SHIM_RX_OFFLOAD_CHECKSUM;
        applied.rx_checksum = request.rxmode.offloads != 0;
        if !applied.rx_checksum {
            applied.notes.push("the device verifies no checksums".to_owned());
        }
    }
    // Frames longer than a buffer come in several segments, from devices that can. The rest of them do it unasked.
    request.rxmode.offloads |= device.rx_offload_capa & sys::SHIM_RX_OFFLOAD_SCATTER;
    let mut key = config.rss.as_ref().map(|rss| device_key(rss, device, applied)).unwrap_or_default();
    if let Some(rss) = &config.rss {
        let wanted = hash_types(rss.over);
        let granted = wanted & device.flow_type_rss_offloads;
        if granted & !(sys::SHIM_RSS_L3_SRC_ONLY | sys::SHIM_RSS_L3_DST_ONLY) == 0 {
            applied.notes.push("the device spreads no packets over queues".to_owned());
            key.clear();
        } else {
            request.rxmode.mq_mode = sys::SHIM_MQ_RX_RSS;
            request.rx_adv_conf.rss_conf.rss_hf = granted;
            if !key.is_empty() {
                request.rx_adv_conf.rss_conf.rss_key = key.as_mut_ptr();
                // `device_key` gives as many bytes as the device's u8 says.
                request.rx_adv_conf.rss_conf.rss_key_len = device.hash_key_size;
            }
            request.rxmode.offloads |= device.rx_offload_capa & sys::SHIM_RX_OFFLOAD_RSS_HASH;
            let in_packet = request.rxmode.offloads & sys::SHIM_RX_OFFLOAD_RSS_HASH != 0;
            let fields = is_complete(rss.over, granted);
            if !fields {
                applied
                    .notes
                    .push(format!("the device does not hash over {:?} for every protocol", rss.over));
            }
            applied.rss = Some(AppliedRss { fields, key: false, table: false, hash_in_packet: in_packet });
        }
    }
    // SAFETY: the port is ours and stopped; `request` and the key it points to live for the call, which copies them.
    check(unsafe {
        sys::rte_eth_dev_configure(inner.id, config.rx_queues, config.tx_queues, &raw const request)
    })
    .map_err(|e| inner.failed("configuring the device", e, mark))?;
    if config.mtu.is_some_and(|mtu| mtu != present) {
        // Configuring records the MTU; this also tells those drivers that pass it on.
        // SAFETY: the port is ours.
        let result = unsafe { sys::rte_eth_dev_set_mtu(inner.id, mtu) };
        if result == -libc::ENOTSUP {
            applied.notes.push("the device has no MTU of its own".to_owned());
        } else {
            check(result).map_err(|e| inner.failed("setting the MTU", e, mark))?;
        }
    }
    applied.mtu = mtu;
    Ok(key)
}

/// The key in the device's length, empty if it cannot be used.
fn device_key(rss: &RssConfig, device: &sys::rte_eth_dev_info, applied: &mut Applied) -> Vec<u8> {
    let length = usize::from(device.hash_key_size);
    if length < rss.key.len() || rss.key.is_empty() {
        if length != 0 {
            let wanted = rss.key.len();
            applied.notes.push(format!("the device's hash key has {length} bytes, {wanted} were to be set"));
        }
        return Vec::new();
    }
    rss.key.iter().copied().cycle().take(length).collect()
}

fn hash_types(over: HashOver) -> u64 {
    match over {
        HashOver::Endpoints => sys::SHIM_RSS_IP | sys::SHIM_RSS_TCP | sys::SHIM_RSS_UDP | sys::SHIM_RSS_SCTP,
        HashOver::SourceAddress => sys::SHIM_RSS_IP | sys::SHIM_RSS_L3_SRC_ONLY,
        HashOver::DestinationAddress => sys::SHIM_RSS_IP | sys::SHIM_RSS_L3_DST_ONLY,
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

fn queues(
    inner: &PortInner,
    config: &PortConfig,
    device: &sys::rte_eth_dev_info,
    applied: &mut Applied,
    pools: &[Pool],
    state: &mut State,
) -> Result<(), PortError> {
    let mark = log::mark();
    let (mut rx, mut tx) = (config.rx_descriptors, config.tx_descriptors);
    // SAFETY: the port is ours; DPDK adjusts the two numbers.
    check(unsafe { sys::rte_eth_dev_adjust_nb_rx_tx_desc(inner.id, &raw mut rx, &raw mut tx) })
        .map_err(|e| inner.failed("choosing descriptor numbers", e, mark))?;
    (applied.rx_descriptors, applied.tx_descriptors) = (rx, tx);
    // SAFETY: the port is ours.
    let socket = unsafe { sys::rte_eth_dev_socket_id(inner.id) };
    let socket = u32::try_from(socket).unwrap_or(u32::MAX); // u32::MAX is DPDK's "any"
    // The old pools stay until the device has let go of their buffers, which is when its queues are set up anew.
    let old = std::mem::replace(&mut state.pools, pools.to_vec());
    state.pools.extend(old);
    for (queue, pool) in (0..config.rx_queues).zip(pools.iter().cycle()) {
        // SAFETY: the port is configured with this many queues; the pool is held by `state` for as long as the device is.
        let result =
            unsafe { sys::rte_eth_rx_queue_setup(inner.id, queue, rx, socket, std::ptr::null(), pool.raw()) };
        check(result).map_err(|e| inner.failed("setting up a receive queue", e, mark))?;
    }
    for queue in 0..config.tx_queues {
        // SAFETY: as above.
        let result = unsafe {
            sys::rte_eth_tx_queue_setup(inner.id, queue, tx, socket, &raw const device.default_txconf)
        };
        check(result).map_err(|e| inner.failed("setting up a transmit queue", e, mark))?;
    }
    state.pools.truncate(pools.len());
    Ok(())
}

/// What devices take only once they run. None of it is worth stopping for: it is noted.
fn after_start(
    inner: &PortInner,
    config: &PortConfig,
    device: &sys::rte_eth_dev_info,
    key: &[u8],
    applied: &mut Applied,
) {
    // SAFETY: the port is ours.
    let promiscuous = unsafe {
        if config.promiscuous {
            sys::rte_eth_promiscuous_enable(inner.id)
        } else {
            sys::rte_eth_promiscuous_disable(inner.id)
        }
    };
    if promiscuous != 0 && promiscuous != -libc::ENOTSUP {
        applied.notes.push("the device did not change its promiscuous mode".to_owned());
    }
    // SAFETY: the port is ours.
    applied.promiscuous = unsafe { sys::rte_eth_promiscuous_get(inner.id) } == 1;
    // SAFETY: the port is ours; a device without counters says so, which does not matter here.
    unsafe { sys::rte_eth_stats_reset(inner.id) };
    if let (Some(rss), Some(applied_rss)) = (&config.rss, &mut applied.rss) {
        applied_rss.key = !key.is_empty() && key_in_use(inner.id, key);
        applied_rss.table = set_table(inner.id, &rss.table, device.reta_size);
        if !applied_rss.key {
            applied.notes.push("the device does not use the hash key".to_owned());
        }
        if !applied_rss.table {
            applied.notes.push("the device does not use the redirection table".to_owned());
        }
    }
    if inner.devargs.is("net_null") && inner.devargs.value("no-rx").is_none_or(|value| value != "1") {
        applied.notes.push("net_null makes up a frame for every receive; no-rx=1 turns that off".to_owned());
    }
    if inner.devargs.is("net_af_xdp") {
        let note = "net_af_xdp keeps its buffers and its interface when it is detached; give such a port a pool of its own, and \
                    restart the process to have the interface again";
        applied.notes.push(note.to_owned());
    }
    if inner.devargs.is("net_af_packet") {
        applied.notes.push("net_af_packet gives every VLAN tag back with protocol 0x8100".to_owned());
        let note = "net_af_packet lets the kernel reassemble IPv4 fragments, and cuts what is then longer than framesz; \
                    net_af_xdp leaves fragments alone";
        applied.notes.push(note.to_owned());
    }
}

/// Whether the device really hashes with `key`.
fn key_in_use(port: u16, key: &[u8]) -> bool {
    let mut read = vec![0_u8; key.len()];
    // `key` has the device's length, a u8.
    let rss_key_len = u8::try_from(read.len()).unwrap_or(u8::MAX);
    let mut request = sys::rte_eth_rss_conf { rss_key: read.as_mut_ptr(), rss_key_len, ..Default::default() };
    // SAFETY: the port is ours; the buffer has the length the device said and DPDK checks.
    let result = unsafe { sys::rte_eth_dev_rss_hash_conf_get(port, &raw mut request) };
    result == 0 && read == key
}

/// Fills the redirection table; says whether the device took it.
fn set_table(port: u16, table: &[u16], size: u16) -> bool {
    let entries = usize::from(size);
    if table.is_empty() || entries == 0 || entries > MOST_RETA {
        return false;
    }
    let group = usize::from(sys::SHIM_RETA_GROUP);
    let mut groups = vec![sys::rte_eth_rss_reta_entry64::default(); entries.div_ceil(group)];
    for (index, &queue) in (0..entries).zip(table.iter().cycle()) {
        if let Some(entry) = groups.get_mut(index / group) {
            entry.mask |= 1 << (index % group);
            entry.reta[index % group] = queue;
        }
    }
    // SAFETY: the port is ours; the groups cover `size` entries.
    unsafe { sys::rte_eth_dev_rss_reta_update(port, groups.as_mut_ptr(), size) == 0 }
}
