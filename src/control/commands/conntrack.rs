//! Connections: dumps, counts, limits and flushes.

use std::collections::BTreeMap;

use serde::Serialize;
use weir_shard::{ProtocolState, TcpState};

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
    // In Open vSwitch's order; what has no name there is one figure.
    let named = ["tcp", "udp", "sctp", "icmp", "icmpv6"];
    for protocol in named {
        let Some(count) = stats.protocols.get(protocol) else { continue };
        out.line(format_args!("  {}: {count}", protocol.to_uppercase()))?;
        if protocol == "tcp" && !stats.tcp_states.is_empty() {
            out.line("    Conn per TCP states:")?;
            // In the order of a connection's life.
            let life = TcpState::ALL.into_iter().map(TcpState::summary);
            for (state, count) in life.filter_map(|state| stats.tcp_states.remove_entry(state)) {
                out.line(format_args!("\t  [{state}]={count}"))?;
            }
        }
    }
    let others = stats.protocols.iter().filter(|(name, _)| !named.contains(&name.as_str()));
    let others: u64 = others.map(|(_, count)| count).sum();
    if others != 0 {
        out.line(format_args!("  Other: {others}"))?;
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
        [other, ..] => return Err(datapath::not_found(other)),
        [] => None,
    };
    let limit = limit
        .ok_or_else(|| CommandError::Failed("maxconns missing or malformed (Invalid argument)".into()))?;
    daemon.engine.set_connection_limit(limit)?;
    Ok(out.line("setting maxconns successful")?)
}

/// Buckets in a row of `ct-bkts`.
const ROW: usize = 8;

/// `[DP] [gt=N]`: how full the index's buckets are. A bucket has room for eight entries, and a connection has one for
/// each direction. Rows without a bucket to show are left out: there are as many as a third of the capacity.
pub(super) fn buckets(call: &Call<'_>, daemon: &Daemon, out: &mut Output<'_>) -> Result<(), CommandError> {
    let args: Vec<&str> = call.args.iter().map(String::as_str).collect();
    let above: u8 = match datapath::without_name(&args) {
        [] => 0,
        [arg] => match arg.strip_prefix("gt=") {
            Some(value) => {
                let above: u64 = number(value)
                    .ok_or_else(|| CommandError::Failed("gt= needs a number (Invalid argument)".into()))?;
                u8::try_from(above).unwrap_or(u8::MAX)
            }
            None => return Err(datapath::not_found(arg)),
        },
        [_, other, ..] => return Err(datapath::not_found(other)),
    };
    let (total, connections) = (daemon.engine.index_buckets()?, daemon.engine.connection_totals()?.total);
    let mut histogram = [0_u64; ROW + 1];
    let (mut cursor, mut entries, mut first, mut begun) =
        (Some(Cursor::default()), Vec::new(), 0_usize, false);
    if !call.json {
        out.line(format_args!("Total Buckets: {total}"))?;
        out.line(format_args!("Current Connections: {connections}\n"))?;
    }
    while let Some(from) = cursor {
        cursor = daemon.engine.index_occupancy(from, &mut entries)?;
        // What does not fill a row waits for the next batch.
        let whole = if cursor.is_some() { entries.len() / ROW * ROW } else { entries.len() };
        for row in entries.drain(..whole).collect::<Vec<u8>>().chunks(ROW) {
            row.iter().for_each(|&count| {
                if let Some(place) = histogram.get_mut(usize::from(count)) {
                    *place += 1;
                }
            });
            let at = first;
            first += ROW;
            if call.json || row.iter().all(|&count| count <= above) {
                continue;
            }
            if !begun {
                begun = true;
                out.line("+-----------+-----------------------------------------+")?;
                out.line("|  Buckets  |         Connections per Buckets         |")?;
                out.line("+-----------+-----------------------------------------+")?;
            }
            let cells: String = row
                .iter()
                .map(|&count| if count > above { format!(" {count:>5}") } else { format!(" {:>5}", ".") })
                .collect();
            out.line(format_args!(" {at:>3}..{:>3}   |{cells}", at + ROW - 1))?;
        }
    }
    if call.json {
        let histogram: BTreeMap<String, u64> = (0..)
            .zip(histogram)
            .map(|(entries, buckets): (u32, u64)| (entries.to_string(), buckets))
            .collect();
        return Ok(out.json(&serde_json::json!({
            "buckets": total,
            "connections": connections,
            "buckets_by_entries": histogram,
        }))?);
    }
    if begun { Ok(out.line("")?) } else { Ok(()) }
}

/// The only argument there may be is the datapath's name.
fn no_more(call: &Call<'_>) -> Result<(), CommandError> {
    let args: Vec<&str> = call.args.iter().map(String::as_str).collect();
    match datapath::without_name(&args) {
        [] => Ok(()),
        [other, ..] => Err(datapath::not_found(other)),
    }
}
