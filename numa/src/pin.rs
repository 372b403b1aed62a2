//! Which CPUs this process may use, and pinning a thread to one of them.

use std::io;
use std::mem::{size_of_val, zeroed};

use core_affinity::CoreId;

use crate::cpulist::CpuList;

/// Why a thread is not where it should be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PinError {
    /// The kernel does not tell the allowed CPUs.
    #[error("the allowed CPUs could not be read: {0}")]
    Allowed(#[source] io::Error),
    /// The CPU is offline or outside the process's cpuset.
    #[error(
        "this thread cannot be pinned to CPU {cpu}: {}; allowed are {allowed} (taskset, systemd's CPUAffinity and \
         cgroups can restrict them)",
        source
    )]
    Refused {
        /// The CPU.
        cpu: u32,
        /// What is allowed.
        allowed: CpuList,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel agreed, but the thread is elsewhere.
    #[error("this thread was pinned to CPU {cpu}, but may run on {actual}: something else sets its affinity")]
    Elsewhere {
        /// The CPU.
        cpu: u32,
        /// Where it may run instead.
        actual: CpuList,
    },
}

/// The CPUs the calling thread may run on.
///
/// # Errors
/// [`PinError::Allowed`].
pub fn allowed_cpus() -> Result<CpuList, PinError> {
    // SAFETY: all bit patterns are valid for a set of CPUs.
    let mut set: libc::cpu_set_t = unsafe { zeroed() };
    // SAFETY: the set is writable and of the size given; 0 is the calling thread.
    if unsafe { libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) } != 0 {
        return Err(PinError::Allowed(io::Error::last_os_error()));
    }
    let limit = u32::try_from(libc::CPU_SETSIZE).unwrap_or(0);
    let is_set = |cpu: u32| {
        let index = usize::try_from(cpu).unwrap_or(usize::MAX);
        // SAFETY: `cpu` is below CPU_SETSIZE.
        unsafe { libc::CPU_ISSET(index, &set) }
    };
    Ok((0..limit).filter(|&cpu| is_set(cpu)).collect())
}

/// Pins the calling thread to `cpu`, and looks that it is there.
///
/// # Errors
/// [`PinError`]; after `Refused` the thread may run where it could before.
pub fn pin_current_thread(cpu: u32) -> Result<(), PinError> {
    let allowed = allowed_cpus()?;
    // core_affinity indexes a fixed array with it.
    let id =
        usize::try_from(cpu).ok().filter(|_| i32::try_from(cpu).is_ok_and(|cpu| cpu < libc::CPU_SETSIZE));
    let Some(id) = id else {
        let source = io::Error::from_raw_os_error(libc::EINVAL);
        return Err(PinError::Refused { cpu, allowed, source });
    };
    if !core_affinity::set_for_current(CoreId { id }) {
        return Err(PinError::Refused { cpu, allowed, source: io::Error::last_os_error() });
    }
    let actual = allowed_cpus()?;
    // SAFETY: asks for a number.
    let running = unsafe { libc::sched_getcpu() };
    if actual.len() != 1 || !actual.contains(cpu) || u32::try_from(running) != Ok(cpu) {
        return Err(PinError::Elsewhere { cpu, actual });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_where_it_was_pinned_and_others_stay() {
        let before = allowed_cpus().expect("readable");
        let cpu = before.iter().last().expect("one CPU");
        let pinned = std::thread::spawn(move || {
            pin_current_thread(cpu).expect("an allowed CPU");
            allowed_cpus().expect("readable").to_string()
        });
        assert_eq!(pinned.join().expect("ran"), cpu.to_string());
        assert_eq!(allowed_cpus().expect("readable"), before);
    }

    #[test]
    fn a_cpu_that_is_not_there_is_refused_with_those_that_are() {
        for cpu in [1023, 1024, u32::MAX] {
            let error = pin_current_thread(cpu).expect_err("no such CPU").to_string();
            assert!(error.contains(&cpu.to_string()) && error.contains("allowed are"), "{error}");
        }
    }
}
