//! Where packets come from and go to: hosts by a letter, addresses as they are, and variables for what a switch
//! draws.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::packet::Endpoint;

/// A host of the scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host(pub(super) char);

impl Host {
    /// Inside, in the order of their addresses.
    pub const INSIDE: [Self; 3] = [Self('a'), Self('b'), Self('c')];
    /// Outside; r is a router, which sends errors.
    pub const OUTSIDE: [Self; 3] = [Self('x'), Self('y'), Self('r')];

    fn number(self) -> u8 {
        let all = Self::INSIDE.iter().chain(&Self::OUTSIDE);
        let at = all.clone().position(|host| *host == self).unwrap_or(0);
        u8::try_from(at % 3 + 2).unwrap_or(2)
    }

    /// Its address: 192.168.0.2.. or fd00::2.. inside, 198.51.100.2.. or 2001:db8::2.. outside.
    pub fn address(self, v6: bool) -> IpAddr {
        let number = self.number();
        match (Self::INSIDE.contains(&self), v6) {
            (true, false) => Ipv4Addr::new(192, 168, 0, number).into(),
            (false, false) => Ipv4Addr::new(198, 51, 100, number).into(),
            (true, true) => Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number.into()).into(),
            (false, true) => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number.into()).into(),
        }
    }
}

/// A variable's name: up to eight letters and digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name([u8; 8]);

impl Name {
    /// The name in `text`, which is without the dollar sign.
    pub fn new(text: &str) -> Option<Self> {
        let mut name = [0; 8];
        if text.is_empty() || text.len() > 8 || !text.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return None;
        }
        name.iter_mut().zip(text.bytes()).for_each(|(place, byte)| *place = byte);
        Some(Self(name))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letters = self.0.iter().take_while(|byte| **byte != 0).map(|byte| char::from(*byte));
        write!(f, "${}", letters.collect::<String>())
    }
}

/// Which address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// A host's, of the family of the table that the script runs through.
    Host(Host),
    /// A host's IPv6 address: its letter with a 6.
    Host6(Host),
    /// This one.
    Literal(IpAddr),
    /// One that a switch has drawn.
    Variable(Name),
}

/// Which port or ICMP identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// This one; 0 if not written.
    Number(u16),
    /// One that a switch has drawn.
    Variable(Name),
}

/// An address with a port or ICMP identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The address.
    pub address: Address,
    /// Port or identifier.
    pub port: Port,
}

impl Place {
    /// A host's port.
    pub fn new(host: Host, port: u16) -> Self {
        Self { address: Address::Host(host), port: Port::Number(port) }
    }

    /// The same without port.
    #[must_use]
    pub fn without_port(self) -> Self {
        Self { port: Port::Number(0), ..self }
    }

    /// Whether it is one of the inside hosts.
    pub fn is_inside(self) -> bool {
        matches!(self.address, Address::Host(host) | Address::Host6(host) if Host::INSIDE.contains(&host))
    }

    /// The endpoint, hosts being of the family given. A variable has to be replaced before
    /// ([`Place::bound`]); it gives zeros.
    pub fn endpoint(self, v6: bool) -> Endpoint {
        let address = match self.address {
            Address::Host(host) => host.address(v6),
            Address::Host6(host) => host.address(true),
            Address::Literal(address) => address,
            Address::Variable(_) => Ipv4Addr::UNSPECIFIED.into(),
        };
        let port = if let Port::Number(port) = self.port { port } else { 0 };
        Endpoint { address, port }
    }

    /// The same with variables replaced by what they stand for.
    ///
    /// # Errors
    /// The variable that stands for nothing yet.
    pub fn bound(self, variables: &Variables) -> Result<Self, Unbound> {
        let address = match self.address {
            Address::Variable(name) => match variables.value(name)? {
                Value::Address(address) => Address::Literal(address),
                Value::Number(_) => return Err(Unbound(name, "a number")),
            },
            other => other,
        };
        let port = match self.port {
            Port::Variable(name) => match variables.value(name)? {
                Value::Number(number) => Port::Number(number),
                Value::Address(_) => return Err(Unbound(name, "an address")),
            },
            other => other,
        };
        Ok(Self { address, port })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bracketed = matches!(self.address, Address::Literal(IpAddr::V6(_)));
        match (self.address, self.port) {
            (Address::Literal(address), Port::Number(0)) => return write!(f, "{address}"),
            (Address::Host(host), _) => write!(f, "{}", host.0)?,
            (Address::Host6(host), _) => write!(f, "{}6", host.0)?,
            (Address::Literal(address), _) if bracketed => write!(f, "[{address}]")?,
            (Address::Literal(address), _) => write!(f, "{address}")?,
            (Address::Variable(name), _) => write!(f, "{name}")?,
        }
        match self.port {
            Port::Number(0) => Ok(()),
            Port::Number(port) => write!(f, ":{port}"),
            Port::Variable(name) => write!(f, ":{name}"),
        }
    }
}

/// What a variable stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// An address.
    Address(IpAddr),
    /// A port or identifier.
    Number(u16),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Number(number) => number.fmt(f),
        }
    }
}

/// A variable that is used before a packet has given it a value, or as what it is not.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is {1}")]
pub struct Unbound(pub Name, pub &'static str);

/// What the variables of a script stand for by now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variables {
    values: BTreeMap<Name, Value>,
    ranges: BTreeMap<Name, (Value, Value)>,
}

impl Variables {
    /// What `name` stands for.
    ///
    /// # Errors
    /// If nothing yet.
    pub fn value(&self, name: Name) -> Result<Value, Unbound> {
        self.values.get(&name).copied().ok_or(Unbound(name, "not known yet"))
    }

    /// From now on `name` is new, and must be in this range if there is one.
    pub fn declare(&mut self, name: Name, range: Option<(Value, Value)>) {
        self.values.remove(&name);
        match range {
            Some(range) => self.ranges.insert(name, range),
            None => self.ranges.remove(&name),
        };
    }

    /// Notes that `name` was seen to be `value`.
    ///
    /// # Errors
    /// If it stands for something else, or is out of its range.
    pub fn bind(&mut self, name: Name, value: Value) -> Result<(), String> {
        if let Some((least, most)) = self.ranges.get(&name)
            && !(least..=most).contains(&&value)
        {
            return Err(format!("{name} is {value}, not in {least}-{most}"));
        }
        match *self.values.entry(name).or_insert(value) {
            known if known == value => Ok(()),
            known => Err(format!("{name} was {known} and is {value} now")),
        }
    }

    /// The name of a value in a text that two switches are compared by.
    pub fn name_of(&self, value: &str) -> Option<Name> {
        self.values.iter().find(|(_, known)| known.to_string() == value).map(|(name, _)| *name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_keeps_its_value_and_its_range() {
        let mut variables = Variables::default();
        let p = Name::new("p").unwrap();
        assert_eq!(variables.value(p), Err(Unbound(p, "not known yet")));
        variables.declare(p, Some((Value::Number(5000), Value::Number(5001))));
        assert!(variables.bind(p, Value::Number(4999)).unwrap_err().contains("not in 5000-5001"));
        variables.bind(p, Value::Number(5001)).unwrap();
        assert!(variables.bind(p, Value::Number(5000)).unwrap_err().contains("was 5001"));
        variables.declare(p, None);
        variables.bind(p, Value::Number(1)).unwrap();
        assert_eq!(variables.value(p), Ok(Value::Number(1)));
        // An address is not in a range of numbers.
        variables.declare(p, Some((Value::Number(0), Value::Number(u16::MAX))));
        assert!(variables.bind(p, Value::Address([1, 2, 3, 4].into())).is_err());
    }
}
