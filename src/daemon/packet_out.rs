//! Packets that a command sends: copied into buffers here, taken through the pipeline by the first lcore.

use super::DaemonError;
use super::state::State;
use crate::flow::PacketOut;
use crate::pipeline::Injection;

impl State {
    /// Sends packets through the datapath with their actions; all are in buffers before the first is sent.
    pub(super) fn send(&mut self, bridge: &str, packets: PacketOut) -> Result<(), DaemonError> {
        let PacketOut { in_port, fields, packets, actions } = packets;
        let node = self.packet_node(None);
        let failed = |error: &dyn std::fmt::Display| DaemonError::PacketOut(error.to_string());
        let pool = self.pools.shared(&self.eal, node).map_err(|error| failed(&error))?;
        let frames = packets.iter().map(|bytes| pool.packet(bytes).map_err(|error| failed(&error)));
        let frames: Vec<_> = frames.collect::<Result<_, _>>()?;
        let Some(lcore) = self.lcores.first() else { return Ok(()) };
        let injection = Injection { bridge: bridge.to_owned(), in_port, fields, actions: actions.into() };
        Ok(lcore.call(move |polling| polling.inject(&injection, frames))?)
    }
}
