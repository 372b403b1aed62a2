//! Brings connection events from the lcores to those who listen. Each lcore records into a buffer of its own; a
//! thread here takes the full one away in exchange for an empty one, by a job between two bursts, and hands the
//! events to each listener's bounded queue. Without listeners the lcores record nothing and the thread sleeps.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use weir_shard::{Event, EventBatch};

use super::lock;
use super::state::State;
use crate::control::engine::{Counter, EngineError};
use crate::control::events::{EventQueue, MAX_WAITING, Subscription, TimedEvent};
use crate::control::tracking::EventFilter;
use crate::lcore::{CallError, Lcore, Polling};

/// Events that an lcore records between two visits: some four megabytes.
const BUFFER: usize = 16_384;
/// Between two visits, unless one has found its buffer half full.
const PERIOD: Duration = Duration::from_millis(10);
/// Listeners there may be; each has a client's place, and others need some too.
const MAX_LISTENERS: usize = 8;

/// The thread and who listens to it; dropping it ends both.
#[derive(Debug)]
pub(super) struct Collector {
    shared: Arc<Shared>,
    state: Arc<Mutex<State>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    listeners: Mutex<Listeners>,
    news: Condvar,
    /// Events that listeners' queues had no room for, each counted once for each such listener.
    lost: AtomicU64,
}

#[derive(Debug, Default)]
struct Listeners {
    queues: Vec<Arc<EventQueue>>,
    /// The lcores record.
    recording: bool,
    ending: bool,
}

impl Shared {
    /// Whole after every statement, so a poisoned lock is used on. Taken before the state's, never after.
    fn listeners(&self) -> MutexGuard<'_, Listeners> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn counter(&self) -> Counter {
        Counter {
            name: "listener_events_lost".into(),
            total: self.lost.load(Ordering::Relaxed),
            help: "connection events that a listener read too slowly to get, counted for each listener"
                .into(),
        }
    }

    /// Hands what a round has brought to whoever listens.
    fn hand_out(&self, round: Round) {
        let lost = round.hand_out(&self.listeners().queues);
        self.lost.fetch_add(lost, Ordering::Relaxed);
    }
}

impl Collector {
    pub(super) fn start(state: Arc<Mutex<State>>) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let (inner, lcores) = (Arc::clone(&shared), Arc::clone(&state));
        let thread =
            std::thread::Builder::new().name("events".into()).spawn(move || collect(&inner, &lcores))?;
        Ok(Self { shared, state, thread: Some(thread) })
    }

    /// A new listener, who hears of everything from now on.
    pub(super) fn subscribe(&self, filter: EventFilter) -> Result<Subscription, EngineError> {
        let mut listeners = self.shared.listeners();
        listeners.forget_those_gone();
        if listeners.queues.len() >= MAX_LISTENERS {
            return Err(EngineError::Refused(format!(
                "{MAX_LISTENERS} clients listen to connection events already; end one of them"
            )));
        }
        if !listeners.recording {
            if let Err(error) = begin(&lock(&self.state)) {
                end(&lock(&self.state));
                return Err(error.into());
            }
            listeners.recording = true;
        }
        let queue = Arc::new(EventQueue::new(filter, MAX_WAITING));
        listeners.queues.push(Arc::clone(&queue));
        drop(listeners);
        self.shared.news.notify_one();
        Ok(Subscription::new(queue))
    }

    /// What was lost behind the lcores' buffers, of all listeners there ever were.
    pub(super) fn counter(&self) -> Counter {
        self.shared.counter()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        {
            let mut listeners = self.shared.listeners();
            listeners.ending = true;
            listeners.queues.iter().for_each(|queue| queue.end());
        }
        self.shared.news.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Listeners {
    /// A listener who has dropped its end has left us the only reference.
    fn forget_those_gone(&mut self) {
        self.queues.retain(|queue| Arc::strong_count(queue) > 1);
    }
}

/// Has every lcore record.
fn begin(state: &State) -> Result<(), CallError> {
    for lcore in &state.lcores {
        let buffer = Vec::with_capacity(BUFFER);
        lcore.call(move |polling| polling.worker_mut().shard_mut().listen(buffer))?;
    }
    Ok(())
}

/// Has no lcore record any more. One that does not answer does so once it is back.
fn end(state: &State) {
    for lcore in &state.lcores {
        let _ = lcore.order(|polling| drop(polling.worker_mut().shard_mut().stop_listening()));
    }
}

/// The thread's work.
fn collect(shared: &Shared, state: &Mutex<State>) {
    let mut spare: Vec<Event> = Vec::with_capacity(BUFFER);
    // Batches come through here, not as answers: one that is late comes with a later round.
    let (batches, arrived) = channel::<Batch>();
    let mut busy = false;
    loop {
        let mut listeners = shared.listeners();
        let pause = if busy { Duration::ZERO } else { PERIOD };
        listeners = shared.news.wait_timeout(listeners, pause).unwrap_or_else(PoisonError::into_inner).0;
        listeners.forget_those_gone();
        if listeners.queues.is_empty() && listeners.recording {
            end(&lock(state));
            listeners.recording = false;
        }
        if !listeners.recording && !listeners.ending {
            let asleep = |listeners: &mut Listeners| !listeners.recording && !listeners.ending;
            let woken = shared.news.wait_while(listeners, asleep);
            listeners = woken.unwrap_or_else(PoisonError::into_inner);
            // What came late is older than who listens now.
            arrived.try_iter().for_each(drop);
        }
        if listeners.ending {
            return;
        }
        drop(listeners);
        let count = lock(state).lcores.len();
        let mut round = Round::default();
        busy = false;
        for index in 0..count {
            let buffer = std::mem::take(&mut spare);
            if let Some(lcore) = lock(state).lcores.get(index)
                && let Err(error) = visit(lcore, &batches, move |polling| exchange(polling, buffer))
            {
                tracing::debug!("no connection events: {error}");
            }
            for (batch, now) in arrived.try_iter() {
                busy |= batch.events.len() * 2 >= BUFFER || batch.lost > 0;
                spare = round.add(batch, now);
            }
            if spare.capacity() < BUFFER {
                spare = Vec::with_capacity(BUFFER);
            }
        }
        shared.hand_out(round);
    }
}

/// What an lcore has recorded, and what its clock reads.
type Batch = (EventBatch, u64);

/// Has an lcore send what `exchange` takes from it to `batches`. That way an lcore that is given up while it does so
/// (see [`Lcore::call`]) takes no events with it: they arrive when it is done.
fn visit(
    lcore: &Lcore,
    batches: &Sender<Batch>,
    exchange: impl FnOnce(&mut Polling) -> Batch + Send + 'static,
) -> Result<(), CallError> {
    let batches = batches.clone();
    lcore.call(move |polling| {
        // Nobody receives only when the datapath ends.
        let _ = batches.send(exchange(polling));
    })
}

/// Exchanges an lcore's buffer.
fn exchange(polling: &mut Polling, empty: Vec<Event>) -> Batch {
    (polling.worker_mut().shard_mut().exchange_events(empty), polling.now())
}

/// What one visit to all lcores has brought.
#[derive(Default)]
struct Round {
    events: Vec<Arc<TimedEvent>>,
    lost: u64,
}

impl Round {
    /// Takes a batch of an lcore whose clock reads `now`; gives the emptied buffer back.
    fn add(&mut self, mut batch: EventBatch, now: u64) -> Vec<Event> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        self.lost += batch.lost;
        self.events.extend(batch.events.drain(..).map(|event| {
            let time = wall.saturating_sub(now.saturating_sub(event.at));
            Arc::new(TimedEvent { event, time })
        }));
        batch.events
    }

    /// In the order of time; events of one lcore keep theirs.
    /// Returns how many found no room, in all queues together.
    fn hand_out(mut self, queues: &[Arc<EventQueue>]) -> u64 {
        if self.events.is_empty() && self.lost == 0 {
            return 0;
        }
        self.events.sort_by_key(|event| event.event.at);
        queues.iter().map(|queue| queue.push(&self.events, self.lost)).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::control::commands::testing::connection;
    use crate::control::events::Record;
    use crate::lcore::testing::lcore;
    use weir_shard::EventKind;

    fn batch(count: u8) -> EventBatch {
        let event = |host| Event { at: 0, kind: EventKind::New, connection: connection(host) };
        EventBatch { events: (0..count).map(event).collect(), lost: 0 }
    }

    #[test]
    fn what_listeners_have_no_room_for_is_counted_for_each_and_in_all() {
        let shared = Shared::default();
        let queue = |limit| Arc::new(EventQueue::new(EventFilter::default(), limit));
        shared.listeners().queues = vec![queue(4), queue(7), queue(100)];
        let mut round = Round::default();
        round.add(batch(10), 0);
        shared.hand_out(round);
        assert_eq!(shared.counter().total, 7 + 4);
        // What the lcores lost they have counted themselves.
        let mut round = Round::default();
        round.add(EventBatch { lost: 5, ..batch(0) }, 0);
        shared.hand_out(round);
        assert_eq!(shared.counter().total, 7 + 4);
        let listeners = shared.listeners();
        let told = |at: usize| Subscription::new(Arc::clone(&listeners.queues[at])).next(Duration::ZERO);
        assert_eq!(told(0).unwrap().last(), Some(&Record::Lost(7 + 5)));
        assert_eq!(told(2).unwrap().last(), Some(&Record::Lost(5)));
    }

    #[test]
    fn an_lcore_that_is_given_up_in_the_middle_takes_no_events_with_it() {
        let mut lcore = lcore(|_| {});
        lcore.set_patience(Duration::from_millis(20));
        let (batches, arrived) = channel();
        let (release, wait) = channel::<()>();
        let slow = move |_: &mut Polling| {
            wait.recv().unwrap();
            (batch(3), 0)
        };
        assert_eq!(visit(&lcore, &batches, slow), Err(CallError::Stuck(lcore.cpu())));
        assert!(arrived.try_recv().is_err());
        release.send(()).unwrap();
        assert_eq!(arrived.recv_timeout(Duration::from_secs(60)).unwrap().0.events.len(), 3);
    }
}
