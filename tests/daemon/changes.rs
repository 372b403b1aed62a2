//! Bridges and ports that come and go while traffic runs.

use crate::rig::{Daemon, Scratch, bridge, udp};

/// A daemon with a source that never ends on port 1, and a sink on port 2.
fn busy(name: &str) -> Daemon {
    let scratch = Scratch::new(name);
    scratch.write("flows", "cookie=1,in_port=1,actions=2\ncookie=3,in_port=3,actions=2\n");
    let frames: Vec<_> = (0..64).map(|n| udp(n, 1000, 100)).collect();
    let input = scratch.capture("in.pcap", &frames);
    let source = format!("net_pcap0,rx_pcap={input},infinite_rx=1");
    let mut daemon = Daemon::start(scratch, &bridge(&[&source, "net_null0,no-rx=1"]));
    flows_on(&mut daemon);
    daemon
}

fn flows_on(daemon: &mut Daemon) {
    let before = daemon.port(2, "tx_packets");
    daemon.until("further packets", |daemon| daemon.port(2, "tx_packets") > before + 1000);
}

#[test]
fn ports_and_bridges_come_and_go_while_traffic_flows_and_no_buffer_is_lost() {
    let mut daemon = busy("come-and-go");
    let second = daemon.scratch.text("in.pcap");
    let idle = daemon.buffers();
    for round in 0..3 {
        daemon.ok(&format!(
            "vsctl add-port br0 p3 options:dpdk-devargs=net_pcap7,rx_pcap={second},infinite_rx=1 ofport_request=3"
        ));
        let before = daemon.packets(3);
        daemon.until("packets of the new port", |daemon| daemon.packets(3) > before + 1000);
        daemon.ok("vsctl add-br br1 -- add-port br1 q1 options:dpdk-devargs=net_ring5");
        assert_eq!(daemon.ok("vsctl list-br"), "br0\nbr1\n");
        assert_eq!(daemon.ok("vsctl list-ports br1"), "q1\n");
        flows_on(&mut daemon);
        daemon.ok("vsctl del-port p3");
        flows_on(&mut daemon);
        daemon.ok("vsctl del-br br1");
        assert_eq!(daemon.ok("vsctl list-br"), "br0\n");
        assert_eq!(daemon.ok("vsctl list-ports br0"), "p1\np2\n", "round {round}");
        flows_on(&mut daemon);
    }
    // The endless source keeps copies of its capture, and up to a burst is on its way when somebody looks.
    let now = daemon.buffers();
    assert!(now <= idle + 64, "{now} buffers in use, {idle} before");
    daemon.ok("vsctl del-port p1 -- del-port p2");
    assert_eq!(daemon.buffers(), 0);
    let lcore = &daemon.json("appctl dpif-netdev/pmd-stats-show")[0];
    assert_eq!(lcore["packets"], lcore["tx_packets"], "every packet was sent");
    daemon.finish();
}

#[test]
fn a_port_without_its_device_is_refused_with_the_reason_and_a_right_one_can_follow() {
    let mut daemon = busy("refused");
    for (devargs, parts) in [
        ("net_pcap5,rx_pcap=/nonexistent.pcap", ["cannot be read", "No such file"]),
        ("net_af_packet5,iface=nonesuch0", ["\"nonesuch0\" does not exist", "ip link"]),
        ("net_nonesuch5", ["failed to parse device", "check the driver's name"]),
        ("0000:ff:1f.7", ["no PCI device 0000:ff:1f.7", "dpdk-devbind.py"]),
        ("net_null0,no-rx=1", ["attached already", "its own device name"]),
    ] {
        let answer = daemon.weir(&format!("vsctl add-port br0 p3 options:dpdk-devargs={devargs}"));
        assert_eq!((answer.status, answer.stdout.as_str()), (1, ""), "{answer:?}");
        for part in ["weir vsctl: port p3", devargs].into_iter().chain(parts) {
            assert!(
                answer.stderr.to_lowercase().contains(&part.to_lowercase()),
                "{part} in {}",
                answer.stderr
            );
        }
        assert_eq!(daemon.ok("vsctl list-ports br0"), "p1\np2\n");
    }
    let input = daemon.scratch.text("in.pcap");
    daemon.ok(&format!(
        "vsctl add-port br0 p3 options:dpdk-devargs=net_pcap5,rx_pcap={input} ofport_request=3"
    ));
    daemon.until("its packets", |daemon| daemon.packets(3) == 64);
    let answer = daemon
        .weir("vsctl add-port br0 p4 options:dpdk-devargs=net_null4 options:n_rxq=64 options:peer=none9");
    assert_eq!(answer.status, 1);
    assert!(answer.stderr.contains("port p4: interface \"none9\""), "{}", answer.stderr);
    flows_on(&mut daemon);
    daemon.finish();
}

#[test]
fn a_change_whose_second_step_fails_leaves_everything_as_it_was() {
    let mut daemon = busy("transaction");
    daemon.ok("ofctl add-flow br0 cookie=77,table=5,priority=7,actions=drop");
    let flows = daemon.ok("ofctl --no-stats dump-flows br0");
    let counted = daemon.packets(1);
    for line in [
        "vsctl del-br br0 -- add-br br9 -- add-port br9 p9 options:dpdk-devargs=net_nonesuch9",
        "vsctl del-br br0 -- add-br br0 -- add-port br0 p9 options:dpdk-devargs=net_nonesuch9",
        "vsctl del-port p2 -- add-port br0 p9 options:dpdk-devargs=net_nonesuch9",
        "vsctl add-br br9 -- add-port br9 p8 options:dpdk-devargs=net_ring8 -- del-port p1 -- add-port br9 p9 \
         options:dpdk-devargs=net_nonesuch9",
    ] {
        let answer = daemon.weir(line);
        assert_eq!(answer.status, 1, "{line}: {answer:?}");
        assert!(answer.stderr.contains("net_nonesuch9"), "{line}: {}", answer.stderr);
        assert_eq!(daemon.ok("vsctl list-br"), "br0\n", "{line}");
        assert_eq!(daemon.ok("vsctl list-ports br0"), "p1\np2\n", "{line}");
        assert_eq!(daemon.ok("ofctl --no-stats dump-flows br0"), flows, "{line}");
        assert!(daemon.packets(1) >= counted, "{line}: the flows' counters went");
        flows_on(&mut daemon);
    }
    assert_eq!(daemon.log().matches("could not be taken back").count(), 0);
    // Nothing is attached that should not be.
    daemon.ok("vsctl add-port br0 p8 options:dpdk-devargs=net_ring8 -- del-port p8");
    daemon.finish();
}

#[test]
fn a_port_is_replaced_by_another_over_the_same_device_in_one_change() {
    let mut daemon = busy("replaced");
    daemon
        .ok("vsctl del-port p2 -- add-port br0 sink options:dpdk-devargs=net_null0,no-rx=1 ofport_request=2");
    assert_eq!(daemon.ok("vsctl list-ports br0"), "p1\nsink\n");
    flows_on(&mut daemon);
    // The rival's device was stopped for it, and is started again when that was in vain.
    let answer =
        daemon.weir("vsctl del-port sink -- add-port br0 other options:dpdk-devargs=net_null0,size=none");
    assert_eq!(answer.status, 1, "{answer:?}");
    assert_eq!(daemon.ok("vsctl list-ports br0"), "p1\nsink\n");
    flows_on(&mut daemon);
    daemon.finish();
}
