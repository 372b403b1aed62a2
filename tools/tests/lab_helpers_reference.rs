//! File transfers and large pings with weir in the box and with Debian's Open vSwitch in it: both must carry them,
//! and show the same connections, numbers drawn at random aside.
#![allow(clippy::expect_used, clippy::panic)] // a test may; helpers here are only called by tests

use std::fmt::Display;
use std::time::Duration;

use weir_tools::flows;
use weir_tools::lab::files::{Client, FileServer, Mode};
use weir_tools::lab::helped::{self, PUBLISHED, SNAT, SNAT6, helped};
use weir_tools::lab::weir::Driver;
use weir_tools::lab::{self, Pair, Weir, checks};
use weir_tools::ovs::{self, OvsNetdev};
use weir_tools::process;

fn hold<T, E: Display>(checked: Result<T, E>) -> T {
    checked.unwrap_or_else(|error| panic!("{error}"))
}

/// A line of the dump without what is drawn at random: ports but those of services, identifiers, and which address
/// of a pool.
fn shape(line: &str) -> String {
    let blur = |part: &str| {
        let word = part.trim_end_matches([',', '(', ')']);
        let (Some((name, value)), end) = (word.split_once('='), &part[word.len()..]) else {
            return part.to_owned();
        };
        let drawn = match name {
            "sport" | "dport" => !["20", "21", "69"].contains(&value),
            "id" => true,
            "src" | "dst" => value.starts_with("10.0.0.") || value.starts_with("fd00:0:0:2:"),
            _ => false,
        };
        if drawn { format!("{name}=*{end}") } else { part.to_owned() }
    };
    line.split_inclusive([',', '(', ')']).map(blur).collect()
}

/// The connections once those of TCP are closed: the last segments are still under way when a client ends.
fn settled<E: Display>(connections: impl Fn() -> Result<Vec<String>, E>) -> Vec<String> {
    let mut shown = Vec::new();
    let waited = process::wait_until("every connection closes", Duration::from_secs(30), || {
        shown = hold(connections());
        shown.iter().all(|line| !line.starts_with("tcp,") || line.contains("state=TIME_WAIT"))
    });
    waited.unwrap_or_else(|error| panic!("{error}: {shown:#?}"));
    let mut shapes: Vec<_> = shown.iter().map(|line| shape(line)).collect();
    shapes.sort();
    shapes
}

/// Does the same through weir and through Open vSwitch; returns what both show.
fn compare(flows: &str, transfer: impl Fn(&Pair)) -> Vec<String> {
    let through_weir = {
        let pair = hold(helped::pair());
        let weir = hold(Weir::start(&pair, Driver::AfXdp, flows));
        transfer(&pair);
        settled(|| weir.connections())
    };
    let through_ovs = {
        let pair = hold(helped::pair());
        let ovs = hold(OvsNetdev::start(&pair, flows));
        transfer(&pair);
        settled(|| ovs.connections())
    };
    assert_eq!(through_weir, through_ovs, "weir's connections are on the left, Open vSwitch's on the right");
    through_weir
}

fn can_run() -> bool {
    if ovs::daemon().is_none() {
        println!("skipped: needs Open vSwitch (tools/setup test)");
        return false;
    }
    lab::root_or_skip()
}

/// A listing, a file read and one written in each mode.
fn ftp(flows: &str, address: &str, modes: &[Mode]) {
    if !can_run() {
        return;
    }
    let address = address.parse().expect("an address");
    let shown = compare(flows, |pair| {
        let server = hold(FileServer::ftp(pair, &pair.outside, 21, 1_000_000));
        for &mode in modes {
            let client = Client::ftp(pair, address, 21, mode);
            hold(client.list());
            hold(client.read(&server));
            hold(client.write(&server, mode.command()));
            assert_eq!(server.log().matches(mode.agreement()).count(), 3, "{mode:?}:\n{}", server.log());
        }
    });
    // A control and a data connection each.
    assert_eq!(shown.len(), modes.len() * 3 * 2, "{shown:#?}");
    assert_eq!(shown.iter().filter(|line| line.ends_with("helper=ftp")).count(), modes.len() * 3);
}

/// Over IPv4 Open vSwitch reads PORT and PASV alone.
const CLASSIC: [Mode; 2] = [Mode::Port, Mode::Passive];

#[test]
fn ftp_from_behind_source_translation_shows_as_in_open_vswitch() {
    ftp(&helped("ip", "tcp,tp_dst=21", ",alg=ftp", SNAT), "192.168.1.2", &CLASSIC);
}

#[test]
fn ftp_to_a_server_behind_destination_translation_shows_as_in_open_vswitch() {
    let control = format!("tcp,nw_dst={PUBLISHED},tp_dst=21");
    ftp(&helped("ip", &control, ",alg=ftp", ",nat(dst=192.168.1.2)"), PUBLISHED, &CLASSIC);
}

#[test]
fn ftp_without_translation_shows_as_in_open_vswitch() {
    ftp(&helped("ip", "tcp,tp_dst=21", ",alg=ftp", ""), "192.168.1.2", &CLASSIC);
}

#[test]
fn ftp_over_ipv6_from_behind_source_translation_shows_as_in_open_vswitch() {
    ftp(&helped("ipv6", "tcp6,tp_dst=21", ",alg=ftp", SNAT6), "fd00:0:0:1::2", &Mode::EXTENDED);
}

#[test]
fn tftp_from_behind_source_translation_shows_as_in_open_vswitch() {
    if !can_run() {
        return;
    }
    let shown = compare(&helped("ip", "udp,tp_dst=69", ",alg=tftp", SNAT), |pair| {
        let server = hold(FileServer::tftp(pair, &pair.outside, 50_000));
        let client = Client::tftp(pair, pair.outside.v4);
        hold(client.read(&server));
        hold(client.write(&server, "sent"));
    });
    assert_eq!(shown.len(), 4, "{shown:#?}");
}

/// Open vSwitch 3.1 loses datagrams of more than 32 fragments: 44 000 bytes are 30 of them, 48 000 would be 33.
#[test]
fn pings_of_44_000_bytes_show_as_in_open_vswitch() {
    if !can_run() {
        return;
    }
    let shown = compare(flows::NAT, |pair| hold(checks::large_ping(pair, pair.outside.v4, 44_000)));
    assert_eq!(shown.len(), 1, "{shown:#?}");
}
