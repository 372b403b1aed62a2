//! Whether there may be one more connection, where several shards keep the limits together ([`leases`](crate::leases)):
//! what stands between a packet that starts a connection and the table. A single shard counts for itself, in
//! `Shard::admit`, and comes here for one test.

use std::sync::Arc;

use crate::clock::{Moment, tick};
use crate::conntrack::Packet;
use crate::leases::{Leases, Scope};
use crate::outcome::Outcome;
use crate::shard::Shard;
use crate::steering::ShardNumber;

/// A shard's part in the limits.
#[derive(Debug)]
pub(crate) struct Share {
    leases: Arc<Leases>,
    shard: ShardNumber,
    /// The zone of a connection that was let in and is not in the table yet.
    admitted: Option<u16>,
    /// The last call of a hungry zone that was heard.
    heard: u64,
    /// When this shard called last: no more than once a millisecond.
    called: Moment,
}

impl Share {
    /// `None` for a shard that is alone.
    pub(crate) fn new(leases: Arc<Leases>, shard: ShardNumber) -> Option<Self> {
        (leases.shards() > 1).then(|| Self { leases, shard, admitted: None, heard: 0, called: 0 })
    }

    pub(crate) fn leases(&self) -> &Leases {
        &self.leases
    }

    fn take(&self, scope: Scope) -> bool {
        self.leases.take(self.shard, scope)
    }

    fn take_near(&self, scope: Scope) -> bool {
        self.leases.take_near(self.shard, scope)
    }

    /// The connection that was let in is in the table; it counts until [`Share::ended`].
    pub(crate) fn entered(&mut self) {
        self.admitted = None;
    }

    /// A connection of `zone` is no more.
    pub(crate) fn ended(&self, zone: u16) {
        self.leases.give(self.shard, Scope::Zone(zone));
        self.leases.give(self.shard, Scope::All);
    }

    /// Gives back what was taken for a connection that did not come about.
    #[inline]
    pub(crate) fn settle(&mut self) {
        if let Some(zone) = self.admitted.take() {
            self.ended(zone);
        }
    }
}

impl Shard {
    /// As `Shard::admit`, with the limits that all shards share. When one is reached, what has expired here leaves
    /// first; other shards hear which zone is in need, for the next time.
    pub(crate) fn admit_shared(&mut self, packet: &Packet<'_>) -> Result<(), Outcome> {
        let zone = packet.action.zone;
        if !self.take_or_make_room(packet.moment, Scope::Zone(zone)) {
            self.call_hungry(packet.moment, zone);
            self.counters.refused_by_zone_limit += 1;
            return Err(packet.refused());
        }
        let has_all = self.take_or_make_room(packet.moment, Scope::All);
        let Some(share) = &mut self.share else { return Ok(()) };
        if !has_all {
            share.leases.give(share.shard, Scope::Zone(zone));
            self.counters.refused_by_limit += 1;
            return Err(packet.refused());
        }
        share.admitted = Some(zone);
        Ok(())
    }

    fn take_or_make_room(&mut self, moment: Moment, scope: Scope) -> bool {
        let took = |shard: &Self| shard.share.as_ref().is_none_or(|share| share.take(scope));
        // What ends here is near: no look at the other shards for each connection that is looked at.
        let took_near = |shard: &Self| shard.share.as_ref().is_none_or(|share| share.take_near(scope));
        let zone = match scope {
            Scope::All => None,
            Scope::Zone(zone) if self.zones.limit(zone) == Some(0) => return took(self),
            Scope::Zone(zone) => Some(zone),
        };
        took(self) || self.make_room(moment, zone, took_near) || took(self)
    }

    fn call_hungry(&mut self, moment: Moment, zone: u16) {
        if let Some(share) = &mut self.share
            && share.called != moment
        {
            share.called = moment;
            share.leases.call_hungry(zone);
        }
    }

    /// Ends what has expired in a zone in which some shard has refused a connection since this one last looked; at
    /// most `budget` connections are looked at. Returns how many were.
    pub(crate) fn sweep_hungry(&mut self, moment: Moment, budget: u32) -> u32 {
        let Some(share) = &mut self.share else { return 0 };
        let Some(zone) = share.leases.hungry(&mut share.heard) else { return 0 };
        let until = tick(moment);
        for done in 0..budget {
            let Some(index) = self.zones.next_of(self.table.links(), zone, until) else { return done };
            self.look_at(index, until);
        }
        budget
    }
}
