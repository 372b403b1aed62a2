//! What a configuration may say, and what people read when it says something else.

use std::num::NonZeroUsize;

use weir_shard::Timeout;

use super::*;

fn config(text: &str) -> Result<Config, String> {
    parse(text, Path::new("etc/weir.toml")).map_err(|error| error.to_string())
}

fn error(text: &str) -> String {
    config(text).unwrap_err()
}

const PORT: &str = "[[bridge]]\nname = \"br0\"\n[[bridge.port]]\nname = \"p1\"\ndevargs = \"net_null0\"\n";

#[test]
fn an_empty_file_is_a_configuration() {
    let config = config("").unwrap();
    assert_eq!(config.profile, Profile::Lab);
    assert_eq!(config.socket, Path::new("/run/weir/weir.sock"));
    assert_eq!(config.conntrack.capacity.get(), 1_000_000);
    assert_eq!(config.conntrack.max_connections, 1_000_000);
    assert!(config.bridges.is_empty() && config.lcores == Lcores::Automatic(NonZeroUsize::MIN));
}

#[test]
fn the_example_parses_and_states_the_defaults() {
    let example = config(EXAMPLE).unwrap();
    let default = config("").unwrap();
    assert_eq!(example.conntrack, default.conntrack);
    assert_eq!(example.pool, default.pool);
    assert_eq!(example.tuning, default.tuning);
    assert_eq!((example.profile, example.memory_mib), (default.profile, default.memory_mib));
    for timeout in Timeout::ALL {
        let line = format!("\n{} = ", timeout.name());
        assert!(EXAMPLE.contains(&line), "{} is missing", timeout.name());
    }
    let bridge = &example.bridges[0];
    assert_eq!(bridge.flows.as_deref(), Some(Path::new("etc/nat.flows")), "relative to the file");
    assert_eq!(bridge.ports[0].peer.as_ref().unwrap().netns.as_deref(), Some("inside"));
    assert_eq!(bridge.ports[1].number.number(), 2);
}

#[test]
fn ports_without_a_number_get_the_lowest_free_one() {
    let text = format!(
        "{PORT}number = 2\n[[bridge.port]]\nname = \"p2\"\ndevargs = \"net_null1\"\n\
         [[bridge.port]]\nname = \"p3\"\ndevargs = \"net_null2\"\n"
    );
    let numbers: Vec<u16> =
        config(&text).unwrap().bridges[0].ports.iter().map(|p| p.number.number()).collect();
    assert_eq!(numbers, [2, 1, 3]);
}

#[test]
fn a_timeout_that_is_given_counts_and_the_others_keep_their_defaults() {
    let timeouts = config("[conntrack.timeouts]\nudp_multiple = 120").unwrap().conntrack.timeouts;
    assert_eq!(timeouts.seconds(Timeout::UdpMultiple), 120);
    assert_eq!(timeouts.seconds(Timeout::UdpFirst), Timeout::UdpFirst.default_seconds());
}

#[test]
fn what_is_said_of_fragments_counts_and_the_rest_keeps_its_defaults() {
    let fragments =
        config("[conntrack.fragments]\nv6 = false\nmin_size_v4 = 400\nmax = 0").unwrap().conntrack.fragments;
    assert_eq!((fragments.enabled, fragments.min_size, fragments.max), ([true, false], [400, 1280], 0));
    assert_eq!(config("").unwrap().conntrack.fragments, weir_shard::FragmentSettings::default());
}

#[test]
fn an_unknown_key_shows_its_place_and_the_nearest_known_one() {
    assert_eq!(
        error(&format!("{PORT}numer = 1\n")),
        "etc/weir.toml:6:1: unknown key `numer`; did you mean `number`?\n    numer = 1\n    ^^^^^"
    );
    assert_eq!(
        error("colour = 1\n").lines().next().unwrap(),
        "etc/weir.toml:1:1: unknown key `colour`; known are profile, socket, lcores, memory_mib, conntrack, \
         steering, pool, tuning, bridge"
    );
    assert_eq!(
        error("[conntrack.timeouts]\nudp_frist = 1"),
        "etc/weir.toml:2:1: unknown key `udp_frist`; did you mean `udp_first`?\n    udp_frist = 1\n    ^^^^^^^^^"
    );
    assert_eq!(
        error("profile = \"labb\"").lines().next().unwrap(),
        "etc/weir.toml:1:11: unknown value `labb`; did you mean `lab`?"
    );
}

#[test]
fn numbers_out_of_range_say_the_range() {
    for (text, message) in [
        ("memory_mib = 1", "1:14: memory_mib is 1; it must be 64 to 1048576"),
        ("[conntrack]\ncapacity = 0", "2:12: capacity is 0; it must be 1 to 268435456"),
        ("[conntrack]\ncapacity = 99999999999", "2:12: capacity is 99999999999; it must be 1 to 268435456"),
        (
            "[conntrack]\ncapacity = 10\nmax_connections = 11",
            "3:19: max_connections is 11; it must be 0 to 10",
        ),
        ("[conntrack.timeouts]\nudp_first = -1", "2:13: udp_first is -1; it must be 1 to 3888000"),
        (
            "[conntrack.timeouts]\ntcp_established = 3_888_001",
            "2:19: tcp_established is 3888001; it must be 1 to 3888000",
        ),
        ("[conntrack.fragments]\nmin_size_v6 = 399", "2:15: min_size_v6 is 399; it must be 400 to 65535"),
        ("[conntrack.fragments]\nmax = 5001", "2:7: max is 5001; it must be 0 to 5000"),
        ("[pool]\nmbufs = 5", "2:9: mbufs is 5; it must be 1023 to 16777216"),
        ("[pool]\ndata_room = 70000", "2:13: data_room is 70000; it must be 192 to 65535"),
        ("[tuning]\nburst = 0", "2:9: burst is 0; it must be 1 to 64"),
        ("[tuning]\nburst = 65", "2:9: burst is 65; it must be 1 to 64"),
    ] {
        assert_eq!(error(text).lines().next().unwrap(), format!("etc/weir.toml:{message}"));
    }
    let port = |key: &str| error(&format!("{PORT}{key}\n")).lines().next().unwrap().to_owned();
    assert_eq!(port("number = 0"), "etc/weir.toml:6:10: number is 0; it must be 1 to 65279");
    assert_eq!(port("rx_queues = 0"), "etc/weir.toml:6:13: rx_queues is 0; it must be 1 to 64");
}

#[test]
fn names_numbers_and_devices_are_given_once() {
    let second = |keys: &str| format!("{PORT}number = 1\n[[bridge.port]]\n{keys}\n");
    for (keys, message) in [
        ("name = \"p1\"\ndevargs = \"x\"", "8:8: \"p1\" is already the name of another bridge or port"),
        ("name = \"br0\"\ndevargs = \"x\"", "8:8: \"br0\" is already the name of another bridge or port"),
        (
            "name = \"p2\"\ndevargs = \"x\"\nnumber = 1",
            "10:10: number 1 is already another port's of this bridge",
        ),
        ("name = \"p2\"\ndevargs = \"net_null0,copy=1\"", "9:11: net_null0 is already port \"p1\"'s device"),
    ] {
        assert_eq!(error(&second(keys)).lines().next().unwrap(), format!("etc/weir.toml:{message}"));
    }
}

#[test]
fn wrong_types_missing_keys_and_broken_toml_have_a_place() {
    for (text, start) in [
        ("memory_mib = \"much\"", "etc/weir.toml:1:14: invalid type"),
        ("[[bridge]]\nflows = \"x\"", "etc/weir.toml:1:1: missing field `name`"),
        ("socket = \n", "etc/weir.toml:1:"),
        (
            "lcores = \"3-1\"",
            "etc/weir.toml:1:10: CPU list \"3-1\", part \"3-1\": this range is backwards; write numbers and ranges with commas, as 1,3-5",
        ),
        ("[[bridge]]\nname = \"1\"", "etc/weir.toml:2:8: \"1\" is a number"),
        ("socket = \"\"", "etc/weir.toml:1:10: the socket's path cannot be empty"),
    ] {
        let error = error(text);
        assert!(error.starts_with(start), "{error}");
    }
    let peer = error(&format!("{PORT}peer = {{ dev = \"../x\" }}"));
    assert!(peer.contains("6:16: not a name"), "{peer}");
}

#[test]
fn lcores_are_named_or_counted() {
    let lcores = |text: &str| config(&format!("lcores = \"{text}\"")).map(|config| config.lcores);
    let automatic = |count| Lcores::Automatic(NonZeroUsize::new(count).unwrap());
    for (text, wanted) in
        [("1-3", Lcores::On("1-3".parse().unwrap())), ("auto", automatic(1)), ("auto:64", automatic(64))]
    {
        assert_eq!(lcores(text).unwrap(), wanted, "{text}");
    }
    for (text, part) in [
        ("auto:0", "how many"),
        ("auto:", "how many"),
        ("auto4", "how many"),
        ("auto:65", "65 lcores are too many; there may be 64"),
        ("0-64", "65 lcores are too many; there may be 64"),
        ("", "needs a CPU"),
    ] {
        let error = error(&format!("lcores = \"{text}\""));
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn carets_stand_below_their_word_behind_tabs_and_letters_of_several_bytes() {
    let error = error("\tlcores = \"ä\"");
    let lines: Vec<&str> = error.lines().collect();
    assert_eq!(lines[1], "    \tlcores = \"ä\"");
    assert_eq!(lines[2], "    \t         ^^^");
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "(?s)[ -~\\n\\täß\"\\[\\]={}]{0,200}") {
        let _ = parse(&text, Path::new("x"));
    }

    #[test]
    fn no_damage_to_the_example_makes_the_parser_panic(at in 0..EXAMPLE.len(), with in ".{0,3}", cut in 0..9_usize) {
        let start = boundary(EXAMPLE, at);
        let end = boundary(EXAMPLE, at + cut);
        let text = format!("{}{with}{}", &EXAMPLE[..start], &EXAMPLE[end..]);
        let _ = parse(&text, Path::new("x"));
    }
}

#[test]
fn zones_have_limits_and_timeouts_of_their_own() {
    let text = "[conntrack]\nzone_limit = 100\n[[conntrack.zone]]\nid = 5\nlimit = 0\n\
                [[conntrack.zone]]\nid = 65535\ntimeouts = { udp_first = 7 }\n";
    let zones = config(text).unwrap().conntrack.zones;
    assert_eq!(zones.default_limit, Some(100));
    assert_eq!(zones.limits.into_iter().collect::<Vec<_>>(), [(5, 0)]);
    let (zone, own) = zones.timeouts.into_iter().next().unwrap();
    let timeouts = own.over(&weir_shard::Timeouts::default());
    assert_eq!(
        (zone, timeouts.seconds(Timeout::UdpFirst), timeouts.seconds(Timeout::UdpSingle)),
        (65_535, 7, 60)
    );
    assert_eq!(config("[conntrack]\nzone_limit = 0").unwrap().conntrack.zones.default_limit, None);
    assert!(!config("[conntrack]\naccounting = false").unwrap().conntrack.accounting);
}

#[test]
fn a_zone_that_cannot_be_is_pointed_at() {
    for (text, message) in [
        ("id = 65536", "id is 65536; it must be 0 to 65535"),
        ("id = 5\nlimit = -1", "limit is -1; it must be 0 to 4294967295"),
        ("id = 5\ntimeouts = { udp_frist = 1 }", "unknown key `udp_frist`; did you mean `udp_first`?"),
        ("id = 5\ntimeouts = { udp_first = 0 }", "udp_first is 0; it must be 1 to 3888000"),
        ("id = 5\n[[conntrack.zone]]\nid = 5", "zone 5 is described twice"),
        ("limit = 5", "missing field `id`"),
    ] {
        let error = error(&format!("[[conntrack.zone]]\n{text}\n"));
        assert!(error.contains(message), "{text}: {error}");
    }
}

#[test]
fn the_packet_path_can_be_made_slower() {
    let tuning = config("[tuning]\nburst = 4\ntrajectories = false\n").unwrap().tuning;
    assert_eq!(tuning, Tuning { burst: 4, trajectories: false });
    assert_eq!(config("").unwrap().tuning, Tuning { burst: 64, trajectories: true });
}
