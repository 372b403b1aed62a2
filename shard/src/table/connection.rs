//! What a connection is in memory. The hot line is all that a packet of an established IPv4 connection reads or
//! writes: the keys of both directions, the TCP windows, the deadline and the mark. IPv6 addresses have a line of
//! their own that IPv4 never touches; whatever packets do not need lies in the cold array.
//!
//! Every field is a relaxed atomic, which on x86-64 and arm64 is an ordinary load or store: the owner writes, and
//! readers on other threads may look at any time. Only [`Owned`], which the table gives out by `&mut`, can write.
//! `memory` says in which order.

#![allow(unsafe_code)] // part of the table

use core::ops::Deref;
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use weir_numa::memory::Zeroable;
use weir_wire::numbers::protocol;
use weir_wire::{Tuple, Tuple4, Tuple6};

use super::bucket::Direction;
use crate::clock::{Deadline, Moment};
use crate::tcp::{Peer, PeerCell};
use crate::wheel::Link;

/// Bits of [`Connection::flags`].
pub(crate) mod flag {
    /// The source of the original direction is translated.
    pub(crate) const SOURCE_NAT: u16 = 0x01;
    /// The destination of the original direction is translated.
    pub(crate) const DESTINATION_NAT: u16 = 0x02;
    /// The cold line holds a label other than 0.
    pub(crate) const LABEL: u16 = 0x04;
    /// The tuple is its own reply; it stands in the index once, as original.
    pub(crate) const MIRROR: u16 = 0x08;
    /// The home of one of its tuples is another shard, which has a redirect.
    pub(crate) const REDIRECTED: u16 = 0x10;
    /// Its account holds something.
    pub(crate) const ACCOUNT: u16 = 0x20;
    /// A helper reads its packets.
    pub(crate) const HELPED: u16 = 0x1000;
    /// It was announced by a control connection, whose tuple its companion holds.
    pub(crate) const RELATED: u16 = 0x2000;
    /// Its payload was edited; its companion knows how.
    pub(crate) const EDITED: u16 = 0x4000;
    /// Something beside the ordinary is to be done.
    pub(crate) const ASSISTED: u16 = HELPED | RELATED | EDITED;
}

/// The hot line.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub(crate) struct Connection {
    /// For each direction source and destination address over IPv4, the tuple's hash over IPv6.
    addresses: [AtomicU64; 2],
    /// For each direction source and destination port.
    ports: [AtomicU32; 2],
    /// Zone, protocol and family, 0 in a slot that holds no connection.
    rest: AtomicU32,
    /// From when on the connection counts as gone.
    deadline: AtomicU32,
    mark: AtomicU32,
    /// Of [`flag`].
    flags: AtomicU16,
    /// Counts the connections that lived in this slot.
    generation: AtomicU16,
    /// What each side has sent: the original direction's sender first. Protocols other than TCP and SCTP keep their
    /// state in the first one's, and what [`InLine`](super::account::InLine) tells in the other fields of both.
    peers: [PeerCell; 2],
}

// SAFETY: atomic integers only, for which 0 is valid.
unsafe impl Zeroable for Connection {}

/// The IPv6 line: source and destination for each direction, eight bytes in their own order each.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Addresses6([[[AtomicU64; 2]; 2]; 2]);

// SAFETY: atomic integers only, for which 0 is valid.
unsafe impl Zeroable for Addresses6 {}

/// What packets rarely need and dumps show.
#[derive(Debug)]
#[repr(C, align(32))]
pub(crate) struct Cold {
    /// The lower half first.
    label: [AtomicU64; 2],
    created: AtomicU64,
    /// 0, or the companion's number + 1. For the owner alone, as is what it names.
    companion: AtomicU32,
    /// Odd while the label is being written.
    label_edition: AtomicU16,
    /// 0, or the helper's number + 1.
    helper: AtomicU8,
}

// SAFETY: atomic integers only, for which 0 is valid.
unsafe impl Zeroable for Cold {}

/// Whose data connection a connection is: the original tuple of its control connection. Few connections have one,
/// so memory is taken for few.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Parent {
    addresses: [[AtomicU64; 2]; 2],
    ports: AtomicU32,
    rest: AtomicU32,
}

// SAFETY: atomic integers only, for which 0 is valid.
unsafe impl Zeroable for Parent {}

/// Where a slot stands in the lists that the owner keeps of all slots; no reader sees it.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Place {
    /// Place in the timer wheel.
    pub(super) link: Link,
    /// Next free or retired slot + 1.
    pub(super) next: u32,
}

// SAFETY: integers only, for which 0 is valid.
unsafe impl Zeroable for Place {}

/// The owner's hold on a part of the table, by which alone it can be written.
pub(crate) struct Owned<'a, T>(&'a T);

impl<T> Copy for Owned<'_, T> {}
impl<T> Clone for Owned<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<'a, T> Owned<'a, T> {
    /// For the table, which has one owner, and for tests' things of their own.
    #[inline]
    pub(crate) const fn new(owned: &'a T) -> Self {
        Self(owned)
    }
}

impl<T> Deref for Owned<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        self.0
    }
}

/// A tuple as the hot line holds it: three integers to compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) addresses: u64,
    pub(super) ports: u32,
    pub(super) rest: u32,
}

const fn pair(first: u16, second: u16) -> u32 {
    let ([a, b], [c, d]) = (first.to_ne_bytes(), second.to_ne_bytes());
    u32::from_ne_bytes([a, b, c, d])
}

const fn unpair(both: u32) -> (u16, u16) {
    let [a, b, c, d] = both.to_ne_bytes();
    (u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d]))
}

/// An IPv4 tuple as three words in its own memory order. Field by field the compiler makes sixty instructions of it.
#[derive(Clone, Copy)]
#[repr(C, align(16))]
struct Words {
    addresses: u64,
    ports: u32,
    rest: u32,
}

const _: () = {
    assert!(size_of::<Words>() == size_of::<Tuple4>() && align_of::<Words>() == align_of::<Tuple4>());
    assert!(core::mem::offset_of!(Tuple4, src) == 0 && core::mem::offset_of!(Tuple4, dst) == 4);
    assert!(core::mem::offset_of!(Tuple4, src_port) == 8 && core::mem::offset_of!(Tuple4, dst_port) == 10);
    assert!(core::mem::offset_of!(Tuple4, zone) == 12 && core::mem::offset_of!(Tuple4, protocol) == 14);
    assert!(core::mem::offset_of!(Tuple4, family) == 15);
};

impl Words {
    #[inline]
    fn tuple(self) -> Tuple4 {
        // SAFETY: both are 16 bytes of integers without padding, for which every bit pattern is valid.
        unsafe { core::mem::transmute::<Self, Tuple4>(self) }
    }
}

impl Key {
    #[inline]
    pub(super) fn of_v4(tuple: &Tuple4) -> Self {
        // SAFETY: both are 16 bytes of integers without padding, for which every bit pattern is valid.
        let Words { addresses, ports, rest } = unsafe { core::mem::transmute::<Tuple4, Words>(*tuple) };
        Self { addresses, ports, rest }
    }

    #[inline]
    pub(super) fn new(tuple: &Tuple, hash: u64) -> Self {
        match tuple {
            Tuple::V4(tuple) => Self::of_v4(tuple),
            Tuple::V6(t) => Self {
                addresses: hash,
                ports: pair(t.src_port, t.dst_port),
                rest: pair(t.zone, u16::from_ne_bytes([t.protocol, t.family])),
            },
        }
    }
}

fn words(address: [u8; 16]) -> [u64; 2] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = address;
    [u64::from_ne_bytes([a, b, c, d, e, f, g, h]), u64::from_ne_bytes([i, j, k, l, m, n, o, p])]
}

fn address(words: &[AtomicU64; 2]) -> [u8; 16] {
    let [[a, b, c, d, e, f, g, h], [i, j, k, l, m, n, o, p]] =
        words.each_ref().map(|word| word.load(Relaxed).to_ne_bytes());
    [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
}

/// A tuple of IPv6, put together.
fn tuple6(addresses: [[u8; 16]; 2], ports: u32, rest: u32) -> Tuple {
    let (zone, both) = unpair(rest);
    let [protocol, family] = both.to_ne_bytes();
    let (src_port, dst_port) = unpair(ports);
    let [src, dst] = addresses;
    Tuple::V6(Tuple6 { src, dst, src_port, dst_port, zone, protocol, family })
}

/// The family in a word of zone, protocol and family.
const fn family_of(rest: u32) -> u8 {
    let (_, both) = unpair(rest);
    let [_, family] = both.to_ne_bytes();
    family
}

impl Addresses6 {
    /// Source and destination of a direction.
    #[inline]
    pub(super) fn of(&self, direction: Direction) -> [[u8; 16]; 2] {
        self.0[direction as usize].each_ref().map(address)
    }
}

impl Owned<'_, Addresses6> {
    pub(super) fn set(&self, addresses: [[[u8; 16]; 2]; 2]) {
        for (place, address) in self.0.0.iter().flatten().zip(addresses.as_flattened()) {
            let [first, second] = words(*address);
            place[0].store(first, Relaxed);
            place[1].store(second, Relaxed);
        }
    }
}

impl Parent {
    pub(super) fn tuple(&self) -> Tuple {
        let (ports, rest) = (self.ports.load(Relaxed), self.rest.load(Relaxed));
        if family_of(rest) == 6 {
            return tuple6(self.addresses.each_ref().map(address), ports, rest);
        }
        let addresses = self.addresses[0][0].load(Relaxed);
        Tuple::V4(Words { addresses, ports, rest }.tuple())
    }
}

impl Owned<'_, Parent> {
    pub(super) fn set(&self, tuple: &Tuple) {
        let key = Key::new(tuple, 0);
        match tuple {
            Tuple::V4(_) => self.addresses[0][0].store(key.addresses, Relaxed),
            Tuple::V6(tuple) => {
                for (place, address) in self.addresses.iter().zip([tuple.src, tuple.dst]) {
                    let [first, second] = words(address);
                    place[0].store(first, Relaxed);
                    place[1].store(second, Relaxed);
                }
            }
        }
        self.ports.store(key.ports, Relaxed);
        self.rest.store(key.rest, Relaxed);
    }
}

impl Cold {
    /// The label, whole, though its owner may be writing another.
    pub(crate) fn label(&self) -> u128 {
        loop {
            let before = self.label_edition.load(Ordering::Acquire);
            let [low, high] = self.label.each_ref().map(|half| half.load(Ordering::Acquire));
            if before & 1 == 0 && self.label_edition.load(Relaxed) == before {
                return u128::from(high) << 64 | u128::from(low);
            }
            // For two stores of the owner.
            core::hint::spin_loop();
        }
    }

    pub(crate) fn created(&self) -> Moment {
        self.created.load(Relaxed)
    }

    pub(crate) fn helper(&self) -> u8 {
        self.helper.load(Relaxed)
    }

    pub(crate) fn companion(&self) -> u32 {
        self.companion.load(Relaxed)
    }
}

impl Owned<'_, Cold> {
    #[expect(clippy::cast_possible_truncation, reason = "the halves of the label")]
    pub(crate) fn set_label(&self, label: u128) {
        let edition = self.label_edition.load(Relaxed);
        self.label_edition.store(edition.wrapping_add(1), Relaxed);
        // Who sees one of these halves sees the odd edition as well, and who sees the even one both halves.
        self.label[0].store(label as u64, Ordering::Release);
        self.label[1].store((label >> 64) as u64, Ordering::Release);
        self.label_edition.store(edition.wrapping_add(2), Ordering::Release);
    }

    pub(crate) fn set_helper(&self, number: u8) {
        self.helper.store(number, Relaxed);
    }

    pub(crate) fn set_companion(&self, number: u32) {
        self.companion.store(number, Relaxed);
    }

    pub(crate) fn set_created(&self, moment: Moment) {
        self.created.store(moment, Relaxed);
    }

    /// As it is of a connection without any of this, of one that may have had a label or has had none.
    pub(super) fn clear(&self, labelled: bool) {
        if labelled {
            self.set_label(0);
        }
        self.set_helper(0);
        self.set_companion(0);
        self.set_created(0);
    }
}

/// Zone, protocol and family of a connection, by which a reader knows that it has come to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rest(u32);

impl Rest {
    /// 4 or 6.
    #[inline]
    pub(crate) const fn family(self) -> u8 {
        family_of(self.0)
    }

    #[inline]
    pub(crate) const fn protocol(self) -> u8 {
        let (_, both) = unpair(self.0);
        let [protocol, _] = both.to_ne_bytes();
        protocol
    }
}

impl Connection {
    /// The connection that lives here, if there is one: what is read behind this was written before it was published.
    pub(super) fn published(&self) -> Option<Rest> {
        let rest = self.rest.load(Ordering::Acquire);
        (rest != 0).then_some(Rest(rest))
    }

    /// 4 or 6; 0 where no connection is.
    #[inline]
    pub(crate) fn family(&self) -> u8 {
        family_of(self.rest.load(Relaxed))
    }

    #[inline]
    pub(crate) fn zone(&self) -> u16 {
        let (zone, _) = unpair(self.rest.load(Relaxed));
        zone
    }

    #[inline]
    pub(crate) fn flags(&self) -> u16 {
        self.flags.load(Relaxed)
    }

    /// True if one of `bits` of [`flag`] is set.
    #[inline]
    pub(crate) fn has(&self, bits: u16) -> bool {
        self.flags() & bits != 0
    }

    /// True if the slot holds a connection.
    #[inline]
    pub(crate) fn is_used(&self) -> bool {
        self.rest.load(Relaxed) != 0
    }

    #[inline]
    pub(crate) fn deadline(&self) -> Deadline {
        Deadline::from_bits(self.deadline.load(Relaxed))
    }

    #[inline]
    pub(crate) fn mark(&self) -> u32 {
        self.mark.load(Relaxed)
    }

    #[inline]
    pub(crate) fn generation(&self) -> u16 {
        self.generation.load(Relaxed)
    }

    /// A direction's sender.
    #[inline]
    pub(super) fn side(&self, direction: Direction) -> &PeerCell {
        &self.peers[direction as usize]
    }

    /// What a direction's sender has sent.
    #[inline]
    pub(crate) fn peer(&self, direction: Direction) -> Peer {
        self.side(direction).load()
    }

    /// What each side has sent, the original direction's sender first.
    #[inline]
    pub(crate) fn peers(&self) -> [Peer; 2] {
        [self.peer(Direction::Original), self.peer(Direction::Reply)]
    }

    /// The state of trackers that have one a connection.
    #[inline]
    pub(crate) fn state(&self) -> u8 {
        self.peers[0].state()
    }

    /// True if a direction has this key.
    #[inline]
    pub(super) fn has_key(&self, direction: Direction, key: &Key) -> bool {
        let at = direction as usize;
        self.addresses[at].load(Relaxed) == key.addresses
            && self.ports[at].load(Relaxed) == key.ports
            && self.rest.load(Relaxed) == key.rest
    }

    #[inline]
    pub(super) fn key(&self, direction: Direction) -> Key {
        let direction = direction as usize;
        Key {
            addresses: self.addresses[direction].load(Relaxed),
            ports: self.ports[direction].load(Relaxed),
            rest: self.rest.load(Relaxed),
        }
    }

    /// The tuple of a direction.
    #[inline]
    pub(super) fn tuple(&self, addresses6: &Addresses6, direction: Direction) -> Tuple {
        self.tuple_of(Rest(self.rest.load(Relaxed)), addresses6, direction)
    }

    /// The same of the connection that was [published](Connection::published) with `rest`, though it may be removed
    /// meanwhile.
    #[inline]
    pub(super) fn tuple_of(&self, rest: Rest, addresses6: &Addresses6, direction: Direction) -> Tuple {
        let ports = self.ports[direction as usize].load(Relaxed);
        if rest.family() == 6 {
            return tuple6(addresses6.of(direction), ports, rest.0);
        }
        let addresses = self.addresses[direction as usize].load(Relaxed);
        Tuple::V4(Words { addresses, ports, rest: rest.0 }.tuple())
    }

    /// What a packet that goes in `direction` is translated to: the other direction's tuple, reversed. Only of
    /// TCP and UDP over IPv4, whose words turn round whole; `None` of anything else.
    #[inline]
    pub(super) fn plain_translation(&self, direction: Direction) -> Option<Tuple4> {
        let rest = Rest(self.rest.load(Relaxed));
        let is_plain = rest.family() == 4 && matches!(rest.protocol(), protocol::TCP | protocol::UDP);
        is_plain.then(|| self.translation_v4(direction))
    }

    /// The same where it is known to be TCP or UDP over IPv4.
    #[inline]
    pub(super) fn translation_v4(&self, direction: Direction) -> Tuple4 {
        let Key { addresses, ports, rest } = self.key(direction.opposite());
        Words { addresses: addresses.rotate_left(32), ports: ports.rotate_left(16), rest }.tuple()
    }
}

impl Owned<'_, Connection> {
    #[inline]
    pub(crate) fn set_deadline(&self, deadline: Deadline) {
        self.deadline.store(deadline.to_bits(), Relaxed);
    }

    #[inline]
    pub(crate) fn set_mark(&self, mark: u32) {
        self.mark.store(mark, Relaxed);
    }

    /// Sets or clears `bits` of [`flag`].
    #[inline]
    pub(crate) fn set(&self, bits: u16, on: bool) {
        let flags = self.flags();
        self.flags.store(if on { flags | bits } else { flags & !bits }, Relaxed);
    }

    /// A direction's sender, for its tracker.
    #[inline]
    pub(crate) fn peer_mut(&self, direction: Direction) -> Owned<'_, PeerCell> {
        Owned(self.0.side(direction))
    }

    #[inline]
    pub(crate) fn set_peers(&self, [first, second]: [Peer; 2]) {
        self.peer_mut(Direction::Original).store(first);
        self.peer_mut(Direction::Reply).store(second);
    }

    /// For trackers that have one state a connection, and nothing else.
    #[inline]
    pub(crate) fn set_state(&self, state: u8) {
        self.peer_mut(Direction::Original).set_state(state);
    }

    /// Begins a connection's life in this slot: everything but `rest` is as of a new one.
    pub(super) fn begin(&self, keys: [Key; 2], flags: u16) {
        // Here and not where the last one ended: a reader that saw that one has its generation too.
        self.generation.store(self.generation().wrapping_add(1), Relaxed);
        for ((key, addresses), ports) in keys.iter().zip(&self.addresses).zip(&self.ports) {
            addresses.store(key.addresses, Relaxed);
            ports.store(key.ports, Relaxed);
        }
        self.set_deadline(Deadline::default());
        self.set_mark(0);
        self.flags.store(flags, Relaxed);
        self.set_peers([Peer::default(); 2]);
    }

    /// Shows it to readers, and lets look-ups find it.
    #[inline]
    pub(super) fn publish(&self, rest: u32) {
        self.rest.store(rest, Ordering::Release);
    }

    /// Readers that come later pass it by; those that are here find all else as it was.
    #[inline]
    pub(super) fn withdraw(&self) {
        self.rest.store(0, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use memoffset::offset_of;

    #[test]
    fn a_hot_line_is_one_cache_line_with_all_that_look_ups_compare_in_its_first_half() {
        assert_eq!((size_of::<Connection>(), align_of::<Connection>()), (64, 64));
        assert_eq!(offset_of!(Connection, addresses), 0);
        assert_eq!(offset_of!(Connection, ports), 16);
        assert_eq!(offset_of!(Connection, rest), 24);
        assert_eq!(offset_of!(Connection, deadline), 28);
        assert_eq!(offset_of!(Connection, mark), 32);
        assert_eq!(offset_of!(Connection, peers), 40);
    }

    #[test]
    fn ipv6_addresses_are_a_line_and_what_is_cold_is_three_quarters_of_one() {
        assert_eq!((size_of::<Addresses6>(), align_of::<Addresses6>()), (64, 64));
        assert_eq!((size_of::<Cold>(), align_of::<Cold>()), (32, 32));
        assert_eq!(size_of::<Place>(), 16);
        assert_eq!(size_of::<Parent>(), 40);
    }
}
