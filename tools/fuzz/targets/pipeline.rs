//! Any frames at any times through the whole pipeline: the example tables, a table of header changes and `normal`, with
//! small limits so that they are met. Input: a byte that chooses the table, then packets, each a byte for port and
//! time, two for its length, and its bytes. Fragments are held, of any size (the first byte's higher bits say how
//! many). Every packet is sent, held or counted as dropped, and at the end everything expires.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir::flow::{Command, FlowFile, NoNames};
use weir::replay::{VirtualSwitch, secret};
use weir_shard::{FragmentSettings, ShardConfig};

const NAT: &str = include_str!("../../../examples/nat.flows");
const ACL: &str = include_str!("../../../examples/acl.flows");
const ACL6: &str = include_str!("../../../examples/acl6.flows");
const CHANGES: &str = "table=0,priority=9,ip,actions=mod_vlan_vid:7,dec_ttl,mod_nw_src:1.2.3.4,ct(table=1,zone=3),2\n\
    table=0,priority=8,ipv6,actions=push_vlan:0x88a8,set_field:fe80::1->ipv6_dst,ct(table=1),strip_vlan,2\n\
    table=0,priority=7,arp,actions=move:NXM_NX_ARP_SHA[]->NXM_NX_ARP_THA[],load:2->NXM_OF_ARP_OP[],normal\n\
    table=0,priority=1,actions=normal\n\
    table=1,priority=9,tcp,actions=mod_tp_dst:9,ct(commit,nat(dst=10.0.0.1:80)),2\n\
    table=1,priority=9,udp,actions=mod_tp_src:9,ct(commit,nat(src=10.0.0.1:80-81)),2\n\
    table=1,priority=9,icmp6,icmp_type=135,actions=set_field:fe80::2->nd_target,2\n\
    table=1,priority=1,actions=2";
/// All at once in the one address space.
const CONNECTIONS: u32 = 64;

fn switch(which: u8) -> VirtualSwitch {
    let text = [NAT, ACL, ACL6, CHANGES][usize::from(which % 4)];
    let flows = FlowFile::parse("fuzz", text.as_bytes(), Command::Add, &NoNames).expect("the tables are right").flows;
    // Packets of a few bytes make fragments, and few of them fill the store.
    let max = u32::from(which >> 2);
    let fragments = FragmentSettings { min_size: [0; 2], max, ..FragmentSettings::default() };
    let shard = ShardConfig { fragments, capacity: CONNECTIONS, max_connections: CONNECTIONS / 2, ..ShardConfig::default() };
    VirtualSwitch::new(&[1, 2, 3], &flows, shard, secret(1)).expect("a switch")
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&which, mut rest)) = bytes.split_first() else { return };
    let mut switch = switch(which);
    let mut now = 0;
    while let [control, high, low, after @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(after.len());
        let (frame, next) = after.split_at(length);
        // Mostly close together, so that bursts form; at times past a timeout.
        now += match control >> 2 & 0x7 {
            0..=4 => 0,
            5 => 1,
            6 => 5_000,
            _ => 100_000,
        };
        switch.inject(u16::from(control & 3), frame, now);
        rest = next;
    }
    switch.flush();
    let counters = *switch.worker().counters();
    let held = switch.worker().held_fragments();
    assert!(held <= u64::from(which >> 2));
    assert_eq!(
        counters.received + counters.copies,
        counters.sent + counters.dropped_in_all() + held,
        "{counters:?}"
    );
    assert!(switch.worker().shard().len() <= CONNECTIONS / 2);
    switch.advance(now + 90_000_000);
    assert_eq!(switch.worker().shard().len(), 0, "every connection ends");
    assert_eq!((switch.worker().held_fragments(), switch.worker().fragments().datagrams()), (0, 0), "every wait ends");
});
