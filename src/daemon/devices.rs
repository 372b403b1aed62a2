//! One port's device: attached, started, its queues spread over the lcores, and all of that undone again.

use weir_ffi::{Pool, Port, PortConfig};

use super::DaemonError;
use super::pools;
use super::state::State;
use crate::config::Peer;
use crate::control::engine::{NewPort, PoolUse};
use crate::lcore::{CallError, Lcore};
use crate::pipeline::PortId;

/// A running device.
#[derive(Debug)]
pub(super) struct Device {
    port: Port,
    pub(super) spec: NewPort,
    pub(super) driver: String,
    pub(super) mac: [u8; 6],
    pub(super) rx_queues: u16,
    /// Where its packets are, if nobody else's are.
    own_pool: Option<(Pool, Option<u32>)>,
}

impl Device {
    /// Attaches and starts the device of `spec` with a transmit queue for each lcore. Nothing polls it yet.
    pub(super) fn start(state: &mut State, spec: &NewPort) -> Result<Self, DaemonError> {
        let name = || spec.name.to_string();
        let failed = |source| DaemonError::Port { name: name(), source: Box::new(source) };
        let lcores = u16::try_from(state.lcores.len()).unwrap_or(u16::MAX);
        if let Some(Peer { dev, netns }) = &spec.peer {
            weir_ffi::offload::disable_tx(dev, netns.as_deref())
                .map_err(|source| DaemonError::Offload { name: name(), source })?;
        }
        let mut port = Port::attach(&state.eal, spec.devargs.as_str()).map_err(failed)?;
        let info = port.info().map_err(failed)?;
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
        let node = state.packet_node(info.socket);
        let pool_error = |source| DaemonError::PortPool { name: name(), source };
        let (pool, own_pool) = if info.driver == "net_af_xdp" {
            let pool = state.pools.for_xdp(&state.eal, rx_queues, node).map_err(pool_error)?;
            (pool.clone(), Some((pool, node)))
        } else {
            (state.pools.shared(&state.eal, node).map_err(pool_error)?, None)
        };
        let config = PortConfig {
            rx_queues,
            tx_queues: lcores,
            large: Some(state.pools.large.clone()),
            ..PortConfig::new(pool)
        };
        let applied = port.start(&config).map_err(failed)?;
        for note in &applied.notes {
            tracing::info!(port = %spec.name, "{note}");
        }
        tracing::info!(port = %spec.name, driver = info.driver, mac = %info.mac, rx_queues, "port started");
        let (driver, mac) = (info.driver, info.mac.0);
        Ok(Self { port, spec: spec.clone(), driver, mac, rx_queues, own_pool })
    }

    /// Hands the queues to the lcores: transmit queue i to lcore i, receive queue q to lcore q modulo their number.
    pub(super) fn connect(&self, id: PortId, lcores: &[Lcore]) -> Result<(), CallError> {
        for (index, lcore) in (0..).zip(lcores) {
            if let Some(queue) = self.port.take_tx(index) {
                lcore.call(move |polling| polling.add_output(id, queue))?;
            }
        }
        for queue in 0..self.rx_queues {
            let lcore = lcores.get(usize::from(queue) % lcores.len().max(1));
            if let (Some(lcore), Some(queue)) = (lcore, self.port.take_rx(queue)) {
                lcore.call(move |polling| polling.add_input(id, queue))?;
            }
        }
        Ok(())
    }

    /// Takes the queues back from the lcores; the device stops when its last queue is back and this value dropped.
    pub(super) fn disconnect(id: PortId, lcores: &[Lcore]) {
        for lcore in lcores {
            match lcore.call(move |polling| polling.remove_port(id)) {
                Ok(queues) => drop(queues),
                Err(CallError::Stopped(_)) => {}
                // It gives them up before it does anything else, when it answers again.
                Err(error) => {
                    if let Err(error) = lcore.order(move |polling| drop(polling.remove_port(id))) {
                        tracing::error!("a removed port's queues stay with an lcore: {error}");
                    }
                    tracing::error!("a removed port's queues come back late: {error}");
                }
            }
        }
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
