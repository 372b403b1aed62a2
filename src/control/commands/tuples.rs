//! Connections as text and as JSON, and the filters that `dpctl/flush-conntrack` and `ct-flush` take: zone,
//! mark, labels and one or two tuples, `ct_nw_src=10.0.0.1,ct_nw_proto=6,ct_tp_dst=80`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::Serialize;

use super::CommandError;
use crate::control::engine::{Connection, ConnectionFilter, Direction, TcpState, Transport, TupleFilter};

/// IP protocols that have a name in dumps.
const PROTOCOLS: [(u8, &str); 9] = [
    (1, "icmp"),
    (2, "igmp"),
    (6, "tcp"),
    (17, "udp"),
    (33, "dccp"),
    (47, "gre"),
    (58, "icmpv6"),
    (132, "sctp"),
    (136, "udplite"),
];

/// A protocol's name, or its number.
pub(super) fn protocol_name(protocol: u8) -> String {
    PROTOCOLS
        .iter()
        .find(|(number, _)| *number == protocol)
        .map_or_else(|| protocol.to_string(), |(_, name)| (*name).to_owned())
}

/// What a dump shows beside the tuples.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Detail {
    /// `-m`
    pub(super) more: bool,
    /// `-s`
    pub(super) times: bool,
}

/// A connection as a line of `dpctl/dump-conntrack`.
pub(super) struct Line<'a>(pub(super) &'a Connection, pub(super) Detail);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(connection, detail) = self;
        write!(f, "{},orig=({}", protocol_name(connection.protocol), Ends(&connection.original))?;
        self.counters(f, 0)?;
        write!(f, "),reply=({}", Ends(&connection.reply))?;
        self.counters(f, 1)?;
        f.write_str(")")?;
        if connection.zone != 0 {
            write!(f, ",zone={}", connection.zone)?;
        }
        if connection.mark != 0 {
            write!(f, ",mark={}", connection.mark)?;
        }
        if connection.labels != 0 {
            write!(f, ",labels={:#x}", connection.labels)?;
        }
        if detail.times {
            write!(f, ",timeout={}", connection.timeout)?;
        }
        if let Some([original, reply]) = connection.tcp {
            if detail.more {
                write!(
                    f,
                    ",protoinfo=(state_orig={},state_reply={})",
                    state_name(original),
                    state_name(reply)
                )?;
            } else {
                write!(f, ",protoinfo=(state={})", summary(original, reply))?;
            }
        }
        if let Some(helper) = connection.helper {
            write!(f, ",helper={helper}")?;
        }
        Ok(())
    }
}

impl Line<'_> {
    fn counters(&self, f: &mut fmt::Formatter<'_>, direction: usize) -> fmt::Result {
        let Self(connection, detail) = self;
        match (connection.packets.get(direction), connection.bytes.get(direction)) {
            (Some(packets), Some(bytes)) if detail.more => write!(f, ",packets={packets},bytes={bytes}"),
            _ => Ok(()),
        }
    }
}

/// A direction's addresses and ports.
struct Ends<'a>(&'a Direction);

impl fmt::Display for Ends<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Direction { src, dst, transport } = self.0;
        write!(f, "src={src},dst={dst}")?;
        match transport {
            Transport::Ports { sport, dport } => write!(f, ",sport={sport},dport={dport}"),
            Transport::Icmp { id, kind, code } => write!(f, ",id={id},type={kind},code={code}"),
            Transport::None {} => Ok(()),
        }
    }
}

/// One state for both peers: the further one's, where a peer whose FIN was acknowledged counts as waiting for
/// the connection to die and a half-open one as established.
pub(super) fn summary(original: TcpState, reply: TcpState) -> &'static str {
    match original.max(reply) {
        TcpState::FinWait2 => state_name(TcpState::TimeWait),
        TcpState::SynReceived => state_name(TcpState::Established),
        state => state_name(state),
    }
}

const fn state_name(state: TcpState) -> &'static str {
    match state {
        TcpState::Closed => "CLOSED",
        TcpState::SynSent => "SYN_SENT",
        TcpState::SynReceived => "SYN_RECV",
        TcpState::Established => "ESTABLISHED",
        TcpState::CloseWait => "CLOSE_WAIT",
        TcpState::FinWait1 => "FIN_WAIT_1",
        TcpState::Closing => "CLOSING",
        TcpState::LastAck => "LAST_ACK",
        TcpState::FinWait2 => "FIN_WAIT_2",
        TcpState::TimeWait => "TIME_WAIT",
    }
}

/// A connection in JSON. Labels are text, for JSON's numbers end at 2^53.
#[derive(Serialize)]
pub(super) struct Json<'a> {
    protocol: String,
    protocol_number: u8,
    orig: JsonDirection<'a>,
    reply: JsonDirection<'a>,
    zone: u16,
    mark: u32,
    labels: String,
    timeout: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    tcp: Option<JsonTcp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    helper: Option<&'static str>,
}

#[derive(Serialize)]
struct JsonDirection<'a> {
    #[serde(flatten)]
    ends: &'a Direction,
    packets: u64,
    bytes: u64,
}

#[derive(Serialize)]
struct JsonTcp {
    state: &'static str,
    state_orig: &'static str,
    state_reply: &'static str,
}

impl<'a> From<&'a Connection> for Json<'a> {
    fn from(connection: &'a Connection) -> Self {
        let [orig_packets, reply_packets] = connection.packets;
        let [orig_bytes, reply_bytes] = connection.bytes;
        Self {
            protocol: protocol_name(connection.protocol),
            protocol_number: connection.protocol,
            orig: JsonDirection { ends: &connection.original, packets: orig_packets, bytes: orig_bytes },
            reply: JsonDirection { ends: &connection.reply, packets: reply_packets, bytes: reply_bytes },
            zone: connection.zone,
            mark: connection.mark,
            labels: format!("{:#x}", connection.labels),
            timeout: connection.timeout,
            tcp: connection.tcp.map(|[original, reply]| JsonTcp {
                state: summary(original, reply),
                state_orig: state_name(original),
                state_reply: state_name(reply),
            }),
            helper: connection.helper,
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
