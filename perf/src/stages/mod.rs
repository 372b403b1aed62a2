//! Where the cycles go: a polling thread is sampled while it forwards (`sampling`), the sampled addresses are looked up in
//! the program's line tables (`symbols`), and each sample counts for the stage of a packet's way whose source it was in
//! (`attribution`). `weir-stages` (`perf/stages`) prints what comes of it (`breakdown`, `report`).

pub mod attribution;
pub mod breakdown;
pub mod report;
pub mod sampling;
pub mod symbols;

use std::path::PathBuf;

use crate::BenchError;

pub use self::attribution::Stage;
pub use self::breakdown::Breakdown;
pub use self::symbols::Symbols;

/// Why cycles cannot be attributed.
#[derive(Debug, thiserror::Error)]
pub enum StagesError {
    /// perf is not there, or cannot count cycles on this machine.
    #[error("the polling thread cannot be sampled: {0}; `tools/setup test` installs perf")]
    Perf(BenchError),
    /// There is no polling thread.
    #[error("process {process} has no thread lcore-*")]
    NoThread {
        /// Its number.
        process: u32,
    },
    /// The program has no line tables.
    #[error("{}: {reason}; line tables are needed, as the release profile makes them", path.display())]
    Symbols {
        /// The program.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// What perf printed is not understood.
    #[error("perf printed {line:?} for an address")]
    Sample {
        /// The line.
        line: String,
    },
    /// perf has not seen the thread at work.
    #[error("perf took no sample of the polling thread")]
    NoSamples,
    /// The measurement failed.
    #[error(transparent)]
    Bench(#[from] BenchError),
}
