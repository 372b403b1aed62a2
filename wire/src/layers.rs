//! Where each header of a frame starts: the result of the one pass over a packet's headers, made once
//! per packet and handed to whoever reads or rewrites them. It never judges more than it must: a header
//! that does not fit is absent here, and the callers decide what that means.

/// How an IP packet is fragmented (RFC 791 section 3.1, RFC 8200 section 4.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fragment {
    /// A whole packet.
    #[default]
    No,
    /// The fragment at offset 0: it carries the L4 header.
    First,
    /// A fragment at another offset: no L4 header.
    Later,
}

/// Byte offsets from the start of the frame; 0 means "there is none".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layers {
    /// Ethertype after all VLAN tags (host order); 0x05ff for an 802.3 length or a frame cut inside its L2 header.
    pub ether_type: u16,
    /// VLAN tags in front of the ethertype (at most 2 are skipped).
    pub vlan_tags: u8,
    /// IP protocol after all IPv6 extension headers; 0 where `l3` is 0.
    pub protocol: u8,
    /// How the packet is fragmented.
    pub fragment: Fragment,
    /// Start of the IPv4, IPv6 or ARP header; 0 if it is missing, cut or inconsistent
    /// (version, header length, total length beyond the frame).
    pub l3: u16,
    /// Start of the L4 header; 0 if there is none (later fragment, cut extension header).
    pub l4: u16,
    /// End of the IP packet as its own length field says (frames are padded to 60 bytes).
    pub l3_end: u16,
}
