//! What the net_af_packet driver leaves to its user: frames that do not fit its ring are cut without a word, and its
//! sockets also show frames that others *send* on the interface. Known and not mended here: every VLAN tag comes back
//! with protocol 0x8100, because the driver drops the one the kernel tells it.

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
/// Bytes of a ring frame before the packet: TPACKET2 header, link-layer address, alignment and room for a header (rounded up).
const FRAME_OVERHEAD: u32 = 96;
/// Ethernet header and two VLAN tags.
const LINK_HEADER: u32 = 22;
/// From linux/if_packet.h; Linux 4.20 and later.
const PACKET_IGNORE_OUTGOING: c_int = 23;

/// Why this interface should not be attached with these devargs, if so.
pub(crate) fn objection(devargs: &Devargs) -> Option<String> {
    if !devargs.is(DRIVER) {
        return None;
    }
    // Missing interfaces and malformed numbers are the driver's to complain about.
    let mtu = Interface::named(devargs.value("iface")?).and_then(|interface| interface.mtu()).ok()?;
    let frame = devargs.value("framesz").map_or(Ok(DEFAULT_FRAME), str::parse).ok()?;
    let needed = mtu.saturating_add(LINK_HEADER).saturating_add(FRAME_OVERHEAD);
    if needed <= frame {
        return None;
    }
    let size = needed.checked_next_power_of_two().unwrap_or(65536).max(4096);
    Some(format!(
        "its interface has an MTU of {mtu}, and longer frames than {} bytes would be cut; \
         add framesz={size},blocksz={size} or lower the MTU",
        frame.saturating_sub(FRAME_OVERHEAD)
    ))
}

/// The packet sockets that were open before a port was attached.
pub(crate) struct SocketsBefore(BTreeSet<RawFd>);

impl SocketsBefore {
    /// Notes the open sockets, if `devargs` are this driver's.
    pub(crate) fn note(devargs: &Devargs) -> Option<Self> {
        devargs.is(DRIVER).then(|| Self(packet_sockets().into_iter().collect()))
    }

    /// Tells the sockets opened since to leave out what the interface sends. Returns how many they are.
    pub(crate) fn ignore_outgoing_on_new(&self) -> io::Result<usize> {
        let mut count = 0;
        for socket in packet_sockets().into_iter().filter(|socket| !self.0.contains(socket)) {
            let on: c_int = 1;
            // SAFETY: reads an int; a descriptor closed meanwhile gives an error.
            let result = unsafe {
                let (value, length) = ((&raw const on).cast::<c_void>(), size_of_val(&on) as libc::socklen_t);
                libc::setsockopt(socket, libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, value, length)
            };
            if result != 0 {
                return Err(io::Error::last_os_error());
            }
            count += 1;
        }
        Ok(count)
    }
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
        assert!(objection.contains("framesz=131072"), "{objection}");
        let fits = Devargs::new("net_af_packet0,iface=lo,framesz=131072").expect("valid");
        assert!(super::objection(&fits).is_none());
        assert!(super::objection(&Devargs::new("net_null0,iface=lo").expect("valid")).is_none());
    }
}
