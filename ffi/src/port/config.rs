//! What a port is asked for, and what it then really does. A device is never assumed to be able to do anything: every
//! request that it may decline is answered in [`Applied`].

use crate::pool::Pool;

/// How a port is started.
#[derive(Clone, Debug)]
pub struct PortConfig {
    /// Receive queues, 1 or more.
    pub rx_queues: u16,
    /// Transmit queues, 1 or more.
    pub tx_queues: u16,
    /// Descriptors of each receive queue; adjusted to what the device can do.
    pub rx_descriptors: u16,
    /// Descriptors of each transmit queue; adjusted likewise.
    pub tx_descriptors: u16,
    /// MTU in bytes; the device's present one if `None`.
    pub mtu: Option<u16>,
    /// Whether to receive frames for other stations too; switching needs it.
    pub promiscuous: bool,
    /// Whether the device should verify receive checksums, where it can. Off unless asked for: drivers lie.
    pub rx_checksum: bool,
    /// How the device should spread packets over the receive queues; not at all if `None`.
    pub rss: Option<RssConfig>,
    /// Buffers for received packets, one for each receive queue; fewer are used in turn.
    pub pools: Vec<Pool>,
    /// Buffers that packets in several segments are brought into; without it those are dropped, counted.
    pub large: Option<Pool>,
}

impl PortConfig {
    /// One queue each way, 1024 descriptors, promiscuous, buffers from `pool`.
    pub fn new(pool: Pool) -> Self {
        Self {
            rx_queues: 1,
            tx_queues: 1,
            rx_descriptors: 1024,
            tx_descriptors: 1024,
            mtu: None,
            promiscuous: true,
            rx_checksum: false,
            rss: None,
            pools: vec![pool],
            large: None,
        }
    }
}

/// What a hash is computed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashOver {
    /// Addresses, and ports where there are some.
    Endpoints,
    /// The source address alone.
    SourceAddress,
    /// The destination address alone.
    DestinationAddress,
}

impl HashOver {
    /// In words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Endpoints => "addresses and ports",
            Self::SourceAddress => "the source address",
            Self::DestinationAddress => "the destination address",
        }
    }
}

/// How a device spreads packets over its receive queues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RssConfig {
    /// The Toeplitz key. A device with a longer key gets it repeated; a shorter key than this is not set at all.
    pub key: Vec<u8>,
    /// What the hash is computed over.
    pub over: HashOver,
    /// Entry i of the redirection table is `table[i % table.len()]`, a receive queue. Empty leaves the driver's table.
    pub table: Vec<u16>,
}

/// What a started port really does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Descriptors of a receive queue.
    pub rx_descriptors: u16,
    /// Descriptors of a transmit queue.
    pub tx_descriptors: u16,
    /// MTU in bytes.
    pub mtu: u16,
    /// It receives frames for other stations too.
    pub promiscuous: bool,
    /// It verifies receive checksums.
    pub rx_checksum: bool,
    /// How it spreads packets; `None` if it does not.
    pub rss: Option<AppliedRss>,
    /// What was asked for and could not be had, and what the operator should know about this driver.
    pub notes: Vec<String>,
}

/// What a device has taken of an [`RssConfig`], as it says when it is asked again. Whether it then does so is another
/// matter: look at the packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AppliedRss {
    /// It hashes over what was asked for, with every protocol of it.
    pub fields: bool,
    /// It uses the key.
    pub key: bool,
    /// It uses the table.
    pub table: bool,
    /// It passes the hash on with each packet ([`crate::Mbuf::rss_hash`]).
    pub hash_in_packet: bool,
}
