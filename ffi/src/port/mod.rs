//! Ports: any device that DPDK has a driver for, by its devargs. Attaching probes the driver, starting configures it and
//! makes its queues available; the device is stopped, closed and detached when the port and all its queues are dropped.
//!
//! Control functions take a lock and may sleep; they are not for lcores. Dropping the last handle of a port stops it, on
//! whatever thread that happens: give queues back before the port to keep that off an lcore.

mod config;
mod error;
mod info;
mod rss;
mod start;

use std::ffi::{CStr, c_char};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dpdk_sys as sys;

pub use config::{Applied, AppliedRss, HashOver, PortConfig, RssConfig};
pub use error::PortError;
pub use info::{Link, MacAddress, PortInfo, PortStats};
pub use rss::RssCapabilities;

use crate::af_packet::{self, SocketsBefore};
use crate::devargs::Devargs;
use crate::eal::{self, Eal, Runtime};
use crate::interface::Interface;
use crate::log::{self, Mark, Severity};
use crate::mend;
use crate::pool::Pool;
use crate::queue::{RxQueue, TxQueue};
use crate::source::Installed;
use error::reason_since;

/// Serialises everything that attaches, detaches or configures: DPDK's control functions are not thread-safe.
/// It holds the numbers of the ports that belong to a [`Port`].
static CONTROL: Mutex<Vec<u16>> = Mutex::new(Vec::new());

/// Kernel interfaces (by index) that a net_af_xdp port of this process has had: the driver does not close the socket that
/// its memory belongs to, and so the interface stays bound to it until the process ends.
static BOUND_BY_XDP: Mutex<Vec<u32>> = Mutex::new(Vec::new());

fn bound_by_xdp() -> MutexGuard<'static, Vec<u32>> {
    BOUND_BY_XDP.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The interface of a net_af_xdp device.
fn xdp_interface(devargs: &Devargs) -> Option<u32> {
    let name = devargs.is("net_af_xdp").then(|| devargs.value("iface")).flatten()?;
    Interface::named(name).and_then(|interface| interface.index()).ok()
}

fn control() -> MutexGuard<'static, Vec<u16>> {
    CONTROL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Which queues exist and which are out.
#[derive(Debug, Default)]
struct State {
    started: bool,
    rx: Vec<Slot>,
    tx: Vec<Slot>,
    /// The queues' buffers: they outlive the device's use of them.
    pools: Vec<Pool>,
    large: Option<Pool>,
    /// Who writes the packets that come in, if somebody does.
    sources: Vec<Installed>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    Free,
    Taken,
}

/// What a port and its queues share.
pub(crate) struct PortInner {
    pub(crate) id: u16,
    name: String,
    devargs: Devargs,
    state: Mutex<State>,
    /// Last, so that the device is gone before EAL is.
    _runtime: Arc<Runtime>,
}

impl std::fmt::Debug for PortInner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Port")
            .field("id", &self.id)
            .field("devargs", &self.devargs.text)
            .finish_non_exhaustive()
    }
}

impl PortInner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn return_rx(&self, queue: u16) {
        if let Some(slot) = self.state().rx.get_mut(usize::from(queue)) {
            *slot = Slot::Free;
        }
    }

    pub(crate) fn return_tx(&self, queue: u16) {
        if let Some(slot) = self.state().tx.get_mut(usize::from(queue)) {
            *slot = Slot::Free;
        }
    }

    fn failed(&self, step: &'static str, error: i32, mark: Mark) -> PortError {
        PortError::Step {
            port: self.id,
            devargs: self.devargs.text.clone(),
            step,
            reason: reason_since(error, mark),
            mend: mend::likely(&self.devargs),
        }
    }

    fn incapable(&self, problem: String) -> PortError {
        PortError::Capability { port: self.id, devargs: self.devargs.text.clone(), problem }
    }
}

impl Drop for PortInner {
    fn drop(&mut self) {
        let mut owned = control();
        let mark = log::mark();
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        let (started, sources) = (state.started, std::mem::take(&mut state.sources));
        if started {
            bound_by_xdp().extend(xdp_interface(&self.devargs));
            // SAFETY: no queue handle is left, since each holds an `Arc` of this.
            let result = unsafe { sys::rte_eth_dev_stop(self.id) };
            if result != 0 {
                log::report(Severity::Warning, &format!("{self:?}: stop: {}", reason_since(result, mark)));
            }
        }
        drop(sources);
        if let Err(error) = remove_device(self.id) {
            log::report(Severity::Warning, &format!("{self:?}: detach: {}", reason_since(error, mark)));
        }
        owned.retain(|&port| port != self.id);
    }
}

/// One device, attached. Dropping it, and the queues taken from it, detaches the device.
#[derive(Debug)]
pub struct Port {
    inner: Arc<PortInner>,
}

impl Port {
    /// Attaches the device that `devargs` describe: a PCI address, or a virtual device with its parameters as in
    /// `net_af_packet0,iface=veth0`, `net_af_xdp0,iface=veth0`, `net_pcap0,rx_pcap=in.pcap,tx_pcap=out.pcap`,
    /// `net_null0,no-rx=1`, `net_ring0`, `net_tap0` or `net_memif0,role=client`. Interfaces are those of the calling
    /// thread's network namespace.
    ///
    /// # Errors
    /// [`PortError::Devargs`], [`PortError::AlreadyAttached`], [`PortError::Unsuitable`], [`PortError::Attach`]; the device
    /// is then not attached.
    pub fn attach(eal: &Eal, devargs: &str) -> Result<Self, PortError> {
        let devargs = Devargs::new(devargs)?;
        let mut owned = control();
        let taken = |port: &u16| port_name(*port).is_some_and(|name| name == devargs.name());
        if let Some(&port) = owned.iter().find(|port| taken(port)) {
            return Err(PortError::AlreadyAttached { devargs: devargs.text, port });
        }
        if let Some(problem) = af_packet::objection(&devargs) {
            return Err(PortError::Unsuitable { devargs: devargs.text, problem });
        }
        if xdp_interface(&devargs).is_some_and(|index| bound_by_xdp().contains(&index)) {
            let problem = "this process had a net_af_xdp port over the interface before, and the driver keeps it bound until the \
                           process ends: restart it, or use net_af_packet";
            return Err(PortError::Unsuitable { devargs: devargs.text, problem: problem.to_owned() });
        }
        let sockets = SocketsBefore::note(&devargs);
        let mark = log::mark();
        // SAFETY: EAL is up; the text is NUL-terminated and only read. Hot plug is serialised by `CONTROL`.
        let result = unsafe { sys::rte_dev_probe(devargs.c_text.as_ptr()) };
        if result != 0 {
            let (reason, mend) = (reason_since(result, mark), mend::likely(&devargs));
            return Err(PortError::Attach { devargs: devargs.text, reason, mend });
        }
        let Some(id) = matching_ports(&devargs).into_iter().find(|port| !owned.contains(port)) else {
            let reason = reason_since(libc::ENODEV, mark);
            let mend =
                "the driver started but offers no network port: check that it is one (net_...)".to_owned();
            return Err(PortError::Attach { devargs: devargs.text, reason, mend });
        };
        owned.push(id);
        // From here on dropping `inner` undoes everything.
        let name = port_name(id).unwrap_or_default();
        let inner =
            PortInner { id, name, devargs, state: Mutex::default(), _runtime: Arc::clone(&eal.runtime) };
        drop(owned);
        if let Some(Err(error)) = sockets.map(|sockets| sockets.ignore_outgoing_on_new()) {
            return Err(PortError::Unsuitable {
                devargs: inner.devargs.text.clone(),
                problem: format!(
                    "its sockets cannot be kept from showing what the interface sends ({error}); use net_af_xdp instead"
                ),
            });
        }
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Configures and starts the device, and makes its queues available. A started port has to be stopped first.
    ///
    /// # Errors
    /// [`PortError::Capability`] where the device or a pool cannot do what is asked for, [`PortError::Step`] where DPDK fails,
    /// [`PortError::Busy`] if it is started already; the port stays attached and stopped, or as it was.
    pub fn start(&mut self, config: &PortConfig) -> Result<Applied, PortError> {
        let _control = control();
        start::start(&self.inner, config)
    }

    /// Stops the device. All queue handles must have been dropped.
    ///
    /// # Errors
    /// [`PortError::Busy`] if not; [`PortError::Step`].
    pub fn stop(&mut self) -> Result<(), PortError> {
        let _control = control();
        let inner = &*self.inner;
        let mut state = inner.state();
        let out = state.rx.iter().chain(&state.tx).filter(|&&slot| slot == Slot::Taken).count();
        if out > 0 {
            return Err(PortError::Busy { port: inner.id, devargs: inner.devargs.text.clone(), queues: out });
        }
        if !state.started {
            return Ok(());
        }
        let mark = log::mark();
        // SAFETY: the port is ours, and no queue of it is out; none can be taken while `state` is locked.
        let result = unsafe { sys::rte_eth_dev_stop(inner.id) };
        if result != 0 {
            return Err(inner.failed("stopping the device", result, mark));
        }
        // The device may hold buffers of its pools until it is set up anew or closed: those stay.
        state.started = false;
        state.rx.clear();
        state.tx.clear();
        state.sources.clear();
        Ok(())
    }

    /// Stops and detaches the device now, as dropping does, but reports that queues are still in use.
    ///
    /// # Errors
    /// As [`Port::stop`]; the port is then given back.
    pub fn detach(mut self) -> Result<(), (Self, PortError)> {
        match self.stop() {
            Ok(()) => Ok(()),
            Err(error) => Err((self, error)),
        }
    }

    /// Takes receive queue `queue`; `None` if the port is not started, has no such queue or it is out.
    pub fn take_rx(&self, queue: u16) -> Option<RxQueue> {
        let mut state = self.inner.state();
        let large = state.large.clone();
        let slot = state.rx.get_mut(usize::from(queue)).filter(|slot| **slot == Slot::Free)?;
        *slot = Slot::Taken;
        Some(RxQueue::new(Arc::clone(&self.inner), queue, large))
    }

    /// Takes transmit queue `queue`; `None` if the port is not started, has no such queue or it is out.
    pub fn take_tx(&self, queue: u16) -> Option<TxQueue> {
        let mut state = self.inner.state();
        let slot = state.tx.get_mut(usize::from(queue)).filter(|slot| **slot == Slot::Free)?;
        *slot = Slot::Taken;
        Some(TxQueue::new(Arc::clone(&self.inner), queue))
    }

    /// What the device is and can do.
    ///
    /// # Errors
    /// [`PortError::Step`].
    pub fn info(&self) -> Result<PortInfo, PortError> {
        let mark = log::mark();
        info::read(self.inner.id, &self.inner.name)
            .map_err(|error| self.inner.failed("reading the device's description", error, mark))
    }

    /// The link now, without waiting for it.
    pub fn link(&self) -> Link {
        info::link(self.inner.id)
    }

    /// What the device counted.
    ///
    /// # Errors
    /// [`PortError::Step`], for devices that do not count.
    pub fn stats(&self) -> Result<PortStats, PortError> {
        let mark = log::mark();
        let mut stats = sys::rte_eth_stats::default();
        // SAFETY: the port is ours; DPDK fills the struct.
        let result = unsafe { sys::rte_eth_stats_get(self.inner.id, &raw mut stats) };
        if result != 0 {
            return Err(self.inner.failed("reading the device's counters", result, mark));
        }
        Ok(stats.into())
    }

    /// DPDK's number of the port.
    pub fn id(&self) -> u16 {
        self.inner.id
    }

    /// The devargs it was attached with.
    pub fn devargs(&self) -> &str {
        &self.inner.devargs.text
    }
}

/// DPDK's name of a port, as "net_null0".
fn port_name(port: u16) -> Option<String> {
    // DPDK writes at most RTE_ETH_NAME_MAX_LEN (64) bytes.
    let mut name: [c_char; 256] = [0; 256];
    // SAFETY: the buffer is larger than any name, and NUL-terminated by DPDK.
    unsafe {
        (sys::rte_eth_dev_get_name_by_port(port, name.as_mut_ptr()) == 0)
            .then(|| CStr::from_ptr(name.as_ptr()).to_string_lossy().into_owned())
    }
}

/// The ports of a device, in order.
fn matching_ports(devargs: &Devargs) -> Vec<u16> {
    let mut ports = Vec::new();
    // SAFETY: all-zero bytes are a valid iterator; DPDK initialises it, walks it, and frees its parts when it is at its end.
    unsafe {
        let mut iterator: sys::rte_dev_iterator = std::mem::zeroed();
        if sys::rte_eth_iterator_init(&raw mut iterator, devargs.c_text.as_ptr()) != 0 {
            return ports;
        }
        loop {
            let port = sys::rte_eth_iterator_next(&raw mut iterator);
            if port >= sys::SHIM_MAX_ETHPORTS {
                break;
            }
            ports.push(port);
        }
    }
    ports
}

/// Closes a port and removes its device, unless the device has further ports. Gives DPDK's error number.
fn remove_device(port: u16) -> Result<(), i32> {
    let device = info::device(port).map(|info| info.device);
    // SAFETY: the port is stopped, and ours.
    let closed = unsafe { sys::rte_eth_dev_close(port) };
    let device = device?;
    let shared = (0..sys::SHIM_MAX_ETHPORTS).any(|other| {
        // SAFETY: accepts any number.
        let valid = other != port && unsafe { sys::rte_eth_dev_is_valid_port(other) } == 1;
        valid && info::device(other).is_ok_and(|info| std::ptr::eq(info.device, device))
    });
    if !shared {
        // SAFETY: the device was probed by `attach` and has no port left.
        let removed = unsafe { sys::rte_dev_remove(device) };
        if removed < 0 {
            return Err(removed);
        }
    }
    if closed < 0 { Err(closed) } else { Ok(()) }
}

/// The error of a call that gives 0 or a negative number.
fn check(result: i32) -> Result<(), i32> {
    if result < 0 { Err(if result == -1 { eal::rte_errno().max(1) } else { result }) } else { Ok(()) }
}
