//! The stream of connection events: a line, or a JSON object, for each, until it is interrupted or has shown enough.

use std::time::{Duration, Instant};

use serde::Serialize;
use weir_shard::{EventKind, Traffic};

use super::ct::criteria::criteria;
use super::tuples::Json;
use super::{Call, CommandError, Daemon};
use crate::control::events::{Record, TimedEvent};
use crate::control::output::{Disconnected, Output};
use crate::control::tracking::EventFilter;

pub(super) const USAGE: &str = "[--count N] [--seconds N] [new] [update] [destroy] [FILTER]...";
pub(super) const HELP: &str = "Show what happens to connections, or to those that match, as it happens: a line each, or with --json an object each.";

/// How often a client is looked after while nothing happens.
const TOUCH: Duration = Duration::from_millis(250);

/// What the arguments ask for.
struct Asked {
    filter: EventFilter,
    /// Events to show.
    count: u64,
    until: Option<Instant>,
}

pub(super) fn stream(call: &Call<'_>, daemon: &Daemon, out: &mut Output<'_>) -> Result<(), CommandError> {
    let Asked { filter, count, until } = asked(call)?;
    let subscription = daemon.engine.subscribe(filter)?;
    let mut left = count;
    while left > 0 {
        let patience =
            until.map_or(TOUCH, |until| TOUCH.min(until.saturating_duration_since(Instant::now())));
        let Some(records) = subscription.next(patience) else { break };
        for record in records.iter().take(usize::try_from(left).unwrap_or(usize::MAX)) {
            write(record, call.json, out)?;
            left -= 1;
        }
        out.stay_in_touch()?;
        if until.is_some_and(|until| Instant::now() >= until) {
            break;
        }
    }
    Ok(())
}

fn asked(call: &Call<'_>) -> Result<Asked, CommandError> {
    let failed = |message: String| CommandError::Failed(message);
    let mut asked = Asked { filter: EventFilter::default(), count: u64::MAX, until: None };
    let mut selection = Vec::new();
    let mut args = call.args.iter().map(String::as_str);
    while let Some(arg) = args.next() {
        let (option, given) =
            arg.split_once('=').map_or((arg, None), |(option, value)| (option, Some(value)));
        if !option.starts_with("--") {
            match ["new", "update", "destroy"].into_iter().find(|kind| *kind == arg) {
                Some(kind) => asked.filter.kinds.push(kind),
                None => selection.push(arg),
            }
            continue;
        }
        if !matches!(option, "--count" | "--seconds") {
            return Err(failed(format!(
                "Unrecognized option {option}; there are --count, --seconds and --json"
            )));
        }
        let value = given.or_else(|| args.next());
        let value = value.and_then(|value| value.parse::<u32>().ok()).filter(|value| *value > 0);
        let value = value.ok_or_else(|| failed(format!("{option} needs a number from 1 to {}", u32::MAX)))?;
        match option {
            "--count" => asked.count = value.into(),
            _ => asked.until = Instant::now().checked_add(Duration::from_secs(value.into())),
        }
    }
    asked.filter.connections = criteria(&selection)?;
    Ok(asked)
}

/// An event in JSON. Times are milliseconds since 1970.
#[derive(Serialize)]
struct JsonEvent<'a> {
    event: &'static str,
    time: u64,
    /// Of a destroy event.
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'static str>,
    /// Of an update.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    changed: Vec<&'static str>,
    connection: &'a Json,
}

#[derive(Serialize)]
struct JsonLost {
    event: &'static str,
    count: u64,
}

/// Writes a record as a line.
pub(crate) fn write(record: &Record, json: bool, out: &mut Output<'_>) -> Result<(), Disconnected> {
    let event = match record {
        Record::Lost(count) if json => return out.json(&JsonLost { event: "lost", count: *count }),
        Record::Lost(count) => return out.line(format_args!("lost {count} events")),
        Record::Event(event) => event,
    };
    let TimedEvent { event, time } = &**event;
    let (cause, changed) = match event.kind {
        EventKind::New => (None, Vec::new()),
        EventKind::Update(changes) => (None, changes.names().collect()),
        EventKind::Destroy(cause) => (Some(cause.name()), Vec::new()),
    };
    let connection = &event.connection;
    let kind = event.kind.name();
    if json {
        let connection = &Json::at(connection, *time);
        return out.json(&JsonEvent { event: kind, time: *time, cause, changed, connection });
    }
    let what = cause.map_or_else(|| changed.join("+"), str::to_owned);
    let bracket = if what.is_empty() { String::new() } else { format!("[{what}]") };
    out.text(format_args!("{}.{:03} {kind:<7} {bracket:<10} {connection}", time / 1000, time % 1000))?;
    if let Some(Traffic { original, reply, .. }) = connection.traffic {
        out.text(format_args!(
            " packets={}/{} bytes={}/{}",
            original.packets, reply.packets, original.bytes, reply.bytes
        ))?;
    }
    out.line(format_args!(" age={}.{:03}", connection.age / 1000, connection.age % 1000))
}
