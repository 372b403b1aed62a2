//! The memory of a ring: slots that are empty or hold an entry, which of both only the protocol knows. In a build for
//! loom each slot is a cell that notices when two threads are at it.

use core::fmt;

#[cfg(loom)]
pub(super) use checked::Slots;
#[cfg(not(loom))]
pub(super) use plain::Slots;

impl<T> fmt::Debug for Slots<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slots({})", self.capacity())
    }
}

/// Entries rounded up, if there can be so many.
fn rounded(capacity: usize, size: usize) -> Result<usize, weir_numa::memory::MemoryError> {
    let too_large = weir_numa::memory::MemoryError::TooLarge { count: capacity, size };
    capacity.max(1).checked_next_power_of_two().ok_or(too_large)
}

#[cfg(not(loom))]
mod plain {
    use core::marker::PhantomData;
    use core::ptr::NonNull;

    use weir_numa::memory::{MemoryError, NodeSlice, Zeroable};

    /// What the memory is made of.
    #[derive(Clone, Copy)]
    #[repr(C, align(64))]
    struct Line([u8; 64]);

    // SAFETY: bytes, for which 0 is valid.
    unsafe impl Zeroable for Line {}

    pub(crate) struct Slots<T> {
        start: NonNull<T>,
        mask: usize,
        /// Owns the memory; never looked into.
        _memory: NodeSlice<Line>,
        entries: PhantomData<T>,
    }

    // SAFETY: it owns entries and hands each to whoever calls `take`, which may be another thread than that of `put`:
    // `T: Send` allows that. Who may call which when is what the protocol settles and both functions ask for.
    unsafe impl<T: Send> Send for Slots<T> {}
    // SAFETY: as above; through `&Slots` entries are moved, never borrowed.
    unsafe impl<T: Send> Sync for Slots<T> {}

    impl<T> Slots<T> {
        pub(crate) fn new(capacity: usize, node: Option<u32>) -> Result<Self, MemoryError> {
            const { assert!(align_of::<T>() <= align_of::<Line>()) };
            let size = size_of::<T>();
            let capacity = super::rounded(capacity, size)?;
            let too_large = MemoryError::TooLarge { count: capacity, size };
            let bytes = capacity.checked_mul(size).ok_or(too_large)?;
            let mut memory = NodeSlice::zeroed(bytes.div_ceil(size_of::<Line>()), node)?;
            let start = NonNull::from(&mut *memory).cast();
            Ok(Self { start, mask: capacity - 1, _memory: memory, entries: PhantomData })
        }

        #[inline]
        pub(crate) fn capacity(&self) -> usize {
            self.mask + 1
        }

        /// Where the slots begin.
        #[cfg(test)]
        pub(crate) fn address(&self) -> usize {
            self.start.as_ptr().addr()
        }

        /// Writes entry `index` into its slot.
        ///
        /// # Safety
        /// The slot is empty, and no other thread is at it.
        #[inline]
        pub(crate) unsafe fn put(&self, index: usize, entry: T) {
            // SAFETY: `index & mask` is below the capacity, for which the memory was made, aligned for T; the caller
            // says that nobody else is at the slot.
            unsafe { self.start.add(index & self.mask).write(entry) };
        }

        /// Moves entry `index` out of its slot.
        ///
        /// # Safety
        /// `put` has written it, which this thread has seen, it was not taken since, and no other thread is at it.
        #[inline]
        pub(crate) unsafe fn take(&self, index: usize) -> T {
            // SAFETY: within the memory as in `put`; the caller says that there is an entry, and that it moves out once.
            unsafe { self.start.add(index & self.mask).read() }
        }
    }
}

#[cfg(loom)]
mod checked {
    use core::mem::MaybeUninit;

    use loom::cell::UnsafeCell;
    use weir_numa::memory::MemoryError;

    pub(crate) struct Slots<T>(Box<[UnsafeCell<MaybeUninit<T>>]>);

    // SAFETY: as of the plain ones.
    unsafe impl<T: Send> Send for Slots<T> {}
    // SAFETY: as of the plain ones.
    unsafe impl<T: Send> Sync for Slots<T> {}

    impl<T> Slots<T> {
        pub(crate) fn new(capacity: usize, _node: Option<u32>) -> Result<Self, MemoryError> {
            let capacity = super::rounded(capacity, size_of::<T>())?;
            Ok(Self((0..capacity).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect()))
        }

        pub(crate) fn capacity(&self) -> usize {
            self.0.len()
        }

        /// # Safety
        /// As of the plain ones.
        pub(crate) unsafe fn put(&self, index: usize, entry: T) {
            self.0[index & (self.0.len() - 1)].with_mut(|slot| {
                // SAFETY: loom has checked that no other thread is at the cell.
                unsafe { slot.write(MaybeUninit::new(entry)) };
            });
        }

        /// # Safety
        /// As of the plain ones.
        pub(crate) unsafe fn take(&self, index: usize) -> T {
            // A reading of the memory, although the entry moves: the sender may not be at the cell meanwhile.
            self.0[index & (self.0.len() - 1)].with(|slot| {
                // SAFETY: loom has checked that nobody writes the cell; the caller says that there is an entry.
                unsafe { slot.read().assume_init() }
            })
        }
    }
}
