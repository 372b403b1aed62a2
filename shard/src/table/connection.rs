//! What a connection is in memory. The hot line is all that a packet of an established IPv4 connection reads or
//! writes: the keys of both directions, the TCP windows, the deadline and the mark. IPv6 addresses have a line of
//! their own that IPv4 never touches; whatever packets do not need lies in the cold array.

#![allow(unsafe_code)] // part of the table

use weir_numa::memory::Zeroable;
use weir_wire::numbers::protocol;
use weir_wire::{Tuple, Tuple4, Tuple6};

use super::bucket::Direction;
use crate::clock::{Deadline, Moment};
use crate::tcp::Peer;
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
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Connection {
    /// For each direction source and destination address over IPv4, the tuple's hash over IPv6.
    pub(super) addresses: [u64; 2],
    /// For each direction source and destination port.
    pub(super) ports: [u32; 2],
    /// Zone, protocol and family, 0 in a free slot.
    pub(super) rest: u32,
    /// From when on the connection counts as gone.
    pub(crate) deadline: Deadline,
    pub(crate) mark: u32,
    /// Of [`flag`].
    pub(crate) flags: u16,
    /// Counts the connections that lived in this slot.
    pub(crate) generation: u16,
    /// What each side has sent: the original direction's sender first. Protocols other than TCP keep their
    /// state in the first one's.
    pub(crate) peers: [Peer; 2],
}

// SAFETY: integers only, for which 0 is valid.
unsafe impl Zeroable for Connection {}

/// The IPv6 line: source and destination for each direction.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Addresses6(pub(super) [[[u8; 16]; 2]; 2]);

// SAFETY: integers only, for which 0 is valid.
unsafe impl Zeroable for Addresses6 {}

/// The cold line.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Cold {
    pub(crate) label: u128,
    pub(crate) created: Moment,
    /// Place in the timer wheel; `next` of a free slot's link is unused.
    pub(crate) link: Link,
    /// Next free slot + 1, of a free slot.
    pub(super) next_free: u32,
    /// 0, or the helper's number + 1.
    pub(crate) helper: u8,
    /// 0, or the companion's number + 1.
    pub(crate) companion: u32,
}

// SAFETY: integers only, for which 0 is valid.
unsafe impl Zeroable for Cold {}

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
    pub(super) fn new(tuple: &Tuple, hash: u64) -> Self {
        match tuple {
            Tuple::V4(tuple) => {
                // SAFETY: both are 16 bytes of integers without padding, for which every bit pattern is valid.
                let Words { addresses, ports, rest } =
                    unsafe { core::mem::transmute::<Tuple4, Words>(*tuple) };
                Self { addresses, ports, rest }
            }
            Tuple::V6(t) => Self {
                addresses: hash,
                ports: pair(t.src_port, t.dst_port),
                rest: pair(t.zone, u16::from_ne_bytes([t.protocol, t.family])),
            },
        }
    }
}

impl Connection {
    /// 4 or 6; 0 in a free slot.
    #[inline]
    pub(crate) const fn family(&self) -> u8 {
        let (_, [_, family]) = self.zone_protocol_family();
        family
    }

    #[inline]
    pub(crate) const fn protocol(&self) -> u8 {
        let (_, [protocol, _]) = self.zone_protocol_family();
        protocol
    }

    #[inline]
    pub(crate) const fn zone(&self) -> u16 {
        let (zone, _) = self.zone_protocol_family();
        zone
    }

    #[inline]
    const fn zone_protocol_family(&self) -> (u16, [u8; 2]) {
        let (zone, both) = unpair(self.rest);
        (zone, both.to_ne_bytes())
    }

    /// True if one of `bits` of [`flag`] is set.
    #[inline]
    pub(crate) const fn has(&self, bits: u16) -> bool {
        self.flags & bits != 0
    }

    /// Sets or clears `bits` of [`flag`].
    #[inline]
    pub(crate) const fn set(&mut self, bits: u16, on: bool) {
        self.flags = if on { self.flags | bits } else { self.flags & !bits };
    }

    /// True if the slot holds a connection.
    #[inline]
    pub(crate) const fn is_used(&self) -> bool {
        self.rest != 0
    }

    #[inline]
    pub(super) fn key(&self, direction: Direction) -> Key {
        let direction = direction as usize;
        Key { addresses: self.addresses[direction], ports: self.ports[direction], rest: self.rest }
    }

    /// The tuple of a direction.
    #[inline]
    pub(super) fn tuple(&self, addresses6: &Addresses6, direction: Direction) -> Tuple {
        let Key { addresses, ports, rest } = self.key(direction);
        if self.family() == 6 {
            let (zone, [protocol, family]) = self.zone_protocol_family();
            let (src_port, dst_port) = unpair(ports);
            let [src, dst] = addresses6.0[direction as usize];
            return Tuple::V6(Tuple6 { src, dst, src_port, dst_port, zone, protocol, family });
        }
        Tuple::V4(Words { addresses, ports, rest }.tuple())
    }

    /// What a packet that goes in `direction` is translated to: the other direction's tuple, reversed. Only of
    /// TCP and UDP over IPv4, whose words turn round whole; `None` of anything else.
    #[inline]
    pub(super) fn plain_translation(&self, direction: Direction) -> Option<Tuple4> {
        let (_, [protocol, family]) = self.zone_protocol_family();
        if family != 4 || !matches!(protocol, protocol::TCP | protocol::UDP) {
            return None;
        }
        let Key { addresses, ports, rest } = self.key(direction.opposite());
        Some(Words { addresses: addresses.rotate_left(32), ports: ports.rotate_left(16), rest }.tuple())
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
    fn ipv6_addresses_and_cold_data_are_a_line_each() {
        assert_eq!((size_of::<Addresses6>(), align_of::<Addresses6>()), (64, 64));
        assert_eq!((size_of::<Cold>(), align_of::<Cold>()), (64, 64));
    }
}
