//! Counts of connections by zone, protocol and state. What is held grows with the kinds there are, not with the
//! connections.

use std::collections::BTreeMap;

use serde::Serialize;
use weir_shard::Traffic;

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
    /// Of both directions, as far as they are counted.
    packets: u64,
    bytes: u64,
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
    let mut groups: BTreeMap<(u16, u8, &'static str), Group> = BTreeMap::new();
    visit(daemon, &filter, Cursor::default(), usize::MAX, |connection| {
        let (zone, state) = (connection.zone, state_name(connection));
        let group = groups.entry((zone, connection.original.protocol(), state)).or_insert_with(|| Group {
            zone,
            protocol: connection.protocol_name(),
            state,
            connections: 0,
            packets: 0,
            bytes: 0,
        });
        group.connections += 1;
        if let Some(Traffic { original, reply, .. }) = connection.traffic {
            group.packets = group.packets.saturating_add(original.packets).saturating_add(reply.packets);
            group.bytes = group.bytes.saturating_add(original.bytes).saturating_add(reply.bytes);
        }
        Ok(())
    })?;
    let groups: Vec<Group> = groups.into_values().collect();
    let total = groups.iter().map(|group| group.connections).sum();
    let stats = Stats { total, limit: daemon.engine.connection_totals()?.limit, groups };
    if call.json {
        return Ok(out.json(&stats)?);
    }
    let mut table = Table::new([
        ("ZONE", true),
        ("PROTOCOL", false),
        ("STATE", false),
        ("CONNECTIONS", true),
        ("PACKETS", true),
        ("BYTES", true),
    ]);
    for Group { zone, protocol, state, connections, packets, bytes } in stats.groups {
        let figures = [connections, packets, bytes].map(|figure| figure.to_string());
        let row = [zone.to_string(), protocol, state.to_owned()];
        table.row(row.into_iter().chain(figures).collect(), out)?;
    }
    table.end(out)?;
    Ok(out.line(format_args!("{total} connections; {} may be", stats.limit))?)
}
