//! What the control side holds: the switch as configured, the devices and the lcores that run it.

use std::collections::BTreeMap;
use std::sync::Arc;

use weir_ffi::{Eal, EalConfig, LogLine, Mbuf, Severity};
use weir_numa::lcores::Lcore as Place;
use weir_numa::memory::Placing;
use weir_numa::pin::pin_current_thread;
use weir_shard::fragments::LEAST_SHARE;
use weir_shard::mailbox::DEFAULT_CAPACITY;
use weir_shard::{Directory, FragmentSettings, Leases, ShardConfig, ShardNumber, Steering};

use super::devices::{Attached, Device};
use super::exhaustion::Report;
use super::placement::Placement;
use super::pools::Pools;
use super::publication::{PublishError, publish};
use super::tracking::Settings;
use super::{DaemonError, Died, steering};
use crate::config::{Config, Conntrack, Profile, Tables};
use crate::control::engine::NewPort;
use crate::lcore::{CallError, Clock, Idle, Lcore, Mailboxes, Polling};
use crate::pipeline::worker::DEFAULT_MEGAFLOWS;
use crate::pipeline::{PortId, PublishedSnapshot, SnapshotReader, Worker, WorkerConfig};
use crate::switch::Switch;

/// Connections and megaflows that an lcore looks at for one batch of a dump: some ten microseconds.
pub(super) const BATCH: usize = 256;

/// All of the control side. Fields are dropped in this order: first nobody polls, then the devices stop, and snapshots are
/// dropped by who dropped the lcores.
#[derive(Debug)]
pub(super) struct State {
    pub(super) lcores: Vec<Lcore>,
    pub(super) devices: BTreeMap<PortId, Device>,
    pub(super) switch: Switch,
    /// What the lcores go by.
    published: PublishedSnapshot,
    pub(super) clock: Clock,
    pub(super) pools: Pools,
    pub(super) eal: Eal,
    pub(super) settings: Settings,
    /// Who owns what, the same for all lcores.
    pub(super) steering: Arc<Steering>,
    /// Connections that the configuration has room for, all lcores together.
    pub(super) capacity: u32,
    placement: Placement,
    profile: Profile,
    /// The last snapshot could not be published: too many old ones wait for an lcore.
    behind: bool,
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
        let mut published = PublishedSnapshot::new(switch.snapshot());
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
        // One for all: addresses that are chosen by hash must not depend on the lcore.
        let secret = secret()?;
        let shards = Shards {
            steering: Arc::clone(&steering),
            directory: Arc::new(Directory::new(secret[5])),
            leases: Arc::new(Leases::new(placement.lcores.len())),
        };
        // Made before any lcore runs, and held by them alone.
        let metal = config.profile == Profile::Metal;
        let nodes: Vec<_> = placement.lcores.iter().map(|lcore| metal.then_some(lcore.node)).collect();
        let mailboxes = Mailboxes::between(&nodes, DEFAULT_CAPACITY).map_err(DaemonError::Mailboxes)?;
        let mut lcores = Vec::new();
        for ((index, lcore), mailboxes) in (0..).zip(&placement.lcores).zip(mailboxes) {
            let worker = WorkerConfig {
                shard: shard_config(&config.conntrack, &shards, index),
                megaflows: DEFAULT_MEGAFLOWS,
                secret,
                trajectories: config.tuning.trajectories,
            };
            let Config { profile, tuning, .. } = *config;
            let setting = Setting { lcore: *lcore, clock, profile, burst: tuning.burst, eal: eal.clone() };
            lcores.push(start_lcore(setting, worker, mailboxes, published.reader(), died)?);
        }
        let cpus: Vec<_> = placement.lcores.iter().map(|lcore| lcore.cpu).collect();
        tracing::info!(?cpus, "lcores started");
        let profile = config.profile;
        let devices = BTreeMap::new();
        let mut state = Self {
            lcores,
            devices,
            switch,
            published,
            clock,
            pools,
            eal,
            settings: Settings::new(config.conntrack.zones.clone(), config.conntrack.liberal_tcp),
            steering,
            capacity: config.conntrack.capacity.get(),
            placement,
            profile,
            behind: false,
            exhaustion: Report::default(),
        };
        state.apply_settings().map_err(|error| DaemonError::Settings(error.to_string()))?;
        state.bring_up(config, flows, ports)?;
        state.warn_of_far_memory();
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

    /// In profile metal all memory was touched: says so if some of it had to come from another node.
    fn warn_of_far_memory(&self) {
        if self.profile != Profile::Metal {
            return;
        }
        match self.topology() {
            // Ports have warned when they started.
            Ok(report) => {
                let far = report.lcores.iter().flat_map(|lcore| lcore.far_memory(self.placement.topology()));
                far.for_each(|warning| tracing::warn!("{warning}"));
            }
            Err(error) => tracing::warn!("where the lcores' memory is cannot be told: {error}"),
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

    /// Has every lcore go by the switch as it is now. After success no packet is on its way by anything older. An lcore
    /// that does not answer takes it over when it goes on; if nothing could be published, that is tried again every
    /// second.
    pub(super) fn publish(&mut self) -> Result<(), PublishError> {
        let result = publish(&mut self.published, self.switch.snapshot(), &self.lcores);
        self.behind = matches!(result, Err(PublishError::Full(_)));
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
        if !changed && !self.behind {
            // What the last change replaced.
            self.published.reclaim();
        } else if let Err(error) = self.publish() {
            tracing::error!("the flows of an lcore are not up to date: {error}");
        }
    }
}

/// What an lcore's thread is set up with.
struct Setting {
    lcore: Place,
    clock: Clock,
    profile: Profile,
    burst: usize,
    eal: Eal,
}

fn start_lcore(
    setting: Setting,
    mut worker: WorkerConfig,
    mailboxes: Mailboxes<Mbuf>,
    snapshot: SnapshotReader,
    died: &Died,
) -> Result<Lcore, DaemonError> {
    let Setting { lcore: Place { cpu, node }, clock, profile, burst, eal } = setting;
    worker.shard.memory = Placing { node: Some(node), hugepages: profile == Profile::Metal };
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
        Ok((Polling::new(worker, clock, idle).with_burst(burst).with_mailboxes(mailboxes), guard))
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

/// What all shards have in common.
struct Shards {
    steering: Arc<Steering>,
    directory: Arc<Directory>,
    leases: Arc<Leases>,
}

/// One of them.
fn shard_config(conntrack: &Conntrack, shards: &Shards, index: u32) -> ShardConfig {
    let Shards { steering, directory, leases } = shards;
    let count = u32::try_from(steering.shards()).unwrap_or(u32::MAX);
    let number = usize::try_from(index).ok().and_then(ShardNumber::new);
    ShardConfig {
        capacity: room(conntrack.capacity.get(), count),
        number: number.unwrap_or_default(),
        steering: Arc::clone(steering),
        directory: Arc::clone(directory),
        leases: Arc::clone(leases),
        fragments: FragmentSettings {
            max: share_of_fragments(conntrack.fragments.max, count, index),
            ..conntrack.fragments
        },
        // The node is the lcore's, which its start fills in.
        ..conntrack.shard()
    }
}

/// Connections that each of `count` shards has memory for, which together have `capacity`. They never get quite as many
/// each: an eighth and some more is for those that get more.
const fn room(capacity: u32, count: u32) -> u32 {
    if count <= 1 {
        return capacity;
    }
    let share = capacity.div_ceil(count);
    let room = share.saturating_add(share / 8).saturating_add(64);
    if room < capacity { room } else { capacity }
}

/// Fragments that shard `index` of `count` may hold, which together may hold `max`: no fewer than a datagram of the usual
/// size may come in, or with many shards none could be put together at all. So they may come to more than `max`.
pub(super) fn share_of_fragments(max: u32, count: u32, index: u32) -> u32 {
    share(max, count, index).max(max.min(LEAST_SHARE))
}

/// Part `index` of `whole` in `count` parts; what does not divide goes to the first ones.
fn share(whole: u32, count: u32, index: u32) -> u32 {
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
    use super::{LEAST_SHARE, room, share, share_of_fragments};

    #[test]
    fn each_shard_has_room_for_more_than_its_share_and_for_no_more_than_there_may_be() {
        assert_eq!((room(1000, 1), room(1, 2), room(100, 2)), (1000, 1, 100));
        assert_eq!((room(1_000_000, 4), room(u32::MAX, 2)), (281_314, 2_415_919_168));
    }

    #[test]
    fn shares_make_up_the_whole() {
        for (whole, count) in [(0, 3), (1, 2), (10, 3), (u32::MAX, 7), (5, 1)] {
            let sum: u64 = (0..count).map(|index| u64::from(share(whole, count, index))).sum();
            assert_eq!(sum, u64::from(whole));
        }
    }

    #[test]
    fn each_of_many_shards_may_hold_the_fragments_of_a_datagram() {
        assert_eq!([0, 1, 2].map(|index| share_of_fragments(1000, 3, index)), [334, 333, 333]);
        assert_eq!((share_of_fragments(1000, 64, 63), share_of_fragments(5000, 64, 0)), (LEAST_SHARE, 79));
        assert_eq!([0, 5].map(|max| share_of_fragments(max, 4, 3)), [0, 5], "no more than was asked for");
    }
}
