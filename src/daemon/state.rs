//! What the control side holds: the switch as configured, the devices and the lcores that run it.

use std::collections::BTreeMap;

use weir_ffi::{Eal, EalConfig, LogLine, MAX_DATA_ROOM, Pool, Severity};
use weir_shard::{ShardConfig, Timeout, Timeouts};

use super::DaemonError;
use super::devices::{Device, Pools};
use crate::config::{Config, Conntrack, Name, Profile};
use crate::control::engine::NewPort;
use crate::flow::FlowMod;
use crate::lcore::{CallError, Clock, Idle, Lcore, Polling};
use crate::pipeline::worker::DEFAULT_MEGAFLOWS;
use crate::pipeline::{PortId, Worker, WorkerConfig};
use crate::switch::Switch;

/// Buffers that hold packets of several segments brought into one.
const LARGE_BUFFERS: u32 = 255;
/// Buffers each lcore keeps at hand.
const POOL_CACHE: u32 = 256;

/// All of the control side. Fields are dropped in this order: first nobody polls, then the devices stop.
#[derive(Debug)]
pub(super) struct State {
    pub(super) lcores: Vec<Lcore>,
    pub(super) devices: BTreeMap<PortId, Device>,
    pub(super) switch: Switch,
    pub(super) clock: Clock,
    pools: Pools,
    eal: Eal,
}

impl State {
    pub(super) fn start(config: &Config, flows: Vec<Vec<FlowMod>>) -> Result<Self, DaemonError> {
        let allowed: Vec<usize> =
            core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|core| core.id).collect();
        let cpus = cpus(config, &allowed)?;
        let eal = Eal::init(eal_config(config))?;
        tracing::info!(version = eal.version(), "DPDK started");
        let pools = Pools {
            packets: Pool::new(
                &eal,
                &Pool::unique_name("packets"),
                config.pool.mbufs,
                POOL_CACHE,
                config.pool.data_room,
                None,
            )?,
            large: Pool::new(&eal, &Pool::unique_name("large"), LARGE_BUFFERS, 0, MAX_DATA_ROOM, None)?,
        };
        let clock = Clock::new(weir_ffi::tsc(), weir_ffi::tsc_hz());
        let mut switch = Switch::default();
        for bridge in &config.bridges {
            switch.add_bridge(bridge.name.as_str(), 0)?;
        }
        let snapshot = switch.snapshot();
        let shard = shard_config(&config.conntrack, cpus.len());
        let idle = if config.profile == Profile::Metal { Idle::Spin } else { Idle::Yield };
        let mut lcores = Vec::new();
        for &cpu in &cpus {
            let worker =
                WorkerConfig { shard: shard.clone(), megaflows: DEFAULT_MEGAFLOWS, secret: secret()? };
            let (eal, snapshot) = (eal.clone(), snapshot.clone());
            lcores.push(Lcore::start(cpu, move || {
                if !core_affinity::set_for_current(core_affinity::CoreId { id: cpu }) {
                    return Err(format!("the thread cannot be pinned to CPU {cpu}"));
                }
                let guard = eal.register_thread().map_err(|error| error.to_string())?;
                let worker = Worker::new(worker, snapshot).map_err(|error| error.to_string())?;
                Ok((Polling::new(worker, clock, idle), guard))
            })?);
        }
        tracing::info!(?cpus, "lcores started");
        let mut state = Self { lcores, devices: BTreeMap::new(), switch, clock, pools, eal };
        for (bridge, flows) in config.bridges.iter().zip(flows) {
            for port in &bridge.ports {
                state.add_port(&NewPort::of(&bridge.name, port))?;
            }
            state.switch.replace(bridge.name.as_str(), &flows, false, state.now())?;
        }
        state.publish()?;
        Ok(state)
    }

    /// Milliseconds on the lcores' clock.
    pub(super) fn now(&self) -> u64 {
        self.clock.milliseconds(weir_ffi::tsc())
    }

    /// Gives every lcore the switch as it is now; the old picture is dropped here.
    pub(super) fn publish(&mut self) -> Result<(), CallError> {
        let snapshot = self.switch.snapshot();
        for lcore in &self.lcores {
            let next = snapshot.clone();
            drop(lcore.call(move |polling| polling.worker_mut().replace_snapshot(next))?);
        }
        Ok(())
    }

    /// Adds a port with its device, or changes nothing.
    pub(super) fn add_port(&mut self, spec: &NewPort) -> Result<(), DaemonError> {
        let (bridge, name) = (spec.bridge.as_str(), spec.name.as_str());
        let id = self.switch.add_port(bridge, name, spec.number.map(|number| number.number()))?;
        let started = Device::start(&self.eal, &self.pools, spec, self.lcores.len()).and_then(|device| {
            self.publish()?;
            match device.connect(id, &self.lcores) {
                Ok(()) => Ok(device),
                Err(error) => {
                    let _ = Device::disconnect(id, &self.lcores);
                    Err(error)
                }
            }
        });
        match started {
            Ok(device) => {
                self.devices.insert(id, device);
                Ok(())
            }
            Err(error) => {
                let _ = self.switch.delete_port(bridge, name);
                let _ = self.publish();
                Err(error)
            }
        }
    }

    /// Removes a port and stops its device; gives what it takes to add it again.
    pub(super) fn remove_port(&mut self, name: &Name) -> Result<NewPort, DaemonError> {
        let bridge = self
            .devices
            .values()
            .find(|device| device.spec.name == *name)
            .map(|device| device.spec.bridge.clone())
            .ok_or_else(|| crate::switch::SwitchError::NoSuchPort {
                bridge: "any".into(),
                name: name.to_string(),
            })?;
        let number = self.switch.bridge(bridge.as_str())?.port_number(name.as_str());
        let id = self.switch.delete_port(bridge.as_str(), name.as_str())?;
        self.publish()?;
        Device::disconnect(id, &self.lcores)?;
        match self.devices.remove(&id) {
            Some(device) => Ok(NewPort { number, ..device.spec.clone() }),
            None => Err(crate::switch::SwitchError::NoSuchPort {
                bridge: bridge.to_string(),
                name: name.to_string(),
            }
            .into()),
        }
    }

    /// Asks every lcore in turn.
    pub(super) fn ask<R: Send + 'static>(
        &self,
        question: impl Fn(&mut Polling) -> R + Clone + Send + 'static,
    ) -> Result<Vec<R>, CallError> {
        self.lcores
            .iter()
            .map(|lcore| {
                let question = question.clone();
                lcore.call(move |polling| question(polling))
            })
            .collect()
    }

    /// Brings the rules' counters up to date.
    pub(super) fn report_flows(&self) -> Result<(), CallError> {
        self.ask(|polling| polling.worker_mut().report_flows()).map(drop)
    }

    /// Lets flows and stations expire.
    pub(super) fn expire(&mut self) {
        let now = self.now();
        if self.switch.expire(now)
            && let Err(error) = self.publish()
        {
            tracing::warn!("expired flows stay with an lcore: {error}");
        }
    }
}

/// The CPUs to poll on: those of the configuration, else the last one allowed, which leaves the first to the
/// control side and the system.
fn cpus(config: &Config, allowed: &[usize]) -> Result<Vec<usize>, DaemonError> {
    let Some(list) = &config.lcores else {
        return Ok(vec![allowed.iter().copied().max().unwrap_or(0)]);
    };
    let named = list.cpus().iter().map(|&cpu| {
        if allowed.contains(&usize::from(cpu)) {
            return Ok(usize::from(cpu));
        }
        let allowed = allowed.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        Err(DaemonError::Cpu { cpu, allowed })
    });
    named.collect()
}

fn eal_config(config: &Config) -> EalConfig {
    let mut eal = match config.profile {
        Profile::Metal => EalConfig::metal(vec![config.memory_mib]),
        Profile::Lab | Profile::Replay => EalConfig::lab(config.memory_mib),
    };
    eal.log = Some(Box::new(log));
    eal
}

/// DPDK's log goes where ours goes.
fn log(line: &LogLine) {
    match line.severity {
        Severity::Error => tracing::error!(target: "dpdk", "{}", line.text),
        Severity::Warning => tracing::warn!(target: "dpdk", "{}", line.text),
        _ => tracing::debug!(target: "dpdk", "{}", line.text),
    }
}

fn shard_config(conntrack: &Conntrack, lcores: usize) -> ShardConfig {
    let lcores = u32::try_from(lcores).unwrap_or(u32::MAX).max(1);
    let mut timeouts = Timeouts::default();
    let configured = conntrack.timeouts.seconds();
    for timeout in Timeout::ALL {
        if let Some((_, seconds)) = configured.iter().find(|(name, _)| *name == timeout.name())
            && let Err(error) = timeouts.set(timeout, *seconds)
        {
            tracing::warn!("{error}");
        }
    }
    ShardConfig {
        capacity: conntrack.capacity.get().div_ceil(lcores),
        max_connections: conntrack.max_connections.div_ceil(lcores),
        liberal_tcp: conntrack.liberal_tcp,
        timeouts,
    }
}

/// Random bits for the hashes and the choice of ports.
fn secret() -> Result<[u64; 8], DaemonError> {
    let mut bytes = [0; 64];
    getrandom::fill(&mut bytes).map_err(|error| DaemonError::Random(error.to_string()))?;
    let mut words = [0; 8];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *word = u64::from_ne_bytes(*bytes);
    }
    Ok(words)
}
