//! What action NORMAL has learned: which station is behind which port.

use super::{Call, CommandError, Daemon};
use crate::control::engine::{EngineError, Learning};
use crate::control::output::Output;

pub(super) fn show(call: &Call<'_>, daemon: &Daemon, out: &mut Output<'_>) -> Result<(), CommandError> {
    let learned = daemon.engine.learned(call.arg(0)).map_err(in_its_words)?;
    if call.json {
        for entry in &learned {
            out.element(&serde_json::json!({
                "port": entry.port,
                "vlan": entry.vlan,
                "mac": mac(entry.mac),
                "age": entry.age,
            }))?;
        }
        return Ok(out.end_array()?);
    }
    out.line(" port  VLAN  MAC                Age")?;
    for entry in &learned {
        let mac = mac(entry.mac);
        out.line(format_args!("{:>5}  {:>4}  {mac}  {:>3}", entry.port, entry.vlan, entry.age))?;
    }
    Ok(())
}

pub(super) fn flush(call: &Call<'_>, daemon: &Daemon, out: &mut Output<'_>) -> Result<(), CommandError> {
    daemon.engine.forget_learned(call.args.first().map(String::as_str)).map_err(in_its_words)?;
    Ok(out.line("table successfully flushed")?)
}

pub(super) fn stats_show(call: &Call<'_>, daemon: &Daemon, out: &mut Output<'_>) -> Result<(), CommandError> {
    let seen = daemon.engine.learning(call.arg(0)).map_err(in_its_words)?;
    if call.json {
        return Ok(out.json(&seen)?);
    }
    let Learning { current, maximum, learned, expired, moved, refused } = seen;
    out.line(format_args!("Statistics for bridge \"{}\":", call.arg(0)))?;
    out.line(format_args!("  Current/maximum MAC entries in the table: {current}/{maximum}"))?;
    // Stations are neither configured nor pushed out by others here.
    out.line("  Current static MAC entries in the table : 0")?;
    out.line(format_args!("  Total number of learned MAC entries     : {learned}"))?;
    out.line(format_args!("  Total number of expired MAC entries     : {expired}"))?;
    out.line("  Total number of evicted MAC entries     : 0")?;
    out.line(format_args!("  Total number of port moved MAC entries  : {moved}"))?;
    if refused != 0 {
        out.line(format_args!("  Frames not learned from for want of room: {refused}"))?;
    }
    Ok(())
}

pub(super) fn stats_clear(
    call: &Call<'_>,
    daemon: &Daemon,
    out: &mut Output<'_>,
) -> Result<(), CommandError> {
    daemon.engine.clear_learning(call.args.first().map(String::as_str)).map_err(in_its_words)?;
    Ok(out.line("statistics successfully cleared")?)
}

fn in_its_words(error: EngineError) -> CommandError {
    match error {
        EngineError::NoBridge(_) => CommandError::Failed("no such bridge".into()),
        other => other.into(),
    }
}

/// Six bytes in the usual notation.
pub(super) fn mac(bytes: [u8; 6]) -> String {
    let [a, b, c, d, e, f] = bytes;
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}
