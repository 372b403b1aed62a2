<<<<<<< HEAD
//! Topology, core pinning and node-local memory.

pub mod memory;
=======
//! The machine under the lcores: which CPUs, memory and network cards are near each other, where lcores should run, and
//! what is missing before they can. Reads sysfs and procfs below a root directory that tests replace.
#![warn(missing_docs)]

pub mod cpulist;
pub mod lcores;
pub mod pin;
pub mod preflight;
pub mod topology;
>>>>>>> ffi
