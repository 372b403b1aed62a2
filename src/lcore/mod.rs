//! The lcore loop: pinned threads that poll their ports' queues, run each burst through their worker and send
//! what comes out. Nobody on this side ever waits for another thread; the control side asks by jobs that run
//! between two bursts.

mod arrivals;
mod clock;
mod frame;
mod handle;
mod mailboxes;
mod poll;
mod transmit;

pub use arrivals::{Arrivals, Examination};
pub use clock::Clock;
#[cfg(test)]
pub(crate) use handle::testing;
pub use handle::{CallError, Lcore, LcoreError};
pub use mailboxes::{Fill, Incoming, Mailboxes, Outgoing};
pub use poll::{Cycles, Idle, Polling, PortFigures};
