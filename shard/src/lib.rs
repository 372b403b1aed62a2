//! What one lcore owns: the connection table, the protocol trackers, timers and zones.
#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod action;
pub mod state;

pub use action::{CtAction, Helper};
pub use state::CtState;
