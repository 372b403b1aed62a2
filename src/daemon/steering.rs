//! Who brings packets to their owners: what each port's card is programmed with, whether it can be relied on, and when
//! the lcores do it in its place. Decided when a port starts, and once more when its first packets have shown what the
//! card does. No lcore waits for any of it, and a wrong decision costs time only: a packet that comes to another shard
//! than its owner's is handed over at its `ct` in any case.

use std::fmt;
use std::sync::Arc;

use weir_ffi::port::{Applied, AppliedRss, HashOver, RssCapabilities, RssConfig};
use weir_shard::{ShardNumber, Steering};

use super::devices::Device;
use super::state::State;
use super::{DaemonError, Datapath};
use crate::config::{self, Role};
use crate::control::engine::EngineError;
use crate::control::steering::{CardRow, PortRow, SteeredBy, SteeringStatus};
use crate::lcore::{Arrivals, CallError, Examination};

/// Who brings a port's packets to their owners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Steered {
    /// There is one shard.
    Alone,
    /// The card, which has taken all that it was told.
    ByCard,
    /// The lcores that receive them.
    InSoftware(Why),
}

/// Why a card does not steer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// Zones are steered by subscriber, and nobody said which side of them the port is on.
    NoRole,
    /// Public addresses are cut into slices of ports, which no card tells apart.
    Slices,
    /// Several pools want different tables.
    Pools,
    /// Not one queue for each lcore.
    Queues { queues: u16, lcores: usize },
    /// The card spreads no packets.
    NoHash,
    /// Not over what is wanted.
    Fields(HashOver),
    /// With another key.
    Key,
    /// Without a table.
    NoTable,
    /// With a table that ours does not fit into.
    Table { entries: u16, wanted: usize },
    /// The driver has not taken the table.
    TableRefused,
    /// Its first packets show that it does otherwise.
    Packets { wrong: u64, compared: u64 },
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRole => f.write_str("zones are steered by subscriber and the port has no role"),
            Self::Slices => f.write_str("public addresses are cut into port slices"),
            Self::Pools => f.write_str("the pools of its zones want different tables"),
            Self::Queues { queues, lcores } => {
                write!(f, "{queues} receive queue{} for {lcores} lcores", if *queues == 1 { "" } else { "s" })
            }
            Self::NoHash => f.write_str("the device spreads no packets over queues"),
            Self::Fields(over) => write!(f, "the device does not hash over {}", over.name()),
            Self::Key => f.write_str("the device does not use the key"),
            Self::NoTable => f.write_str("the device has no redirection table"),
            Self::Table { entries, wanted } => {
                write!(f, "the device's redirection table has {entries} entries, ours {wanted}")
            }
            Self::TableRefused => f.write_str("the device does not use the redirection table"),
            Self::Packets { wrong, compared } => {
                write!(f, "{wrong} of its first {compared} packets had another hash or came to another lcore")
            }
        }
    }
}

/// What a port's card is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// Nothing for a port with one queue.
    pub(super) rss: Option<RssConfig>,
    /// Known beforehand not to steer. It may be of use all the same: it shares out receiving.
    hindrance: Option<Why>,
}

impl Plan {
    /// For a port with so many receive queues and this role.
    pub(super) fn new(steering: &Steering, role: Option<Role>, queues: u16, card: &RssCapabilities) -> Self {
        let lcores = steering.shards();
        let (over, table) = match side(steering, role) {
            Ok((over, table)) => (over, Ok(table)),
            Err(why) => (HashOver::Endpoints, Err(why)),
        };
        let hindrance = if !card.any() {
            Some(Why::NoHash)
        } else if usize::from(queues) != lcores {
            Some(Why::Queues { queues, lcores })
        } else {
            match &table {
                Err(why) => Some(why.clone()),
                Ok(table) => table_hindrance(table, card.table_size),
            }
        };
        let table = table.unwrap_or(steering.table());
        let rss = (queues > 1).then(|| RssConfig {
            key: steering.key().to_vec(),
            over,
            table: table.iter().map(|owner| queue_of(*owner, queues)).collect(),
        });
        Self { rss, hindrance }
    }

    /// What comes of it with what the device has taken.
    pub(super) fn outcome(&self, lcores: usize, applied: &Applied) -> Steered {
        if lcores == 1 {
            return Steered::Alone;
        }
        let hindrance = self.hindrance.clone().or_else(|| self.declined(applied.rss));
        hindrance.map_or(Steered::ByCard, Steered::InSoftware)
    }

    fn declined(&self, applied: Option<AppliedRss>) -> Option<Why> {
        let (Some(rss), Some(asked)) = (applied, &self.rss) else { return Some(Why::NoHash) };
        match rss {
            AppliedRss { fields: false, .. } => Some(Why::Fields(asked.over)),
            AppliedRss { key: false, .. } => Some(Why::Key),
            AppliedRss { table: false, .. } => Some(Why::TableRefused),
            _ => None,
        }
    }
}

/// What a card hashes and its table.
fn side(steering: &Steering, role: Option<Role>) -> Result<(HashOver, &[ShardNumber]), Why> {
    let zones = steering.view().zones;
    match role {
        None if zones.is_empty() => Ok((HashOver::Endpoints, steering.table())),
        None => Err(Why::NoRole),
        Some(Role::Inside) => Ok((HashOver::SourceAddress, steering.table())),
        Some(Role::Outside) => {
            let pools = || zones.iter().flat_map(|zone| zone.pools.iter().map(|pool| (zone.zone, pool)));
            if pools().any(|(_, pool)| pool.ports.is_some()) {
                return Err(Why::Slices);
            }
            let mut tables = pools().filter_map(|(zone, pool)| steering.pool_table(zone, pool.is_ipv4));
            let table = tables.next().unwrap_or(steering.table());
            if tables.any(|other| other != table) {
                return Err(Why::Pools);
            }
            Ok((HashOver::DestinationAddress, table))
        }
    }
}

/// A card chooses by as many low bits of the hash as its table has, we by as many as ours has: the same where its table
/// is a whole number of ours, or where ours repeats what is in one as small as the card's.
fn table_hindrance(table: &[ShardNumber], entries: u16) -> Option<Why> {
    let size = usize::from(entries);
    if size == 0 {
        return Some(Why::NoTable);
    }
    let repeats = || table.iter().zip(table.iter().skip(size)).all(|(one, next)| one == next);
    let fits = size.is_power_of_two() && (size >= table.len() || repeats());
    (!fits).then_some(Why::Table { entries, wanted: table.len() })
}

fn queue_of(owner: ShardNumber, queues: u16) -> u16 {
    // Below 64.
    u16::try_from(owner.index()).unwrap_or_default() % queues.max(1)
}

/// The size of a table that each of these cards' tables is a whole number of, if that is at least two entries a shard.
fn common_table_size(cards: impl Iterator<Item = u16>, shards: usize) -> Option<usize> {
    let sizes = cards.map(usize::from).filter(|size| size.is_power_of_two() && *size >= 2 * shards);
    sizes.min().map(|size| size.min(weir_shard::steering::MAX_TABLE_SIZE))
}

/// Who owns what among the lcores: with a key nobody outside knows, and a table that the ports' cards can take.
pub(super) fn owners(
    config: &config::Steering,
    shards: usize,
    cards: impl Iterator<Item = u16>,
) -> Result<Arc<Steering>, DaemonError> {
    let mut random = [0; 2];
    getrandom::fill(&mut random).map_err(|error| DaemonError::Random(error.to_string()))?;
    let owners = config.owners(shards, u16::from_ne_bytes(random))?;
    let size = match config.table_size {
        Some(_) => None,
        None => common_table_size(cards, shards),
    };
    Ok(Arc::new(match size {
        Some(size) => owners.with_table_size(size)?,
        None => owners,
    }))
}

impl Device {
    /// Its first packets are looked at from now on, if its card steers.
    pub(super) fn try_card(&mut self) {
        self.on_trial = self.steered == Steered::ByCard;
    }

    /// What looks at the first packets of queue `queue`, where the card steers.
    pub(super) fn examination(&self, steering: &Arc<Steering>, queue: u16) -> Option<Examination> {
        let shard = ShardNumber::new(usize::from(queue))?;
        let examined = self.steered == Steered::ByCard;
        examined.then(|| Examination::new(Arc::clone(steering), shard, self.spec.role))
    }

    fn row(&self, seen: &Arrivals) -> PortRow {
        let (steered_by, why) = match &self.steered {
            Steered::Alone => (SteeredBy::Nobody, None),
            Steered::ByCard => (SteeredBy::Card, None),
            Steered::InSoftware(why) => (SteeredBy::Software, Some(why)),
        };
        let examined = matches!(self.steered, Steered::ByCard | Steered::InSoftware(Why::Packets { .. }));
        let card = &self.card;
        let hashes = [
            ("addresses", card.addresses),
            ("tcp", card.tcp),
            ("udp", card.udp),
            ("sctp", card.sctp),
            ("source-only", card.source_only),
            ("destination-only", card.destination_only),
        ];
        PortRow {
            port: self.spec.name.clone(),
            driver: self.driver.clone(),
            role: self.spec.role,
            queues: self.rx_queues,
            steered_by,
            why: why.map(Why::to_string),
            card: CardRow {
                hashes: hashes.into_iter().filter(|(_, can)| *can).map(|(name, _)| name).collect(),
                table_size: card.table_size,
                key_size: card.key_size,
                hash_in_packet: card.hash_in_packet,
            },
            first_packets: examined.then_some(*seen),
            notes: self.notes.clone(),
        }
    }
}

impl State {
    /// Looks at what cards did with their first packets. Those that steer otherwise than told are relieved of it.
    pub(super) fn judge_cards(&mut self) {
        let open: Vec<_> =
            self.devices.iter().filter(|(_, device)| device.on_trial).map(|(&id, _)| id).collect();
        if open.is_empty() {
            return;
        }
        let ids = open.clone();
        // A fault of an lcore is reported where it matters.
        let Ok(told) =
            self.ask(move |polling| ids.iter().map(|&id| polling.arrivals(id)).collect::<Vec<_>>())
        else {
            return;
        };
        for (index, id) in open.into_iter().enumerate() {
            let mut seen = Arrivals::default();
            let mut undecided = false;
            for (arrivals, open) in told.iter().filter_map(|lcore| lcore.get(index)) {
                seen.add(arrivals);
                undecided |= open;
            }
            let Some(device) = self.devices.get_mut(&id) else { continue };
            device.on_trial = undecided && !seen.condemn();
            if !seen.condemn() {
                continue;
            }
            let why = Why::Packets { wrong: seen.wrong, compared: seen.compared };
            tracing::warn!(
                port = %device.spec.name,
                "its card does not steer as it was told ({why}); the lcores steer its packets from now on"
            );
            device.steered = Steered::InSoftware(why);
            if let Err(error) = self.ask(move |polling| polling.worker_mut().set_steered(id, false)) {
                tracing::error!("an lcore still relies on that card: {error}");
            }
        }
    }

    /// Counters of cards' first packets, over all ports: name, total and help.
    pub(super) fn arrivals(&self) -> Result<Arrivals, CallError> {
        let mut all = Arrivals::default();
        for seen in self.arrivals_by_port()? {
            all.add(&seen);
        }
        Ok(all)
    }

    /// In the order of the devices.
    fn arrivals_by_port(&self) -> Result<Vec<Arrivals>, CallError> {
        let ids: Vec<_> = self.devices.keys().copied().collect();
        let count = ids.len();
        let told =
            self.ask(move |polling| ids.iter().map(|&id| polling.arrivals(id).0).collect::<Vec<_>>())?;
        let mut sums = vec![Arrivals::default(); count];
        for lcore in told {
            sums.iter_mut().zip(&lcore).for_each(|(sum, seen)| sum.add(seen));
        }
        Ok(sums)
    }
}

impl Datapath {
    /// Who owns what, and how packets get there.
    pub(super) fn steering_status(&self) -> Result<SteeringStatus, EngineError> {
        let state = self.state();
        let counters = state.ask(|polling| *polling.worker().counters())?;
        let cpu = |lcore: &crate::lcore::Lcore| u16::try_from(lcore.cpu()).unwrap_or(u16::MAX);
        let cpus: Vec<u16> = state.lcores.iter().map(cpu).collect();
        let mut status = SteeringStatus::new(state.steering.view(), &cpus);
        status.count(&counters);
        let seen = state.arrivals_by_port()?;
        status.ports = state.devices.values().zip(&seen).map(|(device, seen)| device.row(seen)).collect();
        status.ports.sort_by(|a, b| a.port.cmp(&b.port));
        Ok(status)
    }
}

#[cfg(test)]
mod tests {
    use weir_shard::steering::{AddressSpan, KeyWord, SteeringConfig, Subscribers};

    use super::*;

    const CARD: RssCapabilities = RssCapabilities {
        addresses: true,
        tcp: true,
        udp: true,
        sctp: true,
        source_only: true,
        destination_only: true,
        table_size: 128,
        key_size: 40,
        hash_in_packet: true,
    };
    const TAKEN: AppliedRss = AppliedRss { fields: true, key: true, table: true, hash_in_packet: true };

    fn symmetric(shards: usize, table_size: usize) -> Steering {
        let word = KeyWord::from_random(77);
        Steering::new(&SteeringConfig { shards, word, table_size, subscribers: Vec::new() }).unwrap()
    }

    fn subscribers(shards: usize, pools: &[&str]) -> Steering {
        let span = |text: &str| text.parse::<AddressSpan>().unwrap();
        let zone = |pool: &&str| Subscribers { pool: vec![span(pool)], inside: vec![span("10.0.0.0/8")] };
        let subscribers = (1..).zip(pools.iter().map(zone)).collect();
        let word = KeyWord::from_random(77);
        Steering::new(&SteeringConfig { shards, word, table_size: 128, subscribers }).unwrap()
    }

    fn decided(steering: &Steering, role: Option<Role>, queues: u16, card: &RssCapabilities) -> Steered {
        let applied = Applied { rss: Some(TAKEN), ..Applied::default() };
        Plan::new(steering, role, queues, card).outcome(steering.shards(), &applied)
    }

    #[test]
    fn a_card_that_can_all_and_takes_all_steers() {
        let steering = symmetric(3, 128);
        assert_eq!(decided(&steering, None, 3, &CARD), Steered::ByCard);
        assert_eq!(
            decided(&steering, None, 3, &RssCapabilities { table_size: 512, ..CARD }),
            Steered::ByCard
        );
        let rss = Plan::new(&steering, None, 3, &CARD).rss.unwrap();
        assert_eq!((rss.key, rss.over), (steering.key().to_vec(), HashOver::Endpoints));
        assert_eq!((rss.table.len(), &rss.table[..4]), (128, &[0, 1, 2, 0][..]));
        assert_eq!(decided(&symmetric(1, 128), None, 1, &CARD), Steered::Alone);
    }

    #[test]
    fn a_smaller_table_will_do_where_ours_repeats_itself() {
        let card = RssCapabilities { table_size: 64, ..CARD };
        assert_eq!(decided(&symmetric(4, 512), None, 4, &card), Steered::ByCard);
        let why = Why::Table { entries: 64, wanted: 512 };
        assert_eq!(decided(&symmetric(3, 512), None, 3, &card), Steered::InSoftware(why));
        let odd = RssCapabilities { table_size: 1000, ..CARD };
        assert!(matches!(decided(&symmetric(4, 512), None, 4, &odd), Steered::InSoftware(Why::Table { .. })));
    }

    #[test]
    fn what_a_card_lacks_or_declines_leaves_steering_to_the_lcores() {
        let steering = symmetric(2, 128);
        for (queues, card, why) in [
            (1, CARD, Why::Queues { queues: 1, lcores: 2 }),
            (2, RssCapabilities::default(), Why::NoHash),
            (2, RssCapabilities { table_size: 0, ..CARD }, Why::NoTable),
        ] {
            assert_eq!(decided(&steering, None, queues, &card), Steered::InSoftware(why));
        }
        let plan = Plan::new(&steering, None, 2, &CARD);
        for (rss, why) in [
            (None, Why::NoHash),
            (Some(AppliedRss { fields: false, ..TAKEN }), Why::Fields(HashOver::Endpoints)),
            (Some(AppliedRss { key: false, ..TAKEN }), Why::Key),
            (Some(AppliedRss { table: false, ..TAKEN }), Why::TableRefused),
        ] {
            let applied = Applied { rss, ..Applied::default() };
            assert_eq!(plan.outcome(2, &applied), Steered::InSoftware(why));
        }
        assert_eq!(Plan::new(&steering, None, 1, &CARD).rss, None, "one queue: nothing to spread");
    }

    #[test]
    fn a_role_decides_what_is_hashed_where_zones_have_subscribers() {
        let steering = subscribers(2, &["192.0.2.0/24"]);
        let rss = |role| Plan::new(&steering, role, 2, &CARD).rss.unwrap();
        assert_eq!(rss(Some(Role::Inside)).over, HashOver::SourceAddress);
        let outside = rss(Some(Role::Outside));
        let wanted: Vec<u16> =
            steering.pool_table(1, true).unwrap().iter().map(|owner| queue_of(*owner, 2)).collect();
        assert_eq!((outside.over, outside.table), (HashOver::DestinationAddress, wanted));
        for role in [Role::Inside, Role::Outside] {
            assert_eq!(decided(&steering, Some(role), 2, &CARD), Steered::ByCard);
        }
        assert_eq!(decided(&steering, None, 2, &CARD), Steered::InSoftware(Why::NoRole));
        let cut = subscribers(4, &["192.0.2.1"]);
        assert_eq!(decided(&cut, Some(Role::Outside), 4, &CARD), Steered::InSoftware(Why::Slices));
        assert_eq!(decided(&cut, Some(Role::Inside), 4, &CARD), Steered::ByCard);
        let two = subscribers(2, &["192.0.2.0/29", "198.51.100.3-198.51.100.40"]);
        assert_eq!(decided(&two, Some(Role::Outside), 2, &CARD), Steered::InSoftware(Why::Pools));
    }

    #[test]
    fn the_table_is_as_large_as_the_smallest_card_that_is_large_enough() {
        assert_eq!(common_table_size([512, 128, 0, 2048].into_iter(), 3), Some(128));
        assert_eq!(common_table_size([512, 64].into_iter(), 64), Some(512), "one entry a shard is not even");
        assert_eq!(common_table_size([0, 100].into_iter(), 2), None);
        assert_eq!(common_table_size([4096].into_iter(), 2), Some(2048));
        let owners =
            |size| owners(&config::Steering { table_size: size, ..Default::default() }, 3, [128].into_iter());
        assert_eq!(owners(None).unwrap().table().len(), 128);
        assert_eq!(owners(Some(256)).unwrap().table().len(), 256);
    }
}
