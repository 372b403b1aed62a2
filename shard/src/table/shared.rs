//! An array that the table and readers on other threads hold together: it lives until the last of them is gone. Its
//! elements are atomics, so that holding it is all that is needed to look at them.

#![allow(unsafe_code)] // part of the table

use core::ops::Deref;
use core::ptr::NonNull;
use std::sync::Arc;

use weir_numa::memory::{MemoryError, NodeSlice, Placing, Zeroable};
use weir_numa::residence::Span;

/// The array. Where it lies is kept beside the counted reference, so that an access costs no step through that.
pub(crate) struct Shared<T: Zeroable> {
    start: NonNull<T>,
    len: usize,
    memory: Arc<NodeSlice<T>>,
}

// SAFETY: it is an Arc<NodeSlice<T>> and a pointer into that, which gives out `&T` only.
unsafe impl<T: Zeroable + Send + Sync> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Zeroable + Send + Sync> Sync for Shared<T> {}

impl<T: Zeroable> Shared<T> {
    /// As [`NodeSlice::placed`].
    pub(super) fn placed(len: usize, placing: Placing) -> Result<Self, MemoryError> {
        Ok(Self::of(NodeSlice::placed(len, placing)?))
    }

    /// Where it is.
    pub(super) fn span(&self) -> Span {
        self.memory.span()
    }

    fn of(mut slice: NodeSlice<T>) -> Self {
        // SAFETY: a slice's start is never null.
        let start = unsafe { NonNull::new_unchecked(slice.as_mut_ptr()) };
        Self { start, len: slice.len(), memory: Arc::new(slice) }
    }

    /// As [`NodeSlice::prefault`]; once others hold the array, their looks have to do.
    pub(super) fn prefault(&mut self) {
        if let Some(memory) = Arc::get_mut(&mut self.memory) {
            memory.prefault();
        }
    }
}

impl<T: Zeroable> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self { start: self.start, len: self.len, memory: Arc::clone(&self.memory) }
    }
}

impl<T: Zeroable> Deref for Shared<T> {
    type Target = [T];
    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: `start` and `len` are those of the NodeSlice that `memory` keeps, which no one writes but through
        // shared references to its elements while it is held more than once, and nobody else meanwhile otherwise
        // (`prefault` takes `&mut self`).
        unsafe { core::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}
