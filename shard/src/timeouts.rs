//! How long a connection may be silent in each state. The table below is the one place for names, defaults and
//! reasons; commands, configuration and documentation are made from it.

use thiserror::Error;

/// The longest timeout that can be set, in seconds: 45 days.
pub const LONGEST: u32 = 45 * 86_400;

macro_rules! timeouts {
    ($($variant:ident $name:literal $default:literal $why:literal;)*) => {
        /// The state of a connection that decides how long it may be silent.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Timeout {
            $(#[doc = $why] $variant,)*
        }

        impl Timeout {
            /// Every timeout, in the order of the table.
            pub const ALL: [Self; Self::COUNT] = [$(Self::$variant),*];
            /// How many there are.
            pub const COUNT: usize = [$($name),*].len();

            /// Name as in ovs-vswitchd's `CT_Timeout_Policy`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }
            /// Seconds, unless configured otherwise.
            #[must_use]
            pub const fn default_seconds(self) -> u32 {
                match self { $(Self::$variant => $default),* }
            }
            /// Why the default is what it is.
            #[must_use]
            pub const fn reason(self) -> &'static str {
                match self { $(Self::$variant => $why),* }
            }
        }
    };
}

timeouts! {
    TcpSynSent "tcp_syn_sent" 30 "A SYN was seen, or the first segment of a stream picked up midway. A host repeats a SYN after 1, 3, 7 and 15 seconds (RFC 6298), which is four chances.";
    TcpSynRecv "tcp_syn_recv" 30 "Both sides have spoken, the handshake is unfinished. As tcp_syn_sent: a half-open connection is what a SYN flood leaves.";
    TcpEstablished "tcp_established" 86_400 "The handshake is done. A day; RFC 5382 REQ-5 asks for at least 2 hours 4 minutes, two minutes past the keepalive of RFC 1122.";
    TcpFinWait "tcp_fin_wait" 900 "One side has sent FIN; the other may still send for long (RFC 9293 section 3.6), but is watched. RFC 5382 REQ-5 asks for at least 4 minutes.";
    TcpTimeWait "tcp_time_wait" 45 "Both sides have sent FIN, not all is acknowledged: time to repeat the last FIN.";
    TcpClose "tcp_close" 30 "Both FINs are acknowledged, or RST: stray segments may still be in the network.";
    UdpFirst "udp_first" 60 "One packet was seen. Also for protocols without ports.";
    UdpSingle "udp_single" 60 "Several packets in one direction.";
    UdpMultiple "udp_multiple" 30 "Both directions were seen. RFC 4787 REQ-5 asks for two minutes, which a deployment sets; Open vSwitch's value is kept.";
    SctpClosed "sctp_closed" 10 "The association was aborted or shut down: stray packets may still be in the network.";
    SctpCookieWait "sctp_cookie_wait" 30 "INIT was seen. It is repeated after 1, 3, 7 and 15 seconds (RFC 9260 sections 6.3.3 and 16: RTO.Initial 1 s, doubled each time).";
    SctpCookieEchoed "sctp_cookie_echoed" 60 "COOKIE ECHO was seen. A cookie is valid for 60 seconds (RFC 9260 section 16, Valid.Cookie.Life).";
    SctpEstablished "sctp_established" 210 "Idle paths are probed every 30 seconds (HB.interval); after five unanswered probes (Path.Max.Retrans) and RTO.Max of 60 seconds the path has failed (RFC 9260 sections 8.2 and 16).";
    SctpShutdownSent "sctp_shutdown_sent" 30 "SHUTDOWN was seen, which is repeated after 1, 3, 7 and 15 seconds (RFC 9260 section 9.2).";
    SctpShutdownReceived "sctp_shutdown_recd" 30 "The other side's SHUTDOWN was seen: as sctp_shutdown_sent.";
    SctpShutdownAckSent "sctp_shutdown_ack_sent" 30 "SHUTDOWN ACK was seen: repeated like SHUTDOWN, until SHUTDOWN COMPLETE.";
    SctpHeartbeatSent "sctp_heartbeat_sent" 30 "A path that began without a handshake was not answered yet: one heartbeat interval (RFC 9260 section 16).";
    IcmpFirst "icmp_first" 60 "A query without an answer. RFC 5508 REQ-1 asks for 60 seconds.";
    IcmpReply "icmp_reply" 30 "A query was answered.";
}

/// A timeout that cannot be.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{name}={seconds} is out of range; give 1 to {LONGEST} seconds")]
pub struct TimeoutError {
    name: &'static str,
    seconds: u32,
}

/// Seconds for every [`Timeout`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts([u32; Timeout::COUNT]);

impl Default for Timeouts {
    fn default() -> Self {
        Self(Timeout::ALL.map(Timeout::default_seconds))
    }
}

impl Timeouts {
    /// Seconds a connection may be silent.
    #[inline]
    #[must_use]
    pub const fn seconds(&self, timeout: Timeout) -> u32 {
        self.0[timeout as usize]
    }

    /// Milliseconds a connection may be silent.
    #[inline]
    #[must_use]
    pub(crate) fn milliseconds(&self, timeout: Timeout) -> u64 {
        u64::from(self.seconds(timeout)) * 1000
    }

    /// Sets one timeout in seconds. Connections take it with their next packet.
    ///
    /// # Errors
    /// 0 and more than [`LONGEST`] are refused.
    pub fn set(&mut self, timeout: Timeout, seconds: u32) -> Result<(), TimeoutError> {
        if seconds == 0 || seconds > LONGEST {
            return Err(TimeoutError { name: timeout.name(), seconds });
        }
        self.0[timeout as usize] = seconds;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::LONGEST_LEAP;

    #[test]
    fn every_default_is_in_range_and_shorter_than_the_longest_leap() {
        let mut timeouts = Timeouts::default();
        for timeout in Timeout::ALL {
            timeouts.set(timeout, timeout.default_seconds()).unwrap();
            assert_eq!(timeouts.seconds(timeout), timeout.default_seconds());
        }
        assert!(u64::from(LONGEST) * 1000 < LONGEST_LEAP);
    }

    #[test]
    fn a_timeout_of_zero_or_of_months_is_refused_by_name() {
        let mut timeouts = Timeouts::default();
        assert_eq!(
            timeouts.set(Timeout::UdpFirst, 0).unwrap_err().to_string(),
            "udp_first=0 is out of range; give 1 to 3888000 seconds"
        );
        assert!(timeouts.set(Timeout::UdpFirst, LONGEST + 1).is_err());
        assert_eq!(timeouts, Timeouts::default());
    }
}
