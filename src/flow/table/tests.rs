use proptest::prelude::*;

use super::*;
use crate::flow::port::NoNames;

fn change(command: Command, text: &str) -> FlowMod {
    FlowMod::parse(text, command, &NoNames).unwrap().flow
}

fn add(text: &str) -> FlowMod {
    change(Command::Add, text)
}

fn lines(tables: &FlowTables) -> Vec<String> {
    let all = FlowMod::new(Command::Dump);
    tables.dump(&all).iter().map(|rule| rule.dump_line(None, &NoNames).trim().to_owned()).collect()
}

fn with(flows: &[&str]) -> FlowTables {
    let mut tables = FlowTables::default();
    let flows: Vec<_> = flows.iter().map(|flow| add(flow)).collect();
    tables.apply(&flows, 0).unwrap();
    tables
}

#[test]
fn adding_the_same_match_and_priority_replaces_the_flow_and_its_counters() {
    let mut tables = with(&["ip,actions=1", "ip,priority=5,actions=2"]);
    tables.dump(&FlowMod::new(Command::Dump))[0].stats.add(3, 300, 10);
    tables.apply(&[add("ip,actions=3")], 20).unwrap();
    assert_eq!(lines(&tables), ["ip actions=output:3", "priority=5,ip actions=output:2"]);
    let first = &tables.dump(&FlowMod::new(Command::Dump))[0];
    assert_eq!(
        first.dump_line(Some(1_220), &NoNames),
        " cookie=0x0, duration=1.200s, table=0, n_packets=0, n_bytes=0, ip actions=output:3"
    );
}

#[test]
fn modifying_keeps_counters_cookie_and_age_and_adds_where_nothing_is_found() {
    let mut tables = with(&["cookie=7,tcp,actions=1", "udp,actions=1"]);
    let all = FlowMod::new(Command::Dump);
    tables.dump(&all)[0].stats.add(1, 60, 5);
    let done = tables.apply(&[change(Command::Modify, "ip,actions=2")], 30).unwrap();
    assert_eq!((done.modified, done.added), (2, 0));
    assert!(
        tables.dump(&all)[0]
            .dump_line(Some(1000), &NoNames)
            .starts_with(" cookie=0x7, duration=1.000s, table=0, n_packets=1")
    );
    let done = tables.apply(&[change(Command::ModifyStrict, "ip,actions=4")], 30).unwrap();
    assert_eq!((done.modified, done.added), (0, 1));
    let done = tables.apply(&[change(Command::Modify, "cookie=99/-1,cookie=1,actions=5")], 30).unwrap();
    assert_eq!(done, Applied::default());
}

#[test]
fn deleting_looks_at_match_table_cookie_and_output_port() {
    let flows =
        ["tcp,actions=1", "cookie=3,udp,actions=2", "table=1,ip,actions=normal", "table=1,arp,actions=2,3"];
    for (text, strict, left) in [
        ("ip", false, 1),
        ("ip", true, 3),
        ("table=1", false, 2),
        ("cookie=3/-1", false, 3),
        ("out_port=2", false, 2),
        ("out_port=normal", false, 3),
        ("tcp", true, 3),
        ("", false, 0),
    ] {
        let mut tables = with(&flows);
        let command = if strict { Command::DeleteStrict } else { Command::Delete };
        tables.apply(&[change(command, text)], 0).unwrap();
        assert_eq!((tables.len(), lines(&tables).len()), (left, left), "{text}");
    }
}

#[test]
fn a_list_with_one_refused_change_changes_nothing() {
    let mut tables = with(&["cookie=1,ip,actions=1", "arp,actions=2", "table=2,actions=3"]);
    let before =
        (lines(&tables), tables.generation(), tables.tables().map(|t| (t.0, t.1)).collect::<Vec<_>>());
    let refused = tables.apply(
        &[
            add("ip,actions=9"),
            change(Command::Delete, "table=2"),
            change(Command::Modify, "arp,actions=8"),
            add("tcp,actions=1"),
            add("check_overlap,tcp,tp_src=3,actions=1"),
        ],
        5,
    );
    let error = refused.unwrap_err();
    assert_eq!(error.index, 4);
    assert!(error.to_string().contains("overlaps another of the same priority"), "{error}");
    assert_eq!(before.0, lines(&tables));
    assert_eq!(before.1, tables.generation());
    assert!(tables.tables().map(|t| (t.0, t.1)).zip(before.2).all(|(now, then)| now == then));
}

#[test]
fn only_tables_that_changed_get_a_new_version() {
    let mut tables = with(&["actions=1", "table=1,actions=1", "table=2,actions=1"]);
    let versions = |tables: &FlowTables| tables.tables().map(|(_, version, _)| version).collect::<Vec<_>>();
    let before = versions(&tables);
    tables.apply(&[add("table=1,actions=2")], 0).unwrap();
    let after = versions(&tables);
    assert_eq!((before[0], before[2]), (after[0], after[2]));
    assert_ne!(before[1], after[1]);
    tables.apply(&[change(Command::Delete, "table=9")], 0).unwrap();
    assert_eq!(after, versions(&tables));
}

#[test]
fn a_full_bridge_refuses_new_flows_but_replaces_old_ones() {
    let mut tables = FlowTables::new(2);
    tables.apply(&[add("ip,actions=1"), add("arp,actions=1")], 0).unwrap();
    let error = tables.apply(&[add("ipv6,actions=1")], 0).unwrap_err();
    assert_eq!(error.problem, ApplyProblem::Full { limit: 2 });
    tables.apply(&[add("ip,actions=2")], 0).unwrap();
    assert_eq!(tables.len(), 2);
}

#[test]
fn a_list_that_would_look_at_too_many_flows_is_refused_as_a_whole() {
    let mut tables = with(&["ip,actions=1", "arp,actions=1", "ipv6,actions=1"]);
    tables.max_visits = 10;
    let many = vec![change(Command::Modify, "ip,actions=2"); 4];
    let error = tables.apply(&many, 0).unwrap_err();
    assert_eq!((error.index, error.problem), (3, ApplyProblem::TooMuchWork));
    assert_eq!(lines(&tables)[0], "ip actions=output:1");
    tables.apply(&many[..3], 0).unwrap();
}

#[test]
fn flows_go_when_they_idle_or_their_time_is_over() {
    let mut tables =
        with(&["ip,idle_timeout=10,actions=1", "arp,hard_timeout=15,actions=1", "ipv6,actions=1"]);
    assert!(tables.expire(9_999).is_empty());
    tables.dump(&FlowMod::new(Command::Dump))[0].stats.add(1, 60, 6_000);
    assert!(tables.expire(14_999).is_empty());
    let gone: Vec<_> = tables.expire(15_000).into_iter().map(|(_, why)| why).collect();
    assert_eq!(gone, [Expiry::Hard]);
    let gone: Vec<_> = tables.expire(16_000).into_iter().map(|(_, why)| why).collect();
    assert_eq!(gone, [Expiry::Idle]);
    assert_eq!(lines(&tables), ["ipv6 actions=drop".replace("drop", "output:1")]);
}

#[test]
fn replacing_only_touches_what_differs() {
    let mut tables = with(&["ip,actions=1", "arp,actions=2", "ipv6,cookie=3,actions=1"]);
    let wanted = [add("ip,actions=1"), add("arp,actions=9"), add("arp,actions=3"), add("table=1,actions=4")];
    let changes = tables.replacement(&wanted, false);
    assert_eq!(changes.len(), 3);
    tables.apply(&changes, 0).unwrap();
    assert_eq!(lines(&tables), ["ip actions=output:1", "arp actions=output:3", "table=1, actions=output:4"]);
    assert!(tables.replacement(&wanted, false).is_empty());
    assert_eq!(tables.replacement(&wanted, true).len(), 3);
}

#[test]
fn dumps_are_sorted_as_asked() {
    let tables = with(&[
        "in_port=2,priority=1,actions=drop",
        "in_port=1,priority=3,actions=drop",
        "priority=2,actions=drop",
    ]);
    let mut rules = tables.dump(&FlowMod::new(Command::Dump));
    let priorities = |rules: &[Arc<Rule>]| rules.iter().map(|rule| rule.priority).collect::<Vec<_>>();
    sort(&mut rules, None, false);
    assert_eq!(priorities(&rules), [1, 2, 3]);
    sort(&mut rules, None, true);
    assert_eq!(priorities(&rules), [3, 2, 1]);
    sort(&mut rules, crate::flow::Field::named("in_port"), false);
    assert_eq!(priorities(&rules), [3, 1, 2]);
}

proptest! {
    #[test]
    fn any_sequence_of_changes_agrees_with_a_plain_list(
        steps in prop::collection::vec((0u8..5, 0u8..4, 0u8..3, 0u16..3), 0..60)
    ) {
        let mut tables = FlowTables::default();
        let mut plain: Vec<(u8, u16, u8, u16)> = Vec::new();
        for (what, proto, table, priority) in steps {
            let matching = ["", "ip,", "tcp,", "arp,"][usize::from(proto)];
            let within = |inner: u8| proto == 0 || inner == proto || (proto == 1 && inner == 2);
            let text = format!("{matching}table={table},priority={priority},actions={what}");
            let found = |p: &(u8, u16, u8, u16)| (p.0, p.1, p.2) == (table, priority, proto);
            let select = text.split(",actions").next().unwrap();
            match what {
                0 | 1 => {
                    plain.retain(|p| !found(p));
                    plain.push((table, priority, proto, what.into()));
                    tables.apply(&[add(&text)], 0).unwrap();
                }
                2 => {
                    plain.retain(|p| !found(p));
                    tables.apply(&[change(Command::DeleteStrict, select)], 0).unwrap();
                }
                3 => {
                    plain.retain(|p| !(p.0 == table && within(p.2)));
                    tables.apply(&[change(Command::Delete, &format!("{matching}table={table}"))], 0).unwrap();
                }
                _ => {
                    // A list that is refused.
                    let mut list = vec![change(Command::Delete, ""), add(&text)];
                    list.push(FlowMod::new(Command::Dump));
                    tables.apply(&list, 0).unwrap_err();
                }
            }
            prop_assert_eq!(tables.len(), plain.len());
            for (table, priority, proto, what) in &plain {
                let matching = ["", "ip,", "tcp,", "arp,"][usize::from(*proto)];
                let flow = add(&format!("{matching}actions={what}"));
                let t = &tables.tables[table];
                let at = t.find(&tables.hasher, *priority, &flow.matching);
                prop_assert!(at.is_some_and(|at| *t.rules[at].actions == *flow.actions));
            }
        }
    }
}
