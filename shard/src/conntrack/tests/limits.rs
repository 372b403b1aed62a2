//! Random packets, pauses, limits and timeouts, beside a slow and obvious model in which every connection leaves at
//! the moment it expires: which connections are admitted, and how many there are, must not differ.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::timeouts::{Timeout, Timeouts};

/// Milliseconds in a tick, which deadlines are rounded up to.
const TICK: u64 = 16;

#[derive(Clone, Debug)]
enum Step {
    Packet { port: u16, zone: usize, reversed: bool, commit: bool },
    Pause(u64),
    Limit { zone: usize, limit: Option<u32> },
    Default(Option<u32>),
    Maximum(u32),
    Policy { zone: usize, seconds: Option<[u32; 3]> },
    Sweep(u32),
    Flush { port: u16 },
}

fn step() -> impl Strategy<Value = Step> {
    let zone = 0..ZONES.len();
    let limit = prop::option::weighted(0.7, 0u32..6);
    let seconds = prop::option::of(prop::array::uniform3(1u32..100));
    prop_oneof![
        30 => (1u16..9, zone.clone(), any::<bool>(), prop::bool::weighted(0.8))
            .prop_map(|(port, zone, reversed, commit)| Step::Packet { port, zone, reversed, commit }),
        8 => (0u64..70_000).prop_map(Step::Pause),
        2 => (0u64..200_000_000).prop_map(Step::Pause),
        2 => (zone.clone(), limit.clone()).prop_map(|(zone, limit)| Step::Limit { zone, limit }),
        1 => limit.prop_map(Step::Default),
        1 => (0u32..16).prop_map(Step::Maximum),
        2 => (zone, seconds).prop_map(|(zone, seconds)| Step::Policy { zone, seconds }),
        1 => (1u32..5).prop_map(Step::Sweep),
        1 => (1u16..9).prop_map(|port| Step::Flush { port }),
    ]
}

/// A UDP flow: 0 one packet was seen, 1 several, 2 both ways.
#[derive(Clone, Copy, Debug)]
struct Flow {
    reversed: bool,
    state: usize,
    end: u64,
}

#[derive(Debug, Default)]
struct Model {
    now: u64,
    flows: BTreeMap<(u16, usize), Flow>,
    limits: BTreeMap<usize, u32>,
    default: Option<u32>,
    maximum: usize,
    policies: BTreeMap<usize, [u32; 3]>,
}

impl Model {
    fn expire(&mut self) {
        let tick = self.now / TICK;
        self.flows.retain(|_, flow| flow.end > tick);
    }

    fn in_zone(&self, zone: usize) -> u32 {
        u32::try_from(self.flows.keys().filter(|(_, other)| *other == zone).count()).unwrap()
    }

    fn end(&self, zone: usize, state: usize) -> u64 {
        let seconds = self.policies.get(&zone).copied().unwrap_or([60, 60, 30])[state];
        (self.now + u64::from(seconds) * 1000).div_ceil(TICK)
    }

    /// True if the packet belongs to a connection afterwards.
    fn packet(&mut self, port: u16, zone: usize, reversed: bool, commit: bool) -> bool {
        if let Some(flow) = self.flows.get(&(port, zone)).copied() {
            let state = if flow.reversed != reversed || flow.state == 2 { 2 } else { 1 };
            let end = self.end(zone, state);
            self.flows.insert((port, zone), Flow { state, end, ..flow });
            return true;
        }
        let limit = self.limits.get(&zone).copied().or(self.default);
        let admitted =
            limit.is_none_or(|limit| self.in_zone(zone) < limit) && self.flows.len() < self.maximum;
        if commit && admitted {
            let end = self.end(zone, 0);
            self.flows.insert((port, zone), Flow { reversed, state: 0, end });
        }
        commit && admitted
    }
}

fn timeouts([first, single, multiple]: [u32; 3]) -> Timeouts {
    let mut timeouts = Timeouts::default();
    timeouts.set(Timeout::UdpFirst, first).unwrap();
    timeouts.set(Timeout::UdpSingle, single).unwrap();
    timeouts.set(Timeout::UdpMultiple, multiple).unwrap();
    timeouts
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn decisions_and_counts_are_those_of_instant_expiry(steps in prop::collection::vec(step(), 1..300)) {
        let mut lab = Lab::with(config(64));
        // The shard's clock begins with its first reading.
        lab.now = 0;
        lab.sweep();
        lab.shard.set_max_connections(12);
        let mut model = Model { maximum: 12, ..Model::default() };
        for step in steps {
            match step {
                Step::Packet { port, zone, reversed, commit } => {
                    model.expire();
                    let tuple = if reversed { flow(port).reversed() } else { flow(port) };
                    let action = CtAction { zone: ZONES[zone], commit, ..CtAction::default() };
                    let (_, meta) = lab.send(&Frame::udp(&tuple), &action);
                    prop_assert_eq!(meta.connection.is_some(), model.packet(port, zone, reversed, commit));
                }
                Step::Pause(time) => {
                    lab.now += time;
                    model.now += time;
                }
                Step::Limit { zone, limit } => {
                    lab.shard.set_zone_limit(ZONES[zone], limit);
                    match limit {
                        Some(limit) => drop(model.limits.insert(zone, limit)),
                        None => drop(model.limits.remove(&zone)),
                    }
                }
                Step::Default(limit) => {
                    lab.shard.set_default_zone_limit(limit);
                    model.default = limit;
                }
                Step::Maximum(limit) => {
                    lab.shard.set_max_connections(limit);
                    model.maximum = limit as usize;
                }
                Step::Policy { zone, seconds } => {
                    lab.shard.set_zone_timeouts(ZONES[zone], seconds.map(timeouts)).unwrap();
                    match seconds {
                        Some(seconds) => drop(model.policies.insert(zone, seconds)),
                        None => drop(model.policies.remove(&zone)),
                    }
                }
                Step::Sweep(budget) => drop(lab.shard.sweep(lab.now, budget)),
                Step::Flush { port } => {
                    model.expire();
                    let meant = |tuple: &Tuple| tuple.src_port() == port || tuple.dst_port() == port;
                    let mut cursor = DumpCursor::default();
                    let removed =
                        lab.shard.flush(lab.now, &mut cursor, 100, &mut |view| meant(&view.original));
                    let before = model.flows.len();
                    model.flows.retain(|(other, _), _| *other != port);
                    prop_assert_eq!(removed as usize, before - model.flows.len());
                }
            }
            model.expire();
            prop_assert_eq!(lab.views().len(), model.flows.len());
        }
        lab.sweep();
        prop_assert_eq!(lab.shard.len() as usize, model.flows.len());
        for (at, zone) in ZONES.into_iter().enumerate() {
            prop_assert_eq!(lab.shard.zone_len(zone), model.in_zone(at));
        }
        prop_assert_eq!(lab.shard.counters().refused_unsettled, 0);
    }
}
