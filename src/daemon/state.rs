//! What the control side holds: the switch as configured, the devices and the lcores that run it.

use std::collections::BTreeMap;
use std::sync::Arc;

use weir_ffi::{Eal, EalConfig, LogLine, Severity};
use weir_numa::pin::pin_current_thread;
use weir_shard::{FragmentSettings, ShardConfig, ShardNumber, Steering};

use super::devices::{Attached, Device};
use super::exhaustion::Report;
use super::placement::Placement;
use super::pools::Pools;
use super::tracking::Settings;
use super::{DaemonError, Died, steering};
use crate::config::{Config, Conntrack, Profile, Tables};
use crate::control::engine::NewPort;
use crate::flow::{Action, FlowMod};
use crate::lcore::{CallError, Clock, Idle, Lcore, Polling};
use crate::pipeline::worker::DEFAULT_MEGAFLOWS;
use crate::pipeline::{PortId, Snapshot, Worker, WorkerConfig};
use crate::switch::Switch;

/// Connections and megaflows that an lcore looks at for one batch of a dump: some ten microseconds.
pub(super) const BATCH: usize = 256;

/// All of the control side. Fields are dropped in this order: first nobody polls, then the devices stop.
#[derive(Debug)]
pub(super) struct State {
    pub(super) lcores: Vec<Lcore>,
    pub(super) devices: BTreeMap<PortId, Device>,
    pub(super) switch: Switch,
    pub(super) clock: Clock,
    pub(super) pools: Pools,
    pub(super) eal: Eal,
    pub(super) settings: Settings,
    /// Who owns what, the same for all lcores.
    pub(super) steering: Arc<Steering>,
    placement: Placement,
    profile: Profile,
    /// An lcore did not take the last snapshot.
    behind: bool,
    /// The warning about tracking on several lcores was given.
    warned: bool,
    exhaustion: Report,
}

impl State {
    pub(super) fn start(config: &Config, flows: Vec<Tables>, died: &Died) -> Result<Self, DaemonError> {
        let placement = Placement::find(config)?;
        let eal = Eal::init(eal_config(config, &placement))?;
        tracing::info!(version = eal.version(), "DPDK started");
        let pools = Pools::new(&eal, config.pool)?;
        let clock = Clock::new(weir_ffi::tsc(), weir_ffi::tsc_hz());
        let mut switch = Switch::default();
        for bridge in &config.bridges {
            switch.add_bridge(bridge.name.as_str(), 0)?;
        }
        let snapshot = switch.snapshot();
        // What the cards have decides how connections are divided, so they come before the shards.
        let ports = config.bridges.iter().flat_map(|bridge| {
            bridge.ports.iter().map(|port| {
                let spec = NewPort::of(&bridge.name, port);
                Attached::new(&eal, &spec).map(|device| (spec, device))
            })
        });
        let ports = ports.collect::<Result<Vec<_>, _>>()?;
        let tables = ports.iter().map(|(_, device)| device.table_size());
        let steering = steering::owners(&config.steering, placement.lcores.len(), tables)?;
        let mut lcores = Vec::new();
        for (index, lcore) in (0..).zip(&placement.lcores) {
            let worker = WorkerConfig {
                shard: shard_config(&config.conntrack, &steering, index),
                megaflows: DEFAULT_MEGAFLOWS,
                secret: secret()?,
            };
            let setting = Setting { cpu: lcore.cpu, clock, profile: config.profile, eal: eal.clone() };
            lcores.push(start_lcore(setting, worker, snapshot.clone(), died)?);
        }
        let cpus: Vec<_> = placement.lcores.iter().map(|lcore| lcore.cpu).collect();
        tracing::info!(?cpus, "lcores started");
        let profile = config.profile;
        let devices = BTreeMap::new();
        let mut state = Self {
            lcores,
            devices,
            switch,
            clock,
            pools,
            eal,
            settings: Settings::new(config.conntrack.zones.clone(), config.conntrack.liberal_tcp),
            steering,
            placement,
            profile,
            behind: false,
            warned: false,
            exhaustion: Report::default(),
        };
        state.apply_settings().map_err(|error| DaemonError::Settings(error.to_string()))?;
        state.bring_up(config, flows, ports)?;
        Ok(state)
    }

    /// Flows first, then devices, then where to send, and only then packets: none of them sees half a switch.
    fn bring_up(
        &mut self,
        config: &Config,
        tables: Vec<Tables>,
        ports: Vec<(NewPort, Attached)>,
    ) -> Result<(), DaemonError> {
        for (bridge, Tables { groups, flows }) in config.bridges.iter().zip(tables) {
            self.switch.apply_groups(bridge.name.as_str(), &groups, self.now())?;
            self.warn_about_tracking(&flows);
            self.switch.replace(bridge.name.as_str(), &flows, false, self.now())?;
        }
        for (spec, attached) in ports {
            let id = self.switch_port(&spec)?;
            let device = Device::start_attached(self, &spec, attached)?;
            self.devices.insert(id, device);
        }
        self.publish()?;
        for (&id, device) in &self.devices {
            device.connect_outputs(id, &self.lcores)?;
        }
        for (&id, device) in &self.devices {
            device.connect_inputs(id, &self.lcores, &self.steering)?;
        }
        Ok(())
    }

    /// Until packets are steered to the lcore that owns their connection, replies may miss it.
    pub(super) fn warn_about_tracking(&mut self, flows: &[FlowMod]) {
        let tracks =
            flows.iter().flat_map(|flow| &flow.actions).any(|action| matches!(action, Action::Ct(_)));
        if tracks && self.lcores.len() > 1 && !self.warned {
            self.warned = true;
            tracing::warn!(
                "flows track connections (ct) on {} lcores, and each lcore knows only connections whose first packet it \
                 received: a reply that arrives by another lcore's queue is taken for a new connection; use one lcore \
                 unless the ports' queues bring both directions to the same one",
                self.lcores.len()
            );
        }
    }

    /// Where lcores and cards are.
    pub(super) fn placement(&self) -> &Placement {
        &self.placement
    }

    /// The NUMA node for the packets of a port whose card is on `card`; `None` is anywhere.
    pub(super) fn packet_node(&self, card: Option<u32>) -> Option<u32> {
        (self.profile == Profile::Metal).then(|| self.placement.packet_node(card)).flatten()
    }

    /// Milliseconds on the lcores' clock.
    pub(super) fn now(&self) -> u64 {
        self.clock.milliseconds(weir_ffi::tsc())
    }

    /// Every lcore answers: to be known before anything is changed.
    pub(super) fn responsive(&self) -> Result<(), CallError> {
        self.ask(|_| ()).map(drop)
    }

    /// Gives every lcore the switch as it is now; the old picture is dropped here. An lcore that does not take it
    /// is offered it again every second.
    pub(super) fn publish(&mut self) -> Result<(), CallError> {
        let snapshot = self.switch.snapshot();
        let mut result = Ok(());
        for lcore in &self.lcores {
            let next = snapshot.clone();
            match lcore.call(move |polling| polling.worker_mut().replace_snapshot(next)) {
                Ok(old) => drop(old),
                Err(error) => result = Err(error),
            }
        }
        self.behind = result.is_err();
        result
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
        for lcore in &self.lcores {
            let mut next = Some(0);
            while let Some(slot) = next {
                next = lcore.call(move |polling| polling.worker_mut().report_flows(slot, BATCH))?;
            }
        }
        Ok(())
    }

    /// Says which address ranges have run out.
    fn report_exhaustion(&mut self) {
        let now = self.now();
        if !self.exhaustion.is_due(now) {
            return;
        }
        // A fault of an lcore is reported where it matters.
        let Ok(told) = self.ask(|polling| polling.worker_mut().shard_mut().take_exhaustions()) else {
            return;
        };
        for line in self.exhaustion.lines(now, told.into_iter().flatten()) {
            tracing::warn!("{line}");
        }
    }

    /// Lets flows and stations expire.
    pub(super) fn expire(&mut self) {
        self.report_exhaustion();
        self.judge_cards();
        // What cached flows carried keeps their rules and stations alive.
        if let Err(error) = self.report_flows() {
            tracing::error!("flows are not expired: {error}");
            return;
        }
        let now = self.now();
        let mut changed = self.switch.expire(now);
        // Buckets of groups live and die with the links of ports.
        for (&id, device) in &self.devices {
            changed |= self.switch.set_link(id, device.link().up);
        }
        if (changed || self.behind)
            && let Err(error) = self.publish()
        {
            tracing::error!("the flows of an lcore are not up to date: {error}");
        }
    }
}

/// What an lcore's thread is set up with.
struct Setting {
    cpu: u32,
    clock: Clock,
    profile: Profile,
    eal: Eal,
}

fn start_lcore(
    setting: Setting,
    worker: WorkerConfig,
    snapshot: Arc<Snapshot>,
    died: &Died,
) -> Result<Lcore, DaemonError> {
    let Setting { cpu, clock, profile, eal } = setting;
    let setup = move || {
        // Pinned first: DPDK notes the thread's node, and the shard's memory comes from it.
        pin_current_thread(cpu).map_err(|error| error.to_string())?;
        let guard = eal.register_thread().map_err(|error| error.to_string())?;
        let mut worker = Worker::new(worker, snapshot).map_err(|error| error.to_string())?;
        let idle = if profile == Profile::Metal {
            worker.shard_mut().prefault();
            Idle::Spin
        } else {
            Idle::Share
        };
        Ok((Polling::new(worker, clock, idle), guard))
    };
    let died = Arc::clone(died);
    let cpu = usize::try_from(cpu).unwrap_or(usize::MAX);
    Ok(Lcore::start(cpu, setup, move |cpu| died(format!("the lcore on CPU {cpu} has ended by a fault")))?)
}

fn eal_config(config: &Config, placement: &Placement) -> EalConfig {
    let mut eal = match config.profile {
        Profile::Metal => EalConfig::metal(placement.memory(config.memory_mib)),
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

/// Shard `index` of those that `steering` is about.
fn shard_config(conntrack: &Conntrack, steering: &Arc<Steering>, index: u32) -> ShardConfig {
    let count = u32::try_from(steering.shards()).unwrap_or(u32::MAX);
    ShardConfig {
        number: ShardNumber::new(index as usize).unwrap_or_default(),
        steering: Arc::clone(steering),
        capacity: conntrack.capacity.get().div_ceil(count.max(1)),
        max_connections: share(conntrack.max_connections, count, index),
        liberal_tcp: conntrack.liberal_tcp,
        timeouts: conntrack.timeouts.clone(),
        fragments: FragmentSettings {
            max: share(conntrack.fragments.max, count, index),
            ..conntrack.fragments
        },
        accounting: conntrack.accounting,
        ..ShardConfig::default()
    }
}

/// Part `index` of `whole` in `count` parts; what does not divide goes to the first ones.
pub(super) fn share(whole: u32, count: u32, index: u32) -> u32 {
    let count = count.max(1);
    whole / count + u32::from(index < whole % count)
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

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn shares_make_up_the_whole() {
        for (whole, count) in [(0, 3), (1, 2), (10, 3), (u32::MAX, 7), (5, 1)] {
            let sum: u64 = (0..count).map(|index| u64::from(share(whole, count, index))).sum();
            assert_eq!(sum, u64::from(whole));
        }
    }
}
