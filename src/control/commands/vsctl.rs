//! `vsctl`: which bridges and ports there are, in ovs-vsctl's shape. One invocation holds several commands
//! between `--`; they are planned one after another against the bridges as they would then be, and handed to
//! the engine as one change, so that an error anywhere changes nothing.

use std::collections::BTreeMap;

use super::settings::{BridgeSetting, Draft, bridge_setting};
use super::spec::entry;
use super::zones::{self, OF_LINUX};
use super::{Action, Call, CommandError, CommandSpec, Daemon, Family};
use crate::config::{DevArgs, Name, PortNumber, ZoneTimeouts};
use crate::control::engine::{Change, FailMode};
use crate::control::output::Output;
use crate::flow::nearest;

/// Plans one step.
pub type Planner = fn(&Step<'_>, &mut Plan) -> Result<(), CommandError>;

const fn step(
    name: &'static str,
    usage: &'static str,
    args: (usize, usize),
    planner: Planner,
    help: &'static str,
) -> CommandSpec {
    entry(name, usage, args, Action::Plan(planner), help)
}

#[rustfmt::skip]
pub(super) const COMMANDS: &[CommandSpec] = &[
    step("show", "", (0, 0), show, "Show bridges and ports.").reading(),
    step("add-br", "[--may-exist] BRIDGE", (1, 1), add_br, "Add a bridge."),
    step("del-br", "[--if-exists] BRIDGE", (1, 1), del_br, "Delete a bridge with its ports and flows."),
    step("list-br", "", (0, 0), list_br, "Show the bridges' names.").reading(),
    step("br-exists", "BRIDGE", (1, 1), br_exists, "Exit with status 2 if there is no such bridge."),
    step("add-port", "[--may-exist] BRIDGE PORT [COLUMN[:KEY]=VALUE]...", (2, 16), add_port, "Add a port; `-- set Interface PORT options:dpdk-devargs=...` gives its device."),
    step("del-port", "[--if-exists] [BRIDGE] PORT", (1, 2), del_port, "Delete a port."),
    step("list-ports", "BRIDGE", (1, 1), list_ports, "Show the names of a bridge's ports.").reading(),
    step("list-ifaces", "BRIDGE", (1, 1), list_ports, "The same: a port is one interface.").reading(),
    step("port-to-br", "PORT", (1, 1), port_to_br, "Show the bridge a port belongs to.").reading(),
    step("get-fail-mode", "BRIDGE", (1, 1), get_fail_mode, "Show a bridge's fail mode, nothing if none is set.").reading(),
    step("set-fail-mode", "BRIDGE secure|standalone", (2, 2), set_fail_mode, "Set a bridge's fail mode. Between secure (no flow of its own) and standalone (or none: a learning switch) the bridge's flows are forgotten."),
    step("del-fail-mode", "BRIDGE", (1, 1), del_fail_mode, "Leave a bridge's fail mode open, which is standalone."),
    step("get", "TABLE RECORD COLUMN", (3, 3), get, "Show fail_mode or datapath_type of a Bridge.").reading(),
    step("add-zone-tp", "[--may-exist] DATAPATH zone=N NAME=SECONDS...", (3, 34), add_zone_tp, "Give a connection tracking zone timeouts of its own. DATAPATH is netdev."),
    step("del-zone-tp", "[--if-exists] DATAPATH zone=N", (2, 2), del_zone_tp, "Take a zone's own timeouts away."),
    step("list-zone-tp", "DATAPATH", (1, 1), list_zone_tp, "Show the zones with timeouts of their own.").reading(),
    step("set", "TABLE RECORD COLUMN[:KEY]=VALUE...", (3, 18), set, "Say more: of a Bridge fail_mode=secure|standalone (see set-fail-mode); of an Interface that is added in the same invocation: type=dpdk, ofport_request=N, options:dpdk-devargs=DEVICE, options:n_rxq=N, options:role=inside|outside (what its card hashes where zones are steered by subscriber), and options:peer=DEV with options:peer-netns=NS for the other end of a veth pair, whose transmit offloads are turned off."),
];

/// One command of an invocation.
#[derive(Debug)]
pub struct Step<'a> {
    spec: &'static CommandSpec,
    options: Vec<&'a str>,
    args: Vec<&'a str>,
}

impl<'a> Step<'a> {
    fn arg(&self, index: usize) -> &'a str {
        self.args.get(index).copied().unwrap_or_default()
    }
    fn has(&self, option: &str) -> bool {
        self.options.contains(&option)
    }
}

/// What is wrong with an invocation before anything is known of the daemon.
#[must_use]
pub fn syntax_error(args: &[String], json: bool) -> Option<String> {
    steps(args, json).err().map(|error| error.to_string())
}

pub(super) fn failed(message: impl Into<String>) -> CommandError {
    CommandError::Failed(message.into())
}

fn steps(args: &[String], json: bool) -> Result<Vec<Step<'_>>, CommandError> {
    let mut steps = Vec::new();
    for part in args.split(|arg| arg == "--").filter(|part| !part.is_empty()) {
        let mut words = part.iter().map(String::as_str).peekable();
        let mut options = Vec::new();
        while let Some(option) = words.next_if(|word| word.starts_with("--")) {
            options.push(option);
        }
        let name = words.next().ok_or_else(|| failed("missing command name (use --help for help)"))?;
        let spec = Family::Vsctl.find(name).ok_or_else(|| failed(Family::Vsctl.unknown(name)))?;
        let args: Vec<&str> = words.collect();
        if let Some(option) = options.iter().find(|option| !spec.usage.contains(&format!("[{option}]"))) {
            return Err(failed(format!("'{name}' command has no '{option}' option")));
        }
        if let Some(error) = spec.count_error(Family::Vsctl, args.len()) {
            return Err(failed(error));
        }
        if json && !spec.reads {
            return Err(failed(format!("'{name}' has nothing to show in JSON")));
        }
        steps.push(Step { spec, options, args });
    }
    if steps.is_empty() {
        return Err(failed("missing command name (use --help for help)"));
    }
    Ok(steps)
}

/// The bridges as they would be after the steps so far, the changes that lead there, and what was printed.
#[derive(Debug, Default)]
pub struct Plan {
    bridges: BTreeMap<String, Vec<PlannedPort>>,
    /// Of those bridges that have one.
    fail_modes: BTreeMap<String, FailMode>,
    changes: Vec<Planned>,
    /// The zones that have timeouts of their own, and those of them that are different from what they were.
    zones: BTreeMap<u16, ZoneTimeouts>,
    zone_changes: BTreeMap<u16, Option<ZoneTimeouts>>,
    warnings: Vec<String>,
    /// Answers, in order: text and the same in JSON.
    answers: Vec<(String, serde_json::Value)>,
}

#[derive(Debug)]
struct PlannedPort {
    name: String,
    number: Option<PortNumber>,
    devargs: Option<DevArgs>,
}

#[derive(Debug)]
enum Planned {
    AddBridge(Name),
    RemoveBridge(Name),
    AddPort(Draft),
    RemovePort(Name),
    SetFailMode(Name, Option<FailMode>),
}

/// Plans every step, and then changes what they ask for.
pub(super) fn transact(call: &Call<'_>, daemon: &Daemon, out: &mut Output<'_>) -> Result<(), CommandError> {
    let steps = steps(call.args, call.json)?;
    let zones = daemon.engine.zone_timeouts();
    let mut plan = Plan { zones: zones.clone(), ..Plan::default() };
    for bridge in daemon.engine.bridges()? {
        let ports = bridge.ports.into_iter().map(|port| PlannedPort {
            name: port.name.to_string(),
            number: Some(port.number),
            devargs: Some(port.devargs),
        });
        plan.bridges.insert(bridge.name.to_string(), ports.collect());
        if let Some(mode) = bridge.fail_mode {
            plan.fail_modes.insert(bridge.name.to_string(), mode);
        }
    }
    for step in &steps {
        if let Action::Plan(planner) = step.spec.action {
            planner(step, &mut plan)?;
        }
    }
    let changes = plan.changes.into_iter().map(settled).collect::<Result<Vec<_>, _>>()?;
    let before = plan.zone_changes.keys().map(|zone| (*zone, zones.get(zone).cloned())).collect();
    if !plan.zone_changes.is_empty() {
        daemon.engine.set_zone_timeouts(plan.zone_changes)?;
    }
    if !changes.is_empty()
        && let Err(error) = daemon.engine.reconfigure(changes)
    {
        // All or nothing.
        daemon.engine.set_zone_timeouts(before)?;
        return Err(error.into());
    }
    plan.warnings.iter().for_each(|warning| out.warn(warning));
    for (text, json) in &plan.answers {
        if call.json {
            out.json(json)?;
        } else {
            out.text(text)?;
        }
    }
    Ok(())
}

fn settled(planned: Planned) -> Result<Change, CommandError> {
    Ok(match planned {
        Planned::AddBridge(name) => Change::AddBridge(name),
        Planned::RemoveBridge(name) => Change::RemoveBridge(name),
        Planned::RemovePort(name) => Change::RemovePort(name),
        Planned::SetFailMode(name, mode) => Change::SetFailMode(name, mode),
        Planned::AddPort(draft) => Change::AddPort(draft.settled()?),
    })
}

impl Plan {
    fn ports(&mut self, bridge: &str) -> Result<&mut Vec<PlannedPort>, CommandError> {
        self.bridges.get_mut(bridge).ok_or_else(|| failed(format!("no bridge named {bridge}")))
    }

    /// The bridge that has port `name`.
    fn home(&self, name: &str) -> Option<&str> {
        let has = |ports: &Vec<PlannedPort>| ports.iter().any(|port| port.name == name);
        self.bridges.iter().find(|(_, ports)| has(ports)).map(|(bridge, _)| bridge.as_str())
    }

    fn fail_mode(&mut self, bridge: &str, mode: Option<FailMode>) -> Result<(), CommandError> {
        self.ports(bridge)?;
        match mode {
            Some(mode) => self.fail_modes.insert(bridge.to_owned(), mode),
            None => self.fail_modes.remove(bridge),
        };
        self.changes.push(Planned::SetFailMode(name(bridge)?, mode));
        Ok(())
    }

    fn answer(&mut self, lines: Vec<String>) {
        let text = lines.iter().map(|line| format!("{line}\n")).collect();
        self.answers.push((text, lines.into()));
    }
}

fn name(text: &str) -> Result<Name, CommandError> {
    text.parse().map_err(|error| failed(format!("{text}: {error}")))
}

fn add_br(step: &Step<'_>, plan: &mut Plan) -> Result<(), CommandError> {
    let bridge = step.arg(0);
    if plan.bridges.contains_key(bridge) {
        if step.has("--may-exist") {
            return Ok(());
        }
        return Err(failed(format!(
            "cannot create a bridge named {bridge} because a bridge named {bridge} already exists"
        )));
    }
    if let Some(home) = plan.home(bridge) {
        return Err(failed(format!(
            "cannot create a bridge named {bridge} because a port named {bridge} already exists on bridge {home}"
        )));
    }
    plan.changes.push(Planned::AddBridge(name(bridge)?));
    plan.bridges.insert(bridge.to_owned(), Vec::new());
    Ok(())
}

fn del_br(step: &Step<'_>, plan: &mut Plan) -> Result<(), CommandError> {
    let bridge = step.arg(0);
    if plan.bridges.remove(bridge).is_some() {
        plan.fail_modes.remove(bridge);
        plan.changes.push(Planned::RemoveBridge(name(bridge)?));
        Ok(())
    } else if step.has("--if-exists") {
        Ok(())
    } else {
        Err(failed(format!("no bridge named {bridge}")))
    }
}

fn list_br(_: &Step<'_>, plan: &mut Plan) -> Result<(), CommandError> {
    plan.answer(plan.bridges.keys().cloned().collect());
    Ok(())
}

fn br_exists(step: &Step<'_>, plan: &mut Plan) -> Result<(), CommandError> {
    if plan.bridges.contains_key(step.arg(0)) { Ok(()) } else { Err(CommandError::Status(2)) }
}

fn add_port(step: &Step<'_>, plan: &mut Plan) -> Result<(), CommandError> {
    let (bridge, port) = (step.arg(0), step.arg(1));
    plan.ports(bridge)?;
    if let Some(home) = plan.home(port) {
        if step.has("--may-exist") && home == bridge {
            return Ok(());
        }
        return Err(failed(format!(
            "cannot create a port named {port} because a port named {port} already exists on bridge {home}"
        )));
    }
    if plan.bridges.contains_key(port) {
        return Err(failed(format!(
            "cannot create a port named {port} because a bridge named {port} already exists"
        )));
    }
    let mut draft = Draft::new(name(bridge)?, name(port)?);
    for setting in step.args.iter().skip(2) {
        draft.apply(setting)?;
    }
    plan.ports(bridge)?.push(PlannedPort { name: port.to_owned(), number: None, devargs: None });
    plan.changes.push(Planned::AddPort(draft));
    Ok(())
}

fn del_port(step: &Step<'_>, plan: &mut Plan) -> Result<(), CommandError> {
    let (bridge, port) = match step.args.as_slice() {
        [bridge, port] => {
            plan.ports(bridge)?;
            (Some(*bridge), *port)
        }
        _ => (None, step.arg(0)),
    };
    let home = plan.home(port).map(str::to_owned);
    match (home, bridge) {
        (None, _) if step.has("--if-exists") => Ok(()),
        (None, _) => Err(failed(format!("no port named {port}"))),
        (Some(home), Some(bridge)) if home != bridge => {
            Err(failed(format!("bridge {bridge} does not have a port {port} (its bridge is {home})")))
        }
        (Some(home), _) => {
            plan.ports(&home)?.retain(|other| other.name != port);
            plan.changes.push(Planned::RemovePort(name(port)?));
            Ok(())
        }
    }
}

fn list_ports(step: &Step<'_>, plan: &mut Plan) -> Result<(), CommandError> {
    let mut names: Vec<String> = plan.ports(step.arg(0))?.iter().map(|port| port.name.clone()).collect();
    names.sort();
    plan.answer(names);
    Ok(())
}

fn port_to_br(step: &Step<'_>, plan: &mut Plan) -> Result<(), CommandError> {
    let port = step.arg(0);
    let home = plan.home(port).map(str::to_owned).ok_or_else(|| failed(format!("no port named {port}")))?;
    plan.answer(vec![home]);
    Ok(())
}

fn show(_: &Step<'_>, plan: &mut Plan) -> Result<(), CommandError> {
    let mut text = String::new();
    let mut bridges = Vec::new();
    for (bridge, ports) in &plan.bridges {
        text.push_str(&format!("Bridge {bridge}\n"));
        let mode = plan.fail_modes.get(bridge);
        if let Some(mode) = mode {
            text.push_str(&format!("    fail_mode: {}\n", mode.name()));
        }
        text.push_str("    datapath_type: netdev\n");
        let mut entries = Vec::new();
        for port in ports {
            text.push_str(&format!(
                "    Port {0}\n        Interface {0}\n            type: dpdk\n",
                port.name
            ));
            if let Some(devargs) = &port.devargs {
                text.push_str(&format!("            options: {{dpdk-devargs=\"{devargs}\"}}\n"));
            }
            entries.push(serde_json::json!({
                "name": port.name,
                "number": port.number,
                "devargs": port.devargs,
            }));
        }
        bridges.push(serde_json::json!({ "name": bridge, "fail_mode": mode, "ports": entries }));
    }
    plan.answers.push((text, bridges.into()));
    Ok(())
}

fn get_fail_mode(step: &Step<'_>, plan: &mut Plan) -> Result<(), CommandError> {
    plan.ports(step.arg(0))?;
    let mode = plan.fail_modes.get(step.arg(0)).map(|mode| mode.name().to_owned());
    plan.answer(mode.into_iter().collect());
    Ok(())
}

fn set_fail_mode(step: &Step<'_>, plan: &mut Plan) -> Result<(), CommandError> {
    let mode = FailMode::named(step.arg(1))
        .ok_or_else(|| failed("fail-mode must be \"standalone\" or \"secure\""))?;
    plan.fail_mode(step.arg(0), Some(mode))
}

fn del_fail_mode(step: &Step<'_>, plan: &mut Plan) -> Result<(), CommandError> {
    plan.fail_mode(step.arg(0), None)
}

fn get(step: &Step<'_>, plan: &mut Plan) -> Result<(), CommandError> {
    let (table, record, column) = (step.arg(0), step.arg(1), step.arg(2));
    if !table.eq_ignore_ascii_case("bridge") {
        return Err(failed(format!("only columns of a Bridge can be read, not of \"{table}\"")));
    }
    if !plan.bridges.contains_key(record) {
        return Err(failed(format!("no row \"{record}\" in table {table}")));
    }
    let value = match column {
        "fail_mode" | "fail-mode" => plan.fail_modes.get(record).map_or("[]", |mode| mode.name()),
        "datapath_type" => "netdev",
        _ => {
            return Err(failed(format!("Bridge does not contain a column whose name matches \"{column}\"")));
        }
    };
    plan.answer(vec![value.to_owned()]);
    Ok(())
}

/// The datapath that a step names, in the words that each of them has for one that is not there.
fn is_datapath(name: &str) -> bool {
    ["netdev", "weir", super::datapath::NAME].contains(&name)
}

fn existing_datapath(step: &Step<'_>) -> Result<(), CommandError> {
    let name = step.arg(0);
    if is_datapath(name) { Ok(()) } else { Err(failed(format!("datapath {name} does not exist"))) }
}

fn add_zone_tp(step: &Step<'_>, plan: &mut Plan) -> Result<(), CommandError> {
    existing_datapath(step)?;
    let zone = zones::zone(step.arg(1))?;
    if plan.zones.contains_key(&zone) && !step.has("--may-exist") {
        return Err(failed(format!("zone id {zone} already exists")));
    }
    let is_ours = |arg: &&str| !arg.split_once('=').is_some_and(|(name, _)| OF_LINUX.contains(&name));
    let (ours, others): (Vec<&str>, Vec<&str>) = step.args.iter().skip(2).partition(|arg| is_ours(arg));
    let timeouts = zones::timeouts(ours)?;
    let ignored =
        others.iter().map(|other| format!("{other}: only Linux' connection tracker has this state"));
    plan.warnings.extend(ignored);
    // As ovs-vsctl has it: what was there is replaced.
    plan.zones.insert(zone, timeouts.clone());
    plan.zone_changes.insert(zone, Some(timeouts));
    Ok(())
}

fn del_zone_tp(step: &Step<'_>, plan: &mut Plan) -> Result<(), CommandError> {
    existing_datapath(step)?;
    let zone = zones::zone(step.arg(1))?;
    if plan.zones.remove(&zone).is_some() {
        plan.zone_changes.insert(zone, None);
    } else if !step.has("--if-exists") {
        return Err(failed(format!("zone id {zone} does not exist")));
    }
    Ok(())
}

fn list_zone_tp(step: &Step<'_>, plan: &mut Plan) -> Result<(), CommandError> {
    if !is_datapath(step.arg(0)) {
        return Err(failed(format!("datapath: {} record not found", step.arg(0))));
    }
    let mut text = String::new();
    for (zone, timeouts) in &plan.zones {
        text.push_str(&format!("Zone:{zone}, Timeout Policies: {}\n", zones::words(timeouts)));
    }
    let json = serde_json::to_value(&plan.zones).map_err(|error| failed(error.to_string()))?;
    plan.answers.push((text, json));
    Ok(())
}

fn set(step: &Step<'_>, plan: &mut Plan) -> Result<(), CommandError> {
    let (table, record) = (step.arg(0), step.arg(1));
    let settings = step.args.iter().skip(2);
    match table.to_ascii_lowercase().as_str() {
        "bridge" => {
            plan.ports(record)?;
            for setting in settings {
                match bridge_setting(setting)? {
                    BridgeSetting::AsItIs => {}
                    BridgeSetting::FailMode(mode) => plan.fail_mode(record, Some(mode))?,
                }
            }
            Ok(())
        }
        "interface" | "port" => {
            let exists = plan.home(record).is_some();
            let draft = plan.changes.iter_mut().find_map(|change| match change {
                Planned::AddPort(draft) if draft.name.as_str() == record => Some(draft),
                _ => None,
            });
            match draft {
                Some(draft) => settings.into_iter().try_for_each(|setting| draft.apply(setting)),
                None if exists => Err(failed(format!(
                    "port {record} is there already and cannot be changed; delete it and add it again"
                ))),
                None => Err(failed(format!("no row \"{record}\" in table {table}"))),
            }
        }
        _ => {
            let near = nearest(table, ["Bridge", "Interface", "Port"]);
            let hint = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
            Err(failed(format!("unknown table \"{table}\"{hint}")))
        }
    }
}
