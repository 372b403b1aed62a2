//! Connections as text and as JSON.

use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use weir_shard::{Carried, ConnectionView, Helper, ProtocolState};
use weir_wire::Tuple;

use crate::control::filter::icmp_parts;
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
    sctp: Option<JsonSctp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    helper: Option<&'static str>,
    /// Milliseconds since it was committed.
    age: u64,
    /// When that was, in milliseconds since 1970.
    start: u64,
    /// Milliseconds since its last packet.
    #[serde(skip_serializing_if = "Option::is_none")]
    idle: Option<u64>,
    /// When that came.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seen: Option<u64>,
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
    /// Packets and bytes that it has carried.
    #[serde(flatten)]
    carried: Option<JsonCarried>,
}

#[derive(Serialize)]
struct JsonCarried {
    packets: u64,
    bytes: u64,
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

#[derive(Serialize)]
struct JsonSctp {
    state: &'static str,
    vtag_orig: u32,
    vtag_reply: u32,
}

impl JsonDirection {
    pub(super) fn new(tuple: &Tuple, carried: Option<Carried>) -> Self {
        let transport = match icmp_parts(tuple) {
            Some((id, kind, code)) => Transport::Icmp { id, r#type: kind, code },
            None if tuple.has_ports() => {
                Transport::Ports { sport: tuple.src_port(), dport: tuple.dst_port() }
            }
            None => Transport::None {},
        };
        let carried = carried.map(|Carried { packets, bytes }| JsonCarried { packets, bytes });
        Self { src: tuple.src(), dst: tuple.dst(), transport, carried }
    }
}

impl From<&ConnectionView> for Json {
    fn from(connection: &ConnectionView) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::at(connection, u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

impl Json {
    /// A connection as it was seen `now` milliseconds after 1970.
    pub(super) fn at(connection: &ConnectionView, now: u64) -> Self {
        let traffic = connection.traffic;
        let tcp = match connection.state {
            ProtocolState::Tcp { original, reply } => Some(JsonTcp {
                state: original.max(reply).summary(),
                state_orig: original.name(),
                state_reply: reply.name(),
            }),
            ProtocolState::Sctp { .. } | ProtocolState::Other { .. } => None,
        };
        let sctp = match connection.state {
            ProtocolState::Sctp { state, tags: [vtag_orig, vtag_reply] } => {
                Some(JsonSctp { state: state.name(), vtag_orig, vtag_reply })
            }
            _ => None,
        };
        Self {
            protocol: connection.protocol_name(),
            protocol_number: connection.original.protocol(),
            orig: JsonDirection::new(&connection.original, traffic.map(|traffic| traffic.original)),
            reply: JsonDirection::new(&connection.reply, traffic.map(|traffic| traffic.reply)),
            zone: connection.zone,
            mark: connection.mark,
            labels: format!("{:#x}", connection.label),
            timeout: connection.remaining / 1000,
            tcp,
            sctp,
            helper: connection.helper.map(Helper::name),
            age: connection.age,
            start: now.saturating_sub(connection.age),
            idle: traffic.map(|traffic| traffic.idle),
            last_seen: traffic.map(|traffic| now.saturating_sub(traffic.idle)),
            parent: connection.parent.as_ref().map(|parent| JsonDirection::new(parent, None)),
        }
    }
}
