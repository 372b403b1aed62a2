//! Fragments hold packet buffers of DPDK's; when they have gone on, or have waited in vain, none is missing.

use crate::rig::{Daemon, SMALL, Scratch, bridge, udp};

const TABLES: &str = "table=0,priority=1,action=drop
table=0,priority=100,in_port=1,ip,ct_state=-trk,action=ct(table=1)
table=1,ip,ct_state=+trk+new,action=ct(commit,nat(src=10.9.0.1-10.9.0.9)),2
table=1,ip,ct_state=+trk+est,action=ct(nat),2
";
/// Bytes of IP payload in each fragment but the last.
const PIECE: usize = 1200;

/// A datagram of 3000 bytes cut in three.
fn pieces(host: u8, id: u16) -> [Vec<u8>; 3] {
    let whole = udp(host, 1000, 14 + 20 + 3000);
    [0, 1, 2].map(|number| {
        let begin = 34 + number * PIECE;
        let end = whole.len().min(begin + PIECE);
        let mut frame = [&whole[..34], &whole[begin..end]].concat();
        let length = u16::try_from(frame.len() - 14).unwrap();
        let more = if end < whole.len() { 0x2000 } else { 0 };
        let offset = more | u16::try_from(number * PIECE / 8).unwrap();
        frame[16..18].copy_from_slice(&length.to_be_bytes());
        frame[18..20].copy_from_slice(&id.to_be_bytes());
        frame[20..22].copy_from_slice(&offset.to_be_bytes());
        frame[24..26].copy_from_slice(&[0, 0]);
        let sum: u32 = frame[14..34].chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
        let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        frame
    })
}

#[test]
fn every_buffer_is_back_after_fragments_that_were_complete_and_fragments_that_were_not() {
    let scratch = Scratch::new("fragments");
    scratch.write("flows", TABLES);
    let mut packets = Vec::new();
    for host in 1..=100 {
        packets.push(udp(host, 999, 100));
        let [first, middle, last] = pieces(host, 1);
        // In every other datagram the last piece comes first.
        packets.extend(if host % 2 == 0 { [first, middle, last] } else { [last, middle, first] });
        // And of every tenth datagram one piece is missing, or comes twice.
        if host % 10 == 0 {
            let [first, middle, last] = pieces(host, 2);
            packets.extend(if host % 20 == 0 {
                [first, middle.clone(), middle]
            } else {
                [middle, last.clone(), last]
            });
        }
    }
    let input = scratch.capture("in.pcap", &packets);
    let config = format!("{SMALL}{}", bridge(&["net_null0,no-rx=1", "net_null1,no-rx=1"]));
    let mut weir = std::process::Command::new(env!("CARGO_BIN_EXE_weir"));
    let mut daemon = Daemon::start_as(scratch, &config, &mut weir, &[]);
    let before = daemon.buffers();

    daemon.ok("vsctl del-port br0 p1");
    let devargs = format!("net_pcap7,rx_pcap={input}");
    daemon.ok(&format!("vsctl add-port br0 p1 options:dpdk-devargs={devargs} ofport_request=1"));
    // A hundred whole packets and a hundred datagrams of three pieces, as they came.
    daemon.until("whole datagrams", |daemon| daemon.port(2, "tx_packets") == 400);
    daemon
        .until("all packets", |daemon| daemon.port(1, "rx_packets") == u64::try_from(packets.len()).unwrap());
    let status = daemon.json("appctl dpctl/ipf-get-status -m");
    assert_eq!(status["datagrams"].as_array().unwrap().len(), 10, "{status}");
    let held = status["held"].as_u64().unwrap();
    assert!(held >= 20, "{status}");
    assert!(daemon.buffers() >= before + held, "what waits holds its buffer");

    // They expire after 15 seconds.
    daemon.until("no fragment held", |daemon| daemon.json("appctl dpctl/ipf-get-status")["held"] == 0);
    daemon.until("all buffers back", |daemon| daemon.buffers() == before);
    assert_eq!(daemon.port(2, "tx_packets"), 400, "no incomplete datagram has gone on");
    daemon.finish();
}
