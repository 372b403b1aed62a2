//! Counts of connections by zone, protocol and state. What is held grows with the kinds there are, not with the
//! connections.

use std::collections::BTreeMap;

use serde::Serialize;

use super::columns::Table;
use super::{Call, CommandError, Daemon, Output, selection, visit};
use crate::control::engine::Cursor;
use crate::control::filter::state_name;

#[derive(Serialize)]
struct Group {
    zone: u16,
    protocol: String,
    state: &'static str,
    connections: u64,
}

#[derive(Serialize)]
struct Stats {
    total: u64,
    /// How many may be.
    limit: u32,
    groups: Vec<Group>,
}

pub(super) fn stats(call: &Call<'_>, daemon: &Daemon, out: &mut Output<'_>) -> Result<(), CommandError> {
    let filter = selection(call, &[])?.filter;
    let mut counts: BTreeMap<(u16, u8, &'static str), (String, u64)> = BTreeMap::new();
    visit(daemon, &filter, Cursor::default(), usize::MAX, |connection| {
        let kind = (connection.zone, connection.original.protocol(), state_name(connection));
        counts.entry(kind).or_insert_with(|| (connection.protocol_name(), 0)).1 += 1;
        Ok(())
    })?;
    let groups: Vec<Group> = counts
        .into_iter()
        .map(|((zone, _, state), (protocol, connections))| Group { zone, protocol, state, connections })
        .collect();
    let total = groups.iter().map(|group| group.connections).sum();
    let stats = Stats { total, limit: daemon.engine.connection_totals()?.limit, groups };
    if call.json {
        return Ok(out.json(&stats)?);
    }
    let mut table =
        Table::new([("ZONE", true), ("PROTOCOL", false), ("STATE", false), ("CONNECTIONS", true)]);
    for Group { zone, protocol, state, connections } in stats.groups {
        table.row(vec![zone.to_string(), protocol, state.to_owned(), connections.to_string()], out)?;
    }
    table.end(out)?;
    Ok(out.line(format_args!("{total} connections; {} may be", stats.limit))?)
}
