use super::*;
use crate::flow::table::ApplyProblem;
use crate::flow::{Command, FlowFile, FlowMod, FlowTables, GroupFile, NoNames};

fn changes(text: &str) -> Vec<GroupMod> {
    GroupFile::parse("g", text.as_bytes(), GroupCommand::Add, &NoNames).unwrap().changes
}

fn tables(groups: &str) -> FlowTables {
    let mut tables = FlowTables::new(100);
    tables.apply_groups(&changes(groups), 0).unwrap();
    tables
}

fn flows(text: &str) -> Vec<FlowMod> {
    FlowFile::parse("f", text.as_bytes(), Command::Add, &NoNames).unwrap().flows
}

fn dump(tables: &FlowTables) -> Vec<String> {
    tables.groups().iter().map(|entry| entry.dump_line(&NoNames)).collect()
}

#[test]
fn buckets_without_a_number_get_the_lowest_free_ones() {
    let tables = tables("group_id=1,type=all,bucket=bucket_id:1,1,bucket=2,bucket=bucket_id:0,3,bucket=4");
    assert_eq!(
        dump(&tables),
        [" group_id=1,type=all,bucket=bucket_id:1,actions=output:1,bucket=bucket_id:2,actions=output:2,\
          bucket=bucket_id:0,actions=output:3,bucket=bucket_id:3,actions=output:4"]
    );
}

#[test]
fn buckets_are_inserted_and_removed_where_it_is_said() {
    let mut tables = tables("group_id=1,type=select,bucket=1");
    let numbers = |tables: &FlowTables| {
        let buckets = &tables.groups().find(1).unwrap().group.buckets;
        buckets.iter().map(|bucket| bucket.id.unwrap()).collect::<Vec<_>>()
    };
    let mut change = |text: &str| {
        let result = tables.apply_groups(&changes(text), 0).map_err(|error| error.problem);
        (result.err(), numbers(&tables))
    };
    let insert =
        |place: &str, bucket| format!("insert_bucket group_id=1,command_bucket_id={place},bucket={bucket}");
    assert_eq!(change(&insert("last", "2")), (None, vec![0, 1]));
    assert_eq!(change(&insert("first", "bucket_id:9,3")), (None, vec![9, 0, 1]));
    assert_eq!(change(&insert("0", "bucket_id:10,3")), (None, vec![9, 10, 0, 1]));
    let unknown = GroupProblem::UnknownBucket { group: 1, bucket: 99 };
    assert_eq!(change(&insert("99", "3")), (Some(unknown.clone()), vec![9, 10, 0, 1]));
    let exists = GroupProblem::BucketExists { group: 1, bucket: 9 };
    assert_eq!(change(&insert("last", "bucket_id:9,3")), (Some(exists), vec![9, 10, 0, 1]));
    let remove = |place: &str| format!("remove_bucket group_id=1,command_bucket_id={place}");
    assert_eq!(change(&remove("first")), (None, vec![10, 0, 1]));
    assert_eq!(change(&remove("last")), (None, vec![10, 0]));
    assert_eq!(change(&remove("99")), (Some(unknown), vec![10, 0]));
    assert_eq!(change(&remove("10")), (None, vec![0]));
    assert_eq!(change("remove_bucket group_id=1"), (None, vec![]));
    assert_eq!(change(&remove("first")), (None, vec![]));
    assert_eq!(
        change("insert_bucket group_id=7,command_bucket_id=last,bucket=1").0,
        Some(GroupProblem::Unknown { id: 7 })
    );
}

#[test]
fn a_list_of_changes_is_made_whole_or_not_at_all() {
    let mut tables = tables("group_id=1,type=all,bucket=1\ngroup_id=2,type=all,bucket=group:1");
    tables.apply(&flows("actions=group:2\ntable=1,actions=group:1,2"), 0).unwrap();
    let (before, version) = (dump(&tables), tables.groups().version());
    for (text, index, problem) in [
        ("delete\ngroup_id=1,type=all,bucket=2\ngroup_id=1,type=all", 2, GroupProblem::Exists { id: 1 }),
        (
            "modify group_id=1,type=all,bucket=3\nmodify group_id=9,type=all",
            1,
            GroupProblem::Unknown { id: 9 },
        ),
        (
            "group_id=3,type=all\nmodify group_id=1,type=all,bucket=group:2",
            1,
            GroupProblem::Loop { id: 1, through: 2 },
        ),
        ("group_id=4,type=all,bucket=group:4", 0, GroupProblem::Loop { id: 4, through: 4 }),
        (
            "group_id=5,type=indirect,bucket=1\nremove_bucket group_id=5",
            1,
            GroupProblem::NotIndirect { id: 5 },
        ),
        (
            "group_id=6,type=ff\ninsert_bucket group_id=6,command_bucket_id=last,bucket=1",
            1,
            GroupProblem::NothingWatched { id: 6 },
        ),
    ] {
        let error = tables.apply_groups(&changes(text), 0).unwrap_err();
        assert_eq!(error, GroupError { index, problem }, "{text}");
        assert_eq!((dump(&tables), tables.len()), (before.clone(), 2), "{text}");
        assert_eq!(tables.groups().version(), version);
    }
}

#[test]
fn chains_of_groups_have_an_end() {
    let last = MAX_CHAIN + 1;
    let mut text: String = format!("group_id={last},type=all,bucket=1\n");
    for id in (1..last).rev() {
        text.push_str(&format!("group_id={id},type=all,bucket=group:{}\n", id + 1));
    }
    let mut tables = tables(&text);
    let error = tables.apply_groups(&changes("group_id=100,type=all,bucket=group:1"), 0).unwrap_err();
    assert_eq!(error.problem, GroupProblem::TooDeep { id: 100 });
}

#[test]
fn a_modified_group_keeps_its_counters_and_those_of_the_buckets_that_stay() {
    let mut tables = tables("group_id=1,type=all,bucket=1,bucket=2");
    let entry = Arc::clone(tables.groups().find(1).unwrap());
    entry.stats.add(7, 70, 1);
    entry.bucket_stats[1].add(3, 30, 1);
    tables.apply_groups(&changes("modify group_id=1,type=all,bucket=bucket_id:1,2,bucket=3"), 500).unwrap();
    let entry = tables.groups().find(1).unwrap();
    let packets = |stats: &RuleStats| stats.packets.load(std::sync::atomic::Ordering::Relaxed);
    let buckets: Vec<_> = entry.bucket_stats.iter().map(|stats| packets(stats)).collect();
    assert_eq!((packets(&entry.stats), buckets, entry.created_ms), (7, vec![3, 0], 0));
}

#[test]
fn flows_go_with_the_group_that_they_name() {
    let mut tables = tables("group_id=1,type=all,bucket=1\ngroup_id=2,type=all,bucket=2");
    let text = "priority=1,actions=group:1\npriority=2,actions=3,group:2,group:2\ntable=3,actions=4";
    tables.apply(&flows(text), 0).unwrap();
    assert_eq!(tables.group_references(), [(1, 1), (2, 1)].into());
    let selected = |tables: &FlowTables, text: &str| {
        tables.dump(&FlowMod::parse(text, Command::Dump, &NoNames).unwrap().flow).len()
    };
    assert_eq!((selected(&tables, "out_group=2"), selected(&tables, "out_group=9")), (1, 0));
    // Deleted and added again all the same.
    assert_eq!(tables.apply_groups(&changes("delete group_id=2\ngroup_id=2,type=all,bucket=2"), 0), Ok(1));
    assert_eq!((tables.len(), selected(&tables, "out_group=2")), (2, 0));
    assert_eq!(tables.apply_groups(&changes("modify group_id=1,type=all,bucket=5"), 0), Ok(0));
    assert_eq!(tables.apply_groups(&changes("delete group_id=77"), 0), Ok(0));
    assert_eq!(tables.apply_groups(&changes("delete"), 0), Ok(1));
    assert_eq!((tables.len(), tables.groups().iter().count()), (1, 0));
}

#[test]
fn a_flow_that_names_a_missing_group_is_refused() {
    let mut tables = tables("group_id=1,type=all,bucket=1");
    for text in
        ["actions=group:1\npriority=1,actions=2,group:9", "priority=5,actions=1\nmodify actions=group:9"]
    {
        let error = tables.apply(&flows(text), 0).unwrap_err();
        assert_eq!((error.index, error.problem), (1, ApplyProblem::NoSuchGroup { group: 9 }));
        assert!(tables.is_empty());
    }
}
