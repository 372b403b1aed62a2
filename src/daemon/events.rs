//! Brings connection events from the lcores to those who listen. Each lcore records into a buffer of its own; a
//! thread here takes the full one away in exchange for an empty one, by a job between two bursts, and hands the
//! events to each listener's bounded queue. Without listeners the lcores record nothing and the thread sleeps.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use weir_shard::{Event, EventBatch};

use super::lock;
use super::state::State;
use crate::control::engine::EngineError;
use crate::control::events::{EventQueue, MAX_WAITING, Subscription, TimedEvent};
use crate::control::tracking::EventFilter;
use crate::lcore::CallError;

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
            match visit(state, index, buffer) {
                Ok((batch, now)) => {
                    busy |= batch.events.len() * 2 >= BUFFER || batch.lost > 0;
                    spare = round.add(batch, now);
                }
                Err(error) => tracing::debug!("no connection events: {error}"),
            }
            if spare.capacity() < BUFFER {
                spare = Vec::with_capacity(BUFFER);
            }
        }
        round.hand_out(&shared.listeners().queues);
    }
}

/// Exchanges an lcore's buffer; what it held, and the lcore's time.
fn visit(state: &Mutex<State>, index: usize, empty: Vec<Event>) -> Result<(EventBatch, u64), CallError> {
    let state = lock(state);
    let Some(lcore) = state.lcores.get(index) else { return Ok((EventBatch::default(), 0)) };
    lcore.call(move |polling| (polling.worker_mut().shard_mut().exchange_events(empty), polling.now()))
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
    fn hand_out(mut self, queues: &[Arc<EventQueue>]) {
        if self.events.is_empty() && self.lost == 0 {
            return;
        }
        self.events.sort_by_key(|event| event.event.at);
        queues.iter().for_each(|queue| queue.push(&self.events, self.lost));
    }
}
