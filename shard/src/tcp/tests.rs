//! Scripts of segments: who sends, flags, sequence and acknowledgement numbers, payload, and what must come out.

use super::*;
use crate::table::bucket::Direction;
use Direction::{Original, Reply};
use proptest::prelude::*;

fn track_in(
    [first, second]: &mut [Peer; 2],
    from: Direction,
    segment: &Segment,
    liberal: bool,
) -> (Verdict, Option<Timeout>) {
    let cells = [PeerCell::default(), PeerCell::default()];
    let [own_first, own_second] = cells.each_ref().map(Owned::new);
    own_first.store(*first);
    own_second.store(*second);
    let (source, destination) =
        if from == Original { (own_first, own_second) } else { (own_second, own_first) };
    let judged = track(source, destination, segment, liberal);
    (*first, *second) = (cells[0].load(), cells[1].load());
    judged
}

/// One connection and the numbers both sides start from.
struct Script {
    peers: [Peer; 2],
    liberal: bool,
    timeout: Option<Timeout>,
}

fn segment(flags: &str, seq: u32, ack: u32, payload: u32) -> Segment {
    let flags = flags.chars().fold(0, |bits, flag| {
        bits | match flag {
            'F' => FIN,
            'S' => SYN,
            'R' => RST,
            'P' => 0x08,
            'A' => ACK,
            other => panic!("no flag {other}"),
        }
    });
    Segment { seq, ack, window: 1000, flags, scale: None, payload }
}

impl Script {
    fn start(first: &Segment) -> Self {
        let (peers, timeout) = start(first).unwrap();
        Self { peers, liberal: false, timeout: Some(timeout) }
    }

    /// Client's numbers start at 100, the server's at 500.
    fn established() -> Self {
        let mut script = Self::start(&segment("S", 100, 0, 0));
        script.sees(Reply, "SA", 500, 101, 0, Verdict::Established);
        script.sees(Original, "A", 101, 501, 0, Verdict::Established);
        assert_eq!(script.timeout, Some(Timeout::TcpEstablished));
        script
    }

    fn take(&mut self, from: Direction, segment: &Segment) -> Verdict {
        let (verdict, timeout) = track_in(&mut self.peers, from, segment, self.liberal);
        self.timeout = timeout;
        verdict
    }

    #[track_caller]
    fn sees(&mut self, from: Direction, flags: &str, seq: u32, ack: u32, payload: u32, verdict: Verdict) {
        assert_eq!(self.take(from, &segment(flags, seq, ack, payload)), verdict);
    }

    fn states(&self) -> (TcpState, TcpState) {
        (self.peers[0].tcp_state(), self.peers[1].tcp_state())
    }
}

#[test]
fn a_handshake_establishes_and_a_repeated_syn_is_still_new() {
    let mut script = Script::start(&segment("S", 100, 0, 0));
    assert_eq!(script.states(), (SynSent, Closed));
    script.sees(Original, "S", 100, 0, 0, Verdict::New);
    assert_eq!(script.timeout, Some(Timeout::TcpSynSent));
    script.sees(Reply, "SA", 500, 101, 0, Verdict::Established);
    assert_eq!(script.states(), (Established, SynSent));
    assert_eq!(script.timeout, Some(Timeout::TcpSynRecv));
    script.sees(Reply, "SA", 500, 101, 0, Verdict::Established);
    script.sees(Original, "A", 101, 501, 0, Verdict::Established);
    assert_eq!(script.states(), (Established, Established));
    assert_eq!(script.timeout, Some(Timeout::TcpEstablished));
}

#[test]
fn a_close_goes_through_fin_wait_and_time_wait_to_close() {
    let mut script = Script::established();
    script.sees(Original, "FA", 101, 501, 0, Verdict::Established);
    assert_eq!((script.states(), script.timeout), ((Closing, Established), Some(Timeout::TcpFinWait)));
    script.sees(Reply, "A", 501, 102, 0, Verdict::Established);
    assert_eq!((script.states(), script.timeout), ((FinWait2, Established), Some(Timeout::TcpFinWait)));
    script.sees(Reply, "FA", 501, 102, 0, Verdict::Established);
    assert_eq!((script.states(), script.timeout), ((FinWait2, Closing), Some(Timeout::TcpTimeWait)));
    script.sees(Original, "A", 102, 502, 0, Verdict::Established);
    assert_eq!((script.states(), script.timeout), ((FinWait2, FinWait2), Some(Timeout::TcpClose)));
}

#[test]
fn a_syn_on_a_closed_connection_starts_another() {
    let mut script = Script::established();
    script.sees(Original, "RA", 101, 501, 0, Verdict::Established);
    assert_eq!((script.states(), script.timeout), ((TimeWait, TimeWait), Some(Timeout::TcpClose)));
    script.sees(Original, "S", 9000, 0, 0, Verdict::Restart);
    let mut script = Script::established();
    script.sees(Original, "S", 9000, 0, 0, Verdict::Invalid);
}

#[test]
fn a_reset_must_hit_the_expected_number_or_its_neighbours() {
    for (seq, verdict) in [
        (109, Verdict::Invalid),
        (110, Verdict::Established),
        (111, Verdict::Established),
        (112, Verdict::Established),
        (113, Verdict::Invalid),
        (111 + 500, Verdict::Invalid),
    ] {
        let mut script = Script::established();
        script.sees(Original, "A", 101, 501, 10, Verdict::Established);
        script.sees(Original, "R", seq, 0, 0, verdict);
        let reset = verdict == Verdict::Established;
        assert_eq!(script.states() == (TimeWait, TimeWait), reset, "{seq}");
    }
}

#[test]
fn a_refused_connection_is_reset_with_an_empty_ack_field_or_a_right_one() {
    for ack in [0, 101] {
        let mut script = Script::start(&segment("S", 100, 0, 0));
        script.sees(Reply, "RA", 0, ack, 0, Verdict::Established);
        assert_eq!(script.timeout, Some(Timeout::TcpClose));
    }
}

#[test]
fn data_beyond_the_announced_window_is_outside_and_changes_nothing() {
    let mut script = Script::established();
    let before = script.peers;
    // The server announced 1000 bytes from 101 on.
    script.sees(Original, "A", 101, 501, 1001, Verdict::Invalid);
    script.sees(Original, "A", 102, 501, 1000, Verdict::Invalid);
    // Repeats from further back than one of the server's windows.
    script.sees(Original, "A", 100u32.wrapping_sub(1001), 501, 5, Verdict::Invalid);
    script.sees(Original, "A", 101, 501 + 70_000, 5, Verdict::Invalid);
    assert_eq!(script.peers, before);
    assert_eq!(script.timeout, None);
    script.sees(Original, "A", 101, 501, 1000, Verdict::Established);
    script.sees(Original, "A", 101, 501, 1000, Verdict::Established);
}

#[test]
fn liberal_mode_takes_what_is_outside() {
    let mut script = Script { liberal: true, ..Script::established() };
    script.sees(Original, "A", 0x8000_0000, 501, 1000, Verdict::Established);
}

#[test]
fn a_port_that_is_tried_again_with_another_number_is_answered() {
    let mut script = Script::start(&segment("S", 100, 0, 0));
    script.sees(Original, "S", 900_000, 0, 0, Verdict::New);
    script.sees(Reply, "SA", 500, 900_001, 0, Verdict::Established);
    script.sees(Original, "A", 900_001, 501, 0, Verdict::Established);
    script.sees(Original, "A", 900_001, 501, 100, Verdict::Established);
}

#[test]
fn a_syn_ack_starts_no_connection() {
    assert!(start(&segment("SA", 1, 1, 0)).is_none());
    assert!(start(&segment("S", 1, 0, 0)).is_some());
    assert!(start(&segment("PA", 1, 1, 9)).is_some());
}

#[test]
fn a_stream_picked_up_midway_may_use_any_scale() {
    let mut script = Script::start(&segment("A", 100, 500, 10));
    script.sees(Reply, "A", 500, 110, 1_000_000, Verdict::Established);
    script.sees(Original, "A", 110, 500_500, 10, Verdict::Established);
    assert_eq!(script.states(), (Established, Established));
    script.sees(Reply, "A", 1_000_500, 120, 1000, Verdict::Established);
}

#[test]
fn windows_are_scaled_only_if_both_sides_offered_it() {
    let offer = |flags: &str, seq, ack, scale| Segment { scale, ..segment(flags, seq, ack, 0) };
    for (answer, verdict) in [(Some(7), Verdict::Established), (None, Verdict::Invalid)] {
        let mut script = Script::start(&offer("S", 100, 0, Some(5)));
        assert_eq!(script.take(Reply, &offer("SA", 500, 101, answer)), Verdict::Established);
        script.sees(Original, "A", 101, 501, 0, Verdict::Established);
        script.sees(Reply, "A", 501, 101, 0, Verdict::Established);
        // The client announced 1000 << 5 bytes.
        script.sees(Reply, "A", 501, 101, 30_000, verdict);
    }
}

#[test]
fn both_sides_may_open_at_once() {
    let mut script = Script::start(&segment("S", 100, 0, 0));
    script.sees(Reply, "S", 500, 0, 0, Verdict::New);
    script.sees(Original, "SA", 100, 501, 0, Verdict::Established);
    script.sees(Reply, "SA", 500, 101, 0, Verdict::Established);
    assert_eq!(script.states(), (Established, Established));
}

#[test]
fn sequence_numbers_wrap_round() {
    let mut script = Script::start(&segment("S", u32::MAX - 5, 0, 0));
    script.sees(Reply, "SA", u32::MAX, u32::MAX - 4, 0, Verdict::Established);
    script.sees(Original, "A", u32::MAX - 4, 0, 900, Verdict::Established);
    script.sees(Reply, "A", 0, 895, 900, Verdict::Established);
    script.sees(Original, "A", 895, 900, 900, Verdict::Established);
}

#[test]
fn options_are_walked_to_the_scale_and_never_beyond_their_end() {
    assert_eq!(scale_option(&[2, 4, 5, 0xb4, 1, 3, 3, 7]), Some(7));
    assert_eq!(scale_option(&[1, 1, 0, 3, 3, 7]), None);
    for broken in [&[3, 3][..], &[3], &[2, 0, 3, 3, 7], &[2, 1, 3, 3, 7], &[8, 200, 1], &[3, 2, 3, 3], &[]] {
        assert_eq!(scale_option(broken), None, "{broken:?}");
    }
}

#[test]
fn the_machine_never_leads_back_and_every_event_is_in_it() {
    for row in tcp_machine() {
        for (from, to) in TcpState::ALL.into_iter().zip(row.next) {
            assert!(to >= from, "{:?} {:?} turns {from} into {to}", row.event, row.side);
        }
        assert!(!row.why.is_empty());
    }
    for event in [TcpEvent::Syn, TcpEvent::Fin, TcpEvent::Ack, TcpEvent::Rst] {
        assert!(tcp_machine().iter().any(|row| row.event == event));
    }
}

proptest! {
    #[test]
    fn no_sequence_of_segments_panics_or_leaves_the_machine(
        segments in prop::collection::vec(
            (any::<bool>(), any::<u8>(), any::<u32>(), any::<u32>(), any::<u16>(), any::<Option<u8>>(), 0u32..70_000),
            1..60,
        ),
        liberal: bool,
    ) {
        let mut peers = [Peer::default(); 2];
        for (back, flags, seq, ack, window, scale, payload) in segments {
            let segment = Segment { seq, ack, window, flags, scale, payload };
            let direction = if back { Reply } else { Original };
            match track_in(&mut peers, direction, &segment, liberal) {
                (Verdict::Restart, _) => {
                    if let Some((fresh, _)) = start(&segment) {
                        peers = fresh;
                    }
                }
                (Verdict::Invalid, timeout) => prop_assert_eq!(timeout, None),
                _ => {}
            }
            prop_assert!(peers.iter().all(|peer| usize::from(peer.state) < TcpState::ALL.len()));
        }
    }
}
