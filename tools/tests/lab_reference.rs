//! The laboratory itself, with Debian's Open vSwitch in the box: topology, programs and checks must hold there,
//! so that a failure with weir in the box is weir's.
#![allow(clippy::expect_used, clippy::panic)] // a test may; helpers here are only called by tests

use std::time::Duration;

use weir_tools::flows;
use weir_tools::lab::checks::{self, Seen};
use weir_tools::lab::{self, Pair, Resolution, peer};
use weir_tools::ovs::{self, OvsNetdev};

fn can_run() -> bool {
    if ovs::daemon().is_none() {
        println!("skipped: needs Open vSwitch (tools/setup test)");
        return false;
    }
    lab::root_or_skip()
}

#[test]
fn open_vswitch_carries_the_nat_example() {
    if !can_run() {
        return;
    }
    let pair = Pair::new(Resolution::Dynamic).expect("the laboratory stands");
    let mut ovs = OvsNetdev::start(&pair, flows::NAT).expect("Open vSwitch starts");
    let _outside = peer::serve(&pair, &pair.outside.namespace, "outside").expect("servers outside");
    let inside = peer::serve(&pair, &pair.inside.namespace, "inside").expect("servers inside");
    let to = pair.outside.v4;
    checks::page(&pair, to, Seen::Translated).unwrap_or_else(|error| panic!("{error}"));
    checks::download(&pair, to, 10_000_000).unwrap_or_else(|error| panic!("{error}"));
    checks::udp(&pair, to).unwrap_or_else(|error| panic!("{error}"));
    checks::ping(&pair, to, 1400).unwrap_or_else(|error| panic!("{error}"));
    checks::idle(&pair, to, Duration::from_secs(1), Seen::Translated)
        .unwrap_or_else(|error| panic!("{error}"));
    checks::parallel(&pair, to, 200).unwrap_or_else(|error| panic!("{error}"));
    checks::unsolicited(&pair, &inside).unwrap_or_else(|error| panic!("{error}"));
    assert!(
        ovs.connections().expect("dump").iter().any(|line| line.starts_with("tcp,orig=(src=192.168.1.1,"))
    );
    assert!(ovs.is_running());
}

#[test]
fn open_vswitch_carries_ipv6_through_the_acl() {
    if !can_run() {
        return;
    }
    let pair = Pair::new(Resolution::Static).expect("the laboratory stands");
    let _ovs = OvsNetdev::start(&pair, flows::ACL6).expect("Open vSwitch starts");
    let _outside = peer::serve(&pair, &pair.outside.namespace, "outside").expect("servers outside");
    let to = pair.outside.v6;
    checks::page(&pair, to, Seen::Itself).unwrap_or_else(|error| panic!("{error}"));
    checks::udp(&pair, to).unwrap_or_else(|error| panic!("{error}"));
    checks::ping(&pair, to, 1400).unwrap_or_else(|error| panic!("{error}"));
}
