//! Receive and transmit queues. Each handle is taken once from its port, belongs to the thread that has it, and keeps the
//! port running; dropping it gives the queue back to the port.
//!
//! What receiving hands out is always one packet in one buffer, as it was on the wire: packets in several segments are
//! copied together, VLAN tags that a driver took out are put back. Both are rare and counted.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::Arc;

use dpdk_sys as sys;

use crate::burst::{BURST, Burst};
use crate::mbuf::{Mbuf, MbufError};
use crate::pool::Pool;
use crate::port::PortInner;

/// What receiving did beside handing packets out, since the queue was taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RxCounters {
    /// Packets in several segments that were brought into one.
    pub linearized: u64,
    /// VLAN tags that the driver had taken out and that were put back.
    pub vlan_restored: u64,
    /// Packets dropped because they are longer than the pool for large packets has room for, or because there is none.
    pub dropped_too_long: u64,
    /// Packets dropped because the pool for large packets had no buffer left.
    pub dropped_no_buffer: u64,
    /// Packets dropped because their VLAN tag could not be put back (no Ethernet header).
    pub dropped_vlan: u64,
}

/// A receive queue. `Send`, not `Sync`: it may move to another thread, two may not poll it.
#[derive(Debug)]
pub struct RxQueue {
    port: Arc<PortInner>,
    queue: u16,
    large: Option<Pool>,
    counters: RxCounters,
    _one_thread: PhantomData<Cell<()>>,
}

impl RxQueue {
    /// `queue` must have been claimed from the port's receive slots.
    pub(crate) fn new(port: Arc<PortInner>, queue: u16, large: Option<Pool>) -> Self {
        Self { port, queue, large, counters: RxCounters::default(), _one_thread: PhantomData }
    }

    /// Receives as many packets as there are and as fit behind those in `burst`; returns how many came.
    #[inline]
    pub fn rx_burst(&mut self, burst: &mut Burst) -> usize {
        self.rx_burst_of(burst, BURST)
    }

    /// Likewise, `most` at the most. Drivers that work on several descriptors at once may need 4 to receive any.
    #[inline]
    pub fn rx_burst_of(&mut self, burst: &mut Burst, most: usize) -> usize {
        let before = burst.len();
        let (slots, room) = burst.spare();
        let room = room.min(most);
        // SAFETY: the port is started and stays so while this handle lives; the handle is the queue's only one and
        // borrowed exclusively; `slots` has room for `room` (at most `BURST`) pointers.
        let count = usize::from(unsafe { sys::shim_rx_burst(self.port.id, self.queue, slots, room as u16) });
        // SAFETY: the driver filled `count` slots with packets that it has given up.
        unsafe { burst.grow(count.min(room)) };
        let unfinished = burst[before..].iter().fold(false, |any, packet| any | packet.is_unfinished());
        if unfinished {
            return self.finish(burst, before);
        }
        count
    }

    /// The port's number.
    pub fn port(&self) -> u16 {
        self.port.id
    }

    /// The queue's number.
    pub fn queue(&self) -> u16 {
        self.queue
    }

    /// What happened beside.
    pub fn counters(&self) -> RxCounters {
        self.counters
    }

    /// Brings the packets from `start` on into one buffer each, with their VLAN tags; drops what it cannot.
    #[cold]
    fn finish(&mut self, burst: &mut Burst, start: usize) -> usize {
        let (large, counters) = (self.large.as_ref(), &mut self.counters);
        burst.retain_from(start, |packet| match finish_one(packet, large, counters) {
            Ok(()) => true,
            Err(MbufError::PoolEmpty) => {
                counters.dropped_no_buffer += 1;
                false
            }
            Err(MbufError::Vlan) => {
                counters.dropped_vlan += 1;
                false
            }
            Err(_) => {
                counters.dropped_too_long += 1;
                false
            }
        });
        burst.len() - start
    }
}

fn finish_one(packet: &mut Mbuf, large: Option<&Pool>, counters: &mut RxCounters) -> Result<(), MbufError> {
    if !packet.is_contiguous() {
        packet.linearize(large)?;
        counters.linearized += 1;
    }
    if packet.is_unfinished() {
        packet.restore_vlan()?;
        counters.vlan_restored += 1;
    }
    Ok(())
}

impl Drop for RxQueue {
    fn drop(&mut self) {
        self.port.return_rx(self.queue);
    }
}

/// A transmit queue. `Send`, not `Sync`: it may move to another thread, two may not fill it.
#[derive(Debug)]
pub struct TxQueue {
    port: Arc<PortInner>,
    queue: u16,
    dropped: u64,
    _one_thread: PhantomData<Cell<()>>,
}

impl TxQueue {
    /// `queue` must have been claimed from the port's transmit slots.
    pub(crate) fn new(port: Arc<PortInner>, queue: u16) -> Self {
        Self { port, queue, dropped: 0, _one_thread: PhantomData }
    }

    /// Sends packets from the front of `burst`; returns how many the device took. The others stay in `burst`, in order.
    #[inline]
    pub fn tx_burst(&mut self, burst: &mut Burst) -> usize {
        let wanted = burst.len();
        // SAFETY: the port is started and stays so while this handle lives; the handle is the queue's only one and
        // borrowed exclusively; `wanted` (at most `BURST`) pointers are packets.
        let sent = unsafe { sys::shim_tx_burst(self.port.id, self.queue, burst.pointers(), wanted as u16) };
        let sent = usize::from(sent).min(wanted);
        // SAFETY: the driver owns the first `sent` packets now.
        unsafe { burst.forget_front(sent) };
        sent
    }

    /// Sends the packets of `burst`, trying a full device once more, and frees what it does not take, counted; `burst` is
    /// empty afterwards. Returns how many were sent.
    #[inline]
    pub fn tx_burst_or_drop(&mut self, burst: &mut Burst) -> usize {
        if burst.is_empty() {
            return 0;
        }
        let mut sent = self.tx_burst(burst);
        if !burst.is_empty() {
            sent += self.tx_burst(burst);
            self.dropped += burst.len() as u64;
            burst.clear();
        }
        sent
    }

    /// Lets a driver that sends lazily finish: a burst of none.
    pub fn flush(&mut self) {
        self.tx_burst(&mut Burst::new());
    }

    /// The port's number.
    pub fn port(&self) -> u16 {
        self.port.id
    }

    /// The queue's number.
    pub fn queue(&self) -> u16 {
        self.queue
    }

    /// Packets that [`TxQueue::tx_burst_or_drop`] freed unsent, since the queue was taken.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

impl Drop for TxQueue {
    fn drop(&mut self) {
        self.port.return_tx(self.queue);
    }
}
