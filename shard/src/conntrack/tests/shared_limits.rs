//! Limits that several shards keep together, through whole shards: packets go to the shard that is their home.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::leases::Leases;
use crate::steering::{KeyWord, ShardNumber, Steering};

struct Labs {
    steering: Arc<Steering>,
    labs: Vec<Lab>,
}

impl Labs {
    fn new(count: usize, max_connections: u32) -> Self {
        let (steering, leases) =
            (Arc::new(Steering::symmetric(count, KeyWord::WELL_KNOWN)), Arc::new(Leases::new(count)));
        let lab = |number| {
            Lab::with(ShardConfig {
                max_connections,
                number: ShardNumber::new(number).unwrap(),
                steering: Arc::clone(&steering),
                leases: Arc::clone(&leases),
                ..config(100)
            })
        };
        let labs = (0..count).map(lab).collect();
        Self { steering, labs }
    }

    fn home(&self, tuple: &Tuple) -> usize {
        self.steering.home(tuple).index()
    }

    /// A flow that is at home in a shard, another for each number.
    fn flow_of(&self, shard: usize, number: usize) -> Tuple {
        (1..).map(flow).filter(|tuple| self.home(tuple) == shard).nth(number).unwrap()
    }

    /// Whether the packet has a connection afterwards.
    fn commit(&mut self, tuple: &Tuple, zone: u16) -> bool {
        let home = self.home(tuple);
        self.labs[home].send(&Frame::udp(tuple), &commit_in(zone)).1.connection.is_some()
    }

    fn wait(&mut self, time: u64) {
        self.labs.iter_mut().for_each(|lab| lab.now += time);
    }

    fn sweep(&mut self) {
        self.labs.iter_mut().for_each(Lab::sweep);
    }

    fn each(&mut self, set: impl Fn(&mut Shard)) {
        self.labs.iter_mut().for_each(|lab| set(&mut lab.shard));
    }

    fn zone_len(&self, zone: u16) -> u32 {
        self.labs.iter().map(|lab| lab.shard.zone_len(zone)).sum()
    }

    fn refused(&self) -> [u64; 2] {
        let sum = |count: fn(&crate::Counters) -> u64| {
            self.labs.iter().map(|lab| count(lab.shard.counters())).sum()
        };
        [sum(|counters| counters.refused_by_zone_limit), sum(|counters| counters.refused_by_limit)]
    }
}

#[test]
fn a_limit_below_the_number_of_shards_lets_in_as_many_wherever_they_come() {
    for first in 0..4 {
        let mut labs = Labs::new(4, 100);
        labs.each(|shard| shard.set_zone_limit(5, Some(1)));
        let tuple = labs.flow_of(first, 0);
        assert!(labs.commit(&tuple, 5));
        for shard in 0..4 {
            let tuple = labs.flow_of(shard, 1);
            assert!(!labs.commit(&tuple, 5), "shard {shard} after shard {first}");
        }
        assert_eq!((labs.zone_len(5), labs.refused()), (1, [4, 0]));
    }
}

#[test]
fn one_shard_may_have_all_connections_and_what_it_gives_back_is_everybodys() {
    let mut labs = Labs::new(3, 50);
    for number in 0..50 {
        let tuple = labs.flow_of(1, number);
        assert!(labs.commit(&tuple, 0), "number {number}");
    }
    let tuple = labs.flow_of(2, 0);
    assert!(!labs.commit(&tuple, 0));
    assert_eq!(labs.refused(), [0, 1]);
    let (one, now) = (labs.flow_of(1, 7), labs.labs[1].now);
    labs.labs[1].shard.flush(now, &mut DumpCursor::default(), 1000, &mut |view| view.original == one);
    assert!(labs.commit(&tuple, 0));
    assert!(!labs.commit(&one, 0));
}

#[test]
fn a_connection_that_does_not_come_about_uses_nothing() {
    let mut labs = Labs::new(2, 2);
    labs.each(|shard| shard.set_zone_limit(0, Some(2)));
    let (first, second) = (labs.flow_of(0, 0), labs.flow_of(0, 1));
    // A pool without a port that is free: it is another connection's.
    let taken = tuple(17, PUBLIC, 7, OUTSIDE, 53);
    let home = labs.home(&taken);
    assert!(labs.commit(&taken.reversed(), 0));
    for _ in 0..10 {
        let (mut frame, mut meta) = (Frame::udp(&labs.flow_of(home, 2)), CtMeta::default());
        let action = source_nat(PUBLIC, Some((7, 7)));
        let outcome = labs.labs[home].again(&mut frame, &action, &mut meta);
        assert_eq!(outcome, Outcome::Drop(DropReason::NatExhausted));
    }
    assert!(labs.commit(&first, 0), "one was left");
    assert!(!labs.commit(&second, 0));
}

#[test]
fn a_zone_that_is_refused_is_swept_early_by_the_others() {
    let mut labs = Labs::new(2, 100);
    labs.each(|shard| shard.set_zone_limit(5, Some(1)));
    // In shard 1, many of other zones come before it.
    for number in 0..20 {
        let tuple = labs.flow_of(1, number);
        assert!(labs.commit(&tuple, 9));
    }
    let (old, new) = (labs.flow_of(1, 30), labs.flow_of(0, 0));
    assert!(labs.commit(&old, 5));
    labs.wait(61_000);
    assert!(!labs.commit(&new, 5), "shard 0 cannot know that it has expired");
    let now = labs.labs[1].now;
    assert_eq!(labs.labs[1].shard.sweep(now, 2), 2, "bounded, as ever");
    assert_eq!((labs.labs[1].shard.zone_len(5), labs.labs[1].shard.zone_len(9)), (0, 19));
    assert!(labs.commit(&new, 5));
    // Its own expired connections it knows.
    labs.wait(61_000);
    let tuple = labs.flow_of(0, 1);
    assert!(labs.commit(&tuple, 5));
}

#[derive(Clone, Debug)]
enum Step {
    Commit { port: u16, zone: usize },
    Pause(u64),
    Limit { zone: usize, limit: Option<u32> },
    Default(Option<u32>),
    Maximum(u32),
    Flush { port: u16 },
}

fn step() -> impl Strategy<Value = Step> {
    let (zone, limit) = (0..ZONES.len(), prop::option::weighted(0.7, 0u32..9));
    prop_oneof![
        30 => (1u16..25, zone.clone()).prop_map(|(port, zone)| Step::Commit { port, zone }),
        2 => (0u64..70_000).prop_map(Step::Pause),
        2 => (zone, limit.clone()).prop_map(|(zone, limit)| Step::Limit { zone, limit }),
        1 => limit.prop_map(Step::Default),
        1 => (0u32..30).prop_map(Step::Maximum),
        3 => (1u16..25).prop_map(|port| Step::Flush { port }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn any_number_of_shards_decides_as_one_that_counts_all(
        count in 2usize..8, steps in prop::collection::vec(step(), 1..200),
    ) {
        let mut labs = Labs::new(count, 20);
        let (mut live, mut limits) = (BTreeSet::<(u16, u16)>::new(), BTreeMap::<u16, u32>::new());
        let (mut default, mut maximum, mut now) = (None, 20, 0);
        let mut ends = BTreeMap::new();
        for step in steps {
            match step {
                Step::Commit { port, zone } => {
                    let zone = ZONES[zone];
                    let limit = limits.get(&zone).copied().or(default);
                    let in_zone = live.iter().filter(|(other, _)| *other == zone).count();
                    let fits = limit.is_none_or(|limit: u32| in_zone < limit as usize) && live.len() < maximum;
                    let known = live.contains(&(zone, port));
                    prop_assert_eq!(labs.commit(&flow(port), zone), known || fits);
                    if known || fits {
                        live.insert((zone, port));
                        ends.insert((zone, port), now + 60_000);
                    }
                }
                Step::Pause(time) => {
                    labs.wait(time);
                    now += time;
                    // What has expired elsewhere counts until it is swept.
                    labs.sweep();
                    let connections: BTreeSet<_> = labs.labs.iter().flat_map(Lab::views)
                        .map(|view| (view.zone, view.original.src_port())).collect();
                    // Deadlines are rounded up to ticks of 16 ms.
                    for one in &live {
                        let (end, there) = (ends[one], connections.contains(one));
                        prop_assert!(now < end && there || now > end + 16 && !there || now.abs_diff(end) <= 16);
                    }
                    prop_assert!(connections.is_subset(&live));
                    live = connections;
                }
                Step::Limit { zone, limit } => {
                    labs.each(|shard| shard.set_zone_limit(ZONES[zone], limit));
                    match limit {
                        Some(limit) => drop(limits.insert(ZONES[zone], limit)),
                        None => drop(limits.remove(&ZONES[zone])),
                    }
                }
                Step::Default(limit) => {
                    labs.each(|shard| shard.set_default_zone_limit(limit));
                    default = limit;
                }
                Step::Maximum(limit) => {
                    labs.each(|shard| shard.set_max_connections(limit));
                    maximum = limit as usize;
                }
                Step::Flush { port } => {
                    labs.labs.iter_mut().for_each(|lab| {
                        let meant = &mut |view: &ConnectionView| view.original.src_port() == port;
                        lab.shard.flush(lab.now, &mut DumpCursor::default(), 1000, meant);
                    });
                    live.retain(|(_, other)| *other != port);
                }
            }
            prop_assert_eq!(labs.labs.iter().map(|lab| lab.shard.len()).sum::<u32>() as usize, live.len());
        }
    }
}
