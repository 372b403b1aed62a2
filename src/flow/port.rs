//! Port numbers of the flow language, the reserved ones among them, and the names that stand for them.

use std::collections::BTreeMap;

/// Port numbers are the 16-bit ones of `OpenFlow` 1.0 in the flow language and in [`Key`](super::Key)s.
pub type PortNumber = u16;

/// Ports below this one are real ports of a bridge.
pub const FIRST_RESERVED: PortNumber = 0xff00;
pub const UNSET: PortNumber = 0xfff7;
pub const IN_PORT: PortNumber = 0xfff8;
pub const TABLE: PortNumber = 0xfff9;
pub const NORMAL: PortNumber = 0xfffa;
pub const FLOOD: PortNumber = 0xfffb;
pub const ALL: PortNumber = 0xfffc;
pub const CONTROLLER: PortNumber = 0xfffd;
pub const LOCAL: PortNumber = 0xfffe;
pub const NONE: PortNumber = 0xffff;

/// Reserved ports, their number in 32-bit notation being this one with 0xffff in front.
pub const RESERVED: [(PortNumber, &str); 9] = [
    (UNSET, "UNSET"),
    (IN_PORT, "IN_PORT"),
    (TABLE, "TABLE"),
    (NORMAL, "NORMAL"),
    (FLOOD, "FLOOD"),
    (ALL, "ALL"),
    (CONTROLLER, "CONTROLLER"),
    (LOCAL, "LOCAL"),
    (NONE, "ANY"),
];

/// The ports of a bridge, by name and by number.
pub trait PortNames {
    /// The number of the port called `name`.
    fn number(&self, name: &str) -> Option<PortNumber>;
    /// The name of port `number`.
    fn name(&self, number: PortNumber) -> Option<&str>;
}

/// No bridge is known: numbers only, as with `--no-names`.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoNames;

impl PortNames for NoNames {
    fn number(&self, _: &str) -> Option<PortNumber> {
        None
    }
    fn name(&self, _: PortNumber) -> Option<&str> {
        None
    }
}

impl PortNames for BTreeMap<PortNumber, String> {
    fn number(&self, name: &str) -> Option<PortNumber> {
        self.iter().find(|(_, known)| *known == name).map(|(number, _)| *number)
    }
    fn name(&self, number: PortNumber) -> Option<&str> {
        self.get(&number).map(String::as_str)
    }
}
