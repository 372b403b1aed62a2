//! Measuring. Each program has a script of the same name in `perf/` that builds what it needs:
//! `weir-bench` (`perf/bench`): cycles for each packet of weir over kinds of traffic and numbers of connections, with a
//! generator of its own;
//! `weir-bench-ovs` (`perf/bench-ovs`): weir beside Debian's OVS-DPDK in the same run, with captures that DPDK loops from
//! memory;
//! `weir-ablation` (`perf/ablation`): what prefetching, trajectories and whole bursts are worth;
//! `weir-instructions` (`perf/instructions`): the instructions a packet, held against those of before;
//! `weir-lcores` (`perf/lcores`): what a second lcore brings and what commands cost under full load;
//! `weir-lifetimes` (`perf/lifetimes`): connections that begin, and bursts while others end;
//! `weir-reclaim` (`perf/reclaim`): two ways of giving memory back;
//! `weir-stages` (`perf/stages`): where the cycles of a packet go, by stage and by line.
#![forbid(unsafe_code)]

pub mod ablation;
pub mod documents;
pub mod error;
pub mod frames;
pub mod generator;
pub mod harness;
pub mod hugepages;
pub mod inside;
pub mod instructions;
pub mod lifetimes;
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
