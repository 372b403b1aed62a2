//! The whole language at once: against ovs-ofctl, against itself, against nonsense.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::Command as Process;

use proptest::prelude::*;

use super::*;

const CORPUS: &str = include_str!("testdata/corpus.flows");

fn read(text: &str) -> FlowMod {
    match FlowMod::parse(text, Command::Add, &NoNames) {
        Ok(parsed) => parsed.flow,
        Err(error) => panic!("{}", render("corpus", 1, text, &error.span, &error.to_string())),
    }
}

fn corpus() -> Vec<String> {
    let flows = CORPUS.lines().filter(|line| !line.starts_with('#')).enumerate();
    flows.map(|(i, line)| format!("cookie={0},priority={0},{line}", i + 1)).collect()
}

/// A flow as `ovs-ofctl diff-flows` shows it.
fn as_difference(flow: &FlowMod) -> String {
    let mut out = String::from("-");
    if let Some(table) = flow.table.filter(|table| *table != 0) {
        let _ = write!(out, "table={table} ");
    }
    out += &print::matching(&flow.matching, flow.priority, &NoNames);
    let _ = write!(out, " cookie={:#x}", flow.cookie.unwrap_or(0));
    for (name, n) in [
        ("idle_timeout", flow.idle_timeout),
        ("hard_timeout", flow.hard_timeout),
        ("importance", flow.importance),
    ] {
        if n != 0 {
            let _ = write!(out, " {name}={n}");
        }
    }
    let _ = write!(out, " actions={}", print::actions(&flow.actions, &NoNames));
    out
}

#[test]
fn flows_print_as_ovs_ofctl_prints_them() {
    let file = std::env::temp_dir().join(format!("weir-corpus-{}.flows", std::process::id()));
    let lines = corpus();
    std::fs::write(&file, lines.join("\n")).unwrap();
    let output = Process::new("ovs-ofctl").arg("diff-flows").arg(&file).arg("/dev/null").output();
    std::fs::remove_file(&file).unwrap();
    let Ok(output) = output else {
        println!("skipped: needs ovs-ofctl (apt-get install openvswitch-common)");
        return;
    };
    let mut theirs: Vec<_> =
        std::str::from_utf8(&output.stdout).unwrap().lines().map(str::to_owned).collect();
    let mut ours: Vec<_> = lines.iter().map(|line| as_difference(&read(line))).collect();
    let number = |line: &String| -> u64 {
        let at = line.find("cookie=0x").unwrap() + 9;
        let digits: String = line[at..].chars().take_while(char::is_ascii_hexdigit).collect();
        u64::from_str_radix(&digits, 16).unwrap()
    };
    theirs.sort_by_key(number);
    ours.sort_by_key(number);
    let mut differences = String::new();
    for ((ours, theirs), line) in ours.iter().zip(&theirs).zip(&lines) {
        if ours != theirs {
            let _ = writeln!(differences, "  flow {line}\n  ours {ours}\ntheirs {theirs}");
        }
    }
    assert!(differences.is_empty(), "\n{differences}");
    assert_eq!(ours.len(), theirs.len(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn what_was_printed_reads_as_what_it_was() {
    for line in corpus() {
        let flow = read(&line);
        let printed = print::flow(&flow, &NoNames);
        assert_eq!(read(&printed), flow, "{line}\n{printed}");
    }
}

#[test]
fn what_means_nothing_is_left_out_of_the_match_with_a_warning() {
    for (text, left, needs) in [
        ("nw_src=1.2.3.4", "", "ip or arp"),
        ("tp_src=5", "", "tcp, udp, sctp, icmp or icmp6"),
        ("ip,tp_src=5", "ip", "tcp, udp, sctp, icmp or icmp6"),
        ("tcp_flags=+syn", "", "tcp"),
        ("udp,tcp_flags=+syn", "udp", "tcp"),
        ("ipv6_src=::1", "", "ipv6"),
        ("ip,ipv6_src=::1", "ip", "ipv6"),
        ("nw_ttl=5", "", "ip or ipv6"),
        ("arp,nw_tos=8", "arp", "ip or ipv6"),
        ("arp_op=1", "", "ip, ipv6 or arp"),
        ("icmp6,nd_target=::1", "icmp6", "icmp6 with icmp_type 135 or 136"),
        ("ct_state=+trk,ip,ct_tp_src=3", "ct_state=+trk,ip", "ct_nw_proto 6, 17, 132, 1 or 58"),
    ] {
        let parsed = FlowMod::parse(&format!("{text},actions=drop"), Command::Add, &NoNames).unwrap();
        assert_eq!(print::matching(&parsed.flow.matching, 0x8000, &NoNames), left, "{text}");
        assert_eq!(parsed.warnings.len(), 1, "{text}");
        assert_eq!(parsed.warnings[0].needs, needs, "{text}");
    }
}

#[test]
fn every_mistake_is_told_as_reviewed() {
    let mut told = String::new();
    for line in include_str!("testdata/mistakes.flows").lines().filter(|line| !line.starts_with('#')) {
        match file::parse_line(line, Command::Add, &NoNames) {
            Ok(parsed) => panic!("accepted: {line}\n{:?}", parsed.flow),
            Err(error) => {
                let _ = writeln!(told, "{}", render("f", 1, line, &error.span, &error.to_string()));
            }
        }
    }
    // WEIR_REVIEW=1 writes what is to be reviewed.
    let reviewed = concat!(env!("CARGO_MANIFEST_DIR"), "/src/flow/testdata/mistakes.txt");
    if std::env::var_os("WEIR_REVIEW").is_some() {
        std::fs::write(reviewed, &told).unwrap();
    }
    let expected = std::fs::read_to_string(reviewed).unwrap();
    for (told, expected) in told.lines().zip(expected.lines()) {
        assert_eq!(told, expected);
    }
    assert_eq!(told.len(), expected.len());
}

#[test]
fn ports_are_read_and_printed_by_name() {
    let ports = [(1, "eth0"), (2, "p-2:x"), (3, "normal"), (4, "reg0")];
    let names: BTreeMap<PortNumber, String> =
        ports.into_iter().map(|(n, name)| (n, name.to_owned())).collect();
    let text = "in_port=eth0,actions=eth0,\"p-2:x\",output:\"p-2:x\",output:eth0,\"normal\",resubmit(eth0,2),5,output:\"reg0\"";
    let flow = FlowMod::parse(text, Command::Add, &names).unwrap().flow;
    let printed = print::flow(&flow, &names);
    assert_eq!(
        printed,
        "in_port=eth0 actions=output:eth0,output:\"p-2:x\",output:\"p-2:x\",output:eth0,output:\"normal\",\
         resubmit(eth0,2),output:5,output:\"reg0\""
    );
    assert_eq!(FlowMod::parse(&printed, Command::Add, &names).unwrap().flow, flow);
    assert!(print::flow(&flow, &NoNames).starts_with("in_port=1 actions=output:1,output:2"));
}

#[test]
fn every_field_lies_in_its_own_bytes_and_has_its_own_names() {
    let mut names = std::collections::HashSet::new();
    for field in &FIELDS {
        assert!(usize::from(field.width + field.shift) <= 8 * field.bytes, "{field}");
        assert!(field.offset / 8 == (field.offset + field.bytes - 1) / 8 || field.bytes == 16, "{field}");
        assert!(field.offset + field.bytes <= key::BYTES, "{field}");
        for name in field.names() {
            assert!(names.insert(name), "{name} twice");
        }
    }
}

#[test]
fn the_help_has_a_line_for_each_field() {
    let help = field::help();
    assert_eq!(help.lines().count(), FIELDS.len() + 1);
    let line = help.lines().find(|line| line.starts_with("nw_src")).unwrap();
    assert_eq!(line, "nw_src, ip_src             32 rw maskable  IPv4 source address (needs ip)");
}

#[test]
fn hostile_lines_are_refused_quickly() {
    let deep = format!("ip,actions={}", "ct(exec(".repeat(8000));
    let commas = ",".repeat(65_000);
    let many = format!("actions={}", "1,".repeat(32_000));
    let flags = format!("ct_state={}", "+new".repeat(16_000));
    let repeated = format!("{}actions=1", "reg0=1,".repeat(9_000));
    let quotes = "\"".repeat(65_001);
    let long_name = "x".repeat(65_000);
    let before = cpu_time();
    for text in [&deep, &commas, &many, &flags, &quotes, &long_name] {
        FlowMod::parse(text, Command::Add, &NoNames).unwrap_err();
    }
    FlowMod::parse(&repeated, Command::Add, &NoNames).unwrap();
    let took = cpu_time() - before;
    assert!(took < std::time::Duration::from_secs(2), "{took:?}");
}

/// What this thread has had of a CPU, whatever else the machine does (proc(5), `schedstat`).
fn cpu_time() -> std::time::Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let nanoseconds = text.split(' ').next().and_then(|number| number.parse().ok());
    std::time::Duration::from_nanos(nanoseconds.unwrap())
}

/// A value for a field as the language writes it, with a mask where one is allowed.
fn field_text() -> impl Strategy<Value = String> {
    (0..FIELDS.len(), any::<u128>(), any::<u128>(), any::<bool>(), 0..5usize).prop_map(
        |(at, value, mask, exact, frag)| {
            let field = &FIELDS[at];
            let mask =
                if exact || !field.maskable { field.bits } else { (mask & field.bits).max(field.bits & 1) };
            let mask = if mask == 0 { field.bits } else { mask };
            let mut value = value & mask;
            let mut text = match field.format {
                Format::Frag => value::FRAGMENTS[frag].0.to_owned(),
                Format::Port => (value % 0xff00).to_string(),
                Format::PacketType => "(1,0x800)".into(),
                _ if field.name == "vlan_vid" => {
                    value |= 0x1000;
                    format!("{value:#x}/{:#x}", mask | 0x1000)
                }
                _ => value::print(field, value, mask, &NoNames),
            };
            if text.is_empty() {
                text = "0".into();
            }
            format!("{}={text}", field.name)
        },
    )
}

fn flow_text() -> impl Strategy<Value = String> {
    let kinds = prop::sample::select(vec![
        "",
        "ip,",
        "ipv6,",
        "tcp,",
        "tcp6,",
        "udp,",
        "udp6,",
        "sctp,",
        "icmp,",
        "icmp6,",
        "arp,",
        "icmp6,icmp_type=135,",
        "icmp6,icmp_type=136,",
        "dl_vlan=5,",
        "ct_state=+trk,ip,",
        "ct_state=+est,ip,ct_nw_proto=17,",
        "priority=7,rarp,",
    ]);
    let actions: Vec<String> =
        CORPUS.lines().filter_map(|l| l.split("actions=").nth(1).map(str::to_owned)).collect();
    (kinds, prop::collection::vec(field_text(), 0..5), prop::sample::select(actions))
        .prop_map(|(kind, fields, actions)| format!("{kind}{} actions={actions}", fields.join(",")))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn random_flows_print_and_read_as_themselves(text in flow_text()) {
        if let Ok(parsed) = FlowMod::parse(&text, Command::Add, &NoNames) {
            let flow = parsed.flow;
            let masked = flow.matching.key.words.iter().zip(&flow.matching.mask.words).all(|(k, m)| k & m == *k);
            prop_assert!(masked);
            let printed = print::flow(&flow, &NoNames);
            match FlowMod::parse(&printed, Command::Add, &NoNames) {
                Ok(again) => prop_assert_eq!(&again.flow, &flow, "{}\n{}", text, printed),
                Err(error) => prop_assert!(false, "{}\n{}\n{}", text, printed, error),
            }
        }
    }

    #[test]
    fn a_single_field_reads_as_what_was_printed(field in field_text()) {
        // Whatever the field needs may be missing; then it must be refused or warned of, never kept.
        if let Ok(parsed) = FlowMod::parse(&format!("{field},actions=drop"), Command::Add, &NoNames) {
            let kept = parsed.flow.matching != Match::ANY;
            prop_assert_eq!(kept, parsed.warnings.is_empty());
        }
    }

    #[test]
    fn nonsense_never_panics(text in "[ -~\\t\u{e4}\u{20ac}]{0,120}") {
        for command in [Command::Add, Command::Delete] {
            if let Err(error) = file::parse_line(&text, command, &NoNames) {
                let _ = render("f", 1, &text, &error.span, &error.to_string());
            }
        }
    }

    #[test]
    fn damaged_flows_never_panic(
        line in prop::sample::select(CORPUS.lines().map(str::to_owned).collect::<Vec<_>>()),
        edits in prop::collection::vec((any::<prop::sample::Index>(), "[-+,:=()\\[\\]./\" a-f0-9xäp]{0,3}", 0usize..4), 1..5),
    ) {
        let mut chars: Vec<char> = line.chars().collect();
        for (at, insert, cut) in edits {
            let at = at.index(chars.len() + 1);
            let to = (at + cut).min(chars.len());
            chars.splice(at..to, insert.chars());
        }
        let text: String = chars.into_iter().collect();
        for command in [Command::Add, Command::Modify, Command::Dump] {
            match file::parse_line(&text, command, &NoNames) {
                Ok(parsed) => {
                    let printed = print::flow(&parsed.flow, &NoNames);
                    let again = FlowMod::parse(&printed, parsed.flow.command, &NoNames);
                    prop_assert_eq!(again.map(|p| p.flow), Ok(parsed.flow), "{}\n{}", text, printed);
                }
                Err(error) => drop(render("f", 1, &text, &error.span, &error.to_string())),
            }
        }
    }
}
