//! More than one lcore, and lcores that have nothing to do.

use std::process::Command;

use crate::rig::{Daemon, SMALL, Scratch, bridge, udp};

fn two_cpus() -> bool {
    let enough = std::thread::available_parallelism().is_ok_and(|count| count.get() > 1);
    if !enough {
        println!("skipped: two lcores need two CPUs");
    }
    enough
}

#[test]
fn two_lcores_each_carry_the_queues_that_are_theirs() {
    if !two_cpus() {
        return;
    }
    let scratch = Scratch::new("two");
    scratch.write(
        "flows",
        "in_port=1,ip,ct_state=-trk,actions=ct(table=1)\ntable=1,in_port=1,ip,actions=ct(commit),2\n",
    );
    let halves: [Vec<_>; 2] = [1, 2].map(|half: u16| (0..40).map(|n| udp(n, half, 90)).collect());
    let inputs = [scratch.capture("a.pcap", &halves[0]), scratch.capture("b.pcap", &halves[1])];
    let source = format!(
        "net_pcap0,rx_pcap={},rx_pcap={},tx_pcap={},tx_pcap={}",
        inputs[0],
        inputs[1],
        scratch.text("c.pcap"),
        scratch.text("d.pcap")
    );
    let sink = format!("net_pcap1,tx_pcap={},tx_pcap={}", scratch.text("x.pcap"), scratch.text("y.pcap"));
    let config = format!("lcores = \"0-1\"\n{SMALL}{}", bridge(&[&source, &sink]));
    let mut weir = Command::new(env!("CARGO_BIN_EXE_weir"));
    let mut daemon = Daemon::start_as(scratch, &config, &mut weir, &[]);
    daemon.until("all packets", |daemon| daemon.port(2, "tx_packets") == 80);
    assert_eq!(daemon.scratch.frames("x.pcap"), halves[0]);
    assert_eq!(daemon.scratch.frames("y.pcap"), halves[1]);
    let lcores = daemon.json("appctl dpif-netdev/pmd-stats-show");
    let packets: Vec<_> = lcores.as_array().unwrap().iter().map(|lcore| lcore["packets"].as_u64()).collect();
    assert_eq!(packets, [Some(40), Some(40)]);
    assert_eq!(daemon.ok("appctl dpctl/ct-get-nconns"), "80\n", "a dump adds the shards up");
    assert_eq!(daemon.ok("appctl dpctl/dump-conntrack").lines().count(), 80);
    assert!(daemon.log().contains("a reply that arrives by another lcore's queue"), "{}", daemon.log());
    daemon.ok("appctl dpctl/ct-set-maxconns 7");
    assert_eq!(daemon.ok("appctl dpctl/ct-get-maxconns"), "7\n");
    daemon.ok("appctl dpctl/flush-conntrack");
    assert_eq!(daemon.ok("appctl dpctl/ct-get-nconns"), "0\n");
    // A port that does not have a transmit queue for each.
    let answer = daemon.weir("vsctl add-port br0 p3 options:dpdk-devargs=net_pcap3,tx_pcap=/dev/null");
    assert_eq!(answer.status, 1);
    assert!(
        answer.stderr.contains("1 transmit queues") && answer.stderr.contains("one tx_pcap a queue"),
        "{}",
        answer.stderr
    );
    daemon.finish();
}

#[test]
fn limits_smaller_than_the_number_of_lcores_hold_for_all_of_them_together() {
    if !two_cpus() {
        return;
    }
    let scratch = Scratch::new("two-limits");
    let tables = "in_port=1,udp,tp_src=1,actions=ct(commit,zone=3),2\n\
                  in_port=1,udp,tp_src=2,actions=ct(commit,zone=3),2\n\
                  in_port=1,udp,tp_src=3,actions=ct(commit,zone=4),2\n";
    scratch.write("flows", tables);
    // Both queues bring connections of zone 3, the second one zone 4's too.
    let captures = [vec![1], vec![2, 3]].map(|ports: Vec<u16>| {
        ports.iter().flat_map(|&port| (0..40).map(move |n| udp(n, port, 90))).collect::<Vec<_>>()
    });
    let inputs = [scratch.capture("a.pcap", &captures[0]), scratch.capture("b.pcap", &captures[1])];
    let source = format!("net_pcap0,rx_pcap={},rx_pcap={}", inputs[0], inputs[1]);
    let settings = "[[conntrack.zone]]\nid = 3\nlimit = 1\n[pool]";
    let small = SMALL.replace("capacity = 1000\n", "capacity = 1000\nmax_connections = 31\n");
    let ports = bridge(&[&source, "net_null0,no-rx=1"]);
    let config = format!("lcores = \"0-1\"\n{}{ports}", small.replace("[pool]", settings));
    let mut weir = Command::new(env!("CARGO_BIN_EXE_weir"));
    let mut daemon = Daemon::start_as(scratch, &config, &mut weir, &[]);
    daemon.until("all packets", |daemon| daemon.port(2, "tx_packets") == 120);
    // One lcore may have nearly all that there may be.
    assert_eq!(daemon.ok("appctl dpctl/ct-get-nconns"), "31\n");
    assert_eq!(daemon.ok("appctl dpctl/ct-get-maxconns"), "31\n");
    let limits = daemon.ok("appctl dpctl/ct-get-limits zone=3,4");
    assert_eq!(limits, "default limit=0\nzone=3,limit=1,count=1\nzone=4,limit=0,count=30\n");
    let counted = |daemon: &Daemon, name: &str| {
        let lines = daemon.ok("appctl coverage/show");
        lines.lines().find(|line| line.starts_with(name)).map(str::to_owned)
    };
    for (name, count) in [("conntrack_refused_by_zone_limit", " 79"), ("conntrack_refused_by_limit", " 10")] {
        let line = counted(&daemon, name).unwrap();
        assert!(line.contains(count), "{line}");
    }
    let answer = daemon.weir("appctl dpctl/ct-set-maxconns 1001");
    assert!(answer.stderr.contains("memory for 1000 connections"), "{}", answer.stderr);
    daemon.finish();
}

#[test]
fn cpus_that_are_not_there_are_named() {
    let config = format!("lcores = \"1000\"\n{SMALL}{}", bridge(&["net_null0,no-rx=1"]));
    let mut daemon =
        Daemon::spawn(Scratch::new("nocpu"), &config, &mut Command::new(env!("CARGO_BIN_EXE_weir")), &[]);
    let (code, log) = daemon.wait();
    assert_eq!(code, 1);
    assert!(log.contains("CPU 1000 is not online; online are"), "{log}");
}

/// Ticks of CPU time that a process has used, and ticks a second.
fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn an_idle_lcore_of_profile_lab_leaves_its_cpu_to_others() {
    let daemon = Daemon::start(Scratch::new("idle"), &bridge(&["net_null0,no-rx=1", "net_ring0"]));
    std::thread::sleep(std::time::Duration::from_millis(200));
    let before = cpu_ticks(daemon.pid());
    std::thread::sleep(std::time::Duration::from_secs(2));
    let used = cpu_ticks(daemon.pid()) - before;
    // 100 ticks a second: a lcore that polled on, or only yielded to nobody, would have used 200.
    assert!(used < 60, "{used} of 200 ticks");
    daemon.finish();
}
