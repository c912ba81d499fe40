//! Every violation is planted once and found: a judge that finds nothing proves nothing.

use super::*;
use crate::body::Body;

const RUN: u64 = 1;

fn writer(producer: u64, sequence: u64) -> Writer {
    Writer { run: RUN, producer, epoch: 0, sequence }
}

fn bytes(writer: Writer) -> String {
    Body::new(writer, 10).encode()
}

fn seen(offset: u64, writer: Writer) -> Seen {
    Seen::new(offset, bytes(writer).as_bytes())
}

fn place() -> Place {
    Place::new("t", 0)
}

fn invoke(op: u64, first: Writer, count: u64) -> Event {
    let digests = (0..count)
        .map(|index| crate::body::digest(bytes(writer(first.producer, first.sequence + index)).as_bytes()))
        .collect();
    Event::Invoke { op, topic: "t".into(), first, digests }
}

fn ok(op: u64, offset: u64) -> Event {
    Event::Complete { op, outcome: Outcome::Ok { partition: 0, offset } }
}

fn view(records: &[Seen]) -> Event {
    Event::View { place: place(), records: records.to_vec() }
}

/// Two producers, a batch, an unknown outcome that was stored, a reader and a subscriber: all as promised.
fn good() -> Vec<Event> {
    let all = [seen(0, writer(1, 0)), seen(1, writer(2, 0)), seen(2, writer(2, 1)), seen(3, writer(1, 1))];
    vec![
        Event::Attach { connection: 1, place: place(), from: Some(0) },
        invoke(1, writer(1, 0), 1),
        ok(1, 0),
        invoke(2, writer(2, 0), 2),
        Event::Delivered { connection: 1, place: place(), records: all[..1].to_vec() },
        ok(2, 1),
        Event::ReadInvoke { read: 1, place: place() },
        Event::Read { read: 1, place: place(), from: 0, records: all[..3].to_vec(), caught_up: true },
        invoke(3, writer(1, 1), 1),
        Event::Complete { op: 3, outcome: Outcome::Unknown },
        invoke(4, writer(3, 0), 1),
        Event::Complete { op: 4, outcome: Outcome::NotStored },
        Event::Delivered { connection: 1, place: place(), records: all[1..].to_vec() },
        view(&all),
    ]
}

fn found(events: &[Event]) -> Vec<&'static str> {
    let name = |violation: &Violation| match violation {
        Violation::Lost { .. } => "lost",
        Violation::Phantom { .. } => "phantom",
        Violation::Foreign { .. } => "foreign",
        Violation::Duplicate { .. } => "duplicate",
        Violation::Disordered { .. } => "disordered",
        Violation::Hole { .. } => "hole",
        Violation::Changed { .. } => "changed",
        Violation::WentBack { .. } => "went back",
        Violation::Stale { .. } => "stale",
        Violation::Skipped { .. } => "skipped",
        Violation::Vanished { .. } => "vanished",
        Violation::Torn { .. } => "torn",
        Violation::BadHistory(_) => "bad history",
    };
    check(events).iter().map(name).collect()
}

fn with_view(mut events: Vec<Event>, records: &[Seen]) -> Vec<Event> {
    events.pop();
    events.push(view(records));
    events
}

#[test]
fn a_history_that_keeps_every_promise_has_no_violation() {
    assert_eq!(check(&good()), []);
}

#[test]
fn a_lost_acknowledged_record_is_found() {
    let events = [invoke(1, writer(1, 0), 1), ok(1, 0), view(&[])];
    assert_eq!(found(&events), ["lost"]);
}

#[test]
fn an_acknowledged_record_with_other_bytes_is_found() {
    let other = seen(0, writer(9, 9));
    let events = [invoke(1, writer(1, 0), 1), ok(1, 0), view(&[other])];
    assert_eq!(found(&events), ["changed", "foreign", "lost"]);
}

#[test]
fn a_refused_record_that_is_shown_is_found() {
    let all = [seen(0, writer(1, 0)), seen(1, writer(2, 0)), seen(2, writer(2, 1)), seen(3, writer(1, 1))];
    let with = [&all[..], &[seen(4, writer(3, 0))]].concat();
    assert_eq!(found(&with_view(good(), &with)), ["phantom"]);
}

#[test]
fn a_record_that_nobody_published_is_found() {
    let events = [view(&[Seen::new(0, b"hello")])];
    assert_eq!(found(&events), ["foreign"]);
}

#[test]
fn a_record_at_two_offsets_is_found() {
    let events = [invoke(1, writer(1, 0), 1), ok(1, 0), view(&[seen(0, writer(1, 0)), seen(1, writer(1, 0))])];
    assert_eq!(found(&events), ["duplicate"]);
}

#[test]
fn records_of_a_producer_out_of_order_are_found() {
    let unknown = |op| Event::Complete { op, outcome: Outcome::Unknown };
    let events = [
        invoke(1, writer(1, 0), 1),
        invoke(2, writer(1, 1), 1),
        unknown(1),
        unknown(2),
        view(&[seen(0, writer(1, 1)), seen(1, writer(1, 0))]),
    ];
    assert_eq!(found(&events), ["disordered"]);
}

#[test]
fn a_hole_in_the_offsets_is_found() {
    let unknown = Event::Complete { op: 1, outcome: Outcome::Unknown };
    let events = [invoke(1, writer(1, 0), 1), unknown, view(&[seen(1, writer(1, 0))])];
    assert_eq!(found(&events), ["hole"]);
}

#[test]
fn an_offset_that_is_given_twice_is_found() {
    let events = [invoke(1, writer(1, 0), 1), ok(1, 0), invoke(2, writer(2, 0), 1), ok(2, 0)];
    assert_eq!(found(&events), ["changed", "went back"]);
}

#[test]
fn an_offset_below_an_earlier_acknowledgement_is_found() {
    let events = [invoke(1, writer(1, 0), 1), ok(1, 5), invoke(2, writer(2, 0), 1), ok(2, 4)];
    assert_eq!(found(&events), ["went back"]);
}

#[test]
fn a_read_that_misses_an_acknowledged_record_is_found() {
    let events = [
        invoke(1, writer(1, 0), 1),
        ok(1, 0),
        Event::ReadInvoke { read: 1, place: place() },
        Event::Read { read: 1, place: place(), from: 0, records: Vec::new(), caught_up: true },
    ];
    assert_eq!(found(&events), ["stale"]);
}

#[test]
fn a_read_that_began_before_the_acknowledgement_may_miss_the_record() {
    let events = [
        Event::ReadInvoke { read: 1, place: place() },
        invoke(1, writer(1, 0), 1),
        ok(1, 0),
        Event::Read { read: 1, place: place(), from: 0, records: Vec::new(), caught_up: true },
        view(&[seen(0, writer(1, 0))]),
    ];
    assert_eq!(check(&events), []);
}

#[test]
fn a_silent_skip_of_a_subscriber_is_found_and_an_announced_one_is_not() {
    let skip = |middle: Vec<Event>| {
        let mut events = vec![
            invoke(1, writer(1, 0), 3),
            ok(1, 0),
            Event::Attach { connection: 1, place: place(), from: Some(0) },
            Event::Delivered { connection: 1, place: place(), records: vec![seen(0, writer(1, 0))] },
        ];
        events.extend(middle);
        events.push(Event::Delivered { connection: 1, place: place(), records: vec![seen(2, writer(1, 2))] });
        events
    };
    assert_eq!(found(&skip(Vec::new())), ["skipped"]);
    assert_eq!(check(&skip(vec![Event::Gap { connection: 1, place: place(), resumed_at: 2 }])), []);
}

#[test]
fn a_delivery_that_is_repeated_on_one_connection_is_found() {
    let delivered = Event::Delivered { connection: 1, place: place(), records: vec![seen(0, writer(1, 0))] };
    let attach = Event::Attach { connection: 1, place: place(), from: None };
    let events = [invoke(1, writer(1, 0), 1), ok(1, 0), attach, delivered.clone(), delivered];
    assert_eq!(found(&events), ["skipped"]);
}

#[test]
fn a_delivered_record_that_vanishes_is_found() {
    let events = [
        invoke(1, writer(1, 0), 1),
        Event::Attach { connection: 1, place: place(), from: Some(0) },
        Event::Delivered { connection: 1, place: place(), records: vec![seen(0, writer(1, 0))] },
        Event::Complete { op: 1, outcome: Outcome::Unknown },
        view(&[]),
    ];
    assert_eq!(found(&events), ["vanished"]);
}

#[test]
fn a_batch_that_is_stored_in_part_is_found() {
    let unknown = Event::Complete { op: 1, outcome: Outcome::Unknown };
    let events = [invoke(1, writer(1, 0), 3), unknown, view(&[seen(0, writer(1, 0)), seen(1, writer(1, 1))])];
    assert_eq!(found(&events), ["torn"]);
}

#[test]
fn a_batch_with_a_stranger_in_its_middle_is_found() {
    let unknown = |op| Event::Complete { op, outcome: Outcome::Unknown };
    let mixed = [seen(0, writer(1, 0)), seen(1, writer(2, 0)), seen(2, writer(1, 1))];
    let events = [invoke(1, writer(1, 0), 2), invoke(2, writer(2, 0), 1), unknown(1), unknown(2), view(&mixed)];
    assert_eq!(found(&events), ["torn"]);
}

#[test]
fn an_answer_without_a_request_is_a_bad_history() {
    assert_eq!(found(&[ok(1, 0)]), ["bad history"]);
}
