//! The one table of everything a flow can match or set. A field is data: its names, its place in the [`Key`], how it is
//! written and what has to be matched before it means anything; parsing, printing and help are all made from this table.

use core::fmt::{self, Write as _};

use super::key::{Key, at};

/// How a field's value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Decimal,
    Hex,
    Mac,
    Ipv4,
    Ipv6,
    /// A port number or name.
    Port,
    CtState,
    TcpFlags,
    Frag,
    PacketType,
}

/// What a flow must match before a field means something (ovs-fields(7), "Prerequisites").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prerequisite {
    None,
    Vlan,
    Ipv4,
    Ipv6,
    /// IPv4 or IPv6.
    Ip,
    Arp,
    Tcp,
    Udp,
    Sctp,
    Icmp4,
    Icmp6,
    /// Neighbour solicitation or advertisement.
    Nd,
    NdSolicit,
    NdAdvert,
    /// IPv4 or IPv6, and `+trk` in `ct_state`.
    Ct,
    Ct4,
    Ct6,
}

/// One matchable field.
#[derive(Debug)]
pub struct Field {
    /// The name it is known by.
    pub name: &'static str,
    /// Other names that mean the same.
    pub aliases: &'static [&'static str],
    /// Its extended-match name, as printed for subfields.
    pub nxm: &'static str,
    /// Its standard extended-match name, where it has a second one.
    pub oxm: Option<&'static str>,
    /// Place of its first byte in the [`Key`].
    pub offset: usize,
    /// Bytes it lies in.
    pub bytes: usize,
    /// Bits below its least significant one within those bytes.
    pub shift: u8,
    /// Width in bits.
    pub width: u8,
    pub format: Format,
    pub prerequisite: Prerequisite,
    /// Bits that may be matched or set as a whole field (all of them, but for `nw_tos` and the
    /// unused ones of `ct_state`).
    pub bits: u128,
    pub maskable: bool,
    pub writable: bool,
    /// One line for people.
    pub help: &'static str,
}

impl Prerequisite {
    /// What to write into the match to meet it.
    #[must_use]
    pub const fn needs(self) -> &'static str {
        match self {
            Self::None => "nothing",
            Self::Vlan => "a VLAN tag (dl_vlan=..., or push_vlan before)",
            Self::Ipv4 => "ip",
            Self::Ipv6 => "ipv6",
            Self::Ip => "ip or ipv6",
            Self::Arp => "arp",
            Self::Tcp => "tcp or tcp6",
            Self::Udp => "udp or udp6",
            Self::Sctp => "sctp or sctp6",
            Self::Icmp4 => "icmp",
            Self::Icmp6 => "icmp6",
            Self::Nd => "icmp6,icmp_type=135 or icmp6,icmp_type=136",
            Self::NdSolicit => "icmp6,icmp_type=135",
            Self::NdAdvert => "icmp6,icmp_type=136",
            Self::Ct => "ct_state=+trk with ip or ipv6",
            Self::Ct4 => "ct_state=+trk,ip",
            Self::Ct6 => "ct_state=+trk,ipv6",
        }
    }
}

impl PartialEq for Field {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Field {}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// The low `width` bits set.
#[must_use]
pub const fn low_bits(width: u8) -> u128 {
    if width >= 128 { u128::MAX } else { (1 << width) - 1 }
}

impl Field {
    /// All the field's bits, at bit 0.
    #[must_use]
    pub const fn max(&self) -> u128 {
        low_bits(self.width)
    }

    /// The field's value in a key.
    #[inline]
    #[must_use]
    pub const fn read(&self, key: &Key) -> u128 {
        (key.read(self.offset, self.bytes) >> self.shift) & low_bits(self.width)
    }

    /// Sets the field's bits where `mask` is 1; bits beyond the field's width are ignored.
    #[inline]
    pub const fn write(&self, key: &mut Key, value: u128, mask: u128) {
        let mask = (mask & low_bits(self.width)) << self.shift;
        let old = key.read(self.offset, self.bytes);
        key.write(self.offset, self.bytes, (old & !mask) | ((value << self.shift) & mask));
    }

    /// The whole field as a subfield.
    #[must_use]
    pub const fn whole(&'static self) -> Subfield {
        Subfield { field: self, start: 0, width: self.width }
    }

    /// The field called `name`: its own name, an alias or an extended-match name, in any case.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        FIELDS.iter().find(|field| field.names().any(|known| known.eq_ignore_ascii_case(name)))
    }

    /// Every name of the field.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + use<> {
        [self.name, self.nxm].into_iter().chain(self.aliases.iter().copied()).chain(self.oxm)
    }
}

/// Bits of a field, as in `reg0[3..7]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subfield {
    pub field: &'static Field,
    /// The first bit, counted from the field's least significant one.
    pub start: u8,
    /// Number of bits, at least 1; `start + width <= field.width`.
    pub width: u8,
}

impl Subfield {
    /// The subfield's bits in place within the field.
    #[must_use]
    pub const fn mask(&self) -> u128 {
        low_bits(self.width) << self.start
    }

    /// The subfield's value in a key, at bit 0.
    #[inline]
    #[must_use]
    pub const fn read(&self, key: &Key) -> u128 {
        (self.field.read(key) >> self.start) & low_bits(self.width)
    }

    /// Sets the subfield; bits of `value` beyond its width are ignored.
    #[inline]
    pub const fn write(&self, key: &mut Key, value: u128) {
        self.field.write(key, value << self.start, self.mask());
    }

    /// True if these are all the field's bits.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.start == 0 && self.width == self.field.width
    }
}

const fn field(
    name: &'static str,
    nxm: &'static str,
    offset: usize,
    bytes: usize,
    width: u8,
    format: Format,
    help: &'static str,
) -> Field {
    Field {
        name,
        aliases: &[],
        nxm,
        oxm: None,
        offset,
        bytes,
        shift: 0,
        width,
        format,
        prerequisite: Prerequisite::None,
        bits: low_bits(width),
        maskable: false,
        writable: false,
        help,
    }
}

impl Field {
    const fn aka(self, aliases: &'static [&'static str]) -> Self {
        Self { aliases, ..self }
    }
    const fn oxm(self, oxm: &'static str) -> Self {
        Self { oxm: Some(oxm), ..self }
    }
    const fn shifted(self, shift: u8) -> Self {
        Self { shift, ..self }
    }
    const fn needs(self, prerequisite: Prerequisite) -> Self {
        Self { prerequisite, ..self }
    }
    const fn only(self, bits: u128) -> Self {
        Self { bits, ..self }
    }
    const fn maskable(self) -> Self {
        Self { maskable: true, ..self }
    }
    const fn writable(self) -> Self {
        Self { writable: true, ..self }
    }
}

/// All fields.
pub static FIELDS: [Field; 78] = [
    field("in_port", "NXM_OF_IN_PORT", at::IN_PORT, 4, 16, Format::Port, "port the packet came in by")
        .aka(&["in_port_oxm"])
        .oxm("OXM_OF_IN_PORT")
        .writable(),
    field(
        "ct_state",
        "NXM_NX_CT_STATE",
        at::CT_STATE,
        4,
        32,
        Format::CtState,
        "connection-tracking state flags",
    )
    .only(0xff)
    .maskable(),
    field("ct_zone", "NXM_NX_CT_ZONE", at::CT_ZONE, 2, 16, Format::Hex, "connection-tracking zone"),
    field("ct_mark", "NXM_NX_CT_MARK", at::CT_MARK, 4, 32, Format::Hex, "mark of the connection")
        .maskable()
        .writable(),
    field("ct_label", "NXM_NX_CT_LABEL", at::CT_LABEL, 16, 128, Format::Hex, "label of the connection")
        .maskable()
        .writable(),
    field(
        "ct_nw_src",
        "NXM_NX_CT_NW_SRC",
        at::CT_NW_SRC,
        4,
        32,
        Format::Ipv4,
        "IPv4 source of the connection's original direction",
    )
    .needs(Prerequisite::Ct4)
    .maskable(),
    field(
        "ct_nw_dst",
        "NXM_NX_CT_NW_DST",
        at::CT_NW_DST,
        4,
        32,
        Format::Ipv4,
        "IPv4 destination of the connection's original direction",
    )
    .needs(Prerequisite::Ct4)
    .maskable(),
    field(
        "ct_ipv6_src",
        "NXM_NX_CT_IPV6_SRC",
        at::CT_IPV6_SRC,
        16,
        128,
        Format::Ipv6,
        "IPv6 source of the connection's original direction",
    )
    .needs(Prerequisite::Ct6)
    .maskable(),
    field(
        "ct_ipv6_dst",
        "NXM_NX_CT_IPV6_DST",
        at::CT_IPV6_DST,
        16,
        128,
        Format::Ipv6,
        "IPv6 destination of the connection's original direction",
    )
    .needs(Prerequisite::Ct6)
    .maskable(),
    field(
        "ct_nw_proto",
        "NXM_NX_CT_NW_PROTO",
        at::CT_NW_PROTO,
        1,
        8,
        Format::Decimal,
        "IP protocol of the connection's original direction",
    )
    .needs(Prerequisite::Ct),
    field(
        "ct_tp_src",
        "NXM_NX_CT_TP_SRC",
        at::CT_TP_SRC,
        2,
        16,
        Format::Decimal,
        "source port of the connection's original direction",
    )
    .needs(Prerequisite::Ct)
    .maskable(),
    field(
        "ct_tp_dst",
        "NXM_NX_CT_TP_DST",
        at::CT_TP_DST,
        2,
        16,
        Format::Decimal,
        "destination port of the connection's original direction",
    )
    .needs(Prerequisite::Ct)
    .maskable(),
    field("metadata", "OXM_OF_METADATA", at::METADATA, 8, 64, Format::Hex, "value passed between tables")
        .maskable()
        .writable(),
    field("reg0", "NXM_NX_REG0", at::REG0, 4, 32, Format::Hex, "register").maskable().writable(),
    field("reg1", "NXM_NX_REG1", at::REG0 + 4, 4, 32, Format::Hex, "register").maskable().writable(),
    field("reg2", "NXM_NX_REG2", at::REG0 + 8, 4, 32, Format::Hex, "register").maskable().writable(),
    field("reg3", "NXM_NX_REG3", at::REG0 + 12, 4, 32, Format::Hex, "register").maskable().writable(),
    field("reg4", "NXM_NX_REG4", at::REG0 + 16, 4, 32, Format::Hex, "register").maskable().writable(),
    field("reg5", "NXM_NX_REG5", at::REG0 + 20, 4, 32, Format::Hex, "register").maskable().writable(),
    field("reg6", "NXM_NX_REG6", at::REG0 + 24, 4, 32, Format::Hex, "register").maskable().writable(),
    field("reg7", "NXM_NX_REG7", at::REG0 + 28, 4, 32, Format::Hex, "register").maskable().writable(),
    field("reg8", "NXM_NX_REG8", at::REG0 + 32, 4, 32, Format::Hex, "register").maskable().writable(),
    field("reg9", "NXM_NX_REG9", at::REG0 + 36, 4, 32, Format::Hex, "register").maskable().writable(),
    field("reg10", "NXM_NX_REG10", at::REG0 + 40, 4, 32, Format::Hex, "register").maskable().writable(),
    field("reg11", "NXM_NX_REG11", at::REG0 + 44, 4, 32, Format::Hex, "register").maskable().writable(),
    field("reg12", "NXM_NX_REG12", at::REG0 + 48, 4, 32, Format::Hex, "register").maskable().writable(),
    field("reg13", "NXM_NX_REG13", at::REG0 + 52, 4, 32, Format::Hex, "register").maskable().writable(),
    field("reg14", "NXM_NX_REG14", at::REG0 + 56, 4, 32, Format::Hex, "register").maskable().writable(),
    field("reg15", "NXM_NX_REG15", at::REG0 + 60, 4, 32, Format::Hex, "register").maskable().writable(),
    field("xreg0", "OXM_OF_PKT_REG0", at::REG0, 8, 64, Format::Hex, "registers 0 (high half) and 1")
        .maskable()
        .writable(),
    field("xreg1", "OXM_OF_PKT_REG1", at::REG0 + 8, 8, 64, Format::Hex, "registers 2 (high half) and 3")
        .maskable()
        .writable(),
    field("xreg2", "OXM_OF_PKT_REG2", at::REG0 + 16, 8, 64, Format::Hex, "registers 4 (high half) and 5")
        .maskable()
        .writable(),
    field("xreg3", "OXM_OF_PKT_REG3", at::REG0 + 24, 8, 64, Format::Hex, "registers 6 (high half) and 7")
        .maskable()
        .writable(),
    field("xreg4", "OXM_OF_PKT_REG4", at::REG0 + 32, 8, 64, Format::Hex, "registers 8 (high half) and 9")
        .maskable()
        .writable(),
    field("xreg5", "OXM_OF_PKT_REG5", at::REG0 + 40, 8, 64, Format::Hex, "registers 10 (high half) and 11")
        .maskable()
        .writable(),
    field("xreg6", "OXM_OF_PKT_REG6", at::REG0 + 48, 8, 64, Format::Hex, "registers 12 (high half) and 13")
        .maskable()
        .writable(),
    field("xreg7", "OXM_OF_PKT_REG7", at::REG0 + 56, 8, 64, Format::Hex, "registers 14 (high half) and 15")
        .maskable()
        .writable(),
    field("xxreg0", "NXM_NX_XXREG0", at::REG0, 16, 128, Format::Hex, "registers 0 (highest quarter) to 3")
        .maskable()
        .writable(),
    field(
        "xxreg1",
        "NXM_NX_XXREG1",
        at::REG0 + 16,
        16,
        128,
        Format::Hex,
        "registers 4 (highest quarter) to 7",
    )
    .maskable()
    .writable(),
    field(
        "xxreg2",
        "NXM_NX_XXREG2",
        at::REG0 + 32,
        16,
        128,
        Format::Hex,
        "registers 8 (highest quarter) to 11",
    )
    .maskable()
    .writable(),
    field(
        "xxreg3",
        "NXM_NX_XXREG3",
        at::REG0 + 48,
        16,
        128,
        Format::Hex,
        "registers 12 (highest quarter) to 15",
    )
    .maskable()
    .writable(),
    field(
        "packet_type",
        "OXM_OF_PACKET_TYPE",
        at::PACKET_TYPE,
        4,
        32,
        Format::PacketType,
        "namespace and type of the packet; (0,0) is Ethernet",
    ),
    field("eth_src", "NXM_OF_ETH_SRC", at::ETH_SRC, 6, 48, Format::Mac, "Ethernet source address")
        .aka(&["dl_src"])
        .oxm("OXM_OF_ETH_SRC")
        .maskable()
        .writable(),
    field("eth_dst", "NXM_OF_ETH_DST", at::ETH_DST, 6, 48, Format::Mac, "Ethernet destination address")
        .aka(&["dl_dst"])
        .oxm("OXM_OF_ETH_DST")
        .maskable()
        .writable(),
    field("eth_type", "NXM_OF_ETH_TYPE", at::ETH_TYPE, 2, 16, Format::Hex, "Ethernet type, after VLAN tags")
        .aka(&["dl_type"])
        .oxm("OXM_OF_ETH_TYPE"),
    field(
        "vlan_tci",
        "NXM_OF_VLAN_TCI",
        at::VLAN_TCI,
        2,
        16,
        Format::Hex,
        "whole VLAN tag; bit 0x1000 means that there is one",
    )
    .maskable()
    .writable(),
    field("vlan_vid", "OXM_OF_VLAN_VID", at::VLAN_TCI, 2, 12, Format::Decimal, "VLAN id")
        .needs(Prerequisite::Vlan)
        .maskable()
        .writable(),
    field("vlan_pcp", "OXM_OF_VLAN_PCP", at::VLAN_TCI, 2, 3, Format::Decimal, "VLAN priority")
        .shifted(13)
        .needs(Prerequisite::Vlan)
        .writable(),
    field("nw_src", "NXM_OF_IP_SRC", at::NW_SRC, 4, 32, Format::Ipv4, "IPv4 source address")
        .aka(&["ip_src"])
        .oxm("OXM_OF_IPV4_SRC")
        .needs(Prerequisite::Ipv4)
        .maskable()
        .writable(),
    field("nw_dst", "NXM_OF_IP_DST", at::NW_DST, 4, 32, Format::Ipv4, "IPv4 destination address")
        .aka(&["ip_dst"])
        .oxm("OXM_OF_IPV4_DST")
        .needs(Prerequisite::Ipv4)
        .maskable()
        .writable(),
    field("ipv6_src", "NXM_NX_IPV6_SRC", at::IPV6_SRC, 16, 128, Format::Ipv6, "IPv6 source address")
        .oxm("OXM_OF_IPV6_SRC")
        .needs(Prerequisite::Ipv6)
        .maskable()
        .writable(),
    field("ipv6_dst", "NXM_NX_IPV6_DST", at::IPV6_DST, 16, 128, Format::Ipv6, "IPv6 destination address")
        .oxm("OXM_OF_IPV6_DST")
        .needs(Prerequisite::Ipv6)
        .maskable()
        .writable(),
    field("ipv6_label", "NXM_NX_IPV6_LABEL", at::IPV6_LABEL, 4, 20, Format::Hex, "IPv6 flow label")
        .oxm("OXM_OF_IPV6_FLABEL")
        .needs(Prerequisite::Ipv6)
        .maskable()
        .writable(),
    field("nw_proto", "NXM_OF_IP_PROTO", at::NW_PROTO, 1, 8, Format::Decimal, "IP protocol")
        .aka(&["ip_proto"])
        .oxm("OXM_OF_IP_PROTO")
        .needs(Prerequisite::Ip),
    field(
        "nw_tos",
        "NXM_OF_IP_TOS",
        at::NW_TOS,
        1,
        8,
        Format::Decimal,
        "DSCP in the high six bits of the traffic class; the low two are not looked at",
    )
    .only(0xfc)
    .needs(Prerequisite::Ip)
    .writable(),
    field("ip_dscp", "OXM_OF_IP_DSCP", at::NW_TOS, 1, 6, Format::Decimal, "DSCP")
        .shifted(2)
        .needs(Prerequisite::Ip)
        .writable(),
    field(
        "nw_ecn",
        "NXM_NX_IP_ECN",
        at::NW_TOS,
        1,
        2,
        Format::Decimal,
        "explicit congestion notification bits",
    )
    .aka(&["ip_ecn"])
    .oxm("OXM_OF_IP_ECN")
    .needs(Prerequisite::Ip)
    .writable(),
    field("nw_ttl", "NXM_NX_IP_TTL", at::NW_TTL, 1, 8, Format::Decimal, "time to live or hop limit")
        .needs(Prerequisite::Ip)
        .writable(),
    field(
        "ip_frag",
        "NXM_NX_IP_FRAG",
        at::NW_FRAG,
        1,
        2,
        Format::Frag,
        "kind of fragment: no, yes, first, later or not_later",
    )
    .aka(&["nw_frag"])
    .needs(Prerequisite::Ip)
    .maskable(),
    field("arp_op", "NXM_OF_ARP_OP", at::NW_PROTO, 1, 8, Format::Decimal, "ARP operation")
        .oxm("OXM_OF_ARP_OP")
        .needs(Prerequisite::Arp)
        .writable(),
    field("arp_spa", "NXM_OF_ARP_SPA", at::NW_SRC, 4, 32, Format::Ipv4, "ARP sender's IPv4 address")
        .oxm("OXM_OF_ARP_SPA")
        .needs(Prerequisite::Arp)
        .maskable()
        .writable(),
    field("arp_tpa", "NXM_OF_ARP_TPA", at::NW_DST, 4, 32, Format::Ipv4, "ARP target's IPv4 address")
        .oxm("OXM_OF_ARP_TPA")
        .needs(Prerequisite::Arp)
        .maskable()
        .writable(),
    field("arp_sha", "NXM_NX_ARP_SHA", at::ARP_SHA, 6, 48, Format::Mac, "ARP sender's Ethernet address")
        .oxm("OXM_OF_ARP_SHA")
        .needs(Prerequisite::Arp)
        .maskable()
        .writable(),
    field("arp_tha", "NXM_NX_ARP_THA", at::ARP_THA, 6, 48, Format::Mac, "ARP target's Ethernet address")
        .oxm("OXM_OF_ARP_THA")
        .needs(Prerequisite::Arp)
        .maskable()
        .writable(),
    field("tcp_src", "NXM_OF_TCP_SRC", at::TP_SRC, 2, 16, Format::Decimal, "TCP source port")
        .aka(&["tp_src"])
        .oxm("OXM_OF_TCP_SRC")
        .needs(Prerequisite::Tcp)
        .maskable()
        .writable(),
    field("tcp_dst", "NXM_OF_TCP_DST", at::TP_DST, 2, 16, Format::Decimal, "TCP destination port")
        .aka(&["tp_dst"])
        .oxm("OXM_OF_TCP_DST")
        .needs(Prerequisite::Tcp)
        .maskable()
        .writable(),
    field("udp_src", "NXM_OF_UDP_SRC", at::TP_SRC, 2, 16, Format::Decimal, "UDP source port")
        .oxm("OXM_OF_UDP_SRC")
        .needs(Prerequisite::Udp)
        .maskable()
        .writable(),
    field("udp_dst", "NXM_OF_UDP_DST", at::TP_DST, 2, 16, Format::Decimal, "UDP destination port")
        .oxm("OXM_OF_UDP_DST")
        .needs(Prerequisite::Udp)
        .maskable()
        .writable(),
    field("sctp_src", "OXM_OF_SCTP_SRC", at::TP_SRC, 2, 16, Format::Decimal, "SCTP source port")
        .needs(Prerequisite::Sctp)
        .maskable()
        .writable(),
    field("sctp_dst", "OXM_OF_SCTP_DST", at::TP_DST, 2, 16, Format::Decimal, "SCTP destination port")
        .needs(Prerequisite::Sctp)
        .maskable()
        .writable(),
    field("tcp_flags", "NXM_NX_TCP_FLAGS", at::TCP_FLAGS, 2, 12, Format::TcpFlags, "TCP flags")
        .oxm("ONFOXM_ET_TCP_FLAGS")
        .needs(Prerequisite::Tcp)
        .maskable(),
    field("icmp_type", "NXM_OF_ICMP_TYPE", at::TP_SRC + 1, 1, 8, Format::Decimal, "ICMP type")
        .oxm("OXM_OF_ICMPV4_TYPE")
        .needs(Prerequisite::Icmp4)
        .writable(),
    field("icmp_code", "NXM_OF_ICMP_CODE", at::TP_DST + 1, 1, 8, Format::Decimal, "ICMP code")
        .oxm("OXM_OF_ICMPV4_CODE")
        .needs(Prerequisite::Icmp4)
        .writable(),
    field("icmpv6_type", "NXM_NX_ICMPV6_TYPE", at::TP_SRC + 1, 1, 8, Format::Decimal, "ICMPv6 type")
        .oxm("OXM_OF_ICMPV6_TYPE")
        .needs(Prerequisite::Icmp6)
        .writable(),
    field("icmpv6_code", "NXM_NX_ICMPV6_CODE", at::TP_DST + 1, 1, 8, Format::Decimal, "ICMPv6 code")
        .oxm("OXM_OF_ICMPV6_CODE")
        .needs(Prerequisite::Icmp6)
        .writable(),
    field(
        "nd_target",
        "NXM_NX_ND_TARGET",
        at::ND_TARGET,
        16,
        128,
        Format::Ipv6,
        "target of a neighbour solicitation or advertisement",
    )
    .oxm("OXM_OF_IPV6_ND_TARGET")
    .needs(Prerequisite::Nd)
    .maskable()
    .writable(),
    field(
        "nd_sll",
        "NXM_NX_ND_SLL",
        at::ARP_SHA,
        6,
        48,
        Format::Mac,
        "source link-layer address of a neighbour solicitation",
    )
    .oxm("OXM_OF_IPV6_ND_SLL")
    .needs(Prerequisite::NdSolicit)
    .maskable()
    .writable(),
    field(
        "nd_tll",
        "NXM_NX_ND_TLL",
        at::ARP_THA,
        6,
        48,
        Format::Mac,
        "target link-layer address of a neighbour advertisement",
    )
    .oxm("OXM_OF_IPV6_ND_TLL")
    .needs(Prerequisite::NdAdvert)
    .maskable()
    .writable(),
];

impl Field {
    /// The field called `name` in a match: extended-match names are for actions only.
    #[must_use]
    pub fn for_match(name: &str) -> Option<&'static Self> {
        FIELDS.iter().find(|field| field.name == name || field.aliases.contains(&name))
    }
}

/// All fields, one a line, for people.
#[must_use]
pub fn help() -> String {
    let mut out = format!("{:<25} {:>4} {:<2} {:<9} {}\n", "field", "bits", "", "", "meaning");
    for field in &FIELDS {
        let names: Vec<&str> = core::iter::once(field.name).chain(field.aliases.iter().copied()).collect();
        let needs = match field.prerequisite {
            Prerequisite::None => String::new(),
            needed => format!(" (needs {})", needed.needs()),
        };
        let _ = writeln!(
            out,
            "{:<25} {:>3} {:<2} {:<9} {}{needs}",
            names.join(", "),
            field.width,
            if field.writable { "rw" } else { "r" },
            if field.maskable { "maskable" } else { "" },
            field.help
        );
    }
    out
}
