//! Header fields during translation: what a packet has, what actions make of it, and the steps that bring the
//! packet up to that before it is sent or tracked.

use arrayvec::ArrayVec;
use weir_wire::numbers::{ether_type, protocol};

use super::super::DropCause;
use super::super::extract::VLAN_PRESENT;
use super::super::step::{Fields, Step};
use super::super::trace::Kind;
use super::{Then, Translator};
use crate::flow::field::Prerequisite;
use crate::flow::key::{Key, Mask, at};
use crate::flow::{Action, Field};

/// Reverse ARP (RFC 903) has ARP's fields.
const RARP: u16 = 0x8035;
/// Neighbour solicitation and advertisement (RFC 4861 section 4).
const NEIGHBOUR: core::ops::RangeInclusive<u128> = 135..=136;

impl Translator<'_> {
    /// `set_field`, `load` and the `mod_*` that come down to it. A packet without the field stays as it is
    /// (ovs-actions(7), "Inconsistencies").
    pub(super) fn assign_constant(&mut self, action: &Action, field: &Field, value: u128, mask: u128) {
        let there = match action {
            // They name the TCP field and mean any port.
            Action::ModTpSrc(_) | Action::ModTpDst(_) => {
                self.has(Prerequisite::Tcp) || self.has(Prerequisite::Udp) || self.has(Prerequisite::Sctp)
            }
            _ => self.has(field.prerequisite),
        };
        if there {
            self.write(field, value, mask);
        }
    }

    /// Writes a field if the packet has it.
    pub(super) fn assign(&mut self, field: &Field, value: u128, mask: u128) {
        if self.has(field.prerequisite) {
            self.write(field, value, mask);
        }
    }

    fn write(&mut self, field: &Field, value: u128, mask: u128) {
        if field.offset / 8 == at::VLAN_TCI / 8 && field.offset >= at::VLAN_TCI {
            // Tags are added and removed by comparison with the packet's own, which must then be known.
            self.look_at_tags();
            if !self.has_tag() {
                self.flow.write(at::VLAN_TPID, 2, u128::from(ether_type::VLAN));
            }
        }
        field.write(&mut self.flow, value, mask);
        field.write(&mut self.written, u128::MAX, mask);
        field.write(&mut self.changed, u128::MAX, mask);
    }

    /// Whether the packet has what a field needs; what that depends on is marked as seen. Ethertype and
    /// fragment bits always are.
    pub(super) fn has(&mut self, prerequisite: Prerequisite) -> bool {
        let ether_type = self.flow.read(at::ETH_TYPE, 2) as u16;
        let (v4, v6) = (ether_type == ether_type::IPV4, ether_type == ether_type::IPV6);
        match prerequisite {
            Prerequisite::None => true,
            Prerequisite::Vlan => {
                self.look_at_tags();
                self.has_tag()
            }
            Prerequisite::Ipv4 | Prerequisite::Ct4 => v4,
            Prerequisite::Ipv6 | Prerequisite::Ct6 => v6,
            Prerequisite::Ip | Prerequisite::Ct => v4 || v6,
            Prerequisite::Arp => matches!(ether_type, ether_type::ARP | RARP),
            Prerequisite::Tcp => (v4 || v6) && self.has_transport(protocol::TCP),
            Prerequisite::Udp => (v4 || v6) && self.has_transport(protocol::UDP),
            Prerequisite::Sctp => (v4 || v6) && self.has_transport(protocol::SCTP),
            Prerequisite::Icmp4 => v4 && self.has_transport(protocol::ICMP),
            Prerequisite::Icmp6 => v6 && self.has_transport(protocol::ICMPV6),
            Prerequisite::Nd => self.is_neighbour_message(NEIGHBOUR),
            Prerequisite::NdSolicit => self.is_neighbour_message(135..=135),
            Prerequisite::NdAdvert => self.is_neighbour_message(136..=136),
        }
    }

    /// Later fragments have no transport header.
    fn has_transport(&mut self, protocol: u8) -> bool {
        self.look(at::NW_PROTO, 1) == u128::from(protocol) && self.flow.read(at::NW_FRAG, 1) & 2 == 0
    }

    fn is_neighbour_message(&mut self, kinds: core::ops::RangeInclusive<u128>) -> bool {
        self.has(Prerequisite::Icmp6)
            && kinds.contains(&self.look(at::TP_SRC, 2))
            && self.look(at::TP_DST, 2) == 0
    }

    /// `mod_vlan_vid`, `mod_vlan_pcp`: writes `bits` of the tag, which is pushed where there is none.
    pub(super) fn modify_tag(&mut self, value: u16, bits: u16) {
        self.look_at_tags();
        let mut tci = VLAN_PRESENT;
        if self.has_tag() {
            tci = self.flow.read(at::VLAN_TCI, 2) as u16;
        } else {
            self.flow.write(at::VLAN_TPID, 2, u128::from(ether_type::VLAN));
        }
        self.flow.write(at::VLAN_TCI, 2, u128::from(tci & !bits | value & bits));
    }

    pub(super) fn decrement_ttl(&mut self) -> Then {
        let ether_type = self.flow.read(at::ETH_TYPE, 2) as u16;
        if !matches!(ether_type, ether_type::IPV4 | ether_type::IPV6) {
            return Then::Next;
        }
        let ttl = self.look(at::NW_TTL, 1);
        if ttl <= 1 {
            self.cause = Some(DropCause::TtlExpired);
            self.note(Kind::Warning, || "IPv4 decrement TTL exception".into());
            return Then::EndList;
        }
        self.flow.write(at::NW_TTL, 1, ttl - 1);
        self.written.write(at::NW_TTL, 1, u128::MAX);
        self.changed.write(at::NW_TTL, 1, u128::MAX);
        Then::Next
    }

    pub(super) fn look_at_tags(&mut self) {
        for offset in [at::VLAN_TCI, at::VLAN_TPID, at::VLAN2_TCI] {
            self.seen.write(offset, 2, u128::MAX);
        }
    }

    fn has_tag(&self) -> bool {
        self.flow.read(at::VLAN_TCI, 2) as u16 & VLAN_PRESENT != 0
    }

    pub(super) fn push_vlan(&mut self, tpid: u16) -> Then {
        self.look_at_tags();
        if self.flow.read(at::VLAN2_TCI, 2) != 0 {
            return self.fail(DropCause::VlanRoom);
        }
        let outer = self.flow.read(at::VLAN_TCI, 2);
        self.flow.write(at::VLAN2_TCI, 2, outer);
        self.flow.write(at::VLAN_TCI, 2, u128::from(VLAN_PRESENT));
        self.flow.write(at::VLAN_TPID, 2, u128::from(tpid));
        Then::Next
    }

    pub(super) fn pop_vlan(&mut self) {
        self.look_at_tags();
        let inner = self.flow.read(at::VLAN2_TCI, 2);
        self.flow.write(at::VLAN_TCI, 2, inner);
        self.flow.write(at::VLAN2_TCI, 2, 0);
        let tpid = if inner == 0 { 0 } else { ether_type::VLAN };
        self.flow.write(at::VLAN_TPID, 2, u128::from(tpid));
    }

    /// Brings the packet up to what the actions want of it, before it is sent or tracked.
    pub(super) fn commit(&mut self) {
        self.commit_tags();
        let mask = self.written.masked(&HEADERS);
        if !mask.is_zero() {
            if mask.words[at::NW_SRC / 8..].iter().any(|&word| word != 0) {
                self.seen.write(at::NW_PROTO, 1, u128::MAX);
            }
            self.steps.push(Step::Set(Box::new(Fields { value: self.flow.masked(&mask), mask })));
        }
        self.written = Key::ZERO;
        self.base = self.flow;
    }

    fn commit_tags(&mut self) {
        let (have, want) = (tags(&self.base), tags(&self.flow));
        let common = have.iter().rev().zip(want.iter().rev()).take_while(|(a, b)| a == b).count();
        for _ in common..have.len() {
            self.steps.push(Step::PopVlan);
        }
        for &(tpid, tci) in want[..want.len() - common].iter().rev() {
            self.steps.push(Step::PushVlan { tpid, tci: tci & !VLAN_PRESENT });
        }
    }
}

/// Outer tag first, as (TPID, TCI). The key does not tell an inner tag's TPID: 0x8100 is taken.
fn tags(key: &Key) -> ArrayVec<(u16, u16), 2> {
    let outer = (key.read(at::VLAN_TPID, 2) as u16, key.read(at::VLAN_TCI, 2) as u16);
    let inner = (ether_type::VLAN, key.read(at::VLAN2_TCI, 2) as u16);
    [outer, inner].into_iter().filter(|(_, tci)| tci & VLAN_PRESENT != 0).collect()
}

/// The fields that live in the packet's headers, VLAN tags aside.
pub(super) const HEADERS: Mask = headers();

const fn headers() -> Mask {
    let mut mask = Key::ZERO;
    let fields = [
        (at::ETH_DST, 6),
        (at::ETH_SRC, 6),
        (at::NW_SRC, 4),
        (at::NW_DST, 4),
        (at::NW_PROTO, 1),
        (at::NW_TOS, 1),
        (at::NW_TTL, 1),
        (at::TP_SRC, 2),
        (at::TP_DST, 2),
        (at::IPV6_LABEL, 4),
        (at::IPV6_SRC, 16),
        (at::IPV6_DST, 16),
        (at::ND_TARGET, 16),
        (at::ARP_SHA, 6),
        (at::ARP_THA, 6),
    ];
    let mut index = 0;
    while index < fields.len() {
        mask.write(fields[index].0, fields[index].1, u128::MAX);
        index += 1;
    }
    mask
}
