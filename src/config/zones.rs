//! What is different in some connection tracking zones: limits, and timeouts.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};
use weir_shard::timeouts::TimeoutError;
use weir_shard::{Shard, Timeout, Timeouts, TooManyPolicies};

/// What is different in some zones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Zones {
    /// Connections that zones without a limit of their own may have; `None` is any number.
    pub default_limit: Option<u32>,
    /// Zones' own limits; 0 admits none.
    pub limits: BTreeMap<u16, u32>,
    /// Zones' own timeouts.
    pub timeouts: BTreeMap<u16, ZoneTimeouts>,
}

impl Zones {
    /// Gives a new shard all of it.
    ///
    /// # Errors
    /// More zones differ in their timeouts than a shard has room for.
    pub fn apply(&self, shard: &mut Shard) -> Result<(), TooManyPolicies> {
        shard.set_default_zone_limit(self.default_limit);
        self.limits.iter().for_each(|(&zone, &limit)| shard.set_zone_limit(zone, Some(limit)));
        for (&zone, own) in &self.timeouts {
            let timeouts = own.over(shard.timeouts());
            shard.set_zone_timeouts(zone, Some(timeouts))?;
        }
        Ok(())
    }
}

/// A zone's own timeouts in seconds; those that are not there are as everywhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ZoneTimeouts(BTreeMap<Timeout, u32>);

impl ZoneTimeouts {
    /// Sets one.
    ///
    /// # Errors
    /// As [`Timeouts::set`].
    pub fn set(&mut self, timeout: Timeout, seconds: u32) -> Result<(), TimeoutError> {
        Timeouts::default().set(timeout, seconds)?;
        self.0.insert(timeout, seconds);
        Ok(())
    }

    /// True when all are as everywhere.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Names and seconds, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u32)> {
        let by_name: BTreeMap<_, _> =
            self.0.iter().map(|(timeout, &seconds)| (timeout.name(), seconds)).collect();
        by_name.into_iter()
    }

    /// Those of `other` too, which go before those that are here.
    #[must_use]
    pub fn with(mut self, other: &Self) -> Self {
        self.0.extend(&other.0);
        self
    }

    /// All timeouts of the zone, where `others` hold everywhere else.
    #[must_use]
    pub fn over(&self, others: &Timeouts) -> Timeouts {
        let mut timeouts = others.clone();
        for (&timeout, &seconds) in &self.0 {
            // Checked when it came in.
            let _ = timeouts.set(timeout, seconds);
        }
        timeouts
    }
}

impl Serialize for ZoneTimeouts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}
