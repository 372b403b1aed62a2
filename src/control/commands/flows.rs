//! Flow tables: changing them, all or nothing, and showing them as ovs-ofctl does.

use serde::Serialize;

use super::{Call, CommandError, Daemon};
use crate::control::engine::{Flow, FlowEdit, FlowQuery, FlowVerb};
use crate::control::output::Output;

pub(super) fn add_flow(call: &Call<'_>, daemon: &Daemon, _: &mut Output<'_>) -> Result<(), CommandError> {
    edit_one(call, daemon, FlowVerb::Add)
}

pub(super) fn mod_flows(call: &Call<'_>, daemon: &Daemon, _: &mut Output<'_>) -> Result<(), CommandError> {
    edit_one(call, daemon, FlowVerb::Modify)
}

pub(super) fn del_flows(call: &Call<'_>, daemon: &Daemon, _: &mut Output<'_>) -> Result<(), CommandError> {
    edit_one(call, daemon, FlowVerb::Delete)
}

pub(super) fn add_flows(call: &Call<'_>, daemon: &Daemon, _: &mut Output<'_>) -> Result<(), CommandError> {
    edit_file(call, daemon, FlowVerb::Add)
}

pub(super) fn replace_flows(
    call: &Call<'_>,
    daemon: &Daemon,
    _: &mut Output<'_>,
) -> Result<(), CommandError> {
    edit_file(call, daemon, FlowVerb::Replace { readd: call.options.readd })
}

fn edit_one(call: &Call<'_>, daemon: &Daemon, verb: FlowVerb) -> Result<(), CommandError> {
    if call.arg(1) == "-" {
        return edit_file(call, daemon, verb);
    }
    let edit = FlowEdit { verb, strict: call.options.strict, text: call.arg(1), file: None };
    Ok(daemon.engine.edit_flows(call.arg(0), &edit)?)
}

fn edit_file(call: &Call<'_>, daemon: &Daemon, verb: FlowVerb) -> Result<(), CommandError> {
    let edit = FlowEdit { verb, strict: call.options.strict, text: call.file(1)?, file: Some(call.arg(1)) };
    Ok(daemon.engine.edit_flows(call.arg(0), &edit)?)
}

fn query(call: &Call<'_>, daemon: &Daemon) -> Result<Vec<Flow>, CommandError> {
    let query = FlowQuery {
        text: call.arg(1).to_owned(),
        strict: call.options.strict,
        names: call.options.names,
        sort: call.options.sort.clone(),
    };
    Ok(daemon.engine.flows(call.arg(0), &query)?)
}

pub(super) fn dump_flows(call: &Call<'_>, daemon: &Daemon, out: &mut Output<'_>) -> Result<(), CommandError> {
    let flows = query(call, daemon)?;
    if call.json {
        for flow in &flows {
            out.element(flow)?;
        }
        return Ok(out.end_array()?);
    }
    // ovs-ofctl prints the message's header too, unless it orders or trims the flows itself.
    let options = call.options;
    if !options.no_stats && !options.names && options.sort.is_empty() {
        out.line("NXST_FLOW reply (xid=0x4):")?;
    }
    for flow in &flows {
        out.line(line(flow, options.no_stats))?;
    }
    Ok(())
}

/// A flow as ovs-ofctl writes it; without statistics, what is the default is left out.
fn line(flow: &Flow, bare: bool) -> String {
    let mut text = String::from(" ");
    let mut add = |part: String| {
        text.push_str(&part);
        text.push_str(", ");
    };
    if !bare || flow.cookie != 0 {
        add(format!("cookie={:#x}", flow.cookie));
    }
    if !bare {
        add(format!("duration={:.3}s", flow.duration));
    }
    if !bare || flow.table != 0 {
        add(format!("table={}", flow.table));
    }
    if !bare {
        add(format!("n_packets={}, n_bytes={}", flow.packets, flow.bytes));
    }
    if flow.idle_timeout != 0 {
        add(format!("idle_timeout={}", flow.idle_timeout));
    }
    if flow.hard_timeout != 0 {
        add(format!("hard_timeout={}", flow.hard_timeout));
    }
    if !bare {
        add(format!("idle_age={}", flow.idle_age));
    }
    let priority = (flow.priority != DEFAULT_PRIORITY).then(|| format!("priority={}", flow.priority));
    let matching = (!flow.matching.is_empty()).then(|| flow.matching.clone());
    let key: Vec<String> = priority.into_iter().chain(matching).collect();
    text.push_str(&key.join(","));
    if !key.is_empty() {
        text.push(' ');
    }
    text.push_str("actions=");
    text.push_str(&flow.actions);
    text
}

/// What a flow has that gives no priority.
const DEFAULT_PRIORITY: u16 = 32_768;

#[derive(Serialize)]
struct Aggregate {
    packet_count: u64,
    byte_count: u64,
    flow_count: usize,
}

pub(super) fn dump_aggregate(
    call: &Call<'_>,
    daemon: &Daemon,
    out: &mut Output<'_>,
) -> Result<(), CommandError> {
    let flows = query(call, daemon)?;
    let sum = Aggregate {
        packet_count: flows.iter().fold(0, |sum, flow| sum.saturating_add(flow.packets)),
        byte_count: flows.iter().fold(0, |sum, flow| sum.saturating_add(flow.bytes)),
        flow_count: flows.len(),
    };
    if call.json {
        return Ok(out.json(&sum)?);
    }
    let Aggregate { packet_count, byte_count, flow_count } = sum;
    Ok(out.line(format_args!(
        "NXST_AGGREGATE reply (xid=0x4): packet_count={packet_count} byte_count={byte_count} flow_count={flow_count}"
    ))?)
}

pub(super) fn dump_tables(
    call: &Call<'_>,
    daemon: &Daemon,
    out: &mut Output<'_>,
) -> Result<(), CommandError> {
    let tables = daemon.engine.tables(call.arg(0))?;
    if call.json {
        return Ok(out.json(&tables)?);
    }
    out.line("OFPST_TABLE reply (xid=0x2):")?;
    for table in &tables {
        out.line(format_args!("  table {}:", table.id))?;
        out.line(format_args!(
            "    active={}, lookup={}, matched={}",
            table.active, table.lookup, table.matched
        ))?;
    }
    Ok(())
}
