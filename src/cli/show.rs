//! `weir show`: what is built into the program as tables, printed for people and programs (the same text makes
//! docs/state-machines.md), and what only the running daemon knows.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Serialize;
use weir_shard::Timeout;
use weir_shard::sctp::{SctpNext, SctpState, sctp_machine};
use weir_shard::tcp::{TcpEvent, TcpSide, TcpState, tcp_machine};

use super::client;
use crate::config::DEFAULT_SOCKET;
use crate::control::protocol::Request;
use crate::control::topology::TopologyReport;
use crate::control::{Client, ClientError, Family};

/// `weir show`
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// What to show.
    #[command(subcommand)]
    pub what: Show,
    /// Print JSON.
    #[arg(long, global = true)]
    pub json: bool,
}

/// What `weir show` can show.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Show {
    /// The states of a TCP connection, what a segment does to them, and their timeouts.
    TcpMachine,
    /// The states of an SCTP association, what a chunk does to them, and their timeouts.
    SctpMachine,
    /// Which lcore owns what, how evenly, and whether cards or lcores bring packets to their owners; asks the daemon.
    Steering(DaemonArgs),
    /// The machine's nodes, CPUs and hugepages, and where lcores, their memory and ports' cards are; without a daemon
    /// the machine alone.
    Topology(DaemonArgs),
}

/// Which daemon is asked.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct DaemonArgs {
    /// The daemon's control socket.
    #[arg(long, value_name = "PATH", env = "WEIR_SOCKET", default_value = DEFAULT_SOCKET)]
    pub socket: PathBuf,
    /// Give up after SECS seconds without an answer.
    #[arg(short = 'T', long, value_name = "SECS")]
    pub timeout: Option<u32>,
}

/// The machines that are built in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StateMachine {
    Tcp,
    Sctp,
}

/// A state machine as it is shown.
#[derive(Debug, Serialize)]
struct Machine {
    protocol: &'static str,
    /// What one reads first.
    #[serde(skip)]
    legend: &'static str,
    states: Vec<&'static str>,
    transitions: Vec<Transition>,
    timeouts: Vec<Period>,
}

#[derive(Debug, Serialize)]
struct Transition {
    event: &'static str,
    /// Whose state changes (TCP), or in which direction the chunk travels (SCTP).
    side: &'static str,
    /// Where there is no connection yet; SCTP only.
    #[serde(skip_serializing_if = "Option::is_none")]
    first: Option<&'static str>,
    /// For each of `states` the next one, `invalid` or `anew`.
    next: Vec<&'static str>,
    why: &'static str,
}

#[derive(Debug, Serialize)]
struct Period {
    name: &'static str,
    seconds: u32,
    why: &'static str,
}

const TCP_LEGEND: &str = "\
Each side of a TCP connection has a state of its own. A segment inside the window changes them by each of its flags,
in this order; a full stop leaves the state as it is.";

const SCTP_LEGEND: &str = "\
An SCTP association has one state. Each chunk of a packet changes it in turn, if the packet's verification tag is
right (RFC 9260 section 8.5). A full stop leaves the state as it is, `invalid` makes the packet +inv, `anew` ends the
association and starts another. The first column is for packets that belong to no association.";

impl StateMachine {
    #[cfg(test)]
    const ALL: [Self; 2] = [Self::Tcp, Self::Sctp];

    #[cfg(test)]
    const fn command(self) -> &'static str {
        match self {
            Self::Tcp => "weir show tcp-machine",
            Self::Sctp => "weir show sctp-machine",
        }
    }

    fn machine(self) -> Machine {
        match self {
            Self::Tcp => Machine {
                protocol: "tcp",
                legend: TCP_LEGEND,
                states: TcpState::ALL.map(TcpState::name).into(),
                transitions: tcp_machine()
                    .iter()
                    .map(|row| Transition {
                        event: match row.event {
                            TcpEvent::Syn => "SYN",
                            TcpEvent::Fin => "FIN",
                            TcpEvent::Ack => "ACK",
                            TcpEvent::Rst => "RST",
                        },
                        side: match row.side {
                            TcpSide::Sender => "sender",
                            TcpSide::Receiver => "receiver",
                        },
                        first: None,
                        next: row.next.map(TcpState::name).into(),
                        why: row.why,
                    })
                    .collect(),
                timeouts: timeouts("tcp_"),
            },
            Self::Sctp => Machine {
                protocol: "sctp",
                legend: SCTP_LEGEND,
                states: SctpState::ALL.map(SctpState::name).into(),
                transitions: sctp_machine()
                    .iter()
                    .map(|row| Transition {
                        event: row.chunk.name(),
                        side: if row.reply { "reply" } else { "original" },
                        first: Some(next(row.first)),
                        next: row.next.map(next).into(),
                        why: row.why,
                    })
                    .collect(),
                timeouts: timeouts("sctp_"),
            },
        }
    }
}

const fn next(next: SctpNext) -> &'static str {
    match next {
        SctpNext::To(state) => state.name(),
        SctpNext::Invalid => "invalid",
        SctpNext::Anew => "anew",
    }
}

fn timeouts(prefix: &str) -> Vec<Period> {
    Timeout::ALL
        .into_iter()
        .filter(|timeout| timeout.name().starts_with(prefix))
        .map(|timeout| Period {
            name: timeout.name(),
            seconds: timeout.default_seconds(),
            why: timeout.reason(),
        })
        .collect()
}

impl Machine {
    fn text(&self) -> String {
        let has_first = self.transitions.iter().any(|row| row.first.is_some());
        let mut header = vec![if self.protocol == "tcp" { "flag" } else { "chunk" }];
        header.push(if self.protocol == "tcp" { "state of" } else { "direction" });
        header.extend(has_first.then_some("(none)"));
        header.extend(&self.states);
        let mut rows = vec![header];
        for row in &self.transitions {
            let mut cells = vec![row.event, row.side];
            cells.extend(row.first);
            cells.extend(
                self.states.iter().zip(&row.next).map(|(state, next)| if state == next { "." } else { next }),
            );
            rows.push(cells);
        }
        let mut text = format!("{}\n\n{}", self.legend, table(&rows));
        text += "\nWhy:\n";
        for row in &self.transitions {
            text += &format!("  {}, {}: {}\n", row.event, row.side, row.why);
        }
        text += "\nSilence that ends a connection, in seconds:\n";
        for period in &self.timeouts {
            text += &format!("  {} = {}\n    {}\n", period.name, period.seconds, period.why);
        }
        text
    }
}

/// Cells in columns.
fn table(rows: &[Vec<&str>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|at| rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.len()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    text
}

/// `weir show`: prints; the exit status.
#[must_use]
pub fn show(args: &ShowArgs) -> u8 {
    let machine = match &args.what {
        Show::TcpMachine => StateMachine::Tcp.machine(),
        Show::SctpMachine => StateMachine::Sctp.machine(),
        Show::Steering(daemon) => return ask("steering", daemon, args.json),
        Show::Topology(daemon) => return topology(daemon, args.json),
    };
    let text = if args.json {
        match serde_json::to_string_pretty(&machine) {
            Ok(text) => text + "\n",
            Err(_) => return 1,
        }
    } else {
        machine.text()
    };
    // A reader that has seen enough, `head` for one, is no error.
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => 0,
        Err(error) => u8::from(error.kind() != std::io::ErrorKind::BrokenPipe),
    }
}

/// Has the daemon print it.
fn ask(what: &str, daemon: &DaemonArgs, json: bool) -> u8 {
    let request = Request { command: format!("{} {what}", Family::Show.name()), json, ..Request::default() };
    client::call(Family::Show, &daemon.socket, daemon.timeout, &request)
}

/// Asks the daemon; where there is none, looks at the machine.
fn topology(daemon: &DaemonArgs, json: bool) -> u8 {
    let timeout =
        daemon.timeout.filter(|&seconds| seconds != 0).map(|seconds| Duration::from_secs(seconds.into()));
    // A socket that is there and not for us is an error like any other.
    let nobody = |kind| matches!(kind, io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused);
    match Client::connect(&daemon.socket, timeout) {
        Err(ClientError::Connect { source, .. }) if nobody(source.kind()) => {}
        _ => return ask("topology", daemon, json),
    }
    let report = match TopologyReport::of_machine() {
        Ok(report) => report,
        Err(error) => return client::complain(Family::Show, &error.to_string()),
    };
    let _ =
        writeln!(std::io::stderr(), "no daemon answers at {}: the machine alone", daemon.socket.display());
    if !json {
        return client::print(&report.to_string());
    }
    match serde_json::to_string(&report) {
        Ok(text) => client::print(&(text + "\n")),
        Err(error) => client::complain(Family::Show, &error.to_string()),
    }
}

/// docs/state-machines.md.
#[cfg(test)]
fn document() -> String {
    let mut text = String::from(
        "# The state machines\n\n\
         Made from the tables that weir runs on, `shard/src/tcp.rs`, `shard/src/sctp.rs` and `shard/src/timeouts.rs`; a\n\
         test compares them. After a change: `WEIR_WRITE_DOCS=1 cargo nextest run -p weir state_machines`.\n",
    );
    for what in StateMachine::ALL {
        text += &format!("\n## {}\n\n```text\n{}```\n", what.command(), what.machine().text());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_of_the_state_machines_is_what_the_command_prints() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/state-machines.md");
        if std::env::var_os("WEIR_WRITE_DOCS").is_some() {
            std::fs::write(path, document()).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            written == document(),
            "docs/state-machines.md is out of date: WEIR_WRITE_DOCS=1 cargo nextest run -p weir state_machines"
        );
    }

    #[test]
    fn every_row_of_a_machine_has_a_cell_for_each_state_and_its_timeouts_are_there() {
        for what in StateMachine::ALL {
            let machine = what.machine();
            assert!(machine.transitions.iter().all(|row| row.next.len() == machine.states.len()));
            assert!(machine.timeouts.len() >= 6, "{what:?}");
            let json: serde_json::Value = serde_json::to_value(&machine).unwrap();
            assert_eq!(json["states"].as_array().map(Vec::len), Some(machine.states.len()));
        }
    }

    #[test]
    fn columns_are_aligned() {
        assert_eq!(table(&[vec!["a", "bc"], vec!["def", "g"]]), "a    bc\ndef  g\n");
    }
}
