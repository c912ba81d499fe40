//! What a record costs in memory on its way to many followers.

use allocation_counter::{AllocationInfo, measure};
use tokio::runtime::Runtime;

use super::streams::{JSON, TEXT, body, config};
use super::*;
use crate::render::EventData;

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
    let runtime = runtime();
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

/// What a thousand followers of a stream have of one append, each by `take`; and what was allocated for the first of them and for all
/// others.
fn append_to_followers(
    (content_type, append): (&str, &str),
    take: impl Fn(&StreamMoved) -> Vec<Bytes>,
) -> (Vec<Vec<Bytes>>, AllocationInfo, AllocationInfo) {
    let runtime = runtime();
    let world = runtime.block_on(world());
    let mut followers = runtime.block_on(async {
        world.put("s", config(content_type), "").await.expect("a stream");
        let mut followers = Vec::with_capacity(FOLLOWERS);
        for _ in 0..FOLLOWERS {
            let topic = world.to(Action::Subscribe, "s");
            let mut follower = world.broker.follow_stream(&topic, StreamFrom::Now, PAYLOAD_BYTES).await.expect("it");
            assert!(follower.next().await.expect("the end").up_to_date);
            followers.push(follower);
        }
        world.append("s", body(content_type, append)).await.expect("appended");
        followers
    });
    let mut taken = Vec::with_capacity(FOLLOWERS);
    let next = |runtime: &Runtime, follower: &mut StreamFollower| {
        let moved = runtime.block_on(follower.next()).expect("it goes on");
        assert_eq!(moved.batches.len(), 1);
        take(&moved)
    };
    let (first, others) = followers.split_first_mut().expect("there are some");
    let made = measure(|| taken.push(next(&runtime, first)));
    let shared = measure(|| others.iter_mut().for_each(|follower| taken.push(next(&runtime, follower))));
    (taken, made, shared)
}

/// Fails when a follower makes an event of its own.
#[test]
fn an_event_of_a_stream_is_in_memory_once_for_a_thousand_followers() {
    let payload = "x".repeat(PAYLOAD_BYTES / 2);
    let (events, made, shared) = append_to_followers((TEXT, &payload), |moved| vec![moved.event(0, EventData::Text)]);
    assert!(made.bytes_max >= payload.len() as u64, "the first one makes the event: {made:?}");
    assert!(events.iter().all(|event| event == &events[0]));
    assert_eq!(events[0][0], format!("event: data\ndata:{payload}\n\n"));
    assert!(shared.bytes_total <= DELIVERY_BYTES * FOLLOWERS as u64, "{shared:?}");
}

/// Fails when each of those who wait for an answer puts small messages together for itself.
#[test]
fn many_small_messages_are_put_together_once_for_a_thousand_who_wait() {
    let messages = vec![format!("\"{}\"", "x".repeat(98)); 5_000].join(",");
    let (answers, made, shared) = append_to_followers((JSON, &format!("[{messages}]")), StreamMoved::pieces);
    assert!(made.bytes_max >= messages.len() as u64, "{made:?}");
    assert!(answers.iter().all(|answer| answer == &answers[0]));
    assert_eq!(answers[0].concat(), format!("[{messages}]").into_bytes());
    assert!(shared.bytes_total <= DELIVERY_BYTES * FOLLOWERS as u64, "{shared:?}");
}

/// Fails when a page that ends within a batch makes text of the whole batch, as those of topics do.
#[test]
fn a_page_of_a_stream_that_takes_a_part_of_an_append_makes_nothing_of_the_rest() {
    let runtime = runtime();
    let world = runtime.block_on(world());
    let messages = vec![format!("\"{}\"", "x".repeat(98)); 5_000].join(",");
    let topic = runtime.block_on(async {
        world.put("s", config(JSON), &format!("[{messages}]")).await.expect("a stream");
        world.to(Action::Subscribe, "s")
    });
    let cost = measure(|| {
        let page = runtime.block_on(world.broker.read_stream(&topic, StreamFrom::Start, 1_024)).expect("a page");
        assert_eq!((page.records, page.up_to_date), (10, false));
    });
    assert!(cost.bytes_total < 64 * 1_024, "{cost:?}");
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}
