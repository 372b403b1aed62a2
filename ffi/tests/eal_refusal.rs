//! EAL that does not start says why. A process of its own, since it can be tried once.
#![allow(clippy::expect_used)]

use std::sync::{Arc, Mutex};

use weir_ffi::{Eal, EalConfig, EalError};

#[test]
fn an_eal_that_does_not_start_says_why_and_leaves_the_affinity_alone() {
    let parallelism = || std::thread::available_parallelism().expect("known");
    let before = parallelism();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&heard);
    let mut config = EalConfig::lab(64);
    config.extra = vec!["-d".to_owned(), "/no/such/driver.so".to_owned()];
    config.log = Some(Box::new(move |line| sink.lock().expect("unpoisoned").push(line.text.clone())));
    let error = Eal::init(config).expect_err("there is no such driver");
    assert!(matches!(error, EalError::Start { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("/no/such/driver.so") && text.contains("DPDK's log"), "{text}");
    assert_eq!(parallelism(), before);
    assert!(heard.lock().expect("unpoisoned").iter().any(|line| line.contains("/no/such/driver.so")));
    assert!(matches!(Eal::init(EalConfig::lab(64)), Err(EalError::AlreadyStarted)));
}
