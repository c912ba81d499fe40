//! Who owned which shard, in order: the chain of claims, and the logs that it leads through.

use std::collections::{BTreeMap, HashMap};

use futures::{StreamExt, TryStreamExt};

use crate::error::Result;
use crate::ids::{Epoch, ObjectHash, SessionId, ShardId, Slot};
use crate::inspect::listing::Listing;
use crate::shard::claim::{self, Claim};
use crate::shard::takeover::{Plan, ShardPlan, logs_in_order};
use crate::store::ObjectStores;

/// The end of a log that no claim names.
const OPEN_END: Slot = Slot(u64::MAX);

/// Claims by shard and epoch.
#[derive(Clone, Debug, Default)]
pub(crate) struct Claims(pub(crate) BTreeMap<ShardId, BTreeMap<Epoch, Claim>>);

/// A session that claimed shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) session: SessionId,
    /// Where its log ended, when a later claim says so.
    pub(crate) end: Option<Slot>,
    pub(crate) shards: Vec<ShardId>,
}

impl Claims {
    /// All claims that are listed.
    ///
    /// # Errors
    /// `Unavailable` when the store cannot be read, `Corrupt` when a claim is broken.
    pub(crate) async fn read(stores: &ObjectStores, listing: &Listing, in_flight: usize) -> Result<Self> {
        let names = listing.claims.iter().flat_map(|(shard, epochs)| epochs.iter().map(|epoch| (*shard, *epoch)));
        let names: Vec<_> = names.collect();
        let mut claims = Self::default();
        let mut read = futures::stream::iter(names)
            .map(|(shard, epoch)| claim::read(stores, shard, epoch))
            .buffered(in_flight.max(1));
        while let Some(claim) = read.try_next().await? {
            claims.add(claim);
        }
        Ok(claims)
    }

    pub(crate) fn add(&mut self, claim: Claim) {
        self.0.entry(claim.shard).or_default().insert(claim.epoch, claim);
    }

    /// The claim of an epoch.
    pub(crate) fn get(&self, shard: ShardId, epoch: Epoch) -> Option<&Claim> {
        self.0.get(&shard)?.get(&epoch)
    }

    /// All owners, each after those whose logs come before its own.
    ///
    /// # Errors
    /// `Corrupt` when the claims of the shards contradict each other.
    pub(crate) fn owners(&self) -> Result<Vec<Owner>> {
        let shards = self.0.iter().map(|(shard, claims)| {
            let before = claims.values().filter_map(|claim| claim.previous);
            let last = claims.values().last().map(|claim| (claim.owner, OPEN_END));
            let logs = before.chain(last).map(|(session, end)| (session, Slot(0), end)).collect();
            ShardPlan { shard: *shard, epoch: Epoch(0), base: None, logs }
        });
        let ordered = logs_in_order(&Plan { shards: shards.collect() })?;
        let ends = self.ends();
        let owner = |(log, shards): (crate::shard::takeover::LogPart, Vec<ShardId>)| {
            debug_assert_eq!(log.hash, ObjectHash::default(), "a log is read from its first slot");
            Owner { session: log.session, end: ends.get(&log.session).copied(), shards }
        };
        Ok(ordered.into_iter().map(owner).collect())
    }

    /// Where logs ended, by the first claim that says so.
    pub(crate) fn ends(&self) -> HashMap<SessionId, Slot> {
        let mut ends = HashMap::new();
        for (session, end) in self.0.values().flat_map(BTreeMap::values).filter_map(|claim| claim.previous) {
            ends.entry(session).or_insert(end);
        }
        ends
    }

    /// The newest claim of each shard.
    pub(crate) fn newest(&self) -> impl Iterator<Item = &Claim> {
        self.0.values().filter_map(|claims| claims.values().last())
    }
}
