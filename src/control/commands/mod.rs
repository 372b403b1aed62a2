//! The commands as tables: name, usage, argument counts, help and the function that does it. To add a command, add a
//! line to its family's table and a function in the file of its subject.

mod conntrack;
mod ct;
mod daemon;
mod datapath;
pub(crate) mod events;
mod expectations;
mod fdb;
mod flows;
mod fragments;
mod groups;
mod limits;
mod megaflows;
mod packets;
mod ports;
mod selection;
mod settings;
mod spec;
mod steering;
mod topology;
mod trace;
mod tuples;
mod vsctl;
mod zones;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::engine::{Engine, EngineError};
use super::output::{Disconnected, Output};
use super::protocol::{End, Options, Request};
use super::server::Handler;

#[cfg(test)]
pub(crate) mod testing;

pub use spec::{Action, CommandSpec, Family, FileArgument, Run, RunLocal};
use spec::{command, local};
pub use vsctl::{Plan, Planner, Step, syntax_error as vsctl_syntax_error};

/// A command's arguments.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// After the command's name.
    pub args: &'a [String],
    /// Files read by the client.
    pub files: &'a BTreeMap<String, String>,
    /// The client's options.
    pub options: &'a Options,
    /// Answer in JSON.
    pub json: bool,
}

impl<'a> Call<'a> {
    /// Argument `index`, or nothing; the table has checked how many there are.
    #[must_use]
    pub fn arg(&self, index: usize) -> &'a str {
        self.args.get(index).map(String::as_str).unwrap_or_default()
    }

    /// The content of the file that argument `index` names.
    ///
    /// # Errors
    /// When the client has not sent it.
    pub fn file(&self, index: usize) -> Result<&'a str, CommandError> {
        let name = self.arg(index);
        self.files.get(name).map(String::as_str).ok_or_else(|| {
            CommandError::Failed(format!("the content of file \"{name}\" was not sent with the command"))
        })
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// For the user to read.
    #[error("{0}")]
    Failed(String),
    /// The engine's reason.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Nobody reads the output any more.
    #[error(transparent)]
    Gone(#[from] Disconnected),
    /// An answer that is an exit status, as `br-exists` gives.
    #[error("")]
    Status(u8),
}

/// What the commands act on.
pub struct Daemon {
    /// The datapath.
    pub engine: Arc<dyn Engine>,
    /// The process around it.
    pub host: Arc<dyn Host>,
}

impl std::fmt::Debug for Daemon {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Daemon").finish_non_exhaustive()
    }
}

/// What the commands need of the process: its end, and its log.
pub trait Host: Send + Sync {
    /// Begins an orderly end and returns at once.
    fn stop(&self);
    /// Sets the log level of one module, or of all. `level` is a word of [`LOG_LEVELS`].
    ///
    /// # Errors
    /// When the log cannot be changed.
    fn set_log_level(&self, module: Option<&str>, level: &str) -> Result<(), String>;
    /// Modules with their levels.
    fn log_levels(&self) -> Vec<(String, String)>;
}

pub use daemon::{LOG_LEVELS, LOG_MODULES};

impl Handler for Daemon {
    fn handle(&self, request: Request, out: &mut dyn FnMut(&str) -> std::io::Result<()>) -> End {
        let (family, name) = request.command.split_once(' ').unwrap_or((&request.command, ""));
        let Some(family) = Family::ALL.into_iter().find(|known| known.name() == family) else {
            return End::failed(2, format!("unknown kind of command: \"{}\"", request.command));
        };
        let mut output = Output::new(out);
        let call = Call {
            args: &request.args,
            files: &request.files,
            options: &request.options,
            json: request.json,
        };
        let result = if family == Family::Vsctl {
            vsctl::transact(&call, self, &mut output)
        } else {
            run(family, name, &call, self, &mut output)
        };
        match result.and_then(|()| Ok(output.flush()?)) {
            Ok(()) => End { exit: 0, stderr: output.warnings().to_owned() },
            Err(CommandError::Status(status)) => End::failed(status, ""),
            Err(error) => {
                // What was printed before the error belongs to the user all the same.
                let _ = output.flush();
                End::failed(family.failure(), error.to_string())
            }
        }
    }
}

fn run(
    family: Family,
    name: &str,
    call: &Call<'_>,
    daemon: &Daemon,
    output: &mut Output<'_>,
) -> Result<(), CommandError> {
    let spec = family.find(name).ok_or_else(|| CommandError::Failed(family.unknown(name)))?;
    if let Some(error) = spec.count_error(family, call.args.len()) {
        return Err(CommandError::Failed(error));
    }
    if call.json && !spec.reads {
        return Err(CommandError::Failed(format!("'{name}' has nothing to show in JSON")));
    }
    match spec.action {
        Action::Run(run) => run(call, daemon, output),
        Action::Local(run) => run(call, output),
        Action::Plan(_) => {
            Err(CommandError::Failed(format!("'{name}' is a step of `vsctl`, no command of its own")))
        }
    }
}

#[rustfmt::skip]
const SHOW: &[CommandSpec] = &[
    command("steering", "", (0, 0), steering::show, "Show which lcore owns what, how evenly, and whether cards or lcores bring packets to their owners.").reading(),
    command("topology", "", (0, 0), topology::show, "Show the machine's nodes, and where lcores, their memory and ports' cards are.").reading(),
];

#[rustfmt::skip]
const OFCTL: &[CommandSpec] = &[
    command("show", "BRIDGE", (1, 1), ports::show, "Show the bridge and its ports.").reading(),
    command("dump-ports", "BRIDGE [PORT]", (1, 2), ports::dump_ports, "Show the counters of the ports, or of one.").reading(),
    command("dump-ports-desc", "BRIDGE [PORT]", (1, 2), ports::dump_ports_desc, "Show the ports, or one.").reading(),
    command("dump-tables", "BRIDGE", (1, 1), flows::dump_tables, "Show how many flows each table has, and how often it was looked up.").reading(),
    command("dump-flows", "BRIDGE [FLOW]", (1, 2), flows::dump_flows, "Show the flows, or those that FLOW matches, with their counters.").reading(),
    command("dump-aggregate", "BRIDGE [FLOW]", (1, 2), flows::dump_aggregate, "Show the sum of the flows' counters.").reading(),
    command("add-flow", "BRIDGE FLOW", (2, 2), flows::add_flow, "Add one flow; `-` as FLOW reads flows from standard input.").with_file(FileArgument::Dash(1)),
    command("add-flows", "BRIDGE FILE", (2, 2), flows::add_flows, "Add the flows of a file, all or none; `-` is standard input.").with_file(FileArgument::Path(1)),
    command("mod-flows", "BRIDGE FLOW", (2, 2), flows::mod_flows, "Change the actions of the flows that FLOW matches; add it when there are none.").with_file(FileArgument::Dash(1)),
    command("del-flows", "BRIDGE [FLOW]", (1, 2), flows::del_flows, "Delete the flows, or those that FLOW matches.").with_file(FileArgument::Dash(1)),
    command("replace-flows", "BRIDGE FILE", (2, 2), flows::replace_flows, "Make the bridge's flows those of a file; unchanged ones keep their counters.").with_file(FileArgument::Path(1)),
    command("add-group", "BRIDGE GROUP", (2, 2), groups::add_group, "Add one group; `-` as GROUP reads groups from standard input.").with_file(FileArgument::Dash(1)),
    command("add-groups", "BRIDGE FILE", (2, 2), groups::add_groups, "Add the groups of a file, all or none; `-` is standard input.").with_file(FileArgument::Path(1)),
    command("mod-group", "BRIDGE GROUP", (2, 2), groups::mod_group, "Make an existing group what GROUP says (--may-create: or a new one).").with_file(FileArgument::Dash(1)),
    command("del-groups", "BRIDGE [GROUP]", (1, 2), groups::del_groups, "Delete the groups, or GROUP, and with them the flows that name them.").with_file(FileArgument::Dash(1)),
    command("insert-buckets", "BRIDGE GROUP", (2, 2), groups::insert_buckets, "Add buckets to a group, at the place that command_bucket_id says.").with_file(FileArgument::Dash(1)),
    command("remove-buckets", "BRIDGE GROUP", (2, 2), groups::remove_buckets, "Remove buckets from a group: all, or what command_bucket_id says.").with_file(FileArgument::Dash(1)),
    command("dump-groups", "BRIDGE [GROUP]", (1, 2), groups::dump_groups, "Show the groups, or one.").reading(),
    command("dump-group-stats", "BRIDGE [GROUP]", (1, 2), groups::dump_group_stats, "Show the groups' counters, or one's.").reading(),
    command("dump-group-features", "BRIDGE", (1, 1), groups::dump_group_features, "Show what groups can do.").reading(),
    command("packet-out", "BRIDGE PACKET-OUT | BRIDGE IN-PORT ACTIONS PACKET...", (2, 1024), packets::packet_out, "Send packets, given in hexadecimal, through actions: `in_port=1,packet=HEX,actions=resubmit(,0)`."),
    local("compose-packet", "[--bare] [--bad-csum] FLOW [PAYLOAD|LENGTH]", (1, 4), packets::compose_packet, "Show a packet that FLOW matches in hexadecimal (--bare: digits only); needs no daemon.").reading(),
    local("parse-flow", "FLOW", (1, 1), flows::parse_flow, "Show a flow as it is understood; needs no daemon.").reading().with_file(FileArgument::Dash(0)),
    local("parse-flows", "FILE", (1, 1), flows::parse_flows, "Show a file's flows as they are understood; needs no daemon.").reading().with_file(FileArgument::Path(0)),
    command("ct-flush", "BRIDGE [zone=N] [mark=X[/M]] [labels=X[/M]] [ORIG-TUPLE [REPLY-TUPLE]]", (1, 6), conntrack::ct_flush, "Remove the connections that match."),
    command("ct-flush-zone", "BRIDGE ZONE", (2, 2), conntrack::ct_flush_zone, "Remove the connections of a zone."),
    local("list-commands", "", (0, 0), daemon::list_ofctl, "Show these commands.").reading(),
];

#[rustfmt::skip]
const APPCTL: &[CommandSpec] = &[
    command("coverage/read-counter", "COUNTER", (1, 1), daemon::coverage_read, "Show one event counter.").reading(),
    command("coverage/show", "", (0, 0), daemon::coverage_show, "Show every event counter that is not zero.").reading(),
    command("dpctl/ct-bkts", "[DP] [gt=N]", (0, 2), conntrack::buckets, "Show how many entries each bucket of the connection index holds, of eight; a connection has two. With gt=N only buckets with more.").reading(),
    command("dpctl/ct-del-limits", "[DP] zone=N[,N]...", (1, 2), limits::delete, "Take zones' own connection limits away."),
    command("dpctl/ct-disable-tcp-seq-chk", "[DP]", (0, 1), limits::disable_check, "Take TCP segments outside their window for valid."),
    command("dpctl/ct-enable-tcp-seq-chk", "[DP]", (0, 1), limits::enable_check, "Take TCP segments outside their window for invalid."),
    command("dpctl/ct-get-limits", "[DP] [zone=N[,N]...]", (0, 2), limits::show, "Show the connection limits and counts of zones: of these, or of those with a limit of their own.").reading(),
    command("dpctl/ct-get-maxconns", "[DP]", (0, 1), conntrack::get_maxconns, "Show how many connections are admitted.").reading(),
    command("dpctl/ct-get-nconns", "[DP]", (0, 1), conntrack::get_nconns, "Show how many connections there are.").reading(),
    command("dpctl/ct-get-sweep-interval", "[DP]", (0, 1), limits::show_sweep_interval, "Show the sweep interval that was set, in milliseconds.").reading(),
    command("dpctl/ct-get-tcp-seq-chk", "[DP]", (0, 1), limits::show_check, "Show whether TCP segments outside their window are invalid.").reading(),
    command("dpctl/ct-set-limits", "[DP] [default=L] [zone=N,limit=L]...", (1, 64), limits::set, "Limit the connections of zones; default=0 is no default, limit=0 admits none. Removes none."),
    command("dpctl/ct-set-maxconns", "[DP] N", (1, 2), conntrack::set_maxconns, "Set how many connections are admitted; removes none."),
    command("dpctl/ct-set-sweep-interval", "[DP] MS", (1, 2), limits::set_sweep_interval, "Accepted and remembered: expired connections leave counts and limits at once anyway."),
    command("dpctl/ct-stats-show", "[-m] [DP] [zone=N]", (0, 3), conntrack::stats_show, "Count the connections by protocol (-m: also by TCP state).").reading(),
    command("dpctl/dump-conntrack", "[-m] [-s] [DP] [zone=N]", (0, 4), conntrack::dump, "Show the connections (-m: both TCP peers' states and window scales, -s: time left).").reading(),
    command("dpctl/dump-conntrack-exp", "[DP] [zone=N]", (0, 2), expectations::dump, "Show the data connections that helpers expect.").reading(),
    command("dpctl/dump-dps", "", (0, 0), datapath::dump_dps, "Show the datapath's name.").reading(),
    command("dpctl/dump-flows", "[-m] [--names | --no-names] [DP] [filter=FLOW] [type=TYPE] [pmd=CPU]", (0, 6), megaflows::dump_flows, "Show the megaflows of every lcore, or of one; those that FLOW may match (-m: every field, and the flow's identity; --names: ports by name).").reading(),
    command("dpctl/flush-conntrack", "[DP] [zone=N] [mark=X[/M]] [labels=X[/M]] [ORIG-TUPLE [REPLY-TUPLE]]", (0, 6), conntrack::flush, "Remove the connections that match; without arguments, all."),
    command("dpctl/get-flow", "[DP] ufid:UFID", (1, 2), megaflows::get_flow, "Show the megaflow with this identity.").reading(),
    command("dpctl/ipf-get-status", "[-m] [DP]", (0, 2), fragments::get_status, "Show what is done with fragments, and their counters (-m: also the datagrams that are not complete).").reading(),
    command("dpctl/ipf-set-disabled", "[DP] v4|v6", (1, 2), fragments::set_disabled, "Put fragments together no longer: they are invalid to the tracker."),
    command("dpctl/ipf-set-enabled", "[DP] v4|v6", (1, 2), fragments::set_enabled, "Put fragments together for the tracker."),
    command("dpctl/ipf-set-max-nfrags", "[DP] N", (1, 2), fragments::set_max_nfrags, "Set how many fragments are held at the most (up to 5000); removes none."),
    command("dpctl/ipf-set-min-frag", "[DP] v4|v6 N", (2, 3), fragments::set_min_frag, "Set the least size of fragments but the last, IP header included (400 or more)."),
    command("dpctl/show", "[-s] [DP]", (0, 2), datapath::show, "Show the datapath and its ports (-s: with counters).").reading(),
    command("dpif-netdev/pmd-rxq-show", "[-pmd CPU] [-secs N] [DP]", (0, 5), datapath::rxq_show, "Show which lcore polls which queue.").reading(),
    command("dpif-netdev/pmd-stats-clear", "[DP]", (0, 1), datapath::stats_clear, "Set the lcores' counters to zero."),
    command("dpif-netdev/pmd-stats-show", "[-pmd CPU] [DP]", (0, 3), datapath::stats_show, "Show what each lcore did, and cycles a packet.").reading(),
    command("dpif/dump-dps", "", (0, 0), datapath::bridge_dps, "Show each bridge's datapath.").reading(),
    command("dpif/dump-flows", "[-m] [--names | --no-names] BRIDGE", (1, 4), megaflows::dump_bridge, "Show the megaflows of a bridge's packets.").reading(),
    command("dpif/show", "", (0, 0), datapath::dpif_show, "Show the bridges and their ports.").reading(),
    command("exit", "[--cleanup]", (0, 1), daemon::exit, "End the daemon; connections are forgotten."),
    command("fdb/flush", "[BRIDGE]", (0, 1), fdb::flush, "Forget what action NORMAL has learned."),
    command("fdb/show", "BRIDGE", (1, 1), fdb::show, "Show what action NORMAL has learned.").reading(),
    command("fdb/stats-clear", "[BRIDGE]", (0, 1), fdb::stats_clear, "Start the statistics of what action NORMAL learns anew."),
    command("fdb/stats-show", "BRIDGE", (1, 1), fdb::stats_show, "Show how many stations action NORMAL has learned, forgotten and seen move.").reading(),
    command("list-commands", "", (0, 0), daemon::list_appctl, "Show these commands.").reading(),
    command("netdev-dpdk/get-mempool-info", "[PORT]", (0, 1), datapath::mempool_info, "Show how full the pools of packet buffers are.").reading(),
    command("ofproto/trace", "BRIDGE FLOW [--ct-next STATE]... [-generate | PACKET]", (2, 64), trace::trace, "Show the way of a packet through the tables, and send none.").reading(),
    command("revalidator/purge", "", (0, 0), megaflows::purge, "Forget all megaflows; packets are translated anew."),
    command("revalidator/wait", "", (0, 0), megaflows::wait, "Forget the megaflows that are out of date, and return when none is left."),
    command("version", "", (0, 0), daemon::version, "Show the daemon's version.").reading(),
    command("vlog/list", "", (0, 0), daemon::vlog_list, "Show the log level of each module.").reading(),
    command("vlog/set", "[MODULE][:DESTINATION][:LEVEL]...", (0, 32), daemon::vlog_set, "Set log levels (off, emer, err, warn, info, dbg) of all modules or some."),
];

#[rustfmt::skip]
const ZONE: &[CommandSpec] = &[
    command("list", "", (0, 0), zones::list, "Show the zones that have a limit or timeouts of their own.").reading(),
    command("set-timeout", "ZONE NAME=SECONDS...", (2, 32), zones::set_timeout, "Set how long connections of a zone may be silent; what is not named stays as it is. Connections go by it from their next packet on."),
    command("del-timeout", "ZONE", (1, 1), zones::del_timeout, "Let connections of a zone be silent as long as all others."),
];

#[cfg(test)]
mod appctl_tests;
#[cfg(test)]
mod tests;
