//! Connections: dumps, counts, limits and flushes.

use std::collections::BTreeMap;

use serde::Serialize;
use weir_shard::ProtocolState;

use super::selection::{number, selection};
use super::tuples::{Detail, Json, line};
use super::{Call, CommandError, Daemon, datapath};
use crate::control::engine::{ConnectionFilter, Cursor};
use crate::control::output::Output;

pub(super) fn dump(call: &Call<'_>, daemon: &Daemon, out: &mut Output<'_>) -> Result<(), CommandError> {
    let (detail, filter) = options(call)?;
    let (mut cursor, mut rows) = (Some(Cursor::default()), Vec::new());
    while let Some(from) = cursor {
        rows.clear();
        cursor = daemon.engine.connections(&filter, from, &mut rows)?;
        for connection in &rows {
            if call.json {
                out.element(&Json::from(connection))?;
            } else {
                line(connection, detail, out)?;
            }
        }
    }
    if call.json { Ok(out.end_array()?) } else { Ok(()) }
}

/// `[-m] [-s] [DP] [zone=N]`, as dump and statistics take it.
fn options(call: &Call<'_>) -> Result<(Detail, ConnectionFilter), CommandError> {
    let mut detail = Detail::default();
    let mut rest = Vec::new();
    for arg in call.args {
        match arg.as_str() {
            "-m" | "--more" | "verbose" => detail.more = true,
            "-s" | "--statistics" => detail.times = true,
            option if option.starts_with('-') => {
                return Err(CommandError::Failed(format!("Unrecognized option {option}")));
            }
            other => rest.push(other),
        }
    }
    let rest = datapath::without_name(&rest);
    if let Some(other) = rest.iter().find(|arg| !arg.starts_with("zone=")) {
        return Err(datapath::not_found(other));
    }
    Ok((detail, selection(rest).map_err(|error| error.of_dpctl())?))
}

pub(super) fn flush(call: &Call<'_>, daemon: &Daemon, _: &mut Output<'_>) -> Result<(), CommandError> {
    let args: Vec<&str> = call.args.iter().map(String::as_str).collect();
    let filter = selection(datapath::without_name(&args)).map_err(|error| error.of_dpctl())?;
    daemon.engine.flush_connections(&filter)?;
    Ok(())
}

pub(super) fn ct_flush(call: &Call<'_>, daemon: &Daemon, _: &mut Output<'_>) -> Result<(), CommandError> {
    datapath::bridge(daemon, call.arg(0))?;
    let args: Vec<&str> = call.args.iter().skip(1).map(String::as_str).collect();
    daemon.engine.flush_connections(&selection(&args).map_err(|error| error.of_ofctl())?)?;
    Ok(())
}

pub(super) fn ct_flush_zone(
    call: &Call<'_>,
    daemon: &Daemon,
    _: &mut Output<'_>,
) -> Result<(), CommandError> {
    datapath::bridge(daemon, call.arg(0))?;
    let zone = number(call.arg(1))
        .ok_or_else(|| CommandError::Failed(format!("invalid zone_id \"{}\"", call.arg(1))))?;
    let filter = ConnectionFilter { zone: Some(zone), ..ConnectionFilter::default() };
    daemon.engine.flush_connections(&filter)?;
    Ok(())
}

/// Protocols that are counted by name, in Open vSwitch's order.
const PROTOCOLS: [&str; 5] = ["tcp", "udp", "sctp", "icmp", "icmpv6"];

#[derive(Serialize)]
struct Stats {
    total: u64,
    protocols: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    tcp_states: BTreeMap<&'static str, u64>,
}

pub(super) fn stats_show(call: &Call<'_>, daemon: &Daemon, out: &mut Output<'_>) -> Result<(), CommandError> {
    let (detail, filter) = options(call)?;
    let mut stats = Stats { total: 0, protocols: BTreeMap::new(), tcp_states: BTreeMap::new() };
    let (mut cursor, mut rows) = (Some(Cursor::default()), Vec::new());
    while let Some(from) = cursor {
        rows.clear();
        cursor = daemon.engine.connections(&filter, from, &mut rows)?;
        for connection in &rows {
            stats.total += 1;
            *stats.protocols.entry(connection.protocol_name()).or_default() += 1;
            if let (true, ProtocolState::Tcp { original, reply }) = (detail.more, connection.state) {
                *stats.tcp_states.entry(original.max(reply).summary()).or_default() += 1;
            }
        }
    }
    if call.json {
        return Ok(out.json(&stats)?);
    }
    out.line("Connections Stats:")?;
    out.line(format_args!("    Total: {}", stats.total))?;
    let mut others = stats.total;
    for protocol in PROTOCOLS {
        let Some(count) = stats.protocols.get(protocol) else { continue };
        others -= count;
        out.line(format_args!("\t{}: {count}", protocol.to_uppercase()))?;
        if protocol == "tcp" && !stats.tcp_states.is_empty() {
            out.line("\t  Conn per TCP states:")?;
            for (state, count) in &stats.tcp_states {
                out.line(format_args!("\t    [{state}]={count}"))?;
            }
        }
    }
    if others > 0 {
        out.line(format_args!("\tOther: {others}"))?;
    }
    Ok(())
}

pub(super) fn get_maxconns(
    call: &Call<'_>,
    daemon: &Daemon,
    out: &mut Output<'_>,
) -> Result<(), CommandError> {
    no_more(call)?;
    let limit = daemon.engine.connection_totals()?.limit;
    if call.json { Ok(out.json(&serde_json::json!({ "limit": limit }))?) } else { Ok(out.line(limit)?) }
}

pub(super) fn get_nconns(call: &Call<'_>, daemon: &Daemon, out: &mut Output<'_>) -> Result<(), CommandError> {
    no_more(call)?;
    let total = daemon.engine.connection_totals()?.total;
    if call.json { Ok(out.json(&serde_json::json!({ "total": total }))?) } else { Ok(out.line(total)?) }
}

pub(super) fn set_maxconns(
    call: &Call<'_>,
    daemon: &Daemon,
    out: &mut Output<'_>,
) -> Result<(), CommandError> {
    let args: Vec<&str> = call.args.iter().map(String::as_str).collect();
    let limit = match datapath::without_name(&args) {
        [limit] => number(limit),
        _ => None,
    };
    let limit = limit
        .ok_or_else(|| CommandError::Failed("maxconns missing or malformed (Invalid argument)".into()))?;
    daemon.engine.set_connection_limit(limit)?;
    Ok(out.line("setting maxconns successful")?)
}

/// The only argument there may be is the datapath's name.
fn no_more(call: &Call<'_>) -> Result<(), CommandError> {
    let args: Vec<&str> = call.args.iter().map(String::as_str).collect();
    match datapath::without_name(&args) {
        [] => Ok(()),
        [other, ..] => Err(datapath::not_found(other)),
    }
}
