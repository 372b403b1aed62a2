//! What a look at shared data that rarely changes costs an lcore, under crossbeam-epoch and under seize: the pipeline's
//! snapshot, looked at once a burst, and a map, looked at once a packet. `weir-reclaim` (`perf/reclaim`) prints it;
//! ARCHITECTURE.md says what was concluded.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_epoch as epoch;
use foldhash::fast::RandomState;
use seize::Guard as _;
use serde::Serialize;
use weir_numa::pin::pin_current_thread;
use weir_shard::epoch::Published;

use crate::statistics::Summary;

/// Entries of the map, as many as connections might be expected at once.
const ENTRIES: u64 = 1024;
/// Packets of a burst.
const BURST: u64 = 32;

/// How long and where is measured.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Measurements of each figure.
    pub samples: usize,
    /// Looks in each of them.
    pub looks: u32,
    /// Between two changes, while there are any.
    pub period: Duration,
    /// The CPU that looks, and the one that changes.
    pub cpus: [u32; 2],
}

/// The figures of one way, in nanoseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What is looked at.
    pub data: &'static str,
    /// How.
    pub way: &'static str,
    /// A look while nothing changes.
    pub quiet: Summary,
    /// A look while the other CPU changes the data once a period.
    pub changing: Summary,
    /// A change, with a look between two of them.
    pub change: Summary,
}

/// Something that is looked at on one CPU and changed on another.
trait Way {
    const DATA: &'static str;
    const NAME: &'static str;
    /// Looks that one call of `look` stands for.
    const LOOKS: u64 = 1;

    /// Makes the data: who looks, and what changes it.
    fn split(&mut self) -> (impl FnMut(u64) -> u64, impl FnMut(u64) + Send);
}

/// All ways, one after another. `None` if a plan has no samples.
///
/// # Errors
/// When the thread cannot be pinned.
pub fn measure(plan: &Plan) -> Result<Option<Vec<Row>>, weir_numa::pin::PinError> {
    pin_current_thread(plan.cpus[0])?;
    let rows = [
        row(plan, &mut Moved),
        row(plan, &mut Pinned::default()),
        row(plan, &mut Refreshed::default()),
        row(plan, &mut Entered::default()),
        row(plan, &mut Copied),
        row(plan, &mut Concurrent::default()),
        row(plan, &mut ConcurrentBurst::default()),
    ];
    Ok(rows.into_iter().collect())
}

fn row<W: Way>(plan: &Plan, way: &mut W) -> Option<Row> {
    let (mut look, mut change) = way.split();
    let mut keys = 0;
    let mut looks = |plan: &Plan| {
        let each = u64::from(plan.looks).div_ceil(W::LOOKS);
        let samples: Vec<_> = (0..plan.samples)
            .map(|_| {
                let start = Instant::now();
                for _ in 0..each {
                    keys += W::LOOKS;
                    black_box(look(keys));
                }
                start.elapsed().as_secs_f64() * 1e9 / (each * W::LOOKS) as f64
            })
            .collect();
        Summary::of(&samples)
    };
    // Warm, and every participant known.
    looks(&Plan { samples: 1, ..*plan });
    let quiet = looks(plan)?;
    let changes: Vec<_> = (0..plan.samples as u64)
        .map(|number| {
            let start = Instant::now();
            change(number);
            let spent = start.elapsed().as_secs_f64() * 1e9;
            looks(&Plan { samples: 1, looks: 64, ..*plan });
            spent
        })
        .collect();
    let done = AtomicBool::new(false);
    let changing = thread::scope(|scope| {
        scope.spawn(|| {
            // Where there is but one CPU they share it.
            let _ = pin_current_thread(plan.cpus[1]);
            for number in 0.. {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                change(number);
                thread::sleep(plan.period);
            }
        });
        let changing = looks(plan);
        done.store(true, Ordering::Relaxed);
        changing
    })?;
    Some(Row { data: W::DATA, way: W::NAME, quiet, changing, change: Summary::of(&changes)? })
}

/// What the program does: crossbeam-epoch, pinned all the time, the pin moved at every look.
struct Moved;

impl Way for Moved {
    const DATA: &'static str = "snapshot";
    const NAME: &'static str = "crossbeam-epoch, pin moved (Published)";

    fn split(&mut self) -> (impl FnMut(u64) -> u64, impl FnMut(u64) + Send) {
        let mut published = Published::new([0u64; 8]);
        let mut reader = published.reader();
        let look = move |_| {
            reader.refresh();
            reader[0]
        };
        // Full only while the looking CPU is taken away.
        let change = move |number| _ = black_box(published.publish([number; 8]));
        (look, change)
    }
}

/// Something to point to; its alignment leaves bits of pointers to tell values apart without memory.
#[repr(align(64))]
struct Line;

/// crossbeam-epoch as its documentation shows it: pinned and unpinned at every look. What is deferred does nothing, and
/// what is looked at has no memory, both in its favour.
#[derive(Default)]
struct Pinned {
    collector: epoch::Collector,
    current: epoch::Atomic<Line>,
}

impl Way for Pinned {
    const DATA: &'static str = "snapshot";
    const NAME: &'static str = "crossbeam-epoch, pinned each time";

    fn split(&mut self) -> (impl FnMut(u64) -> u64, impl FnMut(u64) + Send) {
        let handle = self.collector.register();
        let current = Arc::new(std::mem::take(&mut self.current));
        let (shared, collector) = (Arc::clone(&current), self.collector.clone());
        let look = move |_| {
            let guard = handle.pin();
            current.load(Ordering::Acquire, &guard).tag() as u64
        };
        let change = move |number: u64| {
            let guard = collector.register().pin();
            let next = epoch::Shared::null().with_tag(number as usize % 64);
            shared.swap(next, Ordering::AcqRel, &guard);
            guard.defer(|| ());
            guard.flush();
        };
        (look, change)
    }
}

/// What seize's ways point to.
static VALUES: [u64; 64] = [7; 64];

fn value(number: u64) -> *mut u64 {
    std::ptr::from_ref(&VALUES[number as usize % VALUES.len()]).cast_mut()
}

/// seize, entered all the time and refreshed at every look. Nothing is retired, which is in its favour: its readers take
/// part in freeing.
#[derive(Default)]
struct Refreshed(Arc<(seize::Collector, AtomicPtr<u64>)>);

impl Way for Refreshed {
    const DATA: &'static str = "snapshot";
    const NAME: &'static str = "seize, guard refreshed";

    fn split(&mut self) -> (impl FnMut(u64) -> u64, impl FnMut(u64) + Send) {
        let shared = Arc::clone(&self.0);
        let mut guard = self.0.0.enter();
        let current = &self.0.1;
        let look = move |_| {
            guard.refresh();
            guard.protect(current, Ordering::Acquire).addr() as u64
        };
        (look, move |number| _ = black_box(shared.1.swap(value(number), Ordering::AcqRel)))
    }
}

/// seize, entered and left at every look.
#[derive(Default)]
struct Entered(Arc<(seize::Collector, AtomicPtr<u64>)>);

impl Way for Entered {
    const DATA: &'static str = "snapshot";
    const NAME: &'static str = "seize, entered each time";

    fn split(&mut self) -> (impl FnMut(u64) -> u64, impl FnMut(u64) + Send) {
        let shared = Arc::clone(&self.0);
        let (collector, current) = (&self.0.0, &self.0.1);
        let look = move |_| collector.enter().protect(current, Ordering::Acquire).addr() as u64;
        (look, move |number| _ = black_box(shared.1.swap(value(number), Ordering::AcqRel)))
    }
}

/// Every second key is there.
fn entries<M: FromIterator<(u64, u64)>>() -> M {
    (0..ENTRIES).map(|key| (2 * key, key)).collect()
}

/// Keys that are there and others, far apart.
fn key(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32 & (2 * ENTRIES - 1)
}

/// A plain map, copied for every change and published whole by crossbeam-epoch.
struct Copied;

impl Way for Copied {
    const DATA: &'static str = "map";
    const NAME: &'static str = "crossbeam-epoch, copied (Published), pin moved each time";

    fn split(&mut self) -> (impl FnMut(u64) -> u64, impl FnMut(u64) + Send) {
        let mut map: HashMap<u64, u64, RandomState> = entries();
        let mut published = Published::new(map.clone());
        let mut reader = published.reader();
        let look = move |number| {
            reader.refresh();
            reader.get(&key(number)).copied().unwrap_or_default()
        };
        let change = move |number| {
            map.insert(key(number) & !1, number);
            _ = black_box(published.publish(map.clone()));
        };
        (look, change)
    }
}

type Map = papaya::HashMap<u64, u64, RandomState>;

/// A concurrent map under seize, entered for every packet.
struct Concurrent(Arc<Map>);

impl Default for Concurrent {
    fn default() -> Self {
        Self(Arc::new(entries()))
    }
}

impl Way for Concurrent {
    const DATA: &'static str = "map";
    const NAME: &'static str = "seize (papaya), entered each time";

    fn split(&mut self) -> (impl FnMut(u64) -> u64, impl FnMut(u64) + Send) {
        let (shared, map) = (Arc::clone(&self.0), &self.0);
        let look = move |number| map.pin().get(&key(number)).copied().unwrap_or_default();
        (look, move |number| _ = black_box(shared.pin().insert(key(number) & !1, number).copied()))
    }
}

/// The same, entered once a burst.
#[derive(Default)]
struct ConcurrentBurst(Concurrent);

impl Way for ConcurrentBurst {
    const DATA: &'static str = "map";
    const NAME: &'static str = "seize (papaya), entered once a burst";
    const LOOKS: u64 = BURST;

    fn split(&mut self) -> (impl FnMut(u64) -> u64, impl FnMut(u64) + Send) {
        let shared = Arc::clone(&self.0.0);
        let map = &self.0.0;
        let look = move |number| {
            let map = map.pin();
            (0..BURST).map(|packet| map.get(&key(number + packet)).copied().unwrap_or_default()).sum()
        };
        (look, move |number| _ = black_box(shared.pin().insert(key(number) & !1, number).copied()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_has_a_figure_for_every_column() {
        let cpus = [weir_numa::pin::allowed_cpus().unwrap().iter().next().unwrap(); 2];
        let plan = Plan { samples: 3, looks: 1000, period: Duration::from_millis(1), cpus };
        let rows = measure(&plan).unwrap().unwrap();
        assert_eq!(rows.len(), 7);
        for row in rows {
            for figure in [row.quiet, row.changing, row.change] {
                assert!(figure.min > 0.0 && figure.min <= figure.median, "{row:?}");
            }
        }
    }

    #[test]
    fn half_of_the_keys_looked_for_are_there() {
        let map: HashMap<u64, u64> = entries();
        let found = (0..100_000).filter(|&number| map.contains_key(&key(number))).count();
        assert!((45_000..55_000).contains(&found), "{found}");
    }
}
