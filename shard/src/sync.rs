//! Where the lock-free modules (mailbox, epoch, leases) take their atomics from: the standard library's, or, in a build
//! with `--cfg loom`, those of loom, which runs a test in every order that the memory model allows. Nothing else of the
//! shard may use them: a loom object outside of a loom model panics.

#[cfg(loom)]
pub(crate) use loom::{
    sync::Arc,
    sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence},
};
#[cfg(not(loom))]
pub(crate) use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence},
};
