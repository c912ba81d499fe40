//! What is wrong with streams: where they end, and what their forks begin with.

use super::*;

fn end(tail: u64, closed: bool) -> Event {
    Event::End { place: place(), tail, closed }
}

fn may_close() -> Event {
    Event::MayClose { place: place() }
}

#[test]
fn a_stream_that_is_closed_once_and_stays_so_is_as_promised() {
    let all = [seen(0, writer(1, 0))];
    let (sent, done) = (invoke(1, writer(1, 0), 1), ok(1, 0));
    assert_eq!(
        check(&[end(0, false), sent, done, end(1, false), may_close(), end(1, true), end(1, true), view(&all)]),
        []
    );
}

#[test]
fn a_closing_that_nobody_asked_for_or_that_does_not_last_is_found() {
    assert_eq!(found(&[end(1, true)]), ["closed"]);
    assert_eq!(found(&[may_close(), end(1, true), end(1, false)]), ["reopened"]);
    assert_eq!(found(&[may_close(), end(1, true), end(2, true)]), ["end moved"]);
}

#[test]
fn a_record_behind_the_end_of_a_stream_is_found_whoever_was_told_first() {
    let (sent, done) = (invoke(1, writer(1, 0), 1), ok(1, 0));
    assert_eq!(found(&[may_close(), end(0, true), sent.clone(), done.clone()]), ["behind the end"]);
    assert_eq!(found(&[may_close(), sent, done, end(0, true)]), ["behind the end"]);
}

fn fork_place() -> Place {
    Place::new("f", 0)
}

fn fork(at: u64, cut: Option<u64>) -> Event {
    Event::Fork { place: fork_place(), source: place(), at, cut }
}

fn view_of(place: Place, start: u64, records: &[Seen]) -> Event {
    Event::View { place, start, records: records.to_vec(), lost: Vec::new() }
}

/// The view of a fork of a source with a batch of three records and one behind it, all acknowledged. `before` comes before the fork.
fn forked(before: Vec<Event>, fork: Event, start: u64, records: &[Seen]) -> Vec<Event> {
    let source = vec![invoke(1, writer(1, 0), 3), ok(1, 0), invoke(2, writer(1, 3), 1), ok(2, 3)];
    [source, before, vec![fork, view_of(fork_place(), start, records)]].concat()
}

/// What `count` records of one writer are at the places of their sequences.
fn first(count: u64) -> Vec<Seen> {
    (0..count).map(|at| seen(at, writer(1, at))).collect()
}

#[test]
fn a_fork_that_shows_what_its_source_had_and_goes_on_alone_is_as_promised() {
    let Event::Invoke { op, first: sent, digests, class, .. } = invoke(3, writer(2, 0), 1) else {
        unreachable!("it is one")
    };
    let own = vec![Event::Invoke { op, topic: "f".into(), first: sent, digests, class }, ok(3, 2)];
    let events = forked(own, fork(2, None), 0, &[first(2), vec![seen(2, writer(2, 0))]].concat());
    // A fork of the fork leaves it within its own part, or within what it inherits; its source is deleted meanwhile.
    let grandchild = |at| Event::Fork { place: Place::new("g", 0), source: fork_place(), at, cut: None };
    let own = [first(2), vec![seen(2, writer(2, 0))]].concat();
    for at in 0..=3 {
        let view = view_of(Place::new("g", 0), 0, &own[..usize::try_from(at).unwrap()]);
        assert_eq!(check(&[&events[..], &[grandchild(at), view]].concat()), [], "{at}");
    }
}

#[test]
fn a_record_of_the_source_that_its_fork_lacks_is_found() {
    assert_eq!(found(&forked(Vec::new(), fork(4, None), 0, &first(3))), ["lost"]);
    assert_eq!(found(&forked(Vec::new(), fork(3, None), 0, &first(2))), ["lost", "torn"]);
    let kept = forked(vec![may_trim(1)], fork(3, None), 1, &first(3)[1..]);
    assert_eq!(check(&kept), [], "the source began there");
    let gone = [vec![may_trim(1)], kept[..5].to_vec(), vec![fork(3, None), view_of(fork_place(), 2, &first(3)[2..])]];
    assert_eq!(found(&gone.concat()), ["overtrimmed"]);
}

#[test]
fn a_record_of_the_source_behind_the_place_of_the_fork_is_found() {
    let behind = found(&forked(Vec::new(), fork(2, None), 0, &first(3)));
    assert_eq!(behind, ["foreign", "duplicate"]);
}

#[test]
fn an_inherited_record_that_is_another_one_is_found() {
    let other = [seen(0, writer(1, 0)), Seen::new(1, b"other")];
    assert_eq!(found(&forked(Vec::new(), fork(2, None), 0, &other)), ["fork differs", "lost", "torn"]);
    let own = forked(Vec::new(), fork(2, None), 0, &first(2));
    let Event::Invoke { op, first: sent, digests, class, .. } = invoke(3, writer(2, 0), 1) else {
        unreachable!("it is one")
    };
    let below = vec![Event::Invoke { op, topic: "f".into(), first: sent, digests, class }, ok(3, 1)];
    assert_eq!(found(&[own, below].concat()), ["fork differs"], "an append got an offset that is inherited");
}

#[test]
fn what_a_fork_inherits_of_its_last_record_is_a_part_and_no_other() {
    let (part, whole) = (Seen::new(1, &bytes(writer(1, 1)).as_bytes()[..7]), seen(1, writer(1, 1)));
    let with = |last: &[Seen]| forked(Vec::new(), fork(2, Some(part.digest)), 0, &[&first(1), last].concat());
    assert_eq!(check(&with(&[part])), []);
    assert_eq!(found(&with(&[whole])), ["fork differs", "vanished"]);
    assert_eq!(found(&with(&[])), ["vanished"]);
    // A fork of the fork there has the part, too; one below has nothing of it.
    let again = |at, records: &[Seen]| {
        let fork = Event::Fork { place: Place::new("g", 0), source: fork_place(), at, cut: None };
        [with(&[part]), vec![fork, view_of(Place::new("g", 0), 0, records)]].concat()
    };
    assert_eq!(check(&again(2, &[first(1), vec![part]].concat())), []);
    assert_eq!(check(&again(1, &first(1))), []);
    assert_eq!(found(&again(2, &first(2))), ["fork differs", "vanished"]);
}

#[test]
fn of_two_cuts_of_a_record_the_later_fork_has_the_shorter() {
    let part = |len| Seen::new(1, &bytes(writer(1, 1)).as_bytes()[..len]);
    let child = |cut: Option<u64>| Event::Fork { place: Place::new("g", 0), source: fork_place(), at: 2, cut };
    let with = |len| {
        let events = forked(Vec::new(), fork(2, Some(part(7).digest)), 0, &[first(1), vec![part(7)]].concat());
        let view = view_of(Place::new("g", 0), 0, &[first(1), vec![part(len)]].concat());
        [events, vec![child(Some(part(4).digest)), view]].concat()
    };
    assert_eq!(check(&with(4)), []);
    assert_eq!(found(&with(7)), ["fork differs", "vanished"]);
}

#[test]
fn a_record_that_only_a_fork_shows_is_one_of_its_source() {
    let shown = [first(4), vec![seen(4, writer(3, 0))]].concat();
    let with = |outcome| {
        let sent = vec![invoke(9, writer(3, 0), 1), Event::Complete { op: 9, outcome }];
        forked(sent, fork(5, None), 0, &shown)
    };
    assert_eq!(check(&with(Outcome::Unknown)), []);
    assert_eq!(found(&with(Outcome::NotStored)), ["phantom"]);
    let lacks = [with(Outcome::Unknown), vec![view(&first(4))]].concat();
    assert_eq!(found(&lacks), ["vanished"], "the source has it, too");
}

#[test]
fn what_may_be_trimmed_of_a_source_moves_no_start_of_a_fork_beyond_its_place() {
    let events = |start, at| forked(vec![may_trim(4)], fork(at, None), start, &first(2)[..0]);
    assert_eq!(check(&events(2, 2)), [], "all that it inherits was gone");
    assert_eq!(found(&events(3, 2)), ["overtrimmed"]);
}
