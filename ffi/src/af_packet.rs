//! What the net_af_packet driver leaves to its user: frames that do not fit its ring are cut without a word, and its
//! sockets also show frames that others *send* on the interface. Known and not mended here: every VLAN tag comes back
//! with protocol 0x8100, because the driver drops the one the kernel tells it; and the driver's sockets form a "fanout"
//! group with kernel reassembly, so that two ports of one process on one interface share its frames instead of each
//! seeing all, and IPv4 fragments arrive as one packet, cut to the frame size.

use std::collections::BTreeSet;
use std::ffi::{c_int, c_void};
use std::io;
use std::mem::size_of_val;
use std::os::fd::RawFd;

use crate::devargs::Devargs;
use crate::interface::Interface;

const DRIVER: &str = "net_af_packet";
/// The driver's frame size where the devargs give none.
const DEFAULT_FRAME: u32 = 2048;
/// Bytes of a received ring frame before the packet: TPACKET2 header, address, alignment and room for a link header,
/// rounded up.
const FRAME_OVERHEAD: u32 = 96;
/// Bytes of a ring frame that the driver leaves out of what a buffer must hold.
const BUFFER_OVERHEAD: u32 = 32;
/// Ethernet header and two VLAN tags.
const LINK_HEADER: u32 = 22;
/// What an outgoing frame's packet type is: PACKET_OUTGOING of linux/if_packet.h.
const OUTGOING: u32 = 4;

/// Why this interface should not be attached with these devargs, if so.
pub(crate) fn objection(devargs: &Devargs) -> Option<String> {
    if !devargs.is(DRIVER) {
        return None;
    }
    // Missing interfaces and malformed numbers are the driver's to complain about.
    let mtu = Interface::named(devargs.value("iface")?).and_then(|interface| interface.mtu()).ok()?;
    let frame = frame_size(devargs)?;
    let needed = mtu.saturating_add(LINK_HEADER).saturating_add(FRAME_OVERHEAD);
    if needed <= frame {
        return None;
    }
    let (size, block) = (needed.next_multiple_of(1024), needed.next_multiple_of(4096));
    Some(format!(
        "its interface has an MTU of {mtu}, and longer frames than {} bytes would be cut; \
         add framesz={size},blocksz={block} (and a pool with that data room) or lower the MTU",
        frame.saturating_sub(FRAME_OVERHEAD)
    ))
}

/// Bytes that each buffer of the port's pools must have room for; 0 for other drivers.
pub(crate) fn least_data_room(devargs: &Devargs) -> u32 {
    if !devargs.is(DRIVER) {
        return 0;
    }
    frame_size(devargs).unwrap_or(DEFAULT_FRAME).saturating_sub(BUFFER_OVERHEAD)
}

/// The ring's frame size; `None` if it is no number.
fn frame_size(devargs: &Devargs) -> Option<u32> {
    devargs.value("framesz").map_or(Some(DEFAULT_FRAME), |size| size.parse().ok())
}

/// The packet sockets that were open before a port was attached.
pub(crate) struct SocketsBefore(BTreeSet<RawFd>);

impl SocketsBefore {
    /// Notes the open sockets, if `devargs` are this driver's.
    pub(crate) fn note(devargs: &Devargs) -> Option<Self> {
        devargs.is(DRIVER).then(|| Self(packet_sockets().into_iter().collect()))
    }

    /// Puts a filter on the sockets opened since that leaves out what the interface sends. Returns how many they are.
    ///
    /// PACKET_IGNORE_OUTGOING would be the simpler way, but has no effect on sockets in a fanout group.
    pub(crate) fn ignore_outgoing_on_new(&self) -> io::Result<usize> {
        let mut program = outgoing_filter();
        let length = u16::try_from(program.len()).map_err(io::Error::other)?;
        let filter = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
        let mut count = 0;
        for socket in packet_sockets().into_iter().filter(|socket| !self.0.contains(socket)) {
            // SAFETY: reads the program, which lives for the call; a descriptor closed meanwhile gives an error.
            let result = unsafe {
                let (value, length) =
                    ((&raw const filter).cast::<c_void>(), size_of_val(&filter) as libc::socklen_t);
                libc::setsockopt(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, value, length)
            };
            if result != 0 {
                return Err(io::Error::last_os_error());
            }
            count += 1;
        }
        Ok(count)
    }
}

/// "Nothing of an outgoing frame, all of any other", for the kernel's classic packet filter.
fn outgoing_filter() -> [libc::sock_filter; 4] {
    // From linux/bpf_common.h and linux/filter.h.
    const LOAD_BYTE: u16 = 0x30;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    // SKF_AD_OFF + SKF_AD_PKTTYPE: the packet's type instead of a byte of it.
    const PACKET_TYPE: u32 = (-0x1000_i32 + 4).cast_unsigned();
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    [
        step(LOAD_BYTE, 0, 0, PACKET_TYPE),
        step(JUMP_IF_EQUAL, 0, 1, OUTGOING),
        step(RETURN, 0, 0, 0),
        step(RETURN, 0, 0, u32::MAX),
    ]
}

/// All packet sockets of this process.
fn packet_sockets() -> Vec<RawFd> {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return Vec::new() };
    let descriptors = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<RawFd>().ok());
    descriptors.filter(|&descriptor| domain(descriptor) == Some(libc::AF_PACKET)).collect()
}

/// The address family of a socket; `None` for what is no socket.
fn domain(descriptor: RawFd) -> Option<c_int> {
    let mut family: c_int = 0;
    let mut length = size_of_val(&family) as libc::socklen_t;
    // SAFETY: writes at most `length` bytes of an int; a descriptor that is no socket gives an error.
    let result = unsafe {
        libc::getsockopt(
            descriptor,
            libc::SOL_SOCKET,
            libc::SO_DOMAIN,
            (&raw mut family).cast::<c_void>(),
            &raw mut length,
        )
    };
    (result == 0).then_some(family)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_whose_frames_would_be_cut_is_objected_to() {
        // Loopback has an MTU of 65536.
        let objection =
            objection(&Devargs::new("net_af_packet0,iface=lo").expect("valid")).expect("too long");
        assert!(objection.contains("framesz=66560,blocksz=69632"), "{objection}");
        let fits = Devargs::new("net_af_packet0,iface=lo,framesz=131072").expect("valid");
        assert!(super::objection(&fits).is_none());
        assert!(super::objection(&Devargs::new("net_null0,iface=lo").expect("valid")).is_none());
    }
}
