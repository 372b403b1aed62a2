//! The flow key: every matchable field of a packet at a fixed place, so that extraction, matching, masking
//! and hashing are loops over 64-bit words and a field is an entry in a table (offset, length, shift).
//!
//! All fields are stored in network byte order (big-endian), registers and metadata too, so that a bit
//! range of a field means the same bits everywhere. Words `0..DATAPATH_WORDS` describe the packet as the
//! datapath sees it and key the megaflows; the words behind exist only while a packet is translated
//! through the tables.

/// 64-bit words in a key.
pub const WORDS: usize = 34;
/// Words that the datapath's caches look at; the rest (metadata, registers) live in translation only.
pub const DATAPATH_WORDS: usize = 25;
/// Bytes in a key.
pub const BYTES: usize = WORDS * 8;

/// Byte offsets of the fields inside a key. Lengths in bytes stand in the comments.
pub mod at {
    /// u32: port the packet came in by (OpenFlow number, 32 bits).
    pub const IN_PORT: usize = 0;
    /// u32: recirculation id, 0 for a packet that just came in.
    pub const RECIRC_ID: usize = 4;
    /// u32: ct_state bits.
    pub const CT_STATE: usize = 8;
    /// u16
    pub const CT_ZONE: usize = 12;
    /// u8
    pub const CT_NW_PROTO: usize = 14;
    /// u32
    pub const CT_MARK: usize = 16;
    /// u32, low 20 bits.
    pub const IPV6_LABEL: usize = 20;
    /// 6 bytes
    pub const ETH_DST: usize = 24;
    /// u16: ethertype after VLAN tags; 0x05ff for 802.3 frames without SNAP ethertype.
    pub const ETH_TYPE: usize = 30;
    /// 6 bytes
    pub const ETH_SRC: usize = 32;
    /// u16: outer VLAN TCI; bit 0x1000 set means a tag is present.
    pub const VLAN_TCI: usize = 38;
    /// u32: IPv4 source, or ARP sender protocol address.
    pub const NW_SRC: usize = 40;
    /// u32: IPv4 destination, or ARP target protocol address.
    pub const NW_DST: usize = 44;
    /// u8: IP protocol, or the low byte of the ARP opcode.
    pub const NW_PROTO: usize = 48;
    /// u8: DSCP (6 bits) and ECN (2 bits).
    pub const NW_TOS: usize = 49;
    /// u8: TTL or hop limit.
    pub const NW_TTL: usize = 50;
    /// u8: bit 0 = any fragment, bit 1 = later fragment.
    pub const NW_FRAG: usize = 51;
    /// u16: TCP, UDP or SCTP source port; ICMP type in the low byte.
    pub const TP_SRC: usize = 52;
    /// u16: destination port; ICMP code in the low byte.
    pub const TP_DST: usize = 54;
    /// u16, low 12 bits.
    pub const TCP_FLAGS: usize = 56;
    /// u16: TPID of the outer VLAN tag, 0 without one.
    pub const VLAN_TPID: usize = 58;
    /// u32: namespace << 16 | type; 0 for Ethernet.
    pub const PACKET_TYPE: usize = 60;
    /// u32: source of the original direction's tuple (IPv4).
    pub const CT_NW_SRC: usize = 64;
    /// u32
    pub const CT_NW_DST: usize = 68;
    /// u16
    pub const CT_TP_SRC: usize = 72;
    /// u16
    pub const CT_TP_DST: usize = 74;
    /// u32: hash of the 5-tuple, where some group selects by it.
    pub const DP_HASH: usize = 76;
    /// 16 bytes
    pub const CT_LABEL: usize = 80;
    /// 16 bytes
    pub const IPV6_SRC: usize = 96;
    /// 16 bytes
    pub const IPV6_DST: usize = 112;
    /// 16 bytes
    pub const CT_IPV6_SRC: usize = 128;
    /// 16 bytes
    pub const CT_IPV6_DST: usize = 144;
    /// 16 bytes: target of a neighbour solicitation or advertisement.
    pub const ND_TARGET: usize = 160;
    /// 6 bytes: ARP sender hardware address, or ND source link-layer address.
    pub const ARP_SHA: usize = 176;
    /// u16: inner VLAN TCI.
    pub const VLAN2_TCI: usize = 182;
    /// 6 bytes: ARP target hardware address, or ND target link-layer address.
    pub const ARP_THA: usize = 184;
    /// u64. From here on the words exist in translation only.
    pub const METADATA: usize = 200;
    /// 16 registers of u32.
    pub const REG0: usize = 208;
}

/// The fields of a connection's original tuple, as offset and length.
pub const ORIGINAL_TUPLE: [(usize, usize); 7] = [
    (at::CT_NW_PROTO, 1),
    (at::CT_NW_SRC, 4),
    (at::CT_NW_DST, 4),
    (at::CT_TP_SRC, 2),
    (at::CT_TP_DST, 2),
    (at::CT_IPV6_SRC, 16),
    (at::CT_IPV6_DST, 16),
];

/// A packet's fields. `words[i]` holds bytes `8*i .. 8*i+8` of the layout in [`at`], as a big-endian integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C, align(64))]
pub struct Key {
    /// The fields.
    pub words: [u64; WORDS],
}

/// Which bits of a [`Key`] matter: 1 = compared.
pub type Mask = Key;

impl Default for Key {
    fn default() -> Self {
        Self::ZERO
    }
}

impl Key {
    /// All fields 0; as a mask: nothing compared.
    pub const ZERO: Self = Self { words: [0; WORDS] };

    /// The `len` bytes at `offset` as an integer, `len <= 16`. Fields never straddle a word unless they are
    /// 16 bytes long and word-aligned.
    #[inline]
    #[must_use]
    pub const fn read(&self, offset: usize, len: usize) -> u128 {
        let word = offset / 8;
        if len == 16 {
            return (self.words[word] as u128) << 64 | self.words[word + 1] as u128;
        }
        let shift = 64 - 8 * (offset % 8 + len);
        let mask = if len == 8 { u64::MAX } else { (1u64 << (8 * len)) - 1 };
        ((self.words[word] >> shift) & mask) as u128
    }

    /// The bits of both.
    #[must_use]
    pub const fn union(&self, other: &Self) -> Self {
        let mut words = self.words;
        let mut word = 0;
        while word < WORDS {
            words[word] |= other.words[word];
            word += 1;
        }
        Self { words }
    }

    /// Adds the bits of `other` to this mask.
    #[inline]
    pub fn add(&mut self, other: &Self) {
        *self = self.union(other);
    }

    /// This key where `mask` is 1, and 0 elsewhere.
    #[inline]
    #[must_use]
    pub fn masked(&self, mask: &Self) -> Self {
        let mut words = self.words;
        for (word, mask) in words.iter_mut().zip(mask.words) {
            *word &= mask;
        }
        Self { words }
    }

    /// True when no bit is set.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.words == [0; WORDS]
    }

    /// Writes the low `8 * len` bits of `value` at `offset`; see [`Key::read`].
    #[inline]
    pub const fn write(&mut self, offset: usize, len: usize, value: u128) {
        let word = offset / 8;
        if len == 16 {
            self.words[word] = (value >> 64) as u64;
            self.words[word + 1] = value as u64;
            return;
        }
        let shift = 64 - 8 * (offset % 8 + len);
        let mask = if len == 8 { u64::MAX } else { (1u64 << (8 * len)) - 1 };
        self.words[word] = self.words[word] & !(mask << shift) | ((value as u64 & mask) << shift);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_keep_to_their_own_bytes() {
        let mut key = Key::ZERO;
        key.write(at::ETH_DST, 6, 0xffff_ffff_ffff);
        assert_eq!(key.read(at::ETH_TYPE, 2), 0);
        key.write(at::ETH_TYPE, 2, 0x0800);
        assert_eq!(key.read(at::ETH_DST, 6), 0xffff_ffff_ffff);
        key.write(at::CT_LABEL, 16, u128::MAX - 5);
        assert_eq!(key.read(at::CT_LABEL, 16), u128::MAX - 5);
        assert_eq!(key.read(at::IPV6_SRC, 16), 0);
    }
}
