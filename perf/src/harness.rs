//! What the generator and its devices cost without weir: packets are written, received from one net_null and sent by the
//! other, burst by burst, on a pinned thread. The part of every other figure that is not the datapath's.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use weir::config::{Config, Profile};
use weir_ffi::{Burst, Eal, EalConfig, Pool, Port, PortConfig, source};
use weir_numa::pin::pin_current_thread;

use crate::BenchError;
use crate::frames::{Ends, Shape, Step};
use crate::generator::{Flows, Generator};
use crate::point::{Outcome, Point};
use crate::process::Stop;
use crate::traffic::Flow;

/// Buffers that weir has each lcore keep at hand.
const CACHE: u32 = 256;
/// Caches fill.
const SETTLE: Duration = Duration::from_millis(300);
/// Bursts between two looks at the time.
const BURSTS: u32 = 1024;

/// Measures the harness of `point` on buffers like those of `config`.
///
/// # Errors
/// Whatever goes wrong.
pub fn run(point: &Point, config: &Config, stop: &Stop) -> Result<Outcome, BenchError> {
    let eal = Eal::init(match config.profile {
        Profile::Metal => EalConfig::metal(vec![config.memory_mib]),
        Profile::Lab | Profile::Replay => EalConfig::lab(config.memory_mib),
    })
    .map_err(refused)?;
    let pool =
        Pool::new(&eal, "packets", config.pool.mbufs, CACHE, config.pool.data_room, None).map_err(refused)?;
    let shape = |step| {
        let Point { transport, ip: family, frames, .. } = *point;
        Shape { transport, family, frames, step }
    };
    let forth = Generator::endless(shape(Step::Forth), Flows::numbered(0, point.connections, 4));
    // The answers as a list, which is what those of translated connections are.
    let ends = |number| Ends::of(&Flow::numbered(number), point.transport).reversed();
    let list = Flows::listed((0..point.connections).map(ends).collect(), 5);
    let back = Generator::endless(shape(Step::Back), list);
    let ports = [("net_null0", forth), ("net_null1", back)].map(|(device, generator)| {
        let devargs = format!("{device},size={}", generator.longest());
        source::offer(device, 0, Box::new(generator));
        let mut port = Port::attach(&eal, &devargs)?;
        port.start(&PortConfig::new(pool.clone()))?;
        Ok::<_, weir_ffi::PortError>(port)
    });
    let [inside, outside] = ports;
    let (inside, outside) = (inside.map_err(refused)?, outside.map_err(refused)?);
    let cpu = u32::from(point.polling_cpu());
    let (tell, told) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| drop(tell.send(forward(&eal, [&inside, &outside], cpu, point.time(), stop))));
    });
    told.recv().map_err(refused)?
}

fn refused(error: impl ToString) -> BenchError {
    BenchError::Refused(error.to_string())
}

fn forward(
    eal: &Eal,
    ports: [&Port; 2],
    cpu: u32,
    time: Duration,
    stop: &Stop,
) -> Result<Outcome, BenchError> {
    pin_current_thread(cpu).map_err(refused)?;
    let _registered = eal.register_thread().map_err(refused)?;
    let taken = || BenchError::Refused("a queue of net_null is taken".to_owned());
    let [inside, outside] = ports;
    let mut ways = [
        (inside.take_rx(0).ok_or_else(taken)?, outside.take_tx(0).ok_or_else(taken)?),
        (outside.take_rx(0).ok_or_else(taken)?, inside.take_tx(0).ok_or_else(taken)?),
    ];
    let mut burst = Burst::new();
    let mut pass = |time: Duration| {
        let mut outcome = Outcome { tsc_hz: weir_ffi::tsc_hz(), ..Outcome::default() };
        let (begin, start) = (Instant::now(), weir_ffi::tsc());
        while begin.elapsed() < time {
            stop.check()?;
            for _ in 0..BURSTS {
                for (rx, tx) in &mut ways {
                    outcome.packets += rx.rx_burst(&mut burst) as u64;
                    outcome.sent += tx.tx_burst_or_drop(&mut burst) as u64;
                }
            }
        }
        outcome.cycles = weir_ffi::tsc().wrapping_sub(start);
        Ok(outcome)
    };
    pass(SETTLE)?;
    pass(time)
}
