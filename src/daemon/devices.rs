//! One port's device: attached, started, its queues spread over the lcores, and all of that undone again.

use weir_ffi::{Eal, Pool, Port, PortConfig};

use super::DaemonError;
use crate::config::Peer;
use crate::control::engine::NewPort;
use crate::lcore::Lcore;
use crate::pipeline::PortId;

/// A running device.
#[derive(Debug)]
pub(super) struct Device {
    port: Port,
    pub(super) spec: NewPort,
    pub(super) driver: String,
    pub(super) mac: [u8; 6],
    pub(super) rx_queues: u16,
}

/// Where its packets live.
#[derive(Debug)]
pub(super) struct Pools {
    pub(super) packets: Pool,
    /// For packets of several segments, brought into one.
    pub(super) large: Pool,
}

impl Device {
    /// Attaches and starts the device of `spec` with a transmit queue for each lcore. Nothing polls it yet.
    pub(super) fn start(
        eal: &Eal,
        pools: &Pools,
        spec: &NewPort,
        lcores: usize,
    ) -> Result<Self, DaemonError> {
        let name = || spec.name.to_string();
        let failed = |source| DaemonError::Port { name: name(), source: Box::new(source) };
        if let Some(Peer { dev, netns }) = &spec.peer {
            weir_ffi::offload::disable_tx(dev, netns.as_deref())
                .map_err(|source| DaemonError::Offload { name: name(), source })?;
        }
        let mut port = Port::attach(eal, spec.devargs.as_str()).map_err(failed)?;
        let info = port.info().map_err(failed)?;
        if usize::from(info.max_tx_queues) < lcores {
            let (driver, has) = (info.driver, info.max_tx_queues);
            return Err(DaemonError::TxQueues { name: name(), driver, has, lcores });
        }
        // One receive queue for each lcore where the device has them; more or fewer where the port says so.
        let each = u16::try_from(lcores).unwrap_or(u16::MAX).min(info.max_rx_queues).max(1);
        let rx_queues = spec.rx_queues.unwrap_or(each);
        if rx_queues > info.max_rx_queues {
            let (driver, has) = (info.driver, info.max_rx_queues);
            return Err(DaemonError::RxQueues { name: name(), driver, has, wanted: rx_queues });
        }
        let config = PortConfig {
            rx_queues,
            tx_queues: u16::try_from(lcores).unwrap_or(u16::MAX),
            large: Some(pools.large.clone()),
            ..PortConfig::new(pools.packets.clone())
        };
        let applied = port.start(&config).map_err(failed)?;
        for note in &applied.notes {
            tracing::info!(port = %spec.name, "{note}");
        }
        tracing::info!(port = %spec.name, driver = info.driver, mac = %info.mac, rx_queues, "port started");
        Ok(Self { port, spec: spec.clone(), driver: info.driver, mac: info.mac.0, rx_queues })
    }

    /// Hands the queues to the lcores: transmit queue i to lcore i, receive queue q to lcore q modulo their number.
    pub(super) fn connect(&self, id: PortId, lcores: &[Lcore]) -> Result<(), DaemonError> {
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

    /// Takes the queues back from the lcores; the device stops when this value is dropped.
    pub(super) fn disconnect(id: PortId, lcores: &[Lcore]) -> Result<(), DaemonError> {
        for lcore in lcores {
            drop(lcore.call(move |polling| polling.remove_port(id))?);
        }
        Ok(())
    }

    pub(super) fn stats(&self) -> weir_ffi::port::PortStats {
        self.port.stats().unwrap_or_default()
    }

    pub(super) fn link(&self) -> weir_ffi::port::Link {
        self.port.link()
    }
}
