//! Runs of addresses, as an operator writes them: `192.0.2.0/24`, `192.0.2.8-192.0.2.15` or `2001:db8::1`. Steering's
//! configuration is made of them; they can hold neither two families nor an end before the beginning.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::str::FromStr;

use thiserror::Error;

/// Addresses of one family, from a first to a last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AddressSpan {
    first: IpAddr,
    last: IpAddr,
}

/// Why something is no span of addresses.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SpanError {
    /// Not an address.
    #[error("{0:?} is no address; expected for example 192.0.2.0/24, 192.0.2.8-192.0.2.15 or 2001:db8::1")]
    Address(String),
    /// The length of a prefix is no number, or more than the address has bits.
    #[error("the prefix length of {address} is 0 to {most}")]
    Length {
        /// The address.
        address: IpAddr,
        /// Bits of its family.
        most: u8,
    },
    /// Bits of a prefix behind its length.
    #[error("{address}/{len} has bits behind its length; did you mean {network}/{len}?")]
    HostBits {
        /// The address.
        address: IpAddr,
        /// The length.
        len: u8,
        /// The address without them.
        network: IpAddr,
    },
    /// The end comes before the beginning, or is of another family.
    #[error("{last} does not come after {first}")]
    Order {
        /// The beginning.
        first: IpAddr,
        /// The end.
        last: IpAddr,
    },
}

impl AddressSpan {
    /// All addresses from `first` to `last`.
    ///
    /// # Errors
    /// They are of different families, or `last` is the smaller one.
    pub fn range(first: IpAddr, last: IpAddr) -> Result<Self, SpanError> {
        if first.is_ipv4() != last.is_ipv4() || first > last {
            return Err(SpanError::Order { first, last });
        }
        Ok(Self { first, last })
    }

    /// All addresses that begin with the first `len` bits of `address`.
    ///
    /// # Errors
    /// `len` is more than there are bits, or `address` has others behind it.
    pub fn prefix(address: IpAddr, len: u8) -> Result<Self, SpanError> {
        let most = if address.is_ipv4() { 32 } else { 128 };
        if len > most {
            return Err(SpanError::Length { address, most });
        }
        let rest = u128::MAX.checked_shr(u32::from(len) + 128 - u32::from(most)).unwrap_or(0);
        let network = address_of(address.is_ipv4(), bits_of(address) & !rest);
        if network != address {
            return Err(SpanError::HostBits { address, len, network });
        }
        Ok(Self { first: address, last: address_of(address.is_ipv4(), bits_of(address) | rest) })
    }

    /// The first address.
    #[must_use]
    pub const fn first(&self) -> IpAddr {
        self.first
    }

    /// The last address.
    #[must_use]
    pub const fn last(&self) -> IpAddr {
        self.last
    }

    /// Both ends as numbers, IPv4's in the low 32 bits.
    pub(super) fn bits(&self) -> (u128, u128) {
        (bits_of(self.first), bits_of(self.last))
    }
}

/// The address as a number, IPv4's in the low 32 bits.
pub(super) const fn bits_of(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits() as u128,
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The address of a number.
pub(super) const fn address_of(is_ipv4: bool, bits: u128) -> IpAddr {
    if is_ipv4 { IpAddr::V4(Ipv4Addr::from_bits(bits as u32)) } else { IpAddr::V6(Ipv6Addr::from_bits(bits)) }
}

impl FromStr for AddressSpan {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        let address =
            |text: &str| text.trim().parse::<IpAddr>().map_err(|_| SpanError::Address(text.to_owned()));
        if let Some((first, last)) = text.split_once('-') {
            return Self::range(address(first)?, address(last)?);
        }
        let Some((network, len)) = text.split_once('/') else {
            return address(text).and_then(|address| Self::range(address, address));
        };
        let network = address(network)?;
        // A length that is no number is none that there is.
        Self::prefix(network, len.trim().parse().unwrap_or(u8::MAX))
    }
}

impl fmt::Display for AddressSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = self.bits();
        let free = (first ^ last).checked_ilog2().map_or(0, |bit| bit + 1);
        let rest = u128::MAX.checked_shr(128 - free).unwrap_or(0);
        if first == last {
            write!(f, "{}", self.first)
        } else if first & rest == 0 && last & rest == rest {
            write!(f, "{}/{}", self.first, if self.first.is_ipv4() { 32 } else { 128 } - free)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_ranges_and_single_addresses_are_read_and_written_alike() {
        for (text, first, last) in [
            ("192.0.2.0/24", "192.0.2.0", "192.0.2.255"),
            ("0.0.0.0/0", "0.0.0.0", "255.255.255.255"),
            ("::/0", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
            ("2001:db8::/127", "2001:db8::", "2001:db8::1"),
            ("192.0.2.8-192.0.2.10", "192.0.2.8", "192.0.2.10"),
            ("2001:db8::1", "2001:db8::1", "2001:db8::1"),
        ] {
            let span: AddressSpan = text.parse().unwrap();
            assert_eq!((span.first().to_string().as_str(), span.last().to_string().as_str()), (first, last));
            assert_eq!(span.to_string(), text);
        }
        assert_eq!("192.0.2.7/32".parse::<AddressSpan>().unwrap().to_string(), "192.0.2.7");
    }

    #[test]
    fn what_is_no_span_is_told_why() {
        for (text, error) in [
            ("192.0.2", "\"192.0.2\" is no address"),
            ("192.0.2.0/33", "the prefix length of 192.0.2.0 is 0 to 32"),
            ("::/x", "the prefix length of :: is 0 to 128"),
            ("192.0.2.1/24", "did you mean 192.0.2.0/24?"),
            ("192.0.2.2-192.0.2.1", "192.0.2.1 does not come after 192.0.2.2"),
            ("192.0.2.2-::1", "::1 does not come after 192.0.2.2"),
            ("", "\"\" is no address"),
        ] {
            let refused = text.parse::<AddressSpan>().unwrap_err().to_string();
            assert!(refused.contains(error), "{text}: {refused}");
        }
    }
}
