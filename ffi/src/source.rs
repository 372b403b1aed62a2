//! Made-up traffic: whoever measures or tests offers a [`Source`] for a device that hands out buffers without packets
//! in them (net_null), and the source writes the packets, burst by burst, on the thread that polls. It stands where a
//! driver stands: everything behind `rx_burst` is as for any other device. The program itself offers none.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::{Mutex, PoisonError};

use dpdk_sys as sys;

use crate::mbuf::Mbuf;

/// Writes packets into the buffers of each burst that a queue receives.
pub trait Source: Send {
    /// Writes packets into `buffers`, which are as long as the device made them (net_null: its argument `size`) and hold
    /// whatever the last packet in them has left; returns how many hold one now, from the first on. The others are freed.
    /// A panic ends the process: there is nobody on the C side to take it.
    fn fill(&mut self, buffers: &mut [Mbuf]) -> usize;
}

/// Devices by name, and queue.
static OFFERED: Mutex<BTreeMap<(String, u16), Box<dyn Source>>> = Mutex::new(BTreeMap::new());

/// Has `source` write what receive queue `queue` of the device of this name ("net_null3") receives from its next start
/// on, until it is stopped. A source that was offered before and not taken yet is dropped.
pub fn offer(device: &str, queue: u16, source: Box<dyn Source>) {
    let mut offered = OFFERED.lock().unwrap_or_else(PoisonError::into_inner);
    offered.insert((device.to_owned(), queue), source);
}

/// A source at work. Dropping it takes it off its queue, which nobody may poll any more.
pub(crate) struct Installed {
    port: u16,
    queue: u16,
    callback: *const sys::rte_eth_rxtx_callback,
    /// What the callback is given; owned by this.
    source: *mut Box<dyn Source>,
}

// SAFETY: the pointers are used by `drop` alone, and what `source` points to is `Send`.
unsafe impl Send for Installed {}

impl std::fmt::Debug for Installed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Installed")
            .field("port", &self.port)
            .field("queue", &self.queue)
            .finish_non_exhaustive()
    }
}

/// Installs what was offered for the queues of a port that has been started and that nobody polls yet.
pub(crate) fn install(port: u16, device: &str, queues: u16) -> Vec<Installed> {
    let mut offered = OFFERED.lock().unwrap_or_else(PoisonError::into_inner);
    let install = |queue| {
        let source = Box::into_raw(Box::new(offered.remove(&(device.to_owned(), queue))?));
        // SAFETY: the port is started and has this queue; `source` lives until `Installed` is dropped, which takes the
        // callback off first.
        let callback = unsafe { sys::rte_eth_add_rx_callback(port, queue, Some(fill), source.cast()) };
        // Dropped if the callback was refused: then nothing was installed.
        let installed = Installed { port, queue, callback, source };
        (!callback.is_null()).then_some(installed)
    };
    (0..queues).filter_map(install).collect()
}

impl Drop for Installed {
    fn drop(&mut self) {
        if !self.callback.is_null() {
            // SAFETY: the callback is this port's and queue's; no `RxQueue` of it is left, so nobody runs it, and its
            // memory, which DPDK leaves to the caller, can go.
            unsafe {
                sys::rte_eth_remove_rx_callback(self.port, self.queue, self.callback);
                sys::rte_free(self.callback.cast_mut().cast());
            }
        }
        // SAFETY: made by `Box::into_raw` in `install`, and no callback is left that could use it.
        drop(unsafe { Box::from_raw(self.source) });
    }
}

/// What DPDK calls with each burst, on the thread that polls the queue.
unsafe extern "C" fn fill(
    _port: u16,
    _queue: u16,
    packets: *mut *mut sys::rte_mbuf,
    count: u16,
    _room: u16,
    source: *mut c_void,
) -> u16 {
    // SAFETY: `source` is what `install` has handed over, and one thread at a time polls a queue.
    let source = unsafe { &mut *source.cast::<Box<dyn Source>>() };
    // SAFETY: DPDK gives `count` packets that nobody else owns; `Mbuf` is transparent over the pointer. They stay in the
    // array, so none is dropped here.
    let buffers = unsafe { std::slice::from_raw_parts_mut(packets.cast::<Mbuf>(), usize::from(count)) };
    let filled = u16::try_from(source.fill(buffers)).unwrap_or(count).min(count);
    if filled < count {
        // SAFETY: the rest of the array are packets, which the caller of `rx_burst` is not told of.
        unsafe {
            let rest = packets.add(usize::from(filled));
            sys::shim_pktmbuf_free_bulk(rest, u32::from(count - filled));
        }
    }
    filled
}
