//! weir between two hosts that run real programs, over each DPDK driver that works without hardware: what
//! the two example tables promise.
#![allow(clippy::expect_used, clippy::panic)] // a test may; helpers here are only called by tests

use std::time::Duration;

use weir_tools::flows;
use weir_tools::lab::checks::{self, CheckError, Seen};
use weir_tools::lab::weir::Driver;
use weir_tools::lab::{self, Pair, Resolution, Weir, peer};
use weir_tools::process::Background;

/// A laboratory with weir in the box. Fields drop in this order: the programs before their namespaces.
struct Bench {
    weir: Weir,
    _outside: Background,
    inside: Background,
    pair: Pair,
}

impl Bench {
    fn new(driver: Driver, resolution: Resolution, flows: &str) -> Self {
        let pair = Pair::new(resolution).unwrap_or_else(|error| panic!("{error}"));
        let weir = Weir::start(&pair, driver, flows).unwrap_or_else(|error| panic!("{error}"));
        let serve = |host: &lab::pair::Host, title| {
            peer::serve(&pair, &host.namespace, title).unwrap_or_else(|error| panic!("{error}"))
        };
        let (outside, inside) = (serve(&pair.outside, "outside"), serve(&pair.inside, "inside"));
        Self { weir, _outside: outside, inside, pair }
    }

    fn connections(&self) -> Vec<String> {
        self.weir.connections().unwrap_or_else(|error| panic!("{error}"))
    }

    /// The daemon is alive and ends as it should.
    fn finish(mut self) {
        assert!(self.weir.is_running(), "weir has ended by itself");
        let clean = self.weir.terminate().unwrap_or_else(|error| panic!("{error}"));
        assert!(clean, "weir ended with an error");
    }
}

fn hold(checked: Result<(), CheckError>) {
    checked.unwrap_or_else(|error| panic!("{error}"));
}

fn carries_everything(driver: Driver, flows: &str, seen: Seen) {
    if !lab::root_or_skip() {
        return;
    }
    let bench = Bench::new(driver, Resolution::Dynamic, flows);
    let (pair, to) = (&bench.pair, bench.pair.outside.v4);
    hold(checks::page(pair, to, seen).map(drop));
    hold(checks::download(pair, to, 100_000_000));
    hold(checks::udp(pair, to));
    hold(checks::ping(pair, to, 56));
    hold(checks::ping(pair, to, 1400));
    hold(checks::parallel(pair, to, 200));
    hold(checks::unsolicited(pair, &bench.inside));
    let original = format!("tcp,orig=(src={},dst={to},", pair.inside.v4);
    assert!(bench.connections().iter().any(|line| line.starts_with(&original)), "{:?}", bench.connections());
    bench.finish();
}

#[test]
fn nat_over_af_packet_carries_everything() {
    carries_everything(Driver::AfPacket, flows::NAT, Seen::Translated);
}

#[test]
fn nat_over_af_xdp_carries_everything() {
    carries_everything(Driver::AfXdp, flows::NAT, Seen::Translated);
}

#[test]
fn acl_over_af_packet_carries_everything() {
    carries_everything(Driver::AfPacket, flows::ACL, Seen::Itself);
}

#[test]
fn acl_over_af_xdp_carries_everything() {
    carries_everything(Driver::AfXdp, flows::ACL, Seen::Itself);
}

fn idles(driver: Driver, flows: &str, seen: Seen) {
    if !lab::root_or_skip() {
        return;
    }
    let bench = Bench::new(driver, Resolution::Dynamic, flows);
    // Longer than tcp_syn_sent and tcp_syn_recv (30 s): a connection that was never seen as established dies.
    hold(checks::idle(&bench.pair, bench.pair.outside.v4, Duration::from_secs(33), seen));
    bench.finish();
}

#[test]
fn a_translated_connection_idles_and_goes_on_over_af_packet() {
    idles(Driver::AfPacket, flows::NAT, Seen::Translated);
}

#[test]
fn a_translated_connection_idles_and_goes_on_over_af_xdp() {
    idles(Driver::AfXdp, flows::NAT, Seen::Translated);
}

#[test]
fn a_filtered_connection_idles_and_goes_on_over_af_packet() {
    idles(Driver::AfPacket, flows::ACL, Seen::Itself);
}

#[test]
fn a_filtered_connection_idles_and_goes_on_over_af_xdp() {
    idles(Driver::AfXdp, flows::ACL, Seen::Itself);
}

fn carries_ipv6(driver: Driver) {
    if !lab::root_or_skip() {
        return;
    }
    // Neighbour discovery is IPv6, and the table lets no untracked or invalid IPv6 through: neighbours by hand.
    let bench = Bench::new(driver, Resolution::Static, flows::ACL6);
    let (pair, to) = (&bench.pair, bench.pair.outside.v6);
    hold(checks::page(pair, to, Seen::Itself).map(drop));
    hold(checks::download(pair, to, 20_000_000));
    hold(checks::udp(pair, to));
    hold(checks::ping(pair, to, 1400));
    hold(checks::parallel(pair, to, 50));
    bench.finish();
}

#[test]
fn ipv6_through_the_acl_over_af_packet() {
    carries_ipv6(Driver::AfPacket);
}

#[test]
fn ipv6_through_the_acl_over_af_xdp() {
    carries_ipv6(Driver::AfXdp);
}

#[test]
fn a_second_connection_through_a_pool_of_one_port_is_dropped_and_counted() {
    if !lab::root_or_skip() {
        return;
    }
    let bench = Bench::new(Driver::AfPacket, Resolution::Dynamic, &flows::one_port_nat());
    let (pair, to) = (&bench.pair, bench.pair.outside.v4);
    let first = checks::datagram(pair, to, 40_000).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(first.as_deref(), Some("10.0.0.1 5000"));
    let second = checks::datagram(pair, to, 40_001).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(second, None, "nothing may come back, and nothing may have left with a private address");
    let again = checks::datagram(pair, to, 40_000).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(again.as_deref(), Some("10.0.0.1 5000"), "the first connection lives on");
    let seen = bench._outside.log().unwrap_or_else(|error| panic!("{error}"));
    let strangers: Vec<_> =
        seen.lines().filter(|line| line.starts_with("udp") && *line != "udp 10.0.0.1 5000").collect();
    assert!(strangers.is_empty(), "outside saw {strangers:?}");
    let udp =
        bench.connections().iter().filter(|line| line.starts_with("udp,orig=(src=192.168.1.1,")).count();
    assert_eq!(udp, 1);
    let counters = bench.weir.ctl(&["appctl", "coverage/show"]).unwrap_or_else(|error| panic!("{error}"));
    let counted = counters.lines().any(|line| line.contains("nat") && line.contains("exhausted"));
    assert!(counted, "the drop is counted:\n{counters}");
    bench.finish();
}

#[test]
fn the_example_tables_load_unchanged_with_add_flows_while_weir_runs() {
    if !lab::root_or_skip() {
        return;
    }
    let bench = Bench::new(Driver::AfPacket, Resolution::Dynamic, "priority=0,actions=drop");
    let (pair, to) = (&bench.pair, bench.pair.outside.v4);
    let ofctl = |words: &[&str]| {
        let words: Vec<&str> = ["ofctl"].into_iter().chain(words.iter().copied()).collect();
        bench.weir.ctl(&words).unwrap_or_else(|error| panic!("{error}"))
    };
    for (table, seen) in [("nat", Seen::Translated), ("acl", Seen::Itself)] {
        ofctl(&["del-flows", "br0"]);
        let file = format!("{}/../examples/{table}.flows", env!("CARGO_MANIFEST_DIR"));
        ofctl(&["add-flows", "br0", &file]);
        hold(checks::page(pair, to, seen).map(drop));
        hold(checks::download(pair, to, 5_000_000));
        hold(checks::unsolicited(pair, &bench.inside));
    }
    bench.finish();
}
