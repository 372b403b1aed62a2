//! What a flow matches: a key, and which of its bits count.

use super::field::{Field, Prerequisite};
use super::key::{Key, Mask, at};

/// A match. `key & mask == key`, always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Match {
    pub key: Key,
    pub mask: Mask,
}

/// Offset and length of a field in a key.
pub(crate) type Place = (usize, usize);

/// Ethernet types that fields depend on.
pub mod ether_type {
    pub const IPV4: u16 = 0x0800;
    pub const ARP: u16 = 0x0806;
    pub const RARP: u16 = 0x8035;
    pub const IPV6: u16 = 0x86dd;
    pub const MPLS: u16 = 0x8847;
    pub const MPLS_MULTICAST: u16 = 0x8848;
}

/// IP protocols that fields depend on.
pub mod protocol {
    pub const ICMP: u8 = 1;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const ICMPV6: u8 = 58;
    pub const SCTP: u8 = 132;
}

/// Bit of `vlan_tci` that says that there is a tag.
pub const VLAN_PRESENT: u16 = 0x1000;

const ND_SOLICIT: u8 = 135;
const ND_ADVERT: u8 = 136;

impl Match {
    /// Matches every packet.
    pub const ANY: Self = Self { key: Key::ZERO, mask: Key::ZERO };

    /// True if a packet with these fields is matched.
    #[inline]
    #[must_use]
    pub fn matches(&self, packet: &Key) -> bool {
        self.key
            .words
            .iter()
            .zip(&self.mask.words)
            .zip(&packet.words)
            .all(|((key, mask), word)| word & mask == *key)
    }

    /// Adds `field = value/mask` to the match, replacing what it said about the bits of `mask`.
    pub fn set(&mut self, field: &Field, value: u128, mask: u128) {
        field.write(&mut self.key, value & mask, mask);
        field.write(&mut self.mask, mask, mask);
    }

    /// Adds `value/mask` at a place, unless that contradicts what is matched already.
    pub(crate) fn agree(&mut self, (offset, bytes): Place, value: u128, mask: u128) -> bool {
        let (old, old_mask) = (self.key.read(offset, bytes), self.mask.read(offset, bytes));
        if (old ^ value) & old_mask & mask != 0 {
            return false;
        }
        self.key.write(offset, bytes, old | value & mask);
        self.mask.write(offset, bytes, old_mask | mask);
        true
    }

    /// The field's value and mask.
    #[must_use]
    pub fn field(&self, field: &Field) -> (u128, u128) {
        (field.read(&self.key), field.read(&self.mask))
    }

    /// True if every packet that `self` matches is matched by `other` too.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        let mut words =
            self.key.words.iter().zip(&self.mask.words).zip(other.key.words.iter().zip(&other.mask.words));
        words.all(|((key, mask), (wide_key, wide_mask))| {
            wide_mask & !mask == 0 && key & wide_mask == *wide_key
        })
    }

    /// True if some packet could be matched by both.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let mut words =
            self.key.words.iter().zip(&self.mask.words).zip(other.key.words.iter().zip(&other.mask.words));
        words.all(|((key, mask), (other_key, other_mask))| (key ^ other_key) & mask & other_mask == 0)
    }

    /// The bytes at `offset`, if all their bits are matched.
    fn exact<T: TryFrom<u128>>(&self, offset: usize, bytes: usize) -> Option<T> {
        let all = super::field::low_bits(u8::try_from(8 * bytes).ok()?);
        (self.mask.read(offset, bytes) == all).then(|| T::try_from(self.key.read(offset, bytes)).ok())?
    }

    /// The Ethernet type that the match insists on.
    #[must_use]
    pub fn ether_type(&self) -> Option<u16> {
        self.exact(at::ETH_TYPE, 2)
    }

    /// The IP protocol that the match insists on; `None` for all that is not IP.
    #[must_use]
    pub fn ip_protocol(&self) -> Option<u8> {
        if self.meets(Prerequisite::Ip) { self.exact(at::NW_PROTO, 1) } else { None }
    }

    /// True if only packets that have what `prerequisite` asks for are matched.
    #[must_use]
    pub fn meets(&self, prerequisite: Prerequisite) -> bool {
        use ether_type as ethernet;
        let protocol = |wanted: u8| self.ip_protocol() == Some(wanted);
        let tracked = || self.key.read(at::CT_STATE, 4) != 0;
        let nd_type = || self.exact::<u8>(at::TP_SRC + 1, 1).filter(|_| self.meets(Prerequisite::Icmp6));
        match prerequisite {
            Prerequisite::None => true,
            Prerequisite::Vlan => self.key.read(at::VLAN_TCI, 2) & u128::from(VLAN_PRESENT) != 0,
            Prerequisite::Ipv4 => self.ether_type() == Some(ethernet::IPV4),
            Prerequisite::Ipv6 => self.ether_type() == Some(ethernet::IPV6),
            Prerequisite::Ip => matches!(self.ether_type(), Some(ethernet::IPV4 | ethernet::IPV6)),
            Prerequisite::Arp => matches!(self.ether_type(), Some(ethernet::ARP | ethernet::RARP)),
            Prerequisite::Tcp => protocol(protocol::TCP),
            Prerequisite::Udp => protocol(protocol::UDP),
            Prerequisite::Sctp => protocol(protocol::SCTP),
            Prerequisite::Icmp4 => self.meets(Prerequisite::Ipv4) && protocol(protocol::ICMP),
            Prerequisite::Icmp6 => self.meets(Prerequisite::Ipv6) && protocol(protocol::ICMPV6),
            Prerequisite::Nd => matches!(nd_type(), Some(ND_SOLICIT | ND_ADVERT)),
            Prerequisite::NdSolicit => nd_type() == Some(ND_SOLICIT),
            Prerequisite::NdAdvert => nd_type() == Some(ND_ADVERT),
            Prerequisite::Ct => self.meets(Prerequisite::Ip) && tracked(),
            Prerequisite::Ct4 => self.meets(Prerequisite::Ipv4) && tracked(),
            Prerequisite::Ct6 => self.meets(Prerequisite::Ipv6) && tracked(),
        }
    }

    /// Stops matching `bytes` bytes at `offset`; true if they were matched.
    fn forget(&mut self, offset: usize, bytes: usize) -> bool {
        let matched = self.mask.read(offset, bytes) != 0;
        self.key.write(offset, bytes, 0);
        self.mask.write(offset, bytes, 0);
        matched
    }

    /// Stops matching what packets of the matched kind do not have, as `ovs-ofctl` does. Returns what is no longer
    /// matched: place, length, and what it would have needed.
    pub(crate) fn normalise(&mut self) -> Vec<(usize, usize, &'static str)> {
        let (ip, arp) = (self.meets(Prerequisite::Ip), self.meets(Prerequisite::Arp));
        let (ip4, ip6) = (self.meets(Prerequisite::Ipv4), self.meets(Prerequisite::Ipv6));
        let tcp = self.meets(Prerequisite::Tcp);
        let icmp = self.meets(Prerequisite::Icmp4) || self.meets(Prerequisite::Icmp6);
        let ports = tcp || self.meets(Prerequisite::Udp) || self.meets(Prerequisite::Sctp);
        let (solicit, advert) = (self.meets(Prerequisite::NdSolicit), self.meets(Prerequisite::NdAdvert));
        let tracked_ports = matches!(
            self.exact::<u8>(at::CT_NW_PROTO, 1),
            Some(protocol::TCP | protocol::UDP | protocol::SCTP | protocol::ICMP | protocol::ICMPV6)
        );
        let rules: [(bool, &[Place], &'static str); 11] = [
            (ip4 || arp, &[(at::NW_SRC, 4), (at::NW_DST, 4)], "ip or arp"),
            (ip || arp, &[(at::NW_PROTO, 1)], "ip, ipv6 or arp"),
            (ip, &[(at::NW_TOS, 1), (at::NW_TTL, 1), (at::NW_FRAG, 1)], "ip or ipv6"),
            (ip6, &[(at::IPV6_SRC, 16), (at::IPV6_DST, 16), (at::IPV6_LABEL, 4)], "ipv6"),
            (ports || icmp, &[(at::TP_SRC, 2), (at::TP_DST, 2)], "tcp, udp, sctp, icmp or icmp6"),
            (tcp, &[(at::TCP_FLAGS, 2)], "tcp"),
            (solicit || advert, &[(at::ND_TARGET, 16)], "icmp6 with icmp_type 135 or 136"),
            (arp || solicit, &[(at::ARP_SHA, 6)], "arp, or icmp6 with icmp_type 135"),
            (arp || advert, &[(at::ARP_THA, 6)], "arp, or icmp6 with icmp_type 136"),
            (tracked_ports, &[(at::CT_TP_SRC, 2), (at::CT_TP_DST, 2)], "ct_nw_proto 6, 17, 132, 1 or 58"),
            // What the high bytes say cannot be: types and codes of ICMP have 8 bits.
            (!icmp, &[(at::TP_SRC, 1), (at::TP_DST, 1)], ""),
        ];
        let mut dropped = Vec::new();
        for (met, places, needs) in rules {
            for (offset, bytes) in places.iter().filter(|_| !met) {
                if self.forget(*offset, *bytes) && !needs.is_empty() {
                    dropped.push((*offset, *bytes, needs));
                }
            }
        }
        dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(fields: &[(&str, u128, u128)]) -> Match {
        let mut made = Match::ANY;
        for (name, value, mask) in fields {
            made.set(Field::named(name).unwrap(), *value, *mask);
        }
        made
    }

    #[test]
    fn a_narrower_match_lies_within_a_wider_one_and_overlaps_it() {
        let wide = of(&[("nw_src", 0x0a00_0000, 0xff00_0000)]);
        let narrow = of(&[("nw_src", 0x0a00_0001, 0xffff_ffff), ("in_port", 1, 0xffff)]);
        assert!(narrow.is_within(&wide) && !wide.is_within(&narrow) && wide.is_within(&Match::ANY));
        assert!(wide.overlaps(&narrow) && narrow.overlaps(&wide));
        assert!(!wide.overlaps(&of(&[("nw_src", 0x0b00_0000, 0xff00_0000)])));
        assert!(wide.overlaps(&of(&[("reg0", 1, 1)])));
    }

    #[test]
    fn only_packets_with_the_matched_bits_match() {
        let match_ = of(&[("reg3", 0x5, 0xf)]);
        let mut packet = Key::ZERO;
        assert!(!match_.matches(&packet));
        Field::named("reg3").unwrap().write(&mut packet, 0xff5, u128::MAX);
        assert!(match_.matches(&packet));
    }
}
