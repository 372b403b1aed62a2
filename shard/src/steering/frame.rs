//! The home of a frame that nobody has looked at yet: early steering, before flow tables and trackers see it. A hint
//! that costs little; whoever tracks the packet asks again with the tuple and zone that it found.

use weir_wire::numbers::protocol;
use weir_wire::{Fragment, Layers, Tuple, Tuple4, Tuple6};

use super::subscriber::at;
use super::{ShardNumber, Steering};

/// Bytes of an ICMP header, behind which an error quotes a packet.
const ICMP_HEADER: u16 = 8;

impl Steering {
    /// The shard that a frame, of which `layers` is the parse, is likely to belong to; `None` if it is no IP packet or
    /// too short to tell: it may stay where it is. What a packet is invalid for is not looked at.
    ///
    /// Of a packet that is tracked it is [`Steering::home`] of its tuple, of an ICMP error that of the tuple which it
    /// quotes, of a fragment [`Steering::home_of_fragments`]. The zone is not known yet: of zones with the scheme
    /// `subscriber` the first one that knows either address counts.
    #[must_use]
    #[inline]
    pub fn home_of_frame(&self, frame: &[u8], layers: &Layers) -> Option<ShardNumber> {
        if self.subscribers.is_empty()
            && let Some(fold) = fold_of_common_frame(frame, layers)
        {
            return Some(at(&self.table, self.hash.hash(fold)));
        }
        self.home_of_any_frame(frame, layers)
    }

    fn home_of_any_frame(&self, frame: &[u8], layers: &Layers) -> Option<ShardNumber> {
        let tuple = addresses(frame, layers)?;
        if layers.fragment != Fragment::No {
            return Some(self.home_of_fragments(tuple.src(), tuple.dst()));
        }
        let l4 = layers.l4_bytes(frame);
        if !tuple.is_icmp() {
            return with_keys(tuple, l4).map(|tuple| self.likely_home(&tuple));
        }
        if is_error(&tuple, *l4.first()?) {
            let quoted = layers.parse_quoted(frame, layers.l4.saturating_add(ICMP_HEADER));
            let inner = with_keys(addresses(frame, &quoted)?, quoted.l4_bytes(frame))?;
            return Some(self.likely_home(&inner));
        }
        with_keys(tuple, l4).map(|tuple| self.likely_home(&tuple))
    }

    fn likely_home(&self, tuple: &Tuple) -> ShardNumber {
        for zone in &self.subscribers {
            if let Some(home) = zone.home(tuple, &self.hash, &self.table) {
                return home;
            }
        }
        self.symmetric_home(tuple)
    }
}

/// What most frames are, without a tuple being made of them: IPv4, whole, with ports. The exclusive or of the 16-bit
/// words of addresses and ports.
#[inline]
fn fold_of_common_frame(frame: &[u8], layers: &Layers) -> Option<u16> {
    let has_ports = matches!(layers.protocol, protocol::TCP | protocol::UDP | protocol::SCTP);
    if !has_ports || !layers.is_ipv4() || layers.fragment != Fragment::No {
        return None;
    }
    let addresses = u64::from_be_bytes(*layers.l3_bytes(frame).get(12..)?.first_chunk()?);
    let ports = u32::from_be_bytes(*layers.l4_bytes(frame).first_chunk()?);
    let words = (addresses >> 32) as u32 ^ addresses as u32 ^ ports;
    Some((words >> 16) as u16 ^ words as u16)
}

fn addresses(frame: &[u8], layers: &Layers) -> Option<Tuple> {
    let packet = layers.l3_bytes(frame);
    if layers.is_ipv4() {
        let &[s0, s1, s2, s3, d0, d1, d2, d3] = packet.get(12..)?.first_chunk::<8>()?;
        return Some(Tuple4::new([s0, s1, s2, s3], [d0, d1, d2, d3], 0, 0, layers.protocol, 0).into());
    }
    if !layers.is_ipv6() {
        return None;
    }
    let (src, dst) = (packet.get(8..)?.first_chunk::<16>()?, packet.get(24..)?.first_chunk::<16>()?);
    Some(Tuple6::new(*src, *dst, 0, 0, layers.protocol, 0).into())
}

/// The tuple with the ports, or the identifier, that the L4 header begins with.
fn with_keys(tuple: Tuple, l4: &[u8]) -> Option<Tuple> {
    let at = match tuple.protocol() {
        protocol::TCP | protocol::UDP | protocol::SCTP => 0,
        _ if tuple.is_icmp() => 4,
        _ => return Some(tuple),
    };
    let &[s0, s1, d0, d1] = l4.get(at..)?.first_chunk::<4>()?;
    let src_port = u16::from_be_bytes([s0, s1]);
    // Behind an identifier comes a sequence number, which is no part of the tuple.
    let dst_port = if at == 0 { u16::from_be_bytes([d0, d1]) } else { 0 };
    Some(match tuple {
        Tuple::V4(tuple) => Tuple::V4(Tuple4 { src_port, dst_port, ..tuple }),
        Tuple::V6(tuple) => Tuple::V6(Tuple6 { src_port, dst_port, ..tuple }),
    })
}

fn is_error(tuple: &Tuple, kind: u8) -> bool {
    match tuple {
        Tuple::V4(_) => weir_wire::numbers::icmp_type::is_error(kind),
        Tuple::V6(_) => weir_wire::numbers::icmpv6_type::is_error(kind),
    }
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
