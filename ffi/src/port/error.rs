//! Why a port could not be had: which port, which devargs, DPDK's own reason, and the likely mend.

use crate::eal;
use crate::log::{self, Mark};

/// What went wrong with a port. Nothing of it is left attached or running, unless a variant says so.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PortError {
    /// The device description is no such thing.
    #[error("port {devargs:?}: {problem}")]
    Devargs {
        /// As it was given.
        devargs: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The device is another port's. That port is unharmed.
    #[error(
        "port {devargs:?}: the device is attached already, as DPDK port {port}; give each port its own device name"
    )]
    AlreadyAttached {
        /// As it was given.
        devargs: String,
        /// The DPDK port it is.
        port: u16,
    },
    /// The device would not work as expected.
    #[error("port {devargs:?} is refused: {problem}")]
    Unsuitable {
        /// As it was given.
        devargs: String,
        /// Why, and what to do.
        problem: String,
    },
    /// The driver did not start.
    #[error("port {devargs:?} cannot be attached: {reason}. Likely mend: {mend}")]
    Attach {
        /// As it was given.
        devargs: String,
        /// DPDK's error and log.
        reason: String,
        /// What most likely helps.
        mend: String,
    },
    /// A request exceeds what the device can do. The port stays attached as it was.
    #[error("port {port} ({devargs:?}): {problem}")]
    Capability {
        /// The DPDK port.
        port: u16,
        /// Its devargs.
        devargs: String,
        /// What was asked for, and what there is.
        problem: String,
    },
    /// A step of starting or stopping failed. The port stays attached, stopped.
    #[error("port {port} ({devargs:?}): {step} failed: {reason}. Likely mend: {mend}")]
    Step {
        /// The DPDK port.
        port: u16,
        /// Its devargs.
        devargs: String,
        /// What was being done.
        step: &'static str,
        /// DPDK's error and log.
        reason: String,
        /// What most likely helps.
        mend: String,
    },
    /// Queue handles are still out. The port is unharmed.
    #[error("port {port} ({devargs:?}): {queues} of its queues are still in use; drop their handles first")]
    Busy {
        /// The DPDK port.
        port: u16,
        /// Its devargs.
        devargs: String,
        /// Queues that are out.
        queues: usize,
    },
}

/// DPDK's words for a failed call: its error number and what its log says since `mark`.
pub(crate) fn reason_since(error: i32, mark: Mark) -> String {
    eal::reason(error, &log::complaints_since(mark))
}
