//! `weir ct`: connections in weir's own way, aligned for people and as JSON for programs, page by page. What is read
//! is read in bounded slices between bursts; what a command holds is bounded however many connections there are.

mod columns;
pub(super) mod criteria;
mod sorted;
mod stats;

use weir_shard::ConnectionView;

use super::spec::command;
use super::tuples::Json;
use super::{Call, CommandError, CommandSpec, Daemon, events};
use crate::control::engine::{ConnectionFilter, Cursor};
use crate::control::output::Output;
use columns::{COLUMNS, Table};
use criteria::{criteria, pasted};
use sorted::{Order, Sorted};

/// Most connections that are sorted at once, and how many without `--limit`.
const MOST_SORTED: usize = 10_000;
const SORTED: usize = 100;

#[rustfmt::skip]
pub(super) const COMMANDS: &[CommandSpec] = &[
    command("list", "[--limit N] [--after CURSOR] [--sort KEY] [FILTER]...", (0, 64), list, "List the connections that FILTER chooses, all without one. With --limit N at most N; when there are more, CURSOR on standard error (in JSON: \"next\") says where --after goes on. With --sort KEY the N largest by KEY, 100 without --limit.").reading(),
    command("show", "FILTER...|'LINE'", (1, 64), show, "Show one connection in detail. FILTER has to choose exactly one; LINE is a line of a dump, as it was printed.").reading(),
    command("events", events::USAGE, (0, 64), events::stream, events::HELP).reading(),
    command("flush", "--all|FILTER...", (1, 64), flush, "Remove the connections that FILTER chooses, and say how many they were; --all removes every one.").reading(),
    command("stats", "[FILTER]...", (0, 64), stats::stats, "Count the connections that FILTER chooses by zone, protocol and state.").reading(),
    command("watch", "[stats|list] [--every SECONDS] [--count N] [--limit N] [FILTER]...", (0, 64), watch, "Repeat stats (or list, of at most 20 connections without --limit) every SECONDS, 2 without --every, and show what has changed; end after N times with --count. In JSON, one answer a line."),
];

/// What `weir ct --help` says below the commands.
pub(super) fn help() -> String {
    format!(
        "{}  Several may stand in one argument with commas between: protocol=tcp,dport=443.\n\n{}\n\
         Columns of list:\n{}\n\
         Examples:\n  \
           weir ct list address=10.1.1.7                      everything of one host, before or behind translation\n  \
           weir ct list --sort age --limit 20 protocol=tcp    the twenty oldest TCP connections\n  \
           weir ct flush zone=3 state=syn_sent                what zone 3 has half open\n  \
           weir ct stats --json                               for a program\n",
        criteria::help(),
        sorted::help(),
        COLUMNS
            .iter()
            .map(|column| format!("  {:<20}{}\n", column.title, column.meaning))
            .collect::<String>(),
    )
}

/// Options and filter of `list`.
#[derive(Debug, Default)]
struct Selection {
    limit: Option<usize>,
    after: Option<Cursor>,
    sort: Option<Order>,
    filter: ConnectionFilter,
}

fn failed(message: impl Into<String>) -> CommandError {
    CommandError::Failed(message.into())
}

/// Takes `--NAME VALUE` and `--NAME=VALUE` out of the words.
fn selection(call: &Call<'_>, options: &[&str]) -> Result<Selection, CommandError> {
    let mut selection = Selection::default();
    let mut words = Vec::new();
    let mut args = call.args.iter().map(String::as_str);
    while let Some(arg) = args.next() {
        if !arg.starts_with("--") {
            words.push(arg);
            continue;
        }
        let (name, value) = arg.split_once('=').map_or((arg, None), |(name, value)| (name, Some(value)));
        if !options.contains(&name) {
            return Err(failed(format!("unrecognised option {name}")));
        }
        let value =
            value.or_else(|| args.next()).ok_or_else(|| failed(format!("{name} needs a value behind it")))?;
        let bad = |what: &str| failed(format!("{name} {value}: {what}"));
        match name {
            "--limit" => {
                let limit = super::selection::number(value).filter(|&limit: &usize| limit > 0);
                selection.limit = Some(limit.ok_or_else(|| bad("not a number of connections"))?);
            }
            "--after" => {
                let cursor = parse_cursor(value);
                selection.after = Some(cursor.ok_or_else(|| bad("not where an earlier page ended"))?);
            }
            _ => selection.sort = Some(Order::named(value).ok_or_else(|| bad(&sorted::known()))?),
        }
    }
    selection.filter = criteria(&words)?;
    Ok(selection)
}

/// Where a page ended: lcore and slot.
fn cursor_text(cursor: Cursor) -> String {
    format!("{}:{}", cursor.shard, cursor.slot)
}

fn parse_cursor(text: &str) -> Option<Cursor> {
    let (shard, slot) = text.split_once(':')?;
    Some(Cursor { shard: super::selection::number(shard)?, slot: super::selection::number(slot)? })
}

/// Gives the connections to `each`, at most `limit` of them; where it would go on if there may be more.
fn visit(
    daemon: &Daemon,
    filter: &ConnectionFilter,
    from: Cursor,
    limit: usize,
    mut each: impl FnMut(&ConnectionView) -> Result<(), CommandError>,
) -> Result<Option<Cursor>, CommandError> {
    let (mut cursor, mut rows, mut left) = (Some(from), Vec::new(), limit);
    while let Some(from) = cursor
        && left > 0
    {
        rows.clear();
        cursor = daemon.engine.connection_page(filter, from, left, &mut rows)?;
        rows.iter().try_for_each(&mut each)?;
        left = left.saturating_sub(rows.len());
    }
    Ok(cursor)
}

fn list(call: &Call<'_>, daemon: &Daemon, out: &mut Output<'_>) -> Result<(), CommandError> {
    let Selection { limit, after, sort, filter } = selection(call, &["--limit", "--after", "--sort"])?;
    if let Some(order) = sort {
        if after.is_some() {
            return Err(failed("--sort looks at all connections: it cannot go on --after another page"));
        }
        let limit = limit.unwrap_or(SORTED);
        if limit > MOST_SORTED {
            return Err(failed(format!(
                "--limit {limit}: no more than {MOST_SORTED} connections are sorted"
            )));
        }
        let mut sorted = Sorted::new(order, limit);
        visit(daemon, &filter, Cursor::default(), usize::MAX, |connection| {
            sorted.offer(connection);
            Ok(())
        })?;
        let mut page = Page::new(call, out)?;
        sorted.into_rows().iter().try_for_each(|connection| page.add(connection, out))?;
        return page.end(None, out);
    }
    let mut page = Page::new(call, out)?;
    let next =
        visit(daemon, &filter, after.unwrap_or_default(), limit.unwrap_or(usize::MAX), |connection| {
            page.add(connection, out)
        })?;
    // What follows may be nothing that is wanted: a page never promises more than there is.
    let next = match next {
        Some(from) => first_of(daemon, &filter, from)?.map(|_| from),
        None => None,
    };
    page.end(next, out)
}

/// The first connection that matches from `from` on.
fn first_of(
    daemon: &Daemon,
    filter: &ConnectionFilter,
    from: Cursor,
) -> Result<Option<ConnectionView>, CommandError> {
    let mut first = None;
    visit(daemon, filter, from, 1, |connection| {
        first = Some(connection.clone());
        Ok(())
    })?;
    Ok(first)
}

/// A page of connections on its way out, as a table or as JSON.
struct Page {
    table: Table,
    json: bool,
}

impl Page {
    fn new(call: &Call<'_>, out: &mut Output<'_>) -> Result<Self, CommandError> {
        if call.json {
            out.text("{\"connections\":")?;
        }
        Ok(Self { table: Table::of_connections(), json: call.json })
    }

    fn add(&mut self, connection: &ConnectionView, out: &mut Output<'_>) -> Result<(), CommandError> {
        if self.json {
            return Ok(out.element(&Json::from(connection))?);
        }
        let cells = COLUMNS.iter().map(|column| (column.text)(connection)).collect();
        Ok(self.table.row(cells, out)?)
    }

    fn end(mut self, next: Option<Cursor>, out: &mut Output<'_>) -> Result<(), CommandError> {
        if self.json {
            out.close_array()?;
            let next = serde_json::json!(next.map(cursor_text));
            return Ok(out.line(format_args!(",\"next\":{next}}}"))?);
        }
        self.table.end(out)?;
        if let Some(next) = next {
            out.warn(format_args!("there are more; go on with --after {}", cursor_text(next)));
        }
        Ok(())
    }
}

fn show(call: &Call<'_>, daemon: &Daemon, out: &mut Output<'_>) -> Result<(), CommandError> {
    let filter = match call.args {
        [line] if line.contains(",orig=(") => {
            pasted(line).ok_or_else(|| failed("the line does not read as a dump's"))?
        }
        _ => selection(call, &[])?.filter,
    };
    let mut found = Vec::new();
    visit(daemon, &filter, Cursor::default(), 2, |connection| {
        found.push(connection.clone());
        Ok(())
    })?;
    match found.as_slice() {
        [] => Err(failed("there is no such connection")),
        [connection] if call.json => Ok(out.json(&Json::from(connection))?),
        [connection] => {
            for column in COLUMNS {
                out.line(format_args!("{:<38}  {}", column.meaning, (column.text)(connection)))?;
            }
            Ok(())
        }
        _ => Err(failed("several connections match; say more of the one (`weir ct list` shows them)")),
    }
}

fn flush(call: &Call<'_>, daemon: &Daemon, out: &mut Output<'_>) -> Result<(), CommandError> {
    let filter = match call.args {
        [all] if all == "--all" => ConnectionFilter::default(),
        _ => selection(call, &[])?.filter,
    };
    if filter == ConnectionFilter::default() && call.arg(0) != "--all" {
        return Err(failed("say which connections to remove, or --all"));
    }
    let removed = daemon.engine.flush_connections(&filter)?;
    if call.json {
        return Ok(out.json(&serde_json::json!({ "removed": removed }))?);
    }
    let plural = if removed == 1 { "" } else { "s" };
    Ok(out.line(format_args!("{removed} connection{plural} removed"))?)
}

/// The client repeats the other commands; nothing is kept for it here.
fn watch(_: &Call<'_>, _: &Daemon, _: &mut Output<'_>) -> Result<(), CommandError> {
    Err(failed("watch is the client's: it repeats stats or list"))
}

#[cfg(test)]
mod tests;
