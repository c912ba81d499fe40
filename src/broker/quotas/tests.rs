use super::*;

fn both(tenant: &Quotas, key: &Quotas) -> (Arc<Meter>, KeyMeter) {
    (Arc::new(Meter::new(tenant)), KeyMeter::new(key))
}

fn remaining(meter: &Meter, quota: Quota) -> Option<u64> {
    meter.left(Whose::Tenant).find(|left| left.quota == quota).map(|left| left.remaining)
}

#[test]
fn what_a_key_uses_counts_for_its_tenant_too() {
    let quotas = Quotas { connections: Some(9), ..Quotas::default() };
    let (tenant, key) = both(&Quotas::default(), &quotas);
    let of_key = Meters { tenant: &tenant, key: Some(&key) };
    of_key.request().expect("nothing is limited");
    of_key.published(2, 30);
    Meters { tenant: &tenant, key: None }.delivered(5, 70);
    let (stream, connection) = (of_key.follower().expect("room"), of_key.connection().expect("room"));
    let used = UsageFigures { requests: 1, records_published: 2, bytes_published: 30, ..UsageFigures::default() };
    let open = UsageFigures { followers: 1, connections: 1, ..used };
    let key = key.meter().expect("it has quotas");
    assert_eq!(key.usage(), open);
    assert_eq!(tenant.usage(), UsageFigures { records_delivered: 5, bytes_delivered: 70, ..open });
    drop((stream, connection));
    assert_eq!(key.usage(), used);
}

// Fails without the two calls of `give_back` in `take`.
#[tokio::test(start_paused = true)]
async fn what_one_quota_refuses_is_taken_of_no_other() {
    let of_tenant =
        Quotas { publish_bytes_per_second: Some(100), publish_records_per_second: Some(10), ..Quotas::default() };
    let of_key = Quotas { publish_bytes_per_second: Some(50), ..Quotas::default() };
    let (tenant, key) = both(&of_tenant, &of_key);
    let meters = Meters { tenant: &tenant, key: Some(&key) };
    let charge = meters.take_publish(1, 40).expect("room");
    let refused = meters.take_publish(1, 20).expect_err("the key has 10 bytes left");
    assert_eq!((refused.quota, refused.whose, refused.limit), (Quota::PublishBytesPerSecond, Whose::Key, 50));
    assert_eq!(remaining(&tenant, Quota::PublishBytesPerSecond), Some(60));
    assert_eq!(remaining(&tenant, Quota::PublishRecordsPerSecond), Some(9));
    let refused = Meters { tenant: &tenant, key: None }.take_publish(1, 70).expect_err("the tenant has 60 bytes left");
    assert_eq!(refused.whose, Whose::Tenant);
    assert_eq!(remaining(&tenant, Quota::PublishRecordsPerSecond), Some(9));
    charge.give_back();
    assert_eq!(remaining(&tenant, Quota::PublishBytesPerSecond), Some(100));
    assert_eq!(remaining(key.meter().expect("it has quotas"), Quota::PublishBytesPerSecond), Some(50));
}

// Fails when what is open is counted from the first quotas on, or a holder keeps what it found when it came.
#[test]
fn quotas_that_come_to_a_key_act_on_all_who_hold_it_and_know_what_is_open() {
    let (tenant, key) = both(&Quotas::default(), &Quotas::default());
    let meters = Meters { tenant: &tenant, key: Some(&key) };
    let (first, second) = (meters.connection().expect("room"), meters.connection().expect("room"));
    meters.take_publish(9, 9).expect("nothing is limited").give_back();
    assert!(key.meter().is_none() && !meters.are_limited());
    key.set(&Quotas { connections: Some(2), publish_records_per_second: Some(1), ..Quotas::default() });
    assert_eq!(meters.connection().expect_err("two are open").whose, Whose::Key);
    assert_eq!(tenant.usage().connections, 2);
    meters.take_publish(1, 1).expect("the first").settle(1, 1);
    assert_eq!(meters.take_publish(1, 1).expect_err("the second").whose, Whose::Key);
    drop(first);
    assert_eq!(key.meter().expect("it has quotas").usage().connections, 1);
    let third = meters.connection().expect("room again");
    key.set(&Quotas::default());
    assert!(meters.connection().is_ok() && !meters.are_limited());
    drop((second, third));
    assert_eq!((tenant.usage().connections, key.meter().expect("it had quotas").usage().connections), (0, 0));
}

// Fails when a refusal by the key leaves the tenant's count as it is.
#[test]
fn a_place_that_the_key_refuses_is_free_for_the_tenant() {
    let (one, two) = (Quotas { connections: Some(1), ..Quotas::default() }, Quotas::default());
    let (tenant, key) = both(&two, &one);
    let meters = Meters { tenant: &tenant, key: Some(&key) };
    let open = meters.connection().expect("room");
    let refused = meters.connection().expect_err("the key has one");
    assert_eq!(refused.to_string(), "the quota connections of the key is used up: the limit is 1");
    assert_eq!(tenant.usage().connections, 1);
    drop(open);
    assert!(meters.connection().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_quota_that_is_set_while_it_is_used_acts_on_the_next_call() {
    let meter = Arc::new(Meter::default());
    let meters = Meters { tenant: &meter, key: None };
    for _ in 0..10 {
        meters.request().expect("nothing is limited");
    }
    meter.set(&Quotas { requests_per_second: Some(1), ..Quotas::default() });
    meters.request().expect("the first");
    let refused = meters.request().expect_err("the second");
    assert_eq!(refused.wait, Duration::from_secs(1));
    meter.set(&Quotas::default());
    meters.request().expect("nothing is limited");
    assert_eq!(meter.usage().requests, 13);
}

// Fails when `Pace::wait` is left out, or when it asks the tenant alone.
#[tokio::test(start_paused = true)]
async fn a_follower_waits_until_what_it_got_is_paid_for() {
    let of_key = Quotas { delivered_bytes_per_second: Some(100), ..Quotas::default() };
    let (tenant, key) = both(&Quotas::default(), &of_key);
    let meters = Meters { tenant: &tenant, key: Some(&key) };
    let (mut pace, began) = (Pace::default(), Instant::now());
    pace.delivered(meters, 1, 100);
    assert!(!pace.is_paused(), "a second's worth goes out at once");
    pace.delivered(meters, 1, 300);
    pace.wait().await;
    assert_eq!(began.elapsed(), Duration::from_secs(3));
    assert!(meters.owe_page(1, 1).is_ok());
}

// Fails when the receivers of changes are made after the moment is computed and before it is waited for.
#[tokio::test(start_paused = true)]
async fn a_follower_that_waits_goes_on_when_its_quota_is_raised() {
    let meter = Arc::new(Meter::new(&Quotas { delivered_records_per_second: Some(1), ..Quotas::default() }));
    let meters = Meters { tenant: &meter, key: None };
    let (mut pace, began) = (Pace::default(), Instant::now());
    pace.delivered(meters, 1_000_000, 1);
    assert!(meters.owe_page(1, 1).is_err());
    meter.set(&Quotas::default());
    pace.wait().await;
    assert_eq!(began.elapsed(), Duration::ZERO);
}

// Fails when a new follower begins with nothing to wait for.
#[tokio::test(start_paused = true)]
async fn a_follower_that_begins_again_waits_for_what_the_one_before_got() {
    let meter = Arc::new(Meter::new(&Quotas { delivered_bytes_per_second: Some(100), ..Quotas::default() }));
    let meters = Meters { tenant: &meter, key: None };
    let began = Instant::now();
    Pace::begin(meters).wait().await;
    assert_eq!(began.elapsed(), Duration::ZERO, "nothing is owed");
    Pace::default().delivered(meters, 1, 500);
    Pace::begin(meters).wait().await;
    assert_eq!(began.elapsed(), Duration::from_secs(4));
}

// Fails when a page looks at what is owed and owes only what it has: all that are asked for at once get through.
#[tokio::test(start_paused = true)]
async fn pages_at_the_same_time_owe_before_they_read_and_give_back_what_they_do_not_have() {
    let meter = Arc::new(Meter::new(&Quotas { delivered_bytes_per_second: Some(100), ..Quotas::default() }));
    let meters = Meters { tenant: &meter, key: None };
    let first = meters.owe_page(10, 1_000).expect("nothing is owed");
    assert!(meters.owe_page(10, 1_000).is_err());
    first.settle(1, 50);
    assert_eq!(remaining(&meter, Quota::DeliveredBytesPerSecond), Some(50));
    drop(meters.owe_page(10, 1_000).expect("half of it is left"));
    assert_eq!(remaining(&meter, Quota::DeliveredBytesPerSecond), Some(50));
    assert_eq!(meter.usage().records_delivered, 1);
}

// Fails without `Drop` of `PublishCharge`.
#[test]
fn a_publish_whose_end_nobody_waits_for_counts_whole() {
    let meter = Arc::<Meter>::default();
    let meters = Meters { tenant: &meter, key: None };
    drop(meters.take_publish(3, 70).expect("nothing is limited"));
    meters.take_publish(2, 30).expect("nothing is limited").settle(1, 10);
    meters.take_publish(5, 50).expect("nothing is limited").give_back();
    assert_eq!((meter.usage().records_published, meter.usage().bytes_published), (4, 80));
}

// Fails when the count is subtracted from without a look at it.
#[test]
fn a_deletion_of_a_topic_that_was_never_counted_takes_no_place() {
    let meter = Arc::<Meter>::default();
    meter.count_topics(0);
    meter.deleted(1);
    assert_eq!(meter.held(Quota::Topics), Some(0));
    meter.topic().expect("nothing is limited").keep();
    assert_eq!(meter.held(Quota::Topics), Some(1));
    meter.lose_count();
    assert_eq!(meter.held(Quota::Topics), None, "it is counted again");
}
