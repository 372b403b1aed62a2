//! Measures one point in this process: the datapath that `weir run` serves, with net_null ports into whose buffers the
//! generator writes. CSIT's protocol: connections are set up, counted, and only then packets are measured; afterwards
//! everything received must have been sent and no connection be missing. `weir-bench` starts a process for each point,
//! as DPDK starts once in one.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use weir::config::{self, Config, Tables};
use weir::control::Engine;
use weir::control::engine::{Change, ConnectionFilter, Cursor, EngineError, NewPort};
use weir_ffi::source;

use crate::BenchError;
use crate::frames::{Ends, Family, Shape, Step, Transport};
use crate::generator::{Flows, Generator};
use crate::point::{OPENED_BESIDE, Outcome, Point, Traffic};
use crate::process::Stop;
use crate::stages::sampling;

const NAT: &str = include_str!("../../examples/nat.flows");
const ACL: &str = include_str!("../../examples/acl.flows");
const ACL6: &str = include_str!("../../examples/acl6.flows");
const FORWARD: &str = include_str!("../forward.flows");
const BRIDGE: &str = "br0";
/// Connections that the configuration has room for unless more are needed: the default.
const CAPACITY: u32 = 1_000_000;
/// After the ports are there: caches fill, megaflows are made.
const SETTLE: Duration = Duration::from_millis(300);
/// For all connections to be set up, or met once.
const SET_UP: Duration = Duration::from_secs(120);
/// Packets that may be on their way between two readings.
const ON_THE_WAY: u64 = 256;

/// The datapath, and what it is measured with.
struct Inside<'a> {
    engine: Arc<dyn Engine>,
    point: &'a Point,
    stop: &'a Stop,
    /// Devices so far: each has a name of its own.
    devices: u32,
    /// Told when the lcore ends by a fault.
    died: mpsc::Receiver<String>,
}

/// Measures `point`; `directory` is for files.
///
/// # Errors
/// Whatever goes wrong.
pub fn run(point: &Point, directory: &std::path::Path, stop: &Stop) -> Result<Outcome, BenchError> {
    point.check().map_err(BenchError::Refused)?;
    let flows = directory.join("table.flows");
    let table = match (point.traffic, point.ip) {
        (Traffic::Harness | Traffic::Forward, _) => FORWARD,
        (Traffic::Acl, Family::V4) => ACL,
        (Traffic::Acl, Family::V6) => ACL6,
        (Traffic::Established | Traffic::New | Traffic::NewBeside, _) => NAT,
    };
    std::fs::write(&flows, table).map_err(BenchError::at(&flows))?;
    let config = configuration(point);
    let config = config::parse(&config, &directory.join("weir.toml")).map_err(refused)?;
    if point.traffic == Traffic::Harness {
        return crate::harness::run(point, &config, stop);
    }
    let tables = config.bridges.iter().map(|bridge| {
        let flows = config::flows(bridge).map_err(refused)?.flows;
        Ok(Tables { groups: Vec::new(), flows })
    });
    let tables = tables.collect::<Result<Vec<_>, BenchError>>()?;
    let mut inside = Inside::start(&config, tables, point, stop)?;
    match point.traffic {
        Traffic::New => inside.new_connections(0, point.connections),
        Traffic::NewBeside => {
            inside.open_all()?;
            inside.new_connections(point.connections, OPENED_BESIDE)
        }
        Traffic::Forward | Traffic::Harness => {
            let flows = Flows::numbered(0, point.connections, 1);
            inside.ports(Some(inside.endless(Step::Forth, flows)), None)?;
            inside.count(0)
        }
        Traffic::Acl | Traffic::Established => inside.established(),
    }
}

fn refused(error: impl ToString) -> BenchError {
    BenchError::Refused(error.to_string())
}

/// weir's defaults, but for what is being measured.
fn configuration(point: &Point) -> String {
    let profile = if point.lab { "lab" } else { "metal" };
    let capacity = point.capacity().max(CAPACITY);
    let Point { burst, no_trajectories, .. } = point;
    let (cpu, trajectories) = (point.polling_cpu(), !no_trajectories);
    format!(
        "profile = \"{profile}\"\nlcores = \"{cpu}\"\n[conntrack]\ncapacity = {capacity}\n\
         [tuning]\nburst = {burst}\ntrajectories = {trajectories}\n[[bridge]]\nname = \"{BRIDGE}\"\nflows = \"table.flows\"\n"
    )
}

impl<'a> Inside<'a> {
    fn start(
        config: &Config,
        tables: Vec<Tables>,
        point: &'a Point,
        stop: &'a Stop,
    ) -> Result<Self, BenchError> {
        let (tell, died) = mpsc::channel();
        let engine =
            weir::daemon::launch(config, tables, &(Arc::new(move |reason| drop(tell.send(reason))) as _))
                .map_err(BenchError::Refused)?;
        Ok(Self { engine, point, stop, devices: 0, died })
    }

    fn shape(&self, step: Step) -> Shape {
        let Point { transport, ip: family, frames, .. } = *self.point;
        Shape { transport, family, frames, step }
    }

    fn endless(&self, step: Step, flows: Flows) -> Generator {
        Generator::endless(self.shape(step), flows)
    }

    /// Ports 1 and 2 anew, each with a generator or without anything that comes in: those first, so that the others'
    /// packets find them there.
    fn ports(&mut self, inside: Option<Generator>, outside: Option<Generator>) -> Result<(), BenchError> {
        let mut changes = Vec::new();
        if self.devices > 0 {
            for name in ["inside", "outside"] {
                changes.push(Change::RemovePort(name.parse().map_err(refused)?));
            }
        }
        let mut ports = [(1, "inside", inside), (2, "outside", outside)];
        ports.sort_by_key(|(_, _, generator)| generator.is_some());
        for (number, name, generator) in ports {
            let device = format!("net_null{}", self.devices);
            self.devices += 1;
            let devargs = match generator {
                None => format!("{device},no-rx=1"),
                Some(generator) => {
                    let devargs = format!("{device},size={}", generator.longest());
                    source::offer(&device, 0, Box::new(generator));
                    devargs
                }
            };
            changes.push(Change::AddPort(NewPort {
                bridge: BRIDGE.parse().map_err(refused)?,
                name: name.parse().map_err(refused)?,
                number: config::PortNumber::new(number),
                devargs: devargs.parse().map_err(refused)?,
                rx_queues: None,
                role: None,
                peer: None,
            }));
        }
        Ok(self.engine.reconfigure(changes)?)
    }

    /// Sets all connections up, the TCP ones by three packets each, and counts them.
    fn open_all(&mut self) -> Result<(), BenchError> {
        let count = self.point.connections;
        let flows = |seed| Flows::numbered(0, count, seed);
        self.send_once(1, Step::Open, Flows::Counted(0), count)?;
        self.expect_connections(count)?;
        if self.point.transport == Transport::Tcp {
            let answers = self.answers(2)?;
            self.send_once(2, Step::Accept, answers, count)?;
            self.send_once(1, Step::Forth, flows(3), count)?;
        }
        Ok(())
    }

    /// One packet of each flow into port `port`, and waits until all have been worked on.
    fn send_once(&mut self, port: u16, step: Step, flows: Flows, count: u32) -> Result<(), BenchError> {
        self.engine.clear_lcore_counters()?;
        let generator = Generator::limited(self.shape(step), flows, count.into());
        if port == 1 {
            self.ports(Some(generator), None)?
        } else {
            self.ports(None, Some(generator))?
        }
        self.wait_for_packets(count.into())
    }

    /// The answers to all flows: computed where nothing is translated, otherwise from the table of connections.
    fn answers(&self, seed: u32) -> Result<Flows, BenchError> {
        if self.point.traffic == Traffic::Acl {
            return Ok(Flows::answers(0, self.point.connections, seed));
        }
        let wanted = usize::try_from(self.point.connections).unwrap_or(usize::MAX);
        let mut list = Vec::with_capacity(wanted);
        let mut rows = Vec::new();
        let mut cursor = Some(Cursor::default());
        while let Some(from) = cursor {
            self.stop.check()?;
            cursor = self.engine.connections(&ConnectionFilter::default(), from, &mut rows)?;
            list.extend(rows.drain(..).map(|row| {
                Ends::new(
                    last_four(row.reply.src()),
                    last_four(row.reply.dst()),
                    row.reply.src_port(),
                    row.reply.dst_port(),
                )
            }));
        }
        if list.len() != wanted {
            let (found, wanted) = (list.len() as u64, wanted as u64);
            return Err(BenchError::Connections { found, wanted });
        }
        Ok(Flows::listed(list, seed.into()))
    }

    fn established(&mut self) -> Result<Outcome, BenchError> {
        self.open_all()?;
        let count = self.point.connections;
        let forth = self.endless(Step::Forth, Flows::numbered(0, count, 4));
        let back = self.endless(Step::Back, self.answers(5)?);
        self.ports(Some(forth), Some(back))?;
        // Once around until all are answered, and once more until packets of both directions have been seen established.
        let counted = self.count(4 * u64::from(count))?;
        self.expect_connections(count)?;
        Ok(counted)
    }

    /// Opens `count` connections from the flow `first` on, in no order.
    fn new_connections(&mut self, first: u32, count: u32) -> Result<Outcome, BenchError> {
        self.send_once(1, Step::Open, Flows::numbered(first, count, 6), count)?;
        self.expect_connections(first + count)?;
        self.outcome()
    }

    fn expect_connections(&self, wanted: u32) -> Result<(), BenchError> {
        let (found, wanted) = (self.engine.connection_totals()?.total, u64::from(wanted));
        if found == wanted { Ok(()) } else { Err(BenchError::Connections { found, wanted }) }
    }

    /// Counts from when `before` packets have gone through and caches are full.
    fn count(&self, before: u64) -> Result<Outcome, BenchError> {
        self.engine.clear_lcore_counters()?;
        self.wait_for_packets(before)?;
        self.stop.pause(SETTLE)?;
        self.engine.clear_lcore_counters()?;
        self.stop.pause(self.point.time())?;
        let outcome = self.outcome()?;
        if let Some(file) = &self.point.samples {
            sampling::record(std::process::id(), self.point.time(), file).map_err(refused)?;
        }
        Ok(outcome)
    }

    fn outcome(&self) -> Result<Outcome, BenchError> {
        let mut outcome = Outcome {
            connections: self.engine.connection_totals()?.total,
            tsc_hz: weir_ffi::tsc_hz(),
            ..Outcome::default()
        };
        for lcore in self.engine.lcores()? {
            outcome.packets += lcore.packets;
            outcome.cycles += lcore.busy_cycles;
            outcome.sent += lcore.tx_packets;
        }
        let Outcome { packets, sent, .. } = outcome;
        if packets == 0 || packets.abs_diff(sent) > ON_THE_WAY {
            return Err(BenchError::Lost { packets, sent });
        }
        Ok(outcome)
    }

    fn wait_for_packets(&self, wanted: u64) -> Result<(), BenchError> {
        self.stop.wait_for(&format!("{wanted} packets"), SET_UP, || {
            if let Ok(reason) = self.died.try_recv() {
                return Err(BenchError::Refused(reason));
            }
            let received: u64 = self.engine.lcores()?.iter().map(|lcore| lcore.packets).sum();
            Ok((received >= wanted).then_some(()))
        })
    }
}

impl From<EngineError> for BenchError {
    fn from(error: EngineError) -> Self {
        refused(error)
    }
}

fn last_four(address: std::net::IpAddr) -> [u8; 4] {
    match address {
        std::net::IpAddr::V4(address) => address.octets(),
        std::net::IpAddr::V6(address) => {
            let [.., a, b, c, d] = address.octets();
            [a, b, c, d]
        }
    }
}
