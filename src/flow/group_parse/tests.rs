use super::*;
use crate::flow::NoNames;
use crate::flow::group;

fn parse(text: &str, command: GroupCommand) -> Result<ParsedGroup, Error> {
    GroupMod::parse(text, command, &NoNames)
}

/// What `text` is read as, which has to be readable again.
fn read(text: &str, command: GroupCommand) -> String {
    let change = parse(text, command).unwrap_or_else(|error| panic!("{text}: {error}")).change;
    let printed = group::text(&change, &NoNames);
    assert_eq!(parse(&printed, command).unwrap().change, change, "{text} became {printed}");
    printed
}

#[test]
fn groups_are_read_as_people_write_them() {
    // One a line: what is written, and its canonical text.
    let corpus = include_str!("../testdata/groups.txt");
    for line in corpus.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (written, canonical) = line.split_once(" => ").unwrap_or((line, line));
        let (command, written) = match GroupCommand::NAMES
            .iter()
            .find_map(|(word, command)| Some((*command, written.strip_prefix(word)?.strip_prefix(' ')?)))
        {
            Some(found) => found,
            None => (GroupCommand::Add, written),
        };
        let canonical = canonical
            .split_once(' ')
            .filter(|(word, _)| GroupCommand::NAMES.iter().any(|(name, _)| name == word))
            .map_or(canonical, |(_, rest)| rest);
        assert_eq!(read(written, command), canonical, "{line}");
    }
}

#[test]
fn mistakes_are_shown_where_they_are() {
    use GroupCommand::{Add, Delete, InsertBuckets, RemoveBuckets};
    let mut wrong = Vec::new();
    let indirect = "an indirect group has exactly one bucket";
    for (command, text, at, message) in [
        (
            Add,
            "group_id=1,type=xyz,bucket=1",
            16,
            "type needs all, select, indirect, ff or fast_failover, not 'xyz'",
        ),
        (Add, "type=all,bucket=1", 17, "expected group_id=... in front of the buckets"),
        (Add, "bucket=1,group_id=3,type=all", 9, "this belongs in front of the first bucket"),
        (Add, "group_id=1,bucket=1", 19, "expected type=all, select, indirect or ff"),
        (
            Add,
            "group_id=4294967041,type=all",
            9,
            "4294967041 is too large for a group; the largest is 4294967040",
        ),
        (Add, "group_id=all,type=all", 9, "all groups at once can only be deleted"),
        (Add, "group_id=1,type=all,bucket=", 27, "a bucket needs actions; give drop to drop the packet"),
        (Add, "group_id=1,type=all,bucket=weight:3,1", 27, "only buckets of select groups have weights"),
        (
            Add,
            "group_id=1,type=select,bucket=weight:70000,1",
            37,
            "70000 is too large for weight; the largest is 65535",
        ),
        (Add, "group_id=1,type=indirect", 24, indirect),
        (Add, "group_id=1,type=indirect,bucket=1,bucket=2", 42, indirect),
        (
            Add,
            "group_id=1,type=ff,bucket=1",
            26,
            "a bucket of a fast failover group needs watch_port or watch_group",
        ),
        (
            Add,
            "group_id=1,type=all,bucket=bucket_id:3,1,bucket=bucket_id:3,2",
            58,
            "'bucket_id 3' is given twice",
        ),
        (
            Add,
            "group_id=1,type=all,tpye=3,bucket=1",
            20,
            "unknown word 'tpye' in a group; did you mean 'type'?",
        ),
        (Add, "group_id=1,type=all,type=all,bucket=1", 20, "'type' is given twice"),
        (
            Add,
            "group_id=1,type=all,bucket=push:reg0,1",
            27,
            "'push' has no place in a bucket, which is a set of actions; put it in a table and resubmit there",
        ),
        (
            Add,
            "group_id=1,type=all,bucket=goto_table:1",
            27,
            "'goto_table' has no place in a bucket, which is a set of actions; put it in a table and resubmit there",
        ),
        (Add, "group_id=1,type=all,bucket=drop,1", 27, "drop stands alone: no other action goes with it"),
        (
            Add,
            "group_id=1,type=all,bucket=ct(commit,nat(dst=10.0.0.300))",
            45,
            "nat needs an IPv4 address like 10.0.0.1, not '10.0.0.300'",
        ),
        (
            Add,
            "group_id=1,type=all,selection_method=hash,bucket=1",
            20,
            "selection_method is for select groups only",
        ),
        (
            Add,
            "group_id=1,type=select,selection_method=foo,bucket=1",
            40,
            "selection_method needs dp_hash or hash, not 'foo'",
        ),
        (
            Add,
            "group_id=1,type=select,selection_method_param=3,bucket=1",
            23,
            "selection_method_param needs selection_method",
        ),
        (
            Add,
            "group_id=1,type=select,selection_method=dp_hash,fields(ip_src),bucket=1",
            48,
            "fields needs selection_method=hash",
        ),
        (
            Add,
            "group_id=1,type=select,selection_method=hash,fields(ip_scr),bucket=1",
            52,
            "unknown field 'ip_scr'; did you mean 'ip_src'?",
        ),
        (
            Add,
            "group_id=1,type=select,selection_method=hash,fields(ip_src=1.2.3.4/8),bucket=1",
            59,
            "the value is the mask; a mask has no mask",
        ),
        (
            Add,
            "group_id=1,type=select,selection_method=hash,fields(tcp_dst=0),bucket=1",
            60,
            "the mask is 0, so that nothing would be hashed",
        ),
        (
            Add,
            "group_id=1,command_bucket_id=3,type=all",
            11,
            "command_bucket_id is for insert-buckets and remove-buckets",
        ),
        (Add, "group_id=1,type=all,bucket=ct(commit", 29, "'(' is never closed"),
        (Delete, "group_id=1,type=all", 11, "only a group to add or modify has a type; leave it out"),
        (Delete, "group_id=1,bucket=1", 19, "buckets are for adding; leave them out"),
        (
            InsertBuckets,
            "group_id=1,bucket=1",
            19,
            "expected command_bucket_id=first, last or the number of a bucket",
        ),
        (
            InsertBuckets,
            "group_id=1,command_bucket_id=all,bucket=1",
            29,
            "expected first, last or the number of a bucket",
        ),
        (
            InsertBuckets,
            "group_id=1,command_bucket_id=last",
            33,
            "expected at least one bucket=... to insert",
        ),
        (RemoveBuckets, "command_bucket_id=last", 22, "expected group_id=... in front of the buckets"),
    ] {
        let error = parse(text, command).expect_err(text);
        let found = (error.to_string(), error.span.start);
        if found != (message.to_owned(), at) {
            wrong.push(format!("{text}: {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let many = format!("group_id=1,type=all{}", ",bucket=1".repeat(MAX_BUCKETS + 1));
    assert_eq!(parse(&many, Add).unwrap_err().to_string(), "a group has at most 256 buckets");
    let long = format!("group_id=1,type=all,bucket={}", "1,".repeat(40_000));
    assert!(parse(&long, Add).unwrap_err().to_string().contains("the limit is 65536"));
}

#[test]
fn what_a_set_of_actions_swallows_is_said() {
    let warned = |bucket: &str| {
        let parsed = parse(&format!("group_id=1,type=all,bucket={bucket}"), GroupCommand::Add).unwrap();
        parsed.warnings.iter().map(|(span, _)| span.clone()).collect::<Vec<_>>()
    };
    assert!(warned("mod_nw_src:1.1.1.1,mod_nw_dst:2.2.2.2,push_vlan:0x8100,output:2").is_empty());
    assert_eq!(warned("output:2,output:3"), [27..35]);
    assert_eq!(warned("output:2,resubmit(,3)"), [36..48]);
    assert_eq!(warned("resubmit(,3),output:2"), [27..39]);
}

#[test]
fn a_file_has_a_group_a_line_and_says_where_it_is_wrong() {
    let text = "# two\ngroup_id=1,type=all,bucket=1 # one\n\ngroup add_or_mod group_id=2,type=all,bucket=2,3\ndelete\n";
    let file = GroupFile::parse("g", text.as_bytes(), GroupCommand::Add, &NoNames).unwrap();
    let commands: Vec<_> = file.changes.iter().map(|change| change.command).collect();
    assert_eq!(commands, [GroupCommand::Add, GroupCommand::AddOrModify, GroupCommand::Delete]);
    assert_eq!((file.changes[2].id, file.warnings.len()), (None, 1));
    assert!(
        file.warnings[0].starts_with("g:4:45: only the last of this kind counts"),
        "{}",
        file.warnings[0]
    );
    let wrong = GroupFile::parse("g", b"\ngroup_id=1,type=al,bucket=1", GroupCommand::Add, &NoNames);
    let shown = wrong.unwrap_err().to_string();
    assert!(shown.starts_with("g:2:17: type needs"), "{shown}");
    assert!(GroupFile::parse("g", b"\xff", GroupCommand::Add, &NoNames).is_err());
}
