//! What an lcore sends: one burst a port, filled while a received burst goes through the pipeline and handed
//! to the driver when it is full or the received burst is through; and the letters to other lcores, likewise.

use weir_ffi::{Burst, Mbuf, TxQueue};
use weir_shard::ShardNumber;

use super::mailboxes::Outgoing;
use crate::pipeline::{Letter, PortId, Transmit};

#[derive(Debug)]
struct Output {
    queue: TxQueue,
    waiting: Burst,
}

/// The transmit queues of one lcore, by port.
#[derive(Debug, Default)]
pub(super) struct Outputs {
    ports: Vec<Option<Output>>,
    /// Ports with frames waiting.
    touched: Vec<PortId>,
    /// Frames for ports that have no queue here: the port is being removed.
    unroutable: u64,
    letters: Outgoing<Mbuf>,
}

impl Outputs {
    /// Posts letters by these rings from now on.
    pub(super) fn set_letters(&mut self, letters: Outgoing<Mbuf>) {
        self.letters = letters;
    }

    /// Sends to `port` by `queue` from now on.
    pub(super) fn add(&mut self, port: PortId, queue: TxQueue) {
        let index = port as usize;
        if index >= self.ports.len() {
            self.ports.resize_with(index + 1, || None);
        }
        self.ports[index] = Some(Output { queue, waiting: Burst::new() });
    }

    /// Sends nothing more to `port`; what waits is sent first.
    pub(super) fn remove(&mut self, port: PortId) -> Option<TxQueue> {
        self.flush();
        self.ports.get_mut(port as usize)?.take().map(|output| output.queue)
    }

    /// Frames for `port` that the driver did not take.
    #[must_use]
    pub(super) fn refused(&self, port: PortId) -> u64 {
        self.ports.get(port as usize).and_then(Option::as_ref).map_or(0, |output| output.queue.dropped())
    }

    /// Frames for ports that were gone.
    #[must_use]
    pub(super) fn unroutable(&self) -> u64 {
        self.unroutable
    }

    /// Hands everything that waits to the drivers and to the other lcores.
    #[inline]
    pub(super) fn flush(&mut self) {
        while let Some(port) = self.touched.pop() {
            if let Some(Some(output)) = self.ports.get_mut(port as usize) {
                output.queue.tx_burst_or_drop(&mut output.waiting);
            }
        }
        self.letters.flush();
    }
}

impl Transmit<Mbuf> for Outputs {
    #[inline(always)] // the compiler would call it for each packet
    fn send(&mut self, port: PortId, frame: Mbuf) {
        let Some(Some(output)) = self.ports.get_mut(port as usize) else {
            self.unroutable += 1;
            return;
        };
        if output.waiting.is_empty() {
            self.touched.push(port);
        }
        if let Err(frame) = output.waiting.push(frame) {
            output.queue.tx_burst_or_drop(&mut output.waiting);
            // A burst that was just flushed has room, and its port is on the list already.
            let _ = output.waiting.push(frame);
        }
    }

    #[inline]
    fn post(&mut self, to: ShardNumber, letter: Letter<Mbuf>) -> Result<(), Letter<Mbuf>> {
        self.letters.post(to, letter)
    }
}
