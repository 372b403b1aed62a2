//! What the protocols here are made of, taken from loom when they are being explored (`--cfg loom`).

#[cfg(not(loom))]
pub(super) use std::sync::{
    Arc,
    atomic::{AtomicPtr, Ordering, fence},
};

#[cfg(loom)]
pub(super) use loom::sync::{
    Arc,
    atomic::{AtomicPtr, Ordering, fence},
};
