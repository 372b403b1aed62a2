//! Flow tables that look at what changes from packet to packet, or while a connection lives, beside those that several
//! shards are tested with. Port 1 is inside, the others are outside.

#[expect(dead_code, reason = "what divided switches need")]
#[path = "../equivalence/tables.rs"]
mod divided;

pub(crate) use divided::{TABLES, Table, table};

/// Tables of which packets of one burst act on each other by more than their first `ct`: what a connection is given
/// while it lives, or who gets an address and port that others want. A burst that is worked in waves shows them another order than one that
/// is worked packet by packet.
pub(crate) const IN_SINGLE_FILE: [&str; 5] =
    ["force", "painted", "counted-hops", "learning", "changing-label"];

pub(crate) const MORE: &[Table] = &[
    table(
        "every-field",
        "table=0,priority=90,ip,action=ct(table=1)
         table=0,priority=90,ipv6,action=ct(table=1)
         table=1,priority=10,both,ct_state=+new,action=ct(commit),resubmit(,2)
         table=1,priority=90,both,nw_ttl=63,action=resubmit(,3)
         table=1,priority=80,both,nw_tos=32,action=3,resubmit(,2)
         table=1,priority=70,dl_src=02:00:00:00:00:07,action=4
         table=1,priority=60,both,dl_vlan=5,action=strip_vlan,resubmit(,2)
         table=1,priority=50,both,ct_state=+est,action=resubmit(,2)
         table=1,priority=40,both,ct_state=+rel,action=resubmit(,2)
         table=2,in_port=1,action=2
         table=2,priority=1,action=1
         table=3,priority=50,both,nw_ecn=1,action=drop
         table=3,both,action=dec_ttl,4",
    ),
    table(
        "tcp-flags",
        "table=0,priority=9,tcp,ct_state=-trk,action=ct(table=1)
         table=0,priority=9,udp,ct_state=-trk,tp_dst=80,action=ct(table=1,zone=7)
         table=0,priority=1,ip,action=ct(table=1)
         table=1,priority=90,tcp,ct_state=+est,tcp_flags=+fin,action=3
         table=1,priority=90,tcp,ct_state=+est,tcp_flags=+rst,action=drop
         table=1,priority=80,ct_state=+est,in_port=1,action=2
         table=1,priority=80,ct_state=+est,action=1
         table=1,priority=80,ct_state=+new,ip,in_port=1,action=ct(commit),2
         table=1,priority=80,ct_zone=7,ct_state=+new,ip,action=ct(commit,zone=7),1,2",
    ),
    table(
        "original-tuple",
        "table=0,priority=90,ip,action=ct(nat,table=1)
         table=1,in_port=1,ip,ct_state=+new,action=ct(commit,nat(src=10.0.0.1-10.0.0.9)),2
         table=1,ip,ct_state=+est,ct_nw_src=192.168.0.1,ct_tp_dst=80,action=resubmit(,2)
         table=1,ip,ct_state=+est,ct_nw_proto=17,action=3,resubmit(,2)
         table=1,priority=10,ip,ct_state=+est,action=4
         table=2,in_port=1,action=2
         table=2,action=1",
    ),
    table(
        "painted",
        "table=0,priority=90,both,action=ct(table=1)
         table=1,both,ct_state=+new,action=ct(commit,exec(set_field:1->ct_mark)),2
         table=1,both,ct_state=+est,ct_mark=1,nw_ttl=63,action=ct(commit,exec(set_field:2->ct_mark)),2
         table=1,both,ct_state=+est,ct_mark=2,nw_tos=32,action=ct(commit,exec(set_field:3->ct_mark)),resubmit(,2)
         table=1,priority=80,both,ct_state=+est,ct_mark=1,action=resubmit(,2)
         table=1,priority=80,both,ct_state=+est,ct_mark=2,action=3
         table=1,priority=80,both,ct_state=+est,ct_mark=3,action=4,ct(commit,exec(set_field:1->ct_mark))
         table=1,priority=1,action=drop
         table=2,in_port=1,action=2
         table=2,action=1",
    ),
    table(
        "changing-label",
        "table=0,priority=90,both,action=ct(table=1,zone=3)
         table=1,both,ct_state=+new,action=ct(commit,zone=3,exec(set_field:0x1->ct_label)),2
         table=1,both,ct_state=+est,ct_label=0x1,nw_tos=32,action=ct(commit,zone=3,exec(set_field:0x10000000000000001->ct_label)),1
         table=1,priority=80,both,ct_state=+est,ct_label=0x10000000000000000/0x10000000000000000,action=3,4
         table=1,priority=70,both,ct_state=+est,in_port=1,action=2
         table=1,priority=70,both,ct_state=+est,action=1",
    ),
    table(
        "counted-hops",
        "table=0,priority=90,both,action=ct(table=1,zone=1)
         table=1,priority=90,both,action=ct(table=2,zone=2)
         table=2,priority=90,both,action=ct(table=3,zone=1)
         table=3,priority=90,both,action=ct(table=4,zone=3)
         table=4,priority=90,both,ct_state=+new,action=ct(commit,zone=3),ct(commit,zone=1),ct(commit,zone=2),ct(table=5,zone=2)
         table=4,priority=80,both,action=ct(table=5,zone=2)
         table=5,priority=90,both,in_port=1,action=2
         table=5,priority=90,both,nw_ttl=63,action=3
         table=5,priority=80,action=1",
    ),
    table(
        "one-zone-twice",
        "table=0,priority=90,both,action=ct(table=1,zone=4)
         table=1,priority=90,both,ct_state=+new,action=ct(commit,zone=4),2
         table=1,priority=90,both,ct_state=+est,action=ct(table=2,zone=4)
         table=1,priority=90,both,ct_state=+inv,action=3
         table=2,priority=90,both,ct_state=+rpl,action=1
         table=2,priority=90,both,ct_state=-rpl,action=2",
    ),
    table(
        "dressed-first",
        "table=0,priority=90,ip,in_port=1,action=set_field:172.16.0.1->ip_src,ct(table=1)
         table=0,priority=90,ip,in_port=2,nw_tos=32,action=set_field:5->nw_ttl,ct(table=2)
         table=0,priority=80,ip,in_port=2,action=ct(table=2)
         table=1,ip,ct_state=+new,action=ct(commit),2
         table=1,ip,ct_state=+est,action=2
         table=2,priority=90,ip,ct_state=+est,nw_ttl=5,action=set_field:192.168.0.1->ip_dst,3
         table=2,priority=80,ip,ct_state=+est,action=set_field:192.168.0.1->ip_dst,1",
    ),
    table("learning", "table=0,action=normal"),
    table(
        "learning-behind-ct",
        "table=0,priority=90,both,action=ct(table=1)
         table=0,priority=1,action=normal
         table=1,both,ct_state=+new,action=ct(commit),normal
         table=1,both,ct_state=+est,action=normal",
    ),
    Table {
        groups: "group_id=1,type=select,selection_method=hash,fields(ip_src),bucket=bucket_id:1,weight:1,2,bucket=bucket_id:2,weight:3,3
                 group_id=2,type=select,bucket=bucket_id:1,weight:1,1,bucket=bucket_id:2,weight:1,4
                 group_id=3,type=ff,bucket=bucket_id:1,watch_port:3,3,bucket=bucket_id:2,watch_port:4,4",
        ..table(
            "balanced",
            "table=0,priority=90,both,action=ct(table=1)
             table=1,in_port=1,both,ct_state=+new,action=ct(commit),group:1
             table=1,priority=90,in_port=1,both,ct_state=+est,nw_ttl=63,action=group:3
             table=1,priority=80,in_port=1,both,ct_state=+est,action=group:1
             table=1,priority=80,both,ct_state=+est,action=group:2",
        )
    },
    table(
        "copies",
        "table=0,priority=90,both,action=3,ct(table=1),4
         table=1,both,ct_state=+new,action=ct(commit,table=2),3
         table=1,both,ct_state=+est,in_port=1,action=2,resubmit(,2)
         table=1,both,ct_state=+est,action=1,in_port
         table=2,priority=90,action=2",
    ),
    table(
        "half-stateless",
        "table=0,priority=90,udp,action=resubmit(,1)
         table=0,priority=90,udp6,action=resubmit(,1)
         table=0,priority=80,tcp,in_port=1,action=ct(table=2,zone=9)
         table=0,priority=80,tcp,action=ct(table=2,zone=9,nat)
         table=0,priority=10,both,action=2
         table=1,in_port=1,action=2
         table=1,action=1
         table=2,ip,ct_state=+new,action=ct(commit,zone=9),2,1
         table=2,ip,ct_state=+est,in_port=1,action=2
         table=2,ip,ct_state=+est,action=ct_clear,1",
    ),
];

/// Flows that come and go on top of any table.
pub(crate) const EXTRA: [&str; 14] = [
    "priority=60000,udp,tp_dst=80,actions=4",
    "priority=60001,ip,nw_ttl=63,actions=drop",
    "priority=60002,tcp,in_port=2,actions=1,3",
    "priority=60003,dl_src=02:00:00:00:00:07,actions=3",
    "priority=60004,ip,nw_src=192.168.0.2,actions=ct(table=1,zone=5)",
    "priority=60005,dl_vlan=5,actions=strip_vlan,resubmit(,1)",
    "table=1,priority=60000,ip,ct_state=+est,nw_tos=32,actions=3",
    "table=1,priority=60001,ip,ct_state=+est,ct_mark=1,actions=4",
    "table=1,priority=60002,ip,ct_state=+est+rpl,actions=1,4",
    "table=1,priority=60003,ip,ct_state=+est,ct_tp_src=4000,actions=2",
    "table=1,priority=60004,ip,ct_state=+new,actions=ct(commit,exec(set_field:2->ct_mark)),2",
    "table=1,priority=60005,ip,ct_zone=5,actions=4",
    "table=1,priority=60006,ip,ct_state=+inv,actions=3",
    "table=2,priority=60000,tcp,tp_dst=4000,actions=1",
];
