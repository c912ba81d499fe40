use super::*;
use crate::broker::documents;

const NOW: u64 = 1_000_000;
const TTL: u64 = 30_000;

fn doc(by: WakeBy, phase: Option<WakePhase>) -> WakeDoc {
    let under_way = |phase| WakeUnderWay { id: "w_1".into(), began_at: 1, stream: "s".into(), acked: false, phase };
    WakeDoc {
        v: documents::VERSION,
        hash: String::new(),
        by,
        pattern: None,
        lease_ttl_ms: TTL,
        description: None,
        root: String::new(),
        created_at: 1,
        links: 1,
        generation: 5,
        wake: phase.map(under_way),
    }
}

fn hook(phase: impl Into<Option<WakePhase>>) -> WakeDoc {
    doc(WakeBy::Webhook { url: "https://a.example".into() }, phase.into())
}

fn pull(phase: impl Into<Option<WakePhase>>) -> WakeDoc {
    doc(WakeBy::Pull { stream: "wake/pool".into() }, phase.into())
}

fn at(now: u64) -> Moment {
    Moment { now: Timestamp(now), chance: 7 }
}

fn deliver(at: u64, failures: u32) -> WakePhase {
    WakePhase::Deliver { at, failures }
}

fn accepted(ends_at: u64) -> WakePhase {
    WakePhase::Accepted { ends_at }
}

fn claimed(ends_at: u64) -> WakePhase {
    WakePhase::Claimed { holder: "w".into(), ends_at }
}

fn phase(doc: &WakeDoc) -> Option<&WakePhase> {
    doc.wake.as_ref().map(|wake| &wake.phase)
}

fn current() -> WakeRef {
    WakeRef { wake_id: "w_1".into(), generation: 5 }
}

#[test]
fn a_wake_begins_only_when_something_is_new_and_none_is_under_way() {
    for (before, pending, expected) in [
        (hook(None), None, None),
        (hook(None), Some("s"), Some(deliver(NOW, 0))),
        (pull(None), Some("s"), Some(WakePhase::Offered)),
        (hook(deliver(1, 2)), Some("s"), None),
        (hook(accepted(NOW + 1)), Some("s"), None),
        (pull(WakePhase::Offered), Some("s"), None),
        (pull(claimed(NOW + 1)), Some("s"), None),
    ] {
        let mut after = before.clone();
        let begun = begin(&mut after, at(NOW), pending);
        assert_eq!(begun, expected.is_some(), "{before:?}");
        match expected {
            None => assert_eq!(after, before),
            Some(expected) => {
                let wake = after.wake.as_ref().expect("begun");
                assert_eq!((after.generation, &wake.phase, &*wake.stream), (6, &expected, "s"));
                assert_ne!(wake.id, "w_1", "an id of its own");
            }
        }
    }
}

#[test]
fn a_claim_takes_what_is_offered_or_new_and_nothing_that_somebody_has() {
    let held = NotClaimed::Held { holder: "w".into(), generation: 5 };
    for (before, pending, expected) in [
        (pull(WakePhase::Offered), Some("s"), Ok(5)),
        (pull(None), Some("s"), Ok(6)),
        (pull(None), None, Err(NotClaimed::Nothing)),
        // What was offered was taken away meanwhile.
        (pull(WakePhase::Offered), None, Err(NotClaimed::Nothing)),
        (pull(claimed(NOW + 1)), Some("s"), Err(held.clone())),
        (pull(claimed(NOW + 1)), None, Err(held)),
        // The lease is over, though nobody has looked.
        (pull(claimed(NOW)), Some("s"), Ok(6)),
        (pull(claimed(NOW)), None, Err(NotClaimed::Nothing)),
    ] {
        let mut after = before.clone();
        let outcome = claim(&mut after, at(NOW), "v", pending);
        assert_eq!(outcome.as_ref().map(|wake| wake.generation), expected.as_ref().copied(), "{before:?}");
        if let Ok(wake) = outcome {
            let holder = WakePhase::Claimed { holder: "v".into(), ends_at: NOW + TTL };
            assert_eq!((phase(&after), check(&after, Timestamp(NOW), wake.generation, &wake)), (Some(&holder), Ok(())));
        }
    }
}

// Fails when one of the three is not compared, or the end of the lease is not looked at.
#[test]
fn only_who_means_the_wake_under_way_may_act_on_it() {
    let of = |id: &str, generation| WakeRef { wake_id: id.into(), generation };
    for (doc, token, wake, expected) in [
        (pull(claimed(NOW + 1)), 5, current(), Ok(())),
        (hook(accepted(NOW + 1)), 5, current(), Ok(())),
        (hook(deliver(NOW + 9, 3)), 5, current(), Ok(())),
        (pull(claimed(NOW + 1)), 4, current(), Err(Fenced)),
        (pull(claimed(NOW + 1)), 5, of("w_1", 4), Err(Fenced)),
        (pull(claimed(NOW + 1)), 5, of("w_2", 5), Err(Fenced)),
        (pull(claimed(NOW)), 5, current(), Err(Fenced)),
        (hook(accepted(NOW)), 5, current(), Err(Fenced)),
        (pull(WakePhase::Offered), 5, current(), Err(Fenced)),
        (pull(None), 5, current(), Err(Fenced)),
    ] {
        assert_eq!(check(&doc, Timestamp(NOW), token, &wake), expected, "{doc:?} {token} {wake:?}");
    }
}

#[test]
fn a_sign_of_life_begins_the_lease_anew_and_says_that_the_webhook_was_reached() {
    for (mut doc, expected) in [
        (pull(claimed(NOW + 1)), claimed(NOW + TTL)),
        (hook(accepted(NOW + 1)), accepted(NOW + TTL)),
        (hook(deliver(NOW + 9, 3)), accepted(NOW + TTL)),
    ] {
        extend(&mut doc, Timestamp(NOW), false);
        assert_eq!((phase(&doc), has_failed(&doc)), (Some(&expected), false));
    }
}

#[test]
fn the_end_of_a_wake_is_the_begin_of_the_next_where_something_is_new() {
    for (before, acked, pending, expected) in [
        (hook(accepted(NOW + 1)), true, None, None),
        (hook(accepted(NOW + 1)), true, Some("s"), Some(deliver(NOW, 0))),
        // Who ends wakes and acknowledges nothing is not called without a rest.
        (hook(accepted(NOW + 1)), false, Some("s"), Some(deliver(NOW + 1_000, 0))),
        (pull(claimed(NOW + 1)), false, Some("s"), Some(WakePhase::Offered)),
        (pull(claimed(NOW + 1)), false, None, None),
    ] {
        let mut after = before.clone();
        assert_eq!(finish(&mut after, at(NOW), acked, pending), expected.is_some(), "{before:?}");
        assert_eq!(phase(&after), expected.as_ref(), "{before:?}");
        assert_eq!(check(&after, Timestamp(NOW), 5, &current()), Err(Fenced), "the one before is over");
    }
    let mut earlier = hook(accepted(NOW + 1));
    extend(&mut earlier, Timestamp(NOW), true);
    finish(&mut earlier, at(NOW), false, Some("s"));
    assert_eq!(phase(&earlier), Some(&deliver(NOW, 0)), "what was acknowledged before counts");
}

#[test]
fn a_lease_is_over_at_its_end_and_only_a_lease_is() {
    for (doc, expected) in [
        (pull(claimed(NOW)), true),
        (pull(claimed(NOW + 1)), false),
        (hook(accepted(NOW)), true),
        (hook(accepted(NOW + 1)), false),
        (hook(deliver(1, 0)), false),
        (pull(WakePhase::Offered), false),
        (pull(None), false),
    ] {
        assert_eq!(is_over(&doc, Timestamp(NOW)), expected, "{doc:?}");
    }
}

#[test]
fn what_a_webhook_answers_counts_only_for_the_wake_that_it_was_called_for() {
    let other = WakeRef { wake_id: "w_0".into(), generation: 4 };
    for (before, wake, takes) in [
        (hook(deliver(NOW, 0)), current(), true),
        (hook(deliver(NOW, 3)), current(), true),
        (hook(deliver(NOW, 0)), other, false),
        // It has called back meanwhile: its lease is the later one.
        (hook(accepted(NOW + 7)), current(), false),
        (hook(None), current(), false),
    ] {
        let mut after = before.clone();
        assert_eq!(accept(&mut after, Timestamp(NOW), &wake), takes, "{before:?}");
        let expected = if takes { Some(accepted(NOW + TTL)) } else { phase(&before).cloned() };
        assert_eq!(phase(&after), expected.as_ref());
        let mut after = before.clone();
        assert_eq!(fail(&mut after, at(NOW), &wake), takes, "{before:?}");
        assert_eq!((after != before, has_failed(&after)), (takes, takes));
    }
}

// Fails when the pause does not grow, has no bound, or is the same for all.
#[test]
fn pauses_double_up_to_a_minute_and_differ_by_a_fifth() {
    for (failures, ms) in
        [(1, 1_000), (2, 2_000), (3, 4_000), (6, 32_000), (7, 60_000), (8, 60_000), (u32::MAX, 60_000)]
    {
        let pauses: Vec<u64> = (0..1_000_u128).map(|chance| pause_ms(failures, chance * 7_919)).collect();
        let (least, most) = (pauses.iter().min().expect("some"), pauses.iter().max().expect("some"));
        assert!(*least >= ms * 8 / 10 && *most <= ms * 12 / 10, "{failures}: {least} to {most}");
        assert!(most - least > ms / 4, "{failures}: {least} to {most}");
    }
    let mut doc = hook(deliver(NOW, 0));
    for failures in 1..4 {
        assert!(fail(&mut doc, at(NOW), &current()));
        assert!(matches!(phase(&doc), Some(WakePhase::Deliver { failures: so_often, .. }) if *so_often == failures));
    }
}
