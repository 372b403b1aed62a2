//! Packets for the tests: a frame from its tuple, with right checksums.

use core::net::IpAddr;

use weir_wire::{Layers, Tuple, checksum};

/// A frame and where its headers are.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Frame {
    pub(crate) bytes: Vec<u8>,
    pub(crate) layers: Layers,
}

pub(crate) fn tuple(protocol: u8, src: &str, src_port: u16, dst: &str, dst_port: u16) -> Tuple {
    let (src, dst) = (src.parse::<IpAddr>().unwrap(), dst.parse::<IpAddr>().unwrap());
    Tuple::new(src, dst, src_port, dst_port, protocol, 0).unwrap()
}

impl Frame {
    /// An IP packet around an L4 header and payload whose checksum is still to be filled in.
    fn ip(src: IpAddr, dst: IpAddr, protocol: u8, l4: &[u8]) -> Self {
        let mut bytes = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
        let len = u16::try_from(l4.len()).unwrap();
        match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                bytes.extend([8, 0, 0x45, 0]);
                bytes.extend((len + 20).to_be_bytes());
                bytes.extend([0, 1, 0x40, 0, 64, protocol, 0, 0]);
                bytes.extend(src.octets());
                bytes.extend(dst.octets());
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                bytes.extend(len.to_be_bytes());
                bytes.extend([protocol, 64]);
                bytes.extend(src.octets());
                bytes.extend(dst.octets());
            }
            _ => panic!("{src} and {dst} are of different families"),
        }
        bytes.extend(l4);
        let layers = Layers::parse(&bytes);
        assert_ne!(layers.l4, 0);
        checksum::fill(&mut bytes, &layers);
        Self { bytes, layers }
    }

    pub(crate) fn udp(tuple: &Tuple) -> Self {
        Self::udp_with(tuple, b"hello")
    }

    pub(crate) fn udp_with(tuple: &Tuple, payload: &[u8]) -> Self {
        let mut l4 = Vec::new();
        l4.extend(tuple.src_port().to_be_bytes());
        l4.extend(tuple.dst_port().to_be_bytes());
        l4.extend(u16::try_from(payload.len() + 8).unwrap().to_be_bytes());
        l4.extend([0, 0]);
        l4.extend(payload);
        Self::ip(tuple.src(), tuple.dst(), 17, &l4)
    }

    pub(crate) fn tcp(tuple: &Tuple, flags: &str, seq: u32, ack: u32) -> Self {
        let bits = flags.chars().fold(0u8, |bits, flag| bits | 1 << "FSRPA".find(flag).unwrap());
        let mut l4 = Vec::new();
        l4.extend(tuple.src_port().to_be_bytes());
        l4.extend(tuple.dst_port().to_be_bytes());
        l4.extend(seq.to_be_bytes());
        l4.extend(ack.to_be_bytes());
        l4.extend([0x50, bits, 0x20, 0, 0, 0, 0, 0]);
        Self::ip(tuple.src(), tuple.dst(), 6, &l4)
    }

    /// An ICMP query or answer; the tuple's ports are identifier, and type and code.
    pub(crate) fn icmp(tuple: &Tuple) -> Self {
        let mut l4 = Vec::new();
        l4.extend(tuple.dst_port().to_be_bytes());
        l4.extend([0, 0]);
        l4.extend(tuple.src_port().to_be_bytes());
        l4.extend([0, 1, 1, 2, 3, 4]);
        Self::ip(tuple.src(), tuple.dst(), tuple.protocol(), &l4)
    }

    /// A packet of a protocol without a tracker.
    pub(crate) fn generic(tuple: &Tuple) -> Self {
        Self::ip(tuple.src(), tuple.dst(), tuple.protocol(), &[1; 24])
    }

    /// What `router` sends to complain about this packet: host unreachable.
    pub(crate) fn unreachable_from(&self, router: &str) -> Self {
        let router: IpAddr = router.parse().unwrap();
        let (protocol, kind) = if router.is_ipv6() { (58, 1) } else { (1, 3) };
        let mut l4 = vec![kind, 1, 0, 0, 0, 0, 0, 0];
        l4.extend(self.layers.l3_bytes(&self.bytes));
        Self::ip(router, self.tuple().src(), protocol, &l4)
    }

    /// The packet's tuple in zone 0, or that of what it quotes; checksums are verified.
    pub(crate) fn tuple(&self) -> Tuple {
        match self.extract() {
            weir_wire::Extracted::Packet(tuple) => tuple,
            weir_wire::Extracted::IcmpError { inner, .. } => inner,
        }
    }

    pub(crate) fn extract(&self) -> weir_wire::Extracted {
        Tuple::extract(&self.bytes, &self.layers, 0, weir_wire::ChecksumTrust::NONE).unwrap()
    }

    /// Outer source and destination.
    pub(crate) fn ends(&self) -> (String, String) {
        let l3 = self.layers.l3_bytes(&self.bytes);
        let address = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&l3[at..at + 4]).unwrap()).to_string();
        (address(12), address(16))
    }
}
