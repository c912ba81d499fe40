//! What a tenant uses is counted, once, wherever it is used.

use super::*;

impl World {
    fn usage(&self) -> UsageFigures {
        self.caller.tenant().expect("a tenant").meter().usage()
    }
}

#[tokio::test]
async fn what_is_published_and_delivered_counts_for_the_tenant_and_for_no_other() {
    let world = world().await;
    let stranger = world.stranger().await;
    world.topic("orders", 4).await;
    world.publish("orders", &["one", "three"]).await;
    let stored = world.usage();
    // Payloads and content types; keys and headers as well, of which there are none.
    assert_eq!((stored.records_published, stored.bytes_published), (2, 8 + 2 * 10));
    assert_eq!((stored.records_delivered, stored.bytes_delivered), (0, 0));
    world.page("orders", From::Earliest).await.expect("a page");
    let read = world.usage();
    assert_eq!(read.records_delivered, 2);
    assert!(read.bytes_delivered > 28, "{read:?}");
    assert_eq!(stranger.tenant().expect("a tenant").meter().usage(), UsageFigures::default());
}

#[tokio::test]
async fn a_publish_that_is_recognized_counts_once() {
    let world = world().await;
    world.topic("orders", 1).await;
    for _ in 0..2 {
        let terms = Terms { idempotency_key: Some("k".into()), ..Terms::default() };
        let publish = Publish {
            partition: None,
            sticky: 0,
            records: vec![record("one")],
            stored: None,
            durability: None,
            terms: Some(Box::new(terms)),
        };
        world.broker.publish(&world.to(Action::Publish, "orders"), publish).await.expect("published");
    }
    assert_eq!(world.usage().records_published, 1);
}

#[tokio::test]
async fn a_follower_is_open_until_it_is_dropped_and_what_it_gives_is_delivered() {
    let world = world().await;
    world.topic("orders", 1).await;
    world.publish("orders", &["one"]).await;
    let mut follower = world.follow(&["orders"], From::Earliest).await;
    assert_eq!((world.usage().followers, world.usage().records_delivered), (1, 0));
    next(&mut follower).await;
    assert_eq!(world.usage().records_delivered, 1);
    drop(follower);
    assert_eq!(world.usage().followers, 0);
}

// Fails when what is published is counted by who waits for the answer.
#[tokio::test]
async fn a_publish_whose_caller_leaves_is_counted() {
    let world = world().await;
    world.topic("orders", 1).await;
    let to = world.to(Action::Publish, "orders");
    let records = vec![NewRecord { key: Some("k".into()), headers: vec![("a".into(), "bc".into())], ..record("one") }];
    let publish = Publish { partition: None, sticky: 0, records, stored: None, durability: None, terms: None };
    let mut publish = Box::pin(world.broker.publish(&to, publish));
    assert!(futures::poll!(publish.as_mut()).is_pending());
    drop(publish);
    assert_eq!((world.usage().records_published, world.usage().bytes_published), (1, 3 + 10 + 1 + 3));
}
