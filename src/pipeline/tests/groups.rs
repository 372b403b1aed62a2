//! Groups in the datapath: which buckets a packet gets, that connections stay where they are, and that nothing stale
//! is served when a group or a link changes.

use super::*;
use crate::flow::{GroupCommand, GroupFile, PacketOut};

fn changes(groups: &str) -> Vec<crate::flow::GroupMod> {
    GroupFile::parse("test", groups.as_bytes(), GroupCommand::Add, &NoNames).unwrap().changes
}

impl Bench {
    fn with_groups(groups: &str, flows: &str) -> Self {
        let (groups, flows) = (changes(groups), parse(flows, Command::Add));
        let shard = shard();
        Self(VirtualSwitch::with_groups(&[1, 2, 3, 4], &groups, &flows, shard, secret(7)).unwrap())
    }

    fn change_groups(&mut self, groups: &str) {
        self.0.apply_groups(&changes(groups)).unwrap();
    }

    fn megaflows(&mut self) -> usize {
        self.0.worker().megaflow_sizes().0
    }
}

#[test]
fn each_bucket_and_what_follows_gets_the_packet_as_it_came() {
    let mut bench = Bench::with_groups(
        "group_id=1,type=all,bucket=mod_nw_dst:9.9.9.9,push_vlan:0x8100,2,bucket=mod_tp_dst:77,set_field:5->reg0,3,bucket=4",
        "ip,reg0=0,actions=group:1,3",
    );
    let packet = udp(A, 1, X, 2);
    let sent = bench.send(1, &packet);
    assert_eq!(ports(&sent), [2, 3, 4, 3]);
    assert_eq!((sent[2].1.as_slice(), sent[3].1.as_slice()), (packet.as_slice(), packet.as_slice()));
    assert_eq!(sent[0].1[12..14], [0x81, 0]);
    assert_eq!(tuple(&sent[0].1), tuple(&udp(A, 1, [9, 9, 9, 9], 2)));
    assert_eq!(tuple(&sent[1].1), tuple(&udp(A, 1, X, 77)));
    // Another destination is another megaflow: what is put back is part of what it matches.
    let other = udp(A, 1, B, 2);
    assert_eq!(bench.send(1, &other)[2].1, other);
    bench.balance();
}

#[test]
fn groups_lead_to_groups_and_tables() {
    let mut bench = Bench::with_groups(
        "group_id=3,type=indirect,bucket=2\ngroup_id=2,type=all,bucket=group:3,bucket=resubmit(,1)\n\
         group_id=1,type=all,bucket=group:2,bucket=4",
        "actions=group:1\ntable=1,actions=exit,4",
    );
    assert_eq!(bench.ports(1, &udp(A, 1, X, 2)), [2, 4], "an exit ends its bucket alone");
    // A circle through a table is none that the group table can see.
    let mut bench = Bench::with_groups("group_id=1,type=all,bucket=resubmit(,0)", "actions=group:1");
    assert_eq!(bench.ports(1, &udp(A, 1, X, 2)), NOWHERE);
    assert_eq!(bench.dropped(DropCause::TooManyResubmits), 1);
    // Twofold: 2^64 without the bound on the number of resubmits.
    let flows = "actions=group:1\ntable=1,actions=group:1,group:1";
    let mut bench = Bench::with_groups("group_id=1,type=all,bucket=resubmit(,1),bucket=resubmit(,1)", flows);
    assert_eq!(bench.ports(1, &udp(A, 1, X, 2)), NOWHERE);
    bench.balance();
}

/// What each group entered leaves behind is bounded, also where nothing is looked up on the way.
#[test]
fn a_pyramid_of_groups_ends() {
    let mut groups = String::from("group_id=20,type=all,bucket=2,bucket=3\n");
    for id in (1..20).rev() {
        let next = id + 1;
        groups.push_str(&format!("group_id={id},type=all{}\n", format!(",bucket=group:{next}").repeat(8)));
    }
    let mut bench = Bench::with_groups(&groups, "actions=group:1");
    assert_eq!(bench.ports(1, &udp(A, 1, X, 2)), NOWHERE);
    assert_eq!(bench.dropped(DropCause::TooManyResubmits), 1);
    bench.balance();
}

#[test]
fn fast_failover_takes_the_first_bucket_whose_port_has_a_link() {
    let mut bench = Bench::with_groups(
        "group_id=1,type=ff,bucket=watch_port:2,2,bucket=watch_port:3,3",
        "actions=group:1",
    );
    let packet = udp(A, 1, X, 2);
    assert_eq!(bench.ports(1, &packet), [2]);
    bench.0.set_link(2, false);
    assert_eq!(bench.ports(1, &packet), [3]);
    bench.0.set_link(3, false);
    assert_eq!(bench.ports(1, &packet), NOWHERE);
    assert_eq!(bench.dropped(DropCause::NoLiveBucket), 1);
    bench.0.set_link(2, true);
    assert_eq!(bench.ports(1, &packet), [2]);
    bench.balance();
}

#[test]
fn a_changed_or_deleted_group_is_never_served_from_the_cache() {
    let mut bench = Bench::with_groups("group_id=1,type=all,bucket=2", "actions=group:1");
    let packet = udp(A, 1, X, 2);
    assert_eq!(bench.ports(1, &packet), [2]);
    bench.change_groups("modify group_id=1,type=all,bucket=3,bucket=4");
    assert_eq!(bench.ports(1, &packet), [3, 4]);
    bench.change_groups("insert_bucket group_id=1,command_bucket_id=first,bucket=2");
    assert_eq!(bench.ports(1, &packet), [2, 3, 4]);
    bench.change_groups("delete group_id=1");
    assert_eq!(bench.ports(1, &packet), NOWHERE);
    assert_eq!(bench.dropped(DropCause::TableMiss), 1, "its flow went with it");
    bench.balance();
}

#[test]
fn a_bucket_may_lead_to_a_group_that_comes_later() {
    let mut bench = Bench::with_groups("group_id=1,type=all,bucket=group:2", "actions=group:1");
    assert_eq!(bench.ports(1, &udp(A, 1, X, 2)), NOWHERE);
    assert_eq!(bench.dropped(DropCause::NoSuchGroup), 1);
    bench.change_groups("group_id=2,type=all,bucket=2");
    assert_eq!(bench.ports(1, &udp(A, 1, X, 2)), [2]);
}

/// Packets each port got out of 3000 connections.
fn spread(bench: &mut Bench) -> [usize; 5] {
    let mut seen = [0; 5];
    for n in 0..3000u16 {
        let [high, low] = n.to_be_bytes();
        let packet = tcp([10, 0, high, low], 1024 + n, X, 80, flag::SYN, 1, 0);
        let out = bench.ports(1, &packet);
        assert_eq!(bench.ports(1, &packet), out, "a connection stays where it is");
        seen[usize::from(out[0])] += 1;
    }
    seen
}

#[test]
fn select_spreads_connections_by_weight_with_few_megaflows() {
    for method in [
        "",
        ",selection_method=dp_hash,selection_method_param=5",
        ",selection_method=hash,fields(ip_src,tcp_src)",
    ] {
        let group = format!(
            "group_id=1,type=select{method},bucket=weight:100,2,bucket=weight:200,3,bucket=weight:100,4"
        );
        let mut bench = Bench::with_groups(&group, "actions=group:1");
        let [_, _, two, three, four] = spread(&mut bench);
        // 750, 1500, 750; the standard deviation is below 28.
        assert!(
            (610..890).contains(&two) && (1360..1640).contains(&three) && (610..890).contains(&four),
            "{method}: {two} {three} {four}"
        );
        let megaflows = bench.megaflows();
        // The hash of fields matches the fields; the datapath's hash matches its low bits only.
        assert!(
            if method.contains("fields") { megaflows == 3000 } else { megaflows <= 16 },
            "{method}: {megaflows}"
        );
        bench.balance();
    }
}

#[test]
fn a_hash_of_fields_depends_on_these_alone() {
    let group = "group_id=1,type=select,selection_method=hash,fields(ip_src),bucket=2,bucket=3";
    let mut bench = Bench::with_groups(group, "ip,actions=group:1");
    let first = bench.ports(1, &udp(A, 1, X, 2));
    for port in 2..200 {
        assert_eq!(bench.ports(1, &udp(A, port, X, port)), first);
    }
    assert_eq!(bench.megaflows(), 1);
}

#[test]
fn counters_of_groups_and_buckets_come_from_the_cached_flows_too() {
    let mut bench = Bench::with_groups("group_id=1,type=all,bucket=2,bucket=3", "actions=group:1");
    let packet = udp(A, 1, X, 2);
    for _ in 0..5 {
        bench.send(1, &packet);
    }
    bench.0.rules().unwrap();
    let groups = bench.0.switch().bridge(crate::replay::BRIDGE).unwrap().tables().groups();
    let entry = groups.find(1).unwrap();
    let packets = |stats: &crate::flow::RuleStats| stats.packets.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(packets(&entry.stats), 5);
    assert_eq!(entry.bucket_stats.iter().map(|stats| packets(stats)).collect::<Vec<_>>(), [5, 5]);
}

const SERVERS: &str = "group_id=1,type=select,\
    bucket=ct(commit,zone=1,nat(dst=10.0.0.10),table=2),bucket=ct(commit,zone=1,nat(dst=10.0.0.11),table=2),\
    bucket=weight:2,ct(commit,zone=1,nat(dst=10.0.0.12:8080),table=2)";
const BALANCER: &str = "table=0,ip,actions=ct(zone=1,nat,table=1)
    table=1,in_port=1,tcp,nw_dst=203.0.113.9,ct_state=+trk+new,actions=group:1
    table=1,in_port=1,ip,ct_state=+trk+est,actions=2
    table=1,in_port=2,ip,ct_state=+trk+est+rpl,actions=1
    table=2,ip,actions=2";

#[test]
fn a_balancer_spreads_clients_keeps_connections_and_translates_replies() {
    let mut bench = Bench::with_groups(SERVERS, BALANCER);
    let mut clients = std::collections::BTreeMap::new();
    for n in 0..800u16 {
        let [high, low] = n.to_be_bytes();
        let client = [192, 168, high, low];
        let first = bench.send(1, &syn(client, 5000, X, 80));
        assert_eq!(ports(&first), [2]);
        let layers = Layers::parse(&first[0].1);
        let to: [u8; 4] = first[0].1[usize::from(layers.l3) + 16..][..4].try_into().unwrap();
        let port = if to == [10, 0, 0, 12] { 8080 } else { 80 };
        assert_eq!(tuple(&first[0].1), tuple(&syn(client, 5000, to, port)), "checksums are right, too");
        // The answer seems to come from the address that the client knows.
        let back = bench.send(2, &tcp(to, port, client, 5000, flag::SYN | flag::ACK, 9000, 1001));
        assert_eq!(ports(&back), [1]);
        assert_eq!(tuple(&back[0].1), tuple(&tcp(X, 80, client, 5000, flag::ACK, 0, 0)));
        *clients.entry(to[3]).or_insert(0) += 1;
        assert!(matches!(to, [10, 0, 0, 10..=12]));
        // A server is added in the middle: this connection stays.
        if n == 400 {
            bench.change_groups("insert_bucket group_id=1,command_bucket_id=first,bucket=weight:0,ct(commit,zone=1,nat(dst=10.0.0.13),table=2)");
        }
        let next = bench.send(1, &tcp(client, 5000, X, 80, flag::ACK, 1001, 9001));
        assert_eq!(tuple(&next[0].1), tuple(&tcp(client, 5000, to, port, flag::ACK, 0, 0)));
    }
    // 200, 200, 400; the standard deviation is at most 14.2.
    let [ten, eleven, twelve] = [10, 11, 12].map(|server| clients[&server]);
    assert!(
        (129..271).contains(&ten) && (129..271).contains(&eleven) && (329..471).contains(&twelve),
        "{clients:?}"
    );
    assert!(bench.megaflows() < 100, "{}", bench.megaflows());
    bench.balance();
}

#[test]
fn what_a_bucket_says_and_the_packet_does_not_have_does_nothing() {
    let groups = "group_id=1,type=all,bucket=mod_nw_dst:9.9.9.9,mod_tp_dst:5,dec_ttl,set_field:1->arp_op,2,bucket=ct(commit,nat(dst=10.0.0.1),table=1)";
    let mut bench = Bench::with_groups(groups, "actions=group:1\ntable=1,actions=3");
    let arp = PacketBuilder::new().ether_type(0x88b5).payload(&[0; 46]).build();
    let sent = bench.send(1, &arp);
    assert_eq!(sent.first(), Some(&(2, arp)));
    let six = PacketBuilder::new().ipv6([1; 16], [2; 16]).udp(1, 2).build();
    bench.send(1, &six);
    bench.balance();
}

/// Sends packets by hand.
pub(super) fn packet_out(bench: &mut Bench, text: &str, frame: &[u8]) -> Sent {
    let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
    let out = PacketOut::parse(&text.replace("PACKET", &hex), &NoNames).unwrap();
    bench.0.packet_out(&out).unwrap();
    bench.0.take_sent().into_iter().map(|(port, frame)| (port, frame.bytes().to_vec())).collect()
}

#[test]
fn a_packet_sent_by_hand_goes_where_its_actions_say() {
    let mut bench = Bench::with_groups(
        "group_id=1,type=all,bucket=3,bucket=4",
        "in_port=1,actions=2\nin_port=77,reg0=5,actions=4",
    );
    let packet = udp(A, 1, X, 2);
    for (text, expected) in [
        ("in_port=1,packet=PACKET,actions=2,3", &[2, 3][..]),
        ("in_port=1,packet=PACKET,actions=table", &[2]),
        ("in_port=1,packet=PACKET,actions=1,in_port", &[1]),
        ("in_port=none,packet=PACKET,actions=table", &[]),
        ("in_port=none,packet=PACKET,actions=flood", &[1, 2, 3, 4]),
        ("in_port=77,reg0=5,packet=PACKET,actions=resubmit(,0)", &[4]),
        ("in_port=77,packet=PACKET,actions=resubmit(,0)", &[]),
        ("in_port=controller,packet=PACKET,actions=group:1,99", &[3, 4]),
        ("in_port=1,packet=PACKET,actions=drop", &[]),
        ("in_port=1,packet=PACKET", &[]),
        ("in_port=1,packet=PACKET,actions=local", &[]),
    ] {
        let sent = packet_out(&mut bench, text, &packet);
        assert_eq!(ports(&sent), expected, "{text}");
        assert!(sent.iter().all(|(_, frame)| *frame == packet), "{text}");
    }
    let missing = PacketOut::parse_words("1", "group:9", &["00".repeat(14)], &NoNames).unwrap();
    assert!(bench.0.packet_out(&missing).unwrap_err().to_string().contains("there is no group 9"));
    bench.balance();
    assert_eq!(bench.megaflows(), 0, "none of them stays");
    assert_eq!(bench.0.worker().recirculation_contexts(), 0);
    // The actions of one packet are not those of the next that looks like it.
    assert_eq!(bench.ports(1, &packet), [2]);
    assert_eq!(ports(&packet_out(&mut bench, "in_port=1,packet=PACKET,actions=4", &packet)), [4]);
    assert_eq!(bench.ports(1, &packet), [2]);
}

#[test]
fn a_composed_packet_goes_through_the_nat_table() {
    for layout in layouts() {
        compose_through_nat(Bench::divided(NAT, layout));
    }
}

fn compose_through_nat(mut bench: Bench) {
    let compose = |flow: &str| {
        let none = crate::flow::compose::Payload::default();
        crate::flow::compose::compose(flow, &none, &NoNames).unwrap().frame
    };
    let syn =
        compose("tcp,tcp_flags=2,nw_src=192.168.0.1,nw_dst=203.0.113.9,tp_src=4000,tp_dst=80,nw_ttl=64");
    let sent = packet_out(&mut bench, "in_port=1,packet=PACKET,actions=table", &syn);
    assert_eq!(ports(&sent), [2]);
    assert_ne!(tuple(&sent[0].1), tuple(&syn), "translated");
    assert!(tuple(&sent[0].1).contains("dst=203.0.113.9"), "{}", tuple(&sent[0].1));
    assert_eq!(bench.connections().len(), 1);
    // What was tracked by hand is tracked for everybody.
    assert_eq!(bench.through(&syn), sent[0].1);
    // A rule that a packet only met through its own actions has counted it.
    let counted: u64 = bench
        .0
        .rules()
        .unwrap()
        .iter()
        .map(|rule| rule.stats.packets.load(std::sync::atomic::Ordering::Relaxed))
        .sum();
    assert!(counted >= 4, "{counted}");
    bench.balance();
}

#[test]
fn a_packet_sent_by_hand_is_tracked_and_goes_on_behind_its_ct() {
    let mut bench = Bench::new("table=5,in_port=1,reg2=7,ct_state=+trk+new,ip,ct_zone=9,actions=3");
    let packet = udp(A, 1, X, 2);
    let text =
        "in_port=1,reg2=7,packet=PACKET,actions=ct(commit,zone=9,table=5,exec(set_field:5->ct_mark)),4";
    assert_eq!(ports(&packet_out(&mut bench, text, &packet)), [3, 4]);
    assert!(bench.connections()[0].contains("zone=9,mark=5"), "{:?}", bench.connections());
    bench.balance();
}

#[test]
fn hostile_packets_sent_by_hand_do_no_harm() {
    let mut bench =
        Bench::with_groups("group_id=1,type=select,bucket=ct(commit,table=0),bucket=2", "actions=group:1");
    for length in 14..90 {
        for byte in [0, 0x45, 0x60, 0xff] {
            let mut frame = vec![byte; length];
            frame[12..14].copy_from_slice(if byte == 0x60 { &[0x86, 0xdd] } else { &[8, 0] });
            packet_out(
                &mut bench,
                "in_port=1,packet=PACKET,actions=ct(table=0),push_vlan:0x8100,push_vlan:0x8100,dec_ttl,group:1,table",
                &frame,
            );
            bench.balance();
        }
    }
}

/// Marks, labels and zones from registers, and in bit ranges.
#[test]
fn marks_labels_and_zones_come_from_registers_and_bits_of_them() {
    let shown = |actions: &str| {
        let mut bench =
            Bench::new(&format!("ip,actions=load:0x12345678->reg0,load:0xabcd->reg1,{actions},2"));
        bench.through(&udp(A, 1, X, 2));
        bench.balance();
        let line = bench.connections().remove(0);
        let from = line.find("sport=2,dport=1)").unwrap() + 16;
        line[from..].to_owned()
    };
    for (actions, expected) in [
        ("ct(commit,exec(move:NXM_NX_REG0[]->NXM_NX_CT_MARK[]))", ",mark=305419896"),
        ("ct(commit,exec(move:NXM_NX_REG0[0..7]->NXM_NX_CT_MARK[8..15]))", ",mark=30720"),
        ("ct(commit,exec(set_field:0x1/0x3->ct_mark))", ",mark=1"),
        ("ct(commit,exec(load:0x5->NXM_NX_CT_MARK[28..31],load:1->NXM_NX_CT_MARK[0]))", ",mark=1342177281"),
        ("ct(commit,exec(load:0xfffffff5->NXM_NX_CT_LABEL[0..31]))", ",labels=0xfffffff5"),
        ("ct(commit,exec(load:0x1->NXM_NX_CT_LABEL[127]))", ",labels=0x80000000000000000000000000000000"),
        ("ct(commit,exec(load:0x7->NXM_NX_CT_LABEL[62..65]))", ",labels=0x1c000000000000000"),
        (
            "ct(commit,exec(move:NXM_NX_REG0[]->NXM_NX_CT_LABEL[96..127],move:NXM_NX_REG1[0..15]->NXM_NX_CT_LABEL[0..15]))",
            ",labels=0x1234567800000000000000000000abcd",
        ),
        ("ct(commit,exec(set_field:0x30/0xf0->ct_label,set_field:2/0xf->ct_label))", ",labels=0x32"),
        (
            "ct(commit,exec(move:NXM_NX_XXREG0[]->NXM_NX_CT_LABEL[]))",
            ",labels=0x123456780000abcd0000000000000000",
        ),
        ("ct(commit,exec(move:NXM_OF_IP_SRC[]->NXM_NX_CT_MARK[]))", ",mark=3232235521"),
        ("ct(commit,zone=NXM_NX_REG0[0..15])", ",zone=22136"),
        (
            "ct(commit,zone=NXM_NX_REG0[16..31],exec(move:NXM_NX_REG1[]->NXM_NX_CT_MARK[]))",
            ",zone=4660,mark=43981",
        ),
    ] {
        assert_eq!(shown(actions), expected, "{actions}");
    }
}

/// Bits that are not written stay as the connection has them, and a packet's own fields are part of its megaflow.
#[test]
fn a_later_commit_changes_only_the_bits_that_it_names() {
    let mut bench = Bench::new(
        "table=0,ip,actions=ct(table=1)
        table=1,ip,ct_state=+new,actions=ct(commit,exec(load:0xff->NXM_NX_CT_MARK[0..7],load:0xaa->NXM_NX_CT_LABEL[64..71])),2
        table=1,ip,ct_state=+est,actions=move:NXM_NX_CT_LABEL[64..71]->NXM_NX_REG3[0..7],\
            ct(commit,exec(load:0->NXM_NX_CT_MARK[0..3],move:NXM_NX_REG3[0..7]->NXM_NX_CT_LABEL[0..7])),1",
    );
    bench.through(&udp(A, 1, X, 2));
    assert_eq!(bench.ports(2, &udp(X, 2, A, 1)), [1]);
    assert!(
        bench.connections()[0].ends_with(",mark=240,labels=0xaa00000000000000aa"),
        "{:?}",
        bench.connections()
    );
    // The same table, with another source address as the mark: no cached flow gives one client the other's mark.
    let mut bench =
        Bench::new("ip,actions=ct(commit,exec(move:NXM_OF_IP_SRC[0..15]->NXM_NX_CT_MARK[0..15])),2");
    bench.through(&udp(A, 1, X, 2));
    bench.through(&udp(B, 1, X, 2));
    let marks: Vec<_> =
        bench.connections().iter().map(|line| line.rsplit_once("mark=").unwrap().1.to_owned()).collect();
    assert_eq!(marks, ["1", "2"]);
}
