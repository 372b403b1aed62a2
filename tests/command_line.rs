//! The program as people type it: usage errors, configuration errors, and commands without a daemon, with what
//! they print and their exit status.
#![allow(clippy::unwrap_used)]

use std::process::{Command, Output, Stdio};

fn weir(args: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_weir"))
        .args(args)
        .env("WEIR_SOCKET", "/nonexistent/weir.sock")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

/// Exit status and first line of standard error; nothing on standard output.
fn error(line: &str) -> (i32, String) {
    let (status, stdout, stderr) = weir(&words(line));
    assert_eq!(stdout, "", "{line}");
    (status, stderr.lines().next().unwrap_or_default().to_owned())
}

#[test]
fn usage_errors_are_those_of_open_vswitchs_programs() {
    for (line, message) in [
        ("ofctl", "weir ofctl: missing command name; use --help for help"),
        ("ofctl foo", "weir ofctl: unknown command 'foo'; use --help for help"),
        ("ofctl add-flow", "weir ofctl: 'add-flow' command requires at least 2 arguments"),
        ("ofctl add-flow a b c", "weir ofctl: 'add-flow' command takes at most 2 arguments"),
        ("ofctl add-flows br0 /none", "weir ofctl: /none: open (No such file or directory)"),
        (
            "ofctl dump-flows br0",
            "weir ofctl: cannot connect to \"/nonexistent/weir.sock\" (No such file or directory)",
        ),
        ("appctl", "weir appctl: at least one non-option argument is required (use --help for help)"),
        ("appctl -t /none version", "weir appctl: cannot connect to \"/none\" (No such file or directory)"),
        ("vsctl", "weir vsctl: missing command name (use --help for help)"),
        ("vsctl add-br", "weir vsctl: 'add-br' command requires at least 1 arguments"),
        ("vsctl list-br -- foo", "weir vsctl: unknown command 'foo'; use --help for help"),
        ("vsctl --may-exist del-br x", "weir vsctl: 'del-br' command has no '--may-exist' option"),
        (
            "vsctl --may-exist add-port br0 p1 -- set Interface p1 type=dpdk",
            "weir vsctl: cannot connect to \"/nonexistent/weir.sock\" (No such file or directory)",
        ),
        (
            "ofctl -O OpenFlow99 show br0",
            "error: invalid value 'OpenFlow99' for '--protocols <VERSIONS>': Unknown OpenFlow version: \"OpenFlow99\"",
        ),
        ("ofctl --bogus show br0", "error: unexpected argument '--bogus' found"),
    ] {
        assert_eq!(error(line), (1, message.to_owned()), "{line}");
    }
}

#[test]
fn options_may_stand_behind_the_command_as_with_getopt() {
    let message = "weir ofctl: cannot connect to \"/nonexistent/weir.sock\" (No such file or directory)";
    for line in [
        "ofctl dump-flows br0 --no-stats -O OpenFlow13,OpenFlow15 --sort --rsort=priority --names --json",
        "ofctl --strict --bundle mod-flows br0 actions=drop -t 5",
        "ofctl -OOpenFlow14 -m --color=never show br0",
    ] {
        assert_eq!(error(line), (1, message.to_owned()), "{line}");
    }
}

#[test]
fn a_wrong_command_line_of_the_program_itself_has_status_2() {
    for line in ["", "bogus", "run", "run a b", "run --profile replay x", "replay", "config"] {
        assert_eq!(weir(&words(line)).0, 2, "{line}");
    }
    assert_eq!(
        error("replay --flows f --out d --port 0=x.pcap").1,
        "error: invalid value '0=x.pcap' for '--port <NUMBER=FILE>': \"0\" is no port number; ports are 1 to 65279"
    );
    assert_eq!(
        error("replay --flows f --out d --port x.pcap").1,
        "error: invalid value 'x.pcap' for '--port <NUMBER=FILE>': write it as NUMBER=FILE, for example \
         1=inside.pcap"
    );
}

#[test]
fn help_lists_every_command_and_exits_with_0() {
    for (line, part) in [
        ("--help", "alias ovs-ofctl='weir ofctl'"),
        ("ofctl --help", "replace-flows BRIDGE FILE"),
        ("ofctl help", "replace-flows BRIDGE FILE"),
        ("ofctl list-commands", "dump-aggregate"),
        ("appctl --help", "dpctl/flush-conntrack"),
        ("vsctl --help", "add-port"),
        ("run --help", "second signal"),
        ("replay --help", "merged by their time stamps"),
        ("--version", env!("CARGO_PKG_VERSION")),
    ] {
        let (status, stdout, _) = weir(&words(line));
        assert_eq!(status, 0, "{line}");
        assert!(stdout.contains(part), "{line}: {stdout}");
    }
}

#[test]
fn the_lists_of_commands_can_be_had_as_json() {
    let (status, stdout, stderr) = weir(&words("ofctl list-commands --json"));
    assert_eq!((status, stderr.as_str()), (0, ""));
    assert!(stdout.starts_with("[{\"name\":\"show\","), "{stdout}");
}

#[test]
fn replay_takes_flows_from_standard_input_and_no_more_of_them_than_any_file_has() {
    let out = std::env::temp_dir().join(format!("weir-stdin-{}", std::process::id()));
    let run = |flows: &str, stdin: Stdio| {
        Command::new(env!("CARGO_BIN_EXE_weir"))
            .args(["replay", "--flows", flows, "--port", "1=examples/inside.pcap", "--port", "2=", "--json"])
            .arg("--out")
            .arg(&out)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stdin(stdin)
            .output()
            .unwrap()
    };
    let nat = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/nat.flows");
    let ended = run("-", std::fs::File::open(nat).unwrap().into());
    assert!(ended.status.success(), "{ended:?}");
    let endless = run("/dev/zero", Stdio::null());
    std::fs::remove_dir_all(&out).unwrap();
    let message = String::from_utf8(endless.stderr).unwrap();
    assert_eq!(endless.status.code(), Some(2));
    assert!(message.starts_with("weir replay: /dev/zero: longer than "), "{message}");
}

#[test]
fn replay_goes_by_a_configuration_and_says_what_is_wrong_with_it() {
    let directory = std::env::temp_dir().join(format!("weir-replay-config-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let config = directory.join("weir.toml");
    let replay = |text: &str, more: &str| {
        std::fs::write(&config, text).unwrap();
        let (out, config) = (directory.join("out"), config.display().to_string());
        let line = format!(
            "replay --config {config} --flows examples/nat.flows --port 1=examples/inside.pcap --port 2= --out {} \
             --shards 3 --seed 1 --json {more}",
            out.display()
        );
        weir(&words(&line))
    };
    let connections = |(status, stdout, stderr): (i32, String, String)| {
        assert_eq!((status, stderr.as_str()), (0, ""));
        let report: serde_json::Value = serde_json::from_str(&stdout).unwrap();
        report["connections"].as_array().unwrap().len()
    };
    let found = [
        ("", ""),
        ("[conntrack]\ncapacity = 100\nmax_connections = 4\n", ""),
        ("[conntrack]\nzone_limit = 3\n", ""),
        ("", "--capacity 2"),
    ]
    .map(|(text, more)| connections(replay(text, more)));
    let wrong = replay("[steering]\ntable_size = 2\n", "");
    let misspelt = replay("[steering]\ntable_sise = 2\n", "");
    std::fs::remove_dir_all(&directory).unwrap();
    assert_eq!(found, [9, 4, 3, 2]);
    assert_eq!((wrong.0, wrong.2.contains("too small for 3 shards")), (2, true), "{}", wrong.2);
    assert_eq!((misspelt.0, misspelt.2.contains("did you mean `table_size`?")), (2, true), "{}", misspelt.2);
}

#[test]
fn the_printed_example_is_a_configuration_and_a_damaged_one_is_pointed_at() {
    let directory = std::env::temp_dir().join(format!("weir-config-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let (status, example, _) = weir(&["config", "example"]);
    assert_eq!(status, 0);
    std::fs::write(directory.join("nat.flows"), "table=0,priority=1,action=normal\n").unwrap();
    let path = directory.join("weir.toml");
    let path_text = path.to_str().unwrap();
    std::fs::write(&path, &example).unwrap();
    assert_eq!(weir(&["run", "--check", path_text]), (0, String::new(), format!("{path_text}: fine\n")));

    std::fs::write(directory.join("nat.flows"), "table=0,prio=1,action=normal\n").unwrap();
    let (status, _, stderr) = weir(&["run", "--check", path_text]);
    assert_eq!(status, 2);
    assert!(stderr.contains("nat.flows:1:9") && stderr.contains("prio"), "{stderr}");

    std::fs::write(&path, example.replace("profile =", "profil =")).unwrap();
    let (status, _, stderr) = weir(&["run", "--check", path_text]);
    assert_eq!(status, 2);
    assert!(stderr.contains("unknown key `profil`; did you mean `profile`?"), "{stderr}");

    assert_eq!(weir(&["run", "/nonexistent.toml"]).0, 2);
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn flows_are_parsed_without_a_daemon() {
    let (status, stdout, _) = weir(&["ofctl", "parse-flow", "table=1,priority=5,ip,actions=drop"]);
    assert_eq!((status, stdout.contains("priority=5,ip actions=drop")), (0, true), "{stdout}");
    let (status, _, stderr) = weir(&["ofctl", "parse-flow", "ipp,actions=drop"]);
    assert_eq!(status, 1);
    assert!(stderr.contains('^'), "{stderr}");
    let (status, _, stderr) = weir(&["ofctl", "add-flow", "br0", "ipp,actions=drop"]);
    assert_eq!(status, 1);
    assert!(stderr.contains("cannot connect"), "the daemon knows the ports' names: {stderr}");
}
