//! `ct` in the middle of a list of actions, and what a packet takes along when it is recirculated.

use super::*;
use crate::pipeline::BURST;

#[test]
fn actions_behind_a_ct_go_on_with_the_packet_untracked() {
    let flows = "ip,ct_state=-trk,actions=2,ct(table=1),3,ct(table=2),resubmit(,3)
        table=1,ct_state=+trk+new,actions=4
        table=2,ct_state=+trk+new,actions=mod_tp_src:9,4
        table=3,ct_state=-trk,actions=in_port";
    let mut bench = Bench::new(flows);
    for _ in 0..2 {
        let mut out = ports(&bench.send(1, &udp(A, 1, X, 2)));
        out.sort_unstable();
        assert_eq!(out, [1, 2, 3, 4, 4]);
    }
    bench.balance();
}

#[test]
fn registers_metadata_stack_and_in_port_survive_recirculation() {
    let flows = "ip,ct_state=-trk,actions=load:7->reg0,load:8->reg15,load:9->metadata,push:reg15,load:0->in_port,ct(table=1)
        table=1,in_port=0,reg0=7,reg15=8,metadata=9,actions=pop:reg1,resubmit(,2)
        table=2,reg1=8,actions=1,2";
    assert_eq!(Bench::new(flows).ports(1, &udp(A, 1, X, 2)), [1, 2]);
}

#[test]
fn a_stack_too_large_to_take_along_drops_the_packet() {
    let flow = format!("ip,actions={}ct(table=1)\n table=1,actions=2", "push:nw_src,".repeat(33));
    let mut bench = Bench::new(&flow);
    assert_eq!(bench.ports(1, &udp(A, 1, X, 2)), NOWHERE);
    assert_eq!(bench.dropped(DropCause::RecirculationContexts), 1);
}

#[test]
fn mark_label_zone_and_original_tuple_are_seen_behind_ct() {
    let flows = "ip,ct_state=-trk,actions=load:5->reg0,ct(table=1,zone=reg0[0..15])
        table=1,ip,ct_state=+new,actions=ct(commit,zone=5,exec(set_field:0x12->ct_mark,set_field:0x34->ct_label,\
        move:ct_mark[0..7]->ct_label[8..15])),2
        table=1,ip,ct_state=+est,ct_zone=5,ct_mark=0x12,ct_label=0x1234,ct_nw_src=192.168.0.1,ct_tp_dst=2,ct_nw_proto=17,actions=1";
    let mut bench = Bench::new(flows);
    bench.through(&udp(A, 1, X, 2));
    assert_eq!(bench.ports(2, &udp(X, 2, A, 1)), [1]);
    assert!(bench.connections()[0].contains("zone=5,mark=18,labels=0x1234"), "{:?}", bench.connections());
}

#[test]
fn the_original_tuple_is_there_for_actions_alone_too() {
    let flows = "ip,ct_state=-trk,actions=ct(table=1)
        table=1,in_port=1,ip,ct_state=+new,actions=ct(commit),2
        table=1,in_port=2,ip,ct_state=+est,actions=move:ct_nw_src->reg0,resubmit(,2)
        table=2,reg0=0xc0a80001,actions=1";
    let mut bench = Bench::new(flows);
    bench.through(&udp(A, 1, X, 2));
    assert_eq!(bench.ports(2, &udp(X, 2, A, 1)), [1]);
}

#[test]
fn ct_clear_forgets_the_connection() {
    let flows = "ip,ct_state=-trk,actions=ct(commit,exec(set_field:3->ct_mark),table=1)
        table=1,ct_state=+trk,ct_mark=3,actions=ct_clear,resubmit(,2)
        table=2,ct_state=-trk,ct_mark=0,actions=2";
    let mut bench = Bench::new(flows);
    bench.through(&udp(A, 1, X, 2));
    bench.balance();
}

#[test]
fn tables_that_recirculate_in_circles_come_to_an_end() {
    let mut bench = Bench::new("ip,actions=ct(table=0)");
    assert_eq!(bench.ports(1, &udp(A, 1, X, 2)), NOWHERE);
    assert_eq!(bench.dropped(DropCause::TooManyRecirculations), 1);
    bench.balance();
    // Twice each time: 2^32 copies without a bound on copies.
    let mut bench = Bench::new("ip,actions=ct(table=0),ct(table=0),ct(table=0),ct(table=0),ct(table=0),2");
    let packet = udp(A, 1, X, 2);
    let burst: Vec<&[u8]> = vec![&packet; BURST];
    let sent = bench.burst(1, &burst, 0);
    assert!(sent.len() < 2 * 64 * BURST, "{}", sent.len());
    assert!(bench.dropped(DropCause::TooManyRecirculations) > 0);
    bench.balance();
}

#[test]
fn without_room_for_another_context_the_packet_is_dropped_and_the_others_go_on() {
    use crate::pipeline::{Burst, HeapFrame, PortId, PublishedSnapshot, Transmit, Worker, WorkerConfig};
    #[derive(Default)]
    struct Count(usize);
    impl Transmit<HeapFrame> for Count {
        fn send(&mut self, _: PortId, _: HeapFrame) {
            self.0 += 1;
        }
    }
    let mut switch = crate::switch::Switch::default();
    switch.add_bridge("br", 0).unwrap();
    let port = switch.add_port("br", "a", None).unwrap();
    // Every source port is a context of its own.
    let flows = "udp,ct_state=-trk,actions=move:udp_src->reg0[0..15],ct(table=1)\n table=1,actions=in_port";
    switch.replace("br", &parse(flows, Command::Add), false, 0).unwrap();
    let config = WorkerConfig { shard: shard(), megaflows: 4, secret: secret(1), trajectories: true };
    let mut worker = Worker::new(config, PublishedSnapshot::new(switch.snapshot()).reader()).unwrap();
    let mut out = Count::default();
    let mut burst = Burst::new();
    for source in 1..=20 {
        burst.push(HeapFrame::new(&udp(A, source, X, 2)));
    }
    worker.process(0, port, &mut burst, &mut out);
    let refused = worker.counters().dropped(DropCause::RecirculationContexts);
    assert_eq!((out.0 as u64 + refused, refused), (20, 12), "two contexts for each megaflow");
    // The uncached flows of the burst are gone, and their contexts with them.
    burst.push(HeapFrame::new(&udp(A, 50, X, 2)));
    worker.process(0, port, &mut burst, &mut out);
    assert_eq!(worker.counters().dropped(DropCause::RecirculationContexts), refused);
    worker.clear_megaflows();
    assert_eq!(worker.megaflow_sizes(), (0, 0));
}
