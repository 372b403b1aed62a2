//! What virtual devices can do to spread packets over queues, and how much of a request they take. Those over kernel
//! interfaces are in `namespaces.rs`.

#![allow(clippy::expect_used)]

mod support;

use support::{Scratch, eal, frame, number, pool, write_capture};
use weir_ffi::port::{Applied, AppliedRss, HashOver, RssCapabilities, RssConfig};
use weir_ffi::{Burst, Pool, Port, PortConfig};

fn rss(over: HashOver, table: Vec<u16>) -> RssConfig {
    RssConfig { key: [0x6d, 0x5a].repeat(20), over, table }
}

fn two_queues(pool: &Pool, rss: RssConfig) -> PortConfig {
    PortConfig { rx_queues: 2, tx_queues: 2, rss: Some(rss), ..PortConfig::new(pool.clone()) }
}

fn start(devargs: &str, config: &PortConfig) -> (Port, RssCapabilities, Applied) {
    let mut port = Port::attach(eal(), devargs).expect("attached");
    let can = port.info().expect("readable").rss;
    let applied = port.start(config).expect("started");
    (port, can, applied)
}

#[test]
fn the_null_device_takes_key_and_table_and_cannot_hash_one_address_alone() {
    let pool = pool(1023);
    let endpoints = two_queues(&pool, rss(HashOver::Endpoints, vec![0, 1, 1]));
    let (mut port, can, applied) = start(&format!("net_null{},no-rx=1", number()), &endpoints);
    assert!(can.any() && can.addresses && can.tcp && can.udp && can.sctp, "{can:?}");
    assert!(!can.source_only && !can.destination_only && can.table_size == 128, "{can:?}");
    let taken = AppliedRss { fields: true, key: true, table: true, hash_in_packet: can.hash_in_packet };
    assert_eq!((applied.rss, applied.notes), (Some(taken), vec![]));

    port.stop().expect("no queue is out");
    let source = two_queues(&pool, rss(HashOver::SourceAddress, vec![0, 1]));
    let applied = port.start(&source).expect("started");
    assert_eq!(applied.rss, Some(AppliedRss { fields: false, ..taken }));
    assert!(applied.notes.iter().any(|note| note.contains("the source address")), "{:?}", applied.notes);

    // A key beyond 40 bytes, and no table: neither is claimed.
    port.stop().expect("no queue is out");
    let config = RssConfig { key: vec![1; 52], ..rss(HashOver::Endpoints, vec![]) };
    let applied = port.start(&two_queues(&pool, config)).expect("started");
    assert_eq!(applied.rss, Some(AppliedRss { key: false, table: false, ..taken }));
    assert_eq!(
        applied.notes,
        [
            "the device's hash key has 40 bytes, 52 were to be set",
            "the device does not use the hash key",
            "the device does not use the redirection table"
        ]
    );
}

#[test]
fn captures_and_rings_spread_nothing_and_say_so() {
    let scratch = Scratch::new();
    let input = scratch.file("in.pcap");
    write_capture(&input, &[frame(60, 1)]);
    let capture = format!("net_pcap{},rx_pcap={1},rx_pcap={1}", number(), input.display());
    let ring = format!("net_ring{}", number());
    for (devargs, queues) in [(capture, 1), (ring, 2)] {
        let config =
            PortConfig { tx_queues: queues, ..two_queues(&pool(4095), rss(HashOver::Endpoints, vec![0, 1])) };
        let (port, can, applied) = start(&devargs, &config);
        assert_eq!((can, can.any()), (RssCapabilities::default(), false), "{devargs}");
        assert_eq!(applied.rss, None, "{devargs}");
        assert_eq!(applied.notes, ["the device spreads no packets over queues"], "{devargs}");
        assert!(port.take_rx(1).is_some(), "both queues are there all the same");
    }
}

#[test]
fn a_driver_that_computes_no_hash_passes_none_on() {
    let scratch = Scratch::new();
    let input = scratch.file("in.pcap");
    write_capture(&input, &[frame(60, 1)]);
    let config = PortConfig::new(pool(1023));
    let (port, _, _) = start(&format!("net_pcap{},rx_pcap={}", number(), input.display()), &config);
    let mut burst = Burst::new();
    assert_eq!(port.take_rx(0).expect("free").rx_burst(&mut burst), 1);
    assert!(burst.iter().all(|packet| packet.rss_hash().is_none()));
}
