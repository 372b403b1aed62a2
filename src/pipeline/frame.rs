//! What the pipeline asks of a packet buffer, so that the same code runs over DPDK's mbufs and over plain
//! memory.

use arrayvec::ArrayVec;
use weir_shard::ShardNumber;
use weir_wire::layers::MAX_FRAME;

use super::PortId;
use super::letter::Letter;

/// Packets taken from a queue at once and kept together until they leave.
pub const BURST: usize = 64;

/// Up to [`BURST`] frames.
pub type Burst<F> = ArrayVec<F, BURST>;

/// One Ethernet frame, contiguous, without FCS.
pub trait Frame: Sized {
    /// The frame's bytes.
    fn bytes(&self) -> &[u8];
    /// The frame's bytes.
    fn bytes_mut(&mut self) -> &mut [u8];
    /// Adds `count` bytes of undefined content in front; false (and no change) when there is no room.
    fn grow_front(&mut self, count: usize) -> bool;
    /// Adds `count` bytes of undefined content at the end; false (and no change) when there is no room.
    fn grow_back(&mut self, count: usize) -> bool;
    /// Removes `count` bytes in front; false (and no change) when the frame is shorter.
    fn shrink_front(&mut self, count: usize) -> bool;
    /// Cuts the frame to `length` bytes; a frame that is no longer stays as it is.
    fn truncate(&mut self, length: usize);
    /// A copy of its own; `None` when buffers have run out.
    fn duplicate(&self) -> Option<Self>;
    /// True when the receiver has already verified the L3 and L4 checksums.
    fn checksums_verified(&self) -> bool {
        false
    }
    /// Asks the CPU for the first cache line of the frame.
    fn prefetch(&self) {}
    /// Likewise, and for what describes the frame, where another CPU has written both.
    fn prefetch_unread(&self) {}
}

/// Takes what the pipeline sends. Frames that cannot be sent are the transmitter's to count and free.
pub trait Transmit<F> {
    /// Queues `frame` for `port`.
    fn send(&mut self, port: PortId, frame: F);

    /// Hears that a tracker has seen this packet, by itself or as a part of its datagram: for those who write a history.
    #[inline(always)]
    fn tracked(&mut self, frame: &F) {
        let _ = frame;
    }

    /// Hears that this packet is dropped because the mailbox of the shard that it was to go to is full: for those who
    /// write a history.
    #[inline(always)]
    fn refused(&mut self, frame: &F) {
        let _ = frame;
    }

    /// Queues `letter` for another shard; gives it back where there is no room, or nobody.
    ///
    /// # Errors
    /// The letter, to be dealt with by its sender.
    fn post(&mut self, to: ShardNumber, letter: Letter<F>) -> Result<(), Letter<F>> {
        let _ = to;
        Err(letter)
    }
}

/// A frame in ordinary memory with room in front, for replay and tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeapFrame {
    memory: Vec<u8>,
    start: usize,
    stamp: u64,
}

impl HeapFrame {
    /// Room kept in front of a new frame: two VLAN tags and some.
    const HEADROOM: usize = 32;

    /// A frame that holds a copy of `bytes`.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        let mut memory = Vec::with_capacity(Self::HEADROOM + bytes.len());
        memory.resize(Self::HEADROOM, 0);
        memory.extend_from_slice(bytes);
        Self { memory, start: Self::HEADROOM, stamp: 0 }
    }

    /// The same frame, which came in at `stamp` (nanoseconds); its copies show the same.
    #[must_use]
    pub fn stamped(self, stamp: u64) -> Self {
        Self { stamp, ..self }
    }

    /// When it came in, in nanoseconds; 0 where nobody said.
    #[must_use]
    pub const fn stamp(&self) -> u64 {
        self.stamp
    }
}

impl Frame for HeapFrame {
    fn bytes(&self) -> &[u8] {
        self.memory.get(self.start..).unwrap_or_default()
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        self.memory.get_mut(self.start..).unwrap_or_default()
    }

    fn grow_front(&mut self, count: usize) -> bool {
        let Some(start) = self.start.checked_sub(count) else { return false };
        self.start = start;
        true
    }

    fn grow_back(&mut self, count: usize) -> bool {
        let length = self.memory.len().saturating_add(count);
        if length.saturating_sub(self.start) > MAX_FRAME {
            return false;
        }
        self.memory.resize(length, 0);
        true
    }

    fn shrink_front(&mut self, count: usize) -> bool {
        if count > self.memory.len() - self.start {
            return false;
        }
        self.start += count;
        true
    }

    fn truncate(&mut self, length: usize) {
        self.memory.truncate(self.start.saturating_add(length));
    }

    fn duplicate(&self) -> Option<Self> {
        Some(self.clone())
    }
}
