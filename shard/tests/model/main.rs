//! A slow and obvious model of connection tracking and NAT beside the shard: the same random packets and clocks, and
//! after every ct action the same answer. `conntrack.rs` is the model, `tcp.rs` its TCP, `nat.rs` what choices are
//! legal; `random.rs` draws steps, `run.rs` takes and compares them, `shrink.rs` leaves out what a failure does not
//! need.
//!
//! A failure prints its seed. A million steps take some seconds; `WEIR_MODEL_STEPS` asks for more or fewer,
//! `WEIR_MODEL_SEED` for others:
//!
//!     WEIR_MODEL_SEED=1000000 WEIR_MODEL_STEPS=10000000 cargo nextest run -p weir-shard --test model
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]
// A test of its own package: whatever its files share is public to it alone.
#![allow(unreachable_pub, reason = "a test")]

mod conntrack;
mod many;
mod nat;
mod packet;
mod random;
mod run;
mod shrink;
mod tcp;
mod tuple;

use random::{Random, Step};
use run::{Setting, run};

/// Steps that one shard lives for.
const STEPS_EACH: usize = 1000;

fn number(name: &str, otherwise: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")),
        Err(_) => otherwise,
    }
}

fn draw(seed: u64) -> (Setting, Vec<Step>) {
    let mut random = Random(seed);
    let setting = Setting::draw(&mut random);
    (setting, (0..STEPS_EACH).map(|_| random::step(&mut random)).collect())
}

#[test]
fn a_shard_does_what_the_model_does() {
    let steps = usize::try_from(number("WEIR_MODEL_STEPS", 1_000_000)).unwrap();
    let first = number("WEIR_MODEL_SEED", 1);
    for (seed, _) in (first..).zip((0..steps).step_by(STEPS_EACH)) {
        let (setting, steps) = draw(seed);
        if let Err(difference) = run(&setting, &steps, &mut String::new()) {
            panic!("{}", shrink::report(seed, &setting, &steps, &difference));
        }
    }
}

#[test]
fn many_shards_do_what_the_model_does_whichever_gets_a_packet_and_however_long_mail_takes() {
    let steps = usize::try_from(number("WEIR_MODEL_STEPS", 1_000_000)).unwrap() / 4;
    let first = number("WEIR_MODEL_SEED", 1);
    let mut seen = many::Seen::default();
    for (seed, _) in (first..).zip((0..steps).step_by(STEPS_EACH)) {
        let (setting, steps) = draw(seed);
        let mut story = String::new();
        if let Err(difference) = many::run(seed, &setting, &steps, &mut story, &mut seen) {
            let tail: Vec<_> = story.lines().rev().take(60).collect();
            let tail: Vec<_> = tail.into_iter().rev().collect();
            panic!("{}\nseed {seed}: {difference}", tail.join("\n"));
        }
    }
    seen.check();
}

/// The comparison is worth something only if it finds what it is there to find.
#[test]
fn a_shard_that_does_otherwise_is_found_out_and_the_steps_that_show_it_are_few() {
    let (setting, steps) = draw(7);
    let wrong = Setting { mistaken: true, ..setting };
    assert!(run(&wrong, &steps, &mut String::new()).is_err());
    let fewest = shrink::fewest(&wrong, &steps);
    assert!(fewest.len() <= 12, "{} steps", fewest.len());
}

/// The random steps reach what they are meant to reach.
#[test]
fn random_steps_come_by_every_answer() {
    let mut all = run::Seen::default();
    for seed in 1..=60 {
        let (setting, steps) = draw(seed);
        all.add(&run(&setting, &steps, &mut String::new()).expect("no difference"));
    }
    all.check();
}
