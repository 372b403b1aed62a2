//! The flow language: what a flow can match, what it does, how both are written, and the tables of a bridge's flows.

pub mod action;
pub mod field;
pub mod key;
pub mod matching;
pub mod port;
pub mod table;

pub use action::{Action, Assignment, Controller, CtSpec, Reason, Zone};
pub use field::{FIELDS, Field, Format, Prerequisite, Subfield};
pub use key::{Key, Mask};
pub use matching::Match;
pub use port::{NoNames, PortNames, PortNumber};
