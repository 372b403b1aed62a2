//! Classification by itself, and whole workers: established connections both ways, set-up and end of connections,
//! forwarding without tracking.

use std::hint::black_box;

use iai_callgrind::{library_benchmark, library_benchmark_group};
use weir::flow::key::{Key, at};
use weir::pipeline::cache::ExactMatch;
use weir::pipeline::extract;
use weir::pipeline::megaflow::Megaflows;
use weir::pipeline::recirculation::Contexts;
use weir::pipeline::step::Step;
use weir::pipeline::translate::translate;
use weir::pipeline::{BURST, Snapshot};
use weir::replay::secret;
use weir_shard::{CtMeta, CtState};
use weir_wire::Layers;

use crate::traffic::{Bench, CONNECTIONS, INSIDE, Kind, NAT, OUTSIDE, Opening, SEED, snapshot};

/// The caches of a worker, and the keys of a burst of first packets through the README's table.
struct Classifying {
    snapshot: Snapshot,
    exact: ExactMatch,
    megaflows: Megaflows,
    contexts: Contexts,
    keys: Vec<Key>,
    found: usize,
}

fn keys() -> Vec<Key> {
    let key = |frame: &Vec<u8>| {
        let mut key = Key::ZERO;
        extract::headers(frame, &Layers::parse(frame), &mut key);
        key.words[at::IN_PORT / 8] = u64::from(INSIDE) << 32;
        key
    };
    Kind::Udp4.burst().iter().map(key).collect()
}

impl Classifying {
    /// Before the tracker has seen them.
    fn untracked() -> Box<Self> {
        let [a, b, c, d, ..] = secret(SEED);
        Box::new(Self {
            snapshot: snapshot(NAT),
            exact: ExactMatch::new([a, b, c, d]),
            megaflows: Megaflows::new(1024, a),
            contexts: Contexts::new(1024),
            keys: keys(),
            found: 0,
        })
    }

    /// After it has called them new.
    fn tracked() -> Box<Self> {
        let mut this = Self::untracked();
        let Self { snapshot, contexts, keys, .. } = &mut *this;
        let meta = CtMeta { state: CtState::TRK.with(CtState::NEW), ..CtMeta::default() };
        for key in keys {
            let recipe = translate(snapshot, contexts, key, 0);
            let Some(Step::Recirculate(id)) = recipe.steps.last() else { panic!("{recipe:?}") };
            key.words[at::RECIRC_ID / 8] |= u64::from(*id);
            extract::connection(&meta, false, key);
        }
        this
    }

    /// With the megaflows of both, found by an exact match too.
    fn cached() -> Box<Self> {
        let mut this = Self::tracked();
        let Self { snapshot, exact, megaflows, contexts, keys: tracked, .. } = &mut *this;
        for key in tracked.iter().take(1).chain(&keys()) {
            if megaflows.search(key, snapshot.generation).is_none() {
                let recipe = translate(snapshot, contexts, key, 0);
                megaflows.insert(key, recipe, snapshot.generation, 0);
            }
        }
        for key in tracked {
            let flow = megaflows.search(key, snapshot.generation).expect("it was inserted");
            exact.insert(exact.hash(key), flow);
        }
        this
    }
}

#[expect(clippy::needless_pass_by_value, reason = "a teardown gets the box")]
fn were_found(bench: Box<Classifying>) {
    assert_eq!(bench.found, BURST);
}

#[library_benchmark]
#[bench::hit(args = (), setup = Classifying::cached, teardown = were_found)]
fn exact_match(mut bench: Box<Classifying>) -> Box<Classifying> {
    let Classifying { snapshot, exact, megaflows, keys, found, .. } = &mut *bench;
    for key in black_box(keys) {
        if let Some(flow) = exact.lookup(exact.hash(key))
            && megaflows.verify(flow, key, snapshot.generation)
        {
            *found += 1;
        }
    }
    bench
}

#[library_benchmark]
#[bench::hit(args = (), setup = Classifying::cached, teardown = were_found)]
fn megaflow_search(mut bench: Box<Classifying>) -> Box<Classifying> {
    let Classifying { snapshot, megaflows, keys, found, .. } = &mut *bench;
    for key in black_box(keys) {
        *found += usize::from(megaflows.search(key, snapshot.generation).is_some());
    }
    bench
}

#[library_benchmark]
#[bench::untracked(args = (), setup = Classifying::untracked, teardown = were_found)]
#[bench::new_connection(args = (), setup = Classifying::tracked, teardown = were_found)]
fn translation(mut bench: Box<Classifying>) -> Box<Classifying> {
    let Classifying { snapshot, contexts, keys, found, .. } = &mut *bench;
    for key in black_box(keys) {
        *found += usize::from(!translate(snapshot, contexts, key, 0).steps.is_empty());
    }
    bench
}

#[expect(clippy::needless_pass_by_value, reason = "a teardown gets the box")]
fn have_left(bench: Box<Bench>) {
    assert_eq!(bench.out.0.len(), BURST);
    assert!(bench.out.0.iter().all(|(port, _)| *port == 3 - bench.port));
}

#[library_benchmark]
#[bench::udp_original(args = (Kind::Udp4, INSIDE), setup = Bench::established, teardown = have_left)]
#[bench::udp_reply(args = (Kind::Udp4, OUTSIDE), setup = Bench::established, teardown = have_left)]
#[bench::udp_steered(args = (Kind::Udp4, INSIDE), setup = Bench::steered, teardown = have_left)]
#[bench::tcp_original(args = (Kind::Tcp4, INSIDE), setup = Bench::established, teardown = have_left)]
#[bench::tcp_reply(args = (Kind::Tcp4, OUTSIDE), setup = Bench::established, teardown = have_left)]
fn established(mut bench: Box<Bench>) -> Box<Bench> {
    bench.process();
    bench
}

#[library_benchmark]
#[bench::udp(args = (), setup = Bench::forwarding, teardown = have_left)]
fn forward(mut bench: Box<Bench>) -> Box<Bench> {
    bench.process();
    bench
}

fn were_opened(bench: Box<Bench>) {
    assert_eq!(bench.worker.shard().len(), u32::from(CONNECTIONS) + BURST as u32);
    have_left(bench);
}

#[library_benchmark]
#[bench::udp(args = (Opening::Plain), setup = Bench::opening, teardown = were_opened)]
#[bench::udp_of_two(args = (Opening::OfTwo), setup = Bench::opening, teardown = were_opened)]
#[bench::udp_tagged(args = (Opening::Tagged), setup = Bench::opening, teardown = were_opened)]
fn set_up(mut bench: Box<Bench>) -> Box<Bench> {
    bench.process();
    bench
}

#[expect(clippy::needless_pass_by_value, reason = "a teardown gets the box")]
fn have_ended(bench: Box<Bench>) {
    assert_eq!(bench.worker.shard().len(), u32::from(CONNECTIONS) - 2 * BURST as u32);
}

#[library_benchmark]
#[bench::udp(args = (), setup = Bench::closing, teardown = have_ended)]
fn expire(mut bench: Box<Bench>) -> Box<Bench> {
    bench.worker.shard_mut().sweep(bench.now, BURST as u32);
    bench
}

library_benchmark_group!(name = classification; benchmarks = exact_match, megaflow_search, translation);
library_benchmark_group!(name = workers; benchmarks = established, forward, set_up, expire);
