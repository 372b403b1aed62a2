//! What can be wrong with a change to the switch.

use crate::flow::GroupError;
use crate::flow::port::PortNumber;
use crate::flow::table::ApplyError;

/// Why a change was refused. Nothing was changed then.
#[derive(Debug, thiserror::Error)]
pub enum SwitchError {
    /// No bridge of that name.
    #[error("{name} is not a bridge{}", known_list(.known))]
    NoSuchBridge {
        /// As asked for.
        name: String,
        /// The bridges there are.
        known: Vec<String>,
    },
    /// The name is taken.
    #[error("bridge {name} exists already")]
    BridgeExists {
        /// Its name.
        name: String,
    },
    /// A bridge with ports is not removed.
    #[error("bridge {name} still has port {port}; remove its ports first")]
    BridgeHasPorts {
        /// The bridge.
        name: String,
        /// One of its ports.
        port: String,
    },
    /// The bound on bridges.
    #[error("there are {} bridges already, the most there can be", super::MAX_BRIDGES)]
    TooManyBridges,
    /// The bound on ports.
    #[error("there are {} ports already, the most there can be", super::MAX_PORTS - 1)]
    TooManyPorts,
    /// No port of that name.
    #[error("bridge {bridge} has no port named {name}")]
    NoSuchPort {
        /// The bridge.
        bridge: String,
        /// As asked for.
        name: String,
    },
    /// Port names are unique over all bridges.
    #[error("a port named {name} exists already")]
    PortExists {
        /// The name.
        name: String,
    },
    /// The number belongs to another port.
    #[error("bridge {bridge} has a port with number {number} already")]
    PortNumberTaken {
        /// The bridge.
        bridge: String,
        /// The number.
        number: PortNumber,
    },
    /// Not a number for a port.
    #[error("{number} cannot be a port number; it must be from 1 to 65279")]
    PortNumber {
        /// The number.
        number: PortNumber,
    },
    /// Not a name.
    #[error("'{name}' cannot be a name; it takes 1 to 64 visible ASCII characters without / , \" and '")]
    Name {
        /// The name, cut to 64 characters.
        name: String,
    },
    /// The flow tables refused it.
    #[error(transparent)]
    Flows(#[from] ApplyError),
    /// The group table refused it.
    #[error(transparent)]
    Groups(#[from] GroupError),
}

fn known_list(known: &[String]) -> String {
    if known.is_empty() { "; there is none".into() } else { format!("; there is {}", known.join(", ")) }
}
