//! DPDK's packet buffers as the pipeline's frames.

use weir_ffi::{ChecksumStatus, Mbuf};

use crate::pipeline::Frame;

impl Frame for Mbuf {
    #[inline]
    fn bytes(&self) -> &[u8] {
        Mbuf::bytes(self)
    }

    #[inline]
    fn bytes_mut(&mut self) -> &mut [u8] {
        Mbuf::bytes_mut(self)
    }

    fn grow_front(&mut self, count: usize) -> bool {
        self.prepend(count).is_ok()
    }

    fn grow_back(&mut self, count: usize) -> bool {
        self.append(count).is_ok()
    }

    fn shrink_front(&mut self, count: usize) -> bool {
        self.adj(count).is_ok()
    }

    fn truncate(&mut self, length: usize) {
        let excess = self.len().saturating_sub(length);
        // Of a frame in one segment, which all of the pipeline's are, any part can be trimmed.
        let _ = self.trim(excess);
    }

    fn duplicate(&self) -> Option<Self> {
        self.copy().ok()
    }

    #[inline]
    fn checksums_verified(&self) -> bool {
        self.ip_checksum() == ChecksumStatus::Good && self.l4_checksum() == ChecksumStatus::Good
    }

    #[inline]
    fn prefetch(&self) {
        Mbuf::prefetch(self);
    }

    #[inline]
    fn prefetch_unread(&self) {
        Mbuf::prefetch_unread(self);
    }
}
