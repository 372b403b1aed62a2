//! The stream of connection events on its way to one listener: a bounded queue between whoever collects events from
//! the lcores and the client's thread. The collector never waits: what a slow listener has no room for is lost, and
//! the listener is told how much, at the place where it is missing.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use weir_shard::Event;

use super::tracking::EventFilter;

/// Events that wait for one listener: some ten megabytes at the most.
pub const MAX_WAITING: usize = 32_768;

/// An event with what only the control side knows.
#[derive(Clone, Debug, PartialEq)]
pub struct TimedEvent {
    /// What happened.
    pub event: Event,
    /// When, in milliseconds since 1970.
    pub time: u64,
}

/// What a listener gets.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// An event.
    Event(Arc<TimedEvent>),
    /// So many are missing here.
    Lost(u64),
}

/// The queue to one listener.
#[derive(Debug)]
pub struct EventQueue {
    filter: EventFilter,
    limit: usize,
    waiting: Mutex<Waiting>,
    news: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    records: VecDeque<Record>,
    /// Missing behind the last record.
    lost: u64,
    /// Nothing more will come.
    ended: bool,
}

impl EventQueue {
    /// A queue for `limit` records of events that `filter` admits.
    #[must_use]
    pub fn new(filter: EventFilter, limit: usize) -> Self {
        Self { filter, limit, waiting: Mutex::default(), news: Condvar::new() }
    }

    /// The queue is whole after every statement, so a poisoned lock is used on.
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds those of `events` that are meant, and that `lost` more followed, meant or not. Never waits for the listener.
    /// Returns how many of `events` are lost here, as the listener has not made room for them.
    #[must_use = "what is lost is counted"]
    pub fn push(&self, events: &[Arc<TimedEvent>], lost: u64) -> u64 {
        let mut waiting = self.waiting();
        let mut without_room = 0;
        for event in events.iter().filter(|event| self.filter.admits(&event.event)) {
            // One place is kept for the record of a loss.
            if waiting.records.len() + 1 >= self.limit {
                waiting.lost += 1;
                without_room += 1;
                continue;
            }
            waiting.tell_losses();
            waiting.records.push_back(Record::Event(Arc::clone(event)));
        }
        waiting.lost += lost;
        drop(waiting);
        self.news.notify_one();
        without_room
    }

    /// Nothing more will come: the datapath ends.
    pub fn end(&self) {
        self.waiting().ended = true;
        self.news.notify_one();
    }

    /// What has come, waiting for it up to `patience`; `None` when nothing more will.
    fn take(&self, patience: Duration) -> Option<Vec<Record>> {
        let idle = |waiting: &mut Waiting| waiting.records.is_empty() && waiting.lost == 0 && !waiting.ended;
        let waited = self.news.wait_timeout_while(self.waiting(), patience, idle);
        let mut waiting = waited.unwrap_or_else(PoisonError::into_inner).0;
        waiting.tell_losses();
        let records: Vec<Record> = waiting.records.drain(..).collect();
        (!records.is_empty() || !waiting.ended).then_some(records)
    }
}

impl Waiting {
    fn tell_losses(&mut self) {
        let lost = std::mem::take(&mut self.lost);
        if lost > 0 {
            self.records.push_back(Record::Lost(lost));
        }
    }
}

impl EventFilter {
    /// Whether an event is meant.
    #[must_use]
    pub fn admits(&self, event: &Event) -> bool {
        (self.kinds.is_empty() || self.kinds.contains(&event.kind.name()))
            && self.connections.admits(&event.connection)
    }
}

/// A listener's end. Dropping it ends the subscription: its collector notices that nobody else has the queue.
#[derive(Debug)]
pub struct Subscription(Arc<EventQueue>);

impl Subscription {
    /// The listener's end of `queue`.
    #[must_use]
    pub fn new(queue: Arc<EventQueue>) -> Self {
        Self(queue)
    }

    /// What has come, waiting for it up to `patience`; `None` when nothing more will.
    #[must_use]
    pub fn next(&self, patience: Duration) -> Option<Vec<Record>> {
        self.0.take(patience)
    }
}

#[cfg(test)]
mod tests {
    use weir_shard::EventKind;

    use super::*;
    use crate::control::commands::testing::connection;
    use crate::control::engine::ConnectionFilter;

    fn event(host: u8, kind: EventKind) -> Arc<TimedEvent> {
        Arc::new(TimedEvent { event: Event { at: 0, kind, connection: connection(host) }, time: 1 })
    }

    fn told(records: Vec<Record>) -> Vec<String> {
        let tell = |record| match record {
            Record::Event(event) => event.event.connection.original.src().to_string(),
            Record::Lost(count) => format!("lost {count}"),
        };
        records.into_iter().map(tell).collect()
    }

    #[test]
    fn a_listener_that_does_not_read_loses_what_does_not_fit_and_is_told_where() {
        let queue = Arc::new(EventQueue::new(EventFilter::default(), 4));
        let listener = Subscription::new(Arc::clone(&queue));
        let events: Vec<_> = (1..=9).map(|host| event(host, EventKind::New)).collect();
        assert_eq!(queue.push(&events[..8], 0), 5);
        assert_eq!(queue.waiting().records.len(), 3);
        assert_eq!(
            told(listener.next(Duration::ZERO).unwrap()),
            ["10.1.1.1", "10.1.1.2", "10.1.1.3", "lost 5"]
        );
        // What was lost before it got here stands where it is missing.
        assert_eq!(queue.push(&[], 2), 0, "counted where it was lost");
        assert_eq!(queue.push(&events[8..], 0), 0);
        assert_eq!(told(listener.next(Duration::ZERO).unwrap()), ["lost 2", "10.1.1.9"]);
        assert_eq!(listener.next(Duration::ZERO), Some(Vec::new()));
        queue.end();
        assert_eq!(listener.next(Duration::from_secs(3600)), None);
    }

    #[test]
    fn a_listener_gets_what_its_filter_admits() {
        let connections = ConnectionFilter { zone: Some(2), ..ConnectionFilter::default() };
        let filter = EventFilter { kinds: vec!["destroy"], connections };
        let queue = EventQueue::new(filter, 10);
        let end = EventKind::Destroy(weir_shard::EndCause::Flush);
        let mut other = connection(3);
        other.zone = 2;
        let event_of =
            |kind| Arc::new(TimedEvent { event: Event { at: 0, kind, connection: other.clone() }, time: 1 });
        assert_eq!(queue.push(&[event(1, end), event_of(EventKind::New), event_of(end)], 0), 0);
        let full = EventQueue::new(queue.filter.clone(), 1);
        assert_eq!(full.push(&[event(1, end), event_of(end)], 0), 1, "what is not meant is not lost");
        assert_eq!(told(queue.take(Duration::ZERO).unwrap()), ["10.1.1.3"]);
    }
}
