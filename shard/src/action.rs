//! What one `ct(...)` of a flow asks of the tracker, already resolved: no fields, no names (ovs-actions(7), `ct`).

use weir_nat::NatAction;

/// An application-layer helper named by `alg=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Helper {
    /// FTP control connection.
    Ftp,
    /// TFTP.
    Tftp,
}

impl Helper {
    /// Every helper; a connection holds its place in here + 1.
    const ALL: [Self; 2] = [Self::Ftp, Self::Tftp];

    pub(crate) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number).checked_sub(1)?).copied()
    }

    pub(crate) const fn number(self) -> u8 {
        self as u8 + 1
    }

    /// The name that `alg=` takes and dumps show.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ftp => "ftp",
            Self::Tftp => "tftp",
        }
    }
}

/// A `ct` action with its zone resolved. `(value, mask)` pairs set `value` where `mask` is 1.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct CtAction {
    /// Zone to look the packet up in.
    pub zone: u16,
    /// Make the connection permanent.
    pub commit: bool,
    /// With `commit`: a packet in the reply direction replaces the connection by one in its own direction.
    pub force: bool,
    /// New mark for the connection.
    pub mark: Option<(u32, u32)>,
    /// New label for the connection, host order.
    pub label: Option<(u128, u128)>,
    /// Helper to attach.
    pub helper: Option<Helper>,
    /// Translation to set up or to apply.
    pub nat: Option<NatAction>,
}
