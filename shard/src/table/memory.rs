//! What a table keeps of its connections, as its owner and its readers both see it.
//!
//! **The protocol.** A table has one writer, its owner. A slot is empty, lives, or is retired; its word `rest` (zone,
//! protocol, family) is 0 unless it lives.
//!
//! * *Begin.* The owner writes everything else of a new connection first and stores `rest` last, with Release
//!   ([`Memory::publish`]). A reader loads `rest` first, with Acquire, and once: if it is not 0 the reader sees all that
//!   the connection began with.
//! * *Life.* Packets change deadline, mark, label, flags, peers, account, each by itself. So a reader may see the state
//!   that a packet led to with the deadline from before it, one peer from before and the other from behind it, or a
//!   packet counted and its bytes not yet; counts that lie in two places (`account`) are read again if one was carried
//!   over meanwhile. A label is never torn. Tuples, creation, parent and generation do not change.
//! * *End.* The owner takes the connection out of the index, stores 0 in `rest`, and *retires* the slot: nothing else
//!   of it is written until no reader is left that may have loaded `rest` before ([`crate::epoch`]). So what a reader
//!   has begun to read stays one connection's until it lets go of its guard, and it need not look twice.
//! * *Reuse.* Then the slot begins anew, with another generation.
//!
//! A slot and its generation, read under one guard, name one connection: the owner compares both before it acts on a
//! reader's word (the generation has 16 bits, so it asks the reader's question again, too).

use weir_numa::memory::{MemoryError, Placing};
use weir_numa::residence::Span;
use weir_wire::Tuple;

use super::account::{Account, InLine, idle};
use super::bucket::{Direction, Slot, prefetch, prefetch_once};
use super::connection::{Addresses6, Cold, Connection, Owned, Parent, Rest, flag};
use super::has_windows;
use super::shared::Shared;
use crate::action::Helper;
use crate::clock::{Moment, tick, ticks};
use crate::meta::ConnectionRef;
use crate::view::{Carried, ConnectionView, ProtocolState, Traffic};
use weir_wire::numbers::protocol;

/// The arrays, an element a slot. Cloning gives another hold on the same.
#[derive(Clone)]
pub(crate) struct Memory {
    pub(super) connections: Shared<Connection>,
    pub(super) addresses6: Shared<Addresses6>,
    pub(super) cold: Shared<Cold>,
    /// Empty where nothing is counted.
    pub(super) accounts: Shared<Account>,
    pub(super) parents: Shared<Parent>,
}

impl Memory {
    pub(super) fn new(slots: usize, accounting: bool, placing: Placing) -> Result<Self, MemoryError> {
        // Reserved hugepages are taken whether they are used or not: none for what may stay empty.
        let rare = Placing { hugepages: false, ..placing };
        Ok(Self {
            connections: Shared::placed(slots, placing)?,
            addresses6: Shared::placed(slots, rare)?,
            cold: Shared::placed(slots, placing)?,
            accounts: Shared::placed(if accounting { slots } else { 0 }, placing)?,
            parents: Shared::placed(slots, rare)?,
        })
    }

    pub(super) fn spans(&self) -> [Span; 5] {
        let Self { connections, addresses6, cold, accounts, parents } = self;
        [connections.span(), addresses6.span(), cold.span(), accounts.span(), parents.span()]
    }

    /// All but what IPv6 and data connections need.
    pub(super) fn prefault(&mut self) {
        self.connections.prefault();
        self.cold.prefault();
        self.accounts.prefault();
    }

    #[inline]
    pub(super) fn tuple(&self, index: u32, direction: Direction) -> Tuple {
        self.connections[index as usize].tuple(&self.addresses6[index as usize], direction)
    }

    /// The original tuple of a data connection's control connection.
    pub(super) fn parent(&self, index: u32) -> Option<Tuple> {
        let is_related = self.connections[index as usize].has(flag::RELATED);
        is_related.then(|| self.parents[index as usize].tuple())
    }

    /// For the owner: shows a connection that has begun.
    pub(super) fn publish(&self, index: u32, rest: u32) {
        Owned::new(&self.connections[index as usize]).publish(rest);
    }

    /// For readers: asks for the lines that [`Memory::view`] reads of an IPv4 connection. Who reads them but once and goes
    /// on is not to drive out of a cache that CPUs share what their owner will want again.
    pub(crate) fn prefetch_view(&self, index: u32) {
        let index = index as usize;
        self.connections.get(index).into_iter().for_each(prefetch_once);
        self.cold.get(index).into_iter().for_each(prefetch_once);
        self.accounts.get(index).into_iter().for_each(prefetch_once);
    }

    /// For the owner: asks for the lines that a new IPv4 connection writes here. Nobody waits for the account, which is
    /// written without a look at it.
    pub(super) fn prefetch_new(&self, index: u32) {
        let index = index as usize;
        self.connections.get(index).into_iter().for_each(prefetch);
        self.cold.get(index).into_iter().for_each(prefetch);
    }

    /// The connection in slot `index`, if one lives there, its name and whether it has expired by `moment`. Whoever
    /// is not the owner must hold a guard.
    pub(crate) fn view(&self, index: u32, moment: Moment) -> Option<(ConnectionRef, ConnectionView)> {
        let connection = self.connections.get(index as usize)?;
        let rest = connection.published()?;
        if connection.deadline().is_past(moment) {
            return None;
        }
        let slot = Slot::new(index, Direction::Original);
        let name = ConnectionRef { slot, generation: connection.generation() };
        Some((name, self.view_of(index, rest, moment)))
    }

    /// The same of a connection that is there, expired or not; the owner's.
    pub(crate) fn view_own(&self, index: u32, moment: Moment) -> Option<ConnectionView> {
        let rest = self.connections.get(index as usize)?.published()?;
        Some(self.view_of(index, rest, moment))
    }

    fn view_of(&self, index: u32, rest: Rest, moment: Moment) -> ConnectionView {
        let (connection, cold) = (&self.connections[index as usize], &self.cold[index as usize]);
        let tuple = |direction| connection.tuple_of(rest, &self.addresses6[index as usize], direction);
        let original = tuple(Direction::Original);
        let peers = connection.peers();
        let [first, second] = &peers;
        let state = match rest.protocol() {
            protocol::TCP => ProtocolState::Tcp { original: first.tcp_state(), reply: second.tcp_state() },
            protocol::SCTP => {
                let (state, tags) = crate::sctp::shown(&peers);
                ProtocolState::Sctp { state, tags }
            }
            _ => ProtocolState::Other { answered: crate::conntrack::is_answered(rest, first.state) },
        };
        ConnectionView {
            original,
            reply: tuple(Direction::Reply),
            zone: original.zone(),
            mark: connection.mark(),
            label: cold.label(),
            remaining: connection.deadline().remaining(moment),
            age: moment.saturating_sub(cold.created()),
            state,
            helper: Helper::from_number(cold.helper()),
            source_nat: connection.has(flag::SOURCE_NAT),
            destination_nat: connection.has(flag::DESTINATION_NAT),
            scales: [first.window_scale(), second.window_scale()],
            traffic: self.traffic(index, rest, moment),
            parent: self.parent(index),
        }
    }

    fn traffic(&self, index: u32, rest: Rest, moment: Moment) -> Option<Traffic> {
        let (account, connection) = (self.accounts.get(index as usize)?, &self.connections[index as usize]);
        let line = (!has_windows(rest.protocol())).then_some(InLine(connection));
        let above = |direction| match connection.has(flag::ACCOUNT) {
            true => account.totals(direction),
            false => (0, 0),
        };
        let carried = |direction| {
            let mut account = above(direction);
            let Some(line) = &line else { return Carried { packets: account.0, bytes: account.1 } };
            loop {
                let (packets, bytes) = line.totals(direction);
                // What has been carried over meanwhile is missing in one of the two.
                let before = core::mem::replace(&mut account, above(direction));
                if before == account {
                    return Carried { packets: account.0 + packets, bytes: account.1 + bytes };
                }
            }
        };
        let seen = line.as_ref().map_or_else(|| account.seen(), InLine::seen);
        Some(Traffic {
            original: carried(Direction::Original),
            reply: carried(Direction::Reply),
            idle: ticks(idle(seen, tick(moment))),
        })
    }
}
