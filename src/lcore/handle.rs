//! The control side's end of an lcore: start it, ask it, stop it. A call is a closure that runs on the lcore
//! between two bursts; it must be short, and long work (a dump) is a sequence of calls.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
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
    #[error("lcore {0} has stopped")]
    Stopped(usize),
    /// It did not answer in time.
    #[error("lcore {0} did not answer within 5 seconds; is its CPU shared with something that never yields?")]
    Stuck(usize),
    /// Too many calls wait already.
    #[error("lcore {0} has {QUEUE} requests waiting; try again")]
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
}

impl Lcore {
    /// Starts a thread that first runs `setup` (pinning, DPDK registration), then polls until it is stopped.
    /// Whatever `setup` returns beside the polling state lives until the thread ends.
    ///
    /// # Errors
    /// When the thread cannot be made, or `setup` fails; nothing is left running then.
    pub fn start<G>(
        cpu: usize,
        setup: impl FnOnce() -> Result<(Polling, G), String> + Send + 'static,
    ) -> Result<Self, LcoreError> {
        let (jobs, inbox) = sync_channel::<Job>(QUEUE);
        let (ready, started) = sync_channel::<Result<(), String>>(1);
        let body = move || {
            let (mut polling, _guard) = match setup() {
                Ok(made) => made,
                Err(reason) => {
                    let _ = ready.send(Err(reason));
                    return;
                }
            };
            let _ = ready.send(Ok(()));
            polling.run(&inbox);
        };
        let thread = std::thread::Builder::new()
            .name(format!("lcore-{cpu}"))
            .spawn(body)
            .map_err(|source| LcoreError::Thread { cpu, source })?;
        match started.recv() {
            Ok(Ok(())) => Ok(Self { cpu, jobs: Some(jobs), thread: Some(thread) }),
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

    /// Runs `job` on the lcore between two bursts and gives its answer.
    ///
    /// # Errors
    /// When the lcore has stopped or does not answer; the job may then still run later.
    pub fn call<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Polling) -> R + Send + 'static,
    ) -> Result<R, CallError> {
        let (answer, result) = sync_channel(1);
        let job: Job = Box::new(move |polling| {
            let _ = answer.send(job(polling));
        });
        let jobs = self.jobs.as_ref().ok_or(CallError::Stopped(self.cpu))?;
        jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => CallError::Busy(self.cpu),
            TrySendError::Disconnected(_) => CallError::Stopped(self.cpu),
        })?;
        result.recv_timeout(PATIENCE).map_err(|error| match error {
            RecvTimeoutError::Timeout => CallError::Stuck(self.cpu),
            RecvTimeoutError::Disconnected => CallError::Stopped(self.cpu),
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
        Err(std::sync::mpsc::TryRecvError::Empty) => Ok(None),
        Err(std::sync::mpsc::TryRecvError::Disconnected) => Err(()),
    }
}
