//! The daemon itself: its version, counters, log and end.

use serde::Serialize;

use super::{Call, CommandError, Daemon, Family};
use crate::control::output::Output;
use crate::flow::nearest;

/// Levels as Open vSwitch calls them.
pub const LOG_LEVELS: [&str; 6] = ["off", "emer", "err", "warn", "info", "dbg"];
/// The parts of the program whose log level can be set on its own: those that log.
pub const LOG_MODULES: [&str; 4] = ["cli", "control", "daemon", "dpdk"];

pub(super) fn version(call: &Call<'_>, _: &Daemon, out: &mut Output<'_>) -> Result<(), CommandError> {
    let version = env!("CARGO_PKG_VERSION");
    if call.json {
        Ok(out.json(&serde_json::json!({ "program": "weir", "version": version }))?)
    } else {
        Ok(out.line(format_args!("weir {version}"))?)
    }
}

pub(super) fn exit(call: &Call<'_>, daemon: &Daemon, _: &mut Output<'_>) -> Result<(), CommandError> {
    if !matches!(call.arg(0), "" | "--cleanup") {
        return Err(CommandError::Failed(format!("invalid argument: \"{}\"", call.arg(0))));
    }
    daemon.host.stop();
    Ok(())
}

pub(super) fn list_ofctl(call: &Call<'_>, out: &mut Output<'_>) -> Result<(), CommandError> {
    list(Family::Ofctl, call, out)
}

pub(super) fn list_appctl(call: &Call<'_>, _: &Daemon, out: &mut Output<'_>) -> Result<(), CommandError> {
    list(Family::Appctl, call, out)
}

fn list(family: Family, call: &Call<'_>, out: &mut Output<'_>) -> Result<(), CommandError> {
    #[derive(Serialize)]
    struct Entry {
        name: &'static str,
        usage: &'static str,
        help: &'static str,
    }
    if !call.json {
        return Ok(out.text(family.list())?);
    }
    for spec in family.commands() {
        out.element(&Entry { name: spec.name, usage: spec.usage, help: spec.help })?;
    }
    Ok(out.end_array()?)
}

pub(super) fn coverage_show(
    call: &Call<'_>,
    daemon: &Daemon,
    out: &mut Output<'_>,
) -> Result<(), CommandError> {
    let counters = daemon.engine.counters()?;
    if call.json {
        return Ok(out.json(&counters)?);
    }
    out.line("Event coverage:")?;
    for counter in counters.iter().filter(|counter| counter.total != 0) {
        out.line(format_args!("{:<32}total: {:<12}{}", counter.name, counter.total, counter.help))?;
    }
    let silent = counters.iter().filter(|counter| counter.total == 0).count();
    Ok(out.line(format_args!("{silent} events never hit"))?)
}

pub(super) fn coverage_read(
    call: &Call<'_>,
    daemon: &Daemon,
    out: &mut Output<'_>,
) -> Result<(), CommandError> {
    let counters = daemon.engine.counters()?;
    let counter = counters.iter().find(|counter| counter.name == call.arg(0)).ok_or_else(|| {
        let near = nearest(call.arg(0), counters.iter().map(|counter| counter.name.as_str()));
        let hint = near.map(|near| format!("\ndid you mean {near}?")).unwrap_or_default();
        CommandError::Failed(format!("No such counter{hint}"))
    })?;
    if call.json { Ok(out.json(counter)?) } else { Ok(out.line(counter.total)?) }
}

pub(super) fn vlog_list(call: &Call<'_>, daemon: &Daemon, out: &mut Output<'_>) -> Result<(), CommandError> {
    let levels = daemon.host.log_levels();
    if call.json {
        let levels: std::collections::BTreeMap<_, _> = levels.into_iter().collect();
        return Ok(out.json(&levels)?);
    }
    out.line("                 console")?;
    out.line("                 -------")?;
    for (module, level) in levels {
        out.line(format_args!("{module:<18} {level}"))?;
    }
    Ok(())
}

/// Each argument is up to three words in any order: a module, a destination, a level. Without a level it is
/// dbg, as in ovs-appctl; all destinations are one here, the daemon's standard error.
pub(super) fn vlog_set(call: &Call<'_>, daemon: &Daemon, _: &mut Output<'_>) -> Result<(), CommandError> {
    let mut settings = Vec::new();
    for arg in call.args {
        let (mut module, mut level) = (None, None);
        for word in arg.split([':', ' ']).filter(|word| !word.is_empty()) {
            let lower = word.to_ascii_lowercase();
            if let Some(known) = LOG_LEVELS.into_iter().find(|known| *known == lower) {
                level = Some(known);
            } else if let Some(known) = LOG_MODULES.into_iter().find(|known| *known == lower) {
                module = Some(known);
            } else if !matches!(lower.as_str(), "any" | "console" | "syslog" | "file") {
                let near = nearest(&lower, LOG_LEVELS.into_iter().chain(LOG_MODULES));
                let hint = near.map(|near| format!("; did you mean \"{near}\"?")).unwrap_or_default();
                let message = format!("no destination, level, or module \"{word}\"{hint}");
                return Err(CommandError::Failed(message));
            }
        }
        settings.push((module, level.unwrap_or("dbg")));
    }
    if settings.is_empty() {
        settings.push((None, "dbg"));
    }
    for (module, level) in settings {
        daemon.host.set_log_level(module, level).map_err(CommandError::Failed)?;
    }
    Ok(())
}
