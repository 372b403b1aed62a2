//! The words that choose connections in `weir ct`, as a table from which parsing and help are made.

use std::fmt::Write;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use weir_shard::Helper;

use crate::control::commands::CommandError;
use crate::control::commands::selection::{masked, number};
use crate::control::filter::{ConnectionFilter, Prefix, Translation, TupleFilter, state_names};
use crate::flow::nearest;

/// One word.
struct Criterion {
    name: &'static str,
    value: &'static str,
    help: &'static str,
    /// Takes the value; false if it is none.
    set: fn(&mut ConnectionFilter, &str) -> bool,
}

const fn criterion(
    name: &'static str,
    value: &'static str,
    help: &'static str,
    set: fn(&mut ConnectionFilter, &str) -> bool,
) -> Criterion {
    Criterion { name, value, help, set }
}

#[rustfmt::skip]
const CRITERIA: &[Criterion] = &[
    criterion("zone", "N", "in this zone, 0 to 65535", |f, v| put(&mut f.zone, number(v))),
    criterion("mark", "V[/MASK]", "with this ct_mark", |f, v| put(&mut f.mark, masked(v))),
    criterion("label", "V[/MASK]", "with this ct_label", |f, v| put(&mut f.labels, masked(v))),
    criterion("protocol", "NAME|N", "tcp, udp, icmp, icmpv6, sctp, or a number", |f, v| put(&mut f.original.protocol, protocol(v))),
    criterion("src", "ADDRESS[/LENGTH]", "from there, as who opened the connection sees it", |f, v| put(&mut f.original.src, prefix(v))),
    criterion("dst", "ADDRESS[/LENGTH]", "to there, as who opened it sees it", |f, v| put(&mut f.original.dst, prefix(v))),
    criterion("sport", "PORT[-PORT]", "from this port", |f, v| put(&mut f.original.tp_src, ports(v))),
    criterion("dport", "PORT[-PORT]", "to this port", |f, v| put(&mut f.original.tp_dst, ports(v))),
    criterion("id", "N", "with this ICMP identifier", |f, v| put(&mut f.original.icmp_id, number(v))),
    criterion("type", "N", "with this ICMP type", |f, v| put(&mut f.original.icmp_type, number(v))),
    criterion("code", "N", "with this ICMP code", |f, v| put(&mut f.original.icmp_code, number(v))),
    criterion("reply-src", "ADDRESS[/LENGTH]", "whose answers come from there", |f, v| put(&mut f.reply.src, prefix(v))),
    criterion("reply-dst", "ADDRESS[/LENGTH]", "whose answers go there: the translated source", |f, v| put(&mut f.reply.dst, prefix(v))),
    criterion("reply-sport", "PORT[-PORT]", "whose answers come from this port", |f, v| put(&mut f.reply.tp_src, ports(v))),
    criterion("reply-dport", "PORT[-PORT]", "whose answers go to this port", |f, v| put(&mut f.reply.tp_dst, ports(v))),
    criterion("reply-id", "N", "whose answers have this ICMP identifier", |f, v| put(&mut f.reply.icmp_id, number(v))),
    criterion("address", "ADDRESS[/LENGTH]", "with such an address on any side", |f, v| put(&mut f.address, prefix(v))),
    criterion("port", "PORT[-PORT]", "with such a port on any side", |f, v| put(&mut f.port, ports(v))),
    criterion("state", "STATE", "in this state, as `list` shows it", |f, v| put(&mut f.state, state(v))),
    criterion("nat", "src|dst|yes|no", "translated so, at all, or not at all", |f, v| put(&mut f.translation, translation(v))),
    criterion("helper", "ftp|tftp", "with this helper", |f, v| put(&mut f.helper, helper(v))),
];

/// Puts a value in its place; false if there is none.
fn put<T>(place: &mut Option<T>, value: Option<T>) -> bool {
    *place = value;
    place.is_some()
}

/// Names of protocols, as dumps have them.
const PROTOCOLS: [(&str, u8); 5] = [("icmp", 1), ("tcp", 6), ("udp", 17), ("icmpv6", 58), ("sctp", 132)];

fn protocol(text: &str) -> Option<u8> {
    let named = PROTOCOLS.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
    named.map(|(_, number)| number).or_else(|| number(text))
}

fn prefix(text: &str) -> Option<Prefix> {
    match text.split_once('/') {
        Some((address, length)) => Prefix::new(address.parse().ok()?, number(length)?),
        None => Some(Prefix::host(text.parse::<IpAddr>().ok()?)),
    }
}

fn ports(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some(first..=last)
}

fn state(text: &str) -> Option<&'static str> {
    state_names().into_iter().find(|name| name.eq_ignore_ascii_case(text))
}

fn translation(text: &str) -> Option<Translation> {
    match text {
        "src" => Some(Translation::Source),
        "dst" => Some(Translation::Destination),
        "yes" => Some(Translation::Any),
        "no" => Some(Translation::None),
        _ => None,
    }
}

fn helper(text: &str) -> Option<Helper> {
    [Helper::Ftp, Helper::Tftp].into_iter().find(|helper| helper.name() == text)
}

/// Reads words such as `src=10.0.0.0/8 dport=80`, also several in one argument with commas between.
pub(in crate::control::commands) fn criteria(args: &[&str]) -> Result<ConnectionFilter, CommandError> {
    let mut filter = ConnectionFilter::default();
    let mut seen: Vec<&str> = Vec::new();
    for word in args.iter().flat_map(|arg| arg.split(',')).filter(|word| !word.is_empty()) {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        let known = CRITERIA.iter().find(|criterion| criterion.name == name).ok_or_else(|| {
            let near = nearest(name, CRITERIA.iter().map(|criterion| criterion.name));
            let hint = near.map(|near| format!("; did you mean {near}=?")).unwrap_or_default();
            CommandError::Failed(format!("\"{word}\" chooses no connections{hint}"))
        })?;
        if seen.contains(&name) {
            return Err(CommandError::Failed(format!("{name}= is given twice")));
        }
        seen.push(name);
        if !(known.set)(&mut filter, value) {
            let Criterion { name, value: form, help, .. } = known;
            let states = if *name == "state" {
                format!("; states are {}", state_names().join(", "))
            } else {
                String::new()
            };
            return Err(CommandError::Failed(format!(
                "\"{word}\" does not read as {name}={form}: {help}{states}"
            )));
        }
    }
    Ok(filter)
}

/// Reads a line of a dump, as it is pasted: the protocol, both tuples and the zone, whatever stands around them.
pub(super) fn pasted(line: &str) -> Option<ConnectionFilter> {
    let (protocol_name, rest) = line.trim().split_once(",orig=(")?;
    let (original, rest) = rest.split_once("),reply=(")?;
    let (reply, rest) = rest.split_once(')')?;
    let zone = rest.split(',').find_map(|part| part.strip_prefix("zone="));
    let protocol = protocol(protocol_name)?;
    Some(ConnectionFilter {
        // Left out in a dump, the zone is 0.
        zone: Some(zone.map_or(Some(0), number)?),
        original: direction(original, protocol)?,
        reply: direction(reply, protocol)?,
        ..ConnectionFilter::default()
    })
}

fn direction(text: &str, protocol: u8) -> Option<TupleFilter> {
    let mut tuple = TupleFilter { protocol: Some(protocol), ..TupleFilter::default() };
    for part in text.split(',') {
        let (key, value) = part.split_once('=')?;
        match key {
            "src" => tuple.src = Some(prefix(value)?),
            "dst" => tuple.dst = Some(prefix(value)?),
            // What has no ports is shown with 0.
            "sport" | "dport" if !matches!(protocol, 6 | 17 | 132) => {}
            "sport" => tuple.tp_src = Some(ports(value)?),
            "dport" => tuple.tp_dst = Some(ports(value)?),
            "id" => tuple.icmp_id = Some(number(value)?),
            "type" => tuple.icmp_type = Some(number(value)?),
            "code" => tuple.icmp_code = Some(number(value)?),
            _ => return None,
        }
    }
    Some(tuple)
}

/// The words with what they mean.
pub(super) fn help() -> String {
    let mut text = String::from("Filters (all that are given must hold):\n");
    for Criterion { name, value, help, .. } in CRITERIA {
        let _ = writeln!(text, "  {:<30}{help}", format!("{name}={value}"));
    }
    let _ = writeln!(text, "  States: {}.", state_names().join(", "));
    text
}
