//! The largest connections by some figure, in bounded memory: a heap of as many as are wanted, whose smallest goes
//! when a larger one comes.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use weir_shard::ConnectionView;

/// What connections can be sorted by.
#[derive(Clone, Copy)]
pub(super) struct Order {
    name: &'static str,
    help: &'static str,
    key: fn(&ConnectionView) -> u64,
}

impl std::fmt::Debug for Order {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

const ORDERS: &[Order] = &[
    Order { name: "age", help: "oldest first", key: |connection| connection.age },
    Order { name: "youngest", help: "youngest first", key: |connection| u64::MAX - connection.age },
    Order { name: "left", help: "longest time until it ends first", key: |connection| connection.remaining },
    Order { name: "zone", help: "highest zone first", key: |connection| connection.zone.into() },
    Order { name: "mark", help: "highest mark first", key: |connection| connection.mark.into() },
];

impl Order {
    pub(super) fn named(name: &str) -> Option<Self> {
        ORDERS.iter().find(|order| order.name == name).copied()
    }
}

/// What can be said behind `--sort`.
pub(super) fn known() -> String {
    let names: Vec<&str> = ORDERS.iter().map(|order| order.name).collect();
    format!("connections are sorted by {}", names.join(", "))
}

pub(super) fn help() -> String {
    let lines = ORDERS.iter().map(|Order { name, help, .. }| format!("  {name:<20}{help}\n"));
    format!("Keys of --sort:\n{}", lines.collect::<String>())
}

/// An entry of the heap, ordered by its key; among equals the first that came is the largest.
struct Entry {
    key: (u64, Reverse<u64>),
    connection: ConnectionView,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key.cmp(&other.key)
    }
}

/// The largest so far.
pub(super) struct Sorted {
    order: Order,
    limit: usize,
    heap: BinaryHeap<Reverse<Entry>>,
    seen: u64,
}

impl Sorted {
    pub(super) fn new(order: Order, limit: usize) -> Self {
        Self { order, limit, heap: BinaryHeap::new(), seen: 0 }
    }

    /// Takes the connection if it is among the largest.
    pub(super) fn offer(&mut self, connection: &ConnectionView) {
        self.seen += 1;
        let key = ((self.order.key)(connection), Reverse(self.seen));
        if self.heap.len() >= self.limit {
            if self.heap.peek().is_none_or(|Reverse(smallest)| smallest.key >= key) {
                return;
            }
            self.heap.pop();
        }
        self.heap.push(Reverse(Entry { key, connection: connection.clone() }));
    }

    /// Largest first.
    pub(super) fn into_rows(self) -> Vec<ConnectionView> {
        self.heap.into_sorted_vec().into_iter().map(|Reverse(entry)| entry.connection).collect()
    }
}
