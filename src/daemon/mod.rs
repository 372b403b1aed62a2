//! The running datapath over DPDK: environment, pools, ports and lcores, changed and asked from the control
//! side. One lock serialises the control side's own work; no lcore ever takes it.

mod devices;
mod engine;
mod error;
mod state;
mod timer;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use error::DaemonError;
use state::State;
use timer::Timer;

use crate::config::Config;
use crate::control::Engine;

/// The datapath that `weir run` serves. Dropping it stops the lcores, then the ports.
#[derive(Debug)]
pub struct Datapath {
    state: Arc<Mutex<State>>,
    _timer: Timer,
}

impl Datapath {
    /// Starts DPDK, the lcores, and the bridges and ports of `config`.
    ///
    /// # Errors
    /// What did not start, why, and what helps; nothing is left running then.
    pub fn start(config: &Config) -> Result<Self, DaemonError> {
        let state = Arc::new(Mutex::new(State::start(config)?));
        let timer = Timer::start(Arc::clone(&state)).map_err(DaemonError::Timer)?;
        Ok(Self { state, _timer: timer })
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
pub fn launch(config: &Config) -> Result<Arc<dyn Engine>, String> {
    match Datapath::start(config) {
        Ok(datapath) => Ok(Arc::new(datapath)),
        Err(error) => Err(error.to_string()),
    }
}
