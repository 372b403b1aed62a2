//! The flow language: what a flow can match, what it does, how both are written, and the tables of a bridge's flows.

pub mod action;
mod action_parse;
pub mod compose;
mod ct_parse;
pub mod error;
pub mod field;
pub mod file;
#[expect(clippy::module_inception, reason = "a flow is one thing of the flow language")]
pub mod flow;
pub mod group;
mod group_parse;
pub mod groups;
pub mod key;
pub mod lexer;
pub mod matching;
mod nearest;
pub mod packet_out;
pub mod port;
pub mod print;
pub mod rule;
pub mod table;
#[cfg(test)]
mod tests;
pub mod value;

pub use action::{Action, Assignment, Controller, CtSpec, Reason, Zone};
pub use error::{Error, Problem, Warning, render};
pub use field::{FIELDS, Field, Format, Prerequisite, Subfield};
pub use file::{FileError, FileWarning, FlowFile};
pub use flow::{Command, Flags, FlowMod, Parsed};
pub use group::{Bucket, Group, GroupCommand, GroupMod, GroupType, Place, Selection};
pub use group_parse::{GroupFile, ParsedGroup};
pub use groups::{GroupEntry, GroupError, GroupProblem};
pub use key::{Key, Mask};
pub use matching::Match;
pub use nearest::nearest;
pub use packet_out::PacketOut;
pub use port::{NoNames, PortNames, PortNumber};
pub use print::nat_text;
pub use rule::{Expiry, Rule, RuleStats};
pub use table::{Applied, ApplyError, ApplyProblem, FlowTables};
