//! Who owns what, as plain data to be shown. Holds no secret: neither the key nor what follows from it.

use super::subscriber::{Pool, SubscriberZone, slice_ports};
use super::{ShardNumber, Steering};

/// How tuples of a zone find their owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// By a hash of addresses and ports that both directions share.
    Symmetric,
    /// By the public address, or else by the inside one.
    Subscriber,
}

impl Scheme {
    /// Its name in configurations.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Symmetric => "symmetric",
            Self::Subscriber => "subscriber",
        }
    }
}

/// What a datapath's shards have.
#[derive(Clone, Debug, PartialEq)]
pub struct SteeringView {
    /// How many shards there are.
    pub shards: usize,
    /// Of all zones that `zones` does not have.
    pub default_scheme: Scheme,
    /// Entries of the redirection table.
    pub table_size: usize,
    /// Entries of each shard.
    pub entries: Vec<usize>,
    /// How evenly they are shared.
    pub evenness: Evenness,
    /// Zones with a scheme of their own, in the order of their numbers.
    pub zones: Vec<ZoneView>,
}

/// How a zone is steered.
#[derive(Clone, Debug, PartialEq)]
pub struct ZoneView {
    /// Its number.
    pub zone: u16,
    /// How its tuples find their owner.
    pub scheme: Scheme,
    /// Its public addresses, of each family that it has some of.
    pub pools: Vec<PoolView>,
}

/// Public addresses of one family.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolView {
    /// True for IPv4, false for IPv6.
    pub is_ipv4: bool,
    /// How many addresses there are.
    pub addresses: u128,
    /// Addresses that each shard owns: as a whole, or, where they are cut into slices, for protocols without ports and
    /// for fragments.
    pub whole: Vec<u128>,
    /// Where addresses are cut into slices: how many ports of each address each shard owns.
    pub ports: Option<Vec<u32>>,
    /// How evenly addresses, or ports where these are cut, are shared.
    pub evenness: Evenness,
}

/// Parts of a whole, each in hundredths of an equal part: 100 and 100 is perfect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evenness {
    /// The smallest part, rounded down.
    pub least: u32,
    /// The largest part, rounded up.
    pub most: u32,
}

impl Evenness {
    /// Of these parts. Nothing is shared evenly.
    #[must_use]
    pub fn of(parts: &[u128]) -> Self {
        let (least, most) = (parts.iter().min().copied(), parts.iter().max().copied());
        let (Some(least), Some(most)) = (least, most) else { return Self { least: 100, most: 100 } };
        // In floating point: 100 times an IPv6 pool does not fit. The largest result is 100 times 64 shards.
        let mean = parts.iter().map(|part| *part as f64).sum::<f64>() / parts.len() as f64;
        if mean == 0.0 {
            return Self { least: 100, most: 100 };
        }
        let share = |part: u128| part as f64 / mean * 100.0;
        Self { least: share(least).floor() as u32, most: share(most).ceil() as u32 }
    }
}

impl Steering {
    /// Who owns what, to be shown.
    #[must_use]
    pub fn view(&self) -> SteeringView {
        let entries = (0..self.shards)
            .map(|shard| self.table.iter().filter(|owner| owner.index() == shard).count())
            .collect::<Vec<_>>();
        SteeringView {
            shards: self.shards,
            default_scheme: Scheme::Symmetric,
            table_size: self.table.len(),
            evenness: Evenness::of(&entries.iter().map(|count| *count as u128).collect::<Vec<_>>()),
            entries,
            zones: self.subscribers.iter().map(|zone| self.view_zone(zone)).collect(),
        }
    }

    fn view_zone(&self, zone: &SubscriberZone) -> ZoneView {
        let pools = [true, false].into_iter().filter(|is_ipv4| !zone.pool(*is_ipv4).is_empty());
        ZoneView {
            zone: zone.zone,
            scheme: Scheme::Subscriber,
            pools: pools.map(|is_ipv4| self.view_pool(is_ipv4, zone.pool(is_ipv4))).collect(),
        }
    }

    fn view_pool(&self, is_ipv4: bool, pool: &Pool) -> PoolView {
        let mut whole = vec![0; self.shards];
        for (owner, addresses) in pool.table.iter().zip(&pool.addresses) {
            whole[owner.index()] += addresses;
        }
        let ports: Option<Vec<u32>> = pool.slices.map(|slices| {
            let shards = (0..self.shards).filter_map(ShardNumber::new);
            shards.map(|shard| slice_ports(shard, slices).iter().map(|(_, len)| len).sum()).collect()
        });
        let evenness = match &ports {
            None => Evenness::of(&whole),
            Some(ports) => Evenness::of(&ports.iter().map(|count| u128::from(*count)).collect::<Vec<_>>()),
        };
        PoolView { is_ipv4, addresses: pool.addresses.iter().sum(), whole, ports, evenness }
    }
}
