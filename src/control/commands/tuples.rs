//! Connections as text and as JSON, and the filters that `dpctl/flush-conntrack` and `ct-flush` take: zone,
//! mark, labels and one or two tuples, `ct_nw_src=10.0.0.1,ct_nw_proto=6,ct_tp_dst=80`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::Serialize;
use weir_shard::{ConnectionView, Helper, ProtocolState};
use weir_wire::Tuple;

use super::CommandError;
use crate::control::engine::{ConnectionFilter, TupleFilter, icmp_parts};
use crate::control::output::{Disconnected, Output};

/// What a dump shows beside the tuples.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Detail {
    /// `-m`
    pub(super) more: bool,
    /// `-s`
    pub(super) times: bool,
}

/// Writes a connection as a line of `dpctl/dump-conntrack`.
pub(super) fn line(
    connection: &ConnectionView,
    detail: Detail,
    out: &mut Output<'_>,
) -> Result<(), Disconnected> {
    match (detail.times, detail.more) {
        (false, false) => out.line(connection),
        (true, false) => out.line(connection.with_timeout()),
        (times, true) => out.line(connection.with_states(times)),
    }
}

/// A connection in JSON. Labels are text, for JSON's numbers end at 2^53.
#[derive(Serialize)]
pub(super) struct Json {
    protocol: String,
    protocol_number: u8,
    orig: JsonDirection,
    reply: JsonDirection,
    zone: u16,
    mark: u32,
    labels: String,
    /// Seconds until it ends without a packet.
    timeout: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    tcp: Option<JsonTcp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    helper: Option<&'static str>,
    /// The control connection that announced it.
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<JsonDirection>,
}

#[derive(Serialize)]
pub(super) struct JsonDirection {
    src: IpAddr,
    dst: IpAddr,
    #[serde(flatten)]
    transport: Transport,
}

/// What identifies a direction beside its addresses.
#[derive(Serialize)]
#[serde(untagged)]
enum Transport {
    Ports { sport: u16, dport: u16 },
    Icmp { id: u16, r#type: u8, code: u8 },
    None {},
}

#[derive(Serialize)]
struct JsonTcp {
    state: &'static str,
    state_orig: &'static str,
    state_reply: &'static str,
}

impl From<&Tuple> for JsonDirection {
    fn from(tuple: &Tuple) -> Self {
        let transport = match icmp_parts(tuple) {
            Some((id, kind, code)) => Transport::Icmp { id, r#type: kind, code },
            None if tuple.has_ports() => {
                Transport::Ports { sport: tuple.src_port(), dport: tuple.dst_port() }
            }
            None => Transport::None {},
        };
        Self { src: tuple.src(), dst: tuple.dst(), transport }
    }
}

impl From<&ConnectionView> for Json {
    fn from(connection: &ConnectionView) -> Self {
        let tcp = match connection.state {
            ProtocolState::Tcp { original, reply } => Some(JsonTcp {
                state: original.max(reply).summary(),
                state_orig: original.name(),
                state_reply: reply.name(),
            }),
            ProtocolState::Other { .. } => None,
        };
        Self {
            protocol: connection.protocol_name(),
            protocol_number: connection.original.protocol(),
            orig: JsonDirection::from(&connection.original),
            reply: JsonDirection::from(&connection.reply),
            zone: connection.zone,
            mark: connection.mark,
            labels: format!("{:#x}", connection.label),
            timeout: connection.remaining / 1000,
            tcp,
            helper: connection.helper.map(Helper::name),
            parent: connection.parent.as_ref().map(JsonDirection::from),
        }
    }
}

/// Reads `[zone=N] [mark=X[/M]] [labels=X[/M]] [ORIG-TUPLE [REPLY-TUPLE]]`.
pub(super) fn filter(args: &[&str]) -> Result<ConnectionFilter, CommandError> {
    let mut filter = ConnectionFilter::default();
    let mut tuples = 0;
    for &arg in args {
        if let Some(zone) = arg.strip_prefix("zone=") {
            filter.zone = Some(number(zone).ok_or_else(|| failed("failed to parse zone", arg))?);
        } else if let Some(mark) = arg.strip_prefix("mark=") {
            filter.mark = Some(masked(mark).ok_or_else(|| failed("failed to parse mark", arg))?);
        } else if let Some(labels) = arg.strip_prefix("labels=") {
            filter.labels = Some(masked(labels).ok_or_else(|| failed("failed to parse labels", arg))?);
        } else {
            let place = match tuples {
                0 => &mut filter.original,
                1 => &mut filter.reply,
                _ => return Err(failed("a filter has at most two tuples", arg)),
            };
            *place = tuple(arg)?;
            tuples += 1;
        }
    }
    Ok(filter)
}

fn tuple(text: &str) -> Result<TupleFilter, CommandError> {
    let mut tuple = TupleFilter::default();
    // An empty tuple stands for any, so that a reply tuple can be given alone.
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (key, value) = part
            .split_once('=')
            .ok_or_else(|| CommandError::Failed(format!("field {part} missing value")))?;
        let bad =
            || CommandError::Failed(format!("failed to parse field {key}: \"{value}\" is no value for it"));
        match key {
            "ct_nw_src" => tuple.src = Some(value.parse::<Ipv4Addr>().map(IpAddr::V4).map_err(|_| bad())?),
            "ct_nw_dst" => tuple.dst = Some(value.parse::<Ipv4Addr>().map(IpAddr::V4).map_err(|_| bad())?),
            "ct_ipv6_src" => tuple.src = Some(value.parse::<Ipv6Addr>().map(IpAddr::V6).map_err(|_| bad())?),
            "ct_ipv6_dst" => tuple.dst = Some(value.parse::<Ipv6Addr>().map(IpAddr::V6).map_err(|_| bad())?),
            "ct_nw_proto" => tuple.protocol = Some(number(value).ok_or_else(bad)?),
            "ct_tp_src" => tuple.tp_src = Some(number(value).ok_or_else(bad)?),
            "ct_tp_dst" => tuple.tp_dst = Some(number(value).ok_or_else(bad)?),
            "icmp_id" => tuple.icmp_id = Some(number(value).ok_or_else(bad)?),
            "icmp_type" => tuple.icmp_type = Some(number(value).ok_or_else(bad)?),
            "icmp_code" => tuple.icmp_code = Some(number(value).ok_or_else(bad)?),
            _ => return Err(CommandError::Failed(format!("invalid conntrack tuple field: {key}"))),
        }
    }
    Ok(tuple)
}

fn failed(what: &str, arg: &str) -> CommandError {
    CommandError::Failed(format!("{what}: \"{arg}\""))
}

/// A decimal number, or a hexadecimal one with 0x.
pub(super) fn number<T: TryFrom<u128>>(text: &str) -> Option<T> {
    let value = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) if !digits.starts_with('+') => u128::from_str_radix(digits, 16).ok()?,
        None if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok()?,
        _ => return None,
    };
    T::try_from(value).ok()
}

fn masked<T: TryFrom<u128>>(text: &str) -> Option<(T, T)>
where
    u128: TryInto<T>,
{
    match text.split_once('/') {
        Some((value, mask)) => Some((number(value)?, number(mask)?)),
        None => {
            // All ones of T's width.
            let ones = u128::MAX >> (128 - 8 * u32::try_from(size_of::<T>()).ok()?);
            Some((number(text)?, T::try_from(ones).ok()?))
        }
    }
}
