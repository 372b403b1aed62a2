//! weir: a stateful packet datapath that speaks Open vSwitch's flow language.
#![forbid(unsafe_code)]

pub mod flow;
pub mod lcore;
pub mod pipeline;
pub mod replay;
pub mod switch;
