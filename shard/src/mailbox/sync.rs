//! Where the atomics come from: the standard library's, or, in a build with `--cfg loom`, those of loom, which runs a
//! test in every order that the memory model allows. Only models may run in such a build (`tools/loom`).

#[cfg(loom)]
pub(crate) use loom::{
    sync::Arc,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};
#[cfg(not(loom))]
pub(crate) use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};
