//! Associations chunk by chunk: who sends, with which tag, and what must come out.

use super::*;
use Direction::{Original, Reply};
use proptest::prelude::*;

/// A chunk with a value of `len` bytes.
fn chunk(kind: u8, flags: u8, value: &[u8]) -> Vec<u8> {
    let len = u16::try_from(4 + value.len()).unwrap();
    let mut bytes = vec![kind, flags];
    bytes.extend(len.to_be_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// INIT (1) or INIT ACK (2) that offers a tag.
fn init(kind: u8, tag: u32) -> Vec<u8> {
    let mut value = tag.to_be_bytes().to_vec();
    value.extend([0; 12]);
    chunk(kind, 0, &value)
}

const DATA: u8 = 0;
const HEARTBEAT: u8 = 4;
const HEARTBEAT_ACK: u8 = 5;
const ABORT: u8 = 6;
const SHUTDOWN: u8 = 7;
const SHUTDOWN_ACK: u8 = 8;
const ERROR: u8 = 9;
const COOKIE_ECHO: u8 = 10;
const COOKIE_ACK: u8 = 11;
const SHUTDOWN_COMPLETE: u8 = 14;

/// The tag that the client has offered, which packets to it carry; and the server's.
const CLIENT: u32 = 0xc11e;
const SERVER: u32 = 0x5e45;

struct Script {
    peers: [Peer; 2],
    timeout: Option<Timeout>,
}

fn first(tag: u32, chunks: &[u8]) -> Option<Script> {
    start(&Packet { tag, chunks }).map(|(peers, timeout)| Script { peers, timeout: Some(timeout) })
}

impl Script {
    fn init() -> Self {
        first(0, &init(1, CLIENT)).unwrap()
    }

    fn established() -> Self {
        let mut script = Self::init();
        script.sees(Reply, CLIENT, &init(2, SERVER), Verdict::Established, SctpState::CookieWait);
        script.one(Original, SERVER, COOKIE_ECHO, Verdict::Established, SctpState::CookieEchoed);
        assert_eq!(script.timeout, Some(Timeout::SctpCookieEchoed));
        script.one(Reply, CLIENT, COOKIE_ACK, Verdict::Established, SctpState::Established);
        assert_eq!(script.timeout, Some(Timeout::SctpEstablished));
        script
    }

    #[track_caller]
    fn sees(&mut self, from: Direction, tag: u32, chunks: &[u8], verdict: Verdict, state: SctpState) {
        let before = self.peers;
        let (judged, timeout) = track(&mut self.peers, from, &Packet { tag, chunks });
        self.timeout = timeout;
        assert_eq!((judged, shown(&self.peers).0), (verdict, state));
        if verdict == Verdict::Invalid {
            assert_eq!((self.peers, self.timeout), (before, None));
        }
    }

    #[track_caller]
    fn one(&mut self, from: Direction, tag: u32, kind: u8, verdict: Verdict, state: SctpState) {
        self.sees(from, tag, &chunk(kind, 0, &[7; 5]), verdict, state);
    }
}

#[test]
fn a_handshake_is_new_until_it_is_answered_and_learns_both_tags() {
    let script = Script::established();
    assert_eq!(shown(&script.peers), (SctpState::Established, [SERVER, CLIENT]));
    let mut script = Script::init();
    assert_eq!(script.timeout, Some(Timeout::SctpCookieWait));
    script.sees(Original, 0, &init(1, CLIENT), Verdict::New, SctpState::CookieWait);
}

#[test]
fn data_may_come_with_the_cookie_and_its_acknowledgement() {
    let mut script = Script::init();
    script.sees(Reply, CLIENT, &init(2, SERVER), Verdict::Established, SctpState::CookieWait);
    let both = [chunk(COOKIE_ECHO, 0, &[1; 9]), chunk(DATA, 3, &[0; 13])].concat();
    script.sees(Original, SERVER, &both, Verdict::Established, SctpState::CookieEchoed);
    let both = [chunk(COOKIE_ACK, 0, &[]), chunk(3, 0, &[0; 12])].concat();
    script.sees(Reply, CLIENT, &both, Verdict::Established, SctpState::Established);
}

#[test]
fn a_shutdown_of_either_side_ends_the_association_and_strays_keep_it_no_longer() {
    for (who, tag, other, other_tag, state) in [
        (Original, SERVER, Reply, CLIENT, SctpState::ShutdownSent),
        (Reply, CLIENT, Original, SERVER, SctpState::ShutdownReceived),
    ] {
        let mut script = Script::established();
        script.one(who, tag, SHUTDOWN, Verdict::Established, state);
        script.one(other, other_tag, DATA, Verdict::Established, state);
        script.one(other, other_tag, SHUTDOWN_ACK, Verdict::Established, SctpState::ShutdownAckSent);
        script.one(who, tag, SHUTDOWN_COMPLETE, Verdict::Established, SctpState::Closed);
        assert_eq!(script.timeout, Some(Timeout::SctpClosed));
        script.one(other, other_tag, DATA, Verdict::Established, SctpState::Closed);
        assert_eq!(script.timeout, None);
    }
}

#[test]
fn shutdowns_that_cross_end_it_too() {
    let mut script = Script::established();
    script.one(Original, SERVER, SHUTDOWN, Verdict::Established, SctpState::ShutdownSent);
    script.one(Reply, CLIENT, SHUTDOWN, Verdict::Established, SctpState::ShutdownSent);
    script.one(Original, SERVER, SHUTDOWN_ACK, Verdict::Established, SctpState::ShutdownAckSent);
    script.one(Reply, CLIENT, SHUTDOWN_ACK, Verdict::Established, SctpState::ShutdownAckSent);
    script.one(Reply, CLIENT, SHUTDOWN_COMPLETE, Verdict::Established, SctpState::Closed);
}

#[test]
fn a_wrong_tag_makes_every_chunk_invalid() {
    for kind in (0..=14).filter(|kind| *kind != 1) {
        for tag in [0, CLIENT, 1, SERVER + 1] {
            let mut script = Script::established();
            script.sees(Original, tag, &chunk(kind, 0, &[0; 16]), Verdict::Invalid, SctpState::Established);
        }
    }
}

#[test]
fn an_abort_needs_the_receiver_s_tag_or_reflects_the_sender_s_own() {
    for (tag, flags, verdict) in [
        (CLIENT, 0, Verdict::Established),
        (SERVER, 1, Verdict::Established),
        (CLIENT, 1, Verdict::Invalid),
        (SERVER, 0, Verdict::Invalid),
        (0, 1, Verdict::Invalid),
    ] {
        let mut script = Script::established();
        let state = if verdict == Verdict::Invalid { SctpState::Established } else { SctpState::Closed };
        script.sees(Reply, tag, &chunk(ABORT, flags, &[]), verdict, state);
    }
    // A refused INIT: its sender's tag is known from it.
    let mut script = Script::init();
    script.one(Reply, CLIENT, ABORT, Verdict::Established, SctpState::Closed);
}

#[test]
fn a_shutdown_complete_may_reflect_its_receiver_s_tag() {
    let mut script = Script::established();
    script.one(Original, SERVER, SHUTDOWN, Verdict::Established, SctpState::ShutdownSent);
    script.one(Reply, CLIENT, SHUTDOWN_ACK, Verdict::Established, SctpState::ShutdownAckSent);
    let complete = chunk(SHUTDOWN_COMPLETE, 1, &[]);
    script.sees(Original, SERVER, &complete, Verdict::Invalid, SctpState::ShutdownAckSent);
    script.sees(Original, CLIENT, &complete, Verdict::Established, SctpState::Closed);
}

#[test]
fn what_answers_starts_nothing_and_what_is_malformed_neither() {
    for kind in
        [2, HEARTBEAT_ACK, ABORT, SHUTDOWN, SHUTDOWN_ACK, ERROR, COOKIE_ECHO, COOKIE_ACK, SHUTDOWN_COMPLETE]
    {
        assert!(first(9, &chunk(kind, 0, &[0; 16])).is_none(), "{kind}");
    }
    let init = init(1, CLIENT);
    assert!(first(0, &init).is_some());
    assert!(first(1, &init).is_none(), "an INIT has no tag");
    assert!(first(0, &init[..12]).is_none(), "cut");
    assert!(first(0, &super::tests::init(1, 0)).is_none(), "the tag that it offers is never 0");
    assert!(first(0, &[init.clone(), chunk(DATA, 0, &[0; 13])].concat()).is_none(), "INIT comes alone");
    for bytes in [&[][..], &[0], &[0, 0, 0, 3], &[0, 0, 0, 0], &[0, 0, 0, 9, 1, 2, 3, 4]] {
        assert!(first(9, bytes).is_none(), "{bytes:?}");
    }
}

#[test]
fn a_malformed_chunk_behind_a_right_one_makes_the_packet_invalid() {
    let mut script = Script::established();
    let mut chunks = chunk(SHUTDOWN, 0, &[0; 4]);
    chunks.extend([0, 0, 0, 2]);
    script.sees(Original, SERVER, &chunks, Verdict::Invalid, SctpState::Established);
    script.sees(Original, SERVER, &[], Verdict::Invalid, SctpState::Established);
    let bundled = [init(1, 77), chunk(DATA, 0, &[0; 13])].concat();
    script.sees(Original, 0, &bundled, Verdict::Invalid, SctpState::Established);
}

#[test]
fn a_path_without_a_handshake_is_picked_up_and_keeps_the_tags_that_it_shows() {
    for kind in [DATA, HEARTBEAT, 3, 0xc0] {
        let mut script = first(SERVER, &chunk(kind, 0, &[0; 12])).unwrap();
        assert_eq!(script.timeout, Some(Timeout::SctpHeartbeatSent));
        script.one(Original, SERVER, DATA, Verdict::New, SctpState::HeartbeatSent);
        script.one(Original, 1, DATA, Verdict::Invalid, SctpState::HeartbeatSent);
        script.one(Reply, CLIENT, HEARTBEAT_ACK, Verdict::Established, SctpState::Established);
        assert_eq!(shown(&script.peers).1, [SERVER, CLIENT]);
        script.one(Reply, 1, DATA, Verdict::Invalid, SctpState::Established);
    }
    assert!(first(0, &chunk(DATA, 0, &[0; 12])).is_none());
}

#[test]
fn an_unanswered_init_cannot_be_established_from_one_side() {
    let mut script = Script::init();
    for kind in [DATA, COOKIE_ECHO, COOKIE_ACK, SHUTDOWN, HEARTBEAT] {
        for tag in [0, 1, CLIENT] {
            script.one(Original, tag, kind, Verdict::Invalid, SctpState::CookieWait);
        }
    }
}

#[test]
fn inits_of_both_sides_make_one_association() {
    let mut script = Script::init();
    script.sees(Reply, 0, &init(1, SERVER), Verdict::Established, SctpState::CookieWait);
    script.sees(Original, SERVER, &init(2, CLIENT), Verdict::Established, SctpState::CookieWait);
    script.sees(Reply, CLIENT, &init(2, SERVER), Verdict::Established, SctpState::CookieWait);
    script.one(Reply, CLIENT, COOKIE_ECHO, Verdict::Established, SctpState::CookieEchoed);
    script.one(Original, SERVER, COOKIE_ACK, Verdict::Established, SctpState::Established);
    assert_eq!(shown(&script.peers).1, [SERVER, CLIENT]);
}

#[test]
fn a_restart_takes_new_tags_only_with_the_cookie_that_proves_it() {
    let mut script = Script::established();
    script.sees(Original, 0, &init(1, 0xaaaa), Verdict::Established, SctpState::Established);
    // The old tags hold until then, so that a forged INIT is of no use.
    script.one(Reply, CLIENT, DATA, Verdict::Established, SctpState::Established);
    script.one(Reply, 0xaaaa, DATA, Verdict::Invalid, SctpState::Established);
    script.sees(Reply, 0xaaaa, &init(2, 0xbbbb), Verdict::Established, SctpState::Established);
    script.one(Original, 0xbbbb, COOKIE_ECHO, Verdict::Established, SctpState::CookieEchoed);
    script.one(Reply, 0xaaaa, COOKIE_ACK, Verdict::Established, SctpState::Established);
    assert_eq!(shown(&script.peers).1, [0xbbbb, 0xaaaa]);
    script.one(Reply, CLIENT, DATA, Verdict::Invalid, SctpState::Established);
}

#[test]
fn an_init_on_an_association_that_is_over_starts_another() {
    let mut script = Script::established();
    script.one(Original, SERVER, ABORT, Verdict::Established, SctpState::Closed);
    script.sees(Original, 0, &init(1, 0), Verdict::Invalid, SctpState::Closed);
    script.sees(Original, 0, &init(1, 9), Verdict::Restart, SctpState::Closed);
    script.sees(Reply, 0, &init(1, 9), Verdict::Restart, SctpState::Closed);
}

#[test]
fn an_error_and_a_stale_cookie_change_nothing() {
    let mut script = Script::init();
    script.sees(Reply, CLIENT, &init(2, SERVER), Verdict::Established, SctpState::CookieWait);
    script.one(Original, SERVER, COOKIE_ECHO, Verdict::Established, SctpState::CookieEchoed);
    script.one(Reply, CLIENT, ERROR, Verdict::Established, SctpState::CookieEchoed);
    script.sees(Original, 0, &init(1, CLIENT), Verdict::Established, SctpState::CookieEchoed);
}

#[test]
fn the_table_has_two_rows_a_chunk_in_order_and_each_says_why() {
    for (row, (chunk, reply)) in
        MACHINE.iter().zip(SctpChunk::ALL.into_iter().flat_map(|chunk| [(chunk, false), (chunk, true)]))
    {
        assert_eq!((row.chunk, row.reply), (chunk, reply));
        assert!(!row.why.is_empty());
        assert!(!reply || row.first == NO, "a connection starts with its original direction");
        for (state, next) in SctpState::ALL.into_iter().zip(row.next) {
            // Only an INIT leads out of the end.
            assert!(
                state != SctpState::Closed || next == to(state) || next == NO || chunk == SctpChunk::Init
            );
        }
    }
}

proptest! {
    #[test]
    fn no_sequence_of_packets_panics_leaves_the_machine_or_changes_anything_when_invalid(
        packets in prop::collection::vec(
            (any::<bool>(), prop::sample::select(vec![0, CLIENT, SERVER, 7]),
             prop::collection::vec((0u8..16, 0u8..2, prop::collection::vec(any::<u8>(), 0..20)), 0..4),
             prop::option::of(0usize..40)),
            1..60,
        ),
    ) {
        let mut script = Script::established();
        for (back, tag, chunks, cut) in packets {
            let mut bytes: Vec<u8> =
                chunks.iter().flat_map(|(kind, flags, value)| chunk(*kind, *flags, value)).collect();
            bytes.truncate(cut.unwrap_or(usize::MAX));
            let before = script.peers;
            let packet = Packet { tag, chunks: &bytes };
            match track(&mut script.peers, if back { Reply } else { Original }, &packet) {
                (Verdict::Restart, _) => {
                    if let Some((fresh, _)) = start(&packet) {
                        script.peers = fresh;
                    }
                }
                (Verdict::Invalid, timeout) => {
                    prop_assert_eq!(timeout, None);
                    prop_assert_eq!(script.peers, before);
                }
                _ => {}
            }
            prop_assert!(usize::from(script.peers[0].state) < SctpState::ALL.len());
        }
    }
}
