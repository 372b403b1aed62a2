//! UDP, and every protocol that has no tracker of its own: established once both sides have sent something.

use crate::table::bucket::Direction;
use crate::timeouts::Timeout;
use crate::verdict::Verdict;

/// One packet was seen.
const FIRST: u8 = 0;
/// Several packets in one direction.
const SINGLE: u8 = 1;
/// Packets in both directions.
const MULTIPLE: u8 = 2;

/// State and timeout after the first packet; any packet may start a connection.
pub(crate) const fn start() -> (u8, Timeout) {
    (FIRST, Timeout::UdpFirst)
}

/// Takes a packet into account.
#[inline]
pub(crate) const fn track(state: &mut u8, direction: Direction) -> (Verdict, Timeout) {
    *state = match (*state, direction) {
        (MULTIPLE, _) | (_, Direction::Reply) => MULTIPLE,
        _ => SINGLE,
    };
    match *state {
        MULTIPLE => (Verdict::Established, Timeout::UdpMultiple),
        _ => (Verdict::New, Timeout::UdpSingle),
    }
}

/// True once both sides have sent something.
pub(crate) const fn is_answered(state: u8) -> bool {
    state == MULTIPLE
}

#[cfg(test)]
mod tests {
    use super::*;
    use Direction::{Original, Reply};

    #[test]
    fn a_flow_is_new_until_it_is_answered_and_established_both_ways_afterwards() {
        let (mut state, timeout) = start();
        assert_eq!(timeout, Timeout::UdpFirst);
        assert_eq!(track(&mut state, Original), (Verdict::New, Timeout::UdpSingle));
        assert_eq!(track(&mut state, Original), (Verdict::New, Timeout::UdpSingle));
        assert_eq!(track(&mut state, Reply), (Verdict::Established, Timeout::UdpMultiple));
        assert_eq!(track(&mut state, Original), (Verdict::Established, Timeout::UdpMultiple));
    }
}
