//! Connections as a table for people: columns as data, widths from the first rows, so that a table of any length is
//! written as it is read.

use std::fmt::Write;
use std::net::IpAddr;

use weir_shard::{ConnectionView, Helper};
use weir_wire::Tuple;

use crate::control::filter::{icmp_parts, state_name};
use crate::control::output::{Disconnected, Output};

/// Rows that widths are taken from.
const MEASURED: usize = 256;

/// A column.
pub(super) struct Column {
    pub(super) title: &'static str,
    /// What it is called in the details of one connection, and what it means.
    pub(super) meaning: &'static str,
    right: bool,
    pub(super) text: fn(&ConnectionView) -> String,
}

const fn column(
    title: &'static str,
    meaning: &'static str,
    right: bool,
    text: fn(&ConnectionView) -> String,
) -> Column {
    Column { title, meaning, right, text }
}

#[rustfmt::skip]
pub(super) const COLUMNS: &[Column] = &[
    column("PROTOCOL", "protocol", false, ConnectionView::protocol_name),
    column("ZONE", "zone", true, |c| c.zone.to_string()),
    column("STATE", "state", false, |c| state_name(c).to_owned()),
    column("SOURCE", "source of the original direction", false, |c| source(&c.original)),
    column("DESTINATION", "destination of the original direction", false, |c| destination(&c.original)),
    column("REPLY-SOURCE", "source of the replies", false, |c| source(&c.reply)),
    column("REPLY-DESTINATION", "destination of the replies", false, |c| destination(&c.reply)),
    column("NAT", "translated", false, |c| translated(c).to_owned()),
    column("MARK", "mark", true, |c| if c.mark == 0 { "-".into() } else { format!("{:#x}", c.mark) }),
    column("LABEL", "label", true, |c| if c.label == 0 { "-".into() } else { format!("{:#x}", c.label) }),
    column("HELPER", "helper", false, |c| c.helper.map_or("-", Helper::name).to_owned()),
    column("AGE", "open since", true, |c| duration(c.age)),
    column("LEFT", "ends without a packet in", true, |c| duration(c.remaining)),
];

fn translated(connection: &ConnectionView) -> &'static str {
    match (connection.source_nat, connection.destination_nat) {
        (true, true) => "src+dst",
        (true, false) => "src",
        (false, true) => "dst",
        (false, false) => "-",
    }
}

/// An address with its port, or with what stands in its place.
fn endpoint(address: IpAddr, port: Option<u16>, message: Option<String>) -> String {
    match (address, port, message) {
        (IpAddr::V6(address), Some(port), _) => format!("[{address}]:{port}"),
        (address, Some(port), _) => format!("{address}:{port}"),
        (address, None, Some(message)) => format!("{address},{message}"),
        (address, None, None) => address.to_string(),
    }
}

fn source(tuple: &Tuple) -> String {
    let message = icmp_parts(tuple).map(|(id, ..)| format!("id={id}"));
    endpoint(tuple.src(), tuple.has_ports().then(|| tuple.src_port()), message)
}

fn destination(tuple: &Tuple) -> String {
    let message = icmp_parts(tuple).map(|(_, kind, code)| format!("type={kind},code={code}"));
    endpoint(tuple.dst(), tuple.has_ports().then(|| tuple.dst_port()), message)
}

/// Milliseconds in the two largest units that there is something of.
pub(super) fn duration(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    match seconds {
        0..60 => format!("{}.{}s", seconds, milliseconds % 1000 / 100),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// Cells of a table on their way out.
pub(super) struct Table {
    titles: Vec<&'static str>,
    right: Vec<bool>,
    /// Rows held until there are enough of them to know the widths.
    held: Vec<Vec<String>>,
    widths: Option<Vec<usize>>,
}

impl Table {
    /// A table with these columns; numbers stand to the right.
    pub(super) fn new(columns: impl IntoIterator<Item = (&'static str, bool)>) -> Self {
        let (titles, right) = columns.into_iter().unzip();
        Self { titles, right, held: Vec::new(), widths: None }
    }

    /// A table of connections.
    pub(super) fn of_connections() -> Self {
        Self::new(COLUMNS.iter().map(|column| (column.title, column.right)))
    }

    /// Adds a row.
    pub(super) fn row(&mut self, cells: Vec<String>, out: &mut Output<'_>) -> Result<(), Disconnected> {
        if self.widths.is_some() {
            return self.write(&cells, out);
        }
        self.held.push(cells);
        if self.held.len() >= MEASURED { self.settle(out) } else { Ok(()) }
    }

    /// Writes what is held.
    pub(super) fn end(&mut self, out: &mut Output<'_>) -> Result<(), Disconnected> {
        if self.widths.is_none() { self.settle(out) } else { Ok(()) }
    }

    fn settle(&mut self, out: &mut Output<'_>) -> Result<(), Disconnected> {
        let mut widths: Vec<usize> = self.titles.iter().map(|title| title.len()).collect();
        for row in &self.held {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.len());
            }
        }
        self.widths = Some(widths);
        let titles: Vec<String> = self.titles.iter().map(|&title| title.to_owned()).collect();
        self.write(&titles, out)?;
        for row in std::mem::take(&mut self.held) {
            self.write(&row, out)?;
        }
        Ok(())
    }

    fn write(&self, cells: &[String], out: &mut Output<'_>) -> Result<(), Disconnected> {
        let mut line = String::new();
        let widths = self.widths.as_deref().unwrap_or_default();
        for ((cell, &width), &right) in cells.iter().zip(widths).zip(&self.right) {
            let _ = if right { write!(line, "{cell:>width$}  ") } else { write!(line, "{cell:<width$}  ") };
        }
        out.line(line.trim_end())
    }
}
