//! Packets through each DPDK driver that needs no hardware.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::rig::{Daemon, SMALL, Scratch, bridge, is_root, root_or_skip, udp};

const FORWARD: &str =
    "cookie=1,in_port=1,actions=2\ncookie=2,in_port=2,actions=3\ncookie=3,in_port=3,actions=4\n";

#[test]
fn what_goes_in_by_one_capture_comes_out_by_another_byte_for_byte() {
    let scratch = Scratch::new("pcap");
    scratch.write("flows", FORWARD);
    let frames: Vec<_> = (0..100).map(|n| udp(n, 4000, 60 + 14 * usize::from(n))).collect();
    let input = scratch.capture("in.pcap", &frames);
    let (back, output) = (scratch.text("back.pcap"), scratch.text("out.pcap"));
    let devices =
        [format!("net_pcap0,rx_pcap={input},tx_pcap={back}"), format!("net_pcap1,tx_pcap={output}")];
    let mut daemon = Daemon::start(scratch, &bridge(&[&devices[0], &devices[1]]));
    daemon.until("all packets", |daemon| daemon.port(2, "tx_packets") == 100);
    let bytes: usize = frames.iter().map(Vec::len).sum();
    assert_eq!(daemon.port(1, "rx_bytes"), bytes as u64);
    assert_eq!(daemon.packets(1), 100);
    assert_eq!((daemon.packets(2), daemon.port(1, "tx_packets")), (0, 0));
    assert_eq!(daemon.scratch.frames("out.pcap"), frames);
    assert!(daemon.scratch.frames("back.pcap").is_empty());
    daemon.finish();
}

#[test]
fn the_nat_example_translates_a_capture_and_lists_its_connections() {
    let scratch = Scratch::new("nat");
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");
    std::fs::copy(format!("{examples}/nat.flows"), scratch.path("flows")).unwrap();
    let output = scratch.text("out.pcap");
    let input = format!("net_pcap0,rx_pcap={examples}/inside.pcap");
    let mut daemon = Daemon::start(scratch, &bridge(&[&input, &format!("net_pcap1,tx_pcap={output}")]));
    daemon.until("all packets", |daemon| daemon.port(2, "tx_packets") == 10);
    for frame in daemon.scratch.frames("out.pcap") {
        assert_eq!(frame[26..29], [10, 0, 0], "a source that was not translated: {:?}", &frame[26..30]);
    }
    let connections = daemon.json("appctl dpctl/dump-conntrack");
    assert_eq!(connections.as_array().unwrap().len(), 9, "one of the ten packets was sent twice");
    let text = daemon.ok("appctl dpctl/dump-conntrack");
    assert_eq!(text.lines().count(), 9);
    assert!(
        text.lines().all(|line| line.contains(",reply=(src=") && line.contains(",dst=10.0.0.")),
        "{text}"
    );
    assert_eq!(daemon.ok("appctl dpctl/ct-get-nconns"), "9\n");
    daemon.finish();
}

#[test]
fn a_jumbo_frame_of_several_buffers_comes_out_whole() {
    let scratch = Scratch::new("jumbo");
    scratch.write("flows", FORWARD);
    let frames = vec![udp(1, 1, 9018), udp(2, 2, 60), udp(3, 3, 2176), udp(4, 4, 2177), udp(5, 5, 16_000)];
    let input = scratch.capture("in.pcap", &frames);
    let devices =
        [format!("net_pcap0,rx_pcap={input}"), format!("net_pcap1,tx_pcap={}", scratch.text("out.pcap"))];
    let mut daemon = Daemon::start(scratch, &bridge(&[&devices[0], &devices[1]]));
    daemon.until("all packets", |daemon| daemon.port(2, "tx_packets") == 5);
    assert_eq!(daemon.scratch.frames("out.pcap"), frames);
    assert_eq!(daemon.buffers(), 0);
    daemon.finish();
}

#[test]
fn a_ring_gives_back_what_it_is_given_and_the_null_device_makes_nothing_up() {
    let scratch = Scratch::new("ring");
    scratch.write("flows", FORWARD);
    let frames: Vec<_> = (0..20).map(|n| udp(n, 4000, 100)).collect();
    let input = scratch.capture("in.pcap", &frames);
    let devices = [
        format!("net_pcap0,rx_pcap={input}"),
        "net_ring0".to_owned(),
        format!("net_pcap1,tx_pcap={}", scratch.text("out.pcap")),
        "net_null0,no-rx=1".to_owned(),
    ];
    let devices: Vec<&str> = devices.iter().map(String::as_str).collect();
    let mut daemon = Daemon::start(scratch, &bridge(&devices));
    daemon.until("all packets", |daemon| daemon.port(3, "tx_packets") == 20);
    assert_eq!((daemon.packets(1), daemon.packets(2), daemon.packets(3)), (20, 20, 0));
    assert_eq!(daemon.port(4, "rx_packets"), 0);
    assert_eq!(daemon.scratch.frames("out.pcap"), frames);
    daemon.finish();
}

#[test]
fn two_daemons_exchange_packets_by_shared_memory() {
    let (left, right) = (Scratch::new("memif-server"), Scratch::new("memif-client"));
    left.write("flows", FORWARD);
    right.write("flows", FORWARD);
    let socket = left.text("memif.sock");
    let input = left.capture("in.pcap", &(0..10).map(|n| udp(n, 1, 200)).collect::<Vec<_>>());
    let source = format!("net_pcap0,rx_pcap={input},infinite_rx=1");
    let (server, client) = (
        format!("net_memif0,role=server,id=0,socket={socket},socket-abstract=no"),
        format!("net_memif0,role=client,id=0,socket={socket},socket-abstract=no"),
    );
    let left = Daemon::start(left, &bridge(&[&source, &server]));
    let mut right = Daemon::start(right, &bridge(&[&client, "net_null0,no-rx=1"]));
    right.until("packets", |right| right.port(2, "tx_packets") >= 1000);
    // The far side goes: this one goes on, and its packets are counted as not sent.
    right.finish();
    let before = left.port(1, "rx_packets");
    let mut left = left;
    left.until("packets without a far side", |left| left.port(1, "rx_packets") > before + 1000);
    left.finish();
}

#[test]
fn a_tap_device_carries_what_the_kernel_sends() {
    if !root_or_skip("net_tap") {
        return;
    }
    let scratch = Scratch::new("tap");
    let config = format!("{SMALL}{}", bridge(&["net_tap0,iface=wtap0", "net_tap1,iface=wtap1"]));
    let mut inside = Command::new("unshare");
    inside.args(["--net", env!("CARGO_BIN_EXE_weir")]);
    let mut daemon = Daemon::start_as(scratch, &config, &mut inside, &[]);
    let there = |daemon: &Daemon, words: &str| {
        let mut command = Command::new("nsenter");
        command.args(["--net", "-t", &daemon.pid().to_string()]).args(words.split(' '));
        let output = command.output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    there(&daemon, "ip address add 10.9.0.1/24 dev wtap0");
    there(&daemon, "ip link set wtap0 up");
    there(&daemon, "ip link set wtap1 up");
    // Nobody answers; the question has to arrive.
    daemon.until("the kernel's packets at the other device", |daemon| {
        there(daemon, "ping -c 1 -W 1 10.9.0.2");
        daemon.port(1, "rx_packets") > 0 && daemon.port(2, "tx_packets") > 0
    });
    daemon.finish();
}

#[test]
fn profile_lab_needs_no_root() {
    let scratch = Scratch::new("nobody");
    scratch.write("flows", FORWARD);
    let input = scratch.capture("in.pcap", &[udp(1, 1, 60)]);
    let devices = [format!("net_pcap0,rx_pcap={input}"), "net_null0,no-rx=1".to_owned()];
    let config = format!("{SMALL}{}", bridge(&[&devices[0], &devices[1]]));
    let mut command = if is_root() {
        // The build directory may be closed to others.
        std::fs::copy(env!("CARGO_BIN_EXE_weir"), scratch.path("weir")).unwrap();
        for (path, mode) in [("", 0o777), ("weir", 0o755)] {
            std::fs::set_permissions(scratch.path(path), std::fs::Permissions::from_mode(mode)).unwrap();
        }
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"]);
        command.arg(scratch.path("weir"));
        command
    } else {
        Command::new(env!("CARGO_BIN_EXE_weir"))
    };
    command.env("XDG_RUNTIME_DIR", scratch.path(""));
    let mut daemon = Daemon::start_as(scratch, &config, &mut command, &[]);
    daemon.until("the packet", |daemon| daemon.port(2, "tx_packets") == 1);
    daemon.signal("TERM");
    let (code, log) = daemon.wait();
    assert_eq!(code, 0, "{log}");
    daemon.leaves_nothing();
}

#[test]
fn a_port_that_does_not_start_ends_the_daemon_with_its_reason_and_leaves_nothing() {
    let scratch = Scratch::new("broken");
    let output = scratch.text("out.pcap");
    let config = format!(
        "{SMALL}{}",
        bridge(&[&format!("net_pcap0,tx_pcap={output}"), "net_pcap1,rx_pcap=/nonexistent/in.pcap"])
    );
    let mut daemon = Daemon::spawn(scratch, &config, &mut Command::new(env!("CARGO_BIN_EXE_weir")), &[]);
    let (code, log) = daemon.wait();
    assert_eq!(code, 1, "{log}");
    for part in
        ["port p2", "net_pcap1,rx_pcap=/nonexistent/in.pcap", "DPDK's log", "Likely mend", "No such file"]
    {
        assert!(log.contains(part), "{part} in\n{log}");
    }
    assert!(!log.contains("is running"));
    daemon.leaves_nothing();
}
