//! Zeroed memory for the big arrays of a shard, on the NUMA node of the core that works on it and on huge pages
//! where the kernel has some. The memory comes straight from `mmap`: pages cost nothing until they are touched,
//! so an array may be sized for the worst case. Nothing here runs on the packet path.

use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use std::io;

use thiserror::Error;

/// A transparent huge page of x86-64 and of arm64 with 4 KiB pages.
const HUGE_PAGE: usize = 2 << 20;
/// `mbind(2)`: prefer the node, fall back to others rather than fail (linux/mempolicy.h).
const MPOL_PREFERRED: libc::c_ulong = 1;

/// Why memory could not be had.
#[derive(Debug, Error)]
pub enum MemoryError {
    /// The length does not fit the address space.
    #[error("{count} elements of {size} bytes do not fit the address space; ask for fewer")]
    TooLarge {
        /// Elements asked for.
        count: usize,
        /// Bytes of one element.
        size: usize,
    },
    /// The kernel refused the mapping.
    #[error(
        "cannot map {bytes} bytes: {source}; lower the capacity or raise the memory limit (ulimit -v, cgroup)"
    )]
    Map {
        /// Bytes asked for.
        bytes: usize,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The kernel refused to place the mapping on a node.
    #[error(
        "cannot place memory on NUMA node {node}: {source}; see /sys/devices/system/node for the nodes there are"
    )]
    Bind {
        /// Node asked for.
        node: u32,
        /// The kernel's reason.
        source: io::Error,
    },
}

/// Types that may live in a [`NodeSlice`].
///
/// # Safety
/// A value whose bytes are all zero must be valid, and the type must need no `Drop`.
pub unsafe trait Zeroable: Sized {}

// SAFETY: 0 is a valid integer.
unsafe impl Zeroable for u8 {}
// SAFETY: 0 is a valid integer.
unsafe impl Zeroable for u32 {}
// SAFETY: 0 is a valid integer.
unsafe impl Zeroable for u64 {}

/// A boxed slice of zeroes in memory of its own, aligned to at least a page.
pub struct NodeSlice<T: Zeroable> {
    start: NonNull<T>,
    len: usize,
    /// The whole mapping, which may begin before `start`: address and bytes. `None` without any element.
    mapping: Option<(NonNull<libc::c_void>, usize)>,
    owned: PhantomData<T>,
}

// SAFETY: a NodeSlice owns its elements like a Box<[T]> does; it moves between threads where they may.
unsafe impl<T: Zeroable + Send> Send for NodeSlice<T> {}
// SAFETY: `&NodeSlice<T>` gives out `&[T]` only.
unsafe impl<T: Zeroable + Sync> Sync for NodeSlice<T> {}

impl<T: Zeroable> NodeSlice<T> {
    /// `len` elements of zeroes. With `node` the kernel is asked for that node's memory; without, each page lands
    /// on the node of the thread that touches it first. Slices of 2 MiB and more are aligned for huge pages and ask
    /// for transparent ones; a kernel that has none gives small pages.
    ///
    /// # Errors
    /// See [`MemoryError`]; nothing stays mapped.
    pub fn zeroed(len: usize, node: Option<u32>) -> Result<Self, MemoryError> {
        const { assert!(!core::mem::needs_drop::<T>()) };
        let size = size_of::<T>();
        let too_large = MemoryError::TooLarge { count: len, size };
        let Some(bytes) = len.checked_mul(size).filter(|&b| b <= isize::MAX as usize - 2 * HUGE_PAGE) else {
            return Err(too_large);
        };
        if bytes == 0 {
            return Ok(Self { start: NonNull::dangling(), len, mapping: None, owned: PhantomData });
        }
        let huge = bytes >= HUGE_PAGE;
        let mapped = if huge { bytes.next_multiple_of(HUGE_PAGE) + HUGE_PAGE } else { bytes };
        // SAFETY: a fresh private anonymous mapping at an address of the kernel's choice touches no other memory.
        let address = unsafe {
            libc::mmap(
                core::ptr::null_mut(),
                mapped,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        let base = match NonNull::new(address) {
            Some(base) if address != libc::MAP_FAILED => base,
            _ => return Err(MemoryError::Map { bytes: mapped, source: io::Error::last_os_error() }),
        };
        let skip = if huge { base.as_ptr().align_offset(HUGE_PAGE) } else { 0 };
        // SAFETY: `skip < HUGE_PAGE`, and the mapping is that much longer than the slice.
        let start = unsafe { base.byte_add(skip) }.cast::<T>();
        // From here on Drop unmaps, on the error path too.
        let slice = Self { start, len, mapping: Some((base, mapped)), owned: PhantomData };
        if huge {
            // SAFETY: the range lies inside the mapping. Failure means small pages, which are only slower.
            unsafe { libc::madvise(start.as_ptr().cast(), mapped - HUGE_PAGE, libc::MADV_HUGEPAGE) };
        }
        if let Some(node) = node {
            prefer_node(base, mapped, node)?;
        }
        Ok(slice)
    }

    /// Touches every page, so that the packet path meets no page fault. Takes about a second for 4 GiB.
    pub fn prefault(&mut self) {
        let bytes = self.len * size_of::<T>();
        let start = self.start.as_ptr().cast::<u8>();
        for offset in (0..bytes).step_by(4096) {
            // SAFETY: `offset < bytes`; the slice is borrowed mutably, and the byte is written back unchanged.
            unsafe {
                let byte = start.add(offset);
                byte.write_volatile(byte.read_volatile());
            }
        }
    }
}

fn prefer_node(base: NonNull<libc::c_void>, bytes: usize, node: u32) -> Result<(), MemoryError> {
    const WORD: u32 = u64::BITS;
    let mut mask = [0u64; 16];
    let word = usize::try_from(node / WORD).ok().and_then(|word| mask.get_mut(word));
    let Some(word) = word else {
        return Err(MemoryError::Bind { node, source: io::Error::from_raw_os_error(libc::EINVAL) });
    };
    *word = 1 << (node % WORD);
    // The kernel counts the bits of the mask one too short (mbind(2), notes).
    let bits: libc::c_ulong = 16 * 64 + 1;
    // SAFETY: the range is a mapping that we own, and the mask outlives the call and has `bits - 1` bits.
    let failed = unsafe {
        libc::syscall(libc::SYS_mbind, base.as_ptr(), bytes, MPOL_PREFERRED, mask.as_ptr(), bits, 0)
    };
    if failed == 0 {
        return Ok(());
    }
    let source = io::Error::last_os_error();
    match source.raw_os_error() {
        // A kernel without NUMA, or a container that forbids the call: every node is node 0 there.
        Some(libc::ENOSYS | libc::EPERM) if node == 0 => Ok(()),
        _ => Err(MemoryError::Bind { node, source }),
    }
}

impl<T: Zeroable> Drop for NodeSlice<T> {
    fn drop(&mut self) {
        if let Some((base, bytes)) = self.mapping {
            // SAFETY: the mapping is ours and nothing borrows from the slice any more. Elements need no Drop.
            unsafe { libc::munmap(base.as_ptr(), bytes) };
        }
    }
}

impl<T: Zeroable> Deref for NodeSlice<T> {
    type Target = [T];
    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: `start` is aligned (page, or dangling for no bytes) and `len` elements lie in the mapping, all
        // initialised with zeroes, which is valid for T: Zeroable.
        unsafe { core::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T: Zeroable> DerefMut for NodeSlice<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`, and `&mut self` makes it the only borrow.
        unsafe { core::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_zero_and_writable_to_its_last_element() {
        for len in [0usize, 1, 1000, 600_000] {
            let mut slice = NodeSlice::<u64>::zeroed(len, None).unwrap();
            assert_eq!(slice.len(), len);
            assert!(slice.iter().all(|&word| word == 0));
            slice.fill(7);
            slice.prefault();
            assert!(slice.iter().all(|&word| word == 7));
        }
    }

    #[test]
    fn large_slices_are_aligned_for_huge_pages() {
        let slice = NodeSlice::<u64>::zeroed(HUGE_PAGE, None).unwrap();
        assert_eq!(slice.as_ptr().align_offset(HUGE_PAGE), 0);
    }

    #[test]
    fn node_0_exists_everywhere_and_node_4000_nowhere() {
        assert!(NodeSlice::<u64>::zeroed(1 << 20, Some(0)).is_ok());
        assert!(matches!(NodeSlice::<u64>::zeroed(8, Some(4000)), Err(MemoryError::Bind { node: 4000, .. })));
    }

    #[test]
    fn a_length_beyond_the_address_space_is_refused() {
        assert!(matches!(NodeSlice::<u64>::zeroed(usize::MAX / 2, None), Err(MemoryError::TooLarge { .. })));
        assert!(matches!(NodeSlice::<u64>::zeroed(1 << 58, None), Err(MemoryError::Map { .. })));
    }
}
