//! `weir ct` on an engine in memory.

use super::*;
use crate::control::commands::testing::{connection, daemon};
use crate::control::commands::{Family, Request};
use crate::control::protocol::End;
use crate::control::server::Handler;

fn call_on(daemon: &Daemon, line: &str) -> (String, End) {
    let mut words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    let json = words.iter().any(|word| word == "--json");
    words.retain(|word| word != "--json");
    let args = words.split_off(1);
    let request = Request { command: format!("ct {}", words[0]), args, json, ..Request::default() };
    let mut output = String::new();
    let end = daemon.handle(request, &mut |text| {
        output.push_str(text);
        Ok(())
    });
    (output, end)
}

fn output(line: &str) -> String {
    let (output, end) = call_on(&daemon().0, line);
    assert_eq!(end, End::default(), "{line}");
    output
}

fn json(daemon: &Daemon, line: &str) -> serde_json::Value {
    let (output, end) = call_on(daemon, &format!("{line} --json"));
    assert_eq!(end.exit, 0, "{line}: {end:?}");
    serde_json::from_str(&output).unwrap_or_else(|error| panic!("{line}: {error}: {output}"))
}

#[test]
fn a_list_is_aligned_and_has_a_title_for_each_column() {
    let text = output("list");
    let mut lines = text.lines();
    let titles = lines.next().unwrap();
    let at = |title: &str| titles.find(title).unwrap();
    let row = lines.next().unwrap();
    assert!(row[at("SOURCE")..].starts_with("10.1.1.1:40000"), "{text}");
    assert!(row[at("DESTINATION")..].starts_with("10.1.1.2:80"), "{text}");
    assert!(row[at("REPLY-DESTINATION")..].starts_with("10.1.1.240:40000"), "{text}");
    assert!(row[at("STATE")..].starts_with("ESTABLISHED"), "{text}");
    assert!(row.ends_with("23h59m"), "{text}");
    assert_eq!(text.lines().count(), 4);
    assert_eq!(output("list zone=9").lines().count(), 1, "titles of an empty table");
}

#[test]
fn filters_choose_in_every_listing_command() {
    for (filter, count) in [
        ("", 3),
        ("zone=1 protocol=tcp", 3),
        ("src=10.1.1.1", 1),
        ("src=10.1.1.0/31", 1),
        ("src=10.1.1.0/30", 3),
        ("address=10.1.1.240", 3),
        ("reply-dst=10.1.1.240,reply-dport=40000", 3),
        ("dport=1-100,sport=40000-40001", 3),
        ("port=81", 0),
        ("state=established mark=1/0xff label=1", 3),
        ("state=syn_sent", 0),
        ("nat=src", 3),
        ("nat=no", 0),
        ("helper=ftp", 0),
        ("protocol=17", 0),
        ("id=3", 0),
        ("src=::/0", 0),
    ] {
        let (daemon, engine, _) = daemon();
        let rows = json(&daemon, &format!("list {filter}"));
        assert_eq!(rows["connections"].as_array().unwrap().len(), count, "{filter}");
        assert_eq!(json(&daemon, &format!("stats {filter}"))["total"], count, "{filter}");
        if !filter.is_empty() {
            assert_eq!(json(&daemon, &format!("flush {filter}"))["removed"], count, "{filter}");
            assert_eq!(engine.state().connections.len(), 3 - count, "{filter}");
        }
    }
}

#[test]
fn pages_follow_one_another_without_gap_or_repetition() {
    let (daemon, engine, _) = daemon();
    engine.state().connections = (1..=250).map(connection).collect();
    for limit in [1, 3, 7, 249, 250, 251] {
        let (mut after, mut sources) = (String::new(), Vec::new());
        loop {
            let page = json(&daemon, &format!("list --limit {limit} {after} zone=1"));
            let rows = page["connections"].as_array().unwrap();
            assert!(rows.len() <= limit && !rows.is_empty());
            sources.extend(rows.iter().map(|row| row["orig"]["src"].as_str().unwrap().to_owned()));
            let Some(next) = page["next"].as_str() else { break };
            after = format!("--after={next}");
        }
        let all: Vec<String> = (1..=250).map(|host| format!("10.1.1.{host}")).collect();
        assert_eq!(sources, all, "pages of {limit}");
    }
    let (_, end) = call_on(&daemon, "list --limit 5");
    assert_eq!((end.exit, end.stderr.as_str()), (0, "there are more; go on with --after 0:5"));
    assert_eq!(json(&daemon, "list --limit 1 src=10.1.1.250")["next"], serde_json::Value::Null);
}

#[test]
fn sorting_gives_the_largest_in_order() {
    let (daemon, engine, _) = daemon();
    engine.state().connections = (1..=200)
        .map(|host| ConnectionView { age: u64::from(host) * 37 % 200, ..connection(host) })
        .collect();
    let ages = |line: &str| -> Vec<u64> {
        let page = json(&daemon, line);
        let rows = page["connections"].as_array().unwrap().clone();
        rows.iter()
            .map(|row| {
                let host = row["orig"]["src"].as_str().unwrap().rsplit_once('.').unwrap().1;
                host.parse::<u64>().unwrap() * 37 % 200
            })
            .collect()
    };
    assert_eq!(ages("list --sort age --limit 4"), [199, 198, 197, 196]);
    assert_eq!(ages("list --sort youngest --limit 3"), [0, 1, 2]);
    assert_eq!(ages("list --sort age").len(), 100);
}

#[test]
fn one_connection_shows_in_detail_by_its_filter_or_its_line() {
    let text = output("show src=10.1.1.2");
    assert!(text.contains("10.1.1.240:40000") && text.contains("zone "), "{text}");
    let (daemon, engine, _) = daemon();
    let line = engine.state().connections[1].with_timeout().to_string();
    assert_eq!(json(&daemon, &format!("show {line}"))["orig"]["src"], "10.1.1.2");
}

#[test]
fn stats_have_a_row_for_each_kind_of_connection() {
    let text = output("stats");
    assert!(text.starts_with("ZONE  PROTOCOL  STATE        CONNECTIONS\n"), "{text}");
    assert!(
        text.ends_with("   1  tcp       ESTABLISHED            3\n3 connections; 3000000 may be\n"),
        "{text}"
    );
}

#[test]
fn mistakes_are_told_and_change_nothing() {
    let (daemon, engine, _) = daemon();
    for (line, part) in [
        ("list sorce=10.1.1.1", "\"sorce=10.1.1.1\" chooses no connections"),
        ("list dprt=1", "did you mean dport=?"),
        ("list src=10.1.1.1/33", "does not read as src=ADDRESS[/LENGTH]"),
        ("list src=x", "does not read as src="),
        ("list dport=9-3", "does not read as dport="),
        ("list state=open", "states are ANSWERED"),
        ("list nat=maybe", "src|dst|yes|no"),
        ("list zone=1 zone=2", "zone= is given twice"),
        ("list --limit 0", "not a number of connections"),
        ("list --limit", "needs a value"),
        ("list --after x", "not where an earlier page ended"),
        ("list --sort size", "connections are sorted by age"),
        ("list --sort age --limit 10001", "no more than 10000"),
        ("list --sort age --after 0:1", "cannot go on --after"),
        ("list --bogus 3", "unrecognised option --bogus"),
        ("show zone=1", "several connections match"),
        ("show zone=2", "no such connection"),
        ("show", "requires at least 1"),
        ("show tcp,orig=(src=1)", "does not read as a dump's"),
        ("flush", "requires at least 1"),
        ("flush ,", "say which connections to remove, or --all"),
        ("flush --all zone=1", "unrecognised option --all"),
        ("flush --bogus", "unrecognised option --bogus"),
        ("lst", "did you mean 'list'?"),
    ] {
        let (printed, end) = call_on(&daemon, line);
        assert_eq!((end.exit, printed.as_str()), (1, ""), "{line}: {end:?}");
        assert!(end.stderr.contains(part), "{line}: {}", end.stderr);
        assert_eq!(engine.state().connections.len(), 3, "{line}");
    }
    assert_eq!(call_on(&daemon, "flush --all").0, "3 connections removed\n");
}

#[test]
fn a_hundred_thousand_connections_go_out_in_chunks_and_stop_with_their_reader() {
    let (daemon, engine, _) = daemon();
    engine.state().connections = (0..100_000_u32).map(|n| connection((n % 250) as u8 + 1)).collect();
    for (line, lines) in [("list", 100_001), ("list --json", 100_000), ("stats", 3)] {
        let mut words: Vec<&str> = line.split(' ').collect();
        let json = words.len() > 1;
        words.truncate(1);
        let request = Request { command: format!("ct {}", words[0]), json, ..Request::default() };
        let (mut count, mut largest) = (0, 0);
        let end = daemon.handle(request, &mut |text| {
            largest = largest.max(text.len());
            count += text.matches('\n').count();
            Ok(())
        });
        assert_eq!((end.exit, count), (0, lines), "{line}");
        assert!(largest < 128 << 10, "{line}: a chunk of {largest} bytes");
    }
    for command in ["ct list", "appctl dpctl/dump-conntrack"] {
        let request = Request { command: command.into(), ..Request::default() };
        let mut chunks = 0;
        let end = daemon.handle(request, &mut |_| {
            chunks += 1;
            Err(std::io::ErrorKind::BrokenPipe.into())
        });
        assert!(end.exit != 0 && chunks <= 2, "{command}: {chunks} chunks after the reader was gone");
    }
}

#[test]
fn the_help_has_every_filter_and_column() {
    let help = Family::Ct.help();
    for word in ["zone=N", "reply-dst=", "state=", "REPLY-DESTINATION", "--sort", "weir ct list"] {
        assert!(help.contains(word), "{word} is missing in\n{help}");
    }
}

proptest::proptest! {
    #[test]
    fn no_filter_makes_it_panic(words in proptest::collection::vec("(src|zone|state|port|mark|x)?=?.{0,20}", 0..4)) {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let _ = criteria(&words);
        let _ = pasted(&words.join(",orig=("));
    }
}
