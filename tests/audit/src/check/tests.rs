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
    Event::Invoke { op, topic: "t".into(), first, digests, class: Class::Object }
}

fn ok(op: u64, offset: u64) -> Event {
    ok_as(Class::Object, op, offset)
}

fn ok_as(class: Class, op: u64, offset: u64) -> Event {
    Event::Complete { op, outcome: Outcome::Ok { partition: 0, offset, class } }
}

fn view(records: &[Seen]) -> Event {
    view_from(0, records, &[])
}

fn view_from(start: u64, records: &[Seen], lost: &[(u64, u64)]) -> Event {
    Event::View { place: place(), start, records: records.to_vec(), lost: lost.to_vec() }
}

fn may_trim(before: u64) -> Event {
    Event::MayTrim { place: place(), before: Some(before) }
}

/// A publish of one record in a class, which reached it.
fn weak(class: Class, op: u64, offset: u64, first: Writer) -> [Event; 2] {
    let Event::Invoke { op, topic, first, digests, .. } = invoke(op, first, 1) else { unreachable!("it is one") };
    [Event::Invoke { op, topic, first, digests, class }, ok_as(class, op, offset)]
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
        Event::Read { read: 1, place: place(), from: 0, records: all[..3].to_vec(), lost: Vec::new(), caught_up: true },
        invoke(3, writer(1, 1), 1),
        Event::Complete { op: 3, outcome: Outcome::Unknown },
        invoke(4, writer(3, 0), 1),
        Event::Complete { op: 4, outcome: Outcome::NotStored },
        Event::Delivered { connection: 1, place: place(), records: all[1..].to_vec() },
        view(&all),
    ]
}

fn gap(resumed_at: u64, lost: bool) -> Event {
    Event::Gap { connection: 1, place: place(), resumed_at, lost }
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
        Violation::Overtrimmed { .. } => "overtrimmed",
        Violation::StartWentBack { .. } => "start went back",
        Violation::Revived { .. } => "revived",
        Violation::Torn { .. } => "torn",
        Violation::Closed { .. } => "closed",
        Violation::Reopened { .. } => "reopened",
        Violation::EndMoved { .. } => "end moved",
        Violation::BehindTheEnd { .. } => "behind the end",
        Violation::ForkDiffers { .. } => "fork differs",
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
        Event::Read { read: 1, place: place(), from: 0, records: Vec::new(), lost: Vec::new(), caught_up: true },
    ];
    assert_eq!(found(&events), ["stale"]);
}

#[test]
fn a_read_that_began_before_the_acknowledgement_may_miss_the_record() {
    let events = [
        Event::ReadInvoke { read: 1, place: place() },
        invoke(1, writer(1, 0), 1),
        ok(1, 0),
        Event::Read { read: 1, place: place(), from: 0, records: Vec::new(), lost: Vec::new(), caught_up: true },
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
    assert_eq!(check(&skip(vec![may_trim(2), gap(2, false)])), []);
    assert_eq!(found(&skip(vec![gap(2, false)])), ["overtrimmed"], "nobody trimmed");
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

#[test]
fn what_is_below_a_start_may_be_gone_and_nothing_else() {
    let three = |rest: Vec<Event>| [vec![invoke(1, writer(1, 0), 3), ok(1, 0)], rest].concat();
    let (second, third) = (seen(1, writer(1, 1)), seen(2, writer(1, 2)));
    assert_eq!(check(&three(vec![may_trim(2), view_from(2, &[third], &[])])), []);
    assert_eq!(check(&three(vec![may_trim(2), view_from(1, &[second, third], &[])])), [], "it was not trimmed so far");
    assert_eq!(found(&three(vec![may_trim(1), view_from(2, &[third], &[])])), ["overtrimmed"]);
    assert_eq!(found(&three(vec![may_trim(3), view_from(1, &[third], &[])])), ["hole", "lost", "torn"]);
    let any = Event::MayTrim { place: place(), before: None };
    assert_eq!(check(&three(vec![any, view_from(3, &[], &[])])), []);
}

#[test]
fn a_start_that_goes_back_is_found() {
    let start = |start| Event::Start { place: place(), start };
    let trimmed = Event::Trimmed { place: place(), start: 2 };
    assert_eq!(check(&[may_trim(2), start(1), trimmed.clone(), start(2)]), []);
    assert_eq!(found(&[may_trim(2), trimmed, start(1)]), ["start went back"]);
    assert_eq!(found(&[may_trim(2), start(2), start(0)]), ["start went back"]);
}

#[test]
fn a_read_that_begins_below_a_start_that_was_known_and_shows_something_is_found() {
    let read = |before: Vec<Event>| {
        let publish = vec![invoke(1, writer(1, 0), 2), ok(1, 0), may_trim(1)];
        let (place, both) = (place(), vec![seen(0, writer(1, 0)), seen(1, writer(1, 1))]);
        let read = Event::Read { read: 1, place, from: 0, records: both, lost: Vec::new(), caught_up: true };
        [publish, before, vec![read]].concat()
    };
    let invoked = Event::ReadInvoke { read: 1, place: place() };
    let trimmed = Event::Trimmed { place: place(), start: 1 };
    assert_eq!(check(&read(vec![invoked.clone(), trimmed.clone()])), []);
    assert_eq!(found(&read(vec![trimmed, invoked])), ["revived"]);
}

#[test]
fn a_loss_is_allowed_by_a_class_after_a_death_and_with_a_gap_and_only_then() {
    use Class::{Local, Memory, Object};
    let died = |wiped| vec![Event::Died { wiped }];
    let lost = |class, death: Vec<Event>| {
        let publish = weak(class, 1, 0, writer(1, 0)).to_vec();
        [publish, death, vec![view_from(0, &[], &[(0, 4)])]].concat()
    };
    assert_eq!(check(&lost(Memory, died(false))), []);
    assert_eq!(check(&lost(Local, died(true))), []);
    assert_eq!(found(&lost(Local, died(false))), ["lost"], "the journal was there");
    assert_eq!(found(&lost(Object, died(true))), ["lost"]);
    assert_eq!(found(&lost(Memory, Vec::new())), ["lost"], "nobody died");
    let silent = [weak(Memory, 1, 0, writer(1, 0)).to_vec(), died(true), vec![view(&[])]].concat();
    assert_eq!(found(&silent), ["lost"], "without a gap");
    let stronger = [weak(Memory, 1, 0, writer(1, 0))[..1].to_vec(), vec![ok(1, 0)], died(true)].concat();
    assert_eq!(found(&[stronger, vec![view_from(0, &[], &[(0, 4)])]].concat()), ["lost"], "the receipt said more");
}

#[test]
fn an_offset_of_a_gap_that_is_given_again_is_found() {
    let events = |offset| {
        let loss = [weak(Class::Memory, 1, 0, writer(1, 0)).to_vec(), vec![Event::Died { wiped: false }]].concat();
        let again = [invoke(2, writer(2, 0), 1), ok(2, offset), view_from(0, &[seen(offset, writer(2, 0))], &[(0, 4)])];
        [loss, again.to_vec()].concat()
    };
    assert_eq!(check(&events(4)), []);
    assert!(found(&events(2)).contains(&"revived"), "{:?}", found(&events(2)));
    assert!(found(&events(0)).contains(&"changed"), "{:?}", found(&events(0)));
}

#[test]
fn what_was_lost_may_be_sent_again_and_what_was_not_may_not() {
    let events = |lost: &[(u64, u64)], class| {
        let shown = Event::Delivered { connection: 1, place: place(), records: vec![seen(0, writer(1, 0))] };
        let attach = Event::Attach { connection: 1, place: place(), from: Some(0) };
        let [invoke, ok] = weak(class, 1, 4, writer(1, 0));
        let first = if lost.is_empty() { vec![seen(0, writer(1, 0))] } else { Vec::new() };
        let records = [first, vec![seen(4, writer(1, 0))]].concat();
        vec![invoke, attach, shown, Event::Died { wiped: false }, ok, view_from(0, &records, lost)]
    };
    assert_eq!(check(&events(&[(0, 4)], Class::Memory)), []);
    assert!(found(&events(&[], Class::Memory)).contains(&"duplicate"));
    assert!(found(&events(&[(0, 4)], Class::Object)).contains(&"duplicate"));
}

#[test]
fn the_order_of_a_producer_is_that_of_what_is_left() {
    let batch = |base: u64| vec![seen(base, writer(1, 0)), seen(base + 1, writer(1, 1))];
    let Event::Invoke { op, topic, first, digests, .. } = invoke(1, writer(1, 0), 2) else { unreachable!("it is one") };
    let events = [
        Event::Invoke { op, topic, first, digests, class: Class::Memory },
        Event::Attach { connection: 1, place: place(), from: Some(0) },
        Event::Delivered { connection: 1, place: place(), records: batch(0) },
        Event::Died { wiped: false },
        ok_as(Class::Memory, 1, 4),
        view_from(0, &batch(4), &[(0, 4)]),
    ];
    assert_eq!(check(&events), [], "it was shown, lost and sent again");
}

#[test]
fn a_subscriber_that_is_told_of_a_loss_goes_on_behind_it() {
    let events = |lost| {
        let attach = Event::Attach { connection: 1, place: place(), from: Some(0) };
        let loss = [weak(Class::Memory, 1, 0, writer(1, 0)).to_vec(), vec![Event::Died { wiped: false }]].concat();
        let again = vec![invoke(2, writer(2, 0), 1), ok(2, 4), attach, gap(4, lost)];
        let records = vec![seen(4, writer(2, 0))];
        let shown = Event::Delivered { connection: 1, place: place(), records: records.clone() };
        [loss, again, vec![shown, view_from(0, &records, &[(0, 4)])]].concat()
    };
    assert_eq!(check(&events(true)), []);
    assert_eq!(found(&events(false)), ["overtrimmed"], "it is not what was trimmed");
}

mod streams;
