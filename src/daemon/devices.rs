//! One port's device: attached, started, its queues spread over the lcores, and all of that undone again.

use std::sync::Arc;

use weir_ffi::port::{PortInfo, RssCapabilities};
use weir_ffi::{Eal, Pool, Port, PortConfig};
use weir_shard::Steering;

use super::DaemonError;
use super::pools;
use super::state::State;
use super::steering::{Plan, Steered};
use crate::config::Peer;
use crate::control::engine::{NewPort, PoolUse};
use crate::lcore::{CallError, Lcore, Polling};
use crate::pipeline::PortId;

/// A device that is there and does not run yet.
#[derive(Debug)]
pub(super) struct Attached {
    port: Port,
    info: PortInfo,
}

impl Attached {
    pub(super) fn new(eal: &Eal, spec: &NewPort) -> Result<Self, DaemonError> {
        let name = || spec.name.to_string();
        let failed = |source| DaemonError::Port { name: name(), source: Box::new(source) };
        if let Some(Peer { dev, netns }) = &spec.peer {
            weir_ffi::offload::disable_tx(dev, netns.as_deref())
                .map_err(|source| DaemonError::Offload { name: name(), source })?;
        }
        let port = Port::attach(eal, spec.devargs.as_str()).map_err(failed)?;
        let info = port.info().map_err(failed)?;
        Ok(Self { port, info })
    }

    /// Entries of its card's redirection table; 0 if there is none.
    pub(super) fn table_size(&self) -> u16 {
        self.info.rss.table_size
    }
}

/// A running device.
#[derive(Debug)]
pub(super) struct Device {
    port: Port,
    pub(super) spec: NewPort,
    pub(super) driver: String,
    pub(super) mac: [u8; 6],
    pub(super) rx_queues: u16,
    /// Which lcore polls each of them.
    receivers: Vec<usize>,
    /// What its card can do to spread packets.
    pub(super) card: RssCapabilities,
    /// Who brings its packets to their owners.
    pub(super) steered: Steered,
    /// Its card steers and has yet to show that it does so rightly.
    pub(super) on_trial: bool,
    /// What the driver declined, and what is particular to it.
    pub(super) notes: Vec<String>,
    /// Where its packets are, if nobody else's are.
    own_pool: Option<(Pool, Option<u32>)>,
}

impl Device {
    /// Attaches and starts the device of `spec`. Nothing polls it yet.
    pub(super) fn start(state: &mut State, spec: &NewPort) -> Result<Self, DaemonError> {
        let attached = Attached::new(&state.eal, spec)?;
        Self::start_attached(state, spec, attached)
    }

    /// Starts a device with a transmit queue for each lcore.
    pub(super) fn start_attached(
        state: &mut State,
        spec: &NewPort,
        attached: Attached,
    ) -> Result<Self, DaemonError> {
        let name = || spec.name.to_string();
        let failed = |source| DaemonError::Port { name: name(), source: Box::new(source) };
        let lcores = u16::try_from(state.lcores.len()).unwrap_or(u16::MAX);
        let Attached { mut port, info } = attached;
        if info.max_tx_queues < lcores {
            let (driver, has) = (info.driver, info.max_tx_queues);
            return Err(DaemonError::TxQueues { name: name(), driver, has, lcores });
        }
        // One receive queue for each lcore where the device has them; more or fewer where the port says so.
        let rx_queues = spec.rx_queues.unwrap_or(lcores.min(info.max_rx_queues).max(1));
        if rx_queues > info.max_rx_queues {
            let (driver, has) = (info.driver, info.max_rx_queues);
            return Err(DaemonError::RxQueues { name: name(), driver, has, wanted: rx_queues });
        }
        let others = received_queues(state);
        let receivers = state.placement().receivers(&spec.devargs, rx_queues, &others);
        state.placement().warn_if_far(spec.name.as_str(), &spec.devargs, &receivers);
        let node = state.packet_node(info.socket);
        let pool_error = |source| DaemonError::PortPool { name: name(), source };
        let (pool, own_pool) = if info.driver == "net_af_xdp" {
            let pool = state.pools.for_xdp(&state.eal, rx_queues, node).map_err(pool_error)?;
            (pool.clone(), Some((pool, node)))
        } else {
            (state.pools.shared(&state.eal, node).map_err(pool_error)?, None)
        };
        let plan = Plan::new(&state.steering, spec.role, rx_queues, &info.rss);
        let config = PortConfig {
            rx_queues,
            tx_queues: lcores,
            rss: plan.rss.clone(),
            large: Some(state.pools.large.clone()),
            ..PortConfig::new(pool)
        };
        let applied = port.start(&config).map_err(failed)?;
        for note in &applied.notes {
            tracing::info!(port = %spec.name, "{note}");
        }
        tracing::info!(port = %spec.name, driver = info.driver, mac = %info.mac, rx_queues, "port started");
        let steered = plan.outcome(state.lcores.len(), &applied);
        match &steered {
            Steered::InSoftware(why) => {
                tracing::info!(port = %spec.name, "the lcores steer its packets: {why}")
            }
            Steered::ByCard => tracing::info!(port = %spec.name, "its card steers"),
            Steered::Alone => {}
        }
        Ok(Self {
            port,
            spec: spec.clone(),
            driver: info.driver,
            mac: info.mac.0,
            rx_queues,
            receivers,
            card: info.rss,
            on_trial: steered == Steered::ByCard,
            steered,
            notes: applied.notes,
            own_pool,
        })
    }

    /// Hands transmit queue i to lcore i.
    pub(super) fn connect_outputs(&self, id: PortId, lcores: &[Lcore]) -> Result<(), CallError> {
        for (index, lcore) in (0..).zip(lcores) {
            if let Some(queue) = self.port.take_tx(index) {
                lcore.call(move |polling| polling.add_output(id, queue))?;
            }
        }
        Ok(())
    }

    /// Hands each receive queue to its lcore, which begins to poll it.
    pub(super) fn connect_inputs(
        &self,
        id: PortId,
        lcores: &[Lcore],
        steering: &Arc<Steering>,
    ) -> Result<(), CallError> {
        let by_card = self.steered == Steered::ByCard;
        for lcore in lcores {
            lcore.call(move |polling| polling.worker_mut().set_steered(id, by_card))?;
        }
        for (queue, &receiver) in (0..self.rx_queues).zip(&self.receivers) {
            let lcore = lcores.get(receiver);
            let examination = self.examination(steering, queue);
            if let (Some(lcore), Some(queue)) = (lcore, self.port.take_rx(queue)) {
                lcore.call(move |polling| polling.add_input(id, queue, examination))?;
            }
        }
        Ok(())
    }

    /// Takes the receive queues back from the lcores.
    pub(super) fn disconnect_inputs(id: PortId, lcores: &[Lcore]) {
        take_back(lcores, move |polling| polling.remove_inputs(id));
    }

    /// Takes the transmit queues back from the lcores. The device stops when all its queues are back and its value is
    /// dropped.
    pub(super) fn disconnect_outputs(id: PortId, lcores: &[Lcore]) {
        take_back(lcores, move |polling| polling.remove_output(id));
    }

    pub(super) fn stats(&self) -> weir_ffi::port::PortStats {
        self.port.stats().unwrap_or_default()
    }

    pub(super) fn link(&self) -> weir_ffi::port::Link {
        self.port.link()
    }

    /// How full its own pool is, if it has one.
    pub(super) fn pool_usage(&self) -> Option<PoolUse> {
        let (pool, node) = self.own_pool.as_ref()?;
        Some(pools::usage(pool, *node, Some(self.spec.name.clone())))
    }
}

/// How many receive queues each lcore has.
fn received_queues(state: &State) -> Vec<usize> {
    let mut queues = vec![0; state.lcores.len()];
    for receiver in state.devices.values().flat_map(|device| &device.receivers) {
        if let Some(count) = queues.get_mut(*receiver) {
            *count += 1;
        }
    }
    queues
}

/// Has every lcore give something up. One that does not answer now does so before anything else when it does.
fn take_back<T: Send + 'static>(lcores: &[Lcore], take: impl Fn(&mut Polling) -> T + Copy + Send + 'static) {
    for lcore in lcores {
        match lcore.call(take) {
            Ok(queues) => drop(queues),
            Err(CallError::Stopped(_)) => {}
            Err(error) => {
                tracing::error!("queues of a removed port come back late: {error}");
                if let Err(error) = lcore.order(move |polling| drop(take(polling))) {
                    tracing::error!("queues of a removed port stay with an lcore: {error}");
                }
            }
        }
    }
}
