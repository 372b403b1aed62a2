//! Topology, core pinning and node-local memory.

pub mod memory;
