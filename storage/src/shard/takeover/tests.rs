//! Tests of what a start makes of claims that no build writes.

use object_store::memory::InMemory;
use ulid::Ulid;

use super::*;
use crate::metrics::StorageMetrics;

// Fails when the epoch before a claim is counted without a look whether there can be one.
#[tokio::test]
async fn a_first_claim_that_names_a_predecessor_is_corrupt() {
    let stores = ObjectStores::of(Arc::new(InMemory::new()), true);
    let health = Health::new(StorageMetrics::default());
    let [cluster, session, owner, before] = [1, 2, 3, 4].map(Ulid);
    let (owner, before) = (SessionId(owner), SessionId(before));
    let claim = Claim { shard: CATALOG_SHARD, epoch: Epoch(0), owner, previous: Some((before, Slot(0))) };
    assert_eq!(claim::create(&stores, &health, &claim).await.expect("created"), None);
    let (cluster, session) = (ClusterId(cluster), SessionId(session));
    let starter = Starter { stores: &stores, health: &health, cluster, session, shards: 1 };
    assert_eq!(starter.claim_all().await.expect_err("refused").kind(), Kind::Corrupt);
}
