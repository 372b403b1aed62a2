//! How the outside talks to a running weir: a Unix socket, the commands of `ofctl`, `appctl` and `vsctl` as
//! tables, and the [`Engine`] they are written against. Everything here runs on control
//! threads; no lcore ever waits for it.

pub mod client;
pub mod commands;
pub mod engine;
pub mod events;
pub mod filter;
mod frame;
pub mod output;
pub mod protocol;
pub mod server;
pub mod socket;
pub mod steering;
#[cfg(test)]
pub(crate) mod testing;
pub mod topology;
pub mod tracking;

pub use client::{Client, ClientError};
pub use commands::{Daemon, Family, Host};
pub use engine::Engine;
pub use server::{Handler, Limits, Server};
pub use socket::{ControlSocket, SocketError};
