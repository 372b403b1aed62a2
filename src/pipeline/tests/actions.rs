//! What actions choose: tables, registers, ports. What they write into headers is in `headers`.

use super::*;

fn sent_by(flows: &str) -> Vec<PortNumber> {
    let mut bench = Bench::new(flows);
    let sent = bench.ports(1, &udp(A, 1, X, 2));
    // Again, by the cached flow.
    assert_eq!(bench.ports(1, &udp(A, 1, X, 2)), sent);
    bench.balance();
    sent
}

#[test]
fn resubmit_goes_on_behind_itself_and_goto_does_not_come_back() {
    assert_eq!(sent_by("actions=resubmit(,1),4\n table=1,actions=2,3"), [2, 3, 4]);
    assert_eq!(sent_by("actions=2,goto_table:1\n table=1,actions=3"), [2, 3]);
    assert_eq!(sent_by("actions=resubmit(,1),3\n table=1,actions=2,exit,4"), [2], "exit ends it all");
}

#[test]
fn resubmit_without_a_table_searches_its_own() {
    let flows = "actions=resubmit(,3)
        table=3,in_port=1,actions=resubmit:9,4
        table=3,in_port=9,actions=2
        in_port=9,actions=3";
    assert_eq!(sent_by(flows), [2, 4]);
}

#[test]
fn the_port_of_a_resubmit_is_for_the_search_alone() {
    // In table 1 the packet still is one of port 1: it can go to 3, and in_port sends it back to 1.
    assert_eq!(sent_by("actions=resubmit(3,1)\n table=1,in_port=3,actions=3,1,in_port"), [3, 1]);
}

#[test]
fn the_tuple_of_a_resubmit_is_for_the_search_alone() {
    let flows = "table=0,ip,ct_state=-trk,actions=ct(nat,table=1)
        table=1,in_port=1,ip,ct_state=+new,actions=ct(commit,nat(src=10.0.0.1)),2
        table=1,in_port=2,ip,ct_state=+est,actions=resubmit(,2,ct)
        table=2,ip,nw_src=192.168.0.1,actions=move:nw_src->reg0,resubmit(,3)
        table=3,reg0=0xcb007109,ip,nw_src=203.0.113.9,actions=1";
    let mut bench = Bench::new(flows);
    bench.through(&udp(A, 1, X, 2));
    assert_eq!(bench.ports(2, &udp(X, 2, [10, 0, 0, 1], 1)), [1]);
}

#[test]
fn loops_end() {
    let mut bench = Bench::new("actions=2,resubmit(,0)");
    assert_eq!(bench.ports(1, &udp(A, 1, X, 2)), NOWHERE);
    // Twofold: 2^64 without the bound on their number.
    bench.change(
        Command::Add,
        "actions=resubmit(,1),resubmit(,1)\n table=1,actions=resubmit(,0),resubmit(,0)",
    );
    assert_eq!(bench.ports(1, &udp(A, 1, X, 2)), NOWHERE);
    assert_eq!(bench.dropped(DropCause::TooManyResubmits), 2);
    bench.balance();
}

#[test]
fn a_chain_through_all_tables_is_no_loop() {
    let mut flows: String =
        (0..254).map(|table| format!("table={table},actions=resubmit(,{})\n", table + 1)).collect();
    flows.push_str("table=254,actions=2");
    assert_eq!(sent_by(&flows), [2]);
    let round = flows.replace("table=254,actions=2", "table=254,actions=resubmit(,0)");
    assert_eq!(sent_by(&round), NOWHERE);
}

#[test]
fn registers_metadata_and_the_stack_carry_values_between_tables() {
    let flows = "ip,actions=load:0x12->reg0[0..7],move:nw_src[0..7]->reg0[8..15],resubmit(,1)
        table=1,reg0=0x112,actions=set_field:0xa5/0xff->metadata,resubmit(,2)
        table=2,metadata=0xa5,actions=push:reg0,push:metadata[4..7],pop:reg1,pop:reg2,resubmit(,3)
        table=3,reg1=0xa,reg2=0x112,actions=pop:reg3,output:reg2[1]";
    // Bit 1 of 0x112 is set: port 1 is its own, so nothing leaves; bits 4 to 5 say port 1 too. Use both bits.
    assert_eq!(sent_by(&flows.replace("output:reg2[1]", "output:reg2[0..1]")), [2]);
    assert_eq!(sent_by(flows), NOWHERE);
}

#[test]
fn an_output_field_may_name_reserved_ports() {
    for (port, expected) in [
        ("0xfff8", &[1][..]),
        ("0xfffb", &[2, 3, 4]),
        ("0xfffa", &[2, 3, 4]),
        ("1", &NOWHERE),
        ("3", &[3]),
        ("77", &NOWHERE),
        ("0x10003", &NOWHERE),
        ("0xfffe", &NOWHERE),
    ] {
        assert_eq!(sent_by(&format!("actions=load:{port}->reg0,output:reg0")), expected, "{port}");
    }
}

#[test]
fn a_packet_does_not_go_back_unless_it_is_told_so() {
    assert_eq!(sent_by("actions=1,2"), [2]);
    assert_eq!(sent_by("actions=in_port,2"), [1, 2]);
    assert_eq!(sent_by("actions=load:0->in_port,1"), [1], "ovs-actions(7), output to the input port");
    assert_eq!(sent_by("actions=all"), [2, 3, 4]);
    assert_eq!(sent_by("actions=flood"), [2, 3, 4]);
}

#[test]
fn what_leads_nowhere_is_dropped_for_its_own_cause() {
    for (flows, cause) in [
        ("actions=drop", DropCause::Action),
        ("actions=1", DropCause::Action),
        ("in_port=2,actions=3", DropCause::TableMiss),
        ("actions=resubmit(,9)", DropCause::TableMiss),
        ("actions=77", DropCause::NoSuchPort),
        ("actions=local", DropCause::NoSuchPort),
        ("actions=controller", DropCause::NoController),
        ("actions=load:0xfffd->reg0,output:reg0", DropCause::NoController),
        ("actions=note:00.01,set_queue:3,pop_queue", DropCause::Action),
        ("ip,actions=set_field:1->nw_ttl,dec_ttl,2", DropCause::TtlExpired),
    ] {
        let mut bench = Bench::new(flows);
        assert_eq!(bench.ports(1, &udp(A, 1, X, 2)), NOWHERE, "{flows}");
        assert_eq!(bench.dropped(cause), 1, "{flows}");
        bench.balance();
    }
    assert_eq!(sent_by("actions=controller,2"), [2], "a controller besides a port is no loss");
    assert_eq!(sent_by("actions=set_queue:3,2,pop_queue,note:00,3"), [2, 3]);
}

#[test]
fn a_packet_of_a_port_without_bridge_is_dropped() {
    let mut bench = Bench::new("actions=normal");
    assert_eq!(bench.ports(99, &udp(A, 1, X, 2)), NOWHERE);
    assert_eq!(bench.dropped(DropCause::UnknownPort), 1);
    bench.balance();
}

#[test]
fn a_truncated_output_cuts_its_own_copy_alone() {
    let packet = udp(A, 1, X, 2);
    let mut bench = Bench::new("actions=output(port=3,max_len=20),2,output(port=4,max_len=9999)");
    let sent = bench.send(1, &packet);
    assert_eq!(sent, [(3, packet[..20].to_vec()), (2, packet.clone()), (4, packet.clone())]);
    let mut bench = Bench::new("actions=output(port=in_port,max_len=20)");
    assert_eq!(bench.send(1, &packet), [(1, packet[..20].to_vec())]);
    bench.balance();
}

#[test]
fn an_action_that_weir_cannot_do_yet_is_refused() {
    let error = FlowFile::parse("f", b"actions=check_pkt_larger(1500)->reg0[0],2", Command::Add, &NoNames);
    let text = error.unwrap_err().to_string();
    assert!(
        text.contains("action 'check_pkt_larger' is part of the language but not supported here"),
        "{text}"
    );
}

#[test]
fn empty_and_tiny_frames_are_frames_too() {
    let mut bench =
        Bench::new("actions=push_vlan:0x8100,2,strip_vlan,set_field:02:00:00:00:00:09->eth_dst,dec_ttl,3");
    for length in 0..20 {
        let frame = vec![0x45; length];
        bench.send(1, &frame);
        bench.balance();
    }
    assert!(bench.dropped(DropCause::VlanRoom) > 0);
}
