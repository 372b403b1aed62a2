//! What action NORMAL has learned: which station is behind which port.

use super::{Call, CommandError, Daemon};
use crate::control::engine::EngineError;
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
