//! The polling loop of one lcore: receive from queues and from other lcores, process, send, and between the bursts a
//! bounded piece of housekeeping and one job of the control side.

use std::sync::mpsc::Receiver;
use std::time::Duration;

use arrayvec::ArrayVec;
use weir_ffi::{Burst, Mbuf, RxQueue, TxQueue};
use weir_shard::fragments::Family;

use super::arrivals::{Arrivals, Examination};
use super::clock::Clock;
use super::handle::{Job, next};
use super::mailboxes::{Fill, Incoming, Mailboxes};
use super::transmit::Outputs;
use crate::pipeline::{Injection, PortCounters, PortId, Worker};

/// What an lcore does when there is nothing to receive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Idle {
    /// Polls on: lowest latency, the CPU is its own.
    #[default]
    Spin,
    /// Gives the CPU to whoever wants it after some empty rounds, and naps once nothing has come for a while: for
    /// CPUs that are shared (profile lab).
    Share,
}

/// Rounds between two looks at the control side's requests and the housekeeping.
const ROUNDS: u32 = 8;
/// Empty rounds in a row before an lcore that shares its CPU yields.
const PATIENCE: u32 = 64;
/// Milliseconds without a packet or a call before it naps.
const AWAKE: u64 = 2;
/// How long a nap is: with the kernel's usual timer slack of 50 microseconds a packet waits 0.1 ms at the most, which
/// the rings of virtual devices hold easily, and an idle lcore takes a few hundredths of its CPU.
const NAP: Duration = Duration::from_micros(50);

/// Where an lcore's cycles went, in time stamp counter ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cycles {
    /// Rounds that received something, from receive to transmit.
    pub processing: u64,
    /// Everything else.
    pub idle: u64,
    /// Rounds that received something.
    pub busy_rounds: u64,
    /// Rounds that did not.
    pub idle_rounds: u64,
}

/// What one lcore has counted for a port.
#[derive(Clone, Copy, Debug, Default)]
pub struct PortFigures {
    /// What went through the datapath.
    pub carried: PortCounters,
    /// Received frames that could not be brought into one buffer (too long, no buffer, no room for a VLAN tag).
    pub unusable: u64,
    /// Frames that the driver did not take.
    pub refused: u64,
}

#[derive(Debug)]
struct Input {
    port: PortId,
    queue: RxQueue,
    /// While the card behind the queue has yet to show that it steers.
    examination: Option<Box<Examination>>,
    /// What came of that.
    arrivals: Arrivals,
}

/// All that a polling thread owns, on cache lines (which CPUs fetch in pairs) that are nobody else's.
#[derive(Debug)]
#[repr(align(128))]
pub struct Polling {
    worker: Worker<Mbuf>,
    inputs: Vec<Input>,
    outputs: Outputs,
    letters: Incoming<Mbuf>,
    clock: Clock,
    idle: Idle,
    /// Packets that are received at once.
    burst: usize,
    cycles: Cycles,
    stopping: bool,
}

impl Polling {
    /// Polls nothing yet.
    #[must_use]
    pub fn new(worker: Worker<Mbuf>, clock: Clock, idle: Idle) -> Self {
        Self {
            worker,
            inputs: Vec::new(),
            outputs: Outputs::default(),
            letters: Incoming::default(),
            clock,
            idle,
            burst: weir_ffi::BURST,
            cycles: Cycles::default(),
            stopping: false,
        }
    }

    /// Receives at most so many packets at once.
    #[must_use]
    pub fn with_burst(mut self, burst: usize) -> Self {
        self.burst = burst;
        self
    }

    /// Exchanges letters with the other lcores by these mailboxes.
    #[must_use]
    pub fn with_mailboxes(mut self, mailboxes: Mailboxes<Mbuf>) -> Self {
        self.outputs.set_letters(mailboxes.outgoing);
        self.letters = mailboxes.incoming;
        self
    }

    /// The datapath.
    #[must_use]
    pub fn worker(&self) -> &Worker<Mbuf> {
        &self.worker
    }

    /// The datapath.
    pub fn worker_mut(&mut self) -> &mut Worker<Mbuf> {
        &mut self.worker
    }

    /// Milliseconds now, on the clock that the worker sees.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.clock.milliseconds(weir_ffi::tsc())
    }

    /// Where the cycles went.
    #[must_use]
    pub fn cycles(&self) -> Cycles {
        self.cycles
    }

    /// Starts all statistics anew.
    pub fn clear_statistics(&mut self) {
        self.cycles = Cycles::default();
        self.worker.clear_counters();
        self.letters.clear_fills();
    }

    /// How full the mailboxes from other lcores got since the statistics were cleared.
    #[must_use]
    pub fn fills(&self) -> Vec<Fill> {
        self.letters.fills().collect()
    }

    /// Receives from `queue` as `port` from the next round on, and looks at its first packets if they are to be examined.
    pub fn add_input(&mut self, port: PortId, queue: RxQueue, examination: Option<Examination>) {
        let examination = examination.map(Box::new);
        self.inputs.push(Input { port, queue, examination, arrivals: Arrivals::default() });
    }

    /// What the first packets of a port showed, and whether there is more to be seen.
    #[must_use]
    pub fn arrivals(&self, port: PortId) -> (Arrivals, bool) {
        let mut all = Arrivals::default();
        let mut open = false;
        for input in self.inputs.iter().filter(|input| input.port == port) {
            all.add(input.examination.as_ref().map_or(&input.arrivals, |examination| examination.seen()));
            open |= input.examination.is_some();
        }
        (all, open)
    }

    /// Sends to `port` by `queue` from now on.
    pub fn add_output(&mut self, port: PortId, queue: TxQueue) {
        self.outputs.add(port, queue);
    }

    /// Receives nothing more from a port, and gives its queues up.
    pub fn remove_inputs(&mut self, port: PortId) -> Vec<RxQueue> {
        // Fragments that came by it may be held, and with them buffers of its pool.
        self.worker.purge_fragments(&Family::ALL);
        let all = std::mem::take(&mut self.inputs).into_iter();
        let (gone, kept): (Vec<Input>, _) = all.partition(|input| input.port == port);
        self.inputs = kept;
        gone.into_iter().map(|input| input.queue).collect()
    }

    /// Sends nothing more to a port, forgets what was counted for it, and gives its queue up.
    pub fn remove_output(&mut self, port: PortId) -> Option<TxQueue> {
        self.worker.clear_port_counters(port);
        self.outputs.remove(port)
    }

    /// Ports and queue numbers it receives from.
    #[must_use]
    pub fn inputs(&self) -> Vec<(PortId, u16)> {
        self.inputs.iter().map(|input| (input.port, input.queue.queue())).collect()
    }

    /// What this lcore has counted for `port`.
    #[must_use]
    pub fn port_figures(&self, port: PortId) -> PortFigures {
        let mut unusable = 0;
        for input in self.inputs.iter().filter(|input| input.port == port) {
            let seen = input.queue.counters();
            unusable += seen.dropped_too_long + seen.dropped_no_buffer + seen.dropped_vlan;
        }
        PortFigures {
            carried: self.worker.port_counters(port),
            unusable,
            refused: self.outputs.refused(port),
        }
    }

    /// Frames for ports that were gone.
    #[must_use]
    pub fn unroutable(&self) -> u64 {
        self.outputs.unroutable()
    }

    /// Takes packets of the control side through the datapath, each on its own, and sends what comes of them.
    pub fn inject(&mut self, injection: &Injection, frames: Vec<Mbuf>) {
        let now = self.now();
        for frame in frames {
            self.worker.inject(now, injection, frame, &mut self.outputs);
            self.outputs.flush();
        }
    }

    /// Works on every letter that was sent to this lcore so far. What belonged to a port that is gone is dropped by that:
    /// see [`Snapshot::numbering`](crate::pipeline::Snapshot::numbering).
    pub fn settle_letters(&mut self) {
        let now = self.now();
        let Self { worker, outputs, letters, .. } = self;
        letters.collect_all(|from, letters| {
            worker.receive(now, from, letters, outputs);
            outputs.flush();
        });
    }

    /// Polls until the control side is gone.
    pub(super) fn run(&mut self, inbox: &Receiver<Job>) {
        let mut mark = weir_ffi::tsc();
        let mut last_busy = self.clock.milliseconds(mark);
        let mut empty = 0u32;
        let mut countdown = ROUNDS;
        while !self.stopping {
            let received = self.round(mark);
            let end = weir_ffi::tsc();
            let spent = end.wrapping_sub(mark);
            mark = end;
            if received {
                self.cycles.processing += spent;
                self.cycles.busy_rounds += 1;
                empty = 0;
                last_busy = self.clock.milliseconds(end);
            } else {
                self.cycles.idle += spent;
                self.cycles.idle_rounds += 1;
                empty = empty.saturating_add(1);
            }
            countdown -= 1;
            if countdown == 0 || empty > PATIENCE {
                countdown = ROUNDS;
                let now = self.clock.milliseconds(end);
                if self.between(inbox, now) {
                    // A dump is many calls, one after another.
                    last_busy = now;
                }
                if empty > PATIENCE {
                    match self.idle {
                        Idle::Spin => std::hint::spin_loop(),
                        Idle::Share if now.saturating_sub(last_busy) < AWAKE => std::thread::yield_now(),
                        Idle::Share => std::thread::sleep(NAP),
                    }
                }
                let end = weir_ffi::tsc();
                self.cycles.idle += end.wrapping_sub(mark);
                mark = end;
            }
        }
    }

    /// Receives once from every queue and every other lcore; true if anything came.
    #[inline]
    fn round(&mut self, cycles: u64) -> bool {
        let now = self.clock.milliseconds(cycles);
        let Self { worker, outputs, letters, inputs, .. } = self;
        let mut any = letters.collect(inputs.len().max(1), |from, letters| {
            worker.receive(now, from, letters, outputs);
            outputs.flush();
        });
        for input in &mut self.inputs {
            let mut received = Burst::new();
            if input.queue.rx_burst_of(&mut received, self.burst) == 0 {
                continue;
            }
            any = true;
            if input.examination.is_some() {
                examine(input, &received);
            }
            let mut burst: ArrayVec<Mbuf, { crate::pipeline::BURST }> = received.drain().collect();
            self.worker.process(now, input.port, &mut burst, &mut self.outputs);
            self.outputs.flush();
        }
        any
    }

    /// Housekeeping and one call of the control side; says whether there was a call.
    fn between(&mut self, inbox: &Receiver<Job>, now: u64) -> bool {
        self.worker.housekeeping(now);
        let mut called = false;
        match next(inbox) {
            Ok(Some(job)) => {
                job(self);
                called = true;
            }
            Ok(None) => {}
            Err(()) => self.stopping = true,
        }
        // Connections may have ended whose tuples other shards keep.
        self.worker.post_notices(&mut self.outputs);
        self.outputs.flush();
        called
    }
}

/// Looks at packets as they came in.
#[cold]
fn examine(input: &mut Input, received: &Burst) {
    let Some(examination) = &mut input.examination else { return };
    for packet in received.iter() {
        examination.observe(packet.bytes(), packet.rss_hash());
    }
    if examination.is_over() {
        input.arrivals = *examination.seen();
        input.examination = None;
    }
}
