//! EAL goes with the last thing made from it, and cannot come back. A process of its own, since it ends EAL.
#![allow(clippy::expect_used)]

use weir_ffi::{Burst, Eal, EalConfig, EalError, Pool, Port, PortConfig};

#[test]
fn eal_is_cleaned_up_with_the_last_handle_in_any_order() {
    let eal = Eal::init(EalConfig::lab(64)).expect("started");
    let pool = Pool::new(&eal, "pool", 255, 0, 2048, None).expect("a pool");
    let mut port = Port::attach(&eal, "net_null0").expect("attached");
    let guard = std::thread::spawn({
        let eal = eal.clone();
        move || eal.register_thread().map(|guard| guard.lcore())
    });
    assert!(guard.join().expect("ran").expect("a number is left") > 0);
    port.start(&PortConfig::new(pool.clone())).expect("started");
    let (mut rx, tx) = (port.take_rx(0).expect("free"), port.take_tx(0).expect("free"));
    let mut burst = Burst::new();
    assert!(rx.rx_burst(&mut burst) > 0);
    drop(eal);
    drop(port);
    drop(pool);
    assert!(
        burst.iter().all(|packet| packet.bytes().len() == packet.len()),
        "packets outlive their makers' handles"
    );
    assert!(rx.rx_burst(&mut Burst::new()) > 0, "a queue keeps its port running");
    drop(burst);
    drop(rx);
    drop(tx); // the last: detaches the port, frees the pool, ends EAL
    assert!(matches!(Eal::init(EalConfig::lab(64)), Err(EalError::AlreadyStarted)));
    for base in ["/var/run/dpdk", "/tmp/dpdk"] {
        let left = std::path::Path::new(base).join(format!("weir-{}", std::process::id()));
        assert!(!left.exists(), "{} is left", left.display());
    }
}
