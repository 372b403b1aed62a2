//! The developer's side of weir: a laboratory of network namespaces, Debian's Open vSwitch as the
//! reference to compare with, and packet scripts that run against either.
//!
//! Nothing here is linked into the program. Most of it works through other programs (`ip`, `ovs-vswitchd`,
//! `curl`), so that it shows what an operator would see; packet scripts run weir's pipeline in this process.
#![forbid(unsafe_code)]

pub mod capture;
pub mod cleanup;
pub mod engine;
pub mod exact;
pub mod flows;
pub mod lab;
pub mod ovs;
pub mod packet;
pub mod process;
pub mod scenario;
pub mod script;
pub mod scripts;
pub mod switch;
pub mod vocabulary;
pub mod weir;
