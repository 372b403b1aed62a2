//! Zeroed memory for the big arrays of a shard, on the NUMA node of the core that works on it and on huge pages
//! where the kernel has some. The memory comes straight from `mmap`: pages cost nothing until they are touched,
//! so an array may be sized for the worst case; but reserved hugepages are taken at once. Where memory ended up is
//! looked up in [`residence`](crate::residence). Nothing here runs on the packet path.

use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use std::io;
use std::path::Path;

use thiserror::Error;

use crate::residence::Span;
use crate::topology;

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

/// What memory is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Placing {
    /// The node; without one, each page lands on that of the thread that touches it first.
    pub node: Option<u32>,
    /// Reserved hugepages are used while the node has enough of them free.
    pub hugepages: bool,
}

/// The pages that memory was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// The machine's smallest.
    Small,
    /// Transparent huge pages were asked for; the kernel gives them as it has them, and small ones otherwise.
    Transparent,
    /// Hugepages of 2 MiB that the administrator has reserved.
    Reserved,
}

/// A boxed slice of zeroes in memory of its own, aligned to at least a page.
pub struct NodeSlice<T: Zeroable> {
    start: NonNull<T>,
    len: usize,
    /// The whole mapping, which may begin before `start`: address and bytes. `None` without any element.
    mapping: Option<(NonNull<libc::c_void>, usize)>,
    pages: Pages,
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
        Self::placed(len, Placing { node, hugepages: false })
    }

    /// The same, on reserved hugepages where `placing` allows them. Those are taken at once, so that the next to ask
    /// sees how many are left; a slice too small to fill half a hugepage gets none.
    ///
    /// # Errors
    /// See [`MemoryError`]; nothing stays mapped. A lack of hugepages is no error.
    pub fn placed(len: usize, placing: Placing) -> Result<Self, MemoryError> {
        const { assert!(!core::mem::needs_drop::<T>()) };
        let size = size_of::<T>();
        let too_large = MemoryError::TooLarge { count: len, size };
        let Some(bytes) = len.checked_mul(size).filter(|&b| b <= isize::MAX as usize - 2 * HUGE_PAGE) else {
            return Err(too_large);
        };
        if bytes == 0 {
            let start = NonNull::dangling();
            return Ok(Self { start, len, mapping: None, pages: Pages::Small, owned: PhantomData });
        }
        let whole = bytes.next_multiple_of(HUGE_PAGE);
        if placing.hugepages && bytes >= HUGE_PAGE / 2 {
            let free = topology::free_hugepages(Path::new("/"), placing.node, HUGE_PAGE as u64 >> 10);
            if free >= (whole / HUGE_PAGE) as u64
                // No MAP_NORESERVE: the kernel sets the pages aside or refuses, and touching them cannot fail.
                && let Ok(base) = map(whole, libc::MAP_HUGETLB | libc::MAP_HUGE_2MB)
            {
                let (start, mapping) = (base.cast::<T>(), Some((base, whole)));
                let mut slice = Self { start, len, mapping, pages: Pages::Reserved, owned: PhantomData };
                placing.node.map_or(Ok(()), |node| prefer_node(base, whole, node))?;
                slice.touch(HUGE_PAGE);
                return Ok(slice);
            }
        }
        let huge = bytes >= HUGE_PAGE;
        let mapped = if huge { whole + HUGE_PAGE } else { bytes };
        let base =
            map(mapped, libc::MAP_NORESERVE).map_err(|source| MemoryError::Map { bytes: mapped, source })?;
        let skip = if huge { base.as_ptr().align_offset(HUGE_PAGE) } else { 0 };
        // SAFETY: `skip < HUGE_PAGE`, and the mapping is that much longer than the slice.
        let start = unsafe { base.byte_add(skip) }.cast::<T>();
        // From here on Drop unmaps, on the error path too.
        let mapping = Some((base, mapped));
        let mut slice = Self { start, len, mapping, pages: Pages::Small, owned: PhantomData };
        if huge {
            // SAFETY: the range lies inside the mapping. Failure means small pages, which are only slower.
            let advised =
                unsafe { libc::madvise(start.as_ptr().cast(), mapped - HUGE_PAGE, libc::MADV_HUGEPAGE) };
            if advised == 0 {
                slice.pages = Pages::Transparent;
            }
        }
        if let Some(node) = placing.node {
            prefer_node(base, mapped, node)?;
        }
        Ok(slice)
    }

    /// The pages it was given.
    #[must_use]
    pub fn pages(&self) -> Pages {
        self.pages
    }

    /// Where it is, for [`residence`](crate::residence).
    #[must_use]
    pub fn span(&self) -> Span {
        Span { address: self.start.as_ptr() as usize, bytes: self.len * size_of::<T>() }
    }

    /// Touches every page, so that the packet path meets no page fault. Takes about a second for 4 GiB.
    pub fn prefault(&mut self) {
        self.touch(4096);
    }

    fn touch(&mut self, step: usize) {
        let bytes = self.len * size_of::<T>();
        let start = self.start.as_ptr().cast::<u8>();
        for offset in (0..bytes).step_by(step) {
            // SAFETY: `offset < bytes`; the slice is borrowed mutably, and the byte is written back unchanged.
            unsafe {
                let byte = start.add(offset);
                byte.write_volatile(byte.read_volatile());
            }
        }
    }
}

/// A fresh private mapping of zeroes.
fn map(bytes: usize, flags: libc::c_int) -> io::Result<NonNull<libc::c_void>> {
    // SAFETY: an anonymous mapping at an address of the kernel's choice touches no other memory.
    let address = unsafe {
        libc::mmap(
            core::ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | flags,
            -1,
            0,
        )
    };
    NonNull::new(address).filter(|_| address != libc::MAP_FAILED).ok_or_else(io::Error::last_os_error)
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
        // A kernel without NUMA has node 0 alone. A container that forbids the call leaves each page to the node of the
        // thread that touches it first, which is the same for a thread that is pinned.
        Some(libc::ENOSYS) if node == 0 => Ok(()),
        Some(libc::EPERM) => Ok(()),
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
    fn hugepages_are_used_where_there_are_enough_and_nothing_fails_where_there_are_none() {
        let free = topology::free_hugepages(Path::new("/"), Some(0), 2048);
        for (len, wanted) in [(1000, 0), (HUGE_PAGE / 8, 1), (3 * HUGE_PAGE / 8 + 1, 4), (1 << 40, 1 << 22)] {
            let slice = NodeSlice::<u64>::placed(len, Placing { node: Some(0), hugepages: true }).unwrap();
            let (first, last) = (slice[0], slice[len - 1]);
            assert_eq!((first, last, slice.len()), (0, 0, len));
            match slice.pages() {
                Pages::Reserved => assert!(wanted > 0 && wanted <= free, "{wanted} of {free}"),
                Pages::Transparent | Pages::Small => {}
            }
        }
        let small = NodeSlice::<u64>::placed(1000, Placing { node: None, hugepages: true }).unwrap();
        assert_eq!(small.pages(), Pages::Small);
        assert_eq!(small.span().bytes, 8000);
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
