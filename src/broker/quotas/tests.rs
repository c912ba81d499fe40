use super::*;

fn both(tenant: &Quotas, key: &Quotas) -> (Arc<Meter>, Arc<Meter>) {
    (Arc::new(Meter::new(tenant)), Arc::new(Meter::new(key)))
}

fn remaining(meter: &Meter, quota: Quota) -> Option<u64> {
    meter.left(Whose::Tenant).find(|left| left.quota == quota).map(|left| left.remaining)
}

#[test]
fn what_a_key_uses_counts_for_its_tenant_too() {
    let (tenant, key) = both(&Quotas::default(), &Quotas::default());
    let of_key = Meters { tenant: &tenant, key: Some(&key) };
    of_key.request().expect("nothing is limited");
    of_key.published(2, 30);
    Meters { tenant: &tenant, key: None }.delivered(5, 70);
    let (stream, connection) = (of_key.follower().expect("room"), of_key.connection().expect("room"));
    let used = UsageFigures { requests: 1, records_published: 2, bytes_published: 30, ..UsageFigures::default() };
    let open = UsageFigures { followers: 1, connections: 1, ..used };
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
    meters.take_publish(1, 40).expect("room");
    let refused = meters.take_publish(1, 20).expect_err("the key has 10 bytes left");
    assert_eq!((refused.quota, refused.whose, refused.limit), (Quota::PublishBytesPerSecond, Whose::Key, 50));
    assert_eq!(remaining(&tenant, Quota::PublishBytesPerSecond), Some(60));
    assert_eq!(remaining(&tenant, Quota::PublishRecordsPerSecond), Some(9));
    let refused = Meters { tenant: &tenant, key: None }.take_publish(1, 70).expect_err("the tenant has 60 bytes left");
    assert_eq!(refused.whose, Whose::Tenant);
    assert_eq!(remaining(&tenant, Quota::PublishRecordsPerSecond), Some(9));
    meters.give_back_publish(1, 40);
    assert_eq!(remaining(&tenant, Quota::PublishBytesPerSecond), Some(100));
    assert_eq!(remaining(&key, Quota::PublishBytesPerSecond), Some(50));
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
    assert_eq!(meters.check_delivery(), Ok(()));
}

// Fails when the receivers of changes are made after the moment is computed and before it is waited for.
#[tokio::test(start_paused = true)]
async fn a_follower_that_waits_goes_on_when_its_quota_is_raised() {
    let meter = Arc::new(Meter::new(&Quotas { delivered_records_per_second: Some(1), ..Quotas::default() }));
    let meters = Meters { tenant: &meter, key: None };
    let (mut pace, began) = (Pace::default(), Instant::now());
    pace.delivered(meters, 1_000_000, 1);
    assert!(meters.check_delivery().is_err());
    meter.set(&Quotas::default());
    pace.wait().await;
    assert_eq!(began.elapsed(), Duration::ZERO);
}
