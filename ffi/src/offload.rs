//! Transmit offloads of ordinary network interfaces, as `ethtool -K DEV tx off sg off gso off tso off`.
//!
//! A veth device leaves checksums and segmentation to its peer. A peer that DPDK reads from passes nothing on to hardware,
//! so the frames would arrive oversized and with unfinished checksums: the offloads of the *other* end have to go.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use crate::interface::Interface;

/// ethtool's numbers: get and set of scatter-gather, TCP segmentation, generic segmentation, transmit checksums. In the
/// order in which the kernel lets them go: segmentation needs scatter-gather and checksums.
const FEATURES: &[(&str, u32, u32)] = &[
    ("tcp-segmentation-offload", 0x1e, 0x1f),
    ("generic-segmentation-offload", 0x23, 0x24),
    ("scatter-gather", 0x18, 0x19),
    ("tx-checksumming", 0x16, 0x17),
];

/// Why offloads could not be turned off.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OffloadError {
    /// The namespace cannot be entered.
    #[error(
        "network namespace {namespace:?}: {source}; `ip netns list` shows those there are, entering one needs root"
    )]
    Namespace {
        /// As it was given.
        namespace: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// There is no such interface.
    #[error("interface {device:?}{place}: {source}; `ip link` shows those there are")]
    Interface {
        /// As it was given.
        device: String,
        /// " in network namespace X", or nothing.
        place: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The feature stays on.
    #[error(
        "{feature} of interface {device:?}{place} cannot be turned off: {source}; it needs CAP_NET_ADMIN (root)"
    )]
    Feature {
        /// ethtool's name of it.
        feature: &'static str,
        /// The interface.
        device: String,
        /// " in network namespace X", or nothing.
        place: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Turns the transmit offloads of interface `device` off, in network namespace `netns` (a name under /run/netns or a path),
/// or in the calling thread's where that is `None`.
///
/// # Errors
/// [`OffloadError`]; what had been turned off before the error stays off.
pub fn disable_tx(device: &str, netns: Option<&str>) -> Result<(), OffloadError> {
    let Some(namespace) = netns else { return disable_tx_here(device, "") };
    let failed = |source: io::Error| OffloadError::Namespace { namespace: namespace.to_owned(), source };
    let file = File::open(namespace_path(namespace).map_err(failed)?).map_err(failed)?;
    let place = format!(" in network namespace {namespace}");
    // A thread of its own, because a namespace once entered is a thread's for good.
    std::thread::scope(|scope| {
        let work = || {
            // SAFETY: changes the namespace of this thread alone, which ends right after.
            if unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) } != 0 {
                return Err(failed(io::Error::last_os_error()));
            }
            disable_tx_here(device, &place)
        };
        let thread =
            std::thread::Builder::new().name("offload".into()).spawn_scoped(scope, work).map_err(failed)?;
        thread.join().unwrap_or_else(|_| Err(failed(io::Error::other("the thread that entered it panicked"))))
    })
}

fn namespace_path(namespace: &str) -> io::Result<PathBuf> {
    if namespace.starts_with('/') {
        return Ok(PathBuf::from(namespace));
    }
    if namespace.is_empty() || namespace.contains('/') || namespace == ".." || namespace == "." {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "this is no name of a namespace"));
    }
    Ok(Path::new("/run/netns").join(namespace))
}

fn disable_tx_here(device: &str, place: &str) -> Result<(), OffloadError> {
    let missing =
        |source| OffloadError::Interface { device: device.to_owned(), place: place.to_owned(), source };
    let interface = Interface::named(device).map_err(missing)?;
    interface.index().map_err(missing)?;
    for &(feature, read, write) in FEATURES {
        let failed = |source| OffloadError::Feature {
            feature,
            device: device.to_owned(),
            place: place.to_owned(),
            source,
        };
        match interface.ethtool(read, 0) {
            Ok(0) => continue,
            // No such feature: nothing to turn off.
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => continue,
            Ok(_) => {}
            Err(error) => return Err(failed(error)),
        }
        interface.ethtool(write, 0).map_err(failed)?;
        // Some drivers accept and ignore.
        if interface.ethtool(read, 0).map_err(failed)? != 0 {
            return Err(failed(io::Error::other("the driver keeps it on")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_interface_or_namespace_is_named_in_the_error() {
        let error = disable_tx("no-such-dev0", None).expect_err("missing").to_string();
        assert!(error.contains("no-such-dev0") && error.contains("ip link"), "{error}");
        let error = disable_tx("lo", Some("no-such-namespace")).expect_err("missing").to_string();
        assert!(error.contains("no-such-namespace") && error.contains("ip netns"), "{error}");
        assert!(disable_tx("lo", Some("../../etc")).is_err());
    }
}
