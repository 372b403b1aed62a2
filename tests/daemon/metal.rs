//! Profile metal: what it lacks it says before DPDK starts; with hugepages it runs.

use std::fs;
use std::process::Command;

use crate::rig::{Daemon, Scratch, bridge, root_or_skip, udp};

const PAGES: &str = "/proc/sys/vm/nr_hugepages";
const METAL: &str = "profile = \"metal\"\nsocket = \"weir.sock\"\nmemory_mib = 128\n[conntrack]\ncapacity = 1000\n[pool]\nmbufs = 8191\n";

/// Hugepages that go back where they came from, unless someone else has changed their number meanwhile.
struct Reserved {
    before: u64,
    wanted: u64,
}

fn reserved() -> Result<u64, String> {
    let text = fs::read_to_string(PAGES).map_err(|error| format!("{PAGES}: {error}"))?;
    text.trim().parse().map_err(|error| format!("{PAGES}: {error}"))
}

impl Reserved {
    /// `count` more than there are, or what to print.
    fn more(count: u64) -> Result<Self, String> {
        let before = reserved()?;
        let pages = Self { before, wanted: before + count };
        fs::write(PAGES, pages.wanted.to_string()).map_err(|error| format!("{PAGES}: {error}"))?;
        match reserved()? {
            had if had >= pages.wanted => Ok(pages),
            had => {
                let _ = fs::write(PAGES, before.to_string());
                Err(format!("the kernel gave {had} of {} hugepages", pages.wanted))
            }
        }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if reserved() == Ok(self.wanted) {
            let _ = fs::write(PAGES, self.before.to_string());
        }
    }
}

#[test]
fn what_the_machine_lacks_is_named_with_the_command_that_mends_it() {
    let config = METAL.replace("memory_mib = 128", "memory_mib = 1_048_576")
        + &bridge(&["0000:ff:1f.7", "net_null0,no-rx=1"]);
    let mut daemon =
        Daemon::spawn(Scratch::new("unready"), &config, &mut Command::new(env!("CARGO_BIN_EXE_weir")), &[]);
    let (code, log) = daemon.wait();
    assert_eq!(code, 1, "{log}");
    for part in [
        "not ready for profile metal",
        "1048576 MiB are needed",
        "nr_hugepages",
        "0000:ff:1f.7",
        "dpdk-devbind.py",
    ] {
        assert!(log.contains(part), "{part} in\n{log}");
    }
    assert!(!log.contains("DPDK started"));
    daemon.leaves_nothing();
}

#[test]
fn with_hugepages_it_carries_packets() {
    if !root_or_skip("profile metal") {
        return;
    }
    let _pages = match Reserved::more(128) {
        Ok(pages) => pages,
        Err(reason) => return println!("skipped: profile metal needs hugepages: {reason}"),
    };
    let scratch = Scratch::new("metal");
    scratch.write("flows", "in_port=1,actions=2\nin_port=2,actions=3\n");
    let frames: Vec<_> = (0..100).map(|n| udp(n, 1, 80)).collect();
    let input = scratch.capture("in.pcap", &frames);
    let output = format!("net_pcap1,tx_pcap={}", scratch.text("out.pcap"));
    let config =
        METAL.to_owned() + &bridge(&[&format!("net_pcap0,rx_pcap={input}"), &output, "net_null0,no-rx=1"]);
    let mut weir = Command::new(env!("CARGO_BIN_EXE_weir"));
    let mut daemon = Daemon::start_as(scratch, &config, &mut weir, &[]);
    daemon.until("all packets", |daemon| daemon.port(2, "tx_packets") == 100);
    assert_eq!(daemon.scratch.frames("out.pcap"), frames);
    let pools = daemon.ok("appctl netdev-dpdk/get-mempool-info");
    assert!(pools.contains("all ports, node 0"), "{pools}");
    daemon.finish();
}
