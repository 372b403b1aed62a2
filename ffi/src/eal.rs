//! DPDK's environment: memory, devices and the identity of threads. Started once per process, before anything else of
//! this crate; cleaned up when the last handle that came from it is gone.
//!
//! EAL is given one lcore that may run on every allowed CPU, and so starts no worker threads: the program's own
//! threads poll, pin themselves and say so with [`Eal::register_thread`].

use std::ffi::{CStr, CString, NulError, c_char, c_int};
use std::marker::PhantomData;
use std::path::PathBuf;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use dpdk_sys as sys;

use crate::log::{self, LogSink, Severity};

/// EAL was started in this process, whether it succeeded or not: DPDK can neither retry nor restart.
static STARTED: AtomicBool = AtomicBool::new(false);

/// EAL arguments that this wrapper decides on; its safety rests on some of them.
const RESERVED: &[&str] = &[
    "-c",
    "-l",
    "--lcores",
    "--main-lcore",
    "-s",
    "-S",
    "--proc-type",
    "--file-prefix",
    "--mbuf-pool-ops-name",
    "--no-huge",
    "--in-memory",
    "-h",
    "--help",
    "--version",
    "-v",
];

/// Where packets' memory comes from.
#[derive(Clone, Debug)]
pub enum Profile {
    /// Ordinary pages and no PCI devices: runs anywhere, for virtual devices also without root.
    Lab {
        /// Memory for pools and rings, in MiB.
        memory_mib: u32,
    },
    /// Hugepages and PCI devices. No device is probed at start; [`crate::Port::attach`] takes them one by one.
    Metal {
        /// MiB of hugepages to reserve on each NUMA node, in the nodes' order; empty lets EAL take what it needs.
        socket_memory_mib: Vec<u32>,
    },
}

/// How EAL is started.
pub struct EalConfig {
    /// Where memory comes from.
    pub profile: Profile,
    /// Names the run time files of this instance, so that several can run; `weir-PID` if `None`.
    pub file_prefix: Option<String>,
    /// Further EAL arguments, passed on as they are, but for those this wrapper decides on.
    pub extra: Vec<String>,
    /// Receives every line of DPDK's log on the thread that logged it; without it the log is only kept for errors.
    pub log: Option<LogSink>,
}

impl EalConfig {
    /// The profile `lab` with this much memory.
    pub fn lab(memory_mib: u32) -> Self {
        Self { profile: Profile::Lab { memory_mib }, file_prefix: None, extra: Vec::new(), log: None }
    }

    /// The profile `metal` with this many MiB of hugepages on each NUMA node.
    pub fn metal(socket_memory_mib: Vec<u32>) -> Self {
        let profile = Profile::Metal { socket_memory_mib };
        Self { profile, file_prefix: None, extra: Vec::new(), log: None }
    }
}

/// Why EAL, or a thread's place in it, could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EalError {
    /// EAL can start once in the life of a process.
    #[error(
        "DPDK's EAL was already started in this process; it starts once: share the first handle, or restart"
    )]
    AlreadyStarted,
    /// An argument cannot be passed on.
    #[error("EAL argument {argument:?}: {problem}")]
    Argument {
        /// The argument.
        argument: String,
        /// What is wrong with it, and what to do.
        problem: &'static str,
    },
    /// The allowed CPUs could not be read, or none has a number EAL can use.
    #[error("EAL needs an allowed CPU with a number below {limit}: {source}")]
    Affinity {
        /// The first CPU number this DPDK cannot use.
        limit: u32,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// DPDK's log could not be captured.
    #[error("DPDK's log could not be captured: {0}")]
    Log(#[source] std::io::Error),
    /// EAL refused to start.
    #[error("DPDK's EAL did not start ({arguments}): {reason}. {mend}")]
    Start {
        /// The arguments it was given.
        arguments: String,
        /// DPDK's error and log.
        reason: String,
        /// What most likely helps.
        mend: &'static str,
    },
    /// The thread got no lcore number.
    #[error(
        "this thread could not be registered with EAL: {reason}. At most {limit} threads of one process can be registered"
    )]
    Thread {
        /// DPDK's error.
        reason: String,
        /// Lcore numbers there are.
        limit: u32,
    },
}

/// What everything made from EAL holds on to.
pub(crate) struct Runtime {
    prefix: String,
    /// Pools without handles, to be freed once their packets are back.
    retired: Mutex<Vec<RetiredPool>>,
}

/// A pool that nothing is taken from any more.
struct RetiredPool {
    raw: NonNull<sys::rte_mempool>,
    mbufs: u32,
}

// SAFETY: a pool is tied to no thread.
unsafe impl Send for RetiredPool {}

impl Runtime {
    /// Takes a pool over from its last handle.
    ///
    /// It is freed by a later call of `free_retired` and not at once: a thread that is just giving back the last packet
    /// makes it countable a few instructions before it is done with the pool.
    pub(crate) fn retire(&self, raw: NonNull<sys::rte_mempool>, mbufs: u32) {
        self.retired.lock().unwrap_or_else(PoisonError::into_inner).push(RetiredPool { raw, mbufs });
    }

    /// Frees the retired pools whose packets are all back; says whether none is left.
    pub(crate) fn free_retired(&self) -> bool {
        let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        retired.retain(|pool| {
            // SAFETY: the pool is alive until freed below. Nothing is taken from it any more, so a count that races with
            // packets coming back can only be too low.
            let available = unsafe { sys::rte_mempool_avail_count(pool.raw.as_ptr()) };
            if available < pool.mbufs {
                return true;
            }
            // SAFETY: it leaves the list, all its buffers are back, and it has no handle.
            unsafe { sys::rte_mempool_free(pool.raw.as_ptr()) };
            false
        });
        retired.is_empty()
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        if !self.free_retired() {
            log::report(Severity::Warning, "packets are still held: EAL stays up until the process ends");
            return;
        }
        // SAFETY: EAL is up, and nothing made from it is left, since all of that holds an `Arc` of this.
        let result = unsafe { sys::rte_eal_cleanup() };
        if result != 0 {
            log::report(Severity::Warning, &format!("EAL clean-up: {}", error_text(result)));
        }
        remove_runtime_dir(&self.prefix);
    }
}

/// EAL leaves its (empty) run time directory behind.
fn remove_runtime_dir(prefix: &str) {
    let base = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    // EAL's choice: /var/run for root, otherwise $XDG_RUNTIME_DIR, otherwise /tmp.
    for base in [Some(PathBuf::from("/var/run")), base, Some(PathBuf::from("/tmp"))].into_iter().flatten() {
        let _ = std::fs::remove_dir(base.join("dpdk").join(prefix));
    }
}

/// DPDK, started. Clones are handles of the same environment; it is cleaned up when the last handle, pool, port, queue
/// and thread guard is gone.
#[derive(Clone)]
pub struct Eal {
    pub(crate) runtime: Arc<Runtime>,
}

impl std::fmt::Debug for Eal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Eal").field("prefix", &self.runtime.prefix).finish()
    }
}

impl Eal {
    /// Starts EAL. The calling thread becomes its main lcore (number 0); its CPU affinity, which EAL changes for it and
    /// so for the threads it starts later, is put back before this returns, also after an error.
    ///
    /// # Errors
    /// [`EalError`]; after `Start` and `Log` this process cannot try again.
    pub fn init(config: EalConfig) -> Result<Self, EalError> {
        let prefix = match &config.file_prefix {
            Some(prefix) => prefix.clone(),
            None => format!("weir-{}", std::process::id()),
        };
        let limit = sys::SHIM_MAX_LCORE;
        let affinity = Affinity::of_this_thread().map_err(|source| EalError::Affinity { limit, source })?;
        let cpus = affinity.cpu_list(limit).ok_or_else(|| EalError::Affinity {
            limit,
            source: std::io::Error::other("all allowed CPUs have higher numbers; use taskset or a cpuset"),
        })?;
        let arguments = arguments(&config, &prefix, &cpus)?;
        let c_arguments: Vec<CString> =
            arguments.iter().map(|argument| c_string(argument)).collect::<Result<_, _>>()?;
        if STARTED.swap(true, Ordering::AcqRel) {
            return Err(EalError::AlreadyStarted);
        }
        log::capture(config.log).map_err(EalError::Log)?;
        let mark = log::mark();
        let mut pointers: Vec<*mut c_char> = c_arguments.iter().map(|a| a.as_ptr().cast_mut()).collect();
        let count = c_int::try_from(pointers.len()).unwrap_or(c_int::MAX);
        pointers.push(std::ptr::null_mut());
        // SAFETY: argc strings and a null, alive for the call; EAL permutes the pointers and copies what it keeps, and
        // writes to none of the strings. It runs once, guarded by `STARTED`.
        let result = unsafe { sys::rte_eal_init(count, pointers.as_mut_ptr()) };
        let error = rte_errno();
        affinity.apply_to_this_thread();
        if result < 0 {
            let reason = reason(error, &log::complaints_since(mark));
            remove_runtime_dir(&prefix);
            return Err(EalError::Start {
                arguments: arguments.join(" "),
                mend: start_mend(&config.profile, &reason),
                reason,
            });
        }
        // Nothing is shared: EAL makes the directory all the same, and a killed process would leave it.
        remove_runtime_dir(&prefix);
        Ok(Self { runtime: Arc::new(Runtime { prefix, retired: Mutex::new(Vec::new()) }) })
    }

    /// Gives the calling thread an lcore number, which pools need for their per-thread caches. The thread keeps it until
    /// the guard is dropped. A thread that has one already (the one that called [`Eal::init`]) keeps that.
    ///
    /// # Errors
    /// [`EalError::Thread`] if no number is left.
    pub fn register_thread(&self) -> Result<ThreadGuard, EalError> {
        let runtime = Arc::clone(&self.runtime);
        if lcore_id().is_some() {
            return Ok(ThreadGuard { _runtime: runtime, registered: false, _thread: PhantomData });
        }
        // SAFETY: EAL is up (`runtime`) and this thread has no lcore number.
        if unsafe { sys::rte_thread_register() } != 0 {
            return Err(EalError::Thread { reason: error_text(rte_errno()), limit: sys::SHIM_MAX_LCORE });
        }
        Ok(ThreadGuard { _runtime: runtime, registered: true, _thread: PhantomData })
    }

    /// The version of the DPDK in use, as "DPDK 22.11.11".
    pub fn version(&self) -> String {
        // SAFETY: returns a static string.
        unsafe { CStr::from_ptr(sys::rte_version()) }.to_string_lossy().into_owned()
    }
}

/// A thread's place in EAL; dropping it gives the lcore number back. It cannot leave its thread.
#[derive(Debug)]
pub struct ThreadGuard {
    _runtime: Arc<Runtime>,
    registered: bool,
    _thread: PhantomData<*const ()>,
}

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runtime").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl ThreadGuard {
    /// The thread's lcore number.
    pub fn lcore(&self) -> u32 {
        lcore_id().unwrap_or(sys::SHIM_LCORE_ID_ANY)
    }
}

impl Drop for ThreadGuard {
    fn drop(&mut self) {
        if self.registered {
            // SAFETY: this thread (the guard is not `Send`) was registered by `register_thread`.
            unsafe { sys::rte_thread_unregister() };
        }
    }
}

fn lcore_id() -> Option<u32> {
    // SAFETY: reads a thread-local variable.
    let id = unsafe { sys::shim_lcore_id() };
    (id != sys::SHIM_LCORE_ID_ANY).then_some(id)
}

/// The CPU's time stamp counter, in cycles of [`tsc_hz`].
#[inline]
pub fn tsc() -> u64 {
    // SAFETY: reads a register.
    unsafe { sys::shim_rdtsc() }
}

/// Cycles of the time stamp counter in a second, as EAL measured them; 0 before EAL has started.
pub fn tsc_hz() -> u64 {
    // SAFETY: reads a variable that EAL sets once.
    unsafe { sys::rte_get_tsc_hz() }
}

fn arguments(config: &EalConfig, prefix: &str, cpus: &str) -> Result<Vec<String>, EalError> {
    let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if prefix.is_empty() || prefix.len() > 48 || prefix.starts_with(['.', '-']) || !prefix.chars().all(valid)
    {
        return Err(EalError::Argument {
            argument: format!("--file-prefix={prefix}"),
            problem: "a prefix is 1 to 48 letters, digits, '-', '_' or '.', and starts with a letter or digit",
        });
    }
    let mut list = vec!["weir".to_owned(), "--no-telemetry".to_owned()];
    match &config.profile {
        Profile::Lab { memory_mib } => {
            list.extend(["--no-huge", "--no-pci", "--no-shconf", "--iova-mode=va"].map(str::to_owned));
            list.extend(["-m".to_owned(), memory_mib.to_string()]);
        }
        Profile::Metal { socket_memory_mib } => {
            // Files of its own EAL would leave behind, in its run time directory and, with the pages still taken, in the
            // hugetlbfs mount. Nobody shares this memory.
            list.push("--in-memory".to_owned());
            // An allow list of the host bridge, which has no driver: EAL takes no device on its own.
            list.extend(["-a".to_owned(), "0000:00:00.0".to_owned()]);
            if !socket_memory_mib.is_empty() {
                let mib: Vec<String> = socket_memory_mib.iter().map(u32::to_string).collect();
                list.push(format!("--socket-mem={}", mib.join(",")));
            }
        }
    }
    list.push(format!("--file-prefix={prefix}"));
    // One lcore on all CPUs: no worker threads, and no narrowed affinity to inherit.
    list.push(format!("--lcores=0@({cpus})"));
    for argument in &config.extra {
        let name = argument.split('=').next().unwrap_or_default();
        // Short options may carry their value ("-l0-3"), long ones may be shortened ("--lcor").
        let reserved = RESERVED.iter().any(|reserved| {
            if reserved.starts_with("--") {
                name.len() > 3 && reserved.starts_with(name)
            } else {
                name.starts_with(reserved)
            }
        });
        if reserved || name == "--" {
            return Err(EalError::Argument {
                argument: argument.clone(),
                problem: "this argument is set by the program itself; leave it out",
            });
        }
        list.push(argument.clone());
    }
    Ok(list)
}

fn c_string(argument: &str) -> Result<CString, EalError> {
    CString::new(argument).map_err(|_: NulError| EalError::Argument {
        argument: argument.to_owned(),
        problem: "it contains a NUL byte",
    })
}

fn start_mend(profile: &Profile, reason: &str) -> &'static str {
    let reason = reason.to_ascii_lowercase();
    match profile {
        Profile::Lab { .. } if reason.contains("memory") => "Ask for less memory, or free some",
        Profile::Lab { .. } => "Profile lab needs neither root nor hugepages; see DPDK's reason above",
        Profile::Metal { .. }
            if reason.contains("permission") || reason.contains("operation not permitted") =>
        {
            "Profile metal needs root, or rights on hugepages and on /dev/vfio"
        }
        Profile::Metal { .. } => "Reserve hugepages (sysctl vm.nr_hugepages=1024), or use profile lab",
    }
}

/// The rte_errno of this thread.
pub(crate) fn rte_errno() -> i32 {
    // SAFETY: reads a thread-local variable.
    unsafe { sys::shim_errno() }
}

/// DPDK's words for an error number of either sign.
pub(crate) fn error_text(error: i32) -> String {
    let error = error.saturating_abs();
    // SAFETY: returns a string that is static or thread-local.
    let text = unsafe { CStr::from_ptr(sys::rte_strerror(error)) }.to_string_lossy();
    format!("{text} (error {error})")
}

/// An error number and the log lines that belong to it, as one text.
pub(crate) fn reason(error: i32, lines: &[String]) -> String {
    let mut text = error_text(error);
    if !lines.is_empty() {
        text.push_str("; DPDK's log: ");
        text.push_str(&lines.join(" | "));
    }
    text
}

/// The CPUs a thread may run on.
struct Affinity(libc::cpu_set_t);

impl Affinity {
    fn of_this_thread() -> std::io::Result<Self> {
        // SAFETY: all bit patterns are valid for a set of CPUs.
        let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: the set is writable and of the size given.
        let result = unsafe { libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) };
        if result == 0 { Ok(Self(set)) } else { Err(std::io::Error::last_os_error()) }
    }

    fn apply_to_this_thread(&self) {
        // SAFETY: the set is readable and of the size given.
        if unsafe { libc::sched_setaffinity(0, size_of_val(&self.0), &raw const self.0) } != 0 {
            let error = std::io::Error::last_os_error();
            log::report(Severity::Warning, &format!("CPU affinity could not be put back: {error}"));
        }
    }

    /// The allowed CPUs below `limit`, as "0,1,2"; `None` if there are none.
    fn cpu_list(&self, limit: u32) -> Option<String> {
        let limit =
            usize::try_from(limit).unwrap_or(usize::MAX).min(libc::CPU_SETSIZE.unsigned_abs() as usize);
        // SAFETY: `cpu` is below CPU_SETSIZE.
        let list: Vec<String> = (0..limit)
            .filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &self.0) })
            .map(|cpu| cpu.to_string())
            .collect();
        (!list.is_empty()).then(|| list.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_extra(argument: &str) -> Result<Vec<String>, EalError> {
        let mut config = EalConfig::lab(64);
        config.extra.push(argument.to_owned());
        arguments(&config, "test", "0,1")
    }

    #[test]
    fn the_lab_profile_uses_neither_hugepages_nor_pci() {
        let list = arguments(&EalConfig::lab(64), "test", "0,1").expect("valid");
        for wanted in ["--no-huge", "--no-pci", "--no-shconf", "--iova-mode=va", "64", "--lcores=0@(0,1)"] {
            assert!(list.iter().any(|a| a == wanted), "{wanted} in {list:?}");
        }
        assert!(!list.iter().any(|a| a == "--in-memory"), "22.11 refuses it with --no-huge");
    }

    #[test]
    fn arguments_that_the_wrapper_decides_are_refused() {
        for argument in [
            "-l",
            "-l0-3",
            "--lcores=1",
            "--lcor=1",
            "--mbuf-pool-ops-name=ring_sp_sc",
            "--proc-type=auto",
            "--",
        ] {
            assert!(matches!(with_extra(argument), Err(EalError::Argument { .. })), "{argument}");
        }
        assert!(with_extra("--log-level=lib.eal:debug").is_ok());
        assert!(with_extra("--legacy-mem").is_ok());
    }

    #[test]
    fn a_prefix_that_could_leave_its_directory_is_refused() {
        for prefix in ["", "../x", "a/b", ".hidden", &"x".repeat(49)] {
            assert!(arguments(&EalConfig::lab(64), prefix, "0").is_err(), "{prefix:?}");
        }
    }
}
