//! Groups: changing them, all or nothing, and showing them as ovs-ofctl does.

use std::sync::atomic::Ordering;

use serde::Serialize;

use super::{Call, CommandError, Daemon, datapath};
use crate::control::engine::GroupRow;
use crate::control::output::Output;
use crate::flow::groups::GroupEntry;
use crate::flow::lexer::Span;
use crate::flow::{
    GroupCommand, GroupFile, GroupMod, GroupType, NoNames, PortNames, RuleStats, Selection, print, render,
};

pub(super) fn add_group(call: &Call<'_>, daemon: &Daemon, out: &mut Output<'_>) -> Result<(), CommandError> {
    change(call, daemon, out, GroupCommand::Add)
}

pub(super) fn add_groups(call: &Call<'_>, daemon: &Daemon, out: &mut Output<'_>) -> Result<(), CommandError> {
    change_by_file(call, daemon, out, GroupCommand::Add)
}

pub(super) fn mod_group(call: &Call<'_>, daemon: &Daemon, out: &mut Output<'_>) -> Result<(), CommandError> {
    let command = if call.options.may_create { GroupCommand::AddOrModify } else { GroupCommand::Modify };
    change(call, daemon, out, command)
}

pub(super) fn del_groups(call: &Call<'_>, daemon: &Daemon, out: &mut Output<'_>) -> Result<(), CommandError> {
    change(call, daemon, out, GroupCommand::Delete)
}

pub(super) fn insert_buckets(
    call: &Call<'_>,
    daemon: &Daemon,
    out: &mut Output<'_>,
) -> Result<(), CommandError> {
    change(call, daemon, out, GroupCommand::InsertBuckets)
}

pub(super) fn remove_buckets(
    call: &Call<'_>,
    daemon: &Daemon,
    out: &mut Output<'_>,
) -> Result<(), CommandError> {
    change(call, daemon, out, GroupCommand::RemoveBuckets)
}

/// Where a group of the command line is said to stand.
const COMMAND_LINE: &str = "group";

/// Changes what the group of the command line says, or those that standard input holds.
fn change(
    call: &Call<'_>,
    daemon: &Daemon,
    out: &mut Output<'_>,
    command: GroupCommand,
) -> Result<(), CommandError> {
    let text = call.arg(1);
    if text == "-" {
        return change_by_file(call, daemon, out, command);
    }
    let bridge = datapath::bridge(daemon, call.arg(0))?;
    let shown = |span: &Span, message: &str| render(COMMAND_LINE, 1, text, span, message);
    let parsed = GroupMod::parse(text, command, &bridge)
        .map_err(|error| CommandError::Failed(shown(&error.span, &error.to_string())))?;
    parsed.warnings.iter().for_each(|(span, warning)| out.warn(shown(span, warning)));
    daemon.engine.change_groups(call.arg(0), vec![parsed.change])?;
    Ok(())
}

fn change_by_file(
    call: &Call<'_>,
    daemon: &Daemon,
    out: &mut Output<'_>,
    command: GroupCommand,
) -> Result<(), CommandError> {
    let bridge = datapath::bridge(daemon, call.arg(0))?;
    let file = GroupFile::parse(call.arg(1), call.file(1)?.as_bytes(), command, &bridge)
        .map_err(|error| CommandError::Failed(error.to_string()))?;
    file.warnings.iter().for_each(|warning| out.warn(warning));
    daemon.engine.change_groups(call.arg(0), file.changes)?;
    Ok(())
}

/// The groups that are asked for: all, or the one with a number, which `group_id=` may stand in front of.
fn query(call: &Call<'_>, daemon: &Daemon) -> Result<Vec<GroupRow>, CommandError> {
    let mut rows = daemon.engine.groups(call.arg(0))?;
    let wanted = call.arg(1).trim_start_matches("group_id=");
    if !wanted.is_empty() && !wanted.eq_ignore_ascii_case("all") {
        let id: u32 = wanted.parse().map_err(|_| {
            CommandError::Failed(format!("{wanted} is not a valid group ID; give a number, or ALL"))
        })?;
        rows.retain(|row| row.entry.group.id == id);
    }
    Ok(rows)
}

/// A group in JSON.
#[derive(Serialize)]
struct Shown {
    group_id: u32,
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    selection_method: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    selection_method_param: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    fields: Vec<&'static str>,
    buckets: Vec<ShownBucket>,
}

#[derive(Serialize)]
struct ShownBucket {
    bucket_id: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    weight: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    watch_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    watch_group: Option<u32>,
    actions: String,
}

impl Shown {
    fn new(entry: &GroupEntry, ports: &dyn PortNames) -> Self {
        let group = &entry.group;
        let (method, param, fields) = match &group.selection {
            Selection::Default => (None, None, &[][..]),
            Selection::DpHash { param } => (Some("dp_hash"), Some(*param), &[][..]),
            Selection::Hash { param, fields } => (Some("hash"), Some(*param), fields.as_slice()),
        };
        let buckets = group.buckets.iter().map(|bucket| ShownBucket {
            bucket_id: bucket.id.unwrap_or_default(),
            weight: (group.kind == GroupType::Select).then_some(bucket.weight),
            watch_port: bucket.watch_port,
            watch_group: bucket.watch_group,
            actions: print::actions(&bucket.actions, ports),
        });
        Self {
            group_id: group.id,
            r#type: group.kind.name(),
            selection_method: method,
            selection_method_param: param,
            fields: fields.iter().map(|(field, _)| field.name).collect(),
            buckets: buckets.collect(),
        }
    }
}

pub(super) fn dump_groups(
    call: &Call<'_>,
    daemon: &Daemon,
    out: &mut Output<'_>,
) -> Result<(), CommandError> {
    let rows = query(call, daemon)?;
    let bridge = datapath::bridge(daemon, call.arg(0))?;
    let ports: &dyn PortNames = if call.options.names { &bridge } else { &NoNames };
    if !call.json {
        out.line("NXST_GROUP_DESC reply (xid=0x2):")?;
    }
    for GroupRow { entry, .. } in &rows {
        if call.json {
            out.element(&Shown::new(entry, ports))?;
        } else {
            out.line(entry.dump_line(ports))?;
        }
    }
    if call.json { Ok(out.end_array()?) } else { Ok(()) }
}

#[derive(Serialize)]
struct Statistics {
    group_id: u32,
    duration_ms: u64,
    ref_count: usize,
    packet_count: u64,
    byte_count: u64,
    buckets: Vec<BucketStatistics>,
}

#[derive(Serialize)]
struct BucketStatistics {
    packet_count: u64,
    byte_count: u64,
}

fn counts(stats: &RuleStats) -> (u64, u64) {
    (stats.packets.load(Ordering::Relaxed), stats.bytes.load(Ordering::Relaxed))
}

pub(super) fn dump_group_stats(
    call: &Call<'_>,
    daemon: &Daemon,
    out: &mut Output<'_>,
) -> Result<(), CommandError> {
    let rows = query(call, daemon)?;
    let now_ms = daemon.engine.now_ms();
    if !call.json {
        out.line("NXST_GROUP reply (xid=0x6):")?;
    }
    for GroupRow { entry, flows } in &rows {
        let (packet_count, byte_count) = counts(&entry.stats);
        let buckets = entry.bucket_stats.iter().map(|stats| counts(stats));
        let duration_ms = now_ms.saturating_sub(entry.created_ms);
        let (group_id, ref_count) = (entry.group.id, *flows);
        if call.json {
            let buckets = buckets
                .map(|(packet_count, byte_count)| BucketStatistics { packet_count, byte_count })
                .collect();
            out.element(&Statistics { group_id, duration_ms, ref_count, packet_count, byte_count, buckets })?;
            continue;
        }
        let (seconds, rest) = (duration_ms / 1000, duration_ms % 1000);
        let buckets: String = buckets
            .enumerate()
            .map(|(index, (packets, bytes))| {
                format!(",bucket{index}:packet_count={packets},byte_count={bytes}")
            })
            .collect();
        out.line(format_args!(
            " group_id={group_id},duration={seconds}.{rest:03}s,ref_count={ref_count},packet_count={packet_count},\
             byte_count={byte_count}{buckets}"
        ))?;
    }
    if call.json { Ok(out.end_array()?) } else { Ok(()) }
}

/// What each type of group can do, in `OpenFlow`'s words.
#[derive(Serialize)]
struct Features {
    types: Vec<&'static str>,
    max_groups: usize,
    max_buckets: usize,
    actions: &'static str,
}

pub(super) fn dump_group_features(
    call: &Call<'_>,
    daemon: &Daemon,
    out: &mut Output<'_>,
) -> Result<(), CommandError> {
    const ACTIONS: &str = "output group set_field strip_vlan push_vlan mod_nw_ttl dec_ttl set_queue";
    datapath::bridge(daemon, call.arg(0))?;
    let features = Features {
        types: vec!["all", "select", "indirect", "fast failover"],
        max_groups: crate::flow::groups::MAX_GROUPS,
        max_buckets: crate::flow::group::MAX_BUCKETS,
        actions: ACTIONS,
    };
    if call.json {
        return Ok(out.json(&features)?);
    }
    // Capabilities: weights, liveness, chaining (OpenFlow 1.3 section 7.3.5.11).
    out.line("NXST_GROUP_FEATURES reply (xid=0x2):")?;
    out.line(" Group table:\n    Types:  0xf\n    Capabilities:  0x7")?;
    for kind in features.types {
        out.line(format_args!("    {kind} group:"))?;
        out.line(format_args!("       max_groups={:#x}", features.max_groups))?;
        out.line(format_args!("       actions: {ACTIONS}"))?;
    }
    Ok(())
}
