//! What a tracker says about a packet of a known connection.

/// A tracker's judgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Part of an established connection.
    Established,
    /// Belongs to the connection, which is not established yet.
    New,
    /// Does not belong to the connection that its tuple names.
    Invalid,
    /// Ends the known connection and starts another with the same tuple.
    Restart,
}
