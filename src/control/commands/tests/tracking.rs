//! Zones, limits, switches and events: texts and errors as Open vSwitch 3.1 has them, where it has them.

use super::*;

/// Runs lines on one daemon, each with what it must print, or its error behind `!`.
#[track_caller]
fn session(lines: &[(&str, &str)]) {
    let daemon = daemon().0;
    for (line, wanted) in lines {
        let (output, end) = call_on(&daemon, line, &[]);
        match wanted.strip_prefix('!') {
            Some(wanted) => assert_eq!((output.as_str(), end.stderr.as_str()), ("", wanted), "{line}"),
            None => assert_eq!((output.as_str(), end), (*wanted, End::default()), "{line}"),
        }
    }
}

#[test]
fn limits_are_set_shown_and_deleted_in_open_vswitchs_words() {
    session(&[
        ("appctl dpctl/ct-get-limits", "default limit=0\n"),
        ("appctl dpctl/ct-set-limits default=10", ""),
        ("appctl dpctl/ct-set-limits zone=1,limit=5 limit=0x10,zone=2", ""),
        ("appctl dpctl/ct-get-limits", "default limit=10\nzone=1,limit=5,count=3\nzone=2,limit=16,count=0\n"),
        (
            "appctl dpctl/ct-get-limits netdev@weir zone=1,9",
            "default limit=10\nzone=1,limit=5,count=3\nzone=9,limit=10,count=0\n",
        ),
        ("appctl dpctl/ct-set-limits netdev@weir default=0 zone=1,limit=0", ""),
        (
            "appctl dpctl/ct-get-limits zone=1,2,3",
            "default limit=0\nzone=1,limit=0,count=3\nzone=2,limit=16,count=0\nzone=3,limit=0,count=0\n",
        ),
        ("appctl dpctl/ct-del-limits zone=1,2,", ""),
        ("appctl dpctl/ct-del-limits zone=99", ""),
        ("appctl dpctl/ct-get-limits", "default limit=0\n"),
    ]);
}

#[test]
fn wrong_limits_are_refused_whole() {
    session(&[
        ("appctl dpctl/ct-set-limits", "!\"dpctl/ct-set-limits\" command requires at least 1 arguments"),
        ("appctl dpctl/ct-set-limits netdev@weir", "!failed to parse zone limit (Invalid argument)"),
        ("appctl dpctl/ct-set-limits zone=1", "!failed to parse zone limit (Invalid argument)"),
        ("appctl dpctl/ct-set-limits zone=1,limit=x", "!failed to parse field limit (Invalid argument)"),
        ("appctl dpctl/ct-set-limits zone=x,limit=5", "!failed to parse field zone (Invalid argument)"),
        ("appctl dpctl/ct-set-limits zone=70000,limit=5", "!failed to parse field zone (Invalid argument)"),
        (
            "appctl dpctl/ct-set-limits zone=1,limit=4294967296",
            "!failed to parse field limit (Invalid argument)",
        ),
        (
            "appctl dpctl/ct-set-limits zone=1,limit=5,foo=3",
            "!invalid zone limit field: foo (Invalid argument)",
        ),
        ("appctl dpctl/ct-set-limits default=x", "!invalid default limit (Invalid argument)"),
        ("appctl dpctl/ct-set-limits foo", "!field foo missing value (Invalid argument)"),
        ("appctl dpctl/ct-set-limits default=10 foo", "!field foo missing value (Invalid argument)"),
        (
            "appctl dpctl/ct-set-limits zone=2,limit=0 default=7",
            "!invalid zone limit field: default (Invalid argument)",
        ),
        ("appctl dpctl/ct-get-limits foo", "!invalid argument foo (Invalid argument)"),
        ("appctl dpctl/ct-get-limits zone=1,x", "!invalid zone (Invalid argument)"),
        // Open vSwitch takes 70000 for 4464, and ends at once where nothing stands behind `zone=`.
        ("appctl dpctl/ct-get-limits zone=70000", "!invalid zone (Invalid argument)"),
        ("appctl dpctl/ct-get-limits zone=", "!invalid zone (Invalid argument)"),
        ("appctl dpctl/ct-get-limits zone=1 zone=2", "!datapath not found (Invalid argument)"),
        ("appctl dpctl/ct-del-limits", "!\"dpctl/ct-del-limits\" command requires at least 1 arguments"),
        ("appctl dpctl/ct-del-limits default", "!invalid argument default (Invalid argument)"),
        ("appctl dpctl/ct-get-limits", "default limit=0\n"),
    ]);
}

#[test]
fn the_sequence_check_and_the_sweep_interval_are_switched_and_shown() {
    session(&[
        ("appctl dpctl/ct-get-tcp-seq-chk", "TCP sequence checking: enabled\n"),
        ("appctl dpctl/ct-disable-tcp-seq-chk", "disabling TCP sequence checking successful\n"),
        ("appctl dpctl/ct-get-tcp-seq-chk netdev@weir", "TCP sequence checking: disabled\n"),
        ("appctl dpctl/ct-enable-tcp-seq-chk", "enabling TCP sequence checking successful\n"),
        ("appctl dpctl/ct-get-tcp-seq-chk --json", "{\"enabled\":true}\n"),
        ("appctl dpctl/ct-get-tcp-seq-chk foo", "!datapath not found (Invalid argument)"),
        ("appctl dpctl/ct-get-sweep-interval", "20000\n"),
        ("appctl dpctl/ct-set-sweep-interval netdev@weir 1000", "setting sweep interval successful\n"),
        ("appctl dpctl/ct-get-sweep-interval", "1000\n"),
        ("appctl dpctl/ct-set-sweep-interval x", "!sweep interval missing or malformed (Invalid argument)"),
        ("appctl dpctl/ct-set-sweep-interval 1 2", "!datapath not found (Invalid argument)"),
    ]);
}

#[test]
fn zones_have_timeouts_of_their_own_by_weir_s_and_by_open_vswitchs_commands() {
    session(&[
        ("zone set-timeout zone=5 udp_first=30 tcp_established=7200", ""),
        ("zone set-timeout 5 udp_first=31", ""),
        ("appctl dpctl/ct-set-limits zone=1,limit=9", ""),
        (
            "zone list",
            " ZONE  CONNECTIONS       LIMIT  TIMEOUTS\n    \
             1            3           9  udp_first=7\n    \
             5            0        none  tcp_established=7200 udp_first=31\n",
        ),
        (
            "zone list --json",
            "[{\"zone\":1,\"connections\":3,\"limit\":9,\"timeouts\":{\"udp_first\":7}},\n \
             {\"zone\":5,\"connections\":0,\"limit\":null,\"timeouts\":{\"tcp_established\":7200,\"udp_first\":31}}]\n",
        ),
        ("vsctl add-zone-tp netdev zone=5 udp_single=1", "!zone id 5 already exists"),
        // What was there is replaced, and the second step does not spoil the first when it fails.
        (
            "vsctl --may-exist add-zone-tp netdev zone=5 udp_single=1 -- del-zone-tp netdev zone=9",
            "!zone id 9 does not exist",
        ),
        (
            "vsctl --may-exist add-zone-tp netdev zone=5 udp_single=1 -- --if-exists del-zone-tp netdev zone=9",
            "",
        ),
        (
            "vsctl list-zone-tp netdev",
            "Zone:1, Timeout Policies: udp_first=7\nZone:5, Timeout Policies: udp_single=1\n",
        ),
        ("vsctl del-zone-tp netdev zone=5", ""),
        ("zone del-timeout 1", ""),
        ("zone del-timeout 1", "!zone 1 has no timeouts of its own"),
        ("vsctl list-zone-tp netdev", ""),
        ("vsctl list-zone-tp foo", "!datapath: foo record not found"),
        ("vsctl add-zone-tp foo zone=1 udp_first=1", "!datapath foo does not exist"),
    ]);
}

#[test]
fn wrong_timeouts_are_named_and_change_nothing() {
    session(&[
        ("zone set-timeout 65536 udp_first=1", "!65536: a zone is a number from 0 to 65535"),
        ("zone set-timeout x udp_first=1", "!x: a zone is a number from 0 to 65535"),
        ("zone set-timeout 5 udp_frist=1", "!udp_frist: no such timeout; did you mean udp_first?"),
        (
            "zone set-timeout 5 tcp_unack=1",
            "!tcp_unack: only Linux' connection tracker has this state; leave it out",
        ),
        ("zone set-timeout 5 udp_first", "!udp_first: write a timeout as NAME=SECONDS, as in udp_first=30"),
        ("zone set-timeout 5 udp_first=x", "!udp_first=x: \"x\" is no number of seconds"),
        (
            "zone set-timeout 5 udp_first=1 udp_single=0",
            "!udp_single=0 is out of range; give 1 to 3888000 seconds",
        ),
        ("vsctl list-zone-tp netdev", "Zone:1, Timeout Policies: udp_first=7\n"),
    ]);
    // Scripts written for Linux' tracker go through; what has no effect is said.
    let (_, end) = call("vsctl add-zone-tp netdev zone=6 tcp_unack=3 udp_first=4");
    assert_eq!(end.exit, 0);
    assert!(end.stderr.contains("tcp_unack=3: only Linux'"), "{end:?}");
}

#[test]
fn a_change_of_ports_that_fails_takes_the_zones_of_its_transaction_back() {
    let (daemon, engine, _) = daemon();
    let line =
        "vsctl add-zone-tp netdev zone=8 udp_first=4 -- add-port br0 p9 options:dpdk-devargs=net_broken";
    assert_eq!(call_on(&daemon, line, &[]).1.exit, 1);
    assert!(!engine.state().zones.timeouts.contains_key(&8));
}

#[test]
fn events_are_lines_of_text_or_of_json_and_losses_are_shown() {
    let text = output("ct events");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 4);
    assert_eq!(
        lines[0],
        "1700000000.123 new                tcp,orig=(src=10.1.1.1,dst=10.1.1.2,sport=40000,dport=80),\
         reply=(src=10.1.1.2,dst=10.1.1.240,sport=80,dport=40000),zone=1,mark=1,labels=0x1,\
         protoinfo=(state=ESTABLISHED) packets=12/9 bytes=1404/12870 age=1.000"
    );
    assert!(
        lines[1].starts_with("1700000000.123 update  [state+mark] tcp,orig=(src=10.1.1.2,"),
        "{}",
        lines[1]
    );
    assert!(
        lines[2].starts_with("1700000000.123 destroy [timeout]  tcp,orig=(src=10.1.1.3,"),
        "{}",
        lines[2]
    );
    assert_eq!(lines[3], "lost 4 events");

    let text = output("ct events --json");
    let events: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&events[0]["event"], &events[0]["time"]), (&"new".into(), &1_700_000_000_123_u64.into()));
    let connection = &events[0]["connection"];
    assert_eq!(connection["start"], 1_699_999_999_123_u64);
    assert_eq!(connection["last_seen"], 1_699_999_999_131_u64);
    assert_eq!((&connection["orig"]["packets"], &connection["reply"]["bytes"]), (&12.into(), &12_870.into()));
    assert_eq!(events[1]["changed"], serde_json::json!(["state", "mark"]));
    assert_eq!(events[2]["cause"], "timeout");
    assert_eq!(events[3], serde_json::json!({ "event": "lost", "count": 4 }));
}

#[test]
fn events_are_filtered_and_end_after_as_many_as_were_asked_for() {
    let lines = |line: &str| output(line).lines().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(lines("ct events --count 2").len(), 2);
    assert_eq!(lines("ct events --count=1 update").len(), 1);
    let destroyed = lines("ct events destroy new zone=1");
    assert!(destroyed[1].contains(" destroy "), "{destroyed:?}");
    assert_eq!(lines("ct events src=10.1.1.2"), [lines("ct events")[1].clone(), "lost 4 events".into()]);
    assert_eq!(lines("ct events zone=2 --seconds 1"), ["lost 4 events"]);
    for (line, wanted) in [
        ("ct events --bogus", "Unrecognized option --bogus; there are --count, --seconds and --json"),
        ("ct events --count", "--count needs a number from 1 to 4294967295"),
        ("ct events --count 0", "--count needs a number from 1 to 4294967295"),
        ("ct events --seconds=x", "--seconds needs a number from 1 to 4294967295"),
    ] {
        assert_eq!(error(line), (1, wanted.into()), "{line}");
    }
    assert!(error("ct events bogus").1.contains("bogus"));
}

#[test]
fn a_listener_that_has_gone_is_noticed_although_nothing_happens() {
    use crate::control::events::{EventQueue, Subscription};
    use crate::control::tracking::EventFilter;
    // The sink is what a socket does whose other end is closed.
    let queue = std::sync::Arc::new(EventQueue::new(EventFilter::default(), 4));
    let quiet = Subscription::new(std::sync::Arc::clone(&queue));
    let mut sink = |_: &str| Err(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
    let mut output = Output::new(&mut sink);
    assert!(output.stay_in_touch().is_err());
    drop(quiet);
    assert_eq!(std::sync::Arc::strong_count(&queue), 1, "which the collector takes for gone");
}
