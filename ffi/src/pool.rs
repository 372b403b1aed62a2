//! Pools of packet buffers. A pool can be used from any thread; threads registered with EAL have a cache of their own
//! in it. A pool dropped while packets of it are still held stays in memory until they are back, and EAL with it, so that
//! a packet never outlives its bytes.

use std::ffi::{CString, c_int};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use dpdk_sys as sys;

use crate::burst::Burst;
use crate::eal::{self, Eal, Runtime};
use crate::log;
use crate::mbuf::{Mbuf, MbufError};

/// Most bytes of packet a buffer can have room for: lengths are 16 bits, the headroom included.
pub const MAX_DATA_ROOM: u16 = u16::MAX - sys::SHIM_MBUF_HEADROOM;

/// Why a pool could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// A parameter is out of its range.
    #[error("pool {name:?}: {problem}")]
    Parameter {
        /// The pool.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// DPDK could not make it.
    #[error(
        "pool {name:?} of {mbufs} buffers of {data_room} bytes (about {mib} MiB): {reason}. \
         Give EAL more memory (profile lab: memory, profile metal: hugepages on that node), or make the pool smaller"
    )]
    Create {
        /// The pool.
        name: String,
        /// Buffers wanted.
        mbufs: u32,
        /// Bytes in each.
        data_room: u16,
        /// What they amount to.
        mib: u64,
        /// DPDK's error and log.
        reason: String,
    },
}

struct PoolInner {
    raw: NonNull<sys::rte_mempool>,
    name: String,
    mbufs: u32,
    data_room: u16,
    runtime: Arc<Runtime>,
}

// SAFETY: the pool's operations are the default ones for many producers and consumers (`Eal` refuses arguments that
// choose others), and its caches are indexed by the calling thread's own lcore number.
unsafe impl Send for PoolInner {}
// SAFETY: as above.
unsafe impl Sync for PoolInner {}

impl Drop for PoolInner {
    fn drop(&mut self) {
        // Buffers are only taken with a handle of this pool (queues hold one): none is taken from now on.
        self.runtime.retire(self.raw, self.mbufs);
    }
}

impl PoolInner {
    fn available(&self) -> u32 {
        // SAFETY: the pool is alive.
        unsafe { sys::rte_mempool_avail_count(self.raw.as_ptr()) }
    }
}

/// A pool of packet buffers. Clones are handles of the same pool.
#[derive(Clone)]
pub struct Pool {
    inner: Arc<PoolInner>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let PoolInner { name, mbufs, data_room, .. } = &*self.inner;
        f.debug_struct("Pool")
            .field("name", name)
            .field("mbufs", mbufs)
            .field("data_room", data_room)
            .finish()
    }
}

impl Pool {
    /// Makes a pool of `mbufs` buffers (2^k - 1 wastes no memory) with room for `data_room` bytes of packet each, beside
    /// a headroom for headers. Each registered thread caches up to `cache` of them (0 to 512, and at most two thirds of all).
    /// `socket` is the NUMA node of the memory, `None` any.
    ///
    /// # Errors
    /// [`PoolError::Parameter`] for a name that is taken, empty or too long, for no buffers, or too large a cache or data
    /// room; [`PoolError::Create`] where memory does not suffice.
    pub fn new(
        eal: &Eal,
        name: &str,
        mbufs: u32,
        cache: u32,
        data_room: u16,
        socket: Option<u32>,
    ) -> Result<Self, PoolError> {
        let bad = |problem: String| PoolError::Parameter { name: name.to_owned(), problem };
        let longest = usize::try_from(sys::SHIM_MEMPOOL_NAMESIZE).unwrap_or(0).saturating_sub(1);
        if name.is_empty() || name.len() > longest {
            return Err(bad(format!("a name has 1 to {longest} bytes, this one {}", name.len())));
        }
        let c_name = CString::new(name).map_err(|_| bad("the name contains a NUL byte".to_owned()))?;
        // 3/2 of the cache is what DPDK lets it grow to before it is flushed.
        let (most, two_thirds) = (sys::SHIM_MEMPOOL_CACHE_MAX, mbufs / 3 * 2);
        if mbufs == 0 || cache > most || cache > two_thirds {
            let allowed = most.min(two_thirds);
            return Err(bad(format!("{mbufs} buffers allow a cache of at most {allowed}, not {cache}")));
        }
        if data_room == 0 || data_room > MAX_DATA_ROOM {
            return Err(bad(format!("a data room has 1 to {MAX_DATA_ROOM} bytes, not {data_room}")));
        }
        let socket_id = match socket {
            None => -1,
            Some(node) => c_int::try_from(node).map_err(|_| bad(format!("there is no NUMA node {node}")))?,
        };
        eal.runtime.free_retired();
        // SAFETY: EAL is up; reads the name during the call.
        if !unsafe { sys::rte_mempool_lookup(c_name.as_ptr()) }.is_null() {
            return Err(bad("a pool of this name exists".to_owned()));
        }
        let mark = log::mark();
        let room = data_room + sys::SHIM_MBUF_HEADROOM;
        // SAFETY: EAL is up, the name is copied, the numbers were checked above.
        let raw = unsafe { sys::rte_pktmbuf_pool_create(c_name.as_ptr(), mbufs, cache, 0, room, socket_id) };
        let Some(raw) = NonNull::new(raw) else {
            let bytes = u64::from(mbufs) * (u64::from(room) + u64::from(sys::SHIM_MBUF_SIZE) + 64);
            return Err(PoolError::Create {
                name: name.to_owned(),
                mbufs,
                data_room,
                mib: bytes.div_ceil(1 << 20),
                reason: eal::reason(eal::rte_errno(), &log::complaints_since(mark)),
            });
        };
        let runtime = Arc::clone(&eal.runtime);
        Ok(Self { inner: Arc::new(PoolInner { raw, name: name.to_owned(), mbufs, data_room, runtime }) })
    }

    /// A name for a pool that no other of this process has: `prefix` and a number.
    pub fn unique_name(prefix: &str) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        format!("{prefix}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn raw(&self) -> *mut sys::rte_mempool {
        self.inner.raw.as_ptr()
    }

    /// An empty packet, or `None` if all buffers are in use.
    #[inline]
    pub fn alloc(&self) -> Option<Mbuf> {
        // SAFETY: the pool is alive.
        let raw = unsafe { sys::shim_pktmbuf_alloc(self.raw()) };
        // SAFETY: a fresh buffer is owned by nobody else.
        NonNull::new(raw).map(|raw| unsafe { Mbuf::from_raw(raw) })
    }

    /// Fills `burst` with `count` more empty packets, all or none; says whether it did.
    pub fn alloc_bulk(&self, burst: &mut Burst, count: usize) -> bool {
        let (slots, room) = burst.spare();
        let Ok(wanted) = u32::try_from(count) else { return false };
        if count > room {
            return false;
        }
        // SAFETY: the pool is alive and `slots` has room for `count` pointers.
        if unsafe { sys::shim_pktmbuf_alloc_bulk(self.raw(), slots, wanted) } != 0 {
            return false;
        }
        // SAFETY: the call filled `count` slots with fresh buffers.
        unsafe { burst.grow(count) };
        true
    }

    /// A packet with these bytes.
    ///
    /// # Errors
    /// [`MbufError::TooLong`] if they exceed the data room, [`MbufError::PoolEmpty`].
    pub fn packet(&self, bytes: &[u8]) -> Result<Mbuf, MbufError> {
        let room = usize::from(self.data_room());
        if bytes.len() > room {
            return Err(MbufError::TooLong { length: bytes.len(), room });
        }
        let mut packet = self.alloc().ok_or(MbufError::PoolEmpty)?;
        packet.append(bytes.len())?;
        packet.bytes_mut().copy_from_slice(bytes);
        Ok(packet)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Buffers in all.
    pub fn size(&self) -> u32 {
        self.inner.mbufs
    }

    /// Bytes of packet a buffer has room for, headroom excluded.
    pub fn data_room(&self) -> u16 {
        self.inner.data_room
    }

    /// Buffers that are free, those in threads' caches included. Walks the caches: for reports and tests.
    pub fn available(&self) -> u32 {
        self.inner.available()
    }

    /// Buffers that are packets now, those that wait in receive and transmit queues included.
    pub fn in_use(&self) -> u32 {
        self.size().saturating_sub(self.available())
    }
}
