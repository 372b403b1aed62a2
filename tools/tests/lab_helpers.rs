//! File transfers with real programs through weir: protocols that announce their data connections, which the
//! helpers must follow and translation must keep true.
#![allow(clippy::expect_used, clippy::panic)] // a test may; helpers here are only called by tests

use std::net::IpAddr;
use std::time::Duration;

use weir_tools::flows;
use weir_tools::lab::checks;
use weir_tools::lab::files::{Client, FileServer, Mode, OFFERED};
use weir_tools::lab::helped::{self, PUBLISHED, PUBLISHED6, SNAT, SNAT6, helped};
use weir_tools::lab::weir::Driver;
use weir_tools::lab::{self, Pair, Weir, peer};
use weir_tools::process;

/// Of the file that is read and written.
const BYTES: usize = 3_000_000;
/// For how long the last segments of a transfer may be under way when the client has ended.
const PATIENCE: Duration = Duration::from_secs(30);
struct Bench {
    weir: Weir,
    pair: Pair,
}

fn hold<T, E: std::fmt::Display>(checked: Result<T, E>) -> T {
    checked.unwrap_or_else(|error| panic!("{error}"))
}

impl Bench {
    fn new(driver: Driver, flows: &str) -> Self {
        let pair = hold(helped::pair());
        let weir = hold(Weir::start(&pair, driver, flows));
        Self { weir, pair }
    }

    fn appctl(&self, words: &[&str]) -> String {
        let words: Vec<&str> = ["appctl"].into_iter().chain(words.iter().copied()).collect();
        hold(self.weir.ctl(&words))
    }

    fn connections(&self) -> Vec<String> {
        hold(self.weir.connections())
    }

    /// The connections, once all of them are closed: the last segments are still under way when a client ends.
    fn settled(&self) -> Vec<String> {
        let mut connections = Vec::new();
        let waited = process::wait_until("every connection closes", PATIENCE, || {
            connections = self.connections();
            connections.iter().all(|line| line.contains("state=TIME_WAIT"))
        });
        waited.unwrap_or_else(|error| panic!("{error}: {connections:#?}"));
        connections
    }

    /// The client's own address, and the server's, of the family of `like`.
    fn client(&self, like: IpAddr) -> IpAddr {
        if like.is_ipv4() { self.pair.inside.v4 } else { self.pair.inside.v6 }
    }

    fn server(&self, like: IpAddr) -> IpAddr {
        if like.is_ipv4() { self.pair.outside.v4 } else { self.pair.outside.v6 }
    }

    /// Sets timeouts of the zone that all tables here use, for connections to come.
    fn timeouts(&self, words: &[&str]) {
        let words: Vec<&str> = ["zone", "set-timeout", "0"].iter().chain(words).copied().collect();
        hold(self.weir.ctl(&words));
    }

    /// Waits until everything has run out by itself, which takes as long as the zone's timeouts say.
    fn runs_out(&self) {
        let waited = process::wait_until("every connection runs out", PATIENCE, || {
            self.connections().is_empty() && self.appctl(&["dpctl/dump-conntrack-exp"]).is_empty()
        });
        waited.unwrap_or_else(|error| panic!("{error}: {:#?}", self.connections()));
    }

    /// After a flush nothing is left, neither of connections nor of what was expected, and weir ends as it should.
    fn finish(mut self) {
        assert_eq!(self.appctl(&["dpctl/dump-conntrack-exp"]), "", "every expectation has served");
        self.appctl(&["dpctl/flush-conntrack"]);
        assert_eq!(self.connections(), Vec::<String>::new());
        assert_eq!(self.appctl(&["dpctl/dump-conntrack-exp"]), "");
        assert!(self.weir.is_running(), "weir has ended by itself");
        assert!(hold(self.weir.terminate()), "weir ended with an error");
    }
}

/// Reads a directory, a file, and writes one, in each mode, and looks at what weir has kept of it: the control
/// connections with their helper, and data connections that have the mark of theirs, so they were related.
fn transfers(bench: &Bench, server: &FileServer, address: IpAddr, port: u16, modes: &[Mode]) {
    for &mode in modes {
        let client = Client::ftp(&bench.pair, address, port, mode);
        assert_eq!(hold(client.list()), ["incoming", OFFERED], "{mode:?}");
        hold(client.read(server));
        hold(client.write(server, mode.command()));
        let connections = bench.settled();
        let (controls, data): (Vec<_>, Vec<_>) = connections
            .iter()
            .partition(|line| line.ends_with("mark=7,protoinfo=(state=TIME_WAIT),helper=ftp"));
        assert_eq!((controls.len(), data.len()), (3, 3), "{mode:?}: {connections:#?}");
        assert!(controls.iter().all(|line| line.contains(&format!("dport={port})"))), "{controls:#?}");
        let opener = if mode.is_active() { bench.server(address) } else { bench.client(address) };
        let expected = format!("tcp,orig=(src={opener},");
        for line in data {
            assert!(line.starts_with(&expected), "{mode:?} has {line}, not {expected}");
            assert!(line.ends_with(",mark=7,protoinfo=(state=TIME_WAIT)"), "{mode:?} has {line}");
        }
        assert_eq!(bench.appctl(&["dpctl/dump-conntrack-exp"]), "", "every expectation has served");
        bench.appctl(&["dpctl/flush-conntrack"]);
        let log = server.log();
        assert!(
            log.contains(&format!("\"{}", mode.command())),
            "the server was asked in another way:\n{log}"
        );
    }
}

fn ftp(driver: Driver, flows: &str, address: Option<&str>, port: (u16, u16), modes: &[Mode]) {
    if !lab::root_or_skip() {
        return;
    }
    let bench = Bench::new(driver, flows);
    let server = hold(FileServer::ftp(&bench.pair, &bench.pair.outside, port.0, BYTES));
    let address = address.map_or(
        if modes.contains(&Mode::Port) { bench.pair.outside.v4 } else { bench.pair.outside.v6 },
        |text| text.parse().expect("an address"),
    );
    transfers(&bench, &server, address, port.1, modes);
    bench.finish();
}

#[test]
fn ftp_from_behind_source_translation_over_af_packet() {
    ftp(Driver::AfPacket, &helped("ip", "tcp,tp_dst=21", ",alg=ftp", SNAT), None, (21, 21), &Mode::ALL);
}

#[test]
fn ftp_from_behind_source_translation_over_af_xdp() {
    ftp(Driver::AfXdp, &helped("ip", "tcp,tp_dst=21", ",alg=ftp", SNAT), None, (21, 21), &Mode::ALL);
}

#[test]
fn ftp_to_a_server_behind_destination_translation_to_another_port() {
    let control = format!("tcp,nw_dst={PUBLISHED},tp_dst=2121");
    let flows = helped("ip", &control, ",alg=ftp", ",nat(dst=192.168.1.2:21)");
    ftp(Driver::AfXdp, &flows, Some(PUBLISHED), (21, 2121), &Mode::ALL);
}

#[test]
fn ftp_without_translation_at_a_port_of_its_own() {
    ftp(Driver::AfXdp, &helped("ip", "tcp,tp_dst=2121", ",alg=ftp", ""), None, (2121, 2121), &Mode::ALL);
}

#[test]
fn ftp_over_ipv6_without_translation() {
    ftp(Driver::AfPacket, &helped("ipv6", "tcp6,tp_dst=21", ",alg=ftp", ""), None, (21, 21), &Mode::EXTENDED);
}

#[test]
fn ftp_over_ipv6_from_behind_source_translation() {
    ftp(Driver::AfXdp, &helped("ipv6", "tcp6,tp_dst=21", ",alg=ftp", SNAT6), None, (21, 21), &Mode::EXTENDED);
}

#[test]
fn ftp_over_ipv6_to_a_server_behind_destination_translation_to_another_port() {
    let control = format!("tcp6,ipv6_dst={PUBLISHED6},tp_dst=2121");
    let flows = helped("ipv6", &control, ",alg=ftp", ",nat(dst=[fd00:0:0:1::2]:21)");
    ftp(Driver::AfXdp, &flows, Some(PUBLISHED6), (21, 2121), &Mode::EXTENDED);
}

#[test]
fn two_clients_behind_one_address_may_announce_the_same_port() {
    if !lab::root_or_skip() {
        return;
    }
    let flows = helped("ip", "tcp,tp_dst=21", ",alg=ftp", ",nat(src=10.0.0.1)");
    let bench = Bench::new(Driver::AfXdp, &flows);
    let server = hold(FileServer::ftp(&bench.pair, &bench.pair.outside, 21, BYTES));
    let second = IpAddr::from([192, 168, 1, 3]);
    hold(bench.pair.inside.namespace.address("eth0", "192.168.1.3/24"));
    for address in [bench.pair.inside.v4, second] {
        let client = Client::ftp(&bench.pair, bench.pair.outside.v4, 21, Mode::Port).from(address, 40_000);
        hold(client.read(&server));
    }
    // 40000 is 156 * 256 + 64. From port 20 of the server, it leads to the first client for as long as that lives.
    let log = server.log();
    let ports: Vec<_> = log.lines().filter_map(|line| line.split_once("\"PORT 10,0,0,1,")).collect();
    assert_eq!(ports.len(), 2, "{log}");
    assert_eq!(ports.iter().filter(|(_, port)| *port == "156,64\"").count(), 1, "{ports:?}");
    let connections = bench.settled();
    for address in ["192.168.1.1", "192.168.1.3"] {
        let data = format!("reply=(src={address},dst=192.168.1.2,sport=40000,dport=20)");
        assert_eq!(connections.iter().filter(|line| line.contains(&data)).count(), 1, "{connections:#?}");
    }
    bench.finish();
}

#[test]
fn an_announcement_that_nobody_follows_is_expected_until_its_control_connection_is_gone() {
    if !lab::root_or_skip() {
        return;
    }
    let bench = Bench::new(Driver::AfXdp, &helped("ip", "tcp,tp_dst=21", ",alg=ftp", SNAT));
    let _server = hold(FileServer::ftp(&bench.pair, &bench.pair.outside, 21, BYTES));
    bench.timeouts(&["tcp_time_wait=2", "tcp_close=2"]);
    let client = Client::ftp(&bench.pair, bench.pair.outside.v4, 21, Mode::ExtendedPassive);
    assert_eq!(hold(client.announce("PORT 192,168,1,1,200,1")), ["incoming", OFFERED]);
    let expected = bench.appctl(&["dpctl/dump-conntrack-exp"]);
    assert!(expected.contains("dport=51201") && expected.trim_end().ends_with("helper=ftp"), "{expected}");
    assert_eq!(expected.lines().count(), 1, "what has served is no longer expected: {expected}");
    bench.runs_out();
    bench.finish();
}

#[test]
fn tftp_from_behind_source_translation_reads_and_writes() {
    if !lab::root_or_skip() {
        return;
    }
    let bench = Bench::new(Driver::AfXdp, &helped("ip", "udp,tp_dst=69", ",alg=tftp", SNAT));
    let server = hold(FileServer::tftp(&bench.pair, &bench.pair.outside, 200_000));
    bench.timeouts(&["udp_first=2", "udp_single=2", "udp_multiple=2"]);
    let client = Client::tftp(&bench.pair, bench.pair.outside.v4);
    hold(client.read(&server));
    hold(client.write(&server, "sent"));
    let connections = bench.connections();
    // The server answers a request from a port of its own (RFC 1350 section 4).
    let (requests, transfers): (Vec<_>, Vec<_>) =
        connections.iter().partition(|line| line.ends_with(",mark=7,helper=tftp"));
    assert_eq!((requests.len(), transfers.len()), (2, 2), "{connections:#?}");
    assert!(requests.iter().all(|line| line.starts_with("udp,orig=(src=192.168.1.1,")), "{connections:#?}");
    assert!(transfers.iter().all(|line| line.starts_with("udp,orig=(src=192.168.1.2,dst=10.0.0.")));
    assert!(transfers.iter().all(|line| line.ends_with(",mark=7")), "{connections:#?}");
    bench.runs_out();
    bench.finish();
}

/// Five pings of 60 000 bytes each way, as weir counts the fragments of each family, `4` or `6`.
fn large_pings(bench: &Bench, to: IpAddr, family: u8) {
    hold(checks::large_ping(&bench.pair, to, 60_000));
    let status = bench.appctl(&["dpctl/ipf-get-status"]);
    let count = |what: &str| -> u32 {
        let line = status.lines().find_map(|line| line.trim().strip_prefix(&format!("{what}: ")));
        line.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("no {what} in\n{status}"))
    };
    assert_eq!(count("num frag"), 0, "nothing may be held back:\n{status}");
    let accepted = count(&format!("v{family} frags accepted"));
    // 1480 or 1448 bytes of payload each, and ten datagrams.
    assert!(accepted >= 410, "{status}");
    assert_eq!(count(&format!("v{family} frags completed")), accepted, "{status}");
    for bad in ["expired", "too small", "overlapped", "purged"] {
        assert_eq!(count(&format!("v{family} frags {bad}")), 0, "{status}");
    }
}

#[test]
fn pings_of_60_000_bytes_through_the_nat_example() {
    if !lab::root_or_skip() {
        return;
    }
    // Over net_af_packet the kernel puts fragments together before weir sees them.
    let bench = Bench::new(Driver::AfXdp, flows::NAT);
    large_pings(&bench, bench.pair.outside.v4, 4);
    let connections = bench.connections();
    let pings: Vec<_> = connections.iter().filter(|line| line.starts_with("icmp,")).collect();
    assert_eq!(pings.len(), 1, "all of a ping's datagrams are one connection: {connections:#?}");
    assert!(pings[0].contains("reply=(src=192.168.1.2,dst=10.0.0."), "{}", pings[0]);
    bench.finish();
}

/// Over IPv6, whose later fragments show protocol 44 and no other: the table must not ask for icmp6.
fn large_pings6(translation: &str, seen: &str) {
    if !lab::root_or_skip() {
        return;
    }
    let flows = helped("ipv6", "ipv6", "", translation);
    let bench = Bench::new(Driver::AfXdp, &flows);
    large_pings(&bench, bench.pair.outside.v6, 6);
    let connections = bench.connections();
    let pings: Vec<_> = connections.iter().filter(|line| line.starts_with("icmpv6,")).collect();
    assert_eq!(pings.len(), 1, "{connections:#?}");
    assert!(pings[0].contains(&format!("reply=(src=fd00:0:0:1::2,dst={seen}")), "{}", pings[0]);
    bench.finish();
}

#[test]
fn pings_of_60_000_bytes_over_ipv6() {
    large_pings6("", "fd00:0:0:1::1,");
}

#[test]
fn pings_of_60_000_bytes_over_ipv6_from_behind_source_translation() {
    large_pings6(SNAT6, "fd00:0:0:2::");
}

#[test]
fn datagrams_of_60_000_bytes_from_behind_source_translation() {
    if !lab::root_or_skip() {
        return;
    }
    for (ip, translation) in [("ip", SNAT), ("ipv6", SNAT6)] {
        let bench = Bench::new(Driver::AfXdp, &helped(ip, ip, "", translation));
        let outside = &bench.pair.outside;
        let _echo = hold(peer::serve(&bench.pair, &outside.namespace, "outside"));
        let to = if ip == "ip" { outside.v4 } else { outside.v6 }.to_string();
        hold(peer::client(&bench.pair, &bench.pair.inside.namespace, &["udp", &to, "5", "60000"]));
        bench.finish();
    }
}
