//! Reads `ct(...)`, its `nat(...)` and its `exec(...)`.

use core::net::{Ipv4Addr, Ipv6Addr};

use weir_nat::{AddressRange, NatAction, NatRange, PortSelection};
use weir_shard::Helper;

use super::action::{CtSpec, Zone};
use super::action_parse::{Reader, unknown_argument};
use super::error::{Error, Problem};
use super::field::Prerequisite;
use super::flow::LAST_TABLE;
use super::lexer::{Item, Items, Joint, Text};
use super::value;

/// Reads the arguments of a `ct`.
pub(crate) fn ct(reader: &mut Reader<'_>, item: &Item<'_>) -> Result<CtSpec, Error> {
    if reader.in_exec {
        return Err(item.key.error(Problem::NotInExec));
    }
    let prerequisite = |met: bool, text: Text<'_>, what: &str, needs: &str| {
        if met {
            return Ok(());
        }
        Err(text.error(Problem::Prerequisite { what: what.into(), needs: format!("{needs} in the match") }))
    };
    let matching = reader.context;
    prerequisite(matching.meets(Prerequisite::Ip), item.key, "ct", "ip or ipv6")?;
    let mut spec = CtSpec::default();
    let mut force = None;
    let mut seen = Vec::new();
    for argument in Items::new(item.value) {
        let argument = argument?;
        if seen.contains(&argument.key.text) {
            return Err(argument.key.error(Problem::Twice { key: argument.key.text.into() }));
        }
        match argument.key.text {
            "commit" => {
                argument.no_value()?;
                spec.commit = true;
            }
            "force" => {
                argument.no_value()?;
                force = Some(argument.key);
                spec.force = true;
            }
            "table" => spec.table = Some(value::small("the table", argument.needed_value()?, LAST_TABLE)?),
            "zone" => spec.zone = zone(reader, argument.needed_value()?)?,
            "alg" => {
                let text = argument.needed_value()?;
                let (helper, met, needs) = match text.text {
                    "ftp" => (Helper::Ftp, matching.meets(Prerequisite::Tcp), "tcp or tcp6"),
                    "tftp" => (Helper::Tftp, matching.meets(Prerequisite::Udp), "udp or udp6"),
                    _ => {
                        let expected = "ftp or tftp".into();
                        return Err(text.error(Problem::BadValue {
                            what: "alg".into(),
                            found: text.text.into(),
                            expected,
                        }));
                    }
                };
                prerequisite(met, text, &format!("alg={}", text.text), needs)?;
                spec.helper = Some(helper);
            }
            "nat" => {
                let action = nat(&argument)?;
                if let NatAction::Source(range) | NatAction::Destination(range) = &action {
                    match range.addresses {
                        Some(AddressRange::V4(..)) => {
                            let met = matching.meets(Prerequisite::Ipv4);
                            prerequisite(met, argument.value, "nat with IPv4 addresses", "ip")?;
                        }
                        Some(AddressRange::V6(..)) => {
                            let met = matching.meets(Prerequisite::Ipv6);
                            prerequisite(met, argument.value, "nat with IPv6 addresses", "ipv6")?;
                        }
                        None => {}
                    }
                }
                spec.nat = Some(action);
            }
            "exec" => {
                if argument.joint != Joint::Parentheses {
                    return Err(argument.key.error(Problem::Expected { expected: "exec(ACTIONS)".into() }));
                }
                reader.in_exec = true;
                for action in Items::new(argument.value) {
                    spec.exec.push(reader.action(&action?)?);
                }
                reader.in_exec = false;
            }
            _ => {
                let known = ["commit", "force", "table", "zone", "alg", "nat", "exec"];
                return Err(unknown_argument("ct", argument.key, &known));
            }
        }
        seen.push(argument.key.text);
    }
    if let Some(force) = force.filter(|_| !spec.commit) {
        let (what, needs) = ("force".into(), "commit beside it".into());
        return Err(force.error(Problem::Prerequisite { what, needs }));
    }
    Ok(spec)
}

fn zone(reader: &Reader<'_>, text: Text<'_>) -> Result<Zone, Error> {
    if text.text.starts_with(|c: char| c.is_ascii_digit()) {
        return value::small("the zone", text, u16::MAX).map(Zone::Immediate);
    }
    let subfield = reader.source(text)?;
    if subfield.width == 16 {
        return Ok(Zone::Field(subfield));
    }
    Err(text.error(Problem::Other("a zone has 16 bits; name 16 bits of the field, as in reg0[0..15]")))
}

/// Reads `nat` or `nat(...)`.
fn nat(item: &Item<'_>) -> Result<NatAction, Error> {
    if item.joint == Joint::Sign {
        return Err(item.key.error(Problem::Expected { expected: "nat or nat(...)".into() }));
    }
    let mut range =
        NatRange { addresses: None, ports: None, selection: PortSelection::Default, persistent: false };
    let mut direction: Option<fn(NatRange) -> NatAction> = None;
    let mut flag = None;
    for argument in Items::new(item.value) {
        let argument = argument?;
        let mut select = |selection| {
            argument.no_value()?;
            flag = Some(argument.key);
            if !matches!(range.selection, PortSelection::Default) && range.selection != selection {
                return Err(argument.key.error(Problem::Other("random and hash exclude each other")));
            }
            range.selection = selection;
            Ok(())
        };
        match argument.key.text {
            "random" => select(PortSelection::Random)?,
            "hash" => select(PortSelection::Hash)?,
            "persistent" => {
                argument.no_value()?;
                flag = Some(argument.key);
                range.persistent = true;
            }
            key @ ("src" | "dst") => {
                if direction.is_some() {
                    let problem = Problem::Other("one nat translates either the source or the destination");
                    return Err(argument.key.error(problem));
                }
                direction = Some(if key == "src" { NatAction::Source } else { NatAction::Destination });
                if argument.joint == Joint::Sign {
                    addresses(argument.needed_value()?, &mut range)?;
                } else {
                    argument.no_value()?;
                }
            }
            _ => {
                let known = ["src", "dst", "random", "hash", "persistent"];
                return Err(unknown_argument("nat", argument.key, &known));
            }
        }
    }
    match (direction, flag) {
        (Some(direction), _) => {
            if range.addresses.is_none() {
                // How to choose says nothing where there is nothing to choose from.
                (range.selection, range.persistent) = (PortSelection::Default, false);
            }
            Ok(direction(range))
        }
        (None, Some(flag)) => {
            let (what, needs) = (flag.text.to_owned(), "src or dst beside it".into());
            Err(flag.error(Problem::Prerequisite { what, needs }))
        }
        (None, None) => Ok(NatAction::Apply),
    }
}

/// `A[-B][:P[-Q]]`, IPv6 addresses in brackets where ports follow.
fn addresses(text: Text<'_>, range: &mut NatRange) -> Result<(), Error> {
    let (addresses, ports) = if text.text.starts_with('[') {
        match text.text.rfind("]:") {
            Some(at) => (text.slice(0, at + 1), Some(text.slice(at + 2, text.text.len()))),
            None => (text, None),
        }
    } else if text.text.matches(':').count() > 1 {
        (text, None)
    } else {
        text.split_once(":").map_or((text, None), |(addresses, ports)| (addresses, Some(ports)))
    };
    let (low, high) = addresses.split_once("-").unwrap_or((addresses, addresses));
    let (low, high) = (bare(low), bare(high));
    let backwards = |text: Text<'_>| text.error(Problem::Other("the range ends before it begins"));
    range.addresses = Some(if low.text.contains(':') {
        let (low, high): (Ipv6Addr, Ipv6Addr) = (value::ipv6("nat", low)?, value::ipv6("nat", high)?);
        if low > high {
            return Err(backwards(addresses));
        }
        AddressRange::V6(low, high)
    } else {
        let (low, high): (Ipv4Addr, Ipv4Addr) = (value::ipv4("nat", low)?, value::ipv4("nat", high)?);
        if low > high {
            return Err(backwards(addresses));
        }
        AddressRange::V4(low, high)
    });
    if let Some(ports) = ports {
        let (low, high) = ports.split_once("-").unwrap_or((ports, ports));
        let (low, high) = (value::small("a port", low, u16::MAX)?, value::small("a port", high, u16::MAX)?);
        if low > high {
            return Err(backwards(ports));
        }
        if low == 0 {
            return Err(ports.error(Problem::Other("nat ports begin at 1; leave the ports out to use any")));
        }
        range.ports = Some((low, high));
    }
    Ok(())
}

/// Without brackets around.
fn bare(text: Text<'_>) -> Text<'_> {
    let inside = text.text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    inside.map_or(text, |inside| text.slice(1, 1 + inside.len()))
}
