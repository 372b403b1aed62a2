//! What `weir show steering` prints, text and JSON.

use weir_shard::Steering;
use weir_shard::steering::{KeyWord, SteeringConfig, Subscribers};

use crate::config::Role;
use crate::control::commands::testing::{daemon, engine, name};
use crate::control::commands::tests::call_on;
use crate::control::engine::Engine as _;
use crate::control::protocol::End;
use crate::control::steering::{CardRow, Exchanged, PortRow, SteeredBy, SteeringStatus};
use crate::lcore::Arrivals;

/// Three shards, a zone with whole addresses and one with a single address, a card that steers and one that does not.
fn status() -> SteeringStatus {
    let zone = |pool: &str| Subscribers {
        pool: vec![pool.parse().unwrap()],
        inside: vec!["100.64.0.0/10".parse().unwrap()],
    };
    let config = SteeringConfig {
        shards: 3,
        word: KeyWord::WELL_KNOWN,
        table_size: 128,
        subscribers: vec![(1, zone("203.0.113.0/24")), (5, zone("192.0.2.1"))],
    };
    let mut status = SteeringStatus::new(Steering::new(&config).unwrap().view(), &[2, 3, 5]);
    (status.shards[0].handed_over, status.shards[1].taken_over) = (17, 15);
    let first_packets = Arrivals {
        compared: 3072,
        hash_matched: 3060,
        hash_mismatched: 2,
        without_hash: 10,
        elsewhere: 12,
        wrong: 12,
    };
    let all = ["addresses", "tcp", "udp", "sctp", "source-only", "destination-only"];
    status.ports = vec![
        PortRow {
            port: name("inside"),
            driver: "net_ice".into(),
            role: Some(Role::Inside),
            queues: 3,
            steered_by: SteeredBy::Card,
            why: None,
            card: CardRow { hashes: all.to_vec(), table_size: 512, key_size: 52, hash_in_packet: true },
            first_packets: Some(first_packets),
            notes: vec![],
        },
        PortRow {
            port: name("outside"),
            driver: "net_af_packet".into(),
            role: None,
            queues: 1,
            steered_by: SteeredBy::Software,
            why: Some("the device spreads no packets over queues".into()),
            card: CardRow::default(),
            first_packets: None,
            notes: vec!["net_af_packet gives every VLAN tag back with protocol 0x8100".into()],
        },
    ];
    let row =
        |reason, handed_over, taken_over, refused| Exchanged { reason, handed_over, taken_over, refused };
    status.exchanged = vec![row("steered", 12, 10, 2), row("redirected", 5, 5, 0)];
    status
}

fn told(line: &str) -> String {
    let (daemon, engine, _) = daemon();
    engine.state().steering = Some(status());
    let (output, end) = call_on(&daemon, line, &[]);
    assert_eq!(end, End::default(), "{line}");
    output
}

#[test]
fn who_owns_what_is_told_as_tables() {
    let expected = "\
zones: symmetric, but for those below
table: 128 entries, 98 to 101 % of an equal part
shard  cpu  entries  handed-over  taken-over
0      2    43       17           0
1      3    43       0            15
2      5    42       0            0

zone 1: subscriber
  ipv4 pool: 256 addresses, whole, 98 to 101 % of an equal part
    shard  addresses
    0      86
    1      86
    2      84

zone 5: subscriber
  ipv4 pool: 1 address, cut into port slices, 99 to 101 % of an equal part
    shard  addresses  ports-of-each
    0      1          21847
    1      0          21845
    2      0          21844

port inside (net_ice), 3 queues, role inside:
  steered by card
  card: hash of addresses tcp udp sctp source-only destination-only, passed on; key of 52 bytes; table of 512
  first packets: 3072 compared, hash matched 3060, mismatched 2, absent 10; 12 came elsewhere

port outside (net_af_packet), 1 queue:
  steered by software: the device spreads no packets over queues
  card: no hash
  note: net_af_packet gives every VLAN tag back with protocol 0x8100

between shards:
  reason      handed-over  taken-over  mailbox-full
  steered     12           10          2
  redirected  5            5           0
";
    assert_eq!(told("show steering"), expected);
}

#[test]
fn programs_are_told_the_same() {
    let json: serde_json::Value = serde_json::from_str(&told("show steering --json")).unwrap();
    assert_eq!((&json["scheme"], &json["table_size"]), (&"symmetric".into(), &128.into()));
    assert_eq!(
        json["shards"][0],
        serde_json::json!({ "shard": 0, "cpu": 2, "entries": 43, "handed_over": 17, "taken_over": 0 })
    );
    assert_eq!(json["zones"][0]["pools"][0]["whole"], serde_json::json!([86, 86, 84]));
    assert_eq!(json["zones"][1]["pools"][0]["ports"], serde_json::json!([21847, 21845, 21844]));
    let port = &json["ports"][0];
    assert_eq!((&port["steered_by"], &port["role"]), (&"card".into(), &"inside".into()));
    assert_eq!(port["first_packets"]["hash_mismatched"], 2);
    assert_eq!(json["ports"][1]["why"], "the device spreads no packets over queues");
    assert_eq!(json["exchanged"][0]["refused"], 2);
}

#[test]
fn one_shard_has_everything_and_nobody_steers() {
    let status = engine().steering().unwrap();
    assert_eq!((status.shards.len(), status.shards[0].entries, status.table_size), (1, 1, 1));
    let (daemon, ..) = daemon();
    let (output, end) = call_on(&daemon, "show steering", &[]);
    assert_eq!(end, End::default());
    assert!(
        output.starts_with("zones: symmetric\ntable: 1 entries, 100 to 100 % of an equal part\n"),
        "{output}"
    );
    assert!(!output.contains("between shards"), "{output}");
}
