//! Data connections that helpers expect: `dpctl/dump-conntrack-exp`.

use serde::Serialize;
use weir_shard::ExpectationView;

use super::selection::number;
use super::tuples::JsonDirection;
use super::{Call, CommandError, Daemon, datapath};
use crate::control::engine::Cursor;
use crate::control::output::Output;

/// An expectation in JSON. Labels are text, for JSON's numbers end at 2^53.
#[derive(Serialize)]
struct Json {
    protocol: String,
    /// Port 0 stands for any.
    orig: JsonDirection,
    /// Where it will be sent.
    target: Target,
    parent: JsonDirection,
    zone: u16,
    mark: u32,
    labels: String,
    /// Seconds until it is given up.
    timeout: u64,
    helper: &'static str,
}

#[derive(Serialize)]
struct Target {
    dst: std::net::IpAddr,
    dport: u16,
}

impl From<&ExpectationView> for Json {
    fn from(view: &ExpectationView) -> Self {
        let (dst, dport) = view.target;
        Self {
            protocol: view.protocol_name(),
            orig: JsonDirection::new(&view.original, None),
            target: Target { dst, dport },
            parent: JsonDirection::new(&view.parent, None),
            zone: view.zone,
            mark: view.mark,
            labels: format!("{:#x}", view.label),
            timeout: view.remaining / 1000,
            helper: view.helper.name(),
        }
    }
}

pub(super) fn dump(call: &Call<'_>, daemon: &Daemon, out: &mut Output<'_>) -> Result<(), CommandError> {
    let args: Vec<&str> = call.args.iter().map(String::as_str).collect();
    let zone: Option<u16> = match datapath::without_name(&args) {
        [] => None,
        [one] => match one.strip_prefix("zone=").map(number) {
            Some(Some(zone)) => Some(zone),
            Some(None) => return Err(CommandError::Failed(format!("failed to parse zone: \"{one}\""))),
            None => return Err(unknown(one)),
        },
        [other, ..] => return Err(unknown(other)),
    };
    let (mut cursor, mut rows) = (Some(Cursor::default()), Vec::new());
    while let Some(from) = cursor {
        rows.clear();
        cursor = daemon.engine.expectations(from, &mut rows)?;
        for expectation in rows.iter().filter(|row| zone.is_none_or(|zone| row.zone == zone)) {
            if call.json {
                out.element(&Json::from(expectation))?;
            } else {
                out.line(expectation)?;
            }
        }
    }
    if call.json { Ok(out.end_array()?) } else { Ok(()) }
}

fn unknown(argument: &str) -> CommandError {
    CommandError::Failed(format!(
        "\"{argument}\" is neither zone=N nor a datapath (there is only {})",
        datapath::NAME
    ))
}
