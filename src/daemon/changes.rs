//! Changes of bridges and ports while running: several in order, or none. What a change removes is put aside until
//! the last one has succeeded, so that a failure gives it back as it was: a bridge with its flows and their
//! counters, a port with its running device.

use super::DaemonError;
use super::devices::Device;
use super::state::State;
use crate::config::{Name, PortNumber};
use crate::control::engine::{Change, NewPort};
use crate::lcore::Polling;
use crate::pipeline::PortId;
use crate::switch::{Bridge, FormerMode, SwitchError};

/// What takes one change back.
#[derive(Debug)]
enum Undo {
    RemoveBridge(Name),
    RestoreBridge(Box<Bridge>),
    RemovePort(Name),
    FailMode(Name, Box<FormerMode>),
    /// The device still runs; nothing polls it.
    Reconnect(Box<Device>, NewPort),
    /// Its device was needed by a later change.
    AddPort(NewPort),
}

impl State {
    /// Makes all of the changes, or none.
    pub(super) fn reconfigure(&mut self, changes: Vec<Change>) -> Result<(), DaemonError> {
        self.responsive()?;
        let mut undo = Vec::new();
        let result = changes.into_iter().try_for_each(|change| self.change(change, &mut undo));
        let result = result.and_then(|()| Ok(self.publish()?));
        if result.is_err() {
            while let Some(step) = undo.pop() {
                if let Err(error) = self.undo(step) {
                    tracing::error!("a change could not be taken back: {error}");
                }
            }
            if let Err(error) = self.publish() {
                tracing::error!("a change that was taken back reaches an lcore late: {error}");
            }
        }
        result
    }

    fn change(&mut self, change: Change, undo: &mut Vec<Undo>) -> Result<(), DaemonError> {
        match change {
            Change::AddBridge(name) => {
                self.switch.add_bridge(name.as_str(), self.now())?;
                undo.push(Undo::RemoveBridge(name));
            }
            Change::RemoveBridge(name) => {
                // A bridge that is not there must not be found out after its ports are gone.
                self.switch.bridge(name.as_str())?;
                for port in self.ports_of(&name) {
                    undo.push(self.park(&port)?);
                }
                undo.push(Undo::RestoreBridge(Box::new(self.switch.delete_bridge(name.as_str())?)));
            }
            Change::AddPort(spec) => {
                release_rivals(undo, &spec);
                self.add_port(&spec)?;
                undo.push(Undo::RemovePort(spec.name));
            }
            Change::SetFailMode(name, mode) => {
                let now = self.now();
                let former = self.switch.set_fail_mode(name.as_str(), mode, now)?;
                undo.push(Undo::FailMode(name, Box::new(former)));
            }
            Change::RemovePort(name) => undo.push(self.park(&name)?),
        }
        Ok(())
    }

    fn undo(&mut self, step: Undo) -> Result<(), DaemonError> {
        match step {
            Undo::RemoveBridge(name) => drop(self.switch.delete_bridge(name.as_str())?),
            Undo::RestoreBridge(bridge) => self.switch.restore_bridge(*bridge)?,
            Undo::FailMode(name, former) => self.switch.restore_fail_mode(name.as_str(), *former)?,
            Undo::RemovePort(name) => drop(self.park(&name)?),
            Undo::Reconnect(device, spec) => {
                let id = self.switch_port(&spec)?;
                self.publish()?;
                self.run_device(id, *device)?;
            }
            Undo::AddPort(spec) => self.add_port(&spec)?,
        }
        Ok(())
    }

    fn ports_of(&self, bridge: &Name) -> Vec<Name> {
        let devices = self.devices.values().filter(|device| device.spec.bridge == *bridge);
        devices.map(|device| device.spec.name.clone()).collect()
    }

    /// Adds a port with its device, or changes nothing.
    pub(super) fn add_port(&mut self, spec: &NewPort) -> Result<(), DaemonError> {
        let id = self.switch_port(spec)?;
        let added = Device::start(self, spec).and_then(|device| {
            self.publish()?;
            self.run_device(id, device)
        });
        if added.is_err() {
            let _ = self.switch.delete_port(spec.bridge.as_str(), spec.name.as_str());
            let _ = self.publish();
        }
        added
    }

    pub(super) fn switch_port(&mut self, spec: &NewPort) -> Result<PortId, SwitchError> {
        let number = spec.number.map(PortNumber::number);
        self.switch.add_port(spec.bridge.as_str(), spec.name.as_str(), number)
    }

    fn run_device(&mut self, id: PortId, mut device: Device) -> Result<(), DaemonError> {
        device.try_card();
        let connected = device
            .connect_outputs(id, &self.lcores)
            .and_then(|()| device.connect_inputs(id, &self.lcores, &self.steering));
        if let Err(error) = connected {
            Device::disconnect_inputs(id, &self.lcores);
            Device::disconnect_outputs(id, &self.lcores);
            return Err(error.into());
        }
        self.devices.insert(id, device);
        Ok(())
    }

    /// Takes a port out of the datapath; its device runs until what this gives is dropped.
    fn park(&mut self, name: &Name) -> Result<Undo, DaemonError> {
        let missing =
            || SwitchError::NoSuchPort { bridge: "(of all there are)".into(), name: name.to_string() };
        let (id, bridge) = self
            .devices
            .iter()
            .find(|(_, device)| device.spec.name == *name)
            .map(|(&id, device)| (id, device.spec.bridge.clone()))
            .ok_or_else(missing)?;
        let number = self.switch.bridge(bridge.as_str())?.port_number(name.as_str());
        // Nothing comes in by it any more, then nobody sends to it, then its queues go: no packet is lost on the way.
        Device::disconnect_inputs(id, &self.lcores);
        self.switch.delete_port(bridge.as_str(), name.as_str())?;
        if let Err(error) = self.publish() {
            tracing::error!("an lcore hears of a removed port late: {error}");
        }
        // What is under way between lcores still counts by the old numbers, and goes.
        if let Err(error) = self.ask(Polling::settle_letters) {
            tracing::error!("an lcore keeps packets of a removed port for a while: {error}");
        }
        Device::disconnect_outputs(id, &self.lcores);
        let device = self.devices.remove(&id).ok_or_else(missing)?;
        let spec = NewPort { number, ..device.spec.clone() };
        Ok(Undo::Reconnect(Box::new(device), spec))
    }
}

/// Stops those devices put aside that `wanted` could not start beside. A net_af_xdp device could not be started
/// again, and stays.
fn release_rivals(undo: &mut [Undo], wanted: &NewPort) {
    let interface = |spec: &NewPort| weir_ffi::devargs::interface(spec.devargs.as_str());
    for step in undo {
        if let Undo::Reconnect(device, spec) = step
            && device.driver != "net_af_xdp"
            && (spec.devargs.device() == wanted.devargs.device()
                || interface(spec).is_some_and(|name| interface(wanted) == Some(name)))
        {
            *step = Undo::AddPort(spec.clone());
        }
    }
}

impl NewPort {
    /// The port of a configuration.
    pub(super) fn of(bridge: &Name, port: &crate::config::Port) -> Self {
        Self {
            bridge: bridge.clone(),
            name: port.name.clone(),
            number: Some(port.number),
            devargs: port.devargs.clone(),
            rx_queues: port.rx_queues,
            role: port.role,
            peer: port.peer.clone(),
        }
    }
}
