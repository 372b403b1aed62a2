//! DPDK's description of a device, "NAME,KEY=VALUE,...": checked before DPDK sees it, and read where the wrapper needs
//! to know what is behind it.

use std::ffi::CString;

use crate::port::PortError;

/// The PCI address that devargs begin with, if they describe a PCI device.
pub fn pci_address(devargs: &str) -> Option<String> {
    let devargs = Devargs::new(devargs).ok()?;
    devargs.is_pci().then(|| devargs.name().to_owned())
}

/// The kernel interface that devargs lay claim to, if they do.
pub fn interface(devargs: &str) -> Option<String> {
    let devargs = Devargs::new(devargs).ok()?;
    let mut keys = ["iface", "rx_iface", "rx_iface_in", "tx_iface"].into_iter();
    keys.find_map(|key| devargs.value(key)).map(str::to_owned)
}

/// Longer ones are nobody's device.
const LONGEST: usize = 1024;
/// DPDK's RTE_DEV_NAME_MAX_LEN, its NUL included.
const LONGEST_NAME: usize = 64;

/// A device description that can be handed to DPDK.
#[derive(Debug)]
pub(crate) struct Devargs {
    pub(crate) text: String,
    pub(crate) c_text: CString,
}

impl Devargs {
    pub(crate) fn new(text: &str) -> Result<Self, PortError> {
        let bad = |problem: &'static str| PortError::Devargs {
            devargs: text.escape_default().to_string(),
            problem,
        };
        let name = text.split(',').next().unwrap_or_default();
        if name.is_empty() {
            return Err(bad(
                "a device description starts with a device: net_af_packet0,iface=eth0 or 0000:01:00.0",
            ));
        }
        if text.len() > LONGEST || name.len() >= LONGEST_NAME {
            return Err(bad("it is too long: at most 1024 bytes, the device's name at most 63"));
        }
        if text.chars().any(|c| c.is_control() || c == ' ') {
            return Err(bad("it contains blanks or control characters"));
        }
        let c_text = CString::new(text).map_err(|_| bad("it contains a NUL byte"))?;
        Ok(Self { text: text.to_owned(), c_text })
    }

    /// The device's name, as in "net_null0" or "0000:01:00.0".
    pub(crate) fn name(&self) -> &str {
        let name = self.text.split(',').next().unwrap_or_default();
        // Also as "vdev:net_null0" or "pci:0000:01:00.0".
        name.strip_prefix("vdev:").or_else(|| name.strip_prefix("pci:")).unwrap_or(name)
    }

    /// Whether this is a virtual device of `driver`: its name without the number. ("eth_" is the drivers' old prefix.)
    pub(crate) fn is(&self, driver: &str) -> bool {
        let name = self.name().trim_end_matches(|c: char| c.is_ascii_digit());
        name == driver || (name.starts_with("eth_") && name.get(4..) == driver.get(4..))
    }

    /// Whether this looks like a PCI address.
    pub(crate) fn is_pci(&self) -> bool {
        let name = self.name();
        name.contains(':')
            && name.contains('.')
            && name.chars().all(|c| c.is_ascii_hexdigit() || ":.".contains(c))
    }

    /// The value of the first `key`.
    pub(crate) fn value(&self, key: &str) -> Option<&str> {
        self.text.split(',').skip(1).find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_is_taken_apart() {
        let devargs = Devargs::new("net_af_packet12,iface=veth0,framesz=4096").expect("valid");
        assert!(devargs.is("net_af_packet") && !devargs.is("net_af_xdp") && !devargs.is_pci());
        assert_eq!(devargs.name(), "net_af_packet12");
        assert_eq!((devargs.value("iface"), devargs.value("framesz")), (Some("veth0"), Some("4096")));
        assert_eq!(devargs.value("frame"), None);
        assert!(Devargs::new("eth_af_packet0,iface=x").expect("valid").is("net_af_packet"));
        assert!(Devargs::new("0000:01:00.0").expect("valid").is_pci());
        assert_eq!(Devargs::new("pci:0000:01:00.0").expect("valid").name(), "0000:01:00.0");
    }

    #[test]
    fn the_hardware_behind_a_description_is_named() {
        assert_eq!(pci_address("0000:01:00.0,dv_flow_en=1").as_deref(), Some("0000:01:00.0"));
        assert_eq!(pci_address("net_null0"), None);
        assert_eq!(interface("net_af_packet0,iface=veth0").as_deref(), Some("veth0"));
        assert_eq!(interface("net_pcap0,rx_pcap=a,tx_iface=veth1").as_deref(), Some("veth1"));
        assert_eq!(interface("0000:01:00.0"), None);
    }

    #[test]
    fn what_dpdk_should_not_see_is_refused() {
        for text in
            ["", ",iface=x", "net_null0,\0", "net_null0\n", "net null", &"x".repeat(64), &"x,".repeat(1000)]
        {
            assert!(matches!(Devargs::new(text), Err(PortError::Devargs { .. })), "{text:?}");
        }
    }
}
