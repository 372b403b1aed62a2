//! `weir show steering`: who owns what, how evenly, and who brings packets to their owners.

use super::{Call, CommandError, Daemon};
use crate::control::output::{Disconnected, Output};
use crate::control::steering::{PoolRow, PortRow, Share, SteeredBy, SteeringStatus};

pub(super) fn show(call: &Call<'_>, daemon: &Daemon, out: &mut Output<'_>) -> Result<(), CommandError> {
    let status = daemon.engine.steering()?;
    if call.json {
        return Ok(out.json(&status)?);
    }
    let SteeringStatus { scheme, table_size, evenness, shards, zones, ports, exchanged } = &status;
    out.line(format_args!("zones: {scheme}{}", if zones.is_empty() { "" } else { ", but for those below" }))?;
    out.line(format_args!("table: {table_size} entries, {}", share(*evenness)))?;
    let mut rows = vec![["shard", "cpu", "entries", "handed-over", "taken-over"].map(String::from).to_vec()];
    for row in shards {
        let numbers = [row.shard as u64, row.cpu.into(), row.entries as u64, row.handed_over, row.taken_over];
        rows.push(numbers.map(|number| number.to_string()).to_vec());
    }
    columns(&rows, "", out)?;
    for zone in zones {
        out.line(format_args!("\nzone {}: {}", zone.zone, zone.scheme))?;
        zone.pools.iter().try_for_each(|pool| show_pool(pool, out))?;
    }
    for row in ports {
        out.line("")?;
        show_port(row, out)?;
    }
    if !exchanged.is_empty() {
        out.line("\nbetween shards:")?;
        let mut rows =
            vec![["reason", "handed-over", "taken-over", "mailbox-full"].map(String::from).to_vec()];
        for row in exchanged {
            let numbers = [row.handed_over, row.taken_over, row.refused].map(|number| number.to_string());
            rows.push([vec![row.reason.to_owned()], numbers.to_vec()].concat());
        }
        columns(&rows, "  ", out)?;
    }
    Ok(())
}

/// What each shard has of a zone's public addresses.
fn show_pool(pool: &PoolRow, out: &mut Output<'_>) -> Result<(), Disconnected> {
    let addresses = pool.addresses;
    let how = if pool.ports.is_some() { "cut into port slices" } else { "whole" };
    let plural = if addresses == 1 { "" } else { "es" };
    let (family, even) = (pool.family, share(pool.evenness));
    out.line(format_args!("  {family} pool: {addresses} address{plural}, {how}, {even}"))?;
    let mut rows = vec![vec!["shard".to_owned(), "addresses".to_owned()]];
    rows[0].extend(pool.ports.is_some().then(|| "ports-of-each".to_owned()));
    for (shard, whole) in pool.whole.iter().enumerate() {
        let mut row = vec![shard.to_string(), whole.to_string()];
        row.extend(pool.ports.as_ref().and_then(|ports| ports.get(shard)).map(u32::to_string));
        rows.push(row);
    }
    columns(&rows, "    ", out)
}

fn show_port(row: &PortRow, out: &mut Output<'_>) -> Result<(), Disconnected> {
    let role = row.role.map(|role| format!(", role {}", role.name())).unwrap_or_default();
    let queues = if row.queues == 1 { "1 queue".to_owned() } else { format!("{} queues", row.queues) };
    out.line(format_args!("port {} ({}), {queues}{role}:", row.port, row.driver))?;
    let why = match (&row.why, row.steered_by) {
        (Some(why), _) => format!(": {why}"),
        (None, SteeredBy::Nobody) => ": there is one shard".to_owned(),
        (None, _) => String::new(),
    };
    out.line(format_args!("  steered by {}{why}", row.steered_by.name()))?;
    let card = &row.card;
    if card.hashes.is_empty() {
        out.line("  card: no hash")?;
    } else {
        let table = match card.table_size {
            0 => "no table".to_owned(),
            size => format!("table of {size}"),
        };
        let key = match card.key_size {
            0 => "key of unknown length".to_owned(),
            size => format!("key of {size} bytes"),
        };
        let passed = if card.hash_in_packet { "passed on" } else { "not passed on" };
        out.line(format_args!("  card: hash of {}, {passed}; {key}; {table}", card.hashes.join(" ")))?;
    }
    if let Some(seen) = &row.first_packets {
        out.line(format_args!(
            "  first packets: {} compared, hash matched {}, mismatched {}, absent {}; {} came elsewhere",
            seen.compared, seen.hash_matched, seen.hash_mismatched, seen.without_hash, seen.elsewhere
        ))?;
    }
    row.notes.iter().try_for_each(|note| out.line(format_args!("  note: {note}")))
}

/// Parts in hundredths of an equal one.
fn share(share: Share) -> String {
    format!("{} to {} % of an equal part", share.least, share.most)
}

/// Cells in columns, as wide as their widest.
fn columns(rows: &[Vec<String>], indent: &str, out: &mut Output<'_>) -> Result<(), Disconnected> {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..count)
        .map(|at| rows.iter().filter_map(|row| row.get(at)).map(String::len).max().unwrap_or(0))
        .collect();
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        out.line(format_args!("{indent}{}", cells.join("  ").trim_end()))?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "steering_tests.rs"]
mod tests;
