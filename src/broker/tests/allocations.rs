//! What a record costs in memory on its way to many followers.

use allocation_counter::measure;

use super::*;

const FOLLOWERS: usize = 1_000;
const PAYLOAD_BYTES: usize = 1 << 20;
/// What the queues and the event of one delivery may take.
const DELIVERY_BYTES: u64 = 1_024;

/// The text of the next records, as one follower gets it.
async fn delivered(follower: &mut Follower) -> Bytes {
    match follower.next().await.expect("it goes on") {
        Event::Records(batch) => follower.sse(&batch, true),
        Event::CaughtUp | Event::Gap { .. } | Event::Closed { .. } | Event::End { .. } => panic!("records were next"),
    }
}

/// Fails when a follower reads or renders a copy of its own.
#[test]
fn a_payload_is_in_memory_once_for_a_thousand_followers() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let world = runtime.block_on(world());
    let mut followers = runtime.block_on(async {
        world.topic("orders", 1).await;
        let mut followers = Vec::with_capacity(FOLLOWERS);
        for _ in 0..FOLLOWERS {
            let mut follower = world.follow(&["orders"], From::Latest).await;
            assert_eq!(next(&mut follower).await, "caught up");
            followers.push(follower);
        }
        world.publish("orders", &[&"x".repeat(PAYLOAD_BYTES)]).await;
        followers
    });
    let mut texts = Vec::with_capacity(FOLLOWERS);
    let (first, others) = followers.split_first_mut().expect("there are some");
    let rendered = measure(|| texts.push(runtime.block_on(delivered(first))));
    assert!(rendered.bytes_max >= PAYLOAD_BYTES as u64, "the first one makes the text: {rendered:?}");
    let shared = measure(|| {
        for follower in others {
            texts.push(runtime.block_on(delivered(follower)));
        }
    });
    assert!(texts.iter().all(|text| text == &texts[0] && text.len() > PAYLOAD_BYTES));
    assert!(shared.bytes_total <= DELIVERY_BYTES * FOLLOWERS as u64, "{shared:?}");
}
