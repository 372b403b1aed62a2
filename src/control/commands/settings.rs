//! What `vsctl set` and `vsctl add-port` can say about a bridge or port: `COLUMN[:KEY]=VALUE`.

use super::CommandError;
use super::vsctl::failed;
use crate::config::{DevArgs, Name, Peer, PortNumber, Role, is_system_name};
use crate::control::engine::{FailMode, NewPort};
use crate::flow::nearest;

/// What can be said about a port.
const COLUMNS: [&str; 7] = [
    "type",
    "options:dpdk-devargs",
    "ofport_request",
    "options:n_rxq",
    "options:role",
    "options:peer",
    "options:peer-netns",
];

/// A port to add; later steps may still say more about it.
#[derive(Debug)]
pub(super) struct Draft {
    bridge: Name,
    pub(super) name: Name,
    number: Option<PortNumber>,
    devargs: Option<DevArgs>,
    rx_queues: Option<u16>,
    role: Option<Role>,
    peer: Option<String>,
    peer_netns: Option<String>,
}

impl Draft {
    pub(super) fn new(bridge: Name, name: Name) -> Self {
        Self {
            bridge,
            name,
            number: None,
            devargs: None,
            rx_queues: None,
            role: None,
            peer: None,
            peer_netns: None,
        }
    }

    /// Takes one `COLUMN[:KEY]=VALUE`.
    pub(super) fn apply(&mut self, setting: &str) -> Result<(), CommandError> {
        let (column, value) = assignment(setting)?;
        let bad = |what: &str| failed(format!("{column}={value}: {what}"));
        match column {
            "type" if value == "dpdk" => {}
            "type" => return Err(bad("ports here have type dpdk")),
            "options:dpdk-devargs" => {
                self.devargs = Some(value.parse().map_err(|error| failed(format!("{column}: {error}")))?);
            }
            "ofport_request" => {
                let number = super::selection::number(value).and_then(PortNumber::new);
                self.number = Some(number.ok_or_else(|| bad("a port number is 1 to 65279"))?);
            }
            "options:n_rxq" => {
                let queues = super::selection::number(value).filter(|queues| (1..=64).contains(queues));
                self.rx_queues = Some(queues.ok_or_else(|| bad("there can be 1 to 64 receive queues"))?);
            }
            "options:role" => {
                self.role = Some(Role::named(value).ok_or_else(|| bad("a role is inside or outside"))?);
            }
            "options:peer" | "options:peer-netns" => {
                if !is_system_name(value) {
                    return Err(bad("not a name that a device or network namespace can have"));
                }
                let place = if column == "options:peer" { &mut self.peer } else { &mut self.peer_netns };
                *place = Some(value.to_owned());
            }
            _ => {
                let near = nearest(column, COLUMNS)
                    .map(|near| format!("; did you mean {near}?"))
                    .unwrap_or_default();
                return Err(failed(format!(
                    "Interface does not contain a column whose name matches \"{column}\"{near}"
                )));
            }
        }
        Ok(())
    }

    /// The port, once everything is said about it.
    pub(super) fn settled(self) -> Result<NewPort, CommandError> {
        let Self { bridge, name, number, devargs, rx_queues, role, peer, peer_netns } = self;
        let devargs = devargs.ok_or_else(|| {
            failed(format!(
                "port {name} has no device; add `-- set Interface {name} options:dpdk-devargs=DEVICE`"
            ))
        })?;
        let peer = match (peer, peer_netns) {
            (Some(dev), netns) => Some(Peer { dev, netns }),
            (None, None) => None,
            (None, Some(netns)) => {
                let message = format!("options:peer-netns={netns}: say which device with options:peer=DEV");
                return Err(failed(message));
            }
        };
        Ok(NewPort { bridge, name, number, devargs, rx_queues, role, peer })
    }
}

/// Splits `COLUMN[:KEY]=VALUE`, dropping quotes around the value.
fn assignment(setting: &str) -> Result<(&str, &str), CommandError> {
    let (column, value) =
        setting.split_once('=').ok_or_else(|| failed(format!("{setting}: missing value")))?;
    let bare = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    Ok((column, bare.unwrap_or(value)))
}

/// What can be said about a bridge.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BridgeSetting {
    /// What it is anyway.
    AsItIs,
    FailMode(FailMode),
}

/// Takes one `COLUMN=VALUE` of a bridge.
pub(super) fn bridge_setting(setting: &str) -> Result<BridgeSetting, CommandError> {
    match assignment(setting)? {
        ("datapath_type", "netdev") => Ok(BridgeSetting::AsItIs),
        ("fail_mode" | "fail-mode", mode) => match FailMode::named(mode) {
            Some(mode) => Ok(BridgeSetting::FailMode(mode)),
            None => Err(failed(format!(
                "constraint violation: {mode} is not one of the allowed values ([secure, standalone])"
            ))),
        },
        ("datapath_type", other) => {
            Err(failed(format!("datapath_type={other}: the only datapath here is netdev")))
        }
        (column, _) => {
            let near = nearest(column, ["datapath_type", "fail_mode"])
                .map(|near| format!("; did you mean {near}?"))
                .unwrap_or_default();
            Err(failed(format!("Bridge does not contain a column whose name matches \"{column}\"{near}")))
        }
    }
}
