//! Megaflows: what the tables came to for the packets there were, as `dpctl/dump-flows`, `dpif/dump-flows` and
//! `dpctl/get-flow` show them, and `revalidator/...`.

use std::collections::BTreeMap;

use serde::Serialize;

use super::datapath::{not_found, ratio, without_name};
use super::selection::number;
use super::{Call, CommandError, Daemon};
use crate::config::Name;
use crate::control::engine::{Bridge, Cursor, DatapathFlow, EngineError};
use crate::control::output::Output;
use crate::flow::key::at;
use crate::flow::{Command, FlowMod, Match, PortNames, PortNumber};
use crate::pipeline::{PortId, dump};

/// Where flows can run. Here all run in the datapath itself.
const TYPES: [&str; 8] =
    ["ovs", "tc", "dpdk", "offloaded", "non-offloaded", "partially-offloaded", "fully-offloaded", "all"];

/// Which flows are meant, and how they are shown.
#[derive(Default)]
struct Wanted {
    more: bool,
    /// `--names` or `--no-names`, the last one.
    names: Option<bool>,
    cpu: Option<u16>,
    /// False for a type of which there are none.
    elsewhere: bool,
    matching: Option<Match>,
    /// The ports of the only bridge that is meant.
    bridge: Option<Vec<PortId>>,
}

/// What ports are called, in flows and in the datapath.
struct Ports {
    names: BTreeMap<PortId, Name>,
    numbers: BTreeMap<PortId, PortNumber>,
}

impl Ports {
    fn of(bridges: &[Bridge]) -> Self {
        let ports = || bridges.iter().flat_map(|bridge| &bridge.ports);
        Self {
            names: ports().map(|port| (port.id, port.name.clone())).collect(),
            numbers: ports().map(|port| (port.id, port.number.number())).collect(),
        }
    }
}

/// The names of all bridges' ports, for filters.
struct AllPorts<'a>(&'a [Bridge]);

impl PortNames for AllPorts<'_> {
    fn number(&self, name: &str) -> Option<PortNumber> {
        self.0.iter().find_map(|bridge| bridge.number(name))
    }
    fn name(&self, number: PortNumber) -> Option<&str> {
        self.0.iter().find_map(|bridge| PortNames::name(bridge, number))
    }
}

fn failed(message: impl Into<String>) -> CommandError {
    CommandError::Failed(message.into())
}

impl Wanted {
    /// Takes an option; false if it is none.
    fn option(&mut self, arg: &str) -> Result<bool, CommandError> {
        match arg {
            "-m" | "--more" => self.more = true,
            "--names" => self.names = Some(true),
            "--no-names" => self.names = Some(false),
            option if option.starts_with('-') => return Err(failed(format!("Unrecognized option {option}"))),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Takes `filter=FLOW`, `type=TYPE` or `pmd=CPU`; false if it is none of them.
    fn selection(&mut self, arg: &str, bridges: &[Bridge]) -> Result<bool, CommandError> {
        let Some((key, value)) = arg.split_once('=') else { return Ok(false) };
        match key {
            "filter" => {
                let parsed = FlowMod::parse(value, Command::Dump, &AllPorts(bridges))
                    .map_err(|error| failed(format!("Failed to parse filter ({value}: {error})")))?;
                self.matching = Some(parsed.flow.matching);
            }
            "type" => {
                let known = |word: &str| TYPES.contains(&word);
                if !value.split(',').all(known) {
                    return Err(failed(format!("Failed to parse type ({value}) (Invalid argument)")));
                }
                let here = |word: &str| matches!(word, "ovs" | "non-offloaded" | "all");
                self.elsewhere = !value.split(',').any(here);
            }
            "pmd" => {
                let cpu = number(value).ok_or_else(|| failed("pmd= needs the number of a CPU"))?;
                self.cpu = Some(cpu);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn admits(&self, row: &DatapathFlow, ports: &Ports) -> bool {
        let in_port = PortId::try_from(row.flow.key.read(at::IN_PORT, 4)).unwrap_or(PortId::MAX);
        let matches = |wanted: &Match| {
            let mut own = Match { key: row.flow.key, mask: row.flow.mask };
            // Flows call ports by their bridge's numbers.
            let number = ports.numbers.get(&in_port).copied().unwrap_or(0);
            own.key.write(at::IN_PORT, 4, number.into());
            own.overlaps(wanted)
        };
        !self.elsewhere
            && self.cpu.is_none_or(|cpu| cpu == row.cpu)
            && self.bridge.as_ref().is_none_or(|own| own.contains(&in_port))
            && self.matching.as_ref().is_none_or(matches)
    }

    /// With `-m` ports have names unless numbers are asked for, as in Open vSwitch.
    fn shows_names(&self) -> bool {
        self.names.unwrap_or(self.more)
    }
}

/// `[-m] [--names | --no-names] [DP] [filter=FLOW] [type=TYPE] [pmd=CPU]`
pub(super) fn dump_flows(call: &Call<'_>, daemon: &Daemon, out: &mut Output<'_>) -> Result<(), CommandError> {
    let mut wanted = Wanted::default();
    let mut rest = Vec::new();
    let bridges = daemon.engine.bridges()?;
    for arg in call.args.iter().map(String::as_str) {
        if !wanted.option(arg)? && !wanted.selection(arg, &bridges)? {
            rest.push(arg);
        }
    }
    if let [other, ..] = without_name(&rest) {
        return Err(not_found(other));
    }
    show(call, daemon, &wanted, &Ports::of(&bridges), out)
}

/// `[-m] [--names | --no-names] BRIDGE`
pub(super) fn dump_bridge(
    call: &Call<'_>,
    daemon: &Daemon,
    out: &mut Output<'_>,
) -> Result<(), CommandError> {
    let mut wanted = Wanted::default();
    let bridges = daemon.engine.bridges()?;
    for arg in call.args.iter().map(String::as_str) {
        if wanted.option(arg)? {
            continue;
        }
        let bridge = bridges.iter().find(|bridge| bridge.name.as_str() == arg);
        let bridge = bridge.ok_or_else(|| failed("no such bridge"))?;
        wanted.bridge = Some(bridge.ports.iter().map(|port| port.id).collect());
    }
    if wanted.bridge.is_none() {
        return Err(failed("\"dpif/dump-flows\" command requires at least 1 arguments"));
    }
    show(call, daemon, &wanted, &Ports::of(&bridges), out)
}

fn show(
    call: &Call<'_>,
    daemon: &Daemon,
    wanted: &Wanted,
    known: &Ports,
    out: &mut Output<'_>,
) -> Result<(), CommandError> {
    let named = wanted.shows_names();
    let ports = |id| match known.names.get(&id) {
        Some(name) if named => name.to_string(),
        _ => dump::number(id),
    };
    let mut cpu = None;
    each(daemon, |row| {
        if !wanted.admits(row, known) {
            return Ok(true);
        }
        if call.json {
            out.element(&JsonFlow::new(row, wanted.more, &ports))?;
            return Ok(true);
        }
        let DatapathFlow { cpu: own, flow, now } = row;
        if wanted.bridge.is_none() && cpu.replace(*own) != Some(*own) {
            out.line(format_args!("flow-dump from pmd on cpu core: {own}"))?;
        }
        out.line(match (wanted.more, wanted.bridge.is_some()) {
            (false, _) => dump::line(flow, *now, &ports),
            (true, false) => dump::full_line(flow, *now, &ports),
            (true, true) => dump::full_bridge_line(flow, *now, &ports),
        })?;
        Ok(true)
    })?;
    if call.json { Ok(out.end_array()?) } else { Ok(()) }
}

/// Shows each megaflow to `visit`, a page at a time, until it gives false.
fn each(
    daemon: &Daemon,
    mut visit: impl FnMut(&DatapathFlow) -> Result<bool, CommandError>,
) -> Result<(), CommandError> {
    let (mut cursor, mut rows) = (Some(Cursor::default()), Vec::new());
    while let Some(from) = cursor {
        rows.clear();
        cursor = daemon.engine.datapath_flows(from, &mut rows)?;
        for row in &rows {
            if !visit(row)? {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// `[DP] ufid:UFID`
pub(super) fn get_flow(call: &Call<'_>, daemon: &Daemon, out: &mut Output<'_>) -> Result<(), CommandError> {
    let args: Vec<&str> = call.args.iter().map(String::as_str).collect();
    let wanted = match without_name(&args) {
        [ufid] => ufid.strip_prefix("ufid:"),
        _ => None,
    };
    let wanted = wanted.ok_or_else(|| failed("parsing flow ufid (Invalid argument)"))?;
    let mut found = None;
    each(daemon, |row| {
        if dump::ufid(&row.flow) == wanted {
            found = Some(row.clone());
        }
        Ok(found.is_none())
    })?;
    let row = found.ok_or_else(|| failed("getting flow (No such file or directory)"))?;
    if call.json {
        return Ok(out.json(&JsonFlow::new(&row, true, &dump::number))?);
    }
    Ok(out.line(dump::full_line(&row.flow, row.now, &dump::number))?)
}

/// A megaflow in JSON.
#[derive(Serialize)]
struct JsonFlow {
    cpu: u16,
    ufid: String,
    r#match: String,
    packets: u64,
    bytes: u64,
    /// Seconds since the last packet.
    used: Option<f64>,
    tcp_flags: u16,
    actions: String,
}

impl JsonFlow {
    fn new(row: &DatapathFlow, full: bool, ports: dump::Ports<'_>) -> Self {
        let DatapathFlow { cpu, flow, now } = row;
        let matched = if full { dump::full_match } else { dump::matched };
        Self {
            cpu: *cpu,
            ufid: dump::ufid(flow),
            r#match: matched(&flow.key, &flow.mask, ports),
            packets: flow.packets,
            bytes: flow.bytes,
            used: flow.used.map(|used| ratio(now.saturating_sub(used), 1000)),
            tcp_flags: flow.tcp_flags,
            actions: dump::steps(&flow.steps, &flow.key, ports),
        }
    }
}

pub(super) fn purge(_: &Call<'_>, daemon: &Daemon, _: &mut Output<'_>) -> Result<(), CommandError> {
    daemon.engine.revalidate(true).map_err(EngineError::into)
}

pub(super) fn wait(_: &Call<'_>, daemon: &Daemon, _: &mut Output<'_>) -> Result<(), CommandError> {
    daemon.engine.revalidate(false).map_err(EngineError::into)
}
