//! Rewriting a packet to another tuple: addresses, ports or ICMP identifier, and by RFC 1624 every checksum
//! that covers them. The tracker calls it for each packet of a translated connection; it allocates nothing,
//! looks nothing up, and when it refuses a packet it has changed nothing.

use weir_wire::checksum::{self, Delta};
use weir_wire::numbers::protocol;
use weir_wire::{Fragment, Layers, Tuple, Tuple4, Tuple6};

/// Why a packet cannot be rewritten. It must then be dropped: sending it would show its private address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Untranslatable {
    /// The tuple's family or protocol is not the packet's.
    #[error("the translation is for another address family or protocol than the packet has")]
    Mismatch,
    /// No IP header, or the frame is shorter than the parse says.
    #[error("the frame holds no complete IP header")]
    IpHeader,
    /// The L4 header is cut before its checksum (a tiny first fragment, RFC 1858) or cannot be found.
    #[error("the L4 header ends before its ports and checksum")]
    L4Header,
    /// Ports of a fragmented SCTP packet: its CRC32c covers bytes that are not here.
    #[error("the ports of a fragmented SCTP packet cannot be translated")]
    SctpFragment,
    /// The packet that an ICMP error quotes has less than 8 bytes of L4.
    #[error("the packet that the ICMP error quotes is cut before its ports")]
    Quote,
}

/// Rewrites the packet so that its tuple becomes `to` (whose zone does not matter). Of a later fragment only
/// the addresses are there to be rewritten. A checksum that was right stays right, a wrong one stays wrong; UDP's
/// 0 ("none") stays 0. SCTP's CRC32c is computed anew.
///
/// # Errors
/// See [`Untranslatable`]; the frame is then unchanged.
#[inline]
pub fn translate(frame: &mut [u8], layers: &Layers, to: &Tuple) -> Result<(), Untranslatable> {
    match to {
        Tuple::V4(to) => translate_v4(frame, layers, to),
        Tuple::V6(to) => translate_v6(frame, layers, to),
    }
}

/// [`translate`] for IPv4.
///
/// # Errors
/// See [`translate`].
#[inline(always)]
pub fn translate_v4(frame: &mut [u8], layers: &Layers, to: &Tuple4) -> Result<(), Untranslatable> {
    if !layers.is_ipv4() || layers.protocol != to.protocol {
        return Err(Untranslatable::Mismatch);
    }
    let (ip, l4) = split(frame, layers)?;
    let ip = ip.first_chunk_mut::<20>().ok_or(Untranslatable::IpHeader)?;
    let mut addresses = Delta::NONE;
    addresses.change4([ip[12], ip[13], ip[14], ip[15]], to.src);
    addresses.change4([ip[16], ip[17], ip[18], ip[19]], to.dst);
    if layers.fragment != Fragment::Later {
        // ICMP over IPv4 has no pseudo header (RFC 792).
        let covered = if to.is_icmp() { Delta::NONE } else { addresses };
        let ports = Ports { src: to.src_port.to_be_bytes(), dst: to.dst_port.to_be_bytes() };
        rewrite_l4(l4, layers, to.is_icmp(), ports, covered)?;
    }
    write_v4(ip, to.src, to.dst, addresses);
    Ok(())
}

/// [`translate`] for IPv6.
///
/// # Errors
/// See [`translate`].
#[inline]
pub fn translate_v6(frame: &mut [u8], layers: &Layers, to: &Tuple6) -> Result<(), Untranslatable> {
    let later = layers.fragment == Fragment::Later;
    if !layers.is_ipv6() || (layers.protocol != to.protocol && !later) {
        return Err(Untranslatable::Mismatch);
    }
    let (ip, l4) = split(frame, layers)?;
    let ip = ip.first_chunk_mut::<40>().ok_or(Untranslatable::IpHeader)?;
    let addresses = delta_v6(ip, to);
    if !later {
        let ports = Ports { src: to.src_port.to_be_bytes(), dst: to.dst_port.to_be_bytes() };
        rewrite_l4(l4, layers, to.is_icmp(), ports, addresses)?;
    }
    write_v6(ip, to.src, to.dst);
    Ok(())
}

/// Ports as header bytes; for ICMP `src` is the identifier and `dst` unused.
#[derive(Clone, Copy)]
struct Ports {
    src: [u8; 2],
    dst: [u8; 2],
}

/// The IP header (extension headers included) and what follows it. Without L4 everything is header.
#[inline(always)]
fn split<'f>(frame: &'f mut [u8], layers: &Layers) -> Result<(&'f mut [u8], &'f mut [u8]), Untranslatable> {
    let packet = layers.l3_bytes_mut(frame);
    match (layers.l4.checked_sub(layers.l3), layers.fragment) {
        (Some(header_len), _) => {
            packet.split_at_mut_checked(usize::from(header_len)).ok_or(Untranslatable::IpHeader)
        }
        (None, Fragment::Later) => Ok((packet, &mut [])),
        (None, _) => Err(Untranslatable::L4Header),
    }
}

/// Ports or identifier, and the L4 checksum; `covered` is what changed in the pseudo header.
#[inline(always)]
fn rewrite_l4(
    l4: &mut [u8],
    layers: &Layers,
    icmp: bool,
    ports: Ports,
    covered: Delta,
) -> Result<(), Untranslatable> {
    let mut delta = covered;
    match layers.protocol {
        protocol::TCP => {
            let tcp = l4.first_chunk_mut::<18>().ok_or(Untranslatable::L4Header)?;
            delta.change4([tcp[0], tcp[1], tcp[2], tcp[3]], ports.joined());
            [tcp[0], tcp[1], tcp[2], tcp[3]] = ports.joined();
            [tcp[16], tcp[17]] = delta.apply([tcp[16], tcp[17]]);
        }
        protocol::UDP => {
            let udp = l4.first_chunk_mut::<8>().ok_or(Untranslatable::L4Header)?;
            delta.change4([udp[0], udp[1], udp[2], udp[3]], ports.joined());
            [udp[0], udp[1], udp[2], udp[3]] = ports.joined();
            if [udp[6], udp[7]] != [0, 0] {
                [udp[6], udp[7]] = delta.apply_udp([udp[6], udp[7]]);
            }
        }
        protocol::SCTP => return rewrite_sctp(l4, layers.fragment, ports),
        _ if icmp => {
            let message = l4.first_chunk_mut::<8>().ok_or(Untranslatable::L4Header)?;
            delta.change2([message[4], message[5]], ports.src);
            [message[4], message[5]] = ports.src;
            [message[2], message[3]] = delta.apply([message[2], message[3]]);
        }
        // Every other protocol is translated by its addresses; what its payload covers is its own affair.
        _ => {}
    }
    Ok(())
}

impl Ports {
    #[inline]
    const fn joined(self) -> [u8; 4] {
        [self.src[0], self.src[1], self.dst[0], self.dst[1]]
    }
}

/// SCTP has no pseudo header: without a change of ports its checksum holds, else it is computed over the whole
/// packet (RFC 9260 section 6.8).
#[cold]
fn rewrite_sctp(l4: &mut [u8], fragment: Fragment, ports: Ports) -> Result<(), Untranslatable> {
    let Some([s0, s1, d0, d1, ..]) = l4.first_chunk_mut::<12>() else { return Err(Untranslatable::L4Header) };
    if [*s0, *s1, *d0, *d1] == ports.joined() {
        return Ok(());
    }
    if fragment != Fragment::No {
        return Err(Untranslatable::SctpFragment);
    }
    [*s0, *s1, *d0, *d1] = ports.joined();
    let crc = checksum::sctp(l4);
    if let Some([.., c0, c1, c2, c3]) = l4.first_chunk_mut::<12>() {
        [*c0, *c1, *c2, *c3] = crc;
    }
    Ok(())
}

/// Rewrites an ICMP error that belongs to a translated connection, outside and inside.
///
/// `to` is the tuple that a packet of the connection travelling in the error's own direction is given; the
/// quoted packet travelled the other way and gets its reverse. The outer destination becomes that of `to`. The
/// outer source, which may be a router's, becomes that of `to` if the translation changes that end at all: a
/// router behind the translation must not be seen either (RFC 5508 section 4.2). Of the quoted packet the
/// addresses, ports or identifier, the IPv4 header checksum and, where it was quoted, the L4 checksum are
/// rewritten, SCTP's too, although most of what it covers is not there. The outer checksums are updated.
///
/// # Errors
/// See [`Untranslatable`]; the frame is then unchanged.
pub fn translate_icmp_error(
    frame: &mut [u8],
    layers: &Layers,
    inner_layers: &Layers,
    to: &Tuple,
) -> Result<(), Untranslatable> {
    match (to, to.reversed()) {
        (Tuple::V4(to), Tuple::V4(quoted)) => icmp_error_v4(frame, layers, inner_layers, to, &quoted),
        (Tuple::V6(to), Tuple::V6(quoted)) => icmp_error_v6(frame, layers, inner_layers, to, &quoted),
        _ => Err(Untranslatable::Mismatch),
    }
}

fn icmp_error_v4(
    frame: &mut [u8],
    layers: &Layers,
    inner_layers: &Layers,
    to: &Tuple4,
    quoted: &Tuple4,
) -> Result<(), Untranslatable> {
    if !layers.is_ipv4() || !inner_layers.is_ipv4() || inner_layers.protocol != quoted.protocol {
        return Err(Untranslatable::Mismatch);
    }
    let (ip, message, inner_packet) = split_error(frame, layers, inner_layers)?;
    let ip = ip.first_chunk_mut::<20>().ok_or(Untranslatable::IpHeader)?;
    let (inner_ip, inner_l4) = split_quote(inner_packet, inner_layers)?;
    let inner_header_len = inner_layers.l4.saturating_sub(inner_layers.l3);
    let inner_ip = inner_ip.first_chunk_mut::<20>().ok_or(Untranslatable::Quote)?;

    let inner_dst = [inner_ip[16], inner_ip[17], inner_ip[18], inner_ip[19]];
    let mut inner = Delta::NONE;
    inner.change4([inner_ip[12], inner_ip[13], inner_ip[14], inner_ip[15]], quoted.src);
    inner.change4(inner_dst, quoted.dst);
    let mut covered = inner;
    let ports = Ports { src: quoted.src_port.to_be_bytes(), dst: quoted.dst_port.to_be_bytes() };
    let pseudo = if quoted.is_icmp() { Delta::NONE } else { inner };
    let whole_len = u16::from_be_bytes([inner_ip[2], inner_ip[3]]).saturating_sub(inner_header_len);
    let kind = Quoted { protocol: quoted.protocol, icmp: quoted.is_icmp(), whole_len };
    covered.merge(rewrite_quoted_l4(inner_l4, kind, ports, pseudo)?);
    let old_checksum = [inner_ip[10], inner_ip[11]];
    write_v4(inner_ip, quoted.src, quoted.dst, inner);
    covered.change2(old_checksum, [inner_ip[10], inner_ip[11]]);
    [message[2], message[3]] = covered.apply([message[2], message[3]]);

    let old_src = [ip[12], ip[13], ip[14], ip[15]];
    let src = if inner_dst == to.src { old_src } else { to.src };
    let mut outer = Delta::NONE;
    outer.change4(old_src, src);
    outer.change4([ip[16], ip[17], ip[18], ip[19]], to.dst);
    write_v4(ip, src, to.dst, outer);
    Ok(())
}

fn icmp_error_v6(
    frame: &mut [u8],
    layers: &Layers,
    inner_layers: &Layers,
    to: &Tuple6,
    quoted: &Tuple6,
) -> Result<(), Untranslatable> {
    if !layers.is_ipv6() || !inner_layers.is_ipv6() || inner_layers.protocol != quoted.protocol {
        return Err(Untranslatable::Mismatch);
    }
    let (ip, message, inner_packet) = split_error(frame, layers, inner_layers)?;
    let ip = ip.first_chunk_mut::<40>().ok_or(Untranslatable::IpHeader)?;
    let (inner_ip, inner_l4) = split_quote(inner_packet, inner_layers)?;
    let inner_header_len = inner_layers.l4.saturating_sub(inner_layers.l3);
    let inner_ip = inner_ip.first_chunk_mut::<40>().ok_or(Untranslatable::Quote)?;

    let inner = delta_v6(inner_ip, quoted);
    let end_kept = inner_ip.get(24..40) == Some(&to.src);
    let mut covered = inner;
    let ports = Ports { src: quoted.src_port.to_be_bytes(), dst: quoted.dst_port.to_be_bytes() };
    let whole_len = u16::from_be_bytes([inner_ip[4], inner_ip[5]]).saturating_add(40);
    let whole_len = whole_len.saturating_sub(inner_header_len);
    let kind = Quoted { protocol: quoted.protocol, icmp: quoted.is_icmp(), whole_len };
    covered.merge(rewrite_quoted_l4(inner_l4, kind, ports, inner)?);
    write_v6(inner_ip, quoted.src, quoted.dst);

    let src = match ip.get(8..).and_then(|address| address.first_chunk::<16>()) {
        Some(old_src) if end_kept => *old_src,
        _ => to.src,
    };
    covered.merge(delta_v6(ip, &Tuple6 { src, dst: to.dst, ..*to }));
    write_v6(ip, src, to.dst);
    [message[2], message[3]] = covered.apply([message[2], message[3]]);
    Ok(())
}

/// Outer IP header, 8 bytes of ICMP header, quoted packet.
type ErrorParts<'f> = (&'f mut [u8], &'f mut [u8; 8], &'f mut [u8]);

/// Cuts the frame of an ICMP error in its parts. The quoted packet must follow the ICMP header directly.
fn split_error<'f>(
    frame: &'f mut [u8],
    layers: &Layers,
    inner_layers: &Layers,
) -> Result<ErrorParts<'f>, Untranslatable> {
    if layers.l4 == 0 || layers.fragment != Fragment::No {
        return Err(Untranslatable::L4Header);
    }
    if layers.l4.checked_add(8) != Some(inner_layers.l3) || inner_layers.l3_end > layers.l3_end {
        return Err(Untranslatable::Quote);
    }
    let (ip, l4) = split(frame, layers)?;
    let (message, rest) = l4.split_first_chunk_mut::<8>().ok_or(Untranslatable::L4Header)?;
    let inner_len = usize::from(inner_layers.l3_end.saturating_sub(inner_layers.l3));
    let inner_packet = rest.get_mut(..inner_len).ok_or(Untranslatable::Quote)?;
    Ok((ip, message, inner_packet))
}

/// IP header and L4 of the quoted packet.
fn split_quote<'f>(
    packet: &'f mut [u8],
    layers: &Layers,
) -> Result<(&'f mut [u8], &'f mut [u8]), Untranslatable> {
    let header_len = layers.l4.checked_sub(layers.l3).ok_or(Untranslatable::Quote)?;
    packet.split_at_mut_checked(usize::from(header_len)).ok_or(Untranslatable::Quote)
}

/// What is known of a quoted packet.
#[derive(Clone, Copy)]
struct Quoted {
    protocol: u8,
    icmp: bool,
    /// Bytes of L4 that it had before it was cut, by its IP header.
    whole_len: u16,
}

/// Rewrites what was quoted of L4 and tells what changed in it, its checksum included.
fn rewrite_quoted_l4(
    l4: &mut [u8],
    Quoted { protocol, icmp, whole_len }: Quoted,
    ports: Ports,
    pseudo: Delta,
) -> Result<Delta, Untranslatable> {
    let mut changed = Delta::NONE;
    let Some((head, rest)) = l4.split_first_chunk_mut::<8>() else { return Err(Untranslatable::Quote) };
    let old_ports = [head[0], head[1], head[2], head[3]];
    if icmp {
        changed.change2([head[4], head[5]], ports.src);
        [head[4], head[5]] = ports.src;
    } else if matches!(protocol, protocol::TCP | protocol::UDP | protocol::SCTP) {
        changed.change4(old_ports, ports.joined());
        [head[0], head[1], head[2], head[3]] = ports.joined();
    }
    let mut covered = pseudo;
    covered.merge(changed);
    match (protocol, rest) {
        (protocol::TCP, [_, _, _, _, _, _, _, _, c0, c1, ..]) => {
            let old = [*c0, *c1];
            [*c0, *c1] = covered.apply(old);
            changed.change2(old, [*c0, *c1]);
        }
        (protocol::SCTP, [c0, c1, c2, c3, ..]) if old_ports != ports.joined() => {
            let old = [*c0, *c1, *c2, *c3];
            [*c0, *c1, *c2, *c3] = checksum::sctp_change(old, old_ports, ports.joined(), whole_len);
            changed.change4(old, [*c0, *c1, *c2, *c3]);
        }
        (protocol::UDP, _) if [head[6], head[7]] != [0, 0] => {
            let old = [head[6], head[7]];
            [head[6], head[7]] = covered.apply_udp(old);
            changed.change2(old, [head[6], head[7]]);
        }
        _ if icmp => {
            let old = [head[2], head[3]];
            [head[2], head[3]] = covered.apply(old);
            changed.change2(old, [head[2], head[3]]);
        }
        _ => {}
    }
    Ok(changed)
}

/// Writes addresses and updates the header checksum.
#[inline]
const fn write_v4(ip: &mut [u8; 20], src: [u8; 4], dst: [u8; 4], changed: Delta) {
    [ip[10], ip[11]] = changed.apply([ip[10], ip[11]]);
    [ip[12], ip[13], ip[14], ip[15]] = src;
    [ip[16], ip[17], ip[18], ip[19]] = dst;
}

#[inline]
fn write_v6(ip: &mut [u8; 40], src: [u8; 16], dst: [u8; 16]) {
    let (_, addresses) = ip.split_at_mut(8);
    let (old_src, old_dst) = addresses.split_at_mut(16);
    old_src.copy_from_slice(&src);
    old_dst.copy_from_slice(&dst);
}

/// What changes when the header gets the addresses of `to`.
#[inline]
fn delta_v6(ip: &[u8; 40], to: &Tuple6) -> Delta {
    let mut delta = Delta::NONE;
    let (_, addresses) = ip.split_at(8);
    if let (Some(src), Some(dst)) = (addresses.first_chunk::<16>(), addresses.last_chunk::<16>()) {
        delta.change16(src, &to.src);
        delta.change16(dst, &to.dst);
    }
    delta
}

#[cfg(test)]
#[path = "rewrite_tests.rs"]
mod tests;
