//! Why the datapath does not start or does not take a change.

use std::path::PathBuf;

use weir_ffi::offload::OffloadError;
use weir_ffi::{EalError, PoolError, PortError};

use crate::flow::FileError;
use crate::lcore::{CallError, LcoreError};
use crate::switch::SwitchError;

/// What went wrong. Nothing was changed then.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// DPDK's environment.
    #[error(transparent)]
    Eal(#[from] EalError),
    /// Packet buffers.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// A device.
    #[error("port {name}: {source}")]
    Port {
        /// The port's name.
        name: String,
        /// What its device says.
        source: Box<PortError>,
    },
    /// Too few transmit queues.
    #[error(
        "port {name}: {driver} has {has} transmit queues and each of the {lcores} lcores needs its own; {mend}",
        mend = queue_mend(.driver)
    )]
    TxQueues {
        /// The port's name.
        name: String,
        /// Its driver.
        driver: String,
        /// Queues it has.
        has: u16,
        /// Queues needed.
        lcores: usize,
    },
    /// Too few receive queues.
    #[error("port {name}: {driver} has {has} receive queues, not {wanted}; {mend}", mend = queue_mend(.driver))]
    RxQueues {
        /// The port's name.
        name: String,
        /// Its driver.
        driver: String,
        /// Queues it has.
        has: u16,
        /// Queues asked for.
        wanted: u16,
    },
    /// A veth peer's offloads.
    #[error("port {name}: {source}")]
    Offload {
        /// The port's name.
        name: String,
        /// What went wrong.
        source: OffloadError,
    },
    /// An lcore did not start.
    #[error(transparent)]
    Lcore(#[from] LcoreError),
    /// An lcore does not answer.
    #[error(transparent)]
    Call(#[from] CallError),
    /// Bridges, ports or flows.
    #[error(transparent)]
    Switch(#[from] SwitchError),
    /// A flow file has a mistake.
    #[error(transparent)]
    Flows(#[from] FileError),
    /// A flow file cannot be read.
    #[error("cannot read {path}: {source}", path = .path.display())]
    FlowFile {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// No CPU to poll on.
    #[error("CPU {cpu} is not one that this process may use ({allowed}); choose other lcores")]
    Cpu {
        /// The CPU asked for.
        cpu: u16,
        /// Those it may use.
        allowed: String,
    },
    /// No random numbers.
    #[error("the system gave no random numbers: {0}")]
    Random(String),
    /// The timer's thread.
    #[error("cannot start the timer thread: {0}")]
    Timer(std::io::Error),
}

/// How more queues are had.
fn queue_mend(driver: &str) -> &'static str {
    match driver {
        "net_af_packet" => "add qpairs=N to its devargs, or use fewer lcores",
        "net_af_xdp" => "add queue_count=N to its devargs (the interface needs as many), or use fewer lcores",
        "net_pcap" => "name one rx_pcap and one tx_pcap a queue in its devargs, or use fewer lcores",
        _ => "use fewer lcores",
    }
}
