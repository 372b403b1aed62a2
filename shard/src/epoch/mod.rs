//! Memory that other threads may still be reading: what is replaced is given back only when nobody can hold a
//! reference into it any more. Lcores read and never wait; who replaces does the counting and the dropping.

pub(crate) mod limbo;
pub mod published;

pub use published::{Full, MAX_RETIRED, Published, Reader};
