//! Why the datapath does not start or does not take a change.

use weir_ffi::offload::OffloadError;
use weir_ffi::{EalError, PoolError, PortError};
use weir_numa::lcores::LcoreError as PlacementError;
use weir_numa::memory::MemoryError;
use weir_numa::pin::PinError;
use weir_numa::preflight::Report;
use weir_numa::topology::TopologyError;
use weir_shard::steering::SteeringError;

use super::publication::PublishError;
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
    /// No buffers for a port.
    #[error("port {name}: {source}")]
    PortPool {
        /// The port's name.
        name: String,
        /// What is missing.
        source: PoolError,
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
        lcores: u16,
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
    /// No memory for what lcores exchange.
    #[error("mailboxes between the lcores: {0}")]
    Mailboxes(MemoryError),
    /// Connections cannot be divided among so many lcores.
    #[error("lcores: {0}")]
    Steering(#[from] SteeringError),
    /// The tracker's settings for zones.
    #[error("zones: {0}")]
    Settings(String),
    /// An lcore does not answer.
    #[error(transparent)]
    Call(#[from] CallError),
    /// A change did not reach every lcore.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// Bridges, ports or flows.
    #[error(transparent)]
    Switch(#[from] SwitchError),
    /// The machine could not be looked at.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// The CPUs that may be used could not be read.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// No CPU to poll on.
    #[error("lcores: {0}")]
    Placement(#[from] PlacementError),
    /// Profile metal needs something that the machine does not have.
    #[error(
        "this machine is not ready for profile metal (profile lab needs none of this):\n{}",
        .0.to_string().trim_end()
    )]
    Preflight(Box<Report>),
    /// No random numbers.
    #[error("the system gave no random numbers: {0}")]
    Random(String),
    /// A packet to send could not be put into a buffer.
    #[error("the packet cannot be sent: {0}")]
    PacketOut(String),
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
