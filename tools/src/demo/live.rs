//! The demonstration as root: two hosts in network namespaces, weir between them over DPDK.

use weir_tools::flows;
use weir_tools::lab::checks::{self, Seen};
use weir_tools::lab::weir::Driver;
use weir_tools::lab::{Pair, Resolution, Weir, peer};

use super::{DemoError, command, heading, note, outcome};

pub(super) fn run() -> Result<(), DemoError> {
    heading("Two hosts, and weir between them");
    let pair = Pair::new(Resolution::Dynamic)?;
    println!("    inside {} ---- port 1 [ weir ] port 2 ---- outside {}", pair.inside.v4, pair.outside.v4);
    println!("    each of the three in a network namespace of its own; the ports are DPDK's net_af_packet");
    let mut weir = Weir::start(&pair, Driver::AfPacket, flows::NAT)?;
    let outside = peer::serve(&pair, &pair.outside.namespace, "outside")?;
    let inside = peer::serve(&pair, &pair.inside.namespace, "inside")?;
    let to = pair.outside.v4;
    command("cat examples/nat.flows");
    outcome(flows::NAT, usize::MAX);
    note("outside has a route to 10.0.0.0/24 by way of inside, as a carrier's router has to its NAT");

    heading("A web page from inside: whom does the server outside see?");
    command(&format!("curl http://{to}:{}/", peer::HTTP));
    let seen = checks::page(&pair, to, Seen::Translated)?;
    outcome(&seen, 1);
    note("not 192.168.1.1, but an address of 10.0.0.1-255 and a port of 5000-50000");

    heading("Ten megabytes, checksum compared");
    command(&format!("curl http://{to}:{}/bytes/10000000 | sha256sum", peer::HTTP));
    checks::download(&pair, to, 10_000_000)?;
    note("the same bytes at both ends");

    heading("A ping");
    command(&format!("ping -c 5 -s 1400 {to}"));
    checks::ping(&pair, to, 1400)?;
    note("5 of 5 answered");

    heading("A connection from outside that nobody asked for");
    command(&format!("curl --connect-timeout 2 http://{}:{}/", pair.inside.v4, peer::HTTP));
    checks::unsolicited(&pair, &inside)?;
    note("refused by silence, though a server listens there");

    heading("The connections that weir tracks");
    let connections = shown(&weir, &["appctl", "dpctl/dump-conntrack"], 8)?;
    expect(connections.contains("dst=10.0.0."), "a translated connection in the dump")?;

    heading("The flows with their counters");
    let flows = shown(&weir, &["ofctl", "dump-flows", "br0"], 12)?;
    expect(flows.contains("n_packets="), "flows with counters")?;
    heading("The megaflows that they became");
    shown(&weir, &["appctl", "dpctl/dump-flows"], 8)?;
    heading("What a packet costs");
    let statistics = shown(&weir, &["appctl", "dpif-netdev/pmd-stats-show"], 20)?;
    expect(statistics.contains("cycles per packet"), "cycles per packet in the statistics")?;

    drop((inside, outside));
    let clean = weir.terminate()?;
    expect(clean, "weir to end without an error")?;
    heading("Done: namespaces, interfaces and processes are gone again");
    Ok(())
}

/// Runs a command of weir and shows it with what it prints.
fn shown(weir: &Weir, words: &[&str], most: usize) -> Result<String, DemoError> {
    command(&format!("weir {}", words.join(" ")));
    let text = weir.ctl(words)?;
    outcome(&text, most);
    Ok(text)
}

fn expect(holds: bool, what: &str) -> Result<(), DemoError> {
    if holds { Ok(()) } else { Err(DemoError::Unexpected(format!("expected {what}"))) }
}
