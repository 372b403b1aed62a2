//! `weir show topology`: the machine, and where lcores, their memory and ports' cards are on it.

use super::{Call, CommandError, Daemon};
use crate::control::output::Output;

pub(super) fn show(call: &Call<'_>, daemon: &Daemon, out: &mut Output<'_>) -> Result<(), CommandError> {
    let report = daemon.engine.topology()?;
    if call.json {
        return Ok(out.json(&report)?);
    }
    Ok(out.text(&report)?)
}
