use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU32 as Plain;

use proptest::prelude::*;

use super::*;

fn shard(number: usize) -> ShardNumber {
    ShardNumber::new(number).unwrap_or_default()
}

const ZONES: [u16; 4] = [0, 255, 256, 65_535];

#[derive(Clone, Debug)]
enum Step {
    Take { shard: usize, scope: usize, times: u32 },
    Give { shard: usize, scope: usize, times: u32 },
    Limit { scope: usize, limit: Option<u32> },
    Default(Option<u32>),
}

const SCOPES: [Scope; 5] =
    [Scope::All, Scope::Zone(ZONES[0]), Scope::Zone(ZONES[1]), Scope::Zone(ZONES[2]), Scope::Zone(ZONES[3])];

fn step() -> impl Strategy<Value = Step> {
    let limit = prop_oneof![2 => Just(None), 3 => (0u32..8).prop_map(Some), 3 => (0u32..2000).prop_map(Some)];
    let times = prop_oneof![3 => 1u32..4, 1 => 1u32..700];
    prop_oneof![
        10 => (0usize..5, 0usize..5, times.clone())
            .prop_map(|(shard, scope, times)| Step::Take { shard, scope, times }),
        7 => (0usize..5, 0usize..5, times).prop_map(|(shard, scope, times)| Step::Give { shard, scope, times }),
        2 => (0usize..5, limit.clone()).prop_map(|(scope, limit)| Step::Limit { scope, limit }),
        1 => limit.prop_map(Step::Default),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn a_connection_is_let_in_exactly_while_all_shards_together_have_less_than_the_limit(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let leases = Leases::new(5);
        let mut limits: BTreeMap<usize, u32> = BTreeMap::new();
        let mut default = None;
        let mut used: BTreeMap<usize, [u32; 5]> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Take { shard: at, scope, times } => for _ in 0..times {
                    let own = limits.get(&scope).copied();
                    let limit = if scope == 0 { own } else { own.or(default) };
                    let used = used.entry(scope).or_default();
                    let fits = limit.is_none_or(|limit| used.iter().sum::<u32>() < limit);
                    prop_assert_eq!(leases.take(shard(at), SCOPES[scope]), fits);
                    used[at] += u32::from(fits);
                },
                Step::Give { shard: at, scope, times } => for _ in 0..times {
                    let used = used.entry(scope).or_default();
                    if used[at] > 0 {
                        leases.give(shard(at), SCOPES[scope]);
                        used[at] -= 1;
                    }
                },
                Step::Limit { scope, limit } => {
                    leases.set_limit(SCOPES[scope], limit);
                    match limit {
                        Some(limit) => drop(limits.insert(scope, limit)),
                        None => drop(limits.remove(&scope)),
                    }
                }
                Step::Default(limit) => {
                    leases.set_default_limit(limit);
                    default = limit;
                }
            }
            for (scope, used) in &used {
                let (taken, slack) = leases.figures(SCOPES[*scope]);
                prop_assert_eq!(taken, slack + used.iter().sum::<u32>());
            }
        }
    }
}

/// Times that the centre's line was written, by what it shows.
#[test]
fn connections_that_come_and_go_leave_the_centre_alone() {
    let leases = Leases::new(4);
    leases.set_limit(Scope::All, Some(1_000_000));
    let mut changes = 0;
    let mut before = 0;
    let mut look = |leases: &Leases| {
        let (taken, _) = leases.figures(Scope::All);
        changes += u32::from(taken != before);
        before = taken;
        changes
    };
    for _ in 0..6_400 {
        assert!(leases.take(shard(1), Scope::All));
        look(&leases);
    }
    assert_eq!(look(&leases), 100, "one in 64");
    for _ in 0..10_000 {
        leases.give(shard(1), Scope::All);
        assert!(leases.take(shard(1), Scope::All));
        look(&leases);
    }
    assert_eq!(look(&leases), 100);
    for _ in 0..6_400 {
        leases.give(shard(1), Scope::All);
    }
    assert_eq!(leases.figures(Scope::All), (ENOUGH, ENOUGH), "what is not used goes back");
}

#[test]
fn a_limit_that_is_lowered_calls_back_what_nobody_uses() {
    let leases = Leases::new(2);
    let scope = Scope::Zone(9);
    for at in 0..2 {
        assert!(leases.take(shard(at), scope));
    }
    assert_eq!(leases.figures(scope), (2 * BATCH, 2 * BATCH - 2));
    leases.set_limit(scope, Some(2));
    assert!(!leases.take(shard(0), scope), "its own slack is worth nothing");
    assert_eq!(leases.figures(scope), (2, 0));
    leases.set_limit(scope, Some(3));
    assert!(leases.take(shard(1), scope));
    assert!(!leases.take(shard(0), scope));
    leases.set_limit(scope, None);
    assert!(leases.take(shard(0), scope));
}

#[test]
fn a_hungry_zone_is_heard_once_by_each() {
    let leases = Leases::new(2);
    let (mut first, mut second) = (0, 0);
    assert_eq!(leases.hungry(&mut first), None);
    leases.call_hungry(0);
    assert_eq!((leases.hungry(&mut first), leases.hungry(&mut first)), (Some(0), None));
    leases.call_hungry(65_535);
    leases.call_hungry(7);
    assert_eq!((leases.hungry(&mut first), leases.hungry(&mut second)), (Some(7), Some(7)));
    leases.call_hungry(7);
    assert_eq!(leases.hungry(&mut second), Some(7), "again");
}

#[test]
fn no_line_is_written_by_two_shards_but_the_centre_s() {
    /// What CPUs fetch at once: two lines of 64 bytes.
    const PAIR: usize = 128;
    let leases = Leases::new(8);
    for number in 0..8 {
        for zone in (0..=u16::MAX).step_by(100) {
            assert!(leases.take(shard(number), Scope::Zone(zone)));
        }
    }
    let pair = |place: *const u8| place as usize / PAIR;
    let mut owners = BTreeMap::new();
    for (number, holder) in (0..).zip(&leases.holders) {
        let holder = &holder.get().unwrap().0;
        let mut places = vec![pair((&raw const holder.all).cast())];
        places.extend(
            (0..=u16::MAX)
                .filter_map(|zone| holder.zones.get(zone))
                .map(|slack| pair((&raw const *slack).cast())),
        );
        for place in places {
            assert_eq!(*owners.entry(place).or_insert(number), number);
        }
    }
    for shared in [pair((&raw const leases.all).cast()), pair((&raw const leases.hungry).cast())] {
        assert!(owners.insert(shared, usize::MAX).is_none());
    }
    for zone in (0..=u16::MAX).step_by(100) {
        let centre = pair((&raw const *leases.zones.get(zone).unwrap()).cast());
        assert_eq!(*owners.entry(centre).or_insert(usize::MAX), usize::MAX);
    }
    assert_eq!(align_of::<Apart<Holder>>(), PAIR);
    assert_eq!((size_of::<Slack>(), size_of::<Centre>()), (4, 16), "as the documentation says");
}

/// Two threads that take and give as fast as they can, near the limit and far from it.
#[test]
fn two_threads_never_exceed_a_limit_and_give_everything_back() {
    const TURNS: u32 = 200_000;
    for (limit, held) in [(1, 1), (3, 2), (100, 80), (1_000, 700)] {
        let leases = Arc::new(Leases::new(2));
        leases.set_limit(Scope::Zone(5), Some(limit));
        let live = Arc::new(Plain::new(0));
        let threads: Vec<_> = (0..2)
            .map(|number| {
                let (leases, live) = (Arc::clone(&leases), Arc::clone(&live));
                std::thread::spawn(move || {
                    let (mut mine, mut refused) = (0, 0);
                    for turn in 0..TURNS {
                        // More and more are held, then fewer and fewer.
                        let wanted = held - held * (turn / 1_000 % 10) / 10;
                        if mine < wanted {
                            if leases.take(shard(number), Scope::Zone(5)) {
                                assert!(live.fetch_add(1, SeqCst) < limit, "over the limit");
                                mine += 1;
                            } else {
                                refused += 1;
                            }
                        } else {
                            live.fetch_sub(1, SeqCst);
                            leases.give(shard(number), Scope::Zone(5));
                            mine -= 1;
                        }
                    }
                    for _ in 0..mine {
                        live.fetch_sub(1, SeqCst);
                        leases.give(shard(number), Scope::Zone(5));
                    }
                    refused
                })
            })
            .collect();
        let refused: u32 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        let (taken, slack) = leases.figures(Scope::Zone(5));
        assert_eq!((taken, live.load(SeqCst)), (slack, 0), "limit {limit}, {refused} refused");
        // And all of it is free, for whoever comes.
        for turn in 0..=limit {
            assert_eq!(leases.take(shard(turn as usize % 2), Scope::Zone(5)), turn < limit);
        }
    }
}

/// Two threads that together want what there is, again and again: neither goes without.
#[test]
fn nobody_is_refused_while_a_unit_is_free() {
    const TURNS: u32 = 100_000;
    for limit in [2, 5, 200] {
        let leases = Arc::new(Leases::new(3));
        leases.set_limit(Scope::All, Some(limit));
        // Part of it lies with a shard that does nothing.
        for _ in 0..limit {
            assert!(leases.take(shard(2), Scope::All));
        }
        (0..limit).for_each(|_| leases.give(shard(2), Scope::All));
        let threads: Vec<_> = (0..2)
            .map(|number| {
                let leases = Arc::clone(&leases);
                std::thread::spawn(move || {
                    let half = limit / 2;
                    for turn in 0..TURNS / limit {
                        for unit in 0..half {
                            assert!(
                                leases.take(shard(number), Scope::All),
                                "turn {turn}, unit {unit} of {half}"
                            );
                        }
                        (0..half).for_each(|_| leases.give(shard(number), Scope::All));
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let (taken, slack) = leases.figures(Scope::All);
        assert_eq!(taken, slack);
    }
}
