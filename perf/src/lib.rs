//! Measuring: cycles a packet on one polling core, weir beside Debian's OVS-DPDK in the same run, with captures that
//! DPDK loops from memory. `weir-bench` (`perf/bench`) is the program; the modules are its parts.
//! `weir-lcores` (`perf/lcores`) measures what a second lcore brings and what commands cost under full load.
//! `weir-reclaim` (`perf/reclaim`) compares two ways of giving memory back.
//! `weir-stages` (`perf/stages`) says where the cycles of a packet go.
//! `weir-instructions` (`perf/instructions`) holds the instructions a packet against those of before.
#![forbid(unsafe_code)]

pub mod ablation;
pub mod documents;
pub mod error;
pub mod generator;
pub mod harness;
pub mod hugepages;
pub mod inside;
pub mod instructions;
pub mod load;
pub mod machine;
pub mod matrix;
pub mod order;
pub mod plot;
pub mod point;
pub mod process;
pub mod reclaim;
pub mod report;
pub mod results;
pub mod runner;
pub mod scale;
pub mod stages;
pub mod statistics;
pub mod switch;
pub mod traffic;
pub mod workload;

pub use error::BenchError;
