//! ICMP and ICMPv6 queries: established once answered. Errors are no packets of their own here; they belong to the
//! connection that they quote.

use weir_wire::Tuple;

use crate::table::bucket::Direction;
use crate::timeouts::Timeout;
use crate::verdict::Verdict;

const FIRST: u8 = 0;
const ANSWERED: u8 = 1;

/// State and timeout after the first packet; `None` if it may not start a connection, as an answer may not.
pub(crate) fn start(tuple: &Tuple) -> Option<(u8, Timeout)> {
    /// Echo, timestamp and information requests (RFC 792).
    const QUERIES: [u8; 3] = [8, 13, 15];
    /// Echo request (RFC 4443 section 4.1).
    const QUERY6: u8 = 128;
    let [kind, _code] = tuple.dst_port().to_be_bytes();
    let is_query = match tuple {
        Tuple::V4(_) => QUERIES.contains(&kind),
        Tuple::V6(_) => kind == QUERY6,
    };
    is_query.then_some((FIRST, Timeout::IcmpFirst))
}

/// Takes a query or an answer into account.
#[inline]
pub(crate) const fn track(state: &mut u8, direction: Direction) -> (Verdict, Timeout) {
    if matches!(direction, Direction::Reply) {
        *state = ANSWERED;
    }
    match *state {
        ANSWERED => (Verdict::Established, Timeout::IcmpReply),
        // A repeated query waits for its first answer.
        _ => (Verdict::New, Timeout::IcmpFirst),
    }
}

/// True once an answer was seen.
pub(crate) const fn is_answered(state: u8) -> bool {
    state == ANSWERED
}

#[cfg(test)]
mod tests {
    use super::*;
    use Direction::{Original, Reply};

    fn echo(kind: u8) -> Tuple {
        Tuple::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), 7, u16::from(kind) << 8, 1, 0).unwrap()
    }

    #[test]
    fn queries_start_connections_and_answers_do_not() {
        for query in [8, 13, 15] {
            assert!(start(&echo(query)).is_some());
            assert!(start(&echo(query).reversed()).is_none());
        }
        let v6 = |kind: u16| Tuple::new([1; 16].into(), [2; 16].into(), 7, kind << 8, 58, 0).unwrap();
        assert!(start(&v6(128)).is_some());
        assert!(start(&v6(129)).is_none());
    }

    #[test]
    fn a_query_is_new_until_it_is_answered() {
        let (mut state, _) = start(&echo(8)).unwrap();
        assert_eq!(track(&mut state, Original), (Verdict::New, Timeout::IcmpFirst));
        assert_eq!(track(&mut state, Reply), (Verdict::Established, Timeout::IcmpReply));
        assert_eq!(track(&mut state, Original), (Verdict::Established, Timeout::IcmpReply));
    }
}
