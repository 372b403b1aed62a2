//! `weir ct`: hands commands to the daemon, and repeats them for `weir ct watch`, whose daemon keeps nothing between
//! two answers.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::NativeArgs;
use super::client::{PIPE_CLOSED, complain, native, without_json};
use crate::control::protocol::Request;
use crate::control::{Client, Family};

/// Connections that `watch list` shows without `--limit`, and at most.
const WATCHED: usize = 20;
const MOST_WATCHED: usize = 1000;
const EVERY: u64 = 2;

/// Runs `weir ct`; the exit status.
#[must_use]
pub fn ct(mut args: NativeArgs) -> u8 {
    if args.words.iter().find(|word| *word != "--json").is_none_or(|name| name != "watch") {
        return native(Family::Ct, args);
    }
    let (mut words, json) = without_json(core::mem::take(&mut args.words), args.target.json);
    words.remove(0);
    match Watch::parse(words, json) {
        Ok(watch) => watch.run(&args.target.socket, args.timeout),
        Err(message) => complain(Family::Ct, &message),
    }
}

/// What to repeat, and how.
#[derive(Debug, PartialEq, Eq)]
struct Watch {
    list: bool,
    every: Duration,
    /// How often; `None` is for ever.
    count: Option<u64>,
    args: Vec<String>,
    json: bool,
}

impl Watch {
    fn parse(words: Vec<String>, json: bool) -> Result<Self, String> {
        let mut watch =
            Self { list: false, every: Duration::from_secs(EVERY), count: None, args: Vec::new(), json };
        let mut limit = WATCHED;
        let mut words = words.into_iter().peekable();
        if let Some(word) = words.next_if(|word| word == "list" || word == "stats") {
            watch.list = word == "list";
        }
        while let Some(word) = words.next() {
            if !word.starts_with("--") {
                watch.args.push(word);
                continue;
            }
            let (name, value) = match word.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (word, words.next()),
            };
            let value = value.ok_or_else(|| format!("{name} needs a value behind it"))?;
            let bad = || format!("{name} {value}: not a number that is possible here");
            match name.as_str() {
                "--every" => {
                    let seconds = value.parse().ok().filter(|seconds| (0.1..=86_400.0).contains(seconds));
                    watch.every = Duration::from_secs_f64(seconds.ok_or_else(bad)?);
                }
                "--count" => watch.count = Some(value.parse().ok().filter(|&n| n > 0).ok_or_else(bad)?),
                "--limit" if watch.list => {
                    limit = value.parse().ok().filter(|n| (1..=MOST_WATCHED).contains(n)).ok_or_else(bad)?;
                }
                "--sort" if watch.list => watch.args.push(format!("--sort={value}")),
                _ => return Err(format!("unrecognised option {name}")),
            }
        }
        if watch.list {
            watch.args.push(format!("--limit={limit}"));
        }
        Ok(watch)
    }

    fn run(&self, socket: &Path, timeout: Option<u32>) -> u8 {
        let command = if self.list { "ct list" } else { "ct stats" };
        let request =
            Request { command: command.into(), args: self.args.clone(), json: true, ..Request::default() };
        let timeout =
            timeout.filter(|&seconds| seconds != 0).map(|seconds| Duration::from_secs(seconds.into()));
        let mut before: Option<BTreeMap<String, u64>> = None;
        let mut left = self.count;
        loop {
            let mut answer = String::new();
            let mut take = |text: &str| {
                answer.push_str(text);
                Ok(())
            };
            // A connection for each time: the daemon gives none away to one that sleeps.
            let end =
                Client::connect(socket, timeout).and_then(|mut client| client.call(&request, &mut take));
            match end {
                Err(error) => return complain(Family::Ct, &error.to_string()),
                Ok(end) if end.exit != 0 => return complain(Family::Ct, &end.stderr),
                Ok(_) => {}
            }
            let Ok(answer) = serde_json::from_str::<Value>(&answer) else {
                return complain(Family::Ct, "the daemon's answer is no JSON");
            };
            let figures = if self.list { connections(&answer) } else { groups(&answer) };
            let text = if self.json { format!("{answer}\n") } else { self.text(&figures, before.as_ref()) };
            let mut stdout = io::stdout().lock();
            if stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).is_err() {
                return PIPE_CLOSED;
            }
            before = Some(figures);
            left = left.map(|left| left - 1);
            if left == Some(0) {
                return 0;
            }
            std::thread::sleep(self.every);
        }
    }

    /// One round: every row with its figure and how that has changed, and what is gone.
    fn text(&self, now: &BTreeMap<String, u64>, before: Option<&BTreeMap<String, u64>>) -> String {
        let empty = BTreeMap::new();
        let earlier = before.unwrap_or(&empty);
        let width = now.keys().chain(earlier.keys()).map(String::len).max().unwrap_or(0);
        let mut text = String::new();
        for (row, figure) in now {
            let change = match (before, earlier.get(row)) {
                (None, _) => String::new(),
                (Some(_), None) => "new".into(),
                (Some(_), Some(was)) if figure >= was => format!("+{}", figure - was),
                (Some(_), Some(was)) => format!("-{}", was - figure),
            };
            text.push_str(format!("{row:<width$}  {figure:>12}  {change}").trim_end());
            text.push('\n');
        }
        for row in earlier.keys().filter(|row| !now.contains_key(*row)) {
            text.push_str(&format!("{row:<width$}  {:>12}  gone\n", "-"));
        }
        let (sum, was): (u64, u64) = (now.values().sum(), earlier.values().sum());
        let unit = if self.list { "packets" } else { "connections" };
        let sign = if sum >= was { '+' } else { '-' };
        let change = before.map(|_| format!(", {sign}{}", sum.abs_diff(was))).unwrap_or_default();
        let rows = now.len();
        text.push_str(&format!("{rows} rows, {sum} {unit}{change}\n\n"));
        text
    }
}

/// `ct stats` as rows: zone, protocol and state.
fn groups(answer: &Value) -> BTreeMap<String, u64> {
    let rows = answer["groups"].as_array().into_iter().flatten();
    rows.map(|group| {
        let zone = group["zone"].as_u64().unwrap_or(0);
        let word = |name: &str| group[name].as_str().unwrap_or("?").to_owned();
        let row = format!("zone {zone:<5}  {:<7}  {:<12}", word("protocol"), word("state"));
        (row, group["connections"].as_u64().unwrap_or(0))
    })
    .collect()
}

/// `ct list` as rows: a connection each, and its packets of both directions.
fn connections(answer: &Value) -> BTreeMap<String, u64> {
    let rows = answer["connections"].as_array().into_iter().flatten();
    rows.map(|row| {
        let word = |value: &Value| value.as_str().unwrap_or("?").to_owned();
        let side = |tuple: &Value, end: &str| match tuple[format!("{}port", &end[..1])].as_u64() {
            Some(port) => format!("{} {port}", word(&tuple[end])),
            None => word(&tuple[end]),
        };
        let direction = |tuple: &Value| {
            let id = tuple["id"].as_u64().map(|id| format!(" id {id}")).unwrap_or_default();
            format!("{} > {}{id}", side(tuple, "src"), side(tuple, "dst"))
        };
        let packets = |name: &str| row[name]["packets"].as_u64().unwrap_or(0);
        let zone = row["zone"].as_u64().unwrap_or(0);
        let (orig, reply) = (direction(&row["orig"]), direction(&row["reply"]));
        let text = format!("zone {zone:<5}  {:<6}  {orig}  ({reply})", word(&row["protocol"]));
        (text, packets("orig") + packets("reply"))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Watch, String> {
        Watch::parse(text.split_whitespace().map(str::to_owned).collect(), false)
    }

    #[test]
    fn watch_reads_its_own_options_and_leaves_filters_to_the_daemon() {
        let watch = parse("list --every 0.5 zone=3 --count=4 --limit 7").unwrap();
        let args = ["zone=3", "--limit=7"].map(str::to_owned).to_vec();
        let wanted =
            Watch { list: true, every: Duration::from_millis(500), count: Some(4), args, json: false };
        assert_eq!(watch, wanted);
        assert!(!parse("zone=3").unwrap().list);
        for (line, part) in [
            ("--every 0", "not a number"),
            ("--every inf", "not a number"),
            ("--count 0", "not a number"),
            ("--limit 3", "unrecognised option --limit"),
            ("list --limit 1001", "not a number"),
            ("--count", "needs a value"),
            ("--bogus x", "unrecognised option"),
        ] {
            assert!(parse(line).unwrap_err().contains(part), "{line}");
        }
    }

    #[test]
    fn a_round_shows_what_changed_came_and_went() {
        let watch = parse("stats").unwrap();
        let answer = |tcp: u64| {
            serde_json::json!({"groups": [
                {"zone": 1, "protocol": "tcp", "state": "ESTABLISHED", "connections": tcp}]})
        };
        let (first, second) = (groups(&answer(5)), groups(&answer(3)));
        assert_eq!(
            watch.text(&first, None),
            "zone 1      tcp      ESTABLISHED              5\n1 rows, 5 connections\n\n"
        );
        assert_eq!(
            watch.text(&second, Some(&first)),
            "zone 1      tcp      ESTABLISHED              3  -2\n1 rows, 3 connections, -2\n\n"
        );
        let gone = watch.text(&BTreeMap::new(), Some(&second));
        assert!(gone.contains("-  gone\n0 rows, 0 connections, -3"), "{gone}");
    }

    #[test]
    fn a_watched_connection_is_named_by_both_directions() {
        let row = serde_json::json!({"connections": [{
            "protocol": "tcp", "zone": 2,
            "orig": {"src": "10.0.0.1", "dst": "10.0.0.2", "sport": 1, "dport": 2, "packets": 4},
            "reply": {"src": "10.0.0.2", "dst": "10.0.0.1", "sport": 2, "dport": 1, "packets": 3}}]});
        let rows = connections(&row);
        let wanted = "zone 2      tcp     10.0.0.1 1 > 10.0.0.2 2  (10.0.0.2 2 > 10.0.0.1 1)";
        assert_eq!(rows.into_iter().collect::<Vec<_>>(), [(wanted.to_owned(), 7)]);
    }
}
