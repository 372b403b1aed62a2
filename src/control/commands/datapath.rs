//! The datapath below the flow tables: ports as the datapath numbers them, and the lcores' figures.

use serde::Serialize;

use super::{Call, CommandError, Daemon};
use crate::control::engine::{Bridge, DatapathTotals, EngineError, Exchange, Lcore, Mailbox, PoolUse, Port};
use crate::control::output::Output;

/// The datapath's name in commands that take one. There is one datapath.
pub(super) const NAME: &str = "netdev@weir";

/// The arguments without the datapath's name in front.
pub(super) fn without_name<'a, 'b>(args: &'a [&'b str]) -> &'a [&'b str] {
    match args {
        [NAME | "weir", rest @ ..] => rest,
        _ => args,
    }
}

/// The error for a datapath that is not there.
pub(super) fn not_found(name: &str) -> CommandError {
    CommandError::Failed(format!(
        "datapath not found (Invalid argument)\n\"{name}\": the only datapath here is {NAME}"
    ))
}

/// The bridge called `name`.
pub(super) fn bridge(daemon: &Daemon, name: &str) -> Result<Bridge, EngineError> {
    daemon
        .engine
        .bridges()?
        .into_iter()
        .find(|bridge| bridge.name.as_str() == name)
        .ok_or_else(|| EngineError::NoBridge(name.to_owned()))
}

/// Options and then at most the datapath's name; the options that were given.
fn options<'a>(call: &'a Call<'_>, known: &[&str]) -> Result<Vec<&'a str>, CommandError> {
    let (given, rest): (Vec<&str>, Vec<&str>) =
        call.args.iter().map(String::as_str).partition(|arg| arg.starts_with('-'));
    if let Some(option) = given.iter().find(|option| !known.contains(option)) {
        return Err(CommandError::Failed(format!("Unrecognized option {option}")));
    }
    match without_name(&rest) {
        [] => Ok(given),
        [other, ..] => Err(not_found(other)),
    }
}

/// Bytes, from 1 KiB on also in a larger unit.
fn size(bytes: u64) -> String {
    const UNITS: [(u32, &str); 4] = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    match UNITS.into_iter().find(|(shift, _)| bytes >> shift != 0) {
        Some((shift, unit)) => format!("{bytes} ({:.1} {unit})", ratio(bytes, 1 << shift)),
        None => bytes.to_string(),
    }
}

pub(super) fn dump_dps(call: &Call<'_>, _: &Daemon, out: &mut Output<'_>) -> Result<(), CommandError> {
    if call.json { Ok(out.json(&[NAME])?) } else { Ok(out.line(NAME)?) }
}

/// The datapath of each bridge, which Open vSwitch names after both.
pub(super) fn bridge_dps(call: &Call<'_>, daemon: &Daemon, out: &mut Output<'_>) -> Result<(), CommandError> {
    let bridges = daemon.engine.bridges()?;
    let names: Vec<String> = bridges.iter().map(|bridge| format!("netdev@{}", bridge.name)).collect();
    if call.json {
        return Ok(out.json(&names)?);
    }
    names.iter().try_for_each(|name| Ok(out.line(name)?))
}

#[derive(Serialize)]
struct Show {
    name: &'static str,
    #[serde(flatten)]
    totals: DatapathTotals,
    bridges: Vec<Bridge>,
}

pub(super) fn show(call: &Call<'_>, daemon: &Daemon, out: &mut Output<'_>) -> Result<(), CommandError> {
    let counters = !options(call, &["-s", "--statistics"])?.is_empty();
    let show = Show { name: NAME, totals: daemon.engine.datapath()?, bridges: daemon.engine.bridges()? };
    if call.json {
        return Ok(out.json(&show)?);
    }
    let DatapathTotals { hit, missed, lost, flows } = show.totals;
    out.line(format_args!("{NAME}:"))?;
    out.line(format_args!("  lookups: hit:{hit} missed:{missed} lost:{lost}"))?;
    out.line(format_args!("  flows: {flows}"))?;
    for port in show.bridges.iter().flat_map(|bridge| &bridge.ports) {
        out.line(format_args!("  port {}: {} ({})", port.id, port.name, port.driver))?;
        if counters {
            let c = port.counters;
            // What no driver counts is a question mark, as in Open vSwitch.
            out.line(format_args!(
                "    RX packets:{} errors:{} dropped:{} overruns:? frame:?",
                c.rx_packets, c.rx_errors, c.rx_dropped
            ))?;
            out.line(format_args!(
                "    TX packets:{} errors:{} dropped:{} aborted:? carrier:?",
                c.tx_packets, c.tx_errors, c.tx_dropped
            ))?;
            out.line("    collisions:?")?;
            out.line(format_args!("    RX bytes:{}  TX bytes:{}", size(c.rx_bytes), size(c.tx_bytes)))?;
            port.notes.iter().try_for_each(|note| out.line(format_args!("    note: {note}")))?;
        }
    }
    Ok(())
}

pub(super) fn dpif_show(call: &Call<'_>, daemon: &Daemon, out: &mut Output<'_>) -> Result<(), CommandError> {
    let show = Show { name: NAME, totals: daemon.engine.datapath()?, bridges: daemon.engine.bridges()? };
    if call.json {
        return Ok(out.json(&show)?);
    }
    out.line(format_args!("{NAME}: hit:{} missed:{}", show.totals.hit, show.totals.missed))?;
    for bridge in &show.bridges {
        out.line(format_args!("  {}:", bridge.name))?;
        for Port { id, name, number, driver, devargs, .. } in &bridge.ports {
            out.line(format_args!("    {name} {number}/{id}: ({driver}: {devargs})"))?;
        }
    }
    Ok(())
}

/// `[-pmd CPU] [DP]`, and `-secs N` where that is taken: the lcores that are meant.
fn lcores(call: &Call<'_>, daemon: &Daemon, secs: bool) -> Result<Vec<Lcore>, CommandError> {
    let (mut cpu, mut rest) = (None, Vec::new());
    let mut args = call.args.iter().map(String::as_str);
    while let Some(arg) = args.next() {
        match arg {
            // The span of an average that nothing is averaged over here.
            "-secs" if secs => {
                let span = args.next().and_then(super::selection::number::<u32>);
                span.ok_or_else(|| CommandError::Failed("-secs needs a number of seconds".into()))?;
            }
            "-pmd" => {
                let number = args.next().and_then(super::selection::number::<u16>);
                cpu = Some(number.ok_or_else(|| CommandError::Failed("-pmd needs a CPU number".into()))?);
            }
            option if option.starts_with('-') => {
                return Err(CommandError::Failed(format!("Unrecognized option {option}")));
            }
            other => rest.push(other),
        }
    }
    if let [other, ..] = without_name(&rest) {
        return Err(not_found(other));
    }
    let mut lcores = daemon.engine.lcores()?;
    if let Some(cpu) = cpu {
        lcores.retain(|lcore| lcore.cpu == cpu);
        if lcores.is_empty() {
            return Err(CommandError::Failed(format!("CPU {cpu} does not poll")));
        }
    }
    Ok(lcores)
}

/// `part` of `whole`, 0 of nothing. Rounding to a float's 53 bits is no loss for people.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
pub(super) fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

pub(super) fn stats_show(call: &Call<'_>, daemon: &Daemon, out: &mut Output<'_>) -> Result<(), CommandError> {
    let lcores = lcores(call, daemon, false)?;
    if call.json {
        return Ok(out.json(&lcores)?);
    }
    for lcore in &lcores {
        let cycles = lcore.idle_cycles.saturating_add(lcore.busy_cycles);
        let passes = lcore.packets.saturating_add(lcore.recirculations);
        let share = |part| 100.0 * ratio(part, cycles);
        out.line(format_args!("pmd thread numa_id {} core_id {}:", lcore.node, lcore.cpu))?;
        out.line(format_args!("  packets received: {}", lcore.packets))?;
        out.line(format_args!("  packet recirculations: {}", lcore.recirculations))?;
        out.line(format_args!("  avg. datapath passes per packet: {:.2}", ratio(passes, lcore.packets)))?;
        out.line(format_args!("  emc hits: {}", lcore.trajectory_hits.saturating_add(lcore.emc_hits)))?;
        out.line(format_args!("  megaflow hits: {}", lcore.megaflow_hits))?;
        out.line(format_args!("  miss with success upcall: {}", lcore.misses))?;
        out.line(format_args!("  idle cycles: {} ({:.2}%)", lcore.idle_cycles, share(lcore.idle_cycles)))?;
        out.line(format_args!(
            "  processing cycles: {} ({:.2}%)",
            lcore.busy_cycles,
            share(lcore.busy_cycles)
        ))?;
        if lcore.packets != 0 {
            out.line(format_args!(
                "  avg cycles per packet: {:.2} ({cycles}/{})",
                ratio(cycles, lcore.packets),
                lcore.packets
            ))?;
            out.line(format_args!(
                "  avg processing cycles per packet: {:.2} ({}/{})",
                ratio(lcore.busy_cycles, lcore.packets),
                lcore.busy_cycles,
                lcore.packets
            ))?;
        }
        exchange_show(lcore, out)?;
    }
    Ok(())
}

/// What an lcore and the others gave each other; nothing for one that is alone.
fn exchange_show(lcore: &Lcore, out: &mut Output<'_>) -> Result<(), CommandError> {
    if lcore.exchange.is_empty() {
        return Ok(());
    }
    let mut row = |what: &str, count: fn(&Exchange) -> u64| {
        let reasons: Vec<_> = lcore
            .exchange
            .iter()
            .filter(|reason| count(reason) > 0)
            .map(|reason| format!("{} {}", reason.reason, count(reason)))
            .collect();
        let total: u64 = lcore.exchange.iter().map(count).sum();
        let reasons = if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join(", ")) };
        out.line(format_args!("  {what}: {total}{reasons}"))
    };
    row("packets handed over to other cores", |reason| reason.handed_over)?;
    row("packets taken over from other cores", |reason| reason.taken_over)?;
    row("packets dropped, mailbox full", |reason| reason.refused)?;
    for Mailbox { from, most, capacity } in &lcore.mailboxes {
        out.line(format_args!(
            "  mailbox from core_id {from}: {most} of {capacity} entries used at the most"
        ))?;
    }
    Ok(())
}

pub(super) fn stats_clear(call: &Call<'_>, daemon: &Daemon, _: &mut Output<'_>) -> Result<(), CommandError> {
    options(call, &[])?;
    daemon.engine.clear_lcore_counters()?;
    Ok(())
}

pub(super) fn rxq_show(call: &Call<'_>, daemon: &Daemon, out: &mut Output<'_>) -> Result<(), CommandError> {
    #[derive(Serialize)]
    struct Entry<'a> {
        cpu: u16,
        queues: &'a [crate::control::engine::Queue],
    }
    let lcores = lcores(call, daemon, true)?;
    for lcore in &lcores {
        if call.json {
            out.element(&Entry { cpu: lcore.cpu, queues: &lcore.queues })?;
            continue;
        }
        out.line(format_args!("pmd thread numa_id {} core_id {}:", lcore.node, lcore.cpu))?;
        out.line("  isolated : false")?;
        for queue in &lcore.queues {
            out.line(format_args!(
                "  port: {:<16}  queue-id: {:>2} (enabled)   pmd usage: NOT AVAIL",
                queue.port.as_str(),
                queue.queue
            ))?;
        }
    }
    if call.json { Ok(out.end_array()?) } else { Ok(()) }
}

pub(super) fn mempool_info(
    call: &Call<'_>,
    daemon: &Daemon,
    out: &mut Output<'_>,
) -> Result<(), CommandError> {
    let mut pools = daemon.engine.pools();
    if let Some(port) = call.args.first() {
        if !daemon.engine.bridges()?.iter().flat_map(|bridge| &bridge.ports).any(|p| p.name.as_str() == port)
        {
            return Err(CommandError::Failed(format!("no port named {port}")));
        }
        let own = |pool: &PoolUse| pool.port.as_ref().is_some_and(|name| name.as_str() == port);
        let has_own = pools.iter().any(own);
        pools.retain(|pool| if has_own { own(pool) } else { pool.port.is_none() });
    }
    if call.json {
        return Ok(out.json(&pools)?);
    }
    for PoolUse { name, port, node, size, in_use, data_room } in &pools {
        let port = port.as_ref().map_or_else(|| "all ports".to_owned(), |port| format!("port {port}"));
        let node = node.map_or_else(|| "any node".to_owned(), |node| format!("node {node}"));
        out.line(format_args!(
            "{name}: {in_use} of {size} buffers of {data_room} bytes in use, {port}, {node}"
        ))?;
    }
    Ok(())
}
