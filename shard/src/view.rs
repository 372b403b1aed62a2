//! A connection as it is shown: what dumps and filters of flushes get to see.

use core::fmt;
use core::net::IpAddr;

use weir_wire::Tuple;
use weir_wire::numbers::protocol;

use crate::action::Helper;
use crate::sctp::SctpState;
use crate::tcp::TcpState;

/// What a connection's tracker knows, as far as it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolState {
    /// TCP: the state of the original direction's sender and of its peer.
    Tcp {
        /// Who started the connection.
        original: TcpState,
        /// Who was called.
        reply: TcpState,
    },
    /// SCTP.
    Sctp {
        /// How far the association is.
        state: SctpState,
        /// Verification tags of packets in the original and in the reply direction; 0 is not known yet.
        tags: [u32; 2],
    },
    /// Any other protocol.
    Other {
        /// Both sides were seen.
        answered: bool,
    },
}

/// What went in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Packets.
    pub packets: u64,
    /// Bytes of their frames, as flows count them: from the Ethernet header on, without FCS.
    pub bytes: u64,
}

/// What a connection has carried. Packets that the tracker called invalid and ICMP errors about it do not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// From who started it.
    pub original: Carried,
    /// Back.
    pub reply: Carried,
    /// Milliseconds since the last packet, to a tick (16 ms).
    pub idle: u64,
}

/// One connection.
#[derive(Clone, Debug, PartialEq)]
pub struct ConnectionView {
    /// Tuple of the packets of who started it.
    pub original: Tuple,
    /// Tuple of the answers, as they come in.
    pub reply: Tuple,
    /// Zone.
    pub zone: u16,
    /// ct_mark.
    pub mark: u32,
    /// ct_label, host order.
    pub label: u128,
    /// Milliseconds until it ends, if no packet comes.
    pub remaining: u64,
    /// Milliseconds since it was committed.
    pub age: u64,
    /// Its tracker's state.
    pub state: ProtocolState,
    /// Helper.
    pub helper: Option<Helper>,
    /// The source of the original direction is translated.
    pub source_nat: bool,
    /// The destination of the original direction is translated.
    pub destination_nat: bool,
    /// What it has carried, where that is counted.
    pub traffic: Option<Traffic>,
    /// The original tuple of the control connection that announced it.
    pub parent: Option<Tuple>,
}

/// A data connection that is expected.
#[derive(Clone, Debug, PartialEq)]
pub struct ExpectationView {
    /// What its first packet will be; source port 0 stands for any.
    pub original: Tuple,
    /// Where it will be sent: the same place, unless the control connection is translated.
    pub target: (IpAddr, u16),
    /// The original tuple of the control connection.
    pub parent: Tuple,
    /// Zone.
    pub zone: u16,
    /// ct_mark that it will have.
    pub mark: u32,
    /// ct_label that it will have, host order.
    pub label: u128,
    /// Milliseconds until it is given up.
    pub remaining: u64,
    /// Whose helper expects it.
    pub helper: Helper,
}

impl ExpectationView {
    /// The protocol as dumps name it.
    #[must_use]
    pub fn protocol_name(&self) -> String {
        protocol_name(self.original.protocol())
    }
}

/// The line of `dpctl/dump-conntrack-exp`.
impl fmt::Display for ExpectationView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.protocol_name())?;
        write!(f, ",orig=({}),parent=({})", self.original, self.parent)?;
        if self.zone != 0 {
            write!(f, ",zone={}", self.zone)?;
        }
        if self.mark != 0 {
            write!(f, ",mark={}", self.mark)?;
        }
        if self.label != 0 {
            write!(f, ",labels={:#x}", self.label)?;
        }
        write!(f, ",helper={}", self.helper.name())
    }
}

fn protocol_name(number: u8) -> String {
    match number {
        protocol::ICMP => "icmp".into(),
        protocol::ICMPV6 => "icmpv6".into(),
        protocol::TCP => "tcp".into(),
        protocol::UDP => "udp".into(),
        protocol::SCTP => "sctp".into(),
        other => other.to_string(),
    }
}

impl ConnectionView {
    /// The line of `dpctl/dump-conntrack -s`: with the seconds until the connection ends.
    #[must_use]
    pub fn with_timeout(&self) -> impl fmt::Display + '_ {
        Line { view: self, timeout: true, states: false }
    }

    /// The line of `dpctl/dump-conntrack -m`: with the TCP states of both peers, and the timeout where asked for.
    #[must_use]
    pub fn with_states(&self, timeout: bool) -> impl fmt::Display + '_ {
        Line { view: self, timeout, states: true }
    }

    /// The protocol's name in dumps, or its number.
    #[must_use]
    pub fn protocol_name(&self) -> String {
        protocol_name(self.original.protocol())
    }
}

/// The line of `dpctl/dump-conntrack`.
impl fmt::Display for ConnectionView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Line { view: self, timeout: false, states: false }.fmt(f)
    }
}

struct Line<'a> {
    view: &'a ConnectionView,
    timeout: bool,
    states: bool,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let view = self.view;
        f.write_str(&view.protocol_name())?;
        write!(f, ",orig=({}),reply=({})", view.original, view.reply)?;
        if view.zone != 0 {
            write!(f, ",zone={}", view.zone)?;
        }
        if self.timeout {
            write!(f, ",timeout={}", view.remaining / 1000)?;
        }
        if view.mark != 0 {
            write!(f, ",mark={}", view.mark)?;
        }
        if view.label != 0 {
            write!(f, ",labels={:#x}", view.label)?;
        }
        match view.state {
            ProtocolState::Tcp { original, reply } if self.states => {
                write!(f, ",protoinfo=(state_orig={},state_reply={})", original.name(), reply.name())?;
            }
            ProtocolState::Tcp { original, reply } => {
                write!(f, ",protoinfo=(state={})", original.max(reply).summary())?;
            }
            ProtocolState::Sctp { state, tags: [original, reply] } => {
                write!(f, ",protoinfo=(state={state},vtag_orig={original},vtag_reply={reply})")?;
            }
            ProtocolState::Other { .. } => {}
        }
        if let Some(helper) = view.helper {
            write!(f, ",helper={}", helper.name())?;
        }
        match view.parent {
            Some(parent) if self.states => write!(f, ",parent=({parent})"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(protocol: u8, ports: (u16, u16)) -> ConnectionView {
        let original =
            Tuple::new([10, 1, 1, 1].into(), [10, 1, 1, 2].into(), ports.0, ports.1, protocol, 0).unwrap();
        ConnectionView {
            original,
            reply: original.reversed(),
            zone: 0,
            mark: 0,
            label: 0,
            remaining: 29_999,
            age: 0,
            state: ProtocolState::Other { answered: false },
            helper: None,
            source_nat: false,
            destination_nat: false,
            parent: None,
            traffic: None,
        }
    }

    #[test]
    fn connections_print_as_open_vswitch_prints_them() {
        assert_eq!(
            view(1, (7, 8 << 8)).to_string(),
            "icmp,orig=(src=10.1.1.1,dst=10.1.1.2,id=7,type=8,code=0),reply=(src=10.1.1.2,dst=10.1.1.1,id=7,type=0,code=0)"
        );
        assert_eq!(
            view(47, (0, 0)).to_string(),
            "47,orig=(src=10.1.1.1,dst=10.1.1.2,sport=0,dport=0),reply=(src=10.1.1.2,dst=10.1.1.1,sport=0,dport=0)"
        );
        let tcp = ConnectionView {
            zone: 5,
            mark: 7,
            label: 0xabc,
            helper: Some(Helper::Ftp),
            state: ProtocolState::Tcp { original: TcpState::FinWait2, reply: TcpState::Closing },
            ..view(6, (40000, 80))
        };
        assert_eq!(
            tcp.with_timeout().to_string(),
            "tcp,orig=(src=10.1.1.1,dst=10.1.1.2,sport=40000,dport=80),\
             reply=(src=10.1.1.2,dst=10.1.1.1,sport=80,dport=40000),\
             zone=5,timeout=29,mark=7,labels=0xabc,protoinfo=(state=TIME_WAIT),helper=ftp"
        );
    }
}
