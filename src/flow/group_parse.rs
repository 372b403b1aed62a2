//! Reads groups and files of groups (ovs-ofctl(8), "Group Syntax"). A bucket's actions may use any field: which packets
//! will come is not known, and an action that does not fit a packet does nothing to it.

use super::action::Action;
use super::action_parse::{Context, Reader};
use super::error::{Error, Problem, render};
use super::field::Field;
use super::file::{FileError, behind_word, lines, shortened};
use super::flow::MAX_LINE;
use super::group::{
    Bucket, GroupCommand, GroupMod, GroupType, MAX_BUCKET, MAX_BUCKETS, MAX_GROUP, Place, Rank, Selection,
    rank,
};
use super::lexer::{Item, Items, Span, Text};
use super::port::PortNames;
use super::{nearest, value};

/// Words in front of the buckets.
const WORDS: [&str; 7] = [
    "group_id",
    "type",
    "command_bucket_id",
    "selection_method",
    "selection_method_param",
    "fields",
    "bucket",
];

/// A group and what is odd about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsedGroup {
    pub change: GroupMod,
    /// Each with its place in the line.
    pub warnings: Vec<(Span, &'static str)>,
}

/// The groups of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupFile {
    pub changes: Vec<GroupMod>,
    /// Ready to be shown.
    pub warnings: Vec<String>,
}

/// Groups in a file.
pub const MAX_GROUPS: usize = 65_536;
const SHADOWED: &str = "only the last of this kind counts: a bucket is a set of actions (ovs-actions(7))";

impl GroupMod {
    /// Reads a group.
    ///
    /// # Errors
    /// With the place of the mistake.
    pub fn parse(text: &str, command: GroupCommand, ports: &dyn PortNames) -> Result<ParsedGroup, Error> {
        parse_text(Text::line(text), command, ports)
    }
}

impl GroupFile {
    /// Reads a file with a group a line, which means `default` unless the line says otherwise.
    ///
    /// # Errors
    /// At the first mistake.
    pub fn parse(
        source_name: &str,
        bytes: &[u8],
        default: GroupCommand,
        ports: &dyn PortNames,
    ) -> Result<Self, FileError> {
        let mut file = Self::default();
        for line in lines(source_name, bytes) {
            let (number, line) = line?;
            let group = line.split('#').next().unwrap_or_default();
            if group.trim().is_empty() {
                continue;
            }
            let name = || source_name.to_owned();
            if file.changes.len() >= MAX_GROUPS {
                return Err(FileError::TooManyGroups { source_name: name(), line: number });
            }
            let parsed = parse_line(group, default, ports).map_err(|error| FileError::Flow {
                source_name: name(),
                line: number,
                text: shortened(line),
                error: Box::new(error),
            })?;
            let room = super::file::MAX_WARNINGS.saturating_sub(file.warnings.len());
            let warnings = parsed.warnings.iter().take(room);
            file.warnings.extend(warnings.map(|(span, text)| render(source_name, number, line, span, text)));
            file.changes.push(parsed.change);
        }
        Ok(file)
    }
}

/// Reads one group with or without a word in front that says what to do with it.
fn parse_line(line: &str, default: GroupCommand, ports: &dyn PortNames) -> Result<ParsedGroup, Error> {
    let text = Text::line(line).trim();
    let rest = behind_word(text, "group").unwrap_or(text);
    let named = GroupCommand::NAMES.iter().find_map(|(word, c)| Some((*c, behind_word(rest, word)?)));
    let (command, rest) = named.unwrap_or((default, rest));
    parse_text(rest, command, ports)
}

fn parse_text(text: Text<'_>, command: GroupCommand, ports: &dyn PortNames) -> Result<ParsedGroup, Error> {
    if text.text.len() > MAX_LINE {
        return Err(text.slice(0, 1).error(Problem::LineTooLong { length: text.text.len() }));
    }
    let mut parser = Parser {
        command,
        id: None,
        kind: None,
        place: None,
        method: None,
        param: None,
        fields: None,
        buckets: Vec::new(),
        warnings: Vec::new(),
        ports,
    };
    let pieces = split(text)?;
    let Some((head, buckets)) = pieces.split_first() else { return Err(text.error(needs("group_id=..."))) };
    for item in Items::new(*head) {
        parser.item(&item?)?;
    }
    for bucket in buckets {
        parser.bucket(*bucket)?;
    }
    parser.finish(text.trim())
}

/// What stands in front of the first `bucket=`, and each bucket.
fn split(text: Text<'_>) -> Result<Vec<Text<'_>>, Error> {
    let mut starts = Vec::new();
    for item in Items::new(text) {
        let item = item?;
        if matches!(item.key.text, "bucket" | "buckets") {
            starts.push((item.key.at - text.at, item.value.at - text.at));
            // `bucket=weight:1` and `bucket=actions=...`: the value is lexed again, with what follows.
        }
    }
    let mut pieces = vec![text.slice(0, starts.first().map_or(text.text.len(), |(key, _)| *key))];
    for (index, (_, from)) in starts.iter().enumerate() {
        let to = starts.get(index + 1).map_or(text.text.len(), |(key, _)| *key);
        pieces.push(text.slice(*from, to));
    }
    Ok(pieces)
}

fn needs(expected: &str) -> Problem {
    Problem::Expected { expected: expected.into() }
}

/// How a select group is to choose.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Method {
    DpHash,
    Hash,
}

struct Parser<'a> {
    command: GroupCommand,
    /// The inner `None` is all groups.
    id: Option<Option<u32>>,
    kind: Option<GroupType>,
    place: Option<Place>,
    method: Option<(Text<'a>, Method)>,
    param: Option<(Text<'a>, u64)>,
    fields: Option<(Text<'a>, Vec<(&'static Field, u128)>)>,
    buckets: Vec<Bucket>,
    warnings: Vec<(Span, &'static str)>,
    ports: &'a dyn PortNames,
}

impl<'a> Parser<'a> {
    fn item(&mut self, item: &Item<'a>) -> Result<(), Error> {
        let key = item.key;
        let twice = |given: bool| {
            if given { Err(key.error(Problem::Twice { key: key.text.to_owned() })) } else { Ok(()) }
        };
        match key.text {
            "group_id" => {
                twice(self.id.is_some())?;
                let text = item.needed_value()?;
                let all = text.text.eq_ignore_ascii_case("all");
                if all && self.command != GroupCommand::Delete {
                    return Err(text.error(Problem::Other("all groups at once can only be deleted")));
                }
                self.id = Some(if all { None } else { Some(value::small("a group", text, MAX_GROUP)?) });
            }
            "type" => {
                twice(self.kind.is_some())?;
                if !self.command.defines() {
                    let problem = "only a group to add or modify has a type; leave it out";
                    return Err(key.error(Problem::Other(problem)));
                }
                self.kind = Some(kind(item.needed_value()?)?);
            }
            "command_bucket_id" => {
                twice(self.place.is_some())?;
                let inserts = self.command == GroupCommand::InsertBuckets;
                if !inserts && self.command != GroupCommand::RemoveBuckets {
                    let problem = "command_bucket_id is for insert-buckets and remove-buckets";
                    return Err(key.error(Problem::Other(problem)));
                }
                let text = item.needed_value()?;
                self.place = Some(match text.text {
                    "all" if inserts => {
                        return Err(text.error(needs("first, last or the number of a bucket")));
                    }
                    "all" => Place::All,
                    "first" => Place::First,
                    "last" => Place::Last,
                    _ => Place::Bucket(value::small("a bucket", text, MAX_BUCKET)?),
                });
            }
            "selection_method" => {
                twice(self.method.is_some())?;
                let text = item.needed_value()?;
                let method = match text.text {
                    "dp_hash" => Method::DpHash,
                    "hash" => Method::Hash,
                    found => {
                        return Err(text.error(Problem::BadValue {
                            what: "selection_method".into(),
                            found: found.into(),
                            expected: "dp_hash or hash".into(),
                        }));
                    }
                };
                self.method = Some((key, method));
            }
            "selection_method_param" => {
                twice(self.param.is_some())?;
                self.param =
                    Some((key, value::small("selection_method_param", item.needed_value()?, u64::MAX)?));
            }
            "fields" => {
                twice(self.fields.is_some())?;
                self.fields = Some((key, fields(item.needed_value()?)?));
            }
            name => {
                let near = nearest(name, WORDS);
                return Err(key.error(Problem::UnknownGroupWord { name: name.to_owned(), near }));
            }
        }
        Ok(())
    }

    fn bucket(&mut self, text: Text<'a>) -> Result<(), Error> {
        let text = text.trim();
        if self.buckets.len() >= MAX_BUCKETS {
            return Err(text.error(Problem::TooManyBuckets));
        }
        let mut bucket =
            Bucket { id: None, weight: 1, watch_port: None, watch_group: None, actions: Vec::new() };
        let mut reader = Reader::new(Context::any(), self.ports);
        let mut items = Items::new(text);
        let (mut spans, mut dropped): (Vec<(Rank, Span)>, Option<Span>) = (Vec::new(), None);
        while let Some(item) = items.next() {
            let item = item?;
            match item.key.text {
                "bucket_id" => {
                    let text = item.needed_value()?;
                    let id = value::small("a bucket", text, MAX_BUCKET)?;
                    if self.buckets.iter().any(|other| other.id == Some(id)) {
                        return Err(text.error(Problem::Twice { key: format!("bucket_id {id}") }));
                    }
                    bucket.id = Some(id);
                }
                "weight" => {
                    if self.kind.is_some_and(|kind| kind != GroupType::Select) {
                        let problem = "only buckets of select groups have weights";
                        return Err(item.key.error(Problem::Other(problem)));
                    }
                    bucket.weight = value::small("weight", item.needed_value()?, u16::MAX)?;
                }
                "watch_port" => {
                    bucket.watch_port = Some(value::port(item.needed_value()?, self.ports)?);
                }
                "watch_group" => {
                    bucket.watch_group = Some(value::small("a group", item.needed_value()?, MAX_GROUP)?);
                }
                // What follows is read as if the word were not there: its first action, and the others.
                "actions" | "action" => {
                    items = Items::new(text.slice(item.value.at - text.at, text.text.len()))
                }
                "drop" => {
                    item.no_value()?;
                    dropped = Some(item.span());
                }
                word if WORDS.contains(&word) => {
                    return Err(item.key.error(Problem::Other("this belongs in front of the first bucket")));
                }
                _ => {
                    let action = reader.action(&item)?;
                    self.admit(&action, &item, &mut spans)?;
                    bucket.actions.push(action);
                }
            }
        }
        match dropped {
            Some(span) if !bucket.actions.is_empty() => {
                return Err(Error { problem: Problem::DropNotAlone, span });
            }
            None if bucket.actions.is_empty() => {
                return Err(
                    text.error(Problem::Other("a bucket needs actions; give drop to drop the packet"))
                );
            }
            _ => {}
        }
        let watches = bucket.watch_port.is_some() || bucket.watch_group.is_some();
        if self.kind == Some(GroupType::FastFailover) && !watches {
            let problem = "a bucket of a fast failover group needs watch_port or watch_group";
            return Err(text.error(Problem::Other(problem)));
        }
        self.buckets.push(bucket);
        Ok(())
    }

    /// Refuses what an action set has no place for, and warns of what it makes meaningless.
    fn admit(
        &mut self,
        action: &Action,
        item: &Item<'_>,
        before: &mut Vec<(Rank, Span)>,
    ) -> Result<(), Error> {
        let own = rank(action);
        if own == Rank::None {
            let name = item.key.text.to_owned();
            return Err(Error { problem: Problem::NotInBucket { name }, span: item.span() });
        }
        let alone = |other: Rank| other == own && own != Rank::Set || other.ends() && own.ends();
        if let Some((other, span)) = before.iter().find(|(other, _)| alone(*other)) {
            // The one that is done: the last of its kind, the kind that comes first.
            let lost = if own <= *other { span.clone() } else { item.span() };
            self.warnings.push((lost, SHADOWED));
        }
        before.push((own, item.span()));
        Ok(())
    }

    fn finish(self, text: Text<'a>) -> Result<ParsedGroup, Error> {
        let end = Text { text: "", at: text.end().start };
        let id = match self.id {
            Some(id) => id,
            None if self.command == GroupCommand::Delete => None,
            None => return Err(end.error(needs("group_id=... in front of the buckets"))),
        };
        let kind = match (self.command.defines(), self.kind) {
            (true, None) => return Err(end.error(needs("type=all, select, indirect or ff"))),
            (_, kind) => kind.unwrap_or(GroupType::All),
        };
        let place = match (self.command, self.place) {
            (GroupCommand::InsertBuckets, None) => {
                return Err(end.error(needs("command_bucket_id=first, last or the number of a bucket")));
            }
            (_, place) => place.unwrap_or(Place::All),
        };
        let takes = self.command.defines() || self.command == GroupCommand::InsertBuckets;
        if !takes && !self.buckets.is_empty() {
            return Err(end.error(Problem::Other("buckets are for adding; leave them out")));
        }
        if self.command == GroupCommand::InsertBuckets && self.buckets.is_empty() {
            return Err(end.error(needs("at least one bucket=... to insert")));
        }
        if kind == GroupType::Indirect && self.buckets.len() != 1 {
            return Err(end.error(Problem::Other("an indirect group has exactly one bucket")));
        }
        let selection = self.selection(kind)?;
        let change = GroupMod { command: self.command, id, kind, selection, place, buckets: self.buckets };
        Ok(ParsedGroup { change, warnings: self.warnings })
    }

    fn selection(&self, kind: GroupType) -> Result<Selection, Error> {
        let select = self.command.defines() && kind == GroupType::Select;
        if let Some((key, _)) = self.method.filter(|_| !select) {
            return Err(key.error(Problem::Other("selection_method is for select groups only")));
        }
        let prerequisite = |key: Text<'_>, needs: &str| {
            Err(key.error(Problem::Prerequisite { what: key.text.into(), needs: needs.into() }))
        };
        let method = self.method.map(|(_, method)| method);
        if let (Some((key, _)), None) = (self.param, method) {
            return prerequisite(key, "selection_method");
        }
        if let Some((key, _)) = self.fields.as_ref().filter(|_| method != Some(Method::Hash)) {
            return prerequisite(*key, "selection_method=hash");
        }
        let param = self.param.map_or(0, |(_, param)| param);
        Ok(match method {
            None => Selection::Default,
            // The high half is the algorithm: 0 and 1 are hashes of the 5-tuple (ovs-ofctl(8)).
            Some(Method::DpHash) if param >> 33 != 0 => {
                let key = self.param.map_or(Text::line(""), |(key, _)| key);
                return Err(key.error(Problem::Other(
                    "the upper 32 bits of selection_method_param name the hash of dp_hash: 0 or 1",
                )));
            }
            Some(Method::DpHash) => Selection::DpHash { param },
            Some(Method::Hash) => {
                let fields = self.fields.as_ref().map(|(_, fields)| fields.clone()).unwrap_or_default();
                Selection::Hash { param, fields }
            }
        })
    }
}

fn kind(text: Text<'_>) -> Result<GroupType, Error> {
    let known = GroupType::NAMES.iter().find(|(name, _)| *name == text.text);
    known.map(|(_, kind)| *kind).ok_or_else(|| {
        let expected = "all, select, indirect, ff or fast_failover".into();
        text.error(Problem::BadValue { what: "type".into(), found: text.text.into(), expected })
    })
}

/// `field` or `field=mask`, in the order of the table of fields whatever the order they are given in.
fn fields(text: Text<'_>) -> Result<Vec<(&'static Field, u128)>, Error> {
    let mut found: Vec<(&'static Field, u128)> = Vec::new();
    for item in Items::new(text) {
        let item = item?;
        let key = item.key;
        let field = Field::for_match(key.text).ok_or_else(|| {
            let known = super::field::FIELDS.iter().flat_map(Field::names);
            key.error(Problem::UnknownField { name: key.text.into(), near: nearest(key.text, known) })
        })?;
        if found.iter().any(|(other, _)| *other == field) {
            return Err(key.error(Problem::Twice { key: key.text.into() }));
        }
        let mask = if item.value.text.is_empty() {
            item.no_value()?;
            field.bits
        } else {
            if item.value.text.contains('/') {
                return Err(item.value.error(Problem::Other("the value is the mask; a mask has no mask")));
            }
            value::parse(field, item.value, &super::port::NoNames)?.0
        };
        if mask == 0 {
            return Err(item.value.error(Problem::Other("the mask is 0, so that nothing would be hashed")));
        }
        found.push((field, mask));
    }
    let place = |field: &'static Field| super::field::FIELDS.iter().position(|known| known == field);
    found.sort_by_key(|(field, _)| place(field));
    Ok(found)
}

#[cfg(test)]
mod tests;
