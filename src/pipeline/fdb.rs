//! The learning table behind `normal`: which port a station was last seen at. Shared by the lcores of a
//! bridge and the control side; look-ups take no lock (papaya, reclaimed by seize), and a megaflow that used
//! it keeps the generation of its two buckets, so that a station that moves invalidates only the flows that
//! name it.

use std::sync::atomic::{AtomicU64, Ordering};

use papaya::{HashMap, Operation};

use crate::flow::port::PortNumber;

/// Stations a bridge remembers (ovs-vswitchd.conf.db(5), `mac-table-size`, default 8192).
pub const CAPACITY: usize = 8192;
/// Milliseconds after which a silent station is forgotten (`mac-aging-time`, default 300 s).
pub const AGING: u64 = 300_000;
const BUCKETS: usize = 1024;

/// A station: its address and the VLAN it speaks in (0 without tag).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Station {
    /// VLAN id.
    pub vlan: u16,
    /// MAC address, 48 bits.
    pub mac: u64,
}

#[derive(Debug)]
struct Place {
    port: PortNumber,
    seen: AtomicU64,
}

/// One row of the table, for showing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    /// OpenFlow port number.
    pub port: PortNumber,
    /// Who.
    pub station: Station,
    /// Milliseconds since the last frame.
    pub age: u64,
}

/// A bridge's learning table.
#[derive(Debug)]
pub struct Fdb {
    places: HashMap<Station, Place>,
    generations: Box<[AtomicU64]>,
    refused: AtomicU64,
    learned: AtomicU64,
    moved: AtomicU64,
    expired: AtomicU64,
}

/// What a learning table has seen since its statistics were cleared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Stations in it now.
    pub current: usize,
    /// Stations that became known.
    pub learned: u64,
    /// Stations that fell silent and were forgotten.
    pub expired: u64,
    /// Stations that were seen at another port than before.
    pub moved: u64,
    /// Frames whose source was not learned because the table was full.
    pub refused: u64,
}

impl Default for Fdb {
    fn default() -> Self {
        Self {
            places: HashMap::new(),
            generations: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            refused: AtomicU64::new(0),
            learned: AtomicU64::new(0),
            moved: AtomicU64::new(0),
            expired: AtomicU64::new(0),
        }
    }
}

impl Fdb {
    fn generation(&self, station: Station) -> &AtomicU64 {
        let mixed = (station.mac ^ u64::from(station.vlan) << 48).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        &self.generations[(mixed >> 54) as usize % BUCKETS]
    }

    /// Changes when the answer for either station may have changed.
    pub fn version(&self, source: Station, destination: Station) -> u64 {
        // Generations only grow: equal sums mean equal summands.
        self.generation(source)
            .load(Ordering::Acquire)
            .wrapping_add(self.generation(destination).load(Ordering::Acquire))
    }

    /// `station` sent a frame by `port`. A full table learns nobody new, and counts it.
    pub fn learn(&self, station: Station, port: PortNumber, now: u64) {
        let places = self.places.pin();
        if let Some(place) = places.get(&station)
            && place.port == port
        {
            place.seen.store(now, Ordering::Relaxed);
            return;
        }
        if places.len() >= CAPACITY && !places.contains_key(&station) {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let before = places.insert(station, Place { port, seen: AtomicU64::new(now) });
        let counter = if before.is_some() { &self.moved } else { &self.learned };
        counter.fetch_add(1, Ordering::Relaxed);
        self.generation(station).fetch_add(1, Ordering::AcqRel);
    }

    /// The port that leads to `station`.
    pub fn port(&self, station: Station) -> Option<PortNumber> {
        self.places.pin().get(&station).map(|place| place.port)
    }

    /// Frames from `station` still arrive (through a cached flow).
    pub fn refresh(&self, station: Station, now: u64) {
        if let Some(place) = self.places.pin().get(&station) {
            place.seen.fetch_max(now, Ordering::Relaxed);
        }
    }

    /// Forgets the stations that `forget` names, by their row; returns how many.
    pub fn forget(&self, now: u64, mut forget: impl FnMut(&Row) -> bool) -> usize {
        let places = self.places.pin();
        let gone: Vec<Station> =
            self.rows(now).into_iter().filter(|row| forget(row)).map(|row| row.station).collect();
        for station in &gone {
            // A station that moved in the meantime is removed too: it will be learned again by its next frame.
            let _ = places.compute(*station, |_| Operation::<Place, ()>::Remove);
            self.generation(*station).fetch_add(1, Ordering::AcqRel);
        }
        gone.len()
    }

    /// Forgets the silent.
    pub fn expire(&self, now: u64) -> usize {
        let gone = self.forget(now, |row| row.age >= AGING);
        self.expired.fetch_add(gone as u64, Ordering::Relaxed);
        gone
    }

    /// All rows, ordered by port and station.
    pub fn rows(&self, now: u64) -> Vec<Row> {
        let places = self.places.pin();
        let mut rows: Vec<Row> = places
            .iter()
            .map(|(station, place)| Row {
                port: place.port,
                station: *station,
                age: now.saturating_sub(place.seen.load(Ordering::Relaxed)),
            })
            .collect();
        rows.sort_unstable();
        rows
    }

    /// What it has seen.
    pub fn statistics(&self) -> Statistics {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Statistics {
            current: self.places.pin().len(),
            learned: read(&self.learned),
            expired: read(&self.expired),
            moved: read(&self.moved),
            refused: read(&self.refused),
        }
    }

    /// Starts its statistics anew.
    pub fn clear_statistics(&self) {
        for counter in [&self.learned, &self.expired, &self.moved, &self.refused] {
            counter.store(0, Ordering::Relaxed);
        }
    }

    /// Frames whose source was not learned because the table was full.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Station = Station { vlan: 0, mac: 0x0200_0000_0001 };
    const B: Station = Station { vlan: 0, mac: 0x0200_0000_0002 };

    #[test]
    fn a_station_that_moves_changes_the_version_of_its_flows() {
        let fdb = Fdb::default();
        fdb.learn(A, 1, 0);
        let version = fdb.version(A, B);
        fdb.learn(A, 1, 5);
        assert_eq!(fdb.version(A, B), version, "seen again at the same port changes nothing");
        fdb.learn(A, 2, 6);
        assert_ne!(fdb.version(A, B), version);
        assert_eq!(fdb.port(A), Some(2));
    }

    #[test]
    fn silent_stations_are_forgotten_and_the_refreshed_stay() {
        let fdb = Fdb::default();
        fdb.learn(A, 1, 0);
        fdb.learn(B, 2, 0);
        fdb.refresh(B, 1000);
        assert_eq!(fdb.expire(AGING), 1);
        assert_eq!((fdb.port(A), fdb.port(B)), (None, Some(2)));
    }

    #[test]
    fn statistics_count_who_came_moved_and_fell_silent() {
        let fdb = Fdb::default();
        fdb.learn(A, 1, 0);
        fdb.learn(B, 2, 5);
        fdb.learn(A, 1, 6);
        fdb.learn(A, 2, 7);
        fdb.expire(AGING + 5);
        let wanted = Statistics { current: 1, learned: 2, expired: 1, moved: 1, refused: 0 };
        assert_eq!(fdb.statistics(), wanted);
        fdb.clear_statistics();
        assert_eq!(fdb.statistics(), Statistics { current: 1, ..Statistics::default() });
    }

    #[test]
    fn a_flood_of_addresses_fills_the_table_and_no_more() {
        let fdb = Fdb::default();
        for mac in 0..2 * CAPACITY as u64 {
            fdb.learn(Station { vlan: 1, mac }, 1, 0);
        }
        assert_eq!(fdb.rows(0).len(), CAPACITY);
        assert_eq!(fdb.refused(), CAPACITY as u64);
    }
}
