//! weir itself as a switch under test: the whole pipeline in this process, without devices, threads or a clock of
//! its own. Everything that a script needs is on the virtual switch that `weir replay` runs on.

use std::collections::BTreeMap;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use weir::control::protocol::Request;
use weir::control::{Daemon, Handler};
use weir::flow::file::FileError;
use weir::flow::port::{NoNames, PortNumber};
use weir::flow::{Command, FlowFile, GroupCommand, GroupFile, GroupMod, PacketOut};
use weir::pipeline::{Frame, dump};
use weir::replay::{BRIDGE, Layout, VirtualSwitch, VirtualSwitchError, secret};
use weir::switch::SwitchError;
use weir_shard::ShardConfig;

use crate::engine::{MemoryEngine, NoHost};
use crate::switch::{Emission, PORTS, Switch};

/// More than any script opens.
const CONNECTIONS: u32 = 1 << 16;
/// Slots looked at in one piece of a dump.
const PAGE: usize = 1 << 12;

/// Why weir did not do as told.
#[derive(Debug, thiserror::Error)]
pub enum WeirError {
    /// It refuses the flows.
    #[error(transparent)]
    Flows(#[from] Box<FileError>),
    /// It cannot be made with them.
    #[error(transparent)]
    Start(#[from] VirtualSwitchError),
    /// A packet to send is wrong.
    #[error("packet-out: {0}")]
    PacketOut(String),
    /// It cannot show its flows.
    #[error(transparent)]
    Show(#[from] SwitchError),
}

/// weir, with [`PORTS`] and a clock that stands still between steps.
#[derive(Debug)]
pub struct WeirSwitch {
    engine: Arc<MemoryEngine>,
    /// How often flows were loaded: each time it draws other numbers.
    loads: u64,
    /// For the next tables that are loaded.
    groups: Vec<GroupMod>,
    now: u64,
    layout: Layout,
}

impl WeirSwitch {
    /// A switch without flows.
    ///
    /// # Errors
    /// If memory runs out.
    pub fn start() -> Result<Self, WeirError> {
        Self::divided(Layout::default())
    }

    /// As [`WeirSwitch::start`], divided into shards.
    ///
    /// # Errors
    /// If memory runs out.
    pub fn divided(layout: Layout) -> Result<Self, WeirError> {
        Ok(Self {
            engine: Arc::new(MemoryEngine::new(fresh(&[], "", 0, layout)?)),
            loads: 0,
            groups: Vec::new(),
            now: 0,
            layout,
        })
    }

    /// The virtual switch, with all that was injected worked on.
    pub fn inner(&mut self) -> MutexGuard<'_, VirtualSwitch> {
        let mut inner = self.engine.switch();
        inner.flush();
        inner
    }

    /// Takes these groups for the flows that are loaded next.
    ///
    /// # Errors
    /// If one is wrong.
    pub fn load_groups(&mut self, groups: &str) -> Result<(), WeirError> {
        let file =
            GroupFile::parse("groups", groups.as_bytes(), GroupCommand::Add, &NoNames).map_err(Box::new)?;
        self.groups = file.changes;
        Ok(())
    }

    /// The lines of `ofctl dump-groups`.
    ///
    /// # Errors
    /// If its bridge is gone.
    pub fn groups(&self) -> Result<Vec<String>, WeirError> {
        let inner = self.engine.switch();
        let groups = inner.switch().bridge(BRIDGE)?.tables().groups();
        Ok(groups.iter().map(|entry| entry.dump_line(&NoNames)).collect())
    }

    /// Sends packets with their actions (`ofctl packet-out`) and gives what came out.
    ///
    /// # Errors
    /// If they are refused.
    pub fn packet_out(&mut self, packets: &str) -> Result<Vec<Emission>, WeirError> {
        let packets =
            PacketOut::parse(packets, &NoNames).map_err(|error| WeirError::PacketOut(error.to_string()))?;
        self.engine.switch().packet_out(&packets).map_err(|error| WeirError::PacketOut(error.to_string()))?;
        Ok(self.emissions())
    }

    /// Another one for each load, and for each layout's seed.
    const fn seed(&self) -> u64 {
        self.loads + (self.layout.seed << 32)
    }

    fn emissions(&mut self) -> Vec<Emission> {
        let sent = self.engine.switch().take_sent();
        let mut emissions: Vec<_> = sent
            .into_iter()
            .map(|(port, frame)| Emission { port: port.into(), frame: frame.bytes().to_vec() })
            .collect();
        // Ports are independent of one another: their order is what the reference is read in.
        emissions.sort_by_key(|emission| PORTS.iter().position(|port| *port == emission.port));
        emissions
    }

    /// The lines of `ofctl dump-flows`.
    ///
    /// # Errors
    /// If its bridge is gone.
    pub fn rules(&mut self) -> Result<Vec<String>, WeirError> {
        let now = self.now;
        Ok(self.inner().rules()?.iter().map(|rule| rule.dump_line(Some(now), &NoNames)).collect())
    }

    /// The lines of `dpctl/dump-conntrack -s`.
    pub fn connections_with_timeouts(&mut self) -> Vec<String> {
        self.dump(|view| view.with_timeout().to_string())
    }

    fn dump(&mut self, line: impl Fn(&weir_shard::ConnectionView) -> String) -> Vec<String> {
        let mut lines = Vec::new();
        self.inner().connections(&mut |view: &weir_shard::ConnectionView| lines.push(line(view)));
        lines
    }
}

fn fresh(groups: &[GroupMod], flows: &str, seed: u64, layout: Layout) -> Result<VirtualSwitch, WeirError> {
    let flows = FlowFile::parse("flows", flows.as_bytes(), Command::Add, &NoNames).map_err(Box::new)?;
    let ports: Vec<_> = PORTS.iter().filter_map(|&port| PortNumber::try_from(port).ok()).collect();
    let shard = ShardConfig { capacity: CONNECTIONS, max_connections: CONNECTIONS, ..ShardConfig::default() };
    Ok(VirtualSwitch::with_layout(&ports, groups, &flows.flows, shard, secret(seed), layout)?)
}

impl Switch for WeirSwitch {
    type Error = WeirError;

    fn name(&self) -> &'static str {
        "weir"
    }

    fn load(&mut self, flows: &str) -> Result<(), WeirError> {
        self.loads += 1;
        self.engine = Arc::new(MemoryEngine::new(fresh(&self.groups, flows, self.seed(), self.layout)?));
        self.now = 0;
        Ok(())
    }

    fn inject(&mut self, port: u32, frame: &[u8]) -> Result<Vec<Emission>, WeirError> {
        // A port beyond 16 bits does not exist; neither does 0, which drops the frame.
        let mut inner = self.engine.switch();
        inner.inject(PortNumber::try_from(port).unwrap_or(0), frame, self.now);
        drop(inner);
        Ok(self.emissions())
    }

    fn advance(&mut self, by: Duration) -> Result<(), WeirError> {
        self.now += u64::try_from(by.as_millis()).unwrap_or(0);
        self.engine.switch().advance(self.now);
        Ok(())
    }

    fn connections(&mut self) -> Result<Vec<String>, WeirError> {
        Ok(self.dump(ToString::to_string))
    }

    fn flows(&mut self) -> Result<Vec<String>, WeirError> {
        let (mut lines, now) = (Vec::new(), self.now);
        for worker in self.inner().workers() {
            let mut next = Some(0);
            while let Some(from) = next {
                let (flows, more) = worker.megaflow_page(from, PAGE);
                lines.extend(flows.iter().map(|flow| dump::line(flow, now, &dump::number)));
                next = more;
            }
        }
        Ok(lines)
    }

    fn command(&mut self, family: &str, words: &[&str]) -> Result<Result<String, String>, WeirError> {
        let (name, args) = words.split_first().unwrap_or((&"", &[]));
        let request = Request {
            command: format!("{family} {name}"),
            args: args.iter().map(|word| (*word).to_owned()).collect(),
            ..Request::default()
        };
        let daemon = Daemon { engine: Arc::clone(&self.engine) as _, host: Arc::new(NoHost) };
        let mut text = String::new();
        let end = daemon.handle(request, &mut |piece| {
            text += piece;
            Ok(())
        });
        Ok(if end.exit == 0 { Ok(text) } else { Err(end.stderr) })
    }

    fn counters(&mut self) -> BTreeMap<String, u64> {
        self.engine.counts().into_iter().map(|counter| (counter.name, counter.total)).collect()
    }
}
