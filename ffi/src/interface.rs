//! Questions to the kernel about a network interface of the calling thread's network namespace, by ioctl.

use std::ffi::{CString, c_char, c_ulong};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// A socket to ask on.
pub(crate) struct Interface {
    name: CString,
    socket: OwnedFd,
}

/// Whether the kernel could have an interface of this name.
pub(crate) fn is_valid_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() < libc::IFNAMSIZ
        && name != "."
        && name != ".."
        && !name.chars().any(|c| c == '/' || c == ':' || c.is_whitespace() || c.is_control())
}

impl Interface {
    /// Prepares questions about `name`; whether it exists is the first answer's matter.
    pub(crate) fn named(name: &str) -> io::Result<Self> {
        if !is_valid_name(name) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "this is no name of an interface"));
        }
        let name = CString::new(name)?;
        // SAFETY: opens a descriptor, touches no memory.
        let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
        if socket < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and ours.
        Ok(Self { name, socket: unsafe { OwnedFd::from_raw_fd(socket) } })
    }

    /// Its number.
    pub(crate) fn index(&self) -> io::Result<u32> {
        // SAFETY: reads a NUL-terminated name.
        let index = unsafe { libc::if_nametoindex(self.name.as_ptr()) };
        if index == 0 { Err(io::Error::last_os_error()) } else { Ok(index) }
    }

    /// Its MTU in bytes.
    pub(crate) fn mtu(&self) -> io::Result<u32> {
        let mut request = self.request();
        self.ioctl(libc::SIOCGIFMTU, &mut request)?;
        // SAFETY: SIOCGIFMTU fills this member.
        let mtu = unsafe { request.ifr_ifru.ifru_mtu };
        u32::try_from(mtu).map_err(|_| io::Error::other("the kernel gave a negative MTU"))
    }

    /// Carries out the ethtool command `command` with `value`; returns the value it leaves.
    pub(crate) fn ethtool(&self, command: u32, value: u32) -> io::Result<u32> {
        /// `struct ethtool_value`.
        #[repr(C)]
        struct Value {
            command: u32,
            value: u32,
        }
        const SIOCETHTOOL: c_ulong = 0x8946;
        let mut data = Value { command, value };
        let mut request = self.request();
        request.ifr_ifru.ifru_data = (&raw mut data).cast::<c_char>();
        self.ioctl(SIOCETHTOOL, &mut request)?;
        Ok(data.value)
    }

    fn request(&self) -> libc::ifreq {
        // SAFETY: all-zero bytes are a valid request.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(self.name.to_bytes()) {
            *to = c_char::from_ne_bytes([*from]);
        }
        request
    }

    fn ioctl(&self, code: c_ulong, request: &mut libc::ifreq) -> io::Result<()> {
        // SAFETY: all codes used here take an ifreq; what its data pointer shows lives in the caller.
        let result = unsafe { libc::ioctl(self.socket.as_raw_fd(), code, &raw mut *request) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_answers() {
        let lo = Interface::named("lo").expect("valid name");
        assert!(lo.index().expect("exists") > 0);
        assert!(lo.mtu().expect("has one") >= 1500);
    }

    #[test]
    fn names_the_kernel_would_refuse_are_refused() {
        for name in ["", "sixteen-letters-", "a/b", "a b", "..", "a:0", "a\n"] {
            assert!(Interface::named(name).is_err(), "{name:?}");
        }
    }
}
