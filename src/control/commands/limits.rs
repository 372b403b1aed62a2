//! The tracker's limits and switches: `ct-*-limits`, `ct-*-tcp-seq-chk`, `ct-*-sweep-interval`. Texts, errors and what
//! is let pass are those of Open vSwitch 3.1 as it was seen to answer, unless said otherwise.

use std::collections::BTreeMap;

use serde_json::json;

use super::{Call, CommandError, Daemon, datapath};
use crate::control::output::Output;
use crate::control::tracking::{LimitChange, ZoneLimit};

fn invalid(message: impl std::fmt::Display) -> CommandError {
    CommandError::Failed(format!("{message} (Invalid argument)"))
}

/// The arguments without the datapath's name; Open vSwitch looks for one only where there is one argument too many.
fn arguments<'a>(call: &'a Call<'_>) -> Vec<&'a str> {
    let args: Vec<&str> = call.args.iter().map(String::as_str).collect();
    datapath::without_name(&args).to_vec()
}

/// A number as Open vSwitch's scanner takes it, but none that does not fit.
fn number<T: TryFrom<u64>>(text: &str) -> Option<T> {
    let value = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) if digits.bytes().all(|b| b.is_ascii_hexdigit()) => u64::from_str_radix(digits, 16),
        None if text.bytes().all(|b| b.is_ascii_digit()) => text.parse(),
        _ => return None,
    };
    T::try_from(value.ok()?).ok()
}

pub(super) fn set(call: &Call<'_>, daemon: &Daemon, _: &mut Output<'_>) -> Result<(), CommandError> {
    let args = arguments(call);
    let mut change = LimitChange::default();
    let mut rest = args.as_slice();
    if let [first, more @ ..] = rest
        && let Some(limit) = first.strip_prefix("default=")
    {
        let limit: u32 = number(limit).ok_or_else(|| invalid("invalid default limit"))?;
        // 0 means that there is none.
        change.default = Some((limit > 0).then_some(limit));
        rest = more;
    }
    if rest.is_empty() && change.default.is_none() {
        return Err(invalid("failed to parse zone limit"));
    }
    for tuple in rest {
        let (zone, limit) = zone_limit(tuple)?;
        change.zones.insert(zone, Some(limit));
    }
    daemon.engine.change_limits(change)?;
    Ok(())
}

/// `zone=N,limit=L`, in any order.
fn zone_limit(tuple: &str) -> Result<(u16, u32), CommandError> {
    let (mut zone, mut limit) = (None, None);
    for field in tuple.split(',') {
        let (key, value) =
            field.split_once('=').ok_or_else(|| invalid(format!("field {field} missing value")))?;
        match key {
            "zone" => zone = Some(number(value).ok_or_else(|| invalid("failed to parse field zone"))?),
            "limit" => limit = Some(number(value).ok_or_else(|| invalid("failed to parse field limit"))?),
            _ => return Err(invalid(format!("invalid zone limit field: {key}"))),
        }
    }
    zone.zip(limit).ok_or_else(|| invalid("failed to parse zone limit"))
}

/// `zone=N,...`, or nothing.
fn zones(args: &[&str]) -> Result<Vec<u16>, CommandError> {
    match args {
        [] => Ok(Vec::new()),
        [list] => {
            let Some(list) = list.strip_prefix("zone=") else {
                return Err(invalid(format!("invalid argument {list}")));
            };
            let numbers = list.split(',').filter(|zone| !zone.is_empty()).map(number);
            let zones: Vec<u16> = numbers.collect::<Option<_>>().ok_or_else(|| invalid("invalid zone"))?;
            if zones.is_empty() { Err(invalid("invalid zone")) } else { Ok(zones) }
        }
        _ => Err(invalid("datapath not found")),
    }
}

pub(super) fn show(call: &Call<'_>, daemon: &Daemon, out: &mut Output<'_>) -> Result<(), CommandError> {
    let zones = zones(&arguments(call))?;
    let limits = daemon.engine.limits(&zones)?;
    if call.json {
        return Ok(out.json(&limits)?);
    }
    // As Open vSwitch says it: 0 is no default.
    out.line(format_args!("default limit={}", limits.default.unwrap_or(0)))?;
    for ZoneLimit { zone, limit, count } in &limits.zones {
        let limit = limit.unwrap_or(0);
        out.line(format_args!("zone={zone},limit={limit},count={count}"))?;
    }
    Ok(())
}

pub(super) fn delete(call: &Call<'_>, daemon: &Daemon, _: &mut Output<'_>) -> Result<(), CommandError> {
    let zones = zones(&arguments(call))?;
    if zones.is_empty() {
        return Err(invalid("failed to parse zone limit"));
    }
    let zones: BTreeMap<_, _> = zones.into_iter().map(|zone| (zone, None)).collect();
    daemon.engine.change_limits(LimitChange { default: None, zones })?;
    Ok(())
}

/// The only argument there may be is the datapath's name.
fn nothing_more(call: &Call<'_>) -> Result<(), CommandError> {
    if arguments(call).is_empty() { Ok(()) } else { Err(invalid("datapath not found")) }
}

pub(super) fn enable_check(
    call: &Call<'_>,
    daemon: &Daemon,
    out: &mut Output<'_>,
) -> Result<(), CommandError> {
    nothing_more(call)?;
    daemon.engine.check_sequence(true)?;
    Ok(out.line("enabling TCP sequence checking successful")?)
}

pub(super) fn disable_check(
    call: &Call<'_>,
    daemon: &Daemon,
    out: &mut Output<'_>,
) -> Result<(), CommandError> {
    nothing_more(call)?;
    daemon.engine.check_sequence(false)?;
    Ok(out.line("disabling TCP sequence checking successful")?)
}

pub(super) fn show_check(call: &Call<'_>, daemon: &Daemon, out: &mut Output<'_>) -> Result<(), CommandError> {
    nothing_more(call)?;
    let enabled = daemon.engine.checks_sequence();
    if call.json {
        return Ok(out.json(&json!({ "enabled": enabled }))?);
    }
    let word = if enabled { "enabled" } else { "disabled" };
    Ok(out.line(format_args!("TCP sequence checking: {word}"))?)
}

pub(super) fn set_sweep_interval(
    call: &Call<'_>,
    daemon: &Daemon,
    out: &mut Output<'_>,
) -> Result<(), CommandError> {
    let [interval] = arguments(call)[..] else { return Err(invalid("datapath not found")) };
    let interval: u32 = number(interval).ok_or_else(|| invalid("sweep interval missing or malformed"))?;
    daemon.engine.set_sweep_interval(interval);
    Ok(out.line("setting sweep interval successful")?)
}

pub(super) fn show_sweep_interval(
    call: &Call<'_>,
    daemon: &Daemon,
    out: &mut Output<'_>,
) -> Result<(), CommandError> {
    nothing_more(call)?;
    let interval = daemon.engine.sweep_interval();
    if call.json { Ok(out.json(&json!({ "milliseconds": interval }))?) } else { Ok(out.line(interval)?) }
}
