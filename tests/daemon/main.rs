//! `weir run` over DPDK's virtual devices, driven as its users drive it: by a configuration, by commands and by
//! signals. Every test starts daemons of its own; those that need root say so when they are skipped.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test may; helpers here are only called by tests

mod changes;
mod commands;
mod devices;
mod fragments;
mod groups;
mod lcores;
mod life;
mod metal;
mod rig;
mod steering;
mod stress;
mod tracking;
