//! Tests of the feed.

use futures::FutureExt;
use ulid::Ulid;

use super::*;
use crate::ids::PartitionIndex;

fn partition(index: u32) -> Partition {
    Partition { topic: TopicId(Ulid(1)), index: PartitionIndex(index) }
}

// Fails when `add` does not mark the partition: what moved between a look at the tail and the call would be missed.
#[tokio::test]
async fn a_new_partition_is_reported_at_once_and_then_only_when_it_moves() {
    let feeds = Arc::<Feeds>::default();
    let mut follow = feeds.follow();
    follow.add(partition(0));
    follow.add(partition(1));
    assert_eq!(follow.changed().await, [0, 1]);
    assert!(follow.changed().now_or_never().is_none());
    feeds.moved([partition(1), partition(5)]);
    assert_eq!(follow.changed().await, [1]);
}

// Fails when a wake-up between two calls is lost.
#[tokio::test]
async fn what_moves_while_nobody_waits_is_reported_later() {
    let feeds = Arc::<Feeds>::default();
    let mut follow = feeds.follow();
    follow.add(partition(0));
    follow.changed().await;
    assert!(follow.changed().now_or_never().is_none());
    feeds.moved([partition(0)]);
    feeds.moved([partition(0)]);
    assert_eq!(follow.changed().await, [0]);
    assert!(follow.changed().now_or_never().is_none());
}

#[tokio::test]
async fn a_follower_that_is_gone_leaves_nothing_behind() {
    let feeds = Arc::<Feeds>::default();
    let mut follow = feeds.follow();
    follow.add(partition(0));
    let removed = follow.add(partition(1));
    follow.remove(removed);
    feeds.topic_moved(partition(0).topic);
    assert_eq!(follow.changed().await, [0]);
    drop(follow);
    assert!(feeds.lock().partitions.is_empty());
}
