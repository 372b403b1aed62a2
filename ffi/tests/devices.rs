//! Virtual devices that need no rights: captures, rings and the null device.

#![allow(clippy::expect_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use support::{Scratch, eal, frame, number, pool, read_capture, receive, send, tagged, write_capture};
use weir_ffi::port::{HashOver, RssConfig};
use weir_ffi::source::{self, Source};
use weir_ffi::{
    Burst, Eal, EalConfig, EalError, MAX_DATA_ROOM, Mbuf, MbufError, Pool, PoolError, Port, PortConfig,
    PortError,
};

fn is_send<T: Send>(_: &T) {}

#[test]
fn eal_starts_once_and_leaves_the_callers_affinity_alone() {
    let allowed = || std::thread::available_parallelism().expect("known");
    let before = allowed();
    let first = eal();
    assert_eq!(allowed(), before);
    assert_eq!(std::thread::spawn(allowed).join().expect("ran"), before, "later threads keep all CPUs");
    assert!(first.version().starts_with("DPDK "));
    assert!(weir_ffi::tsc_hz() > 0 && weir_ffi::tsc() > 0);
    let second = Eal::init(EalConfig::lab(64)).expect_err("EAL cannot start twice");
    assert!(matches!(second, EalError::AlreadyStarted), "{second}");
    assert!(second.to_string().contains("starts once"));
}

#[test]
fn what_goes_in_by_a_capture_comes_out_by_a_capture_byte_for_byte() {
    let scratch = Scratch::new();
    let (input, output) = (scratch.file("in.pcap"), scratch.file("out.pcap"));
    let mut frames: Vec<_> = (0..100).map(|seed| frame(60 + usize::from(seed) * 14, seed)).collect();
    frames[7] = tagged(&frames[7], 42);
    write_capture(&input, &frames);
    let pool = pool(1023);
    let mut port = Port::attach(
        eal(),
        &format!("net_pcap{},rx_pcap={},tx_pcap={}", number(), input.display(), output.display()),
    )
    .expect("attached");
    let applied = port.start(&PortConfig::new(pool.clone())).expect("started");
    assert!(applied.rss.is_none() && !applied.rx_checksum);
    let info = port.info().expect("readable");
    assert_eq!((info.driver.as_str(), info.max_rx_queues, info.rss.any()), ("net_pcap", 1, false));
    let (mut rx, mut tx) = (port.take_rx(0).expect("free"), port.take_tx(0).expect("free"));
    is_send(&rx);
    is_send(&tx);
    assert!(port.take_rx(0).is_none(), "a queue is taken once");
    assert!(port.take_rx(1).is_none() && port.take_tx(1).is_none());
    let mut burst = Burst::new();
    loop {
        let received = rx.rx_burst(&mut burst);
        if received == 0 {
            break;
        }
        assert_eq!(tx.tx_burst_or_drop(&mut burst), received);
    }
    let stats = port.stats().expect("counted");
    assert_eq!((stats.rx_packets, stats.tx_packets, tx.dropped()), (100, 100, 0));
    drop((rx, tx));
    port.detach().map_err(|(_, error)| error).expect("detached");
    assert_eq!(read_capture(&output), frames);
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn packets_in_several_segments_arrive_in_one_piece_or_are_dropped_and_counted() {
    let scratch = Scratch::new();
    let input = scratch.file("jumbo.pcap");
    let frames = [frame(9000, 1), frame(100, 2), frame(20_000, 3), frame(9018, 4), frame(1500, 5)];
    write_capture(&input, &frames);
    let small = pool(255);
    let large = Pool::new(eal(), &Pool::unique_name("large"), 3, 0, 9216, None).expect("a pool");
    let attach = || {
        Port::attach(eal(), &format!("net_pcap{},rx_pcap={}", number(), input.display())).expect("attached")
    };
    // With room for 9216 bytes, then with none, then with room for all.
    let mut port = attach();
    let config = PortConfig { large: Some(large.clone()), ..PortConfig::new(small.clone()) };
    port.start(&config).expect("started");
    let mut rx = port.take_rx(0).expect("free");
    let mut burst = Burst::new();
    let held: Vec<Mbuf> = (0..2).filter_map(|_| large.alloc()).collect();
    assert_eq!(rx.rx_burst(&mut burst), 3);
    assert!(burst.iter().all(|packet| packet.is_contiguous() && packet.len() == packet.bytes().len()));
    let got: Vec<&[u8]> = burst.iter().map(Mbuf::bytes).collect();
    assert_eq!(got, [&frames[0][..], &frames[1][..], &frames[4][..]]);
    let counters = rx.counters();
    assert_eq!((counters.linearized, counters.dropped_too_long, counters.dropped_no_buffer), (1, 1, 1));
    drop((held, burst, rx, port));
    assert_eq!((small.in_use(), large.in_use()), (0, 0));

    let mut port = attach();
    port.start(&PortConfig::new(small.clone())).expect("started");
    let mut rx = port.take_rx(0).expect("free");
    let mut burst = Burst::new();
    assert_eq!(rx.rx_burst(&mut burst), 2);
    assert_eq!(rx.counters().dropped_too_long, 3);
    drop((burst, rx, port));

    let mut port = attach();
    let large = Pool::new(eal(), &Pool::unique_name("large"), 7, 0, MAX_DATA_ROOM, None).expect("a pool");
    port.start(&PortConfig { large: Some(large), ..PortConfig::new(small) }).expect("started");
    let mut rx = port.take_rx(0).expect("free");
    assert_eq!(receive(&mut rx, 5, |_| true), frames);
}

#[test]
fn a_ring_gives_back_what_was_sent_and_a_full_one_leaves_the_rest_in_the_burst() {
    let pool = pool(4095);
    let mut port = Port::attach(eal(), &format!("net_ring{}", number())).expect("attached");
    port.start(&PortConfig::new(pool.clone())).expect("started");
    let (mut rx, mut tx) = (port.take_rx(0).expect("free"), port.take_tx(0).expect("free"));
    let frames: Vec<_> = (0..64).map(|seed| frame(64, seed)).collect();
    send(&mut tx, &pool, &frames);
    assert_eq!(receive(&mut rx, 64, |_| true), frames);

    let mut burst = Burst::new();
    let mut sent = 0;
    while burst.is_empty() {
        while let Ok(()) = burst.push(pool.packet(&frames[sent % 64]).expect("a packet")) {
            if burst.room() == 0 {
                break;
            }
        }
        sent += tx.tx_burst(&mut burst);
    }
    assert_eq!(pool.in_use() as usize, sent + burst.len());
    let left = burst.len();
    assert_eq!(tx.tx_burst_or_drop(&mut burst), 0);
    assert_eq!((tx.dropped(), burst.len(), pool.in_use() as usize), (left as u64, 0, sent));
    assert_eq!(receive(&mut rx, sent, |_| true).len(), sent);
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn a_port_that_cannot_be_attached_says_which_why_and_what_helps() {
    let attach = |devargs: &str| Port::attach(eal(), devargs).expect_err(devargs).to_string();
    let error = attach("net_pcap900,rx_pcap=/no/such/capture.pcap");
    for part in ["net_pcap900", "/no/such/capture.pcap", "DPDK's log", "cannot be read"] {
        assert!(error.contains(part), "{part} in {error}");
    }
    let error = attach("net_af_packet900,iface=no-such-if0");
    assert!(error.contains("no-such-if0") && error.contains("ip link"), "{error}");
    let error = attach("net_no_such_driver0");
    assert!(error.contains("net_no_such_driver0") && error.contains("driver's name"), "{error}");
    let error = attach("net_null900,no-such-key=1");
    assert!(error.contains("no-such-key"), "{error}");
    assert!(matches!(Port::attach(eal(), "net_null0\n"), Err(PortError::Devargs { .. })));

    // Nothing is left of the failures: the names are free.
    for name in ["net_null900,no-rx=1", "net_ring900"] {
        drop(Port::attach(eal(), name).expect("attached"));
    }
    let null = Port::attach(eal(), "net_null901,no-rx=1").expect("attached");
    let twice = Port::attach(eal(), "net_null901,no-rx=1").expect_err("attached already");
    assert!(matches!(twice, PortError::AlreadyAttached { port, .. } if port == null.id()), "{twice}");
    assert!(null.info().is_ok(), "the first port is unharmed");
}

#[test]
fn what_a_device_cannot_do_is_refused_or_noted() {
    let pool = pool(1023);
    let mut port = Port::attach(eal(), &format!("net_null{},no-rx=1", number())).expect("attached");
    let config = PortConfig::new(pool.clone());
    let error =
        port.start(&PortConfig { rx_queues: 5000, ..config.clone() }).expect_err("too many").to_string();
    assert!(error.contains("5000 receive queues"), "{error}");
    assert!(port.start(&PortConfig { tx_queues: 0, ..config.clone() }).is_err());
    assert!(port.start(&PortConfig { pools: vec![], ..config.clone() }).is_err());
    let rss = |table| RssConfig { key: [0x6d, 0x5a].repeat(20), over: HashOver::Endpoints, table };
    let error =
        port.start(&PortConfig { rss: Some(rss(vec![0, 1])), ..config.clone() }).expect_err("no queue 1");
    assert!(error.to_string().contains("receive queue 1"), "{error}");

    // The null device has a key and a table, and hashes nothing.
    let two = PortConfig {
        rx_queues: 2,
        tx_queues: 2,
        rss: Some(rss(vec![0, 1])),
        rx_checksum: true,
        ..config.clone()
    };
    let applied = port.start(&two).expect("started");
    assert!(
        !applied.rx_checksum && applied.notes.iter().any(|note| note.contains("checksums")),
        "{applied:?}"
    );
    assert!(matches!(port.start(&two), Err(PortError::Busy { .. })), "started already");
    let rx = port.take_rx(1).expect("free");
    assert!(matches!(port.stop(), Err(PortError::Busy { queues: 1, .. })));
    let (mut port, _) = port.detach().expect_err("a queue is out");
    drop(rx);
    port.stop().expect("no queue is out");
    assert!(port.take_rx(0).is_none(), "a stopped port has no queues");
    port.start(&config).expect("a stopped port starts again");
    assert!(port.take_rx(0).is_some() && port.take_rx(1).is_none());
}

#[test]
fn attaching_and_detaching_twenty_times_leaks_no_packet() {
    let pool = pool(2047);
    for round in 0..20 {
        let mut port = Port::attach(eal(), "net_null800").expect("attached");
        port.start(&PortConfig::new(pool.clone())).expect("started");
        let (mut rx, mut tx) = (port.take_rx(0).expect("free"), port.take_tx(0).expect("free"));
        let mut burst = Burst::new();
        assert_eq!(rx.rx_burst(&mut burst), weir_ffi::BURST, "round {round}");
        assert_eq!(pool.in_use() as usize, weir_ffi::BURST);
        tx.tx_burst_or_drop(&mut burst);
        rx.rx_burst(&mut burst);
        // In any order: the port is detached when the last of the three goes.
        if round % 2 == 0 {
            drop((port, burst, rx, tx))
        } else {
            drop((tx, rx, port, burst))
        }
        assert_eq!(pool.in_use(), 0, "round {round}");
    }
}

#[test]
fn a_packet_can_be_changed_at_both_ends_and_refuses_what_does_not_fit() {
    let pool = pool(31);
    let mut packet = pool.packet(&frame(60, 1)).expect("a packet");
    let original = packet.bytes().to_vec();
    packet.prepend(4).expect("headroom");
    assert_eq!(&packet.bytes()[..5], [0, 0, 0, 0, 2]);
    packet.adj(4).expect("long enough");
    packet.append(6).expect("tailroom");
    assert_eq!((packet.len(), &packet.bytes()[60..]), (66, &[0; 6][..]));
    packet.trim(6).expect("long enough");
    assert_eq!(packet.bytes(), original);
    assert!(matches!(packet.prepend(packet.headroom() + 1), Err(MbufError::NoRoom { .. })));
    assert!(matches!(packet.append(packet.tailroom() + 1), Err(MbufError::NoRoom { .. })));
    assert!(matches!(packet.append(usize::MAX), Err(MbufError::NoRoom { .. })));
    assert!(matches!(packet.adj(61), Err(MbufError::TooShort { .. })));
    assert!(matches!(packet.trim(61), Err(MbufError::TooShort { .. })));
    assert_eq!(packet.bytes(), original);
    let mut copy = packet.duplicate(&pool).expect("a copy");
    copy.bytes_mut()[0] = 99;
    assert_eq!((packet.bytes(), copy.len()), (&original[..], 60));
    assert!(matches!(pool.packet(&[0; 2049]), Err(MbufError::TooLong { .. })));
    let rest: Vec<_> = std::iter::from_fn(|| pool.alloc()).collect();
    assert_eq!((rest.len(), packet.duplicate(&pool).err()), (29, Some(MbufError::PoolEmpty)));
    drop((rest, copy, packet));
    assert_eq!((pool.in_use(), pool.available()), (0, 31));
}

#[test]
fn a_burst_keeps_its_order_and_frees_each_packet_once() {
    let pool = pool(127);
    let mut burst = Burst::new();
    assert!(pool.alloc_bulk(&mut burst, 30) && !pool.alloc_bulk(&mut burst, weir_ffi::BURST - 29));
    for (packet, seed) in burst.iter_mut().zip(0..) {
        packet.append(1).expect("room");
        packet.bytes_mut()[0] = seed;
    }
    let order = |burst: &Burst| burst.iter().map(|packet| packet.bytes()[0]).collect::<Vec<_>>();
    burst.retain(|packet| packet.bytes()[0] % 10 < 3);
    assert_eq!(order(&burst), [0, 1, 2, 10, 11, 12, 20, 21, 22]);
    assert_eq!(pool.in_use(), 9);
    assert_eq!(burst.swap_remove(0).map(|packet| packet.bytes()[0]), Some(0));
    assert_eq!(order(&burst), [22, 1, 2, 10, 11, 12, 20, 21]);
    assert!(burst.swap_remove(8).is_none());
    let mut drain = burst.drain();
    assert_eq!(drain.next().map(|packet| packet.bytes()[0]), Some(22));
    drop(drain);
    assert_eq!((burst.len(), pool.in_use()), (0, 0));
    while pool.alloc().is_some_and(|packet| burst.push(packet).is_ok()) && burst.room() > 0 {}
    assert!(pool.alloc().is_some_and(|packet| burst.push(packet).is_err()), "a full burst gives it back");
    drop(burst);
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn a_packet_outlives_the_handles_of_its_pool() {
    let pool = pool(31);
    let packet = pool.packet(&frame(60, 9)).expect("a packet");
    drop(pool);
    drop(support::pool(31)); // frees pools that can be freed
    let thread = std::thread::spawn(move || packet.bytes() == frame(60, 9));
    assert!(thread.join().expect("ran"));
}

#[test]
fn pools_refuse_what_dpdk_would_not_survive() {
    let make = |name: &str, mbufs, cache, room| Pool::new(eal(), name, mbufs, cache, room, None);
    assert!(matches!(make("", 31, 0, 2048), Err(PoolError::Parameter { .. })));
    assert!(matches!(make(&"x".repeat(64), 31, 0, 2048), Err(PoolError::Parameter { .. })));
    assert!(matches!(make("a", 0, 0, 2048), Err(PoolError::Parameter { .. })));
    assert!(matches!(make("a", 31, 30, 2048), Err(PoolError::Parameter { .. })));
    assert!(matches!(make("a", 31, 0, 0), Err(PoolError::Parameter { .. })));
    assert!(matches!(make("a", 31, 0, u16::MAX), Err(PoolError::Parameter { .. })));
    let _a = make("twice", 31, 0, 2048).expect("a pool");
    assert!(matches!(make("twice", 31, 0, 2048), Err(PoolError::Parameter { .. })));
    let error = make("huge", 1 << 24, 0, 2048).expect_err("more than EAL has").to_string();
    assert!(error.contains("huge") && error.contains("memory"), "{error}");
}

#[test]
fn registered_threads_cache_buffers_and_lose_none() {
    let pool = Pool::new(eal(), &Pool::unique_name("cached"), 1023, 64, 256, None).expect("a pool");
    let stop = Arc::new(AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let guard = eal().register_thread().expect("a number is left");
                let again = eal().register_thread().expect("the same one");
                assert_eq!(guard.lcore(), again.lcore());
                drop(again);
                for _ in 0..1000 {
                    let mut burst = Burst::new();
                    assert!(pool.alloc_bulk(&mut burst, 32));
                }
                stop.store(true, Ordering::Relaxed);
            });
        }
    });
    assert!(stop.load(Ordering::Relaxed));
    assert_eq!(pool.in_use(), 0);
}

/// Writes its packets' numbers into them, `each` a burst, until `left` are written.
struct Numbers {
    next: u8,
    each: usize,
    left: usize,
    dropped: Arc<AtomicBool>,
}

impl Source for Numbers {
    fn fill(&mut self, buffers: &mut [Mbuf]) -> usize {
        let count = self.each.min(self.left);
        self.left -= count;
        for buffer in &mut buffers[..count] {
            buffer.bytes_mut().fill(self.next);
            self.next += 1;
        }
        count
    }
}

impl Drop for Numbers {
    fn drop(&mut self) {
        self.dropped.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_source_writes_what_a_device_receives_and_goes_with_it() {
    let pool = pool(255);
    let device = format!("net_null{}", number());
    let dropped = Arc::new(AtomicBool::new(false));
    source::offer(&device, 0, Box::new(Numbers { next: 1, each: 3, left: 5, dropped: Arc::clone(&dropped) }));
    let mut port = Port::attach(eal(), &format!("{device},size=60")).expect("attached");
    port.start(&PortConfig::new(pool.clone())).expect("started");
    let mut rx = port.take_rx(0).expect("free");
    let mut burst = Burst::new();
    let counts: Vec<usize> = (0..3).map(|_| rx.rx_burst(&mut burst)).collect();
    assert_eq!(counts, [3, 2, 0]);
    let received: Vec<Vec<u8>> = burst.drain().map(|packet| packet.bytes().to_vec()).collect();
    assert_eq!(received, (1..=5).map(|number| vec![number; 60]).collect::<Vec<_>>());
    assert_eq!(pool.in_use(), 0, "buffers without a packet went back");
    drop(rx);
    assert!(!dropped.load(Ordering::Relaxed));
    port.stop().expect("stopped");
    assert!(dropped.load(Ordering::Relaxed), "the source goes when the device stops");
    // Started again it is the device that it was: one that hands out buffers.
    port.start(&PortConfig::new(pool.clone())).expect("started");
    let mut rx = port.take_rx(0).expect("free");
    assert_eq!(rx.rx_burst(&mut burst), weir_ffi::BURST);
}
