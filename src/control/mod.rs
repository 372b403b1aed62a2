//! How the outside talks to a running weir: a Unix socket, the commands of `ofctl`, `appctl` and `vsctl` as
//! tables, and the [`Engine`](engine::Engine) they are written against. Everything here runs on control
//! threads; no lcore ever waits for it.

pub mod client;
mod frame;
pub mod protocol;
pub mod server;
pub mod socket;
#[cfg(test)]
pub(crate) mod testing;

pub use client::{Client, ClientError};
pub use server::{Handler, Limits, Server};
pub use socket::{ControlSocket, SocketError};
