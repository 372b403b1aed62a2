use proptest::prelude::*;

use super::*;

fn text(text: &str) -> Text {
    Text::from(text).unwrap()
}

fn edited(payload: &[u8], edits: &Edits) -> Vec<u8> {
    let (mut out, mut at) = (Vec::new(), 0);
    for edit in edits {
        out.extend_from_slice(&payload[at..usize::from(edit.at)]);
        out.extend_from_slice(edit.text.as_bytes());
        at = usize::from(edit.at + edit.remove);
    }
    out.extend_from_slice(&payload[at..]);
    out
}

#[test]
fn numbers_behind_an_edit_are_shifted_and_those_before_it_are_not() {
    let mut stream = Stream::default();
    assert!(stream.record(1005, 10, text("abc"), 7));
    for (seq, seen) in
        [(1000, 1000), (1005, 1005), (1006, 1006), (1008, 1008), (1014, 1008), (1015, 1008), (1020, 1013)]
    {
        assert_eq!(stream.forward(seq), seen, "{seq}");
    }
    for (seen, seq) in [(1000, 1000), (1005, 1005), (1007, 1007), (1008, 1015), (1013, 1020)] {
        assert_eq!(stream.backward(seen, Round::Down), seq, "{seen}");
    }
    assert_eq!(stream.edit_at(1005, 10).unwrap().port, 7);
    assert!(stream.edit_at(1005, 9).is_none());
}

#[test]
fn a_number_inside_an_inserted_text_is_neither_all_nor_nothing() {
    let mut stream = Stream::default();
    assert!(stream.record(100, 2, text("abcdef"), 7));
    assert_eq!(stream.backward(104, Round::Down), 101, "its last byte is not complete");
    assert_eq!(stream.backward(104, Round::Up), 102, "nothing of it is wholly in what begins here");
    assert_eq!(stream.backward(106, Round::Down), 102);
    assert_eq!(stream.backward(106, Round::Up), 102);
}

#[test]
fn only_the_end_of_the_stream_can_be_edited() {
    let mut stream = Stream::default();
    assert!(stream.record(100, 10, text("a"), 1));
    assert!(!stream.record(105, 10, text("a"), 1));
    assert!(!stream.record(90, 5, text("a"), 1));
    assert!(!stream.record(200, 0, text("a"), 1));
    assert!(stream.record(110, 1, text("a"), 1));
}

#[test]
fn a_retransmission_that_is_cut_in_the_middle_of_an_edit_gives_the_same_bytes() {
    let mut stream = Stream::default();
    let payload = b"PORT 192,168,0,2,31,144\r\n";
    assert!(stream.record(1005, 18, text("10,0,0,9,31,144"), 8080));
    let whole = edited(payload, &stream.edits_in(1000, 25));
    assert_eq!(whole, b"PORT 10,0,0,9,31,144\r\n");
    for cut in 1..payload.len() {
        let (first, second) = payload.split_at(cut);
        let number = 1000 + u32::try_from(cut).unwrap();
        let length = |part: &[u8]| u16::try_from(part.len()).unwrap();
        let mut both = edited(first, &stream.edits_in(1000, length(first)));
        assert_eq!(stream.forward(number), 1000 + u32::try_from(both.len()).unwrap(), "{cut}");
        both.extend(edited(second, &stream.edits_in(number, length(second))));
        assert_eq!(both, whole, "{cut}");
    }
}

#[test]
fn forgotten_edits_still_count_and_wrapping_numbers_bring_none_back() {
    let mut stream = Stream::default();
    let mut seq = u32::MAX - 50;
    let mut sent = 0u32;
    for _ in 0..100 {
        assert!(stream.record(seq, 3, text("abcd"), 1));
        sent += 1;
        assert_eq!(stream.forward(seq.wrapping_add(3)), seq.wrapping_add(3).wrapping_add(sent));
        seq = seq.wrapping_add(10);
    }
    for _ in 0..16 {
        seq = seq.wrapping_add(1 << 29);
        stream.forget_before(seq);
        assert_eq!(stream.forward(seq), seq.wrapping_add(100));
        assert_eq!(stream.backward(seq.wrapping_add(100), Round::Down), seq);
    }
    assert!(stream.edits.is_empty());
}

/// A stream with edits at random places, and what the receiver is to get.
fn scene() -> impl Strategy<Value = (u32, Vec<u8>, Vec<(usize, usize, String)>)> {
    let edit = (1usize..12, 1usize..20, "[a-z0-9,]{1,30}");
    (any::<u32>(), proptest::collection::vec(edit, 0..=REMEMBERED), 0usize..30).prop_map(
        |(isn, edits, rest)| {
            let (mut at, mut places) = (0, Vec::new());
            for (gap, old, new) in edits {
                places.push((at + gap, old, new));
                at += gap + old;
            }
            let sent = (0..at + rest).map(|byte| u8::try_from(byte % 251).unwrap()).collect();
            (isn, sent, places)
        },
    )
}

proptest! {
    /// The sender repeats and cuts its stream as it likes, segments are lost and come in any order: whatever reaches
    /// the receiver fits the one edited stream, and every acknowledgement that it can send names a place in the
    /// sender's stream up to which all has arrived, and no less than that.
    #[test]
    fn any_segments_of_a_stream_make_the_one_edited_stream(
        (isn, sent, places) in scene(),
        cuts in proptest::collection::vec((0usize..400, 1usize..60, any::<bool>()), 1..80),
    ) {
        let number = |at: usize| isn.wrapping_add(u32::try_from(at).unwrap());
        let mut stream = Stream::default();
        let (mut expected, mut end) = (Vec::new(), 0);
        for (at, old, new) in &places {
            prop_assert!(stream.record(number(*at), u16::try_from(*old).unwrap(), text(new), 1));
            expected.extend_from_slice(&sent[end..*at]);
            expected.extend_from_slice(new.as_bytes());
            end = at + old;
        }
        expected.extend_from_slice(&sent[end..]);

        let mut received: Vec<Option<u8>> = vec![None; expected.len()];
        let mut arrived = vec![false; sent.len()];
        for (start, length, lost) in cuts {
            let start = start % (sent.len() + 1);
            let stop = (start + length).min(sent.len());
            let segment = &sent[start..stop];
            let out = edited(segment, &stream.edits_in(number(start), u16::try_from(segment.len()).unwrap()));
            let place = usize::try_from(stream.forward(number(start)).wrapping_sub(isn)).unwrap();
            prop_assert_eq!(&expected[place..place + out.len()], &out[..]);
            prop_assert_eq!(stream.forward(number(stop)), number(place + out.len()));
            if lost {
                continue;
            }
            for (slot, byte) in received[place..].iter_mut().zip(out) {
                *slot = Some(byte);
            }
            arrived[start..stop].fill(true);
            let next = received.iter().position(Option::is_none).unwrap_or(expected.len());
            let acked = usize::try_from(stream.backward(number(next), Round::Down).wrapping_sub(isn)).unwrap();
            // Bytes that turn into nothing may be skipped: they count as arrived with those before them.
            for (at, seen) in arrived.iter().enumerate().take(acked) {
                let empty = stream.forward(number(at)) == stream.forward(number(at + 1));
                prop_assert!(*seen || empty, "byte {} acknowledged, never seen", at);
            }
            let in_order = arrived.iter().position(|seen| !seen).unwrap_or(sent.len());
            prop_assert!(acked >= in_order, "{} of {} acknowledged", acked, in_order);
        }
    }

    #[test]
    fn there_and_back_is_where_it_was((isn, sent, places) in scene(), at in 0usize..400) {
        let number = |at: usize| isn.wrapping_add(u32::try_from(at).unwrap());
        let mut stream = Stream::default();
        for (at, old, new) in &places {
            prop_assert!(stream.record(number(*at), u16::try_from(*old).unwrap(), text(new), 1));
        }
        let at = at % (sent.len() + 1);
        if places.iter().all(|(start, old, _)| at <= *start || at >= start + old) {
            let there = stream.forward(number(at));
            prop_assert_eq!(stream.backward(there, Round::Down), number(at));
            prop_assert_eq!(stream.forward(stream.backward(there, Round::Up)), there);
        }
    }
}
