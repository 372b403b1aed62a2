//! What a translation did, for people (`ofproto/trace`): the rules it took, their actions and what came of them, as a
//! tree. Only a translation that is traced writes any of it; it runs on the control side over its own contexts, sends
//! nothing, counts nothing and learns nothing.

use core::fmt::Write as _;

use weir_shard::CtAction;

use crate::flow::key::Key;

/// How a line of the trace stands among the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A rule, or that there was none; its actions are inside.
    Table,
    /// An action, or what a packet meets besides.
    Action,
    /// A bucket of a group; its actions are inside.
    Bucket,
    /// What came of the action in front.
    Detail,
    /// What went wrong with the action in front.
    Warning,
}

#[derive(Debug)]
struct Node {
    kind: Kind,
    text: String,
    inside: Vec<Self>,
}

/// A packet on its way to another table by way of the tracker.
#[derive(Clone, Debug)]
pub struct Recirculation {
    /// Its id.
    pub id: u32,
    /// The packet as it was tracked, its port by number.
    pub flow: Key,
    /// How it was tracked.
    pub action: CtAction,
}

/// The record of one translation.
#[derive(Debug)]
pub struct Trace {
    /// Open nodes, the outermost first.
    open: Vec<Node>,
    lines: usize,
    /// Where it goes on.
    pub recirculations: Vec<Recirculation>,
    /// The packet as the last action left it, its port by number.
    pub last: Key,
}

/// Lines that are kept of one translation: tables that resubmit in circles make thousands.
const MAX_LINES: usize = 10_000;

impl Default for Trace {
    fn default() -> Self {
        let root = Node { kind: Kind::Action, text: String::new(), inside: Vec::new() };
        Self { open: vec![root], lines: 0, recirculations: Vec::new(), last: Key::ZERO }
    }
}

impl Trace {
    /// Opens a node; what comes next is inside.
    pub(super) fn begin(&mut self, kind: Kind, text: String) {
        self.open.push(Node { kind, text, inside: Vec::new() });
    }

    /// Closes what was opened last.
    pub(super) fn end(&mut self) {
        if self.open.len() > 1
            && let Some(node) = self.open.pop()
        {
            self.add(node);
        }
    }

    /// Adds a line.
    pub(super) fn line(&mut self, kind: Kind, text: impl Into<String>) {
        self.add(Node { kind, text: text.into(), inside: Vec::new() });
    }

    fn add(&mut self, node: Node) {
        self.lines += 1;
        if self.lines <= MAX_LINES
            && let Some(parent) = self.open.last_mut()
        {
            parent.inside.push(node);
        }
    }

    /// All of it as text.
    #[must_use]
    pub fn text(mut self) -> String {
        while self.open.len() > 1 {
            self.end();
        }
        let mut out = String::new();
        if let Some(root) = self.open.first() {
            print(&mut out, &root.inside, 0);
        }
        if self.lines > MAX_LINES {
            let _ = writeln!(out, "    ... {} more lines", self.lines - MAX_LINES);
        }
        out
    }
}

/// The last table of a list stands as far out as the list: a chain of resubmits does not move to the right.
fn print(out: &mut String, nodes: &[Node], level: usize) {
    for (index, node) in nodes.iter().enumerate() {
        let last = index + 1 == nodes.len();
        let (indent, inside) = match node.kind {
            Kind::Table if last => (level, level),
            Kind::Table | Kind::Bucket => (level + 4, level + 8),
            _ => (level + 4, level + 4),
        };
        let sign = match node.kind {
            Kind::Detail => " -> ",
            Kind::Warning => " >> ",
            _ => "",
        };
        let _ = writeln!(out, "{:indent$}{sign}{}", "", node.text);
        print(out, &node.inside, inside);
    }
}
