//! Raw bindings of the DPDK that pkg-config finds (22.11 or later), restricted to what `weir-ffi` calls.
//!
//! Functions that DPDK gives only inline are the `shim_*` ones (see `shim/shim.h`). [`MbufHead`] is the view of a
//! packet descriptor used on the packet path; it is checked against the installed headers when this crate compiles.

#[allow(
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    dead_code,
    unreachable_pub,
    unsafe_op_in_unsafe_fn,
    unnecessary_transmutes,
    clippy::all,
    clippy::pedantic,
    clippy::undocumented_unsafe_blocks,
    clippy::unwrap_used,
    clippy::panic
)]
#[allow(rustdoc::all)]
mod bindings {
    include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
}
mod mbuf;

pub use bindings::*;
pub use mbuf::{MbufHead, segment_after};

/// RTE_ETH_RSS_L3_SRC_ONLY: hash over the source address alone.
pub const SHIM_RSS_L3_SRC_ONLY: u64 = 1 << SHIM_RSS_L3_SRC_ONLY_BIT;
/// RTE_ETH_RSS_L3_DST_ONLY: hash over the destination address alone.
pub const SHIM_RSS_L3_DST_ONLY: u64 = 1 << SHIM_RSS_L3_DST_ONLY_BIT;
