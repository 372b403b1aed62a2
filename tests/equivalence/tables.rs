//! The flow tables that captures are sent through. Port 1 is inside, port 2 outside, ports 3 and 4 are spare.

use weir::flow::{Command, FlowFile, FlowMod, GroupCommand, GroupFile, GroupMod, NoNames};
use weir::replay::{Layout, VirtualSwitch, secret};
use weir_shard::ShardConfig;

pub(crate) struct Table {
    pub(crate) name: &'static str,
    /// `both,` stands for a line with `ip,` and one with `ipv6,`.
    pub(crate) flows: &'static str,
    pub(crate) groups: &'static str,
    /// A range so small that connections need addresses that are not the first choice: which of them have to change
    /// depends on the ports drawn before. Or the address is chosen by a tuple that has a drawn port in it.
    pub(crate) is_crowded: bool,
}

pub(crate) const fn table(name: &'static str, flows: &'static str) -> Table {
    Table { name, flows, groups: "", is_crowded: false }
}

pub(crate) const TABLES: &[Table] = &[
    table("nat", include_str!("../../examples/nat.flows")),
    table("acl", include_str!("../../examples/acl.flows")),
    table("acl6", include_str!("../../examples/acl6.flows")),
    Table {
        is_crowded: true,
        ..table(
            "narrow",
            "table=0,ip,ct_state=-trk,action=ct(nat,table=1)
             table=1,in_port=1,ip,ct_state=+trk+new,action=ct(nat(src=10.0.0.1:5000-5001),commit),2
             table=1,in_port=2,ip,ct_state=+trk+new,action=drop
             table=1,priority=100,in_port=1,ip,ct_state=+trk,action=2
             table=1,priority=100,in_port=2,ip,ct_state=+trk,action=1",
        )
    },
    Table {
        is_crowded: true,
        ..table(
            "keeps-port",
            "table=0,ip,ct_state=-trk,action=ct(nat,table=1)
             table=0,ipv6,ct_state=-trk,action=ct(nat,table=1)
             table=1,in_port=1,ip,ct_state=+trk+new,action=ct(nat(src=10.0.0.1),commit,exec(move:NXM_OF_IN_PORT[]->NXM_NX_CT_MARK[0..15])),2
             table=1,in_port=1,ipv6,ct_state=+trk+new,action=ct(nat(src=2001:db8:1::1-2001:db8:1::2),commit),2
             table=1,in_port=2,ct_state=+trk+new,action=drop
             table=1,priority=100,in_port=1,ct_state=+trk,action=2
             table=1,priority=100,in_port=2,ct_state=+trk,action=1",
        )
    },
    table(
        "service",
        "table=0,ip,ct_state=-trk,action=ct(nat,table=1)
         table=1,in_port=2,ip,ct_state=+trk+new,action=ct(nat(dst=192.168.0.1-192.168.0.3),commit),1
         table=1,in_port=1,ip,ct_state=+trk+new,action=ct(commit),2
         table=1,ip,ct_state=+trk+inv,action=drop
         table=1,priority=100,in_port=1,ip,ct_state=+trk,action=2
         table=1,priority=100,in_port=2,ip,ct_state=+trk,action=1",
    ),
    table(
        "floating",
        "table=0,ip,ct_state=-trk,action=ct(nat,table=1)
         table=1,in_port=1,ip,nw_src=192.168.0.1,ct_state=+trk+new,action=ct(nat(src=10.0.0.1),commit),2
         table=1,in_port=1,ip,nw_src=192.168.0.2,ct_state=+trk+new,action=ct(nat(src=10.0.0.2),commit),2
         table=1,in_port=1,ip,ct_state=+trk+new,action=drop
         table=1,in_port=2,ip,nw_dst=192.168.0.0/16,ct_state=+trk+new,action=ct(commit),1
         table=1,in_port=2,ip,nw_dst=10.0.0.1,ct_state=+trk+new,action=ct(nat(dst=192.168.0.1),commit),1
         table=1,in_port=2,ip,nw_dst=10.0.0.2,ct_state=+trk+new,action=ct(nat(dst=192.168.0.2),commit),1
         table=1,priority=100,in_port=1,ip,ct_state=+trk,action=2
         table=1,priority=100,in_port=2,ip,ct_state=+trk,action=1",
    ),
    Table {
        is_crowded: true,
        ..table(
        "hairpin",
        "table=0,ip,ct_state=-trk,action=ct(nat,zone=5,table=1)
         table=1,priority=40000,in_port=1,ip,nw_dst=10.0.0.1,ct_state=+trk+new,action=ct(nat(dst=192.168.0.1),zone=5,commit,table=2)
         table=1,in_port=1,ip,ct_state=+trk+new,action=ct(nat(src=10.0.0.1-10.0.0.9:1024-65535),zone=5,commit),2
         table=1,priority=39000,in_port=1,ip,nw_dst=192.168.0.0/16,ct_state=+trk-new,action=ct(nat,zone=6,table=3)
         table=1,priority=100,in_port=1,ip,ct_state=+trk,action=2
         table=1,in_port=2,ip,ct_state=+trk+est,action=1
         table=2,priority=90,ip,action=ct(nat(src=10.0.0.77:3000-9000),zone=6,commit),in_port
         table=3,priority=90,ip,action=in_port,3",
    )
    },
    table(
        "zones",
        "table=0,priority=90,ip,action=ct(zone=1,table=1)
         table=0,priority=90,ipv6,action=ct(zone=1,table=1)
         table=1,both,in_port=1,ct_state=+new,action=ct(commit,zone=1,exec(load:7->NXM_NX_CT_MARK[])),ct(zone=2,table=2)
         table=1,priority=90,both,in_port=1,action=ct(zone=2,table=2)
         table=1,both,in_port=2,ct_state=+est,ct_mark=7,action=ct(zone=2,table=3)
         table=1,in_port=2,ct_state=+rel,action=1
         table=2,both,ct_state=+new,action=ct(commit,zone=2,exec(load:9->NXM_NX_CT_LABEL[3..20])),2
         table=2,priority=90,action=2
         table=3,ct_state=+est,action=ct_clear,1
         table=3,priority=90,action=4",
    ),
    table(
        "translated-zones",
        "table=0,priority=90,in_port=1,ip,action=ct(zone=1,nat,table=1)
         table=0,priority=90,in_port=2,ip,action=ct(zone=2,nat,table=2)
         table=1,ip,ct_state=+new,action=ct(commit,zone=1,nat(dst=203.0.113.20-203.0.113.21)),ct(zone=2,nat,table=3)
         table=1,priority=90,ip,action=ct(zone=2,nat,table=3)
         table=2,priority=90,ip,action=ct(zone=1,nat,table=4)
         table=3,ip,ct_state=+new,action=ct(commit,zone=2,nat(src=10.0.0.1-10.0.0.9:20000-40000)),2
         table=3,priority=90,ip,action=2
         table=4,ip,ct_state=+est,action=1
         table=4,ip,ct_state=+rel,action=1
         table=4,priority=90,ip,action=3",
    ),
    table(
        "changed-first",
        "table=0,priority=90,in_port=1,ip,action=push_vlan:0x8100,set_field:4->vlan_vid,mod_nw_src:172.16.0.1,dec_ttl,ct(table=1,zone=3)
         table=0,priority=90,in_port=2,ip,action=ct(table=2,zone=3)
         table=1,both,ct_state=+new,action=ct(commit,zone=3),strip_vlan,2
         table=1,priority=90,action=strip_vlan,2,3
         table=2,ct_state=+est,action=mod_nw_dst:192.168.0.1,1
         table=2,priority=90,action=2,in_port",
    ),
    table(
        "sent-first",
        "table=0,priority=90,in_port=1,ip,action=3,ct(commit,zone=4),output(port=4,max_len=60),ct(table=1,zone=4)
         table=0,priority=90,in_port=2,ip,action=3,ct(zone=4)
         table=0,priority=90,ipv6,action=ct(commit),ct(table=1),2
         table=1,ct_state=+est,action=2
         table=1,ct_state=+new,action=2,1",
    ),
    table(
        "force",
        "table=0,priority=90,in_port=1,ip,action=ct(table=1)
         table=0,priority=90,in_port=2,ip,action=ct(table=2)
         table=1,ip,ct_state=-rpl+trk,action=ct(commit,force,exec(move:NXM_NX_REG0[]->NXM_NX_CT_LABEL[0..31])),2
         table=1,ip,ct_state=+rpl,action=ct(commit,force),4
         table=2,ip,ct_state=+new,action=ct(commit,force),1
         table=2,ip,ct_state=+est,action=1",
    ),
    table(
        "stateless",
        "table=0,priority=90,ip,in_port=1,action=mod_nw_src:10.0.0.1,2
         table=0,priority=90,ip,in_port=2,action=mod_nw_dst:192.168.0.1,1
         table=0,priority=90,ipv6,action=dec_ttl,3",
    ),
    Table {
        groups: "group_id=1,type=select,selection_method=hash,fields(ip_src,tcp_src),bucket=weight:1,ct(table=1,zone=1,nat(dst=192.168.0.1),commit),bucket=weight:2,ct(table=1,zone=1,nat(dst=192.168.0.2),commit)
                 group_id=2,type=all,bucket=ct(table=2),bucket=3",
        ..table(
            "groups",
            "table=0,priority=90,in_port=2,ip,action=ct(table=3,zone=1,nat)
             table=0,priority=90,in_port=1,ip,action=ct(table=4,zone=1,nat)
             table=3,ip,ct_state=+new,action=group:1
             table=3,ct_state=+est,action=1
             table=1,priority=90,action=1
             table=2,priority=90,action=2
             table=4,ct_state=+est,action=2
             table=4,priority=90,ip,action=group:2",
        )
    },
    Table {
        is_crowded: true,
        ..table(
        "helpers",
        "table=0,ip,ct_state=-trk,action=ct(nat,table=1)
         table=1,priority=40000,in_port=1,tcp,tp_dst=21,ct_state=+trk+new,action=ct(alg=ftp,nat(src=10.0.0.1:1024-65535),commit),2
         table=1,priority=40000,in_port=1,udp,tp_dst=69,ct_state=+trk+new,action=ct(alg=tftp,nat(src=10.0.0.1:1024-65535),commit),2
         table=1,in_port=1,ip,ct_state=+trk+new-rel,action=ct(nat(src=10.0.0.1-10.0.0.2:1024-65535),commit),2
         table=1,in_port=2,ip,ct_state=+trk+new+rel,action=ct(nat,commit),1
         table=1,in_port=1,ip,ct_state=+trk+new+rel,action=ct(nat,commit),2
         table=1,in_port=2,ip,ct_state=+trk+new-rel,action=drop
         table=1,priority=100,in_port=1,ip,ct_state=+trk,action=2
         table=1,priority=100,in_port=2,ip,ct_state=+trk,action=1",
    )
    },
    table(
        "plain-helpers",
        "table=0,ip,ct_state=-trk,action=ct(table=1)
         table=0,ipv6,ct_state=-trk,action=ct(table=1)
         table=1,priority=40000,in_port=1,tcp,tp_dst=21,ct_state=+trk+new,action=ct(alg=ftp,commit,exec(load:3->NXM_NX_CT_MARK[])),2
         table=1,priority=40000,in_port=1,udp,tp_dst=69,ct_state=+trk+new,action=ct(alg=tftp,commit),2
         table=1,priority=40000,in_port=1,tcp6,tp_dst=21,ct_state=+trk+new,action=ct(alg=ftp,commit),2
         table=1,both,ct_state=+trk+new+rel,in_port=2,action=ct(commit),1
         table=1,both,ct_state=+trk+new,in_port=1,action=ct(commit),2
         table=1,ct_state=+trk+est,in_port=2,action=1
         table=1,ct_state=+trk+est,in_port=1,action=2
         table=1,priority=100,ct_state=+trk+rel,action=3",
    ),
];

impl Table {
    pub(crate) fn has_helpers(&self) -> bool {
        self.flows.contains("alg=")
    }

    /// Its flows.
    pub(crate) fn flows(&self) -> Vec<FlowMod> {
        let families = |line: &str| match line.contains("both,") {
            true => ["ip,", "ipv6,"].map(|family| line.trim().replace("both,", family)).join("\n") + "\n",
            false => line.trim().to_owned() + "\n",
        };
        let lines: String = self.flows.lines().map(families).collect();
        FlowFile::parse(self.name, lines.as_bytes(), Command::Add, &NoNames).unwrap().flows
    }

    /// The groups that they name.
    pub(crate) fn groups(&self) -> Vec<GroupMod> {
        let lines: String = self.groups.lines().map(|line| format!("{}\n", line.trim())).collect();
        GroupFile::parse(self.name, lines.as_bytes(), GroupCommand::Add, &NoNames).unwrap().changes
    }

    /// A switch with this table that admits so many connections at the most.
    pub(crate) fn switch(&self, seed: u64, most: u32, layout: Layout) -> VirtualSwitch {
        let shard = ShardConfig { capacity: 256, max_connections: most, ..ShardConfig::default() };
        let (groups, flows) = (self.groups(), self.flows());
        VirtualSwitch::with_layout(&[1, 2, 3, 4], &groups, &flows, shard, secret(seed), layout).unwrap()
    }
}
