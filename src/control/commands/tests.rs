//! Every command on an engine in memory: its text, its JSON, its errors.

mod tracking;

use super::testing::daemon;
use super::*;
use crate::config::Peer;

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// Runs `FAMILY NAME ARGS`; options `--json`, `--strict`, `--no-stats`, `--names`, `--sort=F` as typed.
pub(super) fn call_on(daemon: &Daemon, line: &str, files: &[(&str, &str)]) -> (String, End) {
    let mut request = Request {
        files: files.iter().map(|(name, text)| ((*name).into(), (*text).into())).collect(),
        ..Request::default()
    };
    let mut words = words(line);
    words.retain(|word| match word.as_str() {
        "--json" => {
            request.json = true;
            false
        }
        "--may-create" => {
            request.options.may_create = true;
            false
        }
        "--strict" => {
            request.options.strict = true;
            false
        }
        // Everything behind an appctl command is the command's own.
        "--names" if line.starts_with("ofctl") => {
            request.options.names = true;
            false
        }
        "--no-stats" => {
            request.options.no_stats = true;
            false
        }
        "--sort=bogus" => {
            request.options.sort =
                vec![crate::control::protocol::SortKey { field: "bogus".into(), descending: false }];
            false
        }
        _ => true,
    });
    let split = if words[0] == "vsctl" { 1 } else { 2 };
    request.args = words.split_off(split);
    request.command = words.join(" ");
    let mut output = String::new();
    let end = daemon.handle(request, &mut |text| {
        output.push_str(text);
        Ok(())
    });
    (output, end)
}

fn call(line: &str) -> (String, End) {
    call_on(
        &daemon().0,
        line,
        &[
            ("f", "table=0,actions=drop\n"),
            ("-", "actions=normal\n"),
            ("g", "group_id=2,type=all,bucket=1\n"),
        ],
    )
}

pub(super) fn output(line: &str) -> String {
    let (output, end) = call(line);
    assert_eq!(end, End::default(), "{line}");
    output
}

pub(super) fn error(line: &str) -> (u8, String) {
    let (output, end) = call(line);
    assert_eq!(output, "", "{line}");
    (end.exit, end.stderr)
}

/// One working line for each command.
const LINES: &[&str] = &[
    "show steering",
    "appctl netdev-dpdk/get-mempool-info",
    "ofctl show br0",
    "ofctl dump-ports br0",
    "ofctl dump-ports-desc br0 p1",
    "ofctl dump-tables br0",
    "ofctl dump-flows br0",
    "ofctl dump-aggregate br0 table=1",
    "ofctl add-flow br0 actions=drop",
    "ofctl add-flows br0 f",
    "ofctl mod-flows br0 actions=drop",
    "ofctl del-flows br0",
    "ofctl replace-flows br0 -",
    "ofctl ct-flush br0 zone=1 ct_nw_src=10.1.1.1",
    "ofctl ct-flush-zone br0 1",
    "ofctl list-commands",
    "ofctl parse-flow table=1,ip,actions=drop",
    "ofctl parse-flows f",
    "appctl coverage/show",
    "appctl coverage/read-counter nat_exhausted",
    "appctl dpctl/ct-bkts gt=3",
    "appctl dpctl/dump-dps",
    "appctl dpif/dump-dps",
    "appctl dpif/dump-flows -m br0",
    "appctl fdb/stats-clear br0",
    "appctl fdb/stats-show br0",
    "appctl revalidator/purge",
    "appctl revalidator/wait",
    "vsctl get-fail-mode br0",
    "vsctl set-fail-mode br0 secure",
    "vsctl del-fail-mode br0",
    "vsctl get Bridge br0 fail_mode",
    "appctl dpctl/ct-get-maxconns",
    "appctl dpctl/ct-get-nconns netdev@weir",
    "appctl dpctl/ct-set-maxconns 20000",
    "appctl dpctl/ct-stats-show -m zone=1",
    "appctl dpctl/dump-conntrack -m -s zone=1",
    "appctl dpctl/dump-conntrack-exp netdev@weir zone=1",
    "ofctl add-group br0 group_id=1,type=all,bucket=1",
    "ofctl add-groups br0 g",
    "ofctl mod-group br0 group_id=7,type=select,bucket=2",
    "ofctl del-groups br0",
    "ofctl insert-buckets br0 group_id=7,command_bucket_id=last,bucket=2",
    "ofctl remove-buckets br0 group_id=7,command_bucket_id=first",
    "ofctl dump-groups br0 7",
    "ofctl dump-group-stats br0",
    "ofctl dump-group-features br0",
    "ofctl packet-out br0 1 output:2 ffffffffffff0000000000010800",
    "ofctl compose-packet tcp,tp_dst=80 /4",
    "appctl dpctl/dump-flows -m",
    "appctl dpctl/flush-conntrack zone=1 mark=1/0x1 labels=0x1 ct_nw_proto=6,ct_tp_src=80",
    "appctl dpctl/ipf-get-status -m",
    "appctl dpctl/ipf-set-disabled netdev@weir v6",
    "appctl dpctl/ipf-set-enabled v4",
    "appctl dpctl/ipf-set-max-nfrags 5000",
    "appctl dpctl/ipf-set-min-frag v4 400",
    "appctl dpctl/show -s",
    "appctl dpif-netdev/pmd-rxq-show",
    "appctl dpif-netdev/pmd-stats-clear",
    "appctl dpif-netdev/pmd-stats-show -pmd 1",
    "appctl dpif/show",
    "appctl exit",
    "appctl fdb/flush br0",
    "appctl fdb/show br0",
    "appctl list-commands",
    "appctl ofproto/trace br0 in_port=1,tcp",
    "appctl version",
    "appctl vlog/list",
    "appctl vlog/set control:console:dbg",
    "vsctl show",
    "vsctl add-br br1",
    "vsctl del-br br0",
    "vsctl list-br",
    "vsctl br-exists br0",
    "vsctl add-port br0 p9 options:dpdk-devargs=net_null9",
    "vsctl del-port br0 p1",
    "vsctl list-ports br0",
    "vsctl list-ifaces br0",
    "vsctl port-to-br p2",
    "vsctl set Bridge br0 datapath_type=netdev",
    "vsctl --may-exist add-zone-tp netdev zone=1 udp_first=9",
    "vsctl --if-exists del-zone-tp netdev zone=1",
    "vsctl list-zone-tp netdev",
    "appctl dpctl/ct-del-limits zone=1",
    "appctl dpctl/ct-disable-tcp-seq-chk",
    "appctl dpctl/ct-enable-tcp-seq-chk netdev@weir",
    "appctl dpctl/ct-get-limits zone=1",
    "appctl dpctl/ct-get-sweep-interval",
    "appctl dpctl/ct-get-tcp-seq-chk",
    "appctl dpctl/ct-set-limits default=5 zone=1,limit=2",
    "appctl dpctl/ct-set-sweep-interval 1000",
    "zone list",
    "zone set-timeout 5 udp_first=3",
    "zone del-timeout 1",
    "ct list --limit 2 zone=1",
    "ct show src=10.1.1.1",
    "ct flush zone=1",
    "ct stats",
    "ct events --count 1",
    "show topology",
];

#[test]
fn every_command_of_every_table_works_and_reading_ones_give_valid_json() {
    for family in Family::ALL {
        for spec in family.commands() {
            let start = format!("{} {}", family.name(), spec.name);
            // The client's own; one that needs what another has printed; and one that ends when its listener does.
            if ["ct watch", "appctl dpctl/get-flow", "ct events"].contains(&start.as_str()) {
                continue;
            }
            let is_it = |line: &&&str| {
                let line = line.replace("--may-exist ", "").replace("--if-exists ", "");
                line == start || line.starts_with(&format!("{start} "))
            };
            let line = LINES.iter().find(is_it).unwrap_or_else(|| panic!("no line for {start}"));
            let (_, end) = call(line);
            assert_eq!(end.exit, 0, "{line}: {end:?}");
            let (json, end) = call(&format!("{line} --json"));
            if spec.reads {
                assert_eq!(end, End::default(), "{line} --json");
                serde_json::from_str::<serde_json::Value>(&json)
                    .unwrap_or_else(|e| panic!("{line}: {e}: {json}"));
            } else if spec.name != "list-commands" {
                assert!(end.stderr.contains("nothing to show in JSON"), "{line}: {end:?}");
            }
        }
    }
}

#[test]
fn connections_print_as_their_users_know_them() {
    assert_eq!(
        output("appctl dpctl/dump-conntrack").lines().next().unwrap(),
        "tcp,orig=(src=10.1.1.1,dst=10.1.1.2,sport=40000,dport=80),\
         reply=(src=10.1.1.2,dst=10.1.1.240,sport=80,dport=40000),\
         zone=1,mark=1,labels=0x1,protoinfo=(state=ESTABLISHED)"
    );
    assert!(output("appctl dpctl/dump-conntrack -s").contains("zone=1,timeout=86399,mark=1,labels=0x1,"));
    assert_eq!(output("appctl dpctl/dump-conntrack").lines().count(), 3, "all batches");
    assert_eq!(output("appctl dpctl/dump-conntrack zone=2"), "");
    assert_eq!(output("appctl dpctl/dump-conntrack --json zone=2"), "[]\n");
}

#[test]
fn the_json_of_a_connection_names_every_part() {
    let json: serde_json::Value =
        serde_json::from_str(&output("appctl dpctl/dump-conntrack --json")).unwrap();
    assert_eq!(json[0]["orig"]["src"], "10.1.1.1");
    assert_eq!(json[0]["orig"]["sport"], 40_000);
    assert_eq!(json[2]["reply"]["dst"], "10.1.1.240");
    assert_eq!(json[0]["tcp"]["state"], "ESTABLISHED");
    assert_eq!(json[0]["labels"], "0x1");
}

#[test]
fn expected_connections_print_with_their_parent() {
    let line = |zone: &str| {
        format!(
            "tcp,orig=(src=10.1.1.2,dst=10.1.1.240,sport=0,dport=8080),\
             parent=(src=10.1.1.1,dst=10.1.1.2,sport=40000,dport=21),zone={zone},mark=7,labels=0x55,helper=ftp\n"
        )
    };
    assert_eq!(output("appctl dpctl/dump-conntrack-exp"), line("1") + &line("2"));
    assert_eq!(output("appctl dpctl/dump-conntrack-exp zone=2"), line("2"));
    assert_eq!(output("appctl dpctl/dump-conntrack-exp zone=3"), "");
    let json: serde_json::Value =
        serde_json::from_str(&output("appctl dpctl/dump-conntrack-exp --json zone=1")).unwrap();
    assert_eq!(json.as_array().unwrap().len(), 1);
    assert_eq!((&json[0]["target"]["dst"], &json[0]["target"]["dport"]), (&"10.1.1.1".into(), &8080.into()));
    assert_eq!((&json[0]["parent"]["dport"], &json[0]["helper"]), (&21.into(), &"ftp".into()));
    assert_eq!((&json[0]["timeout"], &json[0]["labels"]), (&59.into(), &"0x55".into()));
}

#[test]
fn a_flush_takes_only_what_matches_every_part() {
    let (daemon, engine, _) = daemon();
    let flush = |line: &str| {
        assert_eq!(call_on(&daemon, line, &[]).1, End::default(), "{line}");
        engine.state().connections.len()
    };
    assert_eq!(flush("appctl dpctl/flush-conntrack zone=2"), 3);
    assert_eq!(flush("appctl dpctl/flush-conntrack mark=3/2"), 3);
    assert_eq!(flush("appctl dpctl/flush-conntrack zone=1 ct_nw_src=10.1.1.2,ct_nw_proto=17"), 3);
    assert_eq!(flush("appctl dpctl/flush-conntrack zone=1 ct_nw_src=10.1.1.2,ct_nw_proto=6"), 2);
    assert_eq!(flush("appctl dpctl/flush-conntrack , ct_nw_dst=10.1.1.9"), 2);
    assert_eq!(flush("appctl dpctl/flush-conntrack mark=3/1"), 0);
}

#[test]
fn flows_print_as_ovs_ofctl_prints_them() {
    assert_eq!(
        output("ofctl dump-flows br0"),
        "NXST_FLOW reply (xid=0x4):\n cookie=0x0, duration=1.500s, table=1, n_packets=14, n_bytes=1096, \
         idle_timeout=60, priority=10,ct_state=-trk,ip actions=ct(table=2,nat)\n"
    );
    assert_eq!(
        output("ofctl dump-flows --no-stats br0"),
        " table=1, idle_timeout=60, priority=10,ct_state=-trk,ip actions=ct(table=2,nat)\n"
    );
    assert_eq!(output("ofctl dump-flows br0 table=2"), "NXST_FLOW reply (xid=0x4):\n");
    assert_eq!(
        output("ofctl dump-aggregate br0"),
        "NXST_AGGREGATE reply (xid=0x4): packet_count=14 byte_count=1096 flow_count=1\n"
    );
    let json: serde_json::Value = serde_json::from_str(&output("ofctl dump-flows br0 --json")).unwrap();
    assert_eq!(json[0]["match"], "ct_state=-trk,ip");
    assert_eq!(json[0]["n_packets"], 14);
}

#[test]
fn flows_change_as_each_command_says_and_ports_may_have_names() {
    let (daemon, _, _) = daemon();
    let files = [
        ("f", "# ours\ntable=3,priority=1,in_port=p1,actions=output:p2\nadd actions=drop\n"),
        ("-", "actions=3\n"),
    ];
    let run = |line: &str| {
        assert_eq!(call_on(&daemon, line, &files).1, End::default(), "{line}");
        call_on(&daemon, "ofctl dump-flows --no-stats br0", &[]).0
    };
    run("ofctl del-flows br0");
    assert_eq!(run("ofctl add-flow br0 priority=7,tcp,actions=p2"), " priority=7,tcp actions=output:2\n");
    assert_eq!(run("ofctl mod-flows br0 ip,actions=drop"), " priority=7,tcp actions=drop\n");
    assert_eq!(
        run("ofctl replace-flows br0 f"),
        " actions=drop\n table=3, priority=1,in_port=1 actions=output:2\n"
    );
    assert_eq!(
        run("ofctl add-flow br0 -"),
        " actions=output:3\n table=3, priority=1,in_port=1 actions=output:2\n"
    );
    assert_eq!(run("ofctl del-flows br0 table=3,in_port=p1"), " actions=output:3\n");
    assert_eq!(run("ofctl del-flows br0 --strict priority=3"), " actions=output:3\n");
    run("ofctl add-flow br0 in_port=1,actions=2");
    let named = call_on(&daemon, "ofctl dump-flows br0 --names --no-stats", &files).0;
    assert_eq!(named, " actions=output:3\n in_port=p1 actions=output:p2\n");
}

#[test]
fn a_file_with_a_mistake_is_pointed_at_and_changes_nothing() {
    let (daemon, engine, _) = daemon();
    let files = [
        ("bad", "table=3,actions=drop\n\ntable=4,bogus=3,actions=drop\n"),
        ("del", "actions=drop\ndelete table=1\n"),
    ];
    let (_, end) = call_on(&daemon, "ofctl add-flows br0 bad", &files);
    assert_eq!(end.exit, 1);
    assert!(end.stderr.starts_with("bad:3:9: ") && end.stderr.contains("^^^^^"), "{}", end.stderr);
    let (_, end) = call_on(&daemon, "ofctl replace-flows br0 del", &files);
    assert!(end.stderr.starts_with("del:2: replace-flows takes"), "{}", end.stderr);
    assert_eq!(engine.state().tables.as_ref().unwrap().len(), 1);
}

#[test]
fn the_datapath_prints_its_figures() {
    let flows = output("appctl dpctl/dump-flows");
    assert!(flows.starts_with("flow-dump from pmd on cpu core: 1\nrecirc_id(0),in_port(1),"), "{flows}");
    assert!(flows.contains("packets:0, bytes:300, used:never, flags:S., actions:ct,recirc(0x8)\n"));
    assert!(flows.contains("packets:5, bytes:300, used:0.250s, flags:S., actions:"));
    let named = output("appctl dpctl/dump-flows --names");
    assert!(named.contains("recirc_id(0),in_port(p1),"), "{named}");
    assert_eq!(output("appctl dpctl/dump-flows --names --no-names"), flows);
    let stats = output("appctl dpif-netdev/pmd-stats-show");
    assert!(stats.contains("  avg. datapath passes per packet: 1.50\n"), "{stats}");
    assert!(stats.contains("  avg cycles per packet: 800.00 (80000/100)\n"));
    assert!(
        stats.ends_with(
            "\n  packets handed over to other cores: 41 (steered 40, related 1)\n  packets taken over from other cores: \
             0\n  packets dropped, mailbox full: 2 (steered 2)\n  mailbox from core_id 3: 17 of 1024 entries used at the \
             most\n"
        ),
        "{stats}"
    );
    assert_eq!(
        output("appctl fdb/show br0"),
        " port  VLAN  MAC                Age\n    1     0  66:b9:24:96:45:a8    0\n"
    );
}

#[test]
fn errors_have_open_vswitchs_words_and_exit_statuses() {
    for (line, status, message) in [
        ("ofctl foo", 1, "unknown command 'foo'; use --help for help"),
        (
            "ofctl dump-flow br0",
            1,
            "unknown command 'dump-flow'; use --help for help; did you mean 'dump-flows'?",
        ),
        ("ofctl add-flow br0", 1, "'add-flow' command requires at least 2 arguments"),
        ("ofctl show br0 x", 1, "'show' command takes at most 1 arguments"),
        ("ofctl show br9", 1, "br9 is not a bridge"),
        ("ofctl dump-ports br0 vx", 1, "br0: unknown port `vx'"),
        ("ofctl add-flows br0 missing", 1, "the content of file \"missing\" was not sent with the command"),
        ("ofctl dump-flows --sort=bogus br0", 1, "bogus: unknown field name"),
        ("ofctl ct-flush-zone br0 65536", 1, "invalid zone_id \"65536\""),
        ("ofctl ct-flush br0 x", 1, "Failed to parse ct-tuple: field x missing value"),
        ("ofctl ct-flush br0 zone=x", 1, "Failed to parse zone\na zone is 0 to 65535"),
        (
            "appctl foo",
            2,
            "\"foo\" is not a valid command (use \"list-commands\" to see a list of valid commands)",
        ),
        ("appctl fdb/show", 2, "\"fdb/show\" command requires at least 1 arguments"),
        ("appctl fdb/show br9", 2, "no such bridge"),
        ("appctl fdb/flush br9", 2, "no such bridge"),
        ("appctl dpctl/dump-conntrack -q", 2, "Unrecognized option -q"),
        ("appctl dpctl/dump-conntrack-exp zone=x", 2, "failed to parse zone: \"zone=x\""),
        (
            "appctl dpctl/dump-conntrack-exp tcp",
            2,
            "\"tcp\" is neither zone=N nor a datapath (there is only netdev@weir)",
        ),
        (
            "appctl dpctl/dump-conntrack system@x",
            2,
            "datapath not found (Invalid argument)\n\"system@x\": the only datapath here is netdev@weir",
        ),
        (
            "appctl dpctl/dump-conntrack zone=x",
            2,
            "failed to parse zone (Invalid argument)\na zone is 0 to 65535",
        ),
        (
            "appctl dpctl/dump-conntrack zone=70000",
            2,
            "failed to parse zone (Invalid argument)\na zone is 0 to 65535",
        ),
        (
            "appctl dpctl/flush-conntrack bogus=3",
            2,
            "invalid conntrack tuple field: bogus (Invalid argument)\nthe fields are ct_nw_src, ct_nw_dst, ct_ipv6_src, ct_ipv6_dst, ct_nw_proto, ct_tp_src, ct_tp_dst, icmp_id, icmp_type, icmp_code",
        ),
        (
            "appctl dpctl/flush-conntrack ct_nw_scr=3",
            2,
            "invalid conntrack tuple field: ct_nw_scr (Invalid argument)\ndid you mean ct_nw_src?",
        ),
        ("appctl dpctl/flush-conntrack ct_nw_src=x", 2, "failed to parse field ct_nw_src (Invalid argument)"),
        ("appctl dpctl/ct-set-maxconns x", 2, "maxconns missing or malformed (Invalid argument)"),
        ("appctl dpctl/ct-set-maxconns -1", 2, "maxconns missing or malformed (Invalid argument)"),
        (
            "appctl dpctl/ipf-set-enabled v5",
            2,
            "parameter missing: 'v4' for IPv4 or 'v6' for IPv6 (Invalid argument)",
        ),
        (
            "appctl dpctl/ipf-set-enabled",
            2,
            "\"dpctl/ipf-set-enabled\" command requires at least 1 arguments",
        ),
        (
            "appctl dpctl/ipf-set-min-frag v7 500",
            2,
            "parameter missing: v4 for IPv4 or v6 for IPv6 (Invalid argument)",
        ),
        (
            "appctl dpctl/ipf-set-min-frag v4 4294967296",
            2,
            "parameter missing for minimum fragment size (Invalid argument)",
        ),
        (
            "appctl dpctl/ipf-set-min-frag v4 399",
            2,
            "requested minimum fragment size too small; see documentation (Operation not permitted)",
        ),
        (
            "appctl dpctl/ipf-set-max-nfrags x",
            2,
            "parameter missing for maximum fragments (Invalid argument)",
        ),
        (
            "appctl dpctl/ipf-set-max-nfrags 5001",
            2,
            "setting maximum fragments failed (Operation not permitted)",
        ),
        (
            "appctl dpctl/ipf-get-status nodp",
            2,
            "datapath not found (Invalid argument)\n\"nodp\": the only datapath here is netdev@weir",
        ),
        ("appctl dpctl/ipf-get-status -x", 2, "Unrecognized option -x"),
        ("appctl vlog/set foo", 2, "no destination, level, or module \"foo\""),
        ("appctl exit now", 2, "invalid argument: \"now\""),
        ("appctl dpif-netdev/pmd-stats-show -pmd 7", 2, "CPU 7 does not poll"),
        ("vsctl add-br br0", 1, "cannot create a bridge named br0 because a bridge named br0 already exists"),
        (
            "vsctl add-br p1",
            1,
            "cannot create a bridge named p1 because a port named p1 already exists on bridge br0",
        ),
        ("vsctl add-port br9 x", 1, "no bridge named br9"),
        (
            "vsctl add-port br0 p1",
            1,
            "cannot create a port named p1 because a port named p1 already exists on bridge br0",
        ),
        (
            "vsctl add-port br0 p3",
            1,
            "port p3 has no device; add `-- set Interface p3 options:dpdk-devargs=DEVICE`",
        ),
        (
            "vsctl add-port br0 12 options:dpdk-devargs=x",
            1,
            "12: \"12\" is a number, which flows would take for a port number; begin the name with a letter",
        ),
        ("vsctl del-port zz", 1, "no port named zz"),
        ("vsctl del-br br7", 1, "no bridge named br7"),
        ("vsctl list-ports br7", 1, "no bridge named br7"),
        ("vsctl --bogus list-br", 1, "'list-br' command has no '--bogus' option"),
        ("vsctl list-br x", 1, "'list-br' command takes at most 0 arguments"),
        ("vsctl foo", 1, "unknown command 'foo'; use --help for help"),
        ("vsctl --", 1, "missing command name (use --help for help)"),
        ("vsctl br-exists br7", 2, ""),
        ("bogus x", 2, "unknown kind of command: \"bogus x\""),
    ] {
        assert_eq!(error(line), (status, message.to_owned()), "{line}");
    }
}

#[test]
fn vsctl_takes_several_commands_as_one_change() {
    let (daemon, engine, _) = daemon();
    let line = "vsctl add-br br1 -- add-port br1 p5 -- set Interface p5 type=dpdk \
                options:dpdk-devargs=\"net_null5,copy=1\" ofport_request=5 options:n_rxq=2 -- list-ports br1";
    assert_eq!(call_on(&daemon, line, &[]), ("p5\n".into(), End::default()));
    {
        let state = engine.state();
        let port = &state.bridges[1].ports[0];
        assert_eq!((port.number.number(), port.rx_queues), (5, 2));
        assert_eq!(port.devargs.as_str(), "net_null5,copy=1");
    }
    for line in [
        "vsctl add-br br2 -- add-port br2 p6 -- set Interface p6 bogus=1",
        "vsctl add-br br2 -- add-port br2 p6 -- set Interface p7 type=dpdk",
        "vsctl add-br br2 -- add-port br2 p6 -- set Interface p6 ofport_request=0",
        "vsctl add-br br2 -- del-br br9",
    ] {
        assert_eq!(call_on(&daemon, line, &[]).1.exit, 1, "{line}");
        assert_eq!(engine.state().bridges.len(), 2, "{line} changes nothing");
    }
    let end =
        call_on(&daemon, "vsctl --may-exist add-br br1 -- --if-exists del-port zz -- del-br br1", &[]).1;
    assert_eq!(end, End::default());
    assert_eq!(engine.state().bridges.len(), 1);
}

#[test]
fn vsctl_names_the_peer_of_a_veth_pair() {
    let (daemon, engine, _) = daemon();
    let line = "vsctl add-port br0 p5 options:dpdk-devargs=net_af_packet0,iface=v0 options:peer=eth0 \
                options:peer-netns=inside -- add-port br0 p6 options:dpdk-devargs=net_null6 options:peer=\"v1\"";
    assert_eq!(call_on(&daemon, line, &[]), (String::new(), End::default()));
    let peers = engine.state().peers.clone();
    let peer = |dev: &str, netns: Option<&str>| Peer { dev: dev.into(), netns: netns.map(str::to_owned) };
    assert_eq!(peers, [peer("eth0", Some("inside")), peer("v1", None)]);
    for (line, part) in [
        ("vsctl add-port br0 p7 options:dpdk-devargs=net_null7 options:peer-netns=x", "options:peer=DEV"),
        ("vsctl add-port br0 p7 options:dpdk-devargs=net_null7 options:peer=../x", "not a name"),
        ("vsctl add-port br0 p7 options:peers=x", "did you mean options:peer?"),
    ] {
        assert!(error(line).1.contains(part), "{line}: {:?}", error(line));
    }
}

#[test]
fn the_pools_of_a_port_are_those_it_uses() {
    assert_eq!(
        output("appctl netdev-dpdk/get-mempool-info"),
        "packets-0: 2048 of 32767 buffers of 2176 bytes in use, all ports, node 0\n\
         xdp-1: 2048 of 32767 buffers of 2176 bytes in use, port p1, any node\n"
    );
    assert!(output("appctl netdev-dpdk/get-mempool-info p1").starts_with("xdp-1:"));
    assert!(output("appctl netdev-dpdk/get-mempool-info p2").starts_with("packets-0:"));
    assert_eq!(error("appctl netdev-dpdk/get-mempool-info p9"), (2, "no port named p9".into()));
}

#[test]
fn exit_and_log_levels_reach_the_process() {
    let (daemon, _, host) = daemon();
    for line in ["appctl vlog/set", "appctl vlog/set daemon:warn CONSOLE:err", "appctl exit --cleanup"] {
        assert_eq!(call_on(&daemon, line, &[]).1, End::default());
    }
    assert_eq!(*host.0.lock().unwrap(), ["all=dbg", "daemon=warn", "all=err", "stop"]);
}

#[test]
fn a_dump_stops_when_its_reader_is_gone() {
    let (daemon, engine, _) = daemon();
    let many = engine.state().connections[0].clone();
    engine.state().connections = vec![many; 5_000];
    let mut chunks = 0;
    let request = Request { command: "appctl dpctl/dump-conntrack".into(), ..Request::default() };
    let end = daemon.handle(request, &mut |_| {
        chunks += 1;
        Err(std::io::ErrorKind::BrokenPipe.into())
    });
    assert_eq!(end.exit, 2);
    assert!(chunks <= 2, "{chunks}");
}

#[test]
fn tables_are_in_order_for_people_to_find_their_way() {
    let names: Vec<&str> = Family::Appctl.commands().iter().map(|spec| spec.name).collect();
    assert!(names.is_sorted(), "{names:?}");
    for family in Family::ALL {
        for spec in family.commands() {
            assert!(spec.min <= spec.max && spec.help.ends_with('.'), "{spec:?}");
            assert!(family.list().contains(spec.name) && family.help().contains(spec.help));
        }
    }
}

#[test]
fn commands_work_over_a_real_socket() {
    use crate::control::testing::Scratch;
    use crate::control::{Client, ControlSocket, Limits, Server};
    let scratch = Scratch::new();
    let path = scratch.join("weir.sock");
    let (daemon, engine, _) = daemon();
    let many = engine.state().connections[0].clone();
    engine.state().connections = vec![many; 5_000];
    let socket = ControlSocket::bind(&path).unwrap();
    let _server = Server::start(socket, Limits::default(), Arc::new(daemon)).unwrap();
    let mut client = Client::connect(&path, Some(std::time::Duration::from_secs(20))).unwrap();
    for (json, lines) in [(false, 5_000), (true, 5_000)] {
        let request = Request { command: "appctl dpctl/dump-conntrack".into(), json, ..Request::default() };
        let (mut output, mut chunks) = (String::new(), 0);
        let mut out = |text: &str| {
            chunks += 1;
            output.push_str(text);
            Ok(())
        };
        assert_eq!(client.call(&request, &mut out).unwrap(), End::default());
        assert_eq!(output.lines().count(), lines);
        assert!(chunks > 5, "{chunks}");
    }
}

#[test]
fn groups_print_as_ovs_ofctl_prints_them() {
    let (daemon, engine, _) = daemon();
    let run =
        |line: &str| call_on(&daemon, line, &[("-", "group_id=5,type=all,bucket=1\ndelete group_id=5\n")]);
    let fine = |line: &str| {
        let (output, end) = run(line);
        assert_eq!(end, End::default(), "{line}");
        output
    };
    fine("ofctl add-group br0 group_id=3,type=select,bucket=weight:5,watch_port:p2,output:p1,bucket=drop");
    assert_eq!(
        fine("ofctl dump-groups br0"),
        "NXST_GROUP_DESC reply (xid=0x2):\n group_id=3,type=select,bucket=bucket_id:0,weight:5,watch_port:2,\
         actions=output:1,bucket=bucket_id:1,actions=drop\n group_id=7,type=select,bucket=bucket_id:0,actions=output:1\n"
    );
    assert!(fine("ofctl --names dump-groups br0 3").contains("watch_port:p2,actions=output:p1,"));
    assert_eq!(fine("ofctl dump-groups br0 99"), "NXST_GROUP_DESC reply (xid=0x2):\n");
    fine("ofctl add-flow br0 actions=group:3");
    assert_eq!(
        fine("ofctl dump-group-stats br0 group_id=3"),
        "NXST_GROUP reply (xid=0x6):\n group_id=3,duration=1.000s,ref_count=1,packet_count=0,byte_count=0,\
         bucket0:packet_count=0,byte_count=0,bucket1:packet_count=0,byte_count=0\n"
    );
    let json: serde_json::Value = serde_json::from_str(&fine("ofctl dump-groups br0 3 --json")).unwrap();
    assert_eq!((&json[0]["buckets"][0]["weight"], &json[0]["type"]), (&5.into(), &"select".into()));
    let refused = |line: &str, message: &str| {
        let before = fine("ofctl dump-groups br0");
        let (_, end) = run(line);
        assert!(end.exit == 1 && end.stderr.contains(message), "{line}: {end:?}");
        assert_eq!(fine("ofctl dump-groups br0"), before);
    };
    refused("ofctl add-group br0 group_id=3,type=all,bucket=1", "OFPGMFC_GROUP_EXISTS");
    refused("ofctl mod-group br0 group_id=4,type=all,bucket=1", "OFPGMFC_UNKNOWN_GROUP");
    refused("ofctl add-group br0 group_id=4,type=all,bucket=group:4", "OFPGMFC_LOOP");
    refused(
        "ofctl add-group br0 group_id=4,typo=all",
        "group:1:12: unknown word 'typo' in a group; did you mean 'type'?",
    );
    refused("ofctl add-flow br0 actions=group:9", "OFPBAC_BAD_OUT_GROUP");
    refused("ofctl dump-groups br0 x", "x is not a valid group ID");
    refused("ofctl add-group br9 group_id=4,type=all", "br9 is not a bridge");
    fine("ofctl --may-create mod-group br0 group_id=4,type=all,bucket=1");
    fine("ofctl add-group br0 -");
    let (_, end) = run("ofctl add-group br0 group_id=6,type=all,bucket=output:1,output:2");
    assert!(end.exit == 0 && end.stderr.contains("only the last of this kind counts"), "{end:?}");
    fine("ofctl del-groups br0 group_id=3");
    assert_eq!(engine.state().tables.as_ref().unwrap().len(), 1, "its flow went along");
}

#[test]
fn packets_are_sent_in_both_forms() {
    let (daemon, engine, _) = daemon();
    let run = |args: &[&str]| {
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        let request = Request { command: "ofctl packet-out".into(), args, ..Request::default() };
        daemon.handle(request, &mut |text| panic!("silence, not {text}"))
    };
    let hex = "ffffffffffff0000000000010800";
    assert_eq!(run(&["br0", &format!("in_port=p1, packet={hex}, actions=output:p2")]), End::default());
    assert_eq!(run(&["br0", "none", "resubmit(,1)", hex, hex]), End::default());
    let sent: Vec<_> =
        engine.state().sent.iter().map(|out| (out.in_port, out.packets.len(), out.actions.len())).collect();
    assert_eq!(sent, [(1, 1, 1), (0xffff, 2, 1)]);
    for (args, message) in [
        (&["br0", "none", "resubmit(,1)"][..], "give \"in_port=PORT,packet=HEX,actions=...\""),
        (&["br0", "none", "resubmit(,1)", hex, "zz"], "packet:1:1: expected a packet in hexadecimal digits"),
        (&["br0", "eth9", "2", hex], "in_port:1:1: unknown port 'eth9'"),
        (&["br0", "1", "otput:2", hex], "actions:1:1: unknown action 'otput'"),
        (&["br0", "in_port=1,actions=2"], "packet-out:1:20: expected packet=HEX"),
        (&["br0", "1", "group:3", hex], "there is no group 3 (OFPBAC_BAD_OUT_GROUP)"),
        (&["br9", "1", "2", hex], "br9 is not a bridge"),
    ] {
        let end = run(args);
        assert!(end.exit == 1 && end.stderr.contains(message), "{args:?}: {end:?}");
    }
    assert_eq!(engine.state().sent.len(), 2);
}

#[test]
fn a_packet_is_composed_without_a_daemon() {
    let bare = output("ofctl compose-packet --bare udp,nw_src=1.1.1.1,nw_dst=2.2.2.2,tp_src=1,tp_dst=2 abcd");
    assert!(bare.starts_with("000000000000000000000000080045") && bare.contains("00010002000a"), "{bare}");
    assert_eq!(bare.trim_end().len(), 2 * (14 + 20 + 8 + 2));
    assert_ne!(
        bare,
        output(
            "ofctl compose-packet --bare --bad-csum udp,nw_src=1.1.1.1,nw_dst=2.2.2.2,tp_src=1,tp_dst=2 abcd"
        )
    );
    let dump = output("ofctl compose-packet dl_type=0x1234 /3");
    assert_eq!(dump, "00000000  00 00 00 00 00 00 00 00-00 00 00 00 12 34 00 01\n00000010  02\n");
    let json: serde_json::Value = serde_json::from_str(&output("ofctl compose-packet arp --json")).unwrap();
    assert_eq!(json["length"], 42);
    for (line, message) in [
        ("ofctl compose-packet tpc", "flow:1:1: unknown field 'tpc'"),
        ("ofctl compose-packet tcp xyz", "payload:1:1: the payload needs pairs of hexadecimal digits"),
        ("ofctl compose-packet --wrong tcp", "unrecognized option '--wrong'"),
    ] {
        let (_, end) = call(line);
        assert!(end.exit == 1 && end.stderr.contains(message), "{end:?}");
    }
}

/// As Open vSwitch 3.1 prints them, but for the numbers of recirculations: it counts on, each trace of ours begins at 1.
#[test]
fn traces_of_the_example_tables_read_as_open_vswitchs() {
    let (daemon, engine, _) = daemon();
    let traced = |tables: &str, line: &str| {
        tables.clone_into(&mut engine.state().flows);
        let (output, end) = call_on(&daemon, &format!("appctl ofproto/trace br0 {line}"), &[]);
        assert_eq!(end, End::default(), "{line}");
        output
    };
    let zero = "vlan_tci=0x0000,dl_src=00:00:00:00:00:00,dl_dst=00:00:00:00:00:00";
    let nat = include_str!("../../../examples/nat.flows");
    let acl = include_str!("../../../examples/acl.flows");
    let rest = "nw_tos=0,nw_ecn=0,nw_ttl=0,nw_frag=no";
    let out = format!(
        "in_port=1,{zero},nw_src=192.168.0.1,nw_dst=203.0.113.9,{rest},tp_src=1000,tp_dst=80,tcp_flags=0"
    );
    let line = "=".repeat(79);
    let forked = "     -> A clone of the packet is forked to recirculate. The forked pipeline will be resumed at table 1.\n     \
        -> Sets the packet to an untracked state, and clears all the conntrack fields.";
    assert_eq!(
        traced(nat, "in_port=1,tcp,nw_src=192.168.0.1,nw_dst=203.0.113.9,tp_src=1000,tp_dst=80"),
        format!(
            "Flow: tcp,{out}\n\nbridge(\"br0\")\n-------------\n 0. ct_state=-trk,ip, priority 10\n    ct(table=1,nat)\n    nat\n{forked}\n\n\
             Final flow: unchanged\nMegaflow: recirc_id=0,ct_state=-trk,eth,ip,in_port=1,nw_frag=no\n\
             Datapath actions: ct(nat),recirc(0x1)\n\n{line}\n\
             recirc(0x1) - resume conntrack with default ct_state=trk|new (use --ct-next to customize)\n\
             Replacing src/dst IP/ports to simulate NAT:\n Initial flow: \n Modified flow: \n{line}\n\n\
             Flow: recirc_id=0x1,ct_state=new|trk,eth,tcp,{out}\n\nbridge(\"br0\")\n-------------\n    thaw\n        Resuming from table 1\n \
             1. ct_state=+new+trk,ip,in_port=1, priority 32768\n    ct(commit,nat(src=10.0.0.1-10.0.0.255:5000-50000))\n    \
             nat(src=10.0.0.1-10.0.0.255:5000-50000)\n     -> Sets the packet to an untracked state, and clears all the conntrack fields.\n    \
             output:2\n\nFinal flow: recirc_id=0x1,eth,tcp,{out}\n\
             Megaflow: recirc_id=0x1,ct_state=+new+trk,eth,ip,in_port=1,nw_frag=no\n\
             Datapath actions: ct(commit,nat(src=10.0.0.1-10.0.0.255:5000-50000)),2\n"
        )
    );
    let back = format!(
        "in_port=2,{zero},nw_src=203.0.113.9,nw_dst=10.0.0.1,{rest},tp_src=80,tp_dst=1000,tcp_flags=0"
    );
    assert_eq!(
        traced(
            acl,
            "in_port=2,tcp,nw_src=203.0.113.9,nw_dst=10.0.0.1,tp_src=80,tp_dst=1000 --ct-next est,rpl,trk"
        ),
        format!(
            "Flow: tcp,{back}\n\nbridge(\"br0\")\n-------------\n 0. ct_state=-trk,ip, priority 100\n    ct(table=1)\n    drop\n{forked}\n\n\
             Final flow: unchanged\nMegaflow: recirc_id=0,ct_state=-trk,eth,ip,in_port=2,nw_frag=no\n\
             Datapath actions: ct,recirc(0x1)\n\n{line}\nrecirc(0x1) - resume conntrack with ct_state=est|rpl|trk\n{line}\n\n\
             Flow: recirc_id=0x1,ct_state=est|rpl|trk,eth,tcp,{back}\n\nbridge(\"br0\")\n-------------\n    thaw\n        Resuming from table 1\n \
             1. ct_state=+est+trk,ip,in_port=2, priority 32768\n    output:1\n\nFinal flow: unchanged\n\
             Megaflow: recirc_id=0x1,ct_state=-new+est+trk,eth,ip,in_port=2,nw_frag=no\nDatapath actions: 1\n"
        )
    );
    assert_eq!(
        traced(acl, "in_port=1,arp,arp_op=1,arp_spa=1.2.3.4,arp_tpa=5.6.7.8,arp_sha=1:2:3:4:5:6"),
        format!(
            "Flow: arp,in_port=1,{zero},arp_spa=1.2.3.4,arp_tpa=5.6.7.8,arp_op=1,arp_sha=01:02:03:04:05:06,arp_tha=00:00:00:00:00:00\n\n\
             bridge(\"br0\")\n-------------\n 0. arp, priority 10\n    NORMAL\n     -> no learned MAC for destination, flooding\n\n\
             Final flow: unchanged\nMegaflow: recirc_id=0,ct_state=-trk,eth,arp,in_port=1,dl_src=00:00:00:00:00:00,dl_dst=00:00:00:00:00:00\n\
             Datapath actions: 2\n"
        )
    );
}

#[test]
fn a_trace_shows_tables_inside_tables_as_open_vswitch_does() {
    let (daemon, engine, _) = daemon();
    engine.state().flows = "priority=9,in_port=1,actions=resubmit(,1),output:2
        table=1,actions=set_field:5->reg0,resubmit(,2)
        table=2,reg0=5,actions=2,resubmit(,3),resubmit(,4)
        table=4,cookie=0x77,actions=1,resubmit(,5),2
        table=5,actions=drop"
        .into();
    let (output, end) = call_on(&daemon, "appctl ofproto/trace br0 in_port=p1,tcp,nw_ttl=5", &[]);
    assert_eq!(end, End::default());
    let expected = [
        " 0. in_port=1, priority 9",
        "    resubmit(,1)",
        "     1. priority 32768",
        "            set_field:0x5->reg0",
        "            resubmit(,2)",
        "         2. reg0=0x5, priority 32768",
        "            output:2",
        "            resubmit(,3)",
        "             3. No match.",
        "                    drop",
        "            resubmit(,4)",
        "         4. priority 32768, cookie 0x77",
        "            output:1",
        "             >> skipping output to input port",
        "            resubmit(,5)",
        "             5. priority 32768",
        "                    drop",
        "            output:2",
        "    output:2",
    ];
    let rules: Vec<&str> = output.lines().skip(4).take(expected.len()).collect();
    assert_eq!(rules, expected);
    assert!(output.contains("\nFinal flow: tcp,reg0=0x5,in_port=1,vlan_tci=0x0000,"), "{output}");
    assert!(output.ends_with("Datapath actions: 2,2,2\n"), "{output}");
    for (line, message) in [
        ("br9 in_port=1", "br9 is not a bridge"),
        ("br0 in_prt=1", "flow:1:1: unknown field 'in_prt'"),
        ("br0 in_port=1 --ct-next", "Missing argument for option --ct-next"),
        ("br0 in_port=1 --ct-next foo", "foo: unknown connection tracking state flag"),
        ("br0 in_port=1 zz", "packet:1:1: expected a packet in hexadecimal digits"),
        ("br0 in_port=1 --what", "--what: invalid option"),
    ] {
        let (_, end) = call_on(&daemon, &format!("appctl ofproto/trace {line}"), &[]);
        assert!(end.exit == 2 && end.stderr.contains(message), "{line}: {end:?}");
    }
    // The packet decides, not the flow, but for its port.
    let frame = output_of_compose("tcp,tp_dst=77");
    let (output, _) = call_on(&daemon, &format!("appctl ofproto/trace br0 in_port=1 {frame}"), &[]);
    assert!(output.starts_with("Flow: tcp,in_port=1,") && output.contains("tp_dst=77"), "{output}");
}

fn output_of_compose(flow: &str) -> String {
    output(&format!("ofctl compose-packet --bare {flow}")).trim().to_owned()
}

#[test]
fn what_is_done_with_fragments_prints_and_changes_as_open_vswitch_has_it() {
    let (daemon, engine, _) = daemon();
    let run = |line: &str| {
        let (output, end) = call_on(&daemon, line, &[]);
        assert_eq!(end, End::default(), "{line}");
        output
    };
    engine.state().fragments.counters[0].duplicates = 3;
    engine.state().fragments.held = 2;
    assert_eq!(run("appctl dpctl/ipf-set-disabled v6"), "disabling fragmentation reassembly successful\n");
    assert_eq!(
        run("appctl dpctl/ipf-set-enabled netdev@weir v4"),
        "enabling fragmentation reassembly successful\n"
    );
    assert_eq!(run("appctl dpctl/ipf-set-min-frag v6 400"), "setting minimum fragment size successful\n");
    assert_eq!(run("appctl dpctl/ipf-set-max-nfrags 0"), "setting maximum fragments successful\n");
    // Word for word what Open vSwitch 3.1 prints, but for the numbers.
    let status = "        Fragmentation Module Status
        ---------------------------
        v4 enabled: 1
        v6 enabled: 0
        max num frags (v4/v6): 0
        num frag: 2
        min v4 frag size: 1200
        v4 frags accepted: 0
        v4 frags completed: 0
        v4 frags expired: 0
        v4 frags too small: 0
        v4 frags overlapped: 3
        v4 frags purged: 0
        min v6 frag size: 400
        v6 frags accepted: 0
        v6 frags completed: 0
        v6 frags expired: 0
        v6 frags too small: 0
        v6 frags overlapped: 0
        v6 frags purged: 0
";
    assert_eq!(run("appctl dpctl/ipf-get-status"), status);
    let lists = "
        Fragment Lists:

(src=10.1.1.1,dst=10.1.1.2,recirc_id=0,ip_id=3,dl_type=0x800,zone=1,nw_proto=17,num_fragments=2,state=first/last frag)
(src=fc00::1,dst=fc00::2,recirc_id=8,ip_id=3,dl_type=0x86dd,zone=1,nw_proto=17,num_fragments=1,state=first frag)
";
    assert_eq!(run("appctl dpctl/ipf-get-status --more weir"), format!("{status}{lists}"));
    let json: serde_json::Value =
        serde_json::from_str(&run("appctl dpctl/ipf-get-status -m --json")).unwrap();
    assert_eq!(json["v4"]["counters"]["duplicates"], 3);
    assert_eq!((&json["v6"]["enabled"], &json["v6"]["min_size"]), (&false.into(), &400.into()));
    assert_eq!(json["datagrams"][1]["state"], "first frag");
}
