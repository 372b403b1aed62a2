//! A bridge's ports as ovs-ofctl shows them.

use super::fdb::mac;
use super::{Call, CommandError, Daemon, datapath};
use crate::control::engine::{Bridge, Port};
use crate::control::output::{Disconnected, Output};

pub(super) fn show(call: &Call<'_>, daemon: &Daemon, out: &mut Output<'_>) -> Result<(), CommandError> {
    let bridge = datapath::bridge(daemon, call.arg(0))?;
    if call.json {
        return Ok(out.json(&bridge)?);
    }
    // The bridge has no device of its own whose address could be its identity; its first port's is as good.
    let mac = bridge.ports.first().map_or([0; 6], |port| port.mac);
    let id: String = mac.iter().map(|byte| format!("{byte:02x}")).collect();
    out.line(format_args!("OFPT_FEATURES_REPLY (xid=0x2): dpid:0000{id}"))?;
    out.line("n_tables:254, n_buffers:0")?;
    out.line("capabilities: FLOW_STATS TABLE_STATS PORT_STATS ARP_MATCH_IP")?;
    for port in &bridge.ports {
        describe(port, out)?;
    }
    Ok(out.line("OFPT_GET_CONFIG_REPLY (xid=0x4): frags=normal miss_send_len=0")?)
}

fn describe(port: &Port, out: &mut Output<'_>) -> Result<(), Disconnected> {
    out.line(format_args!(" {}({}): addr:{}", port.number, port.name, mac(port.mac)))?;
    out.line("     config:     0")?;
    out.line(format_args!("     state:      {}", if port.link.is_some() { "LIVE" } else { "LINK_DOWN" }))?;
    let speed = port.link.and_then(|link| link.speed_mbps).unwrap_or(0);
    out.line(format_args!("     speed: {speed} Mbps now, 0 Mbps max"))
}

/// The ports that the second argument, a name or number, means: all without one.
fn meant(call: &Call<'_>, bridge: Bridge) -> Result<Vec<Port>, CommandError> {
    let Some(wanted) = call.args.get(1) else { return Ok(bridge.ports) };
    let number = wanted.parse::<u16>().ok();
    let found = bridge
        .ports
        .into_iter()
        .find(|port| port.name.as_str() == wanted || Some(port.number.number()) == number);
    match found {
        Some(port) => Ok(vec![port]),
        None => Err(CommandError::Failed(format!("{}: unknown port `{wanted}'", bridge.name))),
    }
}

pub(super) fn dump_ports_desc(
    call: &Call<'_>,
    daemon: &Daemon,
    out: &mut Output<'_>,
) -> Result<(), CommandError> {
    let ports = meant(call, datapath::bridge(daemon, call.arg(0))?)?;
    if call.json {
        return Ok(out.json(&ports)?);
    }
    out.line("OFPST_PORT_DESC reply (xid=0x2):")?;
    for port in &ports {
        describe(port, out)?;
    }
    Ok(())
}

pub(super) fn dump_ports(call: &Call<'_>, daemon: &Daemon, out: &mut Output<'_>) -> Result<(), CommandError> {
    let ports = meant(call, datapath::bridge(daemon, call.arg(0))?)?;
    if call.json {
        return Ok(out.json(&ports)?);
    }
    out.line(format_args!("OFPST_PORT reply (xid=0x2): {} ports", ports.len()))?;
    for port in &ports {
        let c = port.counters;
        out.line(format_args!(
            "  port {:>2}: rx pkts={}, bytes={}, drop={}, errs={}, frame=0, over=0, crc=0",
            port.number, c.rx_packets, c.rx_bytes, c.rx_dropped, c.rx_errors
        ))?;
        out.line(format_args!(
            "           tx pkts={}, bytes={}, drop={}, errs={}, coll=0",
            c.tx_packets, c.tx_bytes, c.tx_dropped, c.tx_errors
        ))?;
    }
    Ok(())
}
