//! The control side's end of an lcore: start it, ask it, stop it. A call is a closure that runs on the lcore
//! between two bursts; it must be short, and long work (a dump) is a sequence of calls. A caller that has waited
//! long enough takes its call back: what was not answered has not happened and will not happen later.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::poll::Polling;

/// What an lcore is asked to do.
pub(super) type Job = Box<dyn FnOnce(&mut Polling) + Send>;

/// Calls that may wait for an lcore.
const QUEUE: usize = 64;
/// How long a call may take before the lcore counts as stuck. A burst takes microseconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a call had no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// It has ended.
    #[error("the lcore on CPU {0} has ended")]
    Stopped(usize),
    /// It did not answer in time.
    #[error(
        "the lcore on CPU {0} does not answer; is that CPU taken by something that never yields (top -H), or the \
         machine out of memory?"
    )]
    Stuck(usize),
    /// Too many calls wait already.
    #[error("the lcore on CPU {0} has {QUEUE} requests waiting; try again")]
    Busy(usize),
}

/// Why an lcore did not start.
#[derive(Debug, thiserror::Error)]
pub enum LcoreError {
    /// The thread could not be made.
    #[error("cannot start the thread of the lcore on CPU {cpu}: {source}")]
    Thread {
        /// The CPU it was for.
        cpu: usize,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The thread could not be set up.
    #[error("cannot set up the lcore on CPU {cpu}: {reason}")]
    Setup {
        /// The CPU it was for.
        cpu: usize,
        /// What went wrong.
        reason: String,
    },
}

/// A running lcore. Dropping it stops it.
#[derive(Debug)]
pub struct Lcore {
    cpu: usize,
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
    /// A call was given up, and nothing has run since: further ones would only wait as long again.
    late: Arc<AtomicBool>,
    patience: Duration,
}

impl Lcore {
    /// Starts a thread that first runs `setup` (pinning, DPDK registration), then polls until it is stopped.
    /// Whatever `setup` returns beside the polling state lives until the thread ends. `died` is told, on the
    /// thread, when polling ends by a panic, which only a bug can cause.
    ///
    /// # Errors
    /// When the thread cannot be made, or `setup` fails; nothing is left running then.
    pub fn start<G>(
        cpu: usize,
        setup: impl FnOnce() -> Result<(Polling, G), String> + Send + 'static,
        died: impl FnOnce(usize) + Send + 'static,
    ) -> Result<Self, LcoreError> {
        let (jobs, inbox) = sync_channel::<Job>(QUEUE);
        let (ready, started) = sync_channel::<Result<(), String>>(1);
        let body = move || {
            let (mut polling, guard) = match setup() {
                Ok(made) => made,
                Err(reason) => {
                    let _ = ready.send(Err(reason));
                    return;
                }
            };
            let _ = ready.send(Ok(()));
            // Nothing of what a panic may leave half done is used again: it is only dropped.
            let ended = catch_unwind(AssertUnwindSafe(|| polling.run(&inbox)));
            drop(inbox);
            if ended.is_err() {
                died(cpu);
            }
            // Queues and packets go while the thread still has its place in DPDK.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(polling)));
            drop(guard);
        };
        let thread = std::thread::Builder::new()
            .name(format!("lcore-{cpu}"))
            .spawn(body)
            .map_err(|source| LcoreError::Thread { cpu, source })?;
        match started.recv() {
            Ok(Ok(())) => Ok(Self {
                cpu,
                jobs: Some(jobs),
                thread: Some(thread),
                late: Arc::default(),
                patience: PATIENCE,
            }),
            failed => {
                let _ = thread.join();
                let reason = match failed {
                    Ok(Err(reason)) => reason,
                    _ => "its thread ended at once".into(),
                };
                Err(LcoreError::Setup { cpu, reason })
            }
        }
    }

    /// The CPU it runs on.
    #[must_use]
    pub fn cpu(&self) -> usize {
        self.cpu
    }

    /// Runs `job` on the lcore between two bursts and gives its answer. While an lcore is known not to answer,
    /// this fails at once.
    ///
    /// # Errors
    /// When the lcore has stopped or does not answer; the job has not run then and will not run, unless it had
    /// begun and itself takes that long.
    pub fn call<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Polling) -> R + Send + 'static,
    ) -> Result<R, CallError> {
        if self.late.load(Ordering::Acquire) {
            return Err(CallError::Stuck(self.cpu));
        }
        let (answer, result) = sync_channel(1);
        // Whoever sets it first: the lcore that begins the job, or the caller that gives up.
        let claim = Arc::new(AtomicBool::new(false));
        let (taken, late) = (Arc::clone(&claim), Arc::clone(&self.late));
        self.send(Box::new(move |polling| {
            let given_up = taken.swap(true, Ordering::AcqRel);
            late.store(false, Ordering::Release);
            if !given_up {
                let _ = answer.send(job(polling));
            }
        }))?;
        match result.recv_timeout(self.patience) {
            Ok(answer) => return Ok(answer),
            Err(RecvTimeoutError::Disconnected) => return Err(CallError::Stopped(self.cpu)),
            Err(RecvTimeoutError::Timeout) => {}
        }
        // In this order: the lcore's "late no more" comes after its look at the claim, and so after this.
        self.late.store(true, Ordering::Release);
        let begun = claim.swap(true, Ordering::AcqRel);
        match result.recv_timeout(if begun { self.patience } else { Duration::ZERO }) {
            Ok(answer) => {
                self.late.store(false, Ordering::Release);
                Ok(answer)
            }
            Err(_) => Err(CallError::Stuck(self.cpu)),
        }
    }

    /// Has `job` run on the lcore as soon as it answers, and does not wait for it.
    ///
    /// # Errors
    /// When the lcore has ended, or too much waits for it.
    pub fn order(&self, job: impl FnOnce(&mut Polling) + Send + 'static) -> Result<(), CallError> {
        let late = Arc::clone(&self.late);
        self.send(Box::new(move |polling| {
            late.store(false, Ordering::Release);
            job(polling);
        }))
    }

    fn send(&self, job: Job) -> Result<(), CallError> {
        let jobs = self.jobs.as_ref().ok_or(CallError::Stopped(self.cpu))?;
        jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => CallError::Busy(self.cpu),
            TrySendError::Disconnected(_) => CallError::Stopped(self.cpu),
        })
    }
}

impl Drop for Lcore {
    fn drop(&mut self) {
        // The loop ends when nobody can send jobs any more.
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The next job, or that there will be none.
pub(super) fn next(inbox: &Receiver<Job>) -> Result<Option<Job>, ()> {
    match inbox.try_recv() {
        Ok(job) => Ok(Some(job)),
        Err(TryRecvError::Empty) => Ok(None),
        Err(TryRecvError::Disconnected) => Err(()),
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use weir_shard::ShardConfig;

    use super::*;
    use crate::lcore::{Clock, Idle};
    use crate::pipeline::{PublishedSnapshot, SnapshotReader, Worker, WorkerConfig};
    use crate::switch::Switch;

    impl Lcore {
        /// Has calls wait so long.
        pub(crate) fn set_patience(&mut self, patience: Duration) {
            self.patience = patience;
        }
    }

    /// An lcore on no CPU of its own.
    pub(crate) fn lcore(died: impl FnOnce(usize) + Send + 'static) -> Lcore {
        lcore_with(PublishedSnapshot::new(Switch::default().snapshot()).reader(), died)
    }

    /// An lcore on no CPU of its own that goes by these snapshots.
    pub(crate) fn lcore_with(snapshot: SnapshotReader, died: impl FnOnce(usize) + Send + 'static) -> Lcore {
        let setup = || {
            let shard = ShardConfig { capacity: 8, max_connections: 8, ..ShardConfig::default() };
            let config = WorkerConfig { shard, megaflows: 8, secret: [1; 8], trajectories: true };
            let worker = Worker::new(config, snapshot).map_err(|e| e.to_string())?;
            Ok((Polling::new(worker, Clock::new(0, 1_000_000_000), Idle::Share), ()))
        };
        Lcore::start(7, setup, died).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::testing::lcore;
    use super::*;

    #[test]
    fn a_call_runs_on_the_lcores_thread_and_its_answer_comes_back() {
        let lcore = lcore(|_| {});
        let name = lcore.call(|_| std::thread::current().name().map(str::to_owned)).unwrap();
        assert_eq!((lcore.cpu(), name.as_deref()), (7, Some("lcore-7")));
    }

    #[test]
    fn what_an_lcore_writes_all_the_time_shares_no_cache_line_with_another_lcore_s() {
        /// Lines of 64 bytes come in pairs.
        const PAIR: usize = 128;
        fn place<T>(value: &T) -> std::ops::RangeInclusive<usize> {
            let start = std::ptr::from_ref(value).addr();
            start / PAIR..=(start + size_of::<T>() - 1) / PAIR
        }
        let lcores = [lcore(|_| {}), lcore(|_| {}), lcore(|_| {})];
        let places = lcores.each_ref().map(|lcore| {
            lcore
                .call(|polling| {
                    let mut places = vec![place(polling)];
                    let table = polling.worker().shard().memory();
                    let touched = table.iter().filter(|span| span.bytes > 0);
                    places.extend(
                        touched.map(|span| span.address / PAIR..=(span.address + span.bytes - 1) / PAIR),
                    );
                    places
                })
                .unwrap()
        });
        for (first, second) in [(0, 1), (0, 2), (1, 2)] {
            for (a, b) in places[first].iter().flat_map(|a| places[second].iter().map(move |b| (a, b))) {
                assert!(a.end() < b.start() || b.end() < a.start(), "{a:?} and {b:?}");
            }
        }
        assert_eq!(align_of::<Polling>(), PAIR, "whatever it is put into");
    }

    #[test]
    fn what_was_given_up_never_happens_and_a_stuck_lcore_is_asked_again_only_when_it_answers() {
        let mut lcore = lcore(|_| {});
        let (release, wait) = channel::<()>();
        lcore.order(move |_| wait.recv().unwrap()).unwrap();
        lcore.set_patience(Duration::from_millis(20));
        let (happened, seen) = channel();
        let second = happened.clone();
        assert_eq!(lcore.call(move |_| happened.send(1)).unwrap_err(), CallError::Stuck(7));
        // Patience is over already: this one does not wait, and is not even sent.
        lcore.set_patience(Duration::from_secs(3600));
        assert_eq!(lcore.call(move |_| second.send(2)).unwrap_err(), CallError::Stuck(7));
        let (ordered, done) = channel();
        lcore.order(move |_| ordered.send(()).unwrap()).unwrap();
        release.send(()).unwrap();
        done.recv().unwrap();
        assert_eq!(lcore.call(|_| 3), Ok(3), "it answers again");
        assert!(seen.try_recv().is_err());
    }

    #[test]
    fn an_lcore_that_panics_is_reported_and_its_calls_fail_at_once() {
        let (died, dead) = channel();
        let lcore = lcore(move |cpu| died.send(cpu).unwrap());
        let result = lcore.call::<()>(|_| panic!("on purpose"));
        assert_eq!(result, Err(CallError::Stopped(7)));
        assert_eq!(dead.recv(), Ok(7));
        assert_eq!(lcore.call(|_| ()), Err(CallError::Stopped(7)));
    }

    #[test]
    fn a_set_up_that_fails_says_why() {
        let error = Lcore::start::<()>(3, || Err("no such CPU".into()), |_| {}).unwrap_err().to_string();
        assert!(error.contains("CPU 3") && error.contains("no such CPU"), "{error}");
    }
}
