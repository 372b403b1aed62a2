//! The running datapath over DPDK: environment, pools, ports and lcores, changed and asked from the control
//! side. One lock serialises the control side's own work; no lcore ever takes it.

mod changes;
mod connections;
mod devices;
mod engine;
mod error;
mod events;
mod exhaustion;
mod fragments;
mod packet_out;
mod placement;
mod pools;
mod publication;
mod state;
mod steering;
mod timer;
mod topology;
mod tracking;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use connections::Readers;
pub use error::DaemonError;
use events::Collector;
use state::State;
use timer::Timer;

use crate::config::{Config, Tables};
use crate::control::Engine;

/// Told when the datapath can no longer work: a polling thread has ended by a fault.
pub type Died = Arc<dyn Fn(String) + Send + Sync>;

/// The datapath that `weir run` serves. Dropping it stops the lcores, then the ports.
#[derive(Debug)]
pub struct Datapath {
    /// First to go, as it holds the state too.
    _timer: Timer,
    /// Next to go, for the same reason.
    collector: Collector,
    readers: Readers,
    state: Arc<Mutex<State>>,
}

impl Datapath {
    /// Starts DPDK, the lcores, and the bridges and ports of `config`; `flows` are the bridges' flows, in their order;
    /// `died` is told, on any thread, when an lcore ends by a fault.
    ///
    /// # Errors
    /// What did not start, why, and what helps; nothing is left running then.
    pub fn start(config: &Config, tables: Vec<Tables>, died: &Died) -> Result<Self, DaemonError> {
        let state = State::start(config, tables, died)?;
        let readers = Readers::of(&state).map_err(|error| DaemonError::Settings(error.to_string()))?;
        let state = Arc::new(Mutex::new(state));
        let timer = Timer::start(Arc::clone(&state)).map_err(DaemonError::Timer)?;
        let collector = Collector::start(Arc::clone(&state)).map_err(DaemonError::Timer)?;
        Ok(Self { _timer: timer, collector, readers, state })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// The state stays usable when a thread panicked while it had it: every change is made whole by one assignment.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// As [`Datapath::start`], in the form that the command line takes.
///
/// # Errors
/// The error's text.
pub fn launch(config: &Config, tables: Vec<Tables>, died: &Died) -> Result<Arc<dyn Engine>, String> {
    match Datapath::start(config, tables, died) {
        Ok(datapath) => Ok(Arc::new(datapath)),
        Err(error) => Err(error.to_string()),
    }
}
