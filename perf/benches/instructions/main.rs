//! Instructions a packet, counted by callgrind: every measured call works on one burst, what it starts from is made
//! outside of it, and hashes have the same seeds each time, so that counts repeat. `perf/instructions` runs this,
//! holds the counts against `perf/instructions.json` and says what grew; here is only what is measured. A teardown
//! checks that each call did what its name says.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a bench, run by those who read it"
)]

mod connections;
mod headers;
mod pipeline;
mod traffic;

use iai_callgrind::{Callgrind, LibraryBenchmarkConfig, main};

use connections::{mailboxes, tracker};
use headers::{bytes, frames};
use pipeline::{classification, workers};

const _: () = assert!(weir::pipeline::BURST == weir_perf::instructions::PACKETS as usize);

main!(
    // Instructions alone: simulated caches cost half of the time and tell nothing about prefetching.
    config = LibraryBenchmarkConfig::default().tool(Callgrind::with_args(["--cache-sim=no"]));
    library_benchmark_groups = frames, bytes, tracker, mailboxes, classification, workers
);
