//! Who owns what and how packets get there, in plain types: what `weir show steering` prints. Made by the daemon; holds
//! neither the hash key nor what it could be told from.

use serde::Serialize;
use weir_shard::Reason;
use weir_shard::steering::{Evenness, PoolView, SteeringView};

use super::engine::Counter;
use crate::config::{Name, Role};
use crate::lcore::Arrivals;
use crate::pipeline::Counters;

/// Who owns what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SteeringStatus {
    /// How zones are steered that `zones` does not have.
    pub scheme: &'static str,
    /// Entries of the redirection table.
    pub table_size: usize,
    /// The smallest and the largest shard's part of the table.
    pub evenness: Share,
    /// Shards by number.
    pub shards: Vec<ShardRow>,
    /// Zones that are steered otherwise, by number.
    pub zones: Vec<ZoneRow>,
    /// Ports by name.
    pub ports: Vec<PortRow>,
    /// What went from shard to shard, by reason.
    pub exchanged: Vec<Exchanged>,
}

/// The smallest and the largest part, in hundredths of an equal one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Share {
    /// The smallest, rounded down.
    pub least: u32,
    /// The largest, rounded up.
    pub most: u32,
}

impl From<Evenness> for Share {
    fn from(evenness: Evenness) -> Self {
        Self { least: evenness.least, most: evenness.most }
    }
}

/// One shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ShardRow {
    /// Its number.
    pub shard: usize,
    /// The CPU of its lcore.
    pub cpu: u16,
    /// Entries of the redirection table.
    pub entries: usize,
    /// Packets that it gave to other shards.
    pub handed_over: u64,
    /// Packets that it got from other shards.
    pub taken_over: u64,
}

/// A zone that is not steered as the others are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ZoneRow {
    /// Its number.
    pub zone: u16,
    /// How it is steered.
    pub scheme: &'static str,
    /// Its public addresses, of each family that it has some of.
    pub pools: Vec<PoolRow>,
}

/// Public addresses of one family.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PoolRow {
    /// "ipv4" or "ipv6".
    pub family: &'static str,
    /// How many there are, 2^64 - 1 for more.
    pub addresses: u64,
    /// Addresses that each shard owns, likewise.
    pub whole: Vec<u64>,
    /// Where addresses are cut into slices: ports of each of them that each shard owns.
    pub ports: Option<Vec<u32>>,
    /// How evenly that is.
    pub evenness: Share,
}

/// A port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PortRow {
    /// Its name.
    pub port: Name,
    /// Its driver.
    pub driver: String,
    /// Its side of zones that are steered by subscriber.
    pub role: Option<Role>,
    /// Receive queues.
    pub queues: u16,
    /// Who brings its packets to their owners.
    pub steered_by: SteeredBy,
    /// Why not the card.
    pub why: Option<String>,
    /// What the card can do.
    pub card: CardRow,
    /// What the first packets showed, where the card steers or was found not to.
    pub first_packets: Option<Arrivals>,
    /// What the driver declined, and what is particular to it.
    pub notes: Vec<String>,
}

/// Who brings a port's packets to their owners.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SteeredBy {
    /// The card.
    Card,
    /// The lcores that receive them.
    Software,
    /// Nobody: there is one shard.
    Nobody,
}

impl SteeredBy {
    /// In words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Card => "card",
            Self::Software => "software",
            Self::Nobody => "nobody",
        }
    }
}

/// What a card says it can do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CardRow {
    /// What it can hash: of `addresses`, `tcp`, `udp`, `sctp` (their ports too), `source-only`, `destination-only`.
    pub hashes: Vec<&'static str>,
    /// Entries of its redirection table; 0 if there is none.
    pub table_size: u16,
    /// Bytes of its key; 0 if it does not say.
    pub key_size: u8,
    /// Its driver passes the hash on with each packet.
    pub hash_in_packet: bool,
}

/// Packets that went from shard to shard for one reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Exchanged {
    /// Why.
    pub reason: &'static str,
    /// Sent off.
    pub handed_over: u64,
    /// Arrived.
    pub taken_over: u64,
    /// Dropped because the mailbox was full.
    pub refused: u64,
}

impl SteeringStatus {
    /// Of shards on these CPUs, without ports and packets.
    #[must_use]
    pub fn new(view: SteeringView, cpus: &[u16]) -> Self {
        let shards = view.entries.into_iter().zip(cpus).enumerate();
        Self {
            scheme: view.default_scheme.name(),
            table_size: view.table_size,
            evenness: view.evenness.into(),
            shards: shards
                .map(|(shard, (entries, &cpu))| ShardRow { shard, cpu, entries, ..ShardRow::default() })
                .collect(),
            zones: view
                .zones
                .into_iter()
                .map(|zone| ZoneRow {
                    zone: zone.zone,
                    scheme: zone.scheme.name(),
                    pools: zone.pools.into_iter().map(PoolRow::from).collect(),
                })
                .collect(),
            ports: Vec::new(),
            exchanged: Vec::new(),
        }
    }
}

impl SteeringStatus {
    /// Enters what each shard's worker has counted.
    pub fn count(&mut self, workers: &[Counters]) {
        let mut sum = Counters::default();
        for (shard, counters) in self.shards.iter_mut().zip(workers) {
            shard.handed_over = counters.handed_over_in_all();
            shard.taken_over = counters.taken_over_in_all();
            sum.add(counters);
        }
        // One shard alone has nobody to exchange packets with.
        let reasons = Reason::ALL.into_iter().filter(|_| workers.len() > 1);
        let row = |reason: Reason| Exchanged {
            reason: reason.name(),
            handed_over: sum.handed_over[reason.index()],
            taken_over: sum.taken_over[reason.index()],
            refused: sum.refused_full[reason.index()],
        };
        self.exchanged = reasons.map(row).collect();
    }
}

impl Arrivals {
    /// As event counters.
    #[must_use]
    pub fn counters(&self) -> [Counter; 4] {
        let rows = [
            ("card_hash_matched", self.hash_matched, "the card's hash of one of its first packets was ours"),
            (
                "card_hash_mismatched",
                self.hash_mismatched,
                "the card's hash of one of its first packets was another",
            ),
            (
                "card_hash_absent",
                self.without_hash,
                "the driver passed no hash on with one of its first packets",
            ),
            (
                "card_elsewhere",
                self.elsewhere,
                "a card brought one of its first packets to another lcore than its owner's",
            ),
        ];
        rows.map(|(name, total, help)| Counter { name: name.into(), total, help: help.into() })
    }
}

impl From<PoolView> for PoolRow {
    fn from(pool: PoolView) -> Self {
        let count = |addresses| u64::try_from(addresses).unwrap_or(u64::MAX);
        Self {
            family: if pool.is_ipv4 { "ipv4" } else { "ipv6" },
            addresses: count(pool.addresses),
            whole: pool.whole.into_iter().map(count).collect(),
            ports: pool.ports,
            evenness: pool.evenness.into(),
        }
    }
}
