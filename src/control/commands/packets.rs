//! Packets made and sent by hand: `packet-out` and `compose-packet`.

use super::{Call, CommandError, Daemon, datapath};
use crate::control::output::Output;
use crate::flow::{Error, NoNames, PacketOut, compose, render};

/// An argument is shown with its mistake.
fn shown(argument: &str, text: &str, error: &Error) -> CommandError {
    CommandError::Failed(render(argument, 1, text, &error.span, &error.to_string()))
}

pub(super) fn packet_out(call: &Call<'_>, daemon: &Daemon, _: &mut Output<'_>) -> Result<(), CommandError> {
    let bridge = datapath::bridge(daemon, call.arg(0))?;
    let packets = match call.args {
        [_, text] => PacketOut::parse(text, &bridge).map_err(|error| shown("packet-out", text, &error))?,
        [_, port, actions, packets @ ..] if !packets.is_empty() => {
            PacketOut::parse_words(port, actions, packets, &bridge).map_err(|(index, error)| {
                let name = ["in_port", "actions"].get(index).copied().unwrap_or("packet");
                shown(name, call.arg(index + 1), &error)
            })?
        }
        _ => {
            let usage = "give \"in_port=PORT,packet=HEX,actions=...\", or PORT ACTIONS PACKET...";
            return Err(CommandError::Failed(usage.into()));
        }
    };
    daemon.engine.packet_out(call.arg(0), packets)?;
    Ok(())
}

pub(super) fn compose_packet(call: &Call<'_>, out: &mut Output<'_>) -> Result<(), CommandError> {
    // Options of this command alone, which may stand anywhere, as ovs-ofctl takes them.
    let (options, words): (Vec<&str>, Vec<&str>) =
        call.args.iter().map(String::as_str).partition(|word| word.starts_with("--"));
    let bare = call.options.bare || options.contains(&"--bare");
    let bad_checksum = call.options.bad_csum || options.contains(&"--bad-csum");
    if let Some(option) = options.iter().find(|option| !matches!(**option, "--bare" | "--bad-csum")) {
        return Err(CommandError::Failed(format!("unrecognized option '{option}'")));
    }
    let flow = words.first().copied().unwrap_or_default();
    let payload = match words.get(1) {
        Some(text) => compose::Payload::parse(text).map_err(|error| shown("payload", text, &error))?,
        None => compose::Payload::default(),
    };
    let composed = compose::compose(flow, &payload, &NoNames).map_err(|error| shown("flow", flow, &error))?;
    composed.warnings.iter().for_each(|warning| {
        out.warn(render("flow", 1, flow, &warning.span, &warning.to_string()));
    });
    let mut frame = composed.frame;
    if bad_checksum {
        compose::spoil_checksum(&mut frame);
    }
    let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
    if call.json {
        return Ok(out.json(&serde_json::json!({ "length": frame.len(), "packet": hex }))?);
    }
    if bare {
        return Ok(out.line(hex)?);
    }
    for (index, row) in frame.chunks(16).enumerate() {
        out.line(dump_row(index * 16, row))?;
    }
    Ok(())
}

/// Offset, and sixteen bytes in two halves.
fn dump_row(offset: usize, row: &[u8]) -> String {
    let bytes: String = row
        .iter()
        .enumerate()
        .map(|(index, byte)| format!("{}{byte:02x}", if index == 8 { '-' } else { ' ' }))
        .collect();
    format!("{offset:08x} {bytes}")
}
