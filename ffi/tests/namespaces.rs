//! Devices on veth pairs. Each test runs on a thread in a network namespace of its own, which has no name and goes with
//! the thread, whatever becomes of the test. Needs root.

#![allow(clippy::expect_used)]

mod support;

use std::process::Command;

use support::{eal, frame, number, pool, receive, send, tagged};
use weir_ffi::port::{HashOver, RssConfig};
use weir_ffi::{Pool, Port, PortConfig, offload};

/// Runs `test` in a fresh network namespace with a veth pair "left" and "right"; says so if it cannot.
fn in_namespace(test: impl FnOnce() + Send) {
    // SAFETY: asks for a number.
    if unsafe { libc::geteuid() } != 0 {
        println!("skipped: needs root");
        return;
    }
    eal();
    std::thread::scope(|scope| {
        let run = || {
            // SAFETY: moves this thread alone, which ends with the test.
            let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
            assert_eq!(result, 0, "unshare: {}", std::io::Error::last_os_error());
            ip("link add left type veth peer name right");
            for device in ["left", "right"] {
                // The kernel itself stays silent: no address resolution, no IPv6.
                let path = format!("/proc/sys/net/ipv6/conf/{device}/disable_ipv6");
                let _ = std::fs::write(path, "1");
                ip(&format!("link set {device} arp off up"));
            }
            test();
        };
        if let Err(panic) = scope.spawn(run).join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// `ip`, in the calling thread's namespace.
fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("ip (iproute2) is installed");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Frames of these tests have their own Ethernet type or a VLAN tag; the kernel's have not.
fn ours(bytes: &[u8]) -> bool {
    bytes.len() > 18
        && (bytes[12..14] == [0x88, 0xb5] || (bytes[12..14] == [0x81, 0] && bytes[16..18] == [0x88, 0xb5]))
}

fn frames() -> Vec<Vec<u8>> {
    let mut frames: Vec<_> = (0..20).map(|seed| frame(60 + usize::from(seed) * 70, seed)).collect();
    frames.push(tagged(&frame(100, 77), 0x0123));
    frames.push(tagged(&frame(1400, 78), 0xe001));
    frames
}

/// Sends frames both ways between two ports on a veth pair, and looks that none comes back to its sender.
fn echo_over(driver: &str) {
    let pool = pool(16_383);
    let mut ports = ["left", "right"].map(|device| {
        Port::attach(eal(), &format!("net_{driver}{},iface={device}", number())).expect("attached")
    });
    let mut queues = ports.each_mut().map(|port| {
        port.start(&PortConfig::new(pool.clone())).expect("started");
        (port.take_rx(0).expect("free"), port.take_tx(0).expect("free"))
    });
    let frames = frames();
    for (sender, receiver) in [(0, 1), (1, 0)] {
        send(&mut queues[sender].1, &pool, &frames);
        assert_eq!(receive(&mut queues[receiver].0, frames.len(), ours), frames, "{driver}");
        let mut burst = weir_ffi::Burst::new();
        queues[sender].0.rx_burst(&mut burst);
        assert!(!burst.iter().any(|packet| ours(packet.bytes())), "{driver} shows a port its own frames");
    }
    drop(queues);
    drop(ports);
    if driver == "af_packet" {
        assert_eq!(pool.in_use(), 0, "{driver} gives all buffers back");
    }
}

#[test]
fn af_packet_carries_frames_and_tags_both_ways_and_shows_no_own_ones() {
    in_namespace(|| echo_over("af_packet"));
}

#[test]
fn af_xdp_carries_frames_and_tags_both_ways_and_shows_no_own_ones() {
    in_namespace(|| echo_over("af_xdp"));
}

/// Sends a frame on an interface as another program would: through a packet socket of its own.
fn send_beside(device: &str, frame: &[u8]) {
    // SAFETY: plain socket calls on local data.
    let sent = unsafe {
        let name = std::ffi::CString::new(device).expect("no NUL");
        let socket = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
        let mut address: libc::sockaddr_ll = std::mem::zeroed();
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_ifindex = libc::if_nametoindex(name.as_ptr()) as i32;
        let to = (&raw const address).cast::<libc::sockaddr>();
        let length = size_of_val(&address) as libc::socklen_t;
        let sent = libc::sendto(socket, frame.as_ptr().cast(), frame.len(), 0, to, length);
        libc::close(socket);
        sent
    };
    assert_eq!(usize::try_from(sent).ok(), Some(frame.len()), "{}", std::io::Error::last_os_error());
}

#[test]
fn a_port_does_not_receive_what_others_send_on_its_interface() {
    for driver in ["af_packet", "af_xdp"] {
        in_namespace(|| {
            let pool = pool(8191);
            let mut left =
                Port::attach(eal(), &format!("net_{driver}{},iface=left", number())).expect("attached");
            left.start(&PortConfig::new(pool.clone())).expect("started");
            let mut rx = left.take_rx(0).expect("free");
            send_beside("left", &frame(200, 1));
            send_beside("right", &frame(200, 2));
            // The peer's is the first it sees.
            assert_eq!(receive(&mut rx, 1, ours), [frame(200, 2)], "{driver}");
        });
    }
}

#[test]
fn af_packet_is_refused_where_it_would_cut_frames() {
    in_namespace(|| {
        ip("link set left mtu 9000");
        ip("link set right mtu 9000");
        let (left, right) = (number(), number());
        let error = Port::attach(eal(), &format!("net_af_packet{left},iface=left")).expect_err("would cut");
        assert!(error.to_string().contains("framesz=9216,blocksz=12288"), "{error}");
        let attach = |device: &str, number| {
            let ring = "framesz=9216,blocksz=12288,framecnt=64";
            Port::attach(eal(), &format!("net_af_packet{number},iface={device},{ring}")).expect("fits now")
        };
        let (mut left, mut right) = (attach("left", left), attach("right", right));
        let error = left.start(&PortConfig::new(pool(255))).expect_err("small buffers").to_string();
        assert!(error.contains("9184"), "{error}");
        let large = Pool::new(eal(), &Pool::unique_name("big"), 511, 0, 9216, None).expect("a pool");
        left.start(&PortConfig::new(large.clone())).expect("started");
        right.start(&PortConfig::new(large.clone())).expect("started");
        let sent = vec![frame(9014, 3)];
        send(&mut left.take_tx(0).expect("free"), &large, &sent);
        assert_eq!(receive(&mut right.take_rx(0).expect("free"), 1, ours), sent);
    });
}

#[test]
fn transmit_offloads_of_a_veth_peer_can_be_turned_off() {
    in_namespace(|| {
        let namespace = format!("/proc/self/task/{}/ns/net", {
            // SAFETY: asks for a number.
            unsafe { libc::gettid() }
        });
        for (device, namespace) in [("left", None), ("right", Some(namespace.as_str()))] {
            offload::disable_tx(device, namespace).expect("turned off");
            let output = Command::new("ethtool").args(["-k", device]).output();
            let Ok(output) = output else {
                println!("not verified: ethtool is not installed");
                return;
            };
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            for feature in [
                "tx-checksumming",
                "tx-tcp-segmentation",
                "tx-tcp6-segmentation",
                "generic-segmentation-offload",
            ] {
                assert!(text.contains(&format!("{feature}: off")), "{feature} of {device}:\n{text}");
            }
        }
    });
}

#[test]
fn devices_over_the_kernels_interfaces_take_no_redirection_table() {
    in_namespace(|| {
        let rss = RssConfig { key: [0x6d, 0x5a].repeat(20), over: HashOver::Endpoints, table: vec![0, 1] };
        for (devargs, spreads) in [
            (format!("net_af_packet{},iface=left,qpairs=2", number()), false),
            (format!("net_tap{0},iface=weirtap{0}", number()), true),
        ] {
            let mut port = Port::attach(eal(), &devargs).expect("attached");
            let can = port.info().expect("readable").rss;
            let config = PortConfig {
                rx_queues: 2,
                tx_queues: 2,
                rss: Some(rss.clone()),
                ..PortConfig::new(pool(8191))
            };
            let applied = port.start(&config).expect("started");
            assert_eq!((can.any(), can.table_size), (spreads, 0), "{devargs}: {can:?}");
            assert!(applied.rss.is_none_or(|rss| !rss.table), "{devargs}: {applied:?}");
            let note = if spreads { "redirection table" } else { "spreads no packets" };
            assert!(applied.notes.iter().any(|line| line.contains(note)), "{devargs}: {applied:?}");
        }
    });
}
