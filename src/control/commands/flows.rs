//! Flow tables: changing them, all or nothing, and showing them as ovs-ofctl does.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::Serialize;

use super::{Call, CommandError, Daemon, datapath};
use crate::control::output::Output;
use crate::flow::flow::DEFAULT_PRIORITY;
use crate::flow::table::sort;
use crate::flow::{Command, Error, Field, FlowFile, FlowMod, NoNames, PortNames, Rule, print, render};

pub(super) fn add_flow(call: &Call<'_>, daemon: &Daemon, out: &mut Output<'_>) -> Result<(), CommandError> {
    change(call, daemon, out, Command::Add)
}

pub(super) fn add_flows(call: &Call<'_>, daemon: &Daemon, out: &mut Output<'_>) -> Result<(), CommandError> {
    change_by_file(call, daemon, out, Command::Add)
}

pub(super) fn mod_flows(call: &Call<'_>, daemon: &Daemon, out: &mut Output<'_>) -> Result<(), CommandError> {
    change(call, daemon, out, if call.options.strict { Command::ModifyStrict } else { Command::Modify })
}

pub(super) fn del_flows(call: &Call<'_>, daemon: &Daemon, out: &mut Output<'_>) -> Result<(), CommandError> {
    change(call, daemon, out, if call.options.strict { Command::DeleteStrict } else { Command::Delete })
}

pub(super) fn replace_flows(
    call: &Call<'_>,
    daemon: &Daemon,
    out: &mut Output<'_>,
) -> Result<(), CommandError> {
    let bridge = datapath::bridge(daemon, call.arg(0))?;
    let file = file(call, 1, Command::Add, &bridge, out)?;
    if let Some((_, line)) = file.flows.iter().zip(&file.lines).find(|(flow, _)| flow.command != Command::Add)
    {
        return Err(CommandError::Failed(format!(
            "{}:{line}: replace-flows takes the flows there shall be, none to modify or delete",
            call.arg(1)
        )));
    }
    daemon.engine.replace_flows(call.arg(0), file.flows, call.options.readd)?;
    Ok(())
}

/// Changes what the flow of the command line says, or those that standard input holds.
fn change(
    call: &Call<'_>,
    daemon: &Daemon,
    out: &mut Output<'_>,
    command: Command,
) -> Result<(), CommandError> {
    if call.arg(1) == "-" {
        return change_by_file(call, daemon, out, command);
    }
    let bridge = datapath::bridge(daemon, call.arg(0))?;
    let flow = one(call.arg(1), command, &bridge, out)?;
    daemon.engine.change_flows(call.arg(0), vec![flow])?;
    Ok(())
}

fn change_by_file(
    call: &Call<'_>,
    daemon: &Daemon,
    out: &mut Output<'_>,
    command: Command,
) -> Result<(), CommandError> {
    let bridge = datapath::bridge(daemon, call.arg(0))?;
    let file = file(call, 1, command, &bridge, out)?;
    daemon.engine.change_flows(call.arg(0), file.flows)?;
    Ok(())
}

/// Where a flow of the command line is said to stand.
const COMMAND_LINE: &str = "flow";

fn one(
    text: &str,
    command: Command,
    ports: &dyn PortNames,
    out: &mut Output<'_>,
) -> Result<FlowMod, CommandError> {
    let parsed = FlowMod::parse(text, command, ports).map_err(|error: Error| {
        CommandError::Failed(render(COMMAND_LINE, 1, text, &error.span, &error.to_string()))
    })?;
    for warning in &parsed.warnings {
        out.warn(render(COMMAND_LINE, 1, text, &warning.span, &warning.to_string()));
    }
    Ok(parsed.flow)
}

fn file(
    call: &Call<'_>,
    argument: usize,
    command: Command,
    ports: &dyn PortNames,
    out: &mut Output<'_>,
) -> Result<FlowFile, CommandError> {
    let file = FlowFile::parse(call.arg(argument), call.file(argument)?.as_bytes(), command, ports)
        .map_err(|error| CommandError::Failed(error.to_string()))?;
    file.warnings.iter().for_each(|warning| out.warn(warning));
    Ok(file)
}

/// The flows that are asked for, in the order that is asked for.
fn query(call: &Call<'_>, daemon: &Daemon, out: &mut Output<'_>) -> Result<Vec<Arc<Rule>>, CommandError> {
    let bridge = datapath::bridge(daemon, call.arg(0))?;
    let filter = match call.arg(1) {
        "" => FlowMod::new(Command::Dump),
        text => one(text, Command::Dump, &bridge, out)?,
    };
    let keys: Vec<_> = call
        .options
        .sort
        .iter()
        .map(|key| match key.field.as_str() {
            "priority" => Ok((None, key.descending)),
            name => Field::named(name)
                .map(|field| (Some(field), key.descending))
                .ok_or_else(|| CommandError::Failed(format!("{name}: unknown field name"))),
        })
        .collect::<Result<_, _>>()?;
    let mut rules = daemon.engine.flows(call.arg(0), &filter)?;
    // Each sort leaves equal flows as they are, so the most significant key comes last.
    for (field, descending) in keys.into_iter().rev() {
        sort(&mut rules, field, descending);
    }
    Ok(rules)
}

/// A flow in JSON.
#[derive(Serialize)]
struct Flow {
    cookie: u64,
    duration_ms: u64,
    table: u8,
    n_packets: u64,
    n_bytes: u64,
    idle_timeout: u16,
    hard_timeout: u16,
    importance: u16,
    priority: u16,
    r#match: String,
    actions: String,
}

impl Flow {
    fn new(rule: &Rule, now_ms: u64, ports: &dyn PortNames) -> Self {
        Self {
            cookie: rule.cookie,
            duration_ms: now_ms.saturating_sub(rule.created_ms),
            table: rule.table,
            n_packets: rule.stats.packets.load(Ordering::Relaxed),
            n_bytes: rule.stats.bytes.load(Ordering::Relaxed),
            idle_timeout: rule.idle_timeout,
            hard_timeout: rule.hard_timeout,
            importance: rule.importance,
            priority: rule.priority,
            // The default priority is the one that is not printed.
            r#match: print::matching(&rule.matching, DEFAULT_PRIORITY, ports),
            actions: print::actions(&rule.actions, ports),
        }
    }
}

pub(super) fn dump_flows(call: &Call<'_>, daemon: &Daemon, out: &mut Output<'_>) -> Result<(), CommandError> {
    let rules = query(call, daemon, out)?;
    let bridge = datapath::bridge(daemon, call.arg(0))?;
    let options = call.options;
    let ports: &dyn PortNames = if options.names { &bridge } else { &NoNames };
    let now_ms = daemon.engine.now_ms();
    // ovs-ofctl prints the message's header too, unless it orders or trims the flows itself.
    if !call.json && !options.no_stats && !options.names && options.sort.is_empty() {
        out.line("NXST_FLOW reply (xid=0x4):")?;
    }
    for rule in &rules {
        if call.json {
            out.element(&Flow::new(rule, now_ms, ports))?;
        } else {
            out.line(rule.dump_line((!options.no_stats).then_some(now_ms), ports))?;
        }
    }
    if call.json { Ok(out.end_array()?) } else { Ok(()) }
}

pub(super) fn parse_flow(call: &Call<'_>, out: &mut Output<'_>) -> Result<(), CommandError> {
    if call.arg(0) == "-" {
        return parse_flows(call, out);
    }
    let flow = one(call.arg(0), Command::Add, &NoNames, out)?;
    show_parsed(call, std::slice::from_ref(&flow), out)
}

pub(super) fn parse_flows(call: &Call<'_>, out: &mut Output<'_>) -> Result<(), CommandError> {
    let file = file(call, 0, Command::Add, &NoNames, out)?;
    show_parsed(call, &file.flows, out)
}

/// Flows as they were understood, in a form that can be read again.
fn show_parsed(call: &Call<'_>, flows: &[FlowMod], out: &mut Output<'_>) -> Result<(), CommandError> {
    for flow in flows {
        let (command, text) = (print::command(flow.command), print::flow(flow, &NoNames));
        if call.json {
            out.element(&serde_json::json!({ "command": command, "flow": text }))?;
        } else {
            out.line(format_args!("{command} {text}"))?;
        }
    }
    if call.json { Ok(out.end_array()?) } else { Ok(()) }
}

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
    let flows = query(call, daemon, out)?;
    let sum_of =
        |count: fn(&Rule) -> u64| flows.iter().fold(0_u64, |sum, rule| sum.saturating_add(count(rule)));
    let sum = Aggregate {
        packet_count: sum_of(|rule| rule.stats.packets.load(Ordering::Relaxed)),
        byte_count: sum_of(|rule| rule.stats.bytes.load(Ordering::Relaxed)),
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
