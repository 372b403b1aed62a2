//! Configuring and starting a device: asks what it can do, requests no more, and tells what came of it.

use dpdk_sys as sys;

use super::config::{Applied, PortConfig};
use super::error::{PortError, reason_since};
use super::rss::Request;
use super::{PortInner, Slot, State, check, info};
use crate::af_packet;
use crate::log;
use crate::pool::Pool;
use crate::source;

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
    let rss = configure(inner, config, &device, &mut applied)?;
    queues(inner, config, &device, &mut applied, pools, &mut state)?;
    // SAFETY: the port is configured and ours.
    check(unsafe { sys::rte_eth_dev_start(inner.id) })
        .map_err(|e| inner.failed("starting the device", e, mark))?;
    state.started = true;
    state.sources = source::install(inner.id, inner.devargs.name(), config.rx_queues);
    state.rx = vec![Slot::Free; usize::from(config.rx_queues)];
    state.tx = vec![Slot::Free; usize::from(config.tx_queues)];
    state.large = config.large.clone();
    after_start(inner, config, &device, rss, &mut applied);
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

/// Configures the device; returns what it was asked to spread packets by.
fn configure(
    inner: &PortInner,
    config: &PortConfig,
    device: &sys::rte_eth_dev_info,
    applied: &mut Applied,
) -> Result<Option<Request>, PortError> {
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
    let mut rss = config.rss.as_ref().and_then(|rss| Request::new(rss, device, applied));
    let plain = request;
    if let Some(rss) = &mut rss {
        rss.put_into(&mut request);
    }
    let apply = |request: &sys::rte_eth_conf| {
        // SAFETY: the port is ours and stopped; `request` and the key it points to (held by `rss`) live for the call, which
        // copies them.
        check(unsafe { sys::rte_eth_dev_configure(inner.id, config.rx_queues, config.tx_queues, request) })
    };
    let result = apply(&request);
    if let (Err(error), true) = (result, rss.is_some()) {
        // Combinations of hash types cannot be asked for beforehand: a driver that refuses one works without.
        let reason = reason_since(error, mark);
        applied.notes.push(format!("the device refuses to spread packets over queues: {reason}"));
        rss = None;
        apply(&plain).map_err(|e| inner.failed("configuring the device", e, log::mark()))?;
    } else {
        result.map_err(|e| inner.failed("configuring the device", e, mark))?;
    }
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
    Ok(rss)
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
    rss: Option<Request>,
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
    if let (Some(wanted), Some(request)) = (&config.rss, rss) {
        request.finish(inner.id, wanted, device.reta_size, applied);
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
