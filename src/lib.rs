//! weir: a stateful packet datapath that speaks Open vSwitch's flow language.
#![forbid(unsafe_code)]

pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
pub mod flow;
pub mod lcore;
pub mod pipeline;
pub mod replay;
pub mod switch;
