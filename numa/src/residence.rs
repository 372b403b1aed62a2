//! Where memory of this process really is: on which nodes (`move_pages(2)`, which moves nothing here) and on how large
//! pages (`/proc/self/smaps`). For whoever shows it; memory that is gone meanwhile counts as untouched.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// Pages that are looked at in one span: enough to tell where it is, and some hundred microseconds.
const SAMPLES: usize = 512;
/// The smallest page there is.
const PAGE: usize = 4096;

/// A piece of this process's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its first byte.
    pub address: usize,
    /// How many there are.
    pub bytes: usize,
}

/// Which nodes some memory is on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nodes {
    /// Bytes by node, as far as touched; estimated from 512 pages of each span.
    pub bytes: BTreeMap<u32, u64>,
}

/// How large its pages are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageSizes {
    /// KiB that are there.
    pub resident_kib: u64,
    /// Of these on transparent huge pages, of 2 MiB mostly.
    pub transparent_kib: u64,
    /// Of these on hugepages that were reserved.
    pub reserved_kib: u64,
}

/// The nodes of `spans`.
///
/// # Errors
/// When the kernel does not tell, as one without NUMA, or a container that forbids the question.
pub fn nodes(spans: &[Span]) -> io::Result<Nodes> {
    let mut found = Nodes::default();
    for span in spans.iter().filter(|span| span.bytes > 0) {
        let pages = span.bytes.div_ceil(PAGE);
        let samples = pages.min(SAMPLES);
        let first = span.address & !(PAGE - 1);
        let addresses: Vec<usize> = (0..samples).map(|n| first + n * pages / samples * PAGE).collect();
        for status in locate(&addresses)? {
            // Errors are pages that nobody has touched.
            if let Ok(node) = u32::try_from(status) {
                *found.bytes.entry(node).or_default() += (span.bytes / samples) as u64;
            }
        }
    }
    Ok(found)
}

/// For each page its node, or an error's number below 0.
fn locate(addresses: &[usize]) -> io::Result<Vec<libc::c_int>> {
    let mut status = vec![-1; addresses.len()];
    // SAFETY: without nodes to move to the call only reads page tables; `addresses` and `status` are as long as it is
    // told, and the addresses are numbers to it that need not be mapped.
    let failed = unsafe {
        libc::syscall(
            libc::SYS_move_pages,
            0,
            addresses.len(),
            addresses.as_ptr(),
            core::ptr::null::<libc::c_int>(),
            status.as_mut_ptr(),
            0,
        )
    };
    if failed < 0 { Err(io::Error::last_os_error()) } else { Ok(status) }
}

/// The pages of `spans`, by what /proc/self/smaps says of the mappings that they lie in.
#[must_use]
pub fn page_sizes(smaps: &str, spans: &[Span]) -> PageSizes {
    let (mut sizes, mut is_meant) = (PageSizes::default(), false);
    let mut seen = BTreeSet::new();
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        let Some(key) = words.next() else { continue };
        if let Some((start, end)) = range(key) {
            is_meant = spans.iter().any(|span| span.address < end && start < span.address + span.bytes);
            is_meant &= seen.insert(start);
            continue;
        }
        let number = words.next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
        match key {
            "Rss:" if is_meant => sizes.resident_kib += number,
            "AnonHugePages:" if is_meant => sizes.transparent_kib += number,
            // They are not part of Rss.
            "Private_Hugetlb:" if is_meant => {
                sizes.resident_kib += number;
                sizes.reserved_kib += number;
            }
            _ => {}
        }
    }
    sizes
}

/// `7f00-7f80`, hexadecimal.
fn range(text: &str) -> Option<(usize, usize)> {
    let (start, end) = text.split_once('-')?;
    Some((usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::NodeSlice;

    const SMAPS: &str = "\
100000-300000 rw-p 00000000 00:00 0
Size:               2048 kB
KernelPageSize:        4 kB
Rss:                  40 kB
AnonHugePages:         0 kB
Private_Hugetlb:       0 kB
VmFlags: rd wr
400000-1400000 rw-p 00000000 00:00 0
KernelPageSize:        4 kB
Rss:               10240 kB
AnonHugePages:      8192 kB
Private_Hugetlb:       0 kB
1600000-1e00000 rw-p 00000000 00:0f 77    /anon_hugepage (deleted)
KernelPageSize:     2048 kB
Rss:                   0 kB
AnonHugePages:         0 kB
Private_Hugetlb:    8192 kB
";

    #[test]
    fn pages_are_those_of_the_mappings_that_memory_lies_in() {
        let span = |address, bytes| Span { address, bytes };
        let sizes = |spans: &[Span]| {
            let sizes = page_sizes(SMAPS, spans);
            (sizes.resident_kib, sizes.transparent_kib, sizes.reserved_kib)
        };
        assert_eq!(sizes(&[]), (0, 0, 0));
        assert_eq!(sizes(&[span(0x10_0000, 10), span(0x20_0000, 10)]), (40, 0, 0), "one mapping counts once");
        assert_eq!(sizes(&[span(0x40_0000, 0x100_0000)]), (10_240, 8_192, 0));
        assert_eq!(sizes(&[span(0x160_0000, 1)]), (8_192, 0, 8_192), "reserved ones are in no Rss");
        assert_eq!(
            sizes(&[span(0x10_0000, 1), span(0x40_0000, 1), span(0x160_0000, 1)]),
            (18_472, 8_192, 8_192)
        );
        assert_eq!(sizes(&[span(0x30_0000, 0x10_0000)]), (0, 0, 0), "between two");
        assert_eq!(page_sizes("garbage\n-\nRss: x kB\n", &[span(0, 9)]), PageSizes::default());
    }

    #[test]
    fn memory_is_where_it_was_put_and_what_was_not_touched_is_nowhere() {
        let mut slice = NodeSlice::<u64>::zeroed(1 << 20, Some(0)).expect("8 MiB");
        let span = slice.span();
        let Ok(found) = nodes(&[span]) else { return println!("skipped: this kernel does not tell") };
        assert_eq!(found, Nodes::default());
        slice.prefault();
        let found = nodes(&[span]).expect("as before");
        assert_eq!(found.bytes.keys().copied().collect::<Vec<_>>(), [0]);
        assert_eq!(found.bytes[&0], 8 << 20);
        let smaps = std::fs::read_to_string("/proc/self/smaps").expect("readable");
        assert_eq!(page_sizes(&smaps, &[span]).resident_kib, 8 << 10);
        assert_eq!(nodes(&[Span { address: 4096, bytes: 4096 }]).expect("as before"), Nodes::default());
    }
}
