use std::sync::Arc;
use std::thread;

use proptest::prelude::*;

use super::*;

/// Takes at these moments, each with an amount; gives what was let through, as (moment, amount).
fn run(limit: u64, calls: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let bucket = Bucket::default();
    let mut now = 0;
    let mut through = Vec::new();
    for &(step, amount) in calls {
        now += step;
        if bucket.take(now, limit, amount).is_ok() {
            through.push((now, amount));
        }
    }
    through
}

fn calls() -> impl Strategy<Value = (u64, Vec<(u64, u64)>)> {
    let limit = prop_oneof![1_u64..100, 1_000_u64..1_000_000, 100_000_000_u64..20_000_000_000];
    limit.prop_flat_map(|limit| {
        let call = (0_u64..400_000_000, 1..=limit.min(2_000_000_000));
        (Just(limit), proptest::collection::vec(call, 1..200))
    })
}

proptest! {
    // Fails when `take` compares with a bucket of two seconds, or rounds the cost down.
    #[test]
    fn in_no_span_of_time_is_more_let_through_than_a_bucket_and_what_came_in_it((limit, calls) in calls()) {
        let through = run(limit, &calls);
        for first in 0..through.len() {
            let mut sum = 0_u128;
            for &(at, amount) in &through[first..] {
                sum += u128::from(amount);
                let span = u128::from(at - through[first].0);
                let most = u128::from(limit) + u128::from(limit) * span / u128::from(SECOND);
                prop_assert!(sum <= most + 1, "{sum} in {span} ns of {limit} per second");
            }
        }
    }

    // Fails when a refusal moves the bucket on, or names too short a wait.
    #[test]
    fn who_waits_as_long_as_a_refusal_says_is_let_through_and_not_before(
        limit in 1_u64..10_000_000,
        before in proptest::collection::vec(1_u64..20_000_000, 1..20),
        amount in 1_u64..20_000_000,
    ) {
        let bucket = Bucket::default();
        for taken in before {
            bucket.owe(7, limit, taken);
        }
        if let Err(wait) = bucket.take(7, limit, amount) {
            prop_assert!(wait > 0);
            prop_assert!(bucket.take(7 + wait - 1, limit, amount).is_err());
            prop_assert!(bucket.take(7 + wait, limit, amount).is_ok());
        }
    }

    #[test]
    fn what_is_given_back_can_be_taken_again(limit in 1_u64..1_000_000, first in 1_u64..1_000_000) {
        let bucket = Bucket::default();
        prop_assert!(bucket.take(50 * SECOND, limit, first).is_ok());
        bucket.give_back(limit, first);
        prop_assert_eq!(bucket.level(50 * SECOND, limit), Level { remaining: limit, used: 0, full_in: 0 });
    }

    #[test]
    fn what_remains_may_be_taken_and_one_more_may_not(limit in 1_u64..1_000_000_000, taken in 0_u64..1_000_000_000) {
        let bucket = Bucket::default();
        prop_assert!(bucket.take(SECOND, limit, taken.min(limit)).is_ok());
        let Level { remaining, .. } = bucket.level(SECOND, limit);
        prop_assume!(remaining > 0);
        let more = Bucket { paid_until: AtomicU64::new(bucket.paid_until.load(Ordering::Relaxed)) };
        prop_assert!(more.take(SECOND, limit, remaining + 1).is_err() || remaining + 1 > limit);
        prop_assert!(bucket.take(SECOND, limit, remaining).is_ok());
    }
}

#[test]
fn more_than_a_bucket_is_let_through_once_and_paid_for_after() {
    let bucket = Bucket::default();
    assert_eq!(bucket.take(0, 100, 1_000), Ok(()));
    assert_eq!(bucket.take(0, 100, 1), Err(9 * SECOND + SECOND / 100));
    assert_eq!(bucket.level(0, 100), Level { remaining: 0, used: 1_000, full_in: 10 * SECOND });
    assert_eq!(bucket.take(9 * SECOND + SECOND / 100, 100, 1), Ok(()));
}

#[test]
fn those_who_owe_one_after_the_other_wait_for_different_moments() {
    let bucket = Bucket::default();
    let moments: Vec<u64> = (0..4).map(|_| bucket.owe(0, 10, 10)).collect();
    assert_eq!(moments, [0, SECOND, 2 * SECOND, 3 * SECOND]);
    assert_eq!(bucket.wait(0), 3 * SECOND);
    assert_eq!(bucket.wait(3 * SECOND), 0);
}

#[test]
fn a_changed_limit_forgives_what_is_owed() {
    let bucket = Bucket::default();
    bucket.owe(0, 1, 1_000_000);
    bucket.settle(0);
    assert_eq!(bucket.take(SECOND, 1_000, 1_000), Ok(()));
}

// Fails when `take` loads and stores instead of comparing.
#[test]
fn threads_together_take_no_more_than_one_bucket() {
    let bucket = Arc::new(Bucket::default());
    let takers: Vec<_> = (0..8)
        .map(|_| {
            let bucket = Arc::clone(&bucket);
            thread::spawn(move || (0..10_000).filter(|_| bucket.take(0, 5_000, 1).is_ok()).count())
        })
        .collect();
    let taken: usize = takers.into_iter().map(|taker| taker.join().expect("it only counts")).sum();
    assert_eq!(taken, 5_000);
}
