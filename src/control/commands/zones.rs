//! `weir zone`: timeouts of connection tracking zones; and what ovs-vsctl's `add-zone-tp` and its like make of the same.

use std::collections::BTreeMap;

use serde::Serialize;
use weir_shard::Timeout;

use super::vsctl::failed;
use super::{Call, CommandError, Daemon};
use crate::config::ZoneTimeouts;
use crate::control::output::Output;
use crate::flow::nearest;

/// Names that Open vSwitch takes and its userspace datapath makes nothing of: states that only Linux' tracker knows.
pub(super) const OF_LINUX: [&str; 5] =
    ["tcp_close_wait", "tcp_last_ack", "tcp_retransmit", "tcp_syn_sent2", "tcp_unack"];

/// A zone's number, with or without `zone=` in front.
pub(super) fn zone(text: &str) -> Result<u16, CommandError> {
    let number = text.strip_prefix("zone=").unwrap_or(text);
    let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    let zone = digits.then(|| number.parse().ok()).flatten();
    zone.ok_or_else(|| failed(format!("{text}: a zone is a number from 0 to 65535")))
}

/// `NAME=SECONDS ...`
pub(super) fn timeouts<'a>(args: impl IntoIterator<Item = &'a str>) -> Result<ZoneTimeouts, CommandError> {
    let mut timeouts = ZoneTimeouts::default();
    for arg in args {
        let (name, seconds) = arg
            .split_once('=')
            .ok_or_else(|| failed(format!("{arg}: write a timeout as NAME=SECONDS, as in udp_first=30")))?;
        let Some(timeout) = Timeout::ALL.into_iter().find(|timeout| timeout.name() == name) else {
            return Err(failed(no_timeout(name)));
        };
        let digits = !seconds.is_empty() && seconds.bytes().all(|b| b.is_ascii_digit());
        let value = digits.then(|| seconds.parse().ok()).flatten();
        let value = value.ok_or_else(|| failed(format!("{arg}: \"{seconds}\" is no number of seconds")))?;
        timeouts.set(timeout, value).map_err(|error| failed(error.to_string()))?;
    }
    Ok(timeouts)
}

/// What to say about a name that is none of ours.
fn no_timeout(name: &str) -> String {
    if OF_LINUX.contains(&name) {
        return format!("{name}: only Linux' connection tracker has this state; leave it out");
    }
    let known = Timeout::ALL.map(Timeout::name);
    match nearest(name, known) {
        Some(near) => format!("{name}: no such timeout; did you mean {near}?"),
        None => format!("{name}: no such timeout; there are {}", known.join(", ")),
    }
}

pub(super) fn set_timeout(call: &Call<'_>, daemon: &Daemon, _: &mut Output<'_>) -> Result<(), CommandError> {
    let zone = zone(call.arg(0))?;
    let given = timeouts(call.args.iter().skip(1).map(String::as_str))?;
    // What is not named stays as it is.
    let own = daemon.engine.zone_timeouts().remove(&zone).unwrap_or_default().with(&given);
    daemon.engine.set_zone_timeouts(BTreeMap::from([(zone, Some(own))]))?;
    Ok(())
}

pub(super) fn del_timeout(call: &Call<'_>, daemon: &Daemon, _: &mut Output<'_>) -> Result<(), CommandError> {
    let zone = zone(call.arg(0))?;
    if !daemon.engine.zone_timeouts().contains_key(&zone) {
        return Err(failed(format!("zone {zone} has no timeouts of its own")));
    }
    daemon.engine.set_zone_timeouts(BTreeMap::from([(zone, None)]))?;
    Ok(())
}

/// What is known of a zone.
#[derive(Default, Serialize)]
struct Row {
    zone: u16,
    connections: u64,
    limit: Option<u32>,
    timeouts: ZoneTimeouts,
}

/// Zones with a limit or timeouts of their own.
pub(super) fn list(call: &Call<'_>, daemon: &Daemon, out: &mut Output<'_>) -> Result<(), CommandError> {
    let mut timeouts = daemon.engine.zone_timeouts();
    let mut zones: Vec<u16> = daemon.engine.limits(&[])?.zones.iter().map(|limit| limit.zone).collect();
    zones.extend(timeouts.keys());
    zones.sort_unstable();
    zones.dedup();
    let counted = if zones.is_empty() { Vec::new() } else { daemon.engine.limits(&zones)?.zones };
    let rows = counted.into_iter().map(|limit| Row {
        zone: limit.zone,
        connections: limit.count,
        limit: limit.limit,
        timeouts: timeouts.remove(&limit.zone).unwrap_or_default(),
    });
    if call.json {
        rows.into_iter().try_for_each(|row| out.element(&row))?;
        return Ok(out.end_array()?);
    }
    out.line(format_args!("{:>5}  {:>11}  {:>10}  TIMEOUTS", "ZONE", "CONNECTIONS", "LIMIT"))?;
    for row in rows {
        let limit = row.limit.map_or_else(|| "none".to_owned(), |limit| limit.to_string());
        let timeouts = words(&row.timeouts);
        let line = format!("{:>5}  {:>11}  {limit:>10}  {timeouts}", row.zone, row.connections);
        out.line(line.trim_end())?;
    }
    Ok(())
}

/// As `NAME=SECONDS ...`.
pub(super) fn words(timeouts: &ZoneTimeouts) -> String {
    let words: Vec<String> = timeouts.iter().map(|(name, seconds)| format!("{name}={seconds}")).collect();
    words.join(" ")
}
