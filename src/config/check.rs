//! From what is written to what is meant: ranges, names, duplicates and defaults. Stops at the first fault,
//! with its place in the text.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::num::{NonZeroU32, NonZeroUsize};
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use toml::Spanned;
use weir_numa::cpulist::CpuList;
use weir_shard::fragments::{LARGEST_MAX, LEAST_MIN_SIZE};
use weir_shard::steering::MAX_SHARDS;
use weir_shard::timeouts::LONGEST;
use weir_shard::{FragmentSettings, Timeout, Timeouts};

use super::types::{
    Bridge, Config, Conntrack, DevArgs, Lcores, Name, Peer, Pool, Port, PortNumber, Tuning, is_system_name,
};
use super::{ZoneTimeouts, Zones, file, steering, unknown};

/// The control socket, unless something else is said.
pub const DEFAULT_SOCKET: &str = "/run/weir/weir.sock";
const DEFAULT_CAPACITY: NonZeroU32 = NonZeroU32::MIN.saturating_add(999_999);
/// One shard's slots are numbered with 32 bits, both directions and a margin included.
const CAPACITY: RangeInclusive<i64> = 1..=1 << 28;
/// Below 64 MiB DPDK itself does not start.
const MEMORY_MIB: RangeInclusive<i64> = 64..=1 << 20;
const MBUFS: RangeInclusive<i64> = 1_023..=(1 << 24);
/// 128 bytes of headroom and the shortest frame; the upper end is DPDK's (16 bits).
const DATA_ROOM: RangeInclusive<i64> = 192..=65_535;
const RX_QUEUES: RangeInclusive<i64> = 1..=64;
/// As many as a [`weir_ffi::Burst`] holds.
const BURST: RangeInclusive<i64> = 1..=weir_ffi::BURST as i64;

/// A fault and its place in the text, in bytes.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) span: Range<usize>,
    pub(super) message: String,
}

pub(super) fn fault<T>(at: &Spanned<T>, message: impl Display) -> Fault {
    Fault { span: at.span(), message: message.to_string() }
}

pub(super) fn check(file: file::File, directory: &Path) -> Result<Config, Fault> {
    let steering = steering::check(file.steering)?;
    steering::check_roles(&steering, &file.bridge)?;
    Ok(Config {
        profile: file.profile.unwrap_or_default(),
        socket: match file.socket {
            Some(text) if text.as_ref().is_empty() => {
                return Err(fault(&text, "the socket's path cannot be empty"));
            }
            Some(text) => directory.join(text.into_inner()),
            None => PathBuf::from(DEFAULT_SOCKET),
        },
        lcores: file.lcores.as_ref().map_or(Ok(Lcores::Automatic(NonZeroUsize::MIN)), lcores)?,
        memory_mib: number("memory_mib", file.memory_mib, MEMORY_MIB, 512)?,
        conntrack: conntrack(file.conntrack)?,
        steering,
        pool: Pool {
            mbufs: number("mbufs", file.pool.mbufs, MBUFS, 32_767)?,
            data_room: number("data_room", file.pool.data_room, DATA_ROOM, 2_176)?,
        },
        tuning: tuning(file.tuning)?,
        bridges: bridges(file.bridge, directory)?,
    })
}

fn tuning(file: file::Tuning) -> Result<Tuning, Fault> {
    let Tuning { burst, trajectories } = Tuning::default();
    Ok(Tuning {
        burst: number("burst", file.burst, BURST, burst)?,
        trajectories: file.trajectories.unwrap_or(trajectories),
    })
}

fn parsed<T: FromStr<Err: Display>>(text: &Spanned<String>) -> Result<T, Fault> {
    text.as_ref().parse().map_err(|error| fault(text, error))
}

/// "1-3,7", "auto" or "auto:4".
fn lcores(text: &Spanned<String>) -> Result<Lcores, Fault> {
    let too_many =
        |count| fault(text, format_args!("{count} lcores are too many; there may be {MAX_SHARDS}"));
    if let Some(rest) = text.as_ref().strip_prefix("auto") {
        let count = match rest.strip_prefix(':') {
            Some(count) => count.parse().ok(),
            None => rest.is_empty().then_some(NonZeroUsize::MIN),
        };
        return match count {
            Some(count) if count.get() <= MAX_SHARDS => Ok(Lcores::Automatic(count)),
            Some(count) => Err(too_many(count.get())),
            None => Err(fault(text, "write \"auto\" for one lcore, or as in \"auto:4\" how many")),
        };
    }
    let list: CpuList = parsed(text)?;
    if list.is_empty() {
        let mend = "an lcore needs a CPU; write a list as in \"1-3,7\", \"auto:3\", or leave the key out";
        return Err(fault(text, mend));
    }
    if list.len() > MAX_SHARDS {
        return Err(too_many(list.len()));
    }
    Ok(Lcores::On(list))
}

pub(super) fn number<T: TryFrom<i64>>(
    key: &str,
    given: Option<Spanned<i64>>,
    range: RangeInclusive<i64>,
    default: T,
) -> Result<T, Fault> {
    let Some(given) = given else { return Ok(default) };
    let value = *given.as_ref();
    range.contains(&value).then(|| T::try_from(value).ok()).flatten().ok_or_else(|| {
        fault(&given, format!("{key} is {value}; it must be {} to {}", range.start(), range.end()))
    })
}

fn conntrack(file: file::Conntrack) -> Result<Conntrack, Fault> {
    let capacity: u32 = number("capacity", file.capacity, CAPACITY, DEFAULT_CAPACITY.get())?;
    let limit = 0..=i64::from(capacity);
    Ok(Conntrack {
        capacity: NonZeroU32::new(capacity).unwrap_or(DEFAULT_CAPACITY),
        max_connections: number("max_connections", file.max_connections, limit, capacity)?,
        liberal_tcp: file.liberal_tcp,
        accounting: file.accounting.unwrap_or(true),
        timeouts: timeouts(file.timeouts)?,
        zones: zones(file.zone_limit, file.zone)?,
        fragments: fragments(file.fragments)?,
    })
}

fn fragments(file: file::Fragments) -> Result<FragmentSettings, Fault> {
    let FragmentSettings { enabled: [v4, v6], min_size: [min_v4, min_v6], max } = FragmentSettings::default();
    let sizes = i64::from(LEAST_MIN_SIZE)..=i64::from(u16::MAX);
    Ok(FragmentSettings {
        enabled: [file.v4.unwrap_or(v4), file.v6.unwrap_or(v6)],
        min_size: [
            number("min_size_v4", file.min_size_v4, sizes.clone(), min_v4)?,
            number("min_size_v6", file.min_size_v6, sizes, min_v6)?,
        ],
        max: number("max", file.max, 0..=i64::from(LARGEST_MAX), max)?,
    })
}

/// Those that are not given keep the tracker's defaults.
fn timeouts(file: BTreeMap<Spanned<String>, Spanned<i64>>) -> Result<Timeouts, Fault> {
    let mut timeouts = Timeouts::default();
    for (key, given) in file {
        let (timeout, seconds) = timeout(&key, given)?;
        timeouts.set(timeout, seconds).map_err(|error| fault(&key, error))?;
    }
    Ok(timeouts)
}

fn timeout(key: &Spanned<String>, given: Spanned<i64>) -> Result<(Timeout, u32), Fault> {
    let Some(timeout) = Timeout::ALL.into_iter().find(|timeout| timeout.name() == key.as_ref()) else {
        return Err(fault(key, unknown("key", key.as_ref(), &Timeout::ALL.map(Timeout::name))));
    };
    let seconds = number(timeout.name(), Some(given), 1..=i64::from(LONGEST), 0)?;
    Ok((timeout, seconds))
}

fn zones(limit: Option<Spanned<i64>>, file: Vec<file::Zone>) -> Result<Zones, Fault> {
    const LIMIT: RangeInclusive<i64> = 0..=u32::MAX as i64;
    let default: u32 = number("zone_limit", limit, LIMIT, 0)?;
    let mut zones = Zones { default_limit: (default > 0).then_some(default), ..Zones::default() };
    let mut seen = BTreeSet::new();
    for zone in file {
        let id: u16 = number("id", Some(zone.id.clone()), 0..=i64::from(u16::MAX), 0)?;
        if !seen.insert(id) {
            return Err(fault(&zone.id, format!("zone {id} is described twice")));
        }
        if let Some(limit) = zone.limit {
            zones.limits.insert(id, number("limit", Some(limit), LIMIT, 0)?);
        }
        let mut own = ZoneTimeouts::default();
        for (key, given) in zone.timeouts {
            let (timeout, seconds) = timeout(&key, given)?;
            own.set(timeout, seconds).map_err(|error| fault(&key, error))?;
        }
        if !own.is_empty() {
            zones.timeouts.insert(id, own);
        }
    }
    Ok(zones)
}

fn bridges(file: Vec<file::Bridge>, directory: &Path) -> Result<Vec<Bridge>, Fault> {
    let mut names = BTreeSet::new();
    let mut devices = BTreeMap::new();
    let mut unique = |text: &Spanned<String>| -> Result<Name, Fault> {
        let name: Name = parsed(text)?;
        if names.insert(name.clone()) {
            Ok(name)
        } else {
            Err(fault(text, format!("\"{name}\" is already the name of another bridge or port")))
        }
    };
    file.into_iter()
        .map(|bridge| {
            let name = unique(&bridge.name)?;
            let path = |what: &str, given: Option<Spanned<String>>| match given {
                Some(text) if text.as_ref().is_empty() => {
                    Err(fault(&text, format!("the {what} file's path cannot be empty; leave the key out")))
                }
                other => Ok(other.map(|text| directory.join(text.into_inner()))),
            };
            let groups = path("group", bridge.groups)?;
            let flows = path("flow", bridge.flows)?;
            let mut numbers = taken_numbers(&bridge.port)?;
            let ports = bridge
                .port
                .into_iter()
                .map(|entry| port(entry, &mut unique, &mut numbers, &mut devices))
                .collect::<Result<_, _>>()?;
            Ok(Bridge { name, groups, flows, ports })
        })
        .collect()
}

/// The numbers that a bridge's ports ask for.
fn taken_numbers(ports: &[file::Port]) -> Result<BTreeSet<u16>, Fault> {
    let mut taken = BTreeSet::new();
    for given in ports.iter().filter_map(|port| port.number.as_ref()) {
        let number: u16 = number("number", Some(given.clone()), 1..=i64::from(PortNumber::MAX), 0)?;
        if !taken.insert(number) {
            return Err(fault(given, format!("number {number} is already another port's of this bridge")));
        }
    }
    Ok(taken)
}

fn port(
    file: file::Port,
    unique: &mut impl FnMut(&Spanned<String>) -> Result<Name, Fault>,
    taken: &mut BTreeSet<u16>,
    devices: &mut BTreeMap<String, Name>,
) -> Result<Port, Fault> {
    let name = unique(&file.name)?;
    let rx_queues = match file.rx_queues {
        Some(given) => Some(number("rx_queues", Some(given), RX_QUEUES, 1)?),
        None => None,
    };
    let wanted = match &file.number {
        Some(number) => u16::try_from(*number.as_ref()).ok(),
        None => (1..=PortNumber::MAX).find(|number| !taken.contains(number)),
    };
    let number = wanted
        .and_then(PortNumber::new)
        .ok_or_else(|| fault(&file.name, "every port number of this bridge is taken"))?;
    taken.insert(number.number());
    let devargs: DevArgs = parsed(&file.devargs)?;
    if let Some(other) = devices.insert(devargs.device().to_owned(), name.clone()) {
        let message = format!("{} is already port \"{other}\"'s device", devargs.device());
        return Err(fault(&file.devargs, message));
    }
    let peer = file.peer.map(|peer| {
        let system_name = |text: Spanned<String>| {
            if is_system_name(text.as_ref()) {
                Ok(text.into_inner())
            } else {
                Err(fault(&text, "not a name that a device or network namespace can have"))
            }
        };
        Ok(Peer { dev: system_name(peer.dev)?, netns: peer.netns.map(system_name).transpose()? })
    });
    let role = file.role.map(Spanned::into_inner);
    Ok(Port { name, number, devargs, peer: peer.transpose()?, rx_queues, role })
}
