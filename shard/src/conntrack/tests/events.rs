//! What a listener hears.

use super::*;
use crate::events::{EndCause, Event, EventKind};

/// Everything recorded so far: zone or source port, and what happened.
fn heard(lab: &mut Lab) -> Vec<String> {
    let batch = lab.shard.exchange_events(Vec::with_capacity(100));
    assert_eq!(batch.lost, 0);
    batch.events.iter().map(tell).collect()
}

fn tell(event: &Event) -> String {
    let detail = match event.kind {
        EventKind::New => String::new(),
        EventKind::Update(changes) => format!(" {}", changes.names().collect::<Vec<_>>().join("+")),
        EventKind::Destroy(cause) => format!(" {}", cause.name()),
    };
    format!("{} {}{detail}", event.connection.original.src_port(), event.kind.name())
}

fn listening() -> Lab {
    let mut lab = Lab::new();
    lab.shard.listen(Vec::with_capacity(100));
    lab
}

#[test]
fn nothing_is_recorded_while_nobody_listens_or_any_more_afterwards() {
    let mut lab = Lab::new();
    lab.send(&Frame::udp(&flow(1000)), &commit());
    assert!(heard(&mut lab).is_empty());
    lab.shard.listen(Vec::with_capacity(100));
    lab.send(&Frame::udp(&flow(1001)), &commit());
    let rest = lab.shard.stop_listening();
    assert_eq!(rest.events.iter().map(tell).collect::<Vec<_>>(), ["1001 new"]);
    lab.send(&Frame::udp(&flow(1002)), &commit());
    assert!(heard(&mut lab).is_empty());
    assert_eq!(lab.shard.counters().events_lost, 0);
}

#[test]
fn a_udp_flow_is_new_then_repeated_then_answered_and_then_times_out() {
    let mut lab = listening();
    let there = Frame::udp(&flow(1000));
    lab.send(&there, &source_nat(PUBLIC, None));
    let batch = lab.shard.exchange_events(Vec::with_capacity(100));
    let [event] = &batch.events[..] else { panic!("{batch:?}") };
    assert_eq!((event.kind, event.at), (EventKind::New, lab.now));
    assert_eq!(event.connection.reply.dst().to_string(), PUBLIC, "the translation is known");
    lab.send(&there, &look());
    lab.send(&there, &look());
    lab.send(&Frame::udp(&tuple(17, OUTSIDE, 53, PUBLIC, 1000)), &apply());
    lab.now += 31_000;
    lab.sweep();
    assert_eq!(heard(&mut lab), ["1000 update state", "1000 update state", "1000 destroy timeout"]);
}

#[test]
fn a_destroy_event_carries_what_the_connection_was() {
    let mut lab = listening();
    let action = CtAction { mark: Some((5, u32::MAX)), label: Some((6, u128::MAX)), ..commit_in(9) };
    lab.send(&Frame::udp(&flow(1000)), &action);
    lab.now += 60_100;
    lab.sweep();
    let batch = lab.shard.exchange_events(Vec::with_capacity(100));
    let event = batch.events.last().unwrap();
    let connection = &event.connection;
    assert_eq!(event.kind, EventKind::Destroy(EndCause::Timeout));
    assert_eq!((connection.zone, connection.mark, connection.label), (9, 5, 6));
    assert_eq!((connection.age, connection.remaining), (60_100, 0));
    assert_eq!(connection.traffic.unwrap().original.packets, 1);
}

#[test]
fn the_states_of_a_tcp_connection_are_followed_to_its_reset() {
    let mut lab = listening();
    let (there, back) = (stream(4000), stream(4000).reversed());
    lab.send(&Frame::tcp(&there, "S", 100, 0), &commit());
    lab.send(&Frame::tcp(&back, "SA", 500, 101), &look());
    lab.send(&Frame::tcp(&there, "A", 101, 501), &look());
    for _ in 0..3 {
        lab.send(&Frame::tcp(&there, "A", 101, 501), &look());
    }
    lab.send(&Frame::tcp(&back, "RA", 501, 101), &look());
    lab.now += 30_100;
    lab.sweep();
    let all = heard(&mut lab);
    let update = "4000 update state";
    assert_eq!(all, ["4000 new", update, update, update, "4000 destroy timeout"]);
}

#[test]
fn a_mark_a_label_and_a_helper_are_told_only_when_they_differ() {
    let mut lab = listening();
    let packet = Frame::udp(&flow(1000));
    lab.send(&packet, &commit());
    lab.send(&packet, &commit());
    let marked =
        CtAction { mark: Some((3, 0xff)), label: Some((8, 0xff)), helper: Some(Helper::Tftp), ..commit() };
    lab.send(&packet, &marked);
    lab.send(&packet, &marked);
    lab.send(&packet, &CtAction { mark: Some((4, 0xf)), ..commit() });
    let all = heard(&mut lab);
    assert_eq!(all, ["1000 new", "1000 update state", "1000 update mark+labels+helper", "1000 update mark"]);
}

#[test]
fn every_end_has_its_cause() {
    let mut lab = listening();
    let force = CtAction { force: true, ..commit() };
    lab.send(&Frame::udp(&flow(1000)), &commit());
    lab.send(&Frame::udp(&flow(1000).reversed()), &force);
    assert_eq!(heard(&mut lab), ["1000 new", "1000 destroy force", "53 new"]);

    let mut cursor = DumpCursor::default();
    lab.shard.flush(lab.now, &mut cursor, 100, &mut |_| true);
    assert_eq!(heard(&mut lab), ["53 destroy flush"]);

    let there = stream(4000);
    lab.send(&Frame::tcp(&there, "S", 100, 0), &commit());
    lab.send(&Frame::tcp(&there.reversed(), "RA", 0, 101), &look());
    heard(&mut lab);
    lab.send(&Frame::tcp(&there, "S", 9000, 0), &commit());
    assert_eq!(heard(&mut lab), ["4000 destroy reopened", "4000 new"]);

    // Met by a packet, by a flush and by the sweep: all the same.
    for way in 0..3 {
        lab.now += 86_400_000;
        match way {
            0 => drop(lab.send(&Frame::tcp(&there, "S", 100, 0), &look())),
            1 => drop(lab.shard.flush(lab.now, &mut DumpCursor::default(), 100, &mut |_| true)),
            _ => lab.sweep(),
        }
        assert_eq!(heard(&mut lab), ["4000 destroy timeout"], "{way}");
        lab.send(&Frame::tcp(&there, "S", 100, 0), &commit());
        heard(&mut lab);
    }
}

#[test]
fn what_the_buffer_has_no_room_for_is_counted_and_the_next_buffer_starts_anew() {
    let mut lab = Lab::new();
    lab.shard.listen(Vec::with_capacity(4));
    for port in 1000..1010 {
        lab.send(&Frame::udp(&flow(port)), &commit());
    }
    let batch = lab.shard.exchange_events(Vec::with_capacity(4));
    assert_eq!(
        batch.events.iter().map(tell).collect::<Vec<_>>(),
        ["1000 new", "1001 new", "1002 new", "1003 new"]
    );
    assert_eq!((batch.lost, lab.shard.counters().events_lost), (6, 6));
    lab.send(&Frame::udp(&flow(2000)), &commit());
    let batch = lab.shard.exchange_events(Vec::new());
    assert_eq!((batch.events.len(), batch.lost), (1, 0));
    // A buffer without room loses all and never grows.
    lab.send(&Frame::udp(&flow(2001)), &commit());
    let batch = lab.shard.exchange_events(Vec::new());
    assert_eq!((batch.events.capacity(), batch.lost), (0, 1));
}
