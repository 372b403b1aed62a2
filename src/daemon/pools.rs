//! Where packets live: one pool for all ports, or in profile metal one on each NUMA node that has some; and a pool
//! of its own for each port whose driver would take its buffers along.

use std::collections::BTreeMap;

use weir_ffi::{Eal, MAX_DATA_ROOM, Pool, PoolError};

use crate::config;
use crate::control::engine::PoolUse;

/// Buffers that hold packets of several segments brought into one.
const LARGE_BUFFERS: u32 = 255;
/// Buffers each lcore keeps at hand.
const CACHE: u32 = 256;
/// Buffers for one queue of net_af_xdp: its fill, receive and transmit rings hold 2048 each.
const XDP_BUFFERS: u32 = 8191;

/// All pools.
#[derive(Debug)]
pub(super) struct Pools {
    settings: config::Pool,
    shared: BTreeMap<Option<u32>, Pool>,
    /// For packets of several segments.
    pub(super) large: Pool,
}

impl Pools {
    pub(super) fn new(eal: &Eal, settings: config::Pool) -> Result<Self, PoolError> {
        let large = Pool::new(eal, &Pool::unique_name("large"), LARGE_BUFFERS, 0, MAX_DATA_ROOM, None)?;
        Ok(Self { settings, shared: BTreeMap::new(), large })
    }

    /// The pool of a node, made when it is first asked for; `None` is memory from anywhere.
    pub(super) fn shared(&mut self, eal: &Eal, node: Option<u32>) -> Result<Pool, PoolError> {
        if let Some(pool) = self.shared.get(&node) {
            return Ok(pool.clone());
        }
        let config::Pool { mbufs, data_room } = self.settings;
        let pool = Pool::new(eal, &Pool::unique_name("packets"), mbufs, CACHE, data_room, node)?;
        self.shared.insert(node, pool.clone());
        Ok(pool)
    }

    /// A pool for one net_af_xdp port, which never gives back the buffers that it has filled its rings with.
    pub(super) fn for_xdp(&self, eal: &Eal, queues: u16, node: Option<u32>) -> Result<Pool, PoolError> {
        let mbufs = XDP_BUFFERS.saturating_mul(queues.into());
        Pool::new(eal, &Pool::unique_name("xdp"), mbufs, CACHE, self.settings.data_room, node)
    }

    /// How full they are.
    pub(super) fn usage(&self) -> impl Iterator<Item = PoolUse> {
        let shared = self.shared.iter().map(|(&node, pool)| usage(pool, node, None));
        shared.chain([usage(&self.large, None, None)])
    }
}

/// How full a pool is.
pub(super) fn usage(pool: &Pool, node: Option<u32>, port: Option<config::Name>) -> PoolUse {
    PoolUse {
        name: pool.name().to_owned(),
        port,
        node,
        size: pool.size(),
        in_use: pool.in_use(),
        data_room: pool.data_room(),
    }
}
