//! The `ipf-` commands: what is done with fragments, and what was.

use serde_json::json;
use weir_shard::fragments::{DatagramView, Family, LARGEST_MAX, LEAST_MIN_SIZE};
use weir_wire::numbers::ether_type;

use super::selection::number;
use super::{Call, CommandError, Daemon, datapath};
use crate::control::engine::{Cursor, FragmentChange, FragmentStatus};
use crate::control::output::Output;

fn invalid(message: &str) -> CommandError {
    CommandError::Failed(format!("{message} (Invalid argument)"))
}

fn family(text: &str) -> Option<Family> {
    Family::ALL.into_iter().find(|family| family.name() == text)
}

fn words<'a>(call: &Call<'a>) -> Vec<&'a str> {
    let args: Vec<&str> = call.args.iter().map(String::as_str).collect();
    datapath::without_name(&args).to_vec()
}

fn switch(call: &Call<'_>, daemon: &Daemon, enabled: bool) -> Result<(), CommandError> {
    let family = match words(call)[..] {
        [word] => family(word),
        _ => None,
    };
    let family = family.ok_or_else(|| invalid("parameter missing: 'v4' for IPv4 or 'v6' for IPv6"))?;
    Ok(daemon.engine.set_fragments(FragmentChange::Enabled(family, enabled))?)
}

pub(super) fn set_enabled(
    call: &Call<'_>,
    daemon: &Daemon,
    out: &mut Output<'_>,
) -> Result<(), CommandError> {
    switch(call, daemon, true)?;
    Ok(out.line("enabling fragmentation reassembly successful")?)
}

pub(super) fn set_disabled(
    call: &Call<'_>,
    daemon: &Daemon,
    out: &mut Output<'_>,
) -> Result<(), CommandError> {
    switch(call, daemon, false)?;
    Ok(out.line("disabling fragmentation reassembly successful")?)
}

pub(super) fn set_min_frag(
    call: &Call<'_>,
    daemon: &Daemon,
    out: &mut Output<'_>,
) -> Result<(), CommandError> {
    let words = words(call);
    let family = words.first().and_then(|word| family(word));
    let family = family.ok_or_else(|| invalid("parameter missing: v4 for IPv4 or v6 for IPv6"))?;
    let size: u32 = match words[..] {
        [_, size] => number(size),
        _ => None,
    }
    .ok_or_else(|| invalid("parameter missing for minimum fragment size"))?;
    if size < LEAST_MIN_SIZE {
        return Err(CommandError::Failed(
            "requested minimum fragment size too small; see documentation (Operation not permitted)".into(),
        ));
    }
    daemon.engine.set_fragments(FragmentChange::MinSize(family, size))?;
    Ok(out.line("setting minimum fragment size successful")?)
}

pub(super) fn set_max_nfrags(
    call: &Call<'_>,
    daemon: &Daemon,
    out: &mut Output<'_>,
) -> Result<(), CommandError> {
    let max: u32 = match words(call)[..] {
        [max] => number(max),
        _ => None,
    }
    .ok_or_else(|| invalid("parameter missing for maximum fragments"))?;
    if max > LARGEST_MAX {
        return Err(CommandError::Failed(
            "setting maximum fragments failed (Operation not permitted)".into(),
        ));
    }
    daemon.engine.set_fragments(FragmentChange::Max(max))?;
    Ok(out.line("setting maximum fragments successful")?)
}

pub(super) fn get_status(call: &Call<'_>, daemon: &Daemon, out: &mut Output<'_>) -> Result<(), CommandError> {
    let (options, rest): (Vec<&str>, Vec<&str>) =
        call.args.iter().map(String::as_str).partition(|arg| arg.starts_with('-'));
    if let Some(option) = options.iter().find(|option| !matches!(**option, "-m" | "--more")) {
        return Err(CommandError::Failed(format!("Unrecognized option {option}")));
    }
    if let Some(other) = datapath::without_name(&rest).first() {
        return Err(datapath::not_found(other));
    }
    let status = daemon.engine.fragments()?;
    let more = !options.is_empty();
    if call.json {
        return status_json(&status, more, daemon, out);
    }
    status_text(&status, out)?;
    if more {
        out.line("\n        Fragment Lists:\n")?;
        each_datagram(daemon, |view| Ok(out.line(list(view))?))?;
    }
    Ok(())
}

fn each_datagram(
    daemon: &Daemon,
    mut show: impl FnMut(&DatagramView) -> Result<(), CommandError>,
) -> Result<(), CommandError> {
    let (mut cursor, mut rows) = (Some(Cursor::default()), Vec::new());
    while let Some(from) = cursor {
        rows.clear();
        cursor = daemon.engine.fragmented_datagrams(from, &mut rows)?;
        rows.iter().try_for_each(&mut show)?;
    }
    Ok(())
}

fn status_text(status: &FragmentStatus, out: &mut Output<'_>) -> Result<(), CommandError> {
    let mut line = |text: String| out.line(format_args!("        {text}"));
    line("Fragmentation Module Status".into())?;
    line("---------------------------".into())?;
    for family in Family::ALL {
        line(format!("{} enabled: {}", family.name(), u8::from(status.settings.enabled[family as usize])))?;
    }
    line(format!("max num frags (v4/v6): {}", status.settings.max))?;
    line(format!("num frag: {}", status.held))?;
    for family in Family::ALL {
        let (name, counters) = (family.name(), &status.counters[family as usize]);
        // Open vSwitch has one counter for all that does not fit together.
        let overlapped = counters.overlapped + counters.duplicates + counters.too_long + counters.refused;
        line(format!("min {name} frag size: {}", status.settings.min_size[family as usize]))?;
        for (what, count) in [
            ("accepted", counters.accepted),
            ("completed", counters.completed),
            ("expired", counters.expired),
            ("too small", counters.too_small),
            ("overlapped", overlapped),
            ("purged", counters.purged),
        ] {
            line(format!("{name} frags {what}: {count}"))?;
        }
    }
    Ok(())
}

fn state(view: &DatagramView) -> &'static str {
    match (view.has_first, view.has_last) {
        _ if view.refused => "refused",
        (true, true) => "first/last frag",
        (true, false) => "first frag",
        (false, true) => "last frag",
        (false, false) => "other frag",
    }
}

fn list(view: &DatagramView) -> String {
    let key = &view.key;
    let dl_type = if key.src.is_ipv4() { ether_type::IPV4 } else { ether_type::IPV6 };
    format!(
        "(src={},dst={},recirc_id={},ip_id={},dl_type={dl_type:#x},zone={},nw_proto={},num_fragments={},state={})",
        key.src,
        key.dst,
        key.recirculation,
        key.id,
        key.zone,
        view.protocol,
        view.fragments,
        state(view)
    )
}

fn status_json(
    status: &FragmentStatus,
    more: bool,
    daemon: &Daemon,
    out: &mut Output<'_>,
) -> Result<(), CommandError> {
    let family = |family: Family| {
        let at = family as usize;
        let counters: serde_json::Map<String, serde_json::Value> =
            status.counters[at].iter().map(|(name, count, _)| (name.to_owned(), count.into())).collect();
        json!({
            "enabled": status.settings.enabled[at],
            "min_size": status.settings.min_size[at],
            "counters": counters,
        })
    };
    let mut value = json!({
        "max": status.settings.max,
        "held": status.held,
        "v4": family(Family::V4),
        "v6": family(Family::V6),
    });
    if more {
        let mut lists = Vec::new();
        each_datagram(daemon, |view| {
            let key = &view.key;
            lists.push(json!({
                "src": key.src, "dst": key.dst, "recirc_id": key.recirculation, "ip_id": key.id, "zone": key.zone,
                "nw_proto": view.protocol, "num_fragments": view.fragments, "state": state(view),
            }));
            Ok(())
        })?;
        value["datagrams"] = lists.into();
    }
    Ok(out.json(&value)?)
}
