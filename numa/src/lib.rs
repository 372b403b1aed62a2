//! The machine under the lcores: which CPUs, memory and network cards are near each other, where lcores should run,
//! what is missing before they can, and memory on a node of choice. Reads sysfs and procfs below a root directory
//! that tests replace.
#![warn(missing_docs)]

pub mod cpulist;
pub mod lcores;
pub mod memory;
pub mod pin;
pub mod preflight;
pub mod residence;
pub mod topology;
